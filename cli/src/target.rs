//! From what a user names, a process or a socket, to a connected stream.
//!
//! A process is looked for where `coro::backdoor::serve_default` puts its socket. If there is none, it is asked by a signal
//! to connect to us, which it does after `coro::console::install_signal_handler`.
//!
//! Invariant: nothing is sent to a socket that belongs to another user, unless we are root and were told its owner.
//!
//! Must not know: what is said over the stream.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What a user may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A process, by its id.
    Pid(u32),
    /// A socket, by its path.
    Path(PathBuf),
}

/// A stream to somebody who is to be spoken to.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    /// What messages call the other end.
    pub(crate) name: String,
    /// The process, if it was named.
    pub(crate) pid: Option<u32>,
}

impl Target {
    /// Digits are a process; everything else is a path, `./17` too.
    pub(crate) fn of(word: &OsStr) -> Result<Target, String> {
        let bytes = word.as_bytes();
        if bytes.is_empty() {
            return Err("an empty PID|PATH".into());
        }
        if !bytes.iter().all(u8::is_ascii_digit) {
            return Ok(Target::Path(PathBuf::from(word)));
        }
        match word.to_str().and_then(|digits| digits.parse().ok()) {
            Some(pid) if (1..=i32::MAX as u32).contains(&pid) => Ok(Target::Pid(pid)),
            _ => Err(format!("{} is no process's id; a socket of that name is ./{0}", word.display())),
        }
    }

    /// Connects. The error says what to do.
    pub(crate) fn connect(&self) -> Result<Connection, String> {
        match self {
            Target::Path(path) => connect(path, None),
            Target::Pid(pid) => connect_to_process(*pid),
        }
    }
}

fn connect_to_process(pid: u32) -> Result<Connection, String> {
    let Some(owner) = owner_of(pid) else {
        return Err(format!("no process has the id {pid}; coro list shows those that can be looked into"));
    };
    let us = us();
    if owner != us && us != 0 {
        return Err(format!("process {pid} belongs to user {owner}; only that user and root may look into it"));
    }
    let places = places_of(pid, owner);
    let mut dead = None;
    for path in places.iter().filter(|path| is_socket(path)) {
        match connect(path, Some(pid)) {
            Ok(connection) => return Ok(connection),
            Err(why) => dead = Some(why),
        }
    }
    if let Some(why) = dead {
        return Err(why);
    }
    let problem = match by_signal(pid) {
        Ok(stream) => return Ok(Connection { stream, name: format!("process {pid}"), pid: Some(pid) }),
        Err(problem) => problem,
    };
    let shown: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
    Err(format!(
        "process {pid}{} serves no socket at its default path (looked for {}). It does so if it calls \
         coro::backdoor::serve_default() or is started with CORO_BACKDOOR=1; if it serves another path, give that. \
         It could not be asked by a signal either: {problem}",
        program_of(pid).map(|name| format!(" ({name})")).unwrap_or_default(),
        shown.join(" and ")
    ))
}

/// How long a process may take to connect to us. It is signalled again and again meanwhile.
#[cfg(target_os = "linux")]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

#[cfg(target_os = "linux")]
fn by_signal(pid: u32) -> Result<UnixStream, String> {
    let pid = i32::try_from(pid).map_err(|_| "that is no process's number".to_owned())?;
    crate::signal_attach::attach(pid, libc::SIGURG, PATIENCE, |note| eprintln!("coro: process {pid}: {note}"))
}

#[cfg(not(target_os = "linux"))]
fn by_signal(_pid: u32) -> Result<UnixStream, String> {
    Err("that takes Linux".into())
}

fn connect(path: &Path, pid: Option<u32>) -> Result<Connection, String> {
    let shown = path.display();
    if let Ok(found) = fs::metadata(path) {
        let (owner, us) = (found.uid(), us());
        if !found.file_type().is_socket() {
            return Err(format!("{shown} is not a socket; give the one that the program serves, or its process id"));
        }
        // Whoever owns the socket decides what we read.
        if us != 0 && owner != us && owner != 0 {
            return Err(format!("{shown} belongs to user {owner}; only that user and root may look into the program"));
        }
    }
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Connection { stream, name: shown.to_string(), pid }),
        Err(error) => Err(match error.kind() {
            ErrorKind::NotFound => {
                format!("{shown}: no such socket; does the program run, and serve it? coro list shows those that do")
            }
            ErrorKind::ConnectionRefused => {
                format!("{shown}: nobody serves it any more; coro list shows the programs that can be looked into")
            }
            ErrorKind::PermissionDenied => format!("{shown}: it belongs to another user ({error})"),
            _ => format!("{shown}: cannot connect ({error})"),
        }),
    }
}

