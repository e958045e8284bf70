//! What a session with the tier `probe` cannot do to the program and to other sessions.
#![cfg(all(target_os = "linux", not(miri)))]

mod util;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coro::probe::{Point, Shown};
use util::sockets::Directory;
use util::{runtime, until, within};

const LIMIT: Duration = Duration::from_secs(60);

/// A program of four tasks that pass a point all the time, and its backdoor.
struct Program {
    directory: Directory,
    point: &'static Point,
    passed: Arc<AtomicU64>,
}

impl Program {
    /// What each of its calls has as its arguments: a number that never comes again, and this text.
    fn is_asked(name: &str, text: &'static str, asks: impl FnOnce(&Program) + Send + 'static) {
        let point = Point::register(name, &["n", "text"]);
        within(LIMIT, move || {
            let program = Program { directory: Directory::new(), point, passed: Arc::default() };
            let stop = Arc::new(AtomicBool::new(false));
            let runtime = runtime(2);
            let server = coro::backdoor::serve(program.path()).expect("a backdoor");
            let tasks: Vec<_> = (0..4)
                .map(|_| {
                    let (passed, stop) = (program.passed.clone(), stop.clone());
                    runtime.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            let n = passed.fetch_add(1, Ordering::Relaxed) as i64;
                            point.call(&[Shown::Int(n), Shown::Text(text)], || ());
                            if n % 16 == 0 {
                                coro::sleep(Duration::from_millis(1));
                            }
                        }
                    })
                })
                .collect();
            asks(&program);
            stop.store(true, Ordering::Relaxed);
            tasks.into_iter().for_each(|task| task.join().expect("no panic"));
            drop(server);
        });
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.at("s")
    }

    /// A session that has said this, and stays.
    fn session(&self, said: &str) -> UnixStream {
        let mut session = UnixStream::connect(self.path()).expect("a session");
        session.set_read_timeout(Some(LIMIT)).expect("a limit");
        session.write_all(format!("enable probe\n{said}\n").as_bytes()).expect("sent");
        session
    }

    fn goes_on(&self, what: &str) {
        let before = self.passed.load(Ordering::Relaxed);
        until(LIMIT / 4, what, || self.passed.load(Ordering::Relaxed) > before + 100);
    }

    fn nothing_is_left(&self) {
        until(LIMIT / 4, "nothing of it is left", || !self.point.is_watched());
        self.goes_on("the program goes on");
    }
}

/// What another session is answered.
fn ask(path: &Path, line: &str) -> String {
    let mut session = UnixStream::connect(path).expect("a session");
    session.set_read_timeout(Some(LIMIT)).expect("a limit");
    writeln!(session, "{line}").expect("sent");
    session.shutdown(Shutdown::Write).expect("its end");
    let mut answer = String::new();
    session.read_to_string(&mut answer).expect("an answer");
    answer.split_once('\n').expect("a greeting").1.to_owned()
}

/// The lines of a session up to the one that begins so, which is not among them.
fn lines_before(session: &UnixStream, end: &str) -> Vec<String> {
    let lines = BufReader::new(session).lines().map(|line| line.expect("a line"));
    lines.take_while(|line| !line.starts_with(end)).collect()
}

#[test]
fn a_session_has_a_hundred_probes_and_no_more() {
    Program::is_asked("attacks_many::call", "", |program| {
        // Also those that wait for a point, and traces.
        let kinds = ["probe attach attacks_many::call count", "probe attach attacks_nobody::* log later", "trace net"];
        let many: Vec<&str> = kinds.into_iter().cycle().take(1000).collect();
        let mut session = program.session(&many.join("\n"));
        session.write_all(b"uptime\n").expect("sent");
        let lines = lines_before(&session, "up ");
        let refused = "not attached: this session has 100 probes, and no session has more; probe detach ends one";
        let attached = lines.iter().filter(|line| line.starts_with("probe ") && line.contains("with this session"));
        assert_eq!((attached.count(), lines.iter().filter(|line| *line == refused).count()), (100, 900));
        program.goes_on("the program goes on beside all of them");
        // Another one has its own, and this one has room again for each that ends.
        assert!(ask(&program.path(), "enable probe\nprobe attach attacks_many::call count").contains("probe "));
        session.write_all(b"trace off\nprobe attach attacks_many::call rate\nuptime\n").expect("sent");
        assert!(lines_before(&session, "up ").iter().any(|line| line.contains(": rate, for ")));
        drop(session);
        program.nothing_is_left();
    });
}

