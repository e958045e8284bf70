//! What the runtime tells without being asked: stalls, panics, deadlocks. One handler receives all of it as values; without
//! one it goes to stderr. The last kinds of panics and stalls are remembered.
//!
//! Must not know: who finds out, or over what the remembered ones are shown.

#![forbid(unsafe_code)]

mod deadlocks;
mod deliver;
mod memory;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::inspect::OneLine;

pub(crate) use deadlocks::start as look_for_deadlocks;
pub use deadlocks::{OnDeadlock, on_deadlock};
pub use deliver::set_report_handler;
#[cfg(feature = "backdoor")]
pub(crate) use deliver::{Delivery, deliver_surely};
pub(crate) use deliver::{deliver, deliver_late, handler_panics_again, has_handler, later};
pub(crate) use memory::{Suppressed, amend_stall, panic_budget, remember_panic, remember_stall};
pub use memory::{panics, stalls};

/// Something the runtime has to tell.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Report {
    /// A slice lasts longer than the threshold; told while it lasts, again at each doubling.
    Stall(StallReport),
    /// That slice has ended.
    StallEnded(StallReport),
    /// A panic ended a task.
    Panic(PanicReport),
    /// Tasks wait for one another. The text has every edge.
    Deadlock(DeadlockReport),
    /// A console session began or ended.
    Attach(String),
    /// A console session is about to change something.
    Audit(String),
}

impl Report {
    /// The id of the task that it is about; 0 for none.
    pub fn task(&self) -> u64 {
        match self {
            Report::Stall(s) | Report::StallEnded(s) => s.task.id,
            Report::Panic(p) => p.task.id,
            Report::Deadlock(d) => d.tasks.first().copied().unwrap_or(0),
            Report::Attach(_) | Report::Audit(_) => 0,
        }
    }
}

/// What it says, in one line but for a deadlock's.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Stall(s) => write!(f, "High Latency: ({:.3}s so far) for {s}", s.lasted.as_secs_f64()),
            Report::StallEnded(s) => write!(f, "High Latency: ({:.3}s) for {s}", s.lasted.as_secs_f64()),
            Report::Panic(p) => p.fmt(f),
            Report::Deadlock(d) => f.write_str(&d.text),
            Report::Attach(text) | Report::Audit(text) => write!(f, "{}", OneLine(text)),
        }
    }
}

/// The task that a report is about.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TaskIdentity {
    /// Its id; 0 for none.
    pub id: u64,
    /// Its name.
    pub name: Option<String>,
    /// Its class.
    pub class: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Where it was spawned, `file:line`.
    pub spawned_at: String,
    /// The tasks that spawned it, nearest first, as far as they still exist.
    pub lineage: Vec<u64>,
}

/// A slice that keeps its worker; see [`Report::Stall`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct StallReport {
    /// The task that runs.
    pub task: TaskIdentity,
    /// Worker, counted from 0 in its runtime, and the kernel's number of its thread.
    pub worker: usize,
    /// The kernel's number of the worker's thread.
    pub thread: i32,
    /// How long the slice has lasted.
    pub lasted: Duration,
    /// The threshold that was in force.
    pub threshold: Duration,
    /// CPU time of the thread in this slice, where the system tells.
    pub cpu: Option<Duration>,
    /// `spinning`, `blocked in futex`, `not scheduled (throttled)`.
    pub verdict: String,
    /// Tasks that wait for this worker.
    pub behind: usize,
    /// The condensed stack, innermost first; empty if it could not be had.
    pub stack: String,
    /// Reports that were not made because there were too many.
    pub suppressed: u64,
}

impl fmt::Display for StallReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task #{}", self.task.id)?;
        if let Some(name) = &self.task.name {
            write!(f, " \"{}\"", OneLine(name))?;
        }
        write!(f, " worker={}", self.worker)?;
        if !self.verdict.is_empty() {
            write!(f, " {}", self.verdict)?;
        }
        if !self.stack.is_empty() {
            write!(f, " {}", self.stack)?;
        }
        Ok(())
    }
}

impl fmt::Display for PanicReport {
    /// `task 17 (db writer): panic "…" at src/db.rs:31:5 [src/db.rs fetch|31] …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, location) = (self.task.name.as_deref(), self.location.as_deref());
        write!(f, "{}", PanicHead { id: self.task.id, name, message: &self.message, location })?;
        if !self.stack.is_empty() {
            write!(f, " {}", self.stack)?;
        }
        Ok(())
    }
}

/// What a line shows of a message, in bytes: a longer one could fill the buffer before stderr and push others out.
const LONGEST_MESSAGE: usize = 4096;

/// `task 17 (db writer): panic "…" at src/db.rs:31:5`.
pub(crate) struct PanicHead<'a> {
    pub(crate) id: u64,
    pub(crate) name: Option<&'a str>,
    pub(crate) message: &'a str,
    pub(crate) location: Option<&'a str>,
}

impl fmt::Display for PanicHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = (0..=LONGEST_MESSAGE.min(self.message.len())).rev().find(|i| self.message.is_char_boundary(*i));
        let (shown, cut) = self.message.split_at(end.unwrap_or(0));
        write!(f, "task {} ({}): panic {shown:?}", self.id, OneLine(self.name.unwrap_or("")))?;
        if !cut.is_empty() {
            write!(f, " and {} bytes more", cut.len())?;
        }
        match self.location {
            Some(at) => write!(f, " at {}", OneLine(at)),
            None => Ok(()),
        }
    }
}

/// A panic that ended a task; see [`Report::Panic`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct PanicReport {
    /// The task.
    pub task: TaskIdentity,
    /// The payload's text.
    pub message: String,
    /// `file:line:column`, if it was seen.
    pub location: Option<String>,
    /// The condensed stack, innermost first; empty if it was not seen.
    pub stack: String,
}

/// A circle of tasks; see [`Report::Deadlock`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeadlockReport {
    /// The tasks in it, at most 32 of them.
    pub tasks: Vec<u64>,
    /// Whether no one else could end it.
    pub certain: bool,
    /// The waits of these with resource, holder, age and stack, one a line; and how many more deadlocks were found that are
    /// not reported one by one.
    pub text: String,
}

/// One kind of panic or stall: those of one place.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Remembered {
    /// Where: the location of a panic, the innermost frame of a stall.
    pub site: String,
    /// How often.
    pub count: u64,
    /// The first time.
    pub first: SystemTime,
    /// The last time.
    pub last: SystemTime,
    /// The last one's message.
    pub message: String,
    /// The last one's stack, condensed.
    pub stack: String,
}

/// Whoever wants to be told.
pub type ReportHandler = Arc<dyn Fn(&Report) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_in_the_line_of_a_panic() {
        let mut report =
            PanicReport { message: "boom".into(), location: Some("src/a.rs:1:2".into()), ..Default::default() };
        report.task = TaskIdentity { id: 17, name: Some("db\nwriter".into()), ..TaskIdentity::default() };
        assert_eq!(report.to_string(), "task 17 (db\\nwriter): panic \"boom\" at src/a.rs:1:2");
        report.message = "ä".repeat(3000);
        let text = report.to_string();
        assert!(text.ends_with("ä\" and 1904 bytes more at src/a.rs:1:2"), "{text}");
        assert_eq!(report.message.len(), 6000);
    }
}
