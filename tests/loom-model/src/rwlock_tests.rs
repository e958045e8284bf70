//! `sync/{raw_rwlock,rwlock}.rs`: readers and writers exclude each other, and access that is handed to a waiter which is just
//! being cancelled goes to the next one (hazard 18). One that is lost is a deadlock, which loom reports.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::model::check;
use crate::scheduler::suspend::{cancel, run_as};
use crate::sync::{RwLock, RwLockWriteGuard};
use crate::task::Task;

/// What a lock protects; loom checks that accesses exclude each other.
struct Counter(UnsafeCell<u32>);

// SAFETY: loom checks.
unsafe impl Send for Counter {}
// SAFETY: loom checks.
unsafe impl Sync for Counter {}

impl Counter {
    fn add(&self) {
        // SAFETY: loom checks.
        self.0.with_mut(|n| unsafe { *n += 1 });
    }

    fn get(&self) -> u32 {
        // SAFETY: loom checks.
        self.0.with(|n| unsafe { *n })
    }
}

fn lock() -> Arc<RwLock<Counter>> {
    Arc::new(RwLock::new(Counter(UnsafeCell::new(0))))
}

#[test]
fn readers_and_writers_exclude_each_other_and_all_get_in() {
    check(2, || {
        let l = lock();
        let l2 = l.clone();
        let writer = thread::spawn(move || l2.write().unwrap().add());
        let l2 = l.clone();
        let reader = thread::spawn(move || l2.read().unwrap().get());
        l.write().unwrap().add();
        writer.join().unwrap();
        assert!(reader.join().unwrap() <= 2);
        assert_eq!(l.try_read().expect("nobody writes").get(), 2);
        assert!(l.try_write().is_ok());
    });
}

/// The first is cancelled while the lock is given up; the one behind it gets in all the same.
fn a_cancelled_waiter_passes_on(first: fn(&RwLock<Counter>), behind: fn(&RwLock<Counter>)) {
    check(2, move || {
        let l = lock();
        let held = l.write().unwrap();
        let task = Task::new();
        let (l2, t2) = (l.clone(), task.clone());
        let first = thread::spawn(move || run_as(t2, || first(&l2)).is_some());
        let l2 = l.clone();
        let behind = thread::spawn(move || behind(&l2));
        cancel(&task);
        drop(held);
        behind.join().unwrap();
        let _ = first.join().unwrap();
        assert!(l.try_write().is_ok(), "the lock is free");
    });
}

#[test]
fn a_cancelled_writer_lets_the_reader_behind_it_in() {
    a_cancelled_waiter_passes_on(|l| l.write().unwrap().add(), |l| assert!(l.read().unwrap().get() <= 1));
}

#[test]
fn a_cancelled_reader_lets_the_writer_behind_it_in() {
    a_cancelled_waiter_passes_on(|l| assert!(l.read().unwrap().get() <= 1), |l| l.write().unwrap().add());
}

#[test]
fn a_cancelled_writer_lets_the_writer_behind_it_in() {
    a_cancelled_waiter_passes_on(|l| l.write().unwrap().add(), |l| l.write().unwrap().add());
}

#[test]
fn a_writer_that_becomes_a_reader_lets_readers_in_and_writers_later() {
    check(2, || {
        let l = lock();
        let held = l.write().unwrap();
        let l2 = l.clone();
        let reader = thread::spawn(move || l2.read().unwrap().get());
        let l2 = l.clone();
        let writer = thread::spawn(move || l2.write().unwrap().add());
        held.add();
        let held = RwLockWriteGuard::downgrade(held);
        assert_eq!(held.get(), 1, "nobody wrote in between");
        drop(held);
        assert!(reader.join().unwrap() >= 1);
        writer.join().unwrap();
        assert_eq!(l.try_read().expect("nobody writes").get(), 2);
    });
}

#[test]
fn the_last_of_two_readers_lets_the_writer_in() {
    check(3, || {
        let l = lock();
        let (first, second) = (l.read().unwrap(), l.read().unwrap());
        let l2 = l.clone();
        let writer = thread::spawn(move || l2.write().unwrap().add());
        let l2 = l.clone();
        let reader = thread::spawn(move || l2.read().unwrap().get());
        drop(first);
        drop(second);
        writer.join().unwrap();
        assert!(reader.join().unwrap() <= 1);
        assert_eq!(l.try_write().expect("the lock is free").get(), 1);
    });
}

#[test]
fn readers_behind_a_cancelled_writer_join_those_who_read() {
    check(3, || {
        let l = lock();
        let reading = l.read().unwrap();
        let task = Task::new();
        let (l2, t2) = (l.clone(), task.clone());
        let writer = thread::spawn(move || run_as(t2, || l2.write().unwrap().add()).is_some());
        let l2 = l.clone();
        let reader = thread::spawn(move || l2.read().unwrap().get());
        cancel(&task);
        // This one reads until the other one has read: the writer between them never gets in.
        assert_eq!(reader.join().unwrap(), 0);
        assert!(!writer.join().unwrap(), "a writer was let in beside a reader");
        drop(reading);
        assert_eq!(l.try_write().expect("the lock is free").get(), 0);
    });
}

#[test]
fn readers_join_a_writer_that_becomes_a_reader() {
    check(3, || {
        let l = lock();
        let writing = l.write().unwrap();
        let l2 = l.clone();
        let reader = thread::spawn(move || l2.read().unwrap().get());
        writing.add();
        let reading = RwLockWriteGuard::downgrade(writing);
        assert_eq!(reader.join().unwrap(), 1);
        drop(reading);
        assert_eq!(l.try_write().expect("the lock is free").get(), 1);
    });
}
