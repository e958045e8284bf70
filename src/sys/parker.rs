//! Blocks a plain thread until another one wakes it.

use std::cell::Cell;
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
    /// The parker of a thread whose `OWN` is gone. It needs no destructor, so it can be reached until the very end.
    static LATE: Cell<Option<&'static Arc<ThreadParker>>> = const { Cell::new(None) };
}

impl ThreadParker {
    /// The running thread's own parker, the same one from call to call: whoever is told of it must find the thread there.
    ///
    /// A destructor of a thread-local may wait after the parker's own destructor has run; such a thread gets one more,
    /// which is never freed.
    pub(crate) fn current() -> Arc<ThreadParker> {
        OWN.try_with(Arc::clone).unwrap_or_else(|_| {
            let late = LATE.get().unwrap_or_else(|| Box::leak(Box::default()));
            LATE.set(Some(late));
            late.clone()
        })
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
