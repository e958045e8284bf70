//! The command table: what a session may be asked, one row a command.
//!
//! Invariants: every word that runs something is in [`TABLE`], and `help` prints what the table says, so no command is
//! without its help; every text made here is whole lines, and input repeated in it is escaped.
//!
//! Must not know: sockets, sessions, or how an answer is found; rows reach that through [`Commands`].

use std::fmt::Write as _;

use super::line::escape;
use super::{Answer, Commands};

/// What a command comes to.
pub(super) enum Outcome {
    /// Comes in pieces, when the client has room for them.
    Answer(Box<dyn Answer>),
    /// Whole lines, known at once.
    Say(String),
    /// The session ends after what was said before.
    End,
}

/// One command.
pub(super) struct Row {
    /// The first is the command's own; the others do the same.
    pub(super) names: &'static [&'static str],
    /// What follows the name, for `help`.
    arguments: &'static str,
    help: &'static str,
    run: fn(&Commands, &[&str]) -> Outcome,
}

impl Row {
    pub(super) fn name(&self) -> &'static str {
        self.names[0]
    }

    fn usage(&self) -> String {
        format!("{} {}", self.name(), self.arguments).trim_end().to_owned()
    }
}

/// All commands, in the order in which `help` shows them.
static TABLE: &[Row] = &[
    Row {
        names: &["where_all"],
        arguments: "",
        help: "every task: its id, name, state and stack",
        run: |commands, arguments| match arguments {
            [] => Outcome::Answer((commands.where_all)()),
            _ => Outcome::Say("where_all takes no argument; where ID shows one task\n".into()),
        },
    },
    Row {
        names: &["where", "where_is"],
        arguments: "ID",
        help: "one task, by its id: where 17 or where #17",
        run: where_is,
    },
    Row { names: &["help", "?"], arguments: "[COMMAND]", help: "this list, or one line of it", run: help },
    Row { names: &["quit", "exit"], arguments: "", help: "ends the session", run: |_, _| Outcome::End },
];

/// Runs one line. `None` for a blank one. The name beside the outcome is the command's, for messages about it.
pub(super) fn run(line: &[u8], commands: &Commands) -> Option<(&'static str, Outcome)> {
    let Ok(text) = std::str::from_utf8(line) else {
        return Some(("input", Outcome::Say(format!("this line is not UTF-8 text: \"{}\"\n", escape(line)))));
    };
    let call = Call::parse(text)?;
    Some(match find(call.word) {
        Some(row) => (row.name(), (row.run)(commands, &call.arguments)),
        None => {
            let (word, nearest) = (escape(call.word.as_bytes()), nearest(call.word));
            let text = format!("unknown command \"{word}\"; the nearest is {nearest}; help lists all\n");
            ("input", Outcome::Say(text))
        }
    })
}

/// A line taken apart: `where 17`, `where(17)`, `coro::where(17)` and `coro.where(#17)` are the same.
struct Call<'line> {
    word: &'line str,
    arguments: Vec<&'line str>,
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
        let rest = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(rest);
        let arguments = rest.split(|c: char| c.is_whitespace() || c == ',').filter(|part| !part.is_empty()).collect();
        Some(Self { word, arguments })
    }
}

fn find(word: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.names.contains(&word))
}

fn where_is(commands: &Commands, arguments: &[&str]) -> Outcome {
    let [argument] = arguments else {
        return Outcome::Say("where takes one task's id: where 17 or where #17; where_all shows the ids\n".into());
    };
    let digits = argument.strip_prefix('#').unwrap_or(argument);
    // `parse` alone would take "+17".
    match digits.parse() {
        Ok(id) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Outcome::Answer((commands.where_is)(id)),
        _ => {
            let shown = escape(argument.as_bytes());
            Outcome::Say(format!("\"{shown}\" is not a task's id: write 17 or #17; where_all shows the ids\n"))
        }
    }
}

fn help(_: &Commands, arguments: &[&str]) -> Outcome {
    let width = TABLE.iter().map(|row| row.usage().len()).max().unwrap_or(0);
    let rows: Vec<&Row> = match arguments {
        [] => TABLE.iter().collect(),
        [word, ..] => match find(word) {
            Some(row) => vec![row],
            None => {
                let (word, nearest) = (escape(word.as_bytes()), nearest(word));
                return Outcome::Say(format!("no command is called \"{word}\"; the nearest is {nearest}\n"));
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
fn nearest(word: &str) -> &'static str {
    let word: String = word.to_lowercase().chars().take(32).collect();
    let letters: Vec<char> = word.chars().collect();
    let names = TABLE.iter().flat_map(|row| row.names).filter(|name| name.len() > 1);
    names.min_by_key(|name| (!name.starts_with(&word), edits(&letters, name))).copied().unwrap_or("help")
}

/// Levenshtein's distance, one row at a time.
fn edits(from: &[char], to: &str) -> usize {
    let mut costs: Vec<usize> = (0..=from.len()).collect();
    for (row, wanted) in to.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut costs[0], row + 1);
        for (column, &given) in from.iter().enumerate() {
            let change = diagonal + usize::from(given != wanted);
            diagonal = costs[column + 1];
            costs[column + 1] = change.min(diagonal + 1).min(costs[column] + 1);
        }
    }
    costs[from.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Once(String);

    impl Answer for Once {
        fn more(&mut self, out: &mut Vec<u8>) -> bool {
            out.extend_from_slice(self.0.as_bytes());
            false
        }
    }

    static FAKE: Commands = Commands {
        where_all: || Box::new(Once("all\n".into())),
        where_is: |id| Box::new(Once(format!("task {id}\n"))),
        banner: || "fake".into(),
    };

    fn answer(line: &str) -> String {
        match run(line.as_bytes(), &FAKE).expect("a command").1 {
            Outcome::Answer(mut answer) => {
                let mut out = Vec::new();
                while answer.more(&mut out) {}
                String::from_utf8(out).expect("text")
            }
            Outcome::Say(text) => text,
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
        assert_eq!(answer("where 18446744073709551615"), "task 18446744073709551615\n");
        for line in ["quit", "exit", "exit()"] {
            assert_eq!(answer(line), "END", "{line:?}");
        }
        assert!(run(b" \t", &FAKE).is_none());
    }

    #[test]
    fn what_is_no_id_is_named() {
        for word in ["+17", "-1", "##1", "0x11", "18446744073709551616", "#"] {
            assert!(answer(&format!("where {word}")).starts_with(&format!("\"{word}\" is not a task's id")), "{word}");
        }
        assert!(answer("where").starts_with("where takes one"));
        assert!(answer("where 1 2").starts_with("where takes one"));
        assert!(answer("where_all 1").starts_with("where_all takes no"));
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

    #[test]
    fn help_has_a_line_for_each_row() {
        let text = answer("help");
        assert_eq!(text.lines().count(), TABLE.len());
        for row in TABLE {
            assert!(text.contains(&row.usage()) && text.contains(row.help), "{}", row.name());
            assert_eq!(answer(&format!("help {}", row.names[0])).lines().count(), 1);
        }
        assert!(answer("help wheer").ends_with("the nearest is where\n"));
    }
}
