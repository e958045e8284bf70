//! The task's side of the scheduler: park, yield, and the delivery of cancellations and timeouts.
//!
//! Every wait of every primitive is the same loop: look whether it is over; ask a checkpoint whether an interrupt is
//! due; park with a reason. Wake-ups may be spurious, so the loop always looks again. (Channels come to it right after a checkpoint of
//! their own, and begin with the park: [`handover::Caller`](super::handover::Caller).)
//!
//! **Error first.** [`checkpoint_io`] returns an interrupt once as an error; [`checkpoint_wait`], and
//! [`checkpoint_io`] from the second time on, unwind. Nothing is delivered under `shield`, while the thread unwinds,
//! or (as an unwind) while a write guard is held.

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::panic;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub(crate) use super::marks::{begin_poll, set_wait_extra, show_polled_io, this_thread, ticks, user};
pub(crate) use super::timeout::{deadline, timeout_scope, timeout_scope_at};
use super::worker::{Outcome, Worker};
use crate::context;
use crate::observe::{WaitKind, WaitReason};
use crate::sys::parker::ThreadParker;
use crate::task::state::Snapshot;
use crate::task::{Interrupt, TaskCell, TaskLocal, TaskRef, Unparker};
use crate::timer::{TimerAction, TimerKey};

/// The payload of an unwind that cancellation raised.
#[derive(Debug)]
pub(super) struct Cancelled;

/// The payload of an unwind that an expired `timeout` raised; only the owner of the scope stops it.
#[derive(Debug)]
pub(super) struct Expired {
    pub(super) task: u64,
    pub(super) scope: u64,
}

/// How long in total a task may block its thread in sleeps and I/O while it unwinds.
pub(crate) const UNWINDING_BUDGET: Duration = Duration::from_millis(100);

/// From this many swallowed cancellations on, the task is reported by name, once.
const SWALLOWS_REPORTED: u32 = 3;

/// The running task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here {
    pub(crate) worker: &'static Worker,
    pub(crate) cell: &'static TaskCell,
}

/// The running task, `None` on a plain thread.
#[inline(always)]
pub(crate) fn here() -> Option<Here> {
    let worker = Worker::current()?;
    let cell = worker.current.get();
    // SAFETY: non-null only while that task runs; cells are type-stable.
    (!cell.is_null()).then(|| Here { worker, cell: unsafe { &*cell } })
}

impl Here {
    #[inline(always)]
    pub(crate) fn local(&self) -> &TaskLocal {
        // SAFETY: set at the start of the task, which runs now; it lives in the task's first frame.
        unsafe { &*self.cell.local.load(Ordering::Relaxed) }
    }

    #[inline]
    pub(crate) fn id(&self) -> u64 {
        self.cell.state.snapshot().id()
    }

    /// When the running slice began, in ticks: the time as far as it can be told for nothing.
    #[inline(always)]
    pub(crate) fn slice_start(&self) -> u64 {
        self.worker.shared.slice_start.load(Ordering::Relaxed)
    }

    pub(crate) fn task(&self) -> TaskRef {
        self.cell.reference(self.id())
    }

    /// Panics inside `no_switch`, where a wait would.
    pub(crate) fn refuse_if_no_switch(&self) {
        if self.local().no_switch.get() > 0 {
            refuse_switch();
        }
    }

    /// What the task has entered of a tracing library.
    #[cfg(feature = "tracing")]
    pub(crate) fn spans(&self) -> &crate::task::spans::Spans {
        &self.local().spans
    }

