//! Raw stderr: never fails, never waits for whoever reads it, never takes std's lock.
//!
//! Text goes into a ring of fixed size; a thread of its own writes it out (`coro-stderr`, started by the first text, all
//! signals blocked). Lines that find no room, and what the descriptor refuses, is lost and counted, and a line says how many
//! lines that were as soon as there is room again. A caller copies its text under a lock that nobody holds for longer
//! than such a copy; what it writes stays in order. [`flush`] waits, for a bounded time, until all of it is out; the
//! process's exit and the end of `coro::run` do that. Who must be heard at once, because the process is about to end or
//! because it is a signal handler or the watchdog, uses [`write_raw`], which writes at once what the descriptor takes
//! without waiting.
//!
//! Invariants:
//! - Descriptor 2 is looked up by its number at every write, never duplicated: a program that puts a new log file in its
//!   place is followed at once, and a descriptor that is stale or closed costs lines but nothing else. What only replaces
//!   std's or a session's output does not touch it.
//! - Nothing here allocates, apart from the start of the thread; the ring is a static.
//! - A forked child, which has no writer, writes by itself.
//!
//! Must not know: what the text is about.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Bytes that wait for the writer.
const ROOM: usize = 128 * 1024;
/// What the writer takes at once. Also what a pipe that is ready takes without waiting, on Linux.
const PIECE: usize = 4096;
/// What a pipe that is ready takes without waiting: POSIX's least `PIPE_BUF`, except where it is known to be more.
const READY: usize = if cfg!(target_os = "linux") { PIECE } else { 512 };
/// How long the process's exit waits for what is not written yet.
pub(crate) const EXIT_PATIENCE: Duration = Duration::from_millis(200);

struct Ring {
    bytes: [u8; ROOM],
    /// Where the oldest byte lies, and how many there are.
    head: usize,
    len: usize,
    /// Bytes ever put in, and those of them that were written or given up.
    put: u64,
    done: u64,
    /// Lines lost and not yet told, and after how many of the bytes ever put in they are to be told.
    lost: u64,
    lost_at: u64,
    /// The writer waits for text; so many wait for the writer.
    idle: bool,
    flushed_by: u32,
}

static RING: Mutex<Ring> = Mutex::new(Ring::new());
static TEXT: Condvar = Condvar::new();
static PROGRESS: Condvar = Condvar::new();

/// Lines that [`write_raw`] could not write, not yet in the ring's account.
static LOST_RAW: AtomicU64 = AtomicU64::new(0);
/// 0: no writer, 1: one is there or being started.
static STARTED: AtomicU8 = AtomicU8::new(0);
/// The process that the writer belongs to.
static PROCESS: AtomicI32 = AtomicI32::new(0);
/// What brings text here at a flush (a `fn(Duration)`), and 0 for nothing.
static FEEDER: AtomicUsize = AtomicUsize::new(0);

impl Ring {
    const fn new() -> Ring {
        Ring { bytes: [0; ROOM], head: 0, len: 0, put: 0, done: 0, lost: 0, lost_at: 0, idle: false, flushed_by: 0 }
    }

    /// Puts in as many whole lines as there is room for; the others are lost.
    fn push(&mut self, bytes: &[u8]) {
        let room = ROOM - self.len;
        if bytes.len() > room {
            let fits = bytes[..room].iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
            self.put_in(&bytes[..fits]);
            return self.lose(lines(&bytes[fits..]));
        }
        self.put_in(bytes);
    }

    /// There is room.
    fn put_in(&mut self, bytes: &[u8]) {
        let at = (self.head + self.len) % ROOM;
        let first = bytes.len().min(ROOM - at);
        self.bytes[at..at + first].copy_from_slice(&bytes[..first]);
        self.bytes[..bytes.len() - first].copy_from_slice(&bytes[first..]);
        self.len += bytes.len();
        self.put += bytes.len() as u64;
    }

    /// Counts what would have its place behind all that is in the ring.
    fn lose(&mut self, lines: u64) {
        if self.lost == 0 {
            self.lost_at = self.put;
        }
        self.lost += lines;
    }

