//! Who gets SIGINT and SIGTERM: the stop of `run` with its time of grace, `ctrl_c`, or nobody. All in child processes,
//! which signal themselves.

mod harness;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use harness::{Ended, child, command, task_until, until, until_parked};

const LONG: Duration = Duration::from_secs(1000);
/// Less than any wait that a test would have to sit out if the thing that it tests did not work.
const SOON: Duration = Duration::from_secs(8);

/// To this very thread, so that the handler has run when this returns.
fn signal_self(signal: libc::c_int) {
    // SAFETY: the handlers are those that the tests are about.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

fn disposition(signal: libc::c_int) -> usize {
    // SAFETY: only reads the disposition into plain data.
    unsafe {
        let mut a: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal, std::ptr::null(), &mut a), 0);
        a.sa_sigaction
    }
}

struct Says(&'static str);

impl Drop for Says {
    fn drop(&mut self) {
        println!("{}", self.0);
    }
}

/// The child exits with `code` and says all of `says`, and nothing of what must not be reached.
#[track_caller]
fn ends(case: &str, code: i32, says: &[&str]) -> Ended {
    let e = child(case);
    assert_eq!(e.code, Some(code), "{case}: {e:#?}");
    says.iter().for_each(|text| assert!(e.out.contains(text), "{case} does not say {text:?}: {e:#?}"));
    assert!(!e.out.contains("not reached"), "{case}: {e:#?}");
    e
}

#[test]
fn a_task_finishes_its_work_within_the_grace() {
    for (case, code) in [("grace-int", 130), ("grace-term", 143), ("grace-exit", 4)] {
        let e = ends(case, code, &["work done", "idle task unwound"]);
        assert!(e.took < SOON, "the grace did not end when nothing was left to wait for: {:?}", e.took);
    }
}

fn finishes_within_grace(stop: fn()) {
    coro::runner().grace(Duration::from_secs(15)).run(|| {
        drop(coro::spawn(move || {
            let _s = Says("idle task unwound");
            coro::sleep(Duration::from_millis(300));
        }));
        drop(coro::spawn(|| {
            task_until("the stop is seen", coro::stopping);
            assert!(!coro::is_cancelled());
            // Waits are not interrupted yet.
            (0..5).for_each(|_| coro::sleep(Duration::from_millis(10)));
            println!("work done");
        }));
        stop();
        coro::event_loop();
        println!("not reached");
    });
}

#[test]
fn the_grace_ends_with_the_cancellation() {
    let e = ends("grace-over", 130, &["stubborn work unwound"]);
    assert!(e.took > Duration::from_millis(200), "{:?}", e.took);
}

fn grace_over_child() {
    coro::runner().grace(Duration::from_millis(200)).run(|| {
        let begun = Instant::now();
        let t = coro::spawn(|| {
            let _s = Says("stubborn work unwound");
            coro::sleep(LONG);
        });
        until_parked(t.task(), "sleep");
        signal_self(libc::SIGINT);
        assert!(coro::is_cancel(&*t.join().unwrap_err()) && begun.elapsed() >= Duration::from_millis(200));
        coro::sleep(LONG);
        println!("not reached");
    });
}

/// What the first task returns in its time of grace is what `run` returns.
#[test]
fn the_first_task_may_end_by_itself_in_the_grace() {
    ends("grace-value", 0, &["value 5"]);
}

#[test]
fn a_second_signal_ends_the_grace_at_once() {
    for case in ["grace-twice", "grace-twice-claimed"] {
        let e = ends(case, 143, &[]);
        assert!(e.err.contains("left a task behind") && e.err.contains("\"stubborn\""), "{case}: {e:#?}");
        assert!(e.took < SOON, "{case}: {:?}", e.took);
    }
}

fn grace_twice_child(claimed: bool) {
    coro::runner().grace(LONG).run(|| {
        let stubborn = coro::spawn_named("stubborn", || coro::shield(|| coro::sleep(LONG)));
        until_parked(stubborn.task(), "sleep");
        if claimed {
            let waiter = coro::spawn(coro::ctrl_c);
            until_parked(waiter.task(), "signal 2");
            waiter.cancel();
            assert!(waiter.join().is_err());
        }
        signal_self(libc::SIGTERM);
        task_until("it stops", coro::stopping);
        signal_self(if claimed { libc::SIGINT } else { libc::SIGTERM });
        coro::sleep(LONG);
        println!("not reached");
    });
}

#[test]
fn the_patience_is_settable() {
    let e = ends("patience", 130, &[]);
    assert!(e.err.contains("\"stubborn\"") && e.took < Duration::from_secs(4), "{e:#?}");
}

#[test]
fn ctrl_c_wakes_everybody_and_the_program_ends_as_it_likes() {
    ends("ctrl-c", 0, &["all woken", "a value of its own"]);
}

fn ctrl_c_child() {
    let value = coro::run(|| {
        let tasks: Vec<_> = (0..5).map(|_| coro::spawn(coro::ctrl_c)).collect();
        tasks.iter().for_each(|t| until_parked(t.task(), "signal 2"));
        let waits = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let waits = waits.clone();
            move || {
                waits.store(true, Ordering::SeqCst);
                coro::ctrl_c()
            }
        });
        task_until("the thread is about to wait", || waits.load(Ordering::SeqCst));
        signal_self(libc::SIGINT);
        tasks.into_iter().for_each(|t| t.join().unwrap().unwrap());
        // The thread may have begun to wait a moment after that signal: then it gets another one.
        task_until("the thread is woken", || {
            signal_self(libc::SIGINT);
            thread.is_finished()
        });
        thread.join().unwrap().unwrap();
        println!("all woken");
        assert!(!coro::stopping());
        "a value of its own"
    });
    println!("{value}");
}

