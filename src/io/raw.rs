//! `FromRawFd` for the ends of pipes, in one place because it is unsafe by its nature.
//!
//! Must not know: what the types do with the descriptor.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

macro_rules! from_raw_fd {
    ($($end:ty),*) => {
        $(impl FromRawFd for $end {
            #[track_caller]
            unsafe fn from_raw_fd(fd: RawFd) -> $end {
                // SAFETY: the caller promises that the descriptor is open, such an end, and theirs to give.
                unsafe { OwnedFd::from_raw_fd(fd) }.into()
            }
        })*
    };
}

from_raw_fd!(super::PipeReader, super::PipeWriter);
