//! [`UnixDatagram`].
//!
//! **A full peer.** The kernel announces room in a peer's queue to a socket that is connected to that peer, and to no
//! other. `send` therefore waits for readiness; `send_to` tries again, with growing pauses.

#![forbid(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{self, SocketAddr};
use std::panic::Location;
use std::path::Path;
use std::time::{Duration, Instant};

use super::address::{from_kernel, from_path, to_kernel};
use crate::net::endpoint::Endpoint;
use crate::net::socket::{Socket, descriptor_traits};
use crate::net::table::{Kind, Opened};
use crate::net::woven::{Call, connecting};
use crate::observe::WaitKind;
use crate::reactor::Direction;
use crate::scheduler::suspend::pause_io;
use crate::sys::message::{self, Received, Take};

const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A unix datagram socket; as [`std::os::unix::net::UnixDatagram`], parking the task.
///
/// # Cancellation
/// Calls that wait return the task's interrupt once as an error, then unwind. A message is received or sent whole or
/// not at all.
///
/// # Examples
/// ```
/// use coro::net::unix::UnixDatagram;
///
/// let runtime = coro::Runtime::builder().workers(1).build().unwrap();
/// runtime.block_on(|| {
///     let (a, b) = UnixDatagram::pair().unwrap();
///     let reader = coro::spawn(move || {
///         let mut buf = [0; 16];
///         let n = b.recv(&mut buf).unwrap(); // Parks this task.
///         buf[..n].to_vec()
///     });
///     a.send(b"hello").unwrap();
///     assert_eq!(reader.join().unwrap(), b"hello");
/// });
/// ```
pub struct UnixDatagram {
    socket: Socket<net::UnixDatagram>,
}

descriptor_traits!(UnixDatagram, net::UnixDatagram, UnixDatagram);

