//! Child processes, pipes and streams of signals, as a program uses them: what parks, what the views say, what is left behind.
//!
//! What changes the process (signals, a limit on descriptors) happens in children.

mod harness;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coro::process::{Child, Command, Stdio};
use coro::signal::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, Signal, Signals};
use harness::{PATIENCE, case, child, runtime, task_until, until_parked};

const LONG: Duration = Duration::from_secs(1000);

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

/// What a view says of a task's wait, with numbers masked.
fn wait_text(task: coro::Task) -> String {
    let snapshot = coro::inspect::Snapshot::take(&coro::inspect::Options::default());
    let seen = snapshot.tasks.into_iter().find(|t| t.id == task.id()).and_then(|t| t.wait);
    let mut text: String = seen.map_or_else(String::new, |w| w.text);
    while let Some(at) = text.find(|c: char| c.is_ascii_digit()) {
        let end = text[at..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |n| at + n);
        text.replace_range(at..end, "N");
    }
    text
}

/// A program that does nothing, and holds nothing of this one's open.
fn sleep_long() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Kills a child that nobody has waited for; also where the test fails.
struct Killed(u32);

impl Drop for Killed {
    fn drop(&mut self) {
        // SAFETY: our own child, which nobody has waited for.
        unsafe { libc::kill(self.0.cast_signed(), libc::SIGKILL) };
    }
}

/// Children of this process that have ended and that nobody has waited for.
fn zombies() -> Vec<String> {
    let me = format!(" {} ", std::process::id());
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().into_string().ok());
    let stats = processes.filter(|n| n.bytes().all(|b| b.is_ascii_digit())).filter_map(|n| {
        let stat = std::fs::read_to_string(format!("/proc/{n}/stat")).ok()?;
        let rest = stat[stat.rfind(')')? + 1..].to_owned();
        (rest.starts_with(" Z") && rest[2..].starts_with(&me)).then_some(stat)
    });
    stats.collect()
}

#[test]
fn a_child_is_written_to_read_from_and_waited_for_as_with_std() {
    runtime(1).block_on(|| {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // More than a pipe holds, both ways: the one worker does not block.
        let (mut to, mut from) = (cat.stdin.take().unwrap(), cat.stdout.take().unwrap());
        let data: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let sent = data.clone();
        let writes = coro::spawn(move || to.write_all(&sent));
        let mut got = Vec::new();
        from.read_to_end(&mut got).unwrap();
        writes.join().unwrap().unwrap();
        assert_eq!(got, data);
        let status = cat.wait().unwrap();
        assert!(status.success() && cat.wait().unwrap() == status && cat.try_wait().unwrap() == Some(status));
        assert!(cat.kill().is_ok(), "as std: killing what was waited for does nothing");

        let mut command = sh("echo out; echo $GREETING >&2; pwd; exit 7");
        command.env("GREETING", "hello").current_dir("/");
        for _ in 0..2 {
            let o = command.output().unwrap();
            assert_eq!((&*o.stdout, &*o.stderr, o.status.code()), (&b"out\n/\n"[..], &b"hello\n"[..], Some(7)));
        }
        // Both at once, more than the pipes hold.
        let o = sh("head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero").output().unwrap();
        assert_eq!((o.stdout.len(), o.stderr.len()), (300_000, 300_000));
        // What `output` chose for itself is not there for the next `status`.
        assert_eq!(sh("exit 3").status().unwrap().code(), Some(3));

        let mut sleep = sleep_long().spawn().unwrap();
        let guard = Killed(sleep.id());
        assert_eq!(sleep.try_wait().unwrap(), None);
        sleep.kill().unwrap();
        std::mem::forget(guard);
        assert_eq!(sleep.wait().unwrap().signal(), Some(libc::SIGKILL));
        // A call that may not wait leaves the command as it was.
        let mut three = sh("exit 3");
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| coro::no_switch(|| three.spawn())));
        assert!(refused.is_err() && three.status().unwrap().code() == Some(3));
        let e = Command::new("/no/such/program").spawn().unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::NotFound);
    });
    // On a plain thread the same, and no runtime.
    let o = sh("cat; echo err >&2").stdin(Stdio::null()).output().unwrap();
    assert!(o.status.success() && o.stderr == b"err\n");
}

