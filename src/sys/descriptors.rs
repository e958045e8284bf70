//! How many descriptors the process has, and may have.
//!
//! Invariant: neither question needs a free descriptor where the kernel is at least Linux 6.2, or where it was asked once
//! while there still was one: the directory that lists them is then kept open.

use std::io;

/// How many descriptors are open, this module's own included; `None` where the system cannot be asked.
pub(crate) fn open() -> Option<usize> {
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
    return by_size().or_else(linux::by_listing);
    #[cfg(target_vendor = "apple")]
    // The listing's own descriptor is among them.
    return std::fs::read_dir("/dev/fd").ok().map(|entries| entries.count().saturating_sub(1));
    #[cfg(not(any(all(any(target_os = "linux", target_os = "android"), not(miri)), target_vendor = "apple")))]
    None
}

/// What tells one open file from others: its device and its number there. `None` if nothing is open under that number.
/// Async-signal-safe.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
pub(crate) fn identity(fd: libc::c_int) -> Option<(u64, u64)> {
    // SAFETY: plain data, which the call fills.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        #[allow(clippy::unnecessary_cast, reason = "of other types on some systems")]
        (libc::fstat(fd, &raw mut stat) == 0).then_some((stat.st_dev as u64, stat.st_ino as u64))
    }
}

/// How many the process may have open (the soft limit); `None`: without limit.
///
/// # Errors
/// Of the system.
pub(crate) fn limit() -> io::Result<Option<u64>> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    #[allow(clippy::unnecessary_cast, reason = "signed on some systems")]
    let soft = limit.rlim_cur as u64;
    Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(soft))
}

/// Since Linux 6.2 the size of the directory is their number, and asking for it opens nothing.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
fn by_size() -> Option<usize> {
    std::fs::metadata("/proc/self/fd").ok().map(|m| m.len() as usize).filter(|n| *n > 0)
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
mod linux {
    use std::fs::File;
    use std::os::fd::{AsRawFd, RawFd};
    use std::sync::{Mutex, PoisonError};

    use super::identity;

    /// The directory.
    #[derive(Debug)]
    pub(super) struct Kept {
        /// Whose descriptors it lists.
        process: u32,
        pub(super) fd: RawFd,
        /// A program that closes whatever it finds open gets the number for something of its own.
        identity: (u64, u64),
    }

    impl Kept {
        fn open(process: u32) -> Option<Kept> {
            let file = File::open("/proc/self/fd").ok()?;
            let identity = identity(file.as_raw_fd())?;
            Some(Kept { process, fd: std::os::fd::IntoRawFd::into_raw_fd(file), identity })
        }

        fn is_ours(&self) -> bool {
            identity(self.fd) == Some(self.identity)
        }

        /// Closes it, if it is still ours.
        fn give_up(self) {
            if self.is_ours() {
                // SAFETY: a descriptor of our own, which nobody else knows.
                unsafe { libc::close(self.fd) };
            }
        }
    }

    pub(super) static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

    /// Reads the directory; the descriptor for that is kept, because later there may be none.
    pub(super) fn by_listing() -> Option<usize> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let me = std::process::id();
        // A forked child has its parent's.
        if kept.as_ref().is_none_or(|kept| kept.process != me || !kept.is_ours()) {
            kept.take().into_iter().for_each(Kept::give_up);
            *kept = Some(Kept::open(me)?);
        }
        count(kept.as_ref()?.fd)
    }

    fn count(fd: RawFd) -> Option<usize> {
        // `struct linux_dirent64`: inode (8 bytes), offset (8), length of the entry (2), kind (1), name.
        const LENGTH_AT: usize = 16;
        let mut buffer = [0u8; 4096];
        // SAFETY: no pointer is passed.
        if unsafe { libc::lseek(fd, 0, libc::SEEK_SET) } != 0 {
            return None;
        }
        let mut entries = 0usize;
        loop {
            // SAFETY: the buffer has the length that is passed.
            let n = unsafe { libc::syscall(libc::SYS_getdents64, fd, buffer.as_mut_ptr(), buffer.len()) };
            match usize::try_from(n).ok()? {
                // "." and ".." are none.
                0 => return Some(entries.saturating_sub(2)),
                filled => {
                    let mut at = 0;
                    while at < filled {
                        let length = u16::from_ne_bytes([buffer[at + LENGTH_AT], buffer[at + LENGTH_AT + 1]]);
                        at += usize::from(length).max(1);
                        entries += 1;
                    }
                }
            }
        }
    }
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    /// Other tests open and close descriptors at the same time: both ways must agree at some moment.
    #[test]
    fn both_ways_of_counting_agree() {
        linux::by_listing().expect("a listing");
        let Some(_) = by_size() else { return };
        let agree = || {
            let before = by_size();
            before == linux::by_listing() && before == by_size()
        };
        let begun = std::time::Instant::now();
        while !agree() {
            assert!(begun.elapsed().as_secs() < 20, "{:?} and {:?}", by_size(), linux::by_listing());
        }
    }

    /// As after `closefrom`: the number is somebody else's.
    #[test]
    fn a_kept_descriptor_that_was_closed_is_left_alone() {
        use std::os::fd::AsRawFd;
        linux::by_listing().expect("a listing");
        let other = std::fs::File::open("/proc/self/stat").expect("a file");
        let taken = {
            let kept = linux::KEPT.lock().expect("no panic");
            let fd = kept.as_ref().expect("kept").fd;
            // SAFETY: both are open; the first one's number is used by nobody meanwhile.
            assert_eq!(unsafe { libc::dup2(other.as_raw_fd(), fd) }, fd);
            fd
        };
        assert!(linux::by_listing().is_some_and(|n| n > 3));
        assert_ne!(linux::KEPT.lock().expect("no panic").as_ref().expect("kept").fd, taken);
        assert_eq!(identity(taken), identity(other.as_raw_fd()), "it was not closed");
        // SAFETY: our own copy.
        unsafe { libc::close(taken) };
    }

    #[test]
    fn the_limit_is_what_the_system_says() {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = text.lines().find(|l| l.starts_with("Max open files")).unwrap();
        let soft = line.split_whitespace().nth(3).unwrap();
        assert_eq!(limit().unwrap().map_or("unlimited".to_owned(), |n| n.to_string()), soft);
    }
}
