//! One answer on the screen: as it comes, or through a pager if it is longer than the screen.
//!
//! What comes within [`GATHER`] of its first line is looked at as a whole; an answer that takes longer is shown as it comes
//! from then on, for somebody waits for it.
//!
//! Must not know: what was asked.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::terminal::{Notice, folded, harmless, plain, size, width};
use crate::wire::{Broken, Said, Session};

/// How long lines are held back that may turn out to be too many for the screen.
const GATHER: Duration = Duration::from_millis(300);

/// What an answer told beside its lines.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// What the session may do from now on, if that was changed.
    pub(crate) tier: Option<String>,
    /// There was no answer, or not the whole of it.
    pub(crate) refused: bool,
}

/// Asks and shows the answer. That it could not be written is no failure: the pager may have ended.
/// With `fold` lines are broken between words where the terminal would break them anywhere.
pub(super) fn show(session: &mut Session, question: &str, fold: bool) -> Result<Shown, Broken> {
    let mut shown = Shown::default();
    let mut screen = Screen::new();
    let columns = if fold { screen.size.1 } else { 0 };
    let outcome = session.ask(question, |said| match said {
        Said::Line(text) => {
            if let Some(tier) = text.strip_prefix("this session may now ") {
                shown.tier = Some(plain(tier));
            }
            screen.line(folded(&harmless(text), columns).into_owned())
        }
        Said::Row(json) => screen.line(harmless(json).into_owned()),
        Said::Error(text) => {
            shown.refused = true;
            screen.line(folded(&plain(text), columns).into_owned())
        }
        Said::Nothing(since) => screen.nothing(since),
    });
    screen.end();
    outcome.map(|()| shown)
}

enum To {
    /// Nothing was shown yet.
    Held,
    Screen,
    Pager(Child),
    /// The pager has ended: the rest is not wanted.
    Nowhere,
}

struct Screen {
    /// When the first line came.
    first: Option<Instant>,
    held: Vec<String>,
    /// Rows of the screen that the lines held take.
    rows: usize,
    /// Rows and columns of the screen.
    size: (usize, usize),
    to: To,
    notice: Notice,
}

impl Screen {
    fn new() -> Screen {
        Screen { first: None, held: Vec::new(), rows: 0, size: size(), to: To::Held, notice: Notice::default() }
    }

    /// False when no more is wanted.
    fn line(&mut self, text: String) -> bool {
        self.notice.take_back();
        let first = *self.first.get_or_insert_with(Instant::now);
        match &mut self.to {
            To::Held => {
                let rows = |line: &str| width(line).div_ceil(self.size.1).max(1);
                self.rows += text.split('\n').map(rows).sum::<usize>();
                self.held.push(text);
                // One row stays for the prompt.
                if self.rows >= self.size.0 {
                    self.to = pager().map_or(To::Screen, To::Pager);
                    return self.let_go();
                }
                first.elapsed() < GATHER || self.show_held()
            }
            To::Screen => writeln!(io::stdout(), "{text}").is_ok(),
            To::Pager(child) => match child.stdin.as_mut().map(|pipe| writeln!(pipe, "{text}")) {
                Some(Ok(())) => true,
                _ => {
                    self.wait_for_pager();
                    false
                }
            },
            To::Nowhere => false,
        }
    }

    fn nothing(&mut self, since: Duration) -> bool {
        if matches!(self.to, To::Held) && self.first.is_some_and(|first| first.elapsed() >= GATHER) {
            return self.show_held();
        }
        if !matches!(self.to, To::Pager(_)) {
            self.notice.nothing(since);
        }
        !matches!(self.to, To::Nowhere)
    }

    fn show_held(&mut self) -> bool {
        self.to = To::Screen;
        self.let_go()
    }

    /// Writes what was held to where it goes now.
    fn let_go(&mut self) -> bool {
        std::mem::take(&mut self.held).into_iter().all(|line| self.line(line))
    }

    fn wait_for_pager(&mut self) {
        if let To::Pager(mut child) = std::mem::replace(&mut self.to, To::Nowhere) {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }

    fn end(&mut self) {
        self.notice.take_back();
        if matches!(self.to, To::Held) {
            self.show_held();
        }
        self.wait_for_pager();
    }
}

/// `$PAGER`, else `less` if there is one. Nothing if the output is no terminal, or the pager is `cat` or empty.
fn pager() -> Option<Child> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let command = match std::env::var("PAGER") {
        Ok(command) if command.trim().is_empty() || command.trim() == "cat" => return None,
        Ok(command) => command,
        Err(_) => in_path("less")?.to_string_lossy().into_owned(),
    };
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(&command).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        // Colours as they are; and no question at the end of what fits on the screen.
        shell.env("LESS", "FR");
    }
    shell.spawn().ok()
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}
