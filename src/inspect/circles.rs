//! Who waits for whom, and the circles in that; see `deadlock` for what they mean.
//!
//! Invariants: a search takes time in proportion to the tasks and the waits, however many circles there are; a circle
//! is certain only if each of its waits can be ended by the next task in it alone. That holds for a lock as long as the
//! guard is with its holder: a guard cannot leave its worker, but `spawn_local` may move it into another task. If such a
//! task could have it and can still run, the circle is not certain; nor is one over a lock of which a guard was once given
//! up by a task that had none. A guard that waits in an `Rc` or a thread-local for a task that was there before is not
//! known of until then.
//!
//! Must not know: text, stacks.

#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use super::facts::Facts;
use super::sweep::cells;
use crate::observe::WaitKind;
use crate::sys::turn::Turn;
use crate::task::LOCAL;
use crate::task::state::Life;

/// So often edges over which a guard may have gone are left out and the rest is searched again.
const ROUNDS: usize = 8;
/// So many tasks, each spawned by the next, are followed.
const MOST_GIVERS: usize = 16;

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
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) tasks: Vec<Facts>,
    by_id: HashMap<u64, usize>,
    /// By index; only tasks that are in the graph themselves. Behind the tasks stand the read-write locks that some hold for
    /// reading: who waits for one leads to the lock, and the lock to each reader, so that there are as many edges as waits
    /// and guards, and not one for every pair of them.
    edges: Vec<Vec<usize>>,
    /// Addresses of read-write locks of which more tasks say that they read than there are readers: a guard was left to
    /// another task.
    doubtful: HashSet<usize>,
    /// Only waits that nobody but the known holder can end are followed.
    only_certain: bool,
    /// Waits that are not followed for another reason, see [`Graph::confirmed`].
    cut: HashSet<usize>,
    /// Who leads to whom; made when it is first asked for.
    waiting: OnceCell<Vec<Vec<usize>>>,
}

impl Graph {
    /// With the waits whose last user is known as well, if suspicions are asked for.
    pub(super) fn new(suspicions: bool) -> Graph {
        let wanted = |kind| is_certain(kind) || suspicions && has_last_user(kind);
        let tasks: Vec<Facts> = cells().filter_map(|cell| Facts::of(cell, wanted)).collect();
        let mut turn = Turn::new();
        let by_id: HashMap<u64, usize> =
            tasks.iter().enumerate().inspect(|_| turn.step()).map(|(i, t)| (t.id, i)).collect();
        let mut children: HashMap<u64, Vec<usize>> = HashMap::new();
        for (i, t) in tasks.iter().enumerate().inspect(|_| turn.step()).filter(|(_, t)| t.scope != 0) {
            children.entry(t.scope as u64).or_default().push(i);
        }
        let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
        for (i, t) in tasks.iter().enumerate() {
            turn.step();
            t.reads.iter().filter(|lock| **lock != 0).for_each(|lock| readers.entry(*lock).or_default().push(i));
        }
        let mut doubtful = HashSet::new();
        let mut locks: HashMap<usize, usize> = HashMap::new();
        let mut edges: Vec<Vec<usize>> = tasks
            .iter()
            .inspect(|_| turn.step())
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
        let (cut, waiting) = (HashSet::new(), OnceCell::new());
        Graph { tasks, by_id, edges, doubtful, only_certain: !suspicions, cut, waiting }
    }

    /// Whether only the task that it waits for can end this one's wait.
    pub(super) fn is_certain(&self, i: usize) -> bool {
        let t = &self.tasks[i];
        let reads = matches!(t.kind, WaitKind::ReadLock | WaitKind::WriteLock) && t.owner == 0;
        let doubtful = t.limited || t.handed_on || reads && self.doubtful.contains(&(t.detail as usize));
        is_certain(t.kind) && !doubtful
    }

