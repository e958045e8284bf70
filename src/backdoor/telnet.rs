//! What a terminal or a telnet client sends besides text: options to negotiate (RFC 854, 855, 1143), an interrupt, an end.
//!
//! Every option is refused, which needs no state; "timing mark" alone is agreed to (RFC 860), because a client that
//! interrupts throws all output away until it comes. No byte of UTF-8 text is 255, so other clients are never taken for
//! one that speaks telnet.
//!
//! Invariant: what is given on holds no 255 and no control byte of the ones below, in whatever pieces the input came.
//!
//! Must not know: sockets, lines, commands.

#![forbid(unsafe_code)]

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const BEGIN: u8 = 250;
const INTERRUPT: u8 = 244;
const BREAK: u8 = 243;
const END: u8 = 240;
const END_OF_FILE: u8 = 236;
const TIMING_MARK: u8 = 6;

/// What a terminal in raw mode sends for Ctrl-C and Ctrl-D.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;

/// Where in a telnet command the input stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Command,
    /// After WILL, WONT, DO or DONT.
    Option(u8),
    /// Between BEGIN and END.
    Within,
    WithinCommand,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Telnet {
    state: State,
}

/// A piece of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a [u8]),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    End,
    /// To be sent back.
    Reply([u8; 3]),
}

impl Telnet {
    /// Takes input apart.
    pub(super) fn split<'a>(&mut self, bytes: &'a [u8], mut piece: impl FnMut(Piece<'a>)) {
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() {
            if self.state == State::Text {
                // Nearly all of it.
                let plain = bytes[at..].iter().position(|byte| matches!(*byte, IAC | CTRL_C | CTRL_D));
                at += plain.unwrap_or(bytes.len() - at);
            }
            let Some(&byte) = bytes.get(at) else { break };
            let before = self.state;
            let found = self.step(byte);
            if before == State::Text && from < at {
                piece(Piece::Text(&bytes[from..at]));
            }
            at += 1;
            from = at;
            if let Some(found) = found {
                piece(found);
            }
        }
        if from < bytes.len() && self.state == State::Text {
            piece(Piece::Text(&bytes[from..]));
        }
    }

    fn step<'a>(&mut self, byte: u8) -> Option<Piece<'a>> {
        let (state, found) = match (self.state, byte) {
            (State::Text, IAC) => (State::Command, None),
            (State::Text, CTRL_C) => (State::Text, Some(Piece::Interrupt)),
            (State::Text, CTRL_D) => (State::Text, Some(Piece::End)),
            // Not asked: `split` looks for the three above.
            (State::Text, _) => (State::Text, None),
            (State::Command, WILL | WONT | DO | DONT) => (State::Option(byte), None),
            (State::Command, BEGIN) => (State::Within, None),
            (State::Command, INTERRUPT | BREAK) => (State::Text, Some(Piece::Interrupt)),
            (State::Command, END_OF_FILE) => (State::Text, Some(Piece::End)),
            // A doubled 255 stands for the byte itself, which is no text here.
            (State::Command, _) => (State::Text, None),
            (State::Option(DO), TIMING_MARK) => (State::Text, Some(Piece::Reply([IAC, WILL, TIMING_MARK]))),
            (State::Option(DO), _) => (State::Text, Some(Piece::Reply([IAC, WONT, byte]))),
            (State::Option(WILL), _) => (State::Text, Some(Piece::Reply([IAC, DONT, byte]))),
            (State::Option(_), _) => (State::Text, None),
            (State::Within, IAC) => (State::WithinCommand, None),
            (State::Within, _) => (State::Within, None),
            (State::WithinCommand, END) => (State::Text, None),
            (State::WithinCommand, _) => (State::Within, None),
        };
        self.state = state;
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text, and the rest in order.
    fn apart(pieces: &[&[u8]]) -> (Vec<u8>, Vec<String>) {
        let mut telnet = Telnet::default();
        let (mut text, mut rest) = (Vec::new(), Vec::new());
        for bytes in pieces {
            telnet.split(bytes, |piece| match piece {
                Piece::Text(bytes) => text.extend_from_slice(bytes),
                other => rest.push(format!("{other:?}")),
            });
        }
        (text, rest)
    }

    #[test]
    fn options_are_refused_and_an_interrupt_is_answered_by_its_mark() {
        let input = b"sta\xff\xfd\x01tus\xff\xfb\x1f\r\n\xff\xf4\xff\xfd\x06\xff\xfa\x18\x00xterm\xff\xf0quit\xff\xfe\x01\xff\xfc\x03\xff\xff\n";
        let all = apart(&[input]);
        assert_eq!(all.0, b"status\r\nquit\n");
        let told = ["Reply([255, 252, 1])", "Reply([255, 254, 31])", "Interrupt", "Reply([255, 251, 6])"];
        assert_eq!(all.1, told);
        for at in 0..input.len() {
            assert_eq!(apart(&[&input[..at], &input[at..]]), all, "cut at {at}");
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(apart(&bytes), all);
    }

    #[test]
    fn keys_of_a_terminal_in_raw_mode() {
        assert_eq!(apart(&[b"where_a\x03quit\x04"]), (b"where_aquit".to_vec(), vec!["Interrupt".into(), "End".into()]));
        assert_eq!(apart(&["grün\u{0}\u{7}".as_bytes()]).0, "grün\u{0}\u{7}".as_bytes());
    }
}
