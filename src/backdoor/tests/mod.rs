//! Tests from outside: clients on real sockets, and processes of their own where exit, fork or limits matter.

mod attacks;
mod console;
mod matrix;
mod paths;
mod process;
mod talk;

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Asked, Commands, Limits, Server, Tier, serve_asked, serve_with};
use crate::commands::{Answer, Command, READ};
use crate::sys::usage;

/// How many lines `where_all` has.
const LINES: usize = 100_000;

/// Far more than anything takes; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers that were given up before their end.
static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// Takes `step` for each `chunk` lines.
struct Count {
    next: usize,
    end: usize,
    chunk: usize,
    step: Duration,
}

impl Answer for Count {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        std::thread::sleep(self.step);
        for line in self.next..self.end.min(self.next + self.chunk) {
            out.extend_from_slice(format!("line {line}\n").as_bytes());
        }
        self.next += self.chunk;
        self.next < self.end
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        if self.next < self.end {
            DROPPED.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Panics in the middle of a line, and once more when dropped.
struct Faulty;

impl Answer for Faulty {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(b"half a li");
        panic!("more failed: \x1b[2J");
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        panic!("drop failed");
    }
}

/// Computes a millisecond for each line, which says how long the answer has lasted and how much CPU time the thread has had, in µs.
struct Computes(Instant);

impl Answer for Computes {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        let (begun, mut cpu) = (Instant::now(), Duration::ZERO);
        while begun.elapsed() < Duration::from_millis(1) {
            cpu = usage::own_cpu().unwrap_or_default();
        }
        let _ = writeln!(out, "{} {}", self.0.elapsed().as_micros(), cpu.as_micros());
        true
    }
}

/// Ids that `where` treats in a special way.
const PANICS_AT_ONCE: u64 = 901;
const PANICS_LATER: u64 = 902;
const ENDLESS: u64 = 903;
const SLOW_STEPS: u64 = 904;
const COMPUTES: u64 = 905;

const FAKE: Commands = Commands {
    table: &[
        Command { names: &["where_all"], arguments: "", help: "", tier: READ, run: |_| Ok(all()) },
        Command { names: &["where"], arguments: "ID", help: "", tier: READ, run: |asked| Ok(one(asked.words)) },
        Command { names: &["set"], arguments: "", help: "", tier: |_| Tier::Act, run: |_| Ok(one(&["7"])) },
    ],
    banner: || "fake\nbanner".into(),
    name: || "fake[1]".into(),
    welcome: || Box::new(Count { next: 0, end: 0, chunk: 1, step: Duration::ZERO }),
    evaluator: None,
};

static SERVED: Commands = FAKE;

fn all() -> Box<dyn Answer> {
    Box::new(Count { next: 0, end: LINES, chunk: 1000, step: Duration::from_millis(5) })
}

fn one(arguments: &[&str]) -> Box<dyn Answer> {
    match arguments[0].trim_start_matches('#').parse().expect("a number") {
        PANICS_AT_ONCE => panic!("no answer for {PANICS_AT_ONCE}"),
        PANICS_LATER => Box::new(Faulty),
        ENDLESS => Box::new(Count { next: 0, end: usize::MAX, chunk: 1000, step: Duration::ZERO }),
        SLOW_STEPS => Box::new(Count { next: 0, end: 20, chunk: 1, step: Duration::from_millis(50) }),
        COMPUTES => Box::new(Computes(Instant::now())),
        id => Box::new(Count { next: id as usize, end: id as usize + 1, chunk: 1, step: Duration::ZERO }),
    }
}

const BANNER: &str = "fake banner\n";

/// A directory for one test, private unless changed, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("coro-test-{}-{number}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).expect("a directory for the test");
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn try_serve(path: &Path) -> io::Result<Server> {
    serve_with(path.to_owned(), &SERVED, Limits::STANDARD)
}

/// A server with its own directory, closed at the end.
struct Served {
    server: Option<Server>,
    path: PathBuf,
    _directory: Directory,
}

impl Served {
    fn new(limits: Limits) -> Self {
        let directory = Directory::new();
        let path = directory.join("s.sock");
        let server = Some(serve_with(path.clone(), &SERVED, limits).expect("served"));
        Self { server, path, _directory: directory }
    }

    fn client(&self) -> Client {
        Client::connect(&self.path)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.take().expect("a server").close();
    }
}

struct Client(UnixStream);

impl Client {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self(stream)
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("sent");
    }

    fn end(&self) {
        self.0.shutdown(Shutdown::Write).expect("half closed");
    }

    /// Everything up to the server's end, and the longest silence in it.
    fn rest(&mut self) -> (String, Duration) {
        let (mut all, mut buffer, mut silence) = (Vec::new(), vec![0; 64 * 1024], Duration::ZERO);
        loop {
            let begin = Instant::now();
            let length = self.0.read(&mut buffer).expect("read");
            silence = silence.max(begin.elapsed());
            if length == 0 {
                return (String::from_utf8(all).expect("text"), silence);
            }
            all.extend_from_slice(&buffer[..length]);
        }
    }

    /// Sends all of it, half-closes, and returns what comes.
    fn ask(mut self, text: &str) -> String {
        self.send(text);
        self.end();
        self.rest().0
    }

    fn expect(&mut self, text: &str) {
        let mut buffer = vec![0; text.len()];
        self.0.read_exact(&mut buffer).unwrap_or_else(|error| panic!("waiting for {text:?}: {error}"));
        assert_eq!(String::from_utf8_lossy(&buffer), text);
    }

    /// Fails if anything comes, or the connection ends, within `time`.
    fn expect_silence(&mut self, time: Duration) {
        self.0.set_read_timeout(Some(time)).expect("a timeout");
        let mut buffer = [0; 100];
        match self.0.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => panic!("{other:?}: {:?}", String::from_utf8_lossy(&buffer)),
        }
        self.0.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }
}

/// The lines that `where_all` gives.
fn all_lines() -> String {
    (0..LINES).map(|line| format!("line {line}\n")).collect()
}
