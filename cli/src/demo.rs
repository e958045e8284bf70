//! `coro demo`: a lively program with trouble in it, as a child, and a session with it.
//!
//! The child is this program again with [`INSIDE`]; it ends when its standard input does, so that it never outlives us. It
//! has a process group of its own, because Ctrl-C is for the session.

#![forbid(unsafe_code)]

use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use crate::target::Target;
use crate::{Failure, Outcome, attach};

pub(crate) const USAGE: &str = "usage: coro demo
Starts a small program in which several things are wrong, and attaches to it. It ends with your session. Its socket is
an ordinary one: `coro list` and `coro top PID` in another terminal show it too.
Exit codes: 0 ended by you, 1 could not be started, 2 called wrongly.";

/// What the child is called with.
const INSIDE: &str = "inside";

pub(crate) fn run(mut arguments: lexopt::Parser) -> Outcome {
    let mut is_inside = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long(INSIDE) => is_inside = true,
            other => return Err(other.unexpected().into()),
        }
    }
    if is_inside {
        return coro_demo::serve().map_err(|error| Failure::Failed(error.to_string()));
    }
    let failed = |error: io::Error| Failure::Failed(format!("the program could not be started ({error})"));
    let mut program = Command::new(std::env::current_exe().map_err(failed)?);
    program.args(["demo", "--inside"]).process_group(0);
    // What it says of its trouble by itself would be written into the session.
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Running(program.spawn().map_err(failed)?);
    let pid = child.0.id();
    let mut path = String::new();
    let output = child.0.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    BufReader::new(output).read_line(&mut path).map_err(failed)?;
    if path.trim().is_empty() {
        return Err(Failure::Failed("the program ended before it served a socket; is CORO_BACKDOOR=off set?".into()));
    }
    println!(
        "Process {pid} runs now and ends when you leave. Four things are wrong in it: two
tasks have stopped for ever, a lock is wanted by many, one kind of task grows in
number, and every few seconds one task keeps a worker for itself. Find them:

  status           all of it on one screen; each line ends with what tells more
  deadlocks        the two that stopped: who waits for whom, and where
  objects          the locks: who holds them, how many wait
  count by class   what there is most of; asked again, what grew
  tree             who spawned so many
  stalls           who kept a worker, for how long, and where
  where ID         one task with its whole stack
  tasks().filter(|t| t.age > 5.0).map(|t| t.name)   an expression does, too

Tab completes, `help` lists the rest, Ctrl-D leaves. In another terminal:
coro top {pid}
"
    );
    attach::attach(Target::Path(path.trim().into()))
}

/// The child; ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
