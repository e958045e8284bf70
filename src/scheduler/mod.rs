//! Workers, their queues, and the life of a task from spawn to end.
//!
//! ```text
//!   spawn --> fresh (stealable) --> slice ... slice --> settled
//!                                   ^  |
//!                 run queue <-------+  +--> parked --> (own worker) run queue
//!                                                 \--> (other thread) inbox
//! ```
//!
//! Invariants: a started task runs on one worker; unstarted tasks lie only where anyone can take them; nothing waits
//! for an inspector. Must not know: sockets, locks, channels, text for people.

pub(crate) mod alarm;
mod ctrl_c;
mod enter;
mod fresh;
pub(crate) mod handover;
mod idle;
mod inbox;
pub(crate) mod io;
mod join;
mod labels;
mod linger;
mod maintain;
pub(crate) mod marks;
mod options;
#[cfg(feature = "futures-io")]
mod poll_io;
pub(crate) mod readiness;
mod run_queue;
pub(crate) mod runtime;
pub(crate) mod shared;
mod slice;
#[cfg(feature = "probe")]
pub(crate) mod spare;
mod spawn;
pub(crate) mod stall;
mod stretch;
pub(crate) mod suspend;
mod timeout;
mod unwinding;
mod wake;
pub(crate) mod waker;
mod worker;

use std::any::Any;
use std::sync::OnceLock;

pub use ctrl_c::ctrl_c;
pub(crate) use ctrl_c::{listen_for_signals, somebody_waits_for_a_signal, wait_for_signal};
pub use enter::{RunBuilder, event_loop, run, runner, set_exit, stopping};
pub use io::{set_own_selfishness, set_selfishness};
pub use join::{CancelOutcome, JoinHandle, Task, current, current_name, current_worker};
pub use labels::{inherit_labels, label, labels, remove_label, set_label, set_own_latency_warning};
pub use options::SimultaneousError;
pub use runtime::{Runtime, RuntimeBuilder, WorkerStats, worker_stats};
pub use spawn::{Builder, spawn, spawn_local, spawn_named};
pub use suspend::{is_cancel, is_cancelled, no_switch, park, shield, yield_slice};

pub(crate) use join::{current_label, task_in};
pub(crate) use labels::in_these_scopes;
#[cfg(feature = "probe")]
pub(crate) use labels::{is_in, with_scopes};
pub(crate) use spawn::{spawn_borrowing, spawn_scoped};
pub(crate) use wake::unpark;

use crate::task::{Registry, TaskCell};
use crate::wiring::UPWARD;

/// The process's registry: one for all runtimes, so that a reference to a task is valid for ever.
pub(crate) fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::new)
}

/// Every cell that was ever used, free ones included.
pub(crate) fn all_cells() -> impl Iterator<Item = &'static TaskCell> {
    let r = registry();
    (0..r.chunks()).flat_map(|i| r.cells(i))
}

/// What `io::Error` carries when an I/O call was cancelled.
#[derive(Debug)]
pub struct CancelledError(());

impl CancelledError {
    pub(crate) fn new() -> CancelledError {
        CancelledError(())
    }
}

impl std::fmt::Display for CancelledError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the task was cancelled")
    }
}

impl std::error::Error for CancelledError {}

/// What the layers above register: how to report an uncaught panic, and tasks that a shutdown left behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upward {
    pub(crate) uncaught: fn(&'static TaskCell, &(dyn Any + Send)),
    pub(crate) left_behind: fn(&runtime::Inner),
    pub(crate) in_panic_hook: fn() -> bool,
    pub(crate) init: fn(),
}

fn uncaught(cell: &'static TaskCell, payload: &(dyn Any + Send)) {
    (UPWARD.uncaught)(cell, payload);
}

/// Whether the caller was called by a panic hook.
fn in_panic_hook() -> bool {
    (UPWARD.in_panic_hook)()
}

fn report_left_behind(inner: &runtime::Inner) {
    (UPWARD.left_behind)(inner);
}

fn hooks() {
    (UPWARD.init)();
}
