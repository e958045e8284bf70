//! The signal by which a client asks this process for a session: its mark, a handler that does nothing but write four bytes
//! to a pipe, and the pipe's other end.
//!
//! Invariants: what runs in the handler is async-signal-safe. A signal without the mark is somebody else's and goes to them
//! (see `chain`); one with the mark goes nowhere else. A forked child has copies of handler and pipe; there the mark does
//! nothing.
//!
//! Must not know: what is done about a call.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::fork::Own;

/// The upper half of the value that comes with the signal. No pointer and no plain integer, which are what programs send,
/// looks like that. The lower half is the number that the client has chosen for itself.
const MARK: u32 = 0x636f_726f;

/// Where the handler writes; -1 before there is a reader.
static WRITE_END: AtomicI32 = AtomicI32::new(-1);
/// The process that the pipe belongs to.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Whether that signal may be chosen: none that tells of a fault or the end, or that a runtime takes for itself. `SIGTRAP`
/// ends a process that has no handler for it.
pub(crate) fn is_choice(signal: i32) -> bool {
    [libc::SIGURG, libc::SIGTRAP, libc::SIGUSR1, libc::SIGUSR2].contains(&signal)
}

/// The end of the pipe that the handler does not have, and the other one. There is one for the process, and it stays; dropped
/// only where there was no thread for it, before any handler was installed.
#[derive(Debug)]
pub(crate) struct Calls {
    // First, so that the numbers are given up before somebody else may have them.
    _own: [Own; 2],
    read: std::fs::File,
    write: OwnedFd,
}

impl Calls {
    #[cfg(all(target_os = "linux", not(miri)))]
    pub(crate) fn new() -> io::Result<Calls> {
        use std::os::fd::FromRawFd;

        // Neither end waits: a full pipe must not hold up the handler, nor an empty one the reader.
        let fds = crate::sys::signal::pipe(libc::O_NONBLOCK)?;
        PROCESS.store(std::process::id(), Ordering::SeqCst);
        WRITE_END.store(fds[1], Ordering::SeqCst);
        // SAFETY: the descriptors are new and nobody else's.
        let [read, write] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Calls { _own: fds.map(Own::new), read: read.into(), write })
    }

    #[cfg(not(all(target_os = "linux", not(miri))))]
    pub(crate) fn new() -> io::Result<Calls> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "sessions by signal are for Linux only; serve a unix socket"))
    }

    /// The number of a client that has called; `None` if nobody has.
    pub(crate) fn next(&self) -> Option<u32> {
        let mut number = [0; 4];
        // Written by fours, and such small writes are whole.
        match (&self.read).read(&mut number) {
            Ok(4) => Some(u32::from_ne_bytes(number)),
            _ => None,
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let _ = WRITE_END.compare_exchange(self.write.as_raw_fd(), -1, Ordering::SeqCst, Ordering::SeqCst);
    }
}

impl AsFd for Calls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// Sees to it that calls by that signal arrive here, whatever the program has done about the signal meanwhile.
///
/// # Errors
/// The system's; or the program puts handlers over ours again and again.
pub(crate) fn ensure(signal: i32) -> io::Result<()> {
    super::chain::ensure(signal, take).map_err(|error| match error {
        0 => io::Error::other(format!("the handler of signal {signal} is replaced again and again")),
        error => io::Error::from_raw_os_error(error),
    })
}

/// The running thread takes that signal from now on. One that does is enough: a program may hold it back everywhere else.
pub(crate) fn unblock(signal: i32) {
    // SAFETY: plain data; a thread may change its own mask.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn take(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) -> bool {
    // SAFETY: the system passes a valid `siginfo_t` to handlers with SA_SIGINFO; the value is that of a queued signal once
    // its code says so.
    let value = unsafe {
        let info = &*info;
        if info.si_code != libc::SI_QUEUE {
            return false;
        }
        info.si_value().sival_ptr as usize as u64
    };
    if (value >> 32) as u32 != MARK {
        return false;
    }
    let fd = WRITE_END.load(Ordering::SeqCst);
    // SAFETY: no preconditions; four bytes of a live variable. What finds no room is sent again by the client.
    unsafe {
        if fd >= 0 && libc::getpid().cast_unsigned() == PROCESS.load(Ordering::SeqCst) {
            let number = value as u32;
            libc::write(fd, (&raw const number).cast(), 4);
        }
    }
    true
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn take(_signal: libc::c_int, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) -> bool {
    false
}
