//! A client's connection over either kind of socket, and who is at its other end.
//!
//! Must not know: sessions, what is sent.

#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use super::attach::Calls;
use crate::sys::unixsock;

/// See the module's head.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Who has connected, as far as the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    /// How reports name it: `unix uid 1000 pid 4711`.
    pub(super) shown: String,
}

impl Stream {
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Stream::Unix(s) => s.set_nonblocking(true).and_then(|()| unixsock::without_sigpipe(s)),
            Stream::Tcp(s) => {
                // Answers are whole already: what is held back here only makes people wait.
                let _ = s.set_nodelay(true);
                s.set_nonblocking(true).and_then(|()| unixsock::without_sigpipe(s))
            }
        }
    }

    /// Reads what is there.
    pub(super) fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(s) => (&*s).read(bytes),
            Stream::Tcp(s) => (&*s).read(bytes),
        }
    }

    /// Sends what fits.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        unixsock::send(self, bytes)
    }

    pub(super) fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Stream::Unix(s) => s.shutdown(how),
            Stream::Tcp(s) => s.shutdown(how),
        };
    }

    /// Who has connected. A TCP peer must be of this machine; its user is looked up in the kernel's table of sockets.
    pub(super) fn peer(&self) -> io::Result<Peer> {
        match self {
            Stream::Unix(s) => {
                let told = unixsock::peer_credentials(s.as_fd())?;
                let pid = told.pid.map(|pid| format!(" pid {pid}")).unwrap_or_default();
                Ok(Peer { uid: told.uid, shown: format!("unix uid {}{pid}", told.uid) })
            }
            Stream::Tcp(s) => {
                let (theirs, ours) = (s.peer_addr()?, s.local_addr()?);
                let uid = local_uid(theirs, ours)?;
                Ok(Peer { uid, shown: format!("tcp {theirs} uid {uid}") })
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Unix(s) => s.as_fd(),
            Stream::Tcp(s) => s.as_fd(),
        }
    }
}

/// Where clients come from.
#[derive(Debug)]
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
    /// They are connected to when they call.
    Called(Calls),
}

impl Listener {
    pub(super) fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Unix(l) => l.accept().map(|(s, _)| Stream::Unix(s)),
            Listener::Tcp(l) => l.accept().map(|(s, _)| Stream::Tcp(s)),
            Listener::Called(c) => c.accept().map(Stream::Unix),
        }
    }

    /// Ends connections that nobody has accepted, also if a forked child has a copy of the listener.
    pub(super) fn shutdown(&self) {
        let _ = match self {
            Listener::Unix(l) => socket2::SockRef::from(l).shutdown(Shutdown::Both),
            Listener::Tcp(l) => socket2::SockRef::from(l).shutdown(Shutdown::Both),
            Listener::Called(_) => Ok(()),
        };
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(l) => l.as_fd(),
            Listener::Tcp(l) => l.as_fd(),
            Listener::Called(c) => c.as_fd(),
        }
    }
}

/// The user whose socket has the address `theirs` and is connected to `ours`.
fn local_uid(theirs: SocketAddr, ours: SocketAddr) -> io::Result<u32> {
    let (IpAddr::V4(_), IpAddr::V4(_)) = (theirs.ip(), ours.ip()) else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "not an IPv4 connection"));
    };
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    uid_in(&table, theirs, ours)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its socket is not on this machine, or closed already"))
}

/// The 8th field of the row of that connection (proc(5), `/proc/net/tcp`), if a process still has the socket: of one that was
/// closed the kernel shows user 0, and inode 0 two fields further on.
fn uid_in(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let (local, remote) = (in_table(local)?, in_table(remote)?);
    table.lines().skip(1).find_map(|row| {
        let mut fields = row.split_ascii_whitespace().skip(1);
        let found = fields.next()? == local && fields.next()? == remote;
        // The state and three more stand between.
        let uid = if found { fields.nth(4)?.parse().ok()? } else { return None };
        (fields.nth(1)? != "0").then_some(uid)
    })
}

/// As the kernel prints an IPv4 address there: the word as it lies in memory, in the machine's order.
fn in_table(address: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_a_connection_tells_its_user() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F57 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1450 1 0 100 0 0 10 0\n\
            \x20  1: 0100007F:1F57 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 1451 1 0 100 0 0 10 0\n\
            \x20  2: 0100007F:D431 0100007F:1F57 01 00000000:00000000 00:00000000 00000000  1000        0 1452 1 0 100 0 0 10 0\n";
        let (client, server) = ("127.0.0.1:54321".parse().unwrap(), "127.0.0.1:8023".parse().unwrap());
        if cfg!(target_endian = "little") {
            assert_eq!(uid_in(table, client, server), Some(1000));
            assert_eq!(uid_in(table, server, client), Some(0));
            assert_eq!(uid_in(table, "127.0.0.2:54321".parse().unwrap(), server), None);
            // Closed by its owner, who may have been anybody; the kernel shows these as root's.
            let orphan = table.replace(
                "01 00000000:00000000 00:00000000 00000000  1000        0 1452",
                "06 00000000:00000000 03:00001770 00000000     0        0 0",
            );
            assert_ne!(orphan, table);
            assert_eq!(uid_in(&orphan, client, server), None);
            // Only half closed: it still reads our answer.
            let half = table.replace(
                "01 00000000:00000000 00:00000000 00000000  1000",
                "05 00000000:00000000 00:00000000 00000000  1000",
            );
            assert_eq!(uid_in(&half, client, server), Some(1000));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn our_own_connection_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = Listener::Tcp(listener).accept().unwrap();
        let peer = accepted.peer().unwrap();
        assert_eq!(peer.uid, unixsock::effective_uid());
        assert!(peer.shown.starts_with(&format!("tcp {} uid ", client.local_addr().unwrap())), "{peer:?}");
    }
}
