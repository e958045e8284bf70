//! A memory barrier on all threads of the process at once, paid for by the one who asks for it: `membarrier(2)`.
//!
//! For what is read all the time and changed hardly ever: who reads needs no barrier of its own, only that the compiler keeps its
//! accesses in order.
//!
//! Must not know: what is read.

/// `linux/membarrier.h`, since Linux 4.14.
#[cfg(all(target_os = "linux", not(miri)))]
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
#[cfg(all(target_os = "linux", not(miri)))]
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;

/// Says that the process will ask for it; false where it cannot be had.
pub(crate) fn register() -> bool {
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: takes two numbers and no pointer.
    return unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0) } == 0;
    #[cfg(not(all(target_os = "linux", not(miri))))]
    false
}

/// Every thread of the process has passed a full memory barrier between the beginning of this call and its end, or did not run. False if
/// that was not to be had. Some microseconds.
pub(crate) fn everywhere() -> bool {
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: takes two numbers and no pointer.
    return unsafe { libc::syscall(libc::SYS_membarrier, PRIVATE_EXPEDITED, 0, 0) } == 0;
    #[cfg(not(all(target_os = "linux", not(miri))))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_registered_can_be_had() {
        if register() {
            assert!(everywhere());
        }
    }
}
