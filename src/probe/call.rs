//! What passing a point does: a call begins, marks are passed, it is over.
//!
//! Invariants: a call that nobody watched when it began is told to nobody later. The calls in which marks are watched and that are
//! under way are linked, those of a task or of a plain thread by themselves, each with the one around it. While instruments run,
//! points that they pass are passed in silence.

#![forbid(unsafe_code)]

use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::Arc;

use super::event::{Arguments, Event, Events};
use super::running::Probe;
use super::stop::{self, Answer};
use super::watchers::{self, Watchers};
use super::wrapping::{Active, Layer};
use crate::observe::{Calls, Kept, Point, Shown, WatchedCall};
use crate::scheduler::suspend::here;
use crate::sys::clock;

/// A call of a function that may be watched; made by the code of the attribute, and over when it is dropped.
#[allow(missing_debug_implementations, reason = "it is never seen")]
/// One word, so that it lies in a register where nobody watches, and looked at once at the end: a field that drops itself would be
/// looked at again.
#[must_use = "it is the call"]
pub struct Call(ManuallyDrop<Option<Box<Watched>>>);

/// What a call has that is watched.
struct Watched {
    point: &'static Point,
    /// In ticks.
    began: u64,
    /// No newer probe has seen it begin.
    newest: u64,
    arguments: Option<Rc<[Kept]>>,
    /// Its place among the calls under way, if marks in it are watched.
    linked: Option<Rc<WatchedCall>>,
    /// What it is to return instead of being run.
    answer: Option<Answer>,
    /// What it is to go through, the oldest first.
    wrappers: Vec<Arc<Active>>,
    /// The type of a result that nobody can look at, and whether something unwound when the call began.
    unseen: Option<(&'static str, bool)>,
}

/// The calls of whoever runs here.
fn with_calls<R>(f: impl FnOnce(&Calls) -> R) -> R {
    thread_local! {
        static OF_THREAD: Calls = const { Calls::new() };
    }
    match here() {
        Some(h) => f(&h.local().calls),
        None => {
            let mut f = Some(f);
            let done = OF_THREAD.try_with(|calls| f.take().map(|f| f(calls))).ok().flatten();
            // At the very end of a thread there is none any more.
            done.unwrap_or_else(|| f.take().expect("it was not called")(&Calls::new()))
        }
    }
}

/// Runs `f` unless an instrument runs already.
fn tell(f: impl FnOnce(&Calls)) {
    /// Also when `f` unwinds, which it should not.
    struct Told<'a>(&'a Calls);

    impl Drop for Told<'_> {
        fn drop(&mut self) {
            self.0.busy.set(false);
        }
    }

    with_calls(|calls| {
        if !calls.busy.replace(true) {
            let told = Told(calls);
            f(told.0);
        }
    });
}

impl Call {
    /// One that nobody watches.
    #[inline(always)]
    pub const fn off() -> Call {
        Call(ManuallyDrop::new(None))
    }

    /// Whether somebody wants to know of its end.
    #[inline(always)]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// It begins, with these arguments, at a point that is watched.
    #[cold]
    #[inline(never)]
    pub fn begin(point: &'static Point, arguments: &[Shown<'_>]) -> Call {
        let mut call = Call::off();
        let mut wrappers = Vec::new();
        tell(|calls| {
            watchers::read(point, |list| {
                if list.events.meet(Events::CALL) {
                    let event = Event {
                        kind: Events::CALL,
                        wanted_as: Events::CALL,
                        place: point,
                        point,
                        arguments: Arguments::Live(arguments),
                        result: None,
                        failed: false,
                        values: &[],
                        elapsed: None,
                        segment: None,
                    };
                    list.all.iter().for_each(|watcher| watcher.probe.fire(&event));
                }
                if list.events.meet(Events::END | Events::MARK) {
                    *call.0 = Some(Box::new(Watched::new(point, list, arguments, calls)));
                }
                wrappers = list.wrappings.iter().filter_map(|wrapping| wrapping.here()).collect();
            });
        });
        if !wrappers.is_empty() {
            call.0.get_or_insert_with(|| Watched::by_nobody(point)).wrappers = wrappers;
        }
        if let Some(answer) = stop::stop_if_asked() {
            call.0.get_or_insert_with(|| Watched::by_nobody(point)).answer = Some(answer);
        }
        call
    }

    /// What it is to return instead of being run.
    #[inline(always)]
    pub fn answer(&mut self) -> Option<Answer> {
        match &mut *self.0 {
            None => None,
            Some(watched) => watched.answer.take(),
        }
    }

    /// What it is to go through, the oldest first: those for exactly that type of function, and that instance.
    #[inline(always)]
    pub fn wrappers<W: ?Sized + Send + Sync + 'static>(
        &mut self,
        signature: &'static str,
        instance: usize,
    ) -> Option<Vec<Layer<W>>> {
        match &mut *self.0 {
            None => None,
            Some(watched) => watched.take_wrappers(signature, instance),
        }
    }

    /// It returns that, or what is given here.
    #[cold]
    #[inline(never)]
    pub fn returned(mut self, result: Shown<'_>, failed: bool) -> Option<Answer> {
        self.0.take()?.over(Events::RETURN, Some(result), failed);
        stop::stop_if_asked()
    }
}

impl Call {
    /// For a function whose result cannot be looked at, only its type: it returns when this is dropped, unless something unwinds it.
    #[inline(always)]
    pub fn told_when_dropped(mut self, kind: &'static str) -> Call {
        if let Some(watched) = &mut *self.0 {
            watched.unseen = Some((kind, std::thread::panicking()));
        }
        self
    }
}