    /// Gives the worker back; returns when the task is resumed.
    #[inline(always)]
    fn suspend(&self, outcome: Outcome) {
        let local = self.local();
        if ptr::from_ref(local).addr().wrapping_sub(context::stack_pointer()) >= local.room.get() {
            self.check_place();
        }
        #[cfg(feature = "tracing")]
        let in_spans = local.spans.is_in_any();
        #[cfg(feature = "tracing")]
        if in_spans {
            local.spans.leave_all();
        }
        self.worker.outcome.set(outcome);
        // SAFETY: the loop's context was saved when this task was resumed and waits for exactly this switch; pinned
        // tasks come back on this thread.
        unsafe {
            #[cfg(coro_asan)]
            (*local.fiber.get()).return_to_other(false);
            context::switch(self.cell.ctx.get(), self.worker.ctx.get());
            #[cfg(coro_asan)]
            (*local.fiber.get()).back();
        }
        debug_assert!(ptr::eq(self.worker.current.get(), self.cell), "a task must come back on its own worker");
        #[cfg(feature = "tracing")]
        if in_spans {
            local.spans.enter_all();
        }
    }

    /// Something is unusual about where the task would wait: inside `no_switch`, in a signal handler, or on a stack that
    /// the user switched to. Only the last of these is all right.
    #[cold]
    #[inline(never)]
    fn check_place(&self) {
        self.refuse_if_no_switch();
        if crate::sys::signal::on_alternate_stack() {
            // The next signal would overwrite the frames that wait. A panic could not leave the handler either.
            crate::sys::stderr::write_raw(
                b"coro: a task may not wait in a signal handler; write to a pipe or set a flag there, and wait in a task. \
                 Aborting\n",
            );
            std::process::abort();
        }
    }

    /// Parks until somebody unparks the task; may return for no reason.
    #[inline]
    pub(crate) fn park(&self, reason: WaitReason) {
        self.park_here(reason);
    }

    /// As [`park`](Here::park), for waits so frequent that the call alone would be felt.
    #[inline(always)]
    pub(super) fn park_here(&self, reason: WaitReason) {
        if self.cell.state.take_token() {
            return;
        }
        self.cell.set_wait(reason);
        let local = self.local();
        local.io_streak.set(0);
        local.ready_streak.set(0);
        if self.unwinding() {
            return self.park_unwinding();
        }
        self.suspend(Outcome::Parked);
    }

    /// A wait inside a destructor that runs because of a panic or cancellation: other tasks of the worker then see
    /// std's `panicking()`. It is counted and, the first time, reported.
    #[cold]
    fn park_unwinding(&self) {
        let local = self.local();
        let depth = &self.worker.suspended_unwinding;
        local.waits_unwinding.set(local.waits_unwinding.get() + 1);
        let in_hook = !local.interrupt_unwinds.get() && super::in_panic_hook();
        if in_hook && self.block_in_hook() {
            return;
        }
        if local.waits_unwinding.get() == 1 {
            let text = if in_hook {
                format!(
                    "{} waits in a panic hook for what did not come within {UNWINDING_BUDGET:?}; its worker goes on with \
                     other tasks, and a panic of theirs before the hook's end aborts the process",
                    self.describe()
                )
            } else {
                format!("{} waits for another task while it unwinds", self.describe())
            };
            crate::sys::stderr::print(self.id(), &text);
        }
        depth.set(depth.get() + 1);
        local.mid_unwind.set(true);
        self.suspend(Outcome::Parked);
        depth.set(depth.get() - 1);
        if depth.get() == 0 {
            self.worker.deliver_deferred();
        }
    }

    /// A wait inside a panic hook: while it lasts, std takes every panic of this thread for one of the hook, and aborts.
    /// So the thread is blocked instead, for as long as a task that unwinds may; whether the wait is over.
    fn block_in_hook(&self) -> bool {
        while !self.cell.state.take_token() {
            if !block_while_unwinding(self, Duration::from_millis(1)) {
                return false;
            }
        }
        true
    }

