//! What the tests of sockets share.

use std::io::{self, ErrorKind};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use coro::net::{TcpListener, TcpStream};

use super::{runtime, until, within};

pub(crate) const LONG: Duration = Duration::from_secs(60);
/// What no time limit may be late by, however busy the machine is.
pub(crate) const LATE: Duration = Duration::from_secs(5);

/// Runs `f` as a task of a fresh runtime, with a deadline.
#[track_caller]
pub(crate) fn on<T: Send + 'static>(workers: usize, f: impl FnOnce() -> T + Send + 'static) -> T {
    within(LONG, move || runtime(workers).block_on(f))
}

/// Runs `f` on a plain thread, with one worker and with four.
#[track_caller]
pub(crate) fn everywhere(f: fn()) {
    within(LONG, f);
    on(1, f);
    on(4, f);
}

pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (a, listener.accept().unwrap().0)
}

pub(crate) fn is_parked(id: u64) -> bool {
    coro::where_is(id).is_some_and(|t| t.to_string().contains("parked"))
}

/// Spawns on the given worker and waits until the task is parked.
pub(crate) fn parked<T: Send + 'static>(worker: usize, f: impl FnOnce() -> T + Send + 'static) -> coro::JoinHandle<T> {
    let task = coro::Builder::new().worker(worker).spawn(f).unwrap();
    until(LONG, "it parks", || is_parked(task.id()));
    task
}

pub(crate) fn blocking(fd: RawFd) -> bool {
    // SAFETY: no pointer is passed.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    assert!(flags >= 0);
    flags & libc::O_NONBLOCK == 0
}

/// How long `f` took to end with what an expired time limit gives.
#[track_caller]
pub(crate) fn expires<T: std::fmt::Debug>(limit: Duration, f: impl FnOnce() -> io::Result<T>) {
    let start = Instant::now();
    let e = f().expect_err("the time limit passes");
    let took = start.elapsed();
    assert_eq!((e.kind(), e.raw_os_error()), (ErrorKind::WouldBlock, Some(libc::EAGAIN)), "{e}");
    assert!(took >= limit, "{limit:?} were over after {took:?}");
    assert!(took < limit + LATE, "{limit:?} took {took:?}");
}

#[track_caller]
pub(crate) fn was_closed<T: std::fmt::Debug>(result: io::Result<T>) {
    let e = result.expect_err("a closed socket gives errors");
    assert_eq!(e.kind(), ErrorKind::NotConnected, "{e}");
    assert!(e.to_string().contains("closed by another task"), "{e}");
}

/// A folder for sockets that goes away with the test.
pub(crate) struct Directory(pub(crate) std::path::PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        use std::os::unix::fs::DirBuilderExt;
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("coro-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // Of a process that had this number before and was killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Directory(path)
    }

    pub(crate) fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
