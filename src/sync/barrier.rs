//! A barrier with std's surface.

#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use super::const_new::const_unless_modelled;
use super::gate::Gate;
use crate::observe::WaitKind;
use crate::scheduler::suspend;

/// Lets a number of tasks or threads through when all of them have come, with [`std::sync::Barrier`]'s surface.
///
/// # Examples
/// ```
/// use coro::sync::Barrier;
///
/// coro::run(|| {
///     let barrier = Barrier::new(3);
///     let leaders = coro::in_parallel((0..3).map(|_| || barrier.wait().is_leader())).unwrap();
///     assert_eq!(leaders.into_iter().filter(|l| *l).count(), 1);
/// });
/// ```
///
/// # Cancellation
/// A wait that is interrupted leaves the barrier as if it had never come to it, so that the others need one more. Unless
/// the last one had come just before: then it has been counted, and the others were let through.
pub struct Barrier {
    wanted: usize,
    /// How many have come and wait.
    gate: Gate<usize>,
}

impl UnwindSafe for Barrier {}
impl RefUnwindSafe for Barrier {}

impl Barrier {
    const_unless_modelled! {
        /// A barrier for `n` tasks; 0 is as 1.
        #[track_caller]
        pub fn new(n: usize) -> Barrier {
            Barrier { wanted: n, gate: Gate::counting(0, 0, n) }
        }
    }

    /// Gives it a name for the views.
    #[must_use = "the named barrier is the result"]
    pub const fn named(mut self, name: &'static str) -> Barrier {
        self.gate.shown.object.set_name(name);
        self
    }

    /// Waits until all have come; one of them, the last, is told to be the leader. The barrier is then as new.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due; see [`Barrier`].
    pub fn wait(&self) -> BarrierWaitResult {
        match self.wait_until(None) {
            Some(result) => result,
            None => unreachable!("a wait without a deadline has none"),
        }
    }

    /// As [`wait`](Barrier::wait), for at most `limit`: `None` if the others had not come by then. The caller has then
    /// left the barrier again.
    ///
    /// # Cancellation
    /// As [`wait`](Barrier::wait).
    pub fn wait_timeout(&self, limit: Duration) -> Option<BarrierWaitResult> {
        // A limit that no `Instant` can hold is none.
        match Instant::now().checked_add(limit) {
            Some(deadline) => self.wait_until(Some(deadline)),
            None => self.wait_until(None),
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Option<BarrierWaitResult> {
        suspend::checkpoint();
        let mut inner = self.gate.lock();
        self.gate.shown.object.used(suspend::user());
        if inner.state + 1 >= self.wanted {
            inner.state = 0;
            self.gate.shown.set(0);
            self.gate.open(inner);
            return Some(BarrierWaitResult(true));
        }
        inner.state += 1;
        let shown = &self.gate.shown;
        shown.set(inner.state);
        let through = self.gate.wait(inner, WaitKind::Barrier, deadline, |come| {
            *come -= 1;
            shown.set(*come);
        });
        through.then_some(BarrierWaitResult(false))
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}

/// Whether the caller of [`Barrier::wait`] was its leader.
pub struct BarrierWaitResult(bool);

impl BarrierWaitResult {
    /// True for exactly one of those who were let through together.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl fmt::Debug for BarrierWaitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierWaitResult").field("is_leader", &self.is_leader()).finish()
    }
}
