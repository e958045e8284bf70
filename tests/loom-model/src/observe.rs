//! The shipped wait reasons.

#[path = "../../../src/observe/wait.rs"]
mod wait;
