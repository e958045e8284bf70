//! The state word of a task and every transition that it can make.
//!
//! The word holds the task's id (upper 48 bits) and flags (lower 16), so that one compare-and-swap checks identity
//! and state together: a stale reference to a cell that was reused simply fails.
//!
//! ```text
//!            spawn                start               park
//!   FREE ------------> UNSTARTED --------> ACTIVE <---------> PARKED
//!     ^                                      |       unpark
//!     +------------ (handle gone) -- DONE <--+ finish
//! ```
//!
//! ACTIVE means "running or in its worker's queue"; which of the two is told by the worker's `current` pointer. That
//! keeps a yield free of any write to the word. Who may do what:
//!
//! * the owner (the worker that runs the task): `start`, `park`, `finish`;
//! * anyone with the id: `unpark`, `cancel`, `inspect_*`;
//! * the one join handle: `add_joiner`, `remove_joiner`, `drop_handle`.
//!
//! **Inspection.** An inspector sets INSPECT, then looks at the owner's `current`. The owner stores `current`, then
//! looks at INSPECT. Both sides are sequentially consistent, so at least one sees the other: either the inspector
//! gives up because the task runs, or the owner requeues the task and takes the next. An inspector that found
//! `current` different must look at the word once more: if the task is still ACTIVE or PARKED under its id, then it
//! cannot run, end or be freed until INSPECT is cleared. One that found the task running may still read what is
//! constant until the cell is freed (the name): INSPECT does not keep the task from ending, but whoever frees the cell
//! first waits for `may_empty`. (`tests/loom-model` checks this file as it is.)

use crate::sys::atomic::{AtomicU64, Ordering};

const LIFE: u64 = 0b111;
const UNSTARTED: u64 = 1;
const ACTIVE: u64 = 2;
const PARKED: u64 = 3;
const DONE: u64 = 4;

/// An unpark that came before the park.
const TOKEN: u64 = 1 << 3;
/// Cancellation was requested; never cleared.
const CANCEL: u64 = 1 << 4;
/// Somebody reads the task's stack: it must not run.
const INSPECT: u64 = 1 << 5;
/// The join handle exists.
const HANDLE: u64 = 1 << 6;
/// The handle's owner waits; its unparker lies in the cell.
const JOINER: u64 = 1 << 7;
/// The finishing worker has read the joiner and will not touch the cell again.
const RELEASED: u64 = 1 << 8;
/// A user's `unpark` that came before the user's `park`.
const USER_TOKEN: u64 = 1 << 9;
/// Cancellation unwinds even through write guards.
const NOW: u64 = 1 << 10;
/// The task has left its result in the payload, which from now on belongs to the handle.
const RESULT: u64 = 1 << 11;

const ID_SHIFT: u32 = 16;

/// The largest id that the word can hold.
pub(crate) const MAX_ID: u64 = u64::MAX >> ID_SHIFT;

/// One reading of the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Snapshot(u64);

/// The states that an observer tells apart (`Active` is running or runnable).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Free,
    Unstarted,
    Active,
    Parked,
    Done,
}

impl Snapshot {
    pub(crate) fn id(self) -> u64 {
        self.0 >> ID_SHIFT
    }

    pub(crate) fn life(self) -> Life {
        match self.0 & LIFE {
            UNSTARTED => Life::Unstarted,
            ACTIVE => Life::Active,
            PARKED => Life::Parked,
            DONE => Life::Done,
            _ => Life::Free,
        }
    }

    pub(crate) fn cancel_requested(self) -> bool {
        self.0 & CANCEL != 0
    }

    pub(crate) fn cancel_now(self) -> bool {
        self.0 & NOW != 0
    }

    #[inline(always)]
    pub(crate) fn inspected(self) -> bool {
        self.0 & INSPECT != 0
    }
}

/// What `start` found.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The task is active; run it.
    Run,
    /// Somebody reads it; put it back and take another.
    Inspected,
}

/// What `park` did.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Park {
    /// The task is parked; whoever unparks it queues it.
    Parked,
    /// An unpark was waiting: the task stays active and the caller queues it.
    TokenTaken,
}

