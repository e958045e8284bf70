//! Standard input, output and error for tasks.
//!
//! The descriptors 0 to 2 belong to more than this process: a terminal is the shell's and that of every program started from it.
//! So their flags are never changed, and no worker ever calls `read` or `write` on them, which may block however ready
//! they seemed: another process may have read in between, or a terminal may have stopped its output.
//!
//! * **Input**: a task waits until the descriptor is readable, by the reactor as for a socket, and only then has a thread of the
//!   pool read what there is. So a task that waits and is cut short has taken nothing from whoever reads next, and no thread sits in
//!   `read` meanwhile. What cannot be waited for (a file) is read at once. Should somebody else have been faster, that thread waits,
//!   and what it reads later is kept for the next read.
//! * **Output** goes to the pool, one call at a time and in order; each call has its bytes, so one that was cut short goes on to its
//!   end. Who comes meanwhile waits parked: output that nobody takes holds one thread of the pool up, not one for each call.
//!
//! Invariants: at most one job reads; what it read belongs to the next reader. Must not know: lines of a console session.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex as Plain, PoisonError};

use crate::blocking::{self, Line, Turn, call_in_turn, wait_for_turn};
use crate::observe::{FileCall, WaitKind};
use crate::reactor::Direction;
use crate::scheduler::io::Source;
use crate::scheduler::suspend::here;
use crate::sync::{Mutex, MutexGuard, ReentrantLock, ReentrantLockGuard};
use crate::sys::file::{read_standard, write_standard};
use crate::sys::poll_fd;

/// What is read at once.
const PIECE: usize = 8 * 1024;

/// What was read and not yet taken.
#[derive(Debug)]
struct Input {
    bytes: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
}

static INPUT: Mutex<Input> = Mutex::new(Input { bytes: Vec::new(), taken: 0 }).named("stdin");
/// What a job has read whose reader may have left. An empty text is an end of input.
static READ: Plain<Option<io::Result<Vec<u8>>>> = Plain::new(None);
static READING: Line = Line::new();

/// Standard input, for tasks; as [`std::io::stdin`].
///
/// One buffer for the process, beside that of std's `stdin`: use one of the two. A file and `/dev/null` are read on the blocking pool,
/// everything else is waited for first (`read fd 0 stdin`).
///
/// # Cancellation
/// Reads are I/O calls: an interrupt of the task is returned once as an error, then it unwinds. Nothing is lost: what came
/// is for the next who reads.
///
/// # Examples
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// coro::run(|| {
///     for line in coro::io::stdin().lines() {
///         println!("{}", line?.to_uppercase());
///     }
///     Ok(())
/// })
/// # }
/// ```
pub fn stdin() -> Stdin {
    Stdin(())
}

/// See [`stdin`].
#[derive(Debug)]
pub struct Stdin(());

/// Standard input, locked: what is read through it comes in one piece.
///
/// While it is held, cancellation and timeouts reach the holder as errors of I/O calls only.
pub struct StdinLock<'a>(MutexGuard<'a, Input>);

/// Goes through the lines of standard input; see [`Stdin::lines`].
pub type StdinLines = io::Lines<StdinLock<'static>>;

impl Stdin {
    /// Waits until nobody else reads.
    pub fn lock(&self) -> StdinLock<'static> {
        StdinLock(INPUT.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Appends the next line to `buf`, with its end; 0 bytes at the end of the input.
    ///
    /// # Errors
    /// Of reading; if it is no UTF-8; the task's interrupt.
    pub fn read_line(&self, buf: &mut String) -> io::Result<usize> {
        self.lock().read_line(buf)
    }

    /// Goes through the lines, without their ends.
    pub fn lines(self) -> StdinLines {
        self.lock().lines()
    }
}

impl StdinLock<'_> {
    fn fill(&mut self) -> io::Result<&[u8]> {
        let input = &mut *self.0;
        if input.taken == input.bytes.len() {
            input.bytes = next_piece()?;
            input.taken = 0;
        }
        Ok(&input.bytes[input.taken..])
    }
}

