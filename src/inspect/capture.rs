//! One task, copied inside its inspection window.
//!
//! The window is a few loads and one copy of the used stack. Strings behind pointers (the name) and the owner of a lock
//! are read inside it, because only then are they known to live.
//!
//! Invariants: between `inspect_begin` and `inspect_end` nothing is allocated, locked or asked of the system; what is copied
//! there is bounded, and its buffers were made, and touched, before. How long each window was is measured.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::frames::frames;
use super::running::{self, KernelView, RunningCopy, Sample, copy_words};
use super::waiting::Waiting;
use super::waits::Others;
use super::walk::{Registers, StackBytes};
use crate::observe::{Distribution, Histogram, WaitKind, WaitReason};
use crate::scheduler::shared::worker_at;
use crate::stack::slot_of;
use crate::sys::clock::{self, Ticker};
use crate::task::state::Life;
use crate::task::{LONGEST_KEY, LONGEST_VALUE, Label, MOST_LABELS, TaskCell};

/// Longest part of a stack that is copied, innermost part first, when all tasks are looked at: 25 us of copying at the least
/// that memory does today.
const LONGEST: usize = 256 << 10;
/// The same where one task was asked for by name, which may be held for longer.
const LONGEST_OF_ONE: usize = 1 << 20;
/// Room for a stack from the start; more is made when a task with more comes, outside of its window.
const FIRST_ROOM: usize = 32 << 10;
/// A name or class is cut after so many bytes.
const LONGEST_NAME: usize = 1024;
/// Return addresses of a spawn that are copied.
const SPAWN_FRAMES: usize = 128;
const ATTEMPTS: u32 = 50;
/// After so many attempts to copy a task while it runs it is shown without its stack: its slices are shorter than its thread
/// takes to answer.
const RUNNING_ATTEMPTS: u32 = 20;
/// No further attempt after this long.
const RUNNING_PATIENCE: Duration = Duration::from_millis(5);

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Unstarted,
    Runnable,
    /// On that worker (its place in the process's table).
    Running(u16),
    Parked,
}

/// How a look into the window ended.
enum Look {
    Seen,
    /// It was no window after all: the task moved.
    Again,
    /// The stack needs a larger buffer.
    Room(usize),
}

/// The copy. Its buffers are used again from task to task.
#[derive(Debug)]
pub(super) struct Captured {
    /// Whether to copy what few tasks have: the return addresses of the spawn.
    pub(super) wants_spawn_stack: bool,
    /// Whether to copy the stack.
    pub(super) wants_stack: bool,
    pub(super) id: u64,
    pub(super) doing: Doing,
    pub(super) since: u64,
    pub(super) slices: u64,
    /// Number of the class; 0 for an unstarted task.
    pub(super) class_number: u16,
    pub(super) run_ticks: u64,
    pub(super) longest_slice: Duration,
    pub(super) longest_delay: Duration,
    /// When the task first ran, in ticks, where that is known.
    pub(super) started: Option<u64>,
    pub(super) owner: u16,
    pub(super) wait: WaitReason,
    /// What stands behind `wait`, and what is known of the task's other locks.
    pub(super) waiting: Waiting,
    /// What this view knows of other tasks.
    pub(super) others: RefCell<Others>,
    pub(super) site: Option<&'static std::panic::Location<'static>>,
    pub(super) parent: u64,
    pub(super) registers: Option<Registers>,
    pub(super) base: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) spawn_stack: Vec<usize>,
    /// How much of its stack the task uses; 0 where that is not known.
    pub(super) used: usize,
    /// When the window closed, in ticks.
    pub(super) at: u64,
    /// Name, class and labels, one after the other.
    texts: String,
    name: Option<Range<usize>>,
    class: Option<Range<usize>>,
    labels: Vec<(Range<usize>, Range<usize>)>,
    ticker: Ticker,
    windows: Histogram,
    longest_window: u64,
    /// Whether [`Captured::follow`] copies the stack of a task that runs, which may take a signal.
    pub(super) wants_running: bool,
    /// The instruction in `registers` has not run yet: the task was interrupted there.
    pub(super) interrupted: bool,
    /// What the kernel shows of the thread of a running task.
    pub(super) kernel: KernelView,
    sample: Sample,
}

impl Captured {
    /// The wait, or for a future the descriptor that its last poll found not ready.
    pub(super) fn io(&self) -> WaitReason {
        match self.waiting.choices[0] {
            Some((io, _)) if self.wait.kind == WaitKind::Future => io,
            _ => self.wait,
        }
    }

