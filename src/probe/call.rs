//! What passing a point does: a call begins, marks are passed, it is over.
//!
//! Invariants: a call that nobody watched when it began is told to nobody later. The calls in which marks are watched and that are
//! under way are linked, those of a task or of a plain thread by themselves, each with the one around it. While instruments run,
//! points that they pass are passed in silence. Nobody stops but where a probe that may ask for it was told.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::mem::{self, ManuallyDrop};
use std::rc::Rc;
use std::sync::Arc;

use super::event::{Arguments, Event, Events};
use super::light::{self, Begun};
use super::running::Probe;
use super::stop::{self, Answer};
use super::watchers::{self, Watchers};
use super::wrapping::{Active, Layer};
use crate::observe::{Calls, Kept, Point, Shown, WatchedCall};
use crate::scheduler::suspend::here;
use crate::sys::clock;

/// A call of a function that may be watched; made by the code of the attribute, and over when it is dropped.
#[allow(missing_debug_implementations, reason = "it is never seen")]
/// Looked at once at the end: a field that drops itself would be looked at again.
#[must_use = "it is the call"]
pub struct Call(ManuallyDrop<State>);

/// What is to be done at its end.
enum State {
    /// Nothing.
    Off,
    /// To count and to measure: see [`light`].
    Counted(Counted),
    /// Everything else.
    Noted(Room),
}

struct Counted {
    point: &'static Point,
    begun: Begun,
    /// Its result cannot be looked at; and whether something unwound when it began.
    unseen: Option<bool>,
}

/// Where a call is noted; full while it is under way. Used again and again.
type Room = Box<Option<Watched>>;

/// So many are kept empty for the calls to come of a thread: of those that are under way at once, most lie within one another.
const KEPT_ROOMS: usize = 16;

thread_local! {
    #[allow(clippy::vec_box, reason = "the boxes come and go")]
    static ROOMS: RefCell<Vec<Room>> = const { RefCell::new(Vec::new()) };
}

/// One that holds this.
#[inline]
fn room_with(watched: Watched) -> Room {
    // At the very end of a thread, or within the allocator, there is none to be had.
    let kept = ROOMS.try_with(|rooms| rooms.try_borrow_mut().ok().and_then(|mut rooms| rooms.pop())).ok().flatten();
    match kept {
        Some(mut room) => {
            *room = Some(watched);
            room
        }
        None => Box::new(Some(watched)),
    }
}

/// It is empty now, for another one.
#[inline]
fn reuse(mut room: Room) {
    *room = None;
    let mut room = Some(room);
    let _ = ROOMS.try_with(|rooms| {
        if let Ok(mut rooms) = rooms.try_borrow_mut()
            && rooms.len() < KEPT_ROOMS
        {
            rooms.extend(room.take());
        }
    });
}

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
    changes: Option<Box<Changes>>,
    /// The type of a result that nobody can look at, and whether something unwound when the call began.
    unseen: Option<(&'static str, bool)>,
}

/// What becomes of a call that does not just run.
#[derive(Default)]
struct Changes {
    /// What it is to return instead of being run.
    answer: Option<Answer>,
    /// What it is to go through, the oldest first.
    wrappers: Vec<Arc<Active>>,
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
pub(super) fn tell(f: impl FnOnce(&Calls)) {
    with_calls(|calls| {
        if !calls.busy.get() {
            silent(calls, f);
        }
    });
}

/// Runs `f`, in which points are passed in silence.
pub(super) fn silently(f: impl FnOnce()) {
    with_calls(|calls| silent(calls, |_| f()));
}

fn silent(calls: &Calls, f: impl FnOnce(&Calls)) {
    /// Also when `f` unwinds, which it should not.
    struct Silent<'a>(&'a Calls, bool);

    impl Drop for Silent<'_> {
        fn drop(&mut self) {
            self.0.busy.set(self.1);
        }
    }

    let silent = Silent(calls, calls.busy.replace(true));
    f(silent.0);
}

impl Call {
    /// One that nobody watches.
    #[inline(always)]
    pub const fn off() -> Call {
        Call(ManuallyDrop::new(State::Off))
    }

    /// Whether somebody wants to know of its end.
    #[inline(always)]
    #[must_use]
    pub fn is_on(&self) -> bool {
        !matches!(*self.0, State::Off)
    }

    #[inline(always)]
    fn take(&mut self) -> State {
        mem::replace(&mut *self.0, State::Off)
    }

