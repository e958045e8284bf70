//! The read-write lock without a value: one word and a waiting line.
//!
//! The word is WAITERS, WRITER and the number of readers. Without waiters, taking and giving up is one atomic operation
//! each. Everything else happens under the line's own short lock, and the lock is *handed* to who waits: the first
//! writer, or all readers up to the next writer. Nobody passes the line, so neither side starves.
//!
//! Invariants: WAITERS is set exactly while the line is not empty, but under its lock. While it is set nobody takes the
//! lock but by `advance`, under that lock; holders may leave, and whoever leaves the lock free comes to `advance`. Must
//! not know values, poison or guards.

use super::const_new::const_unless_modelled;
use super::held::Exclusive;
use super::waiters::{Taken, WaitList, Waiter};
use super::woven::{Call, Outcome, State};
use crate::observe::{Object, WaitKind, WaitReason, Worded};
use crate::scheduler::suspend;
use crate::sys::atomic::{AtomicU32, Lock, LockGuard, Ordering};

const WAITERS: u32 = 1;
const WRITER: u32 = 2;
/// One reader. The views know it too.
const READER: u32 = crate::observe::READER;

/// What a waiter wants; its note.
const SHARED: u64 = 0;
const EXCLUSIVE: u64 = 1;

/// See the module's head.
#[derive(Debug)]
pub(super) struct RawRwLock {
    pub(super) shown: Worded,
    line: Lock<WaitList>,
}

/// Who was handed the lock and must now be woken; mostly one.
#[must_use = "a taken waiter that is not woken sleeps for ever"]
#[derive(Default)]
struct Handed {
    first: Option<Taken>,
    others: Vec<Taken>,
}

impl Handed {
    fn push(&mut self, t: Taken) {
        match self.first {
            None => self.first = Some(t),
            Some(_) => self.others.push(t),
        }
    }

    fn wake(self) {
        if let Some(t) = self.first {
            t.wake();
        }
        self.others.into_iter().for_each(Taken::wake);
    }
}

impl RawRwLock {
    const_unless_modelled! {
        #[track_caller]
        pub(super) fn new() -> RawRwLock {
            let shown = Worded { object: Object::new(), word: AtomicU32::new(0) };
            RawRwLock { shown, line: Lock::new(WaitList::new()) }
        }
    }

