//! The shipped wait reasons.

#[path = "../../../src/observe/wait.rs"]
mod wait;

pub(crate) use wait::{WaitKind, WaitReason};
