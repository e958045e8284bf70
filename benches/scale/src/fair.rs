//! What tasks feel of those beside them on the same worker: of one that never has to wait, and of a worker that is full.
//!
//! *Fairness*: a task that sleeps for a millisecond again and again, and one that yields again and again, beside a selfish one. What counts
//! is how late the sleeper runs, and how long the other waits for its next turn. *Lateness*: a hundred sleepers while every worker is full of
//! short slices of computing, or of messages.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coro::net::TcpStream;
use coro::sync::mpsc;
use coro::{Builder, Runtime};

use crate::measure::{Histogram, Random};

/// Who is selfish, and what is done there.
pub(crate) const SELFISH: [(&str, &str); 8] = [
    ("none", "nobody"),
    ("read", "reads a socket that is always full"),
    ("write", "writes to a socket that is always emptied"),
    ("channel", "sends to and receives from a channel that is never empty or full"),
    ("send", "sends to an unbounded channel that another thread empties"),
    ("receive", "receives from a channel that another thread fills"),
    ("try", "tries to receive what nobody sends"),
    ("yield", "yields"),
];

/// What every worker is full of.
pub(crate) const LOADS: [(&str, &str); 4] = [
    ("threads", "nothing, and threads of the system sleep, for comparison"),
    ("none", "nothing"),
    ("compute", "computing, in slices of 100 µs"),
    ("messages", "messages through chains of tasks"),
];

struct Stop(AtomicBool);

impl Stop {
    fn new() -> Arc<Stop> {
        Arc::new(Stop(AtomicBool::new(false)))
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Both ends of a connection, the first for a task.
fn connection() -> (TcpStream, std::net::TcpStream) {
    let listener = StdListener::bind("127.0.0.1:0").expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("a connection");
    (ours, listener.accept().expect("the other end").0)
}

/// The selfish task: how often it did what it does, once it is told to stop. Threads that serve it end by themselves.
fn be_selfish(how: &str, stop: &Stop) -> u64 {
    let mut done = 0;
    let mut go_on = || {
        done += 1;
        !stop.is_set()
    };
    match how {
        "none" => {
            while !stop.is_set() {
                coro::sleep(Duration::from_millis(5));
            }
        }
        "read" => {
            let (mut ours, mut theirs) = connection();
            std::thread::spawn(move || while theirs.write_all(&[1; 65536]).is_ok() {});
            let mut bytes = [0; 64];
            while go_on() {
                assert!(ours.read(&mut bytes).expect("bytes without end") > 0);
            }
        }
        "write" => {
            let (mut ours, mut theirs) = connection();
            std::thread::spawn(move || while theirs.read(&mut [0; 65536]).is_ok_and(|n| n > 0) {});
            while go_on() {
                ours.write_all(&[1; 64]).expect("somebody reads");
            }
        }
        "channel" => {
            let (to, from) = mpsc::sync_channel(2);
            to.send(0).expect("there is room");
            while go_on() {
                to.send(1).expect("there is room");
                from.recv().expect("a message is there");
            }
        }
        "send" => {
            let (to, from) = mpsc::channel();
            std::thread::spawn(move || while from.recv().is_ok() {});
            while go_on() {
                to.send(1).expect("somebody receives");
            }
        }
        "receive" => {
            let (to, from) = mpsc::sync_channel(1024);
            std::thread::spawn(move || while to.send(1).is_ok() {});
            while go_on() {
                from.recv().expect("somebody sends");
            }
        }
        "try" => {
            let (_to, from) = mpsc::channel::<u64>();
            while go_on() {
                let _ = black_box(from.try_recv());
            }
        }
        "yield" => {
            while go_on() {
                coro::yield_slice();
            }
        }
        other => panic!("nobody is selfish in the way {other:?}"),
    }
    done
}

fn tell(what: &str, times: &Histogram) {
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        println!("{what}.{name}_us {:.3}", times.quantile(share) as f64 / 1e3);
    }
    println!("{what}.max_us {:.3}", times.max() as f64 / 1e3);
}

/// A sleeper and a yielder beside a selfish task, on one worker.
pub(crate) fn fairness(runtime: &Runtime, how: &'static str, time: Duration) {
    runtime.block_on(|| {
        let (stop, late, turn) = (Stop::new(), Arc::new(Histogram::new()), Arc::new(Histogram::new()));
        let selfish = {
            let stop = stop.clone();
            coro::spawn(move || be_selfish(how, &stop))
        };
        let yielder = {
            let (stop, turn) = (stop.clone(), turn.clone());
            coro::spawn(move || {
                while !stop.is_set() {
                    let start = Instant::now();
                    coro::yield_slice();
                    turn.add(start.elapsed().as_nanos() as u64);
                }
            })
        };
        let (start, wanted) = (Instant::now(), Duration::from_millis(1));
        let mut ticks = 0;
        while start.elapsed() < time {
            let slept = Instant::now();
            coro::sleep(wanted);
            late.add((slept.elapsed() - wanted).as_nanos() as u64);
            ticks += 1;
        }
        stop.set();
        yielder.join().expect("it only yields");
        println!("done {}", selfish.join().expect("it goes on until it is told to stop"));
        println!("ticks {ticks}");
        tell("tick", &late);
        tell("turn", &turn);
    });
}

fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        black_box(0);
    }
}

