//! An echo server: `cargo run --release --example echo -- --addr 127.0.0.1:9001 --workers 2`.
//!
//! Exit code 1 if it cannot start, 2 when called wrongly; Ctrl-C ends it with 130.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use coro::net::{TcpListener, TcpStream};

mod util;

const USAGE: &str = "usage: echo [--addr HOST:PORT] [--backdoor PATH] [--workers N]
  --addr HOST:PORT   where to listen (default 127.0.0.1:9001; port 0 is any free one)
  --backdoor PATH    the backdoor's socket (default in a private directory)
  --workers N        threads that run tasks (default CORO_WORKERS, or one per CPU)";

struct Options {
    addr: String,
    backdoor: Option<PathBuf>,
    workers: Option<usize>,
}

fn options() -> Result<Option<Options>, String> {
    use lexopt::prelude::{Long, Short};
    let mut parser = lexopt::Parser::from_env();
    let mut o = Options { addr: "127.0.0.1:9001".to_owned(), backdoor: None, workers: None };
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("addr") => o.addr = util::text(&mut parser, "--addr")?,
            Long("backdoor") => o.backdoor = Some(util::path(&mut parser, "--backdoor")?),
            Long("workers") => o.workers = Some(util::number(&mut parser, "--workers", 1..=512)?),
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Some(o))
}

fn main() -> ExitCode {
    util::main("echo", USAGE, options(), |options| {
        // A number given by hand needs a runtime of its own, which leaves signals as they are.
        match options.workers {
            None => coro::run(|| serve(&options))?,
            Some(n) => coro::Runtime::builder().workers(n).build()?.block_on(|| serve(&options))?,
        }
        io::Result::Ok(ExitCode::SUCCESS)
    })
}

fn serve(o: &Options) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("--addr {}: {e}", o.addr));
    let listener = TcpListener::bind(o.addr.as_str()).map_err(named)?;
    let backdoor = match &o.backdoor {
        Some(path) => coro::backdoor::serve(path)?,
        None => coro::backdoor::serve_default()?,
    };
    let _ =
        writeln!(io::stdout(), "listening on {}\nbackdoor on {}", listener.local_addr()?, backdoor.path().display());
    loop {
        match listener.accept() {
            Ok((conn, peer)) => {
                let spawned = coro::Builder::new().name(format!("echo {peer}")).spawn(move || echo(conn));
                if let Err(e) = spawned {
                    coro::print_stderr(format!("no task for {peer}: {e}"));
                }
            }
            // The wait that follows unwinds this task.
            Err(e) => {
                if !coro::is_cancelled() {
                    coro::print_stderr(format!("accept: {e}"));
                }
                coro::sleep(Duration::from_millis(100));
            }
        }
    }
}

#[inline(never)]
fn echo(mut conn: TcpStream) {
    let _ = conn.set_nodelay(true);
    let mut buf = [0; 4096];
    while let Ok(n) = conn.read(&mut buf) {
        if n == 0 || conn.write_all(&buf[..n]).is_err() {
            break;
        }
    }
}
