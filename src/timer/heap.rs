//! A 4-ary heap of deadlines that knows where each timer lies, so that one can be removed before it fires.
//!
//! Three tables side by side: the heap itself (deadline and place, 16 bytes, four children to a cache line), where in
//! the heap each place lies, and what each place stands for. Sifting touches the first two only. Rejected, both measured
//! (`benches/timer_structures.rs`): a hierarchical timing wheel, whose timers move down level by level and miss the cache
//! each time; nodes in the frames of those who wait, where each touch is a cache and a TLB miss on another task's stack.
//!
//! A heap of 100,000 timers no longer lies in the caches near the CPU, so from [`CROWD`] timers on those of the next second
//! lie unsorted in buckets of a millisecond each, and come to the heap together, when the first of their bucket may be next.
//! The order in which timers fire, and the time, is the heap's alone.

use std::mem;

const NONE: u32 = u32::MAX;
/// Children of a node.
const ARITY: usize = 4;
/// Tables of more timers than this go back to the allocator when the last one has gone.
const KEPT: usize = 1024;
/// While the heap holds fewer timers than this, everything goes there.
const CROWD: usize = 1024;
/// A bucket is for 2^20 ns.
const BUCKET_BITS: u32 = 20;
/// How many buckets there are.
const BUCKETS: usize = 1024;
/// Most timers of a bucket; more go to the heap.
const BUCKET_MOST: usize = 1 << 21;
/// An emptied bucket keeps room for at most so many.
const BUCKET_KEPT: usize = 256;
/// In a timer's place: it lies in a bucket, whose number follows, then the position there.
const IN_BUCKET: u32 = 1 << 31;
/// No timer lies in a bucket.
const NEVER: u64 = u64::MAX;

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
    /// By index: where in the heap or in the buckets the timer lies; of a free place, the next free one.
    places: Vec<u32>,
    entries: Vec<Entry>,
    free: u32,
    last_stamp: u64,
    /// A ring: the bucket for a tick (a deadline's bits above [`BUCKET_BITS`]) is the one of its remainder. Without buckets until
    /// there is a crowd.
    buckets: Vec<Vec<Node>>,
    /// Which are not empty.
    occupied: [u64; BUCKETS / 64],
    /// The ticks of all timers in buckets are from here on, and less than [`BUCKETS`] further.
    first_tick: u64,
    /// No timer in a bucket is due before; [`NEVER`] if there is none.
    buckets_from: u64,
}

