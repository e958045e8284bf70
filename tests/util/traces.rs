//! What tests of call logs share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coro::probe::{self, Trace};

use super::{runtime, until, within};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// One test at a time: what is traced is the whole process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    until(LIMIT, "nothing is watched", nothing_is_watched);
    one
}

pub(crate) fn nothing_is_watched() -> bool {
    probe::points().iter().all(|point| !point.is_watched())
}

/// Without what differs from run to run: descriptors, ports, ids of tasks and how long it took.
pub(crate) fn masked(line: &str) -> String {
    let (mut out, mut rest) = (String::new(), line);
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(at);
        out.push_str(before);
        if let Some(port) = number.strip_prefix("127.0.0.1:") {
            out.push_str("127.0.0.1:N");
            rest = port.trim_start_matches(|c: char| c.is_ascii_digit());
            continue;
        }
        let end = number.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(number.len());
        let (number, after) =
            (number[..end].trim_end_matches('.'), &number[number[..end].trim_end_matches('.').len()..]);
        rest = after;
        if let Some(after) = [" ns", " µs", " ms", " s"].iter().find_map(|unit| after.strip_prefix(unit)) {
            out.push_str("N s");
            rest = after;
        } else if ["fd ", "pid ", "#"].iter().any(|word| before.ends_with(word)) {
            out.push('N');
        } else {
            out.push_str(number);
        }
    }
    out + rest
}

/// What a trace says of `f`, run by a task.
pub(crate) fn traced(trace: Trace, f: impl FnOnce() + Send + 'static) -> Vec<String> {
    let trace = trace.keep_lines().start().expect("a trace");
    within(LIMIT, || runtime(1).block_on(f));
    let lines = trace.lines();
    drop(trace);
    lines.iter().map(|line| masked(line)).collect()
}

/// A program that ends with this.
pub(crate) struct Ended(pub(crate) std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
