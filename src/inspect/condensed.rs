//! The one-line form of a stack: `[src/db.rs fetch|31] [src/main.rs serve|12]`, innermost first.
//!
//! Purpose: which frames of a stack a reader wants to see, and how each is written. The form is
//! Shrapnel's.
//!
//! Invariants:
//! - What is written contains no control or invisible formatting character, whatever a symbol table
//!   says, so one stack is one line and cannot steer a terminal.
//! - A stack that was rendered twice costs one look-up; others cost a look-up per address. Both
//!   caches are bounded.
//!
//! It must not know: tasks, how a stack was walked, where the text goes.
#![forbid(unsafe_code)]

use super::symbols::{AddressHasher, Frame, Generations, Symbols, probe_address};
use super::text::steers;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher as _, BuildHasherDefault};
use std::sync::Arc;

/// What kind of code a frame is, as far as folding is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The program's own code, and anything not known to be something else.
    User,
    /// A standard library function that says something, such as `read_exact`; the C library.
    Std,
    /// What this crate offers to its users, such as `coro::net::TcpStream::read`.
    Api,
    /// Inside of this crate: scheduler, switch, park, wake.
    Machinery,
    /// Frames that only pass a call on: closure shims, panic machinery, thread and program start.
    Glue,
}

/// Modules of this crate whose functions nobody outside calls.
const MACHINERY: &[&str] = &[
    "backdoor",
    "context",
    "inspect",
    "latency",
    "observe",
    "panic",
    "park",
    "probe",
    "reactor",
    "scheduler",
    "script",
    "stack",
    "sys",
    "task",
    "timer",
    "trace",
    "wake",
];

/// Prefixes of standard library paths that are glue.
const GLUE_PATHS: &[&str] = &[
    "core::ops::function::",
    "core::panic::unwind_safe::",
    "core::panicking::",
    "std::panic::AssertUnwindSafe",
    "std::panic::catch_unwind",
    "std::panic::panic_any",
    "std::panic::resume_unwind",
    "std::panicking::",
    "std::rt::",
    "std::sys::backtrace::",
    "std::sys_common::backtrace::",
    "std::sys::thread::",
    "std::sys::pal::unix::thread::",
];

/// Last path segments that are glue inside the standard library, with or without a path.
const GLUE_NAMES: &[&str] = &[
    "__rust_begin_short_backtrace",
    "__rust_end_short_backtrace",
    "call",
    "call_mut",
    "call_once",
    "catch_unwind",
    "do_call",
    "drop_in_place",
    "lang_start",
    "lang_start_internal",
    "thread_start",
    "try_fold",
];

/// Functions without a path that are glue wherever they lie.
const GLUE_SYMBOLS: &[&str] = &[
    "__clone",
    "__clone3",
    "__coro_call_on",
    "__libc_start_call_main",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_main@@GLIBC_2.34",
    "__rust_try",
    "_start",
    "clone3",
    "coro_task_entry",
    "rust_begin_unwind",
    "rust_panic",
    "start_thread",
];

/// Libraries of the C runtime: their frames end no task's stack and are nobody's own code.
const C_RUNTIME: &[&str] = &["ld-linux", "ld-musl", "libc.", "libc-", "libpthread", "linux-vdso"];

/// Crates whose frames are [`Class::Std`] unless they are glue.
const STD_CRATES: &[&str] = &["std", "core", "alloc"];

/// Runtime-internal: dropped wherever folding finds it, but for the one frame next to user code.
#[cfg(test)]
pub(crate) fn is_internal(frame: &Frame) -> bool {
    matches!(classify(&frame.named()), Class::Machinery | Class::Glue)
}

/// What [`classify`] looks at; what is not known is empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) function: &'a str,
    pub(crate) is_named: bool,
    pub(crate) module: &'a str,
    pub(crate) file: &'a str,
}

impl Frame {
    pub(crate) fn named(&self) -> Named<'_> {
        Named {
            function: &self.function,
            is_named: self.is_named,
            module: self.module.as_deref().unwrap_or(""),
            file: self.file.as_deref().unwrap_or(""),
        }
    }
}

