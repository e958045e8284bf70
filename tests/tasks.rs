//! What a task is to its user: its thread, its result, its end, its neighbours.

mod harness;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::{PATIENCE, Rng, child, runtime, seed, task_until, until, until_parked};

#[test]
fn a_panic_ends_its_task_only() {
    let rt = runtime(2);
    let stop = Arc::new(AtomicBool::new(false));
    let (others, turns): (Vec<_>, Vec<_>) = (0..8)
        .map(|_| {
            let (stop, turns) = (stop.clone(), Arc::new(AtomicU64::new(0)));
            let mine = turns.clone();
            let task = rt.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    mine.fetch_add(1, Ordering::Relaxed);
                    coro::yield_slice();
                }
            });
            (task, turns)
        })
        .unzip();
    let payload = rt.spawn(|| std::panic::panic_any(4711u32)).join().unwrap_err();
    assert_eq!(payload.downcast_ref::<u32>(), Some(&4711));
    let payload = rt.spawn(|| panic!("with {} text", String::from("formatted"))).join().unwrap_err();
    assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some("with formatted text"));
    assert!(!coro::is_cancel(&*payload));
    let seen: Vec<u64> = turns.iter().map(|t| t.load(Ordering::Relaxed)).collect();
    for (t, then) in turns.iter().zip(seen) {
        until("the others go on after the panics", || t.load(Ordering::Relaxed) > then + 10);
    }
    stop.store(true, Ordering::Relaxed);
    others.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn notifiers() {
    let e = child("notifiers").passed();
    // The failing notifier: the default line names the task and the message, once.
    let lines: Vec<_> = e.err.lines().filter(|l| l.contains("panic \"second\"")).collect();
    assert_eq!(lines.len(), 1, "{e:#?}");
    assert!(lines[0].contains("(fails)") && lines[0].contains("tests/tasks.rs"), "{lines:?}");
    assert!(!e.err.contains("panic \"first\""), "told twice: {e:#?}");
    let default: Vec<_> = e.err.lines().filter(|l| l.contains("panic \"third\"")).collect();
    assert_eq!(default.len(), 1, "{e:#?}");
}

#[inline(never)]
fn inner_of_the_panic() {
    panic!("first");
}

fn notifiers_child() {
    type Seen = (u64, Option<String>, String, String, Option<String>);
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let log = seen.clone();
    let old = coro::set_panic_notifier(Some(Arc::new(move |p| {
        log.lock().unwrap().push((
            p.id,
            p.name.map(str::to_owned),
            p.message().to_owned(),
            p.stack(),
            p.location.map(str::to_owned),
        ));
    })));
    assert!(old.is_none());
    let rt = runtime(2);
    let task = rt.block_on(|| {
        let t = coro::spawn_named("first task", inner_of_the_panic);
        let id = t.id();
        t.join().unwrap_err();
        // Caught by the task itself: not uncaught, so nobody is told.
        coro::spawn(|| drop(std::panic::catch_unwind(|| panic!("caught")))).join().unwrap();
        // A cancellation is no panic.
        let parked = coro::spawn(|| coro::sleep(Duration::from_secs(100)));
        until_parked(parked.task(), "sleep");
        parked.cancel();
        parked.join().unwrap_err();
        id
    });
    // A panic that was caught is not the place of an unwind that no hook saw; rethrown it is.
    rt.block_on(|| {
        let other = || {
            drop(std::panic::catch_unwind(|| panic!("caught before")));
            std::panic::resume_unwind(Box::new("of its own"))
        };
        coro::spawn(other).join().unwrap_err();
        let again = || std::panic::resume_unwind(std::panic::catch_unwind(|| panic!("again {}", 1)).unwrap_err());
        coro::spawn(again).join().unwrap_err();
    });
    {
        let mut seen = seen.lock().unwrap();
        let (_, _, message, stack, at) = seen.pop().unwrap();
        assert!(message == "again 1" && stack.contains("tasks.rs") && at.is_some(), "{message} {stack} {at:?}");
        let (_, _, message, stack, at) = seen.pop().unwrap();
        assert_eq!((message.as_str(), stack.as_str(), at), ("of its own", "", None));
        assert_eq!(seen.len(), 1, "{seen:?}");
        let (id, name, message, stack, at) = &seen[0];
        assert_eq!((*id, name.as_deref(), message.as_str()), (task, Some("first task"), "first"));
        assert!(stack.contains("inner_of_the_panic|"), "{stack}");
        assert!(at.as_deref().unwrap_or("").contains("tasks.rs"), "{at:?}");
    }
    let calls = Arc::new(AtomicUsize::new(0));
    let n = calls.clone();
    let old = coro::set_panic_notifier(Some(Arc::new(move |_| {
        n.fetch_add(1, Ordering::SeqCst);
        panic!("the notifier itself");
    })));
    assert!(old.is_some());
    rt.block_on(|| coro::spawn_named("fails", || panic!("second")).join().unwrap_err());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    coro::set_panic_notifier(None);
    rt.block_on(|| coro::spawn_named("default", || panic!("third")).join().unwrap_err());
    assert_eq!(seen.lock().unwrap().len(), 1);
}

