//! Read-write locks under mixed traffic, what interrupts and poison do to their guards, and std's surface.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use coro::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, nonpoison};

use crate::crew::{Crew, PLACES};
use crate::harness::{Rng, runtime, seed, until, until_parked};

/// Says of every moment who has the lock: readers, or -1 for a writer.
#[derive(Default)]
struct Inside(AtomicI32);

impl Inside {
    fn read(&self) {
        assert!(self.0.fetch_add(1, Ordering::SeqCst) >= 0, "a reader beside a writer");
    }

    fn read_over(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn write(&self) {
        assert_eq!(self.0.swap(-1, Ordering::SeqCst), 0, "a writer beside somebody");
    }

    fn write_over(&self) {
        assert_eq!(self.0.swap(0, Ordering::SeqCst), -1, "somebody beside a writer");
    }

    fn becomes_reader(&self) {
        assert_eq!(self.0.swap(1, Ordering::SeqCst), -1, "somebody beside a writer");
    }
}

#[test]
fn readers_and_writers_exclude_each_other() {
    let seed = seed();
    println!("seed {seed}");
    for place in PLACES {
        let mut rng = Rng(seed);
        let state = Arc::new((RwLock::new(0u32), Inside::default(), AtomicU32::new(0)));
        let mut crew = Crew::at(place);
        for _ in 0..12 {
            let state = state.clone();
            let mut rng = Rng(rng.next());
            crew.hire(move || {
                let (lock, inside, writes) = &*state;
                for _ in 0..150 {
                    let pause = rng.below(4) == 0;
                    match rng.below(10) {
                        0..6 => {
                            let r = lock.read().unwrap();
                            inside.read();
                            let seen = *r;
                            if pause {
                                coro::yield_slice();
                            }
                            assert_eq!(seen, *r);
                            inside.read_over();
                        }
                        6 => drop(lock.try_read().map(|_| {
                            inside.read();
                            inside.read_over();
                        })),
                        7 => {
                            let mut w = lock.write().unwrap();
                            inside.write();
                            *w += 1;
                            writes.fetch_add(1, Ordering::SeqCst);
                            let wrote = *w;
                            inside.becomes_reader();
                            let r = RwLockWriteGuard::downgrade(w);
                            if pause {
                                coro::yield_slice();
                            }
                            assert_eq!(*r, wrote, "a writer came between");
                            inside.read_over();
                        }
                        _ => {
                            let mut w = lock.write().unwrap();
                            inside.write();
                            if pause {
                                coro::yield_slice();
                            }
                            *w += 1;
                            writes.fetch_add(1, Ordering::SeqCst);
                            inside.write_over();
                        }
                    }
                }
            });
        }
        crew.all();
        let written = *state.0.try_write().expect("the lock is free");
        assert_eq!(written, state.2.load(Ordering::SeqCst), "{place:?}");
    }
}

#[test]
fn waiters_that_run_out_of_time_or_are_cancelled_leave_nothing_behind() {
    let seed = seed();
    println!("seed {seed}");
    for place in [PLACES[0], PLACES[1], PLACES[3]] {
        let mut rng = Rng(seed);
        let state = Arc::new((RwLock::new(0u32), Inside::default(), AtomicU32::new(0)));
        let mut crew = Crew::at(place);
        for i in 0..12 {
            let state = state.clone();
            let mut rng = Rng(rng.next());
            crew.hire(move || {
                let (lock, inside, writes) = &*state;
                for _ in 0..150 {
                    let (reads, limit) = (rng.below(2) == 0, Duration::from_micros(rng.below(120)));
                    let access = || {
                        if reads {
                            let _r = lock.read().unwrap();
                            // A reader may be unwound out of this.
                            let _in = Leaves(inside, Inside::read_over);
                            inside.read();
                            coro::yield_slice();
                        } else {
                            let mut w = lock.write().unwrap();
                            inside.write();
                            *w += 1;
                            writes.fetch_add(1, Ordering::SeqCst);
                            // A writer may not.
                            coro::yield_slice();
                            inside.write_over();
                        }
                    };
                    if i % 4 == 3 || coro::current().is_none() {
                        access();
                    } else {
                        let _ = coro::timeout(limit, access);
                    }
                }
            });
        }
        crew.all();
        let written = *state.0.try_write().expect("the lock is free and sound");
        assert_eq!(written, state.2.load(Ordering::SeqCst), "{place:?}, seed {seed}");
    }
}

/// Calls `1` with `0` at its end.
struct Leaves<'a>(&'a Inside, fn(&Inside));

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        (self.1)(self.0);
    }
}

