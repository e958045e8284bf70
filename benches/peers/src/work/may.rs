//! may: stackful like coro, so the bodies are plain functions. It has no bounded channel.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use may::coroutine::{self, JoinHandle};
use may::go;
use may::net::{TcpListener, TcpStream};
use may::sync::Mutex;
use may::sync::mpsc;

use super::{Refused, cross, ready, report_memory, report_timers, sum_of};
use crate::args::Args;
use crate::http::answer;
use crate::measure::{Histogram, Memory, Random, StartLine, cpu_time, ns_each};

/// Its default, in words, is enough for every body but that of the HTTP server, which has a buffer of 4 KiB on its stack and a
/// parser below it.
const HTTP_STACK: usize = 0x2000;

fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    go!(body)
}

pub(super) fn join<T>(handle: JoinHandle<T>) -> T {
    handle.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
}

pub(super) fn run(args: Args) -> Result<(), Refused> {
    configure(&args);
    join(spawn(move || in_task(&args)))
}

/// Has to come before the first task.
pub(super) fn configure(args: &Args) {
    may::config().set_workers(args.workers);
    if args.workload == "http-server" {
        may::config().set_stack_size(HTTP_STACK);
    }
}

fn in_task(args: &Args) -> Result<(), Refused> {
    match args.workload.as_str() {
        "yield" => yields(args),
        "yieldcheck" => rotation(args),
        "spawn" => return spawn_inside(args),
        "pingpong" if cross::asked_for(args) => {
            return Err(Refused::Unsupported("a task that is woken goes to the worker that woke it".to_owned()));
        }
        "pingpong" | "fanin" if args.text("chan", "b") == "b" => {
            return Err(Refused::Unsupported("no bounded channel".to_owned()));
        }
        "pingpong" => ping_pong(args),
        "fanin" => fan_in(args),
        "mutex" => mutex(args),
        "timers" => timers(args),
        "mem" => memory(args),
        "echo-server" => serve(args.number("port", 7000), echo)?,
        "http-server" => serve(args.number("port", 7000), http)?,
        _ => return Err(Refused::unknown(args)),
    }
    Ok(())
}

