//! std's I/O traits, helpers and errors under this crate's name, so that `std::io` becomes `coro::io` like the rest.
//!
//! Traits, errors and helpers here *are* std's, unchanged: a type that implements `std::io::Read` implements `coro::io::Read`, and
//! [`BufReader`], [`BufWriter`] and [`LineWriter`] around this crate's sockets park the task where the sockets do.
//!
//! What reads or writes a descriptor by itself is our own: [`pipe`] and its ends, [`stdin`], [`stdout`] and [`stderr`] park the
//! task. So are [`BufWriter`] and [`LineWriter`], whose calls can be watched ([`probe::net`](crate::probe::net)); a
//! `BufWriter` converts from and to std's. std's `println!` and its like still block the worker when nobody reads at the other end.
//!
//! # Examples
//! ```
//! use coro::io::{self, BufRead, BufReader, Write};
//! use coro::net::unix::UnixStream;
//!
//! # fn main() -> io::Result<()> {
//! coro::run(|| {
//!     let (mut here, there) = UnixStream::pair()?;
//!     let echo = coro::spawn(move || BufReader::new(there).lines().next());
//!     here.write_all(b"a line\n")?;
//!     assert_eq!(echo.join().unwrap().unwrap()?, "a line");
//!     Ok(())
//! })
//! # }
//! ```

pub(crate) mod buffered;
mod copy;
pub(crate) mod pipe;
mod raw;
mod stdio;
#[cfg(feature = "probe")]
pub(crate) mod unflushed;

pub use buffered::{BufWriter, IntoInnerError, LineWriter};
pub use copy::{HalfClose, copy, copy_bidirectional};
pub use pipe::{PipeReader, PipeWriter, pipe};
pub use std::io::*;
pub use stdio::{Stderr, StderrLock, Stdin, StdinLines, StdinLock, Stdout, StdoutLock, stderr, stdin, stdout};
