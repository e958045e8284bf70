//! Plain data that every layer may write and every view may read: why a task waits, and the hooks through which a
//! low layer reaches a high one.
//!
//! Invariants: nothing here allocates, blocks or calls into the scheduler. What must call upward does so through a
//! function pointer that the upper layer registered.

pub(crate) mod class;
mod histogram;
mod hooks;
mod object;
mod wait;

pub use histogram::Distribution;
pub(crate) use histogram::Histogram;
pub(crate) use hooks::SLICE_OVERRUN;
pub(crate) use object::{Object, THREAD};
pub(crate) use wait::{WaitKind, WaitReason};
