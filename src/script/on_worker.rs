//! Functions of the program that run in a task.
//!
//! Invariant: what no worker has begun within [`PATIENCE`] is never run.
//!
//! Must not know: the engine, sessions.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::control::Control;
use super::function::Function;
use crate::scheduler::runtime::payload_text;
use crate::scheduler::{self, Builder};
use crate::time;
use crate::value::Value;

/// How long a worker may take to begin a function.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the evaluating thread looks.
const LOOK: Duration = Duration::from_millis(2);

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// Calls `function` in a new task, on that worker or on any, and waits for it.
pub(super) fn call(
    function: &Arc<Function>,
    worker: Option<usize>,
    arguments: Vec<Value>,
    control: &Control,
) -> Result<Value, String> {
    let state = Arc::new(AtomicU8::new(WAITING));
    let mut builder = Builder::new().name(format!("console {}", function.name)).class("console");
    if let Some(index) = worker {
        builder = builder.worker(index);
    }
    let (call, begun) = (function.call.clone(), state.clone());
    let task = move || match begun.compare_exchange(WAITING, BEGUN, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => call(arguments),
        Err(_) => Err(String::new()),
    };
    let handle = builder.spawn(task).map_err(|error| error.to_string())?;
    let since = Instant::now();
    while !handle.is_finished() {
        let late = since.elapsed() > PATIENCE;
        if (late || control.is_abandoned())
            && state.compare_exchange(WAITING, GIVEN_UP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            handle.cancel();
            return Err("workers busy: not run".into());
        }
        if control.is_abandoned() {
            // It may wait long before it notices; nobody waits for that.
            handle.cancel();
            return Err("abandoned; its task was cancelled".into());
        }
        // Parks the task, where it is one that evaluates.
        time::sleep(LOOK);
    }
    match handle.join() {
        Ok(result) => result,
        Err(payload) if scheduler::is_cancel(&*payload) => Err("its task was cancelled".into()),
        Err(payload) => {
            let text = format!("panicked: {}", payload_text(&*payload));
            std::mem::forget(payload);
            Err(text)
        }
    }
}
