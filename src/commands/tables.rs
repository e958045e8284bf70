//! Workers, classes and memory as tables.

use std::fmt::Write as _;
use std::io;
use std::time::SystemTime;

use super::Answer;
use super::text::{age, at_once, bytes, clean, count, rows, table};
use crate::inspect::{self, Census};
use crate::report::{self, Remembered};
use crate::sys::usage;

/// How much of a class's name is shown.
pub(super) const LONGEST_NAME: usize = 80;

/// And of a panic's message.
pub(super) const LONGEST_MESSAGE: usize = 200;

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

pub(super) fn deadlocks(suspected: bool) -> Box<dyn Answer> {
    let certain = inspect::Circles::find();
    let suspects = suspected.then(inspect::Circles::suspect);
    let found = certain.len() + suspects.as_ref().map_or(0, inspect::Circles::len);
    let mut all = certain.described();
    match suspects {
        Some(suspects) => all.extend(suspects.described()),
        None => all.extend(inspect::quiet()),
    }
    let text = match (all.len(), suspected) {
        (0, false) => {
            "no deadlocks; deadlocks --suspected also shows circles over channels and semaphores\n".to_owned()
        }
        (0, true) => "no deadlocks, and none suspected\n".to_owned(),
        (shown, _) if shown < found => format!("{} circles, of which these are some:\n", count(found as u64)),
        _ => String::new(),
    };
    rows(&text, all, |one, out| {
        let _ = write!(out, "{one}");
        if !out.ends_with('\n') {
            out.push('\n');
        }
    })
}

pub(super) fn panics() -> Box<dyn Answer> {
    remembered(report::panics(), "no panic has ended a task\n")
}

pub(super) fn stalls() -> Box<dyn Answer> {
    remembered(report::stalls(), "no slice was longer than the threshold\n")
}

fn remembered(all: Vec<Remembered>, none: &'static str) -> Box<dyn Answer> {
    let head = if all.is_empty() { none } else { "" };
    rows(head, all, |kind, out| {
        let (first, last) = (ago(kind.first), ago(kind.last));
        let when = if kind.count == 1 { last } else { format!("first {first}, last {last}") };
        let site = clean(&kind.site, LONGEST_NAME);
        let _ = writeln!(out, "{}x {site}, {when}: {}", count(kind.count), clean(&kind.message, LONGEST_MESSAGE));
        if !kind.stack.is_empty() {
            let _ = writeln!(out, "  {}", kind.stack);
        }
    })
}

/// `3.2s ago`, as far as the clock was not set meanwhile.
pub(super) fn ago(then: SystemTime) -> String {
    format!("{} ago", age(then.elapsed().unwrap_or_default()))
}

pub(super) fn workers() -> Box<dyn Answer> {
    let mut census = Census::new();
    while census.more(super::status::PIECE, super::status::PATIENCE) {}
    let mut rows =
        vec![row(["worker", "thread", "load", "live", "runnable", "unstarted", "slices", "busy", "parks", "now"])];
    let several = census.workers.iter().any(|w| w.runtime > 0);
    for w in &census.workers {
        let place = if several { format!("{}/{}", w.runtime, w.index) } else { w.index.to_string() };
        let now = match w.current {
            None if w.asleep => "asleep".to_owned(),
            None => "between tasks".to_owned(),
            Some((id, lasted)) => format!("{} #{id} for {}", if w.wedged { "WEDGED by" } else { "runs" }, age(lasted)),
        };
        rows.push(vec![
            place,
            w.thread.to_string(),
            format!("{:.0}%", w.load * 100.0),
            count(w.live as u64),
            count(w.behind as u64),
            count(w.unstarted as u64),
            count(w.slices),
            age(w.busy),
            count(w.parks),
            now,
        ]);
    }
    table("", rows)
}

pub(super) fn classes() -> Box<dyn Answer> {
    let mut all = inspect::classes();
    all.sort_by_key(|c| std::cmp::Reverse((c.run_time, c.live, c.ended)));
    let before = "slices: how long a task keeps its worker. delays: from a wake-up to the slice that it leads to.\n";
    let mut rows = vec![row([
        "live",
        "ended",
        "slices",
        "run time",
        "slice p50",
        "p99",
        "longest",
        "delay p50",
        "p99",
        "longest",
        "class",
    ])];
    for c in &all {
        let of = |d: &inspect::Distribution| [age(d.quantile(0.5)), age(d.quantile(0.99)), age(d.longest())];
        let mut cells = vec![count(c.live), count(c.ended), count(c.slices), age(c.run_time)];
        cells.extend(of(&c.slice_lengths));
        cells.extend(of(&c.wake_delays));
        cells.push(clean(&c.class, LONGEST_NAME));
        rows.push(cells);
    }
    // The first column is the one that stands left.
    for cells in &mut rows {
        let class = cells.pop().unwrap_or_default();
        cells.insert(0, class);
    }
    table(before, rows)
}

pub(super) fn memory() -> Box<dyn Answer> {
    at_once(memory_text().unwrap_or_else(|e| format!("memory: {e}\n")))
}

fn memory_text() -> io::Result<String> {
    let mut text = String::new();
    let m = usage::memory();
    let peak = if m.only_peak { " at its peak (no descriptor left to ask for more)" } else { "" };
    text += &format!("resident      {}{peak}\n", bytes(m.resident));
    if let Some(tables) = m.page_tables {
        text += &format!("page tables   {}\n", bytes(tables));
    }
    let s = inspect::stack_stats()?;
    let pooled = s.committed.saturating_sub(s.in_use);
    text += &format!("stacks        {} in use, {} pooled", count(s.in_use as u64), count(pooled as u64));
    text += &format!("; {} promised to tasks\n", count(s.promised as u64));
    text += &format!("guards        {}, {} mappings\n", s.guards, count(s.guard_mappings as u64));
    let mut census = Census::new();
    while census.more(super::status::PIECE, super::status::PATIENCE) {}
    let depth = census.depth();
    let one = |what: &str, (deep, id, size): (usize, u64, usize)| {
        format!("{what} {} of {} by #{id}\n", bytes(deep as u64), bytes(size as u64))
    };
    if depth.looked_at > 0 {
        text += &one("deepest now  ", depth.deepest_now);
        text += &one("deepest ever ", depth.deepest_ever);
        let parked = census.parked as u64;
        text +=
            &format!("              of {} parked tasks, {} looked at", count(parked), count(depth.looked_at as u64));
        text += "; `ever` is in whole pages, by whatever task had that stack\n";
    }
    Ok(text)
}
