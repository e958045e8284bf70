//! Address space from the operating system: reserve, open, guard, give back.
//!
//! Purpose: the only file that calls `mmap`, `mprotect` and `madvise`.
//! Invariants: every function works on whole pages; the unsafe ones trust the caller that the range lies in a mapping the
//! caller made and that nobody uses its contents. Failures are plain `io::Error`s from the system; the caller adds advice.
//! Must not know: slots, classes, tasks.

use std::io;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a range may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Every access faults.
    None,
    /// Reads and writes.
    ReadWrite,
}

impl Access {
    fn flags(self) -> libc::c_int {
        match self {
            Access::None => libc::PROT_NONE,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// `MAP_NORESERVE` where it exists: FreeBSD never charges private memory before it is touched and has no such flag.
#[cfg(not(target_os = "freebsd"))]
const NO_RESERVE: libc::c_int = libc::MAP_NORESERVE;
#[cfg(target_os = "freebsd")]
const NO_RESERVE: libc::c_int = 0;

/// Size of a page in bytes.
pub(crate) fn page_size() -> usize {
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    match SIZE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: `sysconf` has no preconditions.
            let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let size = usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096);
            SIZE.store(size, Ordering::Relaxed);
            size
        }
        size => size,
    }
}

/// Maps `len` fresh bytes somewhere. Nothing is charged or resident before it is touched.
pub(crate) fn map(len: usize, access: Access) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | NO_RESERVE;
    // SAFETY: without `MAP_FIXED` a new mapping replaces nothing.
    let addr = unsafe { libc::mmap(ptr::null_mut(), len, access.flags(), flags, -1, 0) };
    if addr == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(addr.expose_provenance()) }
}

/// Replaces `[addr, addr + len)` by fresh, untouched memory: contents, guards and page tables all go.
///
/// `MADV_DONTNEED` would keep the guard markers, and before Linux 6.14 the page tables as well.
///
/// # Safety
/// The range belongs to the caller, and nothing in it is in use.
pub(crate) unsafe fn remap(addr: usize, len: usize, access: Access) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED | NO_RESERVE;
    // SAFETY: the caller owns the range and nothing in it is in use.
    let got = unsafe { libc::mmap(ptr::with_exposed_provenance_mut(addr), len, access.flags(), flags, -1, 0) };
    if got == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Maps the first `len` bytes of an open file, for reading.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn map_file(fd: libc::c_int, len: usize) -> io::Result<usize> {
    // SAFETY: without `MAP_FIXED` a new mapping replaces nothing; a wrong descriptor gives an error.
    let addr = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0) };
    if addr == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(addr.expose_provenance()) }
}

/// Unmaps a range.
///
/// # Safety
/// The range came from [`map`] or [`map_file`] and nothing in it is in use.
pub(crate) unsafe fn unmap(addr: usize, len: usize) -> io::Result<()> {
    // SAFETY: passed on to the caller.
    check(unsafe { libc::munmap(ptr::with_exposed_provenance_mut(addr), len) })
}

/// Changes what a range may be used for.
///
/// # Safety
/// The range belongs to the caller; when access is taken away, nothing in it is in use.
pub(crate) unsafe fn protect(addr: usize, len: usize, access: Access) -> io::Result<()> {
    // SAFETY: passed on to the caller.
    check(unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(addr), len, access.flags()) })
}

