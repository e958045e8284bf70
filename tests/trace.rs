//! The call log of sockets: what its lines say, a call that waits seen while it does, and nothing left when it ends.
#![cfg(all(target_os = "linux", not(miri)))]

mod util;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coro::net::unix::{UnixDatagram, UnixListener, UnixStream};
use coro::net::{TcpListener, TcpStream, UdpSocket};
use coro::probe::{self, Trace};
use util::sockets::{Directory, parked};
use util::traces::{Ended, LIMIT, alone, masked, nothing_is_watched, traced};
use util::{Rng, again, finish, role, runtime, until, within};

#[test]
fn every_call_of_a_tcp_stream_is_told_when_it_begins_and_when_it_returns() {
    let _one = alone();
    let lines = traced(probe::net(), || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        let mut buf = [0; 64];
        assert_eq!(server.peek(&mut buf).unwrap(), 5);
        assert_eq!(server.read(&mut buf).unwrap(), 5);
        let mut bufs = [std::io::IoSlice::new(b""), std::io::IoSlice::new(b"ab"), std::io::IoSlice::new(b"c")];
        assert_eq!(client.write_vectored(&bufs).unwrap(), 3);
        bufs.reverse();
        let (mut one, mut two) = ([0; 2], [0; 8]);
        let mut room = [std::io::IoSliceMut::new(&mut one), std::io::IoSliceMut::new(&mut two)];
        assert_eq!(server.read_vectored(&mut room).unwrap(), 3);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut buf).unwrap(), 0);
        server.close().unwrap();
        assert!(server.read(&mut buf).is_err());
    });
    let expected = "\
fd N.connect(), peer 127.0.0.1:N, #N
fd N.connect() => () in N s, peer 127.0.0.1:N, #N
fd N.accept(), #N
fd N.accept() => fd N from 127.0.0.1:N in N s, #N
fd N.send(5), peer 127.0.0.1:N, #N
fd N.send(5) => 5 in N s, peer 127.0.0.1:N, #N
fd N.peek(64), peer 127.0.0.1:N, #N
fd N.peek(64) => 5 in N s, peer 127.0.0.1:N, #N
fd N.recv(64), peer 127.0.0.1:N, #N
fd N.recv(64) => 5 in N s, peer 127.0.0.1:N, #N
fd N.send(3), peer 127.0.0.1:N, #N
fd N.send(3) => 3 in N s, peer 127.0.0.1:N, #N
fd N.recv(10), peer 127.0.0.1:N, #N
fd N.recv(10) => 3 in N s, peer 127.0.0.1:N, #N
fd N.shutdown(write), peer 127.0.0.1:N, #N
fd N.shutdown(write) => () in N s, peer 127.0.0.1:N, #N
fd N.recv(64), peer 127.0.0.1:N, #N
fd N.recv(64) => 0 in N s, peer 127.0.0.1:N, #N
fd N.close(), peer 127.0.0.1:N, #N
fd N.close() => () in N s, peer 127.0.0.1:N, #N
fd N.recv(64), peer 127.0.0.1:N, #N
fd N.recv(64) ~ the socket was closed by another task in N s, peer 127.0.0.1:N, #N
fd N.close(), peer 127.0.0.1:N, #N
fd N.close() => () in N s, peer 127.0.0.1:N, #N
fd N.close(), #N
fd N.close() => () in N s, #N";
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn so_is_every_call_of_the_others_and_bytes_where_they_are_asked_for() {
    let _one = alone();
    let directory = Directory::new();
    let (path, shown) = (directory.at("s"), directory.at("s").display().to_string());
    let lines = traced(probe::net().bytes(8), move || {
        let (one, two) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        one.send_to(b"\x1b[2Jdatagram", two.local_addr().unwrap()).unwrap();
        two.recv_from(&mut [0; 64]).unwrap();
        std::mem::forget((one, two));

        let listener = UnixListener::bind(&path).unwrap();
        let ours = UnixStream::connect(&path).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        ours.send_with_fds(b"fd", &[ours.as_fd()]).unwrap();
        theirs.recv_with_fds(&mut [0; 8], &mut Vec::new()).unwrap();
        std::mem::forget((ours, theirs, listener));

        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.send(b"one").unwrap();
        theirs.recv(&mut [0; 2]).unwrap();
        theirs.set_nonblocking(true).unwrap();
        assert!(theirs.recv(&mut [0; 2]).is_err());
        std::mem::forget((ours, theirs));
    });
    let me = "pid N";
    let expected = format!(
        "\
fd N.send(12 \"\\x1b[2Jdata\"…), peer 127.0.0.1:N, #N
fd N.send(12) => 12 in N s, peer 127.0.0.1:N, #N
fd N.recv(64), #N
fd N.recv(64) => 12 \"\\x1b[2Jdata\"… in N s, #N
fd N.connect(), peer {shown}, #N
fd N.connect() => () in N s, peer {shown}, #N
fd N.accept(), #N
fd N.accept() => fd N from {me} in N s, #N
fd N.send(2 \"fd\"), peer {shown}, #N
fd N.send(2) => 2 in N s, peer {shown}, #N
fd N.recv(8), peer {me}, #N
fd N.recv(8) => 2 \"fd\" in N s, peer {me}, #N
fd N.send(3 \"one\"), peer {me}, #N
fd N.send(3) => 3 in N s, peer {me}, #N
fd N.recv(2), peer {me}, #N
fd N.recv(2) => 2 \"on\" in N s, peer {me}, #N
fd N.recv(2), peer {me}, #N
fd N.recv(2) ~ Resource temporarily unavailable (os error 11) in N s, peer {me}, #N"
    );
    assert_eq!(lines.join("\n"), expected);
}

/// The reader waits: its call is told, its end is not; and when it is cancelled, that is its end.
#[test]
fn a_call_that_waits_is_seen_while_it_does() {
    let _one = alone();
    within(LIMIT, || {
        runtime(2).block_on(|| {
            let trace = probe::net().keep_lines().start().unwrap();
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let fd = ours.as_raw_fd();
            let reader = parked(1, move || (&ours).read(&mut [0; 8192]).map(drop));
            let seen = format!("fd {fd}.recv(8192), peer pid {}, #{}", std::process::id(), reader.id());
            assert_eq!(trace.lines(), [seen]);
            // So is one that waited before anybody looked.
            let late = probe::net().fd(fd).keep_lines().start().unwrap();
            let lines: Vec<String> = late.lines().iter().map(|line| masked(line)).collect();
            assert_eq!(lines, ["fd N.recv(…) waits for N s, peer pid N, #N"]);
            drop(late);
            theirs.write_all(b"x").unwrap();
            reader.join().unwrap().unwrap();
            let lines = trace.lines();
            assert!(lines.iter().any(|line| line.starts_with(&format!("fd {fd}.recv(8192) => 1 in "))), "{lines:?}");

            // An error first, then by unwinding.
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let twice = parked(1, move || {
                let _ = (&ours).read(&mut [0; 8]);
                let _ = (&ours).read(&mut [0; 9]);
            });
            trace.lines();
            twice.cancel();
            until(LIMIT, "it ends", || twice.is_finished());
            let lines: Vec<String> = trace.lines().iter().map(|line| masked(line)).collect();
            let ends: Vec<&str> = lines.iter().filter(|l| l.contains(" ~ ")).map(|l| l.as_str()).collect();
            assert_eq!(ends.len(), 2, "{lines:?}");
            assert!(ends[0].starts_with("fd N.recv(8) ~ ") && !ends[0].contains("unwinds"), "{lines:?}");
            assert!(ends[1].starts_with("fd N.recv(9) ~ unwinds in "), "{lines:?}");
        });
    });
}

#[test]
fn only_what_is_asked_for_is_told() {
    let _one = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let connect = || {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (client, listener.accept().unwrap().0)
            };
            let ((mut a, a_far), (mut b, _b_far)) = (connect(), connect());
            let (pair, _other) = UnixStream::pair().unwrap();
            let port = a_far.peer_addr().unwrap();
            let started = |trace: Trace| trace.keep_lines().start().unwrap();
            let by_fd = started(probe::net().fd(a.as_raw_fd()));
            let by_port = started(probe::net().peer(port.to_string()));
            let by_ip = started(probe::net().peer("127.0.0.*"));
            let by_task = started(probe::net().task(coro::current().unwrap().id()).stack());
            let by_both = started(probe::net().fd(b.as_raw_fd()).peer(port.to_string()));
            a.write_all(b"a").unwrap();
            b.write_all(b"b").unwrap();
            (&a_far).write_all(b"c").unwrap();
            let other = coro::spawn(move || (&pair).write_all(b"other").map(|()| pair)).join().unwrap().unwrap();
            let counts = [&by_fd, &by_port, &by_ip, &by_task, &by_both].map(|trace| trace.lines());
            assert_eq!(counts.each_ref().map(Vec::len), [2, 2, 6, 6, 0], "{counts:?}");
            assert!(counts[0].iter().all(|line| line.starts_with(&format!("fd {}.send(1)", a.as_raw_fd()))));
            assert!(counts[1].iter().all(|line| line.contains(&format!(", peer {port}, #"))));
            let with_stack: Vec<&String> = counts[3].iter().filter(|line| line.contains("tests/trace.rs ")).collect();
            assert_eq!(with_stack.len(), 3, "the stack stands where a call begins: {:?}", counts[3]);
            assert!(!with_stack[0].contains("src/net/") && !with_stack[0].contains("src/probe/"), "{with_stack:?}");
            drop(other);
        });
    });
}

