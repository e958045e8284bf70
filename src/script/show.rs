//! Results as people read them, and as JSON.
//!
//! Invariants: whole lines, in which nothing steers a terminal; what is written is bounded by [`MOST_BYTES`], and says what it
//! leaves out.
//!
//! Must not know: the engine, who asks.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::inspect::steers;
use crate::value::Value;

/// The longest answer in bytes; one line more may say that it was cut.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// Characters of a cell of a table; the last column has more room.
const CELL: usize = 48;
const LAST_CELL: usize = 160;

/// Columns of a table.
const MOST_COLUMNS: usize = 20;

/// What a value nested deeper than this is shown as.
const DEEPEST: usize = 12;

/// A value as lines. Nothing is said of nothing.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Nothing => {}
        Value::Text(text) => {
            for line in text.split('\n') {
                if full(&out) {
                    return cut(out, "more lines were");
                }
                clean(line, &mut out);
                out.push('\n');
            }
        }
        Value::List(values) if values.is_empty() => out.push_str("[]\n"),
        Value::List(values) if values.iter().all(|v| matches!(v, Value::Map(_))) => return table(values),
        Value::List(values) => {
            for (n, value) in values.iter().enumerate() {
                if full(&out) {
                    return cut(out, &format!("{} more values were", values.len() - n));
                }
                line(value, &mut out);
            }
        }
        Value::Map(entries) if entries.is_empty() => out.push_str("#{}\n"),
        Value::Map(entries) => {
            let width = entries.iter().map(|(name, _)| cell_text(name, CELL).chars().count()).max().unwrap_or(0);
            for (n, (name, value)) in entries.iter().enumerate() {
                if full(&out) {
                    return cut(out, &format!("{} more entries were", entries.len() - n));
                }
                let _ = write!(out, "{:width$}  ", cell_text(name, CELL));
                line(value, &mut out);
            }
        }
        other => line(other, &mut out),
    }
    if out.len() > MOST_BYTES + 1 { cut(out, "the rest was") } else { out }
}

fn full(out: &str) -> bool {
    out.len() >= MOST_BYTES
}

fn cut(mut out: String, what: &str) -> String {
    if out.len() > MOST_BYTES {
        let mut end = MOST_BYTES;
        while !out.is_char_boundary(end) {
            end -= 1;
        }
        out.truncate(end);
        if !out.ends_with('\n') {
            out.push('\n');
        }
    }
    let _ = writeln!(out, "… {what} left out: an answer has at most {} KiB", MOST_BYTES / 1024);
    out
}

/// A value within a line of bounded length, as it would be typed.
pub(super) fn literal(value: &Value, most: usize) -> String {
    let mut out = String::new();
    compact(value, 0, &mut Room(most), &mut out);
    out
}

/// One value on one line of its own.
fn line(value: &Value, out: &mut String) {
    match value {
        Value::Text(text) => clean(text, out),
        other => compact(other, 0, &mut Room(MOST_BYTES), out),
    }
    out.push('\n');
}

/// Text of others on one line, with nothing in it that steers a terminal.
fn clean(text: &str, out: &mut String) {
    for c in text.chars() {
        if out.len() > MOST_BYTES + 1 {
            break;
        }
        if steers(c) {
            let _ = write!(out, "{}", c.escape_debug());
        } else {
            out.push(c);
        }
    }
}

/// How many bytes may still be written.
struct Room(usize);

impl Room {
    fn left(&mut self, out: &str, begin: usize) -> bool {
        out.len() - begin < self.0
    }
}

/// A value within a line: as it would be typed.
fn compact(value: &Value, depth: usize, room: &mut Room, out: &mut String) {
    let begin = out.len();
    let nested = |out: &mut String, values: &mut dyn Iterator<Item = (Option<&str>, &Value)>, room: &mut Room| {
        for (n, (name, value)) in values.enumerate() {
            if !room.left(out, begin) {
                out.push('…');
                break;
            }
            if n > 0 {
                out.push_str(", ");
            }
            if let Some(name) = name {
                clean(name, out);
                out.push_str(": ");
            }
            let mut rest = Room(room.0.saturating_sub(out.len() - begin));
            compact(value, depth + 1, &mut rest, out);
        }
    };
    match value {
        Value::Nothing => out.push_str("()"),
        Value::Bool(b) => {
            let _ = write!(out, "{b}");
        }
        Value::Int(n) => {
            let _ = write!(out, "{n}");
        }
        Value::Float(x) => {
            let _ = write!(out, "{x:?}");
        }
        Value::Text(text) => {
            out.push('"');
            for c in text.chars() {
                if !room.left(out, begin) {
                    out.push('…');
                    break;
                }
                match c {
                    '"' | '\\' => out.extend(['\\', c]),
                    c if steers(c) => {
                        let _ = write!(out, "{}", c.escape_debug());
                    }
                    c => out.push(c),
                }
            }
            out.push('"');
        }
        Value::List(_) | Value::Map(_) if depth >= DEEPEST => out.push('…'),
        Value::List(values) => {
            out.push('[');
            nested(out, &mut values.iter().map(|v| (None, v)), room);
            out.push(']');
        }
        Value::Map(entries) => {
            out.push_str("#{");
            nested(out, &mut entries.iter().map(|(k, v)| (Some(k.as_str()), v)), room);
            out.push('}');
        }
    }
}

