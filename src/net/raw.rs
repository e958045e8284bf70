//! `FromRawFd` for every socket type, and what else is unsafe by its nature, in one place.
//!
//! Must not know: what the types do with the descriptor.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

macro_rules! from_raw_fd {
    ($($socket:ty),* $(,)?) => {
        $(impl FromRawFd for $socket {
            #[track_caller]
            unsafe fn from_raw_fd(fd: RawFd) -> $socket {
                // SAFETY: the caller promises that the descriptor is open, a socket of this kind, and theirs to give.
                unsafe { OwnedFd::from_raw_fd(fd) }.into()
            }
        })*
    };
}

from_raw_fd!(super::TcpListener, super::TcpStream, super::UdpSocket);
from_raw_fd!(super::unix::UnixDatagram, super::unix::UnixListener, super::unix::UnixStream);

/// Removes `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` from this process's environment, so that programs started from
/// anywhere in it do not see them. [`hide_from`](super::activation::hide_from) does that for one program, and is safe.
///
/// # Safety
/// As [`std::env::remove_var`]: no other thread may read or write the environment meanwhile, which no thread of a runtime
/// can promise. Call it first in `main`, after [`sockets`](super::activation::sockets).
pub unsafe fn remove_variables() {
    for variable in super::activation::VARIABLES {
        // SAFETY: the caller's promise.
        unsafe { std::env::remove_var(variable) };
    }
}
