//! `where_all`: every task with its own stack, whatever the others do meanwhile.

mod harness;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coro::sync::Mutex;
use coro::sync::mpsc::{channel, sync_channel};
use coro::{TaskState, TaskWhere};
use harness::{Rng, runtime, seed, task_until, thread_cpu_time, until, until_parked};

const LONG: Duration = Duration::from_secs(1000);

/// `where_all` is about the whole process: the tests of this file take turns.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// `[dir/file func|line]` pieces: function and line.
fn frames(stack: &str) -> Vec<(String, u32)> {
    let pieces = stack.split("] [").map(|p| p.trim_start_matches('[').trim_end_matches(']'));
    pieces
        .map(|p| {
            let (head, line) = p.rsplit_once('|').unwrap_or((p, "0"));
            let function = head.split_once(' ').map_or(head, |(_, f)| f);
            (function.to_owned(), line.parse().unwrap_or(0))
        })
        .collect()
}

/// What a chain ends in.
#[derive(Debug, Clone)]
enum End {
    Sleep,
    Lock(Arc<Mutex<u32>>),
    Recv(Arc<std::sync::Mutex<Option<coro::sync::mpsc::Receiver<u8>>>>),
    Read(Arc<std::sync::Mutex<Option<coro::net::unix::UnixStream>>>),
    Join(Arc<std::sync::Mutex<Option<coro::JoinHandle<()>>>>),
    Yield(Arc<AtomicBool>),
    Park,
}

static LINES: [std::sync::atomic::AtomicU32; 4] = [const { std::sync::atomic::AtomicU32::new(0) }; 4];

// The links of a chain: which link comes at which depth is drawn from a seed. Each notes the line of its call.

#[inline(never)]
fn link_a(path: &[u8], end: &End) -> u64 {
    let ballast = std::hint::black_box([1u64; 3]);
    LINES[0].store(line!() + 1, Ordering::Relaxed);
    let below = step(path, end);
    std::hint::black_box(&ballast).iter().sum::<u64>() + below
}

#[inline(never)]
fn link_b(path: &[u8], end: &End) -> u64 {
    let ballast = std::hint::black_box([2u64; 40]);
    LINES[1].store(line!() + 1, Ordering::Relaxed);
    let below = step(path, end);
    std::hint::black_box(&ballast).iter().sum::<u64>() + below
}

#[inline(never)]
fn link_c(path: &[u8], end: &End) -> u64 {
    // A frame with a destructor and a call in the middle of an expression.
    let ballast = String::from(std::hint::black_box("ballast"));
    LINES[2].store(line!() + 1, Ordering::Relaxed);
    let below = step(path, end);
    std::hint::black_box(&ballast).len() as u64 + below
}

#[inline(never)]
fn link_d(path: &[u8], end: &End) -> u64 {
    let mut big = std::hint::black_box([0u8; 1500]);
    big[path.len()] = 1;
    LINES[3].store(line!() + 1, Ordering::Relaxed);
    let below = step(path, end);
    u64::from(std::hint::black_box(&big)[path.len()]) + below
}

const LINKS: [&str; 4] = ["link_a", "link_b", "link_c", "link_d"];

#[inline(never)]
fn step(path: &[u8], end: &End) -> u64 {
    // Not in tail position: an optimised build would leave no frame of this function.
    std::hint::black_box(match path.split_first() {
        Some((0, rest)) => link_a(rest, end),
        Some((1, rest)) => link_b(rest, end),
        Some((2, rest)) => link_c(rest, end),
        Some((_, rest)) => link_d(rest, end),
        None => innermost(end),
    })
}

#[inline(never)]
fn innermost(end: &End) -> u64 {
    match end {
        End::Sleep => coro::sleep(LONG),
        End::Lock(m) => drop(m.lock()),
        End::Recv(rx) => {
            let rx = rx.lock().unwrap().take().unwrap();
            let _ = rx.recv();
        }
        End::Read(s) => {
            let mut s = s.lock().unwrap().take().unwrap();
            let _ = s.read(&mut [0; 8]);
        }
        End::Join(t) => {
            let t = t.lock().unwrap().take().unwrap();
            let _ = t.join();
        }
        End::Yield(stop) => {
            while !stop.load(Ordering::Relaxed) {
                coro::yield_slice();
            }
        }
        End::Park => coro::park(),
    }
    std::hint::black_box(1)
}

