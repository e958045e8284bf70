//! Running something once, with std's surface.
//!
//! The state is kept twice: under the gate's lock, where it changes, and in an atomic for whoever only asks whether it
//! is done. A closure that was interrupted, unlike one that panicked, says nothing about what it initialises, so the
//! state goes back to what it was and the next caller runs its own.

#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe, RefUnwindSafe, UnwindSafe};
use std::thread::ThreadId;

use super::const_new::const_unless_modelled;
use super::gate::{Gate, GateGuard};
use crate::observe::WaitKind;
use crate::scheduler::suspend::{self, here};
use crate::sys::atomic::{AtomicBool, Ordering};

/// Who runs the closure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    Task(u64),
    Thread(ThreadId),
}

impl Runner {
    fn current() -> Runner {
        match here() {
            Some(h) => Runner::Task(h.id()),
            None => Runner::Thread(std::thread::current().id()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Incomplete,
    Poisoned,
    Running(Runner),
    Complete,
}

/// What the caller wants if somebody's closure has panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnPoison {
    Refuse,
    Ignore,
}

/// Somebody's closure has panicked.
#[derive(Debug)]
pub(super) struct Poisoned;

/// What a closure has to say at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Complete,
    /// As if it had not run.
    NotYet,
}

/// [`Once::new`], from when that could not be called in a `static`.
#[cfg(not(loom))]
#[deprecated(note = "deprecated in std as well: use Once::new")]
#[allow(clippy::declare_interior_mutable_const, reason = "each use is meant to be another one, as in std")]
pub const ONCE_INIT: Once = Once::new();

/// Runs one closure only, ever, with [`std::sync::Once`]'s surface; everybody else waits for its end.
///
/// The closure may wait. While it does, the views show who it is that the others wait for.
///
/// # Examples
/// ```
/// use coro::sync::Once;
///
/// static START: Once = Once::new();
///
/// coro::run(|| {
///     let ran = coro::in_parallel((0..10).map(|_| {
///         || {
///             let mut ran = false;
///             START.call_once(|| ran = true);
///             ran
///         }
///     }));
///     assert_eq!(ran.unwrap().into_iter().filter(|r| *r).count(), 1);
/// });
/// ```
///
/// # Cancellation
/// Waiting for another one's closure unwinds if an interrupt is due. If the task that runs the closure is itself
/// interrupted inside it, the closure unwinds and the `Once` is again as it was before: that is no poison, and one of
/// those who wait runs its own closure. Wrap the closure in [`shield`](crate::shield) if it must not be left half done.
pub struct Once {
    complete: AtomicBool,
    gate: Gate<State>,
}

impl UnwindSafe for Once {}
impl RefUnwindSafe for Once {}

impl Once {
    const_unless_modelled! {
        /// A `Once` that has not run.
        #[track_caller]
        #[allow(clippy::new_without_default, reason = "std's has none")]
        pub fn new() -> Once {
            Once { complete: AtomicBool::new(false), gate: Gate::new(State::Incomplete) }
        }
    }

    /// Gives it a name for the views.
    #[must_use = "the named `Once` is the result"]
    pub const fn named(mut self, name: &'static str) -> Once {
        self.set_name(name);
        self
    }

    pub(super) const fn set_name(&mut self, name: &'static str) {
        self.gate.shown.object.set_name(name);
    }

    /// Runs `f` if nobody has run one here; else waits until it has ended.
    ///
    /// # Panics
    /// If an earlier closure panicked, if `f` does, or if `f` comes back to this `Once`.
    ///
    /// # Cancellation
    /// See [`Once`].
    #[inline]
    #[track_caller]
    pub fn call_once<F: FnOnce()>(&self, f: F) {
        if !self.is_completed() {
            self.call(OnPoison::Refuse, |_| f());
        }
    }

    /// As [`call_once`](Once::call_once), also if an earlier closure panicked; `f` is told whether one has.
    ///
    /// # Panics
    /// If `f` panics or comes back to this `Once`.
    ///
    /// # Cancellation
    /// See [`Once`].
    #[inline]
    #[track_caller]
    pub fn call_once_force<F: FnOnce(&OnceState)>(&self, f: F) {
        if !self.is_completed() {
            self.call(OnPoison::Ignore, f);
        }
    }

