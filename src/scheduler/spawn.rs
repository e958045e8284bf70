//! Making tasks: a cell, a closure, a place.

use std::io;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::join::JoinHandle;
#[cfg(feature = "probe")]
use super::labels::scopes_here;
use super::runtime::Inner;
use super::suspend::{Here, here};
use super::worker::Worker;
use crate::observe::{self, class};
use crate::stack::{self, ClassId};
use crate::sys::line::Line;
use crate::task::{LOCAL, Label, PLACED, TaskCell, store_closure, vtable};

/// Ids are handed to workers in blocks, so that a spawn touches no shared line.
const ID_BLOCK: u64 = 32;
const CREDIT_BLOCK: usize = 64;
/// How many more tasks the spawning worker may have than another before the other gets the new one.
const LOCAL_SLACK: usize = 4;
/// A difference in recent load (per mille) that decides alone.
const LOAD_MATTERS: u32 = 100;

static NEXT_ID: Line<AtomicU64> = Line::new(AtomicU64::new(1));

/// What a task is made of, apart from its closure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) class: Option<&'a str>,
    pub(super) stack: Option<ClassId>,
    /// As in [`Label::latency_ms`].
    pub(super) latency_ms: u32,
    pub(super) site: &'static Location<'static>,
}

impl<'a> Plan<'a> {
    /// Any task spawned at that place.
    pub(super) fn at(site: &'static Location<'static>) -> Plan<'a> {
        Plan { name: None, class: None, stack: None, latency_ms: 0, site }
    }

    pub(super) fn named(self, name: &'a str) -> Plan<'a> {
        Plan { name: Some(name), ..self }
    }

    #[inline(always)]
    fn label(&self, parent: Option<Here>) -> Option<Box<Label>> {
        // SAFETY: the parent is the running task.
        let inherited = parent.and_then(|h| unsafe { h.cell.label() }).filter(|l| l.inherit.load(Ordering::Relaxed));
        let plain = self.name.is_none() && self.class.is_none() && self.latency_ms == 0;
        #[cfg(feature = "probe")]
        if let Some(scopes) = scopes_here(parent) {
            let label = self.make_label(inherited).unwrap_or_default();
            label.scopes.put(Some(scopes));
            return Some(label);
        }
        if plain && inherited.is_none() && SPAWN_STACKS.load(Ordering::Relaxed) == NO_SPAWN_STACKS {
            return None;
        }
        self.make_label(inherited)
    }

    #[inline(never)]
    fn make_label(&self, inherited: Option<&Label>) -> Option<Box<Label>> {
        let spawn_stack = spawn_stack();
        let plain = self.name.is_none() && self.class.is_none() && self.latency_ms == 0;
        if plain && inherited.is_none() && spawn_stack.is_none() {
            return None;
        }
        let mut label = Box::new(Label::default());
        label.name = self.name.map(Arc::from);
        label.class = self.class.map(Box::from);
        label.spawn_stack = spawn_stack;
        label.latency_ms.store(self.latency_ms, Ordering::Relaxed);
        if let Some(parent) = inherited {
            label.inherit.store(true, Ordering::Relaxed);
            label.start_with(parent.pairs().to_vec());
        }
        Some(label)
    }
}

/// Settings of a task to be spawned.
///
/// # Examples
/// ```
/// let answer = coro::run(|| {
///     coro::Builder::new()
///         .name("answer")
///         .stack_size(64 * 1024)
///         .spawn(|| 6 * 7)
///         .expect("room for a task")
///         .join()
///         .unwrap()
/// });
/// assert_eq!(answer, 42);
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a builder does nothing until one of its spawn methods is called"]
pub struct Builder {
    name: Option<String>,
    class: Option<String>,
    stack_size: Option<usize>,
    worker: Option<usize>,
    latency: Option<Duration>,
}

impl Builder {
    /// No name, the default stack size, any worker.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names the task in every view.
    pub fn name(mut self, name: impl Into<String>) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Puts the task into a class, by which views count and group. Without one its spawn site is its class; give one
    /// where many places spawn the same kind of task, never one that differs from task to task.
    pub fn class(mut self, class: impl Into<String>) -> Builder {
        self.class = Some(class.into());
        self
    }

    /// Usable stack in bytes, rounded up to a size class. The default is 192 KiB or `CORO_STACK_KB`.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// Runs the task on the worker with that index (0 is the first) and on no other.
    pub fn worker(mut self, index: usize) -> Builder {
        self.worker = Some(index);
        self
    }

