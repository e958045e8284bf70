//! One task per line, as people and `grep` read it, and the walk over all of them.
//!
//! `#17 parked 3.2s "db writer" read fd 9 → 10.0.0.7:5432 [src/db.rs fetch|31] [src/main.rs serve|88]`

#![forbid(unsafe_code)]

use std::fmt;
use std::fmt::Write as _;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::capture::{Captured, Doing};
use super::frames::frames;
use crate::observe::{THREAD, WaitKind};
use crate::scheduler::{self, shared};
use crate::sys::{clock, peername};
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
    /// What a parked task waits for, in words.
    pub wait: String,
    /// The condensed stack, innermost first; empty for running and unstarted tasks.
    pub stack: String,
    /// Where it was spawned.
    pub spawned_at: Option<&'static std::panic::Location<'static>>,
    /// Id of the task that spawned it, 0 for a plain thread.
    pub parent: u64,
}

impl fmt::Display for TaskWhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = Age(self.age);
        match self.state {
            TaskState::Unstarted => write!(f, "#{} unstarted {age}", self.id)?,
            TaskState::Runnable => write!(f, "#{} runnable {age}", self.id)?,
            TaskState::Running { worker } => {
                write!(f, "#{} running on worker {worker} for {}", self.id, Spaced(self.age))?
            }
            TaskState::Parked => write!(f, "#{} parked {age}", self.id)?,
        }
        if let Some(name) = &self.name {
            write!(f, " \"{}\"", Escaped(name))?;
        }
        for (key, value) in &self.labels {
            write!(f, " {}={}", Escaped(key), Escaped(value))?;
        }
        if !self.wait.is_empty() {
            write!(f, " {}", self.wait)?;
        }
        if !self.stack.is_empty() {
            write!(f, " {}", self.stack)?;
        } else if let Some(site) = self.spawned_at {
            write!(f, " spawned at {}:{}", Escaped(&short_path(site.file())), site.line())?;
        }
        Ok(())
    }
}

/// A path's last two components.
fn short_path(path: &str) -> String {
    let mut parts: Vec<&str> = path.rsplit(['/', '\\']).take(2).collect();
    parts.reverse();
    parts.join("/")
}

/// A name that somebody else chose: nothing in it may steer a terminal or break the line.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c == '"' || c == '\\' || c.is_control() || is_invisible(c) {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Formatting characters that reorder or hide text (Unicode categories Cf, Zl, Zp, the common ones).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        age_text(self.0, "", f)
    }
}

struct Spaced(Duration);

impl fmt::Display for Spaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        age_text(self.0, " ", f)
    }
}

fn age_text(d: Duration, space: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let s = d.as_secs_f64();
    if s < 0.000_999_5 {
        write!(f, "{:.0}{space}us", s * 1e6)
    } else if s < 0.999_5 {
        write!(f, "{:.0}{space}ms", s * 1e3)
    } else if s < 3600.0 {
        write!(f, "{s:.1}{space}s")
    } else {
        write!(f, "{}{space}h{:02}m", d.as_secs() / 3600, d.as_secs() / 60 % 60)
    }
}

fn wait_text(c: &Captured, cell: &TaskCell, out: &mut String) {
    let (kind, detail) = (c.wait.kind, c.wait.detail);
    out.push_str(kind.word());
    let _ = match kind {
        WaitKind::Read | WaitKind::Write | WaitKind::Connect => {
            let _ = write!(out, " fd {detail}");
            match peername(detail as RawFd) {
                // The descriptor may have been closed and reused between the copy and the question.
                Some(peer) if c.still(cell) => write!(out, " → {}", Escaped(&peer)),
                _ => Ok(()),
            }
        }
        WaitKind::Accept => write!(out, " fd {detail}"),
        k if k.has_object() => {
            let Some(o) = c.object else { return };
            if let Some(name) = o.name {
                let _ = write!(out, " \"{}\"", Escaped(name));
            }
            let _ = write!(out, " {}:{}", o.site.file(), o.site.line());
            let _ = match o.owner {
                0 => return,
                t if t & THREAD != 0 => write!(out, " held by thread {}", t & !THREAD),
                t => write!(out, " held by #{t}"),
            };
            if o.since == 0 { Ok(()) } else { write!(out, " for {}", Age(clock::since(o.since))) }
        }
        WaitKind::Join => write!(out, " #{detail}"),
        WaitKind::Signal => write!(out, " {detail}"),
        WaitKind::Sleep => {
            let now = runtime_clock(cell);
            match now {
                Some(now) => {
                    // Its worker looks at timers between slices only.
                    match now.checked_sub(detail).filter(|late| *late > 10_000_000) {
                        Some(late) => write!(out, " overdue {}", Age(Duration::from_nanos(late))),
                        None => write!(out, " {} left", Age(Duration::from_nanos(detail.saturating_sub(now)))),
                    }
                }
                None => Ok(()),
            }
        }
        WaitKind::Stack => write!(out, ": {}", std::io::Error::from_raw_os_error(detail as i32)),
        _ => Ok(()),
    };
}

/// Nanoseconds of the timer clock of the runtime that the task belongs to.
fn runtime_clock(cell: &TaskCell) -> Option<u64> {
    let owner = cell.owner.load(std::sync::atomic::Ordering::Relaxed);
    let id = shared::worker_at(owner)?.runtime.load(std::sync::atomic::Ordering::Relaxed);
    scheduler::runtime::epoch_of(id).map(|e| e.elapsed().as_nanos() as u64)
}

