//! A read-write lock for tasks and threads, with std's surface and poisoning.
//!
//! The lock itself is `raw_rwlock.rs`, what holding it alone means is `held.rs`; here are the value and its guards. The
//! lock of `nonpoison` is this one with other results, its guards are these.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

use super::const_new::const_unless_modelled;
use super::held::{Core, Held};
use super::raw_rwlock::RawRwLock;
use super::woven::{Call, Outcome, State};
use crate::scheduler::handover::polled_in_vain;
use crate::scheduler::suspend::{self, here};

/// A lock for many readers or one writer, with [`std::sync::RwLock`]'s surface, whose waiters are tasks (or threads).
///
/// Strictly first come, first served: who comes while somebody waits stands in line, and readers that stand next to each
/// other read together. So neither readers nor writers starve, and a task that reads twice deadlocks if a writer began to
/// wait in between, as it may with std.
///
/// It may be held across waits. A writer's guard holds back cancellation and timeouts as a [`Mutex`](super::Mutex)'s
/// does; a reader's does not, because it changes nothing. Only writers poison.
///
/// # Examples
/// ```
/// use coro::sync::RwLock;
///
/// static CONFIG: RwLock<u32> = RwLock::new(1).named("config");
///
/// coro::run(|| {
///     let readers: Vec<_> = (0..3).map(|_| coro::spawn(|| *CONFIG.read().unwrap())).collect();
///     readers.into_iter().for_each(|r| assert_eq!(r.join().unwrap(), 1));
///     *CONFIG.write().unwrap() = 2;
/// });
/// ```
///
/// # Cancellation
/// [`read`](RwLock::read) and [`write`](RwLock::write) are waits: they unwind without the lock if the task is cancelled
/// or a timeout expires. A lock that is free is taken without a look at either, unless an interrupt was held back by a
/// guard before.
pub struct RwLock<T: ?Sized> {
    core: Core<RawRwLock>,
    data: UnsafeCell<T>,
}

// SAFETY: the value may be taken out, or replaced through a guard, by any thread.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: as above; and readers on several threads share `&T`.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}
impl<T: ?Sized> std::panic::UnwindSafe for RwLock<T> {}
impl<T: ?Sized> std::panic::RefUnwindSafe for RwLock<T> {}

impl<T> RwLock<T> {
    const_unless_modelled! {
        /// An unlocked lock.
        #[track_caller]
        pub fn new(value: T) -> RwLock<T> {
            RwLock { core: Core::new(RawRwLock::new()), data: UnsafeCell::new(value) }
        }
    }

    /// Gives it a name for the views.
    #[must_use = "the named lock is the result"]
    pub const fn named(mut self, name: &'static str) -> RwLock<T> {
        self.set_name(name);
        self
    }

    pub(super) const fn set_name(&mut self, name: &'static str) {
        self.core.raw.shown.object.set_name(name);
    }

    /// The value, without locking.
    ///
    /// # Errors
    /// The value inside the error if the lock is poisoned.
    pub fn into_inner(self) -> LockResult<T> {
        let poisoned = self.is_poisoned();
        let value = self.data.into_inner();
        if poisoned { Err(PoisonError::new(value)) } else { Ok(value) }
    }

    /// A clone of the value, which is made by a reader.
    ///
    /// # Errors
    /// If the lock is poisoned.
    ///
    /// # Cancellation
    /// As [`read`](RwLock::read).
    pub fn get_cloned(&self) -> Result<T, PoisonError<()>>
    where
        T: Clone,
    {
        self.read().map(|guard| guard.clone()).map_err(|_| PoisonError::new(()))
    }

    /// Puts a value in the place of the old one, which is dropped after the lock was given up.
    ///
    /// # Errors
    /// The new value inside the error if the lock is poisoned.
    ///
    /// # Cancellation
    /// As [`write`](RwLock::write).
    pub fn set(&self, value: T) -> Result<(), PoisonError<T>> {
        self.replace(value).map(drop)
    }

