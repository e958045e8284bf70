//! Signals for streams: how often each has come, the handler that counts them, and what was there before it.
//!
//! Purpose: any number of streams has any signal; the first one of a signal puts our handler there, the last one puts back what
//! it found.
//! Invariants: the handler counts, tells those who wait, and calls the handler that was there before, if that was a function; it is
//! async-signal-safe and leaves errno alone. SIGINT and SIGTERM stay with the handler of `signal`, which asks here: while a
//! stream has one of them, it does not end `run`. Actions are changed under one lock.
//! Must not know: who waits.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::signal_name::HIGHEST;
use super::{chain, directed, dump_signal, signal_name};
use crate::sys::signal;

const PLACES: usize = HIGHEST as usize + 1;

/// How often each signal has come while a stream had it.
static COUNTS: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
/// How many streams have each signal.
static WANTED: [AtomicU32; PLACES] = [const { AtomicU32::new(0) }; PLACES];
/// The handlers that were there before ours, for ours to call: the function and its flags; 0 for none.
static EARLIER: [(AtomicUsize, AtomicI32); PLACES] = [const { (AtomicUsize::new(0), AtomicI32::new(0)) }; PLACES];
/// What our handler calls when it is called by the one that it calls: a library that put its own over ours, and calls ours, is found
/// as the earlier one by the next stream. Otherwise the two would call each other for ever.
static BENEATH: [(AtomicUsize, AtomicI32); PLACES] = [const { (AtomicUsize::new(0), AtomicI32::new(0)) }; PLACES];
/// Whether somebody has put a handler over ours, which ours was left beneath.
static COVERED: [AtomicBool; PLACES] = [const { AtomicBool::new(false) }; PLACES];

thread_local! {
    /// The covered signals whose earlier handler this thread is in, a bit for each.
    static INSIDE: Cell<u128> = const { Cell::new(0) };
}

/// What is to be put back with the last stream of a signal.
static FOUND: Mutex<BTreeMap<i32, libc::sigaction>> = Mutex::new(BTreeMap::new());

fn found() -> MutexGuard<'static, BTreeMap<i32, libc::sigaction>> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

fn place(number: i32) -> Option<usize> {
    usize::try_from(number).ok().filter(|n| (1..PLACES).contains(n))
}

/// How often the signal has come.
pub(crate) fn count(number: i32) -> u64 {
    place(number).map_or(0, |n| COUNTS[n].load(Ordering::SeqCst))
}

/// Counts it, if a stream has it. Async-signal-safe.
pub(super) fn arrived(number: i32) -> bool {
    let Some(n) = place(number).filter(|n| WANTED[*n].load(Ordering::SeqCst) > 0) else { return false };
    COUNTS[n].fetch_add(1, Ordering::SeqCst);
    true
}

fn stops_run(number: i32) -> bool {
    number == libc::SIGINT || number == libc::SIGTERM
}

/// Why a stream cannot have that signal, and what to do.
fn refused(number: i32, now: &libc::sigaction) -> Option<String> {
    let mut name = String::new();
    let _ = signal_name::write(number, &mut name);
    if directed::signal() == Some(number) {
        return Some(format!(
            "{name} is the signal by which this crate looks at tasks that run: choose another, or give that one another signal \
             (CORO_STACK_SIGNAL=RTMIN+3, or off)"
        ));
    }
    if dump_signal::handles(now) {
        return Some(format!(
            "{name} makes this process write down its tasks (CORO_DUMP_SIGNAL): choose another signal"
        ));
    }
    if chain::handles(now) {
        return Some(format!("{name} opens console sessions of this process: choose another signal"));
    }
    None
}

