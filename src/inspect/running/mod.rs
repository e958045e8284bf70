//! The stack of a task that runs now, on another thread or on this one.
//!
//! Purpose: registers and a copy of the stack, from which the walk starts; or, where the thread does not answer, what the
//! kernel shows of it.
//!
//! 1. A thread that is blocked in the kernel is not disturbed: `/proc` tells its stack pointer and instruction, and its stack
//!    is still. Its other registers are not told. Where the unwind tables need one, this is not enough.
//! 2. A signal to that thread alone: the handler copies registers and stack (see [`mailbox`]), the asker walks the copy.
//! 3. No answer in time: state, system call and CPU time of the thread, and what 1 gave.
//!
//! Invariants: nothing is asked that was not asked for; at most [`SAMPLES`] signals per request, never periodically. A copy is
//! given out only as that of the task whose id was asked for, checked at the time of the copy. After [`prepare`] nothing here
//! allocates, if the caller's buffer has the room and its check allocates nothing. No lock is held that a worker could wait
//! for. Must not know: text, symbols, how a stack is walked (the caller's check does).

mod kernel;
#[cfg(all(target_os = "linux", not(any(miri, coro_thread_context))))]
mod mailbox;

pub(crate) use kernel::KernelView;

use std::time::Duration;

use super::walk::{Registers, StackBytes};
use crate::scheduler::shared::Shared;
use crate::task::TaskCell;

/// How long a thread that gets CPU time has to answer the signal. One that gets none has [`STARVED`].
pub(crate) const ANSWER: Duration = Duration::from_millis(20);
pub(crate) const STARVED: Duration = Duration::from_millis(200);

/// How often the thread is asked again that was caught where its stack cannot be followed to its base.
const SAMPLES: u32 = 3;

/// The most of a stack that is copied, innermost part first.
pub(crate) const ROOM: usize = 1 << 20;

/// Registers and stack of a task that runs.
#[derive(Debug)]
pub(crate) struct Sample {
    /// `None` if there is nothing to walk.
    pub(crate) registers: Option<Registers>,
    /// Where `bytes` was copied from.
    pub(crate) base: usize,
    pub(crate) bytes: Vec<u8>,
    /// Whether the caller's check said that the copy leads to the task's base.
    pub(crate) whole: bool,
    /// The instruction in `registers` has run, so that a look-up must subtract one: the thread is in a system call.
    pub(crate) after_call: bool,
    /// What the kernel said, where it was asked.
    pub(crate) kernel: KernelView,
}

impl Sample {
    /// Without room: grows with the first use.
    pub(crate) const fn new() -> Sample {
        Sample {
            registers: None,
            base: 0,
            bytes: Vec::new(),
            whole: false,
            after_call: false,
            kernel: KernelView::unknown(),
        }
    }

    /// With room for every stack, for a caller that may not allocate later. Untouched memory is not resident.
    pub(crate) fn with_room() -> Sample {
        Sample { bytes: Vec::with_capacity(ROOM), ..Sample::new() }
    }

    fn clear(&mut self) {
        self.registers = None;
        self.base = 0;
        self.bytes.clear();
        self.whole = false;
        self.after_call = false;
        self.kernel = KernelView::unknown();
    }

    fn stack(&self) -> StackBytes<'_> {
        StackBytes { base: self.base, bytes: &self.bytes }
    }
}

/// What became of the request.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunningCopy {
    /// The stack is in the sample.
    Copied,
    /// The task does not run there any more.
    Elsewhere,
    /// The thread has not answered: the sample says what the kernel shows, and holds what could be copied, if anything.
    Silent,
    /// This system or setting has no way to ask.
    Unsupported,
}