    /// Puts a value in the place of the old one, and gives that out.
    ///
    /// # Errors
    /// The new value inside the error if the lock is poisoned.
    ///
    /// # Cancellation
    /// As [`write`](RwLock::write).
    pub fn replace(&self, value: T) -> LockResult<T> {
        match self.write() {
            Ok(mut guard) => Ok(mem::replace(&mut *guard, value)),
            Err(_) => Err(PoisonError::new(value)),
        }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits for shared access.
    ///
    /// # Errors
    /// The guard inside the error if a writer panicked.
    ///
    /// # Panics
    /// If more than a billion guards of readers were forgotten.
    #[inline]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.core.judge(self.read_unjudged())
    }

    /// Shared access if nobody writes and nobody waits.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard inside the error if a writer panicked.
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        let result = self.try_read_now();
        if matches!(result, Err(TryLockError::WouldBlock)) {
            polled_in_vain();
        }
        result
    }

    fn try_read_now(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        match self.try_read_unjudged() {
            Some(guard) => Ok(self.core.judge(guard)?),
            None => Err(TryLockError::WouldBlock),
        }
    }

    /// Waits for exclusive access.
    ///
    /// # Errors
    /// The guard inside the error if a writer panicked.
    #[inline]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.acquire();
        self.core.judge(RwLockWriteGuard { lock: self, held: Held::new(&self.core) })
    }

    /// Exclusive access if nobody has the lock.
    ///
    /// # Errors
    /// `WouldBlock`, or the guard inside the error if a writer panicked.
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        if !self.core.raw.try_write() {
            polled_in_vain();
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.core.judge(RwLockWriteGuard { lock: self, held: Held::new(&self.core) })?)
    }

    #[inline]
    fn acquire(&self) {
        suspend::deliver_held_back();
        self.core.raw.write();
    }

    /// As `read`, whatever writers did.
    #[inline]
    pub(super) fn read_unjudged(&self) -> RwLockReadGuard<'_, T> {
        suspend::deliver_held_back();
        self.core.raw.read();
        self.reader()
    }

    /// As `try_read`, whatever writers did.
    pub(super) fn try_read_unjudged(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.core.raw.try_read().then(|| self.reader())
    }

    /// As `write`, for `nonpoison`.
    #[inline]
    pub(super) fn write_unmarked(&self) -> RwLockWriteGuard<'_, T> {
        self.acquire();
        RwLockWriteGuard { lock: self, held: Held::unmarked(&self.core) }
    }

    /// As `try_write`, for `nonpoison`.
    pub(super) fn try_write_unmarked(&self) -> Option<RwLockWriteGuard<'_, T>> {
        let locked =
            self.core.raw.try_write().then(|| RwLockWriteGuard { lock: self, held: Held::unmarked(&self.core) });
        if locked.is_none() {
            polled_in_vain();
        }
        locked
    }

    /// For whoever has just been given shared access.
    #[inline]
    fn reader(&self) -> RwLockReadGuard<'_, T> {
        if let Some(h) = here() {
            h.local().held_reads.push(&self.core.raw.shown.object);
        }
        let shared = Shared { raw: &self.core.raw, not_send: PhantomData };
        // SAFETY: the address of a field.
        RwLockReadGuard { data: unsafe { NonNull::new_unchecked(self.data.get()) }, shared }
    }

    /// Whether a writer panicked.
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
    /// The reference inside the error if the lock is poisoned.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        self.core.judge(self.data.get_mut())
    }

    /// Where the value lies. Reading or writing there needs the lock, or no other user.
    pub const fn data_ptr(&self) -> *mut T {
        self.data.get()
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("RwLock");
        match self.try_read_now() {
            Ok(guard) => d.field("data", &&*guard),
            Err(TryLockError::Poisoned(e)) => d.field("data", &&**e.get_ref()),
            Err(TryLockError::WouldBlock) => d.field("data", &format_args!("<locked>")),
        };
        d.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
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

/// Shared access, given up when dropped.
struct Shared<'a> {
    raw: &'a RawRwLock,
    not_send: PhantomData<*const ()>,
}

impl std::panic::UnwindSafe for Shared<'_> {}
impl std::panic::RefUnwindSafe for Shared<'_> {}

impl Drop for Shared<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(h) = here() {
            h.local().held_reads.remove(&self.raw.shown.object);
        }
        self.raw.unlock_shared();
        if Call::Unlock.is_watched() {
            Call::Unlock.was_done(&self.raw.shown.object, State::Free, Outcome::Done);
        }
    }
}

