//! Condition variables: every notification reaches somebody, whatever is cancelled or times out meanwhile.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use coro::sync::{Condvar, Mutex, nonpoison};

use crate::crew::{Crew, PLACES};
use crate::harness::{Rng, runtime, seed, task_until, until, until_parked};

const LONG: Duration = Duration::from_secs(1000);

/// A counter and those who wait for it to grow.
#[derive(Default)]
struct Pool {
    left: Mutex<u32>,
    grown: Condvar,
}

impl Pool {
    fn put(&self, n: u32) {
        *self.left.lock().unwrap() += n;
        for _ in 0..n {
            self.grown.notify_one();
        }
    }

    fn take(&self) {
        let mut left = self.grown.wait_while(self.left.lock().unwrap(), |left| *left == 0).unwrap();
        *left -= 1;
    }
}

#[test]
fn every_item_is_taken_once() {
    for place in PLACES {
        let pool = Arc::new(Pool::default());
        let mut crew = Crew::at(place);
        for i in 0..24u32 {
            let pool = pool.clone();
            crew.hire(move || match i % 2 {
                0 => (0..100).for_each(|_| pool.take()),
                _ => (0..50).for_each(|_| pool.put(2)),
            });
        }
        crew.all();
        assert_eq!(*pool.left.lock().unwrap(), 0, "{place:?}");
    }
}

#[test]
fn a_notification_of_all_wakes_all() {
    for place in PLACES {
        let state = Arc::new((Mutex::new((0u32, false)), Condvar::new()));
        let mut crew = Crew::at(place);
        for _ in 0..50 {
            let state = state.clone();
            crew.hire(move || {
                let mut s = state.0.lock().unwrap();
                s.0 += 1;
                drop(state.1.wait_while(s, |s| !s.1).unwrap());
            });
        }
        // Counted before the wait and under the mutex: who is counted has begun to wait when the mutex is free.
        until("all wait", || state.0.lock().unwrap().0 == 50);
        state.0.lock().unwrap().1 = true;
        state.1.notify_all();
        crew.all();
    }
}

