//! The crate [tracing](https://docs.rs/tracing) in tasks: spans that stay with the task that entered them, the task itself as a
//! span, and what the runtime reports as events.
//!
//! tracing keeps what is entered for each thread, and a worker is one thread for many tasks: without [`layer`] a task that waits
//! inside of a span leaves it entered for whoever runs next. With it the spans of a task are left when it switches and entered again when
//! it goes on, so that `#[tracing::instrument]` on plain functions is right, and the time in a span that layers measure is that in which the
//! task ran.
//!
//! ```
//! use tracing_subscriber::prelude::*;
//!
//! let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::<u8>::new()));
//! # struct To(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
//! # impl std::io::Write for To {
//! #     fn write(&mut self, b: &[u8]) -> std::io::Result<usize> { self.0.lock().unwrap().extend(b); Ok(b.len()) }
//! #     fn flush(&mut self) -> std::io::Result<()> { Ok(()) }
//! # }
//! # let to = seen.clone();
//! let text = tracing_subscriber::fmt::layer().with_ansi(false).without_time();
//! # let text = text.with_writer(move || To(to.clone()));
//! tracing_subscriber::registry().with(coro::tracing::layer()).with(text).init();
//!
//! coro::run(|| {
//!     let task = coro::spawn(|| {
//!         let _request = tracing::info_span!("request", path = "/").entered();
//!         coro::thread::yield_now();
//!         tracing::info!("answered");
//!     });
//!     // Runs while the other one waits inside its span, and is not in it.
//!     tracing::info!("beside");
//!     task.join().unwrap();
//! });
//! # let seen = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
//! # assert!(seen.contains("}:request{path=\"/\"}: ") && seen.contains("answered"), "{seen}");
//! # assert!(!seen.lines().find(|line| line.contains("beside")).unwrap().contains("request"), "{seen}");
//! ```
//! writes ` INFO task{id=2}:request{path="/"}: app: answered`.
//!
//! * **The task** is a span called `task` of the target `coro` and the level INFO, with its `id`, its `name` if it has one, and its `labels`:
//!   each time that one changes they are recorded again, so that formats that append show each state. [`Layer::without_task_spans`] leaves it away.
//! * **Reports**: with [`report_handler`] stalls, panics, deadlocks and who came to the console are events of the target `coro::report`.
//! * **Not moved**: a subscriber that is the default of a scope (`with_default`) only; what is entered on plain threads and on the threads of
//!   the blocking pool, which have no other work.
//!
//! Cost: a task that has entered nothing pays a load and a branch at each switch, one that has what the subscriber takes to leave and to enter.
//!
//! Must not know: the scheduler's switch, sessions.

#![forbid(unsafe_code)]

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use ::tracing::dispatcher::{Dispatch, WeakDispatch};
use ::tracing::field::Empty;
use ::tracing::span::Id;
use ::tracing::{Span, Subscriber};
use tracing_subscriber::layer::Context;

use crate::report::{Report, ReportHandler};
use crate::scheduler::suspend::here;
use crate::task::spans::{self, Entered, Root};

/// Whether tasks are spans: any layer that was made so says it for the process.
static TASKS: AtomicBool = AtomicBool::new(false);

/// See the [module](self). It may stand anywhere among the layers, once.
///
/// From the first call on each task that begins is a span.
pub fn layer() -> Layer {
    let _ = spans::BEGIN.set(begin);
    TASKS.store(true, Ordering::Relaxed);
    Layer { dispatch: OnceLock::new() }
}

/// Moves what tasks have entered; made by [`layer`].
pub struct Layer {
    dispatch: OnceLock<WeakDispatch>,
}

impl Layer {
    /// Tasks are no spans of their own. Counts for the process.
    #[must_use]
    pub fn without_task_spans(self) -> Layer {
        TASKS.store(false, Ordering::Relaxed);
        self
    }

    fn instance(&self) -> usize {
        std::ptr::from_ref(&self.dispatch).addr()
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("layer of coro")
    }
}

/// A span that a task has entered.
struct Of {
    dispatch: Dispatch,
    instance: usize,
    id: Id,
}

impl Entered for Of {
    fn enter(&self) {
        self.dispatch.enter(&self.id);
    }

    fn leave(&self) {
        self.dispatch.exit(&self.id);
    }

    fn is(&self, instance: usize, id: u64) -> bool {
        self.instance == instance && self.id.into_u64() == id
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn on_register_dispatch(&self, subscriber: &Dispatch) {
        let _ = self.dispatch.set(subscriber.downgrade());
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        let Some(h) = here() else { return };
        if let Some(dispatch) = self.dispatch.get().and_then(WeakDispatch::upgrade) {
            h.spans().entered(Rc::new(Of { dispatch, instance: self.instance(), id: id.clone() }));
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        if let Some(h) = here() {
            h.spans().left(self.instance(), id.into_u64());
        }
    }
}

/// The span of a task.
struct TaskSpan(Span);

impl Root for TaskSpan {
    fn labels(&self, text: &str) {
        self.0.record("labels", text);
    }
}

fn begin(id: u64, name: Option<&str>) -> Option<Box<dyn Root>> {
    if !TASKS.load(Ordering::Relaxed) {
        return None;
    }
    let span = ::tracing::info_span!(target: "coro", parent: None, "task", id, name = Empty, labels = Empty);
    if span.is_disabled() {
        return None;
    }
    if let Some(name) = name {
        span.record("name", name);
    }
    // It is left at the task's end, with whatever the task has not left.
    span.with_subscriber(|(id, dispatch)| dispatch.enter(id));
    Some(Box::new(TaskSpan(span)))
}

/// Tells tracing what the runtime reports: `set_report_handler(Some(coro::tracing::report_handler()))`. Panics and deadlocks are errors, stalls are
/// warnings, sessions of the console infos; the target is `coro::report`, and the fields are `task.id`, `task.name`, `location` and `lasted_seconds`, as far as there
/// are such.
///
/// It runs on the thread of the reports, outside of every span, with the process's default subscriber.
pub fn report_handler() -> ReportHandler {
    Arc::new(|report| {
        let task = match report {
            Report::Stall(stall) | Report::StallEnded(stall) => Some(&stall.task),
            Report::Panic(panic) => Some(&panic.task),
            _ => None,
        };
        let id = Some(report.task()).filter(|id| *id > 0);
        let name = task.and_then(|task| task.name.as_deref());
        match report {
            Report::Panic(panic) => {
                let location = panic.location.as_deref();
                ::tracing::error!(target: "coro::report", { task.id = id, task.name = name, location }, "{report}");
            }
            Report::Deadlock(_) => ::tracing::error!(target: "coro::report", { task.id = id }, "{report}"),
            Report::Stall(stall) | Report::StallEnded(stall) => {
                let lasted_seconds = stall.lasted.as_secs_f64();
                ::tracing::warn!(target: "coro::report", { task.id = id, task.name = name, lasted_seconds }, "{report}");
            }
            Report::Attach(_) | Report::Audit(_) => ::tracing::info!(target: "coro::report", "{report}"),
        }
    })
}
