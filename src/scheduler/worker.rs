//! One worker: the OS thread's private state and its loop.
//!
//! Invariant: everything here is touched by the worker's own thread only, by the loop or by the task that runs on it
//! (never both at once), hence `Cell`s. `RefCell`s guard what is borrowed across calls; no task runs while one is
//! borrowed.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::linger::{self, Linger};
use super::maintain::HoldOff;
use super::run_queue::RunQueue;
use super::runtime::Inner;
use super::shared::Shared;
use super::stretch::{self, Stretch};
use crate::context::Ctx;
use crate::context::sanitizer::Fiber;
use crate::observe::{self, class};
use crate::reactor::{Poller, Reactor};
#[cfg(feature = "probe")]
use crate::stack::Stack;
use crate::stack::{ClassId, StackPool};
use crate::sys::{clock, current};
use crate::task::{Magazine, NOTEWORTHY, TaskCell, TaskRef};
use crate::timer::Timers;

/// Why a task gave the worker back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Yielded,
    Parked,
    Ended,
}

/// The fewest unstarted tasks that a round may start.
pub(super) const FRESH_PER_ROUND: usize = 16;
/// So many while all that start are short: each round has slices of tasks that wait for them, and those cost more than these.
const SHORT_PER_ROUND: usize = 64;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(super) shared: &'static Shared,
    pub(crate) runtime: Arc<Inner>,
    /// The loop's own context while a task runs.
    pub(super) ctx: UnsafeCell<Ctx>,
    pub(super) fiber: UnsafeCell<Fiber>,
    /// The running task; null in the loop.
    pub(super) current: Cell<*const TaskCell>,
    pub(super) outcome: Cell<Outcome>,
    pub(super) queue: RunQueue,
    /// What is left of the round: of the run queue, and of unstarted tasks.
    pub(super) queue_left: Cell<usize>,
    pub(super) fresh_left: Cell<usize>,
    /// The worker rested and has not run anything since.
    on_watch: Cell<bool>,
    /// Ticks at which timers and inbox are looked at even though tasks can run.
    pub(super) maintain_at: Cell<u64>,
    pub(super) poll_at: Cell<u64>,
    pub(super) load_at: Cell<u64>,
    pub(super) busy_then: Cell<u64>,
    /// When stacks that lie unused are looked for; `u64::MAX` while there can be none.
    pub(super) trim_at: Cell<u64>,
    /// Such stacks were found and are being given back, a step at every rest.
    pub(super) trimming: Cell<bool>,
    /// Slices of other workers at the last look, for telling who is stuck.
    pub(super) others_slices: RefCell<Vec<u64>>,
    /// Unstarted tasks of another worker that this one, idle, leaves there for now.
    pub(super) held: Cell<Option<HoldOff>>,
    pub(super) linger: Linger,
    pub(super) ticker: clock::Ticker,
    /// When what is woken by the present poll or timers was woken, in ticks.
    pub(super) woken_at: Cell<u64>,
    pub(super) periods: Periods,
    pub(super) classes: class::Known,
    /// The class of the task that was started last.
    pub(super) used_class: Cell<u16>,
    pub(super) stretch: Stretch,
    pub(super) magazine: RefCell<Magazine>,
    pub(super) credits: Cell<usize>,
    pub(super) default_class: ClassId,
    pub(super) stacks: RefCell<StackPool>,
    /// For code that runs in a task's name; see `spare`. And the end of its slot while it does, else 0.
    #[cfg(feature = "probe")]
    pub(super) spare: RefCell<Option<Stack>>,
    #[cfg(feature = "probe")]
    pub(super) spare_top: Cell<usize>,
    pub(super) timers: RefCell<Timers>,
    pub(super) reactor: RefCell<Reactor>,
    /// Tasks whose first run waits for a stack.
    pub(super) stackless: RefCell<Vec<&'static TaskCell>>,
    /// Cells to be freed as soon as nobody reads them any more.
    pub(super) limbo: RefCell<Vec<&'static TaskCell>>,
    pub(super) next_id: Cell<u64>,
    pub(super) last_id: Cell<u64>,
    /// Tasks of this worker that wait while they unwind.
    pub(crate) suspended_unwinding: Cell<u32>,
    /// While one of those waited, some other task was seen on a thread that panics, perhaps by its own doing. Until
    /// nobody on the thread panics, only those are taken to unwind that are known to.
    pub(super) unsettled: Cell<bool>,
    /// Tasks whose interrupts wait for the end of such waits.
    pub(super) deferred: RefCell<Vec<TaskRef>>,
}

