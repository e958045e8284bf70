//! Locks and channels that park the task, not the worker; on a plain thread they block the thread.
//!
//! Usable between tasks, across workers, from plain threads and between both. First cut: [`Mutex`] and the channels of
//! [`mpsc`]; the rest of std's surface follows.

mod const_new;
pub mod mpsc;
mod mutex;
mod raw_mutex;
mod waiters;

pub use mutex::{Mutex, MutexGuard};
pub use std::sync::{LockResult, PoisonError, TryLockError, TryLockResult};
