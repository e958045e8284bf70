//! Those who stand at one breakpoint of the program's and whom nobody has looked at yet, in the order in which they came.
//!
//! Invariants: whoever goes on is taken out, so that there are never more than stand there; what is closed takes nobody in.
//!
//! Must not know: what they wait for.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::stop::Stop;
use crate::sync::Event;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Comers {
    /// `None`: closed.
    all: Mutex<Option<VecDeque<Arc<Stop>>>>,
    /// Set and cleared under the lock: there is somebody.
    some: Event,
}

impl Comers {
    pub(super) fn new() -> Comers {
        Comers { all: Mutex::new(Some(VecDeque::new())), some: Event::new().named("a breakpoint") }
    }

    fn all(&self) -> MutexGuard<'_, Option<VecDeque<Arc<Stop>>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more stands there; false if nobody will look.
    pub(super) fn comes(&self, stop: &Arc<Stop>) -> bool {
        let mut all = self.all();
        let Some(all) = &mut *all else { return false };
        all.push_back(stop.clone());
        self.some.set();
        true
    }

    /// It stands there no more.
    pub(super) fn goes(&self, stop: &Arc<Stop>) {
        if let Some(all) = &mut *self.all() {
            all.retain(|other| !Arc::ptr_eq(other, stop));
        }
    }

    /// The next one, within `limit`.
    ///
    /// # Cancellation
    /// As a wait for an event.
    pub(super) fn next(&self, limit: Duration) -> Option<Arc<Stop>> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            {
                let mut all = self.all();
                match all.as_mut().and_then(VecDeque::pop_front) {
                    Some(stop) => return Some(stop),
                    None => self.some.clear(),
                }
            }
            let left = deadline.map_or(limit, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() || !self.some.wait_timeout(left) {
                return None;
            }
        }
    }

    /// Nobody looks any more.
    pub(super) fn close(&self) {
        *self.all() = None;
    }
}
