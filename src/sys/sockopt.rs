//! Socket options that neither std nor socket2 has, for descriptors that are borrowed.
//!
//! Must not know: what the options mean.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An option that is an integer.
pub(crate) fn get(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: both pointers are to locals that outlive the call, and `length` is the size of `value`.
    let outcome =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    if outcome == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Sets an option that is an integer.
pub(crate) fn set(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointer is to a local that outlives the call, and `length` is its size.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
