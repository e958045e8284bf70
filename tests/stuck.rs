//! What one sees of a process in trouble: the example `stuck` in each of its situations, asked through its backdoor and by
//! signal.
//!
//! Answers are compared with the files in `tests/stuck/`, ids, times, sizes and line numbers masked. After a change of the
//! texts that is wanted: `CORO_BLESS=1 cargo test --test stuck`, and read what has changed. That also puts real output into
//! `docs/situations.md` and `docs/oncall.md`, whose lines are compared with those files.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod util;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use util::sockets::Directory;

/// Only what fails takes this long, and a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// By then a situation that is there looks as it will for ever.
const SETTLED: Duration = Duration::from_secs(3);
const STARTS: usize = 4;

/// The example in one situation; ended when this goes.
struct Stuck {
    child: Child,
    socket: PathBuf,
    errors: Arc<Mutex<String>>,
    _directory: Directory,
}

impl Stuck {
    fn start(situation: &str, signal: &str) -> Stuck {
        let mut program = std::env::current_exe().expect("a test knows its own path");
        program.pop();
        program.pop();
        program.push("examples/stuck");
        assert!(program.exists(), "{} is missing; build it first: cargo build --examples", program.display());
        let directory = Directory::new();
        let socket = directory.at("b.sock");
        let mut command = Command::new(program);
        command.args([situation, "--seconds", "300", "--backdoor"]).arg(&socket);
        command.env_remove("CORO_BACKDOOR").env_remove("CORO_STACK_GUARDS").env_remove("CORO_LATENCY_MS");
        command.env("CORO_WORKERS", "2").env("CORO_DUMP_SIGNAL", signal).env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let errors = Arc::new(Mutex::new(String::new()));
        let lines = errors.clone();
        std::thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                lines.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        let mut first = String::new();
        BufReader::new(stdout).read_line(&mut first).expect("text");
        assert!(first.starts_with("backdoor on "), "{situation} said {first:?}, {:?}", errors.lock().unwrap());
        Stuck { child, socket, errors, _directory: directory }
    }

    /// The answer without the banner.
    fn ask(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the backdoor answers");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(format!("{command}\n").as_bytes()).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split_once('\n').expect("a banner").1.to_owned()
    }

    fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    fn signal(&self, signal: libc::c_int) {
        // SAFETY: our own child, not yet waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as libc::pid_t, signal) }, 0);
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without what is said of stalls, which hangs on how busy the machine is and on when one asks.
fn without_stalls(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.starts_with("stalls ")).collect()
}

/// Without the frames of libraries, which differ from system to system and from moment to moment.
fn own_frames(text: &str) -> String {
    const OURS: &[&str] = &["examples/", "sync/", "time/", "scheduler/"];
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('[') {
        let (before, frame) = rest.split_at(at);
        let end = frame.find(']').map_or(frame.len(), |at| at + 1);
        out.push_str(before);
        let is_frame = frame[..end].contains('|') && !frame[..end].contains('\n');
        if !is_frame || OURS.iter().any(|folder| frame[1..].starts_with(folder)) {
            out.push_str(&frame[..end]);
            rest = &frame[end..];
        } else {
            rest = frame[end..].strip_prefix(' ').unwrap_or(&frame[end..]);
        }
    }
    out + rest
}

/// Numbers that differ from run to run, by what stands before and after them.
fn mask(text: &str) -> String {
    let text = &own_frames(&without_stalls(text));
    let bytes = text.as_bytes();
    let (mut out, mut at) = (String::new(), 0);
    while at < text.len() {
        let rest = &text[at..];
        if !bytes[at].is_ascii_digit() || at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
            let c = rest.chars().next().expect("not at the end");
            out.push(c);
            at += c.len_utf8();
            continue;
        }
        let mut end = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ','))).unwrap_or(rest.len());
        while rest[..end].ends_with(['.', ',']) {
            end -= 1;
        }
        let (before, after) = (&text[..at], &rest[end..]);
        let unit = |units: &[&str]| {
            let word = after.strip_prefix(' ').unwrap_or(after);
            let len = word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
            units.contains(&&word[..len]).then_some(after.len() - word.len() + len)
        };
        let (with, more) = if before.ends_with('#') {
            ("N", 0)
        } else if before.ends_with(".rs:") || before.ends_with('|') && after.starts_with(']') {
            ("L", 0)
        } else if before.ends_with("fd ")
            || ["thread ", "pid ", "where ", "watcher of request "].iter().any(|w| before.ends_with(w))
        {
            ("N", 0)
        } else if before.ends_with("127.0.0.1:") {
            ("PORT", 0)
        } else if let Some(len) = unit(&["us", "ms", "s", "ns"]) {
            ("T", len)
        } else if let Some(len) = unit(&["B", "KiB", "MiB", "GiB"]) {
            ("S", len)
        } else if [" pooled", " descriptors open", " allowed"].iter().any(|w| after.starts_with(w)) {
            ("N", 0)
        } else if after.starts_with('%') {
            ("P", 0)
        } else {
            (&rest[..end], 0)
        };
        out.push_str(with);
        at += end + more;
    }
    out
}

