//! What the examples share: arguments, sizes and the memory of this process.
#![allow(dead_code, reason = "no example needs all of it")]

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

/// Prints what is wrong with the command line; exit code 2.
fn misused(program: &str, problem: impl Display, usage: &str) -> ExitCode {
    eprintln!("{program}: {problem}\n{usage}");
    ExitCode::from(2)
}

/// Prints what went wrong; exit code 1.
fn failed(program: &str, problem: impl Display) -> ExitCode {
    eprintln!("{program}: {problem}");
    ExitCode::from(1)
}

/// What every example does with its command line: it says how it is used, what is wrong, or runs. Exit code 0, 1 if it fails,
/// 2 if it is called wrongly.
pub(crate) fn main<O, E: Display>(
    program: &str,
    usage: &str,
    options: Result<Option<O>, String>,
    run: impl FnOnce(O) -> Result<ExitCode, E>,
) -> ExitCode {
    match options {
        Ok(Some(options)) => run(options).unwrap_or_else(|problem| failed(program, problem)),
        Ok(None) => {
            println!("{usage}");
            ExitCode::SUCCESS
        }
        Err(problem) => misused(program, problem, usage),
    }
}

/// The value of the option that was just read, which must lie in `range`.
pub(crate) fn number<T>(
    parser: &mut lexopt::Parser,
    option: &str,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let text = text(parser, option)?;
    parse(&text, &range)
        .ok_or_else(|| format!("{option} wants a number from {} to {}, not {text:?}", range.start(), range.end()))
}

/// A number with `_` between its digits if one likes.
pub(crate) fn parse<T: FromStr + PartialOrd>(text: &str, range: &std::ops::RangeInclusive<T>) -> Option<T> {
    text.replace('_', "").parse().ok().filter(|n| range.contains(n))
}

/// The value of the option that was just read, as text.
pub(crate) fn text(parser: &mut lexopt::Parser, option: &str) -> Result<String, String> {
    let value = parser.value().map_err(|_| format!("{option} wants a value"))?;
    value.into_string().map_err(|bad| format!("{option} wants UTF-8 text, not {bad:?}"))
}

/// The value of the option that was just read, as a path.
pub(crate) fn path(parser: &mut lexopt::Parser, option: &str) -> Result<PathBuf, String> {
    parser.value().map(PathBuf::from).map_err(|_| format!("{option} wants a path"))
}

/// Resident memory and page tables of this process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) page_tables: u64,
}

impl Memory {
    /// Zeros where there is no `/proc`.
    pub(crate) fn now() -> Memory {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Memory { resident: kib(&status, "VmRSS:"), page_tables: kib(&status, "VmPTE:") }
    }

    pub(crate) fn total(self) -> u64 {
        self.resident + self.page_tables
    }
}

/// Lines in the list of this process's mappings.
pub(crate) fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").map_or(0, |text| text.lines().count())
}

/// How much memory this process may still take, and what sets that limit. `None`: unknown.
pub(crate) fn available_memory() -> Option<(u64, String)> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = (kib(&meminfo, "MemAvailable:"), "available memory".to_owned());
    cgroup_limits().into_iter().chain([machine]).min_by_key(|(bytes, _)| *bytes)
}

/// What the control groups of this process leave, from its own up to the root.
fn cgroup_limits() -> Vec<(u64, String)> {
    let number = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let mut found = Vec::new();
    for line in std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default().lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (root, limit, usage) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max", "memory.current")
        } else if controllers.split(',').any(|c| c == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            continue;
        };
        for group in Path::new(group.trim_start_matches('/')).ancestors() {
            let directory = Path::new(root).join(group);
            if let (Some(most), Some(used)) = (number(&directory.join(limit)), number(&directory.join(usage))) {
                let name = format!("the limit of control group {}", directory.display());
                found.push((most.saturating_sub(used), name));
            }
        }
    }
    found
}

fn kib(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Bytes in MiB, for people.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
