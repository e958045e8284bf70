//! One probe: what it does, when it is over, and what happens when one of its instruments goes wrong.
//!
//! Invariants: nothing of an instrument reaches the task that passes: neither a panic nor a wait, nor another event; and nothing
//! happens after the end. Ending takes no lock: whoever passes may be the one who notices. Whoever lets go of a probe last drops
//! nothing of the program's: that is left to `parting`.
//!
//! Must not know: lists of points, who asked.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::event::{Event, Events};
use super::instrument::{Instrument, Light, Lightly};
use super::parting::{self, Left};
use super::registry;
use super::sink::{PerSecond, Sink};
use super::tally::Tally;
use crate::observe::{Kept, Point, Shown};
use crate::scheduler::runtime::payload_text;
use crate::scheduler::spare::call_on_spare;
use crate::scheduler::{no_switch, suspend};
use crate::sys::clock;

/// Decides whether an event counts; an error ends the probe.
pub(crate) type Filter = Box<dyn Fn(&Event<'_>) -> Result<bool, String> + Send + Sync>;

/// For how long, how often, how fast, and at which price.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limits {
    /// From when it is attached.
    pub(super) lifespan: Option<Duration>,
    pub(super) hits: Option<u64>,
    pub(super) per_second: Option<u32>,
    /// One of so many; 0 and 1: each.
    pub(super) every: u64,
    /// So many come first that do not count.
    pub(super) skip: u64,
    /// Part of one CPU that its instruments may take.
    pub(super) share: f64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { lifespan: None, hits: None, per_second: None, every: 1, skip: 0, share: 0.25 }
    }
}

/// Stack that a task must have left for instruments, and for a condition, in bytes; otherwise they run on another one. Without
/// optimisation frames are several times as large, and with the address sanitizer larger again: a log takes up to 32 KiB then and the deepest
/// condition more than 256.
const STACK: usize = of_stack(48, 32, 16);
const STACK_OF_FILTER: usize = of_stack(320, 112, 40);

/// KiB with the sanitizer, without optimisation, and with it.
const fn of_stack(sanitized: usize, plain: usize, optimised: usize) -> usize {
    (if cfg!(coro_asan) {
        sanitized
    } else if cfg!(debug_assertions) {
        plain
    } else {
        optimised
    }) << 10
}

/// One call of an instrument that lasts longer ends its probe.
const LONGEST: Duration = Duration::from_secs(1);

/// The price is looked at so often.
const WINDOW: Duration = Duration::from_millis(500);

/// Calls `f`, in which nobody may wait, where there are so many bytes of stack: on the worker's spare one if the task has too little
/// left, because an overflow would be the end of the process. `None` if there is none to be had.
fn with_room<T>(needed: usize, f: impl FnOnce() -> T) -> Option<T> {
    match suspend::stack_left() {
        Some(left) if left < needed => call_on_spare(f).ok(),
        _ => Some(no_switch(f)),
    }
}

/// See the module's head.
pub(super) struct Probe {
    id: u64,
    pub(super) name: String,
    pub(super) pattern: String,
    /// The console session that it ends with.
    pub(super) session: Option<u64>,
    pub(super) instruments: Vec<Told>,
    /// As they were written.
    pub(super) written: String,
    filter: Option<Filter>,
    pub(super) filter_text: Option<String>,
    pub(super) limits: Limits,
    pub(super) sink: Arc<Sink>,
    /// What it is attached to now.
    pub(super) points: Mutex<Vec<&'static Point>>,
    events: Events,
    /// When the call is over, or at a mark in it.
    needs_arguments_later: bool,
    /// Its instruments take next to nothing, and each event counts: nobody has to look after it.
    carefree: bool,
    /// Whoever passes is to stop.
    stops: bool,
    /// In ticks; `u64::MAX`: never.
    until: u64,
    /// Which it is of those that were ever put into lists; 0 before.
    turn: AtomicU64,
    /// Events that counted, unless an instrument has them.
    hits: Tally,
    /// The one instrument of a probe that does no more than to count or to measure each of them.
    counted_by: Option<Lightly>,
    /// The same, where only so many may be.
    taken: AtomicU64,
    /// Calls, ends, and marks by where they stand, so that a sample has something of each.
    seen: [AtomicU64; 8],
    speed: Option<PerSecond>,
    suppressed: Tally,
    /// There was too little of the task's stack left, and no other to be had.
    cramped: Tally,
    price: Price,
    over: AtomicBool,
    why: OnceLock<Why>,
    /// It was taken away after that.
    let_go: AtomicBool,
}

