//! Counts that many threads add to at once: each in a place of its own, so that they do not wait for one another's caches.
//!
//! Invariants: the place of a worker is written by the thread that runs its tasks, and by nobody else at the same time, so that it needs no
//! locked instruction; a worker's number goes to another one only when it has ended. Everybody else shares a few places. What a signal
//! handler adds to a count in the middle of the same task's adding may get lost.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::observe::{Distribution, Histogram};
use crate::scheduler::suspend::{Here, here};

/// Workers that have a place of their own: those with the lowest numbers.
const OWNED: usize = 16;
/// The places of the others and of plain threads.
const SHARED: usize = 16;

/// Two cache lines: x86 fetches them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Place(AtomicU64);

/// The place of a worker of its own. Not to be kept beyond what cannot switch: what is remembered of a worker would outlive it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own(usize);

impl Own {
    /// That of the worker of the task that runs here, if it has one.
    #[inline(always)]
    pub(super) fn of(h: &Here) -> Option<Own> {
        let index = usize::from(h.worker.index());
        (index < OWNED).then_some(Own(index))
    }
}

/// The place of the calling thread among those that are shared.
#[inline]
fn shared_place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    // Needs no destructor, so it can be reached until the very end of the thread.
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARED);
        }
        own.get()
    })
}

/// See the module's head. Clones are one count.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally(Arc<Places>);

#[derive(Debug, Default)]
struct Places {
    owned: [Place; OWNED],
    shared: [Place; SHARED],
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally::default()
    }

    #[inline]
    pub(super) fn add(&self) {
        match here().and_then(|h| Own::of(&h)) {
            Some(own) => self.add_own(own),
            None => drop(self.0.shared[shared_place()].0.fetch_add(1, Ordering::Relaxed)),
        }
    }

    #[inline(always)]
    pub(super) fn add_own(&self, own: Own) {
        if let Some(Place(count)) = self.0.owned.get(own.0) {
            count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.owned.iter().chain(&self.0.shared).map(|place| place.0.load(Ordering::Relaxed)).sum()
    }
}

/// One of a worker, apart from its neighbours' as a [`Place`] is.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Measured(Histogram);

/// Histograms: one for each worker, and one for each of the other places that is used. Clones are one. Those of workers are there from the
/// beginning, 18 KiB, because whoever is on the short way through a point may not allocate.
#[derive(Debug, Clone)]
pub(super) struct Durations {
    owned: Arc<[Measured]>,
    shared: Arc<[OnceLock<Box<Histogram>>; SHARED]>,
}

impl Default for Durations {
    fn default() -> Durations {
        // One by one: all of them at once are much for a small stack.
        Durations { owned: (0..OWNED).map(|_| Measured::default()).collect(), shared: Arc::default() }
    }
}

impl Durations {
    #[inline]
    pub(super) fn record(&self, ticks: u64) {
        match here().and_then(|h| Own::of(&h)) {
            Some(own) => self.record_own(own, ticks),
            None => self.shared[shared_place()].get_or_init(Box::default).record_beside_others(ticks),
        }
    }

    #[inline(always)]
    pub(super) fn record_own(&self, own: Own, ticks: u64) {
        if let Some(Measured(histogram)) = self.owned.get(own.0) {
            histogram.record_short(ticks);
        }
    }

    pub(super) fn distribution(&self) -> Distribution {
        let mut all = Distribution::default();
        self.owned.iter().for_each(|Measured(one)| one.add_to(&mut all));
        self.shared.iter().filter_map(OnceLock::get).for_each(|one| one.add_to(&mut all));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::scheduler::Runtime;

    #[test]
    fn nothing_that_threads_count_at_once_is_lost() {
        let (tally, durations) = (Tally::new(), Durations::default());
        let each = if cfg!(miri) { 20 } else { 1000 };
        thread::scope(|s| {
            for _ in 0..SHARED * 2 {
                s.spawn(|| {
                    for n in 0..each {
                        tally.add();
                        durations.record(n << 12);
                    }
                });
            }
        });
        let all = SHARED as u64 * 2 * each;
        assert_eq!((tally.sum(), durations.distribution().count()), (all, all));
    }

    #[test]
    fn nothing_that_tasks_count_at_once_beside_threads_is_lost() {
        let (tally, durations) = (Tally::new(), Durations::default());
        let each = if cfg!(miri) { 5 } else { 1000 };
        let count = move |tally: Tally, durations: Durations| {
            for n in 0..each {
                tally.add();
                durations.record(n << 12);
                if n % 8 == 0 {
                    crate::thread::yield_now();
                }
            }
        };
        // One after the other, so that numbers of workers come again on other threads.
        let rounds = if cfg!(miri) { 1 } else { 3 };
        for _ in 0..rounds {
            let runtime = Runtime::builder().workers(2).build().unwrap();
            let tasks: Vec<_> = (0..4)
                .map(|_| {
                    let (tally, durations) = (tally.clone(), durations.clone());
                    runtime.spawn(move || count(tally, durations))
                })
                .collect();
            let (beside, durations_beside) = (tally.clone(), durations.clone());
            let thread = thread::spawn(move || count(beside, durations_beside));
            tasks.into_iter().for_each(|task| task.join().unwrap());
            thread.join().unwrap();
        }
        let all = rounds * 5 * each;
        assert_eq!((tally.sum(), durations.distribution().count()), (all, all));
        assert!(
            tally.0.owned.iter().any(|place| place.0.load(Ordering::Relaxed) > 0),
            "tasks have places of their own"
        );
    }
}
