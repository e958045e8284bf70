//! The shipped wait reasons.

/// What the models check is the default.
pub(crate) const ON: bool = true;

#[path = "../../../src/observe/counted.rs"]
mod counted;
#[path = "../../../src/observe/object.rs"]
mod object;
#[path = "../../../src/observe/reads.rs"]
mod reads;
#[path = "../../../src/observe/wait.rs"]
mod wait;

pub(crate) use counted::{Counted, READER, Traffic, Worded};
pub(crate) use object::Object;
pub(crate) use reads::HeldReads;
pub(crate) use wait::{WaitKind, WaitReason};