/// What is left to do after `unpark` or `cancel`.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpark {
    /// The task was parked and is now active: the caller must queue it.
    Queue,
    /// The task was not parked: the token waits for its next park.
    TokenLeft,
    /// The task has ended, or the cell belongs to another.
    Gone,
}

impl Unpark {
    /// By the word as it was before the transition.
    #[inline(always)]
    fn after(was: Result<u64, u64>) -> Unpark {
        match was {
            Ok(was) if was & LIFE == PARKED => Unpark::Queue,
            Ok(_) => Unpark::TokenLeft,
            Err(_) => Unpark::Gone,
        }
    }
}

/// What `cancel` found.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancel {
    /// The task has ended, or the cell belongs to another.
    Gone,
    /// The task will never start.
    Unstarted,
    /// It runs, can run, or is parked.
    Started,
    /// The same was requested before.
    Again,
}

/// What is left to do with the cell of a task that ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// Nobody holds a handle: free the cell.
    Free,
    /// The handle's owner will free it.
    HandleOwns,
    /// The joiner's unparker must be read and called, then `release`.
    WakeJoiner,
}

/// What `release` or `drop_handle` leaves to the caller.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CellFate {
    /// The caller drops the result and frees the cell.
    CallerFrees,
    /// Somebody else will.
    OtherFrees,
}

/// Who is to drop the result that lies in the payload.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// The payload belongs to the handle now.
    HandleOwns,
    /// Nobody holds a handle: the task takes it back.
    NobodyAsks,
}

/// What `drop_handle` did.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandleDrop {
    /// The task has left a result: the caller drops the payload, then comes back with `empty` set.
    ResultFirst,
    /// The handle is gone.
    Gone(CellFate),
}

/// What `add_joiner` or `remove_joiner` found.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joiner {
    /// The flag was changed; the task goes on.
    Changed,
    /// The task has ended.
    Done,
}

/// What `inspect_begin` found.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inspect {
    /// The flag is set; the caller must now rule out that the task runs, and must call `inspect_end`.
    Entered(Snapshot),
    /// Another inspector is there.
    Busy,
    /// Nothing to see: free, ended, or another id.
    Gone,
}

/// The word.
#[derive(Debug)]
pub(crate) struct State(AtomicU64);

