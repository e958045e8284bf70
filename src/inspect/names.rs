//! Names of functions, without `malloc` and without a lock.
//!
//! Purpose: let a thread that may not wait for anybody (the watchdog, while a worker may hold the allocator's lock or the
//! loader's) say which functions a stack is in. Lines and inlined calls are the business of `symbols`, which allocates.
//!
//! Invariants:
//! - Nothing here allocates, frees, or takes a lock. [`Names::prepare`] opens and maps files and sorts tables in memory
//!   from `mmap`; the others only read.
//! - The map of images is the caller's, read before; it is not brought up to date here.
//!
//! It must not know: stacks' owners, where the text goes.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use super::condensed::{First, push_escaped, write_short_function};
use super::folding::{Class, Folding, Named, classify};
use super::modules::ModuleMap;
use super::symbols::{probe_address, shorten_into};

/// Text in memory of the caller's; what does not fit is cut off.
#[derive(Debug)]
pub(crate) struct FixedBuf<'a> {
    bytes: &'a mut [u8],
    len: usize,
    is_cut: bool,
}

impl<'a> FixedBuf<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> FixedBuf<'a> {
        FixedBuf { bytes, len: 0, is_cut: false }
    }

    /// Appends as many whole characters as fit; nothing any more once something was cut off.
    pub(crate) fn push_str(&mut self, text: &str) {
        if self.is_cut {
            return;
        }
        let room = self.bytes.len() - self.len;
        let end = if text.len() <= room { text.len() } else { floor_char_boundary(text, room) };
        self.is_cut = end < text.len();
        self.bytes[self.len..][..end].copy_from_slice(&text.as_bytes()[..end]);
        self.len += end;
    }

    /// Appends `end` in any case, in the place of other text if there is no room.
    pub(crate) fn end_line(&mut self, end: &str) {
        let room = self.bytes.len().saturating_sub(end.len());
        if self.len > room {
            self.truncate(room);
        }
        self.is_cut = false;
        self.push_str(end);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or("")
    }

    /// Whether something did not fit.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Back to a length that it had; forgets that something did not fit.
    pub(crate) fn truncate(&mut self, len: usize) {
        if len <= self.len {
            (self.len, self.is_cut) = (floor_char_boundary(self.as_str(), len), false);
        }
    }
}

/// Never fails: what does not fit is cut off.
impl fmt::Write for FixedBuf<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Longest demangled name that is looked at.
const LONGEST_NAME: usize = 2048;
/// More frames than that are not folded, and not shown.
const MOST_FRAMES: usize = 64;

/// Names for the images of one [`ModuleMap`]. Dropping the last owner of the map frees memory: let a thread that may not
/// do that keep it.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    modules: Arc<ModuleMap>,
}

/// A function, as the linker knows it.
struct Found {
    symbol: &'static [u8],
    offset: usize,
}

impl Names {
    pub(crate) fn new(modules: Arc<ModuleMap>) -> Names {
        Names { modules }
    }

    /// The images that it knows.
    pub(crate) fn modules(&self) -> &Arc<ModuleMap> {
        &self.modules
    }

    /// Opens and reads the files of all images that were not read before in this process: milliseconds, without `malloc`.
    /// Not on a worker. Without it the first question for a name in an image does that for this image.
    pub(crate) fn prepare(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        for image in &self.modules.images {
            let _ = super::elf_files::known(image);
        }
    }

    fn find(&self, probe: usize) -> Option<Found> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            let (image, stated) = self.modules.locate(probe)?;
            let (symbol, offset) = super::elf_files::known(image)?.functions?.at(stated as u64)?;
            Some(Found { symbol, offset })
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        {
            let _ = probe;
            None
        }
    }

    /// Appends the function's path, generic arguments and hash left out (`<app::Conn as std::io::Read>::read`), and
    /// returns the offset of `address` in it; where there is no name, appends `module+0x1234` and returns `None`.
    ///
    /// `address` is that of an instruction; for a return address pass [`probe_address`].
    pub(crate) fn name_of(&self, address: usize, out: &mut FixedBuf<'_>) -> Option<usize> {
        match self.find(address) {
            Some(found) => {
                demangle_into(found.symbol, out);
                Some(found.offset)
            }
            None => {
                self.write_offset(address, out);
                None
            }
        }
    }

    /// `module+0x1234`, where the number is the address as stated in the module's file; `0x7f…` outside of all modules.
    fn write_offset(&self, address: usize, out: &mut FixedBuf<'_>) {
        use fmt::Write as _;
        let _ = match self.modules.locate(address) {
            Some((image, stated)) => {
                push_escaped(image.file_name(), out);
                write!(out, "+{stated:#x}")
            }
            None => write!(out, "{address:#x}"),
        };
    }

    /// Appends a stack in one line, folded as everywhere: `[Conn::read+0x1f] [serve::{closure}+0x80] [app+0x1234]`,
    /// innermost first. Inlined calls are missing in it, and lines.
    ///
    /// `addresses` as walked: `first` tells what the first is, the others are return addresses.
    pub(crate) fn write_stack(&self, addresses: &[usize], first: First, out: &mut FixedBuf<'_>) {
        use fmt::Write as _;
        let shown = &addresses[..addresses.len().min(MOST_FRAMES)];
        let probe = |at: usize| probe_address(shown[at], at > 0 || first == First::ResumePoint);
        let mut classes = [Class::Glue; MOST_FRAMES];
        let mut bytes = [0; LONGEST_NAME];
        for (at, class) in classes.iter_mut().enumerate().take(shown.len()) {
            let mut name = FixedBuf::new(&mut bytes);
            let is_named = self.name_of(probe(at), &mut name).is_some();
            let module = self.modules.locate(probe(at)).map_or("", |(image, _)| image.file_name());
            *class = classify(&Named { function: name.as_str(), is_named, module, file: "" });
        }
        let folding = Folding::of(&classes[..shown.len()]);
        let mut is_first = true;
        for at in (0..shown.len()).filter(|&at| folding.keeps(at, classes[at])) {
            let mut name = FixedBuf::new(&mut bytes);
            let offset = self.name_of(probe(at), &mut name);
            out.push_str(if std::mem::take(&mut is_first) { "[" } else { " [" });
            match offset {
                Some(offset) => {
                    write_short_function(name.as_str(), &mut Escaping(out));
                    let _ = write!(out, "+{offset:#x}");
                }
                None => out.push_str(name.as_str()),
            }
            out.push_str("]");
        }
        if addresses.len() > shown.len() {
            out.push_str(" [...]");
        }
    }

    /// The linker's name of the function around an instruction.
    pub(super) fn symbol_of(&self, address: usize) -> Option<&'static [u8]> {
        self.find(address).map(|found| found.symbol)
    }
}

