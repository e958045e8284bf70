//! What the shipped locks and channels see as `crate::task`: somebody to wake.

use std::cell::Cell;
use std::sync::Arc;

use loom::sync::Notify;

use crate::observe::HeldReads;
use crate::sys::atomic::AtomicBool;

/// A task that stands for itself: one model thread.
pub(crate) struct Task {
    pub(crate) wake: Notify,
    pub(crate) cancelled: AtomicBool,
    /// The deadline of its timed wait has come.
    pub(crate) expired: AtomicBool,
    pub(crate) local: Local,
}

#[derive(Default)]
pub(crate) struct Local {
    pub(crate) write_guards: Cell<u32>,
    pub(crate) held_reads: HeldReads,
}

// SAFETY: `local` is touched by the task's own thread only.
unsafe impl Send for Task {}
// SAFETY: as above.
unsafe impl Sync for Task {}

impl Task {
    pub(crate) fn new() -> Arc<Task> {
        Arc::new(Task {
            wake: Notify::new(),
            cancelled: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            local: Local::default(),
        })
    }
}

#[derive(Clone)]
pub(crate) struct Unparker(pub(crate) Arc<Task>);

impl std::fmt::Debug for Unparker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unparker")
    }
}
