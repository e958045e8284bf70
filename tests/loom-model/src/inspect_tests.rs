//! `task/state.rs`, INSPECT: a reader never copies a stack that runs, never a name that is being dropped, and holds up
//! nobody for good (hazard 17). loom's cells report an access of one thread beside one of another.

use std::ptr;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Notify};
use loom::thread;

use crate::model::check;
use crate::shipped::state::{Finish, Inspect, Life, Park, Start, State, Unpark};
use crate::sys::atomic::{AtomicPtr, Ordering, publish};

struct Cell {
    state: State,
    /// Stands for the stack and the context: written by every slice.
    stack: UnsafeCell<u32>,
    /// Stands for the name: written at spawn, dropped when the cell is emptied. Holds the id.
    name: UnsafeCell<u64>,
}

struct World {
    cell: Cell,
    current: AtomicPtr<Cell>,
    /// The unparker has queued the task.
    queued: Notify,
}

// SAFETY: loom checks each access to the cells.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    Yielded,
    Parked,
    Ended,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Running,
    Still { stack: bool },
    Nothing,
}

impl World {
    fn new() -> Arc<World> {
        let cell = Cell { state: State::free_cell(), stack: UnsafeCell::new(0), name: UnsafeCell::new(0) };
        let w = World { cell, current: AtomicPtr::new(ptr::null_mut()), queued: Notify::new() };
        w.spawn(1);
        Arc::new(w)
    }

    /// A world whose task has run before and lies in its worker's queue.
    fn started() -> Arc<World> {
        let w = World::new();
        assert!(w.slice(Outcome::Yielded));
        w.current.store(ptr::null_mut(), Ordering::Release);
        w
    }

    fn this(&self) -> *mut Cell {
        ptr::from_ref(&self.cell).cast_mut()
    }

    /// `spawn::fill` and the publication.
    fn spawn(&self, id: u64) {
        // SAFETY: loom checks.
        self.cell.name.with_mut(|n| unsafe { *n = id });
        self.cell.state.spawn(id, false);
    }

    /// `Worker::slice`; false: the task went back to its queue.
    fn slice(&self, outcome: Outcome) -> bool {
        let mut word = self.cell.state.snapshot();
        if word.life() == Life::Unstarted {
            self.current.store(self.this(), Ordering::Relaxed);
        } else {
            publish(&self.current, self.this());
            word = self.cell.state.resume_check();
        }
        if word.inspected() || word.life() == Life::Unstarted {
            let go = !word.inspected() && self.start();
            if !go {
                self.current.store(ptr::null_mut(), Ordering::Release);
                return false;
            }
        }
        // SAFETY: loom checks.
        self.cell.stack.with_mut(|s| unsafe { *s += 1 });
        match outcome {
            Outcome::Yielded => {}
            Outcome::Parked => {
                if self.cell.state.park() == Park::Parked {
                    self.queued.wait();
                    while self.cell.state.snapshot().life() == Life::Parked {
                        // loom's notification is spurious once.
                        self.queued.wait();
                    }
                }
            }
            Outcome::Ended => {
                // `settle_end`: the stack goes back to the pool, where another task may take it.
                // SAFETY: loom checks.
                self.cell.stack.with_mut(|s| unsafe { *s = 0 });
                assert_eq!(self.cell.state.finish(), Finish::Free);
                // The next task is published, here none, before or after the cell is freed.
                self.current.store(ptr::null_mut(), Ordering::Release);
                self.free();
            }
        }
        true
    }

    fn start(&self) -> bool {
        match self.cell.state.start() {
            Start::Run => {
                // SAFETY: loom checks.
                self.cell.stack.with_mut(|s| unsafe { *s = 0 });
                true
            }
            Start::Inspected => false,
        }
    }

    /// Until it has run.
    fn slice_to_the_end(&self, outcome: Outcome) {
        while !self.slice(outcome) {
            thread::yield_now();
        }
    }

    /// `Worker::free_cell`, `retry_limbo` and `slice::empty_cell`.
    fn free(&self) {
        while !self.cell.state.may_empty() {
            thread::yield_now();
        }
        // SAFETY: loom checks.
        self.cell.name.with_mut(|n| unsafe { *n = 0 });
        self.cell.state.free();
    }

