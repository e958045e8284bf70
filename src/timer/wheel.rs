//! A hierarchical timing wheel (Varghese and Lauck 1987): 7 levels of 64 slots, insert and remove in constant time.
//!
//! One tick is 2^15 ns (32.8 µs). A timer never fires before its deadline: deadlines are rounded up to a tick, so it
//! fires up to one tick late. A node more than one level up moves down when its slot is reached, at most six times.

use std::cell::Cell;
use std::ptr;

const TICK_SHIFT: u32 = 15;
const LEVELS: usize = 7;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const UNLINKED: u16 = u16::MAX;
const DUE: u16 = u16::MAX - 1;
/// The largest distance that the levels span; farther deadlines wait in the last slot and are placed again.
const SPAN: u64 = 1 << (SLOT_BITS * LEVELS as u32);

/// How fine the wheel is, in nanoseconds.
pub(crate) const RESOLUTION_NS: u64 = 1 << TICK_SHIFT;

/// What firing means: data for the scheduler, opaque here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimerAction {
    /// Which task, as the scheduler knows it.
    pub(crate) task: *const (),
    pub(crate) id: u64,
    /// Null: just wake. Else: the scope that has expired.
    pub(crate) scope: *const (),
}

/// One timer, in the frame of the task that waits.
#[derive(Debug)]
pub(crate) struct TimerNode {
    tick: Cell<u64>,
    next: Cell<*const TimerNode>,
    prev: Cell<*const TimerNode>,
    place: Cell<u16>,
    action: Cell<TimerAction>,
}

impl TimerNode {
    pub(crate) fn new(action: TimerAction) -> TimerNode {
        TimerNode {
            tick: Cell::new(0),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
            place: Cell::new(UNLINKED),
            action: Cell::new(action),
        }
    }

    /// For a node whose action is set before it is linked.
    pub(crate) fn unarmed() -> TimerNode {
        TimerNode::new(TimerAction { task: ptr::null(), id: 0, scope: ptr::null() })
    }

    pub(crate) fn set_action(&self, action: TimerAction) {
        self.action.set(action);
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.place.get() != UNLINKED
    }
}

