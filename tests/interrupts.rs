//! The table of states at `coro::Task`: what `cancel` finds and says in each state, what happens then, and that the end
//! of a runtime does the same to all its tasks. The races of delivery are in `tests/cancel.rs`.

mod harness;

use std::any::Any;
use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use coro::CancelOutcome::{AlreadyRequested, Ended, NeverStarts, Requested};
use coro::JoinHandle;
use coro::net::unix::UnixStream;
use coro::sync::Mutex;
use coro::sync::mpsc::channel;
use harness::{PATIENCE, runtime, task_until, until, until_parked};

#[track_caller]
fn cancelled<T>(r: Result<T, Box<dyn Any + Send>>) {
    let payload = r.err().expect("the task was to be cancelled");
    assert!(coro::is_cancel(&*payload), "ended by a panic, not by a cancellation");
}

/// A task on the worker of its caller, which has not started while its caller has not waited.
fn beside<T: 'static>(f: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    coro::spawn_local(f)
}

#[test]
fn a_task_that_has_ended_is_left_alone() {
    runtime(1).block_on(|| {
        let t = beside(|| 5);
        let task = t.task();
        task_until("it ended", || t.is_finished());
        assert_eq!((t.cancel(), task.cancel_now()), (Ended, Ended));
        assert_eq!(t.join().unwrap(), 5, "the result stands");
        // The cell is free, then another task's: neither is touched.
        assert_eq!(task.cancel(), Ended);
        let others: Vec<_> = (0..100).map(|i| beside(move || i)).collect();
        assert_eq!((task.cancel(), task.unpark()), (Ended, false));
        for (i, t) in others.into_iter().enumerate() {
            assert_eq!(t.join().unwrap(), i);
        }
    });
}

