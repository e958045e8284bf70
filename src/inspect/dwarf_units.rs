//! The units of one file's debug information, and what they say about an address.
//!
//! A unit is what the compiler made in one go, some hundred functions. Of every unit only the addresses are read that it
//! covers; all else of it when one of them is asked about, as far as that takes. Split debug information lies in files that
//! are not looked for: such a unit knows lines but no functions.
//!
//! Invariants: units that state no addresses are gone through when an address is in none of the others, once; broken debug
//! information gives fewer frames, never a panic of ours or an endless loop.
//!
//! Must not know: which files there are, how names are shortened or frames printed.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::collections::HashMap;

use gimli::{
    Attribute, AttributeValue, DebugAddrBase, DebugInfoOffset, DebugLineOffset, DwAt, DwForm, Dwarf, Error,
    RangeListsOffset, Section as _, Unit, UnitHeader, UnitOffset, UnitRef, UnitType, constants as dw,
};

use super::dwarf_bytes::Cursor;
use super::dwarf_calls::{Extent, Functions, Reader, Skip};
use super::dwarf_rows::{Row, Rows};

/// One function at an address: how it is called and where in it the address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// As in the file: mangled, or a bare name.
    pub(super) function: Option<&'static [u8]>,
    /// Its entry, if it has one.
    pub(super) entry: Option<UnitOffset>,
    pub(super) place: Place,
}

/// Where in the source code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// What [`Units::file`] knows it by.
    pub(super) file: Option<u64>,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
}

/// The number of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnitId(usize);

/// See the module's head.
#[derive(Debug)]
pub(super) struct Units {
    dwarf: Dwarf<Reader>,
    /// By rising offset.
    slots: Vec<Slot>,
    /// By rising end.
    ranges: Vec<UnitRange>,
    /// Those that have lines but state no addresses.
    unstated: Vec<UnitId>,
}

#[derive(Debug)]
struct UnitRange {
    begin: u64,
    end: u64,
    /// The lowest beginning of this and all that follow.
    lowest: u64,
    unit: UnitId,
}

#[derive(Debug)]
struct Slot {
    offset: DebugInfoOffset,
    header: UnitHeader<Reader>,
    unit: OnceCell<Option<Box<Unit<Reader>>>>,
    read: Option<Box<Read>>,
}

/// What was read of a unit.
#[derive(Debug)]
struct Read {
    functions: Functions,
    rows: Option<Rows>,
    files: HashMap<u64, Option<String>>,
}

/// What the first entry of a unit says.
#[derive(Debug, Default)]
struct Stated {
    extent: Extent,
    lines: Option<DebugLineOffset>,
}

/// References from a name to where it stands; more are a circle.
const MOST_REFERENCES: usize = 16;

impl Units {
    pub(super) fn new(dwarf: Dwarf<Reader>) -> Units {
        let mut units = Units { dwarf, slots: Vec::new(), ranges: Vec::new(), unstated: Vec::new() };
        let (mut headers, mut kinds) = (units.dwarf.units(), Kinds::default());
        while let Ok(Some(header)) = headers.next() {
            let (Some(offset), UnitType::Compilation | UnitType::Skeleton(_) | UnitType::Partial) =
                (header.debug_info_offset(), header.type_())
            else {
                continue;
            };
            let unit = UnitId(units.slots.len());
            units.slots.push(Slot { offset, header, unit: OnceCell::new(), read: None });
            // Partial ones are there for others to refer to.
            if header.type_() != UnitType::Partial {
                units.add_ranges(unit, &mut kinds);
            }
        }
        units.sort();
        units
    }

    fn sort(&mut self) {
        self.ranges.sort_unstable_by_key(|range| (range.end, range.unit.0));
        let mut lowest = u64::MAX;
        for range in self.ranges.iter_mut().rev() {
            lowest = lowest.min(range.begin);
            range.lowest = lowest;
        }
    }

    fn add_ranges(&mut self, id: UnitId, kinds: &mut Kinds) {
        let mut ranges = std::mem::take(&mut self.ranges);
        let before = ranges.len();
        let mut add = |begin, end| {
            if begin < end {
                ranges.push(UnitRange { begin, end, lowest: 0, unit: id });
            }
        };
        let (dwarf, header) = (&self.dwarf, &self.slots[id.0].header);
        let mut has_rows = true;
        if let Some(Stated { extent, lines }) = stated(dwarf, header, kinds) {
            if let Some(list) = extent.list {
                let (none, base) = (DebugAddrBase(0), extent.low.unwrap_or(0));
                let all = dwarf.ranges.ranges(list, header.encoding(), base, &dwarf.debug_addr, none);
                if let Ok(mut all) = all {
                    while let Ok(Some(range)) = all.next() {
                        add(range.begin, range.end);
                    }
                }
            } else if let Some(range) = extent.only() {
                add(range.begin, range.end);
            }
            has_rows = lines.is_some_and(|lines| has_rows_at(dwarf.debug_line.reader().slice(), lines));
        } else if let Some(unit) = self.unit(id) {
            has_rows = unit.line_program.is_some();
            if let Ok(mut all) = unit.unit_ranges() {
                while let Ok(Some(range)) = all.next() {
                    add(range.begin, range.end);
                }
            }
        }
        if ranges.len() == before && has_rows {
            self.unstated.push(id);
        }
        self.ranges = ranges;
    }

