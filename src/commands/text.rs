//! Answers made of text and of rows, and the few forms of numbers that all of them use.

use std::fmt::Write as _;

use super::Answer;
pub(super) use crate::value::age;
use crate::value::edits;

/// Bytes of one piece.
pub(super) const PIECE: usize = 32 * 1024;

/// An answer that is known at once; only for those whose length has a bound.
pub(super) fn at_once(text: String) -> Box<dyn Answer> {
    Box::new(Text(Some(text)))
}

struct Text(Option<String>);

impl Answer for Text {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(text) = self.0.take() {
            out.extend_from_slice(text.as_bytes());
        }
        false
    }
}

/// An answer of one line or more for each of many things, written when the client has room for them. `write` adds whole
/// lines.
pub(super) fn rows<T: 'static>(
    head: &str,
    rows: Vec<T>,
    write: impl FnMut(&T, &mut String) + 'static,
) -> Box<dyn Answer> {
    Box::new(Rows { head: Some(head.to_owned()), rows: rows.into_iter(), write })
}

struct Rows<T, F> {
    head: Option<String>,
    rows: std::vec::IntoIter<T>,
    write: F,
}

impl<T, F: FnMut(&T, &mut String)> Answer for Rows<T, F> {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        let mut text = self.head.take().unwrap_or_default();
        while text.len() < PIECE {
            let Some(row) = self.rows.next() else {
                out.extend_from_slice(text.as_bytes());
                return false;
            };
            (self.write)(&row, &mut text);
        }
        out.extend_from_slice(text.as_bytes());
        true
    }
}

/// `1,234,567`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 task`, `2 tasks`.
pub(super) fn counted(n: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { more })
}

/// `3.2 KiB`, `17.0 MiB`.
pub(super) fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..0x10_0000 => format!("{:.1} KiB", n as f64 / 1024.0),
        0x10_0000..0x4000_0000 => format!("{:.1} MiB", n as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", n as f64 / f64::from(1 << 30)),
    }
}

/// Text of others on one line, with nothing in it that steers a terminal, and of bounded length.
pub(super) fn clean(text: &str, most: usize) -> String {
    let mut clean = String::new();
    for c in text.chars() {
        if clean.len() >= most {
            clean.push('…');
            break;
        }
        match c {
            '\'' | '"' | '\\' => clean.push(c),
            // Control, format and direction-changing characters.
            _ => {
                let _ = write!(clean, "{}", c.escape_debug());
            }
        }
    }
    clean
}

/// Of some names one that begins with `word`, else the one that takes the fewest edits from it.
pub(crate) fn nearest_of<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let word: String = word.to_lowercase().chars().take(32).collect();
    names.min_by_key(|name| (!name.starts_with(&word), edits(&word, name)))
}

/// Columns as wide as their widest cell, two spaces apart; the first and last column stand left, the others right.
fn columns(rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}

/// Writes one row for [`columns`].
fn line(row: &[String], widths: &[usize], out: &mut String) {
    let last = row.len().saturating_sub(1);
    for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
        let _ = match i {
            _ if i == last && i > 0 => write!(out, "  {cell}"),
            0 => write!(out, "{cell:<width$}"),
            _ => write!(out, "  {cell:>width$}"),
        };
    }
    while out.ends_with(' ') {
        out.pop();
    }
    out.push('\n');
}

/// A head and rows as a table in pieces.
pub(super) fn table(before: &str, cells: Vec<Vec<String>>) -> Box<dyn Answer> {
    let widths = columns(&cells);
    rows(before, cells, move |row, out| line(row, &widths, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(mut answer: Box<dyn Answer>) -> String {
        let mut out = Vec::new();
        while answer.more(&mut out) {}
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1024, 5 << 20, 3 << 30].map(bytes), ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3.0 GiB"]);
        assert_eq!(
            (counted(1, "task", "tasks"), counted(2000, "task", "tasks")),
            ("1 task".into(), "2,000 tasks".into())
        );
    }

    #[test]
    fn foreign_text_stays_on_its_line_and_has_an_end() {
        assert_eq!(clean("a\x1b[2J\n\"b\" \u{202e}\\", 99), "a\\u{1b}[2J\\n\"b\" \\u{202e}\\");
        assert_eq!(clean("abcdef", 3), "abc…");
    }

    #[test]
    fn a_table_stands_in_columns_and_comes_in_pieces() {
        let row = |a: &str, b: &str, c: &str| vec![a.to_owned(), b.to_owned(), c.to_owned()];
        let rows = vec![row("name", "n", "what"), row("x", "10,000", "")];
        assert_eq!(whole(table("head\n", rows)), "head\nname       n  what\nx     10,000\n");
        let many: Vec<Vec<String>> = (0..10_000).map(|i| row("x", &i.to_string(), "y")).collect();
        let mut answer = table("", many);
        let mut piece = Vec::new();
        assert!(answer.more(&mut piece) && piece.len() < PIECE + 100, "{} bytes at once", piece.len());
        assert_eq!(String::from_utf8(piece).unwrap().lines().count() + whole(answer).lines().count(), 10_000);
    }
}
