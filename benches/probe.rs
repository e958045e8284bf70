//! What a probe point costs: while nobody watches, and with the instruments that are made to be cheap.
//!
//! `cargo bench --bench probe -- [ROUNDS [CALLS [NAME]]]` prints nanoseconds a call, medians of nine rounds of a million calls, in turn
//! with the same function without a point, on a task of one worker; with a name, of that line alone. Above them stands a reading of the clock that
//! durations are measured by: a histogram needs two, a lifespan one, and the rest is ours. Instructions a call: the difference of two runs
//! under callgrind, of one round each with different numbers of calls, divided by that of the calls. Where something else runs, many short
//! rounds say more than a few long ones: `-- 101 10000`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use coro::probe::{Attach, Attached, Events, attach_to};

/// How much is measured.
#[derive(Clone, Copy)]
struct Amount {
    rounds: usize,
    calls: u64,
}

#[inline(never)]
fn plain(n: u64) -> u64 {
    black_box(n) + 1
}

#[coro::probe]
#[inline(never)]
fn probed(n: u64) -> u64 {
    black_box(n) + 1
}

fn timed(calls: u64, f: fn(u64) -> u64) -> f64 {
    let begun = Instant::now();
    for n in 0..calls {
        black_box(f(n));
    }
    begun.elapsed().as_nanos() as f64 / calls as f64
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Nanoseconds a call that the point costs, with what is attached.
fn price(amount: Amount, attach: impl Fn() -> Option<Attached>) -> f64 {
    let rounds: Vec<f64> = (0..amount.rounds)
        .map(|_| {
            let without = timed(amount.calls, plain);
            let attached = attach();
            let with = timed(amount.calls, probed);
            drop(attached);
            with - without
        })
        .collect();
    median(rounds)
}

/// Nanoseconds of one reading of a clock.
fn clock<T>(amount: Amount, read: impl Fn() -> T) -> f64 {
    let rounds: Vec<f64> = (0..amount.rounds)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..amount.calls {
                black_box(read());
            }
            begun.elapsed().as_nanos() as f64 / amount.calls as f64
        })
        .collect();
    median(rounds)
}

/// What slices and probes are timed by, where the kernel trusts it.
#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    #[allow(unused_unsafe, reason = "it may be safe in a later compiler")]
    // SAFETY: the instruction has no preconditions.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.iter().any(|arg| arg == "--test") {
        return;
    }
    let number =
        |at: usize| args.get(at).map(|arg| arg.parse::<u64>().unwrap_or_else(|_| panic!("{arg:?} is no number")));
    let amount =
        Amount { rounds: number(0).unwrap_or(9).max(1) as usize, calls: number(1).unwrap_or(1_000_000).max(1) };
    let only = args.get(2).cloned();
    coro::Runtime::builder().workers(1).build().expect("a runtime").block_on(move || {
        coro::set_latency_warning(Duration::ZERO);
        let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
        if only.is_none() {
            #[cfg(target_arch = "x86_64")]
            println!("one clock read (rdtsc)   {:6.1} ns", clock(amount, counter));
            println!("std's clock read         {:6.1} ns", clock(amount, Instant::now));
        }
        type Made = Option<fn(Attach) -> Attach>;
        let made: [(&str, Made); 11] = [
            ("nobody watches", None),
            ("count", Some(|a| a.count())),
            ("count with a lifespan", Some(|a| a.count().lifespan(Duration::from_secs(600)))),
            ("histogram", Some(|a| a.histogram())),
            ("histogram, lifespan", Some(|a| a.histogram().lifespan(Duration::from_secs(600)))),
            ("count and histogram", Some(|a| a.count().histogram())),
            ("rate", Some(|a| a.rate())),
            ("count of returns", Some(|a| a.count_of(Events::RETURN))),
            (
                "count if n is even",
                Some(|a| {
                    let even = |n| matches!(n, Some(coro::console::Value::Int(n)) if n % 2 == 0);
                    a.count().when(move |event| even(event.value("n")))
                }),
            ),
            ("top(n)", Some(|a| a.top("n"))),
            ("condition, expression", Some(|a| a.count().condition("n % 2 == 0").cost(100.0))),
        ];
        for (name, make) in made.into_iter().filter(|(name, _)| wanted(name)) {
            let attach = || make.map(|make| make(attach_to("probed")).cost(100.0).start().expect("a probe"));
            println!("{name:<24} {:6.1} ns", price(amount, attach));
        }
    });
}
