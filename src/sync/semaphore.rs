//! A counting semaphore that serves strictly in order.
//!
//! Whoever cannot be served at once stands in line with the number of permits wanted, and is handed them by whoever
//! gives permits back: a woken waiter has what it asked for and competes with nobody. A waiter that is interrupted after
//! it was served gives its permits to those behind it; one that leaves the head of the line may thereby let them
//! through.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::const_new::const_unless_modelled;
use super::waiters::{Taken, WaitList, Waiter};
use super::woven::{Call, Outcome, State};
use crate::observe::{Counted, WaitKind, WaitReason};
use crate::scheduler::handover::polled_in_vain;
use crate::scheduler::suspend;
use crate::sys::atomic::{Lock, LockGuard};

/// How many are woken between two looks at the lock.
const BATCH: usize = 32;

#[derive(Debug)]
struct Inner {
    /// Not held by anybody.
    permits: usize,
    /// The note of each is how many permits it wants.
    waiting: WaitList,
}

/// A number of permits, of which tasks and threads take some and give them back.
///
/// Strictly first come, first served: who has come later is not served earlier, even if it wants fewer permits and they
/// are there. A large request at the head of the line thus holds up everybody behind it, but is never starved; and
/// [`try_acquire`](Semaphore::try_acquire) gives nothing while somebody waits. It has no poison and no owner: permits
/// may be given back by anybody, also more than there were ([`add_permits`](Semaphore::add_permits)).
///
/// # Examples
/// At most two at a time:
/// ```
/// use coro::sync::Semaphore;
/// use std::time::Duration;
///
/// static DOWNLOADS: Semaphore = Semaphore::new(2).named("downloads");
///
/// coro::run(|| {
///     let work = (0..6).map(|i| {
///         move || {
///             let _permit = DOWNLOADS.acquire();
///             coro::sleep(Duration::from_millis(1));
///             i
///         }
///     });
///     assert_eq!(coro::in_parallel(work).unwrap(), [0, 1, 2, 3, 4, 5]);
///     assert_eq!(DOWNLOADS.available_permits(), 2);
/// });
/// ```
///
/// # Cancellation
/// The waits unwind if an interrupt is due, without a permit, also if permits are there, so that a loop over them ends.
/// No permit is lost.
pub struct Semaphore {
    /// Its user is who took permits last, unless that one gave some back since.
    shown: Counted,
    inner: Lock<Inner>,
}

impl UnwindSafe for Semaphore {}
impl RefUnwindSafe for Semaphore {}

impl Semaphore {
    const_unless_modelled! {
        /// A semaphore with so many permits.
        #[track_caller]
        pub fn new(permits: usize) -> Semaphore {
            Semaphore { shown: Counted::new(permits, 0), inner: Lock::new(Inner { permits, waiting: WaitList::new() }) }
        }
    }

    /// Gives it a name for the views.
    #[must_use = "the named semaphore is the result"]
    pub const fn named(mut self, name: &'static str) -> Semaphore {
        self.shown.object.set_name(name);
        self
    }

