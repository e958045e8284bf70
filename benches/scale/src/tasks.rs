//! The basic operations by a number of tasks that all exist at the same time, each with a stack of its own.
//!
//! One process goes through all of them. Before each the tasks meet, so that all have begun before the time is taken; what the
//! meeting takes is not measured, but for the turn with which each task begins (part of one of several operations). The cost is CPU
//! time of the whole process: with two workers that work without disturbing each other it is the same as with one. Each
//! operation checks itself: sums of what was joined, received and counted under the lock, and no sleep that ends early.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use coro::sync::{Event, Mutex, mpsc};
use coro::{JoinHandle, Runtime};

use crate::measure::{Random, cpu_time};

/// What is measured, in the order in which it runs; `start` and `spawn` come before the tasks meet.
pub(crate) const OPERATIONS: [(&str, &str); 7] = [
    ("spawn", "spawn and join, no stack of its own"),
    ("start", "spawn, first slice, first wait"),
    ("yield", "yield"),
    ("lock", "lock, unlock, yield"),
    ("hold", "lock, yield, unlock, yield"),
    ("message", "message to one, bounded(1024)"),
    ("sleep", "sleep, 1 to 500 ms"),
];

/// The time, and the CPU time of this process.
#[derive(Clone, Copy)]
struct Reading {
    wall: Instant,
    cpu: Duration,
}

impl Reading {
    fn now() -> Reading {
        Reading { wall: Instant::now(), cpu: cpu_time() }
    }
}

/// One operation: where all tasks meet before it, and who was the last to be through.
struct Phase {
    came: AtomicUsize,
    open: Event,
    awake: AtomicUsize,
    begun: AtomicBool,
    begin: OnceLock<Reading>,
    left: AtomicUsize,
    end: OnceLock<Reading>,
    /// All have come, and all are through. Nobody looks in between, because that would be measured.
    full: Event,
    over: Event,
}

impl Phase {
    fn new(through: usize) -> Phase {
        Phase {
            came: AtomicUsize::new(0),
            open: Event::new(),
            awake: AtomicUsize::new(0),
            begun: AtomicBool::new(false),
            begin: OnceLock::new(),
            left: AtomicUsize::new(through),
            end: OnceLock::new(),
            full: Event::new(),
            over: Event::new(),
        }
    }

    /// By each of `n` tasks. Those that were woken first go round until all are awake: it is not the wake-ups that are measured.
    fn enter(&self, n: usize) {
        if self.came.fetch_add(1, Ordering::AcqRel) + 1 == n {
            self.full.set();
        }
        self.open.wait();
        if self.awake.fetch_add(1, Ordering::Relaxed) + 1 == n {
            let _ = self.begin.set(Reading::now());
            self.begun.store(true, Ordering::Release);
        }
        while !self.begun.load(Ordering::Acquire) {
            coro::yield_slice();
        }
    }

    fn leave(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _ = self.end.set(Reading::now());
            self.over.set();
        }
    }

    /// By the task that is not measured.
    fn run(&self) -> (Reading, Reading) {
        self.full.wait();
        self.open.set();
        self.over.wait();
        (*self.begin.get().expect("it ended"), *self.end.get().expect("it ended"))
    }
}

fn report(operation: &str, begin: Reading, end: Reading, operations: usize) {
    let each = |time: Duration| time.as_nanos() as f64 / operations as f64;
    println!("{operation}.cpu_ns {:.3}", each(end.cpu.saturating_sub(begin.cpu)));
    println!("{operation}.wall_ns {:.3}", each(end.wall - begin.wall));
}

