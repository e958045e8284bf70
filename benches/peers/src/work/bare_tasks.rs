//! The workloads that need no network, without a runtime: with one worker only, on what `floor` has. The work is that of
//! `benches/peer-coro`.

use std::cell::Cell;
use std::hint::black_box;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::floor::{Channel, Floor, Lock, Task};
use super::{Refused, cross, report_memory, report_timers, sum_of};
use crate::args::Args;
use crate::measure::{Histogram, Memory, Random, StartLine, cpu_time, ns_each};

pub(super) fn run(args: &Args) -> Result<(), Refused> {
    if args.workers > 1 || cross::asked_for(args) {
        return Err(Refused::Unsupported("one thread".to_owned()));
    }
    // What is parked at the end stays so.
    let floor = &mut *ManuallyDrop::new(Floor::new());
    match args.workload.as_str() {
        "yield" => yields(args, floor),
        "yieldcheck" => rotation(args, floor),
        "spawn" => return spawn(args, floor),
        "pingpong" => ping_pong(args, floor),
        "fanin" => fan_in(args, floor),
        "mutex" => mutex(args, floor),
        "timers" => timers(args, floor),
        "mem" if args.text("kind", "park") == "park" => memory(args, floor),
        _ => return Err(Refused::unknown(args)),
    }
    Ok(())
}

fn yields(args: &Args, floor: &mut Floor) {
    let n = args.number("n", 2);
    let each = args.number("total", 10_000_000) / n;
    let start = Instant::now();
    let body = move |task: Task<'_>| (0..each).for_each(|_| task.yield_now());
    floor.join((0..n).map(|_| body)).for_each(drop);
    args.report(&format!("yield.{n}"), "ns_per_yield", ns_each(start.elapsed(), each * n));
}

/// After how many of all yields another task had run.
fn rotation(args: &Args, floor: &mut Floor) {
    let (n, each) = (args.number("n", 100usize), args.number("per", 1000usize));
    let last = Rc::new(Cell::new(0));
    let body = |me: usize| {
        let last = last.clone();
        move |task: Task<'_>| {
            let turned = |_: &usize| {
                last.set(me);
                task.yield_now();
                last.get() != me
            };
            (0..each).filter(turned).count()
        }
    };
    let turned: usize = floor.join((0..n).map(body)).sum();
    args.report("yieldcheck", "rotation_pct", turned as f64 * 100.0 / (n * each) as f64);
}

fn spawn(args: &Args, floor: &mut Floor) -> Result<(), Refused> {
    let total = args.number("total", 1_000_000usize);
    let (case, wave) = match args.text("mode", "burst") {
        "burst" => ("spawn.burst", total),
        "waves" => ("spawn.waves", args.number("wave", 1000)),
        // All of them stay on their thread.
        "local" => ("spawn.local", args.number("wave", 1000)),
        _ => return Err(Refused::unknown(args)),
    };
    let wave = wave.clamp(1, total.max(1));
    let start = Instant::now();
    let mut handles = Vec::with_capacity(wave);
    let mut sum = 0u64;
    for _ in 0..total / wave {
        handles.extend((0..wave as u64).map(|i| floor.spawn(move |_| i)));
        floor.run();
        sum += handles.drain(..).map(|task| task.returned()).sum::<u64>();
    }
    let took = start.elapsed();
    assert_eq!(sum, sum_of(total / wave, wave), "a task was lost or ran twice");
    args.report(case, "ns_per_task", ns_each(took, total / wave * wave));
    Ok(())
}

fn ping_pong(args: &Args, floor: &mut Floor) {
    let rounds = args.number("rounds", 1_000_000u64);
    let (case, room) = if args.text("chan", "b") == "b" { ("pingpong.b1", 1) } else { ("pingpong.unb", usize::MAX) };
    let (to_a, to_b) = (Channel::new(room), Channel::new(room));
    let (at_a, at_b) = (to_a.clone(), to_b.clone());
    let start = Instant::now();
    floor.spawn(move |task| (0..rounds).for_each(|_| to_a.put(task, at_b.next(task))));
    let a = move |task: Task<'_>| {
        for i in 0..rounds {
            to_b.put(task, i);
            assert_eq!(at_a.next(task), i);
        }
    };
    floor.join([a].into_iter()).for_each(drop);
    args.report(case, "ns_per_round_trip", ns_each(start.elapsed(), rounds as usize));
}

