//! Pools of their own with short times of keep-alive, and every job's closure and result counted.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use super::*;
use crate::scheduler::{Runtime, spawn};

const KEEP_ALIVE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(15);

/// Each test has threads of its own name, so that they can be counted.
fn pool(name: &'static str) -> &'static Pool {
    Box::leak(Box::new(Pool::new(name, KEEP_ALIVE)))
}

/// With one thread, which stays.
fn single(name: &'static str) -> &'static Pool {
    let pool = Box::leak(Box::new(Pool::new(name, Duration::MAX)));
    pool.set_limit(1);
    pool
}

fn runtime(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).build().unwrap()
}

fn run_in<T: Send + 'static>(pool: &'static Pool, f: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    wait_in(pool, Location::caller(), f)
}

#[track_caller]
fn until(what: &str, mut f: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !f() {
        assert!(Instant::now() < end, "never came true: {what}");
        match here() {
            Some(_) => suspend::sleep_until(Instant::now() + Duration::from_millis(1)),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Threads of this process with that name, as the system sees them.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the listing and the look.
    let comm = |t: io::Result<std::fs::DirEntry>| std::fs::read_to_string(t.ok()?.path().join("comm")).ok();
    tasks.filter_map(comm).filter(|c| c.trim_end() == name).count()
}

/// A job that lasts until it is told to end.
fn held() -> (Sender<()>, impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    (tell, move || {
        let _ = told.recv();
    })
}

#[derive(Debug)]
struct Counts(Arc<AtomicUsize>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn threads_come_with_the_jobs_and_go_when_there_are_none() {
    let (p, rt) = (pool("coro-t-grow"), runtime(1));
    assert_eq!((threads("coro-t-grow"), p.stats().threads), (0, 0));
    for jobs in [1, 5, 2] {
        let (tells, held): (Vec<_>, Vec<_>) = (0..jobs).map(|_| held()).unzip();
        let waiting: Vec<_> = held.into_iter().map(|f| rt.spawn(move || run_in(p, f))).collect();
        until("every job has a thread", || p.stats().running.len() == jobs);
        let s = p.stats();
        assert_eq!((threads("coro-t-grow"), s.threads, s.queued, s.idle), (jobs, jobs, 0, 0));
        assert!(s.running.iter().all(|j| j.site.file() == file!() && j.task != 0 && j.age < PATIENCE));
        drop(tells);
        waiting.into_iter().for_each(|w| w.join().unwrap().unwrap());
        until("nobody is left", || threads("coro-t-grow") == 0 && p.stats().threads == 0);
    }
    assert!(p.stats().idle == 0 && p.stats().running.is_empty());
}

#[test]
fn an_idle_thread_takes_the_next_job() {
    let rt = runtime(1);
    let p: &'static Pool = Box::leak(Box::new(Pool::new("coro-t-reuse", Duration::MAX)));
    rt.block_on(move || {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            until("the thread is idle again", || p.stats().idle == p.stats().threads);
            seen.insert(format!("{:?}", run_in(p, || std::thread::current().id()).unwrap()));
        }
        assert_eq!((seen.len(), p.stats().threads), (1, 1));
    });
    assert_eq!(p.set_limit(1), DEFAULT);
}

const DEFAULT: usize = 512;

#[test]
fn a_thousand_jobs_share_eight_threads() {
    let (p, rt) = (pool("coro-t-eight"), runtime(2));
    assert_eq!(p.set_limit(8), DEFAULT);
    let now = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let jobs: Vec<_> = (0..1000usize)
        .map(|i| {
            let now = now.clone();
            rt.spawn(move || {
                let job = move || {
                    let running = now.0.fetch_add(1, Ordering::SeqCst) + 1;
                    now.1.fetch_max(running, Ordering::SeqCst);
                    // The first eight meet; on a slow machine a thread could be gone before the last of them is there.
                    let limit = Instant::now() + Duration::from_secs(20);
                    while now.1.load(Ordering::SeqCst) < 8 && Instant::now() < limit {
                        std::thread::yield_now();
                    }
                    now.0.fetch_sub(1, Ordering::SeqCst);
                    i
                };
                run_in(p, job).unwrap()
            })
        })
        .collect();
    assert_eq!(jobs.into_iter().map(|j| j.join().unwrap()).sum::<usize>(), 999 * 1000 / 2);
    assert_eq!(now.1.load(Ordering::SeqCst), 8, "most jobs at the same time");
    until("the threads leave", || threads("coro-t-eight") == 0);
}

#[test]
fn a_lower_limit_is_kept_as_jobs_end() {
    let (p, rt) = (pool("coro-t-lower"), runtime(1));
    let (tells, held): (Vec<_>, Vec<_>) = (0..6).map(|_| held()).unzip();
    let waiting: Vec<_> = held.into_iter().map(|f| rt.spawn(move || run_in(p, f))).collect();
    until("all run", || p.stats().running.len() == 6);
    p.set_limit(2);
    let later: Vec<_> = (0..20).map(|i| rt.spawn(move || run_in(p, move || i).unwrap())).collect();
    until("they wait", || p.stats().queued == 20);
    drop(tells);
    waiting.into_iter().for_each(|w| w.join().unwrap().unwrap());
    assert_eq!(later.into_iter().map(|j| j.join().unwrap()).sum::<i32>(), 190);
    until("four have left", || p.stats().threads <= 2);
    assert_eq!(p.set_limit(0), 2);
    assert_eq!(p.set_limit(3), 1, "0 counts as 1");
}

/// The job that runs waits for one in the queue: without a thread for that, neither ever ends.
#[test]
fn a_higher_limit_starts_threads_for_what_waits() {
    let (p, rt) = (pool("coro-t-higher"), runtime(1));
    p.set_limit(1);
    let (tell, told) = mpsc::channel::<()>();
    let first = rt.spawn(move || run_in(p, move || told.recv().is_ok()));
    until("it runs", || p.stats().running.len() == 1);
    let second = rt.spawn(move || run_in(p, move || tell.send(()).is_ok()));
    until("it waits", || p.stats().queued == 1);
    p.set_limit(3);
    until("both have ended", || first.is_finished() && second.is_finished());
    assert!(first.join().unwrap().unwrap() && second.join().unwrap().unwrap());
    assert!(p.stats().threads <= 2, "a thread for nothing");
}

/// Cancelled in the middle of the job: the waiter ends at once, the job goes on with its own data, and what it returns
/// is dropped once.
#[test]
fn a_job_outlives_its_cancelled_waiter() {
    let (p, rt) = (pool("coro-t-outlive"), runtime(1));
    let (closures, results) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (c, r) = (Counts(closures.clone()), Counts(results.clone()));
    let (tell, told) = mpsc::channel::<()>();
    let waiter = rt.spawn(move || {
        let job = move || {
            let _own = c;
            let _ = told.recv();
            r
        };
        drop(run_in(p, job));
        unreachable!("the wait unwinds");
    });
    until("it runs", || p.stats().running.len() == 1);
    waiter.cancel();
    assert!(crate::scheduler::is_cancel(&*waiter.join().unwrap_err()));
    assert_eq!((closures.load(Ordering::SeqCst), results.load(Ordering::SeqCst)), (0, 0), "the job goes on");
    assert_eq!(p.stats().running.len(), 1);
    tell.send(()).unwrap();
    until("both are dropped", || results.load(Ordering::SeqCst) == 1 && p.stats().running.is_empty());
    assert_eq!((closures.load(Ordering::SeqCst), results.load(Ordering::SeqCst)), (1, 1));
}

/// Cancelled before its turn: it never runs, and its closure is dropped with the waiter.
#[test]
fn a_job_that_has_not_begun_is_dropped_with_its_waiter() {
    let (p, rt) = (pool("coro-t-unbegun"), runtime(1));
    p.set_limit(1);
    let (tell, block) = held();
    let first = rt.spawn(move || run_in(p, block));
    until("the only thread is busy", || p.stats().running.len() == 1);
    let (dropped, ran) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (d, r) = (Counts(dropped.clone()), ran.clone());
    let waiter = rt.spawn(move || {
        run_in(p, move || {
            let _d = d;
            r.fetch_add(1, Ordering::SeqCst)
        })
    });
    until("it waits", || p.stats().queued == 1);
    waiter.cancel();
    assert!(waiter.join().is_err());
    assert_eq!((dropped.load(Ordering::SeqCst), p.stats().queued), (1, 0));
    drop(tell);
    first.join().unwrap().unwrap();
    assert_eq!((dropped.load(Ordering::SeqCst), ran.load(Ordering::SeqCst)), (1, 0));
    // A cancellation that came before keeps even an idle pool from being asked.
    let (held_back, r) = (Arc::new(AtomicUsize::new(0)), ran.clone());
    let h = Counts(held_back.clone());
    let (go, gone) = mpsc::channel::<()>();
    let late = rt.spawn(move || {
        gone.recv().unwrap();
        run_in(p, move || {
            let _h = h;
            r.fetch_add(1, Ordering::SeqCst)
        })
    });
    late.cancel();
    go.send(()).unwrap_or(());
    assert!(late.join().is_err());
    assert_eq!((held_back.load(Ordering::SeqCst), ran.load(Ordering::SeqCst)), (1, 0));
}

#[test]
fn a_time_limit_around_a_job() {
    let (p, rt) = (pool("coro-t-limit"), runtime(1));
    rt.block_on(move || {
        let h = here().unwrap();
        let (tell, block) = held();
        let r = suspend::timeout_scope(h, Duration::from_millis(20), || run_in(p, block));
        assert!(matches!(r, Err(None)), "the wait unwinds to its owner");
        drop(tell);
        let r = suspend::timeout_scope(h, PATIENCE, || run_in(p, || 5));
        assert_eq!(r.unwrap().unwrap(), 5);
        // Only the inner one expires; the task goes on.
        let (tell, block) = held();
        let r = suspend::timeout_scope(h, PATIENCE, || {
            let r = suspend::timeout_scope(h, Duration::from_millis(20), || run_in(p, block));
            assert!(r.is_err());
            run_in(p, || 6).unwrap()
        });
        assert_eq!(r, Ok(6));
        drop(tell);
    });
}

#[test]
fn a_panic_of_the_job_goes_on_in_the_caller() {
    let (p, rt) = (single("coro-t-panic"), runtime(1));
    rt.block_on(move || {
        let payload = panic::catch_unwind(|| run_in(p, || panic::resume_unwind(Box::new(7u8)))).map(drop).unwrap_err();
        assert_eq!(payload.downcast_ref::<u8>(), Some(&7));
        assert_eq!(run_in(p, || 1).unwrap(), 1, "its thread goes on");
    });
    assert_eq!(p.stats().threads, 1);
}

/// A result that panics when it is dropped, with nobody there to take it, does not end the thread.
#[test]
fn a_result_that_panics_when_dropped() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic::resume_unwind(Box::new(()));
        }
    }
    let (p, rt) = (single("coro-t-bad"), runtime(1));
    let (tell, told) = mpsc::channel::<()>();
    let waiter = rt.spawn(move || {
        let r = run_in(p, move || {
            let _ = told.recv();
            Bad
        });
        std::mem::forget(r);
    });
    until("it runs", || p.stats().running.len() == 1);
    waiter.cancel();
    assert!(waiter.join().is_err());
    tell.send(()).unwrap();
    assert_eq!(rt.block_on(move || run_in(p, || 3).unwrap()), 3);
    assert_eq!(p.stats().threads, 1);
}

