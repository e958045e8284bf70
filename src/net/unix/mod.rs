//! Unix sockets with the names of [`std::os::unix::net`]; where std would block the thread, these park the task.
//!
//! The same module as [`coro::os::unix::net`](crate::os::unix::net). Beyond std's stable methods there are
//! [`UnixStream::peer_cred`], `peek`, control messages as in std's unstable `unix_socket_ancillary_data` (Linux), and a
//! safe form of passing descriptors, `send_with_fds` and `recv_with_fds`.
//!
//! Invariants: readiness is never taken back after a short read, because a read ends at a message with descriptors and
//! a datagram is as short as it is; everything reads until "would block".
//!
//! Must not know: TCP.

#![forbid(unsafe_code)]

mod address;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod ancillary;
mod credentials;
mod datagram;
mod listener;
mod stream;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub use ancillary::{AncillaryData, AncillaryError, Messages, ScmCredentials, ScmRights, SocketAncillary, SocketCred};
pub use credentials::UCred;
pub use datagram::UnixDatagram;
pub use listener::{Incoming, UnixListener};
pub use std::os::unix::net::SocketAddr;
pub use stream::UnixStream;