/// The loop's periods, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Periods {
    pub(super) maintain: u64,
    pub(super) poll: u64,
    pub(super) load: u64,
    pub(super) trim: u64,
    /// Slices and delays below are not measured one by one.
    pub(super) noteworthy: u64,
    /// Slices that take longer altogether are not timed together.
    pub(super) together: u64,
    /// See `linger`.
    pub(super) linger: u64,
    pub(super) short_rest: u64,
    pub(super) look: u64,
}

impl Periods {
    fn new() -> Periods {
        Periods {
            maintain: clock::in_ticks(Duration::from_micros(50)),
            poll: clock::in_ticks(Duration::from_micros(250)),
            load: clock::in_ticks(Duration::from_millis(10)),
            trim: clock::in_ticks(Duration::from_millis(500)),
            noteworthy: clock::in_ticks(NOTEWORTHY),
            together: clock::in_ticks(stretch::LONGEST),
            linger: clock::in_ticks(linger::LINGER),
            short_rest: clock::in_ticks(linger::SHORT),
            look: clock::in_ticks(linger::LOOK),
        }
    }
}

impl Worker {
    pub(super) fn new(shared: &'static Shared, runtime: Arc<Inner>, poller: Poller) -> Worker {
        let default_class = runtime.stack_class;
        Worker {
            shared,
            runtime,
            ctx: UnsafeCell::new(Ctx::empty()),
            fiber: UnsafeCell::new(Fiber::new()),
            current: Cell::new(ptr::null()),
            outcome: Cell::new(Outcome::Yielded),
            queue: RunQueue::new(),
            queue_left: Cell::new(0),
            fresh_left: Cell::new(0),
            on_watch: Cell::new(true),
            maintain_at: Cell::new(0),
            poll_at: Cell::new(0),
            load_at: Cell::new(0),
            busy_then: Cell::new(0),
            trim_at: Cell::new(u64::MAX),
            trimming: Cell::new(false),
            others_slices: RefCell::default(),
            held: Cell::new(None),
            linger: Linger::new(),
            ticker: clock::Ticker::new(),
            woken_at: Cell::new(0),
            periods: Periods::new(),
            classes: class::Known::new(),
            used_class: Cell::new(class::NONE),
            stretch: Stretch::new(),
            magazine: RefCell::new(Magazine::new()),
            credits: Cell::new(0),
            default_class,
            stacks: RefCell::new(StackPool::new()),
            #[cfg(feature = "probe")]
            spare: RefCell::default(),
            #[cfg(feature = "probe")]
            spare_top: Cell::new(0),
            timers: RefCell::new(Timers::new()),
            reactor: RefCell::new(Reactor::new(poller)),
            stackless: RefCell::default(),
            limbo: RefCell::default(),
            next_id: Cell::new(0),
            last_id: Cell::new(0),
            suspended_unwinding: Cell::new(0),
            unsettled: Cell::new(false),
            deferred: RefCell::default(),
        }
    }

