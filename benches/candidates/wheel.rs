//! A hierarchical timing wheel (Varghese and Lauck 1987): 7 levels of 64 slots, insert and remove in constant time.
//!
//! One tick is 2^15 ns (32.8 µs). A timer never fires before its deadline: deadlines are rounded up to a tick, so it
//! fires up to one tick late. A timer more than one level up moves down when its slot is reached, at most six times.
//!
//! The timers lie side by side in one table, linked by numbers, and whoever armed one holds a key to it. Rejected:
//! nodes in the frames of those who wait. A timer is touched at every level that it moves through, and with 100,000
//! sleeping tasks each touch was a cache and a TLB miss on another task's stack: half of all CPU time went there.

use std::mem;

const TICK_SHIFT: u32 = 15;
const LEVELS: usize = 7;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const DUE: u16 = u16::MAX;
const NONE: u32 = u32::MAX;
/// Ticks per slot of the top level are 2 to this; deadlines beyond 63 of them wait in the farthest and are placed again.
const TOP_SHIFT: u32 = SLOT_BITS * (LEVELS as u32 - 1);
/// A table of more timers than this goes back to the allocator when the last one has gone.
const KEPT: usize = 1024;

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

/// Names one timer of one wheel, also after it has fired or was removed: its place may then be another timer's, but
/// stamps are never given twice.
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
    tick: u64,
    /// 0 while the place is free.
    stamp: u64,
    action: TimerAction,
    /// The list of a slot, or of the free places (`next` alone).
    next: u32,
    prev: u32,
    place: u16,
}

