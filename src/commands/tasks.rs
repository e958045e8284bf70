//! Tasks by what is asked of them: `tasks FILTERS`, `count by FIELD` with the change since the last time, `label ID`.
//!
//! Invariant: of former answers only the last few are remembered, of each only its largest groups.

#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::question::{self, GROUPS};
use super::tables::LONGEST_NAME;
use super::text::{age, at_once, clean, count, counted, table};
use super::{Answer, Asked, Begun};
use crate::inspect::{self, Field, Group, Groups, Listing, Question};

/// Former answers, and groups of each, that are remembered.
const FORMER: usize = 16;
const FORMER_GROUPS: usize = 500;
/// Longer names are not remembered.
const FORMER_NAME: usize = 200;
/// Groups that are written out, unless somebody says how many.
const SHOWN: usize = 1000;
/// So long names of tasks are looked for.
const NAMES: Duration = Duration::from_millis(30);

/// `tasks [FILTERS]`
pub(super) fn tasks(asked: &Asked<'_>) -> Begun {
    let question = question::parse(asked.words)?;
    match question.by.clone() {
        None => Ok(Box::new(Listing::new(question, asked.style))),
        Some(by) => Ok(Box::new(Tally::new(question, by, None))),
    }
}

impl Answer for Listing {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        Listing::more(self, out)
    }
}

/// By what to count, and of which tasks: `by class state=parked`.
pub(super) fn counting(words: &[&str]) -> Result<(Field, Question), String> {
    let (by, filters) = match words {
        [] => ("class", &[][..]),
        ["by"] => return Err(format!("count by what? one of {}", GROUPS.join(", "))),
        ["by", field, filters @ ..] => (*field, filters),
        [first, filters @ ..] if first.starts_with("by=") => (&first[3..], filters),
        [first, ..] => {
            let by = question::group(first).map_or("class", |_| first);
            return Err(format!("count does not know \"{first}\": write count by {by}, and filters behind it"));
        }
    };
    let question = question::parse(filters)?;
    if question.by.is_some() || question.sort.is_some() {
        return Err("count takes one field, and its groups come by their size: count by class state=parked".into());
    }
    Ok((question::group(by)?, question))
}

/// `count [by FIELD [FILTERS]]`
pub(super) fn count_by(asked: &Asked<'_>) -> Begun {
    let (by, question) = counting(asked.words)?;
    let text = as_asked(asked.words);
    Ok(Box::new(Tally::new(question, by, Some(text))))
}

/// How the same question is known again.
pub(super) fn as_asked(words: &[&str]) -> String {
    match words {
        [] => "by class".to_owned(),
        words => words.join(" ").replacen("by=", "by ", 1),
    }
}

fn name_of(by: &Field) -> String {
    let name = match by {
        Field::Class => "class",
        Field::Site => "site",
        Field::Wait => "wait",
        Field::Peer => "peer",
        Field::Parent => "parent",
        Field::State => "state",
        Field::Worker => "worker",
        Field::Label(key) => return format!("label.{}", clean(key, LONGEST_NAME)),
        _ => "name",
    };
    name.to_owned()
}

/// A table of groups.
struct Tally {
    groups: Groups,
    by: Field,
    limit: usize,
    /// The question, if the answer is to be compared with the last one.
    remembered: Option<String>,
    table: Option<Box<dyn Answer>>,
}

impl Tally {
    fn new(question: Question, by: Field, remembered: Option<String>) -> Tally {
        let limit = question.limit.unwrap_or(SHOWN);
        let groups = Groups::new(question.clauses, by.clone());
        Tally { groups, by, limit, remembered, table: None }
    }