#[test]
fn masking_takes_what_differs_and_leaves_what_counts() {
    let masked = mask(
        "#17 parked 3.2s \"bot 3\" fd 9 → 127.0.0.1:5432 [examples/a.rs f|12] a.rs:7 12 ms, 1,234 tasks 1.5 KiB 7% x86_64 0x1f",
    );
    assert_eq!(
        mask("  [linux/read.c read|12] [std/sys File::read|7] [examples/a.rs f|1]\n"),
        "  [examples/a.rs f|L]\n"
    );
    assert_eq!(
        masked,
        "#N parked T \"bot 3\" fd N → 127.0.0.1:PORT [examples/a.rs f|L] a.rs:L T, 1,234 tasks S P% x86_64 0x1f"
    );
}

/// Asks until the answers are as they are written down: a situation takes a moment to come about, and once in a while a
/// bystander is caught between two states for good, which the next start does not repeat.
fn golden(situation: &str, ready: &str, commands: &[&str]) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/stuck/{situation}.txt"));
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    let bless = std::env::var_os("CORO_BLESS").is_some();
    let (mut seen, mut real) = (String::new(), String::new());
    for _ in 0..if bless { 1 } else { STARTS } {
        let stuck = Stuck::start(situation, "QUIT");
        let deadline = Instant::now() + PATIENCE;
        while !stuck.ask("status").contains(ready) {
            if Instant::now() > deadline {
                return Err(format!("{situation}: {ready:?} is not in status:\n{}", stuck.ask("status")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let (deadline, mut rounds) = (Instant::now() + SETTLED, 0);
        while rounds < 3 || Instant::now() < deadline {
            rounds += 1;
            real.clear();
            for command in commands {
                let _ = write!(real, "> {command}\n{}\n", stuck.ask(command));
            }
            seen = mask(&real);
            if seen == wanted && !bless {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    if bless {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder of goldens");
        std::fs::write(&path, seen).expect("written");
        PAGES.iter().for_each(|page| rewrite_page(page, situation, &real));
        return Ok(());
    }
    Err(format!("{situation} looks different from {}:\n{}", path.display(), difference(&wanted, &seen)))
}

const PAGES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/docs/situations.md"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/docs/oncall.md"),
];

/// The lines of a page's outputs, each with the situation, the command that it answers, and where it stands.
fn outputs(page: &str) -> Vec<(String, String, usize)> {
    let (mut all, mut situation, mut command, mut within) = (Vec::new(), String::new(), String::new(), false);
    for (at, line) in page.lines().enumerate() {
        if line.starts_with("## ") {
            situation = line.split("`stuck ").nth(1).unwrap_or_default().trim_end_matches('`').to_owned();
        } else if line.starts_with("```") {
            within = line == "```text";
            command.clear();
        } else if let Some(asked) = line.strip_prefix("> ").filter(|_| within) {
            command = asked.to_owned();
        }
        if within && !command.is_empty() {
            all.push((situation.clone(), command.clone(), at));
        }
    }
    all
}

/// What was answered to that command.
fn answer<'t>(text: &'t str, command: &str) -> &'t str {
    let head = format!("> {command}\n");
    let begin = text.find(&head).map_or(text.len(), |at| at + head.len());
    let end = text[begin..].find("\n\n").map_or(text.len(), |at| begin + at);
    &text[begin..end]
}

/// Puts what was answered into a page: all of it, but of `status` only the lines that were there before, if any were.
fn rewrite_page(path: &str, situation: &str, real: &str) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap();
    let page = std::fs::read_to_string(path).expect("the page");
    let outputs = outputs(&page);
    let lines: Vec<&str> = page.lines().collect();
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        let output = outputs.iter().find(|(s, _, place)| *place == at && s == situation);
        let Some((_, command, _)) = output else {
            let _ = writeln!(out, "{line}");
            continue;
        };
        if !line.starts_with("> ") {
            continue;
        }
        let _ = writeln!(out, "{line}");
        let is_of = |place: &usize| outputs.iter().any(|(s, c, p)| p == place && s == situation && c == command);
        let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        let old: Vec<String> = (at + 1..lines.len()).take_while(is_of).map(|p| first(lines[p])).collect();
        let wanted = |line: &&str| command != "status" || old.is_empty() || old.contains(&first(line));
        answer(real, command).lines().filter(wanted).for_each(|line| {
            let _ = writeln!(out, "{line}");
        });
    }
    std::fs::write(path, out).expect("written");
}

