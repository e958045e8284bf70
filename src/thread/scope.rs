//! Structured tasks: children that may borrow, because the scope never ends before them.
//!
//! Invariants: [`scope`] leaves only when every child has ended, whether its body returned, panicked, was cancelled or
//! timed out. A child's result lies in a packet that the child drops before it says that it has ended, unless the
//! handle took it. Only a closure can open a scope; there is no handle whose `Drop` could be skipped.

#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe, Location};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Thread;
use crate::observe::{WaitKind, WaitReason};
use crate::scheduler::suspend::{self, here};
use crate::scheduler::{self, CancelOutcome, JoinHandle, Task, spawn_scoped};
use crate::task::Unparker;

/// What the children and the scope share.
struct Shared {
    running: AtomicUsize,
    panicked: AtomicBool,
    /// An interrupt of the parent was forwarded: children that come later are cancelled as well.
    cut_short: AtomicBool,
    parent: Unparker,
    children: Mutex<Vec<Task>>,
}

impl Shared {
    /// Tells the scope from others, and leads views to the number of children that run: the detail of the wait.
    fn address(&self) -> usize {
        std::ptr::from_ref(&self.running).expose_provenance()
    }
}

/// Says that a child has ended, as the last thing that it does with anything borrowed.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        let parent = self.0.parent.clone();
        if self.0.running.fetch_sub(1, Ordering::Release) == 1 {
            crate::scheduler::unpark(&parent);
        }
    }
}

/// A child's result on its way to the handle.
struct Packet<T> {
    result: Mutex<Option<Result<T, Box<dyn Any + Send>>>>,
    shared: Arc<Shared>,
}

impl<T> Drop for Packet<T> {
    fn drop(&mut self) {
        let unread = self.result.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if matches!(&unread, Some(Err(p)) if !suspend::is_cancel(&**p)) {
            self.shared.panicked.store(true, Ordering::Relaxed);
        }
        if panic::catch_unwind(AssertUnwindSafe(|| drop(unread))).is_err() {
            self.shared.panicked.store(true, Ordering::Relaxed);
        }
    }
}

/// What a child's closure owns. Dropped in this order: what it borrows, its packet, then the word that it has ended.
struct Child<F, T> {
    f: Option<F>,
    packet: Option<Arc<Packet<T>>>,
    _ends: Ends,
}

impl<F: FnOnce() -> T, T> Child<F, T> {
    fn run(mut self) {
        let (Some(f), Some(packet)) = (self.f.take(), self.packet.take()) else { return };
        if let Some(h) = here() {
            h.local().scope.set(packet.shared.address());
        }
        let result = panic::catch_unwind(AssertUnwindSafe(f));
        *packet.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        drop(packet);
        if let Some(h) = here() {
            // The address may soon be another scope's, and destructors of locals may still wait.
            h.local().scope.set(0);
        }
    }
}

impl<F, T> Drop for Child<F, T> {
    fn drop(&mut self) {
        // Cancelled before it started: the closure is dropped, and its join says so.
        if let (Some(_), Some(packet)) = (&self.f, &self.packet) {
            let mut result = packet.result.lock().unwrap_or_else(PoisonError::into_inner);
            result.get_or_insert_with(|| Err(suspend::cancelled_payload()));
        }
    }
}

/// Spawns tasks that may borrow from around the scope; see [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    shared: Arc<Shared>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("running", &self.shared.running.load(Ordering::Relaxed)).finish_non_exhaustive()
    }
}