    /// Whether *this task* unwinds. std's answer is per thread and also true while another task of the worker waits
    /// in the middle of its unwinding.
    ///
    /// Whose unwinding began while another one's waited cannot be told: such a task is not taken to unwind. That it may
    /// is remembered, because it may wait as well, and longer than the one that is known.
    #[inline(always)]
    pub(crate) fn unwinding(&self) -> bool {
        if !std::thread::panicking() {
            // What it once waited in the middle of has been caught.
            self.local().mid_unwind.set(false);
            self.local().interrupt_unwinds.set(false);
            self.worker.calm();
            return false;
        }
        if self.local().mid_unwind.get() {
            return true;
        }
        if self.worker.suspended_unwinding.get() > 0 {
            self.worker.unsettled.set(true);
        }
        !self.worker.unsettled.get()
    }

    /// An interrupt that is due cannot be raised because some other task of this worker waits while it unwinds: a
    /// second unwind that begins in a destructor would abort, and std cannot say whose the first one is. The task is
    /// woken again as soon as no such wait is left.
    #[cold]
    fn defer_interrupt(&self) {
        if !self.unwinding() && !self.local().interrupt_deferred.replace(true) {
            self.worker.deferred.borrow_mut().push(self.task());
        }
    }

    fn describe(&self) -> String {
        // SAFETY: the task itself runs, so its worker owns the cell.
        match unsafe { self.cell.name() } {
            Some(name) => format!("task #{} \"{}\"", self.id(), name.escape_debug()),
            None => format!("task #{}", self.id()),
        }
    }

    #[inline(always)]
    fn pending(&self) -> Option<(Interrupt, Snapshot)> {
        let word = self.cell.state.snapshot();
        let local = self.local();
        if !word.cancel_requested() && !local.attention.get() {
            return None;
        }
        local.pending(word).map(|i| (i, word))
    }

    /// Gives way to every other task that can run, without looking at interrupts.
    pub(crate) fn yield_now(&self) {
        self.suspend(Outcome::Yielded);
    }

    /// As [`yield_now`](Here::yield_now), for a task that could go on: not inside `no_switch`, where what need not wait is
    /// allowed; nor while the task unwinds, when the others would see std's `panicking()`.
    #[cold]
    pub(super) fn give_way(&self) {
        let local = self.local();
        local.io_streak.set(0);
        local.ready_streak.set(0);
        if local.no_switch.get() == 0 && !self.unwinding() {
            self.yield_now();
        }
    }

    /// Whether a cancellation or an expired time limit waits to be delivered.
    pub(crate) fn interrupt_due(&self) -> bool {
        self.pending().is_some()
    }

    /// Whether [`checkpoint_wait`](Here::checkpoint_wait) would unwind now: for waits that must first take back what
    /// they offered.
    pub(crate) fn would_unwind(&self) -> bool {
        !std::thread::panicking()
            && !cfg!(panic = "abort")
            && self.pending().is_some_and(|(_, word)| self.local().write_guards.get() == 0 || word.cancel_now())
    }

    /// As [`would_unwind`](Here::would_unwind) when the wait itself is next; takes note of what holds an interrupt back.
    /// One look decides: a `cancel_now` that comes later wakes the task from its park.
    #[inline]
    pub(crate) fn interrupted(&self) -> bool {
        self.pending().is_some_and(|(_, word)| !self.held_back(word))
    }

    /// Whether an interrupt that is due cannot be raised now. Takes note, so that it is raised when it can be.
    #[cold]
    fn held_back(&self, word: Snapshot) -> bool {
        if cfg!(panic = "abort") {
            return true;
        }
        let guarded = self.local().write_guards.get() > 0 && !word.cancel_now();
        self.local().held_back.set(guarded);
        if !guarded && std::thread::panicking() {
            self.defer_interrupt();
            return true;
        }
        guarded
    }

    /// Unwinds if an interrupt is due.
    #[inline(always)]
    pub(crate) fn checkpoint_wait(&self) {
        if let Some((interrupt, word)) = self.pending() {
            self.raise(interrupt, word);
        }
    }

