//! Sessions that a signal asks for, and what attackers may try on a console: processes of their own, asked from outside.
//!
//! The client's side is that of the example `ask` (`examples/util/signal_attach.rs`).
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

#[path = "attach/hostile.rs"]
mod hostile;
#[path = "attach/leaks.rs"]
mod leaks;
#[path = "../examples/util/signal_attach.rs"]
mod signal_attach;
mod util;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use signal_attach::{Facts, attach, check};
use util::sockets::Directory;
use util::{again, role, until};

/// Only what fails takes this long.
const LONG: Duration = Duration::from_secs(30);
/// For those who will not come.
const SHORT: Duration = Duration::from_millis(600);

/// A child in one of the roles of [`child`]; ended when this goes.
struct Target {
    child: Child,
    said: Arc<Mutex<String>>,
    /// The directory in which its clients meet it.
    place: Directory,
}

impl Target {
    fn start(role: &str) -> Target {
        Target::start_as(role, |_| {})
    }

    fn start_as(role: &str, change: impl FnOnce(&mut Command)) -> Target {
        let place = Directory::new();
        let mut command = again("child", role);
        command.env("XDG_RUNTIME_DIR", &place.0).env_remove("CORO_STACK_SIGNAL").env("CORO_WORKERS", "2");
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        change(&mut command);
        let mut child = command.spawn().expect("a child");
        let said = Arc::new(Mutex::new(String::new()));
        let (into, mut stderr) = (said.clone(), BufReader::new(child.stderr.take().expect("piped")));
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        let target = Target { child, said, place };
        target.says("ready\n");
        target
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said that.
    #[track_caller]
    fn says(&self, text: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            let said = self.said();
            if said.contains(text) {
                return said;
            }
            assert!(Instant::now() < deadline, "not said: {text:?}, but\n{said}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Has it do something, and waits until that is done.
    #[track_caller]
    fn command(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{word}").expect("it reads");
        self.says(&format!("{word} done\n"));
    }

    #[track_caller]
    fn session(&self) -> Session {
        self.session_by(libc::SIGURG)
    }

    #[track_caller]
    fn session_by(&self, signal: i32) -> Session {
        match attach(self.pid(), signal, LONG, |note| panic!("{note}")) {
            Ok(stream) => Session::over(stream),
            Err(problem) => panic!("{problem}\n{}", self.said()),
        }
    }

    /// Why there is no session.
    #[track_caller]
    fn no_session(&self) -> String {
        attach(self.pid(), libc::SIGURG, SHORT, |_| {}).expect_err("no session")
    }

    /// What its descriptors are.
    fn descriptors(&self) -> Vec<OsString> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("its descriptors");
        entries.filter_map(|e| std::fs::read_link(e.ok()?.path()).ok()).map(|at| at.into_os_string()).collect()
    }

    fn has_sockets(&self) -> bool {
        self.descriptors().iter().any(|at| at.to_string_lossy().starts_with("socket:"))
    }

    fn left_in_place(&self) -> usize {
        std::fs::read_dir(self.place.at("coro")).map_or(0, Iterator::count)
    }

    /// Lets it end by itself.
    #[track_caller]
    fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        until(LONG, "the child ends", || self.child.try_wait().expect("its state").is_some());
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "{status}\n{}", self.said());
        self.said()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client's end of a session whose banner has come.
struct Session(BufReader<UnixStream>);

impl Session {
    #[track_caller]
    fn over(stream: UnixStream) -> Session {
        stream.set_read_timeout(Some(LONG)).expect("a timeout");
        let mut session = Session(BufReader::new(stream));
        let banner = session.line();
        assert!(banner.contains(" pid ") && banner.contains("help lists the commands"), "{banner:?}");
        session
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line
    }

    /// Everything that those commands, and nothing else, answer; the session ends.
    #[track_caller]
    fn ask(mut self, commands: &str) -> String {
        self.0.get_mut().write_all(commands.as_bytes()).expect("sent");
        self.0.get_mut().shutdown(Shutdown::Write).expect("half closed");
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

// ---- the processes that are asked ----

static PREVIOUS: AtomicU32 = AtomicU32::new(0);
static LATER: AtomicU32 = AtomicU32::new(0);

extern "C" fn previous(_: i32) {
    PREVIOUS.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn later(_: i32) {
    LATER.fetch_add(1, Ordering::SeqCst);
}

fn handle(signal: i32, handler: extern "C" fn(i32)) {
    // SAFETY: the handlers of this file only count.
    unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
}

fn raise(signal: i32, times: usize) {
    for _ in 0..times {
        // SAFETY: a signal to this thread, which has a handler for it.
        unsafe { libc::raise(signal) };
    }
}

/// In one piece: the runtime writes as well.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).expect("somebody reads");
}

fn ready() {
    say("ready");
}

/// Answers each line of standard input with what `act` does about it, and ends with it.
fn obey(mut act: impl FnMut(&str)) {
    for line in std::io::stdin().lines() {
        let line = line.expect("a line");
        act(&line);
        say(&format!("{line} done"));
    }
    std::process::exit(0);
}

#[inline(never)]
fn culprit_spin() {
    static STOP: AtomicBool = AtomicBool::new(false);
    while !STOP.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// Forks a child that only waits for its end, and says its number.
fn fork_a_child() -> i32 {
    // SAFETY: the child calls nothing but `pause`, which is async-signal-safe; the death signal keeps it from being left.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            loop {
                libc::pause();
            }
        }
        child
    }
}

/// No test by itself: what the other processes do.
#[test]
fn child() {
    let Some(role) = role() else { return };
    let install = || coro::console::install_signal_handler().expect("installed");
    match role.as_str() {
        "idle" => {
            install();
            install();
            ready();
            obey(|_| {});
        }
        "nothing" => {
            let runtime = util::runtime(1);
            runtime.block_on(|| {});
            ready();
            obey(|_| {});
        }
        "wedged" => {
            install();
            let runtime = util::runtime(2);
            for worker in 0..2 {
                let named = coro::Builder::new().name(format!("culprit {worker}")).worker(worker);
                runtime.block_on(move || drop(named.spawn(culprit_spin).expect("spawned")));
            }
            ready();
            obey(|_| {});
        }
        "handlers" => {
            handle(libc::SIGURG, previous);
            install();
            ready();
            let counts = || (PREVIOUS.load(Ordering::SeqCst), LATER.load(Ordering::SeqCst));
            obey(|word| match word {
                "storm" => {
                    raise(libc::SIGURG, 10_000);
                    assert_eq!(counts(), (10_000, 0));
                }
                "later" => {
                    handle(libc::SIGURG, later);
                    raise(libc::SIGURG, 5);
                    assert_eq!(counts(), (10_000, 5));
                }
                "again" => {
                    // Until ours is on top again it gets the clients' signals as well.
                    let later = counts().1;
                    raise(libc::SIGURG, 5);
                    assert_eq!(counts(), (10_000, later + 5));
                }
                other => panic!("no such word: {other}"),
            });
        }
        // Handles the signal for the stacks of what runs, and for nothing else.
        "stacks only" => {
            let runtime = util::runtime(1);
            runtime.block_on(|| drop(coro::spawn(culprit_spin)));
            until(LONG, "a stack", || coro::where_all().iter().any(|t| t.to_string().contains("culprit_spin")));
            ready();
            obey(|_| {});
        }
        "trap" => {
            coro::console::install_signal_handler_on(libc::SIGTRAP).expect("installed");
            for bad in [libc::SIGKILL, libc::SIGSEGV, libc::SIGTERM, libc::SIGINT, libc::SIGCHLD, 0, -1, 4711] {
                let error = coro::console::install_signal_handler_on(bad).expect_err("refused");
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{bad}: {error}");
            }
            ready();
            obey(|_| {});
        }
        "fork" => {
            install();
            say(&format!("early child {}", fork_a_child()));
            let runtime = util::runtime(1);
            runtime.block_on(|| {});
            say(&format!("late child {}", fork_a_child()));
            ready();
            obey(|_| {});
        }
        "reports" => {
            coro::report::set_report_handler(Some(Arc::new(|report| match report {
                coro::report::Report::Attach(text) => say(&format!("told: {text}")),
                other => say(&format!("other: {other}")),
            })));
            install();
            ready();
            obey(|_| {});
        }
        "blocked" => {
            // SAFETY: plain data; the mask of this thread, which those it starts inherit.
            unsafe {
                let mut all: libc::sigset_t = std::mem::zeroed();
                libc::sigfillset(&mut all);
                libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
            }
            install();
            ready();
            obey(|_| {});
        }
        "secrets" => leaks::secrets(),
        "names" => leaks::names(),
        other => panic!("no such role: {other}"),
    }
}

// ---- attaching ----

/// Session numbers and process numbers out of the way.
fn masked(text: &str) -> String {
    let digits = |c: char| c.is_ascii_digit();
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(digits) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c| !digits(c)).unwrap_or(from.len());
        out += before;
        out.push('N');
        rest = &from[end..];
    }
    out + rest
}

