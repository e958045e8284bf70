//! Calls that block their thread, on threads that are there for it, while the task that asked is parked.
//!
//! Invariants: no thread exists before the first job; a job owns all it uses, so it may outlive the task that asked for
//! it; threads of the pool keep no process alive. Must not know what the jobs do: name lookups and files stand above.

#![forbid(unsafe_code)]

mod in_order;
mod job;
mod pool;
#[cfg(all(test, not(miri)))]
mod tests;

use std::fmt;
use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use in_order::{Line, Turn};
pub(crate) use pool::job_of;
pub use pool::{BlockingJob, BlockingStats};

use crate::observe::{FileCall, WaitKind, WaitReason};
use crate::scheduler::in_these_scopes;
use crate::scheduler::suspend::{self, here, set_wait_extra};
use pool::{Pool, Ticket};

/// The one of this process. Ten seconds: a thread costs some 20 µs to start, so being a little early or late matters to
/// nobody, and a burst every few seconds still finds its threads.
static POOL: Pool = Pool::new("coro-blocking", Duration::from_secs(10));

/// Runs `f` on a thread of its own kind while the task waits, for calls that would block the worker: files, a C
/// library, a long computation.
///
/// The threads are shared by the process, start when they are needed, at most as many as [`set_blocking_threads`] says,
/// and end when there has been nothing to do for ten seconds. Jobs beyond that number wait their turn. A thread that the
/// system refuses does no harm as long as there is another one: the job waits for it.
///
/// Inside `f` there is no task: `coro`'s locks, channels and sockets block the thread there as on any plain thread, and
/// `blocking` itself just calls its closure, as it does on every plain thread.
///
/// # Errors
/// If not a single thread can be had (the message says what to raise; the kind is the system's, `QuotaExceeded` where
/// that would be `WouldBlock`); if `CORO_BLOCKING_THREADS` is malformed. (A forked child is a plain thread, and calls `f`
/// itself.)
///
/// # Panics
/// With the payload of `f`'s own panic; inside [`no_switch`](crate::no_switch).
///
/// # Cancellation
/// A wait like any other: it unwinds if the task is cancelled or a [`timeout`](crate::timeout) around it expires. A job
/// that runs already goes on to its end, as nothing can stop a thread, and its result is dropped there; one that has
/// not begun never does, and its closure is dropped.
///
/// # Examples
/// ```
/// # fn main() -> std::io::Result<()> {
/// coro::run(|| {
///     let manifest = coro::blocking(|| std::fs::read_to_string("Cargo.toml"))??;
///     assert!(manifest.contains("[package]"));
///     Ok(())
/// })
/// # }
/// ```
#[track_caller]
pub fn blocking<F, T>(f: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    wait_in(&POOL, Location::caller(), f)
}

fn wait_in<F, T>(pool: &'static Pool, site: &'static Location<'static>, f: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let Some(h) = here() else { return Ok(f()) };
    // Before the job is on its way: nothing is begun for a task that is to end, or may not wait.
    h.refuse_if_no_switch();
    h.checkpoint_wait();
    let ticket = pool.submit(site, None, in_these_scopes(f))?;
    while !ticket.finished() {
        suspend::wait(WaitReason::of(WaitKind::Blocking));
    }
    ticket.take()
}

/// As [`blocking`], for an I/O call: an interrupt of the task is an error first; `None` if `deadline` came before the
/// end of the job, which is given up then. On a plain thread there is no limit.
#[track_caller]
pub(crate) fn call<F, T>(reason: WaitReason, deadline: Option<Instant>, f: F) -> io::Result<Option<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let Some(h) = here() else { return Ok(Some(f())) };
    h.refuse_if_no_switch();
    h.checkpoint_io()?;
    let ticket = POOL.submit(Location::caller(), None, f)?;
    if !suspend::wait_for_io(reason, deadline, || ticket.finished())? {
        return Ok(None);
    }
    ticket.take().map(Some)
}

