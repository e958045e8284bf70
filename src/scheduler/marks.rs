//! What locks and channels note of whoever uses them, for the views: who it is and when that was, for next to nothing.
//!
//! Must not know what is done with it.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::suspend::{Here, here};
use crate::observe::{self, THREAD};
use crate::sys::clock;

/// What stands for the calling plain thread in an [`Object`](crate::observe::Object).
#[inline]
pub(crate) fn this_thread() -> u64 {
    thread_local! {
        static OWN: Cell<u64> = const { Cell::new(0) };
    }
    // Needs no destructor, so it can be reached until the very end of the thread.
    match OWN.with(Cell::get) {
        0 => ask_for_thread(&OWN),
        // The number of the thread that forked.
        _ if crate::sys::fork::forked() => ask_for_thread(&OWN),
        own => own,
    }
}

#[cold]
fn ask_for_thread(own: &'static std::thread::LocalKey<Cell<u64>>) -> u64 {
    let id = THREAD | u64::from(crate::sys::thread_id().unsigned_abs());
    own.with(|o| o.set(id));
    id
}

/// Who runs, and what time it is as far as that can be told for nothing: for a task when its slice began, for a thread it
/// cannot (0).
#[inline]
pub(crate) fn user() -> (u64, u64) {
    user_of(here())
}

/// The same, of the calling task, or of the calling thread if it is none.
#[inline(always)]
pub(super) fn user_of(task: Option<Here>) -> (u64, u64) {
    match task {
        Some(h) => (h.id(), h.slice_start()),
        None => (this_thread(), 0),
    }
}

/// Says what else is to be known of the wait that the task comes to.
pub(crate) fn set_wait_extra(extra: u64) {
    if let Some(h) = here() {
        h.local().wait_extra.set(extra);
    }
}

/// A poll of a future begins: what it finds not ready is news.
pub(crate) fn begin_poll() {
    if let Some(h) = here() {
        h.local().polled_io.set(0);
    }
}

/// The task comes to the wait for that future.
pub(crate) fn show_polled_io() {
    if let Some(h) = here() {
        h.local().wait_extra.set(h.local().polled_io.get());
    }
}

/// The clock of [`Object::since`](crate::observe::Object::since).
pub(crate) fn ticks() -> u64 {
    clock::ticks()
}

/// So long whoever was woken to try for something may keep others from being woken.
const PATIENCE: Duration = Duration::from_millis(1);

/// When that has passed for who is woken now, in ticks.
pub(crate) fn patience_end() -> u64 {
    clock::ticks() + clock::in_ticks(PATIENCE)
}

/// Whether a time in ticks has passed. A task goes by when its slice began, since it asks at every lock.
pub(crate) fn is_past(at: u64) -> bool {
    let now = match here() {
        Some(h) if observe::ON => h.slice_start(),
        _ => clock::ticks(),
    };
    now > at
}
