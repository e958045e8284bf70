//! Tasks grouped by stack: what a million tasks do, on a page.
//!
//! ```text
//! ×9998 parked: read ×9990, sleep ×8; oldest #17 3.2s; src/server.rs:40
//!     [src/db.rs fetch|31] [src/main.rs serve|88]
//! ```
//!
//! Stacks are told apart by their addresses while tasks are counted, and put together by what is shown of them before they
//! are written, since one line of source can park in several places. Memory is bounded by the number of distinct stacks, of
//! which there are at most [`MOST_GROUPS`], and by the ids where all of them are asked for.
//!
//! Must not know: how tasks are walked to, where the text goes.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::capture::Captured;
use super::classes::ClassNames;
use super::condensed::First;
use super::frames::{Frames, frames};
use super::line::{PIECE_BYTES, TaskState, advise, footer, pour, summary};
use super::row::{States, push_id};
use super::snapshot::{Site, Snapshot};
use super::sweep::{Sweep, Swept, Then};
use super::symbols::AddressHasher;
use super::text::{Ink, Style, inked, push_age, push_escaped, push_number, push_site};

/// Distinct stacks that are kept apart.
const MOST_GROUPS: usize = 65_536;
/// Kinds of waits and classes that a group names; the rest are counted together.
const NAMED: usize = 8;
/// Work per piece while texts are made.
const PIECE: Duration = Duration::from_millis(20);
/// Ids on a line.
const IDS_A_LINE: usize = 16;

/// Distinct stacks by their addresses, each with a number counted from 0.
#[derive(Debug, Default)]
pub(super) struct StackTable {
    /// Cut ones, whole ones.
    numbers: [HashMap<Box<[usize]>, usize, BuildHasherDefault<AddressHasher>>; 2],
    len: usize,
}

impl StackTable {
    /// The stack's number, and whether it is new; `None` if it would be one too many.
    pub(super) fn number(&mut self, addresses: &[usize], complete: bool, most: usize) -> Option<(usize, bool)> {
        let numbers = &mut self.numbers[usize::from(complete)];
        if let Some(n) = numbers.get(addresses) {
            return Some((*n, false));
        }
        if self.len == most {
            return None;
        }
        numbers.insert(addresses.into(), self.len);
        self.len += 1;
        Some((self.len - 1, true))
    }

    /// Every stack by its number: addresses, and whether it is whole.
    pub(super) fn into_stacks(self) -> Vec<(Box<[usize]>, bool)> {
        let mut all: Vec<(Box<[usize]>, bool)> = vec![Default::default(); self.len];
        for (complete, numbers) in self.numbers.into_iter().enumerate() {
            numbers.into_iter().for_each(|(addresses, n)| all[n] = (addresses, complete == 1));
        }
        all
    }
}

/// How often each of a few things was seen.
#[derive(Debug, Clone)]
struct Tally<T>(Vec<(T, u64)>);

impl<T> Default for Tally<T> {
    fn default() -> Self {
        Tally(Vec::new())
    }
}

impl<T: PartialEq> Tally<T> {
    fn add(&mut self, what: T, count: u64) {
        match self.0.iter().position(|(t, _)| *t == what) {
            Some(at) => self.0[at].1 += count,
            None => self.0.push((what, count)),
        }
    }

    fn merge(&mut self, other: Tally<T>) {
        other.0.into_iter().for_each(|(t, n)| self.add(t, n));
    }
}

impl<T: AsRef<str>> Tally<T> {
    /// The most frequent first: `read ×9990, sleep ×8`; without a count where there is one alone.
    fn write(&mut self, out: &mut String) {
        self.0.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.as_ref().cmp(b.0.as_ref())));
        for (at, (what, count)) in self.0.iter().take(NAMED).enumerate() {
            if at > 0 {
                out.push_str(", ");
            }
            push_escaped(what.as_ref(), out);
            if self.0.len() > 1 {
                push_times(*count, " ", out);
            }
        }
        if self.0.len() > NAMED {
            out.push_str(", ");
            push_number((self.0.len() - NAMED) as u64, out);
            out.push_str(" more");
        }
    }
}

