//! Timers of one worker: a hierarchical wheel that holds them in one table.
//!
//! Chosen by measurement against a binary heap and a 4-ary heap (`benches/timer_structures.rs`; the figures are in
//! `ARCHITECTURE.md`).
//!
//! Invariants: only its worker touches a wheel; a key names one timer for ever; what an action points to lives until
//! the timer has fired or was removed (the caller's promise: nothing here follows the pointers). Must not know: what is
//! done when a timer fires.

#![forbid(unsafe_code)]

mod wheel;

pub(crate) use wheel::{RESOLUTION_NS, TimerAction, TimerKey, Wheel};
