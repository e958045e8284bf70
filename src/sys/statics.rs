//! A reference to something that lives for ever, in one atomic word: set while others read it, without a lock.
//!
//! Unlike a `OnceLock` it never makes anybody wait, which a forked child might do for ever.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// An `Option<&'static T>` that is changed and read by any thread.
#[derive(Debug)]
pub(crate) struct AtomicStatic<T: 'static>(AtomicPtr<T>);

impl<T: Sync + 'static> AtomicStatic<T> {
    pub(crate) const fn empty() -> AtomicStatic<T> {
        AtomicStatic(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&'static T> {
        let at = self.0.load(Ordering::Acquire);
        // SAFETY: null, or what `set` or `get_or_fill` were given: a reference for ever, and `T` may be shared.
        unsafe { at.cast_const().as_ref() }
    }

    pub(crate) fn set(&self, value: Option<&'static T>) {
        self.0.store(value.map_or(ptr::null_mut(), |v| ptr::from_ref(v).cast_mut()), Ordering::Release);
    }

    /// What is there; if there is nothing, what `make` gives, which then stays for ever. Of several that are made at the
    /// same time one stays.
    pub(crate) fn get_or_fill(&self, make: impl FnOnce() -> T) -> &'static T {
        if let Some(there) = self.get() {
            return there;
        }
        let made = Box::into_raw(Box::new(make()));
        match self.0.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: leaked above, so it lives for ever.
            Ok(_) => unsafe { &*made },
            Err(there) => {
                // SAFETY: `made` was shown to nobody; `there` is as in `get`, and not null.
                unsafe {
                    drop(Box::from_raw(made));
                    &*there
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_once_stays() {
        static CELL: AtomicStatic<String> = AtomicStatic::empty();
        assert!(CELL.get().is_none());
        let filled: Vec<_> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|i| s.spawn(move || CELL.get_or_fill(|| i.to_string()))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(filled.iter().all(|f| std::ptr::eq(*f, filled[0])));
        static OTHER: String = String::new();
        CELL.set(Some(&OTHER));
        assert_eq!(CELL.get().map(String::as_str), Some(""));
        CELL.set(None);
        assert!(CELL.get().is_none());
    }
}