thread_local! {
    static SLOT: Cell<u64> = const { Cell::new(0) };
    static BORROWED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn rc_refcell_and_thread_locals_live_across_waits() {
    let rt = runtime(4);
    rt.block_on(|| {
        let shared = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..50)
            .map(|i| {
                let shared = shared.clone();
                coro::spawn_local(move || {
                    for k in 0..20 {
                        shared.borrow_mut().push((i, k));
                        if k % 7 == 0 {
                            coro::sleep(Duration::from_micros(50));
                        } else {
                            coro::yield_slice();
                        }
                    }
                    shared
                })
            })
            .collect();
        for t in tasks {
            let back: Rc<_> = t.join().unwrap();
            assert!(Rc::ptr_eq(&back, &shared));
        }
        assert_eq!(shared.borrow().len(), 1000);
        assert_eq!(Rc::strong_count(&shared), 1);
        // Made inside a task that may start anywhere.
        let made: Vec<_> = (0..200)
            .map(|i| {
                coro::spawn(move || {
                    let rc = Rc::new(Cell::new(i));
                    let twin = rc.clone();
                    let address = SLOT.with(|s| std::ptr::from_ref(s) as usize);
                    for _ in 0..50 {
                        coro::yield_slice();
                        twin.set(twin.get() + 1);
                        assert_eq!(SLOT.with(|s| std::ptr::from_ref(s) as usize), address);
                    }
                    rc.get()
                })
            })
            .collect();
        for (i, t) in made.into_iter().enumerate() {
            assert_eq!(t.join().unwrap(), i + 50);
        }
    });
}

#[test]
fn refcell_in_a_thread_local_reports_a_borrow_error() {
    // One worker, so that both tasks meet in the same thread-local.
    let rt = runtime(1);
    rt.block_on(|| {
        let holder = coro::spawn(|| {
            BORROWED.with(|b| {
                let mut held = b.borrow_mut();
                held.push(1);
                coro::park();
                held.push(2);
            });
        });
        until_parked(holder.task(), "park");
        let other = coro::spawn(|| BORROWED.with(|b| b.try_borrow_mut().is_err() && b.try_borrow().is_err()));
        assert!(other.join().unwrap());
        let panics = coro::spawn(|| BORROWED.with(|b| b.borrow_mut().push(3)));
        assert!(!coro::is_cancel(&*panics.join().unwrap_err()));
        // Meanwhile nothing else is disturbed, and `no_switch` refuses the wait that would cause this.
        let refused = coro::spawn(|| coro::no_switch(coro::yield_slice)).join().unwrap_err();
        let text = refused.downcast_ref::<&str>().copied().unwrap_or_default();
        assert!(text.contains("no_switch"), "{text:?}");
        assert!(holder.task().unpark());
        holder.join().unwrap();
        BORROWED.with(|b| assert_eq!(*b.borrow(), [1, 2]));
    });
}

