//! Calls of this crate's own that somebody may watch: of sockets, buffers, locks, channels and timers. The low layer has the point and says what goes in and
//! comes out; what becomes of that is the business of the layer that has probes, which registers how a call begins.
//!
//! Invariants: nobody comes here while the point is not watched.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::OnceLock;

use super::point::{Point, Shown};

/// A watched call between its beginning and its end; dropped without a word it was unwound.
pub(crate) trait Begun {
    /// It returns that.
    fn over(self: Box<Self>, result: Shown<'_>, failed: bool);
}

type Begin = fn(&'static Point, &[Shown<'_>]) -> Option<Box<dyn Begun>>;

static BEGIN: OnceLock<Begin> = OnceLock::new();

/// Says how a watched call begins; to be said before any of these points is watched.
pub(crate) fn begin_with(begin: Begin) {
    let _ = BEGIN.set(begin);
}

/// A call that is watched, or was when it began.
#[must_use = "dropping it says that the call was unwound"]
pub(crate) struct Woven(Option<Box<dyn Begun>>);

impl Woven {
    /// It begins with these arguments.
    #[cold]
    pub(crate) fn begin(point: &'static Point, arguments: &[Shown<'_>]) -> Woven {
        Woven(BEGIN.get().and_then(|begin| begin(point, arguments)))
    }

    /// It returns that, or an error, which is shown as it says itself.
    pub(crate) fn ended<E: fmt::Display>(self, result: Result<Shown<'_>, E>) {
        match result {
            Ok(value) => self.over(value, false),
            Err(e) => self.over(Shown::Debug(&Said(e)), true),
        }
    }

    fn over(self, result: Shown<'_>, failed: bool) {
        if let Some(call) = self.0 {
            call.over(result, failed);
        }
    }
}

/// Shown in the words that it has for people.
pub(crate) struct Said<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Debug for Said<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
