//! Streams of signals: what a process is told from outside, for tasks to wait for.
//!
//! A handler counts each signal and writes a byte to a pipe, a thread of ours reads it and wakes who waits. So a signal never
//! interrupts what a task does, and there is nothing that a task may not do about it.
//!
//! **How many.** The kernel keeps one of several signals that are alike and have not been delivered, and so does a stream: signals
//! of one kind that come between two looks are one. Each [`Signals`] gets each of its signals, however many streams have
//! them.
//!
//! **Before and after.** While a stream has a signal, that signal does not do what it does by default: `SIGHUP` does not end the
//! process, and SIGINT and SIGTERM do not stop [`run`](crate::run()) (once the program is [`stopping`](crate::stopping()), they still
//! end it at once). A handler that was installed before, by a C library say, is called as well. With the last stream of a signal,
//! what was there before comes back.
//!
//! Invariants: a stream has counts of its own, so nothing that one does takes a signal from another. Must not know: how
//! handlers are installed.
//!
//! # Examples
//! ```no_run
//! use coro::signal::{SIGHUP, SIGUSR1, Signals};
//!
//! # fn main() -> std::io::Result<()> {
//! coro::run(|| {
//!     let signals = Signals::new(&[SIGHUP, SIGUSR1])?;
//!     coro::spawn_named("signals", move || {
//!         for signal in signals {
//!             match signal {
//!                 SIGHUP => println!("reading the configuration again"),
//!                 other => println!("{other}"),
//!             }
//!         }
//!     });
//!     // …
//!     Ok(())
//! })
//! # }
//! ```

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::str::FromStr;

use crate::observe::{WaitKind, WaitReason};
use crate::scheduler::suspend::checkpoint;
use crate::scheduler::{listen_for_signals, wait_for_signal};
use crate::sys::{signal_name, signal_streams};

/// A signal. Prints as its name, and reads it with or without `SIG`, in any case.
///
/// # Examples
/// ```
/// use coro::signal::{SIGHUP, Signal};
///
/// assert_eq!(SIGHUP.to_string(), "SIGHUP");
/// assert_eq!("usr1".parse::<Signal>()?, coro::signal::SIGUSR1);
/// assert_eq!(Signal::from_number(SIGHUP.number())?, SIGHUP);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

macro_rules! signals {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])* pub const $name: Signal = Signal(libc::$name);)*
    };
}

signals! {
    /// The terminal is gone; by custom: read the configuration again.
    SIGHUP;
    /// Ctrl-C at the terminal; see also [`ctrl_c`](crate::ctrl_c).
    SIGINT;
    /// `Ctrl-\` at the terminal.
    SIGQUIT;
    /// For programs.
    SIGUSR1;
    /// For programs.
    SIGUSR2;
    /// A write to what nobody reads; Rust programs ignore it and get an error.
    SIGPIPE;
    /// The alarm clock.
    SIGALRM;
    /// Please end.
    SIGTERM;
    /// A child has ended or stopped. To wait for a child: [`Child::wait`](crate::process::Child::wait).
    SIGCHLD;
    /// Go on after a stop.
    SIGCONT;
    /// Ctrl-Z at the terminal.
    SIGTSTP;
    /// Reading from the terminal in the background.
    SIGTTIN;
    /// Writing to the terminal in the background.
    SIGTTOU;
    /// Urgent data. This crate uses it to look at tasks that run, unless `CORO_STACK_SIGNAL` says otherwise.
    SIGURG;
    /// Too much time on the CPU.
    SIGXCPU;
    /// A file too large.
    SIGXFSZ;
    /// The alarm clock of CPU time in user mode.
    SIGVTALRM;
    /// The alarm clock of profilers.
    SIGPROF;
    /// The terminal has another size.
    SIGWINCH;
    /// A descriptor is ready.
    SIGIO;
}

/// Why it is none that a stream may have.
fn refused(number: i32) -> Option<&'static str> {
    match number {
        libc::SIGKILL | libc::SIGSTOP => Some("the system lets nobody catch it; SIGTERM and SIGTSTP can be caught"),
        libc::SIGSEGV | libc::SIGBUS => Some(
            "it tells of a fault in the code that runs, which cannot go on; this crate reports stack overflows by it",
        ),
        libc::SIGILL | libc::SIGFPE | libc::SIGSYS | libc::SIGABRT => Some(
            "it tells of a fault in the code that runs, which cannot go on; panics are told to coro::set_panic_notifier",
        ),
        libc::SIGTRAP => Some("it belongs to debuggers; SIGUSR1 and SIGUSR2 are for programs"),
        _ => None,
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl Signal {
    /// The signal with that number.
    ///
    /// # Errors
    /// `InvalidInput` if there is none.
    pub fn from_number(number: i32) -> io::Result<Signal> {
        let real_time = signal_name::real_time().is_some_and(|r| r.contains(&number));
        if (signal_name::of(number).is_some() || real_time) && number <= signal_name::HIGHEST {
            Ok(Signal(number))
        } else {
            Err(invalid(format!("there is no signal {number} for programs; kill -l lists those that there are")))
        }
    }

    /// The real-time signal `SIGRTMIN+above`; `None` if there are not so many. The kernel queues these; a stream still counts
    /// those that come between two looks once.
    pub fn real_time(above: u32) -> Option<Signal> {
        let range = signal_name::real_time()?;
        let number = range.start().checked_add(i32::try_from(above).ok()?)?;
        (range.contains(&number) && number <= signal_name::HIGHEST).then_some(Signal(number))
    }

    /// Its number on this system.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        signal_name::write(self.0, f)
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        signal_name::write(self.0, f)
    }
}

