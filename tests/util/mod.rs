//! What the process-level and network tests share: deadlines, seeds, and this test program as its own child.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod sockets;
pub(crate) mod traces;

use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Runs `f` on a thread of its own; a hang is a failure with a name, not a test run that never ends.
#[track_caller]
pub(crate) fn within<T: Send + 'static>(limit: Duration, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let value = f();
        let _ = done.send(());
        value
    });
    match ended.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            for task in coro::where_all() {
                eprintln!("{task}");
            }
            panic!("still not done after {limit:?}; the tasks are listed above")
        }
        // Done, or panicked: `join` tells.
        _ => thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload)),
    }
}

/// Looks until `f` says yes; bounded, so that a wait can fail.
#[track_caller]
pub(crate) fn until(limit: Duration, what: &str, mut f: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !f() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        if coro::current().is_some() {
            coro::sleep(Duration::from_millis(1));
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A runtime of its own with `n` workers.
pub(crate) fn runtime(n: usize) -> coro::Runtime {
    coro::Runtime::builder().workers(n).build().expect("a runtime")
}

/// This program again, as the one test `name`, with `CORO_TEST_ROLE` set to `role`.
pub(crate) fn again(name: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env("CORO_TEST_ROLE", role);
    for variable in ["CORO_WORKERS", "CORO_STACK_GUARDS", "CORO_STACK_KB", "CORO_MAX_TASKS", "CORO_BACKDOOR"] {
        command.env_remove(variable);
    }
    as_from_a_terminal(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// In the background of a script, and under `nohup`, SIGINT is ignored, which a child would inherit and honour.
fn as_from_a_terminal(command: &mut Command) {
    let default = || {
        // SAFETY: the disposition of a process that is about to run another program.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: one system call, between fork and exec.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, default) };
}

/// The role that [`again`] gave to this process.
pub(crate) fn role() -> Option<String> {
    std::env::var("CORO_TEST_ROLE").ok()
}

/// Runs a child to its end, at most `limit` long, and returns what it said.
#[track_caller]
pub(crate) fn finish(mut command: Command, limit: Duration) -> Output {
    let child = command.spawn().expect("a child");
    let pid = child.id() as libc::pid_t;
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = done.send(child.wait_with_output());
    });
    match ended.recv_timeout(limit) {
        Ok(output) => output.expect("the child's output"),
        Err(_) => {
            // SAFETY: our own child, not yet waited for (the thread above still does).
            unsafe { libc::kill(pid, libc::SIGKILL) };
            let output = ended.recv().expect("the thread").expect("the child's output");
            panic!("the child did not end within {limit:?}:\n{}", said(&output));
        }
    }
}

/// Both outputs as text.
pub(crate) fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs the test `name` in a role and demands success.
#[track_caller]
pub(crate) fn passes(name: &str, role: &str, limit: Duration) -> String {
    let output = finish(again(name, role), limit);
    let text = said(&output);
    assert!(output.status.success() && text.contains("1 passed"), "{role}: {:?}\n{text}", output.status);
    text
}

/// Random numbers (splitmix64) from a seed that is printed, so that a failure can be repeated.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// From `CORO_SEED`, else from the clock.
    pub(crate) fn from_environment() -> Rng {
        let seed = match std::env::var("CORO_SEED") {
            Ok(text) => text.parse().expect("CORO_SEED is a number"),
            Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64,
        };
        eprintln!("CORO_SEED={seed}");
        Rng(seed)
    }

    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n - 1`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A size from 1 to `most`, small ones as likely as large ones.
    pub(crate) fn size(&mut self, most: usize) -> usize {
        let bits = self.below(most.ilog2() as usize + 1);
        (1 + self.below(1 << (bits + 1))).min(most)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// The byte that stands at `at` in the stream number `stream`: what arrives can be checked wherever it is cut.
pub(crate) fn byte_at(stream: u64, at: u64) -> u8 {
    let x = (at ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (x >> 56) as u8
}

/// What a view says, with its numbers of tasks, threads, processes and descriptors as N, its lines as L, its times as T.
pub(crate) fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = &rest[..end];
        rest = &rest[end..];
        let unit = ["ns", "us", "ms", "s", "m", "h"].into_iter().find(|unit| rest.starts_with(unit));
        if ["#", "fd ", "pid ", "thread "].iter().any(|before| out.ends_with(before)) {
            out.push('N');
        } else if out.ends_with(".rs:") {
            out.push('L');
        } else if let Some(unit) = unit {
            out.push('T');
            rest = rest[unit.len()..].trim_start_matches(|c: char| c.is_ascii_digit() || c == 'm');
        } else {
            out.push_str(number);
        }
    }
    out + rest
}
