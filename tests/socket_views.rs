//! What the views say of sockets: addresses in waits, the table of sockets, the event map, peers, descriptors, leaks.

mod util;

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coro::inspect::{self, SocketKind, SocketReport};
use coro::net::unix::{UnixDatagram, UnixListener, UnixStream};
use coro::net::{TcpListener, TcpStream, UdpSocket};
use util::sockets::{Directory, LONG, parked, tcp_pair};
use util::{passes, role, until};

/// One test at a time: descriptor numbers are the whole process's, and a number that one test has closed must not be given
/// to another while the first looks whether it is gone.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As a task of a fresh runtime, alone.
#[track_caller]
fn on<T: Send + 'static>(workers: usize, f: impl FnOnce() -> T + Send + 'static) -> T {
    let _alone = alone();
    util::sockets::on(workers, f)
}

/// Whether this is the process in which the test `name` is to be played; else plays it in one.
#[track_caller]
fn in_a_child(name: &str) -> bool {
    if role().is_some() {
        return true;
    }
    let _alone = alone();
    let text = passes(name, "child", LONG);
    text.lines().filter(|l| l.contains(" B each ")).for_each(|l| println!("{l}"));
    false
}

/// The socket that has the descriptor of `of`.
#[track_caller]
fn seen(of: &impl AsRawFd) -> SocketReport {
    let fd = of.as_raw_fd();
    inspect::sockets()
        .into_iter()
        .find(|s| s.fd == fd || s.clones.contains(&fd))
        .unwrap_or_else(|| panic!("no socket with fd {fd}"))
}

fn wait_of(task: coro::Task) -> String {
    coro::where_is(task.id()).map(|t| t.wait).unwrap_or_default()
}

/// Spawns and waits until the task is parked in a wait that begins with `word`; returns how the wait reads.
#[track_caller]
fn waits<T: Send + 'static>(word: &str, f: impl FnOnce() -> T + Send + 'static) -> (coro::JoinHandle<T>, String) {
    let task = coro::spawn(f);
    until(LONG, word, || coro::where_is(task.id()).is_some_and(|t| t.to_string().contains(&format!(" {word} "))));
    let text = wait_of(task.task());
    (task, text)
}

/// A line with its times masked.
fn masked(line: &str) -> String {
    let mut out = String::new();
    for word in line.split(' ') {
        let (bare, tail) = word.trim_end_matches([',', ';']).split_at(word.trim_end_matches([',', ';']).len());
        let time = ["us", "ms", "s"].iter().any(|unit| {
            bare.strip_suffix(unit).is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit() || c == '.'))
        });
        let tail = if tail.is_empty() { &word[bare.len()..] } else { tail };
        out += &format!("{}{}{tail}", if out.is_empty() { "" } else { " " }, if time { "TIME" } else { bare });
    }
    out
}

#[test]
fn a_wait_says_between_which_addresses() {
    on(1, || {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let at = listener.local_addr().unwrap();
        let shared = listener.clone();
        let (accepting, text) = waits("accept", move || shared.accept().unwrap());
        let (before, after) = text.split_once(" (backlog ").expect(&text);
        assert_eq!(before, format!("accept fd {} {at}", listener.as_raw_fd()));
        assert!(after.trim_end_matches(')').parse::<u32>().unwrap() > 0, "{text}");
        let client = TcpStream::connect(at).unwrap();
        let me = client.local_addr().unwrap();
        let (server, _) = accepting.join().unwrap();
        let fd = server.as_raw_fd();
        let server = Arc::new(server);
        let shared = server.clone();
        let (reading, text) = waits("read", move || (&*shared).read(&mut [0; 8]).unwrap());
        assert_eq!(text, format!("read fd {fd} {at} → {me}"));
        let fd = client.as_raw_fd();
        let full = client.try_clone().unwrap();
        let twin = full.as_raw_fd();
        let (writing, text) = waits("write", move || while (&full).write(&[0; 65536]).is_ok() {});
        assert_eq!(text, format!("write fd {twin} {me} → {at}"));
        assert_ne!(fd, twin);
        reading.join().unwrap();
        drop(server);
        writing.join().unwrap();

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (fd, own) = (udp.as_raw_fd(), udp.local_addr().unwrap());
        let udp = Arc::new(udp);
        let shared = udp.clone();
        let (receiving, text) = waits("read", move || shared.recv(&mut [0; 8]).unwrap());
        assert_eq!(text, format!("read fd {fd} udp {own}"));
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = other.local_addr().unwrap();
        udp.connect(peer).unwrap();
        assert_eq!(wait_of(receiving.task()), format!("read fd {fd} udp {own} → {peer}"));
        other.send_to(b"x", own).unwrap();
        assert_eq!(receiving.join().unwrap(), 1);
    });
}