/// Sorts a frame by the tables above. Debug information reduced to line tables gives names without a
/// path; then the file decides. Allocates nothing.
pub(crate) fn classify(frame: &Named<'_>) -> Class {
    let Named { function: name, module, file, .. } = *frame;
    if C_RUNTIME.iter().any(|library| module.starts_with(library)) {
        return if GLUE_SYMBOLS.contains(&name) { Class::Glue } else { Class::Std };
    }
    if !frame.is_named {
        return Class::User;
    }
    let path = type_path(name);
    let last = segments(name).next_back().unwrap_or(name);
    if name.contains("as core::ops::function::Fn") || name.contains("impl core::ops::function::Fn") {
        return Class::Glue;
    }
    // The compiler's own symbols, such as `__rustc::rust_begin_unwind`.
    if name.starts_with("__rustc::") {
        return Class::Glue;
    }
    if name.contains("coro::tb::") || file.ends_with("src/tb/traced.rs") {
        // How a traceback takes its stack.
        return Class::Glue;
    }
    let (krate, rest) = path.split_once("::").unwrap_or(("", path));
    let in_std_file = std_file(file).is_some();
    if STD_CRATES.contains(&krate) || (krate.is_empty() && in_std_file) {
        let is_glue = GLUE_PATHS.iter().any(|prefix| path.starts_with(prefix)) || GLUE_NAMES.contains(&last);
        return if is_glue { Class::Glue } else { Class::Std };
    }
    if krate == "backtrace" {
        // How the panic hook takes its stack.
        return Class::Glue;
    }
    if krate == "rhai" || file.contains("/rhai-1.") {
        // What evaluates expressions, on its way from one step to another.
        return Class::Glue;
    }
    if krate == "coro" {
        // This crate's own tests stand for its users.
        if rest.split("::").any(|part| part.ends_with("tests")) {
            return Class::User;
        }
        // What an expression of a repl called: the expression itself is no frame.
        if rest.starts_with("script::repl::") {
            return Class::User;
        }
        let module = rest.split("::").next().unwrap_or(rest);
        if module == "panic" {
            // The panic hook, on its way to the stack above.
            return Class::Glue;
        }
        return if MACHINERY.contains(&module) { Class::Machinery } else { Class::Api };
    }
    // `main` without a path is the C entry point; Rust's is `program::main`.
    if krate.is_empty() && (GLUE_SYMBOLS.contains(&name) || (name == "main" && file.is_empty())) {
        return Class::Glue;
    }
    Class::User
}

/// One frame, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) class: Class,
    /// With brackets.
    pub(crate) text: Box<str>,
}

impl Piece {
    pub(crate) fn new(frame: &Frame) -> Piece {
        let class = classify(&frame.named());
        let mut function = &*frame.function;
        if class == Class::Api {
            // What a call of this crate does in a closure is the call.
            while let Some((outer, _)) = function.rsplit_once("::").filter(|(_, last)| is_closure_part(last)) {
                function = outer;
            }
        }
        let mut text = String::with_capacity(48);
        write_frame(frame, function, &mut text);
        Piece { class, text: text.into() }
    }
}

/// Which frames of a stack a reader wants to see.
///
/// - Up to the first user frame: what this crate did inside is dropped; its outermost frame stays,
///   as the call that waits.
/// - Further out: machinery and glue are dropped, calls of this crate's interface stay.
/// - Outside of the last user frame: everything is dropped.
/// - Without any user frame, as in a task of this crate's own, its interface takes the place of the user's code; without that nothing is
///   dropped, so that a stack is never empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folding {
    /// This crate's outermost frame inside of the first user frame, and the last user frame, or one that stands for it.
    bounds: Option<(Option<usize>, usize)>,
}

impl Folding {
    pub(crate) fn of(classes: &[Class]) -> Folding {
        Folding::by(classes.iter().copied())
    }

    fn by(classes: impl DoubleEndedIterator<Item = Class> + ExactSizeIterator + Clone) -> Folding {
        let is_user = |class: Class| class == Class::User;
        let is_ours = |class: Class| matches!(class, Class::Api | Class::Machinery);
        let bounds = classes.clone().position(is_user).map(|first| {
            let last = classes.clone().rposition(is_user).unwrap_or(first);
            let call = classes.clone().take(first).enumerate().rfind(|&(_, class)| is_ours(class));
            (call.map(|(at, _)| at), last)
        });
        let interface = || classes.clone().rposition(|class| class == Class::Api).map(|last| (None, last));
        Folding { bounds: bounds.or_else(interface) }
    }

