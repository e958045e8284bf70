//! What the one who waits sees.

use std::io::{self, Write};

use serde_json::Value;

use super::{disturbance, machine, ratio, spread, versions, wanted};
use crate::results::{Cell, Results};
use crate::run::attended;
use crate::run::runtimes::{RUNTIMES, label};

pub(crate) fn session(session: &Value) {
    println!("{}; load {}", machine(session), session["machine"]["load"]);
    println!("{}", versions(session));
    if session["quick"] == true {
        println!("quick: short runs, to see that everything works; the figures are worth nothing");
    }
    for (name, why) in session["skipped"].as_object().into_iter().flatten() {
        println!("{}: SKIPPED, {}", label(name), why.as_str().unwrap_or_default());
    }
    for (what, why) in session["uncounted"].as_object().into_iter().flatten() {
        println!("No {what}: {}", why.as_str().unwrap_or_default());
    }
}

/// One line that the next one overwrites.
pub(crate) fn running(case: &str, runtime: &str, workers: usize, round: usize) -> io::Result<()> {
    if !attended() {
        return Ok(());
    }
    let mut out = io::stderr();
    write!(out, "\r\x1b[K{case}, round {}: {runtime}-{workers}", round + 1)?;
    out.flush()
}

/// A case whose rounds are over.
pub(crate) fn case(results: &Results, case: &str, workers: usize) {
    if attended() {
        eprint!("\r\x1b[K");
    }
    let rows: Vec<_> = results.rows(workers).into_iter().filter(|row| row.case.name == case).collect();
    let Some(first) = rows.first() else { return };
    let of_case: Vec<_> =
        results.runs.iter().map(|(_, r)| r).filter(|r| r.case == case && r.workers == workers).collect();
    let disturbed = of_case.iter().filter(|run| run.disturbed).count();
    let note =
        if disturbed == 0 { String::new() } else { format!("; {disturbed} of {} runs DISTURBED", of_case.len()) };
    println!("\n{case}, {workers} worker{}: {}{note}", if workers == 1 { "" } else { "s" }, first.case.what);
    for row in &rows {
        for (runtime, cell) in RUNTIMES.iter().zip(&row.cells) {
            let text = match cell {
                Cell::Measured(s) => spread(*s),
                Cell::Unsupported => "-".to_owned(),
                Cell::Failed => "failed".to_owned(),
                Cell::Absent => continue,
            };
            println!("  {:12} {text:32} {}", runtime.label, row.metric.unit);
        }
        let held = row.comparison.as_ref().map(|c| format!("coro: {}", ratio(c.ratio, c.with)));
        let wanted = row.wanted.map(|w| format!("wanted {}", wanted(w, row.metric)));
        if held.is_some() || wanted.is_some() {
            println!("  {}", [held, wanted].into_iter().flatten().collect::<Vec<_>>().join("; "));
        }
    }
}

/// What is to be known about the whole.
pub(crate) fn end(results: &Results) {
    println!();
    results.left_out().iter().for_each(|line| println!("{line}"));
    println!("{}", disturbance(results));
}
