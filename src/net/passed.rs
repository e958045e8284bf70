//! Sockets that another process made and gave to this one, by name: [`PassedSockets`].
//!
//! Invariant: a socket becomes one of our types only after the kernel was asked what it is and whether it listens.
//!
//! Must not know: over which way they came.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use socket2::{SockRef, Type};

use super::unix::{UnixDatagram, UnixListener, UnixStream};
use super::{TcpListener, TcpStream, UdpSocket};
use crate::sys::sockopt;

/// A descriptor from another process, as what it is.
///
/// All but [`Passed::Other`] park the task as sockets of this process's own making do, whatever mode they came in.
#[derive(Debug)]
#[non_exhaustive]
pub enum Passed {
    /// A listening TCP socket.
    TcpListener(TcpListener),
    /// A listening unix socket.
    UnixListener(UnixListener),
    /// A TCP connection.
    TcpStream(TcpStream),
    /// A connection of a unix socket.
    UnixStream(UnixStream),
    /// A UDP socket.
    UdpSocket(UdpSocket),
    /// A unix datagram socket.
    UnixDatagram(UnixDatagram),
    /// Anything else: a file, a pipe, a socket of another kind, or one of a kind above that neither listens nor is
    /// connected.
    Other(OwnedFd),
}

impl Passed {
    /// Asks the kernel what it is.
    #[track_caller]
    pub(super) fn of(fd: OwnedFd) -> Passed {
        let Some((unix, kind, listens)) = ask(&fd) else { return Passed::Other(fd) };
        let connected = SockRef::from(&fd).peer_addr().is_ok();
        // The mode is the kernel's and the same for the process that the socket comes from: here nobody has asked for it.
        macro_rules! adopt {
            ($variant:ident, $socket:ty) => {{
                let socket = <$socket>::from(fd);
                let _ = socket.set_nonblocking(false);
                Passed::$variant(socket)
            }};
        }
        match (unix, kind) {
            (false, Type::STREAM) if listens => adopt!(TcpListener, TcpListener),
            (true, Type::STREAM) if listens => adopt!(UnixListener, UnixListener),
            (false, Type::STREAM) if connected => adopt!(TcpStream, TcpStream),
            (true, Type::STREAM) if connected => adopt!(UnixStream, UnixStream),
            (false, Type::DGRAM) => adopt!(UdpSocket, UdpSocket),
            (true, Type::DGRAM) => adopt!(UnixDatagram, UnixDatagram),
            _ => Passed::Other(fd),
        }
    }

    /// What it is called in messages.
    fn word(&self) -> &'static str {
        match self {
            Passed::TcpListener(_) => "tcp listener",
            Passed::UnixListener(_) => "unix listener",
            Passed::TcpStream(_) => "tcp connection",
            Passed::UnixStream(_) => "unix connection",
            Passed::UdpSocket(_) => "udp",
            Passed::UnixDatagram(_) => "unix datagram",
            Passed::Other(_) => "something else",
        }
    }
}

/// Whether it is a unix socket or one of the internet, of which type, and whether it listens; `None`: neither of these.
fn ask(fd: &OwnedFd) -> Option<(bool, Type, bool)> {
    let socket = SockRef::from(fd);
    let kind = socket.r#type().ok()?;
    let local = socket.local_addr().ok()?;
    let unix = local.is_unix();
    if !unix && local.as_socket().is_none() {
        return None;
    }
    let listens = sockopt::get(fd.as_fd(), libc::SOL_SOCKET, libc::SO_ACCEPTCONN).is_ok_and(|n| n != 0);
    Some((unix, kind, listens))
}

/// Sockets from another process, each with a name, in the order in which they were given.
///
/// The methods with a name take one out; several may have the same name, and are taken one after the other.
#[derive(Debug, Default)]
pub struct PassedSockets(Vec<(String, Passed)>);

macro_rules! takers {
    ($($(#[$doc:meta])* $method:ident: $variant:ident($socket:ty) $word:literal;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// `NotFound` if there is none (any more); the message lists what there is.
            pub fn $method(&mut self, name: &str) -> io::Result<$socket> {
                match self.take(name, |p| matches!(p, Passed::$variant(_))) {
                    Some(Passed::$variant(socket)) => Ok(socket),
                    _ => Err(self.missing($word, name)),
                }
            }
        )*
    };
}

impl PassedSockets {
    #[track_caller]
    pub(super) fn push(&mut self, name: String, fd: OwnedFd) {
        self.0.push((name, Passed::of(fd)));
    }

    fn take(&mut self, name: &str, fits: impl Fn(&Passed) -> bool) -> Option<Passed> {
        let at = self.0.iter().position(|(n, p)| n == name && fits(p))?;
        Some(self.0.remove(at).1)
    }

    takers! {
        /// Takes the next listening TCP socket with that name.
        tcp_listener: TcpListener(TcpListener) "tcp listener";
        /// Takes the next listening unix socket with that name.
        unix_listener: UnixListener(UnixListener) "unix listener";
        /// Takes the next UDP socket with that name.
        udp_socket: UdpSocket(UdpSocket) "udp";
        /// Takes the next unix datagram socket with that name.
        unix_datagram: UnixDatagram(UnixDatagram) "unix datagram";
    }

    /// Takes all listening TCP sockets with that name: those of several workers, say. Empty if there are none.
    pub fn tcp_listeners(&mut self, name: &str) -> Vec<TcpListener> {
        std::iter::from_fn(|| self.tcp_listener(name).ok()).collect()
    }

    /// The names of those that have not been taken out, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    /// How many have not been taken out.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all have been taken out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn missing(&self, wanted: &str, name: &str) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, format!("no {wanted} called {name:?} was passed on; there is {self}"))
    }
}

/// `"http" (tcp listener), "log" (unix datagram)`.
impl fmt::Display for PassedSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing left");
        }
        for (i, (name, socket)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name:?} ({})", socket.word())?;
        }
        Ok(())
    }
}

impl IntoIterator for PassedSockets {
    type Item = (String, Passed);
    type IntoIter = std::vec::IntoIter<(String, Passed)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl AsRawFd for Passed {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        match self {
            Passed::TcpListener(s) => s.as_raw_fd(),
            Passed::UnixListener(s) => s.as_raw_fd(),
            Passed::TcpStream(s) => s.as_raw_fd(),
            Passed::UnixStream(s) => s.as_raw_fd(),
            Passed::UdpSocket(s) => s.as_raw_fd(),
            Passed::UnixDatagram(s) => s.as_raw_fd(),
            Passed::Other(s) => s.as_raw_fd(),
        }
    }
}
