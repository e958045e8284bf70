//! Locks on files, as of std 1.89: [`File::lock`] and its like.
//!
//! The system's `flock`: a lock belongs to the open file, which clones share, and ends when the last of them is closed.
//!
//! Invariants: no thread can be called back from a wait for a lock, so the wait of a task that has left goes on. At most one
//! such thread per open file: who comes later waits for the same one. A lock that comes when nobody wants it any more is given
//! back, unless the program took one meanwhile (`kept`), which is the same lock to the system.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::File;
use crate::blocking::{call_on_file, wait_on_file};
use crate::observe::FileCall;
use crate::scheduler::suspend::{current_unparker, here};
use crate::scheduler::unpark;
use crate::sys::file::{Locking, flock};
use crate::task::Unparker;

/// Why [`File::try_lock`] and [`File::try_lock_shared`] have not locked; as std's of 1.89.
pub enum TryLockError {
    /// Something is wrong.
    Error(io::Error),
    /// Somebody else has a lock that excludes this one.
    WouldBlock,
}

impl fmt::Debug for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::Error(e) => e.fmt(f),
            TryLockError::WouldBlock => f.write_str("WouldBlock"),
        }
    }
}

impl fmt::Display for TryLockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TryLockError::Error(e) => write!(f, "the file cannot be locked: {e}"),
            TryLockError::WouldBlock => f.write_str("the file is locked by somebody else"),
        }
    }
}

impl Error for TryLockError {}

impl From<TryLockError> for io::Error {
    fn from(e: TryLockError) -> io::Error {
        match e {
            TryLockError::Error(e) => e,
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        }
    }
}

/// What is known of the locks of one open file; shared by its clones.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Calls that wait for a lock.
    inside: usize,
    /// The program has one, as far as is known.
    kept: bool,
    /// A job of the pool that is to lock, or waits for the system.
    pending: Option<Arc<Pending>>,
}

#[derive(Debug)]
struct Pending {
    mode: Locking,
    ended: Mutex<Ended>,
}

#[derive(Debug, Default)]
struct Ended {
    outcome: Option<Outcome>,
    /// Who waits beside the task that has begun it, by number.
    waiting: Vec<(u64, Unparker)>,
    next: u64,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Locked,
    /// With the system's error.
    Failed(i32),
    /// No thread has begun it.
    NotRun,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that waits for a lock.
struct Inside<'a>(&'a File);

impl<'a> Inside<'a> {
    fn enter(file: &'a File) -> Inside<'a> {
        lock(&file.locks.0).inside += 1;
        Inside(file)
    }

    /// It has the lock.
    fn keep(self) {
        lock(&self.0.locks.0).kept = true;
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.locks.0);
        state.inside -= 1;
        state.give_back_unwanted(&self.0.inner);
    }
}

impl State {
    /// A lock that has come, or may have, and that nobody wants.
    fn give_back_unwanted(&self, file: &fs::File) {
        if self.inside == 0 && self.pending.is_none() && !self.kept {
            // Of a lock that there is not, too: that does nothing.
            let _ = flock(file.as_raw_fd(), Locking::Unlock, false);
        }
    }
}

/// The job of the pool. Dropped when it has run, or never will.
struct Job {
    file: Arc<fs::File>,
    locks: Arc<Locks>,
    pending: Arc<Pending>,
    outcome: Outcome,
}

impl Job {
    fn run(mut self) -> io::Result<()> {
        let locked = flock(self.file.as_raw_fd(), self.pending.mode, true).map(drop);
        self.outcome = match &locked {
            Ok(()) => Outcome::Locked,
            Err(e) => Outcome::Failed(e.raw_os_error().unwrap_or(libc::EIO)),
        };
        locked
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let waiting = {
            let mut state = lock(&self.locks.0);
            state.pending = None;
            state.give_back_unwanted(&self.file);
            let mut ended = lock(&self.pending.ended);
            ended.outcome = Some(self.outcome);
            std::mem::take(&mut ended.waiting)
        };
        waiting.iter().for_each(|(_, who)| unpark(who));
    }
}

impl Pending {
    fn outcome(&self) -> Option<Outcome> {
        lock(&self.ended).outcome
    }

    /// Waits for the end of the job, of which another call waits for the result, or nobody.
    fn wait(&self, name: &Arc<str>) -> io::Result<Outcome> {
        /// Nobody must be woken who does not wait.
        struct Place<'a>(&'a Pending, u64);

