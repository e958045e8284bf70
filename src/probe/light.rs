//! The short way through a point at which calls are only counted and measured.
//!
//! What such probes do with a call is worked out when the list of the point is made: [`Acts`]. Passing the point is then that and no
//! more: the list is read from the worker's seat, and counts are added to in the worker's own places. Nothing else needs the list when
//! a call begins, but to know which probes see that, and whether the time will be wanted; so that stands in the point itself, as one number
//! ([`Plan`]), and a call that is only measured begins with one load and a reading of the clock.
//!
//! A plan is read by itself, so it may be an older one than the list. Then the call has begun before whoever came meanwhile was attached: from
//! then on everybody finds the new one. It is told to those whom its plan names.
//!
//! Invariants: nothing here allocates, waits or runs code of the program's, but where a probe ends, so that no point is passed meanwhile
//! and nobody has to be kept from telling of it. A call that began this way ends this way, whatever list there is then: all who saw it
//! begin were carefree, and they alone are told.
//!
//! Must not know: arguments, results, what else a probe can do.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::call::{silently, tell};
use super::event::Events;
use super::instrument::Lightly;
use super::running::Probe;
use super::tally::Own;
use super::watchers::{self, Watcher, Watchers};
use crate::observe::Point;
use crate::sys::clock;

/// What a call that begins has to do, as the point says. From above: the turn of the newest probe that sees it, three flags. 0 is no plan: the
/// long way, with arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan(u64);

impl Plan {
    pub(super) const NONE: Plan = Plan(0);
    /// Something is done at the beginning itself.
    const CALLS: u64 = 1;
    /// And at the end.
    const ENDS: u64 = 2;
    /// Which wants to know how long it was.
    const MEASURES: u64 = 4;
    const FLAGS: u32 = 3;

    #[inline(always)]
    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    #[inline(always)]
    fn newest(self) -> u64 {
        self.0 >> Plan::FLAGS
    }

    /// Says it to whoever begins a call from now on.
    pub(super) fn show(self, point: &Point) {
        point.plan().store(self.0, Ordering::Relaxed);
    }
}

/// A call that has begun, as far as its end has to know: two words, which come back in registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    /// The newest probe that has seen it, or one of those below, which are no turns.
    newest: u64,
    /// In ticks; 0 where nobody measures.
    began: u64,
}

impl Begun {
    /// Nobody is told of the end.
    const DONE: Begun = Begun { newest: 0, began: 0 };
    /// Nothing has happened yet: somebody wants more than is done here.
    const NOT: Begun = Begun { newest: u64::MAX, began: 0 };

    /// Whether it has begun; otherwise somebody wants more than is done here.
    #[inline(always)]
    pub(super) fn has_begun(self) -> bool {
        self.newest != Begun::NOT.newest
    }

    /// Whether somebody is told of the end.
    #[inline(always)]
    pub(super) fn has_end(self) -> bool {
        self.newest != Begun::DONE.newest
    }
}

/// What the probes of a list do, all of which are carefree.
pub(super) struct Acts {
    pub(super) plan: Plan,
    calls: Steps,
    returns: Steps,
    panics: Steps,
}

/// What they do at one event, in their order.
struct Steps {
    all: Box<[Step]>,
    /// Whether the time is wanted for any of it.
    timed: bool,
}

/// What one of them does.
struct Step {
    probe: Arc<Probe>,
    turn: u64,
    until: u64,
    /// Mostly there is one.
    first: Lightly,
    rest: Box<[Lightly]>,
}

impl Acts {
    /// Of such a list; `None` if somebody in it wants more.
    pub(super) fn of(all: &[Watcher], events: Events, newest: u64) -> Option<Acts> {
        let plain = |watcher: &Watcher| watcher.function.is_none() && watcher.probe.is_carefree();
        if newest == 0 || events.meet(Events::MARK) || !all.iter().all(plain) {
            return None;
        }
        let steps = |kind| all.iter().filter_map(move |watcher| Step::of(&watcher.probe, kind));
        let ends = |kind| Steps::of(steps(kind).rev().collect(), false);
        let (returns, panics) = (ends(Events::RETURN), ends(Events::PANIC));
        let measures = returns.measure() || panics.measure();
        let calls = Steps::of(steps(Events::CALL).collect(), measures);
        let flag = |on: bool, flag| if on { flag } else { 0 };
        let flags = flag(!calls.all.is_empty(), Plan::CALLS)
            | flag(events.meet(Events::END), Plan::ENDS)
            | flag(measures, Plan::MEASURES);
        Some(Acts { plan: Plan(newest << Plan::FLAGS | flags), calls, returns, panics })
    }

