//! Copying from one stream to another, and both ways between two.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::net::TcpStream;
use crate::net::unix::UnixStream;
use crate::scheduler::suspend::{here, is_cancel, shield};
use crate::thread;

/// What is read at once. std takes 8 KiB; over sockets that are full each read is a system call, and the buffer lies on the
/// heap here.
const PIECE: usize = 64 * 1024;

/// Copies everything that `reader` gives to `writer`, to the end; returns how many bytes that was. As [`std::io::copy`].
///
/// # Errors
/// Of reading and writing, but for `Interrupted`. What was written before has gone, and how much that was is not told.
///
/// # Cancellation
/// As of what is read and written. What was read and could not be written is lost.
///
/// # Examples
/// ```
/// let mut to = Vec::new();
/// assert_eq!(coro::io::copy(&mut &b"seven bytes"[..5], &mut to).unwrap(), 5);
/// ```
pub fn copy<R, W>(reader: &mut R, writer: &mut W) -> io::Result<u64>
where
    R: Read + ?Sized,
    W: Write + ?Sized,
{
    let (mut buf, mut total) = (vec![0; PIECE], 0);
    loop {
        let n = match reader.read(&mut buf) {
            Ok(0) => return Ok(total),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        writer.write_all(&buf[..n])?;
        total += n as u64;
    }
}

/// A stream between two ends that can be ended one way only; for [`copy_bidirectional`].
///
/// Implemented for the streams of [`net`](crate::net). It can be for others that are read and written through a shared
/// reference.
pub trait HalfClose: Sync {
    /// Ends one or both directions. A direction that is ended already is no error that matters.
    ///
    /// # Errors
    /// Of the system.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
}

impl HalfClose for TcpStream {
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        TcpStream::shutdown(self, how)
    }
}

impl HalfClose for UnixStream {
    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        UnixStream::shutdown(self, how)
    }
}

/// Copies what `a` gives to `b` and what `b` gives to `a`, both at once, until both have come to their ends. Returns how many
/// bytes went to `b`, and how many to `a`.
///
/// When one direction has come to its end, that end is passed on ([`shutdown`](HalfClose::shutdown) of writing) and the other
/// direction goes on: a client that says all it has to say, ends its direction and reads the answer, gets it.
///
/// # Errors
/// The first error of either direction. Both streams are shut down then, so that the other direction ends as well, and what was
/// under way is lost.
///
/// # Cancellation
/// An I/O call: an interrupt is returned once as an error, after both streams were shut down; then it unwinds (at once where only
/// the direction to `a` is left). That direction is a task (on a plain thread, a thread), which has ended when this returns.
///
/// # Examples
/// ```
/// use coro::net::unix::UnixStream;
/// use std::io::{Read, Write};
/// use std::net::Shutdown;
///
/// # fn main() -> std::io::Result<()> {
/// coro::run(|| {
///     let ((mut client, front), (back, mut server)) = (UnixStream::pair()?, UnixStream::pair()?);
///     let proxy = coro::spawn(move || coro::io::copy_bidirectional(&front, &back));
///     client.write_all(b"question")?;
///     client.shutdown(Shutdown::Write)?; // half closed: the answer comes nevertheless
///     let mut question = String::new();
///     server.read_to_string(&mut question)?;
///     server.write_all(b"the answer")?;
///     drop(server);
///     let mut answer = String::new();
///     client.read_to_string(&mut answer)?;
///     assert_eq!((&*question, &*answer), ("question", "the answer"));
///     assert_eq!(proxy.join().unwrap()?, (8, 10));
///     Ok(())
/// })
/// # }
/// ```
pub fn copy_bidirectional<A, B>(a: &A, b: &B) -> io::Result<(u64, u64)>
where
    A: HalfClose + ?Sized,
    B: HalfClose + ?Sized,
    for<'x> &'x A: Read + Write,
    for<'x> &'x B: Read + Write,
{
    let failed = AtomicBool::new(false);
    // The other direction must not go on to wait for what cannot be passed on; not for the bytes of a stream that panics either.
    let one_way = |both_ends: BothEnds<'_, A, B>, result: io::Result<u64>| {
        let first = result.is_err() && !failed.swap(true, Ordering::SeqCst);
        if result.is_ok() {
            std::mem::forget(both_ends);
        }
        result.map_err(|e| (first, e))
    };
    let there = || one_way(BothEnds(a, b), copy_and_end(a, b));
    let back = || one_way(BothEnds(a, b), copy_and_end(b, a));
    let (there, back) = match here() {
        Some(h) => {
            // Before there is a second task that would have to be told.
            h.checkpoint_io()?;
            thread::scope(|s| {
                let back = thread::Builder::new().name("copy back".into()).spawn_scoped(s, back)?;
                // An unwind out of here must end the other direction too, which the scope waits for.
                let both_ends = BothEnds(a, b);
                let there = there();
                let back = if there.is_ok() {
                    back.join()
                } else {
                    // An interrupt, most likely: it is to be told as an error, and not raised by the wait for the other one.
                    back.cancel();
                    shield(|| back.join())
                        .or_else(|payload| if is_cancel(&*payload) { Ok(Ok(0)) } else { Err(payload) })
                };
                std::mem::forget(both_ends);
                Ok::<_, io::Error>((there, back))
            })?
        }
        None => std::thread::scope(|s| {
            let back = std::thread::Builder::new().name("copy back".into()).spawn_scoped(s, back)?;
            Ok::<_, io::Error>((there(), back.join()))
        })?,
    };
    let back = back.unwrap_or_else(|payload| std::panic::resume_unwind(payload));
    match (there, back) {
        (Ok(there), Ok(back)) => Ok((there, back)),
        // The one that failed second failed because its streams were shut down.
        (Err((false, _)) | Ok(_), Err((_, e))) | (Err((_, e)), _) => Err(e),
    }
}

