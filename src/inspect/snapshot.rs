//! The snapshot: one value that holds everything there is to see, from which every view is rendered.
//!
//! Taken without stopping anything: tasks are looked at one after the other, so it is no single instant, and says how long
//! it took. Nothing in it refers to the process any more; it may be kept, compared and printed later.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::line::TaskState;

/// The version of the JSON form; a number is added where a field changes its meaning or goes, not where one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// What to put into a [`Snapshot`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Stacks of tasks that do not run.
    pub stacks: bool,
    /// Stacks of running tasks, for which their threads may get a signal: see [`inspect`](crate::inspect#tasks-that-run).
    pub running: bool,
    /// Waiters, owners and peers of locks, channels and sockets.
    pub objects: bool,
    /// At most so many tasks (0: all). The others are counted in [`Snapshot::left_out`].
    pub limit: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { stacks: true, running: true, objects: true, limit: 0 }
    }
}

/// Everything there is to see, at about one time.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Snapshot {
    /// Version of this form.
    pub schema_version: u32,
    /// When it was begun.
    pub taken_at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// The longest that one task was held for its copy.
    pub longest_window: Duration,
    /// What 99.99 % of those times stayed below.
    pub window_p9999: Duration,
    /// The process.
    pub process: Process,
    /// Every task, in no order that means anything.
    pub tasks: Vec<Task>,
    /// Tasks that are not in `tasks` because of [`Options::limit`].
    pub left_out: usize,
    /// Every stack once.
    pub stacks: Vec<Stack>,
    /// Every worker of every runtime.
    pub workers: Vec<Worker>,
    /// What is waited for, and every channel that could be (but for those of one message); of channels without waiters at
    /// most the 10,000 with the most messages.
    pub objects: Vec<Object>,
    /// Who waits for whom, where that is known.
    pub edges: Vec<Edge>,
}

/// The process that was looked at.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The name of its executable file.
    pub program: String,
    /// The linker's mark that tells this build from others, in hexadecimal digits; empty if it wrote none. With it the right
    /// file is found to name `module+0xoffset`.
    pub build_id: String,
    /// The version of this crate.
    pub version: &'static str,
}

/// A place in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Site {
    /// The file as the compiler was given it.
    pub file: &'static str,
    /// The line.
    pub line: u32,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl From<&'static std::panic::Location<'static>> for Site {
    fn from(l: &'static std::panic::Location<'static>) -> Site {
        Site { file: l.file(), line: l.line() }
    }
}

/// One task.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Task {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: Option<String>,
    /// Its class: what it was given at the spawn, else its spawn site.
    pub class: Arc<str>,
    /// Its labels, in the order in which they were first set.
    pub labels: Vec<(String, String)>,
    /// What it was doing.
    pub state: TaskState,
    /// For how long.
    pub age: Duration,
    /// The runtime that it belongs to, counted from 0.
    pub runtime: u32,
    /// The worker in that runtime that runs it, once it has started.
    pub worker: Option<usize>,
    /// The task that spawned it, 0 for a plain thread. It may have ended.
    pub parent: u64,
    /// Where it was spawned.
    pub spawned_at: Option<Site>,
    /// The return addresses of its spawn, innermost first, if `CORO_SPAWN_STACKS` is set.
    pub spawn_stack: Vec<usize>,
    /// What it waits for.
    pub wait: Option<Wait>,
    /// Slices begun.
    pub slices: u64,
    /// Time spent running, the unfinished slice included.
    pub run_time: Duration,
    /// Time since its first slice; `None` before.
    pub started: Option<Duration>,
    /// The longest slice, the unfinished one included; zero if none took 1 µs.
    pub longest_slice: Duration,
    /// The longest time between a wake-up and the slice that it led to; zero if none took 1 µs.
    pub longest_delay: Duration,
    /// Bytes of its stack that are in use now; 0 while it runs and before its first slice.
    pub stack_used: usize,
    /// Index into [`Snapshot::stacks`].
    pub stack: Option<usize>,
}

