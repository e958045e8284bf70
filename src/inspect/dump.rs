//! Writing about the whole process to standard error when a signal comes, for the time when there is no client.
//!
//! ```text
//!   signal --> handler --byte--> coro-dump --asks--> coro-dump-text --> standard error
//!                                    \--- no progress for a while: a raw report -->/
//! ```
//!
//! Two threads are prepared when the signal is chosen. The second writes what the layers above registered; it allocates,
//! reads symbols and may wait for locks of the allocator or the loader that a stuck task holds. The first allocates nothing
//! and watches it: if it stands still, the first writes what it can tell without any of that.
//!
//! Must not know: what is written, apart from the raw report.

#![forbid(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::raw::Raw;
use super::text::Style;
use crate::sys::{dump_signal, threads};

/// Takes pieces of the text; false when nobody can read them.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// Writes the text, piece by piece.
pub(crate) type Text = fn(Sink<'_>);

static TEXT: OnceLock<Text> = OnceLock::new();

/// How long the text may stand still before the raw report comes.
const STANDSTILL: Duration = Duration::from_secs(2);
/// How long standard error may stand still before the raw report is given up.
const NO_READER: Duration = Duration::from_secs(1);
const STANDS_STILL: &str = "coro: the dump stands still (an allocator's lock is held?); what is known without it:\n";

/// Says what is written; the first call counts.
pub(crate) fn dump_with(text: Text) {
    let _ = TEXT.set(text);
}

static STATUS: OnceLock<fn(Style) -> String> = OnceLock::new();

/// Says what [`status`] answers; the first call counts.
pub(crate) fn status_with(text: fn(Style) -> String) {
    let _ = STATUS.set(text);
}

/// The whole process on one screen, as the backdoor's `status` shows it: tasks by state and by what they wait for, workers
/// that are taken, deadlocks, descriptors, memory, panics and stalls, each line with the command that shows more.
///
/// Takes at most about 400 ms, however many tasks there are, and needs nothing of any worker.
///
/// # Examples
/// ```
/// coro::run(|| {
///     let text = coro::inspect::status();
///     assert!(text.starts_with("tasks      1: 1 running"), "{text}");
/// });
/// ```
pub fn status() -> String {
    STATUS.get().map_or_else(|| "no runtime has started in this process\n".to_owned(), |text| text(Style::PLAIN))
}

/// Has the process write its status and the stacks of all tasks to standard error whenever that signal comes. The program
/// goes on. The same is had for `CORO_DUMP_SIGNAL=QUIT` in the environment, without a call.
///
/// The handler only writes a byte to a pipe; two threads prepared here do the rest, so that it works while every worker is
/// stuck. Should a stuck task hold a lock that is needed for the text (the allocator's), a raw report comes after two
/// seconds: every worker with the stack of what it runs, and the other tasks, with functions but without lines. Signals that come during a dump lead to one more when it ends.
///
/// Whatever was done about the signal before is replaced, not called. System calls that are never restarted after a
/// handler (`nanosleep`, `poll`, `epoll_wait`) end early with `EINTR` in the thread that the signal happens to
/// interrupt; std and this crate repeat them. Only as many signals can be chosen as there are; there is no way back.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a signal that cannot be caught, that tells of a fault, by which a program is
/// stopped (`SIGINT`, `SIGTERM`) or that the runtime uses (`SIGURG`). Otherwise if there is no descriptor or no thread left.
/// [`Unsupported`](io::ErrorKind::Unsupported) under Miri.
///
/// # Examples
/// ```no_run
/// // From now on `kill -USR1 PID` shows what the process does.
/// coro::inspect::dump_on(libc::SIGUSR1)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn dump_on(signal: i32) -> io::Result<()> {
    if cfg!(miri) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "signals are not dumped on under Miri"));
    }
    if !dump_signal::NAMES.iter().any(|(_, number)| *number == signal) {
        let text = format!("signal {signal} is not one to write a dump on; {}", choices());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    listen()?;
    dump_signal::take(signal)
}

