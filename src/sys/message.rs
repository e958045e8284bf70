//! `sendmsg(2)` and `recvmsg(2)`: bytes with an address, with descriptors, with credentials, or only looked at.
//!
//! Invariants: every descriptor comes in as a borrow; a descriptor that was received is owned from the moment at which
//! the call returns, close-on-exec, and is closed if nobody takes it (but see [`receive`]). Control messages are read
//! and written byte by byte, because a caller's buffer may lie anywhere.
//!
//! Must not know: waiting. Every call is made once, on a descriptor that the caller may have made non-blocking.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use socket2::SockAddr;

/// No kernel we know takes more descriptors in one message.
pub(crate) const MOST_DESCRIPTORS: usize = 253;

/// Room for [`MOST_DESCRIPTORS`] in one control message, with its head, and to spare.
const CONTROL_ROOM: usize = MOST_DESCRIPTORS * size_of::<libc::c_int>() + 64;

/// Otherwise a peer that has gone would raise `SIGPIPE`.
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: libc::c_int = 0;
#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: libc::c_int = libc::MSG_NOSIGNAL;

#[cfg(target_vendor = "apple")]
const RECEIVE_FLAGS: libc::c_int = 0;
#[cfg(not(target_vendor = "apple"))]
const RECEIVE_FLAGS: libc::c_int = libc::MSG_CMSG_CLOEXEC;

/// What one call received.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: usize,
    /// How much of the control buffer was filled.
    pub(crate) control: usize,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    /// The message was longer than the buffers; the rest is lost.
    pub(crate) truncated: bool,
    /// Control messages are lost, descriptors among them closed: the buffer was too small, or this process may have no
    /// more descriptors.
    pub(crate) control_truncated: bool,
    pub(crate) from: SockAddr,
}

impl Received {
    /// Nothing, from nobody.
    pub(crate) fn nothing() -> io::Result<Received> {
        Ok(Received {
            bytes: 0,
            control: 0,
            #[cfg(any(target_os = "linux", target_os = "android"))]
            truncated: false,
            control_truncated: false,
            from: SockAddr::unix("")?,
        })
    }
}

/// Whether a message stays in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    Keep,
    Remove,
}

/// Receives one message, or some bytes of a stream. Descriptors in `control` belong to whoever reads it.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    control: &mut [u8],
    take: Take,
) -> io::Result<Received> {
    let flags = RECEIVE_FLAGS | if take == Take::Keep { libc::MSG_PEEK } else { 0 };
    // SAFETY: a `msghdr` of zeros is valid; its pointers are to buffers that outlive the call, with their sizes;
    // `IoSliceMut` is an `iovec`. The storage is large enough for every address, and the kernel says how much it filled.
    unsafe {
        let mut filled = (0, 0, 0);
        let ((), from) = SockAddr::try_init(|storage, length| {
            let mut message: libc::msghdr = zeroed();
            message.msg_name = storage.cast();
            message.msg_namelen = *length;
            message.msg_iov = bufs.as_mut_ptr().cast();
            message.msg_iovlen = bufs.len() as _;
            if !control.is_empty() {
                message.msg_control = control.as_mut_ptr().cast();
                message.msg_controllen = control.len() as _;
            }
            let n = libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags);
            let bytes = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
            filled = (bytes, message.msg_controllen as usize, message.msg_flags);
            *length = message.msg_namelen;
            Ok(())
        })?;
        let (bytes, control_length, flags) = filled;
        #[cfg(target_vendor = "apple")]
        for fd in descriptors(&control[..control_length]) {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        Ok(Received {
            bytes,
            control: control_length,
            #[cfg(any(target_os = "linux", target_os = "android"))]
            truncated: flags & libc::MSG_TRUNC != 0,
            control_truncated: flags & libc::MSG_CTRUNC != 0,
            from,
        })
    }
}

/// Whether the reading direction of a socket was shut down. Linux says so to a blocking receive on a datagram socket (it
/// returns 0), but to a non-blocking one only that nothing is there; other systems tell both.
pub(crate) fn reading_is_ended(socket: BorrowedFd<'_>) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
        // SAFETY: one entry, which outlives the call; with no time to wait it only looks.
        let n = unsafe { libc::poll(&raw mut entry, 1, 0) };
        n == 1 && entry.revents & libc::POLLRDHUP != 0
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = socket;
        false
    }
}

/// Sends one message, or what fits into a stream; without an address to the peer that the socket is connected to.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    to: Option<&SockAddr>,
    bufs: &[IoSlice<'_>],
    control: &[u8],
) -> io::Result<usize> {
    // SAFETY: as in `receive`; the kernel only reads what the pointers show.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        if let Some(to) = to {
            message.msg_name = to.as_ptr().cast_mut().cast();
            message.msg_namelen = to.len();
        }
        message.msg_iov = bufs.as_ptr().cast_mut().cast();
        message.msg_iovlen = bufs.len() as _;
        if !control.is_empty() {
            message.msg_control = control.as_ptr().cast_mut().cast();
            message.msg_controllen = control.len() as _;
        }
        let n = libc::sendmsg(socket.as_raw_fd(), &raw const message, SEND_FLAGS);
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

/// As [`send`] to the connected peer, with descriptors.
pub(crate) fn send_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let numbers: Vec<u8> = descriptors.iter().flat_map(|d| d.as_raw_fd().to_ne_bytes()).collect();
    let (mut control, mut length) = ([0; CONTROL_ROOM], 0);
    if !numbers.is_empty() && !push(&mut control, &mut length, libc::SOL_SOCKET, libc::SCM_RIGHTS, &numbers) {
        // What the kernel says to too many.
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    send(socket, None, &[IoSlice::new(bytes)], &control[..length])
}

