//! A count of all tasks for the triage view: by state and by what they wait for, who waits longest, and what every worker
//! is busy with.
//!
//! Invariants: counting reads words that anyone may read at any time; no stack is copied and no task is kept from running, so
//! that it is quick with a million of them and works while every worker is stuck. Only the few that are named in the end are
//! looked at through the inspection window. Tasks change while they are counted: sums are about right, not exact.
//!
//! Must not know: panics, stalls, text of answers.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::capture::Captured;
use super::frames::frames;
use super::line::{TaskWhere, view_of};
use crate::observe::WaitKind;
use crate::scheduler::shared::{Shared, worker_at};
use crate::scheduler::{self, runtime, stall};
use crate::sys::{clock, usage};
use crate::task::TaskCell;
use crate::task::state::{Inspect, Life};

/// Cells between two looks at the clock.
const BATCH: usize = 256;
/// So often the walker gives way, so that it holds up no worker on its CPU.
const GIVE_WAY: Duration = Duration::from_micros(100);
/// A sleep is over this long before it counts as waiting for its worker.
const OVERDUE: Duration = Duration::from_millis(10);
/// How many stacks are measured.
const SAMPLE: usize = 512;
/// What counts as wedged where latency warnings are switched off.
const WEDGED: Duration = Duration::from_millis(200);

impl Busy {
    /// Whether it is that worker.
    pub(crate) fn is(&self, worker: &Shared) -> bool {
        self.place == worker.index
    }
}

/// Those that wait for one kind of thing.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    kind: WaitKind,
    pub(crate) word: &'static str,
    pub(crate) count: usize,
    /// The one that has waited longest, and how long.
    pub(crate) oldest: (u64, Duration),
    cell: &'static TaskCell,
}

/// What one worker does.
#[derive(Debug, Clone)]
pub(crate) struct Busy {
    place: u16,
    pub(crate) runtime: u32,
    pub(crate) index: usize,
    /// The task that runs, and for how long.
    pub(crate) current: Option<(u64, Duration)>,
    /// Its slice is longer than the threshold.
    pub(crate) wedged: bool,
    /// Tasks that can run here and nowhere else, sleepers whose time has come included.
    pub(crate) behind: usize,
    pub(crate) unstarted: usize,
    pub(crate) live: usize,
    pub(crate) load: f32,
    pub(crate) thread: i32,
    pub(crate) asleep: bool,
    pub(crate) slices: u64,
    /// Time in finished slices.
    pub(crate) busy: Duration,
    pub(crate) parks: u64,
    cell: Option<&'static TaskCell>,
    epoch: Option<Instant>,
}

/// See the module's head. Made a piece at a time by [`Census::more`].
#[derive(Debug)]
pub(crate) struct Census {
    chunk: usize,
    cell: usize,
    pub(crate) running: usize,
    pub(crate) runnable: usize,
    /// How long the first of the runnable ones has waited for its worker.
    pub(crate) oldest_runnable: Duration,
    pub(crate) unstarted: usize,
    pub(crate) parked: usize,
    pub(crate) waits: Vec<Waiting>,
    pub(crate) workers: Vec<Busy>,
    /// Some of the parked tasks, evenly spread.
    sample: Vec<&'static TaskCell>,
    /// Every so many parked tasks one goes into the sample.
    stride: usize,
    begun: Instant,
    pub(crate) took: Duration,
    /// It was given up before the last task.
    pub(crate) cut: bool,
}

impl Census {
    pub(crate) fn new() -> Census {
        Census {
            chunk: 0,
            cell: 0,
            running: 0,
            runnable: 0,
            oldest_runnable: Duration::ZERO,
            unstarted: 0,
            parked: 0,
            waits: Vec::new(),
            workers: workers(),
            sample: Vec::new(),
            stride: 1,
            begun: Instant::now(),
            took: Duration::ZERO,
            cut: false,
        }
    }

