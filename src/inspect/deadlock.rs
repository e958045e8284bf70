//! Deadlocks: tasks that wait for one another in a circle, and processes in which everybody waits.
//!
//! Who waits for what is read from the tasks' wait reasons, one task at a time, without stopping anything. A circle found in
//! such a picture may never have existed at any one moment, so it counts only if every task in it is found a second time
//! in the same wait for the same holder: then all of these waits existed together in between.
//!
//! What is certain: a lock is given up by its holder alone, one that is held for reading by each of its readers, a join ends
//! with that task alone, a scope with all of its children. Channels and semaphores know who used them last, not who will use them next; circles over them are
//! *suspected* and shown only when asked for.
//!
//! Must not know: who asks.

#![forbid(unsafe_code)]

use std::fmt;

use super::capture::Captured;
use super::circles::Graph;
use super::frames::frames;
use super::line::{TaskWhere, view_of};
use super::quiet::quiet;

/// At most so many circles are described at a time, and so many tasks of each.
pub(super) const LISTED: usize = 32;

/// Why nothing goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadlockKind {
    /// A circle that nobody outside of it can open.
    Circle,
    /// A circle that somebody outside of it may open: it goes over a channel or semaphore, or a time limit will end a
    /// wait in it.
    Suspected,
    /// Every task of the process waits for another task, and neither a timer nor a descriptor nor a job can wake one.
    Quiet,
}

impl DeadlockKind {
    /// What it is, of so many tasks.
    pub(crate) fn sentence(self, n: usize) -> String {
        match self {
            DeadlockKind::Circle if n == 1 => "deadlock: a task waits for itself".into(),
            DeadlockKind::Circle => format!("deadlock: {n} tasks wait for one another"),
            DeadlockKind::Suspected if n == 1 => "suspected deadlock: a task seems to wait for itself".into(),
            DeadlockKind::Suspected => format!("suspected deadlock: {n} tasks seem to wait for one another"),
            DeadlockKind::Quiet if n == 1 => "deadlock: the only task waits, and nothing can wake it".into(),
            DeadlockKind::Quiet => format!("deadlock: all {n} tasks wait, and nothing can wake one of them"),
        }
    }
}

/// Tasks that wait for one another, see [`deadlocks`].
///
/// Displays as several lines: one that says what it is, then each task with what it waits for, and its stack.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Deadlock {
    /// What it is.
    pub kind: DeadlockKind,
    /// The tasks, each waiting for the next, and the last for the first; at most 32 of them.
    pub waits: Vec<DeadlockWait>,
    /// How many tasks are in it, those that are not among `waits` included; of a quiet process all of them.
    pub tasks: usize,
    /// How many other tasks wait, directly or not, for one of these.
    pub behind: usize,
}

/// One task of a [`Deadlock`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeadlockWait {
    /// The task with its stack, and what it waits for in words.
    pub task: TaskWhere,
    /// The task that it waits for; 0 if that is not known.
    pub holder: u64,
    /// A time limit will end the wait.
    pub limited: bool,
    /// Slices that the task had begun: tells this wait from later ones.
    pub slices: u64,
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.tasks;
        writeln!(f, "{}", self.kind.sentence(n))?;
        for w in &self.waits {
            let limit = if w.limited { "  (a time limit will end this wait)" } else { "" };
            writeln!(f, "  {}{limit}", w.task)?;
        }
        if self.waits.len() < n {
            writeln!(f, "  and {} more", n - self.waits.len())?;
        }
        match self.behind {
            0 => Ok(()),
            1 => writeln!(f, "  1 more task waits for them"),
            n => writeln!(f, "  {n} more tasks wait for them"),
        }
    }
}

