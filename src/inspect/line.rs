//! Every task with what it does, as values and as lines.
//!
//! Must not know: how a line is written (`row`), how tasks are walked (`sweep`).

#![forbid(unsafe_code)]

use std::fmt;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use super::capture::{Captured, Doing};
use super::frames::{CUT, Frames, frames};
use super::row::{Row, States};
use super::sweep::{Sweep, Swept, Then, cell_of};
use super::text::{Style, push_age};
use super::waits::describe;
use crate::observe::WaitKind;
use crate::scheduler::shared;
use crate::task::TaskCell;

/// What a task was doing when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum TaskState {
    /// Spawned, has not run.
    Unstarted,
    /// Could run, waits for its worker.
    Runnable,
    /// Runs now, on the worker with that index in its runtime.
    Running {
        /// The worker.
        worker: usize,
    },
    /// Waits for something.
    Parked,
}

/// One task as [`where_all`] and [`where_is`] saw it. Displays as one line.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TaskWhere {
    /// The task's id.
    pub id: u64,
    /// Its name.
    pub name: Option<String>,
    /// Its class, if one was given at the spawn; else its spawn site is its class.
    pub class: Option<String>,
    /// Its labels, in the order in which they were first set.
    pub labels: Vec<(String, String)>,
    /// What it was doing.
    pub state: TaskState,
    /// For how long.
    pub age: Duration,
    /// What a parked task waits for, in words; what the kernel shows of the thread of a running one, if that is blocked or
    /// does not answer.
    pub wait: String,
    /// The condensed stack, innermost first, with `[...]` at its end if it could not be followed to the task's base. Empty
    /// for unstarted tasks, and for running ones whose thread does not answer.
    pub stack: String,
    /// Where it was spawned.
    pub spawned_at: Option<&'static std::panic::Location<'static>>,
    /// Id of the task that spawned it, 0 for a plain thread.
    pub parent: u64,
}

impl fmt::Display for TaskWhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = Row {
            id: self.id,
            name: self.name.as_deref(),
            state: self.state,
            age: self.age,
            wait: &self.wait,
            stack: &self.stack,
            spawned_at: self.spawned_at.map(Into::into),
        };
        let mut line = String::with_capacity(256);
        row.write(self.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())), Style::PLAIN, &mut line);
        f.write_str(&line)
    }
}

impl Captured {
    /// What the task was doing, for views.
    pub(super) fn state(&self) -> TaskState {
        match self.doing {
            Doing::Unstarted => TaskState::Unstarted,
            Doing::Runnable => TaskState::Runnable,
            Doing::Running(place) => TaskState::Running { worker: shared::worker_at(place).map_or(0, |w| w.ordinal()) },
            Doing::Parked => TaskState::Parked,
        }
    }

    /// Appends what the task waits for, if it waits; of a running one what the kernel shows of its thread, where that was
    /// asked.
    pub(super) fn wait_text(&self, out: &mut String) {
        if self.doing == Doing::Parked || self.wait.kind == WaitKind::Stack && self.doing == Doing::Unstarted {
            describe(self, out);
        } else if !self.kernel.is_empty() {
            _ = write!(out, "{}", self.kernel);
        }
    }
}

/// A captured task as a value; takes the walker.
fn view(c: &mut Captured) -> TaskWhere {
    view_with(c, &mut frames())
}

fn view_with(c: &mut Captured, frames: &mut Frames) -> TaskWhere {
    let (mut wait, mut stack) = (String::new(), String::new());
    c.wait_text(&mut wait);
    frames.write(c, &mut stack);
    TaskWhere {
        id: c.id,
        name: c.name().map(str::to_owned),
        class: c.class().map(str::to_owned),
        labels: c.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        state: c.state(),
        age: c.age(),
        wait,
        stack,
        spawned_at: c.site,
        parent: c.parent,
    }
}

/// Every task of the process that has not ended, with its state, what it waits for and its own stack.
///
/// May be called from a task or from any thread; no task is resumed and no worker stopped for it. Tasks that begin or
/// end meanwhile may be missing. For the stack of a task that runs, its thread may get a signal: see
/// [`inspect`](crate::inspect#tasks-that-run).
///
/// # Examples
/// ```
/// coro::run(|| {
///     let idle = coro::spawn_named("idle", || coro::sleep(std::time::Duration::from_secs(3600)));
///     coro::sleep(std::time::Duration::from_millis(20));
///     let lines: Vec<String> = coro::where_all().iter().map(|t| t.to_string()).collect();
///     assert!(lines.iter().any(|l| l.contains("parked") && l.contains("\"idle\" sleep")), "{lines:?}");
///     drop(idle);
/// });
/// ```
pub fn where_all() -> Vec<TaskWhere> {
    frames().refresh();
    let mut sweep = Sweep::with_running();
    let mut all = Vec::new();
    sweep.all(|frames, c, _| {
        all.push(view_with(c, frames));
        Then::GoOn
    });
    all
}

