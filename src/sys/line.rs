//! Cache lines: what several CPUs write must not lie beside what others read all the time.

use std::ops::Deref;

/// A value alone on its cache lines. Two of them, because CPUs fetch lines by pairs.
///
/// `[Line<()>; 0]` before a field of a `repr(C)` structure takes no room but lets the field begin a line.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Line<T>(T);

impl<T> Line<T> {
    pub(crate) const fn new(value: T) -> Line<T> {
        Line(value)
    }
}

impl<T> Deref for Line<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}
