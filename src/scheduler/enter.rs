//! The program's way in and out: `run`, `event_loop`, `set_exit`, and the two signals that end a server.
//!
//! `run` installs signal handlers and restores what it found (so does nothing else but `ctrl_c`). The handler does
//! nothing but write one byte to a pipe; the thread that called `run` waits at the other end and does the rest.

use std::io;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ctrl_c;
use super::join::Task;
use super::runtime::{self, Runtime, RuntimeBuilder};
use super::suspend::{self, here};
use crate::observe::{WaitKind, WaitReason};
use crate::sys::fork;
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
///
/// Under a [`RunBuilder::grace`] this is true for that long before the tasks are cancelled, for loops to finish what
/// they are at.
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
    fork::refuse_wait("the end of the event loop");
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
/// [`runner`] has settings for all of this. Once [`ctrl_c`](crate::ctrl_c) was called, SIGINT goes there instead.
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
    runner().run(f)
}

/// [`run`] with settings.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// let answer = coro::runner().workers(2).grace(Duration::from_secs(10)).run(|| 42);
/// assert_eq!(answer, 42);
/// ```
pub fn runner() -> RunBuilder {
    RunBuilder { runtime: Runtime::builder(), handle_signals: true, grace: Duration::ZERO, patience: STOP_PATIENCE }
}

/// How [`run`] starts and how it stops; made by [`runner`].
#[derive(Debug, Clone)]
#[must_use = "nothing runs until run is called"]
pub struct RunBuilder {
    runtime: RuntimeBuilder,
    handle_signals: bool,
    grace: Duration,
    patience: Duration,
}

impl RunBuilder {
    /// How many worker threads; the default is `CORO_WORKERS` or the number of CPUs available.
    pub fn workers(mut self, n: usize) -> RunBuilder {
        self.runtime = self.runtime.workers(n);
        self
    }

    /// Usable stack of a task in bytes unless its builder says otherwise; the default is 192 KiB or `CORO_STACK_KB`.
    pub fn stack_size(mut self, bytes: usize) -> RunBuilder {
        self.runtime = self.runtime.stack_size(bytes);
        self
    }

    /// Whether SIGINT and SIGTERM end the run; the default is yes. If not, no handler is installed, and they do what the
    /// program or its parent has decided: by default they end the process at once, and no task is unwound.
    pub fn handle_signals(mut self, yes: bool) -> RunBuilder {
        self.handle_signals = yes;
        self
    }

    /// How long after [`stopping`] has become true the tasks go on before they are cancelled; the default is not at all.
    ///
    /// The time ends early when `f` ends, or when it is parked in [`event_loop`] and no other task is left.
    pub fn grace(mut self, grace: Duration) -> RunBuilder {
        self.grace = grace;
        self
    }

    /// How long after that cancellation the process waits before it names the tasks that have not ended and exits; the
    /// default is 5 seconds.
    pub fn patience(mut self, patience: Duration) -> RunBuilder {
        self.patience = patience;
        self
    }

    /// See [`run`](crate::run()).
    ///
    /// # Panics
    /// As [`run`](crate::run()).
    #[track_caller]
    pub fn run<F, T>(self, f: F) -> T
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        assert!(here().is_none(), "coro::run was called inside a task; spawn a task instead");
        if let Err(e) = fork::refuse() {
            panic!("coro::run cannot start: {e}");
        }
        assert!(
            !RUN_ACTIVE.swap(true, Ordering::SeqCst),
            "coro::run is already running in this process; spawn tasks from there, or make a Runtime of your own"
        );
        let _active = Active;
        STOPPING.store(false, Ordering::SeqCst);
        *EXIT_ASKED.lock().unwrap_or_else(PoisonError::into_inner) = false;
        let (runtime, pipe, handlers) = match self.start() {
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
        // SAFETY: this function does not return before the task has ended and its result was taken, or the process
        // exits.
        let handle = match unsafe { runtime.inner().spawn_root(site, root) } {
            Ok(handle) => handle,
            Err(e) => panic!("coro::run cannot start its first task: {e}"),
        };
        let borrowed = AbortOnUnwind;
        self.supervise(&runtime, &pipe, handle.task());
        let result = handle.join();
        std::mem::forget(borrowed);
        // Restored first, so that a second Ctrl-C ends even a shutdown that hangs.
        ctrl_c::give_back(handlers, runtime.inner().id);
        runtime::set_running(None);
        runtime.shut_down(END_PATIENCE);
        crate::sys::stderr::flush(crate::sys::stderr::EXIT_PATIENCE);
        match result {
            Ok(value) => value,
            Err(payload) if suspend::is_cancel(&*payload) && stopping() => {
                std::process::exit(EXIT_CODE.load(Ordering::SeqCst))
            }
            Err(payload) => panic::resume_unwind(payload),
        }
    }

