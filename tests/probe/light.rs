//! Calls that are only counted and measured, which takes a shorter way: none is lost or told twice, whatever comes and goes meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::*;

mod counted {
    use super::resume_unwind;

    #[coro::probe]
    pub(super) fn works(n: u64) -> u64 {
        n.wrapping_mul(3)
    }

    #[coro::probe]
    pub(super) fn waits(n: u64) -> u64 {
        coro::yield_slice();
        n + 1
    }

    /// No panic hook runs, and nothing is printed.
    #[coro::probe]
    pub(super) fn fails(n: u64) -> u64 {
        if !n.is_multiple_of(2) {
            resume_unwind(Box::new(n));
        }
        n
    }

    #[coro::probe]
    pub(super) fn unseen(n: u64) -> impl Iterator<Item = u64> {
        if n == 0 {
            resume_unwind(Box::new(n));
        }
        n..n + 2
    }

    #[coro::probe]
    pub(super) fn deep(n: u64) -> u64 {
        if n == 0 { 0 } else { deep(n - 1) + 1 }
    }

    #[coro::probe]
    pub(super) fn sleeps(time: std::time::Duration) {
        coro::sleep(time);
    }
}

/// Calls, returns and panics as one probe has counted them, and how many it has measured.
fn counts(probe: &probe::Attached) -> [u64; 4] {
    let report = probe.report();
    [0, 1, 2, 3].map(|at| match report[at].get("count") {
        Some(&Value::Int(n)) => n as u64,
        other => panic!("{other:?}"),
    })
}

fn all_of(pattern: &str) -> probe::Attached {
    let attach = attach_to(pattern).count().count_of(Events::RETURN).count_of(Events::PANIC).histogram();
    attach.start().unwrap()
}

fn passes_all(n: u64) {
    assert_eq!(counted::works(n), n.wrapping_mul(3));
    assert_eq!(catch_unwind(|| counted::fails(n)).is_ok(), n.is_multiple_of(2));
    assert_eq!(counted::unseen(n).count(), 2);
}

#[test]
fn lists_turn_careful_and_back_and_no_call_is_lost_or_told_twice() {
    let _alone = alone();
    within(Duration::from_secs(60), || {
        let runtime = runtime(4);
        let stop = Arc::new(AtomicBool::new(false));
        let exact = ["works", "waits", "fails", "unseen"].map(|name| all_of(&format!("counted::{name}")));
        let (calls, times) = (attach_to("counted::works").count(), attach_to("counted::works").histogram());
        let (calls, times) = (calls.start().unwrap(), times.start().unwrap());
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let stop = stop.clone();
                runtime.spawn(move || {
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        passes_all(n);
                        assert_eq!(counted::waits(n), n + 1);
                    }
                    n
                })
            })
            .collect();
        let thread = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    n += 1;
                    passes_all(n);
                }
                n
            }
        });
        let mut rng = Rng::from_environment();
        let mut held: Vec<(probe::Attached, bool)> = Vec::new();
        for _ in 0..800 {
            match rng.below(10) {
                n @ 0..6 => {
                    let attach = attach_to(["counted::works", "counted::*", "counted::waits"][rng.below(3)]);
                    let attach = attach.keep_lines();
                    held.push(match n {
                        0 => (attach.histogram().start().unwrap(), false),
                        1 => (attach.count().when(|event| event.value("n").is_some()).start().unwrap(), false),
                        2 => (attach.log().start().unwrap(), false),
                        3 => (attach.histogram().lifespan(Duration::from_micros(300)).start().unwrap(), false),
                        4 => (attach.count().hits(rng.below(500) as u64).start().unwrap(), false),
                        // The end is read first.
                        _ => (attach.count_of(Events::END).count().start().unwrap(), true),
                    });
                }
                6 => {
                    // Nobody has to come by it.
                    let stops = attach_to("counted::works").keep_lines().instruments("break").start().unwrap();
                    std::thread::sleep(Duration::from_micros(rng.below(300) as u64));
                    drop(stops);
                }
                7..9 if !held.is_empty() => {
                    let (probe, whole) = held.swap_remove(rng.below(held.len()));
                    probe.stop();
                    if whole {
                        let report = probe.report();
                        let (Some(&Value::Int(ends)), Some(&Value::Int(calls))) =
                            (report[0].get("count"), report[1].get("count"))
                        else {
                            panic!("{report:?}")
                        };
                        assert!(ends <= calls, "told of {ends} ends of {calls} calls");
                    }
                }
                _ => std::thread::sleep(Duration::from_micros(rng.below(300) as u64)),
            }
            if held.len() > 8 {
                held.clear();
            }
        }
        drop(held);
        stop.store(true, Ordering::Relaxed);
        let by_tasks: Vec<u64> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
        let by_thread = thread.join().unwrap();
        let waited: u64 = by_tasks.iter().sum();
        let all = waited + by_thread;
        let odd: u64 = by_tasks.iter().chain([&by_thread]).map(|n| n.div_ceil(2)).sum();
        assert!(waited > 0 && by_thread > 0);
        let expected =
            [[all, all, 0, all], [waited, waited, 0, waited], [all, all - odd, odd, all], [all, all, 0, all]];
        assert_eq!(exact.each_ref().map(counts), expected);
        // Each call, and how it ended.
        let hits = [all * 2, waited * 2, all * 2, all * 2];
        assert_eq!(exact.each_ref().map(|probe| probe.hits().0), hits);
        assert_eq!((calls.hits(), times.hits()), ((all, 0), (all, 0)));
    });
}

