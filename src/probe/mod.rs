//! Probes: what a running program logs, counts, measures and shows, changed without a restart.
//!
//! A *point* is a place that can be watched: a function with `#[coro::probe]`, a [`mark!`] within one, or one that was registered
//! while the program runs ([`Point::register`]). While nobody watches, passing one is one relaxed load and a branch. A *probe* is attached to every
//! point that its pattern names, and has *instruments* that are told of what happens there:
//!
//! ```
//! use std::time::Duration;
//!
//! #[coro::probe]
//! fn lookup(key: &str) -> Option<usize> {
//!     coro::probe::mark!("found", length = key.len());
//!     Some(key.len())
//! }
//!
//! let probe = coro::probe::attach_to("lookup").keep_lines().log().histogram().lifespan(Duration::from_secs(10)).start().unwrap();
//! lookup("a");
//! assert_eq!(probe.hits(), (1, 0));
//! let line = &probe.lines()[0];
//! assert!(line.contains("lookup(key=\"a\") => Some(1) in "), "{line}");
//! ```
//!
//! # What is kept
//! * **The program is left alone**: an instrument that panics or waits ends its probe, with the reason, and the call goes on. So does one
//!   that has lasted for more than a second or takes more than its share of a CPU, as soon as it returns: one that never does holds the
//!   call up for ever. The same holds for conditions and for what shows an argument. A point that an instrument passes is passed in silence.
//! * **The end is the end**: after its lifespan, its hits, or its session, nothing of a probe begins any more; what has begun on another thread
//!   may still come to its end. A call that began before a probe was attached is not told to it.
//! * **Stacks**: an instrument runs on the stack of the task that passes. Where too little of that is left (16 KiB, 40 for a condition;
//!   without optimisation 32 and 112) it runs on one of 192 KiB that belongs to the worker, and is left out, and counted, only if there
//!   is no room for that. With the address sanitizer, whose frames are larger, these are 48, 320 and 512.
//! * **System calls**: on Linux `membarrier(2)`, when what is attached changes. Where that is refused with an error, passing a point costs a memory
//!   barrier; a filter (seccomp) that kills the process for it cannot be noticed before, and has to let it pass.
//! * **Order**: at the beginning of a call probes are told in the order in which they were attached, at its end the other way round. They may
//!   go in any order.
//! * **A log never waits**: what finds no room is counted.
//!
//! # Wrappers
//! The calls of a function with `#[coro::probe(wrap)]` can go through something else, with the original at hand: [`wrap!`]. For everybody,
//! for one tree of tasks ([`Wrap::scoped`]), or for one value ([`Wrap::only_for`], [`Proxy`]). Calls can be kept
//! ([`record!`]), compared, and answered as they were ([`replay!`]). `docs/doubles.md` shows it.
//!
//! Must not know: sessions, commands; expressions, which come from above.

use std::any::type_name;
use std::fmt;
use std::rc::Rc;

mod answer;
mod attach;
mod breakpoint;
mod call;
mod comers;
mod environment;
mod event;
mod expose;
mod hot;
mod instrument;
mod light;
mod parting;
mod patch;
mod pattern;
mod proxy;
mod recording;
mod registry;
mod running;
#[cfg_attr(not(feature = "backdoor"), allow(dead_code, reason = "sessions have them"))]
mod session;
mod sink;
#[cfg(feature = "specs")]
pub mod specs;
mod stop;
mod table;
mod tally;
mod text;
mod trace;
#[cfg_attr(not(feature = "backdoor"), allow(dead_code, reason = "the console shows it"))]
pub(crate) mod view;
mod watchers;
mod wrap;
mod wrapping;

