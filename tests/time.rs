//! `coro::time`: limits around every kind of call, deadlines, intervals, clock extremes, and a process that is stopped.

mod harness;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use coro::sync::{Barrier, Condvar, Event, LazyLock, Mutex, Once, OnceLock, Semaphore, WaitGroup, mpsc};
use coro::time::*;
use coro::{Elapsed, timeout};
use harness::{PATIENCE, Rng, command, runtime, seed, task_until, until_parked};

const LONG: Duration = Duration::from_secs(1000);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn the_names_of_std() {
    assert!(SystemTime::now().duration_since(UNIX_EPOCH).is_ok());
    let e: SystemTimeError = UNIX_EPOCH.duration_since(SystemTime::now()).unwrap_err();
    assert!(e.duration() > Duration::ZERO);
    let e: TryFromFloatSecsError = Duration::try_from_secs_f32(-1.0).unwrap_err();
    assert!(!e.to_string().is_empty());
    assert!(Instant::now().elapsed() < LONG);
}

/// What a task may be in when its limit passes. Every one of them is left by an unwind, so nothing is returned.
type Waits = BTreeMap<&'static str, Box<dyn Fn() + Send + Sync>>;

fn waits() -> Waits {
    let mut all: Waits = BTreeMap::new();
    let mut add = |name, f: Box<dyn Fn() + Send + Sync>| assert!(all.insert(name, f).is_none());
    add("sleep", Box::new(|| coro::sleep(LONG)));
    add("sleep for ever", Box::new(|| coro::sleep(Duration::MAX)));
    add("sleep_until", Box::new(|| coro::sleep_until(Instant::now() + LONG)));
    add("park", Box::new(coro::park));
    add("thread::park_timeout", Box::new(|| coro::thread::park_timeout(LONG)));
    add(
        "a loop that yields",
        Box::new(|| {
            loop {
                coro::yield_slice()
            }
        }),
    );
    add("an interval", Box::new(|| _ = interval(LONG).take(2).count()));
    add("an interval that is always due", Box::new(|| _ = interval(Duration::ZERO).last()));
    add("an event that is not set", Box::new(|| Event::new().wait()));
    add(
        "an event that is set",
        Box::new(|| {
            let e = Event::new();
            e.set();
            loop {
                e.wait()
            }
        }),
    );
    add("wait_timeout", Box::new(|| assert!(Event::new().wait_timeout(LONG))));
    add("a barrier", Box::new(|| _ = Barrier::new(2).wait()));
    add("a semaphore without permits", Box::new(|| Semaphore::new(0).acquire().forget()));
    add(
        "a semaphore with permits",
        Box::new(|| {
            let s = Semaphore::new(1);
            loop {
                drop(s.acquire())
            }
        }),
    );
    add(
        "a wait group",
        Box::new(|| {
            let g = WaitGroup::new();
            g.add(1);
            g.wait();
        }),
    );
    add("Once::wait", Box::new(|| Once::new().wait()));
    add("OnceLock::wait", Box::new(|| _ = OnceLock::<u8>::new().wait()));
    add("an initialiser", Box::new(|| Once::new().call_once(|| coro::sleep(LONG))));
    add(
        "recv",
        Box::new(|| {
            let (_tx, rx) = mpsc::channel::<u8>();
            let _ = rx.recv();
        }),
    );
    add(
        "send into a full channel",
        Box::new(|| {
            let (tx, _rx) = mpsc::sync_channel(1);
            while tx.send(0u8).is_ok() {}
        }),
    );
    add(
        "a rendezvous",
        Box::new(|| {
            let (tx, _rx) = mpsc::sync_channel(0);
            let _ = tx.send(0u8);
        }),
    );
    add(
        "a channel that is never empty",
        Box::new(|| {
            let (tx, rx) = mpsc::channel();
            loop {
                tx.send(0u8).unwrap();
                rx.recv().unwrap();
            }
        }),
    );
    add(
        "a join",
        Box::new(|| {
            let t = coro::spawn(|| coro::sleep(LONG));
            struct Cancel(coro::Task);
            impl Drop for Cancel {
                fn drop(&mut self) {
                    self.0.cancel();
                }
            }
            let _cancel = Cancel(t.task());
            let _ = t.join();
        }),
    );
    add("a scope", Box::new(|| coro::scope(|s| _ = s.spawn(|| coro::sleep(LONG)))));
    add("a scoped join", Box::new(|| coro::scope(|s| _ = s.spawn(|| coro::sleep(LONG)).join())));
    add("in_parallel", Box::new(|| _ = coro::in_parallel((0..3).map(|_| || coro::sleep(LONG)))));
    add(
        "a condvar",
        Box::new(|| {
            let (m, c) = (Mutex::new(()), Condvar::new());
            let _guard = c.wait(m.lock().unwrap());
        }),
    );
    add(
        "blocking",
        Box::new(|| {
            // Ends by itself when its waiter has left: a job cannot be interrupted.
            let left = Arc::new(AtomicBool::new(false));
            struct Leave(Arc<AtomicBool>);
            impl Drop for Leave {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::SeqCst);
                }
            }
            let _leave = Leave(left.clone());
            let _ = coro::blocking(move || harness::until("the waiter left", || left.load(Ordering::SeqCst)));
        }),
    );
    add(
        "a lock",
        Box::new(|| {
            let m = Arc::new(Mutex::new(()));
            let (held, done) = (Arc::new(Event::new()), Arc::new(Event::new()));
            let (m2, h2, d2) = (m.clone(), held.clone(), done.clone());
            coro::spawn(move || {
                let _guard = m2.lock().unwrap();
                h2.set();
                // A guard holds the unwinding off, also that of the end of the runtime.
                d2.wait();
            });
            struct Done(Arc<Event>);
            impl Drop for Done {
                fn drop(&mut self) {
                    self.0.set();
                }
            }
            let _done = Done(done);
            held.wait();
            let _guard = m.lock();
        }),
    );
    add(
        "the second read of a silent socket",
        Box::new(|| {
            let (mut a, _b) = coro::net::unix::UnixStream::pair().unwrap();
            let first = a.read(&mut [0; 1]).unwrap_err();
            assert_eq!(first.kind(), std::io::ErrorKind::TimedOut);
            let _ = a.read(&mut [0; 1]);
        }),
    );
    add(
        "a socket that is always ready",
        Box::new(|| {
            let (mut a, mut b) = coro::net::unix::UnixStream::pair().unwrap();
            loop {
                let _ = a.write(&[0; 1]);
                let _ = b.read(&mut [0; 1]);
            }
        }),
    );
    all
}

