//! Sockets under the faults of a network: peers that are stopped or die, ports that run out, a backlog for next to nobody,
//! ten thousand peers that say nothing, both families on one listener.
//!
//! Peers are child processes; settings of the network are changed in a network namespace of their own, where the system
//! lets us have one (a line says so where it does not). Linux only, for `/proc` and namespaces.

#![cfg(target_os = "linux")]

mod util;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use util::sockets::{LONG, is_parked, on, parked};
use util::{again, byte_at, role, said, until, within};

/// A child that ends with the test, however that ends.
struct Peer(Child);

impl Peer {
    fn new(name: &str, role: &str, variable: &str, value: &str) -> Peer {
        Peer(again(name, role).env(variable, value).spawn().unwrap())
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: our own child, not yet waited for.
        assert_eq!(unsafe { libc::kill(self.0.id() as libc::pid_t, signal) }, 0);
    }

    /// Stopped for good: every thread of it, and the kernel says so.
    fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.0.id());
        let stopped = || std::fs::read_to_string(&stat).is_ok_and(|s| s.rsplit(") ").next().unwrap().starts_with('T'));
        until(LONG, "it is stopped", stopped);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Counts what comes until its end, checking every byte, and answers with the count.
fn sink() {
    let addr = std::env::var("CORO_TEST_PEER").unwrap();
    let mut conn = std::net::TcpStream::connect(addr).unwrap();
    let (mut count, mut buf) = (0u64, vec![0; 1 << 16]);
    loop {
        let n = conn.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        assert!(buf[..n].iter().zip(count..).all(|(b, at)| *b == byte_at(5, at)));
        count += n as u64;
    }
    conn.write_all(&count.to_le_bytes()).unwrap();
}

