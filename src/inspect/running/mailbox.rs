//! Where a thread that is asked by a signal puts its registers and its stack.
//!
//! One mailbox per worker, never freed, with room for the innermost part of a stack. One asker at a time; its question and
//! the answer go through one word, a generation and a phase:
//!
//! ```text
//!          ask              handler begins        handler ends
//!   IDLE -------> ASKED ------------------> WRITING ---------> DONE
//!     ^             |                                            |
//!     +-- give up --+            (the next question) <-----------+
//! ```
//!
//! Invariants: the handler writes only between WRITING and DONE, which it enters by a compare-and-swap from ASKED; the asker
//! reads only in DONE. Who gives up takes the question back; if the handler is writing by then, nobody asks again until it
//! is done. So an answer that comes late writes nothing, or into memory that is its own. The handler (everything below
//! [`serve`]) makes only async-signal-safe calls and takes no lock. Nothing here allocates.
//!
//! Must not know: who asks, what a stack means.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{ROOM, copy_words};
use crate::context;
use crate::scheduler::shared::{MAX_WORKERS, Shared};
use crate::scheduler::suspend::here;
use crate::stack::{self, slot_of};
use crate::sys::directed::{self, Refusal};
use crate::sys::mem::{self, Access};

/// The most of a stack that is not the task's.
const FOREIGN: usize = 64 << 10;

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const WRITING: u32 = 2;
const DONE: u32 = 3;
const PHASE: u32 = 0b11;
const GENERATION: u32 = 4;

/// What the thread was doing when the signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On the task's own stack, or in its switch to or from it.
    Task,
    /// Somewhere else in the name of the task: a signal handler's stack, or one that the program switched to.
    Foreign,
    /// Between two tasks.
    Nowhere,
}

/// An answer. The bytes lie in the mailbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) place: Place,
    /// The task that the thread was running.
    pub(super) id: u64,
    pub(super) registers: stack::Registers,
    pub(super) base: usize,
    pub(super) len: usize,
}

struct Mailbox {
    word: AtomicU32,
    /// By the asker.
    held: AtomicBool,
    /// The thread that is to answer.
    thread: AtomicI32,
    worker: AtomicPtr<Shared>,
    /// The handler's in WRITING, the asker's in DONE.
    answer: UnsafeCell<MaybeUninit<Answer>>,
    /// [`ROOM`] bytes, by the same rule.
    bytes: *mut u8,
}

// SAFETY: the word hands `answer` and `bytes` from the asker to the handler and back.
unsafe impl Sync for Mailbox {}

/// By the worker's place in the process's table.
static BOXES: [AtomicPtr<Mailbox>; MAX_WORKERS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_WORKERS];

/// Places below this may hold one.
static USED: AtomicUsize = AtomicUsize::new(0);

fn mailbox(index: u16) -> Option<&'static Mailbox> {
    let p = BOXES.get(usize::from(index))?.load(Ordering::Acquire);
    // SAFETY: only mailboxes that are never freed are stored.
    (!p.is_null()).then(|| unsafe { &*p })
}

fn mailbox_for(index: u16) -> Option<&'static Mailbox> {
    if let Some(found) = mailbox(index) {
        return Some(found);
    }
    let head = size_of::<Mailbox>().next_multiple_of(mem::page_size());
    let at = mem::map(head + ROOM, Access::ReadWrite).ok()?;
    let new: *mut Mailbox = ptr::with_exposed_provenance_mut(at);
    // SAFETY: fresh memory of that size, aligned to a page, nobody else's.
    unsafe {
        new.write(Mailbox {
            word: AtomicU32::new(IDLE),
            held: AtomicBool::new(false),
            thread: AtomicI32::new(0),
            worker: AtomicPtr::default(),
            answer: UnsafeCell::new(MaybeUninit::uninit()),
            bytes: ptr::with_exposed_provenance_mut(at + head),
        });
    }
    let place = BOXES.get(usize::from(index))?;
    if place.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: nobody has seen this one.
        let _ = unsafe { mem::unmap(at, head + ROOM) };
    }
    USED.fetch_max(usize::from(index) + 1, Ordering::AcqRel);
    mailbox(index)
}