    fn line(&self) -> LockGuard<'_, WaitList> {
        self.line.lock()
    }

    /// The word with one more who wants `note`; `None` if that one has to wait.
    #[inline]
    fn with(word: u32, note: u64) -> Option<u32> {
        if note == EXCLUSIVE {
            return (word == 0).then_some(WRITER);
        }
        if word & (WRITER | WAITERS) != 0 {
            return None;
        }
        Some(word.checked_add(READER).unwrap_or_else(|| too_many_readers()))
    }

    #[inline]
    fn try_take(&self, note: u64) -> bool {
        let mut word = self.shown.word.load(Ordering::Relaxed);
        while let Some(new) = Self::with(word, note) {
            match self.shown.word.compare_exchange_weak(word, new, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    #[inline]
    pub(super) fn try_read(&self) -> bool {
        if Call::TryRead.is_watched() {
            return self.told(
                Call::TryRead,
                SHARED,
                || self.try_take(SHARED),
                |taken| Outcome::Is(*taken),
                |taken| taken,
            );
        }
        self.try_take(SHARED)
    }

    #[inline]
    pub(super) fn try_write(&self) -> bool {
        if Call::TryWrite.is_watched() {
            let take = || self.try_take(EXCLUSIVE);
            return self.told(Call::TryWrite, EXCLUSIVE, take, |taken| Outcome::Is(*taken), |taken| taken);
        }
        self.try_take(EXCLUSIVE)
    }

    #[inline]
    pub(super) fn read(&self) {
        if Call::Read.is_watched() {
            return self.told(Call::Read, SHARED, || self.take_shared(), |()| Outcome::Done, |()| true);
        }
        self.take_shared();
    }

    #[inline(always)]
    fn take_shared(&self) {
        if !self.try_take(SHARED) {
            self.wait(SHARED, WaitKind::ReadLock);
        }
    }

    #[inline]
    pub(super) fn write(&self) {
        if Call::Write.is_watched() {
            return self.told(Call::Write, EXCLUSIVE, || self.take_exclusive(), |()| Outcome::Done, |()| true);
        }
        self.take_exclusive();
    }

    #[inline(always)]
    fn take_exclusive(&self) {
        if !self.try_take(EXCLUSIVE) {
            self.wait(EXCLUSIVE, WaitKind::WriteLock);
        }
    }

    /// A call that somebody watches; `taken`: whether it has the lock, which is given up if the telling is unwound.
    #[cold]
    fn told<R>(
        &self,
        call: Call,
        note: u64,
        take: impl FnOnce() -> R,
        outcome: impl FnOnce(&R) -> Outcome,
        taken: impl FnOnce(R) -> bool,
    ) -> R {
        let word = self.shown.word.load(Ordering::Relaxed);
        let state = State::Lock { busy: Self::with(word, note).is_none(), readers: word / READER };
        let undo = |result| {
            if taken(result) {
                if note == SHARED { self.unlock_shared() } else { self.unlock() }
            }
        };
        call.told(&self.shown.object, state, take, outcome, undo)
    }

    /// Links the waiter, unless the lock could be had after all.
    fn enqueue(&self, w: &Waiter) -> bool {
        let mut line = self.line();
        let mut word = self.shown.word.load(Ordering::Relaxed);
        loop {
            let taken = Self::with(word, w.note.get());
            let new = taken.unwrap_or(word | WAITERS);
            match self.shown.word.compare_exchange_weak(word, new, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) if taken.is_some() => return false,
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        // SAFETY: `Queued` borrows the waiter and takes it out when dropped.
        unsafe { line.push_back(w) };
        true
    }

    #[cold]
    fn wait(&self, note: u64, kind: WaitKind) {
        let waiter = Waiter::new();
        waiter.note.set(note);
        if self.enqueue(&waiter) {
            self.shown.object.held_since_at_least(suspend::ticks());
            let mut queued = Queued { lock: self, waiter: &waiter, over: false };
            waiter.wait(WaitReason::worded(kind, &self.shown));
            queued.over = true;
        }
    }

    /// Hands the lock to those at the head of the line who can have it now. Under the line's lock.
    fn advance(&self, line: &mut WaitList) -> Handed {
        let mut handed = Handed::default();
        while let Some(note) = line.first_note() {
            // What the last holders did comes before what the next ones do.
            let word = self.shown.word.load(Ordering::Acquire);
            // Those who are counted here take the lock only when they are granted it, just below. While WAITERS is set
            // the count can only fall meanwhile; who makes it fall to nothing comes here next.
            let new = match note {
                EXCLUSIVE if word == WAITERS => WRITER,
                SHARED if word & WRITER == 0 && word <= u32::MAX - READER => READER,
                _ => break,
            };
            self.shown.word.fetch_add(new, Ordering::Relaxed);
            if let Some(t) = line.grant_first() {
                handed.push(t);
            }
        }
        if line.is_empty() {
            self.shown.word.fetch_and(!WAITERS, Ordering::Relaxed);
        }
        handed
    }

    #[inline]
    pub(super) fn unlock_shared(&self) {
        // The last of the readers, and somebody waits.
        if self.shown.word.fetch_sub(READER, Ordering::Release) == READER | WAITERS {
            self.advance_slow();
        }
    }

    /// From the writer to one reader, without a moment between.
    pub(super) fn downgrade(&self) {
        if self.shown.word.fetch_add(READER - WRITER, Ordering::Release) & WAITERS != 0 {
            self.advance_slow();
        }
    }

    #[cold]
    fn advance_slow(&self) {
        let handed = self.advance(&mut self.line());
        handed.wake();
    }
}

impl Exclusive for RawRwLock {
    fn object(&self) -> &Object {
        &self.shown.object
    }

    #[inline]
    fn unlock(&self) {
        if self.shown.word.fetch_and(!WRITER, Ordering::Release) & WAITERS != 0 {
            self.advance_slow();
        }
    }
}

#[cold]
fn too_many_readers() -> ! {
    panic!("too many readers of one lock: their guards were forgotten, not dropped");
}

/// Takes a waiter out when its wait is left early, and passes on what it was given.
struct Queued<'a> {
    lock: &'a RawRwLock,
    waiter: &'a Waiter,
    over: bool,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let raw = self.lock;
        let mut line = raw.line();
        if self.waiter.is_linked() {
            line.remove(self.waiter);
            // Readers behind a writer that leaves may join those who read now.
            let handed = raw.advance(&mut line);
            drop(line);
            return handed.wake();
        }
        drop(line);
        if self.waiter.note.get() == SHARED { raw.unlock_shared() } else { raw.unlock() }
    }
}
