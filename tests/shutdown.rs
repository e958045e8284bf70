//! The end of a program: what `run`, `set_exit`, signals and dropped runtimes leave behind. Mostly in child processes.

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{PATIENCE, Rng, child, command, descriptors, runtime, seed, task_until, threads, until, until_parked};

const LONG: Duration = Duration::from_secs(1000);

struct Counts(&'static AtomicU32);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

static DROPPED: AtomicU32 = AtomicU32::new(0);

#[test]
fn run_returns_borrows_and_unwinds_what_is_left() {
    child("run").passed();
}

fn run_child() {
    let words = [String::from("a"), String::from("b")];
    let mut total = 0;
    let begun = Instant::now();
    let joined = coro::run(|| {
        total += words.len();
        let sleepers: Vec<_> = (0..100)
            .map(|_| {
                coro::spawn(|| {
                    let _d = Counts(&DROPPED);
                    coro::sleep(LONG);
                })
            })
            .collect();
        sleepers.iter().for_each(|t| until_parked(t.task(), "sleep"));
        words.join("+")
    });
    assert_eq!((joined.as_str(), total), ("a+b", 2));
    assert_eq!(DROPPED.load(Ordering::SeqCst), 100, "tasks were left without unwinding");
    assert!(begun.elapsed() < PATIENCE);
    // Again, and with a panic of its own.
    assert_eq!(coro::run(|| coro::spawn(|| 5).join().unwrap()), 5);
    let p = std::panic::catch_unwind(|| coro::run(|| std::panic::resume_unwind(Box::new(7u8)))).unwrap_err();
    assert_eq!(p.downcast_ref::<u8>(), Some(&7));
    assert_eq!(coro::run(|| 6), 6, "a run that panicked leaves the way free");
    assert!(!coro::stopping());
}

#[test]
fn nested_and_concurrent_runs_panic_with_a_reason() {
    let e = child("nested").passed();
    assert!(e.out.contains("nested: coro::run was called inside a task"), "{e:#?}");
    assert!(e.out.contains("concurrent: coro::run is already running"), "{e:#?}");
    assert!(e.out.contains("block_on: Runtime::block_on was called inside a task"), "{e:#?}");
}

fn nested_child() {
    fn message(f: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let p = std::panic::catch_unwind(f).unwrap_err();
        p.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| p.downcast_ref::<String>().cloned()).unwrap()
    }
    coro::run(|| {
        println!("nested: {}", message(|| coro::run(|| ())));
        let second = std::thread::spawn(|| message(|| coro::run(|| ())));
        println!("concurrent: {}", second.join().unwrap());
        let rt = std::panic::AssertUnwindSafe(runtime(1));
        println!("block_on: {}", message(move || rt.block_on(|| ())));
        assert_eq!(coro::spawn(|| 1).join().unwrap(), 1, "the outer run goes on");
    });
}

#[inline(never)]
fn wedged_here(spin: bool) {
    if spin {
        loop {
            std::hint::spin_loop();
        }
    }
    std::thread::sleep(LONG);
}

#[test]
fn a_wedged_worker_delays_the_end_by_seconds_and_is_named() {
    for case in ["wedged-sleep", "wedged-spin"] {
        let e = child(case).passed();
        assert!(e.out.contains("run returned"), "{e:#?}");
        assert!(e.took < Duration::from_secs(12), "{:?}", e.took);
        let line = e.err.lines().find(|l| l.contains("left a task behind") && l.contains("\"the wedge\""));
        let line = line.unwrap_or_else(|| panic!("nobody names the wedge: {e:#?}"));
        assert!(line.contains("running on worker") && line.contains("tests/shutdown.rs:"), "{line}");
        assert!(!e.err.contains("\"innocent\""), "an unwound task is reported: {e:#?}");
    }
}

