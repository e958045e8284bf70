//! The panic hook: keeps the place and the stack of panics in tasks, and decides who prints.
//!
//! Invariants: installed once, never put back by itself: a hook that the program sets later stays on top. Panics outside of
//! tasks go to the hook that was there, untouched. Must not know: notifiers' and handlers' business.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::panic::{self, PanicHookInfo};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::blocking;
use crate::report;
use crate::scheduler::suspend::here;
use crate::sys::stderr;
use crate::tb::{self, Captured, Seen};

thread_local! {
    /// The task whose panic the hook below ours is being told of; 0 for none. One suffices: std aborts the process when a
    /// second panic of the thread comes before the end of the first one's hook.
    static HOOKED: Cell<u64> = const { Cell::new(0) };

    /// What the thread does outside of tasks is none of the program's doing.
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Calls `f`, which must not unwind. Panics in it, outside of tasks, are told to nobody if `silent` and if they do not end
/// the process: they are an outcome like others to whoever catches them.
#[cfg(any(feature = "probe", feature = "script"))]
pub(crate) fn silently<T>(silent: bool, f: impl FnOnce() -> T) -> T {
    let before = SILENT.replace(silent);
    let result = f();
    SILENT.set(before);
    result
}

/// Takes the place of the hook that is there, once.
pub(crate) fn install() {
    static DONE: AtomicBool = AtomicBool::new(false);
    // A hook cannot be changed while the thread panics; the next call does it then.
    if std::thread::panicking() || DONE.swap(true, Ordering::SeqCst) {
        return;
    }
    let before = panic::take_hook();
    // std hands out its own hook in a box as well. Now that none is set, the one taken is std's: if the first was
    // the same function, which its table tells, the program had set none. A wrong no would only mean two reports.
    let stds = panic::take_hook();
    let is_stds = ptr::eq(&*before, &*stds);
    panic::set_hook(Box::new(move |info| {
        // What a task has done on a thread for blocking calls goes on as a panic of the task.
        let (task, job) = here().map_or_else(|| (blocking::job_of(), true), |h| (h.id(), false));
        let ends_the_process = cfg!(panic = "abort") || cannot_unwind(info);
        if task == 0 {
            if SILENT.get() && !ends_the_process {
                return;
            }
            if !(is_stds && report::handler_panics_again()) {
                before(info);
            }
            return;
        }
        let told = keep(task, job, info, is_stds && !ends_the_process);
        if ends_the_process {
            stderr::flush(stderr::EXIT_PATIENCE);
        }
        if ends_the_process || !is_stds {
            let outer = HOOKED.replace(task);
            before(info);
            HOOKED.set(outer);
        } else if let Some(mut seen) = told {
            seen.told = super::by_default();
            if seen.told {
                let what = (seen.location.clone(), seen.captured.clone());
                super::write_later(task, seen.captured.task_name(), &seen.message, Some(what), &seen.location);
            }
            tb::remember(seen, job);
        }
    }));
}

/// Keeps what is to be known of the panic. If somebody has still to decide whether it is told it is returned.
fn keep(task: u64, job: bool, info: &PanicHookInfo<'_>, undecided: bool) -> Option<Seen> {
    let captured = Captured::until(keep as *const ());
    let captured = if job { captured.on_behalf_of(task) } else { captured };
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let seen = Seen::new(task, info.payload(), location, captured);
    report::remember_panic(&seen.location, &seen.message, seen.captured.addresses());
    if undecided {
        return Some(seen);
    }
    tb::remember(seen, job);
    None
}

/// Whether std aborts the process after this panic. It does not say so to a stable program, but its words for it are few.
fn cannot_unwind(info: &PanicHookInfo<'_>) -> bool {
    let text = info.payload().downcast_ref::<&str>().copied();
    let text = text.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str));
    text.is_some_and(|t| {
        [
            "panic in a destructor during cleanup",
            "panic in a function that cannot unwind",
            "unsafe precondition(s) violated",
        ]
        .iter()
        .any(|begin| t.starts_with(begin))
    })
}

/// Whether the caller was called, however indirectly, by a panic hook.
///
/// Ours knows what it calls. A hook that the program set later stands above ours, and std keeps to itself that it runs. But
/// the frames of std's panic entry lie on the stack while a hook runs; when destructors run afterwards they are gone. They
/// are found by name, so in a stripped program such a hook is not known for one.
pub(crate) fn in_hook() -> bool {
    let task = here().map_or(0, |h| h.id());
    (task != 0 && HOOKED.get() == task) || below_stds_entry()
}

fn below_stds_entry() -> bool {
    /// Where the function begins that calls the hook, once that is known.
    static CALLER: AtomicUsize = AtomicUsize::new(0);
    /// Where other functions begin: names are looked up once, because that is dear.
    static OTHERS: [AtomicUsize; 1024] = [const { AtomicUsize::new(0) }; 1024];
    let base = crate::context::base_range();
    let (mut found, mut frames) = (false, 0);
    backtrace::trace(|frame| {
        let begin = frame.symbol_address() as usize;
        let other = &OTHERS[(begin >> 4) % OTHERS.len()];
        let known = CALLER.load(Ordering::Relaxed);
        if known != 0 {
            found = begin == known;
        } else if other.load(Ordering::Relaxed) != begin {
            backtrace::resolve_frame(frame, |symbol| {
                // As the linker knows it: readable forms differ from compiler to compiler.
                let name =
                    symbol.name().map(|n| String::from_utf8_lossy(n.as_bytes()).into_owned()).unwrap_or_default();
                found |= name.contains("3std") && name.contains("9panicking") && name.contains("panic_with_hook");
            });
            if found { &CALLER } else { other }.store(begin, Ordering::Relaxed);
        }
        frames += 1;
        !found && frames < 256 && !(base.0..=base.1).contains(&(frame.ip() as usize))
    });
    found
}
