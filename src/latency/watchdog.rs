//! The thread that finds out that a worker is stuck while it is.
//!
//! It compares, by its own clock, what each worker says of its slice. Before a slice can be too long it was seen at least
//! once when it was younger; from then on the thread wakes exactly when the slice reaches the threshold, and again at each
//! doubling. While all workers sleep it sleeps too, until one of them rouses it (`scheduler::stall`).
//!
//! Invariants: after [`start`] nothing here allocates, takes a lock that anybody else holds for long, or runs code of the
//! application; signals are blocked. What needs any of that is handed to the [`scribe`](super::scribe). Times in which
//! this thread did not run although it was to (the process was stopped, or starved) are nobody's stall.
//!
//! Must not know: what becomes of a report.

#![forbid(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::budget::Budget;
use super::gaps::Gaps;
use super::kernel::{self, Group};
use super::record::{Record, TO_SCRIBE};
use super::stack::Eyes;
use super::text::{self, During, Text, When, Who};
use super::{OVERRUNS, scribe};
use crate::inspect::running;
use crate::observe::{Overrun, ShortName};
use crate::report;
use crate::scheduler::shared::{self, Shared};
use crate::scheduler::{all_cells, stall};
use crate::sys::{clock, stderr};
use crate::task::TaskCell;
use crate::task::state::Life;

/// No two looks are closer together.
const SHORTEST: Duration = Duration::from_millis(1);
/// Looks while nothing is near its threshold, if that is higher.
const LONGEST: Duration = Duration::from_millis(250);
/// The least time that counts as a gap.
const SMALLEST_GAP: Duration = Duration::from_millis(2);
/// A look with its reports that took longer was interrupted.
const LONG_LOOK: Duration = Duration::from_millis(50);
/// After so many looks at which every worker slept, nothing is looked at until one wakes up.
const CALM: u32 = 4;
/// A scribe that has taken nothing for so long hangs, and lines go to stderr even if there is a report handler.
const STUCK: Duration = Duration::from_secs(1);
/// More cells are not looked at to count who waits.
const CELLS_COUNTED: usize = 100_000;

/// How many looks there were; for tests and measurements.
pub(super) static LOOKS: AtomicU64 = AtomicU64::new(0);

/// What is known of the slice that a worker is in.
#[derive(Debug, Clone, Copy, Default)]
struct Watch {
    worker: u64,
    slice: u64,
    /// The slice cannot have begun before, whatever the worker says.
    not_before: u64,
    /// The thread's CPU time, early in the slice.
    before: Option<kernel::Sample>,
    /// How often the threshold was passed and doubled.
    passed: u32,
    /// The length that was told or found last: the end is not told to be shorter.
    found: u64,
    /// Some line was written.
    told: bool,
    /// What those lines said, for a closing line if the worker sends none.
    seen: Overrun,
    /// The last slice that is known to be over. The worker may still seem to be in it, between that slice and the next.
    closed: u64,
}

/// See the module's head.
pub(super) struct Watchdog {
    watches: Box<[Watch]>,
    gaps: Gaps,
    budget: Budget,
    group: Group,
    text: Text,
    eyes: Eyes,
    /// Time of this look that went into waiting for stacks, in ticks.
    waited: u64,
    record: Record,
    /// When the last look began, in ticks.
    last_look: u64,
    begun: u64,
    /// Looks in a row at which every worker slept.
    calm: u32,
    /// A line was written about some slice that had not ended at the last look.
    open: bool,
    /// When the scribe was given the oldest thing that it has not taken, or was last seen to have taken one, in ticks.
    handed: u64,
    /// How many things it had taken by then.
    taken: u64,
}

/// Who runs, read inside the inspection window of its cell.
struct Running {
    id: u64,
    threshold: u64,
    name: ShortName,
}

impl Watchdog {
    pub(super) fn new() -> Watchdog {
        let now = clock::ticks();
        Watchdog {
            watches: vec![Watch::default(); shared::MAX_WORKERS].into(),
            gaps: Gaps::new(),
            budget: Budget::new(),
            group: Group::find(),
            text: Text::new(),
            eyes: Eyes::new(),
            waited: 0,
            record: Record::new(Overrun::default()),
            last_look: now,
            begun: now,
            calm: 0,
            open: false,
            handed: now,
            taken: 0,
        }
    }

