//! `status --json`: the figures of the triage view, for programs.
//!
//! Invariant: bounded in time and size as the view is; what is wrong has a list, which is empty where nothing is.
//!
//! Must not know: how JSON is written.

#![forbid(unsafe_code)]

use std::time::Duration;

use serde::Serialize;

use super::status::{PATIENCE, PIECE};
use crate::inspect::{self, Census, DescriptorUse};
use crate::report::{self, Remembered};
use crate::sys::usage;

/// Of the whole process.
#[derive(Serialize)]
pub(super) struct Figures {
    tasks: Tasks,
    /// Parked tasks by what they wait for, most first.
    waits: Vec<Waiting>,
    /// Workers whose slice is longer than the threshold of latency warnings.
    wedged: Vec<Wedged>,
    /// The ids of tasks that wait for one another, a list a deadlock.
    deadlocks: Vec<Vec<u64>>,
    queues: Queues,
    descriptors: DescriptorUse,
    memory: Memory,
    /// How often any task panicked, and how many slices were too long.
    panics: u64,
    stalls: u64,
    workers: Vec<Worker>,
    uptime: Duration,
    cpu: Duration,
}

#[derive(Serialize)]
struct Tasks {
    all: usize,
    running: usize,
    runnable: usize,
    unstarted: usize,
    parked: usize,
    oldest_runnable: Duration,
    /// There are more: counting was given up.
    cut: bool,
}

#[derive(Serialize)]
struct Waiting {
    kind: &'static str,
    tasks: usize,
    oldest: Duration,
    oldest_task: u64,
}

#[derive(Serialize)]
struct Wedged {
    runtime: u32,
    worker: usize,
    task: u64,
    lasts: Duration,
    /// Tasks that can run there and nowhere else.
    behind: usize,
}

#[derive(Serialize)]
struct Queues {
    messages: usize,
    channels: usize,
}

#[derive(Serialize)]
struct Memory {
    resident: u64,
    /// That is the most that it ever was.
    only_peak: bool,
    stacks_in_use: usize,
    stacks_pooled: usize,
}

/// With the members that a row of `workers` has.
#[derive(Serialize)]
struct Worker {
    runtime: u32,
    index: usize,
    current: u64,
    slice_age: Option<Duration>,
    asleep: bool,
    runnable: usize,
    live: usize,
    load: f32,
}

/// The count that comes first.
pub(super) struct Counting(Census);

impl Counting {
    pub(super) fn new() -> Counting {
        Counting(Census::new())
    }

    /// Counts on; the figures once all are counted.
    pub(super) fn more(&mut self) -> Option<Figures> {
        if self.0.more(PIECE, PATIENCE) { None } else { Some(figures(&self.0)) }
    }
}

fn figures(c: &Census) -> Figures {
    let mut waits: Vec<Waiting> = c
        .waits
        .iter()
        .map(|w| Waiting { kind: w.word, tasks: w.count, oldest: w.oldest.1, oldest_task: w.oldest.0 })
        .collect();
    waits.sort_by_key(|w| (std::cmp::Reverse(w.tasks), w.kind));
    let wedged = c.workers.iter().filter(|w| w.wedged).filter_map(|w| {
        let (task, lasts) = w.current?;
        Some(Wedged { runtime: w.runtime, worker: w.index, task, lasts, behind: w.behind })
    });
    let deadlocks = inspect::deadlocks();
    let queued = inspect::queued();
    let (m, stacks) = (usage::memory(), inspect::stack_stats().ok());
    let (user, system) = usage::cpu();
    let sum = |all: Vec<Remembered>| all.iter().map(|kind| kind.count).sum();
    Figures {
        tasks: Tasks {
            all: c.tasks(),
            running: c.running,
            runnable: c.runnable,
            unstarted: c.unstarted,
            parked: c.parked,
            oldest_runnable: c.oldest_runnable,
            cut: c.cut,
        },
        waits,
        wedged: wedged.collect(),
        deadlocks: deadlocks.iter().map(|d| d.waits.iter().map(|w| w.task.id).collect()).collect(),
        queues: queued
            .map_or(Queues { messages: 0, channels: 0 }, |q| Queues { messages: q.messages, channels: q.channels }),
        descriptors: inspect::descriptors(),
        memory: Memory {
            resident: m.resident,
            only_peak: m.only_peak,
            stacks_in_use: stacks.as_ref().map_or(0, |s| s.in_use),
            stacks_pooled: stacks.as_ref().map_or(0, |s| s.committed.saturating_sub(s.in_use)),
        },
        panics: sum(report::panics()),
        stalls: sum(report::stalls()),
        workers: c
            .workers
            .iter()
            .map(|w| Worker {
                runtime: w.runtime,
                index: w.index,
                current: w.current.map_or(0, |(id, _)| id),
                slice_age: w.current.map(|(_, lasts)| lasts),
                asleep: w.asleep,
                runnable: w.behind,
                live: w.live,
                load: w.load,
            })
            .collect(),
        uptime: c.uptime(),
        cpu: user + system,
    }
}
