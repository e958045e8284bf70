//! Handles: waiting for a task's end, and acting on a task by reference.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::suspend::{self, here};
use super::worker::Worker;
use crate::observe::{WaitKind, WaitReason};
use crate::task::state::{Cancel, CellFate, HandleDrop, Joiner, Life, Unpark};
use crate::task::{JoinResult, TaskCell, TaskRef, Unparker, has_result, take_result};

/// Waits for a task's result. Dropping it detaches the task.
pub struct JoinHandle<T> {
    task: TaskRef,
    result: PhantomData<fn() -> T>,
    value: PhantomData<T>,
}

// SAFETY: the handle reaches the result only through `join`, which moves it; `T: Send` makes that sound.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: through a shared handle nothing of `T` can be reached.
unsafe impl<T> Sync for JoinHandle<T> {}
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinHandle(#{})", self.task.id())
    }
}

impl<T> JoinHandle<T> {
    pub(super) fn new(task: TaskRef) -> JoinHandle<T> {
        JoinHandle { task, result: PhantomData, value: PhantomData }
    }

    /// The task's id, unique in the process.
    pub fn id(&self) -> u64 {
        self.task.id()
    }

    /// A reference to the task that may be kept and copied.
    pub fn task(&self) -> Task {
        Task(self.task)
    }

    /// Whether the task has ended; then [`join`](JoinHandle::join) returns at once.
    pub fn is_finished(&self) -> bool {
        self.task.cell().state.is_done()
    }

    /// Requests cancellation; see [`Task::cancel`].
    pub fn cancel(&self) -> CancelOutcome {
        self.task().cancel()
    }

    /// Waits until the task has ended.
    ///
    /// # Errors
    /// The payload of the panic that ended the task; a cancelled task (also one that never started) gives a payload
    /// for which [`is_cancel`](crate::is_cancel) is true.
    ///
    /// # Cancellation
    /// If the *caller* is cancelled, the wait unwinds and the task goes on, detached.
    pub fn join(self) -> Result<T, Box<dyn Any + Send + 'static>> {
        self.wait_done();
        self.take()
    }

    /// The result of the task, which has ended.
    pub(crate) fn take(&self) -> JoinResult<T> {
        let cell = self.task.cell();
        // SAFETY: DONE, and this is the handle.
        assert!(unsafe { has_result(cell) }, "the handle of task #{} has given its result before", self.id());
        // SAFETY: DONE, and this is the one handle, which still has the result; that has type `T`.
        unsafe { take_result(cell) }
    }

    /// Takes the waker out that an earlier poll has left, so that the slot belongs to the handle again. After the task's end
    /// it is left to the worker that ended it.
    pub(crate) fn unregister(&self) {
        let cell = self.task.cell();
        if cell.state.has_joiner() && cell.state.remove_joiner() == Joiner::Changed {
            // SAFETY: JOINER is clear, so the slot belongs to the handle.
            drop(unsafe { (*cell.joiner.get()).take() });
        }
    }

    /// Has somebody be woken at the task's end; false if it has ended. [`unregister`](JoinHandle::unregister) was called before.
    pub(crate) fn announce(&self, who: Unparker) -> bool {
        let cell = self.task.cell();
        if cell.state.has_joiner() {
            return false;
        }
        // SAFETY: JOINER is clear, and only the handle sets it: the slot is the handle's.
        unsafe { *cell.joiner.get() = Some(who) };
        let lasts = cell.state.add_joiner() == Joiner::Changed;
        if !lasts {
            // SAFETY: the task ended while JOINER was clear, so the slot is still the handle's.
            drop(unsafe { (*cell.joiner.get()).take() });
        }
        lasts
    }

    pub(crate) fn wait_done(&self) {
        let state = &self.task.cell().state;
        self.unregister();
        while !state.is_done() {
            crate::sys::fork::refuse_wait("a task");
            // SAFETY: JOINER is clear, so the slot belongs to the handle.
            unsafe { *self.task.cell().joiner.get() = Some(suspend::current_unparker()) };
            if state.add_joiner() == Joiner::Done {
                break;
            }
            let guard = Registered(self.task);
            suspend::wait(WaitReason::new(WaitKind::Join, self.task.id()));
            drop(guard);
        }
    }
}

/// The end of the task, for code that is `async`, in whatever runtime.
///
/// # Panics
/// When it is polled, or [`join`](JoinHandle::join) is called, after it has given the result.
///
/// # Cancellation
/// Dropping the future drops the handle, and the task goes on, detached. `(&mut handle).await` may be given up and taken up
/// again, and be followed by `join`: the result stays in the task until somebody takes it.
impl<T> Future for JoinHandle<T> {
    /// As of [`join`](JoinHandle::join).
    type Output = Result<T, Box<dyn Any + Send + 'static>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (cell, handle) = (self.task.cell(), self.into_ref());
        if !cell.state.is_done() {
            crate::sys::fork::refuse_wait("a task");
            // Both are anybody's code, and may panic: before the slot is touched.
            handle.unregister();
            let waker = Unparker::waker(cx.waker().clone());
            if handle.announce(waker) {
                return Poll::Pending;
            }
        }
        Poll::Ready(handle.take())
    }
}

/// Nothing of the task's value lies in the handle.
impl<T> Unpin for JoinHandle<T> {}

/// Takes the joiner out again when the wait ends for any reason.
struct Registered(TaskRef);

