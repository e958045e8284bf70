//! What all sockets share: a std socket in non-blocking mode, its readiness, and what the user has set on it.
//!
//! **The short-read rule.** After a read that gave less than there was room for, readiness is taken back without asking
//! the kernel again, but only on TCP and only if no end or error was ever seen on the descriptor. Everything else reads
//! until "would block": on unix sockets a short read can end at a message with descriptors, and data and end of stream
//! that arrive together give one edge only.
//!
//! **Non-blocking underneath.** `O_NONBLOCK` belongs to the open file description, so all clones have it, and what the
//! user asks for (a time limit, non-blocking mode) is kept beside it, shared by the clones as well. A descriptor that
//! leaves for std's type is put into blocking mode, unless the user wants it otherwise; while clones stay behind, the
//! last of them does that.

#![forbid(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::Location;
use std::sync::Arc;
#[cfg(feature = "futures-io")]
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::{SockAddr, SockRef};

use super::endpoint::Endpoint;
use super::known;
use super::table::{Entry, Kind, Opened};
#[cfg(feature = "futures-io")]
use super::woven::{Bytes as _, Room as _, Third};
use super::woven::{Call, closing};
use crate::observe::{WaitKind, WaitReason};
use crate::reactor::Direction;
use crate::scheduler::io::{Source, now_ticks};
use crate::sys;

/// What std passes to one vectored call at most: `IOV_MAX`, the same on Linux, macOS and the BSDs.
const MOST_BUFFERS: usize = 1024;

/// A std socket `S` and its readiness.
#[derive(Debug)]
pub(crate) struct Socket<S: AsRawFd + AsFd> {
    /// `None` only while it is being dropped.
    inner: Option<S>,
    source: Source,
    /// What views know of it.
    entry: Entry,
    drained_by_short_read: bool,
}

impl<S: AsRawFd + AsFd> Socket<S> {
    /// For a socket of our own making: `inner` must be non-blocking already, with nothing set on it.
    pub(crate) fn new(inner: S, what: &Opened) -> Socket<S> {
        let entry = Entry::new(inner.as_raw_fd(), what);
        let source = Source::new(inner.as_raw_fd(), entry.serial());
        Socket { inner: Some(inner), source, entry, drained_by_short_read: what.kind == Kind::TcpStream }
    }

    /// A connection that this listener gave.
    pub(super) fn accepted<C: From<OwnedFd> + AsRawFd + AsFd>(
        &self,
        fd: OwnedFd,
        peer: &SockAddr,
        site: &'static Location<'static>,
    ) -> Socket<C> {
        let local = match self.entry.local() {
            any if any.is_any() => Endpoint::local_of(&fd),
            one => one,
        };
        let (kind, peer) = (self.entry.kind().accepted(), Endpoint::of(peer).of_process(&fd));
        self.entry.count(Direction::Read, 1, now_ticks());
        Socket::new(C::from(fd), &Opened { local, peer, ..Opened::new(kind, site) })
    }

    /// Takes over a socket that somebody else made, in whatever mode it is, with the time limits that it has. Of one that
    /// is held here already, this is another handle.
    pub(crate) fn adopt(inner: S, kind: Kind, site: &'static Location<'static>) -> Socket<S> {
        let fd = inner.as_raw_fd();
        let mut known = known::lock();
        let known_as = known.find(&inner);
        let is_known = known_as.is_some();
        let shared = known_as.as_ref().and_then(|(_, word)| Entry::of(*word, fd));
        let entry = shared.unwrap_or_else(|| {
            let (local, peer) = (Endpoint::local_of(&inner), Endpoint::peer_of(&inner));
            let backlog = kind == Kind::TcpListener;
            let backlog = backlog.then(|| sys::socket::backlog(fd)).flatten().map_or(0, |b| b.most);
            Entry::new(fd, &Opened { local, peer, backlog, ..Opened::new(kind, site) })
        });
        let options = known_as.map(|(options, _)| options).unwrap_or_default();
        let source = Source::sharing(fd, entry.serial(), options);
        let socket = Socket { inner: Some(inner), source, entry, drained_by_short_read: kind == Kind::TcpStream };
        let options = socket.source.options();
        // What cannot be asked or set (the descriptor may be anything) is left as it is: the first call tells.
        if !sys::socket::is_nonblocking(socket.as_fd()).unwrap_or(false) {
            let _ = SockRef::from(&socket).set_nonblocking(true);
        } else if !is_known {
            options.set_nonblocking(true);
        }
        let sock = SockRef::from(&socket);
        for (direction, limit) in [(Direction::Read, sock.read_timeout()), (Direction::Write, sock.write_timeout())] {
            if let Ok(Some(limit)) = limit {
                options.set_limit(direction, Some(limit));
            }
        }
        if !is_known {
            known.insert(&socket, Arc::downgrade(options), socket.entry.word());
        }
        drop(known);
        socket
    }

