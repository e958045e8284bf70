//! How a server is asked for: by the program, or by the environment.
//!
//! Must not know: sessions, what is answered.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::stream::Listener;
use super::{Asked, Limits, Server, Tier, absolute, bind, inert, registered, serve_asked};
use crate::sys::fork;

/// The ports that [`Builder::tcp_loopback`] tries; the first is that of Shrapnel's back door.
const PORTS: std::ops::RangeInclusive<u16> = 8023..=8033;

/// A server on which the running process answers questions, before it serves.
///
/// # Examples
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// use coro::backdoor::{Builder, Tier};
///
/// coro::run(|| {
///     Builder::new().unix("/run/app/coro.sock").tcp_loopback().ceiling(Tier::Read).welcome("app, the blue one").serve()?;
///     Ok(())
/// })
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "nothing listens until `serve` is called"]
pub struct Builder {
    path: Option<PathBuf>,
    tcp: bool,
    welcome: Option<String>,
    ceiling: Option<Tier>,
    owner_only: bool,
    expression: Option<Duration>,
}

impl Builder {
    /// A unix socket on the path of [`serve_default`](super::serve_default), for this user and root.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Serves at that path.
    pub fn unix(mut self, path: impl AsRef<Path>) -> Builder {
        self.path = Some(path.as_ref().to_owned());
        self
    }

    /// Also serves on 127.0.0.1, on the lowest free port of 8023 to 8033, for `telnet`; the port is printed. Only connections
    /// whose other end belongs to this user or root get an answer. Linux only.
    pub fn tcp_loopback(mut self) -> Builder {
        self.tcp = true;
        self
    }

    /// Text for people who connect, before the first prompt.
    pub fn welcome(mut self, text: impl Into<String>) -> Builder {
        self.welcome = Some(text.into());
        self
    }

    /// What sessions may be raised to. Without it: [`Tier::Act`] on the unix socket, [`Tier::Read`] on TCP.
    pub fn ceiling(mut self, tier: Tier) -> Builder {
        self.ceiling = Some(tier);
        self
    }

    /// Only for this user, not for root.
    pub fn owner_only(mut self) -> Builder {
        self.owner_only = true;
        self
    }

    /// How long an expression of a session may compute, and how long it may sleep. Without it, and at most, 10 s and 60 s; the
    /// time in functions of the program does not count.
    pub fn expression_limit(mut self, limit: Duration) -> Builder {
        self.expression = Some(limit);
        self
    }

    /// Serves, on a thread of its own named `coro-console`.
    ///
    /// With `CORO_BACKDOOR=off` (or `0`) in the environment nothing is served, and one line on standard error says so.
    ///
    /// # Errors
    /// Those of [`serve`](super::serve) for the path. [`AddrInUse`](io::ErrorKind::AddrInUse) also if no port is free,
    /// [`Unsupported`](io::ErrorKind::Unsupported) for TCP on a system whose table of sockets cannot be read.
    pub fn serve(self) -> io::Result<Server> {
        let path = absolute(&self.path.clone().unwrap_or_else(bind::default_path))?;
        if bind::switched_off() {
            return Ok(inert(path));
        }
        let commands = registered()?;
        if self.path.is_none()
            && let Some(directory) = path.parent()
        {
            bind::private_directory(directory)?;
        }
        let tcp = if self.tcp { Some(loopback()?) } else { None };
        let asked = Asked {
            path,
            commands,
            limits: Limits { owner_only: self.owner_only, expression: self.expression, ..Limits::STANDARD },
            ceiling: self.ceiling,
            welcome: self.welcome,
            tcp: tcp.map(Listener::Tcp),
        };
        let server = serve_asked(asked)?;
        if let Some(address) = server.tcp_addr() {
            let _ = writeln!(io::stderr(), "coro: backdoor on {address}\ntelnet {} {}", address.ip(), address.port());
        }
        Ok(server)
    }
}

/// The lowest port that is free.
fn loopback() -> io::Result<TcpListener> {
    if !cfg!(target_os = "linux") {
        let message = "who connects over TCP can be told on Linux only; serve a unix socket instead";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    for port in PORTS {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                return Ok(listener);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    let (first, last) = (PORTS.start(), PORTS.end());
    let message = format!("no port of 127.0.0.1 from {first} to {last} is free; end one of the servers there");
    Err(io::Error::new(io::ErrorKind::AddrInUse, message))
}

/// The server that the environment asked for; it lives as long as the process.
static BY_ENVIRONMENT: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Serves as `CORO_BACKDOOR` says: `1` on the default path, a path (`%p` is the process's id) there. Called when the first
/// runtime starts. What goes wrong is told and nothing more: the program did not ask for it.
pub(crate) fn as_the_environment_says() {
    let Some(value) = std::env::var_os("CORO_BACKDOOR") else { return };
    if bind::switched_off() || value.is_empty() || fork::refuse().is_err() {
        return;
    }
    let builder = match value == OsStr::new("1") {
        true => Builder::new(),
        false => Builder::new().unix(PathBuf::from(with_pid(&value, std::process::id()))),
    };
    match builder.serve() {
        Ok(server) => {
            let path = server.path().display();
            let _ =
                writeln!(io::stderr(), "coro: backdoor on {path} (CORO_BACKDOOR)\nsocat -t60 - UNIX-CONNECT:{path}");
            *BY_ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(server.path().to_owned());
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "coro: no backdoor as CORO_BACKDOOR says, the program goes on: {error}");
        }
    }
}

/// Whether the environment has had that path served already.
pub(super) fn is_served(path: &Path) -> bool {
    BY_ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(path)
}

/// `%p` in a path is the process's id, `%%` a percent sign.
fn with_pid(value: &OsStr, pid: u32) -> OsString {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.as_bytes().iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => match bytes.next() {
                Some(b'p') => out.extend_from_slice(pid.to_string().as_bytes()),
                Some(b'%') => out.push(b'%'),
                Some(other) => out.extend_from_slice(&[b'%', other]),
                None => out.push(b'%'),
            },
            byte => out.push(byte),
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_its_place_in_a_path() {
        for (given, path) in [("/run/%p.sock", "/run/17.sock"), ("/a%%p%p", "/a%p17"), ("/x%", "/x%"), ("/%q", "/%q")] {
            assert_eq!(with_pid(OsStr::new(given), 17), OsStr::new(path));
        }
    }
}
