//! What tasks hold and wait for: locks, channels, sockets, descriptors.

use std::fmt::{Display, Write as _};

use super::Answer;
use super::text::{age, clean, counted, rows};
use crate::inspect::{self, Object, Options, Party, Snapshot};

/// How much of a name is shown.
const LONGEST_NAME: usize = 80;

pub(super) fn objects() -> Box<dyn Answer> {
    let wanted = Options { stacks: false, running: false, objects: true, limit: 0 };
    let mut all = Snapshot::take(&wanted).objects;
    all.sort_by_key(|o| std::cmp::Reverse((o.waiters, o.oldest_wait, o.held_for)));
    let head = if all.is_empty() { "nobody waits for a lock, channel or the like\n" } else { "" };
    rows(head, all, object)
}

fn object(o: &Object, out: &mut String) {
    out.push_str(o.kind);
    if let Some(name) = &o.name {
        let _ = write!(out, " \"{}\"", clean(name, LONGEST_NAME));
    }
    let _ = write!(out, " {}", o.site);
    let _ = match (o.owner, o.held_for) {
        (None, _) => Ok(()),
        (Some(by), None) => write!(out, " held by {}", party(by)),
        (Some(by), Some(time)) => write!(out, " held by {} for {}", party(by), age(time)),
    };
    if !o.details.is_empty() {
        let _ = write!(out, "; {}", o.details);
    }
    if o.waiters > 0 {
        let oldest = age(o.oldest_wait.unwrap_or_default());
        let _ = write!(out, "; {}, the first for {oldest}", counted(o.waiters as u64, "task waits", "tasks wait"));
    }
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
