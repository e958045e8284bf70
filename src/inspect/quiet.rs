//! Whether everybody waits and nobody is left who could wake anybody.
//!
//! Said of the whole process, and only if it is sure: every worker sleeps without a timer, every task waits for another
//! task, no job runs on the blocking pool, and every thread of the program waits for a task as well. A single thread that does
//! anything else might wake a task, so then nothing is said.

#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use super::capture::Captured;
use super::deadlock::{Deadlock, DeadlockKind, DeadlockWait, LISTED};
use super::frames::frames;
use super::line::view_of;
use super::sweep::cells;
use crate::observe::WaitKind;
use crate::scheduler::{self, runtime};
use crate::sys::{parker, threads};
use crate::task::TaskCell;
use crate::task::state::Life;

/// Whether only another task or thread can end a wait of that kind.
fn needs_somebody(kind: WaitKind) -> bool {
    use WaitKind::*;
    matches!(
        kind,
        Park | Lock
            | ReadLock
            | WriteLock
            | Once
            | Join
            | Scope
            | Send
            | Recv
            | Oneshot
            | Semaphore
            | Condvar
            | Event
            | WaitGroup
            | Barrier
    )
}

/// What tells one moment from another: any slice or sleep of any worker changes it, and any wait of a plain thread. `None`
/// if somebody is awake, has a timer, or has work, or if a signal is waited for.
fn standstill() -> Option<Vec<(u64, u64)>> {
    if scheduler::somebody_waits_for_a_signal() {
        return None;
    }
    let mut marks = vec![(parker::turns(), 0)];
    for runtime in runtime::all() {
        for w in runtime.workers() {
            let still = w.current.load(Ordering::SeqCst).is_null()
                && w.idle.looks_asleep()
                && w.inbox.is_empty()
                && w.fresh.looks_empty()
                && !w.has_timers.load(Ordering::SeqCst)
                && !w.gone.load(Ordering::SeqCst);
            if !still {
                return None;
            }
            marks.push((w.slices.load(Ordering::SeqCst), w.parks.load(Ordering::SeqCst)));
        }
    }
    Some(marks)
}

/// Every task, if each waits for somebody.
fn waiting() -> Option<Vec<(u64, &'static TaskCell)>> {
    let mut all = Vec::new();
    for cell in cells() {
        let word = cell.state.snapshot();
        match word.life() {
            Life::Free | Life::Done => {}
            Life::Parked if needs_somebody(cell.wait().kind) && !word.cancel_requested() => all.push((word.id(), cell)),
            _ => return None,
        }
    }
    Some(all)
}

/// Every task of the process, if nothing can wake any of them.
pub(crate) fn quiet() -> Option<Deadlock> {
    let before = standstill()?;
    let tasks = waiting().filter(|t| !t.is_empty())?;
    let jobs = crate::blocking::blocking_stats();
    if jobs.queued > 0 || !jobs.running.is_empty() || threads::foreign()? > parker::waiting() {
        return None;
    }
    // The second look: nobody has run in between.
    if standstill()? != before || !waiting()?.iter().map(|t| t.0).eq(tasks.iter().map(|t| t.0)) {
        return None;
    }
    frames().refresh();
    let mut c = Captured::of_any();
    let waits = tasks.iter().take(LISTED).filter_map(|(id, cell)| {
        let task = view_of(&mut c, cell, *id)?;
        let slices = cell.accounting.slices();
        Some(DeadlockWait { task, holder: 0, limited: false, slices })
    });
    let deadlock = Deadlock { kind: DeadlockKind::Quiet, waits: waits.collect(), tasks: tasks.len(), behind: 0 };
    standstill().is_some_and(|now| now == before).then_some(deadlock)
}