#[test]
fn the_pages_show_what_the_example_answers() {
    let pages = PAGES.map(|path| std::fs::read_to_string(path).expect("the page"));
    let all = pages.each_ref().map(|page| outputs(page));
    for (name, ..) in SITUATIONS {
        assert!(all.iter().flatten().any(|(situation, ..)| situation == name), "no output of {name} on any page");
    }
    for (page, outputs) in pages.iter().zip(all) {
        check_page(page, outputs);
    }
}

#[test]
fn an_incident_takes_three_commands_at_most() {
    let page = std::fs::read_to_string(PAGES[1]).expect("the page");
    let incidents: Vec<&str> = page.split("\n## ").skip(1).filter(|part| part.contains("`stuck ")).collect();
    assert_eq!(incidents.len(), 8);
    for incident in incidents {
        let commands = incident.lines().filter(|line| line.starts_with("> ")).count();
        assert!((1..=3).contains(&commands), "{commands} commands:\n{incident}");
    }
}

/// Every line that answers something stands in the situation's file.
fn check_page(page: &str, outputs: Vec<(String, String, usize)>) {
    let lines: Vec<&str> = page.lines().collect();
    for (situation, command, at) in outputs {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/stuck/{situation}.txt"));
        let golden = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let line = mask(&format!("{}\n", lines[at]));
        if let Some(said) = lines[at].strip_prefix("stalls ") {
            // How many there are hangs on the machine, its words do not.
            let said = said.trim();
            let (many, rest) = said.split_once(", the last ").unwrap_or_else(|| panic!("line {}: {said}", at + 1));
            let many = many.trim_start_matches(|c: char| c.is_ascii_digit() || c == ',');
            assert!([" slice was too long", " slices were too long"].iter().any(|w| many.starts_with(w)), "{said}");
            assert!(rest.contains(" ago at ") && rest.ends_with("  → stalls"), "line {}: {said}", at + 1);
        }
        let told = line.is_empty()
            || line.starts_with("> ")
            || answer(&golden, &command).lines().any(|l| l == line.trim_end());
        assert!(told, "line {} is not what {situation} answers to {command}:\n{}", at + 1, lines[at]);
    }
}

