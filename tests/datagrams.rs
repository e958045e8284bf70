//! UDP and unix datagrams: short messages in one edge, full queues, several receivers, limits and modes.

mod util;

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::net::unix::UnixDatagram;
use coro::net::{Shutdown, UdpSocket};
use util::sockets::{Directory, LATE, LONG, blocking, everywhere, expires, is_parked, on, parked, was_closed};
use util::{Rng, byte_at, until};

fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

fn udp_pair() -> (UdpSocket, UdpSocket) {
    let ((a, at_a), (b, at_b)) = (udp(), udp());
    a.connect(at_b).unwrap();
    b.connect(at_a).unwrap();
    (a, b)
}

/// A connected sender whose peer, of std, takes nothing; `flood` filled its queue.
fn full_peer(directory: &Directory) -> (UnixDatagram, std::os::unix::net::UnixDatagram, usize) {
    let peer = std::os::unix::net::UnixDatagram::bind(directory.at("peer")).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while sender.send_to(&[sent as u8], directory.at("peer")).is_ok() {
        sent += 1;
    }
    sender.set_nonblocking(false).unwrap();
    assert!(sent > 0);
    (sender, peer, sent)
}

#[test]
fn datagrams_of_every_size_arrive_whole_and_longer_ones_are_cut() {
    everywhere(|| {
        let ((a, at_a), (b, at_b)) = (udp(), udp());
        let mut buf = [0xee; 9000];
        for size in [0, 1, 17, 1500, 8999] {
            let sent: Vec<u8> = (0..size).map(|i| byte_at(size, i)).collect();
            assert_eq!(a.send_to(&sent, at_b).unwrap(), sent.len());
            assert_eq!(b.peek_from(&mut buf).unwrap(), (sent.len(), at_a));
            assert_eq!(b.recv_from(&mut buf).unwrap(), (sent.len(), at_a));
            assert_eq!(&buf[..sent.len()], sent);
        }
        a.connect(at_b).unwrap();
        assert_eq!(a.peer_addr().unwrap(), at_b);
        assert_eq!(b.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
        a.send(b"longer than that").unwrap();
        a.send(b"next").unwrap();
        let mut short = [0; 6];
        assert_eq!(b.peek(&mut short).unwrap(), 6);
        assert_eq!(b.recv(&mut short).unwrap(), 6);
        assert_eq!(&short, b"longer");
        assert_eq!(b.recv(&mut short).unwrap(), 4, "the rest is gone, the next message is whole");
        // An address that nobody can be sent to, none at all, and a message that is too long.
        assert_eq!(b.send_to(b"x", "[::1]:9").unwrap_err().raw_os_error(), Some(libc::EAFNOSUPPORT));
        assert_eq!(b.send_to(b"x", &[] as &[SocketAddr]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(b.connect(&[] as &[SocketAddr]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(a.send(&[0; 70_000]).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
        // The first address that can be had.
        let two: [SocketAddr; 2] = ["192.0.2.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
        assert!(UdpSocket::bind(&two[..]).unwrap().local_addr().unwrap().ip().is_loopback());
        assert_eq!(UdpSocket::bind(two[0]).unwrap_err().raw_os_error(), Some(libc::EADDRNOTAVAIL));
    });
}

/// Were readiness taken back after a short receive, all but the first of a burst would stay where they are.
#[test]
fn a_burst_in_one_edge_is_received_to_the_last() {
    for unix in [false, true] {
        on(1, move || {
            let mut rng = Rng::from_environment();
            for round in 0..50 {
                let burst = 1 + rng.below(9);
                let sizes: Vec<usize> = (0..burst).map(|_| rng.size(600)).collect();
                let (udp, dgram) = (udp_pair(), UnixDatagram::pair().unwrap());
                let wanted = sizes.clone();
                let receives = move || {
                    let mut buf = [0; 4096];
                    for size in wanted {
                        let n = if unix { dgram.1.recv(&mut buf) } else { udp.1.recv(&mut buf) }.unwrap();
                        assert_eq!(n, size, "round {round}");
                        assert!((0..n).all(|i| buf[i] == byte_at(n as u64, i as u64)));
                    }
                };
                let reader = parked(0, receives);
                // The reader cannot run before all of them are there: this task does not give way.
                for size in sizes {
                    let message: Vec<u8> = (0..size).map(|i| byte_at(size as u64, i as u64)).collect();
                    if unix { dgram.0.send(&message) } else { udp.0.send(&message) }.unwrap();
                }
                reader.join().unwrap();
            }
        });
    }
}

#[test]
fn several_receivers_get_one_each_on_clones_and_workers() {
    on(4, || {
        let (sender, to) = (udp().0, udp());
        let (shared, at) = (Arc::new(to.0), to.1);
        let got = Arc::new(AtomicUsize::new(0));
        let receivers: Vec<_> = (0..40usize)
            .map(|i| {
                let (shared, got) = (shared.clone(), got.clone());
                let receive = move |s: &UdpSocket| {
                    let mut buf = [0; 8];
                    let n = s.recv(&mut buf).unwrap();
                    got.fetch_add(1, Ordering::SeqCst);
                    buf[..n].to_vec()
                };
                parked(i % 4, move || if i % 3 == 0 { receive(&shared.try_clone().unwrap()) } else { receive(&shared) })
            })
            .collect();
        for i in 0..40u8 {
            sender.send_to(&[i], at).unwrap();
            until(LONG, "somebody gets it", || got.load(Ordering::SeqCst) == usize::from(i) + 1);
        }
        let mut all: Vec<_> = receivers.into_iter().map(|r| r.join().unwrap()).collect();
        all.sort();
        assert_eq!(all, (0..40u8).map(|i| vec![i]).collect::<Vec<_>>());
    });
    // On one handle and one worker in the order in which they came.
    on(1, || {
        let (a, b) = UnixDatagram::pair().unwrap();
        let b = Arc::new(b);
        let order: Vec<_> = (0..10u8)
            .map(|i| {
                let b = b.clone();
                parked(0, move || {
                    let mut got = [0];
                    b.recv(&mut got).unwrap();
                    assert_eq!(got, [i]);
                })
            })
            .collect();
        (0..10u8).for_each(|i| assert_eq!(a.send(&[i]).unwrap(), 1));
        order.into_iter().for_each(|r| r.join().unwrap());
    });
}

#[test]
fn a_connected_sender_waits_for_room_and_is_told() {
    everywhere(|| {
        let directory = Directory::new();
        let (sender, peer, sent) = full_peer(&directory);
        sender.connect(directory.at("peer")).unwrap();
        sender.set_write_timeout(Some(Duration::from_millis(30))).unwrap();
        expires(Duration::from_millis(30), || sender.send(b"x"));
        sender.set_write_timeout(None).unwrap();
        let sends = coro::spawn(move || sender.send(b"last").unwrap());
        until(LONG, "it parks", || is_parked(sends.id()));
        let mut buf = [0; 8];
        for i in 0..sent {
            assert_eq!((peer.recv(&mut buf).unwrap(), buf[0]), (1, i as u8));
        }
        assert_eq!(sends.join().unwrap(), 4);
        assert_eq!(peer.recv(&mut buf).unwrap(), 4);
    });
}

/// No readiness ever tells that there is room, and the socket itself is writable all the time: waiting for readiness
/// would hang in a task and spin on a thread.
#[test]
fn a_sender_without_connection_tries_again_until_there_is_room() {
    everywhere(|| {
        let directory = Directory::new();
        let (sender, peer, sent) = full_peer(&directory);
        let to = directory.at("peer");
        sender.set_write_timeout(Some(Duration::from_millis(40))).unwrap();
        let cpu = cpu_of_thread();
        expires(Duration::from_millis(40), || sender.send_to(b"x", &to));
        if coro::current().is_none() {
            let spent = cpu_of_thread() - cpu;
            assert!(spent < Duration::from_millis(20), "it spins: {spent:?} in 40 ms");
        }
        sender.set_nonblocking(true).unwrap();
        assert_eq!(sender.send_to(b"x", &to).unwrap_err().kind(), ErrorKind::WouldBlock);
        sender.set_nonblocking(false).unwrap();
        sender.set_write_timeout(None).unwrap();

        let sender = Arc::new(sender);
        let sends = {
            let (sender, to) = (sender.clone(), to.clone());
            coro::spawn(move || sender.send_to(b"last", to).unwrap())
        };
        until(LONG, "it waits", || is_parked(sends.id()));
        // The same socket serves other peers meanwhile, and every task but that one goes on.
        let other = std::os::unix::net::UnixDatagram::bind(directory.at("other")).unwrap();
        for i in 0..20 {
            assert_eq!(sender.send_to(&[i], directory.at("other")).unwrap(), 1);
            assert_eq!(other.recv(&mut [0; 8]).unwrap(), 1);
        }
        assert!(!sends.is_finished());
        for _ in 0..sent {
            peer.recv(&mut [0; 8]).unwrap();
        }
        assert_eq!(sends.join().unwrap(), 4);
        assert_eq!(peer.recv(&mut [0; 8]).unwrap(), 4);

        // A peer that goes away ends the wait.
        drop((peer, other));
        assert_eq!(sender.send_to(b"x", &to).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        std::fs::remove_file(&to).unwrap();
        assert_eq!(sender.send_to(b"x", &to).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_sender_without_connection_can_be_interrupted_and_closed() {
    on(1, || {
        let directory = Directory::new();
        let (sender, _peer, _) = full_peer(&directory);
        let to = directory.at("peer");
        let start = Instant::now();
        let late = coro::timeout(Duration::from_millis(30), || sender.send_to(b"x", &to)).unwrap_err();
        assert_eq!(late.into_value().expect("an error first").unwrap_err().kind(), ErrorKind::TimedOut);
        assert!((Duration::from_millis(30)..LATE).contains(&start.elapsed()));
        // An interrupt that is pending comes first, although there is no need to wait.
        let quick = coro::spawn({
            let to = directory.at("nobody");
            let _nobody = std::os::unix::net::UnixDatagram::bind(&to).unwrap();
            move || {
                let s = UnixDatagram::unbound().unwrap();
                coro::yield_slice();
                let _keep = _nobody;
                s.send_to(b"x", to).map_err(|e| e.get_ref().is_some_and(|e| e.is::<coro::CancelledError>()))
            }
        });
        coro::yield_slice();
        quick.task().cancel();
        assert_eq!(quick.join().expect("an error first, then the end"), Err(true));

        let sender = Arc::new(sender);
        let waits = parked(0, {
            let sender = sender.clone();
            move || sender.send_to(b"x", to)
        });
        sender.close().unwrap();
        was_closed(waits.join().unwrap());
    });
}

#[test]
fn refusals_reach_a_parked_receiver_and_leave_the_socket_usable() {
    everywhere(|| {
        let (gone, nobody) = udp();
        drop(gone);
        let (socket, at) = udp();
        socket.connect(nobody).unwrap();
        let socket = Arc::new(socket);
        let receives = {
            let socket = socket.clone();
            coro::spawn(move || socket.recv(&mut [0; 8]).map_err(|e| e.kind()))
        };
        until(LONG, "it parks", || is_parked(receives.id()));
        socket.send(b"x").unwrap();
        assert_eq!(receives.join().unwrap(), Err(ErrorKind::ConnectionRefused));
        assert!(socket.take_error().unwrap().is_none(), "it was told once");
        let (back, _) = udp();
        socket.connect(back.local_addr().unwrap()).unwrap();
        back.send_to(b"y", at).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 1);
    });
}

#[test]
fn limits_and_modes_are_shared_by_clones() {
    everywhere(|| {
        let limit = Duration::from_millis(30);
        let mut buf = [0; 8];
        let (s, at) = udp();
        assert_eq!((s.read_timeout().unwrap(), s.write_timeout().unwrap()), (None, None));
        s.set_read_timeout(Some(limit)).unwrap();
        s.set_write_timeout(Some(limit * 2)).unwrap();
        let clone = s.try_clone().unwrap();
        assert_eq!((clone.read_timeout().unwrap(), clone.write_timeout().unwrap()), (Some(limit), Some(limit * 2)));
        expires(limit, || clone.recv(&mut buf));
        expires(limit, || clone.recv_from(&mut buf));
        expires(limit, || s.peek(&mut buf));
        expires(limit, || s.peek_from(&mut buf));
        clone.set_read_timeout(None).unwrap();
        clone.set_nonblocking(true).unwrap();
        assert_eq!(s.recv(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        s.set_nonblocking(false).unwrap();
        let reads = coro::spawn(move || clone.recv(&mut [0; 8]).unwrap());
        s.send_to(b"abc", at).unwrap();
        assert_eq!(reads.join().unwrap(), 3);
        for set in [UdpSocket::set_read_timeout, UdpSocket::set_write_timeout] {
            assert_eq!(set(&s, Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        }

        let (u, peer) = UnixDatagram::pair().unwrap();
        u.set_read_timeout(Some(limit)).unwrap();
        assert_eq!((u.read_timeout().unwrap(), u.write_timeout().unwrap()), (Some(limit), None));
        let clone = u.try_clone().unwrap();
        expires(limit, || clone.recv(&mut buf));
        expires(limit, || u.recv_from(&mut buf));
        expires(limit, || u.peek(&mut buf));
        expires(limit, || u.peek_from(&mut buf));
        expires(limit, || u.recv_with_fds(&mut buf, &mut Vec::new()));
        // The pair's queue is bounded by the sender's buffer, which does announce room.
        peer.set_write_timeout(Some(limit)).unwrap();
        let mut sent = 0;
        expires(limit, || {
            loop {
                sent += peer.send(&[1; 1000])?;
            }
            #[allow(unreachable_code, reason = "names the type")]
            Ok(())
        });
        peer.set_write_timeout(None).unwrap();
        let last = coro::spawn(move || peer.send(b"last").unwrap());
        let mut received = 0;
        let mut big = [0; 2000];
        while received < sent {
            received += u.recv(&mut big).unwrap();
        }
        assert_eq!(last.join().unwrap(), 4);
        assert_eq!(u.recv(&mut big).unwrap(), 4);
        for set in [UnixDatagram::set_read_timeout, UnixDatagram::set_write_timeout] {
            assert_eq!(set(&u, Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    });
}

#[test]
fn closing_and_shutting_down_wake_receivers() {
    on(2, || {
        let (s, _) = udp();
        let s = Arc::new(s);
        let waits: Vec<_> = (0..4)
            .map(|i| {
                let s = s.clone();
                parked(i % 2, move || s.recv_from(&mut [0; 8]))
            })
            .collect();
        s.close().unwrap();
        waits.into_iter().for_each(|w| was_closed(w.join().unwrap()));
        was_closed(s.send_to(b"x", "127.0.0.1:9"));
        was_closed(s.local_addr());

        let (a, _b) = UnixDatagram::pair().unwrap();
        let a = Arc::new(a);
        let reads = {
            let a = a.clone();
            parked(0, move || a.recv(&mut [0; 8]).unwrap())
        };
        a.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reads.join().unwrap(), 0);
        assert_eq!(a.recv(&mut [0; 8]).unwrap(), 0, "an end stays an end");
        let (n, from) = a.recv_from(&mut [0; 8]).unwrap();
        assert_eq!((n, from.is_unnamed()), (0, true));
        a.shutdown(Shutdown::Write).unwrap();
        assert_eq!(a.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

/// Whatever is set is what std's own type reads from the same socket.
#[test]
fn options_are_those_of_std() {
    let (s, _) = udp();
    let theirs = std::net::UdpSocket::from(s.as_fd().try_clone_to_owned().unwrap());
    for on in [true, false] {
        s.set_broadcast(on).unwrap();
        assert_eq!((s.broadcast().unwrap(), theirs.broadcast().unwrap()), (on, on));
        s.set_multicast_loop_v4(on).unwrap();
        assert_eq!((s.multicast_loop_v4().unwrap(), theirs.multicast_loop_v4().unwrap()), (on, on));
    }
    for ttl in [7, 64] {
        s.set_ttl(ttl).unwrap();
        assert_eq!((s.ttl().unwrap(), theirs.ttl().unwrap()), (ttl, ttl));
        s.set_multicast_ttl_v4(ttl).unwrap();
        assert_eq!((s.multicast_ttl_v4().unwrap(), theirs.multicast_ttl_v4().unwrap()), (ttl, ttl));
    }
    let (group, interface) = (Ipv4Addr::new(239, 9, 9, 9), Ipv4Addr::LOCALHOST);
    s.join_multicast_v4(&group, &interface).unwrap();
    assert!(s.join_multicast_v4(&group, &interface).is_err(), "twice is refused");
    s.leave_multicast_v4(&group, &interface).unwrap();
    assert!(s.leave_multicast_v4(&group, &interface).is_err());
    assert_eq!(s.join_multicast_v4(&interface, &interface).unwrap_err().kind(), ErrorKind::InvalidInput);

    let Ok(six) = UdpSocket::bind("[::1]:0") else {
        eprintln!("skipped: there is no IPv6 here");
        return;
    };
    for on in [true, false] {
        six.set_multicast_loop_v6(on).unwrap();
        assert_eq!(six.multicast_loop_v6().unwrap(), on);
    }
    // Interface 1 is the loopback, which may not carry multicast: then the error is the system's, as std's.
    let group: Ipv6Addr = "ff12::9999".parse().unwrap();
    let theirs = std::net::UdpSocket::bind("[::1]:0").unwrap();
    let codes = |ours: io::Result<()>, std: io::Result<()>| {
        let code = |r: io::Result<()>| r.map_err(|e| e.raw_os_error());
        assert_eq!(code(ours), code(std));
    };
    codes(six.join_multicast_v6(&group, 1), theirs.join_multicast_v6(&group, 1));
    codes(six.leave_multicast_v6(&group, 1), theirs.leave_multicast_v6(&group, 1));
    codes(six.leave_multicast_v6(&group, 1), theirs.leave_multicast_v6(&group, 1));
}

/// Multicast, as far as a machine without a network can show it: through the loopback interface.
#[test]
fn multicast_reaches_every_member() {
    on(1, || {
        let group = Ipv4Addr::new(239, 77, 7, 7);
        let member = || {
            let s = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
            s.set_reuse_address(true).unwrap();
            s
        };
        let first = member();
        first.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into()).unwrap();
        let port = first.local_addr().unwrap().as_socket().unwrap().port();
        let second = member();
        second.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()).unwrap();
        let members = [first, second].map(|s| UdpSocket::from(OwnedFd::from(s)));
        for m in &members {
            m.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
        }
        let waiting = members.map(|m| parked(0, move || m.recv(&mut [0; 8]).unwrap()));
        let sender = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        sender.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        let sender = UdpSocket::from(OwnedFd::from(sender));
        sender.set_multicast_loop_v4(true).unwrap();
        sender.send_to(b"all", (group, port)).unwrap();
        for w in waiting {
            assert_eq!(w.join().unwrap(), 3);
        }
    });
}

#[test]
fn sockets_go_to_std_and_back_and_look_like_std_s() {
    everywhere(|| {
        let (a, at) = udp();
        assert!(!blocking(a.as_raw_fd()));
        assert_eq!(format!("{a:?}"), format!("UdpSocket {{ addr: {at:?}, fd: {} }}", a.as_raw_fd()));
        let fd = a.into_raw_fd();
        assert!(blocking(fd));
        // SAFETY: just given away by its owner.
        let a = unsafe { UdpSocket::from_raw_fd(fd) };
        a.set_nonblocking(true).unwrap();
        let a = std::net::UdpSocket::from(a);
        assert!(!blocking(a.as_raw_fd()));
        let a = UdpSocket::from(a);
        assert_eq!(a.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let a = OwnedFd::from(a);
        assert_eq!(UdpSocket::from(a).local_addr().unwrap(), at);

        let directory = Directory::new();
        let u = UnixDatagram::bind(directory.at("u")).unwrap();
        let text = format!("{u:?}");
        let u = std::os::unix::net::UnixDatagram::from(u);
        assert!(blocking(u.as_raw_fd()));
        assert_eq!(format!("{u:?}"), text);
        let fd = UnixDatagram::from(u).into_raw_fd();
        // SAFETY: just given away by its owner.
        let u = unsafe { UnixDatagram::from_raw_fd(fd) };
        assert_eq!(u.local_addr().unwrap().as_pathname(), Some(&*directory.at("u")));
        assert!(UnixDatagram::from(OwnedFd::from(u)).take_error().unwrap().is_none());
        assert_eq!(UnixDatagram::bind(directory.at("u")).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
    });
}

/// CPU time of this thread.
fn cpu_of_thread() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives across the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) }, 0);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Readiness that comes to nothing: somebody outside of the runtime reads the same socket, so again and again what was
/// announced is gone. Nothing is lost or doubled, nobody misses a wake-up, and the waits do not spin.
#[test]
fn readiness_that_comes_to_nothing_is_waited_for_again() {
    const MESSAGES: u32 = 20_000;
    for workers in [1, 4] {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let thief = ours.try_clone().unwrap();
        thief.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let stolen = {
            let done = done.clone();
            std::thread::spawn(move || {
                let (mut seen, mut buf) = (Vec::new(), [0; 4]);
                while !done.load(Ordering::SeqCst) {
                    match thief.recv(&mut buf) {
                        Ok(4) => seen.push(u32::from_be_bytes(buf)),
                        Ok(n) => panic!("a message of {n} bytes"),
                        Err(e) => {
                            assert_eq!(e.kind(), ErrorKind::WouldBlock);
                            std::thread::yield_now();
                        }
                    }
                }
                seen
            })
        };
        let done2 = done.clone();
        let received = on(workers, move || {
            let ours = UnixDatagram::from(ours);
            // The thief shares the open file description, so its limit would be ours as well.
            ours.set_read_timeout(None).unwrap();
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let ours = ours.try_clone().unwrap();
                    coro::spawn(move || {
                        let (mut seen, mut buf) = (Vec::new(), [0; 4]);
                        while ours.recv(&mut buf).unwrap() == 4 {
                            seen.push(u32::from_be_bytes(buf));
                        }
                        seen
                    })
                })
                .collect();
            let theirs = UnixDatagram::from(theirs);
            for n in 0..MESSAGES {
                assert_eq!(theirs.send(&n.to_be_bytes()).unwrap(), 4);
            }
            // One end for each reader; the thief must not have them.
            done2.store(true, Ordering::SeqCst);
            let stolen = stolen.join().unwrap();
            for _ in 0..2 {
                assert_eq!(theirs.send(&[0]).unwrap(), 1);
            }
            let mut all: Vec<_> = readers.into_iter().flat_map(|r| r.join().unwrap()).collect();
            println!("{} read by tasks, {} by the thief", all.len(), stolen.len());
            all.extend(stolen);
            all
        });
        let mut received = received;
        received.sort_unstable();
        assert_eq!(received, (0..MESSAGES).collect::<Vec<_>>(), "{workers} workers");
    }
}