    fn pop(&mut self, into: &mut [u8]) -> usize {
        let mut n = self.len.min(into.len());
        if self.lost > 0 && self.lost_at > self.done {
            // Not beyond the place where a loss is to be told, which is the end of a text.
            n = n.min((self.lost_at - self.done) as usize);
        }
        let first = n.min(ROOM - self.head);
        into[..first].copy_from_slice(&self.bytes[self.head..self.head + first]);
        into[first..n].copy_from_slice(&self.bytes[..n - first]);
        self.head = (self.head + n) % ROOM;
        self.len -= n;
        n
    }
}

fn ring() -> MutexGuard<'static, Ring> {
    RING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As many lines as somebody would have seen.
fn lines(bytes: &[u8]) -> u64 {
    let ends = bytes.iter().filter(|b| **b == b'\n').count() as u64;
    ends + u64::from(bytes.last().is_some_and(|b| *b != b'\n'))
}

/// `coro: N lines to stderr were lost`, without allocating.
struct Loss {
    bytes: [u8; 64],
    len: usize,
}

impl Loss {
    fn new(n: u64) -> Loss {
        use std::io::Write as _;
        let mut bytes = [0; 64];
        let mut rest = &mut bytes[..];
        let (lines, were) = if n == 1 { ("line", "was") } else { ("lines", "were") };
        let _ = writeln!(rest, "coro: {n} {lines} to stderr {were} lost");
        let len = 64 - rest.len();
        Loss { bytes, len }
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Writes `text` as it is.
pub(crate) fn write(text: &str) {
    write_bytes(text.as_bytes());
}

/// As [`write`].
pub(crate) fn write_bytes(bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    if !has_ring() {
        write_raw(bytes);
        return;
    }
    {
        let mut ring = ring();
        match LOST_RAW.swap(0, Ordering::Relaxed) {
            0 => {}
            n => ring.lose(n),
        }
        ring.push(bytes);
        if ring.idle {
            ring.idle = false;
            TEXT.notify_one();
        }
    }
    if STARTED.load(Ordering::Acquire) == 0 {
        start();
    }
}

/// Not in a forked child, nor where threads that stay are a fault.
fn has_ring() -> bool {
    if cfg!(miri) {
        return false;
    }
    let process = PROCESS.load(Ordering::Relaxed);
    process == 0 || process == self::process()
}

fn process() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::getpid() }
}

#[cold]
fn start() {
    if STARTED.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    let first = PROCESS.swap(process(), Ordering::Relaxed) == 0;
    let started = without_signals(|| {
        std::thread::Builder::new().name("coro-stderr".into()).stack_size(64 * 1024).spawn(serve).is_ok()
    });
    if !started {
        // No thread to be had: what the descriptor takes at once is written, and the next text tries again.
        STARTED.store(0, Ordering::Release);
        let mut piece = [0; 512];
        loop {
            let n = ring().pop(&mut piece);
            if n == 0 {
                break;
            }
            write_raw(&piece[..n]);
            ring().done += n as u64;
        }
    } else if first {
        // Without it the last lines of a program may be missing; nothing else follows from its failing.
        let _ = super::unixsock::at_exit(exiting);
    }
}

/// Runs `f` with every signal blocked, for a thread to be started with that mask.
pub(crate) fn without_signals<T>(f: impl FnOnce() -> T) -> T {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the first call fills the set that the second one reads.
    let changed = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) == 0
    };
    let result = f();
    if changed {
        // SAFETY: the call above has filled it.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    }
    result
}

extern "C" fn exiting() {
    flush(EXIT_PATIENCE);
}