/// Once somebody asked, a SIGINT that nobody waits for does nothing, and each wait is for the next one.
#[test]
fn a_signal_that_nobody_waits_for_is_dropped() {
    ends("ctrl-c-nobody", 0, &["still here"]);
}

fn ctrl_c_nobody_child() {
    coro::run(|| {
        let once = coro::spawn(coro::ctrl_c);
        until_parked(once.task(), "signal 2");
        signal_self(libc::SIGINT);
        once.join().unwrap().unwrap();
        // A time limit and a cancellation end the wait; the signal then finds nobody.
        assert!(coro::timeout(Duration::from_millis(10), coro::ctrl_c).is_err());
        for _ in 0..10 {
            signal_self(libc::SIGINT);
        }
        let next = coro::spawn(coro::ctrl_c);
        until_parked(next.task(), "signal 2");
        signal_self(libc::SIGINT);
        next.join().unwrap().unwrap();
        let refused = std::panic::catch_unwind(|| coro::no_switch(coro::ctrl_c));
        assert!(refused.is_err() && !coro::stopping());
        println!("still here");
    });
}

#[test]
fn sigterm_stops_a_program_that_waits_for_ctrl_c() {
    ends("ctrl-c-term", 143, &[]);
}

#[test]
fn without_handlers_the_default_holds() {
    use libc::{SIGINT, SIGTERM};
    for (case, signal) in [("unhandled-int", SIGINT), ("unhandled-term", SIGTERM)] {
        let e = child(case);
        assert_eq!((e.code, e.signal), (None, Some(signal)), "{case}: {e:#?}");
    }
    ends("unhandled-ctrl-c", 0, &["woken"]);
}

fn unhandled(signal: libc::c_int) {
    coro::runner().handle_signals(false).run(|| {
        assert_eq!((disposition(libc::SIGINT), disposition(libc::SIGTERM)), (libc::SIG_DFL, libc::SIG_DFL));
        signal_self(signal);
        coro::sleep(LONG);
    });
}

#[test]
fn ctrl_c_outside_of_run() {
    ends("ctrl-c-outside", 0, &["task woken", "thread woken"]);
}

fn ctrl_c_outside_child() {
    let t = coro::spawn(coro::ctrl_c);
    until_parked(t.task(), "signal 2");
    signal_self(libc::SIGINT);
    t.join().unwrap().unwrap();
    println!("task woken");
    let (done, woken) = mpsc::channel();
    std::thread::spawn(move || done.send(coro::ctrl_c()));
    until("the thread is woken", || {
        signal_self(libc::SIGINT);
        woken.try_recv().is_ok_and(|r| r.is_ok())
    });
    println!("thread woken");
    assert_ne!(disposition(libc::SIGINT), libc::SIG_DFL, "it stays");
    assert_eq!(disposition(libc::SIGTERM), libc::SIG_DFL);
    // A run in between has its handlers and gives back what it found.
    coro::run(|| assert_ne!(disposition(libc::SIGTERM), libc::SIG_DFL));
    assert_ne!(disposition(libc::SIGINT), libc::SIG_DFL);
    assert_eq!(disposition(libc::SIGTERM), libc::SIG_DFL);
}

#[test]
fn the_end_of_run_gives_sigint_back_unless_somebody_waits_who_stays() {
    child("give-back").passed();
}

fn give_back_child() {
    // A task that ends with the run does not count.
    coro::run(|| until_parked(coro::spawn(coro::ctrl_c).task(), "signal 2"));
    assert_eq!(disposition(libc::SIGINT), libc::SIG_DFL);
    let other = harness::runtime(1);
    let waiting = coro::run(|| {
        let t = other.spawn(coro::ctrl_c);
        until_parked(t.task(), "signal 2");
        t
    });
    assert_ne!(disposition(libc::SIGINT), libc::SIG_DFL);
    assert_eq!(disposition(libc::SIGTERM), libc::SIG_DFL);
    signal_self(libc::SIGINT);
    waiting.join().unwrap().unwrap();
}