#[test]
fn a_limit_ends_every_kind_of_wait() {
    for workers in [1, 4] {
        let rt = runtime(workers);
        rt.block_on(|| {
            // All at once, and each beside others whose limits do not pass.
            let all: Vec<_> = waits().into_iter().collect();
            let tasks: Vec<_> = all
                .into_iter()
                .map(|(name, wait)| {
                    let task = coro::spawn_named(name, move || {
                        let begun = Instant::now();
                        let r: Result<(), Elapsed<()>> =
                            timeout(LONG, || timeout(ms(20), &wait)).expect("not this one");
                        let took = begun.elapsed();
                        assert!(r.is_err_and(|e| e.value().is_none()), "{name}: it returned");
                        assert!(took >= ms(20), "{name}: too early, after {took:?}");
                        // What it left behind does not reach the next wait.
                        coro::sleep(ms(1));
                        coro::yield_slice();
                    });
                    (name, task)
                })
                .collect();
            for (name, task) in tasks {
                let ended = timeout(PATIENCE, || task.join()).unwrap_or_else(|_| panic!("{name} goes on for ever"));
                ended.unwrap_or_else(|_| panic!("{name} failed on {workers} workers"));
            }
        });
    }
}

/// A sender on another worker keeps the channel full: the receiver never waits, and gives way all the same.
#[test]
fn a_channel_that_another_worker_keeps_full_cannot_defer_a_limit() {
    let rt = runtime(2);
    rt.block_on(|| {
        let (tx, rx) = mpsc::sync_channel(10_000);
        let other = 1 - coro::current_worker().unwrap();
        let full = coro::Builder::new().worker(other).spawn(move || while tx.send(1u8).is_ok() {}).unwrap();
        let begun = Instant::now();
        let r = timeout(ms(20), || {
            loop {
                rx.recv().unwrap();
                assert!(begun.elapsed() < PATIENCE, "it goes on for ever");
            }
        });
        assert!(r.is_err_and(|e: Elapsed<()>| e.value().is_none()));
        drop(rx);
        full.join().unwrap();
    });
}