    fn table(&mut self) -> Box<dyn Answer> {
        let mut rows: Vec<Row> = self.groups.take().into_iter().map(Row::from).collect();
        let total = rows.len();
        let since = self.remembered.as_ref().and_then(|question| compare(question, &mut rows));
        let left_out = rows.len().saturating_sub(self.limit);
        rows.truncate(self.limit);
        let mut head = vec![name_of(&self.by), "tasks".to_owned()];
        head.extend(since.map(|_| "change".to_owned()));
        head.extend(["run time".to_owned(), "oldest".to_owned()]);
        let begun = Instant::now();
        let mut cells: Vec<Vec<String>> = if rows.is_empty() { Vec::new() } else { vec![head] };
        for row in &rows {
            let mut line = vec![row.shown(&self.by, begun), count(row.group.count)];
            line.extend(since.map(|_| row.change_text()));
            let (oldest, id) = row.group.oldest;
            let is_gone = row.group.count == 0;
            line.push(if is_gone { String::new() } else { age(row.group.run) });
            line.push(if is_gone { String::new() } else { format!("{} #{id}", age(oldest)) });
            cells.push(line);
        }
        let mut last = String::new();
        if left_out > 0 {
            let _ = writeln!(last, "and {}", counted(left_out as u64, "smaller group", "smaller groups"));
        }
        last += self.groups.summary().trim_end();
        let _ = write!(last, "; {}", counted(total as u64, "group", "groups"));
        if let Some(since) = since {
            let _ = write!(last, "; changes since {} ago", age(since));
        }
        last.push('\n');
        Box::new(Chain { first: Some(table("", cells)), last })
    }
}

impl Answer for Tally {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if self.table.is_none() {
            if self.groups.more() {
                return true;
            }
            self.table = Some(self.table());
        }
        self.table.as_mut().is_some_and(|table| table.more(out))
    }
}

/// An answer and a last line.
struct Chain {
    first: Option<Box<dyn Answer>>,
    last: String,
}

impl Answer for Chain {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(first) = &mut self.first {
            if first.more(out) {
                return true;
            }
            self.first = None;
        }
        out.extend_from_slice(self.last.as_bytes());
        false
    }
}

/// One group of an answer.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) key: Box<str>,
    pub(super) group: Group,
    /// Against the last time, if that is known.
    pub(super) change: Option<i64>,
}

impl From<(Box<str>, Group)> for Row {
    fn from((key, group): (Box<str>, Group)) -> Row {
        Row { key, group, change: None }
    }
}

impl Row {
    /// The group's name; a parent's own name with it, while there is time to look for it.
    fn shown(&self, by: &Field, begun: Instant) -> String {
        let mut shown = clean(&self.key, LONGEST_NAME);
        if *by == Field::Parent
            && begun.elapsed() < NAMES
            && let Some(name) = question::id(&self.key).and_then(inspect::name_of)
        {
            let _ = write!(shown, " \"{}\"", clean(&name, LONGEST_NAME));
        }
        shown
    }

    fn change_text(&self) -> String {
        match self.change {
            None => "?".to_owned(),
            Some(0) => "=".to_owned(),
            Some(more @ 1..) => format!("+{}", count(more.unsigned_abs())),
            Some(less) => format!("-{}", count(less.unsigned_abs())),
        }
    }
}

/// One former answer.
#[derive(Debug)]
struct Former {
    question: String,
    at: Instant,
    counts: HashMap<Box<str>, u64>,
    /// Every group is there.
    is_whole: bool,
}

/// Former answers, the last one at the end.
#[derive(Debug)]
struct Memory(VecDeque<Former>);

static MEMORY: Mutex<Memory> = Mutex::new(Memory(VecDeque::new()));

/// Compares with the last answer to the same question, on whatever session, and takes its place. How long ago that was.
pub(super) fn compare(question: &str, rows: &mut Vec<Row>) -> Option<Duration> {
    let mut memory = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    memory.compare(question, rows, Instant::now())
}

impl Memory {
    fn compare(&mut self, question: &str, rows: &mut Vec<Row>, now: Instant) -> Option<Duration> {
        let place = self.0.iter().position(|former| former.question == question);
        let former = place.and_then(|place| self.0.remove(place));
        let kept: Vec<&Row> = rows.iter().filter(|row| row.key.len() <= FORMER_NAME).take(FORMER_GROUPS).collect();
        let next = Former {
            question: question.to_owned(),
            at: now,
            is_whole: kept.len() == rows.len(),
            counts: kept.into_iter().map(|row| (row.key.clone(), row.group.count)).collect(),
        };
        if self.0.len() == FORMER {
            self.0.pop_front();
        }
        self.0.push_back(next);
        let mut former = former?;
        for row in rows.iter_mut() {
            let then = former.counts.remove(&row.key).or(former.is_whole.then_some(0));
            row.change = then.map(|then| row.group.count.cast_signed().wrapping_sub(then.cast_signed()));
        }
        let mut gone: Vec<(Box<str>, u64)> = former.counts.into_iter().filter(|(_, count)| *count > 0).collect();
        gone.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
        rows.extend(gone.into_iter().map(|(key, count)| Row {
            key,
            group: Group::default(),
            change: Some(-count.cast_signed()),
        }));
        Some(now.saturating_duration_since(former.at))
    }
}

