//! Names to addresses: std's `ToSocketAddrs` in a form that parks the task while a name is looked up.
//!
//! Literal addresses are parsed on the spot. A name goes to the system's resolver on a thread of the blocking pool, with
//! a time limit, so that a resolver that hangs delays nobody but those who asked.

#![forbid(unsafe_code)]

use std::io;
use std::net::{self, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{iter, option, slice, vec};

use crate::blocking;
use crate::observe::{WaitKind, WaitReason};

/// What can be turned into socket addresses; as [`std::net::ToSocketAddrs`], implemented for the same types.
///
/// A literal address costs no wait. A name (`"localhost:80"`, `("localhost", 80)`) is looked up by the system's resolver
/// on a thread of the pool of [`blocking`](crate::blocking()), within the limit of [`set_resolve_timeout`]. On a plain
/// thread the resolver is called directly, as std does, without that limit.
///
/// # Cancellation
/// An I/O call: an interrupt of the task is returned once as an error, then it unwinds.
///
/// # Examples
/// ```
/// use coro::net::ToSocketAddrs;
///
/// # fn main() -> std::io::Result<()> {
/// coro::run(|| {
///     assert_eq!("127.0.0.1:80".to_socket_addrs()?.next(), Some(([127, 0, 0, 1], 80).into()));
///     assert!("no port".to_socket_addrs().is_err());
///     Ok(())
/// })
/// # }
/// ```
pub trait ToSocketAddrs {
    /// Goes through the addresses.
    type Iter: Iterator<Item = SocketAddr>;

    /// The addresses, in the order in which they are to be tried.
    ///
    /// # Errors
    /// `InvalidInput` if the text is malformed; `TimedOut`, naming the host, if the resolver took too long; the
    /// resolver's own; those of [`blocking`](crate::blocking()); the task's interrupt.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;
}

macro_rules! one_address {
    ($($type:ty),*) => {$(
        impl ToSocketAddrs for $type {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<option::IntoIter<SocketAddr>> {
                Ok(Some(SocketAddr::from(*self)).into_iter())
            }
        }
    )*};
}

one_address!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl ToSocketAddrs for (&str, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![SocketAddr::new(ip, port)].into_iter()),
            Err(_) => look_up(host, port),
        }
    }
}

impl ToSocketAddrs for (String, u16) {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        (self.0.as_str(), self.1).to_socket_addrs()
    }
}

impl ToSocketAddrs for str {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        if let Ok(address) = self.parse() {
            return Ok(vec![address].into_iter());
        }
        let malformed = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
        let (host, port) = self.rsplit_once(':').ok_or_else(|| malformed("invalid socket address"))?;
        let port = port.parse().map_err(|_| malformed("invalid port value"))?;
        (host, port).to_socket_addrs()
    }
}

impl ToSocketAddrs for String {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        self.as_str().to_socket_addrs()
    }
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = iter::Cloned<slice::Iter<'a, SocketAddr>>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().cloned())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;

    fn to_socket_addrs(&self) -> io::Result<T::Iter> {
        (**self).to_socket_addrs()
    }
}

static LIMIT: Mutex<Duration> = Mutex::new(Duration::from_secs(30));

fn limit() -> Duration {
    *LIMIT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets how long a task waits for the resolver, for the whole process; returns the old limit. The default is 30 seconds;
/// `Duration::MAX` is none.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// let old = coro::net::set_resolve_timeout(Duration::from_secs(5));
/// assert_eq!(old, Duration::from_secs(30));
/// ```
pub fn set_resolve_timeout(limit: Duration) -> Duration {
    std::mem::replace(&mut LIMIT.lock().unwrap_or_else(PoisonError::into_inner), limit)
}

fn look_up(host: &str, port: u16) -> io::Result<vec::IntoIter<SocketAddr>> {
    let owned = host.to_owned();
    look_up_with(host, limit(), move || net::ToSocketAddrs::to_socket_addrs(&(owned.as_str(), port)))
}

/// The lookup with any resolver, which must own what it uses: it may go on when nobody waits for it any more.
fn look_up_with<F>(host: &str, limit: Duration, resolver: F) -> io::Result<vec::IntoIter<SocketAddr>>
where
    F: FnOnce() -> io::Result<vec::IntoIter<SocketAddr>> + Send + 'static,
{
    let reason = WaitReason::text(WaitKind::Resolve, &host);
    match blocking::call(reason, Instant::now().checked_add(limit), resolver)? {
        Some(answer) => answer,
        None => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("looking up {host:?} took longer than {limit:?}; coro::net::set_resolve_timeout sets the limit"),
        )),
    }
}

#[cfg(all(test, not(miri)))]
mod tests;
