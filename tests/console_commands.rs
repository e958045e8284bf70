//! The commands of the console against a live process: this program again, with tasks that do something known.
//!
//! Masked: ids (`N`), times (`T`), lines of files (`L`), shares, sizes and counts that hang on the machine (`%`, `B`). Stacks are
//! cut off; other tests look at them.
#![cfg(all(target_os = "linux", not(miri)))]

mod util;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coro::Builder;
use coro::inspect::{Options, Snapshot};
use coro::net::{TcpListener, TcpStream};
use coro::sync::Mutex;
use util::sockets::Directory;
use util::{again, role, until};

const PATIENCE: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(3600);

fn spawn(name: &str, class: &str, f: impl FnOnce() + Send + 'static) {
    drop(Builder::new().name(name).class(class).worker(0).spawn(f).expect("a task"));
}

/// Without stacks: the first one takes a second to name.
fn is_parked(name: &str) -> bool {
    let mut wanted = Options::default();
    (wanted.stacks, wanted.running, wanted.objects) = (false, false, false);
    let all = Snapshot::take(&wanted).tasks;
    all.iter().any(|t| t.name.as_deref() == Some(name) && t.state == coro::TaskState::Parked)
}

/// What the child does: tasks of a few classes, each waiting for something else, in the order of their ids.
fn program() {
    let path = std::env::var_os("CONSOLE_PATH").expect("a path");
    coro::runner().workers(2).run(move || {
        let lock = Arc::new(Mutex::new(()));
        let held = lock.clone();
        spawn("holder", "db", move || {
            let _guard = held.lock().expect("no poison");
            coro::sleep(LONG);
        });
        until(PATIENCE, "the holder sleeps", || is_parked("holder"));
        for i in 1..=3 {
            let lock = lock.clone();
            spawn(&format!("db writer {i}"), "writers", move || drop(lock.lock()));
        }
        for i in 1..=2 {
            spawn(&format!("sleeper {i}"), "sleepers", move || {
                coro::set_label("req", 4710 + i);
                coro::set_label("user", "\u{1b}[2Jeve");
                coro::sleep(LONG);
            });
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let far = listener.accept().expect("accepted").0;
        spawn("reader", "readers", move || {
            let _far = far;
            let _ = (&near).read(&mut [0; 1]);
        });
        spawn("file", "files", || coro::blocking(|| std::thread::sleep(LONG)).expect("a thread"));
        let names = ["db writer 3", "sleeper 2", "reader", "file"];
        until(PATIENCE, "all wait", || names.iter().all(|name| is_parked(name)));
        if role().as_deref() == Some("busy") {
            drop(Builder::new().name("spinner").class("spinners").worker(1).spawn(|| {
                loop {
                    let end = Instant::now() + Duration::from_millis(5);
                    while Instant::now() < end {}
                    coro::yield_slice();
                }
            }));
        }
        if role().as_deref() == Some("memory") {
            // Stacks of several slabs that nobody uses any more.
            let all: Vec<_> = (0..500).map(|_| coro::spawn(|| coro::sleep(Duration::from_millis(20)))).collect();
            all.into_iter().for_each(|task| drop(task.join()));
        }
        let _server = coro::backdoor::serve(path).expect("served");
        println!("READY");
        coro::event_loop();
    });
}

/// The child, ended when this goes.
struct Console {
    child: Child,
    path: PathBuf,
    _directory: Directory,
}

impl Console {
    /// With the role `quiet`, `busy` or `memory`. Every test of this file begins with [`child_or`], so each can be the child.
    fn start(test: &str, role: &str) -> Console {
        let directory = Directory::new();
        let path = directory.at("c.sock");
        let mut command = again(test, role);
        command.env("CONSOLE_PATH", &path).env_remove("CORO_LATENCY_MS").env_remove("CORO_BLOCKING_THREADS");
        command.stderr(Stdio::null());
        let mut child = command.spawn().expect("a child");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let is_ready = stdout.lines().map_while(Result::ok).any(|line| line.contains("READY"));
        assert!(is_ready, "the child said nothing");
        Console { child, path, _directory: directory }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).expect("the console answers");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// The answers without the banner.
    fn ask(&self, lines: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(format!("{lines}\n").as_bytes()).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.split_once('\n').expect("a banner").1.to_owned()
    }

    /// The same, masked.
    fn said(&self, lines: &str) -> String {
        masked(&self.ask(lines))
    }

    /// CPU time of the console's thread.
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("threads");
        let console = tasks.map_while(Result::ok).map(|entry| entry.path()).find(|thread| {
            std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.trim_end() == "coro-console")
        });
        let times = std::fs::read_to_string(console.expect("a console").join("schedstat")).expect("times");
        Duration::from_nanos(times.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number"))
    }

    /// The id of the task with that name.
    fn id(&self, name: &str) -> String {
        let answer = self.ask(&format!("tasks name=\"{name}\" by=name"));
        let id = answer.lines().nth(1).and_then(|line| line.rsplit_once('#'));
        id.unwrap_or_else(|| panic!("no {name}: {answer}")).1.to_owned()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the child its program, which does not return; else a fresh child.
fn child_or(test: &str, kind: &str) -> Console {
    if role().is_some() {
        program();
        std::process::exit(0);
    }
    Console::start(test, kind)
}

/// See the head.
fn masked(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        // A stack begins with `[file`, and nothing comes after it.
        let end = line.find(" [").filter(|_| line.starts_with('#')).unwrap_or(line.trim_end_matches('\n').len());
        mask_line(&line[..end], &mut out);
        out.push('\n');
    }
    out
}

fn mask_line(line: &str, out: &mut String) {
    let mut rest = line;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut end = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ','))).unwrap_or(rest.len());
        end = rest[..end].trim_end_matches(['.', ',']).len();
        let (number, after) = rest.split_at(end);
        let unit_of = |units: &[&str]| {
            let word = after.strip_prefix(' ').unwrap_or(after);
            let len = word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
            let is_alone = !out.ends_with(|c: char| c.is_alphanumeric());
            (is_alone && units.contains(&&word[..len])).then_some(after.len() - word.len() + len)
        };
        let (with, more) = if out.ends_with('#') || out.ends_with("fd ") || out.ends_with("127.0.0.1:") {
            ("N", 0)
        } else if number == "127.0.0.1" {
            (number, 0)
        } else if out.ends_with(".rs:") {
            ("L", 0)
        } else if after.starts_with('%') {
            ("%", 1)
        } else if let Some(more) = unit_of(&["us", "ms", "s"]) {
            ("T", more)
        } else if let Some(more) = unit_of(&["B", "KiB", "MiB", "GiB"]) {
            ("B", more)
        } else if after.starts_with('h') {
            ("T", after.find('m').map_or(0, |at| at + 1))
        } else {
            (number, 0)
        };
        out.push_str(with);
        rest = &after[more..];
    }
    out.push_str(rest);
}

