//! How much a session has taken of the console thread lately, and whether that is so much that it has to make way.
//!
//! Must not know: what it was taken for, and whether there is a CPU to spare (`sys::courtesy` does).

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

/// A session that has taken less is never held up.
const LIGHT: Duration = Duration::from_millis(100);

/// Of what it has taken, a session is forgiven this part of the time in which it asks for nothing: one in so many. Time in which
/// it waits for an answer does not count, or whoever asks without end would be forgiven while he is held up.
const FORGIVEN: u32 = 10;

/// No more than this is held against a session, so that it is soon like any other.
const MOST: Duration = Duration::from_millis(200);

/// See the module's head.
#[derive(Debug)]
pub(super) struct Burden {
    took: Duration,
    /// When something was last done for the session.
    served: Instant,
}

impl Burden {
    pub(super) fn new(now: Instant) -> Burden {
        Burden { took: Duration::ZERO, served: now }
    }

    /// So much was taken, until now.
    pub(super) fn add(&mut self, time: Duration, now: Instant) {
        self.took = (self.took + time).min(MOST);
        self.served = now;
    }

    /// The session, which had nothing to wait for, asks for something.
    pub(super) fn asked(&mut self, now: Instant) {
        let rested = now.saturating_duration_since(self.served);
        self.took = self.took.saturating_sub(rested / FORGIVEN);
    }

    /// Whether the session goes on only while there is time to spare.
    pub(super) fn is_heavy(&self) -> bool {
        self.took > LIGHT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn who_asks_without_end_becomes_heavy_and_who_asks_now_and_then_does_not() {
        let mut now = Instant::now();
        fn ask(burden: &mut Burden, now: &mut Instant, rest: Duration, cost: Duration) {
            *now += rest;
            burden.asked(*now);
            *now += cost;
            burden.add(cost, *now);
        }
        // Someone who looks at a big process every second.
        let mut person = Burden::new(now);
        for _ in 0..1000 {
            ask(&mut person, &mut now, 1000 * MS, 60 * MS);
            assert!(!person.is_heavy());
        }
        // Small questions, one after the other.
        let mut flood = Burden::new(now);
        let asked = (1..1000).find(|_| {
            ask(&mut flood, &mut now, Duration::ZERO, MS);
            flood.is_heavy()
        });
        assert_eq!(asked, Some(101));
        (0..10_000).for_each(|_| ask(&mut flood, &mut now, Duration::ZERO, MS));
        // What comes after it was held up for long, and was there all the time, is as heavy.
        now += 60_000 * MS;
        flood.add(MS, now);
        assert!(flood.is_heavy());
        // It is forgotten after two seconds of rest.
        now += 1000 * MS;
        flood.asked(now);
        flood.add(MS, now);
        assert!(flood.is_heavy());
        now += 1000 * MS;
        flood.asked(now);
        assert!(!flood.is_heavy());
    }
}