    /// Returns a due interrupt as an error the first time, unwinds later.
    #[inline(always)]
    pub(crate) fn checkpoint_io(&self) -> io::Result<()> {
        match self.pending() {
            None => Ok(()),
            Some((interrupt, word)) => self.io_interrupt(interrupt, word),
        }
    }

    #[cold]
    #[inline(never)]
    fn io_interrupt(&self, interrupt: Interrupt, word: Snapshot) -> io::Result<()> {
        if self.unwinding() {
            return Ok(());
        }
        let given = match interrupt {
            Interrupt::Cancel => &self.local().cancel_error_given,
            // SAFETY: a scope in force lives in a frame of this task.
            Interrupt::Timeout(scope) => unsafe { &(*scope).error_given },
        };
        if given.replace(true) {
            self.raise(interrupt, word);
        }
        Err(match interrupt {
            Interrupt::Cancel => io::Error::other(super::CancelledError::new()),
            Interrupt::Timeout(_) => io::Error::from(io::ErrorKind::TimedOut),
        })
    }

    #[cold]
    #[inline(never)]
    fn raise(&self, interrupt: Interrupt, word: Snapshot) {
        if self.held_back(word) {
            return;
        }
        let local = self.local();
        let raises = local.raises.get().saturating_add(1);
        local.raises.set(raises);
        if raises > SWALLOWS_REPORTED && local.no_switch.get() == 0 {
            // Somebody may be catching this in a loop: such a loop must not keep the worker from everybody else.
            self.suspend(Outcome::Yielded);
        }
        local.interrupt_unwinds.set(true);
        match interrupt {
            Interrupt::Cancel => {
                let raised = local.cancels_raised.get() + 1;
                local.cancels_raised.set(raised);
                if raised == SWALLOWS_REPORTED {
                    let text = format!(
                        "{} keeps catching its cancellation; it is raised again at every wait",
                        self.describe()
                    );
                    crate::sys::stderr::print(self.id(), &text);
                }
                panic::resume_unwind(Box::new(Cancelled))
            }
            Interrupt::Timeout(scope) => {
                // SAFETY: a scope in force lives in a frame of this task.
                let scope = unsafe { (*scope).serial };
                panic::resume_unwind(Box::new(Expired { task: self.id(), scope }))
            }
        }
    }
}

#[cold]
pub(super) fn refuse_switch() -> ! {
    panic!("this task may not wait here: it is inside coro::no_switch; move the wait out of the closure")
}

/// Whether the payload of a join or of `catch_unwind` is a cancellation.
///
/// # Examples
/// ```
/// coro::run(|| {
///     let task = coro::spawn(|| coro::sleep(std::time::Duration::from_secs(3600)));
///     task.cancel();
///     assert!(coro::is_cancel(&*task.join().unwrap_err()));
/// });
/// ```
pub fn is_cancel(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Cancelled>()
}

/// Whether a payload is a cancellation or an expired time limit on its way to its owner.
pub(crate) fn is_interrupt(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Cancelled>() || payload.is::<Expired>()
}

/// The payload of a task that was cancelled.
pub(crate) fn cancelled_payload() -> Box<dyn Any + Send> {
    Box::new(Cancelled)
}

/// Who is to be woken to wake the caller.
#[inline]
pub(crate) fn current_unparker() -> Unparker {
    match here() {
        Some(h) => Unparker::task(h.task()),
        None => Unparker::thread(ThreadParker::current()),
    }
}

/// Waits for an unpark, as a task or as a thread; may return for no reason.
///
/// # Cancellation
/// Unwinds before and after the wait if an interrupt is due.
pub(crate) fn wait(reason: WaitReason) {
    match here() {
        Some(h) => {
            h.checkpoint_wait();
            h.park(reason);
        }
        None => thread_parker().park(None),
    }
}

/// The parker of a plain thread. A worker that waits while it runs no task is told of: whatever waits there (a global
/// allocator, it must be, or a destructor of something that the runtime owns) holds up all tasks of the worker.
fn thread_parker() -> Arc<ThreadParker> {
    if let Some(w) = Worker::current() {
        w.waits_outside_of_tasks();
    }
    ThreadParker::current()
}