#[test]
fn a_process_whose_workers_are_all_taken_is_attached_to() {
    let target = Target::start("wedged");
    until(LONG, "no socket is left of the beginning", || !target.has_sockets());
    let idle = target.descriptors();
    let answer = target.session().ask("where_all\nworkers\nsessions\n");
    for worker in 0..2 {
        let line = answer.lines().find(|l| l.contains(&format!("culprit {worker}"))).expect(&answer);
        assert!(line.contains(" running on worker") && line.contains(" culprit_spin|"), "{answer}");
    }
    let session = answer.lines().find(|l| l.contains(" by signal for ")).expect(&answer);
    // SAFETY: takes no argument and cannot fail.
    let user = unsafe { libc::geteuid() };
    assert!(session.contains(&format!(" read unix uid {user} pid {} by signal for ", std::process::id())), "{answer}");
    let said = target.says(" ended\n");
    let told: Vec<String> = said.lines().filter(|l| l.contains("session ")).map(masked).collect();
    let who = "coro: session N (unix uid N pid N by signal)";
    assert_eq!(told, [format!("{who} began"), format!("{who} ended")], "{said}");
    until(LONG, "nothing is left", || target.descriptors().len() == idle.len() && target.left_in_place() == 0);
}

#[test]
fn nothing_is_open_while_nobody_calls() {
    for role in ["nothing", "idle"] {
        let target = Target::start(role);
        until(LONG, "no socket", || !target.has_sockets());
        assert_eq!(target.left_in_place(), 0);
    }
}

