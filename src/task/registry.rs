//! Every task cell of a runtime: chunks that are never unmapped, handed out through magazines.
//!
//! A *chunk* is 256 KiB, aligned to its size: a header and 1,365 cells. Chunks are the registry: whoever wants to see
//! every task walks them without a lock. A *magazine* is one worker's private stock of free cells; the *depot* is the
//! shared one, behind a mutex that is taken once per batch. A chunk whose cells have all come back gives its memory
//! to the system and stays mapped: it then reads as zeros, that is, as free cells.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::cell::TaskCell;
use crate::sys::mem;

const CHUNK_BYTES: usize = 256 * 1024;
const CELLS: usize = (CHUNK_BYTES - 64) / size_of::<TaskCell>();
const MAX_CHUNKS: usize = 1 << 16;
/// Chunks reserved by one mapping, so that a million tasks need a handful of mappings.
const CHUNKS_PER_MAPPING: usize = 64;
const BATCH: usize = 256;

#[repr(C, align(64))]
struct Chunk {
    /// Cells below this index have been handed out at least once; beyond it the memory was never touched.
    used: AtomicU32,
    index: u32,
    cells: [TaskCell; CELLS],
}

/// The depot's view of one chunk. Under the depot's mutex.
#[derive(Debug, Clone, Copy)]
struct Stock {
    head: *mut TaskCell,
    free: u32,
}

#[derive(Debug)]
struct Depot {
    stock: Vec<Stock>,
    /// Chunks below this index have no free cell.
    first: usize,
    mapping: *mut u8,
    mapping_left: usize,
}

// SAFETY: the raw pointers lead to chunks, which are never unmapped; access is under the mutex.
unsafe impl Send for Depot {}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Registry {
    chunks: Box<[AtomicPtr<Chunk>]>,
    len: AtomicU32,
    depot: Mutex<Depot>,
}

/// The chunk around a cell. A reference to a cell may not be stretched to what lies beside it, hence the exposed
/// pointer of `grow`.
fn chunk_of(cell: *const TaskCell) -> *mut Chunk {
    std::ptr::with_exposed_provenance_mut(cell.addr() & !(CHUNK_BYTES - 1))
}

impl Registry {
    pub(crate) fn new() -> Registry {
        let chunks = std::iter::repeat_with(|| AtomicPtr::new(std::ptr::null_mut()));
        Registry {
            chunks: chunks.take(if cfg!(miri) { 4 } else { MAX_CHUNKS }).collect(),
            len: AtomicU32::new(0),
            depot: Mutex::new(Depot { stock: Vec::new(), first: 0, mapping: std::ptr::null_mut(), mapping_left: 0 }),
        }
    }

    /// How many chunks there are.
    pub(crate) fn chunks(&self) -> usize {
        self.len.load(Ordering::Acquire) as usize
    }

