//! Questions about tasks as people write them: `state=parked wait=lock age>5s by=site limit=20`.
//!
//! A word is a field, a sign and a value without blanks between them; a value with blanks stands in quotes. Whatever
//! cannot be understood is named, with what is nearest to it and an example.
//!
//! Must not know: how tasks are looked at.

#![forbid(unsafe_code)]

use std::cmp::Ordering::{Equal, Greater, Less};

use super::text::nearest_of;
use crate::inspect::{Clause, Field, Pattern, Question, Test};
use crate::observe::WaitKind;
pub(super) use crate::value::duration;

/// What can be said of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Time,
    State,
    Wait,
    /// Not of a task, but of the answer.
    Control,
}

/// Every field: its name, what it is, an example.
const FIELDS: &[(&str, Kind, &str)] = &[
    ("state", Kind::State, "state=parked"),
    ("wait", Kind::Wait, "wait=lock"),
    ("age", Kind::Time, "age>5s"),
    ("name", Kind::Text, "name~writer"),
    ("class", Kind::Text, "class=echo*"),
    ("site", Kind::Text, "site~main.rs"),
    ("peer", Kind::Text, "peer~10.0.0.7"),
    ("stack", Kind::Text, "stack~fetch"),
    ("label.KEY", Kind::Text, "label.req=4711"),
    ("id", Kind::Number, "id>1000"),
    ("parent", Kind::Number, "parent=17"),
    ("worker", Kind::Number, "worker=0"),
    ("slices", Kind::Number, "slices>1000"),
    ("run", Kind::Time, "run>1s"),
    ("longest", Kind::Time, "longest>200ms"),
    ("delay", Kind::Time, "delay>10ms"),
    ("by", Kind::Control, "by=site"),
    ("sort", Kind::Control, "sort=age"),
    ("limit", Kind::Control, "limit=20"),
];

const STATES: &[&str] = &["parked", "runnable", "running", "unstarted"];

/// What tasks can be put together by.
pub(super) const GROUPS: &[&str] = &["class", "site", "wait", "peer", "parent", "state", "worker", "name", "label.KEY"];

const ORDERS: &[&str] = &["age", "run", "slices", "longest", "delay", "id"];

/// The most lines that anybody may ask for.
const MOST: usize = 1_000_000_000;

/// The longer ones first.
const SIGNS: &[&str] = &["!=", "!~", "<=", ">=", "==", "=", "~", "<", ">"];

/// The question that these words ask.
pub(super) fn parse(words: &[&str]) -> Result<Question, String> {
    let mut question = Question::default();
    for word in joined(words)? {
        let (name, sign, value) = taken_apart(&word)?;
        if name.is_empty() {
            return Err(format!("\"{word}\" has no field before its sign, as in state=parked"));
        }
        let (_, kind, example) = field(name)?;
        if value.is_empty() {
            return Err(format!("{name}{sign} wants a value, as in {example}"));
        }
        if kind != Kind::Control {
            question.clauses.push(clause(name, kind, sign, value, example)?);
            continue;
        }
        if !matches!(sign, "=" | "==") {
            return Err(format!("{name} takes = alone, as in {example}"));
        }
        let twice = match name {
            "by" => question.by.replace(group(value)?).is_some(),
            "sort" => question.sort.replace(order(value)?).is_some(),
            _ => question.limit.replace(limit(value)?).is_some(),
        };
        if twice {
            return Err(format!("{name} stands there twice; leave one of them out"));
        }
    }
    if question.by.is_some() && question.sort.is_some() {
        return Err("groups come by their size, so sort is of no use with by; leave one of them out".into());
    }
    Ok(question)
}

/// Words whose quotes were torn apart at blanks, put together again.
pub(super) fn joined(words: &[&str]) -> Result<Vec<String>, String> {
    let mut all: Vec<String> = Vec::new();
    let mut is_open = false;
    for word in words {
        match all.last_mut().filter(|_| is_open) {
            Some(last) => {
                last.push(' ');
                last.push_str(word);
            }
            None => all.push((*word).to_owned()),
        }
        is_open ^= word.matches('"').count() % 2 == 1;
    }
    match all.last().filter(|_| is_open) {
        Some(last) => Err(format!("a quote is not closed in {last}; write for instance name~\"db writer\"")),
        None => Ok(all),
    }
}

/// A value without its quotes.
pub(super) fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

