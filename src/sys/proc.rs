//! What the kernel tells of one thread of this process: its state, its CPU time, the system call that it is in.
//!
//! Purpose: read `/proc/self/task/TID/*` on Linux; elsewhere every answer is `None`.
//! Invariants: nothing here allocates or takes a lock, so it may be asked on the way to a report about an allocator that
//! is stuck. Whatever the kernel does not tell (an old kernel, no `/proc`, a sandbox, a thread that has ended) is `None`.
//! One descriptor is kept back for the time when there are no others left (see [`keep_spare`]).
//! Must not know: workers, tasks.

use std::time::Duration;

/// A thread that is in the kernel and does not run: blocked in a system call, stopped, or waiting for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InKernel {
    /// Number of the system call, -1 for none: then the thread was stopped or faulted in its own code.
    pub(crate) nr: i64,
    /// Stack pointer in the thread's own code.
    pub(crate) sp: usize,
    /// The instruction at which it goes on there.
    pub(crate) pc: usize,
}

/// How much CPU a thread got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuTimes {
    /// Time on a CPU. A thread whose figure has not moved has not run.
    pub(crate) ran: Duration,
    /// Time in which it could have run and did not.
    pub(crate) run_delay: Duration,
    /// How often it was put on a CPU.
    pub(crate) turns: u64,
}

/// From `stat`; the times are in the kernel's clock ticks, 10 ms as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadStat {
    /// `R` runs or could, `S` sleeps, `D` sleeps and takes no signal, `T` stopped, `t` stopped by a debugger, `Z` ended.
    pub(crate) state: char,
    /// Time in its own code.
    pub(crate) utime: Duration,
    /// Time in the kernel.
    pub(crate) stime: Duration,
    /// The CPU that it was last on.
    pub(crate) cpu: i32,
}

/// A name in a fixed place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    bytes: [u8; 32],
    len: u8,
}

impl Word {
    fn new(from: &[u8]) -> Word {
        let mut word = Word { bytes: [0; 32], len: 0 };
        for b in from.iter().take(32).filter(|b| b.is_ascii_graphic()) {
            word.bytes[usize::from(word.len)] = *b;
            word.len += 1;
        }
        word
    }

    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Where the thread is in the kernel; `None` if it runs, could run, or is gone.
pub(crate) fn syscall(tid: i32) -> Option<InKernel> {
    let mut room = [0; 256];
    parse_syscall(files::read(tid, "syscall", &mut room)?)
}

/// How much CPU it got; `None` also where the kernel keeps no such figures.
pub(crate) fn cpu_times(tid: i32) -> Option<CpuTimes> {
    let mut room = [0; 128];
    parse_schedstat(files::read(tid, "schedstat", &mut room)?)
}

/// Its state and coarse times.
pub(crate) fn stat(tid: i32) -> Option<ThreadStat> {
    let mut room = [0; 1024];
    parse_stat(files::read(tid, "stat", &mut room)?)
}

/// The function of the kernel in which it waits; `None` where it does not, or where that is kept secret.
pub(crate) fn wchan(tid: i32) -> Option<Word> {
    let mut room = [0; 128];
    let text = files::read(tid, "wchan", &mut room)?;
    (!text.is_empty() && text != b"0").then(|| Word::new(text))
}

/// Whether the thread itself holds back that signal at the moment.
#[cfg_attr(
    not(all(target_os = "linux", not(any(miri, coro_thread_context)))),
    allow(dead_code, reason = "what runs can be asked on Linux only")
)]
pub(crate) fn blocks_signal(tid: i32, signal: i32) -> Option<bool> {
    let mut room = [0; 4096];
    let mask = parse_blocked(files::read(tid, "status", &mut room)?)?;
    let bit = u32::try_from(signal).ok()?.checked_sub(1)?;
    Some(mask.checked_shr(bit)? & 1 == 1)
}

/// Keeps a descriptor back, to be given up for the time of one question when the process has no other left.
pub(crate) fn keep_spare() {
    files::keep_spare();
}

fn words(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty()).map(|w| str::from_utf8(w).unwrap_or_default())
}