/// Limits of nothing, a moment and for ever in all orders: the outermost one that passes is the one that is told.
#[test]
fn only_the_owner_of_a_limit_sees_it() {
    let rt = runtime(2);
    rt.block_on(|| {
        let limits = [Duration::ZERO, ms(3), LONG, Duration::MAX];
        fn nest(limits: &[Duration], ends: bool, seen: &mut Vec<Option<usize>>) {
            let Some((limit, inner)) = limits.split_last() else { return coro::sleep(LONG) };
            let depth = inner.len();
            let ends = ends || *limit < LONG;
            let r = timeout(*limit, || {
                nest(inner, ends, seen);
                // Reached only when an inner one has taken its own expiry; this one or an outer one ends this wait, if one can.
                coro::sleep(if ends { LONG } else { ms(6) });
            });
            if r.is_err_and(|e| e.value().is_none()) {
                seen.push(Some(depth));
            }
        }
        for i in 0..limits.len().pow(3) {
            // Innermost first.
            let chosen = [i % 4, i / 4 % 4, i / 16].map(|k| limits[k]);
            if chosen.iter().all(|l| *l >= LONG) {
                continue;
            }
            let mut seen = Vec::new();
            nest(&chosen, false, &mut seen);
            let short = |l: &Duration| *l < LONG;
            // What an inner limit of zero or a moment is told depends on whether an outer one passes first or together.
            let outermost = chosen.iter().rposition(short).expect("one passes");
            assert_eq!(seen.last(), Some(&Some(outermost)), "{chosen:?}: {seen:?}");
            assert!(seen.iter().flatten().all(|d| short(&chosen[*d])), "{chosen:?}: {seen:?}");
        }
        // An expiry that was caught on the way goes on at the next wait, up to its owner.
        let mut inner = None;
        let outer = timeout(ms(2), || {
            inner = Some(timeout(LONG, || {
                let _ = std::panic::catch_unwind(|| coro::sleep(LONG));
                5
            }));
            coro::sleep(LONG);
        });
        assert_eq!((outer.is_err(), inner.unwrap().ok()), (true, Some(5)));
    });
}

/// Which calls look for an interrupt although they need not wait: the table of `docs/cancellation.md`.
#[test]
fn calls_that_need_not_wait() {
    let rt = runtime(1);
    rt.block_on(|| {
        let (tx, rx) = mpsc::channel();
        let (bounded, _kept) = mpsc::sync_channel(100);
        let (semaphore, event, ended) = (Semaphore::new(1), Event::new(), Event::new());
        let (mutex, once) = (Mutex::new(()), Once::new());
        event.set();
        once.call_once(|| {});
        for _ in 0..3 {
            tx.send(1).unwrap();
        }
        let task = coro::spawn(|| 1);
        task_until("it ended", || task.is_finished());
        let task = std::cell::Cell::new(Some(task));
        let mut overdue = interval(Duration::ZERO);
        let tick = std::cell::RefCell::new(|| _ = overdue.tick());
        let calls: [(&str, bool, &dyn Fn()); 22] = [
            ("sleep", true, &|| coro::sleep(Duration::ZERO)),
            ("yield_slice", true, &coro::yield_slice),
            ("tick", true, &|| tick.borrow_mut()()),
            ("recv", true, &|| _ = rx.recv().unwrap()),
            ("recv_timeout", true, &|| _ = rx.recv_timeout(LONG).unwrap()),
            ("a bounded send", true, &|| bounded.send(1).unwrap()),
            ("acquire", true, &|| semaphore.acquire().forget()),
            ("an event", true, &|| event.wait()),
            ("a wait group", true, &|| WaitGroup::new().wait()),
            ("a barrier", true, &|| _ = Barrier::new(1).wait()),
            ("blocking", true, &|| coro::blocking(|| ()).unwrap()),
            ("park", true, &|| {
                coro::current().unwrap().unpark();
                coro::park();
            }),
            ("lock", false, &|| drop(mutex.lock())),
            ("try_lock", false, &|| drop(mutex.try_lock())),
            ("try_recv", false, &|| _ = rx.try_recv().unwrap()),
            ("an unbounded send", false, &|| tx.send(2).unwrap()),
            ("try_send", false, &|| bounded.try_send(2).unwrap()),
            ("try_acquire", false, &|| drop(semaphore.try_acquire())),
            ("a completed once", false, &|| once.wait()),
            ("an initialiser", false, &|| Once::new().call_once(|| ended.set())),
            ("join", false, &|| assert_eq!(task.take().unwrap().join().unwrap(), 1)),
            ("a shielded sleep", false, &|| coro::shield(|| coro::sleep(Duration::ZERO))),
        ];
        for (name, looks, call) in calls {
            let r = timeout(Duration::ZERO, call).unwrap_err();
            assert_eq!(r.value().is_none(), looks, "{name}");
        }
        assert!(ended.is_set());
        assert_eq!(semaphore.available_permits(), 1);
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [1, 1, 2], "a message is lost");
    });
}

