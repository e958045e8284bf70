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
    coro::Runtime::builder().workers(1).build().unwrap().block_on(|| {
        let m = coro::sync::Mutex::new(0u64);
        let locker = coro::spawn(move || {
            loop {
                let mut n = m.lock().unwrap();
                coro::sleep(Duration::from_millis(1));
                *n += 1;
            }
        });
        let (tx, rx) = coro::sync::mpsc::channel();
        let eater = coro::spawn(move || {
            loop {
                tx.send(1u8).unwrap();
                tx.send(2u8).unwrap();
                let _: u8 = rx.recv().unwrap();
                std::thread::yield_now();
            }
        });
        coro::sleep(Duration::from_millis(20));
        locker.cancel();
        eater.cancel();
        let locker: Result<(), _> = locker.join();
        let eater: Result<(), _> = eater.join();
        assert!(coro::is_cancel(&*locker.unwrap_err()));
        assert!(coro::is_cancel(&*eater.unwrap_err()));
    });
}