/// Waits until `done` says that it is over, as a task or as a thread; false if `deadline` came first.
///
/// # Cancellation
/// As [`wait`].
pub(crate) fn wait_for(reason: WaitReason, deadline: Option<Instant>, mut done: impl FnMut() -> bool) -> bool {
    let Some(h) = here() else {
        let parker = thread_parker();
        while !done() {
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return done();
            }
            parker.park(deadline);
        }
        return true;
    };
    if done() {
        return true;
    }
    let timer = deadline.map(|d| ArmedTimer::new(&h, h.worker.timer_ns(d)));
    loop {
        h.checkpoint_wait();
        h.park(reason);
        if done() {
            return true;
        }
        if timer.as_ref().is_some_and(|t| !t.pending()) {
            return false;
        }
    }
}

/// As [`wait_for`], inside an I/O call: an interrupt is an error first. While the task unwinds, the thread is blocked
/// within the task's budget for that, and `TimedOut` says that it is used up.
pub(crate) fn wait_for_io(
    reason: WaitReason,
    deadline: Option<Instant>,
    mut done: impl FnMut() -> bool,
) -> io::Result<bool> {
    let Some(h) = here() else { return Ok(wait_for(reason, deadline, done)) };
    if h.unwinding() {
        while !done() {
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return Ok(false);
            }
            if !block_while_unwinding(&h, Duration::from_millis(1)) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        return Ok(true);
    }
    let timer = deadline.map(|d| ArmedTimer::new(&h, h.worker.timer_ns(d)));
    while !done() {
        if timer.as_ref().is_some_and(|t| !t.pending()) {
            return Ok(false);
        }
        h.checkpoint_io()?;
        h.park(reason);
    }
    Ok(true)
}

/// As [`wait`], without looking at interrupts: for waits that must not be left (children of a scope).
pub(crate) fn wait_shielded(reason: WaitReason) {
    match here() {
        Some(h) => h.park(reason),
        None => thread_parker().park(None),
    }
}

/// Where a lock that need not wait becomes a cancellation point after all: a task that waits only while it holds a guard
/// would otherwise never end.
#[inline]
pub(crate) fn deliver_held_back() {
    if let Some(h) = here()
        && h.local().held_back.get()
    {
        h.checkpoint_wait();
    }
}

/// An interrupt that is due unwinds here, also where nothing has to be waited for; a task that never has to wait gives way
/// once in a while, since its worker looks at its timers between slices only.
#[inline]
pub(crate) fn checkpoint() {
    super::handover::caller().checkpoint();
}

/// Lets every other task of the worker that can run do so first.
///
/// On a plain thread this is [`std::thread::yield_now`].
///
/// # Cancellation
/// A wait like any other: it unwinds if the task was cancelled or a [`timeout`](crate::timeout) around it expired.
pub fn yield_slice() {
    match here() {
        Some(h) => {
            h.checkpoint_wait();
            if h.unwinding() {
                return;
            }
            h.local().io_streak.set(0);
            h.suspend(Outcome::Yielded);
        }
        None => std::thread::yield_now(),
    }
}

/// Parks the running task until somebody calls [`Task::unpark`](crate::Task::unpark) on it; an `unpark` that came
/// before makes it return at once. Never returns for no reason.
///
/// # Panics
/// On a plain thread; use [`std::thread::park`] there.
///
/// # Cancellation
/// Unwinds if the task is cancelled or an enclosing timeout expires.
pub fn park() {
    let h = here().expect("coro::park was called on a plain thread; call it from a task");
    // A task that always finds its token must not put off its interrupts, nor keep the worker from everybody else.
    checkpoint();
    while !h.cell.state.take_user_token() {
        h.checkpoint_wait();
        h.park(WaitReason::of(WaitKind::Park));
    }
}

