//! The examples as their users meet them: processes, sockets, signals.
#![cfg(unix)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

#[path = "../examples/util/text.rs"]
mod text;

const PATIENCE: Duration = Duration::from_secs(20);

fn example(name: &str) -> Command {
    let mut path = std::env::current_exe().expect("a test knows its own path");
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    assert!(path.exists(), "{} is missing; build it first: cargo build --examples", path.display());
    let mut command = Command::new(path);
    // Line numbers are asked for below; a backtrace on every panic only costs time.
    command.env_remove("CORO_BACKDOOR").env_remove("CORO_STACK_GUARDS").env("RUST_BACKTRACE", "0");
    command
}

fn run(command: &mut Command) -> (Output, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("the example starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

/// A directory of this test only; goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("coro-ex-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new().mode(0o700).create(&path).expect("a scratch directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running server example.
struct Server {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    addr: String,
    backdoor: PathBuf,
    _scratch: Scratch,
}

impl Server {
    fn start(test: &str, name: &str, workers: usize, more: &[&str]) -> Server {
        let scratch = Scratch::new(test);
        let mut command = example(name);
        command.args(["--addr", "127.0.0.1:0", "--backdoor"]).arg(scratch.0.join("b.sock")).args(more);
        command.env("CORO_WORKERS", workers.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: `signal` is safe between fork and exec. Under `nohup` and in background jobs the signal is ignored,
        // which the child would inherit and honour.
        unsafe {
            command.pre_exec(|| {
                libc::signal(libc::SIGINT, libc::SIG_DFL);
                Ok(())
            });
        }
        let mut child = command.spawn().expect("the example starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut server = Server { child, stdout, addr: String::new(), backdoor: PathBuf::new(), _scratch: scratch };
        server.addr = server.line_after("listening on ");
        server.backdoor = server.line_after("backdoor on ").into();
        server
    }

    fn line_after(&mut self, prefix: &str) -> String {
        loop {
            if self.stdout.buffer().is_empty() && !readable_in_time(self.stdout.get_ref()) {
                panic!("it does not print {prefix:?}: {}", self.errors());
            }
            let mut line = String::new();
            let n = self.stdout.read_line(&mut line).expect("text");
            assert!(n > 0, "the example ended before it printed {prefix:?}: {}", self.errors());
            if let Some(rest) = line.trim_end().strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }

    fn errors(&mut self) -> String {
        self.stop();
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = stderr.read_to_string(&mut text);
        }
        text
    }

    /// Ends it, by force if need be, and what it has started: a program that lives on would hold the pipes open.
    fn stop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let started = children(self.child.id());
        if !started.is_empty() {
            // SAFETY: our own child, not yet waited for.
            unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        if let Ok(None) = self.child.try_wait() {
            for pid in children(self.child.id()) {
                // SAFETY: a program that nobody but our child waits for, and its group, which may be none of its own.
                unsafe { _ = (libc::kill(-pid, libc::SIGKILL), libc::kill(pid, libc::SIGKILL)) };
            }
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }

    fn join(&self) -> Client {
        let mut client = Client::connect(&self.addr);
        client.expect("welcome");
        client
    }

    fn where_all(&self) -> String {
        ask(&self.backdoor, "where_all")
    }

    fn interrupt(&self) {
        // SAFETY: our own child, not yet waited for.
        let sent = unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGINT) };
        assert_eq!(sent, 0);
    }

    /// How it ended, and the rest of its standard output.
    fn end(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.where_all());
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("text");
        (status, rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What that process has started and not waited for.
fn children(pid: u32) -> Vec<libc::pid_t> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_each = threads.filter_map(|t| std::fs::read_to_string(t.path().join("children")).ok());
    of_each.flat_map(|all| all.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Whether there is something to read, or an end, before patience has ended.
fn readable_in_time(from: &impl AsRawFd) -> bool {
    let mut fd = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which is ours.
    unsafe { libc::poll(&raw mut fd, 1, PATIENCE.as_millis() as libc::c_int) > 0 }
}

fn ask(path: &Path, command: &str) -> String {
    let mut socket = UnixStream::connect(path).expect("the backdoor is there");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(format!("{command}\n").as_bytes()).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer, then its end");
    answer
}

struct Client {
    lines: BufReader<TcpStream>,
}

impl Client {
    fn connect(addr: &str) -> Client {
        let socket = TcpStream::connect(addr).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { lines: BufReader::new(socket) }
    }

    fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.lines.get_mut().write_all(bytes.as_ref()).expect("it reads");
        self.lines.get_mut().write_all(b"\n").expect("it reads");
    }

    /// The next line that contains `what`.
    fn expect(&mut self, what: &str) -> String {
        self.expect_either(what, what)
    }

    fn expect_either(&mut self, what: &str, or: &str) -> String {
        // The last ones first.
        let mut seen = Vec::new();
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) => panic!("the connection ended before {what:?}; seen: {seen:#?}"),
                Err(e) => panic!("{e} before {what:?}; seen: {seen:#?}"),
                Ok(_) if line.contains(what) || line.contains(or) => return line.trim_end().to_owned(),
                Ok(_) => {
                    line.truncate(line.char_indices().nth(60).map_or(line.len(), |(at, _)| at));
                    seen.truncate(20);
                    seen.insert(0, line);
                }
            }
        }
    }

    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.lines.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "no end"),
        }
    }
}

