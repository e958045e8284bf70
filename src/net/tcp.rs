//! TCP: [`TcpListener`] and [`TcpStream`].

#![forbid(unsafe_code)]

use std::io;
use std::iter::FusedIterator;
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::panic::Location;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

use super::Accepts;
use super::accept;
#[cfg(feature = "futures-io")]
use super::async_io::async_traits;
use super::endpoint::Endpoint;
use super::exact::{RecvExactError, recv_exact};
use super::socket::{Socket, descriptor_traits, stream_traits, zero_limit};
use super::table::{Kind, Opened};
use super::woven::{Call, connecting};
use super::{TcpListenerBuilder, ToSocketAddrs};
use crate::observe::{WaitKind, WaitReason};
use crate::reactor::Direction;
use crate::scheduler::io::interrupted;
use crate::sys;

/// A TCP connection; as [`std::net::TcpStream`], parking the task.
///
/// Several tasks may read, or write, at the same time, on clones or on the same value; those that have to wait queue,
/// first in, first out (per handle and worker).
///
/// # Cancellation
/// Reads and writes return the task's interrupt once as an error, then unwind. Bytes that were read are never lost.
///
/// # Examples
/// ```
/// use coro::net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
///
/// coro::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let at = listener.local_addr()?;
///     let client = coro::spawn(move || TcpStream::connect(at)?.write_all(b"hello"));
///     let (mut server, _) = listener.accept()?;
///     let mut text = String::new();
///     server.read_to_string(&mut text)?;
///     assert_eq!(text, "hello");
///     client.join().unwrap()
/// })
/// .unwrap();
/// ```
pub struct TcpStream {
    pub(super) socket: Socket<net::TcpStream>,
}

stream_traits!(TcpStream);
#[cfg(feature = "futures-io")]
async_traits!(TcpStream);
descriptor_traits!(TcpStream, net::TcpStream, TcpStream);