    /// The worker of the running thread, null outside one.
    #[inline(always)]
    pub(crate) fn current() -> Option<&'static Worker> {
        let p = current::get().cast::<Worker>();
        // SAFETY: set by `enter` to a worker that outlives every use on this thread.
        (!p.is_null()).then(|| unsafe { &*p })
    }

    /// Now, in ticks.
    #[cfg(feature = "probe")]
    #[inline(always)]
    pub(crate) fn ticks(&self) -> u64 {
        self.ticker.now()
    }

    /// Its place in the process's table: nobody else's until it has ended.
    #[cfg(feature = "probe")]
    #[inline(always)]
    pub(crate) fn index(&self) -> u16 {
        self.shared.index
    }

    /// Whether a stack pointer is that of the loop just before or after it switches to a task. In a signal handler on the
    /// worker's own thread.
    #[cfg_attr(
        not(all(target_os = "linux", not(any(miri, coro_thread_context)))),
        allow(dead_code, reason = "what runs can be asked on Linux only")
    )]
    pub(crate) fn is_near_switch(&self, sp: usize) -> bool {
        // SAFETY: on this thread, which writes the word in the switch only, before it leaves this stack.
        let at_switch = unsafe { (*self.ctx.get()).sp };
        sp.abs_diff(at_switch) < 1024
    }

    /// Runs tasks until the runtime ends and every task of this worker has ended.
    pub(super) fn run(&self) -> io::Result<()> {
        current::set(ptr::from_ref(self).cast());
        super::stall::begin_work();
        let mut now = self.ticker.now();
        loop {
            if now >= self.maintain_at.get() {
                now = self.maintain(self.end_stretch(now));
            }
            match self.pick() {
                Some((cell, true)) => now = self.slice::<true>(cell, now),
                Some((cell, false)) => now = self.slice::<false>(cell, now),
                None => {
                    now = self.end_stretch(now);
                    if self.must_end() {
                        break;
                    }
                    now = self.rest(now);
                    self.on_watch.set(true);
                    // The next task begins a round.
                    self.fresh_left.set(0);
                }
            }
        }
        self.shared.current.store(ptr::null_mut(), Ordering::Release);
        self.empty_limbo();
        super::alarm::silence(&mut self.timers.borrow_mut());
        current::set(ptr::null());
        Ok(())
    }

    /// The next task to run, and whether it comes from `fresh`. A round is what was in the run queue when it began, then as many unstarted tasks (at
    /// least [`FRESH_PER_ROUND`]): neither kind can starve the other, and a wave of new tasks wakes its joiner seldom.
    #[inline(always)]
    fn pick(&self) -> Option<(&'static TaskCell, bool)> {
        let left = self.queue_left.get();
        if left > 0 {
            self.queue_left.set(left - 1);
            return self.queue.pop().map(|cell| (cell, false));
        }
        let fresh = self.fresh_left.get();
        if fresh > 0
            && let Some(cell) = self.shared.fresh.pop()
        {
            self.fresh_left.set(fresh - 1);
            return Some((cell, true));
        }
        if self.has_mail() {
            self.drain_inbox();
        }
        let n = self.queue.len();
        let short = !observe::ON || self.stretch.is_long();
        self.fresh_left.set(n.max(if short { SHORT_PER_ROUND } else { FRESH_PER_ROUND }));
        let next = if n == 0 {
            self.shared.fresh.pop().map(|cell| (cell, true))
        } else {
            self.queue_left.set(n - 1);
            self.queue.pop().map(|cell| (cell, false))
        };
        if self.on_watch.get() && next.is_some() {
            self.hand_on_the_watch();
        }
        next
    }

    /// Whoever rests is who would find the unstarted tasks of all others. Now there is something else to do, perhaps for ever, so if
    /// any lie somewhere another sleeper shall look after them.
    fn hand_on_the_watch(&self) {
        self.on_watch.set(false);
        if self.runtime.workers().iter().any(|w| w.fresh.len() > 0) {
            self.runtime.wake_one_sleeper();
        }
    }

    /// Nanoseconds of the timer clock.
    pub(crate) fn timer_now(&self) -> u64 {
        self.timer_ns(Instant::now())
    }

    /// An instant on the timer clock, rounded to the past by nothing.
    pub(crate) fn timer_ns(&self, at: Instant) -> u64 {
        let d = at.saturating_duration_since(self.runtime.epoch);
        u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
    }
}
