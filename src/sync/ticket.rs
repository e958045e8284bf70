//! The waiting lines of channels: whoever is served gets the thing itself, and waits end exactly once.
//!
//! A waiter has one [`Ticket`] and, in each line that it stands in, one [`Node`]. A wait on one channel has one node; a
//! choice between several (`choice.rs`) has several of one ticket, which is why the two are apart.
//!
//! Invariants: the links of a node, every line, and the slot of a linked node are touched only under the lock of the
//! line's channel. The ticket's word decides who ends the wait: WAITING becomes CLAIMED by whoever serves the waiter,
//! or WITHDRAWN by the waiter itself, never both. Whoever claimed writes the slot, copies the unparker and sets the
//! word to its end last: from then on the waiter's frame may go. Must not know values, queues or errors.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomPinned;
use std::ptr;

use crate::scheduler::handover::{self, Caller};
use crate::sys::atomic::{AtomicU32, Ordering};
use crate::task::Unparker;

const WAITING: u32 = 0;
const CLAIMED: u32 = 1;
const WITHDRAWN: u32 = 2;
/// From here on the wait is over.
const SERVED: u32 = 3;
const DISCONNECTED: u32 = 4;

/// How somebody else ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The slot of a receiver is filled, that of a sender is empty.
    Served,
    /// Nobody is left on the other side; the slot is as it was.
    Disconnected,
}

/// What became of the attempt to leave a line.
#[must_use = "a waiter that was served first has something in its slot"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withdrawal {
    /// Nobody will serve the waiter any more.
    Left,
    /// Somebody already has.
    TooLate(End),
}

/// One wait of a task or thread, in its own frame.
#[derive(Debug)]
pub(super) struct Ticket {
    word: AtomicU32,
    /// Then it stands in one line, and who ends the wait is decided under that line's lock.
    one_line: bool,
    unparker: Unparker,
}

impl Ticket {
    /// For as many lines as there may be.
    pub(super) fn new() -> Ticket {
        Ticket { word: AtomicU32::new(WAITING), one_line: false, unparker: handover::caller().unparker() }
    }

    /// For a node in one line, and no other ever.
    #[inline]
    pub(super) fn for_one_line(caller: Caller) -> Ticket {
        Ticket { word: AtomicU32::new(WAITING), one_line: true, unparker: caller.unparker() }
    }

    /// How the wait ended, once it has.
    #[inline]
    pub(super) fn end(&self) -> Option<End> {
        match self.word.load(Ordering::Acquire) {
            SERVED => Some(End::Served),
            DISCONNECTED => Some(End::Disconnected),
            _ => None,
        }
    }

    /// The one place where serving and withdrawing compete. Under the lock of one of the ticket's lines: if it has no other, nobody
    /// comes in between, and the exchange (one of eight in half a round trip of two tasks) is left out.
    #[inline]
    fn decide(&self, to: u32) -> bool {
        if self.one_line {
            let waits = self.word.load(Ordering::Relaxed) == WAITING;
            if waits {
                self.word.store(to, Ordering::Relaxed);
            }
            return waits;
        }
        self.word.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// After this the ticket may be gone.
    #[inline]
    fn finish(&self, end: u32) -> Wake {
        let wake = Wake(self.unparker.clone());
        self.word.store(end, Ordering::Release);
        wake
    }
}

/// A waiter that was served and must now be woken, outside the lock.
#[must_use = "a waiter that is not woken sleeps for ever"]
#[derive(Debug)]
pub(super) struct Wake(Unparker);

impl Wake {
    #[inline(always)]
    pub(super) fn wake(self, caller: Caller) {
        caller.unpark(&self.0);
    }
}

/// A place in one line: a sender with its message, or a receiver with room for one.
#[derive(Debug)]
pub(super) struct Node<T> {
    ticket: *const Ticket,
    next: Cell<*const Node<T>>,
    prev: Cell<*const Node<T>>,
    linked: Cell<bool>,
    /// Of the waiter's nodes, this is the one by which it was claimed.
    claimed: Cell<bool>,
    /// The waiter's before it is linked and after the end; of whoever holds the lock in between.
    slot: UnsafeCell<Option<T>>,
    /// Others reach it by its address while its owner may hold what it lies in by `&mut`.
    _pinned: PhantomPinned,
}

impl<T> Node<T> {
    pub(super) fn new(ticket: &Ticket, slot: Option<T>) -> Node<T> {
        Node {
            ticket,
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
            linked: Cell::new(false),
            claimed: Cell::new(false),
            slot: UnsafeCell::new(slot),
            _pinned: PhantomPinned,
        }
    }

