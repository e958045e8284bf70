//! Reading lines at a prompt: editing, completion, and a file that keeps what was typed.
//!
//! Invariant: the history is readable by its owner alone, from its first byte. Names of tasks and arguments of commands may
//! be in it.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Helper};

use super::complete::Completions;
use crate::known::Known;
use crate::target::Target;

/// The prompt of a line that goes on from the one before.
const GOES_ON: &str = "... ";

/// Lines that the history keeps.
const KEPT: usize = 1000;

/// What came from the prompt.
pub(super) enum Read {
    Line(String),
    /// Ctrl-C, or a blank line.
    Nothing,
    /// Ctrl-D.
    End,
    Failed(String),
}

/// See the module's head.
pub(super) struct Editor {
    inner: rustyline::Editor<Help, MemHistory>,
    known: Known,
    /// Open at its end. Without a place for it there is a history of this session only.
    history: Option<File>,
}

impl Editor {
    pub(super) fn new(target: Target, known: Known, colours: bool) -> rustyline::Result<Editor> {
        let config = Config::builder()
            .max_history_size(KEPT)?
            .history_ignore_dups(true)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let history = MemHistory::with_config(&config);
        let mut inner = rustyline::Editor::with_history(config, history)?;
        inner.set_helper(Some(Help { completions: Completions::new(target, known.clone()), colours }));
        let path = history_file();
        for line in path.as_deref().map(kept).unwrap_or_default() {
            inner.add_history_entry(line)?;
        }
        Ok(Editor { inner, known, history: path.and_then(|path| private_file(&path)) })
    }

    /// A whole question. One that goes on in other lines has another prompt for them; an empty one of them ends it as it
    /// is, Ctrl-C and Ctrl-D forget it.
    pub(super) fn read(&mut self, prompt: &str) -> Read {
        let mut lines = String::new();
        loop {
            let asked = if lines.is_empty() { prompt } else { GOES_ON };
            match self.inner.readline(asked) {
                Ok(line) => {
                    let is_last = line.trim().is_empty();
                    if !lines.is_empty() {
                        lines.push('\n');
                    }
                    lines.push_str(&line);
                    if is_last || !self.known.goes_on(&lines) {
                        break;
                    }
                    self.goes_on_from(&lines);
                }
                Err(error) => {
                    self.goes_on_from("");
                    return match error {
                        ReadlineError::Interrupted => Read::Nothing,
                        ReadlineError::Eof if !lines.is_empty() => Read::Nothing,
                        ReadlineError::Eof => Read::End,
                        error => Read::Failed(format!("cannot read from the terminal ({error})")),
                    };
                }
            }
        }
        self.goes_on_from("");
        let line = self.known.one_line(&lines);
        if line.trim().is_empty() {
            return Read::Nothing;
        }
        // Not what begins with a space, nor the same twice.
        if self.inner.add_history_entry(line.as_str()).unwrap_or(false)
            && let Some(file) = &mut self.history
        {
            let _ = writeln!(file, "{line}");
        }
        Read::Line(line)
    }

    /// That was answered.
    pub(super) fn evaluated(&mut self, question: &str) {
        if let Some(help) = self.inner.helper() {
            help.completions.evaluated(question);
        }
    }

    fn goes_on_from(&self, lines: &str) {
        if let Some(help) = self.inner.helper() {
            help.completions.goes_on_from(lines);
        }
    }
}

/// The history's file, in a directory of ours.
fn history_file() -> Option<PathBuf> {
    let state = match std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(directory) => directory,
        None => PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?).join(".local/state"),
    };
    let directory = state.join("coro");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).ok()?;
    Some(directory.join("history"))
}

/// The last lines of a history, the oldest first. A file that has grown long is cut down to them.
fn kept(path: &Path) -> Vec<String> {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let last: Vec<String> = lines[lines.len().saturating_sub(KEPT)..].iter().map(|line| (*line).to_owned()).collect();
    if lines.len() > 2 * KEPT {
        // What another session writes meanwhile is lost; it is a convenience.
        let _ = fs::write(path, last.join("\n") + "\n");
    }
    last
}

/// Opens or makes a file that is readable by its owner alone, to write at its end.
fn private_file(path: &Path) -> Option<File> {
    let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).ok()?;
    if file.metadata().ok()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600)).ok()?;
    }
    Some(file)
}

/// What rustyline asks while a line is edited.
struct Help {
    completions: Completions,
    colours: bool,
}

impl Helper for Help {}

impl Hinter for Help {
    type Hint = String;
}

impl Completer for Help {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, found) = self.completions.of(&line[..pos]);
        Ok((start, found.into_iter().map(|(display, replacement)| Pair { display, replacement }).collect()))
    }
}

impl Validator for Help {}

impl Highlighter for Help {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        if self.colours { Cow::Owned(format!("\x1b[1m{prompt}\x1b[0m")) } else { Cow::Borrowed(prompt) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_for_its_owner_alone_also_if_it_was_not() {
        let path = std::env::temp_dir().join(format!("coro-history-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let mode = |path: &Path| fs::metadata(path).expect("the file").permissions().mode() & 0o777;
        private_file(&path).expect("made");
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        private_file(&path).expect("there");
        assert_eq!(mode(&path), 0o600);
        // Its end is kept, and it does not grow without end.
        let lines: Vec<String> = (0..2 * KEPT + 1).map(|n| format!("where {n}")).collect();
        fs::write(&path, lines.join("\n")).expect("written");
        assert_eq!(kept(&path), lines[KEPT + 1..]);
        assert_eq!((kept(&path).len(), mode(&path)), (KEPT, 0o600));
        assert_eq!(fs::read_to_string(&path).expect("text").lines().count(), KEPT);
        fs::remove_file(&path).expect("removed");
    }
}
