//! What a server can be asked, as its `help` lists it.
//!
//! Must not know: what the commands mean.

#![forbid(unsafe_code)]

use crate::expression::{self, Scan};
use crate::wire::{Broken, Said, Session};

/// Rows that are the session's own: they take no `--colour`, and change the session itself.
const OWN: &[&str] = &["help", "?", "enable", "quit", "exit", "#json", "#lines", "#text"];

/// One line of `help`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) name: String,
    /// Other names of the same.
    pub(crate) others: Vec<String>,
    /// What follows the name: `[--all] [--json]`.
    pub(crate) arguments: String,
    pub(crate) help: String,
}

/// See the module's head.
#[derive(Debug, Default, Clone)]
pub(crate) struct Known {
    pub(crate) commands: Vec<Command>,
}

impl Known {
    pub(crate) fn learn(session: &mut Session) -> Result<Known, Broken> {
        let mut commands = Vec::new();
        session.ask("help", |said| {
            if let Said::Line(line) = said {
                commands.extend(parse(line));
            }
            true
        })?;
        Ok(Known { commands })
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|c| c.name == name || c.others.iter().any(|other| other == name))
    }

    /// `question`, asking for colours if its command has them.
    pub(crate) fn coloured(&self, question: &str) -> String {
        let line = bare(question);
        // With brackets it may be an expression, which has none.
        let word = if line.contains('(') { "" } else { line.split_whitespace().next().unwrap_or_default() };
        let has_colours = self.find(word).is_some() && !OWN.contains(&word);
        let settled = line.split_whitespace().any(|word| matches!(word, "--colour" | "--color" | "--json"));
        if has_colours && !settled { format!("{question} --colour") } else { question.to_owned() }
    }
}

impl Known {
    /// Whether a line is no command, as the server tells: `tasks().len()` is none either.
    pub(crate) fn is_expression(&self, line: &str) -> bool {
        let line = bare(line);
        let word = word(line);
        !word.is_empty() && (self.find(word).is_none() || expression::goes_on(&line[word.len()..]))
    }

    /// What has to be typed before `line` can be asked: nothing, if it is whole.
    pub(crate) fn goes_on(&self, line: &str) -> bool {
        line.ends_with('\\') || (self.is_expression(line) && Scan::of(line).is_open)
    }

    /// Several lines as the one that is asked. A line that ends with a backslash goes on in the next.
    pub(crate) fn one_line(&self, lines: &str) -> String {
        let joined = lines.replace("\\\n", " ");
        if self.is_expression(&joined) { Scan::of(&joined).line } else { joined.replace('\n', " ") }
    }
}

/// Without what may stand before every command.
fn bare(line: &str) -> &str {
    let line = line.trim();
    line.strip_prefix("coro::").or_else(|| line.strip_prefix("coro.")).unwrap_or(line)
}

/// The question without what surrounds it, if it can be asked: as a line of its own that does not change the session.
pub(crate) fn sound(question: &str) -> Result<&str, String> {
    let question = question.trim();
    if question.contains(|c: char| c.is_control() && c != '\t') || question.ends_with('\\') {
        return Err("the question must be one line of text, without a backslash at its end".into());
    }
    match word(question) {
        "" => Err("what is the question?".into()),
        "quit" | "exit" => Err("quit ends a session, and nothing else".into()),
        form @ ("#json" | "#lines" | "#text") => {
            Err(format!("{form} is between programs; put --json behind a command that has a form in JSON"))
        }
        _ => Ok(question),
    }
}

/// The name that a question begins with, as the server reads it: `where` of `coro::where(17)`.
pub(crate) fn word(question: &str) -> &str {
    let line = bare(question);
    &line[..line.find(|c: char| c.is_whitespace() || c == '(').unwrap_or(line.len())]
}

/// `fds [--all] [--json]   descriptors against … (also: sockets)`
fn parse(line: &str) -> Option<Command> {
    let (usage, help) = line.split_once("  ")?;
    let (name, arguments) = usage.split_once(' ').unwrap_or((usage, ""));
    if name.is_empty() {
        return None;
    }
    let help = help.trim();
    let also = help.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (also: "));
    let (help, others) = also.unwrap_or((help, ""));
    let others = others.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(Command { name: name.to_owned(), others, arguments: arguments.to_owned(), help: help.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_help_is_taken_apart() {
        let c = parse("fds [--all] [--json]   descriptors (all) against the limit (also: sockets, files)")
            .expect("a command");
        assert_eq!((c.name.as_str(), c.arguments.as_str()), ("fds", "[--all] [--json]"));
        assert_eq!(
            (c.help.as_str(), c.others.join("/")),
            ("descriptors (all) against the limit", "sockets/files".into())
        );
        assert_eq!(parse("quit  ends the session").expect("a command").others, Vec::<String>::new());
        assert_eq!(parse("no line of help"), None);
    }

    #[test]
    fn what_would_have_no_answer_is_not_asked() {
        assert_eq!(sound("  where 17\t"), Ok("where 17"));
        for question in ["", " ", "a\nb", "where\x03", "status \\", "#text", "coro.quit()", "exit"] {
            assert!(sound(question).is_err(), "{question:?}");
        }
    }

    #[test]
    fn colours_are_asked_for_where_there_are_some() {
        let lines = ["where ID  one task", "enable read|act  rights", "stacks [--all]  all"];
        let known = Known { commands: lines.iter().filter_map(|line| parse(line)).collect() };
        for (asked, sent) in [
            ("where 17", "where 17 --colour"),
            ("coro.stacks --all", "coro.stacks --all --colour"),
            ("stacks --json", "stacks --json"),
            ("where(17)", "where(17)"),
            ("enable act", "enable act"),
            ("tasks().len()", "tasks().len()"),
            ("where (17).name", "where (17).name"),
        ] {
            assert_eq!(known.coloured(asked), sent);
        }
    }

    #[test]
    fn expressions_and_backslashes_go_on_in_the_next_line_and_commands_do_not() {
        let known = Known {
            commands: ["where ID  one task", "tasks [FILTERS]  those"].iter().filter_map(|l| parse(l)).collect(),
        };
        for (line, goes_on) in [
            ("tasks().filter(|t|", true),
            ("coro.tasks().filter(|t|", true),
            ("[1,", true),
            ("where(17", false),
            ("where 17 \\", true),
            ("tasks name~(", false),
            ("1 + 1", false),
        ] {
            assert_eq!(known.goes_on(line), goes_on, "{line}");
        }
        assert_eq!(known.one_line("where \\\n17"), "where  17");
        assert_eq!(known.one_line("[1, // one\n2]"), "[1,  2]");
        assert_eq!(known.one_line("tasks name~x // y\nz"), "tasks name~x // y z");
    }
}
