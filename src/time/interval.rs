//! Ticks at a steady pace.

#![forbid(unsafe_code)]

use super::{Duration, Instant, sleep, sleep_until};
use crate::scheduler::suspend;

/// What an [`Interval`] does after ticks that nobody came for in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MissedTick {
    /// Every tick is given, the missed ones at once one after the other, until it has caught up. The default.
    #[default]
    Burst,
    /// The missed ones are given up; the next tick is a period after the late one.
    Delay,
    /// The missed ones are given up; the next tick is the next one that the interval would have had anyway.
    Skip,
}

/// Ticks at a steady pace; see [`interval`].
#[derive(Debug)]
pub struct Interval {
    /// `None`: beyond what an `Instant` can hold.
    next: Option<Instant>,
    period: Duration,
    missed: MissedTick,
}

/// An interval whose first tick is now and each further one `period` after the one before.
///
/// It does not drift: ticks are counted from the first one, not from when somebody came for them. A period of zero has a
/// tick whenever somebody asks, one that no [`Instant`] can hold has one tick only.
///
/// # Examples
/// ```
/// use coro::time::{Duration, MissedTick, interval};
///
/// coro::run(|| {
///     let mut interval = interval(Duration::from_millis(1));
///     interval.set_missed_tick_policy(MissedTick::Skip);
///     let first = interval.tick();
///     let second = interval.tick();
///     assert!(second >= first + Duration::from_millis(1));
///     // Also an iterator, which never ends.
///     for tick in interval.take(3) {
///         assert!(tick > second);
///     }
/// });
/// ```
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// As [`interval`], with the first tick at `start`.
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    Interval { next: Some(start), period, missed: MissedTick::default() }
}

impl Interval {
    /// Waits for the next tick and returns when it was due, which may be a while ago. On a plain thread the thread is
    /// blocked.
    ///
    /// # Cancellation
    /// Unwinds if the task is cancelled or a [`timeout`](crate::timeout) around it expires, also if ticks are overdue. The
    /// tick is not used up then.
    pub fn tick(&mut self) -> Instant {
        let Some(due) = self.next else {
            loop {
                sleep(Duration::MAX);
            }
        };
        let came_late = Instant::now() > due;
        if came_late {
            suspend::checkpoint();
        } else {
            sleep_until(due);
        }
        self.next = self.after(due, Instant::now(), came_late);
        due
    }

    /// When the tick after `due` is, which is given at `now`.
    fn after(&self, due: Instant, now: Instant, came_late: bool) -> Option<Instant> {
        let behind = now.saturating_duration_since(due);
        match self.missed {
            // A wait that lasted too long by less than a period is no missed tick.
            MissedTick::Delay if came_late || behind >= self.period => now.checked_add(self.period),
            MissedTick::Skip if behind >= self.period => now.checked_add(self.period - modulo(behind, self.period)),
            _ => due.checked_add(self.period),
        }
    }

    /// The next tick is a period from now.
    pub fn reset(&mut self) {
        self.next = Instant::now().checked_add(self.period);
    }

    /// The time between ticks.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// What is done after missed ticks.
    pub fn missed_tick_policy(&self) -> MissedTick {
        self.missed
    }

    /// Sets what is done after missed ticks, from the next one on.
    pub fn set_missed_tick_policy(&mut self, policy: MissedTick) {
        self.missed = policy;
    }
}

/// What is left of `d` after whole `period`s.
fn modulo(d: Duration, period: Duration) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    match period.as_nanos() {
        0 => Duration::ZERO,
        p => {
            let rest = d.as_nanos() % p;
            Duration::new((rest / SECOND) as u64, (rest % SECOND) as u32)
        }
    }
}

/// Never ends.
impl Iterator for Interval {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        Some(self.tick())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next tick in milliseconds after the one that was due at 0 and is given at `now`.
    fn next(missed: MissedTick, period: u64, now: u64, came_late: bool) -> Option<u64> {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let interval = Interval { next: None, period: ms(period), missed };
        let next = interval.after(start, start + ms(now), came_late)?;
        Some((next - start).as_millis() as u64)
    }

    #[test]
    fn policies() {
        use MissedTick::*;
        for policy in [Burst, Delay, Skip] {
            assert_eq!(next(policy, 10, 0, false), Some(10));
            assert_eq!(next(policy, 10, 9, false), Some(10));
            assert_eq!(next(policy, 0, 0, false), Some(0));
            let never = Interval { next: None, period: Duration::MAX, missed: policy };
            assert_eq!(never.after(Instant::now(), Instant::now(), false), None);
            assert_eq!(never.after(Instant::now(), Instant::now(), true), None);
        }
        // Somebody came for it when it was overdue by less than a period.
        assert_eq!([Burst, Delay, Skip].map(|p| next(p, 10, 9, true)), [Some(10), Some(19), Some(10)]);
        // By more; who was asleep for too long has missed it as well.
        for came_late in [true, false] {
            assert_eq!([Burst, Delay, Skip].map(|p| next(p, 10, 10, came_late)), [Some(10), Some(20), Some(20)]);
            assert_eq!([Burst, Delay, Skip].map(|p| next(p, 10, 37, came_late)), [Some(10), Some(47), Some(40)]);
            assert_eq!([Burst, Delay, Skip].map(|p| next(p, 0, 37, came_late)), [Some(0), Some(37), Some(37)]);
        }
    }
}
