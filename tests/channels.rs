//! Channels: every message is received once or comes back, whoever is cancelled, times out or goes away; between tasks
//! of one worker, tasks of four, plain threads, and all of them together.

mod harness;
mod util;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coro::sync::mpmc::{self, SendTimeoutError};
use coro::sync::mpsc::{self, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use coro::sync::oneshot;
use harness::{PATIENCE, Rng, runtime, seed, task_until, until_parked};
use util::within;

const LONG: Duration = Duration::from_secs(1000);
const LIMIT: Duration = Duration::from_secs(60);

/// Where the parties of a test run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    OneWorker,
    FourWorkers,
    Threads,
    /// Every other one is a plain thread.
    Mixed,
}

const PLACES: [Place; 4] = [Place::OneWorker, Place::FourWorkers, Place::Threads, Place::Mixed];

/// Starts parties in a place.
struct Stage {
    place: Place,
    runtime: coro::Runtime,
    begun: AtomicUsize,
}

enum Party<T> {
    Task(coro::JoinHandle<T>),
    Thread(std::thread::JoinHandle<T>),
}

impl Stage {
    fn new(place: Place) -> Stage {
        let workers = if place == Place::OneWorker { 1 } else { 4 };
        Stage { place, runtime: runtime(workers), begun: AtomicUsize::new(0) }
    }

    fn start<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Party<T> {
        let n = self.begun.fetch_add(1, Ordering::Relaxed);
        match self.place {
            Place::Threads => Party::Thread(std::thread::spawn(f)),
            Place::Mixed if n % 2 == 1 => Party::Thread(std::thread::spawn(f)),
            _ => Party::Task(self.runtime.spawn(f)),
        }
    }
}

impl<T> Party<T> {
    fn task(&self) -> Option<coro::Task> {
        match self {
            Party::Task(t) => Some(t.task()),
            Party::Thread(_) => None,
        }
    }

    /// `None`: it was cancelled.
    fn end(self) -> Option<T> {
        match self {
            Party::Thread(t) => Some(t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))),
            Party::Task(t) => match t.join() {
                Ok(value) => Some(value),
                Err(payload) if coro::is_cancel(&*payload) => None,
                Err(payload) => std::panic::resume_unwind(payload),
            },
        }
    }
}

/// A test in every place, each under a limit.
fn everywhere(f: fn(&Stage)) {
    for place in PLACES {
        within(LIMIT, move || {
            eprintln!("{place:?}");
            f(&Stage::new(place));
        });
    }
}

/// In a task of one worker.
fn in_task(f: impl FnOnce() + Send + 'static) {
    within(LIMIT, move || runtime(1).block_on(f));
}

/// A message that says when it is gone.
#[derive(Debug)]
struct Message {
    sender: usize,
    number: usize,
    alive: Arc<AtomicI64>,
}