#[test]
fn jobs_inside_jobs_and_on_plain_threads_are_plain_calls() {
    let (p, rt) = (single("coro-t-nested"), runtime(1));
    let deep = move || run_in(p, move || run_in(p, || run_in(p, || 4).unwrap()).unwrap()).unwrap();
    assert_eq!(rt.block_on(deep), 4);
    let before = p.stats().threads;
    let me = std::thread::current().id();
    assert_eq!(run_in(p, || std::thread::current().id()).unwrap(), me);
    assert_eq!((before, p.stats().threads), (1, 1));
}

/// A job that waits for a task, which waits for its worker, which must not wait for the job.
#[test]
fn a_job_waits_as_a_plain_thread_does() {
    let (p, rt) = (pool("coro-t-plain"), runtime(1));
    let answer = rt.block_on(move || {
        let (tell, told): (Sender<u8>, Receiver<u8>) = mpsc::channel();
        let other = spawn(move || {
            until("nothing, a few slices", {
                let mut n = 0;
                move || {
                    n += 1;
                    n > 3
                }
            });
            tell.send(9).unwrap();
            2
        });
        run_in(p, move || (other.join().unwrap(), told.recv().unwrap())).unwrap()
    });
    assert_eq!(answer, (2, 9));
}

#[test]
fn no_job_begins_where_the_task_may_not_wait() {
    let (p, rt) = (pool("coro-t-noswitch"), runtime(1));
    rt.block_on(move || {
        let r = panic::catch_unwind(|| crate::scheduler::no_switch(|| run_in(p, || ())));
        assert!(r.is_err());
        assert_eq!((p.stats().threads, p.stats().queued), (0, 0));
    });
}

