//! One reading of the clock for several short tasks in a row.
//!
//! A reading costs a sixth of what a task costs that does little and ends, and nobody can ask such a task afterwards
//! how long it took. So tasks of one class, spawned in one slice, that ended in their first slice, one right after the other, are timed
//! together: a *stretch*. Whoever runs next and is none of those is timed from its own beginning.
//!
//! Invariants: nothing that is counted or recorded changes as long as a stretch stays below [`LONGEST`]. The run
//! time of a class is exact, because a stretch has one class; a slice so short would not be recorded by itself either; the
//! worker's busy time is the same, and the delays of tasks that were spawned in one slice and start without a reading between
//! them are one number. All of that is written at the reading at the end, a stretch later. Stretches begin at one task, become longer
//! only after many readings that showed nothing longer, and go back to one task at the first that did: what then was told of
//! the last of at most [`MOST`] tasks may have been one of the others. And it cannot have been a stall: whoever looks at a
//! worker that runs something asks for a reading ([`Shared::ask_time`](super::shared::Shared::ask_time)), so that the end of every slice that was
//! looked at is timed. While nobody looks there are no stretches.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use crate::task::NOTEWORTHY;

/// What takes longer altogether is not timed together: no slice in a shorter stretch would have been recorded by itself. Without
/// optimisation every task takes longer than that; there it is more, so that tests come this way.
pub(super) const LONGEST: Duration = if cfg!(debug_assertions) { Duration::from_micros(40) } else { NOTEWORTHY };

/// The most tasks that one reading is for.
const MOST: u64 = 32;

/// A stretch of so many says that tasks have been short for a while.
const FEW: u64 = 8;

/// After so many readings in a row that showed nothing longer than half of [`LONGEST`], a stretch may be twice as long.
const CALM: u32 = 64;

/// The class of no task, not even of one that is not classified yet.
const NOBODY: u16 = u16::MAX;

/// What one worker has not timed yet.
#[derive(Debug)]
pub(super) struct Stretch {
    /// What those that ended since the last reading have in common: their class ([`NOBODY`] if there are none), and when they were spawned: the
    /// beginning of the slice that did it.
    class: Cell<u16>,
    spawned: Cell<u64>,
    /// The number of the first one's slice. The others have those that follow.
    first: Cell<u64>,
    /// How long a stretch may be, the task at its end included.
    most: Cell<u64>,
    /// Readings since `most` changed.
    calm: Cell<u32>,
}

impl Stretch {
    pub(super) fn new() -> Stretch {
        let [spawned, first] = [0, 0].map(Cell::new);
        Stretch { class: Cell::new(NOBODY), spawned, first, most: Cell::new(1), calm: Cell::new(0) }
    }

    /// Whether nothing was left untimed.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.class.get() == NOBODY
    }

    /// How many of it have ended before the slice of that number.
    #[inline(always)]
    pub(super) fn before(&self, slice: u64) -> u64 {
        slice - self.first.get()
    }

    /// Whether tasks have long been short.
    #[inline(always)]
    pub(super) fn is_long(&self) -> bool {
        self.most.get() >= FEW
    }

    /// Their class, and when they were spawned.
    pub(super) fn of(&self) -> (u16, u64) {
        (self.class.get(), self.spawned.get())
    }

    /// A task runs for the first time; whether it is timed together with those before it. `of`: what they would have in common.
    #[inline(always)]
    pub(super) fn takes(&self, (class, spawned): (u16, u64)) -> bool {
        self.spawned.get() == spawned && self.class.get() == class
    }

    /// A task runs for the first time, in the slice of that number, and is timed from here. `of`: what it has in common with those that come after
    /// it. The number of the first slice after which the clock is to be read, if it is of another such task.
    #[inline(always)]
    pub(super) fn begins(&self, (class, spawned): (u16, u64), slice: u64) -> u64 {
        self.class.set(class);
        self.spawned.set(spawned);
        self.first.set(slice);
        slice + self.most.get() - 1
    }

    /// The clock was read, so long after the last time. `longest` is [`LONGEST`] in the same unit. `watched`: somebody would notice a
    /// slice that does not end.
    #[inline(always)]
    pub(super) fn was_read(&self, length: u64, longest: u64, watched: impl FnOnce() -> bool) {
        self.class.set(NOBODY);
        let calm = self.calm.get() + 1;
        self.calm.set(calm);
        if length > longest / 2 || calm >= CALM {
            self.adapt(length, longest, watched());
        }
    }

    #[inline(never)]
    fn adapt(&self, length: u64, longest: u64, watched: bool) {
        self.calm.set(0);
        let most = self.most.get();
        self.most.set(if length > longest || !watched {
            1
        } else if length > longest / 4 * 3 {
            (most - 1).max(1)
        } else if length > longest / 2 {
            most
        } else {
            (most * 2).min(MOST)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: u64 = 1000;
    const ONE: (u16, u64) = (3, 17);

    /// Tasks up to the next reading, which then says that each took so long.
    fn tasks(s: &Stretch, each: u64) -> u64 {
        assert!(s.is_empty() && !s.takes(ONE));
        let end = s.begins(ONE, 100);
        assert!(!s.is_empty() && s.takes(ONE));
        assert_eq!((s.before(100), s.before(end)), (0, s.most.get() - 1));
        s.was_read((end - 99) * each, BOUND, || true);
        end - 99
    }

    #[test]
    fn a_stretch_is_of_one_class_and_one_spawner() {
        let s = Stretch::new();
        assert_eq!(s.begins(ONE, 7), 7, "the first is timed by itself");
        for (class, spawned) in [(4, 17), (3, 19)] {
            assert!(!s.takes((class, spawned)), "{class} {spawned}");
        }
        assert!(s.takes(ONE));
        assert_eq!(s.of(), ONE);
    }

    #[test]
    fn stretches_grow_while_all_are_short_and_end_at_the_first_that_is_not() {
        let s = Stretch::new();
        for most in [1, 2, 4, 8, 16, MOST] {
            assert!((0..CALM).all(|_| tasks(&s, 15) == most), "stretches of {most}");
            assert_eq!(s.is_long(), most >= FEW / 2);
        }
        assert_eq!(tasks(&s, 15), MOST);
        assert_eq!(tasks(&s, BOUND), MOST, "one was long");
        assert!((0..CALM).all(|_| tasks(&s, 15) == 1), "and from there on each is timed");
        assert_eq!(tasks(&s, 15), 2);
    }

    #[test]
    fn a_stretch_stays_below_the_longest() {
        for (each, most) in [(160, 4), (60, 12), (120, 6)] {
            let s = Stretch::new();
            let seen = (0..100 * CALM).map(|_| tasks(&s, each)).collect::<Vec<_>>();
            assert!(seen.iter().all(|n| n * each <= BOUND), "{each}: {seen:?}");
            assert_eq!(seen.last(), Some(&most), "three quarters of the bound");
        }
        // Each longer than that: always one by one.
        let s = Stretch::new();
        (0..10 * CALM).for_each(|_| _ = tasks(&s, 2000));
        assert_eq!(tasks(&s, 2000), 1);
    }

    #[test]
    fn without_a_watchdog_every_slice_is_timed() {
        let s = Stretch::new();
        for slice in 0..10 * u64::from(CALM) {
            assert_eq!(s.begins((1, 17), slice), slice);
            s.was_read(40, BOUND, || false);
        }
    }
}