    /// For ever.
    pub(super) fn run(mut self) -> ! {
        loop {
            let now = clock::ticks();
            self.waited = 0;
            let next = self.look(now);
            self.last_look = now;
            let end = clock::ticks();
            if end.saturating_sub(now + self.waited) > clock::in_ticks(LONG_LOOK) {
                self.gaps.add(now, end);
            }
            self.rest(next, end);
        }
    }

    /// Sleeps until `next`, in ticks, and finds out whether it was longer.
    fn rest(&mut self, next: u64, now: u64) {
        let floor = stall::floor();
        let least = clock::in_ticks(SMALLEST_GAP).max(if floor == u64::MAX { 0 } else { floor / 8 });
        if floor == u64::MAX && !self.open {
            // Nothing is too long. Whoever sets a threshold rings.
            std::thread::park();
            self.last_look = clock::ticks();
            return;
        }
        if self.calm >= CALM && stall::doze(shared::workers()) {
            std::thread::park();
            let woke = clock::ticks();
            if let Some(at) = stall::end_doze() {
                if woke.saturating_sub(at) > least {
                    self.gaps.add(at, woke);
                }
                self.last_look = at;
            }
            self.calm = 0;
            return;
        }
        let next = next.max(now + clock::in_ticks(SHORTEST));
        std::thread::park_timeout(clock::duration(next - now));
        let woke = clock::ticks();
        if woke > next + least {
            self.gaps.add(next, woke);
        }
    }

    /// Looks at every worker; returns when to look again.
    fn look(&mut self, now: u64) -> u64 {
        LOOKS.fetch_add(1, Ordering::Relaxed);
        let floor = stall::floor();
        let pause = clock::in_ticks(LONGEST).min(floor / 2);
        self.open = false;
        let mut next = now + pause;
        for worker in shared::workers() {
            // First those that have ended, so that a line about the next slice does not come before.
            self.close(worker);
            next = next.min(self.look_at(worker, now, floor).unwrap_or(next));
            self.open |= self.watches[usize::from(worker.index)].told;
        }
        let rest = stall::all_rest(shared::workers());
        self.calm = if rest { self.calm.saturating_add(1) } else { 0 };
        next
    }

    /// The length of a slice without what was nobody's fault, in ticks.
    fn lasted(&self, begin: u64, end: u64) -> u64 {
        end.saturating_sub(begin).saturating_sub(self.gaps.within(begin, end))
    }

    /// Looks at one worker; returns when it wants to be looked at again.
    fn look_at(&mut self, worker: &'static Shared, now: u64, floor: u64) -> Option<u64> {
        let at = usize::from(worker.index);
        let cell = worker.current.load(Ordering::SeqCst);
        let slice = worker.slices.load(Ordering::Acquire);
        let start = worker.slice_start.load(Ordering::Relaxed);
        let identity = worker.identity();
        let w = &self.watches[at];
        if (w.worker, w.slice) != (identity, slice) {
            self.let_go(worker, now);
            let w = &self.watches[at];
            let closed = if w.worker == identity { w.closed } else { 0 };
            self.watches[at] =
                Watch { worker: identity, slice, not_before: self.last_look, closed, ..Watch::default() };
        }
        if cell.is_null() || worker.gone.load(Ordering::Relaxed) {
            self.let_go(worker, now);
            self.watches[at].not_before = now;
            return None;
        }
        if floor == u64::MAX || self.watches[at].closed == slice {
            return None;
        }
        worker.ask_time();
        let begin = start.max(self.watches[at].not_before);
        let thread = worker.thread.load(Ordering::Relaxed);
        let length = self.lasted(begin, now);
        let mut lasted = length;
        if now.saturating_sub(begin) >= floor {
            // A gap of this thread need not be one of that thread, and the other way round.
            let Some(before) = &self.watches[at].before else {
                self.watches[at].before = kernel::Sample::of(thread, &self.group);
                return Some(now + floor / 8);
            };
            lasted = before.blame(thread, length);
        }
        if lasted < floor {
            if lasted < floor / 4 {
                return Some(now + floor / 4 - lasted);
            }
            let w = &mut self.watches[at];
            w.before = w.before.or_else(|| kernel::Sample::of(thread, &self.group));
            scribe::expect();
            return Some(now + (floor / 8).min(floor - lasted));
        }
        let cell = worker.running()?;
        // Where somebody else looks at it as well, there will be another time.
        let Some(window) = cell.enter_quickly() else { return Some(now) };
        let label = window.label();
        let running = Running {
            id: window.id(),
            threshold: stall::threshold(label),
            name: ShortName::new(label.and_then(|l| l.name.as_deref())),
        };
        drop(window);
        let same = ptr::eq(worker.current.load(Ordering::SeqCst), cell)
            && cell.owner.load(Ordering::Relaxed) == worker.index
            && worker.slices.load(Ordering::SeqCst) == slice
            && cell.state.snapshot().id() == running.id;
        if !same {
            return Some(now);
        }
        if running.threshold == u64::MAX {
            return None;
        }
        let due = doubled(running.threshold, self.watches[at].passed);
        if lasted < due {
            return Some(now + (due - lasted).min(floor / 2));
        }
        let w = &mut self.watches[at];
        let first = w.passed == 0;
        let length = length.max(lasted);
        w.found = length;
        // After a late look the next doubling is the one that lies ahead.
        while doubled(running.threshold, w.passed) <= lasted {
            w.passed += 1;
        }
        let seen = Overrun {
            worker: worker.index,
            ordinal: worker.ordinal() as u16,
            slice,
            start: begin,
            end: now,
            threshold: running.threshold,
            id: running.id,
            at: ptr::from_ref(cell).addr(),
            name: running.name,
            ..Overrun::default()
        };
        self.watches[at].seen = seen;
        if let Some(suppressed) = self.budget.take(self.since_start(now), first) {
            self.watches[at].told = true;
            self.report(worker, cell, seen, length, suppressed);
        } else if first {
            self.report_quietly(worker, cell, seen, length);
        }
        Some(now + floor / 2)
    }

