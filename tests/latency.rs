//! Stalls are told while they last, once more when they are over, and nothing else is ever called one.
//!
//! Each case is a child process whose stderr is read line by line, with the time at which each line came.
#![cfg(all(target_os = "linux", not(any(miri, coro_thread_context))))]

mod util;

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use util::{again, role, runtime, until};

const PATIENCE: Duration = Duration::from_secs(30);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A line of the child's stderr, and when it came.
#[derive(Debug)]
struct Line {
    at: Instant,
    text: String,
}

impl Line {
    /// The seconds in the parentheses, and whether they go on.
    fn latency(&self) -> Option<(Duration, bool)> {
        let rest = self.text.get(24..)?.strip_prefix(" High Latency: (")?;
        let (seconds, rest) = rest.split_once('s')?;
        Some((Duration::from_secs_f64(seconds.parse().ok()?), rest.starts_with(" so far)")))
    }

    fn so_far(&self) -> bool {
        self.latency().is_some_and(|(_, so_far)| so_far)
    }

    fn closing(&self) -> bool {
        self.latency().is_some_and(|(_, so_far)| !so_far)
    }
}

/// Runs the child to its end; `meanwhile` sees it once it runs.
#[track_caller]
fn lines_while(test: &str, case: &str, meanwhile: impl FnOnce(&Child)) -> Vec<Line> {
    lines_within(PATIENCE, test, case, meanwhile)
}

#[track_caller]
fn lines_within(limit: Duration, test: &str, case: &str, meanwhile: impl FnOnce(&Child)) -> Vec<Line> {
    let mut child = again(test, case).spawn().expect("a child");
    let stderr = BufReader::new(child.stderr.take().expect("stderr"));
    let reader = std::thread::spawn(move || {
        let lines = stderr.lines().map_while(Result::ok);
        lines.map(|text| Line { at: Instant::now(), text }).collect::<Vec<_>>()
    });
    meanwhile(&child);
    let mut status = None;
    until(limit, "the end of the child", || {
        status = child.try_wait().expect("a child");
        status.is_some()
    });
    let lines = reader.join().expect("the reader");
    assert!(status.is_some_and(|s| s.success()), "{case}: {status:?} {lines:#?}");
    lines
}

#[track_caller]
fn lines(test: &str, case: &str) -> Vec<Line> {
    lines_while(test, case, |_| {})
}

/// Runs the child until `check` has nothing to say against what it wrote. On a machine that is busy with other things a
/// slice may last longer than it would, and time in which the whole process gets no CPU counts for nobody.
#[track_caller]
fn some_run(test: &str, case: &str, check: impl Fn(&[Line]) -> Result<(), String>) {
    let mut tried = Vec::new();
    for _ in 0..5 {
        let lines = lines(test, case);
        match check(&lines) {
            Ok(()) => return,
            Err(why) => tried.push((why, lines)),
        }
    }
    panic!("{tried:#?}");
}

fn ensure(yes: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if yes { Ok(()) } else { Err(why()) }
}

fn about<'a>(lines: &'a [Line], name: &str) -> Vec<&'a Line> {
    stalls(lines).into_iter().filter(|l| l.text.contains(&format!("name='{name}'"))).collect()
}

/// One line or more while it lasts, then one.
fn told_and_closed(lines: &[Line], name: &str) -> Result<(), String> {
    let of = about(lines, name);
    let closing = of.iter().filter(|l| l.closing()).count();
    ensure(of.len() >= 2 && of[0].so_far() && closing == 1 && of[of.len() - 1].closing(), || name.into())
}

fn stalls(lines: &[Line]) -> Vec<&Line> {
    lines.iter().filter(|l| l.latency().is_some()).collect()
}

/// Numbers become `N`.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let hex = c == '0' && chars.peek() == Some(&'x');
        if hex {
            chars.next();
        }
        if hex || c.is_ascii_digit() {
            while chars.next_if(|c| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() }).is_some() {}
            out.push('N');
        } else {
            out.push(c);
        }
    }
    out
}

/// The first look at the symbols and lines of a program of fifty megabytes, by code without optimisation, takes longer than
/// the slices that are played here.
fn look_once() {
    coro::set_latency_warning(Duration::ZERO);
    let all = runtime(1).block_on(|| {
        coro::spawn(|| coro::sleep(ms(1)));
        coro::yield_slice();
        coro::where_all().iter().map(ToString::to_string).collect::<String>()
    });
    assert!(all.contains("look_once::{closure"), "{all}");
}

