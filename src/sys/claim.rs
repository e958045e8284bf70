//! The right to remove a socket's file, and its removal when the process exits.
//!
//! Invariants: a file is removed only by the process that made it (a forked child inherits the list and the exit
//! function, not the right) and only while the path still leads to the same inode. The inode's number cannot be given
//! to another file meanwhile, for the bound socket keeps it.
//!
//! Must not know: what the sockets are for.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use super::unixsock;

/// Files to remove at exit.
static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());

#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    path: PathBuf,
    device: u64,
    inode: u64,
    process: u32,
}

impl Made {
    /// Between the look and the removal another program of this user may still step in; the directory keeps others out.
    fn remove(&self) {
        if self.process != std::process::id() {
            return;
        }
        if fs::symlink_metadata(&self.path).is_ok_and(|it| (it.dev(), it.ino()) == (self.device, self.inode)) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// One socket's file, removed when this is dropped and, should that never happen, at exit.
#[derive(Debug)]
pub(crate) struct Claim(Made);

impl Claim {
    /// Claims the file at `path`, which the caller has just made or been given.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        static AT_EXIT: Once = Once::new();
        let found = fs::symlink_metadata(path)?;
        let made = Made { path: path.to_owned(), device: found.dev(), inode: found.ino(), process: std::process::id() };
        // Without room for an exit function the file stays behind and is taken for stale by the next one.
        AT_EXIT.call_once(|| drop(unixsock::at_exit(remove_all)));
        MADE.lock().unwrap_or_else(PoisonError::into_inner).push(made.clone());
        Ok(Self(made))
    }

    /// The file stays: another process serves it from now on.
    pub(crate) fn hand_on(self) {
        MADE.lock().unwrap_or_else(PoisonError::into_inner).retain(|made| *made != self.0);
        std::mem::forget(self);
    }

    /// Whether this process made the file: false in a child forked since.
    #[cfg_attr(not(feature = "backdoor"), allow(dead_code, reason = "the backdoor asks from elsewhere"))]
    pub(crate) fn is_ours(&self) -> bool {
        self.0.process == std::process::id()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // In a forked child another thread may have held the lock at the fork, for ever.
        if self.is_ours() {
            self.0.remove();
            MADE.lock().unwrap_or_else(PoisonError::into_inner).retain(|made| *made != self.0);
        }
    }
}

/// Runs at exit, while other threads may still run or, in a forked child, hold the lock without existing.
extern "C" fn remove_all() {
    for _ in 0..20 {
        if let Ok(made) = MADE.try_lock() {
            made.iter().for_each(Made::remove);
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