fn wedged_child(spin: bool) {
    let begun = Instant::now();
    coro::run(|| {
        let here = coro::current_worker().unwrap();
        let started = Arc::new(AtomicBool::new(false));
        let s = started.clone();
        drop(coro::Builder::new().name("the wedge").worker(1 - here).spawn(move || {
            s.store(true, Ordering::SeqCst);
            wedged_here(spin);
        }));
        let innocent = coro::Builder::new()
            .name("innocent")
            .worker(here)
            .spawn(|| {
                let _d = Counts(&DROPPED);
                coro::sleep(LONG);
            })
            .unwrap();
        until_parked(innocent.task(), "sleep");
        task_until("the wedge runs", || started.load(Ordering::SeqCst));
    });
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1500), "gave up after {took:?}");
    assert_eq!(DROPPED.load(Ordering::SeqCst), 1, "the healthy worker's task was not unwound");
    println!("run returned after {took:?}");
    // The process must end although a worker never will.
    let _ = std::io::stdout().flush();
    std::process::exit(0);
}

#[test]
fn set_exit() {
    for (case, code) in [
        ("exit-task", 7),
        ("exit-thread", 8),
        ("exit-event-loop-task", 9),
        ("exit-event-loop-thread", 10),
        ("exit-during-io", 11),
        ("exit-before-event-loop", 12),
    ] {
        let e = child(case);
        assert_eq!(e.code, Some(code), "{case}: {e:#?}");
        assert!(!e.out.contains("not reached"), "{case}: {e:#?}");
        if case != "exit-before-event-loop" {
            assert!(e.err.contains("unwound"), "{case}: tasks were not unwound: {e:#?}");
        }
        assert!(e.took < Duration::from_secs(12), "{case}: {:?}", e.took);
    }
}

struct Says(&'static str);

impl Drop for Says {
    fn drop(&mut self) {
        coro::write_stderr(format!("{}\n", self.0));
    }
}

fn sleeper() {
    let t = coro::spawn(|| {
        let _s = Says("unwound");
        coro::sleep(LONG);
    });
    until_parked(t.task(), "sleep");
}

fn exit_child(case: &str) {
    match case {
        "exit-task" => coro::run(|| {
            sleeper();
            drop(coro::spawn(|| coro::set_exit(7)));
            coro::sleep(LONG);
            println!("not reached");
        }),
        "exit-thread" => coro::run(|| {
            sleeper();
            std::thread::spawn(|| coro::set_exit(8));
            while !coro::stopping() {
                coro::shield(coro::yield_slice);
            }
            coro::sleep(LONG);
            println!("not reached");
        }),
        "exit-event-loop-task" => coro::run(|| {
            sleeper();
            drop(coro::spawn(|| (coro::sleep(Duration::from_millis(5)), coro::set_exit(9))));
            coro::event_loop();
            println!("not reached");
        }),
        "exit-event-loop-thread" => {
            sleeper();
            drop(coro::spawn(|| (coro::sleep(Duration::from_millis(5)), coro::set_exit(10))));
            coro::event_loop();
            println!("not reached");
        }
        "exit-during-io" => coro::run(|| {
            sleeper();
            let listener = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(5));
                coro::set_exit(11);
            });
            // The error form first; the program then waits for something else.
            let e = listener.accept().unwrap_err();
            assert!(e.get_ref().is_some_and(|e| e.is::<coro::CancelledError>()), "{e:?}");
            coro::sleep(LONG);
            println!("not reached");
        }),
        "exit-before-event-loop" => {
            coro::set_exit(12);
            coro::event_loop();
            println!("not reached");
        }
        _ => unreachable!(),
    }
}

/// Starts a child, waits for its "ready" line, signals it, and waits for its end.
fn signalled(case: &str, signals: &[libc::c_int]) -> harness::Ended {
    let mut c = command(case).spawn().unwrap();
    let mut out = BufReader::new(c.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "{case}: the child ended before it was ready");
    }
    for (i, s) in signals.iter().enumerate() {
        if i > 0 {
            std::thread::sleep(Duration::from_millis(200));
        }
        // SAFETY: a signal to our own child, which has not been waited for.
        unsafe { libc::kill(c.id() as i32, *s) };
    }
    // What is still to come on stdout matters to some.
    let rest = std::thread::spawn(move || {
        let mut s = String::new();
        let _ = out.read_to_string(&mut s);
        s
    });
    let mut e = harness::wait(case, c);
    e.out = rest.join().unwrap();
    e
}

