//! A wait group: waiting until nobody is at work any more.

#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::const_new::const_unless_modelled;
use super::gate::Gate;
use crate::observe::WaitKind;
use crate::scheduler::suspend;

/// Counts who is still at work; others wait until nobody is. (Go's `WaitGroup`; an inverted semaphore.)
///
/// It may be used again and again, and may grow from zero at any time. [`wait`](WaitGroup::wait) returns when the count
/// is zero, or has been zero at some moment since it was called: whoever waits when it falls to zero is let through,
/// also if somebody is added right after.
///
/// A member counted by a guard ([`enter`](WaitGroup::enter), [`enter_owned`](WaitGroup::enter_owned)) leaves even if
/// its task panics or is cancelled, which a plain [`done`](WaitGroup::done) at the end of a closure does not.
///
/// # Examples
/// ```
/// use coro::sync::WaitGroup;
/// use std::sync::Arc;
///
/// coro::run(|| {
///     let at_work = Arc::new(WaitGroup::new());
///     for _ in 0..10 {
///         let member = at_work.enter_owned();
///         coro::spawn(move || {
///             let _member = member;
///             coro::yield_slice();
///         });
///     }
///     at_work.wait();
///     assert_eq!(at_work.count(), 0);
/// });
/// ```
///
/// # Cancellation
/// The waits unwind if an interrupt is due; members are not touched by that.
#[doc(alias = "inverted_semaphore")]
pub struct WaitGroup {
    gate: Gate<usize>,
}

impl UnwindSafe for WaitGroup {}
impl RefUnwindSafe for WaitGroup {}

impl WaitGroup {
    const_unless_modelled! {
        /// An empty group.
        #[track_caller]
        pub fn new() -> WaitGroup {
            WaitGroup { gate: Gate::new(0) }
        }
    }

    /// Gives it a name for the views.
    #[must_use = "the named wait group is the result"]
    pub const fn named(mut self, name: &'static str) -> WaitGroup {
        self.gate.shown.object.set_name(name);
        self
    }

    /// Counts `n` more members. To be called before whoever waits could find the group empty: by the task that
    /// spawns, not by the one that is spawned.
    ///
    /// # Panics
    /// With more than `usize::MAX` members.
    pub fn add(&self, n: usize) {
        let mut inner = self.gate.lock();
        let sum = inner.state.checked_add(n);
        inner.state = sum.unwrap_or(inner.state);
        self.gate.shown.set(inner.state);
        drop(inner);
        assert!(sum.is_some(), "a wait group cannot count more than usize::MAX members");
    }

    /// One member less; the last one lets everybody through who waits.
    ///
    /// # Panics
    /// If the group is empty.
    pub fn done(&self) {
        assert!(self.leave(), "WaitGroup::done was called more often than members were added");
    }

    /// Whether there was somebody to leave.
    fn leave(&self) -> bool {
        let mut inner = self.gate.lock();
        if inner.state == 0 {
            return false;
        }
        inner.state -= 1;
        self.gate.shown.set(inner.state);
        self.gate.shown.object.used(suspend::user());
        if inner.state == 0 {
            self.gate.open(inner);
        }
        true
    }

    /// Counts one more member, until the guard is dropped.
    pub fn enter(&self) -> WaitGroupGuard<'_> {
        self.add(1);
        WaitGroupGuard(self)
    }

    /// As [`enter`](WaitGroup::enter), with a guard that can go to another task.
    pub fn enter_owned(self: &Arc<Self>) -> OwnedWaitGroupGuard {
        self.add(1);
        OwnedWaitGroupGuard(self.clone())
    }

    /// How many members there are now.
    pub fn count(&self) -> usize {
        self.gate.lock().state
    }

    /// Waits until there is no member; returns at once if there is none.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    #[doc(alias = "block_till_zero")]
    pub fn wait(&self) {
        self.wait_until(None);
    }

    /// As [`wait`](WaitGroup::wait), for at most `limit`; whether the group was empty in time.
    ///
    /// # Cancellation
    /// As [`wait`](WaitGroup::wait).
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        // A limit that no `Instant` can hold is none.
        match Instant::now().checked_add(limit) {
            Some(deadline) => self.wait_until(Some(deadline)),
            None => self.wait_until(None),
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        suspend::checkpoint();
        let inner = self.gate.lock();
        inner.state == 0 || self.gate.wait(inner, WaitKind::WaitGroup, deadline, |_| {})
    }
}

impl Default for WaitGroup {
    fn default() -> WaitGroup {
        WaitGroup::new()
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitGroup").field("count", &self.count()).finish_non_exhaustive()
    }
}

fn leave(group: &WaitGroup) {
    // More `done`s than members is somebody else's mistake; it must not abort a task that unwinds.
    if !group.leave() && !suspend::unwinding() {
        panic!("WaitGroup::done was called more often than members were added");
    }
}

/// A member of a [`WaitGroup`], until dropped.
#[must_use = "the member leaves when the guard is dropped"]
pub struct WaitGroupGuard<'a>(&'a WaitGroup);

impl Drop for WaitGroupGuard<'_> {
    fn drop(&mut self) {
        leave(self.0);
    }
}

impl fmt::Debug for WaitGroupGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitGroupGuard").field(self.0).finish()
    }
}

/// A member of a [`WaitGroup`] that may move to another task, until dropped.
#[must_use = "the member leaves when the guard is dropped"]
pub struct OwnedWaitGroupGuard(Arc<WaitGroup>);

impl Drop for OwnedWaitGroupGuard {
    fn drop(&mut self) {
        leave(&self.0);
    }
}

impl fmt::Debug for OwnedWaitGroupGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedWaitGroupGuard").field(&self.0).finish()
    }
}
