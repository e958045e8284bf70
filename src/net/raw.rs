//! `FromRawFd` for every socket type, in one place because it is unsafe by its nature.
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