fn taken_apart(word: &str) -> Result<(&str, &'static str, &str), String> {
    let found = word.find(['=', '!', '~', '<', '>']).and_then(|at| {
        let sign = SIGNS.iter().find(|sign| word[at..].starts_with(**sign))?;
        Some((&word[..at], *sign, unquoted(&word[at + sign.len()..])))
    });
    found.ok_or_else(|| {
        let advice = if STATES.contains(&word) {
            format!("write state={word}")
        } else if wait_word(word).is_some() {
            format!("write wait={word}")
        } else {
            match field(word) {
                Ok((_, _, example)) => format!("it wants a sign and a value, as in {example}"),
                Err(_) => "write a field, a sign and a value without blanks, as in state=parked or age>5s".to_owned(),
            }
        };
        format!("\"{word}\" is no filter: {advice}")
    })
}

fn field(name: &str) -> Result<(&'static str, Kind, &'static str), String> {
    let is_label = name.strip_prefix("label.").is_some_and(|key| !key.is_empty());
    let wanted = if is_label { "label.KEY" } else { name };
    FIELDS.iter().find(|(field, ..)| *field == wanted).copied().ok_or_else(|| {
        let nearest = nearest_of(name, FIELDS.iter().map(|(field, ..)| *field)).unwrap_or("state");
        let example = FIELDS.iter().find(|(field, ..)| *field == nearest).map_or("", |(.., example)| example);
        format!("no filter is called \"{name}\"; the nearest is {nearest}, as in {example}")
    })
}

fn clause(name: &str, kind: Kind, sign: &str, value: &str, example: &str) -> Result<Clause, String> {
    let (sign, not) = match sign {
        "!=" => ("=", true),
        "!~" => ("~", true),
        "==" => ("=", false),
        sign => (sign, false),
    };
    let wrong = |signs: &str| format!("{name} takes {signs}, as in {example}");
    let contains = || Test::Contains(value.to_ascii_lowercase().into());
    let (field, test) = match (kind, sign) {
        (Kind::State, "=") => (Field::State, Test::Is(Pattern::new(state(value)?))),
        (Kind::State, _) => return Err(wrong("= or !=")),
        (Kind::Wait, "=") => (Field::Wait, Test::Is(Pattern::new(wait(value)?))),
        (Kind::Wait, "~") => (Field::WaitText, contains()),
        (Kind::Wait, _) => return Err(wrong("=, !=, ~ or !~")),
        (Kind::Text, "=") => (plain(name), Test::Is(Pattern::new(value))),
        (Kind::Text, "~") => (plain(name), contains()),
        (Kind::Text, _) => return Err(wrong("=, !=, ~ or !~")),
        (Kind::Number, "~") => return Err(wrong("=, !=, <, >, <= or >=")),
        (Kind::Number, sign) => (plain(name), Test::Compares(orders(sign), number(value, name, example)?)),
        // No task is in its state for just five seconds.
        (_, "=" | "~") => return Err(wrong("<, >, <= or >=")),
        (_, sign) => {
            let time = u64::try_from(duration(value)?.as_nanos()).unwrap_or(u64::MAX);
            (plain(name), Test::Compares(orders(sign), time))
        }
    };
    Ok(Clause { field, test, not })
}

fn orders(sign: &str) -> &'static [std::cmp::Ordering] {
    match sign {
        "<" => &[Less],
        ">" => &[Greater],
        "<=" => &[Less, Equal],
        ">=" => &[Greater, Equal],
        _ => &[Equal],
    }
}

/// A field of those that are called as the task's part is.
fn plain(name: &str) -> Field {
    match name {
        "name" => Field::Name,
        "class" => Field::Class,
        "state" => Field::State,
        "wait" => Field::Wait,
        "site" => Field::Site,
        "peer" => Field::Peer,
        "stack" => Field::Stack,
        "parent" => Field::Parent,
        "worker" => Field::Worker,
        "slices" => Field::Slices,
        "age" => Field::Age,
        "run" => Field::Run,
        "longest" => Field::Longest,
        "delay" => Field::Delay,
        name => match name.strip_prefix("label.") {
            Some(key) => Field::Label(key.into()),
            None => Field::Id,
        },
    }
}

fn state(value: &str) -> Result<&'static str, String> {
    STATES.iter().find(|state| **state == value).copied().ok_or_else(|| {
        let nearest = nearest_of(value, STATES.iter().copied()).unwrap_or("parked");
        format!("no task is ever \"{value}\"; the nearest is state={nearest}, of {}", STATES.join(", "))
    })
}

