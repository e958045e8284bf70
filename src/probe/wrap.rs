//! Wrappers from the program's side: described, started, taken away.
//!
//! Must not know: how a call finds its wrappers.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::attach::ProbeError;
use super::registry;
use super::wrapping::{Active, Enabled, Kept, Notes, Place, Wrapping};
use crate::observe::{Point, Scope};
use crate::scheduler::with_scopes;

/// A wrapper that is not in force yet; [`wrap!`](macro@crate::probe::wrap) makes it.
#[must_use = "nothing is wrapped before `start`"]
pub struct Wrap {
    pattern: String,
    wrapper: Kept,
    signature: &'static str,
    enabled: Option<Enabled>,
    instance: Option<(usize, Kept)>,
    place: Place,
    later: bool,
    wrong: Option<&'static str>,
}

impl fmt::Debug for Wrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wrap").field("pattern", &self.pattern).field("signature", &self.signature).finish()
    }
}

/// For the macro.
#[doc(hidden)]
pub fn wrapper<W: ?Sized + Send + Sync + 'static>(
    pattern: impl Into<String>,
    signature: &'static str,
    wrapper: Box<W>,
) -> Wrap {
    Wrap {
        pattern: pattern.into(),
        wrapper: Arc::new(wrapper),
        signature,
        enabled: None,
        instance: None,
        place: Place::Everywhere,
        later: false,
        wrong: None,
    }
}

impl Wrap {
    /// Asked at each call whether it goes through the wrapper; where it does not, the function is called as if there were none. It must
    /// not wait. If it panics, that is reported on stderr and by [`Wrapped::troubles`], once, and the function is called. Points that it
    /// passes are passed in silence.
    pub fn enabled(mut self, enabled: impl Fn() -> bool + Send + Sync + 'static) -> Wrap {
        self.enabled = Some(Box::new(enabled));
        self
    }

    /// Only calls by the task that starts it, and by tasks that are spawned from there on by it or by these. On a plain thread: by
    /// that thread, and by tasks that it spawns. What they hand to [`blocking`](crate::blocking()) is theirs. Threads that the program makes
    /// itself are not in it, nor tasks that there were before.
    pub fn scoped(mut self) -> Wrap {
        self.place = Place::Own(Arc::default());
        self
    }

    /// In a scope that somebody else enters, and ends.
    pub(super) fn within(mut self, scope: &Arc<Scope>) -> Wrap {
        self.place = Place::Within(scope.clone());
        self
    }

    /// Only calls of methods on that one value, which is kept for as long as the wrapper is there; of others of its type nothing is
    /// changed. Methods that take `self` by value are never called on it.
    pub fn only_for<T: Send + Sync + 'static>(mut self, instance: &Arc<T>) -> Wrap {
        if size_of::<T>() == 0 {
            self.wrong = Some("values without a size cannot be told apart: only_for needs a type that has one");
        }
        self.instance = Some((Arc::as_ptr(instance).addr(), instance.clone()));
        self
    }

    /// It is no error if there is no such point yet: its calls are wrapped from the first one on.
    pub fn later(mut self) -> Wrap {
        self.later = true;
        self
    }

    /// Puts it in force. Calls that have begun are left as they are. Where there are several wrappers, the newest one is called first,
    /// and its original is the one before.
    ///
    /// # Errors
    /// If no point is called like that, with those that are called nearly so; if none of them can be wrapped.
    pub fn start(self) -> Result<Wrapped, ProbeError> {
        if let Some(wrong) = self.wrong {
            return Err(ProbeError(wrong.to_owned()));
        }
        let Wrap { pattern, wrapper, signature, enabled, instance, place, later, .. } = self;
        let notes = Arc::<Notes>::default();
        let active = Active { wrapper, signature, enabled, instance, notes };
        let own = match &place {
            Place::Own(scope) => Some(scope.clone()),
            _ => None,
        };
        let wrapping = Arc::new(Wrapping::new(pattern, place, active));
        registry::wrap(&wrapping, later).map_err(ProbeError)?;
        if let Some(scope) = own {
            with_scopes(|scopes| scopes.enter(&scope));
        }
        Ok(Wrapped { wrapping, stays: false })
    }
}

/// A wrapper that is in force. Dropping this takes it away, also while something unwinds, unless [`leave`](Wrapped::leave) was said.
/// Several may go in any order.
#[must_use = "dropping it takes the wrapper away; `leave` lets it be"]
pub struct Wrapped {
    wrapping: Arc<Wrapping>,
    stays: bool,
}

impl Wrapped {
    /// How many calls have gone through it.
    pub fn calls(&self) -> u64 {
        self.wrapping.notes.calls.load(Ordering::Relaxed)
    }