/// Tries one address after the other.
pub(super) fn each_addr<T>(
    addr: impl ToSocketAddrs,
    mut each: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = None;
    for addr in addr.to_socket_addrs()? {
        match each(addr) {
            // An interrupt is given once as an error, which must not get lost among the attempts.
            Err(e) if !interrupted() => last = Some(e),
            result => return result,
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name resolved to no address")))
}

impl TcpStream {
    /// Connects to the first of the addresses that answers.
    ///
    /// # Errors
    /// Of the last address tried; `InvalidInput` if there was none.
    ///
    /// # Cancellation
    /// The first interrupt is an error, and no further address is tried; later ones unwind. The attempt is given up.
    #[track_caller]
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        let site = Location::caller();
        each_addr(addr, |addr| TcpStream::connect_until(addr, None, site))
    }

    /// Connects to one address within `timeout`.
    ///
    /// # Errors
    /// `TimedOut` if there was no answer in time; `InvalidInput` for a `timeout` of zero; otherwise of the system.
    ///
    /// # Cancellation
    /// As [`connect`](TcpStream::connect).
    #[track_caller]
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            return Err(zero_limit());
        }
        // Beyond what an `Instant` can hold there is no limit.
        TcpStream::connect_until(*addr, Instant::now().checked_add(timeout), Location::caller())
    }

    fn connect_until(
        addr: SocketAddr,
        deadline: Option<Instant>,
        site: &'static Location<'static>,
    ) -> io::Result<TcpStream> {
        let s = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        s.set_nonblocking(true)?;
        connecting(&s.as_raw_fd(), || Endpoint::Ip(addr), || TcpStream::finish_connect(s, addr, deadline, site))
    }

    fn finish_connect(
        s: socket2::Socket,
        addr: SocketAddr,
        deadline: Option<Instant>,
        site: &'static Location<'static>,
    ) -> io::Result<TcpStream> {
        let in_progress = match s.connect(&SockAddr::from(addr)) {
            Ok(()) => false,
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) || e.kind() == io::ErrorKind::Interrupted => true,
            Err(e) => return Err(e),
        };
        let peer = Endpoint::Ip(addr);
        let stream =
            TcpStream { socket: Socket::new(s.into(), &Opened { peer, ..Opened::new(Kind::TcpStream, site) }) };
        if in_progress {
            let (socket, ended) = (&stream.socket, || connected(stream.socket.get()));
            match deadline {
                None => socket.run(Direction::Write, WaitKind::Connect, ended)?,
                Some(at) => match socket.run_until(Direction::Write, WaitKind::Connect, at, ended) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out"));
                    }
                    result => result?,
                },
            }
        }
        stream.socket.connected_to(peer);
        Ok(stream)
    }

    /// The peer's address.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.open()?.peer_addr()
    }

    /// This side's address.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.open()?.local_addr()
    }

    /// Ends one or both directions. Readers of an ended direction see end of stream.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutting_down(how, |s| s.shutdown(how))
    }

    /// Another handle of the same connection, for another task on any worker. Time limits, non-blocking mode and
    /// [`set_deny_simultaneous`](TcpStream::set_deny_simultaneous) are shared.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        Ok(TcpStream { socket: self.socket.try_clone(net::TcpStream::try_clone)? })
    }

    /// Limits how long one read may wait; `None` is no limit. A read that finds nothing in that time gives an error of
    /// kind `WouldBlock`, as std's on Unix.
    ///
    /// # Errors
    /// `InvalidInput` for a limit of zero; otherwise of the system.
    pub fn set_read_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.socket.set_limit(Direction::Read, dur)
    }

    /// Limits how long one write may wait; `None` is no limit. A write that finds no room in that time gives an error of
    /// kind `WouldBlock`, as std's on Unix.
    ///
    /// # Errors
    /// `InvalidInput` for a limit of zero; otherwise of the system.
    pub fn set_write_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.socket.set_limit(Direction::Write, dur)
    }

    /// How long one read may wait.
    ///
    /// # Errors
    /// If the socket was closed.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.limit(Direction::Read)
    }

    /// How long one write may wait.
    ///
    /// # Errors
    /// If the socket was closed.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.limit(Direction::Write)
    }

    /// As a read that leaves the bytes where they are.
    ///
    /// # Errors
    /// As a read's.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let peek = |buf: &mut [u8]| self.socket.run(Direction::Read, WaitKind::Read, || self.socket.get().peek(buf));
        self.socket.receiving(Call::Peek, buf, |n| *n, peek)
    }

    /// Reads exactly `n` bytes.
    ///
    /// # Errors
    /// As a read's, and `UnexpectedEof` if the stream ends first; what had come until then is in the error.
    ///
    /// # Cancellation
    /// As a read: the first interrupt is an error (with what had come), later ones unwind (and that is lost).
    ///
    /// # Examples
    /// ```
    /// # use coro::net::{TcpListener, TcpStream};
    /// # use std::io::Write;
    /// # let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    /// # let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    /// # let (stream, _) = listener.accept().unwrap();
    /// peer.write_all(b"abcde").unwrap();
    /// drop(peer);
    /// assert_eq!(stream.recv_exact(3).unwrap(), b"abc");
    /// let e = stream.recv_exact(3).unwrap_err();
    /// assert_eq!(e.kind(), std::io::ErrorKind::UnexpectedEof);
    /// assert_eq!(e.received(), b"de");
    /// ```
    pub fn recv_exact(&self, n: usize) -> Result<Vec<u8>, RecvExactError> {
        recv_exact(n, |buf| self.socket.read(buf))
    }

    /// What happens on close to bytes that were not sent yet: `None` leaves it to the system, which sends them; a time
    /// makes the close wait so long for that, and zero discards them and resets the connection. Unstable in std.
    ///
    /// The wait is the kernel's and blocks the worker: choose `None` or zero.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(self.socket.open()?).set_linger(linger)
    }

    /// See [`set_linger`](TcpStream::set_linger). Unstable in std.
    ///
    /// # Errors
    /// Of the system.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self.socket.open()?).linger()
    }

    /// Sends small writes at once instead of gathering them.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.open()?.set_nodelay(nodelay)
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    /// Of the system.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket.open()?.nodelay()
    }

    /// Sets how many routers a packet may pass.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket.open()?.set_ttl(ttl)
    }

    /// How many routers a packet may pass.
    ///
    /// # Errors
    /// Of the system.
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.open()?.ttl()
    }

    /// The error that the system holds for this socket, which is thereby cleared.
    ///
    /// # Errors
    /// Of the system.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.open()?.take_error()
    }

    /// In non-blocking mode calls that would wait give an error of kind `WouldBlock` at once.
    ///
    /// # Errors
    /// If the socket was closed.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
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

