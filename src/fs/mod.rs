//! Files and directories, with std's names: every call that may wait for a disk runs on the blocking pool, while the task is
//! parked and its worker goes on.
//!
//! As in [`std::fs`], with one edit; on a plain thread these are std's calls.
//!
//! **What a call costs.** The way to a thread of the pool and back: some 20 µs, where the call itself takes less than one if the
//! file is in memory. So [`File::read`](File) first asks the kernel for what it has in memory (Linux;
//! `preadv2` with `RWF_NOWAIT`), which costs about what std's call does; only what has to be read from a disk, and the end of the file, goes to
//! the pool. Writes always do: put a [`BufWriter`](crate::io::BufWriter) around a file that is written in small pieces. [`read`],
//! [`read_to_string`], [`write`](write()) and `read_to_end` go there once for the whole file. `seek` waits for nothing but where
//! [`SeekFrom::End`](crate::io::SeekFrom::End) has to ask.
//!
//! **Who owns the memory.** Each job owns its buffers, so it may outlive the task that asked: bytes are copied once more than with
//! std. A task is never held up by a disk that hangs: a [`timeout`](crate::timeout) around a call ends it, and the thread of the pool
//! is what hangs.
//!
//! # Cancellation
//! Every call is an I/O call: an interrupt of the task is returned once as an error, then it unwinds. What was begun goes on to its
//! end on the pool and its result is dropped there; a job that has not begun never does. So after an interrupted call a file may have
//! been written or removed or not, and the place in a file that was read or written is not known: [`seek`](std::io::Seek::seek) before
//! going on. A later call at that place runs after the abandoned one, never beside it.
//!
//! # Examples
//! ```
//! use coro::fs::{self, File};
//! use coro::io::{BufRead, BufReader, BufWriter, Write};
//!
//! # fn main() -> std::io::Result<()> {
//! coro::run(|| {
//!     let dir = std::env::temp_dir().join(format!("coro-fs-{}", std::process::id()));
//!     fs::create_dir_all(&dir)?;
//!     let mut log = BufWriter::new(File::create(dir.join("log"))?);
//!     for n in 0..1000 {
//!         writeln!(log, "line {n}")?; // goes to the pool 8 KiB at a time
//!     }
//!     log.into_inner()?.sync_all()?;
//!     assert_eq!(BufReader::new(File::open(dir.join("log"))?).lines().count(), 1000);
//!     assert_eq!(fs::read_dir(&dir)?.count(), 1);
//!     fs::remove_dir_all(&dir)
//! })
//! # }
//! ```
//!
//! Invariants: no call blocks a worker, but for the closing of a file, which std's `drop` does as well and which the order of locks and
//! of "text file busy" depends on. Must not know: how the pool works.

#![forbid(unsafe_code)]

mod dir;
mod file;
mod lock;
mod options;
pub(crate) mod paths;

pub use dir::{DirEntry, ReadDir, read_dir};
pub use file::File;
pub use lock::TryLockError;
pub use options::{DirBuilder, OpenOptions};
pub use paths::{
    canonicalize, copy, create_dir, create_dir_all, exists, hard_link, metadata, read, read_link, read_to_string,
    remove_dir, remove_dir_all, remove_file, rename, set_permissions, symlink_metadata, write,
};
pub use std::fs::{FileTimes, FileType, Metadata, Permissions};