fn push_times(count: u64, before: &str, out: &mut String) {
    out.push_str(before);
    out.push('×');
    push_number(count, out);
}

/// One of a group, as far as the group is concerned.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) id: u64,
    pub(super) state: TaskState,
    pub(super) wait: &'static str,
    pub(super) class: &'a Arc<str>,
    pub(super) age: Duration,
}

/// Tasks with one stack.
#[derive(Debug, Default)]
struct Group {
    /// Condensed; empty until it is made.
    stack: String,
    states: States,
    waits: Tally<&'static str>,
    classes: Tally<Arc<str>>,
    oldest: (Duration, u64),
    ids: Vec<u64>,
}

impl Group {
    fn add(&mut self, m: &Member<'_>, keep_id: bool) {
        self.states.add(m.state);
        if !m.wait.is_empty() {
            self.waits.add(m.wait, 1);
        }
        match self.classes.0.last_mut() {
            // By far the most frequent: the class of the one before.
            Some((class, count)) if Arc::ptr_eq(class, m.class) => *count += 1,
            _ => self.classes.add(m.class.clone(), 1),
        }
        self.oldest = self.oldest.max((m.age, m.id));
        if keep_id {
            self.ids.push(m.id);
        }
    }

    fn merge(&mut self, other: Group) {
        self.states.merge(&other.states);
        self.waits.merge(other.waits);
        self.classes.merge(other.classes);
        self.oldest = self.oldest.max(other.oldest);
        self.ids.extend(other.ids);
    }

    fn write(&mut self, style: Style, out: &mut String) {
        inked(style, Ink::Bold, out, |out| push_times(self.states.total(), "", out));
        out.push(' ');
        match self.states.only() {
            Some(state) => out.push_str(state),
            None => self.states.write(false, out),
        }
        if !self.waits.0.is_empty() {
            out.push_str(": ");
            self.waits.write(out);
        }
        out.push_str("; oldest ");
        push_id(self.oldest.1, out);
        out.push(' ');
        push_age(self.oldest.0, out);
        out.push_str("; ");
        inked(style, Ink::Green, out, |out| self.classes.write(out));
        out.push_str("\n    ");
        inked(style, Ink::Dim, out, |out| out.push_str(&self.stack));
        out.push('\n');
    }
}

/// Ids of a group that are still to be written, below it.
#[derive(Debug, Default)]
struct Ids(std::vec::IntoIter<u64>);

impl Ids {
    fn of(group: Group) -> Ids {
        let mut ids = group.ids;
        ids.sort_unstable();
        Ids(ids.into_iter())
    }

    /// Writes lines until a piece is full; true if there are more.
    fn write_some(&mut self, out: &mut String) -> bool {
        while out.len() < PIECE_BYTES && self.0.len() > 0 {
            out.push_str("   ");
            for id in self.0.by_ref().take(IDS_A_LINE) {
                out.push(' ');
                push_id(id, out);
            }
            out.push('\n');
        }
        self.0.len() > 0
    }
}

/// All groups while tasks are counted.
#[derive(Debug, Default)]
pub(super) struct Groups {
    stacks: StackTable,
    by_stack: Vec<Group>,
    /// Tasks without a stack, by spawn site.
    by_site: HashMap<Option<Site>, Group>,
    /// Those with a stack that was one too many.
    others: Option<Group>,
    keep_ids: bool,
}

impl Groups {
    fn new(keep_ids: bool) -> Groups {
        Groups { keep_ids, ..Groups::default() }
    }

