//! A place to wait until something has come true, and all who wait are let through at once.
//!
//! Under [`Event`](super::Event), [`WaitGroup`](super::WaitGroup), [`Barrier`](super::Barrier) and
//! [`Once`](super::Once), which keep their state inside and forbid unsafe code themselves.
//!
//! Invariants: a waiter belongs to the round in which it was linked. Opening ends the round: whoever is linked then is
//! let through, whatever happens to the state before it runs again, and whoever comes later is not. A waiter that
//! leaves early is still linked, and takes back what it had said in the state under the same lock; one that was let
//! through before its interrupt or its deadline came has waited to the end. Waking is done in batches outside the lock.

use std::time::Instant;

use super::const_new::const_unless_modelled;
use super::waiters::{Taken, WaitList, Waiter};
use crate::observe::{Counted, WaitKind, WaitReason};
use crate::sys::atomic::{Lock, LockGuard};

/// How many are woken between two looks at the lock.
const BATCH: usize = 32;

/// What lies under the lock.
#[derive(Debug)]
pub(super) struct Inner<S> {
    pub(super) state: S,
    round: u64,
    waiting: WaitList,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Gate<S> {
    pub(super) shown: Counted,
    inner: Lock<Inner<S>>,
}

pub(super) type GateGuard<'a, S> = LockGuard<'a, Inner<S>>;

impl<S> Gate<S> {
    const_unless_modelled! {
        #[track_caller]
        pub(super) fn new(state: S) -> Gate<S> {
            Gate::counting(state, 0, 0)
        }
    }

    const_unless_modelled! {
        /// As `new`, for the views: how many have come, and how many are wanted.
        #[track_caller]
        pub(super) fn counting(state: S, number: usize, wanted: usize) -> Gate<S> {
            Gate { shown: Counted::new(number, wanted), inner: Lock::new(Inner { state, round: 0, waiting: WaitList::new() }) }
        }
    }

    pub(super) fn lock(&self) -> GateGuard<'_, S> {
        self.inner.lock()
    }

    /// Waits until the round that `inner` is in has ended, at most until `deadline`; whether it has. `leave` is called
    /// under the lock if the caller leaves before.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt comes before the end of the round.
    pub(super) fn wait(
        &self,
        mut inner: GateGuard<'_, S>,
        kind: WaitKind,
        deadline: Option<Instant>,
        leave: impl FnMut(&mut S),
    ) -> bool {
        let waiter = Waiter::new();
        waiter.note.set(inner.round);
        // SAFETY: `Queued` borrows the waiter and takes it out when dropped.
        unsafe { inner.waiting.push_back(&waiter) };
        drop(inner);
        let mut queued = Queued { gate: self, waiter: &waiter, leave };
        waiter.wait_until(WaitReason::counted(kind, &self.shown), deadline) || !queued.withdraw()
    }

    /// Ends the round of `inner` and wakes everybody who waits in it.
    pub(super) fn open<'a>(&'a self, mut inner: GateGuard<'a, S>) {
        let ended = inner.round;
        if inner.waiting.is_empty() {
            return;
        }
        inner.round += 1;
        loop {
            let mut batch = [const { None::<Taken> }; BATCH];
            let mut full = true;
            for place in &mut batch {
                // Later rounds stand behind.
                if inner.waiting.first_note().is_none_or(|round| round > ended) {
                    full = false;
                    break;
                }
                *place = inner.waiting.take_first();
            }
            drop(inner);
            batch.into_iter().flatten().for_each(Taken::wake);
            if !full {
                return;
            }
            inner = self.lock();
        }
    }
}

/// Takes a waiter out when its wait is left early.
struct Queued<'a, S, L: FnMut(&mut S)> {
    gate: &'a Gate<S>,
    waiter: &'a Waiter,
    leave: L,
}

impl<S, L: FnMut(&mut S)> Queued<'_, S, L> {
    /// Leaves the line; false if the round has ended before.
    fn withdraw(&mut self) -> bool {
        let mut inner = self.gate.lock();
        // The rest of an ended round may still wait for its batch.
        let in_time = self.waiter.is_linked() && self.waiter.note.get() == inner.round;
        if self.waiter.is_linked() {
            inner.waiting.remove(self.waiter);
        }
        if in_time {
            (self.leave)(&mut inner.state);
        }
        in_time
    }
}

impl<S, L: FnMut(&mut S)> Drop for Queued<'_, S, L> {
    fn drop(&mut self) {
        if !self.waiter.notified() {
            self.withdraw();
        }
    }
}