impl UnixDatagram {
    /// A socket with a name in the file system.
    ///
    /// # Errors
    /// Of the system; a path that is too long is refused with its limit.
    #[track_caller]
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        UnixDatagram::bind_addr(&from_path(path.as_ref())?)
    }

    /// A socket with an address, which may be an abstract name on Linux.
    ///
    /// # Errors
    /// Of the system.
    #[track_caller]
    pub fn bind_addr(socket_addr: &SocketAddr) -> io::Result<UnixDatagram> {
        UnixDatagram::fresh(net::UnixDatagram::bind_addr(socket_addr)?, Location::caller())
    }

    /// A socket without a name, which can send, and receive once it is connected.
    ///
    /// # Errors
    /// If there is no descriptor left.
    #[track_caller]
    pub fn unbound() -> io::Result<UnixDatagram> {
        UnixDatagram::fresh(net::UnixDatagram::unbound()?, Location::caller())
    }

    /// Two sockets connected to each other.
    ///
    /// # Errors
    /// If there are no descriptors left.
    #[track_caller]
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (a, b) = net::UnixDatagram::pair()?;
        let site = Location::caller();
        Ok((UnixDatagram::fresh(a, site)?, UnixDatagram::fresh(b, site)?))
    }

    fn fresh(s: net::UnixDatagram, site: &'static Location<'static>) -> io::Result<UnixDatagram> {
        s.set_nonblocking(true)?;
        let (local, peer) = (Endpoint::local_of(&s), Endpoint::peer_of(&s));
        let what = Opened { local, peer, ..Opened::new(Kind::UnixDatagram, site) };
        Ok(UnixDatagram { socket: Socket::new(s, &what) })
    }

    /// Sets where [`send`](UnixDatagram::send) sends to; messages of others are then refused.
    ///
    /// # Errors
    /// Of the system.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.connect_addr(&from_path(path.as_ref())?)
    }

    /// As [`connect`](UnixDatagram::connect), to an address.
    ///
    /// # Errors
    /// Of the system.
    pub fn connect_addr(&self, socket_addr: &SocketAddr) -> io::Result<()> {
        let socket = self.socket.open()?;
        let peer = || to_kernel(socket_addr).map_or(Endpoint::None, |addr| Endpoint::of(&addr));
        connecting(socket, peer, || socket.connect_addr(socket_addr))?;
        self.socket.readdress();
        Ok(())
    }

    /// Another handle of the same socket, for another task on any worker.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<UnixDatagram> {
        Ok(UnixDatagram { socket: self.socket.try_clone(net::UnixDatagram::try_clone)? })
    }

    /// This side's address.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.open()?.local_addr()
    }

    /// The address that the socket is connected to.
    ///
    /// # Errors
    /// If it is not connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.open()?.peer_addr()
    }

    /// Receives a message and where it came from; what does not fit into `buf` is lost.
    ///
    /// # Errors
    /// Of the system; `WouldBlock` when the read timeout has passed.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive(buf, Take::Remove)
    }

    /// Receives a message; what does not fit into `buf` is lost. 0 also after [`shutdown`](UnixDatagram::shutdown) of
    /// the reading direction, which ends waits that are under way.
    ///
    /// # Errors
    /// Of the system; `WouldBlock` when the read timeout has passed.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.receive_message(buf, Take::Remove)?.bytes)
    }

    /// As [`recv_from`](UnixDatagram::recv_from), leaving the message where it is. Unstable in std.
    ///
    /// # Errors
    /// As [`recv_from`](UnixDatagram::recv_from).
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive(buf, Take::Keep)
    }

    /// As [`recv`](UnixDatagram::recv), leaving the message where it is. Unstable in std.
    ///
    /// # Errors
    /// As [`recv`](UnixDatagram::recv).
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.receive_message(buf, Take::Keep)?.bytes)
    }

    fn receive(&self, buf: &mut [u8], take: Take) -> io::Result<(usize, SocketAddr)> {
        let received = self.receive_message(buf, take)?;
        Ok((received.bytes, from_kernel(&received.from)?))
    }

    fn receive_message(&self, buf: &mut [u8], take: Take) -> io::Result<Received> {
        let call = if matches!(take, Take::Keep) { Call::Peek } else { Call::Recv };
        let receive = |buf: &mut [u8]| {
            self.read(take, || message::receive(self.fd(), &mut [IoSliceMut::new(buf)], &mut [], take))
        };
        self.socket.receiving(call, buf, |r| r.bytes, receive)
    }

    /// Receives with `op`; nothing once the direction was shut down.
    fn read(&self, take: Take, mut op: impl FnMut() -> io::Result<Received>) -> io::Result<Received> {
        let receive = || match op() {
            Err(e)
                if e.kind() == io::ErrorKind::WouldBlock
                    && !self.socket.nonblocking()
                    && message::reading_is_ended(self.fd()) =>
            {
                Received::nothing()
            }
            result => result,
        };
        self.socket.run_receive(receive, |r| if matches!(take, Take::Keep) { 0 } else { r.bytes })
    }

    /// Sends a message to the socket at `path`.
    ///
    /// While the queue there is full this waits, trying again every so often (at most 20 ms apart), because nothing
    /// announces room to a socket that is not connected to that peer; to wait without pauses, connect and
    /// [`send`](UnixDatagram::send).
    ///
    /// # Errors
    /// Of the system; `WouldBlock` when the write timeout has passed.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        self.send_to_addr(buf, &from_path(path.as_ref())?)
    }

    /// As [`send_to`](UnixDatagram::send_to), to an address.
    ///
    /// # Errors
    /// As [`send_to`](UnixDatagram::send_to).
    pub fn send_to_addr(&self, buf: &[u8], socket_addr: &SocketAddr) -> io::Result<usize> {
        let to = to_kernel(socket_addr)?;
        let send = || self.send_unconnected(|fd| message::send(fd, Some(&to), &[IoSlice::new(buf)], &[]));
        self.socket.sending(buf, || Some(Endpoint::of(&to)), send)
    }

    /// Sends with `op` until the peer has room, which nothing announces.
    fn send_unconnected(&self, mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        let (mut pause, mut deadline) = (FIRST_PAUSE, None);
        loop {
            let full = match self.socket.attempt(|| op(self.fd())) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !self.socket.nonblocking() => e,
                result => return result,
            };
            let now = Instant::now();
            // The limit counts from the first attempt, and there is one when it has passed.
            let deadline = *deadline.get_or_insert(match self.socket.limit(Direction::Write)? {
                Some(limit) => now.checked_add(limit),
                None => None,
            });
            let left = deadline.map(|d| d.saturating_duration_since(now));
            if left == Some(Duration::ZERO) {
                return Err(full);
            }
            pause_io(left.map_or(pause, |left| left.min(pause)), self.socket.reason(WaitKind::Write))?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sends a message to the peer that the socket is connected to, waiting while the queue there is full.
    ///
    /// # Errors
    /// Of the system; `WouldBlock` when the write timeout has passed.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.socket.sending(buf, || None, || self.socket.run_send(|| self.socket.get().send(buf)))
    }

    /// As [`UnixStream::send_with_fds`](super::UnixStream::send_with_fds), as one message, which may be empty.
    ///
    /// # Errors
    /// As [`send`](UnixDatagram::send); of the system, which takes at most 253 descriptors.
    pub fn send_with_fds(&self, buf: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let send = || self.socket.run_send(|| message::send_descriptors(self.fd(), buf, fds));
        self.socket.sending(buf, || None, send)
    }

    /// Receives a message and appends the descriptors that came with it, close-on-exec, to `fds`. Returns how many
    /// bytes, and whether descriptors were lost because this process may have no more of them. An ordinary `recv` closes
    /// descriptors that came.
    ///
    /// # Errors
    /// As [`recv`](UnixDatagram::recv).
    pub fn recv_with_fds(&self, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<(usize, bool)> {
        let receive = |buf: &mut [u8]| self.read(Take::Remove, || message::receive_descriptors(self.fd(), buf, fds));
        let r = self.socket.receiving(Call::Recv, buf, |r| r.bytes, receive)?;
        Ok((r.bytes, r.control_truncated))
    }

    /// Lets receiving calls that wait longer end with an error of kind `WouldBlock`; `None` waits for ever. Clones
    /// have this in common.
    ///
    /// # Errors
    /// `InvalidInput` for a limit of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_limit(Direction::Read, timeout)
    }

    /// As [`set_read_timeout`](UnixDatagram::set_read_timeout), for sending calls.
    ///
    /// # Errors
    /// `InvalidInput` for a limit of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_limit(Direction::Write, timeout)
    }

    /// How long receiving calls wait.
    ///
    /// # Errors
    /// Of the system.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.limit(Direction::Read)
    }

    /// How long sending calls wait.
    ///
    /// # Errors
    /// Of the system.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.limit(Direction::Write)
    }

    /// With `true`, calls that would have to wait return an error of kind `WouldBlock` instead. Clones have this in
    /// common.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    /// Marks the socket's packets for the firewall's rules. Unstable in std.
    ///
    /// # Errors
    /// Without the privilege for it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn set_mark(&self, mark: u32) -> io::Result<()> {
        socket2::SockRef::from(self.socket.open()?).set_mark(mark)
    }

    /// The error that is pending on the socket, which is thereby taken.
    ///
    /// # Errors
    /// If the system could not say.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.open()?.take_error()
    }

    /// Ends one or both directions, and waits that are under way there.
    ///
    /// # Errors
    /// Of the system.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutting_down(how, |s| s.shutdown(how))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::SocketAncillary;