#[test]
fn what_a_command_sets_holds_in_its_child() {
    runtime(1).block_on(|| {
        let said = |command: &mut Command| String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(said(sh("echo $0").arg0("another")), "another\n");
        let mut masked = sh("umask");
        // SAFETY: one system call.
        unsafe { masked.pre_exec(|| Ok(_ = libc::umask(0o27))) };
        assert_eq!(said(&mut masked), "0027\n");
        // SAFETY: a question.
        let (uid, gid) = if unsafe { libc::geteuid() } == 0 { (65534, 65533) } else { ids() };
        assert_eq!(said(sh("id -u; id -g").uid(uid).gid(gid)), format!("{uid}\n{gid}\n"));

        // One that std has started, with its pipes.
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "cat; exit 6"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut taken = Child::try_from(command.spawn().unwrap()).unwrap();
        taken.stdin.as_mut().unwrap().write_all(b"there and back").unwrap();
        let output = taken.wait_with_output().unwrap();
        assert_eq!((&*output.stdout, output.status.code()), (&b"there and back"[..], Some(6)));
    });
}

/// This user's.
fn ids() -> (u32, u32) {
    // SAFETY: questions.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

/// The child waits before it calls `exec`, and so does whoever starts it.
#[test]
fn the_start_of_a_child_is_a_wait_with_a_name() {
    use std::os::fd::AsRawFd;
    let rt = runtime(1);
    let (reader, writer) = std::io::pipe().unwrap();
    let fd = reader.as_raw_fd();
    let start = rt.spawn(move || {
        let mut command = sh("exit 8");
        let hold_up = move || {
            // SAFETY: one byte of room; the descriptor is there until the child has started.
            unsafe { libc::read(fd, [0u8].as_mut_ptr().cast(), 1) };
            Ok(())
        };
        // SAFETY: one system call.
        unsafe { command.pre_exec(hold_up) };
        command.status()
    });
    until_parked(start.task(), "spawn child \"sh\"");
    // An interrupt waits until it is there: no child is left that nobody knows of.
    start.cancel();
    assert_eq!(rt.block_on(|| 7), 7);
    until_parked(start.task(), "spawn child \"sh\"");
    (&writer).write_all(b"x").unwrap();
    // The interrupt as an error of the wait, or the status, if that was there first.
    assert!(start.join().is_ok());
    drop(reader);
}

/// Cut short, it leaves the child alone.
#[test]
fn reading_the_output_of_a_child_can_be_cut_short() {
    runtime(1).block_on(|| {
        let child = sleep_long().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (pid, guard) = (child.id(), Killed(child.id()));
        let waits = coro::spawn(move || child.wait_with_output().map(drop));
        until_parked(waits.task(), "read fd");
        waits.cancel();
        assert!(waits.join().is_ok_and(|r| r.is_err()));
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(!stat.contains(") Z "), "{stat}");
        drop(guard);
    });
}

#[test]
fn the_views_name_the_child_and_its_pipes() {
    let rt = runtime(2);
    let spawned = rt.block_on(|| sleep_long().stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap());
    let pid = spawned.id();
    let guard = Killed(pid);
    let child = Arc::new(Mutex::new(spawned));
    let mut out = child.lock().unwrap().stdout.take().unwrap();
    let reader = rt.spawn(move || out.read(&mut [0; 8]));
    until_parked(reader.task(), "read fd");
    assert_eq!(wait_text(reader.task()), "read fd N child stdout → pid N");
    let sockets = coro::inspect::sockets();
    let stdout = sockets.iter().find(|s| s.kind.word() == "child stdout" && s.peer_pid == Some(pid));
    assert!(stdout.is_some_and(|s| s.site.unwrap().file == file!()), "{sockets:?}");

    let same = child.clone();
    let waiter = rt.block_on(|| coro::spawn_named("supervisor", move || same.lock().unwrap().wait()));
    until_parked(waiter.task(), "wait child");
    assert_eq!(wait_text(waiter.task()), "wait child pid N \"sleep\"");
    assert!(coro::inspect::where_is(waiter.id()).unwrap().to_string().contains(&format!("wait child pid {pid}")));
    let events = coro::inspect::events();
    let event = events.iter().find(|e| e.waiting.iter().any(|w| w.task == waiter.id())).expect("an event");
    assert!(event.to_string().contains("\"supervisor\" wait child"), "{event}");

    drop(guard);
    assert_eq!(waiter.join().unwrap().unwrap().signal(), Some(libc::SIGKILL));
    assert_eq!(reader.join().unwrap().unwrap(), 0);
}

/// From the signal that ends a child at once to the end of the wait, the median of twenty: a child that ends is announced, and
/// whoever polled would need its interval. The best of three rounds, as the machine may be busy.
#[test]
fn a_child_is_reaped_within_five_milliseconds() {
    runtime(1).block_on(|| {
        let one = || {
            let mut child = sleep_long().spawn().unwrap();
            let guard = Killed(child.id());
            let waiter = coro::spawn(move || (child.wait().unwrap(), Instant::now()));
            until_parked(waiter.task(), "wait child");
            let begun = Instant::now();
            drop(guard);
            waiter.join().unwrap().1 - begun
        };
        let median = || {
            let mut took: Vec<Duration> = (0..20).map(|_| one()).collect();
            took.sort();
            println!("from the signal to the exit status: {took:?}");
            took[10]
        };
        let limit = Duration::from_millis(5);
        assert!((0..3).any(|_| median() < limit), "no median of three is below {limit:?}");
    });
}

/// Interrupts of every kind leave the exit status for the next who asks.
#[test]
fn a_waiter_that_is_cut_short_loses_no_exit_status() {
    runtime(2).block_on(|| {
        let mut child = sh("read line; exit 9").stdin(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let cut = coro::timeout(Duration::from_millis(20), || child.wait());
        assert!(cut.is_err() || cut.unwrap().is_err());
        let child = Arc::new(Mutex::new(child));
        let same = child.clone();
        let waiter = coro::spawn(move || same.lock().unwrap().wait());
        until_parked(waiter.task(), "wait child");
        waiter.cancel();
        // An error first, as of every I/O call.
        assert!(waiter.join().unwrap().is_err());
        drop(to);
        let mut child = child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert_eq!(child.wait().unwrap().code(), Some(9));
        // An interrupt that is due starts nothing.
        let never = coro::spawn(|| {
            coro::shield(|| task_until("it is cancelled", coro::is_cancelled));
            sh("touch /no/such/directory/x").spawn().map(drop)
        });
        until_parked(never.task(), "sleep");
        never.cancel();
        assert!(never.join().is_ok_and(|e| e.is_err()));
    });
}

/// Each has a task that waits; then they all end, and none is left, alive or dead.
#[test]
fn a_thousand_children_at_once_leave_no_zombie() {
    let passed = child("thousand").passed();
    println!("{}", passed.out);
}

/// How many descriptors this process may have from now on, if the machine allows as many.
fn limit_descriptors(n: libc::rlim_t) {
    // SAFETY: plain data.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max.min(n);
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
}

fn thousand() {
    // Each waiter has a descriptor, and the test machine may allow 1024.
    limit_descriptors(4096);
    let began = Instant::now();
    let codes = runtime(2).block_on(|| {
        let (reader, writer) = coro::io::pipe().unwrap();
        let reader = std::io::PipeReader::from(reader);
        let tasks: Vec<_> = (0..1000)
            .map(|i| {
                let stdin = reader.try_clone().unwrap();
                coro::spawn(move || {
                    // They all wait for the one end of the pipe.
                    let mut child = sh(&format!("read line; exit {}", i % 100)).stdin(stdin).spawn().unwrap();
                    child.wait().unwrap().code().unwrap()
                })
            })
            .collect();
        task_until("all are waited for", || {
            let mut options = coro::inspect::Options::default();
            (options.stacks, options.running, options.objects) = (false, false, false);
            let tasks = coro::inspect::Snapshot::take(&options).tasks;
            let waits = tasks.iter().filter_map(|t| t.wait.as_ref());
            waits.filter(|w| w.text.starts_with("wait child pid ")).count() == 1000
        });
        println!("a thousand children after {:?}", began.elapsed());
        let ending = Instant::now();
        drop((reader, writer));
        let codes = tasks.into_iter().map(|t| t.join().unwrap()).collect::<Vec<_>>();
        let took = ending.elapsed();
        println!("all reaped {took:?} after the end of their input");
        // A thousand shells have to end for that: most of the time is theirs, and a look at each in turn would take longer.
        assert!(took < Duration::from_secs(5), "{took:?}");
        codes
    });
    assert!(codes.into_iter().eq((0..1000).map(|i| i % 100)));
    assert_eq!(zombies(), [""; 0]);
}

/// Nobody waits for it, and the next child that is started takes its rest away.
#[test]
fn a_dropped_child_goes_on_and_its_zombie_goes_with_the_next() {
    child("dropped").passed();
}

fn dropped() {
    runtime(1).block_on(|| {
        let mut child = sh("read line").stdin(Stdio::piped()).spawn().unwrap();
        let (to, pid) = (child.stdin.take().unwrap(), child.id());
        drop(child);
        let alive = || std::fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(alive().is_ok_and(|s| !s.contains(") Z ")), "it was not killed");
        drop(to);
        task_until("it is a zombie", || alive().is_ok_and(|s| s.contains(") Z ")));
        assert!(sh("true").status().unwrap().success());
        assert_eq!(zombies(), [""; 0]);
        assert!(alive().is_err());
    });
}

/// While children are waited for, no worker wakes up: the kernel counts the times at which each thread gave up its CPU.
#[test]
fn nothing_polls_while_children_are_waited_for() {
    child("quiet").passed();
}

fn quiet() {
    // Of each thread of the runtime that may have to do with it, by its number.
    let switches = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let of = |t: std::fs::DirEntry| {
            let name = std::fs::read_to_string(t.path().join("comm")).ok()?;
            let status = std::fs::read_to_string(t.path().join("status")).ok()?;
            let line = status.lines().find(|l| l.starts_with("voluntary_ctxt_switches"))?;
            let counts =
                name.starts_with("coro") && !name.starts_with("coro-watchdog") && !name.starts_with("coro-deadlock");
            counts.then_some((t.file_name(), line.split_whitespace().nth(1)?.parse::<u64>().ok()?))
        };
        tasks.filter_map(of).collect::<BTreeMap<_, _>>()
    };
    let rt = runtime(2);
    let guards = Arc::new(Mutex::new(Vec::new()));
    let waiters: Vec<_> = (0..20)
        .map(|_| {
            let guards = guards.clone();
            rt.spawn(move || {
                let mut child = sleep_long().spawn().unwrap();
                let pid = child.id();
                guards.lock().unwrap().push(Killed(pid));
                (child.wait().unwrap().signal(), pid)
            })
        })
        .collect();
    waiters.iter().for_each(|t| until_parked(t.task(), "wait child"));
    let wakes = || {
        let before = switches();
        std::thread::sleep(Duration::from_millis(500));
        // A thread of the pool may have ended meanwhile, which is no wake either.
        switches().iter().map(|(thread, n)| n - before.get(thread).unwrap_or(&0)).sum::<u64>()
    };
    // The threads of the pool that started the children go to sleep, workers come to rest.
    let least = (0..3).map(|_| wakes()).min().unwrap();
    assert!(least <= 3, "{least} times did threads of the runtime wake up in half a second of waiting");
    guards.lock().unwrap().clear();
    let killed: Vec<_> = waiters.into_iter().map(|w| w.join().unwrap()).collect();
    assert!(killed.iter().all(|(signal, _)| *signal == Some(libc::SIGKILL)), "{killed:?}");
}

/// Without a descriptor for it, a thread of the pool waits, and the exit status is not lost either.
#[test]
fn without_descriptors_a_child_is_waited_for_all_the_same() {
    child("no-descriptor").passed();
}

fn no_descriptor() {
    limit_descriptors(256);
    runtime(1).block_on(|| {
        // What announced the end goes with it: the number is soon another process's.
        let announcing = || {
            let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            all.filter_map(|e| std::fs::read_link(e.path()).ok())
                .filter(|to| to.to_string_lossy().contains("pidfd"))
                .count()
        };
        let mut child = sh("read line").stdin(Stdio::piped()).spawn().unwrap();
        let (to, before) = (child.stdin.take().unwrap(), announcing());
        let waiter = coro::spawn(move || child.wait().map(|_| child));
        until_parked(waiter.task(), "wait child pid ");
        println!("{} descriptors announce the end of a child", announcing() - before);
        drop(to);
        let ended = waiter.join().unwrap().unwrap();
        assert!(announcing() <= before, "of a child that was waited for");
        drop(ended);

        let mut child = sh("read line; exit 4").stdin(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let hold: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).take(256).collect();
        assert!(hold.len() < 256, "the limit on descriptors was to be reached");
        // One thread waits, however often somebody does.
        for _ in 0..5 {
            let cut = coro::timeout(Duration::from_millis(5), || child.wait());
            assert!(cut.is_err() || cut.unwrap().is_err());
        }
        task_until("a thread waits", || !coro::blocking_stats().running.is_empty());
        assert_eq!((coro::blocking_stats().running.len(), coro::blocking_stats().queued), (1, 0));
        let waiter = coro::spawn(move || child.wait());
        until_parked(waiter.task(), "wait child pid ");
        drop(to);
        assert_eq!(waiter.join().unwrap().unwrap().code(), Some(4));
        drop(hold);
    });
}

#[test]
fn a_pipe_parks_and_is_blocking_for_the_child_that_gets_it() {
    let rt = runtime(1);
    rt.block_on(|| {
        let (mut reader, mut writer) = coro::io::pipe().unwrap();
        let full = coro::spawn(move || writer.write_all(&[7; 300_000]));
        until_parked(full.task(), "write fd");
        assert!(wait_text(full.task()).ends_with(" pipe"), "{}", wait_text(full.task()));
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        full.join().unwrap().unwrap();
        assert_eq!(got.len(), 300_000);

        // Both handles of one end go to one child, which finds it in blocking mode.
        let (mut reader, writer) = coro::io::pipe().unwrap();
        let same = writer.try_clone().unwrap();
        let mut command = sh("head -c 200000 /dev/zero; echo end >&2; grep flags /proc/self/fdinfo/1 >&2");
        let mut child = command.stdout(writer).stderr(same).spawn().unwrap();
        drop(command);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert!(child.wait().unwrap().success());
        let tail = String::from_utf8_lossy(&all[200_000..]).into_owned();
        let flags = tail.rsplit("flags:").next().and_then(|f| u32::from_str_radix(f.trim(), 8).ok()).unwrap();
        assert!(tail.starts_with("end\n") && flags & libc::O_NONBLOCK as u32 == 0, "{tail}");

        // Cut short, it has taken nothing.
        let (mut reader, mut writer) = coro::io::pipe().unwrap();
        let cut = coro::timeout(Duration::from_millis(10), || reader.read(&mut [0; 8]));
        assert!(cut.is_err() || cut.unwrap().is_err());
        writer.write_all(b"still there").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still there");
        let (reader, mut writer) = coro::io::pipe().unwrap();
        drop(reader);
        assert_eq!(writer.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    });
}

/// An end of one side is passed on and the other goes on; an error and a cancellation end both.
#[test]
fn a_copy_both_ways_ends_as_its_page_says() {
    use coro::net::unix::UnixStream;
    use std::net::Shutdown;
    runtime(2).block_on(|| {
        let ((mut client, front), (back, mut server)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let proxy = coro::spawn(move || coro::io::copy_bidirectional(&front, &back));
        let data = vec![3; 2_000_000];
        let sent = data.clone();
        let client = coro::spawn(move || {
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut back = Vec::new();
            client.read_to_end(&mut back).unwrap();
            back
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        server.write_all(&got[..1_000_000]).unwrap();
        drop(server);
        assert!(got == data && client.join().unwrap() == data[..1_000_000]);
        assert_eq!(proxy.join().unwrap().unwrap(), (2_000_000, 1_000_000));

        // The server goes away while the client has more to say: an error, and both directions have ended.
        let ((mut client, front), (back, server)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let proxy = coro::spawn(move || coro::io::copy_bidirectional(&front, &back));
        drop(server);
        let mut end = [0; 1];
        assert_eq!(client.read(&mut end).unwrap_or(0), 0);
        let _ = client.write_all(&[0; 1_000_000]);
        assert!(proxy.join().unwrap().is_err());

        let ((mut client, front), (back, mut server)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
        let proxy = coro::spawn(move || coro::io::copy_bidirectional(&front, &back));
        client.write_all(b"x").unwrap();
        server.read_exact(&mut end).unwrap();
        proxy.cancel();
        assert!(proxy.join().is_ok_and(|r| r.is_err()));
        // Both ends of it are shut down.
        assert_eq!((client.read(&mut end).unwrap(), server.read(&mut end).unwrap()), (0, 0));
    });
}

fn signal_self(signal: Signal) {
    // To this very thread, which has handled it when this returns.
    // SAFETY: this process handles it.
    assert_eq!(unsafe { libc::raise(signal.number()) }, 0);
}

fn disposition(signal: Signal) -> libc::sighandler_t {
    // SAFETY: plain data, which the call fills.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal.number(), std::ptr::null(), &mut now), 0);
        now.sa_sigaction
    }
}

#[test]
fn signals_are_for_every_stream_that_has_them() {
    child("signals").passed();
}

fn signals() {
    static EARLIER: AtomicU64 = AtomicU64::new(0);
    extern "C" fn earlier(_: libc::c_int) {
        EARLIER.fetch_add(1, Ordering::SeqCst);
    }
    let handler = earlier as extern "C" fn(libc::c_int) as *const () as libc::sighandler_t;
    // SAFETY: a handler that adds to a number.
    unsafe { libc::signal(libc::SIGWINCH, handler) };
    coro::run(|| {
        let mut both = Signals::new(&[SIGHUP, SIGUSR1, SIGHUP]).unwrap();
        assert_eq!(both.signals().collect::<Vec<_>>(), [SIGHUP, SIGUSR1]);
        let mut one = Signals::new(&[SIGUSR1]).unwrap();
        assert_eq!((both.try_next(), one.try_next()), (None, None));
        // What comes between two looks is one, and each stream has its own.
        signal_self(SIGUSR1);
        signal_self(SIGUSR1);
        signal_self(SIGHUP);
        assert_eq!((both.wait(), both.wait()), (SIGHUP, SIGUSR1));
        assert_eq!((both.try_next(), one.wait(), one.try_next()), (None, SIGUSR1, None));

        // Several tasks and a plain thread wait for one signal.
        let tasks: Vec<_> = (0..3)
            .map(|_| Signals::new(&[SIGUSR1, SIGHUP]).unwrap())
            .map(|mut s| coro::spawn(move || s.wait()))
            .collect();
        tasks.iter().for_each(|t| until_parked(t.task(), "signals"));
        assert_eq!(wait_text(tasks[0].task()), "signals SIGHUP, SIGUSRN");
        let mut on_thread = Signals::new(&[SIGUSR1]).unwrap();
        let thread = std::thread::spawn(move || on_thread.wait());
        // A waiter that is cut short takes nothing from anybody, itself included.
        assert!(coro::timeout(Duration::from_millis(10), || both.wait()).is_err());
        signal_self(SIGUSR1);
        for t in tasks {
            assert_eq!(t.join().unwrap(), SIGUSR1);
        }
        assert_eq!((thread.join().unwrap(), both.wait(), one.next()), (SIGUSR1, SIGUSR1, Some(SIGUSR1)));

        // Who hears of every child takes no exit status from whoever waits for his.
        let mut children = Signals::new(&[SIGCHLD]).unwrap();
        assert_eq!(sh("exit 5").status().unwrap().code(), Some(5));
        assert_eq!(children.wait(), SIGCHLD);
        drop(children);

        // A library that puts its handler over ours, and calls ours, while streams come and go: each is called once.
        chain_over_ours(SIGUSR2);

        // A forked child has no thread that would wake it.
        // SAFETY: the child makes a stream and ends.
        let forked = unsafe { libc::fork() };
        if forked == 0 {
            let refused = Signals::new(&[SIGUSR1]).is_err_and(|e| e.kind() == std::io::ErrorKind::Unsupported);
            // SAFETY: ends the process.
            unsafe { libc::_exit(if refused { 42 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: our child, and room for its status.
        task_until("the fork ends", || unsafe { libc::waitpid(forked, &mut status, libc::WNOHANG) } == forked);
        assert_eq!(libc::WEXITSTATUS(status), 42);

        // A handler that was there before is called too, and is back afterwards.
        let mut sizes = Signals::new(&[SIGWINCH]).unwrap();
        assert_ne!(disposition(SIGWINCH), handler);
        signal_self(SIGWINCH);
        assert_eq!((sizes.wait(), EARLIER.load(Ordering::SeqCst)), (SIGWINCH, 1));
        drop(sizes);
        assert_eq!(disposition(SIGWINCH), handler);
        drop((both, one));
        task_until("the others are gone", || disposition(SIGHUP) == libc::SIG_DFL);
        assert_eq!(disposition(SIGUSR1), libc::SIG_DFL);
    });
}

/// Our handler, which `theirs` calls.
static COVERED: AtomicU64 = AtomicU64::new(0);
static THEIRS: AtomicU64 = AtomicU64::new(0);

extern "C" fn theirs(n: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    THEIRS.fetch_add(1, Ordering::SeqCst);
    let ours = COVERED.load(Ordering::SeqCst) as usize;
    // SAFETY: the handler that was there, with its own signature.
    let ours: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
        unsafe { std::mem::transmute(ours) };
    ours(n, info, context);
}

fn chain_over_ours(signal: Signal) {
    let mut first = Signals::new(&[signal]).unwrap();
    COVERED.store(disposition(signal) as u64, Ordering::SeqCst);
    // SAFETY: plain data; a handler that counts and calls the one before.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        (new.sa_sigaction, new.sa_flags) = (theirs as *const () as usize, libc::SA_SIGINFO);
        assert_eq!(libc::sigaction(signal.number(), &new, std::ptr::null_mut()), 0);
    }
    let theirs_now = disposition(signal);
    signal_self(signal);
    assert_eq!((first.wait(), THEIRS.load(Ordering::SeqCst)), (signal, 1));
    drop(first);
    assert_eq!(disposition(signal), theirs_now, "it was put there after ours");
    for n in 1..=2 {
        let mut next = Signals::new(&[signal]).unwrap();
        signal_self(signal);
        assert_eq!((next.wait(), next.try_next(), THEIRS.load(Ordering::SeqCst)), (signal, None, 2 * n));
        drop(next);
        assert_eq!(disposition(signal), theirs_now);
        signal_self(signal);
        assert_eq!(THEIRS.load(Ordering::SeqCst), 2 * n + 1);
    }
}

/// While a stream has SIGINT or SIGTERM the run goes on; `ctrl_c` hears it as well; afterwards it stops the run again.
#[test]
fn streams_stand_beside_ctrl_c_and_run() {
    let e = child("beside-run");
    assert_eq!(e.code, Some(128 + libc::SIGTERM), "{e:#?}");
    assert!(e.out.contains("it goes on"), "{e:#?}");
}

fn beside_run() {
    // Made before the run, which leaves it alone when it ends.
    let outside = Signals::new(&[SIGINT]).unwrap();
    coro::run(|| ());
    assert_ne!(disposition(SIGINT), libc::SIG_DFL);
    drop(outside);
    assert_eq!(disposition(SIGINT), libc::SIG_DFL);
    let left = coro::run(|| {
        let mut stream = Signals::new(&[SIGINT, SIGTERM]).unwrap();
        let ctrl_c = coro::spawn(coro::ctrl_c);
        until_parked(ctrl_c.task(), "signal 2");
        signal_self(SIGINT);
        ctrl_c.join().unwrap().unwrap();
        assert_eq!(stream.wait(), SIGINT);
        signal_self(SIGTERM);
        assert_eq!(stream.wait(), SIGTERM);
        assert!(!coro::stopping());
        Signals::new(&[SIGTERM]).unwrap()
    });
    // The run has ended, the stream has not: it keeps the handler until it goes.
    assert_ne!(disposition(SIGTERM), libc::SIG_DFL);
    drop(left);
    assert_eq!(disposition(SIGTERM), libc::SIG_DFL);
    coro::run(|| {
        drop(Signals::new(&[SIGTERM]).unwrap());
        println!("it goes on");
        signal_self(SIGTERM);
        coro::sleep(LONG);
    });
}

#[test]
fn signals_that_a_stream_cannot_have_are_refused_with_advice() {
    let why = |signals: &[Signal]| Signals::new(signals).unwrap_err().to_string();
    let of = |name: &str| name.parse::<Signal>().unwrap();
    assert_eq!(
        why(&[SIGHUP, of("KILL")]),
        "SIGKILL cannot be waited for: the system lets nobody catch it; SIGTERM and SIGTSTP can be caught"
    );
    assert!(why(&[of("segv")]).starts_with("SIGSEGV cannot be waited for: it tells of a fault"));
    assert!(why(&[coro::signal::SIGURG]).contains("CORO_STACK_SIGNAL"), "{}", why(&[coro::signal::SIGURG]));
    assert_eq!(why(&[]), "a stream of no signals would wait for ever: name at least one");
    assert!("NOSUCH".parse::<Signal>().unwrap_err().to_string().contains("write a name such as HUP"));
    assert!(Signal::from_number(0).is_err() && Signal::from_number(4711).is_err());
    child("dump-signal").passed();
}

fn dump_signal() {
    coro::inspect::dump_on(libc::SIGUSR2).unwrap();
    let e = Signals::new(&[SIGUSR2]).unwrap_err().to_string();
    assert_eq!(e, "SIGUSR2 makes this process write down its tasks (CORO_DUMP_SIGNAL): choose another signal");
}

/// Plays the cases that need a process of their own.
#[test]
#[ignore = "a child of the other tests"]
fn child_process() {
    let Some(case) = case() else { return };
    let _ = PATIENCE;
    match &*case {
        "thousand" => thousand(),
        "dropped" => dropped(),
        "quiet" => quiet(),
        "no-descriptor" => no_descriptor(),
        "signals" => signals(),
        "beside-run" => beside_run(),
        "dump-signal" => dump_signal(),
        other => panic!("no case {other}"),
    }
}
