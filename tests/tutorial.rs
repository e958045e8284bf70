//! The transcripts of `docs/tutorial.md`, made by the examples that it speaks of.
//!
//! What stands there is compared with what the programs say now, numbers masked. After a change that is wanted:
//! `CORO_BLESS=1 cargo test --test tutorial`, which writes the page, and read what has changed.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod util;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use util::sockets::Directory;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tutorial.md");
const PATIENCE: Duration = Duration::from_secs(30);
/// By then a program looks as it will go on looking.
const SETTLED: Duration = Duration::from_secs(3);
const STARTS: usize = 3;

/// A running example; ended when this goes.
struct Program {
    child: Child,
    socket: PathBuf,
    said: Arc<Mutex<String>>,
    _directory: Directory,
}

fn example(name: &str) -> PathBuf {
    let mut program = std::env::current_exe().expect("a test knows its own path");
    program.pop();
    program.pop();
    program.push("examples");
    program.push(name);
    assert!(program.exists(), "{} is missing; build it first: cargo build --examples", program.display());
    program
}

impl Program {
    fn start(name: &str, arguments: &[&str]) -> Program {
        let program = example(name);
        let directory = Directory::new();
        let socket = directory.at("b.sock");
        let mut command = Command::new(program);
        command.args(arguments).arg("--backdoor").arg(&socket);
        command.env_remove("CORO_BACKDOOR").env("CORO_WORKERS", "2");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the example starts");
        let said = Arc::new(Mutex::new(String::new()));
        let (stdout, into) = (child.stdout.take().expect("piped"), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = writeln!(into.lock().unwrap(), "{line}");
            }
        });
        let program = Program { child, socket, said, _directory: directory };
        program.until("it serves", |said| said.contains("backdoor on "));
        program
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    #[track_caller]
    fn until(&self, what: &str, done: impl Fn(&str) -> bool) {
        util::until(PATIENCE, what, || done(&self.said()));
    }

    /// The first port of 127.0.0.1 that it spoke of.
    fn port(&self) -> u16 {
        let said = self.said();
        let line = said.lines().next().expect("a line");
        let digits = line.split(|c: char| !c.is_ascii_digit()).filter(|d| !d.is_empty()).find(|d| d.len() > 3);
        digits.expect("a port").parse().expect("a number")
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port())).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    fn ask(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the backdoor");
        stream.write_all(format!("{command}\n").as_bytes()).expect("asked");
        stream.shutdown(Shutdown::Write).expect("asked");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    }

    /// What a person sees who connects and waits for the prompt.
    fn greet(&self) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the backdoor");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (mut text, mut buf) = (String::new(), [0; 4096]);
        while !text.ends_with(" read> ") {
            let n = stream.read(&mut buf).expect("a prompt");
            assert!(n > 0, "the session ended: {text}");
            text.push_str(std::str::from_utf8(&buf[..n]).expect("text"));
        }
        text
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say_and_hear(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("sent");
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).expect("echoed");
    assert_eq!(back, text.as_bytes());
}

const ASK: &str = "| socat -t60 - UNIX-CONNECT:PATH";

/// Two people talk to the echo server.
fn echo() -> Vec<(&'static str, String)> {
    let echo = Program::start("echo", &["--addr", "127.0.0.1:0"]);
    let mut clients = [echo.connect(), echo.connect()];
    clients.iter_mut().for_each(|c| say_and_hear(c, "hello\n"));
    let all = format!("$ printf 'where_all\\n' {ASK}\n{}", echo.ask("where_all"));
    let console = format!("$ socat - UNIX-CONNECT:PATH\n{}\n", echo.greet().trim_end());
    vec![("echo", all), ("console", console)]
}

/// Somebody types at a program's own terminal.
fn repl() -> Vec<(&'static str, String)> {
    const PROMPT: &str = " act> ";
    let mut command = Command::new(example("repl"));
    command.env_remove("CORO_BACKDOOR").env("CORO_WORKERS", "2");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the example starts");
    let (input, mut output) = (child.stdin.take(), child.stdout.take().expect("piped"));
    let mut input = input.expect("piped");
    let mut text = String::from("$ repl\n");
    let mut read = |text: &mut String| {
        let (begun, mut buf) = (text.len(), [0; 4096]);
        while !text[begun..].ends_with(PROMPT) {
            let n = output.read(&mut buf).expect("a prompt");
            assert!(n > 0, "the session ended: {text}");
            text.push_str(std::str::from_utf8(&buf[..n]).expect("text"));
        }
    };
    read(&mut text);
    for line in [
        "let c = connect(server)",
        "c.send(\"hello\\n\")",
        "c.recv_line()",
        "let t = spawn(|| loop { sleep(60.0); c.send(\"are you there?\\n\") })",
        "tasks name~spawn",
        "let a = spawn(|| { sleep(0.2); 6 * 7 })",
        "a.join()",
        "timeout(0.1, || c.recv())",
        "t.cancel(); t.join()",
    ] {
        input.write_all(format!("{line}\n").as_bytes()).expect("typed");
        text += &format!("{line}\n");
        read(&mut text);
    }
    drop(input);
    assert!(child.wait().expect("ended").success());
    // The last prompt.
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    text.truncate(end);
    vec![("repl", text)]
}

