//! What a task has entered and takes along when it switches: the spans of a tracing library.
//!
//! Such a library keeps, for each thread, what is entered there. A task that waits leaves what it has entered, so that the next one on its
//! worker is not in it, and enters it again when it goes on.
//!
//! Invariants: while a task is parked nothing of it is entered on its worker; what it has entered is left in the reverse order. A panic
//! of the library reaches nobody here.
//!
//! Must not know: which library, what a span is.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::OnceLock;

/// Something that is entered on this thread.
pub(crate) trait Entered {
    fn enter(&self);
    fn leave(&self);
    /// Whether it is that one, of that library's instance.
    fn is(&self, instance: usize, id: u64) -> bool;
}

/// What a task is in from its beginning to its end.
pub(crate) trait Root {
    /// Its labels are others now.
    fn labels(&self, text: &str);
}

/// Makes the root of a task of that id and name, and enters it; what it gives is left and dropped at the task's end.
pub(crate) type Begin = fn(u64, Option<&str>) -> Option<Box<dyn Root>>;

/// Said once by who knows.
pub(crate) static BEGIN: OnceLock<Begin> = OnceLock::new();

/// Of one task.
#[derive(Default)]
pub(crate) struct Spans {
    entered: RefCell<Vec<Rc<dyn Entered>>>,
    /// How many these are.
    depth: Cell<usize>,
    /// The library is told what it knows already.
    moving: Cell<bool>,
    root: RefCell<Option<Box<dyn Root>>>,
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spans", self.depth.get())
    }
}

fn quietly(f: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
        std::mem::forget(payload);
    }
}

impl Spans {
    /// The task has entered something. Not what is entered again.
    pub(crate) fn entered(&self, one: Rc<dyn Entered>) {
        if !self.moving.get() {
            self.entered.borrow_mut().push(one);
            self.depth.set(self.depth.get() + 1);
        }
    }

    /// The task has left it; what it entered last is what it leaves, if it has entered one twice.
    pub(crate) fn left(&self, instance: usize, id: u64) {
        if self.moving.get() {
            return;
        }
        let mut all = self.entered.borrow_mut();
        if let Some(at) = all.iter().rposition(|one| one.is(instance, id)) {
            let one = all.remove(at);
            self.depth.set(all.len());
            drop(all);
            drop(one);
        }
    }

    /// Whether there is something to leave before a switch.
    #[inline(always)]
    pub(crate) fn is_in_any(&self) -> bool {
        self.depth.get() > 0
    }

    /// Before a switch.
    #[cold]
    #[inline(never)]
    pub(crate) fn leave_all(&self) {
        self.each(|all| all.iter().rev().for_each(|one| quietly(|| one.leave())));
    }

    /// After it.
    #[cold]
    #[inline(never)]
    pub(crate) fn enter_all(&self) {
        self.each(|all| all.iter().for_each(|one| quietly(|| one.enter())));
    }

    fn each(&self, f: impl FnOnce(&[Rc<dyn Entered>])) {
        // Of the library's own switches, which it should not do, nothing is moved.
        if !self.moving.replace(true) {
            // Not borrowed while the library runs.
            let all = self.entered.borrow().clone();
            f(&all);
            self.moving.set(false);
        }
    }

    /// The task begins.
    #[inline]
    pub(crate) fn begin(&self, id: u64, name: Option<&str>) {
        if let Some(begin) = BEGIN.get() {
            quietly(|| drop(self.root.replace(begin(id, name))));
        }
    }

    /// Its labels have changed.
    pub(crate) fn labels(&self, text: impl FnOnce() -> String) {
        if let Some(root) = &*self.root.borrow() {
            quietly(|| root.labels(&text()));
        }
    }

    /// The task is over, whatever it has not left.
    #[inline]
    pub(crate) fn end(&self) {
        if self.is_in_any() {
            self.leave_all();
            self.depth.set(0);
            quietly(|| drop(self.entered.take()));
        }
        if self.root.borrow().is_some() {
            quietly(|| drop(self.root.take()));
        }
    }
}
