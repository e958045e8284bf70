//! The command table: what a session may be asked, one row a command.
//!
//! Some rows are the session's own, such as `help` and `quit`; the others were registered from above as [`Commands`].
//! Invariants: every word that runs something is in the one or the other, and `help` prints what the rows say, so no command
//! is without its help; nothing runs for which the session has not the right; every text made here is whole lines, and input
//! repeated in it is escaped.
//!
//! Must not know: sockets, sessions, what a registered command does.

use std::fmt::Write as _;

use super::Commands;
use super::line::{escape, escape_up_to};
use super::rights::Rights;
use crate::commands::{Answer, Asking, Command, Probes, Tier, nearest_of};

/// What a command comes to.
pub(super) enum Outcome {
    /// Comes in pieces, when the client has room for them.
    Answer(Box<dyn Answer>),
    /// The same, in lines of JSON.
    Json(Box<dyn Answer>),
    /// Whole lines, known at once.
    Say(String),
    /// Whole lines that say why there is no answer.
    Complain(String),
    /// From now on answers come in lines of JSON, or as text; with `lines` as text in lines of JSON.
    Switch { json: bool, lines: bool },
    /// No command: an expression, and what to say if it is none.
    Evaluate { text: String, unknown: String },
    /// The session ends after what was said before.
    End,
}

/// How much of a command's complaint is shown; some input may be repeated in it.
const LONGEST_COMPLAINT: usize = 400;

const HELP: Row = Row {
    names: &["help", "?"],
    arguments: "[COMMAND]",
    help: "this list, or one line of it; --colour behind a command colours its answer",
};
const ENABLE: Row = Row {
    names: &["enable"],
    arguments: "read|probe|act",
    help: "what this session may do, up to what the server allows; it begins with read",
};
const JSON: Row = Row {
    names: &["#json", "#lines", "#text"],
    arguments: "",
    help: "from now on one JSON value a line, ended by {\"done\":…}; #lines: with the text in it; #text goes back",
};
const QUIT: Row = Row { names: &["quit", "exit"], arguments: "", help: "ends the session" };

/// What is told of a command. The first name is its own; the others do the same.
#[derive(Debug, Clone, Copy)]
struct Row {
    names: &'static [&'static str],
    arguments: &'static str,
    help: &'static str,
}

impl Row {
    fn usage(&self) -> String {
        format!("{} {}", self.names[0], self.arguments).trim_end().to_owned()
    }
}

/// All commands, in the order in which `help` shows them.
fn rows(commands: &Commands) -> impl Iterator<Item = Row> {
    let registered = commands.table.iter().map(|c| Row { names: c.names, arguments: c.arguments, help: c.help });
    registered.chain([ENABLE, JSON, HELP, QUIT])
}

/// Runs one line. `None` for a blank one. The name beside the outcome is the command's, for messages about it. With `json`
/// the answer is wanted in JSON, if there is such a form.
pub(super) fn run(
    line: &[u8],
    commands: &Commands,
    rights: &mut Rights,
    json: bool,
    probes: Probes<'_>,
) -> Option<(&'static str, Outcome)> {
    let Ok(text) = std::str::from_utf8(line) else {
        let text = format!("this line is not UTF-8 text: \"{}\"\n", escape(line));
        return Some(("input", Outcome::Complain(text)));
    };
    let call = Call::parse(text)?;
    if call.goes_on && commands.evaluator.is_some() {
        return Some(("expression", evaluate(&call, commands)));
    }
    let own = |row: Row| row.names.contains(&call.word);
    Some(match find(call.word, commands) {
        Some(command) => {
            let name = command.names[0];
            // Whole: what is cut off could be what matters.
            match rights.allow(command.tier_for(&call.arguments), name, &escape_up_to(line.trim_ascii(), usize::MAX)) {
                Ok(()) => (name, begin(command, &call, json, probes)),
                Err(complaint) => (name, complain(&complaint)),
            }
        }
        None if own(HELP) => (HELP.names[0], help(commands, &call.arguments)),
        None if own(QUIT) => (QUIT.names[0], Outcome::End),
        None if own(ENABLE) => (ENABLE.names[0], enable(&call.arguments, rights)),
        None if own(JSON) => {
            let name = JSON.names.iter().copied().find(|name| *name == call.word).unwrap_or(JSON.names[0]);
            (name, Outcome::Switch { json: name != "#text", lines: name == "#lines" })
        }
        None if commands.evaluator.is_some() => ("expression", evaluate(&call, commands)),
        None => ("input", Outcome::Complain(unknown(&call, commands))),
    })
}

