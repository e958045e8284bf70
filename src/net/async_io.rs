//! The traits of the crate futures-io for streams: what a future that is polled in a task reads from and writes to.

#![forbid(unsafe_code)]

/// Implements `AsyncRead` and `AsyncWrite`, by way of `self.socket`, for a stream and for references to it.
///
/// They are for futures that are polled in a task ([`block_on`](crate::future::block_on)); elsewhere they give an error of kind
/// `Unsupported`. Time limits and the non-blocking mode that were set on the stream are not for them. Closing shuts the writing
/// side down.
macro_rules! async_traits {
    (@one $stream:ty) => {
        impl futures_io::AsyncRead for $stream {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut [u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                self.socket.poll_read(cx, &mut [std::io::IoSliceMut::new(buf)])
            }
            fn poll_read_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &mut [std::io::IoSliceMut<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                self.socket.poll_read(cx, bufs)
            }
        }
        impl futures_io::AsyncWrite for $stream {
            fn poll_write(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                self.socket.poll_write(cx, &[std::io::IoSlice::new(buf)])
            }
            fn poll_write_vectored(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                self.socket.poll_write(cx, bufs)
            }
            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(Ok(()))
            }
            fn poll_close(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::task::Poll::Ready(self.shutdown(std::net::Shutdown::Write))
            }
        }
    };
    ($stream:ty) => {
        $crate::net::async_io::async_traits!(@one $stream);
        $crate::net::async_io::async_traits!(@one &$stream);
    };
}

pub(crate) use async_traits;