#[test]
fn what_sits_in_a_buffer_is_told_where_its_task_waits() {
    let _one = alone();
    let lines = traced(probe::net().bytes(16), || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut requests = coro::io::BufWriter::new(&ours);
        requests.write_all(b"hello\n").unwrap();
        assert!(BufReader::new(&ours).read_line(&mut String::new()).is_err());
        requests.flush().unwrap();
        assert!((&ours).read(&mut [0; 1]).is_err());
        let mut lines = coro::io::LineWriter::new(&ours);
        lines.write_all(b"a line\nthe rest").unwrap();
        assert!(ours.peek(&mut [0; 1]).is_err());
        std::mem::forget(lines);
        drop(requests);
        std::mem::forget((ours, theirs));
    });
    let waits = "~ Resource temporarily unavailable (os error 11) in N s, peer pid N, #N";
    let expected = format!(
        "\
BufWriter<&UnixStream>.write(6 \"hello\\n\"), #N
BufWriter<&UnixStream>.write(6) => 6 in N s, #N, 6 bytes unflushed
fd N.recv(8192), peer pid N, #N, 6 bytes unflushed
fd N.recv(8192) {waits}
BufWriter<&UnixStream>.flush(), #N
fd N.send(6 \"hello\\n\"), peer pid N, #N
fd N.send(6) => 6 in N s, peer pid N, #N
BufWriter<&UnixStream>.flush() => () in N s, #N
fd N.recv(1), peer pid N, #N
fd N.recv(1) {waits}
LineWriter<&UnixStream>.write(15 \"a line\\nthe rest\"), #N
fd N.send(7 \"a line\\n\"), peer pid N, #N
fd N.send(7) => 7 in N s, peer pid N, #N
LineWriter<&UnixStream>.write(15) => 15 in N s, #N, 8 bytes unflushed
fd N.peek(1), peer pid N, #N, 8 bytes unflushed
fd N.peek(1) {waits}"
    );
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn whoever_looks_at_a_task_that_waits_sees_what_it_holds() {
    let _one = alone();
    within(LIMIT, || {
        runtime(2).block_on(|| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let reader = parked(1, move || {
                let mut requests = coro::io::BufWriter::new(&ours);
                requests.write_all(b"hello\n").unwrap();
                (&ours).read(&mut [0; 8]).map(drop)
            });
            let seen = coro::where_is(reader.id()).expect("it waits").to_string();
            assert!(seen.contains(" bytes unflushed") && seen.contains(", 6 bytes unflushed ["), "{seen}");
            theirs.write_all(b"x").unwrap();
            reader.join().unwrap().unwrap();
        });
    });
}

/// Whatever the order in which several go, and with calls under way when they come and go, nothing is left.
#[test]
fn traces_go_in_any_order_and_leave_nothing() {
    let _one = alone();
    let mut rng = Rng::from_environment();
    within(LIMIT, move || {
        runtime(2).block_on(move || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let fd = ours.as_raw_fd();
            let echo = coro::spawn(move || {
                let mut buf = [0; 16];
                while let Ok(n) = (&theirs).read(&mut buf) {
                    if n == 0 || (&theirs).write_all(&buf[..n]).is_err() {
                        break;
                    }
                }
            });
            let mut sent = 0u64;
            for _ in 0..200 {
                let mut traces: Vec<_> =
                    (0..1 + rng.below(4)).map(|_| probe::net().fd(fd).keep_lines().start().unwrap()).collect();
                while !traces.is_empty() {
                    (&ours).write_all(&[1; 5]).unwrap();
                    (&ours).read_exact(&mut [0; 5]).unwrap();
                    sent += 5;
                    let gone = traces.remove(rng.below(traces.len()));
                    // The call and its end, of writing and of reading; once for each trace.
                    assert!(gone.lines().len() >= 4);
                    drop(gone);
                    for trace in &traces {
                        let lines = trace.lines();
                        let begun = lines.iter().filter(|line| !line.contains(" => ")).count();
                        assert_eq!(lines.len(), 2 * begun, "{lines:?}");
                    }
                }
                assert!(nothing_is_watched());
            }
            let seen = coro::inspect::sockets().into_iter().find(|s| s.fd == fd).expect("it is there");
            assert_eq!((seen.bytes_in, seen.bytes_out), (sent, sent));
            drop(ours);
            echo.join().unwrap();
        });
    });
}

#[test]
fn points_of_coro_are_named_only_by_their_own_names() {
    let _one = alone();
    let everything = probe::attach_to("*").later().count().start().unwrap();
    assert!(everything.points().is_empty(), "{:?}", everything.points());
    let counted = probe::attach_to("coro::net::send").count().histogram().start().unwrap();
    let log = probe::attach_to("coro::net::*").keep_lines().log().start().unwrap();
    let (mut ours, _theirs) = UnixStream::pair().unwrap();
    ours.write_all(b"secret").unwrap();
    assert_eq!((everything.hits().0, counted.hits().0), (0, 2));
    let lines = log.lines();
    assert!(lines[0].starts_with("coro::net::send(fd=") && lines[0].contains(", bytes=6) => 6 in "), "{lines:?}");
    assert!(!lines.concat().contains("secret"));
}

#[test]
fn the_environment_traces_from_the_start_on() {
    const NAME: &str = "the_environment_traces_from_the_start_on";
    if role().is_some() {
        runtime(1).block_on(|| {
            let (mut ours, _theirs) = UnixStream::pair().unwrap();
            ours.write_all(b"told").unwrap();
        });
        return;
    }
    let said = |value: Option<&str>| {
        let mut child = again(NAME, "child");
        child.env_remove("CORO_PROBES").envs(value.map(|value| ("CORO_PROBES", value)));
        let output = finish(child, LIMIT);
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let told = said(Some("net"));
    assert!(told.contains(".send(4), peer pid ") && told.contains(".close() => () in "), "{told}");
    for other in [None, Some(""), Some("nets")] {
        assert!(!said(other).contains(".send("), "{other:?}");
    }
}

/// A session for people: what it is told, until a line satisfies.
struct Session {
    stream: std::os::unix::net::UnixStream,
    lines: BufReader<std::os::unix::net::UnixStream>,
}

impl Session {
    fn open(path: &std::path::Path) -> Session {
        let stream = std::os::unix::net::UnixStream::connect(path).expect("a backdoor");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let lines = BufReader::new(stream.try_clone().expect("a second handle"));
        let mut session = Session { stream, lines };
        assert!(session.line().contains("help lists the commands"));
        session
    }

    /// The next line that is no prompt.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line).expect("a line");
            let prompt = |line: &str| line.ends_with("] read") || line.ends_with("] probe");
            let said = match line.split_once("> ") {
                Some((before, rest)) if prompt(before) => rest,
                _ => &line,
            };
            if !said.trim().is_empty() {
                return said.trim_end().to_owned();
            }
        }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.stream, "{line}").expect("sent");
        self.line()
    }
}

