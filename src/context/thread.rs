//! A context backed by an OS thread: slow, but made of nothing that an interpreter cannot follow.
//!
//! Used under Miri and with `--cfg coro_thread_context`, so that every layer above the switch runs there. Exactly
//! one of the threads that make up a worker runs at any time; the hand-over goes through a mutex and a condition
//! variable. The worker's thread-local word (`sys::current`) is carried along, because here a task does not share
//! its worker's thread.

use std::sync::{Condvar, Mutex};

#[cfg(feature = "probe")]
use super::Call;
use super::Entry;
use crate::sys::current;

/// The registers of a suspended context: here, a baton that its thread waits for.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Ctx {
    pub(crate) sp: usize,
    pub(crate) ip: usize,
    pub(crate) fp: usize,
    baton: *const Baton,
}

#[derive(Debug, Default)]
struct Baton {
    turn: Mutex<Turn>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Turn {
    mine: bool,
    /// The worker's thread-local word, handed over with the turn.
    word: usize,
    /// Set until the first resume: what to run.
    start: Option<(Entry, usize)>,
}

/// Unwinds a finished context's thread; nobody but the thread's own closure sees it.
struct ThreadEnds;

impl Baton {
    fn leaked() -> *const Baton {
        // Batons are few (tests) and a finished one may still be looked at by its successor; they are not freed.
        Box::leak(Box::default())
    }

    fn give(&'static self, word: usize) {
        let mut turn = self.turn.lock().unwrap();
        turn.mine = true;
        turn.word = word;
        if let Some((entry, arg)) = turn.start.take() {
            drop(turn);
            std::thread::Builder::new()
                .name("coro-context".into())
                .spawn(move || {
                    self.wait();
                    let run = std::panic::AssertUnwindSafe(|| {
                        // SAFETY: `Ctx::new`'s caller promised that entry may run with arg once.
                        unsafe { entry(std::ptr::with_exposed_provenance_mut(arg)) }
                    });
                    let _: Result<(), _> = std::panic::catch_unwind(run);
                })
                .expect("a context of the thread-backed kind needs a thread; raise the limit on threads");
        } else {
            drop(turn);
            self.arrived.notify_one();
        }
    }

    fn wait(&self) {
        let mut turn = self.turn.lock().unwrap();
        while !turn.mine {
            turn = self.arrived.wait(turn).unwrap();
        }
        turn.mine = false;
        current::set(std::ptr::with_exposed_provenance(turn.word));
    }
}

/// There is no base frame that a walk could meet.
pub(crate) fn base_range() -> (usize, usize) {
    (0, 0)
}

/// There is no switch that a thread could be caught in.
#[allow(dead_code, reason = "nobody is asked where it is")]
pub(crate) fn stub_range() -> (usize, usize) {
    (0, 0)
}

impl Ctx {
    /// A context that has nothing to resume.
    pub(crate) const fn empty() -> Ctx {
        Ctx { sp: 0, ip: 0, fp: 0, baton: std::ptr::null() }
    }

    /// A context that calls `entry(arg)` on a thread of its own when it is first resumed.
    ///
    /// # Safety
    /// As for the real context; `top` is not used.
    pub(crate) unsafe fn new(_top: *mut u8, entry: Entry, arg: *mut ()) -> Ctx {
        let baton = Baton::leaked();
        // SAFETY: leaked just now.
        let b = unsafe { &*baton };
        b.turn.lock().unwrap().start = Some((entry, arg.expose_provenance()));
        Ctx { sp: 0, ip: 0, fp: 0, baton }
    }
}

/// Saves the running context in `save` and resumes `to`; returns when somebody resumes `save`.
///
/// # Safety
/// As for the real context.
pub(crate) unsafe fn switch(save: *mut Ctx, to: *const Ctx) {
    // SAFETY: the caller keeps both alive; batons are never freed.
    let (own, next) = unsafe {
        if (*save).baton.is_null() {
            (*save).baton = Baton::leaked();
        }
        (&*(*save).baton, &*(*to).baton)
    };
    next.give(current::get().expose_provenance());
    own.wait();
}

/// Ends the running context and resumes `to`.
///
/// # Safety
/// As for [`switch`]; nothing on the caller's stack needs dropping.
pub(crate) unsafe fn finish(_save: *mut Ctx, to: *const Ctx) -> ! {
    // SAFETY: as in `switch`.
    let next: &'static Baton = unsafe { &*(*to).baton };
    next.give(current::get().expose_provenance());
    std::panic::resume_unwind(Box::new(ThreadEnds))
}

/// Calls `call(arg)`, where the caller is: a thread's own stack is as large as any.
///
/// # Safety
/// As for the real context.
#[cfg(feature = "probe")]
pub(crate) unsafe fn call_on(_top: *mut u8, call: Call, arg: *mut ()) {
    // SAFETY: forwarded from the caller.
    unsafe { call(arg) }
}

/// Unknown, and below every stack.
pub(crate) fn stack_pointer() -> usize {
    0
}
