//! `coro repl`: an interactive session inside a live runtime, which is in this process.
//!
//! At a terminal the session goes over a pair of sockets, with the line editor of `attach` at the other end; a backdoor of
//! this process answers what completion asks. Otherwise standard input and output are the session's own.

#![forbid(unsafe_code)]

use std::io::{self, IsTerminal as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;

use coro::backdoor;

use crate::target::Target;
use crate::{Failure, Outcome, attach};

pub(crate) const USAGE: &str = "usage: coro repl
An interactive session inside a live runtime, to try things on the network: connect(\"127.0.0.1:9000\"), .send(\"text\\n\"),
.recv(), .recv_line(), .close(), listen(address), .accept(), sleep(seconds), spawn(|| ...), .join(), .cancel(),
timeout(seconds, || ...), and all commands: `tasks` lists what was spawned. Expressions are Rhai; `functions` lists what
they can call. Tab, the history and $PAGER as for coro attach. Ctrl-C abandons what goes on, Ctrl-D leaves.
If the input is no terminal, each of its lines is evaluated.
Exit codes: 0 ended by you, 1 could not be started, 2 called wrongly.";

const HINT: &str = "connect, listen, spawn, sleep, timeout: functions lists all that can be called
Ctrl-C abandons what goes on, Ctrl-D leaves";

pub(crate) fn run(mut arguments: lexopt::Parser) -> Outcome {
    if let Some(other) = arguments.next()? {
        return Err(other.unexpected().into());
    }
    let failed = |error: io::Error| Failure::Failed(error.to_string());
    if !io::stdin().is_terminal() {
        return coro::run(coro::console::repl).map_err(failed);
    }
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let (say, heard) = mpsc::channel();
    let session = move || {
        // Answers what completion asks; without it there is less to complete.
        let server = backdoor::Builder::new().ceiling(backdoor::Tier::Read).serve();
        let _ = say.send(server.as_ref().map_or_else(|_| PathBuf::new(), |server| server.path().to_owned()));
        let outcome = coro::console::repl_on(theirs);
        server.into_iter().for_each(backdoor::Server::close);
        outcome
    };
    // Ctrl-C is the session's.
    let runtime = move || coro::runner().handle_signals(false).run(session);
    let runtime = std::thread::Builder::new().name("runtime".into()).spawn(runtime).map_err(failed)?;
    let outcome = match heard.recv() {
        Ok(path) => attach::session(Target::Path(path), ours, "act", HINT),
        // It says why below.
        Err(_) => Ok(()),
    };
    match runtime.join() {
        Ok(Ok(())) => outcome,
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(Failure::Failed("the runtime panicked".into())),
    }
}
