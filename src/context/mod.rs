//! The switch between a worker's stack and a task's stack.
//!
//! Purpose: suspend one flow of control and resume another in a few nanoseconds, leaving every register that
//! an unwinder needs readable in [`Ctx`].
//!
//! Invariants: a `Ctx` is written only by the thread that suspends and read by others only while the owner
//! is known not to run (see `task::state`). A context is resumed on the thread that it was first resumed on.
//!
//! Must not know: tasks, workers, queues. One file per architecture exports `Ctx`, `switch` and `BASE`.

#[cfg(all(target_arch = "x86_64", not(any(miri, coro_thread_context))))]
mod x86_64;
#[cfg(all(feature = "probe", all(target_arch = "x86_64", not(any(miri, coro_thread_context)))))]
pub(crate) use x86_64::call_on;
#[cfg(all(target_arch = "x86_64", not(any(miri, coro_thread_context))))]
#[allow(unused_imports, reason = "not every system can ask where a thread is")]
pub(crate) use x86_64::{Ctx, base_range, finish, stack_pointer, stub_range, switch};

#[cfg(all(target_arch = "aarch64", not(any(miri, coro_thread_context))))]
mod aarch64;
#[cfg(all(feature = "probe", all(target_arch = "aarch64", not(any(miri, coro_thread_context)))))]
pub(crate) use aarch64::call_on;
#[cfg(all(target_arch = "aarch64", not(any(miri, coro_thread_context))))]
#[allow(unused_imports, reason = "not every system can ask where a thread is")]
pub(crate) use aarch64::{Ctx, base_range, finish, stack_pointer, stub_range, switch};

#[cfg(any(miri, coro_thread_context))]
mod thread;
#[cfg(all(feature = "probe", any(miri, coro_thread_context)))]
pub(crate) use thread::call_on;
#[cfg(any(miri, coro_thread_context))]
#[allow(unused_imports, reason = "not every system can ask where a thread is")]
pub(crate) use thread::{Ctx, base_range, finish, stack_pointer, stub_range, switch};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", miri, coro_thread_context)))]
compile_error!("coro has a context switch for x86_64 and aarch64 only; build with --cfg coro_thread_context elsewhere");

pub(crate) mod sanitizer;

/// What a context runs first. It never returns: its last act is a switch away.
pub(crate) type Entry = unsafe extern "C-unwind" fn(*mut ()) -> !;

/// What [`call_on`] calls.
#[cfg(feature = "probe")]
pub(crate) type Call = unsafe extern "C" fn(*mut ());
