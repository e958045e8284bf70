//! Probes from a console session: listed, attached, looked at, and gone with the session.
#![cfg(all(target_os = "linux", not(miri)))]

#[path = "probe/session.rs"]
mod session;
mod util;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use session::Session;
use util::sockets::Directory;
use util::{until, within};

const LIMIT: Duration = Duration::from_secs(60);

mod app {
    #[coro::probe]
    pub(crate) fn lookup(key: &str, n: u64) -> Option<u64> {
        coro::probe::mark!("checked", long = key.len() > 3);
        (!key.is_empty()).then_some(n)
    }

    #[coro::probe]
    pub(crate) fn pay(cents: u64) -> Result<u64, String> {
        Ok(cents)
    }

    #[coro::probe]
    pub(crate) fn store(key: &str) {
        let _ = key;
    }
}

/// Without what cannot be known: numbers are N, and what a call took is left away.
fn masked(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_digit() && c != '.') {
        let number = part.trim_end_matches(|c: char| !c.is_ascii_digit());
        let known = !number.starts_with(|c: char| c.is_ascii_digit());
        out.push_str(if known { part } else { "N" });
        out.push_str(if known { "" } else { &part[number.len()..] });
    }
    out.split(" in ").next().unwrap_or_default().to_owned()
}

static CALLS: AtomicU64 = AtomicU64::new(0);
/// What was paid that was not asked for.
static PAID: Mutex<Vec<Result<u64, String>>> = Mutex::new(Vec::new());
static STOP: AtomicBool = AtomicBool::new(false);

/// A server under load, and somebody who asks it.
fn beside_a_program(asks: impl FnOnce(&Path) + Send + 'static) {
    within(LIMIT, || {
        let directory = Directory::new();
        let path = directory.at("s");
        let server_path = path.clone();
        let server = std::thread::spawn(move || {
            coro::runner().workers(2).run(move || {
                let backdoor = coro::backdoor::serve(&server_path).expect("a backdoor");
                let tasks: Vec<_> = (0..4u64)
                    .map(|i| {
                        coro::spawn(move || {
                            let mut n = i;
                            while !STOP.load(Ordering::Relaxed) {
                                n += 1;
                                let key = if n.is_multiple_of(10) { "rare" } else { "a" };
                                assert_eq!(app::lookup(key, n), Some(n));
                                app::store(key);
                                match app::pay(n) {
                                    Ok(paid) if paid == n => {}
                                    other => PAID.lock().expect("no poison").push(other),
                                }
                                CALLS.fetch_add(1, Ordering::Relaxed);
                                coro::sleep(Duration::from_millis(1));
                            }
                        })
                    })
                    .collect();
                tasks.into_iter().for_each(|task| task.join().expect("no panic"));
                drop(backdoor);
            });
        });
        until(LIMIT, "it listens", || UnixStream::connect(&path).is_ok());
        asks(&path);
        STOP.store(true, Ordering::Relaxed);
        server.join().expect("it ends");
    });
}

