//! The latency warning: a task that kept its worker longer than the threshold, in Shrapnel's words.
//!
//! First cut: told when the slice has ended, also when the task ended with it. Telling it during the stall, with the
//! stack, comes with the watchdog.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use crate::observe::SLICE_OVERRUN;
use crate::scheduler::runtime;
use crate::sys::{clock, stderr};

/// Sets how long one slice may last before a line on stderr says so; zero switches it off. Returns the old value.
///
/// The default is 200 ms, or `CORO_LATENCY_MS`. Applies to every runtime of the process. Rounded up to milliseconds.
pub fn set_latency_warning(threshold: Duration) -> Duration {
    runtime::set_latency(threshold)
}

pub(crate) fn install() {
    SLICE_OVERRUN.set(report);
}

fn report(id: u64, name: Option<&str>, ticks: u64) {
    let seconds = clock::duration(ticks).as_secs_f64();
    let mut line = format!("{} High Latency: ({seconds:.3}s) for task #{id}", stderr::time_text(SystemTime::now()));
    if let Some(name) = name {
        let _ = write!(line, " \"{}\"", name.escape_debug());
    }
    line.push('\n');
    stderr::write(&line);
}
