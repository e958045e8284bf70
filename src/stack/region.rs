//! One region of address space per class, cut into slabs of slots.
//!
//! Purpose: hand out slabs whose slots are open and guarded, take them back clean, and tell for any address which slot it
//! lies in.
//! Invariants: a region never moves and is never unmapped, so an address once in a slot is in it for good. `base` is written
//! once, after `slots`. A slab is owned by exactly one pool, by the free list, or by nobody any more (`retire` failed).
//! A slab handed out has every guard in place; one on the free list holds no memory. Slabs open side by side, so that the
//! open part of a region is a single mapping with [`GuardMode::Madvise`].
//! Must not know: which slots are in use, workers, tasks.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::class::{self, ClassId, GUARD, SLAB_ALIGN};
use super::guard::{self, GuardMode};
use crate::sys::mem::{self, Access};

/// Most slots of a region: 1 TiB of address space in the default class.
const MOST_SLOTS: usize = 4 << 20;

/// Most address space of a region.
const MOST_BYTES: usize = 1 << 40;

struct Region {
    /// Address of slab 0; zero until reserved.
    base: AtomicUsize,
    /// Slots that fit; constant once `base` is set.
    slots: AtomicUsize,
    /// Slabs handed out at least once; slabs below this may hold stacks.
    grown: AtomicUsize,
    /// Retired slabs. The lock also orders reserving and growing.
    free: Mutex<Vec<u32>>,
}

static REGIONS: [Region; class::COUNT] = [const {
    Region {
        base: AtomicUsize::new(0),
        slots: AtomicUsize::new(0),
        grown: AtomicUsize::new(0),
        free: Mutex::new(Vec::new()),
    }
}; class::COUNT];

/// A run of open, guarded slots, owned by one pool. Dropping it without [`retire`] leaks it.
#[derive(Debug)]
pub(crate) struct Slab {
    pub(crate) class: ClassId,
    /// Position in the region.
    pub(crate) index: u32,
    /// Slots that are open: fewer than the class has when the budget of mappings ran out.
    pub(crate) slots: u8,
    /// Address of the first slot's guard.
    pub(crate) base: usize,
}

/// Where a slot lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotBounds {
    /// Its class.
    pub(crate) class: ClassId,
    /// Lowest address of the guard, and of the slot.
    pub(crate) guard_low: usize,
    /// Lowest address of the stack itself.
    pub(crate) usable_low: usize,
    /// First address above the slot.
    pub(crate) top: usize,
    /// Position among the slots of its class.
    pub(crate) index: usize,
}

impl SlotBounds {
    /// Whether `addr` lies in the guard.
    pub(crate) fn in_guard(&self, addr: usize) -> bool {
        (self.guard_low..self.usable_low).contains(&addr)
    }
}

/// The slot an address lies in, guard included. Safe in signal handlers: arithmetic and atomic loads only.
pub(crate) fn slot_of(addr: usize) -> Option<SlotBounds> {
    for class in ClassId::all() {
        let region = &REGIONS[class.index()];
        let base = region.base.load(Ordering::Acquire);
        let g = class.geometry();
        if base == 0 || addr < base || addr - base >= region.grown.load(Ordering::Acquire) * g.stride {
            continue;
        }
        let (slab, within) = ((addr - base) / g.stride, (addr - base) % g.stride);
        let slot = within / g.slot;
        if slot >= g.slots {
            return None; // the rest of a slab behind its last slot
        }
        let guard_low = base + slab * g.stride + slot * g.slot;
        let (usable_low, top, index) = (guard_low + GUARD, guard_low + g.slot, slab * g.slots + slot);
        return Some(SlotBounds { class, guard_low, usable_low, top, index });
    }
    None
}

/// How many slots of a class can ever exist in this process. Reserves the region if that has not been done.
///
/// # Errors
/// No address space for even one slab.
pub(crate) fn capacity(class: ClassId) -> io::Result<usize> {
    let region = &REGIONS[class.index()];
    if region.base.load(Ordering::Acquire) == 0 {
        reserve(class, &lock(region))?;
    }
    Ok(region.slots.load(Ordering::Relaxed))
}

