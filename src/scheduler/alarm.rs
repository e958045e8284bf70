//! A timer that calls a waker: for futures, which have no frame that a worker could unpark.
//!
//! Invariants: an alarm that a worker has armed owns one count of its bell in that worker's timers: who takes the timer out,
//! firing, removing or ending with the worker, takes that count. A bell that rings with nobody at it does nothing. The waker is
//! called and dropped outside of every borrow and lock. Must not know what is waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Instant;

use super::JoinHandle;
use super::worker::Worker;
use crate::timer::{TimerAction, TimerKey, Timers};

/// Who is to be woken.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    waker: Mutex<Option<Waker>>,
    rung: AtomicBool,
}

impl Bell {
    /// Wakes whoever is there.
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        let waker = self.take();
        if let Some(waker) = waker {
            super::waker::wake(waker);
        }
    }

    fn take(&self) -> Option<Waker> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug)]
enum Armed {
    No,
    /// By that worker, under that key.
    Worker(u64, TimerKey),
    Task(JoinHandle<()>),
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Alarm {
    bell: Arc<Bell>,
    armed: Armed,
}

impl Alarm {
    /// Armed in the calling worker; outside of one it is not.
    pub(crate) fn at(deadline: Instant) -> Alarm {
        let bell = Arc::new(Bell::default());
        let armed = match Worker::current() {
            None => Armed::No,
            Some(w) => {
                // The timers own this count.
                let scope = Arc::into_raw(bell.clone()).cast();
                let action = TimerAction { task: std::ptr::null(), id: 0, scope };
                let key = w.timers.borrow_mut().insert(w.timer_ns(deadline), action);
                Armed::Worker(w.shared.identity(), key)
            }
        };
        Alarm { bell, armed }
    }

    pub(crate) fn is_armed(&self) -> bool {
        !matches!(self.armed, Armed::No)
    }

    pub(crate) fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// A task will ring it, and is cancelled with the alarm.
    pub(crate) fn rung_by(&mut self, task: JoinHandle<()>) {
        self.armed = Armed::Task(task);
    }

    /// Who is woken from now on. One that has rung already wakes at once: the deadline is near enough then, and the clock
    /// decides.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        let mut fresh = Some(waker.clone());
        let former = {
            let mut place = self.bell.waker.lock().unwrap_or_else(PoisonError::into_inner);
            match &*place {
                Some(old) if old.will_wake(waker) => None,
                _ => std::mem::replace(&mut *place, fresh.take()),
            }
        };
        drop((former, fresh));
        if self.bell.rung.load(Ordering::Acquire)
            && let Some(waker) = self.bell.take()
        {
            waker.wake();
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        drop(self.bell.take());
        match &self.armed {
            Armed::Worker(identity, key) => {
                if let Some(w) = Worker::current()
                    && w.shared.identity() == *identity
                {
                    let action = w.timers.borrow_mut().take_out(*key);
                    // SAFETY: it was just taken out of the timers, once.
                    action.into_iter().for_each(|action| drop(unsafe { bell_of(&action) }));
                }
                // Else it stays there until its time, with nobody at the bell.
            }
            Armed::Task(task) => _ = task.cancel(),
            Armed::No => {}
        }
    }
}

/// The bell that the action rings.
///
/// # Safety
/// The action has no task, and was taken out of the timers; once.
pub(super) unsafe fn bell_of(action: &TimerAction) -> Arc<Bell> {
    debug_assert!(action.task.is_null());
    // SAFETY: came from `Arc::into_raw` in `at`, and the timers gave that count up.
    unsafe { Arc::from_raw(action.scope.cast()) }
}

/// For a worker that ends.
pub(super) fn silence(timers: &mut Timers) {
    while let Some(action) = timers.pop_due(u64::MAX) {
        if action.task.is_null() {
            // SAFETY: just taken out.
            drop(unsafe { bell_of(&action) });
        }
    }
}