/// Whether the stack is that of the chain: names in order, innermost first, and right lines in the links.
fn complete(t: &TaskWhere, path: &[u8]) -> Result<(), String> {
    let all = frames(&t.stack);
    let links: Vec<_> = all.iter().filter(|(f, _)| LINKS.iter().any(|l| f.ends_with(l))).collect();
    let names: Vec<_> = links.iter().map(|(f, _)| f.rsplit(':').next().unwrap_or(f)).collect();
    let wanted: Vec<_> = path.iter().rev().map(|i| LINKS[usize::from(*i)]).collect();
    let say = |what: &str| Err(format!("{what}: wanted {wanted:?}, saw {t}"));
    if names != wanted {
        return say("names");
    }
    let inner = all.iter().position(|(f, _)| f.ends_with("innermost"));
    let first_link = all.iter().position(|(f, _)| LINKS.iter().any(|l| f.ends_with(l)));
    if inner.is_none() || first_link.is_some_and(|l| inner > Some(l)) {
        return say("the innermost function");
    }
    let steps = all.iter().filter(|(f, _)| f.ends_with("step")).count();
    if steps != path.len() + 1 {
        return say("the functions between");
    }
    for (f, line) in links {
        let i = LINKS.iter().position(|l| f.ends_with(l)).unwrap();
        if *line != LINES[i].load(Ordering::Relaxed) {
            return say("a line");
        }
    }
    if t.stack.contains("[...]") || !t.stack.contains("where_all.rs") {
        return say("the end");
    }
    Ok(())
}

fn path(rng: &mut Rng, longest: u64) -> Vec<u8> {
    (0..rng.below(longest + 1)).map(|_| rng.below(4) as u8).collect()
}

#[test]
fn a_hundred_random_chains_are_complete() {
    let _turn = turn();
    let seed = seed();
    eprintln!("seed {seed}");
    let rt = runtime(2);
    let stop = Arc::new(AtomicBool::new(false));
    let (mut chains, mut keep) = (HashMap::new(), Vec::new());
    let held = Arc::new(Mutex::new(0));
    let endless = || rt.spawn(|| coro::sleep(LONG));
    let locker = {
        let (held, stop) = (held.clone(), stop.clone());
        rt.spawn(move || {
            let _g = held.lock().unwrap();
            while !stop.load(Ordering::Relaxed) {
                coro::sleep(Duration::from_millis(1));
            }
        })
    };
    until_parked(locker.task(), "sleep");
    let mut rng = Rng(seed);
    let mut ends = HashMap::<&str, u32>::new();
    let mut tasks = Vec::new();
    for i in 0..100 {
        let (word, end) = match i % 7 {
            0 => ("sleep", End::Sleep),
            1 => ("lock", End::Lock(held.clone())),
            2 => {
                let (tx, rx) = channel();
                keep.push(Box::new(tx) as Box<dyn std::any::Any>);
                ("recv", End::Recv(Arc::new(std::sync::Mutex::new(Some(rx)))))
            }
            3 => {
                let (a, b) = coro::net::unix::UnixStream::pair().unwrap();
                keep.push(Box::new(b));
                ("read", End::Read(Arc::new(std::sync::Mutex::new(Some(a)))))
            }
            4 => ("join", End::Join(Arc::new(std::sync::Mutex::new(Some(endless()))))),
            5 => ("", End::Yield(stop.clone())),
            _ => ("park", End::Park),
        };
        let p = path(&mut rng, 20);
        let inner = p.clone();
        let t = rt.spawn(move || step(&inner, &end));
        chains.insert(t.id(), (p, word));
        *ends.entry(word).or_default() += 1;
        tasks.push(t);
    }
    // Seen parked, or runnable for those that yield: several looks, as some run at the very moment.
    let mut last: HashMap<u64, String> = HashMap::new();
    let mut good = std::collections::HashSet::new();
    until("nearly all chains are seen complete", || {
        for t in coro::where_all() {
            let Some((p, word)) = chains.get(&t.id) else { continue };
            let right_state = match t.state {
                TaskState::Parked => !word.is_empty() && t.wait.starts_with(word),
                TaskState::Runnable => word.is_empty(),
                _ => false,
            };
            if !right_state {
                continue;
            }
            match complete(&t, p) {
                Ok(()) => drop(good.insert(t.id)),
                Err(e) => drop(last.insert(t.id, e)),
            }
        }
        good.len() >= 99 || good.len() + last.len() >= 100
    });
    last.retain(|id, _| !good.contains(id));
    assert!(good.len() >= 99, "{} of 100 complete (seed {seed}): {last:#?}", good.len());
    // A stack that was ever wrong is a wrong stack, even if a later look was right.
    assert!(last.len() <= 1, "{last:#?}");
    stop.store(true, Ordering::Relaxed);
    drop(keep);
    tasks.iter().for_each(|t| _ = t.cancel());
    rt.shut_down(Duration::from_secs(10));
}