    /// How long one slice of the task may last before it is reported as a stall, whatever the process's threshold
    /// ([`set_latency_warning`](crate::set_latency_warning)) is; zero: however long. Rounded up to milliseconds.
    pub fn latency_warning(mut self, threshold: Duration) -> Builder {
        self.latency = Some(threshold);
        self
    }

    fn plan(&self, site: &'static Location<'static>) -> io::Result<Plan<'_>> {
        let stack = self.stack_size.map(stack::class_for).transpose()?;
        let latency_ms = self.latency.map_or(0, super::stall::own);
        Ok(Plan { name: self.name.as_deref(), class: self.class.as_deref(), stack, latency_ms, site })
    }

    /// Spawns on the running task's runtime, on a plain thread on the process-wide one.
    ///
    /// # Errors
    /// A stack size of 0 or above the maximum, no room for another stack or task, a worker index that does not exist,
    /// or (first use on a plain thread) a runtime that cannot start. The message says what to change.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let plan = self.plan(Location::caller())?;
        match self.worker {
            None => spawn_anywhere(plan, f),
            Some(index) => {
                let runtime = match Worker::current() {
                    Some(w) if w.runtime.admit() => w.runtime.clone(),
                    Some(_) => return Err(ended()),
                    None => super::runtime::admitting()?,
                };
                // SAFETY: the closure is `Send + 'static`.
                unsafe { runtime.spawn_at(plan, index, f) }
            }
        }
    }

    /// Spawns a task that may hold what is not `Send`; it runs on the spawning task's worker.
    ///
    /// # Errors
    /// As [`Builder::spawn`]; also on a plain thread, which has no worker.
    #[track_caller]
    pub fn spawn_local<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let plan = self.plan(Location::caller())?;
        let Some(worker) = Worker::current() else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "spawn_local needs a running task; on a plain thread use spawn, or call it inside coro::run",
            ));
        };
        if self.worker.is_some_and(|w| worker.runtime.workers().get(w).is_none_or(|s| !ptr::eq(*s, worker.shared))) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "spawn_local runs on the worker of its caller; leave out Builder::worker",
            ));
        }
        let cell = worker.make(plan, f)?;
        Ok(worker.admit_pinned(cell))
    }
}

/// Spawns a task on the running task's runtime; on a plain thread on the process-wide one, which it starts.
///
/// # Examples
/// ```
/// let sum: u32 = coro::run(|| {
///     let tasks: Vec<_> = (0..10).map(|i| coro::spawn(move || i * i)).collect();
///     tasks.into_iter().map(|t| t.join().unwrap()).sum()
/// });
/// assert_eq!(sum, 285);
/// ```
///
/// An unstarted task may be taken by another thread, so what is not `Send` cannot be moved in ([`spawn_local`] can):
///
/// ```compile_fail,E0277
/// let rc = std::rc::Rc::new(1);
/// coro::run(|| coro::spawn(move || *rc).join().unwrap());
/// ```
///
/// Nor can what the caller may lose before the task ends ([`scope`](crate::scope) can):
///
/// ```compile_fail,E0373
/// coro::run(|| {
///     let text = String::from("borrowed");
///     coro::spawn(|| println!("{text}")).join().unwrap();
/// });
/// ```
///
/// # Panics
/// Where [`Builder::spawn`] would return an error, as `std::thread::spawn` does.
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let plan = Plan::at(Location::caller());
    or_panic(spawn_anywhere(plan, f))
}

/// As [`spawn`], with a name.
///
/// # Panics
/// As [`spawn`].
#[track_caller]
pub fn spawn_named<F, T>(name: impl AsRef<str>, f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let plan = Plan::at(Location::caller()).named(name.as_ref());
    or_panic(spawn_anywhere(plan, f))
}

/// Spawns a task that may hold what is not `Send` (`Rc`, borrowed thread-locals) on the caller's own worker.
///
/// # Panics
/// As [`spawn`], and on a plain thread.
#[track_caller]
pub fn spawn_local<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    or_panic(Builder::new().spawn_local(f))
}

#[track_caller]
fn or_panic<T>(r: io::Result<T>) -> T {
    match r {
        Ok(v) => v,
        Err(e) => panic!("failed to spawn a task: {e}"),
    }
}