#[test]
fn a_million_yields_over_eight_workers_under_stealing() {
    let seed = seed();
    eprintln!("seed {seed}");
    let rt = runtime(8);
    let yields = Arc::new(AtomicU64::new(0));
    let short = Arc::new(AtomicU64::new(0));
    let total = rt.block_on(|| {
        let tasks: Vec<_> = (0..250u64)
            .map(|i| {
                let (yields, short) = (yields.clone(), short.clone());
                coro::spawn(move || {
                    let mut rng = Rng(seed ^ i);
                    let (thread, worker) = (std::thread::current().id(), coro::current_worker());
                    let mark = SLOT.with(|s| std::ptr::from_ref(s) as usize);
                    let mut children = Vec::new();
                    for k in 0..4000 {
                        coro::yield_slice();
                        assert_eq!(std::thread::current().id(), thread, "seed {seed}, task {i}, yield {k}");
                        assert_eq!(SLOT.with(|s| std::ptr::from_ref(s) as usize), mark, "seed {seed}");
                        if rng.below(400) == 0 {
                            let (short, n) = (short.clone(), rng.below(20));
                            children.push(coro::spawn(move || {
                                let thread = std::thread::current().id();
                                for _ in 0..n {
                                    coro::yield_slice();
                                    assert_eq!(std::thread::current().id(), thread);
                                }
                                short.fetch_add(1, Ordering::Relaxed);
                            }));
                        }
                        if rng.below(2000) == 0 {
                            coro::sleep(Duration::from_micros(rng.below(300)));
                            assert_eq!(std::thread::current().id(), thread, "seed {seed}: after a sleep");
                        }
                    }
                    assert_eq!(coro::current_worker(), worker);
                    yields.fetch_add(4000, Ordering::Relaxed);
                    let n = children.len() as u64;
                    for c in children {
                        c.join().unwrap();
                        assert_eq!(std::thread::current().id(), thread, "seed {seed}: after a join");
                    }
                    n
                })
            })
            .collect();
        tasks.into_iter().map(|t| t.join().unwrap()).sum::<u64>()
    });
    assert_eq!(yields.load(Ordering::Relaxed), 1_000_000);
    assert_eq!(short.load(Ordering::Relaxed), total);
    let stats = rt.worker_stats();
    assert!(stats.iter().all(|w| w.slices > 0), "a worker never ran anything: {stats:?}");
    assert!(stats.iter().map(|w| w.slices).sum::<u64>() >= 1_000_000);
    drop(rt);
}

#[test]
fn spawned_and_joined_from_plain_threads() {
    let rt = Arc::new(runtime(3));
    let threads: Vec<_> = (0..8u64)
        .map(|t| {
            let rt = rt.clone();
            std::thread::spawn(move || {
                let tasks: Vec<_> =
                    (0..500u64).map(|i| rt.spawn(move || (coro::yield_slice(), t * 1000 + i).1)).collect();
                tasks.into_iter().map(|t| t.join().unwrap()).sum::<u64>()
            })
        })
        .collect();
    let sums: u64 = threads.into_iter().map(|t| t.join().unwrap()).sum();
    let expected: u64 = (0..8u64).map(|t| (0..500).map(|i| t * 1000 + i).sum::<u64>()).sum();
    assert_eq!(sums, expected);
    // Spawned in a task, joined on a plain thread, and the other way round.
    let handle = rt.block_on(|| coro::spawn(|| (coro::sleep(Duration::from_millis(5)), 1).1));
    assert_eq!(handle.join().unwrap(), 1);
    let slow = rt.spawn(|| (coro::sleep(Duration::from_millis(5)), 2).1);
    assert_eq!(rt.block_on(|| slow.join().unwrap()), 2);
    // Joined long after the end.
    let ended = rt.spawn(|| 3);
    until("the task has ended", || ended.is_finished());
    assert!(ended.task().is_finished());
    assert!(!ended.task().unpark());
    ended.cancel();
    assert_eq!(ended.join().unwrap(), 3);
}

/// Counts how many of it exist.
struct Counted(Arc<AtomicI64>);

impl Counted {
    fn new(n: &Arc<AtomicI64>) -> Counted {
        n.fetch_add(1, Ordering::SeqCst);
        Counted(n.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let before = self.0.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "dropped twice");
    }
}

