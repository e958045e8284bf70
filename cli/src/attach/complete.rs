//! What may follow on the line: commands, their arguments, ids of tasks by number or by a part of their name; in expressions
//! functions and values of the program and of the console, variables, and what things have.
//!
//! Must not know: the terminal, the editor, how the program is asked.

#![forbid(unsafe_code)]

use std::cell::RefCell;

use serde::Deserialize;

use super::facts::Facts;
use super::vocabulary::{FILTERS, GROUPS, METHODS, Values};
use crate::expression::{self, Scan};
use crate::known::{self, Known};
use crate::target::Target;

/// Tasks and names that are shown.
const SHOWN: usize = 200;

/// What may stand at a place: as shown, and as written.
type Found = Vec<(String, String)>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Task {
    id: String,
    name: String,
    state: String,
}

/// Something that an expression can name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Callable {
    name: String,
    usage: String,
    kind: String,
    of: String,
    doc: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    function: Option<Callable>,
}

#[derive(Debug)]
pub(super) struct Completions {
    known: Known,
    facts: Facts,
    /// What the session has bound, each with what its value begins with.
    variables: RefCell<Vec<(String, String)>>,
    /// The lines before the one that is typed.
    before: RefCell<String>,
}

impl Completions {
    pub(super) fn new(target: Target, known: Known) -> Completions {
        let (variables, before) = Default::default();
        Completions { known, facts: Facts::new(target), variables, before }
    }

    /// The line that will be typed goes on from these.
    pub(super) fn goes_on_from(&self, lines: &str) {
        self.before.replace(lines.to_owned());
    }

    /// The session has evaluated that.
    pub(super) fn evaluated(&self, text: &str) {
        if !self.known.is_expression(text) {
            return;
        }
        let mut variables = self.variables.borrow_mut();
        for (name, value) in Scan::of(text).bound {
            variables.retain(|(known, _)| *known != name);
            variables.push((name, value));
        }
    }

    /// Where the word begins that is being typed, and what it may be: as shown, and as written.
    pub(super) fn of(&self, line: &str) -> (usize, Found) {
        let before = self.before.borrow();
        let whole = if before.is_empty() { line.to_owned() } else { format!("{before}\n{line}") };
        let ahead = whole.len() - line.len();
        let (start, found) = self.find(&whole);
        // Nothing of an earlier line can be changed.
        if start < ahead { (0, Vec::new()) } else { (start - ahead, found) }
    }

    fn find(&self, line: &str) -> (usize, Found) {
        let name = known::word(line);
        let begins = line.trim_start().strip_prefix("coro::").or(line.trim_start().strip_prefix("coro."));
        let rest = &begins.unwrap_or(line.trim_start())[name.len()..];
        if rest.is_empty() {
            let start = line.len() - line.trim_start().len();
            return match begins {
                Some(_) => (start, self.commands(&line[start..], true)),
                None => self.first_word(line, start),
            };
        }
        if expression::goes_on(rest) || (self.known.find(name).is_none() && !matches!(name, "help" | "?")) {
            return self.expression(line);
        }
        let start = line.rfind(|c: char| c.is_whitespace() || matches!(c, '(' | ',')).map_or(0, |at| at + 1);
        let (before, typed) = line.split_at(start);
        let earlier: Vec<&str> = before[line.len() - rest.len()..]
            .split(|c: char| c.is_whitespace() || matches!(c, '(' | ','))
            .filter(|word| !word.is_empty())
            .collect();
        (start, self.arguments(name, &earlier, typed))
    }

    /// A command, or the beginning of an expression.
    fn first_word(&self, line: &str, start: usize) -> (usize, Found) {
        let typed = &line[start..];
        let (at, mut found) = self.expression(line);
        if at != start {
            return (at, found);
        }
        // What has the same name as a command is completed as that.
        found.retain(|(_, written)| self.known.find(written.trim_end_matches(['(', ')'])).is_none());
        if typed.is_empty() {
            found.retain(|(shown, _)| !METHODS.contains(&shown.as_str()));
        }
        let mut all = self.commands(typed, true);
        all.extend(found);
        (start, all)
    }

