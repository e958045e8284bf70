//! UDP: [`UdpSocket`].
//!
//! Invariants: readiness is never taken back after a short receive, because a datagram is as short as it is; everything
//! receives until "would block".

#![forbid(unsafe_code)]

use std::io;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::panic::Location;
use std::time::Duration;

use super::ToSocketAddrs;
use super::endpoint::Endpoint;
use super::socket::{Socket, descriptor_traits};
use super::table::{Kind, Opened};
use super::tcp::each_addr;
use super::woven::{Call, connecting};
use crate::reactor::Direction;
use crate::sys::message::reading_is_ended;

/// A UDP socket; as [`std::net::UdpSocket`], parking the task.
///
/// Several tasks may receive on one socket; those that have to wait queue, first in, first out (per handle and worker).
///
/// # Cancellation
/// Calls that wait return the task's interrupt once as an error, then unwind. A datagram is received or sent whole or
/// not at all.
///
/// # Examples
/// ```
/// use coro::net::UdpSocket;
///
/// coro::run(|| {
///     let server = UdpSocket::bind("127.0.0.1:0")?;
///     let at = server.local_addr()?;
///     let client = coro::spawn(move || {
///         let socket = UdpSocket::bind("127.0.0.1:0")?;
///         socket.send_to(b"ping", at)?;
///         let mut buf = [0; 16];
///         let (n, _) = socket.recv_from(&mut buf)?; // Parks this task.
///         std::io::Result::Ok(buf[..n].to_vec())
///     });
///     let mut buf = [0; 16];
///     let (n, peer) = server.recv_from(&mut buf)?;
///     assert_eq!(&buf[..n], b"ping");
///     server.send_to(b"pong", peer)?;
///     assert_eq!(client.join().unwrap()?, b"pong");
///     std::io::Result::Ok(())
/// })
/// .unwrap();
/// ```
pub struct UdpSocket {
    socket: Socket<net::UdpSocket>,
}

descriptor_traits!(UdpSocket, net::UdpSocket, Udp);

impl UdpSocket {
    /// A socket at the first of the addresses that can be had.
    ///
    /// # Errors
    /// Of the last address tried; `InvalidInput` if there was none.
    #[track_caller]
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<UdpSocket> {
        let site = Location::caller();
        let socket = each_addr(addr, net::UdpSocket::bind)?;
        socket.set_nonblocking(true)?;
        let what = Opened { local: Endpoint::local_of(&socket), ..Opened::new(Kind::Udp, site) };
        Ok(UdpSocket { socket: Socket::new(socket, &what) })
    }

