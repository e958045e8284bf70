//! Tests of what is read of debug information: against `addr2line` in this program's, and in some made by hand for what a
//! compiler writes seldom or never.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use addr2line::Context;
use gimli::{Dwarf, EndianSlice, Error, NativeEndian, SectionId};

use super::dwarf_calls::Reader;
use super::dwarf_units::Units;
use super::modules::ModuleMap;
use super::{elf_files, elf_lines};

/// A call in words: function, file, line, column.
type Told = (Option<String>, Option<String>, Option<u32>, Option<u32>);

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn ours(units: &mut Units, address: u64) -> Vec<Told> {
    let Some((unit, calls)) = units.at(address) else { return Vec::new() };
    let mut told = |call: &super::dwarf_units::Call| {
        let file = call.place.file.and_then(|file| units.file(unit, file)).map(str::to_owned);
        (call.function.map(text), file, call.place.line, call.place.column)
    };
    calls.iter().map(&mut told).collect()
}

fn theirs(context: &Context<Reader>, address: u64) -> Vec<Told> {
    let mut calls = Vec::new();
    let Ok(mut frames) = context.find_frames(address).skip_all_loads() else { return calls };
    while let Ok(Some(frame)) = frames.next() {
        let location = frame.location.as_ref();
        calls.push((
            frame.function.as_ref().map(|function| text(function.name.slice())),
            location.and_then(|location| location.file).map(str::to_owned),
            location.and_then(|location| location.line).filter(|line| *line != 0),
            location.and_then(|location| location.column).filter(|column| *column != 0),
        ));
    }
    calls
}

#[test]
fn this_program_is_told_as_addr2line_tells_it() {
    let map = ModuleMap::load();
    let (image, here) = map.locate(ours as *const () as usize).unwrap();
    let known = elf_files::known(image).unwrap();
    let Some(dwarf) = elf_lines::dwarf(known) else {
        // A profile without debug information: nothing to compare.
        return;
    };
    let mut units = Units::new(dwarf);
    let context = Context::from_dwarf(elf_lines::dwarf(known).unwrap()).unwrap();
    let (mut known, mut inlined) = (0, 0);
    // Every few bytes around this test, and from there through the standard library, each time in another unit.
    let near = (here as u64..).step_by(7).take(1500);
    let far = (0..40).map(|n| std::thread::yield_now as *const () as u64 - image.bias as u64 + n * 4099);
    for address in near.chain(far) {
        let told = ours(&mut units, address);
        assert_eq!(told, theirs(&context, address), "at {address:#x}");
        known += usize::from(!told.is_empty());
        inlined += usize::from(told.len() > 1);
    }
    assert!(known > 1000 && inlined > 0, "{known} known, {inlined} of them inlined");
}

/// Debug information by hand. Addresses take 8 bytes.
#[derive(Default, Clone)]
struct Sections {
    info: Vec<u8>,
    abbrev: Vec<u8>,
    line: Vec<u8>,
    ranges: Vec<u8>,
}

impl Sections {
    fn open(&self) -> Units {
        let dwarf = Dwarf::load(|id| -> Result<Reader, Error> {
            let bytes: &[u8] = match id {
                SectionId::DebugInfo => &self.info,
                SectionId::DebugAbbrev => &self.abbrev,
                SectionId::DebugLine => &self.line,
                SectionId::DebugRanges => &self.ranges,
                _ => &[],
            };
            // Some kilobytes for a test.
            Ok(EndianSlice::new(Vec::leak(bytes.to_vec()), NativeEndian))
        });
        Units::new(dwarf.unwrap())
    }

    fn all(&mut self) -> [&mut Vec<u8>; 4] {
        [&mut self.info, &mut self.abbrev, &mut self.line, &mut self.ranges]
    }
}

/// Behind its length, in four bytes.
fn sized(content: &[u8]) -> Vec<u8> {
    [&u32::try_from(content.len()).unwrap().to_ne_bytes()[..], content].concat()
}

/// Whether, and how, the unit states which addresses it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum States {
    Bounds,
    List,
    Nothing,
}