    /// The std socket, also after [`close`](Socket::close).
    pub(crate) fn get(&self) -> &S {
        self.inner.as_ref().expect("a socket holds its descriptor until it is dropped")
    }

    /// The std socket, for calls that never wait.
    ///
    /// # Errors
    /// After [`close`](Socket::close).
    pub(super) fn open(&self) -> io::Result<&S> {
        self.source.check_open()?;
        Ok(self.get())
    }

    /// Another handle of the same open file description. `clone` is std's `try_clone`.
    pub(crate) fn try_clone(&self, clone: impl FnOnce(&S) -> io::Result<S>) -> io::Result<Socket<S>> {
        let inner = clone(self.open()?)?;
        let entry = self.entry.share(inner.as_raw_fd());
        let source = Source::sharing(inner.as_raw_fd(), entry.serial(), self.source.options().clone());
        Ok(Socket { inner: Some(inner), source, entry, drained_by_short_read: self.drained_by_short_read })
    }

    /// The other end, as far as the table knows it.
    pub(super) fn peer(&self) -> Endpoint {
        self.entry.peer()
    }

    /// Says that the connection to `peer` stands.
    pub(super) fn connected_to(&self, peer: Endpoint) {
        self.entry.set_endpoints(Endpoint::local_of(self), peer.of_process(self));
    }

    /// Has the table say what the socket is bound and connected to by now.
    pub(super) fn readdress(&self) {
        self.entry.set_endpoints(Endpoint::local_of(self), Endpoint::peer_of(self));
    }

    /// What a task waits for that waits on this socket in a way of its own.
    pub(super) fn reason(&self, kind: WaitKind) -> WaitReason {
        self.source.reason(kind)
    }

    pub(super) fn run<T>(&self, d: Direction, kind: WaitKind, op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.source.run(d, kind, op)
    }

    /// As [`run`](Socket::run), with a deadline instead of the user's time limit; `WouldBlock` when it has passed.
    pub(super) fn run_until<T>(
        &self,
        d: Direction,
        kind: WaitKind,
        deadline: Instant,
        op: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        self.source.run_until(d, kind, deadline, op)
    }

    /// Calls `op` once: what there is without waiting.
    pub(super) fn try_now<T>(&self, op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.source.try_now(op)
    }

    /// Sends once, without waiting. An interrupt of the task comes first and the call counts as one that found its socket
    /// ready: for what is tried again and again, with pauses, because no readiness announces it.
    pub(super) fn attempt(&self, op: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        self.source.attempt(op).inspect(|n| self.entry.count(Direction::Write, *n, now_ticks()))
    }

