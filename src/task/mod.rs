//! A task: its cell, its state, its closure and result, and the registry in which every task is found.
//!
//! Ownership of a cell, by state of its word (see [`state`]):
//!
//! * FREE: the magazine or depot that holds it.
//! * UNSTARTED: whoever holds it in a queue; nobody touches the payload until `start`.
//! * ACTIVE, PARKED: the worker in `owner`. Others read fields only inside an inspection window.
//! * DONE: the join handle while HANDLE is set; the finishing worker until RELEASED.
//!
//! Cells are type-stable: their memory is never unmapped and always holds a valid word, so a stale reference is a
//! failed comparison, never a wild access.
//!
//! Must not know: workers, queues, timers, I/O.

mod cell;
mod label;
mod local;
pub(crate) mod locals;
mod payload;
mod registry;
#[cfg(feature = "tracing")]
pub(crate) mod spans;
pub(crate) mod state;
mod unparker;

pub(crate) use cell::{LOCAL, NOTEWORTHY, PLACED, TaskCell, TaskRef};
pub(crate) use label::{LONGEST_KEY, LONGEST_VALUE, Label, MOST_LABELS};
pub(crate) use local::{Interrupt, LocalRoom, TaskLocal, TimeoutScope};
pub(crate) use payload::{JoinResult, has_result, is_empty as payload_is_empty, store_closure, take_result, vtable};
pub(crate) use registry::{Magazine, Registry};
pub(crate) use unparker::{Other, Unparker};
