//! The shipped wait reasons.

#[path = "../../../src/observe/object.rs"]
mod object;
#[path = "../../../src/observe/wait.rs"]
mod wait;

pub(crate) use object::Object;
pub(crate) use wait::{WaitKind, WaitReason};
