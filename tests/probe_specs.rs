//! Probes that are said in files: applied again and again, edited, wrong, watched, named in the environment and at the console.
//!
//! What `docs/probe-specs.md` shows is made here and compared, numbers masked. After a change that is wanted:
//! `CORO_BLESS=1 cargo test --test probe_specs`, which writes the page, and read what has changed.
#![cfg(all(target_os = "linux", not(miri)))]

mod util;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use coro::probe::specs::{Applied, Directory, Entry, File, Listed, Manager, Memory, Spec, State, Store};
use coro::probe::{Attached, Event, Instrument, Point, ProbeError, attach_to, register_instrument};
use util::{again, role, until};

const LIMIT: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(5);

/// A point of one test alone.
fn point(name: &str) -> &'static Point {
    Point::register(name, &["n"])
}

fn pass(point: &'static Point, times: u64) {
    for _ in 0..times {
        point.call(&[coro::probe::Shown::Int(1)], || ());
    }
}

fn said(applied: &[Applied]) -> Vec<String> {
    applied.iter().map(|one| masked(&one.to_string())).collect()
}

/// Every number as N.
fn masked(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_digit() && c != '.') {
        let number = part.trim_end_matches(|c: char| !c.is_ascii_digit());
        let is_number = number.starts_with(|c: char| c.is_ascii_digit());
        out.push_str(if is_number { "N" } else { number });
        out.push_str(&part[number.len()..]);
    }
    out
}

fn hits(manager: &Manager, id: &str) -> Option<u64> {
    manager.probe(id, |probe| probe.hits().0)
}

#[test]
fn what_has_not_changed_goes_on_and_what_has_is_replaced() {
    let point = point("specs_a::get");
    let manager = Manager::new();
    let (kept, edited) = (Spec::new("kept", "specs_a::get", "count"), Spec::new("edited", "specs_a::get", "count"));
    let gone = Spec::new("gone", "specs_a::get", "rate");
    let first = manager.apply([kept.clone(), edited.clone(), gone]);
    assert_eq!(said(&first), ["edited: attached as probe N", "gone: attached as probe N", "kept: attached as probe N"]);
    pass(point, 3);
    let mut edited = edited;
    edited.every = Some(2);
    let second = manager.apply([kept.clone(), edited.clone()]);
    assert_eq!(said(&second), ["edited: attached as probe N", "kept: goes on as probe N", "gone: taken away"]);
    assert_eq!((first[2].at, &first[2].state), (second[1].at, &second[1].state));
    assert_ne!(first[0].state, second[0].state);
    pass(point, 4);
    assert_eq!((hits(&manager, "kept"), hits(&manager, "edited"), hits(&manager, "gone")), (Some(7), Some(2), None));
    for _ in 0..3 {
        assert!(manager.apply([kept.clone(), edited.clone()]).iter().all(|one| !one.changed));
    }
    edited.enabled = false;
    assert_eq!(
        said(&manager.apply([kept.clone(), edited.clone()])),
        ["edited: not enabled", "kept: goes on as probe N"]
    );
    assert_eq!(hits(&manager, "kept"), Some(7));
    let twice = manager.apply([kept.clone(), Spec::new("kept", "nowhere", "log")]);
    assert_eq!(
        said(&twice),
        ["kept: goes on as probe N", "kept (again): is there twice; the first one counts", "edited: taken away"]
    );
    assert!(manager.apply([]).iter().all(|one| one.state == State::Dropped));
    assert!(!point.is_watched() && manager.applied().is_empty());
    manager.apply([kept]);
    assert!(point.is_watched());
    drop(manager);
    assert!(!point.is_watched(), "a manager that is gone leaves nothing behind");
}

/// Panics, and says nothing on stderr of it.
fn breaks(why: &'static str) -> ! {
    std::panic::resume_unwind(Box::new(why))
}

/// One that panics at the first event.
struct Fragile;

impl Instrument for Fragile {
    fn observe(&self, _: &Event<'_>) {
        breaks("it broke");
    }
}

