//! What goes to a terminal: whether there is one, whether it wants colours, and that nothing steers it.
//!
//! Invariant: no text of a server reaches the terminal but through [`harmless`]. Servers escape what is foreign to them; a
//! socket whose other end is no such server must not be able to do more than to lie.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::io::{self, IsTerminal as _};

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
}
