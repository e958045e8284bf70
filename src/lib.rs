//! A runtime for stackful tasks that can be seen into while it runs.
//!
//! Write plain blocking code with `std`'s names, spawn as many tasks as you like, and ask the live process where every
//! one of them is, however stuck it may be.
//!
//! ```no_run
//! use coro::net::TcpListener; // was: use std::net::TcpListener
//! use std::io::{Read, Write};
//!
//! fn main() -> std::io::Result<()> {
//!     coro::run(|| {
//!         coro::backdoor::serve_default()?; // prints the socket; then: socat -t60 - UNIX-CONNECT:PATH
//!         let listener = TcpListener::bind("127.0.0.1:9000")?;
//!         loop {
//!             let (mut conn, peer) = listener.accept()?;
//!             coro::spawn_named(format!("echo {peer}"), move || {
//!                 let mut buf = [0; 4096];
//!                 while let Ok(n) = conn.read(&mut buf) {
//!                     if n == 0 || conn.write_all(&buf[..n]).is_err() {
//!                         break;
//!                     }
//!                 }
//!             });
//!         }
//!     })
//! }
//! ```
//!
//! * [`run`], [`spawn`], [`JoinHandle`], [`yield_slice`], [`scope`]: tasks. A task that has started never changes its
//!   thread, so `Rc`, `RefCell` and thread-locals may be held across waits. Several tasks share a thread, though: a
//!   crate that keeps a *borrowed pointer* in a thread-local for the length of a call (`scoped-tls` does) relies on
//!   calls of one thread being nested, and two tasks that wait inside such calls are not; wrap them in [`no_switch`].
//! * [`net`], [`sync`], [`thread`], [`time`]: std's names; they park the task instead of blocking the worker, and on a plain thread
//!   block that thread.
//! * [`blocking`](blocking()), [`io`]: calls that would block the worker, on threads that are there for it; std's I/O
//!   traits, pipes, standard input and output. Names are looked up there as well.
//! * [`fs`], [`process`], [`signal`]: files, child processes, and what the process is told from outside (`docs/around.md`).
//! * [`future`]: futures run inside tasks, and tasks are awaited by `async` code. [`select!`](macro@select): whatever comes first
//!   of messages, ends of tasks, readiness, futures and points in time (`docs/futures.md`).
//! * [`runner`], [`ctrl_c`], [`stopping`]: what SIGINT and SIGTERM do.
//! * [`timeout`], [`shield`], [`Task::cancel`]: limits around any code (`docs/cancellation.md`).
//! * [`inspect`], [`backdoor`], [`where_all`]: look inside (`docs/backdoor.md`; `docs/situations.md` shows what each trouble looks
//!   like). Line numbers need `debug = 1` in the profile. [`tb`]: tracebacks of the caller, of a panic, of an error.
//! * [`set_latency_warning`], [`set_panic_notifier`], [`report`]: be told of stalls, panics and deadlocks.
//! * [`macro@probe`], [`mod@probe`]: functions that can be watched while the program runs: logged, counted, measured, stopped
//!   (`docs/probes.md`).
//! * [`set_label`], [`Builder::class`]: what the program wants to see beside a task, and by what to add tasks up.
//!
//! Environment: `CORO_WORKERS` (threads), `CORO_STACK_KB` (default stack), `CORO_STACK_GUARDS` (`madvise` or
//! `mprotect`), `CORO_MAX_TASKS`, `CORO_BLOCKING_THREADS`, `CORO_LATENCY_MS`, `CORO_ON_DEADLOCK`, `CORO_DUMP_SIGNAL`,
//! `CORO_STACK_SIGNAL`, `CORO_SPAWN_STACKS`, `CORO_BACKDOOR=off`, `CORO_PROBES`. `README.md` has the table, and what is not there yet. How it works and why is told in `ARCHITECTURE.md`.

mod context;
mod observe;
mod reactor;
mod scheduler;
mod stack;
mod sys;
mod task;
mod timer;
#[cfg_attr(
    not(feature = "backdoor"),
    allow(dead_code, unreachable_pub, unused_imports, reason = "most of it is for expressions")
)]
mod value;
mod wiring;

