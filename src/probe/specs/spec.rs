//! What one probe should be, as it is said.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::super::attach::{Attached, attach_to};
use crate::scheduler::runtime::payload_text;
use crate::value::{self, Value};

/// What one probe should be. The fields mean what the methods of [`Attach`](crate::probe::Attach) of these names do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spec {
    /// By what it is known to whoever applies it; no two have the same.
    pub id: String,
    /// The pattern of the points.
    pub target: String,
    /// Instruments as they are written at the console: `log top(key)`.
    pub instruments: String,
    /// What lists show it as; the id, if nothing is said.
    pub name: Option<String>,
    /// An expression that decides whether an event counts.
    pub condition: Option<String>,
    /// It is over after so long; if nothing is said, it stays as long as its spec.
    pub lifespan: Option<Duration>,
    /// It is over after so many events that counted.
    pub hits: Option<u64>,
    /// One event of so many counts.
    pub every: Option<u64>,
    /// No more than so many events count in a second.
    pub per_second: Option<u32>,
    /// Whether it should be there at all.
    pub enabled: bool,
    /// It is no error if there is no such point yet.
    pub later: bool,
}

/// The fields, as whoever mistypes one is told. The id is not among them: it is what a spec stands under.
const FIELDS: &str = "target, instruments, name, condition, lifespan, hits, every, per_second, enabled and later";

/// Why there is no probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// It may be otherwise later: a point or an instrument that there is not yet.
    Wrong(String),
    /// Code of the program's failed.
    Failed(String),
}

impl Spec {
    /// One with these instruments on the points that `target` names, and no limits.
    pub fn new(id: impl Into<String>, target: impl Into<String>, instruments: impl Into<String>) -> Spec {
        Spec {
            id: id.into(),
            target: target.into(),
            instruments: instruments.into(),
            name: None,
            condition: None,
            lifespan: None,
            hits: None,
            every: None,
            per_second: None,
            enabled: true,
            later: false,
        }
    }

    /// The one of that id, from what stands under it in a file: text, numbers, and `"10s"` for a time.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it.
    pub(super) fn from_value(id: &str, value: Value) -> Result<Spec, String> {
        let Value::Map(fields) = value else {
            return Err(format!("wants its fields, {FIELDS}, and is {}", value.kind()));
        };
        let mut spec = Spec::new(id, "", "");
        for (field, value) in fields {
            match &*field {
                "target" => spec.target = text(&field, value)?,
                "instruments" => spec.instruments = text(&field, value)?,
                "name" => spec.name = Some(text(&field, value)?),
                "condition" => spec.condition = Some(text(&field, value)?),
                "lifespan" => spec.lifespan = Some(value::duration(&text(&field, value)?)?),
                "hits" => spec.hits = Some(whole(&field, &value)?),
                "every" => spec.every = Some(whole(&field, &value)?),
                "per_second" => spec.per_second = Some(u32::try_from(whole(&field, &value)?).unwrap_or(u32::MAX)),
                "enabled" => spec.enabled = yes(&field, &value)?,
                "later" => spec.later = yes(&field, &value)?,
                _ => return Err(format!("no field is called {field}; there are {FIELDS}")),
            }
        }
        if spec.target.is_empty() {
            return Err("wants a target: target = \"app::cache::*\"".to_owned());
        }
        if spec.instruments.is_empty() {
            return Err("wants instruments: instruments = \"log top(key)\"".to_owned());
        }
        Ok(spec)
    }

    /// Attaches what it says.
    pub(super) fn attach(&self) -> Result<Attached, Refused> {
        // Whoever registered an instrument has code in this.
        let attached = catch_unwind(AssertUnwindSafe(|| {
            let mut attach = attach_to(&*self.target).named(self.name.as_deref().unwrap_or(&self.id));
            attach = attach.instruments(&self.instruments);
            if let Some(condition) = &self.condition {
                attach = attach.condition(condition);
            }
            if let Some(lifespan) = self.lifespan {
                attach = attach.lifespan(lifespan);
            }
            if let Some(hits) = self.hits {
                attach = attach.hits(hits);
            }
            if let Some(every) = self.every {
                attach = attach.every(every);
            }
            if let Some(most) = self.per_second {
                attach = attach.per_second(most);
            }
            if self.later {
                attach = attach.later();
            }
            attach.start()
        }));
        match attached {
            Ok(Ok(attached)) => Ok(attached),
            Ok(Err(wrong)) => Err(Refused::Wrong(wrong.to_string())),
            Err(payload) => {
                let why = format!("an instrument panicked as it was made: {}", payload_text(&*payload));
                // It may panic again when it is dropped.
                std::mem::forget(payload);
                Err(Refused::Failed(why))
            }
        }
    }
}

fn text(field: &str, value: Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(format!("{field} wants a text in quotes, and is {}", other.kind())),
    }
}

fn whole(field: &str, value: &Value) -> Result<u64, String> {
    let wrong = |what: &str| format!("{field} wants a whole number above 0, and is {what}");
    match value {
        Value::Int(n) => u64::try_from(*n).ok().filter(|n| *n > 0).ok_or_else(|| wrong(&n.to_string())),
        other => Err(wrong(other.kind())),
    }
}

fn yes(field: &str, value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(yes) => Ok(*yes),
        other => Err(format!("{field} wants true or false, and is {}", other.kind())),
    }
}
