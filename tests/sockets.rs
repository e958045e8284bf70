//! What the user sets on sockets, closing them under their waiters, refusing a second waiter, and the way from and to
//! std: on plain threads, with one worker and with four.

mod util;

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::net::unix::{UnixListener, UnixStream};
use coro::net::{Shutdown, TcpListener, TcpStream};
use util::{passes, role, runtime, until, within};

const LONG: Duration = Duration::from_secs(60);
/// What no time limit may be late by, however busy the machine is.
const LATE: Duration = Duration::from_secs(5);

/// Runs `f` as a task of a fresh runtime, with a deadline.
#[track_caller]
fn on<T: Send + 'static>(workers: usize, f: impl FnOnce() -> T + Send + 'static) -> T {
    within(LONG, move || runtime(workers).block_on(f))
}

/// Runs `f` on a plain thread, with one worker and with four.
#[track_caller]
fn everywhere(f: fn()) {
    within(LONG, f);
    on(1, f);
    on(4, f);
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (a, listener.accept().unwrap().0)
}

fn is_parked(id: u64) -> bool {
    coro::where_is(id).is_some_and(|t| t.to_string().contains("parked"))
}

/// Spawns on the given worker and waits until the task is parked.
fn parked<T: Send + 'static>(worker: usize, f: impl FnOnce() -> T + Send + 'static) -> coro::JoinHandle<T> {
    let task = coro::Builder::new().worker(worker).spawn(f).unwrap();
    until(LONG, "it parks", || is_parked(task.id()));
    task
}

fn blocking(fd: RawFd) -> bool {
    // SAFETY: no pointer is passed.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    assert!(flags >= 0);
    flags & libc::O_NONBLOCK == 0
}

/// How long `f` took to end with what an expired time limit gives.
#[track_caller]
fn expires<T: std::fmt::Debug>(limit: Duration, f: impl FnOnce() -> io::Result<T>) {
    let start = Instant::now();
    let e = f().expect_err("the time limit passes");
    let took = start.elapsed();
    assert_eq!((e.kind(), e.raw_os_error()), (ErrorKind::WouldBlock, Some(libc::EAGAIN)), "{e}");
    assert!(took >= limit, "{limit:?} were over after {took:?}");
    assert!(took < limit + LATE, "{limit:?} took {took:?}");
}

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
        let sent = loop {
            match clone.write(&buf) {
                Ok(n) => assert!(n > 0),
                Err(e) => break would_block(e),
            }
        };
        let () = sent;
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

#[track_caller]
fn was_closed<T: std::fmt::Debug>(result: io::Result<T>) {
    let e = result.expect_err("a closed socket gives errors");
    assert_eq!(e.kind(), ErrorKind::NotConnected, "{e}");
    assert!(e.to_string().contains("closed by another task"), "{e}");
}

#[test]
fn closing_wakes_waiters_of_every_worker_and_of_threads() {
    for (workers, closer) in [(1, Some(0)), (4, Some(0)), (4, Some(3)), (4, None), (1, None)] {
        on(workers, move || {
            let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
            let at = listener.local_addr().unwrap();
            let (stream, mut peer) = tcp_pair();
            let stream = Arc::new(stream);
            let full = vec![0; 1 << 20];
            let mut waiters = Vec::new();
            for w in 0..workers {
                for _ in 0..2 {
                    let l = listener.clone();
                    waiters.push(parked(w, move || was_closed(l.accept())));
                    let s = stream.clone();
                    waiters.push(parked(w, move || was_closed((&*s).read(&mut [0]))));
                    let (s, full) = (stream.clone(), full.clone());
                    waiters.push(parked(w, move || {
                        was_closed((0..100).try_for_each(|_| (&*s).write_all(&full)));
                    }));
                }
            }
            // Threads that are (most likely) in `poll`; whatever they do just then, the outcome is the same.
            let polls = Arc::new(AtomicUsize::new(0));
            let (l, s, p) = (listener.clone(), stream.clone(), polls.clone());
            let accepts = std::thread::spawn(move || {
                p.fetch_add(1, Ordering::SeqCst);
                was_closed(l.accept());
            });
            let p = polls.clone();
            let reads = std::thread::spawn(move || {
                p.fetch_add(1, Ordering::SeqCst);
                was_closed((&*s).read(&mut [0]));
            });
            until(LONG, "the threads begin", || polls.load(Ordering::SeqCst) == 2);
            let (l, s) = (listener.clone(), stream.clone());
            let close = move || {
                l.close().unwrap();
                s.close().unwrap();
            };
            match closer {
                Some(w) => coro::Builder::new().worker(w).spawn(close).unwrap().join().unwrap(),
                None => std::thread::spawn(close).join().unwrap(),
            }
            waiters.into_iter().for_each(|w| w.join().unwrap());
            until(LONG, "the threads end", || accepts.is_finished() && reads.is_finished());
            accepts.join().unwrap();
            reads.join().unwrap();
            // And so does whatever comes later.
            was_closed(listener.accept());
            was_closed(listener.accept_many(1));
            was_closed(listener.try_clone());
            was_closed((&*stream).read(&mut [0]));
            was_closed((&*stream).write(b"x"));
            was_closed(stream.peek(&mut [0]));
            was_closed(stream.local_addr());
            was_closed(stream.set_nonblocking(true));
            was_closed(stream.set_read_timeout(None));
            listener.close().unwrap();
            // The connection is gone although the values are still there.
            assert!(TcpStream::connect(at).is_err());
            let mut all = Vec::new();
            let _ = peer.read_to_end(&mut all);
            assert!(peer.write_all(&full).and_then(|()| peer.write_all(&full)).is_err());
        });
    }
}

