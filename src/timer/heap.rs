//! A 4-ary heap of deadlines that knows where each timer lies, so that one can be removed before it fires.
//!
//! Three tables side by side: the heap itself (deadline and place, 16 bytes, four children to a cache line), where in
//! the heap each place lies, and what each place stands for. Sifting touches the first two only. Rejected, both measured
//! (`benches/timer_structures.rs`): a hierarchical timing wheel, whose timers move down level by level and miss the cache
//! each time; nodes in the frames of those who wait, where each touch is a cache and a TLB miss on another task's stack.

use std::mem;

const NONE: u32 = u32::MAX;
/// Children of a node.
const ARITY: usize = 4;
/// Tables of more timers than this go back to the allocator when the last one has gone.
const KEPT: usize = 1024;

/// What firing means: data for the scheduler, opaque here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimerAction {
    /// Which task, as the scheduler knows it; null: none, but a bell.
    pub(crate) task: *const (),
    pub(crate) id: u64,
    /// Null: just wake. Else: the scope that has expired, or the bell to ring.
    pub(crate) scope: *const (),
}

/// Names one timer, also after it has fired or was removed: its place may then be another timer's, but stamps are never
/// given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimerKey {
    index: u32,
    stamp: u64,
}

impl TimerKey {
    /// Names no timer.
    pub(crate) const NONE: TimerKey = TimerKey { index: NONE, stamp: 0 };
}

/// One timer, or a free place.
#[derive(Debug)]
struct Entry {
    /// 0 while the place is free.
    stamp: u64,
    action: TimerAction,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    deadline: u64,
    index: u32,
}

/// The timers of one worker. Deadlines are nanoseconds of the runtime's timer clock; a timer never fires early.
#[derive(Debug)]
pub(crate) struct Timers {
    heap: Vec<Node>,
    /// By index: where in the heap the timer lies; of a free place, the next free one.
    places: Vec<u32>,
    entries: Vec<Entry>,
    free: u32,
    last_stamp: u64,
}

impl Timers {
    pub(crate) const fn new() -> Timers {
        Timers { heap: Vec::new(), places: Vec::new(), entries: Vec::new(), free: NONE, last_stamp: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Arms a timer that fires at `deadline`.
    ///
    /// # Panics
    /// With 2^32 timers pending, which is more than there can be tasks.
    pub(crate) fn insert(&mut self, deadline: u64, action: TimerAction) -> TimerKey {
        self.last_stamp += 1;
        let (stamp, entry) = (self.last_stamp, Entry { stamp: self.last_stamp, action });
        let index = self.free;
        let index = if index == NONE {
            assert!(self.entries.len() < NONE as usize, "a worker has 2^32 timers");
            self.entries.push(entry);
            self.places.push(NONE);
            (self.entries.len() - 1) as u32
        } else {
            self.free = self.places[index as usize];
            self.entries[index as usize] = entry;
            index
        };
        let node = Node { deadline, index };
        self.heap.push(node);
        self.rise(self.heap.len() - 1, node);
        TimerKey { index, stamp }
    }

    /// Whether the timer is still to fire.
    #[inline]
    pub(crate) fn is_pending(&self, key: TimerKey) -> bool {
        self.entries.get(key.index as usize).is_some_and(|e| e.stamp == key.stamp)
    }

    /// As [`remove`](Timers::remove), with what it would have done.
    pub(crate) fn take_out(&mut self, key: TimerKey) -> Option<TimerAction> {
        let action = self.is_pending(key).then(|| self.entries[key.index as usize].action);
        self.remove(key);
        action
    }

    /// Removes the timer if it is still to fire.
    pub(crate) fn remove(&mut self, key: TimerKey) {
        if self.is_pending(key) {
            self.take(self.places[key.index as usize] as usize);
        }
    }

    /// The earliest deadline; `None` without timers.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.heap.first().map(|n| n.deadline)
    }

    /// Takes one timer that is due at `now` and says what to do; `None` when no more is due.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<TimerAction> {
        let first = *self.heap.first()?;
        if first.deadline > now {
            return None;
        }
        let action = self.entries[first.index as usize].action;
        self.take(0);
        Some(action)
    }

