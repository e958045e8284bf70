//! `in_parallel`: several closures at once, all results or every failure with its index.

#![forbid(unsafe_code)]

use std::any::Any;
use std::error::Error;
use std::fmt;

use super::{ScopedJoinHandle, scope};

/// At least one of the closures given to [`in_parallel`] panicked or was cancelled.
pub struct InParallelError<T> {
    results: Vec<Result<T, Box<dyn Any + Send>>>,
}

impl<T> InParallelError<T> {
    /// Every result, in the order of the closures.
    pub fn into_results(self) -> Vec<Result<T, Box<dyn Any + Send>>> {
        self.results
    }

    /// Indices of the closures that failed.
    pub fn failed(&self) -> impl Iterator<Item = usize> + '_ {
        self.results.iter().enumerate().filter(|(_, r)| r.is_err()).map(|(i, _)| i)
    }
}

impl<T> fmt::Debug for InParallelError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InParallelError").field("failed", &self.failed().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for InParallelError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: Vec<_> = self.failed().collect();
        write!(f, "{} of {} parallel tasks failed: {failed:?}", failed.len(), self.results.len())
    }
}

impl<T> Error for InParallelError<T> {}

/// Runs all closures at the same time, each as a task, and waits for all of them.
///
/// # Errors
/// If any failed; every result is inside, in order.
///
/// # Examples
/// ```
/// let squares = coro::run(|| coro::in_parallel((1..4).map(|i| move || i * i)).unwrap());
/// assert_eq!(squares, [1, 4, 9]);
/// ```
///
/// # Cancellation
/// As [`scope`](crate::scope): forwarded to all, and all are waited for.
pub fn in_parallel<F, T>(work: impl IntoIterator<Item = F>) -> Result<Vec<T>, InParallelError<T>>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    let results: Vec<_> = scope(|s| {
        let handles: Vec<_> = work.into_iter().map(|f| s.spawn(f)).collect();
        handles.into_iter().map(ScopedJoinHandle::join).collect()
    });
    if results.iter().all(Result::is_ok) {
        Ok(results.into_iter().flatten().collect())
    } else {
        Err(InParallelError { results })
    }
}
