//! The cell of one task: 192 bytes, three cache lines, the first of which is all that a slice touches.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::label::Label;
use super::local::TaskLocal;
use super::payload::VTable;
use super::state::{Inspect, Snapshot, State};
use super::unparker::Unparker;
use crate::context::Ctx;
use crate::observe::{self, WaitKind, WaitReason};
use crate::stack::Stack;

/// How often a window is tried that somebody else has open: at first at once, then after a pause; some 20 ms in all.
const ATTEMPTS: usize = 60;
const QUICK_ATTEMPTS: usize = 20;
const PAUSE: Duration = Duration::from_micros(500);

/// The task was made by `spawn_local`: it may hold what is not `Send`, from its spawner.
pub(crate) const LOCAL: u8 = 1;
/// The task was to run on that worker, but could have been sent.
pub(crate) const PLACED: u8 = 2;

/// How many words of closure or result lie in the cell itself; larger ones are boxed.
pub(crate) const INLINE_WORDS: usize = 3;

/// Counters of one task. One writer (the owner), read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Accounting {
    slices: AtomicU64,
    run_ticks: AtomicU64,
    /// When the task last changed between unstarted, parked, runnable and running, in ticks. The two lowest bits are no time: [`WOKEN`]
    /// and [`FIRST`]. Written by the owner at the end of a slice, and by whoever made the task runnable, before it was queued.
    since: AtomicU64,
    longest_slice: Longest,
    longest_delay: Longest,
}

/// Slices shorter than this are counted, but not measured one by one.
pub(crate) const NOTEWORTHY: std::time::Duration = std::time::Duration::from_micros(1);

/// The bit of [`Accounting::since`] that says that the task was made runnable then by a spawn or a wake-up, whose delay the next slice
/// accounts for.
const WOKEN: u64 = 1;
/// The bit that says that nothing was counted yet: what stands in the counters is of another task. Most tasks that do little end
/// without a count of their own, and clearing five fields for them is a fiftieth of what spawn and join cost.
const FIRST: u64 = 2;

impl Accounting {
    /// The task is made, and to be queued; nothing is counted yet.
    #[inline(always)]
    pub(crate) fn spawned(&self, at: u64) {
        if observe::ON {
            self.since.store(at | WOKEN | FIRST, Ordering::Relaxed);
        }
    }

    /// Its counters begin; by the owner, before it counts anything.
    #[inline(always)]
    pub(crate) fn begin(&self) {
        if !observe::COUNTERS {
            return;
        }
        self.slices.store(0, Ordering::Relaxed);
        self.run_ticks.store(0, Ordering::Relaxed);
        self.longest_slice.clear();
        self.longest_delay.clear();
        // Whoever reads that they count reads these, or later ones.
        self.since.store(self.since.load(Ordering::Relaxed) & !FIRST, Ordering::Release);
    }

    /// By the owner, after [`begin`](Accounting::begin): the task has run for so long, up to then.
    #[inline(always)]
    pub(crate) fn ran(&self, length: u64, until: u64) {
        self.slices.store(self.slices.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.run_ticks.store(self.run_ticks.load(Ordering::Relaxed) + length, Ordering::Relaxed);
        self.since.store(until & !(WOKEN | FIRST), Ordering::Release);
    }

    /// A slice that is worth noting took so long; by the owner.
    #[inline(always)]
    pub(crate) fn see_slice(&self, ticks: u64) {
        self.longest_slice.see(ticks);
    }

    /// So long was a wake-up before the slice that it led to; by the owner.
    #[inline(always)]
    pub(crate) fn see_delay(&self, ticks: u64) {
        self.longest_delay.see(ticks);
    }

    /// The task was made runnable; by whoever is to queue it.
    #[inline(always)]
    pub(crate) fn woken(&self, at: u64) {
        if observe::COUNTERS {
            self.since.store(at & !FIRST | WOKEN, Ordering::Release);
        }
    }

    /// When it last changed between unstarted, parked, runnable and running; of one that runs, when it became runnable.
    pub(crate) fn changed(&self) -> u64 {
        self.since.load(Ordering::Relaxed) & !(WOKEN | FIRST)
    }

    /// When the task was made runnable, and bits that say so: the same for all that one slice spawned.
    #[inline(always)]
    pub(crate) fn made_runnable(&self) -> u64 {
        if observe::ON { self.since.load(Ordering::Relaxed) } else { 0 }
    }

    /// When the task was woken, if a wake-up is why it runs now.
    #[inline(always)]
    pub(crate) fn woken_at(&self) -> Option<u64> {
        let since = self.made_runnable();
        (since & WOKEN != 0).then_some(since & !(WOKEN | FIRST))
    }

    fn counts(&self) -> bool {
        self.since.load(Ordering::Acquire) & FIRST == 0
    }

    /// Slices run so far.
    pub(crate) fn slices(&self) -> u64 {
        if self.counts() { self.slices.load(Ordering::Relaxed) } else { 0 }
    }

    /// Ticks spent running, without the unfinished slice.
    pub(crate) fn run_ticks(&self) -> u64 {
        if self.counts() { self.run_ticks.load(Ordering::Relaxed) } else { 0 }
    }

    /// The longest slice in ticks; shorter ones than [`NOTEWORTHY`] are not looked at.
    pub(crate) fn longest_slice(&self) -> u64 {
        if self.counts() { self.longest_slice.ticks() } else { 0 }
    }

    /// The longest time between a wake-up and the slice that it led to, in ticks.
    pub(crate) fn longest_delay(&self) -> u64 {
        if self.counts() { self.longest_delay.ticks() } else { 0 }
    }
}

/// The longest of several durations in ticks, to seven digits: as the bits of a positive `f32`, whose order is that of their
/// values, so that keeping the larger one costs a conversion and a comparison.
#[derive(Debug, Default)]
pub(crate) struct Longest(AtomicU32);

impl Longest {
    /// Keeps the larger of the two; by the owner.
    #[inline(always)]
    fn see(&self, ticks: u64) {
        // Signed: the processor converts that in one instruction.
        let bits = (ticks as i64 as f32).to_bits();
        if bits > self.0.load(Ordering::Relaxed) {
            self.0.store(bits, Ordering::Relaxed);
        }
    }

