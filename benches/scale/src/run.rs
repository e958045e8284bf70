//! Runs the cases in rounds: every case once, then every case again, so that all see the same machine.
//!
//! Whatever is started here is waited for here, also when it hangs: a process left over would disturb every later run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cases::{Case, Part, grouped};
use crate::results::{Results, Run, Verdict};
use crate::{echo, machine, memory, system};

/// How long any one process may take.
const LIMIT: Duration = Duration::from_secs(180);

/// What the command line asks for.
pub(crate) struct Order {
    pub(crate) rounds: usize,
    pub(crate) least: usize,
    pub(crate) most: usize,
    pub(crate) parts: Vec<Part>,
    pub(crate) out: Option<PathBuf>,
    pub(crate) quick: bool,
}

/// Ends with the value, whatever becomes of the rest of a run.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(case: &Case, words: &[String], cpu: Option<usize>) -> io::Result<Started> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").args(words);
    // One worker lies on one CPU, as it would beside others of its kind; more go where the kernel puts them.
    if let Some(cpu) = cpu.filter(|_| case.workers == 1) {
        system::pin(&mut command, cpu);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map(Started)
}

/// What a process says of its failure, in a line, and how it ended.
fn failed(status: ExitStatus, stderr: &str) -> Verdict {
    let line = stderr.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it said nothing");
    Verdict::Failed(format!("{line} ({status})"))
}

