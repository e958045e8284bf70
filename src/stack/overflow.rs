//! The report of a stack overflow: which task, how large its stack is, where it was.
//!
//! Purpose: handle `SIGSEGV` and `SIGBUS`; faults in the guard of one of our slots end the process with a message, all
//! others go to whoever handled them before.
//! Invariants: everything up to the first line is async-signal-safe and does not allocate; a fault during the report ends
//! it, never repeats it; at most three seconds pass from fault to death; `PREVIOUS` is written before our handler is
//! installed, and never again.
//! Must not know: tasks, frames, symbols: they come through [`describe_with`] and [`frames_with`].

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::line::Line;
use super::region::{SlotBounds, slot_of};
use super::registers::Registers;

/// What the report says about the task that runs on the faulting thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskDescription {
    /// Whether a task runs there; false leaves it at "a task".
    pub(crate) known: bool,
    /// Its number.
    pub(crate) id: u64,
    /// Its name, cut to fit.
    pub(crate) name: [u8; 64],
    /// Bytes of the name; zero for none.
    pub(crate) name_len: usize,
    /// [`Stack::slot_top`](super::Stack::slot_top) of its stack, zero if unknown. A fault in the guard of another slot is
    /// then a stray access, not this task's overflow.
    pub(crate) slot_top: usize,
    /// The same of the stack on which code runs that watches the task, zero if none does.
    pub(crate) spare_top: usize,
}

/// Fills in the running task. Called in a signal handler: async-signal-safe.
pub(crate) type Describe = fn(&mut TaskDescription);

/// Prints the frames of a thread stopped at the registers, on the stack from `low` to `top`, to stderr.
///
/// Called in a signal handler on its alternate stack, after the first line is out. It may allocate and even deadlock: the
/// alarm is set.
pub(crate) type Frames = fn(regs: &Registers, low: usize, top: usize);

/// Prints what [`Frames`] has not printed within two seconds. Async-signal-safe.
pub(crate) type LastNames = fn();

static DESCRIBE: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static FRAMES: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static LAST_NAMES: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Registers who can name the running task.
pub(crate) fn describe_with(describe: Describe) {
    DESCRIBE.store(describe as *mut (), Ordering::Release);
}

/// Registers who can print frames, and who can if that does not end.
pub(crate) fn frames_with(frames: Frames, last_names: LastNames) {
    LAST_NAMES.store(last_names as *mut (), Ordering::Release);
    FRAMES.store(frames as *mut (), Ordering::Release);
}

const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// What handled a signal before us.
struct Previous {
    /// Written by `install` before our handler is installed; read only by our handler.
    action: UnsafeCell<MaybeUninit<libc::sigaction>>,
    /// Whether a one-shot handler has had its shot.
    spent: AtomicBool,
}

// SAFETY: see the field: written once, under the lock of `install`, before anybody can read.
unsafe impl Sync for Previous {}

static PREVIOUS: [Previous; 2] =
    [const { Previous { action: UnsafeCell::new(MaybeUninit::uninit()), spent: AtomicBool::new(false) } }; 2];

/// Installs the handler, once per process; later calls do nothing. Threads that run tasks also need an
/// [`AltStack`](super::AltStack).
///
/// # Errors
/// The system refuses the handler.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: Mutex<usize> = Mutex::new(0);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    while *installed < SIGNALS.len() && !cfg!(miri) {
        let signal = SIGNALS[*installed];
        // SAFETY: all zeros is a valid `sigaction`: default action, empty mask.
        let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = on_fault as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the place is valid, nobody reads it yet (our handler for this signal is not installed), and `on_fault`
        // is async-signal-safe.
        unsafe {
            check(libc::sigaction(signal, ptr::null(), PREVIOUS[*installed].action.get().cast()))?;
            check(libc::sigaction(signal, &ours, ptr::null_mut()))?;
        }
        *installed += 1;
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The thread that reports; zero for none. `pthread_self` is never zero where we run.
static REPORTER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: reads this thread's identity only.
    let me = unsafe { libc::pthread_self() } as usize;
    if REPORTER.load(Ordering::Relaxed) == me {
        Line::new().text("\ncoro: another fault while reporting the first; that is all there is\n").print();
        die();
    }
    if is_fault(info) {
        // SAFETY: for a fault the system has filled in the address.
        let addr = unsafe { (*info).si_addr() }.addr();
        if let Some(slot) = slot_of(addr).filter(|slot| slot.in_guard(addr)) {
            // SAFETY: `context` is what the system passed to this handler.
            let regs = unsafe { Registers::from_context(context) };
            overflowed(&slot, addr, &regs, me);
        }
    }
    chain(signal, info, context);
}

/// Whether an instruction of this thread caused the signal, rather than `kill` or the like.
fn is_fault(info: *const libc::siginfo_t) -> bool {
    // SAFETY: the system passes a valid `siginfo_t` to handlers with SA_SIGINFO.
    let code = unsafe { (*info).si_code };
    // BSD's codes for sent signals begin at 0x10001, Linux's are zero and below.
    code > 0 && code <= 0x1_0000
}

