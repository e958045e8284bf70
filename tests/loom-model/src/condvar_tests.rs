//! `sync/{condvar,raw_condvar}.rs`: a notification given to a waiter that is just being cancelled, or whose time is just
//! up, goes to the next one (hazard 18). One that is lost is a deadlock, which loom reports.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use crate::model::check;
use crate::scheduler::suspend::{cancel, expire, run_as};
use crate::sync::{Condvar, Mutex};
use crate::task::Task;

/// Tokens, each put in with one notification.
struct Tokens {
    left: Mutex<u32>,
    arrived: Condvar,
}

impl Tokens {
    fn new() -> Arc<Tokens> {
        Arc::new(Tokens { left: Mutex::new(0), arrived: Condvar::new() })
    }

    fn put(&self) {
        *self.left.lock().unwrap() += 1;
        self.arrived.notify_one();
    }

    fn take(&self) {
        let mut left = self.arrived.wait_while(self.left.lock().unwrap(), |left| *left == 0).unwrap();
        *left -= 1;
    }

    /// Whether there was one; after a wait that was notified or timed out, no other one is begun.
    fn take_in_time(&self) -> bool {
        let mut left = self.left.lock().unwrap();
        if *left == 0 {
            let (guard, result) = self.arrived.wait_timeout(left, Duration::from_secs(3600)).unwrap();
            if result.timed_out() {
                return false;
            }
            left = guard;
        }
        // Somebody who did not wait may have been faster.
        let got = *left > 0;
        *left -= u32::from(got);
        got
    }
}

/// `first` may be given up by `give_up`, before or after the first token comes; the other taker must get one all the same.
fn a_second_taker(first: fn(&Tokens) -> bool, give_up: fn(&Task), before: bool) {
    check(2, move || {
        let tokens = Tokens::new();
        let task = Task::new();
        let (t2, theirs) = (task.clone(), tokens.clone());
        let first = thread::spawn(move || run_as(t2, || first(&theirs)).unwrap_or(false));
        let theirs = tokens.clone();
        let second = thread::spawn(move || theirs.take());
        if before {
            give_up(&task);
        }
        tokens.put();
        if !before {
            give_up(&task);
        }
        if first.join().unwrap() {
            tokens.put();
        }
        second.join().unwrap();
        assert!(!tokens.left.is_poisoned(), "a wait that was left poisoned the mutex");
        assert_eq!(*tokens.left.try_lock().expect("the mutex is free"), 0);
    });
}

#[test]
fn a_notification_of_a_cancelled_waiter_goes_to_the_next() {
    a_second_taker(
        |tokens| {
            tokens.take();
            true
        },
        cancel,
        false,
    );
}

#[test]
fn a_cancelled_waiter_that_leaves_keeps_nobody_from_being_heard() {
    a_second_taker(
        |tokens| {
            tokens.take();
            true
        },
        cancel,
        true,
    );
}

#[test]
fn a_notification_of_a_waiter_whose_time_is_up_goes_to_the_next() {
    a_second_taker(Tokens::take_in_time, expire, false);
}

#[test]
fn a_notification_of_all_reaches_all() {
    check(2, || {
        let tokens = Tokens::new();
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let theirs = tokens.clone();
                thread::spawn(move || theirs.take())
            })
            .collect();
        *tokens.left.lock().unwrap() += 2;
        tokens.arrived.notify_all();
        takers.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(*tokens.left.try_lock().expect("the mutex is free"), 0);
    });
}
