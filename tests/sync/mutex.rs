//! Mutexes with and without poison, and locks that their holder may lock again.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use coro::sync::{MappedMutexGuard, Mutex, MutexGuard, ReentrantLock, TryLockError, nonpoison};

use crate::crew::{Crew, PLACES};
use crate::harness::{runtime, task_until, until_parked};

#[test]
fn nobody_is_inside_beside_another_one() {
    for place in PLACES {
        let state = Arc::new((Mutex::new(0u32), nonpoison::Mutex::new(0u32), ReentrantLock::new(Cell::new(0u32))));
        let mut crew = Crew::at(place);
        for i in 0..12 {
            let state = state.clone();
            crew.hire(move || {
                for n in 0..200 {
                    let mut a = state.0.lock().unwrap();
                    let mut b = state.1.lock();
                    let (c, again) = (state.2.lock(), state.2.lock());
                    let before = (*a, *b, c.get());
                    if (i + n) % 4 == 0 {
                        coro::yield_slice();
                    }
                    assert_eq!(before, (*a, *b, again.get()));
                    again.set(c.get() + 1);
                    *a += 1;
                    *b += 1;
                }
            });
        }
        crew.all();
        let ends = (*state.0.lock().unwrap(), *state.1.lock(), state.2.lock().get());
        assert_eq!(ends, (2400, 2400, 2400), "{place:?}");
    }
}