/// Keeps huge pages out of a range: one touched page must not make 2 MiB resident. No effect outside Linux.
///
/// # Safety
/// The range belongs to the caller.
pub(crate) unsafe fn no_huge_pages(addr: usize, len: usize) {
    #[cfg(target_os = "linux")]
    {
        // A kernel without huge pages answers EINVAL, which is what we want anyway.
        // SAFETY: the advice changes no contents.
        let _ = unsafe { advise(addr, len, libc::MADV_NOHUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (addr, len);
}

/// Drops the contents of a range and the light guards in it; page tables may stay. The second choice after [`remap`].
///
/// # Safety
/// The range belongs to the caller, and nothing in it is in use.
pub(crate) unsafe fn discard(addr: usize, len: usize) -> io::Result<()> {
    // SAFETY: removing guards is harmless where there are none; passed on to the caller.
    unsafe {
        #[cfg(target_os = "linux")]
        advise(addr, len, MADV_GUARD_REMOVE)?;
        advise(addr, len, libc::MADV_DONTNEED)
    }
}

/// Makes every access to `[addr, addr + len)` fault without splitting the mapping (Linux 6.13 and later).
///
/// # Errors
/// `EINVAL`: the kernel does not know it, or the memory is locked.
///
/// # Safety
/// The range belongs to the caller, and nothing in it is in use: its contents are dropped.
pub(crate) unsafe fn install_guard(addr: usize, len: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: passed on to the caller.
    return unsafe { advise(addr, len, MADV_GUARD_INSTALL) };
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (addr, len);
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

/// [`install_guard`] for `count` guards of `len` bytes, the first at `first`, then every `step` bytes.
///
/// One system call for all where the kernel can (about a tenth less time per fresh slot), otherwise a loop.
///
/// # Safety
/// As for [`install_guard`], for every guard.
pub(crate) unsafe fn install_guards(first: usize, len: usize, step: usize, count: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    // SAFETY: passed on to the caller.
    if unsafe { install_batch(first, len, step, count) } {
        return Ok(());
    }
    for i in 0..count {
        // SAFETY: passed on to the caller.
        unsafe { install_guard(first + i * step, len)? };
    }
    Ok(())
}

/// The kernel's limit on mappings per process, where there is one.
pub(crate) fn max_map_count() -> Option<usize> {
    if cfg!(target_os = "linux") && !cfg!(miri) {
        std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?.trim().parse().ok()
    } else {
        None
    }
}

/// The soft limit on address space (`ulimit -v`), `None` when unlimited.
pub(crate) fn address_space_limit() -> Option<usize> {
    if cfg!(miri) {
        return None;
    }
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is valid for writes.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) };
    (done == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// Whether mapping `len` bytes leaves most of a limited address space to the program. Without `malloc`.
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    allow(dead_code, reason = "files are mapped on Linux only")
)]
pub(crate) fn has_room_for(len: usize) -> bool {
    let Some(limit) = address_space_limit() else { return true };
    let mut text = [0u8; 64];
    // SAFETY: a C string, an open descriptor, and a buffer with the room.
    let read = unsafe {
        let fd = libc::open(c"/proc/self/statm".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return false;
        }
        let n = libc::read(fd, text.as_mut_ptr().cast(), text.len());
        libc::close(fd);
        usize::try_from(n).unwrap_or(0)
    };
    let pages =
        text[..read].iter().take_while(|b| b.is_ascii_digit()).fold(0usize, |n, b| n * 10 + usize::from(b - b'0'));
    pages > 0 && len <= limit.saturating_sub(pages * page_size()) / 8
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// # Safety
/// The range belongs to the caller, and nothing the advice drops is in use.
unsafe fn advise(addr: usize, len: usize, advice: libc::c_int) -> io::Result<()> {
    // SAFETY: passed on to the caller.
    check(unsafe { libc::madvise(ptr::with_exposed_provenance_mut(addr), len, advice) })
}

// include/uapi/asm-generic/mman-common.h, since 6.13; not in every version of the libc crate.
#[cfg(target_os = "linux")]
const MADV_GUARD_INSTALL: libc::c_int = 102;
#[cfg(target_os = "linux")]
const MADV_GUARD_REMOVE: libc::c_int = 103;

/// Tries `process_madvise` on ourselves; false means: do it one by one.
///
/// Only through the kernel's name for "this process" (include/uapi/linux/pidfd.h, since 6.14): a pidfd opened once would
/// mean the *parent* after a fork and put guards into its live stacks.
///
/// # Safety
/// As for [`install_guards`].
#[cfg(target_os = "linux")]
unsafe fn install_batch(first: usize, len: usize, step: usize, count: usize) -> bool {
    use std::sync::atomic::AtomicBool;

    const PIDFD_SELF_THREAD_GROUP: libc::c_int = -10_001;
    const MOST: usize = 64;
    static REFUSED: AtomicBool = AtomicBool::new(false);

    if count > MOST || REFUSED.load(Ordering::Relaxed) {
        return false;
    }
    let mut parts = [libc::iovec { iov_base: ptr::null_mut(), iov_len: len }; MOST];
    for (i, part) in parts[..count].iter_mut().enumerate() {
        part.iov_base = ptr::with_exposed_provenance_mut(first + i * step);
    }
    // SAFETY: `parts` holds `count` ranges that belong to the caller; the call reads nothing else of ours.
    let done = unsafe {
        libc::syscall(libc::SYS_process_madvise, PIDFD_SELF_THREAD_GROUP, parts.as_ptr(), count, MADV_GUARD_INSTALL, 0)
    };
    if done < 0 {
        let code = io::Error::last_os_error().raw_os_error();
        // ENOMEM and the like may pass; an old kernel or a system call filter will not.
        if matches!(code, Some(libc::ENOSYS | libc::EBADF | libc::EINVAL | libc::EPERM)) {
            REFUSED.store(true, Ordering::Relaxed);
        }
    }
    usize::try_from(done) == Ok(count * len)
}

/// Maps `len` zeroed bytes aligned to `align` (a power of two, at least a page). Never unmapped.
pub(crate) fn map_aligned(len: usize, align: usize) -> io::Result<*mut u8> {
    #[cfg(miri)]
    {
        let layout = std::alloc::Layout::from_size_align(len, align).map_err(io::Error::other)?;
        // SAFETY: the size is not zero.
        return Ok(unsafe { std::alloc::alloc_zeroed(layout) });
    }
    #[cfg(not(miri))]
    {
        let start = map(len + align, Access::ReadWrite)?;
        let aligned = start.next_multiple_of(align);
        // SAFETY: the parts before and after lie in the fresh mapping and nobody uses them.
        unsafe {
            if aligned > start {
                unmap(start, aligned - start)?;
            }
            if start + align > aligned {
                unmap(aligned + len, start + align - aligned)?;
            }
        }
        Ok(ptr::with_exposed_provenance_mut(aligned))
    }
}

/// Copies from this process's own memory without ever faulting; returns how many bytes there were to read from `from` on.
/// `None` where the system has no such call or refuses it. Async-signal-safe, but for errno.
#[cfg_attr(any(miri, coro_thread_context), allow(dead_code, reason = "nobody is asked where it is"))]
#[cfg(target_os = "linux")]
pub(crate) fn peek(from: usize, into: &mut [u8]) -> Option<usize> {
    const PIECES: usize = 16;
    if cfg!(miri) {
        return None;
    }
    let mut done = 0;
    while done < into.len() {
        // Page by page, because the kernel may refuse the whole of a piece that it cannot read to its end.
        let none = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        let (mut pieces, mut used, mut asked) = ([none; PIECES], 0, 0);
        while used < PIECES && done + asked < into.len() {
            let at = from.checked_add(done + asked)?;
            let len = (page_size() - at % page_size()).min(into.len() - done - asked);
            pieces[used] = libc::iovec { iov_base: ptr::without_provenance_mut(at), iov_len: len };
            asked += len;
            used += 1;
        }
        let to = libc::iovec { iov_base: into[done..].as_mut_ptr().cast(), iov_len: asked };
        // SAFETY: writes into `into` only; what is read from is checked by the kernel.
        let n = unsafe { libc::process_vm_readv(libc::getpid(), &to, 1, pieces.as_ptr(), used as libc::c_ulong, 0) };
        match usize::try_from(n) {
            Ok(n) => {
                done += n;
                if n < asked {
                    return Some(done);
                }
            }
            Err(_) if done > 0 => return Some(done),
            Err(_) => {
                let nothing_there = io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT);
                return nothing_there.then_some(0);
            }
        }
    }
    Some(done)
}

/// As where the system refuses.
#[cfg(not(target_os = "linux"))]
#[allow(dead_code, reason = "what runs can be asked on Linux only")]
pub(crate) fn peek(_from: usize, _into: &mut [u8]) -> Option<usize> {
    None
}

/// Gives the whole pages inside `[start, end)` back to the system; they then read as zeros. Elsewhere than on Linux
/// the contents may stay as they are.
///
/// # Safety
/// The range belongs to the caller, and either value of its bytes is fine for whoever still reads them.
pub(crate) unsafe fn forget_contents(start: *mut u8, end: *mut u8) {
    let page = page_size();
    let (from, to) = ((start as usize).next_multiple_of(page), end as usize / page * page);
    if cfg!(not(miri)) && to > from {
        // SAFETY: forwarded. A refusal leaves the contents, which is fine as well.
        let _ = unsafe { libc::madvise(start.with_addr(from).cast(), to - from, libc::MADV_DONTNEED) };
    }
}
