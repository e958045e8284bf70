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
use addr2line::gimli::{Dwarf, EndianSlice, NativeEndian, SectionId};
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
}

/// The debug information of every file that was asked about.
#[derive(Default)]
pub(super) struct Lines {
    /// By the address of what is known, which is never removed.
    contexts: HashMap<usize, Option<Context<Reader>>>,
}

/// How far before an address without a line one is looked for, in bytes and in rows of the table.
const LOOK_BACK: u64 = 1024;
const MOST_ROWS: usize = 16;

impl Lines {
    /// Hands over the frames at `stated`, innermost first; none if the file says nothing about it.
    pub(super) fn at(&mut self, known: &'static Known, stated: u64, mut frame: impl FnMut(Place<'_>)) {
        let context = self.contexts.entry(std::ptr::from_ref(known).addr()).or_insert_with(|| open(known));
        let Some(context) = context else { return };
        let mut is_innermost = true;
        for_each(context, stated, |mut place| {
            if std::mem::take(&mut is_innermost) && place.line.is_none() && place.file.is_some() {
                place.line = line_before(context, stated, &place);
            }
            frame(place);
        });
    }
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

fn for_each(context: &Context<Reader>, stated: u64, mut f: impl FnMut(Place<'_>)) {
    // Split debug information lies in files that are not looked for; names then come from the symbol table.
    let Ok(mut frames) = context.find_frames(stated).skip_all_loads() else { return };
    while let Ok(Some(frame)) = frames.next() {
        let location = frame.location.as_ref();
        f(Place {
            function: frame.function.as_ref().map(|function| function.name.slice()),
            file: location.and_then(|location| location.file),
            line: location.and_then(|location| location.line).filter(|&line| line != 0),
            column: location.and_then(|location| location.column).filter(|&column| column != 0),
        });
    }
}

/// The line of the instruction before that has one and belongs to the same call.
///
/// The compiler states no line (0) for instructions that it made of several lines' ones, or for its own: in optimised
/// code that is often where a call stands that it merged with another.
fn line_before(context: &Context<Reader>, stated: u64, place: &Place<'_>) -> Option<u32> {
    let rows = context.find_location_range(stated.saturating_sub(LOOK_BACK), stated).ok()?;
    let rows: Vec<(u64, u32)> = rows
        .filter(|(_, _, location)| location.file == place.file)
        .filter_map(|(address, _, location)| Some((address, location.line.filter(|&line| line != 0)?)))
        .collect();
    let chain = chain_at(context, stated);
    rows.iter().rev().take(MOST_ROWS).find(|(address, _)| chain_at(context, *address) == chain).map(|(_, line)| *line)
}

/// The calls that an instruction belongs to, without the line in the innermost.
fn chain_at(context: &Context<Reader>, stated: u64) -> Vec<(Option<Vec<u8>>, Option<u32>)> {
    let mut chain = Vec::new();
    for_each(context, stated, |place| {
        let line = place.line.filter(|_| !chain.is_empty());
        chain.push((place.function.map(<[u8]>::to_vec), line));
    });
    chain
}
