//! Waiting for signals: `ctrl_c`, and what the streams of `signal` stand on.
//!
//! The handler writes to a pipe, a thread of ours reads it and wakes everybody who waits. Invariants: whoever waits has
//! a number in the list from before the handler is looked after until it leaves; `run` puts an older handler back only
//! under the same lock, and not while somebody waits who will outlive it.

#![forbid(unsafe_code)]

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::suspend::{self, here};
use crate::observe::{WaitKind, WaitReason};
use crate::sys::signal::{self, HandlerGuard, InterruptPipe};
use crate::task::Unparker;

static STATE: Mutex<State> = Mutex::new(State { listening: false, process: 0, next: 0, waiters: Vec::new() });

#[derive(Debug)]
struct State {
    /// The thread that reads the pipe exists.
    listening: bool,
    /// The process that has that thread: a forked child has not.
    process: u32,
    next: u64,
    waiters: Vec<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// The runtime whose task it is; 0: a plain thread.
    runtime: u32,
    /// It waits for SIGINT by way of [`ctrl_c`].
    interrupt: bool,
    unparker: Unparker,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the next SIGINT, which Ctrl-C at a terminal sends; everybody who waits gets it.
///
/// From the first call on, SIGINT is the program's own business: it does not stop [`run`](crate::run()) any more, and a
/// signal that comes while nobody waits has no effect. SIGTERM stops the run as before, and once the program is
/// stopping, a SIGINT ends it at once, as any second signal does.
///
/// The handler comes with the call, also outside `run` and where SIGINT was ignored. `run` puts back what it found when
/// it began, unless somebody outside it waits then; the handler of a call outside `run`, or under
/// [`handle_signals(false)`](crate::RunBuilder::handle_signals), stays for the rest of the process.
///
/// # Errors
/// If there is no descriptor or no thread left for the first call in the process; `Unsupported` in a process that was forked off one
/// that has waited for signals.
///
/// # Panics
/// Inside [`no_switch`](crate::no_switch).
///
/// # Cancellation
/// A wait like any other: it unwinds. The signal is nobody's own, so none is lost by that.
///
/// # Examples
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// coro::run(|| {
///     let server = coro::spawn(|| loop {
///         // …
///         # coro::yield_slice();
///     });
///     coro::ctrl_c()?;
///     println!("saying goodbye");
///     server.cancel();
///     let _ = server.join();
///     Ok(()) // the program ends with 0
/// })
/// # }
/// ```
pub fn ctrl_c() -> io::Result<()> {
    if let Some(h) = here() {
        h.refuse_if_no_switch();
        h.checkpoint_wait();
    }
    let (_place, seen) = Place::for_interrupt()?;
    while signal::interrupts() == seen {
        suspend::wait(WaitReason::new(WaitKind::Signal, libc::SIGINT as u64));
    }
    Ok(())
}

/// Sees to it that signals become wakes, from now on.
///
/// # Errors
/// If there is no descriptor or no thread left; in a forked child.
pub(crate) fn listen_for_signals() -> io::Result<()> {
    state().listen()
}

/// Waits until `arrived`, which a signal's handler makes true, says so.
pub(crate) fn wait_for_signal(reason: WaitReason, mut arrived: impl FnMut() -> bool) {
    if let Some(h) = here() {
        h.refuse_if_no_switch();
    }
    let _place = Place::in_line(&mut state(), false);
    while !arrived() {
        suspend::wait(reason);
    }
}

/// Whether a task or plain thread waits for a signal, which may come at any time.
pub(crate) fn somebody_waits_for_a_signal() -> bool {
    !state().waiters.is_empty()
}

/// A place in the list.
struct Place {
    number: u64,
}

impl Place {
    /// And how many SIGINTs came before.
    fn for_interrupt() -> io::Result<(Place, u64)> {
        let mut state = state();
        state.listen()?;
        signal::take_interrupt()?;
        Ok((Place::in_line(&mut state, true), signal::interrupts()))
    }

    fn in_line(state: &mut State, interrupt: bool) -> Place {
        let number = state.next;
        state.next += 1;
        let runtime = here().map_or(0, |h| h.worker.runtime.id);
        state.waiters.push(Waiter { number, runtime, interrupt, unparker: suspend::current_unparker() });
        Place { number }
    }
}

impl State {
    fn listen(&mut self) -> io::Result<()> {
        let here = std::process::id();
        if !self.listening {
            listen()?;
            (self.listening, self.process) = (true, here);
        } else if self.process != here {
            let other = self.process;
            let text = format!(
                "the thread that waits for signals is in process {other}, which forked this one: exec a program first"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        state().waiters.retain(|w| w.number != self.number);
    }
}

/// Starts the thread that turns signals into wakes.
fn listen() -> io::Result<()> {
    let (pipe, sender) = InterruptPipe::new()?;
    let listener = move || {
        let _own = crate::sys::threads::Own::new();
        while pipe.wait() {
            let unparkers: Vec<Unparker> = state().waiters.iter().map(|w| w.unparker.clone()).collect();
            unparkers.iter().for_each(super::unpark);
        }
    };
    match std::thread::Builder::new().name("coro-signal".to_owned()).spawn(listener) {
        Ok(_) => {
            sender.connect();
            Ok(())
        }
        // The sender's end closes, and with it everything is as before.
        Err(e) => {
            let kind = if e.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::QuotaExceeded } else { e.kind() };
            let text = format!("no thread could be started to wait for signals: {e}; raise the limit on threads");
            Err(io::Error::new(kind, text))
        }
    }
}

/// Puts back the handlers that `run` found, but for SIGINT's while somebody waits who does not end with this runtime.
pub(super) fn give_back(mut handlers: HandlerGuard, runtime: u32) {
    let state = state();
    if state.waiters.iter().any(|w| w.interrupt && w.runtime != runtime) {
        handlers.keep_interrupt();
    }
    drop(handlers);
}
