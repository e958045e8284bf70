//! `sync/{ticket,channel,mpsc,mpmc,oneshot}.rs`: a message is received once or comes back to its sender, whatever is
//! cancelled, expires or goes away at that moment (hazard 18). What is lost is a deadlock, which loom reports, a wrong
//! count, or a message that its receiver cannot have seen written.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::model::check;
use crate::scheduler::suspend::{cancel, expire, run_as};
use crate::sync::{mpmc, mpsc, oneshot};
use crate::task::Task;

const LONG: Duration = Duration::from_secs(1000);

/// A message whose reader and whose end must come after its writer, which loom checks; its end is counted.
struct Message {
    word: UnsafeCell<u32>,
    ended: Arc<AtomicUsize>,
}

// SAFETY: loom checks.
unsafe impl Send for Message {}

impl Message {
    fn new(word: u32, ended: &Arc<AtomicUsize>) -> Message {
        let message = Message { word: UnsafeCell::new(0), ended: ended.clone() };
        // SAFETY: loom checks.
        message.word.with_mut(|w| unsafe { *w = word });
        message
    }

    fn word(&self) -> u32 {
        // SAFETY: loom checks.
        self.word.with(|w| unsafe { *w })
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: loom checks.
        self.word.with_mut(|w| unsafe { *w = u32::MAX });
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A model in which `n` messages are made, and each ends once.
fn messages(preemptions: impl Into<Option<usize>>, n: usize, f: impl Fn(&Arc<AtomicUsize>) + Sync + Send + 'static) {
    check(preemptions, move || {
        let ended = Arc::new(AtomicUsize::new(0));
        f(&ended);
        assert_eq!(ended.load(Ordering::Relaxed), n, "messages were lost or ended twice");
    });
}

#[test]
fn of_two_receivers_one_is_cancelled() {
    messages(3, 1, |ended| {
        let (tx, rx) = mpmc::sync_channel::<Message>(1);
        let task = Task::new();
        let (t2, rx2) = (task.clone(), rx.clone());
        let cancelled = thread::spawn(move || run_as(t2, || rx2.recv().map(|m| m.word()).ok()).flatten());
        let other = thread::spawn(move || (rx.recv().map(|m| m.word()).ok(), rx));
        tx.send(Message::new(7, ended)).unwrap();
        cancel(&task);
        drop(tx);
        let (first, (second, rx)) = (cancelled.join().unwrap(), other.join().unwrap());
        assert_eq!(first.xor(second), Some(7), "{first:?} {second:?}");
        assert!(rx.try_recv().is_err());
    });
}

#[test]
fn two_receivers_share_two_messages() {
    messages(3, 2, |ended| {
        let (tx, rx) = mpmc::channel();
        let receive = |rx: mpmc::Receiver<Message>| move || rx.iter().map(|m| m.word()).collect::<Vec<_>>();
        let a = thread::spawn(receive(rx.clone()));
        let b = thread::spawn(receive(rx));
        tx.send(Message::new(1, ended)).unwrap();
        tx.send(Message::new(2, ended)).unwrap();
        drop(tx);
        let mut all = [a.join().unwrap(), b.join().unwrap()].concat();
        all.sort_unstable();
        assert_eq!(all, [1, 2]);
    });
}

#[test]
fn a_message_sent_at_the_end_of_a_timed_receive_is_there() {
    messages(3, 1, |ended| {
        let (tx, rx) = mpsc::channel();
        let task = Task::new();
        let t2 = task.clone();
        let receiver = thread::spawn(move || (run_as(t2, || rx.recv_timeout(LONG)).unwrap(), rx));
        let clock = thread::spawn(move || expire(&task));
        tx.send(Message::new(7, ended)).unwrap();
        clock.join().unwrap();
        let (got, rx) = receiver.join().unwrap();
        match got {
            Ok(m) => assert_eq!(m.word(), 7),
            Err(e) => {
                assert_eq!(e, mpsc::RecvTimeoutError::Timeout);
                assert_eq!(rx.try_recv().map(|m| m.word()), Ok(7), "the message is lost");
            }
        }
        assert!(matches!(rx.try_recv(), Err(mpsc::TryRecvError::Empty)));
    });
}

/// One timed send into a full channel, or one without room, against one receive.
fn timed_send(bound: usize, preemptions: usize) {
    messages(preemptions, bound + 1, move |ended| {
        let (tx, rx) = mpmc::sync_channel(bound);
        for _ in 0..bound {
            tx.send(Message::new(1, ended)).unwrap();
        }
        let task = Task::new();
        let (t2, m) = (task.clone(), Message::new(2, ended));
        let sender = thread::spawn(move || match run_as(t2, || tx.send_timeout(m, LONG)).unwrap() {
            Ok(()) => true,
            Err(mpmc::SendTimeoutError::Timeout(m)) => {
                assert_eq!(m.word(), 2);
                false
            }
            Err(mpmc::SendTimeoutError::Disconnected(_)) => unreachable!("the receiver is there"),
        });
        let clock = thread::spawn(move || expire(&task));
        let got: Vec<u32> = rx.iter().map(|m| m.word()).collect();
        clock.join().unwrap();
        let sent = sender.join().unwrap();
        assert_eq!(got, [1, 2][1 - bound..1 + usize::from(sent)], "the send returned {sent}");
    });
}

#[test]
fn a_timed_rendezvous_was_received_or_not_sent() {
    timed_send(0, 3);
}

#[test]
fn a_timed_sender_of_a_full_channel_has_its_place_or_its_message() {
    timed_send(1, 3);
}

/// A receive that ends early by `end`, and then takes the receiver away, against one send from hand to hand.
fn rendezvous(preemptions: usize, end: fn(&Task), send: fn(&mpsc::SyncSender<Message>, Message) -> bool) {
    messages(preemptions, 1, move |ended| {
        let (tx, rx) = mpsc::sync_channel::<Message>(0);
        let task = Task::new();
        let t2 = task.clone();
        let receiver = thread::spawn(move || {
            let got = run_as(t2, || rx.recv_timeout(LONG));
            drop(rx);
            matches!(got, Some(Ok(m)) if m.word() == 7)
        });
        let ender = thread::spawn(move || end(&task));
        let sent = send(&tx, Message::new(7, ended));
        ender.join().unwrap();
        // A receiver that got nothing and was not stopped either would wait for ever.
        drop(tx);
        let received = receiver.join().unwrap();
        assert_eq!(sent, received, "the send returned {sent}");
    });
}

fn send(tx: &mpsc::SyncSender<Message>, m: Message) -> bool {
    tx.send(m).is_ok()
}

fn try_send(tx: &mpsc::SyncSender<Message>, m: Message) -> bool {
    tx.try_send(m).is_ok()
}

#[test]
fn a_rendezvous_with_a_receiver_whose_time_is_over() {
    rendezvous(3, expire, send);
}

#[test]
fn a_rendezvous_with_a_receiver_that_is_cancelled() {
    rendezvous(3, cancel, send);
}

#[test]
fn an_accepted_try_send_was_received_though_the_receiver_is_cancelled() {
    rendezvous(3, cancel, try_send);
}

#[test]
fn an_accepted_try_send_was_received_though_the_time_is_over() {
    rendezvous(3, expire, try_send);
}

#[test]
fn the_last_sender_and_the_last_receiver_go_while_others_wait() {
    messages(3, 2, |ended| {
        let (tx, rx) = mpmc::sync_channel::<Message>(1);
        let (tx2, m) = (tx.clone(), Message::new(2, ended));
        tx.send(Message::new(1, ended)).unwrap();
        let sender = thread::spawn(move || tx2.send(m).is_ok());
        let rx2 = rx.clone();
        let receiver = thread::spawn(move || {
            let got = rx2.recv().map(|m| m.word());
            drop(rx2);
            got
        });
        drop(tx);
        drop(rx);
        assert_eq!(receiver.join().unwrap(), Ok(1));
        // Accepted or returned, but it ends.
        sender.join().unwrap();
    });
}

/// A oneshot whose receive may be ended by `end`: the message is received, comes back, or ends with the receiver.
fn oneshot_against(preemptions: usize, end: fn(&Task)) {
    messages(preemptions, 1, move |ended| {
        let (tx, rx) = oneshot::channel::<Message>();
        let task = Task::new();
        let t2 = task.clone();
        let receiver = thread::spawn(move || match run_as(t2, || rx.recv_timeout(LONG)) {
            Some(Ok(m)) => Some(m.word()),
            Some(Err(oneshot::RecvTimeoutError::Timeout(rx))) => rx.recv().ok().map(|m| m.word()),
            Some(Err(oneshot::RecvTimeoutError::Disconnected)) => unreachable!("it is sent"),
            None => None,
        });
        let ender = thread::spawn(move || end(&task));
        let sent = tx.send(Message::new(7, ended));
        ender.join().unwrap();
        let got = receiver.join().unwrap();
        assert!(got.is_none_or(|w| w == 7));
        // A cancelled receiver may go with the message in its hands, but nobody gets one that came back.
        assert!(got.is_none() || sent.is_ok());
    });
}

#[test]
fn a_oneshot_received_again_after_its_time_has_its_message() {
    oneshot_against(3, expire);
}

#[test]
fn a_oneshot_whose_receiver_is_cancelled() {
    oneshot_against(3, cancel);
}

#[test]
fn a_oneshot_whose_receiver_goes() {
    messages(None, 1, |ended| {
        let (tx, rx) = oneshot::channel::<Message>();
        let receiver = thread::spawn(move || match rx.try_recv() {
            Ok(m) => Some(m.word()),
            Err(oneshot::TryRecvError::Empty(rx)) => {
                drop(rx);
                None
            }
            Err(oneshot::TryRecvError::Disconnected) => unreachable!("it is sent"),
        });
        let sent = tx.send(Message::new(7, ended)).is_ok();
        let got = receiver.join().unwrap();
        assert!(got.is_none() || sent);
    });
}

#[test]
fn a_oneshot_whose_sender_goes() {
    check(None, || {
        let (tx, rx) = oneshot::channel::<u32>();
        let receiver = thread::spawn(move || rx.recv());
        drop(tx);
        assert!(receiver.join().unwrap().is_err());
    });
}