#[cfg(feature = "backdoor")]
pub mod backdoor;
mod blocking;
#[cfg_attr(
    not(feature = "backdoor"),
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "without somebody who asks, only reports use some of it"
    )
)]
mod commands;
#[cfg(feature = "backdoor")]
pub mod console {
    //! The console from the program's side: what its expressions may call, sessions that begin by a signal, and one at the
    //! program's own terminal ([`repl()`]).
    //!
    //! A line of a [`backdoor`](crate::backdoor) session that is no command is an expression of the language
    //! [Rhai](https://rhai.rs), if the crate was built with the feature `script`, which is on by default. Every read command is a
    //! function there that returns values, and the program adds its own:
    //!
    //! ```no_run
    //! # use std::sync::atomic::{AtomicUsize, Ordering};
    //! static LIMIT: AtomicUsize = AtomicUsize::new(100);
    //! coro::console::register("set_limit", "how many clients there may be", |n: usize| LIMIT.swap(n, Ordering::Relaxed));
    //! coro::console::register_value("limit", "how many clients there may be", || LIMIT.load(Ordering::Relaxed));
    //! ```
    //!
    //! ```text
    //! app[4711] read> tasks().filter(|t| t.state == "parked" && t.age > 5.0).map(|t| t.name)
    //! echo 10.0.0.4:52110
    //! echo 10.0.0.5:40022
    //! app[4711] read> _.len()
    //! 2
    //! app[4711] read> set_limit(limit * 2)
    //! set_limit needs the tier act: write first: enable act
    //! ```
    //!
    //! With the attribute [`#[coro::export]`](macro@crate::export) it needs no call, and with dots in a name
    //! (`register("app.players.count", …)`, `app.players.count()`) what belongs together stands together; `app` lists it.
    //!
    //! `functions` lists what can be called. `_` is the last result (`last` does the same), `let x = …` is there in later lines,
    //! and a line with an open bracket goes on in the next. Evaluation has a thread of its own for each session: it may wait, Ctrl-C abandons it, and
    //! no worker, no other session and no command waits for it. It is bounded in steps, depth and size, and reaches no file, process or
    //! memory but through functions that the program registered.

    pub use crate::backdoor::attach::{install_signal_handler, install_signal_handler_on, limit_signal_sessions};
    pub use crate::backdoor::repl::{repl, repl_on};
    pub use crate::commands::Tier;
    pub use crate::script::{
        AsValue, Callable, FromValue, Function, IntoValue, Value, register, register_on_worker, register_value,
        unregister,
    };
}
pub mod fs;
pub mod future;
#[cfg(feature = "hyper")]
pub mod hyper;
pub mod inspect;
pub mod io;
mod latency;
pub mod net;
pub mod os;
mod panic;
#[cfg(feature = "probe")]
pub mod probe;
pub mod process;
pub mod report;
#[cfg(feature = "backdoor")]
mod script;
pub mod select;
pub mod signal;
pub mod sync;
pub mod tb;
pub mod thread;
pub mod time;
#[cfg(feature = "tracing")]
pub mod tracing;

