//! [`BufWriter`] and [`LineWriter`]: std's, whose calls can be watched, and whose bytes that nobody has flushed are known.
//!
//! They are types of our own because nothing can be put into std's: a line that sits in a buffer while its writer waits for the answer
//! is what somebody looks for who does not know of it, and would not have wrapped his writer in anything. A `BufReader` is std's:
//! what it reads, its socket tells.
//!
//! Must not know: who watches.

#![forbid(unsafe_code)]

use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice, Seek, SeekFrom, Write, WriterPanicked};

#[cfg(feature = "probe")]
use super::unflushed::Held;
#[cfg(feature = "probe")]
use crate::observe::{Point, PointKind, PointName, Said, Shown, Woven};

/// What a call of a writer is: the text for its point, and what it is given.
#[cfg(feature = "probe")]
static POINTS: [Point; 2] = [
    Point::new(PointName::Fixed("coro::io::write"), PointKind::Function, file!(), line!(), line!(), &["into", "bytes"]),
    Point::new(PointName::Fixed("coro::io::flush"), PointKind::Function, file!(), line!(), line!(), &["into"]),
];

/// The points of writers.
#[cfg(feature = "probe")]
pub(crate) fn points() -> impl Iterator<Item = &'static Point> {
    POINTS.iter()
}

/// Calls `write` with these bytes on a writer of that kind, as a call of its point if somebody watches.
#[inline(always)]
fn writing<T>(
    kind: fn() -> &'static str,
    first: &[u8],
    all: usize,
    write: impl FnOnce() -> io::Result<T>,
    count: impl FnOnce(&T) -> usize,
) -> io::Result<T> {
    #[cfg(feature = "probe")]
    if POINTS[0].is_watched() {
        return told(&POINTS[0], kind, Some(Shown::Bytes(first, all)), write, |value| Shown::Int(count(value) as i64));
    }
    let _ = (kind, first, all, count);
    write()
}

#[inline(always)]
fn flushing(kind: fn() -> &'static str, flush: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    #[cfg(feature = "probe")]
    if POINTS[1].is_watched() {
        return told(&POINTS[1], kind, None, flush, |()| Shown::Unit);
    }
    let _ = kind;
    flush()
}

#[cfg(feature = "probe")]
#[cold]
#[inline(never)]
fn told<T>(
    point: &'static Point,
    kind: fn() -> &'static str,
    bytes: Option<Shown<'_>>,
    call: impl FnOnce() -> io::Result<T>,
    show: impl FnOnce(&T) -> Shown<'static>,
) -> io::Result<T> {
    let kind = Said(short(kind()));
    let kind = Shown::Debug(&kind);
    let woven = match bytes {
        Some(bytes) => Woven::begin(point, &[kind, bytes]),
        None => Woven::begin(point, &[kind]),
    };
    let result = call();
    woven.ended(result.as_ref().map(show));
    result
}

/// A type without the modules that its names stand in.
#[cfg(feature = "probe")]
fn short(kind: &str) -> String {
    let mut out = String::new();
    for part in kind.split_inclusive(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':'))) {
        let word = part.trim_end_matches(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':')));
        out.push_str(word.rsplit("::").next().unwrap_or(word));
        out.push_str(&part[word.len()..]);
    }
    out
}

/// The first bytes of several pieces, and how many there are in all.
fn pieces<'a>(bufs: &'a [IoSlice<'_>]) -> (&'a [u8], usize) {
    let first: &[u8] = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| buf);
    (first, bufs.iter().map(|buf| buf.len()).sum())
}

/// Gathers small writes and passes them on as large ones; as [`std::io::BufWriter`], which does the work.
///
/// What is gathered is sent by a [`flush`](Write::flush), when there is no more room, or when this is dropped: whoever waits for an answer
/// to what is still in here waits for ever. [`probe::net`](crate::probe::net) shows writes into it beside the calls of sockets, and
/// marks a read of a task whose writers hold bytes: `37 bytes unflushed`.
///
/// Converts from and to std's type.
///
/// # Examples
/// ```
/// use coro::io::{BufWriter, Write};
///
/// let mut writer = BufWriter::new(Vec::new());
/// writer.write_all(b"a line\n").unwrap();
/// assert_eq!((writer.get_ref().len(), writer.buffer()), (0, &b"a line\n"[..]));
/// writer.flush().unwrap();
/// assert_eq!(writer.get_ref(), b"a line\n");
/// ```
pub struct BufWriter<W: ?Sized + Write> {
    #[cfg(feature = "probe")]
    held: Held,
    inner: io::BufWriter<W>,
}

impl<W: Write> BufWriter<W> {
    /// With std's usual room, 8 KiB.
    pub fn new(inner: W) -> BufWriter<W> {
        io::BufWriter::new(inner).into()
    }

    /// With room for so many bytes.
    pub fn with_capacity(capacity: usize, inner: W) -> BufWriter<W> {
        io::BufWriter::with_capacity(capacity, inner).into()
    }

