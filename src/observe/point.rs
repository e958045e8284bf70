//! A probe point: a place in the code that somebody may watch while the program runs, and what can be seen there.
//!
//! Invariants: while nobody watches, passing a point is one relaxed load and a branch. What watches it is one pointer, and a number
//! beside it, which belong to the layer that has probes; nothing here follows them. Points live as long as the process.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::value::Value;

/// What kind of place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PointKind {
    /// A function: it is called, and returns or panics.
    Function,
    /// A place within a function that is passed, with values.
    Mark,
}

/// How a point is called.
#[derive(Debug, Clone, Copy)]
pub enum PointName {
    /// So.
    Fixed(&'static str),
    /// As the function that has an item of this name in it. Asked for late: a constant cannot say it.
    Within(fn() -> &'static str),
    /// As the module, and this.
    Module(&'static str, &'static str),
}

/// A place in the code that can be watched; see [`probe`](mod@crate::probe).
pub struct Point {
    name: PointName,
    resolved: OnceLock<String>,
    kind: PointKind,
    file: &'static str,
    first_line: u32,
    last_line: u32,
    arguments: &'static [&'static str],
    /// Whether its calls can be wrapped.
    wrappable: bool,
    /// What watches it; null mostly. The type is the probe layer's.
    watchers: AtomicPtr<()>,
    /// What of that is to be known when a call begins. The meaning is the probe layer's.
    plan: AtomicU64,
}

impl Point {
    /// A place from `first_line` to `last_line` of `file`, whose values have these names.
    pub const fn new(
        name: PointName,
        kind: PointKind,
        file: &'static str,
        first_line: u32,
        last_line: u32,
        arguments: &'static [&'static str],
    ) -> Point {
        Point {
            name,
            resolved: OnceLock::new(),
            kind,
            file,
            first_line,
            last_line,
            arguments,
            wrappable: false,
            watchers: AtomicPtr::new(std::ptr::null_mut()),
            plan: AtomicU64::new(0),
        }
    }

    /// The same, whose calls can be wrapped.
    #[doc(hidden)]
    pub const fn wrappable(mut self) -> Point {
        self.wrappable = true;
        self
    }

    /// Whether its calls can be wrapped: a function with `#[coro::probe(wrap)]`, or a point that was registered.
    pub fn can_be_wrapped(&self) -> bool {
        self.wrappable
    }

    /// Whether anybody watches.
    #[inline(always)]
    pub fn is_watched(&self) -> bool {
        !self.watchers.load(Ordering::Relaxed).is_null()
    }

    /// The path of the function or the name that it was given: `app::cache::Cache::get`.
    pub fn name(&self) -> &str {
        match self.name {
            PointName::Fixed(name) => name,
            PointName::Within(item) => self.resolved.get_or_init(|| path_of_function(item())),
            PointName::Module(module, name) => self.resolved.get_or_init(|| format!("{module}::{name}")),
        }
    }

    /// What kind of place it is.
    pub fn kind(&self) -> PointKind {
        self.kind
    }

    /// The source file, as the compiler calls it.
    pub fn file(&self) -> &'static str {
        self.file
    }

    /// The line where it begins.
    pub fn line(&self) -> u32 {
        self.first_line
    }

    /// The names of the values that can be seen there.
    pub fn arguments(&self) -> &'static [&'static str] {
        self.arguments
    }

    /// Whether that place lies in this one.
    pub(crate) fn contains(&self, other: &Point) -> bool {
        self.file == other.file && (self.first_line..=self.last_line).contains(&other.first_line)
    }

    /// How many lines it has, less one.
    pub(crate) fn height(&self) -> u32 {
        self.last_line.saturating_sub(self.first_line)
    }

    /// For the layer that has probes.
    pub(crate) fn watchers(&self) -> &AtomicPtr<()> {
        &self.watchers
    }

    /// For the layer that has probes.
    pub(crate) fn plan(&self) -> &AtomicU64 {
        &self.plan
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}", self.name(), self.file, self.first_line)
    }
}

