//! Plain data that every layer may write and every view may read: why a task waits, and the hooks through which a
//! low layer reaches a high one.
//!
//! Invariants: nothing here allocates, blocks or calls into the scheduler. What must call upward does so through a
//! function pointer that the upper layer registered.

/// Whether what views show is kept at all. Only a build that measures what keeping it costs
/// (`RUSTFLAGS="--cfg coro_no_observation"`, see docs/performance.md) says no: there slices are not timed, waits have no
/// reasons, objects no owners, sockets no counters, and nothing may look into a task.
pub(crate) const ON: bool = !cfg!(coro_no_observation);

// Its parts, each of which such a build can be without on its own (`RUSTFLAGS='--cfg coro_without="clock"'`, `benches/observation-parts`).

/// Every slice of a task that goes on ends with a reading of the clock.
pub(crate) const CLOCK: bool = ON && !cfg!(coro_without = "clock");
/// What a task, a worker and a class have run: slices, time, delays.
pub(crate) const COUNTERS: bool = ON && !cfg!(coro_without = "counters");
/// What a task waits for.
pub(crate) const REASONS: bool = ON && !cfg!(coro_without = "reasons");
/// A task may be looked into while others run: who runs is published before its word is read.
pub(crate) const WINDOW: bool = ON && !cfg!(coro_without = "window");
/// Who spawned a task, where, and what class it is of.
pub(crate) const ORIGIN: bool = ON && !cfg!(coro_without = "origin");

pub(crate) mod class;
mod counted;
mod histogram;
mod hooks;
mod object;
mod overrun;
#[cfg(feature = "probe")]
mod point;
mod reads;
#[cfg(feature = "probe")]
mod scopes;
mod wait;
mod words;
#[cfg(feature = "probe")]
mod woven;

pub(crate) use counted::{Counted, READER, Traffic, Worded};
pub use histogram::Distribution;
pub(crate) use histogram::Histogram;
pub(crate) use hooks::SLICE_OVERRUN;
pub(crate) use object::{Object, THREAD};
pub(crate) use overrun::{After, Overrun, ShortName};
#[cfg(feature = "probe")]
pub(crate) use point::{Calls, Kept, WatchedCall, boundary};
#[cfg(feature = "probe")]
pub use point::{Point, PointKind, PointName, Shown};
pub(crate) use reads::{HeldReads, MOST_READS};
#[cfg(feature = "probe")]
pub(crate) use scopes::{Scope, ScopeSet, Scopes};
#[allow(unused_imports, reason = "for modules to come; the tests use it")]
pub(crate) use wait::WaitWords;
pub(crate) use wait::{Choices, Detail, FileCall, MOST_CHOICES, WaitKind, WaitReason};
pub(crate) use words::WordRing;
#[cfg(feature = "probe")]
pub(crate) use woven::{Begun, Said, Woven, begin_with};
