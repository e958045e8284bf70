//! What the basic operations cost, through the public API, with everything that is on by default.
//!
//! `cargo bench --bench switch` prints nanoseconds, medians of five rounds, and the same in readings of the monotonic
//! clock on this machine, which makes figures of two machines comparable. Ratios against other runtimes need them side
//! by side in the same minute: that is `benches/peers`'s work, and nothing of them is built here.

use std::cell::Cell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use coro::Runtime;

const ROUNDS: usize = 5;

/// The median of some rounds, in nanoseconds for each of `units`.
fn median(units: usize, mut round: impl FnMut() -> Duration) -> f64 {
    let mut each: Vec<f64> = (0..ROUNDS).map(|_| round().as_nanos() as f64 / units as f64).collect();
    each.sort_by(f64::total_cmp);
    each[ROUNDS / 2]
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn clock_reading() -> f64 {
    const N: usize = 1_000_000;
    median(N, || timed(|| (0..N).for_each(|_| _ = black_box(Instant::now()))))
}

fn yields(runtime: &Runtime, tasks: usize) -> f64 {
    let each = 1_000_000 / tasks;
    let body = move || (0..each).for_each(|_| coro::yield_slice());
    median(each * tasks, || {
        runtime.block_on(|| {
            timed(|| {
                let all: Vec<_> = (0..tasks).map(|_| coro::spawn(body)).collect();
                all.into_iter().for_each(|task| task.join().expect("a yielding task does not panic"));
            })
        })
    })
}

fn spawn_join(runtime: &Runtime) -> f64 {
    const WAVE: u64 = 1000;
    const WAVES: u64 = 200;
    median((WAVE * WAVES) as usize, || {
        runtime.block_on(|| {
            timed(|| {
                for _ in 0..WAVES {
                    let wave: Vec<_> = (0..WAVE).map(|i| coro::spawn(move || i)).collect();
                    let sum: u64 = wave.into_iter().map(|task| task.join().expect("it returns a number")).sum();
                    assert_eq!(sum, WAVE * (WAVE - 1) / 2);
                }
            })
        })
    })
}

coro::thread_local!(static COUNTER: Cell<u64> = const { Cell::new(0) });

fn local(runtime: &Runtime) -> f64 {
    const N: usize = 10_000_000;
    median(N, || runtime.block_on(|| timed(|| (0..N).for_each(|_| COUNTER.with(|c| c.set(black_box(c.get() + 1)))))))
}

/// Per parked task, from the first look to the last byte of text, asked for by a plain thread.
fn where_all(runtime: &Runtime, tasks: usize) -> f64 {
    let parked: Vec<_> = runtime.block_on(|| (0..tasks).map(|_| coro::spawn(|| coro::sleep(HOUR))).collect());
    while runtime.worker_stats().iter().any(|w| w.unstarted > 0) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let value = median(tasks, || {
        timed(|| {
            let mut text = String::new();
            for task in coro::where_all() {
                let _ = writeln!(text, "{task}");
            }
            assert!(text.lines().count() >= tasks, "a parked task is missing");
        })
    });
    parked.iter().for_each(|t| _ = t.cancel());
    parked.into_iter().for_each(|task| assert!(task.join().is_err_and(|payload| coro::is_cancel(&*payload))));
    value
}

const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    let runtime = Runtime::builder().workers(1).build().expect("one worker can be started");
    let unit = clock_reading();
    let rows = [
        ("reading of the monotonic clock", unit),
        ("yield, 2 tasks", yields(&runtime, 2)),
        ("yield, 100 tasks", yields(&runtime, 100)),
        ("yield, 10,000 tasks", yields(&runtime, 10_000)),
        ("spawn and join, waves of 1,000", spawn_join(&runtime)),
        ("a task local, read and written", local(&runtime)),
        ("where_all, each of 100,000 tasks", where_all(&runtime, 100_000)),
    ];
    println!("{:34} {:>10} {:>14}", "one worker", "ns", "clock readings");
    for (name, ns) in rows {
        println!("{name:34} {ns:>10.1} {:>14.1}", ns / unit);
    }
}
