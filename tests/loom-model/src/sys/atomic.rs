//! Atomics over loom's.
//!
//! loom takes a SeqCst access for an acquire-release one and models sequential consistency through fences alone. Here a
//! SeqCst load that follows a SeqCst store or exchange of the same thread is preceded by a full fence. That is the order
//! which the protocols rely on ("publish, then look"), and no more: a weaker store or a weaker load is not ordered by
//! it, as it would not be by the language.

use std::cell::Cell;
use std::fmt;

pub(crate) use loom::sync::atomic::{Ordering, fence};

loom::thread_local! {
    /// Whether this thread's last store was a SeqCst one, and no fence came since.
    static STORED: Cell<bool> = Cell::new(false);
}

fn load(o: Ordering) -> Ordering {
    if o == Ordering::SeqCst && STORED.with(|s| s.replace(false)) {
        fence(Ordering::SeqCst);
    }
    o
}

fn store(o: Ordering) -> Ordering {
    // A fence before the next load would order a weaker store as well; better none than one too many.
    STORED.with(|s| s.set(o == Ordering::SeqCst));
    o
}

macro_rules! atomic {
    ($name:ident, $inner:ty, $value:ty $(, $generic:ident)?) => {
        pub(crate) struct $name$(<$generic>)?($inner);

        impl$(<$generic>)? $name$(<$generic>)? {
            pub(crate) fn new(v: $value) -> Self {
                Self(<$inner>::new(v))
            }

            #[track_caller]
            pub(crate) fn load(&self, o: Ordering) -> $value {
                self.0.load(load(o))
            }

            #[track_caller]
            pub(crate) fn store(&self, v: $value, o: Ordering) {
                self.0.store(v, store(o));
            }

            #[track_caller]
            pub(crate) fn swap(&self, v: $value, o: Ordering) -> $value {
                self.0.swap(v, store(o))
            }

            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                was: $value,
                new: $value,
                o: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange(was, new, store(o), failed)
            }

            #[track_caller]
            pub(crate) fn compare_exchange_weak(
                &self,
                was: $value,
                new: $value,
                o: Ordering,
                failed: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange_weak(was, new, store(o), failed)
            }
        }

        impl$(<$generic>)? fmt::Debug for $name$(<$generic>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

atomic!(AtomicU32, loom::sync::atomic::AtomicU32, u32);
atomic!(AtomicU64, loom::sync::atomic::AtomicU64, u64);
atomic!(AtomicBool, loom::sync::atomic::AtomicBool, bool);
atomic!(AtomicPtr, loom::sync::atomic::AtomicPtr<T>, *mut T, T);

impl AtomicU32 {
    pub(crate) fn fetch_and(&self, v: u32, o: Ordering) -> u32 {
        self.0.fetch_and(v, store(o))
    }
}

/// As the runtime's: an exchange that is also a full fence.
pub(crate) fn publish<T>(slot: &AtomicPtr<T>, value: *mut T) {
    slot.swap(value, Ordering::SeqCst);
}
