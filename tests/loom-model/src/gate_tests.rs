//! `sync/gate.rs` and what stands on it (`event.rs`, `wait_group.rs`, `barrier.rs`, `once.rs`): nobody waits for what
//! has come true, and nobody who leaves early is counted. What is lost is a deadlock, which loom reports.

use std::sync::Arc;
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::model::check;
use crate::scheduler::suspend::{cancel, expire, run_as};
use crate::sync::{Barrier, Event, Once, WaitGroup};
use crate::task::Task;

/// Never passes of itself: `expire` ends it.
const LIMIT: Duration = Duration::from_secs(1);

/// Written before, read after; loom checks that the one happens before the other.
struct Slot(UnsafeCell<u32>);

// SAFETY: loom checks.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

impl Slot {
    fn new() -> Slot {
        Slot(UnsafeCell::new(0))
    }

    fn write(&self) {
        // SAFETY: loom checks.
        self.0.with_mut(|n| unsafe { *n += 1 });
    }

    fn read(&self) -> u32 {
        // SAFETY: loom checks.
        self.0.with(|n| unsafe { *n })
    }
}

#[test]
fn an_event_lets_everybody_through_and_shows_what_was_before() {
    check(2, || {
        let e = Arc::new((Event::new(), Slot::new()));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let e = e.clone();
                thread::spawn(move || {
                    e.0.wait();
                    assert_eq!(e.1.read(), 1);
                })
            })
            .collect();
        e.1.write();
        e.0.set();
        waiters.into_iter().for_each(|w| w.join().unwrap());
    });
}

#[test]
fn an_event_that_is_cleared_at_once_has_let_its_waiters_through() {
    check(3, || {
        let e = Arc::new(Event::new());
        let e2 = e.clone();
        let waiter = thread::spawn(move || e2.wait());
        e.set();
        e.clear();
        // It waited then, or comes to a cleared event now.
        e.set();
        waiter.join().unwrap();
        assert!(e.is_set());
    });
}

#[test]
fn an_event_at_the_deadline_of_one_and_the_cancellation_of_another() {
    check(2, || {
        let e = Arc::new(Event::new());
        let (timed, other) = (Task::new(), Task::new());
        let (e1, t1) = (e.clone(), timed.clone());
        let first = thread::spawn(move || run_as(t1, || e1.wait_timeout(LIMIT)));
        let (e2, t2) = (e.clone(), other.clone());
        let second = thread::spawn(move || run_as(t2, || e2.wait()));
        expire(&timed);
        cancel(&other);
        e.set();
        first.join().unwrap().expect("nobody cancels it");
        let _ = second.join().unwrap();
        // Nothing of theirs is left in the line.
        e.clear();
        e.set();
    });
}

#[test]
fn a_wait_group_is_waited_for_until_its_last_member_leaves() {
    check(2, || {
        let g = Arc::new((WaitGroup::new(), Slot::new()));
        g.0.add(2);
        let (g1, g2) = (g.clone(), g.clone());
        let a = thread::spawn(move || {
            g1.1.write();
            g1.0.done();
            // Whoever waited is let through all the same, and a new member does not hold it.
            g1.0.add(1);
            g1.0.done();
        });
        let b = thread::spawn(move || g2.0.done());
        g.0.wait();
        assert_eq!(g.1.read(), 1);
        a.join().unwrap();
        b.join().unwrap();
        assert_eq!(g.0.count(), 0);
    });
}

#[test]
fn a_barrier_counts_nobody_who_left() {
    check(2, || {
        let b = Arc::new(Barrier::new(2));
        let (leaves, timed) = (Task::new(), Task::new());
        let (b1, t1) = (b.clone(), leaves.clone());
        let first = thread::spawn(move || run_as(t1, || b1.wait().is_leader()));
        let (b2, t2) = (b.clone(), timed.clone());
        let second = thread::spawn(move || run_as(t2, || b2.wait_timeout(LIMIT)).expect("nobody cancels it"));
        cancel(&leaves);
        let first = first.join().unwrap();
        expire(&timed);
        let second = second.join().unwrap();
        match (first, second.map(|r| r.is_leader())) {
            (Some(one), Some(other)) => assert_ne!(one, other),
            // Let through by somebody who then met its interrupt; or both left.
            (None, _) => {}
            (Some(_), None) => unreachable!("let through alone"),
        }
        // As new: two are needed, and two are enough.
        let b3 = b.clone();
        let third = thread::spawn(move || b3.wait().is_leader());
        assert_ne!(b.wait().is_leader(), third.join().unwrap());
    });
}

#[test]
fn two_rounds_of_a_barrier() {
    check(2, || {
        let b = Arc::new((Barrier::new(2), Slot::new()));
        let b2 = b.clone();
        let other = thread::spawn(move || {
            let first = b2.0.wait().is_leader();
            if first {
                b2.1.write();
            }
            let second = b2.0.wait().is_leader();
            assert_eq!(b2.1.read(), 1);
            (first, second)
        });
        let first = b.0.wait().is_leader();
        if first {
            b.1.write();
        }
        let second = b.0.wait().is_leader();
        assert_eq!(b.1.read(), 1);
        let theirs = other.join().unwrap();
        assert_ne!(first, theirs.0);
        assert_ne!(second, theirs.1);
    });
}

#[test]
fn a_once_runs_once_and_all_see_what_it_did() {
    check(2, || {
        let o = Arc::new((Once::new(), Slot::new()));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let o = o.clone();
                thread::spawn(move || {
                    o.0.call_once(|| o.1.write());
                    assert_eq!(o.1.read(), 1);
                })
            })
            .collect();
        o.0.wait();
        assert_eq!(o.1.read(), 1);
        others.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn a_cancelled_initialiser_leaves_the_work_to_the_next() {
    check(2, || {
        let o = Arc::new((Once::new(), Slot::new(), Event::new()));
        let task = Task::new();
        let (o1, t1) = (o.clone(), task.clone());
        let first = thread::spawn(move || {
            run_as(t1, || {
                o1.0.call_once(|| {
                    // A wait that ends by the cancellation alone.
                    o1.2.wait();
                    unreachable!("nobody sets the event");
                })
            })
        });
        cancel(&task);
        o.0.call_once(|| o.1.write());
        assert_eq!(o.1.read(), 1);
        // It came late and had nothing to do, or was cancelled.
        let _ = first.join().unwrap();
        assert!(o.0.is_completed());
    });
}