/// As much of a text as a cell has room for.
fn cell_text(text: &str, most: usize) -> String {
    let mut out = String::new();
    let shown: String = text.chars().take(most + 1).collect();
    clean(&shown, &mut out);
    shortened(out, most)
}

fn shortened(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A value as a cell, and whether it stands right.
fn cell(value: Option<&Value>, most: usize) -> (String, bool) {
    match value {
        None | Some(Value::Nothing) => (String::new(), false),
        Some(Value::Text(text)) => (cell_text(text, most), false),
        Some(Value::Float(x)) => (format!("{x:.3}"), true),
        Some(other) => {
            let mut out = String::new();
            compact(other, 0, &mut Room(4 * most), &mut out);
            (shortened(out, most), matches!(other, Value::Int(_)))
        }
    }
}

fn entries(map: &Value) -> &[(String, Value)] {
    match map {
        Value::Map(entries) => entries,
        _ => &[],
    }
}

/// Maps as rows.
fn table(maps: &[Value]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    let mut more = 0;
    for (name, _) in maps.iter().take(1000).flat_map(entries) {
        if columns.contains(&name.as_str()) {
            continue;
        }
        if columns.len() < MOST_COLUMNS {
            columns.push(name);
        } else {
            more += 1;
        }
    }
    if columns.is_empty() {
        return "#{}\n".repeat(maps.len().min(MOST_BYTES / 4));
    }
    let last = columns.len() - 1;
    let room = |column| if column == last { LAST_CELL } else { CELL };
    let head = columns.iter().map(|name| (cell_text(name, CELL), false)).collect::<Vec<_>>();
    let mut rows = vec![head];
    let (mut bytes, mut left) = (0, 0);
    for (n, map) in maps.iter().enumerate() {
        let find = |name: &str| entries(map).iter().find(|(k, _)| k == name).map(|(_, v)| v);
        let row: Vec<_> = columns.iter().enumerate().map(|(i, name)| cell(find(name), room(i))).collect();
        bytes += row.iter().map(|(text, _)| text.len() + 2).sum::<usize>();
        if bytes > MOST_BYTES {
            left = maps.len() - n;
            break;
        }
        rows.push(row);
    }
    let mut widths = vec![0; columns.len()];
    for row in &rows {
        for (width, (text, _)) in widths.iter_mut().zip(row) {
            *width = text.chars().count().max(*width);
        }
    }
    // Over a column of numbers the name stands right, too.
    let numbers: Vec<bool> = (0..columns.len())
        .map(|i| rows[1..].iter().any(|row| row[i].1) && rows[1..].iter().all(|row| row[i].1 || row[i].0.is_empty()))
        .collect();
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        if full(&out) {
            left += rows.len() - n;
            break;
        }
        let begin = out.len();
        for (i, ((text, _), width)) in row.iter().zip(&widths).enumerate() {
            let between = if i > 0 { "  " } else { "" };
            let _ = if numbers[i] {
                write!(out, "{between}{text:>width$}")
            } else {
                write!(out, "{between}{text:<width$}")
            };
        }
        let end = begin + out[begin..].trim_end_matches(' ').len();
        out.truncate(end);
        out.push('\n');
    }
    if more > 0 {
        let _ = writeln!(out, "… {more} more columns; print one row to see them all");
    }
    if left > 0 { cut(out, &format!("{left} more rows were")) } else { out }
}

/// A value as one JSON text. What has no room is left out at the end, and then the second is true.
pub(super) fn json(value: &Value) -> (String, bool) {
    let mut out = String::new();
    let mut left_out = false;
    write_json(value, 0, &mut out, &mut left_out);
    (out, left_out)
}

