//! The mutex under every lock of this module that excludes: one word and a waiting line.
//!
//! The word is LOCKED and WAITERS. Locking and unlocking without waiters is one compare-and-swap each; everything else
//! happens under the line's own short lock. A woken waiter competes with newcomers once; after that the lock is handed
//! to it, so that nobody waits without bound. Must not know values, poison or guards.

use std::sync::PoisonError;

use super::const_new::const_unless_modelled;
use super::held::Exclusive;
use super::waiters::{Taken, WaitList, Waiter};
use super::woven::{Call, Outcome, State};
use crate::observe::{Object, WaitKind, WaitReason};
use crate::scheduler::suspend;
use crate::sys::atomic::{AtomicU32, Lock, LockGuard, Ordering};

const LOCKED: u32 = 1;
const WAITERS: u32 = 2;

/// A mutex without a value: the word, its waiting line, and what the views show of it.
#[derive(Debug)]
pub(super) struct RawMutex {
    word: AtomicU32,
    pub(super) object: Object,
    line: Lock<WaitList>,
}

impl RawMutex {
    const_unless_modelled! {
        #[track_caller]
        pub(super) fn new() -> RawMutex {
            RawMutex { word: AtomicU32::new(0), object: Object::new(), line: Lock::new(WaitList::new()) }
        }
    }

    fn line(&self) -> LockGuard<'_, WaitList> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        if Call::TryLock.is_watched() {
            return self.told(Call::TryLock, || self.try_take(), |taken| Outcome::Is(*taken), |taken| taken);
        }
        self.try_take()
    }

    #[inline]
    fn try_take(&self) -> bool {
        let mut w = self.word.load(Ordering::Relaxed);
        while w & LOCKED == 0 {
            match self.word.compare_exchange_weak(w, w | LOCKED, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => w = now,
            }
        }
        false
    }

    #[inline]
    pub(super) fn lock(&self) {
        if Call::Lock.is_watched() {
            return self.told(Call::Lock, || self.take(), |()| Outcome::Done, |()| true);
        }
        self.take();
    }

    #[inline(always)]
    fn take(&self) {
        if self.word.compare_exchange(0, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_slow(Waiter::wait);
        }
    }

    /// As [`lock`](RawMutex::lock), without looking at interrupts: for whoever must not come back without the lock.
    pub(super) fn lock_shielded(&self) {
        if !self.try_take() {
            self.lock_slow(Waiter::wait_shielded);
        }
    }

    /// A call that somebody watches; `taken`: whether it has the lock, which is given up if the telling is unwound.
    #[cold]
    fn told<R>(
        &self,
        call: Call,
        take: impl FnOnce() -> R,
        outcome: impl FnOnce(&R) -> Outcome,
        taken: impl FnOnce(R) -> bool,
    ) -> R {
        let state = State::Lock { busy: self.word.load(Ordering::Relaxed) & LOCKED != 0, readers: 0 };
        let undo = |result| {
            if taken(result) {
                self.unlock();
            }
        };
        call.told(&self.object, state, take, outcome, undo)
    }

    /// Links the waiter, unless the lock could be had after all.
    fn enqueue(&self, w: &Waiter, front: bool) -> bool {
        let mut line = self.line();
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (new, order) = if word & LOCKED == 0 {
                (word | LOCKED, Ordering::Acquire)
            } else {
                (word | WAITERS, Ordering::Relaxed)
            };
            match self.word.compare_exchange_weak(word, new, order, Ordering::Relaxed) {
                Ok(_) if word & LOCKED == 0 => return false,
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        w.rearm();
        // SAFETY: `Queued` borrows the waiter and takes it out when dropped.
        unsafe { if front { line.push_front(w) } else { line.push_back(w) } };
        true
    }

    #[cold]
    fn lock_slow(&self, wait: fn(&Waiter, WaitReason)) {
        let reason = WaitReason::object(WaitKind::Lock, &self.object);
        let waiter = Waiter::new();
        self.object.held_since_at_least(suspend::ticks());
        let mut queued = Queued { lock: self, waiter: &waiter, armed: false };
        let mut front = false;
        loop {
            if !self.enqueue(&waiter, front) {
                return;
            }
            queued.armed = true;
            wait(&waiter, reason);
            queued.armed = false;
            if waiter.granted() || self.try_take() {
                return;
            }
            // A newcomer was faster: next time the lock is handed over.
            waiter.owed.set(true);
            front = true;
        }
    }

    #[cold]
    fn unlock_slow(&self) {
        let taken = {
            let mut line = self.line();
            self.release(&mut line)
        };
        if let Some(t) = taken {
            t.wake();
        }
    }

    /// Gives the lock up, or to the first waiter if that one is owed it. Under the line's lock.
    fn release(&self, line: &mut WaitList) -> Option<Taken> {
        let hand_over = line.first_is_owed();
        let taken = if hand_over { line.grant_first() } else { line.take_first() };
        let waiters = if line.is_empty() { 0 } else { WAITERS };
        self.word.store(waiters | if hand_over { LOCKED } else { 0 }, Ordering::Release);
        taken
    }
}

impl Exclusive for RawMutex {
    fn object(&self) -> &Object {
        &self.object
    }

    #[inline]
    fn unlock(&self) {
        if self.word.compare_exchange(LOCKED, 0, Ordering::Release, Ordering::Relaxed).is_err() {
            self.unlock_slow();
        }
    }
}

/// Takes a waiter out when its wait is left early, and passes on what it was given.
struct Queued<'a> {
    lock: &'a RawMutex,
    waiter: &'a Waiter,
    armed: bool,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let raw = self.lock;
        let taken = {
            let mut line = raw.line();
            if self.waiter.is_linked() {
                line.remove(self.waiter);
                if line.is_empty() {
                    raw.word.fetch_and(!WAITERS, Ordering::Relaxed);
                }
                None
            } else if self.waiter.granted() {
                raw.release(&mut line)
            } else if raw.word.load(Ordering::Relaxed) & LOCKED == 0 {
                // We were told to try and will not: somebody else shall.
                let taken = line.take_first();
                if line.is_empty() {
                    raw.word.fetch_and(!WAITERS, Ordering::Relaxed);
                }
                taken
            } else {
                None
            }
        };
        if let Some(t) = taken {
            t.wake();
        }
    }
}