/// The handle of a child.
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<()>,
    packet: Arc<Packet<T>>,
    thread: Thread,
    scope: PhantomData<&'scope ()>,
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopedJoinHandle(#{})", self.handle.id())
    }
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the child.
    ///
    /// # Errors
    /// The payload of its panic or cancellation.
    pub fn join(self) -> Result<T, Box<dyn Any + Send>> {
        self.handle.wait_done();
        let result = self.packet.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.unwrap_or_else(|| Err(suspend::cancelled_payload()))
    }

    /// Who the child is.
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Requests cancellation; see [`Task::cancel`].
    pub fn cancel(&self) -> CancelOutcome {
        self.handle.cancel()
    }

    /// The child by reference.
    pub fn task(&self) -> Task {
        self.handle.task()
    }

    /// Whether the child has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Spawns a child that may borrow what outlives the scope.
    ///
    /// # Panics
    /// As [`spawn`](crate::spawn).
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        match self.spawn_with(&scheduler::Builder::new(), None, Location::caller(), f) {
            Ok(handle) => handle,
            Err(e) => panic!("failed to spawn thread: {e}"),
        }
    }

    pub(super) fn spawn_with<F, T>(
        &'scope self,
        builder: &scheduler::Builder,
        name: Option<Arc<str>>,
        site: &'static Location<'static>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let packet = Arc::new(Packet { result: Mutex::new(None), shared: self.shared.clone() });
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        let child = Child { f: Some(f), packet: Some(packet.clone()), _ends: Ends(self.shared.clone()) };
        let handle = spawn_scoped(builder, site, move || child.run())?;
        let mut children = self.shared.children.lock().unwrap_or_else(PoisonError::into_inner);
        if children.len() >= 64 && children.len().is_power_of_two() {
            children.retain(|c| !c.is_finished());
        }
        children.push(handle.task());
        drop(children);
        if self.shared.cut_short.load(Ordering::SeqCst) {
            handle.cancel();
        }
        let thread = Thread::of_task(handle.task(), name);
        Ok(ScopedJoinHandle { handle, packet, thread, scope: PhantomData })
    }
}

/// Runs `f` with a [`Scope`] whose tasks may borrow, and waits for all of them.
///
/// # Examples
/// ```
/// let mut parts = [1, 2, 3];
/// coro::run(|| {
///     coro::scope(|s| {
///         for p in &mut parts {
///             s.spawn(move || *p *= 10);
///         }
///     });
/// });
/// assert_eq!(parts, [10, 20, 30]);
/// ```
///
/// What lives only inside the scope's body may be gone before a child ends, and neither a handle nor the scope itself
/// can be taken out:
///
/// ```compile_fail,E0373
/// coro::scope(|s| {
///     let inside = 1;
///     s.spawn(|| println!("{inside}"));
/// });
/// ```
///
/// ```compile_fail,E0521
/// let mut leaked = None;
/// coro::scope(|s| leaked = Some(s.spawn(|| 1)));
/// leaked.unwrap().join().unwrap();
/// ```
///
/// ```compile_fail,E0277
/// let rc = std::rc::Rc::new(1);
/// coro::scope(|s| {
///     s.spawn(|| println!("{rc}"));
/// });
/// ```
///
/// # Panics
/// Inside [`no_switch`](crate::no_switch). With `f`'s own panic; with `a scoped thread panicked` if a child panicked whose handle was not joined.
///
/// # Cancellation
/// A cancellation or expiry of the caller is forwarded to all children at once, as a cancellation; the scope then still
/// waits for them and unwinds after that.
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    if let Some(h) = here() {
        // The wait at the end must not be refused: the children borrow from this frame.
        h.refuse_if_no_switch();
    }
    let scope = Scope {
        shared: Arc::new(Shared {
            running: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            cut_short: AtomicBool::new(false),
            parent: suspend::current_unparker(),
            children: Mutex::default(),
        }),
        scope: PhantomData,
        env: PhantomData,
    };
    let result = panic::catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let interrupted = matches!(&result, Err(p) if suspend::is_interrupt(&**p));
    let interrupted = wait_for_children(&scope.shared, interrupted);
    match result {
        Err(payload) => panic::resume_unwind(payload),
        Ok(_) if scope.shared.panicked.load(Ordering::Relaxed) => panic!("a scoped thread panicked"),
        Ok(value) if interrupted => {
            // The children were cancelled, so the value may be half made.
            if let Some(h) = here() {
                h.checkpoint_wait();
            }
            value
        }
        Ok(value) => value,
    }
}

/// Whether an interrupt was forwarded to the children.
fn wait_for_children(shared: &Shared, mut forwarded: bool) -> bool {
    let forward = || {
        // A child that is spawned now is either in the list already or sees the flag.
        shared.cut_short.store(true, Ordering::SeqCst);
        for c in &*shared.children.lock().unwrap_or_else(PoisonError::into_inner) {
            c.cancel();
        }
    };
    if forwarded {
        forward();
    }
    while shared.running.load(Ordering::Acquire) > 0 {
        if !forwarded && here().is_some_and(|h| h.interrupt_due()) {
            forwarded = true;
            forward();
        }
        crate::sys::fork::refuse_wait("the children of a scope");
        suspend::wait_shielded(WaitReason::new(WaitKind::Scope, shared.address() as u64));
    }
    forwarded
}
