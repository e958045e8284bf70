//! The points of the program: a table that the linker puts together from all its crates.

#![forbid(unsafe_code)]

use crate::observe::Point;

/// Every `#[coro::probe]` and every mark. The version is a part of its name, because the linker would join the tables of two
/// versions of this crate, whose entries differ.
#[linkme::distributed_slice]
pub static CORO_POINTS_0_1: [&'static Point];

/// Those that there are.
pub(super) fn linked() -> impl Iterator<Item = &'static Point> {
    // Miri has no linker that could put the table together.
    let all: &'static [&'static Point] = if cfg!(miri) { &[] } else { CORO_POINTS_0_1.static_slice() };
    all.iter().copied().chain(super::trace::points())
}