    /// Counts on for at most `piece`; false when all are counted, or `limit` is over since the beginning.
    pub(crate) fn more(&mut self, piece: Duration, limit: Duration) -> bool {
        let registry = scheduler::registry();
        let begun = Instant::now();
        let mut give_way = begun + GIVE_WAY;
        while self.chunk < registry.chunks() {
            let cells = registry.cells(self.chunk);
            while self.cell < cells.len() {
                let end = cells.len().min(self.cell + BATCH);
                cells[self.cell..end].iter().for_each(|cell| self.count(cell));
                self.cell = end;
                let now = Instant::now();
                if now >= give_way {
                    if now >= self.begun + limit {
                        self.cut = true;
                        self.took = self.begun.elapsed();
                        return false;
                    }
                    if now >= begun + piece {
                        return true;
                    }
                    std::thread::yield_now();
                    give_way = Instant::now() + GIVE_WAY;
                }
            }
            self.chunk += 1;
            self.cell = 0;
        }
        self.took = self.begun.elapsed();
        false
    }

    fn count(&mut self, cell: &'static TaskCell) {
        let word = cell.state.snapshot();
        let owner = cell.owner.load(Ordering::Relaxed);
        match word.life() {
            Life::Free | Life::Done => {}
            Life::Unstarted => self.unstarted += 1,
            Life::Active => {
                if worker_at(owner).is_some_and(|w| std::ptr::eq(w.current.load(Ordering::Relaxed), cell)) {
                    self.running += 1;
                } else {
                    self.runnable += 1;
                    let waited = clock::since(cell.accounting.changed());
                    self.oldest_runnable = self.oldest_runnable.max(waited);
                    if let Some(w) = self.workers.iter_mut().find(|w| w.place == owner) {
                        w.behind += 1;
                    }
                }
            }
            Life::Parked => {
                if self.parked.is_multiple_of(self.stride) {
                    if self.sample.len() == SAMPLE {
                        let mut keep = true;
                        self.sample.retain(|_| {
                            keep = !keep;
                            !keep
                        });
                        self.stride *= 2;
                    } else {
                        self.sample.push(cell);
                    }
                }
                self.parked += 1;
                self.count_wait(cell, word.id(), owner);
            }
        }
    }

    fn count_wait(&mut self, cell: &'static TaskCell, id: u64, owner: u16) {
        let (wait, age) = (cell.wait(), clock::since(cell.accounting.changed()));
        match self.waits.iter_mut().find(|w| w.kind == wait.kind) {
            Some(seen) => {
                seen.count += 1;
                if age > seen.oldest.1 {
                    (seen.oldest, seen.cell) = ((id, age), cell);
                }
            }
            None => {
                let word = if wait.kind == WaitKind::None { "not said" } else { wait.kind.word() };
                self.waits.push(Waiting { kind: wait.kind, word, count: 1, oldest: (id, age), cell });
            }
        }
        if wait.kind == WaitKind::Sleep
            && let Some(w) = self.workers.iter_mut().find(|w| w.place == owner)
            && let Some(epoch) = w.epoch
            && epoch.elapsed().saturating_sub(Duration::from_nanos(wait.detail)) > OVERDUE
        {
            w.behind += 1;
        }
    }

    /// How long the oldest of the runtimes has existed.
    pub(crate) fn uptime(&self) -> Duration {
        self.workers.iter().filter_map(|w| w.epoch).map(|e| e.elapsed()).max().unwrap_or_default()
    }

    /// All tasks that were counted.
    pub(crate) fn tasks(&self) -> usize {
        self.running + self.runnable + self.unstarted + self.parked
    }

    /// The task that has waited longest for something that somebody else should do: time, connections to come and the end
    /// of the program are waited for as long as it takes. Whole, as `where` shows it.
    pub(crate) fn longest_wait(&self) -> Option<TaskWhere> {
        use WaitKind::{Accept, EventLoop, Signal, Sleep};
        let owed = self.waits.iter().filter(|w| !matches!(w.kind, Sleep | Accept | EventLoop | Signal));
        let oldest = owed.max_by_key(|w| w.oldest.1)?;
        look(oldest.cell, oldest.oldest.0)
    }