#[test]
fn a_thousand_waiters_are_notified_in_order() {
    let rt = runtime(1);
    rt.block_on(|| {
        let state = Arc::new((Mutex::new(0u32), Condvar::new()));
        let order = Arc::new(StdMutex::new(Vec::new()));
        let waiters: Vec<_> = (0..1000)
            .map(|i| {
                let (ours, order) = (state.clone(), order.clone());
                let t = coro::spawn(move || {
                    let mut waiting = ours.0.lock().unwrap();
                    *waiting += 1;
                    // One wait: whoever was woken was notified.
                    let left = ours.1.wait(waiting).unwrap();
                    order.lock().unwrap().push(i);
                    drop(left);
                });
                // It gives the lock away once it stands in the queue.
                task_until("it waits", || *state.0.lock().unwrap() == i + 1);
                t
            })
            .collect();
        for i in 0..1000 {
            state.1.notify_one();
            task_until("one was woken", || order.lock().unwrap().len() == i + 1);
        }
        waiters.into_iter().for_each(|w| w.join().unwrap());
        assert_eq!(*order.lock().unwrap(), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn nobody_waits_longer_than_allowed() {
    for place in PLACES {
        let mut crew = Crew::at(place);
        for i in 0..6u64 {
            crew.hire(move || {
                let (m, c) = (Mutex::new(5), Condvar::new());
                let (begun, limit) = (Instant::now(), Duration::from_millis(5 * i));
                let (left, result) = c.wait_timeout_while(m.lock().unwrap(), limit, |_| true).unwrap();
                assert!(result.timed_out() && *left == 5);
                assert!(begun.elapsed() >= limit, "{limit:?}: woken after {:?}", begun.elapsed());
                // A condition that holds is no timeout, however short the limit is.
                let (_left, result) = c.wait_timeout_while(left, Duration::ZERO, |_| false).unwrap();
                assert!(!result.timed_out());
            });
        }
        crew.all();
    }
}

#[test]
fn limits_beyond_all_clocks_do_not_wrap_around() {
    for place in PLACES {
        let mut crew = Crew::at(place);
        for limit in [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_secs(18_446_744_074)] {
            let state = Arc::new((Mutex::new(0), Condvar::new()));
            let theirs = state.clone();
            crew.hire(move || {
                let mut stage = theirs.0.lock().unwrap();
                *stage = 1;
                while *stage != 2 {
                    let (now, result) = theirs.1.wait_timeout(stage, limit).unwrap();
                    assert!(!result.timed_out(), "{limit:?}");
                    stage = now;
                }
            });
            crew.hire(move || {
                let waits = || *state.0.lock().unwrap() == 1;
                if coro::current().is_some() {
                    task_until("it waits", waits)
                } else {
                    until("it waits", waits)
                }
                *state.0.lock().unwrap() = 2;
                state.1.notify_one();
            });
        }
        crew.all();
    }
}

/// The five waits, as a cancelled or expired task sees them.
#[allow(deprecated)]
const WAITS: [fn(&Mutex<u32>, &Condvar); 5] = [
    |m, c| drop(c.wait(m.lock().unwrap())),
    |m, c| drop(c.wait_while(m.lock().unwrap(), |_| true)),
    |m, c| drop(c.wait_timeout(m.lock().unwrap(), LONG)),
    |m, c| drop(c.wait_timeout_while(m.lock().unwrap(), LONG, |_| true)),
    |m, c| drop(c.wait_timeout_ms(m.lock().unwrap(), u32::MAX)),
];

#[test]
fn a_cancelled_wait_unwinds_with_the_mutex_and_does_not_poison_it() {
    let rt = runtime(1);
    rt.block_on(|| {
        for now in [false, true] {
            for wait in WAITS {
                let state = Arc::new((Mutex::new(0), Condvar::new()));
                let theirs = state.clone();
                let t = coro::spawn(move || {
                    wait(&theirs.0, &theirs.1);
                    panic!("a cancelled wait came back");
                });
                until_parked(t.task(), "condvar");
                // The mutex is taken: the cancelled waiter must have it before it unwinds.
                let held = state.0.lock().unwrap();
                if now {
                    t.task().cancel_now();
                } else {
                    t.cancel();
                }
                until_parked(t.task(), "lock");
                drop(held);
                assert!(coro::is_cancel(&*t.join().unwrap_err()));
                assert_eq!(*state.0.lock().expect("a cancelled waiter poisoned the mutex"), 0);
                // And it has left the line: this one goes nowhere.
                state.1.notify_one();
            }
        }
    });
}

#[test]
fn a_time_limit_around_a_wait_ends_it_without_poison() {
    let rt = runtime(1);
    rt.block_on(|| {
        for wait in WAITS {
            let (m, c) = (Mutex::new(0), Condvar::new());
            assert!(coro::timeout(Duration::from_millis(2), || wait(&m, &c)).is_err());
            assert_eq!(*m.lock().expect("an expired wait poisoned the mutex"), 0);
        }
        let (m, c) = (nonpoison::Mutex::new(0), nonpoison::Condvar::new());
        let mut guard = m.lock();
        let expired = std::panic::AssertUnwindSafe(|| c.wait(&mut guard));
        assert!(coro::timeout(Duration::from_millis(2), expired.0).is_err());
        // The guard that was lent is the guard that is had again.
        assert!(m.try_lock().is_err());
        *guard += 1;
        drop(guard);
        assert_eq!(*m.lock(), 1);
    });
}

#[test]
fn another_guard_holds_a_cancellation_back_until_the_wait_has_ended() {
    let rt = runtime(1);
    rt.block_on(|| {
        let state = Arc::new((Mutex::new(false), Condvar::new(), Mutex::new(0)));
        let theirs = state.clone();
        let t = coro::spawn(move || {
            let mut other = theirs.2.lock().unwrap();
            *other = 1;
            drop(theirs.1.wait_while(theirs.0.lock().unwrap(), |ready| !*ready).unwrap());
            *other = 2;
            drop(other);
            coro::yield_slice();
            panic!("the cancellation is lost");
        });
        until_parked(t.task(), "condvar");
        t.cancel();
        coro::yield_slice();
        until_parked(t.task(), "condvar");
        *state.0.lock().unwrap() = true;
        state.1.notify_one();
        assert!(coro::is_cancel(&*t.join().unwrap_err()));
        assert_eq!(*state.2.lock().expect("no poison"), 2, "the update was left half done");
    });
}

#[test]
fn no_item_is_lost_when_takers_are_cancelled_or_run_out_of_time() {
    let seed = seed();
    println!("seed {seed}");
    for place in PLACES {
        let mut rng = Rng(seed);
        let pool = Arc::new(Pool::default());
        let (taken, gone) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut crew = Crew::at(place);
        const TAKERS: usize = 16;
        for i in 0..TAKERS {
            let (pool, taken, gone) = (pool.clone(), taken.clone(), gone.clone());
            let mut rng = Rng(rng.next());
            crew.hire(move || {
                while taken.load(Ordering::SeqCst) < 600 {
                    let limit = Duration::from_micros(rng.below(300));
                    if i % 2 == 0 && coro::current().is_some() {
                        // Unwinds out of the wait.
                        let _ = coro::timeout(limit, || {
                            pool.take();
                            taken.fetch_add(1, Ordering::SeqCst);
                        });
                        continue;
                    }
                    let left = pool.left.lock().unwrap();
                    let (mut left, result) = pool.grown.wait_timeout_while(left, limit, |left| *left == 0).unwrap();
                    if !result.timed_out() {
                        *left -= 1;
                        taken.fetch_add(1, Ordering::SeqCst);
                    }
                }
                gone.fetch_add(1, Ordering::SeqCst);
            });
        }
        // One that just waits: if a notification is lost while an item is there, it never comes back.
        let (theirs, counts) = (pool.clone(), taken.clone());
        crew.hire(move || {
            for _ in 0..20 {
                theirs.take();
                counts.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut put = 0;
        let enough = || gone.load(Ordering::SeqCst) == TAKERS;
        while !enough() {
            pool.put(1);
            put += 1;
            if rng.below(8) == 0 {
                std::thread::sleep(Duration::from_micros(rng.below(200)));
            }
            assert!(put < 10_000_000, "seed {seed}: takers starve");
        }
        pool.put(20);
        put += 20;
        crew.all();
        assert_eq!(taken.load(Ordering::SeqCst) + *pool.left.lock().unwrap(), put, "seed {seed}: items lost");
    }
}

#[test]
fn one_condition_variable_serves_two_mutexes() {
    let rt = runtime(1);
    rt.block_on(|| {
        let state = Arc::new((Mutex::new(1), Mutex::new(2), Condvar::new()));
        let (a, b) = (state.clone(), state.clone());
        let first = coro::spawn(move || *a.2.wait(a.0.lock().unwrap()).unwrap());
        until_parked(first.task(), "condvar");
        let second = coro::spawn(move || *b.2.wait(b.1.lock().unwrap()).unwrap());
        until_parked(second.task(), "condvar");
        state.2.notify_all();
        assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 2));
    });
}

#[test]
fn a_wait_says_what_it_waits_for() {
    let rt = runtime(1);
    rt.block_on(|| {
        let (line, state) = (line!(), Arc::new((Mutex::new(()), Condvar::new().named("ready"))));
        let theirs = state.clone();
        let t = coro::spawn(move || drop(theirs.1.wait(theirs.0.lock().unwrap())));
        until_parked(t.task(), "condvar");
        let seen = coro::where_is(t.id()).unwrap().wait;
        let at = format!("{}:{line}", file!());
        assert_eq!(seen, format!("condvar \"ready\" {at} (with lock {at}; never notified)"));
        state.1.notify_one();
        t.join().unwrap();
    });
}

#[test]
fn a_wait_where_none_is_allowed_is_refused_before_the_mutex_is_given_up() {
    let rt = runtime(1);
    rt.block_on(|| {
        let (m, c) = (Mutex::new(0), Condvar::new());
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            coro::no_switch(|| drop(c.wait(m.lock().unwrap())));
        }));
        assert!(refused.is_err());
        assert!(m.is_poisoned(), "a panic under the guard poisons");
        assert!(matches!(m.try_lock(), Err(coro::sync::TryLockError::Poisoned(_))), "the mutex was not given up");
    });
}

#[test]
fn a_poisoned_mutex_is_told_after_the_wait() {
    for place in PLACES {
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let mut crew = Crew::at(place);
        let (waits, panics) = (state.clone(), state.clone());
        crew.hire(move || {
            let mut ready = waits.0.lock().unwrap();
            loop {
                match waits.1.wait_timeout(ready, LONG) {
                    Ok((again, result)) => {
                        assert!(!result.timed_out());
                        ready = again;
                    }
                    Err(e) => return assert!(*e.into_inner().0),
                }
            }
        });
        crew.hire(move || {
            let mut ready = panics.0.lock().unwrap_or_else(|e| e.into_inner());
            *ready = true;
            panics.1.notify_all();
            std::panic::resume_unwind(Box::new("poisons"));
        });
        let mut ended = crew.ended().into_iter();
        // If the panic was first, the waiter's `lock` says so already.
        let waiter = ended.next().unwrap();
        assert!(waiter.is_ok() || state.0.is_poisoned());
        assert!(ended.next().unwrap().is_err() && state.0.is_poisoned(), "{place:?}");
    }
}