#[doc(hidden)]
pub use answer::{ByText, CannotFail, FailsAsIo, FailsAsText, Made, NotByText};
pub use attach::{Attach, Attached, ProbeError, attach_to};
#[cfg(feature = "script")]
pub(crate) use attach::{CORO_CONDITIONS_0_1, Compile};
pub use breakpoint::{BreakAt, Breakpoint, Hit, break_at};
#[doc(hidden)]
pub use call::{Call, aside, passed, run_once};
pub(crate) use environment::as_the_environment_says;
pub use event::{Event, Events};
#[doc(hidden)]
pub use expose::{Fails, NeverFails, Show, ShowDebug, ShowOpaque, ShowPlain};
pub use instrument::{Instrument, register_instrument};
#[doc(hidden)]
pub use patch::{CORO_PATCHES_0_1, IntoAttached, Patch};
pub use patch::{apply_patch, patches};
pub use proxy::Proxy;
pub use recording::{Diff, Recording, Replay};
#[doc(hidden)]
pub use recording::{Keep, KeepCopy, KeepNot, Kept, Recorder};
#[cfg(feature = "script")]
pub(crate) use running::Filter;
#[cfg_attr(not(feature = "backdoor"), allow(unused_imports, reason = "sessions have them"))]
pub(crate) use session::SessionProbes;
#[doc(hidden)]
pub use stop::Answer;
#[doc(hidden)]
pub use table::CORO_POINTS_0_1;
pub(crate) use trace::of_word;
pub use trace::{Trace, channels, locks, net, timers};
#[doc(hidden)]
pub use wrap::wrapper;
pub use wrap::{Wrap, Wrapped};
#[doc(hidden)]
pub use wrapping::Layer;

pub use crate::__mark as mark;
pub use crate::__patch as patch;
pub use crate::__record as record;
pub use crate::__replay as replay;
pub use crate::__wrap as wrap;
#[doc(hidden)]
pub use crate::observe::PointName;
pub use crate::observe::{Point, PointKind, Shown};

/// Every point that there is, by name.
pub fn points() -> Vec<&'static Point> {
    registry::points()
}

impl Point {
    /// Makes a point while the program runs, as a plugin or a handler of a routing table needs it. It stays for as long as the
    /// process, and so does its memory: make one for each place, not for each call.
    ///
    /// # Examples
    /// ```
    /// use coro::probe::{Point, Shown, attach_to};
    ///
    /// // Whoever waits for a name gets it.
    /// let probe = attach_to("plugin::spell_check").later().count().start().unwrap();
    /// let point = Point::register("plugin::spell_check", &["words"]);
    /// let wrong = point.call(&[Shown::Int(3)], || 1);
    /// assert_eq!((wrong, probe.hits().0), (1, 1));
    /// ```
    #[track_caller]
    pub fn register(name: &str, arguments: &[&str]) -> &'static Point {
        let site = std::panic::Location::caller();
        let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
        let arguments: Vec<&'static str> = arguments.iter().map(|name| leak(name)).collect();
        let name = PointName::Fixed(leak(name));
        let (kind, line) = (PointKind::Function, site.line());
        let point = Point::new(name, kind, site.file(), line, line, Box::leak(arguments.into())).wrappable();
        let point = Box::leak(Box::new(point));
        registry::register(point);
        point
    }

    /// Runs `body` as a call of the point with this argument, which may be a tuple, and can be [wrapped](wrap!) as a function of it.
    ///
    /// # Examples
    /// ```
    /// use coro::probe::{Point, wrap};
    ///
    /// let deaf = wrap!("plugin::shout", |_shout, _text: String| -> usize { 0 }).later().start().unwrap();
    /// let point = Point::register("plugin::shout", &["text"]);
    /// assert_eq!(point.call_with("hello".to_owned(), |text| text.len()), 0);
    /// drop(deaf);
    /// assert_eq!(point.call_with("hello".to_owned(), |text| text.len()), 5);
    /// ```
    pub fn call_with<A: fmt::Debug + 'static, R: fmt::Debug + 'static>(
        &'static self,
        argument: A,
        body: impl Fn(A) -> R + 'static,
    ) -> R {
        type Original<A, R> = dyn Fn(A) -> R;
        if !self.is_watched() {
            return body(argument);
        }
        let mut call = Call::begin(self, &[Shown::Debug(&argument)]);
        let refuse = |answer: Answer| answer.refused("this point cannot be given one");
        call.answer().into_iter().for_each(refuse);
        let signature = type_name::<fn(A) -> R>();
        let wrappers = call.wrappers::<dyn Fn(Rc<Original<A, R>>, A) -> R + Send + Sync>(signature, 0);
        let mut layer: Rc<Original<A, R>> = Rc::new(body);
        for wrapper in wrappers.into_iter().flatten() {
            let inner = layer;
            layer = Rc::new(move |argument| wrapper.call()(inner.clone(), argument));
        }
        let result = layer(argument);
        if call.is_on() {
            call.returned(Shown::Debug(&result), false).into_iter().for_each(refuse);
        }
        result
    }

    /// Runs `body` as a call of the point with these arguments; its result is not shown.
    pub fn call<R>(&'static self, arguments: &[Shown<'_>], body: impl FnOnce() -> R) -> R {
        let mut call = if self.is_watched() { Call::begin(self, arguments) } else { Call::off() };
        let refuse = |answer: Answer| answer.refused("this point cannot be given one");
        call.answer().into_iter().for_each(refuse);
        // What its arguments are is not known, so that this finds none, and says so.
        drop(call.wrappers::<dyn Fn(&Point) + Send + Sync>("called by Point::call, without types", 0));
        let result = body();
        if call.is_on() {
            let shown = Shown::Opaque(std::any::type_name::<R>());
            call.returned(shown, false).into_iter().for_each(refuse);
        }
        result
    }
}