    /// Where the search goes on from there.
    fn next_of(&self, i: usize) -> &[usize] {
        let ends = i < self.tasks.len() && (self.only_certain && !self.is_certain(i) || self.cut.contains(&i));
        if ends { &[] } else { &self.edges[i] }
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
            if part.len() == 1 && !self.next_of(part[0]).contains(&part[0]) {
                continue;
            }
            // Following edges inside of the part must come back to where one has been.
            let tasks = part.iter().filter(|&&i| i < self.tasks.len());
            let mut path = vec![*tasks.min_by_key(|&&i| self.tasks[i].id).expect("locks lead to tasks")];
            place[path[0]] = 0;
            let mut circle = loop {
                let at = path[path.len() - 1];
                let next =
                    self.next_of(at).iter().copied().find(|&n| part_of[n] == p).expect("the part holds together");
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
        let mut turn = Turn::new();
        for root in 0..n {
            if index[root] != UNSEEN {
                continue;
            }
            // A task, and how many of its edges have been followed.
            let mut calls = vec![(root, 0)];
            while let Some(&(v, followed)) = calls.last() {
                turn.step();
                if followed == 0 {
                    (index[v], low[v]) = (counter, counter);
                    counter += 1;
                    stack.push(v);
                    on_stack[v] = true;
                }
                if let Some(&w) = self.next_of(v).get(followed) {
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

    /// The circles that were found a second time, with whether nobody else can open them.
    pub(super) fn confirmed(&mut self) -> Vec<(Vec<usize>, bool)> {
        let mut circles = self.circles();
        if circles.is_empty() {
            return Vec::new();
        }
        let locals = Locals::look();
        if self.only_certain {
            // What hangs together with a circle that another task may open may still have a circle that none can.
            for _ in 0..ROUNDS {
                let doubts: Vec<usize> =
                    circles.iter().flat_map(|circle| self.may_be_handed_on(circle, &locals)).collect();
                if doubts.is_empty() {
                    break;
                }
                self.cut.extend(doubts);
                circles = self.circles();
            }
        }
        // The second look: each of these waits began before the first look ended and lasts now.
        circles.retain(|circle| circle.iter().all(|&i| self.tasks[i].still()));
        let judge = |circle: Vec<usize>| {
            let certain =
                circle.iter().all(|&i| self.is_certain(i)) && self.may_be_handed_on(&circle, &locals).is_empty();
            (certain || !self.only_certain).then_some((circle, certain))
        };
        circles.into_iter().filter_map(judge).collect()
    }

    /// Tasks of the circle that wait for a lock whose holder may have left the guard to a task that still goes on.
    fn may_be_handed_on(&self, circle: &[usize], locals: &Locals) -> Vec<usize> {
        let is_lock = |kind| matches!(kind, WaitKind::Lock | WaitKind::ReadLock | WaitKind::WriteLock);
        let (mut stuck, mut of_unknown) = (None, HashMap::new());
        let mut goes_on = |heirs: Option<&Vec<u64>>| {
            heirs.into_iter().flatten().any(|heir| {
                let stuck = stuck.get_or_insert_with(|| self.leading_to(circle, |i| self.is_certain(i)));
                self.by_id.get(heir).is_none_or(|i| !stuck.contains(i))
            })
        };
        let mut doubts = Vec::new();
        for (k, &i) in circle.iter().enumerate() {
            let holder = &self.tasks[circle[(k + 1) % circle.len()]];
            if !is_lock(self.tasks[i].kind) {
                continue;
            }
            let worker = holder.cell.owner.load(Ordering::Relaxed);
            let unknown = *of_unknown.entry(worker).or_insert_with(|| goes_on(locals.of_unknown.get(&worker)));
            if unknown || goes_on(locals.by_giver.get(&holder.id)) {
                doubts.push(i);
            }
        }
        doubts
    }

    /// `circle` and everything from which waits that `follows` says yes to lead to it.
    fn leading_to(&self, circle: &[usize], follows: impl Fn(usize) -> bool) -> HashSet<usize> {
        let waiting = self.waiting.get_or_init(|| {
            let mut waiting = vec![Vec::new(); self.edges.len()];
            for (from, edges) in self.edges.iter().enumerate() {
                edges.iter().for_each(|&to| waiting[to].push(from));
            }
            waiting
        });
        let (mut open, mut leads) = (circle.to_vec(), HashSet::from_iter(circle.iter().copied()));
        while let Some(i) = open.pop() {
            for &from in &waiting[i] {
                if (from >= self.tasks.len() || follows(from)) && leads.insert(from) {
                    open.push(from);
                }
            }
        }
        leads
    }

    /// How many tasks outside of `circle` lead to it.
    pub(super) fn behind(&self, circle: &[usize]) -> usize {
        let leads = self.leading_to(circle, |_| true);
        leads.into_iter().filter(|&i| i < self.tasks.len()).count() - circle.len()
    }
}

/// Tasks that may have got a guard from another one: guards stay on their worker, and come to another task there with what
/// `spawn_local` moves into it.
#[derive(Debug)]
struct Locals {
    /// By who may have given them one: the tasks that spawned them so, and those before.
    by_giver: HashMap<u64, Vec<u64>>,
    /// Those whose spawner has ended, by worker: they may have one from anybody there.
    of_unknown: HashMap<u16, Vec<u64>>,
}

impl Locals {
    fn look() -> Locals {
        let mut pinned: HashMap<u64, (u64, u16)> = HashMap::new();
        for cell in cells() {
            let word = cell.state.snapshot();
            if !matches!(word.life(), Life::Free | Life::Done) && cell.pinned.load(Ordering::Relaxed) == LOCAL {
                let (parent, owner) = (cell.parent.load(Ordering::Relaxed), cell.owner.load(Ordering::Relaxed));
                pinned.insert(word.id(), (parent, owner));
            }
        }
        let mut ended: HashSet<u64> =
            pinned.values().map(|(parent, _)| *parent).filter(|id| *id != 0 && !pinned.contains_key(id)).collect();
        if !ended.is_empty() {
            cells().for_each(|cell| _ = ended.remove(&cell.state.snapshot().id()));
        }
        let mut locals = Locals { by_giver: HashMap::new(), of_unknown: HashMap::new() };
        for (&id, &(parent, owner)) in &pinned {
            let (mut giver, mut known) = (parent, false);
            for _ in 0..MOST_GIVERS {
                if giver == 0 || ended.contains(&giver) {
                    known = giver == 0;
                    break;
                }
                locals.by_giver.entry(giver).or_default().push(id);
                let Some((next, _)) = pinned.get(&giver) else {
                    known = true;
                    break;
                };
                giver = *next;
            }
            if !known {
                locals.of_unknown.entry(owner).or_default().push(id);
            }
        }
        locals
    }
}