/// The timers of one worker.
#[derive(Debug)]
pub(crate) struct Wheel {
    now: u64,
    len: usize,
    occupied: [u64; LEVELS],
    slots: Box<[[*const TimerNode; SLOTS]; LEVELS]>,
    due: *const TimerNode,
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel {
            now: 0,
            len: 0,
            occupied: [0; LEVELS],
            slots: Box::new([[ptr::null(); SLOTS]; LEVELS]),
            due: ptr::null(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn head(&mut self, place: u16) -> &mut *const TimerNode {
        if place == DUE {
            &mut self.due
        } else {
            &mut self.slots[usize::from(place) / SLOTS][usize::from(place) % SLOTS]
        }
    }

    /// Links `node` to fire at `deadline_ns`.
    ///
    /// # Safety
    /// The node is unlinked, stays where it is, and is removed (or has fired) before its memory ends.
    pub(crate) unsafe fn insert(&mut self, node: &TimerNode, deadline_ns: u64) {
        debug_assert!(!node.is_linked());
        node.tick.set(deadline_ns.div_ceil(RESOLUTION_NS));
        self.len += 1;
        // SAFETY: forwarded.
        unsafe { self.link(node) };
    }

    /// # Safety
    /// As for `insert`.
    unsafe fn link(&mut self, node: &TimerNode) {
        let tick = node.tick.get().min(self.now.saturating_add(SPAN - 1));
        let place = if tick <= self.now {
            DUE
        } else {
            let differing = (tick ^ self.now) | (SLOTS as u64 - 1);
            let level = ((63 - differing.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
            let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
            self.occupied[level as usize] |= 1 << slot;
            (level as usize * SLOTS + slot) as u16
        };
        let head = self.head(place);
        let first = *head;
        *head = node;
        node.place.set(place);
        node.prev.set(ptr::null());
        node.next.set(first);
        if !first.is_null() {
            // SAFETY: linked nodes are alive by the promise made at `insert`.
            unsafe { (*first).prev.set(node) };
        }
    }

    /// Unlinks `node` if it is linked.
    pub(crate) fn remove(&mut self, node: &TimerNode) {
        let place = node.place.get();
        if place == UNLINKED {
            return;
        }
        self.len -= 1;
        node.place.set(UNLINKED);
        let (prev, next) = (node.prev.get(), node.next.get());
        if !next.is_null() {
            // SAFETY: linked nodes are alive by the promise made at `insert`.
            unsafe { (*next).prev.set(prev) };
        }
        if prev.is_null() {
            *self.head(place) = next;
            if next.is_null() && place != DUE {
                self.occupied[usize::from(place) / SLOTS] &= !(1 << (usize::from(place) % SLOTS));
            }
        } else {
            // SAFETY: as above.
            unsafe { (*prev).next.set(next) };
        }
    }

    /// The next slot to look at: its first tick, level and index.
    fn next_slot(&self) -> Option<(u64, usize, usize)> {
        (0..LEVELS).find(|&l| self.occupied[l] != 0).map(|level| {
            let shift = level as u32 * SLOT_BITS;
            let here = (self.now >> shift) as u32 % SLOTS as u32;
            let ahead = self.occupied[level].rotate_right(here).trailing_zeros();
            let slot = (here + ahead) as usize % SLOTS;
            // The wheel turns at most once: a slot behind `here` belongs to the next turn of this level.
            let turn = self.now >> shift >> SLOT_BITS << SLOT_BITS;
            let mut first = (turn + slot as u64) << shift;
            if (slot as u32) < here {
                first += (SLOTS as u64) << shift;
            }
            (first.max(self.now), level, slot)
        })
    }

    /// Nanoseconds of the timer clock at which `pop_due` may next have something; `None` without timers.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        if !self.due.is_null() {
            return Some(0);
        }
        self.next_slot().map(|(tick, _, _)| tick.saturating_mul(RESOLUTION_NS))
    }

    /// Unlinks one timer that is due at `now_ns` and says what to do; `None` when no more is due.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<TimerAction> {
        let target = now_ns >> TICK_SHIFT;
        loop {
            if !self.due.is_null() {
                // SAFETY: linked nodes are alive by the promise made at `insert`.
                let node = unsafe { &*self.due };
                let action = node.action.get();
                self.remove(node);
                return Some(action);
            }
            match self.next_slot() {
                Some((tick, level, slot)) if tick <= target => {
                    self.now = self.now.max(tick);
                    self.empty_slot(level, slot);
                }
                _ => {
                    self.now = self.now.max(target);
                    return None;
                }
            }
        }
    }

    /// Places every node of a reached slot again: lower, or due.
    fn empty_slot(&mut self, level: usize, slot: usize) {
        let mut node = std::mem::replace(&mut self.slots[level][slot], ptr::null());
        self.occupied[level] &= !(1 << slot);
        while !node.is_null() {
            // SAFETY: as in `pop_due`; the link is read before the node is linked elsewhere.
            unsafe {
                let next = (*node).next.get();
                self.link(&*node);
                node = next;
            }
        }
    }
}

impl Drop for Wheel {
    fn drop(&mut self) {
        // A worker that left tasks behind leaves their nodes linked; nobody will look at them again.
        self.due = ptr::null();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> Box<TimerNode> {
        Box::new(TimerNode::new(TimerAction { task: ptr::null(), id, scope: ptr::null() }))
    }

    #[test]
    fn fires_in_order_never_early_and_at_most_a_tick_late() {
        let mut rng = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            rng
        };
        let mut wheel = Wheel::new();
        let mut now = 123_456_789;
        wheel.pop_due(now);
        let deadlines: Vec<u64> = (0..2000).map(|i| now + (random() % (1 << (10 + i % 35)))).collect();
        let nodes: Vec<_> = (0..deadlines.len()).map(|i| node(i as u64)).collect();
        for (n, d) in nodes.iter().zip(&deadlines) {
            // SAFETY: boxed, and the wheel is emptied below.
            unsafe { wheel.insert(n, *d) };
        }
        let mut removed = vec![false; nodes.len()];
        for i in (0..nodes.len()).step_by(3) {
            wheel.remove(&nodes[i]);
            removed[i] = true;
        }
        let mut fired = 0;
        while !wheel.is_empty() {
            let next = wheel.next_ns().expect("not empty");
            now = now.max(next);
            while let Some(a) = wheel.pop_due(now) {
                let d = deadlines[a.id as usize];
                assert!(!removed[a.id as usize], "a removed timer fired");
                assert!(d <= now, "fired {} ns early", d - now);
                assert!(now - d <= 2 * RESOLUTION_NS || d < 123_456_789 + RESOLUTION_NS, "{} ns late", now - d);
                fired += 1;
            }
        }
        assert_eq!(fired, removed.iter().filter(|r| !**r).count());
    }

    #[test]
    fn a_deadline_beyond_the_span_waits() {
        let mut wheel = Wheel::new();
        let n = node(1);
        // SAFETY: removed below.
        unsafe { wheel.insert(&n, u64::MAX) };
        assert_eq!(wheel.pop_due(SPAN * RESOLUTION_NS * 3), None);
        assert!(n.is_linked());
        wheel.remove(&n);
        assert!(wheel.is_empty() && wheel.next_ns().is_none());
    }
}
