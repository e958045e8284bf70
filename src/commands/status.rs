//! The triage view: the whole process on one screen, each line with the command that shows more.
//!
//! Invariants: bounded in time and size however many tasks there are, and it needs nothing of any worker. A line is there
//! if there is something to say; what is wrong is written in capitals.

use std::fmt::Write as _;
use std::time::Duration;

use super::Answer;
use super::tables::{LONGEST_NAME, ago};
use super::text::{age, bytes, clean, count, counted};
use crate::inspect::{self, Census, Sink};
use crate::report::{self, Remembered};
use crate::sys::usage;

/// How long it counts at a time.
pub(super) const PIECE: Duration = Duration::from_millis(20);
/// How long it counts in all before it says that it did not see every task.
pub(super) const PATIENCE: Duration = Duration::from_millis(400);
/// How many kinds of waits, and of wedged workers, are written out.
const KINDS: usize = 6;
const WEDGED: usize = 4;
/// Loads of so many workers are written out.
const LOADS: usize = 16;

/// Begins the view.
pub(crate) fn status() -> Box<dyn Answer> {
    Box::new(Status(Census::new()))
}

/// Status and stacks, for standard error.
pub(crate) fn dump(sink: Sink<'_>) {
    let pid = std::process::id();
    if !sink(format!("coro: dump of pid {pid}\n").as_bytes()) {
        return;
    }
    let parts: [fn() -> Box<dyn Answer>; 2] =
        [status, || Box::new(inspect::StacksCursor::new(false, inspect::Style::PLAIN))];
    for part in parts {
        let mut answer = part();
        let mut more = true;
        while more {
            let mut piece = Vec::new();
            more = answer.more(&mut piece);
            if !sink(&piece) {
                return;
            }
        }
    }
    sink(format!("coro: end of the dump of pid {pid}\n").as_bytes());
}

struct Status(Census);

impl Answer for Status {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if self.0.more(PIECE, PATIENCE) {
            return true;
        }
        let mut text = String::new();
        tasks(&self.0, &mut text);
        wedged(&self.0, &mut text);
        deadlocks(&mut text);
        waits(&self.0, &mut text);
        files(&mut text);
        memory(&self.0, &mut text);
        remembered("panics", "task died", "tasks died", report::panics(), &mut text);
        remembered("stalls", "slice was too long", "slices were too long", report::stalls(), &mut text);
        workers(&self.0, &mut text);
        out.extend_from_slice(text.as_bytes());
        false
    }
}

/// One line: what, its text, and where there is more.
fn line(out: &mut String, what: &str, text: &str, more: &str) {
    let _ = writeln!(out, "{what:<10} {text}  → {more}");
}

fn tasks(c: &Census, out: &mut String) {
    let mut states = Vec::new();
    for (n, what) in
        [(c.running, "running"), (c.runnable, "runnable"), (c.unstarted, "unstarted"), (c.parked, "parked")]
    {
        if n > 0 {
            let oldest =
                if what == "runnable" { format!(" (up to {})", age(c.oldest_runnable)) } else { String::new() };
            states.push(format!("{} {what}{oldest}", count(n as u64)));
        }
    }
    let cut = if c.cut { format!("; counted for {}, THERE ARE MORE", age(c.took)) } else { String::new() };
    line(out, "tasks", &format!("{}: {}{cut}", count(c.tasks() as u64), states.join(", ")), "where_all");
}

fn waits(c: &Census, out: &mut String) {
    if c.waits.is_empty() {
        return;
    }
    let mut waits: Vec<_> = c.waits.iter().collect();
    waits.sort_by_key(|w| (std::cmp::Reverse(w.count), w.word));
    let mut text: Vec<String> = Vec::new();
    for w in waits.iter().take(KINDS) {
        text.push(format!("{} {} (up to {})", count(w.count as u64), w.word, age(w.oldest.1)));
    }
    if let Some(rest) = waits.get(KINDS..).filter(|rest| !rest.is_empty()) {
        text.push(format!("{} others", count(rest.iter().map(|w| w.count as u64).sum())));
    }
    line(out, "waits", &text.join(", "), "stacks");
    if let Some(t) = c.longest_wait() {
        let id = t.id;
        line(out, "longest", &t.to_string(), &format!("where {id}"));
    }
}