/// As it is written in one word: `read_lock`.
fn one_word(word: &str) -> String {
    word.replace([' ', '-'], "_")
}

fn wait_word(value: &str) -> Option<&'static str> {
    WaitKind::all_words().find(|word| one_word(word) == one_word(value))
}

fn wait(value: &str) -> Result<&'static str, String> {
    wait_word(value).ok_or_else(|| {
        let all: Vec<String> = WaitKind::all_words().map(one_word).collect();
        let nearest = nearest_of(&one_word(value), all.iter().map(String::as_str)).unwrap_or("lock");
        format!("nobody ever waits for \"{value}\"; the nearest is wait={nearest}; to search in the whole text: wait~{value}")
    })
}

/// A number, also with the mark of an id: `17`, `#17`.
pub(super) fn id(value: &str) -> Option<u64> {
    let digits = value.strip_prefix('#').unwrap_or(value);
    // `parse` alone would take "+17".
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn number(value: &str, name: &str, example: &str) -> Result<u64, String> {
    id(value).ok_or_else(|| format!("{name} wants a number, and \"{value}\" is none; write for instance {example}"))
}

fn limit(value: &str) -> Result<usize, String> {
    let number = id(value).and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=MOST).contains(n));
    number.ok_or_else(|| {
        format!("limit wants a number from 1 to {MOST}, and \"{value}\" is none; write for instance limit=20")
    })
}

/// What tasks are put together by.
pub(super) fn group(value: &str) -> Result<Field, String> {
    let is_label = value.strip_prefix("label.").is_some_and(|key| !key.is_empty() && key != "KEY");
    if is_label || value != "label.KEY" && GROUPS.contains(&value) {
        return Ok(plain(value));
    }
    let nearest = nearest_of(value, GROUPS.iter().copied()).unwrap_or("class");
    Err(format!("tasks cannot be put together by \"{value}\"; the nearest is by={nearest}, of {}", GROUPS.join(", ")))
}