#[test]
fn one_that_is_wrong_hinders_no_other() {
    // Who has conditions is known since the first runtime.
    drop(util::runtime(1));
    let point = point("specs_b::get");
    register_instrument("specs_b_panics", |_| breaks("no such luck"));
    register_instrument("specs_b_refuses", |words| Err(format!("wants other words than {words:?}")));
    let manager = Manager::new();
    let spec = |id, target, instruments| Spec::new(id, target, instruments);
    let mut condition = spec("condition", "specs_b::get", "count");
    condition.condition = Some("n ==".into());
    let all = [
        condition,
        spec("factory", "specs_b::get", "specs_b_panics"),
        spec("good", "specs_b::get", "count"),
        spec("instrument", "specs_b::get", "hust"),
        spec("refused", "specs_b::get", "specs_b_refuses(1)"),
        spec("target", "specs_b::gte", "count"),
    ];
    let applied = manager.apply(all.clone());
    let said = said(&applied);
    for (said, told) in said.iter().zip([
        "condition: condition \"n ==\": ",
        "factory: an instrument panicked as it was made: no such luck; it stays off until it is edited",
        "good: attached as probe N",
        "instrument: there is no instrument hust; there are log, count",
        "refused: wants other words than [\"N\"]",
        "target: no probe point is called specs_b::gte; there is ",
    ]) {
        assert!(said.starts_with(told), "{said}");
    }
    pass(point, 2);
    assert_eq!(hits(&manager, "good"), Some(2));
    // It is tried again, but for the one that failed; there is nothing new to be said of the others.
    register_instrument("specs_b_panics", |_| Ok(Box::new(Fragile)));
    let again = manager.apply(all.clone());
    assert!(again.iter().filter(|one| ["condition", "factory", "good"].contains(&&*one.id)).all(|one| !one.changed));
    let late = Point::register("specs_b::gte", &[]);
    let applied = manager.apply(all);
    assert!(matches!(applied[5].state, State::Attached { .. }) && late.is_watched());
    assert_eq!(hits(&manager, "good"), Some(2));
}

#[test]
fn what_is_over_stays_over_until_it_is_edited() {
    let point = point("specs_c::get");
    register_instrument("specs_c_fragile", |_| Ok(Box::new(Fragile)));
    let manager = Manager::new();
    let spec = |id, instruments| Spec::new(id, "specs_c::get", instruments);
    let mut all =
        [spec("fails", "specs_c_fragile"), spec("hits", "count"), spec("stopped", "count"), spec("time", "count")];
    all[1].hits = Some(2);
    all[3].lifespan = Some(Duration::from_millis(20));
    assert!(manager.apply(all.clone()).iter().all(|one| matches!(one.state, State::Attached { .. })));
    manager.probe("stopped", Attached::stop).expect("it is attached");
    pass(point, 3);
    let is_over = |one: &Applied| matches!(one.state, State::Over { .. });
    until(LIMIT, "its time is over", || manager.applied().iter().all(is_over));
    let over = manager.apply(all.clone());
    let stays = "it stays off until it is edited";
    assert_eq!(
        said(&over),
        [
            format!("fails: probe N is over: an instrument panicked: it broke; {stays}"),
            format!("hits: probe N is over: its N hits are used up; {stays}"),
            format!("stopped: probe N is over: taken away; {stays}"),
            format!("time: probe N is over: its N ms are over; {stays}"),
        ]
    );
    assert!(manager.apply(all.clone()).iter().all(|one| is_over(one) && !one.changed));
    assert!(!point.is_watched());
    all[1].hits = Some(5);
    let edited = manager.apply(all);
    assert_eq!(edited.iter().map(is_over).collect::<Vec<_>>(), [true, false, true, true]);
    pass(point, 4);
    assert_eq!(hits(&manager, "hits"), Some(4));
}

/// A store that tells when it is gone, and can be broken.
struct Shaky {
    memory: Memory,
    broken: Arc<Mutex<Option<&'static str>>>,
    gone: Arc<AtomicBool>,
}

impl Store for Shaky {
    fn list(&self, known: Option<&str>) -> io::Result<Option<Listed>> {
        let broken = *self.broken.lock().unwrap();
        match broken {
            Some("panic") => breaks("the database has moved"),
            Some(wrong) => Err(io::Error::other(wrong)),
            None => self.memory.list(known),
        }
    }

    fn record(&self, version: &str, applied: &[Applied]) -> io::Result<()> {
        self.memory.record(version, applied)
    }
}

impl Drop for Shaky {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
    }
}

