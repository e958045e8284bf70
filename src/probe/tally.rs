//! Counts that many threads add to at once: one place for each of a few threads, so that they do not wait for one another's
//! caches.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::observe::{Distribution, Histogram};

/// More threads than that share places.
const PLACES: usize = 16;

/// Two cache lines: x86 fetches them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Place(AtomicU64);

/// The place of the calling thread.
#[inline]
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    // Needs no destructor, so it can be reached until the very end of the thread.
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % PLACES);
        }
        own.get()
    })
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Tally(Box<[Place; PLACES]>);

impl Tally {
    pub(super) fn new() -> Tally {
        Tally::default()
    }

    #[inline]
    pub(super) fn add(&self) {
        self.0[place()].0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sum(&self) -> u64 {
        self.0.iter().map(|place| place.0.load(Ordering::Relaxed)).sum()
    }
}

/// Histograms, one for each place that is used.
#[derive(Debug, Default)]
pub(super) struct Durations([OnceLock<Box<Histogram>>; PLACES]);

impl Durations {
    #[inline]
    pub(super) fn record(&self, ticks: u64) {
        self.0[place()].get_or_init(|| Box::new(Histogram::new())).record_beside_others(ticks);
    }

    pub(super) fn distribution(&self) -> Distribution {
        let mut all = Distribution::default();
        self.0.iter().filter_map(OnceLock::get).for_each(|one| one.add_to(&mut all));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nothing_that_threads_count_at_once_is_lost() {
        let (tally, durations) = (Tally::new(), Durations::default());
        thread::scope(|s| {
            for _ in 0..PLACES * 2 {
                s.spawn(|| {
                    for n in 0..1000 {
                        tally.add();
                        durations.record(n << 12);
                    }
                });
            }
        });
        assert_eq!((tally.sum(), durations.distribution().count()), (32_000, 32_000));
    }
}
