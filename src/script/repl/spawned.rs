//! Closures that run as tasks.
//!
//! Invariant: whoever waits for one is woken once it has ended, also if it was cancelled before it began.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use rhai::{Dynamic, Engine, FnPtr, Scope};

use super::streams::{Connection, Listener};
use super::{Flow, MOST_SPAWNED, TASK_STACK, lock, named};
use crate::scheduler::runtime::payload_text;
use crate::scheduler::{Builder, Task};
use crate::script::branch;
use crate::script::engine::{Failure, Outcome};
use crate::script::source::Rewritten;
use crate::sync::Event;

/// A handle of one, as expressions have it.
#[derive(Clone)]
pub(super) struct Spawned(Arc<Inner>);

struct Inner {
    task: OnceLock<Task>,
    ended: Event,
    /// Once it has ended: what it gave, or why not.
    outcome: Mutex<Option<Result<Dynamic, String>>>,
    /// Somebody has asked for the outcome: no need to speak of it.
    wanted: AtomicBool,
}

impl Spawned {
    fn id(&self) -> u64 {
        self.0.task.get().map_or(0, Task::id)
    }

    pub(super) fn cancel(&self) {
        if let Some(task) = self.0.task.get() {
            task.cancel();
        }
    }

    fn is_finished(&self) -> bool {
        self.0.ended.is_set()
    }

    pub(super) fn wait_until(&self, until: Instant) {
        self.0.ended.wait_timeout(until.saturating_duration_since(Instant::now()));
    }

    fn end(&self, outcome: Result<Dynamic, String>) {
        lock(&self.0.outcome).get_or_insert(outcome);
        self.0.ended.set();
    }
}

impl fmt::Display for Spawned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = lock(&self.0.outcome);
        let state = match &*outcome {
            None => "not ended",
            Some(Ok(_)) => "ended",
            Some(Err(_)) => "ended with an error",
        };
        write!(f, "task #{}, {state}", self.id())
    }
}

/// Held by the task: its end is told whatever becomes of it.
struct Tells(Spawned);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.end(Err("cancelled".into()));
    }
}

pub(super) fn spawn(flow: &Arc<Flow>, function: FnPtr) -> Result<Spawned, Failure> {
    let mut all = lock(&flow.home.spawned);
    all.retain(|task| !task.is_finished());
    if all.len() >= MOST_SPAWNED {
        return Err(format!("spawn: a session has at most {MOST_SPAWNED} tasks at a time").into());
    }
    let inner = Inner {
        task: OnceLock::new(),
        ended: Event::new().named("end of a task of the repl"),
        outcome: Mutex::new(None),
        wanted: AtomicBool::new(false),
    };
    let spawned = Spawned(Arc::new(inner));
    let (tells, own, function) = (Tells(spawned.clone()), flow.fork(), with_own_handles(function));
    let body = move || {
        let tells = tells;
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&own, &function, &tells.0)));
        let outcome = outcome.unwrap_or_else(|payload| {
            let text = format!("the evaluation panicked: {}", payload_text(&*payload));
            std::mem::forget(payload);
            Err(text)
        });
        if let Err(why) = &outcome
            && !tells.0.0.wanted.load(Ordering::SeqCst)
            && !super::interrupted()
        {
            own.home.asides.say(&format!("#{} ended with an error: {why}", tells.0.id()));
        }
        tells.0.end(outcome);
    };
    let builder = Builder::new().name(named(&flow.asked.typed)).class("repl").stack_size(TASK_STACK);
    let handle = builder.spawn_local(body).map_err(|error| Failure::from(format!("spawn: {error}")))?;
    let _ = spawned.0.task.set(handle.task());
    all.push(spawned.clone());
    Ok(spawned)
}

/// A variable that a closure has in common with others cannot be used by them while it waits in a method of it. So that
/// several tasks can use one connection, each has its own handle of it.
fn with_own_handles(mut function: FnPtr) -> FnPtr {
    for value in function.iter_curry_mut() {
        let handle = value.is_shared()
            && (value.read_lock::<Connection>().is_some()
                || value.read_lock::<Listener>().is_some()
                || value.read_lock::<Spawned>().is_some());
        if handle {
            *value = value.flatten_clone();
        }
    }
    function
}

/// What the task does.
fn run(flow: &Arc<Flow>, function: &FnPtr, spawned: &Spawned) -> Result<Dynamic, String> {
    let mut engine = flow.engine();
    // The line that spawned it may have been answered long ago.
    let (asides, of) = (flow.home.asides.clone(), spawned.clone());
    engine.on_print(move |text| asides.say(&format!("#{}: {text}", of.id())));
    let (asides, of) = (flow.home.asides.clone(), spawned.clone());
    engine.on_debug(move |text, _, _| asides.say(&format!("#{}: {text}", of.id())));
    match function.call::<Dynamic>(&engine, flow.functions(), ()).and_then(branch::whole) {
        Ok(value) => Ok(value.flatten()),
        Err(failure) => {
            let source = Rewritten::in_repl(&flow.asked.typed);
            match flow.asked.failed(*failure, &source, &Scope::new()) {
                Outcome::Failed(text) => Err(text),
                _ => Err("what was spawned is not known".into()),
            }
        }
    }
}

/// What can be done with one.
pub(super) fn register(engine: &mut Engine, flow: &Arc<Flow>) {
    engine.register_type_with_name::<Spawned>("task");
    let context = flow.clone();
    engine.register_fn("join", move |spawned: Spawned| -> Result<Dynamic, Failure> {
        spawned.0.wanted.store(true, Ordering::SeqCst);
        context.wait("join", || spawned.0.ended.wait())?;
        let outcome = lock(&spawned.0.outcome).clone();
        match outcome {
            Some(Ok(value)) => Ok(value),
            Some(Err(why)) => Err(format!("task #{}: {why}", spawned.id()).into()),
            None => Ok(Dynamic::UNIT),
        }
    });
    engine.register_fn("cancel", |spawned: Spawned| spawned.cancel());
    engine.register_fn("is_finished", |spawned: Spawned| spawned.is_finished());
    engine.register_get("id", |spawned: &mut Spawned| spawned.id() as i64);
    for name in ["to_string", "to_debug", "print", "debug"] {
        engine.register_fn(name, |spawned: &mut Spawned| spawned.to_string());
    }
}