/// `label ID`
pub(super) fn label(words: &[&str]) -> Begun {
    let [word] = words else { return Err("label takes one task's id: label 17; tasks shows the ids".into()) };
    let id = question::id(word)
        .ok_or_else(|| format!("\"{word}\" is not a task's id: write label 17 or label #17; tasks shows the ids"))?;
    let Some(task) = inspect::brief(id) else {
        return Err(format!("no task #{id}: it has ended, or never was; tasks lists those that are"));
    };
    let mut text = format!("{}\n", task.line);
    for (key, value) in &task.labels {
        let _ = writeln!(text, "  {}={}", clean(key, LONGEST_NAME), clean(value, 256));
    }
    if task.labels.is_empty() {
        text.push_str("  no labels; coro::set_label in the task gives it one\n");
    }
    Ok(at_once(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(counts: &[(&str, u64)]) -> Vec<Row> {
        let group = |count| Group { count, ..Group::default() };
        counts.iter().map(|(key, count)| Row::from(((*key).into(), group(*count)))).collect()
    }

    fn changes(rows: &[Row]) -> Vec<(String, String)> {
        rows.iter().map(|row| (row.key.to_string(), row.change_text())).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn what_has_changed_since_the_last_time() {
        let (mut memory, start) = (Memory(VecDeque::new()), Instant::now());
        let mut first = rows(&[("echo", 12), ("gone", 2), ("same", 1)]);
        assert_eq!(memory.compare("by class", &mut first, start), None);
        let later = start + Duration::from_secs(2);
        let mut other = rows(&[("x", 1)]);
        assert_eq!(memory.compare("by wait", &mut other, later), None);
        let mut second = rows(&[("echo", 1015), ("new", 3), ("same", 1)]);
        assert_eq!(memory.compare("by class", &mut second, later), Some(Duration::from_secs(2)));
        let expected = [("echo", "+1,003"), ("new", "+3"), ("same", "="), ("gone", "-2")];
        assert_eq!(changes(&second), pairs(&expected));
        // What is gone has gone once.
        let mut third = rows(&[("echo", 1015)]);
        memory.compare("by class", &mut third, later);
        assert_eq!(changes(&third), pairs(&[("echo", "="), ("new", "-3"), ("same", "-1")]));
    }

    #[test]
    fn little_is_remembered() {
        let mut memory = Memory(VecDeque::new());
        for i in 0..10 * FORMER {
            memory.compare(&format!("by class id={i}"), &mut rows(&[("x", 1)]), Instant::now());
        }
        assert_eq!(memory.0.len(), FORMER);
        let many: Vec<Row> = (0..10_000).map(|i| Row::from((format!("{i}").into(), Group::default()))).collect();
        memory.compare("by name", &mut many.clone(), Instant::now());
        assert_eq!((memory.0.len(), memory.0.back().map(|f| f.counts.len())), (FORMER, Some(FORMER_GROUPS)));
        let mut again = rows(&[("0", 5), ("9999", 5)]);
        memory.compare("by name", &mut again, Instant::now());
        // Of the second nothing is known: it may have been among those that were not kept.
        assert_eq!(changes(&again)[..2], pairs(&[("0", "+5"), ("9999", "?")]));
    }

    #[test]
    fn questions_are_known_again_and_nonsense_is_not_counted() {
        assert_eq!((as_asked(&[]), as_asked(&["by=site"])), ("by class".into(), "by site".into()));
        assert_eq!(counting(&[]).expect("a default").0, Field::Class);
        let (by, question) = counting(&["by", "wait", "state=parked"]).expect("a question");
        assert_eq!((by, question.clauses.len()), (Field::Wait, 1));
        let error = |words: &[&str]| counting(words).expect_err("nonsense");
        assert!(error(&["by"]).starts_with("count by what? one of class, "));
        assert_eq!(error(&["site"]), "count does not know \"site\": write count by site, and filters behind it");
        assert!(error(&["by", "sites"]).contains("nearest is by=site"));
        assert!(error(&["by", "site", "sort=age"]).starts_with("count takes one field"));
        assert!(error(&["by", "site", "stat=x"]).contains("nearest is state"));
    }
}
