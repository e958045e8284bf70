//! A slice that was longer than its threshold, as its worker tells of it: plain words, so that telling takes no lock.

#![forbid(unsafe_code)]

/// What came of the task at the end of the slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum After {
    /// It waits for something.
    #[default]
    Parked,
    /// It can go on, and has been queued.
    Queued,
    /// It has ended.
    Ended,
}

/// A name, cut to what fits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShortName {
    bytes: [u8; ShortName::LONGEST],
    len: u8,
}

impl ShortName {
    const LONGEST: usize = 96;
    /// How many words hold one, its length included.
    pub(crate) const WORDS: usize = Self::LONGEST / 8 + 1;
    const NONE: u8 = u8::MAX;

    pub(crate) fn new(name: Option<&str>) -> ShortName {
        let mut short = ShortName { bytes: [0; Self::LONGEST], len: Self::NONE };
        if let Some(name) = name {
            let end = (0..=name.len().min(Self::LONGEST)).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
            short.bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
            short.len = end as u8;
        }
        short
    }

    pub(crate) fn get(&self) -> Option<&str> {
        let bytes = self.bytes.get(..usize::from(self.len))?;
        (self.len != Self::NONE).then(|| str::from_utf8(bytes).unwrap_or_default())
    }

    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        for (word, chunk) in words.iter_mut().zip(self.bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        }
        words[Self::WORDS - 1] = self.len.into();
        words
    }

    pub(crate) fn from_words(words: &[u64]) -> ShortName {
        let mut short = ShortName { bytes: [0; Self::LONGEST], len: Self::NONE };
        for (word, chunk) in words.iter().zip(short.bytes.chunks_exact_mut(8)) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        short.len = words.get(Self::WORDS - 1).map_or(Self::NONE, |w| *w as u8);
        short
    }
}

impl Default for ShortName {
    fn default() -> ShortName {
        ShortName::new(None)
    }
}

impl std::fmt::Debug for ShortName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

/// See the module's head. Times are in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Overrun {
    /// The worker's place in the process's table, and its number in its runtime.
    pub(crate) worker: u16,
    pub(crate) ordinal: u16,
    /// Which of the worker's slices it was.
    pub(crate) slice: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) threshold: u64,
    pub(crate) id: u64,
    /// Where the task's cell lies: in Shrapnel's words, what the task is "at".
    pub(crate) at: usize,
    pub(crate) after: After,
    pub(crate) name: ShortName,
}

impl Overrun {
    const PLAIN: usize = 8;
    /// How many words hold one.
    pub(crate) const WORDS: usize = Self::PLAIN + ShortName::WORDS;

    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        let places = u64::from(self.worker) | u64::from(self.ordinal) << 16;
        let after = self.after as u64;
        let plain = [places, self.slice, self.start, self.end, self.threshold, self.id, self.at as u64, after];
        words[..Self::PLAIN].copy_from_slice(&plain);
        words[Self::PLAIN..].copy_from_slice(&self.name.to_words());
        words
    }

    pub(crate) fn from_words(words: &[u64; Self::WORDS]) -> Overrun {
        let [places, slice, start, end, threshold, id, at, after, name @ ..] = words;
        Overrun {
            worker: *places as u16,
            ordinal: (*places >> 16) as u16,
            slice: *slice,
            start: *start,
            end: *end,
            threshold: *threshold,
            id: *id,
            at: *at as usize,
            after: match after {
                0 => After::Parked,
                1 => After::Queued,
                _ => After::Ended,
            },
            name: ShortName::from_words(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overrun_survives_the_way_through_words() {
        let long = format!("x{}", "ä".repeat(100));
        for name in [None, Some(""), Some("db writer"), Some(long.as_str())] {
            let o = Overrun {
                worker: 3,
                ordinal: 1,
                slice: u64::MAX,
                start: 5,
                end: 7,
                threshold: 1,
                id: 17,
                at: usize::MAX,
                after: After::Ended,
                name: ShortName::new(name),
            };
            let back = Overrun::from_words(&o.to_words());
            assert_eq!(back, o);
            let kept = name.map(|n| if n.len() > 96 { &n[..95] } else { n });
            assert_eq!(back.name.get(), kept);
        }
        for after in [After::Parked, After::Queued, After::Ended] {
            assert_eq!(Overrun::from_words(&Overrun { after, ..Default::default() }.to_words()).after, after);
        }
    }
}
