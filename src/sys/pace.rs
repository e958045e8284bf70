//! How fast a thread works that looks into the process for somebody who asks without end, even where nobody else wants its CPU.
//!
//! A thread that computes for long is felt on other CPUs, too, presumably because the kernel's own threads then have to share one with
//! the program's. So what is asked for now and then is done at once, and what goes on for more than a second is done in pieces of
//! [`PIECE`], with a pause of half as long after each. What was measured: ARCHITECTURE.md, "Endless answers are given in pieces".
//!
//! Must not know: what is asked for, and whether there is a CPU to spare (`courtesy` does).

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::usage;

/// Of CPU time, before a pause.
const PIECE: Duration = Duration::from_millis(2);

/// How far ahead of the pace a thread may be: it is so after twice as long at full speed.
const FREE: Duration = Duration::from_millis(500);

/// No pause is longer: small questions wait for it as well. What a piece that could not be made shorter took beyond that is forgiven.
const LONGEST: Duration = Duration::from_millis(5);

/// One thread's.
#[derive(Debug)]
pub(crate) struct Pace {
    looked: Instant,
    /// The thread's CPU time then; it is not known yet which thread that is.
    ran: Option<Duration>,
    /// By how much what it has done exceeds what it may do in the time that has passed.
    ahead: Duration,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Pace {
        Pace { looked: now, ran: None, ahead: Duration::ZERO }
    }

    /// By the thread, between two steps of its work; how long it is to pause now, if at all.
    pub(crate) fn worked(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.looked);
        if passed < PIECE && self.ran.is_some() {
            return None;
        }
        let all = usage::own_cpu()?;
        self.looked = now;
        let before = self.ran.replace(all).unwrap_or(all);
        self.account(passed, all.saturating_sub(before))
    }

    /// In the time that has passed, pauses included, it ran for so long.
    fn account(&mut self, passed: Duration, ran: Duration) -> Option<Duration> {
        self.ahead = (self.ahead + ran * 3 / 2).saturating_sub(passed).min(FREE + LONGEST);
        self.ahead.checked_sub(FREE).filter(|pause| !pause.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Pieces of such length one after the other, with what else passes in each, and the pauses obeyed; how long they took.
    fn work(pace: &mut Pace, pieces: u32, piece: Duration, waits: Duration) -> Duration {
        let (mut took, mut pause) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..pieces {
            let passed = pause + piece + waits;
            pause = pace.account(passed, piece).unwrap_or_default();
            assert!(pause <= LONGEST, "{pause:?}");
            took += piece + waits + pause;
        }
        took
    }

    #[test]
    fn a_second_is_done_at_once_and_what_follows_with_pauses() {
        let mut pace = Pace::new(Instant::now());
        assert_eq!(work(&mut pace, 500, 2 * MS, Duration::ZERO), 1000 * MS);
        assert_eq!(work(&mut pace, 500, 2 * MS, Duration::ZERO), 1500 * MS);
        // After a while it is as in the beginning.
        assert_eq!(pace.account(600 * MS, Duration::ZERO), None);
        assert_eq!(work(&mut pace, 500, 2 * MS, Duration::ZERO), 1000 * MS);
    }

    #[test]
    fn who_asks_now_and_then_or_waits_for_a_cpu_never_pauses() {
        let mut pace = Pace::new(Instant::now());
        for _ in 0..1000 {
            assert_eq!(work(&mut pace, 25, 2 * MS, Duration::ZERO), 50 * MS);
            assert_eq!(pace.account(25 * MS, Duration::ZERO), None);
        }
        assert_eq!(work(&mut pace, 10_000, 2 * MS, MS), 30_000 * MS);
    }

    #[test]
    fn a_long_piece_does_not_make_for_a_long_pause() {
        let mut pace = Pace::new(Instant::now());
        assert_eq!(work(&mut pace, 1, 5000 * MS, Duration::ZERO), 5000 * MS + LONGEST);
        // The next short one has its own pause, and what the long one took is no longer held against it.
        assert_eq!(pace.account(LONGEST + 2 * MS, 2 * MS), Some(MS));
    }

    #[test]
    fn a_thread_that_computes_is_told_to_pause_and_one_that_sleeps_is_not() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        if pace.worked(begun).is_none() && pace.ran.is_none() {
            println!("skipped: this system does not tell a thread's CPU time");
            return;
        }
        pace.ahead = FREE;
        pace.looked = begun + Duration::from_secs(60);
        assert_eq!(pace.worked(begun + Duration::from_secs(61)), None, "a second without work");
        pace.ahead = FREE;
        let from = pace.ran.expect("just seen");
        while usage::own_cpu().expect("seen before") < from + 4 * MS {
            std::hint::black_box(0);
        }
        let pause = pace.worked(pace.looked + PIECE).expect("it ran for 4 ms at least, and 2 have passed");
        assert!(pause >= 4 * MS && pause <= LONGEST, "{pause:?}");
    }
}
