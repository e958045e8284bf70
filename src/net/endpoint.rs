//! One end of a connection in three atomic words: an IP address and port, or the number of a path.
//!
//! Paths are kept once, at most [`MOST_PATHS`] of them and for ever, found by their hash without a lock: connections that
//! a listener accepts have its path, so there are few. Further ones are known to the kernel only.

#![forbid(unsafe_code)]

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use socket2::{SockAddr, SockRef};

use crate::sys::statics::AtomicStatic;
use crate::sys::unixsock;

/// See the module's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Not connected, not bound, or not asked.
    None,
    Ip(SocketAddr),
    /// A unix socket without a name, and the process there, where that is known.
    Unnamed(Option<u32>),
    /// A unix socket with a name that is in the table of paths.
    Path(u32, Option<u32>),
    /// A unix socket whose name had no room there.
    Unlisted,
}

/// An [`Endpoint`] that one thread sets and others read; whole only by a protocol of the owner.
#[derive(Debug)]
pub(super) struct Words([AtomicU64; 3]);

const NONE: u64 = 0;
const V4: u64 = 1;
const V6: u64 = 2;
const UNNAMED: u64 = 3;
const PATH: u64 = 4;
const UNLISTED: u64 = 5;

impl Words {
    pub(super) const fn new() -> Words {
        Words([const { AtomicU64::new(0) }; 3])
    }

    pub(super) fn set(&self, end: Endpoint) {
        let pid = |pid: Option<u32>| pid.map_or(0, |p| u64::from(p) | 1 << 32);
        let words = match end {
            Endpoint::None => [NONE, 0, 0],
            Endpoint::Ip(SocketAddr::V4(a)) => [V4 | u64::from(a.port()) << 16, u64::from(a.ip().to_bits()), 0],
            Endpoint::Ip(SocketAddr::V6(a)) => {
                let ip = a.ip().to_bits();
                let head = V6 | u64::from(a.port()) << 16 | u64::from(a.scope_id()) << 32;
                [head, (ip >> 64) as u64, ip as u64]
            }
            Endpoint::Unnamed(process) => [UNNAMED, 0, pid(process)],
            Endpoint::Path(index, process) => [PATH, index.into(), pid(process)],
            Endpoint::Unlisted => [UNLISTED, 0, 0],
        };
        for (to, word) in self.0.iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> Endpoint {
        let [head, a, b] = [0, 1, 2].map(|i| self.0[i].load(Ordering::Relaxed));
        let port = (head >> 16) as u16;
        let process = (b >> 32 != 0).then_some(b as u32);
        match head & 0xffff {
            V4 => Endpoint::Ip((Ipv4Addr::from_bits(a as u32), port).into()),
            V6 => {
                let ip = Ipv6Addr::from_bits(u128::from(a) << 64 | u128::from(b));
                Endpoint::Ip(SocketAddrV6::new(ip, port, 0, (head >> 32) as u32).into())
            }
            UNNAMED => Endpoint::Unnamed(process),
            PATH => Endpoint::Path(a as u32, process),
            UNLISTED => Endpoint::Unlisted,
            _ => Endpoint::None,
        }
    }
}

impl Endpoint {
    pub(super) fn of(addr: &SockAddr) -> Endpoint {
        if let Some(ip) = addr.as_socket() {
            return Endpoint::Ip(ip);
        }
        if let Some(path) = addr.as_pathname() {
            return Endpoint::named(&path.to_string_lossy());
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(name) = addr.as_abstract_namespace() {
            return Endpoint::named(&format!("@{}", String::from_utf8_lossy(name)));
        }
        if addr.is_unnamed() { Endpoint::Unnamed(None) } else { Endpoint::None }
    }

    fn named(path: &str) -> Endpoint {
        number(path).map_or(Endpoint::Unlisted, |n| Endpoint::Path(n, None))
    }

    /// What the kernel says that this end of a socket is; nothing if it refuses.
    pub(super) fn local_of(socket: &impl AsFd) -> Endpoint {
        SockRef::from(socket).local_addr().map_or(Endpoint::None, |a| Endpoint::of(&a))
    }

    /// As [`local_of`](Endpoint::local_of), for the other end.
    pub(super) fn peer_of(socket: &impl AsFd) -> Endpoint {
        match SockRef::from(socket).peer_addr() {
            Ok(addr) => Endpoint::of(&addr).of_process(socket),
            Err(_) => Endpoint::None,
        }
    }

    /// With the process at the other end, if this is a unix socket.
    pub(super) fn of_process(self, socket: &impl AsFd) -> Endpoint {
        let pid = || unixsock::peer_credentials(socket.as_fd()).ok()?.pid.filter(|p| *p > 0).map(|p| p as u32);
        match self {
            Endpoint::Unnamed(_) => Endpoint::Unnamed(pid()),
            Endpoint::Path(index, _) => Endpoint::Path(index, pid()),
            other => other,
        }
    }

    /// Whether it stands for all addresses of the machine, so that one connection's own end is another address.
    pub(super) fn is_any(self) -> bool {
        match self {
            Endpoint::Ip(a) => a.ip().is_unspecified(),
            Endpoint::None => true,
            _ => false,
        }
    }

    /// The path of a unix socket, as it is (nothing is escaped).
    pub(crate) fn path(self) -> Option<&'static str> {
        match self {
            Endpoint::Path(index, _) => PATHS.get(index as usize)?.get().map(String::as_str),
            _ => None,
        }
    }

    pub(crate) fn ip(self) -> Option<IpAddr> {
        match self {
            // An IPv4 client of an IPv6 listener is the same peer as elsewhere.
            Endpoint::Ip(a) => Some(a.ip().to_canonical()),
            _ => None,
        }
    }

    pub(crate) fn process(self) -> Option<u32> {
        match self {
            Endpoint::Unnamed(process) | Endpoint::Path(_, process) => process,
            _ => None,
        }
    }
}

/// So many different paths are kept.
const MOST_PATHS: usize = 1024;
/// So many places are looked at for one.
const PROBES: usize = 16;

static PATHS: [AtomicStatic<String>; MOST_PATHS] = [const { AtomicStatic::empty() }; MOST_PATHS];

/// The number of a path, which is kept from now on if there is room.
fn number(path: &str) -> Option<u32> {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(path) as usize;
    (0..PROBES)
        .map(|i| (hash + i) % MOST_PATHS)
        .find(|i| PATHS[*i].get_or_fill(|| path.to_owned()) == path)
        .map(|i| i as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_survives_its_words() {
        let words = Words::new();
        let scoped = SocketAddrV6::new("fe80::1:2".parse().unwrap(), 65535, 0, 7);
        for end in [
            Endpoint::None,
            Endpoint::Ip("10.0.0.7:5432".parse().unwrap()),
            Endpoint::Ip(scoped.into()),
            Endpoint::Unnamed(None),
            Endpoint::Unnamed(Some(u32::MAX)),
            Endpoint::Path(17, Some(0)),
            Endpoint::Unlisted,
        ] {
            words.set(end);
            assert_eq!(words.get(), end);
        }
    }

    #[test]
    fn a_path_has_one_number_and_too_many_have_none() {
        let first = Endpoint::named("/tmp/one");
        assert_eq!((first, first.path()), (Endpoint::named("/tmp/one"), Some("/tmp/one")));
        let all: Vec<_> = (0..2 * MOST_PATHS).map(|i| Endpoint::named(&format!("/tmp/number/{i}"))).collect();
        assert!(all.contains(&Endpoint::Unlisted));
        assert_eq!(Endpoint::named("/tmp/one"), first);
    }
}
