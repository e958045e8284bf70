//! Options of sockets that only Linux has, as extension traits of our types.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;

use crate::net::TcpStream;
use crate::net::unix::{UnixDatagram, UnixStream};
use crate::sys::sockopt;

mod sealed {
    /// The traits are for the sockets of this crate only, so that methods can be added.
    pub trait Sealed {}
    impl Sealed for super::TcpStream {}
    impl Sealed for super::UnixDatagram {}
    impl Sealed for super::UnixStream {}
}

/// Options of TCP; as std's trait of this name.
///
/// # Examples
/// ```no_run
/// use coro::net::TcpStream;
/// use coro::os::linux::net::TcpStreamExt;
///
/// let stream = TcpStream::connect("127.0.0.1:8080").unwrap();
/// stream.set_quickack(true).unwrap();
/// assert!(stream.quickack().unwrap());
/// ```
pub trait TcpStreamExt: sealed::Sealed {
    /// Sends acknowledgements at once instead of together with data. The kernel takes this as advice for the present,
    /// not for good.
    ///
    /// # Errors
    /// Of the system.
    fn set_quickack(&self, quickack: bool) -> io::Result<()>;

    /// Whether acknowledgements are sent at once.
    ///
    /// # Errors
    /// Of the system.
    fn quickack(&self) -> io::Result<bool>;

    /// For how long the kernel holds a connection back until data comes; whole seconds, which it rounds. Unstable in
    /// std.
    ///
    /// # Errors
    /// Of the system.
    fn set_deferaccept(&self, accept: Duration) -> io::Result<()>;

    /// For how long the kernel holds a connection back until data comes. Unstable in std.
    ///
    /// # Errors
    /// Of the system.
    fn deferaccept(&self) -> io::Result<Duration>;
}

impl TcpStreamExt for TcpStream {
    fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        SockRef::from(self).set_tcp_quickack(quickack)
    }

    fn quickack(&self) -> io::Result<bool> {
        SockRef::from(self).tcp_quickack()
    }

    fn set_deferaccept(&self, accept: Duration) -> io::Result<()> {
        let seconds = libc::c_int::try_from(accept.as_secs()).unwrap_or(libc::c_int::MAX);
        sockopt::set(self.as_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
    }

    fn deferaccept(&self) -> io::Result<Duration> {
        let seconds = sockopt::get(self.as_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT)?;
        Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

/// Options of unix sockets; as std's trait of this name, which is unstable there.
pub trait UnixSocketExt: sealed::Sealed {
    /// Whether messages bring the sender's credentials with them.
    ///
    /// # Errors
    /// Of the system.
    fn passcred(&self) -> io::Result<bool>;

    /// Lets messages bring the sender's credentials with them, as control messages.
    ///
    /// # Errors
    /// Of the system.
    fn set_passcred(&self, passcred: bool) -> io::Result<()>;
}

macro_rules! unix_socket_ext {
    ($($socket:ty),*) => {
        $(impl UnixSocketExt for $socket {
            fn passcred(&self) -> io::Result<bool> {
                SockRef::from(self).passcred()
            }

            fn set_passcred(&self, passcred: bool) -> io::Result<()> {
                SockRef::from(self).set_passcred(passcred)
            }
        })*
    };
}

unix_socket_ext!(UnixDatagram, UnixStream);