    fn lock(&self) -> LockGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Waits for one permit.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    pub fn acquire(&self) -> SemaphorePermit<'_> {
        self.acquire_many(1)
    }

    /// Waits for `n` permits at once. It takes no part of them before all are there. None at all are always there.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    pub fn acquire_many(&self, n: usize) -> SemaphorePermit<'_> {
        self.take(n, None);
        SemaphorePermit { semaphore: self, permits: n }
    }

    /// One permit, if there is one now and nobody waits.
    pub fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.try_acquire_many(1)
    }

    /// `n` permits, if there are so many now and nobody waits.
    pub fn try_acquire_many(&self, n: usize) -> Option<SemaphorePermit<'_>> {
        self.try_take(n).then(|| SemaphorePermit { semaphore: self, permits: n })
    }

    /// As [`acquire`](Semaphore::acquire), for at most `limit`.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    pub fn acquire_timeout(&self, limit: Duration) -> Option<SemaphorePermit<'_>> {
        self.acquire_many_timeout(1, limit)
    }

    /// As [`acquire_many`](Semaphore::acquire_many), for at most `limit`.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    pub fn acquire_many_timeout(&self, n: usize, limit: Duration) -> Option<SemaphorePermit<'_>> {
        // A limit that no `Instant` can hold is none.
        let deadline = Instant::now().checked_add(limit);
        self.take(n, deadline).then(|| SemaphorePermit { semaphore: self, permits: n })
    }

    /// As [`acquire`](Semaphore::acquire), with a permit that can go to another task.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    pub fn acquire_owned(self: &Arc<Self>) -> OwnedSemaphorePermit {
        self.acquire_many_owned(1)
    }

    /// As [`acquire_many`](Semaphore::acquire_many), with a permit that can go to another task.
    ///
    /// # Cancellation
    /// Unwinds if an interrupt is due.
    pub fn acquire_many_owned(self: &Arc<Self>, n: usize) -> OwnedSemaphorePermit {
        self.take(n, None);
        OwnedSemaphorePermit { semaphore: self.clone(), permits: n }
    }

    /// As [`try_acquire`](Semaphore::try_acquire), with a permit that can go to another task.
    pub fn try_acquire_owned(self: &Arc<Self>) -> Option<OwnedSemaphorePermit> {
        self.try_take(1).then(|| OwnedSemaphorePermit { semaphore: self.clone(), permits: 1 })
    }

    /// Adds permits, for good.
    ///
    /// # Panics
    /// If there would be more than `usize::MAX`.
    pub fn add_permits(&self, n: usize) {
        let inner = self.lock();
        assert!(inner.permits.checked_add(n).is_some(), "a semaphore holds at most usize::MAX permits");
        self.give(inner, n);
        if Call::Release.is_watched() {
            Call::Release.was_done(&self.shown.object, State::Given(n), Outcome::Done);
        }
    }

    /// How many permits nobody holds. Some of them may be waited for by somebody who wants more.
    pub fn available_permits(&self) -> usize {
        self.lock().permits
    }

    fn try_take(&self, n: usize) -> bool {
        if Call::TryAcquire.is_watched() {
            return self.told(Call::TryAcquire, n, || self.try_take_untold(n), |taken| Outcome::Is(*taken));
        }
        self.try_take_untold(n)
    }

    fn try_take_untold(&self, n: usize) -> bool {
        let mut inner = self.lock();
        let served = n == 0 || inner.waiting.is_empty() && inner.permits >= n;
        if served {
            self.taken(&mut inner, n);
        } else {
            drop(inner);
            polled_in_vain();
        }
        served
    }

    /// The caller takes permits that are there.
    fn taken(&self, inner: &mut Inner, n: usize) {
        inner.permits -= n;
        self.shown.set(inner.permits);
        self.shown.object.used(suspend::user());
    }

    /// Whether it got them before `deadline`.
    fn take(&self, n: usize, deadline: Option<Instant>) -> bool {
        if Call::Acquire.is_watched() {
            let outcome = |taken: &bool| if *taken { Outcome::Done } else { Outcome::Failed("timed out") };
            return self.told(Call::Acquire, n, || self.take_untold(n, deadline), outcome);
        }
        self.take_untold(n, deadline)
    }

    /// A call that somebody watches. What it has taken is given back if the telling is unwound.
    #[cold]
    fn told(&self, call: Call, n: usize, take: impl FnOnce() -> bool, outcome: impl FnOnce(&bool) -> Outcome) -> bool {
        let state = State::Permits { wanted: n, free: self.shown.number() };
        let undo = |taken| {
            if taken && n > 0 {
                self.give(self.lock(), n);
            }
        };
        call.told(&self.shown.object, state, take, outcome, undo)
    }

    fn take_untold(&self, n: usize, deadline: Option<Instant>) -> bool {
        suspend::checkpoint();
        if n == 0 {
            return true;
        }
        let mut inner = self.lock();
        if inner.waiting.is_empty() && inner.permits >= n {
            self.taken(&mut inner, n);
            return true;
        }
        let waiter = Waiter::new();
        waiter.note.set(n as u64);
        // SAFETY: `Queued` borrows the waiter and takes it out when dropped.
        unsafe { inner.waiting.push_back(&waiter) };
        drop(inner);
        suspend::set_wait_extra(n as u64);
        let queued = Queued { semaphore: self, waiter: &waiter, wanted: n };
        let served = waiter.wait_until(WaitReason::counted(WaitKind::Semaphore, &self.shown), deadline);
        if served || !queued.leave() {
            // Served, perhaps at the very end.
            std::mem::forget(queued);
            self.shown.object.used(suspend::user());
            return true;
        }
        false
    }

    /// Gives `n` permits back and serves who waits, as far as they go.
    fn give<'a>(&'a self, mut inner: LockGuard<'a, Inner>, n: usize) {
        // A guard must not panic in its drop; `add_permits` has looked before.
        inner.permits = inner.permits.saturating_add(n);
        if n > 0 {
            self.shown.object.released_by(suspend::user().0);
        }
        if inner.waiting.is_empty() {
            return self.shown.set(inner.permits);
        }
        loop {
            let mut batch = [const { None::<Taken> }; BATCH];
            let mut full = true;
            for place in &mut batch {
                match inner.waiting.first_note() {
                    Some(wanted) if wanted <= inner.permits as u64 => inner.permits -= wanted as usize,
                    _ => {
                        full = false;
                        break;
                    }
                }
                *place = inner.waiting.grant_first();
            }
            self.shown.set(inner.permits);
            drop(inner);
            batch.into_iter().flatten().for_each(Taken::wake);
            if !full {
                return;
            }
            inner = self.lock();
        }
    }
}