/// The timers of one worker.
#[derive(Debug)]
pub(crate) struct Wheel {
    now: u64,
    len: usize,
    occupied: [u64; LEVELS],
    slots: Box<[[u32; SLOTS]; LEVELS]>,
    due: u32,
    entries: Vec<Entry>,
    free: u32,
    last_stamp: u64,
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel {
            now: 0,
            len: 0,
            occupied: [0; LEVELS],
            slots: Box::new([[NONE; SLOTS]; LEVELS]),
            due: NONE,
            entries: Vec::new(),
            free: NONE,
            last_stamp: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn entry(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    #[inline]
    fn head(&mut self, place: u16) -> &mut u32 {
        if place == DUE {
            &mut self.due
        } else {
            &mut self.slots[usize::from(place) / SLOTS][usize::from(place) % SLOTS]
        }
    }

    /// Arms a timer that fires at `deadline_ns`.
    ///
    /// # Panics
    /// With 2^32 timers pending, which is more than there can be tasks.
    pub(crate) fn insert(&mut self, deadline_ns: u64, action: TimerAction) -> TimerKey {
        self.len += 1;
        self.last_stamp += 1;
        let (stamp, tick) = (self.last_stamp, deadline_ns.div_ceil(RESOLUTION_NS));
        let entry = Entry { tick, stamp, action, next: NONE, prev: NONE, place: DUE };
        let index = if self.free == NONE {
            assert!(self.entries.len() < NONE as usize, "a worker has 2^32 timers");
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = mem::replace(self.entry(index), entry).next;
            index
        };
        self.link(index);
        TimerKey { index, stamp }
    }

    fn link(&mut self, index: u32) {
        // At most 63 slots of the top level ahead: one more would be the slot that the wheel stands in, which would be
        // emptied and filled for ever.
        let farthest = ((self.now >> TOP_SHIFT) + (SLOTS as u64 - 1)) << TOP_SHIFT;
        let tick = self.entry(index).tick.min(farthest);
        let place = if tick <= self.now {
            DUE
        } else {
            let differing = (tick ^ self.now) | (SLOTS as u64 - 1);
            let level = ((63 - differing.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
            let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
            self.occupied[level as usize] |= 1 << slot;
            (level as usize * SLOTS + slot) as u16
        };
        let first = mem::replace(self.head(place), index);
        let entry = self.entry(index);
        (entry.place, entry.prev, entry.next) = (place, NONE, first);
        if first != NONE {
            self.entry(first).prev = index;
        }
    }

    /// Whether the timer is still to fire.
    #[inline]
    pub(crate) fn is_pending(&self, key: TimerKey) -> bool {
        self.entries.get(key.index as usize).is_some_and(|e| e.stamp == key.stamp)
    }

    /// Removes the timer if it is still to fire.
    pub(crate) fn remove(&mut self, key: TimerKey) {
        if self.is_pending(key) {
            self.unlink(key.index);
        }
    }

    /// Takes a linked entry out and frees its place.
    fn unlink(&mut self, index: u32) {
        let free = self.free;
        let entry = self.entry(index);
        let (place, prev, next) = (entry.place, entry.prev, entry.next);
        (entry.stamp, entry.next) = (0, free);
        self.free = index;
        if next != NONE {
            self.entry(next).prev = prev;
        }
        if prev == NONE {
            *self.head(place) = next;
            if next == NONE && place != DUE {
                self.occupied[usize::from(place) / SLOTS] &= !(1 << (usize::from(place) % SLOTS));
            }
        } else {
            self.entry(prev).next = next;
        }
        self.len -= 1;
        if self.len == 0 && self.entries.len() > KEPT {
            (self.entries, self.free) = (Vec::new(), NONE);
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
        if self.due != NONE {
            return Some(0);
        }
        self.next_slot().map(|(tick, _, _)| tick.saturating_mul(RESOLUTION_NS))
    }

    /// Takes one timer that is due at `now_ns` and says what to do; `None` when no more is due.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<TimerAction> {
        let target = now_ns >> TICK_SHIFT;
        loop {
            if self.due != NONE {
                let index = self.due;
                let action = self.entry(index).action;
                self.unlink(index);
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

    /// Places every timer of a reached slot again: lower, or due.
    fn empty_slot(&mut self, level: usize, slot: usize) {
        let mut index = mem::replace(&mut self.slots[level][slot], NONE);
        self.occupied[level] &= !(1 << slot);
        while index != NONE {
            let next = self.entry(index).next;
            self.link(index);
            index = next;
        }
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
        let keys: Vec<_> = deadlines.iter().enumerate().map(|(i, d)| wheel.insert(*d, action(i as u64))).collect();
        let mut removed = vec![false; keys.len()];
        for i in (0..keys.len()).step_by(3) {
            wheel.remove(keys[i]);
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
        const SPAN_NS: u64 = RESOLUTION_NS << (TOP_SHIFT + SLOT_BITS);
        // Wherever the wheel stands: just begun, a while later, in the middle of a top slot, in later turns.
        for start in [0, 1_000_000, SPAN_NS / 128, SPAN_NS / 64, SPAN_NS - 1, SPAN_NS + 12_345_678, 3 * SPAN_NS / 2] {
            let mut wheel = Wheel::new();
            wheel.insert(start, action(0));
            assert!(wheel.pop_due(start + RESOLUTION_NS).is_some());
            let key = wheel.insert(u64::MAX, action(1));
            for now in [start + RESOLUTION_NS, start + SPAN_NS / 64, start + SPAN_NS, start + 3 * SPAN_NS] {
                assert_eq!(wheel.pop_due(now), None);
                assert!(wheel.next_ns().is_some_and(|next| next > now), "the next look lies ahead of {now}");
            }
            assert!(wheel.is_pending(key));
            wheel.remove(key);
            assert!(wheel.is_empty() && wheel.next_ns().is_none());
        }
    }

    #[test]
    fn a_key_outlives_its_timer_and_never_names_another() {
        let mut wheel = Wheel::new();
        let fired = wheel.insert(1, action(1));
        assert_eq!(wheel.pop_due(RESOLUTION_NS), Some(action(1)));
        let removed = wheel.insert(RESOLUTION_NS * 9, action(2));
        wheel.remove(removed);
        let pending = wheel.insert(RESOLUTION_NS * 9, action(3));
        assert_eq!((fired.index, removed.index), (pending.index, pending.index), "the place is used again");
        for old in [fired, removed, TimerKey::NONE] {
            assert!(!wheel.is_pending(old));
            wheel.remove(old);
        }
        assert!(wheel.is_pending(pending));
        assert_eq!(wheel.pop_due(RESOLUTION_NS * 9), Some(action(3)));
    }

    #[test]
    fn the_table_of_a_burst_is_given_back() {
        let mut wheel = Wheel::new();
        let keys: Vec<_> = (0..2 * KEPT as u64).map(|i| wheel.insert(i * RESOLUTION_NS, action(i))).collect();
        keys.iter().rev().for_each(|key| wheel.remove(*key));
        assert_eq!((wheel.len, wheel.entries.capacity()), (0, 0));
        assert_eq!(wheel.due, NONE);
        assert!(wheel.occupied.iter().all(|bits| *bits == 0));
        let again = wheel.insert(u64::MAX, action(7));
        assert!(wheel.is_pending(again) && !wheel.is_pending(keys[0]));
    }
}
