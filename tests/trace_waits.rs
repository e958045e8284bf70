//! The call logs of locks, channels and timers: what their lines say, calls that wait seen while they do, only what is asked for, and
//! nothing lost when a telling is unwound.
#![cfg(all(target_os = "linux", not(miri)))]

mod util;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coro::probe;
use coro::sync::{Condvar, Mutex, RwLock, Semaphore, mpmc, mpsc, oneshot};
use coro::time;
use util::sockets::{Directory, parked};
use util::traces::{Ended, LIMIT, alone, masked, nothing_is_watched, traced};
use util::{again, finish, role, runtime, until, within};

/// The lines, with `:L` for where something was made.
fn placed(lines: &[String]) -> String {
    let mut out = String::new();
    for line in lines {
        let mut rest = line.as_str();
        while let Some(at) = rest.find("tests/trace_waits.rs:") {
            out.push_str(&rest[..at]);
            out.push('L');
            rest = rest[at + "tests/trace_waits.rs:".len()..].trim_start_matches(|c: char| c.is_ascii_digit());
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
}

#[test]
fn every_call_of_a_lock_is_told() {
    let _one = alone();
    let lines = traced(probe::locks(), || {
        let pool = Mutex::new(0).named("db pool");
        let held = pool.lock().unwrap();
        assert!(pool.try_lock().is_err());
        drop(held);
        drop(pool.try_lock().unwrap());
        let table = RwLock::new(0);
        let (first, second) = (table.read().unwrap(), table.try_read().unwrap());
        assert!(table.try_write().is_err());
        drop((first, second));
        drop(table.write().unwrap());
        let permits = Semaphore::new(2).named("downloads");
        let two = permits.acquire_many(2);
        assert!(permits.try_acquire().is_none());
        assert!(permits.acquire_timeout(Duration::from_millis(1)).is_none());
        drop(two);
        let told = Condvar::new().named("told");
        let (held, late) = told.wait_timeout(pool.lock().unwrap(), Duration::from_millis(1)).unwrap();
        assert!(late.timed_out());
        drop(held);
    });
    let expected = "\
lock(\"db pool\" L), #N
lock(\"db pool\" L) => () in N s, #N
try_lock(\"db pool\" L) => false, held by #N, #N
unlock(\"db pool\" L), #N
try_lock(\"db pool\" L) => true, #N
unlock(\"db pool\" L), #N
read(L), #N
read(L) => () in N s, #N
try_read(L) => true, held by 1 reader, #N
try_write(L) => false, held by 2 readers, #N
unlock(L), #N
unlock(L), #N
write(L), #N
write(L) => () in N s, #N
unlock(L), #N
acquire(\"downloads\" L), 2 wanted, 2 free, #N
acquire(\"downloads\" L) => () in N s, #N
try_acquire(\"downloads\" L) => false, 1 wanted, 0 free, #N
acquire(\"downloads\" L), 1 wanted, 0 free, #N
acquire(\"downloads\" L) ~ timed out in N s, #N
release(\"downloads\" L), 2 given back, #N
lock(\"db pool\" L), #N
lock(\"db pool\" L) => () in N s, #N
wait(\"told\" L), #N
wait(\"told\" L) ~ timed out in N s, #N
unlock(\"db pool\" L), #N
";
    assert_eq!(placed(&lines), expected);
}

#[test]
fn every_call_of_a_channel_is_told() {
    let _one = alone();
    let lines = traced(probe::channels(), || {
        let (tx, rx) = mpsc::sync_channel_named("jobs", 1);
        tx.send(7_u8).unwrap();
        assert!(tx.try_send(8).is_err());
        assert_eq!(rx.recv(), Ok(7));
        assert!(rx.try_recv().is_err());
        assert!(rx.recv_timeout(Duration::from_millis(1)).is_err());
        drop(tx);
        assert!(rx.recv().is_err());
        drop(rx);
        let (tx, rx) = mpmc::channel::<String>();
        drop(rx);
        assert!(tx.send("nobody".into()).is_err());
        drop(tx);
        let (tx, rx) = oneshot::channel_named("answer");
        tx.send(1_u32).unwrap();
        assert_eq!(rx.recv(), Ok(1));
        let (tx, rx) = mpmc::channel_named("chosen");
        tx.send(1_i64).unwrap();
        coro::select! {
            recv(rx) -> got => assert_eq!(got, Ok(1)),
        }
        drop(tx);
        drop(rx);
    });
    let expected = "\
send(\"jobs\" L), 0 queued, #N
send(\"jobs\" L) => () in N s, #N
try_send(\"jobs\" L) ~ full, 1 queued, #N
recv(\"jobs\" L), 1 queued, #N
recv(\"jobs\" L) => <u8> in N s, #N
try_recv(\"jobs\" L) ~ empty, 0 queued, #N
recv(\"jobs\" L), 0 queued, #N
recv(\"jobs\" L) ~ timed out in N s, #N
close(\"jobs\" L) by the last sender, #N
recv(\"jobs\" L), 0 queued, #N
recv(\"jobs\" L) ~ disconnected in N s, #N
close(\"jobs\" L) by the last receiver, #N
close(L) by the last receiver, #N
send(L), 0 queued, #N
send(L) ~ disconnected in N s, #N
close(L) by the last sender, #N
send(\"answer\" L), 0 queued, #N
send(\"answer\" L) => () in N s, #N
recv(\"answer\" L), 1 queued, #N
recv(\"answer\" L) => <u32> in N s, #N
send(\"chosen\" L), 0 queued, #N
send(\"chosen\" L) => () in N s, #N
recv(\"chosen\" L), 0 queued, #N
recv(\"chosen\" L) => <i64> in N s, #N
close(\"chosen\" L) by the last sender, #N
close(\"chosen\" L) by the last receiver, #N
";
    assert_eq!(placed(&lines), expected);
}

#[test]
fn sleeps_and_limits_are_told() {
    let _one = alone();
    let lines = traced(probe::timers(), || {
        time::timeout(Duration::from_secs(5), || coro::sleep(Duration::from_millis(3))).unwrap();
        time::timeout(Duration::from_millis(2), || coro::sleep(Duration::from_secs(50))).unwrap_err();
        time::timeout(Duration::from_millis(0), || ()).ok();
        coro::time::sleep_until(Instant::now());
    });
    let expected = "\
timeout(5s), #N
sleep(3ms), #N
sleep(3ms) => () in N s, #N
timeout(5s) => () in N s, #N
timeout(2ms), #N
sleep(50s), #N
sleep(50s) ~ unwinds in N s, #N
timeout(2ms) ~ expired in N s, #N
timeout(0ns), #N
timeout(0ns) ~ expired, and ended all the same in N s, #N
sleep(0ns), #N
sleep(0ns) => () in N s, #N
";
    assert_eq!(placed(&lines), expected);
}

/// Who waits already comes first, and with its holder; then its end, and the end of who is cancelled.
#[test]
fn a_call_that_waits_is_seen_while_it_does() {
    let _one = alone();
    within(LIMIT, || {
        runtime(2).block_on(|| {
            let pool = Arc::new(Mutex::new(0).named("db pool"));
            let (tx, rx) = mpmc::channel_named::<u8>("jobs");
            let held = pool.lock().unwrap();
            let me = coro::current().unwrap().id();
            let early = parked(1, {
                let pool = pool.clone();
                move || drop(pool.lock())
            });
            let receiver = parked(1, move || rx.recv().is_ok());
            let sleeper = parked(1, || coro::sleep(Duration::from_secs(100)));
            let [locks, channels, timers] =
                [probe::locks(), probe::channels(), probe::timers()].map(|trace| trace.keep_lines().start().unwrap());
            let waits = format!(" held by #{me} \"");
            let lines = locks.lines();
            assert!(
                lines[0].starts_with("lock \"db pool\" tests/trace_waits.rs:") && lines[0].contains(&waits),
                "{lines:?}"
            );
            assert!(lines[0].contains(" waits for ") && lines[0].ends_with(&format!(", #{}", early.id())), "{lines:?}");
            assert_eq!(lines.len(), 1, "{lines:?}");
            let lines = channels.lines();
            let told = |line: &String| {
                line.starts_with("recv channel \"jobs\"") && line.ends_with(&format!(", #{}", receiver.id()))
            };
            assert!(lines.len() == 1 && told(&lines[0]), "{lines:?}");
            let lines = timers.lines();
            let told = |line: &String| line.starts_with("sleep ") && line.ends_with(&format!(", #{}", sleeper.id()));
            assert!(lines.len() == 1 && told(&lines[0]), "{lines:?}");

            let late = parked(1, {
                let pool = pool.clone();
                move || drop(pool.lock())
            });
            let lines = locks.lines();
            let told = format!("), held by #{me}, #{}", late.id());
            assert!(lines.len() == 1 && lines[0].ends_with(&told), "{lines:?}");
            late.cancel();
            until(LIMIT, "it ends", || late.is_finished());
            let lines = locks.lines();
            assert!(lines.len() == 1 && lines[0].contains(") ~ unwinds in "), "{lines:?}");
            drop(held);
            early.join().unwrap();
            tx.send(1).unwrap();
            assert!(receiver.join().unwrap());
            sleeper.cancel();
        });
    });
}

#[test]
fn only_what_is_asked_for_is_told() {
    let _one = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            let (pool, cache) = (Arc::new(Mutex::new(0).named("db pool")), Mutex::new(0));
            let place = line!() - 1;
            let started = |trace: probe::Trace| trace.keep_lines().start().unwrap();
            let by_name = started(probe::locks().named("db *"));
            let by_place = started(probe::locks().named(format!("trace_waits.rs:{place}")));
            let by_task = started(probe::locks().task(coro::current().unwrap().id()).stack());
            let waits = started(probe::locks().waits());
            let nobody = started(probe::locks().named("pool"));
            let held = pool.lock().unwrap();
            drop(cache.lock());
            let waiter = coro::spawn({
                let pool = pool.clone();
                move || drop(pool.lock())
            });
            coro::thread::yield_now();
            drop(held);
            waiter.join().unwrap();
            let [by_name, by_place, by_task, waits, nobody] =
                [&by_name, &by_place, &by_task, &waits, &nobody].map(|trace| trace.lines());
            assert_eq!(by_name.len(), 6, "{by_name:?}");
            assert!(by_name.iter().all(|line| line.contains("\"db pool\"")), "{by_name:?}");
            assert_eq!(by_place.len(), 9, "{by_place:?}");
            assert_eq!(by_task.len(), 6, "{by_task:?}");
            assert!(by_task.iter().filter(|line| line.contains("[tests/trace_waits.rs ")).count() == 4, "{by_task:?}");
            let waits: Vec<String> = waits.iter().map(|line| masked(line)).collect();
            let expected = "lock(\"db pool\" L), held by #N, #N\nlock(\"db pool\" L) => () in N s, #N\n";
            assert_eq!(placed(&waits), expected);
            assert_eq!(nobody, [""; 0]);
        });
    });
}

/// A breakpoint where a call returns, and the task that stands there is cancelled: what the call had taken is given back.
#[test]
fn what_a_call_has_taken_is_given_back_if_its_telling_is_unwound() {
    let _one = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            let pool = Arc::new(Mutex::new(0));
            let table = Arc::new(RwLock::new(0));
            let permits = Arc::new(Semaphore::new(3));
            for (point, call) in [
                (
                    "lock",
                    Box::new({
                        let pool = pool.clone();
                        move || drop(pool.lock())
                    }) as Box<dyn FnOnce() + Send>,
                ),
                (
                    "try_lock",
                    Box::new({
                        let pool = pool.clone();
                        move || drop(pool.try_lock())
                    }),
                ),
                (
                    "read",
                    Box::new({
                        let table = table.clone();
                        move || drop(table.read())
                    }),
                ),
                (
                    "write",
                    Box::new({
                        let table = table.clone();
                        move || drop(table.write())
                    }),
                ),
                (
                    "acquire",
                    Box::new({
                        let permits = permits.clone();
                        move || drop(permits.acquire_many(2))
                    }),
                ),
            ] {
                let name = format!("coro::sync::{point}");
                let breaks = probe::attach_to(name.as_str()).keep_lines().instruments("break(end)").start().unwrap();
                let task = coro::spawn(call);
                until(LIMIT, "it stands there", || breaks.lines().iter().any(|line| line.contains(" stopped: ")));
                task.cancel();
                until(LIMIT, "it ends", || task.is_finished());
                drop(breaks);
                assert_eq!(permits.available_permits(), 3, "{point}");
                assert!(pool.try_lock().is_ok() && table.try_write().is_ok(), "{point}: it is held");
            }
        });
    });
}

/// A thousand tasks that lock, send and sleep while traces come and go: nothing is lost, nothing is left.
#[test]
fn traces_come_and_go_under_load() {
    let _one = alone();
    within(LIMIT, || {
        runtime(2).block_on(|| {
            let sum = Arc::new(Mutex::new(0_u64).named("sum"));
            let (tx, rx) = mpmc::sync_channel_named::<u64>("numbers", 4);
            let senders: Vec<_> = (0..50_u64)
                .map(|n| {
                    let tx = tx.clone();
                    coro::spawn(move || (0..200).for_each(|i| tx.send(n * 200 + i).unwrap()))
                })
                .collect();
            drop(tx);
            let receivers: Vec<_> = (0..10)
                .map(|_| {
                    let (rx, sum) = (rx.clone(), sum.clone());
                    coro::spawn(move || rx.iter().for_each(|n| *sum.lock().unwrap() += n))
                })
                .collect();
            let mut begun = 0;
            while receivers.iter().any(|receiver| !receiver.is_finished()) {
                let traces = [probe::locks(), probe::channels().waits(), probe::timers(), probe::locks().named("sum")];
                let traces = traces.map(|trace| trace.keep_lines().start().unwrap());
                coro::sleep(Duration::from_millis(1));
                begun += traces.len();
            }
            senders.into_iter().chain(receivers).for_each(|task| task.join().unwrap());
            assert_eq!(*sum.lock().unwrap(), (0..10_000).sum::<u64>());
            assert!(begun > 0);
        });
    });
    until(LIMIT, "nothing is watched", nothing_is_watched);
}

/// Takes part in the test below.
#[test]
fn program() {
    if role().as_deref() != Some("locks") {
        return;
    }
    coro::run(|| {
        let pool = Mutex::new(0).named("db pool");
        drop(pool.lock());
        coro::sleep(Duration::from_millis(1));
    });
}

#[test]
fn the_environment_asks_for_them() {
    let mut command = again("program", "locks");
    command.env("CORO_PROBES", "locks,timers").stderr(Stdio::piped());
    let said = String::from_utf8_lossy(&finish(command, LIMIT).stderr).into_owned();
    for wanted in ["lock(\"db pool\" ", "unlock(\"db pool\" ", "sleep(1ms), #"] {
        assert!(said.contains(wanted), "{wanted} is missing: {said}");
    }
    assert!(!said.contains("recv("), "{said}");
}

/// With `N` for every number and `T` for every time.
fn without_numbers(line: &str) -> String {
    let mut out = String::new();
    for c in line.chars() {
        match c {
            '0'..='9' | '.' if out.ends_with('N') => {}
            '0'..='9' => out.push('N'),
            _ => out.push(c),
        }
    }
    for unit in ["N ns", "N µs", "N ms", "N s", "Nns", "Nus", "Nms", "Ns"] {
        out = out.replace(unit, "T");
    }
    out
}

/// The example of a hot lock, asked as on the page: every line there is said.
#[test]
fn the_page_shows_who_fights_for_a_lock() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/trace.md")).expect("the page");
    let (_, section) = page.split_once("## Locks, channels, timers").expect("the section");
    let (_, output) = section.split_once("```text\n").expect("an output");
    let (output, _) = output.split_once("```").expect("its end");
    let directory = Directory::new();
    let path = directory.at("s");
    let mut program = std::env::current_exe().expect("a test knows its own path");
    program.pop();
    program.pop();
    program.push("examples/stuck");
    assert!(program.exists(), "{} is missing; build it first: cargo build --examples", program.display());
    let mut command = Command::new(&program);
    command.arg("hot-lock").env("CORO_BACKDOOR", &path).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("the example starts");
    let _child = Ended(child);
    until(LIMIT, "they wait", || {
        let asked = std::os::unix::net::UnixStream::connect(&path).and_then(|mut stream| {
            stream.write_all(b"tasks wait=lock\nquit\n")?;
            std::io::read_to_string(stream)
        });
        asked.is_ok_and(|said| said.matches(" held by ").count() > 1)
    });
    let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    output
        .lines()
        .filter_map(|line| line.strip_prefix("> "))
        .for_each(|said| writeln!(stream, "{said}").expect("sent"));
    let mut wanted: Vec<String> = output.lines().filter(|line| !line.starts_with("> ")).map(without_numbers).collect();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(stream.try_clone().expect("a clone")));
    let (mut told, begun) = (Vec::new(), Instant::now());
    for line in lines.map_while(Result::ok) {
        let said = ["] read> ", "] probe> "]
            .iter()
            .fold(line.as_str(), |line, prompt| line.rsplit(prompt).next().unwrap_or(line));
        let said = without_numbers(said);
        wanted.retain(|wanted| *wanted != said);
        if wanted.is_empty() {
            return;
        }
        told.push(line);
        if begun.elapsed() > LIMIT {
            break;
        }
    }
    panic!("{wanted:#?} was not said, but\n{}", told.join("\n"));
}
