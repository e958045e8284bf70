//! What is done at a point: [`Instrument`], and those that there are.
//!
//! Must not know: when a probe ends, who asked for it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use super::event::{Event, Events};
use super::sink::Sink;
use super::stop::Break;
use super::tally::{Durations, Tally};
use crate::observe::boundary;
use crate::tb;
use crate::value::Value;

/// Does something with what happens at a point. It may hold state, and act on the program; it runs in the task that passes,
/// which must not wait in it.
///
/// A panic in it ends its probe, and reaches nobody else.
pub trait Instrument: Send + Sync + 'static {
    /// What it wants to be told of.
    fn events(&self) -> Events {
        Events::CALL
    }

    /// Whether it looks at arguments when the call is over: then they are copied when it begins.
    fn needs_arguments(&self) -> bool {
        false
    }

    /// Something has happened.
    fn observe(&self, event: &Event<'_>);

    /// What it has found so far.
    fn report(&self) -> Value {
        Value::Nothing
    }

    /// The same for people: lines. Without one it is the report.
    fn text(&self) -> Option<String> {
        None
    }

    /// It is part of that probe now.
    #[doc(hidden)]
    fn belongs_to(&self, probe: u64) {
        let _ = probe;
    }

    /// Whether whoever passes is to stop: of this crate's own.
    #[doc(hidden)]
    fn stops(&self) -> bool {
        false
    }

    /// All that it does, if that is so little that nobody has to look how much: of this crate's own.
    #[doc(hidden)]
    fn light(&self) -> Option<Light> {
        None
    }
}

/// What an instrument does for which no event has to be made. It is done instead of [`observe`](Instrument::observe).
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct Light(pub(super) Lightly);

#[derive(Debug, Clone)]
pub(super) enum Lightly {
    /// One more.
    Counts(Tally),
    /// How long the call has lasted, if it is over.
    Measures(Durations),
}

/// Makes an instrument for a probe, from the words that came after its name.
type Factory = dyn Fn(&[&str]) -> Result<Box<dyn Instrument>, String> + Send + Sync;

static REGISTERED: LazyLock<Mutex<BTreeMap<String, Arc<Factory>>>> = LazyLock::new(Mutex::default);

fn registered() -> std::sync::MutexGuard<'static, BTreeMap<String, Arc<Factory>>> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes an instrument known by name, for the console and for specifications: `probe attach app::* incr`, or `incr(cache, 2)`,
/// whose words come as arguments. A name that is there is replaced; probes that have the old one keep it.
///
/// # Panics
/// If the name is no word of letters, digits and `_`, or one of this crate's own.
pub fn register_instrument<F>(name: &str, factory: F)
where
    F: Fn(&[&str]) -> Result<Box<dyn Instrument>, String> + Send + Sync + 'static,
{
    let word = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    assert!(word, "an instrument's name is a word of letters, digits and _, and {name:?} is none");
    assert!(!OWN.contains(&name), "{name} is an instrument of coro's own: take another name");
    registered().insert(name.to_owned(), Arc::new(factory));
}

/// How long a task stands at a breakpoint of the console.
const LONGEST_STOP: Duration = Duration::from_secs(60);

/// Those of this crate.
pub(super) const OWN: &[&str] = &["log", "count", "hist", "rate", "stack", "top", "hot", "break"];

/// The names of those that the program has registered.
pub(super) fn names() -> Vec<String> {
    registered().keys().cloned().collect()
}

/// An instrument as it is written: `log`, `log(call)`, `top(key)`, `incr(cache, 2)`.
///
/// # Errors
/// What is wrong with it, and what there is.
pub(super) fn parse(text: &str, sink: &Arc<Sink>) -> Result<Box<dyn Instrument>, String> {
    let (name, words) = match text.split_once('(') {
        None => (text, Vec::new()),
        Some((name, rest)) => {
            let inside = rest.strip_suffix(')').ok_or_else(|| format!("{text}: the bracket is not closed"))?;
            (name, inside.split(',').map(str::trim).filter(|word| !word.is_empty()).collect())
        }
    };
    let events = |usual: Events| -> Result<Events, String> {
        words
            .iter()
            .try_fold(Events::NONE, |all, word| {
                let one = Events::named(word);
                one.map(|one| all | one)
                    .ok_or_else(|| format!("{name}: {word} is no event; there are call, return, panic, end and mark"))
            })
            .map(|all| if all == Events::NONE { usual } else { all })
    };
    let none = |made: Box<dyn Instrument>| match &*words {
        [] => Ok(made),
        [word, ..] => Err(format!("{name} takes no words, and {word} is one")),
    };
    match name {
        "log" => Ok(Box::new(Log::new(events(Log::USUAL)?, sink.clone()))),
        "count" => Ok(Box::new(Count::new(events(Events::CALL)?))),
        "hist" => none(Box::<Histogram>::default()),
        "rate" => none(Box::<Rate>::default()),
        "break" => {
            let events = events(Events::CALL)?;
            Ok(Box::new(Break::new(events, sink.clone(), LONGEST_STOP, None)))
        }
        "stack" => Ok(Box::new(Stacks::new(events(Events::CALL)?))),
        "hot" => none(Box::<super::hot::HotSpots>::default()),
        "top" => match *words {
            [argument] => Ok(Box::new(Top::of(argument))),
            _ => Err("top wants the name of one argument: top(key)".to_owned()),
        },
        _ => {
            let factory = registered().get(name).cloned();
            match factory {
                Some(factory) => factory(&words),
                None => {
                    let mut all: Vec<String> = OWN.iter().map(|name| (*name).to_owned()).collect();
                    all.extend(names());
                    Err(format!("there is no instrument {name}; there are {}", all.join(", ")))
                }
            }
        }
    }
}