/// Whether a walk from the registers reaches the task's base.
pub(crate) type Check<'a> = &'a mut dyn FnMut(&Registers, &StackBytes<'_>) -> bool;

/// Reads settings and keeps a descriptor back, so that no later call has to.
pub(crate) fn prepare() {
    crate::sys::directed::prepare();
    crate::sys::proc::keep_spare();
}

/// Copies registers and stack of the task `id`, which `worker` was seen running in `cell`.
///
/// Takes 20 to 50 µs where the thread answers, up to [`STARVED`] where it does not. `check` is called with every copy and
/// decides whether another one is tried; it must not call back into this module. May be called on any thread, the worker's
/// own included.
pub(crate) fn copy_running(
    worker: &'static Shared,
    cell: &TaskCell,
    id: u64,
    into: &mut Sample,
    check: Check<'_>,
) -> RunningCopy {
    into.clear();
    if crate::sys::fork::forked() {
        return RunningCopy::Unsupported;
    }
    imp::copy(worker, cell, id, into, check)
}

#[cfg(all(target_os = "linux", not(any(miri, coro_thread_context))))]
mod imp {
    use std::ptr;
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    use super::kernel::KernelView;
    use super::mailbox::{Answer, Asker, Place, Silence, nap};
    use super::*;
    use crate::stack::{self, slot_of};
    use crate::sys::directed::Refusal;
    use crate::sys::proc::{self, InKernel};
    use crate::sys::{mem, thread_id};

    /// The kernel is asked why there is no answer after this long, and again after as long.
    const DOUBT: Duration = Duration::from_millis(2);

    pub(super) fn copy(
        worker: &'static Shared,
        cell: &TaskCell,
        id: u64,
        into: &mut Sample,
        check: Check<'_>,
    ) -> RunningCopy {
        let thread = worker.thread.load(Ordering::Relaxed);
        if thread == thread_id() {
            return here(worker, cell, id, into, check);
        }
        if thread == 0 {
            return RunningCopy::Unsupported;
        }
        if !runs(worker, cell, id) {
            return RunningCopy::Elsewhere;
        }
        if let Some(seen) = proc::syscall(thread) {
            into.kernel.call = Some(seen);
            if blocked(worker, cell, id, thread, seen, into) {
                let registers = of_kernel(&seen);
                into.registers = Some(registers);
                // Otherwise it was stopped, or waits for a page, before that instruction has run.
                into.after_call = seen.nr >= 0;
                if seen.nr < 0 {
                    into.kernel.state = proc::stat(thread).map(|stat| stat.state);
                }
                into.whole = check(&registers, &into.stack());
                if into.whole {
                    return RunningCopy::Copied;
                }
            }
        }
        by_signal(worker, cell, id, thread, into, check)
    }

    /// Whether the worker is in a slice of that task.
    fn runs(worker: &Shared, cell: &TaskCell, id: u64) -> bool {
        ptr::eq(worker.current.load(Ordering::SeqCst), cell)
            && cell.state.snapshot().id() == id
            && !worker.gone.load(Ordering::Acquire)
    }

    fn of_kernel(seen: &InKernel) -> Registers {
        Registers {
            ip: seen.pc,
            sp: seen.sp,
            fp: 0,
            #[cfg(target_arch = "aarch64")]
            lr: 0,
        }
    }

    fn of_signal(r: &stack::Registers) -> Registers {
        Registers {
            ip: r.ip,
            sp: r.sp,
            fp: r.fp,
            #[cfg(target_arch = "aarch64")]
            lr: r.lr,
        }
    }

    /// Copies the stack of a thread that does not run, and looks again whether it really did not.
    fn blocked(worker: &Shared, cell: &TaskCell, id: u64, thread: i32, first: InKernel, into: &mut Sample) -> bool {
        let Some(slot) = slot_of(first.sp.wrapping_sub(1)).filter(|s| first.sp >= s.usable_low) else { return false };
        let slices = worker.slices.load(Ordering::SeqCst);
        // It may have run between the first question and this one; `syscall` is asked again below.
        let before = proc::cpu_times(thread);
        if !runs(worker, cell, id) || proc::syscall(thread) != Some(first) {
            return false;
        }
        let len = (slot.top - first.sp).min(ROOM);
        into.bytes.resize(len, 0);
        // The stack may go in the middle of this, if the thread goes on: the kernel reads it for us.
        let copied = mem::peek(first.sp, &mut into.bytes);
        into.base = first.sp;
        // A thread that got no CPU time has not moved. While it runs its time stands still for a tick, so it must first be
        // seen not to run. Where the kernel does not count, the same call at the same place and the same slice must do.
        let still = proc::syscall(thread) == Some(first) && before.is_none_or(|b| proc::cpu_times(thread) == Some(b));
        let good =
            copied == Some(len) && still && runs(worker, cell, id) && worker.slices.load(Ordering::SeqCst) == slices;
        if !good {
            into.bytes.clear();
        }
        good
    }

    fn by_signal(
        worker: &'static Shared,
        cell: &TaskCell,
        id: u64,
        thread: i32,
        into: &mut Sample,
        check: Check<'_>,
    ) -> RunningCopy {
        let mut asker = match Asker::begin(worker, thread, Instant::now() + STARVED) {
            Ok(asker) => asker,
            Err(silence) => return silent(silence, thread, Duration::ZERO, into),
        };
        let mut left = SAMPLES;
        let mut sampled = false;
        loop {
            left -= 1;
            let mut waited = Duration::ZERO;
            let mut doubts = Doubts::new(thread);
            let answer = match asker.ask(|so_far| {
                waited = so_far;
                doubts.wait_on(so_far)
            }) {
                Ok(answer) => answer,
                // What an earlier question brought is better than nothing.
                Err(_) if sampled => return RunningCopy::Copied,
                Err(silence) => {
                    into.kernel.masked = doubts.masked;
                    return silent(silence, thread, waited, into);
                }
            };
            if answer.id != id {
                return RunningCopy::Elsewhere;
            }
            match answer.place {
                Place::Nowhere => {
                    if left == 0 || !runs(worker, cell, id) {
                        return RunningCopy::Elsewhere;
                    }
                    nap();
                }
                Place::Task | Place::Foreign => {
                    sampled = true;
                    take(&asker, &answer, into);
                    let registers = of_signal(&answer.registers);
                    into.registers = Some(registers);
                    into.whole = check(&registers, &into.stack());
                    if into.whole || left == 0 {
                        return RunningCopy::Copied;
                    }
                }
            }
        }
    }

    fn take(asker: &Asker, answer: &Answer, into: &mut Sample) {
        into.bytes.clear();
        into.bytes.extend_from_slice(asker.bytes(answer));
        into.base = answer.base;
        into.after_call = false;
    }

    /// How long to wait for a thread.
    struct Doubts {
        thread: i32,
        next: Duration,
        /// Its CPU time at the last look, and the time of waiting in which that has not moved.
        ran: Option<proc::CpuTimes>,
        starved: Duration,
        masked: bool,
    }

    impl Doubts {
        fn new(thread: i32) -> Doubts {
            Doubts { thread, next: DOUBT, ran: None, starved: Duration::ZERO, masked: false }
        }

        fn wait_on(&mut self, waited: Duration) -> bool {
            if waited < self.next {
                return true;
            }
            let ran = proc::cpu_times(self.thread);
            let first = self.next == DOUBT;
            let moved = ran.is_none() || ran != self.ran;
            if first || !moved {
                // At the first look: perhaps this thread got no CPU either.
                self.starved += if first { waited } else { waited - (self.next - DOUBT) };
            }
            // No use in waiting for a thread that is stopped, gone, or holds the signal back. One that can run and does not
            // may hold it back because it was interrupted in our handler.
            let signal = crate::sys::directed::signal().unwrap_or(0);
            let state = proc::stat(self.thread).map(|s| s.state);
            let masked = proc::blocks_signal(self.thread, signal) == Some(true);
            let decided = masked && (state != Some('R') || self.masked && moved);
            self.masked = masked;
            if decided || matches!(state, None | Some('T' | 't' | 'Z' | 'X')) {
                return false;
            }
            self.ran = ran;
            self.next = waited + DOUBT;
            waited - self.starved < ANSWER && waited < STARVED
        }
    }

    fn silent(silence: Silence, thread: i32, waited: Duration, into: &mut Sample) -> RunningCopy {
        match silence {
            Silence::Refused(Refusal::Gone) => return RunningCopy::Elsewhere,
            Silence::Refused(Refusal::Off) if into.registers.is_some() => return RunningCopy::Copied,
            Silence::Refused(Refusal::Off) if into.kernel.call.is_none() => return RunningCopy::Unsupported,
            Silence::Refused(refusal) => into.kernel.refused = Some(refusal),
            Silence::Late | Silence::Busy => {}
        }
        let masked = into.kernel.masked;
        into.kernel =
            KernelView { masked, waited: Some(waited), refused: into.kernel.refused, ..KernelView::of(thread) };
        RunningCopy::Silent
    }

    /// The caller's own stack: it runs on the worker that it asks about.
    #[inline(never)]
    fn here(worker: &'static Shared, cell: &TaskCell, id: u64, into: &mut Sample, check: Check<'_>) -> RunningCopy {
        if !runs(worker, cell, id) {
            return RunningCopy::Elsewhere;
        }
        let (ip, sp, fp): (usize, usize, usize);
        // SAFETY: reads three registers.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            std::arch::asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp", out(reg) ip, out(reg) sp, out(reg) fp,
                options(nomem, nostack, preserves_flags));
            #[cfg(target_arch = "aarch64")]
            std::arch::asm!("adr {}, .", "mov {}, sp", "mov {}, x29", out(reg) ip, out(reg) sp, out(reg) fp,
                options(nomem, nostack, preserves_flags));
        }
        let registers = Registers {
            ip,
            sp,
            fp,
            #[cfg(target_arch = "aarch64")]
            lr: 0,
        };
        // A stack that the program itself switched to is not followed.
        let Some(slot) = slot_of(sp) else { return RunningCopy::Unsupported };
        let len = (slot.top - sp).min(ROOM);
        into.bytes.reserve(len);
        // SAFETY: the used part of the stack that this code runs on; the buffer has the room.
        unsafe {
            copy_words(sp as *const u8, into.bytes.as_mut_ptr(), len);
            into.bytes.set_len(len);
        }
        into.base = sp;
        into.registers = Some(registers);
        into.whole = check(&registers, &into.stack());
        RunningCopy::Copied
    }
}

#[cfg(not(all(target_os = "linux", not(any(miri, coro_thread_context)))))]
mod imp {
    use super::*;

    pub(super) fn copy(
        _worker: &'static Shared,
        _cell: &TaskCell,
        _id: u64,
        into: &mut Sample,
        _check: Check<'_>,
    ) -> RunningCopy {
        let _ = into.stack();
        RunningCopy::Unsupported
    }
}

/// Copies without the compiler or a sanitizer looking: the bytes belong to frames of another stack.
///
/// # Safety
/// As for `ptr::copy_nonoverlapping`.
pub(super) unsafe fn copy_words(from: *const u8, to: *mut u8, len: usize) {
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