/// One direction, with its end.
fn copy_and_end<A, B>(from: &A, to: &B) -> io::Result<u64>
where
    A: ?Sized,
    B: HalfClose + ?Sized,
    for<'x> &'x A: Read,
    for<'x> &'x B: Write,
{
    let total = copy(&mut &*from, &mut &*to)?;
    (&mut &*to).flush()?;
    // Whoever does not listen any more needs no end.
    let _ = to.shutdown(Shutdown::Write);
    Ok(total)
}

/// Shuts both streams down when it goes.
struct BothEnds<'a, A: HalfClose + ?Sized, B: HalfClose + ?Sized>(&'a A, &'a B);

impl<A: HalfClose + ?Sized, B: HalfClose + ?Sized> Drop for BothEnds<'_, A, B> {
    fn drop(&mut self) {
        let _ = (self.0.shutdown(Shutdown::Both), self.1.shutdown(Shutdown::Both));
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::scheduler::Runtime;

    /// A stream whose reads panic.
    struct Panics(UnixStream);

    impl Read for &Panics {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("a stream that panics")
        }
    }

    impl Write for &Panics {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            (&self.0).write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl HalfClose for Panics {
        fn shutdown(&self, how: Shutdown) -> io::Result<()> {
            self.0.shutdown(how)
        }
    }

    #[test]
    fn a_panic_of_either_direction_ends_both() {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        for swapped in [false, true] {
            let task = runtime.spawn(move || {
                let ((_client, front), (back, _server)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
                // Nobody says anything: the other direction ends only if it is ended.
                let panics = Panics(back);
                if swapped { copy_bidirectional(&panics, &front) } else { copy_bidirectional(&front, &panics) }
            });
            let deadline = Instant::now() + Duration::from_secs(10);
            while !task.is_finished() {
                assert!(Instant::now() < deadline, "the other direction goes on, {swapped}");
                std::thread::sleep(Duration::from_millis(1));
            }
            let payload = task.join().unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"a stream that panics"), "{swapped}");
        }
    }
}