#[test]
fn sessions_are_told_to_the_report_handler_instead() {
    let target = Target::start("reports");
    assert!(target.session().ask("uptime\n").contains('\n'));
    let said = target.says(" ended\n");
    let told: Vec<String> = said.lines().filter(|l| l.contains("session ")).map(masked).collect();
    let who = "told: session N (unix uid N pid N by signal)";
    assert_eq!(told, [format!("{who} began"), format!("{who} ended")], "{said}");
}

#[test]
fn a_wrong_number_harms_nobody() {
    let nothing = Target::start("nothing");
    let name = Facts::parse(&std::fs::read_to_string(format!("/proc/{}/status", nothing.pid())).unwrap()).unwrap().name;
    let problem = nothing.no_session();
    let expected =
        "has no handler for SIGURG, and nothing was sent; does it call coro::console::install_signal_handler()?";
    assert_eq!(problem, format!("{name} {expected}"));
    // Even if it is sent.
    let process = signal_attach::open(nothing.pid()).expect("a process");
    for number in 0..100 {
        signal_attach::send(&process, libc::SIGURG, number).expect("sent");
    }
    nothing.finish();

    let other = Target::start("stacks only");
    assert_eq!(
        other.no_session(),
        "it did not connect within 0.6 s: it handles SIGURG, but not for this; it has to call \
         coro::console::install_signal_handler() first"
    );
    assert_eq!(other.left_in_place(), 0);
    drop(other);

    let mut gone = Command::new("true").spawn().expect("a process");
    gone.wait().expect("its end");
    let pid = gone.id() as i32;
    assert_eq!(attach(pid, libc::SIGURG, SHORT, |_| {}).expect_err("gone"), "there is no such process");
}

