//! Tracebacks: where the running code is and how it came there, from the innermost call to the task's base and on to who
//! spawned the task.
//!
//! * [`stack_string`], [`stack`]: the caller's own stack.
//! * [`Captured::here`]: keeps it for later at the cost of a walk; names are looked up when it is shown, and the calls that
//!   it shows do not change with what the tasks do meanwhile. Who spawned the task is kept as well; who spawned that one
//!   and so on is found out at the first look, as far as they exist then, and stays the same afterwards.
//! * [`Traced::traced`]: gives an error the stack of the place where it arose, and notes where it was caught.
//! * [`traceback`], [`traceback_string`]: the last panic of this task, also a caught one, with its whole stack.
//!
//! Stacks are taken inside tasks and on plain threads. With `CORO_SPAWN_STACKS=1` the stack of every spawn is kept as
//! well and shown below that of the task.
//!
//! Must not know: what becomes of a panic.

mod capture;
mod last;
mod traced;

pub use crate::inspect::Frame;
pub use capture::Captured;
pub(crate) use last::{Seen, remember, take_seen};
pub use last::{Traceback, traceback, traceback_string};
pub use traced::{Traced, TracedError};

/// The caller's stack in one line, innermost call first: `[src/db.rs fetch|31] [src/main.rs serve|12]`.
///
/// # Examples
/// ```
/// fn fetch() -> String {
///     coro::tb::stack_string()
/// }
/// let stack = coro::run(fetch);
/// assert!(stack.contains("fetch|"), "{stack}");
/// ```
#[inline(never)]
pub fn stack_string() -> String {
    Captured::until(stack_string as *const ()).condensed()
}

/// The caller's stack, innermost call first, calls inside of the runtime left out.
#[inline(never)]
pub fn stack() -> Vec<Frame> {
    Captured::until(stack as *const ()).frames()
}
