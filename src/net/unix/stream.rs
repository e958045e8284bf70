//! [`UnixStream`].

#![forbid(unsafe_code)]

use std::io::{self, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{self, SocketAddr};
use std::panic::Location;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Type};

use super::UCred;
use super::address::{from_path, to_kernel};
#[cfg(feature = "futures-io")]
use crate::net::async_io::async_traits;
use crate::net::endpoint::Endpoint;
use crate::net::exact::{RecvExactError, recv_exact};
use crate::net::socket::{Socket, descriptor_traits, stream_traits};
use crate::net::table::{Kind, Opened};
use crate::net::woven::{Call, connecting};
use crate::observe::WaitKind;
use crate::reactor::Direction;
use crate::scheduler::suspend::pause_io;
use crate::sys::message::{self, Take};
use crate::sys::unixsock;

/// The longest pause between attempts to connect to a full backlog.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A unix stream; as [`std::os::unix::net::UnixStream`], parking the task.
///
/// # Cancellation
/// As [`TcpStream`](crate::net::TcpStream).
pub struct UnixStream {
    socket: Socket<net::UnixStream>,
}

stream_traits!(UnixStream);
#[cfg(feature = "futures-io")]
async_traits!(UnixStream);
descriptor_traits!(UnixStream, net::UnixStream, UnixStream);

