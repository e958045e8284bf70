//! The locks without poison: a panic, or [`cancel_now`](crate::Task::cancel_now), under a guard just gives the lock up.
//!
//! As std's unstable `std::sync::nonpoison`. The guards are those of [`super`], so that either condition variable takes
//! them; a guard that was made here never poisons.

#![forbid(unsafe_code)]

use std::fmt;
use std::mem;
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

use super::condvar::{WaitTimeoutResult, deadline, wait_while_until};
use super::raw_condvar::RawCondvar;

pub use super::mutex::{MappedMutexGuard, MutexGuard};
pub use super::rwlock::{MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLockReadGuard, RwLockWriteGuard};

/// What a `try_` method of this module gives.
pub type TryLockResult<Guard> = Result<Guard, WouldBlock>;

/// The lock is held by somebody else.
pub struct WouldBlock;

impl fmt::Debug for WouldBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WouldBlock")
    }
}

impl fmt::Display for WouldBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lock is held by somebody else")
    }
}

/// What lies in a lock that never was poisoned.
fn sound<V>(result: LockResult<V>) -> V {
    result.unwrap_or_else(PoisonError::into_inner)
}

/// A [`Mutex`](super::Mutex) without poison.
///
/// # Examples
/// ```
/// use coro::sync::nonpoison::Mutex;
///
/// let m = Mutex::new(1);
/// *m.lock() += 1;
/// assert_eq!(m.into_inner(), 2);
/// ```
///
/// # Cancellation
/// As for [`super::Mutex`]: while a guard is held, interrupts reach the holder as errors of I/O calls only. `cancel_now`
/// unwinds all the same, and the next holder finds what was left behind.
pub struct Mutex<T: ?Sized>(super::Mutex<T>);

impl<T> Mutex<T> {
    /// An unlocked mutex.
    #[track_caller]
    pub const fn new(value: T) -> Mutex<T> {
        Mutex(super::Mutex::new(value))
    }

    /// Gives it a name for the views.
    #[must_use = "the named mutex is the result"]
    pub const fn named(mut self, name: &'static str) -> Mutex<T> {
        self.0.set_name(name);
        self
    }

    /// The value, without locking.
    pub fn into_inner(self) -> T {
        sound(self.0.into_inner())
    }

    /// A clone of the value, which is made under the lock.
    ///
    /// # Cancellation
    /// As [`lock`](Mutex::lock).
    pub fn get_cloned(&self) -> T
    where
        T: Clone,
    {
        self.lock().clone()
    }

    /// Puts a value in the place of the old one, which is dropped after the lock was given up.
    ///
    /// # Cancellation
    /// As [`lock`](Mutex::lock).
    pub fn set(&self, value: T) {
        drop(self.replace(value));
    }

    /// Puts a value in the place of the old one, and gives that out.
    ///
    /// # Cancellation
    /// As [`lock`](Mutex::lock).
    pub fn replace(&self, value: T) -> T {
        mem::replace(&mut *self.lock(), value)
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    ///
    /// # Cancellation
    /// Unwinds without the lock if an interrupt is due.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock_unmarked()
    }

    /// The lock if it is free.
    ///
    /// # Errors
    /// [`WouldBlock`] if it is not.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        self.0.try_lock_unmarked().ok_or(WouldBlock)
    }

    /// The value through an exclusive reference, without locking.
    pub fn get_mut(&mut self) -> &mut T {
        sound(self.0.get_mut())
    }

    /// Where the value lies. Reading or writing there needs the lock, or no other user.
    pub const fn data_ptr(&self) -> *mut T {
        self.0.data_ptr()
    }

    /// Runs `f` under the lock.
    ///
    /// # Cancellation
    /// As [`lock`](Mutex::lock).
    pub fn with_mut<F, R>(&self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R,
    {
        f(&mut self.lock())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => d.field("data", &&*guard),
            Err(WouldBlock) => d.field("data", &format_args!("<locked>")),
        };
        d.finish_non_exhaustive()
    }
}

impl<T: Default> Default for Mutex<T> {
    #[track_caller]
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    #[track_caller]
    fn from(value: T) -> Mutex<T> {
        Mutex::new(value)
    }
}

/// An [`RwLock`](super::RwLock) without poison.
///
/// # Examples
/// ```
/// use coro::sync::nonpoison::RwLock;
///
/// let l = RwLock::new(1);
/// *l.write() += 1;
/// assert_eq!(*l.read(), 2);
/// ```
///
/// # Cancellation
/// As for [`super::RwLock`]; after `cancel_now` of a writer the next holder finds what was left behind.
pub struct RwLock<T: ?Sized>(super::RwLock<T>);

impl<T> RwLock<T> {
    /// An unlocked lock.
    #[track_caller]
    pub const fn new(value: T) -> RwLock<T> {
        RwLock(super::RwLock::new(value))
    }

    /// Gives it a name for the views.
    #[must_use = "the named lock is the result"]
    pub const fn named(mut self, name: &'static str) -> RwLock<T> {
        self.0.set_name(name);
        self
    }