pub(super) fn ended() -> io::Error {
    if let Err(e) = crate::sys::fork::refuse() {
        return e;
    }
    io::Error::other("the runtime has ended; spawn on one that still runs")
}

#[inline]
fn spawn_anywhere<F, T>(plan: Plan<'_>, f: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Worker::current() {
        Some(worker) => {
            let cell = worker.make(plan, f)?;
            Ok(worker.place(cell))
        }
        // SAFETY: the closure is `Send + 'static`.
        None => unsafe { super::runtime::admitting()?.spawn_admitted(plan, f) },
    }
}

/// Spawns a task that may borrow, as its builder says (but for the worker).
///
/// # Safety
/// Everything that the closure and its result borrow lives until the task has ended and its result was taken or dropped.
pub(crate) unsafe fn spawn_borrowing<F, T>(
    builder: &Builder,
    site: &'static Location<'static>,
    f: F,
) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    let plan = builder.plan(site)?;
    match Worker::current() {
        Some(worker) => worker.make(plan, f).map(|made| worker.place(made)),
        // SAFETY: `Send`, and forwarded.
        None => unsafe { super::runtime::admitting()?.spawn_admitted(plan, f) },
    }
}

/// Spawns a child of a scope.
///
/// The closure may borrow: the only caller, `scope`, does not let its frame end before the child has.
pub(crate) fn spawn_scoped<'a, F>(
    builder: &Builder,
    site: &'static Location<'static>,
    f: F,
) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'a,
{
    // SAFETY: what is borrowed lives until the child has ended, by the scope's promise.
    unsafe { spawn_borrowing(builder, site, f) }
}

/// Whether one worker has so many more tasks than another that the other should get the next one.
pub(super) fn clearly_more(mine: usize, theirs: usize) -> bool {
    mine > theirs + LOCAL_SLACK + theirs / 32
}

/// How many return addresses of a spawn are kept.
const SPAWN_FRAMES: usize = 64;

/// Whether `CORO_SPAWN_STACKS` asks for the stacks of spawns; not asked yet at the start.
static SPAWN_STACKS: AtomicU8 = AtomicU8::new(0);
const NO_SPAWN_STACKS: u8 = 1;
const KEEP_SPAWN_STACKS: u8 = 2;

/// The stack of the caller, if it is wanted.
fn spawn_stack() -> Option<Box<[usize]>> {
    match SPAWN_STACKS.load(Ordering::Relaxed) {
        NO_SPAWN_STACKS => None,
        KEEP_SPAWN_STACKS => take_spawn_stack(),
        _ => {
            let wanted = std::env::var_os("CORO_SPAWN_STACKS").is_some_and(|v| !v.is_empty() && v != "0");
            SPAWN_STACKS.store(if wanted { KEEP_SPAWN_STACKS } else { NO_SPAWN_STACKS }, Ordering::Relaxed);
            wanted.then(take_spawn_stack).flatten()
        }
    }
}

#[cold]
#[inline(never)]
fn take_spawn_stack() -> Option<Box<[usize]>> {
    let base = crate::context::base_range();
    let mut addresses = Vec::new();
    let visit = |frame: &backtrace::Frame| {
        let ip = frame.ip() as usize;
        let at_base = (base.0..=base.1).contains(&ip);
        if !at_base {
            addresses.push(ip);
        }
        !at_base && addresses.len() < SPAWN_FRAMES
    };
    // SAFETY: on the systems that this crate runs on, stacks are walked by the unwinder, which synchronises by itself. The
    // lock that this call leaves out is held while names are looked up, for milliseconds, in which no worker could spawn.
    unsafe { backtrace::trace_unsynchronized(visit) };
    Some(addresses.into())
}

/// Everything of a new task but the publication of its word.
fn fill<F, T>(cell: &'static TaskCell, plan: Plan<'_>, class: u16, stack: ClassId, worker: u16, f: F)
where
    F: FnOnce() -> T,
{
    cell.pinned.store(0, Ordering::Relaxed);
    cell.owner.store(worker, Ordering::Relaxed);
    cell.stack_class.store(stack.index() as u8, Ordering::Relaxed);
    cell.local.store(ptr::null_mut(), Ordering::Relaxed);
    let parent = here();
    if observe::ORIGIN {
        cell.parent.store(parent.map_or(0, |h| h.id()), Ordering::Relaxed);
        cell.class.store(class, Ordering::Relaxed);
    }
    // SAFETY: the cell came from a magazine and is the caller's alone until its word is published; what a former
    // task left in these fields has been dropped by `empty_cell`.
    unsafe {
        if observe::ORIGIN {
            cell.site.get().write(Some(plan.site));
        }
        cell.vtable.get().write(Some(vtable::<F, T>()));
        if let Some(label) = plan.label(parent) {
            cell.set_label(label);
        }
        cell.stack.get().write(None);
        cell.joiner.get().write(None);
        store_closure(cell, f);
    }
}

