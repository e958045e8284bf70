//! Probes from the program's side: said in a row, started, looked at, taken away.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::comers::Comers;
use super::event::{Event, Events};
use super::hot::HotSpots;
use super::instrument::{self, Count, Histogram, Instrument, Log, Rate, Stacks, Top};
use super::registry;
use super::running::{Filter, Limits, Made, Probe};
use super::sink::Sink;
use super::stop::Break;
use crate::value::Value;

/// Why there is no such probe, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeError(pub(super) String);

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ProbeError {}

/// Makes a condition of its text.
pub(crate) type Compile = fn(&str) -> Result<Filter, String>;

/// The layer that has expressions puts itself here: a program may attach probes before its first runtime.
#[linkme::distributed_slice]
pub(crate) static CORO_CONDITIONS_0_1: [Compile];

/// A condition from its text.
pub(super) fn compile(text: &str) -> Result<Filter, String> {
    // Miri has no linker that could put the table together.
    let known: &[Compile] = if cfg!(miri) { &[] } else { CORO_CONDITIONS_0_1.static_slice() };
    match known.first() {
        Some(compile) => compile(text),
        None if cfg!(feature = "script") => {
            Err("conditions can be read when the first runtime has started: begin with coro::run".to_owned())
        }
        None => {
            Err("conditions need the feature \"script\" of coro-rt, which this program was built without".to_owned())
        }
    }
}

/// Begins to describe a probe on every point that `pattern` names: a path (`app::cache::get`), the end of one (`cache::get`,
/// `get`), with `*` for anything.
pub fn attach_to(pattern: impl Into<String>) -> Attach {
    let pattern = pattern.into();
    let made = Made {
        name: pattern.clone(),
        pattern,
        session: None,
        instruments: Vec::new(),
        written: String::new(),
        filter: None,
        filter_text: None,
        limits: Limits::default(),
        sink: Arc::new(Sink::stderr()),
    };
    Attach { made, later: false, wrong: None }
}

/// A probe that is not attached yet; see [`attach_to`].
#[must_use = "nothing is attached before `start`"]
pub struct Attach {
    made: Made,
    later: bool,
    /// What was wrong with something said before.
    wrong: Option<String>,
}

impl fmt::Debug for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attach").field("pattern", &self.made.pattern).field("instruments", &self.made.written).finish()
    }
}

impl Attach {
    pub(super) fn with(self, written: &str, instrument: impl Instrument) -> Attach {
        self.with_boxed(written, Box::new(instrument))
    }

    fn with_boxed(mut self, written: &str, instrument: Box<dyn Instrument>) -> Attach {
        if !self.made.written.is_empty() {
            self.made.written.push(' ');
        }
        self.made.written.push_str(written);
        self.made.instruments.push(instrument);
        self
    }

    /// What lists show it as; the pattern, if nothing is said.
    pub fn named(mut self, name: impl Into<String>) -> Attach {
        self.made.name = name.into();
        self
    }

    /// Counts calls.
    pub fn count(self) -> Attach {
        self.with("count", Count::new(Events::CALL))
    }

    /// Counts these events.
    pub fn count_of(self, events: Events) -> Attach {
        self.with(&format!("count({events})"), Count::new(events))
    }

    /// A histogram of how long calls last.
    pub fn histogram(self) -> Attach {
        self.with("hist", Histogram::default())
    }

    /// How many calls a second.
    pub fn rate(self) -> Attach {
        self.with("rate", Rate::default())
    }

    /// The most frequent values of that argument.
    pub fn top(self, argument: &str) -> Attach {
        self.with(&format!("top({argument})"), Top::of(argument))
    }

    /// The stacks on which it is called.
    pub fn stacks(self) -> Attach {
        self.with("stack", Stacks::new(Events::CALL))
    }

    /// Between which [`mark!`](macro@crate::probe::mark)s calls spend their time.
    pub fn hot_spots(self) -> Attach {
        self.with("hot", HotSpots::default())
    }

    /// A line to stderr for each call that is over, at most 500 a second: `app::cache::get(key="a") => Some(3) in 12.3 µs, #17`. Also for each
    /// mark that the pattern names itself.
    pub fn log(self) -> Attach {
        self.log_of(Log::USUAL)
    }

    /// The same for these events.
    pub fn log_of(self, events: Events) -> Attach {
        let sink = self.made.sink.clone();
        self.with(&format!("log({events})"), Log::new(events, sink))
    }

    /// Lines are kept for [`Attached::lines`], up to 256 KiB, and not written to stderr. To be said before `log`.
    pub fn keep_lines(mut self) -> Attach {
        self.made.sink = Arc::new(Sink::queue());
        self
    }

    /// One of the program's own.
    pub fn instrument(self, instrument: impl Instrument) -> Attach {
        self.with("custom", instrument)
    }

    /// Instruments as they are written at the console: `log`, `count hist`, `top(key)`, `incr(cache, 2)`.
    pub fn instruments(mut self, text: &str) -> Attach {
        for word in words(text) {
            match instrument::parse(word, &self.made.sink) {
                Ok(made) => self = self.with_boxed(word, made),
                Err(wrong) => self.wrong = self.wrong.or(Some(wrong)),
            }
        }
        self
    }

