//! Breakpoints from the program's side, for tests above all.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::attach::{Attach, Attached, ProbeError, attach_to};
use super::comers::Comers;
use super::event::{Event, Events};
use super::stop::{Stop, What};
use crate::inspect::TaskWhere;
use crate::value::Value;

/// How long a task stands at a breakpoint where nothing else is said.
pub(super) const USUAL: Duration = Duration::from_secs(10);

/// Begins to describe a breakpoint on the points that `pattern` names; see [`attach_to`].
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use coro::probe::break_at;
///
/// #[coro::probe]
/// fn charge(account: &str, cents: u64) -> Result<u64, String> {
///     Ok(cents)
/// }
///
/// coro::run(|| {
///     let breakpoint = break_at("charge").condition("cents > 100").start().unwrap();
///     let task = coro::spawn(|| charge("ada", 250));
///     let hit = breakpoint.wait(Duration::from_secs(5)).unwrap();
///     // The task stands there; its worker goes on.
///     assert_eq!(hit.value("cents"), Some(coro::console::Value::Int(250)));
///     hit.fail("the bank is closed");
///     assert_eq!(task.join().unwrap(), Err("the bank is closed".to_owned()));
/// });
/// ```
pub fn break_at(pattern: impl Into<String>) -> BreakAt {
    BreakAt { attach: attach_to(pattern).keep_lines(), events: Events::CALL, limit: USUAL, optional: false }
}

/// A breakpoint that is not armed yet; see [`break_at`].
#[derive(Debug)]
#[must_use = "nothing is armed before `start`"]
pub struct BreakAt {
    attach: Attach,
    events: Events,
    limit: Duration,
    optional: bool,
}

impl BreakAt {
    /// At these events; when the function is called, if nothing is said.
    pub fn at(mut self, events: Events) -> BreakAt {
        self.events = events;
        self
    }

    /// When an expression is true; see [`Attach::condition`].
    pub fn condition(mut self, expression: &str) -> BreakAt {
        self.attach = self.attach.condition(expression);
        self
    }

    /// When that is true.
    pub fn when(mut self, filter: impl Fn(&Event<'_>) -> bool + Send + Sync + 'static) -> BreakAt {
        self.attach = self.attach.when(filter);
        self
    }

    /// Not the first `n` times.
    pub fn after(mut self, n: u64) -> BreakAt {
        self.attach = self.attach.skip(n);
        self
    }

    /// So often, then no more.
    pub fn times(mut self, n: u64) -> BreakAt {
        self.attach = self.attach.hits(n);
        self
    }

    /// How long a task stands there if nobody releases it; 10 s, if nothing is said.
    pub fn timeout(mut self, limit: Duration) -> BreakAt {
        self.limit = limit;
        self
    }

    /// That nobody comes by is no failure.
    pub fn optional(mut self) -> BreakAt {
        self.optional = true;
        self
    }

    /// It is no error if there is no such point yet.
    pub fn later(mut self) -> BreakAt {
        self.attach = self.attach.later();
        self
    }

    /// Arms it.
    ///
    /// # Errors
    /// As [`Attach::start`].
    pub fn start(self) -> Result<Breakpoint, ProbeError> {
        let BreakAt { attach, events, limit, optional } = self;
        let comers = Arc::new(Comers::new());
        let attached = attach.breaks(events, limit, Some(comers.clone())).start()?;
        Ok(Breakpoint { attached, comers, seen: AtomicBool::new(optional) })
    }
}

/// A breakpoint that is armed. When this is dropped all tasks that stand there go on, and it **panics** if nobody ever came by, unless
/// that was [`optional`](BreakAt::optional) or the thread panics already: a test that waits for nothing proves nothing.
#[derive(Debug)]
#[must_use = "dropping it disarms the breakpoint"]
pub struct Breakpoint {
    attached: Attached,
    comers: Arc<Comers>,
    seen: AtomicBool,
}

impl Breakpoint {
    /// Waits until a task stands there that has not been seen yet, and gives the one that came first. One that has gone on by itself
    /// meanwhile is left out.
    ///
    /// # Errors
    /// If none does within `limit`.
    ///
    /// # Cancellation
    /// As the wait for an event.
    pub fn wait(&self, limit: Duration) -> Result<Hit, ProbeError> {
        match self.comers.next(limit) {
            Some(stop) => {
                self.seen.store(true, Ordering::Relaxed);
                Ok(Hit { stop, released: false })
            }
            None => {
                let why = self.attached.ended().map(|why| format!(" ({why})")).unwrap_or_default();
                Err(ProbeError(format!("nobody came by the breakpoint within {limit:?}{why}")))
            }
        }
    }

    /// How many events there were that it was for.
    pub fn hits(&self) -> u64 {
        self.attached.hits().0
    }
}

impl Drop for Breakpoint {
    fn drop(&mut self) {
        let seen = self.seen.load(Ordering::Relaxed) || self.hits() > 0;
        // First: who comes later than this does not stand there for anybody.
        self.comers.close();
        self.attached.stop();
        if !seen && !std::thread::panicking() {
            panic!("{:?}: nobody ever came by this breakpoint", self.attached);
        }
    }
}

/// A task that stands at a breakpoint. It goes on when this is dropped.
#[must_use = "dropping it lets the task go on"]
pub struct Hit {
    stop: Arc<Stop>,
    released: bool,
}

impl Hit {
    /// Its id; 0 for a plain thread.
    pub fn task(&self) -> u64 {
        self.stop.task
    }

    /// Which event it is.
    pub fn kind(&self) -> Events {
        self.stop.kind
    }

    /// A value of the call or the mark.
    pub fn value(&self, name: &str) -> Option<Value> {
        self.stop.values.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// The event in one line.
    pub fn text(&self) -> &str {
        &self.stop.line
    }

    /// Where it is, with its stack; `None` for a plain thread, and for one that has gone on by itself.
    pub fn stack(&self) -> Option<TaskWhere> {
        self.stop.is_there().then(|| crate::inspect::where_is(self.task())).flatten()
    }

    fn go(mut self, what: Option<What>) {
        self.released = true;
        self.stop.release(what);
    }

    /// Has it go on.
    pub fn release(self) {
        self.go(None);
    }

    /// Has the function return that, and not run at all if it has only been called: the text of a number, a `bool`, of text as it is, `()`,
    /// `None`, or what is in a `Some` or an `Ok`. Other types refuse it, and the function goes on with its own.
    pub fn returning(self, text: &str) {
        self.go(Some(What::Returning(text.to_owned())));
    }

    /// Has the function return an error, where it returns a `Result` whose error is made of an `io::Error` or a `String`.
    pub fn fail(self, text: &str) {
        self.go(Some(What::Failing(text.to_owned())));
    }
}

impl Drop for Hit {
    fn drop(&mut self) {
        if !self.released {
            self.stop.release(None);
        }
    }
}

impl fmt::Debug for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} at {}", self.stop.task, self.stop.line)
    }
}
