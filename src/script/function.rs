//! The functions and values that the program registers for expressions.
//!
//! Invariants: a name is registered once, the last registration counts, and what the program exports comes before any;
//! nothing of the program is called with the registry's lock held.
//!
//! Must not know: the engine that calls them.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "script"),
    allow(dead_code, reason = "without the engine functions are listed and not called")
)]

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::name::{hidden, refused};
use crate::commands::Tier;
use crate::value::{FromValue, IntoValue, Value};

/// What the program can register as a function: closures and `fn`s with up to six arguments that are [`FromValue`] and a
/// result that is [`IntoValue`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called by expressions",
    label = "is not `coro::console::Callable`",
    note = "called are functions and closures with up to six arguments that are `FromValue`, and a result that is `IntoValue`"
)]
pub trait Callable<Arguments>: Send + Sync + 'static {
    /// What the arguments are to be, in one word each.
    fn expected() -> Vec<&'static str>;

    /// Calls it.
    ///
    /// # Errors
    /// Text for whoever evaluated the expression: an argument is not what it has to be, or the function's own error.
    fn call(&self, arguments: Vec<Value>) -> Result<Value, String>;
}

macro_rules! callable {
    ($($name:ident),*) => {
        impl<F, R, $($name),*> Callable<($($name,)*)> for F
        where
            F: Fn($($name),*) -> R + Send + Sync + 'static,
            R: IntoValue,
            $($name: FromValue),*
        {
            fn expected() -> Vec<&'static str> {
                vec![$($name::EXPECTED),*]
            }

            #[allow(unused_mut, unused_variables, non_snake_case, reason = "without arguments there is nothing to take")]
            fn call(&self, arguments: Vec<Value>) -> Result<Value, String> {
                let mut arguments = arguments.into_iter().enumerate();
                $(let $name = argument::<$name>(arguments.next())?;)*
                self($($name),*).into_value()
            }
        }
    };
}

callable!();
callable!(A);
callable!(A, B);
callable!(A, B, C);
callable!(A, B, C, D);
callable!(A, B, C, D, E);
callable!(A, B, C, D, E, G);

fn argument<T: FromValue>(given: Option<(usize, Value)>) -> Result<T, String> {
    let (place, value) = given.ok_or_else(|| "too few arguments".to_owned())?;
    let kind = value.kind();
    T::from_value(value).ok_or_else(|| format!("argument {} has to be {}, and is {kind}", place + 1, T::EXPECTED))
}

/// Where a function runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the thread that evaluates the expression.
    Here,
    /// In a task, on that worker or on any.
    Worker(Option<usize>),
}

/// A function of the program, for expressions of the console.
///
/// [`register`] takes the short way.
///
/// # Examples
/// ```
/// use coro::console::{Function, Tier};
///
/// Function::new("square", |n: i64| n * n).parameters(&["n"]).doc("n times n").tier(Tier::Read).register();
/// ```
#[must_use = "a function is known to the console once it is registered"]
pub struct Function {
    pub(super) name: String,
    pub(super) doc: String,
    /// What each argument is to be, and its name if it has one.
    pub(super) parameters: Vec<(String, &'static str)>,
    pub(super) tier: Tier,
    pub(super) place: Place,
    /// Written without parentheses.
    pub(super) value: bool,
    pub(super) call: Arc<dyn Fn(Vec<Value>) -> Result<Value, String> + Send + Sync>,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Function { doc, tier, place, .. } = self;
        write!(f, "Function({}, {tier}, {place:?}, {doc:?})", self.usage())
    }
}

impl Function {
    /// A function called `name`, which a session may call once it has the tier *act*. It is not registered yet.
    ///
    /// With dots in its name it is called so: `app.players.count()`.
    ///
    /// # Panics
    /// If `name` is no identifier, nor several with dots between them, or is taken by the console itself: by a function
    /// (`tasks`), a command (`cancel`) or a word of the language (`let`).
    #[track_caller]
    pub fn new<A, F: Callable<A>>(name: impl Into<String>, function: F) -> Function {
        let name = name.into();
        if let Some(why) = refused(&name) {
            panic!("coro::console: a function cannot be called {name:?}: {why}");
        }
        Function {
            name,
            doc: String::new(),
            parameters: F::expected().into_iter().map(|expected| (String::new(), expected)).collect(),
            tier: Tier::Act,
            place: Place::Here,
            value: false,
            call: Arc::new(move |arguments| function.call(arguments)),
        }
    }

