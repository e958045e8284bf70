//! The process's current list of loaded images.
//!
//! Purpose: have a [`ModuleMap`] at hand at any time, and a newer one if the loader lets us.
//!
//! Invariants:
//! - Asking for the list waits for the loader's lock, which a thread that stands still may hold for ever. So it is asked
//!   when the first runtime starts, and later only by a thread of its own, for which nobody waits longer than said.
//! - There is at most one such thread. While it waits, everybody goes on with the map that there is.
//!
//! It must not know: who walks, what is printed.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::condensed::push_escaped;
use super::modules::ModuleMap;
use crate::sys::threads;

/// How long a dump waits for a look at the loader's list.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);

struct State {
    latest: Option<Arc<ModuleMap>>,
    /// Since when a thread waits for the loader.
    looking: Option<Instant>,
}

static STATE: Mutex<State> = Mutex::new(State { latest: None, looking: None });
static LOOKED: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the list and maps the files, if nobody did before: about 200 µs, when the first runtime starts.
pub(crate) fn prepare() {
    let known = state().latest.clone();
    let map = known.unwrap_or_else(|| Arc::new(ModuleMap::load()));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    super::elf_files::keep_files(&map.images);
    state().latest.get_or_insert(map);
}

/// The newest list that is known; without asking the loader, unless nobody ever did.
pub(crate) fn latest() -> Arc<ModuleMap> {
    let known = state().latest.clone();
    known.unwrap_or_else(|| refreshed(PATIENCE))
}

/// The list as it is now, or the newest that is known if the loader does not answer within `patience`.
pub(crate) fn refreshed(patience: Duration) -> Arc<ModuleMap> {
    let begun = Instant::now();
    let mut s = state();
    match s.looking {
        // It has had its time already.
        Some(since) if since.elapsed() >= patience => return newest(&s),
        Some(_) => {}
        None => {
            let thread = std::thread::Builder::new().name("coro-images".into()).stack_size(128 << 10);
            let known = s.latest.clone();
            if thread.spawn(move || look(known)).is_err() {
                return newest(&s);
            }
            s.looking = Some(begun);
        }
    }
    while s.looking.is_some() {
        let left = patience.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        s = LOOKED.wait_timeout(s, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    newest(&s)
}

fn newest(s: &State) -> Arc<ModuleMap> {
    s.latest.clone().unwrap_or_default()
}

/// One line for each image: where it lies, its build id and path, after a line that says how to name what is shown as
/// `NAME+0x1234` elsewhere; the offset is an address as stated in the file.
pub(crate) fn modules_text() -> String {
    let mut out = String::from("what reads NAME+0x1234 is named by: addr2line -Cfipe FILE-WITH-SYMBOLS 0x1234\n");
    for image in &refreshed(PATIENCE).images {
        let id = if image.build_id.is_empty() { "none".to_owned() } else { image.build_id.to_string() };
        let (start, end) = (image.span.start, image.span.end);
        let _ = write!(out, "{start:#x}-{end:#x} build id {id} ");
        push_escaped(&image.path, &mut out);
        out.push('\n');
    }
    out
}

/// On a thread of its own.
fn look(known: Option<Arc<ModuleMap>>) {
    let _own = threads::Own::new();
    let new = match known {
        Some(known) if known.is_current() => None,
        _ => Some(ModuleMap::load()).filter(|map| !map.images.is_empty()).map(Arc::new),
    };
    let mut s = state();
    if new.is_some() {
        s.latest = new;
    }
    s.looking = None;
    drop(s);
    LOOKED.notify_all();
}