/// The lines of tasks in an answer, checked against the count at its end.
fn tasks(answer: &str) -> Vec<&str> {
    let tasks: Vec<_> = answer.lines().filter(|line| line.starts_with('#')).collect();
    let count = format!("{} tasks:", tasks.len());
    assert!(answer.lines().any(|line| line.starts_with(&count)), "{count} is not what it counted: {answer}");
    tasks
}

/// What a parked task's line says behind its age and its name.
fn waits_for(line: &str) -> &str {
    let (_, rest) = line.split_once(" parked ").expect("it is parked");
    let (_age, rest) = rest.split_once(' ').expect("an age");
    rest.strip_prefix('"').and_then(|named| named.split_once("\" ")).map_or(rest, |(_, rest)| rest)
}

/// Whether it is the line of a task whose name begins so; names of others stand behind its own.
fn is_named(line: &str, name: &str) -> bool {
    line.split_once('"').is_some_and(|(_, rest)| rest.starts_with(name))
}

/// Asserts that the task of that name shows `function` of the demo with file and line.
fn assert_frame(tasks: &[&str], name: &str, function: &str) {
    let line = tasks.iter().find(|line| is_named(line, name));
    let line = line.unwrap_or_else(|| panic!("no task {name}: {tasks:#?}"));
    let frame = format!("[examples/demo.rs {function}|");
    let number = line.split(&frame).nth(1).and_then(|rest| rest.split(']').next());
    assert!(number.is_some_and(|n| n.parse::<u32>().is_ok()), "no {frame}LINE] in {line}");
}

/// What the demo runs apart from its clients, all parked.
fn assert_furniture(tasks: &[&str], workers: usize) {
    for index in 0..workers {
        assert_frame(tasks, &format!("stall meter {index}\""), "stall_meter");
        assert_frame(tasks, &format!("room lobby {index}\""), "room_writer");
    }
    assert_frame(tasks, "main\"", "acceptor");
    assert_eq!(tasks.iter().filter(|line| is_named(line, "acceptor ")).count(), workers - 1);
    assert_frame(tasks, "bot 0 sleeper\"", "bot_sleeper");
    assert_frame(tasks, "bot 1 locker\"", "bot_locker");
    assert_frame(tasks, "bot 2 receiver\"", "bot_receiver");
    assert_frame(tasks, "bot 3 reader\"", "bot_reader");
    assert_frame(tasks, "bot postman\"", "bot_postman");
}

