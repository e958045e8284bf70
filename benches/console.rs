//! What eight sessions of the console at once, five of them hostile, take of a server; and how soon the others are answered.
//!
//! `cargo bench --bench console [-- ROUNDS]` (about 30 s a round) runs three processes: a server with one worker, an echo
//! service and 100,000 parked tasks; a load of 64 connections that send 64 bytes and wait for them; and the sessions. It
//! alternates between quiet and disturbed times and prints requests per second of both as a ratio; beside it the CPU time of
//! the console's threads and of the sessions, which says the same where the machine's own speed moves too much.
//!
//! The sessions: one asks for everything and never reads; one sends 64 MiB without a line's end; one asks `where_all` over and
//! over; one evaluates an endless loop, over and over; one calls a function of the program that never returns; three ask what
//! people ask, and are timed.
#![cfg(target_os = "linux")]

use std::fs::DirBuilder;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TASKS: usize = 100_000;
const CONNECTIONS: usize = 64;
const PHASE: Duration = Duration::from_secs(10);
/// Of each phase: until what went before has had its effect.
const SETTLE: Duration = Duration::from_secs(4);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", socket] => server(Path::new(socket)),
        ["load", address] => load(address.parse().expect("an address")),
        [] => compare(3),
        [rounds] => compare(rounds.parse().expect("a number of rounds")),
        _ => panic!("cargo bench --bench console [-- ROUNDS]"),
    }
}

fn server(socket: &Path) {
    let runtime = coro::Runtime::builder().workers(1).build().expect("a runtime");
    // So long that nobody sees its end; but it comes back, or later rounds could evaluate nothing.
    let stuck = coro::console::Function::new("stuck", || std::thread::sleep(PHASE * 2));
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

/// The second part of a phase.
struct Measured {
    /// Requests per second.
    rate: f64,
    /// What the console's threads took, and the sessions, in hundredths of one CPU.
    console: f64,
    sessions: f64,
}

fn measure(server: &Process, load: &mut Process) -> Measured {
    std::thread::sleep(SETTLE);
    // Everybody but the worker.
    let console = |of: u32| cpu_time(&format!("/proc/{of}")) - cpu_time(&worker_of(of));
    let cpu = || (console(server.child.id()), cpu_time("/proc/self"));
    let (begun, before, cpu_before) = (Instant::now(), load.ask(), cpu());
    std::thread::sleep(PHASE - SETTLE);
    let (requests, cpu_after) = (load.ask() - before, cpu());
    let seconds = begun.elapsed().as_secs_f64();
    let percent = |before: f64, after: f64| (after - before) / seconds * 100.0;
    Measured {
        rate: requests as f64 / seconds,
        console: percent(cpu_before.0, cpu_after.0),
        sessions: percent(cpu_before.1, cpu_after.1),
    }
}

/// Where the system tells of the thread that runs the server's tasks.
fn worker_of(process: u32) -> String {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    let named = |path: &Path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "coro-0");
    let worker = threads.flatten().map(|thread| thread.path()).find(|path| named(path)).expect("its worker");
    worker.to_str().expect("text").to_owned()
}

/// Seconds of CPU that a process or thread has taken, those that have ended included (proc_pid_stat(5), utime and stime).
fn cpu_time(of: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("{of}/stat")).expect("its times");
    let after = stat.rsplit_once(')').expect("its name").1;
    let ticks: u64 = after.split_ascii_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum();
    // USER_HZ, the same on every system that this runs on.
    ticks as f64 / 100.0
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

/// The eight sessions, until they are told to stop; gives the times that the three ordinary ones waited, in milliseconds.
struct Sessions {
    stop: Arc<AtomicBool>,
    hostile: Vec<std::thread::JoinHandle<()>>,
    ordinary: Vec<std::thread::JoinHandle<Vec<f64>>>,
}

