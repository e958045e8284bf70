//! How files are opened and directories made.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::File;
use super::paths::{at, shown};
use crate::observe::FileCall;

/// How a file is to be opened; as [`std::fs::OpenOptions`], with std's [`OpenOptionsExt`].
///
/// # Examples
/// ```
/// # fn main() -> std::io::Result<()> {
/// let path = std::env::temp_dir().join(format!("coro-options-{}", std::process::id()));
/// coro::run(|| {
///     use std::io::Write;
///     coro::fs::OpenOptions::new().append(true).create(true).open(&path)?.write_all(b"one more line\n")?;
///     coro::fs::remove_file(&path)
/// })
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OpenOptions(fs::OpenOptions);

impl OpenOptions {
    /// Nothing is allowed yet.
    #[expect(clippy::new_without_default, reason = "std's has none")]
    pub fn new() -> OpenOptions {
        OpenOptions(fs::OpenOptions::new())
    }

    /// To read.
    pub fn read(&mut self, read: bool) -> &mut OpenOptions {
        self.0.read(read);
        self
    }

    /// To write.
    pub fn write(&mut self, write: bool) -> &mut OpenOptions {
        self.0.write(write);
        self
    }

    /// To write at the end, wherever that is at each write.
    pub fn append(&mut self, append: bool) -> &mut OpenOptions {
        self.0.append(append);
        self
    }

    /// Without what is in it.
    pub fn truncate(&mut self, truncate: bool) -> &mut OpenOptions {
        self.0.truncate(truncate);
        self
    }

    /// Made if it is not there.
    pub fn create(&mut self, create: bool) -> &mut OpenOptions {
        self.0.create(create);
        self
    }

    /// Made, and an error if it is there.
    pub fn create_new(&mut self, create_new: bool) -> &mut OpenOptions {
        self.0.create_new(create_new);
        self
    }

    /// Opens the file.
    ///
    /// # Errors
    /// Of the system; those of [`blocking`](crate::blocking()).
    ///
    /// # Cancellation
    /// See [the module](crate::fs). A file that is opened after its task was interrupted is closed again.
    #[track_caller]
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        let (options, path) = (self.0.clone(), path.as_ref());
        let file = at(FileCall::Open, path, move |path| options.open(path))?;
        Ok(File::named(file, shown(path)))
    }
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, mode: u32) -> &mut OpenOptions {
        self.0.mode(mode);
        self
    }

    fn custom_flags(&mut self, flags: i32) -> &mut OpenOptions {
        self.0.custom_flags(flags);
        self
    }
}

/// How a directory is to be made; as [`std::fs::DirBuilder`], with std's [`DirBuilderExt`].
#[derive(Debug, Clone)]
pub struct DirBuilder {
    recursive: bool,
    mode: u32,
}

impl DirBuilder {
    /// One directory, with the permissions that the process gives.
    #[expect(clippy::new_without_default, reason = "std's has none")]
    pub fn new() -> DirBuilder {
        DirBuilder { recursive: false, mode: 0o777 }
    }

    /// With those around it; one that is there already is no error then.
    pub fn recursive(&mut self, recursive: bool) -> &mut DirBuilder {
        self.recursive = recursive;
        self
    }

    /// Makes the directory.
    ///
    /// # Errors
    /// Of the system; those of [`blocking`](crate::blocking()).
    ///
    /// # Cancellation
    /// See [the module](crate::fs).
    #[track_caller]
    pub fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let (recursive, mode) = (self.recursive, self.mode);
        at(FileCall::Create, path.as_ref(), move |path| {
            fs::DirBuilder::new().recursive(recursive).mode(mode).create(path)
        })
    }
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, mode: u32) -> &mut DirBuilder {
        self.mode = mode;
        self
    }
}
