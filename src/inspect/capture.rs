//! One task, copied inside its inspection window.
//!
//! The window is a few loads and one copy of the used stack. Strings behind pointers (the name) and the owner of a lock
//! are read inside it, because only then are they known to live.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::walk::Registers;
use crate::observe::{Object, WaitKind, WaitReason};
use crate::scheduler::shared::worker_at;
use crate::task::TaskCell;
use crate::task::state::{Inspect, Life};

/// Longest part of a stack that is copied, innermost part first.
const LONGEST: usize = 1 << 20;
const ATTEMPTS: u32 = 50;

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Unstarted,
    Runnable,
    /// On that worker (its place in the process's table).
    Running(u16),
    Parked,
}

/// What was copied of an [`Object`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// See [`Object::owner`].
    pub(super) owner: u64,
    /// See [`Object::since`].
    pub(super) since: u64,
    pub(super) name: Option<&'static str>,
    pub(super) site: &'static std::panic::Location<'static>,
}

/// The copy. `bytes` is reused from task to task.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) id: u64,
    pub(super) doing: Doing,
    pub(super) since: u64,
    pub(super) slices: u64,
    pub(super) name: Option<String>,
    pub(super) class: Option<String>,
    /// Number of the class; 0 for an unstarted task.
    pub(super) class_number: u16,
    pub(super) labels: Vec<(String, String)>,
    pub(super) run_ticks: u64,
    pub(super) longest_slice: Duration,
    pub(super) longest_delay: Duration,
    /// When the task first ran, in ticks, where that is known.
    pub(super) started: Option<u64>,
    pub(super) owner: u16,
    pub(super) wait: WaitReason,
    /// What is waited for, where that is an object of `sync`.
    pub(super) object: Option<Seen>,
    pub(super) site: Option<&'static std::panic::Location<'static>>,
    pub(super) parent: u64,
    pub(super) registers: Option<Registers>,
    pub(super) base: usize,
    pub(super) bytes: Vec<u8>,
}

impl Captured {
    pub(super) fn new() -> Captured {
        Captured {
            id: 0,
            doing: Doing::Unstarted,
            since: 0,
            slices: 0,
            name: None,
            class: None,
            class_number: 0,
            labels: Vec::new(),
            run_ticks: 0,
            longest_slice: Duration::ZERO,
            longest_delay: Duration::ZERO,
            started: None,
            owner: 0,
            wait: WaitReason::of(WaitKind::None),
            object: None,
            site: None,
            parent: 0,
            registers: None,
            base: 0,
            bytes: Vec::new(),
        }
    }

    /// Copies the task in `cell`, if there is one that has not ended. Only that id, if one is given.
    pub(super) fn capture(&mut self, cell: &TaskCell, only: Option<u64>) -> bool {
        for _ in 0..ATTEMPTS {
            let word = cell.state.snapshot();
            if word.id() == 0 || only.is_some_and(|id| id != word.id()) {
                return false;
            }
            match cell.state.inspect_begin() {
                Inspect::Gone => return false,
                Inspect::Busy => std::thread::yield_now(),
                Inspect::Entered(word) => {
                    let id = word.id();
                    let seen = self.copy(cell, id, word.life());
                    cell.state.inspect_end(id);
                    if seen {
                        return only.is_none_or(|wanted| wanted == id);
                    }
                }
            }
        }
        false
    }

