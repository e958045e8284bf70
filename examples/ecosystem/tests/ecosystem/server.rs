//! One of the servers as a process of its own, and its backdoor.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use coro::net::unix::UnixStream;

use crate::real::{Directory, Kept};
use crate::{LONG, page};

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    backdoor: PathBuf,
    child: Kept,
    last: Receiver<String>,
    directory: Directory,
}

impl Drop for Server {
    /// Where a test fails, what the server has said against it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = std::fs::read(self.directory.at("stderr")).unwrap_or_default();
            coro::print_stderr(format!("the server said:\n{}", String::from_utf8_lossy(&said)));
        }
    }
}

impl Server {
    /// Starts `coro-ecosystem NAME ARGS...`; `addr` is where it says it listens, or works for.
    pub(crate) fn start(name: &str, args: &[&str]) -> Server {
        let directory = Directory::new();
        let backdoor = directory.at("backdoor.sock");
        let mut command = Command::new(env!("CARGO_BIN_EXE_coro-ecosystem"));
        command.arg(name).args(args).env("CORO_BACKDOOR", &backdoor).env("CORO_WORKERS", "2");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(directory.at("stderr")).unwrap());
        let mut child = Kept(command.spawn().unwrap());
        let out = child.0.stdout.take().unwrap();
        let (send, last) = channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(out).lines().map_while(Result::ok);
            let _ = send.send(lines.next().unwrap_or_default());
            send.send(lines.last().unwrap_or_default())
        });
        // An address that means nothing: one that never speaks is dropped as any other, and what it has said is told.
        let mut server = Server { addr: ([0; 4], 0).into(), backdoor, child, last, directory };
        let first = server.last.recv_timeout(LONG).expect("it says where it listens");
        server.addr = first.rsplit(' ').next().unwrap().parse().unwrap_or_else(|e| panic!("{first}: {e}"));
        server
    }

    /// Waits until it has ended by itself, well, and returns the last line that it said.
    pub(crate) fn ends(mut self) -> String {
        let last = self.last.recv_timeout(LONG).expect("it ends");
        let status = self.child.0.wait().unwrap();
        assert!(status.success(), "{status}: {last}");
        last
    }

    /// What the backdoor says.
    pub(crate) fn ask(&self, question: &str) -> String {
        let mut stream = UnixStream::connect(&self.backdoor).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        writeln!(stream, "{question}").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        // Who it is stands in the first line.
        answer.split_once('\n').expect("a greeting").1.trim().to_owned()
    }

    /// Under load: every task that waits says for what, at least `least` of them for `wait`, and what is said goes into
    /// the page.
    pub(crate) fn look(&self, name: &str, load: &str, wait: &str, least: usize) {
        let deadline = Instant::now() + LONG;
        let all = loop {
            let all = self.ask("where_all");
            let mut found = 0;
            for line in all.lines().filter(|l| l.starts_with('#')) {
                assert!(!line.contains("unknown"), "{name}: {line}");
                if let Some(said) = waits_for(line) {
                    assert!(said.starts_with(|c: char| c.is_ascii_lowercase()), "{name}: parked for nothing: {line}");
                    found += usize::from(said.starts_with(wait));
                }
            }
            // Under load it is chance how many are at work in the moment of the look.
            if found >= least {
                break all;
            }
            assert!(Instant::now() < deadline, "{name}: {found} wait for {wait}, not {least}\n{all}");
            std::thread::sleep(Duration::from_millis(20));
        };
        let status = self.ask("status");
        assert!(!status.contains("not said"), "{name}: a wait without a reason: {status}");
        page::record(name, load, &[("status", status), ("where_all", one_of_each(&all))]);
    }
}

/// What stands between name and stack: `#5 parked 3ms "name" read fd 9 [f.rs f|1]`.
fn waits_for(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(" parked ")?;
    let (_age, rest) = rest.split_once(' ')?;
    match rest.strip_prefix('"') {
        Some(named) => named.split_once("\" ").map(|(_, rest)| rest),
        None => Some(rest),
    }
}

/// Of lines that say the same of different tasks, the first, and how many more there are.
fn one_of_each(all: &str) -> String {
    let mut kinds: Vec<(String, &str, usize)> = Vec::new();
    let mut last = "";
    for line in all.lines() {
        if !line.starts_with('#') {
            last = line;
            continue;
        }
        let stack = &line[line.find(" [").unwrap_or(line.len())..];
        let kind = format!("{:?}{stack}", waits_for(line).and_then(|w| w.split(' ').next()));
        match kinds.iter_mut().find(|k| k.0 == kind) {
            Some(known) => known.2 += 1,
            None => kinds.push((kind, line, 0)),
        }
    }
    let mut text = String::new();
    for (_, line, more) in kinds {
        writeln!(text, "{line}").unwrap();
        if more > 0 {
            writeln!(text, "      … and {more} more like it").unwrap();
        }
    }
    text + last
}

#[test]
fn a_task_that_waits_for_nothing_would_be_seen() {
    assert_eq!(waits_for("#1 parked 3ms read fd 9 [f.rs f|1]"), Some("read fd 9 [f.rs f|1]"));
    assert_eq!(waits_for("#1 parked 3ms \"a b\" read fd 9 [f.rs f|1]"), Some("read fd 9 [f.rs f|1]"));
    assert_eq!(waits_for("#1 parked 3ms \"a b\" [f.rs f|1]"), Some("[f.rs f|1]"));
    assert_eq!(waits_for("#1 running on worker 0 3ms [f.rs f|1]"), None);
}
