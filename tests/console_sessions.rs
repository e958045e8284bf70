//! Many sessions at once, some of them hostile, and many one after the other.
#![cfg(target_os = "linux")]

mod util;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use util::sockets::Directory;

const PATIENCE: Duration = Duration::from_secs(60);
/// What the others may have to wait beside those who misbehave.
const SOON: Duration = Duration::from_secs(1);
const ROUNDS: usize = 10;
const TASKS: usize = 20_000;

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Everything that one client is told.
fn ask(path: &Path, text: &str) -> String {
    let mut stream = connect(path);
    stream.write_all(text.as_bytes()).expect("asked");
    stream.shutdown(Shutdown::Write).expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Descriptors, tasks and memory are the process's: one test after the other.
static TURN: Mutex<()> = Mutex::new(());

/// A runtime with so many parked tasks and a backdoor.
struct Served {
    _runtime: coro::Runtime,
    server: coro::backdoor::Server,
    path: PathBuf,
    /// One of the tasks.
    id: u64,
    _directory: Directory,
}

fn served(tasks: usize) -> Served {
    let runtime = util::runtime(1);
    let mut id = 0;
    for n in 0..tasks {
        // Their handles are dropped: they end with the runtime.
        id = runtime.spawn(move || coro::sleep(Duration::from_secs(3600 + n as u64 % 7))).id();
    }
    let directory = Directory::new();
    let path = directory.at("b.sock");
    let server = coro::backdoor::serve(&path).expect("served");
    Served { _runtime: runtime, server, path, id, _directory: directory }
}

#[test]
fn sessions_that_misbehave_hold_up_no_other() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let served = served(TASKS);
    let (path, id) = (served.path.clone(), served.id);
    let stop = Arc::new(AtomicBool::new(false));
    // One never reads what it asked for.
    let mut deaf = connect(&path);
    deaf.write_all("where_all\n".repeat(50).as_bytes()).expect("asked");
    // One sends a line without an end.
    let endless = {
        let (mut stream, stop) = (connect(&path), stop.clone());
        std::thread::spawn(move || {
            let piece = [b'x'; 64 * 1024];
            let mut sent = 0;
            while sent < 64 << 20 && !stop.load(Ordering::Relaxed) && stream.write_all(&piece).is_ok() {
                sent += piece.len();
            }
            sent
        })
    };
    // One asks for everything, again and again.
    let greedy = {
        let (path, stop) = (path.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                assert!(ask(&path, "where_all\n").contains(" tasks: "));
                asked += 1;
            }
            asked
        })
    };
    // One computes without an end, one is in a function that does not come back.
    let held = Arc::new(Mutex::new(()));
    let holds = held.lock().unwrap_or_else(PoisonError::into_inner);
    let (computing, blocked) = if cfg!(feature = "script") {
        let inside = held.clone();
        let blocks = move || drop(inside.lock());
        coro::console::Function::new("block", blocks).tier(coro::console::Tier::Read).register();
        let (mut computing, mut blocked) = (connect(&path), connect(&path));
        computing.write_all("loop {}\n".repeat(100).as_bytes()).expect("asked");
        blocked.write_all(b"block()\n").expect("asked");
        (Some(computing), Some(blocked))
    } else {
        println!("no expressions: the feature script is not there");
        (None, None)
    };
    // One has asked and gone; its place is free again.
    let mut gone = connect(&path);
    gone.write_all(b"where_all\n").expect("asked");
    drop(gone);

    let mut took = Vec::new();
    let mut patient = connect(&path);
    let mut buf = [0; 4096];
    for round in 0..ROUNDS {
        let begin = Instant::now();
        if cfg!(feature = "script") {
            assert!(ask(&path, "6 * 7\n").ends_with("\n42\n"));
        }
        assert!(ask(&path, &format!("where {id}\n")).contains(&format!("\n#{id} ")));
        // A session that stays open gets its turn as well.
        patient.write_all(b"help quit\n").expect("asked");
        let mut seen = String::new();
        while !seen.contains("ends the session") {
            let n = patient.read(&mut buf).expect("an answer");
            assert!(n > 0, "the session ended in round {round}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buf[..n]));
        }
        took.push(begin.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    took.sort();
    assert!(took[ROUNDS / 2] < SOON, "{took:?}");
    assert!(greedy.join().expect("it asks") > 0);
    assert!(endless.join().expect("it sends") > 0);
    // They were not dropped at once, and cost nobody anything.
    if let Some(mut blocked) = blocked {
        drop(holds);
        blocked.write_all(b"\"came \" + \"back\"\n").expect("it is there");
        let mut seen = String::new();
        while !seen.contains("came back\n") {
            let n = blocked.read(&mut buf).expect("an answer");
            assert!(n > 0, "the session ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&buf[..n]));
        }
    }
    drop((deaf, computing));
    served.server.close();
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("our descriptors").count()
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("our status");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("resident memory");
    line.split_whitespace().nth(1).expect("KiB").parse().expect("a number")
}

#[test]
fn coming_asking_and_leaving_leaves_nothing_behind() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let served = served(10);
    let (path, id) = (served.path.clone(), served.id);
    let rounds = std::env::var("CORO_SOAK_SECONDS").map_or(1000, |_| 10_000);
    let once = |n: usize| {
        match n % 5 {
            0 => assert!(ask(&path, "status\n").contains("tasks ")),
            1 => {
                let text = format!("#json\nwhere {id}\nenable act\nenable read\nquit\n");
                assert!(ask(&path, &text).contains("{\"done\":\"where\"}"));
            }
            2 if cfg!(feature = "script") => {
                // Evaluates, leaves in the middle of an expression.
                assert!(ask(&path, "let all = tasks(); all.len()\n_ - _ + 42\n").ends_with("\n42\n"));
                drop(connect(&path).write_all(b"loop { sleep(0.01) }\n"));
            }
            // Leaves in the middle of an answer.
            2 | 3 => drop(connect(&path).write_all(b"where_all\nstacks\nmemory\n")),
            // Interrupts, begins a line, and goes.
            _ => assert!(ask(&path, "stacks\n\x03where \\\n").contains("coro ")),
        }
    };
    (0..200).for_each(once);
    // The server's side of the last one is closed a moment after ours.
    let alone = || ask(&path, "sessions\n").ends_with("\n1 session\n");
    util::until(PATIENCE, "all sessions are gone", alone);
    util::until(PATIENCE, "the last one is gone", || {
        let open = descriptors();
        std::thread::sleep(Duration::from_millis(20));
        descriptors() == open
    });
    let before = (descriptors(), coro::where_all().len(), resident());
    (0..rounds).for_each(once);
    util::until(PATIENCE, "all sessions are gone", alone);
    util::until(PATIENCE, "no descriptor is left behind", || descriptors() <= before.0);
    assert_eq!(coro::where_all().len(), before.1);
    let after = resident();
    assert!(after < before.2 + 8 * 1024, "{} KiB resident, {after} KiB after {rounds} sessions", before.2);
    served.server.close();
}
