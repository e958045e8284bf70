//! Specs in files: one, or all of a directory.
//!
//! Invariants: only regular files are opened, and no more is read than there is room for; a file that cannot be read leaves what it said
//! when it could; one that is gone says nothing any more.
//!
//! Must not know: what becomes of specs.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::read::{Form, read};
use super::store::{Entry, Listed, Store};

/// Bytes of one file, and files of one directory.
const MOST_BYTES: u64 = 1 << 20;
const MOST_FILES: usize = 256;

/// A file that was changed less than so many seconds ago is read again, as its time may not tell a change that comes right after.
const YOUNG: i64 = 2;

/// What a path's file said when it could be read last.
type Known = Mutex<BTreeMap<PathBuf, Vec<Entry>>>;

/// A file of specs: JSON if its name ends in `.json`, TOML otherwise.
///
/// ```toml
/// [slow-lookups]
/// target = "cache::get"
/// instruments = "log top(key)"
/// condition = "elapsed > 0.1"
/// lifespan = "1h"
/// ```
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    known: Known,
}

impl File {
    /// The one at that path, which is looked at when the store is asked.
    pub fn new(path: impl Into<PathBuf>) -> File {
        File { path: path.into(), known: Known::default() }
    }
}

impl Store for File {
    fn list(&self, known: Option<&str>) -> io::Result<Option<Listed>> {
        match std::fs::metadata(&self.path) {
            // At the first look it is a mistake; later somebody has removed it, and what it said.
            Err(e) if e.kind() == io::ErrorKind::NotFound && known.is_some() => Ok(list(&[], &self.known, known)),
            Err(e) => Err(e),
            Ok(_) => Ok(list(std::slice::from_ref(&self.path), &self.known, known)),
        }
    }
}

/// All files of a directory whose names end in `.toml` or `.json`, but those that begin with a dot. Their ids are in one list: of
/// two with the same one, that in the file whose name comes first counts.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    known: Known,
}

impl Directory {
    /// The one at that path, which is looked at when the store is asked.
    pub fn new(path: impl Into<PathBuf>) -> Directory {
        Directory { path: path.into(), known: Known::default() }
    }
}

impl Store for Directory {
    fn list(&self, known: Option<&str>) -> io::Result<Option<Listed>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let path = entry?.path();
            let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|e| e == "toml" || e == "json") {
                files.push(path);
            }
        }
        if files.len() > MOST_FILES {
            let text = format!("there are {} files of specs, and {MOST_FILES} are read at most", files.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        files.sort();
        Ok(list(&files, &self.known, known))
    }
}

/// A file, or a directory of files: what it is at each look.
#[derive(Debug)]
pub(super) struct Either {
    pub(super) file: File,
    pub(super) directory: Directory,
}

impl Store for Either {
    fn list(&self, known: Option<&str>) -> io::Result<Option<Listed>> {
        if self.directory.path.is_dir() { self.directory.list(known) } else { self.file.list(known) }
    }
}

/// What these files say, if they are not what they were.
fn list(files: &[PathBuf], before: &Known, known: Option<&str>) -> Option<Listed> {
    let mut version = String::new();
    let mut youngest = i64::MIN;
    for path in files {
        let _ = write!(version, "{} ", path.display());
        let _ = match std::fs::metadata(path) {
            Ok(is) => {
                youngest = youngest.max(is.ctime());
                let (changed, moved) = ((is.mtime(), is.mtime_nsec()), (is.ctime(), is.ctime_nsec()));
                write!(version, "{} {} {changed:?} {moved:?}; ", is.ino(), is.len())
            }
            // When it is read, it is told what is wrong with it.
            Err(e) => write!(version, "{e}; "),
        };
    }
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    if known == Some(&version) && youngest < now.saturating_sub(YOUNG) {
        return None;
    }
    let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
    before.retain(|path, _| files.contains(path));
    let mut listed = Listed { version, ..Listed::default() };
    let alone = files.len() == 1;
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match contents(path).and_then(|text| read(&text, form(path))) {
            Ok(entries) => drop(before.insert(path.clone(), entries)),
            Err(wrong) => listed.troubles.push(match before.contains_key(path) {
                true => format!("{name} {wrong}; what it said before stays"),
                false => format!("{name} {wrong}"),
            }),
        }
        for entry in before.get(path).into_iter().flatten() {
            let mut entry = entry.clone();
            if !alone && listed.entries.iter().any(|other| other.id == entry.id) {
                entry.spec = Err("is in a file before this one, too; that one counts".to_owned());
                entry.id = format!("{} (in {name})", entry.id);
            }
            listed.entries.push(entry);
        }
    }
    Some(listed)
}

fn form(path: &Path) -> Form {
    if path.extension().is_some_and(|e| e == "json") { Form::Json } else { Form::Toml }
}

fn contents(path: &Path) -> Result<String, String> {
    // A pipe would be waited for, so that nothing is opened which is not a file, nor waited for if it becomes none meanwhile.
    let open = || std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let cannot = |e: io::Error| format!("cannot be read: {e}");
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("is no file".to_owned());
    }
    let mut text = Vec::new();
    open().and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut text)).map_err(cannot)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(format!("has more than {MOST_BYTES} bytes"));
    }
    String::from_utf8(text).map_err(|_| "is no UTF-8".to_owned())
}
