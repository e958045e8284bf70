//! Receiving a known number of bytes without losing those that came before an end or error.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::io;

/// Room is made in steps, so that a length that some peer made up costs no memory before its bytes are there.
const STEP: usize = 64 * 1024;

/// Receiving a number of bytes ended early; holds what had come until then.
///
/// Turns into an [`io::Error`] of the same kind, which still holds it.
pub struct RecvExactError {
    received: Vec<u8>,
    wanted: usize,
    error: io::Error,
}

impl RecvExactError {
    /// The bytes that had come.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// How many bytes were to be received.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Of `UnexpectedEof` at the end of the stream, otherwise as the read failed.
    pub fn kind(&self) -> io::ErrorKind {
        self.error.kind()
    }

    /// Why it ended.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The bytes that had come, and why it ended.
    pub fn into_parts(self) -> (Vec<u8>, io::Error) {
        (self.received, self.error)
    }
}

impl fmt::Debug for RecvExactError {
    /// Without the bytes, which are nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (received, wanted) = (self.received.len(), self.wanted);
        f.debug_struct("RecvExactError")
            .field("received", &received)
            .field("wanted", &wanted)
            .field("error", &self.error)
            .finish()
    }
}

impl fmt::Display for RecvExactError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "received {} of {} bytes: {}", self.received.len(), self.wanted, self.error)
    }
}

impl Error for RecvExactError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

impl From<RecvExactError> for io::Error {
    fn from(e: RecvExactError) -> io::Error {
        io::Error::new(e.kind(), e)
    }
}

/// Reads until there are `wanted` bytes.
pub(super) fn recv_exact(
    wanted: usize,
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> Result<Vec<u8>, RecvExactError> {
    let mut received = Vec::new();
    let mut filled = 0;
    while filled < wanted {
        if filled == received.len() {
            received.resize(filled + STEP.min(wanted - filled), 0);
        }
        let error = match read(&mut received[filled..]) {
            Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "the stream has ended"),
            Ok(n) => {
                filled += n;
                continue;
            }
            Err(e) => e,
        };
        received.truncate(filled);
        return Err(RecvExactError { received, wanted, error });
    }
    Ok(received)
}
