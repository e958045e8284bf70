//! The poll itself: mio's registry and waker; the wait through `epoll_pwait2` on Linux, because mio rounds timeouts up
//! to whole milliseconds.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, Waker};

use crate::sys::fork::Own;

const WAKE: Token = Token(usize::MAX);

/// What one event says of one registration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// End of stream, hang-up or error was seen: a short read may not be taken for "drained" any more.
    pub(crate) ended: bool,
}

/// Ends the worker's wait from any thread. Kept beside the registry, and dropped before it.
#[derive(Debug)]
pub(crate) struct Kicker(Waker, #[expect(dead_code, reason = "held for its drop")] Own);

impl Kicker {
    pub(crate) fn kick(&self) {
        // The only error is a full counter, and then the wait ends anyhow.
        let _ = self.0.wake();
    }
}

/// The worker's side.
#[derive(Debug)]
pub(crate) struct Poller {
    /// Of the poll; dropped first.
    _own: Own,
    poll: mio::Poll,
    events: Buffer,
}

const CAPACITY: usize = 512;

impl Poller {
    pub(crate) fn new() -> io::Result<(Poller, Kicker, Registry)> {
        let poll = mio::Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let registry = poll.registry().try_clone()?;
        let own = Own::new(poll.as_raw_fd());
        let kicker = Kicker(waker, Own::new(registry.as_raw_fd()));
        Ok((Poller { _own: own, poll, events: Buffer::new() }, kicker, registry))
    }

    pub(crate) fn register(&self, fd: RawFd, token: usize) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        // Urgent data ends a read short though more may lie behind it: it counts as an end for the short-read rule.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let interest = interest | Interest::PRIORITY;
        self.poll.registry().register(&mut SourceFd(&fd), Token(token), interest)
    }

    pub(crate) fn deregister(&self, fd: RawFd) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&fd))
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod imp {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Kernels before 5.11 do not have the call; then timeouts are rounded up to a millisecond.
    static COARSE: AtomicBool = AtomicBool::new(false);

    pub(super) struct Buffer(Vec<libc::epoll_event>);

    impl std::fmt::Debug for Buffer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Buffer")
        }
    }

    impl Buffer {
        pub(super) fn new() -> Buffer {
            Buffer(Vec::with_capacity(CAPACITY))
        }
    }

    fn wait(epoll: RawFd, events: &mut Vec<libc::epoll_event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        if !COARSE.load(Ordering::Relaxed) {
            let spec = timeout.map(|t| libc::timespec {
                tv_sec: t.as_secs().min(1 << 30) as libc::time_t,
                tv_nsec: t.subsec_nanos().into(),
            });
            let spec_ptr = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            // SAFETY: the buffer has room for CAPACITY events; the timespec lives across the call; no signal mask.
            let n = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    epoll,
                    events.as_mut_ptr(),
                    CAPACITY as libc::c_int,
                    spec_ptr,
                    std::ptr::null::<libc::sigset_t>(),
                    0usize,
                )
            };
            if n >= 0 {
                // SAFETY: the kernel has written that many.
                unsafe { events.set_len(n as usize) };
                return Ok(());
            }
            let e = io::Error::last_os_error();
            if !matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
                return Err(e);
            }
            COARSE.store(true, Ordering::Relaxed);
        }
        let ms = timeout.map_or(-1, |t| t.as_nanos().div_ceil(1_000_000).min(1 << 30) as libc::c_int);
        // SAFETY: as above.
        let n = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), CAPACITY as libc::c_int, ms) };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has written that many.
        unsafe { events.set_len(n as usize) };
        Ok(())
    }

    impl Poller {
        /// Waits for events and hands each to `each`; returns how many there were.
        pub(crate) fn wait(&mut self, timeout: Option<Duration>, mut each: impl FnMut(Ready)) -> usize {
            let fd = self.poll.as_raw_fd();
            if wait(fd, &mut self.events.0, timeout).is_err() {
                // EINTR: a handler ran. The caller looks at everything again.
                return 0;
            }
            for e in &self.events.0 {
                let (bits, token) = (e.events as i32, e.u64 as usize);
                if token == WAKE.0 {
                    // mio's waker is an edge-triggered eventfd: it needs no reading.
                    continue;
                }
                let ended = bits & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0;
                let broken = bits & (libc::EPOLLHUP | libc::EPOLLERR) != 0;
                each(Ready {
                    token,
                    readable: bits & (libc::EPOLLIN | libc::EPOLLPRI) != 0 || ended,
                    writable: bits & libc::EPOLLOUT != 0 || broken,
                    ended: ended || bits & libc::EPOLLPRI != 0,
                });
            }
            self.events.0.len()
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod imp {
    use super::*;

    #[derive(Debug)]
    pub(super) struct Buffer(mio::Events);

    impl Buffer {
        pub(super) fn new() -> Buffer {
            Buffer(mio::Events::with_capacity(CAPACITY))
        }
    }

    impl Poller {
        /// Waits for events and hands each to `each`; returns how many there were. Timeouts are rounded up to a
        /// millisecond by mio.
        pub(crate) fn wait(&mut self, timeout: Option<Duration>, mut each: impl FnMut(Ready)) -> usize {
            if self.poll.poll(&mut self.events.0, timeout).is_err() {
                return 0;
            }
            let mut n = 0;
            for e in self.events.0.iter() {
                n += 1;
                if e.token() == WAKE {
                    continue;
                }
                let ended = e.is_read_closed() || e.is_write_closed() || e.is_error();
                each(Ready {
                    token: e.token().0,
                    readable: e.is_readable() || ended,
                    writable: e.is_writable() || e.is_write_closed() || e.is_error(),
                    ended: ended || e.is_priority(),
                });
            }
            n
        }
    }
}

use imp::Buffer;