    /// The calls that an instruction belongs to, innermost first, and the unit that knows them.
    pub(super) fn at(&mut self, address: u64) -> Option<(UnitId, Vec<Call>)> {
        if let Some(found) = self.in_stated(address) {
            return Some(found);
        }
        let before = self.ranges.len();
        for id in std::mem::take(&mut self.unstated) {
            let found = self.with(id, |_, _, read| -> Vec<_> { read.rows.iter_mut().flat_map(Rows::ranges).collect() });
            let range = |(begin, end)| UnitRange { begin, end, lowest: 0, unit: id };
            self.ranges.extend(found.into_iter().flatten().map(range));
        }
        if self.ranges.len() == before {
            return None;
        }
        self.sort();
        self.in_stated(address)
    }

    fn in_stated(&mut self, address: u64) -> Option<(UnitId, Vec<Call>)> {
        let mut at = self.ranges.partition_point(|range| range.end <= address);
        // Several may cover it, the right one by its neighbours alone.
        while let Some(range) = self.ranges.get(at).filter(|range| range.lowest <= address) {
            let unit = range.unit;
            if range.begin <= address
                && let Some(found) = self.calls(unit, address)
            {
                return Some((unit, found));
            }
            at += 1;
        }
        None
    }

    /// The same, of one unit.
    pub(super) fn calls(&mut self, id: UnitId, address: u64) -> Option<Vec<Call>> {
        self.with(id, |units, unit, read| {
            let row = read.rows.as_mut().and_then(|rows| rows.at(address));
            let chain = read.functions.chain(unit, address);
            let mut place = row.map_or(Place::default(), Place::of);
            let mut calls = Vec::with_capacity(chain.len().max(1));
            for entry in chain.iter().rev() {
                let facts = units.facts(unit, *entry);
                calls.push(Call { function: facts.name, entry: Some(*entry), place });
                place = facts.called_at;
            }
            if chain.is_empty() && row.is_some() {
                calls.push(Call { function: None, entry: None, place });
            }
            calls
        })
        .filter(|calls| !calls.is_empty())
    }

    /// Where rows begin in a unit, between two addresses and in the same sequence as `around`. The row that the first of them
    /// lies in counts.
    pub(super) fn rows(&mut self, id: UnitId, around: u64, between: std::ops::Range<u64>) -> Vec<u64> {
        let found = self.with(id, |_, _, read| {
            let rows = read.rows.as_mut().map_or(&[][..], |rows| rows.around(around));
            let first = rows.partition_point(|row| row.address <= between.start).saturating_sub(1);
            rows[first..].iter().map(|row| row.address).take_while(|address| *address < between.end).collect()
        });
        found.unwrap_or_default()
    }

    /// The path of a file, by its number in a unit.
    pub(super) fn file(&mut self, id: UnitId, number: u64) -> Option<&str> {
        self.with(id, |_, unit, read| {
            read.files.entry(number).or_insert_with(|| path(unit, number));
        })?;
        self.slots.get(id.0)?.read.as_ref()?.files.get(&number)?.as_deref()
    }

