//! Why a worker is still in its slice, as far as the kernel tells. Allocates nothing.

#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::sys::{clock, proc};

/// What a stalled worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Verdict {
    /// It has the CPU, or had it for most of the time.
    Spinning,
    /// It could run, and mostly did not.
    NotScheduled,
    /// As before, and the limit of its control group took the CPU away meanwhile.
    Throttled,
    /// In that system call; -1: in none that is known (it waits for a page, for example).
    Blocked(i64),
    /// By a signal or a debugger.
    Stopped,
    /// The system does not tell.
    #[default]
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Spinning => f.write_str("spinning"),
            Verdict::NotScheduled => f.write_str("not scheduled"),
            Verdict::Throttled => f.write_str("not scheduled (throttled)"),
            Verdict::Blocked(-1) => f.write_str("blocked in the kernel"),
            Verdict::Blocked(nr) => match proc::syscall_name(*nr) {
                Some(name) => write!(f, "blocked in {name}"),
                None => write!(f, "blocked in system call {nr}"),
            },
            Verdict::Stopped => f.write_str("stopped"),
            Verdict::Unknown => f.write_str("running or blocked"),
        }
    }
}

impl Verdict {
    pub(super) fn to_word(self) -> u64 {
        match self {
            Verdict::Unknown => 0,
            Verdict::Spinning => 1,
            Verdict::NotScheduled => 2,
            Verdict::Throttled => 3,
            Verdict::Stopped => 4,
            Verdict::Blocked(nr) => (6 + nr) as u64,
        }
    }

    pub(super) fn from_word(word: u64) -> Verdict {
        match word {
            0 => Verdict::Unknown,
            1 => Verdict::Spinning,
            2 => Verdict::NotScheduled,
            3 => Verdict::Throttled,
            4 => Verdict::Stopped,
            more => Verdict::Blocked(more as i64 - 6),
        }
    }
}

/// A thread's CPU time at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// In ticks.
    at: u64,
    cpu: Duration,
    delay: Option<Duration>,
    throttled: u64,
}

impl Sample {
    pub(super) fn of(thread: i32, group: &Group) -> Option<Sample> {
        let cpu = clock::thread_cpu(thread)?;
        let delay = proc::cpu_times(thread).map(|t| t.run_delay);
        Some(Sample { at: clock::ticks(), cpu, delay, throttled: group.throttled() })
    }

    /// What of a slice of that length, in ticks, the same thread has to answer for. Not for time in which it waited for a CPU,
    /// if that is a good part of it and more than twice the CPU time; but in any case for the CPU time.
    pub(super) fn blame(&self, thread: i32, length: u64) -> u64 {
        let ran = clock::thread_cpu(thread).map_or(Duration::ZERO, |cpu| cpu.saturating_sub(self.cpu));
        let delay = match (self.delay, proc::cpu_times(thread)) {
            (Some(before), Some(now)) => clock::in_ticks(now.run_delay.saturating_sub(before)),
            _ => 0,
        };
        let ran = clock::in_ticks(ran);
        let is_starved = delay / 2 > ran && delay > length / 4;
        length.saturating_sub(if is_starved { delay } else { 0 }).max(ran)
    }
}

/// See the module's head.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct View {
    /// CPU time, and over how long.
    pub(super) cpu: Option<(Duration, Duration)>,
    pub(super) delay: Option<Duration>,
    pub(super) state: Option<char>,
    pub(super) verdict: Verdict,
}

/// Looks at a thread, which was looked at in the same slice `before`.
pub(super) fn view(thread: i32, before: Option<&Sample>, group: &Group) -> View {
    let now = Sample::of(thread, group);
    let state = proc::stat(thread).map(|s| s.state);
    let mut view = View { state, ..View::default() };
    let mut throttled = false;
    if let (Some(before), Some(now)) = (before, now) {
        let watched = clock::duration(now.at.saturating_sub(before.at));
        view.cpu = Some((now.cpu.saturating_sub(before.cpu), watched));
        view.delay = now.delay.zip(before.delay).map(|(now, before)| now.saturating_sub(before));
        throttled = now.throttled > before.throttled;
    }
    view.verdict = match state {
        Some('R') => match view.cpu {
            Some((cpu, watched)) if cpu < watched / 2 && throttled => Verdict::Throttled,
            // It was blocked, and has just been woken.
            Some((cpu, watched)) if cpu < watched / 2 && view.delay.is_some_and(|d| d < watched / 4) => {
                Verdict::Unknown
            }
            Some((cpu, watched)) if cpu < watched / 2 => Verdict::NotScheduled,
            _ => Verdict::Spinning,
        },
        Some('S' | 'D' | 'I') => Verdict::Blocked(proc::syscall(thread).map_or(-1, |c| c.nr)),
        Some('T' | 't') => Verdict::Stopped,
        _ => Verdict::Unknown,
    };
    view
}

