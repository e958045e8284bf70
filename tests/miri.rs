//! The layers above the switch, small enough for an interpreter: `.ci/miri` runs this file under Miri, where tasks are
//! backed by threads; `cargo test` runs it on the real switch.
//!
//! Every test takes few tasks and states what must hold, not how long it may take.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coro::Runtime;
use coro::sync::{Barrier, Event, LazyLock, Mutex, Once, OnceLock, Semaphore, WaitGroup, mpmc, mpsc, oneshot};

const HOUR: Duration = Duration::from_secs(3600);

/// Runs `f` as the first task of a runtime with so many workers, and ends that runtime.
fn with_workers<T: Send>(n: usize, f: impl FnOnce() -> T + Send) -> T {
    let runtime = Runtime::builder().workers(n).build().unwrap();
    let value = runtime.block_on(f);
    assert!(runtime.shut_down(Duration::from_secs(60)), "tasks were left behind");
    value
}

/// Counts its drops.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn results_large_and_small_come_back() {
    with_workers(2, || {
        let small: Vec<_> = (0..4u8).map(|i| coro::spawn(move || i)).collect();
        let large: Vec<_> = (0..4u64).map(|i| coro::spawn(move || ([i; 16], format!("{i}")))).collect();
        for (i, t) in small.into_iter().enumerate() {
            assert_eq!(usize::from(t.join().unwrap()), i);
        }
        for (i, t) in large.into_iter().enumerate() {
            let (array, text) = t.join().unwrap();
            assert_eq!((array[15], text), (i as u64, i.to_string()));
        }
    });
}

