//! A runtime: its workers, how it starts and how it ends.

use std::any::Any;
use std::io;
use std::panic::{self, Location};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::idle::Sleepers;
use super::join::JoinHandle;
use super::shared::Shared;
use super::spawn::Plan;
use super::worker::Worker;
use crate::reactor::Poller;
use crate::stack::{self, ClassId};
use crate::sys::line::Line;
use crate::sys::{clock, fork};
use crate::task::state::Life;
use crate::task::{Magazine, TaskCell};

/// What all workers of one runtime share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) id: u32,
    pub(super) epoch: Instant,
    workers: Vec<&'static Shared>,
    pub(super) stack_class: ClassId,
    /// Every task is to be cancelled, also those yet to start.
    cancelling: AtomicBool,
    /// All tasks have ended and none may come any more.
    closed: AtomicBool,
    /// Workers without tasks shall leave.
    ending: AtomicBool,
    pub(super) sleepers: Sleepers,
    /// Written by each spawn from a plain thread, which the workers' own shall not notice.
    pub(super) turn: Line<AtomicUsize>,
    pub(super) spawned_outside: Line<AtomicU64>,
    /// Free cells for spawns from plain threads.
    outside: Line<Mutex<Magazine>>,
    /// Fault injection: spurious readiness. Honoured in debug builds only.
    pub(crate) chaos: AtomicBool,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

static RUNTIMES: Mutex<Vec<Arc<Inner>>> = Mutex::new(Vec::new());
static NEXT_RUNTIME: AtomicU32 = AtomicU32::new(1);

const MAX_WORKERS: usize = 512;

fn runtimes() -> MutexGuard<'static, Vec<Arc<Inner>>> {
    RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtimes that exist now.
pub(crate) fn all() -> Vec<Arc<Inner>> {
    runtimes().clone()
}

/// When a runtime's timer clock began.
pub(crate) fn epoch_of(id: u32) -> Option<Instant> {
    runtimes().iter().find(|r| r.id == id).map(|r| r.epoch)
}

/// The place of a runtime among those that exist now.
pub(crate) fn number_of(id: u32) -> Option<usize> {
    runtimes().iter().position(|r| r.id == id)
}

impl Inner {
    pub(crate) fn workers(&self) -> &[&'static Shared] {
        &self.workers
    }

    pub(crate) fn cancelling(&self) -> bool {
        self.cancelling.load(Ordering::Relaxed)
    }

    pub(super) fn ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub(super) fn outside(&self) -> MutexGuard<'_, Magazine> {
        self.outside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes one worker that sleeps, if any does, so that it looks for unstarted tasks.
    pub(super) fn wake_one_sleeper(&self) {
        crate::sys::atomic::fence(Ordering::SeqCst);
        if !self.sleepers.any() {
            return;
        }
        for w in &self.workers {
            if w.idle.looks_asleep() && w.wake() == super::idle::Wake::Kick {
                return;
            }
        }
    }

    /// Counts a task that is about to be spawned from outside; false if the runtime has ended. Undone by
    /// [`withdraw`](Inner::withdraw).
    pub(super) fn admit(&self) -> bool {
        if fork::forked() {
            return false;
        }
        self.spawned_outside.fetch_add(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            self.withdraw();
            return false;
        }
        true
    }

    /// The task that was admitted does not come.
    pub(super) fn withdraw(&self) {
        self.spawned_outside.fetch_sub(1, Ordering::SeqCst);
    }

    /// Tasks that were spawned and have not ended.
    pub(super) fn live(&self) -> u64 {
        let ended: u64 = self.workers.iter().map(|w| w.ended.load(Ordering::Acquire)).sum();
        let spawned: u64 = self.workers.iter().map(|w| w.spawned.load(Ordering::Acquire)).sum();
        (spawned + self.spawned_outside.load(Ordering::SeqCst)).saturating_sub(ended)
    }