/// What a task waits for.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Wait {
    /// One word or two: `lock`, `read`, `sleep`, `blocking job`; `kernel` for a running task whose thread is blocked there.
    pub kind: &'static str,
    /// The whole of it in words: `lock "db pool" src/db.rs:31 held by #17 "db writer" for 3.2s`.
    pub text: String,
    /// Index into [`Snapshot::objects`].
    pub object: Option<usize>,
    /// The descriptor.
    pub fd: Option<i32>,
    /// The other end of the connection.
    pub peer: Option<String>,
    /// Time left of a sleep or of the time limit of this wait.
    pub left: Option<Duration>,
    /// Time left of the nearest of all enclosing [`timeout`](crate::timeout)s.
    pub timeout_left: Option<Duration>,
}

/// One stack, and how many tasks have it.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Stack {
    /// Frames, innermost first, those of inlined calls included.
    pub frames: Vec<Frame>,
    /// Whether it was followed to the task's base.
    pub complete: bool,
    /// The condensed form: `[src/db.rs fetch|31] [src/main.rs serve|88]`.
    pub condensed: String,
    /// How many tasks of the snapshot have it.
    pub count: usize,
}

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Frame {
    /// Address of the code.
    pub address: usize,
    /// The function, generic arguments left out; `module+0xoffset` where there are no names.
    pub function: Arc<str>,
    /// Executable or library.
    pub module: Option<Arc<str>>,
    /// Source file.
    pub file: Option<Arc<str>>,
    /// Line in it. Where the compiler states none, because it merged code of several lines, that of an instruction nearby
    /// that belongs to the same call; the condensed form has a `~` before it.
    pub line: Option<u32>,
    /// Left out of the condensed form: frames of the runtime and of the standard library that say nothing.
    pub folded: bool,
}

/// One worker.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Worker {
    /// The runtime that it belongs to, counted from 0.
    pub runtime: u32,
    /// Counted from 0 within its runtime.
    pub index: usize,
    /// The kernel's number of its thread.
    pub thread: i32,
    /// The running task, 0 for none.
    pub current: u64,
    /// How long the running slice has lasted.
    pub slice_age: Option<Duration>,
    /// It waits in the poll.
    pub asleep: bool,
    /// Tasks of this worker that can run and do not.
    pub runnable: usize,
    /// Unstarted tasks that wait here.
    pub unstarted: usize,
    /// Tasks that have started here and not ended.
    pub live: usize,
    /// Slices begun.
    pub slices: u64,
    /// Time spent in finished slices.
    pub busy: Duration,
    /// Times that it went to sleep.
    pub parks: u64,
    /// Tasks spawned by it, wherever they run.
    pub spawned: u64,
    /// Tasks ended on it.
    pub ended: u64,
    /// Share of recent time spent in slices, 0 to 1.
    pub load: f32,
}

/// Who holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Party {
    /// A task, by its id.
    Task(u64),
    /// A plain thread, by the kernel's number.
    Thread(i32),
}

/// A lock, channel or other thing of `coro::sync`.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Object {
    /// `lock`, `channel`, `semaphore`…
    pub kind: &'static str,
    /// Its address: tells it from others as long as it lives.
    pub address: usize,
    /// What it was named.
    pub name: Option<String>,
    /// Where it was made.
    pub site: Site,
    /// Who holds it, where that is one party and known.
    pub owner: Option<Party>,
    /// For how long, at least.
    pub held_for: Option<Duration>,
    /// Tasks that wait for it.
    pub waiters: usize,
    /// How long the first of them has waited.
    pub oldest_wait: Option<Duration>,
    /// What else there is to say: `3 of 16 messages, 2 senders, last send by #4 3.2s ago`.
    pub details: String,
}

/// One task waits for what another party holds or will do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Edge {
    /// The task that waits.
    pub from: u64,
    /// For whom.
    pub to: Party,
    /// Index into [`Snapshot::objects`], where it is one.
    pub object: Option<usize>,
    /// Whether `to` alone can end the wait. Where others might (a channel, a semaphore) the last known user stands there.
    pub certain: bool,
}
