//! What a question about tasks is made of: which of them it is about, by what they are put together, in which order.
//!
//! Everything is judged on the copy of a task (`capture`), the cheap parts first, without an allocation per task.
//!
//! Must not know: how a question is written, how an answer looks.

#![forbid(unsafe_code)]

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::time::Duration;

use super::capture::{Captured, Doing};
use super::classes::ClassNames;
use super::frames::Frames;
use super::row::word;
use super::sockets::descriptor_and_peer;
use crate::observe::WaitKind;
use crate::scheduler::{runtime, shared};
use crate::sys::clock;
use crate::task::TaskCell;

/// Something that can be said of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    Id,
    Name,
    Class,
    /// For a cancellation: what is true of the one or of the other.
    NameOrClass,
    /// `parked`, `runnable`, `running`, `unstarted`.
    State,
    /// The kind of what a parked task waits for, by its word.
    Wait,
    /// The same with everything that is known of it.
    WaitText,
    /// Where it was spawned, `file:line`.
    Site,
    /// The other end of the connection on which it waits.
    Peer,
    /// Who spawned it.
    Parent,
    /// Counted from 0 in its runtime.
    Worker,
    Label(Box<str>),
    /// Condensed.
    Stack,
    /// In its present state.
    Age,
    /// In slices, the unfinished one included.
    Run,
    Slices,
    /// Its longest slice.
    Longest,
    /// Its longest way from a wake-up to a slice.
    Delay,
}

/// What a text has to be: `*` stands for any characters, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Box<str>);

impl Pattern {
    pub(crate) fn new(text: &str) -> Pattern {
        Pattern(text.into())
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        // The leftmost place for each part leaves the most for those after it.
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// What is asked of a field. Times are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Test {
    Is(Pattern),
    /// Without regard to the case of ASCII letters; this is in lower case.
    Contains(Box<str>),
    /// One of these orders to the number.
    Compares(&'static [Ordering], u64),
}

/// One condition. What a task does not have fulfils none but a negated one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    pub(crate) field: Field,
    pub(crate) test: Test,
    pub(crate) not: bool,
}

/// A whole question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Question {
    /// All have to hold.
    pub(crate) clauses: Vec<Clause>,
    pub(crate) by: Option<Field>,
    /// The largest first, or for ids the smallest.
    pub(crate) sort: Option<Field>,
    pub(crate) limit: Option<usize>,
}

/// A copied task and what is needed to speak of it.
pub(super) struct Looked<'a> {
    pub(super) c: &'a Captured,
    pub(super) cell: &'static TaskCell,
    pub(super) frames: &'a mut Frames,
    pub(super) names: &'a mut ClassNames,
    /// Room for one text.
    pub(super) text: &'a mut String,
}

impl Clause {
    /// Those that cost least are asked first.
    pub(super) fn cost(&self) -> u32 {
        match self.field {
            Field::Stack => 3,
            Field::WaitText => 2,
            Field::Peer | Field::Class | Field::NameOrClass | Field::Site => 1,
            _ => 0,
        }
    }

    pub(super) fn holds(&self, seen: &mut Looked<'_>) -> bool {
        let found = match &self.test {
            Test::Compares(orders, with) => seen.number(&self.field).is_some_and(|n| orders.contains(&n.cmp(with))),
            Test::Is(pattern) if self.field == Field::NameOrClass => {
                [Field::Name, Field::Class].iter().any(|field| seen.text(field) && pattern.matches(seen.text))
            }
            Test::Is(pattern) => seen.text(&self.field) && pattern.matches(seen.text),
            Test::Contains(part) => seen.text(&self.field) && contains(seen.text, part),
        };
        found != self.not
    }

    /// Whether no task that runs can fulfil it.
    pub(super) fn excludes_running(&self) -> bool {
        match (&self.field, &self.test) {
            (Field::State, Test::Is(pattern)) => pattern.matches("running") == self.not,
            (Field::Wait | Field::Peer, _) => !self.not,
            _ => false,
        }
    }
}

fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

/// The kind of what a task waits for; `None` if it does not wait, or does not say for what.
fn wait_word(c: &Captured) -> Option<&'static str> {
    let waits = c.doing == Doing::Parked || c.doing == Doing::Unstarted && c.wait.kind == WaitKind::Stack;
    Some(c.wait.kind.word()).filter(|word| waits && !word.is_empty())
}

