//! What changes the program: `cancel`, `memory trim`, `process-exit`. Who asks has been allowed to, and it has been recorded.
//!
//! Invariants: each says what it did; a number or a name that does not fit exactly changes nothing.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::question;
use super::text::{age, at_once, bytes, count, counted, rows};
use super::{Answer, Begun, Tier, When};
use crate::inspect::{self, Brief, Census, Matching};
use crate::scheduler::shared::Shared;
use crate::scheduler::{CancelOutcome, runtime};
use crate::sys::{stderr, usage};

/// So many are cancelled by one command.
const MOST: u64 = 10_000;
/// How long workers have to give their stacks back before it is said which have not.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long the process's exit waits for what is still to be written to standard error.
const FLUSH: Duration = Duration::from_millis(500);

/// `cancel ID…`, `cancel --match PATTERN --count N`
pub(super) fn cancel(words: &[&str]) -> Begun {
    if words.is_empty() {
        return Err(
            "cancel takes ids, or --match PATTERN --count N: cancel 17 18, cancel --match \"echo*\" --count 3".into()
        );
    }
    if words.iter().any(|word| word.starts_with("--")) {
        return cancel_matching(words);
    }
    let id = |word: &&str| {
        question::id(word).ok_or_else(|| {
            format!("nothing is cancelled: \"{word}\" is not a task's id; write cancel 17 or cancel #17; tasks shows the ids")
        })
    };
    // All are looked at before anything is done.
    let ids = words.iter().map(id).collect::<Result<Vec<u64>, String>>()?;
    let mut text = String::new();
    for id in ids {
        match inspect::brief(id) {
            Some(task) => cancel_one(&task, &mut text),
            None => _ = writeln!(text, "#{id}: no such task, it has ended or never was"),
        }
    }
    Ok(at_once(text))
}

fn cancel_one(task: &Brief, out: &mut String) {
    let what = match task.task.cancel() {
        CancelOutcome::Ended => "has just ended by itself",
        CancelOutcome::NeverStarts => "will not start",
        CancelOutcome::Requested => "told to end",
        CancelOutcome::AlreadyRequested => "had been told to end before, and was woken to look again",
    };
    let _ = writeln!(out, "{}: {what}", task.line);
}

fn cancel_matching(words: &[&str]) -> Begun {
    let words = question::joined(words)?;
    let (mut pattern, mut number) = (None, None);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let place = match word.as_str() {
            "--match" => &mut pattern,
            "--count" => &mut number,
            _ => {
                return Err(format!(
                    "nothing is cancelled: cancel does not know \"{word}\" beside --match PATTERN --count N"
                ));
            }
        };
        match rest.next().filter(|value| !value.starts_with("--")) {
            Some(value) if place.is_none() => *place = Some(question::unquoted(value)),
            _ => {
                return Err(format!("nothing is cancelled: {word} wants one value, as in --match \"echo*\" --count 3"));
            }
        }
    }
    let (Some(pattern), Some(number)) = (pattern.filter(|pattern| !pattern.is_empty()), number) else {
        return Err("nothing is cancelled: --match needs --count, the number of tasks that you expect, and --count needs --match".into());
    };
    let wanted =
        question::id(number).filter(|n| (1..=MOST).contains(n) && !number.starts_with('#')).ok_or_else(|| {
            format!("nothing is cancelled: --count wants a number from 1 to {MOST}, and \"{number}\" is none")
        })?;
    let matching = Matching::new(pattern, wanted as usize);
    Ok(Box::new(Cancelling { matching, wanted, answer: None }))
}

/// Looks for those that match; ends them only if there are as many as expected.
struct Cancelling {
    matching: Matching,
    wanted: u64,
    answer: Option<Box<dyn Answer>>,
}

impl Answer for Cancelling {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if self.answer.is_none() {
            if self.matching.more() {
                return true;
            }
            let (found, wanted) = (self.matching.count(), self.wanted);
            if found != wanted {
                let found = counted(found, "task matches", "tasks match");
                let text = format!(
                    "nothing is cancelled: {found}, and {} expected; count by name shows them\n",
                    if wanted == 1 { "1 was".to_owned() } else { format!("{} were", count(wanted)) }
                );
                out.extend_from_slice(text.as_bytes());
                return false;
            }
            // All at once: a client that goes away must not leave half of it done.
            let mut lines = Vec::new();
            for task in self.matching.take() {
                let mut line = String::new();
                cancel_one(&task, &mut line);
                lines.push(line);
            }
            self.answer = Some(rows("", lines, |line, out| out.push_str(line)));
        }
        self.answer.as_mut().is_some_and(|answer| answer.more(out))
    }
}

/// What `memory` needs: to look, nothing.
pub(super) fn memory_tier(words: &[&str]) -> Tier {
    if words.is_empty() { Tier::Read } else { Tier::Act }
}

/// `memory trim`
pub(super) fn trim() -> Box<dyn Answer> {
    let pooled = pooled();
    let resident = usage::memory().resident;
    let workers: Vec<&'static Shared> = runtime::all().iter().flat_map(|r| r.workers().to_vec()).collect();
    let asked = workers.into_iter().map(|w| (w, w.ask_to_trim())).collect();
    Box::new(Trim { pooled, resident, asked, until: Instant::now() + PATIENCE })
}

