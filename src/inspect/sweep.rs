//! The walk over every task, a piece at a time.
//!
//! Invariants: a piece ends after [`PIECE`] at the latest, but for the one task that it is at; the CPU is given away, outside
//! of any window and with no lock held, every [`GIVE_WAY`] to [`GIVE_WAY_TO_SPINNERS`], and while the thread of a task that
//! runs is asked for its stack; what the next tasks will need is fetched while one is looked at.
//!
//! Must not know: what is done with a task.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::capture::Captured;
use super::frames::{Frames, frames};
use crate::scheduler;
use crate::sys::clock;
use crate::task::TaskCell;

/// Work per piece: well below the 250 ms of silence that a client tolerates.
const PIECE: Duration = Duration::from_millis(20);
/// The walker gives way so often, so that it holds up no worker on its CPU.
const GIVE_WAY: Duration = Duration::from_micros(100);
/// So often where those that it gives way to keep the CPU for long: a worker that spins takes milliseconds each time, and a
/// dump is wanted most when all do.
const GIVE_WAY_TO_SPINNERS: Duration = Duration::from_micros(500);
/// In between, the walker keeps the CPU for one in so many parts of the time for which it was without one: then others lose a ninth of
/// one CPU, and not a fifth.
const PART_OF_WAIT: u64 = 8;
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
    /// How long the walker keeps the CPU now, in ticks.
    turn: u64,
}

impl Sweep {
    pub(super) fn new() -> Sweep {
        Sweep { chunk: 0, cell: 0, captured: Captured::new(), begun: clock::ticks(), turn: clock::in_ticks(GIVE_WAY) }
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
        let (shortest, longest) = (clock::in_ticks(GIVE_WAY), clock::in_ticks(GIVE_WAY_TO_SPINNERS));
        let registry = scheduler::registry();
        let mut now = clock::ticks();
        let end = now + clock::in_ticks(PIECE);
        while self.chunk < registry.chunks() {
            let cells = registry.cells(self.chunk);
            while self.cell < cells.len() {
                let give_way = now + self.turn;
                let mut walker = frames();
                while self.cell < cells.len() && now < give_way {
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
                std::thread::yield_now();
                let back = clock::ticks();
                self.turn = (back.saturating_sub(now) / PART_OF_WAIT).clamp(shortest, longest);
                now = back;
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