/// Why a probe is over.
struct Why {
    text: String,
    /// Because its hits are: who stands at a breakpoint of it stays there.
    used_up: bool,
}

/// An instrument, what it wants to be told of, and whether there is less to do than that: asked once, because the answer is the program's.
pub(super) struct Told {
    events: Events,
    light: Option<Light>,
    pub(super) instrument: Box<dyn Instrument>,
}

/// What goes into a probe.
pub(super) struct Made {
    pub(super) name: String,
    pub(super) pattern: String,
    pub(super) session: Option<u64>,
    pub(super) instruments: Vec<Box<dyn Instrument>>,
    pub(super) written: String,
    pub(super) filter: Option<Filter>,
    pub(super) filter_text: Option<String>,
    pub(super) limits: Limits,
    pub(super) sink: Arc<Sink>,
}

impl Probe {
    /// Begins to count its lifespan. Asks the instruments, so not under a lock.
    pub(super) fn new(id: u64, made: Made) -> Probe {
        let Made { name, pattern, session, instruments, written, filter, filter_text, limits, sink } = made;
        let needs_arguments = filter.is_some() || instruments.iter().any(|instrument| instrument.needs_arguments());
        let light = filter.is_none() && instruments.iter().all(|instrument| instrument.light().is_some());
        let unlimited = limits.every <= 1 && limits.skip == 0 && limits.hits.is_none() && limits.per_second.is_none();
        let carefree = light && unlimited;
        let stops = instruments.iter().any(|instrument| instrument.stops());
        instruments.iter().for_each(|instrument| instrument.belongs_to(id));
        let told = |instrument: Box<dyn Instrument>| Told {
            events: instrument.events(),
            light: instrument.light(),
            instrument,
        };
        let instruments: Vec<Told> = instruments.into_iter().map(told).collect();
        let events = instruments.iter().fold(Events::NONE, |events, told| events | told.events);
        let counted_by = match &*instruments {
            [Told { light: Some(Light(one)), .. }] if carefree => Some(one.clone()),
            _ => None,
        };
        let needs_arguments_later = needs_arguments && events.meet(Events::END | Events::MARK);
        parting::begins();
        let until = limits.lifespan.map_or(u64::MAX, |d| clock::ticks().saturating_add(clock::in_ticks(d)));
        Probe {
            id,
            name,
            pattern,
            session,
            instruments,
            written,
            filter,
            filter_text,
            sink,
            points: Mutex::default(),
            events,
            needs_arguments_later,
            carefree,
            stops,
            until,
            turn: AtomicU64::new(0),
            hits: Tally::new(),
            counted_by,
            taken: AtomicU64::new(0),
            seen: Default::default(),
            speed: limits.per_second.map(|n| PerSecond::new(n.into())),
            suppressed: Tally::new(),
            cramped: Tally::new(),
            price: Price::new(limits.share),
            over: AtomicBool::new(false),
            why: OnceLock::new(),
            let_go: AtomicBool::new(false),
            limits,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// It is put into lists now, as the one of that number. Under the registry's lock.
    pub(super) fn take_turn(&self, turn: u64) {
        self.turn.store(turn, Ordering::Relaxed);
    }

    /// When it came into lists: of two probes, which one a call saw that saw one of them only. Unlike numbers, turns are taken under the lock.
    pub(super) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    pub(super) fn events(&self) -> Events {
        self.events
    }

    /// Whether whoever passes may have to stop.
    pub(super) fn stops(&self) -> bool {
        self.stops
    }

    pub(super) fn needs_arguments_later(&self) -> bool {
        self.needs_arguments_later
    }

    /// Events that counted, and those that came too fast.
    pub(super) fn hits(&self) -> (u64, u64) {
        let hits = match &self.counted_by {
            None => self.hits.sum(),
            Some(Lightly::Counts(tally)) => tally.sum(),
            Some(Lightly::Measures(durations)) => durations.distribution().count(),
        };
        (hits, self.suppressed.sum())
    }

    /// Events at which the task had too little stack left for an instrument, and the worker had no other.
    pub(super) fn cramped(&self) -> u64 {
        self.cramped.sum()
    }

    /// How much longer it may last; `None`: as long as it likes.
    pub(super) fn left(&self) -> Option<Duration> {
        (self.until != u64::MAX).then(|| clock::duration(self.until.saturating_sub(clock::ticks())))
    }

    /// Why it is over, if it is.
    pub(super) fn ended(&self) -> Option<&str> {
        self.over.load(Ordering::Acquire).then(|| self.why.get().map_or("", |why| &why.text))
    }

    /// Ends it: nothing happens any more from here on, but what has begun already. The first reason counts.
    pub(super) fn end(&self, why: impl Into<String>) {
        self.end_for(Why { text: why.into(), used_up: false });
    }

    fn end_for(&self, why: Why) {
        if self.why.set(why).is_ok() {
            self.over.store(true, Ordering::Release);
            registry::nudge();
        }
    }

    /// Whether tasks that stand at a breakpoint of it stay there, although it is over.
    pub(super) fn keeps_stops(&self) -> bool {
        self.why.get().is_some_and(|why| why.used_up) && !self.let_go.load(Ordering::Relaxed)
    }

    /// They go on now.
    pub(super) fn lets_go(&self) {
        self.let_go.store(true, Ordering::Relaxed);
    }

    /// Ends it if its time is over.
    pub(super) fn expire(&self, now: u64) {
        if now >= self.until
            && let Some(lifespan) = self.limits.lifespan
        {
            self.end(format!("its {} are over", super::text::duration(lifespan)));
        }
    }

    /// Whether its time is over; then it is, too.
    #[inline]
    fn is_late(&self) -> bool {
        if self.until == u64::MAX {
            return false;
        }
        let now = clock::ticks();
        let late = now >= self.until;
        if late {
            self.expire(now);
        }
        late
    }

    /// The points that it is attached to.
    pub(super) fn points(&self) -> Vec<&'static Point> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something has happened at one of its points.
    #[inline]
    pub(super) fn fire(&self, event: &Event<'_>) {
        if self.over.load(Ordering::Relaxed) || !self.events.meet(event.wanted_as) || self.is_late() {
            return;
        }
        if self.carefree {
            if self.counted_by.is_none() {
                self.hits.add();
            }
            self.tell(event);
            return;
        }
        self.fire_with_care(event);
    }

    /// Whether its instruments take next to nothing, and each event counts.
    pub(super) fn is_carefree(&self) -> bool {
        self.carefree
    }

    /// The same as [`fire`](Probe::fire) does for one that is carefree, for whoever does it himself: after [`is_over`](Probe::is_over) and
    /// [`until`](Probe::until).
    pub(super) fn light(&self, wanted_as: Events) -> Vec<Lightly> {
        let told = self.instruments.iter().filter(|told| told.events.meet(wanted_as));
        let mut all: Vec<Lightly> = told.filter_map(|told| told.light.as_ref()).map(|Light(one)| one.clone()).collect();
        if !all.is_empty() && self.counted_by.is_none() {
            all.push(Lightly::Counts(self.hits.clone()));
        }
        all
    }

    /// Whether nothing happens any more; its time may be over nevertheless.
    #[inline(always)]
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// When its time is over, in ticks; `u64::MAX`: never.
    pub(super) fn until(&self) -> u64 {
        self.until
    }

    #[inline(never)]
    fn fire_with_care(&self, event: &Event<'_>) {
        let needed = if self.filter.is_some() { STACK_OF_FILTER } else { STACK };
        let stops = self.stops && super::stop::may_stop();
        let begun = clock::ticks();
        let outcome = catch_unwind(AssertUnwindSafe(|| with_room(needed, || self.run(event, stops))));
        match outcome {
            Ok(None) => return self.cramped.add(),
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(wrong))) => self.end(wrong),
            Err(payload) => {
                self.end(format!("an instrument panicked: {}", payload_text(&*payload)));
                // It may panic again when it is dropped.
                std::mem::forget(payload);
            }
        }
        if let Some(why) = self.price.pay(begun, clock::ticks()) {
            self.end(why);
        }
    }

