//! Sockets under the conditions that lose bytes and wake-ups elsewhere: data and end in one edge, cuts, resets,
//! sharing, signals, full queues.
//!
//! Longer than 800 lines because each case is a small program of its own, and they share their helpers.

mod util;

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coro::net::unix::{UnixListener, UnixStream};
use coro::net::{Shutdown, TcpListener, TcpStream};
use util::{Rng, again, byte_at, passes, role, runtime, until, within};

const LONG: Duration = Duration::from_secs(60);

/// Runs `f` as a task of a fresh runtime, with a deadline.
#[track_caller]
fn on<T: Send + 'static>(workers: usize, f: impl FnOnce() -> T + Send + 'static) -> T {
    within(LONG, move || runtime(workers).block_on(f))
}

/// Two ends of a TCP connection: one for tasks, one of std.
fn tcp_pair() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    (ours.into(), theirs)
}

/// The same with unix sockets.
fn unix_pair() -> (UnixStream, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    (ours.into(), theirs)
}

fn reset_on_close(s: &impl AsRawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the structure lives across the call, with its size.
    let done = unsafe {
        let len = size_of_val(&linger) as libc::socklen_t;
        libc::setsockopt(s.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len)
    };
    assert_eq!(done, 0);
}

/// Keeps the one worker busy while `meddle` runs on a plain thread, so that everything it does meets a parked reader
/// in one look at the poll.
fn behind_the_workers_back(meddle: impl FnOnce() + Send + 'static) {
    let done = Arc::new(AtomicBool::new(false));
    let tells = done.clone();
    let thread = std::thread::spawn(move || {
        meddle();
        tells.store(true, Ordering::SeqCst);
    });
    while !done.load(Ordering::SeqCst) {
        std::hint::spin_loop();
    }
    thread.join().unwrap();
}

/// A reader that is parked on `ours` meets what `meddle` does in one edge; returns everything it read.
fn reads_in_one_edge<S: Send + Sync + 'static>(
    ours: S,
    room: usize,
    mut read: impl FnMut(&S, &mut [u8]) -> io::Result<usize> + Send + 'static,
    meddle: impl FnOnce() + Send + 'static,
    mut enough: impl FnMut(&[u8]) -> bool + Send + 'static,
) -> Vec<u8> {
    let parked = Arc::new(AtomicBool::new(false));
    let tells = parked.clone();
    let reader = coro::Builder::new()
        .worker(0)
        .spawn(move || {
            let mut all = Vec::new();
            let mut buf = vec![0; room];
            tells.store(true, Ordering::SeqCst);
            let ended = coro::timeout(Duration::from_secs(20), || {
                loop {
                    let n = read(&ours, &mut buf).expect("a read");
                    all.extend_from_slice(&buf[..n]);
                    if n == 0 || enough(&all) {
                        break;
                    }
                }
            });
            assert!(ended.is_ok(), "no end was seen; {} bytes were read", all.len());
            all
        })
        .unwrap();
    while !parked.load(Ordering::SeqCst) || !coro::where_is(reader.id()).is_some_and(|t| is_parked(&t)) {
        coro::yield_slice();
    }
    behind_the_workers_back(meddle);
    reader.join().unwrap()
}

fn is_parked(t: &coro::TaskWhere) -> bool {
    t.to_string().contains("parked")
}

#[test]
fn data_and_end_in_one_edge_are_both_seen() {
    on(1, || {
        for (sent, room) in [(10, 4096), (4096, 4096), (4097, 4096), (10, 10), (10, 3), (1, 4096)] {
            for _ in 0..10 {
                let (ours, mut theirs) = tcp_pair();
                let write = move || {
                    theirs.write_all(&vec![7; sent]).unwrap();
                    theirs.shutdown(Shutdown::Write).unwrap();
                    // Kept open: only the end of stream is to be seen, no reset.
                    std::mem::forget(theirs);
                };
                let got = reads_in_one_edge(ours, room, |mut s, buf| s.read(buf), write, |_| false);
                assert_eq!(got, vec![7; sent]);

                let (ours, mut theirs) = unix_pair();
                let write = move || {
                    theirs.write_all(&vec![7; sent]).unwrap();
                    drop(theirs);
                };
                let got = reads_in_one_edge(ours, room, |mut s, buf| s.read(buf), write, |_| false);
                assert_eq!(got, vec![7; sent]);
            }
        }
    });
}

