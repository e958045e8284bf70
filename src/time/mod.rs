//! `std::time` for tasks, with what std keeps in `thread` (sleeping) and what it does not have: limits around any code,
//! and intervals.
//!
//! ```
//! use coro::time::*; // was: use std::time::*
//!
//! coro::run(|| {
//!     let begun = Instant::now();
//!     sleep(Duration::from_millis(1));
//!     assert!(begun.elapsed() >= Duration::from_millis(1));
//!     assert!(SystemTime::now() > UNIX_EPOCH);
//! });
//! ```
//!
//! All of it takes any duration: zero is now, and what no [`Instant`] can hold is never. Must not know sockets, locks or
//! channels.

#![forbid(unsafe_code)]

mod interval;
#[cfg(feature = "probe")]
pub(crate) mod woven;

use std::error::Error;
use std::fmt;

pub use std::time::{Duration, Instant, SystemTime, SystemTimeError, TryFromFloatSecsError, UNIX_EPOCH};

pub use interval::{Interval, MissedTick, interval, interval_at};

use crate::scheduler::suspend::{self, here};

/// Suspends the task for at least `duration` (a plain thread is blocked).
///
/// It never ends early. How late depends on what else the worker does; on an idle one, tens of microseconds, and up to 80
/// more where at least four sleeps and time limits of the worker end in so short a time.
///
/// # Cancellation
/// Unwinds if the task is cancelled or an enclosing [`timeout`] expires.
pub fn sleep(duration: Duration) {
    // Beyond what an `Instant` can hold, a sleep lasts for ever.
    const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);
    let now = Instant::now();
    let deadline = now.checked_add(duration).or_else(|| now.checked_add(FOREVER));
    let deadline = deadline.unwrap_or_else(|| now + Duration::from_secs(86_400));
    #[cfg(feature = "probe")]
    if woven::are_sleeps_watched() {
        woven::sleeping(duration, || suspend::sleep_until(deadline));
        return stay_on_stack();
    }
    // One call: of two the compiler makes one without a line, and every stack of a sleeping task shows it.
    suspend::sleep_until(deadline);
    stay_on_stack();
}

/// Suspends the task until `deadline`; a deadline in the past returns at the next turn of the worker.
///
/// # Cancellation
/// As [`sleep`].
pub fn sleep_until(deadline: Instant) {
    #[cfg(feature = "probe")]
    if woven::are_sleeps_watched() {
        let left = deadline.saturating_duration_since(Instant::now());
        woven::sleeping(left, || suspend::sleep_until(deadline));
        return stay_on_stack();
    }
    suspend::sleep_until(deadline);
    stay_on_stack();
}

/// Something that comes after a call: else that is a jump, and no stack shows what was called.
#[inline(always)]
fn stay_on_stack() {
    std::hint::black_box(());
}

/// A [`timeout`] expired. Holds what the closure returned, if it ended by itself after that.
#[derive(Clone, PartialEq, Eq)]
pub struct Elapsed<T>(Option<T>);

impl<T> Elapsed<T> {
    /// What the closure returned although the time was over.
    pub fn into_value(self) -> Option<T> {
        self.0
    }

    /// As [`into_value`](Elapsed::into_value), by reference.
    pub fn value(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> fmt::Debug for Elapsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elapsed").field("has_value", &self.0.is_some()).finish()
    }
}

impl<T> fmt::Display for Elapsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit has passed")
    }
}

impl<T> Error for Elapsed<T> {}

/// Runs `f` with a time limit around everything that it does.
///
/// When the limit passes, one pending or later I/O call inside `f` returns an error of kind `TimedOut`; from then on
/// every wait inside `f` unwinds up to this call. Limits nest: each owner sees only its own expiry, and an outer one
/// ends the inner ones. Code that never waits is not interrupted, but waits that never have to wait do not hold a limit
/// off. With a limit of zero `f` runs up to its first wait. What unwinding means for the code inside is told in
/// `docs/cancellation.md`.
///
/// On a plain thread `f` is not interrupted, and runs to its end; that it came too late is told all the same.
///
/// # Errors
/// [`Elapsed`] if the limit passed before `f` ended; what `f` returned nevertheless is inside.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// coro::run(|| {
///     let quick = coro::timeout(Duration::from_secs(5), || 42);
///     assert_eq!(quick.unwrap(), 42);
///     let slow = coro::timeout(Duration::from_millis(1), || coro::sleep(Duration::from_secs(3600)));
///     assert!(slow.is_err());
/// });
/// ```
pub fn timeout<T>(limit: Duration, f: impl FnOnce() -> T) -> Result<T, Elapsed<T>> {
    #[cfg(feature = "probe")]
    let watched = woven::limit(|| limit);
    let result = match here() {
        Some(h) => suspend::timeout_scope(h, limit, f).map_err(Elapsed),
        None => {
            let start = Instant::now();
            let value = f();
            if start.elapsed() >= limit { Err(Elapsed(Some(value))) } else { Ok(value) }
        }
    };
    #[cfg(feature = "probe")]
    woven::limit_is_over(watched, &result);
    result
}

/// As [`timeout`], until `deadline`. One in the past is a limit of zero.
///
/// # Errors
/// As [`timeout`].
///
/// # Examples
/// One deadline for two steps:
/// ```
/// use coro::time::{Duration, Instant, sleep, timeout_at};
///
/// coro::run(|| {
///     let deadline = Instant::now() + Duration::from_millis(100);
///     assert!(timeout_at(deadline, || sleep(Duration::from_millis(1))).is_ok());
///     assert!(timeout_at(deadline, || sleep(Duration::from_secs(60))).is_err());
/// });
/// ```
pub fn timeout_at<T>(deadline: Instant, f: impl FnOnce() -> T) -> Result<T, Elapsed<T>> {
    #[cfg(feature = "probe")]
    let watched = woven::limit(|| deadline.saturating_duration_since(Instant::now()));
    let result = match here() {
        Some(h) => suspend::timeout_scope_at(h, deadline, f).map_err(Elapsed),
        None => {
            let value = f();
            if Instant::now() >= deadline { Err(Elapsed(Some(value))) } else { Ok(value) }
        }
    };
    #[cfg(feature = "probe")]
    woven::limit_is_over(watched, &result);
    result
}

/// The nearest deadline of all [`timeout`]s around the running code; `None` without one, and on a plain thread.
///
/// For code that would rather not begin what it cannot end in time, or that passes the limit on to somebody else. It
/// may be over already. Limits are the task's own: a task that is spawned inside has none, though the children of a
/// [`scope`](crate::scope) are cancelled when one expires around it.
///
/// # Examples
/// ```
/// use coro::time::{Duration, Instant, deadline, timeout};
///
/// coro::run(|| {
///     assert_eq!(deadline(), None);
///     let left = timeout(Duration::from_secs(5), || deadline().unwrap() - Instant::now()).unwrap();
///     assert!(left <= Duration::from_secs(5));
/// });
/// ```
pub fn deadline() -> Option<Instant> {
    suspend::deadline()
}
