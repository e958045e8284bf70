//! A mutex that its holder may lock again, with the surface of std's unstable `ReentrantLock`, keyed by task.
//!
//! Invariant: `holder` is the key of whoever holds the raw lock, 0 if nobody does; a task or thread that reads its own
//! key there wrote it. `depth` is touched by the holder alone, or, for a guard that one task passed to another one of
//! its worker, on that worker's thread.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};

use super::held::{Core, Exclusive};
use super::raw_mutex::RawMutex;
use super::woven::{Call, Outcome, State};
use crate::scheduler::handover::polled_in_vain;
use crate::scheduler::suspend::{self, here};

/// Set in the keys of plain threads; ids of tasks are shorter.
const THREAD: u64 = 1 << 63;

/// Who runs: the task, or else the thread.
fn key() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(THREAD);
    thread_local! {
        static OWN: Cell<u64> = const { Cell::new(0) };
    }
    if let Some(h) = here() {
        return h.id();
    }
    // Needs no destructor, so it can be reached until the very end of the thread.
    OWN.with(|own| {
        if own.get() == 0 {
            own.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        own.get()
    })
}

/// A mutual exclusion lock that the task (or plain thread) that holds it may lock again.
///
/// It gives shared references only; put a `Cell` or `RefCell` inside to change the value. Two tasks of one worker exclude
/// each other as tasks of two workers do, which a lock keyed by thread would not make them. There is no poison. While a
/// guard is held, cancellation and timeouts reach the holder as errors of I/O calls only.
///
/// # Examples
/// ```
/// use coro::sync::ReentrantLock;
/// use std::cell::Cell;
///
/// let count = ReentrantLock::new(Cell::new(0));
/// let outer = count.lock();
/// let inner = count.lock();
/// inner.set(outer.get() + 1);
/// assert_eq!(outer.get(), 1);
/// ```
///
/// # Cancellation
/// [`lock`](ReentrantLock::lock) is a wait: it unwinds without the lock if the task is cancelled or a timeout expires.
pub struct ReentrantLock<T: ?Sized> {
    core: Core<RawMutex>,
    holder: AtomicU64,
    depth: UnsafeCell<u32>,
    data: T,
}

// SAFETY: as for a mutex; the value may be taken out by any thread.
unsafe impl<T: ?Sized + Send> Send for ReentrantLock<T> {}
// SAFETY: only the thread of the holder has references to the value at a time.
unsafe impl<T: ?Sized + Send> Sync for ReentrantLock<T> {}
// Without poison, the value is as safe to see after a panic as it is without the lock.
impl<T: ?Sized + UnwindSafe> UnwindSafe for ReentrantLock<T> {}
impl<T: ?Sized + RefUnwindSafe> RefUnwindSafe for ReentrantLock<T> {}

impl<T> ReentrantLock<T> {
    /// An unlocked lock.
    #[track_caller]
    pub const fn new(value: T) -> ReentrantLock<T> {
        ReentrantLock {
            core: Core::new(RawMutex::new()),
            holder: AtomicU64::new(0),
            depth: UnsafeCell::new(0),
            data: value,
        }
    }

    /// Gives it a name for the views.
    #[must_use = "the named lock is the result"]
    pub const fn named(mut self, name: &'static str) -> ReentrantLock<T> {
        self.core.raw.object.set_name(name);
        self
    }

    /// The value, without locking.
    pub fn into_inner(self) -> T {
        self.data
    }
}

impl<T: ?Sized> ReentrantLock<T> {
    /// Waits for the lock, unless the caller has it.
    ///
    /// # Panics
    /// If it was locked 2³² times by its holder.
    pub fn lock(&self) -> ReentrantLockGuard<'_, T> {
        let me = key();
        if !self.again(me) {
            suspend::deliver_held_back();
            self.core.raw.lock();
            self.first(me);
        }
        ReentrantLockGuard { lock: self, not_send: PhantomData }
    }

    /// The lock if nobody else has it.
    ///
    /// # Panics
    /// As [`lock`](ReentrantLock::lock).
    pub fn try_lock(&self) -> Option<ReentrantLockGuard<'_, T>> {
        let me = key();
        if !self.again(me) {
            if !self.core.raw.try_lock() {
                polled_in_vain();
                return None;
            }
            self.first(me);
        }
        Some(ReentrantLockGuard { lock: self, not_send: PhantomData })
    }

    /// One level more if `me` holds the lock.
    fn again(&self, me: u64) -> bool {
        if self.holder.load(Ordering::Relaxed) != me {
            return false;
        }
        // SAFETY: the caller holds the lock.
        let depth = unsafe { &mut *self.depth.get() };
        *depth = depth.checked_add(1).expect("a reentrant lock is locked too often: its guards were forgotten");
        true
    }

    /// The first level, for whoever has just taken the raw lock.
    fn first(&self, me: u64) {
        self.core.begin();
        self.holder.store(me, Ordering::Relaxed);
        // SAFETY: the caller holds the lock.
        unsafe { *self.depth.get() = 1 };
    }

    /// The value through an exclusive reference, without locking.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.data
    }

    /// Where the value lies. Reading there needs the lock.
    pub const fn data_ptr(&self) -> *const T {
        &raw const self.data
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReentrantLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_struct("ReentrantLock");
        match self.try_lock() {
            Some(guard) => d.field("data", &&*guard),
            None => d.field("data", &format_args!("<locked>")),
        };
        d.finish_non_exhaustive()
    }
}

impl<T: Default> Default for ReentrantLock<T> {
    #[track_caller]
    fn default() -> ReentrantLock<T> {
        ReentrantLock::new(T::default())
    }
}

impl<T> From<T> for ReentrantLock<T> {
    #[track_caller]
    fn from(value: T) -> ReentrantLock<T> {
        ReentrantLock::new(value)
    }
}

/// One level of a held [`ReentrantLock`]; the last one unlocks when dropped. Stays on its thread.
///
/// ```compile_fail,E0277
/// static L: coro::sync::ReentrantLock<u32> = coro::sync::ReentrantLock::new(0);
/// let guard = L.lock();
/// std::thread::scope(|s| s.spawn(move || drop(guard)));
/// ```
#[must_use = "the lock is given up when the guard is dropped"]
pub struct ReentrantLockGuard<'a, T: ?Sized> {
    lock: &'a ReentrantLock<T>,
    not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives `&T` only.
unsafe impl<T: ?Sized + Sync> Sync for ReentrantLockGuard<'_, T> {}

impl<T: ?Sized> Deref for ReentrantLockGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.lock.data
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ReentrantLockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for ReentrantLockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized> Drop for ReentrantLockGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the lock is held, and its guards stay on one thread.
        let depth = unsafe { &mut *self.lock.depth.get() };
        *depth -= 1;
        if *depth == 0 {
            self.lock.holder.store(0, Ordering::Relaxed);
            self.lock.core.end();
            self.lock.core.raw.unlock();
            if Call::Unlock.is_watched() {
                Call::Unlock.was_done(self.lock.core.raw.object(), State::Free, Outcome::Done);
            }
        }
    }
}
