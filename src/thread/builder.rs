//! Spawning with std's words: [`spawn`], [`Builder`], [`JoinHandle`].
//!
//! The unsafe code here is [`Builder::spawn_unchecked`], and the promise that a handle may change threads.

use std::fmt;
use std::io;
use std::panic::Location;
use std::sync::Arc;

use super::{Result, Scope, ScopedJoinHandle, Thread};
use crate::scheduler::{self, CancelOutcome, Task, spawn_borrowing};

/// Settings of a task to be spawned, with std's names. [`coro::Builder`](crate::Builder) has more of them.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until one of its spawn methods is called"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
}

impl Builder {
    /// No name, and the default stack size.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the task, in [`Thread::name`] and in every view. It may not contain a NUL character: spawning panics.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// Usable stack in bytes, rounded up to a size class (`coro::Builder` says which). The default is that of all
    /// tasks, 192 KiB or `CORO_STACK_KB`; std's is 2 MiB.
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// Spawns the task on the running task's runtime, on a plain thread on the process-wide one.
    ///
    /// # Errors
    /// No room for another stack or task, a stack size above the maximum, or a runtime that cannot start. The message
    /// says what to change.
    ///
    /// # Panics
    /// If the name contains a NUL character.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: nothing is borrowed.
        unsafe { self.spawn_unchecked(f) }
    }

    /// As [`spawn`](Builder::spawn), for a closure that may borrow.
    ///
    /// # Safety
    /// Everything that the closure and its result borrow must live until the task has ended, which its join or
    /// [`JoinHandle::is_finished`] tells, and its result was taken or dropped.
    ///
    /// # Errors
    /// As [`spawn`](Builder::spawn).
    ///
    /// # Panics
    /// As [`spawn`](Builder::spawn).
    #[track_caller]
    pub unsafe fn spawn_unchecked<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        let (builder, name) = self.checked();
        // SAFETY: forwarded.
        let handle = unsafe { spawn_borrowing(&builder, Location::caller(), f)? };
        let thread = Thread::of_task(handle.task(), name);
        Ok(JoinHandle { handle, thread })
    }

    /// Spawns a child of `scope`, which may borrow what outlives the scope.
    ///
    /// # Errors
    /// As [`spawn`](Builder::spawn).
    ///
    /// # Panics
    /// As [`spawn`](Builder::spawn).
    #[track_caller]
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let (builder, name) = self.checked();
        scope.spawn_with(&builder, name, Location::caller(), f)
    }

    /// The scheduler's form of it, and the name for handles.
    #[track_caller]
    fn checked(self) -> (scheduler::Builder, Option<Arc<str>>) {
        let mut builder = scheduler::Builder::new();
        // std gives the smallest stack there is to whoever asks for none.
        if let Some(size) = self.stack_size {
            builder = builder.stack_size(size.max(1));
        }
        let Some(name) = self.name else { return (builder, None) };
        assert!(!name.contains('\0'), "thread name may not contain interior null bytes");
        let shared = Arc::from(name.as_str());
        (builder.name(name), Some(shared))
    }
}

/// Spawns a task; see [`coro::spawn`](crate::spawn), from which it differs in the type of the handle.
///
/// # Panics
/// If there is no room for another task or stack. Use [`Builder::spawn`] for an error instead.
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Builder::new().spawn(f) {
        Ok(handle) => handle,
        Err(e) => panic!("failed to spawn thread: {e}"),
    }
}

/// Waits for a task's result. Dropping it detaches the task.
pub struct JoinHandle<T> {
    handle: scheduler::JoinHandle<T>,
    thread: Thread,
}

// SAFETY: a handle is made only by `Builder::spawn_unchecked`, which demands that the result may be sent.
unsafe impl<T> Send for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// Who the task is.
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Waits until the task has ended.
    ///
    /// # Errors
    /// The payload of its panic, or of its cancellation ([`is_cancel`](crate::is_cancel) tells).
    ///
    /// # Cancellation
    /// If the *caller* is cancelled, the wait unwinds and the task goes on, detached.
    pub fn join(self) -> Result<T> {
        self.handle.join()
    }

    /// Whether the task has ended; then [`join`](JoinHandle::join) returns at once.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// The task by reference.
    pub fn task(&self) -> Task {
        self.handle.task()
    }

    /// Requests cancellation; see [`Task::cancel`].
    pub fn cancel(&self) -> CancelOutcome {
        self.handle.cancel()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("thread", &self.thread).finish_non_exhaustive()
    }
}
