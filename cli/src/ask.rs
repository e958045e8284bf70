//! `coro ask`, and `where` and `status`, which are questions with names of their own: one question, its answer to standard
//! output.
//!
//! Must not know: what can be asked.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Write};

use crate::expression::Scan;
use crate::known::{self, Known};
use crate::target::Target;
use crate::terminal::{Notice, harmless, plain, wants_colour};
use crate::wire::{Said, Session};
use crate::{Failure, Outcome};

pub(crate) const USAGE: &str = "usage: coro ask PID|PATH COMMAND...
Asks one question and prints the answer; `coro ask PID help` lists what can be asked. Everything behind PID|PATH is the
question: a command, or an expression, which the shell must not take apart. Colours if the output is a terminal and
NO_COLOR is not set.
  coro ask 4711 stacks --all
  coro ask /run/app/coro.sock where 17
  coro ask 4711 'tasks().filter(|t| t.state == \"parked\").len()'
Exit codes: 0 answered, 1 refused or not reached, 2 called wrongly.";

pub(crate) const WHERE_USAGE: &str = "usage: coro where PID|PATH [ID] [--json]
Where every task is, a line each; with an ID that task alone, with its whole stack.
  --json   one JSON object a line: {\"head\":…}, {\"stack\":…}, {\"task\":…}
Exit codes: 0 answered, 1 refused or not reached, 2 called wrongly.";

pub(crate) const STATUS_USAGE: &str = "usage: coro status PID|PATH [--json]
The whole program on one screen: tasks, what they wait for, trouble, descriptors, memory, workers. Begin here.
  --json   its figures: {\"head\":…} and {\"status\":…}, one JSON object a line
Exit codes: 0 answered, 1 refused or not reached, 2 called wrongly.";

/// `coro ask`
pub(crate) fn run(mut arguments: lexopt::Parser) -> Outcome {
    let target = target(&mut arguments)?;
    let words: Vec<OsString> = arguments.raw_args()?.collect();
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.into_string().map_err(|_| Failure::Usage("the question must be UTF-8 text".into())))
        .collect::<Result<_, _>>()?;
    let question = words.join(" ");
    if question.trim().is_empty() {
        return Err(Failure::Usage("what is the question?".into()));
    }
    // An expression between the shell's quotes may go over lines.
    let is_several = question.match_indices('\n').any(|(end, _)| Scan::of(&question[..end]).is_open);
    let question = if is_several { Scan::of(&question).line } else { question };
    let question = known::sound(&question).map_err(Failure::Usage)?;
    ask(&target, question)
}

/// `coro status`
pub(crate) fn status(mut arguments: lexopt::Parser) -> Outcome {
    use lexopt::prelude::{Long, Value};
    let (mut named, mut question) = (None, "status");
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("json") => question = "status --json",
            Value(word) if named.is_none() => named = Some(Target::of(&word).map_err(Failure::Usage)?),
            other => return Err(other.unexpected().into()),
        }
    }
    ask(&named.ok_or_else(which)?, question)
}

/// `coro where`
pub(crate) fn where_is(mut arguments: lexopt::Parser) -> Outcome {
    use lexopt::prelude::{Long, Value};
    let (mut named, mut id, mut json) = (None, None, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("json") => json = true,
            Value(word) if named.is_none() => named = Some(Target::of(&word).map_err(Failure::Usage)?),
            Value(word) if id.is_none() => id = Some(word),
            other => return Err(other.unexpected().into()),
        }
    }
    let target = named.ok_or_else(which)?;
    let id = match &id {
        None => None,
        Some(word) => match word.to_str().map(|word| word.strip_prefix('#').unwrap_or(word)) {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits),
            _ => return Err(Failure::Usage(format!("{} is no task's id: write 17 or '#17'", word.display()))),
        },
    };
    match (id, json) {
        (None, false) => ask(&target, "where_all"),
        (None, true) => ask(&target, "where_all --json"),
        (Some(id), false) => ask(&target, &format!("where {id}")),
        (Some(id), true) => ask(&target, &format!("where {id} --json")),
    }
}

/// The first argument.
pub(crate) fn target(arguments: &mut lexopt::Parser) -> Result<Target, Failure> {
    match arguments.next()? {
        Some(lexopt::Arg::Value(word)) => Target::of(&word).map_err(Failure::Usage),
        Some(other) => Err(other.unexpected().into()),
        None => Err(which()),
    }
}

pub(crate) fn which() -> Failure {
    Failure::Usage("which program? coro list shows them".into())
}

/// A session; somebody who looks is told if that takes long.
pub(crate) fn open(target: &Target) -> Result<Session, Failure> {
    let told = |why: &str| {
        if io::stderr().is_terminal() {
            eprintln!("{why}; still waiting (Ctrl-C ends)");
        }
    };
    Session::open(target, told).map_err(Failure::Failed)
}

fn ask(target: &Target, question: &str) -> Outcome {
    let mut session = open(target)?;
    let mut question = question.to_owned();
    if wants_colour() {
        question = Known::learn(&mut session).map_err(|broken| Failure::Failed(broken.0))?.coloured(&question);
    }
    let answered = print(&mut session, &question)?;
    session.close();
    if answered { Ok(()) } else { Err(Failure::Told) }
}

/// Prints an answer as it comes. False if it was refused: then that was said on standard error.
pub(crate) fn print(session: &mut Session, question: &str) -> Result<bool, Failure> {
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let (mut answered, mut written) = (true, Ok(()));
    let mut notice = Notice::default();
    let outcome = session.ask(question, |said| {
        if !matches!(said, Said::Nothing(_)) {
            notice.take_back();
        }
        let step = match said {
            Said::Line(text) => writeln!(out, "{}", harmless(text)),
            // From a server of ours there is nothing in it to be escaped.
            Said::Row(json) => writeln!(out, "{}", harmless(json)),
            Said::Error(text) => {
                answered = false;
                let flushed = out.flush();
                eprintln!("{}", plain(text));
                flushed
            }
            Said::Nothing(since) => {
                let flushed = out.flush();
                notice.nothing(since);
                flushed
            }
        };
        if written.is_ok() {
            written = step;
        }
        written.is_ok()
    });
    drop(notice);
    let written = written.and_then(|()| out.flush());
    match written {
        // `coro where PID | head` is no error.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(true),
        Err(error) => return Err(Failure::Failed(format!("cannot write the answer ({error})"))),
        Ok(()) => {}
    }
    outcome.map_err(|broken| Failure::Failed(broken.0))?;
    Ok(answered)
}
