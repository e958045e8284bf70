//! What is waited for, and what could grow: one entry per lock, channel and the like that has waiters, and one per live
//! channel; and who waits for whom.
//!
//! Waiters are grouped by the object's address. A plain thread that waits is not counted: it is not known here. Objects
//! live and go while the tasks are looked at, one after the other; what was copied last of an object is what it shows.
//!
//! An edge is *certain* where the party at its end alone can end the wait, or must have its part in that: the holder of a
//! lock, every reader of one, whoever runs an initialiser, a task that is joined, the children of a scope. Of channels,
//! semaphores and the like the last user stands there, and somebody else may be the next.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::time::Duration;

use super::capture::{Captured, Doing};
use super::snapshot::{Edge, Object, Party};
use super::waiting::{Channel, Seen, State};
use super::waits::{ago, last, messages, party, place, receivers, senders};
use crate::observe::WaitKind;
use crate::sync::live;

/// So many channels without waiters are listed; if there are more, those with the most messages.
const MOST_IDLE: usize = 10_000;

/// So many edges lead from those who wait for one read-write lock to those who read; with more, each of the former leads to
/// some of the latter.
const MOST_READ_EDGES: usize = 10_000;

/// Fills as the tasks come by.
#[derive(Debug, Default)]
pub(super) struct Objects {
    all: Vec<Object>,
    at: HashMap<usize, usize>,
    edges: Vec<Edge>,
    /// Tasks that wait for a lock that some hold for reading, with its address.
    wait_for_readers: Vec<(u64, usize)>,
    /// By the addresses of the locks.
    readers: HashMap<usize, Vec<u64>>,
    /// Tasks that wait for the children of a scope, with what stands for it.
    wait_for_children: Vec<(u64, usize)>,
    children: HashMap<usize, Vec<u64>>,
}

impl Objects {
    /// One more task; `age` is for how long it has been in its state. Where in the list what it waits for is.
    pub(super) fn add(&mut self, c: &Captured, age: Duration) -> Option<usize> {
        let mut held: Vec<usize> = c.waiting.reads.iter().copied().filter(|l| *l != 0).collect();
        held.dedup();
        held.into_iter().for_each(|l| self.readers.entry(l).or_default().push(c.id));
        if c.waiting.scope != 0 {
            self.children.entry(c.waiting.scope).or_default().push(c.id);
        }
        if c.doing != Doing::Parked {
            return None;
        }
        let place = c.waiting.object.map(|seen| self.waited_for(c.wait.kind, &seen, age));
        self.edge(c, place);
        self.choices(c, age);
        place
    }

    /// Of a wait for several things any may end it: no edge is certain.
    fn choices(&mut self, c: &Captured, age: Duration) {
        for (reason, seen) in c.waiting.choices.iter().flatten() {
            let object = seen.map(|seen| self.waited_for(reason.kind, &seen, age));
            let to = match (reason.kind, seen) {
                (WaitKind::Join, _) => reason.detail,
                (WaitKind::Send, Some(Seen { state: State::Channel(ch), .. })) => ch.received.0,
                (_, Some(seen)) => seen.owner,
                _ => 0,
            };
            self.edges.extend(party(to).map(|to| Edge { from: c.id, to, object, certain: false }));
        }
    }

    fn waited_for(&mut self, kind: WaitKind, seen: &Seen, age: Duration) -> usize {
        let fresh = object(class_of(kind), seen);
        let place = match self.at.get(&seen.address) {
            Some(&place) => {
                let old = &self.all[place];
                self.all[place] = Object { waiters: old.waiters, oldest_wait: old.oldest_wait, ..fresh };
                place
            }
            None => {
                self.all.push(fresh);
                self.at.insert(seen.address, self.all.len() - 1);
                self.all.len() - 1
            }
        };
        let o = &mut self.all[place];
        o.waiters += 1;
        o.oldest_wait = o.oldest_wait.max(Some(age));
        place
    }

    fn edge(&mut self, c: &Captured, object: Option<usize>) {
        let from = c.id;
        let mut edge = |to: u64, certain: bool| {
            if let Some(to) = party(to) {
                self.edges.push(Edge { from, to, object, certain });
            }
        };
        match (c.wait.kind, &c.waiting.object) {
            (WaitKind::Join, _) => edge(c.wait.detail, true),
            (WaitKind::Scope, _) => self.wait_for_children.push((from, c.wait.detail as usize)),
            (WaitKind::ReadLock | WaitKind::WriteLock, Some(seen)) if seen.owner == 0 => {
                self.wait_for_readers.push((from, seen.address));
            }
            (kind, Some(seen)) if is_held(kind) => edge(seen.owner, true),
            (WaitKind::Send, Some(Seen { state: State::Channel(ch), .. })) => edge(ch.received.0, false),
            (_, Some(seen)) => edge(seen.owner, false),
            _ => {}
        }
    }

