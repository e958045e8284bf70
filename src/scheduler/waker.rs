//! What a [`Waker`] stands for here: a task or a plain thread that polls a future and waits in between.
//!
//! Invariants: a waker may be called by anybody at any time, also when the wait, or the task, is long over: whom it wakes it
//! knows by identity. A wake that comes before the wait is kept. Once closed it wakes nobody. Must not know futures.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use super::suspend;
use crate::observe::{Counted, WaitKind, WaitReason};
use crate::task::Unparker;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct TaskWaker {
    /// What the views see: what is polled, where, how often, and who woke it last.
    shown: Counted,
    woken: AtomicBool,
    who: Unparker,
}

impl TaskWaker {
    /// For the running task or thread, which polls `what`.
    pub(crate) fn new(what: &'static str, site: &'static Location<'static>) -> Arc<TaskWaker> {
        let shown = Counted::at(site, what, suspend::ticks() as usize);
        Arc::new(TaskWaker { shown, woken: AtomicBool::new(false), who: suspend::current_unparker() })
    }

    /// A poll begins: what wakes from now on is news to it.
    pub(crate) fn begin_poll(&self) {
        self.shown.set(self.shown.number() + 1);
        // An exchange, so that the poll sees whatever anybody did before a wake that is forgotten here.
        self.woken.swap(false, Ordering::AcqRel);
    }

    /// Whether there was a wake since the last poll began.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// What whoever polls waits for. Valid as long as this lives.
    pub(crate) fn reason(&self) -> WaitReason {
        WaitReason::counted(WaitKind::Future, &self.shown)
    }

    /// Whatever is still called wakes nobody from now on.
    pub(crate) fn close(&self) {
        self.woken.store(true, Ordering::Release);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.load(Ordering::Relaxed) {
            let (who, at) = suspend::user();
            // A thread does not know the time, and does not come by often.
            self.shown.object.used((who, if at == 0 { suspend::ticks() } else { at }));
        }
        if !self.woken.swap(true, Ordering::AcqRel) {
            super::unpark(&self.who);
        }
    }
}

/// Wakes, in the worker's loop. A waker is anybody's code: its panic, which the hook has told of, must not end the worker.
pub(super) fn wake_and_drop(who: Unparker) {
    match who.into_waker() {
        Ok(waker) => wake(waker),
        Err(who) => super::unpark(&who),
    }
}

/// As [`wake_and_drop`], where it is known to be a waker.
pub(crate) fn wake(waker: Waker) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        // It may panic again when it is dropped.
        std::mem::forget(payload);
    }
}
