//! Specs from text, TOML or JSON: a table of them, each under its id.
//!
//! ```toml
//! [slow-lookups]
//! target = "cache::get"
//! instruments = "log top(key)"
//! condition = "elapsed > 0.1"
//! lifespan = "1h"
//! ```
//!
//! Invariants: one that is wrong spoils no other; text that is no TOML or JSON spoils all of it. Nothing of the text is in what is
//! said of it but names and the line, since who may ask for a file to be applied may not be meant to read it.

#![forbid(unsafe_code)]

use toml::de::{DeTable, DeValue};

use super::spec::Spec;
use super::store::Entry;
use crate::value::{Value, json};

/// Values in one text.
const MOST_VALUES: usize = 20_000;

/// Specs in one text.
const MOST_SPECS: usize = 500;

/// What one may be called; it stands in lists and lines.
const LONGEST_ID: usize = 200;

/// In which of the two a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Toml,
    Json,
}

/// The specs of a text.
///
/// # Errors
/// If it is none in that form.
pub(super) fn read(text: &str, form: Form) -> Result<Vec<Entry>, String> {
    let all = match form {
        Form::Json => json::parse(text, MOST_VALUES).map_err(|wrong| format!("is no JSON: {wrong}"))?,
        Form::Toml => {
            let table = DeTable::parse(text).map_err(|wrong| {
                let at = wrong.span().map_or(0, |span| span.start.min(text.len()));
                let line = 1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
                format!("is no TOML: {}, line {line}", wrong.message())
            })?;
            table_value(table.into_inner())?
        }
    };
    let Value::Map(all) = all else {
        return Err(format!("wants a map of specs by their ids, and is {}", all.kind()));
    };
    if all.len() > MOST_SPECS {
        return Err(format!("has {} specs, and {MOST_SPECS} are read at most", all.len()));
    }
    let mut entries: Vec<Entry> = Vec::new();
    for (id, value) in all {
        let twice = entries.iter().any(|entry| entry.id == id);
        let spec = match (twice, id.is_empty() || id.len() > LONGEST_ID) {
            (true, _) => Err("is there twice; the first one counts".to_owned()),
            (_, true) => Err(format!("an id has 1 to {LONGEST_ID} bytes")),
            _ => Spec::from_value(&id, value),
        };
        entries.push(Entry { id: if twice { format!("{id} (again)") } else { id }, spec });
    }
    Ok(entries)
}

fn table_value(table: DeTable<'_>) -> Result<Value, String> {
    let entries =
        table.into_iter().map(|(name, value)| Ok((name.into_inner().into_owned(), value_of(value.into_inner())?)));
    entries.collect::<Result<_, String>>().map(Value::Map)
}

/// How deep it is nested, the reader has bounded.
fn value_of(value: DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Int(n),
            Err(_) => Value::Text(n.to_string()),
        },
        DeValue::Float(x) => x.as_str().parse().map_or_else(|_| Value::Text(x.to_string()), Value::Float),
        DeValue::Boolean(yes) => Value::Bool(yes),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(all) => {
            Value::List(all.into_iter().map(|value| value_of(value.into_inner())).collect::<Result<_, String>>()?)
        }
        DeValue::Table(table) => table_value(table)?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let toml = r#"
            # What is slow.
            [slow]
            target = "cache::*"
            instruments = "log top(key)"
            name = "slow lookups"
            condition = "elapsed > 0.1"
            lifespan = "1h30m"
            hits = 1_000
            every = 0x10
            per_second = 5
            enabled = false
            later = true

            [calls]
            target = "get"
            instruments = "count"
        "#;
        let json = r#"{
            "slow": {"target": "cache::*", "instruments": "log top(key)", "name": "slow lookups", "condition": "elapsed > 0.1",
                     "lifespan": "1h30m", "hits": 1000, "every": 16, "per_second": 5, "enabled": false, "later": true},
            "calls": {"target": "get", "instruments": "count"}
        }"#;
        let slow = Spec {
            name: Some("slow lookups".into()),
            condition: Some("elapsed > 0.1".into()),
            lifespan: Some(Duration::from_secs(5400)),
            hits: Some(1000),
            every: Some(16),
            per_second: Some(5),
            enabled: false,
            later: true,
            ..Spec::new("slow", "cache::*", "log top(key)")
        };
        let wanted = [Spec::new("calls", "get", "count"), slow];
        for (text, form) in [(toml, Form::Toml), (json, Form::Json)] {
            let mut found: Vec<Spec> = read(text, form).unwrap().into_iter().map(|entry| entry.spec.unwrap()).collect();
            found.sort_by(|a, b| a.id.cmp(&b.id));
            assert_eq!(found, wanted, "{form:?}");
        }
        assert_eq!(read("", Form::Toml), Ok(vec![]));
        assert_eq!(read("{}", Form::Json), Ok(vec![]));
    }

    #[test]
    fn each_mistake_is_named_and_spoils_nothing_else() {
        for (fields, told) in [
            (r#""target": "a""#, "wants instruments"),
            (r#""instruments": "log""#, "wants a target"),
            (r#""target": 3, "instruments": "log""#, "target wants a text in quotes, and is int"),
            (r#""targets": "a""#, "no field is called targets; there are target, instruments"),
            (r#""target": "a", "instruments": "log", "hits": 0"#, "hits wants a whole number above 0, and is 0"),
            (r#""target": "a", "instruments": "log", "hits": -1"#, "hits wants a whole number above 0, and is -1"),
            (
                r#""target": "a", "instruments": "log", "every": 1.5"#,
                "every wants a whole number above 0, and is float",
            ),
            (r#""target": "a", "instruments": "log", "later": 1"#, "later wants true or false, and is int"),
            (r#""target": "a", "instruments": "log", "lifespan": "10""#, "\"10\" is no duration"),
        ] {
            let text = format!(r#"{{"bad": {{{fields}}}, "good": {{"target": "a", "instruments": "log"}}}}"#);
            let found = read(&text, Form::Json).unwrap();
            let why = found[0].spec.as_ref().unwrap_err();
            assert!(why.starts_with(told), "{fields}: {why}");
            assert_eq!(found[1].spec, Ok(Spec::new("good", "a", "log")));
        }
        let twice =
            read(r#"{"a": {"target": "x", "instruments": "log"}, "a": {}, "b": 3, "": {}}"#, Form::Json).unwrap();
        let said: Vec<_> = twice.iter().map(|entry| (entry.id.as_str(), entry.spec.is_ok())).collect();
        assert_eq!(said, [("a", true), ("a (again)", false), ("b", false), ("", false)]);
        assert!(read("[a", Form::Toml).unwrap_err().starts_with("is no TOML: "));
        let secret = read("\n\npassword: hunter2", Form::Toml).unwrap_err();
        assert!(secret.ends_with(", line 3") && !secret.contains("hunter2"), "{secret}");
        assert!(read("[", Form::Json).unwrap_err().starts_with("is no JSON: no value, at byte "));
        let many: String = (0..=MOST_SPECS).map(|n| format!("[a{n}]\n")).collect();
        assert_eq!(read(&many, Form::Toml).unwrap_err(), "has 501 specs, and 500 are read at most");
        assert_eq!(read("[]", Form::Json).unwrap_err(), "wants a map of specs by their ids, and is list");
    }
}
