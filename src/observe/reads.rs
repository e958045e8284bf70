//! Which read-write locks a task holds for reading: nobody else knows its readers one by one.
//!
//! Touched by the task itself, and read by views while it is held. A guard that one task leaves to another one of its
//! worker stays on the list of the first, so a view that finds a lock here says what was seen, and no more. When that other
//! task gives the guard up, the lock is marked.

#![forbid(unsafe_code)]

use std::cell::Cell;

use super::Object;

/// How many are told apart.
pub(crate) const MOST_READS: usize = 8;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct HeldReads {
    /// Addresses of the locks' [`Object`]s, 0 for none; the first `used` places may hold some.
    locks: [Cell<usize>; MOST_READS],
    used: Cell<u32>,
    /// Held, but not told apart.
    more: Cell<u32>,
}

impl Default for HeldReads {
    fn default() -> HeldReads {
        HeldReads::new()
    }
}

impl HeldReads {
    pub(crate) const fn new() -> HeldReads {
        HeldReads { locks: [const { Cell::new(0) }; MOST_READS], used: Cell::new(0), more: Cell::new(0) }
    }

    /// The task has just been given shared access.
    #[inline]
    pub(crate) fn push(&self, object: &Object) {
        if !super::ON {
            return;
        }
        match self.locks.get(self.used.get() as usize) {
            Some(place) => {
                place.set(std::ptr::from_ref(object).addr());
                self.used.set(self.used.get() + 1);
            }
            None => self.more.set(self.more.get() + 1),
        }
    }

    /// The task gives shared access up.
    #[inline]
    pub(crate) fn remove(&self, object: &Object) {
        if !super::ON {
            return;
        }
        let address = std::ptr::from_ref(object).addr();
        let used = self.used.get() as usize;
        // Mostly it is the last one.
        match self.locks[..used].iter().rposition(|l| l.get() == address) {
            Some(i) => {
                self.locks[i].set(self.locks[used - 1].get());
                self.locks[used - 1].set(0);
                self.used.set(used as u32 - 1);
            }
            None => match self.more.get().checked_sub(1) {
                Some(more) => self.more.set(more),
                None => object.hand_on(),
            },
        }
    }

    /// The locks' addresses, 0 for none.
    pub(crate) fn addresses(&self) -> [usize; MOST_READS] {
        std::array::from_fn(|i| self.locks[i].get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_told_apart_up_to_a_number() {
        let objects: Vec<Object> = (0..MOST_READS + 2).map(|_| Object::new()).collect();
        let held = HeldReads::new();
        let all = || held.addresses().iter().filter(|a| **a != 0).count();
        objects.iter().for_each(|o| held.push(o));
        assert_eq!(all(), MOST_READS);
        // One from the middle, those that were not told apart, the rest.
        held.remove(&objects[3]);
        assert_eq!(all(), MOST_READS - 1);
        assert!(!held.addresses().contains(&std::ptr::from_ref(&objects[3]).addr()));
        objects[MOST_READS..].iter().for_each(|o| held.remove(o));
        assert_eq!(all(), MOST_READS - 1);
        objects[..MOST_READS].iter().enumerate().filter(|(i, _)| *i != 3).for_each(|(_, o)| held.remove(o));
        assert_eq!(held.addresses(), [0; MOST_READS]);
        // The same lock twice.
        held.push(&objects[0]);
        held.push(&objects[0]);
        held.remove(&objects[0]);
        assert_eq!(all(), 1);
        // One that another task has taken.
        assert!(objects.iter().all(|o| !o.was_handed_on()));
        held.remove(&objects[1]);
        assert!(objects[1].was_handed_on() && !objects[0].was_handed_on());
    }
}
