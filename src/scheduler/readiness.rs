//! Waiting for readiness alone, beside other things: what `select` has of a descriptor.
//!
//! Invariants: as in `io`. The waiter stands in the direction's line from `enlist` to `leave`, like a task that waits in a call,
//! and passes on what it does not use. What it says is the kernel's answer, not the remembered readiness, which may be old.

use std::io;
use std::marker::PhantomPinned;
use std::time::Duration;

use super::options::Entered;
use super::suspend::{Here, here};
use crate::observe::{WaitKind, WaitReason};
use crate::reactor::{Direction, IoWaiter, RegistrationId};
use crate::scheduler::io::{Source, pass_on};
use crate::sys;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Readiness<'a> {
    source: &'a Source,
    direction: Direction,
    kind: WaitKind,
    place: Option<Place<'a>>,
    /// What went wrong when it was to wait.
    error: Option<io::Error>,
    /// The line leads to the waiter while others hold the whole by `&mut`.
    _pinned: PhantomPinned,
}

#[derive(Debug)]
struct Place<'a> {
    here: Here,
    id: RegistrationId,
    waiter: IoWaiter,
    _entered: Option<Entered<'a>>,
}

impl<'a> Readiness<'a> {
    pub(crate) fn new(source: &'a Source, direction: Direction, kind: WaitKind) -> Readiness<'a> {
        Readiness { source, direction, kind, place: None, error: None, _pinned: PhantomPinned }
    }

    /// Whether it is ready; `None`: not now.
    ///
    /// # Errors
    /// If the descriptor was closed under the waiter; `SimultaneousError`; of the system.
    pub(crate) fn now(&mut self) -> Option<io::Result<()>> {
        if let Some(e) = self.error.take() {
            return Some(Err(e));
        }
        if let Err(e) = self.source.check_open() {
            return Some(Err(e));
        }
        match sys::poll_fd(self.source.fd(), self.direction == Direction::Write, Some(Duration::ZERO)) {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(e) => Some(Err(self.source.explain(e))),
        }
    }

    /// Stands in line; false if there is something to say now. On a plain thread there is no line, and somebody must look.
    ///
    /// # Safety
    /// This stays where it is until [`leave`](Readiness::leave) was called.
    pub(crate) unsafe fn enlist(&mut self) -> bool {
        let Some(h) = here() else { return true };
        let entered = match self.source.options_if_any().map(|o| o.enter(self.source.fd(), self.direction)).transpose()
        {
            Ok(entered) => entered.flatten(),
            Err(e) => {
                self.error = Some(e);
                return false;
            }
        };
        let id = match self.source.registration(h.worker).map_or_else(|| self.source.register(h.worker), Ok) {
            Ok(id) => id,
            Err(e) => {
                self.error = Some(e);
                return false;
            }
        };
        if h.worker.reactor.borrow_mut().is_ready(id, self.direction) {
            // Remembered from before, or come while another arm was tried: the kernel knows.
            if self.poll_now().is_none_or(|ready| ready) {
                return false;
            }
            // The worker looks at its poll between slices only: what comes from now on makes an event.
            h.worker.reactor.borrow_mut().clear(id, self.direction);
        }
        let place = self.place.insert(Place { here: h, id, waiter: IoWaiter::new(h.task()), _entered: entered });
        // SAFETY: by the caller's promise; `leave` unlinks it.
        unsafe { h.worker.reactor.borrow_mut().link(id, self.direction, &place.waiter) };
        true
    }

    /// What the kernel says; `None`: an error.
    fn poll_now(&self) -> Option<bool> {
        sys::poll_fd(self.source.fd(), self.direction == Direction::Write, Some(Duration::ZERO)).ok()
    }

    /// Whether it is worth asking the kernel.
    pub(crate) fn is_due(&self) -> bool {
        self.source.check_open().is_err()
            || self
                .place
                .as_ref()
                .is_some_and(|p| p.here.worker.reactor.borrow_mut().is_turn(p.id, self.direction, &p.waiter))
    }

    /// Leaves the line, and passes on what came.
    pub(crate) fn leave(&mut self) {
        if let Some(place) = &self.place {
            place.here.worker.reactor.borrow_mut().unlink(place.id, self.direction, &place.waiter);
            pass_on(&place.here, place.id, self.direction);
        }
        self.place = None;
    }

    pub(crate) fn reason(&self) -> WaitReason {
        self.source.reason(self.kind)
    }
}

impl Drop for Readiness<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