/// Makes a function or a static known to the expressions of the [`console`], wherever in the program it stands: nothing has to
/// be called for it.
///
/// ```
/// use std::sync::Mutex;
/// use std::sync::atomic::AtomicUsize;
///
/// /// How many clients there may be.
/// #[coro::export]
/// static LIMIT: AtomicUsize = AtomicUsize::new(100);
///
/// static CLIENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());
///
/// /// Who is connected.
/// #[coro::export(name = "app.clients", value)]
/// fn clients() -> Vec<String> {
///     CLIENTS.lock().unwrap().clone()
/// }
///
/// /// Throws a client out.
/// ///
/// /// It is not told why.
/// #[coro::export(name = "app.clients.kick")]
/// fn kick(name: String) -> Result<(), String> {
///     let mut clients = CLIENTS.lock().unwrap();
///     let at = clients.iter().position(|client| *client == name).ok_or_else(|| format!("{name} is not connected"))?;
///     clients.remove(at);
///     Ok(())
/// }
/// ```
///
/// ```text
/// app[4711] read> app.clients.len() < LIMIT
/// true
/// app[4711] read> app
/// clients                  read   value: Who is connected.
/// clients.kick(name: text) act    Throws a client out.
/// app[4711] read> app.clients.kick("ada")
/// app.clients.kick needs the tier act: write first: enable act (column 13)
/// ```
///
/// A **function** takes up to six arguments that are [`FromValue`](console::FromValue) and returns what is
/// [`IntoValue`](console::IntoValue); it may stand in any module and in any function, but is no method. A **static** is
/// [`AsValue`](console::AsValue), and is read with the tier *read*. The help is the first paragraph of the documentation.
/// Options:
///
/// * `name = "app.clients.kick"`: how it is called, an identifier or several with dots between them. Without it the item's
///   own name counts.
/// * `tier = "read"`, `"probe"` or `"act"`: what a session must be allowed to call it, *act* if nothing is said.
/// * `value`: written without parentheses, for a function without arguments that only looks; its tier is *read*.
/// * `on_worker`: runs it in a task, as [`register_on_worker`](console::register_on_worker) does; `worker = 0`: on that worker
///   and on no other.
/// * `crate = path`: where this crate is, if it is not called `coro`.
///
/// What [`register`](console::register) and its like are given under the same name later takes its place. Two items of one
/// name are told on standard error, and one of them counts. Under Miri nothing is exported.
///
/// What cannot be exported does not compile:
///
/// ```compile_fail,E0277
/// /// References are no arguments; `String` is one.
/// #[coro::export]
/// fn kick(name: &str) {}
/// ```
/// ```compile_fail,E0277
/// /// Nobody knows how to show it.
/// #[coro::export]
/// static SECRET: std::num::NonZeroU8 = std::num::NonZeroU8::MIN;
/// ```
/// ```compile_fail,E0080
/// /// The console has a function of that name.
/// #[coro::export]
/// fn tasks() {}
/// ```
/// ```compile_fail
/// struct Server;
/// impl Server {
///     /// On which server?
///     #[coro::export]
///     fn stop(&self) {}
/// }
/// ```
#[cfg(feature = "macros")]
pub use coro_macros::export;

/// Makes a function a point that [`probe`](mod@crate::probe)s can watch: what it is called with and what it returns, how often, how
/// long and from where, without a restart.
///
/// ```
/// struct Cache;
///
/// impl Cache {
///     #[coro::probe(skip(self))]
///     fn get(&self, key: &str) -> Option<u64> {
///         key.parse().ok()
///     }
/// }
///
/// #[coro::probe(redact(password))]
/// fn log_in(user: &str, password: &str) -> Result<(), String> {
///     if password.is_empty() { Err(format!("{user} has no password")) } else { Ok(()) }
/// }
///
/// let probe = coro::probe::attach_to("log_in").keep_lines().log().start().unwrap();
/// let _ = log_in("ada", "");
/// let line = probe.lines().remove(0);
/// assert!(line.contains(r#"log_in(user="ada", password=<redacted>) ~ Err("ada has no password") in "#), "{line}");
/// assert_eq!(Cache.get("7"), Some(7));
/// ```
///
/// It may stand on functions, methods and those of a trait's implementation, generic ones too. The point is called as the function's path,
/// `app::cache::Cache::get`. Numbers, `bool` and text are shown as they are, other values by `Debug`, those that have none by
/// their type; a generic one as far as its bounds say. While nobody watches, a call costs one relaxed load and a branch more.
///
/// Options:
///
/// * `name = "app.lookup"`: how it is called.
/// * `skip(a, b)`: arguments that are not looked at.
/// * `redact(a)`: arguments that are listed and never shown.
/// * `result = false`: the result is never shown.
/// * `wrap`: its calls can be [wrapped](mod@crate::probe#wrappers). Its types have to live for ever (`T: 'static` on type parameters), but for
///   references that are its arguments and its result, and have names.
/// * `crate = path`: where this crate is, if it is not called `coro`.
///
/// What leaves the body by `return`, `?` or a panic is seen; the body becomes a closure for that, which `#[track_caller]` does not go with.
/// `async` and `const` functions are refused.
#[cfg(feature = "probe")]
pub use coro_macros::probe;

