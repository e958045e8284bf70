//! What the shipped locks and channels see as `crate::scheduler`: park, wake, and a cancellation that unwinds.

use crate::task::Unparker;

/// `scheduler::unpark`.
pub(crate) fn unpark(who: &Unparker) {
    who.0.wake.notify();
}

pub(crate) mod marks {
    use super::suspend::here;

    pub(crate) fn patience_end() -> u64 {
        0
    }

    /// Nobody has patience whose deadline has come.
    pub(crate) fn is_past(_: u64) -> bool {
        here().is_some_and(|h| h.expired())
    }
}

pub(crate) mod suspend {
    //! The same functions as the runtime's, on a model thread.

    use std::any::Any;
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::Arc;
    use std::time::Instant;

    use crate::observe::WaitReason;
    use crate::sys::atomic::Ordering;
    use crate::task::{Local, Task, Unparker};

    loom::thread_local! {
        static CURRENT: RefCell<Option<Arc<Task>>> = RefCell::new(None);
    }

    /// The payload of a cancellation.
    struct Cancelled;

    pub(crate) struct Here(Arc<Task>);

    pub(crate) fn here() -> Option<Here> {
        Some(Here(task()))
    }

    fn task() -> Arc<Task> {
        CURRENT.with(|c| c.borrow_mut().get_or_insert_with(Task::new).clone())
    }

    /// Runs `f` as `task`; `None` if it was cancelled.
    pub(crate) fn run_as<T>(task: Arc<Task>, f: impl FnOnce() -> T) -> Option<T> {
        CURRENT.with(|c| *c.borrow_mut() = Some(task));
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => Some(value),
            Err(payload) if payload.is::<Cancelled>() => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    /// `Task::cancel`.
    pub(crate) fn cancel(task: &Task) {
        task.cancelled.store(true, Ordering::SeqCst);
        task.wake.notify();
    }

    /// Whether a payload is a cancellation.
    pub(crate) fn is_interrupt(payload: &(dyn Any + Send)) -> bool {
        payload.is::<Cancelled>()
    }

    impl Here {
        /// Tells one task from another.
        pub(crate) fn id(&self) -> u64 {
            Arc::as_ptr(&self.0) as u64
        }

        /// No model has a clock.
        pub(crate) fn slice_start(&self) -> u64 {
            0
        }

        pub(crate) fn local(&self) -> &Local {
            &self.0.local
        }

        /// No model refuses to switch.
        pub(crate) fn refuse_if_no_switch(&self) {}

        pub(crate) fn would_unwind(&self) -> bool {
            self.0.cancelled.load(Ordering::SeqCst)
        }

        pub(crate) fn checkpoint_wait(&self) {
            if self.would_unwind() {
                resume_unwind(Box::new(Cancelled));
            }
        }

        pub(crate) fn expired(&self) -> bool {
            self.0.expired.load(Ordering::SeqCst)
        }

        pub(crate) fn park(&self, _: WaitReason) {
            self.0.wake.wait();
        }
    }

    pub(crate) fn this_thread() -> u64 {
        unreachable!("every model thread is a task")
    }

    pub(crate) fn user() -> (u64, u64) {
        (Here(task()).id(), 0)
    }

    /// No model has a view.
    pub(crate) fn set_wait_extra(_: u64) {}

    pub(crate) fn ticks() -> u64 {
        0
    }

    pub(crate) fn current_unparker() -> Unparker {
        Unparker(task())
    }

    /// As in `scheduler/suspend.rs`.
    pub(crate) fn checkpoint() {
        if let Some(h) = here() {
            h.checkpoint_wait();
        }
    }

    /// Nothing is held back in the model: it has no waits under a guard.
    pub(crate) fn deliver_held_back() {}

    pub(crate) fn wait(reason: WaitReason) {
        let h = Here(task());
        h.checkpoint_wait();
        h.park(reason);
    }

    pub(crate) fn wait_shielded(reason: WaitReason) {
        Here(task()).park(reason);
    }

    /// A wait with a deadline ends by it as soon as [`expire`] was called for the task.
    pub(crate) fn wait_for(reason: WaitReason, deadline: Option<Instant>, mut done: impl FnMut() -> bool) -> bool {
        let h = Here(task());
        while !done() {
            if deadline.is_some() && h.0.expired.load(Ordering::SeqCst) {
                return false;
            }
            h.checkpoint_wait();
            h.park(reason);
        }
        true
    }

    /// The deadline of the task's timed wait has come.
    pub(crate) fn expire(task: &Task) {
        task.expired.store(true, Ordering::SeqCst);
        task.wake.notify();
    }

    /// Nothing in a model panics but a cancelled wait, and that holds no guard.
    pub(crate) fn unwinding() -> bool {
        false
    }
}

pub(crate) mod handover {
    //! The same functions as the runtime's, on a model thread.

    use std::time::Instant;

    use super::suspend::{self, here};
    use crate::observe::WaitReason;
    use crate::task::Unparker;

    /// As in `scheduler/handover.rs`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Waited {
        Done,
        Expired,
        Interrupted,
    }

    /// A model thread, whose calls look it up again.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Caller;

    pub(crate) fn caller() -> Caller {
        Caller
    }

    impl Caller {
        pub(crate) fn checkpoint(self) {
            suspend::checkpoint();
        }

        pub(crate) fn went_on(self) {}

        pub(crate) fn user(self) -> (u64, u64) {
            suspend::user()
        }

        pub(crate) fn unparker(self) -> Unparker {
            suspend::current_unparker()
        }

        /// No model runs inside `no_switch`.
        pub(crate) fn switch_refused(self) -> bool {
            false
        }

        pub(crate) fn unpark(self, who: &Unparker) {
            super::unpark(who);
        }

        /// As in `scheduler/handover.rs`: without a deadline nothing is asked before the first park.
        pub(crate) fn wait_revocably(
            self,
            reason: WaitReason,
            deadline: Option<Instant>,
            mut done: impl FnMut() -> bool,
        ) -> Waited {
            if deadline.is_some() {
                return wait_revocably(reason, deadline, done);
            }
            let Some(h) = here() else { unreachable!() };
            loop {
                h.park(reason);
                if done() {
                    return Waited::Done;
                }
                if h.would_unwind() {
                    return Waited::Interrupted;
                }
            }
        }
    }

    /// A wait with a deadline ends by it as soon as `expire` was called for the task.
    pub(crate) fn wait_revocably(
        reason: WaitReason,
        deadline: Option<Instant>,
        mut done: impl FnMut() -> bool,
    ) -> Waited {
        let Some(h) = here() else { unreachable!() };
        while !done() {
            if h.would_unwind() {
                return Waited::Interrupted;
            }
            if deadline.is_some() && h.expired() {
                return Waited::Expired;
            }
            h.park(reason);
        }
        Waited::Done
    }

    /// No model runs inside `no_switch`.
    pub(crate) fn switch_refused() -> bool {
        false
    }

    pub(crate) fn refuse() -> ! {
        unreachable!()
    }

    /// Every model thread runs by itself: nobody has to give way.
    pub(crate) fn polled_in_vain() {}
}