/// As [`park`], at most until `deadline`; whether there was an unpark.
pub(crate) fn park_until(h: &Here, deadline: Option<Instant>) -> bool {
    checkpoint();
    wait_for(WaitReason::of(WaitKind::Park), deadline, || h.cell.state.take_user_token())
}

/// Sleeps until `deadline`, as a task or as a thread.
pub(crate) fn sleep_until(deadline: Instant) {
    let Some(h) = here() else {
        std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
        return;
    };
    if h.unwinding() {
        block_while_unwinding(&h, deadline.saturating_duration_since(Instant::now()));
        return;
    }
    h.checkpoint_wait();
    let ns = h.worker.timer_ns(deadline);
    let timer = ArmedTimer::new(&h, ns);
    let reason = WaitReason::new(WaitKind::Sleep, ns);
    while timer.pending() {
        h.park(reason);
        if timer.pending() {
            h.checkpoint_wait();
        }
    }
}

/// A pause inside an I/O call that is tried again and again: as [`sleep_until`], but an interrupt is an error first.
pub(crate) fn pause_io(pause: Duration, reason: WaitReason) -> io::Result<()> {
    let Some(h) = here() else {
        std::thread::sleep(pause);
        return Ok(());
    };
    if h.unwinding() {
        let within = block_while_unwinding(&h, pause);
        return if within { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) };
    }
    h.checkpoint_io()?;
    let ns = h.worker.timer_ns(Instant::now() + pause);
    let timer = ArmedTimer::new(&h, ns);
    while timer.pending() {
        h.park(reason);
        if timer.pending() {
            h.checkpoint_io()?;
        }
    }
    Ok(())
}

/// Blocks the thread within the task's budget for waits while unwinding; false when the budget is used up.
pub(crate) fn block_while_unwinding(h: &Here, wanted: Duration) -> bool {
    let local = h.local();
    let left = UNWINDING_BUDGET.saturating_sub(Duration::from_nanos(local.unwinding_blocked_ns.get()));
    let d = wanted.min(left);
    if !d.is_zero() {
        std::thread::sleep(d);
        local.unwinding_blocked_ns.set(local.unwinding_blocked_ns.get() + d.as_nanos() as u64);
    }
    wanted <= left
}

/// A timer that wakes the running task, taken out when this goes away.
pub(crate) struct ArmedTimer<'a> {
    here: &'a Here,
    key: TimerKey,
}

impl<'a> ArmedTimer<'a> {
    /// `ns` is on the worker's timer clock.
    pub(crate) fn new(here: &'a Here, ns: u64) -> ArmedTimer<'a> {
        let action = TimerAction { task: ptr::from_ref(here.cell).cast(), id: here.id(), scope: ptr::null() };
        here.local().wait_until.set(ns);
        ArmedTimer { here, key: here.worker.timers.borrow_mut().insert(ns, action) }
    }

    /// Whether the timer has not fired.
    pub(crate) fn pending(&self) -> bool {
        self.here.worker.timers.borrow().is_pending(self.key)
    }
}

impl Drop for ArmedTimer<'_> {
    fn drop(&mut self) {
        self.here.local().wait_until.set(0);
        self.here.worker.timers.borrow_mut().remove(self.key);
    }
}

/// Runs the task's closure on its own stack and reports a panic that nobody caught.
///
/// Whether it failed (only a child that was forked meanwhile asks).
#[inline(always)]
pub(super) fn run_closure(cell: &'static TaskCell) -> bool {
    let cancelled =
        cell.state.snapshot().cancel_requested() || Worker::current().is_some_and(|w| w.runtime.cancelling());
    let instead: Option<Box<dyn Any + Send>> = if cancelled { Some(Box::new(Cancelled)) } else { None };
    // SAFETY: stored at spawn, constant since.
    let table = unsafe { *cell.vtable.get() }.expect("every spawned cell has a table");
    let has_failed = Cell::new(false);
    let failed = |payload: &(dyn Any + Send)| {
        if !is_cancel(payload) {
            has_failed.set(true);
            super::uncaught(cell, payload);
        }
    };
    // SAFETY: the task is ACTIVE and this is its first frame: the payload is the closure and ours.
    unsafe { (table.run)(cell, instead, &failed) };
    if let Some(h) = here()
        && h.local().locals.in_use()
    {
        end_locals(&h);
    }
    has_failed.get()
}

