//! A mutex for tasks and threads, with std's surface and poisoning.
//!
//! The lock itself is `raw_mutex.rs`, what holding it means is `held.rs`; here are the value and its guards. The mutex
//! of `nonpoison` is this one with other results, its guards are these.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

use super::const_new::const_unless_modelled;
use super::held::{Core, Held};
use super::raw_mutex::RawMutex;
use crate::scheduler::handover::polled_in_vain;
use crate::scheduler::suspend;

/// A mutual exclusion lock with [`std::sync::Mutex`]'s surface whose waiters are tasks (or threads).
///
/// It may be held across waits. Waiters are served in order, but for one overtaking newcomer at most per wait; those
/// behind pass one whose worker is busy for more than a millisecond when its turn comes. While a guard is held,
/// cancellation and timeouts reach the holder as errors of I/O calls only, so that they cannot leave the protected data
/// half changed; [`Task::cancel_now`](crate::Task::cancel_now) unwinds all the same and poisons.
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
    core: Core<RawMutex>,
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
            Mutex { core: Core::new(RawMutex::new()), data: UnsafeCell::new(value) }
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
        self.set_name(name);
        self
    }

    pub(super) const fn set_name(&mut self, name: &'static str) {
        self.core.raw.object.set_name(name);
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

    /// A clone of the value, which is made under the lock.
    ///
    /// # Errors
    /// If the mutex is poisoned.
    ///
    /// # Cancellation
    /// As [`lock`](Mutex::lock).
    pub fn get_cloned(&self) -> Result<T, PoisonError<()>>
    where
        T: Clone,
    {
        self.lock().map(|guard| guard.clone()).map_err(|_| PoisonError::new(()))
    }

    /// Puts a value in the place of the old one, which is dropped after the lock was given up.
    ///
    /// # Errors
    /// The new value inside the error if the mutex is poisoned.
    ///
    /// # Cancellation
    /// As [`lock`](Mutex::lock).
    pub fn set(&self, value: T) -> Result<(), PoisonError<T>> {
        self.replace(value).map(drop)
    }

    /// Puts a value in the place of the old one, and gives that out.
    ///
    /// # Errors
    /// The new value inside the error if the mutex is poisoned.
    ///
    /// # Cancellation
    /// As [`lock`](Mutex::lock).
    pub fn replace(&self, value: T) -> LockResult<T> {
        match self.lock() {
            Ok(mut guard) => Ok(mem::replace(&mut *guard, value)),
            Err(_) => Err(PoisonError::new(value)),
        }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock.
    ///
    /// # Errors
    /// The guard inside the error if a holder panicked.
    #[inline]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.acquire();
        self.core.judge(MutexGuard { lock: self, held: Held::new(&self.core) })
    }

    /// The lock if it is free.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard inside the error if a holder panicked.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let result = self.try_now();
        if matches!(result, Err(TryLockError::WouldBlock)) {
            polled_in_vain();
        }
        result
    }

    fn try_now(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if !self.core.raw.try_lock() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.core.judge(MutexGuard { lock: self, held: Held::new(&self.core) })?)
    }

    #[inline]
    fn acquire(&self) {
        suspend::deliver_held_back();
        self.core.raw.lock();
    }

    /// As `lock`, for `nonpoison`.
    #[inline]
    pub(super) fn lock_unmarked(&self) -> MutexGuard<'_, T> {
        self.acquire();
        MutexGuard { lock: self, held: Held::unmarked(&self.core) }
    }

    /// As `try_lock`, for `nonpoison`.
    pub(super) fn try_lock_unmarked(&self) -> Option<MutexGuard<'_, T>> {
        let locked = self.core.raw.try_lock().then(|| MutexGuard { lock: self, held: Held::unmarked(&self.core) });
        if locked.is_none() {
            polled_in_vain();
        }
        locked
    }

    /// Whether a holder panicked.
    pub fn is_poisoned(&self) -> bool {
        self.core.is_poisoned()
    }

    /// Declares the value sound again.
    pub fn clear_poison(&self) {
        self.core.clear_poison();
    }

    /// The value through an exclusive reference, without locking.
    ///
    /// # Errors
    /// The reference inside the error if the mutex is poisoned.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.core.judge(self.data.get_mut())
    }

    /// Where the value lies. Reading or writing there needs the lock, or no other user.
    pub const fn data_ptr(&self) -> *mut T {
        self.data.get()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("Mutex");
        match self.try_now() {
            Ok(guard) => d.field("data", &&*guard),
            Err(TryLockError::Poisoned(e)) => d.field("data", &&**e.get_ref()),
            Err(TryLockError::WouldBlock) => d.field("data", &format_args!("<locked>")),
        };
        d.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
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
    pub(super) held: Held<'a, RawMutex>,
}

