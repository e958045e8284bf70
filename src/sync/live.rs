//! Every live channel, so that one that grows is found although nobody waits for it.
//!
//! Invariants: a channel is in one of the shards from just after it was made until just before it goes, and its `place`
//! says where; both are touched under the shard's lock only. A view holds that lock for a bounded number of copies. Must
//! not know messages. Channels for one message are not kept: they cannot grow, and the two locks would double their cost.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::observe::{self, Traffic};
use crate::sys::fork;

const SHARDS: usize = 32;
/// How many are copied under one lock, some 20 µs.
const BATCH: usize = 1024;

#[repr(align(64))]
struct Shard(Mutex<Vec<Kept>>);

/// The address of a channel that has not gone.
struct Kept(*const Traffic);

// SAFETY: what it leads to is shared and made of atomics and constants; that it is there is said by the module's head.
unsafe impl Send for Kept {}

static LIVE: [Shard; SHARDS] = [const { Shard(Mutex::new(Vec::new())) }; SHARDS];

fn shard(n: usize) -> MutexGuard<'static, Vec<Kept>> {
    LIVE[n].0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// By its address: channels made by one thread one after the other mostly lie side by side.
fn shard_of(traffic: *const Traffic) -> usize {
    traffic.addr() / 256 % SHARDS
}

/// A channel that has just been made.
///
/// # Safety
/// It stays where it is until it was taken out.
pub(super) unsafe fn keep(traffic: &Traffic) {
    if !observe::ON || fork::forked() {
        return; // Some other thread of the parent may have had the lock.
    }
    let mut shard = shard(shard_of(traffic));
    traffic.place.store(shard.len(), Ordering::Relaxed);
    shard.push(Kept(traffic));
}

/// The channel goes.
pub(super) fn take_out(traffic: &Traffic) {
    if !observe::ON || fork::forked() {
        return;
    }
    let mut shard = shard(shard_of(traffic));
    let place = traffic.place.load(Ordering::Relaxed);
    if shard.get(place).is_none_or(|k| !std::ptr::eq(k.0, traffic)) {
        return; // It was never put in.
    }
    shard.swap_remove(place);
    if let Some(moved) = shard.get(place) {
        // SAFETY: it is in the shard, whose lock is held, so it has not gone.
        unsafe { (*moved.0).place.store(place, Ordering::Relaxed) };
    }
    // A burst's worth of room is given back, in steps that make this rare.
    if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
        let most = shard.capacity() / 2;
        shard.shrink_to(most);
    }
}

/// Looks at every channel. One that is made or goes meanwhile may be missing, and one may come twice.
/// Only `copy` is called under the lock; it must be short and must not allocate.
pub(crate) fn for_each<T>(copy: impl Fn(&Traffic) -> T, mut look: impl FnMut(T)) {
    if fork::forked() {
        return;
    }
    let mut batch = Vec::with_capacity(BATCH);
    for n in 0..SHARDS {
        let mut from = 0;
        loop {
            {
                let shard = shard(n);
                let Some(rest) = shard.get(from..).filter(|r| !r.is_empty()) else { break };
                // SAFETY: it is in the shard, whose lock is held, so it has not gone.
                batch.extend(rest.iter().take(BATCH).map(|kept| copy(unsafe { &*kept.0 })));
            }
            batch.drain(..).for_each(&mut look);
            from += BATCH;
        }
    }
}
