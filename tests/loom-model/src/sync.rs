//! The shipped locks and channels.

#[path = "../../../src/sync/const_new.rs"]
mod const_new;
#[path = "../../../src/sync/mpsc.rs"]
pub(crate) mod mpsc;
#[path = "../../../src/sync/mutex.rs"]
mod mutex;
#[path = "../../../src/sync/raw_mutex.rs"]
mod raw_mutex;
#[path = "../../../src/sync/waiters.rs"]
mod waiters;

pub(crate) use mutex::Mutex;
