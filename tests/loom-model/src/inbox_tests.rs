//! `scheduler/inbox.rs`: nothing lost, each pusher's order kept.

use std::ptr;

use loom::thread;

use crate::model::check;
use crate::shipped::inbox::{Inbox, Linked};
use crate::sys::atomic::{AtomicPtr, Ordering};

struct Item {
    link: AtomicPtr<Item>,
    pusher: usize,
    number: usize,
    /// Written before the push without an atomic: the push must publish it.
    payload: loom::cell::UnsafeCell<usize>,
}

impl Linked for Item {
    fn link(&self) -> &AtomicPtr<Item> {
        &self.link
    }
}

// SAFETY: the payload is written before the push and read after the take.
unsafe impl Send for Item {}
// SAFETY: as above.
unsafe impl Sync for Item {}

fn item(pusher: usize, number: usize) -> *mut Item {
    let link = AtomicPtr::new(ptr::null_mut());
    let item = Item { link, pusher, number, payload: loom::cell::UnsafeCell::new(0) };
    // SAFETY: not shared yet.
    item.payload.with_mut(|p| unsafe { *p = 100 * pusher + number });
    Box::into_raw(Box::new(item))
}

/// Takes what is there, frees it and notes it down.
fn drain(inbox: &Inbox<Item>, seen: &mut Vec<(usize, usize)>) {
    let mut at = inbox.take_all();
    while !at.is_null() {
        // SAFETY: taken items belong to the taker.
        let item = unsafe { Box::from_raw(at) };
        // SAFETY: the push happened before the take.
        assert_eq!(item.payload.with(|p| unsafe { *p }), 100 * item.pusher + item.number);
        at = item.link.load(Ordering::Relaxed);
        seen.push((item.pusher, item.number));
    }
}

#[test]
fn two_pushers_and_a_taker_lose_nothing_and_keep_each_pushers_order() {
    check(3, || {
        let inbox = loom::sync::Arc::new(Inbox::<Item>::new());
        let pushers: Vec<_> = (0..2)
            .map(|pusher| {
                let inbox = inbox.clone();
                thread::spawn(move || {
                    for number in 0..2 {
                        // SAFETY: the item is leaked until it is taken.
                        unsafe { inbox.push(item(pusher, number)) };
                    }
                })
            })
            .collect();
        let mut seen = Vec::new();
        drain(&inbox, &mut seen);
        drain(&inbox, &mut seen);
        pushers.into_iter().for_each(|p| p.join().unwrap());
        drain(&inbox, &mut seen);
        assert!(inbox.is_empty());
        assert_eq!(seen.len(), 4, "{seen:?}");
        for pusher in 0..2 {
            let order: Vec<_> = seen.iter().filter(|s| s.0 == pusher).map(|s| s.1).collect();
            assert_eq!(order, [0, 1], "{seen:?}");
        }
    });
}