fn hex(word: &str) -> Option<usize> {
    usize::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// `running`, or `-1 SP PC`, or `NR ARG ARG ARG ARG ARG ARG SP PC`.
fn parse_syscall(text: &[u8]) -> Option<InKernel> {
    let nr = words(text).next()?.parse().ok()?;
    let mut rest = words(text).skip(if nr < 0 { 1 } else { 7 });
    Some(InKernel { nr, sp: hex(rest.next()?)?, pc: hex(rest.next()?)? })
}

/// `RAN DELAY TURNS`, the first two in nanoseconds. All zero where the kernel does not count.
fn parse_schedstat(text: &[u8]) -> Option<CpuTimes> {
    let mut w = words(text).map(str::parse::<u64>);
    let mut next = || w.next()?.ok();
    let (ran, delay, turns) = (next()?, next()?, next()?);
    (ran > 0).then(|| CpuTimes { ran: Duration::from_nanos(ran), run_delay: Duration::from_nanos(delay), turns })
}

/// `TID (NAME) STATE …`; the name may hold anything, so the fields are counted from the last parenthesis.
fn parse_stat(text: &[u8]) -> Option<ThreadStat> {
    let after = text.iter().rposition(|b| *b == b')')? + 1;
    // From here on the first word is field 3.
    let field = |n: usize| words(&text[after..]).nth(n - 3);
    let ticks = |n: usize| {
        let ticks: u64 = field(n)?.parse().ok()?;
        Some(Duration::from_millis(ticks.saturating_mul(1000) / clock_ticks()))
    };
    Some(ThreadStat {
        state: field(3)?.chars().next()?,
        utime: ticks(14)?,
        stime: ticks(15)?,
        cpu: field(39).and_then(|f| f.parse().ok()).unwrap_or(-1),
    })
}

#[cfg_attr(
    not(all(target_os = "linux", not(any(miri, coro_thread_context)))),
    allow(dead_code, reason = "what runs can be asked on Linux only")
)]
fn parse_blocked(status: &[u8]) -> Option<u64> {
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"SigBlk:"))?;
    u64::from_str_radix(words(line).next()?, 16).ok()
}

fn clock_ticks() -> u64 {
    // SAFETY: no preconditions.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100).max(1)
}

/// The name of a system call; `None` for rare ones.
pub(crate) fn syscall_name(nr: i64) -> Option<&'static str> {
    names::NAMES.iter().find(|(n, _)| *n == nr).map(|(_, name)| *name)
}