/// Does what `CORO_DUMP_SIGNAL` says, if it says something.
pub(crate) fn dump_as_the_environment_says() {
    let Some(name) = std::env::var_os("CORO_DUMP_SIGNAL").filter(|name| !name.is_empty()) else { return };
    let name = name.to_string_lossy();
    let outcome = match dump_signal::by_name(&name) {
        Some(signal) => dump_on(signal).map_err(|e| e.to_string()),
        None => Err(format!("not the name of a signal to write a dump on; {}", choices())),
    };
    if let Err(problem) = outcome {
        let shown: String = name.chars().take(40).flat_map(char::escape_debug).collect();
        let line = format!("coro: CORO_DUMP_SIGNAL={shown}: {problem}\n");
        dump_signal::write_within(line.as_bytes(), NO_READER);
    }
}

fn choices() -> String {
    let names: Vec<&str> = dump_signal::NAMES.iter().map(|(name, _)| *name).collect();
    format!("choose one of {}", names.join(", "))
}

/// How often a dump was asked for.
static ASKED: Mutex<u64> = Mutex::new(0);
static ASK: Condvar = Condvar::new();
/// Grows with every step of the writer.
static PROGRESS: AtomicU64 = AtomicU64::new(0);
/// The writer has something for standard error, and waits for whoever reads there: it does not stand still by itself, and
/// nothing else could be written either.
static WRITES: AtomicBool = AtomicBool::new(false);
/// What had been asked for when the last dump that is whole was begun.
static DONE: AtomicU64 = AtomicU64::new(0);

/// Starts the threads, once.
fn listen() -> io::Result<()> {
    /// Which of the two threads there are.
    static LISTENING: Mutex<(bool, bool)> = Mutex::new((false, false));
    let mut listening = LISTENING.lock().unwrap_or_else(PoisonError::into_inner);
    let (writer, listener_runs) = &mut *listening;
    if *listener_runs {
        return Ok(());
    }
    let listener = dump_signal::Listener::new()?;
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    if !*writer {
        thread("coro-dump-text").spawn(write_when_asked)?;
        *writer = true;
    }
    let mut raw = Raw::prepared();
    thread("coro-dump").spawn(move || {
        let _own = threads::Own::new();
        while listener.wait() {
            let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
            *asked += 1;
            let mine = *asked;
            drop(asked);
            ASK.notify_one();
            watch(mine, &mut raw);
        }
    })?;
    *listener_runs = true;
    Ok(())
}

/// The writer's thread.
fn write_when_asked() {
    let _own = threads::Own::new();
    Raw::read_names();
    let mut done = 0;
    loop {
        let asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = ASK.wait_while(asked, |asked| *asked == done).unwrap_or_else(PoisonError::into_inner);
        done = *asked;
        drop(asked);
        let text = TEXT.get().copied().unwrap_or(|_| {});
        // A fault in the text must not end the thread.
        let _ = std::panic::catch_unwind(|| {
            text(&mut |piece| {
                PROGRESS.fetch_add(1, Ordering::SeqCst);
                WRITES.store(true, Ordering::SeqCst);
                let written = dump_signal::write_patiently(piece);
                WRITES.store(false, Ordering::SeqCst);
                written
            });
        });
        DONE.store(done, Ordering::SeqCst);
    }
}

/// Waits for the writer's end. Writes the raw report if it stands still.
fn watch(asked: u64, raw: &mut Raw) {
    let (mut last, mut since) = (PROGRESS.load(Ordering::SeqCst), Instant::now());
    while DONE.load(Ordering::SeqCst) < asked {
        std::thread::sleep(Duration::from_millis(10));
        let now = PROGRESS.load(Ordering::SeqCst);
        if now != last || WRITES.load(Ordering::SeqCst) {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() >= STANDSTILL {
            let told = STANDS_STILL.as_bytes();
            if dump_signal::write_within(told, NO_READER) {
                raw.write(|line| dump_signal::write_within(line, NO_READER));
            }
            return;
        }
    }
}
