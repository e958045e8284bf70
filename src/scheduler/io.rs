//! A descriptor that tasks wait on: registered lazily in each worker that waits, tried first, waited for second.
//!
//! Invariants: the descriptor is non-blocking. A registration is made and looked at by its own worker only; whoever
//! closes the descriptor takes all of them out first. Several waiters of one direction queue first in, first out.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::shared::worker_at;
use super::suspend::{Here, UNWINDING_BUDGET, here, unpark_task};
use super::worker::Worker;
use crate::observe::{WaitKind, WaitReason};
use crate::reactor::{Direction, IoWaiter, RegistrationId};
use crate::sys;

/// After so many I/O calls in a row that did not wait, the task gives way once.
const IO_BUDGET: u32 = 32;

/// Readiness of one descriptor, in every worker that ever waited on it.
#[derive(Debug)]
pub(crate) struct Source {
    fd: RawFd,
    /// The first worker that registered it, and the registration there. 0: none.
    home: AtomicU64,
    home_id: AtomicU64,
    /// Further workers.
    more: Mutex<Vec<(u64, RegistrationId)>>,
}

fn pack(id: RegistrationId) -> u64 {
    u64::from(id.key) | u64::from(id.generation) << 32
}

fn unpack(v: u64) -> RegistrationId {
    RegistrationId { key: v as u32, generation: (v >> 32) as u32 }
}

impl Source {
    pub(crate) fn new(fd: RawFd) -> Source {
        Source { fd, home: AtomicU64::new(0), home_id: AtomicU64::new(0), more: Mutex::default() }
    }

    /// The registration in this worker, if there is one.
    #[inline]
    fn registration(&self, w: &Worker) -> Option<RegistrationId> {
        let me = w.shared.identity();
        let home = self.home.load(Ordering::Acquire);
        if home == me {
            // Written by this very thread.
            return Some(unpack(self.home_id.load(Ordering::Relaxed)));
        }
        if home == 0 {
            return None;
        }
        let more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        more.iter().find(|(w, _)| *w == me).map(|(_, id)| *id)
    }

    fn register(&self, w: &Worker) -> io::Result<RegistrationId> {
        let id = w.reactor.borrow_mut().register(self.fd)?;
        let me = w.shared.identity();
        if self.home.compare_exchange(0, me, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.home_id.store(pack(id), Ordering::Release);
        } else {
            self.more.lock().unwrap_or_else(PoisonError::into_inner).push((me, id));
        }
        Ok(id)
    }

    /// Takes the descriptor out of every poll. To be called right before it is closed or given away.
    pub(crate) fn deregister(&mut self) {
        let home = std::mem::take(self.home.get_mut());
        let more = std::mem::take(self.more.get_mut().unwrap_or_else(PoisonError::into_inner));
        let first = (home != 0).then(|| (home, unpack(*self.home_id.get_mut())));
        for (worker, id) in first.into_iter().chain(more) {
            let Some(shared) = worker_at(worker as u16).filter(|s| s.identity() == worker) else { continue };
            match Worker::current() {
                Some(w) if w.shared.index == shared.index => w.reactor.borrow_mut().remove(id, true),
                _ => shared.retire(self.fd, id),
            }
        }
    }

    /// Calls `op` until it does something else than "would block", waiting in between.
    ///
    /// # Errors
    /// What `op` returns, but for `WouldBlock` and `Interrupted`; the first interrupt of the task (see `suspend`).
    #[inline]
    pub(crate) fn run<T>(&self, d: Direction, kind: WaitKind, op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.run_draining(d, kind, op, |_| false)
    }

    /// As [`run`](Source::run); where `drained` says of a result that nothing is left, readiness is taken back, unless an
    /// end or error was ever seen on the descriptor.
    ///
    /// That must happen before anything can switch: an edge that comes between the call and the clearing would be lost.
    #[inline]
    pub(crate) fn run_draining<T>(
        &self,
        d: Direction,
        kind: WaitKind,
        mut op: impl FnMut() -> io::Result<T>,
        drained: impl Fn(&T) -> bool,
    ) -> io::Result<T> {
        let Some(h) = here() else { return self.run_on_thread(d, op) };
        h.checkpoint_io()?;
        let id = self.registration(h.worker);
        // Whoever comes while others wait queues behind them.
        while id.is_none_or(|id| h.worker.reactor.borrow_mut().is_free(id, d)) {
            match op() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(id) = id {
                        h.worker.reactor.borrow_mut().clear(id, d);
                    }
                    break;
                }
                result => {
                    if let Some(id) = id {
                        if result.as_ref().is_ok_and(&drained) {
                            h.worker.reactor.borrow_mut().clear_after_short_read(id);
                        }
                        pass_on(&h, id, d);
                    }
                    spend(&h);
                    return result;
                }
            }
        }
        self.run_waiting(&h, id, d, kind, op, drained)
    }

    /// The part of [`run_draining`](Source::run_draining) that waits.
    fn run_waiting<T>(
        &self,
        h: &Here,
        id: Option<RegistrationId>,
        d: Direction,
        kind: WaitKind,
        mut op: impl FnMut() -> io::Result<T>,
        drained: impl Fn(&T) -> bool,
    ) -> io::Result<T> {
        if h.unwinding() {
            return self.run_unwinding(h, d, op);
        }
        let id = match id {
            Some(id) => id,
            None => self.register(h.worker)?,
        };
        let reason = WaitReason::new(kind, self.fd as u64);
        let waiter = IoWaiter::new(h.task());
        // SAFETY: `Linked` borrows the waiter and unlinks it when dropped.
        unsafe { h.worker.reactor.borrow_mut().link(id, d, &waiter) };
        // It stays linked while it tries: a call that finds nothing after all must not cost it its turn.
        let _linked = Linked { here: h, id, direction: d, waiter: &waiter };
        loop {
            while !h.worker.reactor.borrow_mut().is_turn(id, d, &waiter) {
                h.checkpoint_io()?;
                h.park(reason);
            }
            match op() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => h.worker.reactor.borrow_mut().clear(id, d),
                result => {
                    if result.as_ref().is_ok_and(&drained) {
                        h.worker.reactor.borrow_mut().clear_after_short_read(id);
                    }
                    return result;
                }
            }
        }
    }

    /// In a destructor that runs because of a panic the thread is blocked instead, within the task's budget.
    #[cold]
    fn run_unwinding<T>(&self, h: &Here, d: Direction, mut op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            wait_unwinding(h, self.fd, d)?;
            match op() {
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                result => return result,
            }
        }
    }

    /// Says that the readiness just used was not used up: whoever waits next tries at once.
    pub(crate) fn keep_ready(&self, d: Direction) {
        if let Some(h) = here()
            && let Some(id) = self.registration(h.worker)
        {
            h.worker.reactor.borrow_mut().set_ready(id, d);
        }
    }

    fn run_on_thread<T>(&self, d: Direction, mut op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match op() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => sys::poll_fd(self.fd, d == Direction::Write, None)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                result => return result,
            };
        }
    }
}