/// Counts.
pub(super) struct Count {
    events: Events,
    tally: Tally,
}

impl Count {
    pub(super) fn new(events: Events) -> Count {
        Count { events, tally: Tally::new() }
    }
}

impl Instrument for Count {
    fn events(&self) -> Events {
        self.events
    }

    #[inline]
    fn observe(&self, _: &Event<'_>) {
        self.tally.add();
    }

    fn report(&self) -> Value {
        Value::map([("count", Value::of(self.tally.sum()))])
    }

    fn text(&self) -> Option<String> {
        Some(format!("count {}", self.tally.sum()))
    }

    fn light(&self) -> Option<Light> {
        Some(Light(Lightly::Counts(self.tally.clone())))
    }
}

/// How long calls last.
#[derive(Default)]
pub(super) struct Histogram {
    durations: Durations,
}

impl Instrument for Histogram {
    fn events(&self) -> Events {
        Events::END
    }

    #[inline]
    fn observe(&self, event: &Event<'_>) {
        if let Some(ticks) = event.elapsed {
            self.durations.record(ticks);
        }
    }

    fn report(&self) -> Value {
        let all = self.durations.distribution();
        let at = |q| Value::of(all.quantile(q));
        Value::map([
            ("count", Value::of(all.count())),
            ("total", Value::of(all.total())),
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p999", at(0.999)),
            ("longest", Value::of(all.longest())),
        ])
    }

    fn text(&self) -> Option<String> {
        Some(super::text::histogram(&self.durations.distribution()))
    }

    fn light(&self) -> Option<Light> {
        Some(Light(Lightly::Measures(self.durations.clone())))
    }
}

/// How many a second: since the last report, and altogether.
pub(super) struct Rate {
    tally: Tally,
    begun: std::time::Instant,
    last: Mutex<(std::time::Instant, u64)>,
}

impl Default for Rate {
    fn default() -> Rate {
        let now = std::time::Instant::now();
        Rate { tally: Tally::new(), begun: now, last: Mutex::new((now, 0)) }
    }
}

impl Rate {
    /// How many, how many a second since the last look, and since the beginning.
    fn look(&self) -> (u64, f64, f64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, sum) = (std::time::Instant::now(), self.tally.sum());
        let per_second = |from: std::time::Instant, n: u64| n as f64 / now.duration_since(from).as_secs_f64().max(1e-6);
        let recent = per_second(last.0, sum.saturating_sub(last.1));
        // A look right after another one says nothing.
        if now.duration_since(last.0).as_millis() >= 100 {
            *last = (now, sum);
        }
        (sum, recent, per_second(self.begun, sum))
    }
}

impl Instrument for Rate {
    #[inline]
    fn observe(&self, _: &Event<'_>) {
        self.tally.add();
    }

    fn report(&self) -> Value {
        let (count, recent, average) = self.look();
        Value::map([
            ("count", Value::of(count)),
            ("per_second", Value::of(recent)),
            ("per_second_since_start", Value::of(average)),
        ])
    }

    fn text(&self) -> Option<String> {
        let (count, recent, average) = self.look();
        Some(format!("rate {recent:.1}/s since the last look, {average:.1}/s since it was attached, {count} in all"))
    }

    fn light(&self) -> Option<Light> {
        Some(Light(Lightly::Counts(self.tally.clone())))
    }
}

/// Writes a line for each.
pub(super) struct Log {
    events: Events,
    sink: Arc<Sink>,
    told: Tally,
    lost: Tally,
}

impl Log {
    /// A line for each call that is over, and for each mark that was asked for by its name.
    pub(super) const USUAL: Events = Events::END.and(Events::PASSED);

    pub(super) fn new(events: Events, sink: Arc<Sink>) -> Log {
        Log { events, sink, told: Tally::new(), lost: Tally::new() }
    }
}

impl Instrument for Log {
    fn events(&self) -> Events {
        self.events
    }

    fn needs_arguments(&self) -> bool {
        self.events.meet(Events::END)
    }

    fn observe(&self, event: &Event<'_>) {
        let taken = self.sink.line(|| super::text::line(event));
        if taken { self.told.add() } else { self.lost.add() }
    }

    fn report(&self) -> Value {
        let (told, lost) = (self.told.sum(), self.lost.sum());
        Value::map([("lines", Value::of(told)), ("lost", Value::of(lost))])
    }

