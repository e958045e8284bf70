//! Cancellation and time limits: what each state of a task does with them, and what must survive them.
//!
//! Longer than 800 lines because the cases share their helpers and make one table of states, waits and guards.

#![allow(dropping_copy_types, reason = "a result that says nothing is dropped aloud")]

mod harness;

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use coro::sync::Mutex;
use coro::sync::mpsc::{RecvError, SendError, channel, sync_channel};
use harness::{PATIENCE, Rng, child, runtime, seed, task_until, until_parked};

const LONG: Duration = Duration::from_secs(1000);

#[track_caller]
fn cancelled<T: std::fmt::Debug>(r: Result<T, Box<dyn std::any::Any + Send>>) {
    let payload = r.expect_err("the task was to be cancelled");
    assert!(coro::is_cancel(&*payload), "ended by a panic, not by a cancellation: {:?}", text(&*payload));
}

fn text(payload: &(dyn std::any::Any + Send)) -> String {
    let s = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    s.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "(no text)".to_owned())
}

#[test]
fn every_state_of_a_task() {
    let rt = runtime(2);
    rt.block_on(|| {
        let here = coro::current_worker().unwrap();
        // Dead: nothing happens, also through a reference that outlives it.
        let dead = coro::spawn(|| 1);
        let reference = dead.task();
        task_until("it ended", || dead.is_finished());
        dead.cancel();
        reference.cancel_now();
        assert_eq!(dead.join().unwrap(), 1);
        reference.cancel();
        assert!(reference.is_finished() && !reference.unpark());
        // Unstarted: never runs.
        let ran = Arc::new(AtomicBool::new(false));
        let r = ran.clone();
        let unstarted = coro::Builder::new().worker(here).spawn(move || r.store(true, Ordering::SeqCst)).unwrap();
        unstarted.cancel();
        cancelled(unstarted.join());
        assert!(!ran.load(Ordering::SeqCst), "a task cancelled before its start ran");
        // Runnable: on this very worker it stands in its yield while this task runs. How often it has run by then nobody promises: a
        // task that somebody looks at when it is its turn comes after the next.
        let turns = Rc::new(Cell::new(0));
        let t = turns.clone();
        let runnable: coro::JoinHandle<()> = coro::spawn_local(move || {
            loop {
                t.set(t.get() + 1);
                coro::yield_slice();
            }
        });
        while turns.get() == 0 {
            coro::yield_slice();
        }
        runnable.cancel();
        let then = turns.get();
        cancelled(runnable.join());
        assert!(turns.get() <= then + 1, "it went on for {} turns", turns.get() - then);
        // Running: told by `is_cancelled`, and unwound at its next wait.
        let (go, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (g, s) = (go.clone(), seen.clone());
        let running = coro::Builder::new()
            .worker(1 - here)
            .spawn(move || {
                g.store(true, Ordering::SeqCst);
                while !coro::is_cancelled() {
                    std::hint::spin_loop();
                }
                s.store(true, Ordering::SeqCst);
                coro::yield_slice();
                unreachable!("a cancelled task passed a wait");
            })
            .unwrap();
        task_until("it runs", || go.load(Ordering::SeqCst));
        running.cancel();
        cancelled(running.join());
        assert!(seen.load(Ordering::SeqCst));
        // Cancelling oneself.
        let own = coro::spawn(|| {
            coro::current().unwrap().cancel();
            assert!(coro::is_cancelled());
            coro::yield_slice();
            unreachable!();
        });
        cancelled::<()>(own.join());
    });
}

#[test]
fn every_kind_of_wait() {
    let rt = runtime(2);
    rt.block_on(|| {
        let held = Arc::new(Mutex::new(()));
        let guard = held.lock().unwrap();
        let (tx, rx) = channel::<u8>();
        let (full, _full_rx) = sync_channel::<u8>(1);
        full.send(1).unwrap();
        let (meet, _meet_rx) = sync_channel::<u8>(0);
        let endless = coro::spawn(coro::park);
        let listener = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let m = held.clone();
        let waits: Vec<(&str, coro::JoinHandle<()>)> = vec![
            ("sleep", coro::spawn(|| coro::sleep(LONG))),
            ("park", coro::spawn(coro::park)),
            ("lock", coro::spawn(move || drop(m.lock()))),
            ("recv", coro::spawn(move || drop(rx.recv()))),
            ("send", coro::spawn(move || drop(full.send(2)))),
            ("send", coro::spawn(move || drop(meet.send(3)))),
            ("join #", coro::spawn(move || drop(endless.join()))),
            ("scope", coro::spawn(|| coro::scope(|s| drop(s.spawn(|| coro::sleep(LONG)))))),
            ("event_loop", coro::spawn(coro::event_loop)),
        ];
        for (wait, t) in &waits {
            until_parked(t.task(), wait);
        }
        let accept = coro::spawn(move || listener.accept().map(|_| ()).map_err(|e| (listener, e)));
        until_parked(accept.task(), "accept");
        accept.cancel();
        // Error first: the call returns, the task goes on to its end.
        let (_, e) = accept.join().unwrap().unwrap_err();
        assert!(e.get_ref().is_some_and(|e| e.is::<coro::CancelledError>()), "{e:?}");
        for (wait, t) in waits {
            t.cancel();
            let payload = t.join().expect_err(wait);
            assert!(coro::is_cancel(&*payload), "{wait}");
        }
        drop(guard);
        assert!(held.lock().is_ok(), "a cancelled waiter poisoned the lock");
        drop(tx);
    });
}

#[test]
fn io_gets_the_error_once_then_unwinds() {
    let rt = runtime(2);
    rt.block_on(|| {
        let (mut a, _b) = coro::net::unix::UnixStream::pair().unwrap();
        let reached = Arc::new(AtomicU32::new(0));
        let r = reached.clone();
        let t = coro::spawn(move || {
            let mut buf = [0; 8];
            let e = a.read(&mut buf).unwrap_err();
            assert_ne!(e.kind(), io::ErrorKind::Interrupted, "std retries that");
            assert!(e.get_ref().is_some_and(|e| e.is::<coro::CancelledError>()), "{e:?}");
            r.store(1, Ordering::SeqCst);
            let _ = a.read(&mut buf);
            r.store(2, Ordering::SeqCst);
        });
        until_parked(t.task(), "read");
        t.cancel();
        cancelled(t.join());
        assert_eq!(reached.load(Ordering::SeqCst), 1);
        // The same for a limit, and the owner alone sees it.
        let (mut a, _b) = coro::net::unix::UnixStream::pair().unwrap();
        let r = coro::timeout(Duration::from_millis(5), || {
            let mut buf = [0; 8];
            assert_eq!(a.read(&mut buf).unwrap_err().kind(), io::ErrorKind::TimedOut);
            let _ = a.read(&mut buf);
            unreachable!();
        });
        assert!(r.is_err_and(|e: coro::Elapsed<()>| e.value().is_none()));
        assert!(!coro::is_cancelled());
    });
}

#[test]
fn swallowed_cancellation_is_raised_again_and_reported() {
    let e = child("swallow").passed();
    let lines: Vec<_> = e.err.lines().filter(|l| l.contains("keeps catching its cancellation")).collect();
    assert_eq!(lines.len(), 1, "{e:#?}");
    assert!(lines[0].contains("\"stubborn\""), "{lines:?}");
    assert!(!e.err.contains("HOOK"), "a panic hook ran for a cancellation: {e:#?}");
}

fn swallow_child() {
    std::panic::set_hook(Box::new(|i| eprintln!("HOOK {i}")));
    let rt = runtime(1);
    rt.block_on(|| {
        let (rounds, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (r, s) = (rounds.clone(), stop.clone());
        let t = coro::spawn_named("stubborn", move || {
            while !s.load(Ordering::Relaxed) {
                let caught = catch_unwind(|| coro::sleep(Duration::from_millis(1)));
                assert!(caught.is_ok() || coro::is_cancel(&*caught.unwrap_err()));
                r.fetch_add(1, Ordering::Relaxed);
            }
            coro::yield_slice();
            unreachable!("stickiness");
        });
        until_parked(t.task(), "sleep");
        t.cancel();
        // On the same worker: the swallowing loop must not starve the others.
        task_until("it goes on swallowing", || rounds.load(Ordering::Relaxed) > 50);
        stop.store(true, Ordering::Relaxed);
        cancelled(t.join());
        // A destructor's waits, every other kind of cancellation: silent.
        let t = coro::spawn(|| coro::scope(|s| drop(s.spawn(|| coro::sleep(LONG)))));
        until_parked(t.task(), "scope");
        t.cancel();
        cancelled(t.join());
        let _ = coro::timeout(Duration::from_millis(1), || coro::sleep(LONG));
    });
}

#[test]
fn shield_defers_cancellation_and_limits() {
    let rt = runtime(1);
    rt.block_on(|| {
        let (tx, rx) = channel();
        let t = coro::spawn(move || {
            coro::shield(|| {
                coro::shield(coro::park);
                tx.send("inner over").unwrap();
                coro::sleep(Duration::from_millis(2));
                tx.send("outer over").unwrap();
            });
            tx.send("after").unwrap();
            coro::yield_slice();
            tx.send("never").unwrap();
        });
        until_parked(t.task(), "park");
        t.cancel();
        coro::sleep(Duration::from_millis(5));
        assert!(!t.is_finished());
        t.task().unpark();
        let task = t.task();
        cancelled(t.join());
        assert!(task.is_finished());
        assert_eq!(rx.iter().collect::<Vec<_>>(), ["inner over", "outer over", "after"]);
        let begun = Instant::now();
        let r = coro::timeout(Duration::from_millis(1), || coro::shield(|| coro::sleep(Duration::from_millis(20))));
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert_eq!(r.unwrap_err().into_value(), Some(()));
    });
}

#[test]
fn a_limit_that_begins_under_a_shield_works_there() {
    let rt = runtime(1);
    rt.block_on(|| {
        let task = coro::spawn(|| {
            let begun = Instant::now();
            let outer = coro::timeout(Duration::from_millis(1), || {
                coro::shield(|| {
                    // Due long before, and held off until the shield ends.
                    coro::sleep(Duration::from_millis(10));
                    coro::current().unwrap().cancel();
                    let inner = coro::timeout(Duration::from_millis(1), || coro::sleep(LONG));
                    assert_eq!(inner.unwrap_err().into_value(), None);
                    let nested = || coro::shield(|| coro::sleep(Duration::from_millis(10)));
                    assert_eq!(coro::timeout(Duration::from_millis(1), nested).unwrap_err().into_value(), Some(()));
                    coro::sleep(Duration::from_millis(1));
                });
            });
            assert!(outer.is_err() && begun.elapsed() < LONG / 2);
            // An initialiser is shielded.
            static LAZY: coro::sync::LazyLock<bool> =
                coro::sync::LazyLock::new(|| coro::timeout(Duration::from_millis(1), || coro::sleep(LONG)).is_err());
            assert!(*LAZY);
            coro::yield_slice();
        });
        cancelled(task.join());
    });
}

/// A C library that calls back; unwinding through it would abort the process.
extern "C" fn c_library(callback: extern "C" fn(usize), data: usize) {
    callback(data);
}

extern "C" fn waits_in_a_callback(data: usize) {
    // SAFETY: the caller passes the address of a flag that outlives the call.
    let entered = unsafe { &*std::ptr::with_exposed_provenance::<AtomicBool>(data) };
    coro::shield(|| {
        entered.store(true, Ordering::SeqCst);
        coro::sleep(Duration::from_millis(30));
        coro::yield_slice();
    });
}

#[test]
fn a_callback_from_c_that_waits_is_cancelled_after_it() {
    let rt = runtime(2);
    rt.block_on(|| {
        let entered = Arc::new(AtomicBool::new(false));
        let (returned, after) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (e, r, a) = (entered.clone(), returned.clone(), after.clone());
        let t = coro::spawn(move || {
            c_library(waits_in_a_callback, Arc::as_ptr(&e).expose_provenance());
            r.store(true, Ordering::SeqCst);
            coro::yield_slice();
            a.store(true, Ordering::SeqCst);
        });
        task_until("the callback runs", || entered.load(Ordering::SeqCst));
        t.cancel();
        cancelled(t.join());
        assert!(returned.load(Ordering::SeqCst) && !after.load(Ordering::SeqCst));
    });
}

#[test]
fn a_held_guard_allows_the_error_form_only() {
    let rt = runtime(2);
    rt.block_on(|| {
        let m = Arc::new(Mutex::new((0, 0)));
        let (mut a, mut b) = coro::net::unix::UnixStream::pair().unwrap();
        let (inner, told) = (m.clone(), Arc::new(AtomicBool::new(false)));
        let told2 = told.clone();
        let t = coro::spawn(move || {
            let mut g = inner.lock().unwrap();
            g.0 += 1;
            let mut buf = [0; 1];
            // The error comes, also a second time it does not unwind.
            let e = a.read(&mut buf).unwrap_err();
            assert!(e.get_ref().is_some_and(|e| e.is::<coro::CancelledError>()));
            told2.store(true, Ordering::SeqCst);
            let second = a.read(&mut buf);
            coro::sleep(Duration::from_millis(1));
            coro::yield_slice();
            g.1 += 1;
            drop(g);
            assert!(second.is_err() || second.unwrap() == 1);
            coro::yield_slice();
            unreachable!("without the guard the task unwinds");
        });
        until_parked(t.task(), "read");
        t.cancel();
        task_until("the error came", || told.load(Ordering::SeqCst));
        // The second read may have given the error as well, and the task be gone.
        let _ = b.write_all(b"x");
        cancelled(t.join());
        assert_eq!(*m.lock().expect("not poisoned"), (1, 1), "the update was left half done");
        // The other order: now.
        let inner = m.clone();
        let t = coro::spawn(move || {
            let mut g = inner.lock().unwrap();
            g.0 += 1;
            coro::sleep(LONG);
            g.1 += 1;
        });
        until_parked(t.task(), "sleep");
        t.cancel();
        coro::sleep(Duration::from_millis(5));
        assert!(!t.is_finished(), "unwound through a held guard");
        t.task().cancel_now();
        cancelled(t.join());
        assert!(m.is_poisoned());
        assert_eq!(*m.lock().unwrap_err().into_inner(), (2, 1));
    });
}

#[test]
fn a_guard_that_changes_its_task() {
    // Not `Send`, but tasks of one worker may pass it on.
    static M: Mutex<u32> = Mutex::new(0);
    let rt = runtime(1);
    rt.block_on(|| {
        let t = coro::spawn_local(|| M.lock().unwrap());
        task_until("ended", || t.is_finished());
        let mut g = t.join().unwrap();
        *g += 1;
        drop(g);
        assert_eq!(*M.lock().unwrap(), 1);
        // Neither task's cancellation is lost by it.
        let other = coro::spawn_local(|| {
            let g = M.lock().unwrap();
            coro::spawn_local(move || {
                drop(g);
                coro::sleep(LONG);
            })
        });
        let dropper = other.join().unwrap();
        until_parked(dropper.task(), "sleep");
        dropper.cancel();
        cancelled(dropper.join());
        assert!(!M.is_poisoned());
    });
}

#[test]
fn limits_nest() {
    let rt = runtime(1);
    rt.block_on(|| {
        let ms = Duration::from_millis;
        // Inner expires: the outer does not see it.
        let r = coro::timeout(LONG, || {
            let inner = coro::timeout(ms(2), || coro::sleep(LONG));
            assert!(inner.is_err());
            coro::sleep(ms(1));
            7
        });
        assert_eq!(r.unwrap(), 7);
        // Outer expires: it ends the inner, which must not take it for its own.
        let (mut inner_returned, begun) = (false, Instant::now());
        let r = coro::timeout(ms(5), || {
            let _ = coro::timeout(LONG, || coro::sleep(LONG));
            inner_returned = true;
        });
        assert!(r.unwrap_err().into_value().is_none());
        assert!(!inner_returned && begun.elapsed() < PATIENCE);
        // Both at once: the outermost wins, whatever the order of the timers.
        for _ in 0..50 {
            let mut inner_saw = false;
            let r = coro::timeout(ms(1), || {
                inner_saw = coro::timeout(ms(1), || coro::sleep(LONG)).is_err();
                coro::sleep(LONG);
            });
            assert!(r.unwrap_err().into_value().is_none());
            let _ = inner_saw;
        }
        // Deep.
        fn deep(n: u32) -> u32 {
            if n == 0 {
                coro::sleep(LONG);
                return 0;
            }
            match coro::timeout(LONG, || deep(n - 1)) {
                Ok(k) => k + 1,
                Err(_) => unreachable!("not this one's limit"),
            }
        }
        assert!(coro::timeout(ms(3), || deep(60)).is_err());
        // Zero, huge, and a value that comes too late.
        assert!(coro::timeout(Duration::ZERO, || coro::sleep(LONG)).unwrap_err().into_value().is_none());
        assert_eq!(coro::timeout(Duration::ZERO, || 5).unwrap_err().into_value(), Some(5));
        assert_eq!(coro::timeout(Duration::MAX, || (coro::sleep(ms(1)), 6).1).unwrap(), 6);
        assert_eq!(coro::timeout(Duration::from_secs(u64::MAX / 2), || (coro::sleep(ms(1)), 6).1).unwrap(), 6);
        let late = coro::timeout(ms(1), || {
            let _ = catch_unwind(|| coro::sleep(LONG));
            String::from("late")
        });
        assert_eq!(late.unwrap_err().into_value().as_deref(), Some("late"));
        // A panic inside a limit stays a panic; a cancellation stays a cancellation.
        let p =
            catch_unwind(AssertUnwindSafe(|| drop(coro::timeout(LONG, || std::panic::resume_unwind(Box::new(3u8))))));
        assert_eq!(p.unwrap_err().downcast_ref::<u8>(), Some(&3));
        let t = coro::spawn(|| drop(coro::timeout(LONG, || coro::sleep(LONG))));
        until_parked(t.task(), "sleep");
        t.cancel();
        cancelled(t.join());
        // After all that nothing is left over.
        coro::sleep(ms(2));
        coro::yield_slice();
    });
}

#[test]
fn constant_io_cannot_defer_a_limit() {
    let rt = runtime(1);
    rt.block_on(|| {
        let (mut a, mut b) = coro::net::unix::UnixStream::pair().unwrap();
        let begun = Instant::now();
        let mut rounds = 0u64;
        let r = coro::timeout(Duration::from_millis(20), || -> io::Result<()> {
            let mut buf = [0; 1];
            loop {
                a.write_all(b"x")?;
                b.read_exact(&mut buf)?;
                rounds += 1;
                assert!(begun.elapsed() < PATIENCE, "never expired after {rounds} rounds");
            }
        });
        let e = r.unwrap_err().into_value().expect("the error was returned").unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
        // And only yielding cannot either.
        let begun = Instant::now();
        let r = coro::timeout(Duration::from_millis(20), || {
            loop {
                coro::yield_slice();
                assert!(begun.elapsed() < PATIENCE);
            }
        });
        assert!(r.is_err_and(|e: coro::Elapsed<()>| e.value().is_none()));
    });
}

/// Runs a closure when dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn waits_while_unwinding() {
    let e = child("unwinding").passed();
    for name in ["locks by panic", "locks by cancel"] {
        let n = e
            .err
            .lines()
            .filter(|l| l.contains(&format!("\"{name}\" waits for another task while it unwinds")))
            .count();
        assert_eq!(n, 1, "{name}: {e:#?}");
    }
    assert!(!e.err.contains("\"healthy"), "a healthy task is said to unwind: {e:#?}");
}

fn unwinding_child() {
    std::panic::set_hook(Box::new(|_| {}));
    let rt = runtime(1);
    rt.block_on(|| {
        for by_panic in [true, false] {
            let how = if by_panic { "panic" } else { "cancel" };
            let gate = Arc::new(Mutex::new(0));
            let healthy = Arc::new(Mutex::new(0));
            let guard = gate.lock().unwrap();
            let (g, (tx, rx)) = (gate.clone(), channel::<u32>());
            let got = Arc::new(AtomicU32::new(0));
            let got2 = got.clone();
            let t = coro::spawn_named(format!("locks by {how}"), move || {
                let _d = OnDrop(|| {
                    *g.lock().unwrap() += 1;
                    got2.store(rx.recv().unwrap(), Ordering::SeqCst);
                    // Sleeps and I/O: bounded, and no abort.
                    let begun = Instant::now();
                    coro::sleep(Duration::from_secs(30));
                    let (mut a, _b) = coro::net::unix::UnixStream::pair().unwrap();
                    assert!(a.read(&mut [0; 1]).is_err());
                    coro::yield_slice();
                    let _ = coro::timeout(Duration::from_millis(1), || coro::sleep(Duration::from_secs(30)));
                    assert!(begun.elapsed() < Duration::from_secs(10));
                });
                if by_panic {
                    panic!("unwinds");
                }
                coro::sleep(LONG);
            });
            if !by_panic {
                until_parked(t.task(), "sleep");
                t.cancel();
            }
            until_parked(t.task(), "lock");
            // Now that task is parked in the middle of its unwinding. The others on this worker live as always.
            let h = healthy.clone();
            let others = coro::spawn_named("healthy", move || {
                for _ in 0..5 {
                    let mut g = h.lock().unwrap();
                    *g += 1;
                    coro::yield_slice();
                    let begun = Instant::now();
                    coro::sleep(Duration::from_millis(150));
                    assert!(begun.elapsed() >= Duration::from_millis(150), "a healthy sleep was cut short");
                    drop(g);
                }
                let (mut a, mut b) = coro::net::unix::UnixStream::pair().unwrap();
                let writer = coro::spawn_named("healthy writer", move || {
                    coro::sleep(Duration::from_millis(150));
                    b.write_all(b"!").unwrap();
                });
                a.read_exact(&mut [0; 1]).expect("healthy I/O waits as long as it takes");
                writer.join().unwrap();
                // A panic of its own is caught as always.
                assert!(catch_unwind(|| panic!("own")).is_err());
            });
            // A healthy task is cancelled meanwhile: it may be later, it must not be lost.
            let victim = coro::spawn_named("healthy victim", || coro::sleep(LONG));
            until_parked(victim.task(), "sleep");
            victim.cancel();
            others.join().unwrap();
            assert!(!healthy.is_poisoned(), "a healthy task's lock was poisoned");
            drop(guard);
            tx.send(9).unwrap();
            assert!(t.join().is_err());
            assert_eq!(got.load(Ordering::SeqCst), 9);
            assert_eq!(*gate.lock().expect("locked and released while unwinding: no poison"), 1);
            cancelled(victim.join());
        }
        // Real poison is not lost either: the panicking task holds a guard while it waits in a destructor.
        let m = Arc::new(Mutex::new(()));
        let (m2, (tx, rx)) = (m.clone(), channel::<u32>());
        let t = coro::spawn(move || {
            let _g = m2.lock().unwrap();
            let _d = OnDrop(|| drop(rx.recv()));
            panic!("poisons");
        });
        until_parked(t.task(), "recv");
        tx.send(1).unwrap();
        t.join().unwrap_err();
        assert!(m.is_poisoned());
        // Many writes in a destructor must not give way to others (whose `panicking()` would then be true).
        let (mut a, mut b) = coro::net::unix::UnixStream::pair().unwrap();
        let t = coro::spawn(move || {
            let _d = OnDrop(|| (0..200).for_each(|_| a.write_all(b"x").unwrap()));
            panic!("writes");
        });
        let seen = coro::spawn(|| (0..50).any(|_| (coro::yield_slice(), std::thread::panicking()).1));
        t.join().unwrap_err();
        assert!(!seen.join().unwrap(), "another task ran while this one unwound without waiting");
        b.read_exact(&mut [0; 200]).unwrap();
    });
}

#[test]
fn a_limit_inside_a_drop() {
    let rt = runtime(1);
    let calls = Arc::new(AtomicU32::new(0));
    let c = calls.clone();
    let t = rt.spawn(move || {
        let _d = OnDrop(|| {
            // In a normal end and while unwinding: no abort, no expiry that escapes.
            let r = coro::timeout(Duration::from_millis(1), || coro::sleep(Duration::from_millis(10)));
            c.fetch_add(1, Ordering::SeqCst);
            drop(r);
        });
        drop(OnDrop(|| assert!(coro::timeout(Duration::from_millis(1), || coro::sleep(LONG)).is_err())));
        coro::sleep(LONG);
    });
    until_parked(t.task(), "sleep");
    std::thread::sleep(Duration::from_millis(5));
    t.cancel();
    cancelled(t.join());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // While an outer limit unwinds.
    rt.block_on(|| {
        let r = coro::timeout(Duration::from_millis(2), || {
            let _d = OnDrop(|| drop(coro::timeout(Duration::from_millis(1), || coro::sleep(Duration::from_millis(3)))));
            coro::sleep(LONG);
        });
        assert!(r.unwrap_err().into_value().is_none());
        coro::sleep(Duration::from_millis(1));
    });
}

#[test]
fn scopes_wait_whatever_happens() {
    let rt = runtime(2);
    rt.block_on(|| {
        // Cancelled and timed out parents: forwarded to the children, which are waited for.
        for limit in [false, true] {
            let ended = Arc::new(AtomicU32::new(0));
            let e = ended.clone();
            let t = coro::spawn(move || {
                let mut data = vec![0u64; 64];
                let mut body = || {
                    coro::scope(|s| {
                        for (i, d) in data.iter_mut().enumerate() {
                            let e = &e;
                            let h = s.spawn(move || {
                                let _d = OnDrop(|| {
                                    e.fetch_add(1, Ordering::SeqCst);
                                });
                                // Writes through the borrow before, and on the way out.
                                let _w = OnDrop(|| *d += 1);
                                coro::scope(|inner| {
                                    inner.spawn(|| coro::sleep(LONG));
                                    coro::sleep(LONG);
                                });
                            });
                            if i % 3 == 0 {
                                std::mem::forget(h);
                            }
                        }
                        coro::sleep(LONG);
                    });
                };
                if limit {
                    assert!(coro::timeout(Duration::from_millis(30), body).is_err());
                    assert!(data.iter().all(|d| *d <= 1));
                    return;
                }
                body();
            });
            if !limit {
                task_until("some children run", || {
                    coro::where_all()
                        .iter()
                        .filter(|w| w.parent == t.id() && w.state == coro::TaskState::Parked)
                        .count()
                        > 20
                });
                t.cancel();
                cancelled(t.join());
            } else {
                t.join().unwrap();
            }
            // Children that never started are cancelled too, without running.
            assert!(ended.load(Ordering::SeqCst) <= 64);
        }
        // Without any interruption, with leaked handles.
        let mut data = [0u32; 100];
        coro::scope(|s| {
            for d in &mut data {
                std::mem::forget(s.spawn(|| {
                    coro::sleep(Duration::from_millis(2));
                    *d += 1;
                }));
            }
        });
        assert_eq!(data, [1; 100]);
        // A child's panic: told by its join, or by the scope.
        let ok = coro::scope(|s| s.spawn(|| std::panic::resume_unwind(Box::new(1u8))).join().is_err());
        assert!(ok);
        let p = catch_unwind(|| coro::scope(|s| drop(s.spawn(|| std::panic::resume_unwind(Box::new(1u8))))));
        assert_eq!(p.err().map(|p| text(&*p)).as_deref(), Some("a scoped thread panicked"));
        // The body's own panic waits for the children first.
        let flag = AtomicBool::new(false);
        let p = catch_unwind(AssertUnwindSafe(|| {
            coro::scope(|s| {
                s.spawn(|| {
                    coro::sleep(Duration::from_millis(5));
                    flag.store(true, Ordering::SeqCst);
                });
                std::panic::resume_unwind(Box::new("body"));
            })
        }));
        assert!(p.is_err() && flag.load(Ordering::SeqCst));
        // Children that ignore it for a while: stragglers are waited for.
        let done = AtomicU32::new(0);
        let r = coro::timeout(Duration::from_millis(2), || {
            coro::scope(|s| {
                for _ in 0..4 {
                    s.spawn(|| {
                        coro::shield(|| coro::sleep(Duration::from_millis(20)));
                        done.fetch_add(1, Ordering::SeqCst);
                    });
                }
                coro::sleep(LONG);
            })
        });
        assert!(r.is_err());
        let started = done.load(Ordering::SeqCst);
        coro::sleep(Duration::from_millis(30));
        assert_eq!(done.load(Ordering::SeqCst), started, "a child outlived its scope");
    });
    // On a plain thread too.
    let mut n = 0;
    coro::scope(|s| drop(s.spawn(|| n += 1)));
    assert_eq!(n, 1);
}

#[test]
fn in_parallel_tells_every_failure_by_index() {
    let rt = runtime(2);
    rt.block_on(|| {
        let e = coro::in_parallel((0..10).map(|i| {
            move || {
                coro::yield_slice();
                if i % 4 == 1 {
                    std::panic::resume_unwind(Box::new(i));
                }
                if i == 2 {
                    coro::current().unwrap().cancel();
                    coro::yield_slice();
                }
                i * 10
            }
        }))
        .unwrap_err();
        assert_eq!(e.failed().collect::<Vec<_>>(), [1, 2, 5, 9]);
        assert!(e.to_string().contains("4 of 10"), "{e}");
        for (i, r) in e.into_results().into_iter().enumerate() {
            match r {
                Ok(v) => assert_eq!(v, i * 10),
                Err(p) if i == 2 => assert!(coro::is_cancel(&*p)),
                Err(p) => assert_eq!(p.downcast_ref::<usize>(), Some(&i)),
            }
        }
        assert!(coro::in_parallel(Vec::<fn() -> u8>::new()).unwrap().is_empty());
        // Cancelled from outside: all of it ends.
        let t = coro::spawn(|| drop(coro::in_parallel((0..20).map(|_| || coro::sleep(LONG)))));
        task_until("they sleep", || {
            coro::where_all().iter().filter(|w| w.parent == t.id() && w.wait.starts_with("sleep")).count() == 20
        });
        t.cancel();
        cancelled(t.join());
    });
}

#[test]
fn two_receivers_of_one_worker_both_see_the_end() {
    let rt = runtime(1);
    rt.block_on(|| {
        let (tx, rx) = channel::<u32>();
        let rx = Rc::new(rx);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let rx = rx.clone();
                coro::spawn_local(move || rx.recv())
            })
            .collect();
        waiting.iter().for_each(|t| until_parked(t.task(), "recv"));
        drop(tx);
        for t in waiting {
            let r = coro::timeout(PATIENCE, || t.join().unwrap()).expect("the receiver is never woken");
            assert_eq!(r, Err(RecvError));
        }
    });
}

