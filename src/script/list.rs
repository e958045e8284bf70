//! The answer of `functions`: what expressions can call.
//!
//! Must not know: the engine, who asks.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::function;
use crate::commands::Answer;
use crate::inspect::steers;

/// A line of the list.
struct Line {
    usage: String,
    tier: &'static str,
    doc: String,
}

/// What the program registered, then what coro has.
pub(crate) fn functions() -> Box<dyn Answer> {
    let own = function::all();
    #[cfg_attr(not(feature = "script"), allow(unused_mut, reason = "nothing is added without the engine"))]
    let mut lines: Vec<Line> = own
        .iter()
        .map(|f| {
            let kind = if f.value { "value: " } else { "" };
            let doc: String = f.doc.chars().take(200).map(|c| if steers(c) { ' ' } else { c }).collect();
            Line { usage: f.usage(), tier: f.tier.name(), doc: format!("{kind}{doc}") }
        })
        .collect();
    let programs = lines.len();
    #[cfg(feature = "script")]
    lines.extend(super::facts::FACTS.iter().map(|fact| Line {
        usage: format!("{}({})", fact.name, fact.parameters),
        tier: "read",
        doc: fact.doc.into(),
    }));
    #[cfg(feature = "script")]
    if super::repl::was_started() {
        lines.extend(super::repl::REPL.iter().map(|offer| Line {
            usage: format!("{}({})", offer.name, offer.parameters),
            tier: "repl",
            doc: offer.doc.into(),
        }));
    }
    let width = lines.iter().map(|line| line.usage.len()).max().unwrap_or(0);
    let mut text = String::new();
    for line in &lines {
        let _ = writeln!(text, "{:width$}  {:5}  {}", line.usage, line.tier, line.doc);
    }
    if cfg!(feature = "script") {
        text += "_ is the last result; let x = … is there in later lines; also what Rhai has for numbers, text, lists and maps\n";
    } else {
        text += "this program cannot evaluate expressions: add the feature \"script\" to its dependency on coro-rt\n";
    }
    if programs == 0 {
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