/// A client of the echo server, through the proxy.
fn proxy() -> Vec<(&'static str, String)> {
    let echo = Program::start("echo", &["--addr", "127.0.0.1:0"]);
    let to = format!("127.0.0.1:{}", echo.port());
    let proxy = Program::start("proxy", &["--listen", "127.0.0.1:0", "--to", &to]);
    let mut client = proxy.connect();
    say_and_hear(&mut client, "PING\r\n");
    let all = format!("$ printf 'where_all\\n' {ASK}\n{}", proxy.ask("where_all"));
    client.shutdown(Shutdown::Write).expect("ended");
    proxy.until("both directions", |said| said.contains("ended, 6 bytes there and 6 back"));
    let said = proxy.said().replace(&proxy.socket.display().to_string(), "PATH");
    vec![("proxy", format!("$ proxy --to 127.0.0.1:9001\n{said}")), ("proxy-inside", all)]
}

/// Two viewers, one of whom wants more worms.
fn worms() -> Vec<(&'static str, String)> {
    let worms = Program::start("worms", &["--addr", "127.0.0.1:0", "--worms", "12"]);
    let mut viewers = [worms.connect(), worms.connect()];
    viewers[0].write_all(b"+++").expect("sent");
    let mut seen = String::new();
    let end = Instant::now() + PATIENCE;
    while !seen.contains("H15 worms, ") {
        assert!(Instant::now() < end, "no more worms");
        let mut buf = [0; 4096];
        let n = viewers[1].read(&mut buf).expect("a picture");
        seen.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
    vec![("worms", format!("$ printf 'tree\\n' {ASK}\n{}", worms.ask("tree")))]
}

/// Numbers, with their units, differ from run to run.
fn mask(text: &str) -> String {
    let (mut out, mut before, mut rest) = (String::new(), ' ', text);
    while let Some(c) = rest.chars().next() {
        if c.is_ascii_digit() && !before.is_ascii_alphanumeric() && before != '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | ','))).unwrap_or(rest.len());
            let number = rest[..end].trim_end_matches(['.', ',']);
            out.push('N');
            rest = &rest[number.len()..];
            before = 'N';
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            before = c;
        }
    }
    out
}

#[test]
fn numbers_are_masked_and_nothing_else() {
    assert_eq!(
        mask("#17 parked 3.2s fd 9 127.0.0.1:80, 1,234 tasks. x86_64 p99.99"),
        "#N parked N fd N N:N, N tasks. x86_64 p99.N"
    );
}

/// The page in pieces: text, and between them the transcripts by name.
fn transcripts(page: &str) -> Vec<(String, std::ops::Range<usize>)> {
    let mut all = Vec::new();
    for (at, mark) in page.match_indices("<!-- transcript: ") {
        let name = page[at + mark.len()..].split(' ').next().unwrap_or_default();
        let begin = at + page[at..].find("```text\n").expect("a block") + "```text\n".len();
        let end = begin + page[begin..].find("```").expect("its end");
        all.push((name.to_owned(), begin..end));
    }
    all
}

#[test]
fn every_transcript_of_the_tutorial_is_what_the_examples_say() {
    let bless = std::env::var_os("CORO_BLESS").is_some();
    let mut page = std::fs::read_to_string(PAGE).expect("the page");
    let mut names: Vec<String> = transcripts(&page).into_iter().map(|(name, _)| name).collect();
    for make in [echo, repl, proxy, worms] {
        let mut last = Vec::new();
        let mut fits = false;
        // Once in a while a task is caught between two states.
        for _ in 0..STARTS {
            let end = Instant::now() + SETTLED;
            while !fits && Instant::now() < end {
                last = make();
                fits = last.iter().all(|(name, text)| {
                    let place = transcripts(&page).into_iter().find(|(known, _)| known == name).expect("on the page").1;
                    mask(&page[place]) == mask(text)
                });
                if bless {
                    break;
                }
            }
        }
        for (name, text) in &last {
            names.retain(|known| known != name);
            let place = transcripts(&page).into_iter().find(|(known, _)| known == name).expect("on the page").1;
            if bless {
                page.replace_range(place, text);
            } else {
                assert_eq!(mask(&page[place]), mask(text), "{name}: CORO_BLESS=1 writes the page");
            }
        }
    }
    assert!(names.is_empty(), "nobody makes {names:?}");
    if bless {
        std::fs::write(PAGE, page).expect("written");
    }
}
