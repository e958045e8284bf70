//! Text for signal handlers.
//!
//! Purpose: build a line in a fixed buffer and write it to stderr.
//! Invariants: no allocation, no lock, no formatting machinery; text beyond the buffer is cut, never an error.
//! Must not know: what the text is about.

/// A buffer of text. Every method is async-signal-safe.
#[derive(Debug)]
pub(super) struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    pub(super) const fn new() -> Line {
        Line { bytes: [0; 512], len: 0 }
    }

    /// Appends text as it is.
    pub(super) fn text(&mut self, text: &str) -> &mut Line {
        let text = text.as_bytes();
        let room = text.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + room].copy_from_slice(&text[..room]);
        self.len += room;
        self
    }

    /// Appends a decimal number.
    pub(super) fn decimal(&mut self, value: u64) -> &mut Line {
        self.number(value, 10)
    }

    /// Appends a hexadecimal number with `0x`.
    pub(super) fn hex(&mut self, value: usize) -> &mut Line {
        self.text("0x").number(value as u64, 16)
    }

    fn number(&mut self, mut value: u64, radix: u64) -> &mut Line {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(value % radix) as usize];
            value /= radix;
            if value == 0 {
                break;
            }
        }
        // Digits are ASCII.
        self.text(str::from_utf8(&digits[at..]).unwrap_or_default())
    }

    /// Appends a name in quotes; what could steer a terminal or fake a line is escaped.
    pub(super) fn quoted(&mut self, name: &[u8]) -> &mut Line {
        self.text("\"");
        for chunk in name.utf8_chunks() {
            for c in chunk.valid().chars() {
                let mut plain = [0; 4];
                if c == '\'' {
                    self.text("'");
                } else {
                    c.escape_debug().for_each(|c| {
                        self.text(c.encode_utf8(&mut plain));
                    });
                }
            }
            for &byte in chunk.invalid() {
                let hex = b"0123456789abcdef";
                let escaped = [b'\\', b'x', hex[usize::from(byte >> 4)], hex[usize::from(byte & 15)]];
                self.text(str::from_utf8(&escaped).unwrap_or_default());
            }
        }
        self.text("\"")
    }

    /// Writes the line to stderr and empties the buffer. Errors are ignored: there is nobody to tell.
    pub(super) fn print(&mut self) {
        let mut left = &self.bytes[..self.len];
        while !left.is_empty() {
            // SAFETY: `left` is valid for reads of its length.
            let done = unsafe { libc::write(2, left.as_ptr().cast(), left.len()) };
            match usize::try_from(done) {
                Ok(done) if done > 0 => left = &left[done.min(left.len())..],
                _ if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
                _ => break,
            }
        }
        self.len = 0;
    }

    #[cfg(test)]
    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..self.len]).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names() {
        let mut line = Line::new();
        line.text("a ").decimal(0).text(" ").decimal(u64::MAX).text(" ").hex(0xdead_0123);
        assert_eq!(line.as_str(), "a 0 18446744073709551615 0xdead0123");
        let mut line = Line::new();
        line.quoted(b"it's \x1b[31m\n\"\\ \xc2\x9b \xff \xe2\x80\xae caf\xc3\xa9");
        assert_eq!(line.as_str(), r#""it's \u{1b}[31m\n\"\\ \u{9b} \xff \u{202e} café""#);
    }

    #[test]
    fn too_much_text_is_cut() {
        let mut line = Line::new();
        for _ in 0..100 {
            line.text("0123456789").decimal(7);
        }
        assert_eq!(line.as_str().len(), 512);
    }
}
