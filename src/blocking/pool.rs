//! The threads that run the jobs: how many there are, who is idle, and what waits.
//!
//! Invariants, all under one lock: while jobs wait, no thread that is counted is idle without having been woken for
//! them, and a thread leaves only after it has found the queue empty or is one too many; `starting` counts those that
//! somebody is about to start, so that whoever fails last, with nobody else there, tells every waiting job. Idle threads
//! are woken last in, first out: so the others' time of keep-alive runs out.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::job::{Job, JobCell};
use crate::observe::FileCall;
use crate::scheduler::suspend;

/// Most threads unless somebody says otherwise. They sit in system calls and use no CPU; 512 is more than a disk or a
/// resolver does at once, and their stacks are one GiB of address space at most.
const DEFAULT_LIMIT: usize = 512;
/// No machine of today has a use for more, and it catches a mistyped number.
const HIGHEST_LIMIT: usize = 65_536;

thread_local! {
    static JOB_OF: Cell<u64> = const { Cell::new(0) };
}

/// The task whose job this thread is running; 0 for none.
pub(crate) fn job_of() -> u64 {
    JOB_OF.try_with(Cell::get).unwrap_or(0)
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    /// Of the threads.
    name: &'static str,
    /// How long a thread waits for work before it leaves.
    keep_alive: Duration,
    /// The process that the threads are in; 0 before the first job.
    process: AtomicU32,
}

#[derive(Debug)]
struct State {
    /// `None` until somebody has asked for it or set it.
    limit: Option<usize>,
    live: usize,
    starting: usize,
    /// The one that became idle last is the last.
    idle: Vec<Thread>,
    /// By number, which is the order in which they came.
    queue: BTreeMap<u64, Entry>,
    running: BTreeMap<u64, (Asked, Instant)>,
    next: u64,
}

struct Entry {
    job: Arc<dyn Job>,
    asked: Asked,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.asked.fmt(f)
    }
}

#[derive(Debug, Clone)]
struct Asked {
    task: u64,
    site: &'static Location<'static>,
    at: Instant,
    file: Option<OnFile>,
}

/// What is done with which file.
pub(super) type OnFile = (FileCall, Arc<str>);

/// What the pool of [`blocking`](crate::blocking()) is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BlockingStats {
    /// Most threads that it may have.
    pub limit: usize,
    /// Threads that it has.
    pub threads: usize,
    /// Of these, how many wait for work.
    pub idle: usize,
    /// Jobs that no thread has taken up yet.
    pub queued: usize,
    /// How long the first of them has waited.
    pub oldest_queued: Option<Duration>,
    /// Jobs that run, the one that was asked for first at the front; also those that nobody waits for any more.
    pub running: Vec<BlockingJob>,
}

/// A job that a thread of the pool is running.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BlockingJob {
    /// Since it was taken up.
    pub age: Duration,
    /// The id of the task that asked for it.
    pub task: u64,
    /// Where that asked.
    pub site: &'static Location<'static>,
    /// What it does (`read`, `open`…) with which file, if it is a call of [`fs`](crate::fs).
    pub file: Option<(&'static str, Arc<str>)>,
}

/// A job in the pool, held by whoever waits for it; dropped early, the job is given up.
#[derive(Debug)]
pub(super) struct Ticket<F, T> {
    pool: &'static Pool,
    number: u64,
    cell: Arc<JobCell<F, T>>,
    /// It is to run though nobody waits.
    left_alone: bool,
}

impl<F, T> Ticket<F, T> {
    pub(super) fn finished(&self) -> bool {
        self.cell.finished()
    }

    /// The caller waits from now on, whoever has begun it.
    pub(super) fn wait_here(&self) {
        self.cell.wait_as(suspend::current_unparker());
    }

    /// Nobody waits any more, and it is to run nevertheless.
    pub(super) fn leave_alone(mut self) {
        self.left_alone = true;
    }

    /// What the job returned; only when it has finished. A panic of the job goes on here.
    pub(super) fn take(self) -> io::Result<T> {
        self.cell.take()
    }
}

impl<F, T> Drop for Ticket<F, T> {
    fn drop(&mut self) {
        if self.left_alone {
            return;
        }
        // Out of the queue as well: jobs given up while every thread is stuck must not pile up there.
        let entry = self.pool.lock().queue.remove(&self.number);
        self.cell.leave();
        drop(entry);
    }
}

