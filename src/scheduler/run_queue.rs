//! The run queue of one worker: started tasks that can run, in the order in which they became able to.
//!
//! Intrusive and without atomic operations (relaxed loads and stores of the link are plain moves): only the owner
//! touches it. Must not know what the tasks are.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::Ordering;

use crate::task::TaskCell;

/// A FIFO.
#[derive(Debug)]
pub(crate) struct RunQueue {
    first: Cell<*mut TaskCell>,
    last: Cell<*mut TaskCell>,
    len: Cell<usize>,
}

impl RunQueue {
    pub(crate) const fn new() -> RunQueue {
        RunQueue { first: Cell::new(ptr::null_mut()), last: Cell::new(ptr::null_mut()), len: Cell::new(0) }
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    #[inline(always)]
    pub(crate) fn push(&self, cell: &'static TaskCell) {
        let p = ptr::from_ref(cell).cast_mut();
        cell.next.store(ptr::null_mut(), Ordering::Relaxed);
        let last = self.last.replace(p);
        if last.is_null() {
            self.first.set(p);
        } else {
            // SAFETY: cells are type-stable, and a queued one's link belongs to this queue.
            unsafe { (*last).next.store(p, Ordering::Relaxed) };
        }
        self.len.set(self.len.get() + 1);
    }

    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<&'static TaskCell> {
        let p = self.first.get();
        if p.is_null() {
            return None;
        }
        // SAFETY: as in `push`.
        let cell: &'static TaskCell = unsafe { &*p };
        let next = cell.next.load(Ordering::Relaxed);
        self.first.set(next);
        if next.is_null() {
            self.last.set(ptr::null_mut());
        } else {
            prefetch(next);
        }
        self.len.set(self.len.get() - 1);
        Some(cell)
    }
}

/// The next task's first line is wanted in a few nanoseconds.
#[inline(always)]
fn prefetch(cell: *const TaskCell) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(cell.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = cell;
}
