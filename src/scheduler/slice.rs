//! One slice: resume a task, account for it, and settle why it came back.

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::Ordering;

use super::stall;
use super::worker::{FRESH_PER_ROUND, Outcome, Worker};
use crate::context::{self, Ctx};
use crate::observe::{self, After, Overrun, SLICE_OVERRUN, ShortName, class};
use crate::stack;
use crate::sys::atomic::publish;
use crate::task::state::{CellFate, Finish, Life, Park, Snapshot, Start};
use crate::task::{LocalRoom, TaskCell, payload_is_empty};

impl Worker {
    /// Runs `cell` until it yields, parks or ends. `now` is the end of the slice before; returns the end of this one. `FRESH`: it comes
    /// from `fresh`, where all are unstarted.
    #[inline(always)]
    pub(super) fn slice<const FRESH: bool>(&self, cell: &'static TaskCell, now: u64) -> u64 {
        let shared = self.shared;
        let running = ptr::from_ref(cell).cast_mut();
        if observe::WINDOW && FRESH {
            // No exchange: whoever finds the task started has read what its start released. But whoever finds it here takes the one before
            // it for one that has left its stack.
            shared.current.store(running, Ordering::Release);
        } else if observe::WINDOW {
            publish(&shared.current, running);
        }
        let word = cell.state.resume_check();
        if (word.inspected() || word.life() == Life::Unstarted) && !self.admit::<FRESH>(cell, word) {
            self.end_stretch(now);
            return self.ticker.now();
        }
        let number = shared.slices.load(Ordering::Relaxed) + 1;
        let now = if observe::ON { self.begin::<FRESH>(cell, number, now) } else { now };
        shared.slices.store(number, Ordering::Relaxed);
        self.current.set(cell);
        self.resume(cell);
        self.current.set(ptr::null());

        let outcome = self.outcome.get();
        if FRESH && outcome == Outcome::Ended {
            let untimed =
                observe::ON && shared.slices.load(Ordering::Relaxed) < shared.stretch_end.load(Ordering::Relaxed);
            if untimed || !observe::ON {
                self.settle_end(cell, true);
                return if observe::ON { now } else { self.time_now_and_then(now) };
            }
        }
        let end = if observe::ON { self.account::<FRESH>(cell, now) } else { self.time_now_and_then(now) };
        match outcome {
            Outcome::Yielded => self.queue.push(cell),
            Outcome::Parked => match cell.state.park() {
                Park::Parked => {}
                Park::TokenTaken => self.queue.push(cell),
            },
            Outcome::Ended => self.settle_timed_end(cell),
        }
        end
    }

    /// Where slices are not timed: the loop itself needs the time now and then.
    #[inline(always)]
    fn time_now_and_then(&self, now: u64) -> u64 {
        if self.shared.slices.load(Ordering::Relaxed).is_multiple_of(16) { self.ticker.now() } else { now }
    }

    /// A slice begins: in the stretch of those before it, or with its own time.
    #[inline(always)]
    fn begin<const FRESH: bool>(&self, cell: &TaskCell, number: u64, now: u64) -> u64 {
        if !FRESH {
            return self.begin_slice::<FRESH>(cell, now);
        }
        let of = (cell.class.load(Ordering::Relaxed), cell.accounting.made_runnable());
        if self.stretch.takes(of) { now } else { self.begin_stretch(cell, number, now) }
    }

    /// A first slice begins that has its own time. Not inlined: those that have not go straight on.
    #[inline(never)]
    fn begin_stretch(&self, cell: &TaskCell, number: u64, now: u64) -> u64 {
        let spawned = cell.accounting.made_runnable();
        let now = self.begin_slice::<true>(cell, now);
        // Its class may have been found only now.
        let end = self.stretch.begins((cell.class.load(Ordering::Relaxed), spawned), number);
        self.shared.stretch_end.store(end, Ordering::Relaxed);
        now
    }

    /// A slice begins that has its own time: from now, or from the reading that those before it still need.
    #[inline(always)]
    fn begin_slice<const FRESH: bool>(&self, cell: &TaskCell, now: u64) -> u64 {
        let now = if self.stretch.is_empty() { now } else { self.end_stretch(now) };
        if FRESH {
            self.begin_accounting(cell);
        }
        if observe::COUNTERS
            && let Some(woken) = cell.accounting.woken_at()
        {
            self.account_delay(cell, now.saturating_sub(woken));
        }
        self.shared.slice_start.store(now, Ordering::Relaxed);
        now
    }

