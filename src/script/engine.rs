//! Expressions as Rhai evaluates them: which functions there are, what bounds them, and how values come in and go out.
//!
//! Invariants: what an expression can call is what [`FACTS`](super::facts::FACTS) lists, what the program registered, and
//! Rhai's packages for numbers, text, lists and maps; nothing of it reaches files, processes, modules or memory. Each function of
//! the program is asked about before it is called, and its panic ends the expression and nothing else. An abandoned
//! expression ends at its next step. What Rhai does to nested values by calling itself (to show and to compare them) is done
//! here instead, to a bounded depth.
//!
//! Must not know: sessions, threads, how an answer is written.

#![forbid(unsafe_code)]
#![allow(deprecated, reason = "rhai marks what may change in a minor version so; nothing of it is going away")]

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rhai::packages::{
    BasicArrayPackage, BasicMapPackage, BasicMathPackage, CorePackage, LogicPackage, MoreStringPackage, Package,
};
use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, Map, OptimizationLevel, Position, Scope};

use super::LAST;
use super::branch::{self, Branch};
use super::cells::Cells;
use super::control::{Control, End};
use super::facts::{self, FACTS, Give};
use super::function::{self, Function, Place};
use super::limits::Limits;
use super::name::KEYWORDS;
use super::repl::REPL;
use super::source::{Rewritten, SPAWN, first_word};
use super::{natives, on_worker, repl, shallow, show};
use crate::blocking;
use crate::commands::Permit;
use crate::inspect::Snapshot;
use crate::panic;
use crate::scheduler::runtime::payload_text;
use crate::scheduler::suspend::here;
use crate::scheduler::{self, suspend};
use crate::sys::courtesy::{Allowance, Courtesy};
use crate::sys::pace::Pace;
use crate::value::Value;

/// Values nested deeper than this do not leave an expression, nor come in.
pub(super) const DEEPEST: usize = 64;

/// Values, and bytes of text, that a result may have; what is beyond is left out.
pub(super) const MOST_VALUES: usize = 400_000;
pub(super) const MOST_TEXT: usize = 4 << 20;

/// And what is kept for the next expression: it is copied for each.
const MOST_KEPT: usize = 50_000;
const MOST_KEPT_TEXT: usize = 1 << 20;

/// What expressions may take of a machine without a free CPU before they have to leave it to others; see [`Courtesy`].
static ALLOWANCE: Allowance = Allowance::new(Duration::from_millis(500));

/// Bytes of the reason why there is no result.
const LONGEST_REASON: usize = 4 << 10;

/// Bytes that the record has of a call's arguments.
const MOST_RECORDED: usize = 256;

/// Variables that a session keeps.
pub(super) const MOST_VARIABLES: usize = 32;

pub(super) type Failure = Box<EvalAltResult>;

/// What a session keeps from one expression to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    /// The last result that was something.
    last: Value,
    /// By name, and whether it is a constant.
    variables: Vec<(String, bool, Value)>,
}

/// What came of an expression.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    /// Its value, and what is to be said of it.
    Value(Value, Vec<String>),
    /// Why there is none.
    Failed(String),
    /// Nothing is called like that, neither here nor, it seems, a command.
    Unknown,
}

/// One task, as expressions see it: its fields are made when they are asked for.
#[derive(Clone)]
struct Row {
    snapshot: Arc<Snapshot>,
    index: usize,
}

impl Row {
    fn field(&self, name: &str) -> Option<Value> {
        facts::task_field(&self.snapshot, self.snapshot.tasks.get(self.index)?, name)
    }

    fn whole(&self) -> Value {
        Value::map(facts::TASK_FIELDS.iter().filter_map(|name| Some((*name, self.field(name)?))))
    }
}

/// The packages, which are made once a thread.
pub(super) struct Packages {
    core: CorePackage,
    logic: LogicPackage,
    math: BasicMathPackage,
    arrays: BasicArrayPackage,
    maps: BasicMapPackage,
    strings: MoreStringPackage,
}

impl Packages {
    pub(super) fn new() -> Packages {
        Packages {
            core: CorePackage::new(),
            logic: LogicPackage::new(),
            math: BasicMathPackage::new(),
            arrays: BasicArrayPackage::new(),
            maps: BasicMapPackage::new(),
            strings: MoreStringPackage::new(),
        }
    }