fn wedged(c: &Census, out: &mut String) {
    let mut all: Vec<_> = c.workers.iter().filter(|w| w.wedged).collect();
    // Those that began about together stand in their own order.
    all.sort_by_key(|w| (std::cmp::Reverse(w.current.map(|(_, lasted)| lasted.as_secs())), w.index));
    for w in all.iter().take(WEDGED) {
        let Some((id, lasted)) = w.current else { continue };
        let who = c.culprit(w).map_or_else(|| format!("#{id}, which has just ended"), |t| t.to_string());
        let behind = counted(w.behind as u64, "task waits", "tasks wait");
        let text = format!("worker {} for {}: {who}; {behind} behind it", w.index, age(lasted));
        line(out, "WEDGED", &text, &format!("where {id}"));
    }
    if all.len() > WEDGED {
        line(out, "WEDGED", &counted((all.len() - WEDGED) as u64, "more worker", "more workers"), "workers");
    }
}

fn deadlocks(out: &mut String) {
    let all = inspect::deadlocks();
    let Some(first) = all.first() else { return };
    let said = first.to_string();
    let said = said.lines().next().unwrap_or_default().trim_start_matches("deadlock: ");
    let ids: Vec<String> = first.waits.iter().take(KINDS).map(|w| format!("#{}", w.task.id)).collect();
    let more = if all.len() > 1 { format!("; and {} more", count(all.len() as u64 - 1)) } else { String::new() };
    line(out, "DEADLOCK", &format!("{said}: {}{more}", ids.join(" ")), "deadlocks");
}

fn remembered(what: &str, one: &str, more: &str, all: Vec<Remembered>, out: &mut String) {
    let Some(last) = all.iter().max_by_key(|kind| kind.last) else { return };
    let n = all.iter().map(|kind| kind.count).sum();
    let site = clean(&last.site, LONGEST_NAME);
    let places = if all.len() > 1 { format!(" in {} places", all.len()) } else { String::new() };
    let text = format!("{}{places}, the last {} at {site}", counted(n, one, more), ago(last.last));
    line(out, what, &text, what);
}

fn files(out: &mut String) {
    let used = inspect::descriptors();
    let short = used.limit.is_some_and(|limit| used.open as u64 + limit / 10 >= limit);
    line(out, if short { "FILES" } else { "files" }, &used.to_string(), "fds");
}

fn memory(c: &Census, out: &mut String) {
    let m = usage::memory();
    let mut text = format!("{}{} resident", if m.only_peak { "at most " } else { "" }, bytes(m.resident));
    if let Ok(s) = inspect::stack_stats() {
        let pooled = s.committed.saturating_sub(s.in_use) as u64;
        let _ = write!(text, "; stacks: {} in use, {} pooled", count(s.in_use as u64), count(pooled));
    }
    let depth = c.depth();
    if depth.looked_at > 0 {
        let (deep, id, size) = depth.deepest_ever;
        let some =
            if depth.looked_at < c.parked { format!(" of {} looked at", depth.looked_at) } else { String::new() };
        let _ = write!(text, ", deepest{some} {} of {} (#{id})", bytes(deep as u64), bytes(size as u64));
    }
    line(out, "memory", &text, "memory");
}

fn workers(c: &Census, out: &mut String) {
    let loads: Vec<String> = c.workers.iter().take(LOADS).map(|w| format!("{:.0}%", w.load * 100.0)).collect();
    let more = if c.workers.len() > LOADS { " …" } else { "" };
    let n = counted(c.workers.len() as u64, "worker", "workers");
    let (user, system) = usage::cpu();
    let text = format!("{n}, load {}{more}; up {}, CPU {}", loads.join(" "), age(c.uptime()), age(user + system));
    line(out, "workers", &text, "workers");
}
