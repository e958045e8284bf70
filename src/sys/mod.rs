//! The operating system and the machine, one small file per subject.
//!
//! Must not know anything of this crate.

pub(crate) mod atomic;
#[cfg_attr(
    not(all(target_os = "linux", not(miri))),
    allow(dead_code, unused_imports, reason = "sessions by signal are for Linux only")
)]
#[cfg(feature = "backdoor")]
pub(crate) mod attach_signal;
#[cfg(feature = "probe")]
pub(crate) mod barrier;
#[cfg_attr(not(all(target_os = "linux", not(miri))), allow(dead_code, reason = "signals are shared on Linux only"))]
pub(crate) mod chain;
pub(crate) mod claim;
pub(crate) mod clock;
#[cfg(feature = "backdoor")]
pub(crate) mod courtesy;
#[cfg(feature = "backdoor")]
mod cpus;
pub(crate) mod current;
pub(crate) mod descriptors;
#[cfg_attr(
    not(all(target_os = "linux", not(any(miri, coro_thread_context)))),
    allow(dead_code, unused_imports, reason = "what runs can be asked on Linux only")
)]
pub(crate) mod directed;
pub(crate) mod dump_signal;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod inherited;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) mod kept;
pub(crate) mod line;
pub(crate) mod mem;
pub(crate) mod message;
#[cfg(feature = "backdoor")]
pub(crate) mod pace;
pub(crate) mod parker;
pub(crate) mod private_socket;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod short_lock;
pub(crate) mod signal;
pub(crate) mod signal_name;
pub(crate) mod signal_streams;
pub(crate) mod socket;
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), allow(dead_code, reason = "what is set is for Linux"))]
pub(crate) mod sockopt;
pub(crate) mod statics;
pub(crate) mod stderr;
pub(crate) mod threads;
pub(crate) mod turn;
#[cfg(feature = "backdoor")]
pub(crate) mod typed_signal;
#[cfg_attr(not(feature = "backdoor"), allow(dead_code, reason = "most of it is for the backdoor"))]
pub(crate) mod unixsock;
pub(crate) mod unwinder;
pub(crate) mod usage;

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Waits until `fd` can be read (or written), or has an error or hang-up; false when `timeout` has passed.
pub(crate) fn poll_fd(fd: RawFd, write: bool, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.and_then(|t| std::time::Instant::now().checked_add(t));
    let mut p = libc::pollfd { fd, events: if write { libc::POLLOUT } else { libc::POLLIN }, revents: 0 };
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(std::time::Instant::now()));
        let ms = left.map_or(-1, |l| l.as_nanos().div_ceil(1_000_000).min(1 << 30) as libc::c_int);
        // SAFETY: one entry.
        match unsafe { libc::poll(&mut p, 1, ms) } {
            0 if left.is_none_or(|l| l.as_millis() < 1 << 30) => return Ok(false),
            0 => {}
            n if n > 0 => return Ok(true),
            _ => {
                let e = io::Error::last_os_error();
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(e);
                }
            }
        }
    }
}

/// The kernel's number of the running thread, 0 where it has none that we could show.
pub(crate) fn thread_id() -> i32 {
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: no preconditions.
    return unsafe { libc::syscall(libc::SYS_gettid) as i32 };
    #[cfg(not(all(target_os = "linux", not(miri))))]
    0
}

/// Where errno lives on this thread.
pub(crate) fn errno_location() -> *mut libc::c_int {
    #[cfg(target_os = "linux")]
    // SAFETY: no preconditions.
    return unsafe { libc::__errno_location() };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: no preconditions.
    return unsafe { libc::__error() };
}

/// Asks for a cache line. Never faults, whatever the address.
#[inline(always)]
pub(crate) fn prefetch(line: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(line.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = line;
}

/// Fetches `lines` cache lines from where the word at `word` points to.
///
/// The word may be written meanwhile: it is read by the processor alone, and a prefetch of any address is harmless.
///
/// # Safety
/// `word` lies in mapped memory.
#[inline(always)]
pub(crate) unsafe fn prefetch_through(word: *const usize, lines: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri), not(coro_asan)))]
    {
        let at: usize;
        // SAFETY: a load from mapped memory, by the caller's promise.
        unsafe {
            std::arch::asm!(
                "mov {at}, [{word}]",
                at = out(reg) at, word = in(reg) word,
                options(nostack, preserves_flags, readonly)
            );
        }
        for i in 0..lines {
            prefetch(std::ptr::without_provenance(at.wrapping_add(64 * i)));
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri), not(coro_asan))))]
    let _ = (word, lines);
}
