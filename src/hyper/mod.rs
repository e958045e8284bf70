//! What [hyper](https://hyper.rs) 1 asks of a runtime: its HTTP/1 and HTTP/2, server and client, in tasks.
//!
//! A connection is a future that a task runs with [`block_on`]. [`Io`] is its stream, [`Timer`] its
//! clock, and [`Executor`] gives each stream of HTTP/2 a task. A service may be `async`; it may also spawn a task for code that
//! waits straight on, and await its handle.
//!
//! ```ignore
//! use coro::hyper::{Io, Timer};
//! use hyper::{server::conn::http1, service::service_fn};
//!
//! coro::run(|| -> std::io::Result<()> {
//!     let listener = coro::net::TcpListener::bind("127.0.0.1:8080")?;
//!     loop {
//!         let (stream, peer) = listener.accept()?;
//!         coro::spawn_named(format!("http {peer}"), move || {
//!             let mut server = http1::Builder::new();
//!             // The clock lets hyper bound how long a client takes for its headers.
//!             coro::future::block_on(server.timer(Timer).serve_connection(Io::new(stream), service_fn(answer)))
//!         });
//!     }
//! })
//! ```
//!
//! That program is not compiled here, because of hyper this crate uses `hyper::rt` alone: which protocols there are is decided by
//! the features that a program asks of hyper. Those in `examples/ecosystem` are, server and client, and their tests ask them
//! with curl.
//!
//! In views a connection is `future hyper::server::conn::…`, with the descriptor that it waits for, and `count by class` counts
//! the streams of HTTP/2 as `hyper`.
//!
//! # Cancellation
//! A task that is cancelled drops its connection, which closes the stream at once; so does a [`timeout`](crate::timeout) around
//! `block_on`. Streams of HTTP/2 in tasks of their own notice that their connection is gone. For a farewell there is
//! hyper's `graceful_shutdown`.
//!
//! Must not know: protocols, sockets.

#![forbid(unsafe_code)]

use std::io::{self, BufRead, Cursor, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_io::{AsyncRead, AsyncWrite};

use crate::future::{Sleep, block_on, sleep, sleep_until};
use crate::scheduler::Builder;

/// So much is read at most at a time; what hyper's buffer has room for at first.
const CHUNK: usize = 8 << 10;

/// A stream as hyper reads and writes it: one of [`net`](crate::net), or any other that is `AsyncRead` and `AsyncWrite` of the
/// crate futures-io.
///
/// # Examples
/// ```
/// use std::future::poll_fn;
/// use std::pin::Pin;
///
/// use coro::hyper::Io;
/// use coro::net::unix::UnixStream;
/// use hyper::rt::{Read, ReadBuf, Write};
///
/// coro::run(|| -> std::io::Result<()> {
///     let (here, there) = UnixStream::pair()?;
///     let (mut here, mut there) = (Io::new(here), Io::new(there));
///     coro::future::block_on(poll_fn(|cx| Pin::new(&mut here).poll_write(cx, b"hello")))?;
///     let mut bytes = [0; 16];
///     let mut buf = ReadBuf::new(&mut bytes);
///     coro::future::block_on(poll_fn(|cx| Pin::new(&mut there).poll_read(cx, buf.unfilled())))?;
///     assert_eq!(buf.filled(), b"hello");
///     Ok(())
/// })
/// # .unwrap();
/// ```
#[derive(Debug)]
pub struct Io<T> {
    stream: T,
    /// Come first.
    first: Cursor<Vec<u8>>,
}

impl<T> Io<T> {
    /// Takes the stream over.
    pub fn new(stream: T) -> Io<T> {
        Io::after(Vec::new(), stream)
    }

    /// Takes over a stream of which these bytes have been read already: they are read again first. For who has to look what a
    /// client speaks, as HTTP/1 and HTTP/2 on one port.
    pub fn after(first: impl Into<Vec<u8>>, stream: T) -> Io<T> {
        Io { stream, first: Cursor::new(first.into()) }
    }

    /// The stream.
    pub fn get_ref(&self) -> &T {
        &self.stream
    }

    /// The stream, after an upgrade for example. What is left of the bytes that [`after`](Io::after) was given is gone.
    pub fn into_inner(self) -> T {
        self.stream
    }
}

impl<T: AsyncRead + Unpin> ::hyper::rt::Read for Io<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ::hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let first = this.first.fill_buf()?;
        if !first.is_empty() {
            let n = first.len().min(buf.remaining());
            buf.put_slice(&first[..n]);
            this.first.consume(n);
            return Poll::Ready(Ok(()));
        }
        // By way of the stack, because hyper's buffer may be uninitialised, and the trait below reads into bytes that are not.
        let mut bytes = [0; CHUNK];
        let room = CHUNK.min(buf.remaining());
        let n = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut bytes[..room]))?;
        buf.put_slice(&bytes[..n]);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> ::hyper::rt::Write for Io<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

/// Runs each future that hyper has for it in a task of its own, of the class `hyper`, on any worker.
///
/// If there is no room for another task the future is dropped, which ends its stream of HTTP/2 and no other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Executor;

impl<F> ::hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        drop(Builder::new().class("hyper").spawn(|| block_on(future)));
    }
}

/// As [`Executor`], on the worker of the connection: for services that hold what is not `Send`, and where streams share so much
/// that one worker for all of a connection is better.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalExecutor;

impl<F> ::hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        drop(Builder::new().class("hyper").spawn_local(|| block_on(future)));
    }
}

/// hyper's timeouts: [`future::sleep`](crate::future::sleep()).
#[derive(Debug, Clone, Copy, Default)]
pub struct Timer;

impl ::hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn ::hyper::rt::Sleep>> {
        Box::pin(sleep(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn ::hyper::rt::Sleep>> {
        Box::pin(sleep_until(deadline))
    }
}

impl ::hyper::rt::Sleep for Sleep {}
