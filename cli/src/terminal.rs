//! What goes to a terminal: whether there is one, whether it wants colours, and that nothing steers it.
//!
//! Invariant: no text of a server reaches the terminal but through [`harmless`]. Servers escape what is foreign to them; a
//! socket whose other end is no such server must not be able to do more than to lie.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

/// Whether answers on standard output are to be coloured.
pub(crate) fn wants_colour() -> bool {
    io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// `text` without anything that a terminal obeys, but for colours.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(steers) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(length) = colour(rest) {
            out.push_str(&rest[..length]);
            rest = &rest[length..];
        } else {
            let mut chars = rest.chars();
            out.extend(chars.next().into_iter().flat_map(char::escape_unicode));
            rest = chars.as_str();
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// `text` without anything that a terminal obeys, colours included.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = colour(rest).unwrap_or_else(|| {
            out.push_str("\\u{1b}");
            1
        });
        rest = &rest[length..];
    }
    out.push_str(rest);
    match harmless(&out) {
        Cow::Borrowed(_) => out,
        Cow::Owned(escaped) => escaped,
    }
}

/// Whether a terminal may obey `c`, or show what stands around it in another order.
fn steers(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of the sequence that begins `text` and sets a colour.
fn colour(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    (parameters.as_bytes()[end] == b'm' && end <= 16).then_some(2 + end + 1)
}

/// Rows and columns of the terminal on standard output; 24 and 80 if there is none that says.
pub(crate) fn size() -> (usize, usize) {
    match ratatui::crossterm::terminal::size() {
        Ok((columns, rows)) if columns > 0 && rows > 0 => (usize::from(rows), usize::from(columns)),
        _ => (24, 80),
    }
}

/// How many columns `text` takes, about.
pub(crate) fn width(text: &str) -> usize {
    ratatui::text::Span::raw(plain(text)).width()
}

/// `text` on lines of so many columns, broken between words where that can be; all but the first are indented.
pub(crate) fn folded(text: &str, columns: usize) -> Cow<'_, str> {
    const INDENT: &str = "    ";
    if columns < 20 || width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut column = 0;
    for word in text.split_inclusive(' ') {
        let takes = width(word.trim_end());
        // A word that is longer than the screen goes on where it stands.
        let fits = takes <= columns - INDENT.len();
        if column + takes > columns && column > INDENT.len() && fits {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.push_str(INDENT);
            column = INDENT.len();
        }
        out.push_str(word);
        column += width(word);
        if !fits {
            column %= columns;
        }
    }
    Cow::Owned(out)
}

/// After so long without a word a person is told that something is being waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// What a person is told on standard error while nothing comes: a line that is taken back when something does.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    is_shown: bool,
}

impl Notice {
    /// Nothing came for so long.
    pub(crate) fn nothing(&mut self, since: Duration) {
        if since >= SILENCE {
            self.show(&format!("no word for {} s (Ctrl-C ends)", since.as_secs()));
        }
    }

    pub(crate) fn show(&mut self, text: &str) {
        if io::stderr().is_terminal() {
            self.is_shown = true;
            eprint!("\r{text} ");
        }
    }

    pub(crate) fn take_back(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            eprint!("\r{:60}\r", "");
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        self.take_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_pass_and_nothing_else_does() {
        assert_eq!(harmless("a \x1b[1;31mred\x1b[0m b\tü日"), "a \x1b[1;31mred\x1b[0m b\tü日");
        assert_eq!(harmless("\x1b[2J\x1b]0;x\x07\u{9b}2J\r\u{202e}"), r"\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}2J\u{d}\u{202e}");
        assert_eq!(harmless("\x1b[31"), r"\u{1b}[31");
        assert_eq!(harmless(&format!("\x1b[{}m", "1;".repeat(50))).chars().next(), Some('\\'));
        assert_eq!(plain("a \x1b[31mred\x1b[0m \x1b[2J\x07"), r"a red \u{1b}[2J\u{7}");
        assert_eq!(width("\x1b[31mü日\x1b[0m"), 3);
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        let text = "longest    #11 parked \x1b[1m70ms\x1b[0m \"client 10\" lock  日本語日本語 x";
        assert_eq!(folded(text, 80), text);
        assert_eq!(
            folded(text, 30),
            "longest    #11 parked \x1b[1m70ms\x1b[0m\n    \"client 10\" lock\n    日本語日本語 x"
        );
        let long = "x".repeat(50);
        assert_eq!(folded(&format!("a {long} b"), 30), format!("a {long} b"));
    }
}
