//! Where lines of instruments go: to stderr, or to whoever takes them.
//!
//! Invariants: a line never waits. What finds no room, or comes too fast, is counted and not even made. Nothing of a line steers a
//! terminal or begins another one, whoever has named what is in it.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::tally::Tally;
use super::text::into_plain;
use crate::scheduler::suspend::here;
use crate::sys::stderr;

/// Lines a second that stderr gets of one sink.
const LINES_TO_STDERR: u64 = 500;
/// Bytes that wait for whoever takes them.
const ROOM: usize = 256 * 1024;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Sink {
    to: To,
    told: Tally,
    lost: Tally,
}

#[derive(Debug)]
enum To {
    Stderr(PerSecond),
    Queue(Queue),
}

#[derive(Debug)]
struct Queue {
    /// std's, which takes no lock to send.
    tail: Sender<String>,
    head: Mutex<Receiver<String>>,
    /// Bytes that wait.
    waiting: AtomicUsize,
    closed: AtomicBool,
}

impl Queue {
    fn head(&self) -> MutexGuard<'_, Receiver<String>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// Writes to stderr, as `print_stderr` does.
    pub(super) fn stderr() -> Sink {
        Sink { to: To::Stderr(PerSecond::new(LINES_TO_STDERR)), told: Tally::new(), lost: Tally::new() }
    }

    /// Keeps lines until somebody takes them.
    pub(super) fn queue() -> Sink {
        let (tail, head) = channel();
        let (waiting, closed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let queue = Queue { tail, head: Mutex::new(head), waiting, closed };
        Sink { to: To::Queue(queue), told: Tally::new(), lost: Tally::new() }
    }

    /// Takes a line in, without a newline at its end; false if it is lost.
    pub(super) fn line(&self, make: impl FnOnce() -> String) -> bool {
        let taken = match &self.to {
            To::Stderr(limit) => {
                let room = limit.take();
                if room {
                    stderr::print(here().map_or(0, |h| h.id()), &into_plain(make()));
                }
                room
            }
            To::Queue(queue) => {
                let room = !queue.closed.load(Ordering::Relaxed) && queue.waiting.load(Ordering::Relaxed) < ROOM;
                room && {
                    let line = into_plain(make());
                    queue.waiting.fetch_add(line.len() + 1, Ordering::Relaxed);
                    queue.tail.send(line).is_ok()
                }
            }
        };
        if taken {
            self.told.add()
        } else {
            self.lost.add()
        }
        taken
    }

    /// The lines that wait, up to so many bytes.
    pub(super) fn take(&self, most: usize) -> Vec<String> {
        let To::Queue(queue) = &self.to else { return Vec::new() };
        let head = queue.head();
        let (mut out, mut size) = (Vec::new(), 0);
        while size < most
            && let Ok(line) = head.try_recv()
        {
            size += line.len() + 1;
            out.push(line);
        }
        queue.waiting.fetch_sub(size, Ordering::Relaxed);
        out
    }

    /// Whether lines wait.
    pub(super) fn waits(&self) -> bool {
        matches!(&self.to, To::Queue(queue) if queue.waiting.load(Ordering::Relaxed) > 0)
    }

    /// Whether nobody takes any more.
    pub(super) fn is_closed(&self) -> bool {
        matches!(&self.to, To::Queue(queue) if queue.closed.load(Ordering::Acquire))
    }

    /// Nobody takes any more.
    pub(super) fn close(&self) {
        if let To::Queue(queue) = &self.to {
            queue.closed.store(true, Ordering::Release);
            drop(self.take(usize::MAX));
        }
    }

    /// Lines that were taken in, and that were lost.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.told.sum(), self.lost.sum())
    }
}

/// So many of something in each second.
#[derive(Debug)]
pub(super) struct PerSecond {
    most: u64,
    begun: Instant,
    /// The second in the upper half, how many were in it in the lower.
    count: AtomicU64,
}

impl PerSecond {
    pub(super) fn new(most: u64) -> PerSecond {
        PerSecond { most: most.min(u64::from(u32::MAX)), begun: Instant::now(), count: AtomicU64::new(0) }
    }

    /// Whether there is room for one more.
    pub(super) fn take(&self) -> bool {
        let second = self.begun.elapsed().as_secs() << 32;
        let more = |count: u64| if count & !0xffff_ffff == second { count + 1 } else { second + 1 };
        let allowed = |count: u64| more(count) & 0xffff_ffff <= self.most;
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |c| allowed(c).then(|| more(c))).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_find_no_room_are_counted_and_not_made() {
        let sink = Sink::queue();
        let long = "x".repeat(1023);
        for _ in 0..ROOM / 1024 {
            sink.line(|| long.clone());
        }
        sink.line(|| unreachable!("it is full"));
        assert_eq!(sink.counts(), (ROOM as u64 / 1024, 1));
        assert_eq!(sink.take(2048).len(), 2);
        sink.line(|| "one more".to_owned());
        assert_eq!(sink.take(usize::MAX).last().map(String::as_str), Some("one more"));
        assert!(sink.take(usize::MAX).is_empty());
        sink.close();
        sink.line(|| unreachable!("nobody takes it"));
    }

    #[test]
    fn lines_are_lines_and_steer_no_terminal() {
        let sink = Sink::queue();
        sink.line(|| "a\u{1b}[31m\nb: \"it's\" 1.2 µs \u{ad}\u{202e}…".to_owned());
        assert_eq!(sink.take(usize::MAX), [r#"a\u{1b}[31m\nb: "it's" 1.2 µs \u{ad}\u{202e}…"#]);
    }

    #[test]
    fn a_second_has_room_for_so_many() {
        let limit = PerSecond::new(3);
        assert_eq!((0..10).filter(|_| limit.take()).count(), 3);
    }
}
