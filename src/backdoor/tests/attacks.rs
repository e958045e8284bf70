//! What attackers may try on a server, as far as it takes other users, a full standard error, or many at once. What takes a
//! whole program is in `tests/attach.rs`.

use std::io::PipeWriter;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::process::{PATH, Peer, ROLE, child_command, cpu_time};
use super::*;
use crate::sys::unixsock::{self, Watch};

/// Nobody.
const OTHER: u32 = 65534;

/// The command that runs a role as another user, from a copy of this program: the build's directory may be closed to them.
fn as_other(directory: &Directory, role: &str, target: &Path) -> Command {
    let program = directory.join("program");
    if !program.exists() {
        fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy");
    }
    let inner = child_command(role, target);
    let mut command = Command::new(&program);
    command.args(inner.get_args()).env(ROLE, role).env(PATH, target).uid(OTHER).gid(OTHER).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn other_users_are_kept_out_at_every_door() {
    if unixsock::effective_uid() != 0 {
        eprintln!("not run: a client of another user takes root to start");
        return;
    }
    let directory = Directory::new();
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).expect("a mode set");
    let path = directory.join("s.sock");
    let server = Peer::start(child_command("serve both", &path));
    // The mode of the socket alone.
    let said = Peer::start(as_other(&directory, "knock", &path)).finish();
    assert!(said.contains("kept out: PermissionDenied"), "{said}");
    // A port of 127.0.0.1 has no mode.
    let port = server.said.lines().find_map(|line| line.strip_prefix("port ")).expect("its port").to_owned();
    let said = Peer::start(as_other(&directory, "tcp client", Path::new(&port))).finish();
    assert!(said.contains("got 0 bytes"), "{said}");
    let said = server.finish();
    assert_eq!(said.matches("refused a connection of user 65534 (tcp 127.0.0.1:").count(), 1, "{said}");
    assert!(said.contains(" uid 65534)"), "{said}");

    // Root, where it is to be kept out.
    let theirs = directory.join("theirs");
    fs::create_dir(&theirs).expect("a directory");
    chown(&theirs, Some(OTHER), Some(OTHER)).expect("given away");
    for (role, name, answer) in [("serve owner", "owner.sock", ""), ("serve", "all.sock", BANNER)] {
        let path = theirs.join(name);
        let server = Peer::start(as_other(&directory, role, &path));
        assert_eq!(Client::connect(&path).ask(""), answer, "{role}");
        let said = server.finish();
        let refused = said.matches("refused a connection of user 0 (unix uid 0 pid ").count();
        assert_eq!(refused, usize::from(answer.is_empty()), "{said}");
    }
}

/// Serves at that path in a process whose standard error is `errors`.
fn with_errors(path: &Path, errors: Stdio) -> std::process::Child {
    let mut command = child_command("serve", path);
    let child = command.stderr(errors).spawn().expect("a child");
    let end = Instant::now() + PATIENCE;
    while UnixStream::connect(path).is_err() {
        assert!(Instant::now() < end, "it does not serve");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

fn let_end(mut child: std::process::Child) {
    drop(child.stdin.take());
    assert!(child.wait().expect("its end").success());
}

const NOT_RECORDED: &str = "not done: standard error takes no line, so it could not be recorded; make room there, or set a \
                            report handler\n";

#[test]
fn a_full_disk_behind_standard_error_refuses_what_changes_something() {
    let Ok(full) = fs::File::options().write(true).open("/dev/full") else {
        eprintln!("not run: there is no /dev/full here");
        return;
    };
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let child = with_errors(&path, full.into());
    let answer = Client::connect(&path).ask("enable act\nset\nwhere 1\n");
    let needs = "set needs the tier act: write first: enable act\n";
    assert_eq!(answer, format!("{BANNER}{NOT_RECORDED}{needs}line 1\n"));
    let_end(child);
}

/// Writes until the pipe takes no more.
fn fill(pipe: &mut PipeWriter) -> usize {
    let mut filled = 0;
    loop {
        let mut watch = [Watch::new(pipe, false, true)];
        unixsock::poll(&mut watch, Some(Duration::ZERO)).expect("poll");
        if !watch[0].stirred() {
            return filled;
        }
        // A pipe that is ready takes that much.
        filled += pipe.write(&[b'x'; 4096]).expect("written");
    }
}

#[test]
fn a_full_pipe_behind_standard_error_refuses_what_changes_something() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let (mut reader, mut writer) = io::pipe().expect("a pipe");
    let child = with_errors(&path, writer.try_clone().expect("a copy").into());
    let mut client = Client::connect(&path);
    client.send("enable act\n");
    client.expect(&format!("{BANNER}this session may now act\n"));
    let filled = fill(&mut writer);
    client.send("set\nwhere 1\n");
    client.expect(&format!("{NOT_RECORDED}line 1\n"));
    // When somebody reads again it is done, and recorded before.
    let mut seen = Vec::new();
    while seen.len() < filled {
        let mut bytes = vec![0; 65536];
        let length = reader.read(&mut bytes).expect("read");
        seen.extend_from_slice(&bytes[..length]);
    }
    client.send("set\n");
    client.expect("line 7\n");
    drop(writer);
    let_end(child);
    reader.read_to_end(&mut seen).expect("read");
    let seen = String::from_utf8_lossy(&seen).replace('x', "");
    let audits: Vec<&str> = seen.lines().filter_map(|line| line.strip_prefix("coro: audit: session ")).collect();
    assert_eq!(audits.len(), 2, "{seen}");
    assert!(audits[0].ends_with(": enable act") && audits[1].ends_with(": set"), "{seen}");
}

#[test]
fn what_finds_no_room_with_the_report_handler_is_recorded_on_standard_error() {
    const COMMANDS: usize = 400;
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let peer = Peer::start(child_command("serve, nobody reads reports", &path));
    let numbered: String = (0..COMMANDS).map(|n| format!("set {n}\n")).collect();
    let answer = Client::connect(&path).ask(&format!("enable act\n{numbered}"));
    assert_eq!(answer.matches("line 7\n").count(), COMMANDS, "{answer}");
    let said = peer.finish();
    // As many as the handler's queue has room for went there, and what the handler took of it; all others are here.
    let audits: Vec<&str> = said.lines().filter(|line| line.starts_with("coro: audit: ")).collect();
    assert!((COMMANDS - 260..COMMANDS).contains(&audits.len()), "{}: {said}", audits.len());
    assert!(audits[audits.len() - 1].ends_with(&format!("): set {}", COMMANDS - 1)), "{said}");
}

#[test]
fn a_record_is_whole_however_long_the_command() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let peer = Peer::start(child_command("serve", &path));
    let long = format!("set {}17", "1 ".repeat(1500));
    assert!(Client::connect(&path).ask(&format!("enable act\n{long}\n")).ends_with("line 7\n"));
    let said = peer.finish();
    assert!(said.lines().any(|line| line.ends_with(&format!("): {long}"))), "{said}");
}