#[test]
fn patterns_that_match_nearly_are_found_out_soon() {
    Program::is_asked("attacks_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa::call", "", |program| {
        let stars = "*a".repeat(2000) + "b";
        let several = "*a*a*a*a*b|".repeat(360);
        let nearly = "a".repeat(4000);
        for pattern in [stars, several, nearly, "*".repeat(4000) + "b", "::".repeat(2000), "|".repeat(4000)] {
            let begun = Instant::now();
            let answer = ask(&program.path(), &format!("probe list {pattern}"));
            assert!(answer.starts_with("no probe point is called "), "{answer}");
            let attach = format!("enable probe\nprobe attach {pattern} log");
            assert!(ask(&program.path(), &attach).contains("no probe point is called "));
            // Thousands of times what it takes.
            assert!(begun.elapsed() < Duration::from_secs(10), "{} took {:?}", &pattern[..20], begun.elapsed());
        }
    });
}

#[test]
fn lines_for_a_session_that_never_reads_take_bounded_room_and_it_is_let_go() {
    static TEXT: &str =
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    Program::is_asked("attacks_flood::call", TEXT, |program| {
        let session = program.session("probe attach attacks_flood::call log(call,end)");
        let lost = || {
            let shown = ask(&program.path(), "probe show");
            let id =
                shown.lines().find(|line| line.contains(" attacks_flood::call: ") && line.ends_with("of a session"));
            let id = id.and_then(|line| line.split(' ').next())?.to_owned();
            let one = ask(&program.path(), &format!("probe show {id}"));
            let (told, lost) = one.split_once("log ")?.1.split_once(" lines, and ")?;
            Some((told.parse::<u64>().ok()?, lost.split(' ').next()?.parse::<u64>().ok()?))
        };
        let mut first = None;
        until(LIMIT / 2, "there is no more room", || {
            first = lost();
            first.is_some()
        });
        program.goes_on("the program goes on");
        if let (Some((told, _)), Some((later, _))) = (first, lost()) {
            // A quarter of a MiB here, less in the session and in the socket, 150 bytes a line.
            assert!(told < 20_000 && later < 20_000, "{told}, then {later} lines were kept for it");
        }
        // Ten seconds in which it takes nothing: it is dropped, and what it watched with it.
        until(LIMIT / 2, "it is let go", || !program.point.is_watched());
        program.nothing_is_left();
        drop(session);
    });
}

#[test]
fn all_tasks_at_a_breakpoint_go_on_when_the_session_is_gone() {
    Program::is_asked("attacks_break::call", "", |program| {
        let standing = |program: &Program| {
            let tasks = ask(&program.path(), "tasks wait=breakpoint");
            tasks.lines().filter(|line| line.trim_start().starts_with('#')).count()
        };
        let session =
            program.session("probe attach attacks_break::call break\nprobe attach attacks_break::call break(end)");
        // The console is a thread of its own: it answers while nobody moves.
        until(LIMIT / 4, "all stand there", || standing(program) == 4);
        let before = program.passed.load(Ordering::Relaxed);
        assert!(ask(&program.path(), "status").contains("4 breakpoint"));
        assert_eq!(program.passed.load(Ordering::Relaxed), before);
        // As a client that was killed leaves it: nothing is said, and what was not read is thrown away.
        drop(session);
        program.nothing_is_left();
        assert_eq!(standing(program), 0);
    });
}
