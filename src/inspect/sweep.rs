//! The walk over every task, a piece at a time.
//!
//! Invariants: a piece ends after [`PIECE`] at the latest, but for the one task that it is at; the CPU is given away, outside
//! of any window and with no lock held, at the end of each [`Turn`], and while the thread of a task that
//! runs is asked for its stack; what the next tasks will need is fetched while one is looked at.
//!
//! Must not know: what is done with a task.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::capture::Captured;
use super::frames::{Frames, frames};
use crate::scheduler;
use crate::sys::clock;
use crate::sys::turn::Turn;
use crate::task::TaskCell;

/// Work per piece: well below the 250 ms of silence that a client tolerates.
const PIECE: Duration = Duration::from_millis(20);
/// So many cells ahead the cell is fetched, and half as many ahead the innermost part of its stack.
const AHEAD: usize = 16;

/// What to do after a task was looked at.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    /// The piece is large enough.
    Pause,
}

/// What a piece came to.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swept {
    /// There are more tasks.
    More,
    All,
}

/// Where the walk is. See the module's head.
#[derive(Debug)]
pub(super) struct Sweep {
    chunk: usize,
    cell: usize,
    pub(super) captured: Captured,
    /// When it began, in ticks.
    begun: u64,
    turn: Turn,
}

impl Sweep {
    pub(super) fn new() -> Sweep {
        Sweep { chunk: 0, cell: 0, captured: Captured::new(), begun: clock::ticks(), turn: Turn::new() }
    }

    pub(super) fn took(&self) -> Duration {
        clock::since(self.begun)
    }

    /// Looks at the stacks of tasks that run as well.
    pub(super) fn with_running() -> Sweep {
        let mut sweep = Sweep::new();
        sweep.captured.wants_running = true;
        sweep
    }

    /// Looks at some more tasks. `each` holds the process's one walker and must not ask for it again.
    pub(super) fn piece(
        &mut self,
        mut each: impl FnMut(&mut Frames, &mut Captured, &'static TaskCell) -> Then,
    ) -> Swept {
        let registry = scheduler::registry();
        let mut now = clock::ticks();
        let end = now + clock::in_ticks(PIECE);
        while self.chunk < registry.chunks() {
            let cells = registry.cells(self.chunk);
            while self.cell < cells.len() {
                let mut walker = frames();
                while self.cell < cells.len() && !self.turn.is_over(now) {
                    let cell = &cells[self.cell];
                    if let Some(next) = cells.get(self.cell + AHEAD) {
                        next.prefetch();
                    }
                    if let Some(next) = cells.get(self.cell + AHEAD / 2) {
                        next.prefetch_others_stack();
                    }
                    self.cell += 1;
                    if self.cell.is_multiple_of(256) {
                        // Free cells cost little, but there can be a million of them.
                        now = clock::ticks();
                    }
                    if cell.state.snapshot().id() == 0 || !self.captured.capture(cell, None) {
                        continue;
                    }
                    if self.captured.is_to_follow() {
                        // Its thread may take a while to answer.
                        drop(walker);
                        let found = self.captured.follow(cell, None);
                        walker = frames();
                        if !found {
                            continue;
                        }
                    }
                    now = self.captured.at;
                    if each(&mut walker, &mut self.captured, cell) == Then::Pause {
                        return Swept::More;
                    }
                }
                drop(walker);
                now = clock::ticks();
                if now >= end {
                    return Swept::More;
                }
                now = self.turn.give_way();
            }
            self.chunk += 1;
            self.cell = 0;
        }
        Swept::All
    }

    /// Looks at all tasks.
    pub(super) fn all(&mut self, mut each: impl FnMut(&mut Frames, &mut Captured, &'static TaskCell) -> Then) {
        while self.piece(&mut each) == Swept::More {}
    }
}

/// Every cell that was ever used, free ones included, for who looks at little in each: gives way in between, so that whoever walks must
/// hold no lock that a worker wants, and no window.
pub(crate) fn cells() -> impl Iterator<Item = &'static TaskCell> {
    let mut turn = Turn::new();
    scheduler::all_cells().inspect(move |_| turn.step())
}

/// Where that task is, or was a moment ago.
pub(crate) fn cell_of(id: u64) -> Option<&'static TaskCell> {
    cells().find(|cell| id != 0 && cell.state.snapshot().id() == id)
}
