//! What others may see of a worker, and the process's table of workers.
//!
//! Invariants: a `Shared` is never freed, so `&'static Shared` is what everybody holds; the place of a worker that
//! ended cleanly is used again by a later one. Counters have one writer, the worker itself.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::fresh::Fresh;
use super::idle::{Idle, Wake};
use super::inbox::{Inbox, Linked};
use crate::observe::{Histogram, class};
use crate::reactor::{Kicker, RegistrationId};
use crate::sys::atomic::AtomicPtr as CheckedPtr;
use crate::sys::clock;
use crate::sys::fork;
use crate::sys::line::Line;
use crate::task::TaskCell;

/// What a worker has counted of the tasks of one class. One writer, the worker.
#[derive(Debug)]
pub(crate) struct ClassStats {
    /// Slices that were long enough to be measured (see [`NOTEWORTHY`](crate::task::NOTEWORTHY)).
    pub(crate) slices: Histogram,
    /// Times from a wake-up or spawn to the slice that it led to.
    pub(crate) delays: Histogram,
    /// Tasks that have ended, and their slices and ticks.
    pub(crate) ended: AtomicU64,
    pub(crate) ended_slices: AtomicU64,
    pub(crate) ended_ticks: AtomicU64,
}

impl ClassStats {
    const fn new() -> ClassStats {
        ClassStats {
            slices: Histogram::new(),
            delays: Histogram::new(),
            ended: AtomicU64::new(0),
            ended_slices: AtomicU64::new(0),
            ended_ticks: AtomicU64::new(0),
        }
    }

    /// Tasks have ended; so many of them, and what they had in all. By the worker.
    #[inline]
    pub(super) fn tasks_ended(&self, tasks: u64, slices: u64, ticks: u64) {
        for (total, more) in [(&self.ended, tasks), (&self.ended_slices, slices), (&self.ended_ticks, ticks)] {
            total.store(total.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        self.slices.clear();
        self.delays.clear();
        [&self.ended, &self.ended_slices, &self.ended_ticks].iter().for_each(|c| c.store(0, Ordering::Relaxed));
    }
}

impl Linked for TaskCell {
    fn link(&self) -> &CheckedPtr<TaskCell> {
        &self.next
    }
}

/// The public side of one worker. Its lines are parted by who writes them and how often: with many workers it is not the writing that
/// costs, but that somebody else has the line.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Shared {
    // By the worker, in every slice; others seldom look.
    /// The task that runs now; null between slices of an idle worker. Read by inspectors (see `task::state`).
    pub(crate) current: AtomicPtr<TaskCell>,
    /// When the running slice began, in ticks.
    pub(crate) slice_start: AtomicU64,
    /// Slices begun.
    pub(crate) slices: AtomicU64,
    /// Ticks spent in slices.
    pub(crate) busy: AtomicU64,
    /// Tasks that end in a first slice with a lower number need no reading of the clock (see `stretch`); 0: somebody who looks wants one at the
    /// end of the slice that runs.
    pub(super) stretch_end: AtomicU64,

    // By the worker, when tasks come and go; others look when they choose a place for a task.
    by_tasks: [Line<()>; 0],
    /// Share of recent time spent in slices, per mille.
    pub(crate) load: AtomicU32,
    /// When `load` was last computed, in ticks.
    pub(crate) load_at: AtomicU64,
    /// Tasks started here that have not ended.
    pub(crate) live: AtomicUsize,
    /// Tasks spawned by this worker, and tasks ended on it.
    pub(crate) spawned: AtomicU64,
    pub(crate) ended: AtomicU64,
    /// Times that the worker went to sleep.
    pub(crate) parks: AtomicU64,
    /// It fell asleep while timers, or starts to be retried, were pending.
    pub(crate) has_timers: AtomicBool,

    // When the worker begins and ends.
    for_long: [Line<()>; 0],
    pub(crate) index: u16,
    pub(crate) runtime: AtomicU32,
    /// How often this place was claimed: tells a later worker from an earlier one.
    epoch: AtomicU32,
    /// Counted from 0 within its runtime.
    ordinal: AtomicU16,
    pub(crate) thread: AtomicI32,
    /// The thread has left its loop.
    pub(crate) gone: AtomicBool,
    /// By number of the class; null until a task of it started here.
    classes: Box<[AtomicPtr<ClassStats>]>,

    // By whoever has something for the worker.
    by_others: [Line<()>; 0],
    pub(crate) idle: Idle,
    pub(crate) inbox: Inbox<TaskCell>,
    /// Registrations whose descriptors were closed elsewhere.
    retired: Mutex<Vec<RegistrationId>>,
    pub(crate) has_retired: AtomicBool,
    /// How often somebody asked that idle stacks be given back now, and up to which of these times that has been done.
    trim_asked: AtomicU64,
    trim_done: AtomicU64,
    poll: Mutex<Option<(Kicker, mio::Registry)>>,
    pub(crate) fresh: Fresh,
}

pub(crate) const MAX_WORKERS: usize = 1024;
static WORKERS: [AtomicPtr<Shared>; MAX_WORKERS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; MAX_WORKERS];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static FREE: Mutex<Vec<u16>> = Mutex::new(Vec::new());

/// The worker with that index, if it ever existed.
pub(crate) fn worker_at(index: u16) -> Option<&'static Shared> {
    let p = WORKERS.get(usize::from(index))?.load(Ordering::Acquire);
    // SAFETY: only leaked boxes are stored.
    (!p.is_null()).then(|| unsafe { &*p })
}

