//! The run queue of one worker: started tasks that can run, in the order in which they became able to.
//!
//! A ring of pointers without atomic operations: only the owner touches it. A ring and not a list through the cells,
//! because it shows what comes later: with thousands of runnable tasks each slice would begin with cache and TLB misses
//! on the task's cell and stack, and a list can only be followed one miss at a time (measured with 10,000 yielding
//! tasks: the list took three times as long). Must not know what the tasks are.

use std::cell::Cell;
use std::ptr;

use crate::task::TaskCell;

/// So many tasks before its turn, a task's cell is fetched ...
const CELL_AHEAD: usize = 12;
/// ... and so many before its turn, the top of its stack.
const STACK_AHEAD: usize = 6;
const SMALLEST: usize = 256;

/// A FIFO.
#[derive(Debug)]
pub(crate) struct RunQueue {
    /// The ring: `mask + 1` slots, a power of two, from a boxed slice.
    slots: Cell<*mut *const TaskCell>,
    mask: Cell<usize>,
    head: Cell<usize>,
    len: Cell<usize>,
}

impl RunQueue {
    pub(crate) fn new() -> RunQueue {
        RunQueue {
            slots: Cell::new(boxed(SMALLEST)),
            mask: Cell::new(SMALLEST - 1),
            head: Cell::new(0),
            len: Cell::new(0),
        }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    #[inline(always)]
    fn slot(&self, i: usize) -> *mut *const TaskCell {
        // SAFETY: masked, so inside the ring.
        unsafe { self.slots.get().add(i & self.mask.get()) }
    }

    #[inline(always)]
    pub(crate) fn push(&self, cell: &'static TaskCell) {
        let len = self.len.get();
        if len > self.mask.get() {
            self.resize(2 * len);
        }
        // SAFETY: the slot is free, because the ring is not full.
        unsafe { self.slot(self.head.get().wrapping_add(len)).write(cell) };
        self.len.set(len + 1);
    }

    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<&'static TaskCell> {
        let len = self.len.get();
        if len == 0 {
            return None;
        }
        let head = self.head.get();
        if len > CELL_AHEAD {
            // SAFETY: both slots are occupied, and cells are type-stable.
            unsafe {
                prefetch_cell(*self.slot(head.wrapping_add(CELL_AHEAD)));
                (**self.slot(head.wrapping_add(STACK_AHEAD))).prefetch_stack();
            }
        }
        self.head.set(head.wrapping_add(1));
        self.len.set(len - 1);
        // SAFETY: the slot was occupied; cells are type-stable.
        Some(unsafe { &**self.slot(head) })
    }

    /// Gives the memory of a burst back.
    pub(crate) fn trim(&self) {
        let want = self.len.get().next_power_of_two().max(SMALLEST);
        if want < self.mask.get() {
            self.resize(want);
        }
    }

    #[cold]
    fn resize(&self, slots: usize) {
        debug_assert!(slots.is_power_of_two() && slots >= self.len.get());
        // Nothing is taken for granted across these two calls: a global allocator that waits (which none should) lets
        // other tasks use the queue meanwhile.
        let new = boxed(slots);
        if slots < self.len.get() {
            free(new, slots);
            return self.resize(self.len.get().next_power_of_two());
        }
        for i in 0..self.len.get() {
            // SAFETY: occupied slots of the old ring; the new one has room for all of them.
            unsafe { new.add(i).write(*self.slot(self.head.get().wrapping_add(i))) };
        }
        let old = self.slots.replace(new);
        let old_slots = self.mask.replace(slots - 1) + 1;
        self.head.set(0);
        free(old, old_slots);
    }
}

/// `ring` came from `boxed(slots)` and is not used any more.
fn free(ring: *mut *const TaskCell, slots: usize) {
    // SAFETY: made by `boxed` with that length; the callers have let go of it.
    drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(ring, slots)) });
}

impl Drop for RunQueue {
    fn drop(&mut self) {
        free(self.slots.get(), self.mask.get() + 1);
    }
}

fn boxed(slots: usize) -> *mut *const TaskCell {
    let ring: Box<[*const TaskCell]> = vec![ptr::null(); slots].into();
    Box::into_raw(ring).cast()
}

/// Two lines of a cell: what every slice touches.
#[inline(always)]
fn prefetch_cell(cell: *const TaskCell) {
    crate::sys::prefetch(cell.cast());
    crate::sys::prefetch(cell.cast::<u8>().wrapping_add(64));
}