    /// What it does, for `functions`: one line.
    pub fn doc(mut self, doc: impl Into<String>) -> Function {
        self.doc = doc.into();
        self
    }

    /// How its arguments are called, in order, for `functions`.
    pub fn parameters(mut self, names: &[&str]) -> Function {
        for (parameter, name) in self.parameters.iter_mut().zip(names) {
            parameter.0 = (*name).to_owned();
        }
        self
    }

    /// What a session must be allowed to call it: [`Tier::Read`] for what only looks. Calls of the others are recorded
    /// before they are made.
    pub fn tier(mut self, tier: Tier) -> Function {
        self.tier = tier;
        self
    }

    /// Runs it in a task, as [`register_on_worker`] does.
    pub fn on_worker(mut self) -> Function {
        self.place = Place::Worker(None);
        self
    }

    /// The same, on the worker with that index (0 is the first) and on no other, for what lies in its thread-locals.
    pub fn worker(mut self, index: usize) -> Function {
        self.place = Place::Worker(Some(index));
        self
    }

    /// Makes it known to the console, in place of one of that name.
    ///
    /// # Panics
    /// If the language of expressions has a function of that name with as many arguments: `clear(text)` would be found first.
    #[track_caller]
    pub fn register(self) {
        if let Some(why) = self.hidden() {
            panic!("coro::console: no function can be registered as {:?}: {why}", self.name);
        }
        let name = self.name.clone();
        let old = registry_mut().insert(name, Arc::new(self));
        VERSION.fetch_add(1, Ordering::Release);
        // What the old one holds is the program's, and must not be dropped under the lock.
        drop(old);
    }

    /// Why no expression could call it.
    pub(super) fn hidden(&self) -> Option<&'static str> {
        if self.value { None } else { hidden(&self.name, self.parameters.len()) }
    }

    /// `set_limit(clients: int)`.
    pub(super) fn usage(&self) -> String {
        if self.value {
            return self.name.clone();
        }
        let parameters = self.parameters.iter().map(|(name, expected)| match name.as_str() {
            "" => (*expected).to_owned(),
            name => format!("{name}: {expected}"),
        });
        format!("{}({})", self.name, parameters.collect::<Vec<_>>().join(", "))
    }
}

/// By their names.
pub(super) type Registry = BTreeMap<String, Arc<Function>>;

static VERSION: AtomicU64 = AtomicU64::new(0);

/// Changes each time that a function has come or gone.
pub(super) fn version() -> u64 {
    VERSION.load(Ordering::Acquire)
}

/// Begins with what the program exports.
static FUNCTIONS: LazyLock<RwLock<Registry>> = LazyLock::new(|| RwLock::new(super::exported()));

fn registry() -> RwLockReadGuard<'static, Registry> {
    FUNCTIONS.read().unwrap_or_else(PoisonError::into_inner)
}

fn registry_mut() -> RwLockWriteGuard<'static, Registry> {
    FUNCTIONS.write().unwrap_or_else(PoisonError::into_inner)
}

/// In the order of their names.
pub(super) fn all() -> Vec<Arc<Function>> {
    registry().values().cloned().collect()
}

pub(super) fn named(name: &str) -> Option<Arc<Function>> {
    registry().get(name).cloned()
}

/// Those whose names go on behind `path` and a dot, in the order of their names.
pub(super) fn below(path: &str) -> Vec<Arc<Function>> {
    begun_with(&registry(), path).map(|(_, function)| function.clone()).collect()
}

/// Whether there are any.
pub(super) fn has_below(path: &str) -> bool {
    begun_with(&registry(), path).next().is_some()
}

