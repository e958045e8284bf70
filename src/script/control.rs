//! What the evaluating thread and the session share about one expression.
//!
//! Invariants: an expression is finished once, by its thread; one that was abandoned before it was finished counts as left
//! behind until it is.
//!
//! Must not know: the engine, sessions.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::engine::Outcome;
use super::evaluation::written;
use super::limits::Limits;
use crate::commands::Expression;
use crate::scheduler::Task;
use crate::sys::usage;

/// Expressions that were abandoned and have not ended.
static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// How many expressions may be left behind, in functions that do not return, before no more are begun.
pub(super) const MOST_LEFT_BEHIND: usize = 8;

/// Steps between two looks at the clock.
const LOOK_AT_CLOCK: u64 = 16;

/// Time between two looks at the process's memory. Faster than a few gigabytes a second nobody takes it.
const LOOK_AT_MEMORY: Duration = Duration::from_millis(1);

/// What ended an expression before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Steps = 1,
    Time,
    Memory,
}

/// How many are.
pub(super) fn left_behind() -> usize {
    LEFT_BEHIND.load(Ordering::SeqCst)
}

#[derive(Debug)]
pub(super) struct Control {
    abandoned: AtomicBool,
    begun: Instant,
    /// Steps so far, those of closures within functions included, which the engine does not count. Written by the
    /// evaluating thread only.
    steps: AtomicU64,
    /// An [`End`], or 0. It stays: some functions go on after a closure has failed.
    end: AtomicU8,
    memory: Mutex<Option<Memory>>,
    inner: Mutex<Inner>,
}

/// How the answer is wanted.
#[derive(Debug, Clone, Default)]
pub(super) struct Form {
    pub(super) json: bool,
    pub(super) lines: bool,
    /// What to say if it meant no expression.
    pub(super) unknown: String,
}

/// The process's memory as the expression found it.
#[derive(Debug)]
struct Memory {
    before: u64,
    next_look: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    /// Time spent in functions of the program, and asleep.
    away: Duration,
    slept: Duration,
    /// The function that runs, and since when.
    phase: Option<(String, Instant)>,
    printed: String,
    /// Some of what was printed found no room.
    cut: bool,
    form: Form,
    answer: Option<String>,
    finished: bool,
    left_behind: bool,
    /// What evaluates it, if that is a task.
    task: Option<Task>,
}

impl Control {
    pub(super) fn new() -> Control {
        Control {
            abandoned: AtomicBool::new(false),
            begun: Instant::now(),
            steps: AtomicU64::new(0),
            end: AtomicU8::new(0),
            memory: Mutex::default(),
            inner: Mutex::default(),
        }
    }

    /// For the answer to that expression.
    pub(super) fn answering(expression: &Expression<'_>) -> Control {
        let control = Control::new();
        let Expression { json, lines, .. } = *expression;
        control.inner().form = Form { json, lines, unknown: expression.unknown.clone() };
        control
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
        let form = self.inner().form.clone();
        let printed = self.take_printed();
        // Here and not on the console thread, because a long answer takes its time.
        let answer = written(&form, outcome, &printed);
        let mut inner = self.inner();
        inner.answer = Some(answer);
        inner.phase = None;
        if !inner.finished && inner.left_behind {
            LEFT_BEHIND.fetch_sub(1, Ordering::SeqCst);
        }
        inner.finished = true;
        inner.task = None;
    }

    /// The answer to it; `None` while it goes on.
    pub(super) fn take(&self) -> Option<String> {
        self.inner().answer.take()
    }

    /// What was printed.
    pub(super) fn take_printed(&self) -> String {
        let mut inner = self.inner();
        if std::mem::take(&mut inner.cut) {
            inner.printed.push_str("… more was printed than is kept\n");
        }
        std::mem::take(&mut inner.printed)
    }

    /// Whether it is time to look at the clock.
    pub(super) fn is_time_to_look(&self) -> bool {
        self.steps.load(Ordering::Relaxed).is_multiple_of(LOOK_AT_CLOCK)
    }

    /// Counts a step; whether the expression has to end.
    pub(super) fn step(&self, limits: &Limits) -> bool {
        let steps = self.steps.load(Ordering::Relaxed) + 1;
        self.steps.store(steps, Ordering::Relaxed);
        if steps > limits.operations {
            self.end_by(End::Steps);
        } else if steps.is_multiple_of(LOOK_AT_CLOCK) {
            if self.computed() > limits.time {
                self.end_by(End::Time);
            } else if self.takes_too_much(limits.memory) {
                self.end_by(End::Memory);
            }
        }
        self.is_abandoned() || self.end().is_some()
    }

    fn end_by(&self, end: End) {
        let _ = self.end.compare_exchange(0, end as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What ended the expression, if it had to be ended.
    pub(super) fn end(&self) -> Option<End> {
        [End::Steps, End::Time, End::Memory].into_iter().find(|end| *end as u8 == self.end.load(Ordering::Relaxed))
    }

    fn memory(&self) -> MutexGuard<'_, Option<Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks from time to time. Without a first look nothing is known to compare with.
    fn takes_too_much(&self, most: u64) -> bool {
        let now = Instant::now();
        let mut memory = self.memory();
        let memory = memory.get_or_insert_with(|| Memory::new(now));
        if now < memory.next_look {
            return false;
        }
        memory.next_look = now + LOOK_AT_MEMORY;
        usage::resident().saturating_sub(memory.before) > most
    }

    /// Begins to watch the process's memory.
    pub(super) fn watch_memory(&self) {
        *self.memory() = Some(Memory::new(Instant::now()));
    }

    /// What the process has now, if that is watched.
    fn resident(&self) -> u64 {
        self.memory().as_ref().map_or(0, |_| usage::resident())
    }

    /// Takes `time` of what the expression may sleep in all; whether there was that much left.
    pub(super) fn may_sleep(&self, time: Duration, most: Duration) -> bool {
        let mut inner = self.inner();
        let all = inner.slept.saturating_add(time);
        if all <= most {
            inner.slept = all;
        }
        all <= most
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
        let (begun, resident) = (Instant::now(), self.resident());
        let result = self.during(name, f);
        self.inner().away += begun.elapsed();
        if let Some(memory) = self.memory().as_mut() {
            memory.before += usage::resident().saturating_sub(resident);
        }
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

impl Memory {
    fn new(now: Instant) -> Memory {
        Memory { before: usage::resident(), next_look: now + LOOK_AT_MEMORY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind_is_counted_until_it_ends() {
        let (one, two) = (Control::new(), Control::new());
        let before = left_behind();
        one.abandon();
        one.abandon();
        assert!(one.is_abandoned() && left_behind() > before);
        one.finish(Outcome::Unknown);
        two.finish(Outcome::Unknown);
        two.abandon();
        assert!(two.is_finished() && !two.inner().left_behind);
    }

    #[test]
    fn print_keeps_what_there_is_room_for() {
        let control = Control::new();
        control.print("1234", 10);
        control.print("5678", 10);
        control.print("", 10);
        assert_eq!(control.take_printed(), "1234\n5678\n… more was printed than is kept\n");
        control.print("last", 10);
        control.finish(Outcome::Failed("whole".into()));
        assert_eq!((control.take().as_deref(), control.take()), (Some("last\nwhole\n"), None));
    }
}