/// Calls a function once: a closure for it may give away what it was given.
#[inline(always)]
pub fn run_once<R>(f: impl FnOnce() -> R) -> R {
    f()
}

impl Drop for Call {
    /// Without a result it ends because something unwinds it.
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.is_some() {
            unwound(self);
        }
    }
}

#[cold]
#[inline(never)]
fn unwound(call: &mut Call) {
    if let Some(watched) = call.0.take() {
        // One that began while something unwound returns while it still does.
        if let Some((kind, _)) = watched.unseen.filter(|(_, before)| *before == std::thread::panicking()) {
            watched.over(Events::RETURN, Some(Shown::Opaque(kind)), false);
            return stop::stop_if_asked().into_iter().for_each(|answer| answer.refused("its type has no name"));
        }
        watched.over(Events::PANIC, None, false);
        // It unwinds, whatever somebody would have it return.
        stop::stop_if_asked().into_iter().for_each(|answer| answer.refused("it unwinds"));
    }
}

impl Watched {
    /// Its end is told to nobody.
    fn by_nobody(point: &'static Point) -> Box<Watched> {
        let began = clock::ticks();
        let wrappers = Vec::new();
        Box::new(Watched {
            point,
            began,
            newest: 0,
            arguments: None,
            linked: None,
            answer: None,
            wrappers,
            unseen: None,
        })
    }

    #[cold]
    #[inline(never)]
    fn take_wrappers<W: ?Sized + Send + Sync + 'static>(
        &mut self,
        signature: &'static str,
        instance: usize,
    ) -> Option<Vec<Layer<W>>> {
        let all = std::mem::take(&mut self.wrappers);
        if all.is_empty() {
            return None;
        }
        let mut found = Vec::new();
        // What `enabled` passes is passed in silence.
        tell(|_| found.extend(all.iter().filter_map(|one| one.for_call(self.point, signature, instance))));
        (!found.is_empty()).then_some(found)
    }

    fn new(point: &'static Point, list: &Watchers, arguments: &[Shown<'_>], calls: &Calls) -> Watched {
        let look_later = list.all.iter().map(|watcher| &*watcher.probe).filter(|probe| probe.needs_arguments_later());
        let arguments = if list.keep_arguments { Probe::keep(look_later, arguments) } else { None };
        let began = clock::ticks();
        let marks = list.events.meet(Events::MARK);
        let linked = marks.then(|| calls.enter(point, began, list.newest, arguments.clone()));
        Watched {
            point,
            began,
            newest: list.newest,
            arguments,
            linked,
            answer: None,
            wrappers: Vec::new(),
            unseen: None,
        }
    }

    fn over(self, kind: Events, result: Option<Shown<'_>>, failed: bool) {
        let now = clock::ticks();
        let Watched { point, began, newest, arguments, linked, .. } = self;
        if let Some(call) = &linked {
            with_calls(|calls| calls.leave(call));
        }
        tell(|_| {
            watchers::read(point, |list| {
                let since = |ticks: u64| now.saturating_sub(ticks);
                let event = Event {
                    kind,
                    wanted_as: kind,
                    place: point,
                    point,
                    arguments: Arguments::Kept(arguments.as_deref().unwrap_or_default()),
                    result,
                    failed,
                    values: &[],
                    elapsed: Some(since(began)),
                    segment: linked.as_ref().map(|call| (call.last.get(), since(call.passed.get()))),
                };
                let saw = list
                    .all
                    .iter()
                    .rev()
                    .filter(|watcher| watcher.function.is_none() && watcher.saw(newest, &arguments));
                saw.for_each(|watcher| watcher.probe.fire(&event));
            });
        });
    }
}

/// Does what is done rarely, where it is in nobody's way.
#[doc(hidden)]
#[cold]
#[inline(never)]
pub fn aside<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// A mark is passed that is watched, with these values.
#[cold]
#[inline(never)]
pub fn passed(point: &'static Point, values: &[Shown<'_>]) {
    let now = clock::ticks();
    tell(|calls| {
        watchers::read(point, |list| {
            let mut within: Vec<Rc<WatchedCall>> = Vec::new();
            for watcher in &list.all {
                let call = watcher.function.map(|function| calls.innermost_of(function));
                let (function, wanted_as, call) = match call {
                    None => (point, Events::MARK | Events::CALL | Events::PASSED, None),
                    Some(Some(call)) if watcher.saw(call.newest, &call.arguments) => {
                        (call.point, Events::MARK, Some(call))
                    }
                    Some(_) => continue,
                };
                let since = |ticks: u64| now.saturating_sub(ticks);
                watcher.probe.fire(&Event {
                    kind: Events::MARK,
                    wanted_as,
                    place: point,
                    point: function,
                    arguments: Arguments::Kept(call.as_ref().and_then(|c| c.arguments.as_deref()).unwrap_or_default()),
                    result: None,
                    failed: false,
                    values,
                    elapsed: call.as_ref().map(|call| since(call.began)),
                    segment: call.as_ref().map(|call| (call.last.get(), since(call.passed.get()))),
                });
                within.extend(call.filter(|call| !within.iter().any(|other| Rc::ptr_eq(other, call))));
            }
            for call in within {
                call.passed.set(now);
                call.last.set(Some(point));
            }
        });
    });
    stop::stop_if_asked().into_iter().for_each(|answer| answer.refused("a mark returns nothing"));
}
