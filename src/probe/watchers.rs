//! Who watches a point: a list that everybody who passes reads, and that is replaced as a whole.
//!
//! Invariants: whoever reads says so meanwhile, and does not wait; a list that was replaced is freed when nobody reads it any more, on
//! whatever thread that is noticed. Lists are changed under the registry's lock only.
//!
//! There are two ways to say so. Anybody can be pinned (crossbeam's epochs), which costs a memory barrier for each read. A task has
//! the seat of its worker, a number that is odd while something is read there. That costs two plain stores, as the barrier is the
//! other side's: who replaces a list stores the new pointer, has every thread of the process pass a barrier, and looks at the seats then.
//! Whoever sits there may read the old list; whoever does not has finished, or has begun after the barrier and found the new one:
//!
//! ```text
//!   reads:     seat := odd | pointer -> list ...          | seat := even
//!   replaces:  pointer := new | barrier on every thread | which seats are odd?
//! ```
//!
//! If the read of the pointer comes before the barrier, so does the store to the seat, which is seen; if it comes after it, it finds what
//! was stored before. The old list waits until each seat that was odd holds another number, and then goes the way of epochs, for
//! those who were pinned.

use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, compiler_fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_epoch as epoch;

use super::event::Events;
use super::light::{Acts, Plan};
use super::running::Probe;
use super::wrapping::Wrapping;
use crate::observe::{Kept, Point};
use crate::scheduler::suspend::{Here, here};
use crate::sys::barrier;

/// See the module's head.
pub(super) struct Watchers {
    pub(super) all: Vec<Watcher>,
    /// What any of them wants.
    pub(super) events: Events,
    /// Whether any of them looks at arguments after the beginning of a call.
    pub(super) keep_arguments: bool,
    /// What they do, if that is to count and to measure whole calls and no more.
    pub(super) acts: Option<Acts>,
    /// Whether any of them may ask whoever passes to stop.
    pub(super) stops: bool,
    /// The turn of the newest of them.
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
        self.probe.turn() <= newest && (arguments.is_some() || !self.probe.needs_arguments_later())
    }
}

impl Watchers {
    fn new(all: Vec<Watcher>, wrappings: Vec<Arc<Wrapping>>) -> Watchers {
        let events = all.iter().fold(Events::NONE, |events, watcher| events | watcher.probe.events());
        let keep_arguments = all.iter().any(|watcher| watcher.probe.needs_arguments_later());
        let stops = all.iter().any(|watcher| watcher.probe.stops());
        let newest = all.iter().map(|watcher| watcher.probe.turn()).max().unwrap_or(0);
        let acts = if wrappings.is_empty() { Acts::of(&all, events, newest) } else { None };
        Watchers { all, events, keep_arguments, acts, stops, newest, wrappings }
    }
}

/// Shows the list of a point, if there is one.
#[inline]
pub(super) fn read<R>(point: &Point, f: impl FnOnce(&Watchers) -> R) -> Option<R> {
    if !point.is_watched() {
        return None;
    }
    let seated = here().and_then(|h| Seated::new(&h));
    let _pinned = seated.is_none().then(epoch::pin);
    let list = point.watchers().load(Ordering::Acquire).cast::<Watchers>();
    // SAFETY: only `replace` stores into it, pointers of boxes; what it takes out is freed only when nobody sits in a seat or is
    // pinned who did before.
    unsafe { list.as_ref() }.map(f)
}

/// The same for a task, from its worker's seat, whether there is a list or not. `None` if there is no seat for whoever
/// runs here, and `f` was not called; or if `f` says so.
#[inline(always)]
pub(super) fn read_seated<R>(point: &Point, f: impl FnOnce(&Here, Option<&Watchers>) -> Option<R>) -> Option<R> {
    let h = here()?;
    let _seated = Seated::new(&h)?;
    let list = point.watchers().load(Ordering::Acquire).cast::<Watchers>();
    // SAFETY: as in `read`.
    f(&h, unsafe { list.as_ref() })
}

