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
const MOST: u32 = 16;

/// After so many readings in a row without anything long, a stretch may be longer by one task.
const CALM: u32 = 64;

/// The class of no task, not even of one that is not classified yet.
const NOBODY: u16 = u16::MAX;

/// What one worker has not timed yet.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Tasks that ended since the last reading.
    untimed: Cell<u32>,
    /// What they have in common: their class ([`NOBODY`] if there are none), and when they were spawned: the beginning of the slice that did it.
    class: Cell<u16>,
    spawned: Cell<u64>,
    /// How long a stretch may be, the task at its end included.
    most: Cell<u32>,
    /// Readings since `most` changed.
    calm: Cell<u32>,
}

impl Stretch {
    pub(super) fn new() -> Stretch {
        let [untimed, most, calm] = [0, 1, 0].map(Cell::new);
        Stretch { untimed, class: Cell::new(NOBODY), spawned: Cell::new(0), most, calm }
    }

    /// How many tasks there are whose time was not read.
    #[inline(always)]
    pub(super) fn untimed(&self) -> u32 {
        self.untimed.get()
    }

    /// Whether tasks have long been short.
    #[inline(always)]
    pub(super) fn is_long(&self) -> bool {
        self.most.get() > MOST / 2
    }

    /// Their class, and when they were spawned.
    pub(super) fn of(&self) -> (u16, u64) {
        (self.class.get(), self.spawned.get())
    }

    /// A task runs for the first time; whether it is timed together with those before it. `of`: what they would have in common.
    #[inline(always)]
    pub(super) fn takes(&self, of: (u16, u64)) -> bool {
        of == self.of()
    }

    /// A task has ended in its first slice; whether the clock need not be read for it. `limit` is what [`Stretch::was_read`] said, or 0
    /// if somebody asks for a reading.
    #[inline(always)]
    pub(super) fn goes_on(&self, limit: u32, of: impl FnOnce() -> (u16, u64)) -> bool {
        let untimed = self.untimed.get() + 1;
        if untimed >= limit {
            return false;
        }
        self.untimed.set(untimed);
        if untimed == 1 {
            let (class, spawned) = of();
            self.class.set(class);
            self.spawned.set(spawned);
        }
        true
    }

    /// The clock was read, so long after the last time; how long the next stretch may be. `longest` is [`LONGEST`] in the same
    /// unit. `watched`: somebody would notice a slice that does not end.
    #[inline(always)]
    pub(super) fn was_read(&self, length: u64, longest: u64, watched: impl FnOnce() -> bool) -> u32 {
        self.untimed.set(0);
        self.class.set(NOBODY);
        let calm = self.calm.get() + 1;
        self.calm.set(calm);
        if length > longest / 2 || calm >= CALM {
            self.adapt(length, longest, watched());
        }
        self.most.get()
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
            (most + 1).min(MOST)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: u64 = 1000;

    /// Tasks up to the next reading, which then says that each took so long.
    fn tasks(s: &Stretch, each: u64) -> u32 {
        let (mut n, of) = (1, || (3, 17));
        while s.goes_on(s.most.get(), of) {
            assert!(s.untimed() == n && s.takes(of()));
            n += 1;
        }
        assert_eq!(s.untimed(), n - 1);
        assert_eq!(s.was_read(u64::from(n) * each, BOUND, || true), s.most.get());
        assert!(s.untimed() == 0 && !s.takes(of()));
        n
    }

    #[test]
    fn a_stretch_is_of_one_class_and_one_spawner_and_ends_where_that_is_asked_for() {
        let (s, one) = (Stretch::new(), || (3, 17));
        assert!(!s.takes(one()));
        (0..2 * CALM).for_each(|_| _ = tasks(&s, 40));
        assert!(!s.goes_on(0, one), "somebody asks");
        assert!(s.goes_on(s.most.get(), one));
        for (class, spawned) in [(4, 17), (3, 19)] {
            assert!(!s.takes((class, spawned)), "{class} {spawned}");
        }
        assert!(s.takes(one()));
        assert_eq!((s.of(), s.untimed()), ((3, 17), 1));
    }

    #[test]
    fn stretches_grow_while_all_are_short_and_end_at_the_first_that_is_not() {
        let s = Stretch::new();
        for most in 1..=MOST {
            assert!((0..CALM).all(|_| tasks(&s, 30) == most), "stretches of {most}");
        }
        assert_eq!(tasks(&s, 30), MOST);
        assert_eq!(tasks(&s, BOUND), MOST, "one was long");
        assert!((0..CALM).all(|_| tasks(&s, 30) == 1), "and from there on each is timed");
        assert_eq!(tasks(&s, 30), 2);
    }

    #[test]
    fn a_stretch_stays_below_the_longest() {
        let s = Stretch::new();
        let seen = (0..100 * CALM).map(|_| tasks(&s, 160)).collect::<Vec<_>>();
        assert!(seen.iter().all(|n| u64::from(*n) * 160 <= BOUND), "{seen:?}");
        assert!(seen.contains(&4), "three quarters of the bound");
        // Each longer than that: always one by one.
        (0..10 * CALM).for_each(|_| _ = tasks(&s, 2000));
        assert_eq!(tasks(&s, 2000), 1);
    }

    #[test]
    fn without_a_watchdog_every_slice_is_timed() {
        let s = Stretch::new();
        for _ in 0..10 * CALM {
            assert_eq!(s.was_read(40, BOUND, || false), 1);
            assert!(!s.goes_on(1, || (1, 17)));
        }
    }
}
