//! What an instrument is told.
//!
//! Must not know: who watches, or for how long.

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::BitOr;
use std::time::Duration;

use crate::observe::{Kept, Point, Shown};
use crate::scheduler::suspend::here;
use crate::sys::clock;
use crate::value::Value;

/// A kind of event at a point, or several.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Events(u8);

impl Events {
    /// A function is called. Also a mark that is watched by its own name, and not as a part of a function, is so when it is passed.
    pub const CALL: Events = Events(1);
    /// It returns.
    pub const RETURN: Events = Events(2);
    /// A panic, a cancellation or an expired time limit unwinds it.
    pub const PANIC: Events = Events(4);
    /// A mark in it is passed.
    pub const MARK: Events = Events(8);
    /// It is over, in whatever way: [`RETURN`](Events::RETURN) and [`PANIC`](Events::PANIC).
    pub const END: Events = Events(2 | 4);
    /// None.
    pub const NONE: Events = Events(0);
    /// A mark that is watched by its own name, for what is otherwise told of ends: a mark has none.
    pub(super) const PASSED: Events = Events(16);

    /// These and those.
    pub(super) const fn and(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn contain(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is among these.
    pub const fn meet(self, other: Events) -> bool {
        self.0 & other.0 != 0
    }

    /// The events of that name: `call`, `return`, `panic`, `end`, `mark`.
    pub fn named(name: &str) -> Option<Events> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, events)| *events)
    }
}

const NAMES: [(&str, Events); 5] = [
    ("call", Events::CALL),
    ("end", Events::END),
    ("return", Events::RETURN),
    ("panic", Events::PANIC),
    ("mark", Events::MARK),
];

impl BitOr for Events {
    type Output = Events;

    fn bitor(self, other: Events) -> Events {
        Events(self.0 | other.0)
    }
}

/// `call|return`.
impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut left, mut first) = (*self, true);
        for (name, events) in NAMES.iter().filter(|(_, events)| self.contain(*events)) {
            if left.meet(*events) {
                f.write_str(if first { "" } else { "|" })?;
                f.write_str(name)?;
                (left.0, first) = (left.0 & !events.0, false);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({self})")
    }
}

/// The values of a call: there to be looked at, or kept from when it began.
#[derive(Clone, Copy)]
pub(super) enum Arguments<'a> {
    Live(&'a [Shown<'a>]),
    Kept(&'a [Kept]),
}

/// One thing that happens at a point.
pub struct Event<'a> {
    pub(super) kind: Events,
    /// It is told to whoever wants any of these.
    pub(super) wanted_as: Events,
    /// Where it happens; a mark's own.
    pub(super) place: &'static Point,
    /// The function that is watched, if that is another one.
    pub(super) point: &'static Point,
    pub(super) arguments: Arguments<'a>,
    pub(super) result: Option<Shown<'a>>,
    /// The result is an `Err`.
    pub(super) failed: bool,
    /// The values of a mark.
    pub(super) values: &'a [Shown<'a>],
    /// How long the call has lasted, in ticks; `None` where nobody looked at the clock.
    pub(super) elapsed: Option<u64>,
    /// The mark before this one in the same call, and ticks since then.
    pub(super) segment: Option<(Option<&'static Point>, u64)>,
}

