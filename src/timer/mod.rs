//! Timers of one worker: a hierarchical wheel whose nodes lie in the frames of those who wait.
//!
//! Chosen by measurement against a binary heap and a 4-ary heap (`benches/timer_structures.rs`; the figures are in
//! `ARCHITECTURE.md`).
//!
//! Invariants: a node is linked in at most one wheel, only its worker touches it, and it is unlinked before its frame
//! ends. Must not know: what is done when a timer fires.

mod wheel;

pub(crate) use wheel::{RESOLUTION_NS, TimerAction, TimerNode, Wheel};
