//! [`UnixListener`].

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{self, SocketAddr};
use std::panic::Location;
use std::path::Path;

use socket2::{Domain, SockAddr, Type};

use super::UnixStream;
use super::address::{from_kernel, from_path, to_kernel};
use crate::net::Accepts;
use crate::net::accept;
use crate::net::endpoint::Endpoint;
use crate::net::socket::{Socket, descriptor_traits};
use crate::net::table::{Kind, Opened};

/// A burst of connections should find room; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listening unix socket; as [`std::os::unix::net::UnixListener`], parking the task.
///
/// Several tasks may accept on one listener; they are served in the order in which they came. The socket's file stays
/// when the listener goes away, as with std.
///
/// # Cancellation
/// [`accept`](UnixListener::accept) returns the task's interrupt once as an error, then unwinds. No connection is lost.
pub struct UnixListener {
    socket: Socket<net::UnixListener>,
}

descriptor_traits!(UnixListener, net::UnixListener, UnixListener);

impl Accepts for UnixListener {
    type Connection = (UnixStream, SocketAddr);

    fn accept_now(&self, site: &'static Location<'static>) -> io::Result<(UnixStream, SocketAddr)> {
        let (fd, peer) = accept::accept_now(&self.socket)?;
        self.accepted(fd, &peer, site)
    }
}

impl UnixListener {
    /// Listens at `path`, which must not exist.
    ///
    /// # Errors
    /// Of the system; a path that is too long is refused with its limit.
    #[track_caller]
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&from_path(path.as_ref())?)
    }

    /// Listens at an address, which may be an abstract name on Linux.
    ///
    /// # Errors
    /// Of the system.
    #[track_caller]
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<UnixListener> {
        let s = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        s.set_nonblocking(true)?;
        s.bind(&to_kernel(socket_addr)?)?;
        s.listen(BACKLOG)?;
        let what = Opened { local: Endpoint::local_of(&s), ..Opened::new(Kind::UnixListener, Location::caller()) };
        Ok(UnixListener { socket: Socket::new(OwnedFd::from(s).into(), &what) })
    }

    /// Waits for a connection; see [`TcpListener::accept`](crate::net::TcpListener::accept).
    ///
    /// # Errors
    /// Of the system.
    #[track_caller]
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (fd, peer) = accept::accept(&self.socket)?;
        self.accepted(fd, &peer, Location::caller())
    }

    /// Waits for a connection, then takes all that have come, up to `max`. Empty only if `max` is 0; see
    /// [`TcpListener::accept_many`](crate::net::TcpListener::accept_many).
    ///
    /// # Errors
    /// As [`accept`](UnixListener::accept), for the first one.
    #[track_caller]
    pub fn accept_many(&self, max: usize) -> io::Result<Vec<(UnixStream, SocketAddr)>> {
        let (mut all, site) = (Vec::new(), Location::caller());
        accept::accept_many(&self.socket, max, |fd, peer| all.push(self.accepted(fd, &peer, site)))?;
        all.into_iter().collect()
    }

    /// The kernel's form of an address can be a byte too long for ours; std reads it another way.
    fn accepted(
        &self,
        fd: OwnedFd,
        peer: &SockAddr,
        site: &'static Location<'static>,
    ) -> io::Result<(UnixStream, SocketAddr)> {
        let stream = UnixStream::of(self.socket.accepted(fd, peer, site));
        let peer = from_kernel(peer).or_else(|_| stream.peer_addr())?;
        Ok((stream, peer))
    }

    /// Another handle of the same listener.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<UnixListener> {
        Ok(UnixListener { socket: self.socket.try_clone(net::UnixListener::try_clone)? })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.open()?.local_addr()
    }

    /// With `true`, [`accept`](UnixListener::accept) returns an error of kind `WouldBlock` instead of waiting. Clones
    /// have this in common.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    /// The error that is pending on the socket, which is thereby taken.
    ///
    /// # Errors
    /// If the system could not say.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.open()?.take_error()
    }

    /// Accepts for ever.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }
}

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

/// Connections of a [`UnixListener`], for ever.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a UnixListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<UnixStream>;

    #[track_caller]
    fn next(&mut self) -> Option<io::Result<UnixStream>> {
        Some(self.listener.accept().map(|(s, _)| s))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}