#[test]
fn two_clients_chat_and_a_panic_is_nobody_elses() {
    let mut demo = Server::start("chat", "demo", 2, &["--bots", "8"]);
    let (mut ann, mut ben) = (demo.join(), demo.join());
    ann.expect("* guest2 came");
    ann.say("hello");
    assert_eq!(ben.expect("hello"), "<guest1> hello");
    ben.say("/nick ben");
    ann.expect("* guest2 is now ben");
    ben.say("well met");
    assert_eq!(ann.expect("well met"), "<ben> well met");

    // Whatever bytes come, nothing that steers a terminal goes out.
    ann.say(b"a\x1b[2J\x07\xff\xc3\x28 \xe2\x80\xae \xc2\x9b");
    assert_eq!(ben.expect("<guest1> a"), r"<guest1> a\x1b[2J\x07\xff\xc3( \u{202e} \u{9b}");
    ann.say("x".repeat(3 * text::LONGEST_LINE));
    ann.expect("cut");
    assert_eq!(ben.expect("xxx"), format!("<guest1> {}", "x".repeat(text::LONGEST_LINE)));

    ben.say("/join den");
    ann.expect("* ben went to den");
    ben.say("/who");
    ben.expect("* den: ben");
    ben.expect("* lobby: guest1");

    let mut eve = demo.join();
    let answer = demo.where_all();
    let seen = tasks(&answer);
    assert_furniture(&seen, 2);
    // 2 stall meters, 2 × 2 room writers, main, acceptor, 8 bots and their postman, 3 × 2 for the clients.
    assert_eq!(seen.len(), 2 + 4 + 2 + 9 + 6, "{answer}");
    for name in ["client 127.0.0.1:", "writer 127.0.0.1:"] {
        assert_eq!(seen.iter().filter(|line| is_named(line, name)).count(), 3, "{answer}");
    }
    assert_frame(&seen, "client ", "client");
    assert_frame(&seen, "writer ", "client_writer");
    assert_frame(&seen, "room den 1\"", "room_writer");
    assert!(seen.iter().all(|line| line.contains(" parked ")), "{answer}");

    eve.say("/panic");
    eve.expect("panics now");
    eve.expect_end();
    ann.expect("* guest3 left");
    ben.say("/join lobby");
    ben.expect("* ben came from den");
    ann.say("still here");
    ben.expect("<guest1> still here");
    ben.say("/quit");
    ben.expect("* goodbye");
    ben.expect_end();

    demo.interrupt();
    ann.expect("* the server stops");
    let (status, rest) = demo.end();
    assert_eq!(status.code(), Some(0), "{rest}");
    for line in ["clients served        3", "lines said            5", "tasks that panicked   1", "longest stall"] {
        assert!(rest.contains(line), "no {line:?} in {rest}");
    }
    assert!(!demo.backdoor.exists(), "the socket went with the process");
    let errors = demo.errors();
    let report = errors.lines().find(|line| line.contains("): panic \"client 3 asked for it\"")).unwrap_or_default();
    let stack = report.split_once(" [").map(|(_, stack)| stack).unwrap_or_default();
    assert!(stack.starts_with("examples/demo.rs blow_up|"), "the panic's place comes first: {errors}");
    assert!(stack.contains("[examples/demo.rs client|") && !stack.contains("base"), "{errors}");
}