    /// `Captured::capture` and `copy`, one attempt.
    fn capture(&self) -> Seen {
        let state = &self.cell.state;
        let Inspect::Entered(word) = state.inspect_begin() else { return Seen::Nothing };
        let id = word.id();
        let running = word.life() != Life::Unstarted && self.current.load(Ordering::SeqCst) == self.this();
        let seen = if running || state.inspect_confirm(id) {
            // SAFETY: loom checks.
            self.cell.name.with(|n| assert_eq!(unsafe { *n }, id, "the name of another task, or a dropped one"));
            let stack = !running && word.life() != Life::Unstarted;
            if stack {
                // SAFETY: loom checks.
                self.cell.stack.with(|s| assert!(unsafe { *s } > 0));
            }
            if running { Seen::Running } else { Seen::Still { stack } }
        } else {
            Seen::Nothing
        };
        state.inspect_end(id);
        seen
    }
}

fn beside(owner: impl FnOnce(&World), w: Arc<World>, inspectors: usize) {
    let others: Vec<_> = (0..inspectors)
        .map(|_| {
            let w = w.clone();
            thread::spawn(move || w.capture())
        })
        .collect();
    owner(&w);
    others.into_iter().for_each(|o| {
        o.join().unwrap();
    });
    assert!(!w.cell.state.snapshot().inspected(), "a window was left open");
}

#[test]
fn a_reader_beside_a_task_that_yields() {
    check(3, || {
        beside(
            |w| {
                w.slice_to_the_end(Outcome::Yielded);
                w.slice_to_the_end(Outcome::Yielded);
            },
            World::started(),
            1,
        );
    });
}

#[test]
fn a_reader_beside_a_task_that_starts() {
    check(3, || {
        beside(
            |w| {
                w.slice_to_the_end(Outcome::Yielded);
                w.slice_to_the_end(Outcome::Yielded);
            },
            World::new(),
            1,
        );
    });
}

/// The reader may find the task running and read its name while the task ends.
#[test]
fn a_cell_is_not_emptied_under_its_reader() {
    check(3, || {
        beside(|w| w.slice_to_the_end(Outcome::Ended), World::started(), 1);
    });
}

#[test]
fn a_cell_that_is_used_again_shows_one_task_or_the_other() {
    check(3, || {
        beside(
            |w| {
                w.slice_to_the_end(Outcome::Ended);
                w.spawn(2);
                w.slice_to_the_end(Outcome::Yielded);
            },
            World::started(),
            1,
        );
    });
}

#[test]
fn two_readers_beside_a_task_that_ends() {
    check(2, || {
        beside(
            |w| {
                w.slice_to_the_end(Outcome::Yielded);
                w.slice_to_the_end(Outcome::Ended);
            },
            World::started(),
            2,
        );
    });
}

#[test]
fn a_reader_beside_a_task_that_parks_and_is_unparked() {
    check(2, || {
        let w = World::started();
        let w2 = w.clone();
        let unparker = thread::spawn(move || {
            if w2.cell.state.unpark(1) == Unpark::Queue {
                w2.queued.notify();
            }
        });
        beside(
            |w| {
                w.slice_to_the_end(Outcome::Parked);
                w.slice_to_the_end(Outcome::Ended);
            },
            w.clone(),
            1,
        );
        unparker.join().unwrap();
    });
}

/// That the models above look at something: each of the three answers comes up.
#[test]
fn the_reader_meets_every_case() {
    use std::sync::Mutex;
    static MET: Mutex<[bool; 4]> = Mutex::new([false; 4]);
    check(2, || {
        let w = World::new();
        let w2 = w.clone();
        let reader = thread::spawn(move || {
            let case = match w2.capture() {
                Seen::Running => 0,
                Seen::Still { stack: true } => 1,
                Seen::Still { stack: false } => 2,
                Seen::Nothing => 3,
            };
            MET.lock().unwrap()[case] = true;
        });
        w.slice_to_the_end(Outcome::Yielded);
        w.slice_to_the_end(Outcome::Ended);
        reader.join().unwrap();
    });
    assert_eq!(*MET.lock().unwrap(), [true; 4]);
}
