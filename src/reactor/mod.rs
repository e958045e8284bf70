//! Readiness of descriptors for one worker, edge-triggered, through mio's poll.
//!
//! A descriptor is registered once per worker that waits on it, for both directions, at the first wait. Readiness is
//! remembered per direction until a call says "would block" (or, where the rule in `net` allows it, a short read).
//!
//! Invariants: owned by one worker thread; only `Kicker` and the registry handle leave it. Waiters are FIFO per
//! direction and lie in their tasks' frames. Must not know: sockets, tasks beyond their references, time.

mod poll;
mod registration;

pub(crate) use poll::{Kicker, Poller};
pub(crate) use registration::{Direction, IoWaiter, Reactor, RegistrationId};
