//! Child processes, with std's names: starting one, its ends of pipes, and its end, without blocking a worker.
//!
//! As in [`std::process`], with one edit. [`Command::spawn`] starts the child on a thread of the blocking pool; reading and
//! writing its pipes and [`Child::wait`] park the task. Nothing polls: the kernel announces the end of a child by a descriptor
//! (a *pidfd*; Linux 5.3 and later; a kernel queue with `EVFILT_PROC` on macOS and FreeBSD), to the reactor as any other. Where
//! there is none, a thread of the pool sits in `waitid`.
//!
//! Invariants: the one place where a child is reaped is std's `Child`, on the task that waits; so whoever is interrupted in a wait
//! has taken nothing, and the next one gets the exit status. Must not know: signals; what the child does.
//!
//! # Children and the end
//! A [`Child`] that is dropped is neither ended nor waited for, as std's is not. Where std leaves a *zombie* behind for as long
//! as the process lives, such a child's entry is taken away when a later child is started. So whoever wants the exit status keeps the
//! `Child`. Children outlive [`run`](crate::run()), as they outlive the process; what must not, is killed and waited for.
//!
//! # Examples
//! ```
//! use coro::process::{Command, Stdio};
//! use std::io::{Read, Write};
//!
//! # fn main() -> std::io::Result<()> {
//! coro::run(|| {
//!     let mut sort = Command::new("sort").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//!     sort.stdin.take().unwrap().write_all(b"pear\napple\n")?; // closed here, so that sort begins
//!     let mut sorted = String::new();
//!     sort.stdout.take().unwrap().read_to_string(&mut sorted)?;
//!     assert_eq!(sorted, "apple\npear\n");
//!     assert!(sort.wait()?.success());
//!
//!     let output = Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output()?;
//!     assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
//!     assert_eq!(output.status.code(), Some(3));
//!     Ok(())
//! })
//! # }
//! ```
//!
//! A limit of time around a wait ends the wait, not the child:
//! ```
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! coro::run(|| {
//!     let mut child = coro::process::Command::new("sleep").arg("1000").spawn()?;
//!     let waited = coro::timeout(Duration::from_millis(50), || child.wait());
//!     assert!(waited.is_err() || waited.unwrap().is_err());
//!     child.kill()?;
//!     assert!(!child.wait()?.success());
//!     Ok(())
//! })
//! # }
//! ```

mod child;
mod command;
mod exit;
mod orphans;
mod pipes;
mod pre_exec;

pub use child::Child;
pub use command::Command;
pub use pipes::{ChildStderr, ChildStdin, ChildStdout};
pub use std::process::{CommandArgs, CommandEnvs, ExitCode, ExitStatus, Output, Stdio, Termination, abort, exit, id};