    pub(super) fn register_into(&self, engine: &mut Engine) {
        self.core.register_into_engine(engine);
        self.logic.register_into_engine(engine);
        self.math.register_into_engine(engine);
        self.arrays.register_into_engine(engine);
        self.maps.register_into_engine(engine);
        self.strings.register_into_engine(engine);
    }
}

/// Who evaluates what, and for whom.
pub(super) struct Asked {
    pub(super) typed: String,
    pub(super) permit: Permit,
    pub(super) control: Arc<Control>,
    pub(super) limits: Limits,
    /// In a task of a repl, which has more functions.
    pub(super) in_repl: bool,
}

impl Asked {
    /// Evaluates, and puts what is to be kept into `kept`.
    pub(super) fn evaluate(self: &Arc<Asked>, packages: &Packages, kept: &mut Kept) -> Outcome {
        let source = Rewritten::new(&self.typed);
        self.control.watch_memory();
        let engine = engine(self, packages, &Arc::from(source.text.as_str()));
        let mut scope = Scope::new();
        for (name, constant, value) in &kept.variables {
            let value = dynamic(value, 0).unwrap_or_default();
            if *constant {
                scope.push_constant_dynamic(name.as_str(), value);
            } else {
                scope.push_dynamic(name.as_str(), value);
            }
        }
        scope.push_dynamic(LAST, dynamic(&kept.last, 0).unwrap_or_default());
        let outcome = engine
            .compile(&source.text)
            .map_err(Failure::from)
            .and_then(|ast| engine.eval_ast_with_scope::<Dynamic>(&mut scope, &ast))
            .and_then(branch::whole);
        let result = match outcome {
            // It was ended within a function that swallows errors.
            Ok(_) if self.control.end().is_some() => {
                return self.failed(EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE), &source, &scope);
            }
            Ok(value) => value,
            Err(failure) => match *failure {
                EvalAltResult::Exit(value, _) | EvalAltResult::Return(value, _) => value,
                failure => return self.failed(failure, &source, &scope),
            },
        };
        let mut notes = Vec::new();
        let mut taken = Taken::new(MOST_VALUES, MOST_TEXT);
        let value = taken.take(&result, 0);
        if taken.cut {
            notes.push("the result is too large or too deep to be shown whole".to_owned());
        }
        keep(kept, &result, &scope, &mut notes);
        Outcome::Value(value, notes)
    }

    pub(super) fn failed(&self, mut failure: EvalAltResult, source: &Rewritten, scope: &Scope<'_>) -> Outcome {
        // The innermost says what is wrong; those around it only through which calls.
        let mut through = Vec::new();
        while let EvalAltResult::ErrorInFunctionCall(name, _, inner, _) = failure {
            if !name.starts_with("anon$") {
                through.push(name);
            }
            failure = *inner;
        }
        if self.is_unknown(&failure, scope) {
            return Outcome::Unknown;
        }
        let place = failure.take_position();
        let limits = &self.limits;
        let mut text = match &failure {
            _ if self.control.end().is_some() || self.control.is_abandoned() => self.ended(),
            EvalAltResult::ErrorRuntime(what, _) if what.is_string() => what.to_string(),
            EvalAltResult::ErrorRuntime(what, _) => shown(what),
            EvalAltResult::ErrorStackOverflow(_) => format!("calls nest too deep: at most {}", limits.calls),
            EvalAltResult::ErrorDataTooLarge(what, _) => format!(
                "{what} too large: a value has at most {} elements, {} entries of maps and {} bytes of text",
                limits.list, limits.map, limits.text
            ),
            EvalAltResult::ErrorTerminated(why, _) if why.is_string() => why.to_string(),
            EvalAltResult::ErrorDataRace(..) => {
                "a variable is in use by another task, which waits meanwhile".to_owned()
            }
            other => other.to_string(),
        };
        if let EvalAltResult::ErrorFunctionNotFound(signature, _) = &failure {
            let (name, arguments) = signature.split_once(' ').unwrap_or((signature, ""));
            let own = REPL.iter().find(|f| self.in_repl && (f.name == name || (f.name == "spawn" && name == SPAWN)));
            let usage = if arguments.strip_prefix('(').is_some_and(|types| types.starts_with(branch::TYPE)) {
                branch::usage(name)
            } else {
                let own = own.map(|own| format!("{}({})", own.name, own.parameters));
                function::named(name).map(|function| function.usage()).or(own)
            };
            match usage {
                Some(usage) => text += &format!("; it is {usage}"),
                None => text += "; functions lists them",
            }
        }
        if self.in_repl {
            text = text.replace(SPAWN, "spawn");
        }
        for name in through {
            text += &format!(", in {name}");
        }
        let whole = text.len();
        if whole > LONGEST_REASON {
            text = bounded(text, LONGEST_REASON) + &format!(" ({whole} bytes)");
        }
        if let (Some(line), Some(column)) = (place.line(), place.position()) {
            let column = source.column(line, column);
            text += &if source.text.contains('\n') {
                format!(" (line {line}, column {column})")
            } else {
                format!(" (column {column})")
            };
        }
        Outcome::Failed(text)
    }

    /// Why the expression had to end.
    fn ended(&self) -> String {
        let limits = &self.limits;
        match self.control.end() {
            None => "abandoned".to_owned(),
            Some(End::Steps) => format!("too many operations: an expression has at most {}", limits.operations),
            Some(End::Time) => {
                format!("it took too long: an expression may compute for {} s", limits.time.as_secs_f64())
            }
            Some(End::Memory) => format!(
                "too much memory: the process may grow by {} MiB while an expression computes",
                limits.memory >> 20
            ),
        }
    }

    /// Whether somebody meant a command: a single word that is nothing, or words that begin with one and make no sense.
    fn is_unknown(&self, failure: &EvalAltResult, scope: &Scope<'_>) -> bool {
        let typed = self.typed.trim();
        let Some(word) = first_word(typed) else {
            return matches!(failure, EvalAltResult::ErrorParsing(..)) && !typed.contains(char::is_alphanumeric);
        };
        let rest = typed[word.len()..].trim_start();
        let known = KEYWORDS.contains(&word)
            || matches!(word, "_" | LAST | "print" | "debug" | "Fn")
            || FACTS.iter().any(|f| f.name == word)
            || (self.in_repl && REPL.iter().any(|f| f.name == word))
            || function::named(word).is_some()
            || scope.contains(word);
        match failure {
            EvalAltResult::ErrorVariableNotFound(name, _) => name == word && rest.is_empty(),
            EvalAltResult::ErrorFunctionNotFound(signature, _) => {
                !known && signature.strip_prefix(word).is_some_and(|s| s.starts_with(' ')) && rest == "()"
            }
            // `wheer 17`: nothing in the language has two words beside each other.
            EvalAltResult::ErrorParsing(..) => {
                !known && (rest.len() < typed.len() - word.len() || rest.is_empty()) && !rest.starts_with('=')
            }
            _ => false,
        }
    }
}

