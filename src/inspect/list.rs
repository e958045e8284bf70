//! The tasks that fulfil some conditions: as lines, put together by what they have in common, or as values.
//!
//! Invariants: a piece at a time, as every walk over all tasks; what is kept between the pieces has a bound, and where that
//! cuts something off the answer says so. Tasks that do not fulfil the conditions are counted, and nothing of theirs is
//! written.
//!
//! Must not know: how a question is written, how tables look.

#![forbid(unsafe_code)]

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use super::capture::Captured;
#[cfg(feature = "probe")]
use super::capture::Doing;
use super::classes::ClassNames;
#[cfg(feature = "serde")]
use super::collect::{self, Places};
use super::filter::{Clause, Field, Looked, Pattern, Question, Test, run_time};
use super::line::{PIECE_BYTES, advise, footer};
use super::row::{Row, States};
#[cfg(feature = "probe")]
use super::snapshot::Site;
#[cfg(feature = "serde")]
use super::snapshot::Task;
use super::sweep::{Sweep, Swept, Then, cell_of};
use super::text::{Style, push_age, push_number};
#[cfg(feature = "probe")]
use crate::observe::WaitKind;
use crate::scheduler;
use crate::task::TaskCell;

/// Lines that are kept for an answer in an order of its own, unless it says how many it wants.
const KEPT: usize = 1000;
/// The most that anybody gets in such an order, and the most tasks as values.
const MOST_KEPT: usize = 100_000;
/// So many groups are told apart.
const MOST_GROUPS: usize = 65_536;

/// The walk over those that fulfil all of some conditions.
#[derive(Debug)]
struct Selection {
    sweep: Sweep,
    clauses: Vec<Clause>,
    names: ClassNames,
    text: String,
    all: u64,
    matched: States,
}

impl Selection {
    /// With the stacks of those that are found, or without.
    fn new(mut clauses: Vec<Clause>, stacks: bool) -> Selection {
        clauses.sort_by_key(Clause::cost);
        let stacks = stacks || clauses.iter().any(|clause| clause.field == Field::Stack);
        let mut sweep = Sweep::new();
        sweep.captured.wants_stack = stacks;
        sweep.captured.wants_running = stacks && !clauses.iter().any(Clause::excludes_running);
        Selection {
            sweep,
            clauses,
            names: ClassNames::default(),
            text: String::new(),
            all: 0,
            matched: States::default(),
        }
    }