/// A TCP read ends short at the urgent mark although more lies behind it, and no further edge comes.
#[test]
fn urgent_data_hides_nothing_behind_it() {
    on(1, || {
        for _ in 0..20 {
            let (ours, mut theirs) = tcp_pair();
            let write = move || {
                theirs.write_all(b"before").unwrap();
                // SAFETY: one byte of a live array.
                let n = unsafe { libc::send(theirs.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
                assert_eq!(n, 1);
                theirs.write_all(b"behind").unwrap();
                std::mem::forget(theirs);
            };
            let got = reads_in_one_edge(ours, 4096, |mut s, buf| s.read(buf), write, |all| all.len() >= 12);
            assert_eq!(got, b"beforebehind");
        }
    });
}

/// Sends `bytes` with a descriptor.
fn send_with_descriptor(socket: RawFd, bytes: &[u8], fd: RawFd) {
    // SAFETY: every pointer in the message is to a local that lives across the call; the buffer for the control message
    // is large enough and aligned for its header.
    unsafe {
        let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut control = [0u64; 8];
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        assert_eq!(libc::sendmsg(socket, &raw const message, 0), bytes.len() as isize);
    }
}

/// Reads and counts the descriptors that came along.
fn receive_with_descriptors(socket: RawFd, buf: &mut [u8]) -> io::Result<(usize, usize)> {
    // SAFETY: as in `send_with_descriptor`; descriptors received are closed.
    unsafe {
        let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
        let mut control = [0u64; 8];
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let n = libc::recvmsg(socket, &raw mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC);
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return Ok((n as usize, 0));
        }
        libc::close(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned());
        Ok((n as usize, 1))
    }
}

#[test]
fn messages_with_descriptors_end_reads_short_but_not_for_good() {
    on(1, || {
        for _ in 0..20 {
            let (ours, mut theirs) = unix_pair();
            let write = move || {
                for i in 0..5u8 {
                    send_with_descriptor(theirs.as_raw_fd(), &[i; 10], 2);
                    theirs.write_all(&[i; 3]).unwrap();
                }
                std::mem::forget(theirs);
            };
            let expected: Vec<u8> = (0..5u8).flat_map(|i| [i; 13]).collect();
            let got = reads_in_one_edge(ours, 4096, |mut s, buf| s.read(buf), write, |all| all.len() >= 65);
            assert_eq!(got, expected);
        }
        // A program that takes the descriptors itself and waits by `read`: each call finds what the other left.
        let (ours, mut theirs) = unix_pair();
        let sender = std::thread::spawn(move || {
            for i in 0..100u8 {
                theirs.write_all(&[i]).unwrap();
                send_with_descriptor(theirs.as_raw_fd(), &[i; 7], 2);
            }
        });
        let (mut bytes, mut descriptors, mut buf) = (0, 0, [0; 64]);
        loop {
            match (&ours).read(&mut buf[..1]).unwrap() {
                0 => break,
                n => bytes += n,
            }
            while let Ok((n, fds)) = receive_with_descriptors(ours.as_raw_fd(), &mut buf) {
                if n == 0 {
                    break;
                }
                bytes += n;
                descriptors += fds;
            }
        }
        sender.join().unwrap();
        assert_eq!(bytes, 800);
        assert!(descriptors > 0);
    });
}

/// Either kind of stream.
trait Stream: Send + Sync + 'static {
    fn get(&self, buf: &mut [u8]) -> io::Result<usize>;
    fn put(&self, buf: &[u8]) -> io::Result<usize>;
    fn end(&self, how: Shutdown) -> io::Result<()>;
    fn reset(&self);
}