/// Every circle of tasks that wait for one another, which nobody outside can open; and all tasks of the process, if each waits
/// for another one and nothing can wake any: no timer, descriptor, job, signal or thread.
///
/// Mutexes, read-write locks, `Once`, joins and scopes are looked at. A circle in which a [`timeout`](crate::timeout) will end a
/// wait is not reported, nor is one that goes over a plain thread: what threads wait for is not known here. Of more than 32
/// circles the 32 with the lowest task ids are described. Takes time in
/// proportion to the number of tasks (tens of milliseconds for a million), stops nothing, and may be called from
/// anywhere.
///
/// A lock counts as held by the task that took it. Its guard may have moved into a task that the holder spawned with
/// [`spawn_local`](crate::spawn_local): where such a task could still run, the circle is only suspected. A guard that was
/// left elsewhere on the same worker for a task that exists already, in an `Rc` or a thread-local, is not known of before it is
/// given up there for the first time, so that a circle over it may be reported that is none.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// coro::run(|| {
///     let lock = std::sync::Arc::new(coro::sync::Mutex::new(()));
///     let twice = coro::spawn(move || {
///         let _first = lock.lock();
///         let _second = lock.lock(); // waits for itself
///     });
///     while coro::inspect::deadlocks().is_empty() {
///         coro::sleep(Duration::from_millis(1));
///     }
///     let found = coro::inspect::deadlocks();
///     assert_eq!(found[0].waits[0].holder, twice.id());
///     twice.task().cancel_now();
/// });
/// ```
pub fn deadlocks() -> Vec<Deadlock> {
    let mut found = Circles::find().described();
    found.extend(quiet());
    found
}

/// As [`deadlocks`], with circles over channels, semaphores and the like by the task that used them last, and with those
/// that a time limit will end, or for which somebody may have been left the guard. Such a circle may be none: somebody else
/// may send, receive or release as well.
pub fn suspected_deadlocks() -> Vec<Deadlock> {
    // On their own first: of tasks that hang together in several circles, the second search may choose another one.
    let mut found = Circles::find().described();
    found.extend(Circles::suspect().described());
    found
}

/// What identifies a task in one wait: its id, and the slices that it had begun.
pub(crate) type InWait = (u64, u64);

/// The circles of one search. Describing one costs stacks and names, knowing of it does not.
#[derive(Debug)]
pub(crate) struct Circles {
    graph: Graph,
    found: Vec<(DeadlockKind, Vec<usize>)>,
    captured: Option<Captured>,
}

impl Circles {
    /// Those that nobody else can open.
    pub(crate) fn find() -> Circles {
        Circles::search(false)
    }

    /// Those that somebody else may open.
    pub(crate) fn suspect() -> Circles {
        Circles::search(true)
    }

    fn search(suspicions: bool) -> Circles {
        let mut graph = Graph::new(suspicions);
        let kind = |certain| if certain { DeadlockKind::Circle } else { DeadlockKind::Suspected };
        let all = graph.confirmed().into_iter().filter(|(_, certain)| *certain != suspicions);
        let mut found: Vec<_> = all.map(|(circle, certain)| (kind(certain), circle)).collect();
        found.sort_by_key(|(_, circle)| circle.iter().map(|&i| graph.tasks[i].id).min());
        Circles { graph, found, captured: None }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.found.len()
    }

    /// The tasks of one, each waiting for the next.
    pub(crate) fn tasks(&self, n: usize) -> Vec<InWait> {
        self.found[n].1.iter().map(|&i| (self.graph.tasks[i].id, self.graph.tasks[i].slices)).collect()
    }

    /// One of them in full; `None` if it is no more.
    pub(crate) fn describe(&mut self, n: usize) -> Option<Deadlock> {
        let Circles { graph, found, captured } = self;
        let (kind, circle) = &found[n];
        let c = captured.get_or_insert_with(|| {
            frames().refresh();
            Captured::of_any()
        });
        let mut waits = Vec::new();
        for (k, &i) in circle.iter().enumerate().take(LISTED) {
            let (t, next) = (&graph.tasks[i], &graph.tasks[circle[(k + 1) % circle.len()]]);
            let task = view_of(c, t.cell, t.id)?;
            waits.push(DeadlockWait { task, holder: next.id, limited: t.limited, slices: t.slices });
        }
        Some(Deadlock { kind: *kind, waits, tasks: circle.len(), behind: graph.behind(circle) })
    }

    /// The first of them in full.
    pub(crate) fn described(mut self) -> Vec<Deadlock> {
        (0..self.len().min(LISTED)).filter_map(|n| self.describe(n)).collect()
    }
}
