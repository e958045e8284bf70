//! How the program's functions and values can be called.
//!
//! Invariant: what is refused here is refused in the same words when the program is compiled, where `#[coro::export]` gives
//! the name, and when it is registered while the program runs.
//!
//! Must not know: the engine, what is registered.

#![forbid(unsafe_code)]

use super::builtin::FUNCTIONS;
use super::{LAST, OWN_NAMES};

/// Words of the language.
pub(super) const KEYWORDS: &[&str] = &[
    "as", "break", "catch", "const", "continue", "do", "else", "export", "false", "fn", "for", "global", "if",
    "import", "in", "is", "let", "loop", "private", "return", "switch", "this", "throw", "true", "try", "until",
    "while",
];

/// Functions of the language that are no ordinary ones, and those that the language reserves.
const RESERVED: &[&str] = &[
    "Fn",
    "async",
    "await",
    "call",
    "case",
    "curry",
    "debug",
    "default",
    "eval",
    "exit",
    "go",
    "goto",
    "is_def_fn",
    "is_def_var",
    "is_shared",
    "match",
    "module",
    "new",
    "nil",
    "null",
    "package",
    "print",
    "protected",
    "public",
    "shared",
    "sleep",
    "spawn",
    "static",
    "super",
    "sync",
    "then",
    "thread",
    "type_of",
    "use",
    "var",
    "void",
    "with",
    "yield",
];

/// Commands of the console and of its sessions, where no function of the console is called so.
const COMMANDS: &[&str] = &[
    "blocking",
    "cancel",
    "probe",
    "channels",
    "count",
    "enable",
    "exit",
    "fds",
    "functions",
    "help",
    "histogram",
    "label",
    "labels",
    "latency",
    "locks",
    "modules",
    "quit",
    "sessions",
    "set",
    "snapshot",
    "threads",
    "top",
    "trace",
    "tree",
    "uptime",
    "version",
    "where_all",
    "where_is",
];

/// May stand before every command, and is taken away.
const PREFIX: &str = "coro";

/// Why nothing of the program can have that name, an identifier or several with dots between them.
pub(super) const fn refused(name: &str) -> Option<&'static str> {
    let mut rest = name.as_bytes();
    let whole = rest.len();
    loop {
        let mut end = 0;
        while end < rest.len() && rest[end] != b'.' {
            end += 1;
        }
        let (part, behind) = rest.split_at(end);
        if !is_identifier(part) {
            return Some(
                "it has to be an identifier of ASCII letters, digits and underscores, or several with dots between them",
            );
        }
        if is_one_of(part, KEYWORDS) || is_one_of(part, RESERVED) {
            return Some("the language of expressions uses that word");
        }
        let first = rest.len() == whole;
        if first && (same(part, LAST.as_bytes()) || is_one_of(part, OWN_NAMES)) {
            return Some("the console has a function of that name");
        }
        if first && is_one_of(part, COMMANDS) {
            return Some("a line that begins with it is a command of the console");
        }
        let Some((_, behind)) = behind.split_first() else { return None };
        if first && same(part, PREFIX.as_bytes()) {
            return Some("it cannot begin with \"coro.\", which may stand before every command");
        }
        rest = behind;
    }
}

/// Why a function of the program with so many arguments could not be reached by that name.
pub(super) fn hidden(name: &str, arguments: usize) -> Option<&'static str> {
    let own = FUNCTIONS.iter().find(|(builtin, _)| *builtin == name);
    let is_hidden = own.is_some_and(|(_, widths)| widths.contains(&arguments));
    is_hidden.then_some("the language of expressions has a function of that name with as many arguments")
}

const fn is_identifier(part: &[u8]) -> bool {
    let mut i = 0;
    let mut underscores = true;
    while i < part.len() {
        let c = part[i];
        if !(c.is_ascii_alphabetic() || c == b'_' || (c.is_ascii_digit() && i > 0)) {
            return false;
        }
        underscores &= c == b'_';
        i += 1;
    }
    !underscores
}

const fn is_one_of(part: &[u8], words: &[&str]) -> bool {
    let mut i = 0;
    while i < words.len() {
        if same(part, words[i].as_bytes()) {
            return true;
        }
        i += 1;
    }
    false
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::TABLE;

    #[test]
    fn a_name_is_refused_with_its_reason() {
        for (name, why) in [
            ("", "identifier"),
            ("a b", "identifier"),
            ("1a", "identifier"),
            ("_", "identifier"),
            ("größe", "identifier"),
            ("a\x1b[2J", "identifier"),
            ("a.", "identifier"),
            (".a", "identifier"),
            ("a..b", "identifier"),
            ("a.1", "identifier"),
            ("a.b c", "identifier"),
            ("let", "language"),
            ("eval", "language"),
            ("app.if", "language"),
            ("app.call.x", "language"),
            ("tasks", "console"),
            ("tasks.x", "console"),
            ("last", "console"),
            ("coro.x", "coro."),
            ("cancel", "command"),
            ("quit", "command"),
            ("cancel.x", "command"),
        ] {
            assert!(refused(name).is_some_and(|r| r.contains(why)), "{name:?}: {:?}", refused(name));
        }
        for name in ["cache_size", "_x1", "coro", "app.players.count", "app.tasks", "a.coro.last"] {
            assert_eq!(refused(name), None, "{name}");
        }
        for command in TABLE.iter().flat_map(|command| command.names) {
            assert!(refused(command).is_some(), "{command}");
        }
        assert!(hidden("clear", 1).is_some() && hidden("split", 2).is_some());
        assert_eq!((hidden("clear", 0), hidden("app.clear", 1), hidden("cache_size", 1)), (None, None, None));
    }
}