    /// The writer underneath, after a flush.
    ///
    /// # Errors
    /// If what is in the buffer cannot be written; everything is in the error.
    pub fn into_inner(self) -> Result<W, IntoInnerError<BufWriter<W>>> {
        io::BufWriter::from(self).into_inner().map_err(|e| {
            let (error, writer) = e.into_parts();
            IntoInnerError { writer: writer.into(), error }
        })
    }

    /// The writer underneath and what was not written, without an attempt to write it.
    pub fn into_parts(self) -> (W, Result<Vec<u8>, WriterPanicked>) {
        io::BufWriter::from(self).into_parts()
    }
}

impl<W: ?Sized + Write> BufWriter<W> {
    /// The writer underneath.
    pub fn get_ref(&self) -> &W {
        self.inner.get_ref()
    }

    /// The writer underneath; what is written there by itself comes before what is in the buffer.
    pub fn get_mut(&mut self) -> &mut W {
        self.inner.get_mut()
    }

    /// What was not passed on yet.
    pub fn buffer(&self) -> &[u8] {
        self.inner.buffer()
    }

    /// For how many bytes there is room.
    pub fn capacity(&self) -> usize {
        self.inner.capacity()
    }

    /// Does that, and says what it holds afterwards.
    #[inline(always)]
    fn noted<R>(&mut self, call: impl FnOnce(&mut io::BufWriter<W>) -> R) -> R {
        let result = call(&mut self.inner);
        #[cfg(feature = "probe")]
        self.held.set(self.inner.buffer().len());
        result
    }
}

impl<W: Write> From<io::BufWriter<W>> for BufWriter<W> {
    /// With what is in its buffer.
    fn from(inner: io::BufWriter<W>) -> BufWriter<W> {
        let mut writer = BufWriter {
            #[cfg(feature = "probe")]
            held: Held::default(),
            inner,
        };
        writer.noted(|_| ());
        writer
    }
}

impl<W: Write> From<BufWriter<W>> for io::BufWriter<W> {
    /// With what is in its buffer, which is no longer told of.
    fn from(writer: BufWriter<W>) -> io::BufWriter<W> {
        writer.inner
    }
}

impl<W: ?Sized + Write> Write for BufWriter<W> {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        writing(type_name::<Self>, buf, buf.len(), || self.noted(|inner| inner.write(buf)), |n| *n)
    }

    #[inline]
    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        writing(type_name::<Self>, buf, buf.len(), || self.noted(|inner| inner.write_all(buf)), |()| buf.len())
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let (first, all) = pieces(bufs);
        writing(type_name::<Self>, first, all, || self.noted(|inner| inner.write_vectored(bufs)), |n| *n)
    }

    fn flush(&mut self) -> io::Result<()> {
        flushing(type_name::<Self>, || self.noted(|inner| inner.flush()))
    }
}

impl<W: ?Sized + Write + Seek> Seek for BufWriter<W> {
    /// After a flush.
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.noted(|inner| inner.seek(pos))
    }
}

impl<W: ?Sized + Write + fmt::Debug> fmt::Debug for BufWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// What is underneath a [`LineWriter`]: std's does not say how much it holds, so what comes through is counted.
struct Through<W: ?Sized> {
    bytes: u64,
    inner: W,
}

impl<W: ?Sized + Write> Write for Through<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.inner.write(buf).inspect(|n| self.bytes += *n as u64)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.inner.write_vectored(bufs).inspect(|n| self.bytes += *n as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<W: ?Sized + fmt::Debug> fmt::Debug for Through<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Gathers writes and passes them on at the end of each line; as [`std::io::LineWriter`], which does the work. What it holds
/// is known as that of a [`BufWriter`].
pub struct LineWriter<W: ?Sized + Write> {
    /// Bytes that went in.
    bytes: u64,
    #[cfg(feature = "probe")]
    held: Held,
    inner: io::LineWriter<Through<W>>,
}

impl<W: Write> LineWriter<W> {
    /// With std's usual room, 1 KiB.
    pub fn new(inner: W) -> LineWriter<W> {
        LineWriter::of(io::LineWriter::new(Through { bytes: 0, inner }), 0)
    }

    /// With room for so many bytes.
    pub fn with_capacity(capacity: usize, inner: W) -> LineWriter<W> {
        LineWriter::of(io::LineWriter::with_capacity(capacity, Through { bytes: 0, inner }), 0)
    }

    fn of(inner: io::LineWriter<Through<W>>, bytes: u64) -> LineWriter<W> {
        LineWriter {
            bytes,
            #[cfg(feature = "probe")]
            held: Held::default(),
            inner,
        }
    }

    /// The writer underneath; what is written there by itself comes before what is in the buffer.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner.get_mut().inner
    }

    /// The writer underneath, after a flush.
    ///
    /// # Errors
    /// If what is in the buffer cannot be written; everything is in the error.
    pub fn into_inner(self) -> Result<W, IntoInnerError<LineWriter<W>>> {
        let bytes = self.bytes;
        self.inner.into_inner().map(|through| through.inner).map_err(|e| {
            let (error, writer) = e.into_parts();
            let mut writer = LineWriter::of(writer, bytes);
            let _ = writer.noted(|_| Ok(()), |()| 0);
            IntoInnerError { writer, error }
        })
    }
}

