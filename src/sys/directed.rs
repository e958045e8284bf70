//! A signal to one thread of this process, which makes it answer from where it stands.
//!
//! Purpose: choose the signal, put a handler in place at the first use, send it, and keep out of the way of everybody else
//! who uses the same signal.
//! Invariants: nothing here allocates once [`prepare`] has run. The handler makes only async-signal-safe calls, puts errno
//! back, and passes on every signal that does not carry our mark; one that does goes nowhere else, however late it comes.
//! Must not know: what the answer is. A function registered from above writes it.
//!
//! Whoever had a handler before ours, or puts one over ours later, keeps it: ours is put on top again at the next use and
//! calls the other. If the other then calls ours, as handlers that chain do, it gets to what was there before ours, not
//! into a circle.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use super::stderr;

/// Writes the answer: called in the handler with its third argument. Called for foreign signals as well, since the kernel
/// keeps only one of two that are alike.
pub(crate) type Serve = fn(context: *const c_void);

/// Why no signal was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `CORO_STACK_SIGNAL=off`, or there is no such thing on this system.
    Off,
    /// The thread has ended.
    Gone,
    /// The system refused, with this error number; or the program puts handlers over ours again and again (0).
    System(i32),
}

const DEFAULT: c_int = libc::SIGURG;

static CHOSEN: OnceLock<Option<c_int>> = OnceLock::new();

/// The signal; `None` if there is to be none.
pub(crate) fn signal() -> Option<c_int> {
    *CHOSEN.get_or_init(|| match std::env::var_os("CORO_STACK_SIGNAL") {
        None => Some(DEFAULT),
        Some(text) => match parse(text.to_string_lossy().trim()) {
            Some(0) => None,
            Some(signal) => Some(signal),
            None => {
                let text = text.to_string_lossy();
                stderr::write(&format!(
                    "coro: CORO_STACK_SIGNAL is {text:?}; set it to a signal that may be caught, such as URG, USR2 or RTMIN+3, \
                     or to off. SIGURG is used\n"
                ));
                Some(DEFAULT)
            }
        },
    })
}

/// Reads the setting, so that nobody has to later.
pub(crate) fn prepare() {
    let _ = signal();
}

/// A name with or without `SIG`, or a number; 0 is `off`. `None` for what is not known and for what means a fault, a stop
/// or the end.
fn parse(text: &str) -> Option<c_int> {
    const NAMES: &[(&str, c_int)] = &[
        ("URG", libc::SIGURG),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("IO", libc::SIGIO),
        ("WINCH", libc::SIGWINCH),
        ("PROF", libc::SIGPROF),
        ("VTALRM", libc::SIGVTALRM),
        ("XCPU", libc::SIGXCPU),
        ("XFSZ", libc::SIGXFSZ),
    ];
    let upper = text.to_ascii_uppercase();
    if matches!(&*upper, "OFF" | "NONE" | "0") {
        return Some(0);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, signal)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*signal);
    }
    let number = match name.strip_prefix("RTMIN+") {
        Some(above) => real_time()?.start().checked_add(above.parse().ok()?)?,
        None => name.parse().ok()?,
    };
    let fine = NAMES.iter().any(|(_, known)| *known == number) || real_time()?.contains(&number);
    fine.then_some(number)
}

fn real_time() -> Option<std::ops::RangeInclusive<c_int>> {
    #[cfg(target_os = "linux")]
    return Some(libc::SIGRTMIN()..=libc::SIGRTMAX());
    #[cfg(not(target_os = "linux"))]
    None
}

pub(crate) use imp::{ensure, send};