#[test]
fn deadlines_and_moments() {
    assert_eq!(deadline(), None);
    assert_eq!(timeout(LONG, deadline).unwrap(), None, "a plain thread has none");
    let rt = runtime(1);
    rt.block_on(|| {
        assert_eq!(coro::deadline(), None);
        let now = Instant::now();
        let (near, far) = (now + LONG, now + 2 * LONG);
        for (outer, inner) in [(near, far), (far, near), (near, near)] {
            assert_eq!(timeout_at(outer, || (deadline(), timeout_at(inner, deadline).unwrap(), deadline())), {
                Ok((Some(outer), Some(near), Some(outer)))
            });
        }
        assert_eq!(timeout(Duration::MAX, deadline).unwrap(), None);
        assert_eq!(timeout(Duration::MAX, || timeout_at(near, deadline).unwrap()).unwrap(), Some(near));
        assert_eq!(timeout_at(near, || timeout(Duration::MAX, deadline).unwrap()).unwrap(), Some(near));
        assert_eq!(timeout_at(near, || coro::shield(deadline)).unwrap(), Some(near));
        assert_eq!(
            timeout_at(near, || coro::spawn(deadline).join().unwrap()).unwrap(),
            None,
            "limits are the task's own"
        );
        assert_eq!(coro::deadline(), None);
        // Over already: it still runs up to its first wait.
        let mut came = 0;
        let r = timeout_at(now, || {
            came = 1;
            assert_eq!(deadline(), Some(now));
            coro::yield_slice();
            came = 2;
        });
        assert_eq!((r.is_err(), came), (true, 1));
        assert_eq!(timeout_at(now, || 5).unwrap_err().into_value(), Some(5));
    });
}

/// Somebody who never waits cannot be interrupted; that it came too late is told, on a task as on a thread.
#[test]
fn a_value_that_came_too_late_is_kept() {
    let computes = || {
        let begun = Instant::now();
        while begun.elapsed() < ms(3) {
            std::hint::spin_loop();
        }
        7
    };
    let body = move || {
        assert_eq!(timeout(ms(1), computes).unwrap_err().into_value(), Some(7));
        assert_eq!(timeout_at(Instant::now() + ms(1), computes).unwrap_err().into_value(), Some(7));
        assert_eq!(timeout(LONG, computes).unwrap(), 7);
        assert_eq!(timeout_at(Instant::now() + LONG, computes).unwrap(), 7);
        assert_eq!(timeout(Duration::MAX, || 1).unwrap(), 1);
    };
    body();
    // Nothing is interrupted on a plain thread.
    assert_eq!(timeout(ms(1), || (coro::sleep(ms(3)), 7).1).unwrap_err().into_value(), Some(7));
    let e = timeout(Duration::ZERO, || 7).unwrap_err();
    assert_eq!(
        (e.to_string(), format!("{e:?}")),
        ("the time limit has passed".into(), "Elapsed { has_value: true }".into())
    );
    runtime(1).block_on(body);
}

