//! The closure that a task starts with and the result that it ends with, both in the cell's payload or boxed.
//!
//! Invariant: `payload_kind` says what the payload holds (0 nothing, 1 closure, 2 result); it is written by whoever
//! owns the cell in its state. One `VTable` per pair of closure and result type knows the types.

use std::any::Any;
use std::mem::MaybeUninit;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;

use super::cell::{INLINE_WORDS, TaskCell};
use super::state::Offer;

const NOTHING: u8 = 0;
const CLOSURE: u8 = 1;
const RESULT: u8 = 2;

/// What a join gives: the value, or what the task unwound with.
pub(crate) type JoinResult<T> = Result<T, Box<dyn Any + Send + 'static>>;

/// What a task unwound with.
pub(crate) type Payload = Box<dyn Any + Send + 'static>;
/// Told of the payload of a task that failed.
pub(crate) type Failed<'a> = dyn Fn(&(dyn Any + Send)) + 'a;

/// What the runtime does with a closure and result whose types it does not know.
#[derive(Debug)]
pub(crate) struct VTable {
    /// Runs the closure (or, when the second argument is set, drops it and stores that payload as the failure) and
    /// stores the result. On the task's own stack. Returns what the notifier needs to know of a panic.
    pub(crate) run: unsafe fn(&TaskCell, Option<Payload>, &Failed<'_>),
    /// Drops whatever the payload holds.
    pub(crate) drop_payload: unsafe fn(&TaskCell),
}

const fn fits<V>() -> bool {
    size_of::<V>() <= INLINE_WORDS * 8 && align_of::<V>() <= 8
}

/// # Safety
/// The caller owns the payload and it holds nothing.
unsafe fn put<V>(cell: &TaskCell, value: V, kind: u8) {
    let slot = cell.payload.get().cast::<MaybeUninit<u8>>();
    // SAFETY: exclusive by the caller's promise; size and alignment are checked by `fits`, a pointer always fits.
    unsafe {
        if fits::<V>() {
            slot.cast::<V>().write(value);
        } else {
            slot.cast::<*mut V>().write(Box::into_raw(Box::new(value)));
        }
    }
    cell.payload_kind.store(kind, Ordering::Relaxed);
}

/// # Safety
/// The caller owns the payload and it holds a `V` put there by `put`.
unsafe fn get<V>(cell: &TaskCell) -> V {
    cell.payload_kind.store(NOTHING, Ordering::Relaxed);
    let slot = cell.payload.get().cast::<MaybeUninit<u8>>();
    // SAFETY: by the caller's promise; `payload_kind` now says that it is gone.
    unsafe { if fits::<V>() { slot.cast::<V>().read() } else { *Box::from_raw(slot.cast::<*mut V>().read()) } }
}

unsafe fn run<F: FnOnce() -> T, T>(cell: &TaskCell, instead: Option<Payload>, failed: &Failed<'_>) {
    // SAFETY: the task owns its payload from `start` on and the closure was stored at spawn.
    let f: F = unsafe { get(cell) };
    let result: JoinResult<T> = match instead {
        None => panic::catch_unwind(AssertUnwindSafe(f)),
        Some(payload) => match panic::catch_unwind(AssertUnwindSafe(|| drop(f))) {
            Ok(()) => Err(payload),
            Err(dropped_badly) => Err(dropped_badly),
        },
    };
    if let Err(payload) = &result {
        failed(&**payload);
    }
    // Whoever drops it, a value without a destructor is dropped by doing nothing.
    let trivial = result.is_ok() && !std::mem::needs_drop::<T>();
    // SAFETY: the closure was taken, so the payload holds nothing.
    unsafe { put(cell, result, RESULT) };
    if !trivial && cell.state.offer_result() == Offer::NobodyAsks {
        // The value is dropped here, on the task's stack, where its `Drop` may wait.
        // SAFETY: without a handle the payload is still the task's, and holds what was just put there.
        unsafe { drop_payload::<F, T>(cell) };
    }
}

unsafe fn drop_payload<F: FnOnce() -> T, T>(cell: &TaskCell) {
    let dropped = panic::catch_unwind(AssertUnwindSafe(|| match cell.payload_kind.load(Ordering::Relaxed) {
        // SAFETY: the kind says which of the two the payload holds, and the caller owns it.
        CLOSURE => drop(unsafe { get::<F>(cell) }),
        // SAFETY: as above.
        RESULT => drop(unsafe { get::<JoinResult<T>>(cell) }),
        _ => {}
    }));
    // A panic in a destructor of a value that nobody wanted has nowhere to go; the hook has reported it. What it panicked
    // with may do the same again when it is dropped: that one is leaked, because the caller must not unwind here.
    if let Err(payload) = dropped
        && let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)))
    {
        std::mem::forget(again);
    }
}

/// The table of a pair of types.
pub(crate) const fn vtable<F: FnOnce() -> T, T>() -> &'static VTable {
    const { &VTable { run: run::<F, T>, drop_payload: drop_payload::<F, T> } }
}

/// Stores the closure of a task that is being made.
///
/// # Safety
/// The cell is free and the caller's own.
pub(crate) unsafe fn store_closure<F>(cell: &TaskCell, f: F) {
    // SAFETY: forwarded.
    unsafe { put(cell, f, CLOSURE) }
}

/// Whether there is nothing to drop: nearly always, because a join takes the result.
///
/// # Safety
/// The caller owns the payload.
#[inline(always)]
pub(crate) unsafe fn is_empty(cell: &TaskCell) -> bool {
    cell.payload_kind.load(Ordering::Relaxed) == NOTHING
}

/// Whether the result of a task that has ended is still there.
///
/// # Safety
/// As for [`take_result`].
pub(crate) unsafe fn has_result(cell: &TaskCell) -> bool {
    cell.payload_kind.load(Ordering::Relaxed) == RESULT
}

/// Takes the result of a task that has ended.
///
/// # Safety
/// The caller is the join handle of a task with result type `T` that is DONE, and takes it once.
pub(crate) unsafe fn take_result<T>(cell: &TaskCell) -> JoinResult<T> {
    debug_assert_eq!(cell.payload_kind.load(Ordering::Relaxed), RESULT);
    // SAFETY: forwarded.
    unsafe { get(cell) }
}
