//! The locks that poison, under the name that std's unstable `std::sync::poison` gives them: those of [`super`].

#![forbid(unsafe_code)]

pub use super::{
    Condvar, LockResult, MappedMutexGuard, MappedRwLockReadGuard, MappedRwLockWriteGuard, Mutex, MutexGuard, Once,
    OnceState, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, TryLockResult,
};
