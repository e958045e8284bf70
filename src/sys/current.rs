//! One thread-local word: the worker that the running code belongs to, or null on a plain thread.
//!
//! It lives at the lowest layer so that the thread-backed context can carry it from thread to thread. What it
//! points to is known to `scheduler` alone.

use std::cell::Cell;
use std::ptr;

thread_local! {
    static WORD: Cell<*const ()> = const { Cell::new(ptr::null()) };
}

/// The running thread's word.
#[inline(always)]
pub(crate) fn get() -> *const () {
    WORD.with(Cell::get)
}

/// Sets the running thread's word.
#[inline(always)]
pub(crate) fn set(word: *const ()) {
    WORD.with(|w| w.set(word));
}