    /// A call begins; `act` counts.
    #[inline(always)]
    fn begin(&self, clock: impl FnOnce() -> u64, act: impl Fn(&Lightly, u64)) -> Begun {
        let now = if self.calls.timed { clock() } else { 0 };
        self.calls.run(u64::MAX, now, |one| act(one, 0));
        if !self.plan.has(Plan::ENDS) {
            return Begun::DONE;
        }
        Begun { newest: self.plan.newest(), began: now }
    }

    /// It is over.
    #[inline(always)]
    fn end(&self, begun: Begun, unwound: bool, clock: impl FnOnce() -> u64, act: impl Fn(&Lightly, u64)) {
        let steps = if unwound { &self.panics } else { &self.returns };
        let now = if steps.timed { clock() } else { 0 };
        let elapsed = now.saturating_sub(begun.began);
        steps.run(begun.newest, now, |one| act(one, elapsed));
    }
}

impl Steps {
    /// Who measures the call wants to know the time when it begins, too.
    fn of(all: Box<[Step]>, begins_measured: bool) -> Steps {
        let timed = begins_measured || all.iter().any(|step| step.until != u64::MAX || step.measures());
        Steps { all, timed }
    }

    fn measure(&self) -> bool {
        self.all.iter().any(Step::measures)
    }

    /// Those that are not newer.
    #[inline(always)]
    fn run(&self, newest: u64, now: u64, act: impl Fn(&Lightly)) {
        for step in &self.all {
            if step.turn <= newest {
                step.run(now, &act);
            }
        }
    }
}

impl Step {
    fn of(probe: &Arc<Probe>, kind: Events) -> Option<Step> {
        let mut all = probe.light(kind).into_iter();
        let first = all.next()?;
        Some(Step { probe: probe.clone(), turn: probe.turn(), until: probe.until(), first, rest: all.collect() })
    }

    #[inline(always)]
    fn run(&self, now: u64, act: impl Fn(&Lightly)) {
        if self.probe.is_over() {
            return;
        }
        if now >= self.until {
            return self.is_late(now);
        }
        act(&self.first);
        for other in &self.rest {
            act(other);
        }
    }

    /// It ends now. To say why takes memory, and the allocator may be the program's.
    #[cold]
    #[inline(never)]
    fn is_late(&self, now: u64) {
        silently(|| self.probe.expire(now));
    }

    fn measures(&self) -> bool {
        std::iter::once(&self.first).chain(&self.rest).any(|one| matches!(one, Lightly::Measures(_)))
    }
}

impl Lightly {
    #[inline(always)]
    fn act_own(&self, own: Own, elapsed: u64) {
        match self {
            Lightly::Counts(tally) => tally.add_own(own),
            Lightly::Measures(durations) => durations.record_own(own, elapsed),
        }
    }

    fn act(&self, elapsed: u64) {
        match self {
            Lightly::Counts(tally) => tally.add(),
            Lightly::Measures(durations) => durations.record(elapsed),
        }
    }
}

/// A call begins at a point that is watched.
#[cold]
#[inline(never)]
pub(super) fn begin(point: &'static Point) -> Begun {
    let plan = Plan(point.plan().load(Ordering::Relaxed));
    if plan.has(Plan::CALLS) {
        return count(point);
    }
    if plan == Plan::NONE {
        return Begun::NOT;
    }
    // Whoever runs in an instrument is not told of the end either.
    let newest = plan.newest();
    if !plan.has(Plan::MEASURES) {
        return Begun { newest, began: 0 };
    }
    match clock::counted() {
        Some(began) => Begun { newest, began },
        None => begin_timed(newest),
    }
}

#[cold]
#[inline(never)]
fn begin_timed(newest: u64) -> Begun {
    Begun { newest, began: clock::ticks() }
}

