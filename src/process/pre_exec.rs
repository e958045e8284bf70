//! `Command::pre_exec`, in one place because it is unsafe by its nature.

use std::io;
use std::os::unix::process::CommandExt;

use super::Command;

impl Command {
    /// As [`CommandExt::pre_exec`]: `f` runs in the child, between `fork` and `exec`.
    ///
    /// The child is then forked in full, which copies the page tables of the process (some 128 ms where 100,000 tasks have
    /// stacks); without it std uses `posix_spawn`, which does not.
    ///
    /// # Safety
    /// As std's: the child of a process with threads may only do what is async-signal-safe. `coro`'s calls are not.
    pub unsafe fn pre_exec<F>(&mut self, f: F) -> &mut Command
    where
        F: FnMut() -> io::Result<()> + Send + Sync + 'static,
    {
        // SAFETY: the caller's promise is std's own.
        unsafe { self.as_std_mut().pre_exec(f) };
        self
    }
}