#[test]
fn unix_sockets_show_paths_and_processes() {
    on(1, || {
        let (pid, directory) = (std::process::id(), Directory::new());
        let path = directory.at("x.sock");
        let name = path.display();
        let listener = Arc::new(UnixListener::bind(&path).unwrap());
        let shared = listener.clone();
        let (accepting, text) = waits("accept", move || shared.accept().unwrap().0);
        assert_eq!(text, format!("accept fd {} unix {name}", listener.as_raw_fd()));
        let client = UnixStream::connect(&path).unwrap();
        let server = accepting.join().unwrap();
        let fd = server.as_raw_fd();
        let (reading, text) = waits("read", move || (&server).read(&mut [0; 8]).unwrap());
        assert_eq!(text, format!("read fd {fd} unix {name} → pid {pid}"));
        let fd = client.as_raw_fd();
        let client = Arc::new(client);
        let shared = client.clone();
        let (other, text) = waits("read", move || (&*shared).read(&mut [0; 8]).unwrap());
        assert_eq!(text, format!("read fd {fd} unix → {name} (pid {pid})"));
        client.shutdown(Shutdown::Both).unwrap();
        assert_eq!((reading.join().unwrap(), other.join().unwrap()), (0, 0));

        let (a, b) = UnixStream::pair().unwrap();
        let fd = a.as_raw_fd();
        let (reading, text) = waits("read", move || (&a).read(&mut [0; 8]).unwrap());
        assert_eq!(text, format!("read fd {fd} unix → pid {pid}"));
        drop(b);
        reading.join().unwrap();
    });
}

/// A backlog of one that is full makes a TCP connect wait (the kernel drops what comes).
#[cfg(target_os = "linux")]
#[test]
fn a_connect_shows_its_target() {
    on(1, || {
        let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        full.bind(&socket2::SockAddr::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap())).unwrap();
        full.listen(0).unwrap();
        let at = full.local_addr().unwrap().as_socket().unwrap();
        let _first = std::net::TcpStream::connect(at).unwrap();
        let (connecting, text) = waits("connect", move || TcpStream::connect(at).map(drop));
        let fd = text.split(' ').nth(2).unwrap();
        assert_eq!(text, format!("connect fd {fd} → {at}"));
        let entry = inspect::sockets().into_iter().find(|s| s.fd.to_string() == fd).unwrap();
        assert_eq!((entry.state, entry.waiting[0].wants), (Some("syn sent"), "connect"));
        connecting.cancel();
        drop(connecting.join());
        assert!(inspect::sockets().iter().all(|s| s.peer != Some(at.to_string()) || s.kind != SocketKind::TcpStream));
    });
}