    pub(super) fn new() -> Captured {
        let labels = MOST_LABELS * (LONGEST_KEY + LONGEST_VALUE);
        let mut bytes = vec![0; FIRST_ROOM];
        bytes.clear();
        Captured {
            wants_spawn_stack: false,
            wants_stack: true,
            id: 0,
            doing: Doing::Unstarted,
            since: 0,
            slices: 0,
            class_number: 0,
            run_ticks: 0,
            longest_slice: Duration::ZERO,
            longest_delay: Duration::ZERO,
            started: None,
            owner: 0,
            wait: WaitReason::of(WaitKind::None),
            waiting: Waiting::new(),
            others: RefCell::default(),
            site: None,
            parent: 0,
            registers: None,
            base: 0,
            bytes,
            spawn_stack: Vec::with_capacity(SPAWN_FRAMES),
            used: 0,
            at: 0,
            texts: String::with_capacity(2 * LONGEST_NAME + labels),
            name: None,
            class: None,
            labels: Vec::with_capacity(MOST_LABELS),
            ticker: Ticker::new(),
            windows: Histogram::new(),
            longest_window: 0,
            wants_running: false,
            interrupted: false,
            kernel: KernelView::unknown(),
            sample: Sample::new(),
        }
    }

    /// For tasks that are asked for one by one, also while they run.
    pub(super) fn of_any() -> Captured {
        Captured { wants_running: true, ..Captured::new() }
    }

    /// With room for every stack, so that nothing is allocated later, as long as no task is asked for by id.
    pub(super) fn with_room() -> Captured {
        let mut captured = Captured::new();
        captured.bytes.reserve(LONGEST);
        captured
    }

