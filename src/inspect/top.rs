//! Who ran how much between two looks: tasks, classes, workers.
//!
//! Invariants: a look reads words that anyone may read at any time, a piece at a time, and holds no task; the first one
//! keeps two words for each task, the second one at most a few thousand tasks. Tasks change meanwhile: figures are about
//! right, not exact, and no task has more than the time between the looks.
//!
//! Must not know: text of answers.

#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[cfg(feature = "serde")]
use super::capture::Captured;
#[cfg(feature = "serde")]
use super::classes::ClassNames;
use super::classes::class_name;
#[cfg(feature = "serde")]
use super::collect::{self, Places};
use super::line::TaskWhere;
#[cfg(feature = "serde")]
use super::snapshot::Task;
use super::status::look;
use crate::observe::class;
use crate::scheduler::shared::{Shared, worker_at};
use crate::scheduler::{self, runtime};
use crate::sys::{clock, proc, usage};
use crate::task::TaskCell;
use crate::task::state::Life;

/// Cells between two looks at the clock.
const BATCH: usize = 256;
/// So often the walker gives way, so that it holds up no worker on its CPU.
const GIVE_WAY: Duration = Duration::from_micros(100);
/// Tasks that ran are thrown away, those that ran least, beyond so many.
const MOST_RAN: usize = 4096;

/// Where one worker stood.
#[derive(Debug, Clone)]
struct WorkerAt {
    runtime: usize,
    index: usize,
    slices: u64,
    /// In slices, the unfinished one included.
    busy: u64,
    /// Of its thread, where the system tells.
    cpu: Option<Duration>,
}

/// A look, being taken.
#[derive(Debug)]
pub(crate) struct Look {
    chunk: usize,
    cell: usize,
    /// When it began, in ticks.
    at: u64,
    /// CPU time of the process.
    cpu: Duration,
    /// By the worker's identity.
    workers: HashMap<u64, WorkerAt>,
    /// Ticks by the number of the class.
    classes: Vec<u64>,
    /// Id and ticks of every cell; empty in a second look.
    cells: Vec<(u64, u64)>,
    before: Option<Box<Look>>,
    seen: usize,
    /// Of a second look: who ran, and how many did.
    ran: Vec<Share>,
    ran_count: u64,
}

/// A task that ran between the looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) id: u64,
    ticks: u64,
    cell: &'static TaskCell,
}

impl Share {
    /// How long it ran.
    pub(crate) fn ran(&self) -> Duration {
        clock::duration(self.ticks)
    }

    /// The task as it is now; `None` if it has ended. May wait a moment for the thread of one that runs.
    pub(crate) fn task(&self) -> Option<TaskWhere> {
        look(self.cell, self.id)
    }
}

impl Tops {
    /// The tasks that ran, those that have not ended, without their stacks; each with how long it ran.
    #[cfg(feature = "serde")]
    pub(crate) fn values(&self) -> Vec<(Task, Duration)> {
        let (places, mut names, mut c) = (Places::new(), ClassNames::default(), Captured::new());
        c.wants_stack = false;
        let value = |share: &Share| {
            let task = collect::value(&mut c, share.cell, share.id, &places, &mut names)?;
            Some((task, share.ran()))
        };
        self.tasks.iter().filter_map(value).collect()
    }
}

/// What one worker did between the looks.
#[derive(Debug, Clone)]
pub(crate) struct WorkerShare {
    pub(crate) runtime: usize,
    pub(crate) index: usize,
    pub(crate) slices: u64,
    pub(crate) busy: Duration,
    /// Of its thread, where the system tells.
    pub(crate) cpu: Option<Duration>,
}

/// What came of two looks. Those that ran most come first.
#[derive(Debug)]
pub(crate) struct Tops {
    pub(crate) between: Duration,
    /// CPU time of the whole process.
    pub(crate) cpu: Duration,
    pub(crate) tasks: Vec<Share>,
    /// How many tasks ran, those that are not in `tasks` included.
    pub(crate) ran: u64,
    pub(crate) classes: Vec<(Arc<str>, Duration)>,
    pub(crate) workers: Vec<WorkerShare>,
}

impl Look {
    /// A first look.
    pub(crate) fn new() -> Look {
        let mut look = Look {
            chunk: 0,
            cell: 0,
            at: clock::ticks(),
            cpu: usage::cpu().0 + usage::cpu().1,
            workers: HashMap::new(),
            classes: vec![0; class::count().into()],
            cells: Vec::new(),
            before: None,
            seen: 0,
            ran: Vec::new(),
            ran_count: 0,
        };
        for (number, runtime) in runtime::all().iter().enumerate() {
            for (index, w) in runtime.workers().iter().enumerate() {
                look.workers.insert(w.identity(), worker_at_now(w, number, index));
                for (class, ticks) in look.classes.iter_mut().enumerate() {
                    let stats = w.class_stats(class as u16);
                    *ticks += stats.map_or(0, |stats| stats.ended_ticks.load(Ordering::Relaxed));
                }
            }
        }
        look
    }

