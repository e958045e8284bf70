//! Files mapped whole for reading, and tables in memory of their own: both without `malloc`.
//!
//! Purpose: what the symbolizer reads must be there when descriptors are out, when a file was replaced, and when a thread
//! that stands still holds the allocator's lock.
//! Invariants: nothing here allocates or keeps a descriptor. What was kept is never unmapped.
//! Must not know: what the bytes mean.

use std::ffi::CStr;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::slice;

use super::mem;

/// A whole file in memory.
#[derive(Debug)]
pub(crate) struct Mapped {
    address: usize,
    len: usize,
}

impl Mapped {
    /// Maps a regular file. Its descriptor is closed at once: a mapping keeps the file, also one that is deleted, and
    /// no program that closes descriptors it does not know can take it away.
    ///
    /// # Errors
    /// The file cannot be opened or mapped, is empty, or is no regular file; it would take much of a limited address space.
    pub(crate) fn open(path: &CStr) -> io::Result<Mapped> {
        let (file, len) = regular(path)?;
        Ok(Mapped { address: mem::map_file(file.as_raw_fd(), len)?, len })
    }

    /// Reads a regular file into memory. For one that nothing keeps from being cut short while it is used: a mapping's
    /// bytes would then end the process where they are read.
    ///
    /// # Errors
    /// The file cannot be opened or read, is empty, or is no regular file; no memory, as above.
    pub(crate) fn read(path: &CStr) -> io::Result<Mapped> {
        let (file, len) = regular(path)?;
        let whole = Mapped { address: mem::map(len, mem::Access::ReadWrite)?, len };
        let mut done = 0;
        while done < len {
            let to = std::ptr::with_exposed_provenance_mut::<u8>(whole.address + done);
            // SAFETY: the rest of fresh memory of our own.
            let n = unsafe { libc::read(file.as_raw_fd(), to.cast(), len - done) };
            match usize::try_from(n) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.raw_os_error() != Some(libc::EINTR) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(whole)
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped until `drop`. That nobody writes the file is the system's to see to for code that runs, and
        // usage for debug files: whoever truncates a library in place breaks the code that runs in it as well.
        unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance(self.address), self.len) }
    }

    /// Keeps the mapping to the end of the process.
    pub(crate) fn keep(self) -> &'static [u8] {
        let kept = ManuallyDrop::new(self);
        // SAFETY: as in `bytes`, and it is never unmapped.
        unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance(kept.address), kept.len) }
    }
}

/// Opens a regular file that is not empty; it and its length.
fn regular(path: &CStr) -> io::Result<(OwnedFd, usize)> {
    let file = loop {
        // SAFETY: a C string; no other preconditions.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if fd >= 0 {
            // SAFETY: just opened, owned by nobody else.
            break unsafe { OwnedFd::from_raw_fd(fd) };
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    };
    // SAFETY: a `stat` of zeros is valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and room for the answer.
    if unsafe { libc::fstat(file.as_raw_fd(), &raw mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let len = usize::try_from(stat.st_size).unwrap_or(0);
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG || len == 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if !mem::has_room_for(len) {
        return Err(io::Error::from_raw_os_error(libc::ENOMEM));
    }
    Ok((file, len))
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our mapping; every borrow of it has ended.
        let _ = unsafe { mem::unmap(self.address, self.len) };
    }
}

/// `count` times `value`, to the end of the process; `None` if there is no memory.
pub(crate) fn table<T: Copy + 'static>(count: usize, value: T) -> Option<&'static mut [T]> {
    const { assert!(align_of::<T>() <= 4096) };
    if count == 0 || size_of::<T>() == 0 {
        return Some(&mut []);
    }
    let page = mem::page_size();
    let len = count.checked_mul(size_of::<T>())?.checked_next_multiple_of(page)?;
    let start = std::ptr::with_exposed_provenance_mut::<T>(mem::map(len, mem::Access::ReadWrite).ok()?);
    for at in 0..count {
        // SAFETY: fresh memory of our own, large enough, page aligned.
        unsafe { start.add(at).write(value) };
    }
    // SAFETY: `count` values were written; never unmapped, and nobody else knows the address.
    Some(unsafe { slice::from_raw_parts_mut(start, count) })
}

/// One value, to the end of the process; `None` if there is no memory.
pub(crate) fn value<T: 'static>(value: T) -> Option<&'static T> {
    const { assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0) };
    let len = size_of::<T>().next_multiple_of(mem::page_size());
    let place = std::ptr::with_exposed_provenance_mut::<T>(mem::map(len, mem::Access::ReadWrite).ok()?);
    // SAFETY: fresh memory of our own, large enough, page aligned; never unmapped.
    unsafe {
        place.write(value);
        Some(&*place)
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_readable_after_it_is_gone() {
        let path = std::env::temp_dir().join(format!("coro-kept-{}", std::process::id()));
        std::fs::write(&path, b"still here").unwrap();
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let mapped = Mapped::open(&name).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mapped.bytes(), b"still here");
        assert_eq!(mapped.keep(), b"still here");
        assert!(Mapped::open(&name).is_err());
        assert!(Mapped::open(c"/").is_err() && Mapped::open(c"/dev/null").is_err());
    }

    #[test]
    fn tables_hold_what_was_asked_for() {
        let table = table(10_000, (7u32, 9u64)).unwrap();
        assert!(table.len() == 10_000 && table.iter().all(|e| *e == (7, 9)));
        assert!(super::table(0, 1u8).unwrap().is_empty());
        assert!(super::table(usize::MAX, 1u64).is_none());
        assert_eq!(value([3u8; 5000]).unwrap()[4999], 3);
    }
}
