//! Circles of tasks that wait for one another are found, and nothing else is taken for one.

mod util;

use std::sync::Arc;
use std::time::Duration;

use coro::inspect::{DeadlockKind, deadlocks, suspected_deadlocks};
use coro::sync::{Mutex, RwLock, Semaphore};
use util::{runtime, until, within};

const LIMIT: Duration = Duration::from_secs(20);

/// The circles that one of `tasks` is in. Other tests of this program may have circles of their own.
fn circles(tasks: &[u64]) -> Vec<Vec<u64>> {
    let of = |d: &coro::inspect::Deadlock| d.waits.iter().map(|w| w.task.id).collect::<Vec<_>>();
    deadlocks().iter().map(of).filter(|c| c.iter().any(|id| tasks.contains(id))).collect()
}

/// Tasks that each hold one of `n` locks and want the next.
fn ring(rt: &coro::Runtime, n: usize) -> Vec<coro::JoinHandle<()>> {
    let locks: Arc<Vec<_>> = Arc::new((0..n).map(|_| Mutex::new(()).named("ring")).collect());
    let ready = Arc::new(coro::sync::Barrier::new(n));
    (0..n)
        .map(|i| {
            let (locks, ready) = (locks.clone(), ready.clone());
            rt.spawn(move || {
                let _mine = locks[i].lock();
                ready.wait();
                let _next = locks[(i + 1) % n].lock();
            })
        })
        .collect()
}

fn release(tasks: Vec<coro::JoinHandle<()>>) {
    // The first one's end may be the others' as well.
    for t in &tasks {
        let _ = t.task().cancel_now();
    }
    tasks.into_iter().for_each(|t| drop(t.join()));
}

