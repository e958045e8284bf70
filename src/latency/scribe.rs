//! The second line of a stall, the one with files and lines, and the report as a value.
//!
//! A thread of its own, because naming lines allocates, takes locks and reads files, none of which the watchdog may do. If
//! it is stuck the watchdog's lines go on. Must not know: how a stall is found.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use super::record::{Record, TO_SCRIBE};
use crate::inspect::OneLine;
use crate::observe::class;
use crate::report::{self, Report, StallReport, TaskIdentity, deliver};
use crate::scheduler::all_cells;
use crate::sys::clock;

static SCRIBE: OnceLock<Thread> = OnceLock::new();

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

/// For ever.
pub(super) fn run() -> ! {
    let _ = SCRIBE.set(std::thread::current());
    let mut open = HashMap::new();
    loop {
        while let Some(words) = TO_SCRIBE.pop() {
            write(&Record::from_words(&words), &mut open);
        }
        std::thread::park_timeout(ZONE);
        look_at_time_zone();
    }
}

/// Under what name the stalls that have not ended are remembered, by worker and slice.
type Open = HashMap<(u16, u64), String>;
/// Closing lines can be lost where there are too many; then older stalls are forgotten.
const MOST_OPEN: usize = 1024;

/// What is known of the task beside its name; less once it has ended.
fn identity(record: &Record) -> TaskIdentity {
    let o = &record.slice;
    let mut identity = TaskIdentity { id: o.id, name: o.name.get().map(str::to_owned), ..TaskIdentity::default() };
    let cell = all_cells().find(|c| std::ptr::from_ref(*c).addr() == o.at && c.state.snapshot().id() == o.id);
    if let Some(class) = cell.and_then(|c| class::get(c.class.load(Ordering::Relaxed))) {
        identity.class = class.to_string();
    }
    if let Some(t) = crate::inspect::where_is(o.id) {
        identity.labels = t.labels;
        identity.spawned_at = t.spawned_at.map_or_else(String::new, |s| format!("{}:{}", s.file(), s.line()));
        identity.lineage = if t.parent == 0 { Vec::new() } else { vec![t.parent] };
        // Whole, if it was cut.
        identity.name = t.name;
    }
    identity
}

fn write(record: &Record, open: &mut Open) {
    let o = &record.slice;
    let report = StallReport {
        task: identity(record),
        worker: o.ordinal.into(),
        thread: record.thread,
        lasted: record.lasted,
        threshold: clock::duration(o.threshold),
        cpu: record.cpu,
        verdict: if record.ended { String::new() } else { record.verdict.to_string() },
        behind: record.behind as usize,
        stack: String::new(),
        suppressed: record.suppressed,
    };
    remember(record, &report, open);
    // Without a handler the watchdog has told.
    let _ = deliver(|| if record.ended { Report::StallEnded(report) } else { Report::Stall(report) });
}

/// Once per stall, and again what it came to.
fn remember(record: &Record, report: &StallReport, open: &mut Open) {
    let key = (record.slice.worker, record.slice.slice);
    let message = message(report);
    let site = || if report.task.class.is_empty() { "unknown".to_owned() } else { report.task.class.clone() };
    match (record.ended, open.get(&key)) {
        (_, Some(site)) => report::amend_stall(site, &message),
        (true, None) => _ = report::remember_stall(&site(), &message, &report.stack),
        (false, None) => {
            let site = site();
            report::remember_stall(&site, &message, &report.stack);
            if open.len() >= MOST_OPEN {
                open.clear();
            }
            open.insert(key, site);
        }
    }
    if record.ended {
        open.remove(&key);
    }
}

/// `0.210s so far, spinning, task #17 "db writer"`.
fn message(r: &StallReport) -> String {
    let mut text = format!("{:.3}s", r.lasted.as_secs_f64());
    if !r.verdict.is_empty() {
        text.push_str(" so far, ");
        text.push_str(&r.verdict);
    }
    let _ = write!(text, ", task #{}", r.task.id);
    if let Some(name) = &r.task.name {
        let _ = write!(text, " \"{}\"", OneLine(name));
    }
    text
}