/// A dot comes before everything else in a name, so they stand right behind `path`.
fn begun_with<'a>(registry: &'a Registry, path: &str) -> impl Iterator<Item = (&'a String, &'a Arc<Function>)> {
    let range = registry.range::<str, _>((Bound::Excluded(path), Bound::Unbounded));
    range.take_while(move |(name, _)| name.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Makes a function of the program known to the console, any time and from any thread, in place of one of that name.
///
/// It runs on a thread of its own, may wait, and may panic. A session calls it once it has the tier *act*;
/// [`Function::tier`] lowers that for what only looks. `functions` lists it.
///
/// # Examples
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// static LIMIT: AtomicUsize = AtomicUsize::new(100);
///
/// coro::console::register("set_limit", "how many clients there may be", |n: usize| LIMIT.swap(n, Ordering::Relaxed));
/// ```
///
/// A `name` may have dots: `register("app.players.count", …)` is called as `app.players.count()`, and `app.players` lists what
/// is below it, or is the value that was registered as that.
///
/// # Panics
/// If `name` is no identifier, nor several with dots between them, or is taken by the console itself: by a function
/// (`tasks`), a command (`cancel`), a word of the language (`let`) or a function of it with as many arguments (`clear(text)`).
#[track_caller]
pub fn register<A, F: Callable<A>>(name: impl Into<String>, doc: impl Into<String>, function: F) {
    Function::new(name, function).doc(doc).register();
}

/// As [`register`], for what needs a worker's own state or has to be called from a task: it runs in a new task.
///
/// If no worker begins it within a second, the expression ends with `workers busy: not run`, and it will not be run.
/// Ctrl-C cancels the task.
///
/// # Panics
/// As [`register`].
#[track_caller]
pub fn register_on_worker<A, F: Callable<A>>(name: impl Into<String>, doc: impl Into<String>, function: F) {
    Function::new(name, function).doc(doc).on_worker().register();
}

/// Makes a value of the program known to the console: `value` is called, on a thread of its own, whenever an expression names it. It needs the tier
/// *read* only, so it must not change anything.
///
/// # Examples
/// ```
/// use coro::console::{self, Value};
/// console::register_value("config", "what the program was started with", || {
///     Value::map([("port", Value::of(9000)), ("cache", Value::of("/var/cache/app"))])
/// });
/// ```
///
/// # Panics
/// As [`register`].
#[track_caller]
pub fn register_value<F, R>(name: impl Into<String>, doc: impl Into<String>, value: F)
where
    F: Fn() -> R + Send + Sync + 'static,
    R: IntoValue + 'static,
{
    let function = Function::new(name, value).doc(doc).tier(Tier::Read);
    Function { value: true, ..function }.register();
}

/// Takes a function or value away from the console; says whether it was there. Calls that have begun go on.
pub fn unregister(name: &str) -> bool {
    let old = registry_mut().remove(name);
    VERSION.fetch_add(1, Ordering::Release);
    old.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked_before_the_call() {
        let f = Function::new("pair", |a: i64, b: String| format!("{a}{b}")).parameters(&["n", "unit"]);
        assert_eq!(f.usage(), "pair(n: int, unit: text)");
        assert_eq!((f.call)(vec![Value::Int(3), Value::of("s")]), Ok(Value::of("3s")));
        assert_eq!((f.call)(vec![Value::Int(3)]).unwrap_err(), "too few arguments");
        let wrong = (f.call)(vec![Value::Int(3), Value::Int(4)]).unwrap_err();
        assert_eq!(wrong, "argument 2 has to be text, and is int");
        assert_eq!(f.tier, Tier::Act);
    }

    #[test]
    fn the_last_registration_counts_until_it_is_taken_away() {
        register("function_test", "one", || 1);
        register("function_test", "two", || 2);
        let f = named("function_test").expect("registered");
        assert_eq!(((f.call)(Vec::new()), f.doc.as_str()), (Ok(Value::Int(2)), "two"));
        assert!(all().iter().any(|f| f.name == "function_test"));
        assert!(unregister("function_test") && !unregister("function_test"));
    }

    #[test]
    fn names_with_dots_are_found_by_what_they_begin_with() {
        let names = ["dotted.a.b", "dotted.a", "dotted.a.c.d", "dotted_x", "dotted", "dotted.ab"];
        names.iter().for_each(|name| register(*name, "", || ()));
        let found = |path: &str| below(path).iter().map(|f| f.name.clone()).collect::<Vec<_>>();
        assert_eq!(found("dotted.a"), ["dotted.a.b", "dotted.a.c.d"]);
        assert_eq!(found("dotted"), ["dotted.a", "dotted.a.b", "dotted.a.c.d", "dotted.ab"]);
        assert!(has_below("dotted.a.c") && !has_below("dotted.a.b") && !has_below("dott") && !has_below(""));
        assert!(names.iter().all(|name| unregister(name)));
    }
}
