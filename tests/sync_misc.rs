//! `Barrier`, `Once`, `OnceLock`, `LazyLock`, `Semaphore`, `WaitGroup` and `Event`: between tasks of one worker, across
//! workers, between plain threads, and mixed; interrupted, timed, and in the views.

mod harness;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::sync::{Barrier, Event, LazyLock, Once, OnceLock, Semaphore, WaitGroup};
use harness::{PATIENCE, Rng, runtime, seed, task_until, until, until_parked};

const LONG: Duration = Duration::from_secs(1000);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Who takes part.
#[derive(Debug, Clone, Copy)]
enum Cast {
    OneWorker,
    FourWorkers,
    Threads,
    Mixed,
}

const CASTS: [Cast; 4] = [Cast::OneWorker, Cast::FourWorkers, Cast::Threads, Cast::Mixed];

/// Runs `n` copies of `f` at once, each with its number, and waits for all.
fn play<F: Fn(usize) + Send + Sync + 'static>(cast: Cast, n: usize, f: F) {
    let rt = match cast {
        Cast::OneWorker => Some(runtime(1)),
        Cast::FourWorkers | Cast::Mixed => Some(runtime(4)),
        Cast::Threads => None,
    };
    let f = Arc::new(f);
    let (mut tasks, mut threads) = (Vec::new(), Vec::new());
    for i in 0..n {
        let f = f.clone();
        match &rt {
            Some(rt) if !matches!(cast, Cast::Mixed) || i % 2 == 0 => tasks.push(rt.spawn(move || f(i))),
            _ => threads.push(std::thread::spawn(move || f(i))),
        }
    }
    until(&format!("all of {cast:?} end"), || {
        tasks.iter().all(coro::JoinHandle::is_finished) && threads.iter().all(std::thread::JoinHandle::is_finished)
    });
    tasks.into_iter().for_each(|t| t.join().unwrap_or_else(|_| panic!("a task of {cast:?} failed")));
    threads.into_iter().for_each(|t| t.join().unwrap_or_else(|_| panic!("a thread of {cast:?} failed")));
}

#[test]
fn barriers_let_all_through_together_with_one_leader() {
    for cast in CASTS {
        const N: usize = 8;
        const ROUNDS: usize = 50;
        let (barrier, leaders, come) = (Barrier::new(N), AtomicUsize::new(0), AtomicUsize::new(0));
        let all = Arc::new((barrier, leaders, come));
        let a = all.clone();
        play(cast, N, move |_| {
            for round in 0..ROUNDS {
                a.2.fetch_add(1, Ordering::SeqCst);
                if a.0.wait().is_leader() {
                    a.1.fetch_add(1, Ordering::SeqCst);
                }
                assert!(a.2.load(Ordering::SeqCst) >= (round + 1) * N, "let through before all had come");
            }
        });
        assert_eq!(all.1.load(Ordering::SeqCst), ROUNDS, "{cast:?}");
    }
    assert!(Barrier::new(0).wait().is_leader());
    assert!(Barrier::new(1).wait().is_leader());
    assert_eq!(format!("{:?}", Barrier::new(1).wait()), "BarrierWaitResult { is_leader: true }");
}

#[test]
fn a_barrier_forgets_who_left() {
    let rt = runtime(2);
    rt.block_on(|| {
        let barrier = Arc::new(Barrier::new(3));
        let b = barrier.clone();
        let cancelled = coro::spawn(move || _ = b.wait());
        until_parked(cancelled.task(), "barrier");
        cancelled.cancel();
        assert!(coro::is_cancel(&*cancelled.join().unwrap_err()));
        assert!(barrier.wait_timeout(ms(2)).is_none());
        assert!(coro::timeout(ms(2), || _ = barrier.wait()).is_err());
        // Three have left: it still takes three.
        let others: Vec<_> = (0..2)
            .map(|_| {
                let b = barrier.clone();
                coro::spawn(move || b.wait_timeout(Duration::MAX).expect("the others come").is_leader())
            })
            .collect();
        others.iter().for_each(|t| until_parked(t.task(), "barrier"));
        assert!(barrier.wait().is_leader());
        assert!(others.into_iter().all(|t| !t.join().unwrap()));
    });
}

