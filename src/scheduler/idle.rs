//! The handshake between a worker that goes to sleep and those who bring it work.
//!
//! ```text
//!   worker                               whoever brings work
//!   ------                               -------------------
//!   1. state = ASLEEP                    1. publish the work
//!   2. full fence                        2. full fence
//!   3. look for work once more           3. if state is ASLEEP: state = AWAKE, kick
//!   4. none: wait in the poll
//!   5. state = AWAKE
//! ```
//!
//! Each side publishes before it looks, with a full fence between, so at least one sees the other: either the worker
//! finds the work at 3, or the bringer finds it asleep and kicks. Kicks are level-like (the poll's waker stays
//! signalled until the wait returns), so a kick between 3 and 4 is not lost. The compare-and-swap makes sure that one
//! sleep is kicked once. `tests/loom-model` checks this file as it is.
//!
//! Whoever has work for anybody asks [`Sleepers`] first: one line that is written when a worker falls asleep or wakes up, and else read
//! by everybody. To look at the state of each worker, with all of them at work, would cost a spawn a cache miss for every worker.

#![forbid(unsafe_code)]

use crate::sys::atomic::{AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// How many workers sleep, or are about to. Counted before step 1 of the worker and after its step 5, so whoever publishes, passes a
/// fence and sees none here may count on every worker to find the work at its step 3, as if it had looked at each.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Sleepers(AtomicU32);

impl Sleepers {
    pub(crate) fn new() -> Sleepers {
        Sleepers(AtomicU32::new(0))
    }

    /// Step 3 of a bringer whom any worker would serve, after its fence.
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }
}

/// One worker's side of the handshake.
#[derive(Debug)]
pub(crate) struct Idle(AtomicU32);

/// Whether the caller has to kick.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The worker sleeps or is about to: kick its poll.
    Kick,
    /// It is awake and will look by itself.
    Awake,
}

impl Idle {
    pub(crate) fn new() -> Idle {
        Idle(AtomicU32::new(AWAKE))
    }

    /// Steps 1 and 2 of the worker; it must look for work once more after this.
    pub(crate) fn fall_asleep(&self, all: &Sleepers) {
        all.0.fetch_add(1, Ordering::SeqCst);
        self.0.store(ASLEEP, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Step 5 of the worker, also when step 3 found something.
    pub(crate) fn wake_up(&self, all: &Sleepers) {
        self.0.store(AWAKE, Ordering::SeqCst);
        all.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Steps 2 and 3 of the bringer, after the work was published.
    pub(crate) fn bring(&self) -> Wake {
        fence(Ordering::SeqCst);
        if self.0.load(Ordering::SeqCst) == ASLEEP
            && self.0.compare_exchange(ASLEEP, AWAKE, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            Wake::Kick
        } else {
            Wake::Awake
        }
    }

    /// For whoever published something before and counts on the worker to look for it after [`Idle::wake_up`].
    pub(crate) fn is_asleep(&self) -> bool {
        self.0.load(Ordering::SeqCst) == ASLEEP
    }

    /// A guess without ordering, for choosing whom to wake.
    pub(crate) fn looks_asleep(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ASLEEP
    }
}
