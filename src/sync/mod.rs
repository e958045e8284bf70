//! Locks and channels that park the task, not the worker; on a plain thread they block the thread.
//!
//! Usable between tasks, across workers, from plain threads and between both. First cut: [`Mutex`] and the channels of
//! [`mpsc`]; the rest of std's surface follows.

mod barrier;
mod const_new;
mod event;
mod gate;
mod lazy_lock;
pub mod mpsc;
mod mutex;
mod once;
mod once_lock;
mod raw_mutex;
mod semaphore;
mod wait_group;
mod waiters;

pub use barrier::{Barrier, BarrierWaitResult};
pub use event::Event;
pub use lazy_lock::LazyLock;
pub use mutex::{Mutex, MutexGuard};
pub use once::{Once, OnceState};
pub use once_lock::OnceLock;
pub use semaphore::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
pub use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
pub use wait_group::{OwnedWaitGroupGuard, WaitGroup, WaitGroupGuard};