fn fan_in(args: &Args, floor: &mut Floor) {
    let (producers, total) = (args.number("producers", 16usize), args.number("total", 4_000_000usize));
    let each = total / producers;
    let (case, room) = match args.text("chan", "b") {
        "b" => ("fanin.b1024", args.number("cap", 1024)),
        _ => ("fanin.unb", usize::MAX),
    };
    let channel = Channel::new(room);
    let start = Instant::now();
    for _ in 0..producers {
        let to = channel.clone();
        floor.spawn(move |task| (0..each as u64).for_each(|i| to.put(task, i)));
    }
    let consumer =
        move |task: Task<'_>| (0..each * producers).fold(0u64, |sum, _| sum.wrapping_add(channel.next(task)));
    let sum: u64 = floor.join([consumer].into_iter()).sum();
    let took = start.elapsed();
    assert_eq!(sum, sum_of(producers, each), "a message was lost or came twice");
    args.report(case, "ns_per_msg", ns_each(took, each * producers));
}

fn mutex(args: &Args, floor: &mut Floor) {
    let (tasks, rounds) = (args.number("tasks", 100usize), args.number("iters", 100_000usize));
    let every = args.number("every", 1000usize);
    let counter = Rc::new(Lock::new());
    let start = Instant::now();
    let body = |counter: Rc<Lock>| {
        move |task: Task<'_>| {
            for i in 1..=rounds {
                // Or the compiler might make one of a thousand rounds in which nobody else can run.
                let counter = black_box(&*counter);
                counter.lock(task);
                counter.value.set(counter.value.get() + 1);
                if every != 0 && i % every == 0 {
                    task.yield_now();
                }
                black_box(counter).unlock(task);
            }
        }
    };
    floor.join((0..tasks).map(|_| body(counter.clone()))).for_each(drop);
    let took = start.elapsed();
    assert_eq!(counter.value.get(), tasks * rounds, "the lock lost an update");
    args.report("mutex", "ns_per_lock", ns_each(took, tasks * rounds));
}

fn timers(args: &Args, floor: &mut Floor) {
    let (tasks, each) = (args.number("conc", 100_000usize), args.number("per", 10usize));
    let late = Rc::new(Histogram::new());
    let (start, cpu) = (Instant::now(), cpu_time());
    let body = |seed: u64, late: Rc<Histogram>| {
        move |task: Task<'_>| {
            let mut random = Random::new(seed);
            for round in 0..each {
                let wanted = Duration::from_millis(1 + random.below(1000));
                let start = Instant::now();
                task.sleep(wanted);
                let slept = start.elapsed();
                assert!(slept >= wanted, "a sleep ended early");
                // The first sleep of each task feels the burst of spawns.
                if round > 0 {
                    late.add((slept - wanted).as_nanos() as u64);
                }
            }
        }
    };
    floor.join((1..=tasks as u64).map(|seed| body(seed, late.clone()))).for_each(drop);
    report_timers(args, &late, cpu_time() - cpu, start.elapsed(), tasks * each);
}

fn memory(args: &Args, floor: &mut Floor) {
    let n = args.number("n", 10_000usize);
    // Whatever the first task brings with it is not a cost of each.
    floor.join([|task: Task<'_>| task.yield_now()].into_iter()).for_each(drop);
    let before = Memory::now();
    let line = Rc::new(StartLine::new(n));
    for _ in 0..n {
        let line = line.clone();
        floor.spawn(move |task| {
            line.cross();
            loop {
                task.wait();
            }
        });
    }
    floor.run();
    let took = line.took().expect("all have started");
    report_memory(args, before, Memory::now(), took, n);
}