impl Message {
    fn new(sender: usize, number: usize, alive: &Arc<AtomicI64>) -> Message {
        alive.fetch_add(1, Ordering::Relaxed);
        Message { sender, number, alive: alive.clone() }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Senders and numbers of messages, as they were sent or received.
type Log = Arc<Mutex<Vec<(usize, usize)>>>;

/// Senders and receivers that use every way to send and receive, and are cancelled at random: what was received is what
/// the senders were told is sent, once each, and in each sender's order.
///
/// Returns how many parties ended by their cancellation.
fn traffic(stage: &Stage, capacity: Option<usize>, rng: &mut Rng) -> usize {
    const SENDERS: usize = 4;
    const RECEIVERS: usize = 3;
    const EACH: usize = 300;
    let (tx, rx) = match capacity {
        None => mpmc::channel_named("traffic"),
        Some(n) => mpmc::sync_channel_named("traffic", n),
    };
    let alive = Arc::new(AtomicI64::new(0));
    let sent: Log = Arc::default();
    let pause = |rng: &mut Rng| Duration::from_micros(rng.below(300));
    let senders: Vec<_> = (0..SENDERS)
        .map(|me| {
            let (tx, sent, alive, mut rng) = (tx.clone(), sent.clone(), alive.clone(), Rng(rng.next()));
            stage.start(move || {
                for number in 0..EACH {
                    let m = Message::new(me, number, &alive);
                    let accepted = match rng.below(4) {
                        0 => tx.try_send(m).is_ok(),
                        1 => tx.send_timeout(m, pause(&mut rng)).is_ok(),
                        _ => tx.send(m).is_ok(),
                    };
                    if accepted {
                        sent.lock().unwrap().push((me, number));
                    }
                }
            })
        })
        .collect();
    drop(tx);
    let logs: Vec<Log> = (0..=RECEIVERS).map(|_| Arc::default()).collect();
    let receivers: Vec<_> = logs[..RECEIVERS]
        .iter()
        .map(|log| {
            let (rx, log, mut rng) = (rx.clone(), log.clone(), Rng(rng.next()));
            stage.start(move || {
                loop {
                    let got = match rng.below(3) {
                        0 => rx.recv().map_err(|_| true),
                        1 => rx.recv_timeout(pause(&mut rng)).map_err(|e| e == RecvTimeoutError::Disconnected),
                        _ => rx.try_recv().map_err(|e| e == TryRecvError::Disconnected),
                    };
                    match got {
                        Ok(m) => log.lock().unwrap().push((m.sender, m.number)),
                        Err(true) => return,
                        Err(false) => {}
                    }
                }
            })
        })
        .collect();
    // Whatever becomes of the others, this one receives to the end.
    let last = logs[RECEIVERS].clone();
    let drain = stage.start(move || rx.iter().for_each(|m| last.lock().unwrap().push((m.sender, m.number))));
    let tasks: Vec<_> = senders.iter().chain(&receivers).filter_map(Party::task).collect();
    for _ in 0..if tasks.is_empty() { 0 } else { 5 } {
        std::thread::sleep(Duration::from_micros(rng.below(400)));
        tasks[rng.below(tasks.len() as u64) as usize].cancel();
    }
    let cancelled = senders.into_iter().chain(receivers).map(Party::end).filter(Option::is_none).count();
    assert!(drain.end().is_some());
    let received: Vec<_> = logs.iter().flat_map(|l| l.lock().unwrap().clone()).collect();
    let sent = sent.lock().unwrap();
    let (once, told): (HashSet<_>, HashSet<_>) = (received.iter().copied().collect(), sent.iter().copied().collect());
    assert_eq!(once.len(), received.len(), "a message was received twice");
    let (lost, denied): (Vec<_>, Vec<_>) = (told.difference(&once).collect(), once.difference(&told).collect());
    assert!(lost.is_empty() && denied.is_empty(), "lost: {lost:?}; received though not sent: {denied:?}");
    for log in &logs {
        for s in 0..SENDERS {
            let numbers: Vec<_> = log.lock().unwrap().iter().filter(|m| m.0 == s).map(|m| m.1).collect();
            assert!(numbers.is_sorted(), "sender {s}: {numbers:?}");
        }
    }
    assert_eq!(alive.load(Ordering::Relaxed), 0, "messages were leaked or dropped twice");
    cancelled
}

#[test]
fn random_traffic_under_cancellation_loses_and_doubles_nothing() {
    everywhere(|stage| {
        let seed = seed();
        eprintln!("CORO_TEST_SEED={seed}");
        let mut rng = Rng(seed);
        let mut cancelled = 0;
        for round in 0..20 {
            for capacity in [None, Some(0), Some(1), Some(3)] {
                eprintln!("round {round}, capacity {capacity:?}");
                cancelled += traffic(stage, capacity, &mut rng);
            }
        }
        eprintln!("{cancelled} cancelled");
        assert_eq!(cancelled > 0, stage.place != Place::Threads, "the cancellations come too late to say anything");
    });
}

#[test]
fn a_timeout_is_not_early_and_not_late() {
    everywhere(|stage| {
        let check = || {
            let (tx, rx) = mpmc::sync_channel::<u8>(0);
            let (_reply, mut answer) = oneshot::channel::<u8>();
            let mut best = Duration::MAX;
            for ms in [1, 5, 10, 10, 20, 5] {
                let limit = Duration::from_millis(ms);
                let mut late = |f: &mut dyn FnMut()| {
                    let begun = Instant::now();
                    f();
                    let took = begun.elapsed();
                    assert!(took >= limit, "early: {took:?} instead of {limit:?}");
                    best = best.min(took - limit);
                };
                late(&mut || assert_eq!(rx.recv_timeout(limit), Err(RecvTimeoutError::Timeout)));
                late(&mut || assert_eq!(tx.send_timeout(1, limit), Err(SendTimeoutError::Timeout(1))));
                late(&mut || {
                    let (_other, never) = oneshot::channel();
                    answer = match std::mem::replace(&mut answer, never).recv_timeout(limit) {
                        Err(oneshot::RecvTimeoutError::Timeout(again)) => again,
                        other => panic!("{other:?}"),
                    };
                });
            }
            // Of so many one at least is not disturbed by what else the machine does.
            assert!(best < Duration::from_millis(3), "at best {best:?} late");
            // A time that is over: what is there is received all the same.
            assert_eq!(rx.recv_deadline(Instant::now()), Err(RecvTimeoutError::Timeout));
            let (tx, rx) = mpsc::channel();
            tx.send(1).unwrap();
            assert_eq!(rx.recv_timeout(Duration::ZERO), Ok(1));
            tx.send(2).unwrap();
            assert_eq!(rx.recv_timeout(Duration::MAX), Ok(2));
            drop(tx);
            assert_eq!(rx.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
        };
        let parties = [stage.start(check), stage.start(check)];
        parties.into_iter().for_each(|p| p.end().expect("nobody cancels it"));
    });
}

#[test]
fn what_arrives_in_time_ends_a_timed_wait() {
    everywhere(|stage| {
        let (tx, rx) = mpsc::sync_channel(0);
        let receiver = stage.start(move || (0..20).map(|_| rx.recv_timeout(LONG).unwrap()).collect::<Vec<_>>());
        let sender = stage.start(move || (0..20).for_each(|i| tx.send_timeout(i, LONG).unwrap()));
        sender.end().unwrap();
        assert_eq!(receiver.end().unwrap(), (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_rendezvous_try_send_succeeds_only_into_the_hands_of_a_receiver() {
    in_task(|| {
        let (tx, rx) = mpsc::sync_channel(0);
        assert_eq!(tx.try_send(1), Err(TrySendError::Full(1)));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        // The receiver waits: it gets the message.
        let rx = Rc::new(rx);
        let receive = |rx: &Rc<mpsc::Receiver<i32>>| {
            let rx = rx.clone();
            let task = coro::spawn_local(move || rx.recv());
            until_parked(task.task(), "recv");
            task
        };
        let task = receive(&rx);
        assert_eq!(tx.try_send(2), Ok(()));
        assert_eq!(tx.try_send(3), Err(TrySendError::Full(3)), "one receiver, one message");
        assert_eq!(task.join().unwrap(), Ok(2));
        // It is cancelled but has not gone yet: it returns what it was given, and the cancellation waits.
        let task = receive(&rx);
        task.cancel();
        assert_eq!(tx.try_send(4), Ok(()));
        assert_eq!(task.join().unwrap(), Ok(4));
        // It has gone: nobody takes the message, and none is left behind.
        let task = receive(&rx);
        task.cancel();
        assert!(coro::is_cancel(&*task.join().unwrap_err()));
        assert_eq!(tx.try_send(5), Err(TrySendError::Full(5)));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        // The same with a time limit and with an enclosing one.
        assert_eq!(rx.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout));
        assert!(coro::timeout(Duration::from_millis(1), || rx.recv()).is_err());
        assert_eq!(tx.try_send(6), Err(TrySendError::Full(6)));
        drop(rx);
        assert_eq!(tx.try_send(7), Err(TrySendError::Disconnected(7)));
    });
}

#[test]
fn a_cancelled_sender_was_received_or_takes_its_message_along() {
    in_task(|| {
        for capacity in [0, 1] {
            let (tx, rx) = mpmc::sync_channel(capacity);
            let alive = Arc::new(AtomicI64::new(0));
            (0..capacity).for_each(|i| tx.send(Message::new(0, i, &alive)).unwrap());
            let send = |number| {
                let (tx, m) = (tx.clone(), Message::new(1, number, &alive));
                let task = coro::spawn(move || tx.send(m).is_ok());
                until_parked(task.task(), "send");
                task
            };
            // Received (or moved up) before the cancelled sender ran: the send has happened.
            let task = send(10);
            task.cancel();
            let mut got = rx.recv().unwrap();
            assert!(task.join().unwrap());
            if capacity == 1 {
                got = rx.recv().unwrap();
            }
            assert_eq!((got.sender, got.number), (1, 10));
            drop(got);
            // Cancelled first.
            (0..capacity).for_each(|i| tx.send(Message::new(0, i, &alive)).unwrap());
            let task = send(11);
            let next = send(12);
            task.cancel();
            assert!(coro::is_cancel(&*task.join().unwrap_err()));
            let got: Vec<_> = (0..=capacity).map(|_| rx.recv().unwrap().number).collect();
            assert_eq!(got.last(), Some(&12), "{got:?}");
            assert!(next.join().unwrap());
            assert_eq!(alive.load(Ordering::Relaxed), 0);
        }
    });
}

/// Waits when it is dropped, here while its task unwinds.
struct WaitsInDrop(mpsc::Receiver<()>);

impl Drop for WaitsInDrop {
    fn drop(&mut self) {
        let _ = self.0.recv();
    }
}

#[test]
fn a_cancellation_that_had_to_be_deferred_reaches_those_who_wait_for_a_channel() {
    in_task(|| {
        let (tx, rx) = mpmc::sync_channel(0);
        let (go, goes) = mpsc::channel();
        let unwinds = coro::spawn(move || {
            let _waits = WaitsInDrop(goes);
            panic!("so that it waits while it unwinds");
        });
        until_parked(unwinds.task(), "recv");
        let (_reply, answer) = oneshot::channel::<u8>();
        let (_silent, never) = mpmc::channel::<u8>();
        let waiting = [
            coro::spawn(move || tx.send(1).is_ok()),
            coro::spawn(move || never.recv_timeout(LONG).is_ok()),
            coro::spawn(move || answer.recv().is_ok()),
        ];
        for (t, wait) in waiting.iter().zip(["send", "recv", "recv"]) {
            until_parked(t.task(), wait);
            t.cancel();
        }
        // They run, but a second unwind cannot begin on this thread now.
        (0..10).for_each(|_| coro::yield_slice());
        assert!(waiting.iter().all(|t| !t.is_finished()));
        go.send(()).unwrap();
        assert!(!coro::is_cancel(&*unwinds.join().unwrap_err()));
        waiting.into_iter().for_each(|t| assert!(coro::is_cancel(&*t.join().unwrap_err())));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Disconnected));
    });
}

#[test]
fn waiters_are_served_in_their_order() {
    in_task(|| {
        let (tx, rx) = mpmc::sync_channel(1);
        let receivers: Vec<_> = (0..5)
            .map(|_| {
                let rx = rx.clone();
                let t = coro::spawn(move || rx.recv().unwrap());
                until_parked(t.task(), "recv");
                t
            })
            .collect();
        (0..5).for_each(|i| tx.send(i).unwrap());
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty), "a newcomer is not faster");
        assert_eq!(receivers.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        tx.send(0).unwrap();
        let senders: Vec<_> = (1..5)
            .map(|i| {
                let tx = tx.clone();
                let t = coro::spawn(move || tx.send(i).unwrap());
                until_parked(t.task(), "send");
                t
            })
            .collect();
        let first = rx.recv().unwrap();
        assert_eq!(tx.try_send(9), Err(TrySendError::Full(9)), "a newcomer is not faster");
        drop(tx);
        assert_eq!(rx.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(first, 0);
        senders.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn the_end_of_one_side_wakes_all_of_the_other() {
    everywhere(|stage| {
        let (tx, rx) = mpmc::channel::<u8>();
        let receivers: Vec<_> = (0..6)
            .map(|_| {
                let rx = rx.clone();
                stage.start(move || rx.recv().is_err())
            })
            .collect();
        drop(rx);
        receivers.iter().filter_map(Party::task).for_each(|t| until_parked(t, "recv"));
        drop(tx);
        receivers.into_iter().for_each(|p| assert_eq!(p.end(), Some(true)));
        for capacity in [0, 1] {
            let (tx, rx) = mpmc::sync_channel(capacity);
            (0..capacity).for_each(|_| tx.send(99).unwrap());
            let senders: Vec<_> = (0..6)
                .map(|i| {
                    let tx = tx.clone();
                    stage.start(move || tx.send(i))
                })
                .collect();
            senders.iter().filter_map(Party::task).for_each(|t| until_parked(t, "send"));
            drop(rx);
            for (i, p) in senders.into_iter().enumerate() {
                assert_eq!(p.end(), Some(Err(SendError(i))), "the message comes back");
            }
            assert_eq!(tx.send(1), Err(SendError(1)));
        }
    });
}

/// Uses the channel that it lies in when it is dropped.
struct Curious {
    tx: mpmc::Sender<Curious>,
    seen: Arc<AtomicUsize>,
}

impl Drop for Curious {
    fn drop(&mut self) {
        // Would hang if the channel were locked.
        self.seen.fetch_add(1 + self.tx.len(), Ordering::Relaxed);
    }
}

struct Panics(Arc<AtomicI64>);

impl Drop for Panics {
    fn drop(&mut self) {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 2 {
            panic!("a message whose end fails");
        }
    }
}

#[test]
fn messages_end_outside_the_channel() {
    in_task(|| {
        let (tx, rx) = mpmc::channel();
        let seen = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            assert!(tx.send(Curious { tx: tx.clone(), seen: seen.clone() }).is_ok());
        }
        drop(rx);
        assert_eq!(seen.load(Ordering::Relaxed), 3, "dropped by the last receiver, from an empty channel");
        drop(tx);
        // A panic in one message's end neither keeps the others nor those who wait for the channel.
        let (tx, rx) = mpmc::sync_channel(2);
        let left = Arc::new(AtomicI64::new(3));
        (0..2).for_each(|_| tx.send(Panics(left.clone())).unwrap());
        let (tx2, extra) = (tx.clone(), Panics(left.clone()));
        let sender = coro::spawn(move || tx2.send(extra).map_err(|e| std::mem::forget(e.0)).is_err());
        until_parked(sender.task(), "send");
        left.store(2, Ordering::Relaxed);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(rx))).is_err());
        assert!(sender.join().unwrap());
        assert_eq!(left.load(Ordering::Relaxed), 0, "both messages ended");
        assert!(tx.is_empty() && tx.try_send(Panics(Arc::new(AtomicI64::new(0)))).is_err());
    });
}

#[test]
fn messages_without_a_size_are_counted_all_the_same() {
    static ENDED: AtomicUsize = AtomicUsize::new(0);
    struct Nothing;
    impl Drop for Nothing {
        fn drop(&mut self) {
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }
    everywhere(|stage| {
        ENDED.store(0, Ordering::Relaxed);
        let (tx, rx) = mpsc::sync_channel(3);
        let sender = stage.start(move || (0..100).filter(|_| tx.send(Nothing).is_ok()).count());
        let receiver = stage.start(move || rx.iter().take(90).count());
        let (sent, received) = (sender.end().unwrap(), receiver.end().unwrap());
        assert!((90..100).contains(&sent) && received == 90, "{sent} {received}");
        assert_eq!(ENDED.load(Ordering::Relaxed), 100);
    });
}

#[test]
fn tasks_that_only_poll_let_the_others_run() {
    in_task(|| {
        let (tx, rx) = mpsc::channel();
        let task = coro::spawn(move || tx.send(1).unwrap());
        let polled = loop {
            match rx.try_recv() {
                Ok(n) => break n,
                Err(e) => assert_eq!(e, TryRecvError::Empty, "the sender ran, and its message is lost"),
            }
        };
        assert_eq!(polled, 1);
        task.join().unwrap();
        let (tx, rx) = mpsc::channel();
        let task = coro::spawn(move || rx.recv().unwrap());
        while tx.send(1).is_ok() {}
        task.join().unwrap();
        let (tx, rx) = mpsc::sync_channel(0);
        let task = coro::spawn(move || rx.recv().unwrap());
        while tx.try_send(1).is_err() {}
        assert_eq!(task.join().unwrap(), 1);
        let (tx, mut rx) = oneshot::channel();
        let task = coro::spawn(move || tx.send(1).unwrap());
        while let Err(oneshot::TryRecvError::Empty(again)) = rx.try_recv() {
            rx = again;
        }
        task.join().unwrap();
    });
}

#[test]
fn a_wait_refused_by_no_switch_leaves_nothing_behind() {
    in_task(|| {
        let (tx, rx) = mpmc::sync_channel(0);
        let refused = |f: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(|| coro::no_switch(f))).is_err());
        refused(&|| assert!(rx.recv().is_err()));
        assert_eq!(tx.try_send(1), Err(TrySendError::Full(1)), "nobody waits");
        refused(&|| assert!(tx.send(2).is_err()));
        assert_eq!(rx.try_recv(), Err(TryRecvError::Empty), "nobody waits");
        coro::no_switch(|| (0..100).for_each(|_| assert!(rx.try_recv().is_err())));
        let rx2 = rx.clone();
        let task = coro::spawn(move || rx2.recv());
        tx.send(3).unwrap();
        assert_eq!(task.join().unwrap(), Ok(3));
        // What needs no wait is allowed.
        let (tx, rx) = oneshot::channel();
        coro::no_switch(|| tx.send(4).unwrap());
        assert_eq!(coro::no_switch(|| rx.recv()), Ok(4));
        let (tx, rx) = oneshot::channel();
        assert!(catch_unwind(AssertUnwindSafe(|| coro::no_switch(|| rx.recv()))).is_err());
        assert_eq!(tx.send(5), Err(SendError(5)));
    });
}

#[test]
fn the_views_name_the_channel_and_its_place() {
    in_task(|| {
        let (place, (tx, rx)) = (line!(), mpsc::sync_channel_named::<u8>("jobs", 0));
        let rx = Arc::new(Mutex::new(rx));
        let rx2 = rx.clone();
        let see = |wait: &str, task: coro::Task, place: u32, name: &str, more: &str| {
            until_parked(task, wait);
            let seen = coro::where_is(task.id()).unwrap().wait;
            let text = format!("{wait}{name} {}:{place}{more}", file!());
            assert!(
                seen.starts_with(&text) && (seen == text || more.ends_with("most ") || more.contains("by")),
                "{seen}"
            );
        };
        let receiver = coro::spawn(move || rx2.lock().unwrap().recv());
        see("recv channel", receiver.task(), place, " \"jobs\"", " (1 sender; nothing sent yet)");
        tx.send(1).unwrap();
        let first = receiver.id();
        assert_eq!(receiver.join().unwrap(), Ok(1));
        let sender = coro::spawn(move || tx.send(2));
        see("send channel", sender.task(), place, " \"jobs\"", &format!(" (1 receiver; last recv by #{first}"));
        assert_eq!(rx.lock().unwrap().recv_timeout(LONG), Ok(2));
        sender.join().unwrap().unwrap();
        let (place, (reply, answer)) = (line!(), oneshot::channel_named::<u8>("reply"));
        let asker = coro::spawn(move || answer.recv_timeout(LONG).is_err());
        see("recv oneshot", asker.task(), place, " \"reply\"", " for at most ");
        drop(reply);
        assert!(asker.join().unwrap());
        let (place, (tx, rx)) = (line!(), mpmc::channel::<u8>());
        let receiver = coro::spawn(move || rx.recv());
        see("recv channel", receiver.task(), place, "", " (1 sender; nothing sent yet)");
        drop(tx);
        assert!(receiver.join().unwrap().is_err());
    });
}

#[test]
fn what_a_channel_says_of_itself() {
    let (tx, rx) = mpmc::sync_channel(2);
    assert_eq!((tx.capacity(), tx.len(), tx.is_empty(), tx.is_full()), (Some(2), 0, true, false));
    tx.send(1).unwrap();
    tx.send(2).unwrap();
    assert_eq!((rx.capacity(), rx.len(), rx.is_empty(), rx.is_full()), (Some(2), 2, false, true));
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [1, 2]);
    let (other, other_rx) = mpmc::channel::<i32>();
    assert!(tx.same_channel(&tx.clone()) && rx.same_channel(&rx.clone()));
    assert!(!tx.same_channel(&other) && !rx.same_channel(&other_rx));
    assert_eq!((other.capacity(), other.is_full()), (None, false));
    let (meet, meet_rx) = mpmc::sync_channel::<u8>(0);
    assert_eq!((meet.capacity(), meet.len(), meet.is_empty(), meet.is_full()), (Some(0), 0, true, true));
    assert!(meet_rx.is_empty() && meet_rx.is_full());
}

#[test]
fn texts_and_marks_are_those_of_std() {
    use std::sync::mpsc as theirs;
    let (tx, rx) = mpsc::channel::<u8>();
    let (their_tx, their_rx) = theirs::channel::<u8>();
    assert_eq!(format!("{tx:?} {rx:?}"), format!("{their_tx:?} {their_rx:?}"));
    assert_eq!(
        format!("{:?} {:?}", rx.iter(), rx.try_iter()),
        format!("{:?} {:?}", their_rx.iter(), their_rx.try_iter())
    );
    assert_eq!(format!("{:?}", rx.into_iter()), format!("{:?}", their_rx.into_iter()));
    let (bounded, their_bounded) = (mpsc::sync_channel::<u8>(1).0, theirs::sync_channel::<u8>(1).0);
    assert_eq!(format!("{bounded:?}"), format!("{their_bounded:?}"));
    let (timeout, gone) = (SendTimeoutError::Timeout(1), SendTimeoutError::from(SendError(1)));
    assert_eq!(format!("{timeout:?}"), "\"SendTimeoutError(..)\"");
    assert_eq!(timeout.to_string(), "timed out waiting on send operation");
    assert_eq!(gone.to_string(), "sending on a disconnected channel");
    let (_reply, answer) = oneshot::channel::<u8>();
    let empty = answer.try_recv().unwrap_err();
    assert_eq!(format!("{empty:?} / {empty}"), "TryRecvError(..) / receiving on an empty oneshot channel");
    let gone = oneshot::RecvTimeoutError::<u8>::from(oneshot::RecvError);
    assert_eq!(format!("{gone:?} / {gone}"), "RecvTimeoutError(..) / receiving on a closed oneshot channel");

    // Of a message that can be sent but not shared, nor be seen after a panic.
    type Odd = std::cell::Cell<&'static mut u8>;
    fn sent<T: Send + UnwindSafe + RefUnwindSafe>() {}
    fn shared<T: Sync>() {}
    sent::<mpsc::Sender<Odd>>();
    sent::<mpsc::SyncSender<Odd>>();
    sent::<mpsc::Receiver<Odd>>();
    sent::<mpmc::Sender<Odd>>();
    sent::<mpmc::Receiver<Odd>>();
    sent::<oneshot::Sender<Odd>>();
    sent::<oneshot::Receiver<Odd>>();
    shared::<mpsc::Sender<Odd>>();
    shared::<mpsc::SyncSender<Odd>>();
    shared::<mpmc::Sender<Odd>>();
    shared::<mpmc::Receiver<Odd>>();
    shared::<oneshot::Sender<Rc<u8>>>();
    shared::<oneshot::Receiver<Rc<u8>>>();
}

#[test]
fn a_oneshot_everywhere() {
    everywhere(|stage| {
        for _ in 0..50 {
            let (tx, rx) = oneshot::channel();
            let receiver = stage.start(move || rx.recv());
            let sender = stage.start(move || tx.send(7).is_ok());
            assert_eq!(receiver.end().unwrap(), Ok(7));
            assert!(sender.end().unwrap());
            let (tx, rx) = oneshot::channel::<u8>();
            let receiver = stage.start(move || rx.recv_timeout(LONG));
            assert!(stage.start(move || drop(tx)).end().is_some());
            assert!(matches!(receiver.end().unwrap(), Err(oneshot::RecvTimeoutError::Disconnected)));
        }
    });
}

#[test]
fn a_oneshot_waited_for_again_cancelled_and_left() {
    in_task(|| {
        let alive = Arc::new(AtomicI64::new(0));
        let gone = || assert_eq!(alive.load(Ordering::Relaxed), 0);
        // Again after a timeout, and by another task.
        let (tx, rx) = oneshot::channel::<Message>();
        let Err(oneshot::RecvTimeoutError::Timeout(rx)) = rx.recv_timeout(Duration::from_millis(1)) else { panic!() };
        let task = coro::spawn(move || rx.recv().unwrap().number);
        until_parked(task.task(), "recv");
        tx.send(Message::new(0, 5, &alive)).unwrap();
        assert_eq!(task.join().unwrap(), 5);
        gone();
        // Cancelled before it is sent: the message comes back.
        let (tx, rx) = oneshot::channel::<Message>();
        let task = coro::spawn(move || drop(rx.recv()));
        until_parked(task.task(), "recv");
        task.cancel();
        assert!(coro::is_cancel(&*task.join().unwrap_err()));
        assert_eq!(tx.send(Message::new(0, 6, &alive)).unwrap_err().0.number, 6);
        gone();
        // Cancelled, but sent before the receiver ran: it has the message.
        let (tx, rx) = oneshot::channel::<Message>();
        let task = coro::spawn(move || rx.recv().unwrap().number);
        until_parked(task.task(), "recv");
        task.cancel();
        tx.send(Message::new(0, 7, &alive)).unwrap();
        assert_eq!(task.join().unwrap(), 7);
        // There already when a cancelled task asks: it has it as well.
        let ready = Arc::new(AtomicBool::new(false));
        let (r, (tx, rx)) = (ready.clone(), oneshot::channel::<Message>());
        let task = coro::spawn(move || {
            r.store(true, Ordering::Relaxed);
            coro::shield(coro::yield_slice);
            rx.recv().unwrap().number
        });
        task_until("it began", || ready.load(Ordering::Relaxed));
        tx.send(Message::new(0, 8, &alive)).unwrap();
        task.cancel();
        assert_eq!(task.join().unwrap(), 8);
        // Nobody takes it.
        let (tx, rx) = oneshot::channel::<Message>();
        tx.send(Message::new(0, 9, &alive)).unwrap();
        drop(rx);
        gone();
    });
}

#[test]
fn a_cancelled_receiver_leaves_the_message_to_the_next() {
    within(PATIENCE * 2, || {
        let seed = seed();
        eprintln!("CORO_TEST_SEED={seed}");
        let mut rng = Rng(seed);
        let rt = runtime(4);
        for capacity in [None, Some(0), Some(1)] {
            for _ in 0..150 {
                let (tx, rx) = capacity.map_or_else(mpmc::channel, mpmc::sync_channel);
                let rx2 = rx.clone();
                let receiver = rt.spawn(move || rx2.recv());
                let task = receiver.task();
                let spin = rng.below(2000);
                let canceller = std::thread::spawn(move || {
                    (0..spin).for_each(|_| std::hint::spin_loop());
                    task.cancel();
                });
                let sender = rt.spawn(move || tx.send(7).is_ok());
                canceller.join().unwrap();
                let first = match receiver.join() {
                    Ok(got) => Some(got.unwrap()),
                    Err(payload) if coro::is_cancel(&*payload) => None,
                    Err(payload) => std::panic::resume_unwind(payload),
                };
                let second = rx.recv().ok();
                assert_eq!(first.xor(second), Some(7), "{first:?} {second:?}");
                assert!(sender.join().unwrap());
            }
        }
    });
}
