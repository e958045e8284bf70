//! What a started task keeps for itself, at the top of its own stack: pending interrupts and how they may be
//! delivered.
//!
//! Invariants: touched only by the task itself and by its worker while the task is not running, hence `Cell`s and no
//! atomics. Lives exactly as long as the task runs or is parked.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Instant;

use super::locals::Table;
use super::state::Snapshot;
use crate::observe::HeldReads;
use crate::timer::TimerKey;

/// One `timeout` that is in force, in the frame that called it.
#[derive(Debug)]
pub(crate) struct TimeoutScope {
    pub(crate) timer: Cell<TimerKey>,
    pub(crate) outer: Cell<*const TimeoutScope>,
    /// Tells it from every other scope of the task.
    pub(crate) serial: u64,
    /// `None` never comes.
    pub(crate) deadline: Option<Instant>,
    /// Depth of `shield` where it began: a shield holds off what began outside of it.
    pub(crate) shields: u32,
    pub(crate) expired: Cell<bool>,
    /// One I/O call has returned the error; from now on waits unwind.
    pub(crate) error_given: Cell<bool>,
}

/// What a wait must deliver instead of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    Cancel,
    /// The outermost expired scope: inner ones end with it.
    Timeout(*const TimeoutScope),
}

/// See the module's head. What every yield, park and call of a primitive looks at comes first, in one cache line, the one that the loop
/// fetches ahead: [`LocalRoom`] puts it there.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct TaskLocal {
    /// How far below this record the stack reaches, or 0 inside `no_switch`: one comparison tells whether a switch is all
    /// right here.
    pub(crate) room: Cell<usize>,
    /// Innermost `timeout` in force.
    pub(crate) scopes: Cell<*const TimeoutScope>,
    /// Depth of `shield`.
    pub(crate) shields: Cell<u32>,
    /// Write guards held; while any is, interrupts are delivered as errors only.
    pub(crate) write_guards: Cell<u32>,
    /// I/O calls that succeeded without a wait since the last wait.
    pub(crate) io_streak: Cell<u32>,
    /// After so many of them the task gives way; 0: as the process says.
    pub(crate) selfishness: Cell<u32>,
    /// What the task did without a wait since the last one, as `scheduler::handover` counts it.
    pub(crate) ready_streak: Cell<u32>,
    /// Depth of `no_switch`.
    pub(crate) no_switch: Cell<u32>,
    /// Something may be pending: looked at before every wait and every I/O call.
    pub(crate) attention: Cell<bool>,
    /// The task waited in the middle of an unwinding that, as far as is known, lasts: set by such a wait, cleared when
    /// the task is seen to run while nobody on its thread panics.
    pub(crate) mid_unwind: Cell<bool>,
    /// The last unwinding that is known of was raised by an interrupt, for which no panic hook runs; cleared like
    /// `mid_unwind`.
    pub(crate) interrupt_unwinds: Cell<bool>,
    /// A wait would have unwound but for a write guard: the next lock does, even if it need not wait.
    pub(crate) held_back: Cell<bool>,
    /// One I/O call has returned the cancellation as an error.
    pub(crate) cancel_error_given: Cell<bool>,
    /// An interrupt waits until no other task of the worker waits in the middle of its unwinding.
    pub(crate) interrupt_deferred: Cell<bool>,

    /// When the task first ran, in ticks.
    pub(crate) started: Cell<u64>,
    /// The scope whose child the task is, as in the wait of that scope; 0 for none.
    pub(crate) scope: Cell<usize>,
    /// When the wait that the task is in, or comes to, ends by itself: nanoseconds of the timer clock, 0 for never.
    pub(crate) wait_until: Cell<u64>,
    /// What else is to be known of the wait; its meaning stands with the kind (`observe::WaitKind`).
    pub(crate) wait_extra: Cell<u64>,
    /// The descriptor for which a future that the task polls was the last to find nothing: see
    /// `observe::WaitReason::in_future`.
    pub(crate) polled_io: Cell<u64>,
    /// Read-write locks that the task holds for reading.
    pub(crate) held_reads: HeldReads,
    /// How many were ever entered.
    pub(crate) scopes_begun: Cell<u64>,
    /// How often any interrupt was raised as an unwind.
    pub(crate) raises: Cell<u32>,
    /// How often cancellation was raised as an unwind.
    pub(crate) cancels_raised: Cell<u32>,
    /// The task waits while it unwinds (a `Drop` that blocks).
    pub(crate) waits_unwinding: Cell<u32>,
    /// Nanoseconds that the task has blocked its thread while unwinding.
    pub(crate) unwinding_blocked_ns: Cell<u64>,
    /// What `room` is outside of `no_switch`, never 0.
    pub(crate) whole_room: Cell<usize>,
    /// Calls of functions that are watched.
    #[cfg(feature = "probe")]
    pub(crate) calls: crate::observe::Calls,
    /// What it has entered of a tracing library.
    #[cfg(feature = "tracing")]
    pub(crate) spans: super::spans::Spans,
    /// The task's locals, destroyed on its own stack after its closure.
    pub(crate) locals: Table,
    /// The sanitizer's record of this stack, in the task's first frame.
    #[cfg(coro_asan)]
    pub(crate) fiber: Cell<*mut crate::context::sanitizer::Fiber>,
}

