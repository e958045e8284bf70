//! A lock around a few instructions whose release is a plain store.
//!
//! std's lock is given back by an exchange, because somebody may sleep in the kernel for it, and on x86-64 that costs as much as to take it: the two
//! of a message were a sixth of its way through a channel. For this one nobody sleeps in the kernel until it is woken: who finds it taken looks
//! again ever more rarely, then after sleeps of the thread. So it is for what is held for some dozen instructions. Late is whoever finds it taken
//! at sixteen looks: mostly because the holder's thread was taken off its CPU or had to wait for memory, but nothing bounds it where many want it all
//! the time. Longer it is held only where a queue grows, and while all who wait at a condition variable, or all readers, are collected.
//!
//! It knows no poison, and first come is not first served. Under it nobody waits, and of users' code runs none but their allocator. Must not know
//! what it guards.

use std::cell::UnsafeCell;
use std::fmt;
use std::hint;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How many pauses lie between two looks, of some 30 ns each on the machine where this was measured. Looking takes the lock's cache line from the holder, who mostly does many short
/// things in a row meanwhile. Where another thread takes the lock all the time, about half of the looks come in vain, so there have to be
/// many before the first sleep, which is far longer than all of them.
const PAUSES: [u32; 16] = [32, 64, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128];
/// Then the thread sleeps at least so long (Linux adds 50 µs), and begins again with the looks.
const SLEEP: Duration = Duration::from_micros(50);
/// After so many sleeps the holder's thread must have been stopped, and they become longer.
const SHORT_SLEEPS: u32 = 100;
const LONG_SLEEP: Duration = Duration::from_millis(1);

/// See the module's head.
pub(crate) struct ShortLock<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the flag hands out one reference at a time.
unsafe impl<T: Send> Send for ShortLock<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for ShortLock<T> {}

// As std's lock without its poison: what lies under it is whole whenever it is free.
impl<T> UnwindSafe for ShortLock<T> {}
impl<T> RefUnwindSafe for ShortLock<T> {}

impl<T> ShortLock<T> {
    pub(crate) const fn new(value: T) -> ShortLock<T> {
        ShortLock { held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> ShortLockGuard<'_, T> {
        if self.held.swap(true, Ordering::Acquire) {
            self.wait();
        }
        ShortLockGuard { lock: self, _one_thread: PhantomData }
    }

    /// Until the caller holds it.
    #[cold]
    #[inline(never)]
    fn wait(&self) {
        let is_taken = || self.held.load(Ordering::Relaxed) || self.held.swap(true, Ordering::Acquire);
        let mut sleeps = 0;
        loop {
            for pauses in PAUSES {
                (0..pauses).for_each(|_| hint::spin_loop());
                if !is_taken() {
                    return;
                }
            }
            thread::sleep(if sleeps < SHORT_SLEEPS { SLEEP } else { LONG_SLEEP });
            sleeps = sleeps.saturating_add(1);
        }
    }
}

impl<T> fmt::Debug for ShortLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShortLock").field("held", &self.held).finish_non_exhaustive()
    }
}

/// Gives the lock back when dropped. It stays on its thread, as std's does.
#[must_use = "the lock is given back at once"]
pub(crate) struct ShortLockGuard<'a, T> {
    lock: &'a ShortLock<T>,
    _one_thread: PhantomData<*mut T>,
}

impl<T> Deref for ShortLockGuard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for ShortLockGuard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock and is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for ShortLockGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.lock.held.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::usage;

    #[test]
    fn one_holder_at_a_time() {
        const THREADS: u64 = 4;
        let times = if cfg!(miri) { 50 } else { 100_000 };
        let lock = ShortLock::new((0u64, 0u64));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..times {
                        let mut both = lock.lock();
                        assert_eq!(both.0, both.1, "two held it");
                        both.0 += 1;
                        both.1 += 1;
                    }
                });
            }
        });
        assert_eq!(lock.lock().0, THREADS * times);
    }

    #[test]
    fn who_finds_it_held_for_long_sleeps_and_gets_it() {
        const HELD: Duration = Duration::from_millis(100);
        let lock = ShortLock::new(0);
        let spent = thread::scope(|scope| {
            let mut held = lock.lock();
            let waiter = scope.spawn(|| {
                let before = usage::own_cpu();
                *lock.lock() += 1;
                usage::own_cpu().zip(before).map(|(after, before)| after - before)
            });
            thread::sleep(HELD);
            assert_eq!(*held, 0, "it was not held");
            *held = 1;
            drop(held);
            waiter.join().expect("it does not panic")
        });
        assert_eq!(*lock.lock(), 2);
        assert!(spent.is_none_or(|spent| spent < HELD / 2), "the waiter spun: {spent:?}");
    }

    #[test]
    fn is_given_back_by_a_panic() {
        let lock = ShortLock::new(1);
        let panicked = std::panic::catch_unwind(|| {
            let _held = lock.lock();
            panic!("on purpose");
        });
        assert!(panicked.is_err());
        assert_eq!(*lock.lock(), 1);
    }
}
