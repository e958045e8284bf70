//! Calls that are kept: to be looked at, to be compared with others, to be answered as they were.
//!
//! Invariants: of arguments only their text is kept, of results the text and, where they can be copied, a copy. A recorded call answers
//! one call. In which order calls came is kept, but no difference: tasks run at once.
//!
//! Must not know: how calls come here.

#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::text::plain;
use crate::observe::Shown;

/// So many calls are kept; later ones are counted.
const MOST: usize = 1 << 16;

/// Makes another copy of a result.
type Copies = Arc<dyn Fn() -> Box<dyn Any> + Send + Sync>;

/// How a call ended.
#[derive(Clone)]
enum Outcome {
    Returned(String, Option<Copies>),
    Unwound,
}

#[derive(Clone)]
struct Recorded {
    /// Function and arguments, and the function alone.
    call: String,
    function: String,
    /// `None` while it is under way.
    outcome: Option<Outcome>,
    /// It has answered a call.
    used: bool,
}

impl Recorded {
    /// How it ended, in words.
    fn end(&self) -> &str {
        match &self.outcome {
            None => "is under way",
            Some(Outcome::Unwound) => "~ unwinds",
            Some(Outcome::Returned(text, _)) => text,
        }
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.end())
    }
}

#[derive(Default)]
struct Calls {
    all: Vec<Recorded>,
    lost: usize,
}

/// Calls of functions that go through [`record!`](macro@crate::probe::record), in the order in which they began, at most 65,536. A clone
/// is the same recording.
///
/// # Examples
/// ```
/// use coro::probe::{Recording, record};
///
/// #[coro::probe(wrap)]
/// fn price(item: &str, n: u32) -> u64 {
///     item.len() as u64 * u64::from(n)
/// }
///
/// let recording = Recording::new();
/// let on = record!(recording, "price", |item: &str, n: u32| -> u64).start().unwrap();
/// price("tea", 2);
/// drop(on);
/// assert_eq!(recording.calls(), ["price(\"tea\", 2) => 6"]);
/// ```
#[derive(Clone, Default)]
pub struct Recording {
    calls: Arc<Mutex<Calls>>,
}