impl UnixStream {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// Of the system; a path that is too long is refused with its limit.
    #[track_caller]
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&from_path(path.as_ref())?)
    }

    /// Connects to an address, which may be an abstract name on Linux.
    ///
    /// While the listener's backlog is full this waits, as std does.
    ///
    /// # Errors
    /// Of the system.
    #[track_caller]
    pub fn connect_addr(socket_addr: &SocketAddr) -> io::Result<UnixStream> {
        let addr = to_kernel(socket_addr)?;
        let s = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        s.set_nonblocking(true)?;
        let peer = Endpoint::of(&addr);
        let what = Opened { peer, ..Opened::new(Kind::UnixStream, Location::caller()) };
        let stream = UnixStream { socket: Socket::new(OwnedFd::from(s).into(), &what) };
        connecting(&stream, || peer, || stream.finish_connect(&addr))?;
        stream.socket.connected_to(peer);
        Ok(stream)
    }

    fn finish_connect(&self, addr: &SockAddr) -> io::Result<()> {
        let stream = self;
        let mut pause = Duration::from_millis(1);
        let in_progress = loop {
            match SockRef::from(&stream.socket).connect(addr) {
                Ok(()) => break false,
                Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => break true,
                // A full backlog: nothing announces room, so the attempt is repeated.
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {
                    pause_io(pause, stream.socket.reason(WaitKind::Connect))?;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        };
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
        Ok(())
    }

    pub(super) fn of(socket: Socket<net::UnixStream>) -> UnixStream {
        UnixStream { socket }
    }

    /// Two connected streams.
    ///
    /// # Errors
    /// If there are no descriptors left.
    #[track_caller]
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (a, b) = net::UnixStream::pair()?;
        a.set_nonblocking(true)?;
        b.set_nonblocking(true)?;
        let ends = (Endpoint::Unnamed(None), Endpoint::Unnamed(Some(std::process::id())));
        let what = Opened { local: ends.0, peer: ends.1, ..Opened::new(Kind::UnixStream, Location::caller()) };
        Ok((UnixStream::of(Socket::new(a, &what)), UnixStream::of(Socket::new(b, &what))))
    }

    /// Another handle of the same connection, for another task on any worker.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<UnixStream> {
        Ok(UnixStream { socket: self.socket.try_clone(net::UnixStream::try_clone)? })
    }

    /// This side's address.
    ///
    /// # Errors
    /// Of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.open()?.local_addr()
    }

    /// The peer's address.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.open()?.peer_addr()
    }

    /// Who was at the other end when it connected (or made the pair). Unstable in std.
    ///
    /// # Errors
    /// Of the system.
    ///
    /// # Examples
    /// ```
    /// let (ours, _theirs) = coro::net::unix::UnixStream::pair().unwrap();
    /// if let Some(pid) = ours.peer_cred().unwrap().pid {
    ///     assert_eq!(pid, std::process::id() as i32);
    /// }
    /// ```
    pub fn peer_cred(&self) -> io::Result<UCred> {
        let peer = unixsock::peer_credentials(self.socket.open()?.as_fd())?;
        Ok(UCred { uid: peer.uid, gid: peer.gid, pid: peer.pid })
    }

    /// Lets reads that wait longer end with an error of kind `WouldBlock`; `None` waits for ever. Clones have this in
    /// common.
    ///
    /// # Errors
    /// `InvalidInput` for a limit of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_limit(Direction::Read, timeout)
    }

    /// As [`set_read_timeout`](UnixStream::set_read_timeout), for writes.
    ///
    /// # Errors
    /// `InvalidInput` for a limit of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_limit(Direction::Write, timeout)
    }

    /// How long reads wait.
    ///
    /// # Errors
    /// Of the system.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket.limit(Direction::Read)
    }

    /// How long writes wait.
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

    /// Ends one or both directions. Readers of an ended direction see end of stream.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutting_down(how, |s| s.shutdown(how))
    }

    /// Reads without taking: the next read gives the same bytes. Unstable in std.
    ///
    /// # Errors
    /// As of a read.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let peek = |buf: &mut [u8]| {
            self.socket.run(Direction::Read, WaitKind::Read, || {
                message::receive(self.fd(), &mut [IoSliceMut::new(buf)], &mut [], Take::Keep).map(|r| r.bytes)
            })
        };
        self.socket.receiving(Call::Peek, buf, |n| *n, peek)
    }

    /// Waits until `n` bytes have come; see [`TcpStream::recv_exact`](crate::net::TcpStream::recv_exact).
    ///
    /// # Errors
    /// As a read's, and `UnexpectedEof` if the stream ends first; what had come until then is in the error.
    pub fn recv_exact(&self, n: usize) -> Result<Vec<u8>, RecvExactError> {
        recv_exact(n, |buf| self.socket.read(buf))
    }

    /// Writes some bytes and gives the peer descriptors along with the first of them; they stay open here. Returns how
    /// many bytes went; the rest, if any, is for an ordinary write, because the descriptors have gone.
    ///
    /// # Errors
    /// `InvalidInput` without any bytes, as a stream carries descriptors only with one; of the system, which takes at
    /// most 253 of them.
    ///
    /// # Examples
    /// ```
    /// use coro::net::unix::UnixStream;
    /// use std::io::Write;
    /// use std::os::fd::AsFd;
    ///
    /// let (ours, theirs) = UnixStream::pair().unwrap();
    /// let (mut far, near) = UnixStream::pair().unwrap();
    /// ours.send_with_fds(b"take this", &[near.as_fd()]).unwrap();
    ///
    /// let (mut buf, mut fds) = ([0; 16], Vec::new());
    /// assert_eq!(theirs.recv_with_fds(&mut buf, &mut fds).unwrap(), (9, false));
    /// let taken = UnixStream::from(fds.pop().unwrap());
    /// far.write_all(b"!").unwrap();
    /// assert_eq!(taken.peek(&mut buf).unwrap(), 1);
    /// ```
    pub fn send_with_fds(&self, buf: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        if buf.is_empty() && !fds.is_empty() {
            let text = "a stream carries descriptors only together with a byte: send at least one";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let send = || self.socket.run_send(|| message::send_descriptors(self.fd(), buf, fds));
        self.socket.sending(buf, || None, send)
    }

    /// Reads some bytes and appends the descriptors that came with them, close-on-exec, to `fds`. Returns how many bytes,
    /// and whether descriptors were lost because this process may have no more of them. An ordinary read closes
    /// descriptors that came.
    ///
    /// # Errors
    /// As of a read.
    pub fn recv_with_fds(&self, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<(usize, bool)> {
        let receive = |buf: &mut [u8]| {
            let receive = || message::receive_descriptors(self.fd(), buf, fds).map(|r| (r.bytes, r.control_truncated));
            self.socket.run_receive(receive, |(n, _)| *n)
        };
        self.socket.receiving(Call::Recv, buf, |(n, _)| *n, receive)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl UnixStream {
    /// Reads bytes and control messages. Unstable in std; [`recv_with_fds`](UnixStream::recv_with_fds) is safer.
    ///
    /// # Errors
    /// As of a read.
    pub fn recv_vectored_with_ancillary(
        &self,
        bufs: &mut [IoSliceMut<'_>],
        ancillary: &mut super::SocketAncillary<'_>,
    ) -> io::Result<usize> {
        let receive = |bufs: &mut [IoSliceMut<'_>]| {
            self.socket.run_receive(|| ancillary.receive(self.fd(), bufs).map(|r| r.bytes), |n| *n)
        };
        self.socket.receiving(Call::Recv, bufs, |n| *n, receive)
    }

    /// Writes bytes and control messages. Unstable in std.
    ///
    /// # Errors
    /// As of a write.
    pub fn send_vectored_with_ancillary(
        &self,
        bufs: &[io::IoSlice<'_>],
        ancillary: &mut super::SocketAncillary<'_>,
    ) -> io::Result<usize> {
        let send = || self.socket.run_send(|| ancillary.send(self.fd(), None, bufs));
        self.socket.sending(bufs, || None, send)
    }
}
