//! Control messages with the names of std's unstable `unix_socket_ancillary_data`.
//!
//! As there, descriptors come out as bare numbers that whoever reads them has to close; `recv_with_fds` of the sockets
//! gives owned ones.

#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, RawFd};
use std::slice::ChunksExact;

use socket2::SockAddr;

use crate::sys::message::{self, ControlMessage, Received, Take};

/// A buffer for control messages: filled by `add_…` and sent, or filled by receiving and read.
///
/// # Examples
/// ```
/// use coro::net::unix::{AncillaryData, SocketAncillary, UnixStream};
/// use std::io::{IoSlice, IoSliceMut};
/// use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
///
/// let (ours, theirs) = UnixStream::pair().unwrap();
/// let mut room = [0; 128];
/// let mut sent = SocketAncillary::new(&mut room);
/// assert!(sent.add_fds(&[ours.as_raw_fd()]));
/// ours.send_vectored_with_ancillary(&[IoSlice::new(b"x")], &mut sent).unwrap();
///
/// let (mut buf, mut room) = ([0; 8], [0; 128]);
/// let mut got = SocketAncillary::new(&mut room);
/// theirs.recv_vectored_with_ancillary(&mut [IoSliceMut::new(&mut buf)], &mut got).unwrap();
/// for message in got.messages() {
///     if let AncillaryData::ScmRights(fds) = message.unwrap() {
///         // SAFETY: the descriptor was just received, and nobody else takes it.
///         fds.for_each(|fd| drop(unsafe { OwnedFd::from_raw_fd(fd) }));
///     }
/// }
/// ```
#[derive(Debug)]
pub struct SocketAncillary<'a> {
    buffer: &'a mut [u8],
    length: usize,
    truncated: bool,
}

impl<'a> SocketAncillary<'a> {
    /// An empty one.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        SocketAncillary { buffer, length: 0, truncated: false }
    }

    /// The size of the buffer in bytes.
    pub fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there are no control messages in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many bytes are used.
    pub fn len(&self) -> usize {
        self.length
    }

    /// The control messages.
    pub fn messages(&self) -> Messages<'_> {
        Messages { rest: &self.buffer[..self.length] }
    }

    /// Whether the last receiving call had to drop control messages, because the buffer was too small.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// Adds descriptors to send; they must be open when the message is sent, and stay open. False if there is no room.
    pub fn add_fds(&mut self, fds: &[RawFd]) -> bool {
        let data: Vec<u8> = fds.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
        self.add(libc::SCM_RIGHTS, &data)
    }

    /// Adds credentials to send, which must be the process's own unless it is privileged. False if there is no room.
    pub fn add_creds(&mut self, creds: &[SocketCred]) -> bool {
        let data: Vec<u8> = creds.iter().flat_map(|c| c.to_bytes()).collect();
        self.add(libc::SCM_CREDENTIALS, &data)
    }

    fn add(&mut self, kind: libc::c_int, data: &[u8]) -> bool {
        self.truncated = false;
        message::push(self.buffer, &mut self.length, libc::SOL_SOCKET, kind, data)
    }

    /// Forgets every control message, so that the buffer can be used again.
    pub fn clear(&mut self) {
        self.length = 0;
        self.truncated = false;
    }

    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<Received> {
        let received = message::receive(fd, bufs, self.buffer, Take::Remove)?;
        self.length = received.control;
        self.truncated = received.control_truncated;
        Ok(received)
    }

    pub(super) fn send(
        &mut self,
        fd: BorrowedFd<'_>,
        to: Option<&SockAddr>,
        bufs: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        self.truncated = false;
        message::send(fd, to, bufs, &self.buffer[..self.length])
    }
}

/// The control messages of a [`SocketAncillary`].
#[derive(Debug, Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<AncillaryData<'a>, AncillaryError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (message, rest) = message::first(self.rest)?;
        self.rest = rest;
        Some(AncillaryData::of(message))
    }
}

/// One control message.
#[derive(Debug, Clone)]
pub enum AncillaryData<'a> {
    /// Descriptors.
    ScmRights(ScmRights<'a>),
    /// Credentials, which arrive where [`set_passcred`](crate::os::linux::net::UnixSocketExt::set_passcred) is on.
    ScmCredentials(ScmCredentials<'a>),
}

impl<'a> AncillaryData<'a> {
    fn of(m: ControlMessage<'a>) -> Result<AncillaryData<'a>, AncillaryError> {
        match (m.level, m.kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                Ok(AncillaryData::ScmRights(ScmRights(m.data.chunks_exact(size_of::<RawFd>()))))
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                Ok(AncillaryData::ScmCredentials(ScmCredentials(m.data.chunks_exact(CRED_SIZE))))
            }
            (cmsg_level, cmsg_type) => Err(AncillaryError::Unknown { cmsg_level, cmsg_type }),
        }
    }
}

/// A control message that is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AncillaryError {
    /// Of another protocol, or of a kind that is not known here.
    Unknown {
        /// The protocol.
        cmsg_level: i32,
        /// The kind.
        cmsg_type: i32,
    },
}

impl fmt::Display for AncillaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AncillaryError::Unknown { cmsg_level, cmsg_type } = self;
        write!(f, "a control message of level {cmsg_level} and type {cmsg_type}, which is not known here")
    }
}

impl std::error::Error for AncillaryError {}

/// The descriptors of a control message, as numbers that are the reader's to close.
#[derive(Debug, Clone)]
pub struct ScmRights<'a>(ChunksExact<'a, u8>);

impl Iterator for ScmRights<'_> {
    type Item = RawFd;

    fn next(&mut self) -> Option<RawFd> {
        self.0.next().map(|b| RawFd::from_ne_bytes(b.try_into().expect("a chunk has its length")))
    }
}

/// The credentials of a control message.
#[derive(Debug, Clone)]
pub struct ScmCredentials<'a>(ChunksExact<'a, u8>);

impl Iterator for ScmCredentials<'_> {
    type Item = SocketCred;

    fn next(&mut self) -> Option<SocketCred> {
        self.0.next().map(SocketCred::from_bytes)
    }
}

const CRED_SIZE: usize = size_of::<libc::ucred>();

/// The credentials of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SocketCred {
    pid: libc::pid_t,
    uid: libc::uid_t,
    gid: libc::gid_t,
}

impl SocketCred {
    /// All zeros.
    pub fn new() -> SocketCred {
        SocketCred::default()
    }

    /// The kernel's order.
    fn to_bytes(self) -> [u8; CRED_SIZE] {
        let mut bytes = [0; CRED_SIZE];
        bytes[..4].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.uid.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.gid.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> SocketCred {
        let word = |i: usize| <[u8; 4]>::try_from(&bytes[i..i + 4]).expect("four bytes");
        SocketCred {
            pid: libc::pid_t::from_ne_bytes(word(0)),
            uid: libc::uid_t::from_ne_bytes(word(4)),
            gid: libc::gid_t::from_ne_bytes(word(8)),
        }
    }

    /// Sets the process id.
    pub fn set_pid(&mut self, pid: libc::pid_t) {
        self.pid = pid;
    }

    /// The process id.
    pub fn get_pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Sets the user id.
    pub fn set_uid(&mut self, uid: libc::uid_t) {
        self.uid = uid;
    }

    /// The user id.
    pub fn get_uid(&self) -> libc::uid_t {
        self.uid
    }

    /// Sets the group id.
    pub fn set_gid(&mut self, gid: libc::gid_t) {
        self.gid = gid;
    }

    /// The group id.
    pub fn get_gid(&self) -> libc::gid_t {
        self.gid
    }
}
