//! What a task is called: name, class, labels, and what else few tasks have, in one box behind the cell.
//!
//! A task's labels change while others read them. A set of labels is never changed: a new one takes its place, and the
//! old one goes when no inspection window can still reach it (see [`Label::set`]), at the latest with the task.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

/// The most labels that one task has.
pub(crate) const MOST_LABELS: usize = 16;
/// Longer keys and values are cut.
pub(crate) const LONGEST_KEY: usize = 64;
pub(crate) const LONGEST_VALUE: usize = 256;

/// Key and value, in the order in which the keys were first set.
pub(crate) type Pairs = Vec<(Box<str>, Box<str>)>;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Label {
    /// Shared with the `Thread`s that name the task.
    pub(crate) name: Option<Arc<str>>,
    pub(crate) class: Option<Box<str>>,
    /// The return addresses of the spawn, if spawn stacks are recorded.
    pub(crate) spawn_stack: Option<Box<[usize]>>,
    /// Milliseconds after which a slice of this task is a stall; 0: as the process says, `u32::MAX`: never.
    pub(crate) latency_ms: AtomicU32,
    /// Tasks that this one spawns get its labels.
    pub(crate) inherit: AtomicBool,
    /// What holds for the task and those that it spawns. Read and written by the task itself.
    #[cfg(feature = "probe")]
    pub(crate) scopes: crate::observe::Scopes,
    set: AtomicPtr<Set>,
}

#[derive(Debug)]
struct Set {
    pairs: Pairs,
    /// A set that this one replaced while somebody might be reading it.
    before: AtomicPtr<Set>,
}

fn cut(text: &str, longest: usize) -> Box<str> {
    text[..text.floor_char_boundary_(longest)].into()
}

/// `str::floor_char_boundary`, which Rust 1.88 does not have.
trait FloorCharBoundary {
    fn floor_char_boundary_(&self, at: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_(&self, at: usize) -> usize {
        (0..=at.min(self.len())).rev().find(|i| self.is_char_boundary(*i)).unwrap_or(0)
    }
}

impl Label {
    /// The labels. By the task itself, or inside its inspection window.
    pub(crate) fn pairs(&self) -> &[(Box<str>, Box<str>)] {
        let set = self.set.load(Ordering::SeqCst);
        // SAFETY: a box that was complete before its address was stored. The task itself is the only one that replaces
        // it, and it keeps what a window may have reached.
        if set.is_null() { &[] } else { unsafe { &(*set).pairs } }
    }

    /// Gives a new task the labels of another.
    pub(crate) fn start_with(&mut self, pairs: Pairs) {
        if !pairs.is_empty() {
            self.replace(pairs, || false);
        }
    }

    /// Sets one label (`None` takes it away) and returns what it was. By the task itself; `windowed` tells whether an
    /// inspection window is open. `false` in the error place means: too many labels.
    pub(crate) fn set(
        &self,
        key: &str,
        value: Option<&str>,
        windowed: impl FnOnce() -> bool,
    ) -> Result<Option<String>, ()> {
        let key = cut(key, LONGEST_KEY);
        let mut pairs: Pairs = self.pairs().to_vec();
        let old = pairs.iter().position(|(k, _)| *k == key);
        let was = old.map(|i| String::from(&*pairs[i].1));
        match (old, value) {
            (Some(i), Some(value)) => pairs[i].1 = cut(value, LONGEST_VALUE),
            (Some(i), None) => drop(pairs.remove(i)),
            (None, Some(_)) if pairs.len() == MOST_LABELS => return Err(()),
            (None, Some(value)) => pairs.push((key, cut(value, LONGEST_VALUE))),
            (None, None) => return Ok(None),
        }
        self.replace(pairs, windowed);
        Ok(was)
    }

    /// The window is opened first and the set read second; here the set is written first and the window looked for
    /// second, all of it sequentially consistent: either the reader sees the new set, or it is seen here.
    fn replace(&self, pairs: Pairs, windowed: impl FnOnce() -> bool) {
        let old = self.set.load(Ordering::Relaxed);
        let new = Box::into_raw(Box::new(Set { pairs, before: AtomicPtr::new(old) }));
        self.set.store(new, Ordering::SeqCst);
        if !windowed() {
            // SAFETY: `new` is this task's to change; nobody can reach the sets before it any more.
            unsafe { free(std::mem::replace((*new).before.get_mut(), ptr::null_mut())) };
        }
    }
}

impl Drop for Label {
    fn drop(&mut self) {
        // SAFETY: the label is the caller's alone.
        unsafe { free(*self.set.get_mut()) };
    }
}

/// Frees a set and those that it replaced.
///
/// # Safety
/// Nobody else can reach them.
unsafe fn free(mut set: *mut Set) {
    while !set.is_null() {
        // SAFETY: by the caller's promise, and every set came from `Box::into_raw`.
        let mut owned = unsafe { Box::from_raw(set) };
        set = *owned.before.get_mut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_replaced_and_taken_away_in_order() {
        let label = Label::default();
        assert_eq!(label.set("req", Some("1"), || false), Ok(None));
        assert_eq!(label.set("user", Some("ann"), || true), Ok(None));
        assert_eq!(label.set("req", Some("2"), || true), Ok(Some("1".into())));
        let shown: Vec<_> = label.pairs().iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(shown, ["req=2", "user=ann"]);
        assert_eq!(label.set("req", None, || false), Ok(Some("2".into())));
        assert_eq!(label.set("req", None, || false), Ok(None));
        assert_eq!(label.pairs().len(), 1);
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_and_what_is_too_much_refused() {
        let label = Label::default();
        assert_eq!(label.set("k", Some(&"ä".repeat(1000)), || false), Ok(None));
        assert_eq!(label.pairs()[0].1.len(), 256);
        assert_eq!(label.set("odd", Some(&format!("x{}", "ä".repeat(1000))), || false), Ok(None));
        assert_eq!(label.pairs()[1].1.len(), 255);
        for i in 2..MOST_LABELS {
            assert_eq!(label.set(&format!("k{i}"), Some(""), || false), Ok(None));
        }
        assert_eq!(label.set("one more", Some(""), || false), Err(()));
        assert_eq!(label.set("k", Some("still"), || false).unwrap().map(|v| v.len()), Some(256));
    }
}
