//! Unix sockets: [`UnixListener`] and [`UnixStream`].

#![forbid(unsafe_code)]

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net;
use std::path::Path;

pub use std::os::unix::net::SocketAddr;

use socket2::{Domain, SockAddr, Type};

use super::accept;
use super::socket::{Socket, descriptor_traits, fresh, stream_traits};
use crate::observe::{WaitKind, WaitReason};
use crate::reactor::Direction;
use crate::scheduler::suspend::pause_io;

/// A unix stream; as [`std::os::unix::net::UnixStream`], parking the task.
///
/// # Cancellation
/// As [`TcpStream`](super::TcpStream).
pub struct UnixStream {
    socket: Socket<net::UnixStream>,
}

stream_traits!(UnixStream);
descriptor_traits!(UnixStream, net::UnixStream, false);

impl UnixStream {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// Of the system; a path that is too long is refused with its limit.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<UnixStream> {
        let addr = SockAddr::unix(path.as_ref()).map_err(|e| too_long(&e, path.as_ref()))?;
        let s = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        s.set_nonblocking(true)?;
        let mut pause = std::time::Duration::from_millis(1);
        let in_progress = loop {
            match s.connect(&addr) {
                Ok(()) => break false,
                Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => break true,
                // A full backlog: nothing announces room, so the attempt is repeated.
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {
                    pause_io(pause, WaitReason::new(WaitKind::Connect, s.as_raw_fd() as u64))?;
                    pause = (pause * 2).min(std::time::Duration::from_millis(50));
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        };
        let stream = UnixStream { socket: Socket::new(net::UnixStream::from(OwnedFd::from(s)), false) };
        if in_progress {
            let ended = || match stream.socket.get().take_error()? {
                Some(e) => Err(e),
                None => stream.socket.get().peer_addr().map(drop).map_err(|e| match e.kind() {
                    io::ErrorKind::NotConnected => io::ErrorKind::WouldBlock.into(),
                    _ => e,
                }),
            };
            stream.socket.run(Direction::Write, WaitKind::Connect, ended)?;
        }
        Ok(stream)
    }

    /// Two connected streams.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (a, b) = net::UnixStream::pair()?;
        Ok((a.into(), b.into()))
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

    /// Ends one or both directions.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.get().shutdown(how)
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<UnixStream> {
        Ok(UnixStream { socket: self.socket.try_clone(net::UnixStream::try_clone)? })
    }
}

/// A listening unix socket; as [`std::os::unix::net::UnixListener`], parking the task.
pub struct UnixListener {
    socket: Socket<net::UnixListener>,
}

descriptor_traits!(UnixListener, net::UnixListener, false);

impl UnixListener {
    /// Listens at `path`, which must not exist.
    ///
    /// # Errors
    /// Of the system, saying what to do; a path that is too long is refused with its limit.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<UnixListener> {
        let path = path.as_ref();
        let addr = SockAddr::unix(path).map_err(|e| too_long(&e, path))?;
        let s = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        s.set_nonblocking(true)?;
        s.bind(&addr).map_err(|e| {
            let advice = match e.kind() {
                io::ErrorKind::AddrInUse => {
                    "; something exists there: remove it if no server uses it, or choose another path"
                }
                io::ErrorKind::NotFound => "; create its directory first",
                _ => "",
            };
            io::Error::new(e.kind(), format!("cannot listen on {}: {e}{advice}", path.display()))
        })?;
        s.listen(1024)?;
        Ok(UnixListener { socket: Socket::new(net::UnixListener::from(OwnedFd::from(s)), false) })
    }

    /// Waits for a connection; see [`TcpListener::accept`](super::TcpListener::accept).
    ///
    /// # Errors
    /// Of the system.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (fd, _) = accept::accept(&self.socket)?;
        let stream = UnixStream { socket: fresh(fd, false) };
        let peer = stream.peer_addr()?;
        Ok((stream, peer))
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().local_addr()
    }
}

fn too_long(e: &io::Error, path: &Path) -> io::Error {
    let n = path.as_os_str().len();
    let text = format!("{}: {n} bytes are too long for a socket's path ({e}); use a shorter directory", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