fn yields(args: &Args) {
    let n = args.number("n", 2);
    let each = args.number("total", 10_000_000) / n;
    let start = Instant::now();
    let body = move || (0..each).for_each(|_| coroutine::yield_now());
    let tasks: Vec<_> = (0..n).map(|_| spawn(body)).collect();
    tasks.into_iter().for_each(join);
    args.report(&format!("yield.{n}"), "ns_per_yield", ns_each(start.elapsed(), each * n));
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
                coroutine::yield_now();
                if last.load(Ordering::Relaxed) != me {
                    turned.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    let tasks: Vec<_> = (0..n).map(|me| spawn(body(me))).collect();
    tasks.into_iter().for_each(join);
    let turned = shared.1.load(Ordering::Relaxed);
    args.report("yieldcheck", "rotation_pct", turned as f64 * 100.0 / (n * each) as f64);
}

/// Tasks in waves, each joined before the next; returns nanoseconds per task.
fn waves(total: usize, wave: usize) -> f64 {
    let wave = wave.clamp(1, total.max(1));
    let start = Instant::now();
    let mut handles = Vec::with_capacity(wave);
    let mut sum = 0u64;
    for _ in 0..total / wave {
        handles.extend((0..wave as u64).map(|i| spawn(move || i)));
        sum += handles.drain(..).map(join).sum::<u64>();
    }
    let took = start.elapsed();
    assert_eq!(sum, sum_of(total / wave, wave), "a task was lost or ran twice");
    ns_each(took, total / wave * wave)
}

fn spawn_inside(args: &Args) -> Result<(), Refused> {
    let total = args.number("total", 1_000_000);
    let (case, value) = match args.text("mode", "burst") {
        "burst" => ("spawn.burst", waves(total, total)),
        "waves" => ("spawn.waves", waves(total, args.number("wave", 1000))),
        "local" => return Err(Refused::Unsupported("no tasks that stay on a thread".to_owned())),
        _ => return Err(Refused::unknown(args)),
    };
    args.report(case, "ns_per_task", value);
    Ok(())
}

fn ping_pong(args: &Args) {
    let rounds = args.number("rounds", 1_000_000u64);
    let ((to_b, at_b), (to_a, at_a)) = (mpsc::channel(), mpsc::channel());
    let start = Instant::now();
    let a = spawn(move || {
        for i in 0..rounds {
            to_b.send(i).expect("the receiver is alive");
            assert_eq!(at_a.recv().expect("the sender is alive"), i);
        }
    });
    let b = spawn(move || {
        for _ in 0..rounds {
            to_a.send(at_b.recv().expect("the sender is alive")).expect("the receiver is alive");
        }
    });
    join(a);
    join(b);
    args.report("pingpong.unb", "ns_per_round_trip", ns_each(start.elapsed(), rounds as usize));
}

fn fan_in(args: &Args) {
    let (producers, total) = (args.number("producers", 16usize), args.number("total", 4_000_000usize));
    let each = total / producers;
    let (to, from) = mpsc::channel();
    let start = Instant::now();
    for _ in 0..producers {
        let to = to.clone();
        spawn(move || (0..each as u64).for_each(|i| to.send(i).expect("the receiver is alive")));
    }
    let consumer = spawn(move || {
        (0..each * producers).fold(0u64, |sum, _| sum.wrapping_add(from.recv().expect("a sender is alive")))
    });
    let sum = join(consumer);
    drop(to);
    let took = start.elapsed();
    assert_eq!(sum, sum_of(producers, each), "a message was lost or came twice");
    args.report("fanin.unb", "ns_per_msg", ns_each(took, each * producers));
}

fn mutex(args: &Args) {
    let (tasks, rounds) = (args.number("tasks", 100usize), args.number("iters", 100_000usize));
    let every = args.number("every", 1000usize);
    let counter = Arc::new(Mutex::new(0u64));
    let start = Instant::now();
    let body = |counter: Arc<Mutex<u64>>| {
        move || {
            for i in 1..=rounds {
                let mut guard = counter.lock().expect("no holder panics");
                *guard += 1;
                if every != 0 && i % every == 0 {
                    coroutine::yield_now();
                }
            }
        }
    };
    let handles: Vec<_> = (0..tasks).map(|_| spawn(body(counter.clone()))).collect();
    handles.into_iter().for_each(join);
    let took = start.elapsed();
    assert_eq!(*counter.lock().expect("no holder panicked"), (tasks * rounds) as u64, "the lock lost an update");
    args.report("mutex", "ns_per_lock", ns_each(took, tasks * rounds));
}

fn timers(args: &Args) {
    let (tasks, each) = (args.number("conc", 100_000usize), args.number("per", 10usize));
    let late = Arc::new(Histogram::new());
    let (start, cpu) = (Instant::now(), cpu_time());
    let body = |seed: u64, late: Arc<Histogram>| {
        move || {
            let mut random = Random::new(seed);
            for round in 0..each {
                let wanted = Duration::from_millis(1 + random.below(1000));
                let start = Instant::now();
                coroutine::sleep(wanted);
                let slept = start.elapsed();
                assert!(slept >= wanted, "a sleep ended early");
                // The first sleep of each task feels the burst of spawns.
                if round > 0 {
                    late.add((slept - wanted).as_nanos() as u64);
                }
            }
        }
    };
    let handles: Vec<_> = (1..=tasks as u64).map(|seed| spawn(body(seed, late.clone()))).collect();
    handles.into_iter().for_each(join);
    report_timers(args, &late, cpu_time() - cpu, start.elapsed(), tasks * each);
}

fn memory(args: &Args) {
    let n = args.number("n", 10_000usize);
    // Whatever the first task brings with it is not a cost of each.
    join(spawn(coroutine::yield_now));
    let before = Memory::now();
    let line = Arc::new(StartLine::new(n));
    for _ in 0..n {
        let line = line.clone();
        spawn(move || {
            line.cross();
            loop {
                coroutine::park();
            }
        });
    }
    let took = loop {
        // Not by yielding, which here lets no new task begin.
        coroutine::sleep(Duration::from_millis(1));
        if let Some(took) = line.took() {
            break took;
        }
    };
    coroutine::sleep(Duration::from_millis(5));
    report_memory(args, before, Memory::now(), took, n);
}

fn serve(port: u16, connection: fn(TcpStream) -> io::Result<()>) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    ready()?;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        // A connection that breaks ends its task and nothing else.
        spawn(move || drop(connection(stream)));
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

fn http(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    let mut answers = Vec::with_capacity(1024);
    loop {
        match stream.read(&mut buffer[filled..])? {
            0 => return Ok(()),
            n => filled += n,
        }
        let used = answer(&buffer[..filled], &mut answers)?;
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if !answers.is_empty() {
            stream.write_all(&answers)?;
            answers.clear();
        }
    }
}
