//! The second line of a stall, the one with files and lines, and the report as a value.
//!
//! A thread of its own, because naming lines allocates, takes locks and reads files, none of which the watchdog may do. If
//! it is stuck the watchdog's lines go on. Must not know: how a stall is found.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use super::record::{Record, TO_SCRIBE};
use super::stack::Renewal;
use crate::inspect::{self, OneLine};
use crate::observe::class;
use crate::report::{self, Report, StallReport, TaskIdentity, deliver};
use crate::scheduler::all_cells;
use crate::sys::{clock, stderr};

static SCRIBE: OnceLock<Thread> = OnceLock::new();
static EXPECTED: AtomicBool = AtomicBool::new(false);

/// Seconds that the local time is ahead of UTC, as of the last look.
static AHEAD: AtomicI64 = AtomicI64::new(0);
/// The time zone is asked for again after so long.
const ZONE: Duration = Duration::from_secs(600);

pub(super) fn ahead() -> i64 {
    AHEAD.load(Ordering::Relaxed)
}

pub(super) fn look_at_time_zone() {
    AHEAD.store(clock::ahead_of_utc(), Ordering::Relaxed);
}

/// There is something to write. Allocates nothing.
pub(super) fn ring() {
    if let Some(thread) = SCRIBE.get() {
        thread.unpark();
    }
}

/// A slice is getting long: names may be needed soon. The first time, the files that have them are read.
pub(super) fn expect() {
    if !EXPECTED.load(Ordering::Relaxed) {
        EXPECTED.store(true, Ordering::Relaxed);
        ring();
    }
}

/// For ever.
pub(super) fn run() -> ! {
    let _ = SCRIBE.set(std::thread::current());
    let (mut open, mut renewal) = (HashMap::new(), Renewal::default());
    let mut looked = false;
    loop {
        if !looked && (EXPECTED.load(Ordering::Relaxed) || !TO_SCRIBE.is_empty()) {
            renewal.look();
            looked = true;
        }
        while let Some(words) = TO_SCRIBE.first() {
            write(&Record::from_words(&words), &mut open, &renewal);
            // Only now: until then the process's exit waits.
            TO_SCRIBE.remove_first();
            if TO_SCRIBE.is_empty() {
                // For the next one, if modules were loaded meanwhile.
                renewal.look();
            }
        }
        if TO_SCRIBE.is_empty() {
            std::thread::park_timeout(ZONE);
            look_at_time_zone();
        }
    }
}

/// Under what name the stalls that have not ended are remembered, by worker and slice.
type Open = HashMap<(u16, u64), String>;
/// Closing lines can be lost where there are too many; then older stalls are forgotten.
const MOST_OPEN: usize = 1024;

/// The task by number, name and class.
fn short(record: &Record) -> TaskIdentity {
    let o = &record.slice;
    let mut identity = TaskIdentity { id: o.id, name: o.name.get().map(str::to_owned), ..TaskIdentity::default() };
    if let Some(cell) = all_cells().find(|c| std::ptr::from_ref(*c).addr() == o.at) {
        let class = cell.class.load(Ordering::Relaxed);
        // The cell may have a new task by now.
        if cell.state.snapshot().id() == o.id {
            identity.class = class::get(class).map_or_else(String::new, |c| c.to_string());
        }
    }
    identity
}

/// The rest, of a task that has not ended. Looks through all tasks.
fn complete(identity: &mut TaskIdentity) {
    identity.labels = inspect::labels(identity.id);
    // The first is the task itself.
    let mut family = inspect::ancestors(identity.id).into_iter();
    if let Some(own) = family.next() {
        identity.name = own.name.map(|n| n.to_string());
        identity.spawned_at = own.site.map_or_else(String::new, |s| format!("{}:{}", s.file(), s.line()));
        identity.lineage = family.map(|o| o.id).collect();
    }
}

fn write(record: &Record, open: &mut Open, renewal: &Renewal) {
    let o = &record.slice;
    let mut report = StallReport {
        task: short(record),
        worker: o.ordinal.into(),
        thread: record.thread,
        lasted: record.lasted,
        threshold: clock::duration(o.threshold),
        cpu: record.cpu,
        verdict: if record.ended || record.quiet { String::new() } else { record.verdict.to_string() },
        behind: record.behind as usize,
        stack: String::new(),
        suppressed: record.suppressed,
    };
    // The lines may take long; that there is a stall is known before.
    let site = remember(record, &report, open, renewal);
    let addresses = &record.addresses[..record.frames];
    if !addresses.is_empty() {
        report.stack = inspect::stack_text(addresses);
        if !record.whole {
            report.stack.push_str(" [...]");
        }
        if !record.quiet && !report::has_handler() {
            stderr::write(&lines(&report));
        }
        report::amend_stall(&site, &message(&report), &report.stack);
    }
    if !record.quiet {
        // Without a handler that line and the watchdog's are all.
        let _ = deliver(|| {
            complete(&mut report.task);
            if record.ended { Report::StallEnded(report) } else { Report::Stall(report) }
        });
    }
}

/// `coro: task 17 (db writer) after 0.210s on worker 0: [src/db.rs fetch|31] [src/main.rs serve|12]`.
fn lines(r: &StallReport) -> String {
    let name = match &r.task.name {
        Some(name) => format!(" ({})", OneLine(name)),
        None => String::new(),
    };
    format!("coro: task {}{name} after {:.3}s on worker {}: {}\n", r.task.id, r.lasted.as_secs_f64(), r.worker, r.stack)
}

/// Once per stall, and again what it came to. Returns under what name.
fn remember(record: &Record, report: &StallReport, open: &mut Open, renewal: &Renewal) -> String {
    let key = (record.slice.worker, record.slice.slice);
    let message = message(report);
    let known = if record.ended { open.remove(&key) } else { open.get(&key).cloned() };
    if let Some(site) = known {
        report::amend_stall(&site, &message, "");
        return site;
    }
    // Of a stack that is not known, what kind of task it is.
    let class = || if report.task.class.is_empty() { "unknown".to_owned() } else { report.task.class.clone() };
    let site = renewal.culprit(&record.addresses[..record.frames]).unwrap_or_else(class);
    report::remember_stall(&site, &message, "");
    if !record.ended {
        if open.len() >= MOST_OPEN {
            open.clear();
        }
        open.insert(key, site.clone());
    }
    site
}

/// `0.210s so far, spinning, task #17 "db writer"`.
fn message(r: &StallReport) -> String {
    let mut text = format!("{:.3}s", r.lasted.as_secs_f64());
    if !r.verdict.is_empty() {
        let _ = write!(text, " so far, {}", r.verdict);
    }
    let _ = write!(text, ", task #{}", r.task.id);
    if let Some(name) = &r.task.name {
        let _ = write!(text, " \"{}\"", OneLine(name));
    }
    text
}