/// Columns are as wide as what they hold, which differs.
fn narrow(text: &str) -> String {
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    text.lines().map(line).collect()
}

#[test]
fn tasks_are_found_by_what_is_asked_of_them() {
    let console = child_or("tasks_are_found_by_what_is_asked_of_them", "quiet");
    let lock = "lock tests/console_commands.rs:L held by #N \"holder\" for T";
    let writer = |i: u32| format!("#N parked T \"db writer {i}\" {lock}\n");
    let writers = [1, 2, 3].map(writer).concat();
    assert_eq!(console.said("tasks wait=lock sort=id"), format!("{writers}3 of 9 tasks match: 3 parked; T\n"));
    assert_eq!(
        console.said("tasks class=writers sort=id limit=2"),
        format!("{}{}3 of 9 tasks match: 3 parked; shown: 2; T\n", writer(1), writer(2))
    );
    assert_eq!(
        console.said("tasks(wait=lock, limit=1)").lines().last().expect("a line"),
        "3 of 9 tasks match: 3 parked; shown: 1; T"
    );
    let one = |filters: &str, name: &str| {
        let answer = console.said(&format!("tasks {filters}"));
        let lines: Vec<&str> = answer.lines().collect();
        let is_it =
            lines.len() == 2 && lines[0].contains(&format!("\"{name}\"")) && lines[1].starts_with("1 of 9 tasks");
        assert!(is_it, "tasks {filters}: {answer}");
    };
    one("name=\"db writer 2\"", "db writer 2");
    one("name~WRITER name~2", "db writer 2");
    one("label.req=4711", "sleeper 1");
    one("label.user~eve label.req!=4711", "sleeper 2");
    one("peer~127.0.0.1", "reader");
    one("wait=read age<1h", "reader");
    one("wait=blocking_job worker=0", "file");
    one("wait~sleep class!=sleepers name=h*r", "holder");
    one("stack~event_loop", "main");
    one("class=db slices>0 state!=running", "holder");
    one(&format!("id={}", console.id("file")), "file");
    one("site~console_commands.rs wait=event-loop", "main");
    assert_eq!(console.said("tasks age>1h"), "0 of 9 tasks match; T\n");
    assert_eq!(console.said("tasks delay>1h run>1h longest>1h"), "0 of 9 tasks match; T\n");
    assert_eq!(console.ask("tasks").lines().count(), 10);
    assert_eq!(
        console.ask("tasks stat=parked"),
        "no filter is called \"stat\"; the nearest is state, as in state=parked\n"
    );
    // Of equal size they come by name.
    let groups = "\
        wait tasks run time oldest\n\
        lock 3 T T #N\n\
        sleep 3 T T #N\n\
        blocking job 1 T T #N\n\
        event_loop 1 T T #N\n\
        read 1 T T #N\n\
        9 of 9 tasks match: 9 parked; T; 5 groups\n";
    assert_eq!(narrow(&console.said("tasks by=wait")), groups);
    let two = console.said("tasks by=class state=parked limit=2");
    assert!(two.ends_with("and 4 smaller groups\n9 of 9 tasks match: 9 parked; T; 6 groups\n"), "{two}");
    let main = console.id("main");
    let parents = narrow(&console.ask("tasks by=parent"));
    assert!(parents.contains(&format!("\n#{main} \"main\" 8 ")), "{parents}");
    assert!(parents.contains("\n(a plain thread) 1 "), "{parents}");
    assert!(narrow(&console.said("tasks by=label.req")).contains("\n(none) 7 T T #N\n4711 1 T T #N\n"));
    assert!(narrow(&console.said("tasks by=peer")).contains("\n127.0.0.1 1 T T #N\n"));
}