    /// For waits that are for other things as well.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    pub(super) fn keep_ready(&self, d: Direction) {
        self.source.keep_ready(d);
    }

    fn run_read(&self, room: usize, mut op: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        let op = || {
            self.entry.prefetch();
            op()
        };
        self.source.run_done(Direction::Read, WaitKind::Read, op, |n, at| self.has_read(*n, room, at))
    }

    /// Counts what was read; whether nothing is left by the short-read rule.
    #[inline]
    fn has_read(&self, n: usize, room: usize, at: u64) -> bool {
        self.entry.count(Direction::Read, n, at);
        self.drained_by_short_read && n > 0 && n < room
    }

    /// As [`run`](Socket::run), for what receives; `bytes` says how many of them.
    pub(super) fn run_receive<T>(
        &self,
        op: impl FnMut() -> io::Result<T>,
        bytes: impl Fn(&T) -> usize,
    ) -> io::Result<T> {
        self.run_counted(Direction::Read, WaitKind::Read, op, bytes)
    }

    /// As [`run`](Socket::run), for what sends.
    pub(super) fn run_send(&self, op: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        self.run_counted(Direction::Write, WaitKind::Write, op, |n| *n)
    }

    #[inline]
    fn run_counted<T>(
        &self,
        d: Direction,
        kind: WaitKind,
        op: impl FnMut() -> io::Result<T>,
        bytes: impl Fn(&T) -> usize,
    ) -> io::Result<T> {
        self.source.run_done(d, kind, op, |value, at| {
            self.entry.count(d, bytes(value), at);
            false
        })
    }

    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize>
    where
        for<'a> &'a S: Read,
    {
        self.receiving(Call::Recv, buf, |n| *n, |buf| self.run_read(buf.len(), || self.get().read(buf)))
    }

    pub(crate) fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize>
    where
        for<'a> &'a S: Read,
    {
        // The system is shown no more than the first so many of them: when these are full, that is no short read.
        let read = |bufs: &mut [IoSliceMut<'_>]| {
            let room = bufs.iter().take(MOST_BUFFERS).map(|b| b.len()).sum();
            self.run_read(room, || self.get().read_vectored(bufs))
        };
        self.receiving(Call::Recv, bufs, |n| *n, read)
    }

    pub(crate) fn write(&self, buf: &[u8]) -> io::Result<usize>
    where
        for<'a> &'a S: Write,
    {
        self.sending(buf, || None, || self.run_send(|| self.get().write(buf)))
    }

    pub(crate) fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>
    where
        for<'a> &'a S: Write,
    {
        self.sending(bufs, || None, || self.run_send(|| self.get().write_vectored(bufs)))
    }

    /// As [`read`](Socket::read), for a future.
    #[cfg(feature = "futures-io")]
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, bufs: &mut [IoSliceMut<'_>]) -> Poll<io::Result<usize>>
    where
        for<'a> &'a S: Read,
    {
        let watched = Call::Recv.is_watched().then(|| self.begin(Call::Recv, Third::Room(bufs.room())));
        let room = bufs.iter().take(MOST_BUFFERS).map(|b| b.len()).sum();
        let op = || match &mut *bufs {
            [one] => self.get().read(one),
            many => self.get().read_vectored(many),
        };
        let result = self.source.poll_io(Direction::Read, cx, op, |n, at| self.has_read(*n, room, at));
        match (watched, &result) {
            (Some(watched), Poll::Ready(result)) => watched.gives_bytes(result.as_ref().map(|n| (bufs.filled(*n), *n))),
            (Some(watched), Poll::Pending) => watched.pending(),
            (None, _) => {}
        }
        result
    }

    /// As [`write`](Socket::write), for a future.
    #[cfg(feature = "futures-io")]
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>>
    where
        for<'a> &'a S: Write,
    {
        let watched = Call::Send.is_watched().then(|| {
            let (first, all) = bufs.bytes();
            self.begin(Call::Send, Third::Bytes(first, all))
        });
        let op = || match bufs {
            [one] => self.get().write(one),
            many => self.get().write_vectored(many),
        };
        let result = self.source.poll_io(Direction::Write, cx, op, |n, at| {
            self.entry.count(Direction::Write, *n, at);
            false
        });
        match (watched, &result) {
            (Some(watched), Poll::Ready(result)) => watched.gives_count(result),
            (Some(watched), Poll::Pending) => watched.pending(),
            (None, _) => {}
        }
        result
    }

    /// As std's `set_read_timeout` and `set_write_timeout`. The kernel is told too, for whoever takes the descriptor.
    pub(super) fn set_limit(&self, d: Direction, limit: Option<Duration>) -> io::Result<()> {
        if limit.is_some_and(|l| l.is_zero()) {
            return Err(zero_limit());
        }
        self.open()?;
        // The kernel counts microseconds, and none of them is no limit.
        let told = limit.map(|l| l.max(Duration::from_micros(1)));
        match d {
            Direction::Read => SockRef::from(self).set_read_timeout(told)?,
            Direction::Write => SockRef::from(self).set_write_timeout(told)?,
        }
        self.source.options().set_limit(d, limit);
        Ok(())
    }

    pub(super) fn limit(&self, d: Direction) -> io::Result<Option<Duration>> {
        self.open()?;
        Ok(self.source.options_if_any().and_then(|o| o.limit(d)))
    }

    /// As std's `set_nonblocking`; the descriptor itself is non-blocking always.
    pub(super) fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.open()?;
        if on || self.source.options_if_any().is_some() {
            self.source.options().set_nonblocking(on);
        }
        Ok(())
    }

    /// Whether the user has set non-blocking mode.
    pub(super) fn nonblocking(&self) -> bool {
        self.source.options_if_any().is_some_and(|o| o.nonblocking())
    }

    pub(super) fn set_deny_simultaneous(&self, on: bool) {
        if on || self.source.options_if_any().is_some() {
            self.source.options().set_deny_simultaneous(on);
        }
    }

    /// Closes the socket under its waiters, who get an error, as does every later call. The descriptor's number stays
    /// taken until the socket is dropped, with something dead behind it.
    pub(super) fn close(&self) -> io::Result<()> {
        if Call::Close.is_watched() && self.source.check_open().is_ok() {
            return closing(self.get().as_raw_fd(), self.peer(), || self.end());
        }
        self.end()
    }

    fn end(&self) -> io::Result<()> {
        self.source.close(|| {
            self.entry.leave(self.get().as_raw_fd());
            // For threads that wait in `poll`, and for clones; a socket that is not connected has nothing to shut down.
            let _ = SockRef::from(self).shutdown(Shutdown::Both);
            sys::socket::bury(self.as_fd())
        })
    }

    /// The std socket, no longer known to any poll, in blocking mode unless the user or a clone needs it otherwise.
    pub(crate) fn into_inner(mut self) -> S {
        self.source.deregister();
        let inner = self.inner.take().expect("a socket holds its descriptor until it is dropped");
        self.entry.leave(inner.as_raw_fd());
        // What stands for a closed socket stands for others too.
        if self.source.check_open().is_err() {
            return inner;
        }
        let mut known = known::lock();
        let weak = self.source.options_if_any().map(Arc::downgrade);
        match (self.source.last_options(true), weak) {
            (Some(options), _) if options.nonblocking() => {}
            // Clones stay here. It may come back while they do.
            (None, Some(options)) => known.insert(&inner, options, self.entry.word()),
            (Some(_) | None, _) => known.unblock(&inner),
        }
        drop(known);
        inner
    }
}

