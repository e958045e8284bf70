//! A worker's own stacks: the free slots of the slabs it holds.
//!
//! Purpose: hand out the hottest free stack in a few nanoseconds, without atomics or system calls, and give whole idle
//! slabs back when asked to.
//! Invariants: a free slot is either on the shelf's `hot` list or in its slab's [`Node`]; for the node a hot slot counts as
//! used, so that no slab is retired under it. A node is on the `partial` list if some of its slots are free, on the `idle`
//! list if all are, and on none if none is; both lists begin with the slab used last. A slot is free at most once: handles
//! are not copied, and a node takes back only slots of its own slab.
//! Must not know: tasks, other pools.
//!
//! Partly used slabs come before idle ones, so that slabs fall idle as a whole. The hot list is bounded: with one list for
//! all free stacks, retiring a slab would have to search it for that slab's slots.

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use super::class::{self, ClassId, SLAB_SLOTS};
use super::region::{self, Slab};
use super::slot::{self, Stack};
use super::stats::PoolCounters;

const NONE: u32 = u32::MAX;

/// Most stacks on a hot list: a wave of a thousand tasks does not touch the slabs' lists.
const HOT: usize = 1024;

/// A slab and its free slots.
#[derive(Debug)]
struct Node {
    /// `None` once retired; the node then waits on the `vacant` list.
    slab: Option<Slab>,
    base: usize,
    prev: u32,
    next: u32,
    slots: u8,
    free: u8,
    /// The free slots, used last at the end.
    stack: [u8; SLAB_SLOTS],
}

/// A list of nodes, linked inside them.
#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

impl List {
    const EMPTY: List = List { head: NONE, tail: NONE };

    #[inline]
    fn push_front(&mut self, nodes: &mut [Node], i: u32) {
        nodes[i as usize].prev = NONE;
        nodes[i as usize].next = self.head;
        match self.head {
            NONE => self.tail = i,
            head => nodes[head as usize].prev = i,
        }
        self.head = i;
    }

    #[inline]
    fn unlink(&mut self, nodes: &mut [Node], i: u32) {
        let Node { prev, next, .. } = nodes[i as usize];
        match prev {
            NONE => self.head = next,
            prev => nodes[prev as usize].next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => nodes[next as usize].prev = prev,
        }
    }
}

/// One class within a pool.
#[derive(Debug)]
struct Shelf {
    /// Stacks given back last, the hottest at the end.
    hot: Vec<Stack>,
    nodes: Vec<Node>,
    partial: List,
    idle: List,
    vacant: Vec<u32>,
    /// Free slots of all nodes, without the hot ones.
    free: usize,
    /// The least that `free` was since the last look back.
    least: usize,
    /// Free slots that nobody needed between the last two looks back and that are still here.
    surplus: usize,
}

/// The stacks of one worker. `Send`, so that it can be made before its thread, but not `Sync`.
#[derive(Debug)]
pub(crate) struct StackPool {
    shelves: [Shelf; class::COUNT],
    counters: Arc<PoolCounters>,
    _not_sync: PhantomData<Cell<()>>,
}

impl StackPool {
    /// An empty pool; memory comes with the first stack.
    pub(crate) fn new() -> StackPool {
        StackPool {
            shelves: std::array::from_fn(|_| Shelf {
                hot: Vec::new(),
                nodes: Vec::new(),
                partial: List::EMPTY,
                idle: List::EMPTY,
                vacant: Vec::new(),
                free: 0,
                least: 0,
                surplus: 0,
            }),
            counters: PoolCounters::register(),
            _not_sync: PhantomData,
        }
    }

    /// A stack of a class, the one given back last where possible.
    ///
    /// # Errors
    /// No free stack, and the region has no slab to give; the text names the setting.
    #[inline]
    pub(crate) fn take(&mut self, class: ClassId) -> io::Result<Stack> {
        let shelf = &mut self.shelves[class.index()];
        let stack = match shelf.hot.pop() {
            Some(stack) => stack,
            None => shelf.take_cold(class)?,
        };
        self.counters.taken(class);
        slot::unpoison(stack.limit(), stack.slot_top());
        Ok(stack)
    }

    /// Takes a stack back. Nothing may live on it any more.
    ///
    /// A stack of another pool is never mixed in among this one's slabs; once it is no longer hot it is leaked.
    #[inline]
    pub(crate) fn give(&mut self, stack: Stack) {
        let class = stack.class();
        let shelf = &mut self.shelves[class.index()];
        if shelf.hot.len() >= HOT {
            shelf.cool_down(HOT / 2);
        }
        shelf.hot.push(stack);
        self.counters.given(class);
    }

