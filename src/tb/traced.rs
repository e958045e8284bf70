//! Errors with the stack of the place where they arose.
//!
//! Invariants: no call is shown twice. The stacks of two places of one task agree from the base up to the function in which
//! both lie; where a stack of an error was caught is therefore a mark on its own stack, not another stack.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::panic::Location;

use super::Captured;
use crate::inspect;

/// Where an error was caught.
#[derive(Debug, Clone)]
enum Catch {
    /// Further out on the stack on which it arose: in the function of this address.
    Outward(usize, &'static Location<'static>),
    /// In another task, or on a stack that has nothing in common with it.
    Elsewhere(Captured, &'static Location<'static>),
}

struct Inner {
    error: Box<dyn Error + Send + Sync>,
    raised: &'static Location<'static>,
    stack: Captured,
    caught: Vec<Catch>,
}

/// An error and its whole stack; made by [`Traced::traced`].
///
/// `{}` and `source()` are those of the error itself, so it can stand in for it anywhere. `{:?}`, which is also what is
/// printed for an error that `main` returns, has the stack: from where it arose through where it was caught to the task's
/// base and who spawned the task.
pub struct TracedError(Box<Inner>);

/// Catches that are noted; an error that is passed on in a loop must not grow.
const MOST_CATCHES: usize = 16;

impl TracedError {
    /// The error itself.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0.error
    }

    /// The error itself, without its stack.
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.0.error
    }

    /// Where `traced` was first called.
    pub fn raised_at(&self) -> &'static Location<'static> {
        self.0.raised
    }

    /// Where `traced` was called further on, in that order.
    pub fn caught_at(&self) -> impl Iterator<Item = &'static Location<'static>> {
        self.0.caught.iter().map(|c| match c {
            Catch::Outward(_, at) | Catch::Elsewhere(_, at) => *at,
        })
    }

    /// The stack of the place where `traced` was first called.
    pub fn stack(&self) -> &Captured {
        &self.0.stack
    }

    fn catch(&mut self, here: Captured, at: &'static Location<'static>) {
        if self.0.caught.len() == MOST_CATCHES {
            return;
        }
        let raised = &self.0.stack.addresses;
        let common = raised.iter().rev().zip(here.addresses.iter().rev()).take_while(|(a, b)| a == b).count();
        // Both stacks go on in one function, the one that catches; `here` ends with it.
        let function = raised.len().checked_sub(common + 1).map(|i| raised[i]);
        // Stacks of a task that are whole go on in its outermost function at least.
        let whole = here.task() != 0 && here.whole && self.0.stack.whole;
        let same = here.task() == self.0.stack.task() && (common > 0 || whole);
        self.0.caught.push(match function {
            Some(address) if same => Catch::Outward(address, at),
            _ => Catch::Elsewhere(here, at),
        });
    }
}

impl fmt::Display for TracedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.error, f)
    }
}

impl Error for TracedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.error.source()
    }
}

impl fmt::Debug for TracedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.0.error)?;
        let mut source = self.0.error.source();
        while let Some(e) = source {
            writeln!(f, "  because {e}")?;
            source = e.source();
        }
        write_where(f, "raised", &self.0.stack, self.0.raised)?;
        let mark = |address| {
            let at: Vec<String> = self
                .0
                .caught
                .iter()
                .filter_map(|c| match c {
                    Catch::Outward(a, at) if *a == address => Some(format!("{}:{}", at.file(), at.line())),
                    _ => None,
                })
                .collect();
            (!at.is_empty()).then(|| format!("<- caught at {}", at.join(", ")))
        };
        self.0.stack.write_long(f, false, &mark)?;
        for c in &self.0.caught {
            if let Catch::Elsewhere(stack, at) = c {
                write_where(f, "caught", stack, at)?;
                stack.write_long(f, false, &|_| None)?;
            }
        }
        Ok(())
    }
}

fn write_where(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    stack: &Captured,
    at: &'static Location<'static>,
) -> fmt::Result {
    write!(f, "  {what} at {}:{}", at.file(), at.line())?;
    match (stack.task(), stack.task_name()) {
        (0, _) => writeln!(f, " on a plain thread"),
        (id, None) => writeln!(f, " in task #{id}"),
        (id, Some(name)) => writeln!(f, " in task #{id} \"{}\"", inspect::OneLine(name)),
    }
}

/// Gives errors the stack of the place where they arose; see [`Traced::traced`].
pub trait Traced<T> {
    /// Keeps the stack of the caller with the error; where the error has one already, notes that it was caught here. It
    /// costs a walk of the stack, some microseconds, and only if there is an error.
    ///
    /// # Examples
    /// ```
    /// use coro::tb::{Traced, TracedError};
    ///
    /// fn fetch() -> Result<u32, TracedError> {
    ///     "seven".parse::<u32>().traced()
    /// }
    ///
    /// fn serve() -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    ///     Ok(fetch().traced()? + 1)
    /// }
    ///
    /// let error = coro::run(serve).unwrap_err();
    /// assert_eq!(error.to_string(), "invalid digit found in string");
    /// eprintln!("{error:?}"); // with the stack: fetch, serve, and who spawned the task
    /// ```
    ///
    /// # Errors
    /// The error of `self`.
    fn traced(self) -> Result<T, TracedError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Traced<T> for Result<T, E> {
    #[inline(always)]
    #[track_caller]
    fn traced(self) -> Result<T, TracedError> {
        match self {
            Ok(value) => Ok(value),
            Err(e) => Err(trace(e.into())),
        }
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn trace(error: Box<dyn Error + Send + Sync>) -> TracedError {
    let at = Location::caller();
    let stack = Captured::until(trace as *const ());
    match error.downcast::<TracedError>() {
        Ok(mut traced) => {
            traced.catch(stack, at);
            *traced
        }
        Err(error) => TracedError(Box::new(Inner { error, raised: at, stack, caught: Vec::new() })),
    }
}
