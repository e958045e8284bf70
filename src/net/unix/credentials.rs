//! Who is at the other end.

#![forbid(unsafe_code)]

/// The identity of a process at the other end of a [`UnixStream`](super::UnixStream), when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UCred {
    /// The effective user id.
    pub uid: libc::uid_t,
    /// The effective group id.
    pub gid: libc::gid_t,
    /// The process id, where the system tells it (Linux, Android, Apple).
    pub pid: Option<libc::pid_t>,
}
