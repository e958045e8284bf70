//! The waiting line under every condition variable.
//!
//! Invariants: a waiter is in the line before the mutex is given up, so that no notification falls between. Waiting
//! ends by a notification, the deadline or an interrupt, decided under the line's lock: a waiter that was taken out was
//! notified, whatever else happened; one that will not act on that passes it on. Every way out takes the mutex again
//! first, as POSIX does for a cancelled wait, so that the guard is what it says. Must not know values or results.

use std::mem;
use std::time::Instant;

use super::const_new::const_unless_modelled;
use super::held::{Exclusive, Held};
use super::raw_mutex::RawMutex;
use super::waiters::{Taken, WaitList, Waiter};
use super::woven::{Call, Outcome, State};
use crate::observe::{Object, WaitKind, WaitReason};
use crate::scheduler::suspend::{self, here};
use crate::sys::atomic::{AtomicBool, Lock, LockGuard, Ordering};

/// A condition variable without a name for its results.
#[derive(Debug)]
pub(super) struct RawCondvar {
    /// Somebody waits. Written under the line's lock. Read without: a notifier that must be heard by a waiter has seen
    /// the mutex after that waiter gave it up, or heard of the wait in some other way, and then sees this.
    occupied: AtomicBool,
    pub(super) object: Object,
    line: Lock<WaitList>,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// By a notification, or for no reason.
    Notified,
    /// By the deadline.
    TimedOut,
}

impl RawCondvar {
    const_unless_modelled! {
        #[track_caller]
        pub(super) fn new() -> RawCondvar {
            RawCondvar { occupied: AtomicBool::new(false), object: Object::new(), line: Lock::new(WaitList::new()) }
        }
    }

    fn line(&self) -> LockGuard<'_, WaitList> {
        self.line.lock()
    }

    /// Gives the mutex up, waits, and takes it again.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due, with the mutex taken again; that unwind does not poison, because the waiter left
    /// the value to others when it began to wait.
    pub(super) fn wait(&self, held: &mut Held<'_, RawMutex>, deadline: Option<Instant>) -> Woken {
        if let Some(h) = here() {
            h.refuse_if_no_switch();
        }
        let marks = mem::replace(&mut held.marks, false);
        let woken = if Call::Wait.is_watched() {
            let outcome = |woken: &Woken| match woken {
                Woken::Notified => Outcome::Done,
                Woken::TimedOut => Outcome::Failed("timed out"),
            };
            Call::Wait.told(&self.object, State::Event, || self.wait_unmarked(held, deadline), outcome, drop)
        } else {
            self.wait_unmarked(held, deadline)
        };
        held.marks = marks;
        woken
    }

    fn wait_unmarked(&self, held: &mut Held<'_, RawMutex>, deadline: Option<Instant>) -> Woken {
        let waiter = Waiter::new();
        let mut waiting = Waiting { condvar: self, waiter: &waiter, held, queued: false, locked: true };
        waiting.enqueue();
        waiting.give_up_mutex();
        let reason = WaitReason::object(WaitKind::Condvar, &self.object);
        suspend::set_wait_extra(WaitReason::object(WaitKind::Lock, &waiting.held.core.raw.object).detail);
        // An interrupt ends the wait like a notification: it is raised below, with the mutex, and not in the park.
        let in_time = suspend::wait_for(reason, deadline, || waiter.notified() || interrupted());
        let notified = waiting.leave();
        waiting.take_mutex();
        if notified {
            // The interrupt that may have come as well waits for the next wait.
            return Woken::Notified;
        }
        if !in_time {
            return Woken::TimedOut;
        }
        suspend::checkpoint();
        // The interrupt cannot be raised just now: a wake-up for no reason.
        Woken::Notified
    }

    #[inline]
    pub(super) fn notify_one(&self) {
        self.object.used(suspend::user());
        if self.occupied.load(Ordering::Relaxed) {
            self.notify_one_slow();
        }
    }

    #[cold]
    fn notify_one_slow(&self) {
        let taken = {
            let mut line = self.line();
            let taken = line.take_first();
            self.occupied.store(!line.is_empty(), Ordering::Relaxed);
            taken
        };
        if let Some(t) = taken {
            t.wake();
        }
    }

    #[inline]
    pub(super) fn notify_all(&self) {
        self.object.used(suspend::user());
        if self.occupied.load(Ordering::Relaxed) {
            self.notify_all_slow();
        }
    }

    #[cold]
    fn notify_all_slow(&self) {
        let mut all = Vec::new();
        {
            let mut line = self.line();
            all.extend(std::iter::from_fn(|| line.take_first()));
            self.occupied.store(false, Ordering::Relaxed);
        }
        // Those of one worker come to the mutex one after the other, mostly when it is free: moving them into its line
        // would spare little.
        all.into_iter().for_each(Taken::wake);
    }
}

fn interrupted() -> bool {
    here().is_some_and(|h| h.would_unwind())
}

/// A wait from its beginning to its end, whichever way it ends.
struct Waiting<'w, 'm> {
    condvar: &'w RawCondvar,
    waiter: &'w Waiter,
    held: &'w mut Held<'m, RawMutex>,
    queued: bool,
    locked: bool,
}

impl Waiting<'_, '_> {
    fn enqueue(&mut self) {
        let mut line = self.condvar.line();
        // SAFETY: `self` borrows the waiter and takes it out when dropped.
        unsafe { line.push_back(self.waiter) };
        self.condvar.occupied.store(true, Ordering::Relaxed);
        self.queued = true;
    }

    /// Leaves the line; whether a notification came before.
    fn leave(&mut self) -> bool {
        self.queued = false;
        let mut line = self.condvar.line();
        let linked = self.waiter.is_linked();
        if linked {
            line.remove(self.waiter);
            self.condvar.occupied.store(!line.is_empty(), Ordering::Relaxed);
        }
        !linked
    }

    fn give_up_mutex(&mut self) {
        self.locked = false;
        self.held.core.end();
        self.held.core.raw.unlock();
    }

    /// Takes the mutex without counting it: an interrupt may still be raised.
    fn take_mutex(&mut self) {
        self.held.core.raw.lock_shielded();
        self.locked = true;
    }
}

impl Drop for Waiting<'_, '_> {
    fn drop(&mut self) {
        if self.queued && self.leave() {
            // An interrupt arrived and unwinds although the notification was first: the next one shall have it.
            self.condvar.notify_one();
        }
        if !self.locked {
            self.take_mutex();
        }
        self.held.core.begin();
    }
}
