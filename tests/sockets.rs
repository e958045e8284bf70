//! What the user sets on sockets, the way from and to std, and what std's types do not have: on plain threads, with one
//! worker and with four.

mod util;

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::net::unix::UnixStream;
use coro::net::{Shutdown, TcpListener, TcpStream};
use util::sockets::{LATE, LONG, blocking, everywhere, expires, is_parked, on, parked, tcp_pair};
use util::{Rng, passes, role, until};

#[test]
fn time_limits_end_one_call_each() {
    everywhere(|| {
        let limit = Duration::from_millis(30);
        let (mut a, mut b) = tcp_pair();
        assert_eq!((a.read_timeout().unwrap(), a.write_timeout().unwrap()), (None, None));
        a.set_read_timeout(Some(limit)).unwrap();
        assert_eq!((a.read_timeout().unwrap(), a.write_timeout().unwrap()), (Some(limit), None));
        let mut buf = [0; 64];
        expires(limit, || a.read(&mut buf));
        expires(limit, || a.peek(&mut buf));
        // Nothing is lost and nothing lingers.
        b.write_all(b"abc").unwrap();
        until(LONG, "it comes", || a.peek(&mut buf).is_ok());
        assert_eq!(a.read(&mut buf).unwrap(), 3);
        expires(limit, || a.read(&mut buf));
        // Clones have the limit in common, both ways.
        let mut clone = a.try_clone().unwrap();
        expires(limit, || clone.read(&mut buf));
        clone.set_read_timeout(Some(limit * 2)).unwrap();
        expires(limit * 2, || a.read(&mut buf));
        // Room to write.
        b.set_write_timeout(Some(limit)).unwrap();
        let block = vec![7; 1 << 16];
        let mut sent = 3;
        expires(limit, || {
            loop {
                sent += b.write(&block)?;
            }
            #[allow(unreachable_code, reason = "names the type")]
            Ok(())
        });
        b.set_write_timeout(None).unwrap();
        drop(clone);
        a.set_read_timeout(None).unwrap();
        b.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        a.read_to_end(&mut all).unwrap();
        assert_eq!(all.len() + 3, sent);
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            assert_eq!(set(&a, Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
            set(&a, Some(Duration::MAX)).unwrap();
            set(&a, Some(Duration::from_nanos(1))).unwrap();
        }
        // The smallest limit is one all the same.
        let (a, _b) = tcp_pair();
        a.set_read_timeout(Some(Duration::from_nanos(1))).unwrap();
        expires(Duration::ZERO, || (&a).read(&mut buf));
        let taken = std::net::TcpStream::from(a);
        assert!(taken.read_timeout().unwrap().is_some(), "std's type keeps it");
    });
}

/// A busy worker looks at its timers more often than at its poll; it must not say that nothing came in time.
#[test]
fn what_has_come_in_time_is_read_even_by_a_late_worker() {
    on(1, || {
        let limit = Duration::from_millis(2);
        let mut in_time = 0;
        for _ in 0..200 {
            let (a, mut b) = tcp_pair();
            a.set_read_timeout(Some(limit)).unwrap();
            let start = Arc::new(std::sync::OnceLock::new());
            let tells = start.clone();
            let reader = coro::spawn(move || {
                tells.set(Instant::now()).unwrap();
                (&a).read(&mut [0; 8])
            });
            while start.get().is_none_or(|s| s.elapsed() < limit - Duration::from_micros(50)) {
                coro::yield_slice();
            }
            b.write_all(b"x").unwrap();
            let came_in_time = start.get().unwrap().elapsed() < limit;
            while !reader.is_finished() {
                coro::yield_slice();
            }
            match reader.join().unwrap() {
                Ok(n) => assert_eq!(n, 1),
                Err(e) => assert!(!came_in_time, "{e}"),
            }
            in_time += usize::from(came_in_time);
        }
        println!("{in_time} of 200 came in time");
    });
}

#[test]
fn time_limits_and_timeout_nest() {
    for workers in [1, 4] {
        on(workers, || {
            let (short, long) = (Duration::from_millis(20), Duration::from_secs(30));
            let (mut a, _b) = tcp_pair();
            let mut buf = [0; 8];
            // The socket's limit is the shorter one: `timeout` sees nothing of it.
            a.set_read_timeout(Some(short)).unwrap();
            coro::timeout(long, || expires(short, || a.read(&mut buf))).unwrap();
            // The other way round: its error first, then the unwinding.
            a.set_read_timeout(Some(long)).unwrap();
            let start = Instant::now();
            let mut first = None;
            let late = coro::timeout(short, || {
                first = a.read(&mut buf).err().map(|e| e.kind());
                drop(a.read(&mut buf));
                unreachable!("the second read unwinds")
            });
            assert!(late.unwrap_err().into_value().is_none());
            assert_eq!(first, Some(ErrorKind::TimedOut));
            assert!(start.elapsed() < LATE);
            // The socket is as good as before.
            a.set_read_timeout(Some(short)).unwrap();
            expires(short, || a.read(&mut buf));
        });
    }
}

/// Handles that came from std's clones are clones: what one of them does on its way back must not make the others block
/// their worker, nor look non-blocking. (Other systems have no number by which to know a socket again.)
#[cfg(target_os = "linux")]
#[test]
fn stds_clones_are_clones_here_and_back() {
    on(1, || {
        type Std = std::os::unix::net::UnixStream;
        let limit = Duration::from_millis(20);
        let waits = |s: &UnixStream| {
            s.set_read_timeout(Some(limit)).unwrap();
            expires(limit, || (&*s).read(&mut [0]));
        };
        // Both from std; one goes back.
        let (a, _b) = Std::pair().unwrap();
        let (x, y) = (UnixStream::from(a.try_clone().unwrap()), UnixStream::from(a));
        waits(&x);
        waits(&y);
        x.set_nonblocking(true).unwrap();
        let e = (&y).read(&mut [0]).unwrap_err();
        assert_eq!((e.kind(), y.read_timeout().unwrap()), (ErrorKind::WouldBlock, x.read_timeout().unwrap()));
        x.set_nonblocking(false).unwrap();
        let back = Std::from(x);
        waits(&y);
        assert!(!blocking(back.as_raw_fd()));
        drop(y);
        assert!(blocking(back.as_raw_fd()));
        // There and back while a clone stays, which then goes.
        let (a, _b) = UnixStream::pair().unwrap();
        let clone = a.try_clone().unwrap();
        let a = UnixStream::from(Std::from(a));
        drop(clone);
        waits(&a);
        // One that coro made goes while there is a descriptor that it does not know of.
        let (a, _b) = UnixStream::pair().unwrap();
        let other = UnixStream::from(a.as_fd().try_clone_to_owned().unwrap());
        other.set_nonblocking(false).unwrap();
        let back = Std::from(a);
        waits(&other);
        drop(other);
        assert!(blocking(back.as_raw_fd()));
        // A mode of the user's own is kept.
        back.set_nonblocking(true).unwrap();
        let there = UnixStream::from(back);
        assert_eq!((&there).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(!blocking(Std::from(there).as_raw_fd()));
    });
}

/// Every limit ends at its own time, and one that is not reached leaves nothing behind.
#[test]
fn many_limits_at_once_keep_their_times() {
    on(2, || {
        let worst = Arc::new(std::sync::Mutex::new(Duration::ZERO));
        let tasks: Vec<_> = (0..100u64)
            .map(|i| {
                let worst = worst.clone();
                coro::spawn(move || {
                    let (mut a, mut b) = tcp_pair();
                    let limit = Duration::from_millis(5 + i % 20);
                    a.set_read_timeout(Some(limit)).unwrap();
                    for round in 0..5 {
                        let start = Instant::now();
                        if round % 2 == 1 {
                            b.write_all(b"x").unwrap();
                            assert_eq!(a.read(&mut [0; 8]).unwrap(), 1);
                        } else {
                            expires(limit, || a.read(&mut [0; 8]));
                            let late = start.elapsed() - limit;
                            let mut worst = worst.lock().unwrap();
                            *worst = late.max(*worst);
                        }
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
        println!("the latest of 300 limits was {:?} late", worst.lock().unwrap());
    });
}

/// Readers whose limits pass at the very moment a byte comes: each byte is read once, and no waiter behind one that
/// left is forgotten.
#[test]
fn limits_that_race_with_bytes_lose_none() {
    for workers in [1, 4] {
        on(workers, move || {
            let mut rng = Rng::from_environment();
            const BYTES: usize = 3000;
            let (a, mut b) = tcp_pair();
            let (a, got) = (Arc::new(a), Arc::new(AtomicUsize::new(0)));
            a.set_read_timeout(Some(Duration::from_micros(200))).unwrap();
            let patient = a.clone();
            let readers: Vec<_> = (0..6usize)
                .map(|i| {
                    let (a, got) = (a.clone(), got.clone());
                    let read = move || {
                        let mut expired = 0;
                        loop {
                            match (&*a).read(&mut [0; 3]) {
                                Ok(0) => return expired,
                                Ok(n) => _ = got.fetch_add(n, Ordering::SeqCst),
                                Err(e) => {
                                    assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
                                    expired += 1;
                                }
                            }
                        }
                    };
                    coro::Builder::new().worker(i % workers).spawn(read).unwrap()
                })
                .collect();
            for _ in 0..BYTES {
                b.write_all(&[1]).unwrap();
                if rng.below(3) == 0 {
                    coro::sleep(Duration::from_micros(rng.below(400) as u64));
                }
            }
            // Now nobody's limit passes any more: whoever waits must be woken.
            patient.set_read_timeout(None).unwrap();
            until(LONG, "every byte is read", || got.load(Ordering::SeqCst) == BYTES);
            b.shutdown(Shutdown::Write).unwrap();
            let expired: usize = readers.into_iter().map(|r| r.join().unwrap()).sum();
            assert!(expired > 0, "no limit passed");
            println!("{expired} limits passed beside {BYTES} bytes");
        });
    }
}

#[test]
fn connecting_has_a_limit() {
    everywhere(|| {
        let any = "127.0.0.1:1".parse().unwrap();
        let e = TcpStream::connect_timeout(&any, Duration::ZERO).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidInput, "{e}");
        // A backlog that is full: further attempts get no answer.
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let at = full.local_addr().unwrap().as_socket().unwrap();
        let limit = Duration::from_millis(100);
        let mut connected = Vec::new();
        let start = loop {
            let start = Instant::now();
            match TcpStream::connect_timeout(&at, limit) {
                Ok(s) => connected.push(s),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::TimedOut, "{e}");
                    break start;
                }
            }
            assert!(connected.len() < 100, "the backlog never fills");
        };
        assert!((limit..limit + LATE).contains(&start.elapsed()), "{:?}", start.elapsed());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        drop(TcpStream::connect_timeout(&at, Duration::MAX).unwrap());
        drop(listener);
        let e = TcpStream::connect_timeout(&at, LONG).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ConnectionRefused, "{e}");
    });
}

#[test]
fn in_non_blocking_mode_nothing_waits() {
    everywhere(|| {
        let would_block = |e: io::Error| assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        would_block(listener.accept().unwrap_err());
        would_block(listener.accept_many(3).unwrap_err());
        let mut a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut accepted = None;
        until(LONG, "the connection comes", || {
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let (mut b, _) = accepted.unwrap();
        a.set_nonblocking(true).unwrap();
        let mut buf = [0; 1 << 16];
        would_block(a.read(&mut buf).unwrap_err());
        would_block(a.peek(&mut buf).unwrap_err());
        // A limit does not make it wait.
        a.set_read_timeout(Some(LONG)).unwrap();
        would_block(a.read(&mut buf).unwrap_err());
        // What the worker has not been told by its poll is read all the same.
        b.write_all(b"12").unwrap();
        until(LONG, "loopback delivers", || a.peek(&mut buf).is_ok());
        assert_eq!(a.read(&mut buf[..1]).unwrap(), 1);
        assert_eq!(a.read(&mut buf).unwrap(), 1);
        would_block(a.read(&mut buf).unwrap_err());
        // Clones share the mode; the accepted stream has its own.
        let mut clone = a.try_clone().unwrap();
        would_block(clone.read(&mut buf).unwrap_err());
        loop {
            match clone.write(&buf) {
                Ok(n) => assert!(n > 0),
                Err(e) => break would_block(e),
            }
        }
        clone.set_nonblocking(false).unwrap();
        a.set_read_timeout(None).unwrap();
        let writes = std::thread::spawn(move || {
            b.write_all(b"later").unwrap();
            b
        });
        let mut five = [0; 5];
        a.read_exact(&mut five).unwrap();
        assert_eq!(&five, b"later");
        writes.join().unwrap();
    });
}

/// A loop over a non-blocking socket is a busy one; its peer on the same worker must get its turn nevertheless.
#[test]
fn asking_again_and_again_gives_way() {
    on(1, || {
        let (mut a, mut b) = tcp_pair();
        a.set_nonblocking(true).unwrap();
        let writer = coro::spawn(move || b.write_all(b"x").unwrap());
        let start = Instant::now();
        loop {
            match a.read(&mut [0; 8]) {
                Ok(n) => break assert_eq!(n, 1),
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
            assert!(start.elapsed() < LATE, "the writer never ran");
        }
        writer.join().unwrap();
    });
}

#[test]
fn sockets_go_to_std_and_back_with_their_modes() {
    everywhere(|| {
        let (a, b) = tcp_pair();
        assert!(!blocking(a.as_raw_fd()), "underneath every descriptor is non-blocking");
        // A blocking one comes out blocking, by every way.
        let a = std::net::TcpStream::from(a);
        assert!(blocking(a.as_raw_fd()));
        let a = TcpStream::from(a);
        let a = OwnedFd::from(a);
        assert!(blocking(a.as_raw_fd()));
        let fd = TcpStream::from(a).into_raw_fd();
        assert!(blocking(fd));
        // SAFETY: just given away by its owner.
        let a = unsafe { TcpStream::from_raw_fd(fd) };
        assert!(!blocking(fd));
        // Non-blocking mode is kept in both directions.
        a.set_nonblocking(true).unwrap();
        let a = std::net::TcpStream::from(a);
        assert!(!blocking(a.as_raw_fd()));
        let mut a = TcpStream::from(a);
        assert_eq!(a.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        a.set_nonblocking(false).unwrap();
        let a = std::net::TcpStream::from(a);
        assert!(blocking(a.as_raw_fd()));
        // Limits as well, to the kernel's precision.
        a.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        let a = TcpStream::from(a);
        let limit = a.read_timeout().unwrap().unwrap();
        assert!((Duration::from_millis(40)..Duration::from_millis(51)).contains(&limit), "{limit:?}");
        expires(limit, || (&a).read(&mut [0]));
        a.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        let a = std::net::TcpStream::from(a);
        assert_eq!(a.write_timeout().unwrap(), Some(Duration::from_secs(2)));
        // While a clone stays, the descriptor stays as it must be; the last one leaves it blocking.
        let clones = [b.try_clone().unwrap(), b.try_clone().unwrap()];
        let b = std::net::TcpStream::from(b);
        assert!(!blocking(b.as_raw_fd()));
        let [one, two] = clones;
        drop(one);
        assert!(!blocking(b.as_raw_fd()));
        drop(two);
        assert!(blocking(b.as_raw_fd()));
        let b = TcpStream::from(b);
        let clone = b.try_clone().unwrap();
        let (b, clone) = (std::net::TcpStream::from(b), std::net::TcpStream::from(clone));
        assert!(blocking(b.as_raw_fd()) && blocking(clone.as_raw_fd()));

        let listener = std::net::TcpListener::from(TcpListener::bind("127.0.0.1:0").unwrap());
        assert!(blocking(listener.as_raw_fd()));
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from(listener);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let std_again = std::net::TcpListener::from(listener);
        assert_eq!(std_again.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

/// What std's type does on a descriptor that has been waited on here.
#[test]
fn a_descriptor_given_away_under_way_is_forgotten_by_every_worker() {
    on(4, || {
        for worker in 0..4 {
            let (mut a, b) = tcp_pair();
            let b = Arc::new(b);
            let shared = b.clone();
            let reader = parked(worker, move || (&*shared).read(&mut [0]).unwrap());
            a.write_all(b"x").unwrap();
            assert_eq!(reader.join().unwrap(), 1);
            let mut b = std::net::TcpStream::from(Arc::into_inner(b).unwrap());
            a.write_all(b"yz").unwrap();
            let mut two = [0; 2];
            b.read_exact(&mut two).unwrap();
            assert_eq!(&two, b"yz");
            let b = TcpStream::from(b);
            a.write_all(b"w").unwrap();
            assert_eq!((&b).read(&mut two).unwrap(), 1);
        }
    });
}

/// Counts another task's turns while one reads what is always there.
fn turns_beside(reads: usize, own: Option<u32>) -> usize {
    on(1, move || {
        let (a, mut b) = UnixStream::pair().unwrap();
        b.write_all(&vec![1; reads]).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let counter = coro::spawn(move || {
            let mut turns = 0;
            while !ends.load(Ordering::Relaxed) {
                turns += 1;
                coro::yield_slice();
            }
            turns
        });
        coro::yield_slice();
        let reader = coro::spawn(move || {
            if own.is_some() {
                assert_eq!(coro::set_own_selfishness(own), None);
                assert_eq!(coro::set_own_selfishness(own), own);
            }
            // The first one may wait or not.
            for _ in 0..reads {
                assert_eq!((&a).read(&mut [0]).unwrap(), 1);
            }
            over.store(true, Ordering::Relaxed);
        });
        reader.join().unwrap();
        counter.join().unwrap()
    })
}

#[test]
fn selfishness_is_how_many_ready_calls_a_task_makes_in_a_row() {
    const NAME: &str = "selfishness_is_how_many_ready_calls_a_task_makes_in_a_row";
    // The number of the process would be seen by other tests.
    if role().is_none() {
        passes(NAME, "child", LONG);
        return;
    }
    const READS: usize = 2000;
    // A few turns belong to starting and ending.
    let about = |turns: usize, calls: usize| {
        let expected = READS / calls;
        assert!((expected..=expected + 8).contains(&turns), "{turns} turns beside {READS} reads, {calls} in a row");
    };
    about(turns_beside(READS, None), 32);
    about(turns_beside(READS, Some(1)), 1);
    about(turns_beside(READS, Some(1000)), 1000);
    assert_eq!(coro::set_selfishness(4), 32);
    about(turns_beside(READS, None), 4);
    about(turns_beside(READS, Some(100)), 100);
    assert_eq!(coro::set_selfishness(32768), 4);
    about(turns_beside(READS, None), 32768);
    for wrong in [0, 32769] {
        let panic = std::panic::catch_unwind(|| coro::set_selfishness(wrong)).unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().contains("1 to 32768"));
        assert!(std::panic::catch_unwind(|| coro::set_own_selfishness(Some(wrong))).is_err());
    }
    assert_eq!(coro::set_own_selfishness(Some(5)), None, "a plain thread has none");
    assert_eq!(coro::set_selfishness(32), 32768);
}

#[test]
fn bursts_are_accepted_at_once() {
    everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        assert!(listener.accept_many(0).unwrap().is_empty());
        let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(at).unwrap()).collect();
        let first = listener.accept_many(3).unwrap();
        assert_eq!(first.len(), 3);
        let rest = listener.accept_many(100).unwrap();
        assert_eq!(rest.len(), 2);
        for ((mut conn, peer), client) in first.into_iter().chain(rest).zip(&clients) {
            assert_eq!(peer, client.local_addr().unwrap());
            conn.write_all(b"x").unwrap();
            assert_eq!((&*client).read(&mut [0; 8]).unwrap(), 1);
        }
        // It waits for the first one.
        let late = std::thread::spawn(move || std::net::TcpStream::connect(at).unwrap());
        assert_eq!(listener.accept_many(2).unwrap().len(), 1);
        late.join().unwrap();
    });
}

#[test]
fn exact_receives_keep_what_came_before_the_end() {
    everywhere(|| {
        let (a, mut b) = tcp_pair();
        let long: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
        let sent = long.clone();
        let writer = std::thread::spawn(move || {
            b.write_all(&sent).unwrap();
            b.write_all(b"rest").unwrap();
        });
        assert_eq!(a.recv_exact(0).unwrap(), b"");
        assert!(a.recv_exact(long.len()).unwrap() == long);
        let e = a.recv_exact(usize::MAX).unwrap_err();
        assert_eq!((e.received(), e.kind(), e.wanted()), (&b"rest"[..], ErrorKind::UnexpectedEof, usize::MAX));
        assert!(e.to_string().contains("received 4 of "), "{e}");
        let e = io::Error::from(e);
        assert_eq!(e.kind(), ErrorKind::UnexpectedEof);
        let inner = e.into_inner().unwrap().downcast::<coro::net::RecvExactError>().unwrap();
        assert_eq!(inner.into_parts().0, b"rest");
        writer.join().unwrap();
        // A time limit is an end like any other.
        let (a, mut b) = tcp_pair();
        a.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        b.write_all(b"ab").unwrap();
        let e = a.recv_exact(3).unwrap_err();
        assert_eq!((e.received(), e.kind()), (&b"ab"[..], ErrorKind::WouldBlock));
    });
}

#[test]
fn an_interrupt_leaves_what_was_received_in_the_error() {
    on(1, || {
        let (a, mut b) = tcp_pair();
        b.write_all(b"abc").unwrap();
        let task = parked(0, move || a.recv_exact(10));
        task.cancel();
        let e = task.join().unwrap().unwrap_err();
        assert_eq!(e.received(), b"abc");
        assert!(e.error().get_ref().unwrap().is::<coro::CancelledError>());
    });
}

/// Connecting to several addresses ends with the first interrupt instead of going on to the next.
#[test]
fn a_time_limit_is_not_lost_among_several_addresses() {
    on(1, || {
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        full.listen(0).unwrap();
        let at = full.local_addr().unwrap().as_socket().unwrap();
        let filling: Vec<_> = (0..8).map(|_| coro::spawn(move || TcpStream::connect(at).map(drop))).collect();
        until(LONG, "the backlog fills", || filling.iter().all(|t| t.is_finished() || is_parked(t.id())));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let second = listener.local_addr().unwrap();
        let late = coro::timeout(Duration::from_millis(30), || TcpStream::connect(&[at, second][..]));
        let e = late.unwrap_err().into_value().expect("error first").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TimedOut);
        filling.iter().for_each(|t| _ = t.cancel());
        filling.into_iter().for_each(|t| drop(t.join()));
    });
}

/// What std's types are, ours must be: they are moved into threads, shared, and caught.
#[test]
fn sockets_are_what_std_s_are() {
    use std::panic::{RefUnwindSafe, UnwindSafe};
    fn check<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + std::fmt::Debug>() {}
    check::<std::net::TcpStream>();
    check::<TcpStream>();
    check::<TcpListener>();
    check::<coro::net::Incoming<'static>>();
    check::<coro::net::IntoIncoming>();
    check::<coro::SimultaneousError>();
}

/// A program that was written for std, as far as types go.
#[test]
fn the_rest_of_the_surface_is_std_s() {
    everywhere(|| {
        let listener = TcpListener::bind::<&str>("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let a = TcpStream::connect::<std::net::SocketAddr>(at).unwrap();
        let (b, peer) = listener.accept().unwrap();
        assert_eq!((peer, b.peer_addr().unwrap()), (a.local_addr().unwrap(), a.local_addr().unwrap()));
        a.set_nodelay(true).unwrap();
        assert!(a.nodelay().unwrap() && !b.nodelay().unwrap());
        for ttl in [3, 200] {
            a.set_ttl(ttl).unwrap();
            listener.set_ttl(ttl).unwrap();
            assert_eq!((a.ttl().unwrap(), listener.ttl().unwrap()), (ttl, ttl));
        }
        assert!(a.take_error().unwrap().is_none() && listener.take_error().unwrap().is_none());
        assert_eq!(a.linger().unwrap(), None);
        let fd = |s: &dyn AsRawFd| s.as_raw_fd();
        assert_eq!(format!("{a:?}"), format!("TcpStream {{ addr: {peer}, peer: {at}, fd: {} }}", fd(&a)));
        assert_eq!(format!("{listener:?}"), format!("TcpListener {{ addr: {at}, fd: {} }}", fd(&listener)));
        let e = TcpListener::bind(at).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AddrInUse);
        let raw = std::error::Error::source(&e).unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(raw.raw_os_error(), Some(libc::EADDRINUSE));
        // A reset: an error for the reader, and for whoever asks.
        b.set_linger(Some(Duration::ZERO)).unwrap();
        assert_eq!(b.linger().unwrap(), Some(Duration::ZERO));
        drop(b);
        let e = (&a).read(&mut [0]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ConnectionReset);
        let connects = std::thread::spawn(move || drop(std::net::TcpStream::connect(at).unwrap()));
        let mut incoming = listener.into_incoming();
        assert!(incoming.next().unwrap().is_ok());
        connects.join().unwrap();
    });
}

/// A signal a thousand times a second, without `SA_RESTART`: limits of plain threads are neither short nor endless.
#[test]
fn signals_do_not_move_time_limits() {
    const NAME: &str = "signals_do_not_move_time_limits";
    if role().is_none() {
        passes(NAME, "child", LONG);
        return;
    }
    static HANDLED: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn count(_: libc::c_int) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler only adds to a counter; the structures live across the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()), 0);
    }
    everywhere(|| {
        let (a, _b) = tcp_pair();
        let limit = Duration::from_millis(60);
        a.set_read_timeout(Some(limit)).unwrap();
        for _ in 0..5 {
            expires(limit, || (&a).read(&mut [0]));
        }
    });
    let handled = HANDLED.load(Ordering::Relaxed);
    assert!(handled > 300, "no storm: {handled}");
}
