//! Read-write locks, reentrant locks, and the mutex where other tasks share the thread: exclusion, order, cancellation,
//! poison by the task's own unwinding.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use coro::sync::{Mutex, ReentrantLock, RwLock, RwLockWriteGuard, mpsc};

use crate::crew::{Crew, PLACES};
use crate::harness::{Rng, runtime, seed, task_until, until, until_parked};

const LONG: Duration = Duration::from_secs(1000);

/// Two numbers that are equal whenever nobody writes.
type Pair = Arc<RwLock<(u64, u64)>>;

fn pair() -> Pair {
    Arc::new(RwLock::new((0, 0)))
}

fn read(l: &Pair) -> u64 {
    let p = l.read().unwrap();
    let first = p.0;
    coro::yield_slice();
    assert_eq!((first, first), *p, "somebody wrote under a reader");
    first
}

fn write(l: &Pair) {
    let mut p = l.write().unwrap();
    p.0 += 1;
    coro::yield_slice();
    p.1 += 1;
    assert_eq!(p.0, p.1, "two wrote at once");
}

#[test]
fn readers_and_writers_exclude_each_other() {
    for place in PLACES {
        let l = pair();
        let mut crew = Crew::at(place);
        for i in 0..24u32 {
            let l = l.clone();
            crew.hire(move || {
                for _ in 0..50 {
                    if i % 3 == 0 {
                        write(&l);
                    } else {
                        read(&l);
                    }
                }
            });
        }
        crew.all();
        assert_eq!(*l.read().unwrap(), (400, 400), "{place:?}");
    }
}

#[test]
fn readers_read_together() {
    for place in PLACES {
        let (l, inside) = (pair(), Arc::new(AtomicU32::new(0)));
        let mut crew = Crew::at(place);
        for _ in 0..20 {
            let (l, inside) = (l.clone(), inside.clone());
            crew.hire(move || {
                let _guard = l.read().unwrap();
                inside.fetch_add(1, Ordering::SeqCst);
                // Nobody leaves before all are in.
                while inside.load(Ordering::SeqCst) < 20 {
                    coro::sleep(Duration::from_millis(1));
                }
            });
        }
        crew.all();
    }
}