/// Slots in slabs that pools hold, whether in use or not.
pub(crate) fn committed(class: ClassId) -> usize {
    let region = &REGIONS[class.index()];
    let free = lock(region).len();
    region.grown.load(Ordering::Relaxed).saturating_sub(free) * class.geometry().slots
}

/// A slab for the caller alone: a retired one, else a new one at the end of the region.
///
/// # Errors
/// The region is full, the memory is refused, or guards would need more mappings than there may be.
pub(crate) fn acquire(class: ClassId) -> io::Result<Slab> {
    let mode = GuardMode::current()?;
    let region = &REGIONS[class.index()];
    let g = class.geometry();
    let slots = match mode {
        GuardMode::Madvise => g.slots,
        GuardMode::Mprotect => match guard::charge(g.slots) {
            0 => return Err(guard::no_mappings(guard::mappings() / 2)),
            granted => granted,
        },
    };
    let opened = pick(class, region, mode).and_then(|index| {
        let slab = Slab {
            class,
            index,
            slots: slots as u8,
            base: region.base.load(Ordering::Relaxed) + index as usize * g.stride,
        };
        match open(&slab, mode) {
            Ok(()) => Ok(slab),
            Err(error) => {
                clean(slab, mode);
                Err(refused(class, mode, &error))
            }
        }
    });
    if opened.is_err() && mode == GuardMode::Mprotect {
        guard::refund(slots);
    }
    opened
}

/// Takes a slab back: its memory and page tables return to the system, its place is used again before the region grows.
///
/// None of its slots may be in use.
pub(crate) fn retire(slab: Slab) {
    // A slab exists, so the mode was decided without an error.
    let mode = GuardMode::current().unwrap_or(GuardMode::Mprotect);
    let slots = usize::from(slab.slots);
    if clean(slab, mode) && mode == GuardMode::Mprotect {
        guard::refund(slots);
    }
}

/// A slab nobody owns, open as a whole if the mode wants that, its guards not yet in place.
fn pick(class: ClassId, region: &Region, mode: GuardMode) -> io::Result<u32> {
    let mut free = lock(region);
    reserve(class, &free)?;
    if let Some(index) = free.pop() {
        return Ok(index);
    }
    let g = class.geometry();
    let index = region.grown.load(Ordering::Relaxed);
    if (index + 1) * g.slots > region.slots.load(Ordering::Relaxed) {
        return Err(full(class, region.slots.load(Ordering::Relaxed)));
    }
    if mode == GuardMode::Madvise && !cfg!(miri) {
        let base = region.base.load(Ordering::Relaxed) + index * g.stride;
        // SAFETY: the slab lies in our reservation, and slabs from `grown` on belong to nobody.
        unsafe { mem::protect(base, g.stride, Access::ReadWrite) }.map_err(|error| refused(class, mode, &error))?;
    }
    region.grown.store(index + 1, Ordering::Release);
    Ok(index as u32)
}

/// Puts every guard of a slab in place and opens its slots.
fn open(slab: &Slab, mode: GuardMode) -> io::Result<()> {
    if cfg!(miri) {
        return Ok(());
    }
    let g = slab.class.geometry();
    match mode {
        // SAFETY: the slab is ours alone and none of its slots is in use.
        GuardMode::Madvise => unsafe { mem::install_guards(slab.base, GUARD, g.slot, usize::from(slab.slots)) },
        GuardMode::Mprotect => (0..usize::from(slab.slots)).try_for_each(|slot| {
            // SAFETY: the slab is ours alone; this gives access, the guards stay closed as the region was reserved.
            unsafe { mem::protect(slab.base + slot * g.slot + GUARD, g.usable, Access::ReadWrite) }
        }),
    }
}

