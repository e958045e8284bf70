//! A value that is written once, with std's surface.

use std::cell::UnsafeCell;
use std::convert::Infallible;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::const_new::const_unless_modelled;
use super::once::{OnPoison, Once, Verdict};

/// A cell that is written once and then shared, with [`std::sync::OnceLock`]'s surface.
///
/// # Examples
/// ```
/// use coro::sync::OnceLock;
///
/// static CONFIG: OnceLock<String> = OnceLock::new().named("config");
///
/// coro::run(|| {
///     let reader = coro::spawn(|| CONFIG.wait().len());
///     assert_eq!(CONFIG.get_or_init(|| "port = 80".to_owned()), "port = 80");
///     assert_eq!(reader.join().unwrap(), 9);
/// });
/// ```
///
/// # Cancellation
/// Waiting for another one's initialiser unwinds if an interrupt is due. An initialiser that is itself interrupted
/// leaves the cell empty, as one that panics does, and one of those who wait runs its own.
pub struct OnceLock<T> {
    once: Once,
    /// Written by the closure that `once` runs, read by anybody once that has completed, and through `&mut`.
    value: UnsafeCell<Option<T>>,
}

// SAFETY: shared references give `&T` (hence `Sync`), and a value may be written on one thread and dropped on another
// (hence `Send`).
unsafe impl<T: Sync + Send> Sync for OnceLock<T> {}
impl<T: RefUnwindSafe + UnwindSafe> RefUnwindSafe for OnceLock<T> {}
impl<T: UnwindSafe> UnwindSafe for OnceLock<T> {}

impl<T> OnceLock<T> {
    const_unless_modelled! {
        /// An empty cell.
        #[track_caller]
        pub fn new() -> OnceLock<T> {
            OnceLock { once: Once::new(), value: UnsafeCell::new(None) }
        }
    }

    /// Gives it a name for the views.
    #[must_use = "the named cell is the result"]
    pub const fn named(mut self, name: &'static str) -> OnceLock<T> {
        self.once.set_name(name);
        self
    }

    /// The value, if there is one.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        // SAFETY: once completed, nobody writes through a shared reference any more.
        if self.once.is_completed() { unsafe { (*self.value.get()).as_ref() } } else { None }
    }

    /// The value, if there is one, to be changed.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut().as_mut()
    }

    /// Waits until there is a value.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    pub fn wait(&self) -> &T {
        self.once.wait_force();
        self.completed()
    }

    /// Writes the value if there is none yet. Waits for an initialiser that runs at the moment.
    ///
    /// # Errors
    /// `value` itself if the cell is full.
    ///
    /// # Cancellation
    /// As [`get_or_init`](OnceLock::get_or_init); `value` is then dropped.
    pub fn set(&self, value: T) -> Result<(), T> {
        self.try_insert(value).map(|_| ()).map_err(|(_, value)| value)
    }

    /// As [`set`](OnceLock::set), with a reference to what the cell then holds (unstable in std).
    ///
    /// # Errors
    /// The value that was there and `value` itself, if the cell is full.
    pub fn try_insert(&self, value: T) -> Result<&T, (&T, T)> {
        let mut value = Some(value);
        let held = self.get_or_init(|| match value.take() {
            Some(value) => value,
            None => unreachable!("an initialiser runs once"),
        });
        match value {
            None => Ok(held),
            Some(value) => Err((held, value)),
        }
    }

    /// The value; made by `f` if there is none, or by another one's initialiser that runs at the moment.
    ///
    /// # Panics
    /// If `f` panics, or comes back to this cell. The cell is then empty as before.
    ///
    /// # Cancellation
    /// See [`OnceLock`].
    #[inline]
    #[track_caller]
    pub fn get_or_init<F: FnOnce() -> T>(&self, f: F) -> &T {
        match self.get_or_try_init(|| Ok::<T, Infallible>(f())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// As [`get_or_init`](OnceLock::get_or_init), for an initialiser that may fail; the cell then stays empty (unstable
    /// in std).
    ///
    /// # Errors
    /// What `f` returns.
    ///
    /// # Panics
    /// As [`get_or_init`](OnceLock::get_or_init).
    #[inline]
    #[track_caller]
    pub fn get_or_try_init<F: FnOnce() -> Result<T, E>, E>(&self, f: F) -> Result<&T, E> {
        match self.get() {
            Some(value) => Ok(value),
            None => self.initialise(f),
        }
    }

    #[cold]
    #[track_caller]
    fn initialise<F: FnOnce() -> Result<T, E>, E>(&self, f: F) -> Result<&T, E> {
        let (mut f, mut error) = (Some(f), None);
        // Poison is ignored, so there is no error.
        let _ = self.once.run(OnPoison::Ignore, &mut |_| match f.take().map(|f| f()) {
            Some(Ok(value)) => {
                // SAFETY: the closure of a `Once` that has not completed runs alone, and nobody reads before.
                unsafe { *self.value.get() = Some(value) };
                Verdict::Complete
            }
            Some(Err(e)) => {
                error = Some(e);
                Verdict::NotYet
            }
            None => Verdict::NotYet,
        });
        match error {
            Some(e) => Err(e),
            None => Ok(self.completed()),
        }
    }

    /// The value after somebody's initialiser has ended.
    fn completed(&self) -> &T {
        match self.get() {
            Some(value) => value,
            None => unreachable!("a completed initialiser has written the value"),
        }
    }

    /// The value, to be changed; made by `f` if there is none (unstable in std).
    ///
    /// # Panics
    /// If `f` does.
    pub fn get_mut_or_init<F: FnOnce() -> T>(&mut self, f: F) -> &mut T {
        match self.get_mut_or_try_init(|| Ok::<T, Infallible>(f())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// As [`get_mut_or_init`](OnceLock::get_mut_or_init), for an initialiser that may fail (unstable in std).
    ///
    /// # Errors
    /// What `f` returns.
    ///
    /// # Panics
    /// If `f` does.
    pub fn get_mut_or_try_init<F: FnOnce() -> Result<T, E>, E>(&mut self, f: F) -> Result<&mut T, E> {
        self.get_or_try_init(f)?;
        match self.get_mut() {
            Some(value) => Ok(value),
            None => unreachable!("a completed initialiser has written the value"),
        }
    }

    /// The value, if there is one, out of the cell.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Takes the value out, if there is one; the cell is then empty.
    pub fn take(&mut self) -> Option<T> {
        self.once.reset();
        self.value.get_mut().take()
    }
}

impl<T> Default for OnceLock<T> {
    #[track_caller]
    fn default() -> OnceLock<T> {
        OnceLock::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut d = f.debug_tuple("OnceLock");
        match self.get() {
            Some(value) => d.field(value),
            None => d.field(&format_args!("<uninit>")),
        };
        d.finish()
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    #[track_caller]
    fn clone(&self) -> OnceLock<T> {
        match self.get() {
            Some(value) => OnceLock::from(value.clone()),
            None => OnceLock::new(),
        }
    }
}

impl<T> From<T> for OnceLock<T> {
    #[track_caller]
    fn from(value: T) -> OnceLock<T> {
        let cell = OnceLock::new();
        // The cell is new: nobody else fills it.
        let _ = cell.set(value);
        cell
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &OnceLock<T>) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}