/// What the next expression finds again: the result, and variables that are plain data.
fn keep(kept: &mut Kept, result: &Dynamic, scope: &Scope<'_>, notes: &mut Vec<String>) {
    let mut room = (MOST_KEPT, MOST_KEPT_TEXT);
    let mut variables: Vec<(String, bool, Value)> = Vec::new();
    // The newest comes first, and hides those of the same name.
    let mut seen = HashSet::new();
    for (name, constant, value) in scope.iter_raw() {
        if name == LAST || !seen.insert(name) {
            continue;
        }
        let mut taken = Taken::new(room.0, room.1);
        let value_taken = taken.take(value, 0);
        if taken.function {
            notes.push(format!("{name} is not kept: a function lives in its own line only"));
        } else if taken.cut {
            notes.push(format!("{name} is not kept: it is too large or too deep"));
        } else if variables.len() >= MOST_VARIABLES {
            notes.push(format!("{name} is not kept: a session has at most {MOST_VARIABLES} variables"));
        } else {
            room = (taken.values, taken.text);
            variables.push((name.to_owned(), constant, value_taken));
        }
    }
    variables.reverse();
    kept.variables = variables;
    if !result.is_unit() {
        let mut taken = Taken::new(room.0, room.1);
        let value = taken.take(result, 0);
        if taken.cut || taken.function {
            notes.push("_ is not kept: the result is too large, too deep or a function".to_owned());
            kept.last = Value::Nothing;
        } else {
            kept.last = value;
        }
    }
}

/// Takes values out of the engine, up to a bound.
pub(super) struct Taken {
    values: usize,
    text: usize,
    /// Something was left out.
    pub(super) cut: bool,
    /// There was a function in it.
    function: bool,
}