/// Every worker that the process has or had.
pub(crate) fn workers() -> impl Iterator<Item = &'static Shared> {
    (0..COUNT.load(Ordering::SeqCst).min(MAX_WORKERS) as u16).filter_map(worker_at)
}

impl Shared {
    /// The task that runs now: by the time that the caller looks, another one perhaps.
    pub(crate) fn running(&self) -> Option<&'static TaskCell> {
        let cell = self.current.load(Ordering::SeqCst);
        // SAFETY: cells are type-stable and never unmapped; what may be read of another's is told by its state.
        (!cell.is_null()).then(|| unsafe { &*cell })
    }

    /// The end of the running slice is to be timed, whatever the worker times together otherwise.
    pub(crate) fn ask_time(&self) {
        self.stretch_end.store(0, Ordering::Relaxed);
    }

    /// A place in the table for a worker of `runtime`.
    pub(crate) fn claim(runtime: u32, ordinal: u16) -> std::io::Result<&'static Shared> {
        let reused = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(shared) = reused.and_then(worker_at) {
            shared.runtime.store(runtime, Ordering::Relaxed);
            shared.ordinal.store(ordinal, Ordering::Relaxed);
            shared.epoch.fetch_add(1, Ordering::Relaxed);
            shared.gone.store(false, Ordering::Relaxed);
            for c in [&shared.spawned, &shared.ended, &shared.busy, &shared.slices, &shared.parks] {
                c.store(0, Ordering::Relaxed);
            }
            shared.load.store(0, Ordering::Relaxed);
            shared.stretch_end.store(0, Ordering::Relaxed);
            (0..class::MOST as u16).filter_map(|n| shared.class_stats(n)).for_each(ClassStats::clear);
            return Ok(shared);
        }
        let index = COUNT.fetch_add(1, Ordering::SeqCst);
        if index >= MAX_WORKERS {
            COUNT.fetch_sub(1, Ordering::SeqCst);
            return Err(std::io::Error::new(
                std::io::ErrorKind::OutOfMemory,
                format!("this process already has {MAX_WORKERS} workers; drop a runtime before making another"),
            ));
        }
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            current: AtomicPtr::default(),
            slice_start: AtomicU64::new(0),
            slices: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            stretch_end: AtomicU64::new(0),
            by_tasks: [],
            load: AtomicU32::new(0),
            load_at: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            spawned: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            parks: AtomicU64::new(0),
            has_timers: AtomicBool::new(false),
            for_long: [],
            index: index as u16,
            runtime: AtomicU32::new(runtime),
            epoch: AtomicU32::new(1),
            ordinal: AtomicU16::new(ordinal),
            thread: AtomicI32::new(0),
            gone: AtomicBool::new(false),
            classes: std::iter::repeat_with(AtomicPtr::default).take(class::MOST).collect(),
            by_others: [],
            idle: Idle::new(),
            inbox: Inbox::new(),
            retired: Mutex::new(Vec::new()),
            has_retired: AtomicBool::new(false),
            trim_asked: AtomicU64::new(0),
            trim_done: AtomicU64::new(0),
            poll: Mutex::new(None),
            fresh: Fresh::new(),
        }));
        WORKERS[index].store(std::ptr::from_ref(shared).cast_mut(), Ordering::Release);
        Ok(shared)
    }

    /// What was counted of a class here; `None` if no task of it started here.
    #[inline]
    pub(crate) fn class_stats(&self, number: u16) -> Option<&'static ClassStats> {
        let stats = self.classes.get(usize::from(number))?.load(Ordering::Acquire);
        // SAFETY: only leaked boxes are stored.
        (!stats.is_null()).then(|| unsafe { &*stats })
    }

    /// A task of that class starts here. By the worker.
    #[inline]
    pub(super) fn use_class(&self, number: u16) {
        let Some(stats) = self.classes.get(usize::from(number)) else { return };
        if stats.load(Ordering::Relaxed).is_null() {
            stats.store(Box::leak(Box::new(ClassStats::new())), Ordering::Release);
        }
    }

    /// Tells this worker from every other that the process has or had. Never 0.
    #[inline]
    pub(crate) fn identity(&self) -> u64 {
        u64::from(self.epoch.load(Ordering::Relaxed)) << 16 | u64::from(self.index)
    }

    /// Counted from 0 within its runtime.
    pub(crate) fn ordinal(&self) -> usize {
        usize::from(self.ordinal.load(Ordering::Relaxed))
    }

    /// Gives the place back after a clean end (no task was left behind), or if its worker never started.
    pub(crate) fn give_back(&self) {
        // Of a worker that never started; its descriptors must not wait for the place's next user.
        self.set_poll(None);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }

    /// Has the worker give its idle stacks back, as soon as it looks around. Returns what [`has_trimmed`](Shared::has_trimmed)
    /// wants to know.
    pub(crate) fn ask_to_trim(&self) -> u64 {
        let ticket = self.trim_asked.fetch_add(1, Ordering::SeqCst) + 1;
        let _ = self.wake();
        ticket
    }

    /// Whether it has done that since.
    pub(crate) fn has_trimmed(&self, ticket: u64) -> bool {
        self.trim_done.load(Ordering::Acquire) >= ticket || self.gone.load(Ordering::Relaxed)
    }

    /// What was asked for and is not done; by the worker.
    #[inline]
    pub(super) fn trim_wanted(&self) -> Option<u64> {
        let asked = self.trim_asked.load(Ordering::SeqCst);
        (asked != self.trim_done.load(Ordering::Relaxed)).then_some(asked)
    }

    /// By the worker.
    pub(super) fn set_trimmed(&self, ticket: u64) {
        self.trim_done.store(ticket, Ordering::Release);
    }

    pub(crate) fn set_poll(&self, poll: Option<(Kicker, mio::Registry)>) {
        *self.poll.lock().unwrap_or_else(PoisonError::into_inner) = poll;
    }

    /// Ends the worker's wait if it sleeps.
    pub(crate) fn wake(&self) -> Wake {
        let w = self.idle.bring();
        if w == Wake::Kick
            && !fork::forked()
            && let Some((kicker, _)) = &*self.poll.lock().unwrap_or_else(PoisonError::into_inner)
        {
            kicker.kick();
        }
        w
    }

    /// Queues a started task of this worker that another thread has just made runnable.
    ///
    /// # Safety
    /// The caller's transition said `Queue`, so the task's link is its own.
    pub(crate) unsafe fn deliver(&self, cell: &'static TaskCell) {
        cell.accounting.woken(clock::ticks());
        // SAFETY: cells are type-stable; the link is the caller's.
        unsafe { self.inbox.push(std::ptr::from_ref(cell).cast_mut()) };
        let _ = self.wake();
    }

    /// Forgets a registration of a descriptor that is being closed on another thread. If there may be waiters the
    /// worker is woken, so that it wakes them.
    pub(crate) fn retire(&self, fd: std::os::fd::RawFd, id: RegistrationId, waiters: bool) {
        if fork::forked() {
            // The poll is the parent's, and so is what is registered there.
            return;
        }
        {
            let poll = self.poll.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((_, registry)) = &*poll else { return };
            let _ = registry.deregister(&mut mio::unix::SourceFd(&fd));
            self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            self.has_retired.store(true, Ordering::Release);
        }
        if waiters {
            let _ = self.wake();
        }
    }

    /// By the worker itself.
    pub(crate) fn take_retired(&self) -> Vec<RegistrationId> {
        self.has_retired.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Recent load in per mille; what a sleeping worker last said fades.
    pub(crate) fn recent_load(&self, now: u64, stale_after: u64) -> u32 {
        if now.saturating_sub(self.load_at.load(Ordering::Relaxed)) > stale_after && self.idle.looks_asleep() {
            return 0;
        }
        self.load.load(Ordering::Relaxed)
    }
}
