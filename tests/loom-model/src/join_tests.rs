//! `task/state.rs`, the join handle: the result is taken or dropped once, the cell freed once, the joiner's slot never
//! written by two, whatever happens when.

use std::sync::atomic::AtomicUsize;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Notify};
use loom::thread;

use crate::model::check;
use crate::shipped::state::{CellFate, Finish, HandleDrop, Joiner, Offer, Start, State};
use crate::sys::atomic::Ordering;

/// The task's result; counts its drops outside the model.
struct Value(std::sync::Arc<AtomicUsize>);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Cell {
    state: State,
    payload: UnsafeCell<Option<Value>>,
    joiner: UnsafeCell<Option<Arc<Notify>>>,
    frees: AtomicUsize,
    drops: std::sync::Arc<AtomicUsize>,
}

// SAFETY: loom checks each access to the cells.
unsafe impl Send for Cell {}
// SAFETY: as above.
unsafe impl Sync for Cell {}

impl Cell {
    fn new() -> Arc<Cell> {
        let state = State::free_cell();
        state.spawn(1, true);
        assert_eq!(state.start(), Start::Run);
        Arc::new(Cell {
            state,
            payload: UnsafeCell::new(None),
            joiner: UnsafeCell::new(None),
            frees: AtomicUsize::new(0),
            drops: std::sync::Arc::default(),
        })
    }

    fn take_joiner(&self) -> Option<Arc<Notify>> {
        // SAFETY: loom checks.
        self.joiner.with_mut(|j| unsafe { (*j).take() })
    }

    fn take_payload(&self) -> Option<Value> {
        // SAFETY: loom checks.
        self.payload.with_mut(|p| unsafe { (*p).take() })
    }

    /// `payload::run` and `Worker::settle_end`.
    fn finish(&self) {
        let value = Value(self.drops.clone());
        // SAFETY: loom checks.
        self.payload.with_mut(|p| unsafe { *p = Some(value) });
        if self.state.offer_result() == Offer::NobodyAsks {
            drop(self.take_payload());
        }
        match self.state.finish() {
            Finish::HandleOwns => {}
            Finish::Free => self.free(),
            Finish::WakeJoiner => {
                if let Some(j) = self.take_joiner() {
                    j.notify();
                }
                match self.state.release() {
                    CellFate::CallerFrees => self.free(),
                    CellFate::OtherFrees => {}
                }
            }
        }
    }

    /// `slice::empty_cell`.
    fn free(&self) {
        assert!(self.state.may_empty());
        assert!(self.take_payload().is_none(), "a result with a destructor is dropped before, where it may wait");
        drop(self.take_joiner());
        self.state.free();
        self.frees.fetch_add(1, Ordering::Relaxed);
    }

    /// One turn of `JoinHandle::wait_done`; `wait` stands for `suspend::wait`. `Done` ends the loop without another look.
    fn wait_turn(&self, unparker: &Arc<Notify>, wait: impl FnOnce()) -> Joiner {
        // SAFETY: loom checks.
        self.joiner.with_mut(|j| unsafe { *j = Some(unparker.clone()) });
        if self.state.add_joiner() == Joiner::Done {
            return Joiner::Done;
        }
        wait();
        // `Registered::drop`
        let _ = self.state.remove_joiner();
        Joiner::Changed
    }

    fn wait_done(&self, unparker: &Arc<Notify>) {
        while !self.state.is_done() {
            if self.wait_turn(unparker, || unparker.wait()) == Joiner::Done {
                break;
            }
        }
    }

    /// `JoinHandle::drop`.
    fn drop_handle(&self) {
        let mut dropped = self.state.drop_handle(false);
        if dropped == HandleDrop::ResultFirst {
            drop(self.take_payload());
            dropped = self.state.drop_handle(true);
        }
        if dropped == HandleDrop::Gone(CellFate::CallerFrees) {
            self.free();
        }
    }

    fn join(&self, unparker: &Arc<Notify>) {
        self.wait_done(unparker);
        let value = self.take_payload().expect("an ended task has a result");
        self.drop_handle();
        assert_eq!(self.drops.load(Ordering::Relaxed), 0, "dropped although it was taken");
        drop(value);
    }
}

fn beside(handle: impl FnOnce(&Cell, &Arc<Notify>)) {
    let c = Cell::new();
    let c2 = c.clone();
    let worker = thread::spawn(move || c2.finish());
    handle(&c, &Arc::new(Notify::new()));
    worker.join().unwrap();
    assert_eq!(c.frees.load(Ordering::Relaxed), 1, "the cell is freed once");
    assert_eq!(c.drops.load(Ordering::Relaxed), 1, "the result is dropped once");
    assert_eq!(c.state.snapshot().id(), 0);
}

#[test]
fn join_takes_the_result() {
    check(None, || beside(Cell::join));
}

#[test]
fn a_dropped_handle_detaches() {
    check(None, || beside(|c, _| c.drop_handle()));
}

#[test]
fn a_join_that_is_cancelled_detaches() {
    check(None, || {
        beside(|c, unparker| {
            if !c.state.is_done() {
                let _ = c.wait_turn(unparker, || {});
            }
            c.drop_handle();
        });
    });
}

#[test]
fn a_join_that_wakes_for_no_reason_waits_again() {
    check(3, || {
        beside(|c, unparker| {
            if !c.state.is_done() {
                let _ = c.wait_turn(unparker, || {});
            }
            c.join(unparker);
        });
    });
}

/// The handle moves to another thread between two waits, so the unparker changes.
#[test]
fn a_second_waiter_is_the_one_that_is_woken() {
    check(3, || {
        beside(|c, first| {
            if !c.state.is_done() {
                let _ = c.wait_turn(first, || {});
            }
            c.join(&Arc::new(Notify::new()));
        });
    });
}

#[test]
fn an_observer_sees_the_end_once_the_result_is_there() {
    check(3, || {
        let c = Cell::new();
        let c2 = c.clone();
        let worker = thread::spawn(move || c2.finish());
        // `is_finished`, then `join` without a wait.
        if c.state.is_done() {
            drop(c.take_payload().expect("an ended task has a result"));
        }
        c.drop_handle();
        worker.join().unwrap();
        assert_eq!(c.frees.load(Ordering::Relaxed), 1);
        assert_eq!(c.drops.load(Ordering::Relaxed), 1);
    });
}
