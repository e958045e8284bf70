//! A mutex for tasks and threads, with std's surface and poisoning.
//!
//! The lock itself is `raw_mutex.rs`; here are the value, the guard and the poison, judged by the task's own unwinding.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

use super::const_new::const_unless_modelled;
use super::raw_mutex::RawMutex;
use crate::scheduler::suspend::{self, here};
use crate::sys::atomic::{AtomicBool, Ordering};

/// A mutual exclusion lock with [`std::sync::Mutex`]'s surface whose waiters are tasks (or threads).
///
/// It may be held across waits. Waiters are served in order, but for one overtaking newcomer at most per wait. While a
/// guard is held, cancellation and timeouts reach the holder as errors of I/O calls only, so that they cannot leave the
/// protected data half changed; [`Task::cancel_now`](crate::Task::cancel_now) unwinds all the same and poisons.
///
/// # Examples
/// ```
/// use coro::sync::Mutex;
/// use std::sync::Arc;
///
/// let total = coro::run(|| {
///     let m = Arc::new(Mutex::new(0));
///     let tasks: Vec<_> = (0..10)
///         .map(|i| {
///             let m = m.clone();
///             coro::spawn(move || *m.lock().unwrap() += i)
///         })
///         .collect();
///     tasks.into_iter().for_each(|t| t.join().unwrap());
///     let total = *m.lock().unwrap();
///     total
/// });
/// assert_eq!(total, 45);
/// ```
///
/// # Cancellation
/// [`lock`](Mutex::lock) is a wait: it unwinds without the lock if the task is cancelled or a timeout expires. A lock
/// that is free is taken without a look at either, unless an interrupt was held back by a guard before.
pub struct Mutex<T: ?Sized> {
    raw: RawMutex,
    poisoned: AtomicBool,
    data: UnsafeCell<T>,
}

// SAFETY: the lock hands out one reference at a time; the value may thereby move between threads.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
impl<T: ?Sized> std::panic::UnwindSafe for Mutex<T> {}
impl<T: ?Sized> std::panic::RefUnwindSafe for Mutex<T> {}

impl<T> Mutex<T> {
    const_unless_modelled! {
        /// An unlocked mutex.
        #[track_caller]
        pub fn new(value: T) -> Mutex<T> {
            Mutex { raw: RawMutex::new(), poisoned: AtomicBool::new(false), data: UnsafeCell::new(value) }
        }
    }

    /// Gives it a name for the views.
    ///
    /// # Examples
    /// ```
    /// static POOL: coro::sync::Mutex<Vec<u32>> = coro::sync::Mutex::new(Vec::new()).named("db pool");
    /// ```
    #[must_use = "the named mutex is the result"]
    pub const fn named(mut self, name: &'static str) -> Mutex<T> {
        self.raw.object.set_name(name);
        self
    }

    /// The value, without locking.
    ///
    /// # Errors
    /// The value inside the error if the mutex is poisoned.
    pub fn into_inner(self) -> LockResult<T> {
        let poisoned = self.is_poisoned();
        let value = self.data.into_inner();
        if poisoned { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    ///
    /// # Errors
    /// The guard inside the error if a holder panicked.
    #[inline]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        suspend::deliver_held_back();
        self.raw.lock();
        self.guard()
    }

    /// The lock if it is free.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard inside the error if a holder panicked.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if self.raw.try_lock() { Ok(self.guard()?) } else { Err(TryLockError::WouldBlock) }
    }

    #[inline]
    fn guard(&self) -> LockResult<MutexGuard<'_, T>> {
        if let Some(h) = here() {
            self.raw.object.set_owner(h.id());
            let guards = &h.local().write_guards;
            guards.set(guards.get() + 1);
        }
        let guard = MutexGuard { lock: self, unwinding: suspend::unwinding(), not_send: PhantomData };
        if self.is_poisoned() { Err(PoisonError::new(guard)) } else { Ok(guard) }
    }

    /// Whether a holder panicked.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    /// Declares the value sound again.
    pub fn clear_poison(&self) {
        self.poisoned.store(false, Ordering::Relaxed);
    }

    /// The value through an exclusive reference, without locking.
    ///
    /// # Errors
    /// The reference inside the error if the mutex is poisoned.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let poisoned = self.is_poisoned();
        let value = self.data.get_mut();
        if poisoned { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => d.field("data", &&*guard),
            Err(TryLockError::Poisoned(e)) => d.field("data", &&**e.get_ref()),
            Err(TryLockError::WouldBlock) => d.field("data", &format_args!("<locked>")),
        };
        d.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Mutex<T> {
        Mutex::new(value)
    }
}

/// Access to the value of a locked [`Mutex`]; unlocks when dropped. Stays on its thread.
///
/// ```compile_fail,E0277
/// static M: coro::sync::Mutex<u32> = coro::sync::Mutex::new(0);
/// let guard = M.lock().unwrap();
/// coro::spawn(move || drop(guard));
/// ```
#[must_use = "the lock is given up when the guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
    /// The task was already unwinding when it locked: then the unwinding says nothing about the value.
    unwinding: bool,
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock and is borrowed exclusively.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if !self.unwinding && suspend::unwinding() {
            self.lock.poisoned.store(true, Ordering::Relaxed);
        }
        if let Some(h) = here() {
            let guards = &h.local().write_guards;
            // A guard of one task may have been passed to another one of the same worker, which never counted it.
            guards.set(guards.get().saturating_sub(1));
            self.lock.raw.object.set_owner(0);
        }
        self.lock.raw.unlock();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
