//! The registers a stack walk starts from, read out of a signal handler's context.
//!
//! Purpose: one structure instead of one layout per system and processor.
//! Invariants: a register that is not known is zero.
//! Must not know: why the signal came.

/// Where a thread was when a signal interrupted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    /// Instruction pointer.
    pub(crate) ip: usize,
    /// Stack pointer.
    pub(crate) sp: usize,
    /// Frame pointer (`rbp`, `x29`), whether the code keeps one or not.
    pub(crate) fp: usize,
    /// Return address of a function without a frame (`x30`); zero on x86_64.
    pub(crate) lr: usize,
}

impl Registers {
    /// Reads them from the third argument of a signal handler. Async-signal-safe.
    ///
    /// # Safety
    /// `context` is that argument, in a handler installed with `SA_SIGINFO`, or null.
    pub(crate) unsafe fn from_context(context: *const libc::c_void) -> Registers {
        if context.is_null() {
            return Registers::default();
        }
        // SAFETY: the system passes a `ucontext_t`, valid while the handler runs.
        let context = unsafe { &*context.cast::<libc::ucontext_t>() };
        read(context)
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn read(context: &libc::ucontext_t) -> Registers {
    let reg = |name: libc::c_int| context.uc_mcontext.gregs[name as usize] as usize;
    Registers { ip: reg(libc::REG_RIP), sp: reg(libc::REG_RSP), fp: reg(libc::REG_RBP), lr: 0 }
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn read(context: &libc::ucontext_t) -> Registers {
    let m = &context.uc_mcontext;
    Registers { ip: m.pc as usize, sp: m.sp as usize, fp: m.regs[29] as usize, lr: m.regs[30] as usize }
}

#[cfg(all(target_os = "freebsd", target_arch = "x86_64"))]
fn read(context: &libc::ucontext_t) -> Registers {
    let m = &context.uc_mcontext;
    Registers { ip: m.mc_rip as usize, sp: m.mc_rsp as usize, fp: m.mc_rbp as usize, lr: 0 }
}

#[cfg(target_vendor = "apple")]
fn read(context: &libc::ucontext_t) -> Registers {
    // SAFETY: the system points this at the saved state, valid while the handler runs.
    let state = unsafe { &(*context.uc_mcontext).__ss };
    #[cfg(target_arch = "aarch64")]
    return Registers {
        ip: state.__pc as usize,
        sp: state.__sp as usize,
        fp: state.__fp as usize,
        lr: state.__lr as usize,
    };
    #[cfg(target_arch = "x86_64")]
    return Registers { ip: state.__rip as usize, sp: state.__rsp as usize, fp: state.__rbp as usize, lr: 0 };
}

#[cfg(not(any(
    all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")),
    all(target_os = "freebsd", target_arch = "x86_64"),
    target_vendor = "apple"
)))]
fn read(_context: &libc::ucontext_t) -> Registers {
    Registers::default()
}