/// Cancels tasks at random moments while they hand things to each other.
fn storm(workers: usize, capacity: Option<usize>) {
    let seed = seed();
    eprintln!("seed {seed}, {workers} workers, capacity {capacity:?}");
    let rt = runtime(workers);
    let (sent, failed, received) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (sent, failed, received) = (&sent, &failed, &received);
    enum Tx {
        Open(coro::sync::mpsc::Sender<u64>),
        Bounded(coro::sync::mpsc::SyncSender<u64>),
    }
    impl Clone for Tx {
        fn clone(&self) -> Tx {
            match self {
                Tx::Open(t) => Tx::Open(t.clone()),
                Tx::Bounded(t) => Tx::Bounded(t.clone()),
            }
        }
    }
    impl Tx {
        fn send(&self, v: u64) -> Result<(), SendError<u64>> {
            match self {
                Tx::Open(t) => t.send(v),
                Tx::Bounded(t) => t.send(v),
            }
        }
    }
    rt.block_on(|| {
        let mut rng = Rng(seed);
        let end = Instant::now() + Duration::from_millis(1000);
        let mut rounds = 0u32;
        while Instant::now() < end || rounds == 0 {
            rounds += 1;
            let (tx, rx) = match capacity {
                None => {
                    let (tx, rx) = channel();
                    (Tx::Open(tx), rx)
                }
                Some(n) => {
                    let (tx, rx) = sync_channel(n);
                    (Tx::Bounded(tx), rx)
                }
            };
            let senders = 2 + rng.below(4);
            let stubborn = rng.below(2) == 0;
            coro::scope(|s| {
                let tasks: Vec<_> = (0..senders)
                    .map(|_| {
                        let (tx, mut rng) = (tx.clone(), Rng(rng.next()));
                        s.spawn(move || {
                            for i in 0..40u64 {
                                // Counted as soon as it is sent; one that unwinds out of `send` was not sent.
                                if tx.send(i).is_ok() {
                                    sent.fetch_add(1, Ordering::SeqCst);
                                } else {
                                    failed.fetch_add(1, Ordering::SeqCst);
                                }
                                if rng.below(5) == 0 {
                                    coro::yield_slice();
                                }
                            }
                        })
                    })
                    .collect();
                drop(tx);
                // The receiver is cancelled as well, but takes its channel out alive and drains it.
                let started = Arc::new(AtomicBool::new(false));
                let begun = started.clone();
                let receiver = s.spawn(move || {
                    begun.store(true, Ordering::SeqCst);
                    let rx = AssertUnwindSafe(rx);
                    let take = || {
                        while rx.recv().is_ok() {
                            received.fetch_add(1, Ordering::SeqCst);
                        }
                    };
                    let _ = catch_unwind(take);
                    coro::shield(|| rx.iter().for_each(|_| drop(received.fetch_add(1, Ordering::SeqCst))));
                });
                // A receiver that is cancelled before it starts drops the channel: not what this is about.
                while !started.load(Ordering::SeqCst) {
                    coro::yield_slice();
                }
                for _ in 0..rng.below(30) {
                    coro::yield_slice();
                }
                let mut left: Vec<_> = tasks.iter().map(coro::ScopedJoinHandle::task).collect();
                while !left.is_empty() {
                    let t = left.swap_remove(rng.below(left.len() as u64) as usize);
                    if !stubborn || rng.below(2) == 0 {
                        t.cancel();
                    }
                    if rng.below(3) == 0 {
                        receiver.task().cancel();
                    }
                    for _ in 0..rng.below(6) {
                        coro::yield_slice();
                    }
                }
                for t in tasks {
                    if let Err(p) = coro::timeout(PATIENCE, || t.join()).expect("a sender hangs") {
                        assert!(coro::is_cancel(&*p));
                    }
                }
                let r = coro::timeout(PATIENCE, || receiver.join()).expect("the receiver hangs: a wake was lost");
                assert!(r.is_ok(), "seed {seed}");
            });
            let (s, r) = (sent.load(Ordering::SeqCst), received.load(Ordering::SeqCst));
            assert_eq!(s, r, "sent and received differ (seed {seed}, round {rounds}, {workers} workers, {capacity:?})");
        }
        assert!(received.load(Ordering::SeqCst) > 0);
        assert_eq!(failed.load(Ordering::SeqCst), 0, "the receiver never goes away before the senders");
    });
}

