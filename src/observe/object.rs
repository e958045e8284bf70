//! What every lock, channel and the like carries for the views: where it was made, what it is called, who holds it or
//! used it last, and since when.
//!
//! A parked task's wait reason holds the address of the `Object`; a view copies it while the task cannot be resumed. The
//! name is `'static`, so that a copy of it stays valid.
//!
//! Who and when are two words that are written one after the other and read the same way: a view may see a new holder
//! with an old time, never anything else. They decide nothing, which is why they are std's atomics also where the rest
//! of a primitive is model-checked.

#![forbid(unsafe_code)]

use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Set in what stands for a plain thread; the rest is the kernel's number of it (0 where it has none). Ids of tasks are
/// shorter.
pub(crate) const THREAD: u64 = 1 << 63;

/// Who did something with an object, and when. Written by whoever did, read by anyone.
#[derive(Debug)]
pub(crate) struct Mark {
    who: AtomicU64,
    at: AtomicU64,
}

impl Mark {
    pub(crate) const fn new() -> Mark {
        Mark { who: AtomicU64::new(0), at: AtomicU64::new(0) }
    }

    /// `who`: a task's id, or [`THREAD`] and a thread's number. `at`: ticks, as exact as whoever calls can tell for
    /// nothing; 0 is not known. What is there already is not written again: in a slice it mostly is. Whether `at` is new.
    #[inline(always)]
    pub(crate) fn set(&self, (who, at): (u64, u64)) -> bool {
        if !super::ON {
            return false;
        }
        let new = self.at.load(Ordering::Relaxed) != at;
        if new {
            self.at.store(at, Ordering::Relaxed);
        }
        if self.who.load(Ordering::Relaxed) != who {
            self.who.store(who, Ordering::Relaxed);
        }
        new
    }

    /// Who; 0: nobody.
    pub(crate) fn who(&self) -> u64 {
        self.who.load(Ordering::Relaxed)
    }

    /// When, in ticks; 0: not known.
    pub(crate) fn at(&self) -> u64 {
        self.at.load(Ordering::Relaxed)
    }
}

/// See the module's head.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Object {
    /// Whoever holds it, where one party can; of a channel, a semaphore and the like whoever sent, gave back or let
    /// others through last.
    user: Mark,
    site: &'static Location<'static>,
    name: Option<&'static str>,
    /// See [`Object::was_handed_on`].
    handed_on: AtomicBool,
}

impl Object {
    /// An unnamed object of the caller's caller.
    #[track_caller]
    pub(crate) const fn new() -> Object {
        Object::at(Location::caller())
    }

    /// An unnamed object that was made there.
    pub(crate) const fn at(site: &'static Location<'static>) -> Object {
        Object { user: Mark::new(), site, name: None, handed_on: AtomicBool::new(false) }
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

    /// Says who holds it, or has just used it, and since when; see [`Mark::set`].
    #[inline(always)]
    pub(crate) fn used(&self, by: (u64, u64)) -> bool {
        self.user.set(by)
    }

    /// Nobody holds it any more.
    #[inline(always)]
    pub(crate) fn released(&self) {
        if super::ON {
            self.user.who.store(0, Ordering::Relaxed);
        }
    }

    /// `who` gives back: if it was the last user, nobody is known to be one.
    #[inline]
    pub(crate) fn released_by(&self, who: u64) {
        if self.owner() == who {
            self.released();
        }
    }

    /// A task gives up a guard of it that it has not taken: another one of its worker had left it to it.
    #[cold]
    pub(crate) fn hand_on(&self) {
        self.handed_on.store(true, Ordering::Relaxed);
    }

    /// Whether that was ever seen: its holders may not be those that took it.
    pub(crate) fn was_handed_on(&self) -> bool {
        self.handed_on.load(Ordering::Relaxed)
    }

    /// The holder did not know since when it holds this; somebody who begins to wait for it does, at least.
    pub(crate) fn held_since_at_least(&self, ticks: u64) {
        if self.owner() != 0 && self.since() == 0 {
            self.user.at.store(ticks, Ordering::Relaxed);
        }
    }

    /// Who holds it or used it last: a task's id, or [`THREAD`] and a thread's number; 0: nobody.
    pub(crate) fn owner(&self) -> u64 {
        self.user.who()
    }

    /// Since when, in ticks, or a little before that: a task says when its slice began. 0: not known.
    pub(crate) fn since(&self) -> u64 {
        self.user.at()
    }
}