/// The path of a function from that of an item in it, as the compiler writes it, without what nobody would type:
/// `<app::Cache<_> as app::Store>::get::item` is `app::Cache::get`.
fn path_of_function(item: &str) -> String {
    let path = item.rsplit_once("::").map_or(item, |(path, _)| path);
    // That item stands in the point's own definition.
    let path = path.strip_suffix("::__CORO_POINT").unwrap_or(path);
    let mut out = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('<') {
        let (before, inside) = (&rest[..at], &rest[at + 1..]);
        let end = closing(inside);
        let (inside, after) = (&inside[..end], inside.get(end + 1..).unwrap_or(""));
        let at_start = before.is_empty() || before.ends_with("::");
        out.push_str(before);
        if let Some(implementation) = inside.strip_prefix("impl ").filter(|_| at_start) {
            // In another module than the type; `impl Store for Cache` or `impl Cache`.
            match split_outside(implementation, " for ") {
                // What stands before is where the block is, and the type may be anybody's.
                Some((_, kind)) => out.push_str(&plain(kind)),
                None => out = plain(implementation),
            }
        } else if at_start {
            out.push_str(&plain(split_outside(inside, " as ").map_or(inside, |(kind, _)| kind)));
        }
        rest = after;
    }
    out + rest
}

/// Each character with its place and how many brackets are open around it; a bracket itself stands outside of what it opens
/// and closes.
fn nested(text: &str) -> impl Iterator<Item = (usize, char, i32)> {
    let mut depth = 0;
    let mut before = ' ';
    text.char_indices().map(move |(at, c)| {
        // The head of an arrow closes nothing.
        let closes = c == '>' && before != '-';
        depth -= i32::from(closes);
        let found = (at, c, depth);
        depth += i32::from(c == '<');
        before = c;
        found
    })
}

/// A type without its arguments.
fn plain(kind: &str) -> String {
    nested(kind).filter(|(_, c, depth)| *depth == 0 && !matches!(c, '<' | '>')).map(|(_, c, _)| c).collect()
}

/// The place of the bracket that closes what was opened before `text`.
fn closing(text: &str) -> usize {
    nested(text).find(|(_, _, depth)| *depth < 0).map_or(text.len(), |(at, ..)| at)
}

/// Splits at a word that stands in no brackets.
fn split_outside<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let found = nested(text).find(|(at, _, depth)| *depth == 0 && text[*at..].starts_with(word));
    found.map(|(at, ..)| (&text[..at], &text[at + word.len()..]))
}