/// The next bytes; none at the end.
fn next_piece() -> io::Result<Vec<u8>> {
    let take = || READ.lock().unwrap_or_else(PoisonError::into_inner).take();
    loop {
        // An abandoned job's, or ours.
        if let Some(bytes) = take() {
            return bytes;
        }
        if let Some(h) = here() {
            h.checkpoint_io()?;
            if READING.is_idle() {
                wait_for_input()?;
            }
        }
        call_in_turn(FileCall::Read, &Arc::from("stdin"), READING.turn(), move || {
            let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
            if read.is_some() {
                return Ok(());
            }
            drop(read);
            let mut bytes = vec![0; PIECE];
            let result = loop {
                match read_standard(0, &mut bytes) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    // Somebody else made it non-blocking.
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        poll_fd(0, false, None)?;
                    }
                    // As std: a process may have been started without.
                    Err(e) if e.raw_os_error() == Some(libc::EBADF) => break Ok(0),
                    result => break result,
                }
            };
            read = READ.lock().unwrap_or_else(PoisonError::into_inner);
            *read = Some(result.map(|n| {
                bytes.truncate(n);
                bytes
            }));
            Ok(())
        })?;
    }
}

/// Parks until there is something to read. Nothing is registered afterwards: the number may be given to something else.
fn wait_for_input() -> io::Result<()> {
    let ready = || -> io::Result<()> {
        match poll_fd(0, false, Some(std::time::Duration::ZERO)) {
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            // What is wrong with it, the read tells.
            _ => Ok(()),
        }
    };
    let mut source = Source::new(0, 0);
    let outcome = source.run(Direction::Read, WaitKind::Read, ready);
    source.deregister();
    match outcome {
        // A file: always ready, and the system refuses to wait for it.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => Ok(()),
        other => other,
    }
}

impl Read for StdinLock<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut bytes = self.fill()?;
        let n = bytes.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for StdinLock<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill()
    }

    fn consume(&mut self, n: usize) {
        self.0.taken += n;
    }
}

impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buf)
    }
}

impl Read for &Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buf)
    }
}

impl fmt::Debug for StdinLock<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdinLock").finish_non_exhaustive()
    }
}

/// One of the two that are written to.
struct Output {
    fd: RawFd,
    name: &'static str,
    line: Line,
    lock: ReentrantLock<RefCell<Vec<u8>>>,
    /// What locks that were dropped have left, for a job that is on its way; nothing: there is none.
    left: Plain<Vec<u8>>,
}

/// The job that writes what was left.
struct WritesLeft {
    output: &'static Output,
    turn: Turn,
    ran: bool,
}

static STDOUT: Output = Output::new(1, "stdout");
static STDERR: Output = Output::new(2, "stderr");

impl Output {
    const fn new(fd: RawFd, name: &'static str) -> Output {
        let lock = ReentrantLock::new(RefCell::new(Vec::new())).named(name);
        Output { fd, name, line: Line::new(), lock, left: Plain::new(Vec::new()) }
    }

    /// Writes all of it, after what was written before.
    fn write(&'static self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (bytes, fd) = (bytes.to_vec(), self.fd);
        call_in_turn(FileCall::Write, &Arc::from(self.name), self.line.turn(), move || write_all(fd, &bytes))
    }

    /// As [`write`](Output::write) where nobody can be told that nothing was written: the bytes are on their way before an interrupt
    /// of the task is looked at.
    fn write_at_drop(&'static self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        if here().is_none() {
            let _ = self.write(&bytes);
            return;
        }
        {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            let on_its_way = !left.is_empty();
            left.extend_from_slice(&bytes);
            if !on_its_way {
                let job = WritesLeft { output: self, turn: self.line.turn(), ran: false };
                drop(left);
                let file = (FileCall::Write, Arc::from(self.name));
                if let Ok(job) = blocking::begin(Some(file), move || job.run()) {
                    job.leave_alone();
                }
            }
        }
        // A program that goes on, or ends, finds it written.
        let _ = wait_for_turn(FileCall::Write, &Arc::from(self.name), &self.line.turn());
    }
}

