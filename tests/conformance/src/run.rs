//! Starts one process for each test and mode, with a limit on its time, a few at once.
//!
//! The modes of one test run one after another: some of std's tests use fixed names of abstract sockets.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test may take in one mode.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How long one that is expected to fail may take: those that hang shall not hold up the others.
const EXCLUDED_LIMIT: Duration = Duration::from_secs(5);

/// A test in one of the programs.
#[derive(Debug, Clone)]
pub struct Test<'a> {
    /// Index of its file in the suite.
    pub file: usize,
    /// Its name there.
    pub name: String,
    /// The program that holds it.
    pub program: &'a Path,
    /// Whether it wants a network of its own.
    pub sockets: bool,
    /// Whether it is expected to fail in some mode. It runs until it does.
    pub excluded: bool,
}

/// What became of a test in one mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As std's authors want it.
    Passed,
    /// Not so; how it ended and what it said.
    Failed(String),
}

/// The results of one test by mode.
pub type Outcomes = BTreeMap<&'static str, Outcome>;

/// The names of a program's tests; the second list holds those that std itself ignores here.
///
/// # Errors
/// If the program does not start or does not answer in the known form.
pub fn list(program: &Path) -> io::Result<(Vec<String>, Vec<String>)> {
    let output = Command::new(program).arg("--list").stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut run, mut ignored) = (Vec::new(), Vec::new());
    for line in text.lines() {
        match line.split_once('\t') {
            Some((name, "run")) => run.push(name.to_owned()),
            Some((name, "ignored")) => ignored.push(name.to_owned()),
            _ => return Err(io::Error::other(format!("{} --list said {line:?}", program.display()))),
        }
    }
    if !output.status.success() {
        return Err(io::Error::other(format!("{} --list ended with {}", program.display(), output.status)));
    }
    Ok((run, ignored))
}

/// What the test processes have for a network: `own` or `shared`, `ipv6` or `ipv4`.
///
/// # Errors
/// If the program does not start.
pub fn network(program: &Path) -> io::Result<String> {
    let output = Command::new(program).arg("--network").stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().replace('\t', ", "))
}

/// Runs all tests in all modes; the results in the order of `tests`. Outputs are kept below `dir` while a test runs.
///
/// # Errors
/// If a process cannot be started.
pub fn all(tests: &[Test<'_>], modes: &[&'static str], dir: &Path) -> io::Result<Vec<Outcomes>> {
    let results = Mutex::new(vec![Outcomes::new(); tests.len()]);
    let next = AtomicUsize::new(0);
    // Most tests wait more than they work.
    let at_once = thread::available_parallelism().map_or(2, |cpus| 2 * cpus.get()).clamp(2, 8);
    thread::scope(|scope| {
        let runners: Vec<_> = (0..at_once)
            .map(|slot| {
                let (results, next) = (&results, &next);
                let file = dir.join(format!("output-{slot}"));
                scope.spawn(move || -> io::Result<()> {
                    while let Some((i, test)) =
                        Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| tests.get(i).map(|test| (i, test)))
                    {
                        let limit = if test.excluded { EXCLUDED_LIMIT } else { LIMIT };
                        for mode in modes {
                            let outcome = one(test, mode, limit, &file)?;
                            let enough = test.excluded && outcome != Outcome::Passed;
                            results.lock().expect("no runner panics with it")[i].insert(*mode, outcome);
                            if enough {
                                break;
                            }
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        runners.into_iter().try_for_each(|r| r.join().expect("a runner does not panic"))
    })?;
    Ok(results.into_inner().expect("no runner panicked"))
}

fn one(test: &Test<'_>, mode: &str, limit: Duration, output: &Path) -> io::Result<Outcome> {
    let out = File::create(output)?;
    let mut command = Command::new(test.program);
    command
        .args(["--exact", &test.name, "--mode", mode])
        .env("CONFORMANCE_LIMIT_MS", limit.as_millis().to_string())
        // A test that panics on purpose need not look up names.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    if test.sockets {
        command.env("CONFORMANCE_SOCKETS", "1");
    }
    let began = Instant::now();
    let mut child = command.spawn()?;
    let ended = wait(&mut child, limit)?;
    Ok(match ended {
        Some(status) if status.success() => Outcome::Passed,
        Some(status) => {
            Outcome::Failed(format!("ended with {status} after {} ms\n{}", began.elapsed().as_millis(), tail(output)))
        }
        None => Outcome::Failed(format!("hung; ended after {} s\n{}", limit.as_secs(), tail(output))),
    })
}

/// Waits for the end of `child`; `None` if it was killed at the limit.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn tail(path: &Path) -> String {
    const MOST: usize = 60;
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(MOST);
    let mut out = if skipped > 0 { format!("({skipped} lines before)\n") } else { String::new() };
    out.push_str(&lines[skipped..].join("\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_hangs_is_ended_and_told_from_one_that_ends() {
        let start = |script| Command::new("sh").args(["-c", script]).spawn().unwrap();
        assert_eq!(wait(&mut start("exec sleep 60"), Duration::from_millis(50)).unwrap(), None);
        assert!(wait(&mut start("exit 0"), LIMIT).unwrap().unwrap().success());
        assert_eq!(wait(&mut start("exit 3"), LIMIT).unwrap().unwrap().code(), Some(3));
    }
}