#[test]
fn nothing_and_for_ever() {
    let body = || {
        coro::sleep(Duration::ZERO);
        coro::sleep_until(Instant::now().checked_sub(LONG).unwrap_or_else(Instant::now));
        assert!(!Event::new().wait_timeout(Duration::ZERO));
        assert!(Semaphore::new(1).acquire_timeout(Duration::MAX).is_some());
        assert!(Semaphore::new(0).acquire_timeout(Duration::ZERO).is_none());
        assert!(Barrier::new(1).wait_timeout(Duration::ZERO).is_some_and(|r| r.is_leader()));
        assert!(Barrier::new(2).wait_timeout(Duration::ZERO).is_none());
        assert!(WaitGroup::new().wait_timeout(Duration::MAX));
        coro::thread::park_timeout(Duration::ZERO);
        let (tx, rx) = mpsc::channel();
        tx.send(1).unwrap();
        assert_eq!(rx.recv_timeout(Duration::MAX), Ok(1));
        assert_eq!(rx.recv_timeout(Duration::ZERO), Err(mpsc::RecvTimeoutError::Timeout));
        let mut always = interval(Duration::ZERO);
        assert_eq!(always.by_ref().take(1000).count(), 1000);
        assert_eq!(always.period(), Duration::ZERO);
        let mut once = interval(Duration::MAX);
        once.tick();
    };
    body();
    let rt = runtime(1);
    rt.block_on(|| {
        body();
        let never: [&dyn Fn(); 5] = [
            &|| coro::sleep(Duration::MAX),
            &|| coro::sleep_until(Instant::now() + Duration::from_secs(1 << 40)),
            &|| _ = interval(Duration::MAX).take(2).count(),
            &|| _ = interval_at(Instant::now() + LONG, ms(1)).tick(),
            &|| assert!(Event::new().wait_timeout(Duration::MAX)),
        ];
        for (i, f) in never.into_iter().enumerate() {
            assert!(timeout(ms(2), f).is_err(), "{i}");
        }
        // A wake-up through the longest wait there is.
        let e = Arc::new(Event::new());
        let e2 = e.clone();
        let t = coro::spawn(move || timeout(Duration::MAX, || e2.wait_timeout(Duration::MAX)).unwrap());
        until_parked(t.task(), "event");
        e.set();
        assert!(t.join().unwrap());
    });
}

/// What each policy makes of ticks that were missed: told by when they were due, not by how long anything took.
#[test]
fn intervals() {
    let body = || {
        let period = ms(5);
        let start = Instant::now();
        let due = |k: u32| start + k * period;
        let mut burst = interval_at(start, period);
        let mut skip = interval_at(start, period);
        let mut delay = interval_at(start, period);
        skip.set_missed_tick_policy(MissedTick::Skip);
        delay.set_missed_tick_policy(MissedTick::Delay);
        assert_eq!((burst.missed_tick_policy(), skip.missed_tick_policy()), (MissedTick::Burst, MissedTick::Skip));
        for k in 0..3 {
            assert_eq!(burst.tick(), due(k));
            assert!(Instant::now() >= due(k), "a tick came early");
        }
        coro::sleep(ms(32));
        let late = Instant::now();
        // Every one of them, the overdue ones as well.
        assert!((3..12).all(|k| burst.tick() == due(k)));
        // The first one is overdue; then those that are still to come, on the same grid.
        assert_eq!(skip.tick(), due(0));
        let next = skip.tick();
        assert!(next > late, "an overdue tick was not skipped");
        assert_eq!((next - start).as_nanos() % period.as_nanos(), 0, "off the grid");
        // The first one is overdue; then a period after it was given.
        assert_eq!(delay.tick(), due(0));
        let next = delay.tick();
        assert!(next >= late + period, "an overdue tick was not delayed");
        // A new start.
        let before = Instant::now();
        burst.reset();
        assert!(burst.next().unwrap() >= before + period);
        assert_eq!(burst.size_hint(), (usize::MAX, None));
    };
    body();
    let rt = runtime(1);
    rt.block_on(|| {
        body();
        // A tick that was waited for in vain is still to come.
        let start = Instant::now() + ms(30);
        let mut i = interval_at(start, LONG);
        assert!(timeout(ms(2), || i.tick()).is_err());
        assert_eq!(i.tick(), start);
    });
}