/// Reports and dies; returns only if the access was a stray one, which is no overflow.
fn overflowed(slot: &SlotBounds, addr: usize, regs: &Registers, me: usize) {
    let mut task = TaskDescription { known: false, id: 0, name: [0; 64], name_len: 0, slot_top: 0, spare_top: 0 };
    let describe = DESCRIBE.load(Ordering::Acquire);
    if !describe.is_null() {
        // SAFETY: only `describe_with` stores there, and only a `Describe`.
        let describe: Describe = unsafe { std::mem::transmute(describe) };
        describe(&mut task);
    }
    let mut line = Line::new();
    let spare = task.known && task.spare_top == slot.top;
    let stray = task.known && task.slot_top != 0 && task.slot_top != slot.top && !spare;
    name(&mut line, &task);
    if stray {
        line.text(" touched the guard of another task's stack (fault at ").hex(addr).text(")\n").print();
        return;
    }
    if REPORTER.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        // Another thread is about to end the process.
        loop {
            // SAFETY: waits for a signal; no preconditions.
            unsafe { libc::pause() };
        }
    }
    arm();
    line.text(if spare { ": what watches it overflowed the stack of " } else { " overflowed its stack of " })
        .decimal(slot.class.kib() as u64)
        .text(" KiB (fault at ")
        .hex(addr)
        .text(")\n")
        .print();
    let advice = match spare {
        true => "coro: an instrument or a condition of a probe, or what shows a value, takes more than that\n",
        false => "coro: raise it with Builder::stack_size or CORO_STACK_KB, unless it recurses without end\n",
    };
    line.text(advice).print();
    let frames = FRAMES.load(Ordering::Acquire);
    if !frames.is_null() {
        // SAFETY: only `frames_with` stores there, and only a `Frames`.
        let frames: Frames = unsafe { std::mem::transmute(frames) };
        frames(regs, slot.usable_low, slot.top);
    }
    die();
}

fn name(line: &mut Line, task: &TaskDescription) {
    if !task.known {
        line.text("coro: a task");
        return;
    }
    line.text("coro: task #").decimal(task.id);
    let name = &task.name[..task.name_len.min(task.name.len())];
    if !name.is_empty() {
        line.text(" ").quoted(name);
    }
}

/// Makes sure that the process ends within three seconds, and that a second fault gets here: the fault may lie inside
/// `malloc`, whose lock symbolising needs, and stderr may be a pipe that nobody reads.
fn arm() {
    // SAFETY: all zeros is a valid `sigaction`; the handler is async-signal-safe; an alarm of the program's own is lost,
    // but so is the program.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_alarm as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGALRM, &action, ptr::null_mut());
        unblock(&[libc::SIGALRM, libc::SIGSEGV, libc::SIGBUS]);
        libc::alarm(2);
    }
}

/// Two seconds after [`arm`]. The alarm comes to any thread, whose stacks may be small; the reporter's alternate one is not.
extern "C" fn on_alarm(_: libc::c_int) {
    let reporter = REPORTER.load(Ordering::Relaxed);
    // SAFETY: the reporter never returns from its handler, so the thread is there. Both calls are async-signal-safe.
    unsafe {
        if libc::pthread_self() as usize != reporter {
            libc::pthread_kill(reporter as libc::pthread_t, libc::SIGALRM);
            return;
        }
    }
    set_default(libc::SIGALRM);
    unblock(&[libc::SIGALRM]);
    // SAFETY: no preconditions.
    unsafe { libc::alarm(1) };
    let names = LAST_NAMES.load(Ordering::Acquire);
    if !names.is_null() {
        // SAFETY: only `frames_with` stores there, and only a `LastNames`.
        let names: LastNames = unsafe { std::mem::transmute(names) };
        names();
    }
    die();
}

fn die() -> ! {
    set_default(libc::SIGABRT);
    unblock(&[libc::SIGABRT]);
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}

fn set_default(signal: libc::c_int) {
    // SAFETY: all zeros is the default action; installing it runs no code of ours.
    unsafe {
        let action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, &action, ptr::null_mut());
    }
}

fn is_default(signal: libc::c_int) -> bool {
    // SAFETY: all zeros is a valid `sigaction`; the call only asks.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, ptr::null(), &mut now) == 0 && now.sa_sigaction == libc::SIG_DFL
    }
}

fn unblock(signals: &[libc::c_int]) {
    // SAFETY: the set is initialised by `sigemptyset`; the mask is this thread's own.
    unsafe {
        let mut set = MaybeUninit::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// Does what would have happened without us. If this returns, the interrupted instruction runs again.
fn chain(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(i) = SIGNALS.iter().position(|&ours| ours == signal) else { return };
    // SAFETY: our handler for this signal runs, so `install` has written the place before.
    let previous = unsafe { (*PREVIOUS[i].action.get()).assume_init_ref() };
    let fault = is_fault(info);
    let once = previous.sa_flags & libc::SA_RESETHAND != 0;
    let spent = once && PREVIOUS[i].spent.swap(true, Ordering::Relaxed);
    let handler = if spent { libc::SIG_DFL } else { previous.sa_sigaction };
    match handler {
        // A fault cannot be ignored: the kernel would end the process as well.
        libc::SIG_IGN if !fault => return,
        libc::SIG_DFL | libc::SIG_IGN => set_default(signal),
        handler => {
            if previous.sa_flags & libc::SA_NODEFER != 0 {
                unblock(&[signal]);
            }
            // SAFETY: the handler was installed for this signal with this signature and gets the system's own arguments.
            // Its mask ends with our return, when the kernel restores the interrupted one.
            unsafe {
                libc::pthread_sigmask(libc::SIG_BLOCK, &previous.sa_mask, ptr::null_mut());
                if previous.sa_flags & libc::SA_SIGINFO != 0 {
                    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                        std::mem::transmute(handler);
                    handler(signal, info, context);
                } else {
                    let handler: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
                    handler(signal);
                }
            }
        }
    }
    // No instruction will raise a signal again that was sent. std's handler only restores the default and leaves the rest
    // to the instruction: without this, `kill -SEGV` would do nothing the first time.
    if !fault && is_default(signal) {
        // SAFETY: sent to this thread; delivered when our handler returns and the signal is unblocked.
        unsafe { libc::raise(signal) };
    }
}
