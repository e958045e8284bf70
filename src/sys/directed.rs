//! A signal to one thread of this process, which makes it answer from where it stands.
//!
//! Purpose: choose the signal, see to its handler, send it.
//! Invariants: nothing here allocates once [`prepare`] has run. What runs in the handler is async-signal-safe; a signal that
//! carries our mark goes nowhere else, however late it comes, and every other one is passed on (see `chain`).
//! Must not know: what the answer is. A function registered from above writes it.

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
    use std::io;
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering};

    use super::*;
    use crate::sys::chain;

    /// Its address is the mark that our signals carry.
    static MARK: u8 = 0;
    static SERVE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

    /// Sees to it that the handler is ours.
    pub(crate) fn ensure(serve: Serve) -> Result<c_int, Refusal> {
        let signal = signal().ok_or(Refusal::Off)?;
        SERVE.store(serve as *mut (), Ordering::Release);
        chain::ensure(signal, on_signal).map_err(Refusal::System)?;
        Ok(signal)
    }

    fn errno() -> i32 {
        io::Error::last_os_error().raw_os_error().unwrap_or(0)
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

    /// Serves foreign signals as well, since the kernel keeps only one of two that are alike.
    fn on_signal(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) -> bool {
        let serve = SERVE.load(Ordering::Acquire);
        if !serve.is_null() {
            // SAFETY: only `ensure` stores there, and only a `Serve`.
            let serve: Serve = unsafe { std::mem::transmute(serve) };
            serve(context);
        }
        is_marked(info)
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