/// Who comes first is served first, readers beside each other together, and nobody overtakes.
#[test]
fn the_line_is_served_in_order() {
    let rt = runtime(1);
    rt.block_on(|| {
        let (l, order) = (pair(), Arc::new(StdMutex::new(Vec::new())));
        let held = l.write().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let mut tasks = Vec::new();
        for i in 0..1000u32 {
            let (l, order, asks) = (l.clone(), order.clone(), asked.clone());
            let writes = i % 10 == 9;
            let t = coro::spawn(move || {
                asks.fetch_add(1, Ordering::SeqCst);
                if writes {
                    let _guard = l.write().unwrap();
                    order.lock().unwrap().push(i);
                } else {
                    let _guard = l.read().unwrap();
                    order.lock().unwrap().push(i);
                }
            });
            // There is one worker: this task runs again when that one waits.
            task_until("it asks", || asked.load(Ordering::SeqCst) == i + 1);
            tasks.push(t);
        }
        drop(held);
        assert!(l.try_read().is_err() && l.try_write().is_err(), "a newcomer does not overtake the line");
        tasks.into_iter().for_each(|t| t.join().unwrap());
        let order = order.lock().unwrap();
        // Writers keep their place; the readers between two of them are there, in whatever order they ran.
        for (block, seen) in order.chunks(10).enumerate() {
            let mut seen = seen.to_vec();
            assert_eq!(seen[9], block as u32 * 10 + 9);
            seen.sort_unstable();
            assert_eq!(seen, (block as u32 * 10..block as u32 * 10 + 10).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_writer_that_gives_up_lets_the_readers_behind_it_in() {
    for workers in [1, 4] {
        runtime(workers).block_on(|| {
            let l = pair();
            let reading = l.read().unwrap();
            let l2 = l.clone();
            let writer = coro::spawn(move || write(&l2));
            until_parked(writer.task(), "write lock");
            let l2 = l.clone();
            let behind = coro::spawn(move || read(&l2));
            until_parked(behind.task(), "read lock");
            writer.cancel();
            assert!(coro::is_cancel(&*writer.join().unwrap_err()));
            assert_eq!(behind.join().unwrap(), 0, "it joins those who read");
            drop(reading);
            write(&l);
            assert!(!l.is_poisoned());
        });
    }
}

/// Whatever is cancelled or runs out of time, the lock is free in the end and every write was whole.
#[test]
fn a_storm_of_interrupts_leaves_the_lock_free() {
    let seed = seed();
    println!("seed {seed}");
    let rt = runtime(4);
    let (l, written) = (pair(), Arc::new(AtomicU32::new(0)));
    let mut rng = Rng(seed);
    let tasks: Vec<_> = (0..200)
        .map(|i| {
            let (l, written) = (l.clone(), written.clone());
            let patience = Duration::from_micros(rng.below(2000));
            rt.spawn(move || {
                for _ in 0..20 {
                    let _ = coro::timeout(patience, || match i % 4 {
                        0 => {
                            write(&l);
                            written.fetch_add(1, Ordering::SeqCst);
                        }
                        1 => {
                            let g = l.write().unwrap();
                            let g = RwLockWriteGuard::downgrade(g);
                            assert_eq!(g.0, g.1);
                        }
                        _ => drop(read(&l)),
                    });
                }
            })
        })
        .collect();
    for t in &tasks {
        if rng.below(2) == 0 {
            std::thread::sleep(Duration::from_micros(rng.below(300)));
            t.cancel();
        }
    }
    for t in tasks {
        if let Err(payload) = t.join() {
            assert!(coro::is_cancel(&*payload), "seed {seed}: {:?}", payload.downcast_ref::<String>());
        }
    }
    let p = l.try_write().unwrap_or_else(|_| panic!("seed {seed}: the lock is not free"));
    assert_eq!(p.0, p.1);
    // A write whose task was interrupted right after it is counted in the value alone.
    assert!(p.0 >= u64::from(written.load(Ordering::SeqCst)), "seed {seed}");
}

#[test]
fn a_downgraded_writer_reads_on_beside_others() {
    for place in PLACES {
        let l = pair();
        let mut writing = l.write().unwrap();
        let (tell, told) = mpsc::channel();
        let mut crew = Crew::at(place);
        for _ in 0..6 {
            let (l, tell) = (l.clone(), tell.clone());
            crew.hire(move || tell.send(read(&l)).unwrap());
        }
        writing.0 = 7;
        writing.1 = 7;
        let reading = RwLockWriteGuard::downgrade(writing);
        // They read although this guard is still held.
        (0..6).for_each(|_| assert_eq!(told.recv().unwrap(), 7));
        assert_eq!(reading.0, 7);
        drop(reading);
        crew.all();
    }
}

#[test]
fn a_waiting_writer_says_what_for_and_who_has_it() {
    runtime(2).block_on(|| {
        static CONFIG: RwLock<u32> = RwLock::new(0).named("config");
        let me = coro::current().unwrap().id();
        let held = CONFIG.write().unwrap();
        let waits = coro::spawn(|| *CONFIG.write().unwrap() += 1);
        until_parked(waits.task(), "write lock");
        let seen = coro::where_is(waits.id()).unwrap().wait;
        assert!(
            seen.starts_with("write lock \"config\" ") && seen.contains(&format!(" held by #{me} \"main\" for ")),
            "{seen}"
        );
        assert!(seen.contains("locks.rs:"), "{seen}");
        drop(held);
        waits.join().unwrap();
        assert_eq!(*CONFIG.read().unwrap(), 1);
    });
}

#[test]
fn an_interrupt_is_held_back_under_a_writer_but_not_under_a_reader() {
    runtime(2).block_on(|| {
        let l = pair();
        let l2 = l.clone();
        let asked = Arc::new(AtomicBool::new(false));
        let a = asked.clone();
        let writer = coro::spawn(move || {
            let mut p = l2.write().unwrap();
            p.0 = 1;
            // Not an I/O call: nothing to return an error from, and no unwind while the value is half changed.
            while !a.load(Ordering::SeqCst) {
                coro::sleep(Duration::from_millis(20));
            }
            coro::sleep(Duration::from_millis(1));
            p.1 = 1;
        });
        until_parked(writer.task(), "sleep");
        writer.cancel();
        asked.store(true, Ordering::SeqCst);
        let _ = writer.join();
        assert_eq!(*l.read().expect("no poison"), (1, 1));
        let l2 = l.clone();
        let reader = coro::spawn(move || {
            let _p = l2.read().unwrap();
            coro::sleep(LONG);
        });
        until_parked(reader.task(), "sleep");
        reader.cancel();
        assert!(coro::is_cancel(&*reader.join().unwrap_err()));
        assert!(l.try_write().is_ok(), "its guard was dropped, and readers do not poison");
        let l2 = l.clone();
        let forced = coro::spawn(move || {
            let _p = l2.write().unwrap();
            coro::sleep(LONG);
        });
        until_parked(forced.task(), "sleep");
        forced.task().cancel_now();
        assert!(forced.join().is_err());
        assert!(l.is_poisoned() && l.read().is_err() && l.write().is_err());
        l.clear_poison();
        assert!(l.write().is_ok());
    });
}

/// Of those who wait one at a time is woken. If its worker is stuck, the next one is woken before long, also if whoever has the
/// lock meanwhile never finds it taken.
#[test]
fn a_woken_waiter_of_a_stuck_worker_does_not_keep_the_others_waiting() {
    runtime(2).block_on(|| {
        let m = Arc::new(Mutex::new(0));
        let here = coro::current_worker().unwrap();
        let waiter = |worker: usize| {
            let m = m.clone();
            let waits = coro::Builder::new().worker(worker).spawn(move || *m.lock().unwrap() += 1).unwrap();
            until_parked(waits.task(), "lock");
            waits
        };
        let held = m.lock().unwrap();
        let (first, second) = (waiter(1 - here), waiter(here));
        let (stuck, released) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stuck2, released2) = (stuck.clone(), released.clone());
        let sticks = move || {
            stuck2.store(true, Ordering::SeqCst);
            while !released2.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let blocks = coro::Builder::new().worker(1 - here).spawn(sticks).unwrap();
        until("the other worker is stuck", || stuck.load(Ordering::SeqCst));
        drop(held);
        task_until("the second has its turn", || {
            drop(m.lock().unwrap());
            second.is_finished()
        });
        assert!(!first.is_finished(), "its worker is stuck");
        released.store(true, Ordering::SeqCst);
        [first, second, blocks].into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(*m.lock().unwrap(), 2);
    });
}

/// std judges by the thread: a lock used by one task while another one of the same worker waits in the middle of its
/// unwinding would be poisoned, and a panic under such a lock would not poison.
#[test]
fn poison_is_judged_by_the_tasks_own_unwinding() {
    struct Waits(mpsc::Receiver<()>);
    impl Drop for Waits {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }
    runtime(1).block_on(|| {
        let (go_on, told) = mpsc::channel();
        let unwinds = coro::spawn(move || {
            let _waits = Waits(told);
            std::panic::resume_unwind(Box::new("first"));
        });
        until_parked(unwinds.task(), "recv");
        // From here on `std::thread::panicking()` says yes on this thread.
        assert!(std::thread::panicking() && !coro::thread::panicking());
        let (m, l) = (Mutex::new(1), RwLock::new(1));
        *m.lock().unwrap() += 1;
        *l.write().unwrap() += 1;
        assert!(!m.is_poisoned() && !l.is_poisoned(), "a neighbour's unwinding is no poison");
        go_on.send(()).unwrap();
        assert!(unwinds.join().is_err());
        for own in [true, false] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let _m = m.lock().unwrap();
                let _l = l.write().unwrap();
                if own {
                    std::panic::resume_unwind(Box::new("second"));
                }
            }));
            assert_eq!(caught.is_err(), own);
            assert_eq!((m.is_poisoned(), l.is_poisoned()), (own, own));
            m.clear_poison();
            l.clear_poison();
        }
    });
}

/// Held across a wait, the lock belongs to the task and not to the worker that both share.
#[test]
fn a_lock_held_across_a_wait_is_keyed_by_task() {
    runtime(1).block_on(|| {
        let m = Arc::new(Mutex::new(0));
        let r = Arc::new(ReentrantLock::new(AtomicU32::new(0)));
        let (m2, r2) = (m.clone(), r.clone());
        let held = m.lock().unwrap();
        let (outer, inner) = (r.lock(), r.lock());
        let other = coro::spawn(move || {
            *m2.lock().unwrap() += 1;
            assert!(r2.try_lock().is_none(), "the other task of this thread has it");
            r2.lock().fetch_add(1, Ordering::SeqCst);
        });
        until_parked(other.task(), "lock");
        drop(held);
        until("the other one has had the mutex", || {
            coro::yield_slice();
            m.try_lock().is_ok_and(|m| *m == 1)
        });
        drop(inner);
        until_parked(other.task(), "lock");
        assert_eq!(outer.load(Ordering::SeqCst), 0);
        drop(outer);
        other.join().unwrap();
        assert_eq!(r.lock().load(Ordering::SeqCst), 1);
    });
}

/// A loop around a `try_` gives the holder, a task of the same worker, its turn.
#[test]
fn trying_in_a_loop_lets_the_holder_go_on() {
    fn hold<G>(take: impl FnOnce() -> G + Send + 'static) {
        let holder = coro::spawn(move || {
            let _held = take();
            coro::sleep(Duration::from_millis(2));
        });
        until_parked(holder.task(), "sleep");
    }
    runtime(1).block_on(|| {
        static M: Mutex<()> = Mutex::new(());
        static L: RwLock<()> = RwLock::new(());
        static R: ReentrantLock<()> = ReentrantLock::new(());
        static S: coro::sync::Semaphore = coro::sync::Semaphore::new(1);
        static N: coro::sync::nonpoison::Mutex<()> = coro::sync::nonpoison::Mutex::new(());
        hold(|| M.lock());
        while M.try_lock().is_err() {}
        hold(|| L.write());
        while L.try_read().is_err() {}
        hold(|| L.read());
        while L.try_write().is_err() {}
        hold(|| R.lock());
        while R.try_lock().is_none() {}
        hold(|| S.acquire());
        while S.try_acquire().is_none() {}
        hold(|| N.lock());
        while N.try_lock().is_err() {}
    });
}
