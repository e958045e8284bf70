//! Expressions of a repl: evaluated in tasks, with functions that wait as tasks do.
//!
//! A session has a [`Home`], a task on one worker, which takes its lines one after the other and has each evaluated by a task
//! of its own on the same worker; closures that were spawned are more of them. A task never changes its thread, so what the
//! engine shares without locks may be held across waits, and what outlives a line (variables, closures) stays what it is.
//!
//! Invariants: nothing unwinds through the engine: an interrupt is caught in the function that waits, and the expression
//! ends at its next step. All of a session's tasks have the same stack, since values go from one to the other and are
//! dropped by recursion. No lock is held across a wait.
//!
//! Must not know: sessions, terminals.

#![forbid(unsafe_code)]
#![allow(
    clippy::arc_with_non_send_sync,
    reason = "they are Send and Sync if some other crate has rhai's feature `sync`"
)]
#![allow(deprecated, reason = "as in the engine")]

mod spawned;
mod streams;

use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rhai::{AST, Dynamic, Engine, EvalAltResult, FnPtr, NativeCallContext, Position, Scope};

use super::LAST;
use super::branch;
use super::control::Control;
use super::engine::{self, Asked, Failure, MOST_TEXT, MOST_VALUES, MOST_VARIABLES, Outcome, Packages, Taken, waits};
use super::evaluation::Waiting;
use super::limits::{Limits, TASK_STACK};
use super::source::{self, Rewritten};
use super::{function, show};
use crate::commands::{Begun, Evaluate, Expression};
use crate::scheduler::runtime::payload_text;
use crate::scheduler::{self, Builder, suspend};
use crate::sync::{Event, mpsc};
use crate::time;
use crate::value::Value;
use spawned::Spawned;

/// A function that only a repl has.
pub(super) struct Offer {
    pub(super) name: &'static str,
    pub(super) parameters: &'static str,
    pub(super) doc: &'static str,
}

/// In the order in which `functions` shows them.
pub(super) static REPL: &[Offer] = &[
    Offer {
        name: "connect",
        parameters: "address",
        doc: "a connection to \"host:port\" or a socket's path: send, recv, recv_exact, recv_line, close, .addr, .peer",
    },
    Offer { name: "listen", parameters: "address", doc: "a listener: accept() gives a connection; close, .addr" },
    Offer { name: "sleep", parameters: "seconds", doc: "other tasks run meanwhile" },
    Offer {
        name: "spawn",
        parameters: "closure",
        doc: "a task that evaluates it, as spawn(|| sleep(1.0)): join(), cancel(), is_finished(), .id",
    },
    Offer {
        name: "timeout",
        parameters: "seconds, closure",
        doc: "what the closure gives, or an error if it takes longer",
    },
];

/// Whether there has been a repl in this process.
static EVER: AtomicBool = AtomicBool::new(false);

pub(super) fn was_started() -> bool {
    EVER.load(Ordering::Relaxed)
}

/// Tasks of one session that have been spawned and have not ended.
const MOST_SPAWNED: usize = 1000;

/// Script functions, closures among them, that are kept for later lines.
const MOST_FUNCTIONS: usize = 500;

/// Steps after which other tasks of the worker get their turn.
const SLICE: u64 = 512;

/// How long the tasks of a session that has ended may take to end.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// How much of a line its tasks are named by, in characters.
const NAME: usize = 48;

/// Bytes that tasks may have said without anybody having taken them.
const MOST_SAID: usize = 64 << 10;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What tasks say that go on by themselves.
struct Asides {
    said: Mutex<Said>,
    /// Called when there is something for whoever takes it.
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Said {
    text: String,
    lost: usize,
}

impl Asides {
    fn say(&self, text: &str) {
        let lines = show::text(&Value::Text(text.to_owned()));
        let mut said = lock(&self.said);
        let first = said.text.is_empty() && said.lost == 0;
        if said.text.len() + lines.len() > MOST_SAID {
            said.lost += 1;
        } else {
            said.text += &lines;
        }
        drop(said);
        if first {
            (self.wake)();
        }
    }