#[test]
fn where_all_answers_while_one_worker_is_blocked_and_while_all_are() {
    let demo = Server::start("block", "demo", 2, &["--bots", "8"]);
    let mut ann = demo.join();
    ann.say("/block 60");
    let first = ann.expect("sleeping for 60 s on worker");
    let running = |answer: &str| tasks(answer).iter().filter(|line| line.contains(" running on worker ")).count();
    let wait_for = |n: usize| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let begun = Instant::now();
            let answer = demo.where_all();
            assert!(begun.elapsed() < Duration::from_secs(5), "an answer took {:?}", begun.elapsed());
            let blocked = |line: &&str| line.contains(" running on worker ") && line.contains("\"client ");
            if running(&answer) == n && tasks(&answer).iter().filter(|l| blocked(l)).count() == n {
                return answer;
            }
            assert!(Instant::now() < deadline, "never {n} running: {answer}");
        }
    };
    assert_furniture(&tasks(&wait_for(1)), 2);

    // New clients are served by the worker that is left, and can talk.
    let (mut ben, mut eve) = (demo.join(), demo.join());
    ben.say("anybody there?");
    eve.expect("anybody there?");
    ben.say("/block 60");
    let second = ben.expect("sleeping for 60 s on worker");
    assert_ne!(first, second, "the blocked worker took a new client");
    let answer = wait_for(2);
    let seen = tasks(&answer);
    assert_furniture(&seen, 2);
    let waits = |line: &&&str| line.contains(" parked ") || line.contains(" runnable ");
    assert_eq!(seen.iter().filter(waits).count() + 2, seen.len(), "{answer}");

    // By its number alone.
    if cfg!(all(target_os = "linux", target_pointer_width = "64")) {
        let (output, out, err) = run(example("ask").args(["--pid", &demo.child.id().to_string(), "where_all"]));
        assert!(output.status.success(), "{err}");
        assert_eq!(tasks(&out).len(), seen.len(), "{out}");
    }
}

/// Numbers, times and lines as they cannot be known.
#[cfg(all(feature = "probe", feature = "script"))]
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        rest = rest[at..].trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let unit = ["ns", "µs", "ms", "s"].iter().find_map(|unit| rest.strip_prefix(' ')?.strip_prefix(unit));
        out.push_str(if unit.is_some() { "T" } else { "N" });
        rest = unit.unwrap_or(rest);
    }
    out + rest
}

#[cfg(all(feature = "probe", feature = "script"))]
#[test]
fn the_page_about_probes_shows_what_the_demo_says() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/probes.md")).expect("the page");
    let shown = page.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a transcript");
    let server = Server::start("probes", "demo", 2, &["--bots", "0"]);
    let mut client = server.join();
    let stream = UnixStream::connect(&server.backdoor).expect("the backdoor");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let mut lines = BufReader::new(stream.try_clone().expect("a handle"));
    writeln!(&stream, "#lines").expect("sent");
    let mut said = String::new();
    // Every line of the page that the demo answers is typed, when what stands above it has come.
    let mut next = move |said: &mut String| {
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        // The banner comes before the first answer.
        let Some((what, text)) = line.trim().strip_prefix("{\"").and_then(|l| l.split_once("\":\"")) else {
            return String::new();
        };
        let text = text.trim_end_matches("\"}").replace("\\\"", "\"");
        if what != "done" && !text.contains(" is over: ") {
            said.push_str(&(text + "\n"));
        }
        what.to_owned()
    };
    let mut until_done = |said: &mut String| while next(said) != "done" {};
    until_done(&mut said);
    said.clear();
    for line in shown.lines() {
        if line.starts_with("probe list") || line.starts_with("probe attach") || line == "enable probe" {
            said.push_str(&format!("{line}\n"));
            writeln!(&stream, "{line}").expect("sent");
            until_done(&mut said);
        }
    }
    for words in ["hello", "secret", "hello"] {
        client.say(words);
    }
    for line in ["probe show 1", "probe detach 1"] {
        // Both lines have come, and the one that is secret has not.
        let deadline = Instant::now() + PATIENCE;
        while line == "probe show 1" && said.matches("hello").count() < 2 {
            assert!(Instant::now() < deadline, "{said}");
            writeln!(&stream, "#lines").expect("sent");
            until_done(&mut said);
        }
        said.push_str(&format!("{line}\n"));
        writeln!(&stream, "{line}").expect("sent");
        until_done(&mut said);
    }
    assert_eq!(masked(&said), masked(shown));
}

#[test]
fn an_interrupt_ends_a_blocked_demo_with_its_summary() {
    let mut demo = Server::start("wedged", "demo", 1, &["--bots", "100"]);
    let mut ann = demo.join();
    ann.say("/block 600");
    ann.expect("sleeping");
    let begun = Instant::now();
    demo.interrupt();
    let (status, rest) = demo.end();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(status.code(), Some(128 + libc::SIGINT), "{rest}");
    assert!(rest.contains("clients served        1"), "{rest}");
    let stall = rest.lines().find_map(|line| line.strip_prefix("longest stall")?.trim().strip_suffix(" s"));
    assert!(stall.is_some_and(|s| s.parse::<f64>().is_ok_and(|s| s > 1.0)), "the stall still lasts: {rest}");
    let errors = demo.errors();
    let first = errors.lines().find(|line| line.contains("left a task behind")).unwrap_or_default();
    assert!(first.contains(" running on worker 0 ") && first.contains("client 127.0.0.1:"), "{errors}");
}