/// The right to ask one worker.
pub(super) struct Asker {
    mailbox: &'static Mailbox,
    signal: i32,
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.mailbox.held.store(false, Ordering::Release);
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Not in time.
    Late,
    /// Somebody else asked all the time, or an earlier answer is still being written.
    Busy,
    Refused(Refusal),
}

impl Asker {
    /// Waits until `deadline` for others who ask the same worker.
    pub(super) fn begin(worker: &'static Shared, thread: i32, deadline: Instant) -> Result<Asker, Silence> {
        let signal = directed::ensure(serve).map_err(Silence::Refused)?;
        let mailbox = mailbox_for(worker.index).ok_or(Silence::Busy)?;
        while mailbox.held.swap(true, Ordering::Acquire) {
            if Instant::now() >= deadline {
                return Err(Silence::Busy);
            }
            nap();
        }
        let asker = Asker { mailbox, signal };
        if mailbox.word.load(Ordering::Acquire) & PHASE == WRITING {
            return Err(Silence::Busy);
        }
        mailbox.worker.store(ptr::from_ref(worker).cast_mut(), Ordering::Relaxed);
        mailbox.thread.store(thread, Ordering::Relaxed);
        Ok(asker)
    }

    /// Asks once. `patience` is called now and then with the time that has passed, and says whether to go on waiting.
    pub(super) fn ask(&mut self, mut patience: impl FnMut(Duration) -> bool) -> Result<Answer, Silence> {
        let word = &self.mailbox.word;
        // Only an asker changes the word from IDLE or DONE, and we are the only one.
        let asked = (word.load(Ordering::Relaxed) & !PHASE).wrapping_add(GENERATION) | ASKED;
        word.store(asked, Ordering::Release);
        if let Err(refusal) = directed::send(self.mailbox.thread.load(Ordering::Relaxed), self.signal) {
            let _ = self.take_back(asked);
            return Err(Silence::Refused(refusal));
        }
        let begun = Instant::now();
        loop {
            if word.load(Ordering::Acquire) & PHASE == DONE {
                // SAFETY: in DONE the answer is written, and ours to read.
                return Ok(unsafe { (*self.mailbox.answer.get()).assume_init() });
            }
            let waited = begun.elapsed();
            if waited < Duration::from_micros(15) {
                std::hint::spin_loop();
            } else if patience(waited) {
                // The thread may need this CPU.
                nap();
            } else {
                match self.take_back(asked) {
                    Err(DONE) => {}
                    // A thread that was interrupted in the handler: it needs the CPU, not time.
                    Err(_) if waited < Duration::from_millis(500) => nap(),
                    Err(_) => return Err(Silence::Busy),
                    Ok(()) => return Err(Silence::Late),
                }
            }
        }
    }

    /// Nobody wants the answer any more; else the phase that it is in.
    fn take_back(&self, asked: u32) -> Result<(), u32> {
        let idle = asked & !PHASE | IDLE;
        match self.mailbox.word.compare_exchange(asked, idle, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(now) => Err(now & PHASE),
        }
    }

    /// The bytes of the last answer.
    pub(super) fn bytes(&self, answer: &Answer) -> &[u8] {
        // SAFETY: written before DONE, and nobody writes before the next question, which borrows `self` alone.
        unsafe { std::slice::from_raw_parts(self.mailbox.bytes, answer.len.min(ROOM)) }
    }
}

/// Gives the CPU to whoever needs it, for about as long as the kernel's shortest sleep.
pub(super) fn nap() {
    let short = libc::timespec { tv_sec: 0, tv_nsec: 20_000 };
    // SAFETY: plain data; the second place may be null.
    unsafe { libc::nanosleep(&short, ptr::null_mut()) };
}