/// A destructor that needs a job done while its task unwinds gets it, also when the task was cancelled.
#[test]
fn a_job_while_the_task_unwinds() {
    struct Asks(&'static Pool, Arc<Mutex<Option<u8>>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            let job = || {
                std::thread::sleep(Duration::from_millis(1));
                8
            };
            *self.1.lock().unwrap() = run_in(self.0, job).ok();
        }
    }
    let (p, rt) = (pool("coro-t-unwind"), runtime(1));
    for cancelled in [false, true] {
        let seen = Arc::new(Mutex::new(None));
        let begun = Arc::new(AtomicUsize::new(0));
        let (s, b) = (seen.clone(), begun.clone());
        let task = rt.spawn(move || {
            let _asks = Asks(p, s);
            b.store(1, Ordering::SeqCst);
            if cancelled {
                until("never, but for the cancellation", || false);
            }
            panic::resume_unwind(Box::new(()));
        });
        if cancelled {
            until("it has begun", || begun.load(Ordering::SeqCst) == 1);
            task.cancel();
        }
        assert!(task.join().is_err());
        assert_eq!(*seen.lock().unwrap(), Some(8), "cancelled: {cancelled}");
    }
}

/// Cancellations at every point of a job's life: closure and result are dropped once each, and the pool comes to rest.
#[test]
fn whenever_the_waiter_is_cancelled_nothing_is_lost_or_dropped_twice() {
    let (p, rt) = (pool("coro-t-race"), runtime(2));
    p.set_limit(3);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = std::env::var("CORO_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(now.as_nanos() as u64);
    println!("seed {seed}");
    let mut random = seed | 1;
    let mut below = move |n: u64| {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    const ROUNDS: usize = 3000;
    let (closures, made, results) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut kept = 0;
    let mut waiting = Vec::new();
    for round in 0..ROUNDS {
        let (closure, m, r) = (Counts(closures.clone()), made.clone(), results.clone());
        let spin = below(2000);
        let job = move || {
            let _closure = closure;
            (0..spin).for_each(|_| std::hint::spin_loop());
            m.fetch_add(1, Ordering::SeqCst);
            Counts(r)
        };
        waiting.push(rt.spawn(move || run_in(p, job).unwrap()));
        if waiting.len() > 20 || round == ROUNDS - 1 {
            for task in waiting.drain(..) {
                if below(2) == 0 {
                    (0..below(3000)).for_each(|_| std::hint::spin_loop());
                    task.cancel();
                }
                kept += usize::from(task.join().is_ok());
            }
        }
    }
    until("every closure and every result is gone", || {
        closures.load(Ordering::SeqCst) == ROUNDS && results.load(Ordering::SeqCst) == made.load(Ordering::SeqCst)
    });
    until("the pool is at rest", || p.stats().running.is_empty() && p.stats().queued == 0);
    println!("{kept} of {ROUNDS} kept, {} ran", made.load(Ordering::SeqCst));
    assert!(kept > 0 && kept <= made.load(Ordering::SeqCst) && closures.load(Ordering::SeqCst) == ROUNDS);
}

#[test]
fn the_environment_is_a_number_or_an_error() {
    let e = pool::parse_limit("many".as_ref()).unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::InvalidInput);
    assert!(e.to_string().contains("CORO_BLOCKING_THREADS is \"many\"; set it to a number"), "{e}");
    assert!(pool::parse_limit("0".as_ref()).is_err() && pool::parse_limit("-1".as_ref()).is_err());
    assert_eq!(pool::parse_limit(" 12 ".as_ref()).unwrap(), 12);
}

#[test]
fn the_public_form_uses_threads_of_that_name() {
    let name = runtime(1).block_on(|| blocking(|| std::thread::current().name().map(str::to_owned)).unwrap());
    assert_eq!(name.as_deref(), Some("coro-blocking"));
    assert!(blocking_stats().threads >= 1);
}
