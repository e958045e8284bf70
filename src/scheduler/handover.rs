//! Waits in which something may be handed to the waiter at any moment, and what keeps tasks that never wait from keeping
//! out those that would end their loops.
//!
//! Invariant: nothing here unwinds between the moment at which a waiter can be served and the one at which it has
//! found out whether it was. Must not know what is handed over.

#![forbid(unsafe_code)]

use std::time::Instant;

use super::suspend::{ArmedTimer, Here, here, refuse_switch, wait_for};
use crate::observe::WaitReason;

/// A task gives way once after so much without a wait: 64 waits in a row that had nothing to wait for ([`Here::need_not_wait`]), or 1,024
/// calls that never wait.
const READY_BUDGET: u32 = 1024;

impl Here {
    /// What the task would have waited for is there.
    #[inline(always)]
    pub(super) fn need_not_wait(&self) {
        self.spend_streak(READY_BUDGET / 64);
    }

    #[inline(always)]
    fn spend_streak(&self, much: u32) {
        let streak = &self.local().ready_streak;
        streak.set(streak.get() + much);
        if streak.get() >= READY_BUDGET {
            self.give_way();
        }
    }
}

/// How a wait ended that [`wait_revocably`] waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Done,
    Expired,
    /// A checkpoint would unwind now.
    Interrupted,
}

/// As [`wait_for`], for waits that may be served at any moment: says that an interrupt is due instead of unwinding, so
/// that the caller first finds out whether it was served.
///
/// # Panics
/// Inside `no_switch`, as every wait; the caller asks [`switch_refused`] before it offers anything.
#[inline]
pub(crate) fn wait_revocably(reason: WaitReason, deadline: Option<Instant>, mut done: impl FnMut() -> bool) -> Waited {
    match (here(), deadline) {
        // What most waits are: next to the primitive itself, so that what it knows of the wait stays in registers.
        (Some(h), None) => loop {
            if done() {
                return Waited::Done;
            }
            // Not a checkpoint: that could still unwind, with something just handed over.
            if h.interrupted() {
                return Waited::Interrupted;
            }
            h.park(reason);
        },
        (Some(h), Some(deadline)) => wait_until(&h, reason, deadline, done),
        (None, _) if wait_for(reason, deadline, done) => Waited::Done,
        (None, _) => Waited::Expired,
    }
}

#[inline(never)]
fn wait_until(h: &Here, reason: WaitReason, deadline: Instant, mut done: impl FnMut() -> bool) -> Waited {
    if done() {
        return Waited::Done;
    }
    let timer = ArmedTimer::new(h, h.worker.timer_ns(deadline));
    loop {
        // As above.
        if h.interrupted() {
            return Waited::Interrupted;
        }
        h.park(reason);
        if done() {
            return Waited::Done;
        }
        if !timer.pending() {
            return Waited::Expired;
        }
    }
}

/// Whether a wait would panic here because of `no_switch`.
#[inline]
pub(crate) fn switch_refused() -> bool {
    here().is_some_and(|h| h.local().no_switch.get() > 0)
}

/// The panic itself.
pub(crate) fn refuse() -> ! {
    refuse_switch()
}

/// A `try_…` found nothing to do. Every so often the task gives way: what it polls for may have to be done by a task of
/// its own worker.
pub(crate) fn polled_in_vain() {
    if let Some(h) = here() {
        crate::scheduler::io::spend(&h);
    }
}

/// A call that never waits did something. A task that does nothing else gives way too, but much later than one whose calls might have
/// waited: nobody expects such a call to switch, a guard of a lock of std's may be held over it, and std's programs send in loops that
/// only another task ends.
#[inline(always)]
pub(crate) fn went_on() {
    if let Some(h) = here() {
        h.spend_streak(1);
    }
}
