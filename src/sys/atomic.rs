//! Atomics under one name, so that the protocols compile unchanged under the `loom` model checker.
//!
//! Invariant: files that are model-checked (`task/state.rs`, `scheduler/inbox.rs`, `scheduler/idle.rs`,
//! `sync/*.rs`) take their atomics from here and from nowhere else. This module knows nothing of tasks.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

/// Stores a pointer and orders it before every later load, as `store` followed by a full fence would.
///
/// On x86-64 the exchange is the fence; a separate `mfence` would cost as much as the whole switch.
#[inline(always)]
pub(crate) fn publish<T>(slot: &AtomicPtr<T>, value: *mut T) {
    slot.swap(value, Ordering::SeqCst);
}

/// A short lock around a few instructions, and its guard; the model checker puts its own in their place.
pub(crate) use std::sync::{Mutex as Lock, MutexGuard as LockGuard};
use std::sync::{PoisonError, TryLockError};

/// Takes a short lock that many threads want all the time.
#[inline(always)]
pub(crate) fn lock_in_turn<T>(lock: &Lock<T>) -> LockGuard<'_, T> {
    match lock.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(e)) => e.into_inner(),
        Err(TryLockError::WouldBlock) => wait_for_lock(lock),
    }
}

/// Who finds the lock taken looks away for some hundred nanoseconds: looking at it takes its cache line from the holder, who else mostly
/// does many short things in a row meanwhile. std's lock looks a hundred times and goes to sleep in the kernel.
#[cold]
#[inline(never)]
fn wait_for_lock<T>(lock: &Lock<T>) -> LockGuard<'_, T> {
    for pauses in [32, 64, 128, 128, 128] {
        (0..pauses).for_each(|_| std::hint::spin_loop());
        match lock.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(e)) => return e.into_inner(),
            Err(TryLockError::WouldBlock) => {}
        }
    }
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