#[test]
fn so_many_hits_are_counted_and_no_more_on_four_workers() {
    let _alone = alone();
    within(LIMIT, || {
        let runtime = runtime(4);
        let every = all_of("counted::works");
        let some = attach_to("counted::works").count().hits(1000).start().unwrap();
        let ends = attach_to("counted::works").histogram().hits(1500).start().unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                runtime.spawn(|| {
                    for n in 0..500 {
                        counted::works(n);
                        if n % 16 == 0 {
                            coro::yield_slice();
                        }
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
        let count = |probe: &probe::Attached| probe.report()[0].get("count").cloned();
        assert_eq!((some.hits(), count(&some)), ((1000, 0), Some(Value::of(1000))));
        assert_eq!((ends.hits(), count(&ends)), ((1500, 0), Some(Value::of(1500))));
        assert_eq!(some.ended(), Some("its 1000 hits are used up"));
        assert_eq!(counts(&every), [4000, 4000, 0, 4000]);
    });
}

#[test]
fn a_time_that_is_over_in_the_middle_of_a_call_is_over_at_its_end() {
    let _alone = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            let span = Duration::from_millis(20);
            // One that stays, so that the list does.
            let always = all_of("counted::sleeps");
            let timed = attach_to("counted::sleeps").count().histogram().lifespan(span).start().unwrap();
            counted::sleeps(span * 2);
            // Only if it was slow to begin, the call came too late as well.
            assert!(timed.hits().0 <= 1 && timed.report()[1].get("count") == Some(&Value::of(0)));
            assert_eq!(timed.ended(), Some("its 20.0 ms are over"));
            assert_eq!(counts(&always), [1, 1, 0, 1]);
        });
    });
}

#[test]
fn calls_within_calls_and_those_of_instruments_are_told_apart() {
    struct Passes;
    impl Instrument for Passes {
        fn observe(&self, _: &Event<'_>) {
            counted::deep(3);
        }
    }
    let _alone = alone();
    within(LIMIT, || {
        let (deep, times) = (all_of("counted::deep"), attach_to("counted::deep").histogram().start().unwrap());
        let check = || {
            let (before, times_before) = (counts(&deep), times.hits().0);
            assert_eq!(counted::deep(9), 9);
            let acts = attach_to("counted::works").instrument(Passes).start().unwrap();
            counted::works(1);
            assert_eq!(acts.hits(), (1, 0));
            drop(acts);
            let more: Vec<u64> = counts(&deep).iter().zip(before).map(|(after, before)| after - before).collect();
            assert_eq!(more, [10, 10, 0, 10]);
            assert_eq!(times.hits().0 - times_before, 10);
        };
        check();
        runtime(1).block_on(check);
    });
}

#[test]
fn a_result_that_cannot_be_seen_ends_a_call_as_it_does_while_something_unwinds() {
    struct Last;
    impl Drop for Last {
        fn drop(&mut self) {
            assert_eq!(counted::unseen(5).count(), 2);
        }
    }
    let _alone = alone();
    within(LIMIT, || {
        let probe = all_of("counted::unseen");
        runtime(1).block_on(|| {
            let unwound = catch_unwind(AssertUnwindSafe(|| {
                let _last = Last;
                counted::unseen(0).count()
            }));
            assert!(unwound.is_err());
        });
        assert_eq!(counts(&probe), [2, 1, 1, 2]);
    });
}

#[test]
fn one_that_was_overtaken_is_not_told_of_calls_that_began_before_it() {
    /// Is asked what it wants, which gives the probe its number, and takes its time.
    struct Slow {
        go_on: Mutex<std::sync::mpsc::Receiver<()>>,
        once: AtomicBool,
        ends: Arc<AtomicU64>,
    }
    impl Instrument for Slow {
        fn events(&self) -> Events {
            if !self.once.swap(true, Ordering::SeqCst) {
                self.go_on.lock().unwrap().recv().unwrap();
            }
            Events::END
        }

        fn observe(&self, _: &Event<'_>) {
            self.ends.fetch_add(1, Ordering::SeqCst);
        }
    }
    let _alone = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            let (go, go_on) = std::sync::mpsc::channel();
            let ends = Arc::new(AtomicU64::new(0));
            let slow = Slow { go_on: Mutex::new(go_on), once: AtomicBool::new(false), ends: ends.clone() };
            let mut last = attach_to("app::waits").histogram().start().unwrap().id();
            let first = std::thread::spawn(|| attach_to("app::waits").instrument(slow).start().unwrap());
            // It is the one that is missing among the others.
            until(LIMIT, "it has a number", || {
                let next = attach_to("app::waits").histogram().start().unwrap().id();
                std::mem::replace(&mut last, next) + 1 != next
            });
            let second = attach_to("app::waits").histogram().start().unwrap();
            let gate = Arc::new(coro::sync::Semaphore::new(0));
            let task = coro::spawn({
                let gate = gate.clone();
                move || app::waits(&gate)
            });
            coro::yield_slice();
            go.send(()).unwrap();
            let first = first.join().unwrap();
            assert!(first.id() < second.id());
            gate.add_permits(1);
            task.join().unwrap();
            assert_eq!((ends.load(Ordering::SeqCst), second.hits().0), (0, 1));
            gate.add_permits(1);
            app::waits(&gate);
            assert_eq!((ends.load(Ordering::SeqCst), second.hits().0), (1, 2));
        });
    });
}
