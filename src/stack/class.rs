//! Size classes: which stack sizes exist and how their slots lie in memory.
//!
//! Purpose: turn a wished size into a [`ClassId`], and a class into its [`Geometry`].
//! Invariants: a `ClassId` is always below [`COUNT`]; usable sizes ascend; a slot is its guard (low end) followed by its
//! usable part; a slab holds at most 64 slots and its stride is a multiple of 2 MiB, so that no page table is shared by two
//! slabs and all of a retired slab's tables go.
//! Must not know: addresses, workers, tasks.

use std::io;
use std::sync::OnceLock;

use crate::sys::mem;

/// Bytes below each stack that fault. One page is not enough: a C frame without stack probes jumps over it.
pub(crate) const GUARD: usize = 64 << 10;

/// Number of classes.
pub(crate) const COUNT: usize = USABLE_KIB.len();

/// Usable stack size when nobody asks for another.
const DEFAULT_KIB: usize = 192;

/// Doubling, with 192 KiB between: with its guard that is a power of two. From 64 KiB upwards all are multiples of the
/// largest page size in use (64 KiB on some aarch64 kernels).
const USABLE_KIB: [usize; 14] =
    [16, 32, 64, 128, DEFAULT_KIB, 256, 512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

/// Most slots of a slab: their free list is a fixed array of this length.
pub(crate) const SLAB_SLOTS: usize = 64;

const SLAB_TARGET: usize = 16 << 20;

/// Slabs begin at multiples of this: what one lowest-level page table covers.
pub(crate) const SLAB_ALIGN: usize = 2 << 20;

/// How the slots of a class lie in memory; all in bytes except `slots`.
#[derive(Debug)]
pub(crate) struct Geometry {
    /// Usable part of a slot.
    pub(crate) usable: usize,
    /// Guard and usable part.
    pub(crate) slot: usize,
    /// Slots in a slab.
    pub(crate) slots: usize,
    /// Distance between slabs.
    pub(crate) stride: usize,
}

static GEOMETRY: [Geometry; COUNT] = {
    let mut all = [const { Geometry { usable: 0, slot: 0, slots: 0, stride: 0 } }; COUNT];
    let mut i = 0;
    while i < COUNT {
        let usable = USABLE_KIB[i] << 10;
        let slot = usable + GUARD;
        let mut slots = SLAB_TARGET / slot;
        if slots < 4 {
            slots = 4;
        }
        if slots > SLAB_SLOTS {
            slots = SLAB_SLOTS;
        }
        all[i] = Geometry { usable, slot, slots, stride: (slots * slot).next_multiple_of(SLAB_ALIGN) };
        i += 1;
    }
    all
};

/// One of the sizes stacks come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClassId(u8);

impl ClassId {
    /// All classes, smallest first.
    pub(crate) fn all() -> impl Iterator<Item = ClassId> {
        (0..COUNT as u8).map(ClassId)
    }

    /// The class at a position that [`index`](Self::index) has given.
    #[inline]
    pub(crate) fn from_index(index: u8) -> ClassId {
        debug_assert!(usize::from(index) < COUNT);
        ClassId(index)
    }

    /// Position in tables of [`COUNT`] entries.
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }

    #[inline]
    pub(crate) fn geometry(self) -> &'static Geometry {
        &GEOMETRY[self.index()]
    }

    /// Usable bytes of its stacks.
    #[inline]
    pub(crate) fn usable_size(self) -> usize {
        self.geometry().usable
    }

    /// Usable KiB, for messages.
    pub(crate) fn kib(self) -> usize {
        self.usable_size() >> 10
    }
}

/// The smallest class whose stacks have at least `size` usable bytes.
///
/// # Errors
/// `InvalidInput` when `size` is zero or beyond the largest class.
pub(crate) fn class_for(size: usize) -> io::Result<ClassId> {
    let most = USABLE_KIB[COUNT - 1];
    if size == 0 {
        return Err(invalid(format!(
            "a stack of 0 bytes holds no task: ask for {} KiB to {most} KiB, or leave the size out for the default",
            USABLE_KIB[0]
        )));
    }
    // A stack smaller than a page cannot be guarded.
    let wanted = size.max(mem::page_size());
    ClassId::all().find(|class| class.usable_size() >= wanted).ok_or_else(|| {
        invalid(format!(
            "a stack of {} KiB is more than the largest, {most} KiB: ask for less and keep large data on the heap",
            size.div_ceil(1 << 10)
        ))
    })
}

/// The class of tasks that ask for no size: `CORO_STACK_KB`, else 192 KiB. Read once per process.
///
/// # Errors
/// `InvalidInput` when the variable does not hold a usable size; the same at every call.
pub(crate) fn default_class() -> io::Result<ClassId> {
    static DEFAULT: OnceLock<Result<ClassId, String>> = OnceLock::new();
    let parsed = DEFAULT.get_or_init(|| match std::env::var_os("CORO_STACK_KB") {
        None => class_for(DEFAULT_KIB << 10).map_err(|error| error.to_string()),
        Some(text) => parse_kib(&text.to_string_lossy()),
    });
    parsed.as_ref().copied().map_err(|text| invalid(text.clone()))
}

fn parse_kib(text: &str) -> Result<ClassId, String> {
    let size = text.trim().parse::<usize>().ok().and_then(|kib| kib.checked_mul(1 << 10));
    size.and_then(|size| class_for(size).ok()).ok_or_else(|| {
        format!(
            "CORO_STACK_KB={text:?} is no usable stack size: set it to a number of KiB from 1 to {}, or unset it for {DEFAULT_KIB}",
            USABLE_KIB[COUNT - 1]
        )
    })
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_up_to_their_class() {
        for (size, kib) in
            [(1, 16), (16 << 10, 16), ((16 << 10) + 1, 32), (129 << 10, 192), (193 << 10, 256), (64 << 20, 65536)]
        {
            assert_eq!(class_for(size).unwrap().kib(), kib, "{size}");
        }
    }

    #[test]
    fn impossible_sizes_say_what_to_do() {
        for size in [0, (64 << 20) + 1, usize::MAX] {
            let error = class_for(size).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("ask for"), "{error}");
        }
    }

    #[test]
    fn geometry_is_what_slabs_rely_on() {
        for class in ClassId::all() {
            let g = class.geometry();
            assert!(g.slots >= 4 && g.slots <= SLAB_SLOTS && g.stride % SLAB_ALIGN == 0, "{g:?}");
            assert!(g.slots * g.slot <= g.stride && g.slot % (16 << 10) == 0, "{g:?}");
        }
        assert_eq!(class_for(192 << 10).unwrap().geometry().stride, 16 << 20);
    }

    #[test]
    fn the_environment_is_validated() {
        assert_eq!(parse_kib("192").unwrap().kib(), 192);
        assert_eq!(parse_kib(" 200 ").unwrap().kib(), 256);
        for bad in ["", "0", "x", "-1", "65537", "192K", "99999999999999999999"] {
            assert!(parse_kib(bad).unwrap_err().contains("set it to a number"), "{bad}");
        }
    }
}
