//! What goes from the watchdog to the scribe: everything about a stall that the scribe needs for its own line and for the
//! report, as plain words.

#![forbid(unsafe_code)]

use std::time::Duration;

use super::kernel::Verdict;
use crate::observe::{Overrun, WordRing};

/// So many return addresses are handed on, innermost first.
pub(super) const FRAMES: usize = 64;

/// The way to the scribe.
pub(super) static TO_SCRIBE: WordRing<{ Record::WORDS }, 16> = WordRing::new();

/// See the module's head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// For a stall that goes on, `end` is the time of the look.
    pub(super) slice: Overrun,
    /// Whether the slice has ended.
    pub(super) ended: bool,
    /// It is counted and remembered, but not told: there was too much else.
    pub(super) quiet: bool,
    /// Without the process's own gaps.
    pub(super) lasted: Duration,
    pub(super) cpu: Option<Duration>,
    pub(super) verdict: Verdict,
    pub(super) thread: i32,
    pub(super) behind: u64,
    pub(super) suppressed: u64,
    /// How many of `addresses` there are, and whether they lead to the task's base.
    pub(super) frames: usize,
    pub(super) whole: bool,
    pub(super) addresses: [usize; FRAMES],
}

impl Record {
    const PLAIN: usize = 9;
    pub(super) const WORDS: usize = Overrun::WORDS + Self::PLAIN + FRAMES;

    pub(super) fn new(slice: Overrun) -> Record {
        Record {
            slice,
            ended: false,
            quiet: false,
            lasted: Duration::ZERO,
            cpu: None,
            verdict: Verdict::Unknown,
            thread: 0,
            behind: 0,
            suppressed: 0,
            frames: 0,
            whole: false,
            addresses: [0; FRAMES],
        }
    }

    pub(super) fn to_words(self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        let (slice, rest) = words.split_at_mut(Overrun::WORDS);
        slice.copy_from_slice(&self.slice.to_words());
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        rest[..Self::PLAIN].copy_from_slice(&[
            u64::from(self.ended) | u64::from(self.quiet) << 1,
            ns(self.lasted),
            self.cpu.map_or(u64::MAX, ns),
            self.verdict.to_word(),
            self.thread as u64,
            self.behind,
            self.suppressed,
            self.frames.min(FRAMES) as u64,
            self.whole.into(),
        ]);
        for (word, address) in rest[Self::PLAIN..].iter_mut().zip(self.addresses) {
            *word = address as u64;
        }
        words
    }

    pub(super) fn from_words(words: &[u64; Self::WORDS]) -> Record {
        let (slice, rest) = words.split_at(Overrun::WORDS);
        let mut overrun = [0; Overrun::WORDS];
        overrun.copy_from_slice(slice);
        let mut addresses = [0; FRAMES];
        for (address, word) in addresses.iter_mut().zip(&rest[Self::PLAIN..]) {
            *address = *word as usize;
        }
        Record {
            slice: Overrun::from_words(&overrun),
            ended: rest[0] & 1 != 0,
            quiet: rest[0] & 2 != 0,
            lasted: Duration::from_nanos(rest[1]),
            cpu: (rest[2] != u64::MAX).then(|| Duration::from_nanos(rest[2])),
            verdict: Verdict::from_word(rest[3]),
            thread: rest[4] as i32,
            behind: rest[5],
            suppressed: rest[6],
            frames: (rest[7] as usize).min(FRAMES),
            whole: rest[8] != 0,
            addresses,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_way_through_words() {
        let mut record = Record::new(Overrun { id: 17, worker: 2, end: 9, ..Overrun::default() });
        assert_eq!(format!("{:?}", Record::from_words(&record.to_words())), format!("{record:?}"));
        (record.ended, record.quiet) = (true, true);
        (record.lasted, record.cpu) = (Duration::from_millis(210), Some(Duration::from_millis(3)));
        (record.verdict, record.thread, record.behind, record.suppressed) = (Verdict::Blocked(202), -1, 7, 8);
        (record.frames, record.whole) = (2, true);
        record.addresses[..2].copy_from_slice(&[usize::MAX, 1]);
        assert_eq!(format!("{:?}", Record::from_words(&record.to_words())), format!("{record:?}"));
    }
}