#[test]
fn an_accept_loop_ends_when_its_listener_is_closed() {
    everywhere(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let at = listener.local_addr().unwrap();
        let l = listener.clone();
        let server = std::thread::spawn(move || l.incoming().take_while(Result::is_ok).count());
        for _ in 0..3 {
            TcpStream::connect(at).unwrap().read_to_end(&mut Vec::new()).unwrap();
        }
        listener.close().unwrap();
        until(LONG, "the loop ends", || server.is_finished());
        assert_eq!(server.join().unwrap(), 3);
        assert!(TcpStream::connect(at).is_err());
        // The same for unix sockets.
        let path = std::env::temp_dir().join(format!("coro-close-{}-{:?}", std::process::id(), Instant::now()));
        let listener = UnixListener::bind(&path).unwrap();
        listener.close().unwrap();
        was_closed(listener.accept());
        assert!(UnixStream::connect(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        a.close().unwrap();
        was_closed((&a).read(&mut [0]));
        assert_eq!(b.read(&mut [0]).unwrap(), 0);
    });
}

/// A port that was asked for by number is held until the descriptor is closed for good; a shutdown is not enough.
#[test]
fn a_closed_listener_lets_go_of_its_port() {
    fn listen(port: u16) -> io::Result<socket2::Socket> {
        let s = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        s.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        s.listen(1)?;
        Ok(s)
    }
    everywhere(|| {
        // Somebody else may take the port in between, but not time and again.
        let listener = (0..20)
            .find_map(|_| {
                let any = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
                TcpListener::bind(any).ok()
            })
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listen(port).unwrap_err().kind(), ErrorKind::AddrInUse);
        listener.close().unwrap();
        drop(listen(port).expect("the port is free"));
        drop(listener);
    });
}

/// The number stays taken until the value goes; dropping it then takes nobody else's away.
#[test]
fn a_closed_socket_keeps_its_number_to_itself() {
    everywhere(|| {
        let (a, _b) = tcp_pair();
        let number = a.as_raw_fd();
        a.close().unwrap();
        let others: Vec<_> = (0..20).map(|_| UnixStream::pair().unwrap()).collect();
        assert!(others.iter().all(|(x, y)| x.as_raw_fd() != number && y.as_raw_fd() != number));
        assert_eq!(a.as_raw_fd(), number);
        drop(a);
        for (mut x, mut y) in others {
            x.write_all(b"x").unwrap();
            y.read_exact(&mut [0]).unwrap();
        }
    });
}