impl Stream for TcpStream {
    fn get(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(buf)
    }
    fn put(&self, buf: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(buf)
    }
    fn end(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
    fn reset(&self) {
        reset_on_close(self);
    }
}

impl Stream for UnixStream {
    fn get(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(buf)
    }
    fn put(&self, buf: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(buf)
    }
    fn end(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }
    fn reset(&self) {}
}

fn echo(stream: impl Stream, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut buf = vec![0; 16384];
    loop {
        let room = rng.size(buf.len());
        let n = match stream.get(&mut buf[..room]) {
            Ok(0) => {
                let _ = stream.end(Shutdown::Write);
                return;
            }
            Ok(n) => n,
            Err(_) => return,
        };
        let mut at = 0;
        while at < n {
            match stream.put(&buf[at..n]) {
                Ok(k) => at += k,
                Err(_) => return,
            }
        }
    }
}

#[derive(Default)]
struct Tally {
    whole: AtomicUsize,
    cut: AtomicUsize,
    bytes: AtomicU64,
}

/// One conversation: a writer on its own task, random sizes both ways, and an end that is clean or a cut.
fn converse(stream: Arc<dyn Stream>, id: u64, seed: u64, tally: &Tally) {
    let mut rng = Rng::new(seed);
    let total = rng.size(200_000) as u64;
    // 0: to the end; 1: dropped; 2: reset; 3: the writing side shut down early; 4: both sides shut down; 5: time limits.
    let ending = rng.below(8).saturating_sub(2);
    let stop_at = if matches!(ending, 1..=4) { rng.below(total as usize + 1) as u64 } else { total };
    let writes = stream.clone();
    let mut wrng = Rng::new(rng.next());
    let writer = coro::spawn(move || {
        let mut at = 0u64;
        let mut buf = Vec::new();
        while at < stop_at {
            let n = (wrng.size(20_000) as u64).min(stop_at - at);
            buf.clear();
            buf.extend((at..at + n).map(|i| byte_at(id, i)));
            let mut done = 0;
            while done < buf.len() {
                match writes.put(&buf[done..]) {
                    Ok(k) => done += k,
                    Err(_) => return at + done as u64,
                }
            }
            at += n;
            if wrng.below(4) == 0 {
                coro::yield_slice();
            }
        }
        match ending {
            0 | 3 | 5 => drop(writes.end(Shutdown::Write)),
            2 => writes.reset(),
            4 => drop(writes.end(Shutdown::Both)),
            _ => {}
        }
        at
    });
    let mut buf = vec![0; 20_000];
    let mut got = 0u64;
    let cut_reading_at = if matches!(ending, 1 | 2) { stop_at / 2 } else { u64::MAX };
    let end = loop {
        if got >= cut_reading_at {
            break None;
        }
        let room = rng.size(buf.len());
        let read = if ending == 5 {
            let limit = Duration::from_micros(rng.below(2000) as u64);
            // The bytes of a read that came too late are in the error: none may be lost.
            match coro::timeout(limit, || stream.get(&mut buf[..room])) {
                Ok(read) => read,
                Err(late) => match late.into_value() {
                    Some(Err(e)) if e.kind() == ErrorKind::TimedOut => continue,
                    Some(read) => read,
                    None => continue,
                },
            }
        } else {
            stream.get(&mut buf[..room])
        };
        match read {
            Ok(0) => break Some(Ok(())),
            Ok(n) => {
                for (i, b) in buf[..n].iter().enumerate() {
                    assert_eq!(*b, byte_at(id, got + i as u64), "stream {id} differs at {}", got + i as u64);
                }
                got += n as u64;
            }
            Err(e) => break Some(Err(e)),
        }
    };
    drop(stream);
    if end.is_none() {
        // Nobody reads any more: the echo may be stuck in a write, and then so is the writer.
        writer.cancel();
    }
    let sent = match writer.join() {
        Ok(sent) => sent,
        Err(payload) if end.is_none() && coro::is_cancel(&*payload) => stop_at,
        Err(_) => panic!("stream {id}: the writer failed"),
    };
    tally.bytes.fetch_add(got, Ordering::Relaxed);
    match (ending, end) {
        // Nobody cut anything: everything comes back, and then the end.
        (0 | 3 | 5, Some(Ok(()))) => {
            assert_eq!((sent, got), (stop_at, stop_at), "stream {id} ended clean but not whole");
            tally.whole.fetch_add(1, Ordering::Relaxed);
        }
        (0 | 3 | 5, other) => panic!("stream {id}: {other:?} after {got} of {stop_at} bytes though nobody cut it"),
        _ => {
            assert!(got <= sent);
            tally.cut.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn soak_seconds() -> u64 {
    std::env::var("CORO_SOAK_SECONDS").map_or(6, |text| text.parse().expect("CORO_SOAK_SECONDS is a number"))
}

/// The server's tasks. Those that have ended are joined now and then: a handle that is kept keeps its task's cell, and
/// the soak makes ten million connections.
#[derive(Default)]
struct Served {
    tasks: Vec<coro::JoinHandle<()>>,
    joined: usize,
}

impl Served {
    fn add(&mut self, task: coro::JoinHandle<()>) {
        self.tasks.push(task);
        if self.tasks.len().is_multiple_of(4096) {
            let (ended, running) = self.tasks.drain(..).partition(coro::JoinHandle::is_finished);
            self.tasks = running;
            let ended: Vec<_> = ended;
            self.joined += ended.len();
            ended.into_iter().for_each(|task| task.join().expect("a server task ends once its client has"));
        }
    }
}

#[test]
fn random_cuts_under_load_lose_nothing_and_hang_nothing() {
    let mut rng = Rng::from_environment();
    let seconds = soak_seconds();
    let directory = Directory::new();
    let path = directory.0.join("echo");
    within(Duration::from_secs(seconds) + LONG, move || {
        runtime(4).block_on(move || {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = tcp.local_addr().unwrap();
            let unix = UnixListener::bind(&path).unwrap();
            let served = Arc::new(Mutex::new(Served::default()));
            let (s, seed) = (served.clone(), rng.next());
            let accepts_tcp = coro::spawn(move || {
                for i in 0.. {
                    let Ok((stream, _)) = tcp.accept() else { return };
                    s.lock().unwrap().add(coro::spawn(move || echo(stream, seed ^ i)));
                }
            });
            let (s, seed) = (served.clone(), rng.next());
            let accepts_unix = coro::spawn(move || {
                for i in 0.. {
                    let Ok((stream, _)) = unix.accept() else { return };
                    s.lock().unwrap().add(coro::spawn(move || echo(stream, seed ^ i)));
                }
            });
            let tally = Arc::new(Tally::default());
            let end = Instant::now() + Duration::from_secs(seconds);
            let clients: Vec<_> = (0..64)
                .map(|c| {
                    let (mut rng, tally, path) = (Rng::new(rng.next()), tally.clone(), path.clone());
                    coro::spawn(move || {
                        let mut round = 0u64;
                        while Instant::now() < end {
                            let stream: Arc<dyn Stream> = if c % 2 == 0 {
                                Arc::new(TcpStream::connect(addr).unwrap())
                            } else {
                                Arc::new(UnixStream::connect(&path).unwrap())
                            };
                            converse(stream, c << 32 | round, rng.next(), &tally);
                            round += 1;
                        }
                    })
                })
                .collect();
            for client in clients {
                client.join().expect("a client");
            }
            accepts_tcp.cancel();
            accepts_unix.cancel();
            let _ = (accepts_tcp.join(), accepts_unix.join());
            let served = std::mem::take(&mut *served.lock().unwrap());
            let connections = served.joined + served.tasks.len();
            for task in served.tasks {
                task.join().expect("a server task ends once its client has");
            }
            let (whole, cut) = (tally.whole.load(Ordering::Relaxed), tally.cut.load(Ordering::Relaxed));
            let bytes = tally.bytes.load(Ordering::Relaxed);
            println!("{connections} connections: {whole} whole, {cut} cut, {bytes} bytes compared");
            assert!(whole > 0 && cut > 0);
        });
    });
}

#[test]
fn half_close_ends_one_direction_only() {
    on(2, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = coro::spawn(move || {
            let (mut conn, _) = listener.accept().unwrap();
            let mut asked = String::new();
            conn.read_to_string(&mut asked).unwrap();
            // The client has ended its direction; ours still carries.
            coro::sleep(Duration::from_millis(5));
            conn.write_all(asked.to_uppercase().as_bytes()).unwrap();
            conn.shutdown(Shutdown::Write).unwrap();
            assert_eq!(conn.read(&mut [0; 8]).unwrap(), 0, "an end stays an end");
            assert_eq!(conn.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        });
        let mut client = TcpStream::connect(addr).unwrap();
        client.write_all(b"half a word").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HALF A WORD");
        server.join().unwrap();

        // Ending one's own reading direction ends a wait that is under way.
        let (a, _b) = UnixStream::pair().unwrap();
        let a = Arc::new(a);
        let reads = a.clone();
        let reader = coro::spawn(move || (&*reads).read(&mut [0; 8]).unwrap());
        until(LONG, "the reader parks", || coro::where_is(reader.id()).is_some_and(|t| is_parked(&t)));
        a.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn a_reset_is_one_error_and_the_accept_loop_goes_on() {
    on(2, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = coro::spawn(move || {
            let (mut resets, mut whole) = (0, 0);
            for conn in listener.incoming() {
                let mut conn = conn.expect("the accept loop meets no error");
                let mut buf = [0; 16];
                match conn.read(&mut buf) {
                    Ok(n) if buf[..n] == *b"stop" => return (resets, whole),
                    Ok(_) => whole += 1,
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::ConnectionReset);
                        // The address of nobody is an error, not a panic, and so is every further call.
                        assert!(conn.peer_addr().is_err());
                        assert_eq!(conn.read(&mut buf).unwrap(), 0, "the reset is told once");
                        assert_eq!(conn.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
                        resets += 1;
                    }
                }
            }
            unreachable!()
        });
        for i in 0..200 {
            let mut s = std::net::TcpStream::connect(addr).unwrap();
            if i % 2 == 0 {
                reset_on_close(&s);
            } else {
                s.write_all(b"hello").unwrap();
            }
        }
        std::net::TcpStream::connect(addr).unwrap().write_all(b"stop").unwrap();
        assert_eq!(server.join().unwrap(), (100, 100));

        // A reset that meets a parked reader and a parked writer wakes both.
        let (ours, theirs) = tcp_pair();
        let ours = Arc::new(ours);
        reset_on_close(&theirs);
        let (r, w) = (ours.clone(), ours.clone());
        let reader = coro::spawn(move || (&*r).read(&mut [0; 16]).map_err(|e| e.kind()));
        let writer = coro::spawn(move || {
            loop {
                if let Err(e) = (&*w).write(&[0; 65536]) {
                    return e.kind();
                }
            }
        });
        for id in [reader.id(), writer.id()] {
            until(LONG, "both park", || coro::where_is(id).is_some_and(|t| is_parked(&t)));
        }
        drop(theirs);
        let (read, wrote) = (reader.join().unwrap(), writer.join().unwrap());
        assert!(matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)), "{read:?}");
        assert!(matches!(wrote, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{wrote:?}");
    });
}

#[test]
fn unix_peers_that_left_before_the_accept_do_not_end_the_loop() {
    let directory = Directory::new();
    let path = directory.0.join("s");
    on(1, move || {
        let listener = UnixListener::bind(&path).unwrap();
        for _ in 0..50 {
            drop(std::os::unix::net::UnixStream::connect(&path).unwrap());
            let (mut conn, _) = listener.accept().unwrap();
            assert_eq!(conn.read(&mut [0; 8]).unwrap(), 0);
        }
    });
}

#[test]
fn tasks_that_accept_on_one_listener_are_served_in_order() {
    on(1, || {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        let tasks: Vec<_> = (0..16u8)
            .map(|i| {
                let l = listener.clone();
                let task = coro::spawn(move || l.accept().unwrap().0.write_all(&[i]).unwrap());
                until(LONG, "it parks", || coro::where_is(task.id()).is_some_and(|t| is_parked(&t)));
                task
            })
            .collect();
        // One waiter in the middle leaves: those behind it move up.
        tasks[5].cancel();
        for i in (0..16u8).filter(|i| *i != 5) {
            let mut s = TcpStream::connect(addr).unwrap();
            let mut who = [255];
            s.read_exact(&mut who).unwrap();
            assert_eq!(who[0], i);
        }
        for (i, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.join().is_ok(), i != 5);
        }
    });
    // On several workers nobody promises an order, only that everybody is served; all come in one burst.
    on(4, || {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        const EACH: usize = 25;
        let tasks: Vec<_> = (0..16)
            .map(|i| {
                let l = listener.clone();
                let accepts = move || (0..EACH).for_each(|_| drop(l.accept().unwrap().0.write_all(&[1])));
                coro::Builder::new().worker(i % 4).spawn(accepts).unwrap()
            })
            .collect();
        let clients: Vec<_> = (0..16 * EACH)
            .map(|_| coro::spawn(move || TcpStream::connect(addr).unwrap().read_exact(&mut [0]).unwrap()))
            .collect();
        clients.into_iter().for_each(|c| c.join().unwrap());
        tasks.into_iter().for_each(|t| t.join().unwrap());
    });
}

#[test]
fn tasks_that_read_one_socket_share_its_bytes() {
    for workers in [1, 3] {
        on(workers, move || {
            let (ours, mut theirs) = tcp_pair();
            let ours = Arc::new(ours);
            let total: u64 = 300_000;
            let readers: Vec<_> = (0..6)
                .map(|i| {
                    let s = ours.clone();
                    let reads = move || {
                        let (mut n, mut sum, mut buf) = (0u64, 0u64, vec![0; 1 + i * 997]);
                        loop {
                            match (&*s).read(&mut buf).unwrap() {
                                0 => return (n, sum),
                                k => {
                                    n += k as u64;
                                    sum += buf[..k].iter().map(|b| u64::from(*b)).sum::<u64>();
                                }
                            }
                        }
                    };
                    coro::Builder::new().worker(i % workers).spawn(reads).unwrap()
                })
                .collect();
            let feeder = std::thread::spawn(move || {
                let bytes: Vec<u8> = (0..total).map(|i| byte_at(1, i)).collect();
                for chunk in bytes.chunks(777) {
                    theirs.write_all(chunk).unwrap();
                }
            });
            let (n, sum) = readers
                .into_iter()
                .map(|r| r.join().expect("a reader sees the end"))
                .fold((0, 0), |(n, sum), (k, s)| (n + k, sum + s));
            feeder.join().unwrap();
            assert_eq!(n, total);
            assert_eq!(sum, (0..total).map(|i| u64::from(byte_at(1, i))).sum::<u64>());
        });
    }
}

/// How many descriptors this process has.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Reader on one worker, writer on a second, clone on a third, dropped last on a fourth, over and over: numbers are
/// reused at once, so an event for a former owner of a number would show as a wrong byte, a lost wake-up or an error.
#[test]
fn streams_shared_between_workers_leave_nothing_behind() {
    const NAME: &str = "streams_shared_between_workers_leave_nothing_behind";
    if role().is_none() {
        passes(NAME, "child", LONG);
        return;
    }
    // The poll itself and its waker exist before the count.
    let rt = runtime(4);
    rt.block_on(|| {
        let (a, _b) = unix_pair();
        assert!(coro::timeout(Duration::from_millis(5), || (&a).read(&mut [0])).is_err());
    });
    let before = descriptors();
    within(LONG, move || {
        rt.block_on(|| {
            let lanes: Vec<_> = (0..8usize)
                .map(|lane| {
                    coro::spawn(move || {
                        for round in 0..250u64 {
                            let id = (lane as u64) << 32 | round;
                            let at = |k: usize| coro::Builder::new().worker((lane + k) % 4);
                            let (ours, theirs) = tcp_pair();
                            let theirs = TcpStream::from(theirs);
                            let ours = Arc::new(ours);
                            let (r, w, last) = (ours.clone(), ours.clone(), ours.clone());
                            let clone = ours.try_clone().unwrap();
                            drop(ours);
                            const N: u64 = 3000;
                            let reader = at(0).spawn(move || {
                                let mut buf = [0; 700];
                                let mut at = 0;
                                while at < N / 2 {
                                    let room = (buf.len() as u64).min(N / 2 - at) as usize;
                                    let n = (&*r).read(&mut buf[..room]).unwrap();
                                    assert!(n > 0);
                                    for b in &buf[..n] {
                                        assert_eq!(*b, byte_at(id, at));
                                        at += 1;
                                    }
                                }
                                // The other half through the clone, on another worker still.
                                coro::Builder::new()
                                    .worker((coro::current_worker().unwrap() + 2) % 4)
                                    .spawn(move || {
                                        let mut buf = Vec::new();
                                        (&clone).read_to_end(&mut buf).unwrap();
                                        let rest: Vec<u8> = (N / 2..N).map(|i| byte_at(id, i)).collect();
                                        assert_eq!(buf, rest);
                                    })
                                    .unwrap()
                                    .join()
                                    .unwrap();
                            });
                            let writer = at(1).spawn(move || (&*w).write_all(&[9; 5000]).unwrap());
                            let peer = at(2).spawn(move || {
                                let bytes: Vec<u8> = (0..N).map(|i| byte_at(id, i)).collect();
                                for chunk in bytes.chunks(501) {
                                    (&theirs).write_all(chunk).unwrap();
                                    coro::yield_slice();
                                }
                                theirs.shutdown(Shutdown::Write).unwrap();
                                let mut all = Vec::new();
                                (&theirs).take(5000).read_to_end(&mut all).unwrap();
                                assert_eq!(all, [9; 5000]);
                                theirs
                            });
                            let (reader, writer, peer) = (reader.unwrap(), writer.unwrap(), peer.unwrap());
                            reader.join().unwrap();
                            writer.join().unwrap();
                            drop(peer.join().unwrap());
                            at(3).spawn(move || drop(last)).unwrap().join().unwrap();
                        }
                    })
                })
                .collect();
            lanes.into_iter().for_each(|l| l.join().expect("a lane"));
        });
        assert_eq!(descriptors(), before, "descriptors are left over");
        drop(rt);
    });
}

#[test]
fn sockets_work_on_plain_threads_and_across() {
    within(LONG, || {
        // Threads alone: no runtime is needed.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut conn, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            conn.read_to_end(&mut all).unwrap();
            conn.write_all(&all).unwrap();
            (listener, conn)
        });
        let sent: Vec<u8> = (0..1_000_000).map(|i| byte_at(2, i)).collect();
        let client = Arc::new(TcpStream::connect(addr).unwrap());
        (&*client).write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (listener, _conn) = server.join().unwrap();
        drop(_conn);
        let mut all = Vec::new();
        (&*client).read_to_end(&mut all).unwrap();
        assert_eq!(all, sent);

        // A listener that threads have used goes on in a task; the client is shared by a thread and a task.
        let rt = runtime(2);
        let serves = rt.spawn(move || {
            let (mut conn, _) = listener.accept().unwrap();
            let mut buf = [0; 4096];
            while let Ok(n) = conn.read(&mut buf)
                && n > 0
            {
                conn.write_all(&buf[..n]).unwrap();
            }
        });
        let client = Arc::new(TcpStream::connect(addr).unwrap());
        let reads = client.clone();
        let reader = rt.spawn(move || {
            let mut all = Vec::new();
            (&*reads).read_to_end(&mut all).unwrap();
            all
        });
        (&*client).write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reader.join().unwrap(), sent);
        serves.join().unwrap();
    });
}

#[test]
fn sockets_outlive_the_runtime_that_waited_on_them() {
    within(LONG, || {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        let (ours, theirs) = tcp_pair();
        let (ours, theirs) = (Arc::new(ours), Mutex::new(theirs));
        // Many runtimes, so that the places of ended workers are used again under old registrations.
        for round in 0..20u8 {
            let rt = runtime(1 + usize::from(round) % 3);
            let (l, s) = (listener.clone(), ours.clone());
            rt.block_on(move || {
                // Both are registered here, and found empty.
                assert!(coro::timeout(Duration::from_millis(2), || l.accept().map(drop)).is_err());
                assert!(coro::timeout(Duration::from_millis(2), || (&*s).read(&mut [0])).is_err());
            });
            let s = ours.clone();
            let reader = rt.spawn(move || {
                let mut b = [0];
                (&*s).read_exact(&mut b).map(|()| b[0])
            });
            theirs.lock().unwrap().write_all(&[round]).unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), round);
            let l = listener.clone();
            let accepts = rt.spawn(move || l.accept().unwrap().0);
            let mut client = TcpStream::connect(addr).unwrap();
            let mut conn = accepts.join().unwrap();
            if round % 2 == 0 {
                drop(rt);
            }
            // A connection that a task accepted, used on a plain thread after the end of its runtime.
            conn.write_all(b"bye").unwrap();
            drop(conn);
            let mut bye = String::new();
            client.read_to_string(&mut bye).unwrap();
            assert_eq!(bye, "bye");
        }
        // Dropped with registrations of twenty runtimes that are gone.
        drop((ours, listener));
    });
}