/// Takes a waiter out when its wait is left early, and passes on what it was given.
struct Queued<'a> {
    semaphore: &'a Semaphore,
    waiter: &'a Waiter,
    wanted: usize,
}

impl Queued<'_> {
    /// Leaves the line; false if the waiter was served before.
    fn leave(&self) -> bool {
        let mut inner = self.semaphore.lock();
        if !self.waiter.is_linked() {
            return false;
        }
        inner.waiting.remove(self.waiter);
        // Those behind may want fewer than we did.
        self.semaphore.give(inner, 0);
        true
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if !self.leave() && self.waiter.granted() {
            self.semaphore.give(self.semaphore.lock(), self.wanted);
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("permits", &self.available_permits()).finish_non_exhaustive()
    }
}

macro_rules! permit {
    ($name:ident $(<$life:lifetime>)?) => {
        impl$(<$life>)? $name$(<$life>)? {
            /// How many permits it stands for.
            pub fn permits(&self) -> usize {
                self.permits
            }

            /// Keeps the permits from ever being given back: the semaphore has so many fewer.
            pub fn forget(mut self) {
                self.permits = 0;
            }
        }

        impl$(<$life>)? Drop for $name$(<$life>)? {
            fn drop(&mut self) {
                if self.permits > 0 {
                    self.semaphore.give(self.semaphore.lock(), self.permits);
                    if Call::Release.is_watched() {
                        Call::Release.was_done(&self.semaphore.shown.object, State::Given(self.permits), Outcome::Done);
                    }
                }
            }
        }

        impl$(<$life>)? fmt::Debug for $name$(<$life>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("permits", &self.permits).finish_non_exhaustive()
            }
        }
    };
}

/// Permits of a [`Semaphore`], given back when dropped.
#[must_use = "the permits are given back when this is dropped"]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
    permits: usize,
}
permit!(SemaphorePermit<'a>);

/// Permits of a [`Semaphore`] that may move to another task, given back when dropped.
#[must_use = "the permits are given back when this is dropped"]
pub struct OwnedSemaphorePermit {
    semaphore: Arc<Semaphore>,
    permits: usize,
}
permit!(OwnedSemaphorePermit);