    /// Gives one wholly idle slab, the one unused for longest, back to the system if at least `keep` free stacks of its
    /// class remain. Returns whether it did, that is, whether to call again.
    ///
    /// Takes as long as the system needs to free one slab (tens of microseconds), whatever the pool's size; the first call
    /// after a while also returns up to a thousand hot stacks to their slabs (about 10 ns each).
    pub(crate) fn trim_step(&mut self, keep: usize) -> bool {
        self.shelves.iter_mut().any(|shelf| shelf.trim_step(keep))
    }

    /// Ends a period: stacks that lay unused through all of it are what [`trim_surplus`](Self::trim_surplus) gives back.
    /// All but the `keep` hottest stacks go to their slabs, where the next period can see whether anyone wants them.
    pub(crate) fn look_back(&mut self, keep: usize) {
        for shelf in &mut self.shelves {
            shelf.surplus = shelf.least;
            shelf.cool_down(keep);
            shelf.least = shelf.free;
        }
    }

    /// As [`trim_step`](Self::trim_step), within what the last look back found.
    pub(crate) fn trim_surplus(&mut self, keep: usize) -> bool {
        self.shelves.iter_mut().any(|shelf| shelf.surplus > 0 && shelf.retire_one(keep))
    }

    /// Whether a slab lies idle that a later look back may find to be surplus.
    pub(crate) fn has_idle_slab(&self, keep: usize) -> bool {
        self.shelves.iter().any(|shelf| shelf.spare(keep).is_some())
    }

    /// Free stacks of a class held here.
    #[cfg(test)]
    pub(crate) fn free(&self, class: ClassId) -> usize {
        let shelf = &self.shelves[class.index()];
        shelf.free + shelf.hot.len()
    }
}

impl Shelf {
    /// A stack from the slab used last, or from a fresh one.
    #[inline(never)]
    fn take_cold(&mut self, class: ClassId) -> io::Result<Stack> {
        let i = match self.partial.head {
            NONE => self.open_slab(class)?,
            head => head,
        };
        let node = &mut self.nodes[i as usize];
        node.free -= 1;
        let slot = node.stack[usize::from(node.free) % SLAB_SLOTS];
        let guard_low = node.base + usize::from(slot) * class.geometry().slot;
        if node.free == 0 {
            self.partial.unlink(&mut self.nodes, i);
        }
        self.free -= 1;
        self.least = self.least.min(self.free);
        Ok(Stack::new(guard_low, class, i, slot))
    }

    /// Returns all but the `keep` hottest stacks to their slabs. At most [`HOT`] steps.
    #[inline(never)]
    fn cool_down(&mut self, keep: usize) {
        let mut hot = std::mem::take(&mut self.hot);
        let cold = hot.len().saturating_sub(keep);
        hot.drain(..cold).for_each(|stack| self.bring_home(stack));
        self.hot = hot;
    }

    fn bring_home(&mut self, stack: Stack) {
        let (class, i) = (stack.class(), stack.node());
        let Some(node) = self.nodes.get_mut(i as usize) else { return };
        if node.base + usize::from(stack.slot()) * class.geometry().slot != stack.guard_low() || node.free >= node.slots
        {
            return; // another pool's: leak it, its worker may be using its lists right now
        }
        node.stack[usize::from(node.free) % SLAB_SLOTS] = stack.slot();
        node.free += 1;
        let (free, slots) = (node.free, node.slots);
        self.free += 1;
        if free == slots {
            if free > 1 {
                self.partial.unlink(&mut self.nodes, i);
            }
            self.idle.push_front(&mut self.nodes, i);
        } else if free == 1 {
            self.partial.push_front(&mut self.nodes, i);
        } else if self.partial.head != i {
            self.partial.unlink(&mut self.nodes, i);
            self.partial.push_front(&mut self.nodes, i);
        }
    }

    /// Puts an idle slab, else a fresh one, on the `partial` list.
    #[cold]
    #[inline(never)]
    fn open_slab(&mut self, class: ClassId) -> io::Result<u32> {
        let i = match self.idle.head {
            NONE => self.acquire(class)?,
            head => {
                self.idle.unlink(&mut self.nodes, head);
                head
            }
        };
        self.partial.push_front(&mut self.nodes, i);
        Ok(i)
    }

