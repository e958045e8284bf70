//! Sleeps and time limits as points: each can be watched when it begins and when it ends.
//!
//! Invariants: while nobody watches a call costs one relaxed load and a branch for this.
//!
//! Must not know: who watches, or what becomes of what is seen.

#![forbid(unsafe_code)]

use super::{Duration, Elapsed};
use crate::observe::{Point, PointKind, PointName, Shown, Woven};

static SLEEP: Point =
    Point::new(PointName::Fixed("coro::time::sleep"), PointKind::Function, file!(), line!(), line!(), &["for"]);
static TIMEOUT: Point =
    Point::new(PointName::Fixed("coro::time::timeout"), PointKind::Function, file!(), line!(), line!(), &["limit"]);

/// All of them.
pub(crate) fn points() -> impl Iterator<Item = &'static Point> {
    [&SLEEP, &TIMEOUT].into_iter()
}

#[inline(always)]
pub(super) fn are_sleeps_watched() -> bool {
    SLEEP.is_watched()
}

/// A sleep that somebody watches.
#[cold]
#[inline(never)]
pub(super) fn sleeping(duration: Duration, sleep: impl FnOnce()) {
    let watched = Woven::begin(&SLEEP, &[Shown::Debug(&duration)]);
    sleep();
    watched.ended(Ok::<_, &str>(Shown::Unit));
}

/// A limit begins.
#[inline(always)]
pub(super) fn limit(limit: impl FnOnce() -> Duration) -> Option<Woven> {
    TIMEOUT.is_watched().then(|| Woven::begin(&TIMEOUT, &[Shown::Debug(&limit())]))
}

/// It was watched when it began, or not, and is over.
#[inline(always)]
pub(super) fn limit_is_over<T>(watched: Option<Woven>, result: &Result<T, Elapsed<T>>) {
    if let Some(watched) = watched {
        watched.ended(match result {
            Ok(_) => Ok(Shown::Unit),
            Err(Elapsed(None)) => Err("expired"),
            Err(Elapsed(Some(_))) => Err("expired, and ended all the same"),
        });
    }
}
