//! One client's whole input against the shipped backdoor: its real socket, console thread, sessions and commands, over a
//! runtime with a few tasks, some of them with names that a terminal would obey. A task and a plain thread pass probe points and
//! use a socket all the time, with values of that kind too, so that what an input attaches tells lines.
//!
//! What must hold for any input: the session ends after the end of input, within time; it answers in whole lines of
//! UTF-8 text, and so do its probes; nothing of the input, of the tasks' names or of what passes comes back in a form that steers a
//! terminal; of telnet, options are refused and nothing else is said; and what the session watched or held up goes with it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coro::net::unix::UnixDatagram;
use coro::probe::{Point, Shown};

/// What goes with a session has gone so soon after its end, however busy the machine is.
const SOON: Duration = Duration::from_secs(5);

/// The socket of the one server, which lives as long as the process.
fn server() -> &'static PathBuf {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| {
        let runtime = coro::Runtime::builder().workers(1).build().expect("a runtime");
        runtime.block_on(|| {
            let lock = std::sync::Arc::new(coro::sync::Mutex::new(()));
            for name in ["plain", "", "a\x1b[2Jb", "two\nlines", "\u{202e}back", "tab\tbell\x07"] {
                let lock = lock.clone();
                coro::spawn_named(name, move || {
                    let _held = lock.lock();
                    coro::sleep(Duration::from_secs(1 << 30));
                });
            }
            coro::sleep(Duration::from_millis(20));
        });
        let directory = std::env::temp_dir().join(format!("coro-fuzz-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&directory).expect("a private directory");
        pass_for_ever(runtime, &directory);
        coro::console::register("fuzz.twice", "", |text: String| format!("{text}{text}"));
        coro::console::register_value("fuzz.value", "", || vec![1, 2, 3]);
        let server = coro::backdoor::Builder::new().unix(directory.join("s"));
        // What an input computes or sleeps is not what is looked for.
        let server = server.expression_limit(Duration::from_millis(100)).serve().expect("a backdoor");
        server.path().to_owned()
    })
}

/// A call with a mark within; its result is what it was given.
#[coro::probe]
fn look_up(key: &str, n: u64) -> Result<String, String> {
    coro::probe::mark!("looked", key = key, odd = n % 2);
    if n.is_multiple_of(3) { Err(format!("no {key}")) } else { Ok(key.to_owned()) }
}

/// How often somebody has been all the way round: the task and the plain thread.
static ROUNDS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// What a terminal would obey, or take for another line.
const EVIL: [&str; 4] = ["\x1b]0;x\x07", "two\nlines\r", "\u{202e}back\u{9b}2J", "plain \"quoted\" 'text'"];

fn pass_for_ever(runtime: coro::Runtime, directory: &Path) {
    let calls = Point::register("fuzz::\x1b[2Jcall\n", &["text", "n"]);
    let bytes = Point::register("fuzz::bytes", &["\u{202e}data"]);
    // A peer is called by its path.
    let socket = directory.join("peer\x1b[31m\n");
    let pass = move |round: u64| {
        let text = EVIL[round as usize % EVIL.len()];
        let _ = look_up(text, round);
        calls.call(&[Shown::Text(text), Shown::Int(round as i64)], || ());
        bytes.call(&[Shown::Bytes(text.as_bytes(), text.len())], || ());
        coro::breakpoint!(text = text);
    };
    let task = move || {
        // Another that was cancelled in the middle has left it.
        let _ = std::fs::remove_file(&socket);
        let (Ok(receiver), Ok(sender)) = (UnixDatagram::bind(&socket), UnixDatagram::unbound()) else { return };
        let Ok(()) = sender.connect(&socket) else { return };
        loop {
            let round = ROUNDS[0].fetch_add(1, Ordering::Relaxed);
            pass(round);
            let _ = sender.send(EVIL[round as usize % EVIL.len()].as_bytes());
            let _ = receiver.recv_from(&mut [0; 100]);
            coro::sleep(Duration::from_millis(1));
        }
    };
    // An input may cancel it.
    let start = move || runtime.block_on(|| coro::spawn_named(EVIL[0], task.clone()));
    std::thread::spawn(move || {
        let mut running = start();
        loop {
            pass(ROUNDS[1].fetch_add(1, Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(1));
            if running.is_finished() {
                running = start();
            }
        }
    });
}

/// Waits for what a session leaves to its end: nothing is watched, and nobody stands at a breakpoint.
fn nothing_is_left(input: &[u8]) {
    static POINTS: OnceLock<Vec<&'static Point>> = OnceLock::new();
    let until = Instant::now() + SOON;
    let soon = |what: &str, is: &dyn Fn() -> bool| {
        while !is() {
            assert!(Instant::now() < until, "{what} after the session has ended");
            std::thread::sleep(Duration::from_micros(200));
        }
    };
    let points = POINTS.get_or_init(coro::probe::points);
    soon("a point is watched", &|| points.iter().all(|point| !point.is_watched()));
    // Only these words hold anybody up.
    if input.windows(5).any(|w| w == b"break") {
        for rounds in &ROUNDS {
            let before = rounds.load(Ordering::Relaxed);
            soon("somebody stands still", &|| rounds.load(Ordering::Relaxed) != before);
        }
    }
}

/// The answer without what refuses the options of telnet: three bytes each, which may stand anywhere but in a character.
fn without_telnet(mut answer: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(answer.len());
    while let Some(at) = answer.iter().position(|byte| *byte == 255) {
        text.extend_from_slice(&answer[..at]);
        let reply = answer.get(at..at + 3).expect("a whole reply");
        assert!(matches!(reply[1], 251 | 252 | 254), "no reply of telnet: {reply:?}");
        answer = &answer[at + 3..];
    }
    text.extend_from_slice(answer);
    text
}

/// Talks to the backdoor as a client with that input does, and looks at the answer, which it returns.
pub(crate) fn check(input: &[u8]) -> String {
    let client = UnixStream::connect(server()).expect("a connection");
    // A session that neither answers nor ends is a hang, and shows as an error here.
    client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    let mut answer = Vec::new();
    std::thread::scope(|s| {
        // Written beside the reading: either side may be full. A session that ends early (quit) is no error.
        s.spawn(|| {
            let _ = (&client).write_all(input);
            let _ = client.shutdown(Shutdown::Write);
        });
        match (&client).read_to_end(&mut answer) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(e) => panic!("no end of the answer: {e}"),
        }
    });
    let answer = without_telnet(&answer);
    let text = String::from_utf8(answer).expect("the answer is UTF-8");
    assert!(text.lines().next().is_some_and(|l| l.contains(" pid ") && l.contains("coro ")), "no banner: {text:?}");
    assert!(text.ends_with('\n'), "not whole lines: {text:?}");
    // The two words for colours are the only ones that may bring escapes.
    let coloured = input.windows(5).any(|w| w == b"--col");
    let steers = |c: char| c.is_control() && c != '\n' && !(coloured && c == '\x1b');
    assert!(!text.contains(steers), "control characters: {text:?}");
    assert!(!text.contains('\u{202e}'), "a name changed the writing direction: {text:?}");
    nothing_is_left(input);
    text
}