    fn commands(&self, typed: &str, own: bool) -> Found {
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

    /// Behind a command and the words `earlier`: what is known of it here, else what `help` says may follow: `[--all]`,
    /// `read|probe|act`, `ID`.
    fn arguments(&self, name: &str, earlier: &[&str], typed: &str) -> Found {
        if matches!(name, "help" | "?") {
            return self.commands(typed, false);
        }
        let Some(command) = self.known.find(name) else { return Vec::new() };
        let usage = command.arguments.as_str();
        let mut found: Found = Vec::new();
        let mut add = |words: &mut dyn Iterator<Item = String>| {
            found.extend(words.filter(|word| word.starts_with(typed)).map(|word| (word.clone(), word)));
        };
        match (name, earlier) {
            ("set", []) => {
                let settings = self.facts.ask("set");
                let names = settings.iter().filter_map(|line| line.strip_prefix("set ")?.split(' ').next());
                add(&mut names.map(|name| format!("{name} ")));
            }
            ("set", [setting]) => {
                // `set latency 200ms  50ms|off: slices that …`
                let settings = self.facts.ask("set");
                let takes = settings.iter().find_map(|line| {
                    let (_, takes) = line.strip_prefix("set ")?.strip_prefix(setting)?.split_once("  ")?;
                    takes.trim().split(':').next()
                });
                let is_word = |word: &&str| !word.contains("..");
                add(&mut takes.unwrap_or_default().split('|').filter(is_word).map(str::to_owned));
            }
            ("count", []) => add(&mut std::iter::once("by ".to_owned())),
            ("count", ["by"]) => add(&mut GROUPS.iter().map(|word| format!("{word} "))),
            ("histogram", []) => add(&mut self.classes().into_iter()),
            _ => {}
        }
        if usage.contains("FILTERS") && !matches!((name, earlier), ("count", [] | ["by"])) {
            found.extend(self.filters(typed, name == "count"));
        }
        let words =
            usage.split(|c: char| c.is_whitespace() || matches!(c, '[' | ']' | '|')).filter(|word| !word.is_empty());
        let is_literal = |word: &str| word.chars().any(|c| c.is_ascii_lowercase()) && !earlier.contains(&word);
        let first = |word: &str| name != "count" || word != "by";
        let words_of_usage: Vec<&str> = words.collect();
        let literals = words_of_usage.iter().filter(|word| is_literal(word) && word.starts_with(typed) && first(word));
        found.extend(literals.map(|word| ((*word).to_owned(), (*word).to_owned())));
        let takes_id = words_of_usage.iter().any(|word| word.trim_end_matches(['.', '…']) == "ID");
        let is_enough =
            earlier.iter().any(|word| word.starts_with("--match")) || (!earlier.is_empty() && !usage.contains("ID…"));
        if takes_id && !is_enough && !typed.starts_with('-') {
            found.extend(self.tasks(typed));
        }
        found
    }

    /// A filter of tasks, or its value.
    fn filters(&self, typed: &str, counted: bool) -> Found {
        let sign = typed.find(['=', '~', '<', '>', '!']);
        let Some(sign) = sign else {
            let of_lists = ["by=", "sort=", "limit="];
            let fits = |name: &str| name.starts_with(typed) && !(counted && of_lists[..2].contains(&name));
            let fitting = FILTERS.iter().filter(|(name, _)| fits(name));
            return fitting.map(|(name, _)| ((*name).to_owned(), (*name).to_owned())).collect();
        };
        let value = sign + typed[sign..].find(|c| !"=~<>!".contains(c)).unwrap_or(typed.len() - sign);
        let (head, value) = typed.split_at(value);
        let field = &typed[..sign];
        let Some((_, values)) = FILTERS.iter().find(|(name, _)| name.trim_end_matches(['=', '~', '>', '.']) == field)
        else {
            return Vec::new();
        };
        let quoted = |text: &str| if text.contains(' ') { format!("\"{text}\"") } else { text.to_owned() };
        let words: Vec<String> = match values {
            Values::Words(words) => words.iter().map(|word| (*word).to_owned()).collect(),
            Values::Names => {
                let mut names: Vec<String> = self.list(value).into_iter().map(|task| task.name).collect();
                names.sort();
                names.dedup();
                names.into_iter().filter(|name| !name.is_empty()).collect()
            }
            Values::Classes => self.classes(),
            Values::Free => Vec::new(),
        };
        let begun = value.trim_start_matches('"');
        let fitting = words.into_iter().filter(|word| word.trim_start_matches('"').starts_with(begun));
        fitting.take(SHOWN).map(|word| (word.clone(), format!("{head}{}", quoted(&word)))).collect()
    }

    /// As `histogram` and `class=` take them.
    fn classes(&self) -> Vec<String> {
        // `echo       20  …`, under a head. `count` would remember that it was asked.
        let lines = self.facts.ask("tasks by=class limit=200");
        let mut all: Vec<String> = lines.iter().filter_map(|line| class(line)).collect();
        all.sort();
        all.dedup();
        all
    }

    fn tasks(&self, typed: &str) -> Found {
        let (sign, digits) = match typed.strip_prefix('#') {
            Some(digits) => ("#", digits),
            None => ("", typed),
        };
        let part = typed.to_lowercase();
        let matches =
            |task: &Task| task.id.starts_with(digits) || (sign.is_empty() && task.name.to_lowercase().contains(&part));
        let found = self.list(typed).into_iter().filter(matches).take(SHOWN);
        found
            .map(|task| {
                let name = if task.name.is_empty() { String::new() } else { format!(" \"{}\"", task.name) };
                (format!("{sign}{}{name} {}", task.id, task.state), format!("{sign}{}", task.id))
            })
            .collect()
    }

    /// Tasks with `part` in their names; if that is a number or nothing, any.
    fn list(&self, part: &str) -> Vec<Task> {
        let part = part.trim_matches('"');
        let is_name = part.chars().any(|c| !c.is_ascii_digit() && c != '#');
        let question = match self.known.find("tasks") {
            Some(_) if is_name && !part.contains(['"', '\\', '(']) => format!("tasks name~\"{part}\" limit={SHOWN}"),
            _ => "where_all".to_owned(),
        };
        self.facts.ask(&question).iter().filter_map(|line| parse(line)).collect()
    }

    /// Within an expression.
    fn expression(&self, line: &str) -> (usize, Found) {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
        let start =
            line.rfind(|c| !is_part(c)).map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8));
        let (before, typed) = line.split_at(start);
        if Scan::of(line).is_quoted || typed.starts_with(|c: char| c.is_ascii_digit()) {
            return (line.len(), Vec::new());
        }
        let all = self.callables();
        // Names with dots in them are whole words, too.
        let named = all.iter().filter(|it| it.name.starts_with(typed));
        let mut found: Found = named.map(|it| (it.usage.clone(), written(it))).collect();
        let Some(dot) = typed.rfind('.') else {
            let variables = self.variables.borrow();
            let mut names: Vec<&str> =
                variables.iter().map(|(name, _)| name.as_str()).chain(parameters(before)).collect();
            if !typed.is_empty() {
                names.extend(["last", "let"]);
            }
            names.retain(|name| name.starts_with(typed));
            names.sort_unstable();
            names.dedup();
            found.extend(names.into_iter().map(|name| (name.to_owned(), name.to_owned())));
            return (start, found);
        };
        if !found.is_empty() {
            return (start, found);
        }
        let (receiver, member) = (&typed[..dot], &typed[dot + 1..]);
        let mut members: Vec<String> = METHODS.iter().map(|name| format!("{name}(")).collect();
        members.extend(self.fields(receiver, before, &all));
        members.retain(|name| name.starts_with(member));
        members.sort();
        members.dedup();
        let bare = |name: &str| name.trim_end_matches('(').to_owned();
        (start + dot + 1, members.into_iter().map(|name| (bare(&name), name)).collect())
    }

    /// What the thing in front of the dot may have: if it is a parameter or follows a bracket, what the functions named before
    /// give; if it is a variable, what its value began with gives.
    fn fields(&self, receiver: &str, before: &str, all: &[Callable]) -> Vec<String> {
        let source = |text: &str| {
            let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).rev();
            words.map(|word| word.trim_matches('.')).find_map(|word| {
                let variable =
                    self.variables.borrow().iter().find(|(name, _)| name == word).map(|(_, value)| value.clone());
                let word = variable.as_deref().unwrap_or(word);
                let fields = all.iter().find(|it| it.name == word).map(|it| fields_of(it, all)).unwrap_or_default();
                (!fields.is_empty()).then_some(fields)
            })
        };
        match receiver {
            "" => source(before),
            receiver if parameters(before).any(|name| name == receiver) => source(before),
            receiver => source(receiver),
        }
        .unwrap_or_default()
    }

    fn callables(&self) -> Vec<Callable> {
        if self.known.find("functions").is_none() {
            return Vec::new();
        }
        let rows = self.facts.ask("functions --json");
        let all: Vec<Callable> =
            rows.iter().filter_map(|row| serde_json::from_str::<Row>(row).ok()?.function).collect();
        if !all.is_empty() {
            return all;
        }
        // Without JSON in the program.
        self.facts.ask("functions").iter().filter_map(|line| callable(line)).collect()
    }
}

