//! What the user sets on a socket and the kernel cannot do for us, because the descriptor is always non-blocking
//! underneath: time limits, non-blocking mode, the refusal of a second waiter.
//!
//! Invariants: all handles of one open file description that were made by `try_clone` share one [`Options`], as they
//! share the kernel's. A socket on which nothing was ever set has none.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::reactor::Direction;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Nanoseconds per direction, 0: no limit.
    limits: [AtomicU64; 2],
    nonblocking: AtomicBool,
    /// A handle left for std's type while others stayed: whoever goes last puts the descriptor into blocking mode.
    given_away: AtomicBool,
    deny_simultaneous: AtomicBool,
    /// Who waits in each direction; kept only while a second waiter is refused.
    waiting: Mutex<[Option<Who>; 2]>,
}

impl Options {
    pub(crate) fn limit(&self, d: Direction) -> Option<Duration> {
        let ns = self.limits[d as usize].load(Ordering::Relaxed);
        (ns > 0).then(|| Duration::from_nanos(ns))
    }

    /// `None` and zero: no limit. More than 584 years count as that.
    pub(crate) fn set_limit(&self, d: Direction, limit: Option<Duration>) {
        let ns = limit.map_or(0, |l| u64::try_from(l.as_nanos()).unwrap_or(u64::MAX));
        self.limits[d as usize].store(ns, Ordering::Relaxed);
    }

    /// When a wait that begins now is to end.
    pub(super) fn deadline(&self, d: Direction) -> Option<Instant> {
        self.limit(d).and_then(|l| Instant::now().checked_add(l))
    }

    pub(crate) fn nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
    }

    pub(crate) fn set_nonblocking(&self, on: bool) {
        self.nonblocking.store(on, Ordering::Relaxed);
    }

    pub(crate) fn given_away(&self) -> bool {
        self.given_away.load(Ordering::Relaxed)
    }

    pub(crate) fn set_given_away(&self) {
        self.given_away.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_deny_simultaneous(&self, on: bool) {
        self.deny_simultaneous.store(on, Ordering::Relaxed);
    }

    /// Notes that the caller is about to wait, or refuses because somebody else does.
    pub(super) fn enter(&self, fd: RawFd, d: Direction) -> io::Result<Option<Entered<'_>>> {
        if !self.deny_simultaneous.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let me = Who::current();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut waiting[d as usize];
        if let Some(first) = place {
            let e = SimultaneousError { fd, write: d == Direction::Write, refused: me, waiting: first.clone() };
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, e));
        }
        *place = Some(me);
        Ok(Some(Entered { options: self, direction: d }))
    }
}

/// The caller is noted as the one that waits.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    options: &'a Options,
    direction: Direction,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut waiting = self.options.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting[self.direction as usize] = None;
    }
}

/// A task (or, with id 0, a plain thread) and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Who {
    id: u64,
    name: Option<Box<str>>,
}

impl Who {
    fn current() -> Who {
        match super::current() {
            Some(task) => Who { id: task.id(), name: super::current_name().map(Into::into) },
            None => Who { id: 0, name: std::thread::current().name().map(Into::into) },
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            0 => f.write_str("thread")?,
            id => write!(f, "task #{id}")?,
        }
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " \"{}\"", name.escape_debug()))
    }
}

/// A second task was about to wait for the same direction of a socket that allows one at a time.
///
/// Found inside an [`io::Error`] of kind `ResourceBusy`, after `set_deny_simultaneous(true)` on a socket of
/// [`coro::net`](crate::net).
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// let runtime = coro::Runtime::builder().workers(1).build().unwrap();
/// runtime.block_on(|| {
///     let listener = Arc::new(coro::net::TcpListener::bind("127.0.0.1:0").unwrap());
///     listener.set_deny_simultaneous(true);
///     let shared = listener.clone();
///     let first = coro::spawn_named("first", move || shared.accept().map(drop));
///     coro::yield_slice(); // Now it waits.
///     let e = listener.accept().unwrap_err();
///     assert!(e.get_ref().unwrap().is::<coro::SimultaneousError>());
///     assert!(e.to_string().contains("\"first\" already does"));
///     first.cancel();
/// });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimultaneousError {
    fd: RawFd,
    write: bool,
    refused: Who,
    waiting: Who,
}

impl SimultaneousError {
    /// The id of the task that was refused; 0 for a plain thread.
    pub fn refused_id(&self) -> u64 {
        self.refused.id
    }

    /// The name of the task (or thread) that was refused.
    pub fn refused_name(&self) -> Option<&str> {
        self.refused.name.as_deref()
    }

    /// The id of the task that waits already; 0 for a plain thread.
    pub fn waiting_id(&self) -> u64 {
        self.waiting.id
    }

    /// The name of the task (or thread) that waits already.
    pub fn waiting_name(&self) -> Option<&str> {
        self.waiting.name.as_deref()
    }

    /// Whether both wait for room to write; otherwise for something to read or accept.
    pub fn is_write(&self) -> bool {
        self.write
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.fd
    }
}

impl fmt::Display for SimultaneousError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.write { "write" } else { "read" };
        write!(f, "{} may not wait to {verb} fd {}: {} already does", self.refused, self.fd, self.waiting)
    }
}

impl Error for SimultaneousError {}