/// As [`receive`], taking the descriptors that came along, whatever their number.
pub(crate) fn receive_descriptors(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    into: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let mut control = [0; CONTROL_ROOM];
    let received = receive(socket, &mut [IoSliceMut::new(buf)], &mut control, Take::Remove)?;
    // SAFETY: the kernel has just made these descriptors for this process, and `control` is read this once.
    into.extend(descriptors(&control[..received.control]).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
    Ok(received)
}

fn descriptors(control: &[u8]) -> impl Iterator<Item = libc::c_int> {
    messages(control)
        .filter(|m| (m.level, m.kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS))
        .flat_map(|m| m.data.chunks_exact(size_of::<libc::c_int>()))
        .map(|number| libc::c_int::from_ne_bytes(number.try_into().expect("a chunk has its length")))
}

/// One control message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ControlMessage<'a> {
    pub(crate) level: libc::c_int,
    pub(crate) kind: libc::c_int,
    pub(crate) data: &'a [u8],
}

/// What stands before a message's data.
fn head() -> usize {
    // SAFETY: arithmetic.
    unsafe { libc::CMSG_LEN(0) as usize }
}

/// The first control message and what follows it; `None` at the end, or if it is not whole.
pub(crate) fn first(control: &[u8]) -> Option<(ControlMessage<'_>, &[u8])> {
    if control.len() < head() {
        return None;
    }
    // SAFETY: the head is there, `cmsghdr` is plain old data, and the read asks for no alignment.
    let header: libc::cmsghdr = unsafe { control.as_ptr().cast::<libc::cmsghdr>().read_unaligned() };
    #[allow(clippy::unnecessary_cast, reason = "some systems count in 32 bits")]
    let length = header.cmsg_len as usize;
    let data = control.get(head()..length)?;
    // SAFETY: arithmetic.
    let whole = unsafe { libc::CMSG_SPACE(data.len() as libc::c_uint) as usize };
    let message = ControlMessage { level: header.cmsg_level, kind: header.cmsg_type, data };
    Some((message, control.get(whole..).unwrap_or_default()))
}

fn messages(mut control: &[u8]) -> impl Iterator<Item = ControlMessage<'_>> {
    std::iter::from_fn(move || {
        let (message, rest) = first(control)?;
        control = rest;
        Some(message)
    })
}

/// Appends a control message to the first `length` bytes of `control`; false, and nothing done, if there is no room.
pub(crate) fn push(control: &mut [u8], length: &mut usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> bool {
    let Some(size) = libc::c_uint::try_from(data.len()).ok().filter(|n| *n < libc::c_uint::MAX / 2) else {
        return false;
    };
    // SAFETY: arithmetic, which cannot overflow with half of the range to spare.
    let whole = unsafe { libc::CMSG_SPACE(size) as usize };
    let Some(place) = control.get_mut(*length..).and_then(|free| free.get_mut(..whole)) else { return false };
    place.fill(0);
    // SAFETY: a `cmsghdr` of zeros is valid; there is room for it, and the write asks for no alignment.
    unsafe {
        let mut header: libc::cmsghdr = zeroed();
        header.cmsg_len = libc::CMSG_LEN(size) as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        place.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header);
    }
    place[head()..head() + data.len()].copy_from_slice(data);
    *length += whole;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(control: &[u8]) -> Vec<(libc::c_int, libc::c_int, Vec<u8>)> {
        messages(control).map(|m| (m.level, m.kind, m.data.to_vec())).collect()
    }

    #[test]
    fn control_messages_come_out_as_they_went_in_wherever_the_buffer_lies() {
        for offset in 0..8 {
            let mut memory = [0xaa; 300];
            let (control, mut length) = (&mut memory[offset..], 0);
            for (i, size) in [0, 1, 4, 7, 8, 33].into_iter().enumerate() {
                assert!(push(control, &mut length, 1, i as libc::c_int, &vec![i as u8; size]));
            }
            let expected: Vec<_> = [0, 1, 4, 7, 8, 33]
                .into_iter()
                .enumerate()
                .map(|(i, size)| (1, i as libc::c_int, vec![i as u8; size]))
                .collect();
            assert_eq!(read(&control[..length]), expected);
        }
    }

    #[test]
    fn a_message_without_room_changes_nothing() {
        let mut control = [0xaa; 64];
        let mut length = 0;
        assert!(push(&mut control, &mut length, 1, 2, &[3; 8]));
        let before = (control, length);
        assert!(!push(&mut control, &mut length, 1, 2, &[3; 64]));
        assert_eq!((control, length), before);
    }

    #[test]
    fn no_cut_or_wrong_length_is_read_beyond() {
        let (mut control, mut length) = ([0; 128], 0);
        assert!(push(&mut control, &mut length, 1, 2, &[3; 20]));
        for cut in 0..head() + 20 {
            assert!(read(&control[..cut]).is_empty(), "cut to {cut}");
        }
        for wrong in [0, 1, head() - 1, 4096, usize::MAX] {
            // The length is the first word of the head on every system.
            let mut lied = control;
            let bytes = wrong.to_ne_bytes();
            lied[..bytes.len()].copy_from_slice(&bytes);
            assert!(read(&lied[..length]).is_empty(), "length {wrong}");
        }
    }
}