/// Timers of every length fire after their time, and those of one worker in their order.
#[test]
fn a_thousand_limits_at_once_are_punctual() {
    let seed = seed();
    let rt = runtime(2);
    let mut late = rt.block_on(|| {
        let mut rng = Rng(seed);
        let late = Arc::new(StdMutex::new(Vec::new()));
        let tasks: Vec<_> = (0..1000)
            .map(|_| {
                let (limit, late) = (Duration::from_micros(100_000 + rng.below(900_000)), late.clone());
                coro::spawn(move || {
                    let begun = Instant::now();
                    assert!(timeout(limit, coro::park).is_err());
                    let took = begun.elapsed();
                    assert!(took >= limit, "too early: {took:?} of {limit:?} (seed {seed})");
                    late.lock().unwrap().push(took - limit);
                })
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
        Arc::into_inner(late).unwrap().into_inner().unwrap()
    });
    late.sort();
    let (p50, p99, most) = (late[500], late[990], late[999]);
    eprintln!("lateness of 1,000 limits: p50 {p50:?}, p99 {p99:?}, most {most:?}");
    // 2 ms on a machine that has nothing else to do; this one may.
    assert!(p50 < ms(100) && most < PATIENCE, "p50 {p50:?}, most {most:?} (seed {seed})");
}

const STOPPED: Duration = Duration::from_secs(1);

/// A process that is stopped for a second finds all timers of that second due at once: none is lost, they fire in
/// their order, in one go, and intervals do what their policy says.
#[test]
fn a_stopped_process_catches_up() {
    let mut child = command("stopped").spawn().expect("a child starts");
    let mut line = Vec::new();
    let out = child.stdout.as_mut().expect("a pipe");
    // Byte by byte: what comes after belongs to `wait`.
    let mut byte = [0];
    while !line.ends_with(b"ready\n") {
        assert_eq!(out.read(&mut byte).expect("the child says something"), 1, "{}", String::from_utf8_lossy(&line));
        line.push(byte[0]);
    }
    let pid = child.id() as libc::pid_t;
    // SAFETY: our own child, which was not waited for yet.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
    std::thread::sleep(STOPPED);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGCONT) }, 0);
    harness::wait("stopped", child).passed();
}

