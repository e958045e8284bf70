//! Wake-ups from other threads: a stack that anyone pushes to and the owner empties at once.
//!
//! A Treiber stack whose only removal is "take everything", so it has no ABA problem. The owner reverses what it took
//! and so runs tasks in the order in which they were woken. Pushing is wait-free but for the retry of its exchange.

use crate::sys::atomic::{AtomicPtr, Ordering};

/// What can lie in an inbox: something with one link.
pub(crate) trait Linked: Sized {
    fn link(&self) -> &AtomicPtr<Self>;
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    head: AtomicPtr<T>,
}

impl<T: Linked> Inbox<T> {
    pub(crate) fn new() -> Inbox<T> {
        Inbox { head: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Adds `item`.
    ///
    /// # Safety
    /// The item lives until the owner has taken it, and its link belongs to this inbox until then.
    pub(crate) unsafe fn push(&self, item: *mut T) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the caller gave us the link.
            unsafe { (*item).link().store(head, Ordering::Relaxed) };
            match self.head.compare_exchange_weak(head, item, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Whether a push has happened that no `take_all` has seen.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::SeqCst).is_null()
    }

    /// A guess without ordering.
    pub(crate) fn looks_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes everything, oldest first, as a list linked by `link`. By the owner alone.
    pub(crate) fn take_all(&self) -> *mut T {
        if self.head.load(Ordering::Relaxed).is_null() {
            return std::ptr::null_mut();
        }
        let mut item = self.head.swap(std::ptr::null_mut(), Ordering::Acquire);
        let mut reversed = std::ptr::null_mut();
        while !item.is_null() {
            // SAFETY: pushed items live until they are taken, and now they are ours.
            unsafe {
                let next = (*item).link().load(Ordering::Relaxed);
                (*item).link().store(reversed, Ordering::Relaxed);
                reversed = item;
                item = next;
            }
        }
        reversed
    }
}