/// How long the slice that runs has lasted; zero if none does.
fn unfinished(c: &Captured) -> Duration {
    if matches!(c.doing, Doing::Running(_)) { c.age() } else { Duration::ZERO }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Looked<'_> {
    /// The field as a number; `None` if it is none, or the task has none.
    pub(super) fn number(&self, field: &Field) -> Option<u64> {
        let c = self.c;
        match field {
            Field::Id => Some(c.id),
            Field::Parent => Some(c.parent),
            Field::Worker => worker(c).map(|w| w.ordinal() as u64),
            Field::Slices => Some(c.slices + u64::from(matches!(c.doing, Doing::Running(_)))),
            Field::Age => Some(nanos(c.age())),
            Field::Run => Some(nanos(run_time(c))),
            Field::Longest => Some(nanos(c.longest_slice.max(unfinished(c)))),
            Field::Delay => Some(nanos(c.longest_delay)),
            _ => None,
        }
    }

    /// Puts the field as a text into `self.text`; false if it is none, or the task has none.
    fn text(&mut self, field: &Field) -> bool {
        let c = self.c;
        self.text.clear();
        match field {
            Field::Name => c.name().map(|name| self.text.push_str(name)).is_some(),
            Field::Class => {
                self.text.push_str(self.names.of(c));
                true
            }
            Field::State => {
                self.text.push_str(word(c.state()));
                true
            }
            Field::Wait => wait_word(c).map(|word| self.text.push_str(word)).is_some(),
            Field::WaitText => {
                c.wait_text(self.text);
                !self.text.is_empty()
            }
            Field::Site => c.site.map(|site| write!(self.text, "{}:{}", site.file(), site.line())).is_some(),
            Field::Peer if c.doing == Doing::Parked => {
                descriptor_and_peer(c.io()).1.map(|peer| self.text.push_str(&peer)).is_some()
            }
            Field::Label(key) => {
                c.labels().find(|(k, _)| **k == **key).map(|(_, value)| self.text.push_str(value)).is_some()
            }
            Field::Stack => {
                self.frames.write(c, self.text);
                !self.text.is_empty()
            }
            _ => false,
        }
    }

    /// Puts what tasks are put together by into `self.text`.
    pub(super) fn group(&mut self, by: &Field) {
        let c = self.c;
        match by {
            Field::Wait if wait_word(c).is_none() => {
                self.text.clear();
                let state = if c.doing == Doing::Parked { "not said" } else { word(c.state()) };
                let _ = write!(self.text, "({state})");
            }
            Field::Parent => {
                self.text.clear();
                let _ = match c.parent {
                    0 => write!(self.text, "(a plain thread)"),
                    id => write!(self.text, "#{id}"),
                };
            }
            Field::Worker => {
                self.text.clear();
                let _ = match worker(c) {
                    None => write!(self.text, "(none yet)"),
                    Some(w) => match place(w) {
                        (0, worker) => write!(self.text, "{worker}"),
                        (runtime, worker) => write!(self.text, "{runtime}/{worker}"),
                    },
                };
            }
            Field::Peer => {
                if self.text(by) {
                    without_port(self.text);
                } else {
                    self.text.push_str("(none)");
                }
            }
            by => {
                if !self.text(by) {
                    self.text.push_str("(none)");
                }
            }
        }
    }
}

fn worker(c: &Captured) -> Option<&'static shared::Shared> {
    shared::worker_at(c.owner).filter(|_| c.doing != Doing::Unstarted)
}

/// The runtime, counted from 0, and the worker in it.
fn place(w: &'static shared::Shared) -> (usize, usize) {
    let id = w.runtime.load(std::sync::atomic::Ordering::Relaxed);
    (runtime::number_of(id).unwrap_or(0), w.ordinal())
}

/// Time in slices, the unfinished one included.
pub(super) fn run_time(c: &Captured) -> Duration {
    clock::duration(c.run_ticks) + unfinished(c)
}

/// Clients have a port each; what they are told apart by is their address.
fn without_port(peer: &mut String) {
    if let Some((address, port)) = peer.rsplit_once(':')
        && !port.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
    {
        peer.truncate(address.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let yes = [
            ("echo", "echo"),
            ("*", ""),
            ("echo*", "echo 10.0.0.1:80"),
            ("*:80", "echo 10.0.0.1:80"),
            ("e*o*80", "echo 10.0.0.1:80"),
            ("a*a", "aa"),
            ("**x", "x"),
            ("*ab*", "aab"),
        ];
        for (pattern, text) in yes {
            assert!(Pattern::new(pattern).matches(text), "{pattern} {text}");
        }
        let no = [("echo", "echo 1"), ("", "x"), ("a*a", "a"), ("*b", "bc"), ("a*b*a", "aba b"), ("x*", "ax")];
        for (pattern, text) in no {
            assert!(!Pattern::new(pattern).matches(text), "{pattern} {text}");
        }
    }

    #[test]
    fn parts_are_found_in_either_case() {
        assert!(contains("DB Writer", "writer") && contains("x", "") && contains("größe", "öß"));
        assert!(!contains("db", "dbx"));
    }

    #[test]
    fn ports_go_and_paths_stay() {
        for (peer, address) in
            [("10.0.0.7:5432", "10.0.0.7"), ("[::1]:80", "[::1]"), ("/run/x.sock", "/run/x.sock"), ("pid 7", "pid 7")]
        {
            let mut text = peer.to_owned();
            without_port(&mut text);
            assert_eq!(text, address);
        }
    }
}