    fn text(&self) -> Option<String> {
        let (told, lost) = (self.told.sum(), self.lost.sum());
        Some(match lost {
            0 => format!("log {told} lines"),
            _ => format!("log {told} lines, and {lost} for which there was no room"),
        })
    }
}

/// The most frequent values of one argument: "space saving" (Metwally, Agrawal, El Abbadi 2005), whose counts are too high
/// by at most what it says.
pub(super) struct Top {
    argument: String,
    counts: Mutex<BTreeMap<String, (u64, u64)>>,
    /// Passed while another task counted.
    missed: Tally,
}

/// Values that are counted, those that are shown, and their length.
const COUNTED: usize = 256;
const TOP: usize = 10;
const LONGEST_KEY: usize = 120;

impl Top {
    pub(super) fn of(argument: &str) -> Top {
        Top { argument: argument.to_owned(), counts: Mutex::default(), missed: Tally::new() }
    }

    fn most(&self) -> Vec<(String, u64, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = counts.iter().map(|(key, (n, over))| (key.clone(), *n, *over)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(TOP);
        all
    }
}

impl Instrument for Top {
    fn observe(&self, event: &Event<'_>) {
        let Some(mut key) = event.key(&self.argument) else { return };
        key.truncate(boundary(&key, LONGEST_KEY));
        let Ok(mut counts) = self.counts.try_lock() else {
            self.missed.add();
            return;
        };
        if let Some((n, _)) = counts.get_mut(&key) {
            *n += 1;
        } else if counts.len() < COUNTED {
            counts.insert(key, (1, 0));
        } else if let Some((rarest, n)) = counts.iter().min_by_key(|(_, (n, _))| *n).map(|(k, (n, _))| (k.clone(), *n))
        {
            counts.remove(&rarest);
            counts.insert(key, (n + 1, n));
        }
    }

    fn report(&self) -> Value {
        let row = |(key, n, over): (String, u64, u64)| {
            Value::map([("value", Value::Text(key)), ("count", Value::of(n)), ("at_most_too_high", Value::of(over))])
        };
        Value::List(self.most().into_iter().map(row).collect())
    }

    fn text(&self) -> Option<String> {
        let mut out = format!("top {}", self.argument);
        for (key, n, over) in self.most() {
            let _ = write!(out, "\n  {n:>9}  {}", key.escape_debug());
            if over > 0 {
                let _ = write!(out, " (at most {over} too many)");
            }
        }
        if self.missed.sum() > 0 {
            let _ = write!(out, "\n  not counted, as two came at once: {}", self.missed.sum());
        }
        Some(out)
    }
}

/// The stacks on which a point is passed, each once, with how often.
pub(super) struct Stacks {
    events: Events,
    found: Mutex<BTreeMap<String, u64>>,
}

/// Stacks that are told apart.
const MOST_STACKS: usize = 64;

impl Stacks {
    pub(super) fn new(events: Events) -> Stacks {
        Stacks { events, found: Mutex::default() }
    }
}

impl Instrument for Stacks {
    fn events(&self) -> Events {
        self.events
    }

    fn observe(&self, _: &Event<'_>) {
        let stack = tb::stack_string();
        let Ok(mut found) = self.found.try_lock() else { return };
        let known = found.len();
        match found.get_mut(&stack) {
            Some(n) => *n += 1,
            None if known < MOST_STACKS => drop(found.insert(stack, 1)),
            None => *found.entry("others".to_owned()).or_default() += 1,
        }
    }

    fn report(&self) -> Value {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let row =
            |(stack, n): (&String, &u64)| Value::map([("count", Value::of(*n)), ("stack", Value::Text(stack.clone()))]);
        Value::List(found.iter().map(row).collect())
    }

    fn text(&self) -> Option<String> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = found.iter().collect();
        all.sort_by(|a, b| b.1.cmp(a.1));
        let mut out = format!("stack {} different", all.len());
        for (stack, n) in all.into_iter().take(TOP) {
            let _ = write!(out, "\n  ×{n} {stack}");
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Arguments;
    use super::*;
    use crate::observe::{Point, PointKind, PointName, Shown};

    #[test]
    fn endless_different_values_take_bounded_room() {
        static POINT: Point = Point::new(PointName::Fixed("top"), PointKind::Function, "", 1, 1, &["key"]);
        let top = Top::of("key");
        for n in 0..10_000 {
            // One in two is the same, and the others never come again.
            let key = if n % 2 == 0 { "often".to_owned() } else { format!("{n} {}", "x".repeat(1000)) };
            top.observe(&Event {
                kind: Events::CALL,
                wanted_as: Events::CALL,
                place: &POINT,
                point: &POINT,
                arguments: Arguments::Live(&[Shown::Text(&key)]),
                result: None,
                failed: false,
                values: &[],
                elapsed: None,
                segment: None,
            });
        }
        {
            let counts = top.counts.lock().unwrap();
            assert_eq!((counts.len(), counts.keys().map(String::len).max()), (COUNTED, Some(LONGEST_KEY)));
        }
        let most = top.most();
        assert_eq!((most.len(), &most[0]), (TOP, &("often".to_owned(), 5000, 0)));
    }
}