#[test]
fn what_stands_in_the_way_is_named() {
    let status = "Name:\tser\x1bver\nState:\tS (sleeping)\nPid:\t17\nTracerPid:\t0\nUid:\t1000\t1001\t1\t1\nGid:\t1\t2\t3\t4\n\
                  NSpid:\t17\t3\nSigCgt:\t0000000000400010\n";
    let facts = Facts::parse(status).expect("facts");
    assert_eq!((facts.uid, facts.gid, facts.own_pid), (1001, 2, 3));
    assert!(facts.has_handler(libc::SIGURG) && facts.has_handler(libc::SIGTRAP) && !facts.has_handler(libc::SIGUSR1));
    let verdict = |state: char, tracer: i32, signal: i32| {
        let mut noted = Vec::new();
        let facts = Facts { state, tracer, ..facts.clone() };
        let verdict = check(&facts, signal, &mut |note: &str| noted.push(note.to_owned()));
        verdict.err().unwrap_or_else(|| noted.join("\n"))
    };
    let name = "ser\\u{1b}ver";
    assert_eq!(verdict('S', 0, libc::SIGURG), "");
    assert_eq!(verdict('T', 0, libc::SIGURG), format!("{name} is stopped; let it go on first (kill -CONT)"));
    assert_eq!(verdict('t', 5, libc::SIGURG), format!("{name} is stopped by a debugger, process 5"));
    assert_eq!(verdict('Z', 0, libc::SIGURG), format!("{name} has ended"));
    let debugger = format!("a debugger, process 5, is attached to {name} and");
    assert_eq!(verdict('S', 5, libc::SIGURG), format!("{debugger} may hold up SIGURG"));
    assert_eq!(verdict('S', 5, libc::SIGTRAP), format!("{debugger} would take SIGTRAP for itself"));
    assert!(Facts::parse("Name:\tx\n").is_none());

    let target = Target::start("idle");
    // SAFETY: our own child.
    unsafe { libc::kill(target.pid(), libc::SIGSTOP) };
    until(LONG, "it stops", || target.no_session().ends_with("is stopped; let it go on first (kill -CONT)"));
    // SAFETY: as above.
    unsafe { libc::kill(target.pid(), libc::SIGCONT) };
    target.session();

    let off = Target::start_as("idle", |command| {
        command.env("CORO_BACKDOOR", "off");
    });
    let line = "coro: backdoor is off (CORO_BACKDOOR), no sessions by signal\n";
    until(LONG, "it has said so twice", || off.said().matches(line).count() == 2);
    assert!(off.no_session().ends_with(" was started with CORO_BACKDOOR=off, which forbids it"));
    off.finish();
}

#[test]
fn a_storm_of_other_signals_goes_where_it_went_before() {
    let mut target = Target::start("handlers");
    until(LONG, "no socket is left of the beginning", || !target.has_sockets());
    let before = target.descriptors().len();
    target.command("storm");
    // From outside, in between, and with values that are not the mark.
    for value in 0..1000 {
        let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
        // SAFETY: our own child, which has a handler.
        unsafe { libc::sigqueue(target.pid(), libc::SIGURG, value) };
    }
    assert_eq!(target.descriptors().len(), before);
    assert!(!target.said().contains("coro:"), "{}", target.said());
    // A signal is lost while another of its kind is pending; the client does not give up for that.
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, pid) = (stop.clone(), target.pid());
    let storm = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            // SAFETY: as above.
            unsafe { libc::kill(pid, libc::SIGURG) };
        }
    });
    assert!(target.session().ask("version\n").contains('\n'));
    stop.store(true, Ordering::Relaxed);
    storm.join().unwrap();
}