impl Taken {
    pub(super) fn new(values: usize, text: usize) -> Taken {
        Taken { values, text, cut: false, function: false }
    }

    fn has_room(&mut self, text: usize) -> bool {
        if self.values == 0 || self.text < text {
            self.cut = true;
            return false;
        }
        self.values -= 1;
        self.text -= text;
        true
    }

    pub(super) fn take(&mut self, value: &Dynamic, depth: usize) -> Value {
        if !self.has_room(0) {
            return Value::Nothing;
        }
        if value.is_unit() {
            return Value::Nothing;
        }
        if let Ok(n) = value.as_int() {
            return Value::Int(n);
        }
        if let Ok(b) = value.as_bool() {
            return Value::Bool(b);
        }
        if let Ok(x) = value.as_float() {
            return Value::Float(x);
        }
        if let Ok(c) = value.as_char() {
            return Value::Text(c.into());
        }
        if let Ok(text) = value.as_immutable_string_ref() {
            return self.text(&text);
        }
        let nests = value.is_array() || value.is_map() || value.is_blob();
        if nests && depth >= DEEPEST {
            self.cut = true;
            return Value::Nothing;
        }
        if let Ok(all) = value.as_array_ref() {
            return self.list(&all, depth);
        }
        if let Ok(all) = value.as_map_ref() {
            return self.map(&all, depth);
        }
        if let Some(row) = value.read_lock::<Row>() {
            let whole = row.whole();
            let size = facts::TASK_FIELDS.len();
            if self.values < size {
                self.cut = true;
                return Value::Nothing;
            }
            self.values -= size;
            return whole;
        }
        if let Some(branch) = value.read_lock::<Branch>() {
            let listing = branch.listing();
            let Value::Map(entries) = &listing else { return listing };
            if entries.iter().any(|(name, _)| !self.has_room(name.len())) {
                return Value::Nothing;
            }
            return listing;
        }
        if let Some(text) = repl::shown(value) {
            return self.text(&text);
        }
        if let Ok(bytes) = value.as_blob_ref() {
            let shown: String = bytes.iter().take(self.text / 2).map(|b| format!("{b:02x}")).collect();
            return self.text(&shown);
        }
        self.function |= value.is_fnptr();
        // Neither lists nor maps come here, so this is short.
        self.text(&value.to_string())
    }

    pub(super) fn list(&mut self, all: &Array, depth: usize) -> Value {
        let mut list = Vec::new();
        for value in all {
            if self.values == 0 {
                self.cut = true;
                break;
            }
            list.push(self.take(value, depth + 1));
        }
        Value::List(list)
    }

    pub(super) fn map(&mut self, all: &Map, depth: usize) -> Value {
        let mut map = Vec::new();
        for (name, value) in all {
            if !self.has_room(name.len()) {
                break;
            }
            map.push((name.to_string(), self.take(value, depth + 1)));
        }
        Value::Map(map)
    }

    fn text(&mut self, text: &str) -> Value {
        if text.len() > self.text {
            self.cut = true;
            return Value::Text(String::new());
        }
        self.text -= text.len();
        Value::Text(text.to_owned())
    }
}

/// A value for the engine; too deep ones are refused.
pub(super) fn dynamic(value: &Value, depth: usize) -> Result<Dynamic, Failure> {
    if depth > DEEPEST {
        return Err("a value of the program is nested too deep".into());
    }
    Ok(match value {
        Value::Nothing => Dynamic::UNIT,
        Value::Bool(b) => Dynamic::from(*b),
        Value::Int(n) => Dynamic::from(*n),
        Value::Float(x) => Dynamic::from(*x),
        Value::Text(text) => Dynamic::from(text.clone()),
        Value::List(all) => {
            let all: Result<Array, Failure> = all.iter().map(|value| dynamic(value, depth + 1)).collect();
            Dynamic::from_array(all?)
        }
        Value::Map(all) => {
            let mut map = Map::new();
            for (name, value) in all {
                map.insert(name.as_str().into(), dynamic(value, depth + 1)?);
            }
            Dynamic::from_map(map)
        }
    })
}

