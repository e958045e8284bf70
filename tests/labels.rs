//! Labels, classes and accounting of tasks: what they say, that they do not grow memory, and that they can be read while
//! they change.

mod util;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coro::inspect::{Options, Snapshot};
use util::{runtime, until, within};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn labels_are_shown_inherited_on_request_and_taken_away() {
    within(LIMIT, || {
        let rt = runtime(1);
        rt.block_on(|| {
            coro::set_label("req", 7);
            let deaf = coro::spawn(coro::labels);
            assert_eq!(deaf.join().unwrap(), []);
            assert!(!coro::inherit_labels(true));
            let grandchild = coro::spawn(|| coro::spawn(|| coro::label("req")).join().unwrap());
            assert_eq!(grandchild.join().unwrap().as_deref(), Some("7"));
            // A copy: what the parent changes later stays its own affair.
            let child = coro::spawn_named("child", || coro::sleep(Duration::from_secs(60)));
            coro::set_label("req", 8);
            coro::set_label("odd\nkey", "\x1b[2Jvalue");
            let of = |id| coro::where_is(id).unwrap();
            until(LIMIT, "the child's sleep", || !of(child.id()).wait.is_empty());
            assert_eq!(of(child.id()).labels, [("req".into(), "7".into())]);
            let own = of(coro::current().unwrap().id()).to_string();
            assert!(own.contains(" req=8 odd\\nkey=\\u{1b}[2Jvalue"), "{own}");
            assert_eq!(coro::remove_label("req").as_deref(), Some("8"));
            assert_eq!((coro::remove_label("req"), coro::label("req")), (None, None));
            child.cancel();
            let _ = child.join();
        });
    });
    assert_eq!((coro::set_label("plain", "thread"), coro::labels()), (None, vec![]));
}

#[test]
fn labels_can_be_read_while_they_change() {
    within(LIMIT, || {
        let rt = runtime(2);
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..4)
            .map(|i| {
                let stop = stop.clone();
                rt.spawn(move || {
                    let mut n = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        // Both say the same number of letters, or one was read half.
                        coro::set_label("a", "x".repeat(1 + n as usize % 7));
                        n += 1;
                        if (n + i).is_multiple_of(16) {
                            coro::yield_slice();
                        }
                        if n.is_multiple_of(64) {
                            coro::remove_label("a");
                        }
                    }
                })
            })
            .collect();
        let end = Instant::now() + Duration::from_millis(800);
        let (mut looks, mut seen) = (0, 0);
        while Instant::now() < end {
            for t in coro::where_all().iter().filter(|t| tasks.iter().any(|own| own.id() == t.id)) {
                for (key, value) in &t.labels {
                    assert!(key == "a" && (1..=7).contains(&value.len()) && value.bytes().all(|b| b == b'x'), "{t}");
                    seen += 1;
                }
            }
            looks += 1;
        }
        stop.store(true, Ordering::Relaxed);
        tasks.into_iter().for_each(|t| t.join().unwrap());
        assert!(seen > looks / 4, "{seen} labels in {looks} looks");
    });
}

#[test]
fn a_class_is_the_spawn_site_or_what_the_builder_says_and_counts_each_slice() {
    within(LIMIT, || {
        let rt = runtime(1);
        for i in 0..50 {
            let worker = coro::Builder::new().name(format!("echo 10.0.0.1:{i}")).class("test echo");
            rt.block_on(|| worker.spawn(|| (0..9).for_each(|_| coro::yield_slice())).unwrap().join().unwrap());
        }
        let all = coro::inspect::classes();
        let echo = all.iter().find(|c| &*c.class == "test echo").unwrap();
        assert_eq!((echo.live, echo.ended, echo.slices), (0, 50, 500));
        // One slice is one sample; a yield is no wake-up.
        assert_eq!((echo.slice_lengths.count(), echo.wake_delays.count()), (500, 50));
        assert!(all.iter().any(|c| c.class.contains("labels.rs:")), "{all:?}");
        assert!(all.len() <= 1000);
    });
}

#[test]
fn sleeping_adds_no_run_time_and_the_unfinished_slice_does() {
    within(LIMIT, || {
        let rt = runtime(2);
        let stop = Arc::new(AtomicBool::new(false));
        let (sleeper, spinner) = (
            rt.spawn(|| coro::sleep(Duration::from_secs(60))),
            rt.spawn({
                let stop = stop.clone();
                move || while !stop.load(Ordering::Relaxed) {}
            }),
        );
        let of = |id: u64| {
            let s = Snapshot::take(&Options::default());
            s.tasks.into_iter().find(|t| t.id == id)
        };
        until(LIMIT, "a slice of 150 ms", || {
            of(spinner.id()).is_some_and(|t| t.run_time >= Duration::from_millis(150) && t.longest_slice == t.run_time)
        });
        let sleeping = of(sleeper.id()).unwrap();
        assert!(sleeping.age >= Duration::from_millis(50), "{sleeping:?}");
        assert!(sleeping.run_time < Duration::from_millis(50), "{sleeping:?}");
        assert_eq!(sleeping.slices, 1);
        stop.store(true, Ordering::Relaxed);
        sleeper.cancel();
        spinner.join().unwrap();
        let _ = sleeper.join();
    });
}

#[test]
fn a_task_that_waits_for_its_worker_shows_the_delay() {
    within(LIMIT, || {
        let rt = runtime(1);
        rt.block_on(|| {
            let event = Arc::new(coro::sync::Event::new());
            let woken = coro::spawn({
                let event = event.clone();
                move || {
                    event.wait();
                    coro::sleep(Duration::from_secs(60));
                }
            });
            until(LIMIT, "the wait", || coro::where_is(woken.id()).unwrap().wait.contains("event"));
            event.set();
            // Nobody else runs on this worker meanwhile.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(60) {}
            until(LIMIT, "the sleep", || coro::where_is(woken.id()).unwrap().wait.contains("sleep"));
            let s = Snapshot::take(&Options::default());
            let t = s.tasks.iter().find(|t| t.id == woken.id()).unwrap();
            assert!(t.longest_delay >= Duration::from_millis(60), "{t:?}");
            woken.cancel();
            let _ = woken.join();
        });
    });
}
