//! Registrations of one worker, their readiness and their waiters.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use super::poll::{Poller, Ready};
use crate::sys::line::Line;
use crate::task::TaskRef;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// A registration in one worker's slab. The generation tells a reused place from the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RegistrationId {
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

impl RegistrationId {
    fn token(self) -> usize {
        self.key as usize | (self.generation as usize) << 32
    }

    fn from_token(token: usize) -> RegistrationId {
        RegistrationId { key: token as u32, generation: (token >> 32) as u32 }
    }
}

/// One waiting task, in its own frame.
#[derive(Debug)]
pub(crate) struct IoWaiter {
    task: TaskRef,
    next: Cell<*const IoWaiter>,
    linked: Cell<bool>,
}

impl IoWaiter {
    pub(crate) fn new(task: TaskRef) -> IoWaiter {
        IoWaiter { task, next: Cell::new(ptr::null()), linked: Cell::new(false) }
    }
}

#[derive(Debug)]
struct Side {
    ready: bool,
    first: *const IoWaiter,
    last: *const IoWaiter,
    /// Futures that found nothing to do, each of another task. All are woken: a future does not say when it goes away.
    wakers: Vec<Waker>,
}

/// So many futures may wait for one direction of a socket before the next one wakes them all to look again.
#[cfg(feature = "futures-io")]
const MOST_WAKERS: usize = 16;

impl Side {
    const fn new() -> Side {
        Side { ready: false, first: ptr::null(), last: ptr::null(), wakers: Vec::new() }
    }

    fn first_task(&self) -> Option<TaskRef> {
        // SAFETY: a linked waiter's frame is alive; it unlinks itself before it ends.
        (!self.first.is_null()).then(|| unsafe { (*self.first).task })
    }

    fn push(&mut self, w: &IoWaiter) {
        w.linked.set(true);
        w.next.set(ptr::null());
        if self.last.is_null() {
            self.first = w;
        } else {
            // SAFETY: as in `first_task`.
            unsafe { (*self.last).next.set(w) };
        }
        self.last = w;
    }

    fn remove(&mut self, w: &IoWaiter) {
        if !w.linked.replace(false) {
            return;
        }
        let mut before: *const IoWaiter = ptr::null();
        let mut at = self.first;
        while !ptr::eq(at, w) {
            before = at;
            // SAFETY: as in `first_task`; `w` is linked, so it is met before the end.
            at = unsafe { (*at).next.get() };
        }
        if before.is_null() {
            self.first = w.next.get();
        } else {
            // SAFETY: as above.
            unsafe { (*before).next.set(w.next.get()) };
        }
        if ptr::eq(self.last, w) {
            self.last = before;
        }
    }
}

#[derive(Debug)]
struct Registration {
    fd: RawFd,
    generation: u32,
    read: Side,
    write: Side,
    /// An end or error was seen once: sticky.
    ended: bool,
}

