//! The few calls on unix sockets and their surroundings that std does not offer: who the peer is, `poll(2)`, a send
//! that raises no signal, a lock on a directory, a function to run at exit.
//!
//! Invariants: every descriptor comes in as a borrow, so none can be closed while a call uses it; nothing here changes
//! process-wide state (no umask, no signal disposition) except [`at_exit`], which says so.
//!
//! Must not know: sessions, commands, or which paths are sockets of ours.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// The longest path, in bytes, that fits a unix socket's address here: 107 on Linux, 103 on macOS and the BSDs. One byte
/// of `sun_path` is kept for the NUL that other programs expect.
pub(crate) const MAX_PATH: usize = {
    // SAFETY: `sockaddr_un` is plain old data, for which all zeros is a valid value.
    let address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_path.len() - 1
};

/// The effective user id of this process.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: takes no argument and cannot fail.
    unsafe { libc::geteuid() }
}

/// What the kernel recorded about the other end of a stream when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerCredentials {
    pub(crate) uid: libc::uid_t,
    pub(crate) gid: libc::gid_t,
    pub(crate) pid: Option<libc::pid_t>,
}

/// Reads an option of a socket; `T` is the C type that the kernel fills, all of it.
///
/// # Safety
/// Every byte pattern is a valid `T`.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
unsafe fn option<T>(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` and `length` outlive the call, and `length` is the size of `value`.
    let outcome =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of::<T>() {
        return Err(io::Error::other("the kernel gave an option of another size than documented"));
    }
    // SAFETY: zeroed, then filled; the caller vouches for the type.
    Ok(unsafe { value.assume_init() })
}

/// The effective ids that the other end of `stream` had when it connected, and its process where the system tells it.
pub(crate) fn peer_credentials(stream: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // SAFETY: three integers.
        let peer: libc::ucred = unsafe { option(stream, libc::SOL_SOCKET, libc::SO_PEERCRED) }?;
        Ok(PeerCredentials { uid: peer.uid, gid: peer.gid, pid: Some(peer.pid) })
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let (mut uid, mut gid) = (libc::uid_t::MAX, libc::gid_t::MAX);
        // SAFETY: both pointers are to locals that outlive the call.
        let outcome = unsafe { libc::getpeereid(stream.as_raw_fd(), &raw mut uid, &raw mut gid) };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
        #[cfg(target_vendor = "apple")]
        // SAFETY: an integer.
        let pid = Some(unsafe { option(stream, libc::SOL_LOCAL, libc::LOCAL_PEERPID) }?);
        #[cfg(not(target_vendor = "apple"))]
        let pid = None;
        Ok(PeerCredentials { uid, gid, pid })
    }
}

/// Where [`send`] has no flag against `SIGPIPE`, the socket gets an option instead. Call once for each new stream.
pub(crate) fn without_sigpipe(stream: &impl AsFd) -> io::Result<()> {
    #[cfg(target_vendor = "apple")]
    {
        let on: libc::c_int = 1;
        // SAFETY: `on` outlives the call, and the length given is its size.
        let outcome = unsafe {
            libc::setsockopt(
                stream.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NOSIGPIPE,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let _ = stream;
    Ok(())
}

/// Sends what fits. Unlike `write`, it never raises `SIGPIPE`: a program may have restored the default action, and a
/// client that goes away must not kill it.
pub(crate) fn send(stream: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(target_vendor = "apple")]
    const FLAGS: libc::c_int = 0;
    #[cfg(not(target_vendor = "apple"))]
    const FLAGS: libc::c_int = libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and length are those of a slice that outlives the call.
    let sent = unsafe { libc::send(stream.as_fd().as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), FLAGS) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// One descriptor for [`poll`], with what is awaited and, afterwards, what was seen.
#[repr(transparent)]
pub(crate) struct Watch<'fd> {
    entry: libc::pollfd,
    // The borrow keeps the descriptor open for as long as it may be polled.
    descriptor: PhantomData<BorrowedFd<'fd>>,
}

impl<'fd> Watch<'fd> {
    pub(crate) fn new(descriptor: &'fd impl AsFd, read: bool, write: bool) -> Self {
        let events = if read { libc::POLLIN } else { 0 } | if write { libc::POLLOUT } else { 0 };
        let fd = descriptor.as_fd().as_raw_fd();
        Self { entry: libc::pollfd { fd, events, revents: 0 }, descriptor: PhantomData }
    }

    /// Whether the descriptor showed anything: data, room, its end or an error. The next read or write says which.
    pub(crate) fn stirred(&self) -> bool {
        self.entry.revents != 0
    }
}

/// Waits until one of `watches` stirs or `timeout` (`None`: for ever) has passed, rounded up to milliseconds. A signal ends
/// the wait early and counts as "nothing stirred".
pub(crate) fn poll(watches: &mut [Watch<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let milliseconds = match timeout {
        None => -1,
        Some(limit) => libc::c_int::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX),
    };
    // SAFETY: `Watch` is transparent over `pollfd`, the slice outlives the call, and each entry's descriptor is borrowed
    // for the slice's lifetime.
    let outcome = unsafe { libc::poll(watches.as_mut_ptr().cast(), watches.len() as libc::nfds_t, milliseconds) };
    if outcome < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        watches.iter_mut().for_each(|watch| watch.entry.revents = 0);
    }
    Ok(())
}

/// Whether an exclusive `flock` was got on `file` (a directory will do) without waiting.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(false),
        _ => Err(error),
    }
}

/// Gives the lock back. Closing would not do: a child forked in between keeps the description, and with it the lock.
pub(crate) fn unlock(file: &File) {
    // SAFETY: the descriptor is open for as long as `file` is borrowed.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
}

/// Runs `function` when the process exits by `exit(3)` or by returning from `main`. It must neither panic nor block.
pub(crate) fn at_exit(function: extern "C" fn()) -> io::Result<()> {
    // SAFETY: `function` is a plain function without state, valid for as long as this code is loaded; the C library
    // calls it early if this code is unloaded.
    match unsafe { libc::atexit(function) } {
        0 => Ok(()),
        _ => Err(io::Error::other("atexit has no room for another function")),
    }
}

/// Writes `text` to standard error if that takes no waiting, else drops it. Not through [`io::stderr`]: a task that is
/// parked while it holds that lock would hold up the caller too.
pub(crate) fn write_stderr_if_ready(text: &str) {
    // PIPE_BUF is at least 512 everywhere: a pipe that is ready takes that much at once.
    let bytes = &text.as_bytes()[..text.len().min(512)];
    let mut entry = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: `entry` is a local, and `bytes` a slice, that outlive the calls. Descriptor 2 may be closed, which poll
    // reports in `revents`.
    unsafe {
        if libc::poll(&raw mut entry, 1, 0) == 1 && entry.revents & libc::POLLOUT != 0 {
            libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len());
        }
    }
}

/// Calls for tests at process level; here because only this layer may be unsafe.
#[cfg(test)]
pub(crate) mod testing {
    /// Forks a child that does `work` and leaves through `exit(3)`, so with its exit functions run; waits for its end.
    pub(crate) fn fork_child_that_exits(work: impl FnOnce()) {
        // SAFETY: the caller is a process made for this test, whose other threads are idle at this moment, so that they
        // hold no lock which `work` could need.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
            if child == 0 {
                work();
                libc::exit(0);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            assert!(libc::WIFEXITED(status), "the child ended with status {status}");
        }
    }
}
