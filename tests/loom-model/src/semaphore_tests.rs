//! `sync/semaphore.rs`: no permit is lost or made, whoever is cancelled or times out; the line is kept.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::model::check;
use crate::scheduler::suspend::{cancel, expire, run_as};
use crate::sync::Semaphore;
use crate::task::Task;

/// Never passes of itself: `expire` ends it.
const LIMIT: Duration = Duration::from_secs(1);

#[test]
fn no_more_hold_permits_than_there_are() {
    check(2, || {
        let s = Arc::new(Semaphore::new(1));
        let inside = Arc::new(AtomicUsize::new(0));
        let work = |s: &Semaphore, inside: &AtomicUsize| {
            let permit = s.acquire();
            assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
            inside.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        };
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (s, inside) = (s.clone(), inside.clone());
                thread::spawn(move || work(&s, &inside))
            })
            .collect();
        work(&s, &inside);
        others.into_iter().for_each(|o| o.join().unwrap());
        assert_eq!(s.available_permits(), 1);
    });
}

#[test]
fn a_cancelled_waiter_passes_its_permit_on() {
    check(2, || {
        let s = Arc::new(Semaphore::new(1));
        let held = s.acquire();
        let task = Task::new();
        let (s2, t2) = (s.clone(), task.clone());
        let cancelled = thread::spawn(move || run_as(t2, || drop(s2.acquire())));
        let s3 = s.clone();
        let next = thread::spawn(move || drop(s3.acquire()));
        cancel(&task);
        drop(held);
        next.join().unwrap();
        let _ = cancelled.join().unwrap();
        assert_eq!(s.available_permits(), 1);
    });
}

#[test]
fn a_large_request_that_leaves_lets_those_behind_it_through() {
    check(2, || {
        let s = Arc::new(Semaphore::new(1));
        let task = Task::new();
        let (s2, t2) = (s.clone(), task.clone());
        // Two are never there, so it ends by its cancellation only.
        let large = thread::spawn(move || run_as(t2, || drop(s2.acquire_many(2))).is_none());
        let s3 = s.clone();
        let small = thread::spawn(move || drop(s3.acquire()));
        cancel(&task);
        small.join().unwrap();
        assert!(large.join().unwrap());
        assert_eq!(s.available_permits(), 1);
    });
}

#[test]
fn a_permit_that_comes_at_the_deadline_is_had_or_passed_on() {
    check(3, || {
        let s = Arc::new(Semaphore::new(1));
        let held = s.acquire();
        let task = Task::new();
        let (s2, t2) = (s.clone(), task.clone());
        let timed = thread::spawn(move || run_as(t2, || s2.acquire_timeout(LIMIT).is_some()));
        let expires = thread::spawn(move || expire(&task));
        drop(held);
        expires.join().unwrap();
        timed.join().unwrap().expect("nobody cancels");
        assert_eq!(s.available_permits(), 1);
        assert!(s.try_acquire().is_some(), "somebody is still in line");
    });
}