#[test]
fn tasks_of_one_worker_take_turns() {
    let log = with_workers(1, || {
        let log = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..3)
            .map(|i| {
                let log = log.clone();
                coro::spawn(move || {
                    for turn in 0..3 {
                        log.lock().unwrap().push((turn, i));
                        coro::yield_slice();
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
        Arc::try_unwrap(log).unwrap().into_inner().unwrap()
    });
    for i in 0..3 {
        let turns: Vec<_> = log.iter().filter(|l| l.1 == i).map(|l| l.0).collect();
        assert_eq!(turns, [0, 1, 2]);
    }
}

#[test]
fn what_is_not_send_lives_across_waits() {
    with_workers(2, || {
        let shared = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..3)
            .map(|i| {
                let shared = Rc::clone(&shared);
                coro::spawn_local(move || {
                    shared.borrow_mut().push(i);
                    coro::yield_slice();
                    shared.borrow_mut().push(i + 10);
                    Rc::strong_count(&shared)
                })
            })
            .collect();
        for t in tasks {
            assert!(t.join().unwrap() >= 1);
        }
        let mut all = shared.borrow().clone();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 10, 11, 12]);
        assert_eq!(Rc::strong_count(&shared), 1);
    });
}

#[test]
fn a_mutex_is_held_by_one_across_waits() {
    let total = with_workers(2, || {
        let m = Arc::new(Mutex::new(0));
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let m = m.clone();
                coro::spawn(move || {
                    for _ in 0..3 {
                        let mut guard = m.lock().unwrap();
                        let before = *guard;
                        coro::yield_slice();
                        *guard = before + 1;
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());

        *m.lock().unwrap()
    });
    assert_eq!(total, 12);
}

#[test]
fn a_cancelled_locker_leaves_the_line() {
    with_workers(1, || {
        let m = Arc::new(Mutex::new(()));
        let held = m.lock().unwrap();
        let [first, second] = [(); 2].map(|()| {
            let m = m.clone();
            coro::spawn(move || drop(m.lock().unwrap()))
        });
        coro::yield_slice();
        coro::yield_slice();
        first.cancel();
        assert!(coro::is_cancel(&*first.join().unwrap_err()));
        drop(held);
        second.join().unwrap();
        assert!(!m.is_poisoned());
    });
}

#[test]
fn channels_of_every_capacity_carry_everything_in_order() {
    for bound in [None, Some(0), Some(1), Some(3)] {
        let got = with_workers(2, move || match bound {
            None => {
                let (tx, rx) = mpsc::channel();
                coro::spawn(move || (0..6).for_each(|i| tx.send(Box::new(i)).unwrap()));
                rx.iter().map(|b| *b).collect::<Vec<_>>()
            }
            Some(n) => {
                let (tx, rx) = mpsc::sync_channel(n);
                coro::spawn(move || (0..6).for_each(|i| tx.send(Box::new(i)).unwrap()));
                rx.iter().map(|b| *b).collect()
            }
        });
        assert_eq!(got, [0, 1, 2, 3, 4, 5], "{bound:?}");
    }
}

#[test]
fn a_cancelled_receiver_loses_no_message() {
    with_workers(1, || {
        let (tx, rx) = mpsc::channel();
        let rx = Arc::new(Mutex::new(rx));
        let rx2 = rx.clone();
        let waiting = coro::spawn(move || {
            // Under `cancel_now` a guard is no protection.
            rx2.lock().unwrap_or_else(|e| e.into_inner()).recv()
        });
        coro::yield_slice();
        coro::yield_slice();
        waiting.task().cancel_now();
        tx.send(7).unwrap();
        let first = waiting.join();
        let rest = rx.lock().unwrap_or_else(|e| e.into_inner()).try_recv();
        match first {
            Ok(received) => assert_eq!(received, Ok(7)),
            Err(payload) => {
                assert!(coro::is_cancel(&*payload));
                assert_eq!(rest, Ok(7), "the message is neither received nor there");
            }
        }
    });
}

#[test]
fn messages_go_from_hand_to_hand_between_a_task_and_a_thread_or_come_back_in_time() {
    let (tx, rx) = mpmc::sync_channel::<Box<u32>>(0);
    let short = Duration::from_millis(2);
    let rx2 = rx.clone();
    let thread = std::thread::spawn(move || (0..3).map(|_| *rx2.recv().unwrap()).collect::<Vec<_>>());
    let (got, reply) = with_workers(2, move || {
        (0..3).for_each(|i| tx.send(Box::new(i)).unwrap());
        let got = thread.join().unwrap();
        let Err(mpmc::SendTimeoutError::Timeout(back)) = tx.send_timeout(Box::new(9), short) else { panic!() };
        assert_eq!(*back, 9);
        assert_eq!(rx.recv_timeout(short), Err(mpmc::RecvTimeoutError::Timeout));
        let (reply, answer) = oneshot::channel::<Box<u32>>();
        let Err(oneshot::RecvTimeoutError::Timeout(answer)) = answer.recv_timeout(short) else { panic!() };
        let asked = coro::spawn(move || answer.recv().map(|b| *b));
        coro::yield_slice();
        reply.send(Box::new(7)).unwrap();
        (got, asked.join().unwrap())
    });
    assert_eq!((got, reply), (vec![0, 1, 2], Ok(7)));
}

#[test]
fn dropped_ends_of_a_channel_drop_what_lies_in_it() {
    let drops = Arc::new(AtomicUsize::new(0));
    let d = drops.clone();
    with_workers(1, move || {
        let (tx, rx) = mpsc::channel();
        for _ in 0..3 {
            tx.send(Counted(d.clone())).unwrap();
        }
        drop(rx.recv().unwrap());
        drop(rx);
        assert!(tx.send(Counted(d.clone())).is_err());
    });
    assert_eq!(drops.load(Ordering::Relaxed), 4);
}

#[test]
fn sleeps_end_in_order_and_limits_nest() {
    with_workers(1, || {
        let (tx, rx) = mpsc::channel();
        for ms in [30, 10, 20] {
            let tx = tx.clone();
            coro::spawn(move || {
                coro::sleep(Duration::from_millis(ms));
                tx.send(ms).unwrap();
            });
        }
        drop(tx);
        let order: Vec<_> = rx.iter().collect();
        assert_eq!(order.len(), 3);

        let outer = coro::timeout(Duration::from_millis(5), || {
            let inner = coro::timeout(HOUR, || coro::sleep(HOUR));
            unreachable!("the inner limit took the outer one's expiry: {inner:?}")
        });
        assert_eq!(outer.unwrap_err().into_value(), None::<()>);
        let inner = coro::timeout(HOUR, || coro::timeout(Duration::ZERO, || coro::sleep(HOUR)).is_err());
        assert_eq!(inner, Ok(true));
        assert_eq!(coro::timeout(HOUR, || 3), Ok(3));
    });
}

#[test]
fn a_timer_is_taken_out_of_the_middle() {
    with_workers(1, || {
        let sleepers: Vec<_> = (0..5).map(|_| coro::spawn(|| coro::sleep(HOUR))).collect();
        coro::yield_slice();
        coro::yield_slice();
        for i in [2, 0, 4, 1, 3] {
            sleepers[i].cancel();
        }
        for s in sleepers {
            assert!(coro::is_cancel(&*s.join().unwrap_err()));
        }
    });
}

#[test]
fn cancellation_unwinds_and_cannot_be_swallowed() {
    let drops = Arc::new(AtomicUsize::new(0));
    let d = drops.clone();
    with_workers(1, move || {
        let task = coro::spawn(move || {
            let _first = Counted(d.clone());
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let _second = Counted(d.clone());
                coro::sleep(HOUR);
            }));
            assert!(coro::is_cancel(&*caught.unwrap_err()));
            coro::sleep(HOUR);
        });
        coro::yield_slice();
        task.cancel();
        assert!(coro::is_cancel(&*task.join().unwrap_err()));
    });
    assert_eq!(drops.load(Ordering::Relaxed), 2);
}