/// One value, as it can be seen at a point without copying it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Shown<'a> {
    /// No value: `()`.
    Unit,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// One above those: compared as the nearest [`Float`](Shown::Float), shown as it is.
    Unsigned(u64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// What knows how to show itself.
    Debug(&'a dyn fmt::Debug),
    /// What does not, by its type.
    Opaque(&'static str),
    /// Bytes: the first of them, and how many there are in all, which is what is shown. The bytes themselves are seen only by whoever
    /// asks for them ([`Event::bytes`](crate::probe::Event::bytes)).
    Bytes(&'a [u8], usize),
    /// What is not to be shown.
    Redacted,
}

/// So many bytes of one value are kept and shown.
pub(crate) const LONGEST_SHOWN: usize = 240;

impl Shown<'_> {
    /// A copy; of what shows itself, the text.
    pub(crate) fn value(&self) -> Value {
        match *self {
            Shown::Unit => Value::Nothing,
            Shown::Bool(b) => Value::Bool(b),
            Shown::Int(n) => Value::Int(n),
            Shown::Unsigned(n) => i64::try_from(n).map_or(Value::Float(n as f64), Value::Int),
            Shown::Float(x) => Value::Float(x),
            Shown::Bytes(_, n) => i64::try_from(n).map_or(Value::Float(n as f64), Value::Int),
            Shown::Text(text) => Value::Text(text[..boundary(text, LONGEST_TEXT)].to_owned()),
            Shown::Debug(_) | Shown::Opaque(_) | Shown::Redacted => Value::Text(self.text()),
        }
    }

    /// Its text, cut where it gets too long, without what a terminal would obey.
    pub(crate) fn text(&self) -> String {
        let mut out = Bounded::new(LONGEST_SHOWN);
        match *self {
            Shown::Unit => out.push("()"),
            Shown::Bool(b) => out.push(if b { "true" } else { "false" }),
            Shown::Int(n) => drop(write!(out, "{n}")),
            Shown::Unsigned(n) => drop(write!(out, "{n}")),
            Shown::Float(x) => drop(write!(out, "{x:?}")),
            Shown::Bytes(_, n) => drop(write!(out, "{n}")),
            Shown::Text(text) => drop(write!(out, "{:?}", &text[..boundary(text, LONGEST_SHOWN)])),
            // An error is that of the bound, or the value's own, and the text so far is what there is.
            Shown::Debug(value) => drop(write!(out, "{value:?}")),
            Shown::Opaque(kind) => drop(write!(out, "<{kind}>")),
            Shown::Redacted => out.push("<redacted>"),
        }
        out.finish()
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Text that is given as it is may be longer: expressions compare it.
const LONGEST_TEXT: usize = 16 * 1024;

/// The last place at or before `most` where `text` can be cut.
pub(crate) fn boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Text up to a length; whatever writes more is told to stop.
struct Bounded {
    text: String,
    most: usize,
    cut: bool,
}

impl Bounded {
    fn new(most: usize) -> Bounded {
        Bounded { text: String::new(), most, cut: false }
    }

    fn push(&mut self, text: &str) {
        let _ = self.write_str(text);
    }

    fn finish(mut self) -> String {
        if self.cut {
            self.text.push('…');
        }
        self.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.text.len() + c.len_utf8() > self.most {
                self.cut = true;
                return Err(fmt::Error);
            }
            if c.is_control() {
                self.text.extend(c.escape_default());
            } else {
                self.text.push(c);
            }
        }
        Ok(())
    }
}

/// A value that was copied when its call began.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    value: Value,
    shown: KeptAs,
}

/// How a value that was copied is shown.
#[derive(Debug, Clone, Copy)]
enum KeptAs {
    /// As the value: what shows itself was kept as the text that it shows.
    Value,
    /// Text that is given as it is, and shown in quotes.
    Quoted,
    /// A whole number that the value does not hold exactly.
    Unsigned(u64),
}

impl Kept {
    pub(crate) fn of(shown: &Shown<'_>) -> Kept {
        let kept_as = match *shown {
            Shown::Text(_) => KeptAs::Quoted,
            Shown::Unsigned(n) => KeptAs::Unsigned(n),
            _ => KeptAs::Value,
        };
        Kept { value: shown.value(), shown: kept_as }
    }

    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    pub(crate) fn text(&self) -> String {
        match (&self.value, self.shown) {
            (Value::Text(text), KeptAs::Quoted) => Shown::Text(text).text(),
            (Value::Text(text), _) => text.clone(),
            (_, KeptAs::Unsigned(n)) => Shown::Unsigned(n).text(),
            (Value::Bool(b), _) => Shown::Bool(*b).text(),
            (Value::Int(n), _) => Shown::Int(*n).text(),
            (Value::Float(x), _) => Shown::Float(*x).text(),
            (Value::Nothing | Value::List(_) | Value::Map(_), _) => Shown::Unit.text(),
        }
    }
}

/// A call in which marks are watched, under way.
#[derive(Debug)]
pub(crate) struct WatchedCall {
    pub(crate) point: &'static Point,
    /// In ticks.
    pub(crate) began: u64,
    /// The newest probe that saw it begin.
    pub(crate) newest: u64,
    pub(crate) arguments: Option<Rc<[Kept]>>,
    /// When the last mark was passed, and which; or the beginning.
    pub(crate) passed: Cell<u64>,
    pub(crate) last: Cell<Option<&'static Point>>,
    /// The call around it.
    outer: RefCell<Option<Rc<WatchedCall>>>,
}

/// Those of one task or plain thread.
#[derive(Debug)]
pub(crate) struct Calls {
    innermost: RefCell<Option<Rc<WatchedCall>>>,
    /// An instrument runs.
    pub(crate) busy: Cell<bool>,
}

impl Calls {
    pub(crate) const fn new() -> Calls {
        Calls { innermost: RefCell::new(None), busy: Cell::new(false) }
    }

    /// A call begins.
    pub(crate) fn enter(
        &self,
        point: &'static Point,
        began: u64,
        newest: u64,
        arguments: Option<Rc<[Kept]>>,
    ) -> Rc<WatchedCall> {
        let outer = RefCell::new(self.innermost.take());
        let (passed, last) = (Cell::new(began), Cell::new(None));
        let call = Rc::new(WatchedCall { point, began, newest, arguments, passed, last, outer });
        self.innermost.replace(Some(call.clone()));
        call
    }

    /// It is over. Mostly it is the innermost one.
    pub(crate) fn leave(&self, call: &Rc<WatchedCall>) {
        let outer = call.outer.take();
        let mut place = self.innermost.borrow().clone();
        if place.as_ref().is_some_and(|innermost| Rc::ptr_eq(innermost, call)) {
            self.innermost.replace(outer);
            return;
        }
        while let Some(inner) = place {
            let next = inner.outer.borrow().clone();
            if next.as_ref().is_some_and(|next| Rc::ptr_eq(next, call)) {
                inner.outer.replace(outer);
                return;
            }
            place = next;
        }
    }

    /// The innermost call of that function.
    pub(crate) fn innermost_of(&self, function: &'static Point) -> Option<Rc<WatchedCall>> {
        let mut place = self.innermost.borrow().clone();
        while let Some(call) = place {
            if std::ptr::eq(call.point, function) {
                return Some(call);
            }
            place = call.outer.borrow().clone();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_called_as_people_call_them() {
        for (item, name) in [
            ("a::cache::free::item", "a::cache::free"),
            ("a::cache::Cache<_>::put::item", "a::cache::Cache::put"),
            ("<a::cache::Cache<_> as a::cache::Store>::get::item", "a::cache::Cache::get"),
            ("a::cache::Store::d::item", "a::cache::Store::d"),
            ("a::other::O<'_>::m::item", "a::other::O::m"),
            ("a::other::<impl a::cache::Store for u8>::get::item", "a::other::u8::get"),
            ("a::other::<impl a::T>::q::item", "a::T::q"),
            ("<a::Map<_, fn(u8) -> u8> as a::Store<a::B<u8>>>::get::item", "a::Map::get"),
            ("a::main::{{closure}}::item", "a::main::{{closure}}"),
            ("item", "item"),
        ] {
            assert_eq!(path_of_function(item), name, "{item}");
        }
    }

    #[test]
    fn values_are_shown_up_to_a_length_and_obeyed_by_no_terminal() {
        assert_eq!(Shown::Text("a\x1b[2J").text(), r#""a\u{1b}[2J""#);
        let long = "ä".repeat(1000);
        let text = Shown::Text(&long).text();
        assert!(text.starts_with("\"ää") && text.ends_with('…') && text.len() <= LONGEST_SHOWN + 3, "{text}");

        struct Endless;
        impl fmt::Debug for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("again ")?;
                }
            }
        }
        assert!(Shown::Debug(&Endless).text().starts_with("again again"));
        assert_eq!(Shown::Redacted.value(), Value::Text("<redacted>".into()));
        assert_eq!((Shown::Int(-3).value(), Shown::Unit.value()), (Value::Int(-3), Value::Nothing));
        let most = Shown::Unsigned(u64::MAX);
        assert_eq!(
            (most.value(), Kept::of(&most).value()),
            (Value::Float(u64::MAX as f64), &Value::Float(u64::MAX as f64))
        );
        assert_eq!(
            (most.text(), Kept::of(&most).text()),
            ("18446744073709551615".into(), "18446744073709551615".into())
        );
    }
}