#[test]
fn a_once_runs_once_and_all_wait_for_its_end() {
    for cast in CASTS {
        let all = Arc::new((Once::new(), AtomicUsize::new(0), AtomicBool::new(false)));
        let a = all.clone();
        play(cast, 16, move |i| {
            if i % 4 == 3 {
                a.0.wait();
            } else {
                a.0.call_once(|| {
                    a.1.fetch_add(1, Ordering::SeqCst);
                    coro::sleep(ms(5));
                    a.2.store(true, Ordering::SeqCst);
                });
            }
            assert!(a.2.load(Ordering::SeqCst), "it went on before the closure had ended");
        });
        assert_eq!(all.1.load(Ordering::SeqCst), 1, "{cast:?}");
        assert!(all.0.is_completed());
    }
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let s = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    s.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

fn panics<T>(f: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("it did not panic"),
        Err(payload) => message(&*payload),
    }
}

#[test]
fn a_panic_poisons_a_once_and_an_interrupt_does_not() {
    let rt = runtime(2);
    rt.block_on(|| {
        let once = Arc::new(Once::new());
        assert_eq!(panics(|| once.call_once(|| panic!("mine"))), "mine");
        for poisoned in [panics(|| once.call_once(|| {})), panics(|| once.wait())] {
            assert!(poisoned.contains("poisoned"), "{poisoned}");
        }
        let o = once.clone();
        let forced = coro::spawn(move || o.wait_force());
        until_parked(forced.task(), "once");
        // Interrupted in the middle: it is poisoned as before, and the next one runs.
        let r = coro::timeout(ms(2), || once.call_once_force(|s| (assert!(s.is_poisoned()), coro::sleep(LONG)).0));
        assert!(r.is_err() && !once.is_completed());
        let poisoned = panics(|| once.call_once(|| {}));
        assert!(poisoned.contains("poisoned"), "{poisoned}");
        let mut ran = false;
        once.call_once_force(|s| ran = s.is_poisoned());
        assert!(ran && once.is_completed());
        once.call_once(|| unreachable!("it is complete"));
        forced.join().unwrap();

        // A cancelled initialiser leaves the work to one of those who wait.
        let once = Arc::new(Once::new());
        let o = once.clone();
        let cancelled = coro::spawn(move || o.call_once(|| coro::sleep(LONG)));
        until_parked(cancelled.task(), "sleep");
        let runs = Arc::new(AtomicUsize::new(0));
        let next: Vec<_> = (0..5)
            .map(|_| {
                let (o, runs) = (once.clone(), runs.clone());
                coro::spawn(move || o.call_once(|| _ = runs.fetch_add(1, Ordering::SeqCst)))
            })
            .collect();
        next.iter().for_each(|t| until_parked(t.task(), "once"));
        cancelled.cancel();
        assert!(coro::is_cancel(&*cancelled.join().unwrap_err()));
        next.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(runs.load(Ordering::SeqCst), 1);

        // Waiting for another one's closure is left by an interrupt; the closure goes on.
        let once = Arc::new(Once::new());
        let o = once.clone();
        let runs = coro::spawn(move || o.call_once(coro::park));
        until_parked(runs.task(), "park");
        assert!(coro::timeout(ms(2), || once.call_once(|| {})).is_err());
        assert!(coro::timeout(ms(2), || once.wait()).is_err());
        runs.task().unpark();
        runs.join().unwrap();
        assert!(once.is_completed());
    });
}