    /// The copied part of the stack.
    pub(super) fn stack(&self) -> StackBytes<'_> {
        StackBytes { base: self.base, bytes: &self.bytes }
    }

    /// The task's name.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.clone().map(|r| &self.texts[r])
    }

    /// The class that the task was given; without one its spawn site is its class.
    pub(super) fn class(&self) -> Option<&str> {
        self.class.clone().map(|r| &self.texts[r])
    }

    /// The task's labels.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(k, v)| (&self.texts[k.clone()], &self.texts[v.clone()]))
    }

    /// How long since the task came into the state that it was found in.
    pub(super) fn age(&self) -> Duration {
        clock::duration(self.at.saturating_sub(self.since))
    }

    /// How long tasks were held so far: the longest, and all.
    pub(super) fn windows(&self) -> (Duration, Distribution) {
        let mut all = Distribution::default();
        self.windows.add_to(&mut all);
        (clock::duration(self.longest_window), all)
    }

    /// Copies the task in `cell`, if there is one that has not ended. Only that id, if one is given.
    pub(super) fn capture(&mut self, cell: &TaskCell, only: Option<u64>) -> bool {
        let longest = if only.is_some() { LONGEST_OF_ONE } else { LONGEST };
        for _ in 0..ATTEMPTS {
            let word = cell.state.snapshot();
            if word.id() == 0 || only.is_some_and(|id| id != word.id()) {
                return false;
            }
            let Some(window) = cell.enter() else { return false };
            let begun = self.ticker.now();
            let id = window.id();
            let look = self.copy(cell, id, window.word().life(), longest);
            drop(window);
            self.at = self.ticker.now();
            let held = self.at.saturating_sub(begun);
            self.windows.record(held);
            self.longest_window = self.longest_window.max(held);
            match look {
                Look::Seen => return only.is_none_or(|wanted| wanted == id),
                Look::Again => {}
                Look::Room(bytes) => {
                    self.bytes.resize(bytes.next_power_of_two(), 0);
                }
            }
        }
        false
    }

    /// Whether the task runs, so that there is no stack yet, and one is wanted.
    pub(super) fn is_to_follow(&self) -> bool {
        self.wants_running && matches!(self.doing, Doing::Running(_))
    }

    /// Copies the stack of a task that was found running, if that is wanted; whatever state it is in by then. False if it has
    /// ended meanwhile. Takes the walker, and may wait for the thread.
    pub(super) fn follow(&mut self, cell: &TaskCell, only: Option<u64>) -> bool {
        let begun = clock::ticks();
        for attempt in 0..RUNNING_ATTEMPTS {
            if attempt > 1 && clock::since(begun) > RUNNING_PATIENCE {
                break;
            }
            if !self.is_to_follow() || self.copy_running(cell) {
                return true;
            }
            if !self.capture(cell, only) {
                return false;
            }
        }
        true
    }

    /// Outside the window: the stack of a task that runs. False if it does not any more.
    fn copy_running(&mut self, cell: &TaskCell) -> bool {
        let Doing::Running(place) = self.doing else { return true };
        let Some(worker) = worker_at(place) else { return true };
        let mut check = |r: &Registers, stack: &StackBytes<'_>| frames().reaches_base(r, stack);
        match running::copy_running(worker, cell, self.id, &mut self.sample, &mut check) {
            RunningCopy::Elsewhere => return false,
            RunningCopy::Unsupported => {}
            RunningCopy::Copied | RunningCopy::Silent => {
                self.registers = self.sample.registers;
                self.base = self.sample.base;
                self.interrupted = !self.sample.after_call;
                self.kernel = self.sample.kernel;
                std::mem::swap(&mut self.bytes, &mut self.sample.bytes);
                let slot = slot_of(self.base.wrapping_sub(1)).filter(|_| self.registers.is_some());
                self.used = slot.map_or(0, |slot| slot.top - self.base);
            }
        }
        true
    }

    /// Inside the window.
    fn copy(&mut self, cell: &TaskCell, id: u64, life: Life, longest: usize) -> Look {
        let owner = cell.owner.load(Ordering::Relaxed);
        // A task that was PARKED at entry has left its stack and cannot come back in the window, wherever its worker is.
        let running = life == Life::Active
            && worker_at(owner).is_some_and(|w| std::ptr::eq(w.current.load(Ordering::SeqCst), cell));
        if !running && !cell.state.inspect_confirm(id) {
            return Look::Again;
        }
        self.id = id;
        self.since = cell.accounting.changed();
        self.slices = cell.accounting.slices();
        self.run_ticks = cell.accounting.run_ticks();
        self.longest_slice = clock::duration(cell.accounting.longest_slice());
        self.longest_delay = clock::duration(cell.accounting.longest_delay());
        self.class_number = cell.class.load(Ordering::Relaxed);
        self.owner = owner;
        self.started = None;
        self.parent = cell.parent.load(Ordering::Relaxed);
        // SAFETY: INSPECT keeps the cell from being emptied, whatever the task does (`State::may_empty`); name and site
        // are constant until then.
        unsafe {
            self.copy_label(cell.label());
            self.site = *cell.site.get();
        }
        self.wait = match life {
            Life::Parked => cell.wait(),
            Life::Unstarted => cell.stackless(id).unwrap_or(WaitReason::of(WaitKind::None)),
            _ => WaitReason::of(WaitKind::None),
        };
        self.waiting.clear();
        self.registers = None;
        self.bytes.clear();
        self.used = 0;
        self.interrupted = false;
        self.kernel = KernelView::unknown();
        if running {
            self.doing = Doing::Running(owner);
            if let Some(w) = worker_at(owner) {
                // The slice may be just about to begin, and the start that stands there be that of the one before.
                self.since = self.since.max(w.slice_start.load(Ordering::Relaxed));
            }
            return if cell.state.snapshot().id() == id { Look::Seen } else { Look::Again };
        }
        match life {
            Life::Unstarted => self.doing = Doing::Unstarted,
            Life::Parked => self.doing = Doing::Parked,
            _ => self.doing = Doing::Runnable,
        }
        if life != Life::Unstarted {
            let local = cell.local.load(Ordering::Relaxed);
            // SAFETY: a started task's record lives in its first frame, and the task cannot run in the window.
            let local = unsafe { local.as_ref() };
            self.started = local.map(|l| l.started.get());
            // SAFETY: the task does not run; if it is parked, then in this wait.
            unsafe { self.waiting.copy(self.wait, life == Life::Parked, local) };
            return self.copy_stack(cell, longest);
        }
        Look::Seen
    }

    /// Inside the window.
    fn copy_label(&mut self, label: Option<&Label>) {
        self.texts.clear();
        self.labels.clear();
        self.spawn_stack.clear();
        (self.name, self.class) = (None, None);
        let Some(label) = label else { return };
        self.name = label.name.as_deref().and_then(|n| push_bounded(&mut self.texts, n));
        self.class = label.class.as_deref().and_then(|c| push_bounded(&mut self.texts, c));
        for (k, v) in label.pairs().iter().take(MOST_LABELS) {
            if let (Some(k), Some(v)) = (push_bounded(&mut self.texts, k), push_bounded(&mut self.texts, v)) {
                self.labels.push((k, v));
            }
        }
        if self.wants_spawn_stack
            && let Some(addresses) = &label.spawn_stack
        {
            self.spawn_stack.extend_from_slice(&addresses[..addresses.len().min(SPAWN_FRAMES)]);
        }
    }

    /// Inside the window.
    fn copy_stack(&mut self, cell: &TaskCell, longest: usize) -> Look {
        // SAFETY: the window holds and the task has run: its context and stack are still.
        let (ctx, limit, top) = unsafe {
            let Some(stack) = &*cell.stack.get() else { return Look::Seen };
            (*cell.ctx.get(), stack.limit(), stack.slot_top())
        };
        if cfg!(any(miri, coro_thread_context)) || ctx.sp < limit || ctx.sp > top {
            return Look::Seen;
        }
        self.used = top - ctx.sp;
        if !self.wants_stack {
            return Look::Seen;
        }
        let len = self.used.min(longest);
        if len > self.bytes.capacity() {
            return Look::Room(len);
        }
        // SAFETY: [sp, sp + len) lies in the task's stack, which nobody writes now; the buffer has the room.
        unsafe {
            copy_words(ctx.sp as *const u8, self.bytes.as_mut_ptr(), len);
            self.bytes.set_len(len);
        }
        self.base = ctx.sp;
        self.registers = Some(Registers {
            ip: ctx.ip,
            sp: ctx.sp,
            fp: ctx.fp,
            #[cfg(target_arch = "aarch64")]
            lr: 0,
        });
        Look::Seen
    }
}

/// Appends as much of `text` as there is room for, without allocating; `None` if there is none.
fn push_bounded(to: &mut String, text: &str) -> Option<Range<usize>> {
    let room = (to.capacity() - to.len()).min(LONGEST_NAME);
    let mut len = text.len().min(room);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    let start = to.len();
    to.push_str(&text[..len]);
    (len > 0 || text.is_empty()).then_some(start..start + len)
}
