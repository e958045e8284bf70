//! A thread's turns on its CPU, while it walks over all that a process has.
//!
//! Who looks inside must hold up nobody for long, and a kernel leaves a thread that has just begun to compute where it is for
//! milliseconds, whoever wakes there meanwhile. So a walk gives its CPU away by itself, between two things of which it holds neither.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::clock;

/// How long a turn is.
const TURN: Duration = Duration::from_micros(100);
/// How long where those that it gives way to keep the CPU for long: a worker that spins takes milliseconds each time, and a
/// dump is wanted most when all do.
const LONG_TURN: Duration = Duration::from_micros(500);
/// In between, a turn is one in so many parts of the time for which the thread was without a CPU: then others lose a ninth of
/// one CPU, and not a fifth.
const PART_OF_WAIT: u64 = 8;
/// So many small steps are made without a look at the clock.
const STEPS: u32 = 64;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Turn {
    /// In ticks.
    end: u64,
    steps: u32,
}

impl Turn {
    /// The first one begins now.
    pub(crate) fn new() -> Turn {
        Turn { end: clock::ticks() + clock::in_ticks(TURN), steps: 0 }
    }

    pub(crate) fn is_over(&self, now: u64) -> bool {
        now >= self.end
    }

    /// Lets others have the CPU; when the thread has it again, in ticks, which is when the next turn begins. With no lock
    /// held, and outside of every window.
    pub(crate) fn give_way(&mut self) -> u64 {
        let away = clock::ticks();
        std::thread::yield_now();
        let back = clock::ticks();
        let without = back.saturating_sub(away);
        self.end = back + (without / PART_OF_WAIT).clamp(clock::in_ticks(TURN), clock::in_ticks(LONG_TURN));
        back
    }

    /// Another small step: a microsecond at most. Gives way once in a while, see [`Turn::give_way`].
    pub(crate) fn step(&mut self) {
        self.steps += 1;
        if self.steps >= STEPS {
            self.steps = 0;
            if self.is_over(clock::ticks()) {
                self.give_way();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_after_its_time_and_not_before() {
        let begun = clock::ticks();
        let mut turn = Turn::new();
        assert!(!turn.is_over(begun));
        assert!(turn.is_over(begun + clock::in_ticks(Duration::from_secs(1))));
        let back = turn.give_way();
        assert!(!turn.is_over(back) && turn.is_over(back + clock::in_ticks(LONG_TURN)));
    }

    #[test]
    fn steps_give_way_and_begin_another_turn() {
        let mut turn = Turn::new();
        let (first, begun) = (turn.end, std::time::Instant::now());
        while turn.end == first {
            turn.step();
            assert!(begun.elapsed() < Duration::from_secs(30));
        }
        assert!(turn.end > first);
    }
}
