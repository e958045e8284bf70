//! The other runtimes, and a loop without any: one workload per process, by the protocol of `benches/peer-coro`.
//!
//! `RUNTIME WORKLOAD [key=value]...`; every measured value is a line `workload runtime metric value`. Exit code 2 when called
//! wrongly, 3 for a workload that this runtime does not have, and why on the standard error stream.
//!
//! What is the same for every runtime that has futures stands in `futures` once and is compiled for each; a runtime's own file
//! has what its users would write. Must not know: how many rounds there are, and what is done with the figures.

mod bare;
mod futures;
mod may;
mod smol;
mod tokio;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::args::{Args, Runtimes};

const RUNTIMES: Runtimes = &[
    ("bare-1", 1),
    ("bare-2", 2),
    ("tokio-1", 1),
    ("tokio-2", 2),
    ("may-1", 1),
    ("may-2", 2),
    ("smol-1", 1),
    ("smol-2", 2),
];

/// Why a workload gave no figures.
pub(crate) enum Refused {
    /// The runtime has nothing to do it with, or nobody thought of it.
    Unsupported(String),
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Io(error)
    }
}

impl Refused {
    fn unknown(args: &Args) -> Refused {
        Refused::Unsupported(format!("no workload {:?} with these keys", args.workload))
    }
}

/// Runs one workload as the words say.
pub(crate) fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let args = match Args::parse(RUNTIMES, words) {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("peers: {problem}\nusage: peers work RUNTIME WORKLOAD [key=value]...");
            return ExitCode::from(2);
        }
    };
    let done = match args.runtime.split_once('-') {
        Some(("bare", _)) => bare::run(&args),
        Some(("tokio", _)) => tokio::run(args),
        Some(("may", _)) => may::run(args),
        Some(("smol", _)) => smol::run(args),
        _ => Err(Refused::unknown(&args)),
    };
    match done {
        // Parked tasks are not torn down: that is no part of any workload.
        Ok(()) => std::process::exit(0),
        Err(Refused::Unsupported(why)) => {
            eprintln!("{why}");
            ExitCode::from(3)
        }
        Err(Refused::Io(error)) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says that the server can be connected to.
fn ready() -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "READY")?;
    out.flush()
}

/// What is added up where `tasks` times the numbers below `each` are sent.
fn sum_of(tasks: usize, each: usize) -> u64 {
    (tasks * (each * each.saturating_sub(1) / 2)) as u64
}