/// A call is counted when it begins.
#[cold]
#[inline(never)]
fn count(point: &'static Point) -> Begun {
    let begun = watchers::read_seated(point, |h, list| {
        let (false, Some(list)) = (h.local().calls.busy.get(), list) else { return Some(Begun::DONE) };
        let Some(acts) = &list.acts else { return Some(Begun::NOT) };
        let own = Own::of(h)?;
        Some(acts.begin(|| h.worker.ticks(), |one, elapsed| one.act_own(own, elapsed)))
    });
    if let Some(begun) = begun {
        return begun;
    }
    count_beside(point)
}

/// The same for whoever has no seat, or no place to count in.
#[cold]
#[inline(never)]
fn count_beside(point: &'static Point) -> Begun {
    let mut begun = Begun::DONE;
    tell(|_| {
        let begin = |list: &Watchers| match &list.acts {
            Some(acts) => acts.begin(clock::ticks, Lightly::act),
            None => Begun::NOT,
        };
        begun = watchers::read(point, begin).unwrap_or(Begun::DONE);
    });
    begun
}

/// It returns, or something unwinds it.
#[cold]
#[inline(never)]
pub(super) fn end(point: &'static Point, begun: Begun, unwound: bool) {
    let told = watchers::read_seated(point, |h, list| {
        let (false, Some(list)) = (h.local().calls.busy.get(), list) else { return Some(()) };
        let (acts, own) = (list.acts.as_ref()?, Own::of(h)?);
        acts.end(begun, unwound, || h.worker.ticks(), |one, elapsed| one.act_own(own, elapsed));
        Some(())
    });
    if told.is_some() {
        return;
    }
    end_beside(point, begun, unwound);
}