#[test]
fn the_console_traces_for_a_session_and_stops() {
    let _one = alone();
    let directory = Directory::new();
    let path = directory.at("s");
    within(LIMIT, move || {
        runtime(2).block_on(move || {
            let backdoor = coro::backdoor::serve(&path).expect("a backdoor");
            let (ours, theirs) = UnixStream::pair().unwrap();
            let fd = ours.as_raw_fd();
            coro::blocking(move || {
                let mut session = Session::open(&path);
                assert_eq!(session.ask("trace net"), "trace needs the tier probe: write first: enable probe");
                session.ask("enable probe");
                for (wrong, told) in [
                    ("trace", "trace wants one of: trace net [peer=ADDRESS]"),
                    ("trace disks", "trace knows no \"disks\"; there is trace net"),
                    ("trace locks fd=9", "locks have no fd: that goes with a trace of net"),
                    ("trace net waits", "net have no waits: that goes with a trace of locks and channels"),
                    ("trace timers name=x", "timers have no name: that goes with a trace of locks and channels"),
                    ("trace locks name=", "trace locks knows no \"name=\"; there is trace net"),
                    ("trace locks name=\"db", "a quote is not closed in name=\"db"),
                    ("trace net fd=x", "\"x\" is not a descriptor: write fd=9; fds --all shows them"),
                    ("trace net task=x", "\"x\" is not a task's id: write task=17; tasks shows the ids"),
                    ("trace net bytes=x", "bytes wants a whole number, and \"x\" is none"),
                    ("trace net for ever", "\"ever\" is no duration"),
                    ("trace net for", "for wants a duration: for 10s"),
                    ("trace net loud", "trace net knows no \"loud\"; there is trace net"),
                    ("trace off it", "trace off knows no \"it\", only all"),
                    ("trace off", "this session has no trace; trace off all ends those of others"),
                ] {
                    let said = session.ask(wrong);
                    assert!(said.starts_with(told), "{wrong}: {said}");
                }
                let said = session.ask(&format!("trace net fd={fd} bytes"));
                let (_, said) = said.split_once(' ').unwrap().1.split_once(' ').unwrap();
                let whole = format!("traces net fd={fd} bytes=32, for 600.0s; it ends with this session");
                assert_eq!(said, whole);
                let reader = coro::spawn({
                    let ours = ours.try_clone().unwrap();
                    move || (&ours).read(&mut [0; 8]).map(drop)
                });
                let other = ours.as_raw_fd();
                (&ours).write_all(b"line\n").unwrap();
                let told = [session.line(), session.line()].map(|line| masked(&line));
                assert_eq!(
                    told,
                    ["fd N.send(5 \"line\\n\"), peer pid N", "fd N.send(5) => 5 in N s, peer pid N"],
                    "of {other}"
                );
                let mut said = [session.ask("trace off"), session.line()];
                said.sort();
                assert_eq!(said[0], "1 trace is taken away");
                assert!(said[1].ends_with(" is over: taken away; 2 hits"), "{said:?}");
                (&theirs).write_all(b"12345678").unwrap();
                reader.join().unwrap().unwrap();
                // By its time, and with the session.
                session.ask("trace net for 50ms");
                assert!(session.line().contains(" is over: its 50.0 ms are over; "));
                session.ask("trace net peer=/nowhere");
                assert!(!nothing_is_watched());
                drop(session);
                until(LIMIT, "nothing is left", nothing_is_watched);
            })
            .expect("a thread");
            drop(backdoor);
        });
    });
}

