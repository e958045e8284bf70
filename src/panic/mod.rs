//! What happens when a task panics and nobody catches it: the notifier is told, the worker goes on.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use crate::inspect;
use crate::scheduler::runtime::payload_text;
use crate::scheduler::suspend::here;
use crate::sys::stderr;
use crate::task::TaskCell;

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
    /// The condensed stack at the panic, innermost first; empty if it was not seen.
    pub stack: &'a str,
}

impl TaskPanic<'_> {
    /// The payload's text, if it is one.
    pub fn message(&self) -> &str {
        payload_text(self.payload)
    }
}

impl fmt::Display for TaskPanic<'_> {
    /// In Shrapnel's words: `thread 17 (db writer): panic "…" at src/db.rs:31:5 [src/db.rs fetch|31] …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} (", self.id)?;
        for c in self.name.unwrap_or("").chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        write!(f, "): panic {:?}", self.message())?;
        if let Some(at) = self.location {
            write!(f, " at {at}")?;
        }
        if !self.stack.is_empty() {
            write!(f, " {}", self.stack)?;
        }
        Ok(())
    }
}

/// Whoever wants to be told.
pub type PanicNotifier = Arc<dyn Fn(&TaskPanic<'_>) + Send + Sync>;

static NOTIFIER: Mutex<Option<PanicNotifier>> = Mutex::new(None);

/// Says who is told, once, of every panic that ends a task; returns the one told so far (`None`: the default).
///
/// The notifier runs in the task that panicked and may wait. If it panics itself, the default is used: one line on
/// stderr with the task, the message, the place and the condensed stack. Cancellation is not a panic. From the first
/// call on, a panic hook is installed that remembers the place and stack and then calls the hook that was there.
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
    install_hook();
    std::mem::replace(&mut *NOTIFIER.lock().unwrap_or_else(PoisonError::into_inner), notifier)
}

/// What the hook saw of the last panic of a task on this thread.
struct Seen {
    task: u64,
    payload: Likeness,
    location: String,
    addresses: Vec<usize>,
}

/// What a payload looked like: the hook sees it before it has its final address. A panic that was caught must not lend
/// its place to another unwind of the same task, which no hook saw (`resume_unwind`).
#[derive(Debug, PartialEq, Eq)]
struct Likeness {
    /// The text, or where there is none the type.
    text: Option<String>,
    kind: Option<TypeId>,
}

impl Likeness {
    fn of(payload: &(dyn Any + Send)) -> Likeness {
        let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| payload.downcast_ref().cloned());
        let kind = text.is_none().then(|| payload.type_id());
        Likeness { text, kind }
    }
}

thread_local! {
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if let Some(h) = here() {
                let mut addresses = Vec::new();
                let base = crate::context::base_range();
                backtrace::trace(|frame| {
                    let ip = frame.ip() as usize;
                    let at_base = (base.0..=base.1).contains(&ip);
                    if !at_base {
                        addresses.push(ip);
                    }
                    !at_base && addresses.len() < 256
                });
                let location = info.location().map(ToString::to_string).unwrap_or_default();
                let seen = Seen { task: h.id(), payload: Likeness::of(info.payload()), location, addresses };
                let _ = SEEN.try_with(|s| s.replace(Some(seen)));
            }
            before(info);
        }));
    });
}

/// Whether the caller was called, however indirectly, by a panic hook.
///
/// std keeps that to itself, and nothing is installed that could know it. But the frames of std's panic entry lie on the
/// stack while the hook runs; when destructors run afterwards they are gone. They are found by name, so in a stripped
/// program the answer is no.
pub(crate) fn in_hook() -> bool {
    /// Where the function begins that calls the hook, once that is known.
    static CALLER: AtomicUsize = AtomicUsize::new(0);
    /// Where other functions begin: names are looked up once, because that is dear.
    static OTHERS: [AtomicUsize; 1024] = [const { AtomicUsize::new(0) }; 1024];
    let base = crate::context::base_range();
    let (mut found, mut frames) = (false, 0);
    backtrace::trace(|frame| {
        let begin = frame.symbol_address() as usize;
        let other = &OTHERS[(begin >> 4) % OTHERS.len()];
        let known = CALLER.load(Ordering::Relaxed);
        if known != 0 {
            found = begin == known;
        } else if other.load(Ordering::Relaxed) != begin {
            backtrace::resolve_frame(frame, |symbol| {
                // As the linker knows it: readable forms differ from compiler to compiler.
                let name =
                    symbol.name().map(|n| String::from_utf8_lossy(n.as_bytes()).into_owned()).unwrap_or_default();
                found |= name.contains("3std") && name.contains("9panicking") && name.contains("panic_with_hook");
            });
            if found { &CALLER } else { other }.store(begin, Ordering::Relaxed);
        }
        frames += 1;
        !found && frames < 256 && !(base.0..=base.1).contains(&(frame.ip() as usize))
    });
    found
}

/// Called on the task's own stack when its closure has unwound.
pub(crate) fn uncaught(cell: &'static TaskCell, payload: &(dyn Any + Send)) {
    let id = cell.state.snapshot().id();
    let seen =
        SEEN.try_with(|s| s.take()).ok().flatten().filter(|s| s.task == id && s.payload == Likeness::of(payload));
    let stack = seen.as_ref().map(|s| inspect::stack_text(&s.addresses)).unwrap_or_default();
    // SAFETY: called by the task itself, whose worker owns the cell.
    let name = unsafe { cell.name() };
    let report = TaskPanic { id, name, payload, location: seen.as_ref().map(|s| s.location.as_str()), stack: &stack };
    let notifier = NOTIFIER.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let told = notifier.is_some_and(|n| panic::catch_unwind(AssertUnwindSafe(|| n(&report))).is_ok());
    if !told {
        stderr::print(id, &report.to_string());
    }
}
