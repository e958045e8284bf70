//! The functions and values that the program registers for expressions.
//!
//! Invariants: a name is registered once, the last registration counts; nothing of the program is called with the
//! registry's lock held.
//!
//! Must not know: the engine that calls them.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(feature = "script"),
    allow(dead_code, reason = "without the engine functions are listed and not called")
)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::LAST;
use super::value::{FromValue, IntoValue, Value};
use crate::commands::Tier;

/// What the program can register as a function: closures and `fn`s with up to six arguments that are [`FromValue`] and a
/// result that is [`IntoValue`].
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
    /// # Panics
    /// If `name` is no identifier, or is taken by the console itself (`tasks`, `let`…).
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
    pub fn register(self) {
        let name = self.name.clone();
        let old = FUNCTIONS.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(self));
        // What the old one holds is the program's, and must not be dropped under the lock.
        drop(old);
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

static FUNCTIONS: RwLock<BTreeMap<String, Arc<Function>>> = RwLock::new(BTreeMap::new());

/// In the order of their names.
pub(super) fn all() -> Vec<Arc<Function>> {
    FUNCTIONS.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

pub(super) fn named(name: &str) -> Option<Arc<Function>> {
    FUNCTIONS.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}

/// Words of the language.
pub(super) const KEYWORDS: &[&str] = &[
    "as", "break", "catch", "const", "continue", "do", "else", "export", "false", "fn", "for", "global", "if",
    "import", "in", "is", "let", "loop", "private", "return", "switch", "this", "throw", "true", "try", "until",
    "while",
];

/// Functions of the language that are no ordinary ones, and those that the language reserves.
const RESERVED: &[&str] = &[
    "Fn",
    "async",
    "await",
    "call",
    "case",
    "curry",
    "debug",
    "default",
    "eval",
    "exit",
    "go",
    "goto",
    "is_def_fn",
    "is_def_var",
    "is_shared",
    "match",
    "module",
    "new",
    "nil",
    "null",
    "package",
    "print",
    "protected",
    "public",
    "shared",
    "sleep",
    "spawn",
    "static",
    "super",
    "sync",
    "then",
    "thread",
    "type_of",
    "use",
    "var",
    "void",
    "with",
    "yield",
];

/// Why nothing of the program can have that name.
fn refused(name: &str) -> Option<&'static str> {
    let identifier = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !name.chars().all(|c| c == '_');
    if !identifier {
        return Some("it has to be an identifier of ASCII letters, digits and underscores");
    }
    if KEYWORDS.contains(&name) || RESERVED.contains(&name) {
        return Some("the language of expressions uses that word");
    }
    (name == LAST || super::OWN_NAMES.contains(&name)).then_some("the console has a function of that name")
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
/// # Panics
/// If `name` is no identifier, or is taken by the console itself (`tasks`, `let`…).
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
    let old = FUNCTIONS.write().unwrap_or_else(PoisonError::into_inner).remove(name);
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
    fn a_name_is_refused_with_its_reason() {
        for (name, why) in [
            ("", "identifier"),
            ("a b", "identifier"),
            ("1a", "identifier"),
            ("_", "identifier"),
            ("größe", "identifier"),
            ("a\x1b[2J", "identifier"),
            ("let", "language"),
            ("eval", "language"),
            ("tasks", "console"),
            ("last", "console"),
        ] {
            assert!(refused(name).is_some_and(|r| r.contains(why)), "{name:?}: {:?}", refused(name));
        }
        assert_eq!((refused("cache_size"), refused("_x1")), (None, None));
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
}