impl Pool {
    pub(super) const fn new(name: &'static str, keep_alive: Duration) -> Pool {
        let state = State {
            limit: None,
            live: 0,
            starting: 0,
            idle: Vec::new(),
            queue: BTreeMap::new(),
            running: BTreeMap::new(),
            next: 0,
        };
        Pool { state: Mutex::new(state), name, keep_alive, process: AtomicU32::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a job to a thread, or puts it in line, for the caller to wait for.
    ///
    /// # Errors
    /// A malformed `CORO_BLOCKING_THREADS`; a process that was forked off the one with the threads. That no thread could
    /// be started is told by the ticket.
    pub(super) fn submit<F, T>(
        &'static self,
        site: &'static Location<'static>,
        file: Option<OnFile>,
        f: F,
    ) -> io::Result<Ticket<F, T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.refuse_after_fork()?;
        let cell = Arc::new(JobCell::new(f, suspend::current_unparker()));
        let asked = Asked { task: suspend::here().map_or(0, |h| h.id()), site, at: Instant::now(), file };
        let mut state = self.lock();
        let limit = state.limit()?;
        let number = state.next;
        state.next += 1;
        state.queue.insert(number, Entry { job: cell.clone(), asked });
        let ticket = Ticket { pool: self, number, cell, left_alone: false };
        if let Some(idle) = state.idle.pop() {
            drop(state);
            idle.unpark();
        } else if state.live + state.starting < limit {
            state.starting += 1;
            drop(state);
            self.start();
        }
        Ok(ticket)
    }

    /// A forked child has the counters but not the threads, and perhaps the lock as another thread held it.
    fn refuse_after_fork(&self) -> io::Result<()> {
        let here = std::process::id();
        match self.process.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed) {
            Err(other) if other != here => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "the threads for blocking jobs are in process {other}, which forked this one: exec a program first"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Starts the thread that `starting` was raised for.
    fn start(&'static self) {
        let started = thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            let _own = crate::sys::threads::Own::new();
            self.work();
        });
        let Err(e) = started else { return };
        let mut state = self.lock();
        state.starting -= 1;
        if state.live + state.starting > 0 {
            // They will come to it, or the last one that cannot be started tells everybody.
            return;
        }
        let left = std::mem::take(&mut state.queue);
        drop(state);
        left.into_values().for_each(|entry| entry.job.refuse(no_thread(&e)));
    }

    /// What a thread does.
    fn work(&'static self) {
        let mut state = self.lock();
        state.starting -= 1;
        state.live += 1;
        while state.live <= state.limit_or_default() {
            if let Some((number, Entry { job, asked })) = state.queue.pop_first() {
                let task = asked.task;
                state.running.insert(number, (asked, Instant::now()));
                drop(state);
                JOB_OF.set(task);
                job.run();
                drop(job);
                JOB_OF.set(0);
                state = self.lock();
                state.running.remove(&number);
                continue;
            }
            state.idle.push(thread::current());
            let woken;
            (state, woken) = self.idle(state);
            if !woken && state.queue.is_empty() {
                break;
            }
        }
        state.live -= 1;
    }

    /// Waits until somebody takes this thread off the list; false if nobody has within the time of keep-alive.
    fn idle<'a>(&'a self, mut state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, bool) {
        let me = thread::current().id();
        let began = Instant::now();
        loop {
            drop(state);
            thread::park_timeout(self.keep_alive.saturating_sub(began.elapsed()));
            state = self.lock();
            let Some(place) = state.idle.iter().position(|t| t.id() == me) else { return (state, true) };
            if began.elapsed() >= self.keep_alive {
                state.idle.remove(place);
                return (state, false);
            }
        }
    }

    /// Sets how many threads there may be, at least one; returns the old number.
    pub(super) fn set_limit(&'static self, limit: usize) -> usize {
        let mut state = self.lock();
        let old = state.limit_or_default();
        let limit = limit.clamp(1, HIGHEST_LIMIT);
        state.limit = Some(limit);
        // Whoever is one too many sees it and leaves.
        let idle = std::mem::take(&mut state.idle);
        // Jobs that waited for the old limit: those that run may never end without them.
        let ours = self.process.load(Ordering::Relaxed) == std::process::id();
        let more = if ours { limit.saturating_sub(state.live + state.starting).min(state.queue.len()) } else { 0 };
        state.starting += more;
        drop(state);
        idle.iter().for_each(Thread::unpark);
        (0..more).for_each(|_| self.start());
        old
    }

    pub(super) fn stats(&self) -> BlockingStats {
        let state = self.lock();
        let now = Instant::now();
        let job = |(asked, since): &(Asked, Instant)| BlockingJob {
            age: now.saturating_duration_since(*since),
            task: asked.task,
            site: asked.site,
            file: asked.file.as_ref().map(|(call, path)| (call.word(), path.clone())),
        };
        BlockingStats {
            limit: state.limit_or_default(),
            threads: state.live,
            idle: state.idle.len(),
            queued: state.queue.len(),
            oldest_queued: state.queue.values().next().map(|entry| now.saturating_duration_since(entry.asked.at)),
            running: state.running.values().map(job).collect(),
        }
    }
}

impl State {
    fn limit(&mut self) -> io::Result<usize> {
        if self.limit.is_none() {
            self.limit = Some(limit_from_environment()?);
        }
        Ok(self.limit_or_default())
    }

    fn limit_or_default(&self) -> usize {
        self.limit.unwrap_or_else(|| limit_from_environment().unwrap_or(DEFAULT_LIMIT))
    }
}

fn limit_from_environment() -> io::Result<usize> {
    std::env::var_os("CORO_BLOCKING_THREADS").map_or(Ok(DEFAULT_LIMIT), |text| parse_limit(&text))
}

pub(super) fn parse_limit(text: &OsStr) -> io::Result<usize> {
    match text.to_str().and_then(|t| t.trim().parse().ok()) {
        Some(n) if (1..=HIGHEST_LIMIT).contains(&n) => Ok(n),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("CORO_BLOCKING_THREADS is {text:?}; set it to a number from 1 to {HIGHEST_LIMIT}, or unset it"),
        )),
    }
}

/// The system's kind, but for the one that would tell the caller to try again when a descriptor is ready.
fn no_thread(e: &io::Error) -> io::Error {
    let kind = match e.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::QuotaExceeded,
        kind => kind,
    };
    let advice = "raise the limit on threads or processes (ulimit -u, pids.max), or end some threads";
    io::Error::new(kind, format!("no thread could be started for a blocking job, and there is none yet: {e}; {advice}"))
}
