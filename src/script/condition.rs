//! Conditions of probes: expressions over what is known of one event, evaluated where it happens.
//!
//! Each thread has an engine and what it has compiled for itself, because Rhai's belong to one thread. It can compute, and call functions
//! of the program that only read; it is bounded much closer than a session's expressions, as a task waits for it.
//!
//! Must not know: what becomes of an answer.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use rhai::{AST, Dynamic, Engine, EvalAltResult, OptimizationLevel, Scope};

use super::engine::{Failure, Packages, Taken, dynamic, register_call, shown_value, within};
use super::function::{self, Place};
use super::limits::{LEAST_STACK, Limits};
use super::natives;
use crate::commands::Tier;
use crate::probe::{Event, Filter};
use crate::value::Value;

/// Steps of one evaluation: some milliseconds at most.
const STEPS: u64 = 20_000;

/// Conditions that a thread keeps compiled.
const KEPT: usize = 64;

fn limits() -> Limits {
    Limits {
        operations: STEPS,
        calls: 8,
        depth: 24,
        depth_in_functions: 12,
        text: 64 << 10,
        list: 1000,
        map: 200,
        ..Limits::new(LEAST_STACK)
    }
}

fn engine() -> Engine {
    let packages = Packages::new();
    let mut engine = Engine::new_raw();
    engine.set_optimization_level(OptimizationLevel::None);
    packages.register_into(&mut engine);
    let limits = limits();
    natives::replace(&mut engine, limits);
    within(&mut engine, &limits).set_max_strings_interned(256).set_max_operations(STEPS);
    // Closures within functions count as well, which the engine's own bound forgets.
    engine.on_progress(|_| {
        TAKEN.with(|taken| {
            taken.set(taken.get() + 1);
            (taken.get() > STEPS).then_some(Dynamic::UNIT)
        })
    });
    for function in function::all().into_iter().filter(|f| !f.value && !f.name.contains('.') && f.tier == Tier::Read) {
        if !matches!(function.place, Place::Here) {
            continue;
        }
        let (name, width) = (function.name.clone(), function.parameters.len());
        let call = move |arguments: Vec<Dynamic>| -> Result<Dynamic, Failure> {
            let mut taken = Taken::new(1000, 64 << 10);
            let arguments = arguments.iter().map(|argument| taken.take(argument, 0)).collect();
            dynamic(&(function.call)(arguments)?, 0)
        };
        register_call(&mut engine, name, width, call);
    }
    engine
}

/// What a thread has.
struct Bench {
    engine: Engine,
    /// Of the functions that it knows.
    version: u64,
    compiled: Vec<(u64, Rc<AST>)>,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
    static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn told(failure: &EvalAltResult) -> String {
    match failure {
        EvalAltResult::ErrorTerminated(..) | EvalAltResult::ErrorTooManyOperations(..) => {
            format!("too many operations: a condition has at most {STEPS}")
        }
        other => other.to_string(),
    }
}

/// Makes a condition of its text.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn condition(text: &str) -> Result<Filter, String> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
    // On this thread, to be told now.
    engine().compile_expression(text).map_err(|e| format!("condition {text:?}: {e}"))?;
    let text = text.to_owned();
    Ok(Box::new(move |event| evaluate(number, &text, event).map_err(|wrong| format!("condition {text:?}: {wrong}"))))
}

fn evaluate(number: u64, text: &str, event: &Event<'_>) -> Result<bool, String> {
    let kept = BENCH.try_with(|bench| {
        let mut bench = bench.try_borrow_mut().map_err(|_| "a condition within a condition")?;
        bench.get_or_insert_with(Bench::new).evaluate(number, text, event)
    });
    // At the very end of a thread there is none any more.
    kept.unwrap_or_else(|_| Bench::new().evaluate(number, text, event))
}

impl Bench {
    fn new() -> Bench {
        // First: what comes meanwhile makes it old.
        let version = function::version();
        Bench { engine: engine(), version, compiled: Vec::new() }
    }

    fn evaluate(&mut self, number: u64, text: &str, event: &Event<'_>) -> Result<bool, String> {
        if self.version != function::version() {
            *self = Bench::new();
        }
        let known = self.compiled.iter().find(|(n, _)| *n == number).map(|(_, ast)| ast.clone());
        let ast = match known {
            Some(ast) => ast,
            None => {
                let ast = Rc::new(self.engine.compile_expression(text).map_err(|e| e.to_string())?);
                if self.compiled.len() == KEPT {
                    self.compiled.remove(0);
                }
                self.compiled.push((number, ast.clone()));
                ast
            }
        };
        let mut scope = Scope::new();
        for (name, value) in known_of(event, text) {
            scope.push_constant_dynamic(name, dynamic(&value, 0).unwrap_or_default());
        }
        TAKEN.set(0);
        let result = self.engine.eval_ast_with_scope::<Dynamic>(&mut scope, &ast).map_err(|failure| told(&failure))?;
        result.as_bool().map_err(|_| {
            let value = Taken::new(100, 1000).take(&result, 0);
            format!("it gives {}, and neither true nor false", shown_value(&value))
        })
    }
}

/// What the text names of what there is.
fn known_of<'a>(event: &Event<'_>, text: &'a str) -> Vec<(&'a str, Value)> {
    let mut known: Vec<(&str, Value)> = Vec::new();
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()) {
        if known.iter().any(|(name, _)| *name == word) {
            continue;
        }
        // An argument comes before what every event has.
        let value = event.value(word).or_else(|| match word {
            "result" => Some(event.result().unwrap_or_default()),
            "failed" => Some(Value::Bool(event.is_err())),
            "elapsed" => Some(event.elapsed().map_or(Value::Nothing, Value::of)),
            "task" => Some(Value::of(event.task())),
            "event" => Some(Value::of(event.kind().to_string())),
            _ => None,
        });
        known.extend(value.map(|value| (word, value)));
    }
    known
}