    fn take(&self) -> Option<String> {
        let Said { mut text, lost } = std::mem::take(&mut *lock(&self.said));
        if lost > 0 {
            text += &format!("… {lost} more words of tasks found no room\n");
        }
        (!text.is_empty()).then_some(text)
    }
}

/// The session's side.
pub(crate) struct Evaluator {
    lines: mpsc::Sender<Arc<Asked>>,
    asides: Arc<Asides>,
}

/// Starts the task that evaluates the lines of one session, on the caller's runtime or the process-wide one; `wake` is called
/// when [`Evaluate::aside`] has something. The event is set when that task and those that it spawned have ended.
///
/// # Errors
/// If there is no room for a task, or no runtime can start.
pub(crate) fn start(wake: Box<dyn Fn() + Send + Sync>) -> io::Result<(Evaluator, Arc<Event>)> {
    let (lines, queue) = mpsc::channel_named("lines of the repl");
    let asides = Arc::new(Asides { said: Mutex::default(), wake });
    let ended = Arc::new(Event::new().named("end of the repl"));
    let (said, tells) = (asides.clone(), Tells(ended.clone()));
    let home = move || {
        let _tells = tells;
        serve(&Arc::new(Home::new(said)), Queue(queue));
    };
    Builder::new().name("repl").class("repl").stack_size(TASK_STACK).spawn(home)?;
    EVER.store(true, Ordering::Relaxed);
    Ok((Evaluator { lines, asides }, ended))
}

/// Sets the event also if the task is cancelled.
struct Tells(Arc<Event>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl Evaluate for Evaluator {
    fn is_open(&self, text: &str) -> bool {
        source::is_open(text)
    }

    fn begin(&mut self, expression: Expression<'_>) -> Begun {
        let control = Arc::new(Control::answering(&expression));
        let asked = Arc::new(Asked {
            typed: expression.text.to_owned(),
            permit: expression.permit.clone(),
            control: control.clone(),
            limits: Limits::new(TASK_STACK),
            in_repl: true,
        });
        match self.lines.send(asked) {
            Ok(()) => Ok(Box::new(Waiting::new(control, expression))),
            Err(_) => Err("not evaluated: the runtime of this repl has ended".into()),
        }
    }

    fn aside(&mut self) -> Option<String> {
        self.asides.take()
    }
}

/// The lines to be evaluated. None is left without an outcome.
struct Queue(mpsc::Receiver<Arc<Asked>>);

impl Drop for Queue {
    fn drop(&mut self) {
        while let Ok(asked) = self.0.try_recv() {
            asked.control.finish(Outcome::Failed("not evaluated: the runtime ends".into()));
        }
    }
}

/// What the tasks of one session share.
struct Home {
    packages: Packages,
    kept: Mutex<Kept>,
    spawned: Mutex<Vec<Spawned>>,
    asides: Arc<Asides>,
}

/// What is there in later lines.
#[derive(Clone)]
struct Kept {
    last: Dynamic,
    /// By name, and whether it is a constant.
    variables: Vec<(String, bool, Dynamic)>,
    functions: AST,
}

impl Home {
    fn new(asides: Arc<Asides>) -> Home {
        let kept = Kept { last: Dynamic::UNIT, variables: Vec::new(), functions: AST::empty() };
        Home { packages: Packages::new(), kept: Mutex::new(kept), spawned: Mutex::default(), asides }
    }
}

/// Ends the session's tasks when its own task does, for whatever reason.
struct Ends<'a>(&'a Home);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let all = std::mem::take(&mut *lock(&self.0.spawned));
        all.iter().for_each(|task| task.cancel());
        if suspend::unwinding() {
            // Cancelled itself: they end by themselves.
            return;
        }
        let until = Instant::now() + LAST_PATIENCE;
        let _ = waits(|| all.iter().for_each(|task| task.wait_until(until)));
    }
}

/// What the session's task does.
fn serve(home: &Arc<Home>, queue: Queue) {
    let _ends = Ends(home);
    while let Ok(asked) = queue.0.recv() {
        let control = asked.control.clone();
        // Also if the task is cancelled before it begins.
        let finishes = Finishes(control.clone());
        let shared = home.clone();
        let name = named(&asked.typed);
        let body = move || {
            let finishes = finishes;
            let outcome = catch_unwind(AssertUnwindSafe(|| line(&shared, &asked))).unwrap_or_else(|payload| {
                let text = format!("the evaluation panicked: {}", payload_text(&*payload));
                std::mem::forget(payload);
                Outcome::Failed(text)
            });
            finishes.0.finish(outcome);
        };
        match Builder::new().name(name).class("repl").stack_size(TASK_STACK).spawn_local(body) {
            Ok(handle) => {
                control.runs_in(handle.task());
                let _ = handle.join();
            }
            Err(error) => control.finish(Outcome::Failed(format!("not evaluated: {error}"))),
        }
    }
}

