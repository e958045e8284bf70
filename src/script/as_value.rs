//! What can be read through a shared reference, as statics are.
//!
//! Must not know: what is exported, who reads.

#![forbid(unsafe_code)]

use std::sync::PoisonError;
use std::sync::atomic::{
    AtomicBool, AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicIsize, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    AtomicUsize, Ordering,
};

use crate::sync;
use crate::value::{IntoValue, Value};

/// What a static can be of that [`#[coro::export]`](macro@crate::export) shows to expressions.
///
/// Whatever can be cloned and is [`IntoValue`]; atomics; and std's and this crate's `Mutex`, `RwLock`, `OnceLock` (`()` while
/// it is empty) and `LazyLock` (which is filled by the first look) of those. A lock is waited for, by the thread that evaluates
/// the expression. A poisoned one is read all the same.
///
/// # Examples
/// ```
/// use coro::console::{AsValue, Value};
///
/// struct Limits {
///     clients: u32,
/// }
///
/// impl AsValue for Limits {
///     fn as_value(&self) -> Result<Value, String> {
///         Ok(Value::map([("clients", Value::of(self.clients))]))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a static of the type `{Self}` cannot be shown to expressions",
    label = "is not `coro::console::AsValue`",
    note = "shown are atomics, locks, once and lazy cells of std and coro, and what can be cloned and is `coro::console::IntoValue`",
    note = "otherwise implement `AsValue` for the type, or export a function that returns what is to be seen"
)]
pub trait AsValue {
    /// The value now, or why there is none.
    ///
    /// # Errors
    /// Text for whoever evaluated the expression.
    fn as_value(&self) -> Result<Value, String>;
}

impl<T: IntoValue + Clone> AsValue for T {
    fn as_value(&self) -> Result<Value, String> {
        self.clone().into_value()
    }
}

macro_rules! atomics {
    ($($type:ty),*) => {$(
        impl AsValue for $type {
            fn as_value(&self) -> Result<Value, String> {
                self.load(Ordering::Relaxed).into_value()
            }
        }
    )*};
}

atomics!(
    AtomicBool,
    AtomicI8,
    AtomicI16,
    AtomicI32,
    AtomicI64,
    AtomicIsize,
    AtomicU8,
    AtomicU16,
    AtomicU32,
    AtomicU64,
    AtomicUsize
);

macro_rules! cells {
    ($($($module:ident)::+),*) => {$(
        impl<T: AsValue + ?Sized> AsValue for $($module)::+::Mutex<T> {
            fn as_value(&self) -> Result<Value, String> {
                self.lock().unwrap_or_else(PoisonError::into_inner).as_value()
            }
        }

        impl<T: AsValue + ?Sized> AsValue for $($module)::+::RwLock<T> {
            fn as_value(&self) -> Result<Value, String> {
                self.read().unwrap_or_else(PoisonError::into_inner).as_value()
            }
        }

        impl<T: AsValue> AsValue for $($module)::+::OnceLock<T> {
            fn as_value(&self) -> Result<Value, String> {
                self.get().map_or(Ok(Value::Nothing), T::as_value)
            }
        }

        impl<T: AsValue, F: FnOnce() -> T> AsValue for $($module)::+::LazyLock<T, F> {
            fn as_value(&self) -> Result<Value, String> {
                T::as_value(self)
            }
        }
    )*};
}

cells!(std::sync, sync);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn what_is_behind_locks_and_cells_is_read() {
        static TABLE: std::sync::LazyLock<sync::RwLock<BTreeMap<String, u8>>> =
            std::sync::LazyLock::new(Default::default);
        static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        assert_eq!((NAME.as_value(), TABLE.as_value()), (Ok(Value::Nothing), Ok(Value::Map(Vec::new()))));
        TABLE.write().unwrap().insert("a".into(), 7);
        assert_eq!(TABLE.as_value(), Ok(Value::map([("a", Value::Int(7))])));
        assert_eq!(NAME.get_or_init(|| "x".into()).as_value(), NAME.as_value());
        assert_eq!(AtomicU64::new(3).as_value(), Ok(Value::Int(3)));
        assert!(AtomicU64::new(u64::MAX).as_value().is_err());
        assert_eq!("text".as_value(), Ok(Value::of("text")));
    }

    #[test]
    fn a_poisoned_lock_is_read() {
        let lock = std::sync::Mutex::new(vec![1, 2]);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = lock.lock();
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(caught.is_err() && lock.is_poisoned());
        assert_eq!(lock.as_value(), Ok(Value::List(vec![Value::Int(1), Value::Int(2)])));
    }
}