struct Trim {
    /// Before it.
    pooled: usize,
    resident: u64,
    asked: Vec<(&'static Shared, u64)>,
    until: Instant,
}

impl Answer for Trim {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        let late: Vec<_> = self.asked.iter().filter(|(w, ticket)| !w.has_trimmed(*ticket)).collect();
        if !late.is_empty() && Instant::now() < self.until {
            return true;
        }
        let left = pooled();
        let mut text = format!(
            "{} given back, {} left in pools; resident {}, was {}\n",
            counted(self.pooled.saturating_sub(left) as u64, "unused stack", "unused stacks"),
            count(left as u64),
            bytes(usage::memory().resident),
            bytes(self.resident),
        );
        let census = Census::new();
        for w in census.workers.iter().filter(|w| late.iter().any(|(late, _)| w.is(late))) {
            let why = match w.current {
                Some((id, lasted)) => format!("runs #{id} for {}", age(lasted)),
                None => "has not looked around".to_owned(),
            };
            let _ = writeln!(text, "worker {} {why}, and does it as soon as it can", w.index);
        }
        out.extend_from_slice(text.as_bytes());
        false
    }

    fn when(&self) -> When {
        When::NotBefore(Instant::now() + LOOK_AGAIN)
    }
}

/// Stacks that exist and that no task holds.
fn pooled() -> usize {
    inspect::stack_stats().map_or(0, |s| s.committed.saturating_sub(s.in_use))
}

/// `process-exit CODE PID`
pub(super) fn exit(words: &[&str]) -> Begun {
    let own = std::process::id();
    let [code, pid] = words else {
        return Err(format!("process-exit takes an exit code and this process's id: process-exit 0 {own}"));
    };
    if !(pid.bytes().all(|b| b.is_ascii_digit()) && pid.parse() == Ok(own)) {
        return Err(format!("process-exit: this process is {own}, not \"{pid}\"; nothing is done"));
    }
    let number: Option<u8> = code.parse().ok().filter(|_| code.bytes().all(|b| b.is_ascii_digit()));
    let Some(code) = number else {
        return Err(format!("process-exit: \"{code}\" is no exit code, which is from 0 to 255; nothing is done"));
    };
    Ok(Box::new(Exit { code, is_said: false }))
}

/// Says it, and does it once the client has been told: a client that takes nothing any more is dropped, and this with it.
struct Exit {
    code: u8,
    is_said: bool,
}

impl Answer for Exit {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if self.is_said {
            stderr::flush(FLUSH);
            std::process::exit(self.code.into());
        }
        out.extend_from_slice(format!("process {} exits with {}\n", std::process::id(), self.code).as_bytes());
        self.is_said = true;
        true
    }

    fn when(&self) -> When {
        When::AllSent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(begun: Begun) -> String {
        begun.err().expect("refused")
    }

    #[test]
    fn what_does_not_fit_exactly_changes_nothing() {
        for (words, expected) in [
            (&[][..], "cancel takes ids, or --match PATTERN --count N"),
            (&["17", "x"], "nothing is cancelled: \"x\" is not a task's id"),
            (&["+17"], "nothing is cancelled: \"+17\" is not"),
            (&["--match", "echo*"], "nothing is cancelled: --match needs --count"),
            (&["--count", "3"], "nothing is cancelled: --match needs --count"),
            (&["--match", "echo*", "--count"], "nothing is cancelled: --count wants one value"),
            (&["--match", "--count", "3"], "nothing is cancelled: --match wants one value"),
            (&["--match", "a", "--match", "b", "--count", "1"], "nothing is cancelled: --match wants one value"),
            (&["--match", "a", "17", "--count", "1"], "nothing is cancelled: cancel does not know \"17\""),
            (&["17", "--match", "a", "--count", "1"], "nothing is cancelled: cancel does not know \"17\""),
            (&["--match", "a", "--count", "0"], "nothing is cancelled: --count wants a number from 1 to 10000"),
            (&["--match", "a", "--count", "10001"], "nothing is cancelled: --count wants a number"),
            (&["--match", "a", "--count", "all"], "nothing is cancelled: --count wants a number"),
            (&["--match", "\"\"", "--count", "1"], "nothing is cancelled: --match needs"),
            (&["--match", "\"a", "--count", "1"], "a quote is not closed"),
            (&["--all"], "nothing is cancelled: cancel does not know \"--all\""),
        ] {
            let text = error(cancel(words));
            assert!(text.starts_with(expected), "{words:?}: {text}");
        }
        assert!(cancel(&["--count", "1", "--match", "\"no", "such\""]).is_ok());
    }

    #[test]
    fn the_exit_wants_this_process() {
        let own = std::process::id();
        assert_eq!(
            error(exit(&["0"])),
            format!("process-exit takes an exit code and this process's id: process-exit 0 {own}")
        );
        assert_eq!(
            error(exit(&["0", "1"])),
            format!("process-exit: this process is {own}, not \"1\"; nothing is done")
        );
        let signed = format!("+{own}");
        assert!(error(exit(&["0", &signed])).contains("nothing is done"));
        for code in ["256", "-1", "+1", "zero", ""] {
            let text = error(exit(&[code, &own.to_string()]));
            assert_eq!(
                text,
                format!("process-exit: \"{code}\" is no exit code, which is from 0 to 255; nothing is done")
            );
        }
    }
}