// SAFETY: a shared guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// A guard of a part of the value. A panic of `f` poisons as any other under the guard.
    ///
    /// # Examples
    /// ```
    /// use coro::sync::{Mutex, MutexGuard};
    ///
    /// let pair = Mutex::new((1, 2));
    /// let mut second = MutexGuard::map(pair.lock().unwrap(), |p| &mut p.1);
    /// *second = 3;
    /// drop(second);
    /// assert_eq!(*pair.lock().unwrap(), (1, 3));
    /// ```
    pub fn map<U: ?Sized, F>(orig: Self, f: F) -> MappedMutexGuard<'a, U>
    where
        F: FnOnce(&mut T) -> &mut U,
    {
        let MutexGuard { lock, held } = orig;
        // SAFETY: `held` holds the lock, and the guard is gone.
        let data = NonNull::from(f(unsafe { &mut *lock.data.get() }));
        MappedMutexGuard { data, held, invariant: PhantomData }
    }

    /// A guard of a part of the value, if `f` finds that part.
    ///
    /// # Errors
    /// The guard itself if `f` says `None`.
    pub fn filter_map<U: ?Sized, F>(orig: Self, f: F) -> Result<MappedMutexGuard<'a, U>, Self>
    where
        F: FnOnce(&mut T) -> Option<&mut U>,
    {
        // SAFETY: the guard holds the lock, and nobody has it while `f` runs.
        match f(unsafe { &mut *orig.lock.data.get() }).map(NonNull::from) {
            Some(data) => Ok(MappedMutexGuard { data, held: orig.held, invariant: PhantomData }),
            None => Err(orig),
        }
    }

    /// The guard after a wait of a condition variable, with its result.
    pub(super) fn judge<V>(self, result: V) -> LockResult<(Self, V)> {
        self.lock.core.judge((self, result))
    }
}

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

/// Access to a part of the value of a locked [`Mutex`], from [`MutexGuard::map`]; unlocks when dropped.
#[must_use = "the lock is given up when the guard is dropped"]
pub struct MappedMutexGuard<'a, T: ?Sized> {
    /// A pointer, because a reference would claim to be the only one until the end of a function that drops the guard.
    data: NonNull<T>,
    held: Held<'a, RawMutex>,
    invariant: PhantomData<&'a mut T>,
}

// SAFETY: a shared guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for MappedMutexGuard<'_, T> {}

impl<'a, T: ?Sized> MappedMutexGuard<'a, T> {
    /// A guard of a part of the part. A panic of `f` poisons as any other under the guard.
    pub fn map<U: ?Sized, F>(orig: Self, f: F) -> MappedMutexGuard<'a, U>
    where
        F: FnOnce(&mut T) -> &mut U,
    {
        let MappedMutexGuard { mut data, held, .. } = orig;
        // SAFETY: `held` holds the lock, and the guard is gone.
        let data = NonNull::from(f(unsafe { data.as_mut() }));
        MappedMutexGuard { data, held, invariant: PhantomData }
    }

    /// A guard of a part of the part, if `f` finds that.
    ///
    /// # Errors
    /// The guard itself if `f` says `None`.
    pub fn filter_map<U: ?Sized, F>(mut orig: Self, f: F) -> Result<MappedMutexGuard<'a, U>, Self>
    where
        F: FnOnce(&mut T) -> Option<&mut U>,
    {
        // SAFETY: the guard holds the lock, and nobody has it while `f` runs.
        match f(unsafe { orig.data.as_mut() }).map(NonNull::from) {
            Some(data) => Ok(MappedMutexGuard { data, held: orig.held, invariant: PhantomData }),
            None => Err(orig),
        }
    }
}

impl<T: ?Sized> Deref for MappedMutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { self.data.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for MappedMutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock and is borrowed exclusively.
        unsafe { self.data.as_mut() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MappedMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MappedMutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