/// Shared access to the value of an [`RwLock`]; given up when dropped. Stays on its thread.
///
/// ```compile_fail,E0277
/// static L: coro::sync::RwLock<u32> = coro::sync::RwLock::new(0);
/// let guard = L.read().unwrap();
/// coro::spawn(move || drop(guard));
/// ```
#[must_use = "the lock is given up when the guard is dropped"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    /// A pointer, because a reference would claim to be valid until the end of a function that drops the guard.
    data: NonNull<T>,
    shared: Shared<'a>,
}

// SAFETY: a guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for RwLockReadGuard<'_, T> {}

impl<'a, T: ?Sized> RwLockReadGuard<'a, T> {
    /// A guard of a part of the value.
    ///
    /// # Examples
    /// ```
    /// use coro::sync::{RwLock, RwLockReadGuard};
    ///
    /// let pair = RwLock::new((1, 2));
    /// assert_eq!(*RwLockReadGuard::map(pair.read().unwrap(), |p| &p.1), 2);
    /// ```
    pub fn map<U: ?Sized, F>(orig: Self, f: F) -> MappedRwLockReadGuard<'a, U>
    where
        F: FnOnce(&T) -> &U,
    {
        let data = NonNull::from(f(&orig));
        MappedRwLockReadGuard { data, shared: orig.shared }
    }

    /// A guard of a part of the value, if `f` finds that part.
    ///
    /// # Errors
    /// The guard itself if `f` says `None`.
    pub fn filter_map<U: ?Sized, F>(orig: Self, f: F) -> Result<MappedRwLockReadGuard<'a, U>, Self>
    where
        F: FnOnce(&T) -> Option<&U>,
    {
        match f(&orig).map(NonNull::from) {
            Some(data) => Ok(MappedRwLockReadGuard { data, shared: orig.shared }),
            None => Err(orig),
        }
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard has shared access.
        unsafe { self.data.as_ref() }
    }
}

/// Shared access to a part of the value of an [`RwLock`], from [`RwLockReadGuard::map`]; given up when dropped.
#[must_use = "the lock is given up when the guard is dropped"]
pub struct MappedRwLockReadGuard<'a, T: ?Sized> {
    data: NonNull<T>,
    shared: Shared<'a>,
}

// SAFETY: a guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for MappedRwLockReadGuard<'_, T> {}

impl<'a, T: ?Sized> MappedRwLockReadGuard<'a, T> {
    /// A guard of a part of the part.
    pub fn map<U: ?Sized, F>(orig: Self, f: F) -> MappedRwLockReadGuard<'a, U>
    where
        F: FnOnce(&T) -> &U,
    {
        let data = NonNull::from(f(&orig));
        MappedRwLockReadGuard { data, shared: orig.shared }
    }

    /// A guard of a part of the part, if `f` finds that.
    ///
    /// # Errors
    /// The guard itself if `f` says `None`.
    pub fn filter_map<U: ?Sized, F>(orig: Self, f: F) -> Result<MappedRwLockReadGuard<'a, U>, Self>
    where
        F: FnOnce(&T) -> Option<&U>,
    {
        match f(&orig).map(NonNull::from) {
            Some(data) => Ok(MappedRwLockReadGuard { data, shared: orig.shared }),
            None => Err(orig),
        }
    }
}

impl<T: ?Sized> Deref for MappedRwLockReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard has shared access.
        unsafe { self.data.as_ref() }
    }
}

/// Exclusive access to the value of an [`RwLock`]; given up when dropped. Stays on its thread.
///
/// ```compile_fail,E0277
/// static L: coro::sync::RwLock<u32> = coro::sync::RwLock::new(0);
/// let guard = L.write().unwrap();
/// coro::spawn(move || drop(guard));
/// ```
#[must_use = "the lock is given up when the guard is dropped"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    held: Held<'a, RawRwLock>,
}

