//! Who a thread is: [`Thread`] and [`ThreadId`].

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use crate::scheduler::suspend::here;
use crate::scheduler::{Task, current_label};

/// A task, or a plain thread, by identity and name. Cheap to clone; keeps nothing alive.
#[derive(Clone)]
pub struct Thread(Who);

#[derive(Clone)]
enum Who {
    Task { task: Task, name: Option<Arc<str>> },
    Os(std::thread::Thread),
}

impl Thread {
    pub(super) fn of_task(task: Task, name: Option<Arc<str>>) -> Thread {
        Thread(Who::Task { task, name })
    }

    /// Ends the thread's [`park`](super::park), or makes its next one return at once. Several calls before that are
    /// one; on a thread that has ended it does nothing.
    pub fn unpark(&self) {
        match &self.0 {
            Who::Task { task, .. } => {
                // Whether it was still there is nobody's business here.
                let _ = task.unpark();
            }
            Who::Os(thread) => thread.unpark(),
        }
    }

    /// Its id, which no other task and no other thread of the process ever has.
    pub fn id(&self) -> ThreadId {
        ThreadId(match &self.0 {
            Who::Task { task, .. } => Id::Task(task.id()),
            Who::Os(thread) => Id::Os(thread.id()),
        })
    }

    /// The name given at its spawn; the first task of [`run`](crate::run) is `main`.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Who::Task { name, .. } => name.as_deref(),
            Who::Os(thread) => thread.name(),
        }
    }

    /// The task that it is; `None` for a plain thread.
    pub fn task(&self) -> Option<Task> {
        match &self.0 {
            Who::Task { task, .. } => Some(*task),
            Who::Os(_) => None,
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("id", &self.id()).field("name", &self.name()).finish_non_exhaustive()
    }
}

/// Tells a task or thread from every other one that the process has or had.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ThreadId(Id);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Id {
    Task(u64),
    Os(std::thread::ThreadId),
}

impl fmt::Debug for ThreadId {
    /// A task's id has a `#`: `ThreadId(#17)`; a plain thread's is std's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Id::Task(id) => write!(f, "ThreadId(#{id})"),
            Id::Os(id) => id.fmt(f),
        }
    }
}

/// The running task; on a plain thread, that thread.
///
/// # Examples
/// ```
/// let outside = coro::thread::current().id();
/// coro::run(|| assert_ne!(coro::thread::current().id(), outside));
/// ```
pub fn current() -> Thread {
    match here() {
        Some(_) => {
            let task = crate::scheduler::current().expect("a task runs here");
            Thread::of_task(task, current_label())
        }
        None => Thread(Who::Os(std::thread::current())),
    }
}