    /// How deep the stacks of some of the parked tasks are.
    pub(crate) fn depth(&self) -> Depth {
        let mut depth = Depth::default();
        for cell in &self.sample {
            let Some((id, limit, sp, top)) = extent(cell) else { continue };
            depth.looked_at += 1;
            depth.deepest_now = depth.deepest_now.max((top - sp, id, top - limit));
            let touched = usage::touched(limit, top).unwrap_or(0).max(top - sp);
            depth.deepest_ever = depth.deepest_ever.max((touched, id, top - limit));
        }
        depth
    }

    /// The task that keeps this worker, whole, as `where` shows it.
    pub(crate) fn culprit(&self, worker: &Busy) -> Option<TaskWhere> {
        look(worker.cell?, worker.current?.0)
    }
}

/// Stacks that were looked at. Each of the deepest with its bytes, the task and the bytes that it could have.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Depth {
    pub(crate) looked_at: usize,
    /// In use now.
    pub(crate) deepest_now: (usize, u64, usize),
    /// Touched, in whole pages, by this task or another that had the stack before.
    pub(crate) deepest_ever: (usize, u64, usize),
}

/// Of a parked task: its id, and its stack's limit, stack pointer and top.
fn extent(cell: &'static TaskCell) -> Option<(u64, usize, usize, usize)> {
    let Inspect::Entered(word) = cell.state.inspect_begin() else { return None };
    let id = word.id();
    // Parked at the entry: it has left its stack and cannot come back in the window, wherever its worker is.
    let still = word.life() == Life::Parked && cell.state.inspect_confirm(id);
    // SAFETY: the window holds and the task has run: its context and stack are still.
    let found =
        still.then(|| unsafe { (*cell.stack.get()).as_ref().map(|s| (s.limit(), (*cell.ctx.get()).sp, s.slot_top())) });
    cell.state.inspect_end(id);
    let (limit, sp, top) = found.flatten()?;
    (limit <= sp && sp <= top).then_some((id, limit, sp, top))
}

pub(super) fn look(cell: &'static TaskCell, id: u64) -> Option<TaskWhere> {
    frames().refresh();
    view_of(&mut Captured::of_any(), cell, id)
}

fn workers() -> Vec<Busy> {
    let mut all = Vec::new();
    for (number, runtime) in runtime::all().iter().enumerate() {
        let threshold = match stall::threshold(None) {
            u64::MAX => WEDGED,
            ticks => clock::duration(ticks),
        };
        let epoch = runtime::epoch_of(runtime.id);
        for (index, w) in runtime.workers().iter().enumerate() {
            all.push(busy(w, number as u32, index, threshold, epoch));
        }
    }
    all
}

/// What runs there, if something does: its cell and id, and how long the slice has lasted. Allocates nothing.
pub(super) fn running_now(w: &Shared) -> Option<(&'static TaskCell, u64, Duration)> {
    let cell = w.current.load(Ordering::SeqCst);
    // SAFETY: cells are type-stable.
    let cell: &'static TaskCell = (!cell.is_null()).then(|| unsafe { &*cell })?;
    let id = cell.state.snapshot().id();
    (id != 0).then(|| (cell, id, clock::since(w.slice_start.load(Ordering::Relaxed))))
}

fn busy(w: &'static Shared, runtime: u32, index: usize, threshold: Duration, epoch: Option<Instant>) -> Busy {
    let now = running_now(w);
    let current = now.map(|(_, id, lasted)| (id, lasted));
    let load = w.load.load(Ordering::Relaxed) as f32 / 1000.0;
    Busy {
        place: w.index,
        runtime,
        index,
        current,
        wedged: current.is_some_and(|(_, age)| age >= threshold),
        behind: 0,
        unstarted: w.fresh.len(),
        live: w.live.load(Ordering::Relaxed),
        // The figure is made between slices: of one that does not end it knows nothing.
        load: if current.is_some_and(|(_, age)| age >= WEDGED) { 1.0 } else { load },
        thread: w.thread.load(Ordering::Relaxed),
        asleep: w.idle.looks_asleep(),
        slices: w.slices.load(Ordering::Relaxed),
        busy: clock::duration(w.busy.load(Ordering::Relaxed)),
        parks: w.parks.load(Ordering::Relaxed),
        cell: now.map(|(cell, ..)| cell),
        epoch,
    }
}
