//! What the search for deadlocks needs of a parked task: what it waits for, and what could end that. No stack, no text.

use std::sync::atomic::Ordering;

use crate::observe::{MOST_READS, Object, Traffic, WaitKind, Worded};
use crate::task::state::Life;
use crate::task::{TaskCell, TaskLocal};

/// See the module's head.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) cell: &'static TaskCell,
    pub(super) id: u64,
    /// Slices begun: the same number later means the same wait.
    pub(super) slices: u64,
    pub(super) kind: WaitKind,
    /// The detail of the wait reason.
    pub(super) detail: u64,
    /// Who holds what is waited for, or used it last on the other side: a task, or [`THREAD`](crate::observe::THREAD) and a
    /// number; 0: nobody, or not known.
    pub(super) owner: u64,
    /// How many hold the read-write lock that is waited for, for reading.
    pub(super) readers: u32,
    /// Addresses of the locks that the task itself holds for reading; 0: none.
    pub(super) reads: [usize; MOST_READS],
    /// Whose child in a scope it is: the detail of that scope's wait.
    pub(super) scope: usize,
    /// A time limit around the wait will end it.
    pub(super) limited: bool,
    /// A guard of what is waited for was once given up by a task that had not taken it.
    pub(super) handed_on: bool,
}

impl Facts {
    /// Looks at the task in `cell` if it is parked and waits for something that `wanted` says yes to.
    pub(super) fn of(cell: &'static TaskCell, wanted: impl Fn(WaitKind) -> bool) -> Option<Facts> {
        let word = cell.state.snapshot();
        // Without a window this may be any moment's kind; it only spares the window for most tasks.
        if word.life() != Life::Parked || !wanted(cell.wait().kind) {
            return None;
        }
        // A task that is left out takes its whole circle with it.
        let window = cell.enter()?;
        let holds = window.word().life() == Life::Parked && window.holds();
        let facts = holds.then(|| Facts::copy(cell, window.id()));
        drop(window);
        facts.filter(|f| wanted(f.kind))
    }

    /// Inside the window, of a task that is parked: it cannot leave its wait before the window closes.
    fn copy(cell: &'static TaskCell, id: u64) -> Facts {
        let wait = cell.wait();
        let at = wait.detail as usize;
        // SAFETY: the task is parked in a wait that borrows the object; which one its kind has is said with the kind.
        let (owner, readers, handed_on) = unsafe {
            match wait.kind {
                // Whoever receives makes room.
                WaitKind::Send => ((*std::ptr::with_exposed_provenance::<Traffic>(at)).received.who(), 0, false),
                WaitKind::ReadLock | WaitKind::WriteLock => {
                    let lock = &*std::ptr::with_exposed_provenance::<Worded>(at);
                    (lock.object.owner(), lock.readers(), lock.object.was_handed_on())
                }
                kind if kind.has_object() => {
                    let object = &*std::ptr::with_exposed_provenance::<Object>(at);
                    (object.owner(), 0, object.was_handed_on())
                }
                _ => (0, 0, false),
            }
        };
        let local = cell.local.load(Ordering::Relaxed);
        // SAFETY: a started task's record lives in its first frame, and the task does not run.
        let local = unsafe { local.as_ref() };
        Facts {
            cell,
            id,
            slices: cell.accounting.slices(),
            kind: wait.kind,
            detail: wait.detail,
            owner,
            readers,
            reads: local.map_or([0; MOST_READS], |l| l.held_reads.addresses()),
            scope: local.map_or(0, |l| l.scope.get()),
            limited: local.is_some_and(is_limited),
            handed_on,
        }
    }

    /// Whether the task is still in that wait, and the same party still holds what it waits for.
    pub(super) fn still(&self) -> bool {
        Facts::of(self.cell, |k| k == self.kind)
            .is_some_and(|f| (f.id, f.slices, f.detail, f.owner) == (self.id, self.slices, self.detail, self.owner))
    }
}

/// As deep are time limits followed.
const MOST_SCOPES: usize = 32;

/// Whether the wait has a limit of its own, or a `timeout` is in force that can end the task's waits.
fn is_limited(local: &TaskLocal) -> bool {
    if local.wait_until.get() != 0 {
        return true;
    }
    let shields = local.shields.get();
    let mut scope = local.scopes.get();
    for _ in 0..MOST_SCOPES {
        if scope.is_null() {
            return false;
        }
        // SAFETY: scopes are linked only while their frames live on the task's stack, and the task does not run.
        let s = unsafe { &*scope };
        if s.deadline.is_some() && s.shields >= shields {
            return true;
        }
        scope = s.outer.get();
    }
    // More than anybody nests: nothing certain is said of it.
    true
}