    /// A slice has ended, and the time is read.
    #[inline(always)]
    fn account<const FRESH: bool>(&self, cell: &TaskCell, begin: u64) -> u64 {
        let end = if observe::CLOCK { self.ticker.now() } else { self.time_now_and_then(begin) };
        if !observe::COUNTERS {
            return end;
        }
        let length = end.saturating_sub(begin);
        let (shared, a) = (self.shared, &cell.accounting);
        let before = if FRESH { self.stretch.before(shared.slices.load(Ordering::Relaxed)) } else { 0 };
        if before != 0 {
            a.begin();
        }
        a.ran(length, end);
        shared.busy.store(shared.busy.load(Ordering::Relaxed) + length, Ordering::Relaxed);
        if FRESH {
            self.account_first(cell, before, begin, length);
        }
        if length > self.periods.noteworthy {
            self.account_slice(cell, length);
        }
        end
    }

    /// What was not timed yet has its time: from `begin` up to now, which is returned; `begin` if there is no such thing.
    #[inline(never)]
    pub(super) fn end_stretch(&self, begin: u64) -> u64 {
        if self.stretch.is_empty() {
            return begin;
        }
        let end = self.ticker.now();
        let length = end.saturating_sub(begin);
        let s = self.shared;
        s.busy.store(s.busy.load(Ordering::Relaxed) + length, Ordering::Relaxed);
        self.count_stretch(begin, self.stretch.before(s.slices.load(Ordering::Relaxed) + 1), 0, length);
        if length > self.periods.noteworthy
            && let Some(stats) = s.class_stats(self.stretch.of().0)
        {
            stats.slices.record(length);
        }
        self.was_read(length);
        end
    }

    /// The first slice of a task was timed, perhaps together with those before it.
    #[inline(never)]
    fn account_first(&self, cell: &TaskCell, before: u64, begin: u64, length: u64) {
        if before != 0 {
            let delay = self.count_stretch(begin, before, 1, 0);
            self.see_delay(cell, delay);
        }
        self.was_read(length);
    }

    #[inline(always)]
    fn was_read(&self, length: u64) {
        if length > self.periods.together {
            self.fresh_left.set(self.fresh_left.get().min(FRESH_PER_ROUND));
        }
        self.stretch.was_read(length, self.periods.together, stall::is_watched);
    }

    /// Counts the `ended` of the stretch, with their time, and how long they had waited at its beginning, which is returned.
    /// The first one's delay is counted already; `more` have begun since, and have not ended.
    fn count_stretch(&self, begin: u64, ended: u64, more: u64, length: u64) -> u64 {
        let (class, woken) = self.stretch.of();
        let delay = begin.saturating_sub(woken);
        if let Some(stats) = self.shared.class_stats(class) {
            stats.delays.record_each(delay, ended - 1 + more);
            stats.tasks_ended(ended, ended, length);
        }
        delay
    }

    /// The switch there and back.
    #[inline(always)]
    fn resume(&self, cell: &TaskCell) {
        // SAFETY: the task is ACTIVE, ours and not being inspected, so its context and stack are ours; the fiber is
        // touched by the loop only.
        unsafe {
            let fiber = &mut *self.fiber.get();
            if cfg!(coro_asan)
                && let Some(s) = &*cell.stack.get()
            {
                fiber.leave_for(s.limit(), s.slot_top() - s.limit());
            }
            context::switch(self.ctx.get(), cell.ctx.get());
            fiber.back();
        }
    }

    /// The rare cases before a slice: somebody reads the task, or it runs for the first time.
    #[cold]
    #[inline(never)]
    fn admit<const FRESH: bool>(&self, cell: &'static TaskCell, word: Snapshot) -> bool {
        let go = !word.inspected() && self.start::<FRESH>(cell);
        if !go {
            // Nobody runs: let the inspector see that.
            self.shared.current.store(ptr::null_mut(), Ordering::Release);
        }
        if word.inspected() {
            self.requeue(cell, word);
        }
        go
    }

    fn requeue(&self, cell: &'static TaskCell, word: Snapshot) {
        if word.life() == Life::Unstarted && cell.pinned.load(Ordering::Relaxed) == 0 {
            self.shared.fresh.push(cell);
        } else {
            self.queue.push(cell);
        }
        if self.queue.len() + self.shared.fresh.len() <= 1 {
            // Only this task could run: give the reader the CPU rather than spin beside it.
            std::thread::yield_now();
        }
    }

