//! `std::thread` for tasks: the same names, where a thread is a task.
//!
//! ```
//! use coro::thread; // was: use std::thread
//!
//! coro::run(|| {
//!     let parent = thread::current();
//!     let child = thread::Builder::new()
//!         .name("child".to_string())
//!         .spawn(move || {
//!             parent.unpark();
//!             thread::current().name().map(str::to_owned)
//!         })
//!         .unwrap();
//!     thread::park();
//!     assert_eq!(child.join().unwrap().as_deref(), Some("child"));
//! });
//! ```
//!
//! In a task everything here concerns the task, and waits give the worker to others. On a plain thread [`current`],
//! [`park`], [`sleep`] and the locals are that thread's own, as with std; [`spawn`] and [`scope`] make tasks there too.
//!
//! Invariants: a [`Thread`] is the task's identity and name, and keeps nothing of the task alive; a scope leaves only
//! when every child has ended. Must not know: locks, channels, sockets.

mod builder;
mod handle;
mod local;
mod parallel;
mod scope;

use std::time::Duration;

pub use std::thread::{Result, available_parallelism};

pub use builder::{Builder, JoinHandle, spawn};
pub use handle::{Thread, ThreadId, current};
pub use local::{AccessError, LocalKey};
pub use parallel::{InParallelError, in_parallel};
pub use scope::{Scope, ScopedJoinHandle, scope};

pub use crate::time::{sleep, sleep_until};

use crate::scheduler::suspend::{self, here};
use crate::time::Instant;

/// Waits until [`Thread::unpark`] is called on the running task or thread, or returns at once if it was called since
/// the last `park`. In a task it never returns for no reason; on a plain thread it may, as std's.
///
/// # Cancellation
/// In a task it unwinds if the task is cancelled or an enclosing [`timeout`](crate::timeout) expires.
pub fn park() {
    match here() {
        Some(_) => suspend::park(),
        None => std::thread::park(),
    }
}

/// As [`park`], at most for `timeout`.
///
/// # Cancellation
/// As [`park`].
pub fn park_timeout(timeout: Duration) {
    match here() {
        Some(h) => {
            // A limit beyond what an `Instant` can hold is none.
            let _unparked = suspend::park_until(&h, Instant::now().checked_add(timeout));
        }
        None => std::thread::park_timeout(timeout),
    }
}

/// [`park_timeout`] in milliseconds.
#[deprecated(note = "deprecated in std as well: use park_timeout")]
pub fn park_timeout_ms(ms: u32) {
    park_timeout(Duration::from_millis(ms.into()));
}

/// [`sleep`] in milliseconds.
#[deprecated(note = "deprecated in std as well: use sleep")]
pub fn sleep_ms(ms: u32) {
    sleep(Duration::from_millis(ms.into()));
}

/// Lets every other task of the worker that can run do so first; std's on a plain thread.
///
/// # Cancellation
/// As [`yield_slice`](crate::yield_slice), which it is.
pub fn yield_now() {
    suspend::yield_slice();
}

/// Whether the running task (or plain thread) unwinds because of a panic or an interrupt.
///
/// std's answer is its thread's: in a task it is also true while another task of the worker waits in a destructor
/// that runs because of a panic. This one is about the caller alone.
pub fn panicking() -> bool {
    suspend::unwinding()
}