fn write_json(value: &Value, depth: usize, out: &mut String, left_out: &mut bool) {
    match value {
        Value::Nothing => out.push_str("null"),
        Value::Bool(b) => {
            let _ = write!(out, "{b}");
        }
        Value::Int(n) => {
            let _ = write!(out, "{n}");
        }
        // Neither infinity nor "not a number" has a form in JSON.
        Value::Float(x) if !x.is_finite() => out.push_str("null"),
        Value::Float(x) => {
            let _ = write!(out, "{x:?}");
        }
        Value::Text(text) => write_json_text(text, out, left_out),
        Value::List(_) | Value::Map(_) if depth > 4 * DEEPEST => {
            *left_out = true;
            out.push_str("null");
        }
        Value::List(values) => {
            out.push('[');
            for (n, value) in values.iter().enumerate() {
                if full(out) {
                    *left_out = true;
                    break;
                }
                if n > 0 {
                    out.push(',');
                }
                write_json(value, depth + 1, out, left_out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (n, (name, value)) in entries.iter().enumerate() {
                if full(out) {
                    *left_out = true;
                    break;
                }
                if n > 0 {
                    out.push(',');
                }
                write_json_text(name, out, left_out);
                out.push(':');
                write_json(value, depth + 1, out, left_out);
            }
            out.push('}');
        }
    }
}

/// A string; what a terminal would obey is spelled in digits.
fn write_json_text(text: &str, out: &mut String, left_out: &mut bool) {
    out.push('"');
    for c in text.chars() {
        if full(out) {
            *left_out = true;
            break;
        }
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 || steers(c) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// `text` as a JSON string.
pub(super) fn json_text(text: &str) -> String {
    let mut out = String::new();
    write_json_text(text, &mut out, &mut false);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_people_read_them() {
        let list = |values: Vec<Value>| Value::List(values);
        for (value, shown) in [
            (Value::Nothing, ""),
            (Value::Int(-3), "-3\n"),
            (Value::Float(5.0), "5.0\n"),
            (Value::Bool(true), "true\n"),
            (Value::of("two\nlines \x1b[2J"), "two\nlines \\u{1b}[2J\n"),
            (list(vec![]), "[]\n"),
            (list(vec![Value::of("a\nb"), Value::Nothing, Value::Int(1)]), "a\\nb\n()\n1\n"),
            (list(vec![list(vec![Value::of("x\""), Value::Int(1)])]), "[\"x\\\"\", 1]\n"),
            (Value::map([("a", Value::Int(1)), ("long", list(vec![Value::Int(2)]))]), "a     1\nlong  [2]\n"),
            (Value::Map(vec![]), "#{}\n"),
        ] {
            assert_eq!(text(&value), shown);
        }
    }

    #[test]
    fn maps_come_as_a_table() {
        let row = |id: i64, name: &str| Value::map([("id", Value::Int(id)), ("name", Value::of(name))]);
        let third = Value::map([("id", Value::Int(100)), ("age", Value::Float(1.5))]);
        let shown = text(&Value::List(vec![row(1, "a\x1b"), row(20, &"x".repeat(300)), third]));
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["id", "name", "age"]);
        assert!(lines[1].starts_with("  1  a\\u{1b}"), "{shown}");
        assert!(lines[2].contains(&format!("{}…", "x".repeat(CELL))), "{shown}");
        assert!(lines[3].starts_with("100") && lines[3].ends_with("1.500"), "{shown}");
    }

    #[test]
    fn an_answer_has_an_end_and_says_so() {
        let many = Value::List(vec![Value::of("0123456789"); MOST_BYTES / 10]);
        let shown = text(&many);
        assert!(shown.len() < MOST_BYTES + 200, "{}", shown.len());
        assert!(
            shown
                .lines()
                .last()
                .is_some_and(|l| l.contains("more values were left out: an answer has at most 1024 KiB"))
        );
        let fits = Value::List(vec![Value::of("0123456789"); MOST_BYTES / 11]);
        assert!(!text(&fits).contains("left out"));
        let rows = Value::List(vec![Value::map([("a", Value::of("0123456789"))]); MOST_BYTES / 10]);
        let shown = text(&rows);
        assert!(shown.len() < MOST_BYTES + 200 && shown.contains("more rows were left out"), "{}", shown.len());
        let one = Value::of("x".repeat(3 * MOST_BYTES));
        assert!(text(&Value::List(vec![one.clone(), one.clone()])).len() < MOST_BYTES + 200);
        let (shown, left_out) = json(&many);
        assert!(left_out && shown.len() < MOST_BYTES + 200);
    }

    #[test]
    fn json_is_what_it_says() {
        let value = Value::map([
            ("a\"\\\n\x1b\u{202e}ü", Value::List(vec![Value::Nothing, Value::Float(f64::NAN), Value::Float(0.5)])),
            ("b", Value::map([("c", Value::Bool(false))])),
        ]);
        let shown = json(&value).0;
        assert_eq!(shown, "{\"a\\\"\\\\\\n\\u001b\\u202eü\":[null,null,0.5],\"b\":{\"c\":false}}");
        #[cfg(feature = "serde")]
        assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok());
    }
}
