//! Tells the address sanitizer about stack switches. Built with `--cfg coro_asan`; otherwise a zero-sized type
//! whose calls vanish, so that the call sites carry no `cfg`.
//!
//! Protocol (`sanitizer/common_interface_defs.h`): before leaving a stack, `start_switch_fiber` with the stack
//! that is entered; first thing on the entered stack, `finish_switch_fiber` with what was saved when it was left.

#[cfg(coro_asan)]
mod imp {
    use std::ffi::c_void;
    use std::ptr;

    unsafe extern "C" {
        fn __sanitizer_start_switch_fiber(save: *mut *mut c_void, bottom: *const c_void, size: usize);
        fn __sanitizer_finish_switch_fiber(save: *mut c_void, bottom: *mut *const c_void, size: *mut usize);
    }

    /// What the sanitizer keeps of one stack while that stack is left.
    #[derive(Debug)]
    pub(crate) struct Fiber {
        fake_stack: *mut c_void,
        bottom: *const c_void,
        size: usize,
    }

    impl Fiber {
        pub(crate) const fn new() -> Fiber {
            Fiber { fake_stack: ptr::null_mut(), bottom: ptr::null(), size: 0 }
        }

        /// About to leave this stack for the one that lies in `[bottom, bottom + size)`.
        pub(crate) fn leave_for(&mut self, bottom: usize, size: usize) {
            // SAFETY: the save slot outlives the switch; the bounds are those of the stack that is entered next.
            unsafe { __sanitizer_start_switch_fiber(&mut self.fake_stack, bottom as *const c_void, size) }
        }

        /// Back on this stack; remembers where the other one lies.
        pub(crate) fn back(&mut self) {
            // SAFETY: the fake stack was saved by `leave_for` on this stack.
            unsafe { __sanitizer_finish_switch_fiber(self.fake_stack, &mut self.bottom, &mut self.size) }
        }

        /// Leaves this stack for the one that was left to come here.
        pub(crate) fn return_to_other(&mut self, last: bool) {
            let save = if last { ptr::null_mut() } else { &raw mut self.fake_stack };
            // SAFETY: as in `leave_for`; a null slot tells the sanitizer that this stack ends.
            unsafe { __sanitizer_start_switch_fiber(save, self.bottom, self.size) }
        }

        /// First arrival on a fresh stack.
        pub(crate) fn arrive(&mut self) {
            // SAFETY: a null fake stack is what a fresh stack has.
            unsafe { __sanitizer_finish_switch_fiber(ptr::null_mut(), &mut self.bottom, &mut self.size) }
        }
    }
}

#[cfg(not(coro_asan))]
mod imp {
    /// Nothing: the sanitizer is off.
    #[derive(Debug)]
    pub(crate) struct Fiber;

    #[expect(clippy::unused_self, reason = "the same surface as the real one")]
    impl Fiber {
        pub(crate) const fn new() -> Fiber {
            Fiber
        }
        #[inline(always)]
        pub(crate) fn leave_for(&mut self, _bottom: usize, _size: usize) {}
        #[inline(always)]
        pub(crate) fn back(&mut self) {}
        #[inline(always)]
        pub(crate) fn return_to_other(&mut self, _last: bool) {}
        #[inline(always)]
        pub(crate) fn arrive(&mut self) {}
    }
}

pub(crate) use imp::Fiber;