    /// Takes the node at `at` out and frees its place.
    fn take(&mut self, at: usize) {
        let index = self.heap[at].index;
        self.entries[index as usize].stamp = 0;
        self.places[index as usize] = mem::replace(&mut self.free, index);
        let Some(last) = self.heap.pop() else { return };
        if at < self.heap.len() {
            if at > 0 && self.heap[(at - 1) / ARITY].deadline > last.deadline {
                self.rise(at, last);
            } else {
                self.sink(at, last);
            }
        } else if self.heap.is_empty() && self.entries.len() > KEPT {
            (self.heap, self.places, self.entries, self.free) = (Vec::new(), Vec::new(), Vec::new(), NONE);
        }
    }

    #[inline]
    fn set(&mut self, at: usize, node: Node) {
        self.heap[at] = node;
        self.places[node.index as usize] = at as u32;
    }

    fn rise(&mut self, mut at: usize, node: Node) {
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.heap[parent].deadline <= node.deadline {
                break;
            }
            self.set(at, self.heap[parent]);
            at = parent;
        }
        self.set(at, node);
    }

    fn sink(&mut self, mut at: usize, node: Node) {
        loop {
            let first = ARITY * at + 1;
            let children = first..(first + ARITY).min(self.heap.len());
            match children.min_by_key(|&child| self.heap[child].deadline) {
                Some(least) if self.heap[least].deadline < node.deadline => {
                    self.set(at, self.heap[least]);
                    at = least;
                }
                _ => break,
            }
        }
        self.set(at, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    fn action(id: u64) -> TimerAction {
        TimerAction { task: ptr::null(), id, scope: ptr::null() }
    }

    #[test]
    fn fires_in_order_never_early_never_late_and_never_when_removed() {
        let mut rng = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            rng
        };
        let mut timers = Timers::new();
        let deadlines: Vec<u64> = (0..2000).map(|i| random() % (1 << (10 + i % 45))).collect();
        let keys: Vec<_> = deadlines.iter().enumerate().map(|(i, d)| timers.insert(*d, action(i as u64))).collect();
        let mut removed = vec![false; keys.len()];
        for _ in 0..700 {
            let i = random() as usize % keys.len();
            timers.remove(keys[i]);
            removed[i] = true;
        }
        let mut expected: Vec<u64> = (0..keys.len()).filter(|i| !removed[*i]).map(|i| deadlines[i]).collect();
        expected.sort_unstable();
        let mut fired = Vec::new();
        while let Some(next) = timers.next_ns() {
            assert_eq!(next.checked_sub(1).and_then(|before| timers.pop_due(before)), None, "fired early");
            let a = timers.pop_due(next).expect("due");
            assert!(!removed[a.id as usize], "a removed timer fired");
            assert!(!timers.is_pending(keys[a.id as usize]));
            fired.push(deadlines[a.id as usize]);
        }
        assert_eq!(fired, expected);
    }

    #[test]
    fn a_key_outlives_its_timer_and_never_names_another() {
        let mut timers = Timers::new();
        let first = timers.insert(5, action(1));
        assert!(timers.is_pending(first) && !timers.is_pending(TimerKey::NONE));
        assert_eq!(timers.pop_due(5), Some(action(1)));
        let second = timers.insert(u64::MAX, action(2));
        assert_ne!(first, second);
        timers.remove(first);
        assert!(timers.is_pending(second) && !timers.is_pending(first));
        timers.remove(second);
        assert!(timers.is_empty() && timers.next_ns().is_none());
    }

    #[test]
    fn the_tables_of_a_burst_are_given_back() {
        let mut timers = Timers::new();
        for i in 0..3 * KEPT as u64 {
            timers.insert(i, action(i));
        }
        while timers.pop_due(u64::MAX).is_some() {}
        assert!(timers.is_empty() && timers.entries.capacity() == 0 && timers.heap.capacity() == 0);
        let key = timers.insert(1, action(1));
        assert!(timers.is_pending(key));
    }
}