/// An engine for one expression, whose text is as it will be parsed.
fn engine(asked: &Arc<Asked>, packages: &Packages, text: &Arc<str>) -> Engine {
    let mut engine = common(asked, packages, text);
    // Counted by ourselves, because the engine forgets what closures take within its functions.
    engine.set_max_operations(0);
    let context = asked.clone();
    // No `RefCell`: with rhai's feature `sync`, which another crate may ask for, this has to be `Sync`.
    let manners = Mutex::new(Manners::new(Instant::now()));
    engine.on_progress(move |_| {
        let control = &context.control;
        if control.is_time_to_look() {
            manners.lock().unwrap_or_else(PoisonError::into_inner).leave_cpu(control);
        }
        control.step(&context.limits).then_some(Dynamic::UNIT)
    });
    // In the place of Rhai's, which nobody could end.
    let context = asked.clone();
    engine.register_fn("sleep", move |seconds: i64| sleep(&context, seconds as f64));
    let context = asked.clone();
    engine.register_fn("sleep", move |seconds: f64| sleep(&context, seconds));
    engine
}

/// What every engine has, wherever it evaluates.
pub(super) fn common(asked: &Arc<Asked>, packages: &Packages, text: &Arc<str>) -> Engine {
    let mut engine = Engine::new_raw();
    engine.set_optimization_level(OptimizationLevel::None);
    packages.register_into(&mut engine);
    bound(&mut engine, asked);
    shallow::register(&mut engine);
    natives::replace(&mut engine, asked.limits);
    own_functions(&mut engine, asked);
    let (dotted, plain): (Vec<_>, Vec<_>) = function::all().into_iter().partition(|f| f.name.contains('.'));
    for function in plain.iter().filter(|function| !function.value) {
        register(&mut engine, asked, function);
    }
    branch::register(&mut engine, text, &dotted);
    let (context, text) = (asked.clone(), text.clone());
    #[allow(clippy::arc_with_non_send_sync, reason = "the engine wants to send it if rhai's feature `sync` is on")]
    let cells = Arc::new(Mutex::new(Cells::default()));
    engine.on_var(move |name, _, scope| match scope.scope().get(name) {
        // A variable of the expression comes before a value of the program.
        Some(value) => {
            // Once it is shared, it is asked for to be given to the closure. In a repl closures outlive their expression.
            if !context.in_repl {
                cells.lock().unwrap_or_else(PoisonError::into_inner).note(value);
            }
            Ok(None)
        }
        None => branch::variable(&context, &text, name),
    });
    engine
}

fn bound(engine: &mut Engine, asked: &Arc<Asked>) {
    within(engine, &asked.limits).set_max_strings_interned(1024);
    let context = asked.clone();
    engine.on_print(move |text| context.control.print(text, context.limits.printed));
    let context = asked.clone();
    engine.on_debug(move |text, _, _| context.control.print(text, context.limits.printed));
}

/// Sets the bounds of what is evaluated that every expression has.
pub(super) fn within<'a>(engine: &'a mut Engine, limits: &Limits) -> &'a mut Engine {
    engine
        .set_max_call_levels(limits.calls)
        .set_max_expr_depths(limits.depth, limits.depth_in_functions)
        .set_max_string_size(limits.text)
        .set_max_array_size(limits.list)
        .set_max_map_size(limits.map)
        .set_max_variables(limits.variables)
        .set_max_functions(limits.functions)
        .set_max_modules(0)
        // Text that was made is not run; functions that hold functions nest without being counted.
        .disable_symbol("eval")
        .disable_symbol("curry")
        .disable_symbol("import")
}

/// How a computation that takes long leaves the CPU to others.
#[derive(Debug)]
struct Manners {
    courtesy: Courtesy,
    pace: Pace,
    /// When it last went on.
    last: Instant,
}

impl Manners {
    fn new(now: Instant) -> Manners {
        Manners { courtesy: Courtesy::new(&ALLOWANCE), pace: Pace::new(now), last: now }
    }

    /// Pauses where it has to. A task must not: it would hold up its worker.
    fn leave_cpu(&mut self, control: &Control) {
        if here().is_some() {
            return;
        }
        let now = Instant::now();
        let mut pause = self.courtesy.worked(now - self.last, now);
        if let Some(time) = self.pace.worked(now) {
            control.rest(time);
        }
        self.last = Instant::now();
        while let Some(time) = pause.filter(|_| !control.is_abandoned()) {
            control.rest(time);
            self.last = Instant::now();
            pause = self.courtesy.paused(self.last);
        }
    }
}

