//! Where the backdoor's sockets lie, and whether a directory for them is ours alone.
//!
//! Must not know: sessions, commands, threads; how a path becomes a socket, which `sys::private_socket` knows.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::sys::unixsock;

/// Where this process serves unless told otherwise. Creates nothing.
pub(super) fn default_path() -> PathBuf {
    let uid = unixsock::effective_uid();
    // Under `su` and `sudo` the variable may still name another user's directory: then it is not for us.
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|directory| {
        directory.is_absolute() && fs::metadata(directory).is_ok_and(|it| it.is_dir() && it.uid() == uid)
    });
    let directory = match runtime {
        Some(directory) => directory.join("coro"),
        None => std::env::temp_dir().join(format!("coro-{uid}")),
    };
    directory.join(format!("{}.sock", std::process::id()))
}

/// Makes the directory of [`default_path`], with mode 0700, or checks that the one found is a safe one.
pub(super) fn private_directory(directory: &Path) -> io::Result<()> {
    let shown = directory.display();
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(explain(error, format!("cannot create the directory {shown}")));
        }
        _ => {}
    }
    check_private(directory)
}

/// Refuses a directory that is not ours alone.
pub(super) fn check_private(directory: &Path) -> io::Result<()> {
    let shown = directory.display();
    // Not following links: in a directory for everyone, like /tmp, somebody else could have put one here.
    let found = fs::symlink_metadata(directory)?;
    if !found.is_dir() {
        return Err(refuse(format!("{shown} is not a directory; remove it, or give serve() a path of its own")));
    }
    if found.uid() != unixsock::effective_uid() {
        let owner = found.uid();
        return Err(refuse(format!("{shown} belongs to user {owner}, not to us; give serve() a path of its own")));
    }
    if found.mode() & 0o077 != 0 {
        return Err(refuse(format!("{shown} is open to other users; run: chmod 700 {shown}")));
    }
    Ok(())
}

/// Whether the environment forbids serving, whatever the program says.
pub(super) fn switched_off() -> bool {
    std::env::var_os("CORO_BACKDOOR").is_some_and(|value| value == OsStr::new("off") || value == OsStr::new("0"))
}

fn refuse(message: String) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, message)
}

fn explain(error: io::Error, message: String) -> io::Error {
    io::Error::new(error.kind(), format!("{message}: {error}"))
}