    /// UNSTARTED → ACTIVE with a stack and a context; false when the task went back to wait.
    fn start<const FRESH: bool>(&self, cell: &'static TaskCell) -> bool {
        let class = stack::ClassId::from_index(cell.stack_class.load(Ordering::Relaxed));
        let stack = match self.stacks.borrow_mut().take(class) {
            Ok(stack) => stack,
            Err(e) => {
                cell.set_stackless(e.raw_os_error().unwrap_or(libc::ENOMEM));
                self.stackless.borrow_mut().push(cell);
                return false;
            }
        };
        let top = stack.top();
        cell.owner.store(self.shared.index, Ordering::Relaxed);
        match cell.state.start() {
            Start::Run => {}
            Start::Inspected => {
                self.stacks.borrow_mut().give(stack);
                self.requeue(cell, cell.state.snapshot());
                return false;
            }
        }
        // SAFETY: ACTIVE and ours; nobody else touches these fields until the next window, which opens after the
        // first slice has ended.
        unsafe {
            *cell.stack.get() = Some(stack);
            *cell.ctx.get() = Ctx::new(top, task_main, ptr::from_ref(cell).cast_mut().cast());
        }
        if observe::ON && !FRESH {
            self.begin_accounting(cell);
        }
        let live = &self.shared.live;
        live.store(live.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        true
    }

    /// Of a task whose last slice was timed.
    #[inline(never)]
    fn settle_timed_end(&self, cell: &'static TaskCell) {
        self.settle_end(cell, false);
    }

    /// ACTIVE → DONE and what follows from it. `untimed`: it is counted at the end of its stretch.
    #[inline(always)]
    fn settle_end(&self, cell: &'static TaskCell, untimed: bool) {
        cell.local.store(ptr::null_mut(), Ordering::Relaxed);
        self.settle_unwinding();
        // SAFETY: the task has left its stack for good and is still ours.
        let stack = unsafe { (*cell.stack.get()).take() };
        if let Some(stack) = stack {
            let class = stack.class();
            self.stacks.borrow_mut().give(stack);
            self.return_credit(class);
        }
        if self.trim_at.get() == u64::MAX {
            self.trim_at.set(self.ticker.now() + self.periods.trim);
        }
        let s = self.shared;
        s.live.store(s.live.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        if observe::ON
            && !untimed
            && let Some(stats) = s.class_stats(cell.class.load(Ordering::Relaxed))
        {
            let a = &cell.accounting;
            stats.tasks_ended(1, a.slices(), a.run_ticks());
        }
        match cell.state.finish() {
            Finish::HandleOwns => {}
            Finish::Free => self.free_cell(cell),
            Finish::WakeJoiner => {
                // SAFETY: JOINER was set when the task ended, so the slot is ours to read until `release`.
                let joiner = unsafe { (*cell.joiner.get()).take() };
                if let Some(joiner) = joiner {
                    super::waker::wake_and_drop(joiner);
                }
                match cell.state.release() {
                    CellFate::CallerFrees => self.free_cell(cell),
                    CellFate::OtherFrees => {}
                }
            }
        }
        s.ended.store(s.ended.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Frees a cell whose task has ended and whose handle is gone; later, if somebody still reads it.
    #[inline]
    pub(crate) fn free_cell(&self, cell: &'static TaskCell) {
        if !cell.state.may_empty() {
            self.limbo.borrow_mut().push(cell);
            return;
        }
        // SAFETY: DONE, released, without a handle and unread: the cell is the caller's alone.
        unsafe { empty_cell(cell) };
        self.magazine.borrow_mut().give(super::registry(), cell);
    }

    /// Frees the cells that an inspector was reading when they were to be freed.
    pub(super) fn retry_limbo(&self) {
        if !self.limbo.borrow().is_empty() {
            for cell in self.limbo.take() {
                self.free_cell(cell);
            }
        }
    }

    /// As `retry_limbo`, and waits for the readers: before the worker goes.
    pub(super) fn empty_limbo(&self) {
        while !self.limbo.borrow().is_empty() {
            self.retry_limbo();
            std::thread::yield_now();
        }
    }

    /// From now on the task is counted: as itself, and in its class.
    fn begin_accounting(&self, cell: &TaskCell) {
        cell.accounting.begin();
        let mut number = cell.class.load(Ordering::Relaxed);
        if number == class::NONE {
            number = self.look_up_class(cell);
        }
        if self.used_class.get() != number {
            self.used_class.set(number);
            self.shared.use_class(number);
        }
    }

    #[cold]
    #[inline(never)]
    fn look_up_class(&self, cell: &TaskCell) -> u16 {
        // SAFETY: the task is ours, and both are constant since its spawn.
        let (name, site) = unsafe { (cell.class_name(), *cell.site.get()) };
        let number = match (name, site) {
            (Some(name), _) => self.classes.of_name(name),
            (None, Some(site)) => self.classes.of_site(site),
            (None, None) => class::OTHER,
        };
        cell.class.store(number, Ordering::Relaxed);
        number
    }

    /// A slice begins that a wake-up or the spawn led to, so long ago.
    #[inline]
    fn account_delay(&self, cell: &TaskCell, delay: u64) {
        let Some(stats) = self.shared.class_stats(cell.class.load(Ordering::Relaxed)) else { return };
        stats.delays.record_short(delay);
        self.see_delay(cell, delay);
    }

    #[inline]
    fn see_delay(&self, cell: &TaskCell, delay: u64) {
        if delay > self.periods.noteworthy {
            cell.accounting.see_delay(delay);
        }
    }

    /// A slice has ended that was long enough to be looked at. Not inlined: the short ones need none of it, and what counts instructions
    /// leaves it out by its name, because under that every slice is long.
    #[inline(never)]
    fn account_slice(&self, cell: &TaskCell, length: u64) {
        if let Some(stats) = self.shared.class_stats(cell.class.load(Ordering::Relaxed)) {
            stats.slices.record(length);
        }
        cell.accounting.see_slice(length);
        if length > stall::floor() {
            self.report_overrun(cell, length);
        }
    }

    #[cold]
    #[inline(never)]
    fn report_overrun(&self, cell: &TaskCell, length: u64) {
        // SAFETY: the owner may read the label while the task is ACTIVE.
        let label = unsafe { cell.label() };
        let threshold = stall::threshold(label);
        let Some(report) = SLICE_OVERRUN.get().filter(|_| length > threshold) else { return };
        let s = self.shared;
        let start = s.slice_start.load(Ordering::Relaxed);
        report(&Overrun {
            worker: s.index,
            ordinal: s.ordinal() as u16,
            slice: s.slices.load(Ordering::Relaxed),
            start,
            end: start + length,
            threshold,
            id: cell.state.snapshot().id(),
            at: ptr::from_ref(cell).addr(),
            after: match self.outcome.get() {
                Outcome::Yielded => After::Queued,
                Outcome::Parked => After::Parked,
                Outcome::Ended => After::Ended,
            },
            name: ShortName::new(label.and_then(|l| l.name.as_deref())),
        });
    }
}

/// Drops what the payload holds, if anything.
///
/// # Safety
/// The caller owns the payload: it holds the handle and the result was offered, or it owns the cell.
pub(super) unsafe fn drop_payload(cell: &TaskCell) {
    // SAFETY: the table was stored at spawn and stays until the cell is freed; the payload is the caller's.
    unsafe {
        if !payload_is_empty(cell)
            && let Some(table) = *cell.vtable.get()
        {
            (table.drop_payload)(cell);
        }
    }
}

/// Drops what a cell of an ended task still holds and marks it free.
///
/// # Safety
/// The caller owns the cell: DONE, released, no handle, and `may_empty` said so.
pub(super) unsafe fn empty_cell(cell: &TaskCell) {
    // SAFETY: by the caller's promise.
    unsafe {
        drop_payload(cell);
        cell.drop_label();
        drop((*cell.joiner.get()).take());
    }
    cell.state.free();
}

/// What every task runs: its closure, under a catch.
unsafe extern "C-unwind" fn task_main(arg: *mut ()) -> ! {
    // SAFETY: `Ctx::new` got a cell of static life.
    let cell: &'static TaskCell = unsafe { &*arg.cast::<TaskCell>() };
    let fiber = UnsafeCell::new(context::sanitizer::Fiber::new());
    // SAFETY: local to this frame.
    unsafe { (*fiber.get()).arrive() };
    let mut place = LocalRoom::new();
    let local = place.fill();
    #[cfg(coro_asan)]
    local.fiber.set(fiber.get());
    cell.local.store(ptr::from_ref(local).cast_mut(), Ordering::Relaxed);
    // SAFETY: ours while the task runs.
    if let Some(stack) = unsafe { &*cell.stack.get() } {
        let room = if cfg!(any(miri, coro_thread_context)) {
            usize::MAX
        } else {
            ptr::from_ref(local).addr().wrapping_sub(stack.limit())
        };
        local.room.set(room);
        local.whole_room.set(room);
    }
    if let Some(w) = Worker::current() {
        local.started.set(w.shared.slice_start.load(Ordering::Relaxed));
    }
    #[cfg(feature = "tracing")]
    // SAFETY: the task itself runs, and its name stays until its cell is freed.
    local.spans.begin(cell.state.snapshot().id(), unsafe { cell.name() });
    let failed = super::suspend::run_closure(cell);
    #[cfg(feature = "tracing")]
    local.spans.end();
    let Some(worker) = Worker::current() else { crate::sys::fork::end_child(failed) };
    worker.outcome.set(Outcome::Ended);
    // SAFETY: the loop's context was saved when this task was resumed; nothing on this stack needs dropping.
    unsafe {
        (*fiber.get()).return_to_other(true);
        context::finish(cell.ctx.get(), worker.ctx.get())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::super::runtime::Runtime;
    use super::super::shared::ClassStats;
    use super::super::spawn::spawn;
    use super::super::suspend::yield_slice;
    use crate::observe::{Distribution, class};
    use crate::task::state::{Inspect, Life};

    #[track_caller]
    fn until(what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "{what} did not happen");
            std::thread::yield_now();
        }
    }

    /// However slices are timed, one by one or several together: no time is lost, none is counted twice, and what a class took is
    /// told of no other.
    #[test]
    fn all_time_belongs_to_some_class() {
        fn spin(times: u32) {
            for _ in 0..times {
                std::hint::spin_loop();
            }
        }
        let runtime = Runtime::builder().workers(1).build().unwrap();
        runtime.block_on(|| {
            for seed in 0..8u64 {
                let tasks: Vec<_> = (0..4000u64)
                    .map(|n| {
                        let hash = (n / (1 + 2 * seed)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                        match hash % 16 {
                            0 => spawn(yield_slice),
                            1 => spawn(|| spin(2000)),
                            2..6 => spawn(|| spin(10)),
                            _ => spawn(|| ()),
                        }
                    })
                    .collect();
                tasks.into_iter().for_each(|t| t.join().unwrap());
            }
        });
        let worker = runtime.inner().workers()[0];
        let all = || (0..class::count()).filter_map(|n| worker.class_stats(n));
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        until("the last time", || {
            let sum = |total: fn(&ClassStats) -> &AtomicU64| all().map(|stats| of(total(stats))).sum::<u64>();
            let busy = sum(|stats| &stats.ended_ticks) == of(&worker.busy);
            busy && sum(|stats| &stats.ended) == 32_001 && sum(|stats| &stats.ended_slices) == of(&worker.slices)
        });
        // Whoever was only spawned, or went on by itself, has one delay; the one that joins has more.
        let delays = |stats: &ClassStats| {
            let mut all = Distribution::default();
            stats.delays.add_to(&mut all);
            all.count()
        };
        let more: Vec<_> =
            all().map(|stats| (of(&stats.ended), delays(stats))).filter(|(ended, n)| n != ended).collect();
        assert!(more.len() == 1 && more[0].1 > more[0].0, "{more:?}");
    }

    #[test]
    fn a_cell_read_while_its_task_runs_to_its_end_is_freed_after_the_reader() {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        let (running, runs) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let handle = runtime.spawn(move || {
            running.send(()).unwrap();
            let _ = ended.recv();
        });
        runs.recv().unwrap();
        let id = handle.id();
        let cell = super::super::all_cells().find(|c| c.state.snapshot().id() == id).unwrap();
        assert!(matches!(cell.state.inspect_begin(), Inspect::Entered(_)));
        drop(handle);
        drop(end);
        until("the task's end", || runtime.inner().workers()[0].ended.load(Ordering::Acquire) == 1);
        let word = cell.state.snapshot();
        assert_eq!((word.id(), word.life()), (id, Life::Done), "freed under the reader");
        cell.state.inspect_end(id);
        until("freeing the cell", || cell.state.snapshot().id() != id);
    }
}