#[test]
fn an_entry_tells_opener_site_state_and_who_waits() {
    on(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let client = TcpStream::connect(at).unwrap();
        let client_line = line!() - 1;
        let me = coro::current().unwrap().id();
        let acceptor = coro::Builder::new().name("the acceptor\u{1b}").spawn(move || {
            let (server, _) = listener.accept().unwrap();
            let line = line!() - 1;
            let fd = server.as_raw_fd();
            let reader = coro::spawn_named("reader", move || (&server).read(&mut [0; 8]).unwrap());
            (line, fd, reader, listener)
        });
        let acceptor = acceptor.unwrap();
        let id = acceptor.id();
        let (line, fd, reader, listener) = acceptor.join().unwrap();
        until(LONG, "the reader waits", || coro::where_is(reader.id()).is_some_and(|t| t.wait.starts_with("read")));
        let s = inspect::sockets().into_iter().find(|s| s.fd == fd).unwrap();
        let site = s.site.unwrap();
        assert_eq!((site.file, site.line, s.opener), (file!(), line, id));
        assert_eq!(s.opener_name, None, "its task has ended");
        assert_eq!((s.kind, s.local.as_deref()), (SocketKind::TcpStream, Some(&*at.to_string())));
        assert_eq!((s.waiting.len(), s.waiting[0].task, s.waiting[0].wants), (1, reader.id(), "read"));
        let peer = client.local_addr().unwrap();
        assert_eq!(
            masked(&s.to_string()),
            format!(
                "fd {fd} tcp {at} → {peer} established, age TIME, idle TIME, in 0 B, out 0 B, opened at {}:{line} by #{id}; \
                 waiting: #{} \"reader\" read TIME",
                file!(),
                reader.id()
            )
        );
        let c = seen(&client);
        assert_eq!((c.site.unwrap().line, c.opener), (client_line, me));
        let l = seen(&listener);
        assert_eq!((l.kind, l.accepted, l.backlog.map(|b| b.0)), (SocketKind::TcpListener, 1, Some(0)));
        assert_eq!((l.opener, l.opener_name.as_deref()), (me, Some("main")));
        assert_eq!(
            masked(&l.to_string()).split(" backlog ").collect::<Vec<_>>()[0],
            format!("fd {} tcp listener {at}", listener.as_raw_fd())
        );
        let more: Vec<_> = (0..3).map(|_| TcpStream::connect(at).unwrap()).collect();
        assert_eq!(seen(&listener).backlog.map(|b| b.0), Some(3));
        // The peer goes; the reader ends, its value is dropped, and so is the entry.
        drop((client, more));
        assert_eq!(reader.join().unwrap(), 0);
        assert!(inspect::sockets().iter().all(|s| s.fd != fd));
        // A task that still runs is named.
        let opener = coro::spawn_named("opener\u{1b}", || {
            let held = UdpSocket::bind("127.0.0.1:0").unwrap();
            let text = seen(&held).to_string();
            (held.as_raw_fd(), text)
        });
        let (_, text) = opener.join().unwrap();
        assert!(text.contains("\"opener\\u{1b}\"") && !text.contains('\u{1b}'), "{text}");
    });
}

#[test]
fn every_way_to_a_socket_names_the_users_line() {
    on(1, || {
        let directory = Directory::new();
        let (path, other) = (directory.at("l"), directory.at("d"));
        let here =
            |s: SocketReport, line: u32| assert_eq!(s.site.map(|s| (s.file, s.line)), Some((file!(), line)), "{s}");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        here(seen(&tcp), line!() - 1);
        let at = tcp.local_addr().unwrap();
        let a = TcpStream::connect_timeout(&at, LONG).unwrap();
        here(seen(&a), line!() - 1);
        let many = tcp.accept_many(1).unwrap();
        here(seen(&many[0].0), line!() - 1);
        let b = TcpStream::connect(at).unwrap();
        let taken = tcp.incoming().next().unwrap().unwrap();
        here(seen(&taken), line!() - 1);
        let unix = UnixListener::bind(&path).unwrap();
        here(seen(&unix), line!() - 1);
        let c = UnixStream::connect(&path).unwrap();
        here(seen(&c), line!() - 1);
        let d = unix.accept().unwrap().0;
        here(seen(&d), line!() - 1);
        let e = UnixDatagram::bind(&other).unwrap();
        here(seen(&e), line!() - 1);
        let f = UnixDatagram::unbound().unwrap();
        here(seen(&f), line!() - 1);
        f.connect(&other).unwrap();
        assert_eq!(seen(&f).peer.as_deref(), other.to_str());
        let (g, h) = UnixDatagram::pair().unwrap();
        here(seen(&g), line!() - 1);
        let std_socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let i = UdpSocket::from(std_socket);
        here(seen(&i), line!() - 1);
        let j = UdpSocket::from(OwnedFd::from(i));
        here(seen(&j), line!() - 1);
        drop((a, b, h));
    });
}

