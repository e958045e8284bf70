//! The text of an expression, before anything is parsed: whether it goes on in the next line, where `_` stands for the last
//! result, and where a place in the rewritten text was in what was typed.
//!
//! Invariant: nothing inside strings, characters, comments and identifiers is touched; what stands in `${…}` of a string is
//! code again.
//!
//! Must not know: the engine, who asks.

#![forbid(unsafe_code)]

use super::LAST;

/// The language keeps the word `spawn` for itself; the function has this name inside, which is as long, so that places stay.
pub(super) const SPAWN: &str = "Spawn";

/// What `text` is made of.
#[derive(Debug, Default)]
struct Scan {
    /// Where characters of code stand, in bytes, with the characters.
    code: Vec<(usize, char)>,
    /// A bracket, comment or string that may go over lines is still open at the end.
    open: bool,
}

/// What the scanner is inside of.
#[derive(Debug, PartialEq, Eq)]
enum Inside {
    /// A bracket, by what closes it.
    Bracket(char),
    /// `${` of a string; `}` goes back to it.
    Interpolation,
    /// A string in backticks.
    Template,
}

fn scan(text: &str) -> Scan {
    let chars: Vec<(usize, char)> = text.char_indices().collect();
    let at = |i: usize| chars.get(i).map_or('\0', |(_, c)| *c);
    let mut found = Scan::default();
    let mut inside: Vec<Inside> = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let (place, c) = chars[i];
        if inside.last() == Some(&Inside::Template) {
            match c {
                '`' => drop(inside.pop()),
                '$' if at(i + 1) == '{' => {
                    inside.push(Inside::Interpolation);
                    i += 1;
                }
                _ => {}
            }
            i += 1;
            continue;
        }
        match c {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
                continue;
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                while i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
                found.open |= depth > 0;
                continue;
            }
            '"' | '\'' => {
                i += 1;
                while i < chars.len() && at(i) != c {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
            }
            '`' => inside.push(Inside::Template),
            '#' => {
                let hashes = (i..chars.len()).take_while(|k| at(*k) == '#').count();
                if at(i + hashes) == '"' {
                    let closes = |k: usize| at(k) == '"' && (1..=hashes).all(|h| at(k + h) == '#');
                    let begin = i + hashes + 1;
                    let end = (begin..chars.len()).find(|k| closes(*k));
                    found.open |= end.is_none();
                    i = end.map_or(chars.len(), |end| end + hashes);
                } else {
                    i += hashes - 1;
                }
            }
            '(' => inside.push(Inside::Bracket(')')),
            '[' => inside.push(Inside::Bracket(']')),
            '{' => inside.push(Inside::Bracket('}')),
            '}' if inside.last() == Some(&Inside::Interpolation) => drop(inside.pop()),
            ')' | ']' | '}' if inside.last() == Some(&Inside::Bracket(c)) => drop(inside.pop()),
            _ => found.code.push((place, c)),
        }
        i += 1;
    }
    found.open |= !inside.is_empty();
    found
}

/// Whether more has to come: a bracket, a comment or a string in backticks is open.
pub(super) fn is_open(text: &str) -> bool {
    scan(text).open
}

/// A text in which `_` became [`LAST`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) text: String,
    /// Line and column, in characters counted from 1, behind each `_` that was replaced, as it is in `text`.
    replaced: Vec<(usize, usize)>,
}

impl Rewritten {
    pub(super) fn new(typed: &str) -> Rewritten {
        Rewritten::with(typed, false)
    }

    /// In a repl `spawn` is a function.
    pub(super) fn in_repl(typed: &str) -> Rewritten {
        Rewritten::with(typed, true)
    }

    fn with(typed: &str, spawn: bool) -> Rewritten {
        let found = scan(typed);
        let mut text = String::with_capacity(typed.len() + 16);
        let (mut replaced, mut copied) = (Vec::new(), 0);
        for (n, (place, c)) in found.code.iter().enumerate() {
            if spawn && *c == 's' && is_spawn(typed, *place, &found.code[..n]) {
                text.push_str(&typed[copied..*place]);
                text.push_str(SPAWN);
                copied = place + SPAWN.len();
                continue;
            }
            if *c != '_' || !is_last(typed, *place, &found.code[..n]) {
                continue;
            }
            text.push_str(&typed[copied..*place]);
            text.push_str(LAST);
            copied = place + 1;
            let line = text.matches('\n').count() + 1;
            let begin = text.rfind('\n').map_or(0, |end| end + 1);
            replaced.push((line, text[begin..].chars().count() + 1));
        }
        text.push_str(&typed[copied..]);
        Rewritten { text, replaced }
    }

    /// The column as it was typed, from one of the rewritten text.
    pub(super) fn column(&self, line: usize, column: usize) -> usize {
        let before = self.replaced.iter().filter(|(l, behind)| *l == line && *behind <= column).count();
        (column - (LAST.len() - 1) * before).max(1)
    }
}

