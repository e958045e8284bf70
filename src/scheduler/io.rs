//! A descriptor that tasks wait on: registered lazily in each worker that waits, tried first, waited for second.
//!
//! Invariants: the descriptor is non-blocking. A registration is made and looked at by its own worker only; whoever
//! closes the descriptor takes all of them out first. Several waiters of one direction queue first in, first out.
//!
//! **Closing under waiters.** `close` sets `closed` and takes the registrations under the lock under which they are
//! made, so none is made afterwards. Each worker wakes its own waiters when it forgets the registration; whoever wakes,
//! or meets an error, looks at `closed` before anything else.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use super::options::Options;
use super::shared::worker_at;
use super::suspend::{ArmedTimer, Here, UNWINDING_BUDGET, here};
use super::wake::unpark_task;
use super::worker::Worker;
use crate::observe::{WaitKind, WaitReason};
use crate::reactor::{Direction, IoWaiter, RegistrationId};
use crate::sys::{self, clock};

/// After so many I/O calls in a row that did not wait, a task gives way once, unless it has a number of its own.
static SELFISHNESS: AtomicU32 = AtomicU32::new(32);

#[track_caller]
fn check_selfishness(n: u32) {
    assert!((1..=32768).contains(&n), "a selfishness of {n} is out of range; choose 1 to 32768 I/O calls");
}

/// Sets after how many I/O calls in a row that found their socket ready a task gives way to others; returns the number
/// before. For every task of the process that has no number of its own. 32 at the start.
///
/// A small number is fair to other tasks of the worker, a large one favours throughput of busy connections.
///
/// # Panics
/// If `calls` is not in 1 to 32768.
///
/// # Examples
/// ```
/// let before = coro::set_selfishness(100);
/// assert_eq!(before, 32);
/// assert_eq!(coro::set_selfishness(before), 100);
/// ```
#[track_caller]
pub fn set_selfishness(calls: u32) -> u32 {
    check_selfishness(calls);
    SELFISHNESS.swap(calls, Ordering::Relaxed)
}

/// The number in force for tasks that have none of their own.
pub(crate) fn selfishness() -> u32 {
    SELFISHNESS.load(Ordering::Relaxed)
}

/// As [`set_selfishness`], for the running task alone; `None` goes back to the number of the process. Returns what the
/// task had before. On a plain thread, which gives way to nobody, it does nothing and returns `None`.
///
/// # Panics
/// If the number is not in 1 to 32768.
#[track_caller]
pub fn set_own_selfishness(calls: Option<u32>) -> Option<u32> {
    calls.into_iter().for_each(check_selfishness);
    let before = here()?.local().selfishness.replace(calls.unwrap_or(0));
    (before > 0).then_some(before)
}

/// Readiness of one descriptor, in every worker that ever waited on it.
#[derive(Debug)]
pub(crate) struct Source {
    fd: RawFd,
    /// Which socket has that descriptor, for wait reasons; 0: not said.
    serial: u32,
    /// The first worker that registered it, and the registration there. 0: none.
    home: AtomicU64,
    home_id: AtomicU64,
    /// Closed under its waiters; the descriptor's number is still held.
    closed: AtomicBool,
    /// Further workers. Registrations are made and taken back under this lock, the first one too.
    more: Mutex<Vec<(u64, RegistrationId)>>,
    /// What the user has set, if anything.
    options: OnceLock<Arc<Options>>,
}

/// What every call gives after `close`.
#[cold]
fn closed_error() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket was closed by another task")
}

/// What std's blocking sockets give when their time limit has passed.
#[cold]
fn time_is_up() -> io::Error {
    io::Error::from_raw_os_error(libc::EAGAIN)
}

fn pack(id: RegistrationId) -> u64 {
    u64::from(id.key) | u64::from(id.generation) << 32
}

fn unpack(v: u64) -> RegistrationId {
    RegistrationId { key: v as u32, generation: (v >> 32) as u32 }
}

impl Source {
    /// `serial` tells the socket from others that had the descriptor's number before; 0: not known.
    pub(crate) fn new(fd: RawFd, serial: u32) -> Source {
        Source::with_options(fd, serial, OnceLock::new())
    }

    /// For a further handle of a descriptor whose options are shared.
    pub(crate) fn sharing(fd: RawFd, serial: u32, options: Arc<Options>) -> Source {
        Source::with_options(fd, serial, OnceLock::from(options))
    }