#[test]
fn an_unstarted_task_never_starts() {
    runtime(1).block_on(|| {
        struct Captured(Rc<Cell<bool>>);
        impl Drop for Captured {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let (ran, dropped) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (r, captured) = (ran.clone(), Captured(dropped.clone()));
        let t = beside(move || {
            let _captured = &captured;
            r.set(true);
        });
        assert_eq!(t.cancel(), NeverStarts);
        assert!(!dropped.get(), "cancel does not run code of the task");
        assert_eq!(t.cancel(), AlreadyRequested);
        assert_eq!(t.task().cancel_now(), NeverStarts, "a stronger request is a new one");
        cancelled(t.join());
        assert!(dropped.get() && !ran.get());
    });
}

#[test]
fn a_runnable_task_is_interrupted_at_its_next_wait() {
    runtime(1).block_on(|| {
        let stage = Rc::new(Cell::new(0));
        let s = stage.clone();
        let t = beside(move || {
            s.set(1);
            // The first wait is over when the cancellation comes; the second one raises it.
            coro::thread::park();
            s.set(2);
            coro::thread::park();
            s.set(3);
        });
        coro::yield_slice();
        assert_eq!(stage.get(), 1);
        assert!(t.task().unpark());
        assert_eq!(t.cancel(), Requested);
        assert_eq!(stage.get(), 1, "it only runs when its turn comes");
        cancelled(t.join());
        assert_eq!(stage.get(), 2);
    });
}

#[test]
fn a_running_task_runs_on_to_its_next_wait() {
    runtime(2).block_on(|| {
        let (runs, told, noticed) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (r, o, n) = (runs.clone(), told.clone(), noticed.clone());
        let elsewhere = 1 - coro::current_worker().unwrap();
        let t = coro::Builder::new().worker(elsewhere).spawn(move || {
            r.store(true, Ordering::SeqCst);
            while !o.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            n.store(coro::is_cancelled(), Ordering::SeqCst);
            coro::yield_slice();
            unreachable!("a cancelled task passed a wait");
        });
        let t: JoinHandle<()> = t.unwrap();
        task_until("it runs", || runs.load(Ordering::SeqCst));
        assert_eq!(t.cancel(), Requested);
        told.store(true, Ordering::SeqCst);
        cancelled(t.join());
        assert!(noticed.load(Ordering::SeqCst), "is_cancelled did not tell");
    });
}

#[test]
fn a_parked_task_is_woken() {
    runtime(1).block_on(|| {
        let lock = Arc::new(Mutex::new(0));
        let (send, receive) = channel::<u8>();
        let (mut a, _b) = UnixStream::pair().unwrap();
        let guard = lock.lock().unwrap();
        let l = lock.clone();
        let waits: Vec<(&str, JoinHandle<()>)> = vec![
            ("park", beside(coro::thread::park)),
            ("sleep", beside(|| coro::sleep(Duration::MAX))),
            ("recv", beside(move || _ = receive.recv())),
            ("lock", beside(move || drop(l.lock()))),
        ];
        for (wait, t) in waits {
            until_parked(t.task(), wait);
            let begun = Instant::now();
            assert_eq!(t.cancel(), Requested, "{wait}");
            assert_eq!(t.cancel(), AlreadyRequested, "{wait}");
            cancelled(t.join());
            assert!(begun.elapsed() < PATIENCE, "{wait} went on for {:?}", begun.elapsed());
        }
        assert!(send.send(1).is_err(), "the receiver went with its task");
        drop(guard);
        // I/O: the error first.
        let io = beside(move || {
            let e = a.read(&mut [0]).unwrap_err();
            assert!(e.get_ref().is_some_and(|e| e.is::<coro::CancelledError>()), "{e:?}");
            7
        });
        until_parked(io.task(), "read");
        assert_eq!(io.cancel(), Requested);
        assert_eq!(io.join().unwrap(), 7);
    });
}

#[test]
fn a_task_that_cancels_itself_goes_on_to_its_next_wait() {
    runtime(1).block_on(|| {
        let t = beside(|| {
            let me = coro::current().unwrap();
            assert_eq!(me.cancel(), Requested);
            assert_eq!(me.cancel(), AlreadyRequested);
            assert_eq!(me.cancel_now(), Requested);
            assert_eq!(me.cancel_now(), AlreadyRequested);
            assert_eq!(me.cancel(), AlreadyRequested);
            coro::yield_slice();
            unreachable!("a cancelled task passed a wait");
        });
        cancelled::<()>(t.join());
    });
}

#[test]
fn a_shielded_task_waits_on() {
    runtime(1).block_on(|| {
        let stage = Rc::new(Cell::new(0));
        let s = stage.clone();
        let t = beside(move || {
            coro::shield(|| {
                coro::thread::park();
                s.set(1);
            });
            coro::yield_slice();
            s.set(2);
        });
        until_parked(t.task(), "park");
        assert_eq!(t.cancel(), Requested);
        coro::yield_slice();
        coro::yield_slice();
        assert!(!t.is_finished() && stage.get() == 0, "a shield was broken");
        t.task().unpark();
        cancelled(t.join());
        assert_eq!(stage.get(), 1);
    });
}

#[test]
fn a_task_with_a_write_guard_waits_on_unless_now() {
    runtime(1).block_on(|| {
        for now in [false, true] {
            let lock = Arc::new(Mutex::new(0));
            let l = lock.clone();
            let t = beside(move || {
                let mut guard = l.lock().unwrap();
                coro::thread::park();
                *guard = 1;
                drop(guard);
                coro::yield_slice();
                unreachable!("a cancelled task passed a wait");
            });
            until_parked(t.task(), "park");
            let said = if now { t.task().cancel_now() } else { t.cancel() };
            assert_eq!(said, Requested);
            if !now {
                coro::yield_slice();
                coro::yield_slice();
                assert!(!t.is_finished(), "unwound while it held a guard");
                t.task().unpark();
            }
            cancelled::<()>(t.join());
            assert_eq!(lock.is_poisoned(), now);
            assert_eq!(*lock.lock().unwrap_or_else(|e| e.into_inner()), i32::from(!now));
        }
    });
}

#[test]
fn a_task_that_unwinds_is_left_to_it() {
    runtime(1).block_on(|| {
        struct WaitsInDrop(Rc<Cell<u8>>);
        impl Drop for WaitsInDrop {
            fn drop(&mut self) {
                coro::thread::park();
                self.0.set(1);
            }
        }
        let stage = Rc::new(Cell::new(0));
        let s = stage.clone();
        let t = beside(move || {
            let _waits = WaitsInDrop(s);
            panic!("on purpose");
        });
        until_parked(t.task(), "park");
        assert_eq!(t.cancel(), Requested);
        coro::yield_slice();
        coro::yield_slice();
        assert!(!t.is_finished(), "a destructor was cut short");
        t.task().unpark();
        let r: Result<(), _> = t.join();
        let payload = r.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"on purpose"), "the panic stays what it was");
        assert_eq!(stage.get(), 1);
    });
}

