//! What becomes of the instruments of a probe that nobody uses any more: they are asked what they have found, and dropped.
//!
//! Both are code of the program's, and whoever lets go of a probe last may be a worker in the middle of a call, the console, or a
//! thread that holds the registry's lock. So what there is to drop is only put here, and done by a thread that has nothing else to
//! do: one that stands still in it holds up those that come after it, and nobody else.
//!
//! Invariants: putting something here runs nothing of it, and waits for nobody who does. The thread is there while there is
//! something to do.
//!
//! Must not know: when a probe ends.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{process, thread};

use super::instrument::Instrument;
use super::registry;
use super::running::Filter;
use crate::sys::threads::Own;

/// What a probe leaves.
pub(super) struct Left {
    pub(super) probe: u64,
    pub(super) instruments: Vec<Box<dyn Instrument>>,
    pub(super) filter: Option<Filter>,
}

#[derive(Default)]
struct Queue {
    left: VecDeque<Left>,
    /// The process whose thread is there; a forked child has none of its parent's.
    served: Option<u32>,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { left: VecDeque::new(), served: None });

/// Probes that were made, and of which something is there still.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A probe is made, of which something will be left.
pub(super) fn begins() {
    ALIVE.fetch_add(1, Ordering::Relaxed);
}

/// Whether something of any probe is there still.
pub(super) fn is_any_alive() -> bool {
    ALIVE.load(Ordering::Acquire) > 0
}

/// Takes what a probe leaves; the thread that sweeps sees to the rest.
pub(super) fn leave(left: Left) {
    queue().left.push_back(left);
    registry::nudge();
}

/// Starts the thread if there is something to do and nobody who does it; false if there is none to be had now.
pub(super) fn see_to_it() -> bool {
    let mut queue = queue();
    let here = Some(process::id());
    if queue.left.is_empty() || queue.served == here {
        return true;
    }
    queue.served = here.filter(|_| thread::Builder::new().name("coro-probe-end".into()).spawn(serve).is_ok());
    queue.served.is_some()
}

fn serve() {
    let _own = Own::new();
    loop {
        let next = {
            let mut queue = queue();
            let next = queue.left.pop_front();
            if next.is_none() {
                queue.served = None;
            }
            next
        };
        let Some(Left { probe, instruments, filter }) = next else { return registry::nudge() };
        if registry::wants_text(probe) {
            registry::note_text(probe, found(instruments.iter().map(|instrument| &**instrument)));
        }
        for instrument in instruments {
            quietly(|| drop(instrument));
        }
        quietly(|| drop(filter));
        ALIVE.fetch_sub(1, Ordering::Release);
    }
}

fn quietly(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        std::mem::forget(payload);
    }
}

/// What instruments have found, in lines. They may be anybody's code, which may stand still.
pub(super) fn found<'a>(instruments: impl Iterator<Item = &'a dyn Instrument>) -> String {
    let of = |instrument: &dyn Instrument| {
        let text = || instrument.text().unwrap_or_else(|| super::text::value(&instrument.report()));
        catch_unwind(AssertUnwindSafe(text)).unwrap_or_else(|payload| {
            std::mem::forget(payload);
            "its report panicked".to_owned()
        })
    };
    instruments.map(of).filter(|text| !text.is_empty() && text != "()").collect::<Vec<_>>().join("\n")
}
