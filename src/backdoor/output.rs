//! Bytes on their way to a client.
//!
//! Invariant: what is cut ends with the line that is being sent. Must not know: sockets.

#![forbid(unsafe_code)]

/// An answer is asked for more only below this many bytes waiting.
pub(super) const PULL_BELOW: usize = 64 * 1024;

/// Buffers larger than this are given back when empty.
const KEEP_BUFFER: usize = 2 * PULL_BELOW;

/// Bytes on their way to the client.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Vec<u8>,
    /// How many of them are sent.
    sent: usize,
    /// The last byte pushed was not a line's end.
    pub(super) within_line: bool,
    /// The last byte sent was not.
    sent_within_line: bool,
}

impl Output {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if let Some(&last) = bytes.last() {
            self.within_line = last != b'\n';
            self.bytes.extend_from_slice(bytes);
        }
    }

    pub(super) fn end_line(&mut self) {
        if self.within_line {
            self.push(b"\n");
        }
    }

    /// Three bytes of telnet, which belong to no line.
    pub(super) fn answer_telnet(&mut self, reply: [u8; 3]) {
        // A client that only negotiates and never reads gets no more room than an answer.
        if self.len() < PULL_BELOW {
            self.bytes.extend_from_slice(&reply);
        }
    }

    /// Throws away what waits behind the line that is being sent.
    pub(super) fn cut(&mut self) {
        let Some(end) = self.waiting().iter().position(|byte| *byte == b'\n') else {
            // Of what was sent of the line, if anything, its end is still to come.
            self.bytes.truncate(self.sent);
            return self.within_line = self.sent_within_line;
        };
        self.bytes.truncate(self.sent + end + 1);
        self.within_line = false;
    }

    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn sent(&mut self, length: usize) {
        self.sent += length;
        if let Some(last) = self.bytes[..self.sent].last() {
            self.sent_within_line = *last != b'\n';
        }
        if self.is_empty() {
            self.bytes.clear();
            self.sent = 0;
            if self.bytes.capacity() > KEEP_BUFFER {
                self.bytes = Vec::new();
            }
        } else if self.sent >= PULL_BELOW {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_ends_with_the_line_that_was_begun() {
        let cut = |pushed: &str, sent: usize| {
            let mut output = Output::default();
            output.push(pushed.as_bytes());
            output.sent(sent);
            output.cut();
            output.end_line();
            pushed[..sent].to_owned() + str::from_utf8(output.waiting()).expect("text")
        };
        assert_eq!(cut("one\ntwo\nthree\n", 2), "one\n");
        assert_eq!(cut("one\ntwo\n", 4), "one\ntwo\n");
        assert_eq!(cut("one\n", 4), "one\n");
        // All that there was of the line is sent, and its end is still to come.
        assert_eq!(cut("half a li", 9), "half a li\n");
        assert_eq!(cut("half a li", 3), "hal\n");
    }
}
