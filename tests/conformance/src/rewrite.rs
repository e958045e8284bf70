//! Turns a source text of std's tests into one of a generated crate, whose module `port` stands for std.
//!
//! Works on tokens, so that strings and comments stay as they are. Must not know which items `port` maps to what.

use crate::lex::{Kind, Token, tokens};

/// Where the generated crates keep their view of std.
const PORT: &str = "crate::port";

/// First segments that lead into `port`: std itself, the crate (inside std that is std), and the crate of random
/// numbers that std's tests use and the generated crates have not.
const ROOTS: &[&str] = &["std", "crate", "rand"];

/// A rewritten file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// The text without its crate-level attributes.
    pub text: String,
    /// The features that the text asked for, in its order.
    pub features: Vec<String>,
}

/// Leads the paths of `text` through `port`, lifts its `#![feature(…)]`, and drops its other crate-level attributes.
pub fn test_file(text: &str) -> Rewritten {
    let tokens = tokens(text);
    let mut edits = Edits::default();
    let features = lift_inner_attributes(text, &tokens, &mut edits);
    lead_through_port(text, &tokens, &mut edits);
    Rewritten { text: edits.apply(text), features }
}

/// The root of one of std's test crates without its module declarations: the macros and functions that the modules
/// share.
pub fn crate_root(text: &str) -> Rewritten {
    let tokens = tokens(text);
    let mut edits = Edits::default();
    let features = lift_inner_attributes(text, &tokens, &mut edits);
    lead_through_port(text, &tokens, &mut edits);
    let word = |i: usize| tokens.get(i).map_or("", |t| &text[t.at.clone()]);
    for i in 0..tokens.len() {
        if word(i) == "mod" && word(i + 2) == ";" {
            let first = attributes_before(text, &tokens, i);
            edits.replace(tokens[first].at.start..tokens[i + 2].at.end, "");
        }
    }
    Rewritten { text: edits.apply(text), features }
}