#[test]
fn a_thousand_tasks_get_the_lock_in_the_order_in_which_they_asked() {
    let rt = runtime(1);
    rt.block_on(|| {
        let lock = Arc::new(Mutex::new(Vec::new()));
        let held = lock.lock().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let waiters: Vec<_> = (0..1000)
            .map(|i| {
                let (lock, asks) = (lock.clone(), asked.clone());
                let t = coro::spawn(move || {
                    asks.fetch_add(1, Ordering::SeqCst);
                    lock.lock().unwrap().push(i);
                });
                // There is one worker: this task runs again when that one waits.
                task_until("it asks", || asked.load(Ordering::SeqCst) == i + 1);
                t
            })
            .collect();
        drop(held);
        waiters.into_iter().for_each(|w| w.join().unwrap());
        assert_eq!(*lock.lock().unwrap(), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn two_tasks_of_one_worker_do_not_share_a_reentrant_lock() {
    let rt = runtime(1);
    rt.block_on(|| {
        let me = coro::current().unwrap().id();
        let (line, lock) = (line!(), Arc::new(ReentrantLock::new(RefCell::new(0)).named("log")));
        let (outer, inner) = (lock.lock(), lock.try_lock().expect("its own lock"));
        let l = lock.clone();
        let other = coro::spawn(move || {
            assert!(l.try_lock().is_none(), "keyed by thread, not by task");
            assert_eq!(format!("{l:?}"), "ReentrantLock { data: <locked>, .. }");
            let guard = l.lock();
            guard.replace_with(|n| *n + 1) + 1
        });
        until_parked(other.task(), "lock");
        let wait = coro::where_is(other.id()).unwrap().wait;
        assert!(wait.starts_with(&format!("lock \"log\" {}:{line} held by #{me} \"main\" for ", file!())), "{wait}");
        *outer.borrow_mut() += 1;
        drop(outer);
        coro::yield_slice();
        until_parked(other.task(), "lock");
        *inner.borrow_mut() += 1;
        drop(inner);
        assert_eq!(other.join().unwrap(), 3);
        // Its waits end, and what is held is not left half done.
        let held = lock.lock();
        let l = lock.clone();
        let waits = coro::spawn(move || drop(l.lock()));
        until_parked(waits.task(), "lock");
        waits.cancel();
        assert!(coro::is_cancel(&*waits.join().unwrap_err()));
        drop(held);
        let l = lock.clone();
        let holds = coro::spawn(move || {
            let guard = l.lock();
            let again = l.lock();
            guard.replace(10);
            drop(again);
            coro::sleep(Duration::from_millis(2));
            guard.replace(11);
            drop(guard);
            coro::sleep(Duration::from_secs(1000));
        });
        until_parked(holds.task(), "sleep");
        holds.cancel();
        assert!(coro::is_cancel(&*holds.join().unwrap_err()));
        assert_eq!(*lock.lock().borrow(), 11);
    });
}

#[test]
fn a_plain_thread_has_its_own_reentrant_lock_again() {
    let lock = Arc::new(ReentrantLock::new(()));
    let l = lock.clone();
    let guard = lock.lock();
    let _again = lock.lock();
    assert!(std::thread::spawn(move || l.try_lock().is_none()).join().unwrap());
    let rt = runtime(1);
    let l = lock.clone();
    assert!(rt.block_on(move || l.try_lock().is_none()), "a task is not the thread that it was started from");
    drop(guard);
    let l = lock.clone();
    assert!(std::thread::spawn(move || l.try_lock().is_none()).join().unwrap(), "given up at its first level");
}

#[test]
fn without_poison_a_panic_and_cancel_now_just_give_the_lock_up() {
    let rt = runtime(1);
    rt.block_on(|| {
        let (m, r) = (Arc::new(nonpoison::Mutex::new(0)), Arc::new(ReentrantLock::new(Cell::new(0))));
        for now in [false, true] {
            let (m2, r2) = (m.clone(), r.clone());
            let t = coro::spawn(move || {
                let mut guard = m2.lock();
                let other = r2.lock();
                *guard += 1;
                other.set(other.get() + 1);
                if now {
                    coro::sleep(Duration::from_secs(1000));
                }
                std::panic::resume_unwind(Box::new(1u8));
            });
            if now {
                until_parked(t.task(), "sleep");
                t.task().cancel_now();
            }
            assert!(t.join().is_err());
        }
        assert_eq!((*m.try_lock().expect("free"), r.try_lock().expect("free").get()), (2, 2));
    });
}

#[test]
fn an_ordinary_cancellation_leaves_nothing_half_done_without_poison_either() {
    let rt = runtime(1);
    rt.block_on(|| {
        let m = Arc::new(nonpoison::Mutex::new((0, 0)));
        let m2 = m.clone();
        let t = coro::spawn(move || {
            let guard = m2.lock();
            // Also through a guard of a part.
            let mut part = MutexGuard::map(guard, |v| v);
            part.0 = 1;
            coro::sleep(Duration::from_millis(2));
            part.1 = 1;
            drop(part);
            coro::sleep(Duration::from_secs(1000));
        });
        until_parked(t.task(), "sleep");
        t.cancel();
        assert!(coro::is_cancel(&*t.join().unwrap_err()));
        assert_eq!(*m.lock(), (1, 1));
    });
}

#[test]
fn the_surface_of_std() {
    let mut m = Mutex::new([1, 2, 3]);
    {
        let part = MutexGuard::map(m.lock().unwrap(), |v| &mut v[1..]);
        let part = MappedMutexGuard::filter_map(part, |v| v.get_mut(5)).map(|_| ()).unwrap_err();
        let mut last = MappedMutexGuard::map(part, |v| &mut v[1]);
        *last += 1;
        assert_eq!(format!("{last} {last:?}"), "4 4");
        assert!(matches!(m.try_lock(), Err(TryLockError::WouldBlock)));
    }
    let whole = MutexGuard::filter_map(m.lock().unwrap(), |v| v.get_mut(3)).map(|_| ()).unwrap_err();
    let first = MutexGuard::filter_map(whole, |v| v.first_mut()).ok().unwrap();
    assert_eq!(*first, 1);
    drop(first);
    m.get_mut().unwrap()[0] = 0;
    assert_eq!(m.get_cloned().unwrap(), [0, 2, 4]);
    assert_eq!(m.replace([7; 3]).unwrap(), [0, 2, 4]);
    m.set([8; 3]).unwrap();
    assert_eq!(m.into_inner().unwrap(), [8; 3]);

    // What is replaced is dropped without the lock.
    struct Asks(Arc<StdMutex<Option<bool>>>, Arc<nonpoison::Mutex<Option<Asks>>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = Some(self.1.try_lock().is_ok());
        }
    }
    let (answer, slot) = (Arc::new(StdMutex::new(None)), Arc::new(nonpoison::Mutex::new(None)));
    slot.set(Some(Asks(answer.clone(), slot.clone())));
    slot.set(None);
    assert_eq!(*answer.lock().unwrap(), Some(true));

    let m = Arc::new(Mutex::new(vec![1]));
    let m2 = m.clone();
    let panics =
        move || drop(MappedMutexGuard::map(MutexGuard::map(m2.lock().unwrap(), |v| v), |_| -> &mut u8 { panic!() }));
    assert!(std::thread::spawn(panics).join().is_err());
    assert_eq!(m.set(vec![2]).unwrap_err().into_inner(), [2]);
    m.get_cloned().unwrap_err().into_inner();
    assert!(matches!(m.try_lock(), Err(TryLockError::Poisoned(_))), "unlocked and poisoned");
}
