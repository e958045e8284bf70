//! The workloads that need no network, for every runtime whose tasks are futures.
//!
//! [`Peer`] names what a runtime has: its own spawn, yield, sleep, channels and lock, no substitutes. All of it is generic and
//! compiled for each runtime, so nothing lies between a workload and what it calls. The work is that of `benches/peer-coro`.
//!
//! This file is there twice, for runtimes whose tasks may go to another thread and for those whose tasks never do: the module around
//! it says in `Bound` and `Common` whether anything has to be `Send`, and `Sync`.

use std::future::{self, Future};
use std::ops::DerefMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::super::{Refused, report_memory, report_timers, sum_of};
use super::{Bound, Common, STAY};
use crate::args::Args;
use crate::measure::{Histogram, Memory, Random, StartLine, cpu_time, ns_each};

/// A runtime whose tasks are futures.
pub(crate) trait Peer: 'static {
    type Handle<T: Bound + 'static>: Bound;
    type Bounded: Sender;
    type BoundedReceiver: Receiver;
    type Unbounded: Sender;
    type UnboundedReceiver: Receiver;
    type Lock: Lock;

    fn spawn<T: Bound + 'static>(task: impl Future<Output = T> + Bound + 'static) -> Self::Handle<T>;
    fn join<T: Bound + 'static>(handle: Self::Handle<T>) -> impl Future<Output = T> + Bound;
    /// The task goes on without its handle.
    fn detach(handle: Self::Handle<()>);
    fn yield_now() -> impl Future<Output = ()> + Bound;
    fn sleep(time: Duration) -> impl Future<Output = ()> + Bound;
    fn bounded(capacity: usize) -> (Self::Bounded, Self::BoundedReceiver);
    fn unbounded() -> (Self::Unbounded, Self::UnboundedReceiver);
}

pub(crate) trait Sender: Clone + Common + 'static {
    fn put(&self, value: u64) -> impl Future<Output = ()> + Bound;
}

pub(crate) trait Receiver: Bound + 'static {
    fn next(&mut self) -> impl Future<Output = u64> + Bound;
}

pub(crate) trait Lock: Common + 'static {
    fn new(value: u64) -> Self;
    fn lock(&self) -> impl Future<Output = impl DerefMut<Target = u64> + Bound> + Bound;
}

/// Runs the workload in the calling task.
pub(crate) async fn in_task<P: Peer>(args: Args) -> Result<(), Refused> {
    match args.workload.as_str() {
        "yield" => yields::<P>(&args).await,
        "yieldcheck" => rotation::<P>(&args).await,
        "spawn" => return spawn::<P>(&args).await,
        "pingpong" => ping_pong::<P>(&args).await,
        "fanin" => fan_in::<P>(&args).await,
        "mutex" => mutex::<P>(&args).await,
        "timers" => timers::<P>(&args).await,
        "mem" => memory::<P>(&args).await,
        _ => return Err(Refused::unknown(&args)),
    }
    Ok(())
}

async fn join_all<P: Peer>(handles: Vec<P::Handle<()>>) {
    for handle in handles {
        P::join(handle).await;
    }
}

async fn yields<P: Peer>(args: &Args) {
    let n = args.number("n", 2);
    let each = args.number("total", 10_000_000) / n;
    let start = Instant::now();
    let body = move || async move {
        for _ in 0..each {
            P::yield_now().await;
        }
    };
    join_all::<P>((0..n).map(|_| P::spawn(body())).collect()).await;
    args.report(&format!("yield.{n}"), "ns_per_yield", ns_each(start.elapsed(), each * n));
}