#[test]
fn signals_end_the_run() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let e = signalled("signal", &[signal]);
        assert_eq!(e.code, Some(code), "{e:#?}");
        assert!(e.err.contains("unwound") && e.err.contains("stopping true"), "{e:#?}");
        assert!(!e.out.contains("not reached"), "{e:#?}");
    }
    // A closure that ends by itself after the signal: its value counts.
    let e = signalled("signal-value", &[libc::SIGTERM]);
    assert_eq!(e.code, Some(0), "{e:#?}");
    assert!(e.out.contains("value 5"), "{e:#?}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let e = signalled("signal-stubborn", &[libc::SIGTERM, libc::SIGINT]);
    assert_eq!(e.code, Some(143), "{e:#?}");
    assert!(e.took < Duration::from_secs(4), "the second signal was not obeyed at once: {:?}", e.took);
    assert!(e.err.contains("left a task behind") && e.err.contains("\"stubborn\""), "{e:#?}");
}

#[test]
fn one_signal_and_a_stubborn_task_end_after_five_seconds() {
    let e = signalled("signal-stubborn", &[libc::SIGINT]);
    assert_eq!(e.code, Some(130), "{e:#?}");
    assert!(e.took >= Duration::from_millis(4500) && e.took < Duration::from_secs(15), "{:?}", e.took);
    assert!(e.err.contains("left a task behind") && e.err.contains("\"stubborn\""), "{e:#?}");
}

#[test]
fn a_process_wide_runtime_takes_no_signals() {
    let e = signalled("process-wide", &[libc::SIGTERM]);
    assert_eq!((e.code, e.signal), (None, Some(libc::SIGTERM)), "{e:#?}");
}

fn ready() {
    println!("ready");
    std::io::stdout().flush().unwrap();
}

fn signal_child(case: &str) {
    match case {
        "signal" => coro::run(|| {
            struct Reports;
            impl Drop for Reports {
                fn drop(&mut self) {
                    coro::write_stderr(format!("stopping {}\n", coro::stopping()));
                }
            }
            assert!(!coro::stopping());
            sleeper();
            let _r = Reports;
            ready();
            coro::sleep(LONG);
            println!("not reached");
        }),
        "signal-value" => {
            let v = coro::run(|| {
                ready();
                let _ = std::panic::catch_unwind(|| coro::sleep(LONG));
                assert!(coro::stopping() && coro::is_cancelled());
                5
            });
            println!("value {v}");
        }
        "signal-stubborn" => coro::run(|| {
            drop(coro::spawn_named("stubborn", || coro::shield(|| coro::sleep(LONG))));
            coro::sleep(Duration::from_millis(20));
            ready();
            coro::shield(|| coro::sleep(LONG));
        }),
        "process-wide" => {
            assert_eq!(coro::spawn(|| 1).join().unwrap(), 1);
            for signal in [libc::SIGINT, libc::SIGTERM] {
                // SAFETY: only reads the disposition into plain data.
                let action = unsafe {
                    let mut a: libc::sigaction = std::mem::zeroed();
                    assert_eq!(libc::sigaction(signal, std::ptr::null(), &mut a), 0);
                    a.sa_sigaction
                };
                assert_eq!(action, libc::SIG_DFL);
            }
            ready();
            std::thread::sleep(LONG);
        }
        _ => unreachable!(),
    }
}

#[test]
fn handlers_are_given_back() {
    child("handlers").passed();
}