impl<S: AsRawFd + AsFd> Drop for Socket<S> {
    fn drop(&mut self) {
        let Some(inner) = &self.inner else { return };
        if Call::Close.is_watched() && self.source.check_open().is_ok() {
            return closing(inner.as_raw_fd(), self.peer(), || {
                self.release();
                drop(self.inner.take());
            });
        }
        self.release();
    }
}

impl<S: AsRawFd + AsFd> Socket<S> {
    /// Before the descriptor is closed.
    fn release(&mut self) {
        let Some(inner) = &self.inner else { return };
        self.entry.leave(inner.as_raw_fd());
        // First out of every poll, then closed: a number that the kernel reuses must not meet an old registration.
        self.source.deregister();
        if let Some(options) = self.source.last_options(false)
            && options.given_away()
            && !options.nonblocking()
            && self.source.check_open().is_ok()
        {
            known::lock().unblock(inner);
        }
    }
}

impl<S: AsRawFd + AsFd> AsFd for Socket<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get().as_fd()
    }
}

/// As std says it.
#[cold]
pub(super) fn zero_limit() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "cannot set a 0 duration timeout")
}

/// Implements what std's stream types implement, by way of `self.socket`.
macro_rules! stream_traits {
    ($stream:ty) => {
        impl std::io::Read for &$stream {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.socket.read(buf)
            }
            fn read_vectored(&mut self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                self.socket.read_vectored(bufs)
            }
        }
        impl std::io::Read for $stream {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.socket.read(buf)
            }
            fn read_vectored(&mut self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                self.socket.read_vectored(bufs)
            }
        }
        impl std::io::Write for &$stream {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.socket.write(buf)
            }
            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.socket.write_vectored(bufs)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        impl std::io::Write for $stream {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.socket.write(buf)
            }
            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.socket.write_vectored(bufs)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    };
}