    /// The cells of one chunk that were ever used.
    pub(crate) fn cells(&self, chunk: usize) -> &'static [TaskCell] {
        let p = self.chunks.get(chunk).map_or(std::ptr::null_mut(), |c| c.load(Ordering::Acquire));
        if p.is_null() {
            return &[];
        }
        // SAFETY: chunks are never unmapped and any bytes that they hold are valid cells (zero is a free cell); only
        // fields that may be read concurrently are read through this reference.
        unsafe {
            let used = (*p).used.load(Ordering::Acquire) as usize;
            std::slice::from_raw_parts((&raw const (*p).cells).cast(), used.min(CELLS))
        }
    }

    /// Takes up to `BATCH` free cells as a list linked by `next`.
    fn withdraw(&self, magazine: &mut Magazine) -> io::Result<()> {
        let mut d = self.depot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while magazine.len < BATCH {
            while d.first < d.stock.len() && d.stock[d.first].free == 0 && self.is_full(d.first) {
                d.first += 1;
            }
            if d.first == d.stock.len() {
                if magazine.len > 0 {
                    break;
                }
                self.grow(&mut d)?;
            }
            let index = d.first;
            let stock = d.stock[index];
            if stock.free > 0 {
                let cell = stock.head;
                // SAFETY: a free cell in the stock belongs to the depot.
                let next = unsafe { (*cell).next.load(Ordering::Relaxed) };
                d.stock[index] = Stock { head: next, free: stock.free - 1 };
                magazine.push(cell);
            } else {
                let chunk = self.chunks[index].load(Ordering::Relaxed);
                // SAFETY: the chunk is mapped; `used` is written under the depot's mutex only.
                unsafe {
                    let used = (*chunk).used.load(Ordering::Relaxed);
                    let cell = (&raw mut (*chunk).cells).cast::<TaskCell>().add(used as usize);
                    (*chunk).used.store(used + 1, Ordering::Release);
                    magazine.push(cell);
                }
            }
        }
        Ok(())
    }

    fn is_full(&self, index: usize) -> bool {
        let chunk = self.chunks[index].load(Ordering::Relaxed);
        // SAFETY: mapped for ever.
        unsafe { (*chunk).used.load(Ordering::Relaxed) as usize == CELLS }
    }

    fn grow(&self, d: &mut Depot) -> io::Result<()> {
        let index = d.stock.len();
        if index == self.chunks.len() {
            return Err(io::Error::new(
                io::ErrorKind::OutOfMemory,
                format!("{} tasks exist, which is the most that one runtime holds; let some end first", index * CELLS),
            ));
        }
        if d.mapping_left == 0 {
            let count = if cfg!(miri) { 1 } else { CHUNKS_PER_MAPPING };
            let len = count * CHUNK_BYTES;
            d.mapping = mem::map_aligned(len, CHUNK_BYTES).map_err(|e| {
                let text = format!(
                    "no address space for more tasks, {} KiB are needed ({e}): let tasks end or raise the limit (ulimit -v)",
                    (len + CHUNK_BYTES) >> 10
                );
                io::Error::new(e.kind(), text)
            })?;
            d.mapping_left = count;
        }
        let chunk = d.mapping.cast::<Chunk>();
        // For `chunk_of`.
        chunk.expose_provenance();
        // SAFETY: the mapping has room for `mapping_left` more chunks.
        d.mapping = unsafe { d.mapping.add(CHUNK_BYTES) };
        d.mapping_left -= 1;
        // SAFETY: fresh zeroed memory of the chunk's size and alignment.
        unsafe { (&raw mut (*chunk).index).write(index as u32) };
        d.stock.push(Stock { head: std::ptr::null_mut(), free: 0 });
        self.chunks[index].store(chunk, Ordering::Release);
        self.len.store(index as u32 + 1, Ordering::Release);
        Ok(())
    }

    /// Puts cells back; chunks that become wholly free give their memory back.
    fn deposit(&self, magazine: &mut Magazine, count: usize) {
        let mut d = self.depot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for _ in 0..count {
            let Some(cell) = magazine.pop() else { break };
            let chunk = chunk_of(cell);
            // SAFETY: every cell lies in a chunk; the free cell is the depot's from here on.
            let (index, used) = unsafe {
                let index = (*chunk).index as usize;
                (*cell).next.store(d.stock[index].head, Ordering::Relaxed);
                (index, (*chunk).used.load(Ordering::Relaxed))
            };
            d.stock[index] = Stock { head: cell, free: d.stock[index].free + 1 };
            d.first = d.first.min(index);
            if d.stock[index].free == used && used as usize == CELLS {
                self.give_back(&mut d, index, chunk);
            }
        }
    }

    fn give_back(&self, d: &mut Depot, index: usize, chunk: *mut Chunk) {
        d.stock[index] = Stock { head: std::ptr::null_mut(), free: 0 };
        // SAFETY: all cells of the chunk are free and in nobody's magazine; a walker that still reads them sees free
        // words before and zeros after, which are free words as well.
        unsafe {
            (*chunk).used.store(0, Ordering::Release);
            let cells = (&raw mut (*chunk).cells).cast::<u8>();
            let end = chunk.cast::<u8>().add(CHUNK_BYTES);
            mem::forget_contents(cells, end);
        }
    }
}

/// A private stock of free cells. Gives everything back through [`Magazine::flush`].
#[derive(Debug)]
pub(crate) struct Magazine {
    head: *mut TaskCell,
    len: usize,
}

// SAFETY: free cells belong to whoever holds the magazine.
unsafe impl Send for Magazine {}

impl Magazine {
    pub(crate) const fn new() -> Magazine {
        Magazine { head: std::ptr::null_mut(), len: 0 }
    }

    #[inline(always)]
    fn push(&mut self, cell: *mut TaskCell) {
        // SAFETY: the cell is free and now this magazine's.
        unsafe { (*cell).next.store(self.head, Ordering::Relaxed) };
        self.head = cell;
        self.len += 1;
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<*mut TaskCell> {
        if self.head.is_null() {
            return None;
        }
        let cell = self.head;
        // SAFETY: free cells in the magazine are its own.
        self.head = unsafe { (*cell).next.load(Ordering::Relaxed) };
        self.len -= 1;
        Some(cell)
    }

    /// A free cell.
    #[inline]
    pub(crate) fn take(&mut self, registry: &Registry) -> io::Result<&'static TaskCell> {
        if self.head.is_null() {
            registry.withdraw(self)?;
        }
        let cell = self.pop().expect("withdraw gives at least one cell");
        // SAFETY: type-stable memory that holds a valid free cell.
        Ok(unsafe { &*cell })
    }

    /// Takes back a cell whose word is FREE and whose name and payload were dropped.
    #[inline]
    pub(crate) fn give(&mut self, registry: &Registry, cell: &'static TaskCell) {
        debug_assert_eq!(cell.state.snapshot().id(), 0);
        self.push(std::ptr::from_ref(cell).cast_mut());
        if self.len > 4 * BATCH {
            registry.deposit(self, 2 * BATCH);
        }
    }

    /// Returns everything to the depot.
    pub(crate) fn flush(&mut self, registry: &Registry) {
        let n = self.len;
        registry.deposit(self, n);
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}
