//! Credits: promises that a stack will exist when a spawned task first runs.
//!
//! Purpose: refuse a task at spawn, where an error can be returned, and not at its first run.
//! Invariants: per class, credits never exceed the slots that can exist; over all classes they never exceed
//! `CORO_MAX_TASKS` nor, with guards by `mprotect`, what the budget of mappings allows. A credit is no slot: slots idle in
//! another worker's pool, or memory itself, can still be missing at the first run.
//! Must not know: which slot a credit will become.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::class::{self, ClassId};
use super::guard::{self, GuardMode};
use super::region;
use crate::sys::line::Line;

static PROMISED: Line<[AtomicUsize; class::COUNT]> = Line::new([const { AtomicUsize::new(0) }; class::COUNT]);
static PROMISED_IN_ALL: Line<AtomicUsize> = Line::new(AtomicUsize::new(0));

/// Takes one credit.
///
/// # Errors
/// As [`try_reserve_many`].
pub(crate) fn try_reserve(class: ClassId) -> io::Result<()> {
    try_reserve_many(class, 1).map(drop)
}

/// Takes up to `n` credits of a class at once, so that a worker asks the process-wide count once per batch. Returns how
/// many were granted, at least one (none only for `n` = 0).
///
/// Close to a limit over all classes it grants little at a time, so that few credits lie unused with one worker while
/// another is refused.
///
/// # Errors
/// `OutOfMemory`: no slot of this class is left, or no mappings for guards. `QuotaExceeded`: `CORO_MAX_TASKS` is reached.
/// `InvalidInput`: a variable of the environment is wrong. The text says what to do.
pub(crate) fn try_reserve_many(class: ClassId, n: usize) -> io::Result<usize> {
    if n == 0 {
        return Ok(0);
    }
    let (limit, limited_by) = limit_in_all()?;
    let capacity = region::capacity(class)?;
    let promised = &PROMISED[class.index()];
    let granted = take(promised, capacity, n);
    if granted == 0 {
        return Err(region::full(class, capacity));
    }
    let most = if limit == usize::MAX {
        granted
    } else {
        let left = limit.saturating_sub(PROMISED_IN_ALL.load(Ordering::Relaxed));
        granted.min((left / 16).max(1))
    };
    let in_all = take(&PROMISED_IN_ALL, limit, most);
    promised.fetch_sub(granted - in_all, Ordering::Relaxed);
    if in_all > 0 {
        return Ok(in_all);
    }
    Err(match limited_by {
        LimitedBy::Mappings => guard::no_mappings(limit),
        LimitedBy::MaxTasks => io::Error::new(
            io::ErrorKind::QuotaExceeded,
            format!("the limit of {limit} tasks is reached: let tasks end, or raise or unset CORO_MAX_TASKS"),
        ),
    })
}

/// Gives one credit back.
pub(crate) fn release(class: ClassId) {
    release_many(class, 1);
}

/// Gives credits back, each of which [`try_reserve_many`] has granted.
pub(crate) fn release_many(class: ClassId, n: usize) {
    let before = PROMISED[class.index()].fetch_sub(n, Ordering::Relaxed);
    debug_assert!(before >= n, "more credits released than granted");
    PROMISED_IN_ALL.fetch_sub(n, Ordering::Relaxed);
}

/// Credits granted now, those cached by workers included.
pub(crate) fn promised(class: ClassId) -> usize {
    PROMISED[class.index()].load(Ordering::Relaxed)
}

/// Adds up to `n` to `count` without passing `limit`; returns how many.
fn take(count: &AtomicUsize, limit: usize, n: usize) -> usize {
    // Relaxed: the count guards no data, and only its own value decides.
    let mut now = count.load(Ordering::Relaxed);
    loop {
        let granted = n.min(limit.saturating_sub(now));
        match count.compare_exchange_weak(now, now + granted, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return granted,
            Err(other) => now = other,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum LimitedBy {
    MaxTasks,
    Mappings,
}

/// The limit over all classes, and what it comes from.
fn limit_in_all() -> io::Result<(usize, LimitedBy)> {
    static LIMIT: OnceLock<Result<(usize, LimitedBy), String>> = OnceLock::new();
    // Outside the initialiser: it reports a wrong variable of its own.
    let mode = GuardMode::current()?;
    let limit = LIMIT.get_or_init(|| {
        let tasks = match std::env::var_os("CORO_MAX_TASKS") {
            None => usize::MAX,
            Some(text) => parse_max_tasks(&text.to_string_lossy())?,
        };
        let stacks = match mode {
            GuardMode::Madvise => usize::MAX,
            GuardMode::Mprotect => guard::mapping_budget() / 2,
        };
        Ok(if stacks < tasks { (stacks, LimitedBy::Mappings) } else { (tasks, LimitedBy::MaxTasks) })
    });
    limit.as_ref().copied().map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text.clone()))
}

fn parse_max_tasks(text: &str) -> Result<usize, String> {
    text.trim().parse().ok().filter(|&most| most > 0).ok_or_else(|| {
        format!("CORO_MAX_TASKS={text:?} is no number of tasks: set it to 1 or more, or unset it for no limit")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_granted_up_to_the_limit_and_come_back() {
        let count = AtomicUsize::new(0);
        assert_eq!(take(&count, 10, 7), 7);
        assert_eq!(take(&count, 10, 7), 3);
        assert_eq!(take(&count, 10, 7), 0);
        count.fetch_sub(4, Ordering::Relaxed);
        assert_eq!(take(&count, 10, 1), 1);
        assert_eq!(take(&count, 2, 1), 0, "a limit below the count grants nothing");
    }

    #[test]
    fn a_class_runs_out_with_advice() {
        // The largest class, which no other test of this crate reserves.
        let class = class::class_for(64 << 20).unwrap();
        let capacity = region::capacity(class).unwrap();
        let mut held = 0;
        while held < capacity {
            held += try_reserve_many(class, capacity - held).unwrap();
        }
        let error = try_reserve(class).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("65536 KiB"), "{error}");
        release(class);
        try_reserve(class).unwrap();
        release_many(class, held);
        assert_eq!(promised(class), 0);
    }

    #[test]
    fn the_environment_is_validated() {
        assert_eq!(parse_max_tasks("5"), Ok(5));
        for bad in ["", "0", "many", "-1"] {
            assert!(parse_max_tasks(bad).unwrap_err().contains("CORO_MAX_TASKS"), "{bad}");
        }
    }
}