    fn piece(&mut self, mut each: impl FnMut(&mut Looked<'_>) -> Then) -> Swept {
        let Selection { sweep, clauses, names, text, all, matched } = self;
        sweep.piece(|frames, c, cell| {
            *all += 1;
            let mut looked = Looked { c, cell, frames, names, text };
            if !clauses.iter().all(|clause| clause.holds(&mut looked)) {
                return Then::GoOn;
            }
            matched.add(looked.c.state());
            each(&mut looked)
        })
    }

    /// Stacks are needed no more, as far as nobody asks for them.
    fn without_stacks(&mut self) {
        if !self.clauses.iter().any(|clause| clause.field == Field::Stack) {
            self.sweep.captured.wants_stack = false;
            self.sweep.captured.wants_running = false;
        }
    }

    /// `3 of 15 tasks: 2 parked, 1 running; 40us`, with what was left out.
    fn summary(&self, shown: usize) -> String {
        let mut text = String::new();
        push_number(self.matched.total(), &mut text);
        text.push_str(" of ");
        push_number(self.all, &mut text);
        text.push_str(" tasks match");
        if self.matched.total() > 0 {
            text.push_str(": ");
            self.matched.write(false, &mut text);
        }
        if (shown as u64) < self.matched.total() {
            text.push_str("; shown: ");
            push_number(shown as u64, &mut text);
        }
        text.push_str("; ");
        push_age(self.sweep.took(), &mut text);
        text.push('\n');
        text
    }
}

/// One row that is kept until it is known whether it belongs to the first.
#[derive(Debug)]
struct Kept<R> {
    /// By what it is ordered, the largest first; among equals the smallest id.
    key: u64,
    id: Reverse<u64>,
    row: R,
}

impl<R> Ord for Kept<R> {
    fn cmp(&self, other: &Kept<R>) -> Ordering {
        (self.key, self.id).cmp(&(other.key, other.id))
    }
}

impl<R> PartialOrd for Kept<R> {
    fn partial_cmp(&self, other: &Kept<R>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> PartialEq for Kept<R> {
    fn eq(&self, other: &Kept<R>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<R> Eq for Kept<R> {}

/// The rows that come first in some order, of all that are offered.
#[derive(Debug)]
struct Best<R> {
    limit: usize,
    /// The smallest is the first to go.
    rows: BinaryHeap<Reverse<Kept<R>>>,
}

impl<R> Best<R> {
    fn new(limit: usize) -> Best<R> {
        Best { limit, rows: BinaryHeap::new() }
    }

    /// Makes and keeps the task's row if it is among the first so far.
    fn offer<'a, 'l>(&mut self, looked: &'a mut Looked<'l>, sort: &Field, row: impl FnOnce(&'a mut Looked<'l>) -> R) {
        let number = looked.number(sort).unwrap_or(0);
        let key = if *sort == Field::Id { u64::MAX - number } else { number };
        let id = looked.c.id;
        self.keep(key, id, || row(looked));
    }

    fn keep(&mut self, key: u64, id: u64, row: impl FnOnce() -> R) {
        let id = Reverse(id);
        let is_full = self.rows.len() >= self.limit;
        if is_full && self.rows.peek().is_none_or(|Reverse(least)| (least.key, least.id) >= (key, id)) {
            return;
        }
        self.rows.push(Reverse(Kept { key, id, row: row() }));
        if is_full {
            self.rows.pop();
        }
    }

    /// The first one first.
    fn take(&mut self) -> impl DoubleEndedIterator<Item = R> {
        std::mem::take(&mut self.rows).into_sorted_vec().into_iter().map(|Reverse(kept)| kept.row)
    }
}

/// Matching tasks, a line each as in `where_all`, and a last line that counts them.
#[derive(Debug)]
pub(crate) struct Listing {
    selection: Selection,
    sort: Option<Field>,
    limit: usize,
    style: Style,
    first: bool,
    shown: usize,
    kept: Best<String>,
    /// What is left to be written of them, the last line first.
    sorted: Option<Vec<String>>,
    row: Lines,
}

/// Room for the parts of a line.
#[derive(Debug, Default)]
struct Lines {
    line: String,
    wait: String,
    stack: String,
}

impl Lines {
    /// The task as a line.
    fn write(&mut self, looked: &mut Looked<'_>, style: Style) {
        let Lines { line, wait, stack } = self;
        let c = looked.c;
        [&mut *line, wait, stack].into_iter().for_each(String::clear);
        c.wait_text(wait);
        looked.frames.write(c, stack);
        let (name, spawned_at) = (c.name(), c.site.map(Into::into));
        let row = Row { id: c.id, name, state: c.state(), age: c.age(), wait, stack, spawned_at };
        row.write(c.labels(), style, line);
        line.push('\n');
    }
}

impl Listing {
    pub(crate) fn new(question: Question, style: Style) -> Listing {
        let Question { clauses, sort, limit, .. } = question;
        let limit = match (&sort, limit) {
            (None, limit) => limit.unwrap_or(usize::MAX),
            (Some(_), limit) => limit.unwrap_or(KEPT).min(MOST_KEPT),
        };
        Listing {
            selection: Selection::new(clauses, true),
            sort,
            limit,
            style,
            first: true,
            shown: 0,
            kept: Best::new(limit),
            sorted: None,
            row: Lines::default(),
        }
    }

    /// Appends some more; false when the last line was written.
    pub(crate) fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if std::mem::take(&mut self.first) {
            advise(out);
        }
        if self.sorted.is_none() && self.walk(out) == Swept::More {
            return true;
        }
        if let Some(sorted) = &mut self.sorted {
            while let Some(line) = sorted.pop() {
                out.extend_from_slice(line.as_bytes());
                self.shown += 1;
                if out.len() >= PIECE_BYTES {
                    return true;
                }
            }
        }
        if self.shown > 0 {
            footer(out);
        }
        out.extend_from_slice(self.selection.summary(self.shown).as_bytes());
        false
    }

    fn walk(&mut self, out: &mut Vec<u8>) -> Swept {
        let Listing { selection, sort, limit, style, shown, kept, row, .. } = self;
        let sort = sort.as_ref();
        if sort.is_none() && *shown >= *limit {
            selection.without_stacks();
        }
        let swept = selection.piece(|looked| {
            let Some(sort) = sort else {
                if *shown < *limit {
                    *shown += 1;
                    row.write(looked, *style);
                    out.extend_from_slice(row.line.as_bytes());
                }
                let full = out.len() >= PIECE_BYTES || *shown == *limit;
                return if full && !out.is_empty() { Then::Pause } else { Then::GoOn };
            };
            kept.offer(looked, sort, |looked| {
                row.write(looked, *style);
                row.line.clone()
            });
            Then::GoOn
        });
        if swept == Swept::All && sort.is_some() {
            // The first line stands last, and is taken from there.
            self.sorted = Some(kept.take().rev().collect());
        }
        swept
    }
}

/// Tasks that have something in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) count: u64,
    /// The longest that one of them has been in its state, and which one.
    pub(crate) oldest: (Duration, u64),
    /// The time that all of them ran.
    pub(crate) run: Duration,
}

impl Group {
    fn add(&mut self, c: &Captured) {
        self.count += 1;
        self.oldest = self.oldest.max((c.age(), c.id));
        self.run += run_time(c);
    }
}

/// Matching tasks, put together.
#[derive(Debug)]
pub(crate) struct Groups {
    selection: Selection,
    by: Field,
    groups: HashMap<Box<str>, Group>,
    /// Those for whose group there was no more room.
    others: Group,
}

impl Groups {
    pub(crate) fn new(clauses: Vec<Clause>, by: Field) -> Groups {
        Groups { selection: Selection::new(clauses, false), by, groups: HashMap::new(), others: Group::default() }
    }

    /// Counts on; false when all are counted.
    pub(crate) fn more(&mut self) -> bool {
        let Groups { selection, by, groups, others } = self;
        let swept = selection.piece(|looked| {
            looked.group(by);
            let is_full = groups.len() >= MOST_GROUPS;
            match groups.get_mut(looked.text.as_str()) {
                Some(group) => group.add(looked.c),
                None if is_full => others.add(looked.c),
                None => groups.entry(looked.text.as_str().into()).or_default().add(looked.c),
            }
            Then::GoOn
        });
        swept == Swept::More
    }

    /// The largest first, among equals by their names.
    pub(crate) fn take(&mut self) -> Vec<(Box<str>, Group)> {
        let mut all: Vec<_> = std::mem::take(&mut self.groups).into_iter().collect();
        if self.others.count > 0 {
            all.push(("(other)".into(), self.others));
        }
        all.sort_by(|(a, x), (b, y)| y.count.cmp(&x.count).then_with(|| a.cmp(b)));
        all
    }

    /// The last line.
    pub(crate) fn summary(&self) -> String {
        self.selection.summary(usize::MAX)
    }
}

/// Matching tasks as values, without stacks.
#[cfg(feature = "serde")]
#[derive(Debug)]
pub(crate) struct Values {
    selection: Selection,
    places: Places,
    sort: Option<Field>,
    limit: usize,
    kept: Best<Task>,
    tasks: Vec<Task>,
}

#[cfg(feature = "serde")]
impl Values {
    pub(crate) fn new(question: Question) -> Values {
        let Question { clauses, sort, limit, .. } = question;
        let limit = limit.unwrap_or(MOST_KEPT).min(MOST_KEPT);
        let selection = Selection::new(clauses, false);
        Values { selection, places: Places::new(), sort, limit, kept: Best::new(limit), tasks: Vec::new() }
    }

    /// Looks on; false when all were looked at.
    pub(crate) fn more(&mut self) -> bool {
        let Values { selection, places, sort, limit, kept, tasks } = self;
        let swept = selection.piece(|looked| {
            let value = |looked: &mut Looked<'_>| collect::task(looked.c, places, looked.names, None, None);
            match sort {
                Some(sort) => kept.offer(looked, sort, value),
                None if tasks.len() < *limit => tasks.push(value(looked)),
                None => {}
            }
            Then::GoOn
        });
        swept == Swept::More
    }

    /// Those that come first; [`Values::matched`] may be more.
    pub(crate) fn take(&mut self) -> Vec<Task> {
        let mut tasks = std::mem::take(&mut self.tasks);
        tasks.extend(self.kept.take());
        tasks
    }

    /// How many fulfil the conditions.
    pub(crate) fn matched(&self) -> u64 {
        self.selection.matched.total()
    }
}

/// The tasks whose name or class matches.
#[derive(Debug)]
pub(crate) struct Matching {
    selection: Selection,
    most: usize,
    found: Vec<Brief>,
}

impl Matching {
    /// Keeps at most so many; counts all.
    pub(crate) fn new(pattern: &str, most: usize) -> Matching {
        let clause = Clause { field: Field::NameOrClass, test: Test::Is(Pattern::new(pattern)), not: false };
        Matching { selection: Selection::new(vec![clause], false), most, found: Vec::new() }
    }

    /// Looks on; false when all were looked at.
    pub(crate) fn more(&mut self) -> bool {
        let Matching { selection, most, found } = self;
        let swept = selection.piece(|looked| {
            if found.len() < *most {
                found.push(Brief::of(looked.c, looked.cell));
            }
            Then::GoOn
        });
        swept == Swept::More
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.selection.matched.total()
    }

    /// The first of them.
    pub(crate) fn take(&mut self) -> Vec<Brief> {
        std::mem::take(&mut self.found)
    }
}

/// A task without its stack.
#[derive(Debug, Clone)]
pub(crate) struct Brief {
    /// To act on it.
    pub(crate) task: scheduler::Task,
    /// Its line in every view, as far as it needs no stack and no labels.
    pub(crate) line: String,
    pub(crate) labels: Vec<(String, String)>,
}

impl Brief {
    fn of(c: &Captured, cell: &'static TaskCell) -> Brief {
        let (mut line, mut wait) = (String::new(), String::new());
        c.wait_text(&mut wait);
        let spawned_at = c.site.map(Into::into);
        let row = Row { id: c.id, name: c.name(), state: c.state(), age: c.age(), wait: &wait, stack: "", spawned_at };
        row.write(std::iter::empty(), Style::PLAIN, &mut line);
        let labels = c.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Brief { task: scheduler::task_in(cell, c.id), line, labels }
    }
}

/// One task that waits.
#[cfg(feature = "probe")]
#[derive(Debug)]
pub(crate) struct WaitNow {
    pub(crate) task: u64,
    pub(crate) age: Duration,
    /// The whole of it in words.
    pub(crate) text: String,
    /// The name and place of what it waits for; several where it waits for several.
    pub(crate) objects: Vec<(Option<&'static str>, Site)>,
}

/// Those who wait for something of a kind that is wanted, the longest first, as far as `most`; and how many more there are.
#[cfg(feature = "probe")]
pub(crate) fn who_waits(wanted: fn(WaitKind) -> bool, most: usize) -> (Vec<WaitNow>, u64) {
    let mut selection = Selection::new(Vec::new(), false);
    let (mut best, mut all) = (Best::new(most), 0);
    while selection.piece(|looked| {
        let c = &looked.c;
        if c.doing == Doing::Parked && wanted(c.wait.kind) {
            all += 1;
            let age = c.age();
            best.keep(age.as_nanos() as u64, c.id, || {
                let mut text = String::new();
                c.wait_text(&mut text);
                let chosen = c.waiting.choices.iter().flatten().filter_map(|(_, seen)| seen.as_ref());
                let seen = c.waiting.object.iter().chain(chosen);
                let objects = seen.map(|seen| (seen.name, seen.site.into())).collect();
                WaitNow { task: c.id, age, text, objects }
            });
        }
        Then::GoOn
    }) == Swept::More
    {}
    let found: Vec<WaitNow> = best.take().collect();
    let more = all - found.len() as u64;
    (found, more)
}

/// The task with that id; `None` if it has ended, or never was.
pub(crate) fn brief(id: u64) -> Option<Brief> {
    let mut c = Captured::new();
    c.wants_stack = false;
    let cell = cell_of(id)?;
    c.capture(cell, Some(id)).then(|| Brief::of(&c, cell))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_goes_first_and_among_equals_the_youngest() {
        for (limit, expected) in [(0, &[][..]), (1, &[4]), (3, &[4, 1, 2]), (9, &[4, 1, 2, 9])] {
            let mut best = Best::new(limit);
            let mut made = 0;
            for (key, id) in [(5, 1), (3, 2), (3, 9), (7, 4)] {
                best.keep(key, id, || {
                    made += 1;
                    id
                });
            }
            assert_eq!(best.take().collect::<Vec<u64>>(), expected);
            assert!(limit > 0 || made == 0, "nothing is made in vain");
        }
    }
}