/// Lets no character through that steers a terminal.
struct Escaping<'a, 'b>(&'a mut FixedBuf<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_escaped(text, self.0);
        Ok(())
    }
}

/// Appends a linker's name as a path, generic arguments left out.
fn demangle_into(symbol: &[u8], out: &mut FixedBuf<'_>) {
    use fmt::Write as _;
    let symbol = match std::str::from_utf8(symbol) {
        Ok(symbol) => symbol,
        Err(error) => std::str::from_utf8(&symbol[..error.valid_up_to()]).unwrap_or(""),
    };
    let mut bytes = [0; LONGEST_NAME];
    let mut whole = FixedBuf::new(&mut bytes);
    // The alternate form leaves the hash out.
    let _ = write!(whole, "{:#}", rustc_demangle::demangle(symbol));
    let text = if whole.is_cut() { closed_part(whole.as_str()) } else { whole.as_str() };
    shorten_into(text, out);
}

/// What stands before the first bracket that was cut off from its end.
fn closed_part(text: &str) -> &str {
    let (mut depth, mut opened, mut previous) = (0usize, text.len(), 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => {
                if depth == 0 {
                    opened = at;
                }
                depth += 1;
            }
            b'>' if previous != b'-' => depth = depth.saturating_sub(1),
            _ => {}
        }
        previous = byte;
    }
    if depth > 0 { &text[..opened] } else { text }
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new(Arc::new(ModuleMap::load()))
    }

    fn name(names: &Names, address: usize) -> (String, Option<usize>) {
        let mut bytes = [0; 512];
        let mut out = FixedBuf::new(&mut bytes);
        let offset = names.name_of(address, &mut out);
        (out.as_str().into(), offset)
    }

    #[test]
    fn own_functions_and_those_of_libraries_have_names() {
        let names = names();
        names.prepare();
        let own = own_functions_and_those_of_libraries_have_names as *const () as usize;
        let (text, offset) = name(&names, own);
        assert!(text.ends_with("names::tests::own_functions_and_those_of_libraries_have_names"), "{text}");
        assert_eq!(offset, Some(0));
        assert_eq!(name(&names, own + 3), (text, Some(3)));
        let (text, offset) = name(&names, libc::qsort as *const () as usize);
        // The address may be that of a stub in the program that jumps there.
        assert!(text.contains("qsort") || text.contains('+'), "{text} {offset:?}");
        assert_eq!(name(&names, 0x10), ("0x10".into(), None));
    }

    #[test]
    fn a_buffer_cuts_at_characters_and_stays_cut() {
        let mut bytes = [0; 6];
        let mut buf = FixedBuf::new(&mut bytes);
        buf.push_str("abcé→x");
        assert_eq!((buf.as_str(), buf.is_cut()), ("abcé", true));
        buf.push_str("y");
        assert_eq!(buf.as_str(), "abcé");
        buf.truncate(4);
        assert_eq!((buf.as_str(), buf.is_cut()), ("abc", false));
        buf.push_str("→");
        assert_eq!((buf.as_str(), buf.is_cut()), ("abc→", false));
    }

    #[test]
    fn hostile_symbols_are_cut_not_followed() {
        let mut bytes = [0; 64];
        for symbol in [&b"\xff\xfe"[..], b"_R\xffx", b"_ZN", b"", &[b'<'; 9000]] {
            let mut out = FixedBuf::new(&mut bytes);
            demangle_into(symbol, &mut out);
            assert!(out.as_bytes().len() <= 64);
        }
    }

    #[test]
    fn arguments_that_were_cut_off_are_left_out() {
        assert_eq!(closed_part("a::f<b<c>, d"), "a::f");
        assert_eq!(closed_part("<a as b>::f<c"), "<a as b>::f");
        assert_eq!(closed_part("a<fn() -> b>::c"), "a<fn() -> b>::c");
    }

    #[test]
    fn a_stack_is_one_line() {
        let names = names();
        let here = a_stack_is_one_line as *const () as usize;
        let mut bytes = [0; 4096];
        let mut out = FixedBuf::new(&mut bytes);
        names.write_stack(&[here + 8, here + 0x11], First::Instruction, &mut out);
        assert_eq!(out.as_str(), "[a_stack_is_one_line+0x8] [a_stack_is_one_line+0x10]");
        let mut out = FixedBuf::new(&mut bytes);
        names.write_stack(&[here + 8; 1000], First::Instruction, &mut out);
        assert!(out.as_str().ends_with(" [...]"), "{}", out.as_str());
        let mut out = FixedBuf::new(&mut bytes);
        names.write_stack(&[], First::Instruction, &mut out);
        assert_eq!(out.as_str(), "");
    }
}