    /// Every task of this runtime that has not ended, by the workers' places.
    pub(crate) fn for_each_task(&self, mut f: impl FnMut(&'static TaskCell, u64)) {
        for cell in super::all_cells() {
            let w = cell.state.snapshot();
            let mine = || self.workers.iter().any(|s| s.index == cell.owner.load(Ordering::Relaxed));
            if matches!(w.life(), Life::Unstarted | Life::Active | Life::Parked) && mine() {
                f(cell, w.id());
            }
        }
    }

    /// Requests cancellation of every task, also of those that will be spawned from now on.
    pub(super) fn cancel_all(&self) {
        self.cancelling.store(true, Ordering::SeqCst);
        self.for_each_task(|cell, id| super::wake::queue_if(cell.reference(id), cell.state.cancel(id, false).1));
    }

    /// Cancels everything and waits until it has ended, at most `patience`. Whether it has.
    pub(super) fn shut_down(&self, patience: Duration) -> bool {
        // None: for ever, like every wait that ends beyond what an `Instant` can hold.
        let deadline = Instant::now().checked_add(patience);
        self.cancel_all();
        let mut again = Instant::now() + Duration::from_millis(50);
        let mut pause = Duration::from_micros(50);
        let clean = loop {
            if self.live() == 0 {
                // A plain thread may be about to spawn: it counts itself first and looks at `closed` second, and this
                // does the opposite, so at least one of the two sees the other.
                self.closed.store(true, Ordering::SeqCst);
                if self.live() == 0 {
                    break true;
                }
            }
            let now = Instant::now();
            if deadline.is_some_and(|d| now >= d) {
                break false;
            }
            if now >= again {
                // Tasks that were spawned while the walk went by.
                self.cancel_all();
                again = now + Duration::from_millis(50);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        };
        // After an unclean end the workers stay, with the tasks that they could not end: what those still spawn must find
        // somebody who cancels it.
        if clean {
            self.ending.store(true, Ordering::SeqCst);
            for w in &self.workers {
                let _ = w.wake();
            }
            for t in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                let _ = t.join();
            }
            self.outside().flush(super::registry());
            self.workers.iter().for_each(|w| w.give_back());
            runtimes().retain(|r| r.id != self.id);
        }
        clean
    }
}

/// Settings of a runtime of its own, beside the process-wide one.
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until build is called"]
pub struct RuntimeBuilder {
    workers: Option<usize>,
    stack_size: Option<usize>,
    name: Option<String>,
}

impl RuntimeBuilder {
    /// How many worker threads; the default is `CORO_WORKERS` or the number of CPUs available.
    pub fn workers(mut self, n: usize) -> RuntimeBuilder {
        self.workers = Some(n);
        self
    }

    /// Usable stack of a task in bytes unless its builder says otherwise; the default is 192 KiB or `CORO_STACK_KB`.
    pub fn stack_size(mut self, bytes: usize) -> RuntimeBuilder {
        self.stack_size = Some(bytes);
        self
    }