impl Worker {
    /// A task that is complete but for its place.
    #[inline]
    fn make<F: FnOnce() -> T, T>(&self, plan: Plan<'_>, f: F) -> io::Result<(&'static TaskCell, u64)> {
        let class = plan.stack.unwrap_or(self.default_class);
        self.take_credit(class)?;
        let cell = match self.magazine.borrow_mut().take(super::registry()) {
            Ok(cell) => cell,
            Err(e) => {
                self.return_credit(class);
                return Err(e);
            }
        };
        fill(cell, plan, self.class_of(plan), class, self.shared.index, f);
        let id = self.fresh_id();
        let s = self.shared;
        s.spawned.store(s.spawned.load(Ordering::Relaxed) + 1, Ordering::Release);
        cell.accounting.spawned(s.slice_start.load(Ordering::Relaxed));
        Ok((cell, id))
    }

    /// The task's class; one with a name is left to whoever starts it.
    #[inline(always)]
    fn class_of(&self, plan: Plan<'_>) -> u16 {
        if observe::ORIGIN && plan.class.is_none() { self.classes.of_site(plan.site) } else { class::NONE }
    }

    fn fresh_id(&self) -> u64 {
        let mut id = self.next_id.get();
        if id == self.last_id.get() {
            id = NEXT_ID.fetch_add(ID_BLOCK, Ordering::Relaxed);
            self.last_id.set(id + ID_BLOCK);
        }
        self.next_id.set(id + 1);
        id
    }

    #[inline]
    fn take_credit(&self, class: ClassId) -> io::Result<()> {
        if class != self.default_class {
            return stack::try_reserve(class);
        }
        let mut have = self.credits.get();
        if have == 0 {
            have = stack::try_reserve_many(class, CREDIT_BLOCK)?;
        }
        self.credits.set(have - 1);
        Ok(())
    }

    #[inline]
    pub(super) fn return_credit(&self, class: ClassId) {
        if class != self.default_class {
            return stack::release(class);
        }
        let have = self.credits.get() + 1;
        if have > 4 * CREDIT_BLOCK {
            stack::release_many(class, 2 * CREDIT_BLOCK);
            self.credits.set(have - 2 * CREDIT_BLOCK);
        } else {
            self.credits.set(have);
        }
    }

    pub(super) fn return_all_credits(&self) {
        stack::release_many(self.default_class, self.credits.replace(0));
    }

