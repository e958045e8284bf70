//! coro's side of the comparison with other runtimes: one workload per process, chosen on the command line.
//!
//! `peer-coro RUNTIME WORKLOAD [key=value]...` with RUNTIME `coro-1` (one worker) or `coro-2` (two). Every measured
//! value is a line `workload runtime metric value`. Exit code 2 when called wrongly, 3 for a workload that this peer
//! does not have. The work is defined by what the other peers do (`benches/peers`), so that figures compare; introspection,
//! accounting and the stall watchdog stay as they are by default.

mod args;
mod dump;
mod http;
mod measure;
mod serve;
mod work;

use std::process::ExitCode;

use args::Args;
use coro::Runtime;

const RUNTIMES: args::Runtimes = &[("coro-1", 1), ("coro-2", 2)];

fn main() -> ExitCode {
    let args = match Args::parse(RUNTIMES, std::env::args().skip(1)) {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("peer-coro: {problem}\nusage: peer-coro coro-1|coro-2 WORKLOAD [key=value]...");
            return ExitCode::from(2);
        }
    };
    let runtime = match Runtime::builder().workers(args.workers).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("peer-coro: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run(&args, &runtime) {
        // Parked tasks are not torn down: that is no part of any workload.
        Ok(()) => std::process::exit(0),
        Err(Refused::Unknown) => {
            eprintln!("peer-coro: no workload {:?} with these keys", args.workload);
            ExitCode::from(3)
        }
        Err(Refused::Io(error)) => {
            eprintln!("peer-coro: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a workload gave no figures.
enum Refused {
    Unknown,
    Io(std::io::Error),
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Refused {
        Refused::Io(error)
    }
}

fn run(args: &Args, runtime: &Runtime) -> Result<(), Refused> {
    match args.workload.as_str() {
        "spawn" if args.text("mode", "burst") == "outside" => work::spawn_outside(args, runtime),
        "dump" => dump::run(args, runtime)?,
        "echo-server" => runtime.block_on(|| serve::echo(args.number("port", 7000)))?,
        "http-server" if args.text("impl", "raw") == "raw" => {
            runtime.block_on(|| serve::http(args.number("port", 7000)))?;
        }
        _ if !runtime.block_on(|| work::in_task(args, runtime)) => return Err(Refused::Unknown),
        _ => {}
    }
    Ok(())
}