#[test]
fn a_store_is_watched_and_may_fail() {
    let point = point("specs_d::get");
    let (memory, broken, gone) = (Memory::new(), Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
    let manager = Manager::of(Shaky { memory: memory.clone(), broken: broken.clone(), gone: gone.clone() });
    memory.set([Spec::new("a", "specs_d::get", "count")]);
    assert_eq!(said(&manager.refresh().unwrap()), ["a: attached as probe N"]);
    let recorded = || memory.recorded().expect("it was recorded");
    assert_eq!((recorded().0.as_str(), said(&recorded().1)), ("1", vec!["a: attached as probe N".to_owned()]));
    manager.watch(TICK).expect("a thread");
    pass(point, 2);

    memory.set([Spec::new("a", "specs_d::get", "count"), Spec::new("b", "specs_d::put", "count")]);
    until(LIMIT, "it notices", || recorded().0 == "2");
    let now = said(&recorded().1);
    assert_eq!(now[0], "a: goes on as probe N");
    assert!(now[1].starts_with("b: no probe point is called specs_d::put; "), "{now:?}");
    Point::register("specs_d::put", &[]);
    until(LIMIT, "it is tried again", || said(&recorded().1)[1] == "b: attached as probe N");

    for (how, told) in [("no route", "no route"), ("panic", "the store panicked: the database has moved")] {
        *broken.lock().unwrap() = Some(how);
        until(LIMIT, "it notices", || manager.troubles() == [told]);
        assert_eq!(manager.refresh().unwrap_err().to_string(), told);
        assert_eq!(hits(&manager, "a"), Some(2), "everything stays as it is");
    }
    *broken.lock().unwrap() = None;
    until(LIMIT, "it is well again", || manager.troubles().is_empty());
    assert_eq!(hits(&manager, "a"), Some(2));
    drop(manager);
    until(LIMIT, "its thread ends", || gone.load(Ordering::Acquire));
    assert!(!point.is_watched());
    assert_eq!(Manager::new().refresh().unwrap_err().kind(), io::ErrorKind::Unsupported);
}

fn entries(store: &impl Store) -> Vec<Entry> {
    let mut entries = store.list(None).expect("it can be read").expect("it is new").entries;
    entries.sort_by(|a, b| a.id.cmp(&b.id));
    entries
}

#[test]
fn a_directory_is_watched() {
    let (get, put) = (point("specs_e::get"), point("specs_e::put"));
    let directory = Folder::new();
    let spec = |id: &str, target: &str| format!("[{id}]\ntarget = \"{target}\"\ninstruments = \"count\"\n");
    directory.write("a.toml", &spec("get", "specs_e::get"));
    directory.write(".hidden.toml", &spec("hidden", "specs_e::get"));
    directory.write("notes.txt", "not read");
    let manager = Manager::of(Directory::new(&directory.0));
    manager.watch(TICK).expect("a thread");
    pass(get, 2);
    let ids = || manager.applied().into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(ids(), ["get"]);

    // One more file, in the other form; an id that is in both counts in the first.
    directory.write(
        "b.json",
        r#"{"put": {"target": "specs_e::put", "instruments": "count"}, "get": {"target": "x", "instruments": "log"}}"#,
    );
    // Told when the whole turn is over.
    until(LIMIT, "it is noticed", || ids() == ["get", "get (in b.json)", "put"]);
    assert!(put.is_watched());
    assert_eq!(said(&manager.applied())[1], "get (in b.json): is in a file before this one, too; that one counts");
    pass(put, 1);

    // Half written, it leaves what it said; a pipe is not waited for.
    directory.write("b.json", r#"{"put": {"target": "specs_e::put", "#);
    let pipe = std::process::Command::new("mkfifo").arg(directory.0.join("c.toml")).status().expect("mkfifo");
    assert!(pipe.success());
    until(LIMIT, "both are noticed", || manager.troubles().len() == 2);
    let troubles = manager.troubles();
    assert!(
        troubles[0].starts_with("b.json is no JSON: ") && troubles[0].ends_with("; what it said before stays"),
        "{troubles:?}"
    );
    assert_eq!(troubles[1], "c.toml is no file");
    assert_eq!((hits(&manager, "get"), hits(&manager, "put")), (Some(2), Some(1)));

    directory.write("a.toml", &spec("get", "specs_e::*"));
    until(LIMIT, "the edit is noticed", || hits(&manager, "get") == Some(0));
    fs::remove_file(directory.0.join("b.json")).expect("it was there");
    until(LIMIT, "it is noticed", || ids() == ["get"]);
    assert_eq!(hits(&manager, "put"), None);
}

/// A directory for files of specs; gone with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let n = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("coro-specs-{}-{n}", std::process::id()));
        fs::create_dir(&path).expect("a directory");
        Folder(path)
    }

    /// As it should be done: written beside it, then put in its place.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, beside) = (self.0.join(name), self.0.join(".new"));
        fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path)).expect("it is written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_file_that_is_gone_says_nothing_any_more() {
    let point = point("specs_f::get");
    let directory = Folder::new();
    let path = directory.0.join("probes.json");
    let manager = Manager::of(File::new(&path));
    assert_eq!(manager.refresh().unwrap_err().kind(), io::ErrorKind::NotFound);
    directory.write("probes.json", r#"{"a": {"target": "specs_f::get", "instruments": "count"}}"#);
    assert_eq!(said(&manager.refresh().unwrap()), ["a: attached as probe N"]);
    fs::remove_file(&path).expect("it was there");
    assert_eq!(said(&manager.refresh().unwrap()), ["a: taken away"]);
    assert!(!point.is_watched());
    fs::write(&path, vec![b' '; (1 << 20) + 1]).expect("written");
    assert_eq!(said(&manager.refresh().unwrap()), [""; 0]);
    assert_eq!(manager.troubles(), ["probes.json has more than 1048576 bytes"]);
}

#[test]
fn any_order_of_lists_under_load_leaves_what_the_last_one_says() {
    let points = [point("specs_g::a"), point("specs_g::b")];
    let (manager, stop) = (Manager::new(), AtomicBool::new(false));
    let mut seeds = util::Rng::from_environment();
    let list = |rng: &mut util::Rng| -> Vec<Spec> {
        let one = |n: u64, bits: u64| {
            let target = ["specs_g::a", "specs_g::*", "specs_g::nothing"][(bits % 3) as usize];
            let mut spec = Spec::new(n.to_string(), target, ["count", "hist", "hust"][(bits / 3 % 3) as usize]);
            spec.every = (bits & 64 != 0).then_some(2);
            // Over while others are attached.
            spec.hits = (bits & 128 != 0).then_some(20);
            spec.enabled = bits & 256 == 0;
            spec
        };
        let all: Vec<Spec> = (0..5).map(|n| one(n, rng.next() >> 8)).collect();
        all.into_iter().filter(|_| rng.below(3) > 0).collect()
    };
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    points.iter().for_each(|point| pass(point, 1));
                }
            });
        }
        let appliers: Vec<_> = (0..2)
            .map(|_| {
                let mut rng = util::Rng::new(seeds.next());
                let manager = &manager;
                s.spawn(move || (0..150).for_each(|_| drop(manager.apply(list(&mut rng)))))
            })
            .collect();
        appliers.into_iter().for_each(|applier| applier.join().expect("no panic"));
        // The last word.
        let last = list(&mut seeds);
        let applied = manager.apply(last.clone());
        let wanted: Vec<&String> = last.iter().map(|spec| &spec.id).collect();
        let stays = |one: &&Applied| one.state != State::Dropped;
        assert_eq!(applied.iter().filter(stays).map(|one| &one.id).collect::<Vec<_>>(), wanted);
        for (one, spec) in manager.applied().iter().zip(&last) {
            let fine = spec.enabled && spec.target != "specs_g::nothing" && spec.instruments != "hust";
            let is = matches!(one.state, State::Attached { .. } | State::Over { .. });
            assert_eq!(is, fine, "{spec:?}: {one}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    manager.apply([]);
    assert!(points.iter().all(|point| !point.is_watched()));
    assert!(manager.applied().is_empty());
}

mod shop {
    #[coro::probe]
    pub(crate) fn order(customer: &str, items: u64) -> u64 {
        items * customer.len() as u64
    }

    #[coro::probe]
    pub(crate) fn pay(customer: &str) {
        let _ = customer;
    }
}

coro::probe::patch!("slow-orders", slow_orders);
coro::probe::patch!("broken", || -> Result<Attached, ProbeError> { attach_to("shop::nothing").count().start() });
coro::probe::patch!("panics", || -> Vec<Attached> {
    let _attached = attach_to("shop::pay").count().start();
    breaks("not today")
});

fn slow_orders() -> Result<Vec<Attached>, ProbeError> {
    let slow = attach_to("shop::order").named("slow orders").log().condition("elapsed > 0.1");
    Ok(vec![slow.start()?, attach_to("shop::order").named("durations of orders").histogram().start()?])
}

/// The program that the page speaks of: it serves until its standard input ends.
fn serve() {
    let socket = std::env::var("CORO_TEST_SOCKET").expect("where to listen");
    static STOP: AtomicBool = AtomicBool::new(false);
    coro::runner().workers(1).run(move || {
        let backdoor = coro::backdoor::serve(&socket).expect("a backdoor");
        let load = coro::spawn(|| {
            let mut n = 0;
            while !STOP.load(Ordering::Relaxed) {
                n += 1;
                let customer = ["anna", "anna", "bert"][n as usize % 3];
                shop::order(customer, n % 7);
                shop::pay(customer);
                coro::sleep(Duration::from_millis(1));
            }
        });
        coro::blocking(|| io::stdin().read_to_end(&mut Vec::new())).expect("a thread").expect("stdin");
        STOP.store(true, Ordering::Relaxed);
        load.join().expect("no panic");
        drop(backdoor);
    });
}

struct Program {
    child: Child,
    socket: PathBuf,
    errors: Arc<Mutex<String>>,
}

impl Program {
    fn start(directory: &Folder, probes: Option<&str>) -> Program {
        let socket = directory.0.join("s");
        let mut command = again("what_the_page_says_is_what_happens", "program");
        command.env("CORO_TEST_SOCKET", &socket).env_remove("CORO_PROBES").stdin(std::process::Stdio::piped());
        if let Some(probes) = probes {
            command.env("CORO_PROBES", probes);
        }
        let mut child = command.spawn().expect("a child");
        let errors = Arc::new(Mutex::new(String::new()));
        let (stderr, into) = (child.stderr.take().expect("piped"), errors.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                *into.lock().unwrap() += &(line + "\n");
            }
        });
        let program = Program { child, socket, errors };
        until(LIMIT, "it listens", || UnixStream::connect(&program.socket).is_ok());
        program
    }

    /// A session from its beginning to its end, without the banner: what was typed, and what was answered.
    fn session(&self, lines: &[&str]) -> String {
        let mut transcript = String::new();
        let stream = UnixStream::connect(&self.socket).expect("the backdoor answers");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
        let mut banner = String::new();
        reader.read_line(&mut banner).expect("a banner");
        for line in lines {
            // The end of an answer is not to be seen in a session for people, but that of the next command is.
            writeln!(&stream, "{line}").and_then(|()| writeln!(&stream, "uptime")).expect("sent");
            transcript += &format!("> {line}\n");
            loop {
                let mut answer = String::new();
                reader.read_line(&mut answer).expect("an answer");
                assert!(!answer.is_empty(), "the session has ended after {transcript}");
                let answer = answer.trim_start_matches("> ").to_owned();
                if answer.starts_with("up ") {
                    break;
                }
                transcript += &answer;
            }
        }
        stream.shutdown(Shutdown::Both).expect("it ends");
        transcript
    }

    fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/probe-specs.md");