#[test]
fn cancel_storm_over_an_unbounded_channel() {
    storm(3, None);
}

#[test]
fn cancel_storm_over_a_bounded_channel() {
    storm(1, Some(2));
    storm(3, Some(2));
}

#[test]
fn cancel_storm_over_a_rendezvous() {
    storm(1, Some(0));
    storm(3, Some(0));
}

#[test]
fn cancel_storm_over_a_mutex() {
    let seed = seed();
    eprintln!("seed {seed}");
    for workers in [1, 3] {
        let rt = runtime(workers);
        let m = Arc::new(Mutex::new(0u64));
        let inside = Arc::new(AtomicUsize::new(0));
        rt.block_on(|| {
            let mut rng = Rng(seed);
            let end = Instant::now() + Duration::from_millis(1000);
            let mut done = 0;
            while Instant::now() < end {
                let tasks: Vec<_> = (0..12)
                    .map(|_| {
                        let (m, inside, mut rng) = (m.clone(), inside.clone(), Rng(rng.next()));
                        coro::spawn(move || {
                            for _ in 0..30 {
                                let mut g = m.lock().unwrap();
                                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two in one lock");
                                *g += 1;
                                if rng.below(3) == 0 {
                                    coro::shield(coro::yield_slice);
                                }
                                inside.fetch_sub(1, Ordering::SeqCst);
                                drop(g);
                                if rng.below(3) == 0 {
                                    coro::yield_slice();
                                }
                            }
                        })
                    })
                    .collect();
                for t in &tasks {
                    if rng.below(3) != 0 {
                        for _ in 0..rng.below(8) {
                            coro::yield_slice();
                        }
                        t.cancel();
                    }
                }
                for t in tasks {
                    let r = coro::timeout(PATIENCE, || t.join());
                    let r = r.unwrap_or_else(|_| panic!("a waiter hangs: a lock or wake was lost (seed {seed})"));
                    assert!(r.is_ok() || coro::is_cancel(&*r.unwrap_err()), "seed {seed}");
                    done += 1;
                }
                let free = m.try_lock();
                assert!(free.is_ok(), "all are gone and the lock is still held (seed {seed}): {free:?}");
            }
            assert!(done > 100);
        });
        assert!(!m.is_poisoned());
    }
}