/// Lines of either that the other does not have.
fn difference(wanted: &str, seen: &str) -> String {
    let lines = |of: &str, not_in: &str, sign: &str| -> String {
        let others: Vec<&str> = not_in.lines().collect();
        of.lines().filter(|l| !others.contains(l)).map(|l| format!("{sign} {l}\n")).collect()
    };
    lines(wanted, seen, "-") + &lines(seen, wanted, "+")
}

/// What is asked of each situation, once a word of `status` says that it is there.
const SITUATIONS: &[(&str, &str, &[&str])] = &[
    ("spin", "WEDGED", &["status", "stacks"]),
    ("all-workers", "WEDGED     worker 1", &["status", "stacks"]),
    ("std-sleep", "WEDGED", &["status", "stacks"]),
    ("blocking-read", "WEDGED", &["status", "stacks"]),
    ("std-mutex", "WEDGED", &["status", "stacks"]),
    ("deadlock", "DEADLOCK", &["status", "deadlocks", "stacks"]),
    ("lost-sender", "recv", &["status", "stacks", "objects"]),
    ("panic-half-caught", "panics ", &["status", "panics"]),
    ("hot-lock", "19 lock", &["status", "stacks", "objects"]),
    ("fd-leak", "FILES", &["status", "fds", "peers", "events"]),
    ("task-leak", "500 recv", &["status", "stacks", "tree", "objects"]),
    ("slow-downstream", "20 read", &["status", "stacks", "peers"]),
    ("panic-loop", "100 panics", &["status", "panics"]),
    ("memory-growth", "queues", &["status", "stacks", "objects"]),
];

#[test]
fn every_situation_looks_as_it_is_written_down() {
    // A few at a time: each of them names functions of the C library, which keeps a CPU for a while.
    let next = AtomicUsize::new(0);
    let look = || {
        let mut failures = Vec::new();
        while let Some((situation, ready, commands)) = SITUATIONS.get(next.fetch_add(1, Ordering::Relaxed)) {
            failures.extend(golden(situation, ready, commands).err());
        }
        failures
    };
    let failures: Vec<String> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4).map(|_| s.spawn(look)).collect();
        threads.into_iter().flat_map(|t| t.join().expect("a situation can be looked at")).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn overflow_names_the_task_and_ends_the_process() {
    let mut stuck = Stuck::start("overflow", "");
    let status = {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = stuck.child.try_wait().expect("our child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", stuck.errors());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // Without names after three seconds, the alarm ends it; the first line has come by then.
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert!(matches!(signal, Some(libc::SIGABRT | libc::SIGALRM)), "{status}:\n{}", stuck.errors());
    let frames = if signal == Some(libc::SIGABRT) { 20 } else { 0 };
    util::until(PATIENCE, "the report is read", || {
        let text = stuck.errors();
        text.contains("192 KiB") && text.matches("visit").count() >= frames
    });
    let text = stuck.errors();
    assert!(text.contains("\"recursion\"") && text.contains("192 KiB"), "{text}");
}

#[test]
fn a_signal_shows_status_and_stacks_while_every_worker_spins_and_the_program_goes_on() {
    let stuck = Stuck::start("all-workers", "sigquit");
    util::until(PATIENCE, "both spin", || stuck.ask("status").matches("WEDGED").count() == 2);
    for n in 1..=2 {
        stuck.signal(libc::SIGQUIT);
        let end = "coro: end of the dump of pid";
        util::until(PATIENCE, "a dump ends", || stuck.errors().matches(end).count() == n);
    }
    let text = stuck.errors();
    for part in ["coro: dump of pid", "tasks ", "WEDGED     worker 0", "WEDGED     worker 1", "bystander", "memory "] {
        assert!(text.matches(part).count() >= 2, "{part:?} is missing:\n{text}");
    }
    // Three at once are one dump, or two: what comes while one is written leads to one more.
    for _ in 0..3 {
        stuck.signal(libc::SIGQUIT);
    }
    util::until(PATIENCE, "one more", || stuck.errors().matches("coro: end of the dump").count() >= 3);
    assert!(stuck.ask("status").contains("WEDGED"));
}

#[test]
fn a_name_that_is_no_signal_is_told_once_with_what_can_be_written_instead() {
    for bad in ["KILL", "SIGSEGV", "NONSENSE\x1b"] {
        let stuck = Stuck::start("spin", bad);
        util::until(PATIENCE, "the line is read", || stuck.errors().contains('\n'));
        let text = stuck.errors();
        let shown = bad.replace('\x1b', "\\u{1b}");
        assert!(text.starts_with(&format!("coro: CORO_DUMP_SIGNAL={shown}: not the name of a signal")), "{text:?}");
        assert!(text.contains("choose one of QUIT, USR1, USR2, HUP"), "{text:?}");
    }
}

#[test]
fn signals_that_are_needed_otherwise_are_refused() {
    for bad in [libc::SIGKILL, libc::SIGSEGV, libc::SIGTERM, libc::SIGINT, libc::SIGURG, 0, -1, 4711] {
        let error = coro::inspect::dump_on(bad).expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("choose one of QUIT"), "{error}");
    }
}