/// Waits with a limit. What it prints has to fit into a pipe, as a handful of lines does.
fn finish(mut started: Started) -> io::Result<Verdict> {
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = started.0.try_wait()? {
            break status;
        }
        if begin.elapsed() > LIMIT {
            return Ok(Verdict::Failed(format!("not over after {} s", LIMIT.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let (mut out, mut err) = (String::new(), String::new());
    if let Some(mut pipe) = started.0.stdout.take() {
        pipe.read_to_string(&mut out)?;
    }
    if let Some(mut pipe) = started.0.stderr.take() {
        pipe.read_to_string(&mut err)?;
    }
    if !status.success() {
        return Ok(failed(status, &err));
    }
    let value = |line: &str| {
        let (metric, value) = line.split_once(' ')?;
        Some((metric.to_owned(), value.parse().ok()?))
    };
    Ok(Verdict::Measured(out.lines().filter_map(value).collect::<BTreeMap<_, f64>>()))
}

/// A server, and a load beside it, on the other CPU if the server has one of its own.
fn echo(case: &Case, cpus: &[usize], quick: bool) -> io::Result<Verdict> {
    let most = echo::most_connections();
    if case.number() > most {
        return Ok(Verdict::Unsupported(format!(
            "this process may have {most} descriptors for connections (ulimit -n)"
        )));
    }
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut server = start(case, &words(&[&case.workers.to_string(), "serve"]), cpus.first().copied())?;
    let mut line = String::new();
    if let Some(pipe) = server.0.stdout.take() {
        BufReader::new(pipe).read_line(&mut line)?;
    }
    let Some(port) = line.trim().strip_prefix("port ") else {
        return Ok(Verdict::Failed("the server did not begin to serve".to_owned()));
    };
    let milliseconds = if quick { "100" } else { "1000" };
    let load = words(&["1", "load", port, &case.at, &server.0.id().to_string(), milliseconds]);
    finish(start(case, &load, cpus.get(1).copied())?)
}

fn one(case: &Case, cpus: &[usize], quick: bool) -> io::Result<Verdict> {
    if system::available_memory().is_some_and(|free| free < case.bytes()) {
        return Ok(Verdict::Unsupported(format!("{} MiB of free memory are needed", case.bytes() >> 20)));
    }
    if case.part == Part::Echo {
        return echo(case, cpus, quick);
    }
    let mut words = vec![case.workers.to_string(), case.part.name().to_owned(), case.at.clone()];
    if matches!(case.part, Part::Fairness | Part::Lateness) {
        words.push(if quick { "200" } else { "2000" }.to_owned());
    }
    // Threads that serve a selfish task, and those that fill a worker, are not to be on its CPU.
    let cpu = cpus.first().copied().filter(|_| !matches!(case.part, Part::Fairness));
    finish(start(case, &words, cpu)?)
}

fn now_or_else(path: Option<&PathBuf>, started: &str) -> PathBuf {
    path.cloned().unwrap_or_else(|| format!("scale-{}.jsonl", started.replace([':', '-'], "")).into())
}

fn say(case: &Case, round: usize, verdict: &Verdict) {
    let workers = if case.workers == 1 { "1 worker".to_owned() } else { format!("{} workers", case.workers) };
    let at = if case.number() > 0 { grouped(case.number()) } else { case.at.clone() };
    let text = match verdict {
        Verdict::Measured(metrics) => {
            let shown = metrics.iter().filter(|(name, _)| !name.ends_with("wall_ns"));
            shown.map(|(name, value)| format!("{name} {value:.1}")).collect::<Vec<_>>().join("  ")
        }
        Verdict::Unsupported(why) => format!("SKIPPED: {why}"),
        Verdict::Failed(why) => format!("FAILED: {why}"),
    };
    println!("{} {at}, {workers}, round {}: {text}", case.part.name(), round + 1);
}

/// Whether what was promised of memory was kept: figures alone would pass for good ones.
fn judged(case: &Case, verdict: Verdict) -> Verdict {
    match &verdict {
        Verdict::Measured(metrics) if case.part == Part::Memory && !metrics.contains_key("below_after_s") => {
            let left = metrics.get("left_mib").copied().unwrap_or(f64::NAN);
            let (most, seconds) = (memory::LEFT_AT_MOST / f64::from(1 << 20), memory::PATIENCE.as_secs());
            Verdict::Failed(format!("{left:.0} MiB are left after {seconds} s, more than {most:.0}"))
        }
        _ => verdict,
    }
}

/// Runs everything. A case that fails is an error in the end, after everything else has run.
pub(crate) fn run(order: &Order) -> Result<Results, String> {
    let cpus = machine::cpus().map_err(|e| format!("the CPUs of this process: {e}"))?;
    let started = machine::now();
    let path = now_or_else(order.out.as_ref(), &started);
    let mut file = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut write = |line: serde_json::Value| writeln!(file, "{line}").map_err(|e| format!("{}: {e}", path.display()));
    let session = json!({
        "kind": "session", "started": started, "machine": machine::describe(cpus.len()), "rounds": order.rounds,
        "quick": order.quick,
    });
    write(session.clone())?;
    let mut results = Results { sessions: vec![session], runs: Vec::new() };
    let (most, rounds) = if order.quick { (order.most.min(1000), 1) } else { (order.most, order.rounds) };
    let mut cases: Vec<Case> = order.parts.iter().flat_map(|part| part.cases(most)).collect();
    cases.retain(|case| case.number() == 0 || case.number() >= order.least);
    let mut broken = Vec::new();
    for round in 0..rounds {
        for case in &cases {
            if round > 0 && (case.part == Part::Memory || case.workers > cpus.len()) {
                continue;
            }
            let watch = machine::Watch::start();
            let verdict = one(case, &cpus, order.quick).map_err(|e| format!("{}: {e}", case.part.name()))?;
            let (verdict, seen) = (judged(case, verdict), watch.stop());
            say(case, round, &verdict);
            if matches!(verdict, Verdict::Failed(_)) {
                broken.push(format!("{} {} with {} workers", case.part.name(), case.at, case.workers));
            }
            let run = Run {
                case: case.clone(),
                round,
                verdict,
                wall: seen.wall.as_secs_f64(),
                foreign: seen.foreign,
                stolen: seen.stolen,
                disturbed: seen.disturbed,
            };
            write(run.write())?;
            results.runs.push(run);
        }
    }
    println!("results: {}", path.display());
    if broken.is_empty() { Ok(results) } else { Err(format!("failed: {}", broken.join(", "))) }
}
