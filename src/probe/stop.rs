//! Tasks that stand at a breakpoint.
//!
//! The instrument asks for the stop, and the task makes it when all probes have been told: nothing is held then, and only the
//! task waits. It goes on when somebody releases it, when its time is over, or when its probe is.
//!
//! Invariants: a stop is in the list exactly while its task stands there; no task stands at a breakpoint whose probe is over, but for
//! the last ones of one whose hits are used up, while there is somebody who can release them.
//!
//! Must not know: who releases.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::comers::Comers;
use super::event::{Event, Events};
use super::instrument::Instrument;
use super::sink::Sink;
use super::text;
use crate::observe::{WaitKind, WaitReason};
use crate::scheduler::handover::switch_refused;
use crate::scheduler::suspend::{self, current_unparker, here};
use crate::scheduler::unpark;
use crate::task::Unparker;
use crate::thread;
use crate::value::Value;

/// What a task is to go on with instead of its own.
#[doc(hidden)]
#[derive(Debug)]
pub struct Answer {
    pub(super) what: What,
    sink: Arc<Sink>,
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Returning(String),
    Failing(String),
}

impl Answer {
    /// As a result: the text of a value, or `Err` with the text of an error.
    ///
    /// # Errors
    /// The text of the error.
    pub fn text(&self) -> Result<&str, &str> {
        match &self.what {
            What::Returning(text) => Ok(text),
            What::Failing(text) => Err(text),
        }
    }

    /// It could not be made into what the function returns; the task goes on with its own.
    pub fn refused(&self, why: &str) {
        self.sink.line(|| format!("the function went on with its own result: {why}"));
    }
}

/// One task that stands at a breakpoint.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) probe: u64,
    /// 0 for a plain thread.
    pub(super) task: u64,
    pub(super) kind: Events,
    /// The event in one line.
    pub(super) line: String,
    pub(super) values: Vec<(String, Value)>,
    pub(super) since: Instant,
    limit: Duration,
    sink: Arc<Sink>,
    comers: Option<Arc<Comers>>,
    who: Unparker,
    released: AtomicBool,
    answer: Mutex<Option<What>>,
}

static STOPS: Mutex<Vec<Arc<Stop>>> = Mutex::new(Vec::new());

thread_local! {
    /// What instruments have asked for on this thread, in order, where nothing switches until it is taken. Not there any more at the
    /// very end of a thread, where points are still passed.
    static ASKED: RefCell<Vec<Arc<Stop>>> = const { RefCell::new(Vec::new()) };
}

fn all() -> MutexGuard<'static, Vec<Arc<Stop>>> {
    STOPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those of a probe, or of all, the longest first; but for tasks that have been released, and have not had their turn yet.
pub(super) fn stops(probe: Option<u64>) -> Vec<Arc<Stop>> {
    let of = |stop: &&Arc<Stop>| probe.is_none_or(|probe| stop.probe == probe) && !stop.is_released();
    all().iter().filter(of).cloned().collect()
}

impl Stop {
    /// Has the task go on, and says whether it was this that did: what was said first is what counts.
    pub(super) fn release(&self, answer: Option<What>) -> bool {
        let mut kept = self.answer();
        if self.is_released() {
            return false;
        }
        *kept = answer;
        self.released.store(true, Ordering::Release);
        drop(kept);
        unpark(&self.who);
        true
    }

    /// Nobody can release it any more. Whether somebody had, and what its task is to go on with.
    fn close(&self) -> (bool, Option<What>) {
        let mut kept = self.answer();
        (self.released.swap(true, Ordering::AcqRel), kept.take())
    }

    /// Held by whoever changes `released` too.
    fn answer(&self) -> MutexGuard<'_, Option<What>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its task stands there still.
    pub(super) fn is_there(&self) -> bool {
        all().iter().any(|other| std::ptr::eq(&**other, self))
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }
}

/// Has all tasks of a probe go on.
pub(super) fn release_all(probe: u64) {
    for stop in stops(Some(probe)) {
        stop.release(None);
    }
}

/// Has every task go on.
pub(super) fn release_everybody() {
    for stop in stops(None) {
        stop.release(None);
    }
}

/// Has all tasks go on of whom that one was told.
pub(super) fn release_of(sink: &Arc<Sink>) {
    for stop in stops(None).iter().filter(|stop| Arc::ptr_eq(&stop.sink, sink)) {
        stop.release(None);
    }
}

/// Whether whoever runs here may stand still: not within `no_switch`, nor if it is to end.
pub(super) fn may_stop() -> bool {
    !switch_refused() && here().is_none_or(|h| !h.interrupt_due())
}