    pub(crate) fn keeps(&self, at: usize, class: Class) -> bool {
        match self.bounds {
            None => true,
            Some((Some(call), _)) if at <= call => at == call,
            Some((_, last)) => at <= last && !matches!(class, Class::Machinery | Class::Glue),
        }
    }
}

/// The pieces that [`Folding`] keeps.
pub(crate) fn fold<'a>(pieces: &'a [&'a Piece]) -> impl Iterator<Item = &'a Piece> {
    let folding = Folding::by(pieces.iter().map(|piece| piece.class));
    pieces.iter().enumerate().filter_map(move |(at, &piece)| folding.keeps(at, piece.class).then_some(piece))
}

/// Whether a stack is shown whole or folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    Folded,
    Whole,
}

/// What the first address of a stack is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// The instruction at which a running task was found.
    Instruction,
    /// Where a parked task goes on: the label behind the switch. What stands there belongs to
    /// whatever the compiler put next, often an inlined call of something else, so the line is that
    /// of the instruction before, as for a return address.
    ResumePoint,
}

/// Stacks kept in rendered form, per [`Detail`] and [`First`]: about 10 MB at ten frames each.
const STACK_LIMIT: usize = 16_384;
/// Stacks remembered by hash alone as seen once. A power of two.
const SEEN_ONCE: usize = 16_384;
/// Frames kept in rendered form.
const PIECE_LIMIT: usize = 65_536;

/// Renders walked stacks; remembers frames by address and lines by the whole list of addresses.
#[derive(Debug)]
pub(crate) struct StackTexts {
    pieces: Generations<usize, Arc<[Piece]>>,
    /// Indexed by [`StackTexts::kind`].
    lines: [Generations<Box<[usize]>, Box<str>>; 4],
    /// Hashes of stacks that were rendered once, by slot. Only the second time is a line kept:
    /// keeping costs three times as much as rendering from cached frames, and would be wasted where
    /// every stack is another. A collision keeps a line too early, nothing else.
    seen: Box<[u64]>,
}

impl StackTexts {
    pub(crate) fn new() -> StackTexts {
        StackTexts {
            pieces: Generations::new(PIECE_LIMIT),
            lines: std::array::from_fn(|_| Generations::new(STACK_LIMIT)),
            seen: vec![0; SEEN_ONCE].into(),
        }
    }

    /// Call together with [`Symbols::set_modules`].
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.lines.iter_mut().for_each(Generations::clear);
    }

    fn kind(first: First, detail: Detail) -> usize {
        first as usize * 2 + detail as usize
    }

    /// Appends the stack's one line, without line end. `addresses` as walked: `first` tells what
    /// the first is, the others are return addresses.
    pub(crate) fn write(
        &mut self,
        addresses: &[usize],
        first: First,
        detail: Detail,
        symbols: &mut Symbols,
        out: &mut String,
    ) {
        let kind = StackTexts::kind(first, detail);
        let lines = &mut self.lines[kind];
        if let Some(line) = lines.get(addresses) {
            out.push_str(line);
            return;
        }
        let hash = BuildHasherDefault::<AddressHasher>::default().hash_one((kind, addresses));
        let seen = &mut self.seen[hash as usize & (SEEN_ONCE - 1)];
        let is_known = std::mem::replace(seen, hash) == hash;
        let start = out.len();
        let found: Vec<Arc<[Piece]>> = addresses
            .iter()
            .enumerate()
            .map(|(at, &address)| {
                let is_return = at > 0 || first == First::ResumePoint;
                let probe = probe_address(address, is_return);
                if let Some(pieces) = self.pieces.get(&probe) {
                    return Arc::clone(pieces);
                }
                let frames = symbols.resolve(address, is_return);
                let pieces: Arc<[Piece]> = frames.iter().map(Piece::new).collect();
                self.pieces.insert(probe, Arc::clone(&pieces));
                pieces
            })
            .collect();
        let flat: Vec<&Piece> = found.iter().flat_map(|pieces| pieces.iter()).collect();
        match detail {
            Detail::Folded => write_line(fold(&flat), out),
            Detail::Whole => write_line(flat.iter().copied(), out),
        }
        if is_known {
            lines.insert(addresses.into(), out[start..].into());
        }
    }
}

