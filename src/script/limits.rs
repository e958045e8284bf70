//! What one expression may use.
//!
//! Values can be nested as deep as they may be long, and the engine goes through them by recursion: to copy, compare, measure and
//! drop them. So sizes are bounded by what the stack of the evaluating thread has room for, else an expression could end the
//! process. Closures that hold closures are freed without recursion; see `cells`.
//!
//! Must not know: the engine.

#![forbid(unsafe_code)]

use std::time::Duration;

/// Bounds of one evaluation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Steps of the engine. 100,000 tasks filtered by two of their fields and mapped take a little over a million.
    pub(super) operations: u64,
    /// How long it may compute, what the program's own functions take not included.
    pub(super) time: Duration,
    /// How long it may sleep in all.
    pub(super) sleep: Duration,
    /// By how many bytes the process may grow meanwhile, what the program's own functions take not included.
    pub(super) memory: u64,
    /// Calls within calls.
    pub(super) calls: usize,
    /// Parentheses within parentheses and the like, outside of functions and in them.
    pub(super) depth: usize,
    pub(super) depth_in_functions: usize,
    /// Bytes of a string, and of all in one value.
    pub(super) text: usize,
    /// Elements of a list, those of lists within included.
    pub(super) list: usize,
    /// Entries of a map, likewise.
    pub(super) map: usize,
    pub(super) variables: usize,
    pub(super) functions: usize,
    /// Bytes that `print` keeps.
    pub(super) printed: usize,
}

/// The stack that an evaluating thread is to have, in bytes. Address space only: what is not used is not there.
pub(super) const STACK: usize = if cfg!(target_pointer_width = "64") { 512 << 20 } else { 32 << 20 };

/// The stack of a task that evaluates: the largest there is.
pub(super) const TASK_STACK: usize = 64 << 20;

/// Below this nothing is evaluated.
pub(super) const LEAST_STACK: usize = 16 << 20;

/// Stack that one level of a nested value takes at most, in bytes, measured without optimisation.
const PER_LEVEL: usize = 3 << 10;

/// And one operation, if all that an expression does is to nest closures.
const PER_OPERATION: usize = 192;

impl Limits {
    /// For a thread with a stack of so many bytes.
    pub(super) fn new(stack: usize) -> Limits {
        // Lists and maps can be nested in turn. A quarter is for the evaluation itself.
        let levels = stack / 4 * 3 / PER_LEVEL;
        Limits {
            operations: 2_000_000.min((stack / 4 * 3 / PER_OPERATION) as u64),
            time: Duration::from_secs(10),
            sleep: Duration::from_secs(60),
            memory: 256 << 20,
            calls: 32,
            depth: 64,
            depth_in_functions: 32,
            text: 4 << 20,
            list: 100_000.min(levels / 5 * 4),
            map: 20_000.min(levels / 5),
            variables: 64,
            functions: 64,
            printed: 64 << 10,
        }
    }

    /// With less time, if that is asked for.
    pub(super) fn within(self, limit: Option<Duration>) -> Limits {
        let Some(limit) = limit else { return self };
        Limits { time: self.time.min(limit), sleep: self.sleep.min(limit), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_stack_gives_smaller_limits_and_the_full_one_all() {
        let (full, least) = (Limits::new(512 << 20), Limits::new(LEAST_STACK));
        assert_eq!((full.operations, full.list, full.map), (2_000_000, 100_000, 20_000));
        assert!(least.operations >= 50_000 && least.list >= 3_000 && least.map >= 800, "{least:?}");
        for stack in [LEAST_STACK, 64 << 20, 512 << 20] {
            let limits = Limits::new(stack);
            assert!((limits.list + limits.map) * PER_LEVEL <= stack / 4 * 3, "{limits:?}");
            assert!(limits.operations as usize * PER_OPERATION <= stack, "{limits:?}");
        }
    }
}
