//! Lines and inlined calls of one file, from DWARF.
//!
//! Purpose: from an address stated in a file to its frames, innermost first.
//!
//! Invariants:
//! - A file's units are listed at its first address; what is read of them is kept.
//! - Broken debug information gives fewer frames, never a panic of ours or an endless loop.
//!
//! It must not know: which files there are, how names are shortened or frames printed.
#![forbid(unsafe_code)]

use gimli::{
    AttributeValue, DW_AT_abstract_origin, DW_AT_name, DW_AT_specification, Dwarf, EndianSlice, NativeEndian,
    SectionId, UnitOffset, UnitRef,
};
use std::collections::HashMap;

use super::dwarf_calls::Reader;
use super::dwarf_units::{Call, UnitId, Units};
use super::elf_files::Known;

/// One function at an address; borrowed for as long as it takes to copy what is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place<'a> {
    /// As in the file: mangled, or a bare name.
    pub(super) function: Option<&'a [u8]>,
    pub(super) file: Option<&'a str>,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
    /// The instruction has no line; this is that of one nearby.
    pub(super) is_near: bool,
}

/// The debug information of every file that was asked about.
#[derive(Default)]
pub(super) struct Lines {
    /// By the address of what is known, which is never removed.
    units: HashMap<usize, Option<Units>>,
}

/// How far around an address without a line one is looked for: before it, behind it, in rows of the table.
const LOOK_BACK: u64 = 1024;
const LOOK_AHEAD: u64 = 256;
const MOST_ROWS: usize = 64;

impl Lines {
    /// Hands over the frames at `stated`, innermost first; none if the file says nothing about it.
    pub(super) fn at(&mut self, known: &'static Known, stated: u64, mut frame: impl FnMut(Place<'_>)) {
        let Some(units) = self.of(known) else { return };
        let Some((unit, chain)) = units.at(stated) else { return };
        for (at, call) in chain.iter().enumerate() {
            let lacks_line = call.place.line.is_none() && call.place.file.is_some();
            let near = if lacks_line { line_near(units, unit, stated, &chain[at..]) } else { None };
            frame(Place {
                function: call.function,
                file: call.place.file.and_then(|file| units.file(unit, file)),
                line: call.place.line.or(near),
                column: call.place.column,
                is_near: near.is_some(),
            });
        }
    }

    /// For each of the frames that [`Lines::at`] hands over, its generic arguments: `<u8, alloc::string::String>`. The
    /// linker's names leave them out.
    pub(super) fn arguments(&mut self, known: &'static Known, stated: u64) -> Vec<Option<&'static str>> {
        let Some(units) = self.of(known) else { return Vec::new() };
        let Some((unit, chain)) = units.at(stated) else { return Vec::new() };
        let Some(unit) = units.unit(unit) else { return Vec::new() };
        let name = |call: &Call| call.entry.and_then(|entry| plain_name(unit, entry));
        let arguments = |name: &'static str| name.find('<').filter(|&at| at > 0).map(|at| &name[at..]);
        chain.iter().map(|call| name(call).and_then(arguments)).collect()
    }

    fn of(&mut self, known: &'static Known) -> Option<&mut Units> {
        self.units.entry(std::ptr::from_ref(known).addr()).or_insert_with(|| dwarf(known).map(Units::new)).as_mut()
    }
}

/// A function's name as it stands in the source, with its arguments.
fn plain_name(unit: UnitRef<'_, Reader>, mut offset: UnitOffset) -> Option<&'static str> {
    // An inlined call refers to its function, which may refer to its declaration.
    for _ in 0..4 {
        let entry = unit.entry(offset).ok()?;
        if let Some(name) = entry.attr_value(DW_AT_name) {
            return std::str::from_utf8(unit.attr_string(name).ok()?.slice()).ok();
        }
        let other = [DW_AT_abstract_origin, DW_AT_specification].into_iter().find_map(|at| entry.attr_value(at))?;
        let AttributeValue::UnitRef(other) = other else { return None };
        offset = other;
    }
    None
}

/// The debug information of a file; nothing if it has no lines.
pub(super) fn dwarf(known: &'static Known) -> Option<Dwarf<Reader>> {
    let file = known.debug_file();
    if !file.has_lines() {
        return None;
    }
    Dwarf::load(|id| -> Result<Reader, gimli::Error> {
        let is_needed = !matches!(
            id,
            SectionId::DebugAranges
                | SectionId::DebugLoc
                | SectionId::DebugLocLists
                | SectionId::DebugMacinfo
                | SectionId::DebugMacro
                | SectionId::DebugNames
                | SectionId::DebugTypes
        );
        Ok(EndianSlice::new(if is_needed { file.section(id.name()) } else { &[] }, NativeEndian))
    })
    .ok()
}

/// A line for the innermost of these calls: that of the nearest instruction that belongs to the same call and has one.
///
/// The compiler states no line (0) where it merged what stood on several ones: the arms of a `match` that end in the same
/// call, for example, become one call, which is neither the one nor the other.
fn line_near(units: &mut Units, unit: UnitId, stated: u64, chain: &[Call]) -> Option<u32> {
    let (innermost, outer) = chain.split_first()?;
    let line_at = |units: &mut Units, address: u64| {
        let found = units.calls(unit, address)?;
        let (same, rest) = found.split_at_checked(found.len().checked_sub(outer.len())?)?;
        let same = same
            .last()
            .filter(|same| (same.function, same.place.file) == (innermost.function, innermost.place.file))?;
        let is_same_call =
            rest.iter().zip(outer).all(|(a, b)| (a.function, a.place.line) == (b.function, b.place.line));
        same.place.line.filter(|_| is_same_call)
    };
    let before = units.rows(unit, stated, stated.saturating_sub(LOOK_BACK)..stated);
    let found = before.iter().rev().take(MOST_ROWS).find_map(|address| line_at(units, *address));
    found.or_else(|| {
        let behind = units.rows(unit, stated, stated + 1..stated.saturating_add(LOOK_AHEAD));
        behind.iter().take(MOST_ROWS).find_map(|address| line_at(units, *address))
    })
}
