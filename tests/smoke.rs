//! The shortest walk through everything.

use std::time::{Duration, Instant};

#[test]
fn spawn_join_sleep_timeout_cancel() {
    let n = coro::run(|| {
        let tasks: Vec<_> = (0..1000u64).map(|i| coro::spawn(move || i)).collect();
        let sum: u64 = tasks.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!(sum, 499_500);
        let t = Instant::now();
        coro::sleep(Duration::from_millis(20));
        assert!(t.elapsed() >= Duration::from_millis(20));
        let r = coro::timeout(Duration::from_millis(10), || coro::sleep(Duration::from_secs(100)));
        assert!(r.is_err());
        let parked = coro::spawn(|| coro::sleep(Duration::from_secs(100)));
        coro::yield_slice();
        parked.cancel();
        assert!(coro::is_cancel(&*parked.join().unwrap_err()));
        assert!(coro::spawn(|| panic!("boom")).join().is_err());
        7
    });
    assert_eq!(n, 7);
}

/// A task that waits only while it holds a lock that is always free, and one whose channel is never empty, still end.
#[test]
fn cancellation_reaches_tasks_that_never_wait_without_a_guard() {
    let rt = coro::Runtime::builder().workers(2).build().unwrap();
    let m = coro::sync::Mutex::new(0u64);
    let begun = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = |n: &std::sync::Arc<std::sync::atomic::AtomicU32>| {
        let n = n.clone();
        move || {
            n.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    };
    let (one, two) = (count(&begun), count(&begun));
    let locker = rt.spawn(move || {
        one();
        loop {
            let mut n = m.lock().unwrap();
            coro::sleep(Duration::from_millis(1));
            *n += 1;
        }
    });
    let (tx, rx) = coro::sync::mpsc::channel();
    // It never gives its worker away: only the checkpoint in `recv` can end it.
    let eater = rt.spawn(move || {
        two();
        loop {
            tx.send(1u8).unwrap();
            let _: u8 = rx.recv().unwrap();
        }
    });
    while begun.load(std::sync::atomic::Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    eater.cancel();
    locker.cancel();
    let eater: Result<(), _> = eater.join();
    let locker: Result<(), _> = locker.join();
    assert!(coro::is_cancel(&*eater.unwrap_err()));
    assert!(coro::is_cancel(&*locker.unwrap_err()));
}
