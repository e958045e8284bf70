//! What the process takes of the machine: resident memory, page tables, and how much of a range of memory is resident.
//!
//! Must not know what the memory is for.

use std::fs;
use std::time::Duration;

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) page_tables: Option<u64>,
    /// The most that was ever resident stands in for what is, because the latter could not be had.
    pub(crate) only_peak: bool,
}

/// What the process has now. Where the system's file cannot be read (no descriptor is left) the peak stands for it.
pub(crate) fn memory() -> Memory {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |key: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
        rest.split_whitespace().next()?.parse::<u64>().ok().map(|n| n * 1024)
    };
    match kib("VmRSS:") {
        Some(resident) => Memory { resident, page_tables: kib("VmPTE:"), only_peak: false },
        None => Memory { resident: usage().0, page_tables: None, only_peak: true },
    }
}

/// Resident memory in bytes, for those who ask often. Where it cannot be told it is the most that ever was.
#[cfg_attr(not(feature = "script"), allow(dead_code, reason = "expressions ask"))]
pub(crate) fn resident() -> u64 {
    // The second number counts pages (proc_pid_statm(5)).
    let pages = || fs::read_to_string("/proc/self/statm").ok()?.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    match pages().filter(|_| cfg!(target_os = "linux")) {
        Some(pages) => pages * super::mem::page_size() as u64,
        None => usage().0,
    }
}

/// CPU time of all threads so far, in user and in kernel mode.
pub(crate) fn cpu() -> (Duration, Duration) {
    let (_, user, system) = usage();
    (user, system)
}

/// CPU time of the calling thread so far; `None` where that is not told.
#[cfg(any(feature = "backdoor", test))]
pub(crate) fn own_cpu() -> Option<Duration> {
    if cfg!(miri) {
        return None;
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time` only.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } == 0;
    told.then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// How long ago the process began; `None` where that is not told.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn age() -> Option<Duration> {
    let stat = fs::read("/proc/self/stat").ok()?;
    let began = Duration::from_secs_f64(start_ticks(&stat)? as f64 / ticks_per_second()? as f64);
    // SAFETY: plain data, which the call fills.
    let now = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        if libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) != 0 {
            return None;
        }
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    Some(now.saturating_sub(began))
}

/// Not known how elsewhere.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn age() -> Option<Duration> {
    None
}

#[cfg(all(target_os = "linux", not(miri)))]
pub(super) fn ticks_per_second() -> Option<u64> {
    // SAFETY: no preconditions.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|ticks| *ticks > 0)
}

/// The 22nd field of `/proc/PID/stat` (proc_pid_stat(5)). The second is the name in parentheses, which may hold anything.
#[cfg(all(target_os = "linux", not(miri)))]
fn start_ticks(stat: &[u8]) -> Option<u64> {
    let end = stat.iter().rposition(|b| *b == b')')?;
    std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn usage() -> (u64, Duration, Duration) {
    if cfg!(miri) {
        return (0, Duration::ZERO, Duration::ZERO);
    }
    // SAFETY: plain data, which the call fills.
    unsafe {
        let mut all: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_SELF, &mut all) != 0 {
            return (0, Duration::ZERO, Duration::ZERO);
        }
        // KiB, but bytes on Apple's systems.
        let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
        let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
        (all.ru_maxrss as u64 * unit, time(all.ru_utime), time(all.ru_stime))
    }
}

/// How many bytes lie between the lowest resident page from `low` on and `high`, both ends of pages; `None` where that cannot
/// be told. For a stack that has not been given back to the system since: how deep it ever was.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn touched(low: usize, high: usize) -> Option<usize> {
    const MOST: usize = 1024;
    let page = super::mem::page_size();
    let mut at = low;
    while at < high {
        let mut resident = [0u8; MOST];
        let len = (high - at).min(MOST * page);
        // SAFETY: the call looks at no memory, only at tables; it has room for a byte a page.
        if unsafe { libc::mincore(at as *mut libc::c_void, len, resident.as_mut_ptr()) } != 0 {
            return None;
        }
        if let Some(first) = resident[..len / page].iter().position(|r| r & 1 != 0) {
            return Some(high - at - first * page);
        }
        at += len;
    }
    Some(0)
}

/// Not known how elsewhere.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn touched(_low: usize, _high: usize) -> Option<usize> {
    None
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;
    use crate::sys::mem::{self, Access};

    #[test]
    fn memory_is_resident_and_time_was_spent() {
        let m = memory();
        assert!(m.resident > 100_000, "{m:?}");
        // The other tests take and give meanwhile.
        let short = resident();
        assert!(short / 8 < m.resident && m.resident / 8 < short, "{short} {m:?}");
        let (user, system) = cpu();
        assert!(user + system > Duration::ZERO);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_is_as_old_as_it_is() {
        assert_eq!(start_ticks(b"17 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20"), Some(4711));
        let first = age().expect("an age");
        assert!(first < Duration::from_secs(24 * 3600), "{first:?}");
        assert!(age().expect("an age") >= first);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_lowest_page_that_was_touched_is_found() {
        let page = mem::page_size();
        let at = mem::map(2000 * page, Access::ReadWrite).expect("memory");
        // SAFETY: our own fresh mapping; a huge page would make all of it resident at once.
        unsafe { mem::no_huge_pages(at, 2000 * page) };
        assert_eq!(touched(at, at + 2000 * page), Some(0));
        for n in [1999usize, 1500, 3] {
            // SAFETY: within our own mapping.
            unsafe { *((at + n * page) as *mut u8) = 1 };
            assert_eq!(touched(at, at + 2000 * page), Some((2000 - n) * page));
        }
        // SAFETY: nobody uses it.
        unsafe { mem::unmap(at, 2000 * page).expect("unmapped") };
    }
}