#[test]
fn counts_tell_what_has_changed_since() {
    let console = child_or("counts_tell_what_has_changed_since", "quiet");
    let first = "\
        class tasks run time oldest\n\
        writers 3 T T #N\n\
        sleepers 2 T T #N\n\
        db 1 T T #N\n\
        files 1 T T #N\n\
        readers 1 T T #N\n\
        8 of 9 tasks match: 8 parked; T; 5 groups\n";
    let question = "count by class name!=main";
    assert_eq!(narrow(&console.said(question)), first);
    // Another session, another question in between; a sleeper less.
    console.ask(&format!("count by state\nenable act\ncancel {}", console.id("sleeper 1")));
    let end = Instant::now() + PATIENCE;
    while !console.ask("tasks class=sleepers by=class").contains("1 of 8 tasks") && Instant::now() < end {}
    let second = "\
        class tasks change run time oldest\n\
        writers 3 = T T #N\n\
        db 1 = T T #N\n\
        files 1 = T T #N\n\
        readers 1 = T T #N\n\
        sleepers 1 -1 T T #N\n\
        7 of 8 tasks match: 7 parked; T; 5 groups; changes since T ago\n";
    assert_eq!(narrow(&console.said(question)), second);
    assert_eq!(
        console.ask("count by clas"),
        "tasks cannot be put together by \"clas\"; the nearest is by=class, of class, site, wait, peer, parent, state, \
         worker, name, label.KEY\n"
    );
}