#[test]
fn a_client_who_does_not_read_is_dropped() {
    let demo = Server::start("slow", "demo", 2, &["--bots", "0"]);
    let mut slow = demo.join();
    let mut talker = demo.join();
    let lines = [&[b'z'; text::LONGEST_LINE][..], b"\n"].concat().repeat(50);
    let deadline = Instant::now() + PATIENCE;
    // In steps, each read to its end, so that the one who talks is not too slow as well.
    let notice = (0..).find_map(|step| {
        assert!(Instant::now() < deadline, "not dropped after {} lines", 50 * step);
        let mark = format!("step {step}");
        talker.say(&lines);
        talker.say(&mark);
        let line = talker.expect_either(&mark, "dropped");
        line.contains("dropped").then_some(line)
    });
    assert_eq!(notice.as_deref(), Some("* guest1 was dropped: reads too slowly"));
    slow.expect("* you read too slowly and were dropped");
    slow.expect_end();
    demo.join();
}

#[test]
fn echo_gives_back_what_it_gets_and_ask_sees_its_tasks() {
    let mut echo = Server::start("echo", "echo", 1, &[]);
    let mut sockets: Vec<_> = (0..3).map(|_| TcpStream::connect(&echo.addr).unwrap()).collect();
    let sent: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    for socket in &mut sockets {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut back = vec![0; sent.len()];
        let mut to_send = socket.try_clone().unwrap();
        std::thread::scope(|s| {
            s.spawn(|| to_send.write_all(&sent).unwrap());
            socket.read_exact(&mut back).unwrap();
        });
        assert!(back == sent, "the bytes came back changed");
    }
    let (output, out, err) = run(example("ask").arg(&echo.backdoor).arg("where_all"));
    assert!(output.status.success(), "{err}");
    let seen = tasks(&out);
    assert_eq!(seen.len(), 4, "{out}");
    let echoing = |line: &&&str| line.contains("\"echo 127.0.0.1:") && line.contains("[examples/echo.rs echo|");
    assert_eq!(seen.iter().filter(echoing).count(), 3, "{out}");
    let (_, out, _) = run(example("ask").arg(&echo.backdoor).args(["where", "999999"]));
    assert!(out.contains("no task #999999"), "{out}");
    let (output, _, err) = run(example("ask").arg(echo.backdoor.with_extension("none")).arg("help"));
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("no such socket"), "{err}");

    let (output, _, err) = run(example("echo").args(["--addr", &echo.addr]));
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("already in use") || err.contains("choose another port"), "{err}");
    echo.interrupt();
    assert_eq!(echo.end().0.code(), Some(128 + libc::SIGINT));
}

#[test]
fn echo_takes_its_number_of_workers() {
    let echo = Server::start("workers", "echo", 1, &["--workers", "3"]);
    let mut socket = TcpStream::connect(&echo.addr).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"x").unwrap();
    socket.read_exact(&mut [0]).unwrap();
    assert!(ask(&echo.backdoor, "help").contains("3 workers"), "the greeting counts them");
}

