//! A stack of the worker's, for code that is not the task's own and runs in its name where too little of its own stack is left.
//!
//! Such code is called as any other, but for the stack that its frames lie on: it runs on the task's thread, as the task, and to its end.
//! So nothing else runs on the worker meanwhile, and one stack for each worker is enough. It comes from the worker's pool, with a
//! guard below it, when it is first needed, and goes back when the worker ends; its credit is counted as a task's is.
//!
//! Who walks such a stack from a copy, as dumps and the watchdog do, finds the frames that lie on it and not those of the task, and
//! says that there are more. Who walks it where it is, as `tb` and debuggers do, goes on to those of the task.
//!
//! Invariants: while the call lasts its task does not switch, so that the stack is never that of a task which is suspended; nothing unwinds
//! from one stack to the other. Must not know: what is called.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{Ordering, compiler_fence};
use std::thread;

use super::suspend::{here, no_switch};
use super::worker::Worker;
use crate::context::{self, sanitizer::Fiber};
use crate::stack::{self, Stack};

/// Without optimisation, conditions take more than half of it; with the address sanitizer, more than 256 KiB.
const SIZE: usize = if cfg!(coro_asan) { 512 << 10 } else { 192 << 10 };

struct Job<F, T> {
    f: Option<F>,
    done: Option<thread::Result<T>>,
}

/// Calls `f` on the worker's spare stack, where it may not wait. Panics with `f`'s own panic.
///
/// # Errors
/// `f`, if there is no such stack to be had: on a plain thread, in such a call, or because there is no room for another stack.
pub(crate) fn call_on_spare<F: FnOnce() -> T, T>(f: F) -> Result<T, F> {
    /// The stack goes back to its place.
    struct Lent(&'static Worker, Option<Stack>);

    impl Drop for Lent {
        fn drop(&mut self) {
            self.0.spare_top.set(0);
            *self.0.spare.borrow_mut() = self.1.take();
        }
    }

    let Some(h) = here() else { return Err(f) };
    let worker = h.worker;
    if worker.spare_top.get() != 0 {
        return Err(f);
    }
    let Some(stack) = worker.spare.borrow_mut().take().or_else(|| worker.new_spare()) else { return Err(f) };
    let (top, low, end) = (stack.top(), stack.limit(), stack.slot_top());
    worker.spare_top.set(end);
    let lent = Lent(worker, Some(stack));
    // What reads the top is a signal handler on this thread: it must be there before anything can overflow.
    compiler_fence(Ordering::SeqCst);
    stack::unpoison(low, end);
    let mut job = Job { f: Some(f), done: None };
    let (mut own, mut other) = (Fiber::new(), Fiber::new());
    no_switch(|| {
        // Both on this side: on the other one the sanitizer's own frames would be gone before the last of the code there has run.
        own.leave_for(low, end - low);
        other.arrive();
        // SAFETY: the stack is nobody else's until it is put back; `enter` does not unwind, and `no_switch` keeps the task from switching.
        // The job outlives the call, which alone uses it.
        unsafe { context::call_on(top, enter::<F, T>, (&raw mut job).cast()) };
        other.return_to_other(true);
        own.back();
    });
    drop(lent);
    match job.done {
        Some(Ok(done)) => Ok(done),
        Some(Err(payload)) => resume_unwind(payload),
        None => unreachable!("it was called, and does not unwind"),
    }
}

/// The first frame on the other stack.
///
/// # Safety
/// `job` is a [`Job`] of that type, which nobody else uses until this returns.
unsafe extern "C" fn enter<F: FnOnce() -> T, T>(job: *mut ()) {
    // SAFETY: by the caller's promise.
    let job = unsafe { &mut *job.cast::<Job<F, T>>() };
    if let Some(f) = job.f.take() {
        job.done = Some(catch_unwind(AssertUnwindSafe(f)));
    }
}

impl Worker {
    #[cold]
    fn new_spare(&self) -> Option<Stack> {
        let class = stack::class_for(SIZE).ok()?;
        // The worker may be in the middle of something, if its allocator has a probe point.
        let mut stacks = self.stacks.try_borrow_mut().ok()?;
        stack::try_reserve(class).ok()?;
        stacks.take(class).inspect_err(|_| stack::release(class)).ok()
    }

    /// Before the worker goes.
    pub(super) fn give_spare_back(&self) {
        if let Some(stack) = self.spare.borrow_mut().take() {
            let class = stack.class();
            self.stacks.borrow_mut().give(stack);
            stack::release(class);
        }
    }

    /// The end of the spare stack's slot while something runs there; 0 otherwise. For the signal handler of overflows.
    pub(crate) fn spare_top(&self) -> usize {
        self.spare_top.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Runtime;

    /// Whether tasks have stacks of their own.
    const REAL: bool = !cfg!(any(miri, coro_thread_context));

    #[inline(never)]
    fn place() -> usize {
        context::stack_pointer()
    }

    #[test]
    fn a_call_runs_to_its_end_on_a_stack_of_the_workers() {
        assert!(call_on_spare(|| ()).is_err(), "a plain thread has none");
        let runtime = Runtime::builder().workers(1).build().unwrap();
        let task = || {
            runtime.spawn(|| {
                let (own, mut seen) = (place(), Vec::new());
                for round in 0..3u8 {
                    let text = format!("round {round}");
                    let called = call_on_spare(|| {
                        let bytes = std::hint::black_box([round; 4096]);
                        assert!(call_on_spare(|| ()).is_err(), "there is one");
                        seen.push(place());
                        (text, bytes.iter().map(|&b| u32::from(b)).sum::<u32>())
                    });
                    let Ok(called) = called else { panic!("there is none") };
                    assert_eq!(called, (format!("round {round}"), u32::from(round) * 4096));
                    crate::scheduler::yield_slice();
                }
                (own, seen)
            })
        };
        // Two that take turns: it is the same stack, and neither's own.
        let places: Vec<_> = [task(), task()].into_iter().map(|task| task.join().unwrap()).collect();
        let slot = |at: usize| stack::slot_of(at).map(|slot| slot.guard_low);
        if REAL {
            let spare = slot(places[0].1[0]);
            assert!(spare.is_some());
            for (own, seen) in &places {
                assert!(seen.iter().all(|at| slot(*at) == spare) && slot(*own) != spare, "{places:x?}");
            }
        }
    }

    // A panic with its stack takes minutes where it is interpreted.
    #[cfg(not(miri))]
    #[test]
    fn what_panics_or_waits_there_leaves_it_as_it_was() {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        let caught = |f: fn()| {
            let payload = catch_unwind(|| call_on_spare(f).is_ok()).unwrap_err();
            crate::scheduler::runtime::payload_text(&*payload).to_string()
        };
        let task = runtime.spawn(move || {
            for _ in 0..3 {
                assert_eq!(caught(|| panic!("boom")), "boom");
                assert!(caught(crate::scheduler::yield_slice).starts_with("this task may not wait here"));
                // What is caught there, and destructors.
                let done = call_on_spare(|| {
                    let kept = std::sync::Arc::new(());
                    let other = kept.clone();
                    let inner = catch_unwind(AssertUnwindSafe(move || {
                        let _other = other;
                        panic!("within")
                    }));
                    (inner.is_err(), std::sync::Arc::strong_count(&kept))
                });
                assert_eq!(done.ok(), Some((true, 1)));
                // It may wait again.
                crate::scheduler::yield_slice();
            }
        });
        task.join().unwrap();
    }
}