#[test]
fn closures_and_results_are_dropped_exactly_once() {
    let rt = runtime(2);
    let n = Arc::new(AtomicI64::new(0));
    let zero = |what: &str| until(what, || n.load(Ordering::SeqCst) == 0);
    let one = || Counted::new(&n);
    // Larger than what a cell holds itself.
    let big = || [one(), one(), one(), one(), one()];
    for round in 0..50 {
        let (a, b) = (one(), big());
        let t = rt.spawn(move || (coro::yield_slice(), (a, b)).1);
        assert_eq!(n.load(Ordering::SeqCst), 6);
        let r = t.join().unwrap();
        assert_eq!(n.load(Ordering::SeqCst), 6);
        drop(r);
        assert_eq!(n.load(Ordering::SeqCst), 0, "round {round}");
        // Detached: before the end, and after it.
        let a = one();
        drop(rt.spawn(move || (coro::yield_slice(), a).1));
        zero("the result of a detached task is dropped");
        let b = big();
        let t = rt.spawn(move || b);
        until("ended", || t.is_finished());
        drop(t);
        zero("the result of an ended, never joined task is dropped");
        // Panicked, with and without a join.
        let a = one();
        let t = rt.spawn(move || {
            let _a = a;
            std::panic::resume_unwind(Box::new(1u8));
        });
        drop(t.join().unwrap_err());
        zero("a panicking task drops its closure");
        let a = one();
        let t = rt.spawn(move || std::panic::resume_unwind(Box::new(a)));
        let payload: Box<dyn std::any::Any + Send> = t.join().unwrap_err();
        assert_eq!(n.load(Ordering::SeqCst), 1);
        drop(payload);
        zero("a payload is dropped by whoever joined");
        let a = one();
        drop(rt.spawn(move || -> () { std::panic::resume_unwind(Box::new(a)) }));
        zero("a payload that nobody joins is dropped");
        // Cancelled before the start: a hog holds the worker meanwhile.
        let (a, b) = (one(), big());
        let (x, y) = rt.block_on(|| {
            let here = coro::current_worker().unwrap();
            let x = coro::Builder::new().worker(here).spawn(move || drop(a)).unwrap();
            let y = coro::Builder::new().worker(here).spawn(move || drop(b)).unwrap();
            x.cancel();
            y.cancel();
            (x, y)
        });
        assert!(coro::is_cancel(&*x.join().unwrap_err()));
        drop(y);
        zero("a task cancelled before its start drops its closure");
    }
}

#[test]
fn handles_dropped_while_the_task_ends() {
    // The handle goes away at the very moment at which the task ends. The value's drop waits for a lock that another
    // task of the same worker holds: run in the worker's loop, outside any task, that would block the worker for ever.
    static OUTSIDE_A_TASK: AtomicUsize = AtomicUsize::new(0);
    let seed = seed();
    eprintln!("seed {seed}");
    let rt = runtime(1);
    let alive = Arc::new(AtomicI64::new(0));
    struct Locks(Arc<coro::sync::Mutex<()>>, #[expect(dead_code, reason = "counts by its drop")] Counted);
    impl Drop for Locks {
        fn drop(&mut self) {
            if coro::current().is_none() && std::thread::current().name().is_some_and(|n| n.starts_with("coro-")) {
                OUTSIDE_A_TASK.fetch_add(1, Ordering::SeqCst);
                return;
            }
            drop(self.0.lock());
        }
    }
    let lock = Arc::new(coro::sync::Mutex::new(()));
    let mut rng = Rng(seed);
    let stop = Arc::new(AtomicBool::new(false));
    let holder = {
        let (lock, stop) = (lock.clone(), stop.clone());
        rt.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let held = lock.lock();
                coro::yield_slice();
                drop(held);
                coro::yield_slice();
            }
        })
    };
    let end = Instant::now() + Duration::from_secs(3);
    let mut rounds = 0;
    while Instant::now() < end {
        let value = Locks(lock.clone(), Counted::new(&alive));
        let t = rt.spawn(move || value);
        for _ in 0..rng.below(3000) {
            std::hint::spin_loop();
        }
        let by_task = rng.below(4) == 0;
        if by_task {
            drop(rt.spawn(move || drop(t)));
        } else {
            drop(t);
        }
        rounds += 1;
        if rounds % 64 == 0 {
            until(&format!("all values are dropped (seed {seed})"), || alive.load(Ordering::SeqCst) == 0);
        }
    }
    until(&format!("all values are dropped (seed {seed})"), || alive.load(Ordering::SeqCst) == 0);
    stop.store(true, Ordering::Relaxed);
    holder.join().unwrap();
    assert_eq!(OUTSIDE_A_TASK.load(Ordering::SeqCst), 0, "of {rounds} values were dropped in the worker's loop");
}

