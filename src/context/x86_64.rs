//! The x86-64 System V switch.
//!
//! `rbx` and `rbp` cannot be named as clobbers of inline assembly, so the switch saves those two by hand; the
//! compiler spills whichever other callee-saved registers are live, because all of them are clobbers. What is
//! left to save is four words, and they stay readable in [`Ctx`]:
//!
//! ```text
//!   suspended stack                     Ctx
//!   +----------------------+            +----+
//!   | frames of the task   |     sp --> | sp |  stack pointer at the label after the jump
//!   | ...                  |            | ip |  that label
//!   | frame of `switch`'s  | <--        | fp |  rbp
//!   | caller (inlined)     |            | bx |  rbx
//!   +----------------------+            +----+
//! ```
//!
//! Resuming jumps through one shared stub instead of returning: a `call`/`ret` pair across stacks makes the
//! return-address predictor miss on every frame below. A sampler that finds an ip inside the stub knows that it caught a
//! switch half-way.

use std::arch::{asm, global_asm};

#[cfg(feature = "probe")]
use super::Call;
use super::Entry;

/// The registers of a suspended context.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Ctx {
    pub(crate) sp: usize,
    pub(crate) ip: usize,
    pub(crate) fp: usize,
    bx: usize,
}

global_asm!(
    ".pushsection .text.coro_switch,\"ax\",@progbits",
    ".balign 64",
    ".globl __coro_switch_stub",
    ".hidden __coro_switch_stub",
    ".type __coro_switch_stub,@function",
    "__coro_switch_stub:",
    "mov rsp, [rsi]",
    "mov rbp, [rsi + 16]",
    "mov rbx, [rsi + 24]",
    "jmp [rsi + 8]",
    ".globl __coro_switch_stub_end",
    ".hidden __coro_switch_stub_end",
    "__coro_switch_stub_end:",
    ".size __coro_switch_stub, . - __coro_switch_stub",
    ".balign 16",
    // The first frame of every task. It has no caller: the undefined return address ends every unwind here.
    ".globl __coro_task_base",
    ".hidden __coro_task_base",
    ".type __coro_task_base,@function",
    "__coro_task_base:",
    ".cfi_startproc",
    ".cfi_undefined rip",
    "xor ebp, ebp",
    "mov rdi, r12",
    "call rbx",
    "ud2",
    ".cfi_endproc",
    ".size __coro_task_base, . - __coro_task_base",
    // The first resume lands here: r12 is a clobber and so free, the argument travels in rbp.
    ".globl __coro_task_start",
    ".hidden __coro_task_start",
    ".type __coro_task_start,@function",
    "__coro_task_start:",
    "mov r12, rbp",
    "jmp __coro_task_base",
    ".globl __coro_task_start_end",
    ".hidden __coro_task_start_end",
    "__coro_task_start_end:",
    ".size __coro_task_start, . - __coro_task_start",
    ".popsection",
);

// A call on another stack. The frame pointer keeps the place on the one that is left, and says so to who unwinds: the frames below
// follow those above, in another stack. What is called is reached by a call and left by a return, so that neither the saved
// registers nor the return-address predictor need more than for any other call.
#[cfg(feature = "probe")]
global_asm!(
    ".pushsection .text.coro_call_on,\"ax\",@progbits",
    ".balign 16",
    ".globl __coro_call_on",
    ".hidden __coro_call_on",
    ".type __coro_call_on,@function",
    "__coro_call_on:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "mov rsp, rdx",
    "call rsi",
    "mov rsp, rbp",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size __coro_call_on, . - __coro_call_on",
    ".popsection",
);

#[cfg(feature = "probe")]
unsafe extern "C" {
    fn __coro_call_on(arg: *mut (), call: Call, top: *mut u8);
}

/// Calls `call(arg)` on the stack below `top`; returns when it has returned.
///
/// # Safety
/// `top` is 16-byte aligned, the memory below it is large enough for the call, and nobody else's until this returns. The call does not unwind
/// and does not switch to another context.
#[cfg(feature = "probe")]
pub(crate) unsafe fn call_on(top: *mut u8, call: Call, arg: *mut ()) {
    debug_assert_eq!(top as usize % 16, 0);
    // SAFETY: forwarded from the caller.
    unsafe { __coro_call_on(arg, call, top) }
}

unsafe extern "C" {
    fn __coro_switch_stub();
    fn __coro_switch_stub_end();
    fn __coro_task_base();
    fn __coro_task_start();
    fn __coro_task_start_end();
}

/// Code addresses of the outermost frame of a task, and of the two instructions before it; a walk ends there.
pub(crate) fn base_range() -> (usize, usize) {
    (__coro_task_base as *const () as usize, __coro_task_start_end as *const () as usize)
}

/// Code that belongs to neither side: what is left there is saved, what is entered is still as it was saved.
#[cfg_attr(
    not(all(target_os = "linux", not(any(miri, coro_thread_context)))),
    allow(dead_code, reason = "what runs can be asked on Linux only")
)]
pub(crate) fn stub_range() -> (usize, usize) {
    (__coro_switch_stub as *const () as usize, __coro_switch_stub_end as *const () as usize)
}

impl Ctx {
    /// A context that has nothing to resume.
    pub(crate) const fn empty() -> Ctx {
        Ctx { sp: 0, ip: 0, fp: 0, bx: 0 }
    }

    /// A context that calls `entry(arg)` on the stack below `top` when it is first resumed.
    ///
    /// # Safety
    /// `top` is 16-byte aligned and the memory below it belongs to this context alone until it ends.
    pub(crate) unsafe fn new(top: *mut u8, entry: Entry, arg: *mut ()) -> Ctx {
        debug_assert_eq!(top as usize % 16, 0);
        Ctx { sp: top as usize, ip: __coro_task_start as *const () as usize, fp: arg as usize, bx: entry as usize }
    }
}

/// Saves the running context in `save` and resumes `to`; returns when somebody resumes `save`.
///
/// # Safety
/// `to` was made by [`Ctx::new`] or saved by `switch` on this thread, is not resumed elsewhere and its stack is
/// alive; both pointers are valid for the whole call.
#[inline(always)]
pub(crate) unsafe fn switch(save: *mut Ctx, to: *const Ctx) {
    // SAFETY: every register that the other side may change is an operand or a clobber, except rbx, rbp and rsp,
    // which the stub restores from `save`; without `nostack` the compiler keeps nothing in the red zone here.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]",
            "mov [rdi], rsp",
            "mov [rdi + 8], rax",
            "mov [rdi + 16], rbp",
            "mov [rdi + 24], rbx",
            "jmp {stub}",
            "2:",
            stub = sym __coro_switch_stub,
            inout("rdi") save => _,
            inout("rsi") to => _,
            out("rax") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            clobber_abi("C"),
        );
    }
}

/// Ends the running context and resumes `to`.
///
/// # Safety
/// As for [`switch`]; the running context is never resumed again and its stack may be reused afterwards.
#[inline(always)]
pub(crate) unsafe fn finish(save: *mut Ctx, to: *const Ctx) -> ! {
    // SAFETY: forwarded from the caller.
    unsafe { switch(save, to) };
    // A resumed dead context is a broken scheduler: nothing above this frame can be trusted.
    std::process::abort()
}

/// Where the running code's stack ends at the moment.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let sp: usize;
    // SAFETY: reads one register.
    unsafe { asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}
