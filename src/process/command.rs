//! [`Command`].
//!
//! **Where a child is started.** std's `spawn` returns when the child has called `exec`: a number of system calls, and whatever
//! the file system does to find and map the program. The figures stand in `Command::spawn`. So it runs on the blocking pool, and
//! the task waits for it without a way out: what has begun would else leave a child behind that nobody knows of.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::mem;
use std::os::unix::process::CommandExt;
use std::panic::Location;
use std::path::Path;
use std::process::{CommandArgs, CommandEnvs, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Child, orphans};
use crate::blocking;
use crate::observe::{WaitKind, WaitReason};
use crate::scheduler::suspend::{here, shield};

/// How a child process is to be started; as [`std::process::Command`].
///
/// Has std's methods, and those of [`std::os::unix::process::CommandExt`] as its own. For what else there is in extension
/// traits: [`as_std_mut`](Command::as_std_mut).
#[derive(Debug)]
pub struct Command {
    inner: std::process::Command,
    /// Which of stdin, stdout and stderr the user has chosen.
    chosen: [bool; 3],
}

/// A child on its way from the pool. Nobody takes it only where a task starts one while it unwinds, and has no time left.
struct Started(Option<std::process::Child>);

impl Started {
    fn new(child: std::process::Child) -> Started {
        Started(Some(child))
    }

    fn take(mut self) -> std::process::Child {
        self.0.take().expect("it is taken once")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(orphans::leave);
    }
}

impl Command {
    /// For that program, looked up in `PATH` if it has no slash; with the arguments, environment, directory and descriptors
    /// 0 to 2 of this process, unless said otherwise.
    pub fn new<S: AsRef<OsStr>>(program: S) -> Command {
        Command { inner: std::process::Command::new(program), chosen: [false; 3] }
    }

