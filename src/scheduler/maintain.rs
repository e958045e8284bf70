//! What a worker does between slices: timers, wake-ups from elsewhere, readiness, stealing, rest and the end.

use std::ptr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::worker::Worker;
use crate::reactor::Reactor;
use crate::sys;
use crate::task::state::Unpark;
use crate::task::{TaskCell, TaskRef, TimeoutScope};
use crate::timer::TimerAction;

/// So many unstarted tasks of a stuck worker go to another at one look.
const RESCUE: usize = 4096;

/// How long an idle worker leaves unstarted tasks to a worker that has fewer tasks.
const HOLD_OFF: Duration = Duration::from_micros(500);

/// An idle worker wakes up this much later for a timer, at most, if so many fall due by then, itself counted: one wake-up serves
/// them all. With 100,000 sleepers of up to a second this takes a seventh off the CPU time of a timer, because a wake-up costs as much as
/// several of them.
const GATHER_NS: u64 = 80_000;
const GATHERED: usize = 4;

/// What [`Worker::hold_off`] waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct HoldOff {
    victim: usize,
    /// Its slices when the wait began.
    slices: u64,
    until: u64,
}

/// Stacks that stay warm in an idle worker.
const WARM_STACKS: usize = 64;

impl Worker {
    /// The periodic look around while tasks can run. Returns the time after it.
    #[cold]
    #[inline(never)]
    pub(super) fn maintain(&self, now: u64) -> u64 {
        // What this takes is not the last task's.
        self.shared.current.store(ptr::null_mut(), Ordering::Release);
        self.drain_inbox();
        self.retry_limbo();
        self.fire_timers();
        if now >= self.poll_at.get() {
            self.poll_at.set(now + self.periods.poll);
            self.poll(Some(Duration::ZERO));
            let _ = self.trim_as_asked();
        }
        if now >= self.load_at.get() {
            self.measure_load(now);
            self.help_the_stuck();
            self.retry_stackless();
        }
        let after = self.ticker.now();
        self.maintain_at.set(after + self.periods.maintain);
        after
    }

