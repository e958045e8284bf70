//! The signals on which the process writes about itself: names, a handler that does nothing but write a byte, the pipe's
//! other end, and a standard error for a thread that has nothing else to do than wait for it.
//!
//! Invariants: the handler is async-signal-safe and leaves errno alone. A forked child has copies of handler and pipe; there
//! the signal does what it does by default.
//!
//! Must not know: what is written.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use super::fork::Own;
use crate::sys::signal::{handling, install, pipe, write_byte};

/// Where the handler writes; -1 before there is a reader.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);
/// The process that the pipe belongs to.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Names that can be given, without `SIG`. Signals by which a runtime is stopped or which tell of faults are not among them.
pub(crate) const NAMES: &[(&str, libc::c_int)] = &[
    ("QUIT", libc::SIGQUIT),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("HUP", libc::SIGHUP),
    ("WINCH", libc::SIGWINCH),
    ("ALRM", libc::SIGALRM),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("IO", libc::SIGIO),
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    ("INFO", libc::SIGINFO),
];

/// The number of a signal by its name, in any case, with `SIG` before it or not.
pub(crate) fn by_name(name: &str) -> Option<libc::c_int> {
    let name = name.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The end of the pipe that the handler does not have, and the other one; dropped only where there was no thread for it, before
/// any handler was installed.
#[derive(Debug)]
pub(crate) struct Listener {
    // First, so that the numbers are given up before somebody else may have them.
    _own: [Own; 2],
    read: OwnedFd,
    write: OwnedFd,
}

impl Listener {
    /// Prepares the pipe. There is one for the process, and it stays.
    pub(crate) fn new() -> io::Result<Listener> {
        let fds = pipe(0)?;
        // SAFETY: the descriptors are new and nobody else's.
        let [read, write] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: a plain flag change on our own descriptor: a full pipe must not hold up a handler.
        unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        PROCESS.store(std::process::id(), Ordering::SeqCst);
        WRITE_END.store(write.as_raw_fd(), Ordering::SeqCst);
        Ok(Listener { _own: fds.map(Own::new), read, write })
    }

    /// Waits for the next signal; those that came together count once. False if the pipe is of no use any more.
    pub(crate) fn wait(&self) -> bool {
        loop {
            let mut bytes = [0u8; 64];
            // SAFETY: a live buffer of that size.
            match unsafe { libc::read(self.read.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) } {
                n if n > 0 => return true,
                0 => return false,
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = WRITE_END.compare_exchange(self.write.as_raw_fd(), -1, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// From now on that signal is for the listener, whatever was done about it before.
pub(crate) fn take(signal: libc::c_int) -> io::Result<()> {
    install(signal, on_signal)
}

/// Whether the handler is this one.
pub(super) fn handles(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_signal as *const () as usize
}

extern "C" fn on_signal(number: libc::c_int) {
    handling(number, &PROCESS, || match WRITE_END.load(Ordering::SeqCst) {
        fd if fd >= 0 => write_byte(fd, 0),
        _ => {}
    });
}

/// Writes all of it to standard error, and waits for whoever reads there as long as it takes. False if nobody can.
/// Allocates nothing.
pub(crate) fn write_patiently(bytes: &[u8]) -> bool {
    write(bytes, None)
}

/// As [`write_patiently`], but gives up when nothing could be written for that long.
pub(crate) fn write_within(bytes: &[u8], patience: Duration) -> bool {
    write(bytes, Some(patience))
}

fn write(mut rest: &[u8], patience: Option<Duration>) -> bool {
    while !rest.is_empty() {
        // So that neither a full pipe nor a terminal that stands still holds it up unseen.
        if patience.is_some() && !super::poll_fd(2, true, patience).unwrap_or(false) {
            return false;
        }
        // A pipe that can be written takes so much at once (pipe(7)), and nothing of anybody else's gets between.
        let part = if patience.is_some() { &rest[..rest.len().min(libc::PIPE_BUF)] } else { rest };
        // SAFETY: the bytes live across the call.
        let n = unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
        if n > 0 {
            rest = &rest[n.cast_unsigned()..];
            continue;
        }
        match io::Error::last_os_error().kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock if super::poll_fd(2, true, patience).unwrap_or(false) => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_in_every_spelling() {
        for name in ["QUIT", "SIGQUIT", "quit", "SigQuit", " quit "] {
            assert_eq!(by_name(name), Some(libc::SIGQUIT), "{name}");
        }
        for name in ["", "SIG", "KILL", "TERM", "INT", "SEGV", "URG", "3", "QUITE", "SIGSIGQUIT"] {
            assert_eq!(by_name(name), None, "{name}");
        }
    }
}
