//! Closing a socket under those who wait on it, refusing a second waiter, and numbers of descriptors that are used again.

mod util;

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use coro::net::unix::{UnixListener, UnixStream};
use coro::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use util::sockets::{LONG, everywhere, is_parked, on, parked, tcp_pair, was_closed};
use util::until;

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

/// The kernel tells a non-blocking receive nothing of the end; the clone waits on another worker, or on a thread.
#[test]
fn receivers_on_clones_of_a_closed_udp_socket_end() {
    on(2, || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let [a, b, c] = [(); 3].map(|()| socket.try_clone().unwrap());
        let tasks = [a, b].map(|s| parked(1, move || s.recv_from(&mut [0; 8]).map(drop)));
        let thread = std::thread::spawn(move || (c.recv(&mut [0; 8]).map(drop), c));
        socket.close().unwrap();
        until(LONG, "they end", || tasks.iter().all(|t| t.is_finished()) && thread.is_finished());
        for ended in tasks.map(|t| t.join().unwrap()) {
            assert_eq!(ended.unwrap_err().kind(), ErrorKind::NotConnected);
        }
        let (ended, c) = thread.join().unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::NotConnected);
        c.set_nonblocking(true).unwrap();
        assert_eq!(c.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
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
            let full = vec![0; 1 << 26];
            let s = a.clone();
            let writes = move || (&*s).write_all(&full);
            let writer = coro::Builder::new().name("writes").spawn(writes).unwrap();
            until(LONG, "it parks", || is_parked(writer.id()));
            // More than there can be room for: who need not wait is not refused.
            let e = coro::Builder::new().name("too").spawn({
                let s = a.clone();
                move || (&*s).write_all(&vec![0; 1 << 26]).unwrap_err()
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
