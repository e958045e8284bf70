//! Histograms of durations: four buckets to each doubling, one writer, readable at any time.
//!
//! Counted in ticks of the slice clock, so that recording needs no conversion. The error of a value read back is below
//! 25 %, which is what a tail on a log scale needs.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::sys::clock;

/// Ticks below 2^LOWEST fall into the first bucket.
const LOWEST: u32 = 10;
/// Doublings beyond.
const OCTAVES: u32 = 34;
/// Buckets to a doubling, as a power of two.
const FINE: u32 = 2;
const BUCKETS: usize = ((OCTAVES << FINE) + 1) as usize;

/// See the module's head. One writer.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// Exponent and first fraction bits of the number as an `f64`, which holds it exactly as far as buckets go: there the logarithm is one
/// instruction. Above the largest `i64` it is negative, whose bits are larger than any.
#[inline(always)]
fn bucket(ticks: u64) -> usize {
    const LAST_OF_FIRST: u64 = ((1023 + LOWEST as u64) << FINE) - 1;
    let bits = (ticks as i64 as f64).to_bits() >> (f64::MANTISSA_DIGITS - 1 - FINE);
    (bits.saturating_sub(LAST_OF_FIRST) as usize).min(BUCKETS - 1)
}

/// The smallest number of ticks that falls into the bucket after this one.
fn end_of(bucket: usize) -> u64 {
    if bucket == 0 {
        return 1 << LOWEST;
    }
    let (octave, fine) = ((bucket as u32 - 1) >> FINE, (bucket as u64 - 1) & ((1 << FINE) - 1));
    (1u64 << (octave + LOWEST)) + ((fine + 1) << (octave + LOWEST - FINE))
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    pub(crate) const fn new() -> Histogram {
        Histogram { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }

    /// Counts one duration. By the one writer.
    #[inline]
    pub(crate) fn record(&self, ticks: u64) {
        self.record_each(ticks, 1);
    }

    /// Counts several durations of the same length. By the one writer.
    #[inline]
    pub(crate) fn record_each(&self, ticks: u64, times: u64) {
        let b = &self.buckets[bucket(ticks)];
        b.store(b.load(Ordering::Relaxed).wrapping_add(times), Ordering::Relaxed);
        self.sum.store(self.sum.load(Ordering::Relaxed).wrapping_add(ticks.wrapping_mul(times)), Ordering::Relaxed);
    }

    /// The same where most are short: which bucket is theirs is guessed instead of computed, so that nothing waits for the logarithm. Worth 9 ns
    /// between two readings of the clock.
    #[inline(always)]
    pub(crate) fn record_short(&self, ticks: u64) {
        /// Not inlined: the compiler would compute it for all.
        #[inline(never)]
        fn long(histogram: &Histogram, ticks: u64) {
            histogram.record(ticks);
        }

        if ticks >= 1 << LOWEST {
            return long(self, ticks);
        }
        let b = &self.buckets[0];
        b.store(b.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.sum.store(self.sum.load(Ordering::Relaxed).wrapping_add(ticks), Ordering::Relaxed);
    }

    /// The same, where others count at the same time.
    #[cfg(feature = "probe")]
    #[inline]
    pub(crate) fn record_beside_others(&self, ticks: u64) {
        self.buckets[bucket(ticks)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(ticks, Ordering::Relaxed);
    }

    /// Back to nothing. By the one writer, or while there is none.
    pub(crate) fn clear(&self) {
        self.buckets.iter().for_each(|b| b.store(0, Ordering::Relaxed));
        self.sum.store(0, Ordering::Relaxed);
    }

    /// Adds what is counted here to `to`.
    pub(crate) fn add_to(&self, to: &mut Distribution) {
        to.counts.resize(BUCKETS, 0);
        for (c, b) in to.counts.iter_mut().zip(&self.buckets) {
            *c += b.load(Ordering::Relaxed);
        }
        to.total += clock::duration(self.sum.load(Ordering::Relaxed));
    }
}

/// How durations were distributed: a copy of one or several histograms. Values read back are up to 25 % too large.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    counts: Vec<u64>,
    total: Duration,
}

impl Distribution {
    /// How many durations there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    pub fn total(&self) -> Duration {
        self.total
    }

    /// The duration that the share `q` (0 to 1) of all stays below; zero if there are none.
    pub fn quantile(&self, q: f64) -> Duration {
        let count = self.count();
        if count == 0 {
            return Duration::ZERO;
        }
        let wanted = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|c| {
            seen += c;
            seen >= wanted
        });
        clock::duration(end_of(at.unwrap_or(BUCKETS - 1)))
    }

    /// The upper end of the highest bucket that is not empty; zero if all are.
    pub fn longest(&self) -> Duration {
        self.counts.iter().rposition(|c| *c > 0).map_or(Duration::ZERO, |at| clock::duration(end_of(at)))
    }

    /// The buckets that are not empty: upper end and count, in order.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.counts.iter().enumerate().filter(|(_, c)| **c > 0).map(|(at, c)| (clock::duration(end_of(at)), *c))
    }

    /// Adds those of another.
    pub(crate) fn add(&mut self, other: &Distribution) {
        self.counts.resize(BUCKETS, 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(c, more)| *c += more);
        self.total += other.total;
    }

    /// Counts `n` more durations that were too short to be measured.
    pub(crate) fn add_short(&mut self, n: u64) {
        self.counts.resize(BUCKETS, 0);
        self.counts[0] += n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_ticks_has_a_bucket_whose_ends_enclose_it() {
        let mut before = 0;
        for shift in 0..44 {
            for extra in [0, 1, 3] {
                let t = (1u64 << shift) + extra * (1u64 << shift) / 4;
                let b = bucket(t);
                assert!(b >= before && t < end_of(b), "{t} in {b}");
                assert!(b == 0 || t >= end_of(b - 1), "{t} in {b}");
                assert!(b == 0 || end_of(b) as f64 <= t as f64 * 1.25 + 1.0);
                before = b;
            }
        }
        // The ends of each bucket, to the tick.
        for b in 0..BUCKETS - 1 {
            assert_eq!((bucket(end_of(b) - 1), bucket(end_of(b))), (b, b + 1));
        }
        assert_eq!([u64::MAX, 1 << 63, (1 << 63) - 1].map(bucket), [BUCKETS - 1; 3]);
    }

    #[test]
    fn quantiles_and_sums_come_back() {
        let h = Histogram::new();
        for i in 1..=1000u64 {
            h.record(clock::in_ticks(Duration::from_micros(i)));
        }
        #[cfg(feature = "probe")]
        for ticks in (0..1 << 13).chain([u64::MAX]) {
            let (one, other) = (Histogram::new(), Histogram::new());
            one.record(ticks);
            other.record_short(ticks);
            let counts = |h: &Histogram| {
                (h.buckets.each_ref().map(|b| b.load(Ordering::Relaxed)), h.sum.load(Ordering::Relaxed))
            };
            assert_eq!(counts(&one), counts(&other), "{ticks}");
        }
        let mut d = Distribution::default();
        h.add_to(&mut d);
        assert_eq!(d.count(), 1000);
        let near = |d: Duration, us: f64| {
            let got = d.as_secs_f64() * 1e6;
            assert!(got >= us * 0.97 && got <= us * 1.3, "{got} for {us}");
        };
        near(d.quantile(0.5), 500.0);
        near(d.quantile(0.99), 990.0);
        near(d.longest(), 1000.0);
        near(d.total() / 1000, 500.5);
        h.clear();
        let mut empty = Distribution::default();
        h.add_to(&mut empty);
        assert_eq!((empty.count(), empty.quantile(0.5), empty.longest()), (0, Duration::ZERO, Duration::ZERO));
    }
}
