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

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::facts::Facts;
use super::line::{TaskWhere, where_is};
use super::quiet::quiet;
use crate::observe::WaitKind;
use crate::scheduler;

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

/// Tasks that wait for one another, see [`deadlocks`].
///
/// Displays as several lines: one that says what it is, then each task with what it waits for, and its stack.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Deadlock {
    /// What it is.
    pub kind: DeadlockKind,
    /// The tasks, each waiting for the next, and the last for the first; of a quiet process, at most 32 of them.
    pub waits: Vec<DeadlockWait>,
    /// How many tasks are in it; of a quiet process all of them.
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
        match self.kind {
            DeadlockKind::Circle if n == 1 => writeln!(f, "deadlock: a task waits for itself")?,
            DeadlockKind::Circle => writeln!(f, "deadlock: {n} tasks wait for one another")?,
            DeadlockKind::Suspected if n == 1 => writeln!(f, "suspected deadlock: a task seems to wait for itself")?,
            DeadlockKind::Suspected => writeln!(f, "suspected deadlock: {n} tasks seem to wait for one another")?,
            DeadlockKind::Quiet if n == 1 => writeln!(f, "deadlock: the only task waits, and nothing can wake it")?,
            DeadlockKind::Quiet => writeln!(f, "deadlock: all {n} tasks wait, and nothing can wake one of them")?,
        }
        for w in &self.waits {
            let limit = if w.limited { "  (a time limit will end this wait)" } else { "" };
            writeln!(f, "  {}{limit}", w.task)?;
        }
        if self.kind == DeadlockKind::Quiet && self.waits.len() < n {
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
/// wait is not reported, nor is one that goes over a plain thread: what threads wait for is not known here. Takes time in
/// proportion to the number of tasks (tens of milliseconds for a million), stops nothing, and may be called from
/// anywhere.
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
    let mut found = search(is_certain);
    found.extend(quiet());
    found
}

/// As [`deadlocks`], with circles over channels, semaphores and the like by the task that used them last, and with those
/// that a time limit will end. Such a circle may be none: somebody else may send, receive or release as well.
pub fn suspected_deadlocks() -> Vec<Deadlock> {
    // On their own first: of tasks that hang together in several circles, the second search may choose another one.
    let mut found = search(is_certain);
    found.retain(|d| d.kind == DeadlockKind::Circle);
    let suspected = search(|kind| is_certain(kind) || has_last_user(kind));
    found.extend(suspected.into_iter().filter(|d| d.kind == DeadlockKind::Suspected));
    found
}

/// Whether a wait of that kind can be ended by the known holder only.
fn is_certain(kind: WaitKind) -> bool {
    use WaitKind::*;
    matches!(kind, Lock | ReadLock | WriteLock | Once | Join | Scope)
}

fn has_last_user(kind: WaitKind) -> bool {
    use WaitKind::*;
    matches!(kind, Send | Recv | Oneshot | Semaphore | Condvar | Event | WaitGroup | Barrier)
}

/// Tasks that wait, and for whom.
struct Graph {
    tasks: Vec<Facts>,
    /// By index; only tasks that are in the graph themselves. Behind the tasks stand the read-write locks that some hold for
    /// reading: who waits for one leads to the lock, and the lock to each reader, so that there are as many edges as waits
    /// and guards, and not one for every pair of them.
    edges: Vec<Vec<usize>>,
    /// Addresses of read-write locks of which more tasks say that they read than there are readers: a guard was left to
    /// another task.
    doubtful: HashSet<usize>,
}

impl Graph {
    fn new(wanted: impl Fn(WaitKind) -> bool) -> Graph {
        let tasks: Vec<Facts> = scheduler::all_cells().filter_map(|cell| Facts::of(cell, &wanted)).collect();
        let by_id: HashMap<u64, usize> = tasks.iter().enumerate().map(|(i, t)| (t.id, i)).collect();
        let mut children: HashMap<u64, Vec<usize>> = HashMap::new();
        for (i, t) in tasks.iter().enumerate().filter(|(_, t)| t.scope != 0) {
            children.entry(t.scope as u64).or_default().push(i);
        }
        let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
        for (i, t) in tasks.iter().enumerate() {
            t.reads.iter().filter(|lock| **lock != 0).for_each(|lock| readers.entry(*lock).or_default().push(i));
        }
        let mut doubtful = HashSet::new();
        let mut locks: HashMap<usize, usize> = HashMap::new();
        let mut edges: Vec<Vec<usize>> = tasks
            .iter()
            .map(|t| match t.kind {
                WaitKind::ReadLock | WaitKind::WriteLock if t.owner == 0 => {
                    let lock = t.detail as usize;
                    // A writer that may give up lets those behind it join the readers.
                    let may_leave = t.kind == WaitKind::WriteLock && t.limited;
                    if may_leave || readers.get(&lock).map_or(0, Vec::len) > t.readers as usize {
                        doubtful.insert(lock);
                    }
                    let node = tasks.len() + locks.len();
                    vec![*locks.entry(lock).or_insert(node)]
                }
                WaitKind::Join => by_id.get(&t.detail).copied().into_iter().collect(),
                WaitKind::Scope => children.get(&t.detail).cloned().unwrap_or_default(),
                _ => by_id.get(&t.owner).copied().into_iter().collect(),
            })
            .collect();
        edges.resize_with(tasks.len() + locks.len(), Vec::new);
        for (lock, node) in locks {
            edges[node] = readers.remove(&lock).unwrap_or_default();
            edges[node].dedup();
        }
        Graph { tasks, edges, doubtful }
    }

