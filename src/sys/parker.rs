//! Blocks a plain thread until another one wakes it.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Threads that wait for a token, and for nothing else: no time limit ends the wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// How many plain threads wait for a task or another thread, without a time limit.
pub(crate) fn waiting() -> usize {
    WAITING.load(Ordering::SeqCst)
}

/// A thread that waits so, as long as this lives.
#[derive(Debug)]
pub(crate) struct Waiting(());

impl Waiting {
    pub(crate) fn new() -> Waiting {
        WAITING.fetch_add(1, Ordering::SeqCst);
        Waiting(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

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
                None => {
                    let _waits = Waiting::new();
                    token = self.arrived.wait(token).unwrap_or_else(PoisonError::into_inner);
                }
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
