//! What eight sessions of the console at once, five of them hostile, take of a server; and how soon the others are answered.
//!
//! `cargo bench --bench console [-- ROUNDS]` (nine seconds a round, and some to begin with) runs three processes: a server with
//! one worker, an echo service and 100,000 parked tasks; a load of 64 connections that send 64 bytes and wait for them; and the
//! sessions. Quiet and disturbed times alternate, because the machine's own speed changes within a minute: each disturbed one is
//! compared with the quiet ones before and after it. Of these ratios it prints the median and where that would lie in nineteen of
//! twenty repetitions (bootstrap). Beside it what moves less: the worker's CPU time for a request, which tells of caches that others have
//! used, how often it lost its CPU, and the CPU time of the console's threads.
//!
//! The sessions: one asks for everything and never reads; one sends without a line's end; one asks `where_all` over and
//! over; one evaluates an endless loop, over and over; one calls a function of the program that does not return; three ask what
//! people ask, and are timed. They begin long before the first round, until they have used up what is free. In quiet times they
//! stay open, so that what they have taken is still held against them: in the middle of an answer that is not read on, and of a line
//! that does not go on. What comes back to them meanwhile they have spent again before it is measured.
#![cfg(target_os = "linux")]

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io::{BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const TASKS: usize = 100_000;
const CONNECTIONS: usize = 64;
/// What is measured of each time.
const MEASURED: Duration = Duration::from_secs(3);
/// Before it: until what went before has had its effect.
const SETTLE_QUIET: Duration = Duration::from_secs(1);
/// And until what came back to the sessions in the quiet time is spent: a hundredth of that.
const SETTLE_DISTURBED: Duration = Duration::from_secs(2);
/// In the beginning: the console's threads have spent what is free once they take less than so many hundredths of a CPU in a second.
const SPENT: f64 = 5.0;
const SPENT_WITHIN: Duration = Duration::from_secs(60);
/// So often a session that waits for the server looks whether the time is over.
const LOOK: Duration = Duration::from_millis(100);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", socket] => server(Path::new(socket)),
        ["load", address] => load(address.parse().expect("an address")),
        [] => compare(10),
        [rounds] => compare(rounds.parse().expect("a number of rounds")),
        _ => panic!("cargo bench --bench console [-- ROUNDS]"),
    }
}

fn server(socket: &Path) {
    let runtime = coro::Runtime::builder().workers(1).build().expect("a runtime");
    // So long that nobody sees its end; but it comes back, or later rounds could evaluate nothing.
    let stuck = coro::console::Function::new("stuck", || std::thread::sleep((SETTLE_DISTURBED + MEASURED) * 2));
    stuck.tier(coro::console::Tier::Read).register();
    runtime.block_on(|| {
        for n in 0..TASKS {
            drop(coro::spawn(move || coro::sleep(Duration::from_secs(36_000 + n as u64 % 7))));
        }
        let listener = coro::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        coro::backdoor::serve(socket).expect("served");
        println!("{}", listener.local_addr().expect("an address"));
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            drop(coro::spawn(move || {
                let mut bytes = [0; 64];
                while connection.read_exact(&mut bytes).and_then(|()| connection.write_all(&bytes)).is_ok() {}
            }));
        }
    });
}

