//! Stalls: a task that keeps its worker longer than the threshold, told while it does and once more when it has ended, in
//! Shrapnel's words.
//!
//! The [`watchdog`] finds them and writes a line at once; the [`scribe`] adds what takes longer. At the end of a slice that
//! was too long its worker leaves a record and goes on. Where there is no watchdog (no thread could be had, or under an
//! interpreter) the worker writes the closing line by itself.

#![forbid(unsafe_code)]

mod budget;
mod gaps;
mod kernel;
mod record;
mod scribe;
mod stack;
mod text;
mod watchdog;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::observe::{Overrun, SLICE_OVERRUN, WordRing};
use crate::scheduler::shared::MAX_WORKERS;
use crate::scheduler::stall;
use crate::sys::{clock, fork, stderr, threads};

/// Slices that were too long, by worker. Untouched memory until there is one.
static OVERRUNS: [WordRing<{ Overrun::WORDS }, 4>; MAX_WORKERS] = [const { WordRing::new() }; MAX_WORKERS];

static WATCHED: AtomicBool = AtomicBool::new(false);

/// How long the process's exit waits for closing lines that are not written yet.
const EXIT_PATIENCE: Duration = Duration::from_millis(200);

/// Sets how long one slice may last before it is reported as a stall on stderr; zero switches it off. Returns the old value.
///
/// The default is 200 ms, or `CORO_LATENCY_MS`. Applies to every runtime of the process, but not to tasks that have a
/// threshold of their own ([`Builder::latency_warning`](crate::Builder::latency_warning),
/// [`set_own_latency_warning`](crate::set_own_latency_warning)). Rounded up to milliseconds.
pub fn set_latency_warning(threshold: Duration) -> Duration {
    stall::set_process(threshold)
}

/// Starts the threads; once, by the first runtime.
pub(crate) fn install() {
    SLICE_OVERRUN.set(overrun);
    scribe::look_at_time_zone();
    if cfg!(miri) {
        return;
    }
    let dog = watchdog::Watchdog::new();
    // With its room from the start: the new thread must not have to allocate, for which it may find no memory of its own.
    let (started, starts) = std::sync::mpsc::sync_channel(1);
    let thread = |name: &str, stack: usize, f: Box<dyn FnOnce() + Send>| {
        let builder = std::thread::Builder::new().name(name.into()).stack_size(stack);
        stderr::without_signals(|| builder.spawn(f)).is_ok()
    };
    let watch = move || {
        let _own = threads::Own::new();
        stall::watch_by(std::thread::current());
        let _ = started.send(());
        drop(started);
        dog.run()
    };
    let scribes = || {
        let _own = threads::Own::new();
        scribe::run()
    };
    if thread("coro-watchdog", 256 * 1024, Box::new(watch)) && starts.recv().is_ok() {
        WATCHED.store(true, Ordering::Release);
        // Without it the last lines of a program may be missing.
        let _ = crate::sys::unixsock::at_exit(flush_at_exit);
        // Without it there are no lines with files.
        let _ = thread("coro-scribe", 1 << 20, Box::new(scribes));
    }
}

/// A worker has ended a slice that was too long.
fn overrun(o: &Overrun) {
    if WATCHED.load(Ordering::Acquire) && !fork::forked() {
        OVERRUNS[usize::from(o.worker)].push(&o.to_words());
        return stall::ring();
    }
    let who = text::Who { id: o.id, name: o.name.get(), at: o.at, after: Some(o.after) };
    let mut line = text::Text::new();
    let lasted = clock::duration(o.end.saturating_sub(o.start));
    text::head(&mut line, text::When::now(scribe::ahead()), lasted, &who, o.ordinal);
    stderr::write_raw(line.end());
}

/// Waits, for a moment, for the lines about slices that have ended.
extern "C" fn flush_at_exit() {
    let deadline = Instant::now() + EXIT_PATIENCE;
    let all_read = || OVERRUNS.iter().zip(crate::scheduler::shared::workers()).all(|(ring, _)| ring.is_empty());
    let is_quiet = || fork::forked() || (all_read() && record::TO_SCRIBE.is_empty());
    if is_quiet() {
        return;
    }
    while !is_quiet() && Instant::now() < deadline {
        stall::ring();
        std::thread::sleep(Duration::from_micros(200));
    }
    stderr::flush(EXIT_PATIENCE);
}