    /// Copies what a call was given, for these probes, which look at it later. What shows a value may be the program's code, and is held to
    /// what instruments are. `None`: none of them is to be told of the rest of this call.
    pub(super) fn keep<'a>(
        probes: impl Iterator<Item = &'a Probe> + Clone,
        arguments: &[Shown<'_>],
    ) -> Option<Rc<[Kept]>> {
        let probes = probes.filter(|probe| !probe.over.load(Ordering::Relaxed));
        probes.clone().next()?;
        let begun = clock::ticks();
        let copy = || arguments.iter().map(Kept::of).collect();
        let kept = catch_unwind(AssertUnwindSafe(|| with_room(STACK, copy)));
        let ended = clock::ticks();
        match kept {
            Ok(None) => {
                probes.for_each(|probe| probe.cramped.add());
                None
            }
            Ok(Some(kept)) => {
                // Each would have it copied by itself.
                probes.for_each(|probe| probe.price.pay(begun, ended).into_iter().for_each(|why| probe.end(why)));
                Some(kept)
            }
            Err(payload) => {
                let why = format!("an argument panicked when it was shown: {}", payload_text(&*payload));
                std::mem::forget(payload);
                probes.for_each(|probe| probe.end(&*why));
                None
            }
        }
    }

    fn run(&self, event: &Event<'_>, stops: bool) -> Result<(), String> {
        if let Some(filter) = &self.filter
            // It may have taken a while.
            && (!filter(event)? || self.over.load(Ordering::Acquire) || self.is_late())
        {
            return Ok(());
        }
        if self.limits.every > 1 || self.limits.skip > 0 {
            let seen = match event.kind {
                Events::CALL => 0,
                Events::MARK => 2 + event.place.line() as usize % (self.seen.len() - 2),
                _ => 1,
            };
            let seen = self.seen[seen].fetch_add(1, Ordering::Relaxed);
            let counts = seen.checked_sub(self.limits.skip).is_some_and(|n| n.is_multiple_of(self.limits.every.max(1)));
            if !counts {
                return Ok(());
            }
        }
        if self.speed.as_ref().is_some_and(|speed| !speed.take()) {
            self.suppressed.add();
            return Ok(());
        }
        if self.stops && !stops {
            // One that is told of, and takes no hit away from those who stop.
            self.tell(event);
            return Ok(());
        }
        if let Some(most) = self.limits.hits {
            let before = self.taken.fetch_add(1, Ordering::Relaxed);
            if before >= most {
                return Ok(());
            }
            if before + 1 == most {
                // This one still counts.
                self.observe(event);
                self.end_for(Why { text: format!("its {most} hits are used up"), used_up: true });
                return Ok(());
            }
        }
        self.observe(event);
        Ok(())
    }

