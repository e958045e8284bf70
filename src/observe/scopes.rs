//! Scopes that tasks are in, and the tasks that they spawn: what holds for one tree of tasks and for nobody else.
//!
//! Invariants: a set is never changed, another takes its place; a task that is spawned begins with the set of whoever spawns it.
//! Scopes end in any order, and one that is over means nothing, in whatever sets it still is.
//!
//! Must not know: tasks, what holds in a scope.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One scope. It is the same as another only if it is that.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    over: AtomicBool,
}

impl Scope {
    /// From now on it means nothing.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Those that somebody is in, as they are handed on.
pub(crate) type ScopeSet = Arc<[Arc<Scope>]>;

/// Those that one task or plain thread is in. Nobody else takes the lock.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    set: Mutex<Option<ScopeSet>>,
    /// Whether there is a set, for the many that have none: every spawn asks.
    any: AtomicBool,
}

impl Scopes {
    pub(crate) const fn new() -> Scopes {
        Scopes { set: Mutex::new(None), any: AtomicBool::new(false) }
    }

    /// What a task that is spawned begins with.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<ScopeSet> {
        if self.any.load(Ordering::Relaxed) { self.in_force() } else { None }
    }

    #[inline(never)]
    fn in_force(&self) -> Option<ScopeSet> {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner).clone();
        set.filter(|set| set.iter().any(|scope| !scope.is_over()))
    }

    /// Returns what was there.
    pub(crate) fn put(&self, set: Option<ScopeSet>) -> Option<ScopeSet> {
        self.any.store(set.is_some(), Ordering::Relaxed);
        std::mem::replace(&mut *self.set.lock().unwrap_or_else(PoisonError::into_inner), set)
    }

    pub(crate) fn enter(&self, scope: &Arc<Scope>) {
        let others = self.get().into_iter().flat_map(|set| set.to_vec()).filter(|other| !other.is_over());
        self.put(Some(others.chain([scope.clone()]).collect()));
    }

    /// Out of that one, whichever was entered last; those that are over go as well.
    pub(crate) fn leave(&self, scope: &Arc<Scope>) {
        let others = self.get().into_iter().flat_map(|set| set.to_vec());
        let others: Vec<_> = others.filter(|other| !other.is_over() && !Arc::ptr_eq(other, scope)).collect();
        self.put((!others.is_empty()).then(|| others.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_end_in_any_order() {
        let (scopes, [a, b]) = (Scopes::new(), [(); 2].map(|()| Arc::<Scope>::default()));
        scopes.enter(&a);
        scopes.enter(&b);
        let child = Scopes::new();
        child.put(scopes.get());
        scopes.leave(&a);
        let has = |scopes: &Scopes, scope| scopes.get().is_some_and(|set| set.iter().any(|s| Arc::ptr_eq(s, scope)));
        assert!(!has(&scopes, &a) && has(&scopes, &b) && has(&child, &a));
        a.end();
        b.end();
        scopes.leave(&b);
        assert!(scopes.put(None).is_none(), "nothing is left");
        assert!(child.get().is_none(), "and nothing is handed on");
    }
}
