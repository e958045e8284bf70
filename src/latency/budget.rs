//! How many reports are made: a few at once, then a few a minute, so that a storm of stalls does not flood stderr.

#![forbid(unsafe_code)]

use std::time::Duration;

/// Reports, and so that the long stalls leave something for the next ones: first ones and repeated ones by themselves.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    first: Bucket,
    repeated: Bucket,
    suppressed: u64,
}

impl Budget {
    pub(super) const fn new() -> Budget {
        Budget {
            first: Bucket::new(20, Duration::from_secs(3)),
            repeated: Bucket::new(10, Duration::from_secs(6)),
            suppressed: 0,
        }
    }

    /// Whether a report may be made that is (not) the first of its stall. If so: how many were not made since the last one.
    pub(super) fn take(&mut self, now: Duration, first: bool) -> Option<u64> {
        let bucket = if first { &mut self.first } else { &mut self.repeated };
        if bucket.take(now) {
            Some(self.told())
        } else {
            self.suppressed += 1;
            None
        }
    }

    /// Reports that were not made for another reason.
    pub(super) fn suppress(&mut self, more: u64) {
        self.suppressed += more;
    }

    /// How many were not made, for a line that is written in any case.
    pub(super) fn told(&mut self) -> u64 {
        std::mem::take(&mut self.suppressed)
    }
}

/// So many at once, and after that one in so long. Times count from anywhere.
#[derive(Debug, Clone)]
struct Bucket {
    most: u32,
    each: Duration,
    left: u32,
    /// When the next one is added, if any is missing.
    more_at: Duration,
}

impl Bucket {
    const fn new(most: u32, each: Duration) -> Bucket {
        Bucket { most, each, left: most, more_at: Duration::ZERO }
    }

    fn take(&mut self, now: Duration) -> bool {
        while self.left < self.most && now >= self.more_at {
            self.left += 1;
            self.more_at += self.each;
        }
        if self.left == self.most {
            self.more_at = now + self.each;
        }
        let some = self.left > 0;
        self.left -= u32::from(some);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_at_once_then_some_a_minute_and_the_rest_is_counted() {
        let mut budget = Budget::new();
        let at = Duration::from_secs;
        assert!((0..20).all(|_| budget.take(at(100), true) == Some(0)));
        assert!((0..25).all(|_| budget.take(at(101), true).is_none()));
        assert_eq!(budget.take(at(103), true), Some(25), "told once");
        assert_eq!(budget.take(at(103), true), None);
        assert_eq!(budget.take(at(106), true), Some(1));
        let minute = (107..167).filter(|s| budget.take(at(*s), true).is_some()).count();
        assert_eq!(minute, 20);
        assert_eq!(budget.take(at(167), false), Some(0), "repeated ones have their own");
        budget.suppress(3);
        assert_eq!((budget.told(), budget.told()), (3, 0));
        for (first, most) in [(true, 20), (false, 10)] {
            assert_eq!((0..50).filter(|_| budget.take(at(100_000), first).is_some()).count(), most, "full, not over");
        }
    }
}
