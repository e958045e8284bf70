//! Figures about all stacks, for programs and views.

#![forbid(unsafe_code)]

use std::io;

use crate::stack;

/// What the stacks of all tasks take; see [`stack_stats`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct StackStats {
    /// How guards are made: `madvise` (no mappings of their own) or `mprotect` (two mappings per stack). See
    /// `CORO_STACK_GUARDS`.
    pub guards: &'static str,
    /// Mappings that guards use now.
    pub guard_mappings: usize,
    /// Stacks that tasks hold.
    pub in_use: usize,
    /// Stacks that exist, those kept for reuse included.
    pub committed: usize,
    /// Tasks that may still be started or run, and what workers keep ready for spawning.
    pub promised: usize,
}

/// Figures of the stacks of every runtime in the process, a recent value of each.
///
/// # Errors
/// If `CORO_STACK_GUARDS` holds a word that is not known.
///
/// # Examples
/// ```
/// let stats = coro::run(|| coro::inspect::stack_stats().unwrap());
/// assert!(stats.committed >= 1 && matches!(stats.guards, "madvise" | "mprotect"));
/// ```
pub fn stack_stats() -> io::Result<StackStats> {
    let all = stack::stats()?;
    let sum = |of: fn(&stack::ClassStats) -> usize| all.classes.iter().map(of).sum();
    Ok(StackStats {
        guards: all.guards.name(),
        guard_mappings: all.guard_mappings,
        in_use: sum(|class| class.in_use),
        committed: sum(|class| class.committed),
        promised: sum(|class| class.promised),
    })
}
