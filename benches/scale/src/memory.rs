//! A burst of tasks that all exist at once, and what is left of its memory when they have ended and nothing happens any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::Runtime;

use crate::measure::Memory;

/// What may be left, and how soon: `docs/performance.md` promises it.
pub(crate) const LEFT_AT_MOST: f64 = (64 << 20) as f64;
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

fn total() -> f64 {
    let memory = Memory::now();
    memory.resident + memory.tables
}

fn burst(n: usize) {
    let (parked, end) = (Arc::new(AtomicUsize::new(0)), Arc::new(coro::sync::Event::new()));
    let tasks: Vec<_> = (0..n)
        .map(|_| {
            let (parked, end) = (parked.clone(), end.clone());
            coro::spawn(move || {
                parked.fetch_add(1, Ordering::Relaxed);
                end.wait();
            })
        })
        .collect();
    while parked.load(Ordering::Relaxed) < n {
        coro::sleep(Duration::from_millis(1));
    }
    println!("peak_mib {:.3}", total() / (1 << 20) as f64);
    end.set();
    tasks.into_iter().for_each(|task| task.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload)));
}

/// `n` tasks at once. The figures are above what the process had before them.
pub(crate) fn run(runtime: &Runtime, n: usize) {
    // Whatever the first task brings with it is not a cost of many.
    runtime.block_on(coro::yield_slice);
    let before = total();
    println!("before_mib {:.3}", before / (1 << 20) as f64);
    runtime.block_on(|| burst(n));
    let ended = Instant::now();
    let left = || total() - before;
    println!("at_end_mib {:.3}", left() / (1 << 20) as f64);
    let mut soon = None;
    while ended.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
        if left() < LEFT_AT_MOST {
            soon.get_or_insert(ended.elapsed());
        }
    }
    println!("left_mib {:.3}", left() / (1 << 20) as f64);
    // Nothing if it was too late: whoever reads it tells that.
    if let Some(soon) = soon {
        println!("below_after_s {:.3}", soon.as_secs_f64());
    }
}
