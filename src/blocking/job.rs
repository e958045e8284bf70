//! One job: its closure, then its result, and who waits for it.
//!
//! Invariants: the closure and the result belong to the stage, which one short lock guards; whoever takes one out of it
//! runs or drops it, outside the lock. So each is run or dropped exactly once, whatever meets whatever: a thread that
//! takes the job up, a waiter that is cancelled, a pool that cannot start a thread.

use std::any::Any;
use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::task::Unparker;

/// What the pool does with a job.
pub(super) trait Job: Send + Sync {
    /// Runs it, unless its waiter has left. Never unwinds.
    fn run(&self);

    /// Says that nobody will run it, unless its waiter has left.
    fn refuse(&self, why: io::Error);
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct JobCell<F, T> {
    stage: Mutex<Stage<F, T>>,
    /// Whom to wake; taken after the stage where both are.
    waiter: Mutex<Unparker>,
}

#[derive(Debug)]
enum Stage<F, T> {
    /// In the pool's queue.
    Waiting(F),
    /// A thread has taken the closure.
    Running,
    /// It has ended: what it returned or the payload of its panic.
    Done(Result<T, Box<dyn Any + Send>>),
    /// No thread could be had.
    Refused(io::Error),
    /// Nobody waits any more, or the waiter has what it waited for.
    Left,
}

impl<F, T> JobCell<F, T> {
    pub(super) fn new(f: F, waiter: Unparker) -> JobCell<F, T> {
        JobCell { stage: Mutex::new(Stage::Waiting(f)), waiter: Mutex::new(waiter) }
    }

    fn stage(&self) -> MutexGuard<'_, Stage<F, T>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether [`take`](JobCell::take) has something to take.
    pub(super) fn finished(&self) -> bool {
        matches!(*self.stage(), Stage::Done(_) | Stage::Refused(_))
    }

    /// What the job returned. Its panic goes on here.
    pub(super) fn take(&self) -> io::Result<T> {
        let stage = mem::replace(&mut *self.stage(), Stage::Left);
        match stage {
            Stage::Done(Ok(value)) => Ok(value),
            Stage::Done(Err(payload)) => panic::resume_unwind(payload),
            Stage::Refused(why) => Err(why),
            Stage::Waiting(_) | Stage::Running | Stage::Left => unreachable!("the job was not finished"),
        }
    }

    /// Somebody else waits from now on: to be called before [`finished`](JobCell::finished) is asked.
    pub(super) fn wait_as(&self, waiter: Unparker) {
        *self.waiter.lock().unwrap_or_else(PoisonError::into_inner) = waiter;
    }

    fn wake(&self) {
        let waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner).clone();
        crate::scheduler::unpark(&waiter);
    }

    /// The waiter goes away: drops what lies here, and what still comes is dropped where it comes.
    pub(super) fn leave(&self) {
        let stage = mem::replace(&mut *self.stage(), Stage::Left);
        drop(stage);
    }

    /// Ends the job and wakes the waiter; if that has left, drops what came.
    fn finish(&self, outcome: Stage<F, T>) {
        let mut stage = self.stage();
        if matches!(*stage, Stage::Left) {
            drop(stage);
            // The thread is the pool's: a result that panics when dropped must not end it. The hook has told of it.
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(outcome))) {
                mem::forget(payload);
            }
            return;
        }
        *stage = outcome;
        drop(stage);
        self.wake();
    }
}

impl<F, T> Job for JobCell<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn run(&self) {
        let mut stage = self.stage();
        let f = match mem::replace(&mut *stage, Stage::Running) {
            Stage::Waiting(f) => f,
            other => {
                *stage = other;
                return;
            }
        };
        drop(stage);
        self.finish(Stage::Done(panic::catch_unwind(AssertUnwindSafe(f))));
    }

    fn refuse(&self, why: io::Error) {
        let mut stage = self.stage();
        let Stage::Waiting(_) = *stage else { return };
        let f = mem::replace(&mut *stage, Stage::Refused(why));
        drop(stage);
        self.wake();
        // On a thread of the user's: as elsewhere, a closure that panics when dropped is its problem.
        drop(f);
    }
}
