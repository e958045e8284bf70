//! Futures in tasks and tasks in futures, with tokio and futures-util as they are.

#[path = "../../util/mod.rs"]
mod util;

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use coro::future::{block_on, sleep, spawn_future};
use coro::net::unix::UnixStream;
use coro::net::{TcpListener, TcpStream};
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use util::{Rng, byte_at, masked, runtime, until, within};

const LIMIT: Duration = Duration::from_secs(30);

/// tokio on a thread of its own, until this goes.
struct Tokio {
    handle: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Tokio {
    fn new() -> Tokio {
        let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (stop, stopped) = oneshot::channel();
        let handle = rt.handle().clone();
        let thread = std::thread::spawn(move || drop(rt.block_on(stopped)));
        Tokio { handle, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Tokio {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Runs `f` in a task of two workers beside a tokio.
fn beside(f: impl FnOnce(&Tokio) + Send + 'static) {
    within(LIMIT, || {
        let tokio = Tokio::new();
        let rt = runtime(2);
        rt.block_on(move || f(&tokio));
    });
}

fn in_task(f: impl FnOnce() + Send + 'static) {
    within(LIMIT, || runtime(2).block_on(f));
}

/// A future that never ends, keeps its waker outside, and counts its end.
#[derive(Clone, Default)]
struct Kept {
    waker: Arc<Mutex<Option<Waker>>>,
    ended: Arc<AtomicUsize>,
}

struct Keeping(Kept);

impl Future for Keeping {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        *self.0.waker.lock().unwrap() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Kept {
    fn waker(&self) -> Waker {
        until(LIMIT, "the future is polled", || self.waker.lock().unwrap().is_some());
        self.waker.lock().unwrap().clone().unwrap()
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

#[test]
fn what_belongs_to_tokio_is_awaited_in_tasks() {
    beside(|tokio| {
        // From another task, and from tokio's thread.
        let (tx, rx) = oneshot::channel();
        let task = coro::spawn(move || block_on(rx));
        tx.send(1).unwrap();
        assert_eq!(task.join().unwrap(), Ok(1));
        let (tx, rx) = oneshot::channel();
        tokio.handle.spawn(async move { tx.send(2) });
        assert_eq!(block_on(rx), Ok(2));

        // A bounded channel each way: both sides wait for room and for messages.
        let (to, mut there) = mpsc::channel::<u32>(1);
        let (back, mut here) = mpsc::channel::<u32>(1);
        tokio.handle.spawn(async move {
            while let Some(n) = there.recv().await {
                if back.send(2 * n).await.is_err() {
                    break;
                }
            }
        });
        let sends = coro::spawn(move || (0..500).for_each(|n| block_on(to.send(n)).unwrap()));
        let mut got = 0;
        while let Some(n) = block_on(here.recv()) {
            assert_eq!(n, 2 * got);
            got += 1;
        }
        assert_eq!(got, 500);
        sends.join().unwrap();

        // Its handles.
        assert_eq!(block_on(tokio.handle.spawn(async { 7 })).unwrap(), 7);
        assert!(block_on(tokio.handle.spawn(async { panic!("as it should") })).unwrap_err().is_panic());
        let waits = tokio.handle.spawn(pending::<()>());
        waits.abort();
        assert!(block_on(waits).unwrap_err().is_cancelled());
    });
}

#[test]
fn our_tasks_are_awaited_under_tokio() {
    beside(|tokio| {
        let awaited = |task: coro::JoinHandle<u32>| block_on(tokio.handle.spawn(task)).unwrap();
        assert_eq!(awaited(coro::spawn(|| 1)).unwrap(), 1);
        let slow = coro::spawn(|| {
            coro::sleep(Duration::from_millis(5));
            2
        });
        assert_eq!(awaited(slow).unwrap(), 2);
        let panics = awaited(coro::spawn(|| panic!("as it should"))).unwrap_err();
        assert_eq!(panics.downcast_ref::<&str>(), Some(&"as it should"));
        let cancelled = coro::spawn(|| {
            coro::park();
            3
        });
        cancelled.cancel();
        assert!(coro::is_cancel(&*awaited(cancelled).unwrap_err()));
        assert_eq!(awaited(spawn_future(async { 4 })).unwrap(), 4);

        // Given up, taken up again elsewhere, and joined in the end.
        let (gate, mut handle) = (Arc::new(AtomicBool::new(false)), None);
        for how in 0..4 {
            let opened = gate.clone();
            let mut task = handle.take().unwrap_or_else(|| {
                coro::spawn(move || {
                    while !opened.load(Ordering::SeqCst) {
                        coro::park();
                    }
                    5
                })
            });
            handle = Some(match how {
                // Polled once and left.
                0 => block_on(tokio.handle.spawn(poll_fn(move |cx| {
                    assert!(Pin::new(&mut task).poll(cx).is_pending());
                    let task = std::mem::replace(&mut task, coro::spawn(|| 0));
                    Poll::Ready(task)
                })))
                .unwrap(),
                1 => {
                    let mut task = task;
                    block_on(poll_fn(|cx| {
                        assert!(Pin::new(&mut task).poll(cx).is_pending());
                        assert!(Pin::new(&mut task).poll(cx).is_pending());
                        Poll::Ready(())
                    }));
                    task
                }
                2 => {
                    let mut task = task;
                    assert!(coro::timeout(Duration::from_millis(2), || block_on(&mut task).map(drop)).is_err());
                    task
                }
                _ => {
                    gate.store(true, Ordering::SeqCst);
                    task.task().unpark();
                    task
                }
            });
        }
        assert_eq!(handle.take().unwrap().join().unwrap(), 5);

        // Dropped while it is awaited: the task goes on.
        let (kept, ran) = (Arc::new(()), Arc::new(AtomicBool::new(false)));
        let (inside, runs) = (kept.clone(), ran.clone());
        let mut task = coro::spawn(move || {
            coro::sleep(Duration::from_millis(2));
            runs.store(true, Ordering::SeqCst);
            inside
        });
        block_on(poll_fn(|cx| Poll::Ready(Pin::new(&mut task).poll(cx).is_pending())));
        drop(task);
        until(LIMIT, "the task's end", || ran.load(Ordering::SeqCst) && Arc::strong_count(&kept) == 1);
    });
}

#[test]
fn a_handle_gives_its_result_once() {
    in_task(|| {
        let mut task = coro::spawn(|| 1);
        assert_eq!(block_on(&mut task).unwrap(), 1);
        assert!(task.is_finished());
        let again = catch_unwind(AssertUnwindSafe(|| block_on(&mut task))).unwrap_err();
        assert!(again.downcast_ref::<String>().unwrap().contains("has given its result before"));
        assert!(catch_unwind(AssertUnwindSafe(|| task.join())).is_err());
    });
}

/// A joiner that is foreign code and panics costs nobody anything.
#[test]
fn a_waker_that_panics_does_not_end_the_worker() {
    struct Panics(AtomicUsize);
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("as it should");
        }
    }
    within(LIMIT, || {
        let rt = runtime(1);
        let panics = Arc::new(Panics(AtomicUsize::new(0)));
        let waker = Waker::from(panics.clone());
        let task = rt.spawn(coro::park);
        let mut handle = task;
        assert!(Pin::new(&mut handle).poll(&mut Context::from_waker(&waker)).is_pending());
        handle.task().unpark();
        until(LIMIT, "the waker is called", || panics.0.load(Ordering::SeqCst) == 1);
        handle.join().unwrap();
        assert_eq!(rt.block_on(|| 7), 7);
        drop(waker);
        until(LIMIT, "the waker is dropped", || Arc::strong_count(&panics) == 1);
    });
}

/// Every step waits for a wake from another thread, while others wake as they like.
#[test]
fn a_storm_of_wakes_loses_none() {
    const TASKS: usize = 8;
    const STEPS: usize = if cfg!(debug_assertions) { 2_000 } else { 10_000 };
    in_task(|| {
        // Steps given, steps taken, and who waits.
        type Steps = (AtomicUsize, AtomicUsize, Mutex<Option<Waker>>);
        let all: Arc<Vec<Steps>> = Arc::new((0..TASKS).map(|_| Steps::default()).collect());
        let over = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..2)
            .map(|n| {
                let (all, over) = (all.clone(), over.clone());
                std::thread::spawn(move || {
                    let mut rng = Rng::new(n);
                    while !over.load(Ordering::Relaxed) {
                        let (given, taken, waker) = &all[rng.below(TASKS)];
                        // One more step, if the one before has been taken; else a wake for nothing.
                        let done = taken.load(Ordering::SeqCst);
                        let _ = given.compare_exchange(done, done + 1, Ordering::SeqCst, Ordering::SeqCst);
                        let waker = waker.lock().unwrap().clone();
                        waker.into_iter().for_each(|w| if rng.below(2) == 0 { w.wake() } else { w.wake_by_ref() });
                    }
                })
            })
            .collect();
        let tasks: Vec<_> = (0..TASKS)
            .map(|i| {
                let all = all.clone();
                coro::spawn(move || {
                    let (given, taken, waker) = &all[i];
                    for step in 0..STEPS {
                        block_on(poll_fn(|cx| {
                            *waker.lock().unwrap() = Some(cx.waker().clone());
                            if given.load(Ordering::SeqCst) > step { Poll::Ready(()) } else { Poll::Pending }
                        }));
                        taken.store(step + 1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
        over.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn a_waker_outlives_its_wait_and_its_task() {
    in_task(|| {
        // The wait is over, the task goes on and waits for something else: `park` never returns for no reason.
        let kept = Kept::default();
        let (inside, parked) = (kept.clone(), Arc::new(AtomicUsize::new(0)));
        let parks = parked.clone();
        let task = coro::spawn(move || {
            assert!(coro::timeout(Duration::from_millis(1), || block_on(Keeping(inside))).is_err());
            parks.store(1, Ordering::SeqCst);
            coro::park();
            parks.store(2, Ordering::SeqCst);
        });
        let waker = kept.waker();
        until(LIMIT, "the task parks", || parked.load(Ordering::SeqCst) == 1);
        let slices = |id| {
            coro::inspect::Snapshot::take(&coro::inspect::Options::default())
                .tasks
                .iter()
                .find(|t| t.id == id)
                .map(|t| t.slices)
        };
        until(LIMIT, "it is parked", || coro::where_is(task.id()).is_some_and(|t| t.wait == "park"));
        let before = slices(task.id());
        for _ in 0..1000 {
            waker.wake_by_ref();
        }
        assert_eq!((parked.load(Ordering::SeqCst), slices(task.id())), (1, before), "a stale wake woke it");
        task.task().unpark();
        task.join().unwrap();
        assert_eq!((parked.load(Ordering::SeqCst), kept.ended()), (2, 1));

        // The task is gone and its cell is another's.
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let waker = waker.clone();
                std::thread::spawn(move || (0..5000).for_each(|_| waker.wake_by_ref()))
            })
            .collect();
        for _ in 0..200 {
            let tasks: Vec<_> = (0..10).map(|i| coro::spawn(move || i)).collect();
            tasks.into_iter().enumerate().for_each(|(i, t)| assert_eq!(t.join().unwrap(), i));
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
        waker.wake();
    });
    // So is its runtime.
    let kept = Kept::default();
    let inside = kept.clone();
    let rt = runtime(1);
    rt.spawn(move || block_on(Keeping(inside)));
    let waker = kept.waker();
    drop(rt);
    assert_eq!(kept.ended(), 1);
    waker.wake_by_ref();
    waker.wake();
}

#[test]
fn an_interrupt_drops_the_future() {
    in_task(|| {
        let kept = Kept::default();
        let inside = kept.clone();
        let task = coro::spawn(move || block_on(Keeping(inside)));
        let waker = kept.waker();
        assert_eq!(kept.ended(), 0);
        task.cancel();
        waker.wake();
        assert!(coro::is_cancel(&*task.join().unwrap_err()));
        assert_eq!(kept.ended(), 1);
        // Also one that always has something to do, and a loop over one that is ready at once.
        let busy = coro::spawn(|| {
            block_on(poll_fn::<(), _>(|cx| {
                cx.waker().wake_by_ref();
                Poll::Pending
            }))
        });
        let ready = coro::spawn(|| {
            loop {
                block_on(async {});
            }
        });
        coro::yield_slice();
        for task in [busy.task(), ready.task()] {
            task.cancel();
        }
        assert!(coro::is_cancel(&*busy.join().unwrap_err()));
        let ended: Result<(), _> = ready.join();
        assert!(coro::is_cancel(&*ended.unwrap_err()));
        // Never polled at all.
        let kept = Kept::default();
        let inside = kept.clone();
        let task = coro::spawn(move || {
            coro::current().unwrap().cancel();
            block_on(Keeping(inside));
        });
        assert!(coro::is_cancel(&*task.join().unwrap_err()));
        assert_eq!((kept.ended(), kept.waker.lock().unwrap().is_some()), (1, false));
    });
}

#[test]
fn views_say_what_is_polled_and_who_woke_it() {
    in_task(|| {
        let kept = Kept::default();
        let inside = kept.clone();
        let task = coro::spawn(move || block_on(Keeping(inside)));
        let says = |expected: &str| {
            let wait = || coro::where_is(task.id()).map(|t| masked(&t.wait)).unwrap_or_default();
            let end = Instant::now() + LIMIT;
            while wait() != expected && Instant::now() < end {
                coro::sleep(Duration::from_millis(1));
            }
            assert_eq!(wait(), expected);
        };
        let place = "future futures::Keeping tests/futures/tests/futures.rs:L";
        says(&format!("{place} (for T, polled 1 time; never woken)"));
        let waker = kept.waker();
        let wakes = coro::spawn_named("doorbell", move || {
            waker.wake();
            coro::park();
        });
        says(&format!("{place} (for T, polled 2 times; last woken by #N \"doorbell\", T ago)"));
        let waker = kept.waker();
        std::thread::spawn(move || waker.wake()).join().unwrap();
        says(&format!("{place} (for T, polled 3 times; last woken by thread N, T ago)"));
        let snapshot = coro::inspect::Snapshot::take(&coro::inspect::Options::default());
        let row = snapshot.tasks.iter().find(|t| t.id == task.id()).unwrap();
        assert_eq!(row.wait.as_ref().map(|w| w.kind), Some("future"));
        for task in [task.task(), wakes.task()] {
            task.cancel();
        }
    });
}

/// Not only that a future is waited for, but also the descriptor that it waits for, wherever descriptors are shown.
#[test]
fn views_say_on_which_descriptor_a_future_waits() {
    in_task(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let theirs = listener.accept().unwrap().0;
        let (here, there) = (ours.local_addr().unwrap(), ours.peer_addr().unwrap());
        let fd = std::os::fd::AsRawFd::as_raw_fd(&ours);
        let (go, gone) = oneshot::channel::<()>();
        let task = coro::spawn(move || {
            block_on(async {
                ours.read_exact(&mut [0; 1]).await.unwrap();
                ours.write_all(&[0; 20_000_000]).await.unwrap_err();
                let _ = gone.await;
            });
        });
        let waits = |what: &str| {
            let says = || coro::where_is(task.id()).is_some_and(|t| t.wait.contains(what));
            until(LIMIT, what, says);
        };
        let on_it = |direction: &str| {
            let events = coro::inspect::events();
            let one = events.iter().find(|e| e.waiting.iter().any(|w| w.task == task.id())).expect("an event");
            assert_eq!((one.fd, one.direction, one.waiting.len()), (fd, direction, 1));
            let peer = there.to_string();
            let snapshot = coro::inspect::Snapshot::take(&coro::inspect::Options::default());
            let wait = snapshot.tasks.into_iter().find(|t| t.id == task.id()).unwrap().wait.unwrap();
            assert_eq!((wait.kind, wait.fd, wait.peer), ("future", Some(fd), Some(peer)));
        };
        waits(&format!("(read fd {fd} {here} → {there}; for "));
        on_it("read");
        std::io::Write::write_all(&mut &theirs, b"x").unwrap();
        waits(&format!("(write fd {fd} {here} → {there}; for "));
        on_it("write");
        drop(theirs);
        // The next poll finds nothing to do but the channel.
        until(LIMIT, "it waits for no descriptor", || {
            coro::where_is(task.id()).is_some_and(|t| !t.wait.contains(" fd "))
        });
        assert!(!coro::inspect::events().iter().any(|e| e.waiting.iter().any(|w| w.task == task.id())));
        drop(go);
        task.join().unwrap();
    });
}

#[test]
fn a_plain_thread_is_blocked() {
    within(LIMIT, || {
        let (tx, rx) = oneshot::channel();
        let thread = std::thread::spawn(move || block_on(rx));
        tx.send(1).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(1));
        let rt = runtime(1);
        assert_eq!(block_on(rt.spawn(|| 2)).unwrap(), 2);
        // Without a task there is no worker whose timer it could be.
        let begun = Instant::now();
        block_on(sleep(Duration::from_millis(3)));
        assert!(begun.elapsed() >= Duration::from_millis(3));
    });
}

#[test]
fn sleeps_end_in_order_and_leave_nothing() {
    in_task(|| {
        let begun = Instant::now();
        let mut all: FuturesUnordered<_> = [60, 20, 40]
            .map(|ms| async move {
                sleep(Duration::from_millis(ms)).await;
                (ms, Instant::now())
            })
            .into_iter()
            .collect();
        for ms in [20, 40, 60] {
            let (which, at) = block_on(all.next()).unwrap();
            assert!(which == ms && at >= begun + Duration::from_millis(ms), "{which}");
        }
        // Dropped where it was armed, on another worker, and never.
        let mut far = sleep(Duration::from_secs(3600));
        assert!(block_on(poll_fn(|cx| Poll::Ready(Pin::new(&mut far).poll(cx).is_pending()))));
        std::thread::spawn(move || drop(far)).join().unwrap();
        let mut far = sleep(Duration::from_secs(3600));
        assert!(block_on(poll_fn(|cx| Poll::Ready(Pin::new(&mut far).poll(cx).is_pending()))));
        drop(far);
        assert!(sleep(Duration::MAX).deadline().is_none());
        assert!(coro::timeout(Duration::from_millis(1), || block_on(sleep(Duration::MAX))).is_err());
    });
}

fn fill(stream: u64, n: usize) -> Vec<u8> {
    (0..n as u64).map(|at| byte_at(stream, at)).collect()
}

/// One task reads and writes at the same time, more than what any buffer holds.
#[test]
fn streams_are_read_and_written_by_futures() {
    const SIZE: usize = 1 << 20;
    in_task(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let echoes = coro::spawn(move || {
            let mut clone = server.try_clone().unwrap();
            std::io::copy(&mut server, &mut clone).unwrap()
        });
        let (sent, mut got) = (fill(1, SIZE), Vec::new());
        let (mut reads, mut writes) = (&client, &client);
        let write = async {
            writes.write_all(&sent).await.unwrap();
            AsyncWriteExt::close(&mut writes).await.unwrap();
        };
        block_on(futures_util::future::join(write, async { reads.read_to_end(&mut got).await.unwrap() }));
        assert!(got == sent);
        assert_eq!(echoes.join().unwrap(), SIZE as u64);

        let (mut a, mut b) = UnixStream::pair().unwrap();
        let task = spawn_future(async move {
            let mut all = Vec::new();
            b.read_to_end(&mut all).await.map(|_| all)
        });
        block_on(async {
            a.write_all(b"one ").await.unwrap();
            sleep(Duration::from_millis(1)).await;
            a.write_all(b"two").await.unwrap();
        });
        drop(a);
        assert_eq!(task.join().unwrap().unwrap(), b"one two");
    });
}

#[test]
fn many_sockets_in_one_task() {
    in_task(|| {
        let mut all: FuturesUnordered<_> = FuturesUnordered::new();
        let mut theirs = Vec::new();
        for i in 0..50u8 {
            let (a, mut b) = UnixStream::pair().unwrap();
            theirs.push(a);
            all.push(async move {
                let mut byte = [0];
                b.read_exact(&mut byte).await.unwrap();
                (i, byte[0])
            });
        }
        let task = coro::spawn(move || {
            let mut n = 0;
            while let Some((i, byte)) = block_on(all.next()) {
                assert_eq!(byte, i ^ 0x55);
                n += 1;
            }
            n
        });
        for (i, a) in theirs.iter_mut().enumerate().rev() {
            std::io::Write::write_all(a, &[i as u8 ^ 0x55]).unwrap();
            coro::yield_slice();
        }
        assert_eq!(task.join().unwrap(), 50);
    });
}

#[test]
fn futures_over_sockets_end_with_the_socket_or_the_task() {
    in_task(|| {
        let (a, _b) = UnixStream::pair().unwrap();
        let a = Arc::new(a);
        // On whatever worker the reader is.
        let readers: Vec<_> = (0..2)
            .map(|w| {
                let a = a.clone();
                let read = move || block_on((&*a).read(&mut [0; 8]));
                coro::Builder::new().worker(w).spawn(read).unwrap()
            })
            .collect();
        for r in &readers {
            until(LIMIT, "it waits", || coro::where_is(r.id()).is_some_and(|t| t.wait.starts_with("future ")));
        }
        a.close().unwrap();
        for r in readers {
            assert_eq!(r.join().unwrap().unwrap_err().kind(), std::io::ErrorKind::NotConnected);
        }
        // A cancelled task drops what it was reading.
        let (mut a, mut b) = UnixStream::pair().unwrap();
        let task = coro::spawn(move || block_on(async move { a.read(&mut [0; 8]).await.map(drop) }));
        until(LIMIT, "it waits", || coro::where_is(task.id()).is_some_and(|t| t.wait.starts_with("future ")));
        task.cancel();
        assert!(coro::is_cancel(&*task.join().unwrap_err()));
        assert_eq!(std::io::Read::read(&mut b, &mut [0; 8]).unwrap(), 0);
    });
    // Outside of a task there is no reactor.
    let (mut a, _b) = UnixStream::pair().unwrap();
    let e = block_on(a.read(&mut [0; 8])).unwrap_err();
    assert_eq!(e.kind(), std::io::ErrorKind::Unsupported);
}
