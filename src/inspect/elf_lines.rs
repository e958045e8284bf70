//! Lines and inlined calls of one file, from DWARF.
//!
//! Purpose: from an address stated in a file to its frames, innermost first.
//!
//! Invariants:
//! - A file's debug information is indexed at its first address (milliseconds, some megabytes) and then kept.
//! - Broken debug information gives fewer frames, never a panic of ours or an endless loop.
//!
//! It must not know: which files there are, how names are shortened or frames printed.
#![forbid(unsafe_code)]

use addr2line::Context;
use addr2line::gimli::{
    AttributeValue, DW_AT_abstract_origin, DW_AT_name, DW_AT_specification, Dwarf, EndianSlice, NativeEndian,
    SectionId, UnitOffset, UnitRef,
};
use std::collections::HashMap;

use super::elf_files::Known;

type Reader = EndianSlice<'static, NativeEndian>;

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
    contexts: HashMap<usize, Option<Context<Reader>>>,
}

/// How far around an address without a line one is looked for: before it, behind it, in rows of the table.
const LOOK_BACK: u64 = 1024;
const LOOK_AHEAD: u64 = 256;
const MOST_ROWS: usize = 64;

impl Lines {
    /// Hands over the frames at `stated`, innermost first; none if the file says nothing about it.
    pub(super) fn at(&mut self, known: &'static Known, stated: u64, mut frame: impl FnMut(Place<'_>)) {
        let context = self.contexts.entry(std::ptr::from_ref(known).addr()).or_insert_with(|| open(known));
        let Some(context) = context else { return };
        let chain = chain_at(context, stated);
        for (at, mut place) in chain.iter().copied().enumerate() {
            if place.line.is_none() && place.file.is_some() {
                place.line = line_near(context, stated, &chain[at..]);
                place.is_near = place.line.is_some();
            }
            frame(place);
        }
    }
}

impl Lines {
    /// For each of the frames that [`Lines::at`] hands over, its generic arguments: `<u8, alloc::string::String>`. The
    /// linker's names leave them out.
    pub(super) fn arguments(&mut self, known: &'static Known, stated: u64) -> Vec<Option<&'static str>> {
        let context = self.contexts.entry(std::ptr::from_ref(known).addr()).or_insert_with(|| open(known));
        let Some(context) = context else { return Vec::new() };
        let Some(unit) = context.find_dwarf_and_unit(stated).skip_all_loads() else { return Vec::new() };
        let Ok(mut frames) = context.find_frames(stated).skip_all_loads() else { return Vec::new() };
        let mut all = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.dw_die_offset.and_then(|offset| plain_name(unit, offset));
            all.push(name.and_then(|name| name.find('<').filter(|&at| at > 0).map(|at| &name[at..])));
        }
        all
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

fn open(known: &'static Known) -> Option<Context<Reader>> {
    let file = known.debug_file();
    if !file.has_lines() {
        return None;
    }
    let dwarf = Dwarf::load(|id| -> Result<Reader, addr2line::gimli::Error> {
        let is_needed = !matches!(
            id,
            SectionId::DebugLoc
                | SectionId::DebugLocLists
                | SectionId::DebugMacinfo
                | SectionId::DebugMacro
                | SectionId::DebugTypes
        );
        Ok(EndianSlice::new(if is_needed { file.section(id.name()) } else { &[] }, NativeEndian))
    });
    Context::from_dwarf(dwarf.ok()?).ok()
}

/// The calls that an instruction belongs to, innermost first.
fn chain_at(context: &Context<Reader>, stated: u64) -> Vec<Place<'_>> {
    let mut chain = Vec::new();
    // Split debug information lies in files that are not looked for; names then come from the symbol table.
    let Ok(mut frames) = context.find_frames(stated).skip_all_loads() else { return chain };
    while let Ok(Some(frame)) = frames.next() {
        let location = frame.location.as_ref();
        chain.push(Place {
            function: frame.function.as_ref().map(|function| function.name.slice()),
            file: location.and_then(|location| location.file),
            line: location.and_then(|location| location.line).filter(|&line| line != 0),
            column: location.and_then(|location| location.column).filter(|&column| column != 0),
            is_near: false,
        });
    }
    chain
}

/// A line for the innermost of these calls: that of the nearest instruction that belongs to the same call and has one.
///
/// The compiler states no line (0) where it merged what stood on several ones: the arms of a `match` that end in the same
/// call, for example, become one call, which is neither the one nor the other.
fn line_near(context: &Context<Reader>, stated: u64, chain: &[Place<'_>]) -> Option<u32> {
    let (innermost, outer) = chain.split_first()?;
    let line_at = |address: u64| {
        let found = chain_at(context, address);
        let (same, rest) = found.split_at_checked(found.len().checked_sub(outer.len())?)?;
        let same = same.last().filter(|same| (same.function, same.file) == (innermost.function, innermost.file))?;
        let is_same_call = rest.iter().zip(outer).all(|(a, b)| (a.function, a.line) == (b.function, b.line));
        same.line.filter(|_| is_same_call)
    };
    let rows = |from: u64, to: u64| -> Vec<u64> {
        let rows = context.find_location_range(from, to).ok();
        rows.into_iter().flatten().map(|(address, ..)| address).collect()
    };
    let before = rows(stated.saturating_sub(LOOK_BACK), stated);
    let found = before.iter().rev().take(MOST_ROWS).find_map(|address| line_at(*address));
    let behind = || rows(stated + 1, stated.saturating_add(LOOK_AHEAD));
    found.or_else(|| behind().iter().take(MOST_ROWS).find_map(|address| line_at(*address)))
}