impl FromStr for Signal {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Signal> {
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let known = signal_name::NAMES.iter().find(|(known, _)| &known[3..] == name).map(|(_, n)| Signal(*n));
        let above = name.strip_prefix("RTMIN").map(|rest| rest.strip_prefix('+').unwrap_or("0"));
        let real_time = || Signal::real_time(above?.parse().ok()?);
        known.or_else(real_time).ok_or_else(|| {
            invalid(format!("there is no signal {text:?}; write a name such as HUP, SIGUSR1 or RTMIN+3"))
        })
    }
}

/// A stream of signals, for a task or a plain thread to wait on. As an iterator it never ends.
///
/// Begins with what comes after it was made.
#[derive(Debug)]
pub struct Signals {
    /// Each with the count up to which it was seen.
    all: Vec<(Signal, u64)>,
    /// Where the next look begins, so that a signal that always comes hides no other.
    from: usize,
}

impl Signals {
    /// Listens to these signals from now on, until it is dropped.
    ///
    /// The first one in the process starts a thread, `coro-signal`, which waits for signals and does nothing else.
    ///
    /// # Errors
    /// `InvalidInput` for an empty list, for signals that cannot be caught (SIGKILL, SIGSTOP) or that tell of a fault (SIGSEGV,
    /// SIGBUS, SIGILL, SIGFPE, SIGSYS, SIGABRT, SIGTRAP), and for one that the runtime uses, with what to do; if there is no
    /// descriptor or no thread left; `Unsupported` in a process that was forked off one that has waited for signals.
    ///
    /// # Examples
    /// ```
    /// use coro::signal::{SIGUSR2, Signals};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// coro::run(|| {
    ///     let mut signals = Signals::new(&[SIGUSR2])?;
    ///     assert_eq!(signals.try_next(), None);
    ///     coro::process::Command::new("kill").args(["-USR2", &std::process::id().to_string()]).status()?;
    ///     assert_eq!(signals.wait(), SIGUSR2);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn new(signals: &[Signal]) -> io::Result<Signals> {
        if signals.is_empty() {
            return Err(invalid("a stream of no signals would wait for ever: name at least one".to_owned()));
        }
        if let Some((signal, why)) = signals.iter().find_map(|s| Some((s, refused(s.0)?))) {
            return Err(invalid(format!("{signal} cannot be waited for: {why}")));
        }
        listen_for_signals()?;
        let mut stream = Signals { all: Vec::with_capacity(signals.len()), from: 0 };
        for signal in signals {
            if stream.all.iter().any(|(s, _)| s == signal) {
                continue;
            }
            let before = signal_streams::count(signal.0);
            signal_streams::take(signal.0).map_err(|e| match e.raw_os_error() {
                Some(_) => invalid(format!("the system does not let {signal} be caught: {e}")),
                None => e,
            })?;
            // Dropped on an error, which gives back what was taken so far.
            stream.all.push((*signal, before));
        }
        Ok(stream)
    }

    /// Waits for the next signal; one that came since the last look is next.
    ///
    /// # Panics
    /// Inside [`no_switch`](crate::no_switch).
    ///
    /// # Cancellation
    /// A wait like any other: it unwinds. A signal that came is still there for the next look.
    pub fn wait(&mut self) -> Signal {
        loop {
            // Before a signal is taken: an interrupt must not lose it.
            checkpoint();
            if let Some(signal) = self.try_next() {
                return signal;
            }
            let mask = self.all.iter().fold(0u64, |mask, (s, _)| mask | 1 << (s.0 - 1));
            wait_for_signal(WaitReason::new(WaitKind::Signals, mask), || self.waits_for().is_some());
        }
    }

    /// The next signal, if one has come. Never waits.
    pub fn try_next(&mut self) -> Option<Signal> {
        let at = self.waits_for()?;
        self.from = (at + 1) % self.all.len();
        let (signal, seen) = &mut self.all[at];
        *seen = signal_streams::count(signal.0);
        Some(*signal)
    }

    /// The signals, in the order in which they were named.
    pub fn signals(&self) -> impl Iterator<Item = Signal> + '_ {
        self.all.iter().map(|(signal, _)| *signal)
    }

    /// The place of a signal that has come.
    fn waits_for(&self) -> Option<usize> {
        let n = self.all.len();
        (0..n).map(|i| (self.from + i) % n).find(|at| {
            let (signal, seen) = self.all[*at];
            signal_streams::count(signal.0) != seen
        })
    }
}

impl Iterator for Signals {
    type Item = Signal;

    /// As [`wait`](Signals::wait); never `None`.
    fn next(&mut self) -> Option<Signal> {
        Some(self.wait())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.all.iter().for_each(|(signal, _)| signal_streams::release(signal.0));
    }
}
