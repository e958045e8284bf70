//! Lines from a client's bytes, and bytes from a client made fit to be shown.
//!
//! Invariant: the buffer never holds more than one unfinished line of [`MAX_LINE`] bytes and what was pushed since the last
//! look; while an answer goes on, [`MOST_WAITING`] and one look's worth; see [`Lines::has_room`].
//!
//! Must not know: sockets, commands, time.

use std::fmt::Write as _;

/// The longest accepted line in bytes, its end not counted.
pub(super) const MAX_LINE: usize = 4096;

/// As much input may wait behind an answer: more than anybody pastes.
const MOST_WAITING: usize = 64 * 1024;

/// How many characters of a client's input are repeated in an answer.
const MAX_ECHO: usize = 120;

/// One line of input, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(Vec<u8>),
    /// Longer than [`MAX_LINE`]. What it said is lost, the lines after it are not.
    TooLong,
}

/// Splits input at `\n` and `\r\n`.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// The rest of a line already reported as too long is being thrown away.
    skipping: bool,
    /// The client will send no more: an unfinished line counts as a line.
    ended: bool,
}

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !self.skipping {
            self.bytes.extend_from_slice(bytes);
        } else if let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.skipping = false;
            self.bytes.extend_from_slice(&bytes[end + 1..]);
        }
    }

    /// The client has reached its end of input.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether [`Lines::take`] has something to give.
    pub(super) fn has_line(&self) -> bool {
        self.has_whole_line() || self.overlong() || (self.ended && !self.bytes.is_empty())
    }

    /// Whether the next line has come with its end.
    pub(super) fn has_whole_line(&self) -> bool {
        self.bytes.contains(&b'\n')
    }

    /// Throws away a line whose end has not come.
    pub(super) fn forget_unfinished(&mut self) {
        let end = self.bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.bytes.truncate(end);
    }

    /// Whether more input may be read although lines wait: what interrupts an answer comes behind them.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < MOST_WAITING
    }

    /// Throws away what has not been taken.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.skipping = false;
    }

    /// Whether what comes is thrown away, as the rest of a line that was too long.
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether there is nothing at all, not even the beginning of a line.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.skipping
    }

    pub(super) fn take(&mut self) -> Option<Line> {
        let line = if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
            let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
            line.pop();
            line
        } else if self.overlong() {
            self.bytes.clear();
            self.skipping = true;
            return Some(Line::TooLong);
        } else if self.ended && !self.bytes.is_empty() {
            std::mem::take(&mut self.bytes)
        } else {
            return None;
        };
        let text = line.strip_suffix(b"\r").unwrap_or(&line);
        Some(if text.len() > MAX_LINE { Line::TooLong } else { Line::Text(text.to_vec()) })
    }

    /// Whether the unfinished line is already too long, whatever comes. A last `\r` may be half of its end.
    fn overlong(&self) -> bool {
        self.bytes.strip_suffix(b"\r").unwrap_or(&self.bytes).len() > MAX_LINE
    }
}

/// `bytes` with everything that a terminal could obey, or that is no text, written as an escape. Long input is cut.
pub(super) fn escape(bytes: &[u8]) -> String {
    escape_up_to(bytes, MAX_ECHO)
}

/// As [`escape`], cut after `room` characters.
pub(super) fn escape_up_to(bytes: &[u8], mut room: usize) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if room == 0 {
                shown.push('…');
                return shown;
            }
            room -= 1;
            match character {
                '\'' | '"' => shown.push(character),
                // Covers control, format and direction-changing characters, and the backslash itself.
                _ => shown.extend(character.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
        room = room.saturating_sub(chunk.invalid().len());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Vec<Line> {
        std::iter::from_fn(|| lines.take()).collect()
    }

    fn text(text: &str) -> Line {
        Line::Text(text.into())
    }

    #[test]
    fn both_line_ends_in_any_split() {
        let input = b"a\r\nbb\n\n\r\nc";
        for split in 0..input.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for part in [&input[..split], &input[split..]] {
                lines.push(part);
                seen.extend(all(&mut lines));
            }
            assert!(!lines.has_line());
            lines.end();
            seen.extend(all(&mut lines));
            assert_eq!(seen, [text("a"), text("bb"), text(""), text(""), text("c")], "split at {split}");
        }
    }

    #[test]
    fn the_limit_is_exact_for_both_ends_and_all_splits() {
        for end in ["\n", "\r\n"] {
            for (length, fits) in [(MAX_LINE - 1, true), (MAX_LINE, true), (MAX_LINE + 1, false)] {
                let input = format!("{}{end}next\n", "x".repeat(length));
                for split in [1, MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, MAX_LINE + 2, MAX_LINE + 3] {
                    let mut lines = Lines::default();
                    let mut seen = Vec::new();
                    for part in [&input.as_bytes()[..split], &input.as_bytes()[split..]] {
                        lines.push(part);
                        seen.extend(all(&mut lines));
                    }
                    let first = if fits { text(&"x".repeat(length)) } else { Line::TooLong };
                    assert_eq!(seen, [first, text("next")], "{length} bytes, {end:?}, split {split}");
                }
            }
        }
    }

    #[test]
    fn an_endless_line_is_reported_once_and_not_stored() {
        let mut lines = Lines::default();
        let mut reports = 0;
        for _ in 0..100 {
            lines.push(&[b'x'; 4096]);
            reports += all(&mut lines).len();
            assert!(lines.bytes.len() <= 2 * MAX_LINE);
        }
        assert_eq!(reports, 1);
        lines.push(b"\nok\n");
        assert_eq!(all(&mut lines), [text("ok")]);
    }

    #[test]
    fn nothing_a_terminal_obeys_survives() {
        let shown = escape(b"a\x1b[2J\r\n\x07\x7f\xff \xe2\x80\xae\"'\\");
        assert_eq!(shown, "a\\u{1b}[2J\\r\\n\\u{7}\\u{7f}\\xff \\u{202e}\"'\\\\");
        assert!(escape(&[b'x'; 500]).chars().count() <= MAX_ECHO + 1);
        assert!(escape(&[0xff; 500]).len() < 4 * 500 + 4);
    }
}
