//! The shipped locks and channels.

#[path = "../../../src/sync/barrier.rs"]
mod barrier;
#[path = "../../../src/sync/channel.rs"]
mod channel;
#[path = "../../../src/sync/channel_iter.rs"]
mod channel_iter;
#[path = "../../../src/sync/choice.rs"]
pub(crate) mod choice;
#[path = "../../../src/sync/condvar.rs"]
mod condvar;
#[path = "../../../src/sync/const_new.rs"]
mod const_new;
#[path = "../../../src/sync/event.rs"]
mod event;
#[path = "../../../src/sync/gate.rs"]
mod gate;
#[path = "../../../src/sync/held.rs"]
mod held;
/// Nobody looks for channels in a model.
mod live {
    use crate::observe::Traffic;

    pub(super) unsafe fn keep(_: &Traffic) {}

    pub(super) fn take_out(_: &Traffic) {}
}
#[path = "../../../src/sync/mpmc.rs"]
pub(crate) mod mpmc;
#[path = "../../../src/sync/mpsc.rs"]
pub(crate) mod mpsc;
#[path = "../../../src/sync/mutex.rs"]
mod mutex;
#[path = "../../../src/sync/once.rs"]
mod once;
#[path = "../../../src/sync/oneshot.rs"]
pub(crate) mod oneshot;
#[path = "../../../src/sync/raw_condvar.rs"]
mod raw_condvar;
#[path = "../../../src/sync/raw_mutex.rs"]
mod raw_mutex;
#[path = "../../../src/sync/raw_rwlock.rs"]
mod raw_rwlock;
#[path = "../../../src/sync/rwlock.rs"]
mod rwlock;
#[path = "../../../src/sync/semaphore.rs"]
mod semaphore;
#[path = "../../../src/sync/ticket.rs"]
mod ticket;
#[path = "../../../src/sync/wait_group.rs"]
mod wait_group;
#[path = "../../../src/sync/waiters.rs"]
mod waiters;
#[path = "../../../src/sync/woven.rs"]
mod woven;

pub(crate) use barrier::Barrier;
pub(crate) use condvar::Condvar;
pub(crate) use event::Event;
pub(crate) use mutex::Mutex;
pub(crate) use once::Once;
pub(crate) use rwlock::{RwLock, RwLockWriteGuard};
pub(crate) use semaphore::Semaphore;
pub(crate) use wait_group::WaitGroup;
