//! `task/state.rs`, park and unpark: no wake-up lost, none doubled; cancellation is noticed.

use loom::sync::{Arc, Notify};
use loom::thread;
use std::sync::atomic::AtomicUsize;

use crate::model::check;
use crate::shipped::state::{Park, Start, State, Unpark};
use crate::sys::atomic::{AtomicBool, Ordering};

const ID: u64 = 1;

struct World {
    state: State,
    /// Stands for the inbox and the worker behind it.
    queued: Notify,
    /// How often `unpark` said `Queue`; passes on what happened before, as the inbox does.
    queues: loom::sync::atomic::AtomicUsize,
    /// Outside the model: how often `park` said `Parked`.
    parks: AtomicUsize,
    ready: AtomicBool,
}

impl World {
    /// With a task that runs.
    fn new() -> Arc<World> {
        let state = State::free_cell();
        state.spawn(ID, false);
        assert_eq!(state.start(), Start::Run);
        let (queues, parks) = (loom::sync::atomic::AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(World { state, queued: Notify::new(), queues, parks, ready: AtomicBool::new(false) })
    }

    /// `wake::queue_if`.
    fn queue_if(&self, u: Unpark) {
        if u == Unpark::Queue {
            self.queues.fetch_add(1, Ordering::Release);
            self.queued.notify();
        }
    }

    /// `Here::park` and the worker's side of it; returns when the task runs again.
    fn park(&self) {
        if self.state.take_token() {
            return;
        }
        if self.state.park() == Park::Parked {
            self.parks.fetch_add(1, Ordering::Relaxed);
            // loom's notification is spurious once; the worker resumes what was queued and nothing else.
            while self.queues.load(Ordering::Acquire) < self.parks.load(Ordering::Relaxed) {
                self.queued.wait();
            }
        }
    }

    fn end(&self) {
        assert_eq!(
            self.queues.load(Ordering::Relaxed),
            self.parks.load(Ordering::Relaxed),
            "every parked task is queued once"
        );
    }
}

#[test]
fn an_unpark_ends_the_park_or_leaves_a_token() {
    check(None, || {
        let w = World::new();
        let w2 = w.clone();
        let unparker = thread::spawn(move || {
            // Relaxed: the unpark itself must publish it.
            w2.ready.store(true, Ordering::Relaxed);
            w2.queue_if(w2.state.unpark(ID));
        });
        while !w.ready.load(Ordering::Relaxed) {
            w.park();
        }
        unparker.join().unwrap();
        w.end();
    });
}

#[test]
fn two_unparks_queue_a_task_once() {
    check(3, || {
        let w = World::new();
        let unparkers = [(); 2].map(|()| {
            let w = w.clone();
            thread::spawn(move || w.queue_if(w.state.unpark(ID)))
        });
        w.park();
        unparkers.into_iter().for_each(|u| u.join().unwrap());
        w.end();
    });
}

#[test]
fn a_cancelled_task_notices_however_it_parks() {
    check(3, || {
        let w = World::new();
        let (w2, w3) = (w.clone(), w.clone());
        let others = [
            thread::spawn(move || w2.queue_if(w2.state.cancel(ID, false).1)),
            thread::spawn(move || w3.queue_if(w3.state.unpark(ID))),
        ];
        // `suspend::wait` in a loop: a checkpoint before every park.
        while !w.state.snapshot().cancel_requested() {
            w.park();
        }
        others.into_iter().for_each(|o| o.join().unwrap());
        w.end();
    });
}

/// `coro::park`: the user's token is neither lost to a runtime wake-up nor taken twice.
#[test]
fn the_users_token_is_taken_once() {
    check(3, || {
        let w = World::new();
        let (w2, w3) = (w.clone(), w.clone());
        let others = [
            thread::spawn(move || w2.queue_if(w2.state.user_unpark(ID))),
            thread::spawn(move || w3.queue_if(w3.state.unpark(ID))),
        ];
        while !w.state.take_user_token() {
            w.park();
        }
        others.into_iter().for_each(|o| o.join().unwrap());
        assert!(!w.state.take_user_token());
        w.end();
    });
}

/// A reference outlives its task: waking the cell's next task through it would be wrong.
#[test]
fn an_unpark_of_an_ended_task_does_not_touch_its_successor() {
    check(None, || {
        let w = World::new();
        let w2 = w.clone();
        let unparker = thread::spawn(move || w2.state.unpark(ID));
        let _ = w.state.finish();
        assert!(w.state.may_empty());
        w.state.free();
        w.state.spawn(2, false);
        let result = unparker.join().unwrap();
        assert_ne!(result, Unpark::Queue);
        assert_eq!(w.state.start(), Start::Run);
        assert_eq!(w.state.park(), Park::Parked, "a token of the former task was left");
    });
}
