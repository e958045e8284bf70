//! What is left of the process in a forked child: one thread, and a copy of everything that the others were doing.
//!
//! Invariants: the handler runs in the child only, before `fork` returns there, and makes only async-signal-safe calls.
//! It makes the thread a plain one (its worker is the parent's business), and puts `/dev/null` in the place of the
//! runtime's own descriptors: the polls among them are shared with the parent, where the child must change nothing, and
//! a listener that the child kept would outlive its server. The numbers stay taken, so that whoever owns them may still
//! close them.
//!
//! Must not know what the descriptors are for.

use std::io;
use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use super::current;

static FORKED: AtomicBool = AtomicBool::new(false);

/// More than two for each of the most workers that there can be, and a few.
const MOST: usize = 4096;

/// Descriptors and one, so that nothing is 0. What does not fit is not replaced in a child.
static OWN: [AtomicI32; MOST] = [const { AtomicI32::new(0) }; MOST];
/// How much of the table was ever used.
static USED: AtomicUsize = AtomicUsize::new(0);

/// A descriptor that a forked child must not keep; until this is dropped.
#[derive(Debug)]
pub(crate) struct Own(usize);

impl Own {
    /// To be dropped before `fd` is closed.
    pub(crate) fn new(fd: RawFd) -> Own {
        for (i, place) in OWN.iter().enumerate() {
            if place.load(Ordering::Relaxed) == 0
                && place.compare_exchange(0, fd + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            {
                USED.fetch_max(i + 1, Ordering::SeqCst);
                return Own(i);
            }
        }
        Own(MOST)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(place) = OWN.get(self.0) {
            place.store(0, Ordering::SeqCst);
        }
    }
}

/// Sees to it that children learn what they are. Nothing happens in this process.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(not(miri))]
        // SAFETY: the handler is async-signal-safe and lives as long as the program. The only error is lack of memory;
        // then children are not told, which is what they would be without this.
        unsafe {
            libc::pthread_atfork(None, None, Some(in_child));
        }
        #[cfg(miri)]
        let _ = in_child;
    });
}

extern "C" fn in_child() {
    FORKED.store(true, Ordering::SeqCst);
    current::set(std::ptr::null());
    // SAFETY: plain system calls on a static string and on descriptors that this process owns; errno is put back.
    unsafe {
        let errno = super::errno_location();
        let before = *errno;
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for place in &OWN[..USED.load(Ordering::SeqCst)] {
            let fd = place.load(Ordering::SeqCst) - 1;
            if fd >= 0 && null >= 0 && libc::dup2(null, fd) >= 0 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            } else if fd >= 0 {
                libc::close(fd);
            }
        }
        if null >= 0 {
            libc::close(null);
        }
        *errno = before;
    }
}

/// Whether this process is the child of a fork, and a runtime had started before it.
#[inline]
pub(crate) fn forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

const WHY: &str = "this process was forked off one whose coro runtime had started, and workers and tasks do not survive a \
                   fork; exec another program, or fork before coro is first used";

/// For calls that need a worker.
///
/// # Errors
/// In a forked child.
pub(crate) fn refuse() -> io::Result<()> {
    if forked() { Err(io::Error::new(io::ErrorKind::Unsupported, WHY)) } else { Ok(()) }
}

/// For waits on a task or runtime of the parent, which would never end.
///
/// # Panics
/// In a forked child.
#[track_caller]
pub(crate) fn refuse_wait(what: &str) {
    if forked() {
        panic!("{what} cannot be waited for: {WHY}");
    }
}

/// Ends a child that has come to the end of the task in which it was forked, as it ends where a thread forks and returns.
pub(crate) fn end_child(failed: bool) -> ! {
    super::stderr::write_raw(b"coro: a task that forked has ended in the child, and the child with it\n");
    // SAFETY: ends the process without running what belongs to the parent.
    unsafe { libc::_exit(if failed { 101 } else { 0 }) }
}
