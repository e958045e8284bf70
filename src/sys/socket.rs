//! The calls on sockets that neither std nor socket2 offers in the form that is needed.
//!
//! Invariants: descriptors come in as borrows or are the caller's own; whatever is made is close-on-exec.
//!
//! Must not know: who waits for what.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// Accepts a connection that is non-blocking and close-on-exec from the start.
pub(crate) fn accept(listener: RawFd) -> io::Result<(OwnedFd, socket2::SockAddr)> {
    // SAFETY: the storage is large enough for every address and its length is passed along; the descriptor is fresh.
    unsafe {
        let (fd, addr) = socket2::SockAddr::try_init(|storage, len| {
            #[cfg(any(target_os = "linux", target_os = "freebsd"))]
            let fd = libc::accept4(listener, storage.cast(), len, libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
            #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
            let fd = {
                let fd = libc::accept(listener, storage.cast(), len);
                if fd >= 0 {
                    libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
                    libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK);
                }
                fd
            };
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
        })?;
        Ok((OwnedFd::from_raw_fd(fd), addr))
    }
}

/// Whether a descriptor is in non-blocking mode.
pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the descriptor is open; the call takes no pointer.
    match unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags & libc::O_NONBLOCK != 0),
    }
}

/// The kernel's number of a socket: the same for all its descriptors, in every process, and never given again.
pub(crate) fn number(fd: BorrowedFd<'_>) -> Option<u64> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mut number = 0u64;
        let mut length = size_of_val(&number) as libc::socklen_t;
        // SAFETY: both pointers are to locals that outlive the call, and `length` is the size of `number`.
        let outcome = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut number).cast(),
                &raw mut length,
            )
        };
        (outcome == 0).then_some(number)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = fd;
        None
    }
}

/// How many connections wait to be accepted, and how many may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backlog {
    pub(crate) waiting: u32,
    pub(crate) most: u32,
}

/// The bytes of the kernel's `tcp_info` that are of interest: the state in the first, and two numbers that are counts of
/// packets on a connection, and of connections on a listener.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn tcp_info(fd: RawFd) -> Option<[u8; 32]> {
    let mut info = [0u8; 32];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: both pointers are to locals that outlive the call, and `length` is the size of `info`; a descriptor that is
    // none, or no TCP socket, gives an error.
    let outcome =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    (outcome == 0 && length as usize == info.len()).then_some(info)
}

/// The state of a TCP socket, as the kernel numbers them (1 is established); `None` where it cannot be asked.
pub(crate) fn tcp_state(fd: RawFd) -> Option<u8> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    return tcp_info(fd).map(|info| info[0]);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = fd;
        None
    }
}

/// The queue of a TCP listener; `None` where it cannot be asked.
pub(crate) fn backlog(fd: RawFd) -> Option<Backlog> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        const LISTEN: u8 = 10;
        // `struct tcp_info` of linux/tcp.h: eight bytes, then 32-bit words; `tcpi_unacked` and `tcpi_sacked` are the fifth
        // and sixth of these.
        let info = tcp_info(fd).filter(|info| info[0] == LISTEN)?;
        let word = |i: usize| u32::from_ne_bytes([info[i], info[i + 1], info[i + 2], info[i + 3]]);
        Some(Backlog { waiting: word(24), most: word(28) })
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = fd;
        None
    }
}

/// One socket for all that are buried: connected to nothing and shut down, so that whatever is tried on it fails.
static GRAVE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Puts a dead socket in the place of `fd`, in one step: whatever it stood for is closed, and the number stays taken.
///
/// # Errors
/// If there is no descriptor left for the dead socket, at its first use.
pub(crate) fn bury(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut grave = GRAVE.lock().unwrap_or_else(PoisonError::into_inner);
    if grave.is_none() {
        let s = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        s.set_nonblocking(true)?;
        // Says that it is not connected, and shuts it down all the same.
        let _ = s.shutdown(std::net::Shutdown::Both);
        *grave = Some(s.into());
    }
    let Some(dead) = grave.as_ref().map(AsRawFd::as_raw_fd) else { return Ok(()) };
    loop {
        #[cfg(any(target_os = "linux", target_os = "freebsd"))]
        // SAFETY: both numbers are open and differ; `fd`'s owner goes on owning the number.
        let done = unsafe { libc::dup3(dead, fd.as_raw_fd(), libc::O_CLOEXEC) };
        #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
        // SAFETY: as above. A child that another thread forks in between inherits a dead socket.
        let done = unsafe {
            let done = libc::dup2(dead, fd.as_raw_fd());
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC);
            done
        };
        if done >= 0 {
            return Ok(());
        }
        let e = io::Error::last_os_error();
        // EBUSY: some thread is just opening a descriptor with that number, as the kernel sees it.
        if e.kind() != io::ErrorKind::Interrupted && e.raw_os_error() != Some(libc::EBUSY) {
            return Err(e);
        }
    }
}