// SAFETY: a shared guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// From the writer to a reader, with no other writer between. Readers that wait at the head of the line join in.
    ///
    /// # Examples
    /// ```
    /// use coro::sync::{RwLock, RwLockWriteGuard};
    ///
    /// let lock = RwLock::new(1);
    /// let mut writer = lock.write().unwrap();
    /// *writer = 2;
    /// let reader = RwLockWriteGuard::downgrade(writer);
    /// assert_eq!((*reader, *lock.read().unwrap()), (2, 2));
    /// ```
    pub fn downgrade(s: Self) -> RwLockReadGuard<'a, T> {
        let RwLockWriteGuard { lock, held } = s;
        held.core.end();
        // Without its end, which would give the lock up.
        mem::forget(held);
        lock.core.raw.downgrade();
        lock.reader()
    }

    /// A guard of a part of the value. A panic of `f` poisons as any other under the guard.
    pub fn map<U: ?Sized, F>(orig: Self, f: F) -> MappedRwLockWriteGuard<'a, U>
    where
        F: FnOnce(&mut T) -> &mut U,
    {
        let RwLockWriteGuard { lock, held } = orig;
        // SAFETY: `held` has exclusive access, and the guard is gone.
        let data = NonNull::from(f(unsafe { &mut *lock.data.get() }));
        MappedRwLockWriteGuard { data, held, invariant: PhantomData }
    }

    /// A guard of a part of the value, if `f` finds that part.
    ///
    /// # Errors
    /// The guard itself if `f` says `None`.
    pub fn filter_map<U: ?Sized, F>(orig: Self, f: F) -> Result<MappedRwLockWriteGuard<'a, U>, Self>
    where
        F: FnOnce(&mut T) -> Option<&mut U>,
    {
        // SAFETY: the guard has exclusive access, and nobody has it while `f` runs.
        match f(unsafe { &mut *orig.lock.data.get() }).map(NonNull::from) {
            Some(data) => Ok(MappedRwLockWriteGuard { data, held: orig.held, invariant: PhantomData }),
            None => Err(orig),
        }
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard has exclusive access.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard has exclusive access and is borrowed exclusively.
        unsafe { &mut *self.lock.data.get() }
    }
}

/// Exclusive access to a part of the value of an [`RwLock`], from [`RwLockWriteGuard::map`]; given up when dropped.
#[must_use = "the lock is given up when the guard is dropped"]
pub struct MappedRwLockWriteGuard<'a, T: ?Sized> {
    data: NonNull<T>,
    held: Held<'a, RawRwLock>,
    invariant: PhantomData<&'a mut T>,
}

// SAFETY: a shared guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for MappedRwLockWriteGuard<'_, T> {}

impl<'a, T: ?Sized> MappedRwLockWriteGuard<'a, T> {
    /// A guard of a part of the part. A panic of `f` poisons as any other under the guard.
    pub fn map<U: ?Sized, F>(orig: Self, f: F) -> MappedRwLockWriteGuard<'a, U>
    where
        F: FnOnce(&mut T) -> &mut U,
    {
        let MappedRwLockWriteGuard { mut data, held, .. } = orig;
        // SAFETY: `held` has exclusive access, and the guard is gone.
        let data = NonNull::from(f(unsafe { data.as_mut() }));
        MappedRwLockWriteGuard { data, held, invariant: PhantomData }
    }

    /// A guard of a part of the part, if `f` finds that.
    ///
    /// # Errors
    /// The guard itself if `f` says `None`.
    pub fn filter_map<U: ?Sized, F>(mut orig: Self, f: F) -> Result<MappedRwLockWriteGuard<'a, U>, Self>
    where
        F: FnOnce(&mut T) -> Option<&mut U>,
    {
        // SAFETY: the guard has exclusive access, and nobody has it while `f` runs.
        match f(unsafe { orig.data.as_mut() }).map(NonNull::from) {
            Some(data) => Ok(MappedRwLockWriteGuard { data, held: orig.held, invariant: PhantomData }),
            None => Err(orig),
        }
    }
}

impl<T: ?Sized> Deref for MappedRwLockWriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard has exclusive access.
        unsafe { self.data.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for MappedRwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard has exclusive access and is borrowed exclusively.
        unsafe { self.data.as_mut() }
    }
}

/// What guards print is their value.
macro_rules! prints_its_value {
    ($($guard:ident)*) => {$(
        impl<T: ?Sized + fmt::Debug> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<T: ?Sized + fmt::Display> fmt::Display for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    )*};
}
prints_its_value!(RwLockReadGuard MappedRwLockReadGuard RwLockWriteGuard MappedRwLockWriteGuard);
