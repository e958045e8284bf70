//! Variables that closures share.
//!
//! A closure holds the variables of its surroundings by reference, counted. What holds itself that way (`a.push(|| a)`) would
//! never be freed, and a chain of closures that hold one another would be freed by recursion, a call for each. So every
//! shared variable is held here as well until the expression has ended, and then they are emptied one after the other.
//!
//! Must not know: who evaluates what.

#![forbid(unsafe_code)]

use std::collections::HashSet;

use rhai::Dynamic;

/// The shared variables of one expression.
#[derive(Default)]
pub(super) struct Cells {
    /// Where their values lie; they stay there as long as they are held.
    known: HashSet<usize>,
    held: Vec<Dynamic>,
}

impl Cells {
    /// Holds `value` if it is shared.
    pub(super) fn note(&mut self, value: &Dynamic) {
        if !value.is_shared() {
            return;
        }
        // Who writes into it just now has got it from a variable, which was noted.
        let Some(place) = value.read_lock::<Dynamic>().map(|inner| std::ptr::from_ref::<Dynamic>(&inner).addr()) else {
            return;
        };
        if self.known.insert(place) {
            self.held.push(value.clone());
        }
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        for cell in &mut self.held {
            let held = cell.write_lock::<Dynamic>().map(|mut inner| std::mem::take(&mut *inner));
            // It may hold others, which are still held here: no further than one call deep.
            drop(held);
        }
    }
}