/// Where a process of that owner puts its socket by itself, the likeliest place first.
fn places_of(pid: u32, owner: u32) -> Vec<PathBuf> {
    let environment = Environment::of(pid);
    let mut places = Vec::new();
    let given = environment.get("CORO_BACKDOOR").filter(|value| value.as_bytes().starts_with(b"/"));
    if let Some(path) = given {
        places.push(PathBuf::from(path.to_string_lossy().replace("%p", &pid.to_string())));
    }
    for directory in directories(owner, environment.get("XDG_RUNTIME_DIR"), environment.get("TMPDIR")) {
        places.push(directory.join(format!("{pid}.sock")));
    }
    places
}

/// The directories in which programs of this user serve by default.
pub(crate) fn our_directories() -> Vec<PathBuf> {
    directories(us(), None, None)
}

/// `runtime` and `temporary` are what a process has in its environment.
fn directories(owner: u32, runtime: Option<&OsStr>, temporary: Option<&OsStr>) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    let ours = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| owner == us());
    let usual = OsString::from(format!("/run/user/{owner}"));
    for runtime in [runtime.map(OsStr::to_owned), ours, Some(usual)].into_iter().flatten() {
        all.push(Path::new(&runtime).join("coro"));
    }
    let temporary = temporary.map(PathBuf::from);
    for temporary in [temporary, Some(std::env::temp_dir()), Some("/tmp".into())].into_iter().flatten() {
        all.push(temporary.join(format!("coro-{owner}")));
    }
    let mut seen = BTreeSet::new();
    all.retain(|directory| directory.is_absolute() && seen.insert(directory.clone()));
    all
}

pub(crate) fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whose process that is; our own uid where that cannot be found out. `None`: there is no such process.
fn owner_of(pid: u32) -> Option<u32> {
    if let Ok(found) = fs::metadata(format!("/proc/{pid}")) {
        return Some(found.uid());
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
    match rustix::process::test_kill_process(pid) {
        Err(rustix::io::Errno::SRCH) => None,
        _ => Some(us()),
    }
}

/// What the process is called, fit to be shown.
pub(crate) fn program_of(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(crate::terminal::plain(name.trim_end()))
}

/// Whether the process stands still because somebody stopped it: then it will not answer either.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .filter_map(|line| line.strip_prefix("State:"))
        .any(|state| matches!(state.trim().chars().next(), Some('T' | 't')))
}

/// What a process was started with; empty where that may not be read.
struct Environment(Vec<u8>);

impl Environment {
    fn of(pid: u32) -> Environment {
        Environment(fs::read(format!("/proc/{pid}/environ")).unwrap_or_default())
    }

    fn get(&self, name: &str) -> Option<&OsStr> {
        let mut all = self.0.split(|byte| *byte == 0);
        all.find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"=")).map(OsStr::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_process_and_all_else_a_path() {
        let of = |word: &str| Target::of(OsStr::new(word));
        assert_eq!(of("17"), Ok(Target::Pid(17)));
        assert_eq!(of("./17"), Ok(Target::Path("./17".into())));
        assert_eq!(of("a.sock"), Ok(Target::Path("a.sock".into())));
        for word in ["0", "4294967296", "99999999999999999999", ""] {
            assert!(of(word).is_err(), "{word}");
        }
    }

    #[test]
    fn both_default_directories_are_looked_into_and_none_twice() {
        let all = directories(77, Some(OsStr::new("/run/user/77")), Some(OsStr::new("/var/tmp")));
        let place = |path: &str| all.iter().filter(|it| it.as_path() == Path::new(path)).count();
        assert_eq!(
            (place("/run/user/77/coro"), place("/var/tmp/coro-77"), place("/tmp/coro-77")),
            (1, 1, 1),
            "{all:?}"
        );
        assert!(directories(77, Some(OsStr::new("relative")), None).iter().all(|it| it.is_absolute()));
    }

    #[test]
    fn a_process_that_is_not_there_is_named_so() {
        // The highest that Linux gives is 4194304.
        let why = Target::Pid(i32::MAX as u32).connect().expect_err("no such process");
        assert!(why.starts_with("no process has the id 2147483647; "), "{why}");
    }
}
