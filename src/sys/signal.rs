//! The pipe that `run` waits on and the signal handlers that write to it.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    RootEnded,
    Exit,
    Signal(i32),
}

impl Event {
    fn byte(self) -> u8 {
        match self {
            Event::RootEnded => 0,
            Event::Exit => 255,
            Event::Signal(n) => n as u8,
        }
    }

    fn from_byte(b: u8) -> Event {
        match b {
            0 => Event::RootEnded,
            255 => Event::Exit,
            n => Event::Signal(n.into()),
        }
    }
}

static WRITE_END: AtomicI32 = AtomicI32::new(-1);

/// Reading end and writing end; at most one exists, because at most one `run` does.
#[derive(Debug)]
pub(crate) struct ControlPipe {
    read: RawFd,
    write: RawFd,
}

/// Tells the pipe when it is dropped.
#[derive(Debug)]
pub(crate) struct OnDrop(Event);

impl Drop for OnDrop {
    fn drop(&mut self) {
        ControlPipe::notify(self.0);
    }
}

impl ControlPipe {
    pub(crate) fn new() -> io::Result<ControlPipe> {
        let mut fds = [-1; 2];
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        {
            // Miri knows no `poll`: there the read itself waits.
            let flags = if cfg!(miri) { libc::O_CLOEXEC } else { libc::O_CLOEXEC | libc::O_NONBLOCK };
            // SAFETY: room for two descriptors.
            if unsafe { libc::pipe2(fds.as_mut_ptr(), flags) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
        {
            // SAFETY: room for two descriptors.
            if unsafe { libc::pipe(fds.as_mut_ptr()) } != 0 {
                return Err(io::Error::last_os_error());
            }
            for fd in fds {
                // SAFETY: plain flag changes on our own descriptors.
                unsafe {
                    libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                    libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
                }
            }
        }
        WRITE_END.store(fds[1], Ordering::SeqCst);
        Ok(ControlPipe { read: fds[0], write: fds[1] })
    }

    pub(crate) fn on_drop(&self, event: Event) -> OnDrop {
        OnDrop(event)
    }

    /// Async-signal-safe. Without a pipe nobody waits, and nothing happens.
    pub(crate) fn notify(event: Event) {
        let fd = WRITE_END.load(Ordering::SeqCst);
        if fd >= 0 {
            let b = event.byte();
            // SAFETY: one byte from a live variable; a full pipe already wakes the reader.
            unsafe { libc::write(fd, (&raw const b).cast(), 1) };
        }
    }

    /// The next event; `None` when `timeout` has passed.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Option<Event> {
        let deadline = timeout.map(|t| std::time::Instant::now() + t);
        loop {
            let mut b = 0u8;
            // SAFETY: one byte into a live variable.
            if unsafe { libc::read(self.read, (&raw mut b).cast(), 1) } == 1 {
                return Some(Event::from_byte(b));
            }
            let left = deadline.map(|d| d.saturating_duration_since(std::time::Instant::now()));
            if left.is_some_and(|l| l.is_zero()) {
                return None;
            }
            let _ = super::poll_fd(self.read, false, left);
        }
    }
}

impl Drop for ControlPipe {
    fn drop(&mut self) {
        WRITE_END.store(-1, Ordering::SeqCst);
        // SAFETY: our own descriptors. A handler that read the number just before writes one byte to a closed or
        // foreign descriptor at worst; handlers are restored before the pipe goes.
        unsafe {
            libc::close(self.read);
            libc::close(self.write);
        }
    }
}

extern "C" fn on_signal(number: libc::c_int) {
    // SAFETY: errno belongs to the interrupted code; it is put back.
    unsafe {
        let errno = super::errno_location();
        let saved = *errno;
        ControlPipe::notify(Event::Signal(number));
        *errno = saved;
    }
}

/// The handlers of SIGINT and SIGTERM while this lives; then what was there before.
pub(crate) struct HandlerGuard {
    old: Vec<(libc::c_int, libc::sigaction)>,
}

impl HandlerGuard {
    pub(crate) fn install() -> io::Result<HandlerGuard> {
        let mut guard = HandlerGuard { old: Vec::new() };
        if cfg!(miri) {
            return Ok(guard);
        }
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: both structures are plain data; the handler is async-signal-safe.
            unsafe {
                let mut old: libc::sigaction = std::mem::zeroed();
                if libc::sigaction(signal, std::ptr::null(), &mut old) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // Whoever started us wants the signal ignored (a background job, nohup).
                if old.sa_sigaction == libc::SIG_IGN {
                    continue;
                }
                let mut new: libc::sigaction = std::mem::zeroed();
                new.sa_sigaction = on_signal as *const () as usize;
                new.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
                libc::sigemptyset(&mut new.sa_mask);
                if libc::sigaction(signal, &new, std::ptr::null_mut()) != 0 {
                    return Err(io::Error::last_os_error());
                }
                guard.old.push((signal, old));
            }
        }
        Ok(guard)
    }
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        for (signal, old) in &self.old {
            // SAFETY: restores what `install` found.
            unsafe { libc::sigaction(*signal, old, std::ptr::null_mut()) };
        }
    }
}