#[test]
fn a_spinning_yielder_starves_nobody() {
    let rt = runtime(1);
    let stop = Arc::new(AtomicBool::new(false));
    let spinners: Vec<_> = (0..3)
        .map(|_| {
            let stop = stop.clone();
            rt.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    coro::yield_slice();
                }
            })
        })
        .collect();
    rt.block_on(|| {
        // Timers.
        let begun = Instant::now();
        for _ in 0..20 {
            coro::sleep(Duration::from_millis(2));
        }
        assert!(begun.elapsed() < PATIENCE / 2, "timers are late: {:?}", begun.elapsed());
        assert!(begun.elapsed() >= Duration::from_millis(40));
        // I/O.
        let listener = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let echo = coro::spawn(move || {
            let (mut c, _) = listener.accept().unwrap();
            let mut b = [0; 64];
            while let Ok(n @ 1..) = c.read(&mut b) {
                c.write_all(&b[..n]).unwrap();
            }
        });
        let mut c = coro::net::TcpStream::connect(at).unwrap();
        let mut b = [0; 5];
        for _ in 0..200 {
            c.write_all(b"hello").unwrap();
            c.read_exact(&mut b).unwrap();
        }
        drop(c);
        echo.join().unwrap();
        // Wake-ups from other threads, and tasks yet to start.
        let sleeper = coro::spawn(coro::park);
        until_parked(sleeper.task(), "park");
        let task = sleeper.task();
        std::thread::spawn(move || task.unpark()).join().unwrap();
        sleeper.join().unwrap();
    });
    stop.store(true, Ordering::Relaxed);
    spinners.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn an_unpark_before_the_park_is_kept() {
    let rt = runtime(2);
    rt.block_on(|| {
        let go = Arc::new(AtomicBool::new(false));
        let (seen, rounds) = (Arc::new(AtomicU64::new(0)), 2000);
        let (go2, seen2) = (go.clone(), seen.clone());
        let t = coro::spawn(move || {
            while !go2.load(Ordering::Acquire) {
                // Waits of other kinds must not eat the token.
                coro::sleep(Duration::from_micros(100));
            }
            coro::park();
            for _ in 0..rounds {
                seen2.fetch_add(1, Ordering::SeqCst);
                coro::park();
            }
        });
        assert!(t.task().unpark());
        assert!(t.task().unpark(), "tokens do not add up");
        go.store(true, Ordering::Release);
        for k in 0..rounds {
            task_until("the task passed its park", || seen.load(Ordering::SeqCst) == k + 1);
            assert!(t.task().unpark());
        }
        t.join().unwrap();
    });
}

#[test]
fn plain_threads() {
    coro::yield_slice();
    assert_eq!(coro::current(), None);
    assert_eq!(coro::current_name(), None);
    assert_eq!(coro::current_worker(), None);
    assert!(!coro::is_cancelled());
    let t = Instant::now();
    coro::sleep(Duration::from_millis(3));
    assert!(t.elapsed() >= Duration::from_millis(3));
    let e = coro::Builder::new().spawn_local(|| ()).unwrap_err();
    assert!(e.to_string().contains("running task"), "{e}");
    assert!(std::panic::catch_unwind(coro::park).is_err());
    assert_eq!(coro::shield(|| 1) + coro::no_switch(|| 2), 3);
}

#[test]
fn names_ids_and_workers() {
    let rt = runtime(3);
    rt.block_on(|| {
        assert_eq!(coro::current_name().as_deref(), Some("main"));
        let mut ids = std::collections::HashSet::new();
        let tasks: Vec<_> = (0..300)
            .map(|i| coro::spawn_named(format!("n{i}"), move || (coro::current().unwrap().id(), coro::current_name())))
            .collect();
        for (i, t) in tasks.into_iter().enumerate() {
            let id = t.id();
            assert!(ids.insert(id), "an id twice");
            assert_eq!(t.join().unwrap(), (id, Some(format!("n{i}"))));
        }
        for w in 0..3 {
            let t = coro::Builder::new().worker(w).name("placed").spawn(coro::current_worker).unwrap();
            assert_eq!(t.join().unwrap(), Some(w));
        }
        let mine = coro::current_worker();
        assert_eq!(coro::spawn_local(coro::current_worker).join().unwrap(), mine);
        assert_eq!(coro::spawn(coro::current_name).join().unwrap(), None);
    });
}

