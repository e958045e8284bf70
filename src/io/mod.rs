//! std's I/O traits, helpers and errors under this crate's name, so that `std::io` becomes `coro::io` like the rest.
//!
//! Everything here *is* std's, unchanged: a type that implements `std::io::Read` implements `coro::io::Read`, and
//! [`BufReader`], [`BufWriter`] and [`LineWriter`] around this crate's sockets park the task where the sockets do.
//!
//! What reads or writes a descriptor by itself is std's as well, and still blocks the worker: [`stdin`], and [`stdout`],
//! [`stderr`] and [`pipe`] when nobody reads the other end. Until there are versions that park the task, put such a
//! call into [`coro::blocking`](crate::blocking()).
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

#![forbid(unsafe_code)]

pub use std::io::*;
// By name, because these three are to be replaced by ones whose calls can be logged.
pub use std::io::{BufReader, BufWriter, LineWriter};