    /// When all tasks have come by: what they waited for, the channels that nobody waits for, and the edges.
    pub(super) fn finish(mut self) -> (Vec<Object>, Vec<Edge>) {
        let waiting = std::mem::take(&mut self.wait_for_readers);
        let mut waiters: HashMap<usize, usize> = HashMap::new();
        waiting.iter().for_each(|(_, lock)| *waiters.entry(*lock).or_default() += 1);
        for (from, lock) in waiting {
            let object = self.at.get(&lock).copied();
            let most = (MOST_READ_EDGES / waiters[&lock]).max(1);
            let readers = self.readers.get(&lock).into_iter().flatten().take(most);
            self.edges.extend(readers.map(|&id| Edge { from, to: Party::Task(id), object, certain: true }));
        }
        for (from, scope) in std::mem::take(&mut self.wait_for_children) {
            let children = self.children.get(&scope).into_iter().flatten();
            self.edges.extend(children.map(|&id| Edge { from, to: Party::Task(id), object: None, certain: true }));
        }
        self.idle_channels();
        (self.all, self.edges)
    }

    fn idle_channels(&mut self) {
        let mut idle: Vec<Seen> = Vec::new();
        let length = |s: &Seen| match s.state {
            State::Channel(ch) => ch.length,
            _ => 0,
        };
        let longest = |idle: &mut Vec<Seen>| {
            idle.sort_by_key(|s| std::cmp::Reverse(length(s)));
            idle.dedup_by_key(|s| s.address);
            idle.truncate(MOST_IDLE);
        };
        live::for_each(Seen::channel, |seen| {
            if !self.at.contains_key(&seen.address) {
                idle.push(seen);
            }
            if idle.len() == 2 * MOST_IDLE {
                longest(&mut idle);
            }
        });
        longest(&mut idle);
        self.all.extend(idle.iter().map(|seen| object("channel", seen)));
    }
}

/// What waits in channels to be received.
#[derive(Debug)]
pub(crate) struct Queued {
    /// In all channels.
    pub(crate) messages: usize,
    /// Channels that hold any.
    pub(crate) channels: usize,
    /// In the one that holds most, and that one: `"log lines" src/log.rs:31`.
    pub(crate) most: usize,
    pub(crate) fullest: String,
}

/// Looks at the lengths of all channels. `None` if all are empty.
pub(crate) fn queued() -> Option<Queued> {
    let (mut messages, mut channels, mut fullest) = (0, 0, None::<(usize, Seen)>);
    live::for_each(Seen::channel, |seen| {
        let State::Channel(Channel { length, .. }) = seen.state else { return };
        messages += length;
        channels += usize::from(length > 0);
        if length > fullest.as_ref().map_or(0, |(most, _)| *most) {
            fullest = Some((length, seen));
        }
    });
    let (most, seen) = fullest?;
    let mut name = String::new();
    // A `String` takes everything.
    let _ = place(&seen, &mut name);
    Some(Queued { messages, channels, most, fullest: name.trim_start().to_owned() })
}

/// Whether a wait of that kind is for a holder.
fn is_held(kind: WaitKind) -> bool {
    matches!(kind, WaitKind::Lock | WaitKind::ReadLock | WaitKind::WriteLock | WaitKind::Once)
}

/// What a task of that wait waits for, in a word.
fn class_of(kind: WaitKind) -> &'static str {
    match kind {
        WaitKind::Send | WaitKind::Recv => "channel",
        WaitKind::Oneshot => "oneshot",
        WaitKind::ReadLock | WaitKind::WriteLock => "rwlock",
        other => other.word(),
    }
}

fn object(kind: &'static str, seen: &Seen) -> Object {
    let held = matches!(kind, "lock" | "rwlock" | "once");
    Object {
        kind,
        address: seen.address,
        name: seen.name.map(str::to_owned),
        site: seen.site.into(),
        owner: party(seen.owner).filter(|_| held),
        held_for: ago(seen.since).filter(|_| held && seen.owner != 0),
        waiters: 0,
        oldest_wait: None,
        details: details(kind, seen),
    }
}

/// `3 of 16 messages, 2 senders, 1 receiver; last send by #4, 3.2s ago; last recv by #5, 3.2s ago`
fn details(kind: &str, seen: &Seen) -> String {
    let used = |what| last(what, (seen.owner, seen.since));
    let parts = match (kind, seen.state) {
        (_, State::Channel(ch)) => {
            let now = [messages(&ch), senders(&ch), receivers(&ch)].join(", ");
            vec![now, used("send"), last("recv", ch.received)]
        }
        (_, State::Readers(n)) if n > 0 => vec![format!("read-held by {n}")],
        ("semaphore", State::Count(n, _)) => vec![format!("{n} free"), used("taken")],
        ("barrier", State::Count(come, wanted)) => vec![format!("{come} of {wanted} have come"), used("come")],
        ("wait group", State::Count(n, _)) => vec![format!("{n} left"), used("done")],
        ("event", _) => vec![used("set")],
        ("condvar", _) => vec![used("notified")],
        ("future", _) => vec![used("woken")],
        _ => Vec::new(),
    };
    parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("; ")
}