#[test]
fn a_time_limit_ends_reads_accepts_and_writes_once_by_error() {
    on(1, || {
        let (ours, mut theirs) = tcp_pair();
        let start = Instant::now();
        let late = coro::timeout(Duration::from_millis(20), || (&ours).read(&mut [0; 8])).unwrap_err();
        assert_eq!(late.into_value().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(20));
        // Swallowed once, the second wait unwinds.
        let late = coro::timeout(Duration::from_millis(20), || {
            let _ = (&ours).read(&mut [0; 8]);
            (&ours).read(&mut [0; 8])
        });
        assert!(late.unwrap_err().into_value().is_none());
        // Nothing is lost by it, and nothing remains of it.
        theirs.write_all(b"still here").unwrap();
        let mut buf = [0; 10];
        (&ours).read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"still here");

        let late = coro::timeout(Duration::from_millis(20), || (&ours).write_all(&vec![0; 64 << 20])).unwrap_err();
        assert_eq!(late.into_value().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let late = coro::timeout(Duration::from_millis(20), || listener.accept().map(drop)).unwrap_err();
        assert_eq!(late.into_value().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);

        // Cancellation as well: one error, then the unwinding.
        let (told, hears) = std::sync::mpsc::channel();
        let task = coro::spawn(move || {
            told.send((&ours).read(&mut [0; 8])).unwrap();
            let _ = (&ours).read(&mut [0; 8]);
            unreachable!("the second read unwinds");
        });
        until(LONG, "it parks", || coro::where_is(task.id()).is_some_and(|t| is_parked(&t)));
        task.cancel();
        assert!(coro::is_cancel(&*task.join().unwrap_err()));
        let error = hears.recv().unwrap().unwrap_err();
        assert!(error.get_ref().is_some_and(|e| e.is::<coro::CancelledError>()), "{error:?}");
    });
}