    pub(super) fn unit(&self, id: UnitId) -> Option<UnitRef<'_, Reader>> {
        let Slot { header, unit, .. } = self.slots.get(id.0)?;
        let unit = unit.get_or_init(|| self.dwarf.unit(*header).ok().map(Box::new));
        Some(UnitRef::new(&self.dwarf, unit.as_deref()?))
    }

    /// Calls with a unit and what was read of it, which is not to be had by another way meanwhile.
    fn with<T>(&mut self, id: UnitId, call: impl FnOnce(&Units, UnitRef<'_, Reader>, &mut Read) -> T) -> Option<T> {
        let mut read = self.slots.get_mut(id.0)?.read.take();
        let unit = self.unit(id)?;
        let result = call(self, unit, read.get_or_insert_with(|| Box::new(Read::new(unit))));
        self.slots[id.0].read = read;
        Some(result)
    }

    fn facts(&self, unit: UnitRef<'_, Reader>, entry: UnitOffset) -> Facts {
        let mut facts = Facts::default();
        // What could be read counts.
        let _ = self.add_facts(unit, entry, &mut facts);
        facts
    }

    fn add_facts(&self, unit: UnitRef<'_, Reader>, entry: UnitOffset, facts: &mut Facts) -> Result<(), Error> {
        let (mut name, mut next) = (None, None);
        let mut entries = unit.entries_raw(Some(entry))?;
        let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(()) };
        for attribute in abbreviation.attributes() {
            let attribute = entries.read_attribute(*attribute)?;
            let number = || attribute.udata_value().and_then(|number| u32::try_from(number).ok()).filter(|n| *n != 0);
            match (attribute.name(), attribute.value()) {
                (dw::DW_AT_call_file, AttributeValue::FileIndex(file)) => {
                    facts.called_at.file = Some(file).filter(|file| *file > 0 || unit.header.version() >= 5);
                }
                (dw::DW_AT_call_line, _) => facts.called_at.line = number(),
                (dw::DW_AT_call_column, _) => facts.called_at.column = number(),
                _ => add_name(unit, &attribute, &mut name, &mut next),
            }
        }
        facts.name = name.map(|(name, _)| name).or_else(|| self.name_elsewhere(unit, next?));
        Ok(())
    }

    /// The name of what an entry refers to.
    fn name_elsewhere<'a>(
        &'a self,
        mut unit: UnitRef<'a, Reader>,
        mut reference: AttributeValue<Reader>,
    ) -> Option<&'static [u8]> {
        for _ in 0..MOST_REFERENCES {
            let entry = match reference {
                AttributeValue::UnitRef(entry) => entry,
                AttributeValue::DebugInfoRef(offset) => {
                    let after = self.slots.partition_point(|slot| slot.offset <= offset);
                    let id = UnitId(after.checked_sub(1)?);
                    unit = self.unit(id)?;
                    offset.to_unit_offset(&unit.header)?
                }
                _ => return None,
            };
            let (mut name, mut next) = (None, None);
            let mut entries = unit.entries_raw(Some(entry)).ok()?;
            for attribute in entries.read_abbreviation().ok()??.attributes() {
                add_name(unit, &entries.read_attribute(*attribute).ok()?, &mut name, &mut next);
            }
            match (name, next) {
                (Some((name, _)), _) => return Some(name),
                (None, next) => reference = next?,
            }
        }
        None
    }
}

impl Read {
    fn new(unit: UnitRef<'_, Reader>) -> Read {
        let header = &unit.header;
        let info = unit.dwarf.debug_info.reader().slice();
        let bytes = header.debug_info_offset().and_then(|at| info.get(at.0..)).unwrap_or(&[]);
        let bytes = bytes.get(..header.length_including_self()).unwrap_or(bytes);
        let rows = unit.line_program.as_ref().and_then(|program| Rows::new(program.header()));
        Read { functions: Functions::new(bytes, header.root_offset()), rows, files: HashMap::new() }
    }
}

impl Place {
    fn of(row: Row) -> Place {
        let line = Some(row.line).filter(|line| *line != 0);
        let column = Some(row.column).filter(|column| line.is_some() && *column != 0);
        Place { file: Some(row.file), line, column }
    }
}

/// What a function's entry says of it.
#[derive(Debug, Default)]
struct Facts {
    name: Option<&'static [u8]>,
    /// Where it was called, if it was inlined.
    called_at: Place,
}

/// A name that stands at an entry, and whether it is the linker's; where another entry is that knows more.
fn add_name(
    unit: UnitRef<'_, Reader>,
    attribute: &Attribute<Reader>,
    name: &mut Option<(&'static [u8], bool)>,
    next: &mut Option<AttributeValue<Reader>>,
) {
    let text = || Some(unit.attr_string(attribute.value()).ok()?.slice());
    match attribute.name() {
        dw::DW_AT_linkage_name | dw::DW_AT_MIPS_linkage_name => *name = text().map(|text| (text, true)).or(*name),
        dw::DW_AT_name if name.is_none() => *name = text().map(|text| (text, false)),
        dw::DW_AT_abstract_origin | dw::DW_AT_specification => *next = Some(attribute.value()),
        _ => {}
    }
}

/// Where a table of kinds of entries describes each, as far as it was read. Units next to each other often share one.
#[derive(Debug, Default)]
struct Kinds {
    table: usize,
    read: usize,
    /// By the kind's number, where its attributes begin.
    found: Vec<(u64, usize)>,
}

impl Kinds {
    fn attributes<'a>(&mut self, tables: &'a [u8], table: usize, number: u64) -> Option<Cursor<'a>> {
        if self.table != table || self.found.is_empty() {
            self.found.clear();
            (self.table, self.read) = (table, table);
        }
        if let Some((_, at)) = self.found.iter().find(|(known, _)| *known == number) {
            return Some(Cursor::new(tables, *at));
        }
        let mut bytes = Cursor::new(tables, self.read);
        loop {
            let kind = bytes.uleb().filter(|kind| *kind != 0)?;
            let _tag = bytes.uleb()?;
            let _has_children = bytes.u8()?;
            let at = bytes.at;
            while attribute(&mut bytes)?.is_some() {}
            self.found.push((kind, at));
            self.read = bytes.at;
            if kind == number {
                return Some(Cursor::new(tables, at));
            }
        }
    }
}

