//! What every lock, channel and the like carries for the views: where it was made, what it is called, who holds it.
//!
//! A parked task's wait reason holds the address of the `Object`; a view copies it while the task cannot be resumed. The
//! name is `'static`, so that a copy of it stays valid.

#![forbid(unsafe_code)]

use std::panic::Location;

use crate::sys::atomic::{AtomicU64, Ordering};

/// See the module's head.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Object {
    /// The task that holds it, where one task can; 0: none, or a plain thread. First, because views read it alone.
    owner: AtomicU64,
    site: &'static Location<'static>,
    name: Option<&'static str>,
}

impl Object {
    /// An unnamed object of the caller's caller.
    #[cfg(not(loom))]
    #[track_caller]
    pub(crate) const fn new() -> Object {
        Object { owner: AtomicU64::new(0), site: Location::caller(), name: None }
    }

    /// An unnamed object of the caller's caller.
    #[cfg(loom)]
    #[track_caller]
    pub(crate) fn new() -> Object {
        Object { owner: AtomicU64::new(0), site: Location::caller(), name: None }
    }

    /// Gives it a name.
    pub(crate) const fn set_name(&mut self, name: &'static str) {
        self.name = Some(name);
    }

    /// What it is called.
    pub(crate) const fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// Where it was made.
    pub(crate) const fn site(&self) -> &'static Location<'static> {
        self.site
    }

    /// Says which task holds it from now on.
    #[inline]
    pub(crate) fn set_owner(&self, task: u64) {
        self.owner.store(task, Ordering::Relaxed);
    }

    /// The task that holds it; 0: none, or a plain thread.
    pub(crate) fn owner(&self) -> u64 {
        self.owner.load(Ordering::Relaxed)
    }
}