/// Whether a line is no command, and there is somebody who evaluates it.
pub(super) fn is_expression(line: &str, commands: &Commands) -> bool {
    let Some(call) = Call::parse(line) else { return false };
    let named = rows(commands).any(|row| row.names.contains(&call.word));
    commands.evaluator.is_some() && (!named || call.goes_on)
}

fn evaluate(call: &Call<'_>, commands: &Commands) -> Outcome {
    Outcome::Evaluate { text: call.text.to_owned(), unknown: unknown(call, commands) }
}

fn unknown(call: &Call<'_>, commands: &Commands) -> String {
    let (word, nearest) = (escape(call.word.as_bytes()), nearest(call.word, commands));
    format!("unknown command \"{word}\"; the nearest is {nearest}; help lists all\n")
}

fn begin(command: &'static Command, call: &Call<'_>, json: bool, probes: Probes<'_>) -> Outcome {
    let mut words = call.arguments.clone();
    let json = (json && command.has_json()) || words.contains(&"--json");
    if json && !words.contains(&"--json") {
        words.push("--json");
    }
    match command.begin(&words, Asking { typed: call.typed, probes }) {
        Ok(answer) if json => Outcome::Json(answer),
        Ok(answer) => Outcome::Answer(answer),
        Err(complaint) => complain(&complaint),
    }
}

fn complain(complaint: &str) -> Outcome {
    let lines = complaint.lines().map(|line| escape_up_to(line.as_bytes(), LONGEST_COMPLAINT) + "\n");
    Outcome::Complain(lines.collect())
}

fn enable(words: &[&str], rights: &mut Rights) -> Outcome {
    let tier = match words {
        [word] => Tier::named(word),
        _ => None,
    };
    match tier.ok_or_else(|| "enable takes one of read, probe, act".to_owned()).and_then(|tier| rights.set(tier)) {
        Ok(said) => Outcome::Say(said + "\n"),
        Err(complaint) => complain(&complaint),
    }
}

/// A line taken apart: `where 17`, `where(17)`, `coro::where(17)` and `coro.where(#17)` are the same.
struct Call<'line> {
    /// The whole, without what may stand before every command.
    text: &'line str,
    word: &'line str,
    /// What follows it.
    typed: &'line str,
    arguments: Vec<&'line str>,
    /// Something comes behind the closing parenthesis: `tasks().len()`.
    goes_on: bool,
}

impl<'line> Call<'line> {
    fn parse(line: &'line str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() {
            return None;
        }
        let line = line.strip_prefix("coro::").or_else(|| line.strip_prefix("coro.")).unwrap_or(line);
        let end = line.find(|c: char| c.is_whitespace() || c == '(').unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        let rest = rest.trim();
        let goes_on = closes_at(rest).is_some_and(|end| end + 1 < rest.len());
        let rest = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(rest);
        let arguments = rest.split(|c: char| c.is_whitespace() || c == ',').filter(|part| !part.is_empty()).collect();
        Some(Self { text: line, word, typed: rest, arguments, goes_on })
    }
}

/// Where the parenthesis that `text` begins with is closed.
fn closes_at(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0, None, false);
    for (i, c) in text.char_indices() {
        match (quoted, c) {
            (Some(_), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(quote), c) if c == quote && !escaped => quoted = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') => quoted = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, _) => {}
        }
        escaped = false;
        if depth == 0 {
            return (i > 0).then_some(i);
        }
    }
    None
}

fn find(word: &str, commands: &Commands) -> Option<&'static Command> {
    commands.table.iter().find(|command| command.names.contains(&word))
}