    fn acquire(&mut self, class: ClassId) -> io::Result<u32> {
        let slab = region::acquire(class)?;
        let mut node = Node {
            base: slab.base,
            prev: NONE,
            next: NONE,
            slots: slab.slots,
            free: slab.slots,
            stack: [0; SLAB_SLOTS],
            slab: Some(slab),
        };
        // Lowest slot first.
        for (slot, place) in (0..node.slots).rev().zip(&mut node.stack) {
            *place = slot;
        }
        self.free += usize::from(node.slots);
        Ok(match self.vacant.pop() {
            Some(i) => {
                self.nodes[i as usize] = node;
                i
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        })
    }

    fn trim_step(&mut self, keep: usize) -> bool {
        self.cool_down(keep);
        self.retire_one(keep)
    }

    /// The idle slab unused for longest, if `keep` free stacks remain without it.
    fn spare(&self, keep: usize) -> Option<u32> {
        let i = self.idle.tail;
        (i != NONE && self.free + self.hot.len() >= keep + usize::from(self.nodes[i as usize].slots)).then_some(i)
    }

    fn retire_one(&mut self, keep: usize) -> bool {
        let Some(i) = self.spare(keep) else { return false };
        self.idle.unlink(&mut self.nodes, i);
        let node = &mut self.nodes[i as usize];
        self.free -= usize::from(node.slots);
        self.surplus = self.surplus.saturating_sub(node.slots.into());
        self.least = self.least.min(self.free);
        let slab = node.slab.take();
        // No handle matches a vacant node.
        (node.base, node.slots, node.free) = (0, 0, 0);
        self.vacant.push(i);
        if self.vacant.len() == self.nodes.len() {
            // After a burst the pool's own tables go as well.
            (self.nodes, self.vacant, self.hot) = (Vec::new(), Vec::new(), Vec::new());
        }
        slab.map(region::retire).is_some()
    }
}

/// Idle slabs go back; slabs with a stack still in use are leaked, since frames may live there.
impl Drop for StackPool {
    fn drop(&mut self) {
        while self.trim_step(0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::class::class_for;

    /// Classes that no other test uses, where a test counts the region's slabs.
    fn class(kib: usize) -> ClassId {
        class_for(kib << 10).unwrap()
    }

    #[test]
    fn the_stack_given_last_is_taken_first() {
        let (mut pool, class) = (StackPool::new(), class(192));
        let a = pool.take(class).unwrap();
        let b = pool.take(class).unwrap();
        let (at_a, at_b) = (a.limit(), b.limit());
        assert_ne!(at_a, at_b);
        pool.give(b);
        pool.give(a);
        let first = pool.take(class).unwrap();
        let second = pool.take(class).unwrap();
        assert_eq!((first.limit(), second.limit()), (at_a, at_b));
        pool.give(first);
        pool.give(second);
    }

    #[test]
    fn reuse_stays_in_the_slab_used_last() {
        let (mut pool, class) = (StackPool::new(), class(192));
        let mut all: Vec<_> = (0..256).map(|_| pool.take(class).unwrap()).collect();
        let (old, new) = (all.swap_remove(3), all.swap_remove(200));
        let at = new.limit();
        pool.give(old);
        pool.give(new);
        let again = pool.take(class).unwrap();
        assert_eq!(again.limit(), at);
        all.push(again);
        all.into_iter().for_each(|stack| pool.give(stack));
    }

    #[test]
    fn tops_are_aligned_coloured_and_inside() {
        let (mut pool, class) = (StackPool::new(), class(64));
        let stacks: Vec<_> = (0..32).map(|_| pool.take(class).unwrap()).collect();
        let mut seen = std::collections::HashSet::new();
        for stack in &stacks {
            let top = stack.top().addr();
            assert!(top % 16 == 0 && top <= stack.slot_top() && top > stack.limit() + stack.usable_size() / 2);
            assert_eq!(stack.slot_top() - stack.limit(), stack.usable_size());
            seen.insert(stack.slot_top() - top);
            let bounds = region::slot_of(top - 1).unwrap();
            assert_eq!((bounds.usable_low, bounds.top, bounds.class), (stack.limit(), stack.slot_top(), class));
            assert_eq!(region::slot_of(stack.limit() - 1), Some(bounds));
            assert!(bounds.in_guard(stack.limit() - 1) && !bounds.in_guard(stack.limit()));
        }
        assert_eq!(seen.len(), 16);
        assert_eq!(region::slot_of(0), None);
        assert_eq!(region::slot_of(usize::MAX), None);
        stacks.into_iter().for_each(|stack| pool.give(stack));
    }

    #[test]
    fn trim_keeps_what_is_asked_for_and_used() {
        let (mut pool, class) = (StackPool::new(), class(256));
        let slots = class.geometry().slots;
        let mut all: Vec<_> = (0..4 * slots).map(|_| pool.take(class).unwrap()).collect();
        let pinned = all.pop().unwrap();
        all.into_iter().for_each(|stack| pool.give(stack));
        assert_eq!(pool.free(class), 4 * slots - 1);
        assert!(pool.trim_step(2 * slots - 1));
        assert!(pool.trim_step(2 * slots - 1));
        assert!(!pool.trim_step(2 * slots - 1));
        assert!(pool.trim_step(0));
        assert!(!pool.trim_step(0), "a slab in use must stay");
        assert_eq!(region::committed(class), slots);
        pool.give(pinned);
        drop(pool);
        assert_eq!(region::committed(class), 0);
    }

    #[test]
    fn only_what_nobody_needed_for_a_period_is_surplus() {
        let (mut pool, class) = (StackPool::new(), class(512));
        let slots = class.geometry().slots;
        let wave = |pool: &mut StackPool, n: usize| {
            let all: Vec<_> = (0..n).map(|_| pool.take(class).unwrap()).collect();
            all.into_iter().for_each(|stack| pool.give(stack));
        };
        let trim = |pool: &mut StackPool| {
            pool.look_back(0);
            while pool.trim_surplus(0) {}
        };
        wave(&mut pool, 4 * slots);
        trim(&mut pool);
        assert_eq!(region::committed(class), 4 * slots, "used in this period");
        wave(&mut pool, slots);
        trim(&mut pool);
        assert_eq!(region::committed(class), slots, "three slabs lay idle, one was used");
        assert!(pool.has_idle_slab(0));
        trim(&mut pool);
        assert_eq!(region::committed(class), 0);
        assert!(!pool.has_idle_slab(0));
    }

    #[test]
    fn retired_slabs_are_used_before_the_region_grows() {
        let (mut pool, class) = (StackPool::new(), class(32));
        let stack = pool.take(class).unwrap();
        let at = stack.limit();
        pool.give(stack);
        assert!(pool.trim_step(0));
        let stack = pool.take(class).unwrap();
        assert_eq!(stack.limit(), at);
        pool.give(stack);
    }

    #[test]
    fn a_foreign_stack_is_leaked_not_mixed_in() {
        let (mut one, mut two, class) = (StackPool::new(), StackPool::new(), class(128));
        let (a, b) = (one.take(class).unwrap(), two.take(class).unwrap());
        let (at, free) = (a.limit(), two.free(class));
        two.give(a);
        assert!(!two.trim_step(0));
        assert_eq!(two.free(class), free);
        let rest: Vec<_> = (0..free).map(|_| two.take(class).unwrap()).collect();
        assert!(rest.iter().all(|stack| stack.limit() != at));
        rest.into_iter().for_each(|stack| two.give(stack));
        two.give(b);
        assert!(two.trim_step(0));
    }

    /// Random use against a model: no slot is ever handed out twice, all come home.
    #[test]
    fn a_slot_is_never_in_use_twice() {
        let (mut pool, class) = (StackPool::new(), class(16));
        let (mut live, mut seen) = (Vec::new(), std::collections::HashSet::new());
        let mut seed = 0x9E37_79B9_7F4A_7C15u64;
        let steps = if cfg!(miri) { 2_000 } else { 200_000 };
        for step in 0..steps {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let dice = (seed >> 33) as usize;
            // Grows to some thousands, then shrinks, again and again.
            let grow = (step / 10_000) % 2 == 0;
            if live.is_empty() || dice % 10 < if grow { 7 } else { 3 } {
                let stack = pool.take(class).unwrap();
                assert!(seen.insert(stack.limit()), "handed out twice");
                live.push(stack);
            } else {
                let stack = live.swap_remove(dice / 10 % live.len());
                seen.remove(&stack.limit());
                pool.give(stack);
            }
            if dice.is_multiple_of(997) {
                pool.trim_step(dice % 2000);
            }
        }
        live.into_iter().for_each(|stack| pool.give(stack));
        while pool.trim_step(0) {}
        assert_eq!(pool.free(class), 0);
    }

    /// Workers share the regions: their slots must never overlap, however slabs wander between them.
    #[test]
    fn workers_never_share_a_slot() {
        let class = class(512);
        let limits = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(move || {
                        let mut pool = StackPool::new();
                        for round in 1..if cfg!(miri) { 2 } else { 20 } {
                            let all: Vec<_> = (0..round * 10).map(|_| pool.take(class).unwrap()).collect();
                            all.into_iter().for_each(|stack| pool.give(stack));
                            while pool.trim_step(round) {}
                        }
                        let held: Vec<_> = (0..100).map(|_| pool.take(class).unwrap()).collect();
                        let limits: Vec<_> = held.iter().map(Stack::limit).collect();
                        (pool, held, limits)
                    })
                })
                .collect();
            // All are held until all have been collected.
            workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
        });
        let distinct: std::collections::HashSet<_> = limits.iter().flat_map(|(_, _, limits)| limits).collect();
        assert_eq!(distinct.len(), 400);
        for (mut pool, held, _) in limits {
            held.into_iter().for_each(|stack| pool.give(stack));
        }
        assert_eq!(region::committed(class), 0);
    }
}