    fn add(&mut self, m: &Member<'_>, addresses: &[usize], complete: bool, site: Option<Site>) {
        let group = if addresses.is_empty() {
            self.by_site.entry(site).or_default()
        } else {
            match self.stacks.number(addresses, complete, MOST_GROUPS) {
                Some((n, is_new)) => {
                    if is_new {
                        self.by_stack.push(Group::default());
                    }
                    &mut self.by_stack[n]
                }
                None => self.others.get_or_insert_default(),
            }
        };
        group.add(m, self.keep_ids);
    }
}

/// Groups whose texts are being made, then all of them in order.
#[derive(Debug, Default)]
struct Sorted {
    to_name: Vec<(Box<[usize]>, bool, Group)>,
    by_text: HashMap<String, Group>,
    rest: Vec<Group>,
    /// Of the group that was written last.
    ids: Ids,
}

impl Sorted {
    fn new(groups: Groups) -> Sorted {
        let stacks = groups.stacks.into_stacks();
        let to_name = stacks.into_iter().zip(groups.by_stack).map(|((a, c), g)| (a, c, g)).collect();
        let mut sorted = Sorted { to_name, ..Sorted::default() };
        for (site, group) in groups.by_site {
            let mut text = String::from("no stack");
            if let Some(site) = site {
                text = String::from("spawned at ");
                push_site(site.file, site.line, &mut text);
            }
            sorted.put(text, group);
        }
        if let Some(group) = groups.others {
            sorted.put("other stacks".into(), group);
        }
        sorted
    }

    fn put(&mut self, text: String, group: Group) {
        match self.by_text.get_mut(&text) {
            Some(there) => there.merge(group),
            None => _ = self.by_text.insert(text, group),
        }
    }

    /// Makes some more texts; true if there are more to make.
    fn name_some(&mut self, frames: &mut Frames, until: Instant) -> bool {
        while let Some((addresses, complete, group)) = self.to_name.pop() {
            let mut text = String::new();
            frames.text(&addresses, First::ResumePoint, complete, &mut text);
            self.put(text, group);
            if Instant::now() >= until {
                return !self.to_name.is_empty();
            }
        }
        false
    }

    /// The largest last, to be taken from the end.
    fn sort(&mut self) {
        self.rest = self.by_text.drain().map(|(stack, group)| Group { stack, ..group }).collect();
        self.rest.sort_by(|a, b| (a.states.total(), &b.stack).cmp(&(b.states.total(), &a.stack)));
    }

    /// Writes some more groups; true if there are more.
    fn write_some(&mut self, style: Style, out: &mut Vec<u8>) -> bool {
        let mut text = String::new();
        let mut more = self.ids.write_some(&mut text);
        while text.len() < PIECE_BYTES
            && let Some(mut group) = self.rest.pop()
        {
            group.write(style, &mut text);
            self.ids = Ids::of(group);
            more = self.ids.write_some(&mut text);
        }
        out.extend_from_slice(text.as_bytes());
        more || !self.rest.is_empty()
    }
}

#[derive(Debug)]
enum Phase {
    Counting,
    Naming,
    Writing,
}

/// The answer to `stacks`, a piece at a time.
#[derive(Debug)]
pub(crate) struct StacksCursor {
    sweep: Sweep,
    style: Style,
    first: bool,
    phase: Phase,
    groups: Groups,
    sorted: Sorted,
    names: ClassNames,
    seen: States,
    truncated: u64,
}

impl StacksCursor {
    /// With `all`, every group is followed by the ids of its tasks.
    pub(crate) fn new(all: bool, style: Style) -> StacksCursor {
        StacksCursor {
            sweep: Sweep::with_running(),
            style,
            first: true,
            phase: Phase::Counting,
            groups: Groups::new(all),
            sorted: Sorted::default(),
            names: ClassNames::default(),
            seen: States::default(),
            truncated: 0,
        }
    }