#[test]
fn a_circle_of_three_is_found_with_every_edge() {
    within(LIMIT, || {
        let rt = runtime(2);
        let tasks = ring(&rt, 3);
        let ids: Vec<u64> = tasks.iter().map(|t| t.id()).collect();
        let outsider = rt.spawn({
            let first = tasks[0].task();
            move || {
                while !first.is_finished() {
                    coro::sleep(Duration::from_millis(1));
                }
            }
        });
        until(LIMIT, "the circle", || !circles(&ids).is_empty());
        let found = deadlocks().into_iter().find(|d| ids.contains(&d.waits[0].task.id)).unwrap();
        assert_eq!((found.kind, found.tasks, found.behind), (DeadlockKind::Circle, 3, 0));
        for (i, w) in found.waits.iter().enumerate() {
            let at = ids.iter().position(|id| *id == w.task.id).unwrap();
            assert_eq!(w.holder, ids[(at + 1) % 3]);
            assert_eq!(found.waits[(i + 1) % 3].task.id, w.holder);
            assert!(w.task.stack.contains("deadlocks.rs"), "{}", w.task.stack);
            assert!(w.task.wait.contains(&format!("held by #{}", w.holder)), "{}", w.task.wait);
        }
        let text = found.to_string();
        assert!(text.starts_with("deadlock: 3 tasks wait for one another\n  #"), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
        release(tasks);
        outsider.join().unwrap();
        assert!(circles(&ids).is_empty());
    });
}

#[test]
fn who_waits_behind_a_circle_is_counted_but_not_in_it() {
    within(LIMIT, || {
        let rt = runtime(1);
        let tasks = ring(&rt, 2);
        let ids: Vec<u64> = tasks.iter().map(|t| t.id()).collect();
        let mut tasks = tasks.into_iter();
        let (first, second) = (tasks.next().unwrap(), tasks.next().unwrap());
        let cancel = [first.task(), second.task()];
        let joiner = rt.spawn(move || drop(first.join()));
        let joins_joiner = rt.spawn(move || drop(joiner.join()));
        until(LIMIT, "both to wait behind it", || {
            deadlocks().iter().any(|d| ids.contains(&d.waits[0].task.id) && d.tasks == 2 && d.behind == 2)
        });
        for t in &cancel {
            let _ = t.cancel_now();
        }
        drop(second.join());
        joins_joiner.join().unwrap();
    });
}

#[test]
fn joins_scopes_and_a_lock_of_ones_own_make_circles_as_well() {
    within(LIMIT, || {
        let rt = runtime(1);
        // A task that locks twice.
        let lock = Arc::new(Mutex::new(()));
        let twice = rt.spawn(move || {
            let _one = lock.lock();
            let _two = lock.lock();
        });
        // A scope that waits for a child, which wants the lock that the scope's task holds.
        let outer = rt.spawn(|| {
            let lock = Mutex::new(());
            let _held = lock.lock();
            coro::scope(|s| {
                s.spawn(|| drop(lock.lock()));
            });
        });
        // Two tasks that join each other.
        let (give, take) = coro::sync::mpsc::channel::<coro::JoinHandle<()>>();
        let first = rt.spawn(move || drop(take.recv().unwrap().join()));
        let id_of_first = first.id();
        let (give_first, take_first) = coro::sync::mpsc::channel::<coro::JoinHandle<()>>();
        let second = rt.spawn(move || drop(take_first.recv().unwrap().join()));
        let cancel = [twice.task(), outer.task(), first.task(), second.task()];
        let id_of_second = second.id();
        give_first.send(first).unwrap();
        give.send(second).unwrap();

        until(LIMIT, "the lock of its own", || circles(&[twice.id()]) == [[twice.id()]]);
        until(LIMIT, "the scope", || circles(&[outer.id()]).iter().any(|c| c.len() == 2));
        until(LIMIT, "the joins", || circles(&[id_of_first]).iter().any(|c| c.len() == 2 && c.contains(&id_of_second)));
        for t in &cancel {
            let _ = t.cancel_now();
        }
        drop(twice.join());
        drop(outer.join());
    });
}

#[test]
fn a_circle_with_a_time_limit_is_only_suspected() {
    within(LIMIT, || {
        let rt = runtime(1);
        let lock = Arc::new(Mutex::new(()));
        let limited = rt.spawn(move || {
            let _one = lock.lock();
            let _ = coro::timeout(Duration::from_secs(3600), || drop(lock.lock()));
        });
        let is_mine = |d: &coro::inspect::Deadlock| d.waits[0].task.id == limited.id();
        until(LIMIT, "the suspicion", || suspected_deadlocks().iter().any(is_mine));
        let found = suspected_deadlocks().into_iter().find(is_mine).unwrap();
        assert_eq!((found.kind, found.waits[0].limited), (DeadlockKind::Suspected, true));
        assert!(circles(&[limited.id()]).is_empty());
        release(vec![limited]);
    });
}

#[test]
fn a_writer_and_a_reader_that_want_each_others_locks_are_a_circle() {
    within(LIMIT, || {
        let rt = runtime(2);
        let (a, b) = (Arc::new(RwLock::new(()).named("read by two")), Arc::new(Mutex::new(())));
        let ready = Arc::new(coro::sync::Barrier::new(3));
        // It reads as well, but waits for nobody.
        let bystander = rt.spawn({
            let (a, ready) = (a.clone(), ready.clone());
            move || {
                let _read = a.read();
                ready.wait();
                coro::sleep(Duration::from_secs(3600));
            }
        });
        let reader = rt.spawn({
            let (a, b, ready) = (a.clone(), b.clone(), ready.clone());
            move || {
                let _read = a.read();
                ready.wait();
                let _lock = b.lock();
            }
        });
        let writer = rt.spawn(move || {
            let _lock = b.lock();
            ready.wait();
            let _write = a.write();
        });
        until(LIMIT, "the circle through a lock held for reading", || {
            circles(&[reader.id()]).iter().any(|c| c.len() == 2 && c.contains(&writer.id()))
        });
        let found = deadlocks().into_iter().find(|d| d.waits.iter().any(|w| w.task.id == writer.id())).unwrap();
        assert_eq!(found.kind, DeadlockKind::Circle);
        let edge = found.waits.iter().find(|w| w.task.id == writer.id()).unwrap();
        assert_eq!(edge.holder, reader.id());
        assert!(edge.task.wait.starts_with("write lock \"read by two\" tests/deadlocks.rs:"), "{}", edge.task.wait);
        assert!(edge.task.wait.contains(" read-held by 2 (#"), "{}", edge.task.wait);
        release(vec![reader, writer, bystander]);
    });
}

/// The circle that one of `tasks` is in, as one suspects it; never found unasked.
fn suspicion(tasks: &[u64], size: usize) -> coro::inspect::Deadlock {
    let mine = |d: &coro::inspect::Deadlock| d.tasks == size && d.waits.iter().all(|w| tasks.contains(&w.task.id));
    until(LIMIT, "the suspicion", || suspected_deadlocks().iter().any(mine));
    let found = suspected_deadlocks().into_iter().find(mine).expect("nobody can open it");
    assert_eq!(found.kind, DeadlockKind::Suspected);
    assert_eq!(circles(tasks), Vec::<Vec<u64>>::new());
    for (i, w) in found.waits.iter().enumerate() {
        assert_eq!(w.holder, found.waits[(i + 1) % size].task.id);
        assert!(w.task.stack.contains("deadlocks.rs"), "{}", w.task.stack);
        assert!(w.task.wait.contains(&format!(" by #{}", w.holder)), "{}", w.task.wait);
    }
    found
}

#[test]
fn circles_over_semaphores_are_shown_when_asked_for() {
    within(LIMIT, || {
        let rt = runtime(2);
        let both: Arc<[Semaphore; 2]> = Arc::new([Semaphore::new(1), Semaphore::new(1)]);
        let ready = Arc::new(coro::sync::Barrier::new(2));
        let tasks: Vec<_> = (0..2)
            .map(|i| {
                let (both, ready) = (both.clone(), ready.clone());
                rt.spawn(move || {
                    let _mine = both[i].acquire();
                    ready.wait();
                    let _other = both[1 - i].acquire();
                })
            })
            .collect();
        let ids: Vec<u64> = tasks.iter().map(|t| t.id()).collect();
        let found = suspicion(&ids, 2);
        let text = found.to_string();
        assert!(text.starts_with("suspected deadlock: 2 tasks seem to wait for one another\n  #"), "{text}");
        assert!(text.contains("semaphore tests/deadlocks.rs:"), "{text}");
        release(tasks);
    });
}

#[test]
fn circles_over_channels_are_shown_when_asked_for() {
    within(LIMIT, || {
        let rt = runtime(2);
        // Each has answered once and waits for the other to ask again.
        let (to_a, from_b) = coro::sync::mpsc::channel::<u8>();
        let (to_b, from_a) = coro::sync::mpsc::channel::<u8>();
        let a = rt.spawn(move || {
            to_b.send(1).unwrap();
            from_b.recv().unwrap();
            let _ = from_b.recv();
        });
        let b = rt.spawn(move || {
            to_a.send(1).unwrap();
            from_a.recv().unwrap();
            let _ = from_a.recv();
        });
        let found = suspicion(&[a.id(), b.id()], 2);
        assert!(found.waits.iter().all(|w| w.task.wait.starts_with("recv channel ")), "{found}");

        // The queue is full, and whoever could empty it wants the lock of the one that waits for room.
        let (send, receive) = coro::sync::mpsc::sync_channel::<u8>(1);
        let lock = Arc::new(Mutex::new(()));
        let has_lock = Arc::new(coro::sync::Event::new());
        let receiver = rt.spawn({
            let (lock, has_lock) = (lock.clone(), has_lock.clone());
            move || {
                receive.recv().unwrap();
                has_lock.wait();
                let _lock = lock.lock();
                let _ = receive.recv();
            }
        });
        let sender = rt.spawn(move || {
            let _lock = lock.lock();
            while send.send(1).is_ok() {
                has_lock.set();
            }
        });
        let found = suspicion(&[sender.id(), receiver.id()], 2);
        let full = found.waits.iter().find(|w| w.task.id == sender.id()).unwrap();
        assert!(full.task.wait.contains("1 of 1 message; last recv by #"), "{}", full.task.wait);
        release(vec![a, b, sender, receiver]);
    });
}

#[test]
fn a_wait_with_a_limit_of_its_own_is_no_deadlock() {
    within(LIMIT, || {
        let rt = runtime(1);
        let lock = Arc::new(Semaphore::new(1));
        let limited = rt.spawn(move || {
            let _one = lock.acquire();
            drop(lock.acquire_timeout(Duration::from_secs(3600)));
        });
        let found = suspicion(&[limited.id()], 1);
        assert!(found.waits[0].limited);
        let text = found.to_string();
        assert!(text.starts_with("suspected deadlock: a task seems to wait for itself\n  #"), "{text}");
        assert!(text.contains("(a time limit will end this wait)"), "{text}");
        release(vec![limited]);
    });
}

#[test]
fn tasks_that_answer_each_other_are_not_suspected() {
    within(LIMIT, || {
        let rt = runtime(2);
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (to_a, from_b) = coro::sync::mpsc::channel::<u8>();
        let (to_b, from_a) = coro::sync::mpsc::channel::<u8>();
        let a = rt.spawn({
            let stop = stop.clone();
            move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) && to_b.send(1).is_ok() {
                    let _ = from_b.recv();
                }
            }
        });
        let b = rt.spawn(move || {
            while from_a.recv().is_ok() {
                let _ = to_a.send(1);
            }
        });
        let ids = [a.id(), b.id()];
        let end = std::time::Instant::now() + Duration::from_millis(500);
        let mut looks = 0;
        while std::time::Instant::now() < end {
            let found = suspected_deadlocks();
            let mine = found.iter().find(|d| d.waits.iter().any(|w| ids.contains(&w.task.id)));
            assert!(mine.is_none(), "after {looks} looks: {}", mine.unwrap());
            looks += 1;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        a.join().unwrap();
        b.join().unwrap();
        assert!(looks > 10);
    });
}

