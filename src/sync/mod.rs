//! Locks and channels that park the task, not the worker; on a plain thread they block the thread.
//!
//! Usable between tasks, across workers, from plain threads and between both. Locks poison as std's do,
//! judged by the unwinding of the task itself; [`nonpoison`] has those that do not.

mod barrier;
mod channel;
mod channel_iter;
pub(crate) mod choice;
mod condvar;
mod const_new;
mod event;
mod gate;
mod held;
mod lazy_lock;
pub(crate) mod live;
pub mod mpmc;
pub mod mpsc;
mod mutex;
pub mod nonpoison;
mod once;
mod once_lock;
pub mod oneshot;
pub mod poison;
mod raw_condvar;
mod raw_mutex;
mod raw_rwlock;
mod reentrant;
mod rwlock;
mod semaphore;
mod ticket;
mod wait_group;
mod waiters;
pub(crate) mod woven;

pub use barrier::{Barrier, BarrierWaitResult};
#[cfg(not(loom))]
pub use choice::{Receives, Sends};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use event::Event;
pub use lazy_lock::LazyLock;
pub use mutex::{MappedMutexGuard, Mutex, MutexGuard};
#[cfg(not(loom))]
#[allow(deprecated, reason = "std has kept the name, and so programs have")]
pub use once::ONCE_INIT;
pub use once::{Once, OnceState};
pub use once_lock::OnceLock;
pub use reentrant::{ReentrantLock, ReentrantLockGuard};
pub use rwlock::{MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use semaphore::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
pub use std::sync::{Arc, Weak, atomic};
pub use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
pub use wait_group::{OwnedWaitGroupGuard, WaitGroup, WaitGroupGuard};