/// The same for whoever has no seat or no place to count in, and where somebody has come who wants more.
#[cold]
#[inline(never)]
fn end_beside(point: &'static Point, begun: Begun, unwound: bool) {
    tell(|_| {
        watchers::read(point, |list| {
            if let Some(acts) = &list.acts {
                return acts.end(begun, unwound, clock::ticks, Lightly::act);
            }
            let kind = if unwound { Events::PANIC } else { Events::RETURN };
            let now = clock::ticks();
            let elapsed = now.saturating_sub(begun.began);
            let saw = list.all.iter().rev().filter(|watcher| {
                watcher.function.is_none() && watcher.probe.is_carefree() && watcher.probe.turn() <= begun.newest
            });
            let steps = saw.filter_map(|watcher| Step::of(&watcher.probe, kind));
            steps.for_each(|step| step.run(now, |one| one.act(elapsed)));
        });
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::event::Event;
    use super::super::instrument::{Count, Histogram, Instrument};
    use super::super::running::{Filter, Limits, Made};
    use super::super::sink::Sink;
    use super::*;
    use crate::scheduler::Runtime;

    /// One that counts these events and measures calls, and that nobody sweeps.
    fn probe(turn: u64, events: Events, lifespan: Option<Duration>, filter: Option<Filter>) -> Arc<Probe> {
        let instruments: Vec<Box<dyn Instrument>> = vec![Box::new(Count::new(events)), Box::<Histogram>::default()];
        let probe = Probe::new(
            turn,
            Made {
                name: "test".into(),
                pattern: "test".into(),
                session: None,
                instruments,
                written: String::new(),
                filter,
                filter_text: None,
                limits: Limits { lifespan, ..Limits::default() },
                sink: Arc::new(Sink::queue()),
            },
        );
        probe.take_turn(turn);
        Arc::new(probe)
    }

    fn show(point: &'static Point, probes: &[&Arc<Probe>]) {
        let watcher = |probe: &&Arc<Probe>| Watcher { probe: (*probe).clone(), function: None };
        watchers::replace(point, probes.iter().map(watcher).collect(), Vec::new());
    }

    /// What its two instruments have.
    fn found(probe: &Probe) -> [u64; 2] {
        let count = |at: usize| match probe.instruments[at].instrument.report().get("count") {
            Some(&crate::value::Value::Int(n)) => n as u64,
            other => panic!("{other:?}"),
        };
        [count(0), count(1)]
    }

    fn plan(point: &Point) -> Plan {
        Plan(point.plan().load(Ordering::Relaxed))
    }

    /// On a plain thread, and in a task, where it goes another way.
    fn both(f: impl Fn() + Copy + Send + 'static) {
        f();
        Runtime::builder().workers(1).build().unwrap().spawn(f).join().unwrap();
    }

    #[test]
    fn a_call_that_began_by_an_older_plan_is_told_to_those_whom_it_names() {
        both(|| {
            let point = Point::register("light_tests::plans", &[]);
            let old = probe(1, Events::RETURN, None, None);
            show(point, &[&old]);
            let older = plan(point);
            assert!(older.has(Plan::ENDS | Plan::MEASURES) && !older.has(Plan::CALLS) && older.newest() == 1);
            // Two have come, and whoever passes has not heard of it.
            let new = probe(2, Events::CALL, None, None);
            let every: fn(&Event<'_>) -> Result<bool, String> = |_| Ok(true);
            let careful = probe(3, Events::RETURN, None, Some(Box::new(every)));
            for (round, probes) in [&[&old, &new][..], &[&old, &new, &careful]].into_iter().enumerate() {
                show(point, probes);
                assert_eq!(plan(point) == Plan::NONE, round == 1);
                older.show(point);
                assert_eq!(point.call(&[], || 7), 7);
                assert_eq!([&old, &new, &careful].map(|one| found(one)), [[round as u64 + 1; 2], [0; 2], [0; 2]]);
            }
            // One that has heard of it.
            show(point, &[&old, &new, &careful]);
            assert_eq!(point.call(&[], || 7), 7);
            assert_eq!([&old, &new, &careful].map(|one| found(one)), [[3; 2], [1; 2], [1; 2]]);
            // It has gone again in the middle of a call, and comes back in the middle of another.
            point.call(&[], || show(point, &[&old, &new]));
            point.call(&[], || show(point, &[&old, &new, &careful]));
            assert_eq!([&old, &new, &careful].map(|one| found(one)), [[5; 2], [3; 2], [1; 2]]);
            // Nobody is left.
            point.call(&[], || show(point, &[]));
            assert_eq!((plan(point), point.is_watched()), (Plan::NONE, false));
            assert_eq!(found(&old), [5; 2]);
        });
    }

    #[test]
    fn nothing_is_counted_after_the_time_although_nobody_sweeps() {
        both(|| {
            let point = Point::register("light_tests::time", &[]);
            let lifespan = Duration::from_millis(if cfg!(miri) { 10_000 } else { 20 });
            let (timed, always) = (probe(1, Events::CALL, Some(lifespan), None), probe(2, Events::CALL, None, None));
            show(point, &[&timed, &always]);
            let mut calls = 0;
            while timed.left() > Some(Duration::ZERO) {
                point.call(&[], || ());
                calls += 1;
                assert!(found(&timed)[0] <= calls);
            }
            let before = found(&timed);
            // One may have begun before and ended after it, and the last one of all begun after it.
            assert!(calls > 0 && before[0] + 1 >= calls && before[0] - before[1] <= 1, "{before:?} of {calls}");
            point.call(&[], || ());
            assert_eq!((found(&timed), timed.ended().is_some()), (before, true));
            assert_eq!(found(&always), [calls + 1; 2]);
            show(point, &[]);
        });
    }

    #[test]
    fn calls_of_a_point_are_not_told_to_whoever_runs_in_an_instrument() {
        both(|| {
            let point = Point::register("light_tests::silence", &[]);
            let (ends, calls) = (probe(1, Events::RETURN, None, None), probe(2, Events::CALL, None, None));
            for probes in [&[&ends][..], &[&ends, &calls]] {
                show(point, probes);
                tell(|_| assert_eq!(point.call(&[], || 7), 7));
                silently(|| assert_eq!(point.call(&[], || 7), 7));
            }
            assert_eq!((found(&ends), found(&calls)), ([0; 2], [0; 2]));
            // And what did so has an end.
            point.call(&[], || ());
            assert_eq!((found(&ends), found(&calls)), ([1; 2], [1; 2]));
            show(point, &[]);
        });
    }
}