#[test]
fn a_writer_is_not_unwound_a_reader_is_and_cancel_now_poisons() {
    let rt = runtime(1);
    rt.block_on(|| {
        let lock = Arc::new(RwLock::new((0, 0)));
        let l = lock.clone();
        let writer = coro::spawn(move || {
            let mut w = l.write().unwrap();
            w.0 += 1;
            coro::sleep(Duration::from_millis(5));
            w.1 += 1;
            drop(w);
            coro::sleep(Duration::from_secs(1000));
        });
        until_parked(writer.task(), "sleep");
        writer.cancel();
        assert!(coro::is_cancel(&*writer.join().unwrap_err()));
        assert_eq!(*lock.read().expect("not poisoned"), (1, 1), "the update was left half done");

        let l = lock.clone();
        let reader = coro::spawn(move || {
            let _r = l.read().unwrap();
            coro::sleep(Duration::from_secs(1000));
        });
        until_parked(reader.task(), "sleep");
        reader.cancel();
        assert!(coro::is_cancel(&*reader.join().unwrap_err()));
        drop(lock.try_write().expect("free, and readers do not poison"));

        // A writer that has become a reader is a reader.
        let l = lock.clone();
        let downgraded = coro::spawn(move || {
            let _r = RwLockWriteGuard::downgrade(l.write().unwrap());
            coro::sleep(Duration::from_secs(1000));
        });
        until_parked(downgraded.task(), "sleep");
        downgraded.cancel();
        assert!(coro::is_cancel(&*downgraded.join().unwrap_err()));
        drop(lock.try_write().expect("free, and readers do not poison"));

        let l = lock.clone();
        let writer = coro::spawn(move || {
            let mut w = l.write().unwrap();
            w.0 += 1;
            coro::sleep(Duration::from_secs(1000));
        });
        until_parked(writer.task(), "sleep");
        writer.task().cancel_now();
        assert!(coro::is_cancel(&*writer.join().unwrap_err()));
        assert!(lock.is_poisoned() && lock.read().is_err());
        assert_eq!(*lock.write().unwrap_err().into_inner(), (2, 1));
        lock.clear_poison();
        assert!(lock.read().is_ok());

        let bare = Arc::new(nonpoison::RwLock::new(0));
        let b = bare.clone();
        let writer = coro::spawn(move || {
            let _w = b.write();
            coro::sleep(Duration::from_secs(1000));
        });
        until_parked(writer.task(), "sleep");
        writer.task().cancel_now();
        assert!(writer.join().is_err());
        assert_eq!(*bare.try_read().expect("free, and without poison"), 0);
    });
}

#[test]
fn a_neighbour_that_waits_while_it_unwinds_poisons_no_lock_of_others() {
    struct AtEnd<F: FnMut()>(F);
    impl<F: FnMut()> Drop for AtEnd<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let rt = runtime(1);
    rt.block_on(|| {
        let (gate, mine, its) = (Arc::new(RwLock::new(())), RwLock::new(0), Arc::new(RwLock::new(0)));
        let closed = gate.write().unwrap();
        let (g, i) = (gate.clone(), its.clone());
        let neighbour = coro::spawn(move || {
            let mut guard = i.write().unwrap();
            *guard = 1;
            let _wait = AtEnd(|| drop(g.read().unwrap()));
            std::panic::resume_unwind(Box::new("unwinds"));
        });
        until_parked(neighbour.task(), "read lock");
        assert!(std::thread::panicking(), "std says of the thread that it unwinds");
        *mine.write().unwrap() += 1;
        *RwLockWriteGuard::map(mine.write().unwrap(), |v| v) += 1;
        assert!(!mine.is_poisoned(), "a healthy task's lock was poisoned");
        assert!(matches!(its.try_write(), Err(TryLockError::WouldBlock)));
        drop(closed);
        assert!(neighbour.join().is_err());
        assert!(its.is_poisoned(), "real poison was lost");
        assert!(!gate.is_poisoned());
        assert_eq!(*mine.read().unwrap(), 2);
    });
}

