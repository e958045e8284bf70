//! Blocks a plain thread until another one wakes it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A token that one thread waits for. Spurious wake-ups are possible, lost ones are not.
#[derive(Debug, Default)]
pub(crate) struct ThreadParker {
    token: Mutex<bool>,
    arrived: Condvar,
}

thread_local! {
    static OWN: Arc<ThreadParker> = Arc::default();
}

impl ThreadParker {
    /// The running thread's own parker (a fresh one while the thread ends).
    pub(crate) fn current() -> Arc<ThreadParker> {
        OWN.try_with(Arc::clone).unwrap_or_default()
    }

    /// Waits for the token, at most until `deadline`.
    pub(crate) fn park(&self, deadline: Option<Instant>) {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        while !*token {
            match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
                None => token = self.arrived.wait(token).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return,
                Some(left) => {
                    token = self.arrived.wait_timeout(token, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        *token = false;
    }

    /// Gives the token.
    pub(crate) fn unpark(&self) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.arrived.notify_one();
    }
}
