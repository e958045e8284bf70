//! What holding a lock exclusively means: the task counts its guards, the views see the owner, an unwind poisons.
//!
//! Shared by the mutex, the writer's side of the read-write lock and their variants without poison, which differ in
//! `marks` alone. Invariant: a [`Held`] exists exactly while its raw lock is held by whoever has the guard, but for the
//! wait of a condition variable, which gives it back before anybody can look. Must not know values.

#![forbid(unsafe_code)]

use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{LockResult, PoisonError};

use super::const_new::const_unless_modelled;
use super::woven::{Call, Outcome, State};
use crate::observe::Object;
use crate::scheduler::suspend::{self, here};
use crate::sys::atomic::{AtomicBool, Ordering};

/// A raw lock that one task or thread can hold alone.
pub(super) trait Exclusive {
    /// What the views show of it.
    fn object(&self) -> &Object;

    /// Somebody took it, a task the first time in its slice: whoever had been woken for it may be late. `at`: about now.
    #[inline]
    fn was_overtaken(&self, at: impl FnOnce() -> u64) {
        let _ = at;
    }

    /// Gives up exclusive access.
    fn unlock(&self);
}

/// A raw lock and whether a holder left its value half changed.
#[derive(Debug)]
pub(super) struct Core<R> {
    pub(super) raw: R,
    poisoned: AtomicBool,
}

impl<R> UnwindSafe for Core<R> {}
impl<R> RefUnwindSafe for Core<R> {}

impl<R> Core<R> {
    const_unless_modelled! {
        pub(super) fn new(raw: R) -> Core<R> {
            Core { raw, poisoned: AtomicBool::new(false) }
        }
    }

    #[inline]
    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Relaxed)
    }

    pub(super) fn clear_poison(&self) {
        self.poisoned.store(false, Ordering::Relaxed);
    }

    /// `value` as the result of an access under this lock.
    #[inline]
    pub(super) fn judge<V>(&self, value: V) -> LockResult<V> {
        if self.is_poisoned() { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}

impl<R: Exclusive> Core<R> {
    /// The running task or thread holds the lock from now on.
    #[inline]
    pub(super) fn begin(&self) {
        match here() {
            Some(h) => {
                let at = h.slice_start();
                if self.raw.object().used((h.id(), at)) {
                    self.raw.was_overtaken(|| at);
                }
                let guards = &h.local().write_guards;
                guards.set(guards.get() + 1);
            }
            // A thread would have to read a clock; the first one that waits for it does that instead.
            None => {
                self.raw.object().used((suspend::this_thread(), 0));
                self.raw.was_overtaken(suspend::ticks);
            }
        }
    }

    /// The running task or thread holds it no longer; the lock itself is still to be given up.
    #[inline]
    pub(super) fn end(&self) {
        if let Some(h) = here() {
            let guards = &h.local().write_guards;
            // A guard of one task may have been passed to another one of the same worker, which never counted it.
            match guards.get().checked_sub(1) {
                Some(n) => guards.set(n),
                None => self.raw.object().hand_on(),
            }
        }
        self.raw.object().released();
    }
}

/// Exclusive access, given up when dropped.
#[derive(Debug)]
pub(super) struct Held<'a, R: Exclusive> {
    pub(super) core: &'a Core<R>,
    /// Whether an unwind that drops this poisons. Not for a lock without poison, and not if the task was already
    /// unwinding when it locked: then the unwinding says nothing about the value.
    pub(super) marks: bool,
    not_send: PhantomData<*const ()>,
}

impl<R: Exclusive> UnwindSafe for Held<'_, R> {}
impl<R: Exclusive> RefUnwindSafe for Held<'_, R> {}

impl<'a, R: Exclusive> Held<'a, R> {
    /// For a lock that the caller has just taken, and that poisons.
    #[inline]
    pub(super) fn new(core: &'a Core<R>) -> Held<'a, R> {
        Held::with_marks(core, !suspend::unwinding())
    }

    /// For a lock that the caller has just taken, and that knows no poison.
    #[inline]
    pub(super) fn unmarked(core: &'a Core<R>) -> Held<'a, R> {
        Held::with_marks(core, false)
    }

    #[inline]
    fn with_marks(core: &'a Core<R>, marks: bool) -> Held<'a, R> {
        core.begin();
        Held { core, marks, not_send: PhantomData }
    }
}

impl<R: Exclusive> Drop for Held<'_, R> {
    #[inline]
    fn drop(&mut self) {
        if self.marks && suspend::unwinding() {
            self.core.poisoned.store(true, Ordering::Relaxed);
        }
        self.core.end();
        self.core.raw.unlock();
        if Call::Unlock.is_watched() {
            Call::Unlock.was_done(self.core.raw.object(), State::Free, Outcome::Done);
        }
    }
}