fn help(commands: &Commands, arguments: &[&str]) -> Outcome {
    let width = rows(commands).map(|row| row.usage().len()).max().unwrap_or(0);
    let rows: Vec<Row> = match arguments {
        [] => rows(commands).collect(),
        [word, ..] => match rows(commands).find(|row| row.names.contains(word)) {
            Some(row) => vec![row],
            None => {
                let (word, nearest) = (escape(word.as_bytes()), nearest(word, commands));
                return Outcome::Complain(format!("no command is called \"{word}\"; the nearest is {nearest}\n"));
            }
        },
    };
    let mut text = String::new();
    for row in rows {
        let _ = write!(text, "{:width$}  {}", row.usage(), row.help);
        if let [_, others @ ..] = row.names
            && !others.is_empty()
        {
            let _ = write!(text, " (also: {})", others.join(", "));
        }
        text.push('\n');
    }
    Outcome::Say(text)
}

/// A name that begins with `word`, else the one that takes the fewest edits from it.
fn nearest(word: &str, commands: &Commands) -> &'static str {
    let names = rows(commands).flat_map(|row| row.names.iter().copied()).filter(|name| name.len() > 1);
    nearest_of(word, names).unwrap_or("help")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::READ;

    struct Once(String);

    impl Answer for Once {
        fn more(&mut self, out: &mut Vec<u8>) -> bool {
            out.extend_from_slice(self.0.as_bytes());
            false
        }
    }

    static FAKE: Commands = Commands {
        table: &[
            Command {
                names: &["where_all"],
                arguments: "",
                help: "every task",
                tier: READ,
                run: |_| Ok(Box::new(Once("all\n".into()))),
            },
            Command {
                names: &["where", "where_is"],
                arguments: "ID",
                help: "one task",
                tier: READ,
                run: |asked| match asked.words {
                    ["#17" | "17"] => Ok(Box::new(Once("task 17\n".into()))),
                    others => Err(format!("no id: {}\nwrite where 17", others.join(" "))),
                },
            },
            Command {
                names: &["set"],
                arguments: "[VALUE]",
                help: "shows or changes something",
                tier: |words| if words.is_empty() { Tier::Read } else { Tier::Act },
                run: |_| Ok(Box::new(Once("set\n".into()))),
            },
        ],
        banner: || "fake".into(),
        name: || "fake".into(),
        welcome: || Box::new(Once(String::new())),
        evaluator: None,
    };

    fn answer(line: &str) -> String {
        answer_with(line, &mut Rights::new(Tier::Act, "session 0 (test)".into()))
    }

    fn answer_with(line: &str, rights: &mut Rights) -> String {
        match run(line.as_bytes(), &FAKE, rights, false, Default::default()).expect("a command").1 {
            Outcome::Answer(mut answer) | Outcome::Json(mut answer) => {
                let mut out = Vec::new();
                while answer.more(&mut out) {}
                String::from_utf8(out).expect("text")
            }
            Outcome::Say(text) | Outcome::Complain(text) => text,
            Outcome::Switch { json, lines } => format!("json: {json}, lines: {lines}\n"),
            Outcome::Evaluate { text, unknown } => format!("evaluate {text:?} or {unknown}"),
            Outcome::End => "END".into(),
        }
    }

    #[test]
    fn one_command_in_many_spellings() {
        for line in ["where_all", "where_all()", " coro.where_all ", "coro::where_all()", "where_all ( )"] {
            assert_eq!(answer(line), "all\n", "{line:?}");
        }
        for line in ["where 17", "where #17", "where(17)", "coro::where_is(#17)", "coro.where\t17"] {
            assert_eq!(answer(line), "task 17\n", "{line:?}");
        }
        for line in ["quit", "exit", "exit()"] {
            assert_eq!(answer(line), "END", "{line:?}");
        }
        assert!(run(b" \t", &FAKE, &mut Rights::new(Tier::Read, String::new()), false, Default::default()).is_none());
    }

    #[test]
    fn what_changes_something_needs_its_tier_first() {
        let mut rights = Rights::new(Tier::Act, "session 0 (test)".into());
        assert_eq!(answer_with("set", &mut rights), "set\n");
        assert_eq!(answer_with("set 1", &mut rights), "set needs the tier act: write first: enable act\n");
        assert_eq!(answer_with("enable probe", &mut rights), "this session may now probe\n");
        assert_eq!(answer_with("set 1", &mut rights), "set needs the tier act: write first: enable act\n");
        assert_eq!(answer_with("enable act", &mut rights), "this session may now act\n");
        assert_eq!(answer_with("set 1", &mut rights), "set\n");
        for line in ["enable", "enable root", "enable act act", "enable Act"] {
            assert_eq!(answer_with(line, &mut rights), "enable takes one of read, probe, act\n", "{line}");
        }
        let mut low = Rights::new(Tier::Read, "session 0 (test)".into());
        assert_eq!(answer_with("enable act", &mut low), "act is not to be had here: read is the highest\n");
        assert_eq!(answer_with("set 1", &mut low), "set needs the tier act, and here read is the highest\n");
    }

    #[test]
    fn a_complaint_is_lines_without_anything_that_a_terminal_obeys() {
        assert_eq!(answer("where x\x1b[2Jy"), "no id: x\\u{1b}[2Jy\nwrite where 17\n");
        assert!(answer(&format!("where {}", "x".repeat(4000))).len() < 2 * LONGEST_COMPLAINT);
    }

    #[test]
    fn an_unknown_word_names_the_nearest() {
        for (word, nearest) in
            [("whereall", "where_all"), ("whe", "where"), ("HELP", "help"), ("q", "quit"), ("exti", "exit")]
        {
            assert!(answer(word).contains(&format!("the nearest is {nearest};")), "{}", answer(word));
        }
        let shown = answer("wh\x1b[2Jere");
        assert!(shown.contains("wh\\u{1b}[2Jere") && !shown.contains('\x1b'), "{shown:?}");
        assert!(answer(&"x".repeat(4096)).len() < 300);
        assert!(answer("coro::").starts_with("unknown command \"\""));
    }

    struct Nobody;

    impl crate::commands::Evaluate for Nobody {
        fn is_open(&self, _text: &str) -> bool {
            false
        }

        fn begin(&mut self, _expression: crate::commands::Expression<'_>) -> crate::commands::Begun {
            Err(String::new())
        }
    }

    #[test]
    fn what_is_no_command_is_an_expression_if_there_is_somebody_for_it() {
        let commands = Commands { evaluator: Some(|| Box::new(Nobody)), ..FAKE };
        let outcome = |line: &str| match run(
            line.as_bytes(),
            &commands,
            &mut Rights::new(Tier::Read, String::new()),
            false,
            Default::default(),
        ) {
            Some((_, Outcome::Evaluate { text, unknown })) => {
                assert!(is_expression(line, &commands), "{line}");
                assert!(unknown.starts_with("unknown command "), "{unknown}");
                Some(text)
            }
            _ => {
                assert!(!is_expression(line, &commands), "{line}");
                None
            }
        };
        for line in
            ["1 + 1", "where_all().len()", "where(17).name", "where (\")\", (1)) .x", "nonsense", "x where_all", "["]
        {
            assert_eq!(outcome(line).as_deref(), Some(line));
        }
        assert_eq!(outcome("coro.where(17).name").as_deref(), Some("where(17).name"));
        for line in
            ["where_all", "where_all()", "where(17)", "where 17", "where (17", "where 17).x", "help", "quit()", "#json"]
        {
            assert_eq!(outcome(line), None, "{line}");
        }
        assert_eq!(closes_at("(a ')' \"\\\")\" (b)) c"), Some(16));
    }

    #[test]
    fn help_has_a_line_for_each_row() {
        let text = answer("help");
        assert_eq!(text.lines().count(), FAKE.table.len() + 4);
        for row in rows(&FAKE) {
            assert!(text.contains(&row.usage()) && text.contains(row.help), "{row:?}");
            assert_eq!(answer(&format!("help {}", row.names[0])).lines().count(), 1);
        }
        assert!(answer("help wheer").ends_with("the nearest is where\n"));
    }
}
