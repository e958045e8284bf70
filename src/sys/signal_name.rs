//! The names of signals.
//!
//! Must not know: what is done about them.

#![forbid(unsafe_code)]

use std::fmt;

/// The signals that every system has which this crate is for, by their names.
pub(crate) const NAMES: &[(&str, i32)] = &[
    ("SIGHUP", libc::SIGHUP),
    ("SIGINT", libc::SIGINT),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGILL", libc::SIGILL),
    ("SIGTRAP", libc::SIGTRAP),
    ("SIGABRT", libc::SIGABRT),
    ("SIGBUS", libc::SIGBUS),
    ("SIGFPE", libc::SIGFPE),
    ("SIGKILL", libc::SIGKILL),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGSEGV", libc::SIGSEGV),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGPIPE", libc::SIGPIPE),
    ("SIGALRM", libc::SIGALRM),
    ("SIGTERM", libc::SIGTERM),
    ("SIGCHLD", libc::SIGCHLD),
    ("SIGCONT", libc::SIGCONT),
    ("SIGSTOP", libc::SIGSTOP),
    ("SIGTSTP", libc::SIGTSTP),
    ("SIGTTIN", libc::SIGTTIN),
    ("SIGTTOU", libc::SIGTTOU),
    ("SIGURG", libc::SIGURG),
    ("SIGXCPU", libc::SIGXCPU),
    ("SIGXFSZ", libc::SIGXFSZ),
    ("SIGVTALRM", libc::SIGVTALRM),
    ("SIGPROF", libc::SIGPROF),
    ("SIGWINCH", libc::SIGWINCH),
    ("SIGIO", libc::SIGIO),
    ("SIGSYS", libc::SIGSYS),
    #[cfg(any(target_os = "linux", target_os = "android"))]
    ("SIGPWR", libc::SIGPWR),
    #[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
    ("SIGINFO", libc::SIGINFO),
];

/// The largest number of a signal that this crate handles.
pub(crate) const HIGHEST: i32 = 64;

/// The name of a signal, `None` for real-time signals and for what is none.
pub(crate) fn of(number: i32) -> Option<&'static str> {
    NAMES.iter().find(|(_, n)| *n == number).map(|(name, _)| *name)
}

/// `SIGHUP`, `SIGRTMIN+3`, `signal 77`.
pub(crate) fn write(number: i32, out: &mut (impl fmt::Write + ?Sized)) -> fmt::Result {
    match (of(number), real_time().filter(|r| r.contains(&number))) {
        (Some(name), _) => out.write_str(name),
        (None, Some(range)) => write!(out, "SIGRTMIN+{}", number - range.start()),
        (None, None) => write!(out, "signal {number}"),
    }
}

/// The numbers of real-time signals that programs may use; the C library keeps some for itself.
pub(crate) fn real_time() -> Option<std::ops::RangeInclusive<i32>> {
    #[cfg(target_os = "linux")]
    return Some(libc::SIGRTMIN()..=libc::SIGRTMAX());
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names() {
        let name = |n| {
            let mut text = String::new();
            write(n, &mut text).unwrap();
            text
        };
        assert_eq!((name(libc::SIGHUP), name(libc::SIGINT)), ("SIGHUP".to_owned(), "SIGINT".to_owned()));
        assert_eq!(name(1000), "signal 1000");
        if let Some(range) = real_time() {
            assert_eq!(name(range.start() + 3), "SIGRTMIN+3");
        }
        assert!(NAMES.iter().all(|(_, n)| (1..=HIGHEST).contains(n)));
    }
}