#[test]
fn unpark_join_and_cancel_race() {
    // The join handle's waiter is cancelled while its task ends: neither is lost, nothing hangs.
    let seed = seed();
    eprintln!("seed {seed}");
    let rt = runtime(3);
    rt.block_on(|| {
        let mut rng = Rng(seed);
        let log = Arc::new(StdMutex::new(0u64));
        for _ in 0..3000 {
            let (n, m) = (rng.below(4), rng.below(4));
            let child = coro::spawn(move || (0..n).for_each(|_| coro::yield_slice()));
            let task = child.task();
            let l = log.clone();
            let joiner = coro::spawn(move || {
                let r = child.join();
                *l.lock().unwrap() += 1;
                assert!(r.is_ok() || coro::is_cancel(&*r.unwrap_err()));
            });
            (0..m).for_each(|_| coro::yield_slice());
            match rng.below(3) {
                0 => _ = joiner.cancel(),
                1 => _ = task.cancel(),
                _ => {
                    joiner.cancel();
                    task.cancel();
                }
            }
            let r = coro::timeout(PATIENCE, || joiner.join()).unwrap_or_else(|_| panic!("a join hangs (seed {seed})"));
            assert!(r.is_ok() || coro::is_cancel(&*r.unwrap_err()));
            task_until("the child ended", || task.is_finished());
        }
    });
}

