//! `scheduler/idle.rs`: no wake-up is lost between a worker's last look and its sleep. A lost one is a deadlock, which
//! loom reports.

use std::ptr;

use loom::sync::{Arc, Notify};
use loom::thread;

use crate::model::check;
use crate::shipped::idle::{Idle, Sleepers, Wake};
use crate::shipped::inbox::{Inbox, Linked};
use crate::sys::atomic::{AtomicBool, AtomicPtr, Ordering, fence};

struct Item(AtomicPtr<Item>);

impl Linked for Item {
    fn link(&self) -> &AtomicPtr<Item> {
        &self.0
    }
}

struct Shared {
    idle: Idle,
    sleepers: Sleepers,
    inbox: Inbox<Item>,
    /// Stands for `Fresh`: written relaxed (under a lock of its own), looked at without the lock.
    fresh: AtomicBool,
    /// Stands for the poll with its level-like waker.
    poll: Notify,
}

impl Shared {
    fn new() -> Arc<Shared> {
        let (idle, inbox, fresh) = (Idle::new(), Inbox::new(), AtomicBool::new(false));
        Arc::new(Shared { idle, sleepers: Sleepers::new(), inbox, fresh, poll: Notify::new() })
    }

    /// `Shared::wake`.
    fn wake(&self) -> Wake {
        let w = self.idle.bring();
        if w == Wake::Kick {
            self.poll.notify();
        }
        w
    }

    fn deliver(&self) {
        let item = Box::into_raw(Box::new(Item(AtomicPtr::new(ptr::null_mut()))));
        // SAFETY: leaked until it is taken.
        unsafe { self.inbox.push(item) };
        let _ = self.wake();
    }

    fn spawn(&self) {
        self.fresh.store(true, Ordering::Relaxed);
        let _ = self.wake();
    }

    /// `Worker::run` and `Worker::rest` until that much work was found.
    fn work(&self, mut wanted: usize) {
        while wanted > 0 {
            let mut item = self.inbox.take_all();
            while !item.is_null() {
                // SAFETY: taken items belong to the taker.
                let taken = unsafe { Box::from_raw(item) };
                item = taken.0.load(Ordering::Relaxed);
                wanted -= 1;
            }
            if self.fresh.load(Ordering::Relaxed) && self.fresh.swap(false, Ordering::Acquire) {
                wanted -= 1;
            }
            if wanted == 0 {
                return;
            }
            self.idle.fall_asleep(&self.sleepers);
            if self.inbox.is_empty() && !self.fresh.load(Ordering::SeqCst) {
                self.poll.wait();
            }
            self.idle.wake_up(&self.sleepers);
        }
    }
}

#[test]
fn a_wake_up_through_the_inbox_is_not_lost() {
    check(None, || {
        let s = Shared::new();
        let s2 = s.clone();
        let bringer = thread::spawn(move || {
            s2.deliver();
            s2.deliver();
        });
        s.work(2);
        bringer.join().unwrap();
    });
}

#[test]
fn an_unstarted_task_is_seen_by_the_worker_or_the_worker_is_seen_asleep() {
    check(3, || {
        let s = Shared::new();
        let (s2, s3) = (s.clone(), s.clone());
        let bringers = [thread::spawn(move || s2.spawn()), thread::spawn(move || s3.deliver())];
        s.work(2);
        bringers.into_iter().for_each(|b| b.join().unwrap());
    });
}

/// `Runtime::wake_one_sleeper`: whoever spawns wakes any sleeper, and every sleeper looks at every worker's tasks.
#[test]
fn somebody_takes_a_task_that_a_busy_worker_was_given() {
    check(3, || {
        let sleeper = Shared::new();
        let s2 = sleeper.clone();
        let busy = thread::spawn(move || {
            // `Worker::place` on the busy worker itself, then `wake_one_sleeper`.
            s2.fresh.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if s2.sleepers.any() && s2.idle.looks_asleep() {
                let _ = s2.wake();
            }
        });
        sleeper.work(1);
        busy.join().unwrap();
    });
}

#[test]
fn one_sleep_is_kicked_once() {
    check(None, || {
        let s = Shared::new();
        s.idle.fall_asleep(&s.sleepers);
        let (s2, s3) = (s.clone(), s.clone());
        let kicks = [thread::spawn(move || s2.idle.bring()), thread::spawn(move || s3.idle.bring())]
            .map(|t| t.join().unwrap() == Wake::Kick);
        assert_eq!(kicks.iter().filter(|k| **k).count(), 1);
    });
}
