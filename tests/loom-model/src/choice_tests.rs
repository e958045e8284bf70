//! `sync/choice.rs`: of several lines in which a waiter stands one serves it, and what the others had stays there.
//! `sync/oneshot.rs` as an arm: the message is there once, whether the choice took it or left it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use loom::thread;

use crate::model::check;
use crate::observe::{WaitKind, WaitReason};
use crate::scheduler::handover::{Waited, wait_revocably};
use crate::scheduler::suspend::{self, cancel, run_as};
use crate::sync::choice::{Choice, Receives, Receiving, Sending, Sends};
use crate::sync::{mpmc, oneshot};
use crate::task::Task;

/// `select::wait` over one receiver and one sender or two receivers; `None`: cancelled.
enum Arm<'a> {
    Recv(Receiving<'a, u32>),
    Send(Sending<'a, u32>),
}

impl Arm<'_> {
    fn attempt(&mut self) -> Option<u32> {
        match self {
            Arm::Recv(place) => place.attempt().map(|m| m.unwrap_or(0)),
            Arm::Send(place) => place.attempt().map(|r| r.map_or(0, |()| 1)),
        }
    }

    fn enlist(&mut self, choice: &Choice) -> bool {
        // SAFETY: `wait` has each arm leave before it returns, and moves none.
        unsafe {
            match self {
                Arm::Recv(place) => place.enlist(choice),
                Arm::Send(place) => place.enlist(choice),
            }
        }
    }

    fn leave(&mut self) -> Option<u32> {
        match self {
            Arm::Recv(place) => place.leave().map(|m| m.unwrap_or(0)),
            Arm::Send(place) => place.leave().map(|r| r.map_or(0, |()| 1)),
        }
    }
}

/// Which arm, and what it gave.
fn wait(arms: &mut [Arm<'_>]) -> (usize, u32) {
    loop {
        suspend::checkpoint();
        if let Some(done) = arms.iter_mut().enumerate().find_map(|(i, arm)| Some((i, arm.attempt()?))) {
            return done;
        }
        let choice = Choice::new();
        let entered = arms.iter_mut().position(|arm| !arm.enlist(&choice));
        if entered.is_none() {
            let waited = wait_revocably(WaitReason::of(WaitKind::None), None, || choice.is_over());
            assert!(matches!(waited, Waited::Done | Waited::Interrupted));
        }
        let last = entered.map_or(arms.len(), |i| i + 1);
        let served: Vec<_> = (0..last).rev().filter_map(|i| Some((i, arms[i].leave()?))).collect();
        assert!(served.len() <= 1, "two lines served one choice");
        if let Some(served) = served.first() {
            return *served;
        }
    }
}

#[test]
fn a_choice_of_two_receives_one_message() {
    check(3, || {
        let ((a, from_a), (b, from_b)) = (mpmc::channel::<u32>(), mpmc::sync_channel::<u32>(0));
        let sends = thread::spawn(move || {
            a.send(1).unwrap();
            a
        });
        let task = Task::new();
        let t2 = task.clone();
        let other = thread::spawn(move || run_as(t2, || b.send(2).is_ok()));
        let first = {
            let mut arms = [Arm::Recv(from_a.end().place()), Arm::Recv(from_b.end().place())];
            wait(&mut arms)
        };
        let _a = sends.join().unwrap();
        // What the choice did not take is where it was.
        match first {
            (0, 1) => {
                cancel(&task);
                match (other.join().unwrap(), from_b.try_recv()) {
                    (None, Err(_)) => {}
                    wrong => panic!("{wrong:?}"),
                }
            }
            (1, 2) => {
                assert_eq!(other.join().unwrap(), Some(true));
                assert_eq!(from_a.try_recv(), Ok(1));
            }
            wrong => panic!("{wrong:?}"),
        }
    });
}

#[test]
fn a_choice_that_is_cancelled_has_its_message_or_leaves_it() {
    check(3, || {
        let ((a, from_a), (_b, from_b)) = (mpmc::channel::<u32>(), mpmc::channel::<u32>());
        let (task, got) = (Task::new(), Arc::new(AtomicUsize::new(0)));
        let (t2, mine, receiver) = (task.clone(), got.clone(), from_a.clone());
        let waits = thread::spawn(move || {
            run_as(t2, || {
                let mut arms = [Arm::Recv(from_b.end().place()), Arm::Recv(receiver.end().place())];
                assert_eq!(wait(&mut arms), (1, 7));
                mine.fetch_add(1, Ordering::Relaxed);
            });
        });
        let ends = thread::spawn(move || cancel(&task));
        a.send(7).unwrap();
        ends.join().unwrap();
        waits.join().unwrap();
        let left = usize::from(from_a.try_recv().is_ok());
        assert_eq!(got.load(Ordering::Relaxed) + left, 1, "the message is lost");
    });
}

#[test]
fn two_choices_that_could_serve_each_other_do_it_once() {
    check(2, || {
        let ((a, from_a), (b, from_b)) = (mpmc::sync_channel::<u32>(0), mpmc::sync_channel::<u32>(0));
        let (b2, from_a2) = (b.clone(), from_a.clone());
        let other = thread::spawn(move || {
            let mut arms = [Arm::Recv(from_a2.end().place()), Arm::Send(b2.end().place(2))];
            wait(&mut arms)
        });
        let mine = {
            let mut arms = [Arm::Recv(from_b.end().place()), Arm::Send(a.end().place(1))];
            wait(&mut arms)
        };
        let theirs = other.join().unwrap();
        assert!(matches!((mine, theirs), ((0, 2), (1, 1)) | ((1, 1), (0, 1))), "{mine:?} {theirs:?}");
        assert!(from_a.try_recv().is_err() && from_b.try_recv().is_err());
    });
}

/// As an arm of `select`: announced, looked at, withdrawn.
#[test]
fn a_oneshot_that_is_left_keeps_its_message() {
    check(3, || {
        let (sender, mut receiver) = oneshot::channel::<u32>();
        let sends = thread::spawn(move || sender.send(5));
        let first = match receiver.attempt() {
            Some(message) => Some(message),
            None => {
                // Something else ends the wait at whatever moment.
                if receiver.announce(suspend::current_unparker()) {
                    thread::yield_now();
                }
                receiver.withdraw();
                None
            }
        };
        let got = match first {
            Some(message) => message,
            None => loop {
                if let Some(message) = receiver.attempt() {
                    break message;
                }
                if receiver.announce(suspend::current_unparker()) {
                    let waited = wait_revocably(receiver.reason(), None, || receiver.is_due());
                    assert_eq!(waited, Waited::Done);
                }
                receiver.withdraw();
            },
        };
        assert_eq!(got.ok(), Some(5));
        assert!(sends.join().unwrap().is_ok());
        assert!(receiver.attempt().is_some_and(|again| again.is_err()), "it was given twice");
    });
}