pub use blocking::{BlockingJob, BlockingStats, blocking, blocking_stats, set_blocking_threads};
pub use inspect::{TaskState, TaskWhere, where_all, where_is};
pub use latency::set_latency_warning;
pub use panic::{PanicNotifier, TaskPanic, set_panic_notifier};
pub use scheduler::{
    Builder, CancelOutcome, CancelledError, JoinHandle, RunBuilder, Runtime, RuntimeBuilder, SimultaneousError, Task,
    WorkerStats, ctrl_c, current, current_name, current_worker, event_loop, inherit_labels, is_cancel, is_cancelled,
    label, labels, no_switch, park, remove_label, run, runner, set_exit, set_label, set_own_latency_warning,
    set_own_selfishness, set_selfishness, shield, spawn, spawn_local, spawn_named, stopping, worker_stats, yield_slice,
};
pub use thread::{InParallelError, Scope, ScopedJoinHandle, in_parallel, scope};
pub use time::{Elapsed, deadline, sleep, sleep_until, timeout};

/// Writes a line to stderr in Shrapnel's form: the task's id (0 outside of tasks), a tab, the time (24 characters) and
/// `text`. A newline is added if `text` has none. The macro [`print_stderr!`] takes a format.
///
/// It never fails and never waits for whoever reads stderr: the text goes into a buffer of 128 KiB that a thread of its
/// own writes out, at latest (if that takes less than 0.2 s) when [`run`] returns or the process exits, though not
/// before `_exit` or an abort. What finds no room, or what the descriptor does not take (a full disk, a closed
/// pipe), is lost, and a line says how many lines that were as soon as there is room again: `coro: 12 lines to stderr
/// were lost`.
///
/// It is not captured by the test harness or by a console session. What counts is descriptor 2 at the time of the
/// writing: a program that puts a new log file there (`dup2`) finds the text in the new one.
pub fn print_stderr(text: impl AsRef<str>) {
    sys::stderr::print(current().map_or(0, |t| t.id()), text.as_ref());
}

/// Writes bytes to stderr as they are; otherwise as [`print_stderr`](print_stderr()).
pub fn write_stderr(bytes: impl AsRef<[u8]>) {
    sys::stderr::write_bytes(bytes.as_ref());
}

/// [`print_stderr`](print_stderr()) with a format, as in `println!`.
///
/// # Examples
/// ```
/// coro::print_stderr!("{} clients, {} waiting", 3, 1);
/// ```
#[macro_export]
macro_rules! print_stderr {
    ($($arg:tt)*) => {
        $crate::print_stderr(::std::format!($($arg)*))
    };
}

/// What the code that [`macro@export`] makes refers to. Nothing for others.
#[cfg(any(feature = "macros", feature = "probe"))]
#[doc(hidden)]
pub mod __private {
    #[cfg(feature = "macros")]
    pub use crate::script::export::{CORO_EXPORTS_0_1, Export, check_name, is_argument, is_result, value};
    pub use linkme;
}

/// The code in the pages about the crate compiles and does what they say.
#[cfg(all(doctest, feature = "backdoor"))]
mod pages {
    #[cfg(feature = "probe")]
    #[doc = include_str!("../docs/probes.md")]
    struct Probes;
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/cancellation.md")]
    struct Cancellation;
    #[doc = include_str!("../docs/backdoor.md")]
    struct Backdoor;
    #[doc = include_str!("../docs/situations.md")]
    struct Situations;
    #[doc = include_str!("../docs/tutorial.md")]
    struct Tutorial;
    #[doc = include_str!("../docs/porting.md")]
    struct Porting;
    #[doc = include_str!("../docs/listening.md")]
    struct Listening;
    #[doc = include_str!("../docs/futures.md")]
    struct Futures;
    #[doc = include_str!("../docs/around.md")]
    struct Around;
    #[cfg(feature = "probe")]
    #[doc = include_str!("../docs/doubles.md")]
    struct Doubles;
    #[cfg(feature = "probe")]
    #[doc = include_str!("../docs/probe-specs.md")]
    struct ProbeSpecs;
}