/// Whether the `_` at `place` stands for the last result: no part of a name or number, no member, not the rest of a
/// `switch`. `before` is the code in front of it.
fn is_last(text: &str, place: usize, before: &[(usize, char)]) -> bool {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    let (left, right) = (&text[..place], &text[place + 1..]);
    if left.ends_with(name) || right.starts_with(name) || right.trim_start().starts_with("=>") {
        return false;
    }
    let mut behind = before.iter().rev().map(|(_, c)| *c).filter(|c| !c.is_whitespace());
    // `x._` is no range, `x.._` is.
    behind.next() != Some('.') || behind.next() == Some('.')
}

/// Whether at `place` the function `spawn` is called.
fn is_spawn(text: &str, place: usize, before: &[(usize, char)]) -> bool {
    let Some(rest) = text[place..].strip_prefix("spawn") else { return false };
    let name = |c: char| c.is_alphanumeric() || c == '_';
    let member = before.iter().rev().map(|(_, c)| *c).find(|c| !c.is_whitespace()) == Some('.');
    !text[..place].ends_with(name) && !member && rest.trim_start().starts_with('(')
}

/// The identifier that `text` begins with, if it begins with one.
pub(super) fn first_word(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let word = &text[..end];
    (!word.is_empty() && !word.starts_with(|c: char| c.is_numeric())).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        Rewritten::new(text).text
    }

    #[test]
    fn the_last_result_is_named_where_it_stands_alone() {
        for (typed, text) in [
            ("_", "last"),
            ("_+_", "last+last"),
            ("_.len() + _[0]", "last.len() + last[0]"),
            ("f(_, [_, #{a: _}])", "f(last, [last, #{a: last}])"),
            ("0.._", "0..last"),
            ("0..=_", "0..=last"),
            ("|x| x == _", "|x| x == last"),
            ("`a _ ${_ + `b _ ${_}`} _` + _", "`a _ ${last + `b _ ${last}`} _` + last"),
            ("\"a\" + _ // _\n + _", "\"a\" + last // _\n + last"),
        ] {
            assert_eq!(rewritten(typed), text);
        }
    }

    #[test]
    fn and_nowhere_else() {
        for typed in [
            "a_b + _a + a_ + __ + 1_000 + x_1",
            "\"_ \\\" _\" + '_' + `_` + #\"_ \" _\"# + ##\"_\"# _\"##",
            "/* _ /* _ */ _ */ 1 // _",
            "switch x { 1 => 2, _ => 3, _=> 4 }",
            "x._",
            "\"_",
            "`_",
            "/* _",
            "'\\'' + \"\\\\\"",
        ] {
            assert_eq!(rewritten(typed), typed);
        }
    }

    #[test]
    fn spawn_is_a_name_in_a_repl_alone() {
        for (typed, text) in [
            ("spawn(|| f(_))", "Spawn(|| f(last))"),
            ("let t = spawn (|| 1); spawn(t)", "let t = Spawn (|| 1); Spawn(t)"),
            (
                "\"spawn(\" + respawn(1) + x.spawn(2) + spawn + spawned()",
                "\"spawn(\" + respawn(1) + x.spawn(2) + spawn + spawned()",
            ),
        ] {
            assert_eq!(Rewritten::in_repl(typed).text, text);
            assert!(!rewritten(typed).contains("Spawn"));
        }
    }

    #[test]
    fn places_are_told_as_they_were_typed() {
        let text = Rewritten::new("_ + ü_ +\n _ - _ * x");
        assert_eq!(text.text, "last + ü_ +\n last - last * x");
        // `+` of the first line, `x` of the second, and the second `last` itself.
        assert_eq!((text.column(1, 6), text.column(2, 16), text.column(2, 9)), (3, 10, 6));
        assert_eq!(text.column(1, 1), 1);
        assert_eq!(text.column(7, 3), 3);
    }

    #[test]
    fn what_is_open_goes_on() {
        for open in ["f(", "[1,\n2", "#{a: 1", "|x| {", "`text", "`${f(1)", "/* a /* b */", "#\"raw", "f(\")\"", "(]"] {
            assert!(is_open(open), "{open}");
        }
        for whole in [
            "",
            "f()",
            "]",
            "1 +",
            "\"open",
            "\"(\"",
            "'('",
            "`(${1})`",
            "// (",
            "/* ( */ 1",
            "#\"(\"#",
            "#{}",
            "\"\\\"(\"",
        ] {
            assert!(!is_open(whole), "{whole}");
        }
    }

    #[test]
    fn any_bytes_are_gone_through() {
        let alphabet: Vec<char> = "_ `$\"'#/*{}()[].=>\\aü\n1".chars().collect();
        let mut seed = 7u64;
        for _ in 0..2000 {
            let mut text = String::new();
            for _ in 0..24 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
            }
            let again = Rewritten::new(&text);
            assert!(again.text.len() >= text.len(), "{text:?}");
            is_open(&text);
        }
    }

    #[test]
    fn the_first_word() {
        assert_eq!(first_word(" tasks() "), Some("tasks"));
        assert_eq!(first_word("_x.y"), Some("_x"));
        assert_eq!((first_word("1 + x"), first_word("\"x\""), first_word("")), (None, None, None));
    }
}
