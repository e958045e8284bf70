//! Takes a [`Snapshot`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use super::capture::{Captured, Doing};
use super::classes::ClassNames;
use super::condensed::First;
use super::frames::{Frames, frames};
use super::grouped::StackTable;
use super::loaded;
use super::objects::Objects;
use super::snapshot::{Options, Process, SCHEMA_VERSION, Snapshot, Stack, Task, Worker};
use super::sweep::{Sweep, Then, cell_of};
use super::waits;
use crate::observe::WaitKind;
use crate::scheduler::runtime;
use crate::scheduler::shared::{Shared, worker_at};
use crate::sys::clock;
use crate::task::TaskCell;

impl Snapshot {
    /// Looks at everything, without stopping anything.
    ///
    /// May be called from a task or from any thread. Meant for programs and views; symbols can take milliseconds the first
    /// time that they are asked for.
    ///
    /// # Examples
    /// ```
    /// use coro::inspect::{Options, Snapshot};
    /// coro::run(|| {
    ///     let _idle = coro::spawn_named("idle", || coro::sleep(std::time::Duration::from_secs(3600)));
    ///     coro::sleep(std::time::Duration::from_millis(20));
    ///     let snapshot = Snapshot::take(&Options::default());
    ///     let idle = snapshot.tasks.iter().find(|t| t.name.as_deref() == Some("idle")).unwrap();
    ///     assert_eq!(idle.wait.as_ref().unwrap().kind, "sleep");
    /// });
    /// ```
    pub fn take(options: &Options) -> Snapshot {
        let taken_at = SystemTime::now();
        if options.stacks {
            frames().refresh();
        }
        let places = Places::new();
        let mut workers = places.workers();
        let mut sweep = Sweep::new();
        sweep.captured.wants_spawn_stack = true;
        sweep.captured.wants_stack = options.stacks;
        sweep.captured.wants_running = options.stacks && options.running;
        let (mut tasks, mut left_out) = (Vec::new(), 0);
        let (mut table, mut counts) = (StackTable::default(), Vec::new());
        let mut names = ClassNames::default();
        let mut runnable = vec![0usize; workers.len()];
        let mut objects = Objects::default();
        let swept = |frames: &mut Frames, c: &mut Captured, _: &'static TaskCell| {
            if let Some(n) =
                (c.doing == Doing::Runnable).then(|| places.worker(c.owner).and_then(|w| runnable.get_mut(w)))
            {
                n.into_iter().for_each(|n| *n += 1);
            }
            // Whoever waits counts, also among those that are left out.
            let object = if options.objects { objects.add(c, c.age()) } else { None };
            if options.limit > 0 && tasks.len() == options.limit {
                left_out += 1;
                return Then::GoOn;
            }
            let stack = (options.stacks && c.registers.is_some()).then(|| {
                let complete = frames.walk(c);
                let (n, is_new) = table.number(frames.addresses(), complete, usize::MAX)?;
                if is_new {
                    counts.push(0);
                }
                counts[n] += 1;
                Some(n)
            });
            tasks.push(task(c, &places, &mut names, stack.flatten(), object));
            Then::GoOn
        };
        sweep.all(swept);
        for (w, n) in workers.iter_mut().zip(runnable) {
            w.runnable = n;
        }
        // The lock is for one stack at a time: names can take a while.
        let stacks = table.into_stacks().into_iter().zip(counts);
        let stacks = stacks.map(|((a, complete), n)| stack(&mut frames(), &a, complete, n, false)).collect();
        let (objects, edges) = if options.objects { objects.finish() } else { Default::default() };
        let (longest_window, windows) = sweep.captured.windows();
        Snapshot {
            schema_version: SCHEMA_VERSION,
            taken_at,
            took: sweep.took(),
            longest_window,
            window_p9999: windows.quantile(0.9999).min(longest_window),
            process: process(),
            tasks,
            left_out,
            stacks,
            workers,
            objects,
            edges,
        }
    }
}

/// The kind of the wait of a running task whose thread is blocked in the kernel, or does not answer.
const KERNEL: &str = "kernel";

/// One task and its stack with whole names, for the long view.
pub(crate) fn one(id: u64) -> Option<(Task, Option<Stack>)> {
    frames().refresh();
    let mut c = Captured::new();
    c.wants_spawn_stack = true;
    c.wants_running = true;
    let cell = cell_of(id)?;
    if !(c.capture(cell, Some(id)) && c.follow(cell, Some(id))) {
        return None;
    }
    let mut frames = frames();
    let stack = c.registers.is_some().then(|| {
        let complete = frames.walk(&c);
        let addresses = Box::from(frames.addresses());
        stack(&mut frames, &addresses, complete, 1, true)
    });
    Some((task(&c, &Places::new(), &mut ClassNames::default(), stack.as_ref().map(|_| 0), None), stack))
}

