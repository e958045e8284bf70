//! TCP, UDP and unix sockets with std's names; where std would block the thread, these park the task.
//!
//! Sockets are non-blocking underneath and registered with a worker's poll at the first wait there. On a plain thread
//! they block that thread.
//!
//! Beside std's names stand those for listening at scale: [`TcpListenerBuilder`], [`WorkerListeners`], [`activation`] and
//! [`handover`] (`docs/listening.md`).

mod accept;
pub mod activation;
#[cfg(feature = "futures-io")]
mod async_io;
pub(crate) mod endpoint;
mod exact;
pub mod handover;
mod known;
mod listen;
mod passed;
mod per_worker;
mod polled;
mod raw;
mod resolve;
pub(crate) mod socket;
pub(crate) mod table;
mod tcp;
mod udp;
pub mod unix;
#[cfg_attr(not(feature = "probe"), allow(dead_code, reason = "nobody watches"))]
pub(crate) mod woven;

pub(crate) use accept::no_descriptors;
pub use exact::RecvExactError;
pub use listen::TcpListenerBuilder;
pub use passed::{Passed, PassedSockets};
pub use per_worker::{Serving, WorkerListeners};
pub use polled::{Accepts, Polled, PolledParts};
pub use resolve::{ToSocketAddrs, set_resolve_timeout};
pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};
pub use tcp::{Incoming, IntoIncoming, TcpListener, TcpStream};
pub use udp::UdpSocket;