#[test]
fn a_child_spawned_after_its_scope_was_cancelled_is_cancelled_too() {
    let rt = runtime(1);
    let (begun, begins) = std::sync::mpsc::channel();
    let task = rt.spawn(move || {
        coro::scope(|s| {
            s.spawn(move || {
                begun.send(()).unwrap();
                let swallowed = catch_unwind(|| coro::sleep(LONG));
                assert!(coro::is_cancel(&*swallowed.unwrap_err()));
                s.spawn(|| coro::sleep(LONG));
            });
        });
    });
    begins.recv().unwrap();
    task.cancel();
    let end = Instant::now() + PATIENCE;
    while !task.is_finished() {
        assert!(Instant::now() < end, "the scope waits for a child that nobody cancelled");
        std::thread::sleep(Duration::from_millis(1));
    }
    cancelled(task.join());
}

/// Waits for a message in its destructor.
struct WaitsInDrop(coro::sync::mpsc::Receiver<()>);

impl Drop for WaitsInDrop {
    fn drop(&mut self) {
        self.0.recv().unwrap();
    }
}

#[test]
fn a_task_that_once_waited_while_it_unwound_is_sound_again_after_the_catch() {
    let rt = runtime(1);
    rt.block_on(|| {
        let ((end_a, ends_a), (end_b, ends_b), (go, goes)) = (channel(), channel(), channel());
        let past = Arc::new(AtomicBool::new(false));
        let caught = past.clone();
        let a = coro::spawn(move || {
            let panics = || {
                let _w = WaitsInDrop(ends_a);
                panic!("caught");
            };
            catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
            caught.store(true, Ordering::SeqCst);
            goes.recv().unwrap();
            // Another task of this worker waits while it unwinds; this one does not unwind and may wait for long.
            let (mut x, mut y) = coro::net::unix::UnixStream::pair().unwrap();
            let writes = coro::spawn(move || {
                coro::sleep(Duration::from_millis(300));
                y.write_all(b"x").unwrap();
            });
            let read = x.read(&mut [0]);
            writes.join().unwrap();
            read
        });
        until_parked(a.task(), "recv");
        end_a.send(()).unwrap();
        while !past.load(Ordering::SeqCst) {
            coro::yield_slice();
        }
        until_parked(a.task(), "recv");
        let b = coro::spawn(move || {
            let _w = WaitsInDrop(ends_b);
            panic!("B");
        });
        until_parked(b.task(), "recv");
        go.send(()).unwrap();
        assert_eq!(a.join().unwrap().unwrap(), 1);
        end_b.send(()).unwrap();
        b.join().unwrap_err();
    });
}