/// A listening TCP socket; as [`std::net::TcpListener`], parking the task.
///
/// Several tasks may accept on one listener; they are served in the order in which they came (per handle and worker).
pub struct TcpListener {
    pub(super) socket: Socket<net::TcpListener>,
}

descriptor_traits!(TcpListener, net::TcpListener, TcpListener);

impl Accepts for TcpListener {
    type Connection = (TcpStream, SocketAddr);

    fn accept_now(&self, site: &'static Location<'static>) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, peer) = accept::accept_now(&self.socket)?;
        let stream = TcpStream { socket: self.socket.accepted(fd, &peer, site) };
        Ok((stream, peer.as_socket().ok_or_else(no_ip)?))
    }
}

impl TcpListener {
    /// Listens on the first of the addresses that can be had, with `SO_REUSEADDR` as std. [`TcpListenerBuilder`] has more
    /// options.
    ///
    /// # Errors
    /// Of the last address tried, with std's kind, naming the address and what to do; the system's error is its
    /// [`source`](std::error::Error::source). `InvalidInput` if there was no address.
    #[track_caller]
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        TcpListenerBuilder::new().bind_from(addr, Location::caller())
    }

    /// A socket of our own making: non-blocking already, and listening.
    pub(super) fn of(socket: net::TcpListener, what: &Opened) -> TcpListener {
        TcpListener { socket: Socket::new(socket, what) }
    }

    /// The next connection, if it is there already; interrupts of the task do not matter.
    pub(super) fn accept_now(&self, site: &'static Location<'static>) -> io::Result<(TcpStream, SocketAddr)> {
        let take = || self.socket.try_now(|| sys::socket::accept(self.socket.get().as_raw_fd()));
        let (fd, peer) = self.socket.accepting(take)?;
        let stream = TcpStream { socket: self.socket.accepted(fd, &peer, site) };
        Ok((stream, peer.as_socket().ok_or_else(no_ip)?))
    }

    /// What a task waits for that accepts here in a way of its own.
    pub(super) fn waits_to_accept(&self) -> WaitReason {
        self.socket.reason(WaitKind::Accept)
    }

    /// How many connections may wait in the kernel; a guess where it cannot be asked.
    pub(super) fn longest_backlog(&self) -> u32 {
        sys::socket::backlog(self.socket.get().as_raw_fd()).map_or(4096, |b| b.most)
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.open()?.local_addr()
    }

    /// Another handle of the same listener. What was set on one holds for both.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        Ok(TcpListener { socket: self.socket.try_clone(net::TcpListener::try_clone)? })
    }

    /// Waits for a connection. Connections aborted in the backlog are skipped; without descriptors it waits until there
    /// is one (a line on stderr says so), unless in non-blocking mode.
    ///
    /// # Errors
    /// Of the system, but for those two.
    ///
    /// # Cancellation
    /// The first interrupt is an error, later ones unwind. No connection is lost by it.
    #[track_caller]
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, peer) = accept::accept(&self.socket)?;
        let stream = TcpStream { socket: self.socket.accepted(fd, &peer, Location::caller()) };
        let peer = peer.as_socket().ok_or_else(no_ip)?;
        Ok((stream, peer))
    }

    /// Waits for a connection, then takes all that have come, up to `max`. Empty only if `max` is 0.
    ///
    /// One call for a burst: a task that accepts gives way once per burst instead of once per connection.
    ///
    /// # Errors
    /// As [`accept`](TcpListener::accept), for the first one.
    ///
    /// # Examples
    /// ```
    /// use coro::net::{TcpListener, TcpStream};
    /// let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    /// let at = listener.local_addr().unwrap();
    /// let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
    /// assert_eq!(listener.accept_many(2).unwrap().len(), 2);
    /// assert_eq!(listener.accept_many(2).unwrap().len(), 1);
    /// # drop(clients);
    /// ```
    #[track_caller]
    pub fn accept_many(&self, max: usize) -> io::Result<Vec<(TcpStream, SocketAddr)>> {
        self.accept_many_at(max, Location::caller())
    }

    /// As [`accept_many`](TcpListener::accept_many), for that place in the source.
    pub(super) fn accept_many_at(
        &self,
        max: usize,
        site: &'static Location<'static>,
    ) -> io::Result<Vec<(TcpStream, SocketAddr)>> {
        let mut all = Vec::new();
        accept::accept_many(&self.socket, max, |fd, peer| {
            let stream = TcpStream { socket: self.socket.accepted(fd, &peer, site) };
            all.extend(peer.as_socket().map(|peer| (stream, peer)));
        })?;
        Ok(all)
    }

    /// Accepts for ever.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }

    /// As [`incoming`](TcpListener::incoming), keeping the listener. Unstable in std.
    pub fn into_incoming(self) -> IntoIncoming {
        IntoIncoming(self)
    }

    /// Sets how many routers a packet of accepted connections may pass.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket.open()?.set_ttl(ttl)
    }

    /// How many routers a packet may pass.
    ///
    /// # Errors
    /// Of the system.
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.open()?.ttl()
    }

    /// Has no effect once bound, which a listener always is.
    ///
    /// # Errors
    /// Of the system.
    #[deprecated(
        since = "0.1.0",
        note = "this option can only be set before the socket is bound; std's is deprecated too"
    )]
    #[allow(deprecated, reason = "it mirrors a deprecated method")]
    pub fn set_only_v6(&self, only_v6: bool) -> io::Result<()> {
        self.socket.open()?.set_only_v6(only_v6)
    }

    /// Whether it takes IPv6 connections only.
    ///
    /// # Errors
    /// Of the system.
    #[deprecated(
        since = "0.1.0",
        note = "this option can only be set before the socket is bound; std's is deprecated too"
    )]
    #[allow(deprecated, reason = "it mirrors a deprecated method")]
    pub fn only_v6(&self) -> io::Result<bool> {
        self.socket.open()?.only_v6()
    }

    /// The error that the system holds for this socket, which is thereby cleared.
    ///
    /// # Errors
    /// Of the system.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.open()?.take_error()
    }

    /// In non-blocking mode `accept` gives an error of kind `WouldBlock` when there is no connection. Accepted
    /// connections are not in it, as std's on Linux.
    ///
    /// # Errors
    /// If the socket was closed.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }
}

fn no_ip() -> io::Error {
    io::Error::other("the peer of a TCP connection has no IP address")
}

/// Connections of a [`TcpListener`], for ever.
#[derive(Debug)]
pub struct Incoming<'a>(&'a TcpListener);

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    #[track_caller]
    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.0.accept().map(|(s, _)| s))
    }
}

impl FusedIterator for Incoming<'_> {}

/// Connections of a [`TcpListener`] that it holds, for ever.
#[derive(Debug)]
pub struct IntoIncoming(TcpListener);

impl Iterator for IntoIncoming {
    type Item = io::Result<TcpStream>;

    #[track_caller]
    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.0.accept().map(|(s, _)| s))
    }
}

impl FusedIterator for IntoIncoming {}
