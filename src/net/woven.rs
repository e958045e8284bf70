//! The calls of sockets as points: each can be watched when it begins, so that one that waits is seen while it does, and when it
//! returns.
//!
//! Invariants: while nobody watches a call costs one relaxed load and a branch for this. What goes through a socket is shown by how
//! many bytes it is; whoever watches may look at the bytes.
//!
//! Must not know: who watches, or what becomes of what is seen.

#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use socket2::SockAddr;

use super::endpoint::Endpoint;
use super::socket::Socket;
#[cfg(feature = "probe")]
use crate::observe::{Point, PointKind, PointName, Said, Shown, Woven};

/// A call that is a point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    Connect,
    Accept,
    Recv,
    Peek,
    Send,
    Shutdown,
    Close,
}

#[cfg(feature = "probe")]
macro_rules! point {
    ($name:literal, $($argument:literal),*) => {
        Point::new(PointName::Fixed($name), PointKind::Function, file!(), line!(), line!(), &[$($argument),*])
    };
}

/// In the order of [`Call`].
#[cfg(feature = "probe")]
static POINTS: [Point; 7] = [
    point!("coro::net::connect", "fd", "peer"),
    point!("coro::net::accept", "fd", "peer"),
    point!("coro::net::recv", "fd", "peer", "room"),
    point!("coro::net::peek", "fd", "peer", "room"),
    point!("coro::net::send", "fd", "peer", "bytes"),
    point!("coro::net::shutdown", "fd", "peer", "how"),
    point!("coro::net::close", "fd", "peer"),
];

/// All of them.
#[cfg(feature = "probe")]
pub(crate) fn points() -> impl Iterator<Item = &'static Point> {
    POINTS.iter()
}

impl Call {
    /// Whether anybody watches.
    #[inline(always)]
    pub(super) fn is_watched(self) -> bool {
        #[cfg(feature = "probe")]
        return POINTS[self as usize].is_watched();
        #[cfg(not(feature = "probe"))]
        return false;
    }

    /// It begins.
    #[cfg(feature = "probe")]
    #[cold]
    pub(super) fn begin(self, fd: RawFd, peer: Endpoint, third: Third<'_>) -> Watched {
        let peer = Said(PeerText(peer));
        let (fd, peer) = (Shown::Int(fd.into()), Shown::Debug(&peer));
        let third = match third {
            Third::Nothing => None,
            Third::Room(n) => Some(Shown::Int(n as i64)),
            Third::Bytes(first, all) => Some(Shown::Bytes(first, all)),
            Third::How(Shutdown::Read) => Some(Shown::Debug(&Said("read"))),
            Third::How(Shutdown::Write) => Some(Shown::Debug(&Said("write"))),
            Third::How(Shutdown::Both) => Some(Shown::Debug(&Said("both"))),
        };
        let point = &POINTS[self as usize];
        Watched(match third {
            None => Woven::begin(point, &[fd, peer]),
            Some(third) => Woven::begin(point, &[fd, peer, third]),
        })
    }

    /// Nobody ever watches.
    #[cfg(not(feature = "probe"))]
    pub(super) fn begin(self, _: RawFd, _: Endpoint, _: Third<'_>) -> Watched {
        Watched
    }
}

/// What a call is given beside its socket.
pub(super) enum Third<'a> {
    Nothing,
    Room(usize),
    /// The first of the bytes, and how many there are.
    Bytes(&'a [u8], usize),
    How(Shutdown),
}

/// A call that is watched.
#[cfg(feature = "probe")]
#[must_use]
pub(super) struct Watched(Woven);

#[cfg(not(feature = "probe"))]
#[must_use]
pub(super) struct Watched;

#[cfg(feature = "probe")]
impl Watched {
    fn gives_nothing(self, result: &io::Result<()>) {
        self.0.ended(result.as_ref().map(|()| Shown::Unit));
    }

    /// It returns so many bytes, of which these are the first.
    pub(super) fn gives_bytes(self, result: Result<(&[u8], usize), &io::Error>) {
        self.0.ended(result.map(|(first, all)| Shown::Bytes(first, all)));
    }

    pub(super) fn gives_count(self, result: &io::Result<usize>) {
        self.0.ended(result.as_ref().map(|n| Shown::Int(*n as i64)));
    }

    /// A future that has to wait: whoever polls it calls again.
    #[cfg(feature = "futures-io")]
    pub(super) fn pending(self) {
        self.0.ended(Ok::<_, io::Error>(Shown::Debug(&Said("pending"))));
    }

    fn gives_connection(self, result: &io::Result<(OwnedFd, SockAddr)>) {
        let text = result.as_ref().map(|(fd, peer)| {
            let peer = PeerText(Endpoint::of(peer).of_process(fd)).to_string();
            format!("fd {}{}{peer}", fd.as_raw_fd(), if peer.is_empty() { "" } else { " from " })
        });
        let said = text.as_ref().map(Said);
        self.0.ended(said.as_ref().map(|said| Shown::Debug(said)).map_err(|e| **e));
    }
}

#[cfg(not(feature = "probe"))]
impl Watched {
    fn gives_nothing(self, _: &io::Result<()>) {}

    pub(super) fn gives_bytes(self, _: Result<(&[u8], usize), &io::Error>) {}

    pub(super) fn gives_count(self, _: &io::Result<usize>) {}

    #[cfg(feature = "futures-io")]
    pub(super) fn pending(self) {}

    fn gives_connection(self, _: &io::Result<(OwnedFd, SockAddr)>) {}
}

/// The other end, as people write it; nothing where there is none or it has no name.
struct PeerText(Endpoint);

