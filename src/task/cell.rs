//! The cell of one task: 192 bytes, three cache lines, the first of which is all that a slice touches.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU64, Ordering};

use super::local::TaskLocal;
use super::payload::VTable;
use super::state::State;
use crate::context::Ctx;
use crate::observe::{WaitKind, WaitReason};
use crate::stack::Stack;
use crate::sys::parker::ThreadParker;

/// How many words of closure or result lie in the cell itself; larger ones are boxed.
pub(crate) const INLINE_WORDS: usize = 3;

/// Counters of one task. One writer (the owner), read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Accounting {
    /// Slices run so far.
    pub(crate) slices: AtomicU64,
    /// Ticks spent running, without the unfinished slice.
    pub(crate) run_ticks: AtomicU64,
    /// When the task last changed between running and not running, in ticks.
    pub(crate) since: AtomicU64,
}

/// What a task was called at its spawn.
#[derive(Debug)]
pub(crate) struct Label {
    /// Shared with the `Thread`s that name the task.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) class: Option<Box<str>>,
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
    /// Not to be stolen (made by `spawn_local`); written at spawn.
    pub(crate) pinned: AtomicU8,
    wait_kind: AtomicU8,
    /// Whether payload holds something that must be dropped: 0 nothing, 1 closure, 2 result. Follows the word.
    pub(crate) payload_kind: AtomicU8,
    /// Size class of the stack that the task will get; written at spawn.
    pub(crate) stack_class: AtomicU8,

    // Second line: written at slice boundaries and at the start.
    pub(crate) accounting: Accounting,
    wait_detail: AtomicU64,
    /// Owner only.
    pub(crate) stack: UnsafeCell<Option<Stack>>,
    /// Written at spawn, then constant until the cell is freed.
    pub(crate) vtable: UnsafeCell<Option<&'static VTable>>,
    /// Written at spawn, then constant.
    pub(crate) site: UnsafeCell<Option<&'static Location<'static>>>,

    // Third line.
    /// Id of the creator, 0 for a plain thread; written at spawn.
    pub(crate) parent: AtomicU64,
    /// Written at spawn, dropped when the cell is freed; read by others inside a window.
    pub(crate) label: UnsafeCell<Option<Box<Label>>>,
    /// Written by the handle while JOINER is clear, read by the finishing worker while it is set.
    pub(crate) joiner: UnsafeCell<Option<Unparker>>,
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
    /// Says what the task is about to wait for. By the running task.
    #[inline(always)]
    pub(crate) fn set_wait(&self, reason: WaitReason) {
        self.wait_kind.store(reason.kind as u8, Ordering::Relaxed);
        self.wait_detail.store(reason.detail, Ordering::Relaxed);
    }

    /// What the task waits for; meaningful while it is parked.
    pub(crate) fn wait(&self) -> WaitReason {
        let kind = WaitKind::from_byte(self.wait_kind.load(Ordering::Relaxed));
        WaitReason::new(kind, self.wait_detail.load(Ordering::Relaxed))
    }

    /// The name, for the owner or inside an inspection window.
    ///
    /// # Safety
    /// The caller is the owner of the cell in its present state, or holds its inspection window.
    pub(crate) unsafe fn name(&self) -> Option<&str> {
        // SAFETY: the name is written before the word is published and dropped after the last window closed.
        unsafe { (*self.label.get()).as_deref().and_then(|l| l.name.as_deref()) }
    }

    /// The class that was given at spawn; without one the spawn site is the class.
    ///
    /// # Safety
    /// As for [`TaskCell::name`].
    pub(crate) unsafe fn class(&self) -> Option<&str> {
        // SAFETY: as for the name.
        unsafe { (*self.label.get()).as_deref().and_then(|l| l.class.as_deref()) }
    }

    /// Fetches the innermost part of the stack, which the next slice will touch. By the owner, between slices.
    #[inline(always)]
    pub(crate) fn prefetch_stack(&self) {
        // SAFETY: the task is in its owner's run queue: its context is still and the owner's to read. An unstarted
        // task's is whatever it was; a prefetch of any address is harmless.
        let sp = unsafe { (*self.ctx.get()).sp } as *const u8;
        crate::sys::prefetch(sp);
    }

    /// A reference by identity.
    pub(crate) fn reference(&self, id: u64) -> TaskRef {
        TaskRef { cell: ptr::from_ref(self), id }
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
    cell: *const TaskCell,
    id: u64,
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
        unsafe { &*self.cell }
    }
}

/// Who is to be woken: a task or a plain thread.
#[derive(Debug, Clone)]
pub(crate) enum Unparker {
    Task(TaskRef),
    Thread(Arc<ThreadParker>),
}