#[test]
fn busy_locks_are_never_taken_for_a_circle() {
    within(LIMIT, || {
        let rt = runtime(2);
        let locks: Arc<Vec<_>> = Arc::new((0..4).map(|_| Mutex::new(0u64)).collect());
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let tasks: Vec<_> = (0..40usize)
            .map(|i| {
                let (locks, stop) = (locks.clone(), stop.clone());
                rt.spawn(move || {
                    let (low, high) = (i % 3, i % 3 + 1);
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let mut one = locks[low].lock().unwrap();
                        coro::yield_slice();
                        *locks[high].lock().unwrap() += 1;
                        *one += 1;
                    }
                })
            })
            .collect();
        let ids: Vec<u64> = tasks.iter().map(|t| t.id()).collect();
        let end = std::time::Instant::now() + Duration::from_secs(1);
        let mut looks = 0;
        while std::time::Instant::now() < end {
            assert_eq!(circles(&ids), Vec::<Vec<u64>>::new(), "after {looks} looks");
            looks += 1;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        tasks.into_iter().for_each(|t| t.join().unwrap());
        assert!(looks > 10);
    });
}

#[test]
fn a_great_many_circles_are_found_and_a_bounded_number_described() {
    const NAME: &str = "a_great_many_circles_are_found_and_a_bounded_number_described";
    // In a process of its own: the other tests' circles would not be among those described.
    if util::role().is_none() {
        util::passes(NAME, "many", LIMIT);
        return;
    }
    within(LIMIT, || {
        let rt = runtime(2);
        let large = ring(&rt, 5000);
        let mut tasks: Vec<_> = (0..2000).flat_map(|_| ring(&rt, 2)).collect();
        let is_large = |d: &coro::inspect::Deadlock| d.tasks == 5000;
        until(LIMIT, "the circles", || {
            let found = deadlocks();
            assert!(found.len() <= 33 && found.iter().all(|d| d.waits.len() <= 32), "{} circles", found.len());
            found.iter().filter(|d| d.kind == DeadlockKind::Circle).count() == 32 && found.iter().any(is_large)
        });
        let text = deadlocks().iter().find(|d| is_large(d)).expect("nobody can open it").to_string();
        assert!(text.starts_with("deadlock: 5000 tasks wait for one another\n  #"), "{text}");
        assert!(text.ends_with("\n  and 4968 more\n"), "{text}");
        assert_eq!(text.lines().count(), 34, "{text}");
        tasks.extend(large);
        release(tasks);
    });
}

