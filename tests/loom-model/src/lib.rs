//! Model checking of the protocols on which the scheduler stands.
//!
//! The files under `shipped` are those of the runtime itself, compiled by path: what loom explores is what ships. Only
//! their surroundings differ: `sys` gives them loom's atomics, `scheduler` and `task` give the locks and channels
//! somebody to park. Around them, each test replays the few lines of the runtime that use them; those lines name the
//! function that they stand for, and must be changed together with it.
//!
//! loom explores every interleaving and every value that a load may see, up to the bound on preemptions that each test
//! states, or a lower one where `cargo test` runs it beside all others; `LOOM_LONG=1` keeps to the stated ones and
//! `LOOM_MAX_PREEMPTIONS` sets another.
//!
//! Run with `.ci/loom` for the long form, which `.ci/soak` contains.

#![cfg(test)]
#![allow(dead_code, reason = "a model uses a part of each shipped file")]

mod model;
mod observe;
mod scheduler;
mod shipped;
mod sync;
mod sys;
mod task;

mod channel_tests;
mod choice_tests;
mod condvar_tests;
mod gate_tests;
mod idle_tests;
mod inbox_tests;
mod inspect_tests;
mod join_tests;
mod park_tests;
mod rwlock_tests;
mod semaphore_tests;
mod sync_tests;