    /// Prefix of the workers' thread names; the default is `coro`.
    pub fn name(mut self, name: impl Into<String>) -> RuntimeBuilder {
        self.name = Some(name.into());
        self
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// Numbers out of range, a malformed environment variable, and whatever the system refuses (threads, an epoll
    /// descriptor, address space for stacks). The message says what to change.
    pub fn build(self) -> io::Result<Runtime> {
        fork::refuse()?;
        let n = match self.workers {
            Some(n) => n,
            None => workers_from_environment()?,
        };
        if n == 0 || n > MAX_WORKERS {
            let text = format!("{n} workers were asked for; a runtime has from 1 to {MAX_WORKERS}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if self.name.as_ref().is_some_and(|n| n.contains('\0')) {
            let text = "the name of a runtime becomes its threads' name and may not contain a NUL character";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let stack_class = match self.stack_size {
            Some(bytes) => stack::class_for(bytes)?,
            None => stack::default_class()?,
        };
        stack::overflow::install()?;
        fork::watch();
        super::stall::begin();
        super::hooks();
        let id = NEXT_RUNTIME.fetch_add(1, Ordering::Relaxed);
        let mut places = Places(Vec::with_capacity(n));
        let mut pollers = Vec::with_capacity(n);
        for ordinal in 0..n {
            let (poller, kicker, registry) = Poller::new()?;
            let shared = Shared::claim(id, ordinal as u16)?;
            places.0.push(shared);
            shared.set_poll(Some((kicker, registry)));
            pollers.push(poller);
        }
        let workers = std::mem::take(&mut places.0);
        let inner = Arc::new(Inner {
            id,
            epoch: Instant::now(),
            workers,
            stack_class,
            cancelling: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            sleepers: Sleepers::new(),
            turn: Line::new(AtomicUsize::new(0)),
            spawned_outside: Line::new(AtomicU64::new(0)),
            outside: Line::new(Mutex::new(Magazine::new())),
            chaos: AtomicBool::new(false),
            threads: Mutex::default(),
        });
        runtimes().push(inner.clone());
        let prefix = self.name.as_deref().unwrap_or("coro");
        for (i, poller) in pollers.into_iter().enumerate() {
            let (shared, inner2) = (inner.workers[i], inner.clone());
            let started = std::thread::Builder::new().name(format!("{prefix}-{i}")).spawn(move || {
                let _own = crate::sys::threads::Own::new();
                worker_thread(shared, inner2, poller)
            });
            match started {
                Ok(t) => inner.threads.lock().unwrap_or_else(PoisonError::into_inner).push(t),
                Err(e) => {
                    inner.shut_down(Duration::from_secs(2));
                    let text = format!(
                        "cannot start worker thread {i} of {n}: {e}; lower CORO_WORKERS or raise the limit on threads"
                    );
                    return Err(io::Error::new(e.kind(), text));
                }
            }
        }
        Ok(Runtime { inner })
    }
}

/// Places of workers that do not start after all.
struct Places(Vec<&'static Shared>);

impl Drop for Places {
    fn drop(&mut self) {
        self.0.iter().for_each(|w| w.give_back());
    }
}

fn workers_from_environment() -> io::Result<usize> {
    match std::env::var_os("CORO_WORKERS").map(|v| v.to_string_lossy().into_owned()) {
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS)),
        Some(text) => match text.trim().parse() {
            Ok(n) if (1..=MAX_WORKERS).contains(&n) => Ok(n),
            _ => {
                let text = format!("CORO_WORKERS is {text:?}; set it to a number from 1 to {MAX_WORKERS}, or unset it");
                Err(io::Error::new(io::ErrorKind::InvalidInput, text))
            }
        },
    }
}

fn worker_thread(shared: &'static Shared, runtime: Arc<Inner>, poller: Poller) {
    shared.thread.store(crate::sys::thread_id(), Ordering::Relaxed);
    let alternate = stack::AltStack::install();
    // Leaked on purpose until the loop has ended: parked stacks and other threads hold references to it.
    let place = Box::into_raw(Box::new(Worker::new(shared, runtime, poller)));
    // SAFETY: freed below, when nothing refers to it any more.
    let worker: &'static Worker = unsafe { &*place };
    let whole = AbortOnUnwind;
    let _ = worker.run();
    std::mem::forget(whole);
    shared.set_poll(None);
    shared.gone.store(true, Ordering::Release);
    // SAFETY: the loop has ended without live tasks, so nothing refers to the worker any more.
    let worker = unsafe { Box::from_raw(place) };
    worker.magazine.borrow_mut().flush(super::registry());
    #[cfg(feature = "probe")]
    worker.give_spare_back();
    worker.return_all_credits();
    drop(worker);
    drop(alternate);
}

/// A worker whose loop panics leaves its tasks on a thread that is gone: nothing good can follow.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        crate::sys::stderr::last_words(
            "coro: a worker's own loop panicked, see above; a global allocator that waits for a lock or channel of coro \
             does that, else please report it. Aborting\n",
        );
        std::process::abort();
    }
}

/// Workers and the tasks on them. The process-wide runtime starts by itself; this is for further, separate ones.
///
/// Dropping it cancels its tasks and waits up to two seconds for them.
///
/// # Examples
/// ```
/// let runtime = coro::Runtime::builder().workers(1).build().unwrap();
/// let task = runtime.spawn(|| 6 * 7);
/// assert_eq!(task.join().unwrap(), 42);
/// ```
#[derive(Debug)]
pub struct Runtime {
    inner: Arc<Inner>,
}

impl Runtime {
    /// Settings for a new runtime.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::default()
    }

    /// Spawns a task on this runtime.
    ///
    /// # Panics
    /// If there is no room for another task or stack.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let plan = Plan::at(Location::caller());
        // SAFETY: the closure is `Send + 'static`.
        match unsafe { self.inner.spawn_outside(plan, f) } {
            Ok(handle) => handle,
            Err(e) => panic!("failed to spawn a task: {e}"),
        }
    }

    /// Runs `f` as a task of this runtime while the calling thread waits; `f` may borrow.
    ///
    /// # Panics
    /// With the payload of `f`'s own panic; if called from inside a task.
    #[track_caller]
    pub fn block_on<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        assert!(super::suspend::here().is_none(), "Runtime::block_on was called inside a task; spawn and join instead");
        let plan = Plan::at(Location::caller()).named("main");
        // SAFETY: this thread waits until the task has ended and takes the result, whatever happens.
        let handle = unsafe { self.inner.spawn_outside(plan, f) };
        match handle {
            Ok(handle) => handle.join().unwrap_or_else(|p| panic::resume_unwind(p)),
            Err(e) => panic!("failed to spawn the first task: {e}"),
        }
    }

    /// How many workers it has.
    pub fn workers(&self) -> usize {
        self.inner.workers.len()
    }

    /// Counters of each worker, for benchmarks and views.
    pub fn worker_stats(&self) -> Vec<WorkerStats> {
        self.inner.workers.iter().map(|w| WorkerStats::read(w)).collect()
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Cancels all tasks and waits for them, at most `patience`. Whether all have ended; what has not is named on
    /// stderr with its stack and left behind.
    pub fn shut_down(self, patience: Duration) -> bool {
        let inner = self.inner.clone();
        std::mem::forget(self);
        end(&inner, patience)
    }
}

