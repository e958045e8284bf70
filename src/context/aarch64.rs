//! The AArch64 (AAPCS64) switch. Written and built; not yet run on hardware or in emulation.
//!
//! `x19` (LLVM's base pointer), `x29` (frame pointer) and `sp` cannot be named as clobbers, so the switch saves
//! those by hand beside the resume address. `x18` is the platform's and is left alone. The low halves of
//! `v8`–`v15` are callee-saved and therefore clobbers, like `x20`–`x28`.

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
    x19: usize,
}

#[cfg(target_vendor = "apple")]
macro_rules! symbol {
    ($name:literal) => {
        concat!("_", $name)
    };
}
#[cfg(not(target_vendor = "apple"))]
macro_rules! symbol {
    ($name:literal) => {
        $name
    };
}

global_asm!(
    ".text",
    ".balign 64",
    concat!(".globl ", symbol!("__coro_switch_stub")),
    concat!(symbol!("__coro_switch_stub"), ":"),
    "ldp x9, x10, [x1]",
    "ldp x29, x19, [x1, #16]",
    "mov sp, x9",
    "br x10",
    concat!(".globl ", symbol!("__coro_switch_stub_end")),
    concat!(symbol!("__coro_switch_stub_end"), ":"),
    ".balign 16",
    concat!(".globl ", symbol!("__coro_task_base")),
    concat!(symbol!("__coro_task_base"), ":"),
    ".cfi_startproc",
    ".cfi_undefined x30",
    "mov x0, x29",
    "mov x29, xzr",
    "blr x19",
    "brk #1",
    ".cfi_endproc",
    concat!(".globl ", symbol!("__coro_task_base_end")),
    concat!(symbol!("__coro_task_base_end"), ":"),
);

// A call on another stack: see the one for x86-64.
#[cfg(feature = "probe")]
global_asm!(
    ".text",
    ".balign 16",
    concat!(".globl ", symbol!("__coro_call_on")),
    concat!(symbol!("__coro_call_on"), ":"),
    ".cfi_startproc",
    "stp x29, x30, [sp, #-16]!",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset x29, -16",
    ".cfi_offset x30, -8",
    "mov x29, sp",
    ".cfi_def_cfa_register x29",
    "mov sp, x2",
    "blr x1",
    "mov sp, x29",
    ".cfi_def_cfa_register sp",
    "ldp x29, x30, [sp], #16",
    ".cfi_def_cfa_offset 0",
    ".cfi_restore x29",
    ".cfi_restore x30",
    "ret",
    ".cfi_endproc",
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
    fn __coro_task_base_end();
}

/// Code addresses of the outermost frame of a task; a walk ends there.
pub(crate) fn base_range() -> (usize, usize) {
    (__coro_task_base as *const () as usize, __coro_task_base_end as *const () as usize + 1)
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
        Ctx { sp: 0, ip: 0, fp: 0, x19: 0 }
    }

    /// A context that calls `entry(arg)` on the stack below `top` when it is first resumed.
    ///
    /// # Safety
    /// `top` is 16-byte aligned and the memory below it belongs to this context alone until it ends.
    pub(crate) unsafe fn new(top: *mut u8, entry: Entry, arg: *mut ()) -> Ctx {
        debug_assert_eq!(top as usize % 16, 0);
        Ctx { sp: top as usize, ip: __coro_task_base as *const () as usize, fp: arg as usize, x19: entry as usize }
    }
}

/// Saves the running context in `save` and resumes `to`; returns when somebody resumes `save`.
///
/// # Safety
/// `to` was made by [`Ctx::new`] or saved by `switch` on this thread, is not resumed elsewhere and its stack is
/// alive; both pointers are valid for the whole call.
#[inline(always)]
pub(crate) unsafe fn switch(save: *mut Ctx, to: *const Ctx) {
    // SAFETY: every register that the other side may change is an operand or a clobber, except x19, x29 and sp,
    // which the stub restores from `save`.
    unsafe {
        asm!(
            "adr x9, 2f",
            "mov x10, sp",
            "stp x10, x9, [x0]",
            "stp x29, x19, [x0, #16]",
            "b {stub}",
            "2:",
            stub = sym __coro_switch_stub,
            inout("x0") save => _,
            inout("x1") to => _,
            lateout("x20") _, lateout("x21") _, lateout("x22") _, lateout("x23") _, lateout("x24") _,
            lateout("x25") _, lateout("x26") _, lateout("x27") _, lateout("x28") _,
            lateout("v8") _, lateout("v9") _, lateout("v10") _, lateout("v11") _,
            lateout("v12") _, lateout("v13") _, lateout("v14") _, lateout("v15") _,
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
    unsafe { asm!("mov {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}
