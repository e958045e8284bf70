//! Takes a [`Snapshot`].

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::capture::{Captured, Doing};
use super::classes::class_name;
use super::frames::frames;
use super::line::view;
use super::snapshot::{Options, Process, SCHEMA_VERSION, Snapshot, Stack, Task, Wait, Worker};
use crate::observe::WaitKind;
use crate::scheduler::{self, runtime};
use crate::sys::clock;

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
        let (begun, taken_at) = (Instant::now(), SystemTime::now());
        let mut c = Captured::new();
        let mut stacks: Vec<Stack> = Vec::new();
        let mut by_text: HashMap<String, usize> = HashMap::new();
        let (mut tasks, mut left_out) = (Vec::new(), 0);
        frames().refresh();
        for cell in scheduler::all_cells() {
            if !c.capture(cell, None) {
                continue;
            }
            if options.limit > 0 && tasks.len() == options.limit {
                left_out += 1;
                continue;
            }
            let seen = view(&mut c, cell);
            let stack = (options.stacks && !seen.stack.is_empty()).then(|| {
                let at = *by_text.entry(seen.stack.clone()).or_insert_with(|| {
                    let complete = !seen.stack.ends_with(" [...]");
                    stacks.push(Stack { frames: Vec::new(), complete, condensed: seen.stack.clone(), count: 0 });
                    stacks.len() - 1
                });
                stacks[at].count += 1;
                at
            });
            let wait = (c.doing == Doing::Parked && c.wait.kind != WaitKind::None).then(|| Wait {
                kind: c.wait.kind.word(),
                text: seen.wait.clone(),
                object: None,
                fd: None,
                peer: None,
                left: None,
                timeout_left: None,
            });
            let unfinished = if matches!(c.doing, Doing::Running(_)) { seen.age } else { Duration::ZERO };
            tasks.push(Task {
                id: seen.id,
                name: seen.name,
                class: class_name(c.class_number),
                labels: seen.labels,
                state: seen.state,
                age: seen.age,
                runtime: 0,
                worker: None,
                parent: seen.parent,
                spawned_at: seen.spawned_at.map(Into::into),
                spawn_stack: Vec::new(),
                wait,
                slices: c.slices,
                run_time: clock::duration(c.run_ticks) + unfinished,
                started: c.started.map(clock::since),
                longest_slice: c.longest_slice.max(unfinished),
                longest_delay: c.longest_delay,
                stack,
            });
        }
        Snapshot {
            schema_version: SCHEMA_VERSION,
            taken_at,
            took: begun.elapsed(),
            longest_window: Duration::ZERO,
            process: process(),
            tasks,
            left_out,
            stacks,
            workers: workers(),
            objects: Vec::new(),
            edges: Vec::new(),
        }
    }
}

fn process() -> Process {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let program = program.as_deref().and_then(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned());
    Process { pid: std::process::id(), program: program.unwrap_or_default(), version: env!("CARGO_PKG_VERSION") }
}

fn workers() -> Vec<Worker> {
    let mut all = Vec::new();
    for (number, runtime) in runtime::all().iter().enumerate() {
        for (index, w) in runtime.workers().iter().enumerate() {
            let current = w.current.load(Ordering::SeqCst);
            // SAFETY: cells are type-stable.
            let id = if current.is_null() { 0 } else { unsafe { &*current }.state.snapshot().id() };
            all.push(Worker {
                runtime: number as u32,
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
            });
        }
    }
    all
}
