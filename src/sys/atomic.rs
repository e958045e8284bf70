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
pub(crate) use super::short_lock::{ShortLock as Lock, ShortLockGuard as LockGuard};
