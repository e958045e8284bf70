//! A process in which every task waits for another is told so; one in which somebody can still do something is not.
//!
//! Without the test harness, whose own threads could wake a task for all that anybody knows: each case is this program
//! again, with the case's name in `CORO_TEST_ROLE`.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const CASES: &[(&str, fn(), bool)] = &[
    ("lost_sender", lost_sender, true),
    ("a_circle_and_who_joins_it", circle, true),
    ("sleeper", sleeper, false),
    ("listener", listener, false),
    ("job", job, false),
    ("foreign_thread", foreign_thread, false),
    ("time_limit", time_limit, false),
    ("event_loop", event_loop, false),
    ("threads_at_work_for_a_task", threads_at_work_for_a_task, false),
    ("ctrl_c_on_a_plain_thread", ctrl_c_on_a_plain_thread, false),
];

fn main() {
    let role = std::env::var("CORO_TEST_ROLE").ok();
    if let Some((_, run, _)) = CASES.iter().find(|(name, _, _)| Some(*name) == role.as_deref()) {
        coro::run(*run);
        return;
    }
    // Filters such as `cargo test --test quiet sleeper` work; listing is for tools.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if cfg!(not(target_os = "linux")) {
        println!("skipped: only Linux tells of a process's threads");
        return;
    }
    let mut children = Vec::new();
    for (name, _, quiet) in CASES {
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        children.push((name, quiet, start(name)));
    }
    let mut failed = 0;
    for (name, quiet, child) in children {
        let (text, aborted) = finish(child, if *quiet { Duration::from_secs(20) } else { Duration::from_millis(4500) });
        let told = text.contains("coro: deadlock: ") && text.contains(" wait, and nothing can wake one of them\n");
        let passed = told == *quiet && aborted == *quiet;
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed += 1;
            println!("{text}");
        }
    }
    assert_eq!(failed, 0, "cases that failed");
}

fn start(name: &str) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .env("CORO_TEST_ROLE", name)
        .env("CORO_ON_DEADLOCK", "abort")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a child")
}

/// What the child said, and whether it aborted; after `limit` it is killed.
fn finish(mut child: Child, limit: Duration) -> (String, bool) {
    let end = Instant::now() + limit;
    let status = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break Some(status),
            None if Instant::now() >= end => {
                child.kill().expect("a child");
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let output = child.wait_with_output().expect("a child");
    let aborted = status.is_some_and(|s| s.signal() == Some(libc::SIGABRT));
    (String::from_utf8_lossy(&output.stderr).into_owned(), aborted)
}

fn lost_sender() {
    let (send, receive) = coro::sync::mpsc::channel::<u8>();
    let waits = coro::spawn(move || receive.recv().map(drop));
    coro::sleep(Duration::from_millis(100));
    std::mem::forget(send);
    let _ = waits.join();
}

fn circle() {
    let lock = std::sync::Arc::new(coro::sync::Mutex::new(()));
    let twice = coro::spawn(move || {
        let _one = lock.lock();
        let _two = lock.lock();
    });
    let _ = twice.join();
}

fn sleeper() {
    coro::sleep(Duration::from_secs(60));
}

fn listener() {
    let listener = coro::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let waits = coro::spawn(move || drop(listener.accept()));
    let _ = waits.join();
}

fn job() {
    let _ = coro::blocking(|| std::thread::sleep(Duration::from_secs(60)));
}

fn foreign_thread() {
    let (send, receive) = coro::sync::mpsc::channel::<u8>();
    let (_keep, stays) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = stays.recv();
        let _ = send.send(1);
    });
    let _ = receive.recv();
}

fn time_limit() {
    let (_send, receive) = coro::sync::mpsc::channel::<u8>();
    let _ = receive.recv_timeout(Duration::from_secs(60));
}

fn event_loop() {
    coro::event_loop();
}

/// Two plain threads hand something to and fro: at each moment one of them waits, and the other may be without a CPU.
fn threads_at_work_for_a_task() {
    let (done, end) = coro::sync::mpsc::channel::<()>();
    let waits = coro::spawn(move || end.recv());
    let (there, here) = (coro::sync::mpsc::channel::<u64>(), coro::sync::mpsc::channel::<u64>());
    there.0.send(0).expect("nobody has gone");
    let hand_on = |from: coro::sync::mpsc::Receiver<u64>, to: coro::sync::mpsc::Sender<u64>| {
        let done = done.clone();
        std::thread::spawn(move || {
            while let Ok(n) = from.recv() {
                to.send(n + 1).expect("nobody has gone");
            }
            drop(done);
        })
    };
    let _threads = [hand_on(there.1, here.0), hand_on(here.1, there.0)];
    drop(done);
    let _ = waits.join();
}

/// What a server's `main` does while its tasks wait for work: a signal may come at any time.
fn ctrl_c_on_a_plain_thread() {
    let (send, receive) = coro::sync::mpsc::channel::<()>();
    let waits = coro::spawn(move || receive.recv());
    std::thread::spawn(move || {
        coro::ctrl_c().expect("signals work");
        send.send(()).expect("the task waits");
    });
    let _ = waits.join();
}
