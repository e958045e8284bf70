//! What happens when a task panics: one report, and the worker goes on.
//!
//! The panic hook, installed when the first runtime starts, keeps the place and the whole stack of a panic in a task. Who
//! reports it, and when:
//!
//! | hook of the program | notifier or report handler | a panic that ends its task | a panic that the task catches |
//! |---|---|---|---|
//! | none | none | our line, at the panic | our line, at the panic |
//! | none | one or both | they, at the task's end | nobody; it is remembered |
//! | one | none | that hook at the panic, our line at the task's end | that hook |
//! | one | one or both | that hook, and they | that hook |
//!
//! A panic in a [`blocking`](crate::blocking()) job is one of the task that asked for it, with the stack of the job's thread.
//!
//! Our line replaces std's, and as with std's whether somebody will catch the panic cannot be known when it is written. A
//! panic that ends the process (`panic = "abort"`, or in a destructor while unwinding) is left to the hook that was there,
//! std's or the program's, after what was told before is out. Names of frames are looked up on the report thread: a
//! task that panics may have little stack left, and a look-up may take milliseconds.
//!
//! Must not know: what a task is for.

mod hook;

use std::any::Any;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

use crate::report::{self, PanicHead, PanicReport, Report, Suppressed, TaskIdentity};
use crate::scheduler::runtime::payload_text;
use crate::sys::stderr;
use crate::task::TaskCell;
use crate::tb::{self, Captured, Seen};

#[cfg(any(feature = "probe", feature = "script"))]
pub(crate) use hook::silently;
pub(crate) use hook::{in_hook, install as install_hook};

/// A panic that ended a task.
#[derive(Debug)]
#[non_exhaustive]
pub struct TaskPanic<'a> {
    /// The task's id.
    pub id: u64,
    /// The task's name.
    pub name: Option<&'a str>,
    /// What it panicked with.
    pub payload: &'a (dyn Any + Send),
    /// `file:line:column` of the panic, if it was seen.
    pub location: Option<&'a str>,
    /// The stack at the panic, and who spawned the task; `None` if it was not seen.
    pub captured: Option<&'a Captured>,
}

impl TaskPanic<'_> {
    /// The payload's text, if it is one.
    pub fn message(&self) -> &str {
        payload_text(self.payload)
    }

    /// The condensed stack at the panic, innermost first; empty if it was not seen. Its names are looked up now, which
    /// the first time takes long.
    pub fn stack(&self) -> String {
        self.captured.map(Captured::condensed).unwrap_or_default()
    }

    /// The tasks that spawned it, nearest first, as far as they are known.
    pub fn lineage(&self) -> Vec<u64> {
        self.captured.map(Captured::lineage).unwrap_or_default()
    }
}

impl fmt::Display for TaskPanic<'_> {
    /// In Shrapnel's form: `task 17 (db writer): panic "…" at src/db.rs:31:5 [src/db.rs fetch|31] …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", PanicHead { id: self.id, name: self.name, message: self.message(), location: self.location })?;
        self.captured.map_or(Ok(()), |stack| write!(f, " {stack}"))
    }
}

