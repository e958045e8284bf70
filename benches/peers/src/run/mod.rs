//! Runs the cases: in each round every runtime once, A B C, then the next round, so that all see the same machine.
//!
//! What has one worker is pinned to one CPU, a load to another. Every run is written down as soon as it is over. Must not know:
//! what is concluded from the figures.

pub(crate) mod cases;
mod child;
mod machine;
pub(crate) mod programs;
mod rounds;
pub(crate) mod runtimes;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use regex_lite::Regex;
use serde_json::{Value, json};

use crate::load::allow_descriptors;
use crate::report::screen;
use crate::results::{Results, Run, Verdict};
use cases::{CASES, Case, Work};
use programs::Programs;
pub(crate) use rounds::Rounds;
use runtimes::{OURS, RUNTIMES};

/// What the command line asks for.
pub(crate) struct Order {
    pub(crate) rounds: Rounds,
    /// Of the cases' names.
    pub(crate) only: Option<Regex>,
    pub(crate) peers: Vec<&'static str>,
    pub(crate) workloads: Vec<String>,
    pub(crate) out: Option<PathBuf>,
    pub(crate) coro: Option<PathBuf>,
    pub(crate) cpus: Option<(usize, usize)>,
    pub(crate) quick: bool,
}

impl Order {
    fn cases(&self) -> Vec<&'static Case> {
        let wanted = |case: &&Case| {
            let named = self.workloads.iter().any(|w| w == "all" || w == case.workload());
            named && self.only.as_ref().is_none_or(|only| only.is_match(case.name))
        };
        CASES.iter().filter(wanted).collect()
    }
}

/// For what has one worker, and for the load on it.
fn choose_cpus(order: &Order) -> Result<(usize, Option<usize>), String> {
    let allowed = machine::cpus().map_err(|e| format!("the CPUs of this process: {e}"))?;
    match (order.cpus, allowed.as_slice()) {
        (Some((one, other)), _) if one != other && allowed.contains(&one) && allowed.contains(&other) => {
            Ok((one, Some(other)))
        }
        (Some(_), _) => Err(format!("--cpus wants two of {allowed:?}")),
        (None, []) => Err("this process may run on no CPU".to_owned()),
        (None, [one, rest @ ..]) => Ok((*one, rest.first().copied())),
    }
}

struct Writer {
    file: File,
    path: PathBuf,
}

impl Writer {
    fn line(&mut self, line: &Value) -> Result<(), String> {
        writeln!(self.file, "{line}").map_err(|e| format!("{}: {e}", self.path.display()))
    }
}

/// Runs everything; where the results are.
pub(crate) fn run(order: &Order) -> Result<(PathBuf, Results), String> {
    let cases = order.cases();
    if cases.is_empty() {
        return Err("no case is chosen".to_owned());
    }
    let cpus = choose_cpus(order)?;
    let programs = Programs::build(&order.peers, order.coro.clone())?;
    let started = machine::now();
    let path = order.out.clone().unwrap_or_else(|| format!("peers-{}.jsonl", started.replace([':', '-'], "")).into());
    let file = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut writer = Writer { file, path };
    let session = json!({
        "kind": "session", "started": started, "machine": machine::describe(machine_cpus()),
        "versions": programs.versions, "skipped": programs.missing, "uncounted": programs.uncounted,
        "rounds": order.rounds.to_string(), "quick": order.quick,
        "one_worker_on_cpu": cpus.0, "load_on_cpu": cpus.1,
    });
    screen::session(&session);
    writer.line(&session)?;
    let mut results = Results { sessions: vec![session], runs: Vec::new() };
    for case in cases {
        if let Some(why) = cannot(case, &programs, cpus.1) {
            println!("\n{}: SKIPPED, {why}", case.name);
            continue;
        }
        for workers in case.workers {
            rounds(order, case, *workers, cpus, &programs, |run| {
                writer.line(&run.write())?;
                results.runs.push((0, run));
                Ok(())
            })?;
            screen::case(&results, case.name, *workers);
        }
    }
    screen::end(&results);
    println!("\nresults: {}", writer.path.display());
    Ok((writer.path, results))
}

/// All CPUs of the machine that a process may be given, not only those of this one.
fn machine_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn cannot(case: &Case, programs: &Programs, other_cpu: Option<usize>) -> Option<String> {
    match case.work {
        Work::Process { .. } => None,
        Work::Http(_) if !programs.wrk => Some("wrk is not installed".to_owned()),
        Work::Echo(_) | Work::Http(_) if other_cpu.is_none() => Some("there is no second CPU for the load".to_owned()),
        // What is started from here on may have as many as this process.
        Work::Echo(connections) | Work::Http(connections) => {
            allow_descriptors(connections).err().map(|e| e.to_string())
        }
    }
}

fn rounds(
    order: &Order,
    case: &Case,
    workers: usize,
    cpus: (usize, Option<usize>),
    programs: &Programs,
    mut done: impl FnMut(Run) -> Result<(), String>,
) -> Result<(), String> {
    // What does not work is not tried again in this case: with some it takes its time to break.
    let mut out = BTreeSet::new();
    for round in 0..order.rounds.of(case.workload()) {
        for taking_part in RUNTIMES.iter().filter(|r| case.takes(r, workers)) {
            let runtime = taking_part.name;
            if !order.peers.contains(&runtime) || programs.missing.contains_key(runtime) || out.contains(runtime) {
                continue;
            }
            // Where this cannot be shown, nobody waits for it either.
            let _ = screen::running(case.name, runtime, workers, round);
            let watch = machine::Watch::start();
            let run = child::Run { programs, runtime, workers, cpus, quick: order.quick };
            let verdict = match &case.work {
                Work::Process { words, quick } => run.process(words, quick),
                Work::Echo(connections) => run.echo(*connections),
                Work::Http(connections) => run.http(*connections),
            };
            let seen = watch.stop();
            if !matches!(verdict, Verdict::Measured(_)) {
                out.insert(runtime);
            }
            done(Run {
                case: case.name.to_owned(),
                runtime: runtime.to_owned(),
                workers,
                round,
                verdict,
                wall: rounded(seen.wall.as_secs_f64()),
                foreign: rounded(seen.foreign),
                stolen: rounded(seen.stolen),
                disturbed: seen.disturbed,
            })?;
        }
    }
    Ok(())
}

/// To the thousandth.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The runtimes of a list with commas; ours always takes part.
pub(crate) fn choose(list: &str) -> Result<Vec<&'static str>, String> {
    let mut chosen = vec![OURS];
    for name in list.split(',').map(str::trim) {
        chosen.push(runtimes::find(name).ok_or_else(|| format!("there is no peer {name:?}"))?.name);
    }
    Ok(RUNTIMES.iter().map(|runtime| runtime.name).filter(|name| chosen.contains(name)).collect())
}

/// Whether this can be shown to a person who waits.
pub(crate) fn attended() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}
