//! `coro` as its users meet it: the built program against real processes that serve a socket, and against sockets whose other
//! end says what a test wants.

mod ask;
mod attach;
mod demo;
mod fake;
mod list;
mod repl;
mod server;
mod symbolize;
mod terminal;
mod top;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes so long by far.
const PATIENCE: Duration = Duration::from_secs(20);

/// The client, without what the environment of the tests would tell it.
fn coro(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coro"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("NO_COLOR").env_remove("PAGER").env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
    command
}

/// How it ended, and both outputs.
#[track_caller]
fn run(command: &mut Command, input: &str) -> (i32, String, String) {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the client starts");
    // It may end before it has read all.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the client's output");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// A directory of one test; goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("coro-cli-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new().mode(0o700).create(&path).expect("a scratch directory");
        Scratch(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Looks until `f` gives something; bounded, so that a wait can fail with what was seen last.
#[track_caller]
fn until<T>(what: &str, mut f: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match f() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; seen last:\n{seen}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