/// An allocator with a lock that can be held for ever.
struct Held;

static HOLD: AtomicBool = AtomicBool::new(false);

// SAFETY: passes everything on.
unsafe impl GlobalAlloc for Held {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        while HOLD.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        // SAFETY: forwarded.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: forwarded.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Held = Held;

#[inline(never)]
fn hold_the_allocator() {
    HOLD.store(true, Ordering::SeqCst);
    // SAFETY: a plain call, which allocates nothing; nor does what follows.
    unsafe { libc::raise(libc::SIGUSR1) };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        std::hint::spin_loop();
    }
    HOLD.store(false, Ordering::SeqCst);
}

#[test]
fn with_the_allocators_lock_held_a_raw_report_comes() {
    const NAME: &str = "with_the_allocators_lock_held_a_raw_report_comes";
    if util::role().is_some() {
        coro::inspect::dump_on(libc::SIGUSR1).expect("a signal to dump on");
        coro::run(|| {
            let parked = coro::Builder::new().name("parked").spawn(coro::park).expect("a task");
            let holder = coro::Builder::new().name("holder").spawn(hold_the_allocator);
            let _ = holder.expect("a task").join();
            parked.task().unpark();
        });
        // The dump that was held up comes as well, now that it can.
        std::thread::sleep(Duration::from_millis(500));
        return;
    }
    // On a busy machine a thread may not answer the signal in time; the report then says so with `[...]`.
    let answered = |text: &str| text.lines().any(|l| l.contains("runs #") && !l.ends_with("[...]"));
    let mut text = util::passes(NAME, "held", PATIENCE);
    for _ in 0..2 {
        if !answered(&text) {
            text = util::passes(NAME, "held", PATIENCE);
        }
    }
    let raw = text.find("coro: the dump stands still").unwrap_or_else(|| panic!("no raw report:\n{text}"));
    let line = text.lines().find(|l| l.contains("runs #")).unwrap_or_else(|| panic!("no worker is named:\n{text}"));
    assert!(line.starts_with("coro: worker ") && line.contains(", state R"), "{line}");
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        // The culprit's own frames, followed to the task's base.
        assert!(line.contains("hold_the_allocator+0x") && !line.ends_with("[...]"), "{line}");
    }
    let other = text.lines().find(|l| l.starts_with("coro: #") && l.contains("\"parked\""));
    assert!(other.is_some_and(|l| l.contains(" parked ") && l.contains(" park [") && !l.ends_with("[...]")), "{text}");
    assert!(text.find("coro: end of the dump").is_none_or(|end| end > raw), "{text}");
}