    /// The points whose calls go through it.
    pub fn points(&self) -> Vec<&'static Point> {
        self.wrapping.points()
    }

    /// What went wrong, each thing once: a function of another type, which is not wrapped; an `enabled` that panicked.
    pub fn troubles(&self) -> Vec<String> {
        self.wrapping.notes.troubles()
    }

    /// Takes it away. When this returns, no call begins to go through it any more; those that do finish.
    pub fn stop(&self) {
        registry::unwrap(&self.wrapping);
        self.wrapping.end();
    }

    /// Lets it be until the process ends.
    pub fn leave(mut self) {
        self.stays = true;
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        if !self.stays {
            self.stop();
        }
    }
}

impl fmt::Debug for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wrapping.fmt(f)
    }
}

/// A wrapper of a function: it is called in its place, with the original and the arguments, and what it returns the caller gets.
///
/// Written as a closure with all types; what it captures, it owns (`move`). The original comes first: calling it calls what would
/// have been called without this wrapper. It may be called with other arguments, several times, or not at all. The first argument of a
/// method is what it is called on.
///
/// The function has to say `#[coro::probe(wrap)]`, and its types have to be exactly these: those of a function are known
/// when it is called, and calls of one that has others are not wrapped, which [`Wrapped::troubles`](crate::probe::Wrapped::troubles) and
/// a line on stderr tell. A reference that is returned and could be one of several arguments needs a name: `for<'a> |…|`.
///
/// A panic of the wrapper is the caller's, as if the function had panicked.
///
/// # Examples
/// ```
/// use coro::probe::wrap;
///
/// #[coro::probe(wrap)]
/// fn price(item: &str, n: u32) -> u64 {
///     item.len() as u64 * u64::from(n)
/// }
///
/// struct Names(Vec<String>);
///
/// impl Names {
///     #[coro::probe(wrap)]
///     fn find(&self, start: &str) -> Option<&String> {
///         self.0.iter().find(|name| name.starts_with(start))
///     }
/// }
///
/// let free = wrap!("price", |price, item: &str, n: u32| -> u64 {
///     if item == "tea" { 0 } else { price(item, n) }
/// });
/// let free = free.start().unwrap();
/// assert_eq!((price("tea", 2), price("cake", 2)), (0, 8));
/// assert_eq!(free.calls(), 2);
/// drop(free);
/// assert_eq!(price("tea", 2), 6);
///
/// let last = wrap!("Names::find", for<'a> |_find, this: &'a Names, _start: &str| -> Option<&'a String> { this.0.last() });
/// let _last = last.start().unwrap();
/// let names = Names(vec!["ada".into(), "bob".into()]);
/// assert_eq!(names.find("a").unwrap(), "bob");
/// ```
///
/// A type that may not live for ever cannot be told from another one while the program runs, and the compiler refuses it:
///
/// ```compile_fail,E0310
/// struct Cell<T>(T);
///
/// impl<T: Copy> Cell<T> {
///     #[coro::probe(wrap)]
///     fn get(&self) -> T {
///         self.0
///     }
/// }
/// ```
/// ```compile_fail
/// struct Parser<'a>(&'a str);
///
/// impl<'a> Parser<'a> {
///     #[coro::probe(wrap)]
///     fn rest(&self) -> &'a str {
///         self.0
///     }
/// }
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __wrap {
    ($pattern:expr, |$orig:ident $(, $arg:ident: $type:ty)* $(,)?| $body:block) => {
        $crate::__wrap!($pattern, |$orig $(, $arg: $type)*| -> () $body)
    };
    ($pattern:expr, for<$($life:lifetime),*> |$orig:ident $(, $arg:ident: $type:ty)* $(,)?| -> $result:ty $body:block) => {{
        type __CoroOriginal = dyn for<$($life),*> ::core::ops::Fn($($type),*) -> $result;
        $crate::probe::wrapper::<
            dyn for<$($life),*> ::core::ops::Fn(::std::rc::Rc<__CoroOriginal>, $($type),*) -> $result
                + ::core::marker::Send + ::core::marker::Sync
        >(
            $pattern,
            ::core::stringify!(fn($($type),*) -> $result),
            ::std::boxed::Box::new(move |$orig, $($arg),*| $body),
        )
    }};
    ($pattern:expr, |$orig:ident $(, $arg:ident: $type:ty)* $(,)?| -> $result:ty $body:block) => {
        $crate::probe::wrapper::<
            dyn ::core::ops::Fn(::std::rc::Rc<dyn ::core::ops::Fn($($type),*) -> $result>, $($type),*) -> $result
                + ::core::marker::Send + ::core::marker::Sync
        >(
            $pattern,
            ::core::stringify!(fn($($type),*) -> $result),
            ::std::boxed::Box::new(move |$orig, $($arg),*| $body),
        )
    };
}
