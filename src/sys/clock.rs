//! The clock of slices: the CPU's time-stamp counter where the kernel itself trusts it, else the monotonic clock.
//!
//! Invariants: [`ticks`] never goes back on one thread. Ticks of two threads are compared only through saturating
//! subtraction, and only because the counter is used solely when the kernel keeps time by it (it then has checked
//! that all CPUs agree). The rate is our own measurement against the monotonic clock, a first one of 0.2 ms at
//! start and a finer one as soon as 50 ms have passed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where the ticks come from, and how many make a second.
#[derive(Debug)]
struct Clock {
    counter: bool,
    start_ticks: u64,
    start: Instant,
    /// Nanoseconds per tick as a 32.32 fixed-point number.
    rate: AtomicU64,
    refined: AtomicU64,
}

static CLOCK: OnceLock<Clock> = OnceLock::new();

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
fn counter() -> u64 {
    // SAFETY: `rdtsc` has no preconditions; whether its value means anything is decided in `trusted`.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline(always)]
fn counter() -> u64 {
    0
}

/// Whether the kernel keeps its own time by an invariant time-stamp counter.
fn trusted() -> bool {
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux", not(miri)))) {
        return false;
    }
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let kernel_uses_it =
        matches!(source.as_deref().map(str::trim), Ok("tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page"));
    kernel_uses_it && invariant()
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn invariant() -> bool {
    use std::arch::x86_64::__cpuid;
    // Intel SDM 17.17.1, AMD APM 15.30: leaf 0x8000_0007, EDX bit 8.
    // SAFETY: every x86-64 processor has the instruction.
    #[allow(unused_unsafe, reason = "unsafe in Rust 1.88, safe in later ones")]
    unsafe {
        __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn invariant() -> bool {
    false
}

/// Both clocks at one moment. A thread that loses its CPU between the two readings would put them milliseconds apart, so
/// the closest of a few pairs counts.
fn both() -> (u64, Instant) {
    let pair = |_| {
        let before = counter();
        let now = Instant::now();
        (counter().saturating_sub(before), before, now)
    };
    let (apart, before, now) = (0..8).map(pair).min_by_key(|p| p.0).unwrap_or_else(|| pair(0));
    (before + apart / 2, now)
}

impl Clock {
    fn new() -> Clock {
        let counter_works = trusted();
        let (start_ticks, start) = both();
        let clock = Clock {
            counter: counter_works,
            start_ticks,
            start,
            rate: AtomicU64::new(1 << 32),
            refined: AtomicU64::new(0),
        };
        if counter_works {
            while start.elapsed() < Duration::from_micros(200) {
                std::hint::spin_loop();
            }
            clock.measure();
        }
        clock
    }

    fn measure(&self) {
        let (ticks, now) = both();
        let ns = now.saturating_duration_since(self.start).as_nanos();
        let ticks = ticks.saturating_sub(self.start_ticks);
        if ticks > 0 {
            self.rate.store(((ns << 32) / u128::from(ticks)) as u64, Ordering::Relaxed);
        }
    }

    fn rate(&self) -> u64 {
        if self.counter && self.refined.load(Ordering::Relaxed) == 0 && self.start.elapsed() > Duration::from_millis(50)
        {
            self.refined.store(1, Ordering::Relaxed);
            self.measure();
        }
        self.rate.load(Ordering::Relaxed)
    }
}

fn clock() -> &'static Clock {
    CLOCK.get_or_init(Clock::new)
}

/// CPU time of a thread of this process; `None` if it is gone or the system does not tell. One system call.
pub(crate) fn thread_cpu(thread: i32) -> Option<Duration> {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        // As the kernel composes the clock of a thread: `CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED`.
        let clock = !thread << 3 | 6;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call fills the time; a clock that does not exist is an error.
        let told = thread > 0 && unsafe { libc::clock_gettime(clock, &mut time) } == 0;
        told.then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    {
        let _ = thread;
        None
    }
}

/// Seconds that the local time is ahead of UTC now. Reads the time zone, under the C library's lock.
pub(crate) fn ahead_of_utc() -> i64 {
    #[cfg(not(miri))]
    {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let now = now as libc::time_t;
        // SAFETY: all zeros is a valid `tm`, which the call fills.
        let local = unsafe {
            let mut local: libc::tm = std::mem::zeroed();
            libc::localtime_r(&now, &mut local);
            local
        };
        #[allow(clippy::useless_conversion, reason = "a long is not the same everywhere")]
        return local.tm_gmtoff.into();
    }
    #[cfg(miri)]
    0
}

/// A reader of ticks that a worker keeps, so that the slice loop asks no global.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticker {
    clock: &'static Clock,
}

impl Ticker {
    /// Calibrates the process's clock if nobody did yet (0.2 ms, once).
    pub(crate) fn new() -> Ticker {
        Ticker { clock: clock() }
    }

    /// Now, in ticks.
    #[inline(always)]
    pub(crate) fn now(self) -> u64 {
        if self.clock.counter { counter() } else { self.clock.start.elapsed().as_nanos() as u64 }
    }
}

/// The same as [`ticks`] where that is one instruction of the CPU and nothing has to be measured first.
#[cfg(feature = "probe")]
#[inline(always)]
pub(crate) fn counted() -> Option<u64> {
    CLOCK.get().is_some_and(|clock| clock.counter).then(counter)
}

/// Now, in ticks.
pub(crate) fn ticks() -> u64 {
    Ticker::new().now()
}

/// How long `ticks` are.
pub(crate) fn duration(ticks: u64) -> Duration {
    Duration::from_nanos(((u128::from(ticks) * u128::from(clock().rate())) >> 32) as u64)
}

/// How many ticks `d` lasts, at most `u64::MAX / 2`.
pub(crate) fn in_ticks(d: Duration) -> u64 {
    let t = (d.as_nanos() << 32) / u128::from(clock().rate().max(1));
    u64::try_from(t).unwrap_or(u64::MAX).min(u64::MAX / 2)
}

/// What was `ticks` long ago, from now.
pub(crate) fn since(then: u64) -> Duration {
    duration(ticks().saturating_sub(then))
}