#[test]
fn scoped_and_thread_handles_say_the_same() {
    runtime(1).block_on(|| {
        coro::scope(|s| {
            let t = s.spawn(coro::thread::park);
            until_parked(t.task(), "park");
            assert_eq!((t.cancel(), t.task().cancel()), (Requested, AlreadyRequested));
            cancelled(t.join());
        });
        let t = coro::thread::spawn(coro::thread::park);
        until_parked(t.task(), "park");
        assert_eq!((t.cancel(), t.task().cancel()), (Requested, AlreadyRequested));
        cancelled(t.join());
    });
}

#[test]
fn the_end_of_a_runtime_is_the_same_for_all() {
    /// Says that its task is over.
    struct Over(Arc<StdMutex<Vec<&'static str>>>, &'static str);
    impl Drop for Over {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(self.1);
        }
    }
    let over = Arc::new(StdMutex::new(Vec::new()));
    let started = Arc::new(AtomicUsize::new(0));
    let leave = Arc::new(AtomicBool::new(false));
    let rt = runtime(1);
    let end = |name| Over(over.clone(), name);
    let count = |n: &Arc<AtomicUsize>| n.fetch_add(1, Ordering::SeqCst);
    let (o, s) = (end("ended before"), started.clone());
    rt.spawn(move || drop((o, count(&s)))).join().unwrap();
    let (o, s) = (end("parked"), started.clone());
    let parked = rt.spawn(move || {
        let _o = o;
        count(&s);
        coro::thread::park();
    });
    let (o, s) = (end("shielded"), started.clone());
    let shielded = rt.spawn(move || {
        let _o = o;
        count(&s);
        coro::shield(|| coro::sleep(Duration::from_millis(5)));
        coro::thread::park();
    });
    until_parked(parked.task(), "park");
    // It keeps the only worker busy until the end has begun, so the last one is unstarted then.
    let (o, s, l) = (end("running"), started.clone(), leave.clone());
    let running = rt.spawn(move || {
        let _o = o;
        count(&s);
        while !coro::is_cancelled() {
            std::hint::spin_loop();
        }
        l.store(true, Ordering::SeqCst);
        coro::thread::park();
    });
    until("all but the last have started", || started.load(Ordering::SeqCst) == 4);
    let (o, s) = (end("unstarted"), started.clone());
    let unstarted = rt.spawn(move || {
        let _o = o;
        count(&s);
    });
    drop(rt);
    assert!(leave.load(Ordering::SeqCst), "the running task was not told");
    for t in [parked, shielded, running, unstarted] {
        assert_eq!(t.cancel(), Ended, "outlived its runtime");
        cancelled(t.join());
    }
    assert_eq!(started.load(Ordering::SeqCst), 4, "an unstarted task ran");
    let mut over = over.lock().unwrap().clone();
    over.sort_unstable();
    assert_eq!(over, ["ended before", "parked", "running", "shielded", "unstarted"]);
}