impl Drop for Registered {
    fn drop(&mut self) {
        // `Done`: the finishing worker has the slot, and JOINER stays set until it lets go of the cell.
        let _ = self.0.cell().state.remove_joiner();
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        if crate::sys::fork::forked() {
            // The task lives on in the parent. Its copy here stays as it is.
            return;
        }
        self.unregister();
        let cell = self.task.cell();
        let mut dropped = cell.state.drop_handle(false);
        if dropped == HandleDrop::ResultFirst {
            // SAFETY: the task has offered its result, so the payload belongs to this handle; `join` leaves it empty.
            unsafe { super::slice::drop_payload(cell) };
            dropped = cell.state.drop_handle(true);
        }
        if dropped == HandleDrop::Gone(CellFate::CallerFrees) {
            match Worker::current() {
                Some(w) => w.free_cell(cell),
                None => super::runtime::free_outside(cell),
            }
        }
    }
}

/// What [`Task::cancel`] found. See the table at [`Task`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelOutcome {
    /// The task has ended; nothing was done.
    Ended,
    /// The task had not started and never will; its closure is dropped.
    NeverStarts,
    /// The task is under way and has been told.
    Requested,
    /// The task had been told before, as strongly, and has not ended yet.
    AlreadyRequested,
}

/// A task by reference: cheap to copy, may outlive the task.
///
/// What [`cancel`](Task::cancel) does depends on what the task does. The end of a runtime is the same, for all its
/// tasks; so is [`set_exit`](crate::set_exit).
///
/// | the task | returns | what happens |
/// |---|---|---|
/// | has ended | `Ended` | nothing, now or later: an id is never used again |
/// | has not started | `NeverStarts` | its closure is dropped without having run, on a stack of its own; a join gives the cancellation |
/// | can run, but another task runs | `Requested` | it runs on when its turn comes, and is interrupted at its next wait |
/// | runs, on another worker | `Requested` | it runs on, and is interrupted at its next wait; one that never waits asks [`is_cancelled`](crate::is_cancelled) |
/// | waits | `Requested` | it is woken: a wait for I/O returns the error, every other wait unwinds |
/// | is the caller itself | `Requested` | this call returns; the next wait is interrupted |
/// | waits under [`shield`](crate::shield) | `Requested` | the wait goes on; the first wait after the shield is interrupted |
/// | holds a write guard | `Requested` | I/O returns the error, other waits go on; the first wait or lock without the guard unwinds |
/// | unwinds already | `Requested` | nothing until it has been caught, if it is |
/// | was cancelled before | `AlreadyRequested` | it is woken to look again ([`cancel_now`](Task::cancel_now) after `cancel` is a new request) |
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Task(TaskRef);

impl Task {
    /// The task's id, unique in the process and never used again.
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// Whether it was parked for that a moment ago.
    pub(super) fn waits_for(&self, kind: WaitKind) -> bool {
        let word = self.0.cell().state.snapshot();
        word.id() == self.id() && word.life() == Life::Parked && self.0.cell().wait().kind == kind
    }

    /// Requests cancellation, which stays requested until the task ends; says what it found. It does not wait for the
    /// task's end: [`JoinHandle::join`] does.
    ///
    /// One pending or later I/O call of the task returns an error ([`CancelledError`](crate::CancelledError) inside
    /// an [`io::Error`](std::io::Error) of kind `Other`); from then on every wait unwinds, silently: no panic hook
    /// runs. Waits under [`shield`](crate::shield), and unwinding while a write guard is held, are deferred.
    pub fn cancel(&self) -> CancelOutcome {
        self.request(false)
    }

    /// As [`cancel`](Task::cancel), and unwinds even while a write guard is held: the lock is then poisoned, as std
    /// does when a holder panics.
    pub fn cancel_now(&self) -> CancelOutcome {
        self.request(true)
    }

    fn request(&self, now: bool) -> CancelOutcome {
        let (found, wake) = self.0.cell().state.cancel(self.0.id(), now);
        super::wake::queue_if(self.0, wake);
        match found {
            Cancel::Gone => CancelOutcome::Ended,
            Cancel::Unstarted => CancelOutcome::NeverStarts,
            Cancel::Started => CancelOutcome::Requested,
            Cancel::Again => CancelOutcome::AlreadyRequested,
        }
    }

    /// Ends the task's [`park`](crate::park), or makes its next one return at once. Whether the task was still there.
    pub fn unpark(&self) -> bool {
        let r = self.0.cell().state.user_unpark(self.0.id());
        super::wake::queue_if(self.0, r);
        r != Unpark::Gone
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        let w = self.0.cell().state.snapshot();
        w.id() != self.0.id() || w.life() == crate::task::state::Life::Done
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task(#{})", self.id())
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.id())
    }
}

/// The task that was seen in that cell with that id; it may have ended meanwhile.
pub(crate) fn task_in(cell: &'static TaskCell, id: u64) -> Task {
    Task(cell.reference(id))
}

/// The running task; `None` on a plain thread.
pub fn current() -> Option<Task> {
    here().map(|h| Task(h.task()))
}

/// The running task's name, if it has one.
pub fn current_name() -> Option<String> {
    // SAFETY: the task runs, so its worker owns the cell.
    here().and_then(|h| unsafe { h.cell.name() }.map(str::to_owned))
}

/// As [`current_name`], without a copy.
pub(crate) fn current_label() -> Option<Arc<str>> {
    // SAFETY: the task runs, so its worker owns the cell; the label stays until the cell is freed.
    here().and_then(|h| unsafe { h.cell.label() }.and_then(|l| l.name.clone()))
}

/// The worker that runs the calling task, counted from 0 within its runtime; `None` on a plain thread.
pub fn current_worker() -> Option<usize> {
    here().and_then(|h| {
        let mine = h.cell.owner.load(Ordering::Relaxed);
        h.worker.runtime.workers().iter().position(|w| w.index == mine)
    })
}
