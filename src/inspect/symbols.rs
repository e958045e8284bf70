//! Names, files and lines for code addresses.
//!
//! Purpose: turn an address into its frames, inlined calls expanded, once per address.
//!
//! Invariants:
//! - The cache is bounded: two generations of half the limit each. When the young one is full, the
//!   old one is dropped and the young one takes its place; what is used again moves to the young
//!   one. So the addresses of one dump survive it and rarely used ones go.
//! - Resolving may take milliseconds and the symbolizer's process-wide lock: never on a worker.
//!
//! It must not know: stacks, tasks, how a frame is printed.
//!
//! On Linux the files are read by `elf_lines` and `names`: the executable from its mapping, libraries by path. Elsewhere
//! it is the `backtrace` crate's business, which learns the loaded images once, at its first use.
#![forbid(unsafe_code)]

use super::modules::ModuleMap;
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

/// Addresses kept by [`Symbols::new`].
pub(crate) const DEFAULT_LIMIT: usize = 100_000;

/// One function at one place. Several share an address when calls were inlined.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Frame {
    /// Demangled, without hash, generic arguments left out: `<Conn as Read>::read`. Where
    /// `is_named` is false: `module+0xoffset`, ready for offline symbolization.
    pub(crate) function: Arc<str>,
    pub(crate) is_named: bool,
    /// File name of the executable or library; `None` outside of all known ones.
    pub(crate) module: Option<Arc<str>>,
    pub(crate) file: Option<Arc<str>>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    /// The compiler states no line for that place, because it merged several; `line` is that of one nearby.
    pub(crate) is_near: bool,
}

/// How much the program's build kept. For anything but `Full` advise `debug = 1` in the profile.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DebugInfo {
    /// Lines, and names with their paths.
    Full,
    /// `debug = "line-tables-only"`: lines, but `read` instead of `<Conn as Read>::read`.
    ShortNames,
    /// No debug information: names, but neither lines nor inlined calls.
    NamesOnly,
    /// `module+0xoffset` only.
    Stripped,
}

/// The cache in front of the symbolizer.
pub(crate) struct Symbols {
    modules: Arc<ModuleMap>,
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
    lines: super::elf_lines::Lines,
    frames: Generations<usize, Arc<[Frame]>>,
    texts: HashSet<Arc<str>>,
    /// The debug information gave a name without its path that the symbol table knows with it.
    has_short_names: bool,
}

impl std::fmt::Debug for Symbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbols").field("addresses", &self.frames.len()).finish_non_exhaustive()
    }
}

/// How functions are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Without generic arguments.
    Short,
    /// With them, as far as they are known.
    Whole,
}

impl Names {
    fn of(self, demangled: &str) -> String {
        match self {
            Names::Short => shorten(demangled),
            Names::Whole => demangled.to_owned(),
        }
    }
}

/// The address to look up: a return address points behind the call it belongs to.
pub(crate) fn probe_address(address: usize, is_return_address: bool) -> usize {
    address.wrapping_sub(usize::from(is_return_address))
}

impl Symbols {
    pub(crate) fn new(modules: Arc<ModuleMap>) -> Symbols {
        Symbols::with_limit(modules, DEFAULT_LIMIT)
    }

    pub(crate) fn with_limit(modules: Arc<ModuleMap>, limit: usize) -> Symbols {
        Symbols {
            modules,
            #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
            lines: super::elf_lines::Lines::default(),
            frames: Generations::new(limit),
            texts: HashSet::new(),
            has_short_names: false,
        }
    }

    /// Call when images were loaded or unloaded: an address may mean another function now.
    pub(crate) fn set_modules(&mut self, modules: Arc<ModuleMap>) {
        self.modules = modules;
        self.frames.clear();
        self.texts.clear();
    }

    /// Makes the symbolizer open and index the executable, which is the slow part and should not
    /// happen during the first report, nor after the file was replaced on disk. Tells what this
    /// program's stacks will show.
    pub(crate) fn warm(&mut self) -> DebugInfo {
        // The standard library brings its own line tables, so only this function can tell.
        let frames = self.resolve(Symbols::warm as *const () as usize, false);
        if cfg!(not(any(target_os = "linux", target_os = "android"))) {
            // Elsewhere it may lie in other files.
            self.resolve(std::thread::yield_now as *const () as usize, false);
        }
        match frames.last() {
            Some(frame) if !frame.is_named => DebugInfo::Stripped,
            Some(frame) if frame.line.is_none() => DebugInfo::NamesOnly,
            _ if self.has_short_names => DebugInfo::ShortNames,
            _ => DebugInfo::Full,
        }
    }

    /// The frames at `address`, innermost first, never empty. `is_return_address` is true for all
    /// but the first address of a walked stack, and for the resume point of a parked task.
    pub(crate) fn resolve(&mut self, address: usize, is_return_address: bool) -> Arc<[Frame]> {
        let probe = probe_address(address, is_return_address);
        if let Some(frames) = self.frames.get(&probe) {
            return Arc::clone(frames);
        }
        let frames = self.look_up(probe);
        if self.frames.insert(probe, Arc::clone(&frames)) {
            // Texts still in use live on in their frames; this only bounds the table.
            self.texts.clear();
        }
        frames
    }

