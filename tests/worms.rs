//! The example `worms`, watched by several telnet clients at once.
#![cfg(target_os = "linux")]

mod util;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use util::sockets::Directory;

const PATIENCE: Duration = Duration::from_secs(30);

/// Ended when this goes.
struct Worms(Child);

impl Drop for Worms {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads until what has come so far, as text, is as wanted.
#[track_caller]
fn watch(viewer: &mut TcpStream, seen: &mut String, what: &str, enough: impl Fn(&str) -> bool) {
    let end = Instant::now() + PATIENCE;
    let mut buf = [0; 4096];
    while !enough(seen) {
        assert!(Instant::now() < end, "{what}: {:?}", &seen[seen.len().saturating_sub(300)..]);
        let n = viewer.read(&mut buf).expect(what);
        assert!(n > 0, "{what}: the viewer was left");
        seen.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
}

#[test]
fn several_viewers_watch_add_and_leave() {
    let mut program = std::env::current_exe().expect("a test knows its own path");
    program.pop();
    program.pop();
    program.push("examples/worms");
    assert!(program.exists(), "{} is missing; build it first: cargo build --examples", program.display());
    let directory = Directory::new();
    let mut command = Command::new(program);
    command.args(["--addr", "127.0.0.1:0", "--worms", "3", "--backdoor"]).arg(directory.at("b.sock"));
    command.env_remove("CORO_BACKDOOR").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut worms = Worms(command.spawn().expect("the example starts"));
    let mut line = String::new();
    BufReader::new(worms.0.stdout.take().expect("piped")).read_line(&mut line).expect("its address");
    let port: u16 = line.trim().rsplit(' ').next().expect("a port").parse().expect("a number");

    let mut viewers: Vec<(TcpStream, String)> =
        (0..4).map(|_| (TcpStream::connect(("127.0.0.1", port)).expect("connected"), String::new())).collect();
    for (viewer, seen) in &mut viewers {
        viewer.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        watch(viewer, seen, "three worms", |s| s.contains("\x1b[23;1H3 worms, "));
        // Heads are capital letters; the escapes before them end with one too, the line of help has none.
        watch(viewer, seen, "worms that move", |s| ["A", "B", "C"].iter().any(|head| s.matches(head).count() > 3));
    }
    // As a telnet client agrees to the options offered, with 3 among the bytes, which alone would leave.
    viewers[0].0.write_all(b"\xff\xfd\x01\xff\xfd\x03++").expect("sent");
    for (viewer, seen) in &mut viewers {
        watch(viewer, seen, "five worms", |s| s.contains("\x1b[23;1H5 worms, "));
    }
    for (mut viewer, _) in viewers {
        viewer.write_all(b"q").expect("sent");
        let mut rest = Vec::new();
        viewer.read_to_end(&mut rest).expect("the end");
        assert!(rest.ends_with(b"\x1b[?25h\x1b[23;1H\r\n"), "the cursor does not come back");
    }
}