impl fmt::Display for PeerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Endpoint::Ip(at) => at.fmt(f),
            Endpoint::Path(..) => f.write_str(self.0.path().unwrap_or_default()),
            Endpoint::Unlisted => f.write_str("(path not kept)"),
            Endpoint::Unnamed(Some(process)) => write!(f, "pid {process}"),
            Endpoint::Unnamed(None) | Endpoint::None => Ok(()),
        }
    }
}

/// Where a call puts bytes.
pub(super) trait Room {
    fn room(&self) -> usize;

    /// The first of `n` bytes that came.
    fn filled(&self, n: usize) -> &[u8];
}

impl Room for [u8] {
    fn room(&self) -> usize {
        self.len()
    }

    fn filled(&self, n: usize) -> &[u8] {
        &self[..n.min(self.len())]
    }
}

impl Room for [IoSliceMut<'_>] {
    fn room(&self) -> usize {
        self.iter().map(|buf| buf.len()).sum()
    }

    fn filled(&self, n: usize) -> &[u8] {
        let first: &[u8] = self.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| buf);
        &first[..n.min(first.len())]
    }
}

/// What a call sends.
pub(super) trait Bytes {
    /// The first of them, and how many there are.
    fn bytes(&self) -> (&[u8], usize);
}

impl Bytes for [u8] {
    fn bytes(&self) -> (&[u8], usize) {
        (self, self.len())
    }
}

impl Bytes for [IoSlice<'_>] {
    fn bytes(&self) -> (&[u8], usize) {
        let first: &[u8] = self.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| buf);
        (first, self.iter().map(|buf| buf.len()).sum())
    }
}

impl<S: AsRawFd + AsFd> Socket<S> {
    pub(super) fn begin(&self, call: Call, third: Third<'_>) -> Watched {
        call.begin(self.get().as_raw_fd(), self.peer(), third)
    }

    /// Receives into `buf` with `receive`; `count` says how many bytes came.
    #[inline(always)]
    pub(super) fn receiving<B: Room + ?Sized, T>(
        &self,
        call: Call,
        buf: &mut B,
        count: impl Fn(&T) -> usize,
        receive: impl FnOnce(&mut B) -> io::Result<T>,
    ) -> io::Result<T> {
        let received = match call.is_watched() {
            true => self.receiving_watched(call, buf, count, receive),
            false => receive(buf),
        };
        // Something that comes after it: else it is a jump, and no stack shows that the caller's function was called.
        std::hint::black_box(());
        received
    }

    #[cold]
    #[inline(never)]
    fn receiving_watched<B: Room + ?Sized, T>(
        &self,
        call: Call,
        buf: &mut B,
        count: impl Fn(&T) -> usize,
        receive: impl FnOnce(&mut B) -> io::Result<T>,
    ) -> io::Result<T> {
        let watched = self.begin(call, Third::Room(buf.room()));
        let result = receive(buf);
        watched.gives_bytes(result.as_ref().map(|value| {
            let n = count(value);
            (buf.filled(n), n)
        }));
        result
    }

    /// Sends `buf` with `send`, to the peer if nothing else is said.
    #[inline(always)]
    pub(super) fn sending<B: Bytes + ?Sized>(
        &self,
        buf: &B,
        to: impl FnOnce() -> Option<Endpoint>,
        send: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let sent = match Call::Send.is_watched() {
            true => self.sending_watched(buf, to, send),
            false => send(),
        };
        // As in `receiving`.
        std::hint::black_box(());
        sent
    }

    #[cold]
    #[inline(never)]
    fn sending_watched<B: Bytes + ?Sized>(
        &self,
        buf: &B,
        to: impl FnOnce() -> Option<Endpoint>,
        send: impl FnOnce() -> io::Result<usize>,
    ) -> io::Result<usize> {
        let (first, all) = buf.bytes();
        let peer = to().unwrap_or_else(|| self.peer());
        let watched = Call::Send.begin(self.get().as_raw_fd(), peer, Third::Bytes(first, all));
        let result = send();
        watched.gives_count(&result);
        result
    }

    /// Ends one or both directions.
    pub(super) fn shutting_down(&self, how: Shutdown, shut: impl FnOnce(&S) -> io::Result<()>) -> io::Result<()> {
        let watched = Call::Shutdown.is_watched().then(|| self.begin(Call::Shutdown, Third::How(how)));
        let result = self.open().and_then(shut);
        if let Some(watched) = watched {
            watched.gives_nothing(&result);
        }
        result
    }

    /// Takes a connection with `take`.
    pub(super) fn accepting(
        &self,
        take: impl FnOnce() -> io::Result<(OwnedFd, SockAddr)>,
    ) -> io::Result<(OwnedFd, SockAddr)> {
        if !Call::Accept.is_watched() {
            return take();
        }
        let watched = self.begin(Call::Accept, Third::Nothing);
        let result = take();
        watched.gives_connection(&result);
        result
    }
}

/// Connects the descriptor to `peer` with `connect`.
pub(super) fn connecting<T>(
    fd: &impl AsRawFd,
    peer: impl FnOnce() -> Endpoint,
    connect: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    if !Call::Connect.is_watched() {
        return connect();
    }
    let watched = Call::Connect.begin(fd.as_raw_fd(), peer(), Third::Nothing);
    let result = connect();
    match &result {
        Ok(_) => watched.gives_nothing(&Ok(())),
        Err(e) => watched.gives_bytes(Err(e)),
    }
    result
}

/// Closes the descriptor with `close`.
#[cold]
pub(super) fn closing<R>(fd: RawFd, peer: Endpoint, close: impl FnOnce() -> R) -> R {
    let watched = Call::Close.begin(fd, peer, Third::Nothing);
    let result = close();
    watched.gives_nothing(&Ok(()));
    result
}