pub(super) fn view(c: &mut Captured, cell: &TaskCell) -> TaskWhere {
    let mut wait = String::new();
    let mut stack = String::new();
    if matches!(c.doing, Doing::Parked) || c.wait.kind == WaitKind::Stack && c.doing == Doing::Unstarted {
        wait_text(c, cell, &mut wait);
    }
    frames().write(c, &mut stack);
    let state = match c.doing {
        Doing::Unstarted => TaskState::Unstarted,
        Doing::Runnable => TaskState::Runnable,
        Doing::Running(place) => TaskState::Running { worker: shared::worker_at(place).map_or(0, |w| w.ordinal()) },
        Doing::Parked => TaskState::Parked,
    };
    TaskWhere {
        id: c.id,
        name: c.name.take(),
        class: c.class.take(),
        labels: std::mem::take(&mut c.labels),
        state,
        age: clock::since(c.since),
        wait,
        stack,
        spawned_at: c.site,
        parent: c.parent,
    }
}

/// Every task of the process that has not ended, with its state, what it waits for and its own stack.
///
/// May be called from a task or from any thread; no task is resumed and no worker stopped for it. Tasks that begin or
/// end meanwhile may be missing. The stacks of running tasks are not shown.
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
    let mut c = Captured::new();
    frames().refresh();
    let mut all = Vec::new();
    for cell in scheduler::all_cells() {
        if c.capture(cell, None) {
            all.push(view(&mut c, cell));
        }
    }
    all
}

/// One task by id; `None` if it has ended.
pub fn where_is(id: u64) -> Option<TaskWhere> {
    let mut c = Captured::new();
    frames().refresh();
    let cell = scheduler::all_cells().find(|cell| cell.state.snapshot().id() == id)?;
    c.capture(cell, Some(id)).then(|| view(&mut c, cell))
}

/// The answer to `where ID`, for the console.
pub(crate) fn one(id: u64) -> String {
    match where_is(id) {
        Some(t) => {
            let site = t.spawned_at.map(|s| format!("{}:{}", Escaped(s.file()), s.line())).unwrap_or_default();
            let by = if t.parent == 0 { "a plain thread".to_owned() } else { format!("#{}", t.parent) };
            let class = t.class.as_deref().map(|c| format!("  class {}\n", Escaped(c))).unwrap_or_default();
            format!("{t}\n  spawned at {site} by {by}\n{class}")
        }
        None => format!("no task #{id}: it has ended, or never was; where_all lists those that are\n"),
    }
}

/// The answer to `where_all`, a piece at a time: the console never waits for the whole.
pub(crate) struct Cursor {
    chunk: usize,
    cell: usize,
    captured: Captured,
    seen: [u64; 4],
    truncated: u64,
    begun: Instant,
    first: bool,
}

/// Work per piece: well below the 250 ms of silence that a client tolerates.
const PIECE: Duration = Duration::from_millis(20);
const PIECE_BYTES: usize = 48 * 1024;
/// The walker gives way so often, outside any window, so that it holds up no worker on its CPU.
const GIVE_WAY: Duration = Duration::from_micros(100);

impl Cursor {
    pub(crate) fn new() -> Cursor {
        Cursor {
            chunk: 0,
            cell: 0,
            captured: Captured::new(),
            seen: [0; 4],
            truncated: 0,
            begun: Instant::now(),
            first: true,
        }
    }

    /// Appends some more lines; false when the last one, a summary, was written.
    pub(crate) fn more(&mut self, out: &mut Vec<u8>) -> bool {
        let begun = Instant::now();
        if std::mem::take(&mut self.first) {
            let mut frames = frames();
            frames.refresh();
            if let Some(advice) = frames.advice() {
                out.extend_from_slice(advice.as_bytes());
                out.push(b'\n');
            }
        }
        let registry = scheduler::registry();
        let mut give_way = begun + GIVE_WAY;
        let mut line = String::new();
        while self.chunk < registry.chunks() {
            let cells = registry.cells(self.chunk);
            while self.cell < cells.len() {
                let cell = &cells[self.cell];
                self.cell += 1;
                if cell.state.snapshot().id() == 0 || !self.captured.capture(cell, None) {
                    continue;
                }
                line.clear();
                self.write(cell, &mut line);
                out.extend_from_slice(line.as_bytes());
                let now = Instant::now();
                if now >= give_way {
                    std::thread::yield_now();
                    give_way = Instant::now() + GIVE_WAY;
                }
                if out.len() >= PIECE_BYTES || now.duration_since(begun) >= PIECE {
                    return true;
                }
            }
            self.chunk += 1;
            self.cell = 0;
            if begun.elapsed() >= PIECE {
                return true;
            }
        }
        self.summary(out);
        false
    }

    fn write(&mut self, cell: &TaskCell, line: &mut String) {
        let t = view(&mut self.captured, cell);
        let kind = match t.state {
            TaskState::Parked => 0,
            TaskState::Runnable => 1,
            TaskState::Running { .. } => 2,
            TaskState::Unstarted => 3,
        };
        self.seen[kind] += 1;
        self.truncated += u64::from(t.stack.ends_with(" [...]"));
        let _ = writeln!(line, "{t}");
    }

    fn summary(&self, out: &mut Vec<u8>) {
        let [parked, runnable, running, unstarted] = self.seen;
        let total: u64 = self.seen.iter().sum();
        let cut = if self.truncated > 0 { format!("; {} stacks incomplete", self.truncated) } else { String::new() };
        let text = format!(
            "{total} tasks: {parked} parked, {runnable} runnable, {running} running, {unstarted} unstarted{cut}; {}\n",
            Age(self.begun.elapsed())
        );
        out.extend_from_slice(text.as_bytes());
    }
}
