//! [`TcpListenerBuilder`]: a listening socket with options that have to be set before it listens.
//!
//! Everything that [`TcpListener::bind`] does goes through here. Must not know: who accepts, or on which worker.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::panic::Location;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::TcpListener;
use super::ToSocketAddrs;
use super::endpoint::Endpoint;
use super::per_worker::WorkerListeners;
use super::table::{Kind, Opened};
use super::tcp::each_addr;
use crate::{scheduler, sys};

/// std's backlog is 128; bursts of connections deserve more, and the kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// Whether sockets of one port that were bound with `SO_REUSEPORT` share its connections evenly. Elsewhere one of them
/// gets all, or it is not said which.
pub(super) const SPREADS: bool = cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));

/// How to listen: options that belong to a TCP listener and to the connections that it accepts.
///
/// What is not set is as with [`TcpListener::bind`]: the address may be used again at once, the backlog is 4096, everything
/// else is the system's default. Options of accepted connections (`nodelay`, the buffers, `busy_poll`) are set on the
/// listener, from which the kernel gives them to each connection: none of them costs a call per connection.
///
/// # Examples
/// ```
/// use coro::net::{TcpListener, TcpListenerBuilder, TcpStream};
///
/// let listener = TcpListenerBuilder::new().backlog(16).nodelay(true).bind("127.0.0.1:0").unwrap();
/// let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
/// let (server, _) = listener.accept().unwrap();
/// # if cfg!(target_os = "linux") {
/// assert!(server.nodelay().unwrap());
/// # }
/// # drop(client);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a builder does nothing until one of its bind methods is called"]
pub struct TcpListenerBuilder {
    reuse_address: bool,
    reuse_port: bool,
    backlog: u32,
    only_v6: Option<bool>,
    nodelay: Option<bool>,
    send_buffer: Option<usize>,
    recv_buffer: Option<usize>,
    busy_poll: Option<Duration>,
}

impl Default for TcpListenerBuilder {
    fn default() -> TcpListenerBuilder {
        TcpListenerBuilder::new()
    }
}

impl TcpListenerBuilder {
    /// The options of [`TcpListener::bind`].
    pub const fn new() -> TcpListenerBuilder {
        TcpListenerBuilder {
            reuse_address: true,
            reuse_port: false,
            backlog: BACKLOG,
            only_v6: None,
            nodelay: None,
            send_buffer: None,
            recv_buffer: None,
            busy_poll: None,
        }
    }

    /// Whether the address may be had although connections of a former listener linger on it (`SO_REUSEADDR`). On at the
    /// start: without it a server that is started again has to wait a minute.
    pub const fn reuse_address(mut self, on: bool) -> Self {
        self.reuse_address = on;
        self
    }

    /// Whether several sockets may listen at the address, all with this option and of one user (`SO_REUSEPORT`; on FreeBSD
    /// `SO_REUSEPORT_LB`). Off at the start.
    ///
    /// On Linux, Android and FreeBSD each connection goes to one of them by a hash of its addresses, for good: also to one
    /// that nobody accepts from. Two things to know: a second copy of the program that is started by mistake binds without
    /// an error and takes its share; and a listener that is closed takes the connections of its backlog with it, which are
    /// reset (unless the sysctl `net.ipv4.tcp_migrate_req` is 1).
    pub const fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// How many connections may wait to be accepted; the kernel takes at most `net.core.somaxconn`.
    pub const fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Whether an IPv6 address takes IPv6 connections only. With `false` a listener at `[::]:80` is there for IPv4 as well,
    /// whose clients have addresses such as `::ffff:10.0.0.7`. Without a word the system decides (`net.ipv6.bindv6only`).
    /// Means nothing at an IPv4 address.
    pub const fn only_v6(mut self, only: bool) -> Self {
        self.only_v6 = Some(only);
        self
    }

    /// Whether accepted connections send small writes at once; see [`TcpStream::set_nodelay`](super::TcpStream::set_nodelay).
    pub const fn nodelay(mut self, on: bool) -> Self {
        self.nodelay = Some(on);
        self
    }