    fn since_start(&self, now: u64) -> Duration {
        clock::duration(now.saturating_sub(self.begun))
    }

    /// The line while it lasts.
    fn report(&mut self, worker: &'static Shared, cell: &TaskCell, seen: Overrun, lasted: u64, suppressed: u64) {
        let thread = worker.thread.load(Ordering::Relaxed);
        let before = self.watches[usize::from(seen.worker)].before;
        let view = kernel::view(thread, before.as_ref(), &self.group);
        let (behind, at_least) = behind(worker, cell);
        self.see(worker, cell, seen.id);
        let lasted = clock::duration(lasted);
        self.record = Record {
            lasted,
            cpu: view.cpu.map(|(cpu, _)| cpu),
            verdict: view.verdict,
            thread,
            behind: behind as u64,
            suppressed,
            ..Record::new(seen)
        };
        self.eyes.put_into(&mut self.record);
        let who = Who { id: seen.id, name: seen.name.get(), at: seen.at, after: None };
        let text = &mut self.text;
        text::head(text, When::now(scribe::ahead()), lasted, &who, seen.ordinal);
        let kernel::View { cpu, delay, state, verdict } = view;
        text::during(text, &During { thread, cpu, delay, state, verdict, behind, at_least });
        text::suppressed(text, suppressed);
        self.eyes.write(text);
        self.say();
    }

    /// What is remembered of a stall that is not told.
    fn report_quietly(&mut self, worker: &'static Shared, cell: &TaskCell, seen: Overrun, lasted: u64) {
        self.see(worker, cell, seen.id);
        self.record = Record { quiet: true, lasted: clock::duration(lasted), ..Record::new(seen) };
        self.eyes.put_into(&mut self.record);
        // It is counted as suppressed already.
        let _ = self.hand_over();
    }

    /// Takes the stack. A thread that does not answer is waited for.
    fn see(&mut self, worker: &'static Shared, cell: &TaskCell, id: u64) {
        let begun = clock::ticks();
        self.eyes.look(worker, cell, id);
        let most = clock::in_ticks(running::STARVED + LONG_LOOK);
        self.waited += clock::ticks().saturating_sub(begun).min(most);
    }

    /// Writes the line that was made, unless somebody is told otherwise, and hands its contents on.
    fn say(&mut self) {
        let raw = self.scribe_is_stuck() || !report::has_handler();
        let handed = self.hand_over();
        if raw || !handed {
            stderr::write_raw(self.text.end());
        }
        // Nobody is told but stderr.
        self.budget.suppress(u64::from(!handed));
    }