    /// Nothing can run here: look everywhere once, then sleep. Returns the time after it.
    #[cold]
    #[inline(never)]
    pub(super) fn rest(&self, now: u64) -> u64 {
        self.shared.current.store(ptr::null_mut(), Ordering::Release);
        if now >= self.load_at.get() {
            self.measure_load(now);
            self.retry_stackless();
        }
        self.drain_inbox();
        self.retry_limbo();
        self.fire_timers();
        if self.queue.len() > 0 || self.shared.fresh.len() > 0 || self.steal(now) {
            return self.ticker.now();
        }
        if (now >= self.trim_at.get() && self.trim()) || self.trim_as_asked() {
            // More to give back: look at the poll in between, so that nobody waits for the whole of it.
            self.poll(Some(Duration::ZERO));
            return self.ticker.now();
        }
        if self.linger(now) {
            return self.ticker.now();
        }
        self.shared.idle.fall_asleep(&self.runtime.sleepers);
        if self.shared.inbox.is_empty()
            && !self.shared.has_retired.load(Ordering::SeqCst)
            && self.shared.fresh.looks_empty()
            && (self.held.get().is_some() || self.runtime.workers().iter().all(|w| w.fresh.looks_empty()))
            && self.shared.trim_wanted().is_none()
            && !self.must_end()
        {
            let timeout = self.rest_timeout(now);
            let has_timers = !self.timers.borrow().is_empty() || !self.stackless.borrow().is_empty();
            self.shared.has_timers.store(has_timers, Ordering::Relaxed);
            self.shared.parks.store(self.shared.parks.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            self.poll(timeout);
        }
        self.shared.idle.wake_up(&self.runtime.sleepers);
        super::stall::rouse();
        self.fire_timers();
        let after = self.ticker.now();
        self.has_rested(now, after);
        self.maintain_at.set(after + self.periods.maintain);
        self.poll_at.set(after + self.periods.poll);
        after
    }

    /// Until the next timer; shorter while there is memory to give back, a start to retry or a cell to free.
    pub(super) fn rest_timeout(&self, now: u64) -> Option<Duration> {
        let next = self.timers.borrow_mut().next_gathered_ns(GATHER_NS, GATHERED);
        let mut timeout = next.map(|at| Duration::from_nanos(at.saturating_sub(self.timer_now())));
        let mut at_most = |d: Duration| timeout = Some(timeout.map_or(d, |t| t.min(d)));
        if !self.stackless.borrow().is_empty() || !self.limbo.borrow().is_empty() || self.runtime.cancelling() {
            at_most(Duration::from_millis(10));
        }
        if let Some(held) = self.held.get() {
            at_most(crate::sys::clock::duration(held.until.saturating_sub(now)));
        }
        if self.trim_at.get() != u64::MAX {
            let left = crate::sys::clock::duration(self.trim_at.get().saturating_sub(now));
            at_most(left + Duration::from_millis(1));
        }
        timeout
    }

    /// Whether [`drain_inbox`](Worker::drain_inbox) has something to do, or soon.
    #[inline(always)]
    pub(super) fn has_mail(&self) -> bool {
        !self.shared.inbox.looks_empty() || self.shared.has_retired.load(Ordering::Relaxed)
    }

    /// Moves woken tasks from the inbox to the run queue, and forgets registrations that were closed elsewhere.
    pub(super) fn drain_inbox(&self) {
        let mut item = self.shared.inbox.take_all();
        while !item.is_null() {
            // SAFETY: delivered cells are type-stable and their link is ours now.
            let cell: &'static TaskCell = unsafe { &*item };
            item = cell.next.load(Ordering::Relaxed);
            self.queue.push(cell);
        }
        if self.shared.has_retired.load(Ordering::Relaxed) {
            for id in self.shared.take_retired() {
                self.woken_at.set(self.ticker.now());
                self.reactor.borrow_mut().remove(id, false, |task| self.unpark_own(task));
            }
            self.wake_due();
        }
    }

    pub(super) fn poll(&self, timeout: Option<Duration>) {
        let mut reactor = self.reactor.borrow_mut();
        // One look at the clock for all that one poll wakes.
        let mut first = true;
        let mut wake = |task: TaskRef| {
            if std::mem::take(&mut first) {
                self.woken_at.set(self.ticker.now());
            }
            self.unpark_own(task);
        };
        if cfg!(debug_assertions) && self.runtime.chaos.load(Ordering::Relaxed) {
            reactor.spurious(&mut wake);
        }
        Reactor::poll(&mut reactor, timeout, wake);
        drop(reactor);
        self.wake_due();
    }

    /// Wakes the futures that the reactor has put aside.
    pub(super) fn wake_due(&self) {
        let due = self.reactor.borrow_mut().take_due();
        due.into_iter().for_each(super::waker::wake);
    }

    /// What is woken next is woken by the running task.
    pub(super) fn wakes_in_slice(&self) {
        self.woken_at.set(self.shared.slice_start.load(Ordering::Relaxed));
    }

    /// Unparks a task that this worker owns.
    #[inline]
    pub(super) fn unpark_own(&self, task: TaskRef) {
        if task.cell().state.unpark(task.id()) == Unpark::Queue {
            task.cell().accounting.woken(self.woken_at.get());
            task.cell().prefetch_stack();
            self.queue.push(task.cell());
        }
    }

    fn fire_timers(&self) {
        if self.timers.borrow().is_empty() {
            return;
        }
        let now = self.timer_now();
        // In batches, so that the misses on the cells of tasks that slept for long overlap.
        let mut batch = [None; 16];
        loop {
            let mut n = 0;
            {
                let mut timers = self.timers.borrow_mut();
                while n < batch.len()
                    && let Some(due) = timers.pop_due(now)
                {
                    sys::prefetch(due.task.cast());
                    batch[n] = Some(due);
                    n += 1;
                }
            }
            if n > 0 {
                self.woken_at.set(self.ticker.now());
            }
            // No task runs in between, so what an action points to is still alive.
            batch[..n].iter_mut().filter_map(Option::take).for_each(|action| self.fire(action));
            if n < batch.len() {
                return;
            }
        }
    }

    fn fire(&self, action: TimerAction) {
        if action.task.is_null() {
            // SAFETY: just taken out of the timers.
            return unsafe { super::alarm::bell_of(&action) }.ring();
        }
        // SAFETY: timers are set by tasks of this worker with their own cell.
        let cell = unsafe { &*action.task.cast::<TaskCell>() };
        if !action.scope.is_null() {
            // SAFETY: the scope's timer fires only while the scope's frame is alive on the task's stack.
            unsafe { (*action.scope.cast::<TimeoutScope>()).expired.set(true) };
            let local = cell.local.load(Ordering::Relaxed);
            // SAFETY: a task with a scope in force has started and not ended; the task is not running now.
            unsafe { (*local).attention.set(true) };
        }
        self.unpark_own(cell.reference(action.id));
    }

    /// Updates the recent load: half old, half new, so that it follows within a few periods.
    fn measure_load(&self, now: u64) {
        let s = self.shared;
        let busy = s.busy.load(Ordering::Relaxed);
        let elapsed = now.saturating_sub(s.load_at.load(Ordering::Relaxed)).max(1);
        let part = (busy.saturating_sub(self.busy_then.get()) as u128 * 1000 / u128::from(elapsed)).min(1000) as u32;
        self.busy_then.set(busy);
        s.load.store(u32::midpoint(s.load.load(Ordering::Relaxed), part), Ordering::Relaxed);
        s.load_at.store(now, Ordering::Relaxed);
        self.load_at.set(now + self.periods.load);
    }

    /// Takes unstarted tasks from another worker of the runtime.
    fn steal(&self, now: u64) -> bool {
        let workers = self.runtime.workers();
        let me = workers.iter().position(|w| ptr::eq(*w, self.shared)).unwrap_or(0);
        let mut held = None;
        for k in 1..workers.len() {
            let at = (me + k) % workers.len();
            let victim = workers[at];
            if victim.fresh.len() == 0 || self.hold_off(at, now, &mut held) {
                continue;
            }
            if victim.fresh.steal_into(&self.shared.fresh) > 0 {
                if victim.fresh.len() > 0 {
                    self.runtime.wake_one_sleeper();
                }
                self.held.set(held);
                return true;
            }
        }
        self.held.set(held);
        false
    }

    /// Whether to leave a worker's unstarted tasks to it for a moment, because it has clearly fewer tasks than this one.
    ///
    /// A server's worker that accepts places new tasks where they are few; whoever is idle at that moment would take
    /// them away at once, for their whole life, and so collect most of the connections. If they still lie there after
    /// [`HOLD_OFF`], that worker is busy or stuck, and they are taken.
    fn hold_off(&self, at: usize, now: u64, held: &mut Option<HoldOff>) -> bool {
        let victim = self.runtime.workers()[at];
        let theirs = victim.live.load(Ordering::Relaxed) + victim.fresh.len();
        if !super::spawn::clearly_more(self.shared.live.load(Ordering::Relaxed), theirs) {
            return false;
        }
        let slices = victim.slices.load(Ordering::Relaxed);
        match self.held.get() {
            Some(h) if h.victim == at && now >= h.until => {
                // Stuck in one slice: no new pause before the next batch.
                if h.slices == slices {
                    *held = Some(h);
                }
                false
            }
            Some(h) if h.victim == at => {
                *held = Some(h);
                true
            }
            _ => {
                let until = now + crate::sys::clock::in_ticks(HOLD_OFF);
                *held = Some(HoldOff { victim: at, slices, until });
                true
            }
        }
    }

    /// A worker that has not finished a slice since the last look and has unstarted tasks gets rid of them, even
    /// while everyone else is busy.
    fn help_the_stuck(&self) {
        let workers = self.runtime.workers();
        if workers.len() < 2 {
            return;
        }
        let mut seen = self.others_slices.borrow_mut();
        seen.resize(workers.len(), 0);
        for (w, then) in workers.iter().zip(seen.iter_mut()) {
            let slices = w.slices.load(Ordering::Relaxed);
            let stuck = std::mem::replace(then, slices) == slices;
            if stuck && !ptr::eq(*w, self.shared) {
                let mut taken = 0;
                while taken < RESCUE && w.fresh.len() > 0 {
                    taken += w.fresh.steal_into(&self.shared.fresh).max(1);
                }
            }
        }
    }

    /// Tries again to start tasks for which there was no stack, on the next worker where that is allowed: near a limit
    /// the last free stacks lie in the pools of others.
    fn retry_stackless(&self) {
        if self.stackless.borrow().is_empty() {
            return;
        }
        let workers = self.runtime.workers();
        let me = workers.iter().position(|w| ptr::eq(*w, self.shared)).unwrap_or(0);
        let next = workers[(me + 1) % workers.len()];
        for cell in std::mem::take(&mut *self.stackless.borrow_mut()) {
            if cell.pinned.load(Ordering::Relaxed) == 0 {
                next.fresh.push(cell);
            } else {
                self.queue.push(cell);
            }
        }
        let _ = next.wake();
    }

    /// Gives one step's worth of idle memory back; whether there is more.
    ///
    /// What is idle is judged by the use of the stacks in the period before, not by whether the worker rests: a task
    /// that wakes up now and then must not keep the memory of a burst.
    fn trim(&self) -> bool {
        let mut stacks = self.stacks.borrow_mut();
        if !self.trimming.replace(true) {
            stacks.look_back(WARM_STACKS);
        }
        if stacks.trim_surplus(WARM_STACKS) {
            return true;
        }
        self.trimming.set(false);
        self.magazine.borrow_mut().flush(super::registry());
        self.queue.trim();
        let again = stacks.has_idle_slab(WARM_STACKS);
        self.trim_at.set(if again { self.ticker.now() + self.periods.trim } else { u64::MAX });
        false
    }

    /// Gives one step's worth of idle stacks back if somebody has asked for that, warm ones too; whether there is more.
    fn trim_as_asked(&self) -> bool {
        let Some(ticket) = self.shared.trim_wanted() else { return false };
        if self.stacks.borrow_mut().trim_step(0) {
            return true;
        }
        self.magazine.borrow_mut().flush(super::registry());
        self.queue.trim();
        self.shared.set_trimmed(ticket);
        false
    }

    /// The runtime ends and no task is left here.
    pub(super) fn must_end(&self) -> bool {
        self.runtime.ending() && self.shared.live.load(Ordering::Relaxed) == 0 && self.shared.fresh.looks_empty()
    }
}