/// The block of the page that stands behind `<!-- name -->`, and where.
fn block(page: &str, name: &str) -> std::ops::Range<usize> {
    let mark = format!("<!-- {name} -->\n```");
    let at = page.find(&mark).unwrap_or_else(|| panic!("the page has no block {name}")) + mark.len();
    let begin = at + page[at..].find('\n').expect("a line") + 1;
    begin..begin + page[begin..].find("```").expect("its end")
}

/// Compares a block of the page, or writes it.
fn shows(page: &mut String, name: &str, found: &str) {
    let range = block(page, name);
    if std::env::var_os("CORO_BLESS").is_some() {
        page.replace_range(range, found);
    } else {
        assert_eq!(masked(&page[range]), masked(found), "block {name} of {PAGE}");
    }
}

#[test]
fn what_the_page_says_is_what_happens() {
    if role().is_some() {
        return serve();
    }
    let mut page = fs::read_to_string(PAGE).expect("the page");
    let toml = page[block(&page, "probes.toml")].to_owned();
    let json = page[block(&page, "probes.json")].to_owned();
    let directory = Folder::new();
    let elsewhere =
        |text: &str| text.replace(directory.0.to_str().expect("text"), "/etc/shop").replace("probe_specs::", "app::");
    let path = directory.write("probes.toml", &toml);
    assert_eq!(entries(&File::new(&path)), entries(&File::new(directory.write("probes.json", &json))));

    // At the console: applied, looked at from another session, corrected, applied again.
    let program = Program::start(&directory, None);
    let apply = format!("probe apply {}", path.display());
    let refused = program.session(&[&apply]);
    assert!(refused.ends_with("probe needs the tier probe: write first: enable probe\n"), "{refused}");
    shows(&mut page, "applied", &elsewhere(&program.session(&["enable probe", &apply])));
    let mut shown = String::new();
    until(LIMIT, "it has some hits", || {
        shown = program.session(&["probe show"]);
        shown.split(&[' ', '\n'][..]).filter_map(|word| word.parse::<u64>().ok()).any(|hits| hits > 200)
    });
    assert!(!shown.contains("of a session"), "{shown}");
    shows(&mut page, "shown", &shown);
    directory.write("probes.toml", &toml.replace("shop::pai", "shop::pay"));
    shows(&mut page, "again", &elsewhere(&program.session(&["enable probe", &apply])));
    shows(
        &mut page,
        "bundle",
        &program.session(&["enable probe", "probe apply patch:slow-orders", "probe apply patch:slow-orders"]),
    );
    let wrong = format!("probe apply {}", directory.0.join("none.toml").display());
    let said = program.session(&[
        "enable probe",
        "probe apply patch:nothing",
        "probe apply patch:broken",
        "probe apply patch:panics",
        &wrong,
        "probe apply",
        "probe apply /dev/zero",
    ]);
    let said: Vec<String> = elsewhere(&said).lines().skip(2).map(masked).collect();
    assert_eq!(
        said,
        [
            "> probe apply patch:nothing",
            "no patch is called nothing; there are broken, panics, slow-orders",
            "> probe apply patch:broken",
            "patch broken at tests/probe_specs.rs:N: no probe point is called shop::nothing; probe list shows them",
            "> probe apply patch:panics",
            "patch panics at tests/probe_specs.rs:N: it panicked: not today",
            "> probe apply /etc/shop/none.toml",
            "/etc/shop/none.toml: No such file or directory (os error N)",
            "> probe apply",
            "probe apply takes one file or directory of specs, or patch:NAME",
            "> probe apply /dev/zero",
            "zero is no file",
        ]
    );
    // Nothing of what failed has stayed, and nothing was attached by the path that there was not.
    assert!(!program.session(&["probe list pay"]).contains("probe 6"));
    drop(program);

    // A path where nothing is yet is told once, and waited for.
    let elsewhere_too = Folder::new();
    let late_path = elsewhere_too.0.join("probes.toml");
    let late = Program::start(&elsewhere_too, Some(&format!("file:{}", late_path.display())));
    until(LIMIT, "it is told", || late.errors().contains("probes.toml: No such file or directory"));
    elsewhere_too.write("probes.toml", &toml);

    // In the environment: mistakes are told once, and the program goes on.
    directory.write("probes.toml", &toml);
    let probes = format!("file:{},patch:slow-orders,patch:slow,files", path.display());
    let program = Program::start(&directory, Some(&probes));
    until(LIMIT, "it is told", || program.errors().matches("coro: ").count() >= 3);
    let told: String = elsewhere(&program.errors())
        .lines()
        .filter(|line| line.starts_with("coro: "))
        .map(|line| line.to_owned() + "\n")
        .collect();
    shows(&mut page, "environment", &told);
    let shown = program.session(&["probe show"]);
    for name in
        ["orders: count top(customer)", "large-orders: log(end)", "slow orders: log(end)", "durations of orders: hist"]
    {
        assert!(shown.contains(name) || shown.contains(&name.replace("log(end)", "log")), "{name}: {shown}");
    }
    // It is watched from then on.
    directory.write("probes.toml", &toml.replace("shop::pai", "shop::pay"));
    until(LIMIT, "the edit is noticed", || program.session(&["probe list pay"]).contains("<- probe"));
    drop(program);
    until(LIMIT, "the file is noticed", || late.session(&["probe list order"]).contains("<- probe"));
    assert_eq!(late.errors().matches("No such file").count(), 1);
    drop(late);

    // Without the variable there is nothing.
    let program = Program::start(&directory, None);
    assert_eq!(
        program.session(&["probe show"]),
        "> probe show\nno probe is attached; probe attach PATTERN log attaches one\n"
    );
    assert!(!program.errors().contains("coro: "), "{}", program.errors());
    drop(program);
    if std::env::var_os("CORO_BLESS").is_some() {
        fs::write(PAGE, page).expect("the page is written");
    }
}

