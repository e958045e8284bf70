//! What some objects show beside their name and holder: how much there is, and who used the other side.
//!
//! Each begins with its [`Object`], so that a wait reason leads to either. Numbers are written by whoever changes what
//! they stand for, under the primitive's own lock, and read by views at any time; they decide nothing, as said in
//! `object.rs`.

#![forbid(unsafe_code)]

use std::marker::PhantomPinned;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::object::{Mark, Object};

/// An object and one number: free permits, those who have come to a barrier, members that are left.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Counted {
    pub(crate) object: Object,
    number: AtomicUsize,
    /// How many there must be; 0 where there is no such number.
    wanted: AtomicUsize,
}

impl Counted {
    #[track_caller]
    pub(crate) const fn new(number: usize, wanted: usize) -> Counted {
        Counted { object: Object::new(), number: AtomicUsize::new(number), wanted: AtomicUsize::new(wanted) }
    }

    /// With a name, made there.
    #[cfg(not(loom))]
    pub(crate) fn at(site: &'static Location<'static>, name: &'static str, wanted: usize) -> Counted {
        let mut object = Object::at(site);
        object.set_name(name);
        Counted { object, number: AtomicUsize::new(0), wanted: AtomicUsize::new(wanted) }
    }

    #[inline]
    pub(crate) fn set(&self, number: usize) {
        if super::ON {
            self.number.store(number, Ordering::Relaxed);
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.number.load(Ordering::Relaxed)
    }

    pub(crate) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }
}

/// An object and the word that its protocol works on: a read-write lock, whose word tells how many read.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Worded {
    pub(crate) object: Object,
    pub(crate) word: crate::sys::atomic::AtomicU32,
}

/// What one reader counts in the word of a read-write lock.
pub(crate) const READER: u32 = 4;

impl Worded {
    /// How many hold it for reading.
    #[cfg(not(loom))]
    pub(crate) fn readers(&self) -> u32 {
        self.word.load(Ordering::Relaxed) / READER
    }
}

/// A channel. The object's user is whoever sent last.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Traffic {
    pub(crate) object: Object,
    /// Whoever received last.
    pub(crate) received: Mark,
    /// Messages in the queue.
    length: AtomicUsize,
    /// [`usize::MAX`]: unbounded.
    capacity: usize,
    senders: AtomicU32,
    receivers: AtomicU32,
    /// Where `sync::live` keeps it; under the lock there.
    pub(crate) place: AtomicUsize,
    /// Views and other channels' ends reach it by its address, also while its channel's `drop` has it: without this the
    /// `&mut` there would claim that nobody else does.
    pinned: PhantomPinned,
}

impl Traffic {
    #[track_caller]
    pub(crate) const fn new(capacity: Option<usize>, name: Option<&'static str>) -> Traffic {
        let mut object = Object::at(Location::caller());
        if let Some(name) = name {
            object.set_name(name);
        }
        Traffic {
            object,
            received: Mark::new(),
            length: AtomicUsize::new(0),
            capacity: match capacity {
                Some(c) => c,
                None => usize::MAX,
            },
            senders: AtomicU32::new(1),
            receivers: AtomicU32::new(1),
            place: AtomicUsize::new(usize::MAX),
            pinned: PhantomPinned,
        }
    }

    #[inline(always)]
    pub(crate) fn set_length(&self, length: usize) {
        if super::ON {
            self.length.store(length, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_ends(&self, senders: usize, receivers: usize) {
        self.senders.store(senders as u32, Ordering::Relaxed);
        self.receivers.store(receivers as u32, Ordering::Relaxed);
    }

    pub(crate) fn length(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// How many messages it holds; `None`: unbounded.
    pub(crate) fn capacity(&self) -> Option<usize> {
        (self.capacity != usize::MAX).then_some(self.capacity)
    }

    pub(crate) fn senders(&self) -> u32 {
        self.senders.load(Ordering::Relaxed)
    }

    pub(crate) fn receivers(&self) -> u32 {
        self.receivers.load(Ordering::Relaxed)
    }
}