#[test]
fn builder_errors_say_what_to_do() {
    let rt = runtime(2);
    rt.block_on(|| {
        let text = |b: coro::Builder| b.spawn(|| ()).map(|_| ()).unwrap_err().to_string();
        let zero = text(coro::Builder::new().stack_size(0));
        assert!(zero.contains('0') && zero.contains("stack"), "{zero}");
        let huge = text(coro::Builder::new().stack_size(usize::MAX));
        assert!(huge.contains("stack") && huge.len() > 20, "{huge}");
        let huge = text(coro::Builder::new().stack_size(1 << 45));
        assert!(huge.contains("stack"), "{huge}");
        let worker = text(coro::Builder::new().worker(2));
        assert!(worker.contains("worker 2") && worker.contains("has 2"), "{worker}");
        let mine = coro::current_worker().unwrap();
        let e = coro::Builder::new().worker(1 - mine).spawn_local(|| ()).unwrap_err();
        assert!(e.to_string().contains("leave out"), "{e}");
        coro::Builder::new().worker(mine).spawn_local(|| ()).unwrap().join().unwrap();
    });
    for n in [0, 100_000] {
        let e = coro::Runtime::builder().workers(n).build().unwrap_err();
        assert!(e.to_string().contains("from 1 to"), "{e}");
    }
    assert!(coro::Runtime::builder().workers(1).stack_size(0).build().is_err());
}

#[test]
fn tasks_are_unwound_before_thread_local_destructors_run() {
    static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());
    struct Logs(&'static str);
    impl Drop for Logs {
        fn drop(&mut self) {
            LOG.lock().unwrap().push(format!("{} {:?}", self.0, std::thread::current().id()));
        }
    }
    thread_local! {
        static LOCAL: Logs = const { Logs("thread-local") };
    }
    let rt = runtime(2);
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            rt.spawn(|| {
                LOCAL.with(|_borrowed| {
                    let _frame = Logs("frame");
                    coro::sleep(Duration::from_secs(1000));
                });
            })
        })
        .collect();
    tasks.iter().for_each(|t| until_parked(t.task(), "sleep"));
    assert!(rt.shut_down(Duration::from_secs(10)));
    let log = LOG.lock().unwrap().clone();
    assert_eq!(log.iter().filter(|l| l.starts_with("frame")).count(), 20, "{log:?}");
    assert!(log.iter().any(|l| l.starts_with("thread-local")), "{log:?}");
    for (i, line) in log.iter().enumerate() {
        if let Some(thread) = line.strip_prefix("thread-local ") {
            let late = log[i..].iter().any(|l| l.strip_prefix("frame ") == Some(thread));
            assert!(!late, "a frame outlived the thread-local that it borrows: {log:?}");
        }
    }
}

/// 3.4 KiB of a frame that the kernel could damage, checked after every wait.
#[inline(never)]
fn guarded(depth: u32, tag: u64) -> u64 {
    let pattern = std::hint::black_box([tag; 40]);
    let below =
        if depth == 0 { (0..50).map(|_| (coro::yield_slice(), spin()).1).sum() } else { guarded(depth - 1, tag + 1) };
    assert!(std::hint::black_box(&pattern).iter().all(|w| *w == tag), "a signal frame overwrote a task's stack");
    below + 1
}

#[inline(never)]
fn spin() -> u64 {
    (0..200u64).fold(0, |a, b| std::hint::black_box(a ^ b))
}

static STORM: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_storm(_: libc::c_int) {
    STORM.fetch_add(1, Ordering::Relaxed);
}

