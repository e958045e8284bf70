//! A condition variable for tasks and threads, with std's surface.
//!
//! The waiting line is `raw_condvar.rs`; here are the results that std's callers expect.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::{LockResult, PoisonError};
use std::time::{Duration, Instant};

use super::const_new::const_unless_modelled;
use super::mutex::MutexGuard;
use super::raw_condvar::{RawCondvar, Woken};

/// A condition variable with [`std::sync::Condvar`]'s surface whose waiters are tasks (or threads).
///
/// Waiters are notified in the order in which they began to wait. One that is cancelled, or whose time is up, just as it
/// is notified acts on the notification or passes it to the next one. Waits for different mutexes may be mixed. As with
/// std, a wait may end for no reason; [`wait_while`](Condvar::wait_while) asks again by itself.
///
/// # Examples
/// ```
/// use coro::sync::{Condvar, Mutex};
/// use std::sync::Arc;
///
/// coro::run(|| {
///     let pair = Arc::new((Mutex::new(false), Condvar::new().named("ready")));
///     let theirs = pair.clone();
///     coro::spawn(move || {
///         *theirs.0.lock().unwrap() = true;
///         theirs.1.notify_one();
///     });
///     let ready = pair.1.wait_while(pair.0.lock().unwrap(), |ready| !*ready).unwrap();
///     assert!(*ready);
/// });
/// ```
///
/// # Cancellation
/// Every wait unwinds if the task is cancelled or a [`timeout`](crate::timeout) expires, even though its caller held
/// the mutex: that one was given up for the wait. It is taken again before the unwinding begins and given up by it. The
/// unwinding does not poison the mutex, and neither does that of [`cancel_now`](crate::Task::cancel_now). While the task
/// holds *another* write guard, an interrupt is held back as in every wait.
pub struct Condvar {
    pub(super) raw: RawCondvar,
}

/// Whether a wait with a time limit ended by that.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(super) fn new(woken: Woken) -> WaitTimeoutResult {
        WaitTimeoutResult(woken == Woken::TimedOut)
    }

    /// True if the time was up, and no notification had come.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// The end of a time limit; `None` if that lies beyond all clocks.
pub(super) fn deadline(limit: Duration) -> Option<Instant> {
    Instant::now().checked_add(limit)
}

/// `wait` until the condition is false or the time is up; what `wait` gives as an error ends it as well.
pub(super) fn wait_while_until<G, E>(
    mut guard: G,
    end: Option<Instant>,
    mut condition: impl FnMut(&mut G) -> bool,
    mut wait: impl FnMut(G) -> Result<G, E>,
) -> Result<(G, WaitTimeoutResult), E> {
    while condition(&mut guard) {
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok((guard, WaitTimeoutResult(true)));
        }
        guard = wait(guard)?;
    }
    Ok((guard, WaitTimeoutResult(false)))
}

impl Condvar {
    const_unless_modelled! {
        /// A condition variable that nobody waits for.
        #[must_use]
        #[track_caller]
        pub fn new() -> Condvar {
            Condvar { raw: RawCondvar::new() }
        }
    }

    /// Gives it a name for the views.
    #[must_use = "the named condition variable is the result"]
    pub const fn named(mut self, name: &'static str) -> Condvar {
        self.raw.object.set_name(name);
        self
    }

    fn wait_until<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let result = WaitTimeoutResult::new(self.raw.wait(&mut guard.held, deadline));
        guard.judge(result)
    }

    /// Gives the mutex up, waits for a notification, and takes the mutex again.
    ///
    /// # Errors
    /// The guard inside the error if the mutex is poisoned.
    ///
    /// # Panics
    /// Inside [`no_switch`](crate::no_switch).
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        match self.wait_until(guard, None) {
            Ok((guard, _)) => Ok(guard),
            Err(e) => Err(PoisonError::new(e.into_inner().0)),
        }
    }

    /// Waits while `condition` says true of the value.
    ///
    /// # Errors
    /// The guard inside the error if the mutex is poisoned after a wait.
    pub fn wait_while<'a, T: ?Sized, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: F,
    ) -> LockResult<MutexGuard<'a, T>>
    where
        F: FnMut(&mut T) -> bool,
    {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait_timeout`](Condvar::wait_timeout), in milliseconds; false if the time was up.
    ///
    /// # Errors
    /// The result inside the error if the mutex is poisoned.
    #[deprecated(note = "replaced by `coro::sync::Condvar::wait_timeout`, as in std")]
    pub fn wait_timeout_ms<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        ms: u32,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        match self.wait_timeout(guard, Duration::from_millis(u64::from(ms))) {
            Ok((guard, result)) => Ok((guard, !result.timed_out())),
            Err(e) => {
                let (guard, result) = e.into_inner();
                Err(PoisonError::new((guard, !result.timed_out())))
            }
        }
    }

    /// As [`wait`](Condvar::wait), for about `dur` at most; taking the mutex again is not part of that time.
    ///
    /// # Errors
    /// The result inside the error if the mutex is poisoned.
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        dur: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        self.wait_until(guard, deadline(dur))
    }

    /// Waits while `condition` says true of the value, for about `dur` at most. The condition is asked last: if it is
    /// false, the time was not up.
    ///
    /// # Errors
    /// The result inside the error if the mutex is poisoned after a wait.
    pub fn wait_timeout_while<'a, T: ?Sized, F>(
        &self,
        guard: MutexGuard<'a, T>,
        dur: Duration,
        mut condition: F,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)>
    where
        F: FnMut(&mut T) -> bool,
    {
        let end = deadline(dur);
        wait_while_until(
            guard,
            end,
            |guard| condition(&mut **guard),
            |guard| match self.wait_until(guard, end) {
                Ok((guard, _)) => Ok(guard),
                Err(e) => Err(e),
            },
        )
    }

    /// Wakes the one that has waited longest, if anybody waits.
    pub fn notify_one(&self) {
        self.raw.notify_one();
    }

    /// Wakes all that wait now.
    pub fn notify_all(&self) {
        self.raw.notify_all();
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}

impl Default for Condvar {
    #[track_caller]
    fn default() -> Condvar {
        Condvar::new()
    }
}