    /// [`Symbols::resolve`] with whole names, generic arguments included; not remembered.
    pub(crate) fn resolve_full(&mut self, address: usize, is_return_address: bool) -> Arc<[Frame]> {
        self.look_up_with(probe_address(address, is_return_address), Names::Whole)
    }

    fn look_up(&mut self, probe: usize) -> Arc<[Frame]> {
        self.look_up_with(probe, Names::Short)
    }

    fn look_up_with(&mut self, probe: usize, names: Names) -> Arc<[Frame]> {
        let mut found = self.find(probe, names);
        if found.is_empty() {
            found.push(Found::default());
        }
        let module = self.modules.locate(probe).map(|(image, _)| image.file_name().to_owned());
        let module = module.map(|name| self.intern(name));
        found
            .into_iter()
            .map(|found| Frame {
                is_named: found.function.is_some(),
                module: module.clone(),
                function: match found.function {
                    Some(name) => self.intern(name),
                    None => self.intern(self.offset_name(probe)),
                },
                file: found.file.map(|file| self.intern(file)),
                line: found.line,
                column: found.column,
                is_near: found.is_near,
            })
            .collect()
    }

    #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
    fn find(&mut self, probe: usize, names: Names) -> Vec<Found> {
        let mut found = Vec::new();
        let Some((image, stated)) = self.modules.locate(probe) else { return found };
        let Some(known) = super::elf_files::known(image) else { return found };
        let stated = stated as u64;
        let demangled =
            |symbol: &[u8]| names.of(&format!("{:#}", rustc_demangle::demangle(&String::from_utf8_lossy(symbol))));
        let mut is_whole = false;
        self.lines.at(known, stated, |place| {
            is_whole = place.function.is_some_and(is_path);
            found.push(Found {
                function: place.function.map(demangled),
                file: place.file.map(str::to_owned),
                line: place.line,
                column: place.column,
                is_near: place.is_near,
            });
        });
        // The symbol table knows the function that was not inlined: with its path, which line tables leave out.
        let symbol = || known.functions.and_then(|functions| functions.at(stated)).map(|(symbol, _)| symbol);
        match found.last_mut() {
            Some(_) if is_whole => {}
            Some(outermost) => {
                if let Some(symbol) = symbol() {
                    self.has_short_names |= outermost.function.is_some() && is_path(symbol);
                    outermost.function = Some(demangled(symbol));
                }
            }
            None => found.extend(symbol().map(|s| Found { function: Some(demangled(s)), ..Found::default() })),
        }
        if names == Names::Whole {
            for (found, arguments) in found.iter_mut().zip(self.lines.arguments(known, stated)) {
                if let (Some(function), Some(arguments)) = (&mut found.function, arguments)
                    && !function.ends_with('>')
                {
                    function.push_str("::");
                    function.push_str(arguments);
                }
            }
        }
        found
    }

    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
    fn find(&mut self, probe: usize, names: Names) -> Vec<Found> {
        let mut found = Vec::new();
        if cfg!(miri) {
            // It names only what it gave out itself, not the instruction before.
            return found;
        }
        // The symbolizer takes every address for a return address and subtracts one itself.
        let address = probe.wrapping_add(1) as *mut std::ffi::c_void;
        backtrace::resolve(address, |symbol| {
            found.push(Found {
                // The alternate form leaves the hash out.
                function: symbol.name().map(|symbol| names.of(&format!("{symbol:#}"))),
                file: symbol.filename().map(|file| file.to_string_lossy().into_owned()),
                line: symbol.lineno().filter(|&line| line != 0),
                column: symbol.colno().filter(|&column| column != 0),
                is_near: false,
            });
        });
        found
    }

    fn offset_name(&self, probe: usize) -> String {
        match self.modules.locate(probe) {
            Some((image, stated)) => format!("{}+{stated:#x}", image.file_name()),
            None => format!("{probe:#x}"),
        }
    }

    fn intern(&mut self, text: String) -> Arc<str> {
        if let Some(known) = self.texts.get(text.as_str()) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }
}

/// Whether a linker's name is that of a Rust function, with its path.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
fn is_path(symbol: &[u8]) -> bool {
    symbol.starts_with(b"_ZN") || symbol.starts_with(b"_R")
}

/// What the symbolizer says about one call at an address.
#[derive(Debug, Default)]
struct Found {
    function: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    is_near: bool,
}

/// Leaves generic arguments out of a demangled name but keeps `<Type as Trait>::` and `<impl …>`.
pub(crate) fn shorten(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    shorten_into(name, &mut out);
    out
}

