//! Who watches a point: a list that everybody who passes reads, and that is replaced as a whole.
//!
//! Invariants: whoever reads is pinned meanwhile (crossbeam's epochs), and does not wait; a list that was replaced is freed when
//! nobody reads it any more, on whatever thread that is noticed. Lists are changed under the registry's lock only.

use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_epoch as epoch;

use super::event::Events;
use super::running::Probe;
use super::wrapping::Wrapping;
use crate::observe::{Kept, Point};

/// See the module's head.
pub(super) struct Watchers {
    pub(super) all: Vec<Watcher>,
    /// What any of them wants.
    pub(super) events: Events,
    /// Whether any of them looks at arguments after the beginning of a call.
    pub(super) keep_arguments: bool,
    /// The newest of them.
    pub(super) newest: u64,
    /// What the calls of the point go through, the oldest first.
    pub(super) wrappings: Vec<Arc<Wrapping>>,
}

/// One probe at one point.
pub(super) struct Watcher {
    pub(super) probe: Arc<Probe>,
    /// The function in which this mark is watched; `None`: the point itself.
    pub(super) function: Option<&'static Point>,
}

impl Watcher {
    /// Whether it is told of the rest of a call: it saw it begin, and what it needs of that was kept.
    pub(super) fn saw(&self, newest: u64, arguments: &Option<Rc<[Kept]>>) -> bool {
        self.probe.id() <= newest && (arguments.is_some() || !self.probe.needs_arguments_later())
    }
}

impl Watchers {
    fn new(all: Vec<Watcher>, wrappings: Vec<Arc<Wrapping>>) -> Watchers {
        let events = all.iter().fold(Events::NONE, |events, watcher| events | watcher.probe.events());
        let keep_arguments = all.iter().any(|watcher| watcher.probe.needs_arguments_later());
        let newest = all.iter().map(|watcher| watcher.probe.id()).max().unwrap_or(0);
        Watchers { all, events, keep_arguments, newest, wrappings }
    }
}

/// Shows the list of a point, if there is one.
#[inline]
pub(super) fn read<R>(point: &Point, f: impl FnOnce(&Watchers) -> R) -> Option<R> {
    if !point.is_watched() {
        return None;
    }
    let _pinned = epoch::pin();
    let list = point.watchers().load(Ordering::Acquire).cast::<Watchers>();
    // SAFETY: only `replace` stores into it, pointers of boxes; what it takes out is freed only when nobody is pinned who
    // was so before.
    unsafe { list.as_ref() }.map(f)
}

/// Puts another list in its place. Under the registry's lock.
pub(super) fn replace(point: &'static Point, all: Vec<Watcher>, wrappings: Vec<Arc<Wrapping>>) {
    let list = match all.is_empty() && wrappings.is_empty() {
        true => ptr::null_mut(),
        false => Box::into_raw(Box::new(Watchers::new(all, wrappings))),
    };
    let old = point.watchers().swap(list.cast(), Ordering::AcqRel).cast::<Watchers>();
    if old.is_null() {
        return;
    }
    REPLACED.fetch_add(1, Ordering::Relaxed);
    // Its address, because what is put off may run on another thread.
    let old = old.expose_provenance();
    let pinned = epoch::pin();
    // SAFETY: it came out of a box, was taken out of the only place that led to it, and is freed once. `Watchers` may be
    // dropped on any thread.
    unsafe {
        pinned.defer_unchecked(move || {
            drop(Box::from_raw(ptr::with_exposed_provenance_mut::<Watchers>(old)));
            REPLACED.fetch_sub(1, Ordering::Release);
        });
    }
    pinned.flush();
}

/// Lists that were replaced and are not freed yet.
static REPLACED: AtomicUsize = AtomicUsize::new(0);

/// Whether there are lists that were replaced, and which somebody may read still.
pub(super) fn are_any_unread() -> bool {
    REPLACED.load(Ordering::Acquire) > 0
}

/// Frees what nobody reads any more, if it can be done now.
pub(super) fn collect() {
    // Every other thread that is pinned may hold an epoch back; of those that are not, three steps are enough.
    for _ in 0..4 {
        epoch::pin().flush();
    }
}
