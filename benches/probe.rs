//! What a probe point costs: while nobody watches, and with the instruments that are made to be cheap.
//!
//! `cargo bench --bench probe` prints nanoseconds a call, medians of nine rounds in turn with the same function without a point, on a
//! task of one worker; a reading of the slice clock stands beside them, because durations need two.

use std::hint::black_box;
use std::time::{Duration, Instant};

use coro::probe::{Attach, Attached, Events, attach_to};

const ROUNDS: usize = 9;
const CALLS: u64 = 1_000_000;

#[inline(never)]
fn plain(n: u64) -> u64 {
    black_box(n) + 1
}

#[coro::probe]
#[inline(never)]
fn probed(n: u64) -> u64 {
    black_box(n) + 1
}

fn timed(f: fn(u64) -> u64) -> f64 {
    let begun = Instant::now();
    for n in 0..CALLS {
        black_box(f(n));
    }
    begun.elapsed().as_nanos() as f64 / CALLS as f64
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Nanoseconds a call that the point costs, with what is attached.
fn price(attach: impl Fn() -> Option<Attached>) -> f64 {
    let rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let without = timed(plain);
            let attached = attach();
            let with = timed(probed);
            drop(attached);
            with - without
        })
        .collect();
    median(rounds)
}

fn clock() -> f64 {
    let rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..CALLS {
                black_box(Instant::now());
            }
            begun.elapsed().as_nanos() as f64 / CALLS as f64
        })
        .collect();
    median(rounds)
}

fn main() {
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    coro::Runtime::builder().workers(1).build().expect("a runtime").block_on(|| {
        coro::set_latency_warning(Duration::ZERO);
        println!("std's clock read         {:6.1} ns", clock());
        println!("nobody watches           {:6.1} ns", price(|| None));
        type Made = fn(Attach) -> Attach;
        let made: [(&str, Made); 8] = [
            ("count", |a| a.count()),
            ("count with a lifespan", |a| a.count().lifespan(Duration::from_secs(600))),
            ("histogram", |a| a.histogram()),
            ("rate", |a| a.rate()),
            ("count of returns", |a| a.count_of(Events::RETURN)),
            ("count if n is even", |a| {
                a.count().when(|event| matches!(event.value("n"), Some(coro::console::Value::Int(n)) if n % 2 == 0))
            }),
            ("top(n)", |a| a.top("n")),
            ("condition, expression", |a| a.count().condition("n % 2 == 0").cost(100.0)),
        ];
        for (name, make) in made {
            let attach = || Some(make(attach_to("probed")).cost(100.0).start().expect("a probe"));
            println!("{name:<24} {:6.1} ns", price(attach));
        }
    });
}