#[cfg(all(target_os = "linux", not(miri)))]
mod imp {
    use std::cell::UnsafeCell;
    use std::io;
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicUsize, Ordering};

    use super::*;

    /// Its address is the mark that our signals carry.
    static MARK: u8 = 0;
    static SERVE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

    /// Actions that ours has displaced, each in a place of its own that is written once.
    const MOST: usize = 16;
    struct Displaced(UnsafeCell<MaybeUninit<libc::sigaction>>);
    // SAFETY: each place is written under the lock of `ensure`, before its number is published, and never again.
    unsafe impl Sync for Displaced {}
    static DISPLACED: [Displaced; MOST] = [const { Displaced(UnsafeCell::new(MaybeUninit::uninit())) }; MOST];
    static USED: AtomicUsize = AtomicUsize::new(0);
    /// Number and one of the action that was there first, and of the last that came over ours.
    static FIRST: AtomicUsize = AtomicUsize::new(0);
    static LATEST: AtomicUsize = AtomicUsize::new(0);
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

    /// Sees to it that the handler is ours.
    pub(crate) fn ensure(serve: Serve) -> Result<c_int, Refusal> {
        let signal = signal().ok_or(Refusal::Off)?;
        SERVE.store(serve as *mut (), Ordering::Release);
        if now(signal)?.sa_sigaction == ours() {
            return Ok(signal);
        }
        let _locked = Locked::take();
        let mut found = now(signal)?;
        // Once more if somebody else put a handler there between the question and the change.
        for _ in 0..3 {
            if found.sa_sigaction == ours() {
                return Ok(signal);
            }
            keep(found)?;
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
                return Ok(signal);
            }
            found = replaced;
        }
        Err(Refusal::System(0))
    }

    fn ours() -> usize {
        on_signal as *const () as usize
    }

    fn now(signal: c_int) -> Result<libc::sigaction, Refusal> {
        // SAFETY: plain data, which the call fills.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            check(libc::sigaction(signal, ptr::null(), &mut now))?;
            Ok(now)
        }
    }

    fn check(result: c_int) -> Result<(), Refusal> {
        if result == 0 { Ok(()) } else { Err(Refusal::System(errno())) }
    }

    fn errno() -> i32 {
        io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }

    /// Under the lock.
    fn keep(action: libc::sigaction) -> Result<(), Refusal> {
        let used = USED.load(Ordering::Relaxed);
        // A handler that comes back again and again needs no second place.
        let known = (0..used).find(|i| {
            // SAFETY: places below USED are written and constant.
            unsafe { (*DISPLACED[*i].0.get()).assume_init_ref() }.sa_sigaction == action.sa_sigaction
        });
        let at = known.unwrap_or(used);
        if known.is_none() {
            let place = DISPLACED.get(used).ok_or(Refusal::System(0))?;
            // SAFETY: nobody reads this place before its number is published below; we hold the lock.
            unsafe { (*place.0.get()).write(action) };
            USED.store(used + 1, Ordering::Relaxed);
        }
        if FIRST.load(Ordering::Relaxed) == 0 {
            FIRST.store(at + 1, Ordering::Release);
        }
        LATEST.store(at + 1, Ordering::Release);
        Ok(())
    }

    /// What the kernel passes along: `siginfo_t` as it is for `sigqueue`.
    #[repr(C)]
    struct Queued {
        signo: c_int,
        errno: c_int,
        code: c_int,
        _pad: c_int,
        pid: libc::pid_t,
        uid: libc::uid_t,
        value: *const c_void,
        _rest: [u64; 12],
    }

    const _: () = assert!(size_of::<Queued>() == 128 && size_of::<libc::siginfo_t>() == 128);

    /// Sends it. The thread's number may have gone to another thread of this process: the answer must say whose it is.
    pub(crate) fn send(tid: i32, signal: c_int) -> Result<(), Refusal> {
        // SAFETY: plain system calls; the structure lives across the call and has the kernel's size.
        unsafe {
            let info = Queued {
                signo: signal,
                errno: 0,
                code: libc::SI_QUEUE,
                _pad: 0,
                pid: libc::getpid(),
                uid: libc::getuid(),
                value: (&raw const MARK).cast(),
                _rest: [0; 12],
            };
            match libc::syscall(libc::SYS_rt_tgsigqueueinfo, info.pid, tid, signal, &raw const info) {
                0 => Ok(()),
                _ => match errno() {
                    libc::ESRCH => Err(Refusal::Gone),
                    e => Err(Refusal::System(e)),
                },
            }
        }
    }

    /// Whether it is one of ours.
    fn is_marked(info: *mut libc::siginfo_t) -> bool {
        // SAFETY: the system passes a valid `siginfo_t` to handlers with SA_SIGINFO; the fields are those of a queued
        // signal once its code says so.
        unsafe {
            let info = &*info;
            info.si_code == libc::SI_QUEUE
                && info.si_value().sival_ptr.cast_const() == (&raw const MARK).cast()
                && info.si_pid() == libc::getpid()
        }
    }

    extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        // SAFETY: errno belongs to the interrupted code; it is put back.
        let saved = unsafe { *crate::sys::errno_location() };
        let serve = SERVE.load(Ordering::Acquire);
        if !serve.is_null() {
            // SAFETY: only `ensure` stores there, and only a `Serve`.
            let serve: Serve = unsafe { std::mem::transmute(serve) };
            serve(context);
        }
        if !is_marked(info) {
            pass_on(signal, info, context);
        }
        // SAFETY: as above.
        unsafe { *crate::sys::errno_location() = saved };
    }

    /// Threads that are inside a handler that came over ours.
    static PASSING: [AtomicI32; 32] = [const { AtomicI32::new(0) }; 32];

    /// Does what would have happened without us.
    fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        let (first, latest) = (FIRST.load(Ordering::Acquire), LATEST.load(Ordering::Acquire));
        if latest == first {
            return call(first, signal, info, context);
        }
        let me = crate::sys::thread_id();
        let place = if PASSING.iter().any(|p| p.load(Ordering::Relaxed) == me) {
            None
        } else {
            PASSING.iter().find(|p| p.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).is_ok())
        };
        let Some(place) = place else {
            // Called by the one that came later: as if ours were not between the two.
            return call(first, signal, info, context);
        };
        call(latest, signal, info, context);
        place.store(0, Ordering::Relaxed);
    }

    fn call(number: usize, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        let Some(place) = number.checked_sub(1).and_then(|i| DISPLACED.get(i)) else { return };
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

#[cfg(not(all(target_os = "linux", not(miri))))]
mod imp {
    use super::*;

    pub(crate) fn ensure(_serve: Serve) -> Result<c_int, Refusal> {
        Err(Refusal::Off)
    }

    pub(crate) fn send(_tid: i32, _signal: c_int) -> Result<(), Refusal> {
        Err(Refusal::Off)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        assert_eq!(parse("URG"), Some(libc::SIGURG));
        assert_eq!(parse("sigusr2"), Some(libc::SIGUSR2));
        assert_eq!(parse("rtmin+3"), Some(libc::SIGRTMIN() + 3));
        assert_eq!(parse("23"), Some(23));
        assert_eq!((parse("off"), parse("0")), (Some(0), Some(0)));
        for wrong in ["KILL", "9", "SEGV", "11", "RTMIN+99", "32", "", "-1", "soon"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
