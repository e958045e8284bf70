//! The stack signal handlers run on while a worker's own stack may be full.
//!
//! Purpose: one alternate signal stack per worker, large enough to print symbolised frames on.
//! Invariants: belongs to the thread that installed it; a closed page lies below it; what was installed before is restored.
//! Must not know: which signals are handled, or how.

use std::io;
use std::marker::PhantomData;

use crate::sys::mem::{self, Access};

/// Address space of an alternate stack; resident is only what handlers touch. std's 8 KiB died silently on processors with
/// large vector registers, and reading debug information takes tens of KiB.
const SIZE: usize = 256 << 10;

/// This thread's alternate signal stack. Dropping it restores the previous one.
#[derive(Debug)]
#[must_use = "dropping it takes the alternate stack away again"]
pub(crate) struct AltStack {
    addr: usize,
    /// Guard page included.
    len: usize,
    previous: libc::stack_t,
    /// `sigaltstack` is per thread: not `Send`.
    _this_thread: PhantomData<*mut ()>,
}

impl AltStack {
    /// Installs an alternate stack for the calling thread.
    ///
    /// # Errors
    /// No memory, or the thread runs on an alternate stack right now.
    pub(crate) fn install() -> io::Result<AltStack> {
        let page = mem::page_size();
        let size = SIZE.max(4 * signal_frame_size()).next_multiple_of(page);
        let previous = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        let mut alt = AltStack { addr: 0, len: size + page, previous, _this_thread: PhantomData };
        if cfg!(miri) {
            return Ok(alt);
        }
        alt.addr = mem::map(alt.len, Access::None)?;
        // SAFETY: the mapping is ours and unused; its lowest page stays closed.
        unsafe { mem::protect(alt.addr + page, size, Access::ReadWrite) }?;
        let new =
            libc::stack_t { ss_sp: std::ptr::with_exposed_provenance_mut(alt.addr + page), ss_flags: 0, ss_size: size };
        let mut previous = alt.previous;
        // SAFETY: `new` describes memory that stays mapped until `drop` has taken it out of use on this same thread.
        if unsafe { libc::sigaltstack(&new, &mut previous) } != 0 {
            return Err(io::Error::last_os_error());
        }
        alt.previous = previous;
        Ok(alt)
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        if self.addr == 0 {
            return;
        }
        let mut now = self.previous;
        // SAFETY: asks only.
        let asked = unsafe { libc::sigaltstack(std::ptr::null(), &mut now) } == 0;
        if asked && now.ss_sp.addr() == self.addr + mem::page_size() {
            let mut previous = self.previous;
            // Linux refuses flags it has only reported.
            previous.ss_flags &= libc::SS_DISABLE;
            // A disabled stack must still have a plausible size on some systems.
            previous.ss_size = previous.ss_size.max(SIZE * usize::from(previous.ss_flags != 0));
            // SAFETY: the previous owner keeps its stack mapped while it is installed, and it has not been told otherwise.
            if unsafe { libc::sigaltstack(&previous, std::ptr::null_mut()) } != 0 {
                return; // still in use: leak it
            }
        } else if asked && now.ss_flags & libc::SS_DISABLE == 0 {
            return; // someone else's lies over ours and may restore ours later: leak it
        }
        // SAFETY: mapped in `install`, and no longer this thread's alternate stack.
        let _ = unsafe { mem::unmap(self.addr, self.len) };
    }
}

/// Bytes the kernel itself pushes to deliver a signal, vector registers included.
fn signal_frame_size() -> usize {
    // SAFETY: `getauxval` has no preconditions; zero means unknown.
    #[cfg(target_os = "linux")]
    let size = if cfg!(miri) { 0 } else { unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) as usize } };
    #[cfg(not(target_os = "linux"))]
    let size = 0;
    size.max(libc::MINSIGSTKSZ)
}