    /// How the wait ended, if it did by way of this node. Under the lock of its line, after `withdraw`.
    pub(super) fn served(&self) -> Option<End> {
        // SAFETY: the waiter itself calls, and its ticket outlives its node.
        if self.claimed.get() { unsafe { &*self.ticket }.end() } else { None }
    }

    /// What is in the slot, after the end.
    pub(super) fn into_slot(self) -> Option<T> {
        debug_assert!(!self.linked.get());
        self.slot.into_inner()
    }
}

/// First in, first out.
#[derive(Debug)]
pub(super) struct Line<T> {
    first: *const Node<T>,
    last: *const Node<T>,
}

// SAFETY: nodes are reached under the channel's lock only, and what moves through them are values.
unsafe impl<T: Send> Send for Line<T> {}

impl<T> Line<T> {
    pub(super) const fn new() -> Line<T> {
        Line { first: ptr::null(), last: ptr::null() }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Whether somebody else than that waiter can be served here.
    pub(super) fn has_other(&self, own: &Ticket) -> bool {
        let mut at = self.first;
        // SAFETY: linked nodes are alive, and so is their ticket.
        while let Some(node) = unsafe { at.as_ref() } {
            // SAFETY: as above.
            let waits = unsafe { (*node.ticket).word.load(Ordering::Acquire) } == WAITING;
            if waits && !ptr::eq(node.ticket, own) {
                return true;
            }
            at = node.next.get();
        }
        false
    }

    /// # Safety
    /// The node and its ticket stay where they are until `withdraw` was called for the node; for a ticket with one node alone:
    /// or the ticket has ended.
    pub(super) unsafe fn push_back(&mut self, node: &Node<T>) {
        node.linked.set(true);
        node.next.set(ptr::null());
        node.prev.set(self.last);
        if self.last.is_null() {
            self.first = node;
        } else {
            // SAFETY: linked nodes are alive.
            unsafe { (*self.last).next.set(node) };
        }
        self.last = node;
    }

    fn remove(&mut self, node: &Node<T>) {
        debug_assert!(node.linked.get());
        node.linked.set(false);
        let (prev, next) = (node.prev.get(), node.next.get());
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

    /// The waiter takes its node out of the line, if it is still to be served.
    pub(super) fn withdraw(&mut self, node: &Node<T>) -> Withdrawal {
        // SAFETY: the waiter itself calls, and its ticket outlives its node.
        let ticket = unsafe { &*node.ticket };
        let left = ticket.decide(WITHDRAWN);
        if node.linked.get() {
            self.remove(node);
        }
        match ticket.end() {
            Some(end) if !left => Withdrawal::TooLate(end),
            // Withdrawn just now or before. Nobody is between claiming and the end: that is done under this lock.
            _ => Withdrawal::Left,
        }
    }

    /// Takes the first waiter out that nobody else ends, and its slot and ticket with it.
    #[inline]
    fn claim(&mut self) -> Option<(*mut Option<T>, *const Ticket)> {
        while !self.first.is_null() {
            // SAFETY: linked nodes are alive, and so is their ticket.
            let (node, ticket) = unsafe { (&*self.first, &*(*self.first).ticket) };
            self.remove(node);
            if ticket.decide(CLAIMED) {
                node.claimed.set(true);
                return Some((node.slot.get(), node.ticket));
            }
        }
        None
    }

    /// Gives the value to the first waiting receiver; back if there is none.
    #[inline]
    pub(super) fn give(&mut self, value: T) -> Result<Wake, T> {
        if self.is_empty() {
            return Err(value);
        }
        match self.claim() {
            None => Err(value),
            Some((slot, ticket)) => {
                // SAFETY: claimed and not yet at its end, so slot and ticket are alive and the slot is ours. It is
                // empty, which is why nothing is dropped under the lock.
                let wake = unsafe {
                    ptr::write(slot, Some(value));
                    (*ticket).finish(SERVED)
                };
                Ok(wake)
            }
        }
    }

    /// Takes the message of the first waiting sender.
    #[inline]
    pub(super) fn take(&mut self) -> Option<(T, Wake)> {
        if self.is_empty() {
            return None;
        }
        let (slot, ticket) = self.claim()?;
        // SAFETY: as in `give`; a sender waits with its message in the slot.
        unsafe {
            let value = (*slot).take().expect("a sender waits with its message");
            Some((value, (*ticket).finish(SERVED)))
        }
    }

    /// Tells the first waiter that nobody will serve it.
    pub(super) fn dismiss(&mut self) -> Option<Wake> {
        let (_, ticket) = self.claim()?;
        // SAFETY: as in `give`.
        Some(unsafe { (*ticket).finish(DISCONNECTED) })
    }
}