fn order(value: &str) -> Result<Field, String> {
    if ORDERS.contains(&value) {
        return Ok(plain(value));
    }
    let nearest = nearest_of(value, ORDERS.iter().copied()).unwrap_or("age");
    Err(format!("tasks cannot be sorted by \"{value}\"; the nearest is sort={nearest}, of {}", ORDERS.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &str) -> Result<Question, String> {
        parse(&line.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>())
    }

    fn one(line: &str) -> Clause {
        let mut question = ask(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(question.clauses.len(), 1, "{line}");
        question.clauses.remove(0)
    }

    fn is(field: Field, pattern: &str) -> Clause {
        Clause { field, test: Test::Is(Pattern::new(pattern)), not: false }
    }

    #[test]
    fn a_whole_question() {
        let question = ask("state=parked wait=lock age>5s limit=20 by=site").expect("a question");
        let age = Clause { field: Field::Age, test: Test::Compares(&[Greater], 5_000_000_000), not: false };
        assert_eq!(question.clauses, [is(Field::State, "parked"), is(Field::Wait, "lock"), age]);
        assert_eq!((question.by, question.sort, question.limit), (Some(Field::Site), None, Some(20)));
        assert_eq!(ask("").expect("everything"), Question::default());
    }

    #[test]
    fn every_example_is_understood() {
        for (name, _, example) in FIELDS {
            let question = ask(example).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_ne!(question, Question::default(), "{example}");
        }
        for by in GROUPS.iter().filter(|by| **by != "label.KEY") {
            assert!(ask(&format!("by={by}")).is_ok(), "{by}");
        }
        for sort in ORDERS {
            assert!(ask(&format!("sort={sort}")).is_ok(), "{sort}");
        }
        assert_eq!(ask("by=label.req").expect("a label").by, Some(Field::Label("req".into())));
    }

    #[test]
    fn every_sign() {
        let compares = |line: &str| match one(line) {
            Clause { test: Test::Compares(orders, 7), not, .. } => (orders, not),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(compares("id=7"), (&[Equal][..], false));
        assert_eq!(compares("id==#7"), (&[Equal][..], false));
        assert_eq!(compares("parent!=#7"), (&[Equal][..], true));
        assert_eq!(compares("slices<7"), (&[Less][..], false));
        assert_eq!(compares("slices>7"), (&[Greater][..], false));
        assert_eq!(compares("worker<=7"), (&[Less, Equal][..], false));
        assert_eq!(compares("worker>=7"), (&[Greater, Equal][..], false));
        let contains = |field, part: &str, not| Clause { field, test: Test::Contains(part.into()), not };
        assert_eq!(one("name~Writer"), contains(Field::Name, "writer", false));
        assert_eq!(one("wait!~#17"), contains(Field::WaitText, "#17", true));
        assert_eq!(one("class!=a*b"), Clause { not: true, ..is(Field::Class, "a*b") });
        assert_eq!(one("label.req=a=b"), is(Field::Label("req".into()), "a=b"));
        assert_eq!(one("stack~<T>"), contains(Field::Stack, "<t>", false));
    }

    #[test]
    fn kinds_of_waits_in_one_word() {
        for word in ["read_lock", "read-lock", "\"read lock\""] {
            assert_eq!(one(&format!("wait={word}")), is(Field::Wait, "read lock"), "{word}");
        }
        assert_eq!(one("wait=event_loop"), is(Field::Wait, "event_loop"));
    }

    #[test]
    fn a_value_with_blanks_stands_in_quotes() {
        assert_eq!(one("name=\"db writer\""), is(Field::Name, "db writer"));
        assert_eq!(ask("name=\"a b c\" state=parked").expect("two").clauses.len(), 2);
        let error = ask("name=\"db writer state=parked").expect_err("open");
        assert_eq!(
            error,
            "a quote is not closed in name=\"db writer state=parked; write for instance name~\"db writer\""
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_the_nearest_and_an_example() {
        let errors = [
            ("stat=parked", "no filter is called \"stat\"; the nearest is state, as in state=parked"),
            ("labl.x=1", "no filter is called \"labl.x\"; the nearest is label.KEY, as in label.req=4711"),
            ("label.=1", "no filter is called \"label.\"; the nearest is label.KEY, as in label.req=4711"),
            ("=x", "\"=x\" has no field before its sign, as in state=parked"),
            ("parked", "\"parked\" is no filter: write state=parked"),
            ("lock", "\"lock\" is no filter: write wait=lock"),
            ("age", "\"age\" is no filter: it wants a sign and a value, as in age>5s"),
            (
                "age!5s",
                "\"age!5s\" is no filter: write a field, a sign and a value without blanks, as in state=parked or age>5s",
            ),
            (
                "what",
                "\"what\" is no filter: write a field, a sign and a value without blanks, as in state=parked or age>5s",
            ),
            ("state=", "state= wants a value, as in state=parked"),
            ("name~\"\"", "name~ wants a value, as in name~writer"),
            (
                "state=park",
                "no task is ever \"park\"; the nearest is state=parked, of parked, runnable, running, unstarted",
            ),
            ("state~parked", "state takes = or !=, as in state=parked"),
            (
                "wait=locks",
                "nobody ever waits for \"locks\"; the nearest is wait=lock; to search in the whole text: wait~locks",
            ),
            ("wait>lock", "wait takes =, !=, ~ or !~, as in wait=lock"),
            ("name<x", "name takes =, !=, ~ or !~, as in name~writer"),
            ("worker~1", "worker takes =, !=, <, >, <= or >=, as in worker=0"),
            ("worker=one", "worker wants a number, and \"one\" is none; write for instance worker=0"),
            ("id=+7", "id wants a number, and \"+7\" is none; write for instance id>1000"),
            ("age=5s", "age takes <, >, <= or >=, as in age>5s"),
            ("age!=5s", "age takes <, >, <= or >=, as in age>5s"),
            ("run~5s", "run takes <, >, <= or >=, as in run>1s"),
            ("age>5", "\"5\" is no duration; write for instance 5s, 200ms, 10us or 1h"),
            ("by>site", "by takes = alone, as in by=site"),
            (
                "by=sites",
                "tasks cannot be put together by \"sites\"; the nearest is by=site, of class, site, wait, peer, parent, \
                 state, worker, name, label.KEY",
            ),
            (
                "sort=name",
                "tasks cannot be sorted by \"name\"; the nearest is sort=age, of age, run, slices, longest, delay, id",
            ),
            ("limit=0", "limit wants a number from 1 to 1000000000, and \"0\" is none; write for instance limit=20"),
            (
                "limit=many",
                "limit wants a number from 1 to 1000000000, and \"many\" is none; write for instance limit=20",
            ),
            ("limit=1 limit=2", "limit stands there twice; leave one of them out"),
            ("by=site sort=age", "groups come by their size, so sort is of no use with by; leave one of them out"),
        ];
        for (line, error) in errors {
            assert_eq!(ask(line).expect_err(line), error, "{line}");
        }
    }
}