/// A place within a function that can be watched, with values: `mark!("parsed", rows = n)`. Passed by nobody who watches it is one load and
/// a branch, and the values are not evaluated.
///
/// It is a point of its own, `module::parsed`, and belongs to the function with `#[coro::probe]` in whose lines it stands: a
/// probe there is told of it ([`Events::MARK`]), with the time since the mark before, which is what `hot` adds up.
///
/// # Examples
/// ```
/// #[coro::probe]
/// fn import(text: &str) -> usize {
///     let rows: Vec<&str> = text.lines().collect();
///     coro::probe::mark!("parsed", rows = rows.len());
///     let sum = rows.iter().map(|row| row.len()).sum();
///     coro::probe::mark!("added");
///     sum
/// }
///
/// let probe = coro::probe::attach_to("import").hot_spots().start().unwrap();
/// assert_eq!(import("a\nbc"), 3);
/// let text = probe.text();
/// assert!(text.contains("parsed") && text.contains("added") && text.contains("-> end"), "{text}");
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __mark {
    ($name:literal $(, $key:ident = $value:expr)* $(,)?) => {{
        static POINT: $crate::probe::Point = $crate::probe::Point::new(
            $crate::probe::PointName::Module(::core::module_path!(), $name),
            $crate::probe::PointKind::Mark,
            ::core::file!(),
            ::core::line!(),
            ::core::line!(),
            &[$(::core::stringify!($key)),*],
        );
        #[$crate::__private::linkme::distributed_slice($crate::probe::CORO_POINTS_0_1)]
        #[linkme(crate = $crate::__private::linkme)]
        static ENTRY: &'static $crate::probe::Point = &POINT;
        if POINT.is_watched() {
            #[allow(unused_imports, reason = "which of them it is depends on the values")]
            use $crate::probe::{ShowDebug as _, ShowOpaque as _, ShowPlain as _};
            $crate::probe::passed(&POINT, &[$((&&&$crate::probe::Show(&$value)).shown()),*]);
        }
    }};
}

/// A place where a task stops while somebody asks it to: a mark called `breakpoint` in its module. Nobody asks unless a session
/// attaches there (`probe attach app::handler::breakpoint break`) or the program does ([`probe::break_at`](crate::probe::break_at)); until then it is one load
/// and a branch. Values may be given as to [`probe::mark!`](crate::probe::mark).
///
/// ```
/// fn transfer(cents: u64) -> u64 {
///     coro::breakpoint!(cents = cents);
///     cents
/// }
/// assert_eq!(transfer(3), 3);
/// ```
#[macro_export]
macro_rules! breakpoint {
    ($($key:ident = $value:expr),* $(,)?) => {
        $crate::__mark!("breakpoint" $(, $key = $value)*)
    };
}