fn write_line<'a>(pieces: impl Iterator<Item = &'a Piece>, out: &mut String) {
    for (at, piece) in pieces.enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(&piece.text);
    }
}

/// Writes `[dir/file func|line]`, with `~` before a line that is [near](Frame::is_near); without debug information
/// `[app::db func|?]`; `[module+0x1f]` for code without a name.
fn write_frame(frame: &Frame, function: &str, out: &mut String) {
    out.push('[');
    if !frame.is_named {
        push_escaped(function, out);
        out.push(']');
        return;
    }
    match &frame.file {
        Some(file) => push_escaped(&short_file(file), out),
        None => match module_path(function) {
            "" => push_escaped(frame.module.as_deref().unwrap_or("?"), out),
            module => push_escaped(module, out),
        },
    }
    out.push(' ');
    let mut name = String::with_capacity(32);
    write_short_function(function, &mut name);
    push_escaped(&name, out);
    out.push('|');
    match frame.line {
        Some(line) => _ = write!(out, "{}{line}", if frame.is_near { "~" } else { "" }),
        None => out.push('?'),
    }
    out.push(']');
}

/// The last two components of a path; `std/io` for the standard library, whose files are many and
/// small; `serde_json/de.rs` for a dependency, where two components would say only `src/de.rs`.
pub(crate) fn short_file(path: &str) -> String {
    if let Some((krate, rest)) = std_file(path) {
        let module = rest.split(['/', '\\']).next().unwrap_or(rest);
        return format!("{krate}/{}", module.strip_suffix(".rs").unwrap_or(module));
    }
    let mut parts = path.rsplit(['/', '\\']).filter(|part| !part.is_empty());
    let Some(file) = parts.next() else {
        return "?".into();
    };
    if let Some((_, dependency)) = path.split_once("/registry/src/")
        && let Some(package) = dependency.split('/').nth(1)
    {
        let name = package.rsplit_once('-').map_or(package, |(name, _version)| name);
        return format!("{name}/{file}");
    }
    match parts.next() {
        Some(dir) => format!("{dir}/{file}"),
        None => file.into(),
    }
}

/// `("std", "io/mod.rs")` for `…/library/std/src/io/mod.rs`.
fn std_file(path: &str) -> Option<(&str, &str)> {
    let (_, rest) = path.split_once("library/")?;
    let (krate, rest) = rest.split_once("/src/")?;
    STD_CRATES.contains(&krate).then_some((krate, rest))
}

/// In the two forms in which debug information has it.
fn is_closure_part(part: &str) -> bool {
    part.starts_with("{closure") || part.starts_with("{{closure")
}

/// Writes `fetch`, `Conn::read`, `serve::{closure}`. Allocates nothing itself; `out` does not fail.
pub(crate) fn write_short_function(name: &str, out: &mut impl fmt::Write) {
    let mut is_closure = false;
    // `{impl#0}`, `{shim:vtable#0}` and suffixes such as `{{vtable.shim}}` say nothing to a reader.
    let mut parts = segments(name).rev().map(|part| part.split("{{vtable").next().unwrap_or(part));
    let mut last = "";
    for part in parts.by_ref() {
        if is_closure_part(part) {
            is_closure = true;
        } else if !part.starts_with('{') {
            last = part;
            break;
        }
    }
    let parent = parts.find(|part| !part.starts_with('{')).map(type_path);
    let parent = parent.and_then(|path| segments(path).next_back()).map(|own| own.split('<').next().unwrap_or(own));
    // By convention types, and only they, start with a capital; that tells `Conn` from `db`.
    let parent = parent.filter(|parent| !parent.starts_with(|c: char| c.is_lowercase()));
    let own = segments(type_path(last)).next_back().unwrap_or(last);
    let is_empty = parent.is_none() && own.is_empty();
    let closure = match (is_closure, is_empty) {
        (true, true) => "{closure}",
        (true, false) => "::{closure}",
        (false, true) => "?",
        (false, false) => "",
    };
    let (parent, colons) = parent.map_or(("", ""), |parent| (parent, "::"));
    let _ = write!(out, "{parent}{colons}{own}{closure}");
}

