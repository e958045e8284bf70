//! The other runtimes, and what there is without any: one workload per process, by the protocol of `benches/peer-coro`.
//!
//! `RUNTIME WORKLOAD [key=value]...`; every measured value is a line `workload runtime metric value`. Exit code 2 when called
//! wrongly, 3 for a workload that this runtime does not have, and why on the standard error stream.
//!
//! What is the same for every runtime that has futures stands in `futures` once and is compiled for each; a runtime's own file
//! has what its users would write. glommio and monoio have one thread: what is `-2` there is two threads that share nothing. Must not know: how many rounds there are, and what is done with the figures.

mod bare;
mod bare_tasks;
mod cross;
mod floor;
mod glommio;
mod hyper;
mod may;
mod minihttp;
pub(crate) mod monoio;
mod smol;
mod tokio;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::args::{Args, Runtimes};
use crate::measure::{Histogram, Memory, ns_each};

/// Tasks may go to another thread, so what they hold has to as well.
#[path = "."]
mod shared {
    /// Whether every task stays on its thread.
    const STAY: bool = false;

    /// For what one task has.
    pub(crate) trait Bound: Send {}
    impl<T: Send + ?Sized> Bound for T {}

    /// For what several have in common.
    pub(crate) trait Common: Send + Sync {}
    impl<T: Send + Sync + ?Sized> Common for T {}

    #[path = "futures.rs"]
    pub(super) mod futures;
}

/// Tasks stay on their thread, and may hold anything.
#[path = "."]
mod local {
    const STAY: bool = true;

    pub(crate) trait Bound {}
    impl<T: ?Sized> Bound for T {}

    pub(crate) trait Common {}
    impl<T: ?Sized> Common for T {}

    #[path = "futures.rs"]
    #[expect(clippy::duplicate_mod, reason = "nothing can be generic over `Send`, and this is the same but for that")]
    pub(super) mod futures;
}

const RUNTIMES: Runtimes = &[
    ("bare-1", 1),
    ("bare-2", 2),
    ("tokio-1", 1),
    ("tokio-2", 2),
    ("may-1", 1),
    ("may-2", 2),
    ("smol-1", 1),
    ("smol-2", 2),
    ("glommio-1", 1),
    ("glommio-2", 2),
    ("monoio-1", 1),
    ("monoio-2", 2),
    ("hyper-1", 1),
    ("minihttp-1", 1),
];

/// On each of so many threads what a runtime with one thread does there; the first that fails is told.
fn on_threads(n: usize, body: impl Fn(usize) -> Result<(), Refused> + Clone + Send + 'static) -> Result<(), Refused> {
    let start = |i| {
        let body = body.clone();
        std::thread::spawn(move || body(i))
    };
    let threads: Vec<_> = (0..n).map(start).collect();
    let join = |t: JoinHandle<_>| t.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
    threads.into_iter().try_for_each(join)
}

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
        Some(("glommio", _)) => glommio::run(args),
        Some(("monoio", _)) => monoio::run(args),
        Some(("hyper", _)) => hyper::run(&args),
        Some(("minihttp", _)) => minihttp::run(&args),
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

/// The body of the frozen answer (`crate::http`), for those that write what stands before it themselves.
const BODY: &str = "Hello, World!";

/// Refuses what a web server has nothing for.
fn only_http(args: &Args) -> Result<(), Refused> {
    if args.workload == "http-server" { Ok(()) } else { Err(Refused::Unsupported("HTTP only".to_owned())) }
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

/// What came out of `timers`, in every runtime.
fn report_timers(args: &Args, late: &Histogram, cpu: Duration, wall: Duration, timers: usize) {
    args.report("timers", "cpu_ns_per_timer", ns_each(cpu, timers));
    for (metric, ns) in
        [("late_p50_us", late.quantile(0.5)), ("late_p99_us", late.quantile(0.99)), ("late_max_us", late.max())]
    {
        args.report("timers", metric, ns as f64 / 1e3);
    }
    args.report("timers", "wall_s", wall.as_secs_f64());
}

/// What came out of `mem`, in every runtime.
fn report_memory(args: &Args, before: Memory, after: Memory, took: Duration, n: usize) {
    let case = format!("mem.park.{n}");
    let tables = after.tables - before.tables;
    args.report(&case, "bytes_per_task", (after.resident - before.resident + tables) / n as f64);
    args.report(&case, "pte_bytes_per_task", tables / n as f64);
    args.report(&case, "create_ns_per_task", ns_each(took, n));
}
