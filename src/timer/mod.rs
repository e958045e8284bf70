//! Timers of one worker: a heap that holds them in tables of its own.
//!
//! Chosen by measurement against a timing wheel and a binary heap (`benches/timer_structures.rs`; the figures are in
//! `ARCHITECTURE.md`).
//!
//! Invariants: only its worker touches it; a key names one timer for ever; what an action points to lives until
//! the timer has fired or was removed (the caller's promise: nothing here follows the pointers). Must not know: what is
//! done when a timer fires.

#![forbid(unsafe_code)]

mod heap;

pub(crate) use heap::{TimerAction, TimerKey, Timers};