impl Recording {
    /// Of no calls yet.
    pub fn new() -> Recording {
        Recording::default()
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls so far, a line each: `shop::price("tea", 2) => 6`. Values are shown by `Debug`, what has none by its type.
    pub fn calls(&self) -> Vec<String> {
        self.lock().all.iter().map(Recorded::to_string).collect()
    }

    /// What is different in another recording: calls that are missing there, that are unexpected there, that have other arguments or
    /// another result.
    pub fn diff(&self, other: &Recording) -> Diff {
        let was = self.lock().all.clone();
        let is = other.lock();
        Diff::of(was, &is)
    }

    /// Answers calls as they were answered here; see [`Replay`]. Calls that are recorded later do not count.
    pub fn replay(&self) -> Replay {
        let mut calls = self.lock().all.clone();
        calls.iter_mut().for_each(|call| call.used = false);
        Replay { expected: Arc::new(Mutex::new(calls)), actual: Recording::new() }
    }

    /// For the macros: a call begins.
    #[doc(hidden)]
    pub fn begins(&self, function: &str, arguments: &[(&str, Shown<'_>)]) -> Recorder {
        self.begins_as(function, text_of(function, arguments))
    }

    fn begins_as(&self, function: &str, call: String) -> Recorder {
        let mut calls = self.lock();
        let at = (calls.all.len() < MOST).then_some(calls.all.len());
        match at {
            Some(_) => {
                calls.all.push(Recorded { call, function: function.to_owned(), outcome: None, used: false });
            }
            None => calls.lost += 1,
        }
        Recorder { recording: self.clone(), at, over: false }
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.calls()).finish()
    }
}

/// `price("tea", 2)`; arguments whose names begin with `_` are left out.
fn text_of(function: &str, arguments: &[(&str, Shown<'_>)]) -> String {
    let shown = arguments.iter().filter(|(name, _)| !name.starts_with('_'));
    let shown: Vec<String> = shown.map(|(_, shown)| whole(shown)).collect();
    format!("{function}({})", shown.join(", "))
}

/// The whole text, whatever its length: it is compared.
fn whole(shown: &Shown<'_>) -> String {
    match shown {
        Shown::Debug(value) => plain(&format!("{value:?}")),
        Shown::Text(text) => plain(&format!("{text:?}")),
        other => other.text(),
    }
}

/// A call that is recorded, under way; over when it is dropped.
#[doc(hidden)]
#[derive(Debug)]
pub struct Recorder {
    recording: Recording,
    at: Option<usize>,
    over: bool,
}

impl Recorder {
    /// It returns this.
    pub fn returned(mut self, result: Shown<'_>, copies: Option<Kept>) {
        let text = format!("=> {}", whole(&result));
        self.ends(Outcome::Returned(text, copies.map(|kept| kept.0)));
    }

    fn ends(&mut self, outcome: Outcome) {
        self.over = true;
        if let Some(at) = self.at {
            self.recording.lock().all[at].outcome = Some(outcome);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.over {
            self.ends(Outcome::Unwound);
        }
    }
}

/// A result that can be copied.
#[doc(hidden)]
pub struct Kept(Copies);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a copy")
    }
}

/// A result that is to be kept, if it can be; which way there is, the compiler decides, as in `expose`.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "it has one that is another's")]
pub struct Keep<'a, T>(pub &'a T);

/// First: a copy.
#[doc(hidden)]
pub trait KeepCopy {
    /// It.
    fn kept(&self) -> Option<Kept>;
}

impl<T: Clone + Send + Sync + 'static> KeepCopy for &Keep<'_, T> {
    fn kept(&self) -> Option<Kept> {
        let copy = self.0.clone();
        Some(Kept(Arc::new(move || Box::new(copy.clone()))))
    }
}

/// Last: not at all.
#[doc(hidden)]
pub trait KeepNot {
    /// Nothing.
    fn kept(&self) -> Option<Kept>;
}

impl<T> KeepNot for Keep<'_, T> {
    fn kept(&self) -> Option<Kept> {
        None
    }
}

/// Answers calls that go through [`replay!`](macro@crate::probe::replay) from a recording: one with the same arguments gets the result of
/// the first recorded call that has not answered yet, and the function is not called. One that there is no answer for goes to the function.
/// A call that unwound when it was recorded panics. A clone is the same.
///
/// # Examples
/// ```
/// use coro::probe::{Recording, record, replay};
///
/// #[coro::probe(wrap)]
/// fn roll(sides: u64) -> u64 {
///     std::process::id() as u64 % sides
/// }
///
/// let recording = Recording::new();
/// let on = record!(recording, "roll", |sides: u64| -> u64).start().unwrap();
/// let rolled = roll(6);
/// drop(on);
///
/// let again = recording.replay();
/// let on = replay!(again, "roll", |sides: u64| -> u64).start().unwrap();
/// assert_eq!(roll(6), rolled);
/// drop(on);
/// assert!(again.diff().is_empty(), "{}", again.diff());
/// ```
#[derive(Clone)]
pub struct Replay {
    expected: Arc<Mutex<Vec<Recorded>>>,
    actual: Recording,
}

impl Replay {
    /// The calls that came.
    pub fn actual(&self) -> &Recording {
        &self.actual
    }

    /// What was different from the recording, so far.
    pub fn diff(&self) -> Diff {
        let was = self.expected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is = self.actual.lock();
        Diff::of(was, &is)
    }

    /// For the macro: a call comes; what it is answered, if there is something.
    #[doc(hidden)]
    pub fn begins<R: 'static>(&self, function: &str, arguments: &[(&str, Shown<'_>)]) -> (Recorder, Option<R>) {
        let call = text_of(function, arguments);
        let mut recorder = self.actual.begins_as(function, call.clone());
        let outcome = {
            let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
            let first = expected.iter_mut().find(|recorded| !recorded.used && recorded.call == call);
            first.and_then(|recorded| {
                recorded.used = true;
                recorded.outcome.clone()
            })
        };
        match outcome {
            Some(Outcome::Unwound) => panic!("{call} unwound when it was recorded, and does so again"),
            Some(Outcome::Returned(text, Some(copies))) => {
                let result = copies().downcast::<R>().ok().map(|result| *result);
                if result.is_some() {
                    recorder.ends(Outcome::Returned(text, Some(copies)));
                }
                (recorder, result)
            }
            _ => (recorder, None),
        }
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replay, {} calls so far", self.actual.lock().all.len())
    }
}

/// How calls differ from those that were expected; as text, a line or two for each.
#[derive(Clone, PartialEq, Eq)]
pub struct Diff {
    lines: Vec<String>,
}

