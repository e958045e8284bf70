//! The watchdog's own gaps: times in which it did not run although it was to, so that nothing else of the process can be
//! blamed for them either: the process was stopped, starved of CPU, or the machine slept.
//!
//! Times are ticks.

#![forbid(unsafe_code)]

const KEPT: usize = 64;

/// The last [`KEPT`] gaps, oldest first from `next`.
#[derive(Debug, Clone)]
pub(super) struct Gaps {
    gaps: [(u64, u64); KEPT],
    next: usize,
}

impl Gaps {
    pub(super) const fn new() -> Gaps {
        Gaps { gaps: [(0, 0); KEPT], next: 0 }
    }

    pub(super) fn add(&mut self, begin: u64, end: u64) {
        self.gaps[self.next] = (begin, end);
        self.next = (self.next + 1) % KEPT;
    }

    /// How much of the time from `begin` to `end` lies in gaps.
    pub(super) fn within(&self, begin: u64, end: u64) -> u64 {
        self.gaps.iter().map(|(b, e)| (*e).min(end).saturating_sub((*b).max(begin))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_overlaps_counts() {
        let mut gaps = Gaps::new();
        assert_eq!(gaps.within(0, u64::MAX), 0);
        gaps.add(100, 150);
        gaps.add(200, 300);
        assert_eq!(gaps.within(0, 1000), 150);
        assert_eq!(gaps.within(120, 250), 80);
        assert_eq!(gaps.within(150, 200), 0);
        assert_eq!(gaps.within(400, 500), 0);
        for i in 10..10 + KEPT as u64 {
            gaps.add(i * 100, i * 100 + 1);
        }
        assert_eq!(gaps.within(0, 1000), 0, "the oldest are forgotten");
        assert_eq!(gaps.within(0, u64::MAX), KEPT as u64);
    }
}
