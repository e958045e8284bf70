//! What may follow on the line: commands, their options, ids of tasks by number or by a part of their name.
//!
//! Tasks are asked for over a session of its own, which ends at once, so that the one at the prompt is not disturbed; their
//! list is good for a moment.
//!
//! Must not know: the terminal, the editor.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::known::Known;
use crate::target::Target;
use crate::wire::{Said, Session};

/// How long a list of tasks is good.
const FRESH: Duration = Duration::from_secs(3);

/// Who presses Tab does not wait longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tasks that are looked at, and those that are shown.
const MOST: usize = 20_000;
const SHOWN: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Task {
    id: String,
    name: String,
    state: String,
}

#[derive(Debug)]
pub(super) struct Completions {
    target: Target,
    known: Known,
    tasks: RefCell<(Option<Instant>, Vec<Task>)>,
}

impl Completions {
    pub(super) fn new(target: Target, known: Known) -> Completions {
        Completions { target, known, tasks: RefCell::default() }
    }

    /// Where the word begins that is being typed, and what it may be: as shown, and as written.
    pub(super) fn of(&self, line: &str) -> (usize, Vec<(String, String)>) {
        let start = line.rfind(|c: char| c.is_whitespace() || matches!(c, '(' | ',')).map_or(0, |at| at + 1);
        let (before, typed) = line.split_at(start);
        let found = match crate::known::word(before) {
            "" => self.commands(typed, true),
            "help" | "?" => self.commands(typed, false),
            name => match self.known.find(name) {
                Some(command) => self.arguments(&command.arguments, typed),
                None => Vec::new(),
            },
        };
        (start, found)
    }

    fn commands(&self, typed: &str, own: bool) -> Vec<(String, String)> {
        let bare = typed.strip_prefix("coro::").or_else(|| typed.strip_prefix("coro.")).unwrap_or(typed);
        let prefix = &typed[..typed.len() - bare.len()];
        let names = self.known.commands.iter().flat_map(|c| std::iter::once(&c.name).chain(&c.others));
        // What the client itself uses is not for people; of the other names only those that were begun.
        let mut found: Vec<&String> = names
            .filter(|name| name.starts_with(bare) && !name.starts_with('#'))
            .filter(|name| !bare.is_empty() || self.known.commands.iter().any(|c| c.name == **name))
            .collect();
        found.sort();
        found.dedup();
        let space = |name: &str| match self.known.find(name) {
            Some(command) if own && !command.arguments.is_empty() => " ",
            _ => "",
        };
        found.into_iter().map(|name| (name.clone(), format!("{prefix}{name}{}", space(name)))).collect()
    }

    /// By what `help` says may follow: `[--all]`, `read|probe|act`, `ID`.
    fn arguments(&self, usage: &str, typed: &str) -> Vec<(String, String)> {
        let words =
            usage.split(|c: char| c.is_whitespace() || matches!(c, '[' | ']' | '|')).filter(|word| !word.is_empty());
        let is_literal = |word: &str| word.chars().any(|c| c.is_ascii_lowercase());
        let mut found: Vec<(String, String)> = words
            .clone()
            .filter(|word| is_literal(word) && word.starts_with(typed))
            .map(|word| (word.to_owned(), word.to_owned()))
            .collect();
        if words.into_iter().any(|word| word.trim_end_matches(['.', '…']) == "ID") && !typed.starts_with('-') {
            found.extend(self.tasks(typed));
        }
        found
    }

    fn tasks(&self, typed: &str) -> Vec<(String, String)> {
        let (sign, digits) = match typed.strip_prefix('#') {
            Some(digits) => ("#", digits),
            None => ("", typed),
        };
        let mut kept = self.tasks.borrow_mut();
        if kept.0.is_none_or(|when| when.elapsed() > FRESH) {
            *kept = (Some(Instant::now()), self.list());
        }
        let part = typed.to_lowercase();
        let matches =
            |task: &&Task| task.id.starts_with(digits) || (sign.is_empty() && task.name.to_lowercase().contains(&part));
        kept.1
            .iter()
            .filter(matches)
            .take(SHOWN)
            .map(|task| {
                let name = if task.name.is_empty() { String::new() } else { format!(" \"{}\"", task.name) };
                (format!("{sign}{}{name} {}", task.id, task.state), format!("{sign}{}", task.id))
            })
            .collect()
    }