impl Diff {
    /// Which expected calls came: first those with the same arguments, then in order those of the same function.
    fn of(was: Vec<Recorded>, is: &Calls) -> Diff {
        let mut left: Vec<&Recorded> = is.all.iter().collect();
        let mut take = |like: &dyn Fn(&Recorded) -> bool| {
            let at = left.iter().position(|call| like(call))?;
            Some(left.remove(at))
        };
        let pairs: Vec<Option<&Recorded>> = was.iter().map(|was| take(&|is| is.call == was.call)).collect();
        let pairs =
            was.iter().zip(pairs).map(|(was, is)| (was, is.or_else(|| take(&|is| is.function == was.function))));
        let mut lines = Vec::new();
        for (was, is) in pairs {
            match is {
                None => lines.push(format!("missing     {was}")),
                Some(is) if is.call != was.call || is.end() != was.end() => {
                    lines.push(format!("different   {is}"));
                    lines.push(format!("        was {was}"));
                }
                Some(_) => {}
            }
        }
        lines.extend(left.into_iter().map(|is| format!("unexpected  {is}")));
        if is.lost > 0 {
            lines.push(format!("unknown     {} more calls, which were not kept", is.lost));
        }
        Diff { lines }
    }

    /// Whether there is no difference.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Debug for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

/// Records the calls of a function in a [`Recording`](crate::probe::Recording), with all types, as in [`wrap!`](macro@crate::probe::wrap): they go
/// on to the function, and what they return is kept. Arguments whose names begin with `_` are passed on and not recorded.
///
/// What it makes is a [`Wrap`](crate::probe::Wrap): it can be scoped, be for one value, be asked whether it is enabled. A function that returns
/// a reference cannot be recorded.
#[doc(hidden)]
#[macro_export]
macro_rules! __record {
    ($recording:expr, $pattern:expr, |$($arg:ident: $type:ty),* $(,)?|) => {
        $crate::__record!($recording, $pattern, |$($arg: $type),*| -> ())
    };
    ($recording:expr, $pattern:expr, |$($arg:ident: $type:ty),* $(,)?| -> $result:ty) => {{
        let recording = $crate::probe::Recording::clone(&$recording);
        let function = ::std::string::String::from($pattern);
        $crate::__wrap!(::std::string::String::clone(&function), |original $(, $arg: $type)*| -> $result {
            #[allow(unused_imports, reason = "which of them it is depends on the types")]
            use $crate::probe::{KeepCopy as _, KeepNot as _, ShowDebug as _, ShowOpaque as _, ShowPlain as _};
            let call = recording.begins(
                &function,
                &[$((::core::stringify!($arg), (&&&$crate::probe::Show(&$arg)).shown())),*],
            );
            let result = original($($arg),*);
            call.returned((&&&$crate::probe::Show(&result)).shown(), (&&$crate::probe::Keep(&result)).kept());
            result
        })
    }};
}

/// Answers the calls of a function from a [`Replay`](crate::probe::Replay), with all types, as in [`wrap!`](macro@crate::probe::wrap). What it
/// makes is a [`Wrap`](crate::probe::Wrap).
#[doc(hidden)]
#[macro_export]
macro_rules! __replay {
    ($replay:expr, $pattern:expr, |$($arg:ident: $type:ty),* $(,)?|) => {
        $crate::__replay!($replay, $pattern, |$($arg: $type),*| -> ())
    };
    ($replay:expr, $pattern:expr, |$($arg:ident: $type:ty),* $(,)?| -> $result:ty) => {{
        let replay = $crate::probe::Replay::clone(&$replay);
        let function = ::std::string::String::from($pattern);
        $crate::__wrap!(::std::string::String::clone(&function), |original $(, $arg: $type)*| -> $result {
            #[allow(unused_imports, reason = "which of them it is depends on the types")]
            use $crate::probe::{KeepCopy as _, KeepNot as _, ShowDebug as _, ShowOpaque as _, ShowPlain as _};
            let (call, answer) = replay.begins::<$result>(
                &function,
                &[$((::core::stringify!($arg), (&&&$crate::probe::Show(&$arg)).shown())),*],
            );
            if let ::core::option::Option::Some(answer) = answer {
                return answer;
            }
            let result = original($($arg),*);
            call.returned((&&&$crate::probe::Show(&result)).shown(), (&&$crate::probe::Keep(&result)).kept());
            result
        })
    }};
}
