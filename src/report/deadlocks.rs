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
use crate::inspect::{Circles, Deadlock, DeadlockKind, InWait, quiet};
use crate::sys::{stderr, threads};

/// What happens when tasks are found to wait for one another; see [`on_deadlock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDeadlock {
    /// Nobody looks. [`inspect::deadlocks`](crate::inspect::deadlocks) answers all the same.
    Off,
    /// Each is reported once; of those that are found at the same time, eight, and how many more there are.
    Report,
    /// As `Report`; and if every task of the process waits and nothing can wake one, the process aborts, as Go's does. A
    /// circle is no reason to abort as long as anything else goes on.
    Abort,
}

/// 0: not asked yet, else as `code` says.
static POLICY: AtomicU8 = AtomicU8::new(0);

const BETWEEN: Duration = Duration::from_secs(1);
/// A search may take this part of the time.
const SHARE: u32 = 50;
/// So many are written after one search; the others are counted.
const WRITTEN: usize = 8;

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
            search.look(Circles::find(), quiet());
        }
        // A process that rests has nothing better to do; its first stack alone may have cost a lot of reading.
        let rest = if search.quiet.is_some() { BETWEEN } else { BETWEEN.max(begun.elapsed() * SHARE) };
        std::thread::sleep(rest);
    }
}

/// Tells one deadlock from the next: the tasks and how many slices each has begun.
type Key = Vec<InWait>;

/// What was told and is still there.
#[derive(Debug, Default)]
struct Search {
    circles: HashSet<Key>,
    /// The standstill that the last look found, and whether it was told.
    quiet: Option<(Key, bool)>,
}

impl Search {
    fn look(&mut self, mut found: Circles, quiet: Option<Deadlock>) {
        let new = self.news((0..found.len()).map(|n| found.tasks(n)));
        let mut more = new.len().saturating_sub(WRITTEN);
        for (i, &n) in new.iter().take(WRITTEN).enumerate() {
            let more = if i + 1 == WRITTEN { std::mem::take(&mut more) } else { 0 };
            if let Some(deadlock) = found.describe(n) {
                tell(&deadlock, more);
            }
        }
        if let Some(deadlock) = self.standstill(quiet) {
            tell(&deadlock, 0);
        }
    }

    /// Which of the circles of a look were not there at the one before.
    fn news(&mut self, found: impl Iterator<Item = Key>) -> Vec<usize> {
        let (mut now, mut new) = (HashSet::new(), Vec::new());
        for (n, mut key) in found.enumerate() {
            key.sort_unstable();
            if !self.circles.contains(&key) {
                new.push(n);
            }
            now.insert(key);
        }
        self.circles = now;
        new
    }

    /// A whole process at rest is only believed if it rests still a second later. Told once.
    fn standstill(&mut self, found: Option<Deadlock>) -> Option<Deadlock> {
        let before = self.quiet.take();
        let deadlock = found?;
        let mut key: Key = deadlock.waits.iter().map(|w| (w.task.id, w.slices)).collect();
        key.sort_unstable();
        let told = before.filter(|(k, _)| *k == key).map(|(_, told)| told);
        self.quiet = Some((key, told.is_some()));
        (told == Some(false)).then_some(deadlock)
    }
}

/// With how many more there are that are not told.
fn tell(deadlock: &Deadlock, more: usize) {
    let mut text = deadlock.to_string();
    if more > 0 {
        let they = if more == 1 { "deadlock" } else { "deadlocks" };
        text += &format!("{more} more {they}; the console's `deadlocks` lists them\n");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_circle_is_new_once_however_many_there_are() {
        let mut search = Search::default();
        let circle = |n: u64| vec![(2 * n + 1, 7), (2 * n, 7)];
        assert_eq!(search.news((0..300).map(circle)).len(), 300);
        assert!(search.news((0..300).map(circle)).is_empty());
        // One was opened, another one has come; then the first is there again, in other waits.
        assert_eq!(search.news((1..301).map(circle)), [299]);
        assert_eq!(search.circles.len(), 300);
        assert_eq!(search.news([vec![(0, 8), (1, 8)]].into_iter()), [0]);
        assert_eq!(search.circles.len(), 1);
    }
}
