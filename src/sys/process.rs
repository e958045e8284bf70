//! What the system announces about the end of a child process.
//!
//! Invariants: nothing here reaps. The number of a child that was not reaped belongs to it alone, so whoever asks holds the
//! child unreaped.
//!
//! Must not know: who waits.

use std::io;
#[cfg(all(target_os = "linux", not(miri)))]
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;

/// A descriptor that can be read once the process has ended; close-on-exec.
///
/// # Errors
/// Where there is no such thing (Linux before 5.3, other systems), or no descriptor left.
pub(crate) fn exit_descriptor(pid: u32) -> io::Result<OwnedFd> {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        // SAFETY: the call takes two numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.cast_signed(), 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    {
        let _ = pid;
        Err(io::ErrorKind::Unsupported.into())
    }
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
