//! A proxy that shows what goes over a protocol: `cargo run --release --example proxy -- --listen 127.0.0.1:9200 --to 127.0.0.1:6379`.
//!
//! Every connection has two tasks, one for each direction; what passes is written to standard output with an arrow, and
//! bytes that are no text as escapes. `count`, `peers` and `fds` of the backdoor show who is connected and who waits for whom.
//!
//! Exit code 1 if it cannot start, 2 when called wrongly; Ctrl-C ends it with 130.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use coro::net::{TcpListener, TcpStream};

mod util;

const USAGE: &str = "usage: proxy --to HOST:PORT [--listen HOST:PORT] [--backdoor PATH]
  --to HOST:PORT      where connections are passed on to
  --listen HOST:PORT  where to listen (default 127.0.0.1:9200; port 0 is any free one)
  --backdoor PATH     the backdoor's socket (default in a private directory)";

/// How long the other side may take to answer a new connection.
const CONNECTING: Duration = Duration::from_secs(5);
/// So much of one piece is shown.
const SHOWN: usize = 200;

/// Passes on what comes, and shows it. `arrow` says which way.
#[inline(never)]
fn pump(mut from: TcpStream, mut to: TcpStream, arrow: &str) -> io::Result<u64> {
    let mut buf = [0; 16 * 1024];
    let mut passed = 0;
    loop {
        let n = match from.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => {
                let _ = to.shutdown(Shutdown::Write);
                return Err(e);
            }
        };
        show(arrow, &buf[..n]);
        to.write_all(&buf[..n])?;
        passed += n as u64;
    }
    // Only this direction has ended.
    to.shutdown(Shutdown::Write)?;
    Ok(passed)
}

/// One line for each piece. Standard output is for people; a reader that does not read must not hold up the worker.
fn show(arrow: &str, bytes: &[u8]) {
    let shown = bytes[..bytes.len().min(SHOWN)].escape_ascii();
    let more = if bytes.len() > SHOWN { format!(" … {} bytes", bytes.len()) } else { String::new() };
    let line = format!("{arrow} {shown}{more}\n");
    let _ = coro::blocking(move || io::stdout().write_all(line.as_bytes()));
}

/// One connection: until both directions have ended.
#[inline(never)]
fn pass_on(client: TcpStream, to: &str) -> io::Result<()> {
    let server = coro::timeout(CONNECTING, || TcpStream::connect(to))
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{to} does not answer")))??;
    let name = client.peer_addr().map_or_else(|_| "?".to_owned(), |a| a.to_string());
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let up = coro::Builder::new().name(format!("{name} up")).class("up").spawn({
        let arrow = format!("{name} →");
        move || pump(from_client, to_server, &arrow)
    })?;
    let down = pump(server, client, &format!("{name} ←"));
    let up = up.join().unwrap_or_else(|_| Err(io::Error::other("the task panicked")));
    let (up, down) = (up?, down?);
    show(&name, format!("ended, {up} bytes there and {down} back").as_bytes());
    Ok(())
}

fn serve(o: &Options) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("--listen {}: {e}", o.listen));
    let listener = TcpListener::bind(o.listen.as_str()).map_err(named)?;
    let backdoor = match &o.backdoor {
        Some(path) => coro::backdoor::serve(path)?,
        None => coro::backdoor::serve_default()?,
    };
    let _ = writeln!(
        io::stdout(),
        "listening on {}, passing on to {}\nbackdoor on {}",
        listener.local_addr()?,
        o.to,
        backdoor.path().display()
    );
    loop {
        match listener.accept() {
            Ok((client, peer)) => {
                let to = o.to.clone();
                let spawned = coro::Builder::new().name(format!("{peer} down")).class("down").spawn(move || {
                    if let Err(e) = pass_on(client, &to) {
                        coro::print_stderr(format!("{peer}: {e}"));
                    }
                });
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

struct Options {
    listen: String,
    to: String,
    backdoor: Option<PathBuf>,
}

fn options() -> Result<Option<Options>, String> {
    use lexopt::prelude::{Long, Short};
    let mut parser = lexopt::Parser::from_env();
    let (mut listen, mut to, mut backdoor) = ("127.0.0.1:9200".to_owned(), None, None);
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("listen") => listen = util::text(&mut parser, "--listen")?,
            Long("to") => to = Some(util::text(&mut parser, "--to")?),
            Long("backdoor") => backdoor = Some(util::path(&mut parser, "--backdoor")?),
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Some(Options { listen, to: to.ok_or("--to HOST:PORT is missing")?, backdoor }))
}

fn main() -> ExitCode {
    util::main("proxy", USAGE, options(), |options| coro::run(|| serve(&options)).map(|()| ExitCode::SUCCESS))
}