impl Timers {
    pub(crate) const fn new() -> Timers {
        Timers {
            heap: Vec::new(),
            places: Vec::new(),
            entries: Vec::new(),
            free: NONE,
            last_stamp: 0,
            buckets: Vec::new(),
            occupied: [0; BUCKETS / 64],
            first_tick: 0,
            buckets_from: NEVER,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty() && self.buckets_from == NEVER
    }

    /// Arms a timer that fires at `deadline`.
    ///
    /// # Panics
    /// With 2^31 timers pending, which is more than there can be tasks.
    pub(crate) fn insert(&mut self, deadline: u64, action: TimerAction) -> TimerKey {
        self.last_stamp += 1;
        let (stamp, entry) = (self.last_stamp, Entry { stamp: self.last_stamp, action });
        let index = self.free;
        let index = if index == NONE {
            assert!(self.entries.len() < IN_BUCKET as usize, "a worker has 2^31 timers");
            self.entries.push(entry);
            self.places.push(NONE);
            (self.entries.len() - 1) as u32
        } else {
            self.free = self.places[index as usize];
            self.entries[index as usize] = entry;
            index
        };
        let node = Node { deadline, index };
        if self.heap.len() < CROWD || !self.put_in_bucket(node) {
            self.put_in_heap(node);
        }
        TimerKey { index, stamp }
    }

    fn put_in_heap(&mut self, node: Node) {
        self.heap.push(node);
        self.rise(self.heap.len() - 1, node);
    }

    /// Whether there is a bucket for it. The heap is not empty.
    fn put_in_bucket(&mut self, node: Node) -> bool {
        let tick = node.deadline >> BUCKET_BITS;
        if self.buckets_from == NEVER {
            self.first_tick = (self.heap[0].deadline >> BUCKET_BITS) + 1;
            self.buckets.resize_with(BUCKETS, Vec::new);
        }
        if tick.wrapping_sub(self.first_tick) >= BUCKETS as u64 {
            return false;
        }
        let which = tick as usize % BUCKETS;
        let bucket = &mut self.buckets[which];
        if bucket.len() == BUCKET_MOST {
            return false;
        }
        self.places[node.index as usize] = IN_BUCKET | (which * BUCKET_MOST + bucket.len()) as u32;
        bucket.push(node);
        self.occupied[which / 64] |= 1 << (which % 64);
        self.buckets_from = self.buckets_from.min(tick << BUCKET_BITS);
        true
    }

    /// Moves the timers of the first bucket to the heap. There is one.
    #[cold]
    #[inline(never)]
    fn empty_bucket(&mut self) {
        let tick = self.buckets_from >> BUCKET_BITS;
        let which = tick as usize % BUCKETS;
        let mut bucket = mem::take(&mut self.buckets[which]);
        bucket.drain(..).for_each(|node| self.put_in_heap(node));
        if bucket.capacity() <= BUCKET_KEPT {
            self.buckets[which] = bucket;
        }
        self.first_tick = tick + 1;
        self.is_emptied(which);
    }

    /// A bucket has become empty.
    fn is_emptied(&mut self, which: usize) {
        self.occupied[which / 64] &= !(1 << (which % 64));
        let first = self.first_tick as usize % BUCKETS;
        let words = self.occupied.len();
        // Once around, from the first bucket's word to the same again: there, what lies before the first is the last.
        let next = (0..=words).find_map(|k| {
            let at = (first / 64 + k) % words;
            let from_first = u64::MAX << (first % 64);
            let word = self.occupied[at]
                & match k {
                    0 => from_first,
                    _ if k == words => !from_first,
                    _ => u64::MAX,
                };
            (word != 0).then(|| at * 64 + word.trailing_zeros() as usize)
        });
        self.buckets_from = next.map_or(NEVER, |which| {
            let further = which.wrapping_sub(first) % BUCKETS;
            (self.first_tick + further as u64) << BUCKET_BITS
        });
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
        if !self.is_pending(key) {
            return;
        }
        let place = self.places[key.index as usize];
        if place & IN_BUCKET == 0 {
            return self.take(place as usize);
        }
        self.set_free(key.index);
        let place = (place & !IN_BUCKET) as usize;
        let (which, at) = (place / BUCKET_MOST, place % BUCKET_MOST);
        let bucket = &mut self.buckets[which];
        bucket.swap_remove(at);
        if let Some(moved) = bucket.get(at) {
            self.places[moved.index as usize] = IN_BUCKET | place as u32;
        } else if bucket.is_empty() {
            self.is_emptied(which);
        }
        self.give_back_if_empty();
    }

    /// The earliest deadline; `None` without timers.
    pub(crate) fn next_ns(&mut self) -> Option<u64> {
        while self.buckets_from != NEVER && self.heap.first().is_none_or(|n| n.deadline >= self.buckets_from) {
            self.empty_bucket();
        }
        self.heap.first().map(|n| n.deadline)
    }

    /// When to wake up for timers: for the earliest; where at least `many` fall due within `gather` of it, for the last of those.
    /// Looks at the top of the heap only, where nearly all of the next lie: it may count some too few.
    pub(crate) fn next_gathered_ns(&mut self, gather: u64, many: usize) -> Option<u64> {
        const TOP: usize = 1 + ARITY + ARITY * ARITY;
        let next = self.next_ns()?;
        let until = next.saturating_add(gather);
        let near = self.heap.iter().take(TOP).map(|n| n.deadline).filter(|deadline| *deadline <= until);
        let (count, last) = near.fold((0, next), |(count, last), deadline| (count + 1, last.max(deadline)));
        Some(if count >= many { last } else { next })
    }

    /// Takes one timer that is due at `now` and says what to do; `None` when no more is due.
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<TimerAction> {
        while self.buckets_from <= now && self.buckets_from != NEVER {
            self.empty_bucket();
        }
        let first = *self.heap.first()?;
        if first.deadline > now {
            return None;
        }
        let action = self.entries[first.index as usize].action;
        self.take(0);
        Some(action)
    }

    fn set_free(&mut self, index: u32) {
        self.entries[index as usize].stamp = 0;
        self.places[index as usize] = mem::replace(&mut self.free, index);
    }

    fn give_back_if_empty(&mut self) {
        if self.is_empty() && self.entries.len() > KEPT {
            (self.heap, self.places, self.entries, self.free) = (Vec::new(), Vec::new(), Vec::new(), NONE);
            self.buckets = Vec::new();
        }
    }

    /// Takes the node at `at` out and frees its place.
    fn take(&mut self, at: usize) {
        self.set_free(self.heap[at].index);
        let Some(last) = self.heap.pop() else { return };
        if at < self.heap.len() {
            if at > 0 && self.heap[(at - 1) / ARITY].deadline > last.deadline {
                self.rise(at, last);
            } else {
                self.sink(at, last);
            }
        } else {
            self.give_back_if_empty();
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

    /// Against a model, with so many timers that most lie in buckets; of a few milliseconds and of many seconds, in jumps
    /// of the clock from nothing to several times around the ring.
    #[test]
    fn a_crowd_fires_in_order_never_early_never_late_and_never_when_removed() {
        let mut rng = 0x2545_f491_4f6c_dd1du64;
        let mut random = move |below: u64| {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            rng % below
        };
        let most = if cfg!(miri) { 3 } else { 8 } * CROWD;
        let (mut timers, mut model) = (Timers::new(), std::collections::BTreeMap::new());
        let (mut keys, mut now, mut id, mut in_buckets) = (Vec::new(), 0u64, 0u64, 0usize);
        for round in 0..if cfg!(miri) { 20 } else { 200 } {
            let wanted = if round % 10 == 9 { 0 } else { random(most as u64) as usize };
            let at_end = model.is_empty();
            while model.len() < wanted {
                let far = [1 << 18, 1 << 24, 1 << 30, 1 << 33][random(4) as usize];
                // In some rounds all of those in buckets lie together at the ring's end.
                let far = if at_end { [1 << 18, (1 << 30) - random(1 << 25)][random(2) as usize] } else { random(far) };
                let deadline = (now + far).saturating_sub(random(2) << 19);
                id += 1;
                let key = timers.insert(deadline, action(id));
                model.insert((deadline, id), key);
                keys.push((deadline, id));
            }
            in_buckets = in_buckets.max(timers.buckets.iter().map(Vec::len).sum());
            for _ in 0..random(most as u64 / 4).min(keys.len() as u64) {
                let name = keys.swap_remove(random(keys.len() as u64) as usize);
                // Some have fired already.
                let key = model.remove(&name);
                key.into_iter().for_each(|key| timers.remove(key));
            }
            let jump = [1 << 10, 1 << 17, 1 << 22, 1 << 32][random(4) as usize];
            now += random(jump);
            if wanted == 0 {
                now += 1 << 40;
            }
            loop {
                let next = model.first_key_value().map(|((deadline, _), _)| *deadline);
                if random(2) == 0 {
                    assert_eq!(timers.next_ns(), next);
                }
                let Some(fired) = timers.pop_due(now) else {
                    assert!(next.is_none_or(|at| at > now), "late");
                    break;
                };
                let at = next.expect("a timer that is in the model");
                assert!(at <= now, "early");
                let key = model.remove(&(at, fired.id)).expect("the earliest one");
                assert!(!timers.is_pending(key));
            }
            assert_eq!(timers.is_empty(), model.is_empty());
            if model.is_empty() {
                keys.clear();
            }
        }
        assert!(in_buckets > CROWD, "the buckets were not used");
    }

    #[test]
    fn a_wake_up_is_put_off_only_for_those_that_follow_closely() {
        let mut timers = Timers::new();
        assert_eq!(timers.next_gathered_ns(80, 4), None);
        for (deadline, wake) in [(1000, 1000), (1080, 1000), (1040, 1000), (1081, 1000), (1060, 1080), (1075, 1080)] {
            timers.insert(deadline, action(deadline));
            assert_eq!(timers.next_gathered_ns(80, 4), Some(wake), "with {deadline}");
        }
        // All at once: nothing would come of waiting.
        let mut timers = Timers::new();
        (0..100).for_each(|i| _ = timers.insert(7, action(i)));
        assert_eq!(timers.next_gathered_ns(80, 4), Some(7));
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