    /// Only events for which this is true count. It runs where an instrument does.
    pub fn when(mut self, filter: impl Fn(&Event<'_>) -> bool + Send + Sync + 'static) -> Attach {
        self.made.filter = Some(Box::new(move |event| Ok(filter(event))));
        self.made.filter_text = Some("by the program".to_owned());
        self
    }

    /// As [`when`](Attach::when), where the name says what for.
    pub(super) fn only(mut self, filter: impl Fn(&Event<'_>) -> bool + Send + Sync + 'static) -> Attach {
        self.made.filter = Some(Box::new(move |event| Ok(filter(event))));
        self
    }

    /// Where its lines go.
    pub(super) fn sink(&self) -> Arc<Sink> {
        self.made.sink.clone()
    }

    /// The same as an expression over the arguments by their names, `result`, `failed`, `elapsed` (seconds) and `task` (the id):
    /// `elapsed > 0.1 && key != "a"`. Needs the feature `script`. One that cannot be evaluated ends the probe.
    pub fn condition(mut self, expression: &str) -> Attach {
        match compile(expression) {
            Ok(filter) => {
                self.made.filter = Some(filter);
                self.made.filter_text = Some(expression.to_owned());
            }
            Err(wrong) => self.wrong = self.wrong.or(Some(wrong)),
        }
        self
    }

    /// It is over after so long.
    pub fn lifespan(mut self, lifespan: Duration) -> Attach {
        self.made.limits.lifespan = Some(lifespan);
        self
    }

    /// It is over after so many events that counted.
    pub fn hits(mut self, hits: u64) -> Attach {
        self.made.limits.hits = Some(hits);
        self
    }

    /// The first `n` events do not count: of calls, of ends, and of each mark.
    pub fn skip(mut self, n: u64) -> Attach {
        self.made.limits.skip = n;
        self
    }

    /// Stops whoever passes; see [`break_at`](super::break_at).
    pub(super) fn breaks(self, events: Events, limit: Duration, comers: Option<Arc<Comers>>) -> Attach {
        let sink = self.made.sink.clone();
        self.with(&format!("break({events})"), Break::new(events, sink, limit, comers))
    }

    /// No more than so many events count in a second; the others are counted as suppressed.
    pub fn per_second(mut self, most: u32) -> Attach {
        self.made.limits.per_second = Some(most);
        self
    }

    /// One event of so many counts: of calls, of ends, and of each mark.
    pub fn every(mut self, n: u64) -> Attach {
        self.made.limits.every = n.max(1);
        self
    }

    /// The part of one CPU that its instruments may take, 0.25 if nothing is said: one that takes more in two windows of half a
    /// second in a row is ended. Counts, rates and histograms are not measured, because that would cost more than they do.
    pub fn cost(mut self, share: f64) -> Attach {
        self.made.limits.share = share;
        self
    }

    /// It is no error if there is no such point yet: it is attached to whatever gets that name, before its first call.
    pub fn later(mut self) -> Attach {
        self.later = true;
        self
    }

    /// For the console: it ends with that session, and lines go to it.
    pub(super) fn of_session(mut self, session: u64, sink: &Arc<Sink>) -> Attach {
        self.made.session = Some(session);
        self.made.sink = sink.clone();
        self
    }

    /// Attaches it.
    ///
    /// # Errors
    /// If no point is called like that, with those that are called nearly so; if something said before is wrong; if it has
    /// no instrument; if the thread that ends probes cannot be started.
    pub fn start(self) -> Result<Attached, ProbeError> {
        if let Some(wrong) = self.wrong {
            return Err(ProbeError(wrong));
        }
        if self.made.instruments.is_empty() {
            return Err(ProbeError(
                "a probe needs an instrument: log, count, hist, rate, stack, top(ARG) or hot".to_owned(),
            ));
        }
        let probe = registry::attach(self.made, self.later).map_err(ProbeError)?;
        Ok(Attached { probe, stays: false })
    }
}

/// The words of a text, where brackets hold together what is in them.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0u32;
    let outside = move |c: char| {
        depth += u32::from(c == '(');
        depth = depth.saturating_sub(u32::from(c == ')'));
        depth == 0 && c.is_whitespace()
    };
    text.split(outside).map(|word| word.trim().trim_end_matches(',')).filter(|word| !word.is_empty())
}

/// A probe that is attached. Dropping this takes it away, unless [`leave`](Attached::leave) was said.
#[must_use = "dropping it takes the probe away; `leave` lets it be"]
pub struct Attached {
    probe: Arc<Probe>,
    stays: bool,
}

impl Attached {
    /// Its number, as `probe list` at the console shows it.
    pub fn id(&self) -> u64 {
        self.probe.id()
    }

    /// The points that it is attached to.
    pub fn points(&self) -> Vec<&'static crate::observe::Point> {
        self.probe.points()
    }

    /// Its instruments, as they were written.
    pub(super) fn written(&self) -> &str {
        &self.probe.written
    }

    /// How many events counted, and how many came too fast to.
    pub fn hits(&self) -> (u64, u64) {
        self.probe.hits()
    }

    /// What each instrument has found.
    pub fn report(&self) -> Vec<Value> {
        self.probe.instruments.iter().map(|told| told.instrument.report()).collect()
    }

    /// The same as lines for people.
    pub fn text(&self) -> String {
        registry::found(&self.probe)
    }

    /// The lines that came since the last call; see [`Attach::keep_lines`].
    pub fn lines(&self) -> Vec<String> {
        self.probe.sink.take(usize::MAX)
    }

    /// Why it is over, if it is: its time, its hits, its price, a failure.
    pub fn ended(&self) -> Option<&str> {
        self.probe.ended()
    }

    /// Takes it away: what happens at a point when this has returned is told to none of its instruments, and who stands at a breakpoint
    /// of it goes on. What another thread has begun to tell it may still come to its end. What it has found can still be asked for.
    pub fn stop(&self) {
        registry::detach(self.id(), "taken away");
    }

    /// Lets it be for as long as its limits allow; the console can take it away.
    pub fn leave(mut self) -> u64 {
        self.stays = true;
        self.id()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !self.stays {
            self.stop();
        }
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "probe {} on {}", self.id(), self.probe.pattern)
    }
}
