//! The answer of `functions`: what expressions can call.
//!
//! Must not know: the engine, who asks.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::function;
use crate::commands::{Answer, Callable};
use crate::inspect::steers;

/// What the program registered, then what coro has.
pub(crate) fn callables() -> Vec<Callable> {
    let own = function::all();
    #[cfg_attr(not(feature = "script"), allow(unused_mut, reason = "nothing is added without the engine"))]
    let mut all: Vec<Callable> = own
        .iter()
        .map(|f| Callable {
            name: f.name.clone(),
            usage: f.usage(),
            kind: if f.value { "value" } else { "function" },
            of: "program",
            tier: f.tier.name(),
            doc: f.doc.chars().take(200).map(|c| if steers(c) { ' ' } else { c }).collect(),
        })
        .collect();
    #[cfg(feature = "script")]
    all.extend(super::facts::FACTS.iter().map(|fact| Callable {
        name: fact.name.into(),
        usage: format!("{}({})", fact.name, fact.parameters),
        kind: "function",
        of: "coro",
        tier: "read",
        doc: fact.doc.into(),
    }));
    #[cfg(feature = "script")]
    if super::repl::was_started() {
        all.extend(super::repl::REPL.iter().map(|offer| Callable {
            name: offer.name.into(),
            usage: format!("{}({})", offer.name, offer.parameters),
            kind: "function",
            of: "coro",
            tier: "repl",
            doc: offer.doc.into(),
        }));
    }
    all
}

/// The same for people.
pub(crate) fn functions() -> Box<dyn Answer> {
    let all = callables();
    let width = all.iter().map(|it| it.usage.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Callable { usage, tier, kind, doc, .. } in &all {
        let kind = if *kind == "value" { "value: " } else { "" };
        let _ = writeln!(text, "{usage:width$}  {tier:5}  {kind}{doc}");
    }
    if cfg!(feature = "script") {
        text += "_ is the last result; let x = … is there in later lines; also what Rhai has for numbers, text, lists and maps\n";
    } else {
        text += "this program cannot evaluate expressions: add the feature \"script\" to its dependency on coro-rt\n";
    }
    if all.iter().all(|it| it.of != "program") {
        text += "the program has registered none of its own (coro::console::register)\n";
    }
    Box::new(Text(text))
}

struct Text(String);

impl Answer for Text {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(self.0.as_bytes());
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::Function;
    use crate::commands::Tier;

    #[test]
    fn what_was_registered_stands_in_the_list_with_its_right() {
        Function::new("list_test", |n: i64| n)
            .doc("first line\nsecond\x1b[2J")
            .parameters(&["n"])
            .tier(Tier::Read)
            .register();
        let mut out = Vec::new();
        while super::functions().more(&mut out) {}
        super::super::unregister("list_test");
        let text = String::from_utf8(out).expect("text");
        let line = text.lines().find(|l| l.starts_with("list_test(n: int)")).expect("listed");
        assert!(line.ends_with("read   first line second [2J"), "{line}");
        assert!(!text.contains('\x1b'));
        #[cfg(feature = "script")]
        assert!(text.contains("ask(command)"), "{text}");
    }
}
