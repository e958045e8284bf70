//! `coro attach`: questions typed at a prompt, answers on the screen, until Ctrl-D.
//!
//! Who does what: `editor` reads lines and remembers them, `complete` knows what may follow, `screen` shows an answer, by
//! a pager if it is long. Without a terminal on standard input each line of it is a question, as for `coro ask`.
//!
//! Invariant: Ctrl-C never ends the client while the server hears it; what is running there is ended by the server.

#![forbid(unsafe_code)]

mod complete;
mod editor;
mod facts;
mod screen;
mod vocabulary;

use std::io::{self, BufRead as _, IsTerminal as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use crate::known::{self, Known};
use crate::target::Target;
use crate::terminal::{plain, wants_colour};
use crate::wire::{Found, Interrupt, Session};
use crate::{Failure, Outcome, ask};

pub(crate) const USAGE: &str = "usage: coro attach PID|PATH
An interactive session: `status` first, then a prompt for commands and expressions. Tab completes both: commands and
what they take, tasks by id or name, functions and values of the program, variables, what things have. A line with an
open bracket, or a backslash at its end, goes on in the next, whose prompt is `...`; an empty line ends it. Arrows and
Ctrl-R go through what was asked before, kept in coro/history under $XDG_STATE_HOME (~/.local/state).
Ctrl-C ends the answer that is coming, Ctrl-D the session. Long answers go through $PAGER, or less if there is one;
PAGER=cat shows them as they come. Colours if the output is a terminal and NO_COLOR is not set.
If the input is no terminal, each of its lines is a question, or some of one as above, without status and prompt; exit
code 1 if one was refused.
Exit codes: 0 ended by you, 1 refused or not reached, 2 called wrongly.";

/// What a session may do at its beginning.
const LOWEST: &str = "read";

pub(crate) fn run(mut arguments: lexopt::Parser) -> Outcome {
    let target = ask::target(&mut arguments)?;
    if let Some(other) = arguments.next()? {
        return Err(other.unexpected().into());
    }
    attach(target)
}

/// A session with whoever is at standard input.
pub(crate) fn attach(target: Target) -> Outcome {
    if !io::stdin().is_terminal() {
        return lines(&target);
    }
    let session = ask::open(&target)?;
    let mut attached = Attached::new(target, session, LOWEST)?;
    attached.ask("status")?;
    attached.run()
}

/// A session with somebody at a terminal over a stream that is there, with a tier from the beginning; what completion asks
/// goes to `target`.
pub(crate) fn session(target: Target, stream: UnixStream, tier: &str, hint: &str) -> Outcome {
    let session = Session::over(stream, "the session").map_err(Failure::Failed)?;
    let attached = Attached::new(target, session, tier)?;
    println!("{hint}");
    attached.run()
}

/// Each line of standard input is a question, or goes on in the next.
fn lines(target: &Target) -> Outcome {
    let mut session = ask::open(target)?;
    let known = learn(&mut session)?;
    let colours = wants_colour().then_some(&known);
    let mut all_answered = true;
    let mut begun = String::new();
    let mut input = io::stdin().lock().lines();
    loop {
        let line = input.next().transpose();
        let line = line.map_err(|error| Failure::Failed(format!("cannot read standard input ({error})")))?;
        let (is_over, line) = (line.is_none(), line.unwrap_or_default());
        let is_last = is_over || line.trim().is_empty();
        if !begun.is_empty() {
            begun.push('\n');
        }
        begun.push_str(&line);
        if !is_last && known.goes_on(&begun) {
            continue;
        }
        let line = known.one_line(&std::mem::take(&mut begun));
        if line.trim().is_empty() {
            if is_over {
                break;
            }
            continue;
        }
        if matches!(known::word(&line), "quit" | "exit") {
            break;
        }
        match known::sound(&line) {
            Err(why) => {
                eprintln!("{}: {why}", plain(line.trim()));
                all_answered = false;
            }
            Ok(question) => {
                let question = colours.map_or(question.to_owned(), |known| known.coloured(question));
                all_answered &= ask::print(&mut session, &question)?;
            }
        }
        if is_over {
            break;
        }
    }
    session.close();
    if all_answered { Ok(()) } else { Err(Failure::Told) }
}

fn learn(session: &mut Session) -> Result<Known, Failure> {
    Known::learn(session).map_err(|broken| Failure::Failed(broken.0))
}

/// A session with somebody at a terminal.
struct Attached {
    target: Target,
    session: Session,
    known: Known,
    tier: String,
    colours: bool,
    /// Where Ctrl-C goes; replaced when the session is.
    interrupt: Arc<Mutex<Interrupt>>,
}

impl Attached {
    fn new(target: Target, mut session: Session, tier: &str) -> Result<Attached, Failure> {
        let known = learn(&mut session)?;
        let interrupt = Arc::new(Mutex::new(session.interrupt()));
        pass_on_ctrl_c(interrupt.clone()).map_err(|error| Failure::Failed(format!("cannot catch Ctrl-C ({error})")))?;
        println!("{}", session.banner);
        Ok(Attached { target, session, known, tier: tier.into(), colours: wants_colour(), interrupt })
    }

    fn run(mut self) -> Outcome {
        let mut editor = editor::Editor::new(self.target.clone(), self.known.clone(), self.colours)
            .map_err(|error| Failure::Failed(format!("no line editing on this terminal ({error})")))?;
        loop {
            let prompt = format!("{} {}> ", self.session.program(), self.tier);
            let line = match editor.read(&prompt) {
                editor::Read::Line(line) => line,
                editor::Read::Nothing => continue,
                editor::Read::End => break,
                editor::Read::Failed(why) => return Err(Failure::Failed(why)),
            };
            if matches!(known::word(&line), "quit" | "exit") {
                break;
            }
            match known::sound(&line) {
                Err(why) => println!("{why}"),
                Ok(question) => {
                    if self.ask(question)? {
                        editor.evaluated(question);
                    }
                }
            }
        }
        self.session.close();
        Ok(())
    }

    /// Asks, and connects once more if the server has ended the session meanwhile, as it does after some idle minutes. Whether
    /// there was an answer.
    fn ask(&mut self, question: &str) -> Result<bool, Failure> {
        let coloured = if self.colours { self.known.coloured(question) } else { question.to_owned() };
        // What an expression gives is shown as it is.
        let fold = io::stdout().is_terminal() && !self.known.is_expression(question);
        match screen::show(&mut self.session, &coloured, fold) {
            Ok(shown) => {
                if let Some(tier) = shown.tier {
                    self.tier = tier;
                }
                Ok(!shown.refused)
            }
            Err(broken) => {
                println!("{}", plain(&broken.0));
                self.session = ask::open(&self.target)?;
                *self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = self.session.interrupt();
                let lost = if self.tier == LOWEST { String::new() } else { format!(", with the tier {LOWEST}") };
                self.tier = LOWEST.into();
                println!("connected again{lost}; what you asked was not answered");
                Ok(false)
            }
        }
    }
}

/// While an answer comes, Ctrl-C goes to the server. At the prompt the terminal does not make a signal of it.
fn pass_on_ctrl_c(interrupt: Arc<Mutex<Interrupt>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT])?;
    std::thread::Builder::new().name("ctrl-c".into()).spawn(move || {
        let mut unheard = 0;
        for _ in signals.forever() {
            let to = interrupt.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match to.send() {
                Found::Nothing | Found::Answer => unheard = 0,
                Found::Deaf if unheard == 0 => {
                    unheard = 1;
                    eprintln!("the server has not ended the answer yet; Ctrl-C once more leaves");
                }
                Found::Deaf => {
                    eprintln!();
                    std::process::exit(130);
                }
            }
        }
    })?;
    Ok(())
}