#[test]
fn an_initialiser_that_comes_back_panics_instead_of_waiting_for_itself() {
    static AGAIN: LazyLock<u32> = LazyLock::new(|| *AGAIN + 1);
    let said = panics(|| *AGAIN);
    assert!(said.contains("its own end"), "{said}");
    let body = || {
        let once = Once::new();
        let said = panics(|| once.call_once(|| once.call_once(|| {})));
        assert!(said.contains("its own end"), "{said}");
        let said = panics(|| once.call_once_force(|_| once.wait_force()));
        assert!(said.contains("its own end"), "{said}");
        let cell = OnceLock::new();
        let said = panics(|| cell.get_or_init(|| *cell.get_or_init(|| 1)));
        assert!(said.contains("its own end"), "{said}");
        assert_eq!(cell.get_or_init(|| 2), &2, "a panic leaves the cell empty");
    };
    body();
    runtime(1).block_on(body);
}

#[test]
fn once_locks_hold_the_first_value_for_all() {
    for cast in CASTS {
        let all = Arc::new((OnceLock::new(), AtomicUsize::new(0)));
        let a = all.clone();
        play(cast, 16, move |i| {
            let value = match i % 4 {
                0 => *a.0.wait(),
                _ => *a.0.get_or_init(|| {
                    a.1.fetch_add(1, Ordering::SeqCst);
                    coro::sleep(ms(3));
                    i
                }),
            };
            assert_eq!(a.0.get(), Some(&value));
        });
        assert_eq!(all.1.load(Ordering::SeqCst), 1, "{cast:?}");
    }
}

#[test]
fn the_surface_of_a_once_lock() {
    let mut cell = OnceLock::<String>::new().named("cell");
    assert_eq!(format!("{cell:?}"), "OnceLock(<uninit>)");
    assert_eq!(cell.get_or_try_init(|| Err::<String, _>(3)), Err(3));
    assert_eq!(cell.get(), None);
    assert_eq!(cell.try_insert("a".to_owned()), Ok(&"a".to_owned()));
    assert_eq!(cell.try_insert("b".to_owned()), Err((&"a".to_owned(), "b".to_owned())));
    assert_eq!(cell.set("c".to_owned()), Err("c".to_owned()));
    assert_eq!(cell.get_or_try_init(|| Err::<String, _>(3)), Ok(&"a".to_owned()));
    cell.get_mut().unwrap().push('!');
    assert_eq!((format!("{cell:?}"), cell.clone() == cell), ("OnceLock(\"a!\")".to_owned(), true));
    assert_eq!(cell.take(), Some("a!".to_owned()));
    assert_eq!((cell.take(), cell.get()), (None, None));
    assert_eq!(cell.get_mut_or_init(|| "d".to_owned()), "d");
    assert_eq!(cell.get_mut_or_try_init(|| Err(1)), Ok(&mut "d".to_owned()));
    assert_eq!(cell.into_inner(), Some("d".to_owned()));
    assert_ne!(OnceLock::from(1), OnceLock::new());
    // The value is dropped once.
    let counted = Arc::new(());
    let cell = OnceLock::from(counted.clone());
    assert_eq!(Arc::strong_count(&counted), 2);
    drop(cell);
    assert_eq!(Arc::strong_count(&counted), 1);
}

#[test]
fn once_locks_under_interrupts() {
    let rt = runtime(2);
    rt.block_on(|| {
        let cell = Arc::new(OnceLock::<u32>::new());
        let c = cell.clone();
        let cancelled = coro::spawn(move || *c.get_or_init(|| (coro::sleep(LONG), 1).1));
        until_parked(cancelled.task(), "sleep");
        let c = cell.clone();
        let next = coro::spawn(move || *c.get_or_init(|| 2));
        until_parked(next.task(), "once");
        assert!(coro::timeout(ms(2), || *cell.wait()).is_err());
        cancelled.cancel();
        assert!(coro::is_cancel(&*cancelled.join().unwrap_err()));
        assert_eq!((next.join().unwrap(), cell.get()), (2, Some(&2)));
    });
}