    /// The send buffer of accepted connections in bytes. Linux doubles the number for its own bookkeeping, takes at most
    /// `net.core.wmem_max`, and no longer adapts the size to the connection.
    pub const fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// The receive buffer of accepted connections in bytes; otherwise as [`send_buffer`](TcpListenerBuilder::send_buffer)
    /// (`net.core.rmem_max`). It has to be known before a connection is there, because it decides which window is
    /// announced.
    pub const fn recv_buffer(mut self, bytes: usize) -> Self {
        self.recv_buffer = Some(bytes);
        self
    }

    /// For how long, in microseconds, the kernel may poll the network device for accepted connections instead of waiting
    /// for its interrupt (`SO_BUSY_POLL`); zero: not at all. Linux only; older kernels want the privilege `CAP_NET_ADMIN` for it.
    ///
    /// Tasks read without blocking, so this option makes each *read that finds nothing* look into the device's queue once.
    /// Where a worker waits for many connections, the kernel polls only if the sysctl `net.core.busy_poll` is set, too.
    /// Devices without a queue of their own, the loopback among them, are not polled at all.
    pub const fn busy_poll(mut self, limit: Duration) -> Self {
        self.busy_poll = Some(limit);
        self
    }

    /// Listens on the first of the addresses that can be had.
    ///
    /// # Errors
    /// As [`TcpListener::bind`]; if the kernel refuses an option, the message names it and what is missing.
    #[track_caller]
    pub fn bind<A: ToSocketAddrs>(&self, addr: A) -> io::Result<TcpListener> {
        self.bind_from(addr, Location::caller())
    }

    /// One listener for each worker of the caller's runtime, all at one address: [`bind_group`](Self::bind_group) with
    /// that number.
    ///
    /// # Errors
    /// As [`bind`](TcpListenerBuilder::bind).
    #[track_caller]
    pub fn bind_per_worker<A: ToSocketAddrs>(&self, addr: A) -> io::Result<WorkerListeners> {
        self.group_from(addr, scheduler::worker_stats().len(), Location::caller())
    }

    /// So many listeners at one address (port 0: one free port for all), among which the kernel spreads the connections.
    /// [`reuse_port`](TcpListenerBuilder::reuse_port) need not be set. Where the system does not spread them, they are
    /// handles of one listener.
    ///
    /// # Errors
    /// As [`bind`](TcpListenerBuilder::bind); `InvalidInput` for none.
    #[track_caller]
    pub fn bind_group<A: ToSocketAddrs>(&self, addr: A, listeners: usize) -> io::Result<WorkerListeners> {
        self.group_from(addr, listeners, Location::caller())
    }

    fn group_from<A: ToSocketAddrs>(
        &self,
        addr: A,
        listeners: usize,
        site: &'static Location<'static>,
    ) -> io::Result<WorkerListeners> {
        if listeners == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a group of no listeners would never be served"));
        }
        let each = self.clone().reuse_port(self.reuse_port || SPREADS);
        let mut all = vec![each.bind_from(addr, site)?];
        let at = all[0].local_addr()?;
        while all.len() < listeners {
            all.push(if SPREADS { each.bind_from(at, site)? } else { all[0].try_clone()? });
        }
        Ok(WorkerListeners::from(all))
    }

    pub(super) fn bind_from<A: ToSocketAddrs>(
        &self,
        addr: A,
        site: &'static Location<'static>,
    ) -> io::Result<TcpListener> {
        each_addr(addr, |addr| self.bind_one(addr, site).map_err(|refusal| refusal.explain(addr)))
    }

    fn bind_one(&self, addr: SocketAddr, site: &'static Location<'static>) -> Result<TcpListener, Refusal> {
        let s = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        s.set_reuse_address(self.reuse_address)?;
        if self.reuse_port {
            set_reuse_port(&s).map_err(|e| Refusal::of("SO_REUSEPORT", e, ""))?;
        }
        if let (Some(only), true) = (self.only_v6, addr.is_ipv6()) {
            s.set_only_v6(only).map_err(|e| Refusal::of("IPV6_V6ONLY", e, ""))?;
        }
        if let Some(bytes) = self.send_buffer {
            s.set_send_buffer_size(bytes).map_err(|e| Refusal::of("SO_SNDBUF", e, ""))?;
        }
        if let Some(bytes) = self.recv_buffer {
            s.set_recv_buffer_size(bytes).map_err(|e| Refusal::of("SO_RCVBUF", e, ""))?;
        }
        if let Some(on) = self.nodelay {
            s.set_tcp_nodelay(on).map_err(|e| Refusal::of("TCP_NODELAY", e, ""))?;
        }
        if let Some(limit) = self.busy_poll {
            set_busy_poll(&s, limit)?;
        }
        s.set_nonblocking(true)?;
        s.bind(&addr.into())?;
        s.listen(i32::try_from(self.backlog).unwrap_or(i32::MAX))?;
        let (local, backlog) = (Endpoint::local_of(&s), sys::socket::backlog(s.as_raw_fd()).map_or(0, |b| b.most));
        let what = Opened { local, backlog, ..Opened::new(Kind::TcpListener, site) };
        Ok(TcpListener::of(s.into(), &what))
    }
}