#[test]
fn a_task_that_never_started_drops_its_closure() {
    let drops = Arc::new(AtomicUsize::new(0));
    let d = drops.clone();
    with_workers(1, move || {
        let held = [Counted(d.clone()), Counted(d)];
        let task = coro::spawn(move || drop(held));
        task.cancel();
        assert!(coro::is_cancel(&*task.join().unwrap_err()));
    });
    assert_eq!(drops.load(Ordering::Relaxed), 2);
}

#[test]
fn a_panic_is_the_joiners_and_poisons_what_it_held() {
    with_workers(1, || {
        let m = Arc::new(Mutex::new(1));
        let m2 = m.clone();
        let task = coro::spawn(move || {
            let mut guard = m2.lock().unwrap();
            *guard = 2;
            panic!("half done");
        });
        let payload: Box<dyn std::any::Any + Send> = task.join().unwrap_err();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "half done");
        assert_eq!(*m.lock().unwrap_err().into_inner(), 2);
    });
}

#[test]
fn a_scope_lends_and_waits() {
    let mut parts = [1, 2, 3];
    let sum = AtomicUsize::new(0);
    with_workers(2, || {
        let values = coro::scope(|s| {
            let handles: Vec<_> = parts
                .iter_mut()
                .map(|p| {
                    let sum = &sum;
                    s.spawn(move || {
                        coro::yield_slice();
                        *p *= 10;
                        sum.fetch_add(*p, Ordering::Relaxed);
                        vec![*p]
                    })
                })
                .collect();
            handles.into_iter().map(|h| h.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(values, [[10], [20], [30]]);
    });
    assert_eq!((parts, sum.into_inner()), ([10, 20, 30], 60));
}

#[test]
fn a_scope_whose_owner_is_cancelled_waits_for_its_children() {
    let drops = Arc::new(AtomicUsize::new(0));
    let d = drops.clone();
    with_workers(1, move || {
        let parent = coro::spawn(move || {
            let lent = Counted(d);
            coro::scope(|s| {
                for _ in 0..2 {
                    s.spawn(|| {
                        let _borrowed = &lent;
                        coro::sleep(HOUR);
                    });
                }
            });
        });
        for _ in 0..4 {
            coro::yield_slice();
        }
        parent.cancel();
        assert!(parent.join().is_err());
    });
    assert_eq!(drops.load(Ordering::Relaxed), 1);
}

#[test]
fn handles_dropped_before_and_after_the_end_free_the_result_once() {
    let drops = Arc::new(AtomicUsize::new(0));
    let d = drops.clone();
    with_workers(2, move || {
        let make = || {
            let counted = Counted(d.clone());
            coro::spawn(move || {
                coro::yield_slice();
                counted
            })
        };
        drop(make());
        let after = make();
        while !after.is_finished() {
            coro::yield_slice();
        }
        drop(after);
        drop(make().join().unwrap());
        // A joiner that is cancelled leaves the task to itself.
        let (tx, rx) = mpsc::channel();
        let slow = coro::spawn({
            let counted = Counted(d.clone());
            move || {
                rx.recv().unwrap();
                counted
            }
        });
        let joiner = coro::spawn(move || drop(slow.join()));
        coro::yield_slice();
        coro::yield_slice();
        joiner.cancel();
        let _ = joiner.join();
        let _ = tx.send(());
    });
    assert_eq!(drops.load(Ordering::Relaxed), 4);
}

#[test]
fn a_reference_to_a_task_outlives_it() {
    with_workers(1, || {
        let task = coro::spawn(coro::park).task();
        assert!(task.unpark());
        while !task.is_finished() {
            coro::yield_slice();
        }
        assert!(!task.unpark());
        task.cancel();
        let successor = coro::spawn(|| 5);
        task.cancel();
        assert_eq!(successor.join().unwrap(), 5);
    });
}

#[test]
fn plain_threads_and_tasks_wait_for_each_other() {
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let m = Arc::new(Mutex::new(0));
    let (tx, rx) = mpsc::sync_channel(0);
    let m2 = m.clone();
    let task = runtime.spawn(move || {
        for i in 0..3 {
            *m2.lock().unwrap() += 1;
            tx.send(i).unwrap();
        }
    });
    for i in 0..3 {
        assert_eq!(rx.recv(), Ok(i));
        *m.lock().unwrap() += 1;
    }
    task.join().unwrap();
    assert_eq!(*m.lock().unwrap(), 6);
}

#[test]
fn every_task_is_listed_while_it_waits_and_names_survive_its_end() {
    with_workers(2, || {
        let tasks: Vec<_> = (0..3).map(|i| coro::spawn_named(format!("sleeper {i}"), || coro::sleep(HOUR))).collect();
        let short: Vec<_> = (0..3).map(|i| coro::spawn_named(format!("short {i}"), coro::yield_slice)).collect();
        let watcher = std::thread::spawn(coro::where_all);
        let seen = coro::where_all();
        for i in 0..3 {
            assert!(seen.iter().any(|t| t.to_string().contains(&format!("sleeper {i}"))));
        }
        short.into_iter().for_each(|t| t.join().unwrap());
        tasks.iter().for_each(|t| _ = t.cancel());
        tasks.into_iter().for_each(|t| drop(t.join()));
        watcher.join().unwrap();
    });
}

/// Cells that are written by one and read by all, and waiters that leave the line in every way there is.
#[test]
fn cells_gates_and_permits() {
    with_workers(2, || {
        let cell = Arc::new((OnceLock::new(), LazyLock::new(|| Box::new(7)), Once::new()));
        let dropped = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..3)
            .map(|i| {
                let (c, d) = (cell.clone(), dropped.clone());
                coro::spawn(move || {
                    let value = c.0.get_or_init(|| (i, Counted(d))).0;
                    c.2.call_once(coro::yield_slice);
                    (value, **c.1)
                })
            })
            .collect();
        let values: Vec<_> = tasks.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(values.iter().all(|v| *v == values[0] && v.1 == 7), "{values:?}");
        drop(cell);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);

        let all = Arc::new((Event::new(), Semaphore::new(1), Arc::new(WaitGroup::new()), Barrier::new(2)));
        let held = all.1.acquire();
        let interrupted: Vec<_> = (0..4)
            .map(|i| {
                let a = all.clone();
                coro::spawn(move || match i {
                    0 => a.0.wait(),
                    1 => a.1.acquire_many(2).forget(),
                    2 => _ = a.3.wait(),
                    _ => assert!(!a.0.wait_timeout(Duration::from_millis(1))),
                })
            })
            .collect();
        coro::yield_slice();
        interrupted[..3].iter().for_each(|t| _ = t.cancel());
        assert_eq!(interrupted.into_iter().map(coro::JoinHandle::join).filter(Result::is_ok).count(), 1);
        let member = all.2.enter_owned();
        let a = all.clone();
        let through = coro::spawn(move || {
            a.0.wait();
            let leader = a.3.wait().is_leader();
            drop(a.1.acquire());
            drop(member);
            leader
        });
        all.0.set();
        let leader = all.3.wait().is_leader();
        drop(held);
        all.2.wait();
        assert_ne!(leader, through.join().unwrap());
        assert_eq!(all.1.available_permits(), 1);
    });
}

coro::thread_local! {
    static NUMBER: Cell<u32> = const { Cell::new(1) };
    static OWNED: RefCell<Option<Remembers>> = const { RefCell::new(None) };
    static LATE: RefCell<Option<Box<u32>>> = const { RefCell::new(None) };
    static NESTED: RefCell<Vec<String>> = RefCell::new(vec![NUMBER.get().to_string()]);
}

/// At the end of its task (`.1`) it finds its own key and a younger one empty for good, and makes one more value.
struct Remembers(Arc<AtomicUsize>, bool);

impl Drop for Remembers {
    fn drop(&mut self) {
        if self.1 {
            assert!(OWNED.try_with(|_| ()).is_err() && NESTED.try_with(|_| ()).is_err());
            LATE.set(Some(Box::new(3)));
        } else {
            NESTED.with_borrow_mut(|n| n.push("late".into()));
        }
        coro::yield_slice();
        // Last, so that a failure above is missed.
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn task_locals_are_separate_and_end_with_their_task() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let d = dropped.clone();
    let work = move |i: u32| {
        NUMBER.set(NUMBER.get() + i);
        OWNED.set(Some(Remembers(d.clone(), false)));
        NUMBER.with(|n| {
            // Another key is made, which moves the table, while this value is borrowed across a wait.
            NESTED.with_borrow_mut(|v| v.push(i.to_string()));
            coro::yield_slice();
            n.set(n.get() + 1);
        });
        OWNED.set(Some(Remembers(d.clone(), true)));
        assert_eq!(NESTED.take(), [(1 + i).to_string(), i.to_string(), "late".into()]);
        NUMBER.get()
    };
    let w = work.clone();
    with_workers(2, move || {
        let tasks: Vec<_> = (0..4)
            .map(|i| {
                let w = w.clone();
                coro::thread::spawn(move || w(i))
            })
            .collect();
        for (i, t) in tasks.into_iter().enumerate() {
            assert_eq!(t.join().unwrap(), i as u32 + 2);
        }
    });
    assert_eq!(dropped.load(Ordering::SeqCst), 8);
    assert_eq!(std::thread::spawn(move || work(5)).join().unwrap(), 7);
    assert_eq!(dropped.load(Ordering::SeqCst), 10);
}

#[test]
fn threads_park_and_know_their_names() {
    with_workers(1, || {
        let parent = coro::thread::current();
        let child = coro::thread::Builder::new().name("child".into()).spawn(move || {
            parent.unpark();
            coro::thread::park_timeout(Duration::from_millis(1));
            coro::thread::current().name().map(str::to_owned)
        });
        let child = child.unwrap();
        coro::thread::park();
        let kept = child.thread().clone();
        assert_eq!(child.join().unwrap().as_deref(), Some("child"));
        assert_eq!(kept.name(), Some("child"));
    });
}
