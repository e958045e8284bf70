//! The last panic of each task of this thread, caught or not.
//!
//! Invariants: bounded per thread; a task stays on its thread, so its panics do, but for those of jobs that other threads do
//! for it, which are kept for all together. Must not know: who saw them.

#![forbid(unsafe_code)]

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Captured;
use crate::inspect::{self, Frame};

/// Tasks of one thread whose last panic is kept.
const KEPT: usize = 16;

/// What a payload looked like: the hook sees it before it has its final address. A panic that was caught must not lend
/// its place to another unwind of the same task, which no hook saw (`resume_unwind`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Likeness {
    /// The text, or where there is none the type.
    text: Option<String>,
    kind: TypeId,
}

impl Likeness {
    pub(crate) fn of(payload: &(dyn Any + Send)) -> Likeness {
        let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| payload.downcast_ref().cloned());
        // What a text is kept in differs between the hook and the unwind.
        let kind = if text.is_none() { payload.type_id() } else { TypeId::of::<str>() };
        Likeness { text, kind }
    }
}

/// What the hook saw of a panic.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) task: u64,
    pub(crate) payload: Likeness,
    pub(crate) message: String,
    pub(crate) location: String,
    pub(crate) captured: Arc<Captured>,
    /// It has been told to stderr.
    pub(crate) told: bool,
    at: Instant,
}

impl Seen {
    pub(crate) fn new(task: u64, payload: &(dyn Any + Send), location: String, captured: Captured) -> Seen {
        let payload_like = Likeness::of(payload);
        let message = crate::scheduler::runtime::payload_text(payload).to_owned();
        Seen {
            task,
            payload: payload_like,
            message,
            location,
            captured: Arc::new(captured),
            told: false,
            at: Instant::now(),
        }
    }
}

thread_local! {
    static SEEN: RefCell<VecDeque<Seen>> = const { RefCell::new(VecDeque::new()) };
}

/// Jobs whose panic is kept until their task has it.
const KEPT_OF_JOBS: usize = 64;

static OF_JOBS: Mutex<VecDeque<Seen>> = Mutex::new(VecDeque::new());

fn of_jobs() -> MutexGuard<'static, VecDeque<Seen>> {
    OF_JOBS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `job`: it happened on another thread, which works for the task.
pub(crate) fn remember(seen: Seen, job: bool) {
    if job {
        let mut all = of_jobs();
        let old = if all.len() == KEPT_OF_JOBS { all.pop_front() } else { None };
        all.push_back(seen);
        drop(all);
        return drop(old);
    }
    let old = SEEN.try_with(|s| {
        let mut s = s.try_borrow_mut().ok()?;
        let old = s.iter().position(|o| o.task == seen.task).and_then(|i| s.remove(i));
        let old = old.or_else(|| if s.len() == KEPT { s.pop_front() } else { None });
        s.push_back(seen);
        old
    });
    drop(old);
}

/// The last panic of that task if it looked like that.
pub(crate) fn take_seen(task: u64, payload: &(dyn Any + Send)) -> Option<Seen> {
    let like = Likeness::of(payload);
    SEEN.try_with(|s| {
        let mut s = s.try_borrow_mut().ok()?;
        let i = s.iter().position(|o| o.task == task)?;
        s.remove(i).filter(|o| o.payload == like)
    })
    .ok()
    .flatten()
    .or_else(|| {
        let mut all = of_jobs();
        let i = all.iter().rposition(|o| o.task == task && o.payload == like)?;
        all.remove(i)
    })
}

/// A panic of the running task or thread with its whole stack; see [`traceback`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Traceback {
    /// What it panicked with, if that is text; otherwise words that say so.
    pub message: String,
    /// `file:line:column` of the panic.
    pub location: String,
    /// The stack at the panic: also of the calls outside of the place where it was caught.
    pub stack: Arc<Captured>,
}

impl Traceback {
    /// The innermost call of the program's own.
    pub fn innermost(&self) -> Option<Frame> {
        self.stack.frames().into_iter().next()
    }
}

impl fmt::Display for Traceback {
    /// `panic "no such row" at src/db.rs:31:5 [src/db.rs fetch|31] [src/main.rs serve|12]`; with `{:#}` one line a call.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panic {:?} at {}", self.message, inspect::OneLine(&self.location))?;
        if f.alternate() { write!(f, "\n{:#}", self.stack) } else { write!(f, " {}", self.stack) }
    }
}

/// The last panic of the running task: for who has caught one and wants to know where it came from. Calls from the place
/// of the panic to the task's base are all there, those outside of the `catch_unwind` as well.
///
/// `None` if the task did not panic, outside of tasks, and when a program's own panic hook has taken the place of the
/// runtime's. Sixteen tasks of each worker have their last panic kept.
///
/// # Examples
/// ```
/// coro::run(|| {
///     std::panic::catch_unwind(|| panic!("half-way")).unwrap_err();
///     let last = coro::tb::traceback().unwrap();
///     assert_eq!(last.message, "half-way");
/// });
/// ```
pub fn traceback() -> Option<Traceback> {
    let id = crate::scheduler::suspend::here()?.id();
    let own = SEEN.try_with(|s| s.try_borrow().ok()?.iter().find(|o| o.task == id).cloned()).ok().flatten();
    let job = of_jobs().iter().rfind(|o| o.task == id).cloned();
    let seen = own.into_iter().chain(job).max_by_key(|seen| seen.at)?;
    Some(Traceback { message: seen.message, location: seen.location, stack: seen.captured })
}

/// [`traceback`] as text, one line; empty if there is none.
#[doc(alias = "exc_info")]
pub fn traceback_string() -> String {
    traceback().map(|t| t.to_string()).unwrap_or_default()
}
