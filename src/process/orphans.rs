//! Children whose `Child` was dropped before they ended, so that what the kernel keeps of them can be taken away.
//!
//! Nobody else may wait for them by way of this crate, and nothing here waits: whoever starts a child looks once whether some of
//! those before it have ended. A thread or a handler of SIGCHLD of our own would be more than the program asked for.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::process::Child;
use std::sync::{Mutex, PoisonError};

/// At most so many are looked at for each child that is started.
const LOOKS: usize = 64;

static LEFT: Mutex<VecDeque<Child>> = Mutex::new(VecDeque::new());

/// Keeps a child that nobody holds any more.
pub(super) fn leave(mut child: Child) {
    // Its end of the pipe is for the child to miss now, not when it is reaped.
    drop((child.stdin.take(), child.stdout.take(), child.stderr.take()));
    LEFT.lock().unwrap_or_else(PoisonError::into_inner).push_back(child);
}

/// Reaps some of those that have ended.
pub(super) fn reap() {
    let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..LOOKS.min(left.len()) {
        let Some(mut child) = left.pop_front() else { return };
        // An error: somebody else has reaped it, or this is a fork of the process whose child it is.
        if let Ok(None) = child.try_wait() {
            left.push_back(child);
        }
    }
}
