//! Signals that parts of this crate share with one another and with the program.
//!
//! Purpose: one handler of ours for each signal that is used, put in place at the first use and again at later ones; the
//! parts that use it are asked in the handler whether the signal was for them.
//! Invariants: nothing here allocates. The handler makes only async-signal-safe calls, puts errno back, and passes on every
//! signal that nobody here takes.
//! Must not know: what a signal means, by what its takers know theirs.
//!
//! Whoever had a handler before ours, or puts one over ours later, keeps it: ours is put on top again at the next use and
//! calls the other. If the other then calls ours, as handlers that chain do, it gets to what was there before ours, not
//! into a circle.

use std::ffi::{c_int, c_void};

/// Asked in the handler, with its arguments: true if the signal was for it, so that it goes nowhere else. It is asked about
/// foreign signals as well, and has to be async-signal-safe.
pub(crate) type Taker = fn(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) -> bool;

pub(crate) use imp::{ensure, handles};

#[cfg(all(target_os = "linux", not(miri)))]
mod imp {
    use std::cell::UnsafeCell;
    use std::io;
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};

    use super::*;

    /// How many signals, parts that share one, and foreign handlers of one there can be.
    const SIGNALS: usize = 8;
    const TAKERS: usize = 2;
    const MOST: usize = 16;

    /// An action that ours has displaced, in a place of its own that is written once.
    struct Displaced(UnsafeCell<MaybeUninit<libc::sigaction>>);
    // SAFETY: each place is written under the lock of `ensure`, before its number is published, and never again.
    unsafe impl Sync for Displaced {}

    /// What is known of one signal. Changed under the lock of `ensure`, read in the handler.
    struct Chain {
        /// 0 while the place is free.
        signal: AtomicI32,
        /// Functions of the type `Taker`, or null.
        takers: [AtomicPtr<()>; TAKERS],
        displaced: [Displaced; MOST],
        used: AtomicUsize,
        /// Number and one of the action that was there first, and of the last that came over ours.
        first: AtomicUsize,
        latest: AtomicUsize,
        /// Threads that are inside a handler that came over ours.
        passing: [AtomicI32; 32],
    }

    impl Chain {
        const fn free() -> Chain {
            Chain {
                signal: AtomicI32::new(0),
                takers: [const { AtomicPtr::new(ptr::null_mut()) }; TAKERS],
                displaced: [const { Displaced(UnsafeCell::new(MaybeUninit::uninit())) }; MOST],
                used: AtomicUsize::new(0),
                first: AtomicUsize::new(0),
                latest: AtomicUsize::new(0),
                passing: [const { AtomicI32::new(0) }; 32],
            }
        }
    }

    static CHAINS: [Chain; SIGNALS] = [const { Chain::free() }; SIGNALS];
    static LOCK: AtomicBool = AtomicBool::new(false);

    struct Locked;

    impl Locked {
        fn take() -> Locked {
            while LOCK.swap(true, Ordering::Acquire) {
                std::thread::yield_now();
            }
            Locked
        }
    }

    impl Drop for Locked {
        fn drop(&mut self) {
            LOCK.store(false, Ordering::Release);
        }
    }

    fn chain_of(signal: c_int) -> Option<&'static Chain> {
        CHAINS.iter().find(|chain| chain.signal.load(Ordering::Acquire) == signal)
    }

    /// Sees to it that the handler of that signal is ours and asks `taker`.
    ///
    /// # Errors
    /// The system's error number; 0 if there is no room for another signal, or if the program puts handlers over ours again
    /// and again.
    pub(crate) fn ensure(signal: c_int, taker: Taker) -> Result<(), i32> {
        let taker = taker as *mut ();
        let known = chain_of(signal).is_some_and(|chain| chain.has(taker));
        if known && now(signal)?.sa_sigaction == ours() {
            return Ok(());
        }
        let _locked = Locked::take();
        let chain = match chain_of(signal) {
            Some(chain) => chain,
            None => {
                let chain = chain_of(0).ok_or(0)?;
                chain.signal.store(signal, Ordering::Release);
                chain
            }
        };
        if !chain.has(taker) {
            let free = chain.takers.iter().find(|place| place.load(Ordering::Relaxed).is_null());
            free.ok_or(0)?.store(taker, Ordering::Release);
        }
        let mut found = now(signal)?;
        // Once more if somebody else put a handler there between the question and the change.
        for _ in 0..3 {
            if found.sa_sigaction == ours() {
                return Ok(());
            }
            chain.keep(found)?;
            // SAFETY: plain data, which the call fills; our handler is async-signal-safe.
            let replaced = unsafe {
                let mut new: libc::sigaction = std::mem::zeroed();
                new.sa_sigaction = ours();
                new.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_SIGINFO;
                libc::sigemptyset(&mut new.sa_mask);
                let mut old: libc::sigaction = std::mem::zeroed();
                check(libc::sigaction(signal, &new, &mut old))?;
                old
            };
            if replaced.sa_sigaction == found.sa_sigaction {
                return Ok(());
            }
            found = replaced;
        }
        Err(0)
    }

    /// Whether the handler is the one of this module.
    pub(crate) fn handles(action: &libc::sigaction) -> bool {
        action.sa_sigaction == ours()
    }

    fn ours() -> usize {
        on_signal as *const () as usize
    }

    fn now(signal: c_int) -> Result<libc::sigaction, i32> {
        // SAFETY: plain data, which the call fills.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            check(libc::sigaction(signal, ptr::null(), &mut now))?;
            Ok(now)
        }
    }

    fn check(result: c_int) -> Result<(), i32> {
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
    }

    extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: errno belongs to the interrupted code; it is put back.
        let saved = unsafe { *crate::sys::errno_location() };
        if let Some(chain) = chain_of(signal)
            && !chain.is_taken(signal, info, context)
        {
            chain.pass_on(signal, info, context);
        }
        // SAFETY: as above.
        unsafe { *crate::sys::errno_location() = saved };
    }

    impl Chain {
        fn has(&self, taker: *mut ()) -> bool {
            self.takers.iter().any(|place| place.load(Ordering::Relaxed) == taker)
        }

        /// Asks all of them: one signal may stand for two, since the kernel keeps only one of those that are alike.
        fn is_taken(&self, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) -> bool {
            let mut taken = false;
            for place in &self.takers {
                let taker = place.load(Ordering::Acquire);
                if !taker.is_null() {
                    // SAFETY: only `ensure` stores there, and only a `Taker`.
                    let taker: Taker = unsafe { std::mem::transmute(taker) };
                    taken |= taker(signal, info, context);
                }
            }
            taken
        }

        /// Under the lock.
        fn keep(&self, action: libc::sigaction) -> Result<(), i32> {
            let used = self.used.load(Ordering::Relaxed);
            // A handler that comes back again and again needs no second place.
            let known = (0..used).find(|i| {
                // SAFETY: places below `used` are written and constant.
                unsafe { (*self.displaced[*i].0.get()).assume_init_ref() }.sa_sigaction == action.sa_sigaction
            });
            let at = known.unwrap_or(used);
            if known.is_none() {
                let place = self.displaced.get(used).ok_or(0)?;
                // SAFETY: nobody reads this place before its number is published below; we hold the lock.
                unsafe { (*place.0.get()).write(action) };
                self.used.store(used + 1, Ordering::Relaxed);
            }
            if self.first.load(Ordering::Relaxed) == 0 {
                self.first.store(at + 1, Ordering::Release);
            }
            self.latest.store(at + 1, Ordering::Release);
            Ok(())
        }

        /// Does what would have happened without us.
        fn pass_on(&self, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
            let (first, latest) = (self.first.load(Ordering::Acquire), self.latest.load(Ordering::Acquire));
            if latest == first {
                return self.call(first, signal, info, context);
            }
            let me = crate::sys::thread_id();
            let place = if self.passing.iter().any(|p| p.load(Ordering::Relaxed) == me) {
                None
            } else {
                let free = |p: &&AtomicI32| p.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).is_ok();
                self.passing.iter().find(free)
            };
            let Some(place) = place else {
                // Called by the one that came later: as if ours were not between the two.
                return self.call(first, signal, info, context);
            };
            self.call(latest, signal, info, context);
            place.store(0, Ordering::Relaxed);
        }

        fn call(&self, number: usize, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
            let Some(place) = number.checked_sub(1).and_then(|i| self.displaced.get(i)) else { return };
            // SAFETY: published numbers are those of places that are written and constant.
            let action = unsafe { (*place.0.get()).assume_init_ref() };
            match action.sa_sigaction {
                libc::SIG_IGN => {}
                libc::SIG_DFL if [libc::SIGURG, libc::SIGWINCH].contains(&signal) => {}
                libc::SIG_DFL => {
                    // It ends the process as soon as this handler has returned.
                    // SAFETY: all zeros is the default action; raising a signal that is blocked only marks it.
                    unsafe {
                        let default: libc::sigaction = std::mem::zeroed();
                        libc::sigaction(signal, &default, ptr::null_mut());
                        libc::raise(signal);
                    }
                }
                handler => {
                    // SAFETY: the handler was installed for this signal with this signature and gets the system's own
                    // arguments. The mask ends with our return, when the kernel restores the interrupted one.
                    unsafe {
                        libc::pthread_sigmask(libc::SIG_BLOCK, &action.sa_mask, ptr::null_mut());
                        if action.sa_flags & libc::SA_SIGINFO != 0 {
                            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                                std::mem::transmute(handler);
                            handler(signal, info, context);
                        } else {
                            let handler: extern "C" fn(c_int) = std::mem::transmute(handler);
                            handler(signal);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod imp {
    use super::*;

    pub(crate) fn ensure(_signal: c_int, _taker: Taker) -> Result<(), i32> {
        Err(libc::ENOSYS)
    }

    pub(crate) fn handles(_action: &libc::sigaction) -> bool {
        false
    }
}
