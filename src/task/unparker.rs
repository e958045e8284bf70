//! Who is to be woken, in two words.
//!
//! An enum of the three would have three words, be written word by word and copied by sixteen bytes at a time: whoever reads so what was just
//! written so waits until it has left the processor's store buffer, once for each message to a task that waits. Two words stay in registers.

use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::task::Waker;

use super::cell::{TaskCell, TaskRef};
use crate::sys::parker::ThreadParker;

/// In the place of a cell: `word` is a thread's parker, from `Arc::into_raw`. No cell lies there, nor at the next.
const THREAD: NonNull<TaskCell> = no_cell(1);
/// In the place of a cell: `word` is a waker, from `Box::into_raw`.
const WAKER: NonNull<TaskCell> = no_cell(2);

const fn no_cell(at: usize) -> NonNull<TaskCell> {
    NonNull::new(ptr::without_provenance_mut(at)).expect("it is not null")
}

/// Who is to be woken: a task, a plain thread, or whoever polls a future elsewhere. That one is anybody's code: never to be called, cloned
/// or dropped under a lock, and it may panic.
pub(crate) struct Unparker {
    cell: NonNull<TaskCell>,
    /// The task's id, or what `cell` says.
    word: *const (),
}

/// Who it is if it is no task.
#[derive(Debug)]
pub(crate) enum Other<'a> {
    Thread(&'a ThreadParker),
    Waker(&'a Waker),
}

// SAFETY: it owns an `Arc` or a box of what is `Send` and `Sync`, or is a reference by identity.
unsafe impl Send for Unparker {}
// SAFETY: as above.
unsafe impl Sync for Unparker {}
// Nothing can be seen half changed through it.
impl UnwindSafe for Unparker {}
impl RefUnwindSafe for Unparker {}

impl Unparker {
    #[inline(always)]
    pub(crate) fn task(task: TaskRef) -> Unparker {
        Unparker { cell: task.cell, word: ptr::without_provenance(task.id as usize) }
    }

    pub(crate) fn thread(parker: Arc<ThreadParker>) -> Unparker {
        Unparker { cell: THREAD, word: Arc::into_raw(parker).cast() }
    }

    pub(crate) fn waker(waker: Waker) -> Unparker {
        Unparker { cell: WAKER, word: Box::into_raw(Box::new(waker)).cast_const().cast() }
    }

    #[inline(always)]
    pub(crate) fn as_task(&self) -> Option<TaskRef> {
        (self.cell.addr() > WAKER.addr()).then(|| TaskRef { cell: self.cell, id: self.word.addr() as u64 })
    }

    /// Who it is, which is no task.
    pub(crate) fn other(&self) -> Option<Other<'_>> {
        // SAFETY: the word came from `Arc::into_raw` or `Box::into_raw`, as the mark says, and is given back when this goes.
        unsafe {
            match self.cell {
                cell if cell == THREAD => Some(Other::Thread(&*self.word.cast::<ThreadParker>())),
                cell if cell == WAKER => Some(Other::Waker(&*self.word.cast::<Waker>())),
                _ => None,
            }
        }
    }

    /// The waker, if it is one.
    pub(crate) fn into_waker(self) -> Result<Waker, Unparker> {
        if self.cell != WAKER {
            return Err(self);
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: from `Box::into_raw`, and not dropped here.
        Ok(*unsafe { Box::from_raw(this.word.cast_mut().cast::<Waker>()) })
    }

    #[cold]
    #[inline(never)]
    fn clone_other(&self) -> Unparker {
        match self.other() {
            Some(Other::Thread(_)) => {
                // SAFETY: the word came from `Arc::into_raw`, and the one it stands for lives.
                unsafe { Arc::increment_strong_count(self.word.cast::<ThreadParker>()) };
                Unparker { cell: THREAD, word: self.word }
            }
            Some(Other::Waker(waker)) => Unparker::waker(waker.clone()),
            None => unreachable!("a task is copied"),
        }
    }

    #[cold]
    #[inline(never)]
    fn drop_other(&mut self) {
        // SAFETY: as in `other`; this is the drop.
        unsafe {
            match self.cell {
                cell if cell == THREAD => drop(Arc::from_raw(self.word.cast::<ThreadParker>())),
                cell if cell == WAKER => drop(Box::from_raw(self.word.cast_mut().cast::<Waker>())),
                _ => {}
            }
        }
    }
}

impl Clone for Unparker {
    #[inline(always)]
    fn clone(&self) -> Unparker {
        match self.as_task() {
            Some(task) => Unparker::task(task),
            None => self.clone_other(),
        }
    }
}

impl Drop for Unparker {
    #[inline(always)]
    fn drop(&mut self) {
        if self.as_task().is_none() {
            self.drop_other();
        }
    }
}

impl fmt::Debug for Unparker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.as_task(), self.other()) {
            (_, Some(other)) => fmt::Debug::fmt(&other, f),
            (task, None) => fmt::Debug::fmt(&task, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_waker_is_owned_once_by_each_copy() {
        let woken = Arc::new(Woken::default());
        let one = Unparker::waker(Waker::from(woken.clone()));
        let two = one.clone();
        assert_eq!(Arc::strong_count(&woken), 3);
        assert!(one.as_task().is_none());
        one.into_waker().expect("it is a waker").wake();
        assert_eq!((woken.0.load(Ordering::Relaxed), Arc::strong_count(&woken)), (1, 2));
        assert!(matches!(two.other(), Some(Other::Waker(_))));
        drop(two);
        assert_eq!(Arc::strong_count(&woken), 1);
    }

    #[test]
    fn a_thread_is_owned_once_by_each_copy() {
        let parker = Arc::<ThreadParker>::default();
        let one = Unparker::thread(parker.clone());
        let two = one.clone();
        assert_eq!(Arc::strong_count(&parker), 3);
        let one = one.into_waker().expect_err("it is no waker");
        drop(one);
        assert!(matches!(two.other(), Some(Other::Thread(p)) if ptr::eq(p, &*parker)));
        drop(Some(two));
        assert_eq!(Arc::strong_count(&parker), 1);
    }

    #[test]
    fn nobody_takes_no_room() {
        assert_eq!(size_of::<Option<Unparker>>(), 16);
    }
}