#[cfg(all(target_os = "linux", not(miri)))]
mod names {
    macro_rules! table {
        ($($(#[$on:meta])* $constant:ident $name:literal),* $(,)?) => {
            &[$($(#[$on])* (libc::$constant, $name)),*]
        };
    }

    /// What threads block in.
    pub(super) const NAMES: &[(i64, &str)] = table![
        SYS_read "read", SYS_write "write", SYS_readv "readv", SYS_writev "writev",
        SYS_pread64 "pread64", SYS_pwrite64 "pwrite64", SYS_preadv "preadv", SYS_pwritev "pwritev",
        SYS_preadv2 "preadv2", SYS_pwritev2 "pwritev2",
        SYS_futex "futex", SYS_nanosleep "nanosleep", SYS_clock_nanosleep "clock_nanosleep",
        SYS_epoll_pwait "epoll_pwait", SYS_epoll_pwait2 "epoll_pwait2", SYS_ppoll "ppoll", SYS_pselect6 "pselect6",
        SYS_recvfrom "recvfrom", SYS_recvmsg "recvmsg", SYS_recvmmsg "recvmmsg",
        SYS_sendto "sendto", SYS_sendmsg "sendmsg", SYS_sendmmsg "sendmmsg",
        SYS_accept "accept", SYS_accept4 "accept4", SYS_connect "connect",
        SYS_wait4 "wait4", SYS_waitid "waitid", SYS_openat "openat", SYS_openat2 "openat2", SYS_close "close",
        SYS_fsync "fsync", SYS_fdatasync "fdatasync", SYS_sync_file_range "sync_file_range",
        SYS_ftruncate "ftruncate", SYS_fallocate "fallocate", SYS_flock "flock", SYS_fcntl "fcntl",
        SYS_ioctl "ioctl", SYS_getdents64 "getdents64", SYS_statx "statx", SYS_fstat "fstat", SYS_newfstatat "newfstatat",
        SYS_unlinkat "unlinkat", SYS_renameat2 "renameat2", SYS_mkdirat "mkdirat",
        SYS_sendfile "sendfile", SYS_splice "splice", SYS_copy_file_range "copy_file_range",
        SYS_io_uring_enter "io_uring_enter", SYS_io_getevents "io_getevents",
        SYS_mmap "mmap", SYS_munmap "munmap", SYS_mprotect "mprotect", SYS_madvise "madvise", SYS_msync "msync",
        SYS_rt_sigtimedwait "rt_sigtimedwait", SYS_rt_sigsuspend "rt_sigsuspend",
        SYS_sched_yield "sched_yield", SYS_clone "clone", SYS_clone3 "clone3", SYS_execve "execve",
        SYS_exit_group "exit_group", SYS_membarrier "membarrier", SYS_getrandom "getrandom",
        SYS_process_vm_readv "process_vm_readv", SYS_semtimedop "semtimedop", SYS_msgrcv "msgrcv", SYS_msgsnd "msgsnd",
        #[cfg(target_arch = "x86_64")] SYS_poll "poll",
        #[cfg(target_arch = "x86_64")] SYS_select "select",
        #[cfg(target_arch = "x86_64")] SYS_epoll_wait "epoll_wait",
        #[cfg(target_arch = "x86_64")] SYS_pause "pause",
        #[cfg(target_arch = "x86_64")] SYS_open "open",
        #[cfg(target_arch = "x86_64")] SYS_stat "stat",
        #[cfg(target_arch = "x86_64")] SYS_unlink "unlink",
        #[cfg(target_arch = "x86_64")] SYS_rename "rename",
        #[cfg(target_arch = "x86_64")] SYS_fork "fork",
        #[cfg(target_arch = "x86_64")] SYS_vfork "vfork",
    ];
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod names {
    pub(super) const NAMES: &[(i64, &str)] = &[];
}

#[cfg(all(target_os = "linux", not(miri)))]
mod files {
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

    use crate::sys::descriptors::identity;

    /// The descriptor that is kept back and one; 0 for none. An empty file of memory, known by its device and its number
    /// there: a program that closes whatever it finds open gets the descriptor's number for something of its own.
    static SPARE: AtomicI32 = AtomicI32::new(0);
    static SPARE_IS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    /// Somebody has the spare in hand; nobody waits for that.
    static BUSY: AtomicBool = AtomicBool::new(false);

    fn alone<T>(f: impl FnOnce() -> T) -> Option<T> {
        BUSY.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let value = f();
        BUSY.store(false, Ordering::Release);
        Some(value)
    }

    /// The number, if it is still ours.
    fn spare() -> Option<libc::c_int> {
        let fd = SPARE.load(Ordering::Relaxed) - 1;
        let is = SPARE_IS.each_ref().map(|word| word.load(Ordering::Relaxed));
        (fd >= 0 && identity(fd) == Some(is.into())).then_some(fd)
    }

    pub(super) fn keep_spare() {
        let _ = alone(|| {
            if spare().is_some() {
                return;
            }
            // SAFETY: a string that ends in a zero byte.
            let fd = unsafe { libc::memfd_create(c"coro-spare".as_ptr(), libc::MFD_CLOEXEC) };
            let Some((device, number)) = identity(fd).filter(|_| fd >= 0) else {
                return SPARE.store(0, Ordering::Relaxed);
            };
            SPARE_IS[0].store(device, Ordering::Relaxed);
            SPARE_IS[1].store(number, Ordering::Relaxed);
            SPARE.store(fd + 1, Ordering::Relaxed);
        });
    }

    /// Gives it up, if it is still ours.
    fn spend_spare() -> bool {
        let spent = alone(|| {
            let fd = spare();
            SPARE.store(0, Ordering::Relaxed);
            fd.map(close).is_some()
        });
        spent == Some(true)
    }

    /// `path` ends in a zero byte.
    fn open(path: &[u8]) -> Result<libc::c_int, i32> {
        debug_assert_eq!(path.last(), Some(&0));
        loop {
            // SAFETY: a string that ends in a zero byte and lives across the call.
            let fd = unsafe { libc::open(path.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC) };
            match io::Error::last_os_error().raw_os_error() {
                _ if fd >= 0 => return Ok(fd),
                Some(libc::EINTR) => {}
                error => return Err(error.unwrap_or(0)),
            }
        }
    }

    fn close(fd: libc::c_int) {
        // SAFETY: a descriptor of our own, which nobody else knows.
        unsafe { libc::close(fd) };
    }

    /// Reads the file as far as there is room, without the newline at its end.
    pub(super) fn read<'a>(tid: i32, name: &str, room: &'a mut [u8]) -> Option<&'a [u8]> {
        let mut path = [0; 64];
        let path = path_of(tid, name, &mut path)?;
        let (fd, spent) = match open(path) {
            Ok(fd) => (fd, false),
            Err(libc::EMFILE | libc::ENFILE) => {
                if !spend_spare() {
                    return None;
                }
                match open(path) {
                    Ok(fd) => (fd, true),
                    Err(_) => {
                        keep_spare();
                        return None;
                    }
                }
            }
            Err(_) => return None,
        };
        let mut len = 0;
        while len < room.len() {
            // SAFETY: the rest of the buffer is ours to write.
            let n = unsafe { libc::read(fd, room[len..].as_mut_ptr().cast(), room.len() - len) };
            match usize::try_from(n) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                // A thread that has just ended: ESRCH.
                Err(_) => {
                    len = 0;
                    break;
                }
            }
        }
        close(fd);
        if spent {
            keep_spare();
        }
        let text = &room[..len];
        (len > 0).then(|| text.strip_suffix(b"\n").unwrap_or(text))
    }

    fn path_of<'a>(tid: i32, name: &str, room: &'a mut [u8; 64]) -> Option<&'a [u8]> {
        let mut digits = [0; 10];
        let mut at = digits.len();
        let mut rest = u32::try_from(tid).ok().filter(|tid| *tid > 0)?;
        while rest > 0 {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let mut len = 0;
        for part in [b"/proc/self/task/".as_slice(), &digits[at..], b"/", name.as_bytes(), b"\0"] {
            room.get_mut(len..len + part.len())?.copy_from_slice(part);
            len += part.len();
        }
        Some(&room[..len])
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn paths() {
            let path = |tid, name| path_of(tid, name, &mut [0; 64]).map(|p| String::from_utf8_lossy(p).into_owned());
            assert_eq!(path(4_194_304, "schedstat").unwrap(), "/proc/self/task/4194304/schedstat\0");
            assert_eq!(path(7, "stat").unwrap(), "/proc/self/task/7/stat\0");
            assert_eq!((path(0, "stat"), path(-3, "stat")), (None, None));
            assert_eq!(path(1, &"x".repeat(60)), None);
        }
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod files {
    pub(super) fn keep_spare() {}

    pub(super) fn read<'a>(_tid: i32, _name: &str, _room: &'a mut [u8]) -> Option<&'a [u8]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_syscall() {
        assert_eq!(parse_syscall(b"running"), None);
        assert_eq!(parse_syscall(b""), None);
        assert_eq!(parse_syscall(b"-1 0x7ffc10 0x40aa"), Some(InKernel { nr: -1, sp: 0x7ffc10, pc: 0x40aa }));
        let text = b"230 0x1 0x0 0x7f12 0x7f34 0x0 0x0 0x7fcc10 0x7fcc14b4eb60";
        assert_eq!(parse_syscall(text), Some(InKernel { nr: 230, sp: 0x7fcc10, pc: 0x7fcc_14b4_eb60 }));
        assert_eq!(parse_syscall(b"230 0x1 0x0 0x7f12 0x7f34 0x0 0x0 0x7fcc10"), None);
    }

    #[test]
    fn the_forms_of_schedstat_and_status() {
        let times = parse_schedstat(b"1500000000 2000 31").unwrap();
        assert_eq!((times.ran, times.run_delay), (Duration::from_millis(1500), Duration::from_micros(2)));
        assert_eq!(times.turns, 31);
        assert_eq!(parse_schedstat(b"0 0 0"), None);
        assert_eq!(parse_schedstat(b"12"), None);
        assert_eq!(parse_blocked(b"Name:\tx\nSigPnd:\t0000000000000000\nSigBlk:\t0000000000400000\n"), Some(1 << 22));
        assert_eq!(parse_blocked(b"Name:\tx\n"), None);
    }

    #[test]
    fn a_thread_name_cannot_fake_a_state() {
        let text =
            "77 (a) R (b) 1) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0 99 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 17 3 0 0";
        let stat = parse_stat(text.as_bytes()).unwrap();
        assert_eq!((stat.state, stat.cpu), ('S', 3));
        assert_eq!(stat.utime.as_millis() as u64 * clock_ticks(), 250_000);
        assert_eq!(stat.stime.as_millis() as u64 * clock_ticks(), 50_000);
        assert_eq!(parse_stat(b"77 (x"), None);
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn this_process_as_the_kernel_sees_it() {
        use std::sync::mpsc;
        let me = crate::sys::thread_id();
        let own = stat(me).unwrap();
        assert_eq!(own.state, 'R');
        assert_eq!(blocks_signal(me, libc::SIGURG), Some(false));
        assert_eq!((stat(i32::MAX), syscall(i32::MAX), wchan(i32::MAX)), (None, None, None));

        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let sleeper = std::thread::spawn(move || {
            tell.send(crate::sys::thread_id()).unwrap();
            let _ = ended.recv();
        });
        let tid = told.recv().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let seen = loop {
            if let Some(seen) = syscall(tid)
                && seen.nr == libc::SYS_futex
            {
                break seen;
            }
            assert!(std::time::Instant::now() < deadline, "the thread never waits");
            std::thread::yield_now();
        };
        assert_eq!(syscall_name(seen.nr), Some("futex"));
        assert!(seen.sp != 0 && seen.pc != 0);
        assert_eq!(stat(tid).unwrap().state, 'S');
        let before = cpu_times(tid);
        assert_eq!(syscall(tid), Some(seen));
        assert_eq!(cpu_times(tid), before, "a thread that waits does not run");
        drop(end);
        sleeper.join().unwrap();
    }
}
