//! `coro`: looks into running programs that use `coro-rt`, over the socket that they serve.
//!
//! A subcommand is a module with `USAGE` and `run`. Exit codes: 0 when it was done, 1 when it could not be (no such process,
//! nobody serves, the question was refused), 2 when it was called wrongly; messages go to standard error.
//!
//! Must not know: anything of the runtime but what its sockets say. `demo` has one, in a process of its own, and `repl`.

#![deny(unsafe_code)]

mod ask;
mod attach;
mod demo;
mod expression;
mod known;
mod list;
mod repl;
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a signal with a value and the rights over files take calls that no crate here wraps")]
mod signal_attach;
mod symbolize;
mod target;
mod terminal;
mod top;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

const USAGE: &str = "usage: coro COMMAND [ARGUMENTS]
Looks into running programs that use coro-rt. A program is named by its PID, or by the PATH of its socket.

  list                     programs of this user that can be looked into
  status PID|PATH          one of them on one screen
  where PID|PATH [ID]      where all its tasks are, or one of them
  ask PID|PATH COMMAND...  one question; `ask PID help` shows what can be asked
  attach PID|PATH          an interactive session: commands and expressions
  top PID|PATH             its tasks and workers, live
  repl                     connect, send, receive, spawn: a session inside a runtime of its own
  demo                     a lively program with trouble in it, and a session with it
  symbolize FILE...        names what a stripped program could not name itself

coro COMMAND --help says more; list, status, where and top have --json for scripts.
A program serves a socket if it calls coro::backdoor::serve_default() or is started with
CORO_BACKDOOR=1; one that calls coro::console::install_signal_handler() is reached by its PID
without. Exit codes: 0 done, 1 could not be done, 2 called wrongly.";

/// Why a subcommand ended without having done what it was called for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Called wrongly: what is wrong.
    Usage(String),
    /// Could not be done: why, and what to do.
    Failed(String),
    /// The same, and everything was said already.
    Told,
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        Failure::Usage(error.to_string())
    }
}

/// What a subcommand comes to.
pub(crate) type Outcome = Result<(), Failure>;

/// Called with what stands behind its name.
type Run = fn(lexopt::Parser) -> Outcome;

/// Every subcommand: its name, how it is called, what does it.
const COMMANDS: &[(&str, &str, Run)] = &[
    ("list", list::USAGE, list::run),
    ("status", ask::STATUS_USAGE, ask::status),
    ("where", ask::WHERE_USAGE, ask::where_is),
    ("ask", ask::USAGE, ask::run),
    ("attach", attach::USAGE, attach::run),
    ("top", top::USAGE, top::run),
    ("repl", repl::USAGE, repl::run),
    ("demo", demo::USAGE, demo::run),
    ("symbolize", symbolize::USAGE, symbolize::run),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(first) = arguments.next() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let rest: Vec<OsString> = arguments.collect();
    match first.to_str() {
        Some("-h" | "--help") => return print(USAGE),
        Some("help") => {
            return match rest.first().map(|name| find(name)) {
                None => print(USAGE),
                Some(Some((_, usage, _))) => print(usage),
                Some(None) => unknown(&rest[0]),
            };
        }
        Some("-V" | "--version") => return print(concat!("coro ", env!("CARGO_PKG_VERSION"))),
        _ => {}
    }
    let Some((name, usage, run)) = find(&first) else { return unknown(&first) };
    // Only in front of what is passed on: `ask PID help --colour` and the like are questions.
    if matches!(rest.first().and_then(|word| word.to_str()), Some("-h" | "--help")) {
        return print(usage);
    }
    match run(lexopt::Parser::from_args(rest)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::from(1),
        Err(Failure::Failed(why)) => {
            eprintln!("coro {name}: {why}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(what)) => {
            eprintln!("coro {name}: {what}\n{}", usage.lines().next().unwrap_or_default());
            eprintln!("coro {name} --help says more.");
            ExitCode::from(2)
        }
    }
}

fn find(name: &std::ffi::OsStr) -> Option<&'static (&'static str, &'static str, Run)> {
    COMMANDS.iter().find(|(known, ..)| name == *known)
}

fn unknown(name: &std::ffi::OsStr) -> ExitCode {
    let names: Vec<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
    eprintln!("coro: {name:?} is no command; there are {}. coro --help says more.", names.join(", "));
    ExitCode::from(2)
}

/// A closed standard output is no failure: `coro --help | head`.
fn print(text: &str) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}