/// Implements what std's types have in common, by way of `self.socket`: access to the descriptor, conversions from and
/// to it and std's type, `Debug` with the words of std's type; and what ours have beyond that. `$kind` is what the table of
/// sockets calls it. `FromRawFd` stands in `raw.rs`, because it is unsafe.
macro_rules! descriptor_traits {
    ($socket:ident, $std:ty, $kind:ident) => {
        impl $socket {
            /// Closes the socket while other tasks and threads, of any worker, may be waiting on it: each of them gets
            /// an error of kind `NotConnected` that says so, and so does every later call. Closing twice is allowed.
            ///
            /// The connection or port is gone at once, for clones as well (their tasks see its end, or that error on UDP);
            /// only the descriptor's *number* stays taken until the value is dropped, and the port of a UDP socket until
            /// its last clone is.
            ///
            /// # Errors
            /// If the system refuses the one descriptor that all closed sockets of the process share. The connection
            /// is shut down and waiters are woken nevertheless; the rest is freed when the value is dropped.
            pub fn close(&self) -> std::io::Result<()> {
                self.socket.close()
            }

            /// Refuses a second waiter: while a task or thread waits in one direction of this socket, on whatever
            /// worker, another that would have to wait in the same direction gets an error of kind `ResourceBusy` with
            /// a [`SimultaneousError`](crate::SimultaneousError), which names both. Clones have this in common.
            ///
            /// Off at the start: several waiters queue, first in, first out. Holds for waits that begin from now on.
            pub fn set_deny_simultaneous(&self, deny: bool) {
                self.socket.set_deny_simultaneous(deny);
            }
        }
        impl $crate::net::Polled for $socket {
            fn parts(&self) -> $crate::net::PolledParts<'_> {
                $crate::net::PolledParts::new(self.socket.source(), $crate::net::table::Kind::$kind)
            }
        }
        impl std::fmt::Debug for $socket {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.socket.get().fmt(f)
            }
        }
        impl std::os::fd::AsRawFd for $socket {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsRawFd::as_raw_fd(self.socket.get())
            }
        }
        impl std::os::fd::AsFd for $socket {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                std::os::fd::AsFd::as_fd(self.socket.get())
            }
        }
        impl From<$std> for $socket {
            /// Takes over std's socket: calls park the task, or return `WouldBlock` if it was in non-blocking mode.
            /// Time limits set on it stay in force.
            ///
            /// That mode belongs to the socket, not to the descriptor, and whatever `coro` holds has it underneath: std's
            /// clones that stay behind get it. Of a socket that is here already by way of another of std's clones, this is
            /// a clone. A descriptor that was duplicated from one of `coro`'s own by other means than `try_clone`, or comes
            /// from another process that uses `coro`, looks as if its user had set that mode: call
            /// `set_nonblocking(false)`.
            #[track_caller]
            fn from(s: $std) -> $socket {
                let (kind, site) = ($crate::net::table::Kind::$kind, std::panic::Location::caller());
                $socket { socket: $crate::net::socket::Socket::adopt(s, kind, site) }
            }
        }
        impl From<$socket> for $std {
            /// Gives the socket to std's type, in blocking mode unless non-blocking mode was set. While clones of it are
            /// left in `coro`, calls on it may give `WouldBlock`; that ends with the last of them.
            fn from(s: $socket) -> $std {
                s.socket.into_inner()
            }
        }
        impl From<std::os::fd::OwnedFd> for $socket {
            /// As from std's type.
            #[track_caller]
            fn from(fd: std::os::fd::OwnedFd) -> $socket {
                <$std>::from(fd).into()
            }
        }
        impl From<$socket> for std::os::fd::OwnedFd {
            /// As to std's type.
            fn from(s: $socket) -> std::os::fd::OwnedFd {
                s.socket.into_inner().into()
            }
        }
        impl std::os::fd::IntoRawFd for $socket {
            /// As to std's type.
            fn into_raw_fd(self) -> std::os::fd::RawFd {
                std::os::fd::IntoRawFd::into_raw_fd(self.socket.into_inner())
            }
        }
    };
}

pub(super) use {descriptor_traits, stream_traits};