#[test]
fn lazy_locks_are_made_once_and_not_lost_by_an_interrupt() {
    for cast in CASTS {
        let made = Arc::new(AtomicUsize::new(0));
        let m = made.clone();
        let lazy = LazyLock::new(move || {
            coro::sleep(ms(3));
            m.fetch_add(1, Ordering::SeqCst) + 41
        });
        play(cast, 8, move |_| assert_eq!(*lazy, 41));
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
    let rt = runtime(2);
    rt.block_on(|| {
        let asked = Arc::new(AtomicBool::new(false));
        let a = asked.clone();
        let lazy = Arc::new(LazyLock::new(move || {
            // Each wait after the cancellation would unwind if it were not shielded.
            while !a.load(Ordering::SeqCst) {
                coro::sleep(ms(20));
            }
            coro::sleep(ms(1));
            7
        }));
        let l = lazy.clone();
        let first = coro::spawn(move || {
            let v = **l;
            coro::yield_slice();
            v
        });
        until_parked(first.task(), "sleep");
        first.cancel();
        asked.store(true, Ordering::SeqCst);
        assert_eq!(**lazy, 7);
        assert!(coro::is_cancel(&*first.join().unwrap_err()), "the interrupt comes after the initialiser");
    });
    let mut lazy = LazyLock::new(|| "a".to_owned()).named("lazy");
    assert_eq!((format!("{lazy:?}"), LazyLock::get(&lazy)), ("LazyLock(<uninit>)".to_owned(), None));
    assert_eq!(LazyLock::get_mut(&mut lazy), None);
    lazy.push('b');
    assert_eq!((format!("{lazy:?}"), LazyLock::get(&lazy)), ("LazyLock(\"ab\")".to_owned(), Some(&"ab".to_owned())));
    assert_eq!(LazyLock::into_inner(lazy).ok(), Some("ab".to_owned()));
    assert!(LazyLock::into_inner(LazyLock::new(|| 1)).is_err());
    let mut bad: LazyLock<u32> = LazyLock::new(|| panic!("mine"));
    assert_eq!(panics(|| *bad), "mine");
    for said in [panics(|| *bad), panics(|| LazyLock::get_mut(&mut bad).copied()), panics(|| *LazyLock::force(&bad))] {
        assert_eq!(said, "LazyLock instance has previously been poisoned");
    }
    assert_eq!(LazyLock::get(&bad), None);
}

#[test]
fn semaphores_hold_their_number_whoever_takes_part() {
    for cast in CASTS {
        let all = Arc::new((Semaphore::new(3), AtomicUsize::new(0)));
        let a = all.clone();
        play(cast, 12, move |i| {
            for round in 0..60 {
                let n = 1 + (i + round) % 3;
                let permit = match round % 4 {
                    0 => a.0.acquire_many_timeout(n, LONG).expect("its turn comes"),
                    _ => a.0.acquire_many(n),
                };
                assert_eq!(permit.permits(), n);
                assert!(a.1.fetch_add(n, Ordering::SeqCst) + n <= 3, "too many permits are out");
                if round % 8 == 0 {
                    coro::yield_slice();
                }
                a.1.fetch_sub(n, Ordering::SeqCst);
            }
        });
        assert_eq!(all.0.available_permits(), 3, "{cast:?}");
    }
}

#[test]
fn the_surface_of_a_semaphore() {
    let s = Arc::new(Semaphore::new(2));
    let one = s.try_acquire().unwrap();
    assert_eq!((s.available_permits(), s.try_acquire_many(2).is_none()), (1, true));
    assert_eq!(s.available_permits(), 1, "a refused request took something");
    let owned = s.try_acquire_owned().unwrap();
    assert!(s.try_acquire().is_none() && s.try_acquire_owned().is_none());
    assert!(s.acquire_timeout(Duration::ZERO).is_none() && s.acquire_timeout(ms(1)).is_none());
    assert!(s.try_acquire_many(0).is_some() && s.acquire_many(0).permits() == 0);
    drop(one);
    assert_eq!(s.available_permits(), 1);
    std::thread::spawn(move || drop(owned)).join().unwrap();
    assert_eq!(s.available_permits(), 2);
    s.acquire().forget();
    s.acquire_many_owned(1).forget();
    assert_eq!(s.available_permits(), 0);
    s.add_permits(5);
    drop(s.acquire_owned());
    assert_eq!(s.available_permits(), 5);
    assert!(panics(|| s.add_permits(usize::MAX)).contains("usize::MAX"));
    assert_eq!(s.available_permits(), 5);
    assert_eq!(format!("{s:?}"), "Semaphore { permits: 5, .. }");
}

#[test]
fn a_large_request_is_not_overtaken() {
    let rt = runtime(2);
    rt.block_on(|| {
        let s = Arc::new(Semaphore::new(2));
        let held = s.acquire_many(1);
        let s2 = s.clone();
        let large = coro::spawn(move || drop(s2.acquire_many(2)));
        until_parked(large.task(), "semaphore");
        assert!(s.try_acquire().is_none(), "one permit is there, but somebody waits");
        assert!(s.acquire_timeout(ms(3)).is_none());
        let s2 = s.clone();
        let small = coro::spawn(move || drop(s2.acquire()));
        until_parked(small.task(), "semaphore");
        assert_eq!(s.available_permits(), 1);
        // The large one leaves: now the small one is served.
        large.cancel();
        assert!(coro::is_cancel(&*large.join().unwrap_err()));
        small.join().unwrap();
        // The same by its deadline.
        let s2 = s.clone();
        let large = coro::spawn(move || s2.acquire_many_timeout(2, ms(20)).is_none());
        until_parked(large.task(), "semaphore");
        drop(s.acquire());
        assert!(large.join().unwrap());
        drop(held);
        assert_eq!(s.available_permits(), 2);
    });
}

#[test]
fn a_thousand_waiters_are_served_in_order() {
    let rt = runtime(1);
    rt.block_on(|| {
        const N: usize = 1000;
        let (s, order) = (Arc::new(Semaphore::new(0)), Arc::new(StdMutex::new(Vec::new())));
        let tasks: Vec<_> = (0..N)
            .map(|i| {
                let (s, order) = (s.clone(), order.clone());
                coro::spawn(move || {
                    let permit = s.acquire();
                    order.lock().unwrap().push(i);
                    permit.forget();
                })
            })
            .collect();
        until_parked(tasks[N - 1].task(), "semaphore");
        // One by one, then all of the rest at once, which is more than one batch.
        for i in 0..100 {
            s.add_permits(1);
            task_until("one was served", || order.lock().unwrap().len() == i + 1);
        }
        s.add_permits(N - 100);
        tasks.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(*order.lock().unwrap(), (0..N).collect::<Vec<_>>());
        assert_eq!(s.available_permits(), 0);
    });
}

#[test]
fn a_storm_of_cancellations_loses_no_permit() {
    let seed = seed();
    for workers in [1, 4] {
        let rt = runtime(workers);
        rt.block_on(|| {
            let s = Arc::new(Semaphore::new(3));
            let mut rng = Rng(seed);
            let tasks: Vec<_> = (0..60)
                .map(|_| {
                    let (s, mut rng) = (s.clone(), Rng(rng.next()));
                    coro::spawn(move || {
                        loop {
                            let n = 1 + rng.below(3) as usize;
                            let permit = match rng.below(3) {
                                0 => s.acquire_many_timeout(n, Duration::from_micros(rng.below(200))),
                                1 => coro::timeout(Duration::from_micros(rng.below(200)), || s.acquire_many(n)).ok(),
                                _ => Some(s.acquire_many(n)),
                            };
                            if rng.below(2) == 0 {
                                coro::yield_slice();
                            }
                            drop(permit);
                        }
                    })
                })
                .collect();
            for t in &tasks {
                coro::sleep(Duration::from_micros(rng.below(1500)));
                t.cancel();
            }
            for t in tasks {
                let r = coro::timeout(PATIENCE, || t.join()).unwrap_or_else(|_| panic!("a task hangs (seed {seed})"));
                let r: Result<(), _> = r;
                assert!(coro::is_cancel(&*r.unwrap_err()), "seed {seed}");
            }
            assert_eq!(s.available_permits(), 3, "seed {seed}");
        });
    }
}

/// Waiters that are cancelled, timed out and let through at the same time leave nothing behind in any of them.
#[test]
fn a_storm_over_gates_leaves_them_as_new() {
    let seed = seed();
    for workers in [1, 4] {
        let rt = runtime(workers);
        rt.block_on(|| {
            let all = Arc::new((Barrier::new(3), Event::new(), Arc::new(WaitGroup::new()), StdMutex::new(None)));
            let mut rng = Rng(seed);
            let tasks: Vec<_> = (0..60)
                .map(|_| {
                    let (a, mut rng) = (all.clone(), Rng(rng.next()));
                    coro::spawn(move || {
                        loop {
                            let limit = Duration::from_micros(rng.below(300));
                            match rng.below(8) {
                                0 => _ = a.0.wait_timeout(limit),
                                1 => _ = coro::timeout(limit, || _ = a.0.wait()),
                                2 => _ = a.1.wait_timeout(limit),
                                3 => _ = coro::timeout(limit, || a.1.wait()),
                                4 => _ = a.2.wait_timeout(limit),
                                5 => {
                                    let _member = a.2.enter_owned();
                                    coro::yield_slice();
                                }
                                6 => {
                                    // Shared with whoever comes next; initialisers are interrupted as well.
                                    let once = a.3.lock().unwrap().get_or_insert_with(|| Arc::new(Once::new())).clone();
                                    let _ = coro::timeout(limit, || once.call_once(|| coro::sleep(limit / 2)));
                                    if once.is_completed() {
                                        *a.3.lock().unwrap() = None;
                                    }
                                }
                                _ => {
                                    a.1.set();
                                    a.1.clear();
                                }
                            }
                        }
                    })
                })
                .collect();
            for t in &tasks {
                coro::sleep(Duration::from_micros(rng.below(1500)));
                t.cancel();
            }
            for t in tasks {
                let r = coro::timeout(PATIENCE, || t.join()).unwrap_or_else(|_| panic!("a task hangs (seed {seed})"));
                let r: Result<(), _> = r;
                assert!(coro::is_cancel(&*r.unwrap_err()), "seed {seed}");
            }
            assert_eq!(all.2.count(), 0, "seed {seed}");
            assert!(all.2.wait_timeout(Duration::ZERO) && !all.1.is_set());
            // Nobody is counted who is gone: it still takes three.
            assert!(all.0.wait_timeout(ms(1)).is_none(), "seed {seed}");
            let leaders =
                coro::in_parallel((0..3).map(|_| || all.0.wait_timeout(PATIENCE).map(|r| r.is_leader()))).unwrap();
            assert_eq!(leaders.iter().filter(|l| **l == Some(true)).count(), 1, "{leaders:?} (seed {seed})");
            if let Some(once) = all.3.lock().unwrap().take() {
                once.call_once(|| {});
                assert!(once.is_completed());
            }
        });
    }
}

#[test]
fn wait_groups_let_through_when_the_last_member_has_left() {
    for cast in CASTS {
        let all = Arc::new((Arc::new(WaitGroup::new()), AtomicUsize::new(0)));
        let a = all.clone();
        all.0.add(6);
        play(cast, 10, move |i| {
            if i < 6 {
                // From members to members: the count does not fall to zero in between.
                for _ in 0..20 {
                    let _member = a.0.enter();
                    coro::yield_slice();
                }
                a.1.fetch_add(1, Ordering::SeqCst);
                a.0.done();
            } else {
                assert!(i % 2 == 0 || a.0.wait_timeout(LONG));
                a.0.wait();
                assert_eq!(a.1.load(Ordering::SeqCst), 6, "let through too early");
            }
        });
        assert_eq!(all.0.count(), 0, "{cast:?}");
    }
}

#[test]
fn the_surface_of_a_wait_group() {
    let g = Arc::new(WaitGroup::new());
    g.wait();
    assert!(g.wait_timeout(Duration::ZERO) && g.wait_timeout(Duration::MAX));
    assert!(panics(|| g.done()).contains("more often"));
    g.add(2);
    assert!(panics(|| g.add(usize::MAX)).contains("usize::MAX"));
    assert!(!g.wait_timeout(ms(2)) && !g.wait_timeout(Duration::ZERO));
    g.done();
    g.done();
    // A member by guard leaves however its task ends.
    let rt = runtime(2);
    rt.block_on(|| {
        let member = g.enter_owned();
        let panics = coro::spawn(move || {
            let _member = member;
            std::panic::resume_unwind(Box::new(1));
        });
        let member = g.enter_owned();
        let cancelled = coro::spawn(move || (coro::sleep(LONG), drop(member)).0);
        let member = g.enter_owned();
        let never_started = coro::spawn(move || drop(member));
        never_started.cancel();
        cancelled.cancel();
        assert!(coro::timeout(PATIENCE, || g.wait()).is_ok(), "{g:?}");
        assert!(panics.join().is_err() && cancelled.join().is_err());
        let _member = g.enter();
        assert!(coro::timeout(ms(2), || g.wait()).is_err());
        assert_eq!(format!("{g:?}"), "WaitGroup { count: 1, .. }");
    });
    assert_eq!(g.count(), 0);
}

#[test]
fn events_let_everybody_through() {
    for cast in CASTS {
        let all = Arc::new((Event::new(), AtomicBool::new(false)));
        let a = all.clone();
        play(cast, 100, move |i| {
            if i == 99 {
                a.1.store(true, Ordering::SeqCst);
                a.0.set();
            } else if i % 2 == 0 {
                a.0.wait();
            } else {
                assert!(a.0.wait_timeout(LONG));
            }
            assert!(a.1.load(Ordering::SeqCst), "let through before");
        });
        assert!(all.0.is_set() && all.0.wait_timeout(Duration::ZERO), "{cast:?}");
        all.0.clear();
        assert!(!all.0.is_set() && !all.0.wait_timeout(ms(1)) && !all.0.wait_timeout(Duration::ZERO));
    }
}

#[test]
fn a_pulse_lets_exactly_those_through_who_wait() {
    let rt = runtime(1);
    rt.block_on(|| {
        // More than one batch.
        const N: usize = 100;
        let (e, through) = (Arc::new(Event::new()), Arc::new(AtomicUsize::new(0)));
        let waits = |times: usize| {
            let (e, through) = (e.clone(), through.clone());
            coro::spawn(move || {
                for _ in 0..times {
                    e.wait();
                    through.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let once: Vec<_> = (0..N).map(|_| waits(1)).collect();
        let twice = waits(2);
        until_parked(twice.task(), "event");
        e.set();
        e.clear();
        once.into_iter().for_each(|t| t.join().unwrap());
        task_until("it waits again", || through.load(Ordering::SeqCst) == N + 1);
        until_parked(twice.task(), "event");
        assert!(coro::timeout(ms(2), || e.wait()).is_err());
        twice.cancel();
        assert!(coro::is_cancel(&*twice.join().unwrap_err()));
        assert_eq!((through.load(Ordering::SeqCst), format!("{e:?}")), (N + 1, "Event { set: false, .. }".to_owned()));
    });
}

/// An interrupt ends a loop over waits that never have to wait.
#[test]
fn readiness_does_not_hold_off_an_interrupt() {
    let rt = runtime(1);
    rt.block_on(|| {
        let (s, e, g, b) = (Semaphore::new(1), Event::new(), WaitGroup::new(), Barrier::new(1));
        e.set();
        let loops: [&dyn Fn(); 4] = [&|| drop(s.acquire()), &|| e.wait(), &|| g.wait(), &|| _ = b.wait()];
        for (i, f) in loops.into_iter().enumerate() {
            let begun = Instant::now();
            let r = coro::timeout(ms(10), || {
                loop {
                    f();
                    assert!(begun.elapsed() < PATIENCE, "loop {i} goes on for ever");
                }
            });
            assert!(r.is_err_and(|e: coro::Elapsed<()>| e.value().is_none()));
        }
        assert_eq!(s.available_permits(), 1);
    });
}

/// Waits on plain threads end when a task on a worker does its part, and the other way round.
#[test]
fn a_thread_and_a_task_wait_for_each_other() {
    let rt = runtime(1);
    let there = Arc::new((Event::new(), Event::new(), Semaphore::new(0), WaitGroup::new(), OnceLock::new()));
    there.3.add(1);
    let t = there.clone();
    let thread = std::thread::spawn(move || {
        t.0.wait();
        t.1.set();
        drop(t.2.acquire());
        t.3.done();
        assert_eq!(t.4.wait(), &5);
    });
    let t = there.clone();
    let task = rt.spawn(move || {
        t.0.set();
        t.1.wait();
        t.2.add_permits(1);
        t.3.wait();
        t.4.set(5).unwrap();
    });
    until("both end", || task.is_finished() && thread.is_finished());
    task.join().unwrap();
    thread.join().unwrap();
}

#[test]
fn the_views_tell_what_is_waited_for() {
    static NAMED: Event = Event::new().named("go");
    static BARRIER: Barrier = Barrier::new(2).named("start line");
    static SEMAPHORE: Semaphore = Semaphore::new(0).named("db \"pool\"");
    static GROUP: WaitGroup = WaitGroup::new().named("children");
    static ONCE: Once = Once::new().named("set up");
    static CELL: OnceLock<u32> = OnceLock::new();
    static LAZY: LazyLock<u32> = <LazyLock<u32>>::new(|| (coro::park(), 3).1).named("lazy");
    let rt = runtime(2);
    rt.block_on(|| {
        GROUP.add(1);
        let here = file!();
        let expect = |task: &coro::JoinHandle<()>, wait: &str| {
            until_parked(task.task(), wait);
            let seen = coro::where_is(task.id()).expect("it lives").wait;
            assert!(seen.starts_with(&format!("{wait} {here}:")), "{seen}");
            seen
        };
        let waits = [
            (coro::spawn(|| NAMED.wait()), "event \"go\""),
            (coro::spawn(|| _ = BARRIER.wait()), "barrier \"start line\""),
            (coro::spawn(|| drop(SEMAPHORE.acquire())), "semaphore \"db \\\"pool\\\"\""),
            (coro::spawn(|| GROUP.wait()), "wait group \"children\""),
            (coro::spawn(|| ONCE.wait()), "once \"set up\""),
            (coro::spawn(|| assert_eq!(CELL.wait(), &1)), "once"),
        ];
        for (task, wait) in &waits {
            let seen = expect(task, wait);
            assert!(!seen.contains("held"), "{seen}");
        }
        // Who runs an initialiser is told.
        let runs = coro::spawn(|| assert_eq!(*LAZY, 3));
        until_parked(runs.task(), "park");
        let other = coro::spawn(|| assert_eq!(*LAZY, 3));
        let seen = expect(&other, "once \"lazy\"");
        assert!(seen.contains(&format!(" by #{} for ", runs.id())), "{seen}");
        runs.task().unpark();
        NAMED.set();
        BARRIER.wait();
        SEMAPHORE.add_permits(1);
        GROUP.done();
        ONCE.call_once(|| {});
        CELL.set(1).unwrap();
        waits.into_iter().for_each(|(t, _)| t.join().unwrap());
        runs.join().unwrap();
        other.join().unwrap();
    });
}