    /// Appends some more groups; false when the last line, a summary, was written.
    pub(crate) fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if std::mem::take(&mut self.first) {
            advise(out);
        }
        match self.phase {
            Phase::Counting => {
                if self.count() == Swept::All {
                    self.sorted = Sorted::new(std::mem::take(&mut self.groups));
                    self.phase = Phase::Naming;
                }
            }
            Phase::Naming => {
                if !self.sorted.name_some(&mut frames(), Instant::now() + PIECE) {
                    self.sorted.sort();
                    self.phase = Phase::Writing;
                }
            }
            Phase::Writing => {
                if !self.sorted.write_some(self.style, out) {
                    footer(out);
                    summary(&self.seen, self.truncated, &self.sweep, out);
                    return false;
                }
            }
        }
        true
    }

    fn count(&mut self) -> Swept {
        let StacksCursor { sweep, groups, names, seen, truncated, .. } = self;
        sweep.piece(|frames: &mut Frames, c: &mut Captured, _| {
            let complete = frames.walk(c);
            let state = c.state();
            seen.add(state);
            *truncated += u64::from(!complete);
            let class = names.of(c);
            let wait = if state == TaskState::Parked { c.wait.kind.word() } else { "" };
            let member = Member { id: c.id, state, wait, class, age: c.age() };
            groups.add(&member, frames.addresses(), complete, c.site.map(Into::into));
            Then::GoOn
        })
    }
}

/// Writes every stack once with the number of tasks that have it, the most frequent first, and a summary last. With `ids`,
/// the ids of those tasks as well.
///
/// The memory that it takes grows with the number of distinct stacks, not of tasks.
///
/// # Errors
/// Those of `out`.
///
/// # Examples
/// ```
/// coro::run(|| {
///     let _tasks: Vec<_> = (0..10).map(|_| coro::spawn(|| coro::sleep(std::time::Duration::from_secs(3600)))).collect();
///     coro::sleep(std::time::Duration::from_millis(20));
///     let mut text = Vec::new();
///     coro::inspect::stacks_to(&mut text, false, coro::inspect::Style::PLAIN)?;
///     let text = String::from_utf8_lossy(&text);
///     assert!(text.contains("×10 parked: sleep; oldest #"), "{text}");
///     std::io::Result::Ok(())
/// })
/// .unwrap();
/// ```
pub fn stacks_to(out: &mut impl io::Write, ids: bool, style: Style) -> io::Result<()> {
    let mut cursor = StacksCursor::new(ids, style);
    pour(out, |piece| cursor.more(piece))
}