    /// Adds an argument.
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<I, S>(&mut self, args: I) -> &mut Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.inner.args(args);
        self
    }

    /// Sets a variable of the child's environment.
    pub fn env<K, V>(&mut self, key: K, val: V) -> &mut Command
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.inner.env(key, val);
        self
    }

    /// Sets variables of the child's environment.
    pub fn envs<I, K, V>(&mut self, vars: I) -> &mut Command
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.inner.envs(vars);
        self
    }

    /// Takes a variable out of the child's environment.
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Command {
        self.inner.env_remove(key);
        self
    }

    /// Starts the child's environment from nothing.
    pub fn env_clear(&mut self) -> &mut Command {
        self.inner.env_clear();
        self
    }

    /// Sets the child's directory. A relative path of the program is looked up in either directory, as std says.
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Command {
        self.inner.current_dir(dir);
        self
    }

    /// What the child reads from. By default this process's own for [`spawn`](Command::spawn) and [`status`](Command::status),
    /// nothing for [`output`](Command::output).
    pub fn stdin<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Command {
        self.inner.stdin(cfg);
        self.chosen[0] = true;
        self
    }

    /// Where the child writes to. By default this process's own for [`spawn`](Command::spawn) and
    /// [`status`](Command::status), a pipe for [`output`](Command::output).
    pub fn stdout<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Command {
        self.inner.stdout(cfg);
        self.chosen[1] = true;
        self
    }

    /// As [`stdout`](Command::stdout), for errors.
    pub fn stderr<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Command {
        self.inner.stderr(cfg);
        self.chosen[2] = true;
        self
    }

    /// As [`CommandExt::uid`].
    pub fn uid(&mut self, id: u32) -> &mut Command {
        self.inner.uid(id);
        self
    }

    /// As [`CommandExt::gid`].
    pub fn gid(&mut self, id: u32) -> &mut Command {
        self.inner.gid(id);
        self
    }

    /// As [`CommandExt::arg0`]: what the program sees as its name.
    pub fn arg0<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.inner.arg0(arg);
        self
    }

    /// As [`CommandExt::process_group`]: 0 makes the child the leader of a new group, which Ctrl-C at the terminal does not
    /// reach.
    pub fn process_group(&mut self, pgroup: i32) -> &mut Command {
        self.inner.process_group(pgroup);
        self
    }

    /// As [`CommandExt::exec`]: puts the program in the place of this process, and returns only if that fails. No task is
    /// unwound.
    pub fn exec(&mut self) -> io::Error {
        self.inner.exec()
    }

    /// Starts the child.
    ///
    /// In a task, on a thread of the blocking pool, while the task waits: `spawn child "sort"`. A child that asks to be told of
    /// its parent's death (`PR_SET_PDEATHSIG`, in [`pre_exec`](Command::pre_exec)) is told at the end of that *thread*; start such a
    /// one by std's own command, and bring it here by `try_from`.
    ///
    /// # Errors
    /// If the program is not found or cannot be started; if there is no process, no descriptor or no thread left.
    ///
    /// # Cancellation
    /// An interrupt that is due before the child is started is returned as an error, and no child is started; one that comes
    /// meanwhile waits until it is.
    #[track_caller]
    pub fn spawn(&mut self) -> io::Result<Child> {
        let (program, site) = (self.program(), Location::caller());
        let Some(h) = here() else {
            orphans::reap();
            return Child::of(self.inner.spawn()?, program, site);
        };
        // Before the command is lent.
        h.refuse_if_no_switch();
        h.checkpoint_io()?;
        // The pool has the command for the time, and it is taken back whatever happens there. Why the pool: for a small program
        // std's call took 0.3 ms in the median, 4 to 6 ms in one of ten, and up to 15 ms (two busy CPUs, Linux 6.18), in which the
        // worker's other tasks would stand still, and a cold disk adds its own. The way there and back cost 0.2 to 0.6 ms.
        let lent = Arc::new(Mutex::new(mem::replace(&mut self.inner, std::process::Command::new(""))));
        let job = {
            let lent = lent.clone();
            move || {
                orphans::reap();
                lent.lock().unwrap_or_else(PoisonError::into_inner).spawn().map(Started::new)
            }
        };
        let text: &str = &program;
        let outcome = shield(|| blocking::call(WaitReason::text(WaitKind::Spawn, &text), None, job));
        mem::swap(&mut self.inner, &mut lent.lock().unwrap_or_else(PoisonError::into_inner));
        let child = outcome?.expect("without a limit of time the job is waited for")?;
        Child::of(child.take(), program, site)
    }

    /// Starts the child, reads what it writes and waits for its end.
    ///
    /// # Errors
    /// As of [`spawn`](Command::spawn) and [`Child::wait_with_output`].
    ///
    /// # Cancellation
    /// As of these; the child is not killed.
    #[track_caller]
    pub fn output(&mut self) -> io::Result<Output> {
        let [stdin, stdout, stderr] = self.chosen;
        if !stdin {
            self.inner.stdin(Stdio::null());
        }
        if !stdout {
            self.inner.stdout(Stdio::piped());
        }
        if !stderr {
            self.inner.stderr(Stdio::piped());
        }
        let child = self.spawn();
        // For a later `spawn`.
        if !stdin {
            self.inner.stdin(Stdio::inherit());
        }
        if !stdout {
            self.inner.stdout(Stdio::inherit());
        }
        if !stderr {
            self.inner.stderr(Stdio::inherit());
        }
        child?.wait_with_output()
    }

    /// Starts the child and waits for its end.
    ///
    /// # Errors
    /// As of [`spawn`](Command::spawn) and [`Child::wait`].
    ///
    /// # Cancellation
    /// As of these; the child is not killed.
    #[track_caller]
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// The program.
    pub fn get_program(&self) -> &OsStr {
        self.inner.get_program()
    }

    /// The arguments, without the program.
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.inner.get_args()
    }

    /// What was said of the environment; `None` for what is to be taken out.
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.inner.get_envs()
    }

    /// The child's directory, if one was set.
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.inner.get_current_dir()
    }

    /// std's command inside, for traits that are only there. What stdin, stdout and stderr are, is to be said here, else
    /// [`output`](Command::output) does not know of it.
    pub fn as_std_mut(&mut self) -> &mut std::process::Command {
        &mut self.inner
    }

    /// For the views: the program without its directory.
    fn program(&self) -> Box<str> {
        let program = Path::new(self.inner.get_program());
        program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into()
    }
}