    /// Whether only the task that it waits for can end this one's wait.
    fn is_certain(&self, i: usize) -> bool {
        let t = &self.tasks[i];
        let reads = matches!(t.kind, WaitKind::ReadLock | WaitKind::WriteLock) && t.owner == 0;
        is_certain(t.kind) && !t.limited && !(reads && self.doubtful.contains(&(t.detail as usize)))
    }

    /// One circle of every strongly connected part that has one, as indices, each waiting for the next.
    fn circles(&self) -> Vec<Vec<usize>> {
        let parts = self.parts();
        let mut part_of = vec![usize::MAX; self.edges.len()];
        for (p, part) in parts.iter().enumerate() {
            part.iter().for_each(|&i| part_of[i] = p);
        }
        let mut circles = Vec::new();
        let mut place = vec![usize::MAX; self.edges.len()];
        for (p, part) in parts.iter().enumerate() {
            if part.len() == 1 && !self.edges[part[0]].contains(&part[0]) {
                continue;
            }
            // Following edges inside of the part must come back to where one has been.
            let tasks = part.iter().filter(|&&i| i < self.tasks.len());
            let mut path = vec![*tasks.min_by_key(|&&i| self.tasks[i].id).expect("locks lead to tasks")];
            place[path[0]] = 0;
            let mut circle = loop {
                let at = path[path.len() - 1];
                let next = self.edges[at].iter().copied().find(|&n| part_of[n] == p).expect("the part holds together");
                if place[next] != usize::MAX {
                    break path.split_off(place[next]);
                }
                place[next] = path.len();
                path.push(next);
            };
            circle.retain(|&i| i < self.tasks.len());
            circles.push(circle);
        }
        circles
    }

    /// The strongly connected parts, by Tarjan's algorithm without recursion: chains may be a million tasks long.
    fn parts(&self) -> Vec<Vec<usize>> {
        const UNSEEN: usize = usize::MAX;
        let n = self.edges.len();
        let (mut index, mut low, mut on_stack) = (vec![UNSEEN; n], vec![0; n], vec![false; n]);
        let (mut stack, mut parts, mut counter) = (Vec::new(), Vec::new(), 0);
        for root in 0..n {
            if index[root] != UNSEEN {
                continue;
            }
            // A task, and how many of its edges have been followed.
            let mut calls = vec![(root, 0)];
            while let Some(&(v, followed)) = calls.last() {
                if followed == 0 {
                    (index[v], low[v]) = (counter, counter);
                    counter += 1;
                    stack.push(v);
                    on_stack[v] = true;
                }
                if let Some(&w) = self.edges[v].get(followed) {
                    calls.last_mut().expect("not empty").1 += 1;
                    if index[w] == UNSEEN {
                        calls.push((w, 0));
                    } else if on_stack[w] {
                        low[v] = low[v].min(index[w]);
                    }
                    continue;
                }
                calls.pop();
                if let Some(&(caller, _)) = calls.last() {
                    low[caller] = low[caller].min(low[v]);
                }
                if low[v] == index[v] {
                    let from = stack.iter().rposition(|&w| w == v).expect("it was pushed");
                    let part = stack.split_off(from);
                    part.iter().for_each(|&w| on_stack[w] = false);
                    parts.push(part);
                }
            }
        }
        parts
    }

    /// How many tasks outside of `circle` lead to it.
    fn behind(&self, circle: &[usize]) -> usize {
        let mut leads = vec![false; self.edges.len()];
        circle.iter().for_each(|&i| leads[i] = true);
        let mut waiting: HashMap<usize, Vec<usize>> = HashMap::new();
        for (from, edges) in self.edges.iter().enumerate() {
            edges.iter().for_each(|&to| waiting.entry(to).or_default().push(from));
        }
        let (mut open, mut count) = (circle.to_vec(), 0);
        while let Some(i) = open.pop() {
            for &from in waiting.get(&i).map_or(&[][..], Vec::as_slice) {
                if !std::mem::replace(&mut leads[from], true) {
                    count += usize::from(from < self.tasks.len());
                    open.push(from);
                }
            }
        }
        count
    }
}

fn search(wanted: impl Fn(WaitKind) -> bool) -> Vec<Deadlock> {
    let graph = Graph::new(&wanted);
    let suspicions = wanted(WaitKind::Recv);
    let mut found = Vec::new();
    for circle in graph.circles() {
        let certain = circle.iter().all(|&i| graph.is_certain(i));
        if !certain && !suspicions {
            continue;
        }
        // The second look: each of these waits began before the first look ended and lasts now.
        if !circle.iter().all(|&i| graph.tasks[i].still()) {
            continue;
        }
        let n = circle.len();
        let waits: Vec<DeadlockWait> = (0..n)
            .filter_map(|k| {
                let (t, next) = (&graph.tasks[circle[k]], &graph.tasks[circle[(k + 1) % n]]);
                Some(DeadlockWait { task: where_is(t.id)?, holder: next.id, limited: t.limited, slices: t.slices })
            })
            .collect();
        let kind = if certain { DeadlockKind::Circle } else { DeadlockKind::Suspected };
        if waits.len() == n {
            found.push(Deadlock { kind, waits, tasks: n, behind: graph.behind(&circle) });
        }
    }
    found
}