/// Workers that have a seat: those with the lowest numbers.
const SEATS: usize = 64;

/// Odd while the task that runs on that worker reads a list. Two cache lines: x86 fetches them in pairs.
#[repr(align(128))]
struct Seat(AtomicU64);

static SEATED: [Seat; SEATS] = [const { Seat(AtomicU64::new(0)) }; SEATS];

/// Whether barriers can be had. Set before the first list is shown, under the registry's lock, and never taken back.
static HAS_BARRIERS: AtomicBool = AtomicBool::new(false);

/// Somebody reads.
struct Seated {
    seat: &'static AtomicU64,
    even: u64,
}

impl Seated {
    /// Of the task that runs here. `None`: there is no seat for it, or somebody sits there, whom a signal has interrupted or who waits in
    /// the middle.
    #[inline(always)]
    fn new(h: &Here) -> Option<Seated> {
        if !HAS_BARRIERS.load(Ordering::Relaxed) {
            return None;
        }
        let seat = &SEATED.get(usize::from(h.worker.index()))?.0;
        let even = seat.load(Ordering::Relaxed);
        if even % 2 == 1 {
            return None;
        }
        seat.store(even + 1, Ordering::Relaxed);
        // The other half of this is the barrier in `replace`.
        compiler_fence(Ordering::SeqCst);
        Some(Seated { seat, even })
    }
}

impl Drop for Seated {
    #[inline(always)]
    fn drop(&mut self) {
        self.seat.store(self.even + 2, Ordering::Release);
    }
}

/// A list that was replaced while somebody sat.
struct Waiting {
    /// Its address.
    list: usize,
    /// Seats that were odd, and their numbers.
    seated: Vec<(usize, u64)>,
}

static WAITING: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

fn waiting() -> MutexGuard<'static, Vec<Waiting>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts another list in its place. Under the registry's lock.
pub(super) fn replace(point: &'static Point, all: Vec<Watcher>, wrappings: Vec<Arc<Wrapping>>) {
    let (list, plan) = match all.is_empty() && wrappings.is_empty() {
        true => (ptr::null_mut(), Plan::NONE),
        false => {
            let list = Watchers::new(all, wrappings);
            let plan = list.acts.as_ref().map_or(Plan::NONE, |acts| acts.plan);
            (Box::into_raw(Box::new(list)), plan)
        }
    };
    if !HAS_BARRIERS.load(Ordering::Relaxed) && barrier::register() {
        HAS_BARRIERS.store(true, Ordering::Relaxed);
    }
    let old = point.watchers().swap(list.cast(), Ordering::AcqRel).cast::<Watchers>();
    plan.show(point);
    if old.is_null() {
        return;
    }
    // Its address, because what is put off may run on another thread.
    let old = old.expose_provenance();
    if HAS_BARRIERS.load(Ordering::Relaxed) {
        if !barrier::everywhere() {
            // In a process that was forked, say. Nobody can tell who reads it, so it stays.
            return;
        }
        let sits =
            |(index, seat): (usize, &Seat)| Some((index, seat.0.load(Ordering::Acquire))).filter(|(_, n)| n % 2 == 1);
        let seated: Vec<_> = SEATED.iter().enumerate().filter_map(sits).collect();
        if !seated.is_empty() {
            REPLACED.fetch_add(1, Ordering::Relaxed);
            waiting().push(Waiting { list: old, seated });
            return;
        }
    }
    REPLACED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: a box's, out of the only place that led to it, and nobody reads it from a seat.
    unsafe { free_when_unpinned(old) };
}