#[test]
fn a_circle_is_found_although_it_hangs_together_with_one_that_a_time_limit_opens() {
    within(LIMIT, || {
        let rt = runtime(1);
        let (a, b) = (Arc::new(RwLock::new(())), Arc::new(Mutex::new(())));
        let ready = Arc::new(coro::sync::Barrier::new(8));
        // Whichever of the readers the search comes to first.
        let readers: Vec<_> = (0..7)
            .map(|i| {
                let (a, b, ready) = (a.clone(), b.clone(), ready.clone());
                rt.spawn(move || {
                    let _read = a.read();
                    ready.wait();
                    if i == 3 {
                        drop(b.lock());
                    } else {
                        let _ = coro::timeout(Duration::from_secs(3600), || drop(b.lock()));
                    }
                })
            })
            .collect();
        let writer = rt.spawn(move || {
            let _lock = b.lock();
            ready.wait();
            let _write = a.write();
        });
        let mut both = [readers[3].id(), writer.id()];
        both.sort_unstable();
        until(LIMIT, "the certain one of the circles", || {
            circles(&both).into_iter().any(|mut c| {
                c.sort_unstable();
                c == both
            })
        });
        release(readers.into_iter().chain([writer]).collect());
    });
}

#[test]
fn a_guard_that_may_have_gone_to_a_local_task_makes_no_certain_circle() {
    within(LIMIT, || {
        let rt = runtime(1);
        let go = Arc::new(coro::sync::Event::new());
        // Its guard goes to a task of its own, which gives it up later.
        let giver = rt.spawn({
            let go = go.clone();
            move || {
                let lock: &'static Mutex<()> = Box::leak(Box::new(Mutex::new(())));
                let guard = lock.lock();
                let heir = coro::spawn_local(move || {
                    go.wait();
                    drop(guard);
                });
                drop(lock.lock());
                heir.join().unwrap();
            }
        });
        let found = suspicion(&[giver.id()], 1);
        assert!(found.to_string().starts_with("suspected deadlock: a task seems to wait for itself\n"), "{found}");
        go.set();
        giver.join().unwrap();
        // Here both of its tasks want the lock themselves, and nobody is left who could open the circle.
        let keeper = rt.spawn(|| {
            let lock: &'static Mutex<()> = Box::leak(Box::new(Mutex::new(())));
            let _guard = lock.lock();
            let both = [(); 2].map(|()| coro::spawn_local(move || drop(lock.lock())));
            both.into_iter().for_each(|task| drop(task.join()));
        });
        until(LIMIT, "the circle with a task of its own", || circles(&[keeper.id()]).iter().any(|c| c.len() == 2));
        release(vec![keeper]);
    });
}
