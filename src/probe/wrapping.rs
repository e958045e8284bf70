//! What the calls of a point go through: one wrapper, where it holds, and whether it is to be called.
//!
//! Invariants: a wrapper is called only for a function of exactly its type: it lies in an `Any`, and its type is that of a
//! trait object with all arguments and the result in it. It is dropped where it is taken away, or by the last call that goes
//! through it, never by whoever frees a list. A call goes through the wrappers that there are when it begins.
//!
//! Must not know: lists of points, what a wrapper does.

#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::text::plain;
use crate::observe::{Point, Scope};
use crate::scheduler::runtime::payload_text;
use crate::scheduler::{is_in, no_switch, with_scopes};
use crate::sys::stderr;

/// So many different things that went wrong are remembered.
const TROUBLES: usize = 8;

/// Says whether a call goes through.
pub(super) type Enabled = Box<dyn Fn() -> bool + Send + Sync>;

/// Any value, kept.
pub(super) type Kept = Arc<dyn Any + Send + Sync>;

/// Whose calls go through it.
pub(super) enum Place {
    Everywhere,
    /// Those in a scope that ends with it.
    Own(Arc<Scope>),
    /// Those in a scope that is somebody else's.
    Within(Arc<Scope>),
}

/// See the module's head.
pub(super) struct Wrapping {
    pub(super) pattern: String,
    points: Mutex<Vec<&'static Point>>,
    place: Place,
    /// `None` when it is over.
    active: Mutex<Option<Arc<Active>>>,
    pub(super) notes: Arc<Notes>,
}

/// A wrapper as long as it is there.
pub(super) struct Active {
    /// A `Box` of the trait object.
    pub(super) wrapper: Kept,
    /// Its type, as it was written.
    pub(super) signature: &'static str,
    pub(super) enabled: Option<Enabled>,
    /// The address of the one value whose methods are wrapped, and what keeps it there.
    pub(super) instance: Option<(usize, Kept)>,
    pub(super) notes: Arc<Notes>,
}

/// A wrapper that one call goes through.
#[doc(hidden)]
pub struct Layer<W: ?Sized> {
    wrapper: Arc<Box<W>>,
    notes: Arc<Notes>,
}

impl<W: ?Sized> Layer<W> {
    /// To call it.
    pub fn call(&self) -> &W {
        self.notes.calls.fetch_add(1, Ordering::Relaxed);
        &self.wrapper
    }
}

impl<W: ?Sized> fmt::Debug for Layer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a wrapper")
    }
}

/// What has become of the calls.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) calls: AtomicU64,
    troubles: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wrapping {
    pub(super) fn new(pattern: String, place: Place, active: Active) -> Wrapping {
        let notes = active.notes.clone();
        Wrapping { pattern, points: Mutex::default(), place, active: Mutex::new(Some(Arc::new(active))), notes }
    }

    /// Those that it is at.
    pub(super) fn points(&self) -> Vec<&'static Point> {
        lock(&self.points).clone()
    }

    pub(super) fn set_points(&self, points: Vec<&'static Point>) {
        *lock(&self.points) = points;
    }

    pub(super) fn is_at(&self, point: &Point) -> bool {
        lock(&self.points).iter().any(|p| ptr::eq(*p, point))
    }

    /// The wrapper, if calls of whoever runs here may go through it.
    pub(super) fn here(&self) -> Option<Arc<Active>> {
        let holds = match &self.place {
            Place::Everywhere => true,
            Place::Own(scope) | Place::Within(scope) => is_in(scope),
        };
        if holds { lock(&self.active).clone() } else { None }
    }

    /// It is over. What it was is dropped by the caller, or with the calls that go through it.
    pub(super) fn end(&self) {
        if let Place::Own(scope) = &self.place {
            scope.end();
            with_scopes(|scopes| scopes.leave(scope));
        }
        let active = lock(&self.active).take();
        drop(active);
    }
}

impl Active {
    /// The wrapper, if this call of the point is to go through it: one of that type, of that instance.
    pub(super) fn for_call<W>(&self, point: &Point, signature: &str, instance: usize) -> Option<Layer<W>>
    where
        W: ?Sized + Send + Sync + 'static,
    {
        let Ok(wrapper) = self.wrapper.clone().downcast::<Box<W>>() else {
            self.notes.trouble(|| {
                let (its, ours) = (tidy(signature), tidy(self.signature));
                format!("calls of {} are not wrapped: it is {its}, and the wrapper is for {ours}", point.name())
            });
            return None;
        };
        if self.instance.as_ref().is_some_and(|(address, _)| *address != instance) || !self.is_enabled(point) {
            return None;
        }
        Some(Layer { wrapper, notes: self.notes.clone() })
    }

    fn is_enabled(&self, point: &Point) -> bool {
        let Some(enabled) = &self.enabled else { return true };
        catch_unwind(AssertUnwindSafe(|| no_switch(enabled))).unwrap_or_else(|payload| {
            let why = payload_text(&*payload).to_string();
            // It may panic again when it is dropped.
            std::mem::forget(payload);
            self.notes.trouble(|| format!("calls of {} are not wrapped: `enabled` panicked: {why}", point.name()));
            false
        })
    }
}

impl Notes {
    /// Something is wrong: it is told once.
    #[cold]
    fn trouble(&self, what: impl FnOnce() -> String) {
        let what = what();
        let mut troubles = lock(&self.troubles);
        if troubles.len() < TROUBLES && !troubles.contains(&what) {
            stderr::write(&(plain(&format!("coro: {what}")) + "\n"));
            troubles.push(what);
        }
    }

    pub(super) fn troubles(&self) -> Vec<String> {
        lock(&self.troubles).clone()
    }
}

/// Types as people write them: the compiler has its own way with spaces.
fn tidy(types: &str) -> String {
    let mut out = String::new();
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '\'');
    let mut words = types.split_whitespace();
    out.push_str(words.next().unwrap_or_default());
    for word in words {
        let (before, after) = (out.chars().next_back(), word.chars().next());
        let apart = is_word(before) && is_word(after) || [',', '+', '='].iter().any(|c| before == Some(*c));
        if apart || out.ends_with("->") || ["->", "+", "="].iter().any(|sign| word.starts_with(sign)) {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

impl fmt::Debug for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.notes.calls.load(Ordering::Relaxed);
        write!(f, "wrapper of {}, {calls} calls", self.pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_written_as_people_write_them() {
        for (by_compiler, by_people) in [
            ("fn(& str, u32) -> Option < & 'a u32 >", "fn(&str, u32) -> Option<&'a u32>"),
            ("fn (& 'a mut Self, Box < dyn Fn(u8)+ Send >)->()", "fn(&'a mut Self, Box<dyn Fn(u8)+ Send>)->()"),
        ] {
            assert_eq!(tidy(by_compiler), by_people);
        }
    }
}