/// What each task says, in its order, masked; what is no task's is left out.
fn by_task<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<u64, Vec<String>> {
    let mut all: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for line in lines {
        let id = line.split(", #").nth(1).and_then(|rest| rest.split(',').next()).and_then(|id| id.parse().ok());
        if let Some(id) = id {
            all.entry(id).or_default().push(masked(line));
        }
    }
    all
}

/// The example in both of its forms, asked as on the page: everything that a task says there comes in that order.
#[test]
fn the_page_shows_what_the_example_answers() {
    let _one = alone();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/trace.md")).expect("the page");
    let outputs: Vec<&str> = page.split("```text\n").skip(1).filter_map(|part| part.split("```").next()).collect();
    let mut program = std::env::current_exe().expect("a test knows its own path");
    program.pop();
    program.pop();
    program.push("examples/buffered");
    assert!(program.exists(), "{} is missing; build it first: cargo build --examples", program.display());
    for (form, output) in [None, Some("--fixed")].into_iter().zip(outputs) {
        let directory = Directory::new();
        let path = directory.at("s");
        let mut command = Command::new(&program);
        command.args(form).args(["--seconds", "60", "--backdoor"]).arg(&path);
        command.env_remove("CORO_BACKDOOR").env_remove("CORO_PROBES").env("CORO_WORKERS", "1");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the example starts");
        let _child = Ended(child);
        let waits = if form.is_none() { " read " } else { " accept " };
        until(LIMIT, "there is somebody who waits", || ask(&path, "status").is_some_and(|said| said.contains(waits)));
        let mut session = Session::open(&path);
        writeln!(session.stream, "enable probe").expect("sent");
        writeln!(session.stream, "trace net bytes").expect("sent");
        let wanted: Vec<Vec<String>> = by_task(output.lines()).into_values().collect();
        let (mut said, whole) = (Vec::new(), Instant::now());
        let missing = loop {
            said.push(session.line());
            let told = by_task(said.iter().map(String::as_str));
            // In between a task may say what the page leaves out.
            let holds = |told: &Vec<String>, wanted: &Vec<String>| {
                let mut told = told.iter();
                wanted.iter().all(|line| told.any(|other| other == line))
            };
            let missing = wanted.iter().find(|wanted| !told.values().any(|told| holds(told, wanted))).cloned();
            if missing.is_none() || whole.elapsed() > LIMIT {
                break missing;
            }
        };
        assert_eq!(missing, None, "{form:?} says:\n{}", said.join("\n"));
        for line in output.lines().filter(|line| line.starts_with("this session") || line.starts_with("probe ")) {
            assert!(said.iter().any(|other| masked(other) == masked(line)), "{line} of {form:?}");
        }
    }
}

/// The answer to one command.
fn ask(path: &std::path::Path, command: &str) -> Option<String> {
    let mut stream = std::os::unix::net::UnixStream::connect(path).ok()?;
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    stream.write_all(format!("{command}\n").as_bytes()).ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}