/// [`shorten`], allocating nothing itself; `out` does not fail. Of a name that was cut off inside of brackets, what stands
/// behind the first unclosed one is kept as it is.
pub(crate) fn shorten_into(name: &str, out: &mut impl fmt::Write) {
    let mut rest = name;
    while let Some(at) = rest.find('<') {
        let Some(inner_len) = matching_angle(&rest[at..]) else {
            break;
        };
        let inner = &rest[at + 1..at + inner_len];
        // What stands before decides: after `name`, `name::` or `}` these are arguments.
        let before = if at > 0 { &rest[..at] } else { &name[..name.len() - rest.len()] };
        let opens_path = !before.ends_with(|c: char| c.is_alphanumeric() || "_:}>".contains(c));
        let is_kept = opens_path || inner.starts_with("impl ");
        let kept = if is_kept { &rest[..at] } else { rest[..at].strip_suffix("::").unwrap_or(&rest[..at]) };
        let _ = out.write_str(kept);
        if is_kept {
            let _ = out.write_char('<');
            shorten_into(inner, out);
            let _ = out.write_char('>');
        }
        rest = &rest[at + inner_len + 1..];
    }
    let _ = out.write_str(rest);
}

/// Offset of the `>` that closes the `<` at the start of `text`; the arrow of `fn() -> T` is none.
fn matching_angle(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut previous = 0u8;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' if previous != b'-' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        previous = byte;
    }
    None
}

/// A bounded map in two generations; the policy stands in this module's head.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V, BuildHasherDefault<AddressHasher>>,
    old: HashMap<K, V, BuildHasherDefault<AddressHasher>>,
    half: usize,
}

impl<K: Hash + Eq, V> Generations<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Generations { young: HashMap::default(), old: HashMap::default(), half: (limit / 2).max(1) }
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    pub(crate) fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.old.is_empty() && !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get(key)
    }

    /// True if the old generation was dropped to make room.
    pub(crate) fn insert(&mut self, key: K, value: V) -> bool {
        let is_full = self.young.len() >= self.half;
        if is_full {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
        is_full
    }
}

/// Multiply-and-rotate hash for addresses and lists of them. Their values come from the linker, not
/// from a peer, so it need not withstand crafted keys.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        // The table takes its bits from both ends; the multiplication leaves the low ones poor.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        Symbols::new(Arc::new(ModuleMap::load()))
    }

    #[test]
    fn shortens_generics_and_keeps_paths() {
        for (long, short) in [
            ("app::db::fetch", "app::db::fetch"),
            ("app::db::fetch::<u8, alloc::vec::Vec<u8>>", "app::db::fetch"),
            ("app::Conn<T>::read", "app::Conn::read"),
            (
                "<alloc::boxed::Box<dyn core::ops::FnOnce<(u8,)>> as core::ops::FnOnce<()>>::call_once",
                "<alloc::boxed::Box as core::ops::FnOnce>::call_once",
            ),
            ("a::f::<fn(u8) -> Vec<u8>>::{closure#0}", "a::f::{closure#0}"),
            ("a::impls::<impl b::T<U> for &V<W>>::go", "a::impls::<impl b::T for &V>::go"),
            ("<&mut app::X<T> as std::io::Read>::read", "<&mut app::X as std::io::Read>::read"),
            ("<[T] as app::Tr<U>>::m::<V>", "<[T] as app::Tr>::m"),
            ("broken<", "broken<"),
            ("operator->", "operator->"),
            ("<", "<"),
            ("a<b<c", "a<b<c"),
        ] {
            assert_eq!(shorten(long), short);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_function_has_name_file_and_line() {
        let mut symbols = symbols();
        let info = symbols.warm();
        let here = a_function_has_name_file_and_line as *const () as usize;
        let frames = symbols.resolve(here, false);
        let frame = frames.last().unwrap();
        assert!(frame.function.ends_with("a_function_has_name_file_and_line"), "{frame:?}");
        let has_lines = matches!(info, DebugInfo::Full | DebugInfo::ShortNames);
        assert_eq!(frame.file.as_ref().is_some_and(|f| f.ends_with("symbols.rs")), has_lines);
        assert_eq!(frame.line.is_some(), has_lines);
        assert!(Arc::ptr_eq(&frames, &symbols.resolve(here + 1, true)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn unknown_code_reads_module_and_offset() {
        let mut symbols = symbols();
        let map = ModuleMap::load();
        // The ELF header is mapped but no function's code; the first code byte may have a name.
        let (image, stated) = map.locate(libc::qsort as *const () as usize).unwrap();
        let frames = symbols.resolve(image.bias + stated, false);
        assert_eq!(frames.len(), 1);
        if !frames[0].is_named {
            assert!(frames[0].function.starts_with("libc"), "{frames:?}");
            assert!(frames[0].function.ends_with(&format!("+{stated:#x}")), "{frames:?}");
        }
        assert_eq!(&*symbols.resolve(0x10, false)[0].function, "0x10");
        assert_eq!(symbols.resolve(0, true).len(), 1);
        assert_eq!(symbols.resolve(usize::MAX, false).len(), 1);
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let mut cache = Generations::new(100);
        for key in 0..10_000usize {
            cache.insert(key, key);
            assert_eq!(cache.get(&0), Some(&0), "after {key}");
            assert!(cache.len() <= 101);
        }
        assert_eq!(cache.get(&1), None);
        assert_eq!(cache.get(&9_999), Some(&9_999));
    }
}