#[test]
fn bytes_are_exact_over_an_echo_of_every_form() {
    on(2, || {
        const TOTAL: usize = 3_000_000;
        let (client, server) = tcp_pair();
        let mut echo = server.try_clone().unwrap();
        let echoing = coro::spawn(move || {
            let (mut a, mut b) = ([0; 1000], [0; 4000]);
            loop {
                let n = echo.read_vectored(&mut [IoSliceMut::new(&mut a), IoSliceMut::new(&mut b)]).unwrap();
                if n == 0 {
                    return echo;
                }
                let (first, second) = (n.min(1000), n.saturating_sub(1000));
                let mut parts = [IoSlice::new(&a[..first]), IoSlice::new(&b[..second])];
                let mut rest = &mut parts[..];
                while !rest.is_empty() {
                    let sent = echo.write_vectored(rest).unwrap();
                    IoSlice::advance_slices(&mut rest, sent);
                }
            }
        });
        let mut sending = client.try_clone().unwrap();
        let sender = coro::spawn(move || {
            sending.write_all(&vec![7; TOTAL]).unwrap();
            sending.shutdown(Shutdown::Write).unwrap();
            sending
        });
        let mut buf = [0; 777];
        let mut got = 0;
        // Some of it is looked at first, which is no traffic.
        client.peek(&mut buf).unwrap();
        while got < TOTAL {
            got += (&client).read(&mut buf).unwrap();
        }
        let sending = sender.join().unwrap();
        let (s, c) = (seen(&server), seen(&client));
        assert_eq!(
            (s.bytes_in, s.bytes_out, c.bytes_in, c.bytes_out),
            (TOTAL as u64, TOTAL as u64, TOTAL as u64, TOTAL as u64)
        );
        // The clone is the same socket, not one more.
        assert_eq!(c.clones, [sending.as_raw_fd()]);
        drop(client);
        assert_eq!((seen(&sending).bytes_out, seen(&sending).clones.len()), (TOTAL as u64, 0));
        drop(sending);
        drop(echoing.join().unwrap());

        let (a, b) = UnixDatagram::pair().unwrap();
        a.send(b"four").unwrap();
        a.send(b"").unwrap();
        b.peek(&mut buf).unwrap();
        b.recv(&mut buf).unwrap();
        assert_eq!((seen(&a).bytes_out, seen(&b).bytes_in), (4, 4));
        let (u, v) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        u.send_to(b"abc", v.local_addr().unwrap()).unwrap();
        v.recv_from(&mut buf).unwrap();
        assert_eq!((seen(&u).bytes_out, seen(&v).bytes_in), (3, 3));
        let (x, y) = UnixStream::pair().unwrap();
        x.send_with_fds(b"fd", &[std::os::fd::AsFd::as_fd(&y)]).unwrap();
        y.recv_with_fds(&mut buf, &mut Vec::new()).unwrap();
        assert_eq!((seen(&x).bytes_out, seen(&y).bytes_in), (2, 2));
    });
}

#[test]
fn sockets_of_plain_threads_are_seen_as_well() {
    let _alone = alone();
    let (mut a, mut b) = UnixStream::pair().unwrap();
    a.write_all(b"hello").unwrap();
    b.read_exact(&mut [0; 5]).unwrap();
    assert_eq!((seen(&a).bytes_out, seen(&b).bytes_in, seen(&b).opener), (5, 5, 0));
    assert!(seen(&b).to_string().ends_with(" by a plain thread"), "{}", seen(&b));
}

