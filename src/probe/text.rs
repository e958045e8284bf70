//! How events and findings are written for people.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::time::Duration;

use super::event::{Event, Events};
use crate::observe::Distribution;
use crate::scheduler::suspend::here;
use crate::value::{Value, age};

/// `12.3 µs`; from a minute on as ages are in every view, `600.0s`, `23h59m`: nobody reads tenths of milliseconds of those.
pub(super) fn duration(d: Duration) -> String {
    let ns = d.as_nanos() as f64;
    match ns {
        ..1e3 => format!("{ns:.0} ns"),
        ..1e6 => format!("{:.1} µs", ns / 1e3),
        ..1e9 => format!("{:.1} ms", ns / 1e6),
        ..60e9 => format!("{:.2} s", ns / 1e9),
        _ => age(d),
    }
}

/// Names and files are anybody's: nothing of them steers a terminal or begins a line.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// The same of a line that is mostly plain.
pub(super) fn into_plain(line: String) -> String {
    // Letters such as that of a microsecond also, and no soft hyphen.
    let is_plain = |c: char| matches!(c, ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{2ff}');
    if line.chars().all(is_plain) { line } else { plain(&line) }
}

/// A value in one line.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::Nothing => "()".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(x) => format!("{x:?}"),
        Value::Text(text) => format!("{text:?}"),
        Value::List(all) => format!("[{}]", all.iter().map(self::value).collect::<Vec<_>>().join(", ")),
        Value::Map(all) => {
            let entries = all.iter().map(|(name, v)| format!("{name}: {}", self::value(v)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

/// One event in one line: `app::cache::get(key="a") => Some(3) in 12.3 µs, #17`.
pub(super) fn line(event: &Event<'_>) -> String {
    let mut out = line_without_task(event);
    if let Some(h) = here() {
        let _ = write!(out, ", #{}", h.id());
    }
    out
}

/// The same without the task.
pub(super) fn line_without_task(event: &Event<'_>) -> String {
    let mut out = event.point.name().to_owned();
    if event.kind == Events::MARK {
        if let Some(mark) = event.mark().filter(|mark| !std::ptr::eq(*mark, event.point)) {
            let name = mark.name().rsplit("::").next().unwrap_or_default();
            let _ = write!(out, "/{name}");
        }
        let values = event.values_text();
        if !values.is_empty() {
            let _ = write!(out, " {values}");
        }
    } else {
        let _ = write!(out, "({})", event.values_text());
    }
    match event.kind {
        Events::CALL => out.push_str(" begins"),
        Events::RETURN => {
            let _ =
                write!(out, " {} {}", if event.failed { "~" } else { "=>" }, event.result_text().unwrap_or_default());
        }
        Events::PANIC => out.push_str(" ~ unwinds"),
        _ => {}
    }
    match (event.segment(), event.elapsed()) {
        (Some((_, since)), Some(all)) if event.kind == Events::MARK => {
            let _ = write!(out, " after {}, +{}", duration(all), duration(since));
        }
        (_, Some(all)) => {
            let _ = write!(out, " in {}", duration(all));
        }
        _ => {}
    }
    out
}

/// Rows of a histogram that are drawn.
const ROWS: usize = 14;
const WIDTH: usize = 40;

/// Durations, drawn.
pub(super) fn histogram(all: &Distribution) -> String {
    if all.count() == 0 {
        return "hist nothing yet".to_owned();
    }
    let at = |q| duration(all.quantile(q));
    let mut out = format!(
        "hist {} calls, {} in all; half below {}, 90 % below {}, 99 % below {}, 99.9 % below {}, all below {}",
        all.count(),
        duration(all.total()),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        duration(all.longest())
    );
    // Neighbours together, until they fit.
    let mut rows: Vec<(Duration, u64)> = all.buckets().collect();
    while rows.len() > ROWS {
        rows = rows.chunks(2).map(|two| (two[two.len() - 1].0, two.iter().map(|(_, n)| n).sum())).collect();
    }
    let most = rows.iter().map(|(_, n)| *n).max().unwrap_or(1);
    for (end, n) in rows {
        let bar = "#".repeat(((n as f64 / most as f64) * WIDTH as f64).ceil() as usize);
        let _ = write!(out, "\n  {:>9} {n:>9} {bar}", duration(end));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_fine_as_they_are_read() {
        let texts = [7, 12_340, 5_000_000, 59_990_000_000, 60_000_000_000, 86_399_520_000_000]
            .map(|ns| duration(Duration::from_nanos(ns)));
        assert_eq!(texts, ["7 ns", "12.3 µs", "5.0 ms", "59.99 s", "60.0s", "23h59m"]);
    }
}