#[test]
fn who_only_looks_does_not_wait_for_a_turn() {
    static STAGE: AtomicU64 = AtomicU64::new(0);
    let point = point("specs_h::get");
    register_instrument("slowly_made", |_| {
        STAGE.store(1, Ordering::SeqCst);
        until(LIMIT, "somebody has looked", || STAGE.load(Ordering::SeqCst) == 2);
        Err("not now".to_owned())
    });
    let manager = Manager::new();
    let quick = Spec::new("a", "specs_h::get", "count");
    manager.apply([quick.clone()]);
    std::thread::scope(|s| {
        let turn = s.spawn(|| manager.apply([quick, Spec::new("b", "specs_h::get", "slowly_made")]));
        until(LIMIT, "it is in code of the program", || STAGE.load(Ordering::SeqCst) == 1);
        pass(point, 1);
        assert_eq!((said(&manager.applied()).len(), hits(&manager, "a")), (1, Some(1)));
        assert!(manager.troubles().is_empty());
        STAGE.store(2, Ordering::SeqCst);
        assert_eq!(said(&turn.join().expect("no panic")), ["a: goes on as probe N", "b: not now"]);
    });
}

#[test]
fn who_is_asked_in_a_turn_may_look_at_it() {
    struct Looks;

    /// What the factory and the store have seen.
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static MANAGER: OnceLock<Manager> = OnceLock::new();

    fn look(who: &str) {
        let manager = MANAGER.get().expect("made before the first turn");
        let probe = manager.probe("first", |probe| probe.points().len());
        let seen = format!("{who}: {:?} {:?} {probe:?}", said(&manager.applied()), manager.troubles());
        SEEN.lock().unwrap().push(seen);
    }

    impl Store for Looks {
        fn list(&self, _: Option<&str>) -> io::Result<Option<Listed>> {
            look("list");
            let specs = [Spec::new("first", "specs_j::get", "count"), Spec::new("second", "specs_j::get", "looks")];
            let entries = specs.into_iter().map(Entry::from).collect();
            Ok(Some(Listed { version: "1".into(), entries, ..Listed::default() }))
        }

        fn record(&self, _: &str, _: &[Applied]) -> io::Result<()> {
            look("record");
            Ok(())
        }
    }

    point("specs_j::get");
    register_instrument("looks", |_| {
        look("factory");
        Err("it has seen enough".to_owned())
    });
    let manager = MANAGER.get_or_init(|| Manager::of(Looks));
    util::within(LIMIT, move || manager.refresh()).expect("the store answers");
    let first = "\"first: attached as probe N\"";
    assert_eq!(
        *SEEN.lock().unwrap(),
        [
            "list: [] [] None".to_owned(),
            format!("factory: [{first}] [] Some(1)"),
            format!("record: [{first}, \"second: it has seen enough\"] [] Some(1)"),
        ]
    );
    manager.apply([]);
}

#[test]
fn bundles_do_nothing_before_they_are_named() {
    drop(util::runtime(1));
    assert_eq!(coro::probe::patches(), ["broken", "panics", "slow-orders"]);
    assert_eq!(shop::order("anna", 2), 8);
    let watched = || coro::probe::points().iter().any(|point| point.name().contains("shop::") && point.is_watched());
    assert!(!watched());
    let first = coro::probe::apply_patch("slow-orders").expect("it can be applied");
    assert_eq!(first.len(), 2);
    assert_eq!(coro::probe::apply_patch("slow-orders").expect("it is applied already"), first);
    assert!(watched());
    assert!(coro::probe::apply_patch("nothing").unwrap_err().to_string().starts_with("no patch is called nothing"));
}
