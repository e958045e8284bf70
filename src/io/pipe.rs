//! Pipes: an end of ours is non-blocking and waits like a socket.
//!
//! Invariants: the descriptor is in non-blocking mode for as long as it is here, and in blocking mode again when it leaves
//! (to std's type, to a child process), unless clones of it stay. The ends of a child's pipes (`process`) are made of the same
//! macros.

#![forbid(unsafe_code)]

use std::io;
use std::panic::Location;

use socket2::SockRef;

use crate::net::socket::Socket;
use crate::net::table::{Kind, Opened};

/// Implements reading, by way of `self.end`.
macro_rules! reads {
    ($($to:ty),*) => {$(
        impl std::io::Read for $to {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.end.read(buf)
            }
            fn read_vectored(&mut self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                self.end.read_vectored(bufs)
            }
        }
    )*};
}

/// Implements writing, by way of `self.end`.
macro_rules! writes {
    ($($to:ty),*) => {$(
        impl std::io::Write for $to {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                self.end.write(buf)
            }
            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                self.end.write_vectored(bufs)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    )*};
}

/// What the end of a pipe has in common with std's: access to the descriptor and conversions.
macro_rules! descriptor {
    ($end:ident, $inner:ty, $kind:ident) => {
        impl std::fmt::Debug for $end {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let fd = std::os::fd::AsRawFd::as_raw_fd(self.end.get());
                f.debug_struct(stringify!($end)).field("fd", &fd).finish()
            }
        }
        impl std::os::fd::AsRawFd for $end {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsRawFd::as_raw_fd(self.end.get())
            }
        }
        impl std::os::fd::AsFd for $end {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                std::os::fd::AsFd::as_fd(self.end.get())
            }
        }
        impl std::os::fd::IntoRawFd for $end {
            /// As to an `OwnedFd`.
            fn into_raw_fd(self) -> std::os::fd::RawFd {
                std::os::fd::IntoRawFd::into_raw_fd(self.end.into_inner())
            }
        }
        impl From<std::os::fd::OwnedFd> for $end {
            /// Takes the end of a pipe over and puts it into non-blocking mode, which whoever has a duplicate of the
            /// descriptor, in this process or another, sees as well.
            #[track_caller]
            fn from(fd: std::os::fd::OwnedFd) -> $end {
                let what = (<$inner>::from(fd), $crate::net::table::Kind::$kind, std::panic::Location::caller());
                $end { end: $crate::net::socket::Socket::adopt(what.0, what.1, what.2) }
            }
        }
        impl From<$end> for std::os::fd::OwnedFd {
            /// Gives the descriptor away, in blocking mode unless clones of the end stay here.
            fn from(end: $end) -> std::os::fd::OwnedFd {
                end.end.into_inner().into()
            }
        }
        impl From<$end> for std::process::Stdio {
            /// For a child process, in blocking mode unless clones of the end stay here.
            fn from(end: $end) -> std::process::Stdio {
                std::os::fd::OwnedFd::from(end).into()
            }
        }
    };
}

pub(crate) use {descriptor, reads, writes};

/// An anonymous pipe; as [`std::io::pipe`], but its ends park the task.
///
/// What is written can be read once, by one reader. It is in the kernel, and goes across to child processes
/// ([`Stdio::from`](crate::process::Stdio)); between tasks a channel is cheaper. The reader comes to the end when the last
/// [`PipeWriter`] is dropped, those that children have counted: drop the [`Command`](crate::process::Command) that was given one.
///
/// # Errors
/// If there is no descriptor left.
///
/// # Cancellation
/// Reads and writes are I/O calls: an interrupt of the task is returned once as an error, then it unwinds. Nothing is lost: a
/// call that ends in an error has moved no bytes.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
///
/// # fn main() -> std::io::Result<()> {
/// coro::run(|| {
///     let (mut reader, mut writer) = coro::io::pipe()?;
///     let reads = coro::spawn(move || {
///         let mut all = String::new();
///         reader.read_to_string(&mut all).map(|_| all) // parks until the writer is gone
///     });
///     writer.write_all(b"through the kernel")?;
///     drop(writer);
///     assert_eq!(reads.join().unwrap()?, "through the kernel");
///     Ok(())
/// })
/// # }
/// ```
#[track_caller]
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    SockRef::from(&reader).set_nonblocking(true)?;
    SockRef::from(&writer).set_nonblocking(true)?;
    let site = Location::caller();
    let reader = PipeReader { end: Socket::new(reader, &Opened::new(Kind::PipeReader, site)) };
    Ok((reader, PipeWriter { end: Socket::new(writer, &Opened::new(Kind::PipeWriter, site)) }))
}

/// The end of a [`pipe`] to read from; as [`std::io::PipeReader`].
pub struct PipeReader {
    pub(super) end: Socket<io::PipeReader>,
}

/// The end of a [`pipe`] to write to; as [`std::io::PipeWriter`].
///
/// Once nobody has the other end, writes give an error of kind `BrokenPipe`.
pub struct PipeWriter {
    pub(super) end: Socket<io::PipeWriter>,
}

reads!(PipeReader, &PipeReader);
writes!(PipeWriter, &PipeWriter);
descriptor!(PipeReader, io::PipeReader, PipeReader);
descriptor!(PipeWriter, io::PipeWriter, PipeWriter);

impl PipeReader {
    /// Another handle of the same end; what one of them reads, the other does not.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<PipeReader> {
        Ok(PipeReader { end: self.end.try_clone(io::PipeReader::try_clone)? })
    }
}

impl PipeWriter {
    /// Another handle of the same end. The reader comes to the end when all are gone.
    ///
    /// If one goes to a child process while another stays, the child sees the pipe in non-blocking mode, and a write that
    /// finds it full fails there. Give all of them away, or make a pipe for each.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<PipeWriter> {
        Ok(PipeWriter { end: self.end.try_clone(io::PipeWriter::try_clone)? })
    }
}

impl From<io::PipeReader> for PipeReader {
    /// As from an `OwnedFd`.
    #[track_caller]
    fn from(reader: io::PipeReader) -> PipeReader {
        PipeReader { end: Socket::adopt(reader, Kind::PipeReader, Location::caller()) }
    }
}

impl From<io::PipeWriter> for PipeWriter {
    /// As from an `OwnedFd`.
    #[track_caller]
    fn from(writer: io::PipeWriter) -> PipeWriter {
        PipeWriter { end: Socket::adopt(writer, Kind::PipeWriter, Location::caller()) }
    }
}

impl From<PipeReader> for io::PipeReader {
    /// In blocking mode, unless clones of the end stay here.
    fn from(reader: PipeReader) -> io::PipeReader {
        reader.end.into_inner()
    }
}

impl From<PipeWriter> for io::PipeWriter {
    /// In blocking mode, unless clones of the end stay here.
    fn from(writer: PipeWriter) -> io::PipeWriter {
        writer.end.into_inner()
    }
}
