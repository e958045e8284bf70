//! A line that sits in a buffer while its writer waits for the answer: `cargo run --example buffered`, and docs/trace.md, which finds
//! out live what is wrong.
//!
//! A server answers questions, one a line. Every second a client comes with one, and none of them ever gets its answer. With
//! `--fixed` each of them does.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use coro::io::{BufRead, BufReader, BufWriter, Write};
use coro::net::{TcpListener, TcpStream};

mod util;

const USAGE: &str = "usage: buffered [--fixed] [--backdoor PATH] [--seconds N]
  --fixed           with the line that is missing
  --backdoor PATH   the backdoor's socket (default in a private directory)
  --seconds N       ends by itself after N seconds (default 600)";

struct Options {
    fixed: bool,
    backdoor: Option<PathBuf>,
    seconds: u64,
}

fn main() -> ExitCode {
    util::main("buffered", USAGE, options().map(Some), |options| {
        let workers = std::env::var("CORO_WORKERS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
        coro::runner().workers(workers).run(move || run(&options)).map(|()| ExitCode::SUCCESS)
    })
}

fn options() -> Result<Options, String> {
    use lexopt::prelude::Long;
    let mut parser = lexopt::Parser::from_env();
    let mut options = Options { fixed: false, backdoor: None, seconds: 600 };
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("fixed") => options.fixed = true,
            Long("backdoor") => options.backdoor = Some(util::path(&mut parser, "--backdoor")?),
            Long("seconds") => options.seconds = util::number(&mut parser, "--seconds", 1..=86_400)?,
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> io::Result<()> {
    let door = match &options.backdoor {
        Some(path) => coro::backdoor::serve(path)?,
        None => coro::backdoor::serve_default()?,
    };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    coro::Builder::new().name("server").spawn(move || serve(&listener))?;
    println!("backdoor on {}", door.path().display());
    for n in 1..=options.seconds {
        let fixed = options.fixed;
        let client = move || match ask(at, "what is the time?", fixed) {
            Ok(answer) => println!("client {n}: {}", answer.trim_end()),
            Err(e) => println!("client {n}: {e}"),
        };
        coro::Builder::new().name(format!("client {n}")).spawn(client)?;
        coro::sleep(Duration::from_secs(1));
    }
    // Those that wait for an answer would wait for ever.
    std::process::exit(0);
}

/// Asks one question.
fn ask(at: SocketAddr, question: &str, fixed: bool) -> io::Result<String> {
    let stream = TcpStream::connect(at)?;
    let mut requests = BufWriter::new(&stream);
    let mut answers = BufReader::new(&stream);
    requests.write_all(format!("{question}\n").as_bytes())?;
    if fixed {
        requests.flush()?;
    }
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    Ok(answer)
}

/// Answers everybody.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        if coro::Builder::new().name("connection").spawn(move || answer(&stream)).is_err() {
            return;
        }
    }
}

fn answer(stream: &TcpStream) -> io::Result<()> {
    let mut answers = BufWriter::new(stream);
    for question in BufReader::new(stream).lines() {
        answers.write_all(format!("you ask {:?}; it is late\n", question?).as_bytes())?;
        answers.flush()?;
    }
    Ok(())
}