    #[cold]
    #[track_caller]
    fn call(&self, on_poison: OnPoison, f: impl FnOnce(&OnceState)) {
        let mut f = Some(f);
        let result = self.run(on_poison, &mut |state| {
            if let Some(f) = f.take() {
                f(state);
            }
            Verdict::Complete
        });
        if result.is_err() {
            panic!("Once instance has previously been poisoned");
        }
    }

    /// Whether a closure has ended here, and not by a panic or an interrupt.
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Waits until somebody's closure has ended.
    ///
    /// # Panics
    /// If a closure panicked, before or while this waits; inside the closure itself.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    #[track_caller]
    pub fn wait(&self) {
        if self.wait_done(OnPoison::Refuse).is_err() {
            panic!("Once instance has previously been poisoned");
        }
    }

    /// As [`wait`](Once::wait), also if a closure panicked: then until another one succeeds.
    ///
    /// # Panics
    /// Inside the closure itself.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    #[track_caller]
    pub fn wait_force(&self) {
        // Poison is ignored, so there is no error.
        let _ = self.wait_done(OnPoison::Ignore);
    }

    #[track_caller]
    fn wait_done(&self, on_poison: OnPoison) -> Result<(), Poisoned> {
        while !self.is_completed() {
            let inner = self.gate.lock();
            match inner.state {
                State::Complete => break,
                State::Poisoned if on_poison == OnPoison::Refuse => return Err(Poisoned),
                State::Running(runner) => self.wait_for(inner, runner),
                _ => _ = self.gate.wait(inner, WaitKind::Once, None, |_| {}),
            }
        }
        Ok(())
    }

    /// Waits for the end of the closure that runs now.
    #[track_caller]
    fn wait_for(&self, inner: GateGuard<'_, State>, runner: Runner) {
        if runner == Runner::current() {
            drop(inner);
            panic!("an initialiser waits for its own end: it came back to the Once that runs it");
        }
        self.gate.wait(inner, WaitKind::Once, None, |_| {});
    }

    /// Runs `f` unless one has completed; waits while another one runs.
    #[track_caller]
    pub(super) fn run(&self, on_poison: OnPoison, f: &mut dyn FnMut(&OnceState) -> Verdict) -> Result<(), Poisoned> {
        let before = loop {
            let mut inner = self.gate.lock();
            match inner.state {
                State::Complete => return Ok(()),
                State::Poisoned if on_poison == OnPoison::Refuse => return Err(Poisoned),
                State::Running(runner) => self.wait_for(inner, runner),
                before => {
                    inner.state = State::Running(Runner::current());
                    self.gate.shown.object.used(suspend::user());
                    break before;
                }
            }
        };
        let poisoned = before == State::Poisoned;
        let result = panic::catch_unwind(AssertUnwindSafe(|| f(&OnceState { poisoned: Cell::new(poisoned) })));
        let (after, payload): (State, Option<Box<dyn Any + Send>>) = match result {
            Ok(Verdict::Complete) => (State::Complete, None),
            Ok(Verdict::NotYet) => (before, None),
            Err(p) if suspend::is_interrupt(&*p) => (before, Some(p)),
            Err(p) => (State::Poisoned, Some(p)),
        };
        let mut inner = self.gate.lock();
        inner.state = after;
        self.gate.shown.object.released();
        self.complete.store(after == State::Complete, Ordering::Release);
        // All of them also if nothing was completed: of those who would run their own the first one does.
        self.gate.open(inner);
        match payload {
            Some(payload) => panic::resume_unwind(payload),
            None => Ok(()),
        }
    }

    /// As new, but for its name.
    pub(super) fn reset(&mut self) {
        self.gate.lock().state = State::Incomplete;
        self.complete.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

/// What a closure of [`Once::call_once_force`] is told.
pub struct OnceState {
    /// Not `Sync`, as std's.
    poisoned: Cell<bool>,
}

impl OnceState {
    /// Whether a closure panicked here before this one.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.get()
    }
}

impl fmt::Debug for OnceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceState").field("poisoned", &self.is_poisoned()).finish()
    }
}
