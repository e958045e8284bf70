//! Reading what a file has in memory, without waiting for its disk; locks on files; the descriptors 0 to 2.
//!
//! Must not know: who reads.

use std::io;
use std::os::fd::RawFd;
#[cfg(all(target_os = "linux", not(miri)))]
use std::sync::atomic::{AtomicBool, Ordering};

/// What a read without waiting gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(all(target_os = "linux", not(miri))), allow(dead_code, reason = "only Linux reads like that"))]
pub(crate) enum Cached {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Not in memory, or the end: to be read by a thread that may wait.
    No,
    /// This file cannot be read like that.
    Never,
}

/// Reads from the page cache alone, at `offset` or at the file's own place, which moves then.
///
/// The end of a file is not told: Linux 5.9 and 5.10 take it for one where it is not (preadv2(2)).
pub(crate) fn read_cached(fd: RawFd, buf: &mut [u8], offset: Option<u64>) -> Cached {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        /// Kernels before 4.14, and sandboxes.
        static MISSING: AtomicBool = AtomicBool::new(false);
        let offset = match offset.map(libc::off_t::try_from) {
            None => -1,
            Some(Ok(offset)) => offset,
            Some(Err(_)) => return Cached::No,
        };
        if MISSING.load(Ordering::Relaxed) {
            return Cached::Never;
        }
        let iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        // SAFETY: one buffer, which lives across the call and is as long as said.
        match unsafe { libc::preadv2(fd, &raw const iov, 1, offset, libc::RWF_NOWAIT) } {
            n if n > 0 => Cached::Bytes(n.cast_unsigned()),
            0 => Cached::No,
            _ => match io::Error::last_os_error().raw_os_error() {
                Some(libc::ENOSYS | libc::EPERM) => {
                    MISSING.store(true, Ordering::Relaxed);
                    Cached::Never
                }
                Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ESPIPE) => Cached::Never,
                // Whatever else is wrong, the ordinary read tells.
                _ => Cached::No,
            },
        }
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    {
        let _ = (fd, buf, offset);
        Cached::Never
    }
}

/// What [`flock`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locking {
    Shared,
    Exclusive,
    Unlock,
}

/// As `flock(2)`; `false` if somebody else has a lock and this is not to wait, which else blocks the thread.
pub(crate) fn flock(fd: RawFd, what: Locking, wait: bool) -> io::Result<bool> {
    let operation = match what {
        Locking::Shared => libc::LOCK_SH,
        Locking::Exclusive => libc::LOCK_EX,
        Locking::Unlock => libc::LOCK_UN,
    };
    let how = if wait { 0 } else { libc::LOCK_NB };
    loop {
        // SAFETY: a system call on numbers.
        if unsafe { libc::flock(fd, operation | how) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::WouldBlock => return Ok(false),
            _ => return Err(error),
        }
    }
}

/// As `read(2)`, on one of the descriptors 0 to 2. May block the thread.
pub(crate) fn read_standard(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer lives across the call and is as long as said.
    match unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) } {
        n if n >= 0 => Ok(n.cast_unsigned()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As `write(2)`, on one of the descriptors 0 to 2. May block the thread.
pub(crate) fn write_standard(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the bytes live across the call.
    match unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } {
        n if n >= 0 => Ok(n.cast_unsigned()),
        _ => Err(io::Error::last_os_error()),
    }
}
