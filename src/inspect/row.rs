//! One task as a line: `#17 parked 3.2s "db writer" read fd 9 → 10.0.0.7:5432 [src/db.rs fetch|31] [src/main.rs serve|88]`.
//!
//! Every view that lists tasks writes them here, whether they come from a [`Snapshot`](super::Snapshot) or straight from
//! the walk.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::line::TaskState;
use super::snapshot::Site;
use super::text::{Ink, Style, inked, push_age, push_escaped, push_number, push_site, push_spaced_age};

/// What a line says of a task, but its labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) id: u64,
    pub(super) name: Option<&'a str>,
    pub(super) state: TaskState,
    pub(super) age: Duration,
    pub(super) wait: &'a str,
    /// Condensed; empty if there is none.
    pub(super) stack: &'a str,
    pub(super) spawned_at: Option<Site>,
}

impl Row<'_> {
    /// Appends the line, without its end.
    pub(super) fn write<'l>(&self, labels: impl Iterator<Item = (&'l str, &'l str)>, style: Style, out: &mut String) {
        inked(style, Ink::Bold, out, |out| push_id(self.id, out));
        push_state(self.state, self.age, style, out);
        if let Some(name) = self.name {
            out.push(' ');
            inked(style, Ink::Green, out, |out| push_name(name, out));
        }
        for (key, value) in labels {
            out.push(' ');
            push_escaped(key, out);
            out.push('=');
            push_escaped(value, out);
        }
        if !self.wait.is_empty() {
            out.push(' ');
            out.push_str(self.wait);
        }
        if !self.stack.is_empty() {
            out.push(' ');
            inked(style, Ink::Dim, out, |out| out.push_str(self.stack));
        } else if let Some(site) = self.spawned_at {
            out.push_str(" spawned at ");
            push_site(site.file, site.line, out);
        }
    }
}

/// `#17`
pub(super) fn push_id(id: u64, out: &mut String) {
    out.push('#');
    push_number(id, out);
}

/// `"db writer"`
pub(super) fn push_name(name: &str, out: &mut String) {
    out.push('"');
    push_escaped(name, out);
    out.push('"');
}

/// The state's word.
pub(super) fn word(state: TaskState) -> &'static str {
    match state {
        TaskState::Unstarted => "unstarted",
        TaskState::Runnable => "runnable",
        TaskState::Running { .. } => "running",
        TaskState::Parked => "parked",
    }
}

fn push_state(state: TaskState, age: Duration, style: Style, out: &mut String) {
    out.push(' ');
    if let TaskState::Running { worker } = state {
        inked(style, Ink::Red, out, |out| out.push_str(word(state)));
        out.push_str(" on worker ");
        push_number(worker as u64, out);
        out.push_str(" for ");
        push_spaced_age(age, " ", out);
    } else {
        out.push_str(word(state));
        out.push(' ');
        push_age(age, out);
    }
}

/// How many tasks are in which state.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct States {
    counts: [u64; 4],
}

/// In the order in which they are shown.
const ALL: [TaskState; 4] =
    [TaskState::Parked, TaskState::Runnable, TaskState::Running { worker: 0 }, TaskState::Unstarted];

impl States {
    pub(super) fn add(&mut self, state: TaskState) {
        self.counts[match state {
            TaskState::Parked => 0,
            TaskState::Runnable => 1,
            TaskState::Running { .. } => 2,
            TaskState::Unstarted => 3,
        }] += 1;
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn merge(&mut self, other: &States) {
        self.counts.iter_mut().zip(other.counts).for_each(|(c, more)| *c += more);
    }

    /// `3 parked, 1 running`; with `all`, also those that there are none of.
    pub(super) fn write(&self, all: bool, out: &mut String) {
        let mut first = true;
        for (count, state) in self.counts.iter().zip(ALL) {
            if *count > 0 || all {
                if !std::mem::take(&mut first) {
                    out.push_str(", ");
                }
                push_number(*count, out);
                out.push(' ');
                out.push_str(word(state));
            }
        }
    }

    /// The one state that all are in.
    pub(super) fn only(&self) -> Option<&'static str> {
        let mut used = self.counts.iter().zip(ALL).filter(|(c, _)| **c > 0);
        let (_, state) = used.next()?;
        used.next().is_none().then(|| word(state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: TaskState) -> Row<'static> {
        let spawned_at = Some(Site { file: "app/src/main.rs", line: 88 });
        Row { id: 17, name: None, state, age: Duration::from_millis(3200), wait: "", stack: "", spawned_at }
    }

    fn written(row: &Row<'_>, labels: &[(&str, &str)], style: Style) -> String {
        let mut out = String::new();
        row.write(labels.iter().copied(), style, &mut out);
        out
    }

    #[test]
    fn lines_in_every_state() {
        let mut r = row(TaskState::Parked);
        (r.name, r.wait, r.stack) = (Some("db \"w\"\n"), "read fd 9 → 10.0.0.7:5432", "[src/db.rs fetch|31]");
        let labels = [("req", "47 11"), ("user", "\u{202e}x")];
        assert_eq!(
            written(&r, &labels, Style::PLAIN),
            "#17 parked 3.2s \"db \\\"w\\\"\\n\" req=47 11 user=\\u{202e}x read fd 9 → 10.0.0.7:5432 [src/db.rs fetch|31]"
        );
        let coloured = written(&r, &[], Style::COLOURED);
        assert!(coloured.starts_with("\x1b[1m#17\x1b[0m parked 3.2s \x1b[32m\"db"), "{coloured:?}");
        let running = row(TaskState::Running { worker: 3 });
        assert_eq!(written(&running, &[], Style::PLAIN), "#17 running on worker 3 for 3.2 s spawned at src/main.rs:88");
        assert_eq!(
            written(&row(TaskState::Unstarted), &[], Style::PLAIN),
            "#17 unstarted 3.2s spawned at src/main.rs:88"
        );
        assert_eq!(
            written(&row(TaskState::Runnable), &[], Style::PLAIN),
            "#17 runnable 3.2s spawned at src/main.rs:88"
        );
    }

    #[test]
    fn states_are_counted() {
        let mut s = States::default();
        [TaskState::Parked, TaskState::Parked].into_iter().for_each(|t| s.add(t));
        assert_eq!(s.only(), Some("parked"));
        s.add(TaskState::Running { worker: 9 });
        let (mut some, mut all) = (String::new(), String::new());
        s.write(false, &mut some);
        s.write(true, &mut all);
        assert_eq!((some.as_str(), s.total(), s.only()), ("2 parked, 1 running", 3, None));
        assert_eq!(all, "2 parked, 0 runnable, 1 running, 0 unstarted");
    }
}
