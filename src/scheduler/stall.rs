//! When a slice is too long, and how a worker that wakes up rouses the watchdog that dozed off with it.
//!
//! Invariants: thresholds are per process, and per task where it has its own. [`floor`] is the lowest of all that were
//! ever in force together, so that a slice below it needs no second look. Must not know what a watchdog does.
//!
//! **Dozing.** While every worker sleeps there is nothing to watch, and the watchdog sleeps as well until somebody wakes
//! it:
//!
//! ```text
//!   watchdog                             worker
//!   --------                             ------
//!   1. DOZING = true                     1. state = AWAKE (`idle::wake_up`)
//!   2. look at every worker's state      2. if DOZING: DOZING = false, unpark the watchdog
//!   3. all ASLEEP: park
//! ```
//!
//! Both sides store first and look second, sequentially consistent, so at least one sees the other.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use super::shared::Shared;
use crate::sys::clock;
use crate::task::Label;

const DEFAULT_MS: u64 = 200;
/// In [`Label::latency_ms`]: never.
pub(super) const NEVER: u32 = u32::MAX;

/// Milliseconds; 0 is off, `u64::MAX`: not asked for yet.
static PROCESS_MS: AtomicU64 = AtomicU64::new(u64::MAX);
/// The lowest threshold that any task ever had of its own.
static LOWEST_OWN_MS: AtomicU32 = AtomicU32::new(NEVER);
/// In ticks; both follow from the two above.
static PROCESS: AtomicU64 = AtomicU64::new(u64::MAX);
static FLOOR: AtomicU64 = AtomicU64::new(u64::MAX);

static WATCHDOG: OnceLock<Thread> = OnceLock::new();
static DOZING: AtomicBool = AtomicBool::new(false);
/// When the watchdog was last roused from a doze, in ticks.
static ROUSED: AtomicU64 = AtomicU64::new(0);

fn process_ms() -> u64 {
    match PROCESS_MS.load(Ordering::Relaxed) {
        u64::MAX => std::env::var("CORO_LATENCY_MS").ok().and_then(|v| v.parse().ok()).unwrap_or(DEFAULT_MS),
        ms => ms,
    }
}

/// Whether somebody looks at the workers that run.
pub(super) fn is_watched() -> bool {
    FLOOR.load(Ordering::Relaxed) != u64::MAX && WATCHDOG.get().is_some()
}

fn as_ticks(ms: u64) -> u64 {
    if ms == 0 { u64::MAX } else { clock::in_ticks(Duration::from_millis(ms)) }
}

/// Whole milliseconds, rounded up.
fn as_ms(threshold: Duration) -> u64 {
    u64::try_from(threshold.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX - 1).min(u64::MAX - 1)
}

/// Reads the environment, if nobody has set a threshold before. At the start of every runtime.
pub(super) fn begin() {
    let _ = PROCESS_MS.compare_exchange(u64::MAX, process_ms(), Ordering::Relaxed, Ordering::Relaxed);
    settle();
}

fn settle() {
    // So that of two at once the later one's figures are not overwritten by what the earlier one has read.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let settling = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let process = as_ticks(process_ms());
    let own = match LOWEST_OWN_MS.load(Ordering::SeqCst) {
        NEVER => u64::MAX,
        ms => as_ticks(ms.into()),
    };
    PROCESS.store(process, Ordering::Relaxed);
    FLOOR.store(process.min(own), Ordering::Relaxed);
    drop(settling);
    ring();
}

/// The process's threshold. Zero is off.
pub(crate) fn process() -> Duration {
    Duration::from_millis(process_ms())
}

/// Sets the process's threshold; returns the old one. Zero is off.
pub(crate) fn set_process(threshold: Duration) -> Duration {
    let old = process_ms();
    PROCESS_MS.store(as_ms(threshold), Ordering::Relaxed);
    settle();
    Duration::from_millis(old)
}

/// What [`Label::latency_ms`] has to be for a task's own threshold; zero is never.
pub(super) fn own(threshold: Duration) -> u32 {
    let ms = match as_ms(threshold) {
        0 => return NEVER,
        ms => u32::try_from(ms).unwrap_or(NEVER - 1).min(NEVER - 1),
    };
    if LOWEST_OWN_MS.fetch_min(ms, Ordering::SeqCst) > ms {
        settle();
    }
    ms
}

/// What a task's own threshold means; that of the process for 0.
pub(super) fn meant(own: u32) -> Duration {
    match own {
        0 => Duration::from_millis(process_ms()),
        NEVER => Duration::ZERO,
        ms => Duration::from_millis(ms.into()),
    }
}

/// Slices of fewer ticks are nobody's stall; `u64::MAX`: none is.
#[inline]
pub(crate) fn floor() -> u64 {
    FLOOR.load(Ordering::Relaxed)
}

/// The threshold of a task with that label, in ticks; `u64::MAX` is off.
pub(crate) fn threshold(label: Option<&Label>) -> u64 {
    match label.map_or(0, |l| l.latency_ms.load(Ordering::Relaxed)) {
        0 => PROCESS.load(Ordering::Relaxed),
        NEVER => u64::MAX,
        ms => as_ticks(ms.into()),
    }
}

/// Whom to rouse. Once, by the watchdog.
pub(crate) fn watch_by(thread: Thread) {
    let _ = WATCHDOG.set(thread);
}

/// Makes the watchdog look now.
pub(crate) fn ring() {
    if let Some(thread) = WATCHDOG.get() {
        thread.unpark();
    }
}

/// Steps 1 and 2 of the watchdog: whether it may park.
pub(crate) fn doze(workers: impl Iterator<Item = &'static Shared>) -> bool {
    DOZING.store(true, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    let quiet = all_rest(workers);
    if !quiet {
        DOZING.store(false, Ordering::SeqCst);
    }
    quiet
}

/// Whether every worker sleeps or is gone.
pub(crate) fn all_rest(mut workers: impl Iterator<Item = &'static Shared>) -> bool {
    workers.all(|w| w.gone.load(Ordering::Relaxed) || w.idle.is_asleep())
}

/// The doze is over; when somebody rang, in ticks, unless it ended by itself.
pub(crate) fn end_doze() -> Option<u64> {
    let undisturbed = DOZING.swap(false, Ordering::SeqCst);
    (!undisturbed).then(|| ROUSED.load(Ordering::Relaxed))
}

/// Step 2 of a worker that has slept.
#[inline]
pub(super) fn rouse() {
    if DOZING.load(Ordering::SeqCst) {
        rouse_now();
    }
}

/// The same for a worker that starts.
pub(super) fn begin_work() {
    fence(Ordering::SeqCst);
    rouse();
}

#[cold]
fn rouse_now() {
    ROUSED.store(clock::ticks(), Ordering::Relaxed);
    if DOZING.swap(false, Ordering::SeqCst) {
        ring();
    }
}