/// After how many of all yields another task had run.
async fn rotation<P: Peer>(args: &Args) {
    let (n, each) = (args.number("n", 100usize), args.number("per", 1000usize));
    let shared = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let body = |me: usize| {
        let shared = shared.clone();
        async move {
            let (last, turned) = &*shared;
            for _ in 0..each {
                last.store(me, Ordering::Relaxed);
                P::yield_now().await;
                if last.load(Ordering::Relaxed) != me {
                    turned.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    join_all::<P>((0..n).map(|me| P::spawn(body(me))).collect()).await;
    let turned = shared.1.load(Ordering::Relaxed);
    args.report("yieldcheck", "rotation_pct", turned as f64 * 100.0 / (n * each) as f64);
}

/// Tasks in waves, each joined before the next; returns nanoseconds per task. What `spawn` returns joins what it has spawned.
async fn waves<F: Future<Output = u64> + Bound>(total: usize, wave: usize, spawn: impl Fn(u64) -> F + Common) -> f64 {
    let wave = wave.clamp(1, total.max(1));
    let start = Instant::now();
    let mut handles = Vec::with_capacity(wave);
    let mut sum = 0u64;
    for _ in 0..total / wave {
        handles.extend((0..wave as u64).map(&spawn));
        for handle in handles.drain(..) {
            sum += handle.await;
        }
    }
    let took = start.elapsed();
    assert_eq!(sum, sum_of(total / wave, wave), "a task was lost or ran twice");
    ns_each(took, total / wave * wave)
}

async fn spawn<P: Peer>(args: &Args) -> Result<(), Refused> {
    let total = args.number("total", 1_000_000);
    let spawn = |i| P::join(P::spawn(async move { i }));
    let (case, value) = match args.text("mode", "burst") {
        "burst" => ("spawn.burst", waves(total, total, spawn).await),
        "waves" => ("spawn.waves", waves(total, args.number("wave", 1000), spawn).await),
        "local" if STAY => {
            spawn_staying(args, spawn).await;
            return Ok(());
        }
        _ => return Err(Refused::unknown(args)),
    };
    args.report(case, "ns_per_task", value);
    Ok(())
}

/// `spawn mode=local`: tasks that stay on their thread.
pub(crate) async fn spawn_staying<F: Future<Output = u64> + Bound>(args: &Args, spawn: impl Fn(u64) -> F + Common) {
    let value = waves(args.number("total", 1_000_000), args.number("wave", 1000), spawn).await;
    args.report("spawn.local", "ns_per_task", value);
}

async fn round_trips<P: Peer, S: Sender, R: Receiver>(rounds: u64, make: impl Fn() -> (S, R)) -> f64 {
    let ((to_b, mut at_b), (to_a, mut at_a)) = (make(), make());
    let start = Instant::now();
    let a = P::spawn(async move {
        for i in 0..rounds {
            to_b.put(i).await;
            assert_eq!(at_a.next().await, i);
        }
    });
    let b = P::spawn(async move {
        for _ in 0..rounds {
            let value = at_b.next().await;
            to_a.put(value).await;
        }
    });
    P::join(a).await;
    P::join(b).await;
    ns_each(start.elapsed(), rounds as usize)
}

async fn ping_pong<P: Peer>(args: &Args) {
    let rounds = args.number("rounds", 1_000_000);
    let (case, value) = match args.text("chan", "b") {
        "b" => ("pingpong.b1", round_trips::<P, _, _>(rounds, || P::bounded(1)).await),
        _ => ("pingpong.unb", round_trips::<P, _, _>(rounds, P::unbounded).await),
    };
    args.report(case, "ns_per_round_trip", value);
}

async fn gather<P: Peer, S: Sender, R: Receiver>(producers: usize, total: usize, (to, mut from): (S, R)) -> f64 {
    let each = total / producers;
    let start = Instant::now();
    for _ in 0..producers {
        let to = to.clone();
        P::detach(P::spawn(async move {
            for i in 0..each as u64 {
                to.put(i).await;
            }
        }));
    }
    let consumer = P::spawn(async move {
        let mut sum = 0u64;
        for _ in 0..each * producers {
            sum = sum.wrapping_add(from.next().await);
        }
        sum
    });
    let sum = P::join(consumer).await;
    drop(to);
    let took = start.elapsed();
    assert_eq!(sum, sum_of(producers, each), "a message was lost or came twice");
    ns_each(took, each * producers)
}

async fn fan_in<P: Peer>(args: &Args) {
    let (producers, total) = (args.number("producers", 16), args.number("total", 4_000_000));
    let (case, value) = match args.text("chan", "b") {
        "b" => ("fanin.b1024", gather::<P, _, _>(producers, total, P::bounded(args.number("cap", 1024))).await),
        _ => ("fanin.unb", gather::<P, _, _>(producers, total, P::unbounded()).await),
    };
    args.report(case, "ns_per_msg", value);
}

async fn mutex<P: Peer>(args: &Args) {
    let (tasks, rounds) = (args.number("tasks", 100usize), args.number("iters", 100_000usize));
    let every = args.number("every", 1000usize);
    let counter = Arc::new(P::Lock::new(0));
    let start = Instant::now();
    let body = |counter: Arc<P::Lock>| async move {
        for i in 1..=rounds {
            let mut guard = counter.lock().await;
            *guard += 1;
            if every != 0 && i % every == 0 {
                P::yield_now().await;
            }
        }
    };
    join_all::<P>((0..tasks).map(|_| P::spawn(body(counter.clone()))).collect()).await;
    let took = start.elapsed();
    assert_eq!(*counter.lock().await, (tasks * rounds) as u64, "the lock lost an update");
    args.report("mutex", "ns_per_lock", ns_each(took, tasks * rounds));
}

async fn timers<P: Peer>(args: &Args) {
    let (tasks, each) = (args.number("conc", 100_000usize), args.number("per", 10usize));
    let late = Arc::new(Histogram::new());
    let (start, cpu) = (Instant::now(), cpu_time());
    let body = |seed: u64, late: Arc<Histogram>| async move {
        let mut random = Random::new(seed);
        for round in 0..each {
            let wanted = Duration::from_millis(1 + random.below(1000));
            let start = Instant::now();
            P::sleep(wanted).await;
            let slept = start.elapsed();
            assert!(slept >= wanted, "a sleep ended early");
            // The first sleep of each task feels the burst of spawns.
            if round > 0 {
                late.add((slept - wanted).as_nanos() as u64);
            }
        }
    };
    join_all::<P>((1..=tasks as u64).map(|seed| P::spawn(body(seed, late.clone()))).collect()).await;
    report_timers(args, &late, cpu_time() - cpu, start.elapsed(), tasks * each);
}

async fn memory<P: Peer>(args: &Args) {
    let n = args.number("n", 10_000usize);
    // Whatever the first task brings with it is not a cost of each.
    P::join(P::spawn(future::ready(()))).await;
    let before = Memory::now();
    let line = Arc::new(StartLine::new(n));
    for _ in 0..n {
        let line = line.clone();
        P::detach(P::spawn(async move {
            line.cross();
            future::pending::<()>().await;
        }));
    }
    let took = loop {
        // Not by yielding, which in some runtimes lets no new task begin.
        P::sleep(Duration::from_millis(1)).await;
        if let Some(took) = line.took() {
            break took;
        }
    };
    P::sleep(Duration::from_millis(5)).await;
    report_memory(args, before, Memory::now(), took, n);
}
