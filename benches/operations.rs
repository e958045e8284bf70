//! What the basic operations cost, through the public API, with everything that is on by default, under criterion.
//!
//! ```sh
//! cargo bench --bench operations                      # all; the change since the last run is told with its interval
//! cargo bench --bench operations -- yield             # those whose name matches
//! cargo bench --bench operations -- --save-baseline before    # then, after a change: -- --baseline before
//! ```
//!
//! On a machine that others use as well the reading of the clock, which no change here can move, tells how fast it is just now.
//! Ratios against other runtimes need them side by side in the same minute: that is `benches/peers`'s work, and nothing of them is
//! built here. `benches/instructions` is what CI holds.

use std::cell::Cell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use coro::sync::{Mutex, RwLock, Semaphore, mpsc};
use coro::{JoinHandle, Runtime};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const HOUR: Duration = Duration::from_secs(3600);
const WAVE: u64 = 1000;

fn one_worker() -> Runtime {
    Runtime::builder().workers(1).build().expect("one worker can be started")
}

fn join<T>(task: JoinHandle<T>) -> T {
    task.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

/// What the harness asks for is done by a task, which says how long it took.
fn by_a_task(criterion: &mut Criterion, name: &str, work: impl Fn(u64) -> Duration + Sync) {
    let runtime = one_worker();
    let work = |times| {
        // It keeps its worker to itself for long, as it should.
        coro::set_own_latency_warning(Duration::ZERO);
        work(times)
    };
    criterion.bench_function(name, |bencher| bencher.iter_custom(|times| runtime.block_on(|| work(times))));
}

/// An operation that is over when it returns.
fn operation(criterion: &mut Criterion, name: &str, each: impl Fn(u64) + Sync) {
    by_a_task(criterion, name, |times| {
        let start = Instant::now();
        (0..times).for_each(&each);
        start.elapsed()
    });
}

/// The time of `done` operations, as that of so many.
fn of(times: u64, done: u64, took: Duration) -> Duration {
    took.mul_f64(times as f64 / done as f64)
}

fn clock(criterion: &mut Criterion) {
    criterion.bench_function("clock reading", |bencher| bencher.iter(Instant::now));
}

fn yields(criterion: &mut Criterion) {
    let runtime = one_worker();
    let mut group = criterion.benchmark_group("yield");
    for tasks in [2, 100, 10_000] {
        group.bench_with_input(BenchmarkId::from_parameter(tasks), &tasks, |bencher, &tasks| {
            bencher.iter_custom(|times| {
                let each = times.div_ceil(tasks);
                let took = runtime.block_on(|| {
                    let start = Instant::now();
                    let all: Vec<_> =
                        (0..tasks).map(|_| coro::spawn(move || (0..each).for_each(|_| coro::yield_slice()))).collect();
                    all.into_iter().for_each(join);
                    start.elapsed()
                });
                of(times, each * tasks, took)
            });
        });
    }
}

fn spawns(criterion: &mut Criterion) {
    fn waves(times: u64, spawn: impl Fn(u64) -> JoinHandle<u64>) -> Duration {
        let waves = times.div_ceil(WAVE);
        let start = Instant::now();
        for _ in 0..waves {
            let wave: Vec<_> = (0..WAVE).map(&spawn).collect();
            assert_eq!(wave.into_iter().map(join).sum::<u64>(), WAVE * (WAVE - 1) / 2);
        }
        of(times, waves * WAVE, start.elapsed())
    }
    by_a_task(criterion, "spawn and join, waves of 1,000", |times| waves(times, |i| coro::spawn(move || i)));
    by_a_task(criterion, "the same on its own worker", |times| waves(times, |i| coro::spawn_local(move || i)));
}

fn locks(criterion: &mut Criterion) {
    let (mutex, rwlock, semaphore) = (Mutex::new(0u64), RwLock::new(0u64), Semaphore::new(1));
    operation(criterion, "mutex, lock and unlock", |_| *mutex.lock().expect("nobody panics") += 1);
    operation(criterion, "rwlock, read and unlock", |_| _ = black_box(*rwlock.read().expect("nobody panics")));
    operation(criterion, "semaphore, acquire and release", |_| drop(semaphore.acquire()));
}

fn channels(criterion: &mut Criterion) {
    by_a_task(criterion, "message, unbounded", |times| {
        let (to, from) = mpsc::channel();
        let start = Instant::now();
        for i in 0..times {
            to.send(i).expect("it has a receiver");
            assert_eq!(from.recv(), Ok(i));
        }
        start.elapsed()
    });
    by_a_task(criterion, "round trip, bounded(1)", |times| {
        let (there, answers) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
        let back = answers.0;
        let other = coro::spawn(move || there.1.iter().for_each(|i| back.send(i).expect("it has a receiver")));
        let start = Instant::now();
        for i in 0..times {
            there.0.send(i).expect("it has a receiver");
            assert_eq!(answers.1.recv(), Ok(i));
        }
        let took = start.elapsed();
        drop(there.0);
        join(other);
        took
    });
}

coro::thread_local!(static COUNTER: Cell<u64> = const { Cell::new(0) });

fn others(criterion: &mut Criterion) {
    operation(criterion, "a time limit that is not needed", |i| _ = black_box(coro::timeout(HOUR, || black_box(i))));
    operation(criterion, "a task local, read and written", |_| COUNTER.with(|c| c.set(black_box(c.get() + 1))));
}

/// For each parked task, from the first look to the last byte of text, asked for by a plain thread.
fn where_all(criterion: &mut Criterion) {
    const TASKS: usize = 10_000;
    let runtime = one_worker();
    let parked: Vec<_> = runtime.block_on(|| (0..TASKS).map(|_| coro::spawn(|| coro::sleep(HOUR))).collect());
    while runtime.worker_stats().iter().any(|w| w.unstarted > 0) {
        std::thread::sleep(Duration::from_millis(1));
    }
    criterion.bench_function("where_all, each of 10,000 tasks", |bencher| {
        bencher.iter_custom(|times| {
            let dumps = times.div_ceil(TASKS as u64);
            let start = Instant::now();
            for _ in 0..dumps {
                let mut text = String::new();
                for task in coro::where_all() {
                    let _ = writeln!(text, "{task}");
                }
                assert!(text.lines().count() >= TASKS, "a parked task is missing");
            }
            of(times, dumps * TASKS as u64, start.elapsed())
        });
    });
    parked.iter().for_each(|t| _ = t.cancel());
    parked.into_iter().for_each(|task| assert!(task.join().is_err_and(|payload| coro::is_cancel(&*payload))));
}

criterion_group! {
    name = all;
    config = Criterion::default().without_plots().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = clock, yields, spawns, locks, channels, others, where_all
}
criterion_main!(all);
