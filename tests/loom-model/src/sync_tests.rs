//! `sync/{waiters,mutex}.rs` and the senders of channels: a lock or a message given to a waiter that is just being
//! cancelled goes to the next one (hazard 18). What is lost is a deadlock, which loom reports, or a wrong sum.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::model::{check, in_the_long_form};
use crate::scheduler::suspend::{cancel, expire, run_as};
use crate::sync::{Mutex, mpsc};
use crate::task::Task;

/// What a lock protects; loom checks that accesses exclude each other.
struct Counter(UnsafeCell<u32>);

// SAFETY: loom checks.
unsafe impl Send for Counter {}

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

fn mutex() -> Arc<Mutex<Counter>> {
    Arc::new(Mutex::new(Counter(UnsafeCell::new(0))))
}

#[test]
fn lockers_exclude_each_other_and_all_get_in() {
    check(2, || {
        let m = mutex();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let m = m.clone();
                thread::spawn(move || m.lock().unwrap().add())
            })
            .collect();
        m.lock().unwrap().add();
        others.into_iter().for_each(|o| o.join().unwrap());
        assert_eq!(m.try_lock().expect("the lock is free").get(), 3);
    });
}

#[test]
fn a_locker_that_comes_twice_does_not_starve_the_other() {
    check(3, || {
        let m = mutex();
        let m2 = m.clone();
        let other = thread::spawn(move || m2.lock().unwrap().add());
        for _ in 0..2 {
            m.lock().unwrap().add();
        }
        other.join().unwrap();
        assert_eq!(m.try_lock().expect("the lock is free").get(), 3);
    });
}

/// Whoever was woken may come late: then somebody else is woken as well, and both get in.
#[test]
fn who_is_woken_because_another_one_is_late_does_not_lose_it_its_turn() {
    check(2, || {
        let m = mutex();
        let held = m.lock().unwrap();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let m = m.clone();
                thread::spawn(move || m.lock().unwrap().add())
            })
            .collect();
        let task = Task::new();
        expire(&task);
        let m2 = m.clone();
        drop(held);
        assert!(run_as(task, move || (0..2).for_each(|_| m2.lock().unwrap().add())).is_some());
        others.into_iter().for_each(|o| o.join().unwrap());
        assert_eq!(m.try_lock().expect("the lock is free").get(), 4);
    });
}

#[test]
fn a_cancelled_locker_passes_the_lock_on() {
    check(2, || {
        let m = mutex();
        let held = m.lock().unwrap();
        let task = Task::new();
        let (m2, t2) = (m.clone(), task.clone());
        let cancelled = thread::spawn(move || run_as(t2, || m2.lock().unwrap().add()).is_some());
        let m3 = m.clone();
        let next = thread::spawn(move || m3.lock().unwrap().add());
        cancel(&task);
        drop(held);
        next.join().unwrap();
        let got_it = cancelled.join().unwrap();
        assert_eq!(m.try_lock().expect("the lock is free").get(), 1 + u32::from(got_it));
    });
}

#[test]
fn a_message_sent_before_the_end_of_a_cancelled_receive_is_there() {
    check(3, || {
        let (tx, rx) = mpsc::channel();
        let task = Task::new();
        let t2 = task.clone();
        let receiver = thread::spawn(move || (run_as(t2, || rx.recv().unwrap()), rx));
        let canceller = thread::spawn(move || cancel(&task));
        tx.send(7).unwrap();
        canceller.join().unwrap();
        let (got, rx) = receiver.join().unwrap();
        assert_eq!(got.or_else(|| rx.try_recv().ok()), Some(7), "the message is lost");
    });
}

/// A send that returned was received or can be; one that was cancelled was not sent.
fn senders(bound: usize, preemptions: usize) {
    check(preemptions, move || {
        let (tx, rx) = mpsc::sync_channel(bound);
        for i in 0..bound as u32 {
            tx.send(100 + i).unwrap();
        }
        let task = Task::new();
        let (t2, tx2) = (task.clone(), tx.clone());
        let cancelled = thread::spawn(move || {
            let sent = run_as(t2, || tx2.send(1).is_ok()).is_some();
            drop(tx2);
            sent
        });
        let other = thread::spawn(move || {
            tx.send(2).unwrap();
            drop(tx);
        });
        cancel(&task);
        let mut got: Vec<u32> = Vec::new();
        while let Ok(n) = rx.recv() {
            got.push(n);
        }
        other.join().unwrap();
        let sent = cancelled.join().unwrap();
        assert!(got.contains(&2), "{got:?}");
        assert_eq!(got.contains(&1), sent, "{got:?}");
        assert_eq!(got.len(), bound + 1 + usize::from(sent), "{got:?}");
    });
}

#[test]
fn a_cancelled_sender_of_a_full_channel_passes_its_room_on() {
    senders(1, in_the_long_form(2));
}

#[test]
fn a_cancelled_rendezvous_was_received_or_not_sent() {
    senders(0, in_the_long_form(2));
}
