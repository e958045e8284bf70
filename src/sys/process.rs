//! What the system announces about the end of a child process.
//!
//! Invariants: nothing here reaps. The number of a child that was not reaped belongs to it alone, so whoever asks holds the
//! child unreaped.
//!
//! Must not know: who waits.

use std::io;
#[cfg(not(miri))]
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

/// A descriptor that can be read once the process has ended; close-on-exec.
///
/// # Errors
/// Where there is no such thing (Linux before 5.3), or no descriptor left; with kqueue, also if the process has ended already.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn exit_descriptor(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.cast_signed(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// A kernel queue that holds the event of its end: a queue with an event in it can be read, as others see it, and stays so as
/// long as nobody takes the event out.
#[cfg(all(any(target_vendor = "apple", target_os = "freebsd"), not(miri)))]
pub(crate) fn exit_descriptor(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes nothing.
    let fd = unsafe { libc::kqueue() };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's. A fork does not inherit it, an exec shall not either.
    let queue = unsafe {
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: plain data; one change is read, and no event is written.
    let outcome = unsafe {
        let mut change: libc::kevent = std::mem::zeroed();
        change.ident = pid as libc::uintptr_t;
        change.filter = libc::EVFILT_PROC;
        change.flags = libc::EV_ADD;
        change.fflags = libc::NOTE_EXIT;
        libc::kevent(fd, &change, 1, std::ptr::null_mut(), 0, std::ptr::null())
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(queue) }
}

/// There is no such thing.
#[cfg(any(miri, not(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd"))))]
pub(crate) fn exit_descriptor(_pid: u32) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Blocks the thread until the child has ended, and leaves it to be reaped.
///
/// # Errors
/// If it is no child of this process, or was reaped.
pub(crate) fn wait_for_exit(pid: u32) -> io::Result<()> {
    #[cfg(not(miri))]
    loop {
        // SAFETY: plain data, which the call fills.
        let outcome = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, libc::WEXITED | libc::WNOWAIT)
        };
        if outcome == 0 {
            return Ok(());
        }
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
    #[cfg(miri)]
    {
        let _ = pid;
        Err(io::ErrorKind::Unsupported.into())
    }
}