impl Event<'_> {
    /// Which kind it is: one of [`Events::CALL`], [`RETURN`](Events::RETURN), [`PANIC`](Events::PANIC) and
    /// [`MARK`](Events::MARK).
    pub fn kind(&self) -> Events {
        self.kind
    }

    /// The function, or the mark if nobody has named its function.
    pub fn point(&self) -> &'static Point {
        self.point
    }

    /// The mark that is passed.
    pub fn mark(&self) -> Option<&'static Point> {
        (self.kind == Events::MARK).then_some(self.place)
    }

    /// The id of the running task; 0 on a plain thread.
    pub fn task(&self) -> u64 {
        here().map_or(0, |h| h.id())
    }

    /// How long the call has lasted; not known when it begins.
    pub fn elapsed(&self) -> Option<Duration> {
        self.elapsed.map(clock::duration)
    }

    /// How long ago the mark before was passed, and which it was; since the beginning of the call if `None`.
    pub fn segment(&self) -> Option<(Option<&'static Point>, Duration)> {
        self.segment.map(|(from, ticks)| (from, clock::duration(ticks)))
    }

    /// Whether the call returned an `Err`.
    pub fn is_err(&self) -> bool {
        self.failed
    }

    /// What was returned, when it was.
    pub fn result(&self) -> Option<Value> {
        self.result.map(|shown| shown.value())
    }

    /// The text of what was returned.
    pub fn result_text(&self) -> Option<String> {
        self.result.map(|shown| shown.text())
    }

    /// The first of the bytes that a call sends when it begins, or has received when it returns, and how many there are in all.
    pub fn bytes(&self) -> Option<(&[u8], usize)> {
        let shown = match (self.kind, self.arguments) {
            (Events::CALL, Arguments::Live(shown)) => shown.last(),
            _ => self.result.as_ref(),
        };
        match shown {
            Some(Shown::Bytes(first, all)) => Some((first, *all)),
            _ => None,
        }
    }

    /// One of the values: an argument of the call, or a value of the mark.
    pub fn value(&self, name: &str) -> Option<Value> {
        let of = |point: &Point| point.arguments().iter().position(|known| *known == name);
        if self.kind == Events::MARK
            && let Some(at) = of(self.place)
        {
            return self.values.get(at).map(Shown::value);
        }
        let at = of(self.point)?;
        match self.arguments {
            Arguments::Live(shown) => shown.get(at).map(Shown::value),
            Arguments::Kept(values) => values.get(at).map(|kept| kept.value().clone()),
        }
    }

    /// The same to be told apart by: text as it is, numbers exactly.
    pub(super) fn key(&self, name: &str) -> Option<String> {
        let of = |value: Value, text: &dyn Fn() -> String| match value {
            Value::Text(text) => text,
            _ => text(),
        };
        let of_shown = |shown: &Shown<'_>| of(shown.value(), &|| shown.text());
        let position = |point: &Point| point.arguments().iter().position(|known| *known == name);
        if self.kind == Events::MARK
            && let Some(at) = position(self.place)
        {
            return self.values.get(at).map(of_shown);
        }
        let at = position(self.point)?;
        match self.arguments {
            Arguments::Live(shown) => shown.get(at).map(of_shown),
            Arguments::Kept(kept) => kept.get(at).map(|kept| of(kept.value().clone(), &|| kept.text())),
        }
    }

    /// The values of the event with their names.
    pub fn values(&self) -> Vec<(String, Value)> {
        let own = if self.kind == Events::MARK { self.place.arguments() } else { &[] };
        let names = own.iter().chain(self.point.arguments());
        names.filter_map(|name| Some(((*name).to_owned(), self.value(name)?))).collect()
    }

    /// The values of the event with their names, as text: `key="a", n=3`.
    pub fn values_text(&self) -> String {
        let mut out = String::new();
        let mut push = |name: &str, text: String| {
            if !out.is_empty() {
                out.push_str(", ");
            }
            if !name.is_empty() {
                out.push_str(name);
                out.push('=');
            }
            out.push_str(&text);
        };
        if self.kind == Events::MARK {
            let names = self.place.arguments().iter();
            names.zip(self.values).for_each(|(name, shown)| push(name, shown.text()));
            return out;
        }
        let names = self.point.arguments().iter();
        match self.arguments {
            Arguments::Live(shown) => names.zip(shown).for_each(|(name, shown)| push(name, shown.text())),
            Arguments::Kept(values) => names.zip(values).for_each(|(name, value)| push(name, value.text())),
        }
        out
    }
}

impl fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}({})", self.kind, self.point.name(), self.values_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_names() {
        assert_eq!((Events::CALL | Events::END).to_string(), "call|end");
        assert_eq!((Events::MARK | Events::PANIC).to_string(), "panic|mark");
        assert_eq!(Events::named("return"), Some(Events::RETURN));
        assert!(Events::END.contain(Events::PANIC) && !Events::CALL.meet(Events::END));
    }
}
