//! Asks a program's backdoor one thing and prints the answer: `ask PATH COMMAND…`, for example `ask PATH where 17`; or
//! `ask --pid PID COMMAND…`, a program that has called `coro::console::install_signal_handler`.
//!
//! Exit code 0 when answered, 1 when there is no connection or it broke, 2 when called wrongly.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, ErrorKind, IsTerminal, Write};
use std::iter::Peekable;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
#[cfg(target_os = "linux")]
use std::time::Duration;

#[cfg(target_os = "linux")]
#[path = "util/signal_attach.rs"]
mod signal_attach;

/// The banner never begins with this; a server that refuses to serve does.
const REFUSAL: &[u8] = b"coro: ";

/// How long a process may take to connect.
#[cfg(target_os = "linux")]
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    let Some(target) = Target::take(&mut words) else {
        return usage("a path and a command are needed, or --pid PID and a command");
    };
    let Ok(command) = words.map(|word| word.into_string()).collect::<Result<Vec<_>, _>>() else {
        return usage("the command must be UTF-8 text");
    };
    let mut command = command.join(" ");
    if wants_colour() && !command.trim().is_empty() && !command.starts_with("help") {
        command += " --colour";
    }
    if command.trim().is_empty() {
        return usage("a path and a command are needed, or --pid PID and a command");
    }
    if command.contains(['\n', '\r']) {
        return usage("the command must be one line");
    }
    let shown = target.shown();
    let stream = match target.connect() {
        Ok(stream) => stream,
        Err(problem) => {
            eprintln!("ask: {shown}: {problem}");
            return ExitCode::from(1);
        }
    };
    match ask(&stream, &command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ask: {shown}: the connection broke ({error})");
            ExitCode::from(1)
        }
    }
}

/// Who is asked.
enum Target {
    Path(OsString),
    Process { pid: i32, signal: i32 },
}

impl Target {
    /// `PATH`, or `--pid PID` with `--signal NAME` behind it.
    fn take(words: &mut Peekable<impl Iterator<Item = OsString>>) -> Option<Target> {
        let first = words.next()?;
        if first != "--pid" {
            return Some(Target::Path(first));
        }
        let pid = words.next()?.to_str()?.parse().ok().filter(|pid| *pid > 0)?;
        let mut signal = libc::SIGURG;
        if words.next_if(|word| word == "--signal").is_some() {
            let name = words.next()?.to_str()?.to_ascii_uppercase();
            signal = match name.strip_prefix("SIG").unwrap_or(&name) {
                "URG" => libc::SIGURG,
                "TRAP" => libc::SIGTRAP,
                "USR1" => libc::SIGUSR1,
                "USR2" => libc::SIGUSR2,
                _ => return None,
            };
        }
        Some(Target::Process { pid, signal })
    }

    fn shown(&self) -> String {
        match self {
            Target::Path(path) => path.to_string_lossy().into_owned(),
            Target::Process { pid, .. } => format!("process {pid}"),
        }
    }

    fn connect(&self) -> Result<UnixStream, String> {
        match self {
            Target::Path(path) => UnixStream::connect(path).map_err(|error| {
                let hint = match error.kind() {
                    ErrorKind::NotFound => "no such socket; is the program running, and serving?",
                    ErrorKind::ConnectionRefused => "nobody serves it any more",
                    ErrorKind::PermissionDenied => "it belongs to another user",
                    _ => "cannot connect",
                };
                format!("{hint} ({error})")
            }),
            #[cfg(target_os = "linux")]
            Target::Process { pid, signal } => {
                signal_attach::attach(*pid, *signal, PATIENCE, |note| eprintln!("ask: {}: {note}", self.shown()))
            }
            #[cfg(not(target_os = "linux"))]
            Target::Process { signal: _, .. } => Err("sessions by signal are for Linux only".into()),
        }
    }
}

fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn usage(problem: &str) -> ExitCode {
    eprintln!(
        "ask: {problem}\nusage: ask PATH COMMAND...   (ask PATH help shows the commands)
       ask --pid PID [--signal URG|TRAP|USR1|USR2] COMMAND..."
    );
    ExitCode::from(2)
}

fn ask(mut stream: &UnixStream, command: &str) -> io::Result<ExitCode> {
    // A server that turns us away may have closed already; what it said is still to be read.
    let sent = stream.write_all(format!("{command}\n").as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = BufReader::with_capacity(64 * 1024, stream);
    let mut banner = Vec::new();
    answer.read_until(b'\n', &mut banner)?;
    if banner.starts_with(REFUSAL) {
        io::stderr().write_all(&banner)?;
        return Ok(ExitCode::from(1));
    }
    if banner.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "closed without a word"));
    }
    sent?;
    let mut stdout = io::stdout().lock();
    loop {
        let bytes = answer.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            return quiet_if_piped(error);
        }
        answer.consume(length);
    }
    Ok(ExitCode::SUCCESS)
}

/// `ask … | head` is no error.
fn quiet_if_piped(error: io::Error) -> io::Result<ExitCode> {
    match error.kind() {
        ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        _ => {
            eprintln!("ask: cannot write the answer ({error})");
            Ok(ExitCode::from(1))
        }
    }
}