/// In the signal handler: answers whoever asks this thread.
fn serve(context: *const c_void) {
    let me = crate::sys::thread_id();
    for place in &BOXES[..USED.load(Ordering::Acquire)] {
        let p = place.load(Ordering::Acquire);
        if p.is_null() {
            continue;
        }
        // SAFETY: only mailboxes that are never freed are stored.
        let mailbox = unsafe { &*p };
        let word = mailbox.word.load(Ordering::Acquire);
        if word & PHASE != ASKED || mailbox.thread.load(Ordering::Relaxed) != me {
            continue;
        }
        let writing = word & !PHASE | WRITING;
        if mailbox.word.compare_exchange(word, writing, Ordering::Acquire, Ordering::Relaxed).is_err() {
            continue;
        }
        // SAFETY: WRITING is ours alone, and `context` is the handler's.
        unsafe {
            let answer = look(mailbox, context);
            (*mailbox.answer.get()).write(answer);
        }
        mailbox.word.store(word & !PHASE | DONE, Ordering::Release);
    }
}

/// # Safety
/// In the handler on the worker's thread, with the mailbox in WRITING.
unsafe fn look(mailbox: &Mailbox, context: *const c_void) -> Answer {
    // SAFETY: the system's own argument.
    let mut registers = unsafe { stack::Registers::from_context(context) };
    let mut answer = Answer { place: Place::Nowhere, id: 0, registers, base: 0, len: 0 };
    // SAFETY: a worker's public side is never freed.
    let worker = unsafe { mailbox.worker.load(Ordering::Relaxed).as_ref() };
    let Some(worker) = worker else { return answer };
    if worker.thread.load(Ordering::Relaxed) != crate::sys::thread_id() {
        // The worker has ended, and its thread's number has gone to this one before the worker's place went to another.
        return answer;
    }
    let current = worker.current.load(Ordering::SeqCst);
    // SAFETY: cells are type-stable.
    let Some(cell) = (unsafe { current.as_ref() }) else { return answer };
    if cell.owner.load(Ordering::Relaxed) != worker.index {
        // The last task here has ended, and its cell has gone to a task of another worker.
        return answer;
    }
    answer.id = cell.state.snapshot().id();
    let (stub, stub_end) = context::stub_range();
    let in_stub = (stub..stub_end).contains(&registers.ip);
    let running = here();
    if in_stub || running.is_none() {
        // In the switch, or in the loop with a task that has run and may run again: it is where it was saved. Its record
        // says that it has begun and not ended.
        if !in_stub && cell.local.load(Ordering::Acquire).is_null() {
            return answer;
        }
        // The task may have ended here, and the cell be another one's by now, which runs on its own worker.
        if cell.owner.load(Ordering::Relaxed) != worker.index {
            return answer;
        }
        // SAFETY: the interrupted code is this task's owner, and in the stub or in the loop it writes no context of a task
        // that has begun.
        let ctx = unsafe { cell.ctx.get().read_volatile() };
        registers = stack::Registers { ip: ctx.ip, sp: ctx.sp, fp: ctx.fp, lr: 0 };
        answer.registers = registers;
        if slot_of(ctx.sp.wrapping_sub(1)).is_none() {
            return answer;
        }
    }
    // The byte below: a stack that is empty begins at the end of its slot.
    if let Some(slot) = slot_of(registers.sp.wrapping_sub(1)) {
        answer.place = Place::Task;
        // An overflow in the making may have its stack pointer in the guard.
        answer.base = registers.sp.max(slot.usable_low);
        answer.len = (slot.top - answer.base).min(ROOM);
        // SAFETY: the used part of a stack that this thread runs on or has saved, and a buffer with the room.
        unsafe { copy_words(answer.base as *const u8, mailbox.bytes, answer.len) };
    } else if running.is_none_or(|h| !h.worker.is_near_switch(registers.sp)) {
        answer.place = Place::Foreign;
        answer.base = registers.sp;
        // SAFETY: the buffer is ours in WRITING.
        let into = unsafe { std::slice::from_raw_parts_mut(mailbox.bytes, FOREIGN) };
        answer.len = mem::peek(registers.sp, into).unwrap_or(0);
    }
    answer
}
