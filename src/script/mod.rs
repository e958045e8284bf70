//! Expressions at the console: what the program lets them call, and how they are evaluated.
//!
//! A line of a session that is no command is an expression of the language [Rhai](https://rhai.rs); `coro::console` has the guide.
//! `source` looks at its text, `evaluation` gives it to the session's thread, `engine` has Rhai evaluate it with the functions of
//! `facts` and those of the program (`function`, with `branch` where their names have dots), `show` writes the result. What is
//! exported by an attribute comes from a table of the linker's (`export`). `repl` does the
//! same in tasks, with functions that wait, for a session at the program's own terminal.
//!
//! Invariants: nothing of the program or of the engine runs on the console thread; the engine's types stay in here.
//!
//! Must not know: sockets and sessions.

#![forbid(unsafe_code)]

mod as_value;
#[cfg(feature = "script")]
mod branch;
mod builtin;
#[cfg(feature = "script")]
mod cells;
#[cfg(all(feature = "script", feature = "probe"))]
mod condition;
#[cfg(feature = "script")]
mod control;
#[cfg(feature = "script")]
mod engine;
#[cfg(feature = "script")]
mod evaluation;
#[cfg(feature = "macros")]
pub(crate) mod export;
#[cfg(feature = "script")]
mod facts;
mod function;
#[cfg(feature = "script")]
mod limits;
mod list;
mod name;
#[cfg(feature = "script")]
mod natives;
#[cfg(feature = "script")]
mod on_worker;
#[cfg(feature = "script")]
#[cfg(feature = "script")]
mod repl;
#[cfg(feature = "script")]
mod shallow;
#[cfg(feature = "script")]
mod show;
#[cfg(feature = "script")]
mod source;

pub use crate::value::{FromValue, IntoValue, Value};
pub use as_value::AsValue;
#[cfg(all(feature = "script", feature = "probe"))]
pub(crate) use condition::condition;
#[cfg(feature = "script")]
pub(crate) use evaluation::Evaluator;
#[cfg(feature = "macros")]
use export::exported;
pub use function::{Callable, Function, register, register_on_worker, register_value, unregister};
pub(crate) use list::{callables, functions};
#[cfg(feature = "script")]
pub(crate) use repl::start as start_repl;

/// What the program exports by attributes.
#[cfg(not(feature = "macros"))]
fn exported() -> function::Registry {
    function::Registry::new()
}

/// By this name expressions know the last result; `_` is rewritten to it.
const LAST: &str = "last";

/// What the console has functions for itself; see `facts`. Nothing of the program can be called so, with or without the
/// engine.
const OWN_NAMES: &[&str] = &[
    "tasks",
    "where",
    "workers",
    "stacks",
    "objects",
    "deadlocks",
    "sockets",
    "descriptors",
    "peers",
    "events",
    "classes",
    "panics",
    "stalls",
    "memory",
    "status",
    "ask",
];
