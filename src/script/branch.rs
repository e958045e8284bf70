//! Names with dots: what `app` and `app.players` are in `app.players.count()`.
//!
//! The engine knows no such names. It takes the expression apart: `app` is a variable, `players` one of its fields, `count` a
//! method. So a name that others begin with is a value of its own, a [`Branch`], whose fields and methods are made of all the
//! parts that there are, and look up the whole name once it is known.
//!
//! Where a value of the program is registered under a name that others begin with, its field stands for the one or the
//! other: for the branch if what comes behind it in the text leads on to a registered name, else for the value.
//!
//! Must not know: sessions, how an answer is written.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::Arc;

use rhai::{Dynamic, Engine, ImmutableString, NativeCallContext, Position};

use super::engine::{Asked, Failure, call};
use super::function::{self, Function};
use crate::value::Value;

/// What the engine calls a branch in its messages.
pub(super) const TYPE: &str = "names";

/// A name that others begin with.
#[derive(Clone)]
pub(super) struct Branch {
    asked: Arc<Asked>,
    path: String,
}

impl Branch {
    /// What is below it, each with what it does.
    pub(super) fn listing(&self) -> Value {
        let inside = |f: Arc<Function>| {
            let usage = f.usage();
            let short = usage.get(self.path.len() + 1..).unwrap_or_default().to_owned();
            let kind = if f.value { "value: " } else { "" };
            (short, Value::Text(format!("{:5}  {kind}{}", f.tier.name(), f.doc).trim_end().to_owned()))
        };
        Value::map(function::below(&self.path).into_iter().map(inside))
    }

    fn name_of(&self, part: &str) -> String {
        format!("{}.{part}", self.path)
    }

    /// The field `part`; `rest` is the text of the expression behind it.
    fn field(&self, part: &str, rest: &str) -> Result<Dynamic, Failure> {
        let name = self.name_of(part);
        match (function::named(&name), function::has_below(&name)) {
            (Some(function), false) if !function.value => {
                Err(format!("{name} is a function: write {}", function.usage()).into())
            }
            (Some(function), more) if function.value && !(more && leads_on(&name, rest)) => {
                call(&self.asked, &function, Vec::new())
            }
            (_, true) => Ok(Dynamic::from(Branch { asked: self.asked.clone(), path: name })),
            // A field of the value that has this name itself.
            (_, false) => match function::named(&self.path).filter(|f| f.value) {
                Some(function) => {
                    let value = call(&self.asked, &function, Vec::new())?;
                    Ok(value.as_map_ref().ok().and_then(|map| map.get(part).cloned()).unwrap_or_default())
                }
                None => Err(format!("nothing is called {name}; functions lists what is").into()),
            },
        }
    }

    fn method(&self, part: &str, arguments: Vec<Dynamic>) -> Result<Dynamic, Failure> {
        let name = self.name_of(part);
        match function::named(&name) {
            Some(function) if !function.value && function.parameters.len() == arguments.len() => {
                call(&self.asked, &function, arguments)
            }
            Some(function) => Err(format!("{name} is called otherwise: {}", function.usage()).into()),
            None => Err(format!("nothing is called {name}; functions lists what is").into()),
        }
    }
}

/// What a variable of that name is, if no variable has it.
pub(super) fn variable(asked: &Arc<Asked>, text: &str, name: &str) -> Result<Option<Dynamic>, Failure> {
    let value = function::named(name).filter(|function| function.value);
    // The engine does not say which of several places asks.
    let mut places = text.match_indices(name).map(|(at, _)| &text[at + name.len()..]);
    if function::has_below(name) && (value.is_none() || places.any(|rest| leads_on(name, rest))) {
        return Ok(Some(Dynamic::from(Branch { asked: asked.clone(), path: name.to_owned() })));
    }
    value.map(|function| call(asked, &function, Vec::new())).transpose()
}

/// What an expression comes to: of a branch that is a value, too, its value.
pub(super) fn whole(result: Dynamic) -> Result<Dynamic, Failure> {
    let Some(branch) = result.read_lock::<Branch>().map(|branch| branch.clone()) else { return Ok(result) };
    match function::named(&branch.path).filter(|function| function.value) {
        Some(function) => call(&branch.asked, &function, Vec::new()),
        None => Ok(result),
    }
}

/// How the functions are called whose names end with that part, a few of them.
pub(super) fn usage(part: &str) -> Option<String> {
    let is_it = |f: &Arc<Function>| !f.value && f.name.rsplit_once('.').is_some_and(|(_, last)| last == part);
    let usages: Vec<String> = function::all().into_iter().filter(is_it).take(3).map(|f| f.usage()).collect();
    (!usages.is_empty()).then(|| usages.join(" or "))
}

