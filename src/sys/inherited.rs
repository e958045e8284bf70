//! Descriptors that this process was started with, known by number, and those that a program that it starts shall have.
//!
//! A number is not proof of anything. What is taken here must have survived an `exec`: it is open without close-on-exec,
//! which everything that std and this crate open has. Each number is given out once.
//!
//! Must not know: which variables name the descriptors, or what they are.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use super::socket;

static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

/// Why a number was not given out.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// Nothing is open under it.
    Closed,
    /// This process has opened it itself.
    OpenedHere,
    /// It is some other socket than the one that was meant.
    Another,
    Before,
}

/// Takes the descriptor with that number, which the parent of this process left open for it, and sets close-on-exec. With
/// `meant`, the kernel's number of a socket, only if it is that one.
pub(crate) fn take(fd: RawFd, meant: Option<u64>) -> Result<OwnedFd, NotTaken> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.contains(&fd) {
        return Err(NotTaken::Before);
    }
    // Numbers 0 to 2 belong to the program's streams.
    // SAFETY: the call takes no pointer; a number that is not open gives an error.
    let flags = if fd > 2 { unsafe { libc::fcntl(fd, libc::F_GETFD) } } else { -1 };
    if flags < 0 {
        return Err(NotTaken::Closed);
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(NotTaken::OpenedHere);
    }
    if let Some(meant) = meant {
        // SAFETY: open a moment ago, and inherited, so that nobody here knows the number and could close it.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        if socket::number(borrowed) != Some(meant) {
            return Err(NotTaken::Another);
        }
    }
    taken.push(fd);
    // SAFETY: the number is open and was inherited, the parent left it to this process for this purpose, and it is given
    // out this once.
    unsafe {
        libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC);
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Has the program that `command` starts keep the descriptor, under the same number. The command holds it until then.
pub(crate) fn keep(command: &mut Command, fd: OwnedFd) {
    use std::os::unix::process::CommandExt;
    let clear = move || {
        // SAFETY: the descriptor lives in this closure.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec there is one system call, and an error without allocation.
    unsafe { command.pre_exec(clear) };
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, IntoRawFd};

    #[test]
    fn only_what_was_inherited_is_given_out_and_only_once() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let number = socket::number(a.as_fd());
        let fd = a.into_raw_fd();
        assert!(matches!(take(fd, None), Err(NotTaken::OpenedHere)));
        // SAFETY: this test's own descriptor, made to look like one that was inherited.
        unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
        assert!(matches!(take(fd, number.map(|n| n + 1)), Err(NotTaken::Another)));
        let owned = take(fd, number).unwrap();
        // SAFETY: no pointer is passed.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, libc::FD_CLOEXEC);
        assert!(matches!(take(fd, number), Err(NotTaken::Before)));
        drop(owned);
        for never in [-1, 0, 2, 1_000_000] {
            assert!(matches!(take(never, None), Err(NotTaken::Closed)), "{never}");
        }
    }
}
