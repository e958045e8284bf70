//! The frames of a stack overflow, printed in the signal handler that it ends in.
//!
//! The fault may lie anywhere, also inside of the allocator: what recurses without end often calls it. So the walk is done
//! first, by a walker that was made before; then names and lines are looked up, which allocates; and if that does not end
//! because something that it needs is held, the alarm that the report has set prints the names of functions, for which
//! nothing is needed.
//!
//! Invariants: nothing is shared with the walker of dumps, whose lock the interrupted code may hold; [`names_only`] neither
//! allocates nor waits for a lock. Must not know: which task it was.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::condensed::{Detail, First};
use super::frames::{Frames, walker};
use super::names::{FixedBuf, Names};
use super::walk::{End, Registers, StackBytes, Walker};
use crate::stack::{self, overflow};
use crate::sys::stderr;

/// At most so many frames of each end of an overflowed stack are printed.
const SHOWN: usize = 24;

/// More frames than that are not followed: ten milliseconds' worth.
const MOST: usize = 1 << 18;

/// Made at the start, for one walk.
static READY: Mutex<Option<Walker>> = Mutex::new(None);
static NAMES: OnceLock<Names> = OnceLock::new();

/// What the walk found, for whoever prints it: the innermost and the outermost ones.
static FOUND: [AtomicUsize; 2 * SHOWN] = [const { AtomicUsize::new(0) }; 2 * SHOWN];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static WHOLE: AtomicBool = AtomicBool::new(false);
/// How many of them have been dealt with.
static PRINTED: AtomicUsize = AtomicUsize::new(0);

/// Gives the overflow handler its frames; when the modules are known.
pub(crate) fn install_overflow_frames() {
    let walker = walker();
    NAMES.get_or_init(|| Names::new(walker.modules().clone()));
    *READY.lock().unwrap_or_else(PoisonError::into_inner) = Some(walker);
    overflow::frames_with(frames, names_only);
}

/// In the signal handler, with the alarm set: may allocate, after the walk.
fn frames(registers: &stack::Registers, low: usize, top: usize) {
    let from = registers.sp.clamp(low, top);
    // SAFETY: [low, top) is the usable part of the overflowed stack; its task is the interrupted code, so it is still.
    let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, top - from) };
    let registers = Registers {
        ip: registers.ip,
        sp: registers.sp,
        fp: registers.fp,
        #[cfg(target_arch = "aarch64")]
        lr: registers.lr,
    };
    let stack = StackBytes { base: from, bytes };
    if let Ok(mut ready) = READY.try_lock()
        && let Some(walker) = &mut *ready
    {
        walk(walker, &registers, &stack);
    }
    let mut f = Frames::new();
    if !WHOLE.load(Ordering::Relaxed) {
        // Perhaps it leads through code that was loaded later, which these know.
        walk(&mut f.walker, &registers, &stack);
    }
    let mut text = String::new();
    print(|address, first, out| {
        text.clear();
        f.texts.write(&[address], first, Detail::Whole, &mut f.symbols, &mut text);
        out.push_str(&text);
    });
}

fn walk(walker: &mut Walker, registers: &Registers, stack: &StackBytes<'_>) {
    let mut n = 0;
    let end = walker.walk_with(registers, stack, MOST, |address| {
        place(n).store(address, Ordering::Relaxed);
        n += 1;
    });
    WHOLE.store(end == End::Complete, Ordering::Relaxed);
    COUNT.store(n, Ordering::Release);
}

/// Where the address of a frame is kept, if that is one that is shown.
fn place(frame: usize) -> &'static AtomicUsize {
    &FOUND[if frame < SHOWN { frame } else { SHOWN + frame % SHOWN }]
}

/// In the handler of the alarm, which interrupts [`frames`]: what is not printed yet, without lines.
fn names_only() {
    let Some(names) = NAMES.get() else { return };
    stderr::write_raw(b"coro: no lines: they did not come in time (is the allocator's lock held?)\n");
    print(|address, first, out| names.write_stack(&[address], first, out));
}

fn print(mut write: impl FnMut(usize, First, &mut FixedBuf<'_>)) {
    let n = COUNT.load(Ordering::Acquire);
    let mut bytes = [0; 1024];
    for i in PRINTED.load(Ordering::Relaxed)..n {
        let mut line = FixedBuf::new(&mut bytes);
        let last = i + 1 == n && !WHOLE.load(Ordering::Relaxed);
        if i < SHOWN || i + SHOWN >= n {
            let _ = write!(line, "coro:   {i:>4} ");
            let first = if i == 0 { First::Instruction } else { First::ResumePoint };
            write(place(i).load(Ordering::Relaxed), first, &mut line);
        } else if i == SHOWN {
            let _ = write!(line, "coro:        ... {} frames ...", n - 2 * SHOWN);
        } else {
            continue;
        }
        line.end_line(if last { "\ncoro:        [...]\n" } else { "\n" });
        stderr::write_raw(line.as_bytes());
        PRINTED.store(i + 1, Ordering::Relaxed);
    }
}