/// Whether a registered name begins with `name` and what `rest` begins with: `.part`.
fn leads_on(name: &str, rest: &str) -> bool {
    let rest = rest.trim_start();
    let Some(rest) = rest.strip_prefix('.').or_else(|| rest.strip_prefix("?.")) else { return false };
    let part = super::source::first_word(rest).unwrap_or_default();
    let longer = format!("{name}.{part}");
    function::named(&longer).is_some() || function::has_below(&longer)
}

/// What stands in `text` behind the `part` at a place.
fn behind<'a>(text: &'a str, place: Position, part: &str) -> &'a str {
    let (Some(line), Some(column)) = (place.line(), place.position()) else { return "" };
    let line_begin = text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
    let line = &text[line_begin.min(text.len())..];
    let begin = line.char_indices().nth(column - 1).map_or(line.len(), |(at, _)| at);
    line[begin..].strip_prefix(part).unwrap_or_default()
}

/// Makes the names with dots known to the engine, for an expression of that text.
pub(super) fn register(engine: &mut Engine, text: &Arc<str>, functions: &[Arc<Function>]) {
    let mut fields = BTreeSet::new();
    let mut methods = BTreeSet::new();
    for function in functions {
        let mut parts = function.name.split('.').skip(1).peekable();
        while let Some(part) = parts.next() {
            fields.insert(part);
            if parts.peek().is_none() && !function.value {
                methods.insert((part, function.parameters.len()));
            }
        }
    }
    if fields.is_empty() {
        return;
    }
    engine.register_type_with_name::<Branch>(TYPE);
    for part in fields {
        let (name, text) = (part.to_owned(), text.clone());
        engine.register_get(part, move |context: NativeCallContext<'_>, branch: &mut Branch| {
            branch.field(&name, behind(&text, context.call_position(), &name))
        });
    }
    // Whatever else is asked for.
    engine.register_indexer_get(|branch: &mut Branch, part: ImmutableString| branch.field(&part, ""));
    for (part, width) in methods {
        method(engine, part, width);
    }
    for name in ["to_string", "to_debug", "print", "debug"] {
        engine.register_fn(name, |branch: &mut Branch| super::engine::shown_value(&branch.listing()));
    }
}

fn method(engine: &mut Engine, part: &str, width: usize) {
    type D = Dynamic;
    type R = Result<Dynamic, Failure>;
    let name = part.to_owned();
    let call = move |branch: &Branch, arguments: Vec<D>| branch.method(&name, arguments);
    match width {
        0 => engine.register_fn(part, move |z: Branch| -> R { call(&z, vec![]) }),
        1 => engine.register_fn(part, move |z: Branch, a: D| -> R { call(&z, vec![a]) }),
        2 => engine.register_fn(part, move |z: Branch, a: D, b: D| -> R { call(&z, vec![a, b]) }),
        3 => engine.register_fn(part, move |z: Branch, a: D, b: D, c: D| -> R { call(&z, vec![a, b, c]) }),
        4 => engine.register_fn(part, move |z: Branch, a: D, b: D, c: D, d: D| -> R { call(&z, vec![a, b, c, d]) }),
        5 => engine
            .register_fn(part, move |z: Branch, a: D, b: D, c: D, d: D, e: D| -> R { call(&z, vec![a, b, c, d, e]) }),
        _ => engine.register_fn(part, move |z: Branch, a: D, b: D, c: D, d: D, e: D, f: D| -> R {
            call(&z, vec![a, b, c, d, e, f])
        }),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_a_place() {
        let text = "a.b\n + ü(a .b. c)";
        assert_eq!(behind(text, Position::new(1, 3), "b"), "\n + ü(a .b. c)");
        assert_eq!(behind(text, Position::new(2, 9), "b"), ". c)");
        assert_eq!(behind(text, Position::new(2, 9), "x"), "");
        assert_eq!((behind(text, Position::new(9, 9), "b"), behind(text, Position::NONE, "b")), ("", ""));
    }

    #[test]
    fn only_what_is_registered_leads_on() {
        function::register("branch_test.a.b", "", || ());
        for (rest, leads) in
            [(".a", true), (" . a.x", true), ("?.a", true), (".ab", false), ("(.a", false), ("", false)]
        {
            assert_eq!(leads_on("branch_test", rest), leads, "{rest}");
        }
        assert!(leads_on("branch_test.a", ".b()") && !leads_on("branch_test.a.b", ".b()"));
        function::unregister("branch_test.a.b");
    }
}
