//! The workloads that need no network: switching, spawning, channels, a lock, timers, memory.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::sync::Mutex;
use coro::sync::mpsc::{self, Receiver, Sender, SyncSender};
use coro::{Builder, JoinHandle, Runtime};

use crate::args::Args;
use crate::measure::{Histogram, Idle, Memory, Random, StartLine, cpu_time, ns_each};

/// Runs the workload in the calling task; false if there is none of that name.
pub(crate) fn in_task(args: &Args, runtime: &Runtime) -> bool {
    match args.workload.as_str() {
        "yield" => yields(args, runtime),
        "clock" => clock(args),
        "yieldcheck" => rotation(args),
        "spawn" => return spawn_inside(args),
        "pingpong" => return pingpong(args),
        "fanin" => fan_in(args),
        "mutex" => mutex(args),
        "timers" => timers(args),
        "mem" => return memory(args),
        _ => return false,
    }
    true
}

fn join<T>(handle: JoinHandle<T>) -> T {
    handle.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

fn yields(args: &Args, runtime: &Runtime) {
    let n = args.number("n", 2);
    let each = args.number("total", 10_000_000) / n;
    let slices = || runtime.worker_stats().iter().map(|w| w.slices).sum::<u64>();
    let (before, start) = (slices(), Instant::now());
    let body = move || (0..each).for_each(|_| coro::yield_slice());
    let tasks: Vec<_> = (0..n).map(|_| coro::spawn(body)).collect();
    tasks.into_iter().for_each(join);
    let (took, counted) = (start.elapsed(), slices() - before);
    let case = format!("yield.{n}");
    args.report(&case, "ns_per_yield", ns_each(took, each * n));
    // A yield that the accounting does not see would be no slice: this must be 1 and very little more.
    args.report(&case, "slices_per_yield", counted as f64 / (each * n) as f64);
}

/// What one reading of the slice clock costs: the time-stamp counter where there is one (see `sys::clock`).
fn clock(args: &Args) {
    let total = args.number("total", 20_000_000);
    let start = Instant::now();
    for _ in 0..total {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: no preconditions.
        #[allow(unused_unsafe, reason = "unsafe in Rust 1.88, safe in later ones")]
        black_box(unsafe { std::arch::x86_64::_rdtsc() });
        #[cfg(not(target_arch = "x86_64"))]
        black_box(Instant::now());
    }
    args.report("clock", "ns_per_read", ns_each(start.elapsed(), total));
}

/// After how many of all yields another task had run.
fn rotation(args: &Args) {
    let (n, each) = (args.number("n", 100usize), args.number("per", 1000usize));
    let shared = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let body = |me: usize| {
        let shared = shared.clone();
        move || {
            let (last, turned) = &*shared;
            for _ in 0..each {
                last.store(me, Ordering::Relaxed);
                coro::yield_slice();
                if last.load(Ordering::Relaxed) != me {
                    turned.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    let tasks: Vec<_> = (0..n).map(|me| coro::spawn(body(me))).collect();
    tasks.into_iter().for_each(join);
    let turned = shared.1.load(Ordering::Relaxed);
    args.report("yieldcheck", "rotation_pct", turned as f64 * 100.0 / (n * each) as f64);
}

/// Tasks in waves, each joined before the next; returns nanoseconds per task.
fn waves(total: usize, wave: usize, spawn: impl Fn(u64) -> JoinHandle<u64>) -> f64 {
    let wave = wave.clamp(1, total.max(1));
    let start = Instant::now();
    let mut handles = Vec::with_capacity(wave);
    let mut sum = 0u64;
    for _ in 0..total / wave {
        handles.extend((0..wave as u64).map(&spawn));
        sum += handles.drain(..).map(join).sum::<u64>();
    }
    let took = start.elapsed();
    let expected = (total / wave) as u64 * (wave as u64 * (wave as u64 - 1) / 2);
    assert_eq!(sum, expected, "a task was lost or ran twice");
    ns_each(took, total / wave * wave)
}

fn spawn_inside(args: &Args) -> bool {
    let total = args.number("total", 1_000_000);
    let wave = args.number("wave", 1000);
    let anywhere = |i| coro::spawn(move || i);
    let (case, value) = match args.text("mode", "burst") {
        "burst" => ("spawn.burst", waves(total, total, anywhere)),
        "waves" => ("spawn.waves", waves(total, wave, anywhere)),
        "local" => ("spawn.local", waves(total, wave, |i| coro::spawn_local(move || i))),
        _ => return false,
    };
    args.report(case, "ns_per_task", value);
    true
}

/// All from a plain thread, which also joins them.
pub(crate) fn spawn_outside(args: &Args, runtime: &Runtime) {
    let total = args.number("total", 1_000_000);
    let value = waves(total, total, |i| runtime.spawn(move || i));
    args.report("spawn.outside", "ns_per_task", value);
}

/// The sending side of either kind of channel.
trait Send64: Send + Clone + 'static {
    fn put(&self, value: u64);
}

impl Send64 for Sender<u64> {
    fn put(&self, value: u64) {
        self.send(value).expect("the receiver is alive");
    }
}

impl Send64 for SyncSender<u64> {
    fn put(&self, value: u64) {
        self.send(value).expect("the receiver is alive");
    }
}

type Channel<S> = (S, Receiver<u64>);

fn next(from: &Receiver<u64>) -> u64 {
    from.recv().expect("the sender is alive")
}

fn round_trips<S: Send64>(rounds: u64, make: impl Fn() -> Channel<S>) -> f64 {
    let ((to_b, at_b), (to_a, at_a)) = (make(), make());
    let start = Instant::now();
    let a = coro::spawn(move || {
        for i in 0..rounds {
            to_b.put(i);
            assert_eq!(next(&at_a), i);
        }
    });
    let b = coro::spawn(move || {
        for _ in 0..rounds {
            to_a.put(next(&at_b));
        }
    });
    join(a);
    join(b);
    ns_each(start.elapsed(), rounds as usize)
}

/// The message after the last one.
const END: u64 = u64::MAX;

/// Between tasks that are kept on two workers: nanoseconds of a round trip, and then, for so long, what the process uses of a CPU
/// while both wait for a message.
fn round_trips_across<S: Send64>(rounds: u64, wait: Duration, make: impl Fn() -> Channel<S>) -> (f64, f64) {
    let ((to_b, at_b), (to_a, at_a)) = (make(), make());
    let (end, (done, took)) = (to_a.clone(), mpsc::channel());
    let start = Instant::now();
    let a = Builder::new().worker(0).spawn(move || {
        for i in 0..rounds {
            to_b.put(i);
            assert_eq!(next(&at_a), i);
        }
        done.send(start.elapsed()).expect("somebody waits for it");
        assert_eq!(next(&at_a), END);
        to_b.put(END);
    });
    let b = Builder::new().worker(1).spawn(move || {
        for _ in 0..rounds {
            to_a.put(next(&at_b));
        }
        assert_eq!(next(&at_b), END);
    });
    let took = took.recv().expect("the first side is alive");
    let idle = Idle::begin();
    coro::sleep(wait);
    let idle = idle.percent();
    end.put(END);
    for side in [a, b] {
        join(side.expect("room for two tasks"));
    }
    (ns_each(took, rounds as usize), idle)
}

fn pingpong(args: &Args) -> bool {
    match (args.text("place", "natural"), args.text("chan", "b")) {
        ("cross", _) if args.workers < 2 => return false,
        ("cross", kind) => {
            let (rounds, wait) = (args.number("rounds", 200_000), Duration::from_millis(args.number("idle", 0)));
            let (kind, (value, idle)) = match kind {
                "b" => ("b1", round_trips_across(rounds, wait, || mpsc::sync_channel(1))),
                _ => ("unb", round_trips_across(rounds, wait, mpsc::channel)),
            };
            let case = format!("pingpong-cross.{kind}");
            args.report(&case, "ns_per_round_trip", value);
            if !wait.is_zero() {
                args.report(&case, "idle_cpu_pct", idle);
            }
        }
        (_, kind) => {
            let rounds = args.number("rounds", 1_000_000);
            let (kind, value) = match kind {
                "b" => ("b1", round_trips(rounds, || mpsc::sync_channel(1))),
                _ => ("unb", round_trips(rounds, mpsc::channel)),
            };
            args.report(&format!("pingpong.{kind}"), "ns_per_round_trip", value);
        }
    }
    true
}

fn gather<S: Send64>(producers: usize, total: usize, (to, from): Channel<S>) -> f64 {
    let each = total / producers;
    let start = Instant::now();
    for _ in 0..producers {
        let to = to.clone();
        coro::spawn(move || (0..each as u64).for_each(|i| to.put(i)));
    }
    let consumer = coro::spawn(move || {
        (0..each * producers).fold(0u64, |sum, _| sum.wrapping_add(from.recv().expect("a sender is alive")))
    });
    let sum = join(consumer);
    drop(to);
    let took = start.elapsed();
    assert_eq!(sum, (producers * (each * each.saturating_sub(1) / 2)) as u64, "a message was lost or came twice");
    ns_each(took, each * producers)
}

fn fan_in(args: &Args) {
    let (producers, total) = (args.number("producers", 16), args.number("total", 4_000_000));
    let (case, value) = match args.text("chan", "b") {
        "b" => ("fanin.b1024", gather(producers, total, mpsc::sync_channel(args.number("cap", 1024)))),
        _ => ("fanin.unb", gather(producers, total, mpsc::channel())),
    };
    args.report(case, "ns_per_msg", value);
}

fn mutex(args: &Args) {
    let (tasks, rounds) = (args.number("tasks", 100usize), args.number("iters", 100_000usize));
    let every = args.number("every", 1000usize);
    let counter = Arc::new(Mutex::new(0u64));
    let start = Instant::now();
    let handles: Vec<_> = (0..tasks)
        .map(|_| {
            let counter = counter.clone();
            coro::spawn(move || {
                for i in 1..=rounds {
                    let mut guard = counter.lock().expect("no holder panics");
                    *guard += 1;
                    if every != 0 && i % every == 0 {
                        coro::yield_slice();
                    }
                }
            })
        })
        .collect();
    handles.into_iter().for_each(join);
    let took = start.elapsed();
    assert_eq!(*counter.lock().expect("no holder panicked"), (tasks * rounds) as u64, "the lock lost an update");
    args.report("mutex", "ns_per_lock", ns_each(took, tasks * rounds));
}

fn timers(args: &Args) {
    let (tasks, each) = (args.number("conc", 100_000usize), args.number("per", 10usize));
    let late = Arc::new(Histogram::new());
    let (start, cpu) = (Instant::now(), cpu_time());
    let handles: Vec<_> = (1..=tasks as u64)
        .map(|seed| {
            let late = late.clone();
            coro::spawn(move || {
                let mut random = Random::new(seed);
                for round in 0..each {
                    let wanted = Duration::from_millis(1 + random.below(1000));
                    let start = Instant::now();
                    coro::sleep(wanted);
                    let slept = start.elapsed();
                    assert!(slept >= wanted, "a sleep ended early");
                    // The first sleep of each task feels the burst of spawns.
                    if round > 0 {
                        late.add((slept - wanted).as_nanos() as u64);
                    }
                }
            })
        })
        .collect();
    handles.into_iter().for_each(join);
    let (cpu, wall) = (cpu_time() - cpu, start.elapsed());
    args.report("timers", "cpu_ns_per_timer", ns_each(cpu, tasks * each));
    for (metric, ns) in
        [("late_p50_us", late.quantile(0.5)), ("late_p99_us", late.quantile(0.99)), ("late_max_us", late.max())]
    {
        args.report("timers", metric, ns as f64 / 1e3);
    }
    args.report("timers", "wall_s", wall.as_secs_f64());
}

fn memory(args: &Args) -> bool {
    let (n, kind) = (args.number("n", 10_000usize), args.text("kind", "park"));
    let wait: fn() = match kind {
        "park" => || loop {
            coro::park();
        },
        "sleep" => || coro::sleep(Duration::from_secs(3600)),
        _ => return false,
    };
    // Whatever the first task brings with it is not a cost of each.
    join(coro::spawn(coro::yield_slice));
    let before = Memory::now();
    let line = Arc::new(StartLine::new(n));
    for _ in 0..n {
        let line = line.clone();
        coro::spawn(move || {
            line.cross();
            wait();
        });
    }
    let took = loop {
        coro::sleep(Duration::from_millis(1));
        if let Some(took) = line.took() {
            break took;
        }
    };
    coro::sleep(Duration::from_millis(5));
    let after = Memory::now();
    let case = format!("mem.{kind}.{n}");
    let tables = after.tables - before.tables;
    args.report(&case, "bytes_per_task", (after.resident - before.resident + tables) / n as f64);
    args.report(&case, "pte_bytes_per_task", tables / n as f64);
    args.report(&case, "create_ns_per_task", ns_each(took, n));
    true
}