/// Fills a worker; what it does until it is told to stop goes into `done`.
fn fill(load: &str, worker: usize, stop: &Arc<Stop>, done: &Arc<AtomicU64>) {
    let spawn =
        |body: Box<dyn FnOnce() + Send>| drop(Builder::new().worker(worker).spawn(body).expect("room for a task"));
    match load {
        "none" | "threads" => {}
        "compute" => {
            for _ in 0..4 {
                let (stop, done) = (stop.clone(), done.clone());
                spawn(Box::new(move || {
                    while !stop.is_set() {
                        compute(Duration::from_micros(100));
                        done.fetch_add(1, Ordering::Relaxed);
                        coro::yield_slice();
                    }
                }));
            }
        }
        "messages" => {
            let (first, mut from) = mpsc::sync_channel(64);
            for _ in 0..3 {
                let (to, next) = mpsc::sync_channel(64);
                let before = std::mem::replace(&mut from, next);
                spawn(Box::new(move || while before.recv().is_ok_and(|message: u64| to.send(message).is_ok()) {}));
            }
            let (stop, done) = (stop.clone(), done.clone());
            spawn(Box::new(move || while !stop.is_set() && first.send(1).is_ok() {}));
            spawn(Box::new(move || {
                while from.recv().is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        other => panic!("there is no load {other:?}"),
    }
}

/// A hundred sleepers on workers that are full.
pub(crate) fn lateness(runtime: &Runtime, load: &'static str, time: Duration) {
    const SLEEPERS: u64 = 100;
    runtime.block_on(|| {
        let (stop, late, done) = (Stop::new(), Arc::new(Histogram::new()), Arc::new(AtomicU64::new(0)));
        (0..runtime.workers()).for_each(|worker| fill(load, worker, &stop, &done));
        let sleeper = |seed: u64, sleep: fn(Duration)| {
            let (stop, late) = (stop.clone(), late.clone());
            move || {
                let mut random = Random::new(seed);
                while !stop.is_set() {
                    let wanted = Duration::from_micros(1000 + random.below(19_000));
                    let start = Instant::now();
                    sleep(wanted);
                    let slept = start.elapsed();
                    assert!(slept >= wanted, "a sleep ended early");
                    late.add((slept - wanted).as_nanos() as u64);
                }
            }
        };
        let (mut threads, mut tasks) = (Vec::new(), Vec::new());
        for seed in 1..=SLEEPERS {
            if load == "threads" {
                threads.push(std::thread::spawn(sleeper(seed, std::thread::sleep)));
            } else {
                let worker = Builder::new().worker(seed as usize % runtime.workers());
                tasks.push(worker.spawn(sleeper(seed, coro::sleep)).expect("room for a task"));
            }
        }
        coro::sleep(time);
        stop.set();
        threads.into_iter().for_each(|thread| thread.join().expect("it only sleeps"));
        tasks.into_iter().for_each(|task| task.join().expect("it only sleeps"));
        println!("done {}", done.load(Ordering::Relaxed));
        tell("late", &late);
    });
}
