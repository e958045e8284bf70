//! Expressions at the console: what the program lets them call, and how they are evaluated.
//!
//! A line of a session that is no command is an expression of the language [Rhai](https://rhai.rs); `coro::console` has the guide.
//! `source` looks at its text, `evaluation` gives it to the session's thread, `engine` has Rhai evaluate it with the functions of
//! `facts` and those of the program (`function`), `show` writes the result.
//!
//! Invariants: nothing of the program or of the engine runs on the console thread; the engine's types stay in here.
//!
//! Must not know: sockets and sessions.

#![forbid(unsafe_code)]

#[cfg(feature = "script")]
mod control;
#[cfg(feature = "script")]
mod engine;
#[cfg(feature = "script")]
mod evaluation;
#[cfg(feature = "script")]
mod facts;
mod function;
#[cfg(feature = "script")]
mod limits;
mod list;
#[cfg(feature = "script")]
mod on_worker;
#[cfg(feature = "script")]
mod show;
#[cfg(feature = "script")]
mod source;
mod value;

#[cfg(feature = "script")]
pub(crate) use evaluation::Evaluator;
pub use function::{Callable, Function, register, register_on_worker, register_value, unregister};
pub(crate) use list::functions;
pub use value::{FromValue, IntoValue, Value};

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