/// A stream has the signal from now on.
///
/// # Errors
/// If the runtime uses it for something else; of the system, which lets some not be caught.
pub(crate) fn take(number: i32) -> io::Result<()> {
    let n = place(number).ok_or(io::ErrorKind::InvalidInput)?;
    let mut found = found();
    if cfg!(miri) || WANTED[n].load(Ordering::SeqCst) > 0 {
        WANTED[n].fetch_add(1, Ordering::SeqCst);
        return Ok(());
    }
    let now = signal::disposition(number)?;
    if let Some(why) = refused(number, &now) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    // From here on what comes counts.
    WANTED[n].store(1, Ordering::SeqCst);
    let outcome = if stops_run(number) {
        if signal::handles(&now) { Ok(None) } else { signal::handle(number).map(|()| Some(now)) }
    } else {
        let earlier = if matches!(now.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN) { 0 } else { now.sa_sigaction };
        if COVERED[n].load(Ordering::SeqCst) && BENEATH[n].0.load(Ordering::SeqCst) == 0 {
            copy(&EARLIER[n], &BENEATH[n]);
        }
        EARLIER[n].1.store(now.sa_flags, Ordering::SeqCst);
        EARLIER[n].0.store(earlier, Ordering::SeqCst);
        install(number).map(|()| Some(now))
    };
    match outcome {
        Ok(Some(now)) => drop(found.insert(number, now)),
        Ok(None) => {}
        Err(e) => {
            WANTED[n].store(0, Ordering::SeqCst);
            return Err(e);
        }
    }
    Ok(())
}

/// A stream is gone.
pub(crate) fn release(number: i32) {
    let Some(n) = place(number) else { return };
    let mut found = found();
    if WANTED[n].fetch_sub(1, Ordering::SeqCst) > 1 || cfg!(miri) {
        return;
    }
    if stops_run(number) && (signal::stops_run_now(number) || signal::is_asked_for(number)) {
        // Our handler stays; the end of `run` puts back what is kept here.
        return;
    }
    let Some(old) = found.remove(&number) else { return };
    // Whoever put a handler over ours since keeps it.
    if signal::disposition(number).is_ok_and(|now| signal::handles(&now) || handles(&now)) {
        // SAFETY: restores what `take` found.
        unsafe { libc::sigaction(number, &old, std::ptr::null_mut()) };
        if COVERED[n].load(Ordering::SeqCst) {
            copy(&BENEATH[n], &EARLIER[n]);
        }
    } else {
        COVERED[n].store(true, Ordering::SeqCst);
    }
}

/// The function last: whoever sees it sees its flags.
fn copy(from: &(AtomicUsize, AtomicI32), to: &(AtomicUsize, AtomicI32)) {
    to.1.store(from.1.load(Ordering::SeqCst), Ordering::SeqCst);
    to.0.store(from.0.load(Ordering::SeqCst), Ordering::SeqCst);
}

/// What is to be there when `run` ends, which found `old` when it began; `None` if a stream still has the signal.
pub(super) fn after_run(number: i32, old: &libc::sigaction) -> Option<libc::sigaction> {
    let mut found = found();
    let wanted = place(number).is_some_and(|n| WANTED[n].load(Ordering::SeqCst) > 0);
    match (wanted, signal::handles(old)) {
        // Made before the run: what it found is kept already.
        (true, true) => None,
        (true, false) => {
            found.insert(number, *old);
            None
        }
        (false, true) if !signal::is_asked_for(number) => Some(found.remove(&number).unwrap_or(*old)),
        (false, _) => Some(*old),
    }
}

fn handles(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_signal as *const () as usize
}

fn install(number: i32) -> io::Result<()> {
    signal::of_this_process();
    // SAFETY: plain data; the handler is async-signal-safe.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = on_signal as *const () as usize;
        new.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_SIGINFO;
        libc::sigemptyset(&mut new.sa_mask);
        match libc::sigaction(number, &new, std::ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

extern "C" fn on_signal(number: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    signal::handling_here(number, || {
        let Some(n) = place(number) else { return };
        let bit = if COVERED[n].load(Ordering::SeqCst) { 1 << n } else { 0 };
        let inside = INSIDE.get();
        if inside & bit != 0 {
            // Counted already.
            // SAFETY: see `call`.
            return unsafe { call(&BENEATH[n], number, info, context) };
        }
        if arrived(number) {
            signal::wake_waiters();
        }
        INSIDE.set(inside | bit);
        // SAFETY: see `call`.
        unsafe { call(&EARLIER[n], number, info, context) };
        INSIDE.set(inside);
    });
}

/// Calls the handler, if there is one.
///
/// # Safety
/// The function was the handler of this signal, with the signature that the flags say, and the rest are the system's own arguments.
unsafe fn call(
    handler: &(AtomicUsize, AtomicI32),
    number: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let function = handler.0.load(Ordering::SeqCst);
    if function == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        if handler.1.load(Ordering::SeqCst) & libc::SA_SIGINFO != 0 {
            let function: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(function);
            function(number, info, context);
        } else {
            let function: extern "C" fn(libc::c_int) = std::mem::transmute(function);
            function(number);
        }
    }
}
