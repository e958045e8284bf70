//! What a console session has of probes: those that end with it, and the lines that they send it.
//!
//! Must not know: what a session is.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sink::Sink;
use super::{registry, stop};

/// The session that a probe ends with, and where its lines go.
#[derive(Clone)]
pub(crate) struct Home {
    pub(super) id: u64,
    pub(super) sink: Arc<Sink>,
}

/// Of one session; its probes end when this is dropped.
pub(crate) struct SessionProbes {
    pub(super) id: u64,
    pub(super) sink: Arc<Sink>,
    /// Lines lost that it was told of.
    told_lost: AtomicU64,
}

impl SessionProbes {
    pub(crate) fn new() -> SessionProbes {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        SessionProbes { id, sink: Arc::new(Sink::queue()), told_lost: AtomicU64::new(0) }
    }

    /// For whoever attaches for it, and may outlast it.
    pub(crate) fn home(&self) -> Home {
        Home { id: self.id, sink: self.sink.clone() }
    }

    /// Lines that came since the last call, up to so many bytes; nothing in them steers a terminal.
    pub(crate) fn lines(&self, most: usize) -> Vec<String> {
        let mut lines = self.sink.take(most);
        let lost = self.sink.counts().1;
        let before = self.told_lost.swap(lost, Ordering::Relaxed);
        if lost > before {
            lines.push(format!("({} lines of probes found no room and were lost)", lost - before));
        }
        lines
    }

    /// Whether lines may still come.
    pub(crate) fn is_active(&self) -> bool {
        // In this order: the last line of a probe that is over, which may come long after its end, lies in the sink when it is in no list.
        registry::lists_any_of(self.id) || self.sink.waits()
    }
}

impl Drop for SessionProbes {
    fn drop(&mut self) {
        self.sink.close();
        registry::end_session(self.id);
        stop::release_of(&self.sink);
    }
}

impl fmt::Debug for SessionProbes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "probes of session {}", self.id)
    }
}
