//! Time limits around any code: the scopes of one task, innermost first, in the frames that made them.
//!
//! A timer of the task's own worker marks the scope as expired and wakes the task; the checkpoints of `suspend.rs` do the
//! rest. Invariants: a scope is linked, and its timer armed, exactly while [`EnteredScope`] borrows it. Each expiry is
//! numbered and only the frame with that number stops its unwind.

use std::cell::Cell;
use std::panic;
use std::ptr;
use std::time::{Duration, Instant};

use super::suspend::{Expired, Here, here};
use crate::task::TimeoutScope;
use crate::timer::{TimerAction, TimerKey};

/// `timeout` for a task: see [`crate::timeout`].
pub(crate) fn timeout_scope<T>(h: Here, limit: Duration, f: impl FnOnce() -> T) -> Result<T, Option<T>> {
    let now = Instant::now();
    enter(h, now.checked_add(limit), limit.is_zero(), f)
}

/// As [`timeout_scope`], with the moment itself.
pub(crate) fn timeout_scope_at<T>(h: Here, deadline: Instant, f: impl FnOnce() -> T) -> Result<T, Option<T>> {
    enter(h, Some(deadline), deadline <= Instant::now(), f)
}

/// `deadline`: `None` is beyond what an `Instant` can hold, and never comes.
fn enter<T>(h: Here, deadline: Option<Instant>, expired: bool, f: impl FnOnce() -> T) -> Result<T, Option<T>> {
    // Numbered, because a payload that somebody kept must not match a later scope in the same place on the stack.
    h.local().scopes_begun.set(h.local().scopes_begun.get() + 1);
    let scope = TimeoutScope {
        timer: Cell::new(TimerKey::NONE),
        outer: h.local().scopes.get().into(),
        serial: h.local().scopes_begun.get(),
        deadline,
        shields: h.local().shields.get(),
        expired: expired.into(),
        error_given: false.into(),
    };
    // The guard borrows the scope and so pins it to this frame.
    let entered = EnteredScope::enter(&h, &scope);
    let result = panic::catch_unwind(panic::AssertUnwindSafe(f));
    drop(entered);
    match result {
        // The timer fires when the worker looks; code that never waited may have ended too late before that.
        Ok(value) if scope.expired.get() || deadline.is_some_and(|d| Instant::now() >= d) => Err(Some(value)),
        Ok(value) => Ok(value),
        Err(payload) => match payload.downcast::<Expired>() {
            Ok(e) if e.task == h.id() && e.scope == scope.serial => Err(None),
            Ok(other) => panic::resume_unwind(other),
            Err(payload) => panic::resume_unwind(payload),
        },
    }
}

/// The nearest deadline of the running task's scopes: see [`crate::deadline`].
pub(crate) fn deadline() -> Option<Instant> {
    let h = here()?;
    let mut nearest: Option<Instant> = None;
    let mut s = h.local().scopes.get();
    while !s.is_null() {
        // SAFETY: linked scopes live in frames of this task.
        let scope = unsafe { &*s };
        nearest = [nearest, scope.deadline].into_iter().flatten().min();
        s = scope.outer.get();
    }
    nearest
}

struct EnteredScope<'a> {
    here: &'a Here,
    scope: &'a TimeoutScope,
}

impl<'a> EnteredScope<'a> {
    fn enter(here: &'a Here, scope: &'a TimeoutScope) -> Self {
        let local = here.local();
        local.scopes.set(scope);
        if scope.expired.get() {
            local.attention.set(true);
        } else if let Some(deadline) = scope.deadline {
            // The action points to the scope, which this guard borrows; its drop removes the timer.
            let (task, scope_ptr) = (ptr::from_ref(here.cell).cast(), ptr::from_ref(scope).cast());
            let action = TimerAction { task, id: here.id(), scope: scope_ptr };
            scope.timer.set(here.worker.timers.borrow_mut().insert(here.worker.timer_ns(deadline), action));
        }
        EnteredScope { here, scope }
    }
}

impl Drop for EnteredScope<'_> {
    fn drop(&mut self) {
        self.here.worker.timers.borrow_mut().remove(self.scope.timer.get());
        let local = self.here.local();
        local.scopes.set(self.scope.outer.get());
        let mut left = false;
        let mut s = local.scopes.get();
        while !s.is_null() {
            // SAFETY: outer scopes live in outer frames of this task.
            unsafe {
                left |= (*s).expired.get();
                s = (*s).outer.get();
            }
        }
        local.attention.set(left);
    }
}