    fn with_options(fd: RawFd, serial: u32, options: OnceLock<Arc<Options>>) -> Source {
        let (home, home_id, closed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Source { fd, serial, home, home_id, closed, more: Mutex::default(), options }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.fd
    }

    /// What a task waits for that waits on this descriptor.
    pub(crate) fn reason(&self, kind: WaitKind) -> WaitReason {
        WaitReason::descriptor(kind, self.fd, self.serial)
    }

    /// What the user has set; made at the first use.
    pub(crate) fn options(&self) -> &Arc<Options> {
        self.options.get_or_init(Arc::default)
    }

    /// What the user has set, if anything ever was.
    pub(crate) fn options_if_any(&self) -> Option<&Arc<Options>> {
        self.options.get()
    }

    /// For a handle that goes away: the options, if this was their last handle. `given_away` says that the descriptor
    /// lives on in std's hands.
    pub(crate) fn last_options(&mut self, given_away: bool) -> Option<Options> {
        let options = self.options.take()?;
        if given_away {
            options.set_given_away();
        }
        Arc::into_inner(options)
    }

    fn nonblocking(&self) -> bool {
        self.options.get().is_some_and(|o| o.nonblocking())
    }

    /// An error after [`close`](Source::close).
    #[inline]
    pub(crate) fn check_open(&self) -> io::Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed_error()) } else { Ok(()) }
    }

    /// Whatever a call met on a descriptor that was taken from under it is told as what it is.
    #[cold]
    pub(super) fn explain(&self, e: io::Error) -> io::Error {
        self.check_open().err().unwrap_or(e)
    }

    /// The registration in this worker, if there is one.
    #[inline]
    pub(super) fn registration(&self, w: &Worker) -> Option<RegistrationId> {
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

    pub(super) fn register(&self, w: &Worker) -> io::Result<RegistrationId> {
        let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_open()?;
        let id = w.reactor.borrow_mut().register(self.fd)?;
        let me = w.shared.identity();
        if self.home.load(Ordering::Relaxed) == 0 {
            self.home_id.store(pack(id), Ordering::Relaxed);
            self.home.store(me, Ordering::Release);
        } else {
            more.push((me, id));
        }
        Ok(id)
    }

    /// Takes the descriptor out of every poll. To be called right before it is closed or given away.
    pub(crate) fn deregister(&mut self) {
        self.forget(false);
    }

    /// Takes the descriptor out of every poll, for good; everybody who waits on it is woken and every call from now on
    /// gives an error. `end` is then run, once, whatever else happens at the same time: it must end the connection so
    /// that threads in `poll` are woken, and may put something else in the descriptor's place.
    pub(crate) fn close(&self, end: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        {
            let _more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
            if self.closed.swap(true, Ordering::SeqCst) {
                return Ok(());
            }
        }
        self.forget(true);
        end()
    }

    fn forget(&self, waiters: bool) {
        let (home, more) = {
            let mut more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
            (self.home.swap(0, Ordering::AcqRel), std::mem::take(&mut *more))
        };
        let first = (home != 0).then(|| (home, unpack(self.home_id.load(Ordering::Relaxed))));
        for (worker, id) in first.into_iter().chain(more) {
            let Some(shared) = worker_at(worker as u16).filter(|s| s.identity() == worker) else { continue };
            match Worker::current() {
                Some(w) if w.shared.index == shared.index => {
                    w.wakes_in_slice();
                    w.reactor.borrow_mut().remove(id, true, |task| w.unpark_own(task));
                    w.wake_due();
                }
                _ => shared.retire(self.fd, id, waiters),
            }
        }
    }

    /// Calls `op` until it does something else than "would block", waiting in between.
    ///
    /// # Errors
    /// What `op` returns, but for `WouldBlock` and `Interrupted`; the first interrupt of the task (see `suspend`);
    /// `WouldBlock` if the user's time limit has passed or in non-blocking mode.
    #[inline]
    pub(crate) fn run<T>(&self, d: Direction, kind: WaitKind, op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.run_with(d, self.reason(kind), None, op, |_, _| false)
    }

    /// As [`run`](Source::run), for what waits for something else than the descriptor's bytes.
    pub(crate) fn run_as<T>(
        &self,
        d: Direction,
        reason: WaitReason,
        op: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        self.run_with(d, reason, None, op, |_, _| false)
    }

    /// As [`run`](Source::run) with a time limit of this call's own instead of the user's.
    pub(crate) fn run_until<T>(
        &self,
        d: Direction,
        kind: WaitKind,
        deadline: Instant,
        op: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        self.run_with(d, self.reason(kind), Some(deadline), op, |_, _| false)
    }

    /// As [`run`](Source::run); `done` is shown every result, with the time (see [`now_ticks`]). Where it says that nothing
    /// is left, readiness is taken back, unless an end or error was ever seen on the descriptor.
    ///
    /// That must happen before anything can switch: an edge that comes between the call and the clearing would be lost.
    #[inline]
    pub(crate) fn run_done<T>(
        &self,
        d: Direction,
        kind: WaitKind,
        op: impl FnMut() -> io::Result<T>,
        done: impl Fn(&T, u64) -> bool,
    ) -> io::Result<T> {
        self.run_with(d, self.reason(kind), None, op, done)
    }

    #[inline(always)]
    fn run_with<T>(
        &self,
        d: Direction,
        reason: WaitReason,
        deadline: Option<Instant>,
        mut op: impl FnMut() -> io::Result<T>,
        done: impl Fn(&T, u64) -> bool,
    ) -> io::Result<T> {
        let Some(h) = here() else { return self.run_on_thread(d, deadline, op, done) };
        h.checkpoint_io()?;
        self.check_open()?;
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
                    let drained = result.as_ref().is_ok_and(|value| done(value, slice_start(&h)));
                    if let Some(id) = id {
                        if drained {
                            h.worker.reactor.borrow_mut().clear_after_short_read(id);
                        }
                        pass_on(&h, id, d);
                    }
                    spend(&h);
                    return result.map_err(|e| self.explain(e));
                }
            }
        }
        self.run_waiting(&h, id, d, reason, deadline, op, done)
    }

    /// The part of [`run_with`](Source::run_with) that waits.
    #[allow(clippy::too_many_arguments, reason = "one function cut in two, so that the part without a wait is inlined")]
    fn run_waiting<T>(
        &self,
        h: &Here,
        id: Option<RegistrationId>,
        d: Direction,
        reason: WaitReason,
        deadline: Option<Instant>,
        mut op: impl FnMut() -> io::Result<T>,
        done: impl Fn(&T, u64) -> bool,
    ) -> io::Result<T> {
        let options = self.options.get();
        if options.is_some_and(|o| o.nonblocking()) {
            return self.run_once(h, op).inspect(|value| _ = done(value, slice_start(h)));
        }
        let deadline = deadline.or_else(|| options.and_then(|o| o.deadline(d)));
        if h.unwinding() {
            return self.run_unwinding(h, d, deadline, op).inspect(|value| _ = done(value, slice_start(h)));
        }
        let _entered = options.map(|o| o.enter(self.fd, d)).transpose()?;
        let id = match id {
            Some(id) => id,
            None => self.register(h.worker)?,
        };
        let timer = deadline.map(|at| ArmedTimer::new(h, h.worker.timer_ns(at)));
        let waiter = IoWaiter::new(h.task());
        // SAFETY: `Linked` borrows the waiter and unlinks it when dropped.
        unsafe { h.worker.reactor.borrow_mut().link(id, d, &waiter) };
        // It stays linked while it tries: a call that finds nothing after all must not cost it its turn.
        let _linked = Linked { here: h, id, direction: d, waiter: &waiter };
        loop {
            let mut last_try = false;
            while !h.worker.reactor.borrow_mut().is_turn(id, d, &waiter) {
                self.check_open()?;
                h.checkpoint_io()?;
                if timer.as_ref().is_some_and(|t| !t.pending()) {
                    // The worker may have been too busy to look at its poll in time: what has come is not withheld.
                    if !h.worker.reactor.borrow_mut().is_first(id, d, &waiter) {
                        return Err(time_is_up());
                    }
                    last_try = true;
                    break;
                }
                h.park(reason);
            }
            self.check_open()?;
            match op() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    h.worker.reactor.borrow_mut().clear(id, d);
                    if last_try {
                        return Err(time_is_up());
                    }
                }
                result => {
                    if result.as_ref().is_ok_and(|value| done(value, slice_start(h))) {
                        h.worker.reactor.borrow_mut().clear_after_short_read(id);
                    }
                    return result.map_err(|e| self.explain(e));
                }
            }
        }
    }

    /// In non-blocking mode the kernel alone is asked: what came since the worker last looked at its poll counts too.
    /// Readiness is left as it is, which costs those who wait a look at most. A task that asks again and again gives
    /// way like every other.
    #[cold]
    fn run_once<T>(&self, h: &Here, mut op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let result = loop {
            match op() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|e| self.explain(e)),
            }
        };
        spend(h);
        result
    }

    /// As [`run`](Source::run), without a wait: an interrupt first, then one call, whatever others wait for.
    pub(crate) fn attempt<T>(&self, op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let Some(h) = here() else { return self.try_now(op) };
        h.checkpoint_io()?;
        self.check_open()?;
        self.run_once(&h, op)
    }

    /// Calls `op` once, in whatever mode the descriptor is.
    pub(crate) fn try_now<T>(&self, mut op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.check_open()?;
        loop {
            match op() {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|e| self.explain(e)),
            }
        }
    }

    /// In a destructor that runs because of a panic the thread is blocked instead, within the task's budget.
    #[cold]
    fn run_unwinding<T>(
        &self,
        h: &Here,
        d: Direction,
        deadline: Option<Instant>,
        mut op: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            self.check_open()?;
            wait_unwinding(h, self.fd, d, deadline)?;
            match op() {
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                result => return result.map_err(|e| self.explain(e)),
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

    fn run_on_thread<T>(
        &self,
        d: Direction,
        deadline: Option<Instant>,
        mut op: impl FnMut() -> io::Result<T>,
        done: impl Fn(&T, u64) -> bool,
    ) -> io::Result<T> {
        let (mut until, mut entered) = (deadline, None);
        loop {
            self.check_open()?;
            match op() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !self.nonblocking() => {
                    if let Some(options) = self.options.get()
                        && entered.is_none()
                    {
                        until = until.or_else(|| options.deadline(d));
                        entered = Some(options.enter(self.fd, d)?);
                    }
                    let left = until.map(|at| at.saturating_duration_since(Instant::now()));
                    if left.is_some_and(|l| l.is_zero()) || !sys::poll_fd(self.fd, d == Direction::Write, left)? {
                        return Err(time_is_up());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Ok(value) => {
                    done(&value, clock::ticks());
                    return Ok(value);
                }
                Err(e) => return Err(self.explain(e)),
            };
        }
    }
}

/// About now, without a look at the clock: when the running slice began.
#[inline(always)]
pub(super) fn slice_start(h: &Here) -> u64 {
    h.worker.shared.slice_start.load(Ordering::Relaxed)
}

/// About now, in ticks: in a task when its slice began, on a plain thread exactly.
pub(crate) fn now_ticks() -> u64 {
    here().map_or_else(clock::ticks, |h| slice_start(&h))
}

/// Whether the running task has been interrupted, so that trying something else instead would be in vain.
pub(crate) fn interrupted() -> bool {
    here().is_some_and(|h| h.interrupt_due())
}

/// Others may be waiting for what this call left over.
#[inline]
pub(super) fn pass_on(h: &Here, id: RegistrationId, d: Direction) {
    let next = h.worker.reactor.borrow_mut().next_if_ready(id, d);
    if let Some(next) = next {
        unpark_task(next);
    }
}

/// Counts a call that did not wait; every so often the task gives way.
#[inline]
pub(crate) fn spend(h: &Here) {
    let local = h.local();
    let streak = local.io_streak.get() + 1;
    local.io_streak.set(streak);
    let budget = match local.selfishness.get() {
        0 => SELFISHNESS.load(Ordering::Relaxed),
        own => own,
    };
    if streak >= budget {
        h.give_way();
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

fn wait_unwinding(h: &Here, fd: RawFd, d: Direction, deadline: Option<Instant>) -> io::Result<()> {
    let used = Duration::from_nanos(h.local().unwinding_blocked_ns.get());
    let budget = UNWINDING_BUDGET.saturating_sub(used);
    let start = Instant::now();
    let limit = deadline.map(|at| at.saturating_duration_since(start)).filter(|limit| *limit < budget);
    let left = limit.unwrap_or(budget);
    let ready = !left.is_zero() && sys::poll_fd(fd, d == Direction::Write, Some(left))?;
    let spent = start.elapsed().as_nanos() as u64;
    h.local().unwinding_blocked_ns.set(h.local().unwinding_blocked_ns.get() + spent);
    match limit {
        _ if ready => Ok(()),
        Some(_) => Err(time_is_up()),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

// Miri's epoll does not know EPOLLPRI, with which descriptors are registered.
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
            let source = Arc::new((Source::new(ours.as_raw_fd(), 0), ours));
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
