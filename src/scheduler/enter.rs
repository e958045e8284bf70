//! The program's way in and out: `run`, `event_loop`, `set_exit`, and the two signals that end a server.
//!
//! Only `run` installs signal handlers, and it restores what it found. The handler does nothing but write one byte to
//! a pipe; the thread that called `run` waits at the other end and does the rest.

use std::io;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::runtime::{self, Runtime};
use super::suspend::{self, here};
use crate::observe::{WaitKind, WaitReason};
use crate::sys::signal::{ControlPipe, Event, HandlerGuard};

static RUN_ACTIVE: AtomicBool = AtomicBool::new(false);
static STOPPING: AtomicBool = AtomicBool::new(false);
static EXIT_CODE: AtomicI32 = AtomicI32::new(0);
static EXIT_ASKED: Mutex<bool> = Mutex::new(false);
static EXIT_ARRIVED: Condvar = Condvar::new();

/// How long after a stop was asked for the process waits before it names what has not ended and exits.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long `run` waits for the tasks that are left when its closure has ended.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Whether the process was asked to stop, by [`set_exit`] or by SIGINT or SIGTERM under [`run`].
pub fn stopping() -> bool {
    STOPPING.load(Ordering::Relaxed)
}

/// Asks the process to stop with this exit code: all tasks are cancelled, then [`run`] or [`event_loop`] exits.
pub fn set_exit(code: i32) {
    EXIT_CODE.store(code, Ordering::SeqCst);
    STOPPING.store(true, Ordering::SeqCst);
    *EXIT_ASKED.lock().unwrap_or_else(PoisonError::into_inner) = true;
    EXIT_ARRIVED.notify_all();
    ControlPipe::notify(Event::Exit);
}

/// Waits until [`set_exit`] is called.
///
/// In a task it parks the task; the stop then cancels it like every other. On a plain thread (a `main` that spawned
/// tasks on the process-wide runtime) it then cancels all tasks, waits for them up to five seconds, and exits the
/// process with the code.
pub fn event_loop() {
    if here().is_some() {
        loop {
            suspend::wait(WaitReason::of(WaitKind::EventLoop));
        }
    }
    let mut asked = EXIT_ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    while !*asked {
        asked = EXIT_ARRIVED.wait(asked).unwrap_or_else(PoisonError::into_inner);
    }
    drop(asked);
    if let Ok(inner) = runtime::process_wide() {
        runtime::end(&inner, STOP_PATIENCE);
    }
    std::process::exit(EXIT_CODE.load(Ordering::SeqCst));
}

/// Starts a runtime, runs `f` as its first task and waits for it on the calling thread, so that `f` may borrow.
///
/// When `f` ends, the remaining tasks are cancelled and unwound within 2 seconds; what has not ended by then is named
/// on stderr and left behind. SIGINT and SIGTERM make [`stopping`] true and cancel all tasks; what has not ended after
/// 5 seconds is named and the process exits; a second signal does so at once. If `f` itself was ended by that, the
/// process exits with 128 + the signal's number, or with the code given to [`set_exit`].
///
/// # Examples
/// ```
/// let words = vec!["one", "two"];
/// let n = coro::run(|| words.len()); // borrows
/// assert_eq!(n, 2);
/// ```
///
/// # Panics
/// With `f`'s own panic; if called inside a task or while another `run` lasts; if the runtime cannot start (the
/// message says why).
#[track_caller]
pub fn run<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    assert!(here().is_none(), "coro::run was called inside a task; spawn a task instead");
    assert!(
        !RUN_ACTIVE.swap(true, Ordering::SeqCst),
        "coro::run is already running in this process; spawn tasks from there, or make a Runtime of your own"
    );
    let _active = Active;
    STOPPING.store(false, Ordering::SeqCst);
    *EXIT_ASKED.lock().unwrap_or_else(PoisonError::into_inner) = false;
    let (runtime, pipe, handlers) = match start() {
        Ok(parts) => parts,
        Err(e) => panic!("coro::run cannot start: {e}"),
    };
    runtime::set_running(Some(runtime.inner().clone()));
    let ended = pipe.on_drop(Event::RootEnded);
    let site = panic::Location::caller();
    let root = move || {
        let _tells = ended;
        f()
    };
    // SAFETY: this function does not return before the task has ended and its result was taken, or the process exits.
    let handle = match unsafe { runtime.inner().spawn_root(site, root) } {
        Ok(handle) => handle,
        Err(e) => panic!("coro::run cannot start its first task: {e}"),
    };
    let borrowed = AbortOnUnwind;
    supervise(&runtime, &pipe);
    let result = handle.join();
    std::mem::forget(borrowed);
    // Restored first, so that a second Ctrl-C ends even a shutdown that hangs.
    drop(handlers);
    runtime::set_running(None);
    runtime.shut_down(END_PATIENCE);
    match result {
        Ok(value) => value,
        Err(payload) if suspend::is_cancel(&*payload) && stopping() => {
            std::process::exit(EXIT_CODE.load(Ordering::SeqCst))
        }
        Err(payload) => panic::resume_unwind(payload),
    }
}

/// Leaving `run` while its first task may still use what it borrows must not happen, whatever goes wrong.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        crate::sys::stderr::write("coro: run was unwound while its first task lasts; aborting\n");
        std::process::abort();
    }
}

struct Active;

impl Drop for Active {
    fn drop(&mut self) {
        runtime::set_running(None);
        RUN_ACTIVE.store(false, Ordering::SeqCst);
    }
}

fn start() -> io::Result<(Runtime, ControlPipe, HandlerGuard)> {
    let runtime = Runtime::builder().build()?;
    let pipe = ControlPipe::new()?;
    let handlers = HandlerGuard::install()?;
    Ok((runtime, pipe, handlers))
}

/// Waits for the first task's end; turns signals and `set_exit` into a stop.
fn supervise(runtime: &Runtime, pipe: &ControlPipe) {
    let mut deadline: Option<Instant> = None;
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        match pipe.wait(left) {
            Some(Event::RootEnded) => return,
            Some(Event::Exit) if deadline.is_none() => {
                runtime.inner().cancel_all();
                deadline = Some(Instant::now() + STOP_PATIENCE);
            }
            Some(Event::Signal(number)) if deadline.is_none() => {
                EXIT_CODE.store(128 + number, Ordering::SeqCst);
                STOPPING.store(true, Ordering::SeqCst);
                runtime.inner().cancel_all();
                deadline = Some(Instant::now() + STOP_PATIENCE);
            }
            Some(Event::Exit) => {}
            // A second signal, or patience has ended.
            Some(Event::Signal(_)) | None => {
                super::report_left_behind(runtime.inner());
                std::process::exit(EXIT_CODE.load(Ordering::SeqCst));
            }
        }
    }
}