    /// Receives a datagram and where it came from; what does not fit into `buf` is lost.
    ///
    /// # Errors
    /// Of the system; `WouldBlock` when the read timeout has passed.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let receive = |buf: &mut [u8]| self.read(|s| s.recv_from(buf), |(n, _)| *n);
        self.socket.receiving(Call::Recv, buf, |(n, _)| *n, receive)
    }

    /// As [`recv_from`](UdpSocket::recv_from), leaving the datagram where it is.
    ///
    /// # Errors
    /// As [`recv_from`](UdpSocket::recv_from).
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let peek = |buf: &mut [u8]| self.read(|s| s.peek_from(buf), |_| 0);
        self.socket.receiving(Call::Peek, buf, |(n, _)| *n, peek)
    }

    /// Sends a datagram to the first of the addresses.
    ///
    /// # Errors
    /// `InvalidInput` if there is no address; of the system; `WouldBlock` when the write timeout has passed.
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        let none = || io::Error::new(io::ErrorKind::InvalidInput, "the name resolved to no address to send to");
        let to = addr.to_socket_addrs()?.next().ok_or_else(none)?;
        self.socket.sending(buf, || Some(Endpoint::Ip(to)), || self.write(|s| s.send_to(buf, to)))
    }

    /// The address that the socket is connected to.
    ///
    /// # Errors
    /// `NotConnected` if it is not.
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

    /// Another handle of the same socket, for another task on any worker. Time limits and non-blocking mode are shared.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<UdpSocket> {
        Ok(UdpSocket { socket: self.socket.try_clone(net::UdpSocket::try_clone)? })
    }

    /// Lets receiving calls that wait longer end with an error of kind `WouldBlock`; `None` waits for ever.
    ///
    /// # Errors
    /// `InvalidInput` for a limit of zero.
    pub fn set_read_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.socket.set_limit(Direction::Read, dur)
    }

    /// As [`set_read_timeout`](UdpSocket::set_read_timeout), for sending calls.
    ///
    /// # Errors
    /// `InvalidInput` for a limit of zero.
    pub fn set_write_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.socket.set_limit(Direction::Write, dur)
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

    /// Whether datagrams may go to a broadcast address.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_broadcast(&self, broadcast: bool) -> io::Result<()> {
        self.socket.open()?.set_broadcast(broadcast)
    }

    /// As set by [`set_broadcast`](UdpSocket::set_broadcast).
    ///
    /// # Errors
    /// Of the system.
    pub fn broadcast(&self) -> io::Result<bool> {
        self.socket.open()?.broadcast()
    }

    /// Whether this machine receives its own multicast datagrams (IPv4).
    ///
    /// # Errors
    /// Of the system.
    pub fn set_multicast_loop_v4(&self, multicast_loop_v4: bool) -> io::Result<()> {
        self.socket.open()?.set_multicast_loop_v4(multicast_loop_v4)
    }

    /// As set by [`set_multicast_loop_v4`](UdpSocket::set_multicast_loop_v4).
    ///
    /// # Errors
    /// Of the system.
    pub fn multicast_loop_v4(&self) -> io::Result<bool> {
        self.socket.open()?.multicast_loop_v4()
    }

    /// Over how many routers multicast datagrams may go (IPv4); 1 at the start, which stays in the local network.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_multicast_ttl_v4(&self, multicast_ttl_v4: u32) -> io::Result<()> {
        self.socket.open()?.set_multicast_ttl_v4(multicast_ttl_v4)
    }

    /// As set by [`set_multicast_ttl_v4`](UdpSocket::set_multicast_ttl_v4).
    ///
    /// # Errors
    /// Of the system.
    pub fn multicast_ttl_v4(&self) -> io::Result<u32> {
        self.socket.open()?.multicast_ttl_v4()
    }

    /// Whether this machine receives its own multicast datagrams (IPv6).
    ///
    /// # Errors
    /// Of the system.
    pub fn set_multicast_loop_v6(&self, multicast_loop_v6: bool) -> io::Result<()> {
        self.socket.open()?.set_multicast_loop_v6(multicast_loop_v6)
    }

    /// As set by [`set_multicast_loop_v6`](UdpSocket::set_multicast_loop_v6).
    ///
    /// # Errors
    /// Of the system.
    pub fn multicast_loop_v6(&self) -> io::Result<bool> {
        self.socket.open()?.multicast_loop_v6()
    }

    /// Over how many routers datagrams may go.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket.open()?.set_ttl(ttl)
    }

    /// As set by [`set_ttl`](UdpSocket::set_ttl).
    ///
    /// # Errors
    /// Of the system.
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.open()?.ttl()
    }

    /// Receives what is sent to a multicast group, on the interface that has the address `interface`, or on one that
    /// the system chooses if that is unspecified.
    ///
    /// # Errors
    /// Of the system.
    pub fn join_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.socket.open()?.join_multicast_v4(multiaddr, interface)
    }

    /// Receives what is sent to a multicast group, on the interface with the index `interface`, or on one that the
    /// system chooses if that is 0.
    ///
    /// # Errors
    /// Of the system.
    pub fn join_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.socket.open()?.join_multicast_v6(multiaddr, interface)
    }

    /// Undoes [`join_multicast_v4`](UdpSocket::join_multicast_v4).
    ///
    /// # Errors
    /// Of the system.
    pub fn leave_multicast_v4(&self, multiaddr: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.socket.open()?.leave_multicast_v4(multiaddr, interface)
    }

    /// Undoes [`join_multicast_v6`](UdpSocket::join_multicast_v6).
    ///
    /// # Errors
    /// Of the system.
    pub fn leave_multicast_v6(&self, multiaddr: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.socket.open()?.leave_multicast_v6(multiaddr, interface)
    }

    /// The error that is pending on the socket, which is thereby taken.
    ///
    /// # Errors
    /// If the system could not say.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.open()?.take_error()
    }

    /// Sets where [`send`](UdpSocket::send) sends to, the first of the addresses that the system accepts; datagrams of
    /// others are then dropped. Waits for nobody.
    ///
    /// # Errors
    /// Of the last address tried; `InvalidInput` if there was none.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        let socket = self.socket.open()?;
        each_addr(addr, |a| connecting(socket, || Endpoint::Ip(a), || socket.connect(a)))?;
        self.socket.readdress();
        Ok(())
    }

    /// Sends a datagram to the peer that the socket is connected to.
    ///
    /// # Errors
    /// Of the system; `WouldBlock` when the write timeout has passed.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.socket.sending(buf, || None, || self.write(|s| s.send(buf)))
    }

    /// Receives a datagram of the peer that the socket is connected to; what does not fit into `buf` is lost.
    ///
    /// # Errors
    /// Of the system; `WouldBlock` when the read timeout has passed.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        let receive = |buf: &mut [u8]| self.read(|s| s.recv(buf), |n| *n);
        self.socket.receiving(Call::Recv, buf, |n| *n, receive)
    }

    /// As [`recv`](UdpSocket::recv), leaving the datagram where it is.
    ///
    /// # Errors
    /// As [`recv`](UdpSocket::recv).
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let peek = |buf: &mut [u8]| self.read(|s| s.peek(buf), |_| 0);
        self.socket.receiving(Call::Peek, buf, |n| *n, peek)
    }

    /// With `true`, calls that would have to wait return an error of kind `WouldBlock` instead. Clones have this in
    /// common.
    ///
    /// # Errors
    /// Of the system.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    /// Nothing but the `close` of a clone ends receiving, which Linux does not tell to a non-blocking receive.
    fn read<T>(
        &self,
        mut op: impl FnMut(&net::UdpSocket) -> io::Result<T>,
        bytes: impl Fn(&T) -> usize,
    ) -> io::Result<T> {
        let receive = || match op(self.socket.get()) {
            Err(e)
                if e.kind() == io::ErrorKind::WouldBlock
                    && !self.socket.nonblocking()
                    && reading_is_ended(self.socket.as_fd()) =>
            {
                Err(io::Error::new(io::ErrorKind::NotConnected, "a clone of this socket was closed"))
            }
            result => result,
        };
        self.socket.run_receive(receive, bytes)
    }

    fn write(&self, mut op: impl FnMut(&net::UdpSocket) -> io::Result<usize>) -> io::Result<usize> {
        self.socket.run_send(|| op(self.socket.get()))
    }
}
