//! Lines from clients who may be anything: `nc`, `telnet`, or random bytes.

use std::fmt::Write as _;
use std::io::{self, Read};

/// Bytes of a line that are kept; what follows up to the line's end is dropped.
pub(crate) const LONGEST_LINE: usize = 512;

/// A line that is safe to show on anybody's terminal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// It was longer than [`LONGEST_LINE`].
    pub(crate) cut: bool,
}

/// Telnet's "interpret as command" (RFC 854), and the commands that take more bytes.
const IAC: u8 = 255;
const WILL: u8 = 251;
const DONT: u8 = 254;
const SB: u8 = 250;
const SE: u8 = 240;

/// Where in telnet's grammar the next byte stands.
#[derive(Debug, Clone, Copy)]
enum Telnet {
    Data,
    Command,
    Option,
    /// Inside a subnegotiation that may take so many more bytes.
    Sub(u8),
    SubCommand(u8),
}

/// We never agree to an option, so nobody should send one; what is longer than this is text that looked like one.
const LONGEST_SUB: u8 = 64;

/// Takes a stream of bytes apart into lines; memory is bounded whatever comes.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    from: R,
    buffer: Box<[u8; 1024]>,
    next: usize,
    end: usize,
    line: Vec<u8>,
    cut: bool,
    telnet: Telnet,
    after_cr: bool,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(from: R) -> Lines<R> {
        let buffer = Box::new([0; 1024]);
        let line = Vec::new();
        Lines { from, buffer, next: 0, end: 0, line, cut: false, telnet: Telnet::Data, after_cr: false }
    }

    /// The next line; `None` at the end of the stream. A last line without an end counts.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            while self.next < self.end {
                let byte = self.buffer[self.next];
                self.next += 1;
                if self.take(byte) {
                    return Ok(Some(self.finish()));
                }
            }
            self.end = self.from.read(&mut self.buffer[..])?;
            self.next = 0;
            if self.end == 0 {
                return Ok((!self.line.is_empty()).then(|| self.finish()));
            }
        }
    }

    fn finish(&mut self) -> Line {
        let text = clean(&self.line);
        self.line.clear();
        Line { text, cut: std::mem::take(&mut self.cut) }
    }

    /// Whether the byte ended a line.
    fn take(&mut self, byte: u8) -> bool {
        match self.telnet {
            Telnet::Data if byte == IAC => self.telnet = Telnet::Command,
            Telnet::Data => return self.data(byte),
            Telnet::Command => {
                self.telnet = Telnet::Data;
                match byte {
                    SB => self.telnet = Telnet::Sub(LONGEST_SUB),
                    WILL..=DONT => self.telnet = Telnet::Option,
                    SE..SB => {}
                    IAC => self.keep(IAC),
                    // Not telnet after all: both are data.
                    _ => {
                        self.keep(IAC);
                        return self.data(byte);
                    }
                }
            }
            Telnet::Option => self.telnet = Telnet::Data,
            Telnet::Sub(0) => {
                self.telnet = Telnet::Data;
                return self.data(byte);
            }
            Telnet::Sub(left) if byte == IAC => self.telnet = Telnet::SubCommand(left - 1),
            Telnet::Sub(left) => self.telnet = Telnet::Sub(left - 1),
            Telnet::SubCommand(left) => self.telnet = if byte == SE { Telnet::Data } else { Telnet::Sub(left) },
        }
        false
    }

    fn data(&mut self, byte: u8) -> bool {
        // Telnet's Enter is CR LF or CR NUL.
        let tail = std::mem::replace(&mut self.after_cr, byte == b'\r') && matches!(byte, b'\n' | 0);
        match byte {
            _ if tail => false,
            b'\n' | b'\r' => true,
            _ => {
                self.keep(byte);
                false
            }
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.line.len() < LONGEST_LINE {
            self.line.push(byte);
        } else {
            self.cut = true;
        }
    }
}

/// Text of which nothing can steer a terminal: control characters, marks that reorder or hide text, and bytes that are
/// no UTF-8 are written out.
pub(crate) fn clean(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => out.push(' '),
                '\0'..='\x1f' | '\x7f' => _ = write!(out, "\\x{:02x}", c as u32),
                _ if c.is_control() || is_invisible(c) => _ = write!(out, "{}", c.escape_unicode()),
                _ => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            _ = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
