//! Looks for deadlocks once in a while and tells of each once.
//!
//! A thread of its own, because a search allocates, takes as long as there are tasks, and prints stacks with lines: nothing
//! for the watchdog. Searches are as far apart as to take no more than a fiftieth of a CPU.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::{DeadlockReport, Report};
use crate::inspect::{Deadlock, DeadlockKind, deadlocks};
use crate::sys::{stderr, threads};

/// What happens when tasks are found to wait for one another; see [`on_deadlock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDeadlock {
    /// Nobody looks. [`inspect::deadlocks`](crate::inspect::deadlocks) answers all the same.
    Off,
    /// Each is reported once.
    Report,
    /// As `Report`; and if every task of the process waits and nothing can wake one, the process aborts, as Go's does.
    Abort,
}

/// 0: not asked yet, else as `code` says.
static POLICY: AtomicU8 = AtomicU8::new(0);

const BETWEEN: Duration = Duration::from_secs(1);
/// A search may take this part of the time.
const SHARE: u32 = 50;
/// So many reported ones are remembered.
const REMEMBERED: usize = 256;

fn code(policy: OnDeadlock) -> u8 {
    match policy {
        OnDeadlock::Off => 1,
        OnDeadlock::Report => 2,
        OnDeadlock::Abort => 3,
    }
}

fn policy() -> OnDeadlock {
    match POLICY.load(Ordering::Relaxed) {
        1 => OnDeadlock::Off,
        2 => OnDeadlock::Report,
        3 => OnDeadlock::Abort,
        _ => {
            let policy = from_environment();
            // Whoever has set one meanwhile wins.
            let _ = POLICY.compare_exchange(0, code(policy), Ordering::Relaxed, Ordering::Relaxed);
            policy
        }
    }
}

fn from_environment() -> OnDeadlock {
    let Some(value) = std::env::var_os("CORO_ON_DEADLOCK") else { return OnDeadlock::Report };
    match value.to_str() {
        Some("off") => OnDeadlock::Off,
        Some("" | "report") => OnDeadlock::Report,
        Some("abort") => OnDeadlock::Abort,
        _ => {
            let value = value.to_string_lossy();
            let text =
                format!("coro: CORO_ON_DEADLOCK={value:?} is not known; write off, report or abort (report is used)\n");
            stderr::write(&text);
            OnDeadlock::Report
        }
    }
}

/// Says what happens when tasks are found to wait for one another; returns what was said before.
///
/// The default is [`Report`](OnDeadlock::Report), or `CORO_ON_DEADLOCK` (`off`, `report`, `abort`). Applies to the whole process. A
/// deadlock is found one to three seconds after it began, later with a great many tasks.
pub fn on_deadlock(what: OnDeadlock) -> OnDeadlock {
    let before = policy();
    POLICY.store(code(what), Ordering::Relaxed);
    before
}

/// Starts the thread that looks; once, by the first runtime.
pub(crate) fn start() {
    static ONCE: Once = Once::new();
    if cfg!(miri) {
        return;
    }
    // Without a thread nobody looks; the program is worse off otherwise.
    ONCE.call_once(|| drop(std::thread::Builder::new().name("coro-deadlock".into()).spawn(look_for_ever)));
}

fn look_for_ever() {
    let _own = threads::Own::new();
    let mut search = Search::default();
    loop {
        let begun = Instant::now();
        if policy() != OnDeadlock::Off {
            search.look(deadlocks());
        }
        // A process that rests has nothing better to do; its first stack alone may have cost a lot of reading.
        let rest = if search.quiet.is_some() { BETWEEN } else { BETWEEN.max(begun.elapsed() * SHARE) };
        std::thread::sleep(rest);
    }
}

#[derive(Default)]
struct Search {
    told: HashSet<Vec<(u64, u64)>>,
    /// The standstill that the last look found.
    quiet: Option<Vec<(u64, u64)>>,
}

/// Tells one deadlock from the next: the tasks and how many slices each has begun.
fn key(deadlock: &Deadlock) -> Vec<(u64, u64)> {
    let mut key: Vec<_> = deadlock.waits.iter().map(|w| (w.task.id, w.slices)).collect();
    key.sort_unstable();
    key
}

impl Search {
    fn look(&mut self, found: Vec<Deadlock>) {
        let quiet_before = self.quiet.take();
        for deadlock in found {
            let key = key(&deadlock);
            if deadlock.kind == DeadlockKind::Quiet {
                // A whole process at rest is only believed if it rests still a second later.
                self.quiet = Some(key.clone());
                if quiet_before.as_ref() != Some(&key) {
                    continue;
                }
            }
            if self.told.len() >= REMEMBERED {
                self.told.clear();
            }
            if self.told.insert(key) {
                tell(&deadlock);
            }
        }
    }
}

fn tell(deadlock: &Deadlock) {
    let text = deadlock.to_string();
    let report = || {
        Report::Deadlock(DeadlockReport {
            tasks: deadlock.waits.iter().map(|w| w.task.id).collect(),
            certain: deadlock.kind != DeadlockKind::Suspected,
            text: text.clone(),
        })
    };
    if !super::deliver(report) {
        stderr::write(&format!("coro: {text}"));
    }
    if deadlock.kind == DeadlockKind::Quiet && policy() == OnDeadlock::Abort {
        stderr::last_words("coro: nothing can go on; aborting, as CORO_ON_DEADLOCK or on_deadlock asked for\n");
        std::process::abort();
    }
}
