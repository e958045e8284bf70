//! What both the proxy and the ureq client ask of a connection that they keep.

use std::io::{self, ErrorKind};

use coro::net::TcpStream;

/// Whether another request may go over a connection that nobody has used for a while: there is nothing to read. An end is
/// something, and so are bytes that nobody has asked for.
pub(crate) fn is_idle(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    stream.set_nonblocking(false).is_ok() && looked.is_err_and(|e: io::Error| e.kind() == ErrorKind::WouldBlock)
}