    fn ticks(&self) -> u64 {
        f32::from_bits(self.0.load(Ordering::Relaxed)) as u64
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// One task. See the module's head for who may touch what.
#[repr(C, align(64))]
pub(crate) struct TaskCell {
    // First line: what every slice touches.
    pub(crate) state: State,
    /// Owner only, while the task is not running; the running task saves itself here.
    pub(crate) ctx: UnsafeCell<Ctx>,
    /// Link of the one queue that the task is in; belongs to that queue.
    pub(crate) next: AtomicPtr<TaskCell>,
    /// Set by the task itself at its start, points into its stack; null before. Owner and the task only.
    pub(crate) local: AtomicPtr<TaskLocal>,
    /// Index of the worker that started the task; written once, before `start`.
    pub(crate) owner: AtomicU16,
    /// Not to be stolen, if not 0: [`LOCAL`] or [`PLACED`]; written at spawn.
    pub(crate) pinned: AtomicU8,
    wait_kind: AtomicU8,
    /// Whether payload holds something that must be dropped: 0 nothing, 1 closure, 2 result. Follows the word.
    pub(crate) payload_kind: AtomicU8,
    /// Size class of the stack that the task will get; written at spawn.
    pub(crate) stack_class: AtomicU8,
    /// The task's class in `observe::class`; written by its worker at the start, 0 before.
    pub(crate) class: AtomicU16,

    // Second line: written at slice boundaries and at the start.
    pub(crate) accounting: Accounting,
    wait_detail: AtomicU64,
    /// Owner only.
    pub(crate) stack: UnsafeCell<Option<Stack>>,
    /// Written at spawn, then constant until the cell is freed.
    pub(crate) vtable: UnsafeCell<Option<&'static VTable>>,

    // Third line.
    /// Id of the creator, 0 for a plain thread; written at spawn.
    pub(crate) parent: AtomicU64,
    /// Null or a box. Written at spawn or once by the task itself, dropped when the cell is freed; read by others inside a
    /// window.
    pub(crate) label: AtomicPtr<Label>,
    /// Written by the handle while JOINER is clear, read by the finishing worker while it is set.
    pub(crate) joiner: UnsafeCell<Option<Unparker>>,
    /// Written at spawn, then constant.
    pub(crate) site: UnsafeCell<Option<&'static Location<'static>>>,
    /// Closure before the start, result after the end. See `payload`.
    pub(crate) payload: UnsafeCell<[MaybeUninit<u64>; INLINE_WORDS]>,
}

// SAFETY: the state word hands exclusive access to the unsynchronised fields from thread to thread; the module's head
// and each field say which state gives it to whom.
unsafe impl Sync for TaskCell {}
// SAFETY: cells are moved between threads only as references, under the same rules.
unsafe impl Send for TaskCell {}

const _: () = assert!(size_of::<TaskCell>() == 192);

impl TaskCell {
    /// Says that there is no stack for the task, and why. By the worker that was to start it.
    pub(crate) fn set_stackless(&self, errno: i32) {
        // What a cell says of a wait is left there by the task before: so whose it is stands beside it.
        let id = self.state.snapshot().id();
        self.set_wait(WaitReason::new(WaitKind::Stack, id << 16 | u64::from(errno as u16)));
    }

    /// Why the unstarted task of that id has no stack, if none was to be had.
    pub(crate) fn stackless(&self, id: u64) -> Option<WaitReason> {
        let wait = self.wait();
        let is_its_own = wait.kind == WaitKind::Stack && wait.detail >> 16 == id;
        is_its_own.then(|| WaitReason::new(WaitKind::Stack, wait.detail & 0xffff))
    }

    /// Says what the task is about to wait for. By the running task.
    #[inline(always)]
    pub(crate) fn set_wait(&self, reason: WaitReason) {
        if observe::REASONS {
            self.wait_kind.store(reason.kind.byte(), Ordering::Relaxed);
            self.wait_detail.store(reason.detail, Ordering::Relaxed);
        }
    }

    /// What the task waits for; meaningful while it is parked.
    pub(crate) fn wait(&self) -> WaitReason {
        let kind = WaitKind::from_byte(self.wait_kind.load(Ordering::Relaxed));
        match kind {
            WaitKind::None => WaitReason::of(kind),
            _ => WaitReason::new(kind, self.wait_detail.load(Ordering::Relaxed)),
        }
    }

    /// What is known of the task by names, for the owner or inside an inspection window.
    ///
    /// # Safety
    /// The caller is the owner of the cell in its present state, or holds its inspection window.
    pub(crate) unsafe fn label(&self) -> Option<&Label> {
        let label = self.label.load(Ordering::Acquire);
        // SAFETY: a box that was complete before its address was stored; dropped after the last window closed.
        (!label.is_null()).then(|| unsafe { &*label })
    }

    /// Opens the inspection window of whatever task is there. Somebody else's lasts microseconds, but they may have lost their
    /// CPU in it; so this tries for some 20 ms, and may sleep. `None` if there is no task.
    pub(crate) fn enter(&self) -> Option<Window<'_>> {
        self.enter_within(ATTEMPTS)
    }

    /// As [`TaskCell::enter`], for who cannot wait.
    pub(crate) fn enter_quickly(&self) -> Option<Window<'_>> {
        self.enter_within(QUICK_ATTEMPTS)
    }