/// Frees a list when nobody is pinned any more who may read it.
///
/// # Safety
/// It is the address of a box that nobody can come to any more, and that nobody reads without being pinned.
unsafe fn free_when_unpinned(old: usize) {
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
    waiting().retain(|waiting| {
        let sits = |(index, number): &(usize, u64)| SEATED[*index].0.load(Ordering::Acquire) == *number;
        let stays = waiting.seated.iter().any(sits);
        if !stays {
            // SAFETY: `replace` took it out; everybody who sat then has risen, and nobody has come to it since.
            unsafe { free_when_unpinned(waiting.list) };
        }
        stays
    });
    // Every other thread that is pinned may hold an epoch back; of those that are not, three steps are enough.
    for _ in 0..4 {
        epoch::pin().flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::super::running::{Limits, Made};
    use super::super::sink::Sink;
    use super::*;
    use crate::scheduler::Runtime;

    /// A list of one probe, in the place of whatever is there; and how to tell whether it was freed.
    fn show(point: &'static Point, id: u64) -> Weak<Probe> {
        let made = Made {
            name: "test".into(),
            pattern: "test".into(),
            session: None,
            instruments: Vec::new(),
            written: String::new(),
            filter: None,
            filter_text: None,
            limits: Limits::default(),
            sink: Arc::new(Sink::queue()),
        };
        let probe = Arc::new(Probe::new(id, made));
        probe.take_turn(id);
        let freed = Arc::downgrade(&probe);
        replace(point, vec![Watcher { probe, function: None }], Vec::new());
        freed
    }

    fn until_freed(list: &Weak<Probe>) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while list.strong_count() > 0 {
            assert!(Instant::now() < deadline, "it is never freed");
            collect();
            std::thread::yield_now();
        }
    }

    /// One test after the other: what is pinned in one of them would hold the others up.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn a_list_that_is_read_is_freed_after_the_reader() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let point = Point::register("watchers_tests::read", &[]);
        let runtime = Runtime::builder().workers(1).build().unwrap();
        for in_task in [true, false] {
            let list = show(point, 1);
            let ((reading, reads), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel::<()>());
            let read = move || {
                read(point, |list| {
                    reading.send(()).unwrap();
                    goes_on.recv().unwrap();
                    list.newest
                })
            };
            let ended: Box<dyn FnOnce() -> Option<u64>> = match in_task {
                true => {
                    let task = runtime.spawn(read);
                    Box::new(|| task.join().unwrap())
                }
                false => {
                    let thread = std::thread::spawn(read);
                    Box::new(|| thread.join().unwrap())
                }
            };
            reads.recv().unwrap();
            let next = show(point, 2);
            (0..20).for_each(|_| collect());
            assert_eq!(list.strong_count(), 1, "freed under whoever reads it");
            go_on.send(()).unwrap();
            assert_eq!(ended(), Some(1));
            until_freed(&list);
            assert_eq!(next.strong_count(), 1, "it is still shown");
            replace(point, Vec::new(), Vec::new());
            until_freed(&next);
        }
    }

    #[test]
    fn lists_are_replaced_under_tasks_and_threads_that_read_all_the_time() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let point = Point::register("watchers_tests::stress", &[]);
        let over = Arc::new(AtomicBool::new(false));
        let runtime = Runtime::builder().workers(2).build().unwrap();
        let reader = |over: Arc<AtomicBool>| {
            move || {
                let mut last = 0;
                while !over.load(Ordering::Relaxed) {
                    // The probe was there before its list, and both are until this ends.
                    let seen = read(point, |list| (list.newest, list.all[0].probe.id(), list.all[0].probe.name.len()));
                    if let Some((newest, id, len)) = seen {
                        assert_eq!((newest, len), (id, 4));
                        assert!(id >= last, "an older list came after a newer one");
                        last = id;
                    }
                    if cfg!(miri) {
                        crate::thread::yield_now();
                    }
                }
            }
        };
        let tasks: Vec<_> = (0..2).map(|_| runtime.spawn(reader(over.clone()))).collect();
        let thread = std::thread::spawn(reader(over.clone()));
        let mut lists = Vec::new();
        for id in 1..=if cfg!(miri) { 5 } else { 2000 } {
            lists.push(show(point, id));
            if id % 16 == 0 {
                collect();
            }
        }
        over.store(true, Ordering::Relaxed);
        tasks.into_iter().for_each(|task| task.join().unwrap());
        thread.join().unwrap();
        replace(point, Vec::new(), Vec::new());
        lists.iter().for_each(until_freed);
    }
}