/// What the test program does in each of its roles. Never returns.
fn child(case: &str) -> ! {
    look_once();
    match case {
        "spin" => {
            coro::set_latency_warning(ms(50));
            let rt = runtime(1);
            rt.block_on(|| {
                coro::spawn(coro::yield_slice);
                coro::spawn_named("db writer", || {
                    spin(ms(410));
                    coro::sleep(ms(1));
                })
                .join()
                .unwrap();
            });
        }
        "lines" => {
            coro::set_latency_warning(ms(30));
            let rt = runtime(1);
            rt.block_on(|| coro::spawn_named("reader", || read_for(ms(400))).join().unwrap());
            // The lines are remembered once they are written.
            until(PATIENCE, "the lines", || coro::report::stalls().iter().any(|s| s.stack.contains("read_for|")));
        }
        "handler" => {
            use coro::report::{Report, set_report_handler};
            let (sender, reports) = std::sync::mpsc::channel();
            let before =
                set_report_handler(Some(std::sync::Arc::new(move |r: &Report| sender.send(r.clone()).unwrap())));
            assert!(before.is_none());
            coro::set_latency_warning(ms(30));
            let rt = runtime(1);
            rt.block_on(|| {
                coro::spawn(|| ());
                coro::spawn_named("told", || {
                    coro::set_label("req", 17);
                    read_for(ms(400));
                })
                .join()
                .unwrap();
            });
            let next = || reports.recv_timeout(PATIENCE).unwrap();
            let Report::Stall(first) = next() else { panic!("not a stall") };
            assert_eq!(first.task.name.as_deref(), Some("told"));
            assert!(first.lasted >= ms(29) && first.threshold > ms(29) && first.threshold < ms(31), "{first:?}");
            assert!(first.stack.contains(" read_for|") && !first.verdict.is_empty(), "{first:?}");
            assert_eq!((first.worker, first.suppressed), (0, 0));
            let ended = loop {
                match next() {
                    Report::StallEnded(ended) => break ended,
                    Report::Stall(more) => assert!(more.lasted >= first.lasted && more.task.id == first.task.id),
                    other => panic!("{other:?}"),
                }
            };
            assert!(ended.task.id == first.task.id && ended.lasted >= first.lasted, "{ended:?}");
            // Kept, once, with what it came to.
            let kept = coro::report::stalls();
            assert_eq!((kept.len(), kept[0].count), (1, 1), "{kept:?}");
            assert!(kept[0].site.ends_with("read_for") && kept[0].stack.contains(" read_for|"), "{kept:?}");
            assert!(kept[0].message.ends_with(&format!("s, task #{} \"told\"", first.task.id)), "{kept:?}");
            say("DONE");
        }
        "quick" => {
            coro::set_latency_warning(ms(50));
            let rt = runtime(1);
            for _ in 0..7 {
                rt.block_on(|| {
                    say("BEGIN");
                    spin(ms(85));
                });
            }
        }
        "figures" => {
            coro::set_latency_warning(ms(50));
            let rt = runtime(1);
            for _ in 0..20 {
                rt.block_on(|| {
                    say("BEGIN");
                    let end = Instant::now() + ms(3000);
                    while Instant::now() < end {
                        std::hint::spin_loop();
                    }
                });
            }
        }
        "among" => {
            coro::set_latency_warning(ms(50));
            let rt = runtime(1);
            rt.block_on(|| {
                let task = |n: usize| match n % 10_000 {
                    5_000 => coro::spawn_named("slow", || {
                        let begun = Instant::now();
                        spin(ms(110));
                        say(&format!("TOOK {}", begun.elapsed().as_millis()));
                    }),
                    _ => coro::spawn_named("quick", || ()),
                };
                for _ in 0..3 {
                    let tasks: Vec<_> = (0..10_000).map(task).collect();
                    tasks.into_iter().for_each(|t| t.join().unwrap());
                }
            });
        }
        "ends" => {
            coro::set_latency_warning(ms(30));
            let rt = runtime(1);
            rt.block_on(|| {
                let it = |name: &str, then: fn()| {
                    coro::spawn_named(name, move || {
                        spin(ms(50));
                        then();
                    })
                };
                for task in [it("ends", || ()), it("yields", coro::yield_slice), it("parks", || coro::sleep(ms(1)))] {
                    task.join().unwrap();
                }
                // The threshold is taken back while the stall lasts: the last line comes all the same.
                coro::spawn_named("forgiven", || {
                    spin(ms(50));
                    coro::set_latency_warning(Duration::ZERO);
                    spin(ms(20));
                })
                .join()
                .unwrap();
            });
            // Nobody but the watchdog knows of this one.
            std::thread::sleep(ms(300));
        }
        "off" => {
            coro::set_latency_warning(Duration::ZERO);
            runtime(1).block_on(|| spin(ms(300)));
        }
        "own" => {
            coro::set_latency_warning(ms(200));
            let rt = runtime(1);
            rt.block_on(|| {
                let with = |name: &str, own: Duration| coro::Builder::new().name(name).latency_warning(own);
                with("never", Duration::ZERO).spawn(|| spin(ms(210))).unwrap().join().unwrap();
                with("patient", ms(60_000)).spawn(|| spin(ms(210))).unwrap().join().unwrap();
                with("strict", ms(5)).spawn(|| spin(ms(15))).unwrap().join().unwrap();
                coro::spawn_named("easy", || spin(ms(20))).join().unwrap();
                coro::spawn_named("changed", || {
                    assert_eq!(coro::set_own_latency_warning(ms(5)), ms(200));
                    assert_eq!(coro::set_own_latency_warning(ms(5)), ms(5));
                    spin(ms(15));
                    assert_eq!(coro::set_own_latency_warning(Duration::ZERO), ms(5));
                    coro::yield_slice();
                    spin(ms(210));
                })
                .join()
                .unwrap();
            });
        }
        "parked" => {
            coro::set_latency_warning(ms(10));
            let rt = runtime(2);
            rt.block_on(|| {
                let (sender, receiver) = coro::sync::mpsc::channel::<()>();
                let parked = [
                    coro::spawn(|| coro::sleep(ms(400))),
                    coro::spawn(move || assert!(receiver.recv().is_err())),
                    // Runs often, never for long.
                    coro::spawn(|| (0..400).for_each(|_| coro::sleep(ms(1)))),
                ];
                coro::sleep(ms(400));
                drop(sender);
                parked.into_iter().for_each(|t| t.join().unwrap());
            });
        }
        "storm" => {
            coro::set_latency_warning(ms(10));
            let rt = runtime(2);
            rt.block_on(|| {
                let slices = |n| {
                    (0..n).for_each(|_| {
                        spin(ms(25));
                        coro::yield_slice();
                    });
                };
                let two = [coro::spawn(move || slices(60)), coro::spawn(move || slices(60))];
                two.into_iter().for_each(|t| t.join().unwrap());
                coro::sleep(ms(3500));
                say("AGAIN");
                slices(1);
            });
        }
        "stopped" => {
            coro::set_latency_warning(ms(200));
            let rt = runtime(1);
            rt.block_on(|| {
                say("BEGIN");
                let end = Instant::now() + ms(2500);
                while Instant::now() < end {
                    spin(ms(20));
                    coro::yield_slice();
                }
            });
        }
        "remade" => {
            coro::set_latency_warning(ms(30));
            for name in ["first", "second", "third"] {
                let rt = runtime(1);
                rt.block_on(|| coro::spawn_named(name, || spin(ms(50))).join().unwrap());
                drop(rt);
                // Long enough for the watchdog to doze off.
                std::thread::sleep(ms(300));
            }
        }
        "mutex" => {
            coro::set_latency_warning(ms(40));
            let rt = runtime(1);
            let lock = std::sync::Arc::new(std::sync::Mutex::new(()));
            let theirs = lock.clone();
            let holder = rt.spawn(move || {
                let _guard = theirs.lock().unwrap();
                coro::sleep(PATIENCE);
            });
            until(PATIENCE, "the lock to be taken", || lock.try_lock().is_err());
            let _stuck = rt.block_on(move || coro::spawn_named("second", move || drop(lock.lock())));
            until(PATIENCE, "the stall", || !coro::report::stalls().is_empty());
            assert!(!holder.is_finished());
            std::process::exit(0);
        }
        "loader" => {
            coro::set_latency_warning(ms(40));
            runtime(1).block_on(|| coro::spawn_named("in the loader", in_the_loader).join().unwrap());
        }
        "forks" => {
            coro::set_latency_warning(ms(40));
            let rt = runtime(1);
            let status = rt.block_on(|| {
                spin(ms(60));
                // SAFETY: the child does nothing but spin and end.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    spin(ms(100));
                    std::process::exit(0);
                }
                let mut status = -1;
                // SAFETY: our own child.
                unsafe { libc::waitpid(pid, &mut status, 0) };
                status
            });
            assert_eq!(status, 0);
        }
        other => panic!("no such case: {other}"),
    }
    std::process::exit(0);
}