    /// Inside the window.
    fn copy(&mut self, cell: &TaskCell, id: u64, life: Life) -> bool {
        let owner = cell.owner.load(Ordering::Relaxed);
        // A task that was PARKED at entry has left its stack and cannot come back in the window, wherever its worker is.
        let running = life == Life::Active
            && worker_at(owner).is_some_and(|w| std::ptr::eq(w.current.load(Ordering::SeqCst), cell));
        if !running && !cell.state.inspect_confirm(id) {
            return false;
        }
        self.id = id;
        self.since = cell.accounting.since.load(Ordering::Relaxed);
        self.slices = cell.accounting.slices.load(Ordering::Relaxed);
        self.run_ticks = cell.accounting.run_ticks.load(Ordering::Relaxed);
        let us = |of: &AtomicU32| Duration::from_micros(of.load(Ordering::Relaxed).into());
        self.longest_slice = us(&cell.accounting.longest_slice);
        self.longest_delay = us(&cell.accounting.longest_delay);
        self.class_number = cell.class.load(Ordering::Relaxed);
        self.owner = owner;
        self.started = None;
        self.parent = cell.parent.load(Ordering::Relaxed);
        // SAFETY: INSPECT keeps the cell from being emptied, whatever the task does (`State::may_empty`); name and site
        // are constant until then.
        unsafe {
            self.name = cell.name().map(str::to_owned);
            self.class = cell.class_name().map(str::to_owned);
            self.labels.clear();
            if let Some(label) = cell.label() {
                self.labels.extend(label.pairs().iter().map(|(k, v)| ((**k).into(), (**v).into())));
            }
            self.site = *cell.site.get();
        }
        self.wait = cell.wait();
        self.object = None;
        self.registers = None;
        self.bytes.clear();
        if running {
            self.doing = Doing::Running(owner);
            if let Some(w) = worker_at(owner) {
                self.since = w.slice_start.load(Ordering::Relaxed);
            }
            return cell.state.snapshot().id() == id;
        }
        match life {
            Life::Unstarted => self.doing = Doing::Unstarted,
            Life::Parked => {
                self.doing = Doing::Parked;
                if self.wait.kind.has_object() {
                    // SAFETY: the task is parked in a wait that borrows the object; it cannot leave in the window.
                    let o = unsafe { &*std::ptr::with_exposed_provenance::<Object>(self.wait.detail as usize) };
                    self.object = Some(Seen { owner: o.owner(), since: o.since(), name: o.name(), site: o.site() });
                }
            }
            _ => self.doing = Doing::Runnable,
        }
        if life != Life::Unstarted {
            let local = cell.local.load(Ordering::Relaxed);
            // SAFETY: a started task's record lives in its first frame, and the task cannot run in the window.
            self.started = (!local.is_null()).then(|| unsafe { (*local).started.get() });
            self.copy_stack(cell);
        }
        true
    }

    fn copy_stack(&mut self, cell: &TaskCell) {
        // SAFETY: the window holds and the task has run: its context and stack are still.
        let (ctx, limit, top) = unsafe {
            let Some(stack) = &*cell.stack.get() else { return };
            (*cell.ctx.get(), stack.limit(), stack.slot_top())
        };
        if cfg!(any(miri, coro_thread_context)) || ctx.sp < limit || ctx.sp > top {
            return;
        }
        let len = (top - ctx.sp).min(LONGEST);
        self.bytes.reserve(len);
        // SAFETY: [sp, sp + len) lies in the task's stack, which nobody writes now; the buffer has the room.
        unsafe {
            copy_words(ctx.sp as *const u8, self.bytes.as_mut_ptr(), len);
            self.bytes.set_len(len);
        }
        self.base = ctx.sp;
        self.registers = Some(Registers {
            ip: ctx.ip,
            sp: ctx.sp,
            fp: ctx.fp,
            #[cfg(target_arch = "aarch64")]
            lr: 0,
        });
    }

    /// Whether the task is still in the wait that was copied.
    pub(super) fn still(&self, cell: &TaskCell) -> bool {
        let w = cell.state.snapshot();
        w.id() == self.id && w.life() == Life::Parked && cell.accounting.slices.load(Ordering::Relaxed) == self.slices
    }
}

/// Copies without the compiler or a sanitizer looking: the bytes belong to frames of another stack.
///
/// # Safety
/// As for `ptr::copy_nonoverlapping`.
unsafe fn copy_words(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: by the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    // SAFETY: by the caller's promise.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, len);
    }
}