#[test]
fn connects_that_fail_say_so() {
    on(1, || {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(TcpStream::connect(free).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let nowhere: SocketAddr = "255.255.255.255:9".parse().unwrap();
        assert!(coro::timeout(Duration::from_secs(20), || TcpStream::connect(nowhere).map(drop)).unwrap().is_err());
        // The second address is tried when the first refuses.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(&[free, listener.local_addr().unwrap()][..]).unwrap();
        assert_eq!(TcpStream::connect(&[] as &[SocketAddr]).unwrap_err().kind(), ErrorKind::InvalidInput);
        let directory = Directory::new();
        assert_eq!(UnixStream::connect(directory.0.join("none")).unwrap_err().kind(), ErrorKind::NotFound);
        let stale = directory.0.join("stale");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        assert_eq!(UnixStream::connect(&stale).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
    // The same on a thread.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(within(LONG, move || TcpStream::connect(free)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// A listener with room for next to nobody.
fn narrow(domain: socket2::Domain, addr: &socket2::SockAddr) -> socket2::Socket {
    let s = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
    s.bind(addr).unwrap();
    s.listen(0).unwrap();
    s
}

#[test]
fn a_full_backlog_holds_up_only_who_connects() {
    on(1, || {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listener = std::net::TcpListener::from(narrow(socket2::Domain::IPV4, &any.into()));
        let addr = listener.local_addr().unwrap();
        let mut through = Vec::new();
        let stuck = loop {
            match coro::timeout(Duration::from_millis(100), || TcpStream::connect(addr)) {
                Ok(s) => through.push(s.unwrap()),
                // On a busy machine one may get through after its time.
                Err(late) => match late.into_value().expect("an error first") {
                    Ok(s) => through.push(s),
                    Err(stuck) => break stuck,
                },
            }
            assert!(through.len() < 100);
        };
        assert_eq!(stuck.kind(), ErrorKind::TimedOut);
        let waits = coro::spawn(move || TcpStream::connect(addr));
        // Everybody else goes on meanwhile.
        let ticks = coro::spawn(|| (0..20).for_each(|_| coro::sleep(Duration::from_millis(1))));
        ticks.join().unwrap();
        assert!(!waits.is_finished());
        // Room is made: the kernel's next attempt gets through.
        let drains = std::thread::spawn(move || (0..3).map(|_| listener.accept().unwrap()).collect::<Vec<_>>());
        waits.join().unwrap().expect("connected once there is room");
        // Lets the thread end whatever the kernel made of the attempts that were given up.
        let more: Vec<_> = (0..3).map(|_| coro::timeout(Duration::from_secs(5), || TcpStream::connect(addr))).collect();
        drains.join().unwrap();
        drop(more);
    });
    let directory = Directory::new();
    let path = directory.0.join("narrow");
    on(1, move || {
        let listener = narrow(socket2::Domain::UNIX, &socket2::SockAddr::unix(&path).unwrap());
        let mut through = Vec::new();
        loop {
            match coro::timeout(Duration::from_millis(50), || UnixStream::connect(&path)) {
                Ok(s) => through.push(s.unwrap()),
                Err(late) => match late.into_value().expect("an error first") {
                    Ok(s) => through.push(s),
                    Err(stuck) => {
                        assert_eq!(stuck.kind(), ErrorKind::TimedOut);
                        break;
                    }
                },
            }
            assert!(through.len() < 100);
        }
        let waits = coro::spawn(move || UnixStream::connect(&path));
        let ticks = coro::spawn(|| (0..20).for_each(|_| coro::sleep(Duration::from_millis(1))));
        ticks.join().unwrap();
        assert!(!waits.is_finished());
        listener.accept().unwrap();
        waits.join().unwrap().expect("connected once there is room");
    });
}

/// Every thread of the process gets a signal a thousand times a second, with a handler and without `SA_RESTART`.
#[test]
fn a_storm_of_signals_changes_no_byte() {
    const NAME: &str = "a_storm_of_signals_changes_no_byte";
    if role().is_none() {
        let text = passes(NAME, "child", LONG);
        assert!(text.contains("signals handled"), "{text}");
        return;
    }
    static HANDLED: AtomicU64 = AtomicU64::new(0);
    extern "C" fn count(_: libc::c_int) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the handler only adds to a counter.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
    }
    let over = Arc::new(AtomicBool::new(false));
    let ends = over.clone();
    let storm = std::thread::spawn(move || {
        while !ends.load(Ordering::Relaxed) {
            for entry in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
                let tid: libc::c_int = entry.file_name().to_str().unwrap().parse().unwrap();
                // SAFETY: a thread that is gone gives an error, which is fine.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR2) };
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    on(2, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = coro::spawn(move || {
            let served: Vec<_> = (0..8)
                .map(|i| {
                    let (conn, _) = listener.accept().unwrap();
                    coro::spawn(move || echo(conn, i))
                })
                .collect();
            served.into_iter().for_each(|t| t.join().unwrap());
        });
        let talk = move |id: u64| {
            let client = Arc::new(TcpStream::connect(addr).unwrap());
            let writes = client.clone();
            let total = 2_000_000u64;
            let send = move || {
                let bytes: Vec<u8> = (0..total).map(|i| byte_at(id, i)).collect();
                for chunk in bytes.chunks(7001) {
                    (&*writes).write_all(chunk).unwrap();
                }
                writes.shutdown(Shutdown::Write).unwrap();
            };
            // Half of the conversations are on plain threads, where `ppoll` is what gets interrupted.
            let ended: Box<dyn FnOnce()> = if id.is_multiple_of(2) {
                let writer = coro::spawn(send);
                Box::new(move || writer.join().unwrap())
            } else {
                let writer = std::thread::spawn(send);
                Box::new(move || writer.join().unwrap())
            };
            let (mut at, mut buf) = (0u64, vec![0; 9001]);
            loop {
                let n = (&*client).read(&mut buf).unwrap();
                if n == 0 {
                    break;
                }
                for b in &buf[..n] {
                    assert_eq!(*b, byte_at(id, at));
                    at += 1;
                }
            }
            ended();
            assert_eq!(at, total);
        };
        let tasks: Vec<_> = (0..4).map(|i| coro::spawn(move || talk(i * 2))).collect();
        let threads: Vec<_> = (0..4).map(|i| std::thread::spawn(move || talk(i * 2 + 1))).collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
        until(LONG, "the threads end", || threads.iter().all(|t| t.is_finished()));
        threads.into_iter().for_each(|t| t.join().unwrap());
        server.join().unwrap();
        let start = Instant::now();
        coro::sleep(Duration::from_millis(100));
        assert!(start.elapsed() >= Duration::from_millis(100), "a signal may not shorten a sleep");
    });
    over.store(true, Ordering::Relaxed);
    storm.join().unwrap();
    let handled = HANDLED.load(Ordering::Relaxed);
    assert!(handled > 500, "no storm: {handled}");
    println!("{handled} signals handled");
}

#[test]
fn large_writes_through_tiny_buffers_arrive_whole() {
    on(2, || {
        for unix in [false, true] {
            let (a, b): (Arc<dyn Stream>, Arc<dyn Stream>) = if unix {
                let (a, b) = UnixStream::pair().unwrap();
                socket2::SockRef::from(&a).set_send_buffer_size(1).unwrap();
                (Arc::new(a), Arc::new(b))
            } else {
                let (a, b) = tcp_pair();
                socket2::SockRef::from(&a).set_send_buffer_size(1).unwrap();
                (Arc::new(a), Arc::new(TcpStream::from(b)))
            };
            let total = 500_000u64;
            let writer = coro::spawn(move || {
                let bytes: Vec<u8> = (0..total).map(|i| byte_at(3, i)).collect();
                let mut at = 0;
                while at < bytes.len() {
                    at += a.put(&bytes[at..]).unwrap();
                }
                a.end(Shutdown::Write).unwrap();
            });
            let (mut at, mut buf) = (0, [0; 333]);
            loop {
                let n = b.get(&mut buf).unwrap();
                if n == 0 {
                    break;
                }
                for byte in &buf[..n] {
                    assert_eq!(*byte, byte_at(3, at));
                    at += 1;
                }
            }
            assert_eq!(at, total);
            writer.join().unwrap();
        }
    });
}

#[test]
fn vectored_calls_fill_and_empty_every_part() {
    on(1, || {
        let (ours, theirs) = tcp_pair();
        let theirs = TcpStream::from(theirs);
        // A read that fits exactly is no short read, one that does not fill the last part is.
        for (parts, sent) in [([3, 5, 8], 16), ([3, 5, 8], 9), ([1, 0, 4000], 300)] {
            let bytes: Vec<u8> = (0..sent).map(|i| byte_at(4, i)).collect();
            let (x, y) = bytes.split_at(bytes.len() / 3);
            let n = (&theirs).write_vectored(&[IoSlice::new(x), IoSlice::new(&[]), IoSlice::new(y)]).unwrap();
            assert_eq!(n as u64, sent);
            let mut got = Vec::new();
            while (got.len() as u64) < sent {
                let mut room = parts.map(|n| vec![0u8; n]);
                let [a, b, c] = &mut room;
                let mut slices = [IoSliceMut::new(a), IoSliceMut::new(b), IoSliceMut::new(c)];
                let n = (&ours).read_vectored(&mut slices).unwrap();
                got.extend(room.concat().into_iter().take(n));
            }
            assert_eq!(got, bytes);
        }
        let waits = coro::spawn(move || {
            let (mut a, mut b) = ([0; 2], [0; 2]);
            let n = (&ours).read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)]).unwrap();
            (n, a, b)
        });
        coro::yield_slice();
        (&theirs).write_all(b"xyz").unwrap();
        assert_eq!(waits.join().unwrap(), (3, *b"xy", *b"z\0"));
    });
}

/// The system fills 1024 parts per call: when it has, there may be more, although not every part was filled.
#[test]
fn more_parts_than_the_system_takes_lose_no_wake() {
    on(1, || {
        const PARTS: usize = 2000;
        let (ours, theirs) = tcp_pair();
        let theirs = TcpStream::from(theirs);
        let reader = coro::spawn(move || {
            let mut total = 0;
            while total < PARTS {
                let mut room = vec![[0u8; 1]; PARTS];
                let mut slices: Vec<_> = room.iter_mut().map(|b| IoSliceMut::new(b)).collect();
                total += (&ours).read_vectored(&mut slices).unwrap();
            }
            total
        });
        // It waits, so that all of it comes with one edge.
        coro::yield_slice();
        coro::yield_slice();
        (&theirs).write_all(&[1; PARTS]).unwrap();
        let total =
            coro::timeout(Duration::from_secs(10), || reader.join().unwrap()).expect("bytes that are there are read");
        assert_eq!(total, PARTS);
    });
}

#[test]
fn input_that_never_ends_gives_way_to_other_tasks_and_timers() {
    on(1, || {
        const READS: usize = 100_000;
        let (ours, mut theirs) = unix_pair();
        // Filled by a thread that is always ahead, so that no read ever has to wait.
        let feeder = std::thread::spawn(move || while theirs.write_all(&[1; 4096]).is_ok() {});
        let reading = Arc::new(AtomicBool::new(true));
        let over = reading.clone();
        let reader = coro::spawn(move || {
            for _ in 0..READS {
                assert_eq!((&ours).read(&mut [0]).unwrap(), 1);
            }
            over.store(false, Ordering::Relaxed);
        });
        let still = reading.clone();
        let sleeper = coro::spawn(move || {
            let (mut worst, mut sleeps) = (Duration::ZERO, 0);
            while still.load(Ordering::Relaxed) {
                let start = Instant::now();
                coro::sleep(Duration::from_millis(1));
                worst = worst.max(start.elapsed());
                sleeps += 1;
            }
            (worst, sleeps)
        });
        let mut turns = 0;
        while reading.load(Ordering::Relaxed) {
            coro::yield_slice();
            turns += 1;
        }
        reader.join().unwrap();
        feeder.join().unwrap();
        let (worst, sleeps) = sleeper.join().unwrap();
        println!("{turns} turns and {sleeps} sleeps beside {READS} reads; the longest sleep of 1 ms took {worst:?}");
        assert!(turns >= READS / 64, "{turns} turns");
        assert!(sleeps >= 5, "{sleeps} sleeps, the longest {worst:?}");
    });
}

/// The budget must not switch tasks in the middle of somebody's unwinding: the others would see std's `panicking()`.
#[test]
fn writing_in_a_destructor_while_unwinding_switches_to_nobody() {
    struct SaysGoodbye(UnixStream);
    impl Drop for SaysGoodbye {
        fn drop(&mut self) {
            for _ in 0..200 {
                let _ = self.0.write_all(b"x");
            }
        }
    }
    on(1, || {
        let (a, mut b) = UnixStream::pair().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let sees = over.clone();
        let witness = coro::spawn(move || {
            while !sees.load(Ordering::Relaxed) {
                assert!(!std::thread::panicking(), "another task's panic is visible here");
                coro::yield_slice();
            }
        });
        let task = coro::spawn(move || {
            let _guard = SaysGoodbye(a);
            coro::sleep(Duration::from_secs(3600));
        });
        until(LONG, "it parks", || coro::where_is(task.id()).is_some_and(|t| is_parked(&t)));
        task.cancel();
        let mut all = Vec::new();
        b.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 200);
        assert!(task.join().is_err());
        over.store(true, Ordering::Relaxed);
        witness.join().unwrap();
    });
    // Inside `no_switch` a call that needs no wait is allowed, however often.
    on(1, || {
        let (mut a, mut b) = UnixStream::pair().unwrap();
        coro::no_switch(|| (0..200).for_each(|_| a.write_all(b"x").unwrap()));
        b.read_exact(&mut [0; 200]).unwrap();
    });
}

/// A private directory, removed at the end.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> Directory {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("coro-net-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn bad_addresses_and_paths_say_what_to_do() {
    #[track_caller]
    fn says<T>(result: io::Result<T>, kind: ErrorKind, words: &[&str]) {
        let Err(e) = result else { panic!("it was accepted") };
        let text = e.to_string();
        assert_eq!(e.kind(), kind, "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is missing in: {text}");
        }
    }
    let directory = Directory::new();
    let d = directory.0.display().to_string();
    let on_thread = {
        let d = d.clone();
        move || {
            let taken = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = taken.local_addr().unwrap();
            says(TcpListener::bind(addr), ErrorKind::AddrInUse, &[&addr.to_string(), "choose another port"]);
            says(TcpListener::bind("192.0.2.1:0"), ErrorKind::AddrNotAvailable, &["192.0.2.1", "no interface"]);
            says(TcpListener::bind("127.0.0.1"), ErrorKind::InvalidInput, &["invalid socket address"]);
            says(TcpListener::bind(&[] as &[SocketAddr]), ErrorKind::InvalidInput, &["no address"]);
            let long = format!("{d}/{}", "x".repeat(200));
            says(UnixListener::bind(&long), ErrorKind::InvalidInput, &["too long", "shorter"]);
            says(UnixStream::connect(&long), ErrorKind::InvalidInput, &["too long", "shorter"]);
            // The system's own errors, as std gives them.
            let bound = |name| UnixListener::bind(format!("{d}/{name}")).map_err(|e| e.raw_os_error());
            assert_eq!(bound("none/s").unwrap_err(), Some(libc::ENOENT));
            let _taken = bound("s").unwrap();
            assert_eq!(bound("s").unwrap_err(), Some(libc::EADDRINUSE));
        }
    };
    let in_task = on_thread.clone();
    on(1, move || {
        in_task();
        let serve = |path: String| coro::backdoor::serve(path);
        says(serve(format!("{d}/{}", "x".repeat(200))), ErrorKind::InvalidInput, &["at most", "shorter"]);
        says(serve(format!("{d}/none/b")), ErrorKind::NotFound, &["mkdir"]);
        let server = serve(format!("{d}/b")).unwrap();
        says(serve(format!("{d}/b")), ErrorKind::AddrInUse, &["choose another path"]);
        server.close();
    });
    let _ = std::fs::remove_file(directory.0.join("s"));
    within(LONG, on_thread);
}

/// A port below 1024, without the privilege. Needs a process that may give its privileges away.
#[test]
fn a_privileged_port_says_so() {
    const NAME: &str = "a_privileged_port_says_so";
    if role().is_none() {
        // SAFETY: no preconditions.
        let root = unsafe { libc::geteuid() } == 0;
        let mut command = again(NAME, "child");
        if root {
            use std::os::unix::process::CommandExt;
            // The program may lie where only root may look: the capability goes, not the user.
            // SAFETY: between fork and exec only system calls are made.
            unsafe {
                command.pre_exec(|| {
                    const CAP_NET_BIND_SERVICE: libc::c_ulong = 10;
                    if libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE, 0, 0, 0) != 0 {
                        return Err(io::Error::last_os_error());
                    }
                    Ok(())
                });
            }
        }
        let output = util::finish(command, LONG);
        assert!(output.status.success(), "{}", util::said(&output));
        return;
    }
    let first: u16 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .map_or(1024, |text| text.trim().parse().unwrap());
    if first == 0 {
        println!("every port is free for all here: nothing to see");
        return;
    }
    let e = TcpListener::bind(("127.0.0.1", first - 1)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::PermissionDenied, "{e}");
    assert!(e.to_string().contains("privilege"), "{e}");
}
