//! Who spawned a task: its ancestors, as far as they still exist.
//!
//! Invariants: bounded depth; each look is one pass over the cells, or a few, and one short window. Must not know: who asks.

use std::panic::Location;
use std::sync::Arc;

use super::capture::Captured;
use super::sweep::cell_of;
use crate::scheduler;
use crate::task::TaskCell;

/// Ancestors that are looked for; a task that spawns its own successor makes longer lines than anyone reads.
const DEEPEST: usize = 16;
/// Return addresses of a spawn that are copied.
const SPAWN_FRAMES: usize = 128;

/// What a task keeps of its spawn.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) id: u64,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) site: Option<&'static Location<'static>>,
    /// 0: a plain thread.
    pub(crate) parent: u64,
    /// Return addresses, if spawn stacks are recorded.
    pub(crate) spawn_stack: Option<Box<[usize]>>,
}

impl Origin {
    fn with(self, spawn_stack: Vec<usize>) -> Origin {
        Origin { spawn_stack: (!spawn_stack.is_empty()).then(|| spawn_stack.into()), ..self }
    }
}

/// # Safety
/// By the task itself, or inside its inspection window.
/// `spawn_stack` has its room from the start: nothing is allocated in a window.
unsafe fn read(cell: &TaskCell, id: u64, spawn_stack: &mut Vec<usize>) -> Origin {
    // SAFETY: by the caller's promise; the site is constant from the spawn on.
    let (label, site) = unsafe { (cell.label(), *cell.site.get()) };
    spawn_stack.clear();
    if let Some(addresses) = label.and_then(|l| l.spawn_stack.as_deref()) {
        spawn_stack.extend_from_slice(&addresses[..addresses.len().min(spawn_stack.capacity())]);
    }
    Origin {
        id,
        name: label.and_then(|l| l.name.clone()),
        site,
        parent: cell.parent.load(std::sync::atomic::Ordering::Relaxed),
        spawn_stack: None,
    }
}

/// The running task's; `None` outside of tasks.
pub(crate) fn own_origin() -> Option<Origin> {
    let here = scheduler::suspend::here()?;
    let mut spawn_stack = Vec::with_capacity(SPAWN_FRAMES);
    // SAFETY: the caller is the task.
    Some(unsafe { read(here.cell, here.id(), &mut spawn_stack) }.with(spawn_stack))
}

/// Another task's.
pub(crate) fn origin(id: u64) -> Option<Origin> {
    let cell = cell_of(id)?;
    origin_in(cell, id)
}

/// Of the task in that cell, if it is still there.
fn origin_in(cell: &TaskCell, id: u64) -> Option<Origin> {
    let mut spawn_stack = Vec::with_capacity(SPAWN_FRAMES);
    let window = cell.enter().filter(|window| window.id() == id)?;
    // SAFETY: the window keeps the cell from being emptied, whatever the task does; name and site are constant until then.
    let seen = unsafe { read(cell, id, &mut spawn_stack) };
    drop(window);
    Some(seen.with(spawn_stack))
}

/// The ancestors of a task whose parent is `parent`, nearest first, up to the first that has ended.
pub(crate) fn ancestors(parent: u64) -> Vec<Origin> {
    let registry = scheduler::registry();
    let mut all: Vec<Origin> = Vec::new();
    let mut next = parent;
    loop {
        let before = all.len();
        // Who spawned somebody mostly lies before it: backwards, one pass finds them all.
        for cell in (0..registry.chunks()).rev().flat_map(|i| registry.cells(i).iter().rev()) {
            if next == 0 || all.len() == DEEPEST {
                return all;
            }
            if cell.state.snapshot().id() == next
                && let Some(o) = origin_in(cell, next)
            {
                next = o.parent;
                all.push(o);
            }
        }
        if all.len() == before {
            return all;
        }
    }
}

/// A task's labels.
pub(crate) fn labels(id: u64) -> Vec<(String, String)> {
    let mut c = Captured::new();
    c.wants_stack = false;
    if !cell_of(id).is_some_and(|cell| c.capture(cell, Some(id))) {
        return Vec::new();
    }
    c.labels().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}
