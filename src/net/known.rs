//! Which sockets came from std, or went there while handles of them stayed: a second descriptor of one of them that comes
//! in later joins what the user has set on it, as std's clones do.
//!
//! `O_NONBLOCK` belongs to the socket, not to the descriptor. Without this a descriptor of a socket that is held here
//! already would count as one that the user had made non-blocking; and whoever gave the last handle that *it* knew of
//! back to std would put the socket into blocking mode under the others, whose next call would block their worker.
//!
//! Invariants: options are kept weakly, by the kernel's number of the socket, which is never used again. Whoever makes
//! up their mind about a socket's mode holds the lock. Where the system has no such number, nothing is known.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use socket2::SockRef;

use crate::scheduler::io::Options;
use crate::sys;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Known {
    /// The options, and the socket's word in the table.
    sockets: BTreeMap<u64, (Weak<Options>, u64)>,
    /// From so many entries on, those whose sockets are gone are taken out.
    purge_at: usize,
}

const FIRST_PURGE: usize = 64;

static KNOWN: Mutex<Known> = Mutex::new(Known { sockets: BTreeMap::new(), purge_at: FIRST_PURGE });

pub(super) fn lock() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    /// What was set on the socket, and its word in the table, if a handle of it is alive.
    pub(super) fn find(&self, socket: &impl AsFd) -> Option<(Arc<Options>, u64)> {
        if self.sockets.is_empty() {
            return None;
        }
        let (options, word) = self.sockets.get(&sys::socket::number(socket.as_fd())?)?;
        Some((options.upgrade()?, *word))
    }

    pub(super) fn insert(&mut self, socket: &impl AsFd, options: Weak<Options>, word: u64) {
        let Some(number) = sys::socket::number(socket.as_fd()) else { return };
        if self.sockets.len() >= self.purge_at {
            self.sockets.retain(|_, (options, _)| options.strong_count() > 0);
            self.purge_at = FIRST_PURGE.max(2 * self.sockets.len());
        }
        self.sockets.insert(number, (options, word));
    }

    /// The last handle that knew of certain options gave the socket to std: puts it into blocking mode, unless there are
    /// handles that came in by another way. The last of those then does it.
    pub(super) fn unblock(&self, socket: &impl AsFd) {
        if let Some((others, _)) = self.find(socket) {
            others.set_given_away();
            // The last of them may have gone while they were held here.
            if Arc::into_inner(others).is_none_or(|o| o.nonblocking()) {
                return;
            }
        }
        let _ = SockRef::from(socket).set_nonblocking(false);
    }
}
