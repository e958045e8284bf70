//! What all stream sockets share: a std socket in non-blocking mode and its readiness.
//!
//! **The short-read rule.** After a read that gave less than there was room for, readiness is taken back without asking
//! the kernel again, but only on TCP and only if no end or error was ever seen on the descriptor. Everything else reads
//! until "would block": on unix sockets a short read can end at a message with descriptors, and data and end of stream
//! that arrive together give one edge only.

#![forbid(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::observe::WaitKind;
use crate::reactor::Direction;
use crate::scheduler::io::Source;

/// A std socket `S` and its readiness.
#[derive(Debug)]
pub(super) struct Socket<S: AsRawFd> {
    /// `None` only while it is being dropped.
    inner: Option<S>,
    source: Source,
    drained_by_short_read: bool,
}

impl<S: AsRawFd> Socket<S> {
    /// `inner` must be non-blocking already.
    pub(super) fn new(inner: S, drained_by_short_read: bool) -> Socket<S> {
        let source = Source::new(inner.as_raw_fd());
        Socket { inner: Some(inner), source, drained_by_short_read }
    }

    pub(super) fn get(&self) -> &S {
        self.inner.as_ref().expect("a socket holds its descriptor until it is dropped")
    }

    pub(super) fn run<T>(&self, d: Direction, kind: WaitKind, op: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.source.run(d, kind, op)
    }

    pub(super) fn keep_ready(&self, d: Direction) {
        self.source.keep_ready(d);
    }

    fn run_read(&self, room: usize, op: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        let short = |n: &usize| self.drained_by_short_read && *n > 0 && *n < room;
        self.source.run_draining(Direction::Read, WaitKind::Read, op, short)
    }

    pub(super) fn read(&self, buf: &mut [u8]) -> io::Result<usize>
    where
        for<'a> &'a S: Read,
    {
        self.run_read(buf.len(), || self.get().read(buf))
    }

    pub(super) fn read_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize>
    where
        for<'a> &'a S: Read,
    {
        let room = bufs.iter().map(|b| b.len()).sum();
        self.run_read(room, || self.get().read_vectored(bufs))
    }

    pub(super) fn write(&self, buf: &[u8]) -> io::Result<usize>
    where
        for<'a> &'a S: Write,
    {
        self.source.run(Direction::Write, WaitKind::Write, || self.get().write(buf))
    }

    pub(super) fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>
    where
        for<'a> &'a S: Write,
    {
        self.source.run(Direction::Write, WaitKind::Write, || self.get().write_vectored(bufs))
    }

    /// The std socket, still non-blocking, no longer known to any poll.
    pub(super) fn into_inner(mut self) -> S {
        self.source.deregister();
        self.inner.take().expect("a socket holds its descriptor until it is dropped")
    }
}

impl<S: AsRawFd> Drop for Socket<S> {
    fn drop(&mut self) {
        // First out of every poll, then closed: a number that the kernel reuses must not meet an old registration.
        if self.inner.is_some() {
            self.source.deregister();
        }
    }
}

impl<S: AsRawFd + AsFd> AsFd for Socket<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get().as_fd()
    }
}

/// Implements what std's stream types implement, by way of `self.socket`.
macro_rules! stream_traits {
    ($stream:ty, $std:ty) => {
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
        impl From<$stream> for std::os::fd::OwnedFd {
            /// The descriptor stays non-blocking.
            fn from(s: $stream) -> std::os::fd::OwnedFd {
                s.socket.into_inner().into()
            }
        }
    };
}

/// Implements access to the descriptor, by way of `self.socket`.
macro_rules! descriptor_traits {
    ($socket:ty) => {
        impl std::os::fd::AsRawFd for $socket {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                self.socket.get().as_raw_fd()
            }
        }
        impl std::os::fd::AsFd for $socket {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.socket.get().as_fd()
            }
        }
    };
}

pub(super) use {descriptor_traits, stream_traits};

/// A std socket made from a descriptor that is already non-blocking.
pub(super) fn adopt<S: From<OwnedFd> + AsRawFd>(fd: OwnedFd, drained_by_short_read: bool) -> Socket<S> {
    Socket::new(S::from(fd), drained_by_short_read)
}
