//! Waits in which something may be handed to the waiter at any moment, and what keeps tasks that never wait from keeping
//! out those that would end their loops.
//!
//! Invariant: nothing here unwinds between the moment at which a waiter can be served and the one at which it has
//! found out whether it was. Must not know what is handed over.

#![forbid(unsafe_code)]

use std::time::Instant;

use super::marks;
use super::suspend::{ArmedTimer, Here, current_unparker, here, refuse_switch, wait_for};
use super::worker::Worker;
use crate::observe::WaitReason;
use crate::task::Unparker;

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

/// Whoever calls a primitive, a task or a plain thread: looked up once, and handed along to whatever the call asks of it. A call that
/// sends and one that waits for the answer asked eight times between them. It stays what it is over a wait, and on its thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller(Option<Here>);

/// Who calls.
#[inline(always)]
pub(crate) fn caller() -> Caller {
    Caller(here())
}

impl Caller {
    /// As [`checkpoint`](super::suspend::checkpoint).
    #[inline(always)]
    pub(crate) fn checkpoint(self) {
        if let Some(h) = self.0 {
            h.need_not_wait();
            h.checkpoint_wait();
        }
    }

    /// A call that never waits did something. A task that does nothing else gives way too, but much later than one whose calls might have
    /// waited: nobody expects such a call to switch, a guard of a lock of std's may be held over it, and std's programs send in loops that
    /// only another task ends.
    #[inline(always)]
    pub(crate) fn went_on(self) {
        if let Some(h) = self.0 {
            h.spend_streak(1);
        }
    }

    /// As [`user`](marks::user).
    #[inline(always)]
    pub(crate) fn user(self) -> (u64, u64) {
        marks::user_of(self.0)
    }

    /// Who is to be woken to wake the caller.
    #[inline(always)]
    pub(crate) fn unparker(self) -> Unparker {
        match self.0 {
            Some(h) => Unparker::task(h.task()),
            None => current_unparker(),
        }
    }

    /// Whether a wait would panic because of `no_switch`.
    #[inline(always)]
    pub(crate) fn switch_refused(self) -> bool {
        self.0.is_some_and(|h| h.local().no_switch.get() > 0)
    }

    /// Wakes whoever waits, as [`unpark`](super::unpark).
    #[inline(always)]
    pub(crate) fn unpark(self, who: &Unparker) {
        super::wake::unpark_from(|| self.0.map(|h| h.worker).or_else(Worker::current), who);
    }

    /// As [`wait_revocably`], right after a checkpoint of the same slice and what could not switch. So nothing is asked before the first
    /// park: whoever serves or interrupts the waiter from then on leaves a token, and the park returns at once.
    #[inline(always)]
    pub(crate) fn wait_revocably(
        self,
        reason: WaitReason,
        deadline: Option<Instant>,
        mut done: impl FnMut() -> bool,
    ) -> Waited {
        match (self.0, deadline) {
            // What most waits are: next to the primitive itself, so that what it knows of the wait stays in registers.
            (Some(h), None) => loop {
                debug_assert!(!h.would_unwind() || h.cell.state.has_token(), "a wait without a checkpoint before it");
                h.park_here(reason);
                if done() {
                    return Waited::Done;
                }
                // Not a checkpoint: that could still unwind, with something just handed over.
                if h.interrupted() {
                    return Waited::Interrupted;
                }
            },
            _ => wait_revocably(reason, deadline, done),
        }
    }
}

/// As [`wait_for`], for waits that may be served at any moment: says that an interrupt is due instead of unwinding, so
/// that the caller first finds out whether it was served.
///
/// # Panics
/// Inside `no_switch`, as every wait; the caller asks [`switch_refused`] before it offers anything.
#[inline(never)]
pub(crate) fn wait_revocably(reason: WaitReason, deadline: Option<Instant>, mut done: impl FnMut() -> bool) -> Waited {
    match (here(), deadline) {
        (Some(h), None) => loop {
            if done() {
                return Waited::Done;
            }
            // As above.
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
    caller().switch_refused()
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