/// The module that a function lies in, as far as its name tells: `app::db` of `app::db::Conn::read`.
fn module_path(name: &str) -> &str {
    let path = segments(name).next().filter(|first| first.starts_with('<')).map_or(name, type_path);
    let mut end = 0;
    let mut parts = segments(path).peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none_or(|next| next.starts_with('{'));
        if is_last || !part.starts_with(|c: char| c.is_lowercase() || c == '_') {
            break;
        }
        end = part.as_ptr().addr() - path.as_ptr().addr() + part.len();
    }
    &path[..end]
}

/// The type that a qualified path is about: `a::B` for `<a::B as c::D>::m`, `<impl c::D for &a::B>`
/// and `<a::B>::m`; other paths as they are.
fn type_path(name: &str) -> &str {
    let Some(inner) = name.strip_prefix('<') else {
        return name;
    };
    let inner = inner.split(" as ").next().unwrap_or(inner);
    let inner = inner.rsplit(" for ").next().unwrap_or(inner);
    let mut path = inner.trim_end_matches('>').trim_start_matches(['&', '*', '<', '(', '[']);
    while let Some(shorter) = ["mut ", "const ", "dyn ", "impl "].iter().find_map(|w| path.strip_prefix(w)) {
        path = shorter.trim_start_matches(['&', '*', '<']);
    }
    path.trim_end_matches([')', ']'])
}

/// As many segments as any path has that people write; of a longer one the last.
const MOST_SEGMENTS: usize = 32;

/// Splits at `::` outside of brackets.
fn segments(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    let (mut parts, mut count) = ([""; MOST_SEGMENTS], 0);
    let mut push = |part| {
        if count == MOST_SEGMENTS {
            parts.copy_within(1.., 0);
            count -= 1;
        }
        parts[count] = part;
        count += 1;
    };
    let (mut depth, mut start) = (0usize, 0);
    let bytes = name.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            b'>' if at > 0 && bytes[at - 1] == b'-' => {}
            b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && at >= start && bytes.get(at + 1) == Some(&b':') => {
                push(&name[start..at]);
                start = at + 2;
            }
            _ => {}
        }
    }
    push(&name[start.min(name.len())..]);
    parts.into_iter().take(count)
}

