//! Numbers of debug information, one after another.
//!
//! Invariants: nothing is read beyond the end; every call that gives something moves on, so whoever reads in a loop comes to
//! an end.
//!
//! Must not know: what the numbers mean.
#![forbid(unsafe_code)]

/// A place in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at }
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// An unsigned number of 1, 2, 4 or 8 bytes.
    pub(super) fn uint(&mut self, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(size)?)?;
        let value = match size {
            1 => bytes[0].into(),
            2 => u16::from_ne_bytes(bytes.try_into().ok()?).into(),
            4 => u32::from_ne_bytes(bytes.try_into().ok()?).into(),
            8 => u64::from_ne_bytes(bytes.try_into().ok()?),
            _ => return None,
        };
        self.at += size;
        Some(value)
    }

    /// LEB128; bits beyond the 64th are lost.
    #[inline]
    pub(super) fn uleb(&mut self) -> Option<u64> {
        let first = self.u8()?;
        // Nearly all numbers are that small.
        if first < 0x80 { Some(first.into()) } else { self.long(first).map(|(value, _)| value) }
    }

    /// The same with a sign.
    #[inline]
    pub(super) fn sleb(&mut self) -> Option<i64> {
        let first = self.u8()?;
        let (value, bits) = if first < 0x80 { (first.into(), 7) } else { self.long(first)? };
        let unused = 64u32.saturating_sub(bits);
        Some((value << unused).cast_signed() >> unused)
    }

    /// The rest of a number that takes more than one byte, and how many bits it has.
    fn long(&mut self, first: u8) -> Option<(u64, u32)> {
        let (mut value, mut bits) = (u64::from(first & 0x7f), 7u32);
        loop {
            let byte = self.u8()?;
            if bits < 64 {
                value |= u64::from(byte & 0x7f) << bits;
            }
            bits = bits.saturating_add(7);
            if byte < 0x80 {
                return Some((value, bits));
            }
        }
    }

    #[inline]
    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        let at = self.at.checked_add(count)?;
        if at > self.bytes.len() {
            return None;
        }
        self.at = at;
        Some(())
    }

    #[inline]
    pub(super) fn skip_leb(&mut self) -> Option<()> {
        while self.u8()? >= 0x80 {}
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_their_ends_are_noticed() {
        let at = |bytes: &'static [u8]| Cursor::new(bytes, 0);
        assert_eq!(at(&[0x7f]).uleb(), Some(127));
        assert_eq!(at(&[0xe5, 0x8e, 0x26]).uleb(), Some(624_485));
        assert_eq!(at(&[0x7f]).sleb(), Some(-1));
        assert_eq!(at(&[0x3f]).sleb(), Some(63));
        assert_eq!(at(&[0x80, 0x7f]).sleb(), Some(-128));
        assert_eq!(at(&[0xc0, 0xbb, 0x78]).sleb(), Some(-123_456));
        let longest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Cursor::new(&longest, 0).uleb(), Some(u64::MAX));
        assert_eq!(at(&[0xff; 40]).uleb(), None);
        let mut padded = [0x80; 40];
        padded[39] = 0;
        assert_eq!((Cursor::new(&padded, 0).uleb(), Cursor::new(&padded, 0).sleb()), (Some(0), Some(0)));

        let mut bytes = Cursor::new(&[1, 2, 3], 1);
        assert_eq!(
            (bytes.skip(3), bytes.skip(usize::MAX), bytes.uint(4), bytes.uint(3), bytes.at),
            (None, None, None, None, 1)
        );
        assert_eq!(bytes.uint(2), Some(u16::from_ne_bytes([2, 3]).into()));
        assert_eq!((bytes.u8(), bytes.uleb(), bytes.skip_leb(), bytes.skip(0)), (None, None, None, Some(())));
        assert_eq!(Cursor::new(&[], usize::MAX).uint(8), None);
    }
}