/// Sockets come and go under waiters while others take over their numbers at once.
#[test]
fn numbers_that_are_reused_meet_no_old_registration() {
    on(4, || {
        let rounds = 150;
        let tasks: Vec<_> = (0..8usize)
            .map(|lane| {
                let work = move || {
                    for round in 0..rounds {
                        let (a, mut b) = UnixStream::pair().unwrap();
                        let a = Arc::new(a);
                        let readers: Vec<_> = (0..3)
                            .map(|k| {
                                let a = a.clone();
                                let read = move || (&*a).read(&mut [0; 4]);
                                coro::Builder::new().worker((lane + k) % 4).spawn(read).unwrap()
                            })
                            .collect();
                        match round % 3 {
                            // Closed under them, at whatever point they are.
                            0 => a.close().unwrap(),
                            1 => drop(b.write_all(b"abc")),
                            _ => drop(b.shutdown(Shutdown::Write)),
                        }
                        if round % 3 == 1 {
                            until(LONG, "it is read", || readers.iter().any(|r| r.is_finished()));
                            a.close().unwrap();
                        }
                        drop(a);
                        for reader in readers {
                            match reader.join().unwrap() {
                                Ok(n) => assert!(round % 3 != 0 || n == 0),
                                Err(e) => assert_eq!(e.kind(), ErrorKind::NotConnected, "{e}"),
                            }
                        }
                    }
                };
                coro::Builder::new().worker(lane % 4).spawn(work).unwrap()
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn a_second_waiter_is_refused_by_name() {
    #[track_caller]
    fn names(e: &io::Error, refused: &str, waiting: &str, verb: &str) {
        assert_eq!(e.kind(), ErrorKind::ResourceBusy);
        let inner = e.get_ref().unwrap().downcast_ref::<coro::SimultaneousError>().unwrap();
        assert_eq!((inner.refused_name(), inner.waiting_name()), (Some(refused), Some(waiting)));
        assert_eq!(inner.is_write(), verb == "write");
        let who = |id: u64, name| if id == 0 { format!("thread \"{name}\"") } else { format!("task #{id} \"{name}\"") };
        let text = format!(
            "{} may not wait to {verb} fd {}: {} already does",
            who(inner.refused_id(), refused),
            inner.fd(),
            who(inner.waiting_id(), waiting)
        );
        assert_eq!(e.to_string(), text);
    }
    for workers in [1, 4] {
        on(workers, move || {
            let (a, mut b) = tcp_pair();
            let a = Arc::new(a);
            let named = |name: &str, worker: usize, s: &Arc<TcpStream>| {
                let s = s.clone();
                let read = move || (&*s).read(&mut [0; 8]);
                coro::Builder::new().name(name.to_owned()).worker(worker % workers).spawn(read).unwrap()
            };
            // Off at first: both wait and both are served.
            let both = [named("one", 0, &a), named("two", 0, &a)];
            until(LONG, "both park", || both.iter().all(|t| is_parked(t.id())));
            b.write_all(b"x").unwrap();
            until(LONG, "one is served", || both.iter().any(|t| t.is_finished()));
            b.write_all(b"x").unwrap();
            both.into_iter().for_each(|t| assert_eq!(t.join().unwrap().unwrap(), 1));

            a.set_deny_simultaneous(true);
            let first = named("first", 0, &a);
            until(LONG, "it parks", || is_parked(first.id()));
            // On the same worker, on another, through a clone, and on a plain thread.
            for worker in [0, 1, 3] {
                names(&named("second", worker, &a).join().unwrap().unwrap_err(), "second", "first", "read");
            }
            let clone = Arc::new(a.try_clone().unwrap());
            names(&named("cloned", 2, &clone).join().unwrap().unwrap_err(), "cloned", "first", "read");
            let s = a.clone();
            let thread = std::thread::Builder::new().name("outside".into());
            let refused = thread.spawn(move || (&*s).read(&mut [0]).unwrap_err()).unwrap().join().unwrap();
            names(&refused, "outside", "first", "read");
            // The other direction is another queue.
            let full = vec![0; 1 << 22];
            let s = a.clone();
            let writes = move || (&*s).write_all(&full);
            let writer = coro::Builder::new().name("writes").spawn(writes).unwrap();
            until(LONG, "it parks", || is_parked(writer.id()));
            let e = coro::Builder::new().name("too").spawn({
                let s = a.clone();
                move || (&*s).write(b"x").unwrap_err()
            });
            names(&e.unwrap().join().unwrap(), "too", "writes", "write");
            // Whoever leaves makes room, for whatever reason.
            first.cancel();
            drop(first.join());
            let next = named("next", 1, &a);
            until(LONG, "it parks", || is_parked(next.id()));
            names(&named("third", 0, &a).join().unwrap().unwrap_err(), "third", "next", "read");
            b.write_all(b"x").unwrap();
            assert_eq!(next.join().unwrap().unwrap(), 1);
            writer.cancel();
            drop(writer.join());
            a.set_deny_simultaneous(false);
            let both = [named("one", 0, &a), named("two", 1, &a)];
            until(LONG, "both park", || both.iter().all(|t| is_parked(t.id())));
            a.close().unwrap();
            both.into_iter().for_each(|t| was_closed(t.join().unwrap()));
        });
    }
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
        filling.iter().for_each(|t| t.cancel());
        filling.into_iter().for_each(|t| drop(t.join()));
    });
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
