//! Figures about stacks for the console and for tests.
//!
//! Purpose: what is committed, in use, promised; how guards are made and what they cost.
//! Invariants: each pool's counters have one writer, its worker; readers see a recent value of each, not one instant.
//! Must not know: tasks.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::class::{self, ClassId};
use super::guard::{self, GuardMode};
use super::{credit, region};

/// Stacks in use per class, of one pool.
#[derive(Debug)]
pub(super) struct PoolCounters {
    in_use: [AtomicUsize; class::COUNT],
}

static POOLS: Mutex<Vec<Weak<PoolCounters>>> = Mutex::new(Vec::new());

impl PoolCounters {
    pub(super) fn register() -> Arc<PoolCounters> {
        let new = Arc::new(PoolCounters { in_use: [const { AtomicUsize::new(0) }; class::COUNT] });
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(&new));
        new
    }

    // One writer: a load and a store instead of a locked addition.
    #[inline]
    pub(super) fn taken(&self, class: ClassId) {
        let count = &self.in_use[class.index()];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn given(&self, class: ClassId) {
        let count = &self.in_use[class.index()];
        count.store(count.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }
}

/// Figures of one class.
#[derive(Clone, Debug)]
pub(crate) struct ClassStats {
    /// Slots in slabs that workers hold.
    pub(crate) committed: usize,
    /// Stacks that tasks hold.
    pub(crate) in_use: usize,
    /// Credits granted, those cached by workers included.
    pub(crate) promised: usize,
}

/// Figures of all stacks.
#[derive(Clone, Debug)]
pub(crate) struct StackStats {
    /// Classes with at least one committed slot or credit, smallest first.
    pub(crate) classes: Vec<ClassStats>,
    /// Mappings that guards use: none unless they are made by `mprotect`.
    pub(crate) guard_mappings: usize,
    /// How guards are made.
    pub(crate) guards: GuardMode,
}

/// The figures now.
///
/// # Errors
/// `CORO_STACK_GUARDS` holds no known mode.
pub(crate) fn stats() -> io::Result<StackStats> {
    let pools: Vec<_> = {
        let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        pools.iter().filter_map(Weak::upgrade).collect()
    };
    let classes = ClassId::all().map(|class| ClassStats {
        committed: region::committed(class),
        in_use: pools.iter().map(|pool| pool.in_use[class.index()].load(Ordering::Relaxed)).sum(),
        promised: credit::promised(class),
    });
    Ok(StackStats {
        classes: classes.filter(|one| one.committed > 0 || one.promised > 0).collect(),
        guard_mappings: guard::mappings(),
        guards: GuardMode::current()?,
    })
}