/// Control characters and those that reorder or hide text.
pub(crate) fn push_escaped(text: &str, out: &mut impl fmt::Write) {
    for c in text.chars() {
        let _ = if steers(c) { write!(out, "{}", c.escape_default()) } else { out.write_char(c) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::modules::ModuleMap;
    use super::*;

    fn frame(function: &str, file: &str, line: u32) -> Frame {
        Frame {
            function: function.into(),
            is_named: true,
            module: None,
            file: (!file.is_empty()).then(|| file.into()),
            line: (line > 0).then_some(line),
            column: None,
            is_near: false,
        }
    }

    fn text(frame: &Frame) -> String {
        let mut out = String::new();
        write_frame(frame, &frame.function, &mut out);
        out
    }

    #[test]
    fn one_frame() {
        let std = "/rustc/abc/library/std/src/io/mod.rs";
        let dep = "/home/u/.cargo/registry/src/index.crates.io-6f/serde_json-1.0.1/src/de.rs";
        for (function, file, line, expected) in [
            ("app::db::fetch", "/home/u/app/src/db.rs", 31, "[src/db.rs fetch|31]"),
            ("app::db::Conn::read", "src/db.rs", 31, "[src/db.rs Conn::read|31]"),
            ("<app::Conn>::read", "src/db.rs", 31, "[src/db.rs Conn::read|31]"),
            ("<app::Conn as std::io::Read>::read", "db.rs", 3, "[db.rs Conn::read|3]"),
            ("<&mut app::Conn as std::io::Read>::read", "db.rs", 3, "[db.rs Conn::read|3]"),
            ("a::impls::<impl b::T for &a::V>::go", "a.rs", 3, "[a.rs V::go|3]"),
            ("app::serve::{closure#0}", "src/main.rs", 7, "[src/main.rs serve::{closure}|7]"),
            ("app::serve::{{closure}}", "src/main.rs", 7, "[src/main.rs serve::{closure}|7]"),
            ("app::serve::{closure#1}::{closure#0}", "src/m.rs", 7, "[src/m.rs serve::{closure}|7]"),
            ("<app::Conn>::run::{closure#0}", "src/m.rs", 7, "[src/m.rs Conn::run::{closure}|7]"),
            ("app::net::{impl#3}::accept", "src/m.rs", 7, "[src/m.rs accept|7]"),
            ("std::io::default_read_exact", std, 12, "[std/io default_read_exact|12]"),
            ("serde_json::de::parse", dep, 9, "[serde_json/de.rs parse|9]"),
            ("app::f", "/a/b.rs", 0, "[a/b.rs f|?]"),
            ("qsort", "", 0, "[? qsort|?]"),
            ("app::db::fetch", "", 0, "[app::db fetch|?]"),
            ("app::db::Conn::read", "", 0, "[app::db Conn::read|?]"),
            ("<app::db::Conn as std::io::Read>::read", "", 0, "[app::db Conn::read|?]"),
            ("a::impls::<impl b::T for &a::V>::go", "", 0, "[a::impls V::go|?]"),
            ("app::serve::{closure#1}::{closure#0}", "", 0, "[app serve::{closure}|?]"),
            ("Conn::read", "", 0, "[? Conn::read|?]"),
            ("{closure#0}", "a/b.rs", 1, "[a/b.rs {closure}|1]"),
            ("", "", 0, "[? ?|?]"),
            ("evil\x1b[2J\n::f\u{202e}", "a/\x07b.rs", 1, "[a/\\u{7}b.rs evil\\u{1b}[2J\\n::f\\u{202e}|1]"),
        ] {
            assert_eq!(text(&frame(function, file, line)), expected, "{function}");
        }
        let near = Frame { is_near: true, ..frame("app::f", "a/b.rs", 31) };
        assert_eq!(text(&near), "[a/b.rs f|~31]");
        let unnamed = Frame { is_named: false, ..frame("app+0x1f", "", 0) };
        assert_eq!(text(&unnamed), "[app+0x1f]");
    }

    #[test]
    fn a_closure_within_a_call_of_this_crate_is_that_call() {
        let shown = |function| Piece::new(&frame(function, "src/net/socket.rs", 232)).text.into_string();
        assert_eq!(
            shown("<coro::net::socket::Socket<T>>::read::{closure#0}::{closure#1}"),
            "[net/socket.rs Socket::read|232]"
        );
        assert_eq!(shown("coro::net::socket::Socket<T>::read::{{closure}}"), "[net/socket.rs Socket::read|232]");
        assert_eq!(shown("app::read::{{closure}}"), "[net/socket.rs read::{closure}|232]");
    }

    #[test]
    fn a_name_without_a_path_has_its_library() {
        let frame = Frame { module: Some("libc.so.6".into()), ..frame("qsort", "", 0) };
        assert_eq!(text(&frame), "[libc.so.6 qsort|?]");
    }

    #[test]
    fn classes() {
        use Class::*;
        let std = "/rustc/abc/library/core/src/ops/function.rs";
        for (function, file, class) in [
            ("app::db::fetch", "src/db.rs", User),
            ("coroner::fetch", "src/db.rs", User),
            ("<app::Conn as std::io::Read>::read", "src/db.rs", User),
            ("std::io::Read::read_exact", std, Std),
            ("read_exact", std, Std),
            ("<std::net::tcp::TcpStream as std::io::Read>::read", std, Std),
            ("coro::net::tcp::TcpStream::read", "src/net.rs", Api),
            ("<coro::net::TcpStream as std::io::Read>::read", "src/net.rs", Api),
            ("coro::time::sleep", "src/time.rs", Api),
            ("coro::scheduler::worker::Worker::run", "s.rs", Machinery),
            ("coro::context::switch", "s.rs", Machinery),
            ("coro::task::park::{closure#0}", "s.rs", Machinery),
            ("coro::net::tests::reads", "s.rs", User),
            ("core::ops::function::FnOnce::call_once", std, Glue),
            ("core::ptr::drop_in_place", std, Glue),
            ("core::ops::function::FnOnce::call_once{{vtable.shim}}", std, Glue),
            ("<alloc::boxed::Box as core::ops::function::FnOnce>::call_once", std, Glue),
            ("<core::panic::unwind_safe::AssertUnwindSafe as core::ops::function::FnOnce>::call_once", std, Glue),
            ("<app::serve::{closure#0} as core::ops::function::FnOnce>::call_once::{shim:vtable#0}", "s.rs", Glue),
            ("call_once", std, Glue),
            ("std::panicking::catch_unwind::do_call", std, Glue),
            ("std::panic::catch_unwind", std, Glue),
            ("__rust_try", "", Glue),
            ("__rustc::rust_begin_unwind", std, Glue),
            ("coro_task_entry", "", Glue),
            ("main", "", Glue),
            ("app::main", "src/main.rs", User),
            ("main", "src/main.rs", User),
            ("call", "src/main.c", User),
        ] {
            assert_eq!(classify(&frame(function, file, 1).named()), class, "{function}");
        }
        let inside = |module: &str, name: &str| Frame {
            is_named: !name.contains('+'),
            module: Some(module.into()),
            ..frame(name, "", 0)
        };
        for (module, function, class) in [
            ("libc.so.6", "libc.so.6+0x1f", Std),
            ("libc.so.6", "__GI___qsort_r", Std),
            ("libc.so.6", "__clone3", Glue),
            ("app", "app+0x1f", User),
        ] {
            assert_eq!(classify(&inside(module, function).named()), class, "{function}");
        }
        assert!(is_internal(&frame("__rust_try", "", 0)));
        assert!(!is_internal(&frame("coro::time::sleep", "", 0)));
        assert!(is_internal(&frame("rhai::eval::stmt::Engine::eval_stmt", "", 0)));
        assert!(!is_internal(&frame("coro::script::repl::Flow::sleep", "", 0)));
    }

    #[test]
    fn folding() {
        let folded = |names: &str| {
            let pieces: Vec<Piece> = names
                .split(' ')
                .map(|name| Piece {
                    class: match name.as_bytes()[0] {
                        b'u' => Class::User,
                        b's' => Class::Std,
                        b'a' => Class::Api,
                        b'm' => Class::Machinery,
                        _ => Class::Glue,
                    },
                    text: name.into(),
                })
                .collect();
            let refs: Vec<&Piece> = pieces.iter().collect();
            fold(&refs).map(|piece| &*piece.text).collect::<Vec<_>>().join(" ")
        };
        for (whole, expected) in [
            ("m1 m2 a1 a2 u1 u2 g1 m3", "a2 u1 u2"),
            // A standard trait between the call that waits and the user.
            ("m1 a1 s1 u1 g1 s2 m2", "a1 s1 u1"),
            // Standard code inside of the call that waits, such as `LocalKey::with`.
            ("m1 s1 m2 a1 g1 u1", "a1 u1"),
            ("m1 m2 u1", "m2 u1"),
            // `coro::timeout(…, || user())`.
            ("m1 a1 u1 g1 m2 g2 a2 u2 g3 m3", "a1 u1 a2 u2"),
            ("u1", "u1"),
            ("g1 s1 u1 s2 u2 s3", "s1 u1 s2 u2"),
            ("m1 g1 m2", "m1 g1 m2"),
            // A task of this crate's own.
            ("m1 m2 a1 a2 s1 a3 g1 s2 m3", "a1 a2 s1 a3"),
        ] {
            assert_eq!(folded(whole), expected, "{whole}");
        }
        let none: [&Piece; 0] = [];
        assert_eq!(fold(&none).count(), 0);
    }

    #[test]
    fn the_same_addresses_give_the_same_line_and_keep_it_the_second_time() {
        let mut symbols = Symbols::new(Arc::new(ModuleMap::load()));
        let mut texts = StackTexts::new();
        let addresses = [text as *const () as usize, frame as *const () as usize + 1];
        let mut line = || {
            let mut out = String::from(">");
            texts.write(&addresses, First::Instruction, Detail::Folded, &mut symbols, &mut out);
            out
        };
        let first = line();
        assert!(first.starts_with(">["), "{first}");
        assert_eq!(first, line());
        assert_eq!(first, line());
        let kind = StackTexts::kind(First::Instruction, Detail::Folded);
        assert_eq!(texts.lines[kind].len(), 1);
        texts.write(&[], First::ResumePoint, Detail::Whole, &mut symbols, &mut String::new());
        texts.clear();
        assert_eq!(texts.pieces.len() + texts.lines[kind].len(), 0);
    }
}
