//! The way from whoever found something out to the handler.
//!
//! The handler is the application's code and may take its time, so it runs on a thread of its own (`coro-report`, started
//! by the first report). The queue to it is bounded: what finds no room is dropped, counted and told on stderr.
//!
//! Invariants: [`deliver`] never waits for a handler and never calls one. Reports arrive in the order in which they were
//! delivered, one at a time. Must not know: what is in a report.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::{Report, ReportHandler, panic_budget};
use crate::sys::{stderr, threads};

/// Reports, and other work of the thread, that wait.
const ROOM: usize = 256;

enum Job {
    Report(Box<dyn FnOnce() -> Report + Send>),
    /// Text for stderr that takes long to make, such as one with the names of frames.
    Text(Box<dyn FnOnce() + Send>),
}

/// How long a flush waits for texts. They need nobody but the CPU: the names of the first stack of a process take longest.
const TEXT_PATIENCE: Duration = Duration::from_secs(5);

struct Queue {
    jobs: VecDeque<(Job, String)>,
    /// It is our own work that is being done, not the handler's; and the short form of the text, until it is written.
    texts: bool,
    short: String,
    put: u64,
    done: u64,
    /// Dropped and not yet told.
    dropped: u64,
    thread: Option<ThreadId>,
    /// Since when the handler is at work, if that has not been told as too long.
    since: Option<Instant>,
}

/// A handler that takes longer is told of.
const HANGS: Duration = Duration::from_secs(10);

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    jobs: VecDeque::new(),
    texts: true,
    short: String::new(),
    put: 0,
    done: 0,
    dropped: 0,
    thread: None,
    since: None,
});
static MORE: Condvar = Condvar::new();
static PROGRESS: Condvar = Condvar::new();

static HANDLER: Mutex<Option<ReportHandler>> = Mutex::new(None);
/// Whether there is one, for who may not wait for the lock.
static HANDLED: AtomicBool = AtomicBool::new(false);

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn handler() -> Option<ReportHandler> {
    HANDLER.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Says who receives what the runtime has to tell; returns who did so far (`None`: it goes to stderr).
///
/// The handler runs on a thread of its own, one report after the other, and may wait. Up to 256 reports wait for it;
/// more are dropped, and a line on stderr says how many. A handler that panics is told of once, and the report goes to
/// stderr instead.
///
/// A panic that ended a task is also told to the notifier, if there is one ([`set_panic_notifier`]), which runs inside
/// the task.
///
/// [`set_panic_notifier`]: crate::set_panic_notifier
///
/// # Examples
/// ```
/// use coro::report::{Report, set_report_handler};
/// use std::sync::{Arc, mpsc};
///
/// let (sender, reports) = mpsc::channel();
/// set_report_handler(Some(Arc::new(move |r| sender.send(r.clone()).unwrap())));
/// coro::run(|| coro::spawn(|| panic!("boom")).join().unwrap_err());
/// let Report::Panic(panic) = reports.recv().unwrap() else { panic!() };
/// assert_eq!(panic.message, "boom");
/// ```
pub fn set_report_handler(handler: Option<ReportHandler>) -> Option<ReportHandler> {
    let mut place = HANDLER.lock().unwrap_or_else(PoisonError::into_inner);
    HANDLED.store(handler.is_some(), Ordering::Relaxed);
    std::mem::replace(&mut *place, handler)
}

/// Whether somebody receives the reports. Takes no lock.
pub(crate) fn has_handler() -> bool {
    HANDLED.load(Ordering::Relaxed)
}

/// Hands a report to the handler, if there is one; otherwise whoever found it out writes it to stderr in the words that
/// fit.
#[must_use = "without a handler the caller has to tell"]
pub(crate) fn deliver(report: impl FnOnce() -> Report) -> bool {
    if !has_handler() {
        return false;
    }
    let report = report();
    let _ = put(Job::Report(Box::new(move || report)));
    true
}

/// What became of a report that must not be lost.
#[cfg(feature = "backdoor")]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It is on its way to the handler.
    Queued,
    /// There is a handler, and too much waits for it.
    NoRoom,
    NoHandler,
}

/// As [`deliver`], for who has to know.
#[cfg(feature = "backdoor")]
pub(crate) fn deliver_surely(report: Report) -> Delivery {
    if !has_handler() {
        return Delivery::NoHandler;
    }
    if put(Job::Report(Box::new(move || report))) { Delivery::Queued } else { Delivery::NoRoom }
}

/// As [`deliver`], with a report that is made on the report thread.
#[must_use = "without a handler the caller has to tell"]
pub(crate) fn deliver_late(report: impl FnOnce() -> Report + Send + 'static) -> bool {
    if !has_handler() {
        return false;
    }
    let _ = put(Job::Report(Box::new(report)));
    true
}

/// Has a text written to stderr by the thread that reports are made on. `short` is written instead if that cannot be awaited.
pub(crate) fn later(short: String, write: impl FnOnce() + Send + 'static) {
    let _ = put_with(Job::Text(Box::new(write)), short);
}

fn put(job: Job) -> bool {
    put_with(job, String::new())
}