/// The writer. It may wait for the descriptor as long as it likes.
fn serve() {
    let _own = super::threads::Own::new();
    let mut piece = [0; PIECE];
    let mut refused = false;
    loop {
        let (n, lost) = {
            let mut ring = ring();
            loop {
                // After a refusal the next text finds out whether the descriptor is usable again.
                let tells = ring.lost > 0 && ring.lost_at <= ring.done && !(refused && ring.len == 0);
                let lost = if tells { ring.lost } else { 0 };
                let n = if tells { 0 } else { ring.pop(&mut piece) };
                if n > 0 || lost > 0 {
                    break (n, lost);
                }
                ring.idle = true;
                while ring.idle {
                    ring = TEXT.wait(ring).unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        if lost > 0 {
            refused = write_waiting(Loss::new(lost).text()) > 0;
            let mut ring = ring();
            if !refused {
                ring.lost -= lost;
                // What was lost since has its place behind what is in the ring by now.
                ring.lost_at = ring.put;
                continue;
            }
        }
        let n = if refused && n == 0 { ring().pop(&mut piece) } else { n };
        if n == 0 {
            continue;
        }
        let missed = write_waiting(&piece[..n]);
        refused = missed > 0;
        let mut ring = ring();
        ring.done += n as u64;
        if missed > 0 {
            ring.lost += missed;
            ring.lost_at = ring.done;
        }
        if ring.flushed_by > 0 {
            PROGRESS.notify_all();
        }
    }
}

/// Writes all of it and returns how many lines the descriptor refused.
fn write_waiting(mut rest: &[u8]) -> u64 {
    while !rest.is_empty() {
        // SAFETY: the bytes live across the call.
        let n = unsafe { libc::write(2, rest.as_ptr().cast(), rest.len()) };
        if n > 0 {
            rest = &rest[n as usize..];
            continue;
        }
        match std::io::Error::last_os_error().kind() {
            std::io::ErrorKind::Interrupted => {}
            std::io::ErrorKind::WouldBlock if n < 0 => {
                // Somebody made it non-blocking.
                if super::poll_fd(2, true, None).is_err() {
                    return lines(rest);
                }
            }
            _ => return lines(rest),
        }
    }
    0
}

/// Writes at once, on the caller's thread, what the descriptor takes without waiting; the rest is counted as lost.
/// Async-signal-safe: takes no lock and allocates nothing. It overtakes what is still in the ring.
pub(crate) fn write_raw(bytes: &[u8]) {
    let mut rest = bytes;
    // SAFETY: the thread's own errno.
    let before = unsafe { *super::errno_location() };
    while !rest.is_empty() && is_ready() {
        let n = write_now(&rest[..rest.len().min(READY)]);
        if n > 0 {
            rest = &rest[n as usize..];
        // SAFETY: the thread's own errno.
        } else if unsafe { *super::errno_location() } != libc::EINTR {
            break;
        }
    }
    if !rest.is_empty() {
        LOST_RAW.fetch_add(lines(rest), Ordering::Relaxed);
    }
    // SAFETY: the thread's own errno.
    unsafe { *super::errno_location() = before };
}

/// As `write(2)`. Between the question whether a pipe is ready and this call another thread or process may have filled it:
/// then it must not wait either, where the kernel can be told so.
fn write_now(bytes: &[u8]) -> isize {
    // SAFETY: plain data, which the call fills; the bytes live across the calls.
    unsafe {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            let mut stat: libc::stat = std::mem::zeroed();
            if libc::fstat(2, &mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFIFO {
                let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
                // An offset of -1 is where the descriptor stands.
                let n =
                    libc::syscall(libc::SYS_pwritev2, 2, &raw const part, 1, -1i64, -1i64, libc::RWF_NOWAIT) as isize;
                if n >= 0 || ![libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL].contains(&*super::errno_location()) {
                    return n;
                }
            }
        }
        libc::write(2, bytes.as_ptr().cast(), bytes.len())
    }
}

fn is_ready() -> bool {
    if cfg!(miri) {
        return true;
    }
    let mut entry = libc::pollfd { fd: 2, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry. A descriptor that is closed, or a pipe without a reader, is reported in `revents`.
    let known = unsafe { libc::poll(&raw mut entry, 1, 0) == 1 };
    let seen = entry.revents;
    // On Apple's systems a device cannot be asked, and says that it is not valid.
    let device = cfg!(target_vendor = "apple") && seen & libc::POLLNVAL != 0;
    known && (device || seen & libc::POLLOUT != 0 && seen & (libc::POLLERR | libc::POLLNVAL) == 0)
}

/// Says who is asked, with the time that is left, to bring its text at a flush.
pub(crate) fn fed_by(feeder: fn(Duration)) {
    FEEDER.store(feeder as usize, Ordering::Release);
    // The exit of the process waits from now on, also if nothing was written before it.
    if has_ring() && STARTED.load(Ordering::Acquire) == 0 {
        start();
    }
}

/// Waits, at most `patience`, until what was written before this call is out; whether it is.
pub(crate) fn flush(patience: Duration) -> bool {
    if !has_ring() {
        return true;
    }
    let feeder = FEEDER.load(Ordering::Acquire);
    if feeder != 0 {
        // SAFETY: only `fed_by` stores there, and only functions of this type.
        let feeder = unsafe { std::mem::transmute::<usize, fn(Duration)>(feeder) };
        feeder(patience);
    }
    // What the feeder brought last gets as much time as all else.
    let deadline = Instant::now() + patience;
    let mut ring = ring();
    let end = ring.put;
    ring.flushed_by += 1;
    while ring.done < end {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        ring = PROGRESS.wait_timeout(ring, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    ring.flushed_by -= 1;
    ring.done >= end
}

/// For the last words before an abort: what is in the ring gets a short time to come out, then the words follow.
pub(crate) fn last_words(text: &str) {
    flush(EXIT_PATIENCE);
    write_raw(text.as_bytes());
}

/// `ID:\tTIME TEXT`, Shrapnel's form, with the time that it is now.
pub(crate) fn line(id: u64, text: &str) -> String {
    format!("{id}:\t{} {text}", time_text(SystemTime::now()))
}

/// Writes such a line; a newline is added if there is none.
pub(crate) fn print(id: u64, text: &str) {
    let mut line = line(id, text);
    if !line.ends_with('\n') {
        line.push('\n');
    }
    write(&line);
}

#[cfg(not(miri))]
unsafe extern "C" {
    // POSIX has it everywhere; the `libc` crate does not, on FreeBSD.
    fn ctime_r(time: *const libc::time_t, buffer: *mut libc::c_char) -> *mut libc::c_char;
}

/// The local time as `ctime` writes it, without its newline: 24 characters.
pub(crate) fn time_text(at: SystemTime) -> String {
    let secs = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()) as libc::time_t;
    let mut buffer = [0u8; 32];
    #[cfg(not(miri))]
    // SAFETY: `ctime_r` writes at most 26 bytes.
    unsafe {
        ctime_r(&secs, buffer.as_mut_ptr().cast());
    }
    let _ = secs;
    let end = buffer.iter().position(|b| *b == b'\n' || *b == 0).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_as_somebody_would_have_seen_them() {
        for (text, n) in [("", 0), ("\n", 1), ("a", 1), ("a\nb", 2), ("a\nb\n", 2)] {
            assert_eq!(lines(text.as_bytes()), n, "{text:?}");
        }
    }

    #[test]
    fn a_loss_is_told_in_words() {
        assert_eq!(Loss::new(1).text(), b"coro: 1 line to stderr was lost\n");
        assert_eq!(Loss::new(u64::MAX).text(), format!("coro: {} lines to stderr were lost\n", u64::MAX).as_bytes());
    }

    #[test]
    fn the_ring_keeps_order_around_its_end_and_stops_where_a_loss_is_to_be_told() {
        let mut r = Box::new(Ring::new());
        r.head = ROOM - 3;
        r.push(b"abcdef");
        r.push(&vec![0; ROOM]);
        r.push(b"ghi");
        assert_eq!((r.lost, r.lost_at, r.put), (1, 6, 9));
        let mut piece = [0; 8];
        assert_eq!((r.pop(&mut piece), &piece[..6]), (6, &b"abcdef"[..]));
        r.done = 6;
        assert_eq!((r.pop(&mut piece), &piece[..3]), (3, &b"ghi"[..]));
    }

    #[test]
    fn of_a_text_that_is_too_long_the_first_lines_are_kept() {
        let mut r = Box::new(Ring::new());
        r.head = ROOM - 5;
        // 100 bytes a line: 1310 of 4000 fit.
        let line = format!("{}\n", "x".repeat(99));
        r.push(line.repeat(4000).as_bytes());
        let whole = ROOM / 100;
        assert_eq!((r.len, r.lost, r.lost_at), (100 * whole, (4000 - whole) as u64, 100 * whole as u64));
        // What still has room comes behind it.
        r.push(b"after\n");
        let mut all = vec![0; ROOM];
        let n = r.pop(&mut all);
        assert!(n == 100 * whole && all[..n].chunks(100).all(|l| l == line.as_bytes()));
        r.done += n as u64;
        assert_eq!((r.pop(&mut all), &all[..6]), (6, &b"after\n"[..]));
    }
}