/// Shuts down and says what did not end.
pub(super) fn end(inner: &Arc<Inner>, patience: Duration) -> bool {
    if fork::forked() {
        // The workers and their tasks are the parent's; so is waiting for them.
        return false;
    }
    let clean = inner.shut_down(patience);
    if !clean {
        super::report_left_behind(inner);
    }
    clean
}

impl Drop for Runtime {
    fn drop(&mut self) {
        end(&self.inner.clone(), Duration::from_secs(2));
    }
}

/// Counters of one worker since its start.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Slices run.
    pub slices: u64,
    /// Time spent in slices.
    pub busy: Duration,
    /// Tasks started and not ended.
    pub live: usize,
    /// Unstarted tasks waiting here.
    pub unstarted: usize,
    /// Times that the worker went to sleep.
    pub parks: u64,
}

impl WorkerStats {
    fn read(w: &Shared) -> WorkerStats {
        WorkerStats {
            slices: w.slices.load(Ordering::Relaxed),
            busy: clock::duration(w.busy.load(Ordering::Relaxed)),
            live: w.live.load(Ordering::Relaxed),
            unstarted: w.fresh.len(),
            parks: w.parks.load(Ordering::Relaxed),
        }
    }
}

/// Counters of the workers of the runtime that the caller is in (or of the process-wide one).
pub fn worker_stats() -> Vec<WorkerStats> {
    let inner = Worker::current().map(|w| w.runtime.clone()).or_else(|| process_wide().ok());
    inner.map(|i| i.workers.iter().map(|w| WorkerStats::read(w)).collect()).unwrap_or_default()
}

/// The runtime of `coro::run` while one is running.
static RUNNING: Mutex<Option<Arc<Inner>>> = Mutex::new(None);
static PROCESS_WIDE: OnceLock<Runtime> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

pub(super) fn set_running(inner: Option<Arc<Inner>>) {
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = inner;
}

/// The runtime that plain threads spawn on: that of `coro::run` while it lasts, else one that starts now and stays.
pub(super) fn process_wide() -> io::Result<Arc<Inner>> {
    // Before any lock: another thread may have held it at the fork.
    fork::refuse()?;
    if let Some(inner) = &*RUNNING.lock().unwrap_or_else(PoisonError::into_inner) {
        return Ok(inner.clone());
    }
    if let Some(r) = PROCESS_WIDE.get() {
        return Ok(r.inner.clone());
    }
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(r) = PROCESS_WIDE.get() {
        return Ok(r.inner.clone());
    }
    let runtime = Runtime::builder().build()?;
    let inner = runtime.inner.clone();
    let _ = PROCESS_WIDE.set(runtime);
    Ok(inner)
}

/// The runtime for a spawn from a plain thread, with the task already admitted to it.
pub(super) fn admitting() -> io::Result<Arc<Inner>> {
    let mut refused = 0;
    loop {
        let inner = process_wide()?;
        if inner.admit() {
            return Ok(inner);
        }
        // The `run` that it belonged to has just ended; the next look finds another one.
        if std::mem::replace(&mut refused, inner.id) == inner.id {
            return Err(super::spawn::ended());
        }
    }
}

/// Frees a cell from a plain thread.
pub(super) fn free_outside(cell: &'static TaskCell) {
    while !cell.state.may_empty() {
        // Somebody copies its name: well below a microsecond, unless that thread has just lost its CPU.
        std::thread::yield_now();
    }
    // SAFETY: the caller was told to free the cell, and nobody reads it.
    unsafe { super::slice::empty_cell(cell) };
    static OUTSIDE: Mutex<Magazine> = Mutex::new(Magazine::new());
    let mut m = OUTSIDE.lock().unwrap_or_else(PoisonError::into_inner);
    m.give(super::registry(), cell);
    if m.len() >= 64 {
        m.flush(super::registry());
    }
}

/// A payload's text, if it is one.
pub(crate) fn payload_text(payload: &(dyn Any + Send)) -> &str {
    if let Some(s) = payload.downcast_ref::<&str>() {
        s
    } else if let Some(s) = payload.downcast_ref::<String>() {
        s
    } else {
        "(a payload that is no text)"
    }
}