#[test]
fn a_handler_that_comes_later_is_kept_and_does_not_shut_clients_out() {
    let mut target = Target::start("handlers");
    target.command("storm");
    target.command("later");
    assert!(target.session().ask("where_all\n").contains("0 tasks"));
    target.command("again");
    assert!(target.session().ask("where_all\n").contains("0 tasks"));
    target.finish();
}

#[test]
fn a_program_that_holds_signals_back_in_all_threads_is_attached_to() {
    assert!(Target::start("blocked").session().ask("where_all\n").contains("0 tasks"));
}

#[test]
fn another_signal_can_be_chosen_and_does_what_it_did_without_the_mark() {
    let mut target = Target::start("trap");
    assert!(target.session_by(libc::SIGTRAP).ask("where_all\n").contains("0 tasks"));
    assert!(target.no_session().contains(" has no handler for SIGURG, and nothing was sent;"));
    // SAFETY: our own child.
    unsafe { libc::kill(target.pid(), libc::SIGTRAP) };
    // Not `wait`, which would have it end by itself first.
    until(LONG, "the child ends", || target.child.try_wait().expect("its state").is_some());
    assert_eq!(target.child.wait().expect("its end").signal(), Some(libc::SIGTRAP));
}

#[test]
fn several_are_attached_at_once_up_to_the_limit() {
    let target = Target::start("idle");
    for _ in 0..2 {
        assert!(target.session().ask("sessions\n").ends_with("\n1 session\n"));
        target.says(" ended\n");
        until(LONG, "it has left", || {
            target.said().matches(" ended\n").count() == target.said().matches(" began\n").count()
        });
    }
    let first: Vec<Session> = (0..7).map(|_| target.session()).collect();
    let eighth = target.session();
    let mut ninth = BufReader::new(attach(target.pid(), libc::SIGURG, LONG, |_| {}).expect("a connection"));
    let mut refusal = String::new();
    ninth.read_to_string(&mut refusal).expect("a refusal");
    assert_eq!(refusal, "coro: too many sessions, the limit is 8; end one of them first\n");
    assert!(eighth.ask("sessions\n").ends_with("\n8 sessions\n"));
    for session in first {
        assert!(session.ask("where_all\n").contains("0 tasks"));
    }
}

#[test]
fn two_hundred_sessions_leave_nothing_behind() {
    let target = Target::start("idle");
    target.session();
    until(LONG, "it has left", || target.said().contains(" ended\n"));
    let before = target.descriptors().len();
    for i in 0..200 {
        let session = target.session();
        match i % 3 {
            0 => drop(session.ask("where_all\n")),
            1 => drop(session.ask("quit\n")),
            _ => drop(session),
        }
    }
    until(LONG, "all have left", || target.said().matches(" ended\n").count() == 201);
    until(LONG, "no descriptor is left", || target.descriptors().len() == before);
    assert_eq!(target.left_in_place(), 0);
    target.finish();
}

#[test]
fn a_forked_child_does_not_answer_for_its_parent() {
    let target = Target::start("fork");
    for which in ["early", "late"] {
        let said = target.said();
        let line = said.lines().find_map(|l| l.strip_prefix(which)?.strip_prefix(" child ")).expect("its number");
        let pid: i32 = line.parse().expect("a number");
        let problem = attach(pid, libc::SIGURG, SHORT, |note| panic!("{note}")).expect_err("no session");
        assert!(
            problem.starts_with("it did not connect within 0.6 s: it handles SIGURG, but not for this;"),
            "{problem}"
        );
    }
    assert!(target.session().ask("where_all\n").contains("0 tasks"));
    let said = target.says(" ended\n");
    assert!(!said.contains("refused"), "{said}");
}

/// The process itself, to send it something else than a client would.
fn by_hand(target: &Target) -> OwnedFd {
    signal_attach::open(target.pid()).expect("a process")
}
