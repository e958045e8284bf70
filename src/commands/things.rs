//! What tasks hold and wait for: locks, channels, sockets, descriptors.

use std::collections::HashMap;
use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::Answer;
use super::text::{age, clean, count, counted, rows};
use crate::inspect::{self, Object, Options, Party, Snapshot};

/// How much of a name is shown.
const LONGEST_NAME: usize = 80;

/// Those that are alike on one line, unless every one is asked for.
pub(super) fn objects(every_one: bool) -> Box<dyn Answer> {
    let wanted = Options { stacks: false, running: false, objects: true, limit: 1 };
    let mut all = Snapshot::take(&wanted).objects;
    all.sort_by_key(|o| std::cmp::Reverse((o.waiters, o.oldest_wait, o.held_for)));
    let head = if all.is_empty() { "nobody waits for a lock, channel or the like\n" } else { "" };
    if every_one {
        return rows(head, all, object);
    }
    let mut groups: Vec<Alike> = Vec::new();
    let mut places = HashMap::new();
    for o in all {
        let place = *places.entry((o.kind, o.name.clone(), o.site)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.add(&o),
            None => groups.push(Alike { count: 1, waiters: o.waiters, oldest_wait: o.oldest_wait, first: o }),
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse((group.waiters, group.oldest_wait)));
    rows(head, groups, alike)
}

/// Objects of one kind and name that were made at one place.
struct Alike {
    count: u64,
    waiters: usize,
    oldest_wait: Option<Duration>,
    first: Object,
}

impl Alike {
    fn add(&mut self, o: &Object) {
        self.count += 1;
        self.waiters += o.waiters;
        self.oldest_wait = self.oldest_wait.max(o.oldest_wait);
    }
}

fn alike(group: &Alike, out: &mut String) {
    if group.count == 1 {
        return object(&group.first, out);
    }
    let _ = write!(out, "×{} ", count(group.count));
    heading(&group.first, out);
    waiting(group.waiters, group.oldest_wait, out);
    out.push_str("; objects --all shows each\n");
}

fn heading(o: &Object, out: &mut String) {
    out.push_str(o.kind);
    if let Some(name) = &o.name {
        let _ = write!(out, " \"{}\"", clean(name, LONGEST_NAME));
    }
    let _ = write!(out, " {}", o.site);
}

fn waiting(waiters: usize, oldest: Option<Duration>, out: &mut String) {
    if waiters > 0 {
        let oldest = age(oldest.unwrap_or_default());
        let _ = write!(out, "; {}, the first for {oldest}", counted(waiters as u64, "task waits", "tasks wait"));
    }
}

fn object(o: &Object, out: &mut String) {
    heading(o, out);
    let _ = match (o.owner, o.held_for) {
        (None, _) => Ok(()),
        (Some(by), None) => write!(out, " held by {}", party(by)),
        (Some(by), Some(time)) => write!(out, " held by {} for {}", party(by), age(time)),
    };
    if !o.details.is_empty() {
        let _ = write!(out, "; {}", o.details);
    }
    waiting(o.waiters, o.oldest_wait, out);
    out.push('\n');
}

fn party(of: Party) -> String {
    match of {
        Party::Task(id) => format!("#{id}"),
        Party::Thread(tid) => format!("thread {tid}"),
    }
}

pub(super) fn descriptors(every_one: bool) -> Box<dyn Answer> {
    let mut lines = vec![inspect::descriptors().to_string()];
    if every_one {
        lines.extend(inspect::sockets().iter().map(ToString::to_string));
        return listed(lines);
    }
    lines.extend(inspect::sockets_by_site().iter().map(ToString::to_string));
    listed(lines)
}

pub(super) fn peers() -> Box<dyn Answer> {
    let all = inspect::peers();
    if all.is_empty() { listed(vec!["no socket is connected"]) } else { listed(all) }
}

pub(super) fn events() -> Box<dyn Answer> {
    let all = inspect::events();
    if all.is_empty() { listed(vec!["nobody waits for a descriptor"]) } else { listed(all) }
}

/// Things that display as one line each.
fn listed<T: Display + 'static>(all: Vec<T>) -> Box<dyn Answer> {
    rows("", all, |one, out| {
        let _ = writeln!(out, "{one}");
    })
}