/// Prints how many requests there were so far whenever a line comes.
fn load(address: SocketAddr) {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    let runtime = coro::Runtime::builder().workers(1).build().expect("a runtime");
    for _ in 0..CONNECTIONS {
        drop(runtime.spawn(move || {
            let mut connection = coro::net::TcpStream::connect(address).expect("connected");
            let mut bytes = [7; 64];
            while connection.write_all(&bytes).and_then(|()| connection.read_exact(&mut bytes)).is_ok() {
                REQUESTS.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for line in std::io::stdin().lines() {
        line.expect("a line");
        println!("{}", REQUESTS.load(Ordering::Relaxed));
    }
    std::process::exit(0);
}

struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(arguments: &[&str]) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Process { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim().to_owned()
    }

    fn ask(&mut self) -> u64 {
        self.child.stdin.as_mut().expect("its input").write_all(b"\n").expect("asked");
        self.line().parse().expect("a number")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a quiet or a disturbed time has shown.
struct Measured {
    /// Requests per second.
    rate: f64,
    /// CPU time of the worker, in microseconds.
    per_request: f64,
    /// How often a second the worker lost its CPU to another thread.
    lost: f64,
    /// What the server's threads took but for its worker, in hundredths of one CPU: those that serve sessions, those that evaluate
    /// expressions, all.
    serving: f64,
    evaluating: f64,
    console: f64,
    /// And this process.
    sessions: f64,
}

fn measure(server: &Process, load: &mut Process, settle: Duration, measured: Duration) -> Measured {
    std::thread::sleep(settle);
    let (server, own) = (server.child.id(), std::process::id());
    let (begun, requests, before, own_before) = (Instant::now(), load.ask(), threads(server), threads(own));
    std::thread::sleep(measured);
    let (requests, after, own_after) = (load.ask() - requests, threads(server), threads(own));
    let seconds = begun.elapsed().as_secs_f64();
    // What ended meanwhile is left out: threads of expressions outlive these by seconds.
    let taken = |before: &HashMap<u32, Thread>, after: &HashMap<u32, Thread>, which: &dyn Fn(&str) -> bool| {
        let those = after.iter().filter(|(_, thread)| which(&thread.name));
        let nanoseconds: u64 = those.map(|(id, now)| now.ran - before.get(id).map_or(0, |then| then.ran)).sum();
        nanoseconds as f64
    };
    let percent = |nanoseconds: f64| nanoseconds / seconds / 1e7;
    let lost = |all: &HashMap<u32, Thread>| all.values().find(|thread| thread.name == WORKER).expect("a worker").lost;
    Measured {
        rate: requests as f64 / seconds,
        per_request: taken(&before, &after, &|name| name == WORKER) / requests as f64 / 1000.0,
        lost: (lost(&after) - lost(&before)) as f64 / seconds,
        serving: percent(taken(&before, &after, &|name| name == "coro-console")),
        evaluating: percent(taken(&before, &after, &|name| name == "coro-eval")),
        console: percent(taken(&before, &after, &|name| name != WORKER)),
        sessions: percent(taken(&own_before, &own_after, &|_| true)),
    }
}

const WORKER: &str = "coro-0";

struct Thread {
    name: String,
    /// Nanoseconds on a CPU.
    ran: u64,
    /// Involuntary switches to another thread.
    lost: u64,
}

/// Those of a process, by their ids.
fn threads(process: u32) -> HashMap<u32, Thread> {
    let all = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    all.flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, thread(&entry.path())?)))
        .collect()
}

/// `None` for one that has ended meanwhile.
fn thread(path: &Path) -> Option<Thread> {
    let read = |name: &str| std::fs::read_to_string(path.join(name)).ok();
    let lost = read("status")?
        .lines()
        .find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:")?.trim().parse().ok())?;
    let ran = read("schedstat")?.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Thread { name: read("comm")?.trim().to_owned(), ran, lost })
}

/// A session that answers in lines of JSON.
struct Session(BufReader<UnixStream>);

impl Session {
    fn open(socket: &Path) -> Session {
        let mut session = Session(BufReader::new(UnixStream::connect(socket).expect("connected")));
        let mut line = String::new();
        session.0.read_line(&mut line).expect("a banner");
        assert!(line.contains("help lists the commands"), "no session: {line}");
        session.send(b"#json\n");
        session
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("sent");
    }

    /// Waits for the whole answer, which has `expected` in a line.
    fn ask(&mut self, text: &str, expected: &str) {
        self.send(text.as_bytes());
        let (mut line, mut seen) = (String::new(), false);
        while !line.starts_with("{\"done\":") || line.contains("#json") {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("an answer") > 0, "{text}: the session ended");
            seen |= line.contains(expected);
        }
        assert!(seen, "{text}: {line}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    Quiet,
    Disturbed,
    Over,
}

/// What the sessions are to do.
struct Told {
    time: Mutex<Time>,
    changed: Condvar,
}

impl Told {
    fn now(&self) -> MutexGuard<'_, Time> {
        self.time.lock().expect("nobody panics with it")
    }

    fn is_disturbed(&self) -> bool {
        *self.now() == Time::Disturbed
    }

    fn tell(&self, time: Time) {
        *self.now() = time;
        self.changed.notify_all();
    }

    /// Waits for the next disturbed time; false if there is none.
    fn next(&self) -> bool {
        *self.changed.wait_while(self.now(), |time| *time == Time::Quiet).expect("nobody panics with it") != Time::Over
    }

    /// Waits for as long, or for the end of the disturbed time.
    fn wait(&self, time: Duration) {
        drop(self.changed.wait_timeout_while(self.now(), time, |time| *time == Time::Disturbed));
    }

    fn wait_for_quiet(&self) {
        drop(self.changed.wait_while(self.now(), |time| *time == Time::Disturbed));
    }
}

/// The eight sessions. What the hostile ones got: bytes of answers, and bytes that were taken from them.
struct Sessions {
    told: Arc<Told>,
    hostile: Vec<std::thread::JoinHandle<()>>,
    /// They give the times that they waited, in milliseconds.
    ordinary: Vec<std::thread::JoinHandle<Vec<f64>>>,
}

static ANSWERED: AtomicU64 = AtomicU64::new(0);
static THROWN_AWAY: AtomicU64 = AtomicU64::new(0);

impl Sessions {
    fn open(socket: &Path) -> Sessions {
        let told = Arc::new(Told { time: Mutex::new(Time::Quiet), changed: Condvar::new() });
        let hostile: [fn(&Path, &Told); 5] = [
            // The server drops it some time later.
            |socket, told| {
                while told.next() {
                    let mut deaf = Session::open(socket);
                    deaf.send("where_all\n".repeat(50).as_bytes());
                    told.wait_for_quiet();
                }
            },
            |socket, told| {
                let (piece, mut endless) = ([b'x'; 64 << 10], Session::open(socket));
                endless.0.get_ref().set_write_timeout(Some(LOOK)).expect("set");
                while told.next() {
                    while told.is_disturbed() {
                        let sent = or_none_yet(endless.0.get_mut().write(&piece)).expect("it is read and thrown away");
                        THROWN_AWAY.fetch_add(sent as u64, Ordering::Relaxed);
                    }
                }
            },
            |socket, told| repeat(socket, told, "where_all\n", false),
            |socket, told| repeat(socket, told, "loop { }\n", true),
            |socket, told| repeat(socket, told, "stuck()\n", true),
        ];
        let hostile = hostile.into_iter().map(|body| {
            let (socket, told) = (socket.to_owned(), told.clone());
            std::thread::spawn(move || body(&socket, &told))
        });
        let hostile = hostile.collect();
        let ordinary = [("where 17\n", "#17"), ("status\n", "tasks"), ("40 + 2\n", "42")]
            .into_iter()
            .map(|(text, expected)| {
                let (mut session, told) = (Session::open(socket), told.clone());
                std::thread::spawn(move || {
                    let mut waited = Vec::new();
                    while told.next() {
                        while told.is_disturbed() {
                            let begun = Instant::now();
                            session.ask(text, expected);
                            waited.push(begun.elapsed().as_secs_f64() * 1000.0);
                            told.wait(Duration::from_secs(1));
                        }
                    }
                    waited
                })
            })
            .collect();
        Sessions { told, hostile, ordinary }
    }

    fn end(self) -> Vec<f64> {
        self.told.tell(Time::Over);
        for session in self.hostile {
            session.join().expect("a session");
        }
        self.ordinary.into_iter().flat_map(|session| session.join().expect("a session")).collect()
    }
}

/// Asks the same over and over, also after the answer; in a quiet time it reads nothing, and interrupts what would go on without it.
fn repeat(socket: &Path, told: &Told, question: &str, interrupts: bool) {
    let mut session = Session::open(socket);
    session.ask("status\n", "tasks");
    session.0.get_ref().set_read_timeout(Some(LOOK)).expect("set");
    let (mut bytes, mut end, mut is_over) = (vec![0; 64 << 10], Vec::new(), true);
    while told.next() {
        while told.is_disturbed() {
            if std::mem::take(&mut is_over) {
                session.send(question.as_bytes());
            }
            let length = or_none_yet(session.0.read(&mut bytes)).expect("the session goes on");
            ANSWERED.fetch_add(length as u64, Ordering::Relaxed);
            end.extend_from_slice(&bytes[..length]);
            // Lines of JSON: no answer has this in it.
            is_over = end.windows(8).any(|part| part == b"{\"done\":") && end.ends_with(b"}\n");
            let keep = if is_over { 0 } else { end.len().min(64) };
            end.drain(..end.len() - keep);
        }
        if interrupts && !is_over {
            session.send(b"\x03");
        }
    }
}

/// How much was read or written in the time that there was for it. Not the end, which is none of the server's answers.
fn or_none_yet(outcome: std::io::Result<usize>) -> std::io::Result<usize> {
    match outcome {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(0),
        other => other,
    }
}

fn compare(rounds: usize) {
    let directory = std::env::temp_dir().join(format!("coro-bench-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&directory).expect("a directory of our own");
    let socket = directory.join("s");
    let mut server = Process::start(&["server", socket.to_str().expect("text")]);
    let address = server.line();
    let mut load = Process::start(&["load", &address]);
    let sessions = Sessions::open(&socket);
    spend(&server, &mut load, &sessions.told);
    let mut quiet = vec![time(Time::Quiet, &server, &mut load, &sessions.told)];
    let mut disturbed = Vec::new();
    println!(
        "round    quiet, disturbed requests/s   us of the worker for one   times a second it lost its CPU   % of a CPU: console, expressions, sessions"
    );
    for round in 1..=rounds {
        let now = time(Time::Disturbed, &server, &mut load, &sessions.told);
        let after = time(Time::Quiet, &server, &mut load, &sessions.told);
        println!(
            "{round:5} {:8.0} {:8.0} {:8.2} {:8.2} {:8.0} {:8.0} {:8.2} {:8.2} {:8.2}",
            after.rate,
            now.rate,
            after.per_request,
            now.per_request,
            after.lost,
            now.lost,
            now.serving,
            now.evaluating,
            now.sessions
        );
        disturbed.push(now);
        quiet.push(after);
    }
    let mut waited = sessions.end();
    drop((server, load));
    let _ = std::fs::remove_dir_all(&directory);

    let ratios = |of: fn(&Measured) -> f64| -> Vec<f64> {
        let both = quiet.windows(2).zip(&disturbed);
        both.map(|(around, now)| of(now) / ((of(&around[0]) + of(&around[1])) / 2.0)).collect()
    };
    let (rate, per_request) = (ratios(|m| m.rate), ratios(|m| m.per_request));
    let with_interval = |all: &[f64]| {
        let (low, high) = interval(all);
        format!("{:.3} of quiet (median; {low:.3} to {high:.3})", median(all))
    };
    println!("throughput with eight sessions: {}", with_interval(&rate));
    println!("the worker's CPU time for a request: {}", with_interval(&per_request));
    let mean = |all: &[Measured], of: fn(&Measured) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    println!(
        "the worker lost its CPU {:.0} times a second, {:.0} in quiet times (means)",
        mean(&disturbed, |m| m.lost),
        mean(&quiet, |m| m.lost)
    );
    println!(
        "threads of the server but for its worker took {:.2} % of one CPU (mean), {:.2} % in quiet times: for sessions {:.2} %, \
         for expressions {:.2} %; the sessions' own process took {:.2} %",
        mean(&disturbed, |m| m.console),
        mean(&quiet, |m| m.console),
        mean(&disturbed, |m| m.serving),
        mean(&disturbed, |m| m.evaluating),
        mean(&disturbed, |m| m.sessions)
    );
    let mib = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed) as f64 / f64::from(1 << 20);
    println!(
        "hostile sessions were answered {:.1} MiB, and {:.1} MiB of the endless line were taken",
        mib(&ANSWERED),
        mib(&THROWN_AWAY)
    );
    waited.sort_by(f64::total_cmp);
    let at = |part: f64| waited[((waited.len() - 1) as f64 * part) as usize];
    let (median, p99, longest) = (at(0.5), at(0.99), at(1.0));
    println!(
        "{} answers to ordinary questions: median {median:.1} ms, p99 {p99:.1} ms, longest {longest:.1} ms",
        waited.len()
    );
}

fn time(time: Time, server: &Process, load: &mut Process, told: &Told) -> Measured {
    told.tell(time);
    let settle = if time == Time::Disturbed { SETTLE_DISTURBED } else { SETTLE_QUIET };
    measure(server, load, settle, MEASURED)
}

/// Lets the sessions take what is free.
fn spend(server: &Process, load: &mut Process, told: &Told) {
    let begun = Instant::now();
    told.tell(Time::Disturbed);
    // Until the first answers are made.
    let mut settle = Duration::from_secs(2);
    while measure(server, load, settle, Duration::from_secs(1)).console > SPENT {
        settle = Duration::ZERO;
        if begun.elapsed() > SPENT_WITHIN {
            println!("the console's threads still take more than {SPENT} % of a CPU: is there one to spare?");
            return;
        }
    }
    println!("what is free was spent after {:.0} s", begun.elapsed().as_secs_f64());
}

fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

/// Where nineteen of twenty medians of as many, drawn from these with repetition, lie. The same each time.
fn interval(all: &[f64]) -> (f64, f64) {
    const DRAWN: usize = 2000;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % n
    };
    let mut medians: Vec<f64> =
        (0..DRAWN).map(|_| median(&all.iter().map(|_| all[below(all.len())]).collect::<Vec<_>>())).collect();
    medians.sort_by(f64::total_cmp);
    (medians[DRAWN / 40], medians[DRAWN - 1 - DRAWN / 40])
}