    fn enter_within(&self, attempts: usize) -> Option<Window<'_>> {
        if !observe::WINDOW {
            return None;
        }
        for attempt in 0..attempts {
            match self.state.inspect_begin() {
                Inspect::Entered(word) => return Some(Window { cell: self, word }),
                Inspect::Gone => return None,
                Inspect::Busy if attempt < QUICK_ATTEMPTS => std::thread::yield_now(),
                Inspect::Busy => std::thread::sleep(PAUSE),
            }
        }
        None
    }

    /// The name.
    ///
    /// # Safety
    /// As for [`TaskCell::label`].
    pub(crate) unsafe fn name(&self) -> Option<&str> {
        // SAFETY: forwarded.
        unsafe { self.label() }.and_then(|l| l.name.as_deref())
    }

    /// The class that was given at spawn; without one the spawn site is the class.
    ///
    /// # Safety
    /// As for [`TaskCell::label`].
    pub(crate) unsafe fn class_name(&self) -> Option<&str> {
        // SAFETY: forwarded.
        unsafe { self.label() }.and_then(|l| l.class.as_deref())
    }

    /// Gives the task its label; once.
    ///
    /// # Safety
    /// By the task itself, or by whoever makes it; it has none yet.
    pub(crate) unsafe fn set_label(&self, label: Box<Label>) {
        self.label.store(Box::into_raw(label), Ordering::Release);
    }

    /// # Safety
    /// The caller owns the cell: nobody reads it any more.
    #[inline(always)]
    pub(crate) unsafe fn drop_label(&self) {
        // No exchange: nobody else changes it.
        let label = self.label.load(Ordering::Relaxed);
        if !label.is_null() {
            self.label.store(ptr::null_mut(), Ordering::Relaxed);
            // SAFETY: came from `set_label`, and is nobody else's now.
            drop_box(unsafe { Box::from_raw(label) });
        }
    }

