//! This process's ends of the pipes to a child.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::panic::Location;

use socket2::SockRef;

use crate::io::pipe::{descriptor, reads, writes};
use crate::net::endpoint::Endpoint;
use crate::net::socket::Socket;
use crate::net::table::{Kind, Opened};

/// Where a child reads from, to write to; as [`std::process::ChildStdin`]. Dropped, it is closed, and the child reads the end.
///
/// # Cancellation
/// Writes are I/O calls: an interrupt of the task is returned once as an error, then it unwinds.
pub struct ChildStdin {
    end: Socket<io::PipeWriter>,
}

/// What a child writes, to read from; as [`std::process::ChildStdout`].
///
/// # Cancellation
/// Reads are I/O calls: an interrupt of the task is returned once as an error, then it unwinds. No bytes are lost.
pub struct ChildStdout {
    end: Socket<io::PipeReader>,
}

/// What a child writes as errors, to read from; as [`std::process::ChildStderr`].
///
/// # Cancellation
/// As of [`ChildStdout`].
pub struct ChildStderr {
    end: Socket<io::PipeReader>,
}

writes!(ChildStdin, &ChildStdin);
reads!(ChildStdout, ChildStderr);
descriptor!(ChildStdin, io::PipeWriter, ChildStdin);
descriptor!(ChildStdout, io::PipeReader, ChildStdout);
descriptor!(ChildStderr, io::PipeReader, ChildStderr);

macro_rules! of_child {
    ($($end:ident, $inner:ty;)*) => {$(
        impl $end {
            /// Of the child with that number, started at that place.
            pub(super) fn of(
                pipe: std::process::$end,
                pid: u32,
                site: &'static Location<'static>,
            ) -> io::Result<$end> {
                let pipe = <$inner>::from(OwnedFd::from(pipe));
                SockRef::from(&pipe).set_nonblocking(true)?;
                let what = Opened { peer: Endpoint::Unnamed(Some(pid)), ..Opened::new(Kind::$end, site) };
                Ok($end { end: Socket::new(pipe, &what) })
            }
        }
        impl From<std::process::$end> for $end {
            /// As from an `OwnedFd`.
            #[track_caller]
            fn from(pipe: std::process::$end) -> $end {
                OwnedFd::from(pipe).into()
            }
        }
    )*};
}

of_child! {
    ChildStdin, io::PipeWriter;
    ChildStdout, io::PipeReader;
    ChildStderr, io::PipeReader;
}
