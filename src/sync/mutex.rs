//! A mutex for tasks and threads, with std's surface and poisoning.
//!
//! One word: LOCKED and WAITERS. Locking and unlocking without waiters is one compare-and-swap each; everything else
//! happens under the line's own short lock. A woken waiter competes with newcomers once; after that the lock is handed
//! to it, so that nobody waits without bound.

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};

use super::waiters::{Taken, WaitList, Waiter};
use crate::observe::{WaitKind, WaitReason};
use crate::scheduler::suspend::{self, here};
use crate::sys::atomic::{AtomicBool, AtomicU32, AtomicU64, Lock, LockGuard, Ordering};

const LOCKED: u32 = 1;
const WAITERS: u32 = 2;

/// A constructor that is `const` but in a model, whose atomics need one at run time.
macro_rules! const_unless_modelled {
    ($(#[$doc:meta])* $v:vis fn $name:ident($($arg:ident: $t:ty)?) -> $r:ty $body:block) => {
        $(#[$doc])*
        #[cfg(not(loom))]
        $v const fn $name($($arg: $t)?) -> $r $body

        $(#[$doc])*
        #[cfg(loom)]
        $v fn $name($($arg: $t)?) -> $r $body
    };
}

#[derive(Debug)]
struct RawMutex {
    word: AtomicU32,
    /// The holder's task id while it is held by a task; for views.
    owner: AtomicU64,
    line: Lock<WaitList>,
}

impl RawMutex {
    const_unless_modelled! {
        fn new() -> RawMutex {
            RawMutex { word: AtomicU32::new(0), owner: AtomicU64::new(0), line: Lock::new(WaitList::new()) }
        }
    }

    fn line(&self) -> LockGuard<'_, WaitList> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn try_lock(&self) -> bool {
        let mut w = self.word.load(Ordering::Relaxed);
        while w & LOCKED == 0 {
            match self.word.compare_exchange_weak(w, w | LOCKED, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => w = now,
            }
        }
        false
    }

    #[inline]
    fn lock(&self) {
        if self.word.compare_exchange(0, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_slow();
        }
    }

    /// Links the waiter, unless the lock could be had after all.
    fn enqueue(&self, w: &Waiter, front: bool) -> bool {
        let mut line = self.line();
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (new, order) = if word & LOCKED == 0 {
                (word | LOCKED, Ordering::Acquire)
            } else {
                (word | WAITERS, Ordering::Relaxed)
            };
            match self.word.compare_exchange_weak(word, new, order, Ordering::Relaxed) {
                Ok(_) if word & LOCKED == 0 => return false,
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        w.rearm();
        // SAFETY: `Queued` borrows the waiter and takes it out when dropped.
        unsafe { if front { line.push_front(w) } else { line.push_back(w) } };
        true
    }

    #[cold]
    fn lock_slow(&self) {
        let reason = WaitReason::new(WaitKind::Lock, std::ptr::from_ref(&self.owner) as u64);
        let waiter = Waiter::new();
        let mut queued = Queued { lock: self, waiter: &waiter, armed: false };
        let mut front = false;
        loop {
            if !self.enqueue(&waiter, front) {
                return;
            }
            queued.armed = true;
            waiter.wait(reason);
            queued.armed = false;
            if waiter.granted() || self.try_lock() {
                return;
            }
            // A newcomer was faster: next time the lock is handed over.
            waiter.owed.set(true);
            front = true;
        }
    }

    #[inline]
    fn unlock(&self) {
        if self.word.compare_exchange(LOCKED, 0, Ordering::Release, Ordering::Relaxed).is_err() {
            self.unlock_slow();
        }
    }

    #[cold]
    fn unlock_slow(&self) {
        let taken = {
            let mut line = self.line();
            self.release(&mut line)
        };
        if let Some(t) = taken {
            t.wake();
        }
    }

    /// Gives the lock up, or to the first waiter if that one is owed it. Under the line's lock.
    fn release(&self, line: &mut WaitList) -> Option<Taken> {
        let hand_over = line.first_is_owed();
        let taken = if hand_over { line.grant_first() } else { line.take_first() };
        let waiters = if line.is_empty() { 0 } else { WAITERS };
        self.word.store(waiters | if hand_over { LOCKED } else { 0 }, Ordering::Release);
        taken
    }
}

/// Takes a waiter out when its wait is left early, and passes on what it was given.
struct Queued<'a> {
    lock: &'a RawMutex,
    waiter: &'a Waiter,
    armed: bool,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let raw = self.lock;
        let taken = {
            let mut line = raw.line();
            if self.waiter.is_linked() {
                line.remove(self.waiter);
                if line.is_empty() {
                    raw.word.fetch_and(!WAITERS, Ordering::Relaxed);
                }
                None
            } else if self.waiter.granted() {
                raw.release(&mut line)
            } else if raw.word.load(Ordering::Relaxed) & LOCKED == 0 {
                // We were told to try and will not: somebody else shall.
                let taken = line.take_first();
                if line.is_empty() {
                    raw.word.fetch_and(!WAITERS, Ordering::Relaxed);
                }
                taken
            } else {
                None
            }
        };
        if let Some(t) = taken {
            t.wake();
        }
    }
}

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
        pub fn new(value: T) -> Mutex<T> {
            Mutex { raw: RawMutex::new(), poisoned: AtomicBool::new(false), data: UnsafeCell::new(value) }
        }
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
            self.raw.owner.store(h.id(), Ordering::Relaxed);
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
            self.lock.raw.owner.store(0, Ordering::Relaxed);
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
