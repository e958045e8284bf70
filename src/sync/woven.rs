//! The calls of locks and channels as points: each can be watched when it begins, so that one that waits is seen while it does, and
//! when it returns.
//!
//! Invariants: while nobody watches a call costs one relaxed load and a branch for this. What gives something up (unlock, release, close)
//! is told after it was done, so that nobody waits longer for being watched. What a call has taken is given back if the telling of its
//! end is unwound.
//!
//! Must not know: who watches, or what becomes of what is seen.

#![forbid(unsafe_code)]

use crate::observe::Object;
#[cfg(feature = "probe")]
use crate::observe::{Point, PointKind, PointName, Said, Shown, THREAD, Woven};

/// A call that is a point.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    Lock,
    TryLock,
    Read,
    TryRead,
    Write,
    TryWrite,
    Unlock,
    Acquire,
    TryAcquire,
    Release,
    Wait,
    Send,
    TrySend,
    Recv,
    TryRecv,
    Close,
}

#[cfg(feature = "probe")]
macro_rules! point {
    ($name:literal, $($argument:literal),*) => {
        Point::new(PointName::Fixed($name), PointKind::Function, file!(), line!(), line!(), &["name", "place", $($argument),*])
    };
}

/// In the order of [`Call`].
#[cfg(feature = "probe")]
static POINTS: [Point; 16] = [
    point!("coro::sync::lock", "busy", "held_by"),
    point!("coro::sync::try_lock", "busy", "held_by"),
    point!("coro::sync::read", "busy", "held_by"),
    point!("coro::sync::try_read", "busy", "held_by"),
    point!("coro::sync::write", "busy", "held_by"),
    point!("coro::sync::try_write", "busy", "held_by"),
    point!("coro::sync::unlock",),
    point!("coro::sync::acquire", "busy", "wanted", "free"),
    point!("coro::sync::try_acquire", "busy", "wanted", "free"),
    point!("coro::sync::release", "given"),
    point!("coro::sync::wait", "busy"),
    point!("coro::sync::send", "busy", "queued"),
    point!("coro::sync::try_send", "busy", "queued"),
    point!("coro::sync::recv", "busy", "queued"),
    point!("coro::sync::try_recv", "busy", "queued"),
    point!("coro::sync::close", "by"),
];

/// All of them.
#[cfg(feature = "probe")]
pub(crate) fn points() -> impl Iterator<Item = &'static Point> {
    POINTS.iter()
}

/// What is told of an object beside its name and place.
#[cfg_attr(not(feature = "probe"), allow(dead_code, reason = "nobody looks"))]
pub(super) enum State {
    /// Whether whoever wants it now has to wait, and for how many readers.
    Lock {
        busy: bool,
        readers: u32,
    },
    /// Somebody gives it up.
    Free,
    Permits {
        wanted: usize,
        free: usize,
    },
    Given(usize),
    Messages {
        busy: bool,
        queued: usize,
    },
    /// Which end was the last of its kind.
    End(&'static str),
    /// It is waited for in any case.
    Event,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "probe"), allow(dead_code, reason = "nobody looks"))]
pub(super) enum Outcome {
    Done,
    Is(bool),
    /// It gives a message of that type.
    Message(&'static str),
    Failed(&'static str),
}

impl Call {
    /// Whether anybody watches.
    #[inline(always)]
    pub(super) fn is_watched(self) -> bool {
        #[cfg(feature = "probe")]
        return POINTS[self as usize].is_watched();
        #[cfg(not(feature = "probe"))]
        return false;
    }

    /// It was done: told as a call that begins and returns now.
    #[cold]
    #[inline(never)]
    pub(super) fn was_done(self, object: &Object, state: State, outcome: Outcome) {
        self.told(object, state, || outcome, |outcome| *outcome, drop);
    }

    /// Does it; `undo` takes back what it has done if the telling of that is unwound.
    #[cold]
    #[inline(never)]
    pub(super) fn told<R>(
        self,
        object: &Object,
        state: State,
        call: impl FnOnce() -> R,
        outcome: impl FnOnce(&R) -> Outcome,
        undo: impl FnOnce(R),
    ) -> R {
        let watched = Watched::begin(self, object, state);
        let result = call();
        let outcome = outcome(&result);
        let mut undone = Undone(Some((result, undo)));
        watched.over(outcome);
        let (result, _) = undone.0.take().expect("nobody else takes it");
        result
    }
}

/// What was done, until it was told.
struct Undone<R, F: FnOnce(R)>(Option<(R, F)>);

impl<R, F: FnOnce(R)> Drop for Undone<R, F> {
    fn drop(&mut self) {
        if let Some((result, undo)) = self.0.take() {
            undo(result);
        }
    }
}

/// A call that is watched.
#[cfg(feature = "probe")]
struct Watched(Woven);

#[cfg(not(feature = "probe"))]
struct Watched;

#[cfg(not(feature = "probe"))]
impl Watched {
    fn begin(_: Call, _: &Object, _: State) -> Watched {
        Watched
    }

    fn over(self, _: Outcome) {}
}

#[cfg(feature = "probe")]
impl Watched {
    fn begin(call: Call, object: &Object, state: State) -> Watched {
        let point = &POINTS[call as usize];
        let (site, owner) = (object.site(), object.owner());
        let place = Said(format!("{}:{}", site.file(), site.line()));
        let (name, place) = (Shown::Text(object.name().unwrap_or_default()), Shown::Debug(&place));
        let number = |n: usize| Shown::Int(n as i64);
        Watched(match state {
            State::Lock { busy, readers } => {
                let holder = Said(match (readers, owner) {
                    (1, _) => "1 reader".to_owned(),
                    (2.., _) => format!("{readers} readers"),
                    (0, 0) => String::new(),
                    (0, THREAD) => "a thread".to_owned(),
                    (0, id) if id & THREAD != 0 => format!("thread {}", id & !THREAD),
                    (0, id) => format!("#{id}"),
                });
                Woven::begin(point, &[name, place, Shown::Bool(busy), Shown::Debug(&holder)])
            }
            State::Free => Woven::begin(point, &[name, place]),
            State::Permits { wanted, free } => {
                Woven::begin(point, &[name, place, Shown::Bool(wanted > free), number(wanted), number(free)])
            }
            State::Given(n) => Woven::begin(point, &[name, place, number(n)]),
            State::Messages { busy, queued } => Woven::begin(point, &[name, place, Shown::Bool(busy), number(queued)]),
            State::End(by) => Woven::begin(point, &[name, place, Shown::Debug(&Said(by))]),
            State::Event => Woven::begin(point, &[name, place, Shown::Bool(true)]),
        })
    }

    fn over(self, outcome: Outcome) {
        self.0.ended(match outcome {
            Outcome::Done => Ok(Shown::Unit),
            Outcome::Is(yes) => Ok(Shown::Bool(yes)),
            Outcome::Message(kind) => Ok(Shown::Opaque(kind)),
            Outcome::Failed(why) => Err(why),
        });
    }
}
