//! The handle of one stack in use.
//!
//! Purpose: 16 bytes that own a slot until they are given back to the pool they came from.
//! Invariants: at most one handle per slot; dropping a handle leaks the slot, since frames may still live on it.
//! Must not know: regions, the pool's lists.

use std::num::NonZeroUsize;

use super::class::{ClassId, GUARD};

/// An open, guarded stack. Owned; give it back to the pool of the worker that took it.
#[derive(Debug)]
#[must_use = "a dropped stack is lost until the process ends"]
pub(crate) struct Stack {
    /// Lowest usable address. Never zero, so that a `Result` around it takes no third word.
    low: NonZeroUsize,
    /// From the lowest bit: the pool's number for the slab (32), position in the slab (8), class (8). One word, not
    /// fields: written in parts and read as a whole, a handle would stall the processor's store buffer.
    tag: u64,
}

const _: () = assert!(size_of::<std::io::Result<Stack>>() <= 16);

/// Neighbouring slots start this far apart within a page ...
const COLOUR_STEP: usize = 64;
/// ... with this many different distances: 1 KiB in all, so that a parked task still fits its one page.
const COLOURS: usize = 16;

impl Stack {
    /// The stack whose guard begins at `guard_low`.
    #[inline]
    pub(super) fn new(guard_low: usize, class: ClassId, node: u32, slot: u8) -> Stack {
        // No mapping ends at the highest address: the sum does not wrap to zero.
        let low = NonZeroUsize::MIN.saturating_add(guard_low + (GUARD - 1));
        Stack { low, tag: u64::from(node) | u64::from(slot) << 32 | (class.index() as u64) << 40 }
    }

    /// Where a task's first frame begins; 16-byte aligned.
    ///
    /// A few cache lines below the slot's end, different for neighbours: slots lie at equal distances, and without this
    /// the hot frames of all tasks would share a few cache sets.
    #[inline]
    pub(crate) fn top(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.slot_top() - usize::from(self.slot()) % COLOURS * COLOUR_STEP)
    }

    /// Lowest usable address; the guard ends here.
    #[inline]
    pub(crate) fn limit(&self) -> usize {
        self.low.get()
    }

    /// First address above the slot.
    #[inline]
    pub(crate) fn slot_top(&self) -> usize {
        self.low.get() + self.usable_size()
    }

    /// Bytes from [`limit`](Self::limit) to [`slot_top`](Self::slot_top).
    #[inline]
    pub(crate) fn usable_size(&self) -> usize {
        self.class().usable_size()
    }

    #[inline]
    pub(crate) fn class(&self) -> ClassId {
        ClassId::from_index((self.tag >> 40) as u8)
    }

    /// The pool's number for the slab.
    #[inline]
    pub(super) fn node(&self) -> u32 {
        self.tag as u32
    }

    /// Position in the slab.
    #[inline]
    pub(super) fn slot(&self) -> u8 {
        (self.tag >> 32) as u8
    }

    /// Lowest address of the guard.
    #[inline]
    pub(super) fn guard_low(&self) -> usize {
        self.low.get() - GUARD
    }
}

/// Tells the address sanitizer that `[low, top)` holds no live variables any more.
///
/// A task that was unwound or leaked leaves its red zones behind; the next task on the stack would be accused of touching
/// them. Does nothing unless built with `--cfg coro_asan`, which goes with `-Zsanitizer=address`.
#[inline]
pub(crate) fn unpoison(low: usize, top: usize) {
    #[cfg(coro_asan)]
    {
        unsafe extern "C" {
            fn __asan_unpoison_memory_region(addr: *const std::ffi::c_void, size: usize);
        }
        // SAFETY: only the sanitizer's shadow of a stack that no task uses changes.
        unsafe { __asan_unpoison_memory_region(std::ptr::with_exposed_provenance(low), top - low) };
    }
    #[cfg(not(coro_asan))]
    let _ = (low, top);
}
