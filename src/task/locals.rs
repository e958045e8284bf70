//! The values of task locals: one table per task, and one per plain thread that ever used one.
//!
//! Invariants:
//! * A table is used by one flow of control only (its task, or its thread), hence `Cell`s and no atomics.
//! * A [`Slot`]'s index belongs to that slot alone for the life of the process, so what lies at it is a value of the
//!   slot's type, in a box that stays where it is until [`Table::destroy`] takes it out.
//! * References to values exist only inside [`Table::with`]; `destroy` runs when no such call is left on the stack but
//!   those of the destructors that it calls itself.
//! * No borrow of the table's own vectors lasts while code of the user runs.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::payload::Payload;

/// Where a key's values lie in every table, and how they are made.
pub(crate) struct Slot<T: 'static> {
    /// 0 until the first use, by whichever task.
    index: AtomicU32,
    init: fn() -> T,
}

static NEXT_INDEX: AtomicU32 = AtomicU32::new(1);

impl<T> Slot<T> {
    pub(crate) const fn new(init: fn() -> T) -> Slot<T> {
        Slot { index: AtomicU32::new(0), init }
    }

    #[cold]
    fn assign(&self) -> usize {
        if self.index.load(Ordering::Relaxed) == 0 {
            let fresh = NEXT_INDEX.fetch_add(1, Ordering::Relaxed);
            assert!(fresh < u32::MAX - 1024, "too many keys of task locals");
            // Another task may have been first; its index is then everybody's, and this one stays unused.
            let _ = self.index.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.index.load(Ordering::Relaxed) as usize
    }
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The value was destroyed already: its task or thread is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// How a value ends that lies at `index`.
#[derive(Debug, Clone, Copy)]
struct End {
    index: usize,
    drop: unsafe fn(*mut ()),
}

/// What stands in the place of a value that was destroyed. Its address is no box's.
static GONE: u8 = 0;

fn gone() -> *mut () {
    ptr::from_ref(&GONE).cast_mut().cast()
}

/// Made at the first use of any key.
#[derive(Debug, Default)]
struct Inner {
    /// By index; null where there is no value yet. Index 0 is no slot's, so that a slot without an index finds null.
    values: UnsafeCell<Vec<*mut ()>>,
    /// Values with a destructor, in the order in which they were made.
    ends: UnsafeCell<Vec<End>>,
    /// Values without one: of these only the memory is given back, after everything else.
    plain: UnsafeCell<Vec<End>>,
}

/// The values of one task or thread.
#[derive(Debug)]
pub(crate) struct Table {
    /// Null until the first use: a task without locals pays for this pointer.
    inner: Cell<*mut Inner>,
    finished: Cell<bool>,
}

/// # Safety
/// `value` came from `Box::<T>::into_raw` and nobody uses it any more.
unsafe fn drop_box<T>(value: *mut ()) {
    // SAFETY: forwarded.
    drop(unsafe { Box::from_raw(value.cast::<T>()) });
}

impl Table {
    pub(crate) const fn new() -> Table {
        Table { inner: Cell::new(ptr::null_mut()), finished: Cell::new(false) }
    }

    /// Whether any key was ever used here.
    pub(crate) fn in_use(&self) -> bool {
        !self.inner.get().is_null()
    }

    /// Calls `f` with the value of `slot`, which is made first if there is none: from `given`, else by the slot's own
    /// function. What was not needed of `given` goes to `f` as well.
    ///
    /// # Errors
    /// The value was destroyed.
    #[inline]
    pub(crate) fn with<T, R>(
        &self,
        slot: &'static Slot<T>,
        given: Option<T>,
        f: impl FnOnce(&T, Option<T>) -> R,
    ) -> Result<R, Gone> {
        let (value, given) = match self.find(slot) {
            Some(value) => (value, given),
            None => (self.make(slot, given)?, None),
        };
        // SAFETY: a value of this slot's type (see the head), which stays until `destroy`; that is not called while
        // this call lasts, and only shared references are ever made.
        Ok(f(unsafe { &*value }, given))
    }

    #[inline(always)]
    fn find<T>(&self, slot: &'static Slot<T>) -> Option<*const T> {
        let inner = self.inner.get();
        if inner.is_null() {
            return None;
        }
        let index = slot.index.load(Ordering::Relaxed) as usize;
        // SAFETY: made by `inner`, freed by `destroy` only, which sets the pointer to null; the borrow ends here.
        let value = *unsafe { &*(*inner).values.get() }.get(index)?;
        (!value.is_null() && value != gone()).then_some(value.cast_const().cast())
    }

    /// The slow half of `with`: there is no value, or none any more.
    #[cold]
    #[inline(never)]
    fn make<T>(&self, slot: &'static Slot<T>, given: Option<T>) -> Result<*const T, Gone> {
        if self.finished.get() {
            return Err(Gone);
        }
        let index = slot.assign();
        if self.inner.get().is_null() {
            self.inner.set(Box::into_raw(Box::default()));
        }
        // SAFETY: as in `find`; each of these borrows ends before code of the user runs.
        let values = || unsafe { &mut *(*self.inner.get()).values.get() };
        if values().len() <= index {
            values().resize(index + 1, ptr::null_mut());
        }
        if values()[index] == gone() {
            return Err(Gone);
        }
        // May use this very key, wait, or panic: nothing is borrowed and nothing half done.
        let value = given.unwrap_or_else(slot.init);
        let value: *mut () = Box::into_raw(Box::new(value)).cast();
        let old = std::mem::replace(&mut values()[index], value);
        if old.is_null() {
            let end = End { index, drop: drop_box::<T> };
            // SAFETY: as for `values`.
            unsafe {
                let inner = &*self.inner.get();
                let list = if std::mem::needs_drop::<T>() { &inner.ends } else { &inner.plain };
                (*list.get()).push(end);
            }
        } else {
            // The function used its own key. The value that it made so is replaced, as std does.
            // SAFETY: a box of this slot's type that is no longer in the table. Whoever was handed a reference to it was
            // called by the function, and has returned.
            unsafe { drop_box::<T>(old) };
        }
        Ok(value.cast_const().cast())
    }

    /// Ends every value, the youngest first, also those that the destructors of others make. From then on there is
    /// nothing here. A panic of a destructor goes to `failed` and stops no other.
    ///
    /// # Safety
    /// No call of [`with`](Table::with) on this table is in progress.
    pub(crate) unsafe fn destroy(&self, failed: &dyn Fn(&Payload)) {
        let inner = self.inner.get();
        if inner.is_null() {
            self.finished.set(true);
            return;
        }
        // SAFETY: of `inner`: as in `find`, every borrow ends before a destructor runs. Of the values: each is taken out
        // of the table before it is dropped, so it is dropped once, and by the caller's promise nobody holds a reference
        // to it: the `with`s that destructors call have ended when their destructor has.
        unsafe {
            while let Some(end) = (*(*inner).ends.get()).pop() {
                let value = std::mem::replace(&mut (&mut *(*inner).values.get())[end.index], gone());
                if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| (end.drop)(value))) {
                    failed(&payload);
                    // What it panicked with may do the same when it is dropped; that is leaked.
                    if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                        std::mem::forget(again);
                    }
                }
            }
            self.finished.set(true);
            self.inner.set(ptr::null_mut());
            let inner = Box::from_raw(inner);
            for end in &*inner.plain.get() {
                (end.drop)((&*inner.values.get())[end.index]);
            }
        }
    }
}

/// Ends the table of a plain thread.
struct EndOfThread;

impl Drop for EndOfThread {
    fn drop(&mut self) {
        // The panic hook has told of a destructor that panicked.
        // SAFETY: the thread's own functions have returned, `with` among them.
        THREAD.with(|table| unsafe { table.destroy(&|_| {}) });
    }
}

thread_local! {
    /// Without a destructor of its own, so that it can be reached while its values are destroyed.
    static THREAD: Table = const { Table::new() };
    static END: EndOfThread = const { EndOfThread };
}

/// Calls `f` with the table of the running thread: of a plain one, or of a worker while no task runs.
#[inline]
pub(crate) fn with_thread_table<R>(f: impl FnOnce(&Table) -> R) -> R {
    THREAD.with(|table| {
        if !table.in_use() {
            let _ = END.try_with(|_| {});
        }
        f(table)
    })
}
