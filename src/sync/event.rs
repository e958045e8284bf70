//! An event: a flag that tasks wait for.

#![forbid(unsafe_code)]

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

use super::const_new::const_unless_modelled;
use super::gate::Gate;
use crate::observe::WaitKind;
use crate::scheduler::suspend;
use crate::sys::atomic::{AtomicBool, Ordering};

/// A flag that tasks and threads can wait for, until somebody sets it.
///
/// It stays set until [`clear`](Event::clear): while it is set nobody waits. [`set`](Event::set) lets through everybody
/// who waits at that moment, also if it is cleared again before they run, so that `set` and `clear` one after the other
/// let exactly those through. It counts nothing: two `set`s are as one. For one waiter per permit there is
/// [`Semaphore`](super::Semaphore).
///
/// What was written before `set` is seen by whoever was let through by it.
///
/// # Examples
/// ```
/// use coro::sync::Event;
///
/// static READY: Event = Event::new().named("configuration is read");
///
/// coro::run(|| {
///     let waits = coro::spawn(|| READY.wait());
///     READY.set();
///     waits.join().unwrap();
///     assert!(READY.is_set());
/// });
/// ```
///
/// # Cancellation
/// The waits unwind if an interrupt is due, also if the event is set, so that a loop over it ends.
pub struct Event {
    /// Written under the gate's lock.
    set: AtomicBool,
    gate: Gate<()>,
}

impl UnwindSafe for Event {}
impl RefUnwindSafe for Event {}

impl Event {
    const_unless_modelled! {
        /// An event that is not set.
        #[track_caller]
        pub fn new() -> Event {
            Event { set: AtomicBool::new(false), gate: Gate::new(()) }
        }
    }

    /// Gives it a name for the views.
    #[must_use = "the named event is the result"]
    pub const fn named(mut self, name: &'static str) -> Event {
        self.gate.shown.object.set_name(name);
        self
    }

    /// Sets it and lets everybody through who waits.
    pub fn set(&self) {
        let inner = self.gate.lock();
        self.set.store(true, Ordering::Release);
        self.gate.shown.object.used(suspend::user());
        self.gate.open(inner);
    }

    /// Waits are waits again.
    pub fn clear(&self) {
        let _inner = self.gate.lock();
        self.set.store(false, Ordering::Relaxed);
    }

    /// Whether it is set now.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Waits until it is set.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    pub fn wait(&self) {
        self.wait_until(None);
    }

    /// As [`wait`](Event::wait), for at most `limit`; whether it was set in time.
    ///
    /// # Cancellation
    /// As [`wait`](Event::wait).
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        // A limit that no `Instant` can hold is none.
        match Instant::now().checked_add(limit) {
            Some(deadline) => self.wait_until(Some(deadline)),
            None => self.wait_until(None),
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> bool {
        suspend::checkpoint();
        if self.is_set() {
            return true;
        }
        let inner = self.gate.lock();
        if self.is_set() {
            return true;
        }
        self.gate.wait(inner, WaitKind::Event, deadline, |()| {})
    }
}

impl Default for Event {
    fn default() -> Event {
        Event::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish_non_exhaustive()
    }
}
