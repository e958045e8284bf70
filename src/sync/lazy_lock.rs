//! A value that is made at its first use, with std's surface.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::once::{OnPoison, Once, Verdict};
use crate::scheduler::suspend::shield;

enum State<T, F> {
    Uninit(F),
    /// The initialiser runs, or has panicked.
    Gone,
    Init(T),
}

/// A value that is made at its first use, with [`std::sync::LazyLock`]'s surface.
///
/// # Examples
/// ```
/// use coro::sync::LazyLock;
///
/// static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| vec!["made", "once"]);
///
/// coro::run(|| assert_eq!(WORDS.len(), 2));
/// ```
///
/// # Cancellation
/// Waiting for an initialiser that another task runs unwinds if an interrupt is due. The initialiser itself runs under
/// [`shield`](crate::shield): there is only one, so a task that happens to be the first and is cancelled must not take
/// it away from all others. What is due is delivered at the first wait after it.
pub struct LazyLock<T, F = fn() -> T> {
    once: Once,
    /// Touched by the closure that `once` runs, read by anybody once that has completed, and through `&mut`.
    state: UnsafeCell<State<T, F>>,
}

// SAFETY: shared references give `&T` (hence `Sync`); value and initialiser may be made on one thread, and called or
// dropped on another (hence `Send`). No `&F` is ever made of a shared reference.
unsafe impl<T: Sync + Send, F: Send> Sync for LazyLock<T, F> {}
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}

#[cold]
#[track_caller]
fn poisoned() -> ! {
    panic!("LazyLock instance has previously been poisoned")
}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// A value that `f` will make.
    #[track_caller]
    pub const fn new(f: F) -> LazyLock<T, F> {
        LazyLock { once: Once::new(), state: UnsafeCell::new(State::Uninit(f)) }
    }

    /// The value, out of the lock, or the initialiser if it was not needed yet (unstable in std).
    ///
    /// # Errors
    /// The initialiser.
    ///
    /// # Panics
    /// If the initialiser has panicked.
    pub fn into_inner(this: Self) -> Result<T, F> {
        match this.state.into_inner() {
            State::Init(value) => Ok(value),
            State::Uninit(f) => Err(f),
            State::Gone => poisoned(),
        }
    }

    /// The value, made now if it was not yet, to be changed.
    ///
    /// # Panics
    /// As [`force`](LazyLock::force).
    pub fn force_mut(this: &mut LazyLock<T, F>) -> &mut T {
        LazyLock::force(this);
        match this.state.get_mut() {
            State::Init(value) => value,
            _ => poisoned(),
        }
    }

    /// The value, made now if it was not yet; what a dereference does.
    ///
    /// # Panics
    /// If the initialiser panics, has panicked before, or comes back to this value.
    ///
    /// # Cancellation
    /// See [`LazyLock`].
    #[inline]
    #[track_caller]
    pub fn force(this: &LazyLock<T, F>) -> &T {
        match LazyLock::get(this) {
            Some(value) => value,
            None => this.initialise(),
        }
    }

    #[cold]
    #[track_caller]
    fn initialise(&self) -> &T {
        let result = self.once.run(OnPoison::Refuse, &mut |_| {
            // SAFETY: the closure of a `Once` that has not completed runs alone, and nobody reads before.
            let f = unsafe { mem::replace(&mut *self.state.get(), State::Gone) };
            if let State::Uninit(f) = f {
                let value = shield(f);
                // SAFETY: as above. What is overwritten has no destructor to run.
                unsafe { *self.state.get() = State::Init(value) };
            }
            Verdict::Complete
        });
        match LazyLock::get(self) {
            Some(value) if result.is_ok() => value,
            _ => poisoned(),
        }
    }
}

impl<T, F> LazyLock<T, F> {
    /// Gives it a name for the views.
    ///
    /// # Examples
    /// In a `static` the type has to be named twice, else the initialiser is taken for a closure and not for a function:
    /// ```
    /// use coro::sync::LazyLock;
    ///
    /// static TABLE: LazyLock<Vec<u32>> = <LazyLock<Vec<u32>>>::new(|| (0..10).collect()).named("table");
    /// assert_eq!(TABLE.len(), 10);
    /// ```
    #[must_use = "the named value is the result"]
    pub const fn named(mut self, name: &'static str) -> LazyLock<T, F> {
        self.once.set_name(name);
        self
    }

    /// The value if it was made already.
    #[inline]
    pub fn get(this: &LazyLock<T, F>) -> Option<&T> {
        if !this.once.is_completed() {
            return None;
        }
        // SAFETY: once completed, nobody writes through a shared reference any more.
        match unsafe { &*this.state.get() } {
            State::Init(value) => Some(value),
            _ => None,
        }
    }

    /// The value if it was made already, to be changed.
    ///
    /// # Panics
    /// If the initialiser has panicked.
    pub fn get_mut(this: &mut LazyLock<T, F>) -> Option<&mut T> {
        match this.state.get_mut() {
            State::Init(value) => Some(value),
            State::Uninit(_) => None,
            State::Gone => poisoned(),
        }
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        LazyLock::force(self)
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    fn deref_mut(&mut self) -> &mut T {
        LazyLock::force_mut(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    #[track_caller]
    fn default() -> LazyLock<T> {
        LazyLock::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_tuple("LazyLock");
        match LazyLock::get(self) {
            Some(value) => d.field(value),
            None => d.field(&format_args!("<uninit>")),
        };
        d.finish()
    }
}
