//! Unstarted tasks of one worker, open to everybody: spawners push, the owner and thieves take.
//!
//! Unstarted tasks lie in no private place, so a wedged worker strands none of them. An intrusive FIFO under a spin
//! lock of one byte: the critical sections are a few instructions (a steal walks at most [`STEAL`] links), and both
//! sides of a push or pop cost one locked instruction. A Chase-Lev deque would save that one on the push, and need
//! memory of its own that must shrink again after a burst of a million.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use crate::task::TaskCell;

/// The most tasks that one steal takes.
pub(crate) const STEAL: usize = 16;

/// See the module's head.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Fresh {
    lock: AtomicBool,
    first: AtomicPtr<TaskCell>,
    last: AtomicPtr<TaskCell>,
    len: AtomicUsize,
}

struct Locked<'a>(&'a Fresh);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0.lock.store(false, Ordering::Release);
    }
}

impl Fresh {
    pub(crate) fn new() -> Fresh {
        Fresh {
            lock: AtomicBool::new(false),
            first: AtomicPtr::default(),
            last: AtomicPtr::default(),
            len: AtomicUsize::new(0),
        }
    }

    #[inline(always)]
    fn lock(&self) -> Locked<'_> {
        let mut spins = 0u32;
        while self.lock.swap(true, Ordering::Acquire) {
            spins += 1;
            if spins < 64 {
                std::hint::spin_loop();
            } else {
                // The holder may have lost its CPU to us.
                std::thread::yield_now();
            }
        }
        Locked(self)
    }

    /// How many wait here. Exact only under the lock.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// As `len() == 0`, ordered after the caller's fence.
    pub(crate) fn looks_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Adds an unstarted task at the end.
    #[inline]
    pub(crate) fn push(&self, cell: &'static TaskCell) {
        let p = std::ptr::from_ref(cell).cast_mut();
        cell.next.store(std::ptr::null_mut(), Ordering::Relaxed);
        let _held = self.lock();
        let last = self.last.load(Ordering::Relaxed);
        if last.is_null() {
            self.first.store(p, Ordering::Relaxed);
        } else {
            // SAFETY: cells are type-stable, and a queued one's link belongs to this queue.
            unsafe { (*last).next.store(p, Ordering::Relaxed) };
        }
        self.last.store(p, Ordering::Relaxed);
        self.len.store(self.len.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn pop_locked(&self) -> Option<&'static TaskCell> {
        let p = self.first.load(Ordering::Relaxed);
        if p.is_null() {
            return None;
        }
        // SAFETY: as in `push`.
        let cell: &'static TaskCell = unsafe { &*p };
        let next = cell.next.load(Ordering::Relaxed);
        self.first.store(next, Ordering::Relaxed);
        if next.is_null() {
            self.last.store(std::ptr::null_mut(), Ordering::Relaxed);
        }
        self.len.store(self.len.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        Some(cell)
    }

    /// Takes the oldest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<&'static TaskCell> {
        if self.len() == 0 {
            return None;
        }
        let _held = self.lock();
        self.pop_locked()
    }

    /// Moves up to half of what is here, at most [`STEAL`], to `to`; returns how many.
    pub(crate) fn steal_into(&self, to: &Fresh) -> usize {
        if self.len() == 0 {
            return 0;
        }
        let mut taken = [None; STEAL];
        let mut n = 0;
        {
            let _held = self.lock();
            let want = self.len().div_ceil(2).min(STEAL);
            while n < want {
                taken[n] = self.pop_locked();
                n += 1;
            }
        }
        for cell in taken.into_iter().flatten() {
            to.push(cell);
        }
        n
    }
}