/// As std's unstable `unix_socket_ancillary_data`.
#[cfg(any(target_os = "linux", target_os = "android"))]
impl UnixDatagram {
    /// Receives a message with its control messages: how many bytes, whether the rest of it was lost, and from where.
    /// Unstable in std; [`recv_with_fds`](UnixDatagram::recv_with_fds) is safer.
    ///
    /// # Errors
    /// As [`recv`](UnixDatagram::recv).
    pub fn recv_vectored_with_ancillary_from(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        ancillary: &mut SocketAncillary<'_>,
    ) -> io::Result<(usize, bool, io::Result<SocketAddr>)> {
        ancillary.clear();
        let receive = |bufs: &mut [IoSliceMut<'_>]| self.read(Take::Remove, || ancillary.receive(self.fd(), bufs));
        let r = self.socket.receiving(Call::Recv, bufs, |r| r.bytes, receive)?;
        Ok((r.bytes, r.truncated, from_kernel(&r.from)))
    }

    /// As [`recv_vectored_with_ancillary_from`](UnixDatagram::recv_vectored_with_ancillary_from), without the address.
    ///
    /// # Errors
    /// As [`recv`](UnixDatagram::recv).
    pub fn recv_vectored_with_ancillary(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        ancillary: &mut SocketAncillary<'_>,
    ) -> io::Result<(usize, bool)> {
        let (n, truncated, _) = self.recv_vectored_with_ancillary_from(bufs, ancillary)?;
        Ok((n, truncated))
    }

    /// Sends a message with control messages to the socket at `path`. Unstable in std.
    ///
    /// # Errors
    /// As [`send_to`](UnixDatagram::send_to).
    pub fn send_vectored_with_ancillary_to<P: AsRef<Path>>(
        &self,
        bufs: &[IoSlice<'_>],
        ancillary: &mut SocketAncillary<'_>,
        path: P,
    ) -> io::Result<usize> {
        let to = to_kernel(&from_path(path.as_ref())?)?;
        let send = || self.send_unconnected(|fd| ancillary.send(fd, Some(&to), bufs));
        self.socket.sending(bufs, || Some(Endpoint::of(&to)), send)
    }

    /// Sends a message with control messages to the connected peer. Unstable in std.
    ///
    /// # Errors
    /// As [`send`](UnixDatagram::send).
    pub fn send_vectored_with_ancillary(
        &self,
        bufs: &[IoSlice<'_>],
        ancillary: &mut SocketAncillary<'_>,
    ) -> io::Result<usize> {
        let send = || self.socket.run_send(|| ancillary.send(self.fd(), None, bufs));
        self.socket.sending(bufs, || None, send)
    }
}
