//! What there is to say of the process as a whole: `version`, `uptime`, `blocking`.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use super::Answer;
use super::tables::LONGEST_NAME;
use super::text::{age, at_once, clean, count, counted, rows};
use crate::blocking::{BlockingJob, BlockingStats, blocking_stats};
use crate::inspect::{self, Census};
use crate::sys::{stderr, usage};

/// As much of a path is shown.
const LONGEST_PATH: usize = 200;

/// So long names of tasks are looked for.
const NAMES: Duration = Duration::from_millis(30);

/// `version`
pub(super) fn version() -> Box<dyn Answer> {
    let process = inspect::process();
    let mut text =
        format!("coro {} in {}, pid {}", process.version, clean(&process.program, LONGEST_NAME), process.pid);
    if !process.build_id.is_empty() {
        let _ = write!(text, ", build id {}", process.build_id);
    }
    let mut with = vec![std::env::consts::OS, std::env::consts::ARCH];
    with.push(if cfg!(debug_assertions) { "debug assertions" } else { "no debug assertions" });
    with.push(if cfg!(feature = "serde") { "JSON" } else { "no JSON" });
    if !crate::observe::ON {
        with.push("no observation");
    }
    let _ = writeln!(text, "\n{}", with.join(", "));
    at_once(text)
}

/// `uptime`
pub(super) fn uptime() -> Box<dyn Answer> {
    let census = Census::new();
    let runtime = census.uptime();
    let up = usage::age().unwrap_or(runtime);
    let began = SystemTime::now().checked_sub(up).map(stderr::time_text).unwrap_or_default();
    let (user, system) = usage::cpu();
    let workers = counted(census.workers.len() as u64, "worker", "workers");
    let mut text = format!("up {}, since {}; its runtime {}", age(up), began.trim(), age(runtime));
    let _ = writeln!(text, "; {workers}; CPU {} user, {} system", age(user), age(system));
    at_once(text)
}

/// `blocking`
pub(super) fn blocking() -> Box<dyn Answer> {
    let BlockingStats { limit, threads, idle, queued, oldest_queued, running, .. } = blocking_stats();
    let mut head = format!(
        "{} of at most {}, {} idle; {}, {} queued",
        counted(threads as u64, "thread", "threads"),
        count(limit as u64),
        count(idle as u64),
        counted(running.len() as u64, "job runs", "jobs run"),
        count(queued as u64),
    );
    if let Some(oldest) = oldest_queued {
        let _ = write!(head, ", the first for {}", age(oldest));
    }
    if queued > 0 && threads >= limit {
        head.push_str("; ALL THREADS ARE BUSY, set blocking-threads N allows more");
    }
    head.push('\n');
    let begun = Instant::now();
    let names = move |id| (begun.elapsed() < NAMES).then(|| inspect::name_of(id)).flatten();
    rows(&head, running, move |job, out| write_job(job, names(job.task), out))
}

fn write_job(job: &BlockingJob, name: Option<String>, out: &mut String) {
    let _ = write!(out, "{:>6}  for #{}", age(job.age), job.task);
    if let Some(name) = name {
        let _ = write!(out, " \"{}\"", clean(&name, LONGEST_NAME));
    }
    let _ = write!(out, " at {}:{}", clean(job.site.file(), LONGEST_NAME), job.site.line());
    if let Some((call, path)) = &job.file {
        let _ = write!(out, ": {call} \"{}\"", clean(path, LONGEST_PATH));
    }
    out.push('\n');
}