        impl Drop for Place<'_> {
            fn drop(&mut self) {
                lock(&self.0.ended).waiting.retain(|(n, _)| *n != self.1);
            }
        }

        let place = {
            let mut ended = lock(&self.ended);
            ended.next += 1;
            let number = ended.next;
            ended.waiting.push((number, current_unparker()));
            Place(self, number)
        };
        wait_on_file(FileCall::Lock, name, || self.outcome().is_some())?;
        drop(place);
        Ok(self.outcome().unwrap_or(Outcome::NotRun))
    }
}

impl File {
    /// Locks the file against every other lock on it, of other processes and of other openings in this one; waits until that is
    /// possible: `file lock "/var/lib/app/pid"`.
    ///
    /// Whoever does not ask for locks is not kept from reading and writing. If this file, or a clone of it, has a lock
    /// already, what happens is not said, as by std.
    ///
    /// # Errors
    /// Of the system; those of [`blocking`](crate::blocking()).
    ///
    /// # Cancellation
    /// An I/O call: an interrupt is returned once as an error, then it unwinds. A thread of the pool goes on waiting for the
    /// lock, and gives it back when it comes; calls for this file meanwhile wait for the same one, so that it stays one thread.
    ///
    /// # Examples
    /// ```
    /// use coro::fs::{self, File, TryLockError};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let path = std::env::temp_dir().join(format!("coro-lock-{}", std::process::id()));
    /// coro::run(|| {
    ///     let file = File::create(&path)?;
    ///     file.lock()?;
    ///     let other = File::open(&path)?;
    ///     assert!(matches!(other.try_lock_shared(), Err(TryLockError::WouldBlock)));
    ///     file.unlock()?;
    ///     other.lock_shared()?;
    ///     fs::remove_file(&path)
    /// })
    /// # }
    /// ```
    #[track_caller]
    pub fn lock(&self) -> io::Result<()> {
        self.lock_as(Locking::Exclusive)
    }

    /// As [`lock`](File::lock), beside others that are shared.
    ///
    /// # Errors
    /// As of [`lock`](File::lock).
    ///
    /// # Cancellation
    /// As of [`lock`](File::lock).
    #[track_caller]
    pub fn lock_shared(&self) -> io::Result<()> {
        self.lock_as(Locking::Shared)
    }

    /// As [`lock`](File::lock), if that is possible at once. Asked on the worker: on a file system of the network that is a
    /// question to its server.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody else has a lock.
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        self.try_lock_as(Locking::Exclusive)
    }

    /// As [`try_lock`](File::try_lock), beside others that are shared.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody else has a lock that is not shared.
    pub fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.try_lock_as(Locking::Shared)
    }

    /// Gives the lock back. Asked on the worker, as [`try_lock`](File::try_lock) is.
    ///
    /// # Errors
    /// Of the system.
    pub fn unlock(&self) -> io::Result<()> {
        let mut state = lock(&self.locks.0);
        state.kept = false;
        flock(self.inner.as_raw_fd(), Locking::Unlock, false).map(drop)
    }

    fn try_lock_as(&self, mode: Locking) -> Result<(), TryLockError> {
        let mut state = lock(&self.locks.0);
        match flock(self.inner.as_raw_fd(), mode, false) {
            Ok(true) => state.kept = true,
            Ok(false) => return Err(TryLockError::WouldBlock),
            Err(e) => return Err(TryLockError::Error(e)),
        }
        Ok(())
    }

    #[track_caller]
    fn lock_as(&self, mode: Locking) -> io::Result<()> {
        let inside = Inside::enter(self);
        if here().is_none() {
            flock(self.inner.as_raw_fd(), mode, true)?;
            inside.keep();
            return Ok(());
        }
        loop {
            let begun = {
                let mut state = lock(&self.locks.0);
                match &state.pending {
                    Some(pending) => Err(pending.clone()),
                    None => {
                        let pending = Arc::new(Pending { mode, ended: Mutex::default() });
                        state.pending = Some(pending.clone());
                        let (file, locks) = (self.inner.clone(), self.locks.clone());
                        Ok(Job { file, locks, pending, outcome: Outcome::NotRun })
                    }
                }
            };
            match begun {
                Ok(job) => call_on_file(FileCall::Lock, &self.name, move || job.run())?,
                Err(pending) => match pending.wait(&self.name)? {
                    Outcome::Locked if pending.mode == mode => {}
                    Outcome::Failed(e) if pending.mode == mode => return Err(io::Error::from_raw_os_error(e)),
                    // Another kind of lock, or none: one of our own.
                    _ => continue,
                },
            }
            inside.keep();
            return Ok(());
        }
    }
}
