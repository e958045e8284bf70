//! How numbers, ages and foreign names are written in every view.
//!
//! A dump writes a million of each, so nothing here goes through `core::fmt` or allocates.
//!
//! Invariant: whatever a name holds, what is written for it neither steers a terminal nor breaks the line.
//!
//! Must not know: tasks.

#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

/// How views are rendered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Style {
    /// With the escape sequences that colour a terminal. Off by default: a view does not know where it goes.
    pub colour: bool,
}

impl Style {
    /// With colours.
    pub const COLOURED: Style = Style { colour: true };
    /// Without.
    pub const PLAIN: Style = Style { colour: false };
}

/// What a colour stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
    /// Counts and ids.
    Bold,
    /// What is less important.
    Dim,
    /// What is noteworthy.
    Red,
    /// Names that the program gave.
    Green,
}

/// Writes what `text` writes, in that colour.
pub(super) fn inked(style: Style, ink: Ink, out: &mut String, text: impl FnOnce(&mut String)) {
    if !style.colour {
        return text(out);
    }
    out.push_str(match ink {
        Ink::Bold => "\x1b[1m",
        Ink::Dim => "\x1b[2m",
        Ink::Red => "\x1b[31m",
        Ink::Green => "\x1b[32m",
    });
    text(out);
    out.push_str("\x1b[0m");
}

/// A number in decimal digits.
pub(super) fn push_number(mut n: u64, out: &mut String) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    // One by one: they are few, and a slice of them would be checked for being UTF-8.
    out.reserve(digits.len());
    digits[at..].iter().for_each(|digit| out.push(char::from(*digit)));
}

/// `417us`, `32ms`, `3.2s`, `2h05m`.
pub(super) fn push_age(d: Duration, out: &mut String) {
    push_spaced_age(d, "", out);
}

/// The same with something between number and unit.
pub(super) fn push_spaced_age(d: Duration, space: &str, out: &mut String) {
    let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let (n, unit) = if ns < 999_500 {
        ((ns + 500) / 1_000, "us")
    } else if ns < 999_500_000 {
        ((ns + 500_000) / 1_000_000, "ms")
    } else if ns < 3_600_000_000_000 {
        let tenths = (ns + 50_000_000) / 100_000_000;
        push_number(tenths / 10, out);
        out.push('.');
        (tenths % 10, "s")
    } else {
        push_number(d.as_secs() / 3600, out);
        out.push_str(space);
        let minutes = d.as_secs() / 60 % 60;
        out.push_str(if minutes < 10 { "h0" } else { "h" });
        (minutes, "m")
    };
    push_number(n, out);
    if unit != "m" {
        out.push_str(space);
    }
    out.push_str(unit);
}

/// A name that somebody else chose.
pub(super) fn push_escaped(text: &str, out: &mut String) {
    let plain = |b: &u8| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\';
    if text.as_bytes().iter().all(plain) {
        return out.push_str(text);
    }
    for c in text.chars() {
        if c == '"' || c == '\\' || steers(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
}

/// Control characters, and those that reorder or hide text (Unicode categories Cc, Cf, Zl, Zp, the common ones). All of
/// them fit into 16 bits.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A source file by its last two components, and the line.
pub(super) fn push_site(file: &str, line: u32, out: &mut String) {
    let mut parts = file.rmatch_indices(['/', '\\']);
    let short = parts.nth(1).map_or(file, |(at, _)| &file[at + 1..]);
    push_escaped(short, out);
    out.push(':');
    push_number(line.into(), out);
}

/// An age for `write!`.
pub(super) struct Age(pub(super) Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        push_age(self.0, &mut text);
        f.write_str(&text)
    }
}

/// A foreign name for `write!`.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        push_escaped(self.0, &mut text);
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(f: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        f(&mut out);
        out
    }

    #[test]
    fn ages_keep_two_or_three_digits() {
        for (ns, text) in [
            (0u64, "0us"),
            (1_499, "1us"),
            (999_499, "999us"),
            (999_500, "1ms"),
            (12_600_000, "13ms"),
            (999_499_999, "999ms"),
            (999_500_000, "1.0s"),
            (3_249_000_000, "3.2s"),
            (59_960_000_000, "60.0s"),
            (3_599_900_000_000, "3599.9s"),
            (3_600_000_000_000, "1h00m"),
            (7_500_000_000_000, "2h05m"),
        ] {
            assert_eq!(written(|out| push_age(Duration::from_nanos(ns), out)), text);
        }
        assert_eq!(written(|out| push_spaced_age(Duration::from_millis(3200), " ", out)), "3.2 s");
        assert_eq!(written(|out| push_spaced_age(Duration::from_secs(7500), " ", out)), "2 h05m");
        assert!(!written(|out| push_age(Duration::MAX, out)).is_empty());
    }

    #[test]
    fn numbers_sites_and_names() {
        for n in [0, 7, 10, 4_294_967_296, u64::MAX] {
            assert_eq!(written(|out| push_number(n, out)), n.to_string());
        }
        for (file, text) in [("a/b/src/db.rs", "src/db.rs:7"), ("src/db.rs", "src/db.rs:7"), ("x.rs", "x.rs:7")] {
            assert_eq!(written(|out| push_site(file, 7, out)), text);
        }
        assert_eq!(written(|out| push_site("/db.rs", 7, out)), "/db.rs:7");
        for (name, text) in
            [("a b", "a b"), ("ü", "ü"), ("\u{1b}[2J\n\"\\", "\\u{1b}[2J\\n\\\"\\\\"), ("\u{202e}x", "\\u{202e}x")]
        {
            assert_eq!(written(|out| push_escaped(name, out)), text);
        }
    }

    #[test]
    fn colours_only_when_asked_for() {
        let text = |style| written(|out| inked(style, Ink::Bold, out, |out| out.push('x')));
        assert_eq!((text(Style::PLAIN), text(Style::COLOURED)), ("x".to_owned(), "\x1b[1mx\x1b[0m".to_owned()));
    }
}