/// One task by id; `None` if it has ended.
pub fn where_is(id: u64) -> Option<TaskWhere> {
    let cell = cell_of(id)?;
    frames().refresh();
    view_of(&mut Captured::of_any(), cell, id)
}

/// The task in `cell`, if it is still that one, after the frames were refreshed; takes the walker.
pub(super) fn view_of(c: &mut Captured, cell: &TaskCell, id: u64) -> Option<TaskWhere> {
    (c.capture(cell, Some(id)) && c.follow(cell, Some(id))).then(|| view(c))
}

/// Writes what [`where_all`] finds, a line a task and a summary last, while it is found: a million tasks never become one
/// text in memory.
///
/// # Errors
/// Those of `out`.
///
/// # Examples
/// ```
/// coro::run(|| {
///     let mut text = Vec::new();
///     coro::inspect::where_all_to(&mut text, coro::inspect::Style::PLAIN)?;
///     assert!(String::from_utf8_lossy(&text).contains("running on worker "));
///     std::io::Result::Ok(())
/// })
/// .unwrap();
/// ```
pub fn where_all_to(out: &mut impl io::Write, style: Style) -> io::Result<()> {
    let mut cursor = Cursor::styled(style);
    pour(out, |piece| cursor.more(piece))
}

/// Writes the pieces of a view until there are no more.
pub(super) fn pour(out: &mut impl io::Write, mut more: impl FnMut(&mut Vec<u8>) -> bool) -> io::Result<()> {
    let mut piece = Vec::new();
    loop {
        let goes_on = more(&mut piece);
        out.write_all(&piece)?;
        piece.clear();
        if !goes_on {
            return out.flush();
        }
    }
}

/// The answer to `where_all`, a piece at a time: the console never waits for the whole.
#[derive(Debug)]
pub(crate) struct Cursor {
    sweep: Sweep,
    style: Style,
    seen: States,
    truncated: u64,
    first: bool,
    line: String,
    wait: String,
    stack: String,
}

/// A piece ends when it has so many bytes.
pub(super) const PIECE_BYTES: usize = 48 * 1024;

impl Cursor {
    pub(crate) fn styled(style: Style) -> Cursor {
        Cursor {
            sweep: Sweep::with_running(),
            style,
            seen: States::default(),
            truncated: 0,
            first: true,
            line: String::with_capacity(512),
            wait: String::with_capacity(128),
            stack: String::with_capacity(512),
        }
    }

    /// Appends some more lines; false when the last one, a summary, was written.
    pub(crate) fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if std::mem::take(&mut self.first) {
            advise(out);
        }
        let Cursor { sweep, style, seen, truncated, line, wait, stack, .. } = self;
        let swept = sweep.piece(|frames, c, _| {
            line.clear();
            wait.clear();
            stack.clear();
            c.wait_text(wait);
            frames.write(c, stack);
            let state = c.state();
            seen.add(state);
            *truncated += u64::from(stack.ends_with(CUT));
            let (name, spawned_at) = (c.name(), c.site.map(Into::into));
            let row = Row { id: c.id, name, state, age: c.age(), wait, stack, spawned_at };
            row.write(c.labels(), *style, line);
            line.push('\n');
            out.extend_from_slice(line.as_bytes());
            if out.len() >= PIECE_BYTES { Then::Pause } else { Then::GoOn }
        });
        if swept == Swept::All {
            footer(out);
            summary(&self.seen, self.truncated, &self.sweep, out);
        }
        swept == Swept::More
    }
}

/// The first lines of the first dump: what to change for better stacks. Notices new modules as well.
pub(super) fn advise(out: &mut Vec<u8>) {
    let mut frames = frames();
    frames.refresh();
    if let Some(advice) = frames.advice() {
        out.extend_from_slice(advice.as_bytes());
    }
}

/// Behind the stacks of every dump; see [`Frames::footer`].
pub(super) fn footer(out: &mut Vec<u8>) {
    out.extend_from_slice(frames().footer().as_bytes());
}

/// The last line of a dump.
pub(super) fn summary(seen: &States, truncated: u64, sweep: &Sweep, out: &mut Vec<u8>) {
    let mut text = format!("{} tasks: ", seen.total());
    seen.write(true, &mut text);
    if truncated > 0 {
        _ = write!(text, "; {truncated} stacks incomplete");
    }
    text.push_str("; ");
    push_age(sweep.took(), &mut text);
    let (longest, windows) = sweep.captured.windows();
    if windows.count() > 0 {
        text.push_str(", longest window ");
        push_age(longest, &mut text);
        text.push_str(" (p99.99 ");
        push_age(windows.quantile(0.9999).min(longest), &mut text);
        text.push(')');
    }
    text.push('\n');
    out.extend_from_slice(text.as_bytes());
}