#[test]
fn a_record_is_one_line_whatever_the_command() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let peer = Peer::start(child_command("serve", &path));
    let asked = [
        "set \u{1b}[2J\u{1b}]0;owned\u{7}",
        "set \rcoro: audit: session 1 (unix uid 0 pid 1): nothing",
        "set \u{9b}31m \u{202e}kcab\u{200b}",
        "set \\\ncoro: audit: session 2",
    ];
    let answer = Client::connect(&path).ask(&format!("enable act\n{}\nset \x7f\n", asked.join("\n")));
    assert_eq!(answer.matches("line 7\n").count(), 5, "{answer}");
    let said = peer.finish();
    let audits: Vec<&str> = said.lines().filter(|line| line.contains("audit")).collect();
    assert_eq!(audits.len(), 6, "{said}");
    for audit in &audits {
        assert!(audit.starts_with("coro: audit: session ") && audit.contains(" (unix uid "), "{audit}");
        assert!(!audit.contains(|c: char| c.is_control() || matches!(c, '\u{200b}' | '\u{202e}')), "{audit:?}");
    }
    assert!(audits[1].ends_with("): set \\u{1b}[2J\\u{1b}]0;owned\\u{7}"), "{}", audits[1]);
    assert!(audits[2].contains("): set \\rcoro: audit: "), "{}", audits[2]);
    assert!(audits[4].ends_with("): set  coro: audit: session 2"), "{}", audits[4]);
}

#[test]
fn a_hundred_dead_readers_take_none_of_the_programs_time() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let peer = Peer::start(child_command("serve", &path));
    let dead: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = Client::connect(&path);
            // Those who are turned away may be gone already.
            let _ = client.0.write_all(format!("where {ENDLESS}\nwhere_all\n").as_bytes());
            client
        })
        .collect();
    let process = peer.child.id();
    // Their sockets and buffers fill, and then nothing is done for them.
    let end = Instant::now() + PATIENCE;
    let mut quiet = 0;
    while quiet < 3 && cfg!(target_os = "linux") {
        assert!(Instant::now() < end, "the console is never idle");
        let before = cpu_time(process);
        std::thread::sleep(Duration::from_millis(200));
        // Two of a hundred ticks a second are 2 % of one CPU.
        quiet = if cpu_time(process) <= before { quiet + 1 } else { 0 };
    }
    // Whoever comes in their place is answered at once.
    drop(dead);
    let begin = Instant::now();
    loop {
        let answer = Client::connect(&path).ask("where 1\n");
        if !answer.starts_with("coro: too many sessions") {
            assert_eq!(answer, format!("{BANNER}line 1\n"));
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "their places are never given again");
    }
    peer.finish();
}