fn join<T>(handle: JoinHandle<T>) -> T {
    handle.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

/// The fewest of each task: more, where less of it lies between two turns.
const YIELDS: usize = 8;
const LOCKS: usize = 4;
const HOLDS: usize = 2;
const MESSAGES: usize = 4;

/// How often each of `n` tasks does it: at least `least` times, so that its first turn is a small part, and so often that all together
/// last long enough.
fn times(n: usize, least: usize, all: usize) -> usize {
    (all / n).max(least)
}

/// Tasks that end in their first slice, all spawned before the first is joined.
fn spawn_and_join(n: usize) {
    let rounds = times(n, 1, 200_000);
    let mut handles = Vec::with_capacity(n);
    let (mut sum, begin) = (0, Reading::now());
    for _ in 0..rounds {
        handles.extend((0..n as u64).map(|i| coro::spawn(move || i)));
        sum += handles.drain(..).map(join).sum::<u64>();
    }
    let end = Reading::now();
    assert_eq!(sum, rounds as u64 * (n as u64 * (n as u64 - 1) / 2), "a task was lost or ran twice");
    report("spawn", begin, end, n * rounds);
}

struct Shared {
    phases: [Phase; 5],
    counter: Mutex<u64>,
    switches: AtomicU64,
}

/// Sleeps of one task: few of few tasks last long enough.
fn sleeps(n: usize) -> usize {
    times(n, 1, 1000).min(2)
}

fn one_of_all(shared: &Shared, n: usize, seed: u64, to: &mpsc::SyncSender<u64>) {
    let [yields, lock, hold, message, sleep] = &shared.phases;
    yields.enter(n);
    let turns = times(n, YIELDS, 2_000_000);
    (0..turns).for_each(|_| coro::yield_slice());
    shared.switches.fetch_add(turns as u64, Ordering::Relaxed);
    yields.leave();

    lock.enter(n);
    for _ in 0..times(n, LOCKS, 1_000_000) {
        *shared.counter.lock().expect("no holder panics") += 1;
        coro::yield_slice();
    }
    lock.leave();

    hold.enter(n);
    for _ in 0..times(n, HOLDS, 500_000) {
        {
            let mut count = shared.counter.lock().expect("no holder panics");
            *count += 1;
            coro::yield_slice();
        }
        coro::yield_slice();
    }
    hold.leave();

    message.enter(n);
    (0..times(n, MESSAGES, 1_000_000) as u64).for_each(|i| to.send(i).expect("the receiver is alive"));
    message.leave();

    sleep.enter(n);
    let mut random = Random::new(seed);
    for _ in 0..sleeps(n) {
        let wanted = Duration::from_micros(1000 + random.below(499_000));
        let start = Instant::now();
        coro::sleep(wanted);
        assert!(start.elapsed() >= wanted, "a sleep ended early");
    }
    sleep.leave();
}

fn all(n: usize) {
    spawn_and_join(n);
    // The receiver of messages is one more.
    let through = |more| Phase::new(n + more);
    let shared = Arc::new(Shared {
        phases: [through(0), through(0), through(0), through(1), through(0)],
        counter: Mutex::new(0),
        switches: AtomicU64::new(0),
    });
    let (to, from) = mpsc::sync_channel(1024);
    let begin = Reading::now();
    let handles: Vec<_> = (1..=n as u64)
        .map(|seed| {
            let (shared, to) = (shared.clone(), to.clone());
            coro::spawn(move || one_of_all(&shared, n, seed, &to))
        })
        .collect();
    let [yields, lock, hold, message, sleep] = &shared.phases;
    yields.full.wait();
    report("start", begin, Reading::now(), n);

    let (begin, end) = yields.run();
    // Each had its first turn, too.
    report("yield", begin, end, n * (times(n, YIELDS, 2_000_000) + 1));
    assert_eq!(shared.switches.load(Ordering::Relaxed), (n * times(n, YIELDS, 2_000_000)) as u64);

    let (mut expected, locks) =
        (0, [(lock, "lock", times(n, LOCKS, 1_000_000)), (hold, "hold", times(n, HOLDS, 500_000))]);
    for (phase, name, each) in locks {
        let (begin, end) = phase.run();
        report(name, begin, end, n * each);
        expected += (n * each) as u64;
        assert_eq!(*shared.counter.lock().expect("no holder panicked"), expected, "the lock lost an update");
    }

    let each = times(n, MESSAGES, 1_000_000);
    let received = {
        let shared = shared.clone();
        coro::spawn(move || {
            let sum = (0..n * each).fold(0u64, |sum, _| sum + from.recv().expect("a sender is alive"));
            shared.phases[3].leave();
            sum
        })
    };
    let (begin, end) = message.run();
    report("message", begin, end, n * each);
    assert_eq!(join(received), n as u64 * (each as u64 * (each as u64 - 1) / 2), "a message was lost or came twice");

    let (begin, end) = sleep.run();
    report("sleep", begin, end, n * sleeps(n));
    handles.into_iter().for_each(join);
}

pub(crate) fn run(runtime: &Runtime, n: usize) {
    runtime.block_on(|| all(n));
}
