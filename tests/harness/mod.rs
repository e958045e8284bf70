//! What the process-level and race tests share: bounded polling, child processes, a seeded generator.

#![allow(dead_code, reason = "every test program uses another part of it")]

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a loaded machine with few CPUs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Polls from a plain thread until `f` holds; panics with `what` when the patience has ended.
#[track_caller]
pub(crate) fn until(what: &str, mut f: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !f() {
        assert!(Instant::now() < end, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// As `until`, from a task.
#[track_caller]
pub(crate) fn task_until(what: &str, mut f: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !f() {
        assert!(Instant::now() < end, "never came true: {what}");
        coro::sleep(Duration::from_millis(1));
    }
}

/// CPU time of this thread.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure lives across the call.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) }, 0);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// A runtime of its own: tests of one program run side by side, and `coro::run` is once per process.
pub(crate) fn runtime(workers: usize) -> coro::Runtime {
    coro::Runtime::builder().workers(workers).build().expect("a runtime starts")
}

/// Waits until a task is seen parked in a wait that begins with `wait`.
#[track_caller]
pub(crate) fn until_parked(task: coro::Task, wait: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        // Without its stack: the first names take long.
        let mut options = coro::inspect::Options::default();
        (options.stacks, options.running, options.objects) = (false, false, false);
        let all = coro::inspect::Snapshot::take(&options).tasks;
        let seen = all.into_iter().find(|t| t.id == task.id());
        if seen.as_ref().and_then(|t| t.wait.as_ref()).is_some_and(|w| w.text.starts_with(wait)) {
            return;
        }
        assert!(Instant::now() < end, "task {task} is never parked in {wait:?}: {seen:?}");
        if coro::current().is_some() {
            coro::yield_slice();
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

const CASE: &str = "CORO_TEST_CASE";

/// The case that this process is a child for.
pub(crate) fn case() -> Option<String> {
    std::env::var(CASE).ok()
}

/// The test program once more, as a child that runs only its ignored test `child_process`.
pub(crate) fn command(case: &str) -> Command {
    let mut c = this_program();
    c.args(["--exact", "child_process", "--ignored", "--nocapture", "--test-threads=1"]);
    // A program started in the background of a script ignores SIGINT, and its children would.
    let default = || {
        // SAFETY: the dispositions of a process that is about to run another program.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: one system call, between fork and exec.
    unsafe { c.pre_exec(default) };
    // Two, whatever the machine has: some cases put a task on the other worker.
    c.env(CASE, case).env("CORO_WORKERS", "2").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    c
}

/// This test program, by way of `CORO_TEST_RUNNER` if there is one: an emulator, with its arguments.
fn this_program() -> Command {
    let program = std::env::current_exe().expect("a test program has a path");
    let runner = std::env::var("CORO_TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(emulator) = words.next() else { return Command::new(program) };
    let mut c = Command::new(emulator);
    c.args(words).arg(program);
    c
}

/// Runs a child to its end; kills it and panics when the patience has ended.
#[track_caller]
pub(crate) fn child(case: &str) -> Ended {
    wait(case, command(case).spawn().expect("a child starts"))
}

/// What a child left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Ended {
    /// The child's test must have passed.
    #[track_caller]
    pub(crate) fn passed(self) -> Ended {
        assert_eq!(self.code, Some(0), "the child failed: {self:#?}");
        self
    }
}

#[track_caller]
pub(crate) fn wait(case: &str, mut child: Child) -> Ended {
    use std::io::Read;
    use std::os::unix::process::ExitStatusExt;
    let begun = Instant::now();
    // Read beside the wait, so that a full pipe blocks nobody.
    let mut pipes = (child.stdout.take(), child.stderr.take());
    let out = std::thread::spawn(move || {
        let mut s = Vec::new();
        pipes.0.as_mut().map(|p| p.read_to_end(&mut s));
        s
    });
    let err = std::thread::spawn(move || {
        let mut s = Vec::new();
        pipes.1.as_mut().map(|p| p.read_to_end(&mut s));
        s
    });
    let mut killed = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if begun.elapsed() > PATIENCE + Duration::from_secs(5) && !killed {
            killed = true;
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let took = begun.elapsed();
    let text = |t: std::thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&t.join().unwrap()).into_owned();
    let o = Output { status, stdout: Vec::new(), stderr: Vec::new() };
    let ended = Ended { code: o.status.code(), signal: o.status.signal(), out: text(out), err: text(err), took };
    assert!(!killed, "the child {case} did not end: {ended:#?}");
    ended
}

/// splitmix64: small, seeded, good enough to shake schedules.
#[derive(Debug, Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// A seed for this run, from `CORO_TEST_SEED` or the clock. Print it where a failure shows it.
pub(crate) fn seed() -> u64 {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    std::env::var("CORO_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(now)
}

/// How many descriptors this process has open.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// How many threads this process has.
pub(crate) fn threads() -> usize {
    // There is one of each of these for the process, from when it is first needed on; coro-images is there for moments.
    const SERVICES: [&str; 6] =
        ["coro-deadlock", "coro-images", "coro-report", "coro-scribe", "coro-stderr", "coro-watchdog"];
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("comm")).ok());
    names.filter(|name| !SERVICES.contains(&name.trim())).count()
}