impl<W: ?Sized + Write> LineWriter<W> {
    /// The writer underneath.
    pub fn get_ref(&self) -> &W {
        &self.inner.get_ref().inner
    }

    /// Does that, which takes so many bytes in, and says what it holds afterwards.
    fn noted<T>(
        &mut self,
        call: impl FnOnce(&mut io::LineWriter<Through<W>>) -> io::Result<T>,
        count: impl FnOnce(&T) -> usize,
    ) -> io::Result<T> {
        let result = call(&mut self.inner);
        self.bytes += result.as_ref().map_or(0, count) as u64;
        #[cfg(feature = "probe")]
        self.held.set(self.bytes.saturating_sub(self.inner.get_ref().bytes) as usize);
        result
    }
}

impl<W: ?Sized + Write> Write for LineWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        writing(type_name::<Self>, buf, buf.len(), || self.noted(|inner| inner.write(buf), |n| *n), |n| *n)
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        let count = |(): &()| buf.len();
        writing(type_name::<Self>, buf, buf.len(), || self.noted(|inner| inner.write_all(buf), count), count)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let (first, all) = pieces(bufs);
        writing(type_name::<Self>, first, all, || self.noted(|inner| inner.write_vectored(bufs), |n| *n), |n| *n)
    }

    fn flush(&mut self) -> io::Result<()> {
        flushing(type_name::<Self>, || self.noted(|inner| inner.flush(), |()| 0))
    }
}

impl<W: ?Sized + Write + fmt::Debug> fmt::Debug for LineWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// What was in a buffer could not be written, and nothing is lost: the writer is in here. As [`std::io::IntoInnerError`], for writers of this
/// crate.
#[derive(Debug)]
pub struct IntoInnerError<W> {
    writer: W,
    error: io::Error,
}

impl<W> IntoInnerError<W> {
    /// Why it could not be written.
    pub fn error(&self) -> &io::Error {
        &self.error
    }

    /// The writer, with its buffer.
    pub fn into_inner(self) -> W {
        self.writer
    }

    /// Why it could not be written.
    pub fn into_error(self) -> io::Error {
        self.error
    }

    /// Both.
    pub fn into_parts(self) -> (io::Error, W) {
        (self.error, self.writer)
    }
}

impl<W> fmt::Display for IntoInnerError<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<W: Send + fmt::Debug> Error for IntoInnerError<W> {}

impl<W> From<IntoInnerError<W>> for io::Error {
    fn from(e: IntoInnerError<W>) -> io::Error {
        e.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then nothing more.
    struct Narrow(Vec<u8>, usize);

    impl Write for Narrow {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let n = buf.len().min(self.1 - self.0.len());
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend(&buf[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_is_lost_where_the_writer_underneath_fails() {
        let mut writer = BufWriter::with_capacity(8, Narrow(Vec::new(), 2));
        writer.write_all(b"abcd").unwrap();
        let (error, writer) = writer.into_inner().map(drop).unwrap_err().into_parts();
        assert_eq!((error.kind(), writer.buffer()), (io::ErrorKind::StorageFull, &b"cd"[..]));
        let (narrow, rest) = writer.into_parts();
        assert_eq!((&*narrow.0, rest.unwrap()), (&b"ab"[..], b"cd".to_vec()));

        let mut writer = LineWriter::new(Narrow(Vec::new(), 2));
        writer.write_all(b"abcd").unwrap();
        let failed = writer.into_inner().map(drop).unwrap_err();
        assert_eq!(failed.to_string(), failed.error().to_string());
        assert_eq!(failed.into_inner().get_ref().0, b"ab");
    }

    #[test]
    fn std_and_ours_are_made_of_each_other_with_what_they_hold() {
        let mut writer = io::BufWriter::new(Vec::new());
        writer.write_all(b"held").unwrap();
        let writer = BufWriter::from(writer);
        assert_eq!(writer.buffer(), b"held");
        let text = format!("{writer:?}");
        assert_eq!(text, format!("{:?}", io::BufWriter::from(writer)));
    }

    #[cfg(feature = "probe")]
    #[test]
    fn types_are_shown_without_their_modules() {
        assert_eq!(short(type_name::<BufWriter<&crate::net::TcpStream>>()), "BufWriter<&TcpStream>");
        assert_eq!(short("a::B<[c::D; 3], &mut dyn e::F>"), "B<[D; 3], &mut dyn F>");
    }
}
