//! The mutex under every lock of this module that excludes: one word and a waiting line.
//!
//! Locking and unlocking is one compare-and-swap each while nobody has to be woken; everything else happens under the
//! line's own short lock. A woken waiter competes with newcomers once; after that the lock is handed to it, so that
//! nobody waits without bound. One at a time is woken: until it has tried, the others would only find the lock taken,
//! and whoever locks and unlocks often meanwhile shall not pay for them. If its worker does not come to it, somebody
//! else is woken after a while.
//!
//! Invariants, under the line's lock: while there are waiters, the word is CALLED or one was sent; a free lock is never
//! CALLED. Whoever was sent says so no longer before it takes the lock, stands in line again or leaves. Must not know
//! values, poison or guards.

use super::const_new::const_unless_modelled;
use super::held::Exclusive;
use super::waiters::{Taken, WaitList, Waiter};
use super::woven::{Call, Outcome, State};
use crate::observe::{Object, WaitKind, WaitReason};
use crate::scheduler::{marks, suspend};
use crate::sys::atomic::{AtomicU32, AtomicU64, Lock, LockGuard, Ordering};

const LOCKED: u32 = 1;
/// Whoever unlocks has to look at the line.
const CALLED: u32 = 2;
/// When nobody that was sent is late.
const NEVER: u64 = u64::MAX;

/// A mutex without a value: the word, its waiting line, and what the views show of it.
#[derive(Debug)]
pub(super) struct RawMutex {
    word: AtomicU32,
    pub(super) object: Object,
    line: Lock<WaitList>,
    /// When the waiter that was sent, woken to try and has not tried yet, is late, in ticks; [`NEVER`]: nobody was. Written
    /// under the line's lock.
    late_at: AtomicU64,
}

impl RawMutex {
    const_unless_modelled! {
        #[track_caller]
        pub(super) fn new() -> RawMutex {
            RawMutex {
                word: AtomicU32::new(0),
                object: Object::new(),
                line: Lock::new(WaitList::new()),
                late_at: AtomicU64::new(NEVER),
            }
        }
    }

    fn line(&self) -> LockGuard<'_, WaitList> {
        self.line.lock()
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

    /// Links the waiter, unless the lock could be had after all. `sent`: it was woken to try.
    fn enqueue(&self, w: &Waiter, sent: bool) -> bool {
        let mut line = self.line();
        if sent {
            self.late_at.store(NEVER, Ordering::Relaxed);
        }
        let late_at = self.late_at.load(Ordering::Relaxed);
        let behind = if late_at != NEVER && !marks::is_past(late_at) { 0 } else { CALLED };
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (new, order) = if word & LOCKED == 0 {
                (LOCKED | if line.is_empty() { 0 } else { behind }, Ordering::Acquire)
            } else {
                (word | behind, Ordering::Relaxed)
            };
            match self.word.compare_exchange_weak(word, new, order, Ordering::Relaxed) {
                Ok(_) if word & LOCKED == 0 => return false,
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        w.rearm();
        // A newcomer was faster than whoever was sent: next time the lock is handed over.
        w.owed.set(sent);
        // SAFETY: `Queued` borrows the waiter and takes it out when dropped.
        unsafe { if sent { line.push_front(w) } else { line.push_back(w) } };
        true
    }

    #[cold]
    fn lock_slow(&self, wait: fn(&Waiter, WaitReason)) {
        let reason = WaitReason::object(WaitKind::Lock, &self.object);
        let waiter = Waiter::new();
        self.object.held_since_at_least(suspend::ticks());
        let mut queued = Queued { lock: self, waiter: &waiter, armed: false };
        let mut sent = false;
        while self.enqueue(&waiter, sent) {
            queued.armed = true;
            wait(&waiter, reason);
            queued.armed = false;
            if waiter.granted() {
                return;
            }
            sent = true;
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
        if !line.first_is_owed() {
            let taken = self.send_first(line);
            self.word.store(0, Ordering::Release);
            return taken;
        }
        let taken = line.grant_first();
        self.word.store(LOCKED | self.call(line), Ordering::Release);
        taken
    }

    /// CALLED if there is need of it. Under the line's lock.
    fn call(&self, line: &WaitList) -> u32 {
        let sent = self.late_at.load(Ordering::Relaxed) != NEVER;
        if sent || line.is_empty() { 0 } else { CALLED }
    }

    /// The first waiter is to try, if there is one. Under the line's lock.
    fn send_first(&self, line: &mut WaitList) -> Option<Taken> {
        let late_at = if line.is_empty() { NEVER } else { marks::patience_end() };
        self.late_at.store(late_at, Ordering::Relaxed);
        line.take_first()
    }

    /// Whoever was sent will not try: somebody else shall, now or when the holder unlocks. Under the line's lock.
    fn pass_on(&self, line: &mut WaitList) -> Option<Taken> {
        self.late_at.store(NEVER, Ordering::Relaxed);
        let call = self.call(line);
        let mut word = self.word.load(Ordering::Relaxed);
        while word & LOCKED != 0 {
            match self.word.compare_exchange_weak(word, LOCKED | call, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return None,
                Err(now) => word = now,
            }
        }
        self.send_first(line)
    }
}

impl Exclusive for RawMutex {
    fn object(&self) -> &Object {
        &self.object
    }

    fn was_overtaken(&self, at: impl FnOnce() -> u64) {
        let late_at = self.late_at.load(Ordering::Relaxed);
        if late_at != NEVER && at() > late_at {
            self.word.fetch_or(CALLED, Ordering::Relaxed);
        }
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
                    raw.word.fetch_and(!CALLED, Ordering::Relaxed);
                }
                None
            } else if self.waiter.granted() {
                raw.release(&mut line)
            } else {
                raw.pass_on(&mut line)
            }
        };
        if let Some(t) = taken {
            t.wake();
        }
    }
}
