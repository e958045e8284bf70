//! Parks a million tasks, says what they take, ends them and says what is left.
//!
//! `cargo run --release --example million [-- N]`. Exit code 0 if the memory came back, 1 if not or if it cannot start,
//! 2 when called wrongly.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::JoinHandle;

mod util;
use util::{Memory, mib};

const USAGE: &str = "usage: million [N] [--hold SECONDS] [--backdoor PATH]
  N                 how many tasks (default 1000000)
  --hold SECONDS    how long they stay parked, with a backdoor to look at them (default 0)
  --backdoor PATH   where that backdoor is (default in a private directory)";

/// One page of stack, 512 bytes of page tables, and the task's cell, handle and share of the tables, rounded up.
const BYTES_PER_TASK: u64 = 4915;
/// What may stay when all have ended, and how long the runtime has for giving back the rest.
const LEFT_AT_MOST: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// Tasks that have come to their `park`.
static PARKED: AtomicUsize = AtomicUsize::new(0);

struct Options {
    tasks: usize,
    hold: Duration,
    backdoor: Option<std::path::PathBuf>,
}

fn options() -> Result<Option<Options>, String> {
    use lexopt::prelude::{Long, Short, Value};
    let mut parser = lexopt::Parser::from_env();
    let mut o = Options { tasks: 1_000_000, hold: Duration::ZERO, backdoor: None };
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("hold") => o.hold = Duration::from_secs(util::number(&mut parser, "--hold", 0..=86_400)?),
            Long("backdoor") => o.backdoor = Some(util::path(&mut parser, "--backdoor")?),
            Long("help") | Short('h') => return Ok(None),
            Value(text) => {
                let text = text.to_string_lossy();
                let n = util::parse(&text, &(1..=4_000_000));
                o.tasks = n.ok_or_else(|| format!("N is a number from 1 to 4000000, not {text:?}"))?;
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Some(o))
}

fn main() -> ExitCode {
    util::main("million", USAGE, options(), |options| {
        let need = options.tasks as u64 * BYTES_PER_TASK + LEFT_AT_MOST;
        match util::available_memory() {
            Some((have, limit)) if have < need => {
                let fit = have.saturating_sub(LEFT_AT_MOST) / BYTES_PER_TASK;
                return Err(format!(
                    "{} tasks need {}, and {limit} leaves {}: free some, or ask for at most {fit} tasks",
                    options.tasks,
                    mib(need),
                    mib(have)
                ));
            }
            Some((have, limit)) => println!("memory      {} needed, {} left by {limit}", mib(need), mib(have)),
            None => println!("memory      {} needed; how much there is, this system does not tell", mib(need)),
        }
        let well = coro::run(|| park_and_free(&options)).map_err(|e| e.to_string())?;
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(1) })
    })
}

/// Whether the memory came back.
fn park_and_free(o: &Options) -> std::io::Result<bool> {
    let guards = coro::inspect::stack_stats()?.guards;
    println!("guards      {guards}");
    if !o.hold.is_zero() || o.backdoor.is_some() {
        let server = match &o.backdoor {
            Some(path) => coro::backdoor::serve(path)?,
            None => coro::backdoor::serve_default()?,
        };
        println!("backdoor on {}", server.path().display());
    }
    let start = Memory::now();
    let maps_at_start = util::mappings();

    let begun = Instant::now();
    let tasks = spawn(o.tasks)?;
    while PARKED.load(Ordering::Acquire) < o.tasks {
        coro::sleep(Duration::from_millis(1));
    }
    let created = begun.elapsed();
    let full = Memory::now();
    let stacks = coro::inspect::stack_stats()?;
    let each = |bytes: u64| bytes as f64 / o.tasks as f64;
    let grown = full.total().saturating_sub(start.total());
    let (seconds, ns) = (created.as_secs_f64(), created.as_nanos() as f64 / o.tasks as f64);
    println!("created     {} tasks in {seconds:.3} s, {ns:.0} ns each until it was parked", o.tasks);
    println!(
        "each takes  {:.0} bytes ({:.2} KiB): {:.0} resident, {:.0} of page tables",
        each(grown),
        each(grown) / 1024.0,
        each(full.resident.saturating_sub(start.resident)),
        each(full.page_tables.saturating_sub(start.page_tables)),
    );
    println!("mappings    {} ({maps_at_start} before)", util::mappings());
    println!("stacks      {} in use, {} mappings for guards", stacks.in_use, stacks.guard_mappings);
    coro::sleep(o.hold);

    let begun = Instant::now();
    for (i, task) in tasks.iter().enumerate() {
        task.task().unpark();
        give_way(i);
    }
    for task in tasks {
        task.join().expect("a parked task ends when it is unparked");
    }
    println!("ended       in {:.3} s", begun.elapsed().as_secs_f64());
    Ok(watch_it_go(start))
}

fn spawn(n: usize) -> std::io::Result<Vec<JoinHandle<()>>> {
    let mut tasks = Vec::with_capacity(n);
    for i in 0..n {
        let task = coro::Builder::new().spawn(parked_task);
        tasks.push(task.map_err(|e| std::io::Error::new(e.kind(), format!("after {i} tasks: {e}")))?);
        give_way(i);
    }
    Ok(tasks)
}

/// A loop of a million steps would keep its worker for long enough to be reported.
fn give_way(step: usize) {
    if step % 10_000 == 9_999 {
        coro::yield_slice();
    }
}

#[inline(never)]
fn parked_task() {
    PARKED.fetch_add(1, Ordering::Release);
    coro::park();
    // Also keeps the call above from being the last: then this function would not be on the stack.
    PARKED.fetch_sub(1, Ordering::Relaxed);
}

/// Prints what is left while the process idles; whether that became little enough in time.
fn watch_it_go(start: Memory) -> bool {
    let begun = Instant::now();
    let mut reached = None;
    let mut least = u64::MAX;
    // Two seconds more than it takes: memory that comes back late is still worth telling.
    while begun.elapsed() < PATIENCE && reached.is_none_or(|at| begun.elapsed() < at + Duration::from_secs(2)) {
        let left = Memory::now().total().saturating_sub(start.total());
        least = least.min(left);
        if left <= LEFT_AT_MOST && reached.is_none() {
            reached = Some(begun.elapsed());
        }
        coro::sleep(Duration::from_millis(50));
    }
    let now = Memory::now();
    println!(
        "left        {} more than before ({} resident, {} of page tables), {} mappings",
        mib(now.total().saturating_sub(start.total())),
        mib(now.resident.saturating_sub(start.resident)),
        mib(now.page_tables.saturating_sub(start.page_tables)),
        util::mappings()
    );
    match reached {
        Some(at) => println!("            below {} after {:.1} s of idle", mib(LEFT_AT_MOST), at.as_secs_f64()),
        None => println!("            never below {} in {} s", mib(LEFT_AT_MOST), PATIENCE.as_secs()),
    }
    reached.is_some()
}