/// As much of a text as there is room for in so many bytes.
fn bounded(mut text: String, most: usize) -> String {
    if text.len() > most {
        while text.len() > most {
            text.pop();
        }
        text.push('…');
    }
    text
}

/// How much of a value a string or `print` shows of lists and maps.
pub(super) const MOST_SHOWN: usize = 16 << 10;

/// A value in one line, as it would be typed.
fn shown(value: &Dynamic) -> String {
    let mut taken = Taken::new(MOST_SHOWN, MOST_TEXT);
    shown_value(&taken.take(value, 0))
}

pub(super) fn shown_value(value: &Value) -> String {
    show::literal(value, MOST_SHOWN)
}

fn sleep(asked: &Asked, seconds: f64) -> Result<(), Failure> {
    let most = asked.limits.sleep;
    let time = match Duration::try_from_secs_f64(seconds) {
        Ok(time) => time,
        Err(_) if seconds > 0.0 => Duration::MAX,
        // As the engine's own: no time at all.
        Err(_) => return Ok(()),
    };
    if !asked.control.may_sleep(time, most) {
        return Err(format!("sleep: an expression may sleep for {} s in all", most.as_secs_f64()).into());
    }
    let begun = Instant::now();
    asked.control.away("sleep", || {
        while let Some(left) = time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            if asked.control.is_abandoned() {
                break;
            }
            std::thread::sleep(left.min(Duration::from_millis(10)));
        }
    });
    Ok(())
}

/// What coro itself can be asked.
fn own_functions(engine: &mut Engine, asked: &Arc<Asked>) {
    for fact in FACTS {
        let name = fact.name;
        let context = asked.clone();
        match fact.give {
            Give::Plain(give) => {
                engine.register_fn(name, move || -> Result<Dynamic, Failure> {
                    dynamic(&look(&context, name, give)??, 0)
                });
            }
            Give::Asked(give) => {
                engine.register_fn(name, move |line: ImmutableString| -> Result<Dynamic, Failure> {
                    let line = line.to_string();
                    dynamic(&look(&context, name, move || give(&line))??, 0)
                });
            }
            Give::Tasks if name == "tasks" => {
                engine.register_fn(name, move || tasks(&context));
            }
            Give::Tasks => {
                engine.register_fn(name, move |id: i64| one_task(&context, id));
            }
        }
    }
    engine.register_type_with_name::<Row>("task");
    for field in facts::TASK_FIELDS {
        engine.register_get(*field, move |row: &mut Row| -> Result<Dynamic, Failure> {
            dynamic(&row.field(field).unwrap_or_default(), 0)
        });
    }
    engine.register_indexer_get(|row: &mut Row, field: ImmutableString| -> Result<Dynamic, Failure> {
        match row.field(&field) {
            Some(value) => dynamic(&value, 0),
            None => Err(format!("a task has no \"{field}\", only {}", facts::TASK_FIELDS.join(", ")).into()),
        }
    });
    engine.register_fn("to_map", |row: &mut Row| dynamic(&row.whole(), 0));
    engine.register_fn("keys", |_: &mut Row| {
        facts::TASK_FIELDS.iter().map(|field| Dynamic::from(*field)).collect::<Array>()
    });
    for name in ["to_string", "to_debug", "print", "debug"] {
        engine.register_fn(name, |row: &mut Row| match (row.field("id"), row.field("name")) {
            (Some(Value::Int(id)), Some(Value::Text(name))) => format!("#{id} {name}").trim_end().to_owned(),
            _ => String::new(),
        });
    }
}

fn tasks(asked: &Asked) -> Result<Array, Failure> {
    let most = facts::MOST_TASKS.min(asked.limits.list);
    let snapshot = look(asked, "tasks", move || Arc::new(facts::snapshot(most)))?;
    if snapshot.left_out > 0 {
        asked.control.print(
            &format!("tasks(): {} more tasks were left out, it gives at most {most}", snapshot.left_out),
            asked.limits.printed + 1024,
        );
    }
    Ok((0..snapshot.tasks.len()).map(|index| Dynamic::from(Row { snapshot: snapshot.clone(), index })).collect())
}

fn one_task(asked: &Asked, id: i64) -> Result<Dynamic, Failure> {
    Ok(match look(asked, "where", move || facts::one_task(id))? {
        Some(snapshot) => Dynamic::from(Row { snapshot: Arc::new(snapshot), index: 0 }),
        None => Dynamic::UNIT,
    })
}