    /// Publishes a stealable task at the better of two workers and sees to it that somebody looks.
    #[inline]
    fn place<T>(&self, (cell, id): (&'static TaskCell, u64)) -> JoinHandle<T> {
        let workers = self.runtime.workers();
        let mut target = self.shared;
        if workers.len() > 1 {
            target = self.better_of_two(workers, id);
            cell.owner.store(target.index, Ordering::Relaxed);
        }
        cell.state.spawn(id, true);
        target.fresh.push(cell);
        if workers.len() > 1 && (ptr::eq(target, self.shared) || target.wake() == super::idle::Wake::Awake) {
            // The target is busy, perhaps for long: somebody who rests shall look.
            self.runtime.wake_one_sleeper();
        }
        JoinHandle::new(cell.reference(id))
    }

    fn better_of_two(&self, workers: &[&'static super::shared::Shared], id: u64) -> &'static super::shared::Shared {
        // Any cheap spread will do for choosing the second candidate.
        let mut other = workers[(id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % workers.len()];
        if ptr::eq(other, self.shared) {
            other = workers[(workers.iter().position(|w| ptr::eq(*w, other)).unwrap_or(0) + 1) % workers.len()];
        }
        let now = self.shared.slice_start.load(Ordering::Relaxed);
        let stale = self.periods.load * 10;
        let mine = self.shared.recent_load(now, stale);
        let theirs = other.recent_load(now, stale);
        let count = |s: &super::shared::Shared| s.live.load(Ordering::Relaxed) + s.fresh.len();
        let (my_count, their_count) = (count(self.shared), count(other));
        let busier = mine > theirs + LOAD_MATTERS && their_count < 2 * my_count + LOCAL_SLACK;
        let fuller = clearly_more(my_count, their_count) && theirs <= mine + LOAD_MATTERS;
        if busier || fuller { other } else { self.shared }
    }

    /// Publishes a task that stays on this worker.
    fn admit_pinned<T>(&self, (cell, id): (&'static TaskCell, u64)) -> JoinHandle<T> {
        cell.pinned.store(LOCAL, Ordering::Relaxed);
        cell.state.spawn(id, true);
        self.queue.push(cell);
        JoinHandle::new(cell.reference(id))
    }
}

impl Inner {
    /// Spawns from a plain thread.
    ///
    /// # Safety
    /// The closure and its result may be used on another thread, and everything that they borrow lives until the
    /// task has ended and its result was taken or dropped.
    pub(super) unsafe fn spawn_outside<F: FnOnce() -> T, T>(&self, plan: Plan<'_>, f: F) -> io::Result<JoinHandle<T>> {
        if !self.admit() {
            return Err(ended());
        }
        // SAFETY: forwarded.
        unsafe { self.spawn_admitted(plan, f) }
    }

    /// As [`Inner::spawn_outside`], after [`Inner::admit`].
    ///
    /// # Safety
    /// As [`Inner::spawn_outside`].
    unsafe fn spawn_admitted<F: FnOnce() -> T, T>(&self, plan: Plan<'_>, f: F) -> io::Result<JoinHandle<T>> {
        let workers = self.workers();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (a, b) = (workers[turn % workers.len()], workers[(turn + 1) % workers.len()]);
        let count = |s: &super::shared::Shared| s.live.load(Ordering::Relaxed) + s.fresh.len();
        let target = if count(b) < count(a) { b } else { a };
        let (cell, id) = self.make_outside(plan, target.index, f)?;
        cell.state.spawn(id, true);
        target.fresh.push(cell);
        if target.wake() == super::idle::Wake::Awake {
            self.wake_one_sleeper();
        }
        Ok(JoinHandle::new(cell.reference(id)))
    }

    /// Spawns the first task of `coro::run`.
    ///
    /// # Safety
    /// As [`Inner::spawn_outside`].
    pub(super) unsafe fn spawn_root<F: FnOnce() -> T, T>(
        &self,
        site: &'static Location<'static>,
        f: F,
    ) -> io::Result<JoinHandle<T>> {
        let plan = Plan::at(site).named("main");
        // SAFETY: forwarded.
        unsafe { self.spawn_outside(plan, f) }
    }

    /// Spawns on one worker from anywhere, after [`Inner::admit`].
    ///
    /// # Safety
    /// As [`Inner::spawn_outside`].
    unsafe fn spawn_at<F: FnOnce() -> T, T>(&self, plan: Plan<'_>, index: usize, f: F) -> io::Result<JoinHandle<T>> {
        let Some(target) = self.workers().get(index) else {
            self.withdraw();
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("there is no worker {index}: this runtime has {} (0 is the first)", self.workers().len()),
            ));
        };
        let (cell, id) = self.make_outside(plan, target.index, f)?;
        cell.pinned.store(PLACED, Ordering::Relaxed);
        cell.accounting.begin();
        cell.state.spawn(id, true);
        let handle = JoinHandle::new(cell.reference(id));
        // SAFETY: the task is in no queue yet, so its link is ours to give.
        unsafe { target.deliver(cell) };
        Ok(handle)
    }

    /// The task was admitted.
    fn make_outside<F: FnOnce() -> T, T>(
        &self,
        plan: Plan<'_>,
        index: u16,
        f: F,
    ) -> io::Result<(&'static TaskCell, u64)> {
        let class = plan.stack.unwrap_or(self.stack_class);
        stack::try_reserve(class).inspect_err(|_| self.withdraw())?;
        let taken = self.outside().take(super::registry());
        let cell = match taken {
            Ok(cell) => cell,
            Err(e) => {
                stack::release(class);
                self.withdraw();
                return Err(e);
            }
        };
        fill(cell, plan, class::NONE, class, index, f);
        cell.accounting.spawned(crate::sys::clock::ticks());
        Ok((cell, NEXT_ID.fetch_add(1, Ordering::Relaxed)))
    }
}