impl State {
    /// A free cell. Zeroed memory is the same thing.
    #[cfg_attr(
        not(loom),
        expect(dead_code, reason = "cells are born from zeroed memory; the model needs a constructor")
    )]
    pub(crate) fn free_cell() -> State {
        State(AtomicU64::new(0))
    }

    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    #[inline]
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.load(Ordering::Acquire))
    }

    /// One place does the compare-and-swap: applies `next` until it lands or declines. A decline tells something as well
    /// ("the task has ended", "the result is there"), hence the acquire of the first look.
    #[inline(always)]
    fn change(&self, next: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        let mut now = self.load(Ordering::Acquire);
        while let Some(new) = next(now) {
            match self.0.compare_exchange_weak(now, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(now),
                Err(seen) => now = seen,
            }
        }
        Err(now)
    }

    /// FREE → UNSTARTED. The cell is the caller's alone; every field must be written before.
    pub(crate) fn spawn(&self, id: u64, handle: bool) {
        debug_assert!(id <= MAX_ID && id != 0);
        let flags = if handle { UNSTARTED | HANDLE } else { UNSTARTED };
        self.0.store(id << ID_SHIFT | flags, Ordering::Release);
    }

    /// UNSTARTED → ACTIVE, by the worker that will own the task.
    pub(crate) fn start(&self) -> Start {
        match self.change(|w| (w & INSPECT == 0).then_some(w & !LIFE | ACTIVE)) {
            Ok(was) => {
                debug_assert_eq!(was & LIFE, UNSTARTED);
                Start::Run
            }
            Err(_) => Start::Inspected,
        }
    }

    /// What the owner sees after it stored `current`: with INSPECT set the task must not be resumed.
    #[inline(always)]
    pub(crate) fn resume_check(&self) -> Snapshot {
        Snapshot(self.load(Ordering::SeqCst))
    }

    /// ACTIVE → PARKED, by the owner after the task has left its stack.
    #[inline(always)]
    pub(crate) fn park(&self) -> Park {
        let r = self.change(|w| Some(if w & TOKEN != 0 { w & !TOKEN } else { w & !LIFE | PARKED }));
        match r {
            Ok(was) if was & TOKEN != 0 => Park::TokenTaken,
            _ => Park::Parked,
        }
    }

    /// Takes a waiting token without parking; by the running task.
    #[inline(always)]
    pub(crate) fn take_token(&self) -> bool {
        self.load(Ordering::Relaxed) & TOKEN != 0 && self.change(|w| (w & TOKEN != 0).then_some(w & !TOKEN)).is_ok()
    }

    /// Whether the next park returns at once; by the running task.
    pub(crate) fn has_token(&self) -> bool {
        self.load(Ordering::Relaxed) & TOKEN != 0
    }

    /// PARKED → ACTIVE, or leaves a token.
    #[inline(always)]
    pub(crate) fn unpark(&self, id: u64) -> Unpark {
        self.wake_with(id, 0)
    }

    /// As `unpark`, with a token that only the user's own `park` takes.
    pub(crate) fn user_unpark(&self, id: u64) -> Unpark {
        self.wake_with(id, USER_TOKEN)
    }

    /// Takes the user's token; by the running task.
    pub(crate) fn take_user_token(&self) -> bool {
        self.change(|w| (w & USER_TOKEN != 0).then_some(w & !USER_TOKEN)).is_ok()
    }

    /// Requests cancellation and wakes the task so that it notices.
    pub(crate) fn cancel(&self, id: u64, now: bool) -> (Cancel, Unpark) {
        let add = if now { CANCEL | NOW } else { CANCEL };
        let was = self.add_and_wake(id, add);
        let found = match was {
            Err(_) => Cancel::Gone,
            Ok(w) if w & add == add => Cancel::Again,
            // The start is a change of this same word, so it sees the request.
            Ok(w) if w & LIFE == UNSTARTED => Cancel::Unstarted,
            Ok(_) => Cancel::Started,
        };
        (found, Unpark::after(was))
    }

    #[inline(always)]
    fn wake_with(&self, id: u64, add: u64) -> Unpark {
        Unpark::after(self.add_and_wake(id, add))
    }

    #[inline(always)]
    fn add_and_wake(&self, id: u64, add: u64) -> Result<u64, u64> {
        self.change(|w| match w & LIFE {
            _ if w >> ID_SHIFT != id => None,
            PARKED => Some(w & !LIFE | ACTIVE | add),
            ACTIVE | UNSTARTED => Some(w | TOKEN | add),
            _ => None,
        })
    }

    /// ACTIVE → DONE, by the owner after the task has left its stack for good.
    pub(crate) fn finish(&self) -> Finish {
        let r = self.change(|w| {
            let released = if w & JOINER == 0 { RELEASED } else { 0 };
            Some(w & !LIFE | DONE | released)
        });
        match r {
            Ok(was) | Err(was) => match (was & HANDLE != 0, was & JOINER != 0) {
                (false, _) => Finish::Free,
                (true, false) => Finish::HandleOwns,
                (true, true) => Finish::WakeJoiner,
            },
        }
    }

    /// After `WakeJoiner`: the joiner was read, the cell will not be touched again unless the caller frees it.
    pub(crate) fn release(&self) -> CellFate {
        match self.change(|w| Some(w | RELEASED)) {
            Ok(was) if was & HANDLE != 0 => CellFate::OtherFrees,
            _ => CellFate::CallerFrees,
        }
    }

    /// By the task itself, still on its stack, after it put its result into the payload. One transition decides with
    /// `drop_handle` who drops it, so that a value is never dropped in the worker's loop, where its `Drop` could not
    /// wait.
    pub(crate) fn offer_result(&self) -> Offer {
        match self.change(|w| (w & HANDLE != 0).then_some(w | RESULT)) {
            Ok(_) => Offer::HandleOwns,
            Err(_) => Offer::NobodyAsks,
        }
    }

    /// The handle goes away. `empty`: the caller knows that the payload holds no result any more.
    #[inline]
    pub(crate) fn drop_handle(&self, empty: bool) -> HandleDrop {
        let w = self.load(Ordering::Acquire);
        if w & (LIFE | RELEASED) == DONE | RELEASED && (empty || w & RESULT == 0) {
            // Nobody asks for the handle any more, and the word is about to be overwritten: that it is gone need not be written.
            return HandleDrop::Gone(CellFate::CallerFrees);
        }
        match self.change(|w| (empty || w & RESULT == 0).then_some(w & !(HANDLE | JOINER))) {
            Ok(was) if was & LIFE == DONE && was & RELEASED != 0 => HandleDrop::Gone(CellFate::CallerFrees),
            Ok(_) => HandleDrop::Gone(CellFate::OtherFrees),
            Err(_) => HandleDrop::ResultFirst,
        }
    }

    /// Whether the task has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.load(Ordering::Acquire) & LIFE == DONE
    }

    /// The joiner's unparker was written to the cell: publish it.
    pub(crate) fn add_joiner(&self) -> Joiner {
        match self.change(|w| (w & LIFE != DONE).then_some(w | JOINER)) {
            Ok(_) => Joiner::Changed,
            Err(_) => Joiner::Done,
        }
    }

    /// Whether a joiner stands in the cell; by the handle, which alone changes that before the end.
    pub(crate) fn has_joiner(&self) -> bool {
        self.load(Ordering::Relaxed) & JOINER != 0
    }

    /// The joiner gives up, so that its slot may be written again.
    pub(crate) fn remove_joiner(&self) -> Joiner {
        match self.change(|w| (w & LIFE != DONE).then_some(w & !JOINER)) {
            Ok(_) => Joiner::Changed,
            Err(_) => Joiner::Done,
        }
    }

    /// Sets INSPECT on a task that may be looked at.
    pub(crate) fn inspect_begin(&self) -> Inspect {
        let r = self.change(|w| match w & LIFE {
            UNSTARTED | ACTIVE | PARKED if w & INSPECT == 0 => Some(w | INSPECT),
            _ => None,
        });
        match r {
            Ok(was) => Inspect::Entered(Snapshot(was)),
            Err(was) if was & INSPECT != 0 => Inspect::Busy,
            Err(_) => Inspect::Gone,
        }
    }

    /// After the inspector saw that `current` is another task: whether the window really holds.
    pub(crate) fn inspect_confirm(&self, id: u64) -> bool {
        let w = self.load(Ordering::SeqCst);
        w >> ID_SHIFT == id && w & INSPECT != 0 && matches!(w & LIFE, UNSTARTED | ACTIVE | PARKED)
    }

    /// Clears INSPECT; from here on the cell may be emptied.
    pub(crate) fn inspect_end(&self, id: u64) {
        let _ = self.change(|w| (w >> ID_SHIFT == id && w & INSPECT != 0).then_some(w & !INSPECT));
    }

    /// Whether an inspector is there; by the running task, after it changed what inspectors read.
    pub(crate) fn inspected_now(&self) -> bool {
        self.load(Ordering::SeqCst) & INSPECT != 0
    }

    /// Whether nobody reads the cell of an ended task any more; by whoever was told to free it. Once true it stays
    /// true, because no inspector enters after the end. False: do something else and ask again.
    #[inline(always)]
    pub(crate) fn may_empty(&self) -> bool {
        let w = self.load(Ordering::Acquire);
        debug_assert_eq!(w & LIFE, DONE);
        w & INSPECT == 0
    }

    /// DONE → FREE, by whoever was told to free the cell, after `may_empty`.
    pub(crate) fn free(&self) {
        self.0.store(0, Ordering::Release);
    }
}