    /// The value, without locking.
    pub fn into_inner(self) -> T {
        sound(self.0.into_inner())
    }

    /// A clone of the value, which is made by a reader.
    ///
    /// # Cancellation
    /// As [`read`](RwLock::read).
    pub fn get_cloned(&self) -> T
    where
        T: Clone,
    {
        self.read().clone()
    }

    /// Puts a value in the place of the old one, which is dropped after the lock was given up.
    ///
    /// # Cancellation
    /// As [`write`](RwLock::write).
    pub fn set(&self, value: T) {
        drop(self.replace(value));
    }

    /// Puts a value in the place of the old one, and gives that out.
    ///
    /// # Cancellation
    /// As [`write`](RwLock::write).
    pub fn replace(&self, value: T) -> T {
        mem::replace(&mut *self.write(), value)
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits for shared access.
    ///
    /// # Cancellation
    /// Unwinds without the lock if an interrupt is due.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read_unjudged()
    }

    /// Shared access if nobody writes and nobody waits.
    ///
    /// # Errors
    /// [`WouldBlock`] if somebody does.
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        self.0.try_read_unjudged().ok_or(WouldBlock)
    }

    /// Waits for exclusive access.
    ///
    /// # Cancellation
    /// Unwinds without the lock if an interrupt is due.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write_unmarked()
    }

    /// Exclusive access if nobody has the lock.
    ///
    /// # Errors
    /// [`WouldBlock`] if somebody has.
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        self.0.try_write_unmarked().ok_or(WouldBlock)
    }

    /// The value through an exclusive reference, without locking.
    pub fn get_mut(&mut self) -> &mut T {
        sound(self.0.get_mut())
    }

    /// Where the value lies. Reading or writing there needs the lock, or no other user.
    pub const fn data_ptr(&self) -> *mut T {
        self.0.data_ptr()
    }

    /// Runs `f` as a reader.
    ///
    /// # Cancellation
    /// As [`read`](RwLock::read).
    pub fn with<F, R>(&self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        f(&self.read())
    }

    /// Runs `f` as the writer.
    ///
    /// # Cancellation
    /// As [`write`](RwLock::write).
    pub fn with_mut<F, R>(&self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R,
    {
        f(&mut self.write())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("RwLock");
        match self.try_read() {
            Ok(guard) => d.field("data", &&*guard),
            Err(WouldBlock) => d.field("data", &format_args!("<locked>")),
        };
        d.finish_non_exhaustive()
    }
}

impl<T: Default> Default for RwLock<T> {
    #[track_caller]
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T> From<T> for RwLock<T> {
    #[track_caller]
    fn from(value: T) -> RwLock<T> {
        RwLock::new(value)
    }
}

/// A [`Condvar`](super::Condvar) whose waits borrow the guard and give it back as it was.
///
/// # Cancellation
/// As for [`super::Condvar`]: a wait unwinds with the mutex taken again.
pub struct Condvar {
    raw: RawCondvar,
}

impl Condvar {
    /// A condition variable that nobody waits for.
    #[must_use]
    #[track_caller]
    pub const fn new() -> Condvar {
        Condvar { raw: RawCondvar::new() }
    }

    /// Gives it a name for the views.
    #[must_use = "the named condition variable is the result"]
    pub const fn named(mut self, name: &'static str) -> Condvar {
        self.raw.object.set_name(name);
        self
    }

    /// Gives the mutex up, waits for a notification, and takes the mutex again.
    ///
    /// # Panics
    /// Inside [`no_switch`](crate::no_switch).
    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        self.raw.wait(&mut guard.held, None);
    }

    /// Waits while `condition` says true of the value.
    pub fn wait_while<T: ?Sized, F>(&self, guard: &mut MutexGuard<'_, T>, mut condition: F)
    where
        F: FnMut(&mut T) -> bool,
    {
        while condition(&mut **guard) {
            self.wait(guard);
        }
    }

    /// As [`wait`](Condvar::wait), for about `dur` at most; taking the mutex again is not part of that time.
    pub fn wait_timeout<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, dur: Duration) -> WaitTimeoutResult {
        WaitTimeoutResult::new(self.raw.wait(&mut guard.held, deadline(dur)))
    }

    /// Waits while `condition` says true of the value, for about `dur` at most. The condition is asked last: if it is
    /// false, the time was not up.
    pub fn wait_timeout_while<T: ?Sized, F>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        dur: Duration,
        mut condition: F,
    ) -> WaitTimeoutResult
    where
        F: FnMut(&mut T) -> bool,
    {
        let end = deadline(dur);
        let waited = wait_while_until(
            guard,
            end,
            |guard| condition(&mut ***guard),
            |guard| {
                self.raw.wait(&mut guard.held, end);
                Ok::<_, std::convert::Infallible>(guard)
            },
        );
        match waited {
            Ok((_, result)) => result,
            Err(never) => match never {},
        }
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