/// Whether it was done, or will be.
fn put_with(job: Job, short: String) -> bool {
    if cfg!(miri) || crate::sys::fork::forked() {
        let done = guarded(job);
        if !done && !short.is_empty() {
            stderr::write(&format!("{short}\n"));
        }
        return done;
    }
    let mut q = queue();
    if q.thread.is_none() {
        stderr::fed_by(flush);
        let started = stderr::without_signals(|| std::thread::Builder::new().name("coro-report".into()).spawn(serve));
        match started {
            // It is nobody's to join.
            Ok(thread) => q.thread = Some(thread.thread().id()),
            Err(e) => {
                q.dropped += 1;
                drop(q);
                let text = if short.is_empty() { "coro: a report is lost".to_owned() } else { short };
                stderr::write(&format!("{text} (no thread could be started for more: {e})\n"));
                return false;
            }
        }
    }
    let hangs = q.since.is_some_and(|since| since.elapsed() >= HANGS);
    if hangs {
        // Once for each time.
        q.since = None;
        stderr::write("coro: the report handler has not returned for 10 s; until it does nothing is reported\n");
    }
    if q.jobs.len() >= ROOM {
        q.dropped += 1;
        drop(q);
        if !short.is_empty() {
            stderr::write(&format!("{short}\n"));
        }
        return false;
    }
    q.jobs.push_back((job, short));
    q.put += 1;
    drop(q);
    MORE.notify_one();
    true
}

fn serve() {
    loop {
        let (job, dropped) = {
            // While it runs the application's code it is one of its threads.
            let _own = threads::Own::new();
            let mut q = queue();
            loop {
                if let Some((job, short)) = q.jobs.pop_front() {
                    q.texts = true;
                    q.short = short;
                    let last = q.jobs.is_empty();
                    break (job, if last { std::mem::take(&mut q.dropped) } else { 0 });
                }
                q = MORE.wait(q).unwrap_or_else(PoisonError::into_inner);
            }
        };
        if !guarded(job) {
            let short = std::mem::take(&mut queue().short);
            if !short.is_empty() {
                stderr::write(&format!("{short}\n"));
            }
        }
        if dropped > 0 {
            stderr::write(&format!("coro: {dropped} reports were dropped: the report handler is too slow\n"));
        }
        {
            let mut q = queue();
            q.done += 1;
            (q.texts, q.since) = (true, None);
            q.short.clear();
        }
        PROGRESS.notify_all();
    }
}

/// Whether it came to its end: a fault in looking up names must not end the thread.
fn guarded(job: Job) -> bool {
    panic::catch_unwind(AssertUnwindSafe(|| work(job))).map_err(std::mem::forget).is_ok()
}

fn work(job: Job) {
    let report = match job {
        Job::Text(f) => return f(),
        Job::Report(make) => make(),
    };
    // In a forked child nobody looks, and the lock may have been another thread's.
    if !crate::sys::fork::forked() {
        let mut q = queue();
        (q.texts, q.since) = (false, Some(Instant::now()));
    }
    // It may have been taken away meanwhile.
    let told = handler().map(|h| {
        AT_WORK.set(true);
        let ended = panic::catch_unwind(AssertUnwindSafe(|| h(&report)));
        AT_WORK.set(false);
        // A payload whose destructor panics as well is not ours to suffer from.
        ended.map_err(std::mem::forget).is_ok()
    });
    let shown = match &report {
        Report::Panic(p) => told == Some(true) || panic_budget(p.location.as_deref().unwrap_or("not seen")).is_some(),
        _ => true,
    };
    if told != Some(true) && shown {
        stderr::print(report.task(), &report.to_string());
    }
    if told == Some(false) && !PANICKED.swap(true, Ordering::Relaxed) {
        stderr::write("coro: the report handler panicked; what it was told goes to stderr\n");
    }
}

thread_local! {
    /// The handler runs on this thread.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// A handler has panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Whether the caller is a handler, and not the first time that one panics: enough has been said.
pub(crate) fn handler_panics_again() -> bool {
    AT_WORK.try_with(Cell::get).unwrap_or(false) && PANICKED.load(Ordering::Relaxed)
}

/// Waits for what was delivered so far: at most `patience` while the handler is at work, longer for texts of our own. Those
/// that do not come in time are written in their short form.
pub(crate) fn flush(patience: Duration) {
    let (mut last, mut ours, mut handlers) = (Instant::now(), Duration::ZERO, Duration::ZERO);
    let mut q = queue();
    if q.thread == Some(std::thread::current().id()) {
        return;
    }
    let end = q.put;
    while q.done < end {
        let left = if q.texts { TEXT_PATIENCE.saturating_sub(ours) } else { patience.saturating_sub(handlers) };
        if left.is_zero() {
            let mut short = vec![std::mem::take(&mut q.short)];
            q.jobs.iter_mut().for_each(|(_, s)| short.push(std::mem::take(s)));
            drop(q);
            short.iter().filter(|s| !s.is_empty()).for_each(|s| stderr::write(&format!("{s}\n")));
            return;
        }
        let texts = q.texts;
        // Who is at work changes without a word.
        let left = left.min(Duration::from_millis(20));
        q = PROGRESS.wait_timeout(q, left).unwrap_or_else(PoisonError::into_inner).0;
        *(if texts { &mut ours } else { &mut handlers }) += last.elapsed();
        last = Instant::now();
    }
}
