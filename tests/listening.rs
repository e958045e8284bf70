//! Listening at scale: options of listeners, one for each worker, sockets from a starter, and a server that is replaced while
//! clients connect.

mod util;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coro::net::{TcpListener, TcpListenerBuilder, TcpStream, WorkerListeners};
use util::sockets::{Directory, LONG, on};
use util::{again, finish, role, said, until, within};

fn connection(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn answer_to(at: std::net::SocketAddr, text: &str) -> io::Result<String> {
    let mut stream = std::net::TcpStream::connect_timeout(&at, LONG)?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn what_is_set_on_a_listener_holds_for_what_it_accepts() {
    for nodelay in [true, false] {
        let listener = TcpListenerBuilder::new().nodelay(nodelay).bind("127.0.0.1:0").unwrap();
        assert_eq!(connection(&listener).1.nodelay().unwrap(), nodelay);
    }
    let builder = TcpListenerBuilder::new().send_buffer(40_000).recv_buffer(30_000).backlog(7);
    let listener = builder.bind("127.0.0.1:0").unwrap();
    let (_client, server) = connection(&listener);
    let socket = socket2::SockRef::from(&server);
    // Linux counts its own bookkeeping: twice what was asked for.
    assert!((40_000..=80_000).contains(&socket.send_buffer_size().unwrap()));
    assert!((30_000..=60_000).contains(&socket.recv_buffer_size().unwrap()));
    if cfg!(target_os = "linux") {
        let at = listener.local_addr().unwrap().to_string();
        let all = coro::inspect::sockets();
        assert_eq!(all.iter().find(|s| s.fd == listener.as_raw_fd()).unwrap().backlog, Some((0, 7)), "{at}");
    }
}

#[test]
fn a_port_has_one_listener_or_those_that_share_it() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = first.local_addr().unwrap();
    for builder in [TcpListenerBuilder::new(), TcpListenerBuilder::new().reuse_port(true)] {
        let e = builder.bind(at).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AddrInUse);
        assert!(e.to_string().contains("another socket has it"), "{e}");
    }
    let sharing = TcpListenerBuilder::new().reuse_port(true);
    let first = sharing.bind("127.0.0.1:0").unwrap();
    let second = sharing.bind(first.local_addr().unwrap()).unwrap();
    assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
    assert_eq!(TcpListenerBuilder::new().bind_group("127.0.0.1:0", 0).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn one_listener_for_both_families_or_for_one() {
    let Ok(both) = TcpListenerBuilder::new().only_v6(false).bind("[::]:0") else {
        println!("SKIPPED: there is no IPv6 here");
        return;
    };
    let port = both.local_addr().unwrap().port();
    let _v4 = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(both.accept().unwrap().1.ip().to_string(), "::ffff:127.0.0.1");
    let alone = TcpListenerBuilder::new().only_v6(true).bind("[::]:0").unwrap();
    // Nobody else has that address: what listens beside this test, on a port that may be the same, has another.
    let refused = TcpStream::connect(("127.9.9.1", alone.local_addr().unwrap().port())).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[cfg(target_os = "linux")]
#[test]
fn busy_polling_is_set_or_says_what_is_missing() {
    let builder = TcpListenerBuilder::new().busy_poll(Duration::from_micros(50));
    match builder.bind("127.0.0.1:0") {
        Ok(listener) => {
            let polls = socket2::SockRef::from(&connection(&listener).1).busy_poll().unwrap();
            assert_eq!(polls, 50);
        }
        Err(e) => {
            println!("SKIPPED: that it holds for connections: {e}");
            assert!(e.to_string().contains(" with SO_BUSY_POLL: "), "{e}");
        }
    }
    // A thread that lacks the privilege: older kernels want it.
    let without = std::thread::spawn(move || {
        drop_net_admin();
        builder.bind("127.0.0.1:0").map(drop)
    });
    match without.join().unwrap() {
        Ok(()) => println!("this kernel asks for no privilege"),
        Err(e) => assert!(e.to_string().contains(" with SO_BUSY_POLL: "), "{e}"),
    }
}

/// Of the calling thread only.
#[cfg(target_os = "linux")]
fn drop_net_admin() {
    const CAP_NET_ADMIN: u32 = 12;
    // Version 3: two sets of 32, each effective, permitted, inheritable.
    let mut head = [0x2008_0522_u32, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: both are as long as the kernel's structures of that version, and outlive the calls.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, head.as_mut_ptr(), sets.as_mut_ptr()), 0);
        sets[0] &= !(1 << CAP_NET_ADMIN);
        assert_eq!(libc::syscall(libc::SYS_capset, head.as_mut_ptr(), sets.as_ptr()), 0);
    }
}

/// What each connection is told: on which worker it is served.
fn tell_the_worker(mut stream: TcpStream, _: std::net::SocketAddr) {
    let mut text = String::new();
    if stream.read_to_string(&mut text).is_err() {
        return;
    }
    assert_ne!(text, "panic", "as it was told");
    let _ = write!(stream, "{}", coro::current_worker().unwrap());
}

#[test]
fn every_worker_accepts_and_serves_what_it_accepts() {
    const WORKERS: usize = 4;
    const CLIENTS: usize = 1000;
    on(WORKERS, || {
        coro::set_panic_notifier(Some(Arc::new(|_: &_| {})));
        let listeners = TcpListenerBuilder::new().bind_per_worker("127.0.0.1:0").unwrap();
        let at = listeners.local_addr().unwrap();
        assert_eq!(listeners.listeners().len(), WORKERS);
        let serving = listeners.serve("tell", tell_the_worker).unwrap();
        let names: Vec<_> = coro::where_all().iter().filter_map(|t| t.name.clone()).collect();
        for i in 0..WORKERS {
            assert!(names.contains(&format!("accept tell {i}")), "{names:?}");
        }
        let counts = coro::blocking(move || {
            let mut counts = BTreeMap::new();
            for _ in 0..CLIENTS {
                *counts.entry(answer_to(at, "").unwrap()).or_insert(0u64) += 1;
            }
            counts
        })
        .unwrap();
        println!("{CLIENTS} connections, {WORKERS} listeners with SO_REUSEPORT: {:?}", serving.accepted());
        // Where a connection is served is where it was accepted.
        let accepted: Vec<u64> = (0..WORKERS).map(|i| counts.get(&i.to_string()).copied().unwrap_or(0)).collect();
        assert_eq!(serving.accepted(), accepted);
        assert_eq!(accepted.iter().sum::<u64>(), CLIENTS as u64);
        if cfg!(target_os = "linux") {
            assert!(accepted.iter().all(|n| *n > 0), "{accepted:?}");
        }

        // A panic is its connection's alone.
        let told = coro::blocking(move || (answer_to(at, "panic"), answer_to(at, "after"))).unwrap();
        assert!(told.0.map_or(true, |answer| answer.is_empty()) && told.1.is_ok());

        // What runs is waited for, and the wait says for how many.
        let open = TcpStream::connect(at).unwrap();
        until(LONG, "it is served", || coro::where_all().iter().any(|t| t.to_string().contains("\"tell 127.0.0.1:")));
        serving.stop();
        assert!(!serving.wait_timeout(Duration::from_millis(20)).unwrap());
        let serving = Arc::new(serving);
        let waits = coro::spawn({
            let serving = serving.clone();
            move || serving.wait()
        });
        let wait = || coro::where_is(waits.id()).map(|t| t.wait).unwrap_or_default();
        until(LONG, "one is left", || {
            wait().starts_with("wait group \"serving\" tests/listening.rs:") && wait().contains(" (1 left")
        });
        drop(open);
        waits.join().unwrap().unwrap();
        assert_eq!(serving.members(), 0);
        coro::set_panic_notifier(None);
    });
}

#[test]
fn a_shared_listener_is_served_by_all_workers() {
    on(2, || {
        let listeners = WorkerListeners::shared(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let at = listeners.local_addr().unwrap();
        let serving = listeners.serve("tell", tell_the_worker).unwrap();
        let clients: Vec<_> = (0..100).map(|_| coro::spawn(move || TcpStream::connect(at).unwrap())).collect();
        let clients: Vec<_> = clients.into_iter().map(|c| c.join().unwrap()).collect();
        until(LONG, "all are accepted", || serving.accepted().iter().sum::<u64>() == 100);
        println!("100 connections, 2 handles of one listener: {:?}", serving.accepted());
        drop(clients);
        serving.stop();
        serving.wait().unwrap();
    });
}

/// In the kernel's queue, but not accepted yet: no connection that the kernel has established is lost.
#[test]
fn stopping_takes_what_was_established() {
    on(1, || {
        // At the end nobody is to listen there: an address that no test beside this one uses.
        let listeners = WorkerListeners::from(vec![TcpListener::bind("127.9.9.2:0").unwrap()]);
        let at = listeners.local_addr().unwrap();
        let serving = listeners.serve("tell", tell_the_worker).unwrap();
        // The only worker is this task's: nothing is accepted before it waits.
        let clients: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(at).unwrap()).collect();
        serving.stop();
        for mut client in clients {
            client.shutdown(Shutdown::Write).unwrap();
            let answer = coro::blocking(move || {
                let mut answer = String::new();
                client.read_to_string(&mut answer).map(|_| answer)
            });
            assert_eq!(answer.unwrap().unwrap(), "0");
        }
        serving.wait().unwrap();
        assert_eq!(serving.accepted(), [100]);
        drop(serving);
        assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_closed_listener_ends_its_acceptor_with_an_error() {
    on(1, || {
        let listeners = WorkerListeners::from(vec![TcpListener::bind("127.0.0.1:0").unwrap()]);
        let serving = listeners.serve("tell", tell_the_worker).unwrap();
        coro::yield_slice();
        serving.listeners().for_each(|l| l.close().unwrap());
        let e = serving.wait().unwrap_err();
        assert!(e.to_string().contains("closed by another task"), "{e}");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_name_is_shown_escaped_in_every_view() {
    use coro::net::unix::{SocketAddr, UnixListener, UnixStream};
    use coro::os::linux::net::SocketAddrExt;

    on(1, || {
        let name = format!("coro {}\u{1b}[2J\0\nx", std::process::id());
        let at = SocketAddr::from_abstract_name(&name).unwrap();
        let shown = format!("@coro {}\\u{{1b}}[2J\\u{{0}}\\nx", std::process::id());
        let listener = Arc::new(UnixListener::bind_addr(&at).unwrap());
        let _client = UnixStream::connect_addr(&at).unwrap();
        let (server, _) = listener.accept().unwrap();
        let accepting = coro::spawn({
            let listener = listener.clone();
            move || listener.accept().map(drop)
        });
        let reading = coro::spawn(move || (&server).read(&mut [0]).map(drop));
        let waits = |id| coro::inspect::events().iter().any(|e| e.waiting.iter().any(|w| w.task == id));
        until(LONG, "both wait", || waits(accepting.id()) && waits(reading.id()));
        let mut views = BTreeMap::new();
        views.insert("where_all", coro::where_all().iter().map(|t| t.to_string()).collect::<Vec<_>>());
        views.insert("sockets", coro::inspect::sockets().iter().map(|s| s.to_string()).collect());
        views.insert("events", coro::inspect::events().iter().map(|e| e.to_string()).collect());
        let snapshot = coro::inspect::Snapshot::take(&coro::inspect::Options::default());
        let waits = snapshot.tasks.iter().filter_map(|t| t.wait.as_ref().map(|w| w.text.clone()));
        views.insert("snapshot", waits.collect());
        for (view, lines) in views {
            let of_us = lines.iter().filter(|l| l.contains(&shown)).count();
            assert!(of_us >= 2, "{view} shows it {of_us} times: {lines:#?}");
            assert!(lines.iter().all(|l| !l.contains(['\u{1b}', '\0', '\n'])), "{view}: {lines:#?}");
        }
        accepting.cancel();
        reading.cancel();
    });
}

// ---- sockets from a starter ----

/// This program in a role, with sockets from number 3 on, started as systemd would.
fn started(name: &str, role: &str, sockets: &[RawFd], names: Option<&str>) -> Command {
    use std::os::unix::process::CommandExt;
    let inner = again(name, role);
    let mut command = Command::new("/bin/sh");
    // Whoever runs this test may have left number 3 open: where there are no sockets, it is to be free.
    let first = if sockets.is_empty() { "exec 3<&-; " } else { "" };
    command.args(["-c", &format!("{first}LISTEN_PID=${{PID_FOR:-$$}}; export LISTEN_PID; exec \"$0\" \"$@\"")]);
    command.arg(inner.get_program()).args(inner.get_args());
    for (key, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(key, value);
        }
    }
    command.env("LISTEN_FDS", sockets.len().to_string());
    if let Some(names) = names {
        command.env("LISTEN_FDNAMES", names);
    }
    // Out of the way of the numbers that they are to have.
    // SAFETY: no pointer is passed. They stay open in this process.
    let high: Vec<RawFd> = sockets.iter().map(|fd| unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 200) }).collect();
    let place = move || {
        for (to, fd) in (3..).zip(&high) {
            // SAFETY: both are numbers; between fork and exec nothing else runs here.
            if unsafe { libc::dup2(*fd, to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: system calls only.
    unsafe { command.pre_exec(place) };
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    command
}

#[test]
fn sockets_of_a_starter_are_taken_and_checked() {
    use coro::net::activation;
    const NAME: &str = "sockets_of_a_starter_are_taken_and_checked";
    match role().as_deref() {
        None => {}
        Some("all") => {
            let mut sockets = activation::sockets().unwrap().expect("they are ours");
            assert_eq!(sockets.names().collect::<Vec<_>>(), ["http", "http", "log", "pipe"]);
            let text = r#""http" (tcp listener), "http" (tcp listener), "log" (udp), "pipe" (something else)"#;
            assert_eq!(sockets.to_string(), text);
            let missing = sockets.unix_listener("http").unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::NotFound);
            assert_eq!(missing.to_string(), format!("no unix listener called \"http\" was passed on; there is {text}"));
            let listeners = sockets.tcp_listeners("http");
            let log = sockets.udp_socket("log").unwrap();
            assert_eq!((listeners.len(), sockets.len()), (2, 1));
            for fd in [listeners[0].as_raw_fd(), listeners[1].as_raw_fd(), log.as_raw_fd()] {
                // SAFETY: no pointer is passed.
                assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, libc::FD_CLOEXEC);
            }
            assert_eq!(activation::sockets().unwrap_err().kind(), ErrorKind::AlreadyExists);
            let mut command = Command::new("sh");
            command.args(["-c", "echo ${LISTEN_FDS:-none} $(ls /proc/self/fd | wc -l)"]);
            let shown = activation::hide_from(&mut command).output().unwrap();
            assert!(said(&shown).starts_with("none "), "{}", said(&shown));
            // SAFETY: the test's other threads are the harness's and wait.
            unsafe { activation::remove_variables() };
            assert!(std::env::var_os("LISTEN_FDS").is_none() && activation::sockets().unwrap().is_none());
            on(1, move || {
                let (mut stream, _) = listeners[1].accept().unwrap();
                stream.write_all(b"activated").unwrap();
            });
        }
        Some("another") => assert!(activation::sockets().unwrap().is_none()),
        Some("closed") => {
            let e = activation::sockets().unwrap_err();
            assert_eq!(e.to_string(), "LISTEN_FDS promises descriptor 3 (\"gone\"), but that is not open");
        }
        Some("opened here") => {
            // The first free number is 3, as in a program that has closed what it did not know.
            let mine = std::fs::File::open("/dev/null").unwrap();
            assert_eq!(mine.as_raw_fd(), 3);
            let e = activation::sockets().unwrap_err();
            assert!(e.to_string().contains("descriptor 3 (\"gone\"), but that was opened by this process"), "{e}");
            assert!(mine.metadata().is_ok(), "it was left alone");
        }
        Some(other) => panic!("{other}"),
    }
    if role().is_some() {
        return;
    }
    let group = TcpListenerBuilder::new().bind_group("127.0.0.1:0", 1).unwrap();
    let (first, second) = (&group.listeners()[0], std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let log = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (pipe, _w) = io::pipe().unwrap();
    let fds = [first.as_raw_fd(), second.as_raw_fd(), log.as_raw_fd(), pipe.as_raw_fd()];
    // Connected before the program runs: it is answered when it does.
    let mut early = std::net::TcpStream::connect(second.local_addr().unwrap()).unwrap();
    let all = finish(started(NAME, "all", &fds, Some("http:http:log:pipe")), LONG);
    assert!(all.status.success() && said(&all).contains("1 passed"), "{}", said(&all));
    let mut text = String::new();
    early.read_to_string(&mut text).unwrap();
    assert_eq!(text, "activated");
    for (role, pid) in [("another", Some("1")), ("closed", None), ("opened here", None)] {
        let mut command = started(NAME, role, &[], Some("gone"));
        command.env("LISTEN_FDS", "1");
        if let Some(pid) = pid {
            command.env("PID_FOR", pid);
        }
        let output = finish(command, LONG);
        assert!(output.status.success() && said(&output).contains("1 passed"), "{role}: {}", said(&output));
    }
}

// ---- hand-over ----

/// A server that is told `PATH` or `spawned PATH`, says `port N`, and answers each connection with its process id.
fn serve_until_replaced(path: &str) {
    use coro::net::handover;
    util::runtime(2).block_on(|| {
        let mut taken = handover::take(path).unwrap();
        let listeners = match &mut taken {
            Some(taken) => WorkerListeners::from(taken.sockets().tcp_listeners("pid")),
            None => TcpListenerBuilder::new().bind_per_worker("127.0.0.1:0").unwrap(),
        };
        println!("port {}", listeners.local_addr().unwrap().port());
        let serving = listeners.serve("pid", tell_the_process).unwrap();
        let offer = match taken {
            Some(taken) => taken.ready().unwrap().expect("an offer"),
            None => handover::Offer::bind(path).unwrap(),
        };
        let sockets: Vec<_> = serving.listeners().map(|l| ("pid", l.as_fd())).collect();
        offer.give(&sockets).unwrap();
        serving.stop();
        serving.wait().unwrap();
    });
}

fn tell_the_process(mut stream: TcpStream, _: std::net::SocketAddr) {
    if stream.read_exact(&mut [0]).is_ok() {
        let _ = write!(stream, "{}", std::process::id());
    }
}

/// A child that is killed if the test fails.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this program in a role and waits for its port.
fn server(name: &str, role: &str) -> (Kept, u16) {
    let mut child = Kept(again(name, role).spawn().unwrap());
    let out = child.0.stdout.take().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(out).lines();
        let port = lines.by_ref().map_while(Result::ok).find_map(|l| l.split_once("port ")?.1.parse().ok());
        let _ = tell.send(port);
        // Its output goes on, and must not block it.
        lines.for_each(drop);
    });
    let Some(port) = told.recv_timeout(LONG).ok().flatten() else {
        let mut text = String::new();
        // What it has said ends with it.
        let _ = child.0.kill();
        let _ = child.0.stderr.take().unwrap().read_to_string(&mut text);
        panic!("it said no port: {text}")
    };
    (child, port)
}

/// The server ends the connection: what lingers of it is not on the side that has to find a free port.
fn short_answer(at: std::net::SocketAddr) -> io::Result<String> {
    let mut stream = std::net::TcpStream::connect_timeout(&at, LONG)?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(b"x")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Connects all the time, and counts who answered and what went wrong.
struct Crowd {
    over: Arc<AtomicBool>,
    answers: Arc<Mutex<BTreeMap<u32, usize>>>,
    failed: Arc<Mutex<Vec<String>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Crowd {
    fn at(port: u16) -> Crowd {
        let (over, answers, failed) = (Arc::default(), Arc::default(), Arc::default());
        let mut crowd = Crowd { over, answers, failed, threads: Vec::new() };
        for _ in 0..4 {
            let (over, answers, failed) = (crowd.over.clone(), crowd.answers.clone(), crowd.failed.clone());
            crowd.threads.push(std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let answer = short_answer(([127, 0, 0, 1], port).into());
                    match answer.map(|a| a.parse().map_err(|_| a)) {
                        Ok(Ok(pid)) => *answers.lock().unwrap().entry(pid).or_insert(0) += 1,
                        other => failed.lock().unwrap().push(format!("{other:?}")),
                    }
                }
            }));
        }
        crowd
    }

    fn answered_by(&self, pid: u32) -> usize {
        self.answers.lock().unwrap().get(&pid).copied().unwrap_or(0)
    }

    /// How many answers each process gave.
    fn end(mut self) -> BTreeMap<u32, usize> {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|t| t.join().unwrap());
        let failed = self.failed.lock().unwrap();
        assert!(
            failed.is_empty(),
            "{} connections failed: {:?}",
            failed.len(),
            failed.iter().take(5).collect::<Vec<_>>()
        );
        self.answers.lock().unwrap().clone()
    }
}

impl Drop for Crowd {
    /// Also where the test fails.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_server_is_replaced_while_clients_connect_and_none_is_refused() {
    const NAME: &str = "a_server_is_replaced_while_clients_connect_and_none_is_refused";
    if let Some(path) = role() {
        return serve_until_replaced(&path);
    }
    let directory = Directory::new();
    let path = directory.at("handover.sock").to_str().unwrap().to_owned();
    let (first, port) = server(NAME, &path);
    let crowd = Crowd::at(port);
    let mode = || Some(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).ok()?) & 0o777);
    until(LONG, "it offers", || mode() == Some(0o600));
    let mut current = first;
    for _ in 0..3 {
        let old = current.0.id();
        until(LONG, "it answers", || crowd.answered_by(old) > 50);
        let (next, same) = server(NAME, &path);
        assert_eq!(same, port);
        until(LONG, "the old one ends", || current.0.try_wait().unwrap().is_some());
        assert!(current.0.wait().unwrap().success());
        until(LONG, "the new one answers", || crowd.answered_by(next.0.id()) > 50);
        current = next;
    }
    let answers = crowd.end();
    assert_eq!(answers.len(), 4, "{answers:?}");
    println!("answers of each process, none failed: {:?}", answers.values().collect::<Vec<_>>());
}

#[test]
fn a_successor_that_is_started_inherits_the_sockets() {
    use coro::net::handover;
    const NAME: &str = "a_successor_that_is_started_inherits_the_sockets";
    match role().as_deref() {
        Some("successor") => {
            return util::runtime(1).block_on(|| {
                let mut taken = handover::inherited().unwrap().expect("a predecessor");
                assert_eq!(taken.predecessor().uid, my_uid());
                let listener = taken.sockets().tcp_listener("pid").unwrap();
                assert!(taken.sockets().is_empty());
                assert_eq!(handover::inherited().unwrap_err().kind(), ErrorKind::AlreadyExists);
                let serving = WorkerListeners::from(vec![listener]).serve("pid", tell_the_process).unwrap();
                assert!(taken.ready().unwrap().is_none());
                // Another program of this one's sees the variable and does not believe it.
                let output = finish(again(NAME, "grandchild"), LONG);
                assert!(said(&output).contains("1 passed"), "{}", said(&output));
                until(LONG, "clients come", || serving.accepted()[0] > 20);
                serving.stop();
                serving.wait().unwrap();
            });
        }
        Some("grandchild") => return assert!(handover::inherited().unwrap().is_none()),
        Some(slow) if slow.starts_with("slow") => {
            let taken = handover::inherited().unwrap().expect("a predecessor");
            if let Some(path) = slow.strip_prefix("slow ") {
                std::fs::write(path, std::process::id().to_string()).unwrap();
            }
            // Until the predecessor has lost its patience, and kills it.
            std::thread::sleep(LONG);
            drop(taken);
            return;
        }
        Some("dies") => std::process::exit(7),
        _ => {}
    }
    on(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let sockets = [("pid", listener.as_fd())];
        for (role, kind, patience) in [("dies", ErrorKind::UnexpectedEof, LONG), ("slow", ErrorKind::TimedOut, SOON)] {
            let e = handover::spawn(again(NAME, role), &sockets, patience).unwrap_err();
            assert_eq!(e.kind(), kind, "{role}: {e}");
        }
        // A caller that is cancelled is told so, and the successor is gone and waited for.
        let directory = Directory::new();
        let at_pid = directory.at("pid");
        let role = format!("slow {}", at_pid.display());
        let cut = coro::spawn(move || handover::spawn(again(NAME, &role), &[], LONG).map(drop));
        let pid = || std::fs::read_to_string(&at_pid).ok()?.parse::<u32>().ok();
        until(LONG, "it has begun", || pid().is_some());
        cut.cancel();
        let e = cut.join().expect("it returns").unwrap_err();
        assert!(e.to_string().contains("cancel"), "{e}");
        assert!(!Path::new(&format!("/proc/{}", pid().unwrap())).exists());
        let e = handover::spawn(Command::new("/nonexistent"), &sockets, LONG).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        let child = handover::spawn(again(NAME, "successor"), &sockets, LONG).unwrap();
        let pid = child.id();
        drop(listener);
        let counted = Arc::new(AtomicUsize::new(0));
        let clients = counted.clone();
        coro::blocking(move || {
            for _ in 0..21 {
                assert_eq!(answer_to(at, "x").unwrap(), pid.to_string());
                clients.fetch_add(1, Ordering::Relaxed);
            }
        })
        .unwrap();
        let output = coro::blocking(move || child.wait_with_output()).unwrap().unwrap();
        assert!(output.status.success() && said(&output).contains("1 passed"), "{}", said(&output));
        assert_eq!(counted.load(Ordering::Relaxed), 21);
    });
}

const SOON: Duration = Duration::from_millis(300);

/// The effective user.
fn my_uid() -> libc::uid_t {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

#[test]
fn a_successor_that_is_not_trusted_or_not_ready_changes_nothing() {
    use coro::net::handover::{self, Offer};
    const NAME: &str = "a_successor_that_is_not_trusted_or_not_ready_changes_nothing";
    if let Some(path) = role() {
        // SAFETY: the whole process becomes another user.
        assert_eq!(unsafe { libc::setuid(65534) }, 0);
        let e = handover::take(path).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{e}");
        return;
    }
    assert!(handover::take("/nonexistent/handover.sock").unwrap().is_none());
    assert!(handover::inherited().unwrap().is_none());
    let directory = Directory::new();
    let path = directory.at("handover.sock");
    let at = path.clone();
    on(2, move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let offer = Arc::new(Offer::bind(&at).unwrap().patience(SOON));
        assert_eq!(Offer::bind(&at).unwrap_err().kind(), ErrorKind::AddrInUse);
        let give = |offer: &Arc<Offer>| {
            let (offer, listener) = (offer.clone(), listener.try_clone().unwrap());
            coro::spawn(move || offer.give(&[("pid", listener.as_fd())]))
        };
        let giving = give(&offer);
        if my_uid() == 0 {
            // The directory would keep it out; the check of the peer is the second wall.
            use std::os::unix::fs::PermissionsExt;
            let open = |mode| std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&at, open(0o666)).unwrap();
            std::fs::set_permissions(at.parent().unwrap(), open(0o711)).unwrap();
            let role = at.to_str().unwrap().to_owned();
            let output = coro::blocking(move || finish(again(NAME, &role), LONG)).unwrap();
            assert!(said(&output).contains("1 passed"), "{}", said(&output));
            std::fs::set_permissions(at.parent().unwrap(), open(0o700)).unwrap();
        } else {
            println!("SKIPPED: only root can ask as another user");
        }
        // Gone before it is ready, and too slow.
        drop(handover::take(&at).unwrap().expect("an offer"));
        let slow = handover::take(&at).unwrap().expect("an offer");
        let waits_for_the_next = || coro::where_is(giving.id()).is_some_and(|t| t.wait.starts_with("accept "));
        until(LONG, "it has lost its patience", waits_for_the_next);
        assert_eq!(slow.ready().unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(!giving.is_finished() && at.exists());
        // From here on nobody is too slow, however busy the machine is.
        giving.cancel();
        assert!(giving.join().expect("an error comes first").is_err());
        let offer = Arc::new(Arc::into_inner(offer).expect("the task is over").patience(LONG));
        let giving = give(&offer);
        // The right one gets all, and serves the path from then on.
        let mut taken = handover::take(&at).unwrap().expect("an offer");
        assert_eq!(taken.sockets().tcp_listener("pid").unwrap().local_addr().unwrap(), listener.local_addr().unwrap());
        let next = taken.ready().unwrap().expect("its path");
        let who = giving.join().unwrap().unwrap();
        assert_eq!(who.uid, my_uid());
        assert_eq!(offer.give(&[]).unwrap_err().kind(), ErrorKind::AlreadyExists);
        drop(offer);
        assert!(at.exists(), "it is the successor's");
        drop(next);
        assert!(!at.exists());
    });
}

/// Whoever hands over may give up waiting; a successor in the middle of it is told, and does not take it for dead.
#[test]
fn an_interrupted_offer_keeps_its_sockets() {
    use coro::net::handover::{self, Offer};
    let directory = Directory::new();
    let path = directory.at("handover.sock");
    within(LONG, move || {
        util::runtime(1).block_on(move || {
            let offer = Offer::bind(&path).unwrap();
            let giving = coro::spawn(move || offer.give(&[]));
            let taken = handover::take(&path).unwrap().expect("an offer");
            until(LONG, "it reads", || {
                coro::where_is(giving.id())
                    .is_some_and(|t| t.wait.starts_with("read fd ") && t.wait.contains("handover.sock"))
            });
            giving.cancel();
            let e = giving.join().expect("an error comes first").unwrap_err();
            assert!(e.to_string().contains("cancel"), "{e}");
            assert_eq!(taken.ready().unwrap_err().kind(), ErrorKind::TimedOut);
        });
    });
}