#[test]
fn probes_are_listed_attached_looked_at_and_gone_with_their_session() {
    beside_a_program(|path| {
        let mut session = Session::open(path);
        let listed: Vec<String> = session.ask("probe list").iter().map(|line| masked(line)).collect();
        assert_eq!(
            listed,
            [
                "probe_console::app::checked mark long  tests/probe_console.rs:N",
                "probe_console::app::lookup(key, n)  tests/probe_console.rs:N",
                "probe_console::app::pay(cents)  tests/probe_console.rs:N",
                "probe_console::app::store(key)  tests/probe_console.rs:N",
            ]
        );
        assert_eq!(session.ask("probe list app::s*").len(), 1);
        assert_eq!(
            session.ask("probe list lokup"),
            ["no probe point is called lokup; there is probe_console::app::lookup"]
        );
        // Looking needs nothing; watching does.
        assert_eq!(
            session.ask("probe attach app::lookup count"),
            ["probe needs the tier probe: write first: enable probe"]
        );
        assert_eq!(session.ask("probe show"), ["no probe is attached; probe attach PATTERN log attaches one"]);
        session.ask("enable probe");
        let begun = Instant::now();
        let said = session.ask("probe attach app::* hist count for 1s");
        assert_eq!(masked(&said[0]), "probe N on N points: hist count, for N s; it ends with this session");
        let said = session.ask("probe attach app::lookup log if key == \"rare\" && n > 20 for 10s hits 3");
        assert_eq!(
            masked(&said[0]),
            "probe N on probe_console::app::lookup: log, for N s, N hits; it ends with this session"
        );
        // Each worker tells for itself, so that the end may come before the last line. The other one is over after its second, with
        // what it found; the program did not notice.
        let mut told: Vec<String> = (0..5).map(|_| session.told()).map(|line| masked(&line)).collect();
        assert!(begun.elapsed() >= Duration::from_millis(990), "{told:?}");
        told.sort();
        let line = "probe_console::app::lookup(key=\"rare\", n=N) => Some(N)";
        let over = ["probe N is over: its N hits are used up; N hits", "probe N is over: its N s are over; N hits"];
        assert_eq!(told, [over[0], over[1], line, line, line]);
        let before = CALLS.load(Ordering::Relaxed);
        until(LIMIT, "the program goes on", || CALLS.load(Ordering::Relaxed) > before + 100);
        let shown = session.ask("probe show 1");
        assert!(shown[0].starts_with("1 app::*: over, ") && shown[1].starts_with("  hist "), "{shown:?}");
        assert!(shown.last().is_some_and(|line| line.starts_with("  count ")), "{shown:?}");
        assert_eq!(session.ask("probe show 77"), ["there is no probe 77; probe show lists those that there are"]);

        // Gone with the session, without a word.
        session.ask("probe attach app::store log(call)");
        session.told();
        let mut other = Session::open(path);
        let shown = other.ask("probe show");
        assert!(
            shown[0].starts_with("3 app::store: log(call); ") && shown[0].ends_with("left, of a session"),
            "{shown:?}"
        );
        drop(session);
        until(LIMIT, "it ends with its session", || !other.ask("probe show")[0].starts_with("3 app::store: log"));
        assert!(other.ask("probe show")[0].contains("its session has ended"));
        until(LIMIT, "nothing is watched", || coro::probe::points().iter().all(|point| !point.is_watched()));

        // Taken away by hand, also all at once.
        other.ask("enable probe");
        other.ask("probe attach store count");
        other.ask("probe attach lookup rate");
        assert_eq!(other.ask("probe detach 4"), ["probe 4 is taken away"]);
        assert_eq!(other.ask("probe detach 4"), ["probe 4 is over already: taken away"]);
        assert_eq!(other.ask("probe detach all"), ["1 probe is taken away"]);
        assert_eq!(other.ask("probe detach all"), ["there was no probe"]);

        // A breakpoint: the task stands there, the others go on.
        let said = other.ask("probe attach app::pay break hits 3");
        assert_eq!(
            masked(&said[0]),
            "probe N on probe_console::app::pay: break, for Ns, N hits; it ends with this session"
        );
        // The last one's word may come after the end.
        let mut told = Vec::new();
        while told.len() < 4 {
            told.push(masked(&other.told()));
            told.retain(|line| !line.starts_with("probe N is over: taken away"));
        }
        told.sort();
        let stopped = "#N stopped: probe_console::app::pay(cents=N) begins; probe release N";
        assert_eq!(told, [stopped, stopped, stopped, "probe N is over: its N hits are used up; N hits"]);
        let standing = other.ask("tasks wait=breakpoint");
        let standing: Vec<&str> = standing.iter().filter_map(|line| line.split_whitespace().next()).collect();
        let ids: Vec<&str> = standing.into_iter().filter(|word| word.starts_with('#')).collect();
        assert_eq!(ids.len(), 3, "{ids:?}");
        let before = CALLS.load(Ordering::Relaxed);
        until(LIMIT, "the fourth goes on", || CALLS.load(Ordering::Relaxed) > before + 20);
        assert_eq!(
            other.ask(&format!("probe release 6 {} failing no money", ids[0])),
            ["probe needs the tier act: write first: enable act"]
        );
        other.ask("enable act");
        // As a call, with commas: that one, and not all of them.
        let released = other.ask(&format!("probe(release, 6, {}, failing, no money)", ids[0]));
        assert_eq!(released, [format!("{} goes on", ids[0])]);
        assert_eq!(other.ask(&format!("probe release 6 {} returning 0", ids[1])), [format!("{} goes on", ids[1])]);
        assert_eq!(other.ask("probe release 6"), [format!("{} goes on", ids[2])]);
        assert_eq!(other.ask("probe release 6"), ["nobody stands at probe 6; probe show 6 says who does"]);
        until(LIMIT, "two have paid otherwise", || PAID.lock().expect("no poison").len() == 2);
        let mut paid = PAID.lock().expect("no poison").clone();
        paid.sort();
        assert_eq!(paid, [Ok(0), Err("no money".to_owned())]);
        // Taken away goes also who stands there because the hits are used up.
        let standing = |session: &mut Session| {
            session.ask("tasks wait=breakpoint").iter().filter(|line| line.trim_start().starts_with('#')).count()
        };
        other.ask("probe attach app::pay break hits 1");
        until(LIMIT / 4, "it stands there", || standing(&mut other) == 1);
        until(LIMIT / 4, "it is over", || !other.ask("probe show")[0].contains("app::pay: break;"));
        assert_eq!(other.ask("probe detach all"), ["there was no probe"]);
        until(LIMIT / 4, "it goes on", || standing(&mut other) == 0);
        // Nothing that the program calls something steers a terminal, or looks like another line.
        let evil = coro::probe::Point::register("evil\x1b[31m\nname", &["n"]);
        let listed = other.ask("probe list evil*");
        assert_eq!(masked(&listed.join("|")), "evil\\u{Nb}[Nm\\nname(n)  tests/probe_console.rs:N");
        other.ask("probe attach evil* log(call) hits 1");
        evil.call(&[coro::probe::Shown::Int(1)], || ());
        until(LIMIT / 4, "it is told", || other.told() == "evil\\u{1b}[31m\\nname(n=1) begins");
        for (wrong, told) in [
            ("probe release", "probe release takes a probe's number"),
            ("probe release 6 slowly", "probe release knows no \"slowly\""),
            ("probe", "probe wants one of: probe list"),
            ("probe attach", "probe attach wants a pattern"),
            ("probe attach store", "probe attach wants an instrument"),
            ("probe attach store hust", "there is no instrument hust"),
            ("probe attach store log for ever", "\"ever\" is no duration"),
            ("probe attach store log if key ==", "condition \"key ==\": "),
            ("probe look", "probe knows no \"look\""),
            ("probe show x", "\"x\" is not a probe's number"),
        ] {
            let said = other.ask(wrong);
            assert!(said[0].starts_with(told), "{wrong}: {said:?}");
        }
        code_of_the_program_that_stands_still_holds_up_nobody_else(path);
        of_two_who_apply_a_bundle_at_once_both_are_told_of_what_stays();
    });
}

