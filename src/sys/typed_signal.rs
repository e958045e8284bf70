//! SIGINT for somebody who types at this process's own terminal.
//!
//! Purpose: while a [`TypedInterrupts`] lives, SIGINT makes its descriptor readable and does nothing else; then the action of
//! before is put back.
//! Invariants: at most one lives at a time; the handler makes only async-signal-safe calls.
//! Must not know: what is typed.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use crate::sys::signal;

static WRITE_END: AtomicI32 = AtomicI32::new(-1);
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// See the module's head.
pub(crate) struct TypedInterrupts {
    read: OwnedFd,
    _write: OwnedFd,
    old: libc::sigaction,
}

impl TypedInterrupts {
    /// `None` if whoever started the process wants the signal ignored.
    pub(crate) fn take() -> io::Result<Option<TypedInterrupts>> {
        if cfg!(miri) {
            return Ok(None);
        }
        let old = signal::disposition(libc::SIGINT)?;
        if old.sa_sigaction == libc::SIG_IGN {
            return Ok(None);
        }
        let ends = signal::pipe(libc::O_NONBLOCK)?;
        // SAFETY: two descriptors that were just made and that nobody else has.
        let [read, write] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        WRITE_END.store(write.as_raw_fd(), Ordering::SeqCst);
        PROCESS.store(std::process::id(), Ordering::SeqCst);
        signal::install(libc::SIGINT, on_signal)?;
        Ok(Some(TypedInterrupts { read, _write: write, old }))
    }

    /// Whether there was one since the last call.
    pub(crate) fn came(&self) -> bool {
        let mut bytes = [0u8; 16];
        let mut any = false;
        loop {
            // SAFETY: as many bytes as there are, into a live variable.
            let length = unsafe { libc::read(self.read.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
            if length <= 0 {
                return any;
            }
            any = true;
        }
    }
}

impl AsFd for TypedInterrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl Drop for TypedInterrupts {
    fn drop(&mut self) {
        // SAFETY: restores what `take` found. A handler that read the number just before writes one byte to a closed or
        // foreign descriptor at worst.
        unsafe { libc::sigaction(libc::SIGINT, &self.old, std::ptr::null_mut()) };
        WRITE_END.store(-1, Ordering::SeqCst);
    }
}

extern "C" fn on_signal(number: libc::c_int) {
    signal::handling(number, &PROCESS, || {
        let fd = WRITE_END.load(Ordering::SeqCst);
        if fd >= 0 {
            signal::write_byte(fd, 0);
        }
    });
}
