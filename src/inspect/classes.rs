//! What is counted by class of tasks.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::capture::Captured;
use super::snapshot::Site;
use super::sweep::cells;
use crate::observe::{Distribution, class};
use crate::scheduler::runtime;
use crate::sys::clock;

/// What a class of tasks has done, in all or on one worker; see [`classes`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClassReport {
    /// The class's name, or its spawn site; `(other)` for all that came after the 1,000th.
    pub class: Arc<str>,
    /// Tasks that exist.
    pub live: u64,
    /// Tasks that have ended.
    pub ended: u64,
    /// Slices begun.
    pub slices: u64,
    /// Time spent running, unfinished slices not included.
    pub run_time: Duration,
    /// Lengths of slices. Those below 1 µs are counted in the lowest bucket without having been measured.
    pub slice_lengths: Distribution,
    /// Times from a wake-up or spawn to the slice that it led to. A wake-up by a task of the same worker counts from the
    /// beginning of the waking slice.
    pub wake_delays: Distribution,
}

/// What each class of tasks has done since its first task, in every runtime of the process.
///
/// # Examples
/// ```
/// coro::run(|| {
///     let tasks: Vec<_> = (0..10).map(|_| coro::Builder::new().class("adder").spawn(|| 1 + 1).unwrap()).collect();
///     tasks.into_iter().for_each(|t| drop(t.join()));
///     let all = coro::inspect::classes();
///     let adder = all.iter().find(|c| &*c.class == "adder").unwrap();
///     assert_eq!((adder.ended, adder.slice_lengths.count(), adder.wake_delays.count()), (10, 10, 10));
/// });
/// ```
pub fn classes() -> Vec<ClassReport> {
    by_class(|_, _| true)
}

/// As [`classes`], on one worker alone, counted from 0 in the runtime with that number.
pub fn classes_of(runtime: usize, worker: usize) -> Vec<ClassReport> {
    by_class(|r, w| r == runtime && w == worker)
}

/// The name of a class.
pub(super) fn class_name(number: u16) -> Arc<str> {
    match class::get(number) {
        Some(class) => class.to_string().into(),
        None if number == class::OTHER => "(other)".into(),
        None => "".into(),
    }
}

/// The names of classes, each made once.
#[derive(Debug, Default)]
pub(super) struct ClassNames {
    by_number: Vec<Option<Arc<str>>>,
    /// Of tasks that have not started, which have no number yet.
    by_site: HashMap<Site, Arc<str>>,
    given: HashMap<Box<str>, Arc<str>>,
}

impl ClassNames {
    /// The class of a captured task.
    pub(super) fn of(&mut self, c: &Captured) -> &Arc<str> {
        match c.class_number {
            class::NONE => match (c.class(), c.site) {
                (Some(name), _) => {
                    if self.given.len() >= class::MOST && !self.given.contains_key(name) {
                        return self.by_number(class::OTHER);
                    }
                    self.given.entry(name.into()).or_insert_with(|| name.into())
                }
                (None, Some(site)) => {
                    let site = Site::from(site);
                    self.by_site.entry(site).or_insert_with(|| site.to_string().into())
                }
                (None, None) => self.by_number(class::OTHER),
            },
            number => self.by_number(number),
        }
    }

    pub(super) fn by_number(&mut self, number: u16) -> &Arc<str> {
        let at = usize::from(number);
        if self.by_number.len() <= at {
            self.by_number.resize(at + 1, None);
        }
        self.by_number[at].get_or_insert_with(|| class_name(number))
    }
}

fn by_class(wanted: impl Fn(usize, usize) -> bool) -> Vec<ClassReport> {
    let mut all: Vec<ClassReport> = (0..class::count())
        .map(|number| ClassReport {
            class: class_name(number),
            live: 0,
            ended: 0,
            slices: 0,
            run_time: Duration::ZERO,
            slice_lengths: Distribution::default(),
            wake_delays: Distribution::default(),
        })
        .collect();
    let mut places = Vec::new();
    for (r, runtime) in runtime::all().iter().enumerate() {
        for (w, worker) in runtime.workers().iter().enumerate().filter(|(w, _)| wanted(r, *w)) {
            let _ = w;
            places.push(worker.index);
            for (number, report) in all.iter_mut().enumerate() {
                let Some(stats) = worker.class_stats(number as u16) else { continue };
                report.ended += stats.ended.load(Ordering::Relaxed);
                report.slices += stats.ended_slices.load(Ordering::Relaxed);
                report.run_time += clock::duration(stats.ended_ticks.load(Ordering::Relaxed));
                stats.slices.add_to(&mut report.slice_lengths);
                stats.delays.add_to(&mut report.wake_delays);
            }
        }
    }
    for cell in cells() {
        let number = cell.class.load(Ordering::Relaxed);
        let is_live = cell.state.snapshot().id() != 0 && !cell.state.is_done();
        if is_live && places.contains(&cell.owner.load(Ordering::Relaxed)) {
            let Some(report) = all.get_mut(usize::from(number)) else { continue };
            report.live += 1;
            report.slices += cell.accounting.slices();
            report.run_time += clock::duration(cell.accounting.run_ticks());
        }
    }
    for report in &mut all {
        let short = report.slices.saturating_sub(report.slice_lengths.count());
        report.slice_lengths.add_short(short);
    }
    all.retain(|r| r.slices + r.live + r.ended > 0);
    all
}