impl Snapshot {
    /// Writes the stacks of this snapshot as [`stacks_to`] writes those of the process.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn stacks_to(&self, out: &mut impl io::Write, ids: bool, style: Style) -> io::Result<()> {
        let mut by_stack: Vec<Group> = self.stacks.iter().map(|_| Group::default()).collect();
        let mut groups = Groups::new(ids);
        for t in &self.tasks {
            let wait = t.wait.as_ref().map_or("", |w| w.kind);
            let member = Member { id: t.id, state: t.state, wait, class: &t.class, age: t.age };
            match t.stack.and_then(|at| by_stack.get_mut(at)) {
                Some(group) => group.add(&member, ids),
                None => groups.add(&member, &[], true, t.spawned_at),
            }
        }
        let mut sorted = Sorted::new(groups);
        for (stack, group) in self.stacks.iter().zip(by_stack) {
            if group.states.total() > 0 {
                sorted.put(stack.condensed.clone(), group);
            }
        }
        sorted.sort();
        pour(out, |piece| sorted.write_some(style, piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member<'a>(id: u64, state: TaskState, wait: &'static str, class: &'a Arc<str>) -> Member<'a> {
        Member { id, state, wait, class, age: Duration::from_millis(100 * id) }
    }

    #[test]
    fn the_ids_of_a_large_group_come_in_pieces() {
        const COUNT: u64 = 50_000;
        let group = |stack: &str, ids: Vec<u64>| {
            let mut group = Group { stack: stack.into(), ids, ..Group::default() };
            group.states.add(TaskState::Parked);
            group
        };
        // The largest stands last.
        let rest = vec![group("[b]", vec![1]), group("[a]", (1..=COUNT).rev().collect())];
        let mut sorted = Sorted { rest, ..Sorted::default() };
        let (mut all, mut pieces) = (Vec::new(), 0);
        loop {
            let mut piece = Vec::new();
            let more = sorted.write_some(Style::PLAIN, &mut piece);
            assert!(piece.len() < PIECE_BYTES + 1024, "{} bytes", piece.len());
            all.extend(piece);
            pieces += 1;
            if !more {
                break;
            }
        }
        let text = String::from_utf8(all).expect("text");
        let ids = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix('#')?.parse::<u64>().ok());
        // The oldest one of each group, and the group's own.
        assert!(ids.eq([0].into_iter().chain(1..=COUNT).chain([0, 1])), "{}", &text[..200]);
        assert!(pieces > 5, "{pieces}");
    }

    #[test]
    fn groups_as_they_are_shown() {
        let (server, job): (Arc<str>, Arc<str>) = ("src/server.rs:40".into(), "job\u{1b}".into());
        let mut groups = Groups::new(true);
        for id in 1..=20 {
            let wait = if id % 10 == 0 { "sleep" } else { "read" };
            groups.add(&member(id, TaskState::Parked, wait, &server), &[1, 2, 3], true, None);
        }
        groups.add(&member(21, TaskState::Runnable, "", &job), &[1, 2, 3], true, None);
        groups.add(&member(32, TaskState::Parked, "read", &server), &[1, 2, 3], false, None);
        let site = Some(Site { file: "a/src/job.rs", line: 9 });
        groups.add(&member(33, TaskState::Unstarted, "", &job), &[], true, site);
        let mut sorted = Sorted::new(groups);
        // Texts as the symbols would give them.
        for (addresses, complete, group) in std::mem::take(&mut sorted.to_name) {
            assert_eq!(*addresses, [1, 2, 3]);
            sorted.put(if complete { "[src/db.rs fetch|31]" } else { "[src/db.rs fetch|31] [...]" }.into(), group);
        }
        sorted.sort();
        let mut out = Vec::new();
        assert!(!sorted.write_some(Style::PLAIN, &mut out));
        let expected = "\
×21 20 parked, 1 runnable: read ×18, sleep ×2; oldest #21 2.1s; src/server.rs:40 ×20, job\\u{1b} ×1
    [src/db.rs fetch|31]
    #1 #2 #3 #4 #5 #6 #7 #8 #9 #10 #11 #12 #13 #14 #15 #16
    #17 #18 #19 #20 #21
×1 parked: read; oldest #32 3.2s; src/server.rs:40
    [src/db.rs fetch|31] [...]
    #32
×1 unstarted; oldest #33 3.3s; job\\u{1b}
    spawned at src/job.rs:9
    #33
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn one_stack_too_many_is_counted_with_the_others() {
        let mut table = StackTable::default();
        assert_eq!(table.number(&[1], true, 2), Some((0, true)));
        assert_eq!(table.number(&[1], false, 2), Some((1, true)));
        assert_eq!(table.number(&[2], true, 2), None);
        assert_eq!(table.number(&[1], true, 2), Some((0, false)));
        let all = table.into_stacks();
        assert_eq!(all, [(Box::from([1]), true), (Box::from([1]), false)]);
    }

    #[test]
    fn what_is_shown_alike_is_one_group() {
        let class: Arc<str> = "c".into();
        let mut groups = Groups::new(false);
        groups.add(&member(1, TaskState::Parked, "lock", &class), &[1], true, None);
        groups.add(&member(2, TaskState::Parked, "lock", &class), &[2], true, None);
        let mut sorted = Sorted::new(groups);
        for (_, _, group) in std::mem::take(&mut sorted.to_name) {
            sorted.put("[a b|1]".into(), group);
        }
        sorted.sort();
        let mut out = Vec::new();
        let _ = sorted.write_some(Style::PLAIN, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "×2 parked: lock; oldest #2 200ms; c\n    [a b|1]\n");
    }
}
