//! Waking: from the transition that made a task runnable to the queue in which its worker finds it.
//!
//! Invariant: whoever was told [`Unpark::Queue`] queues the task, once; until then its link is theirs. Must not know what was waited for.

use std::sync::atomic::Ordering;

use super::worker::Worker;
use crate::task::state::Unpark;
use crate::task::{Other, TaskCell, TaskRef, Unparker};

/// Wakes whoever waits: a task wherever it lives, a thread, or whoever polls.
#[inline]
pub(crate) fn unpark(who: &Unparker) {
    unpark_from(Worker::current, who);
}

/// The same, for who can tell on which worker that is, if on any.
#[inline(always)]
pub(super) fn unpark_from(here: impl FnOnce() -> Option<&'static Worker>, who: &Unparker) {
    match who.as_task() {
        Some(task) => {
            if task.cell().state.unpark(task.id()) == Unpark::Queue {
                queue(here(), task.cell());
            }
        }
        None => unpark_other(who),
    }
}

#[cold]
fn unpark_other(who: &Unparker) {
    match who.other() {
        None => {}
        Some(Other::Thread(t)) => t.unpark(),
        Some(Other::Waker(w)) => w.wake_by_ref(),
    }
}

/// Wakes a task, wherever the caller runs.
#[inline]
pub(crate) fn unpark_task(task: TaskRef) {
    queue_if(task, task.cell().state.unpark(task.id()));
}

/// Does what a transition left to do.
#[inline]
pub(super) fn queue_if(task: TaskRef, result: Unpark) {
    if result == Unpark::Queue {
        queue(Worker::current(), task.cell());
    }
}

/// The task was parked until just now; `here` is the worker of the calling thread.
#[inline(always)]
fn queue(here: Option<&'static Worker>, cell: &'static TaskCell) {
    let owner = cell.owner.load(Ordering::Relaxed);
    if let Some(w) = here
        && w.shared.index == owner
    {
        // No clock is read for a wake-up on its own worker: it came some time in the slice that runs.
        cell.accounting.woken(w.shared.slice_start.load(Ordering::Relaxed));
        w.queue.push(cell);
    } else {
        deliver(cell, owner);
    }
}

#[inline(never)]
fn deliver(cell: &'static TaskCell, owner: u16) {
    if let Some(shared) = super::shared::worker_at(owner) {
        // SAFETY: the transition gave us the task's link.
        unsafe { shared.deliver(cell) };
    }
}
