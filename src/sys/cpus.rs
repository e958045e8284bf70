//! What the machine's CPUs do.
//!
//! Must not know: who asks.

#![forbid(unsafe_code)]

use std::time::Duration;

#[cfg(all(target_os = "linux", not(miri)))]
use super::usage;

/// How the machine's CPUs have spent their time since it was started, all together. What runs at a lower priority than whoever asks
/// makes way for him, and counts as idle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CpuTimes {
    pub(crate) idle: Duration,
    pub(crate) busy: Duration,
}

/// The first line of `/proc/stat` (proc_stat(5)). Opened each time: the program can do without one more descriptor of ours.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn times() -> Option<CpuTimes> {
    use std::io::Read as _;
    let mut text = [0; 200];
    let length = std::fs::File::open("/proc/stat").ok()?.read(&mut text).ok()?;
    let [idle, nice, busy] = idle_nice_and_busy_ticks(&text[..length])?;
    let (idle, busy) = if is_niced().unwrap_or(true) { (idle, nice + busy) } else { (idle + nice, busy) };
    let time = |ticks: u64| Some(Duration::from_secs_f64(ticks as f64 / usage::ticks_per_second()? as f64));
    Some(CpuTimes { idle: time(idle)?, busy: time(busy)? })
}

/// Not looked for elsewhere.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn times() -> Option<CpuTimes> {
    None
}

/// Whether this thread has given up some of its priority, as the nineteenth field says (proc_pid_stat(5)): then others that have are not
/// known to have less.
#[cfg(all(target_os = "linux", not(miri)))]
fn is_niced() -> Option<bool> {
    let stat = std::fs::read("/proc/thread-self/stat").ok()?;
    let after = stat.iter().rposition(|b| *b == b')')? + 1;
    let nice = std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace().nth(19 - 3)?;
    Some(nice.parse::<i32>().ok()? > 0)
}

/// The fourth and fifth figure, the second, and the others but for guests, who are in the first two.
#[cfg(all(target_os = "linux", not(miri)))]
fn idle_nice_and_busy_ticks(stat: &[u8]) -> Option<[u64; 3]> {
    let line = std::str::from_utf8(stat.split(|b| *b == b'\n').next()?).ok()?;
    let figures = line.strip_prefix("cpu ")?.split_ascii_whitespace().take(8);
    let figures = figures.map(str::parse).collect::<Result<Vec<u64>, _>>().ok()?;
    let idle = figures.get(3)? + figures.get(4)?;
    Some([idle, figures[1], figures.iter().sum::<u64>() - idle - figures[1]])
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn cpus_tell_how_they_spend_their_time() {
        let stat = b"cpu  4935894 445232 1301862 3425641 41247 0 34236 94699 0 0\ncpu0 1 2";
        assert_eq!(idle_nice_and_busy_ticks(stat), Some([3466888, 445232, 6366691]));
        assert_eq!([&b""[..], b"cpu  1 2 3", b"cpu0 1 2 3 4 5"].map(idle_nice_and_busy_ticks), [None; 3]);
        assert!(is_niced().is_some());
        let (before, now) = (times().expect("this machine's"), times().expect("this machine's"));
        assert!(now.idle >= before.idle && now.busy >= before.busy && now.busy > Duration::ZERO);
    }
}
