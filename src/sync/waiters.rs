//! The waiting line of one lock or channel.
//!
//! Invariants: every field of a linked node, and every list, is touched only under the primitive's own lock, but for
//! `state`, which the waiter polls. Whoever takes a node out copies the unparker first and sets the state last: from
//! then on the node's frame may end. Wake and cancel are decided under the lock: a node that is still linked was not
//! woken, a node that is not was, and the loser acts on that.

use std::cell::Cell;
use std::ptr;
use std::time::Instant;

use crate::observe::WaitReason;
use crate::scheduler::suspend;
use crate::sys::atomic::{AtomicU32, Ordering};
use crate::task::Unparker;

const WAITING: u32 = 0;
const NOTIFIED: u32 = 1;
const GRANTED: u32 = 2;

/// One waiting task or thread, in its own frame.
#[derive(Debug)]
pub(super) struct Waiter {
    state: AtomicU32,
    unparker: Unparker,
    next: Cell<*const Waiter>,
    prev: Cell<*const Waiter>,
    linked: Cell<bool>,
    /// The waiter was woken in vain before: it is owed the thing itself.
    pub(super) owed: Cell<bool>,
    /// One word for the primitive: how much is wanted, or since when.
    pub(super) note: Cell<u64>,
}

// SAFETY: the `Cell`s are touched under the primitive's lock only (see the module's head).
unsafe impl Sync for Waiter {}

impl Waiter {
    pub(super) fn new() -> Waiter {
        Waiter {
            state: AtomicU32::new(WAITING),
            unparker: suspend::current_unparker(),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
            linked: Cell::new(false),
            owed: Cell::new(false),
            note: Cell::new(0),
        }
    }

    /// Ready to be linked again.
    pub(super) fn rearm(&self) {
        self.state.store(WAITING, Ordering::Relaxed);
    }

    /// Woken, with nothing promised.
    pub(super) fn notified(&self) -> bool {
        self.state.load(Ordering::Acquire) != WAITING
    }

    /// Woken with the thing itself.
    pub(super) fn granted(&self) -> bool {
        self.state.load(Ordering::Acquire) == GRANTED
    }

    /// Waits until woken. Unwinds if an interrupt is due: the caller's guard cleans up.
    pub(super) fn wait(&self, reason: WaitReason) {
        while !self.notified() {
            suspend::wait(reason);
        }
    }

    /// As [`wait`](Waiter::wait), without looking at interrupts.
    pub(super) fn wait_shielded(&self, reason: WaitReason) {
        while !self.notified() {
            suspend::wait_shielded(reason);
        }
    }

    /// As [`wait`](Waiter::wait), until `deadline` at the latest; whether it was woken by then.
    pub(super) fn wait_until(&self, reason: WaitReason, deadline: Option<Instant>) -> bool {
        suspend::wait_for(reason, deadline, || self.notified())
    }

    /// Under the lock.
    pub(super) fn is_linked(&self) -> bool {
        self.linked.get()
    }
}

/// A node that was taken out and whose owner must now be woken, outside the lock.
#[must_use = "a taken waiter that is not woken sleeps for ever"]
#[derive(Debug)]
pub(super) struct Taken(Unparker);

impl Taken {
    pub(super) fn wake(self) {
        crate::scheduler::unpark(&self.0);
    }
}

/// First in, first out.
#[derive(Debug)]
pub(super) struct WaitList {
    first: *const Waiter,
    last: *const Waiter,
}

// SAFETY: nodes are reached under the primitive's lock only.
unsafe impl Send for WaitList {}

impl WaitList {
    pub(super) const fn new() -> WaitList {
        WaitList { first: ptr::null(), last: ptr::null() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// # Safety
    /// The node stays where it is until it was taken or removed.
    pub(super) unsafe fn push_back(&mut self, w: &Waiter) {
        w.linked.set(true);
        w.next.set(ptr::null());
        w.prev.set(self.last);
        if self.last.is_null() {
            self.first = w;
        } else {
            // SAFETY: linked nodes are alive.
            unsafe { (*self.last).next.set(w) };
        }
        self.last = w;
    }

    /// # Safety
    /// As for `push_back`.
    pub(super) unsafe fn push_front(&mut self, w: &Waiter) {
        w.linked.set(true);
        w.prev.set(ptr::null());
        w.next.set(self.first);
        if self.first.is_null() {
            self.last = w;
        } else {
            // SAFETY: linked nodes are alive.
            unsafe { (*self.first).prev.set(w) };
        }
        self.first = w;
    }

    pub(super) fn remove(&mut self, w: &Waiter) {
        debug_assert!(w.linked.get());
        w.linked.set(false);
        let (prev, next) = (w.prev.get(), w.next.get());
        if prev.is_null() {
            self.first = next;
        } else {
            // SAFETY: linked nodes are alive.
            unsafe { (*prev).next.set(next) };
        }
        if next.is_null() {
            self.last = prev;
        } else {
            // SAFETY: as above.
            unsafe { (*next).prev.set(prev) };
        }
    }

    fn take(&mut self, state: u32) -> Option<Taken> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: linked nodes are alive until their state is set.
        let w = unsafe { &*self.first };
        self.remove(w);
        let taken = Taken(w.unparker.clone());
        w.state.store(state, Ordering::Release);
        Some(taken)
    }

    /// Takes the first waiter out and tells it to try.
    pub(super) fn take_first(&mut self) -> Option<Taken> {
        self.take(NOTIFIED)
    }

    /// Takes the first waiter out and gives it the thing itself.
    pub(super) fn grant_first(&mut self) -> Option<Taken> {
        self.take(GRANTED)
    }

    /// Whether the first waiter is owed the thing itself.
    pub(super) fn first_is_owed(&self) -> bool {
        // SAFETY: linked nodes are alive.
        !self.first.is_null() && unsafe { (*self.first).owed.get() }
    }

    /// The first waiter's note.
    pub(super) fn first_note(&self) -> Option<u64> {
        // SAFETY: linked nodes are alive.
        (!self.first.is_null()).then(|| unsafe { (*self.first).note.get() })
    }
}