#[inline(never)]
fn running_here(go: &AtomicBool, stop: &AtomicBool) {
    go.store(true, Ordering::SeqCst);
    while !stop.load(Ordering::SeqCst) {
        std::hint::spin_loop();
    }
}

#[test]
fn the_four_states_are_told_apart() {
    let _turn = turn();
    let rt = runtime(1);
    let (go, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let parked = rt.block_on(|| coro::spawn_named("parked one", || coro::sleep(LONG)));
    until_parked(parked.task(), "sleep");
    let yields = {
        let stop = stop.clone();
        rt.block_on(|| {
            coro::spawn_named("runnable one", move || {
                while !stop.load(Ordering::SeqCst) {
                    coro::yield_slice();
                }
            })
        })
    };
    let (g, s) = (go.clone(), stop.clone());
    let running = rt.block_on(move || coro::spawn_named("running one", move || running_here(&g, &s)));
    until("it runs", || go.load(Ordering::SeqCst));
    let site = line!() + 1;
    let unstarted = rt.spawn(|| 1);
    let all = coro::where_all();
    let one = |id: u64| all.iter().find(|t| t.id == id).unwrap_or_else(|| panic!("#{id} is missing: {all:#?}"));
    let t = one(parked.id());
    assert_eq!((t.state, t.name.as_deref()), (TaskState::Parked, Some("parked one")));
    assert!(t.wait.starts_with("sleep ") && t.wait.ends_with(" left") && t.stack.contains("where_all.rs"), "{t}");
    let t = one(yields.id());
    assert_eq!(t.state, TaskState::Runnable, "{t}");
    assert!(t.wait.is_empty() && t.stack.contains("yield_slice"), "{t}");
    let t = one(running.id());
    assert_eq!(t.state, TaskState::Running { worker: 0 }, "{t}");
    assert!(t.to_string().contains("running on worker 0 for "), "{t}");
    assert_eq!(all.iter().filter(|t| matches!(t.state, TaskState::Running { .. })).count(), 1);
    let t = one(unstarted.id());
    assert_eq!(t.state, TaskState::Unstarted);
    assert!(t.to_string().contains(&format!("where_all.rs:{site}")), "{t}");
    assert!(t.stack.is_empty() && t.parent == 0);
    assert!(coro::where_is(u64::MAX >> 20).is_none());
    stop.store(true, Ordering::SeqCst);
    let id = unstarted.id();
    assert_eq!(unstarted.join().unwrap(), 1);
    assert!(coro::where_is(id).is_none(), "an ended task is still shown");
}

#[inline(never)]
fn waits_for_the_end() {
    coro::event_loop();
    std::hint::black_box(());
}

#[test]
fn every_wait_says_what_it_waits_for() {
    let _turn = turn();
    let rt = runtime(2);
    rt.block_on(|| {
        let me = coro::current().unwrap().id();
        let (made, m) = (line!(), Arc::new(Mutex::new(()).named("db pool")));
        let guard = m.lock().unwrap();
        let (tx, rx) = channel::<u8>();
        let (full, full_rx) = sync_channel::<u8>(1);
        full.send(1).unwrap();
        let listener = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Connections to this one wait in its backlog.
        let quiet = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = quiet.local_addr().unwrap();
        let m2 = m.clone();
        let waits = [
            ("lock".to_owned(), coro::spawn(move || drop(m2.lock()))),
            ("recv".to_owned(), coro::spawn(move || assert_eq!(rx.recv(), Ok(0)))),
            ("send".to_owned(), coro::spawn(move || full.send(2).unwrap())),
            ("park".to_owned(), coro::spawn(|| assert_eq!(step(&[], &End::Park), 1))),
            ("event_loop".to_owned(), coro::spawn(waits_for_the_end)),
            ("scope".to_owned(), coro::spawn(|| coro::scope(|s| drop(s.spawn(|| coro::sleep(LONG)))))),
            ("accept fd ".to_owned(), coro::spawn(move || drop(listener.accept()))),
        ];
        let see = |id: u64| coro::where_is(id).unwrap();
        for (wait, t) in &waits {
            until_parked(t.task(), wait);
            let seen = see(t.id());
            assert!(seen.stack.contains("where_all.rs"), "{seen}");
            if wait == "lock" {
                let text = format!("lock \"db pool\" {}:{made} held by #{me} ", file!());
                assert!(seen.wait.starts_with(&text), "{}", seen.wait);
            }
        }
        // Read, write, connect: the descriptor and the peer.
        let client = coro::net::TcpStream::connect(at).unwrap();
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let fd = std::os::fd::AsRawFd::as_raw_fd(&client);
        let mut client2 = client.try_clone().unwrap();
        let reader = coro::spawn(move || {
            let mut c = client;
            drop(c.read(&mut [0; 1]));
        });
        until_parked(reader.task(), "read");
        assert_eq!(see(reader.id()).wait, format!("read fd {fd} {local} → {peer}"));
        let writer = coro::spawn(move || while client2.write(&[0; 65536]).is_ok() {});
        until_parked(writer.task(), "write fd ");
        assert!(see(writer.id()).wait.ends_with(&format!("→ {peer}")), "{}", see(writer.id()));
        // A join names its task; a sleep says how much is left.
        let target = coro::spawn(|| coro::sleep(Duration::from_secs(500)));
        let id = target.id();
        let joiner = coro::spawn(move || drop(target.join()));
        until_parked(joiner.task(), "join");
        assert_eq!(see(joiner.id()).wait, format!("join #{id}"));
        until_parked(waits[3].1.task(), "park");
        task_until("the target sleeps", || see(id).wait.starts_with("sleep"));
        let left = see(id).wait;
        let seconds: f64 = left.trim_start_matches("sleep ").trim_end_matches("s left").parse().expect(&left);
        assert!((400.0..=500.1).contains(&seconds), "{left}");
        // A sleep of ever.
        let forever = coro::spawn(|| coro::sleep(Duration::MAX));
        until_parked(forever.task(), "sleep");
        drop((guard, tx, full_rx, quiet));
    });
}

#[test]
fn names_are_escaped() {
    let _turn = turn();
    let rt = runtime(1);
    rt.block_on(|| {
        let name = "a\u{1b}[31mred\u{9b}2J\nsecond \"quoted\" \\ \u{202e}gnp\u{200b}\r\t\0 ü";
        let t = coro::spawn_named(name, || coro::sleep(LONG));
        until_parked(t.task(), "sleep");
        let seen = coro::where_is(t.id()).unwrap();
        assert_eq!(seen.name.as_deref(), Some(name));
        let line = seen.to_string();
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}' || c == '\u{200b}'), "{line:?}");
        assert!(
            line.contains("\\u{1b}[31mred") && line.contains("\\nsecond \\\"quoted\\\" \\\\") && line.contains('ü'),
            "{line:?}"
        );
        assert_eq!(line.lines().count(), 1);
    });
}