#[test]
fn a_waiter_says_what_it_waits_for_and_who_has_it() {
    let rt = runtime(1);
    rt.block_on(|| {
        let me = coro::current().unwrap().id();
        let (line, lock) = (line!(), Arc::new(RwLock::new(0).named("cfg")));
        let held = lock.write().unwrap();
        let (w, r) = (lock.clone(), lock.clone());
        let writer = coro::spawn(move || *w.write().unwrap() += 1);
        until_parked(writer.task(), "write lock");
        let reader = coro::spawn(move || *r.read().unwrap());
        until_parked(reader.task(), "read lock");
        let wait = |id| coro::where_is(id).unwrap().wait;
        assert!(
            wait(writer.id())
                .starts_with(&format!("write lock \"cfg\" {}:{line} held by #{me} \"main\" for ", file!()))
        );
        assert!(
            wait(reader.id()).starts_with(&format!("read lock \"cfg\" {}:{line} held by #{me} \"main\" for ", file!()))
        );
        // Of readers each task keeps a list, which is not looked at while it runs.
        let held = RwLockWriteGuard::downgrade(held);
        assert_eq!(wait(writer.id()), format!("write lock \"cfg\" {}:{line} read-held by 1", file!()));
        drop(held);
        writer.join().unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
}

#[test]
fn a_held_back_cancellation_ends_a_loop_that_never_waits_without_the_lock() {
    let rt = runtime(1);
    rt.block_on(|| {
        let lock = Arc::new(RwLock::new(0));
        let l = lock.clone();
        let t = coro::spawn(move || {
            loop {
                let mut w = l.write().unwrap();
                *w += 1;
                coro::yield_slice();
            }
        });
        until("it runs", || {
            coro::yield_slice();
            *lock.read().unwrap() > 2
        });
        t.cancel();
        assert!(coro::is_cancel(&*t.join().unwrap_err()));
        assert!(!lock.is_poisoned());
    });
}

#[test]
fn the_surface_of_std() {
    let mut lock = RwLock::from([1, 2, 3]);
    assert_eq!(format!("{lock:?}"), "RwLock { data: [1, 2, 3], poisoned: false, .. }");
    {
        let first = RwLockReadGuard::map(lock.read().unwrap(), |v| &v[0]);
        let none = RwLockReadGuard::filter_map(lock.read().unwrap(), |v| v.get(3));
        let second = RwLockReadGuard::filter_map(lock.read().unwrap(), |v| v.get(1)).ok().unwrap();
        assert_eq!((format!("{first}"), format!("{second:?}")), ("1".into(), "2".into()));
        assert_eq!(none.map(|_| ()).unwrap_err().len(), 3);
        assert!(lock.try_write().is_err());
    }
    *RwLockWriteGuard::filter_map(lock.write().unwrap(), |v| v.get_mut(2)).ok().unwrap() += 1;
    assert!(RwLockWriteGuard::filter_map(lock.write().unwrap(), |v| v.get_mut(3)).is_err());
    {
        let _w = lock.write().unwrap();
        assert_eq!(format!("{lock:?}"), "RwLock { data: <locked>, poisoned: false, .. }");
    }
    lock.get_mut().unwrap()[0] = 0;
    assert_eq!(lock.get_cloned().unwrap(), [0, 2, 4]);
    assert_eq!(lock.replace([7; 3]).unwrap(), [0, 2, 4]);
    lock.set([8; 3]).unwrap();
    assert_eq!(lock.into_inner().unwrap(), [8; 3]);

    let lock = Arc::new(RwLock::new(vec![1]));
    let l = lock.clone();
    let panics = move || drop(RwLockWriteGuard::map(l.write().unwrap(), |_| -> &mut u8 { panic!() }));
    assert!(std::thread::spawn(panics).join().is_err());
    assert_eq!(lock.set(vec![2]).unwrap_err().into_inner(), [2]);
    assert_eq!(lock.replace(vec![3]).unwrap_err().into_inner(), [3]);
    lock.get_cloned().unwrap_err().into_inner();
    assert_eq!(*lock.read().unwrap_err().into_inner(), [1]);
    assert_eq!(Arc::into_inner(lock).unwrap().into_inner().unwrap_err().into_inner(), [1]);

    let mut bare = nonpoison::RwLock::new(1);
    bare.with_mut(|v| *v += 1);
    assert_eq!(bare.with(|v| *v), 2);
    bare.set(3);
    assert_eq!((bare.replace(4), bare.get_cloned(), *bare.get_mut()), (3, 4, 4));
    let r = bare.read();
    assert_eq!(format!("{:?} {r}", bare.try_write().map(|_| ())), "Err(WouldBlock) 4");
}