    /// A second one, to be compared with the first.
    pub(crate) fn after(before: Look) -> Look {
        Look { before: Some(Box::new(before)), ..Look::new() }
    }

    /// Looks on for at most `piece`; false when it has seen everything.
    pub(crate) fn more(&mut self, piece: Duration) -> bool {
        let registry = scheduler::registry();
        let begun = Instant::now();
        let mut give_way = begun + GIVE_WAY;
        while self.chunk < registry.chunks() {
            let cells = registry.cells(self.chunk);
            while self.cell < cells.len() {
                let end = cells.len().min(self.cell + BATCH);
                cells[self.cell..end].iter().for_each(|cell| self.see(cell));
                self.cell = end;
                let now = Instant::now();
                if now >= give_way {
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
        false
    }

    fn see(&mut self, cell: &'static TaskCell) {
        let word = cell.state.snapshot();
        let id = if word.life() == Life::Done { 0 } else { word.id() };
        let ticks = if id == 0 { 0 } else { run_ticks(cell) };
        if let Some(class) = self.classes.get_mut(usize::from(cell.class.load(Ordering::Relaxed))).filter(|_| id != 0) {
            *class += ticks;
        }
        let place = self.seen;
        self.seen += 1;
        let Some(before) = &self.before else { return self.cells.push((id, ticks)) };
        let then = before.cells.get(place).filter(|(then, _)| *then == id).map_or(0, |(_, ticks)| *ticks);
        let ticks = ticks.saturating_sub(then).min(self.at.saturating_sub(before.at));
        if id != 0 && ticks > 0 {
            self.ran_count += 1;
            self.ran.push(Share { id, ticks, cell });
            if self.ran.len() > 2 * MOST_RAN {
                self.sort(MOST_RAN);
            }
        }
    }

    fn sort(&mut self, most: usize) {
        self.ran.sort_by_key(|share| (Reverse(share.ticks), share.id));
        self.ran.truncate(most);
    }

    /// What the second look found, with so many tasks and classes.
    pub(crate) fn tops(mut self, most: usize) -> Option<Tops> {
        let before = self.before.take()?;
        self.sort(most);
        let mut classes: Vec<(usize, u64)> = self.classes.iter().copied().enumerate().collect();
        // A task that ends during a look may be counted twice, with all that it ever ran: no class can have run for longer
        // than there was time on all workers.
        let longest = self.at.saturating_sub(before.at).saturating_mul(self.workers.len() as u64);
        for ((_, now), then) in classes.iter_mut().zip(&before.classes) {
            *now = now.saturating_sub(*then).min(longest);
        }
        classes.retain(|(_, ticks)| *ticks > 0);
        classes.sort_by_key(|(number, ticks)| (Reverse(*ticks), *number));
        classes.truncate(most);
        let mut workers: Vec<WorkerShare> = self
            .workers
            .iter()
            .map(|(identity, now)| {
                let then = before.workers.get(identity);
                let busy = now.busy.saturating_sub(then.map_or(0, |then| then.busy));
                WorkerShare {
                    runtime: now.runtime,
                    index: now.index,
                    slices: now.slices.saturating_sub(then.map_or(0, |then| then.slices)),
                    busy: clock::duration(busy),
                    cpu: now.cpu.map(|cpu| cpu.saturating_sub(then.and_then(|then| then.cpu).unwrap_or_default())),
                }
            })
            .collect();
        workers.sort_by_key(|w| (w.runtime, w.index));
        Some(Tops {
            between: clock::duration(self.at.saturating_sub(before.at)),
            cpu: self.cpu.saturating_sub(before.cpu),
            tasks: self.ran,
            ran: self.ran_count,
            classes: classes
                .into_iter()
                .map(|(number, ticks)| (class_name(number as u16), clock::duration(ticks)))
                .collect(),
            workers,
        })
    }
}

fn worker_at_now(w: &'static Shared, runtime: usize, index: usize) -> WorkerAt {
    let unfinished = w.running().map_or(0, |cell| unfinished(w, cell));
    WorkerAt {
        runtime,
        index,
        slices: w.slices.load(Ordering::Relaxed),
        busy: w.busy.load(Ordering::Relaxed) + unfinished,
        cpu: proc::cpu_times(w.thread.load(Ordering::Relaxed)).map(|times| times.ran),
    }
}

/// Ticks of the slice that lasts, if it does: at a slice's end the task's last change is later than the slice's beginning.
fn unfinished(w: &Shared, cell: &TaskCell) -> u64 {
    let start = w.slice_start.load(Ordering::Relaxed);
    let is_over = cell.accounting.changed() > start;
    if is_over { 0 } else { clock::ticks().saturating_sub(start) }
}

fn run_ticks(cell: &'static TaskCell) -> u64 {
    let finished = cell.accounting.run_ticks();
    let worker = worker_at(cell.owner.load(Ordering::Relaxed));
    let runs = worker.filter(|w| w.running().is_some_and(|running| std::ptr::eq(running, cell)));
    finished + runs.map_or(0, |w| unfinished(w, cell))
}
