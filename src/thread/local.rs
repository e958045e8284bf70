//! Task locals with std's surface: [`thread_local!`](crate::thread_local) and [`LocalKey`].

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;

use crate::scheduler::suspend::here;
use crate::task::locals::{self, Slot, Table};

/// Declares keys of task locals, with the syntax of std's macro.
///
/// In a task every key has a value of the task's own; on a plain thread, and in a worker outside of any task, one of
/// that thread. A value is made at the first use. (A `const { … }` initialiser may be written, as in std; it only spares
/// the call.)
///
/// When a task's closure has ended, its values are dropped on the task's stack, before a join returns: the one made
/// last first, and those that destructors make too. A destructor may wait, and no cancellation or time limit interrupts
/// it; if it panics, that is reported like a task's own panic, and the others are dropped nevertheless. On a plain
/// thread the values are dropped with the thread-locals of std, and destructors of those may find them gone.
///
/// # Examples
/// ```
/// use std::cell::{Cell, RefCell};
///
/// coro::thread_local! {
///     static REQUESTS: Cell<u32> = const { Cell::new(0) };
///     pub(crate) static USER: RefCell<String> = RefCell::new(String::from("nobody"));
/// }
///
/// coro::run(|| {
///     REQUESTS.set(REQUESTS.get() + 1);
///     let other = coro::spawn(|| {
///         USER.set("somebody".to_owned());
///         REQUESTS.get()
///     });
///     assert_eq!(other.join().unwrap(), 0);
///     assert_eq!(REQUESTS.get(), 1);
///     USER.with_borrow(|user| assert_eq!(user, "nobody"));
/// });
/// ```
#[macro_export]
macro_rules! thread_local {
    () => {};
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $t:ty = const $init:block; $($rest:tt)*) => {
        $crate::thread_local!(@const [$(#[$attribute])*] [$vis] $name, $t, $init);
        $crate::thread_local!($($rest)*);
    };
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $t:ty = const $init:block) => {
        $crate::thread_local!(@const [$(#[$attribute])*] [$vis] $name, $t, $init);
    };
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $t:ty = $init:expr; $($rest:tt)*) => {
        $crate::thread_local!(@lazy [$(#[$attribute])*] [$vis] $name, $t, $init);
        $crate::thread_local!($($rest)*);
    };
    ($(#[$attribute:meta])* $vis:vis static $name:ident: $t:ty = $init:expr) => {
        $crate::thread_local!(@lazy [$(#[$attribute])*] [$vis] $name, $t, $init);
    };
    (@const [$($attributes:tt)*] [$vis:vis] $name:ident, $t:ty, $init:block) => {
        $($attributes)*
        $vis static $name: $crate::thread::LocalKey<$t> = {
            // Its own item, so that it is computed by the compiler.
            #[allow(clippy::declare_interior_mutable_const, reason = "each use is a value of its own, as it shall be")]
            const __CORO_LOCAL_INIT: $t = $init;
            fn __coro_local_init() -> $t {
                #[allow(clippy::borrow_interior_mutable_const, reason = "it is moved, not borrowed")]
                __CORO_LOCAL_INIT
            }
            $crate::thread::LocalKey::__new(__coro_local_init)
        };
    };
    (@lazy [$($attributes:tt)*] [$vis:vis] $name:ident, $t:ty, $init:expr) => {
        $($attributes)*
        $vis static $name: $crate::thread::LocalKey<$t> = {
            fn __coro_local_init() -> $t {
                $init
            }
            $crate::thread::LocalKey::__new(__coro_local_init)
        };
    };
}

/// A key of task locals, made by [`thread_local!`](crate::thread_local).
///
/// A wait inside [`with`](LocalKey::with) is allowed: other tasks have values of their own.
pub struct LocalKey<T: 'static> {
    slot: Slot<T>,
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// The value of a [`LocalKey`] was destroyed already, because its task or thread is ending.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessError;

impl fmt::Debug for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessError")
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("already destroyed")
    }
}

impl Error for AccessError {}

#[cold]
#[track_caller]
fn destroyed() -> ! {
    panic!("cannot access a task local while it is destroyed, or after that: {AccessError:?}")
}

/// Calls `f` with the values of the running task, else of the thread.
#[inline]
fn with_table<R>(f: impl FnOnce(&Table) -> R) -> R {
    match here() {
        Some(h) => f(&h.local().locals),
        None => locals::with_thread_table(f),
    }
}

impl<T: 'static> LocalKey<T> {
    /// For the macro.
    #[doc(hidden)]
    pub const fn __new(init: fn() -> T) -> LocalKey<T> {
        LocalKey { slot: Slot::new(init) }
    }

    /// Calls `f` with the running task's value, which is made first if there is none yet.
    ///
    /// # Panics
    /// If the value was destroyed already; with the initialiser's own panic.
    #[inline]
    #[track_caller]
    pub fn with<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        match self.try_with(f) {
            Ok(r) => r,
            Err(AccessError) => destroyed(),
        }
    }

    /// As [`with`](LocalKey::with), with an error instead of a panic.
    ///
    /// # Errors
    /// If the value was destroyed already.
    ///
    /// # Panics
    /// With the initialiser's own panic.
    #[inline]
    pub fn try_with<F, R>(&'static self, f: F) -> Result<R, AccessError>
    where
        F: FnOnce(&T) -> R,
    {
        with_table(|table| table.with(&self.slot, None, |value, _| f(value))).map_err(|_| AccessError)
    }

    /// Calls `f` with the value, and with `given` if there was a value already; else `given` is the value.
    #[track_caller]
    fn with_given<R>(&'static self, given: T, f: impl FnOnce(&T, Option<T>) -> R) -> R {
        match with_table(|table| table.with(&self.slot, Some(given), f)) {
            Ok(r) => r,
            Err(_) => destroyed(),
        }
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the value. The initialiser does not run, if it has not yet.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with).
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.with_given(Cell::new(value), |cell, unused| {
            if let Some(value) = unused {
                cell.set(value.into_inner());
            }
        });
    }

    /// A copy of the value.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with).
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Takes the value and leaves the default.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with).
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Sets the value and returns the old one.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with).
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Calls `f` with a shared borrow of the value.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with), and if the value is mutably borrowed.
    #[track_caller]
    pub fn with_borrow<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Calls `f` with a mutable borrow of the value.
    ///
    /// # Panics
    /// As [`with`](LocalKey::with), and if the value is borrowed.
    #[track_caller]
    pub fn with_borrow_mut<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R,
    {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets the value. The initialiser does not run, if it has not yet.
    ///
    /// # Panics
    /// As [`with_borrow_mut`](LocalKey::with_borrow_mut).
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.with_given(RefCell::new(value), |cell, unused| {
            if let Some(value) = unused {
                *cell.borrow_mut() = value.into_inner();
            }
        });
    }

    /// Takes the value and leaves the default.
    ///
    /// # Panics
    /// As [`with_borrow_mut`](LocalKey::with_borrow_mut).
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Sets the value and returns the old one.
    ///
    /// # Panics
    /// As [`with_borrow_mut`](LocalKey::with_borrow_mut).
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}