/// With a bracket behind it where it takes something, with both where it takes nothing.
fn written(it: &Callable) -> String {
    match it.kind.as_str() {
        "value" => it.name.clone(),
        _ if it.usage.ends_with("()") => format!("{}()", it.name),
        _ => format!("{}(", it.name),
    }
}

/// `set_limit(clients: int)  act    how many clients`
fn callable(line: &str) -> Option<Callable> {
    let (usage, rest) = line.split_once("  ")?;
    let (tier, doc) = rest.trim_start().split_once(' ')?;
    let doc = doc.trim_start();
    let name = usage.split('(').next().unwrap_or_default();
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    if !matches!(tier, "read" | "probe" | "act" | "repl") || name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    let kind = if usage.contains('(') { "function" } else { "value" };
    Some(Callable {
        name: name.to_owned(),
        usage: usage.to_owned(),
        kind: kind.to_owned(),
        of: String::new(),
        doc: doc.strip_prefix("value: ").unwrap_or(doc).to_owned(),
    })
}

/// What each thing has that a function of the console gives, as its line says: `every worker: index, runtime, …`.
fn fields_of(it: &Callable, all: &[Callable]) -> Vec<String> {
    // One task, of those that `tasks` gives.
    let it = if it.name == "where" { all.iter().find(|it| it.name == "tasks").unwrap_or(it) } else { it };
    if it.of == "program" {
        return Vec::new();
    }
    let list = it.doc.split_once(": ").map_or("", |(_, list)| list);
    let words = list.split([',', ' ']).map(str::trim);
    let is_name = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let glue = ["and", "seconds", "ago", "likewise"];
    words.filter(is_name).filter(|word| !glue.contains(word)).map(str::to_owned).collect()
}

/// What stands between bars: `|t|`, `|a, b|`.
fn parameters(text: &str) -> impl Iterator<Item = &str> {
    let is_list = |text: &&str| text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | ',' | ' '));
    let names = text.split('|').skip(1).step_by(2).filter(is_list).flat_map(|list| list.split(','));
    names.map(str::trim).filter(|name| !name.is_empty())
}

/// `echo       20  …`: see `tasks by=class`.
fn class(line: &str) -> Option<String> {
    let (name, rest) = line.trim_start().split_once("  ")?;
    rest.trim_start().starts_with(|c: char| c.is_ascii_digit()).then(|| name.to_owned())
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
#[path = "complete_tests.rs"]
mod tests;
