//! Locks and condition variables: between tasks of one worker, across workers, from plain threads, and mixed.

mod harness;

#[path = "sync/condvar.rs"]
mod condvar;
#[path = "sync/crew.rs"]
mod crew;
#[path = "sync/locks.rs"]
mod locks;
#[path = "sync/mutex.rs"]
mod mutex;
#[path = "sync/rwlock.rs"]
mod rwlock;
