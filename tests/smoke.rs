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
