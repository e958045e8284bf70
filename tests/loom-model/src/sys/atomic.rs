//! Atomics over loom's.
//!
//! loom takes a SeqCst access for an acquire-release one and models sequential consistency through fences alone. Here a
//! SeqCst load that follows a SeqCst store or exchange of the same thread is preceded by a full fence. That is the order
//! which the protocols rely on ("publish, then look"), and no more: a weaker store or a weaker load is not ordered by
//! it, as it would not be by the language.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::{Deref, DerefMut};

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
    pub(crate) fn fetch_add(&self, v: u32, o: Ordering) -> u32 {
        self.0.fetch_add(v, store(o))
    }

    pub(crate) fn fetch_sub(&self, v: u32, o: Ordering) -> u32 {
        self.0.fetch_sub(v, store(o))
    }

    pub(crate) fn fetch_and(&self, v: u32, o: Ordering) -> u32 {
        self.0.fetch_and(v, store(o))
    }

    pub(crate) fn fetch_or(&self, v: u32, o: Ordering) -> u32 {
        self.0.fetch_or(v, store(o))
    }
}

/// As the runtime's: an exchange that is also a full fence.
pub(crate) fn publish<T>(slot: &AtomicPtr<T>, value: *mut T) {
    slot.swap(value, Ordering::SeqCst);
}

/// A lock that knows no poison: `std`'s notion of a panicking thread, which loom's own lock inherits, is wrong where all
/// threads of a model share one and one of them unwinds. A token in a channel: who has it holds the lock.
pub(crate) struct Lock<T> {
    give: loom::sync::mpsc::Sender<()>,
    take: loom::sync::mpsc::Receiver<()>,
    value: UnsafeCell<T>,
}

// SAFETY: the token hands out one reference at a time; loom runs one thread at a time, which is all that the ends of its
// channel need.
unsafe impl<T: Send> Send for Lock<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Lock<T> {
        let (give, take) = loom::sync::mpsc::channel();
        give.send(()).unwrap();
        Lock { give, take, value: UnsafeCell::new(value) }
    }

    pub(crate) fn lock(&self) -> LockGuard<'_, T> {
        self.take.recv().unwrap();
        LockGuard(self)
    }
}

/// Gives the lock back.
pub(crate) struct LockGuard<'a, T>(&'a Lock<T>);

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for LockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock and is borrowed exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for LockGuard<'_, T> {
    fn drop(&mut self) {
        self.0.give.send(()).unwrap();
    }
}