    fn scribe_is_stuck(&mut self) -> bool {
        let taken = TO_SCRIBE.taken();
        if std::mem::replace(&mut self.taken, taken) != taken {
            // It is busy, but gets on.
            self.handed = clock::ticks();
        }
        !TO_SCRIBE.is_empty() && clock::ticks().saturating_sub(self.handed) > clock::in_ticks(STUCK)
    }

    /// To the scribe; false if there is no room.
    fn hand_over(&mut self) -> bool {
        if TO_SCRIBE.is_empty() {
            self.handed = clock::ticks();
        }
        let handed = TO_SCRIBE.push(&self.record.to_words());
        scribe::ring();
        handed
    }

    /// The closing lines of slices that the worker has reported.
    fn close(&mut self, worker: &'static Shared) {
        let ring = &OVERRUNS[usize::from(worker.index)];
        while let Some(words) = ring.first() {
            self.close_one(Overrun::from_words(&words));
            // Only now: the process's exit waits for the line.
            ring.remove_first();
        }
        self.budget.suppress(ring.take_lost());
    }

    fn close_one(&mut self, o: Overrun) {
        let w = &mut self.watches[usize::from(o.worker)];
        if w.closed == o.slice {
            return;
        }
        w.closed = o.slice;
        let (told, passed, found) = if w.slice == o.slice && w.seen.id == o.id && w.passed > 0 {
            // The worker's word counts, and only once.
            (std::mem::take(&mut w.told), std::mem::take(&mut w.passed), w.found)
        } else {
            (false, 0, 0)
        };
        let begin = if passed > 0 { w.seen.start } else { o.start };
        let before = w.before.filter(|_| w.slice == o.slice);
        let lasted = self.lasted(begin, o.end).max(found);
        let thread = shared::worker_at(o.worker).map_or(0, |w| w.thread.load(Ordering::Relaxed));
        // What the thread has done since belongs to other slices.
        let most = o.end.saturating_sub(begin);
        let to_blame = before.map_or(lasted, |before| before.blame(thread, lasted).min(most));
        if told || to_blame > o.threshold {
            self.closing(o, lasted.max(to_blame), told);
        }
    }

    /// That slice is over. If lines were written about it and the worker has not said how it ended (it does not once the
    /// threshold was raised meanwhile), the last line is written without it.
    fn let_go(&mut self, worker: &'static Shared, now: u64) {
        // It may have said so since the last look into the ring.
        self.close(worker);
        let w = &mut self.watches[usize::from(worker.index)];
        w.passed = 0;
        if std::mem::take(&mut w.told) {
            w.closed = w.slice;
            let (o, found) = (Overrun { end: now, ..w.seen }, w.found);
            let lasted = self.lasted(o.start, now).max(found);
            self.closing(o, lasted, true);
        }
    }

    /// The line after it. One that follows others is always written.
    fn closing(&mut self, o: Overrun, lasted: u64, follows: bool) {
        let suppressed = if follows {
            self.budget.told()
        } else {
            let Some(suppressed) = self.budget.take(self.since_start(o.end), true) else { return };
            suppressed
        };
        let lasted = clock::duration(lasted);
        self.record = Record { ended: true, lasted, suppressed, ..Record::new(o) };
        let who = Who { id: o.id, name: o.name.get(), at: o.at, after: Some(o.after) };
        text::head(&mut self.text, When::now(scribe::ahead()), lasted, &who, o.ordinal);
        text::suppressed(&mut self.text, suppressed);
        self.say();
    }
}

/// The threshold, so often doubled.
fn doubled(threshold: u64, times: u32) -> u64 {
    threshold.saturating_mul(1 << times.min(62))
}

/// How many tasks of the worker could run, apart from the one that does, and whether there may be more.
fn behind(worker: &'static Shared, running: &TaskCell) -> (usize, bool) {
    let mut left = CELLS_COUNTED;
    let runnable = all_cells()
        .take_while(|_| {
            left = left.saturating_sub(1);
            left > 0
        })
        .filter(|c| c.owner.load(Ordering::Relaxed) == worker.index && c.state.snapshot().life() == Life::Active)
        .filter(|c| !ptr::eq(*c, running))
        .count();
    (runnable + worker.fresh.len(), left == 0)
}