fn storm_child(on_stack: bool) {
    let pid = std::process::id() as i32;
    // SAFETY: the handler is async-signal-safe and the structure is plain data.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_storm as *const () as usize;
        action.sa_flags = libc::SA_RESTART | if on_stack { libc::SA_ONSTACK } else { 0 };
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    let rt = coro::Runtime::builder().workers(2).stack_size(16 * 1024).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stormer = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for entry in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
                    let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                    let tid: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
                    if name.starts_with("coro-") {
                        // SAFETY: a signal to a thread of our own process; a stale number is refused.
                        unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, libc::SIGUSR1) };
                    }
                }
            }
        })
    };
    rt.block_on(|| {
        let end = Instant::now() + Duration::from_secs(3);
        let mut rounds = 0;
        while Instant::now() < end {
            let tasks: Vec<_> = (0..32u64).map(|i| coro::spawn(move || guarded(3, i * 100))).collect();
            assert!(tasks.into_iter().all(|t| t.join().unwrap() == 4 + 50 * spin()));
            rounds += 1;
        }
        println!("{rounds} rounds");
    });
    stop.store(true, Ordering::Relaxed);
    stormer.join().unwrap();
    let n = STORM.load(Ordering::Relaxed);
    println!("{n} signals");
    assert!(n > 100, "no storm: {n} signals");
}

#[test]
fn a_signal_storm_at_the_smallest_stack_with_an_alternate_stack() {
    child("storm-onstack").passed();
}

#[test]
fn a_signal_storm_at_the_smallest_stack_on_the_tasks_stack() {
    child("storm-plain").passed();
}

/// The destructor runs after that of everything that `coro` keeps in the thread, because it was registered first.
#[test]
fn the_destructor_of_a_thread_local_may_wait() {
    struct Joins(Option<coro::JoinHandle<u32>>, coro::sync::mpsc::Sender<()>, std::sync::mpsc::Sender<u32>);
    impl Drop for Joins {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
            let scoped = coro::scope(|s| s.spawn(|| 1).join().unwrap());
            self.2.send(scoped + self.0.take().unwrap().join().unwrap()).unwrap();
        }
    }
    thread_local!(static LAST: RefCell<Option<Joins>> = const { RefCell::new(None) });
    let (tell, told) = std::sync::mpsc::channel();
    let rt = Arc::new(runtime(1));
    let rt2 = rt.clone();
    std::thread::spawn(move || {
        let (dies, died) = coro::sync::mpsc::channel();
        let task = rt2.spawn(move || {
            died.recv().unwrap();
            // So that the join really waits; without the wait nothing is tested, but nothing fails either.
            coro::sleep(Duration::from_millis(20));
            10
        });
        LAST.with(|l| l.replace(Some(Joins(Some(task), dies, tell))));
        rt2.spawn(|| coro::sleep(Duration::from_millis(5))).join().unwrap();
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok(11), "the destructor waits for ever");
}

#[test]
fn a_sleep_without_end_keeps_nobody_else_from_running() {
    let rt = runtime(1);
    // The timers have been looked at before.
    rt.spawn(|| coro::sleep(Duration::from_millis(2))).join().unwrap();
    let forever = rt.spawn(|| coro::sleep(Duration::MAX));
    until_parked(forever.task(), "sleep");
    let years = rt.spawn(|| coro::timeout(Duration::from_secs(20 * 365 * 86_400), coro::park).is_err());
    until_parked(years.task(), "park");
    let other = rt.spawn(|| coro::sleep(Duration::from_millis(2)));
    until("another task of the worker runs", || other.is_finished());
    for task in [forever.task(), years.task()] {
        task.cancel();
        until("it is cancelled", || task.is_finished());
    }
}

/// A result whose destructor panics with something whose destructor panics, and so on.
#[test]
fn a_result_that_panics_again_and_again_when_dropped_harms_nobody() {
    struct Bomb(u32);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 > 0 {
                std::panic::panic_any(Bomb(self.0 - 1));
            }
        }
    }
    let rt = runtime(1);
    for n in 0..5 {
        let ended = rt.spawn(move || Bomb(n));
        until("the task ends", || ended.is_finished());
        drop(ended);
        // Dropped in the task itself.
        let task = rt.block_on(move || coro::spawn(move || Bomb(n)).task());
        until("the detached task ends", || task.is_finished());
    }
    assert_eq!(rt.spawn(|| 1).join().unwrap(), 1);
}

#[test]
#[ignore = "runs only as a child of the other tests"]
fn child_process() {
    match harness::case().as_deref() {
        Some("notifiers") => notifiers_child(),
        Some("storm-onstack") => storm_child(true),
        Some("storm-plain") => storm_child(false),
        other => panic!("no such case: {other:?}"),
    }
}