    /// Empty if the server does not answer in time; then there is nothing to complete.
    fn list(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        let begun = Instant::now();
        let Ok(mut session) = Session::open_within(&self.target, PATIENCE) else { return tasks };
        let _ = session.ask("where_all", |said| {
            if let Said::Line(line) = said {
                tasks.extend(parse(&crate::terminal::plain(line)));
            }
            tasks.len() < MOST && begun.elapsed() < PATIENCE
        });
        session.close();
        tasks
    }
}

/// `#17 parked 3.2s "db writer" read fd 9 …`
fn parse(line: &str) -> Option<Task> {
    let rest = line.strip_prefix('#')?;
    let (id, rest) = rest.split_once(' ')?;
    let state = rest.split(' ').next().unwrap_or_default();
    // `running on worker 2 for 3.1 s`, `parked 3.1s`: a name stands right behind.
    let before = if state == "running" { 7 } else { 2 };
    let name = rest.splitn(before + 1, ' ').nth(before);
    let name = name.and_then(|rest| rest.strip_prefix('"')).map(quoted).unwrap_or_default();
    id.bytes().all(|b| b.is_ascii_digit()).then(|| Task { id: id.into(), name, state: state.into() })
}

/// Up to the quote that ends it.
fn quoted(text: &str) -> String {
    let mut escaped = false;
    let end = text.find(|c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    text[..end.unwrap_or(text.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::known::Command;

    fn completions() -> Completions {
        let command = |name: &str, others: &[&str], arguments: &str| Command {
            name: name.into(),
            others: others.iter().map(|name| (*name).to_owned()).collect(),
            arguments: arguments.into(),
            help: String::new(),
        };
        let commands = vec![
            command("where_all", &[], "[--json]"),
            command("where", &["where_is"], "ID"),
            command("fds", &["sockets"], "[--all] [--json]"),
            command("enable", &[], "read|probe|act"),
            command("#json", &["#lines"], ""),
        ];
        let it = Completions::new(Target::Path("/nowhere".into()), Known { commands });
        let task = |id: &str, name: &str| Task { id: id.into(), name: name.into(), state: "parked".into() };
        let tasks = vec![task("1", ""), task("17", "DB writer"), task("18", "client")];
        it.tasks.replace((Some(Instant::now() + Duration::from_secs(60)), tasks));
        it
    }

    fn written(line: &str) -> (usize, Vec<String>) {
        let (start, found) = completions().of(line);
        (start, found.into_iter().map(|(_, written)| written).collect())
    }

    #[test]
    fn commands_options_and_tasks_are_completed() {
        for (line, start, found) in [
            ("whe", 0, vec!["where ", "where_all ", "where_is "]),
            ("", 0, vec!["enable ", "fds ", "where ", "where_all "]),
            ("coro.f", 0, vec!["coro.fds "]),
            ("help s", 5, vec!["sockets"]),
            ("fds --", 4, vec!["--all", "--json"]),
            ("enable a", 7, vec!["act"]),
            ("where 1", 6, vec!["1", "17", "18"]),
            ("where #17", 6, vec!["#17"]),
            ("where(17", 6, vec!["17"]),
            ("where wri", 6, vec!["17"]),
            ("nonsense x", 9, vec![]),
        ] {
            assert_eq!(written(line), (start, found.into_iter().map(str::to_owned).collect()), "{line:?}");
        }
        let (_, shown) = completions().of("where wri");
        assert_eq!(shown[0].0, "17 \"DB writer\" parked");
    }

    #[test]
    fn a_line_of_where_all_gives_id_and_name() {
        let task = |line: &str| parse(line).map(|task| (task.id, task.name, task.state));
        let of = |id: &str, name: &str, state: &str| Some((id.to_owned(), name.to_owned(), state.to_owned()));
        assert_eq!(task("#17 parked 3.2s \"db \\\"w\\\"\" lock \"x\" [a|1]"), of("17", "db \\\"w\\\"", "parked"));
        assert_eq!(task("#1 parked 3.2s lock \"pool\" src/db.rs:31"), of("1", "", "parked"));
        assert_eq!(task("#4 running on worker 3 for 3.2 s \"hog\" [a|1]"), of("4", "hog", "running"));
        assert_eq!(task("#5 unstarted 2ms \"x\""), of("5", "x", "unstarted"));
        assert_eq!(task("24 tasks: 24 parked"), None);
    }
}
