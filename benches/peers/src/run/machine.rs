//! What this machine is, what time it is, and what else uses its CPUs.

use std::fs;
use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// The CPUs that this process may run on.
pub(super) fn cpus() -> io::Result<Vec<usize>> {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: all zeros is an empty set, and the call writes to it only.
    let (code, set) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size, &raw mut set), set)
    };
    if code != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the numbers are below the set's size.
    Ok((0..size * 8).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// The value of the first line `name : value` of a file of the kernel's.
fn told(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.split_once(':')?.1.trim().to_owned()))
}

pub(super) fn describe(cpus: usize) -> Value {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "cpu": told("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        "cpus": cpus,
        "virtual": told("/proc/cpuinfo", "flags").is_some_and(|flags| flags.split(' ').any(|f| f == "hypervisor")),
        "kernel": kernel.trim(),
        "load": load.split(' ').next().and_then(|n| n.parse::<f64>().ok()),
    })
}

/// Date and time, UTC, as RFC 3339 writes it.
pub(super) fn now() -> String {
    date(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// The civil date of a day number, by Howard Hinnant's algorithm: years begin in March, eras are 400 years.
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// CPU time, in seconds.
#[derive(Clone, Copy)]
struct Used {
    /// By programs, on all CPUs. Not what interrupts take: that of a loopback connection belongs to those who use it.
    programs: f64,
    /// By whoever else has this machine's CPUs, where it is a virtual one.
    stolen: f64,
    /// By this process and those of its children that have ended and been waited for.
    ours: f64,
}

fn used() -> Used {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    // SAFETY: no preconditions.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let field: Vec<f64> = line.split_whitespace().skip(1).map(|n| n.parse().unwrap_or(0.0) / ticks).collect();
    let at = |i: usize| field.get(i).copied().unwrap_or(0.0);
    let ours = [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN].into_iter().map(|who| {
        // SAFETY: all zeros is a valid rusage, and the call writes only to it.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &raw mut usage);
            usage
        };
        let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
        seconds(usage.ru_utime) + seconds(usage.ru_stime)
    });
    Used { programs: at(0) + at(1) + at(2), stolen: at(7), ours: ours.sum() }
}

/// Watches who else uses the CPUs while something is measured.
pub(super) struct Watch {
    before: Used,
    start: Instant,
}

/// What a [`Watch`] has seen; CPUs on average.
pub(super) struct Seen {
    pub(super) wall: Duration,
    pub(super) foreign: f64,
    pub(super) stolen: f64,
    /// So much of it that the figures are doubtful.
    pub(super) disturbed: bool,
}

/// CPUs in use by others from which on a run counts as disturbed.
const DISTURBED: f64 = 0.10;

/// The kernel counts in hundredths of a second, and both ends are rounded.
const ROUNDING: f64 = 0.03;

impl Watch {
    pub(super) fn start() -> Watch {
        Watch { before: used(), start: Instant::now() }
    }

    /// To be called after everything that was started has been waited for.
    pub(super) fn stop(self) -> Seen {
        let (after, wall) = (used(), self.start.elapsed());
        let seconds = wall.as_secs_f64();
        let others = (after.programs - self.before.programs) - (after.ours - self.before.ours);
        let foreign = (others - ROUNDING).max(0.0) / seconds;
        let stolen = (after.stolen - self.before.stolen - ROUNDING).max(0.0) / seconds;
        Seen { wall, foreign, stolen, disturbed: foreign + stolen > DISTURBED }
    }
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