#[test]
fn what_a_parent_had_ignored_stays_ignored_until_somebody_asks() {
    child("ignored").passed();
}

fn ignored_child() {
    // SAFETY: ignoring a signal runs no code.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    coro::run(|| {
        signal_self(libc::SIGINT);
        assert_eq!(disposition(libc::SIGINT), libc::SIG_IGN);
        let t = coro::spawn(coro::ctrl_c);
        until_parked(t.task(), "signal 2");
        signal_self(libc::SIGINT);
        t.join().unwrap().unwrap();
        assert!(!coro::stopping());
    });
}

/// Ctrl-C at a terminal reaches every process of its group. One that was forked off shares the pipe of its parent, which
/// must not see the signal twice.
#[test]
fn a_forked_child_does_not_tell_its_parent() {
    child("forked").passed();
}

fn forked_child() {
    coro::run(|| {
        // SAFETY: the child only waits for its signal.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            signal_self(libc::SIGTERM);
            // SAFETY: ends the child without running anything of its parent's.
            unsafe { libc::_exit(99) };
        }
        let mut status = 0;
        // SAFETY: our own child.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGTERM, "{status:#x}");
        coro::sleep(Duration::from_millis(20));
        assert!(!coro::stopping() && !coro::is_cancelled());
    });
}

#[test]
fn a_malformed_number_of_workers_is_a_panic_that_says_what_to_set() {
    for value in ["many", "0", "-3", "100000", ""] {
        let mut c = command("workers");
        c.env("CORO_WORKERS", value);
        let e = harness::wait("workers", c.spawn().unwrap()).passed();
        let said =
            format!("coro::run cannot start: CORO_WORKERS is {value:?}; set it to a number from 1 to 512, or unset it");
        assert!(e.out.contains(&said), "{e:#?}");
    }
}

fn workers_child() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    let payload = std::panic::catch_unwind(|| coro::run(|| RAN.fetch_add(1, Ordering::SeqCst))).unwrap_err();
    println!("{}", payload.downcast_ref::<String>().unwrap());
    assert_eq!(RAN.load(Ordering::SeqCst), 0);
    // A number of the program's own needs no variable, and a run that could not start leaves the way free.
    assert_eq!(coro::runner().workers(3).run(|| coro::worker_stats().len()), 3);
}

#[test]
#[ignore = "runs only as a child of the other tests"]
fn child_process() {
    match harness::case().as_deref() {
        Some("grace-int") => finishes_within_grace(|| signal_self(libc::SIGINT)),
        Some("grace-term") => finishes_within_grace(|| signal_self(libc::SIGTERM)),
        Some("grace-exit") => finishes_within_grace(|| coro::set_exit(4)),
        Some("grace-over") => grace_over_child(),
        Some("grace-value") => {
            let value = coro::runner().grace(LONG).run(|| {
                signal_self(libc::SIGTERM);
                task_until("it stops", coro::stopping);
                5
            });
            println!("value {value}");
        }
        Some("grace-twice") => grace_twice_child(false),
        Some("grace-twice-claimed") => grace_twice_child(true),
        Some("patience") => coro::runner().patience(Duration::from_millis(100)).run(|| {
            let stubborn = coro::spawn_named("stubborn", || coro::shield(|| coro::sleep(LONG)));
            until_parked(stubborn.task(), "sleep");
            signal_self(libc::SIGINT);
            coro::shield(|| coro::sleep(LONG));
        }),
        Some("ctrl-c") => ctrl_c_child(),
        Some("ctrl-c-nobody") => ctrl_c_nobody_child(),
        Some("ctrl-c-term") => coro::run(|| {
            let t = coro::spawn(coro::ctrl_c);
            until_parked(t.task(), "signal 2");
            signal_self(libc::SIGTERM);
            coro::sleep(LONG);
            println!("not reached");
        }),
        Some("unhandled-int") => unhandled(libc::SIGINT),
        Some("unhandled-term") => unhandled(libc::SIGTERM),
        Some("unhandled-ctrl-c") => coro::runner().handle_signals(false).run(|| {
            let t = coro::spawn(coro::ctrl_c);
            until_parked(t.task(), "signal 2");
            signal_self(libc::SIGINT);
            t.join().unwrap().unwrap();
            println!("woken");
        }),
        Some("ctrl-c-outside") => ctrl_c_outside_child(),
        Some("give-back") => give_back_child(),
        Some("ignored") => ignored_child(),
        Some("forked") => forked_child(),
        Some("workers") => workers_child(),
        other => panic!("no such case: {other:?}"),
    }
}