/// Others may be waiting for what this call left over.
#[inline]
fn pass_on(h: &Here, id: RegistrationId, d: Direction) {
    let next = h.worker.reactor.borrow_mut().next_if_ready(id, d);
    if let Some(next) = next {
        unpark_task(next);
    }
}

/// Counts a call that did not wait; every so often the task gives way.
#[inline]
fn spend(h: &Here) {
    let streak = &h.local().io_streak;
    streak.set(streak.get() + 1);
    if streak.get() >= IO_BUDGET {
        give_way(h);
    }
}

/// Not inside `no_switch`, where a call that needs no wait is allowed; nor while the task unwinds, when the others would
/// see std's `panicking()`.
#[cold]
fn give_way(h: &Here) {
    let local = h.local();
    local.io_streak.set(0);
    if local.no_switch.get() == 0 && !h.unwinding() {
        h.yield_now();
    }
}

/// A place in the queue of one direction; whoever leaves it, for whatever reason, passes on what it leaves over.
struct Linked<'a> {
    here: &'a Here,
    id: RegistrationId,
    direction: Direction,
    waiter: &'a IoWaiter,
}

impl Drop for Linked<'_> {
    fn drop(&mut self) {
        self.here.worker.reactor.borrow_mut().unlink(self.id, self.direction, self.waiter);
        pass_on(self.here, self.id, self.direction);
    }
}

fn wait_unwinding(h: &Here, fd: RawFd, d: Direction) -> io::Result<()> {
    let used = Duration::from_nanos(h.local().unwinding_blocked_ns.get());
    let left = UNWINDING_BUDGET.saturating_sub(used);
    let start = std::time::Instant::now();
    let ready = !left.is_zero() && sys::poll_fd(fd, d == Direction::Write, Some(left))?;
    let spent = start.elapsed().as_nanos() as u64;
    h.local().unwinding_blocked_ns.set(h.local().unwinding_blocked_ns.get() + spent);
    if ready { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::scheduler::{Builder, Runtime};
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    fn registrations(rt: &Runtime) -> Vec<usize> {
        let on = |w| {
            rt.block_on(move || {
                let count = || Worker::current().expect("a task").reactor.borrow().len();
                Builder::new().worker(w).spawn(count).unwrap().join().unwrap()
            })
        };
        (0..rt.workers()).map(on).collect()
    }

    /// Waits on several workers at once; wherever the descriptor's owner goes away, every worker forgets it.
    #[test]
    fn registrations_go_from_every_worker_wherever_the_owner_is_dropped() {
        let rt = Runtime::builder().workers(3).build().unwrap();
        for dropped_on in [Some(0), Some(2), None] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let source = Arc::new((Source::new(ours.as_raw_fd()), ours));
            let readers: Vec<_> = (0..2)
                .map(|w| {
                    let s = source.clone();
                    let read = move || {
                        s.0.run(Direction::Read, WaitKind::Read, || (&s.1).read(&mut [0])).unwrap();
                    };
                    rt.block_on(move || Builder::new().worker(w).spawn(read).unwrap())
                })
                .collect();
            while registrations(&rt) != [1, 1, 0] {
                std::thread::yield_now();
            }
            theirs.write_all(b"xy").unwrap();
            readers.into_iter().for_each(|r| r.join().unwrap());
            let (mut source, ours) = Arc::into_inner(source).unwrap();
            let drops = move || {
                source.deregister();
                drop(ours);
            };
            match dropped_on {
                Some(w) => rt.block_on(move || Builder::new().worker(w).spawn(drops).unwrap().join().unwrap()),
                None => drops(),
            }
            // Others forget it at their next look around.
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            while registrations(&rt) != [0, 0, 0] {
                assert!(
                    std::time::Instant::now() < deadline,
                    "{:?} after a drop on {dropped_on:?}",
                    registrations(&rt)
                );
            }
        }
    }
}
