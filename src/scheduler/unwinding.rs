//! What a worker remembers of waits in the middle of an unwinding, and of waits outside of any task.

use std::sync::Once;
use std::sync::atomic::Ordering;

use super::worker::Worker;

impl Worker {
    #[cold]
    pub(super) fn waits_outside_of_tasks(&self) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            crate::sys::stderr::write(
                "coro: a worker waits for a lock or channel of coro while it runs no task (in a global allocator?); all \
                 its tasks are held up until that wait ends\n",
            );
        });
    }

    /// Nobody on this thread unwinds.
    #[inline(always)]
    pub(super) fn calm(&self) {
        if self.unsettled.get() {
            self.unsettled.set(false);
            self.deliver_deferred();
        }
    }

    /// A task has ended, perhaps one that unwound without being known to.
    #[inline(always)]
    pub(super) fn settle_unwinding(&self) {
        if self.unsettled.get() && !std::thread::panicking() {
            self.calm();
        }
    }

    /// Wakes the tasks whose interrupts could not be raised, so that they look again.
    #[cold]
    pub(super) fn deliver_deferred(&self) {
        self.wakes_in_slice();
        for task in std::mem::take(&mut *self.deferred.borrow_mut()) {
            let cell = task.cell();
            let local = cell.local.load(Ordering::Relaxed);
            if cell.state.snapshot().id() == task.id() && !local.is_null() {
                // SAFETY: a started task of this worker that is not running; its first frame lives until its end,
                // which clears the pointer.
                unsafe { (*local).interrupt_deferred.set(false) };
                self.unpark_own(task);
            }
        }
    }
}