/// Room in a task's first frame, in which its record begins a cache line.
///
/// The record's type is not aligned by itself: the frame of a function that aligns its stack is found through a register alone, which
/// `/proc` does not tell of a thread that is blocked. The stack of such a thread could be had by a signal only, and that ends its call.
#[repr(C, align(16))]
pub(crate) struct LocalRoom(MaybeUninit<[u8; size_of::<TaskLocal>() + LINE - STACK_ALIGNMENT]>);

const LINE: usize = 64;
/// What every stack is aligned to.
const STACK_ALIGNMENT: usize = 16;
const _: () = assert!(align_of::<TaskLocal>() <= STACK_ALIGNMENT && align_of::<LocalRoom>() == STACK_ALIGNMENT);

impl LocalRoom {
    #[inline]
    pub(crate) fn new() -> LocalRoom {
        LocalRoom(MaybeUninit::uninit())
    }

    /// A new record. It is never dropped.
    #[inline]
    pub(crate) fn fill(&mut self) -> &TaskLocal {
        let room = self.0.as_mut_ptr().cast::<u8>();
        // As much as is left over at most, because the room is aligned.
        let local = room.wrapping_add(room.addr().wrapping_neg() % LINE).cast::<TaskLocal>();
        // SAFETY: aligned as a line is, inside of the room, which is borrowed for as long as the record is.
        unsafe {
            local.write(TaskLocal::new());
            &*local
        }
    }
}

impl TaskLocal {
    #[inline]
    fn new() -> TaskLocal {
        TaskLocal {
            started: Cell::new(0),
            scope: Cell::new(0),
            attention: Cell::new(false),
            wait_until: Cell::new(0),
            wait_extra: Cell::new(0),
            polled_io: Cell::new(0),
            held_reads: HeldReads::new(),
            scopes: Cell::new(ptr::null()),
            scopes_begun: Cell::new(0),
            shields: Cell::new(0),
            write_guards: Cell::new(0),
            held_back: Cell::new(false),
            cancel_error_given: Cell::new(false),
            raises: Cell::new(0),
            interrupt_deferred: Cell::new(false),
            cancels_raised: Cell::new(0),
            io_streak: Cell::new(0),
            selfishness: Cell::new(0),
            ready_streak: Cell::new(0),
            waits_unwinding: Cell::new(0),
            mid_unwind: Cell::new(false),
            interrupt_unwinds: Cell::new(false),
            unwinding_blocked_ns: Cell::new(0),
            no_switch: Cell::new(0),
            room: Cell::new(usize::MAX),
            whole_room: Cell::new(usize::MAX),
            #[cfg(feature = "probe")]
            calls: crate::observe::Calls::new(),
            #[cfg(feature = "tracing")]
            spans: super::spans::Spans::default(),
            locals: Table::new(),
            #[cfg(coro_asan)]
            fiber: Cell::new(ptr::null_mut()),
        }
    }

    /// What is pending and not held back by a shield.
    pub(crate) fn pending(&self, word: Snapshot) -> Option<Interrupt> {
        let shields = self.shields.get();
        if shields == 0 && word.cancel_requested() {
            return Some(Interrupt::Cancel);
        }
        let mut found = ptr::null();
        let mut scope = self.scopes.get();
        while !scope.is_null() {
            // SAFETY: scopes are linked only while their frames live on this task's stack.
            let s = unsafe { &*scope };
            if s.shields < shields {
                break;
            }
            if s.expired.get() {
                found = scope;
            }
            scope = s.outer.get();
        }
        (!found.is_null()).then_some(Interrupt::Timeout(found))
    }
}