/// As [`call`], without a limit of time, for a call on the file with that path, which views name.
#[track_caller]
pub(crate) fn call_on_file<F, T>(call: FileCall, path: &Arc<str>, f: F) -> io::Result<T>
where
    F: FnOnce() -> io::Result<T> + Send + 'static,
    T: Send + 'static,
{
    let Some(h) = here() else { return f() };
    h.refuse_if_no_switch();
    h.checkpoint_io()?;
    let ticket = POOL.submit(Location::caller(), Some((call, path.clone())), f)?;
    wait_on_file(call, path, || ticket.finished())?;
    ticket.take()?
}

/// As [`call_on_file`], after every turn before that one, which is over when `f` is.
#[track_caller]
pub(crate) fn call_in_turn<F, T>(call: FileCall, path: &Arc<str>, turn: Turn, f: F) -> io::Result<T>
where
    F: FnOnce() -> io::Result<T> + Send + 'static,
    T: Send + 'static,
{
    wait_for_turn(call, path, &turn)?;
    call_on_file(call, path, move || {
        let _turn = turn;
        f()
    })
}

/// Waits until every turn before that one is over: a task parks, and has nothing to do with the pool yet.
pub(crate) fn wait_for_turn(call: FileCall, path: &Arc<str>, turn: &Turn) -> io::Result<()> {
    let Some(h) = here() else {
        turn.wait();
        return Ok(());
    };
    h.refuse_if_no_switch();
    h.checkpoint_io()?;
    turn.park(|over| wait_on_file(call, path, over))
}

/// A job that may last longer than the call that has begun it.
pub(crate) struct Begun<T>(Ticket<BoxedJob<T>, T>);

type BoxedJob<T> = Box<dyn FnOnce() -> T + Send>;

/// Begins a job, for a file if that is said. Looks at no interrupt.
#[track_caller]
pub(crate) fn begin<T>(
    file: Option<(FileCall, Arc<str>)>,
    f: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Begun<T>>
where
    T: Send + 'static,
{
    POOL.submit(Location::caller(), file, Box::new(f) as BoxedJob<T>).map(Begun)
}

impl<T> fmt::Debug for Begun<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").finish_non_exhaustive()
    }
}

impl<T> Begun<T> {
    /// Waits for its end, an I/O call of whoever calls.
    pub(crate) fn wait(&self, reason: WaitReason) -> io::Result<()> {
        self.0.wait_here();
        suspend::wait_for_io(reason, None, || self.0.finished()).map(drop)
    }

    /// What it returned; only after [`wait`](Begun::wait) has.
    pub(crate) fn take(self) -> io::Result<T> {
        self.0.take()
    }

    /// It is to go on to its end.
    pub(crate) fn leave_alone(self) {
        self.0.leave_alone();
    }
}

/// The wait of [`call_on_file`], for whoever waits for a job that another task has begun.
pub(crate) fn wait_on_file(call: FileCall, path: &Arc<str>, done: impl FnMut() -> bool) -> io::Result<()> {
    let text: &str = path;
    set_wait_extra(call as u64);
    suspend::wait_for_io(WaitReason::text(WaitKind::File, &text), None, done).map(drop)
}

/// Sets how many threads [`blocking`] may use, at least 1; returns the old number.
///
/// The default is 512, or `CORO_BLOCKING_THREADS`. If there are more than that now, they leave as their jobs end.
///
/// # Examples
/// ```
/// let old = coro::set_blocking_threads(16);
/// assert_eq!(coro::set_blocking_threads(old), 16);
/// ```
pub fn set_blocking_threads(limit: usize) -> usize {
    POOL.set_limit(limit)
}

/// What the threads of [`blocking`] are doing.
///
/// # Examples
/// ```
/// for job in coro::blocking_stats().running {
///     println!("{:?} for task {} at {}", job.age, job.task, job.site);
/// }
/// ```
pub fn blocking_stats() -> BlockingStats {
    POOL.stats()
}
