//! The wait for the end of a child.
//!
//! Invariant: the child is unreaped for as long as this exists, so its number is its own.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitStatus;

use crate::blocking::{self, Begun};
use crate::observe::{WaitKind, WaitReason};
use crate::reactor::Direction;
use crate::scheduler::io::Source;
use crate::scheduler::suspend::{here, set_wait_extra};
use crate::sys::process;

/// Announces the end of one child, from the first wait on.
#[derive(Debug)]
pub(super) struct Exit {
    source: Source,
    descriptor: OwnedFd,
}

impl Drop for Exit {
    fn drop(&mut self) {
        // First out of every poll; the descriptor is closed after this.
        self.source.deregister();
    }
}

impl Exit {
    /// `None` where the system has no descriptors for that, or none left.
    pub(super) fn of(pid: u32) -> Option<Exit> {
        let descriptor = process::exit_descriptor(pid).ok()?;
        Some(Exit { source: Source::new(descriptor.as_raw_fd(), 0), descriptor })
    }

    /// Waits until `look` has an answer, which it has when the child has ended.
    pub(super) fn wait(
        &self,
        pid: u32,
        program: &str,
        mut look: impl FnMut() -> io::Result<Option<ExitStatus>>,
    ) -> io::Result<ExitStatus> {
        let reason = WaitReason::descriptor(WaitKind::Child, self.descriptor.as_raw_fd(), pid);
        set_wait_extra(std::ptr::from_ref(&program).expose_provenance() as u64);
        self.source.run_as(Direction::Read, reason, || look()?.ok_or_else(|| io::ErrorKind::WouldBlock.into()))
    }
}

/// A thread of the pool that waits for the child.
pub(super) type OnPool = Option<Begun<io::Result<()>>>;

/// As [`Exit::wait`], without a descriptor: a thread of the blocking pool waits, and reaps nothing. One thread, however often its
/// waiter is interrupted: it stays there until the child ends, for the next who waits.
pub(super) fn wait_on_pool(
    pid: u32,
    program: &str,
    on_pool: &mut OnPool,
    mut look: impl FnMut() -> io::Result<Option<ExitStatus>>,
) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = look()? {
            return Ok(status);
        }
        if let Some(h) = here() {
            h.refuse_if_no_switch();
            h.checkpoint_io()?;
        }
        // Also after the child was reaped in another way, the thread may still be on its way into the system, and the number be
        // another child's by then, which does no harm: it is looked at only.
        let begun = match on_pool {
            Some(begun) => begun,
            None => on_pool.insert(blocking::begin(None, move || process::wait_for_exit(pid))?),
        };
        set_wait_extra(std::ptr::from_ref(&program).expose_provenance() as u64);
        begun.wait(WaitReason::descriptor(WaitKind::Child, -1, pid))?;
        if let Some(Err(e)) = on_pool.take().map(Begun::take).transpose()? {
            return look()?.ok_or(e);
        }
    }
}
