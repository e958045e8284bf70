//! The calls that take paths.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Metadata, Permissions};
use crate::blocking::call_on_file;
use crate::observe::FileCall;
use crate::scheduler::suspend::here;

/// A path for the views.
pub(super) fn shown(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

/// Runs `f` where it may wait.
#[track_caller]
pub(super) fn at<T: Send + 'static>(
    call: FileCall,
    path: &Path,
    f: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if here().is_none() {
        return f(path);
    }
    let owned = path.to_owned();
    call_on_file(call, &shown(path), move || f(&owned))
}

/// As [`at`], with two paths.
#[track_caller]
fn between<T: Send + 'static>(
    call: FileCall,
    from: &Path,
    to: &Path,
    f: impl FnOnce(&Path, &Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if here().is_none() {
        return f(from, to);
    }
    let both = (from.to_owned(), to.to_owned());
    let name = format!("{} → {}", from.display(), to.display()).into();
    call_on_file(call, &name, move || f(&both.0, &both.1))
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $call:ident -> $result:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// Of the system; those of [`blocking`](crate::blocking()).
        ///
        /// # Cancellation
        /// See [the module](crate::fs).
        #[track_caller]
        pub fn $name<P: AsRef<Path>>(path: P) -> io::Result<$result> {
            at(FileCall::$call, path.as_ref(), |path| fs::$name(path))
        }
    )*};
}

calls! {
    /// The whole of a file; as [`std::fs::read`].
    read: Read -> Vec<u8>;
    /// The whole of a file as text; as [`std::fs::read_to_string`].
    read_to_string: Read -> String;
    /// What there is to know of a file, or of what a link leads to; as [`std::fs::metadata`].
    metadata: Metadata -> Metadata;
    /// As [`metadata`], of a link itself; as [`std::fs::symlink_metadata`].
    symlink_metadata: Metadata -> Metadata;
    /// The path without links and dots; as [`std::fs::canonicalize`].
    canonicalize: Metadata -> PathBuf;
    /// Where a link leads; as [`std::fs::read_link`].
    read_link: Link -> PathBuf;
    /// Whether there is something with that path; as [`std::fs::exists`].
    exists: Metadata -> bool;
    /// Makes a directory; as [`std::fs::create_dir`].
    create_dir: Create -> ();
    /// Makes a directory and those around it; as [`std::fs::create_dir_all`].
    create_dir_all: Create -> ();
    /// Removes an empty directory; as [`std::fs::remove_dir`].
    remove_dir: Remove -> ();
    /// Removes a directory with all that is in it; as [`std::fs::remove_dir_all`]. An interrupt does not stop it half way.
    remove_dir_all: Remove -> ();
    /// Removes a file; as [`std::fs::remove_file`].
    remove_file: Remove -> ();
}

macro_rules! calls_between {
    ($($(#[$doc:meta])* $name:ident: $call:ident -> $result:ty, $f:path;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// Of the system; those of [`blocking`](crate::blocking()).
        ///
        /// # Cancellation
        /// See [the module](crate::fs).
        #[track_caller]
        pub fn $name<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<$result> {
            between(FileCall::$call, from.as_ref(), to.as_ref(), |from, to| $f(from, to))
        }
    )*};
}

calls_between! {
    /// Gives a file another name, and takes the place of what has that name; as [`std::fs::rename`].
    rename: Rename -> (), fs::rename;
    /// Copies a file with its permissions and returns its length; as [`std::fs::copy`]. An interrupt does not stop it half way.
    copy: Copy -> u64, fs::copy;
    /// Gives a file a further name; as [`std::fs::hard_link`].
    hard_link: Link -> (), fs::hard_link;
    /// Makes a link to a path; as [`std::os::unix::fs::symlink`].
    symlink: Link -> (), std::os::unix::fs::symlink;
}

/// Makes a file with these contents, in the place of one that is there; as [`std::fs::write`].
///
/// # Errors
/// Of the system; those of [`blocking`](crate::blocking()).
///
/// # Cancellation
/// See [the module](crate::fs).
#[track_caller]
pub fn write<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    let contents = contents.as_ref();
    if here().is_none() {
        return fs::write(path, contents);
    }
    let contents = contents.to_vec();
    at(FileCall::Write, path.as_ref(), move |path| fs::write(path, contents))
}

/// Sets who may do what; as [`std::fs::set_permissions`].
///
/// # Errors
/// Of the system; those of [`blocking`](crate::blocking()).
///
/// # Cancellation
/// See [the module](crate::fs).
#[track_caller]
pub fn set_permissions<P: AsRef<Path>>(path: P, perm: Permissions) -> io::Result<()> {
    at(FileCall::Metadata, path.as_ref(), move |path| fs::set_permissions(path, perm))
}
