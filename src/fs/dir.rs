//! Listing directories.
//!
//! Entries are read a number at a time, so that one journey to the pool serves many of them. What a job has read lies in what it
//! shares with the iterator: an interrupted wait loses no entry.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::paths::{at, shown};
use super::{FileType, Metadata};
use crate::blocking::call_on_file;
use crate::observe::FileCall;

/// So many entries are read at once: a few milliseconds where each has to be asked for its type.
const AT_ONCE: usize = 256;

/// What is in a directory, in no order; as [`std::fs::read_dir`].
///
/// # Errors
/// Of the system; those of [`blocking`](crate::blocking()).
///
/// # Cancellation
/// See [the module](crate::fs); so are the steps of the iterator, which lose no entry by that.
#[track_caller]
pub fn read_dir<P: AsRef<Path>>(path: P) -> io::Result<ReadDir> {
    let path = path.as_ref();
    let listing = at(FileCall::List, path, |path| {
        let mut listing = Listing { dir: Some(fs::read_dir(path)?), ready: VecDeque::new() };
        listing.more();
        Ok(listing)
    })?;
    Ok(ReadDir { listing: Arc::new(Mutex::new(listing)), name: shown(path) })
}

/// Goes through a directory; as [`std::fs::ReadDir`].
pub struct ReadDir {
    listing: Arc<Mutex<Listing>>,
    name: Arc<str>,
}

struct Listing {
    /// `None` after its end.
    dir: Option<fs::ReadDir>,
    ready: VecDeque<io::Result<DirEntry>>,
}

impl Listing {
    fn more(&mut self) {
        let Some(dir) = &mut self.dir else { return };
        for _ in 0..AT_ONCE {
            match dir.next() {
                Some(entry) => self.ready.push_back(entry.map(|entry| {
                    // Known from the listing, on most file systems.
                    let kind = entry.file_type().ok();
                    DirEntry { entry: Arc::new(entry), kind }
                })),
                None => {
                    self.dir = None;
                    return;
                }
            }
        }
    }
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    #[track_caller]
    fn next(&mut self) -> Option<io::Result<DirEntry>> {
        let lock = |l: &Mutex<Listing>| l.lock().unwrap_or_else(PoisonError::into_inner).ready.pop_front();
        // A job that was given up may still be at it, and holds the lock for as long.
        let at_once = match self.listing.try_lock() {
            Ok(mut listing) => match listing.ready.pop_front() {
                None if listing.dir.is_none() => return None,
                entry => entry,
            },
            Err(_) => None,
        };
        if at_once.is_some() {
            return at_once;
        }
        let listing = self.listing.clone();
        let read = call_on_file(FileCall::List, &self.name, move || {
            let mut listing = listing.lock().unwrap_or_else(PoisonError::into_inner);
            if listing.ready.is_empty() {
                listing.more();
            }
            Ok(())
        });
        match read {
            Ok(()) => lock(&self.listing),
            Err(e) => Some(Err(e)),
        }
    }
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadDir").field(&self.name).finish()
    }
}

/// One entry of a directory; as [`std::fs::DirEntry`].
#[derive(Clone)]
pub struct DirEntry {
    entry: Arc<fs::DirEntry>,
    kind: Option<FileType>,
}

impl DirEntry {
    /// The path: that of the directory, and the name.
    pub fn path(&self) -> PathBuf {
        self.entry.path()
    }

    /// The name alone.
    pub fn file_name(&self) -> OsString {
        self.entry.file_name()
    }

    /// Whether it is a file, a directory or a link; waits only if the listing did not say.
    ///
    /// # Errors
    /// Of the system; those of [`blocking`](crate::blocking()).
    #[track_caller]
    pub fn file_type(&self) -> io::Result<FileType> {
        match self.kind {
            Some(kind) => Ok(kind),
            None => self.ask(|entry| entry.file_type()),
        }
    }

    /// What there is to know of it; links are not followed.
    ///
    /// # Errors
    /// Of the system; those of [`blocking`](crate::blocking()).
    #[track_caller]
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.ask(|entry| entry.metadata())
    }

    #[track_caller]
    fn ask<T: Send + 'static>(&self, f: impl FnOnce(&fs::DirEntry) -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let entry = self.entry.clone();
        call_on_file(FileCall::Metadata, &shown(&entry.path()), move || f(&entry))
    }
}

impl DirEntryExt for DirEntry {
    fn ino(&self) -> u64 {
        self.entry.ino()
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}