/// The supervisor with three programs: one that stays, one that ends at once, one that does not care for SIGTERM.
#[test]
fn a_supervisor_starts_again_what_ends_and_stops_all_in_order() {
    let scratch = Scratch::new("supervisor");
    let stubborn = "trap '' TERM; echo ready; while :; do sleep 1000; done";
    let words = ["sleep", "1000", "--", "sh", "-c", "exit 3", "--", "sh", "-c", stubborn];
    let mut command = example("supervisor");
    command
        .args(["--grace", "200", "--backoff", "10", "--backdoor"])
        .arg(scratch.0.join("b.sock"))
        .arg("--")
        .args(words);
    command.env("CORO_WORKERS", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the example starts");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let backdoor = PathBuf::new();
    let mut supervisor = Server { child, stdout, addr: String::new(), backdoor, _scratch: scratch };
    supervisor.backdoor = supervisor.line_after("backdoor on ").into();
    supervisor.line_after("ready");

    // By name of the program: its task's wait, with the number of the process.
    let pid = |supervisor: &Server| {
        let all = supervisor.where_all();
        let line = tasks(&all).into_iter().find(|line| is_named(line, "sleep\""))?;
        line.split_once("wait child pid ")?.1.split_once(" \"sleep\"")?.0.parse::<libc::pid_t>().ok()
    };
    let look = |what: &str, supervisor: &Server, seen: &dyn Fn(&str) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        while !seen(&ask(&supervisor.backdoor, "children")) {
            let children = ask(&supervisor.backdoor, "children");
            assert!(Instant::now() < deadline, "{what}: {children}{}", supervisor.where_all());
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let again = |children: &str| children.lines().any(|l| l.starts_with("exit status: 3") && !l.ends_with(" 1"));
    look("what ended is started again", &supervisor, &again);
    // While one comes and goes, all of them say what they wait for: its end, the next start, a signal.
    let mut seen = [false; 3];
    let deadline = Instant::now() + PATIENCE;
    while seen != [true; 3] {
        let all = supervisor.where_all();
        for line in tasks(&all).into_iter().filter(|line| line.contains(" parked ")) {
            let wait = waits_for(line);
            assert!(wait.starts_with(|c: char| c.is_ascii_lowercase()) && !line.contains("unknown"), "{line}");
            for (seen, kind) in seen.iter_mut().zip(["wait child pid ", "sleep ", "signal"]) {
                *seen |= wait.starts_with(kind);
            }
        }
        assert!(Instant::now() < deadline, "not all of its waits are seen, {seen:?}: {all}");
    }
    let first = pid(&supervisor).expect("the first one is waited for");
    // SAFETY: a child of the supervisor's, which has not been waited for.
    assert_eq!(unsafe { libc::kill(first, libc::SIGKILL) }, 0);
    look("what was killed is started again", &supervisor, &|children| children.contains("signal: 9 (SIGKILL)"));
    let deadline = Instant::now() + PATIENCE;
    let second = loop {
        match pid(&supervisor) {
            Some(second) if second != first => break second,
            _ => assert!(Instant::now() < deadline, "it is not started again: {}", supervisor.where_all()),
        }
    };

    // SAFETY: our own child, not yet waited for.
    assert_eq!(unsafe { libc::kill(supervisor.child.id().cast_signed(), libc::SIGTERM) }, 0);
    let (status, _) = supervisor.end();
    let said = supervisor.errors();
    assert_eq!(status.code(), Some(0), "{said}");
    // The last one first, after the time that it was given, by force.
    let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("no {what:?} in {said}"));
    let (told, forced) = (at("SIGTERM: stopping 3 programs"), at("sh: does not end, and is killed"));
    let (killed, ended) = (at("sh: stopped: signal: 9 (SIGKILL)"), at("sleep: stopped: signal: 15 (SIGTERM)"));
    assert!(told < forced && forced < killed && killed < ended, "{said}");
    // SAFETY: a question about a number.
    assert!(unsafe { libc::kill(second, 0) } != 0, "it lives on");
}

#[test]
fn wrong_arguments_are_named() {
    for (name, args, word) in [
        ("demo", &["--bots", "many"][..], "--bots wants a number"),
        ("demo", &["--bots"], "--bots wants a value"),
        ("demo", &["stray"], "stray"),
        ("echo", &["--workers", "0"], "--workers wants a number from 1"),
        ("million", &["0"], "N is a number from 1"),
        ("supervisor", &["--grace", "1"], "which PROGRAM?"),
        ("ask", &[], "a path and a command"),
        ("ask", &["somewhere"], "a path and a command"),
        ("ask", &["--pid", "somewhere", "help"], "--pid PID and a command"),
        ("ask", &["--pid", "1", "--signal", "KILL", "help"], "--signal URG|TRAP|USR1|USR2"),
    ] {
        let (output, _, err) = run(example(name).args(args));
        assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {err}");
        assert!(err.contains(word) && err.contains("usage:"), "{name} {args:?}: {err}");
    }
    let (output, _, err) = run(example("demo").args(["--addr", "256.0.0.1:x"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("--addr 256.0.0.1:x"), "{err}");
}

#[cfg(target_os = "linux")]
#[test]
fn many_tasks_come_and_go() {
    let (output, out, err) = run(example("million").arg("20000"));
    assert!(output.status.success(), "{out}{err}");
    for word in ["guards ", "each takes ", "mappings ", "after "] {
        assert!(out.contains(word), "no {word:?} in {out}");
    }
}

/// With guards that take mappings, the tasks that still fit are few, and the error says what to change.
#[cfg(target_os = "linux")]
#[test]
fn too_many_tasks_for_the_mappings_is_an_error_that_names_the_setting() {
    let most: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    let fits = example("million").env("CORO_STACK_GUARDS", "mprotect").arg("1000").output().unwrap();
    assert!(fits.status.success(), "{fits:?}");
    // Systems that have raised the limit would need too much memory to get there.
    if most <= 100_000 {
        let mut command = example("million");
        let (output, out, err) = run(command.env("CORO_STACK_GUARDS", "mprotect").arg((most / 4 + 1000).to_string()));
        assert_eq!(output.status.code(), Some(1), "{out}{err}");
        assert!(out.contains("guards      mprotect") && err.contains("vm.max_map_count"), "{out}{err}");
    } else {
        eprintln!("vm.max_map_count is {most}: the limit was not tried");
    }
}

mod lines {
    use super::text::{LONGEST_LINE, Lines, clean};

    fn all(bytes: &[u8]) -> Vec<String> {
        let mut lines = Lines::new(bytes);
        std::iter::from_fn(|| lines.next_line().unwrap()).map(|line| line.text).collect()
    }

    #[test]
    fn every_kind_of_end_ends_a_line() {
        assert_eq!(all(b"a\nb\r\nc\r\0d\re\n\nlast"), ["a", "b", "c", "d", "e", "", "last"]);
        assert!(all(b"").is_empty());
    }

    #[test]
    fn telnet_commands_are_skipped_and_other_255s_shown() {
        assert_eq!(all(b"a\xff\xfb\x01b\xff\xf4\xff\xfd\x06c\n"), ["abc"]);
        assert_eq!(all(b"size \xff\xfa\x1f\x00\x50\x0a\x18\xff\xf0known\n"), ["size known"]);
        assert_eq!(all(b"\xff\xff \xffa\xff\n"), [r"\xff \xffa\xff"]);
        // A subnegotiation without an end swallows little.
        let endless = [b"\xff\xfa".to_vec(), vec![b'x'; 1000], b"\nnext\n".to_vec()].concat();
        assert_eq!(all(&endless)[1], "next");
    }

    #[test]
    fn long_lines_are_cut_and_the_next_one_is_whole() {
        let bytes = [vec![b'y'; 100_000], b"\nshort\n".to_vec()].concat();
        let mut lines = Lines::new(&bytes[..]);
        let long = lines.next_line().unwrap().unwrap();
        assert!(long.cut && long.text.len() == LONGEST_LINE);
        let short = lines.next_line().unwrap().unwrap();
        assert!(!short.cut && short.text == "short");
        assert_eq!(lines.next_line().unwrap(), None);
    }

    #[test]
    fn nothing_that_comes_out_steers_a_terminal() {
        let mut seed = 0x9E37_79B9_7F4A_7C15u64;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .take(200_000)
        .collect();
        for line in all(&bytes) {
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
        assert_eq!(clean("grüße, 世界\u{200b}".as_bytes()), r"grüße, 世界\u{200b}");
    }
}