    /// It begins, with these arguments, at a point that is watched.
    #[inline]
    pub fn begin(point: &'static Point, arguments: &[Shown<'_>]) -> Call {
        Call::begin_lightly(point).unwrap_or_else(|| Call::begin_noted(point, arguments))
    }

    /// It begins at a point where all who watch only count and measure. `None`: they do not, and it has not begun.
    #[inline(always)]
    pub fn begin_lightly(point: &'static Point) -> Option<Call> {
        let begun = light::begin(point);
        if !begun.has_begun() {
            return None;
        }
        let state = match begun.has_end() {
            true => State::Counted(Counted { point, begun, unseen: None }),
            false => State::Off,
        };
        Some(Call(ManuallyDrop::new(state)))
    }

    /// It begins, with these arguments, whoever watches.
    #[cold]
    #[inline(never)]
    pub fn begin_noted(point: &'static Point, arguments: &[Shown<'_>]) -> Call {
        let mut room: Option<Room> = None;
        let mut wrappers = Vec::new();
        let mut stops = false;
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
                    stops = list.stops;
                }
                if list.events.meet(Events::END | Events::MARK) {
                    room = Some(room_with(Watched::new(point, list, arguments, calls)));
                }
                if !list.wrappings.is_empty() {
                    wrappers = list.wrappings.iter().filter_map(|wrapping| wrapping.here()).collect();
                }
            });
        });
        if !wrappers.is_empty() {
            Watched::changes(&mut room, point).wrappers = wrappers;
        }
        if stops && let Some(answer) = stop::stop_if_asked() {
            Watched::changes(&mut room, point).answer = Some(answer);
        }
        Call(ManuallyDrop::new(room.map_or(State::Off, State::Noted)))
    }

    /// What it is to return instead of being run.
    #[inline(always)]
    pub fn answer(&mut self) -> Option<Answer> {
        match &mut *self.0 {
            State::Noted(room) => room.as_mut().as_mut().and_then(Watched::take_answer),
            State::Off | State::Counted(_) => None,
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
            State::Noted(room) => room.as_mut().as_mut().and_then(|watched| watched.take_wrappers(signature, instance)),
            State::Off | State::Counted(_) => None,
        }
    }

    /// It returns, if nobody wants to know what: whether that is so. Then it is to be [forgotten](Call::forget).
    #[inline(always)]
    #[must_use]
    pub fn has_returned_lightly(&mut self) -> bool {
        let State::Counted(Counted { point, begun, .. }) = *self.0 else { return false };
        *self.0 = State::Off;
        light::end(point, begun, false);
        true
    }

    /// It is over. Dropping it would come to the same; but so the compiler sees that nobody looks for it in memory where nothing unwinds, and
    /// keeps what a call that nobody watches looks at in a register.
    #[inline(always)]
    pub fn forget(self) {
        mem::forget(self);
    }

    /// It returns that, or what is given here.
    #[cold]
    #[inline(never)]
    pub fn returned(mut self, result: Shown<'_>, failed: bool) -> Option<Answer> {
        if self.has_returned_lightly() {
            return None;
        }
        let State::Noted(mut room) = self.take() else { return None };
        let stops = room.as_mut().as_mut().is_some_and(|watched| watched.over(Events::RETURN, Some(result), failed));
        reuse(room);
        if stops { stop::stop_if_asked() } else { None }
    }

    /// For a function whose result cannot be looked at, only its type: it returns when this is dropped, unless something unwinds it.
    #[inline(always)]
    pub fn told_when_dropped(mut self, kind: &'static str) -> Call {
        match &mut *self.0 {
            State::Off => {}
            State::Counted(counted) => counted.unseen = Some(std::thread::panicking()),
            State::Noted(room) => {
                if let Some(watched) = &mut **room {
                    watched.unseen = Some((kind, std::thread::panicking()));
                }
            }
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
        if self.is_on() {
            dropped(self);
        }
    }
}

#[cold]
#[inline(never)]
fn dropped(call: &mut Call) {
    let mut room = match call.take() {
        State::Off => return,
        State::Counted(Counted { point, begun, unseen }) => {
            let returns = unseen.is_some_and(|before| before == std::thread::panicking());
            return light::end(point, begun, !returns);
        }
        State::Noted(room) => room,
    };
    if let Some(watched) = &mut *room {
        // One that began while something unwound returns while it still does.
        let returns = watched.unseen.filter(|(_, before)| *before == std::thread::panicking());
        let (stops, why) = match returns {
            Some((kind, _)) => (watched.over(Events::RETURN, Some(Shown::Opaque(kind)), false), "its type has no name"),
            // Whatever somebody would have it return.
            None => (watched.over(Events::PANIC, None, false), "it unwinds"),
        };
        if stops {
            stop::stop_if_asked().into_iter().for_each(|answer| answer.refused(why));
        }
    }
    reuse(room);
}

impl Watched {
    /// Its end is told to nobody.
    fn by_nobody(point: &'static Point) -> Watched {
        let began = clock::ticks();
        Watched { point, began, newest: 0, arguments: None, linked: None, changes: None, unseen: None }
    }

    /// What becomes of the call that is noted there, or is now.
    fn changes<'a>(room: &'a mut Option<Room>, point: &'static Point) -> &'a mut Changes {
        let room = room.get_or_insert_with(|| room_with(Watched::by_nobody(point)));
        room.get_or_insert_with(|| Watched::by_nobody(point)).changes.get_or_insert_default()
    }

    #[inline]
    fn take_answer(&mut self) -> Option<Answer> {
        self.changes.as_mut()?.answer.take()
    }

    #[cold]
    #[inline(never)]
    fn take_wrappers<W: ?Sized + Send + Sync + 'static>(
        &mut self,
        signature: &'static str,
        instance: usize,
    ) -> Option<Vec<Layer<W>>> {
        let all = std::mem::take(&mut self.changes.as_mut()?.wrappers);
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
        Watched { point, began, newest: list.newest, arguments, linked, changes: None, unseen: None }
    }

    /// Whether anybody may have asked the caller to stop.
    #[inline]
    fn over(&mut self, kind: Events, result: Option<Shown<'_>>, failed: bool) -> bool {
        let mut stops = false;
        let now = clock::ticks();
        let (point, began, newest) = (self.point, self.began, self.newest);
        let (arguments, linked) = (&self.arguments, &self.linked);
        if let Some(call) = linked {
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
                    .filter(|watcher| watcher.function.is_none() && watcher.saw(newest, arguments));
                saw.for_each(|watcher| watcher.probe.fire(&event));
                stops = list.stops;
            });
        });
        stops
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
    // Who wants marks, or a log of them, wants more.
    if light::begin(point).has_begun() {
        return;
    }
    let now = clock::ticks();
    let mut stops = false;
    tell(|calls| {
        watchers::read(point, |list| {
            stops = list.stops;
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
    if stops {
        stop::stop_if_asked().into_iter().for_each(|answer| answer.refused("a mark returns nothing"));
    }
}