/// Whoever wants to be told.
pub type PanicNotifier = Arc<dyn Fn(&TaskPanic<'_>) + Send + Sync>;

static NOTIFIER: Mutex<Option<PanicNotifier>> = Mutex::new(None);

fn notifier() -> Option<PanicNotifier> {
    NOTIFIER.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Says who is told, once, of every panic that ends a task; returns the one told so far (`None`: the default).
///
/// The notifier runs in the task that panicked, after it has unwound, and may wait. If it panics itself, the default is
/// used: one line on stderr with the task, the message, the place and the condensed stack, or with `RUST_BACKTRACE` one
/// line for each call and who spawned the task (`RUST_BACKTRACE=full`: also calls inside of the runtime). Of more than five
/// such lines a minute from one place, or sixty from all, only the 8th, 16th, 32nd and so on are written. Cancellation is
/// not a panic. Frames are named on a thread of the runtime; `run` and the exit of the process wait for it, an abort or
/// `_exit` right after a panic does not.
///
/// From the start of the first runtime on there is a panic hook that keeps the place and stack of panics in tasks
/// ([`tb::traceback`]). If the program had set no hook by then, std's own message for such a panic is left out:
/// the default line says the same, at the moment of the panic as std does, so it is also written for a panic that the task
/// catches; with a notifier or a report handler nothing is written for those. A hook of the program is called as ever, also
/// one that is set later; if that one does not call the hook that it found, reports have neither place nor stack.
///
/// [`tb::traceback`]: crate::tb::traceback()
///
/// # Examples
/// ```
/// use std::sync::{Arc, Mutex};
/// let seen = Arc::new(Mutex::new(Vec::new()));
/// let log = seen.clone();
/// coro::set_panic_notifier(Some(Arc::new(move |p| log.lock().unwrap().push(p.message().to_owned()))));
/// coro::run(|| assert!(coro::spawn(|| panic!("boom")).join().is_err()));
/// assert_eq!(*seen.lock().unwrap(), ["boom"]);
/// ```
#[doc(alias = "set_exception_notifier")]
pub fn set_panic_notifier(notifier: Option<PanicNotifier>) -> Option<PanicNotifier> {
    hook::install();
    std::mem::replace(&mut *NOTIFIER.lock().unwrap_or_else(PoisonError::into_inner), notifier)
}

/// Whether a panic is told by the default alone.
fn by_default() -> bool {
    notifier().is_none() && !report::has_handler()
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Line,
    Long,
    Whole,
}

/// As `RUST_BACKTRACE` asks for.
fn form() -> Form {
    match std::env::var("RUST_BACKTRACE").as_deref() {
        Err(_) | Ok("0" | "") => Form::Line,
        Ok("full") => Form::Whole,
        Ok(_) => Form::Long,
    }
}

/// Writes the default report later, unless there were too many of that place.
fn write_later(id: u64, name: Option<&str>, message: &str, seen: Option<(String, Arc<Captured>)>, site: &str) {
    let Some(suppressed) = report::panic_budget(site) else { return };
    let location = seen.as_ref().map(|(at, _)| at.as_str());
    let mut text = PanicHead { id, name, message, location }.to_string();
    match suppressed {
        Suppressed { of_place: 0, of_all: 0 } => {}
        Suppressed { of_place: n, of_all: 0 } => text.push_str(&format!(" ({n} more of that place are not shown)")),
        Suppressed { of_all: n, .. } => text.push_str(&format!(" ({n} more of all places are not shown)")),
    }
    let text = stderr::line(id, &text);
    let form = form();
    if let (Form::Long | Form::Whole, Some((_, stack))) = (form, &seen) {
        // Those that spawned it may have ended by the time that frames have names.
        stack.above();
    }
    report::later(text.clone(), move || {
        let mut text = text;
        if let Some((_, stack)) = &seen {
            match form {
                Form::Line => text.push_str(&format!(" {stack}")),
                Form::Long => text.push_str(&format!("\n{stack:#}")),
                Form::Whole => text.push_str(&format!("\n{}", stack.everything())),
            }
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        stderr::write(&text);
    });
}

/// Called on the task's own stack when its closure has unwound.
pub(crate) fn uncaught(cell: &'static TaskCell, payload: &(dyn Any + Send)) {
    let id = cell.state.snapshot().id();
    let seen = tb::take_seen(id, payload);
    // SAFETY: called by the task itself, whose worker owns the cell.
    let name = unsafe { cell.name() };
    // SAFETY: as above.
    let class = unsafe { cell.class_name() };
    let own = payload_text(payload);
    let unseen = || format!("not seen, in {}", class.or(name).unwrap_or("a task"));
    let site = seen.as_ref().map_or_else(unseen, |s| s.location.clone());
    if seen.is_none() {
        report::remember_panic(&site, own, Vec::new());
    }
    let mut told = seen.as_ref().is_some_and(|s| s.told);
    if let Some(notifier) = notifier() {
        let location = seen.as_ref().map(|s| s.location.as_str());
        let captured = seen.as_ref().map(|s| &*s.captured);
        let report = TaskPanic { id, name, payload, location, captured };
        match panic::catch_unwind(AssertUnwindSafe(|| notifier(&report))) {
            Ok(()) => told = true,
            Err(payload) => {
                // A payload whose destructor panics as well is not ours to suffer from.
                std::mem::forget(payload);
                notifier_panicked(id);
            }
        }
    }
    if report::has_handler() {
        let (name, message, seen) = (name.map(str::to_owned), own.to_owned(), seen.clone());
        let (class, labels) = (class.map(str::to_owned), crate::scheduler::labels());
        told |= report::deliver_late(move || panic_report(id, name, class, labels, message, seen));
    }
    if !told {
        write_later(id, name, own, seen.map(|s| (s.location, s.captured)), &site);
    }
}

fn notifier_panicked(id: u64) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    let text = match tb::traceback() {
        Some(last) => format!("the panic notifier panicked itself, with {:?} at {}", last.message, last.location),
        None => "the panic notifier panicked itself".to_owned(),
    };
    ONCE.call_once(|| stderr::print(id, &format!("{text}; what it was told goes to stderr")));
}

/// On the report thread.
fn panic_report(
    id: u64,
    name: Option<String>,
    class: Option<String>,
    labels: Vec<(String, String)>,
    message: String,
    seen: Option<Seen>,
) -> Report {
    let captured = seen.as_ref().map(|s| &s.captured);
    let spawned_at = captured.and_then(|c| c.spawned_at()).map(|at| format!("{}:{}", at.file(), at.line()));
    let spawned_at = spawned_at.unwrap_or_default();
    Report::Panic(PanicReport {
        task: TaskIdentity {
            id,
            name,
            class: class.unwrap_or_else(|| spawned_at.clone()),
            labels,
            spawned_at,
            lineage: captured.map(|c| c.lineage()).unwrap_or_default(),
        },
        message,
        location: seen.as_ref().map(|s| s.location.clone()),
        stack: captured.map(|c| c.condensed()).unwrap_or_default(),
    })
}