/// One task without its stack; `None` if it has ended.
#[cfg(feature = "serde")]
pub(super) fn value(
    c: &mut Captured,
    cell: &'static TaskCell,
    id: u64,
    places: &Places,
    names: &mut ClassNames,
) -> Option<Task> {
    c.capture(cell, Some(id)).then(|| task(c, places, names, None, None))
}

pub(super) fn task(
    c: &Captured,
    places: &Places,
    names: &mut ClassNames,
    stack: Option<usize>,
    object: Option<usize>,
) -> Task {
    let age = c.age();
    let kind = match c.doing {
        Doing::Parked => Some(c.wait.kind).filter(|kind| *kind != WaitKind::None).map(WaitKind::word),
        Doing::Running(_) => (!c.kernel.is_empty()).then_some(KERNEL),
        _ => None,
    };
    let wait = kind.map(|kind| {
        let mut text = String::new();
        c.wait_text(&mut text);
        waits::fields(c, kind, text, object)
    });
    let unfinished = if matches!(c.doing, Doing::Running(_)) { age } else { Duration::ZERO };
    let shared = worker_at(c.owner);
    Task {
        id: c.id,
        name: c.name().map(str::to_owned),
        class: names.of(c).clone(),
        labels: c.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        state: c.state(),
        age,
        runtime: shared.map_or(0, |w| places.runtime(w)),
        worker: shared.filter(|_| c.doing != Doing::Unstarted).map(Shared::ordinal),
        parent: c.parent,
        spawned_at: c.site.map(Into::into),
        spawn_stack: c.spawn_stack.clone(),
        wait,
        slices: c.slices + u64::from(matches!(c.doing, Doing::Running(_))),
        run_time: clock::duration(c.run_ticks) + unfinished,
        started: c.started.map(|at| clock::duration(c.at.saturating_sub(at))),
        longest_slice: c.longest_slice.max(unfinished),
        longest_delay: c.longest_delay,
        stack_used: c.used,
        stack,
    }
}

/// Names the calls of one stack, `whole` ones with their generic arguments.
fn stack(frames: &mut Frames, addresses: &[usize], complete: bool, count: usize, whole: bool) -> Stack {
    let mut condensed = String::new();
    frames.text(addresses, First::ResumePoint, complete, &mut condensed);
    let found = if whole { frames.list_whole(addresses) } else { frames.list(addresses) };
    Stack { frames: found, complete, condensed, count }
}

pub(crate) fn process() -> Process {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let program = program.as_deref().and_then(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned());
    let map = loaded::latest();
    let own = map.images.iter().find(|image| image.file.is_empty());
    let build_id = own.map_or_else(String::new, |image| image.build_id.to_string());
    Process {
        pid: std::process::id(),
        program: program.unwrap_or_default(),
        build_id,
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// Which worker and which runtime a task's owner is.
#[derive(Debug)]
pub(super) struct Places {
    runtimes: Vec<Arc<runtime::Inner>>,
    /// By the place in the process's table: runtime, and index into the snapshot's workers.
    places: HashMap<u16, (u32, usize)>,
}

impl Places {
    pub(super) fn new() -> Places {
        let runtimes = runtime::all();
        let all =
            runtimes.iter().zip(0u32..).flat_map(|(r, number)| r.workers().iter().map(move |w| (w.index, number)));
        let places = all.zip(0usize..).map(|((place, number), index)| (place, (number, index))).collect();
        Places { runtimes, places }
    }

    fn runtime(&self, w: &Shared) -> u32 {
        self.places.get(&w.index).map_or(0, |p| p.0)
    }

    fn worker(&self, place: u16) -> Option<usize> {
        self.places.get(&place).map(|p| p.1)
    }

    fn workers(&self) -> Vec<Worker> {
        let mut all = Vec::new();
        for (runtime, number) in self.runtimes.iter().zip(0u32..) {
            all.extend(runtime.workers().iter().enumerate().map(|(index, w)| worker(number, index, w)));
        }
        all
    }
}

fn worker(runtime: u32, index: usize, w: &Shared) -> Worker {
    let current = w.current.load(Ordering::SeqCst);
    // SAFETY: cells are type-stable.
    let id = if current.is_null() { 0 } else { unsafe { &*current }.state.snapshot().id() };
    Worker {
        runtime,
        index,
        thread: w.thread.load(Ordering::Relaxed),
        current: id,
        slice_age: (id != 0).then(|| clock::since(w.slice_start.load(Ordering::Relaxed))),
        asleep: w.idle.looks_asleep(),
        runnable: 0,
        unstarted: w.fresh.len(),
        live: w.live.load(Ordering::Relaxed),
        slices: w.slices.load(Ordering::Relaxed),
        busy: clock::duration(w.busy.load(Ordering::Relaxed)),
        parks: w.parks.load(Ordering::Relaxed),
        spawned: w.spawned.load(Ordering::Relaxed),
        ended: w.ended.load(Ordering::Relaxed),
        load: w.load.load(Ordering::Relaxed) as f32 / 1000.0,
    }
}
