//! The one-line form of a stack: `[src/db.rs fetch|31] [src/main.rs serve|12]`, innermost first.
//!
//! Purpose: how each frame is written. The form is Shrapnel's. Which of them are is said in `folding`.
//!
//! Invariants:
//! - What is written contains no control or invisible formatting character, whatever a symbol table
//!   says, so one stack is one line and cannot steer a terminal.
//! - A stack that was rendered twice costs one look-up; others cost a look-up per address. Both
//!   caches are bounded.
//!
//! It must not know: tasks, how a stack was walked, where the text goes.
#![forbid(unsafe_code)]

use super::folding::{Class, Folding, classify, segments, std_file, type_path};
use super::symbols::{AddressHasher, Frame, Generations, Symbols, probe_address};
use super::text::steers;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher as _, BuildHasherDefault};
use std::sync::Arc;

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
        if matches!(class, Class::Api | Class::Inner) {
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
                        b'i' => Class::Inner,
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
            // The call has jumped to what it does: `coro::sleep_until`, and a read of a socket.
            ("m1 m2 i1 u1", "u1"),
            ("m1 i1 i2 g1 u1 i3 u2 m2", "u1 u2"),
            ("m1 i1 a1 u1", "a1 u1"),
            ("m1 i1", "m1 i1"),
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