/// Looks at the process. That may take reading the program's files, which is nothing for a worker.
fn look<T: Send + 'static>(asked: &Asked, name: &str, f: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    asked.control.during(name, || match scheduler::current() {
        Some(_) => waits(|| blocking::blocking(f))?.map_err(|error| error.to_string().into()),
        None => Ok(f()),
    })
}

/// Makes a function of the program callable.
fn register(engine: &mut Engine, asked: &Arc<Asked>, function: &Arc<Function>) {
    let (context, function) = (asked.clone(), function.clone());
    let (name, width) = (function.name.clone(), function.parameters.len());
    register_call(engine, name, width, move |arguments| call(&context, &function, arguments));
}

/// The same of anything with so many arguments.
pub(super) fn register_call(
    engine: &mut Engine,
    name: String,
    width: usize,
    call: impl Fn(Vec<Dynamic>) -> Result<Dynamic, Failure> + Send + Sync + 'static,
) {
    type D = Dynamic;
    type R = Result<Dynamic, Failure>;
    match width {
        0 => engine.register_fn(name, move || -> R { call(vec![]) }),
        1 => engine.register_fn(name, move |a: D| -> R { call(vec![a]) }),
        2 => engine.register_fn(name, move |a: D, b: D| -> R { call(vec![a, b]) }),
        3 => engine.register_fn(name, move |a: D, b: D, c: D| -> R { call(vec![a, b, c]) }),
        4 => engine.register_fn(name, move |a: D, b: D, c: D, d: D| -> R { call(vec![a, b, c, d]) }),
        5 => engine.register_fn(name, move |a: D, b: D, c: D, d: D, e: D| -> R { call(vec![a, b, c, d, e]) }),
        _ => engine.register_fn(name, move |a: D, b: D, c: D, d: D, e: D, f: D| -> R { call(vec![a, b, c, d, e, f]) }),
    };
}

/// Calls a function of the program, if the session may.
pub(super) fn call(asked: &Arc<Asked>, function: &Arc<Function>, arguments: Vec<Dynamic>) -> Result<Dynamic, Failure> {
    let mut taken = Taken::new(MOST_VALUES, MOST_TEXT);
    let arguments: Vec<Value> = arguments.iter().map(|argument| taken.take(argument, 0)).collect();
    if taken.cut || taken.function {
        return Err(format!("{}: an argument is too large, too deep or a function", function.name).into());
    }
    let shown = arguments.iter().map(|argument| show::literal(argument, MOST_RECORDED)).collect::<Vec<_>>().join(", ");
    (asked.permit)(function.tier, &function.name, &bounded(shown, MOST_RECORDED), &asked.typed)?;
    let outcome = asked.control.away(&function.name, || {
        let call = || {
            catch_unwind(AssertUnwindSafe(|| match function.place {
                // Here would be the worker, which it may block.
                Place::Here if scheduler::current().is_some() => {
                    let function = function.clone();
                    blocking::blocking(move || (function.call)(arguments)).map_err(|error| error.to_string())?
                }
                Place::Here => (function.call)(arguments),
                Place::Worker(index) => on_worker::call(function, index, arguments, &asked.control),
            }))
        };
        panic::silently(false, call)
    });
    match outcome {
        Ok(Ok(value)) => dynamic(&value, 0),
        Ok(Err(error)) => Err(format!("{}: {error}", function.name).into()),
        Err(payload) if suspend::is_interrupt(&*payload) => Err(terminated()),
        Err(payload) => {
            let text = format!("{} panicked: {}", function.name, payload_text(&*payload));
            // Dropping a payload runs foreign code, which may panic again.
            std::mem::forget(payload);
            Err(text.into())
        }
    }
}

/// Calls what may wait. An interrupt of the task unwinds no further: the expression ends at its next step.
pub(super) fn waits<T>(f: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        if suspend::is_interrupt(&*payload) {
            return terminated();
        }
        let text = payload_text(&*payload).to_owned();
        std::mem::forget(payload);
        text.into()
    })
}

/// No `catch` of an expression holds it.
fn terminated() -> Failure {
    EvalAltResult::ErrorTerminated("its task was cancelled".into(), rhai::Position::NONE).into()
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
