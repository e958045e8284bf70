//! How long an idle worker looks around before it sleeps.
//!
//! To fall asleep and to be kicked takes microseconds on both sides, and where CPUs sleep deeply some tens of them. Tasks of two workers
//! that work hand in hand would pay that for every few messages: one worker sleeps while the other one does what it waits for. So a
//! worker whose rests are soon ended by others stays awake for [`LINGER`] first. Each time that this was in vain it takes twice as many
//! such rests in a row until the next one: a process that is idle, or waits for descriptors and timers, never lingers, and one whose
//! workers share a CPU seldom.
//!
//! Invariant: nothing depends on it. What comes meanwhile is found as it would be in the middle of work, and nobody kicks.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use super::worker::Worker;

/// How long.
pub(super) const LINGER: Duration = Duration::from_micros(50);
/// So long a rest that is worth it lasts at most: whoever ends it may have had to wake up as well.
pub(super) const SHORT: Duration = Duration::from_micros(100);
/// The poll is looked at as often.
pub(super) const LOOK: Duration = Duration::from_micros(10);
/// So many rests in a row are short before the first time, and at most after many in vain.
const FEWEST: u32 = 4;
const MOST: u32 = 4096;
/// Short looks at the inbox between two at the clock.
const GLANCES: u32 = 16;

/// What the rests before were like.
#[derive(Debug)]
pub(super) struct Linger {
    short: Cell<u32>,
    wanted: Cell<u32>,
}

impl Linger {
    pub(super) fn new() -> Linger {
        Linger { short: Cell::new(0), wanted: Cell::new(FEWEST) }
    }

    fn is_worth_it(&self) -> bool {
        self.short.get() >= self.wanted.get()
    }

    fn was_worth_it(&self) {
        self.wanted.set((self.wanted.get() / 2).max(FEWEST));
    }

    fn was_in_vain(&self) {
        self.wanted.set((self.wanted.get() * 2).min(MOST));
    }

    /// A rest is over in which the worker slept.
    fn slept(&self, short: bool) {
        self.short.set(if short { self.short.get().saturating_add(1) } else { 0 });
    }
}

impl Worker {
    /// Looks around before the sleep, if that is worth it; whether there is something to do.
    pub(super) fn linger(&self, begin: u64) -> bool {
        if !self.linger.is_worth_it() {
            return false;
        }
        if self.rest_timeout(begin).is_some_and(|t| t < SHORT) {
            return false;
        }
        let (mut now, mut look_at) = (begin, begin + self.periods.look);
        while now < begin + self.periods.linger {
            for _ in 0..GLANCES {
                if !self.shared.inbox.looks_empty() {
                    self.linger.was_worth_it();
                    return true;
                }
                std::hint::spin_loop();
            }
            now = self.ticker.now();
            if now >= look_at {
                look_at = now + self.periods.look;
                self.poll(Some(Duration::ZERO));
                if self.queue.len() > 0 || self.runtime.workers().iter().any(|w| w.fresh.len() > 0) {
                    return true;
                }
            }
        }
        self.linger.was_in_vain();
        self.linger.slept(false);
        false
    }

    /// The worker slept, in a rest that began then.
    pub(super) fn has_rested(&self, begin: u64, end: u64) {
        let by_others = !self.shared.inbox.looks_empty();
        self.linger.slept(by_others && end.saturating_sub(begin) < self.periods.short_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::{FEWEST, Linger, MOST};

    fn sleeps_until_worth_it(linger: &Linger) -> u32 {
        let mut n = 0;
        while !linger.is_worth_it() {
            linger.slept(true);
            n += 1;
        }
        n
    }

    #[test]
    fn what_was_in_vain_is_tried_ever_less_often() {
        let linger = Linger::new();
        let mut wanted = FEWEST;
        while wanted < MOST {
            assert_eq!(sleeps_until_worth_it(&linger), wanted);
            linger.was_in_vain();
            linger.slept(false);
            wanted *= 2;
        }
        assert_eq!(sleeps_until_worth_it(&linger), MOST);
        linger.was_worth_it();
        linger.slept(false);
        assert_eq!(sleeps_until_worth_it(&linger), MOST / 2);
    }

    #[test]
    fn one_long_rest_begins_anew() {
        let linger = Linger::new();
        (1..FEWEST).for_each(|_| linger.slept(true));
        linger.slept(false);
        assert_eq!(sleeps_until_worth_it(&linger), FEWEST);
    }
}