#[test]
fn top_names_who_runs_and_holds_nobody_up() {
    let console = child_or("top_names_who_runs_and_holds_nobody_up", "busy");
    let mut looks = console.connect();
    looks.write_all(b"top 1.5\n").expect("sent");
    let mut first = [0; 1];
    looks.read_exact(&mut first).expect("the banner");
    // Other sessions are answered meanwhile, and this one waits.
    let begun = Instant::now();
    for _ in 0..3 {
        assert!(console.ask("uptime").starts_with("up "));
    }
    looks.set_nonblocking(true).expect("set");
    let mut so_far = [0; 4096];
    let mut text = Vec::new();
    loop {
        match looks.read(&mut so_far) {
            Ok(n) => text.extend_from_slice(&so_far[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    let early = String::from_utf8(text).expect("text");
    let is_early = begun.elapsed() < Duration::from_millis(1400);
    assert!(!is_early || early.ends_with("looking for 1.5s\n"), "{early}");
    looks.set_nonblocking(false).expect("set");
    looks.shutdown(Shutdown::Write).expect("half closed");
    let mut rest = String::new();
    looks.read_to_string(&mut rest).expect("an answer");
    let all = early + &rest;
    assert!(begun.elapsed() >= Duration::from_millis(1300), "{:?}: {all}", begun.elapsed());
    let share = |after: &str| {
        let line = all.lines().find(|line| line.contains(after)).unwrap_or_else(|| panic!("no {after}: {all}"));
        let share = line.split_whitespace().find_map(|word| word.strip_suffix('%')).expect("a share");
        share.parse::<f64>().expect("a number")
    };
    // Slices are measured by the clock: also where the machine is busy the spinner fills its worker.
    assert!(share("\"spinner\"") > 50.0 && share("spinners") > 50.0, "{all}");
    let text = narrow(&masked(&all));
    for part in ["looking for T\n", "worker busy CPU slices\n", "\nclass share ran\n", "\nshare ran task\n"] {
        assert!(text.contains(part), "no {part:?}: {all}");
    }
    assert!(console.ask("top 0").starts_with("top wants a time from 10ms to 60"));
    // Interrupted while it looks: the answer ends at once.
    let mut looks = console.connect();
    looks.write_all(b"top 60\n").expect("sent");
    let mut lines = BufReader::new(looks.try_clone().expect("a clone")).lines();
    let says = |lines: &mut dyn Iterator<Item = std::io::Result<String>>, what: &str| {
        assert!(lines.map_while(Result::ok).any(|line| line.contains(what)), "no {what}");
    };
    says(&mut lines, "looking for 60.0s");
    // Nobody turns round and round meanwhile.
    let (before, begun) = (console.cpu(), Instant::now());
    std::thread::sleep(Duration::from_millis(300));
    let (used, waited) = (console.cpu().saturating_sub(before), begun.elapsed());
    assert!(used < waited / 5, "{used:?} of CPU in {waited:?}");
    looks.write_all(b"\x03").expect("sent");
    says(&mut lines, "top: interrupted");
}

#[test]
fn the_process_and_its_threads() {
    let console = child_or("the_process_and_its_threads", "quiet");
    let threads = console.ask("threads 50ms");
    let rows = narrow(&masked(&threads));
    assert!(rows.lines().next().expect("a head").contains(" of them coro's own; CPU T in all"), "{threads}");
    assert!(rows.contains("\nname thread share CPU state what\n"), "{threads}");
    let row = |name: &str| threads.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{threads}"));
    assert!(row("coro-0").contains("worker 0") && row("coro-1").contains("worker 1"), "{threads}");
    assert!(row("coro-console").contains("coro's own") && row("coro-blocking").contains("coro's own"), "{threads}");
    let foreign = |line: &&str| !line.starts_with("coro-") && line.contains("%") && !line.contains("coro's own");
    // The test's own, which waits for the runtime, and the harness's main thread.
    assert!(threads.lines().filter(foreign).count() >= 1, "{threads}");

    let id = console.id("file");
    let blocking = console.ask("blocking");
    assert_eq!(
        narrow(&masked(&blocking)),
        "1 thread of at most 512, 0 idle; 1 job runs, 0 queued\nT for #N \"file\" at tests/console_commands.rs:L\n"
    );
    assert!(blocking.contains(&format!("#{id} ")), "{blocking}");

    let label = console.said(&format!("label {}", console.id("sleeper 2")));
    assert_eq!(
        label,
        "#N parked T \"sleeper 2\" sleep T left spawned at tests/console_commands.rs:L\n  req=4712\n  user=\\u{1b}[2Jeve\n"
    );
    let none = console.said(&format!("label #{id}"));
    assert!(none.ends_with("  no labels; coro::set_label in the task gives it one\n"), "{none}");
    assert!(console.ask("label 18446744073709551615").starts_with("no task #18446744073709551615: "));

    let version = console.ask("version");
    let pid = console.child.id();
    assert!(version.starts_with(&format!("coro {} in ", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.contains(&format!(", pid {pid}")) && version.contains("\nlinux, "), "{version}");
    let uptime = console.said("uptime");
    assert!(
        uptime.starts_with("up T, since ") && uptime.contains("; its runtime T; 2 workers; CPU T user, T system\n"),
        "{uptime}"
    );

    let histogram = console.said("histogram writers");
    assert!(histogram.starts_with("slices: how long a task keeps its worker; writers\n  "), "{histogram}");
    assert!(
        histogram.contains("#####\n\ndelays: from a wake-up to the slice that it leads to; writers\n"),
        "{histogram}"
    );
    assert!(console.ask("histogram").contains("; 6 classes\n"));
    assert_eq!(
        console.ask("histogram writer"),
        "no class of tasks is called \"writer\"; classes shows those that are: the nearest is histogram \"writers\"\n"
    );
}

#[test]
fn settings_change_what_they_say() {
    let console = child_or("settings_change_what_they_say", "quiet");
    let shown = "\
        set latency 200ms         50ms|off: slices that last longer are reported; stalls lists them (probe)\n\
        set selfishness 32        1..32768: I/O calls in a row that did not wait, after which a task gives way (act)\n\
        set blocking-threads 512  1..65536: threads that the pool of blocking jobs may have (act)\n";
    assert_eq!(console.ask("set"), shown);
    assert!(console.ask("latency").starts_with("200ms: slices that last longer are reported"));
    assert_eq!(console.ask("latency set 50ms"), "latency needs the tier probe: write first: enable probe\n");
    let answers = console.ask("enable probe\nlatency set 50ms\nset latency off\nlatency\nset selfishness 5");
    assert_eq!(
        answers,
        "this session may now probe\nlatency is 50ms, was 200ms\nlatency is off, was 50ms\n\
         off: no slice is reported, however long; latency set 200ms changes that\n\
         set needs the tier act: write first: enable act\n"
    );
    let answers = console.ask("enable act\nset selfishness 5\nset blocking-threads 3\nset blocking-threads 0");
    assert_eq!(
        answers,
        "this session may now act\nselfishness is 5, was 32\nblocking-threads is 3, was 512\n\
         blocking-threads takes a number from 1 to 65536, and \"0\" is none\n"
    );
}

#[test]
fn tasks_are_cancelled_by_id_or_by_exactly_as_many_as_match() {
    let console = child_or("tasks_are_cancelled_by_id_or_by_exactly_as_many_as_match", "quiet");
    let (one, two) = (console.id("sleeper 1"), console.id("reader"));
    assert_eq!(console.ask(&format!("cancel {one}")), "cancel needs the tier act: write first: enable act\n");
    let answer = console.said("enable act\ncancel --match \"*writer*\" --count 2\ncancel --match nobody --count 1");
    assert_eq!(
        answer,
        "this session may now act\n\
         nothing is cancelled: 3 tasks match, and 2 were expected; count by name shows them\n\
         nothing is cancelled: 0 tasks match, and 1 was expected; count by name shows them\n"
    );
    assert!(console.ask("tasks by=state").contains("9 of 9 tasks match"));
    let gone = |left: &str| {
        let end = Instant::now() + PATIENCE;
        while !console.ask("tasks by=state").contains(left) {
            assert!(Instant::now() < end, "{}", console.ask("tasks by=class"));
        }
    };
    let answer = console.said(&format!("enable act\ncancel {one} #{two} 999999999"));
    assert_eq!(
        answer,
        "this session may now act\n\
         #N parked T \"sleeper 1\" sleep T left spawned at tests/console_commands.rs:L: told to end\n\
         #N parked T \"reader\" read fd N 127.0.0.1:N → 127.0.0.1:N spawned at \
         tests/console_commands.rs:L: told to end\n\
         #N: no such task, it has ended or never was\n"
    );
    gone("7 of 7 tasks match");
    // By class.
    let answer = console.said("enable act\ncancel --count 3 --match writers");
    let lines: Vec<&str> = answer.lines().skip(1).collect();
    assert_eq!(lines.len(), 3, "{answer}");
    for line in lines {
        assert!(line.starts_with("#N parked T \"db writer ") && line.ends_with(": told to end"), "{answer}");
    }
    gone("4 of 4 tasks match");
}

#[test]
fn memory_is_given_back() {
    let console = child_or("memory_is_given_back", "memory");
    assert_eq!(console.ask("memory trim"), "memory needs the tier act: write first: enable act\n");
    let answer = console.ask("enable act\nmemory trim");
    let line = narrow(&masked(answer.lines().nth(1).expect("a line")));
    let (given, rest) = line.split_once(" unused stacks given back, ").unwrap_or_else(|| panic!("{answer}"));
    assert!(given.parse::<u32>().is_ok_and(|n| n > 0), "{answer}");
    assert!(rest.ends_with(" left in pools; resident B, was B\n"), "{answer}");
    assert_eq!(answer.lines().count(), 2, "{answer}");
    // There is nothing left to give.
    assert!(console.ask("enable act\nmemory trim").contains("\n0 unused stacks given back"));
}

#[test]
fn the_process_ends_only_by_its_own_number_and_says_so() {
    let mut console = child_or("the_process_ends_only_by_its_own_number_and_says_so", "quiet");
    let pid = console.child.id();
    assert_eq!(
        console.ask(&format!("process-exit 3 {pid}")),
        "process-exit needs the tier act: write first: enable act\n"
    );
    let refused = console.ask("enable act\nprocess-exit 3 1\nprocess-exit 3");
    assert_eq!(
        refused,
        format!(
            "this session may now act\nprocess-exit: this process is {pid}, not \"1\"; nothing is done\n\
             process-exit takes an exit code and this process's id: process-exit 0 {pid}\n"
        )
    );
    assert_eq!(
        console.ask(&format!("enable act\nprocess-exit 3 {pid}")),
        format!("this session may now act\nprocess {pid} exits with 3\n")
    );
    let status = console.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(3));
    assert!(!console.path.exists(), "the socket's file is still there");
}

#[cfg(feature = "serde")]
#[test]
fn rows_come_as_json_too() {
    let console = child_or("rows_come_as_json_too", "quiet");
    let values = |line: &str| -> Vec<serde_json::Value> {
        console
            .ask(line)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    };
    let tasks = values("tasks wait=lock sort=id --json");
    assert_eq!((tasks.len(), tasks[0]["head"]["rows"].as_u64()), (4, Some(3)), "{tasks:?}");
    assert_eq!(tasks[1]["task"]["name"], "db writer 1");
    assert_eq!(tasks[3]["task"]["wait"]["kind"], "lock");
    let groups = values("tasks by=class --json limit=1");
    assert_eq!((&groups[1]["group"]["group"], &groups[1]["group"]["tasks"]), (&"writers".into(), &3.into()));
    assert!(values("count by wait --json")[1]["group"]["change"].is_null());
    let again = values("count by wait --json");
    assert_eq!((&again[1]["group"]["group"], &again[1]["group"]["change"]), (&"lock".into(), &0.into()));
    let threads = values("threads --json 20ms");
    assert!(threads.iter().any(|t| t["thread"]["worker"] == "worker 1" && t["thread"]["ours"] == true), "{threads:?}");
    let blocking = values("blocking --json");
    assert_eq!((&blocking[1]["pool"]["limit"], blocking.len()), (&512.into(), 3), "{blocking:?}");
    let id = tasks[1]["task"]["id"].to_string();
    let one = values(&format!("where {id} --json"));
    assert_eq!((&one[0]["head"]["answer"], one.len()), (&"where".into(), 3), "{one:?}");
    assert_eq!((&one[2]["task"]["name"], &one[2]["task"]["stack"]), (&"db writer 1".into(), &0.into()));
    assert!(one[1]["stack"]["frames"].as_array().is_some_and(|frames| frames.len() > 1), "{one:?}");
    let status = &values("status --json")[1]["status"];
    assert!(status["waits"].as_array().is_some_and(|all| all.iter().any(|w| w["kind"] == "lock")), "{status}");
    let functions = values("functions --json");
    assert!(functions[1..].iter().all(|row| row["function"]["usage"].is_string()), "{functions:?}");
    let session = console.ask("#json\nwhere 18446744073709551615\ntasks name=reader\nlatency");
    assert!(session.contains("{\"error\":\"no task #") && session.contains("{\"done\":\"tasks\"}"), "{session}");
    let session = console.ask("#json\nlabel 18446744073709551615\ntasks name=reader\nlatency");
    assert!(session.contains("{\"error\":\"no task #") && session.contains("{\"done\":\"tasks\"}"), "{session}");
}