#[cfg(target_os = "freebsd")]
fn set_reuse_port(s: &Socket) -> io::Result<()> {
    s.set_reuse_port_lb(true)
}

#[cfg(not(target_os = "freebsd"))]
fn set_reuse_port(s: &Socket) -> io::Result<()> {
    s.set_reuse_port(true)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_busy_poll(s: &Socket, limit: Duration) -> Result<(), Refusal> {
    use std::os::fd::AsFd;
    let us = limit.as_nanos().div_ceil(1000);
    let us = libc::c_int::try_from(us).unwrap_or(libc::c_int::MAX);
    sys::sockopt::set(s.as_fd(), libc::SOL_SOCKET, libc::SO_BUSY_POLL, us).map_err(|e| {
        let missing = missing_for_busy_poll(&e);
        Refusal::of("SO_BUSY_POLL", e, missing)
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn missing_for_busy_poll(e: &io::Error) -> &'static str {
    match e.raw_os_error() {
        Some(libc::EPERM) => "; the program lacks the privilege CAP_NET_ADMIN (setcap cap_net_admin+ep PROGRAM)",
        Some(libc::ENOPROTOOPT) => "; this kernel was built without busy polling (CONFIG_NET_RX_BUSY_POLL)",
        _ => "",
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_busy_poll(_s: &Socket, limit: Duration) -> Result<(), Refusal> {
    if limit.is_zero() {
        return Ok(());
    }
    let e = io::Error::new(io::ErrorKind::Unsupported, "this system has no such option");
    Err(Refusal::of("SO_BUSY_POLL", e, "; only Linux polls devices for sockets"))
}

/// Why there is no listener: of an option, or of the address.
struct Refusal {
    option: Option<(&'static str, &'static str)>,
    error: io::Error,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Refusal {
        Refusal { option: None, error }
    }
}

impl Refusal {
    fn of(option: &'static str, error: io::Error, missing: &'static str) -> Refusal {
        Refusal { option: Some((option, missing)), error }
    }

    fn explain(self, addr: SocketAddr) -> io::Error {
        io::Error::new(self.error.kind(), BindError { addr, option: self.option, error: self.error })
    }
}

/// A refusal to listen: which address, why, and what to do.
#[derive(Debug)]
struct BindError {
    addr: SocketAddr,
    /// The option that was refused, and what is missing for it.
    option: Option<(&'static str, &'static str)>,
    error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((option, missing)) = self.option {
            return write!(f, "cannot listen on {} with {option}: {}{missing}", self.addr, self.error);
        }
        let advice = match self.error.kind() {
            io::ErrorKind::AddrInUse => "; another socket has it: choose another port, or 0 for any free one",
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
            _ => "",
        };
        write!(f, "cannot listen on {}: {}{advice}", self.addr, self.error)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// No one kernel refuses in both ways.
    #[test]
    fn a_refused_option_says_what_is_missing() {
        let at = SocketAddr::from(([127, 0, 0, 1], 80));
        for (errno, expected) in [
            (libc::EPERM, "; the program lacks the privilege CAP_NET_ADMIN (setcap cap_net_admin+ep PROGRAM)"),
            (libc::ENOPROTOOPT, "; this kernel was built without busy polling (CONFIG_NET_RX_BUSY_POLL)"),
            (libc::EINVAL, ""),
        ] {
            let e = io::Error::from_raw_os_error(errno);
            let (kind, text) = (e.kind(), format!("cannot listen on 127.0.0.1:80 with SO_BUSY_POLL: {e}{expected}"));
            let missing = missing_for_busy_poll(&e);
            let refused = Refusal::of("SO_BUSY_POLL", e, missing).explain(at);
            assert_eq!((refused.kind(), refused.to_string()), (kind, text));
        }
    }
}
