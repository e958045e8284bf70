//! The triage view: the whole process on one screen, each line with the command that shows more.
//!
//! Invariants: bounded in time and size however many tasks there are, and it needs nothing of any worker. A line is there
//! if there is something to say; what is wrong is written in capitals.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::time::Duration;

use super::Answer;
use super::tables::{LONGEST_NAME, ago};
use super::text::{age, bytes, clean, count, counted};
use crate::inspect::{self, Census, DeadlockKind, Sink, Style, TaskWhere};
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
pub(crate) fn status(style: Style) -> Box<dyn Answer> {
    Box::new(Status { census: Census::new(), style })
}

/// All of it; it is short.
pub(crate) fn status_text(style: Style) -> String {
    let (mut answer, mut text) = (status(style), Vec::new());
    while answer.more(&mut text) {}
    String::from_utf8_lossy(&text).into_owned()
}

/// Status and stacks, for standard error.
pub(crate) fn dump(sink: Sink<'_>) {
    let pid = std::process::id();
    if !sink(format!("coro: dump of pid {pid}\n").as_bytes()) {
        return;
    }
    let style = if is_coloured() { Style::COLOURED } else { Style::PLAIN };
    let parts: [fn(Style) -> Box<dyn Answer>; 2] = [status, |style| Box::new(inspect::StacksCursor::new(false, style))];
    for part in parts {
        let mut answer = part(style);
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

/// Whether standard error is a terminal whose user has nothing against colours.
fn is_coloured() -> bool {
    let says = |name, unwanted: fn(&std::ffi::OsStr) -> bool| std::env::var_os(name).is_some_and(|v| unwanted(&v));
    io::stderr().is_terminal() && !says("NO_COLOR", |v| !v.is_empty()) && !says("TERM", |v| v == "dumb")
}

/// From so many messages in channels on they have a line: a queue that grows is where memory goes.
const MANY_MESSAGES: usize = 1000;

struct Status {
    census: Census,
    style: Style,
}

impl Answer for Status {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if self.census.more(PIECE, PATIENCE) {
            return true;
        }
        let mut lines = Lines { text: String::new(), style: self.style };
        tasks(&self.census, &mut lines);
        wedged(&self.census, &mut lines);
        deadlocks(&mut lines);
        waits(&self.census, &mut lines);
        queues(&mut lines);
        files(&mut lines);
        memory(&self.census, &mut lines);
        remembered("panics", "panic", "panics", report::panics(), &mut lines);
        remembered("stalls", "slice was too long", "slices were too long", report::stalls(), &mut lines);
        workers(&self.census, &mut lines);
        out.extend_from_slice(lines.text.as_bytes());
        false
    }
}

struct Lines {
    text: String,
    style: Style,
}

impl Lines {
    /// One line: what, its text, and the command that shows more. What is wrong comes in capitals, and red where there are
    /// colours.
    fn add(&mut self, what: &str, text: &str, more: &str) {
        let (on, off) = match (self.style.colour, what.starts_with(char::is_uppercase)) {
            (false, _) => ("", ""),
            (true, true) => ("\x1b[1;31m", "\x1b[0m"),
            (true, false) => ("\x1b[1m", "\x1b[0m"),
        };
        let (dim, end) = if self.style.colour { ("\x1b[2m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(self.text, "{on}{what:<10}{off} {text}  {dim}→ {more}{end}");
    }
}

fn tasks(c: &Census, out: &mut Lines) {
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
    out.add("tasks", &format!("{}: {}{cut}", count(c.tasks() as u64), states.join(", ")), "where_all");
}

fn waits(c: &Census, out: &mut Lines) {
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
    out.add("waits", &text.join(", "), "stacks");
    if let Some(t) = c.longest_wait() {
        let id = t.id;
        out.add("longest", &t.to_string(), &format!("where {id}"));
    }
}

fn queues(out: &mut Lines) {
    let Some(q) = inspect::queued().filter(|q| q.messages >= MANY_MESSAGES) else { return };
    let channels = counted(q.channels as u64, "channel", "channels");
    let (messages, most) = (count(q.messages as u64), count(q.most as u64));
    out.add("queues", &format!("{messages} messages wait in {channels}, {most} of them in {}", q.fullest), "objects");
}

fn wedged(c: &Census, out: &mut Lines) {
    let mut all: Vec<_> = c.workers.iter().filter(|w| w.wedged).collect();
    // Those that began about together stand in their own order.
    all.sort_by_key(|w| (std::cmp::Reverse(w.current.map(|(_, lasted)| lasted.as_secs())), w.index));
    for w in all.iter().take(WEDGED) {
        let Some((id, lasted)) = w.current else { continue };
        let who = c.culprit(w).map_or_else(|| format!("#{id}, which has just ended"), |t| culprit(&t));
        let behind = counted(w.behind as u64, "task waits", "tasks wait");
        let text = format!("worker {} for {}: {who}; {behind} behind it", w.index, age(lasted));
        out.add("WEDGED", &text, &format!("where {id}"));
    }
    if all.len() > WEDGED {
        out.add("WEDGED", &counted((all.len() - WEDGED) as u64, "more worker", "more workers"), "workers");
    }
}

/// Who keeps a worker, without what the line says already.
fn culprit(t: &TaskWhere) -> String {
    let mut text = format!("#{}", t.id);
    if let Some(name) = &t.name {
        let _ = write!(text, " \"{}\"", clean(name, LONGEST_NAME));
    }
    for (key, value) in &t.labels {
        let _ = write!(text, " {}={}", clean(key, LONGEST_NAME), clean(value, LONGEST_NAME));
    }
    for part in [&t.wait, &t.stack] {
        if !part.is_empty() {
            let _ = write!(text, " {part}");
        }
    }
    if let (true, Some(site)) = (t.stack.is_empty(), t.spawned_at) {
        let _ = write!(text, " spawned at {}:{}", site.file(), site.line());
    }
    text
}

fn deadlocks(out: &mut Lines) {
    let (circles, quiet) = (inspect::Circles::find(), inspect::quiet());
    let all = circles.len() + usize::from(quiet.is_some());
    let (kind, n, ids): (_, _, Vec<u64>) = match quiet {
        _ if circles.len() > 0 => {
            let ids: Vec<u64> = circles.tasks(0).into_iter().map(|(id, _)| id).collect();
            (DeadlockKind::Circle, ids.len(), ids)
        }
        Some(d) => (d.kind, d.tasks, d.waits.iter().map(|w| w.task.id).collect()),
        None => return,
    };
    let said = kind.sentence(n);
    let said = said.trim_start_matches("deadlock: ");
    let ids: Vec<String> = ids.iter().take(KINDS).map(|id| format!("#{id}")).collect();
    let more = if all > 1 { format!("; and {} more", count(all as u64 - 1)) } else { String::new() };
    out.add("DEADLOCK", &format!("{said}: {}{more}", ids.join(" ")), "deadlocks");
}

fn remembered(what: &str, one: &str, more: &str, all: Vec<Remembered>, out: &mut Lines) {
    let Some(last) = all.iter().max_by_key(|kind| kind.last) else { return };
    let n = all.iter().map(|kind| kind.count).sum();
    let site = clean(&last.site, LONGEST_NAME);
    let places = if all.len() > 1 { format!(" in {} places", all.len()) } else { String::new() };
    let text = format!("{}{places}, the last {} at {site}", counted(n, one, more), ago(last.last));
    out.add(what, &text, what);
}

fn files(out: &mut Lines) {
    let used = inspect::descriptors();
    let short = used.limit.is_some_and(|limit| used.open as u64 + limit / 10 >= limit);
    out.add(if short { "FILES" } else { "files" }, &used.to_string(), "fds");
}

fn memory(c: &Census, out: &mut Lines) {
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
    out.add("memory", &text, "memory");
}

fn workers(c: &Census, out: &mut Lines) {
    let loads: Vec<String> = c.workers.iter().take(LOADS).map(|w| format!("{:.0}%", w.load * 100.0)).collect();
    let more = if c.workers.len() > LOADS { " …" } else { "" };
    let n = counted(c.workers.len() as u64, "worker", "workers");
    let (user, system) = usage::cpu();
    let text = format!("{n}, load {}{more}; up {}, CPU {}", loads.join(" "), age(c.uptime()), age(user + system));
    out.add("workers", &text, "workers");
}
