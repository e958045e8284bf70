//! Blocks a plain thread until another one wakes it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Threads that wait for a token, and for nothing else: no time limit ends the wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Changes with every wait that begins or is ended.
static TURNS: AtomicU64 = AtomicU64::new(0);

/// How many plain threads wait for a task or another thread, without a time limit. One that was given its token does
/// not, also if it has not run since.
pub(crate) fn waiting() -> usize {
    WAITING.load(Ordering::SeqCst)
}

/// Tells one moment from another: between two that are alike no wait has begun or ended.
pub(crate) fn turns() -> u64 {
    TURNS.load(Ordering::SeqCst)
}

fn count(begins: bool) {
    TURNS.fetch_add(1, Ordering::SeqCst);
    if begins {
        WAITING.fetch_add(1, Ordering::SeqCst)
    } else {
        WAITING.fetch_sub(1, Ordering::SeqCst)
    };
}

/// A thread that waits so, as long as this lives.
#[derive(Debug)]
pub(crate) struct Waiting(());

impl Waiting {
    pub(crate) fn new() -> Waiting {
        count(true);
        Waiting(())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        count(false);
    }
}

/// A token that one thread waits for. Spurious wake-ups are possible, lost ones are not.
#[derive(Debug, Default)]
pub(crate) struct ThreadParker {
    token: Mutex<Token>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Token {
    given: bool,
    /// Its thread is among those that wait. Undone by whoever gives the token, not by the thread, which may be long in
    /// coming: meanwhile it would seem that nobody can go on.
    counted: bool,
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
        if !token.given && deadline.is_none() {
            token.counted = true;
            count(true);
        }
        while !token.given {
            match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
                None => token = self.arrived.wait(token).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return,
                Some(left) => {
                    token = self.arrived.wait_timeout(token, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        token.given = false;
    }

    /// Gives the token.
    pub(crate) fn unpark(&self) {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        token.given = true;
        if std::mem::take(&mut token.counted) {
            count(false);
        }
        drop(token);
        self.arrived.notify_one();
    }
}