/// The control group of the process, which may limit its CPU time.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Its `cpu.stat`.
    stat: Option<std::path::PathBuf>,
}

impl Group {
    /// Finds it; allocates.
    pub(super) fn find() -> Group {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let stat = path.map(|p| std::path::Path::new("/sys/fs/cgroup").join(p).join("cpu.stat"));
        // A short path: longer ones would be copied into allocated memory at every look.
        let stat = stat.filter(|s| s.as_os_str().len() < 256);
        let mut group = Group { stat };
        if group.throttled_if_told().is_none() {
            group.stat = None;
        }
        group
    }

    fn throttled_if_told(&self) -> Option<u64> {
        use std::io::Read as _;
        let mut room = [0; 1024];
        let mut file = std::fs::File::open(self.stat.as_ref()?).ok()?;
        let n = file.read(&mut room).ok()?;
        let text = room[..n].split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"nr_throttled "))?;
        str::from_utf8(text).ok()?.trim().parse().ok()
    }

    /// How often it was throttled so far; 0 where there is nothing to be known.
    fn throttled(&self) -> u64 {
        self.throttled_if_told().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_survive_the_way_through_words_and_say_what_is_the_matter() {
        let all = [
            (Verdict::Spinning, "spinning"),
            (Verdict::NotScheduled, "not scheduled"),
            (Verdict::Throttled, "not scheduled (throttled)"),
            (Verdict::Stopped, "stopped"),
            (Verdict::Unknown, "running or blocked"),
            (Verdict::Blocked(-1), "blocked in the kernel"),
            (Verdict::Blocked(9999), "blocked in system call 9999"),
        ];
        for (verdict, text) in all {
            assert_eq!(Verdict::from_word(verdict.to_word()), verdict);
            assert_eq!(verdict.to_string(), text);
        }
        #[cfg(all(target_os = "linux", not(miri)))]
        assert_eq!(Verdict::Blocked(libc::SYS_futex).to_string(), "blocked in futex");
        assert_eq!(Verdict::from_word(Verdict::Blocked(0).to_word()), Verdict::Blocked(0));
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn a_thread_that_spins_and_one_that_is_blocked_are_told_apart() {
        use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
        static END: AtomicBool = AtomicBool::new(false);
        static SPINS: AtomicI32 = AtomicI32::new(0);
        static READS: AtomicI32 = AtomicI32::new(0);
        let (mut from, to) = std::io::pipe().unwrap();
        let reader = std::thread::spawn(move || {
            READS.store(crate::sys::thread_id(), Ordering::SeqCst);
            let _ = std::io::Read::read(&mut from, &mut [0]);
        });
        let spinner = std::thread::spawn(|| {
            SPINS.store(crate::sys::thread_id(), Ordering::SeqCst);
            while !END.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
        });
        let group = Group::find();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let mut seen = (Verdict::Unknown, Verdict::Unknown);
        while !matches!(seen, (Verdict::Spinning, Verdict::Blocked(_))) {
            assert!(std::time::Instant::now() < deadline, "{seen:?}");
            let (spins, reads) = (SPINS.load(Ordering::SeqCst), READS.load(Ordering::SeqCst));
            let before = (Sample::of(spins, &group), Sample::of(reads, &group));
            std::thread::sleep(Duration::from_millis(20));
            let of = |thread, before: Option<Sample>| view(thread, before.as_ref(), &group);
            if spins != 0 && reads != 0 {
                let (s, r) = (of(spins, before.0), of(reads, before.1));
                assert!(r.cpu.is_some_and(|(cpu, _)| cpu < Duration::from_millis(10)), "{r:?}");
                seen = (s.verdict, r.verdict);
            }
        }
        assert_eq!(seen.1.to_string(), "blocked in read");
        END.store(true, Ordering::SeqCst);
        drop(to);
        spinner.join().unwrap();
        reader.join().unwrap();
    }
}
