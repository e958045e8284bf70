//! What the evaluating thread and the session share about one expression.
//!
//! Invariants: an expression is finished once, by its thread; one that was abandoned before it was finished counts as left
//! behind until it is.
//!
//! Must not know: the engine, sessions.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::engine::Outcome;
use crate::scheduler::Task;

/// Expressions that were abandoned and have not ended.
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// How many expressions may be left behind, in functions that do not return, before no more are begun.
pub(super) const MOST_LEFT_BEHIND: usize = 8;

/// How many are.
pub(super) fn left_behind() -> usize {
    LEFT_BEHIND.load(Ordering::SeqCst)
}

#[derive(Debug)]
pub(super) struct Control {
    abandoned: AtomicBool,
    begun: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Time spent in functions of the program.
    away: Duration,
    /// The function that runs, and since when.
    phase: Option<(String, Instant)>,
    printed: String,
    /// Some of what was printed found no room.
    cut: bool,
    outcome: Option<Outcome>,
    finished: bool,
    left_behind: bool,
    /// What evaluates it, if that is a task.
    task: Option<Task>,
}

impl Control {
    pub(super) fn new() -> Control {
        Control { abandoned: AtomicBool::new(false), begun: Instant::now(), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody wants the outcome any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.inner().finished
    }

    pub(super) fn abandon(&self) {
        let mut inner = self.inner();
        if !inner.finished && !inner.left_behind {
            inner.left_behind = true;
            LEFT_BEHIND.fetch_add(1, Ordering::SeqCst);
        }
        self.abandoned.store(true, Ordering::SeqCst);
        let task = inner.task.take();
        drop(inner);
        if let Some(task) = task {
            task.cancel();
        }
    }

    /// The expression is evaluated by that task, which is cancelled when nobody wants the outcome.
    pub(super) fn runs_in(&self, task: Task) {
        let mut inner = self.inner();
        if self.is_abandoned() {
            drop(inner);
            task.cancel();
        } else if !inner.finished {
            inner.task = Some(task);
        }
    }

    /// By the evaluating thread, as the last thing that it does about this expression.
    pub(super) fn finish(&self, outcome: Outcome) {
        let mut inner = self.inner();
        inner.outcome = Some(outcome);
        inner.phase = None;
        if !inner.finished && inner.left_behind {
            LEFT_BEHIND.fetch_sub(1, Ordering::SeqCst);
        }
        inner.finished = true;
        inner.task = None;
    }

    /// What came of it, with what was printed; `None` while it goes on.
    pub(super) fn take(&self) -> Option<(Outcome, String)> {
        let mut inner = self.inner();
        let outcome = inner.outcome.take()?;
        if inner.cut {
            inner.printed.push_str("… more was printed than is kept\n");
        }
        Some((outcome, std::mem::take(&mut inner.printed)))
    }

    /// Keeps a line, up to `most` bytes in all.
    pub(super) fn print(&self, text: &str, most: usize) {
        let mut inner = self.inner();
        if inner.printed.len().saturating_add(text.len() + 1) > most {
            inner.cut = true;
            return;
        }
        inner.printed.push_str(text);
        inner.printed.push('\n');
    }

    /// Calls `f`, and meanwhile says that the expression is in the function `name`.
    pub(super) fn during<T>(&self, name: &str, f: impl FnOnce() -> T) -> T {
        self.inner().phase = Some((name.to_owned(), Instant::now()));
        let result = f();
        self.inner().phase = None;
        result
    }

    /// The same for what does not count as computing: functions of the program, which may wait.
    pub(super) fn away<T>(&self, name: &str, f: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = self.during(name, f);
        self.inner().away += begun.elapsed();
        result
    }

    /// Waits, and does not count it as computing. An expression that is abandoned meanwhile notices soon enough.
    pub(super) fn rest(&self, time: Duration) {
        std::thread::sleep(time);
        self.inner().away += time;
    }

    /// How long the expression has been computing.
    pub(super) fn computed(&self) -> Duration {
        self.begun.elapsed().saturating_sub(self.inner().away)
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// The function that runs, and for how long it has.
    pub(super) fn phase(&self) -> Option<(String, Duration)> {
        self.inner().phase.as_ref().map(|(name, since)| (name.clone(), since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::value::Value;

    #[test]
    fn what_is_left_behind_is_counted_until_it_ends() {
        let nothing = || Outcome::Value(Value::Nothing, Vec::new());
        let (one, two) = (Control::new(), Control::new());
        let before = left_behind();
        one.abandon();
        one.abandon();
        assert!(one.is_abandoned() && left_behind() > before);
        one.finish(nothing());
        two.finish(nothing());
        two.abandon();
        assert!(two.is_finished() && !two.inner().left_behind);
    }

    #[test]
    fn print_keeps_what_there_is_room_for() {
        let control = Control::new();
        control.print("1234", 10);
        control.print("5678", 10);
        control.print("", 10);
        control.finish(Outcome::Unknown);
        let (_, printed) = control.take().expect("finished");
        assert_eq!(printed, "1234\n5678\n… more was printed than is kept\n");
        assert!(control.take().is_none());
    }
}