/// A unit with a function at 0x1000..0x1040 that has a call inlined at 0x1010..0x1020, and with lines for these; one function
/// that the linker left out stands before it, in both.
fn by_hand(states: States) -> Sections {
    let address = |at: u64| at.to_ne_bytes().to_vec();
    let special = |steps: u8, lines: u8| 13 + 14 * steps + lines + 3;
    let own: &[u8] = match states {
        // low_pc: addr, high_pc: data4
        States::Bounds => &[0x11, 0x01, 0x12, 0x06],
        // ranges: sec_offset
        States::List => &[0x55, 0x17],
        States::Nothing => &[],
    };
    let abbrev = [
        // A kind that is not used: the unit's is not the first. base_type, byte_size: data1
        &[9, 0x24, 0, 0x0b, 0x0b, 0, 0][..],
        // compile_unit with children, name: string, stmt_list: sec_offset
        &[1, 0x11, 1, 0x03, 0x08, 0x10, 0x17],
        own,
        &[0, 0],
        // subprogram with children, low_pc: addr, high_pc: data4, linkage_name: string, frame_base: exprloc
        &[2, 0x2e, 1, 0x11, 0x01, 0x12, 0x06, 0x6e, 0x08, 0x40, 0x18, 0, 0],
        // inlined_subroutine, abstract_origin: ref4, low_pc, high_pc, call_file, call_line and call_column: data1
        &[3, 0x1d, 0, 0x31, 0x13, 0x11, 0x01, 0x12, 0x06, 0x58, 0x0b, 0x59, 0x0b, 0x57, 0x0b, 0, 0],
        // subprogram, name: string, const_value: indirect, which is the one form that ours leaves to `gimli`
        &[4, 0x2e, 0, 0x03, 0x08, 0x1c, 0x16, 0, 0],
        // variable, location: exprloc, const_value: block2, name: string, decl_line: udata, decl_file: data1
        &[5, 0x34, 0, 0x02, 0x18, 0x1c, 0x03, 0x03, 0x08, 0x3b, 0x0f, 0x3a, 0x0b, 0, 0],
        &[0],
    ]
    .concat();
    let own = match states {
        States::Bounds => [address(0x1000), 0x40u32.to_ne_bytes().to_vec()].concat(),
        States::List => 0u32.to_ne_bytes().to_vec(),
        States::Nothing => Vec::new(),
    };
    // Version, where its kinds are described, size of an address.
    let mut info = [&4u16.to_ne_bytes()[..], &0u32.to_ne_bytes(), &[8]].concat();
    info.extend([&[1][..], b"a.rs\0", &0u32.to_ne_bytes(), &own].concat());
    let inner = u32::try_from(info.len() + 4).unwrap();
    info.extend([&[4][..], b"inner\0", &[0x0d, 0xff, 0x7f]].concat());
    info.extend([&[5][..], &[2, 0, 0], &2u16.to_ne_bytes(), &[2, 2], b"v\0", &[0x80, 1], &[1]].concat());
    info.extend([&[2][..], &address(0), &0x80u32.to_ne_bytes(), b"gone\0", &[1, 0x9c], &[0]].concat());
    info.extend([&[2][..], &address(0x1000), &0x40u32.to_ne_bytes(), b"_ZN5outerE\0", &[1, 0x9c]].concat());
    info.extend(
        [&[3][..], &inner.to_ne_bytes(), &address(0x1010), &0x10u32.to_ne_bytes(), &[2, 77, 9], &[0], &[0]].concat(),
    );
    let mut program = Vec::new();
    for at in [0, 0x1000] {
        // set_address; advance_line by 9, copy; advance_pc by 0x10, set_file 2, advance_line by 30, set_column 5, copy
        program.extend([&[0, 9, 2][..], &address(at), &[3, 9, 1], &[2, 0x10, 4, 2, 3, 30, 5, 5, 1]].concat());
        // Special opcodes: 0x10 on and a line more; 8 on; a line more at the same address. To the end, end_sequence.
        program.extend([special(0x10, 1), special(8, 0), special(0, 1), 2, 0x18, 0, 1, 1]);
    }
    // Instructions of one byte, 1 operation, statements; lines from -3 on, 14 of them; 12 standard opcodes.
    let mut head = vec![1, 1, 1, (-3i8).cast_unsigned(), 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
    head.extend([&b"/src\0\0"[..], b"a.rs\0", &[1, 0, 0], b"b.rs\0", &[0, 0, 0], &[0]].concat());
    let line = sized(&[&4u16.to_ne_bytes()[..], &sized(&head), &program].concat());
    let ranges = [address(0x1000), address(0x1020), address(0x1020), address(0x1040), address(0), address(0)].concat();
    Sections { info: sized(&info), abbrev, line, ranges }
}

#[test]
fn a_unit_by_hand_is_read() {
    let told = |function: &str, file: &str, line, column| {
        (Some(function.to_owned()), Some(file.to_owned()), Some(line), Some(column).filter(|column| *column != 0))
    };
    for states in [States::Bounds, States::List, States::Nothing] {
        let mut units = by_hand(states).open();
        let mut at = |address| ours(&mut units, address);
        for address in [0x1000, 0x100f] {
            assert_eq!(at(address), [told("_ZN5outerE", "/src/a.rs", 10, 0)], "{states:?}");
        }
        for address in [0x1010, 0x101f] {
            let calls = [told("inner", "b.rs", 40, 5), told("_ZN5outerE", "b.rs", 77, 9)];
            assert_eq!(at(address), calls, "{states:?}");
        }
        assert_eq!(at(0x1020), [told("_ZN5outerE", "b.rs", 41, 5)], "{states:?}");
        assert_eq!(at(0x1028), [told("_ZN5outerE", "b.rs", 42, 5)], "{states:?}: of two rows the later");
        for address in [0xfff, 0x1040, 0x2000, u64::MAX] {
            assert_eq!(at(address), [], "{states:?} at {address:#x}");
        }
    }
}

#[test]
fn rows_are_found_around_an_address() {
    let mut units = by_hand(States::Bounds).open();
    let (unit, _) = units.at(0x1025).unwrap();
    assert_eq!(units.rows(unit, 0x1025, 0..0x1025), [0x1000, 0x1010, 0x1020]);
    assert_eq!(units.rows(unit, 0x1025, 0x1015..0x1020), [0x1010]);
    assert_eq!(units.rows(unit, 0x1025, 0x1026..0x2000), [0x1020, 0x1028]);
    assert_eq!(units.rows(unit, 0x5000, 0..0x6000), [0; 0]);
}

/// No byte of a file is trusted: every one is changed in turn, and every section ends early in turn.
#[test]
fn broken_units_end_and_do_not_panic() {
    let begun = Instant::now();
    for states in [States::Bounds, States::List, States::Nothing] {
        let whole = by_hand(states);
        for section in 0..4 {
            for at in 0..whole.clone().all()[section].len() {
                for change in [Some(0), Some(1), Some(0x7f), Some(0x80), Some(0xff), None] {
                    let mut broken = whole.clone();
                    let section = &mut broken.all()[section];
                    match change {
                        Some(byte) => section[at] = byte,
                        None => section.truncate(at),
                    }
                    let mut units = broken.open();
                    for address in [0x1000, 0x1018, 0x1028, 0x103f, 5, u64::MAX - 1] {
                        std::hint::black_box(ours(&mut units, address));
                    }
                }
            }
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "some run for long");
}
