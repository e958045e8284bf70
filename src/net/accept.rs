//! Accepting that survives what servers meet: aborted connections and a full table of descriptors.
//!
//! When there is no descriptor for it, a connection stays in the backlog and no further edge announces it. The
//! readiness is therefore kept and the call tried again, with growing pauses; a line on stderr says so, at most once in
//! ten seconds for the whole process.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockAddr;

use super::socket::Socket;
use crate::observe::WaitKind;
use crate::reactor::Direction;
use crate::scheduler::suspend::pause_io;
use crate::sys;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn no_descriptors(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// The connection went away between the backlog and us; the next one is as good.
fn aborted(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ECONNABORTED | libc::EPROTO))
}

/// The next connection, non-blocking and close-on-exec, and its peer's address.
pub(super) fn accept<S: AsRawFd + AsFd>(listener: &Socket<S>) -> io::Result<(OwnedFd, SockAddr)> {
    let fd = listener.get().as_raw_fd();
    listener.accepting(|| wait_for_one(listener, fd))
}

fn wait_for_one<S: AsRawFd + AsFd>(listener: &Socket<S>, fd: RawFd) -> io::Result<(OwnedFd, SockAddr)> {
    let mut pause = FIRST_PAUSE;
    loop {
        match listener.run(Direction::Read, WaitKind::Accept, || sys::socket::accept(fd)) {
            Err(e) if aborted(&e) => {}
            Err(e) if no_descriptors(&e) && !listener.nonblocking() => {
                report(&e);
                listener.keep_ready(Direction::Read);
                pause_io(pause, listener.reason(WaitKind::Accept))?;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            result => return result,
        }
    }
}

/// Waits for a connection, then takes what else has come, up to `max`. Whatever goes wrong after the first is left to
/// the next call, which meets it again.
pub(super) fn accept_many<S: AsRawFd + AsFd>(
    listener: &Socket<S>,
    max: usize,
    mut each: impl FnMut(OwnedFd, SockAddr),
) -> io::Result<()> {
    if max == 0 {
        return Ok(());
    }
    let (first, peer) = accept(listener)?;
    each(first, peer);
    let fd = listener.get().as_raw_fd();
    let mut taken = 1;
    while taken < max {
        match listener.accepting(|| listener.try_now(|| sys::socket::accept(fd))) {
            Ok((fd, peer)) => {
                each(fd, peer);
                taken += 1;
            }
            Err(e) if aborted(&e) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// A connection that is there now.
pub(super) fn accept_now<S: AsRawFd + AsFd>(listener: &Socket<S>) -> io::Result<(OwnedFd, SockAddr)> {
    let fd = listener.get().as_raw_fd();
    loop {
        match listener.accepting(|| listener.try_now(|| sys::socket::accept(fd))) {
            Err(e) if aborted(&e) => {}
            Err(e) => {
                if no_descriptors(&e) {
                    report(&e);
                }
                return Err(e);
            }
            accepted => return accepted,
        }
    }
}

fn report(e: &io::Error) {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    static NEXT_S: AtomicU64 = AtomicU64::new(0);
    let now = START.get_or_init(Instant::now).elapsed().as_secs();
    let next = NEXT_S.load(Ordering::Relaxed);
    if now >= next && NEXT_S.compare_exchange(next, now + 10, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        let id = crate::scheduler::current().map_or(0, |t| t.id());
        sys::stderr::print(id, &format!("accept waits: {e}; raise RLIMIT_NOFILE or close descriptors"));
    }
}
