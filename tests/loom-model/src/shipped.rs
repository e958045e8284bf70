//! The runtime's own files.

#[path = "../../../src/scheduler/idle.rs"]
pub(crate) mod idle;
#[path = "../../../src/scheduler/inbox.rs"]
pub(crate) mod inbox;
#[path = "../../../src/task/state.rs"]
pub(crate) mod state;