    /// Fetches the innermost part of the stack, which the next slice will touch. By the owner, between slices.
    #[inline(always)]
    pub(crate) fn prefetch_stack(&self) {
        // SAFETY: the task is in its owner's run queue: its context is still and the owner's to read. An unstarted
        // task's is whatever it was; a prefetch of any address is harmless.
        let sp = unsafe { (*self.ctx.get()).sp } as *const u8;
        crate::sys::prefetch(sp);
        crate::sys::prefetch(sp.wrapping_add(64));
        crate::sys::prefetch(self.local.load(Ordering::Relaxed).cast());
    }

    /// Fetches the cell itself, for a walk that will come to it soon.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        let cell = ptr::from_ref(self).cast::<u8>();
        (0..size_of::<TaskCell>() / 64).for_each(|line| crate::sys::prefetch(cell.wrapping_add(64 * line)));
    }

    /// Fetches the innermost part of the stack, whosever it is, for the same walk: 1.5 KiB, which is all of most stacks. If the
    /// task runs meanwhile, what is fetched is of no use.
    #[inline(always)]
    pub(crate) fn prefetch_others_stack(&self) {
        // SAFETY: the context lies in the cell, which is mapped.
        unsafe { crate::sys::prefetch_through(&raw const (*self.ctx.get()).sp, 24) };
    }

    /// A reference by identity.
    pub(crate) fn reference(&self, id: u64) -> TaskRef {
        TaskRef { cell: NonNull::from(self), id }
    }
}

/// Few tasks have one: the others' end shall not be a call away.
#[cold]
#[inline(never)]
fn drop_box(label: Box<Label>) {
    drop(label);
}

/// An open inspection window of one task (see `state`), which is closed when this is dropped, also by a panic.
///
/// As long as it is open a task that does not run cannot run: nothing may be allocated, freed, locked or asked of the system
/// meanwhile, and what is copied has its room from before.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    cell: &'a TaskCell,
    word: Snapshot,
}

impl Window<'_> {
    /// The word as it was at the entry.
    pub(crate) fn word(&self) -> Snapshot {
        self.word
    }

    /// The task's id.
    pub(crate) fn id(&self) -> u64 {
        self.word.id()
    }

    /// What is known of the task by names.
    pub(crate) fn label(&self) -> Option<&Label> {
        // SAFETY: the window keeps the cell from being emptied, whatever the task does (`State::may_empty`).
        unsafe { self.cell.label() }
    }

    /// See [`State::inspect_confirm`].
    pub(crate) fn holds(&self) -> bool {
        self.cell.state.inspect_confirm(self.id())
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.cell.state.inspect_end(self.word.id());
    }
}

impl std::fmt::Debug for TaskCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskCell").field("state", &self.state.snapshot()).finish_non_exhaustive()
    }
}

/// A task by identity: may outlive the task, costs nothing to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TaskRef {
    pub(super) cell: NonNull<TaskCell>,
    pub(super) id: u64,
}

// SAFETY: the cell is type-stable (never unmapped) and everything reachable through it is checked against the id.
unsafe impl Send for TaskRef {}
// SAFETY: as above; there is no interior access without the state word.
unsafe impl Sync for TaskRef {}
// Nothing of the task can be seen half changed through a reference by identity.
impl UnwindSafe for TaskRef {}
impl RefUnwindSafe for TaskRef {}

impl TaskRef {
    pub(crate) fn id(self) -> u64 {
        self.id
    }

    /// The cell, which may by now belong to another task: compare ids through its state.
    pub(crate) fn cell(self) -> &'static TaskCell {
        // SAFETY: cells are type-stable; see the module's head.
        unsafe { self.cell.as_ref() }
    }
}

#[cfg(all(test, not(coro_no_observation)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_cell_counted_for_a_former_task_is_told_of_no_later_one() {
        let a = Accounting::default();
        let all = || (a.slices(), a.run_ticks(), a.longest_slice(), a.longest_delay());
        a.spawned(1000);
        assert_eq!((all(), a.woken_at(), a.changed()), ((0, 0, 0, 0), Some(1000), 1000));
        a.begin();
        a.see_delay(4096);
        a.see_slice(8192);
        a.ran(512, 2000);
        assert_eq!((all(), a.woken_at(), a.changed()), ((1, 512, 8192, 4096), None, 2000));
        a.woken(3000);
        assert_eq!((all(), a.woken_at(), a.changed()), ((1, 512, 8192, 4096), Some(3000), 3000));
        a.spawned(4000);
        assert_eq!((all(), a.woken_at(), a.changed()), ((0, 0, 0, 0), Some(4000), 4000));
        a.begin();
        assert_eq!((all(), a.woken_at(), a.changed()), ((0, 0, 0, 0), Some(4000), 4000));
        a.ran(16, 5000);
        assert_eq!((all(), a.woken_at()), ((1, 16, 0, 0), None));
    }
}
