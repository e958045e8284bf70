//! `probe`: what is watched while the program runs.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::elsewhere::elsewhere;
use super::text::{at_once, clean};
use super::{Answer, Asked, Begun, Tier, question};
use crate::probe::view::{self, Wanted};

/// What a probe gets at the console where nothing else is said: nobody stays for ever by mistake.
const USUAL: Duration = Duration::from_secs(600);

const USAGE: &str = "probe list [PATTERN] | attach PATTERN INSTRUMENT… [if EXPRESSION] [for DURATION] [hits N] [every N] [rate N] | \
                     show [ID] | apply PATH|patch:NAME | detach ID|all | release ID [#TASK] [returning TEXT|failing TEXT]";

/// Looking is free, watching is not.
pub(super) fn tier(words: &[&str]) -> Tier {
    match words {
        [] | ["list" | "show", ..] => Tier::Read,
        // Who makes a function return something else acts on the program.
        ["release", rest @ ..] if rest.iter().any(|word| matches!(*word, "returning" | "failing")) => Tier::Act,
        _ => Tier::Probe,
    }
}

pub(super) fn probe(asked: &Asked<'_>) -> Begun {
    match asked.words {
        [] => Err(format!("probe wants one of: {USAGE}")),
        ["list"] => view::points(None).map(lines),
        ["list", pattern] => view::points(Some(pattern)).map(lines),
        ["list", _, more, ..] => Err(format!("probe list takes one pattern, not \"{more}\" as well")),
        ["show"] => Ok(lines(or_say(view::probes(), "no probe is attached; probe attach PATTERN log attaches one"))),
        ["show", id] => {
            let id = number(id)?;
            elsewhere(format!("the report of probe {id}"), move |_| view::one(id))
        }
        ["show", _, more, ..] => Err(format!("probe show takes one probe's number, not \"{more}\" as well")),
        ["attach", ..] => {
            let typed = asked.by.typed.trim_start().strip_prefix("attach").unwrap_or_default();
            let (wanted, home) = (wanted(typed)?, asked.by.probes.map(|probes| probes.home()));
            elsewhere("probe attach", move |still| view::attach(&wanted, home.as_ref(), still).map(|said| vec![said]))
        }
        ["apply", what] => {
            let (said, what) = (format!("probe apply {what}"), what.to_string());
            elsewhere(said, move |still| view::apply(&what, still))
        }
        ["apply", ..] => Err("probe apply takes one file or directory of specs, or patch:NAME".to_owned()),
        ["release", id, ..] => {
            let typed =
                asked.by.typed.trim_start().strip_prefix("release").map(|typed| typed.trim_start_matches(between));
            let rest = typed.and_then(|typed| typed.strip_prefix(id));
            let rest = rest.ok_or("probe release takes a probe's number as it is, without quotes")?;
            release(number(id)?, rest).map(|said| lines(vec![said]))
        }
        ["release"] => Err("probe release takes a probe's number; probe show lists who stands at which".to_owned()),
        ["detach", "all"] => Ok(lines(vec![view::detach_all()])),
        ["detach", id] => view::detach(number(id)?).map(|said| lines(vec![said])),
        ["detach", ..] => Err("probe detach takes one probe's number, or all".to_owned()),
        [other, ..] => Err(format!("probe knows no \"{other}\"; there is {USAGE}")),
    }
}

/// What may stand between words; commas come from the form `probe(release, 3, #17)`.
fn between(c: char) -> bool {
    c.is_whitespace() || c == ','
}

/// The first word of a text, and what comes after it.
fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches(between);
    let (word, after) = text.split_at(text.find(between).unwrap_or(text.len()));
    (word, after.trim_start_matches(between))
}

/// `#17 failing the bank is closed`.
fn release(probe: u64, rest: &str) -> Result<String, String> {
    let (task, answer) = task_and_answer(rest)?;
    view::release(probe, task, answer)
}

/// Of whom, if not of all, and what they are to return.
type TaskAndAnswer<'a> = (Option<u64>, Option<Result<&'a str, &'a str>>);

fn task_and_answer(rest: &str) -> Result<TaskAndAnswer<'_>, String> {
    let (first, after) = first_word(rest);
    let (task, rest) = match question::id(first) {
        Some(task) => (Some(task), after),
        None => (None, rest),
    };
    let (word, text) = first_word(rest);
    let answer = match word {
        "" => None,
        "returning" => Some(Ok(text.trim())),
        "failing" => Some(Err(text.trim())),
        other => return Err(format!("probe release knows no \"{other}\", only returning TEXT and failing TEXT")),
    };
    Ok((task, answer))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("\"{word}\" is not a probe's number; probe show lists them"))
}