/// Destroys the task's locals, as the last of the user's code that runs in it. A destructor may wait; it is shielded,
/// so that no interrupt stops it half way, like destructors that run while the task unwinds.
#[cold]
fn end_locals(h: &Here) {
    let local = h.local();
    local.shields.set(local.shields.get() + 1);
    let failed = |payload: &Box<dyn Any + Send>| super::uncaught(h.cell, &**payload);
    // SAFETY: the task's closure has returned or unwound, and with it every use of a local.
    unsafe { local.locals.destroy(&failed) };
}

/// Runs `f` and lets no cancellation and no timeout around it interrupt it; both are delivered at the first wait after
/// it. A timeout that begins inside `f` is its own affair and ends inside as always.
///
/// For callbacks from C, where unwinding would abort, and for steps that must not be left half done.
///
/// # Examples
/// ```
/// coro::run(|| {
///     let sum = coro::shield(|| 1 + 1);
///     assert_eq!(sum, 2);
/// });
/// ```
pub fn shield<T>(f: impl FnOnce() -> T) -> T {
    let Some(h) = here() else { return f() };
    struct Unshield(Here);
    impl Drop for Unshield {
        fn drop(&mut self) {
            let s = &self.0.local().shields;
            s.set(s.get() - 1);
        }
    }
    let s = &h.local().shields;
    s.set(s.get() + 1);
    let _unshield = Unshield(h);
    f()
}

/// Runs `f` in which the task may not wait: a wait inside it panics with a message that says so.
///
/// For sections that rely on no other task of this worker running in between (a borrowed thread-local, say).
///
/// # Panics
/// If `f` waits, yields or sleeps.
pub fn no_switch<T>(f: impl FnOnce() -> T) -> T {
    let Some(h) = here() else { return f() };
    struct Allow(Here);
    impl Drop for Allow {
        fn drop(&mut self) {
            let local = self.0.local();
            local.no_switch.set(local.no_switch.get() - 1);
            if local.no_switch.get() == 0 {
                local.room.set(local.whole_room.get());
            }
        }
    }
    let local = h.local();
    local.no_switch.set(local.no_switch.get() + 1);
    local.room.set(0);
    let _allow = Allow(h);
    f()
}

/// Whether the running task was cancelled; false on a plain thread. For loops that compute without waiting.
pub fn is_cancelled() -> bool {
    here().is_some_and(|h| h.cell.state.snapshot().cancel_requested())
}

/// Bytes of stack that the running task has left; `None` where that is not known, as on plain threads.
#[cfg(feature = "probe")]
pub(crate) fn stack_left() -> Option<usize> {
    let h = here()?;
    // SAFETY: the task runs, so its stack stays its own.
    let stack = unsafe { &*h.cell.stack.get() }.as_ref().filter(|_| h.local().whole_room.get() != usize::MAX)?;
    // Where locals lie would say nothing: the sanitizer has them in a heap of its own.
    let at = context::stack_pointer();
    (at <= stack.slot_top()).then(|| at.saturating_sub(stack.limit()))
}

/// Whether the calling task or plain thread unwinds. Every lock asks twice: mostly no thread of the process does.
#[inline(always)]
pub(crate) fn unwinding() -> bool {
    #[cold]
    fn is_it_this_one() -> bool {
        here().is_none_or(|h| h.unwinding())
    }
    std::thread::panicking() && is_it_this_one()
}
