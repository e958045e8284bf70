//! A process that serves its default path and has something to be seen. It is this test program in another role.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::Scratch;

const ROLE: &str = "CORO_CLI_TEST_SERVER";
const BY_PATH: &str = "path";
const BY_SIGNAL: &str = "signal";

/// Tasks that do nothing, beside those with a story.
pub(crate) const IDLE: usize = 30;

/// In the role of the server this never returns.
#[test]
fn server() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    // It ends with the test that wanted it, even if that is killed.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        // The one for all tests is never dropped, and nobody else would remove its directory.
        let _ = std::env::var_os("XDG_RUNTIME_DIR").map(std::fs::remove_dir_all);
        std::process::exit(0);
    });
    let served = coro::runner().workers(2).run(serve);
    panic!("the server ended: {served:?}");
}

fn serve() -> std::io::Result<()> {
    let path = if std::env::var_os(ROLE).is_some_and(|role| role == BY_SIGNAL) {
        coro::console::install_signal_handler()?;
        PathBuf::from("nothing")
    } else {
        coro::backdoor::serve_default()?.path().to_owned()
    };
    let pool = Arc::new(coro::sync::Mutex::new(()).named("pool"));
    let held = pool.clone();
    coro::Builder::new().name("holder").spawn(move || hold(&held))?;
    // On another worker it may begin late: whoever is to wait for the lock must not get it.
    while pool.try_lock().is_ok() {
        coro::sleep(Duration::from_millis(1));
    }
    for n in 0..IDLE {
        coro::Builder::new().name(format!("idle {n}")).class("idle").spawn(idle)?;
    }
    coro::console::register("set_limit", "how many may come", |n: i64| n);
    coro::console::register_value("weather", "as it is", || "fine");
    // When it waits, everything is as the tests want it.
    let waiter = coro::Builder::new().name("db \x1b[2Jwriter").spawn(move || drop(pool.lock()))?;
    let waits = |line: &str| line.contains("lock \"pool\"");
    while !coro::where_is(waiter.id()).is_some_and(|task| waits(&task.wait)) {
        coro::sleep(Duration::from_millis(1));
    }
    println!("serving {}", path.display());
    coro::event_loop();
    Ok(())
}

#[inline(never)]
fn hold(pool: &coro::sync::Mutex<()>) {
    let _held = pool.lock();
    coro::sleep(Duration::from_secs(3600));
}

#[inline(never)]
fn idle() {
    coro::sleep(Duration::from_secs(3600));
}

/// A running one, with a runtime directory of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) socket: PathBuf,
    scratch: Scratch,
}

impl Server {
    /// One for all tests that do it no harm: the first look at a program takes a second, for its debug information.
    pub(crate) fn common() -> &'static Server {
        static COMMON: OnceLock<Server> = OnceLock::new();
        COMMON.get_or_init(|| Server::start("common"))
    }

    pub(crate) fn start(test: &str) -> Server {
        Server::start_as(test, &std::env::current_exe().expect("this program"))
    }

    /// One that serves nothing, and can be asked by a signal.
    pub(crate) fn by_signal(test: &str) -> Server {
        Server::start_in(test, &std::env::current_exe().expect("this program"), BY_SIGNAL)
    }

    /// By another file with the same program in it.
    pub(crate) fn start_as(test: &str, program: &Path) -> Server {
        Server::start_in(test, program, BY_PATH)
    }

    fn start_in(test: &str, program: &Path, role: &str) -> Server {
        let scratch = Scratch::new(test);
        let mut command = Command::new(program);
        command.args(["--exact", "server::server", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env("XDG_RUNTIME_DIR", scratch.path());
        for variable in ["CORO_BACKDOOR", "CORO_WORKERS", "CORO_STACK_GUARDS", "CORO_STACK_KB"] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the server starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let served = lines.find_map(|line| line.expect("text").split_once("serving ").map(|(_, path)| path.to_owned()));
        // The rest is nothing, and the pipe must not fill.
        std::thread::spawn(move || lines.count());
        let socket = PathBuf::from(served.expect("the server ended before it served"));
        Server { child, socket, scratch }
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub(crate) fn path(&self) -> String {
        self.socket.display().to_string()
    }

    /// `XDG_RUNTIME_DIR` of the process.
    pub(crate) fn runtime_directory(&self) -> &Path {
        self.scratch.path()
    }

    /// Kills it, so that it leaves its socket.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
