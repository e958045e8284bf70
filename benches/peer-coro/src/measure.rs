//! What is measured with: durations per unit, a histogram, random numbers, memory and CPU time of the process. `benches/peers` has
//! this file as well, so that both sides measure alike.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Nanoseconds of `took` for each of `units`.
pub(crate) fn ns_each(took: Duration, units: usize) -> f64 {
    took.as_nanos() as f64 / units as f64
}

/// xorshift64* (Vigna 2016), seeded so that neighbouring seeds give unlike sequences.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let mut x = self.0;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0 = x;
        x.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// Steps per power of two, as a shift: values are told apart to 1.6 %.
const FINE: u32 = 6;

/// A log-linear histogram of nanoseconds that many threads may add to.
pub(crate) struct Histogram {
    counts: Vec<AtomicU64>,
    max: AtomicU64,
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram { counts: (0..64 << FINE).map(|_| AtomicU64::new(0)).collect(), max: AtomicU64::new(0) }
    }

    /// Values below one row's length have a place each; above, the exponent chooses the row and the bits after the
    /// leading one the place in it.
    fn place(ns: u64) -> usize {
        match ns.checked_ilog2() {
            Some(exponent) if exponent >= FINE => {
                let shift = exponent - FINE;
                ((shift as usize + 1) << FINE) + (ns >> shift) as usize - (1 << FINE)
            }
            _ => ns as usize,
        }
    }

    fn lower_bound(place: usize) -> u64 {
        match place >> FINE {
            0 => place as u64,
            row => ((place as u64 & ((1 << FINE) - 1)) + (1 << FINE)) << (row - 1),
        }
    }

    pub(crate) fn add(&self, ns: u64) {
        self.counts[Self::place(ns)].fetch_add(1, Ordering::Relaxed);
        if ns > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// The value that `share` of all values do not exceed.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let total: u64 = self.counts.iter().map(|c| c.load(Ordering::Relaxed)).sum();
        let mut wanted = ((total as f64 * share).ceil() as u64).max(1);
        for (place, count) in self.counts.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count >= wanted {
                return Self::lower_bound(place);
            }
            wanted -= count;
        }
        self.max()
    }

    pub(crate) fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }
}

/// The time from a beginning until the last of `n` tasks has started.
pub(crate) struct StartLine {
    left: AtomicUsize,
    begin: Instant,
    end: OnceLock<Instant>,
}

impl StartLine {
    pub(crate) fn new(n: usize) -> StartLine {
        StartLine { left: AtomicUsize::new(n), begin: Instant::now(), end: OnceLock::new() }
    }

    /// By each task as it starts.
    pub(crate) fn cross(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = self.end.set(Instant::now());
        }
    }

    /// How long it took, once all have started.
    pub(crate) fn took(&self) -> Option<Duration> {
        self.end.get().map(|end| *end - self.begin)
    }
}

/// Bytes resident and bytes of page tables.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) tables: f64,
}

impl Memory {
    /// Of this process, by the kernel's account; zeros where there is no `/proc`.
    pub(crate) fn now() -> Memory {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches("kB").trim_end().parse::<f64>().ok().map(|kib| kib * 1024.0)
        };
        Memory { resident: bytes("VmRSS:").unwrap_or(0.0), tables: bytes("VmPTE:").unwrap_or(0.0) }
    }
}

/// User and system time that this process has used.
pub(crate) fn cpu_time() -> Duration {
    // SAFETY: all zeros is a valid rusage, and the call writes only to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// What this process uses of a CPU while it has nothing to do.
pub(crate) struct Idle {
    since: Instant,
    used: Duration,
}

impl Idle {
    pub(crate) fn begin() -> Idle {
        Idle { since: Instant::now(), used: cpu_time() }
    }

    /// Until now.
    pub(crate) fn percent(&self) -> f64 {
        (cpu_time() - self.used).as_secs_f64() * 100.0 / self.since.elapsed().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::Histogram;

    #[test]
    fn every_value_lies_in_its_place() {
        for ns in (0..10_000).chain((0..64).map(|s| 1 << s)).chain((1..64).map(|s| (1 << s) - 1)).chain([u64::MAX]) {
            let place = Histogram::place(ns);
            let low = Histogram::lower_bound(place);
            assert!(low <= ns && ns - low <= ns >> super::FINE, "{ns} went to {place}, which begins at {low}");
        }
    }
}