impl Registration {
    fn side(&mut self, d: Direction) -> &mut Side {
        match d {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

/// The reactor of one worker.
#[derive(Debug)]
pub(crate) struct Reactor {
    poller: Poller,
    slab: Slab<Registration>,
    /// To be woken as soon as nothing is borrowed any more: they are anybody's code.
    due: Vec<Waker>,
}

/// Counted over all workers of the process: a worker that has ended and the one that took its place never give the same
/// id, so a descriptor that is closed between the two takes nobody else's registration out.
static GENERATION: Line<AtomicU32> = Line::new(AtomicU32::new(0));

impl Reactor {
    pub(crate) fn new(poller: Poller) -> Reactor {
        Reactor { poller, slab: Slab::new(), due: Vec::new() }
    }

    /// Registers a descriptor for both directions.
    pub(crate) fn register(&mut self, fd: RawFd) -> io::Result<RegistrationId> {
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        let entry = self.slab.vacant_entry();
        let id = RegistrationId { key: entry.key() as u32, generation };
        self.poller.register(fd, id.token())?;
        entry.insert(Registration { fd, generation, read: Side::new(), write: Side::new(), ended: false });
        Ok(id)
    }

    fn get(&mut self, id: RegistrationId) -> Option<&mut Registration> {
        self.slab.get_mut(id.key as usize).filter(|r| r.generation == id.generation)
    }

    /// Forgets a registration; with `deregister` also in the poll (false: somebody did already). Calls `wake` for every
    /// waiter, if the descriptor was closed under some: to them the registration is just not there any more.
    pub(crate) fn remove(&mut self, id: RegistrationId, deregister: bool, mut wake: impl FnMut(TaskRef)) {
        let Some(fd) = self.get(id).map(|r| r.fd) else { return };
        if deregister {
            // The descriptor is open (its owner is just closing it), so this fails only if the poll is gone.
            let _ = self.poller.deregister(fd);
        }
        let mut registration = self.slab.remove(id.key as usize);
        self.due.append(&mut registration.read.wakers);
        self.due.append(&mut registration.write.wakers);
        for side in [&registration.read, &registration.write] {
            let mut at = side.first;
            while !at.is_null() {
                // SAFETY: as in `first_task`; waiters unlink themselves on this thread, which is here.
                let waiter = unsafe { &*at };
                wake(waiter.task);
                at = waiter.next.get();
            }
        }
    }

    /// Whether the direction is ready and nobody waits for it.
    #[inline]
    pub(crate) fn is_free(&mut self, id: RegistrationId, d: Direction) -> bool {
        self.get(id).is_some_and(|r| {
            let s = r.side(d);
            s.ready && s.first.is_null()
        })
    }

    /// Whether the direction is ready and the waiter is the first in its queue.
    pub(crate) fn is_turn(&mut self, id: RegistrationId, d: Direction, w: &IoWaiter) -> bool {
        self.get(id).is_some_and(|r| {
            let s = r.side(d);
            s.ready && ptr::eq(s.first, w)
        })
    }

    /// Whether the waiter is the first in its queue, ready or not.
    pub(crate) fn is_first(&mut self, id: RegistrationId, d: Direction, w: &IoWaiter) -> bool {
        self.get(id).is_some_and(|r| ptr::eq(r.side(d).first, w))
    }

    /// A call would have blocked.
    pub(crate) fn clear(&mut self, id: RegistrationId, d: Direction) {
        if let Some(r) = self.get(id) {
            r.side(d).ready = false;
        }
    }

    /// A read took less than it could have: drained, unless an end or error was ever seen.
    pub(crate) fn clear_after_short_read(&mut self, id: RegistrationId) {
        if let Some(r) = self.get(id)
            && !r.ended
        {
            r.read.ready = false;
        }
    }

    /// Keeps or restores readiness that a failed call did not use up (`EMFILE` leaves the backlog where it is).
    pub(crate) fn set_ready(&mut self, id: RegistrationId, d: Direction) {
        if let Some(r) = self.get(id) {
            r.side(d).ready = true;
        }
    }

    /// Links a waiter at the end of the direction's queue.
    ///
    /// # Safety
    /// The waiter stays where it is until `unlink` was called for it.
    pub(crate) unsafe fn link(&mut self, id: RegistrationId, d: Direction, w: &IoWaiter) {
        if let Some(r) = self.get(id) {
            r.side(d).push(w);
        }
    }

    pub(crate) fn unlink(&mut self, id: RegistrationId, d: Direction, w: &IoWaiter) {
        if let Some(r) = self.get(id) {
            r.side(d).remove(w);
        }
    }

    /// Whether the direction is ready, whoever waits for it.
    pub(crate) fn is_ready(&mut self, id: RegistrationId, d: Direction) -> bool {
        self.get(id).is_some_and(|r| r.side(d).ready)
    }

    /// Wakes whoever polls when the direction becomes ready. The waker comes back if it is there already.
    #[cfg(feature = "futures-io")]
    #[must_use = "a waker is anybody's code: drop it outside of every borrow"]
    pub(crate) fn add_waker(&mut self, id: RegistrationId, d: Direction, waker: Waker) -> Option<Waker> {
        let Reactor { slab, due, .. } = self;
        let registration = slab.get_mut(id.key as usize).filter(|r| r.generation == id.generation);
        let Some(registration) = registration else { return Some(waker) };
        let wakers = &mut registration.side(d).wakers;
        if wakers.iter().any(|w| w.will_wake(&waker)) {
            return Some(waker);
        }
        if wakers.len() == MOST_WAKERS {
            due.append(wakers);
        }
        wakers.push(waker);
        None
    }

    /// Whoever is to be woken, once nothing is borrowed.
    pub(crate) fn take_due(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.due)
    }

    /// The task that should try next, if the direction is ready and somebody waits.
    pub(crate) fn next_if_ready(&mut self, id: RegistrationId, d: Direction) -> Option<TaskRef> {
        self.get(id).and_then(|r| {
            let s = r.side(d);
            if s.ready { s.first_task() } else { None }
        })
    }

    /// Waits for readiness and calls `wake` for the first waiter of each direction that became ready.
    pub(crate) fn poll(&mut self, timeout: Option<Duration>, mut wake: impl FnMut(TaskRef)) -> usize {
        let Reactor { poller, slab, due } = self;
        poller.wait(timeout, |e: Ready| {
            let id = RegistrationId::from_token(e.token);
            let Some(r) = slab.get_mut(id.key as usize).filter(|r| r.generation == id.generation) else { return };
            r.ended |= e.ended;
            for (set, side) in [(e.readable, &mut r.read), (e.writable, &mut r.write)] {
                if set {
                    side.ready = true;
                    due.append(&mut side.wakers);
                    if let Some(task) = side.first_task() {
                        wake(task);
                    }
                }
            }
        })
    }

    /// Fault injection for tests: marks everything ready and wakes the first waiters, as a spurious edge would.
    pub(crate) fn spurious(&mut self, mut wake: impl FnMut(TaskRef)) {
        for (_, r) in &mut self.slab {
            for side in [&mut r.read, &mut r.write] {
                side.ready = true;
                self.due.append(&mut side.wakers);
                if let Some(task) = side.first_task() {
                    wake(task);
                }
            }
        }
    }

    /// How many descriptors are registered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }
}

// Miri's epoll does not know EPOLLPRI.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn no_two_workers_give_the_same_id() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let ids = [a.as_raw_fd(), b.as_raw_fd()].map(|fd| Reactor::new(Poller::new().unwrap().0).register(fd).unwrap());
        assert_eq!(ids[0].key, ids[1].key);
        assert_ne!(ids[0], ids[1]);
    }
}
