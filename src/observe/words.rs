//! A ring of fixed-size records between one thread that writes and one that reads, without a lock.
//!
//! Invariants: one writer and one reader at a time. A record is written before the head moves past it (release) and read
//! before the tail does, so neither side ever sees half of one. What finds no room is counted, not waited for.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// `N` places for records of `W` words.
#[derive(Debug)]
pub(crate) struct WordRing<const W: usize, const N: usize> {
    head: AtomicU64,
    tail: AtomicU64,
    lost: AtomicU64,
    places: [[AtomicU64; W]; N],
}

impl<const W: usize, const N: usize> WordRing<W, N> {
    pub(crate) const fn new() -> WordRing<W, N> {
        WordRing {
            head: AtomicU64::new(0),
            tail: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            places: [const { [const { AtomicU64::new(0) }; W] }; N],
        }
    }

    /// By the writer.
    pub(crate) fn push(&self, record: &[u64; W]) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        if head - self.tail.load(Ordering::Acquire) == N as u64 {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let place = &self.places[(head % N as u64) as usize];
        place.iter().zip(record).for_each(|(word, value)| word.store(*value, Ordering::Relaxed));
        self.head.store(head + 1, Ordering::Release);
        true
    }

    /// By the reader: the oldest, which stays.
    pub(crate) fn first(&self) -> Option<[u64; W]> {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail == self.head.load(Ordering::Acquire) {
            return None;
        }
        let place = &self.places[(tail % N as u64) as usize];
        Some(std::array::from_fn(|i| place[i].load(Ordering::Relaxed)))
    }

    /// By the reader, after [`first`](WordRing::first) gave it: that one is done with.
    pub(crate) fn remove_first(&self) {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail != self.head.load(Ordering::Acquire) {
            self.tail.store(tail + 1, Ordering::Release);
        }
    }

    /// By the reader: takes the oldest.
    #[cfg(test)]
    pub(crate) fn pop(&self) -> Option<[u64; W]> {
        let record = self.first()?;
        self.remove_first();
        Some(record)
    }

    /// How many were taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// Whether everything was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.tail.load(Ordering::Acquire) == self.head.load(Ordering::Acquire)
    }

    /// How many found no room since the last question. By the reader.
    pub(crate) fn take_lost(&self) -> u64 {
        if self.lost.load(Ordering::Relaxed) == 0 { 0 } else { self.lost.swap(0, Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_whole_in_order_and_none_twice() {
        static RING: WordRing<5, 4> = WordRing::new();
        const COUNT: u64 = if cfg!(miri) { 50 } else { 20_000 };
        let writer = std::thread::spawn(|| {
            let mut refused = 0;
            for i in 0..COUNT {
                while !RING.push(&[i; 5]) {
                    refused += 1;
                    std::thread::yield_now();
                }
            }
            refused
        });
        for i in 0..COUNT {
            let record = loop {
                match RING.pop() {
                    Some(record) => break record,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(record, [i; 5]);
        }
        assert_eq!(RING.take_lost(), writer.join().unwrap());
        assert!(RING.is_empty() && RING.pop().is_none() && RING.take_lost() == 0);
    }
}