/// What of the program's stands still, until it is let go.
static STANDS: Mutex<&str> = Mutex::new("");
static STANDING: AtomicU64 = AtomicU64::new(0);

fn stand_still_as(what: &str) {
    let stands = || *STANDS.lock().expect("no poison") == what;
    if stands() {
        STANDING.fetch_add(1, Ordering::Relaxed);
        until(LIMIT, "it is let go", || !stands());
        STANDING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An instrument every part of which may stand still.
struct Still;

impl coro::probe::Instrument for Still {
    fn events(&self) -> coro::probe::Events {
        stand_still_as("events");
        coro::probe::Events::CALL
    }

    fn observe(&self, _: &coro::probe::Event<'_>) {}

    fn text(&self) -> Option<String> {
        stand_still_as("text");
        Some("still 1".to_owned())
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        stand_still_as("drop");
    }
}

coro::probe::patch!("still", || {
    stand_still_as("patch");
    coro::probe::attach_to("app::store").named("of the patch").count().start()
});

fn code_of_the_program_that_stands_still_holds_up_nobody_else(path: &Path) {
    coro::probe::register_instrument("still", |_| {
        stand_still_as("factory");
        Ok(Box::new(Still))
    });
    let set = |what: &'static str| *STANDS.lock().expect("no poison") = what;
    let mut other = Session::open(path);
    other.ask("enable probe");
    let mut asks = |what: &'static str, question: &str| {
        let mut stuck = Session::open(path);
        stuck.ask("enable probe");
        let question = question.replace("ID", &last_probe(&mut other));
        set(what);
        writeln!(stuck.stream, "{question}").expect("sent");
        until(LIMIT, what, || STANDING.load(Ordering::Relaxed) > 0);
        // Whoever asks meanwhile, also for probes, is answered; and so is whoever attaches one.
        for question in
            ["uptime", "probe list", "probe show", "probe attach app::lookup count for 1s", "trace net for 1s"]
        {
            let begun = Instant::now();
            let answer = other.ask(question);
            assert!(!answer.is_empty() && begun.elapsed() < Duration::from_secs(1), "{what}: {question}: {answer:?}");
        }
        // It is told where it waits, gives up, and goes on.
        if what == "factory" {
            let (kind, told) = stuck.line();
            assert!(kind == "line" && told.starts_with("… after 2.0s probe attach is still in code"), "{told}");
        }
        stuck.stream.write_all(b"\x03").expect("sent");
        stuck.answer();
        assert_eq!(stuck.ask("version"), other.ask("version"), "{what}");
        set("");
        until(LIMIT, "it has come back", || STANDING.load(Ordering::Relaxed) == 0);
        // What nobody waits for any more is not there.
        until(LIMIT, "nothing is attached", || {
            let ours = |line: &String| line.contains(": still") || line.contains("of the patch");
            what == "text" || !other.ask("probe show").iter().any(|line| ours(line) && !line.contains(": over "))
        });
    };
    asks("factory", "probe attach app::store still");
    asks("events", "probe attach app::store still");
    asks("patch", "probe apply patch:still");
    let mut owner = Session::open(path);
    owner.ask("enable probe");
    owner.ask("probe attach app::store still for 60s");
    asks("text", "probe show ID");

    // One that stands still in its end, and ends behind it.
    set("drop");
    owner.ask("probe detach all");
    until(LIMIT, "it stands still", || STANDING.load(Ordering::Relaxed) == 1);
    let said = owner.ask("probe attach app::store still log(call) for 30s hits 1");
    let id = said[0].split_whitespace().nth(1).expect("a number").to_owned();
    let over = format!("probe {id} is over: its 1 hits are used up; 1 hits");
    until(LIMIT, "it is over all the same", || owner.told() == over);
    until(LIMIT, "nothing is watched", || coro::probe::points().iter().all(|point| !point.is_watched()));
    let shown = owner.ask(&format!("probe show {id}"));
    // It is asked itself while somebody who passed has let it go only just now.
    assert!(shown[1].starts_with("  what it has found is not known after 1 s") || shown[1] == "  still 1", "{shown:?}");
    set("");
    until(LIMIT, "its report is there", || owner.ask(&format!("probe show {id}"))[1] == "  still 1");
}

static AT_ONCE: Barrier = Barrier::new(2);

coro::probe::patch!("at-once", || {
    AT_ONCE.wait();
    coro::probe::attach_to("app::checked").count().start()
});

fn of_two_who_apply_a_bundle_at_once_both_are_told_of_what_stays() {
    let apply = || coro::probe::apply_patch("at-once").expect("it is there");
    let (one, other) = std::thread::scope(|s| {
        let one = s.spawn(apply);
        (apply(), one.join().expect("no panic"))
    });
    let is_watched = coro::probe::points().iter().any(|p| p.name().ends_with("app::checked") && p.is_watched());
    assert_eq!((&one, one.len(), is_watched), (&other, 1, true));
}

/// The number of the last one that is attached.
fn last_probe(session: &mut Session) -> String {
    let shown = session.ask("probe show");
    let attached = shown.iter().filter(|line| line.contains(": still"));
    attached.filter_map(|line| line.split_whitespace().next()).next_back().unwrap_or_default().to_owned()
}