#[test]
fn a_number_that_is_used_again_is_never_the_old_socket() {
    on(1, || {
        for close in [false, true] {
            let (old, other) = tcp_pair();
            let (fd, old_peer) = (old.as_raw_fd(), old.peer_addr().unwrap().to_string());
            (&other).write_all(b"x").unwrap();
            (&old).read_exact(&mut [0]).unwrap();
            assert_eq!(seen(&old).bytes_in, 1);
            if close {
                old.close().unwrap();
                assert!(inspect::sockets().iter().all(|s| s.fd != fd), "the number is held, but it is no socket");
            }
            drop(old);
            assert!(inspect::sockets().iter().all(|s| s.fd != fd));
            let mut others = Vec::new();
            let new = loop {
                let one = UdpSocket::bind("127.0.0.1:0").unwrap();
                if one.as_raw_fd() == fd {
                    break one;
                }
                others.push(one);
                assert!(others.len() < 20, "the lowest free number is given again");
            };
            let s = seen(&new);
            assert_eq!((s.kind, s.bytes_in, s.peer.as_deref()), (SocketKind::Udp, 0, None));
            let reader = parked(0, move || new.recv(&mut [0; 8]).map(drop));
            assert!(!wait_of(reader.task()).contains(&old_peer), "{}", wait_of(reader.task()));
            reader.cancel();
            drop(reader.join());
        }
    });
}

#[test]
fn given_to_std_and_taken_back_it_is_listed_anew() {
    on(1, || {
        let (a, _b) = tcp_pair();
        let fd = a.as_raw_fd();
        let twin = a.try_clone().unwrap();
        (&_b).write_all(b"12345").unwrap();
        (&a).read_exact(&mut [0; 5]).unwrap();
        let away = std::net::TcpStream::from(a);
        assert_eq!(seen(&twin).fd, twin.as_raw_fd());
        assert!(inspect::sockets().iter().all(|s| s.fd != fd && !s.clones.contains(&fd)), "std has it now");
        // It comes back as a further handle of the one that stayed.
        let back = TcpStream::from(away);
        assert_eq!(back.as_raw_fd(), fd);
        let s = inspect::sockets().into_iter().find(|s| s.fd == fd || s.clones.contains(&fd)).unwrap();
        assert_eq!((s.bytes_in, s.clones.len()), (5, if cfg!(target_os = "linux") { 1 } else { 0 }));
        drop(twin);
        assert_eq!(seen(&back).bytes_in, 5);
    });
}

#[test]
fn the_event_map_loses_what_timed_out_was_cancelled_or_closed() {
    on(2, || {
        let on_fd = |fd: i32| inspect::events().into_iter().filter(move |e| e.fd == fd).collect::<Vec<_>>();
        let gone = |fd: i32, why: &str| until(LONG, why, || on_fd(fd).is_empty());
        // A time limit.
        let (a, _peer) = tcp_pair();
        let fd = a.as_raw_fd();
        a.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let timed = parked(0, move || {
            (&a).read(&mut [0; 8]).unwrap_err();
            coro::park();
            drop(a);
        });
        gone(fd, "a wait that timed out");
        timed.task().unpark();
        timed.join().unwrap();
        // A cancellation, of one of two that wait.
        let (b, _peer) = tcp_pair();
        let (fd, b) = (b.as_raw_fd(), Arc::new(b));
        let readers: Vec<_> = (0..2)
            .map(|w| {
                let b = b.clone();
                parked(w, move || (&*b).read(&mut [0; 8]).map(drop))
            })
            .collect();
        let at = b.local_addr().unwrap();
        until(LONG, "both wait", || on_fd(fd).first().is_some_and(|e| e.waiting.len() == 2));
        let event = on_fd(fd).remove(0);
        assert_eq!(
            masked(&event.to_string()),
            format!(
                "fd {fd} read {at} → {}: #{} read TIME, #{} read TIME",
                b.peer_addr().unwrap(),
                event.waiting[0].task,
                event.waiting[1].task
            )
        );
        assert!(event.waiting[0].age >= event.waiting[1].age);
        readers[0].cancel();
        until(LONG, "one is left", || on_fd(fd).first().is_some_and(|e| e.waiting.len() == 1));
        assert_eq!(on_fd(fd)[0].waiting[0].task, readers[1].id());
        // Closed under the other.
        b.close().unwrap();
        gone(fd, "a wait on a socket that was closed");
        for r in readers {
            drop(r.join());
        }
        // Both directions of one descriptor are two lines.
        let (c, d) = tcp_pair();
        let (fd, c) = (c.as_raw_fd(), Arc::new(c));
        let (reading, writing) = (c.clone(), c.clone());
        let reader = parked(0, move || (&*reading).read(&mut [0; 8]).map(drop));
        let writer = coro::spawn(move || while (&*writing).write(&[0; 65536]).is_ok() {});
        until(LONG, "both directions", || on_fd(fd).len() == 2);
        assert_eq!(on_fd(fd).iter().map(|e| e.direction).collect::<Vec<_>>(), ["read", "write"]);
        drop(d);
        gone(fd, "the peer is gone");
        drop(reader.join());
        writer.join().unwrap();
    });
}