fn or_say(lines: Vec<String>, otherwise: &str) -> Vec<String> {
    if lines.is_empty() { vec![otherwise.to_owned()] } else { lines }
}

/// Names are the program's, and so may be what probes have found.
const LONGEST_LINE: usize = 2000;

fn lines(lines: Vec<String>) -> Box<dyn Answer> {
    let lines = lines.iter().flat_map(|line| line.lines()).map(|line| clean(line, LONGEST_LINE) + "\n");
    at_once(lines.collect())
}

/// `app::cache::* log hist if key != "a" for 10s hits 100`.
fn wanted(typed: &str) -> Result<Wanted, String> {
    let mut wanted = Wanted { lifespan: Some(USUAL), ..Wanted::default() };
    // Commas come from the form `probe(attach, app::*, log)`.
    let typed = typed.trim_start_matches(|c: char| c.is_whitespace() || c == ',').trim_end();
    let (pattern, rest) = typed.split_once(char::is_whitespace).unwrap_or((typed, ""));
    let pattern = pattern.trim_end_matches(',');
    if pattern.is_empty() {
        return Err("probe attach wants a pattern of points and an instrument: probe attach app::* log; probe list shows points".into());
    }
    wanted.pattern = pattern.to_owned();
    let mut rest = rest.trim();
    // From the end, where limits are, so that a condition may have any words in it.
    loop {
        if let Some(before) = rest.strip_suffix("later").filter(|before| before.is_empty() || before.ends_with(' ')) {
            wanted.later = true;
            rest = before.trim_end();
            continue;
        }
        let Some((before, value)) = rest.rsplit_once(char::is_whitespace) else { break };
        let (before, word) = before.trim_end().rsplit_once(char::is_whitespace).unwrap_or(("", before.trim_end()));
        let whole = || -> Result<u64, String> {
            value
                .parse()
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| format!("{word} wants a whole number above 0, and \"{value}\" is none"))
        };
        match word {
            "for" => wanted.lifespan = Some(question::duration(value)?),
            "hits" => wanted.hits = Some(whole()?),
            "every" => wanted.every = Some(whole()?),
            "rate" => wanted.per_second = Some(u32::try_from(whole()?).unwrap_or(u32::MAX)),
            _ => break,
        }
        rest = before.trim_end();
    }
    let padded = format!(" {rest}");
    if let Some((before, condition)) = padded.split_once(" if ") {
        wanted.condition = Some(condition.trim().to_owned());
        wanted.instruments = before.trim().to_owned();
    } else {
        wanted.instruments = rest.to_owned();
    }
    if wanted.instruments.is_empty() {
        return Err(
            "probe attach wants an instrument behind the pattern: log, count, hist, rate, stack, top(ARG) or hot"
                .into(),
        );
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_and_with_what_is_read_with_commas_and_without() {
        for (rest, expected) in [
            ("", (None, None)),
            (" #17", (Some(17), None)),
            (" #17 failing the bank, it is closed ", (Some(17), Some(Err("the bank, it is closed")))),
            (", #17, failing, text", (Some(17), Some(Err("text")))),
            (", returning, Some(3, 4)", (None, Some(Ok("Some(3, 4)")))),
            (" returning", (None, Some(Ok("")))),
        ] {
            assert_eq!(task_and_answer(rest), Ok(expected), "{rest}");
        }
        assert!(task_and_answer(", slowly").unwrap_err().starts_with("probe release knows no \"slowly\""));
    }

    #[test]
    fn what_is_wanted_is_read_from_both_ends() {
        let found =
            wanted(" app::* log top(key) if key == \"for 3\" && n > 1 for 10s hits 5 every 2 rate 100").unwrap();
        let expected = Wanted {
            pattern: "app::*".into(),
            instruments: "log top(key)".into(),
            condition: Some("key == \"for 3\" && n > 1".into()),
            lifespan: Some(Duration::from_secs(10)),
            hits: Some(5),
            every: Some(2),
            per_second: Some(100),
            later: false,
        };
        assert_eq!(found, expected);
        let plain = wanted("get rate later").unwrap();
        assert_eq!((plain.instruments.as_str(), plain.later, plain.lifespan), ("rate", true, Some(USUAL)));
        assert_eq!(wanted("get count").unwrap().instruments, "count");
        assert!(wanted("").unwrap_err().contains("wants a pattern"));
        assert!(wanted("get").unwrap_err().contains("wants an instrument"));
        assert!(wanted("get log for ever").unwrap_err().contains("no duration"));
        assert!(wanted("get log hits many").unwrap_err().contains("whole number"));
    }
}