#[test]
fn a_dead_peer_holds_up_its_own_task_and_limits_keep_their_times() {
    const NAME: &str = "a_dead_peer_holds_up_its_own_task_and_limits_keep_their_times";
    if role().is_some() {
        return sink();
    }
    on(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let peer = Peer::new(NAME, "sink", "CORO_TEST_PEER", &at);
        let (conn, _) = listener.accept().unwrap();
        peer.stop();
        let conn = Arc::new(conn);
        // Bytes for ever, until told otherwise: the queues fill up and the task waits.
        let (enough, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let writer = {
            let (conn, enough, written) = (conn.clone(), enough.clone(), written.clone());
            coro::spawn(move || {
                let mut at = 0u64;
                while !enough.load(Ordering::SeqCst) {
                    let block: Vec<u8> = (at..at + 10_000).map(|at| byte_at(5, at)).collect();
                    (&*conn).write_all(&block).unwrap();
                    at += 10_000;
                    written.store(at as usize, Ordering::SeqCst);
                }
                conn.shutdown(Shutdown::Write).unwrap();
                let mut count = [0; 8];
                (&*conn).read_exact(&mut count).unwrap();
                (at, u64::from_le_bytes(count))
            })
        };
        until(LONG, "the queues are full", || is_parked(writer.id()));
        let before = written.load(Ordering::SeqCst);
        assert!(before > 0);

        // The others go on, on the same worker: sleepers, and a conversation.
        let ours = util::sockets::tcp_pair();
        let echo = coro::spawn(move || {
            let mut b = [0];
            while ours.1.recv_exact(1).is_ok_and(|got| {
                b.copy_from_slice(&got);
                true
            }) {
                (&ours.1).write_all(&b).unwrap();
            }
        });
        let mut late = Vec::new();
        for i in 0..100u8 {
            let limit = Duration::from_millis(1 + u64::from(i % 5));
            let start = Instant::now();
            if i % 2 == 0 {
                // The dead peer's own direction, by the socket's limit and by the task's.
                conn.set_read_timeout(Some(limit)).unwrap();
                assert_eq!((&*conn).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
                conn.set_read_timeout(None).unwrap();
            } else {
                let e = coro::timeout(limit, || (&*conn).read(&mut [0])).unwrap_err();
                assert_eq!(e.into_value().unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
            }
            late.push(start.elapsed().checked_sub(limit).expect("not before its time"));
            (&ours.0).write_all(&[i]).unwrap();
            assert_eq!(ours.0.recv_exact(1).unwrap(), [i]);
        }
        late.sort();
        println!("limits fired {:?} late in the median, {:?} at most", late[late.len() / 2], late[late.len() - 1]);
        assert!(late[late.len() / 2] < Duration::from_millis(2), "the median of 100 is late by {:?}", late[50]);
        assert!(is_parked(writer.id()) && written.load(Ordering::SeqCst) == before, "it still waits for its peer");
        drop(ours.0);
        echo.join().unwrap();

        // It comes back: nothing was lost.
        enough.store(true, Ordering::SeqCst);
        peer.signal(libc::SIGCONT);
        let (sent, counted) = writer.join().unwrap();
        assert_eq!(sent, counted);
        println!("{sent} bytes went through a peer that was stopped at {before}");
    });
}

#[test]
fn a_peer_that_dies_under_way_ends_both_directions() {
    const NAME: &str = "a_peer_that_dies_under_way_ends_both_directions";
    if role().is_some() {
        return sink();
    }
    on(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let peer = Peer::new(NAME, "sink", "CORO_TEST_PEER", &at);
        let (conn, _) = listener.accept().unwrap();
        peer.stop();
        let conn = Arc::new(conn);
        let writer = {
            let conn = conn.clone();
            coro::spawn(move || {
                loop {
                    if let Err(e) = (&*conn).write(&[0; 10_000]) {
                        return e.kind();
                    }
                }
            })
        };
        let reader = {
            let conn = conn.clone();
            parked(0, move || (&*conn).read(&mut [0; 8]).map_err(|e| e.kind()))
        };
        until(LONG, "the queues are full", || is_parked(writer.id()));
        peer.signal(libc::SIGKILL);
        // It dies with bytes unread: a reset, which one of the two is told; the other sees the end that follows it.
        let (wrote, read) = (writer.join().unwrap(), reader.join().unwrap());
        assert!(matches!(wrote, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{wrote:?}");
        assert!(matches!(read, Ok(0) | Err(ErrorKind::ConnectionReset)), "{read:?}");
        assert!(wrote == ErrorKind::ConnectionReset || read == Err(ErrorKind::ConnectionReset), "{wrote:?} {read:?}");
        assert_eq!(conn.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

/// Runs the test `name` again in the role "inside" of a network namespace of its own; false, and said, if that cannot be
/// had here.
fn inside_a_namespace(name: &str) -> bool {
    let possible = Command::new("unshare").args(["-rn", "true"]).stderr(Stdio::null()).status();
    if !possible.is_ok_and(|s| s.success()) {
        eprintln!("skipped: {name}: `unshare -rn` gives no network namespace here");
        return false;
    }
    let inner = again(name, "inside");
    let mut command = Command::new("unshare");
    command.arg("-rn").arg(inner.get_program()).args(inner.get_args());
    for (key, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = util::finish(command, LONG);
    let text = said(&output);
    assert!(output.status.success() && text.contains("1 passed"), "{:?}\n{text}", output.status);
    text.lines().filter(|l| l.starts_with("skipped")).for_each(|l| eprintln!("{l}"));
    true
}

/// Makes the loopback of a fresh namespace usable and changes a setting of it; false, and said, if that is refused.
fn set_up(setting: &str, value: &str) -> bool {
    // SAFETY: the structure is zeroed, its name is short enough, and it lives across the calls.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let s = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        assert_eq!(libc::ioctl(s, libc::SIOCSIFFLAGS, &raw const request), 0, "{}", io::Error::last_os_error());
        libc::close(s);
    }
    match std::fs::write(format!("/proc/sys/net/{setting}"), value) {
        Ok(()) => true,
        Err(e) => {
            eprintln!("skipped: {setting} cannot be set here: {e}");
            false
        }
    }
}

/// Everybody else's turn comes while something waits or fails.
fn others_go_on() {
    let ticks = coro::spawn(|| (0..20).for_each(|_| coro::sleep(Duration::from_millis(1))));
    ticks.join().unwrap();
}

#[test]
fn ports_that_run_out_are_an_error_and_come_back() {
    const NAME: &str = "ports_that_run_out_are_an_error_and_come_back";
    const PORTS: usize = 10;
    if role().is_none() {
        inside_a_namespace(NAME);
        return;
    }
    if !set_up("ipv4/ip_local_port_range", "40000 40009") {
        return;
    }
    on(1, || {
        let listener = TcpListener::bind("127.0.0.1:50000").unwrap();
        let at = listener.local_addr().unwrap();
        let mut pairs = Vec::new();
        let e = loop {
            match TcpStream::connect(at) {
                Ok(client) => pairs.push((client, listener.accept().unwrap().0)),
                Err(e) => break e,
            }
            assert!(pairs.len() <= PORTS);
        };
        assert_eq!((pairs.len(), e.kind()), (PORTS, ErrorKind::AddrNotAvailable), "{e}");
        let e = TcpStream::connect_timeout(&at, Duration::from_secs(5)).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL), "an error of the system, not of time");
        assert_eq!(TcpListener::bind("127.0.0.1:0").unwrap_err().kind(), ErrorKind::AddrInUse);
        others_go_on();
        // The connections that there are still work, and a port that is freed is used again.
        for (client, server) in &pairs {
            (&*client).write_all(b"x").unwrap();
            assert_eq!(server.recv_exact(1).unwrap(), b"x");
        }
        let (client, server) = pairs.pop().unwrap();
        client.set_linger(Some(Duration::ZERO)).unwrap();
        drop((client, server));
        pairs.push((TcpStream::connect(at).unwrap(), listener.accept().unwrap().0));

        let mut sockets = Vec::new();
        let e = loop {
            match UdpSocket::bind("127.0.0.1:0") {
                Ok(s) => sockets.push(s),
                Err(e) => break e,
            }
            assert!(sockets.len() <= PORTS);
        };
        assert_eq!((sockets.len(), e.raw_os_error()), (PORTS, Some(libc::EADDRINUSE)));
        sockets.pop();
        assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
    });
}

#[test]
fn a_backlog_for_next_to_nobody_lets_everybody_in_at_last() {
    const NAME: &str = "a_backlog_for_next_to_nobody_lets_everybody_in_at_last";
    if role().is_none() {
        inside_a_namespace(NAME);
        return;
    }
    if !set_up("core/somaxconn", "1") {
        return;
    }
    on(2, || {
        // Asks for thousands and gets one.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..8u8)
            .map(|i| {
                coro::spawn(move || {
                    let conn = TcpStream::connect(at).unwrap();
                    (&conn).write_all(&[i]).unwrap();
                    conn.recv_exact(1).unwrap()
                })
            })
            .collect();
        until(LONG, "somebody waits to connect", || {
            let words: Vec<_> = clients.iter().filter_map(|c| coro::where_is(c.id())).map(|t| t.to_string()).collect();
            words.iter().all(|w| w.contains("parked")) && words.iter().any(|w| w.contains(" connect "))
        });
        others_go_on();
        let e = TcpStream::connect_timeout(&at, Duration::from_millis(50)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::TimedOut);
        // The attempt that was given up may still turn up as a connection that says nothing, hence tasks.
        let server = coro::spawn(move || {
            for conn in listener.incoming() {
                let Ok(conn) = conn else { return };
                coro::spawn(move || {
                    if let Ok(byte) = conn.recv_exact(1) {
                        let _ = (&conn).write_all(&byte);
                    }
                });
            }
        });
        for (i, client) in clients.into_iter().enumerate() {
            assert_eq!(client.join().unwrap(), [i as u8]);
        }
        server.cancel();
    });
}

#[test]
fn a_listener_of_both_families_accepts_both() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: there is no IPv6 here");
        return;
    }
    on(2, || {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for to in ["127.0.0.1", "::1"] {
            let to = SocketAddr::new(to.parse().unwrap(), port);
            let client = coro::spawn(move || {
                let conn = TcpStream::connect(to)?;
                (&conn).write_all(b"hello")?;
                conn.local_addr()
            });
            let (conn, peer) = listener.accept().unwrap();
            assert_eq!(conn.recv_exact(5).unwrap(), b"hello");
            let client = client.join().unwrap().unwrap();
            assert!(peer.is_ipv6(), "seen through the listener's family");
            assert_eq!((peer.ip().to_canonical(), peer.port()), (client.ip(), client.port()));
            assert_eq!(conn.peer_addr().unwrap(), peer);
        }
        // The other way round it is refused, as by the system.
        let four = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert_eq!(TcpStream::connect(("::1", four)).unwrap_err().kind(), ErrorKind::ConnectionRefused);

        let socket = UdpSocket::bind("[::]:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        for (from, to) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
            let sender = UdpSocket::bind(from).unwrap();
            sender.send_to(b"hi", (to, port)).unwrap();
            let (n, peer) = socket.recv_from(&mut [0; 8]).unwrap();
            assert_eq!((n, peer.ip().to_canonical()), (2, sender.local_addr().unwrap().ip()));
            socket.send_to(b"back", peer).unwrap();
            assert_eq!(sender.recv(&mut [0; 8]).unwrap(), 4);
        }
    });
}

const IDLE: usize = 10_000;
const BUSY: usize = 100;

/// Answers every byte with itself; ten thousand times and a hundred.
fn echo_server() {
    raise_the_limit();
    coro::run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        println!("listening on {}", listener.local_addr().unwrap());
        for conn in listener.incoming() {
            let mut conn = conn.unwrap();
            coro::spawn(move || {
                let mut buf = [0; 64];
                while let Ok(n @ 1..) = conn.read(&mut buf) {
                    if conn.write_all(&buf[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// To what the system allows; how many descriptors that is.
fn raise_the_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives across the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// CPU time of a process, its resident bytes, and how often its threads slept and woke.
fn cost(pid: u32) -> (Duration, u64, u64) {
    let of = |path: String| std::fs::read_to_string(path).unwrap();
    // The scheduler's own sum, in nanoseconds; `stat` counts in hundredths of a second.
    let mut cpu = 0;
    let mut switches = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let thread = thread.unwrap().path().display().to_string();
        cpu += of(format!("{thread}/schedstat")).split(' ').next().unwrap().parse::<u64>().unwrap();
        let status = of(format!("{thread}/status"));
        let line = status.lines().find(|l| l.starts_with("voluntary_ctxt_switches")).unwrap();
        switches += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    }
    let pages: u64 = of(format!("/proc/{pid}/statm")).split(' ').nth(1).unwrap().parse().unwrap();
    // SAFETY: no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    (Duration::from_nanos(cpu), pages * page, switches)
}

fn echo(conn: &mut std::net::TcpStream, byte: u8) {
    conn.write_all(&[byte]).unwrap();
    let mut got = [0];
    conn.read_exact(&mut got).unwrap();
    assert_eq!(got, [byte]);
}

/// A hundred connections ask one after the other, from two threads, for half a second: answers per second, and the
/// slowest one but one in a hundred.
fn busy(conns: &mut [std::net::TcpStream]) -> (f64, Duration) {
    let half = conns.len() / 2;
    let (a, b) = conns.split_at_mut(half);
    let start = Instant::now();
    let run = |part: &mut [std::net::TcpStream]| {
        let mut times = Vec::new();
        while start.elapsed() < Duration::from_millis(500) {
            for (i, conn) in part.iter_mut().enumerate() {
                let asked = Instant::now();
                echo(conn, i as u8);
                times.push(asked.elapsed());
            }
        }
        times
    };
    let mut times = std::thread::scope(|s| {
        let other = s.spawn(|| run(b));
        let mut times = run(a);
        times.extend(other.join().unwrap());
        times
    });
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort();
    (rate, times[times.len() * 99 / 100])
}

#[test]
fn ten_thousand_idle_connections_cost_nothing_beside_a_hundred_busy_ones() {
    const NAME: &str = "ten_thousand_idle_connections_cost_nothing_beside_a_hundred_busy_ones";
    if role().is_some() {
        return echo_server();
    }
    let allowed = raise_the_limit().saturating_sub(300);
    let idle = IDLE.min(allowed.saturating_sub(BUSY));
    if idle < IDLE {
        eprintln!("skipped in part: {idle} idle connections instead of {IDLE}, for want of descriptors");
    }
    within(LONG, move || {
        let mut command = again(NAME, "server");
        command.env("CORO_WORKERS", "2");
        let mut server = Peer(command.spawn().unwrap());
        let pid = server.0.id();
        let mut line = String::new();
        let mut output = BufReader::new(server.0.stdout.take().unwrap());
        while !line.contains("listening on ") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the server has ended");
        }
        let at: SocketAddr = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        let connect = || {
            let mut conn = std::net::TcpStream::connect(at).unwrap();
            conn.set_nodelay(true).unwrap();
            echo(&mut conn, 1);
            conn
        };
        let mut active: Vec<_> = (0..BUSY).map(|_| connect()).collect();
        busy(&mut active);
        let (rate_before, slow_before) = busy(&mut active);

        let (_, memory_before, _) = cost(pid);
        let mut silent: Vec<_> = (0..idle).map(|_| connect()).collect();
        let (_, memory, _) = cost(pid);
        let each = memory.saturating_sub(memory_before) / idle as u64;

        let (cpu_before, _, switches_before) = cost(pid);
        std::thread::sleep(Duration::from_secs(1));
        let (cpu, _, switches) = cost(pid);
        let (cpu, switches) = (cpu - cpu_before, switches - switches_before);

        let (rate, slow) = busy(&mut active);
        println!(
            "{idle} idle connections: {each} resident bytes each; in a second of silence {cpu:?} of CPU, {switches} wake-ups"
        );
        println!(
            "{BUSY} busy ones alone: {rate_before:.0} answers/s, p99 {slow_before:?}; beside them: {rate:.0}/s, p99 {slow:?}"
        );
        assert!(cpu < Duration::from_millis(20), "silence costs {cpu:?} a second");
        assert!(switches < 200, "{switches} wake-ups in a second of silence");
        assert!(each < 32 * 1024, "{each} bytes for each task that waits");
        // A machine that others use gives and takes as well; a cost for each idle one would be a factor of a hundred.
        assert!(rate > rate_before / 5.0, "{rate_before:.0}/s became {rate:.0}/s");
        // Those that were silent are still served.
        for conn in silent.iter_mut().step_by(97) {
            echo(conn, 9);
        }
    });
}
