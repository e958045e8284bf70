//! TCP: [`TcpListener`] and [`TcpStream`].

#![forbid(unsafe_code)]

use std::io;
use std::net::{self, Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockAddr, Type};

use super::accept;
use super::socket::{Socket, adopt, descriptor_traits, stream_traits};
use crate::observe::WaitKind;
use crate::reactor::Direction;

/// A TCP connection; as [`std::net::TcpStream`], parking the task.
///
/// # Cancellation
/// Reads and writes return the task's interrupt once as an error, then unwind. Bytes that were read are never lost.
#[derive(Debug)]
pub struct TcpStream {
    socket: Socket<net::TcpStream>,
}

stream_traits!(TcpStream, net::TcpStream);
descriptor_traits!(TcpStream);

impl TcpStream {
    /// Connects to the first of the addresses that answers.
    ///
    /// # Errors
    /// Of the last address tried; `InvalidInput` if there was none.
    pub fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name resolved to no address");
        for addr in addr.to_socket_addrs()? {
            match TcpStream::connect_one(addr) {
                Ok(stream) => return Ok(stream),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn connect_one(addr: SocketAddr) -> io::Result<TcpStream> {
        let s = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        s.set_nonblocking(true)?;
        let in_progress = match s.connect(&SockAddr::from(addr)) {
            Ok(()) => false,
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) || e.kind() == io::ErrorKind::Interrupted => true,
            Err(e) => return Err(e),
        };
        let stream = TcpStream { socket: Socket::new(s.into(), true) };
        if in_progress {
            stream.socket.run(Direction::Write, WaitKind::Connect, || connected(stream.socket.get()))?;
        }
        Ok(stream)
    }

    /// The peer's address.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().peer_addr()
    }

    /// This side's address.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().local_addr()
    }

    /// Ends one or both directions. Readers of an ended direction see end of stream.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.get().shutdown(how)
    }

    /// Another handle of the same connection, for another task on any worker.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        Ok(TcpStream { socket: Socket::new(self.socket.get().try_clone()?, true) })
    }

    /// Sends small writes at once instead of gathering them.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.socket.get().set_nodelay(on)
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// Of the system.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket.get().nodelay()
    }
}

/// Whether a connection attempt has ended, and how.
fn connected(s: &net::TcpStream) -> io::Result<()> {
    if let Some(e) = s.take_error()? {
        return Err(e);
    }
    match s.peer_addr() {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
        Err(e) => Err(e),
    }
}

impl TryFrom<net::TcpStream> for TcpStream {
    type Error = io::Error;

    /// Takes over a std stream and makes it non-blocking.
    fn try_from(s: net::TcpStream) -> io::Result<TcpStream> {
        s.set_nonblocking(true)?;
        Ok(TcpStream { socket: Socket::new(s, true) })
    }
}

/// A listening TCP socket; as [`std::net::TcpListener`], parking the task.
///
/// Several tasks may accept on one listener; they are served in the order in which they came.
#[derive(Debug)]
pub struct TcpListener {
    socket: Socket<net::TcpListener>,
}

descriptor_traits!(TcpListener);

/// std's backlog is 128; bursts of connections deserve more, and the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

impl TcpListener {
    /// Listens on the first of the addresses that can be had, with `SO_REUSEADDR` as std.
    ///
    /// # Errors
    /// Of the last address tried, naming it.
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name resolved to no address");
        for addr in addr.to_socket_addrs()? {
            match TcpListener::bind_one(addr) {
                Ok(l) => return Ok(l),
                Err(e) => last = explain(e, addr),
            }
        }
        Err(last)
    }

    fn bind_one(addr: SocketAddr) -> io::Result<TcpListener> {
        let s = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        s.set_reuse_address(true)?;
        s.set_nonblocking(true)?;
        s.bind(&addr.into())?;
        s.listen(BACKLOG)?;
        Ok(TcpListener { socket: Socket::new(s.into(), false) })
    }

    /// Waits for a connection. Connections aborted in the backlog are skipped; without descriptors it waits until there
    /// is one (a line on stderr says so).
    ///
    /// # Errors
    /// Of the system, but for those two.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, peer) = accept::accept(&self.socket)?;
        let stream = TcpStream { socket: adopt(fd, true) };
        let peer =
            peer.as_socket().ok_or_else(|| io::Error::other("the peer of a TCP connection has no IP address"))?;
        Ok((stream, peer))
    }

    /// Accepts for ever.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().local_addr()
    }

    /// Another handle of the same listener.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        Ok(TcpListener { socket: Socket::new(self.socket.get().try_clone()?, false) })
    }
}

fn explain(e: io::Error, addr: SocketAddr) -> io::Error {
    let advice = match e.kind() {
        io::ErrorKind::AddrInUse => "; another socket has it: choose another port, or 0 for any free one",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        _ => "",
    };
    io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}{advice}"))
}

impl TryFrom<net::TcpListener> for TcpListener {
    type Error = io::Error;

    /// Takes over a std listener and makes it non-blocking.
    fn try_from(l: net::TcpListener) -> io::Result<TcpListener> {
        l.set_nonblocking(true)?;
        Ok(TcpListener { socket: Socket::new(l, false) })
    }
}

impl From<TcpListener> for OwnedFd {
    /// The descriptor stays non-blocking.
    fn from(l: TcpListener) -> OwnedFd {
        l.socket.into_inner().into()
    }
}

/// Connections of a [`TcpListener`], for ever.
#[derive(Debug)]
pub struct Incoming<'a>(&'a TcpListener);

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.0.accept().map(|(s, _)| s))
    }
}