#[test]
fn two_tasks_that_wait_while_they_unwind_leave_the_others_alone() {
    let rt = runtime(1);
    rt.block_on(|| {
        let ((end_a, ends_a), (end_b, ends_b), (_never, nothing)) = (channel(), channel(), channel::<()>());
        let unwinds = |ends| {
            move || {
                let _w = WaitsInDrop(ends);
                panic!("unwinds");
            }
        };
        let a: coro::JoinHandle<()> = coro::spawn(unwinds(ends_a));
        until_parked(a.task(), "recv");
        let b: coro::JoinHandle<()> = coro::spawn(unwinds(ends_b));
        until_parked(b.task(), "recv");
        end_a.send(()).unwrap();
        a.join().unwrap_err();
        // Only the one is left that nobody could tell from a healthy task when it began to wait.
        assert!(!coro::thread::panicking());
        let begun = Instant::now();
        coro::sleep(Duration::from_millis(150));
        assert!(begun.elapsed() >= Duration::from_millis(150), "a healthy sleep was cut short");
        let healthy = Mutex::new(());
        drop(healthy.lock());
        assert!(!healthy.is_poisoned());
        // What is due meanwhile comes when it has ended.
        let limited = coro::spawn(move || coro::timeout(Duration::from_millis(1), || drop(nothing.recv())));
        coro::sleep(Duration::from_millis(20));
        assert!(!limited.is_finished());
        end_b.send(()).unwrap();
        b.join().unwrap_err();
        task_until("the limit is delivered", || limited.is_finished());
        limited.join().unwrap().unwrap_err();
    });
}

#[test]
#[ignore = "runs only as a child of the other tests"]
fn child_process() {
    match harness::case().as_deref() {
        Some("swallow") => swallow_child(),
        Some("unwinding") => unwinding_child(),
        other => panic!("no such case: {other:?}"),
    }
}