/// Reads of a unit's first entry what matters here, without what the other kinds of its entries are, which is much more.
/// `None` if it is written in a way that needs those.
fn stated(dwarf: &Dwarf<Reader>, header: &UnitHeader<Reader>, kinds: &mut Kinds) -> Option<Stated> {
    if header.version() >= 5 {
        return None;
    }
    let encoding = header.encoding();
    let at = header.debug_info_offset()?.0.checked_add(header.root_offset().0)?;
    let mut entry = Cursor::new(dwarf.debug_info.reader().slice(), at);
    let number = entry.uleb()?;
    let mut attributes =
        kinds.attributes(dwarf.debug_abbrev.reader().slice(), header.debug_abbrev_offset().0, number)?;
    let mut stated = Stated::default();
    let address_size = usize::from(encoding.address_size);
    let word_size = usize::from(encoding.format.word_size());
    while let Some((name, form)) = attribute(&mut attributes)? {
        let mut offset = || usize::try_from(entry.uint(word_size)?).ok();
        match (name, form) {
            (dw::DW_AT_low_pc, dw::DW_FORM_addr) => stated.extent.low = Some(entry.uint(address_size)?),
            (dw::DW_AT_high_pc, dw::DW_FORM_addr) => stated.extent.high = Some(entry.uint(address_size)?),
            (dw::DW_AT_high_pc, dw::DW_FORM_data4) => stated.extent.size = Some(entry.uint(4)?),
            (dw::DW_AT_high_pc, dw::DW_FORM_data8) => stated.extent.size = Some(entry.uint(8)?),
            (dw::DW_AT_ranges, dw::DW_FORM_sec_offset) => stated.extent.list = Some(RangeListsOffset(offset()?)),
            (dw::DW_AT_stmt_list, dw::DW_FORM_sec_offset) => stated.lines = Some(DebugLineOffset(offset()?)),
            (dw::DW_AT_low_pc | dw::DW_AT_high_pc | dw::DW_AT_ranges | dw::DW_AT_stmt_list, _) => return None,
            (_, form) => Skip::of(form, encoding)?.skip(&mut entry)?,
        }
    }
    Some(stated)
}

/// One attribute of a kind of entries, and how its values are written; nothing behind the last.
#[allow(clippy::option_option, reason = "broken is not the same as the end")]
fn attribute(kinds: &mut Cursor<'_>) -> Option<Option<(DwAt, DwForm)>> {
    let (name, form) = (kinds.uleb()?, kinds.uleb()?);
    if (name, form) == (0, 0) {
        return Some(None);
    }
    let form = DwForm(u16::try_from(form).ok()?);
    if form == dw::DW_FORM_implicit_const {
        kinds.skip_leb()?;
    }
    Some(Some((DwAt(u16::try_from(name).ok()?), form)))
}

/// Whether a line table has more than its head. Most units without code have none.
fn has_rows_at(lines: &[u8], at: DebugLineOffset) -> bool {
    let length_of_program = || {
        let mut bytes = Cursor::new(lines, at.0);
        let (mut length, mut word_size) = (bytes.uint(4)?, 4);
        if length == 0xffff_ffff {
            (length, word_size) = (bytes.uint(8)?, 8);
        }
        let from = bytes.at as u64;
        if bytes.uint(2)? >= 5 {
            bytes.skip(2)?;
        }
        let head = bytes.uint(word_size)?;
        length.checked_sub(bytes.at as u64 - from)?.checked_sub(head)
    };
    length_of_program() != Some(0)
}

fn path(unit: UnitRef<'_, Reader>, number: u64) -> Option<String> {
    let header = unit.line_program.as_ref()?.header();
    let file = header.file(number)?;
    let text = |value| Some(String::from_utf8_lossy(unit.attr_string(value).ok()?.slice()).into_owned());
    let mut path = unit.comp_dir.map_or(String::new(), |folder| String::from_utf8_lossy(folder.slice()).into_owned());
    // Folder 0 is the one in which the compiler ran.
    if file.directory_index() != 0
        && let Some(folder) = file.directory(header)
    {
        push_path(&mut path, &text(folder)?);
    }
    push_path(&mut path, &text(file.path_name())?);
    Some(path)
}

fn push_path(path: &mut String, more: &str) {
    if more.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(more);
}