/// One line to stderr, at once and past every buffer.
fn say(text: &str) {
    let line = format!("{text}\n");
    // SAFETY: the bytes live across the call.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}

/// So much CPU time: however busy the machine is, nobody can say that this thread did not run.
#[inline(never)]
fn spin(time: Duration) {
    let end = cpu_time() + time;
    while cpu_time() < end {
        std::hint::spin_loop();
    }
}

/// Of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills the time.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Blocks the thread, however busy the machine is.
#[inline(never)]
fn read_for(time: Duration) {
    let (mut from, to) = std::io::pipe().unwrap();
    let end = Instant::now() + time;
    // Whoever ends it does so when that time has passed for a thread that runs.
    let writer = std::thread::spawn(move || {
        while Instant::now() < end {
            std::thread::sleep(ms(1));
        }
        drop(to);
    });
    assert_eq!(std::io::Read::read(&mut from, &mut [0]).unwrap(), 0);
    writer.join().unwrap();
}

#[inline(never)]
fn in_the_loader() {
    unsafe extern "C" fn held(_: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> libc::c_int {
        spin(ms(150));
        1
    }
    // SAFETY: the callback looks at nothing.
    unsafe { libc::dl_iterate_phdr(Some(held), std::ptr::null_mut()) };
}

macro_rules! roles {
    () => {
        if let Some(case) = role() {
            child(&case);
        }
    };
}

#[test]
fn a_stall_is_told_while_it_lasts_and_once_more_when_it_is_over() {
    roles!();
    some_run("a_stall_is_told_while_it_lasts_and_once_more_when_it_is_over", "spin", |lines| {
        told_and_closed(lines, "db writer")?;
        let stalls = about(lines, "db writer");
        let told: Vec<u128> =
            stalls.iter().filter(|l| l.so_far()).map(|l| l.latency().unwrap().0.as_millis()).collect();
        // 50, 100, 200, 400 ms: each at least twice the one before, and more on a busy machine.
        let each = told.iter().zip([50, 100, 200, 400]).all(|(told, at)| *told >= at);
        ensure((2..=6).contains(&told.len()) && each, || format!("{told:?}"))?;
        let last = stalls[told.len()];
        assert!(last.latency().unwrap().0 >= ms(409).max(stalls[told.len() - 1].latency().unwrap().0), "{lines:#?}");
        let golden = "Ddd Mmm DD N:N:N N High Latency: (N.Ns) for <coro #N name='db writer' dead=N started=N scheduled=N at \
                      N> utc=N-N-NTN:N:N.NZ pid=N worker=N";
        assert_eq!(format!("Ddd Mmm DD{}", masked(&last.text[10..])), golden);
        assert!(last.text.contains(" dead=0 started=1 scheduled=0 at 0x"), "{lines:#?}");
        let golden = "Ddd Mmm DD N:N:N N High Latency: (N.Ns so far) for <coro #N name='db writer' dead=N started=N \
                      scheduled=N at N> utc=N-N-NTN:N:N.NZ pid=N worker=N thread=N cpu=N.Ns of N.Ns run_delay=N.Ns state=R \
                      spinning, N task waits behind";
        // The thread is not to blame for a machine that has no CPU for it, and the line says so.
        let second = format!("Ddd Mmm DD{}", masked(&stalls[1].text[10..])).replace("R not scheduled", "R spinning");
        ensure(second.starts_with(golden), || second)?;
        // Who is at fault, named by the watchdog itself.
        let named = |l: &&&Line| l.text.contains(" [spin+0x") && l.text.contains(" [child::{closure}+0x");
        ensure(stalls.iter().filter(|l| l.so_far()).all(|l| named(&l)), || "no names".into())
    });
}

#[test]
fn lines_follow_and_a_handler_gets_everything_instead() {
    roles!();
    let test = "lines_follow_and_a_handler_gets_everything_instead";
    some_run(test, "lines", |lines| {
        told_and_closed(lines, "reader")?;
        let with_lines = lines.iter().find(|l| l.text.starts_with("coro: task "));
        let text = with_lines.map_or(String::new(), |l| masked(&l.text));
        let fine = text.starts_with("coro: task N (reader) after N.Ns on worker N: [")
            && text.contains("] [tests/latency.rs read_for|N] [tests/latency.rs child::{closure}|N]");
        ensure(fine, || text)
    });
    let lines = lines(test, "handler");
    assert_eq!(stalls(&lines).len(), 0, "not on stderr as well: {lines:#?}");
    assert!(lines.iter().any(|l| l.text == "DONE"), "{lines:#?}");
}

/// How long after the beginning of each stall its first line came, and the one with files and lines.
fn first_lines(lines: &[Line]) -> Vec<(Duration, Option<Duration>)> {
    let begun = lines.iter().filter(|l| l.text == "BEGIN");
    let stalls = lines.split(|l| l.text == "BEGIN").skip(1).zip(begun);
    let of = |(after, begin): (&[Line], &Line)| {
        let first = after.iter().find(|l| l.so_far())?;
        let named = after.iter().find(|l| l.text.starts_with("coro: task "));
        Some((first.at - begin.at, named.map(|l| l.at - begin.at)))
    };
    stalls.filter_map(of).collect()
}

#[test]
fn the_first_line_comes_soon_after_the_threshold() {
    roles!();
    some_run("the_first_line_comes_soon_after_the_threshold", "quick", |lines| {
        let mut late = first_lines(lines);
        late.sort_unstable();
        let closed = stalls(lines).iter().filter(|l| l.closing()).count();
        // 55 ms where there is nothing else to do.
        let fine = late.len() == 7 && closed == 7 && late[3].0 < ms(1000);
        ensure(fine, || format!("{closed} {late:?}"))
    });
}

/// Takes a minute and wants a machine that has nothing else to do: `cargo test --release --test latency -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn figures() {
    // A test that is not ignored plays the role.
    let lines = lines_within(ms(120_000), "the_first_line_comes_soon_after_the_threshold", "figures", |_| {});
    let late = first_lines(&lines);
    let median = |mut of: Vec<Duration>| {
        of.sort_unstable();
        of.get(of.len() / 2).copied()
    };
    println!("first line of {}: median {:?}", late.len(), median(late.iter().map(|l| l.0).collect()));
    println!("files and lines: median {:?}, first {:?}", median(late.iter().filter_map(|l| l.1).collect()), late[0].1);
    assert_eq!((late.len(), stalls(&lines).iter().filter(|l| l.closing()).count()), (20, 20));
}

#[test]
fn the_closing_line_says_what_became_of_the_task() {
    roles!();
    some_run("the_closing_line_says_what_became_of_the_task", "ends", |lines| {
        for (name, state) in [
            ("ends", "dead=1 started=1 scheduled=0"),
            ("yields", "dead=0 started=1 scheduled=1"),
            ("parks", "dead=0 started=1 scheduled=0"),
            ("forgiven", "started=1"),
        ] {
            told_and_closed(lines, name)?;
            let closing = about(lines, name).into_iter().find(|l| l.closing()).unwrap();
            assert!(closing.text.contains(state), "{name}: {lines:#?}");
        }
        Ok(())
    });
}

/// Tasks that end at once are timed several together: the one among them that does not is told by its own name, and
/// its length is its own.
#[test]
fn a_stall_among_many_short_tasks_is_told_by_its_name() {
    roles!();
    some_run("a_stall_among_many_short_tasks_is_told_by_its_name", "among", |lines| {
        ensure(about(lines, "quick").is_empty(), || "quick".into())?;
        let closing: Vec<_> = about(lines, "slow").into_iter().filter(|l| l.closing()).collect();
        let took: Vec<u64> = lines.iter().filter_map(|l| l.text.split_once("TOOK ")?.1.parse().ok()).collect();
        ensure(closing.len() == 3 && took.len() == 3, || "three".into())?;
        ensure(stalls(lines).iter().filter(|l| l.closing()).count() == 3, || "others".into())?;
        for (line, took) in closing.into_iter().zip(took) {
            let (lasted, _) = line.latency().unwrap();
            ensure((ms(109)..ms(took + 10)).contains(&lasted), || format!("{lasted:?} of {took} ms"))?;
        }
        Ok(())
    });
}

#[test]
fn what_is_switched_off_is_not_told_and_every_task_may_have_a_threshold_of_its_own() {
    roles!();
    let test = "what_is_switched_off_is_not_told_and_every_task_may_have_a_threshold_of_its_own";
    let off = lines(test, "off");
    assert_eq!(stalls(&off).len(), 0, "{off:#?}");
    some_run(test, "own", |own| {
        for name in ["never", "patient", "easy"] {
            ensure(about(own, name).is_empty(), || name.into())?;
        }
        told_and_closed(own, "strict")?;
        // Only the first of its two long slices.
        told_and_closed(own, "changed")
    });
}

/// On a busy machine a slice may really last longer than it would: some run must be free of lines.
#[track_caller]
fn some_run_without(mut run: impl FnMut() -> Vec<Line>) {
    let mut tried = Vec::new();
    for _ in 0..4 {
        let lines = run();
        if stalls(&lines).is_empty() {
            return;
        }
        tried.push(lines);
    }
    panic!("{tried:#?}");
}

#[test]
fn a_parked_task_is_never_told() {
    roles!();
    some_run_without(|| lines("a_parked_task_is_never_told", "parked"));
}

#[test]
fn a_process_that_was_stopped_has_no_stall() {
    roles!();
    some_run_without(|| {
        lines_while("a_process_that_was_stopped_has_no_stall", "stopped", |child| {
            for _ in 0..3 {
                std::thread::sleep(ms(150));
                // SAFETY: our own child, which was not waited for.
                unsafe { libc::kill(child.id() as i32, libc::SIGSTOP) };
                std::thread::sleep(ms(500));
                // SAFETY: as above.
                unsafe { libc::kill(child.id() as i32, libc::SIGCONT) };
            }
        })
    });
}

#[test]
fn a_storm_of_stalls_does_not_flood_and_says_what_it_left_out() {
    roles!();
    some_run("a_storm_of_stalls_does_not_flood_and_says_what_it_left_out", "storm", |lines| {
        let again = lines.iter().position(|l| l.text == "AGAIN").expect("the second part");
        let (storm, after) = (stalls(&lines[..again]), stalls(&lines[again..]));
        // Of 120, at most 20 at once and 10 repeated, some come back meanwhile; each with its closing line.
        assert!(storm.len() <= 80, "{lines:#?}");
        let count = |l: &&Line| l.text.split_once(" suppressed=")?.1.split(' ').next()?.parse::<u64>().ok();
        let left_out: u64 = after.iter().chain(&storm).filter_map(count).sum();
        ensure(storm.len() >= 20 && left_out >= 60, || format!("{left_out}"))
    });
}

#[test]
fn a_runtime_that_is_made_anew_is_watched_as_well() {
    roles!();
    some_run("a_runtime_that_is_made_anew_is_watched_as_well", "remade", |lines| {
        ["first", "second", "third"].iter().try_for_each(|name| told_and_closed(lines, name))
    });
}

#[test]
fn a_std_lock_that_a_parked_task_holds_is_told_as_what_it_is() {
    roles!();
    some_run("a_std_lock_that_a_parked_task_holds_is_told_as_what_it_is", "mutex", |lines| {
        let of = about(lines, "second");
        ensure(of.first().is_some_and(|l| l.so_far() && l.text.contains(" state=S blocked in futex, ")), String::new)
    });
}

#[test]
fn a_task_that_holds_the_loaders_lock_is_told() {
    roles!();
    some_run("a_task_that_holds_the_loaders_lock_is_told", "loader", |lines| {
        told_and_closed(lines, "in the loader")?;
        ensure(about(lines, "in the loader")[0].latency().unwrap().0 < ms(100), String::new)
    });
}

#[test]
fn a_forked_child_tells_nothing() {
    roles!();
    let lines = lines("a_forked_child_tells_nothing", "forks");
    let pids: Vec<&str> =
        stalls(&lines).iter().filter_map(|l| l.text.split("pid=").nth(1)?.split(' ').next()).collect();
    assert!(!pids.is_empty() && pids.iter().all(|p| *p == pids[0]), "{lines:#?}");
}