#[test]
fn waiters_are_counted_by_peer() {
    on(1, || {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ends = Vec::new();
        let mut readers = Vec::new();
        // A loopback address is a peer of its own; nobody else uses these.
        for (source, n) in [("127.9.8.1:0", 3), ("127.9.8.2:0", 1)] {
            for _ in 0..n {
                let s = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                s.bind(&source.parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
                s.connect(&std::net::SocketAddr::from(([127, 9, 8, 100], port)).into()).unwrap();
                let (server, _) = listener.accept().unwrap();
                // The listener is bound to every address; this connection is not.
                assert_eq!(seen(&server).local, Some(format!("127.9.8.100:{port}")));
                (&server).write_all(b"hi").unwrap();
                readers.push(parked(0, move || (&server).read(&mut [0; 8]).map(drop)));
                ends.push(s);
            }
        }
        let all = inspect::peers();
        let of = |ip: &str| all.iter().find(|p| p.peer == ip).unwrap_or_else(|| panic!("no {ip} in {all:?}"));
        let (three, one) = (of("127.9.8.1"), of("127.9.8.2"));
        assert_eq!((three.sockets, three.waiting, three.bytes_out), (3, 3, 6));
        assert_eq!((one.sockets, one.waiting), (1, 1));
        let first = coro::where_is(readers[0].id()).unwrap().age;
        assert!(three.oldest_wait.unwrap() <= first && three.oldest_wait > one.oldest_wait, "{three} {one}");
        assert_eq!(masked(&three.to_string()), "127.9.8.1: 3 sockets, 3 waiting, the oldest for TIME, in 0 B, out 6 B");
        drop(ends);
        readers.into_iter().for_each(|r| drop(r.join()));
    });
}

#[test]
fn a_snapshot_has_descriptor_and_peer() {
    on(1, || {
        let (a, b) = tcp_pair();
        let (fd, peer) = (a.as_raw_fd(), a.peer_addr().unwrap().to_string());
        let reader = parked(0, move || (&a).read(&mut [0; 8]).map(drop));
        let snapshot = inspect::Snapshot::take(&inspect::Options::default());
        let wait = snapshot.tasks.iter().find(|t| t.id == reader.id()).unwrap().wait.as_ref().unwrap();
        assert_eq!((wait.kind, wait.fd, wait.peer.as_deref()), ("read", Some(fd), Some(&*peer)));
        drop(b);
        drop(reader.join());
    });
}

#[test]
fn a_leak_stands_first_by_its_site() {
    if !in_a_child("a_leak_stands_first_by_its_site") {
        return;
    }
    on(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let before = inspect::descriptors();
        let mut leaked = Vec::new();
        let mut line = 0;
        for _ in 0..200 {
            drop(TcpStream::connect(at).unwrap());
            leaked.push(listener.accept().unwrap().0);
            line = line!() - 1;
        }
        let after = inspect::descriptors();
        assert_eq!(after.sockets, before.sockets + 200);
        if cfg!(target_os = "linux") {
            assert!(after.exact && after.open >= before.open + 190, "{before} {after}");
        }
        let sites = inspect::sockets_by_site();
        let first = &sites[0];
        assert_eq!((first.sockets, first.descriptors, first.waited_on), (200, 200, 0));
        assert_eq!(first.site.map(|s| (s.file, s.line)), Some((file!(), line)));
        if cfg!(target_os = "linux") {
            // The clients have gone, the program has not looked: what a leak mostly looks like.
            until(LONG, "all closed by the peer", || inspect::sockets_by_site()[0].closed_by_peer == 200);
            assert_eq!(
                masked(&inspect::sockets_by_site()[0].to_string()),
                format!(
                    "200 tcp opened at {}:{line}, oldest TIME, idle up to TIME, waited on 0, closed by the peer 200",
                    file!()
                )
            );
        }
        drop(leaked);
        assert_eq!(inspect::descriptors().sockets, before.sockets);
        assert_eq!(inspect::sockets().len(), 1);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn with_no_descriptor_left_it_still_answers() {
    if !in_a_child("with_no_descriptor_left_it_still_answers") {
        return;
    }
    on(1, || {
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: the structure outlives the call; this process does nothing else.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        let mut held = Vec::new();
        let full = loop {
            match UdpSocket::bind("127.0.0.1:0") {
                Ok(s) => held.push(s),
                Err(e) => break e,
            }
        };
        assert_eq!(full.raw_os_error(), Some(libc::EMFILE));
        let found = inspect::descriptors();
        assert_eq!((found.limit, found.sockets), (Some(64), held.len()));
        if found.exact {
            // Descriptors that were open before may have higher numbers.
            assert!((64..80).contains(&found.open), "{found}");
        } else {
            assert!(found.to_string().starts_with("at least "), "{found}");
        }
        assert_eq!(inspect::sockets_by_site()[0].sockets, held.len());
        let line = masked(&found.to_string());
        assert!(line.contains(&format!("of 64 allowed, {} of them sockets of coro", held.len())), "{line}");
    });
}

/// Prints what a socket costs, and that looking at 10,000 of them is quick.
#[test]
fn ten_thousand_sockets() {
    if !in_a_child("ten_thousand_sockets") {
        return;
    }
    on(1, || {
        // A report of this long slice would have memory of its own.
        coro::set_latency_warning(Duration::ZERO);
        const WANTED: usize = 10_000;
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the structure outlives the calls.
        let most = unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            limit.rlim_cur = limit.rlim_max.min(20_000);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
            limit.rlim_cur as usize
        };
        let n = WANTED.min(most.saturating_sub(100)) / 2;
        let resident = || {
            // Without what is mapped of files, which is read for names at any time.
            let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap_or_default();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) * 1024
        };
        // Names are known before, in tables of their own.
        assert_eq!(coro::where_all().len(), 1);
        until(LONG, "memory settles", || {
            let before = resident();
            coro::sleep(Duration::from_millis(200));
            resident().abs_diff(before) < 64 << 10
        });
        let before = resident();
        let mut pairs = Vec::with_capacity(n);
        let begun = std::time::Instant::now();
        pairs.extend((0..n).map(|_| UnixStream::pair().unwrap()));
        let made = begun.elapsed();
        let grown = resident().saturating_sub(before);
        let begun = std::time::Instant::now();
        assert_eq!(inspect::sockets().len(), 2 * n);
        let looked = begun.elapsed();
        let each = grown / (2 * n);
        println!(
            "{} sockets: {each} B each with all the program has for them, {made:?} to make, {looked:?} to list",
            2 * n
        );
        // 128 bytes of record, 8 of slot, and what `UnixStream` itself has.
        assert!(each < 400, "{each} bytes per socket");
        assert!(looked < Duration::from_secs(2), "{looked:?}");
        drop(pairs);
        assert_eq!(inspect::sockets().len(), 0);
        // What was given back is used again.
        let before = resident();
        let again: Vec<_> = (0..n).map(|_| UnixStream::pair().unwrap()).collect();
        assert!(resident().saturating_sub(before) < grown.max(1 << 20), "records are used again");
        drop(again);
    });
}