/// Empties a slab and puts it on the free list. False if the system refused: then nobody may ever use it again.
fn clean(slab: Slab, mode: GuardMode) -> bool {
    let stride = slab.class.geometry().stride;
    if !cfg!(miri) {
        let access = match mode {
            // Still open: closing it would split the region's one open mapping in three.
            GuardMode::Madvise => Access::ReadWrite,
            GuardMode::Mprotect => Access::None,
        };
        // SAFETY: the slab is ours alone and none of its slots is in use.
        let emptied = unsafe {
            match (mem::remap(slab.base, stride, access), mode) {
                // The flag is what lets it merge with its neighbours again.
                (Ok(()), _) => {
                    mem::no_huge_pages(slab.base, stride);
                    true
                }
                (Err(_), GuardMode::Madvise) => mem::discard(slab.base, stride).is_ok(),
                (Err(_), GuardMode::Mprotect) => false,
            }
        };
        if !emptied {
            return false;
        }
    }
    lock(&REGIONS[slab.class.index()]).push(slab.index);
    true
}

/// Reserves the region unless that has been done; the lock is held by the caller.
fn reserve(class: ClassId, _lock: &MutexGuard<'_, Vec<u32>>) -> io::Result<()> {
    let region = &REGIONS[class.index()];
    if region.base.load(Ordering::Relaxed) != 0 {
        return Ok(());
    }
    let g = class.geometry();
    // With limited address space, leave most of it to the program.
    let most = mem::address_space_limit().map_or(MOST_BYTES, |limit| MOST_BYTES.min(limit / 4));
    let mut slabs = (most / g.stride).min(MOST_SLOTS / g.slots).max(1);
    loop {
        let len = slabs * g.stride;
        match reserve_bytes(class, len) {
            Ok(base) => {
                region.slots.store(slabs * g.slots, Ordering::Relaxed);
                region.base.store(base, Ordering::Release);
                return Ok(());
            }
            Err(_) if slabs > 1 => slabs /= 2,
            Err(error) => {
                return Err(io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    format!(
                        "no address space for stacks of {} KiB, {} MiB are needed ({error}): raise the limit (ulimit -v) or ask for smaller stacks",
                        class.kib(),
                        g.stride >> 20
                    ),
                ));
            }
        }
    }
}

fn reserve_bytes(class: ClassId, len: usize) -> io::Result<usize> {
    if cfg!(miri) {
        // Tasks have threads of their own there: addresses that nobody uses, only distinct from all others.
        return Ok((class.index() + 1) << 42);
    }
    let addr = mem::map(len + SLAB_ALIGN, Access::None)?;
    // SAFETY: the mapping was just made. Advising all of it at once spares a call, and a split, per slab.
    unsafe { mem::no_huge_pages(addr, len + SLAB_ALIGN) };
    Ok(addr.next_multiple_of(SLAB_ALIGN))
}

fn lock(region: &Region) -> MutexGuard<'_, Vec<u32>> {
    // Nothing that runs under the lock leaves the list half changed.
    region.free.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The error when every slot of a class is promised or in use.
pub(crate) fn full(class: ClassId, slots: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!(
            "all {slots} stacks of {} KiB that the address space has room for are taken: let tasks end, ask for smaller stacks or raise the limit (ulimit -v)",
            class.kib()
        ),
    )
}

fn refused(class: ClassId, mode: GuardMode, error: &io::Error) -> io::Error {
    let advice = match (mode, error.raw_os_error()) {
        (GuardMode::Madvise, Some(libc::EINVAL)) => {
            "locked memory refuses these guards; set CORO_STACK_GUARDS=mprotect or do without mlockall"
        }
        (GuardMode::Mprotect, Some(libc::ENOMEM)) => {
            "the program itself may use many mappings; raise vm.max_map_count or free memory"
        }
        _ => "free memory, lower the number of tasks (CORO_MAX_TASKS) or allow overcommit",
    };
    let text = format!("the system refused memory for stacks of {} KiB ({error}): {advice}", class.kib());
    io::Error::new(io::ErrorKind::OutOfMemory, text)
}
