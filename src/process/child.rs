//! [`Child`].

#![forbid(unsafe_code)]

use std::io::{self, Read};
use std::panic::Location;
use std::process::{ExitStatus, Output};

use super::exit::{self, Exit, OnPool};
use super::orphans;
use super::pipes::{ChildStderr, ChildStdin, ChildStdout};
use crate::scheduler::io::interrupted;
use crate::scheduler::suspend::{here, shield};
use crate::thread;

/// A child process; as [`std::process::Child`], but its calls park the task.
///
/// Dropped, it goes on: it is neither killed nor waited for (see [the module](crate::process)).
#[derive(Debug)]
pub struct Child {
    /// To write what the child reads, if that was [`piped`](crate::process::Stdio::piped).
    pub stdin: Option<ChildStdin>,
    /// To read what the child writes, if that was piped.
    pub stdout: Option<ChildStdout>,
    /// To read what the child writes as errors, if that was piped.
    pub stderr: Option<ChildStderr>,
    handle: Handle,
}

/// The child without its pipes, which so can be taken out of [`Child`].
#[derive(Debug)]
struct Handle {
    /// Announces its end, once somebody has waited. Before the child, so that it goes first.
    exit: Option<Exit>,
    /// Announces it where that cannot be had.
    on_pool: OnPool,
    /// `None` only while this is dropped.
    child: Option<std::process::Child>,
    /// For the views.
    program: Box<str>,
}

impl Handle {
    fn child(&mut self) -> &mut std::process::Child {
        self.child.as_mut().expect("a child is there until its handle is dropped")
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        if here().is_none() {
            return self.child().wait();
        }
        let pid = self.child().id();
        // Also for a child that nobody has waited for before: its end may lie behind.
        if let Some(status) = self.child().try_wait()? {
            return Ok(status);
        }
        let Handle { exit, on_pool, child: Some(child), program } = self else { unreachable!("see `child`") };
        if exit.is_none() && on_pool.is_none() {
            *exit = Exit::of(pid);
        }
        let mut look = || child.try_wait();
        let mut outcome = exit.as_ref().map(|exit| exit.wait(pid, program, &mut look));
        if outcome.as_ref().is_none_or(|o| o.as_ref().is_err_and(is_no_interrupt)) {
            // There is no descriptor, or it cannot be waited for: the system may have no room for one more.
            *exit = None;
            outcome = Some(exit::wait_on_pool(pid, program, on_pool, look));
        }
        let outcome = outcome.expect("one of the two has waited");
        if outcome.is_ok() {
            (*exit, *on_pool) = (None, None);
        }
        outcome
    }
}

/// Whether an I/O call has failed for itself, and not because the task is to do something else.
fn is_no_interrupt(e: &io::Error) -> bool {
    e.kind() != io::ErrorKind::TimedOut && !interrupted()
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.exit = None;
        if let Some(mut child) = self.child.take()
            && let Ok(None) = child.try_wait()
        {
            orphans::leave(child);
        }
    }
}

impl Child {
    /// Takes over a child that std has started, with its pipes.
    ///
    /// # Errors
    /// If a pipe cannot be put into non-blocking mode.
    pub(super) fn of(
        mut child: std::process::Child,
        program: Box<str>,
        site: &'static Location<'static>,
    ) -> io::Result<Child> {
        let pid = child.id();
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        // From here on an error leaves a child that will be reaped.
        let handle = Handle { exit: None, on_pool: None, child: Some(child), program };
        let stdin = pipes.0.map(|p| ChildStdin::of(p, pid, site)).transpose()?;
        let stdout = pipes.1.map(|p| ChildStdout::of(p, pid, site)).transpose()?;
        let stderr = pipes.2.map(|p| ChildStderr::of(p, pid, site)).transpose()?;
        Ok(Child { stdin, stdout, stderr, handle })
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.handle.child.as_ref().map_or(0, std::process::Child::id)
    }

    /// Waits for the end of the child and returns how it ended; again and again, if asked again. [`stdin`](Child::stdin) is
    /// closed first, so that a child that reads to the end comes to it.
    ///
    /// A child that writes more than a pipe holds ends only if somebody reads: see
    /// [`wait_with_output`](Child::wait_with_output).
    ///
    /// # Errors
    /// If somebody else has reaped the child, or SIGCHLD is ignored in this process. The task's interrupt.
    ///
    /// # Cancellation
    /// An I/O call: an interrupt is returned once as an error, then it unwinds. The exit status stays for the next who asks.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        self.handle.wait()
    }

    /// How the child ended, `None` if it has not. Never waits.
    ///
    /// # Errors
    /// As of [`wait`](Child::wait).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.handle.child().try_wait()
    }

    /// Kills the child (SIGKILL); one that was waited for already is left alone. It is to be waited for nevertheless.
    ///
    /// # Errors
    /// Of the system.
    pub fn kill(&mut self) -> io::Result<()> {
        self.handle.child().kill()
    }

    /// Closes [`stdin`](Child::stdin), reads what the child writes to [`stdout`](Child::stdout) and [`stderr`](Child::stderr), both
    /// at once, and waits for its end.
    ///
    /// # Errors
    /// As of [`wait`](Child::wait) and of reading.
    ///
    /// # Cancellation
    /// An I/O call: an interrupt is returned once as an error, then it unwinds (at once where only stderr is left to be read). The
    /// child goes on, and what was read of its output is gone: who wants to keep it reads it before.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        let (stdout, stderr) = match (self.stdout.take(), self.stderr.take()) {
            (Some(out), Some(err)) => both(out, err)?,
            (Some(out), None) => (all(out)?, Vec::new()),
            (None, Some(err)) => (Vec::new(), all(err)?),
            (None, None) => (Vec::new(), Vec::new()),
        };
        let status = self.handle.wait()?;
        Ok(Output { status, stdout, stderr })
    }
}

fn all(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).map(|_| bytes)
}

/// Reads both to the end: a child may write to either, and waits when one is full.
fn both(out: ChildStdout, err: ChildStderr) -> io::Result<(Vec<u8>, Vec<u8>)> {
    // Before there is a second task that would have to be told.
    if let Some(h) = here() {
        h.checkpoint_io()?;
        return thread::scope(|s| {
            let err = thread::Builder::new().name("stderr of a child".into()).spawn_scoped(s, || all(err))?;
            match all(out) {
                Ok(out) => join(Ok(out), err.join()),
                // An interrupt, most likely: it is to be told as an error, and not raised by a wait for the other reader.
                Err(e) => {
                    err.cancel();
                    drop(shield(|| err.join()));
                    Err(e)
                }
            }
        });
    }
    std::thread::scope(|s| {
        let err = s.spawn(|| all(err));
        let out = all(out);
        join(out, err.join())
    })
}

fn join(out: io::Result<Vec<u8>>, err: std::thread::Result<io::Result<Vec<u8>>>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    Ok((out?, err.unwrap_or_else(|payload| std::panic::resume_unwind(payload))?))
}

impl TryFrom<std::process::Child> for Child {
    type Error = io::Error;

    /// Takes over a child that std has started, with its pipes.
    #[track_caller]
    fn try_from(child: std::process::Child) -> io::Result<Child> {
        Child::of(child, "started by std".into(), Location::caller())
    }
}
