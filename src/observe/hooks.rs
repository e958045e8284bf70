//! Function pointers that an upper layer registers and a lower layer calls.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::Overrun;

/// A slot for a plain function. Empty until somebody registers; read with one relaxed load.
#[derive(Debug)]
pub(crate) struct Hook<F> {
    function: AtomicPtr<()>,
    kind: PhantomData<F>,
}

/// A slice was longer than the threshold.
pub(crate) type SliceHook = fn(&Overrun);

/// Called by the worker after a slice that was longer than the threshold.
pub(crate) static SLICE_OVERRUN: Hook<SliceHook> = Hook::empty();

impl<F> Hook<F> {
    pub(crate) const fn empty() -> Hook<F> {
        Hook { function: AtomicPtr::new(std::ptr::null_mut()), kind: PhantomData }
    }
}

impl Hook<SliceHook> {
    pub(crate) fn set(&self, f: SliceHook) {
        self.function.store(f as *mut (), Ordering::Release);
    }

    pub(crate) fn get(&self) -> Option<SliceHook> {
        let p = self.function.load(Ordering::Acquire);
        // SAFETY: the only non-null values ever stored are `SliceHook` pointers, in `set`.
        (!p.is_null()).then(|| unsafe { std::mem::transmute::<*mut (), SliceHook>(p) })
    }
}
