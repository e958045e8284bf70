//! Waking: from the transition that made a task runnable to the queue in which its worker finds it.
//!
//! Invariant: whoever was told [`Unpark::Queue`] queues the task, once; until then its link is theirs. Must not know what was waited for.

use std::sync::atomic::Ordering;

use super::worker::Worker;
use crate::task::state::Unpark;
use crate::task::{TaskCell, TaskRef, Unparker};

/// Wakes whoever waits: a task wherever it lives, a thread, or whoever polls.
#[inline]
pub(crate) fn unpark(who: &Unparker) {
    match who {
        Unparker::Task(task) => unpark_task(*task),
        _ => unpark_other(who),
    }
}

#[cold]
fn unpark_other(who: &Unparker) {
    match who {
        Unparker::Task(_) => {}
        Unparker::Thread(t) => t.unpark(),
        Unparker::Waker(w) => w.wake_by_ref(),
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
        queue(task.cell());
    }
}

/// The task was parked until just now.
#[inline]
fn queue(cell: &'static TaskCell) {
    let owner = cell.owner.load(Ordering::Relaxed);
    if let Some(w) = Worker::current()
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