/// One task's name tells its chain, so that every stack can be checked against it.
fn tagged(p: &[u8]) -> String {
    p.iter().fold(String::from("chain "), |mut s, i| {
        s.push(char::from(b'a' + i));
        s
    })
}

#[test]
fn dumps_under_fire() {
    let _turn = turn();
    std::panic::set_hook(Box::new(|i| {
        // The fire panics on purpose; everything else is worth seeing.
        if i.payload().downcast_ref::<&str>() != Some(&"fire") {
            eprintln!("{i}");
        }
    }));
    coro::set_panic_notifier(Some(Arc::new(|_| {})));
    let seed = seed();
    eprintln!("seed {seed}");
    let rt = runtime(2);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let drivers: Vec<_> = (0..6u64)
        .map(|d| {
            let (stop, done) = (stop.clone(), done.clone());
            rt.spawn(move || {
                let mut rng = Rng(seed ^ (d << 40));
                while !stop.load(Ordering::Relaxed) {
                    let tasks: Vec<_> = (0..16)
                        .map(|_| {
                            let (p, how) = (path(&mut rng, 8), rng.below(6));
                            let name = tagged(&p);
                            let yields = Arc::new(AtomicBool::new(false));
                            let y = yields.clone();
                            let t = coro::spawn_named(name, move || match how {
                                0 => step(&p, &End::Sleep),
                                1 | 2 => step(&p, &End::Park),
                                3 => step(&p, &End::Yield(y)),
                                4 => {
                                    coro::yield_slice();
                                    std::panic::panic_any("fire")
                                }
                                _ => 0,
                            });
                            (t, how, yields)
                        })
                        .collect();
                    for _ in 0..rng.below(6) {
                        coro::yield_slice();
                    }
                    for (t, how, yields) in &tasks {
                        match how {
                            0 => _ = t.cancel(),
                            1 => drop(t.task().unpark()),
                            2 => _ = t.task().cancel_now(),
                            _ => yields.store(true, Ordering::Relaxed),
                        }
                    }
                    for (t, ..) in tasks {
                        if rng.below(8) != 0 {
                            drop(t.join());
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let rate = |d: Duration| {
        let (then, begun) = (done.load(Ordering::Relaxed), Instant::now());
        std::thread::sleep(d);
        (done.load(Ordering::Relaxed) - then) as f64 / begun.elapsed().as_secs_f64()
    };
    // What dumps cost beyond the CPU that they run on: a thread that only computes takes as much of the machine, so the rate beside
    // one is what the rate beside dumps is compared with.
    let neighbour = |d: Duration| {
        let (over, rate) = (AtomicBool::new(false), &rate);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::black_box(0);
                }
            });
            let beside = rate(d);
            over.store(true, Ordering::Relaxed);
            beside
        })
    };
    let (mut dumps, mut seen, mut stacks, mut cut) = (0u64, 0u64, 0u64, 0u64);
    let mut ids = std::collections::HashSet::new();
    // The first dump reads debug information, which takes a debug build seconds.
    drop(coro::where_all());
    let beside = neighbour(Duration::from_secs(2));
    // Longer in `.ci/soak`. In pieces, with quiet times between them: the machine's own speed moves.
    let seconds = std::env::var("CORO_SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4u64);
    let pieces = seconds.div_ceil(5);
    let quiet = Duration::from_secs(if seconds > 10 { 2 } else { 1 });
    let (mut rates, mut alone, mut dumping, mut checking) = (Vec::new(), rate(quiet), Duration::ZERO, Duration::ZERO);
    for piece in 1..=pieces {
        let (then, begun) = (done.load(Ordering::Relaxed), Instant::now());
        while begun.elapsed() < Duration::from_secs(seconds) / pieces as u32
            || piece == pieces && dumps <= 20 && begun.elapsed() < Duration::from_secs(60)
        {
            dumps += 1;
            ids.clear();
            let cpu = thread_cpu_time();
            let all = coro::where_all();
            let dumped = thread_cpu_time();
            dumping += dumped - cpu;
            for t in all {
                seen += 1;
                assert!(ids.insert(t.id), "#{} twice in one dump (seed {seed})", t.id);
                let Some(name) = &t.name else { continue };
                let chain =
                    name.strip_prefix("chain ").unwrap_or_else(|| panic!("a wrong name {name:?} (seed {seed})"));
                assert!(chain.bytes().all(|b| (b'a'..=b'd').contains(&b)), "a wrong name {name:?} (seed {seed})");
                if t.stack.is_empty() || t.state == TaskState::Unstarted {
                    continue;
                }
                let all = frames(&t.stack);
                if !all.iter().any(|(f, _)| f.ends_with("innermost")) {
                    // Before the chain, after it, or on its way out.
                    for (f, _) in &all {
                        assert!(
                            !f.contains("dumps_under_fire::{closure#1}::{closure#1}"),
                            "a driver's frame: {t} (seed {seed})"
                        );
                    }
                    continue;
                }
                if t.stack.contains("[...]") {
                    cut += 1;
                    continue;
                }
                stacks += 1;
                let p: Vec<u8> = chain.bytes().map(|b| b - b'a').collect();
                complete(&t, &p).unwrap_or_else(|e| panic!("{e} (seed {seed}, dump {dumps})"));
            }
            checking += thread_cpu_time() - dumped;
        }
        let under = (done.load(Ordering::Relaxed) - then) as f64 / begun.elapsed().as_secs_f64();
        let before = std::mem::replace(&mut alone, rate(quiet));
        rates.push((under / ((before + alone) / 2.0), under));
    }
    println!("{dumps} dumps, {seen} tasks, {stacks} chains checked, {cut} incomplete");
    rates.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, under) = rates[rates.len() / 2];
    println!(
        "tasks per second: {alone:.0} alone; {beside:.0} beside a thread that computes; {under:.0} under fire \
         ({:+.1} % against alone, median of {pieces} pieces; {:+.1} % against beside); dumps took {dumping:?} of CPU, checking them {checking:?}",
        (ratio - 1.0) * 100.0,
        (under / beside - 1.0) * 100.0
    );
    assert!(dumps > 20 && stacks > 100, "the fire was out: {dumps} dumps, {stacks} stacks");
    assert!(cut * 100 <= stacks, "{cut} of {stacks} stacks incomplete");
    assert!(under > alone / 20.0, "dumps stop the world");
    stop.store(true, Ordering::Relaxed);
    drivers.into_iter().for_each(|t| t.join().unwrap());
    coro::set_panic_notifier(None);
    let _ = std::panic::take_hook();
}

/// Something for the unwinder to clean up.
struct Left(u64);

impl Drop for Left {
    fn drop(&mut self) {
        std::hint::black_box(self.0);
    }
}

// Frames of one size that call one another in turn, and are left one by one.

#[inline(never)]
fn leave_a(further: u32) -> u64 {
    let left = std::hint::black_box(Left(1));
    let below = if further == 0 { std::panic::resume_unwind(Box::new(())) } else { leave_b(further - 1) };
    std::hint::black_box(&left).0 + below
}

#[inline(never)]
fn leave_b(further: u32) -> u64 {
    let left = std::hint::black_box(Left(2));
    let below = if further == 0 { std::panic::resume_unwind(Box::new(())) } else { leave_a(further - 1) };
    std::hint::black_box(&left).0 + below
}

#[test]
fn a_task_that_unwinds_is_not_shown_with_a_frame_twice() {
    let _turn = turn();
    let rt = runtime(1);
    let stop = Arc::new(AtomicBool::new(false));
    let task = {
        let stop = stop.clone();
        rt.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let left = std::panic::catch_unwind(|| leave_a(9));
                assert!(left.is_err());
            }
        })
    };
    let id = task.id();
    let (mut whole, mut cut, mut unwinding) = (0, 0, 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) || whole + cut < 200 && begun.elapsed() < Duration::from_secs(60) {
        let seen = coro::where_is(id).expect("the task runs");
        let all = frames(&seen.stack);
        unwinding += u32::from(all.iter().any(|(f, _)| f.contains("_Unwind_")));
        // Shown innermost first.
        let mut left: Vec<_> =
            all.iter().filter_map(|(f, _)| f.rsplit("leave_").next().filter(|l| l.len() == 1)).collect();
        left.reverse();
        if seen.stack.contains("[...]") || seen.stack.is_empty() {
            cut += 1;
            continue;
        }
        whole += 1;
        let wanted = ["a", "b"].into_iter().cycle().take(left.len());
        assert!(wanted.eq(left.iter().copied()) && left.len() <= 10, "{left:?}: {seen}");
    }
    println!("{whole} whole stacks, {cut} incomplete, {unwinding} in the unwinder");
    assert!(whole > 20 && unwinding > 20, "{whole} whole stacks, {cut} incomplete, {unwinding} in the unwinder");
    assert!(cut * 4 < whole, "{cut} of {whole} stacks incomplete");
    stop.store(true, Ordering::Relaxed);
    task.join().unwrap();
}

#[test]
fn a_hundred_thousand_parked_tasks() {
    let _turn = turn();
    let rt = runtime(2);
    // Guards made by mprotect leave room for about 16,000 stacks.
    let n = if coro::inspect::stack_stats().unwrap().guards == "mprotect" { 10_000 } else { 100_000 };
    rt.block_on(|| (0..n).for_each(|_| drop(coro::spawn(|| coro::sleep(LONG)))));
    until("all are parked", || {
        rt.worker_stats().iter().map(|w| w.live).sum::<usize>() >= n
            && rt.worker_stats().iter().all(|w| w.unstarted == 0)
    });
    let _warm = coro::where_all();
    // The best of three: others may use this machine.
    let mut all = Vec::new();
    let took = (0..3).map(|_| {
        let begun = Instant::now();
        all = coro::where_all();
        begun.elapsed()
    });
    let took = took.min().unwrap();
    println!("where_all of {n} parked tasks: {took:?}");
    let parked = all.iter().filter(|t| t.state == TaskState::Parked && t.stack.contains("where_all.rs")).count();
    assert!(parked >= n - 2, "{parked} of {n}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(rt.shut_down(Duration::from_secs(15)));
}