    fn observe(&self, event: &Event<'_>) {
        self.hits.add();
        self.tell(event);
    }

    #[inline]
    fn tell(&self, event: &Event<'_>) {
        self.instruments
            .iter()
            .filter(|told| told.events.meet(event.wanted_as))
            .for_each(|told| told.instrument.observe(event));
    }
}

impl Drop for Probe {
    /// On any thread, under any lock.
    fn drop(&mut self) {
        let instruments = std::mem::take(&mut self.instruments).into_iter().map(|told| told.instrument).collect();
        parting::leave(Left { probe: self.id, instruments, filter: self.filter.take() });
    }
}

/// What the instruments of a probe cost.
struct Price {
    share: f64,
    /// Both in ticks.
    begun: AtomicU64,
    spent: AtomicU64,
    /// A window in which it was too much; the next one decides.
    warned: AtomicBool,
    started: Instant,
}

impl Price {
    fn new(share: f64) -> Price {
        Price {
            share,
            begun: AtomicU64::new(clock::ticks()),
            spent: AtomicU64::new(0),
            warned: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Notes that one event has taken from `from` to `now`, in ticks; why the probe has to end, if it does. A busy machine stretches
    /// everything, so that twice in a row is what counts.
    fn pay(&self, from: u64, now: u64) -> Option<String> {
        let ticks = now.saturating_sub(from);
        if ticks > clock::in_ticks(LONGEST) {
            return Some(format!("one hit has taken {}", super::text::duration(clock::duration(ticks))));
        }
        let spent = self.spent.fetch_add(ticks, Ordering::Relaxed) + ticks;
        let begun = self.begun.load(Ordering::Relaxed);
        let window = now.saturating_sub(begun);
        if window < clock::in_ticks(WINDOW)
            || self.begun.compare_exchange(begun, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return None;
        }
        self.spent.fetch_sub(spent, Ordering::Relaxed);
        let share = spent as f64 / window as f64;
        let too_much = share > self.share;
        if !(self.warned.swap(too_much, Ordering::Relaxed) && too_much) {
            return None;
        }
        Some(format!(
            "it took {:.0} % of a CPU, {:.1} s after its beginning; {:.0} % are allowed",
            100.0 * share,
            self.started.elapsed().as_secs_f64(),
            100.0 * self.share
        ))
    }
}