/// Makes the stops that instruments have asked for, if any has, one after the other. What the task is to go on with: the last that was
/// said.
#[inline]
pub(super) fn stop_if_asked() -> Option<Answer> {
    let asked = ASKED.try_with(RefCell::take).unwrap_or_default();
    if asked.is_empty() { None } else { make_stops(asked) }
}

#[cold]
fn make_stops(asked: Vec<Arc<Stop>>) -> Option<Answer> {
    let mut answer: Option<Answer> = None;
    for later in asked.into_iter().filter_map(make_stop) {
        if let Some(before) = answer.replace(later) {
            before.sink.line(|| "another breakpoint at the same place has said otherwise, and that counts".to_owned());
        }
    }
    answer
}

/// One of them.
fn make_stop(stop: Arc<Stop>) -> Option<Answer> {
    /// In whatever way the task goes on.
    struct Standing(Arc<Stop>);

    impl Drop for Standing {
        fn drop(&mut self) {
            self.0.close();
            all().retain(|other| !Arc::ptr_eq(other, &self.0));
            if let Some(comers) = &self.0.comers {
                comers.goes(&self.0);
            }
        }
    }

    if !may_stop() {
        stop.sink.line(|| format!("#{} did not stop, as it may not wait here: {}", stop.task, stop.line));
        return None;
    }
    all().push(stop.clone());
    let standing = Standing(stop);
    let stop = &standing.0;
    // Whoever ended the probe before this was in the list has not seen it, and who would release it may have gone.
    let somebody = stop.comers.as_ref().is_none_or(|comers| comers.comes(stop));
    if !somebody || stop.sink.is_closed() || super::registry::is_over(stop.probe) {
        return None;
    }
    stop.sink.line(|| {
        let name = thread::current().name().map(|name| format!(" \"{}\"", name.escape_debug()));
        format!("#{}{} stopped: {}; probe release {}", stop.task, name.unwrap_or_default(), stop.line, stop.probe)
    });
    let reason: &str = &stop.line;
    let deadline = Instant::now().checked_add(stop.limit);
    suspend::wait_for(WaitReason::text(WaitKind::Breakpoint, &reason), deadline, || stop.is_released());
    let (released, what) = stop.close();
    if !released {
        stop.sink.line(|| format!("#{} went on by itself after {}", stop.task, text::duration(stop.limit)));
    }
    what.map(|what| Answer { what, sink: stop.sink.clone() })
}

/// Stops whoever passes.
pub(super) struct Break {
    events: Events,
    sink: Arc<Sink>,
    limit: Duration,
    comers: Option<Arc<Comers>>,
    /// Which probe it belongs to; known when that is attached.
    probe: AtomicU64,
    stopped: AtomicU64,
}

impl Break {
    pub(super) fn new(events: Events, sink: Arc<Sink>, limit: Duration, comers: Option<Arc<Comers>>) -> Break {
        Break { events, sink, limit, comers, probe: AtomicU64::new(0), stopped: AtomicU64::new(0) }
    }
}

impl Instrument for Break {
    fn events(&self) -> Events {
        self.events
    }

    fn needs_arguments(&self) -> bool {
        true
    }

    fn stops(&self) -> bool {
        true
    }

    fn belongs_to(&self, probe: u64) {
        self.probe.store(probe, Ordering::Relaxed);
    }

    fn observe(&self, event: &Event<'_>) {
        self.stopped.fetch_add(1, Ordering::Relaxed);
        let stop = Arc::new(Stop {
            probe: self.probe.load(Ordering::Relaxed),
            task: event.task(),
            kind: event.kind(),
            line: text::line_without_task(event),
            values: event.values(),
            since: Instant::now(),
            limit: self.limit,
            sink: self.sink.clone(),
            comers: self.comers.clone(),
            who: current_unparker(),
            released: AtomicBool::new(false),
            answer: Mutex::new(None),
        });
        let asked = ASKED.try_with(|asked| asked.borrow_mut().push(stop));
        if asked.is_err() {
            self.sink.line(|| format!("a thread that ends did not stop: {}", text::line_without_task(event)));
        }
    }

    fn report(&self) -> Value {
        Value::map([("stopped", Value::of(self.stopped.load(Ordering::Relaxed)))])
    }

    fn text(&self) -> Option<String> {
        let mut out = format!("break {} times", self.stopped.load(Ordering::Relaxed));
        for stop in stops(Some(self.probe.load(Ordering::Relaxed))) {
            out.push_str(&format!("\n  #{} for {}: {}", stop.task, text::duration(stop.since.elapsed()), stop.line));
        }
        Some(out)
    }
}