/// Goes back from the item at token `i` over its attributes; the first token of all that.
fn attributes_before(text: &str, tokens: &[Token], mut i: usize) -> usize {
    while i > 0 && tokens[i - 1].kind == Kind::Mark(']') {
        let mut depth = 0;
        let mut j = i;
        while j > 0 {
            j -= 1;
            match tokens[j].kind {
                Kind::Mark(']') => depth += 1,
                Kind::Mark('[') => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        if j == 0 || &text[tokens[j - 1].at.clone()] != "#" {
            break;
        }
        i = j - 1;
    }
    i
}

fn lift_inner_attributes(text: &str, tokens: &[Token], edits: &mut Edits) -> Vec<String> {
    let mut features = Vec::new();
    let word = |i: usize| tokens.get(i).map_or("", |t| &text[t.at.clone()]);
    let mut braces = 0_usize;
    let mut i = 0;
    while i < tokens.len() {
        match word(i) {
            "{" => braces += 1,
            "}" => braces = braces.saturating_sub(1),
            // Those inside a function are its own.
            "#" if braces == 0 && word(i + 1) == "!" && word(i + 2) == "[" => {
                let end = (i + 3..tokens.len()).find(|j| word(*j) == "]").unwrap_or(tokens.len() - 1);
                if word(i + 3) == "feature" {
                    features.extend((i + 4..end).filter(|j| tokens[*j].kind == Kind::Name).map(|j| word(j).to_owned()));
                }
                edits.replace(tokens[i].at.start..tokens[end].at.end, "");
                i = end;
            }
            _ => {}
        }
        i += 1;
    }
    features
}

fn lead_through_port(text: &str, tokens: &[Token], edits: &mut Edits) {
    let word = |i: usize| tokens.get(i).map_or("", |t| &text[t.at.clone()]);
    for i in 0..tokens.len() {
        if tokens[i].kind != Kind::Name || i > 0 && matches!(word(i - 1), "$" | ".") {
            continue;
        }
        let mut start = tokens[i].at.start;
        if i > 0 && tokens[i - 1].kind == Kind::Path {
            if i > 1 && continues_a_path(tokens[i - 2].kind, word(i - 2)) {
                continue;
            }
            start = tokens[i - 1].at.start;
        }
        let name = word(i);
        if ROOTS.contains(&name) && word(i + 1) == "::" {
            let port = if name == "rand" { format!("{PORT}::rand") } else { PORT.to_owned() };
            edits.replace(start..tokens[i].at.end, &port);
        } else if name == "thread_local" && word(i + 1) == "!" {
            // The macro is in everybody's scope without a path.
            edits.replace(start..tokens[i].at.end, &format!("{PORT}::thread_local"));
        }
    }
}

/// Whether `a` in `a::b` is itself a segment, or else what stands before a path that begins with `::`.
fn continues_a_path(kind: Kind, word: &str) -> bool {
    const BEFORE_A_PATH: &[&str] = &[
        "use", "as", "dyn", "else", "for", "if", "impl", "in", "let", "match", "mut", "pub", "ref", "return", "unsafe",
        "where", "while", "const", "static", "break", "move",
    ];
    match kind {
        Kind::Name => !BEFORE_A_PATH.contains(&word),
        Kind::Mark(c) => c == '>',
        _ => false,
    }
}

/// Replacements at places of one text.
#[derive(Default)]
struct Edits(Vec<(std::ops::Range<usize>, String)>);

impl Edits {
    fn replace(&mut self, at: std::ops::Range<usize>, by: &str) {
        self.0.push((at, by.to_owned()));
    }

    /// Inside a removed range the removal wins.
    fn apply(mut self, text: &str) -> String {
        self.0.sort_by_key(|(at, _)| (at.start, std::cmp::Reverse(at.end)));
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for (at, by) in self.0 {
            if at.start < done {
                continue;
            }
            out.push_str(&text[done..at.start]);
            out.push_str(&by);
            done = at.end;
        }
        out.push_str(&text[done..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        test_file(text).text
    }

    #[test]
    fn std_and_crate_lead_to_port() {
        assert_eq!(rewritten("use std::sync::Arc;"), "use crate::port::sync::Arc;");
        assert_eq!(rewritten("use crate::{fmt, thread};"), "use crate::port::{fmt, thread};");
        assert_eq!(rewritten("use ::std::x;"), "use crate::port::x;");
        assert_eq!(rewritten("f(&::std::x, <::std::Y>::z)"), "f(&crate::port::x, <crate::port::Y>::z)");
        assert_eq!(rewritten("use {std::x, crate::y, rand::Rng};"), {
            "use {crate::port::x, crate::port::y, crate::port::rand::Rng};"
        });
    }

    #[test]
    fn only_the_beginning_of_a_path_counts() {
        for same in [
            "use foo::std::x;",
            "$crate::x",
            "pub(crate) fn std() {}",
            "a.std::<u8>()",
            "Vec::<u8>::std::x",
            "use super::std::x;",
            "let std = 1; std < 2",
            "use core::mem; alloc::vec![]",
            "\"std::x\" // std::y\n/* crate::z */ 'a' r\"std::\"",
        ] {
            assert_eq!(rewritten(same), same);
        }
    }

    #[test]
    fn the_macro_of_task_locals_is_led_through_port() {
        assert_eq!(rewritten("thread_local!(static A: u8 = 1);"), "crate::port::thread_local!(static A: u8 = 1);");
        assert_eq!(rewritten("use std::thread_local;"), "use crate::port::thread_local;");
        assert_eq!(rewritten("std::thread_local! {}"), "crate::port::thread_local! {}");
        assert_eq!(rewritten("::std::thread_local! {}"), "crate::port::thread_local! {}");
    }

    #[test]
    fn features_are_lifted_and_inner_attributes_of_the_crate_dropped() {
        let got = test_file("#![feature(a, b)]\n#![allow(c)]\n#[x] fn f() { #![allow(d)] }");
        assert_eq!(got.features, ["a", "b"]);
        assert_eq!(got.text, "\n\n#[x] fn f() { #![allow(d)] }");
    }

    #[test]
    fn a_root_keeps_everything_but_its_modules() {
        let text = "#![feature(x)]\nmod a;\n#[cfg(not(any(q, r)))]\nmod b;\n#[path = \"../c/mod.rs\"]\nmod c;\n\
                    #[track_caller]\nfn f() { std::g() }\nmod inline { fn h() {} }\nuse f;";
        let got = crate_root(text);
        assert_eq!(got.features, ["x"]);
        assert_eq!(
            got.text.split_whitespace().collect::<Vec<_>>().join(" "),
            "#[track_caller] fn f() { crate::port::g() } mod inline { fn h() {} } use f;"
        );
    }
}