fn handlers_child() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    extern "C" fn mine(_: libc::c_int) {
        SEEN.fetch_add(1, Ordering::SeqCst);
    }
    // SAFETY: an async-signal-safe handler; plain data.
    unsafe {
        let mut a: libc::sigaction = std::mem::zeroed();
        a.sa_sigaction = mine as *const () as usize;
        a.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGTERM, &a, std::ptr::null_mut()), 0);
    }
    coro::run(|| ());
    // SAFETY: a signal to ourselves, handled above.
    unsafe { libc::raise(libc::SIGTERM) };
    assert_eq!(SEEN.load(Ordering::SeqCst), 1, "run did not put the handler back");
    assert!(!coro::stopping());
}

#[test]
fn runtimes_come_and_go_without_leaks() {
    child("leaks").passed();
}

fn leaks_child() {
    let mut rng = Rng(seed());
    let round = |rng: &mut Rng| {
        let rt = runtime(1 + rng.below(3) as usize);
        let listener = std::sync::Mutex::new(None);
        rt.block_on(|| {
            let l = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let at = l.local_addr().unwrap();
            let server = coro::spawn(move || {
                // The runtime may end before it gets here; a panic would be reported by a thread of its own.
                let Ok((mut c, _)) = l.accept() else { return };
                let _ = c.read(&mut [0; 10]);
                coro::sleep(LONG);
            });
            let mut c = coro::net::TcpStream::connect(at).unwrap();
            c.write_all(b"x").unwrap();
            drop(coro::spawn(|| coro::sleep(LONG)));
            *listener.lock().unwrap() = Some((c, server));
        });
        // A socket that outlives its runtime.
        let left = listener.into_inner().unwrap();
        if rng.below(2) == 0 {
            drop(left);
            drop(rt);
        } else {
            drop(rt);
            drop(left);
        }
    };
    round(&mut rng);
    round(&mut rng);
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let before = (descriptors(), threads(), mappings());
    for _ in 0..200 {
        round(&mut rng);
    }
    until("all threads are gone", || threads() <= before.1);
    assert!(descriptors() <= before.0, "descriptors: {} before, {} after", before.0, descriptors());
    assert!(mappings() <= before.2 + 60, "mappings: {} before, {} after", before.2, mappings());
    assert_eq!(coro::where_all().len(), 0);
}

#[test]
fn plain_threads_spawn_while_runs_come_and_go() {
    child("spawn-at-the-end").passed();
}

