//! Tasks that never have to wait do not keep their worker from everybody else: others have their turns, and timers fire.
//!
//! How soon is measured by `benches/scale`; here it is about starvation alone, so the bounds are wide.

mod util;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::sync::{Semaphore, mpmc, mpsc};
use util::{runtime, within};

const LONG: Duration = Duration::from_secs(60);
/// What the others must get, and when at the latest. Beside a task that gives way as it should both take less than a tenth of a second.
const SLEEPS: usize = 20;
const TURNS: usize = 200;
const PATIENCE: Duration = Duration::from_secs(15);

/// A task on the only worker does `once` again and again, and never has to wait for it; beside it one task sleeps and one yields.
#[track_caller]
fn disturbs_nobody(what: &'static str, mut once: impl FnMut() + Send + 'static) {
    within(LONG, move || {
        let rt = runtime(1);
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (slept, turned) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let selfish = {
            let (stop, done) = (stop.clone(), done.clone());
            rt.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    once();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        // The others come when it is under way.
        let begin = Instant::now();
        while done.load(Ordering::Relaxed) == 0 {
            assert!(begin.elapsed() < PATIENCE, "{what}: it never had its turn");
            std::thread::yield_now();
        }
        let (s, t) = (slept.clone(), turned.clone());
        let sleeper = rt.spawn(move || {
            for _ in 0..SLEEPS {
                coro::sleep(Duration::from_millis(1));
                s.fetch_add(1, Ordering::Relaxed);
            }
        });
        let yielder = rt.spawn(move || {
            for _ in 0..TURNS {
                coro::yield_slice();
                t.fetch_add(1, Ordering::Relaxed);
            }
        });
        let begin = Instant::now();
        while !(sleeper.is_finished() && yielder.is_finished()) && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (took, times) = (begin.elapsed(), done.load(Ordering::Relaxed));
        // Whatever it was, the runtime has to be able to end.
        stop.store(true, Ordering::Relaxed);
        let (slept, turned) = (slept.load(Ordering::Relaxed), turned.load(Ordering::Relaxed));
        println!("{what}, {times} times in {took:?}: {slept} sleeps, {turned} turns");
        assert_eq!((slept, turned), (SLEEPS, TURNS), "{what}: the others starved");
        selfish.join().unwrap();
        sleeper.join().unwrap();
        yielder.join().unwrap();
    });
}

/// Both ends of a TCP connection, the first one for a task.
fn connection() -> (coro::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = coro::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

#[test]
fn who_reads_a_socket_that_is_always_full() {
    let (mut ours, mut theirs) = connection();
    std::thread::spawn(move || while theirs.write_all(&[1; 65536]).is_ok() {});
    disturbs_nobody("read", move || assert_eq!(ours.read(&mut [0]).unwrap(), 1));
}

#[test]
fn who_writes_to_a_socket_that_is_always_emptied() {
    let (mut ours, mut theirs) = connection();
    std::thread::spawn(move || while theirs.read(&mut [0; 65536]).is_ok_and(|n| n > 0) {});
    disturbs_nobody("write", move || ours.write_all(&[1]).unwrap());
}

#[test]
fn who_sends_datagrams_that_nobody_receives() {
    // What does not fit into the other's queue is dropped, so there is always room.
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (to, sender) = (deaf.local_addr().unwrap(), coro::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    disturbs_nobody("send_to", move || assert_eq!(sender.send_to(&[1], to).unwrap(), 1));
}

#[test]
fn who_sends_to_and_receives_from_a_channel_that_is_never_empty_or_full() {
    let (to, from) = mpsc::sync_channel(2);
    to.send(0).unwrap();
    disturbs_nobody("bounded channel", move || {
        to.send(1).unwrap();
        from.recv().unwrap();
    });
    let (to, from) = mpmc::channel();
    to.send(0).unwrap();
    disturbs_nobody("unbounded channel", move || {
        to.send(1).unwrap();
        from.recv().unwrap();
    });
}

/// The queue never gets long, so its length does not tell that somebody sends without end.
#[test]
fn who_sends_what_is_taken_away_at_once() {
    let (to, from) = mpsc::channel();
    disturbs_nobody("send and try_recv", move || {
        to.send(1).unwrap();
        // Found at once: it is not polled in vain.
        from.try_recv().unwrap();
    });
    // A thread waits for each message, and has it from hand to hand.
    let (to, from) = mpsc::channel();
    std::thread::spawn(move || while from.recv().is_ok() {});
    disturbs_nobody("send to a thread", move || to.send(1).unwrap());
}

#[test]
fn who_tries_to_receive_what_nobody_sends() {
    let (to, from) = mpsc::channel::<()>();
    disturbs_nobody("try_recv", move || {
        assert_eq!(from.try_recv(), Err(mpsc::TryRecvError::Empty));
        let _open = &to;
    });
}

#[test]
fn who_takes_permits_that_are_there() {
    let permits = Semaphore::new(1);
    disturbs_nobody("semaphore", move || drop(permits.acquire()));
}

#[test]
fn who_unparks_itself() {
    disturbs_nobody("park", || {
        coro::current().unwrap().unpark();
        coro::park();
    });
}

/// Each worker gets stuck in the first slice of a task, so none of these tasks may lie where only a stuck worker would find it. The
/// workers have tasks of their own, unequally many, so they leave new ones for a while to whoever has fewer; and nothing ends, so
/// nobody who rests has a reason to look around by himself.
#[test]
fn tasks_that_get_stuck_strand_none_that_has_not_started() {
    const WORKERS: usize = 4;
    const ROUNDS: usize = 40;
    const PARKED: usize = 1000;
    within(LONG * 2, || {
        for round in 0..ROUNDS {
            let rt = runtime(WORKERS);
            let parked = Arc::new(AtomicUsize::new(0));
            let tasks: Vec<_> = (0..PARKED)
                .map(|_| {
                    let parked = parked.clone();
                    rt.spawn(move || {
                        parked.fetch_add(1, Ordering::Relaxed);
                        coro::park();
                    })
                })
                .collect();
            let begin = Instant::now();
            while parked.load(Ordering::Relaxed) < PARKED {
                assert!(begin.elapsed() < PATIENCE);
                std::thread::yield_now();
            }
            let started = Arc::new(AtomicUsize::new(0));
            let stuck: Vec<_> = (0..WORKERS)
                .map(|_| {
                    let started = started.clone();
                    // No wait that the worker knows of: it is stuck until all have started.
                    rt.spawn(move || {
                        started.fetch_add(1, Ordering::SeqCst);
                        let begin = Instant::now();
                        while started.load(Ordering::SeqCst) < WORKERS && begin.elapsed() < PATIENCE {
                            std::thread::yield_now();
                        }
                        begin.elapsed()
                    })
                })
                .collect();
            let longest = stuck.into_iter().map(|t| t.join().unwrap()).max().unwrap();
            assert!(longest < PATIENCE, "round {round}: one did not start beside the others");
            tasks.iter().for_each(|t| _ = t.task().unpark());
            tasks.into_iter().for_each(|t| t.join().unwrap());
        }
    });
}