impl WritesLeft {
    fn run(mut self) {
        self.turn.wait();
        self.ran = true;
        let bytes = std::mem::take(&mut *self.output.left.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = write_all(self.output.fd, &bytes);
    }
}

impl Drop for WritesLeft {
    /// Also where the pool has no thread for it: the next one must not take it to be on its way.
    fn drop(&mut self) {
        if !self.ran {
            self.output.left.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

fn write_all(fd: RawFd, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match write_standard(fd, rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => rest = &rest[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else made it non-blocking.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                poll_fd(fd, true, None)?;
            }
            // As std: a process may have been started without.
            Err(e) if e.raw_os_error() == Some(libc::EBADF) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

macro_rules! outputs {
    ($($(#[$doc:meta])* $make:ident, $out:ident, $lock:ident, $static:ident;)*) => {$(
        $(#[$doc])*
        pub fn $make() -> $out {
            $out(())
        }

        #[doc = concat!("See [`", stringify!($make), "`].")]
        #[derive(Debug)]
        pub struct $out(());

        #[doc = concat!("[`", stringify!($out), "`], locked: what is written through it comes out in one piece, lines and")]
        /// all, when it is flushed or dropped, or when 8 KiB have come together.
        ///
        /// A task may lock again what it has locked. While it is held, cancellation and timeouts reach the holder as errors of
        /// I/O calls only.
        pub struct $lock<'a>(ReentrantLockGuard<'a, RefCell<Vec<u8>>>);

        impl $out {
            /// Waits until nobody else writes.
            pub fn lock(&self) -> $lock<'static> {
                $lock($static.lock.lock())
            }
        }

        impl Write for $out {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                let mut lock = self.lock();
                let n = lock.write(buf)?;
                lock.flush().map(|()| n)
            }
            fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> io::Result<()> {
                let mut lock = self.lock();
                lock.write_fmt(args)?;
                lock.flush()
            }
            fn flush(&mut self) -> io::Result<()> {
                self.lock().flush()
            }
        }

        impl Write for &$out {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                $out(()).write(buf)
            }
            fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> io::Result<()> {
                $out(()).write_fmt(args)
            }
            fn flush(&mut self) -> io::Result<()> {
                $out(()).flush()
            }
        }

        impl Write for $lock<'_> {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                let mut kept = self.0.borrow_mut();
                kept.extend_from_slice(buf);
                let full = kept.len() >= PIECE;
                drop(kept);
                if full {
                    self.flush()?;
                }
                Ok(buf.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                let kept = std::mem::take(&mut *self.0.borrow_mut());
                $static.write(&kept)
            }
        }

        impl Drop for $lock<'_> {
            fn drop(&mut self) {
                let kept = std::mem::take(&mut *self.0.borrow_mut());
                $static.write_at_drop(kept);
            }
        }

        impl fmt::Debug for $lock<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($lock)).finish_non_exhaustive()
            }
        }
    )*};
}

outputs! {
    /// Standard output, for tasks; as [`std::io::stdout`], but nothing is kept back: each call writes what it was given, one
    /// `write!` in one piece. [`lock`](Stdout::lock) it to write more at once.
    ///
    /// Does not come to standard output in order with std's `println!`, which keeps lines back for itself.
    ///
    /// # Cancellation
    /// Writes are I/O calls: an interrupt of the task is returned once as an error, then it unwinds. What was begun is written to
    /// its end, and before what comes later; what still waited for others to be written is not. A lock that is dropped is written
    /// in any case.
    ///
    /// # Examples
    /// ```
    /// use coro::io::Write;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// coro::run(|| {
    ///     writeln!(coro::io::stdout(), "a line")?;
    ///     let mut out = coro::io::stdout().lock();
    ///     (1..=3).try_for_each(|n| writeln!(out, "line {n} of one piece"))
    /// })
    /// # }
    /// ```
    stdout, Stdout, StdoutLock, STDOUT;
    /// Standard error, for tasks; as [`stdout`]. For lines that must never hold anybody up: [`print_stderr!`](crate::print_stderr!).
    stderr, Stderr, StderrLock, STDERR;
}

macro_rules! descriptors {
    ($($of:ident: $fd:literal, $std:ident;)*) => {$(
        impl $of {
            /// Whether it is a terminal; what std's `IsTerminal` says, which is closed to other types.
            pub fn is_terminal(&self) -> bool {
                io::$std().is_terminal()
            }
        }
        impl AsRawFd for $of {
            fn as_raw_fd(&self) -> RawFd {
                $fd
            }
        }
    )*};
}

descriptors! {
    Stdin: 0, stdin;
    Stdout: 1, stdout;
    Stderr: 2, stderr;
}