    fn start(&self) -> io::Result<(Runtime, ControlPipe, HandlerGuard)> {
        let runtime = self.runtime.clone().build()?;
        let pipe = ControlPipe::new()?;
        let handlers = if self.handle_signals { HandlerGuard::install()? } else { HandlerGuard::none() };
        Ok((runtime, pipe, handlers))
    }

    /// Waits for the first task's end; turns signals and `set_exit` into a stop.
    fn supervise(&self, runtime: &Runtime, pipe: &ControlPipe, root: Task) {
        let mut phase = Phase::Running;
        loop {
            let event = match phase {
                Phase::Running => pipe.wait(None),
                Phase::Grace(end) => pipe.wait(Some(left(end).min(GLANCE))),
                Phase::Cancelled(end) => pipe.wait(Some(left(end))),
            };
            match (event, phase) {
                (Some(Event::RootEnded), _) => return,
                (Some(Event::Exit | Event::Signal(_)), Phase::Running) => {
                    if let Some(Event::Signal(number)) = event {
                        EXIT_CODE.store(128 + number, Ordering::SeqCst);
                        STOPPING.store(true, Ordering::SeqCst);
                    }
                    phase = Phase::Grace(after(self.grace));
                }
                // Whoever called `ctrl_c` has it.
                (Some(Event::Interrupt), Phase::Running) => {}
                (Some(Event::Exit), _) => {}
                // A second signal, or patience has ended.
                (Some(Event::Signal(_) | Event::Interrupt), _) => give_up(runtime),
                (None, Phase::Cancelled(end)) if left(end).is_zero() => give_up(runtime),
                (None, _) => {}
            }
            if let Phase::Grace(end) = phase
                && (left(end).is_zero() || runtime.inner().live() == 1 && root.waits_for(WaitKind::EventLoop))
            {
                runtime.inner().cancel_all();
                phase = Phase::Cancelled(after(self.patience));
            }
        }
    }
}

/// How far a run is on its way to its end; the ends are `None` where they lie beyond what an `Instant` can hold.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Running,
    /// Asked to stop; the tasks go on until then.
    Grace(Option<Instant>),
    /// They are cancelled and have time until then.
    Cancelled(Option<Instant>),
}

/// How often in the time of grace the run looks whether there is anything left to wait for.
const GLANCE: Duration = Duration::from_millis(5);

fn after(time: Duration) -> Option<Instant> {
    Instant::now().checked_add(time)
}

fn left(end: Option<Instant>) -> Duration {
    const LONG: Duration = Duration::from_secs(86_400);
    end.map_or(LONG, |end| end.saturating_duration_since(Instant::now()))
}

fn give_up(runtime: &Runtime) -> ! {
    super::report_left_behind(runtime.inner());
    std::process::exit(EXIT_CODE.load(Ordering::SeqCst));
}

/// Leaving `run` while its first task may still use what it borrows must not happen, whatever goes wrong.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        crate::sys::stderr::last_words("coro: run was unwound while its first task lasts; aborting\n");
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