struct Finishes(Arc<Control>);

impl Drop for Finishes {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            self.0.finish(Outcome::Failed("abandoned".into()));
        }
    }
}

/// How the tasks of a line are called.
fn named(typed: &str) -> String {
    let line = typed.trim().replace('\n', " ");
    let cut = line.char_indices().nth(NAME).map(|(end, _)| format!("{}…", &line[..end]));
    format!("repl: {}", cut.unwrap_or(line))
}

/// One evaluation: of a line, or of a closure that was spawned.
struct Flow {
    home: Arc<Home>,
    asked: Arc<Asked>,
    /// The line as it was parsed.
    text: Arc<str>,
    /// The functions that there are.
    functions: OnceLock<AST>,
    /// Steps since it last waited.
    steps: AtomicU64,
}

/// Evaluates a line, in a task of its own.
fn line(home: &Arc<Home>, asked: &Arc<Asked>) -> Outcome {
    let source = Rewritten::in_repl(&asked.typed);
    let flow = Arc::new(Flow {
        home: home.clone(),
        asked: asked.clone(),
        text: Arc::from(source.text.as_str()),
        functions: OnceLock::new(),
        steps: AtomicU64::new(0),
    });
    let engine = flow.engine();
    let before = lock(&home.kept).clone();
    let mut scope = Scope::new();
    for (name, constant, value) in before.variables {
        if constant {
            scope.push_constant_dynamic(name, value);
        } else {
            scope.push_dynamic(name, value);
        }
    }
    scope.push_dynamic(LAST, before.last);
    let outcome = engine.compile(&source.text).map_err(Failure::from).and_then(|ast| {
        let mut earlier = before.functions;
        if earlier.iter_functions().count() > MOST_FUNCTIONS {
            earlier = AST::empty();
        }
        let whole = earlier.merge(&ast);
        let _ = flow.functions.set(whole.clone_functions_only());
        engine.eval_ast_with_scope::<Dynamic>(&mut scope, &whole).and_then(branch::whole)
    });
    let result = match outcome {
        Ok(value) => value,
        Err(failure) => match *failure {
            EvalAltResult::Exit(value, _) | EvalAltResult::Return(value, _) => value,
            failure => return asked.failed(failure, &source, &scope),
        },
    };
    let mut notes = Vec::new();
    let mut taken = Taken::new(MOST_VALUES, MOST_TEXT);
    let value = taken.take(&result, 0);
    if taken.cut {
        notes.push("the result is too large or too deep to be shown whole".to_owned());
    }
    if !asked.control.is_abandoned() {
        flow.keep(result, &scope, &mut notes);
    }
    Outcome::Value(value, notes)
}

impl Flow {
    /// An evaluation of its own, with the same functions and rights.
    fn fork(&self) -> Arc<Flow> {
        let Asked { typed, permit, limits, in_repl, .. } = &*self.asked;
        let control = Arc::new(Control::new());
        let asked = Asked { typed: typed.clone(), permit: permit.clone(), control, limits: *limits, in_repl: *in_repl };
        let functions = OnceLock::new();
        let _ = functions.set(self.functions().clone());
        let (home, text, steps) = (self.home.clone(), self.text.clone(), AtomicU64::new(0));
        Arc::new(Flow { home, asked: Arc::new(asked), text, functions, steps })
    }

    fn functions(&self) -> &AST {
        self.functions.get_or_init(AST::empty)
    }