/// A spawn from a plain thread meets the end of `run`: the task runs, or is told to be cancelled, or the spawn is
/// refused; its join never hangs.
fn spawn_at_the_end_child() {
    std::panic::set_hook(Box::new(|_| {}));
    let stop = Arc::new(AtomicBool::new(false));
    let (ran, other) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let joining = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let (stop, ran, other, joining) = (stop.clone(), ran.clone(), other.clone(), joining.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    match coro::Builder::new().spawn(|| 1) {
                        Ok(t) => {
                            joining.fetch_add(1, Ordering::SeqCst);
                            match t.join() {
                                Ok(1) => ran.fetch_add(1, Ordering::SeqCst),
                                Ok(_) => unreachable!(),
                                Err(p) => {
                                    assert!(coro::is_cancel(&*p));
                                    other.fetch_add(1, Ordering::SeqCst)
                                }
                            };
                            joining.fetch_sub(1, Ordering::SeqCst);
                        }
                        Err(_) => {
                            other.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            })
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(4);
    let mut runs = 0;
    while Instant::now() < end {
        coro::run(coro::yield_slice);
        runs += 1;
    }
    stop.store(true, Ordering::Relaxed);
    until("every join returns", || threads.iter().all(|t| t.is_finished()));
    threads.into_iter().for_each(|t| t.join().unwrap());
    println!("{runs} runs, {} ran, {} did not", ran.load(Ordering::SeqCst), other.load(Ordering::SeqCst));
    assert!(runs > 10 && ran.load(Ordering::SeqCst) > 0);
}

#[test]
fn the_latency_line() {
    let closing = |line: &&str| line.contains("High Latency: (") && !line.contains(" so far)");
    // Where the machine has no CPU for whoever watches, a stall is not told: nobody knows that it was one.
    let both =
        |e: &harness::Ended| ["'hog'", "'final'"].iter().all(|n| e.err.lines().filter(closing).any(|l| l.contains(n)));
    let mut e = child("latency").passed();
    for _ in 0..4 {
        if !both(&e) {
            e = child("latency").passed();
        }
    }
    let line = |name: &str| e.err.lines().filter(closing).filter(|l| l.contains(name)).collect::<Vec<_>>();
    let one = line("'hog'");
    assert_eq!(one.len(), 1, "{e:#?}");
    // Shrapnel's form: a 24-character time, then the seconds with three places.
    let (time, rest) = one[0].split_at(24);
    assert!(time.chars().filter(|c| *c == ':').count() == 2 && rest.starts_with(" High Latency: (0."), "{one:?}");
    let seconds: f64 = rest[" High Latency: (".len()..].split('s').next().unwrap().parse().unwrap();
    assert!((0.04..5.0).contains(&seconds), "{one:?}");
    assert_eq!(line("'final'").len(), 1, "the last slice of a task counts: {e:#?}");
    assert!(!e.err.contains("'quiet'"), "switched off: {e:#?}");
    assert!(!e.err.contains("'sleeper'"), "sleeping is no latency: {e:#?}");
    let mut c = command("latency-environment");
    c.env("CORO_LATENCY_MS", "20");
    let e = harness::wait("latency-environment", c.spawn().unwrap()).passed();
    assert_eq!(e.err.lines().filter(closing).count(), 1, "{e:#?}");
    let mut c = command("latency-environment");
    c.env("CORO_LATENCY_MS", "0");
    let e = harness::wait("latency-environment", c.spawn().unwrap()).passed();
    assert!(!e.err.contains("High Latency"), "{e:#?}");
}

fn latency_child() {
    let rt = runtime(1);
    assert_eq!(coro::set_latency_warning(Duration::from_millis(40)), Duration::from_millis(200));
    let hog = |name: &str, then: bool| {
        rt.spawn_named_for_test(name, move || {
            // Times in which the machine has no CPU for the watchdog do not count.
            std::thread::sleep(Duration::from_millis(150));
            if then {
                coro::yield_slice();
            }
        });
    };
    hog("hog", true);
    hog("final", false);
    rt.spawn_named_for_test("sleeper", || coro::sleep(Duration::from_millis(150)));
    assert_eq!(coro::set_latency_warning(Duration::ZERO), Duration::from_millis(40));
    hog("quiet", true);
}

trait SpawnNamed {
    fn spawn_named_for_test(&self, name: &str, f: impl FnOnce() + Send + 'static);
}

impl SpawnNamed for coro::Runtime {
    fn spawn_named_for_test(&self, name: &str, f: impl FnOnce() + Send + 'static) {
        let name = name.to_owned();
        self.block_on(move || coro::spawn_named(name, f).join().unwrap());
    }
}

#[test]
fn shutdown_under_load() {
    child("load").passed();
}

/// Ends runtimes at random points of a busy life: every request is answered or failed, nothing is left.
fn load_child() {
    let seed = seed();
    println!("seed {seed}");
    let mut rng = Rng(seed);
    let mut base = None;
    let end = Instant::now() + Duration::from_secs(4);
    let mut rounds = 0;
    while Instant::now() < end {
        let rt = runtime(1 + rng.below(3) as usize);
        let (asked, answered, failed) =
            (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let listener = rt.block_on(|| coro::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let at = listener.local_addr().unwrap();
        drop(rt.spawn(move || {
            while let Ok((mut c, _)) = listener.accept() {
                drop(coro::spawn(move || {
                    let mut b = [0; 16];
                    while let Ok(n @ 1..) = c.read(&mut b) {
                        if c.write_all(&b[..n]).is_err() {
                            break;
                        }
                    }
                }));
            }
        }));
        struct Request(bool, Arc<AtomicU64>, Arc<AtomicU64>);
        impl Drop for Request {
            fn drop(&mut self) {
                if self.0 { &self.1 } else { &self.2 }.fetch_add(1, Ordering::SeqCst);
            }
        }
        let lock = Arc::new(coro::sync::Mutex::new(0u64));
        for _ in 0..30 {
            let (asked, answered, failed, lock) = (asked.clone(), answered.clone(), failed.clone(), lock.clone());
            drop(rt.spawn(move || {
                let Ok(mut c) = coro::net::TcpStream::connect(at) else { return };
                loop {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let mut r = Request(false, answered.clone(), failed.clone());
                    let mut b = [0; 3];
                    if c.write_all(b"abc").is_err() || c.read_exact(&mut b).is_err() {
                        return;
                    }
                    assert_eq!(&b, b"abc");
                    r.0 = true;
                    drop(r);
                    *lock.lock().unwrap() += 1;
                    let t = coro::spawn(coro::yield_slice);
                    let _ = t.join();
                }
            }));
        }
        std::thread::sleep(Duration::from_micros(rng.below(20_000)));
        assert!(rt.shut_down(Duration::from_secs(10)), "tasks were left behind (seed {seed}, round {rounds})");
        let (q, a, f) = (asked.load(Ordering::SeqCst), answered.load(Ordering::SeqCst), failed.load(Ordering::SeqCst));
        assert_eq!(q, a + f, "asked, answered, failed (seed {seed}, round {rounds})");
        assert_eq!(coro::where_all().len(), 0, "seed {seed}");
        rounds += 1;
        if rounds == 3 {
            base = Some((descriptors(), threads()));
        }
    }
    let (d, t) = base.expect("at least three rounds");
    assert!(descriptors() <= d, "descriptors: {d} before, {} after", descriptors());
    assert!(threads() <= t, "threads: {t} before, {} after", threads());
    println!("{rounds} rounds");
}

/// Places and descriptors of workers that never ran are there for the next, smaller runtime.
#[test]
fn a_runtime_that_cannot_start_leaves_nothing_behind() {
    child("too-many").passed();
}

fn too_many_child() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives across the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = 64;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    // The first that starts keeps one back for the process.
    drop(runtime(1));
    let before = descriptors();
    // 100 times: more places than the process has are asked for in all.
    for _ in 0..100 {
        let e = coro::Runtime::builder().workers(64).build().unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EMFILE), "{e}");
        assert_eq!(descriptors(), before);
    }
    assert_eq!(runtime(2).spawn(|| 1).join().unwrap(), 1);
    let e = coro::Runtime::builder().name("with\0nul").build().unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::InvalidInput, "{e}");
}