fn stopped_child() {
    const N: u64 = 400;
    let period = ms(10);
    let rt = runtime(1);
    rt.block_on(|| {
        let start = Instant::now();
        let woken = Arc::new(StdMutex::new(Vec::new()));
        let mut rng = Rng(seed());
        // Half of them asleep, half of them in a limit; made in any order.
        let mut order: Vec<u64> = (0..N).collect();
        for i in (1..N).rev() {
            order.swap(i as usize, rng.below(i + 1) as usize);
        }
        let sleepers: Vec<_> = order
            .into_iter()
            .map(|i| {
                let (woken, at) = (woken.clone(), start + ms(200) + ms(5) * i as u32);
                coro::spawn(move || {
                    match i % 2 {
                        0 => coro::sleep_until(at),
                        _ => assert!(timeout_at(at, coro::park).is_err()),
                    }
                    woken.lock().unwrap().push((i, Instant::now(), at));
                })
            })
            .collect();
        let ticks = |policy| {
            coro::spawn(move || {
                let mut interval = interval_at(start, period);
                interval.set_missed_tick_policy(policy);
                let mut ticks = Vec::new();
                while start.elapsed() < ms(2300) {
                    ticks.push((interval.tick(), Instant::now()));
                }
                ticks
            })
        };
        let (burst, skip, delay) = (ticks(MissedTick::Burst), ticks(MissedTick::Skip), ticks(MissedTick::Delay));
        task_until("the first timers have fired", || woken.lock().unwrap().len() >= 20);
        println!("ready");
        sleepers.into_iter().for_each(|t| t.join().unwrap());
        let woken = woken.lock().unwrap();
        let numbers: Vec<u64> = woken.iter().map(|w| w.0).collect();
        assert_eq!(numbers, (0..N).collect::<Vec<_>>(), "the order of deadlines is not that of waking");
        assert!(woken.iter().all(|(_, when, due)| when >= due), "a timer fired early");
        // The gap, and how long it then took to be up to date.
        let gap = woken.windows(2).max_by_key(|w| w[1].1 - w[0].1).expect("many");
        let (stop, go) = (gap[0].1, gap[1].1);
        assert!(go - stop >= STOPPED / 2, "nobody stopped this process: {:?}", go - stop);
        let overdue: Vec<_> = woken.iter().filter(|(_, when, due)| *when >= go && *due < go).collect();
        let last = overdue.iter().map(|w| w.1).max().expect("some were due");
        assert!(overdue.len() >= 80, "{} timers were due in between", overdue.len());
        assert!(last - go < ms(500), "catching up took {:?}", last - go);

        let (burst, skip, delay) = (burst.join().unwrap(), skip.join().unwrap(), delay.join().unwrap());
        assert!(burst.iter().enumerate().all(|(k, (due, _))| *due == start + period * k as u32), "a tick is missing");
        assert!(
            skip.iter().all(|(due, _)| (*due - start).as_nanos().is_multiple_of(period.as_nanos())),
            "off the grid"
        );
        // Given up: those of the time in between, but for the one that was waited for.
        for (what, ticks) in [("skip", &skip), ("delay", &delay)] {
            let in_between = ticks.iter().filter(|(due, _)| *due > stop + period && *due + period < go).count();
            assert!(in_between <= 1, "{what}: {in_between} ticks were caught up with");
            assert!(ticks.windows(2).all(|w| w[1].0 >= w[0].0 + period && w[1].1 >= w[1].0), "{what}: too close");
        }
        let most = skip.len().max(delay.len());
        assert!(burst.len() > most + 50, "{} {} {}", burst.len(), skip.len(), delay.len());
    });
}

/// Many timers, a lone worker, and other work beside them: each fires once.
#[test]
fn timers_that_are_armed_and_left_again_and_again() {
    let seed = seed();
    let rt = runtime(2);
    rt.block_on(|| {
        let (fired, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut rng = Rng(seed);
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (fired, left, mut rng) = (fired.clone(), left.clone(), Rng(rng.next()));
                coro::spawn(move || {
                    for _ in 0..40 {
                        let (limit, work) =
                            (Duration::from_micros(rng.below(2000)), Duration::from_micros(rng.below(2000)));
                        let begun = Instant::now();
                        let r = timeout(limit, || coro::sleep(work));
                        let took = begun.elapsed();
                        match r {
                            Ok(()) => assert!(took >= work, "seed {seed}"),
                            Err(_) => assert!(took >= limit, "seed {seed}"),
                        }
                        if r.is_ok() { &left } else { &fired }.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
        let (fired, left) = (fired.load(Ordering::Relaxed), left.load(Ordering::Relaxed));
        assert_eq!(fired + left, 2000);
        assert!(fired > 100 && left > 100, "{fired} {left} (seed {seed})");
    });
}

/// A limit around the first use of a value that is made for all: the value is made, and the limit is told after it.
#[test]
fn a_limit_does_not_break_what_is_made_for_all() {
    let rt = runtime(1);
    rt.block_on(|| {
        let lazy: LazyLock<u8, _> = LazyLock::new(|| (coro::sleep(ms(5)), 3).1);
        assert_eq!(timeout(ms(1), || *lazy).unwrap_err().into_value(), Some(3));
        assert_eq!(*lazy, 3);
    });
}

#[test]
#[ignore = "plays the cases of other tests, as a child process"]
fn child_process() {
    match harness::case().as_deref() {
        Some("stopped") => stopped_child(),
        case => assert_eq!(case, None, "no such case"),
    }
}