impl Sessions {
    fn begin(socket: &Path) -> Sessions {
        let stop = Arc::new(AtomicBool::new(false));
        let spawn = |body: fn(Session, &AtomicBool)| {
            let (session, stop) = (Session::open(socket), stop.clone());
            std::thread::spawn(move || body(session, &stop))
        };
        let hostile: [fn(Session, &AtomicBool); 5] = [
            |mut deaf, stop| {
                deaf.send("where_all\n".repeat(50).as_bytes());
                wait_for(stop);
            },
            |mut endless, stop| {
                let (piece, mut sent) = ([b'x'; 64 << 10], 0);
                while sent < 64 << 20 && !stop.load(Ordering::Relaxed) {
                    sent += endless.0.get_mut().write(&piece).expect("it is read and thrown away");
                }
                wait_for(stop);
            },
            |mut greedy, stop| {
                while !stop.load(Ordering::Relaxed) {
                    greedy.ask("where_all\n", "tasks");
                }
            },
            |mut computing, stop| {
                while !stop.load(Ordering::Relaxed) {
                    computing.ask("loop { }\n", "too ");
                }
            },
            |mut blocked, stop| {
                blocked.send(b"stuck()\n");
                wait_for(stop);
            },
        ];
        let hostile = hostile.into_iter().map(spawn).collect();
        let ordinary = [("where 17\n", "#17"), ("status\n", "tasks"), ("40 + 2\n", "42")]
            .into_iter()
            .map(|(text, expected)| {
                let (mut session, stop) = (Session::open(socket), stop.clone());
                std::thread::spawn(move || {
                    let mut waited = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        session.ask(text, expected);
                        waited.push(begun.elapsed().as_secs_f64() * 1000.0);
                        std::thread::sleep(Duration::from_secs(1));
                    }
                    waited
                })
            })
            .collect();
        Sessions { stop, hostile, ordinary }
    }

    fn end(self) -> Vec<f64> {
        self.stop.store(true, Ordering::Relaxed);
        for session in self.hostile {
            session.join().expect("a session");
        }
        self.ordinary.into_iter().flat_map(|session| session.join().expect("a session")).collect()
    }
}

fn wait_for(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn compare(rounds: usize) {
    let directory = std::env::temp_dir().join(format!("coro-bench-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&directory).expect("a directory of our own");
    let socket = directory.join("s");
    let mut server = Process::start(&["server", socket.to_str().expect("text")]);
    let address = server.line();
    let mut load = Process::start(&["load", &address]);
    let (mut ratios, mut waited, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let before = measure(&server, &mut load);
        let sessions = Sessions::begin(&socket);
        let disturbed = measure(&server, &mut load);
        waited.extend(sessions.end());
        let after = measure(&server, &mut load);
        let quiet = (before.rate + after.rate) / 2.0;
        println!(
            "round {round}: {:.0} and {:.0} requests/s quiet, {:.0} with eight sessions; of one CPU the console's threads took {:.1} %, \
             the sessions {:.1} %",
            before.rate, after.rate, disturbed.rate, disturbed.console, disturbed.sessions
        );
        ratios.push(disturbed.rate / quiet);
        taken.push(disturbed.console + disturbed.sessions);
    }
    ratios.sort_by(f64::total_cmp);
    waited.sort_by(f64::total_cmp);
    println!("throughput with eight sessions: {:.3} of quiet (median; {ratios:.3?})", ratios[ratios.len() / 2]);
    taken.sort_by(f64::total_cmp);
    let (median, most) = (taken[taken.len() / 2], taken[taken.len() - 1]);
    println!("both together took {median:.1} % of one CPU (median), {most:.1} % at most");
    let at = |part: f64| waited[((waited.len() - 1) as f64 * part) as usize];
    let (median, p99, longest) = (at(0.5), at(0.99), at(1.0));
    println!(
        "{} answers to ordinary questions: median {median:.1} ms, p99 {p99:.1} ms, longest {longest:.1} ms",
        waited.len()
    );
    drop((server, load));
    let _ = std::fs::remove_dir_all(&directory);
}