    /// What the next line finds again. Unlike at a backdoor, connections and closures too.
    fn keep(&self, result: Dynamic, scope: &Scope<'_>, notes: &mut Vec<String>) {
        let mut variables: Vec<(String, bool, Dynamic)> = Vec::new();
        // The newest comes first, and hides those of the same name.
        let mut seen = HashSet::new();
        for (name, constant, value) in scope.iter_raw() {
            if name == LAST || !seen.insert(name) {
                continue;
            }
            if variables.len() < MOST_VARIABLES {
                variables.push((name.to_owned(), constant, value.clone()));
            } else {
                notes.push(format!("{name} is not kept: a session has at most {MOST_VARIABLES} variables"));
            }
        }
        variables.reverse();
        let mut kept = lock(&self.home.kept);
        let old = std::mem::replace(&mut kept.variables, variables);
        let mut last = Dynamic::UNIT;
        if !result.is_unit() {
            last = std::mem::replace(&mut kept.last, result.flatten());
        }
        if let Some(functions) = self.functions.get() {
            kept.functions = functions.clone();
        }
        drop(kept);
        // What goes may close connections, or be deep.
        drop((old, last));
    }

    /// An engine for this evaluation. It has an engine's functions and those of a repl.
    fn engine(self: &Arc<Flow>) -> Engine {
        let mut engine = engine::common(&self.asked, &self.home.packages, &self.text);
        engine.set_max_operations(0);
        let flow = self.clone();
        engine.on_progress(move |_| flow.step());
        let flow = self.clone();
        engine.register_fn("sleep", move |seconds: f64| flow.sleep(seconds));
        let flow = self.clone();
        engine.register_fn("sleep", move |seconds: i64| flow.sleep(seconds as f64));
        let flow = self.clone();
        engine.register_fn(source::SPAWN, move |function: FnPtr| spawned::spawn(&flow, function));
        spawned::register(&mut engine, self);
        streams::register(&mut engine, self);
        // A function of the program keeps its name.
        if function::named("timeout").is_none() {
            let flow = self.clone();
            engine.register_fn("timeout", move |context: NativeCallContext<'_>, seconds: f64, function: FnPtr| {
                flow.timeout(&context, seconds, &function)
            });
            let flow = self.clone();
            engine.register_fn("timeout", move |context: NativeCallContext<'_>, seconds: i64, function: FnPtr| {
                flow.timeout(&context, seconds as f64, &function)
            });
        }
        engine
    }

    /// Called by the engine at each step.
    fn step(&self) -> Option<Dynamic> {
        let steps = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        if self.asked.control.is_abandoned() {
            return Some(Dynamic::UNIT);
        }
        if interrupted() {
            return Some("its task was cancelled".into());
        }
        let most = self.asked.limits.operations;
        if steps > most {
            return Some(format!("too many operations: at most {most} without waiting in between").into());
        }
        if steps.is_multiple_of(SLICE) && waits(scheduler::yield_slice).is_err() {
            return Some("its task was cancelled".into());
        }
        None
    }

    /// Calls what may wait, and begins to count anew.
    fn wait<T>(&self, name: &str, f: impl FnOnce() -> T) -> Result<T, Failure> {
        let result = self.asked.control.away(name, || waits(f));
        self.steps.store(0, Ordering::Relaxed);
        result
    }

    /// The same for what may fail, too.
    fn io<T>(&self, name: &str, f: impl FnOnce() -> io::Result<T>) -> Result<T, Failure> {
        match self.wait(name, f)? {
            Ok(value) => Ok(value),
            Err(_) if interrupted() => {
                Err(EvalAltResult::ErrorTerminated("its task was cancelled".into(), Position::NONE).into())
            }
            Err(error) => Err(format!("{name}: {error}").into()),
        }
    }

    fn sleep(&self, seconds: f64) -> Result<(), Failure> {
        let time = duration("sleep", seconds)?;
        self.wait("sleep", || time::sleep(time))
    }

    fn timeout(&self, context: &NativeCallContext<'_>, seconds: f64, function: &FnPtr) -> Result<Dynamic, Failure> {
        let limit = duration("timeout", seconds)?;
        match waits(|| time::timeout(limit, || function.call_within_context::<Dynamic>(context, ())))? {
            Ok(result) => result,
            Err(_) => Err(format!("timeout: not done within {seconds} s").into()),
        }
    }
}

fn duration(name: &str, seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{name}: {seconds} s is no length of time").into())
}

/// Whether the running task is to end, or a time limit around the running code has passed.
fn interrupted() -> bool {
    suspend::here().is_some_and(|here| here.interrupt_due())
}

/// How a value is shown that is no plain data.
pub(super) fn shown(value: &Dynamic) -> Option<String> {
    streams::shown(value).or_else(|| Some(value.read_lock::<Spawned>()?.to_string()))
}