#[test]
fn shutting_down_with_endless_patience() {
    let rt = runtime(1);
    let task = rt.spawn(|| coro::sleep(Duration::MAX));
    until_parked(task.task(), "sleep");
    assert!(rt.shut_down(Duration::MAX));
    assert!(coro::is_cancel(&*task.join().unwrap_err()));
}

#[test]
#[ignore = "runs only as a child of the other tests"]
fn child_process() {
    let case = harness::case();
    match case.as_deref() {
        Some("run") => run_child(),
        Some("nested") => nested_child(),
        Some("wedged-sleep") => wedged_child(false),
        Some("wedged-spin") => wedged_child(true),
        Some(c) if c.starts_with("exit-") => exit_child(c),
        Some(c) if c.starts_with("signal") || c == "process-wide" => signal_child(c),
        Some("handlers") => handlers_child(),
        Some("leaks") => leaks_child(),
        Some("spawn-at-the-end") => spawn_at_the_end_child(),
        Some("latency") => latency_child(),
        Some("latency-environment") => {
            assert_eq!(coro::spawn(|| std::thread::sleep(Duration::from_millis(60))).join().map_err(|_| ()), Ok(()));
        }
        Some("load") => load_child(),
        Some("too-many") => too_many_child(),
        other => panic!("no such case: {other:?}"),
    }
}
