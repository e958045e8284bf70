//! A session with a process of which only the number is known: the client's side of
//! `coro::console::install_signal_handler`.
//!
//! [`attach`] looks first whether the process has a handler at all, then listens on a private socket
//! `attach-PID-NUMBER.sock`, NUMBER being of its own choice, in a directory of the process's user that both sides can find
//! (`$XDG_RUNTIME_DIR/coro` or `$TMPDIR/coro-UID` as the process's own environment has them, else `/tmp/coro-UID`); then it
//! sends the signal with a value that carries a mark and NUMBER, and waits until that process, and no other, connects.
//!
//! Invariants: nothing is sent to a process that has no handler for the signal; the signal goes to the process that was
//! looked at, also if its number is given to another meanwhile (a pidfd); no connection is returned but that process's. As
//! root, files are made with the process's user's rights, so that nothing in that user's directories can lead root astray.
//!
//! Linux only. Must not know: what is said over the connection.
#![allow(dead_code, reason = "each program that includes this uses a part of it")]

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The upper half of the signal's value, which is how the process knows it.
const MARK: u64 = 0x636f_726f << 32;
/// A signal is lost while another of its kind is pending, so it is sent again.
const AGAIN: Duration = Duration::from_millis(250);
/// What fits a unix socket's address.
const LONGEST_PATH: usize = 107;

/// What is known of a process before anything is sent to it.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) name: String,
    /// One letter, as `ps` shows it.
    pub(crate) state: char,
    /// The debugger's number; 0 for none.
    pub(crate) tracer: i32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Its number as it knows it itself, which is another in a container.
    pub(crate) own_pid: i32,
    /// A bit for each signal that it has a handler for.
    pub(crate) caught: u64,
}

impl Facts {
    /// What `/proc/PID/status` says, if it says all of it.
    pub(crate) fn parse(status: &str) -> Option<Facts> {
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let word = |name: &str, at: usize| field(name)?.split_ascii_whitespace().nth(at);
        Some(Facts {
            name: field("Name")?.chars().flat_map(char::escape_debug).collect(),
            state: field("State")?.chars().next()?,
            tracer: field("TracerPid")?.parse().ok()?,
            // Real, effective, saved, for files.
            uid: word("Uid", 1)?.parse().ok()?,
            gid: word("Gid", 1)?.parse().ok()?,
            own_pid: match field("NSpid") {
                Some(numbers) => numbers.split_ascii_whitespace().last()?.parse().ok()?,
                None => field("Pid")?.parse().ok()?,
            },
            caught: u64::from_str_radix(field("SigCgt")?, 16).ok()?,
        })
    }

    pub(crate) fn has_handler(&self, signal: i32) -> bool {
        (1..=64).contains(&signal) && self.caught >> (signal - 1) & 1 == 1
    }
}

/// A session with process `pid`, begun by that signal: the program's banner is the next that comes. `note` is told what is
/// worth knowing meanwhile.
///
/// # Errors
/// One or more sentences for people, without the process's number and without a newline at the end.
pub(crate) fn attach(
    pid: i32,
    signal: i32,
    patience: Duration,
    mut note: impl FnMut(&str),
) -> Result<UnixStream, String> {
    let process = open(pid)?;
    let facts = facts_of(pid)?;
    if has_ended(&process, Duration::ZERO) {
        return Err("it has ended".into());
    }
    // SAFETY: takes no argument and cannot fail.
    let us = unsafe { libc::geteuid() };
    if us != 0 && us != facts.uid {
        return Err(format!("{} belongs to user {}; attach as that user or as root", facts.name, facts.uid));
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    if [&b"off"[..], b"0"].contains(&variable(&environment, "CORO_BACKDOOR").unwrap_or_default()) {
        return Err(format!("{} was started with CORO_BACKDOOR=off, which forbids it", facts.name));
    }
    check(&facts, signal, &mut note)?;
    let number = number();
    let invitation = Invitation::new(pid, &facts, &environment, number)?;

    let deadline = Instant::now() + patience;
    let mut again = Instant::now();
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Err(no_answer(pid, signal, patience, &invitation.path));
        }
        if now >= again {
            send(&process, signal, number)?;
            again = now + AGAIN;
        }
        if has_ended(&process, Duration::ZERO) {
            return Err(format!("{} ended before it connected", facts.name));
        }
        wait_for(invitation.listener.as_raw_fd(), again.min(deadline) - now);
        match invitation.listener.accept() {
            Ok((stream, _)) => match stranger(&stream, pid, &facts) {
                None => {
                    stream.set_nonblocking(false).map_err(|error| error.to_string())?;
                    return Ok(stream);
                }
                Some(stranger) => note(&format!("refused a connection of {stranger}")),
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(format!("cannot accept its connection: {error}")),
        }
    }
}

/// The process itself, not only its number.
pub(crate) fn open(pid: i32) -> Result<OwnedFd, String> {
    // SAFETY: plain integers; the descriptor that comes is new and nobody else's.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd >= 0 {
            return Ok(OwnedFd::from_raw_fd(fd as i32));
        }
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ESRCH) => "there is no such process".into(),
        Some(libc::EINVAL) => "that is no process's number (a thread's?)".into(),
        _ => format!("cannot get hold of the process: {error}"),
    })
}

fn facts_of(pid: i32) -> Result<Facts, String> {
    let status = fs::read(format!("/proc/{pid}/status")).map_err(|error| format!("/proc/{pid}/status: {error}"))?;
    Facts::parse(&String::from_utf8_lossy(&status)).ok_or_else(|| format!("/proc/{pid}/status is not as documented"))
}

/// Whether the signal would do what it is for.
pub(crate) fn check(facts: &Facts, signal: i32, note: &mut impl FnMut(&str)) -> Result<(), String> {
    let (name, shown) = (&facts.name, signal_name(signal));
    match facts.state {
        'Z' | 'X' => return Err(format!("{name} has ended")),
        'T' => return Err(format!("{name} is stopped; let it go on first (kill -CONT)")),
        't' => return Err(format!("{name} is stopped by a debugger, process {}", facts.tracer)),
        _ => {}
    }
    if !facts.has_handler(signal) {
        return Err(format!(
            "{name} has no handler for {shown}, and nothing was sent; does it call coro::console::install_signal_handler()?"
        ));
    }
    match facts.tracer {
        0 => {}
        tracer if signal == libc::SIGTRAP => {
            return Err(format!(
                "a debugger, process {tracer}, is attached to {name} and would take {shown} for itself"
            ));
        }
        tracer => note(&format!("a debugger, process {tracer}, is attached to {name} and may hold up {shown}")),
    }
    Ok(())
}

fn signal_name(signal: i32) -> String {
    match signal {
        libc::SIGURG => "SIGURG".into(),
        libc::SIGTRAP => "SIGTRAP".into(),
        libc::SIGUSR1 => "SIGUSR1".into(),
        libc::SIGUSR2 => "SIGUSR2".into(),
        other => format!("signal {other}"),
    }
}

/// The socket that the process is to connect to; its file goes with this.
struct Invitation {
    listener: UnixListener,
    path: PathBuf,
    user: (u32, u32),
}

impl Invitation {
    fn new(pid: i32, facts: &Facts, environment: &[u8], number: u32) -> Result<Invitation, String> {
        let user = (facts.uid, facts.gid);
        let _with = Rights::of(user)?;
        let mut problems = Vec::new();
        for place in places(pid, facts, environment) {
            match bind(&place, &format!("attach-{}-{number}.sock", facts.own_pid), facts.uid) {
                Ok((listener, path)) => return Ok(Invitation { listener, path, user }),
                Err(problem) => problems.push(problem),
            }
        }
        Err(format!("no directory to meet in: {}", problems.join("; ")))
    }
}

impl Drop for Invitation {
    fn drop(&mut self) {
        if let Ok(_with) = Rights::of(self.user) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Where the process looks, as far as one can tell from here.
fn places(pid: i32, facts: &Facts, environment: &[u8]) -> Vec<PathBuf> {
    let directory = |name: &str| {
        let value = variable(environment, name).filter(|value| value.starts_with(b"/"))?;
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(value)))
    };
    let root = root(pid);
    let runtime = directory("XDG_RUNTIME_DIR")
        .filter(|at| fs::metadata(within(&root, at)).is_ok_and(|found| found.is_dir() && found.uid() == facts.uid));
    let folder = format!("coro-{}", facts.uid);
    let mut places: Vec<PathBuf> = Vec::new();
    let temporary = directory("TMPDIR").unwrap_or_else(|| "/tmp".into());
    for place in
        [runtime.map(|at| at.join("coro")), Some(temporary.join(&folder)), Some(Path::new("/tmp").join(&folder))]
    {
        let place = place.map(|place| within(&root, &place));
        places.extend(place.filter(|place| !places.contains(place)));
    }
    places
}

/// What the process sees as `/`, if that is not what we see: a container, a chroot.
fn root(pid: i32) -> Option<PathBuf> {
    let link = |path: String| fs::read_link(path).ok();
    let (theirs, ours) = (link(format!("/proc/{pid}/ns/mnt")), link("/proc/self/ns/mnt".into()));
    let elsewhere = theirs.is_some() && theirs != ours;
    let below = link(format!("/proc/{pid}/root")).is_some_and(|root| root != Path::new("/"));
    (elsewhere || below).then(|| PathBuf::from(format!("/proc/{pid}/root")))
}

fn within(root: &Option<PathBuf>, path: &Path) -> PathBuf {
    match root {
        Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
        None => path.to_owned(),
    }
}

fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let entries = environment.split(|byte| *byte == 0);
    let value = |entry: &'a [u8]| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    entries.filter_map(value).next().filter(|value| !value.is_empty())
}

/// Listens in that directory, which is made if it is not there.
fn bind(place: &Path, name: &str, uid: u32) -> Result<(UnixListener, PathBuf), String> {
    let shown = place.display();
    match DirBuilder::new().mode(0o700).create(place) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(format!("{shown}: {error}")),
        _ => {}
    }
    // Not following links: in a directory for everyone somebody else could have put one here.
    let found = fs::symlink_metadata(place).map_err(|error| format!("{shown}: {error}"))?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        return Err(format!("{shown} is not a directory of user {uid} alone"));
    }
    remove_left_over(place);
    let path = place.join(name);
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(format!("{shown} is too long a path for a socket"));
    }
    let listener = UnixListener::bind(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    listener.set_nonblocking(true).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((listener, path))
}

/// What clients that were killed have left, after a while in which any other is done.
fn remove_left_over(place: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(600);
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.as_bytes().starts_with(b"attach-") && name.as_bytes().ends_with(b".sock");
        let old =
            |found: &fs::Metadata| found.file_type().is_socket() && found.modified().is_ok_and(|at| at < long_ago);
        if ours && entry.metadata().is_ok_and(|found| old(&found)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The rights over files of a user, for this thread, until this is dropped.
struct Rights {
    changed: bool,
}

impl Rights {
    fn of((uid, gid): (u32, u32)) -> Result<Rights, String> {
        // SAFETY: plain integers; the calls change this thread alone and are undone at the drop. An id that is none changes
        // nothing and gives the present one.
        unsafe {
            if libc::geteuid() == uid {
                return Ok(Rights { changed: false });
            }
            let rights = Rights { changed: true };
            libc::setfsgid(gid);
            libc::setfsuid(uid);
            if libc::setfsuid(u32::MAX) as u32 != uid || libc::setfsgid(u32::MAX) as u32 != gid {
                return Err(format!("cannot act as user {uid}"));
            }
            Ok(rights)
        }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        if self.changed {
            // SAFETY: as above.
            unsafe {
                libc::setfsuid(libc::geteuid());
                libc::setfsgid(libc::getegid());
            }
        }
    }
}

/// One that no other client has, as good as certainly.
fn number() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    random as u32 ^ (random >> 32) as u32
}

/// `siginfo_t` as the kernel takes it for a signal with a value.
#[repr(C)]
struct Queued {
    signo: i32,
    errno: i32,
    code: i32,
    _pad: i32,
    pid: i32,
    uid: u32,
    value: u64,
    _rest: [u64; 12],
}

const _: () = assert!(size_of::<Queued>() == 128 && size_of::<libc::siginfo_t>() == 128);

/// Sends the signal with the mark.
pub(crate) fn send(process: &OwnedFd, signal: i32, number: u32) -> Result<(), String> {
    // SAFETY: plain system calls; the structure lives across the call and has the kernel's size.
    let outcome = unsafe {
        let info = Queued {
            signo: signal,
            errno: 0,
            code: libc::SI_QUEUE,
            _pad: 0,
            pid: libc::getpid(),
            uid: libc::getuid(),
            value: MARK | u64::from(number),
            _rest: [0; 12],
        };
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, &raw const info, 0)
    };
    if outcome == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::ESRCH) => "it ended before it was called".into(),
        Some(libc::EPERM) => "this user may not send it signals; attach as its user or as root".into(),
        // The limit of signals that wait; it may be lower than one.
        _ => format!("the signal cannot be sent: {error}"),
    })
}

/// Whether the process has ended within that time.
fn has_ended(process: &OwnedFd, time: Duration) -> bool {
    wait_for(process.as_raw_fd(), time)
}

/// Whether the descriptor has something to read within that time, rounded up to milliseconds.
fn wait_for(fd: i32, time: Duration) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let milliseconds = i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: one entry, a local.
    unsafe { libc::poll(&raw mut entry, 1, milliseconds) == 1 }
}

/// Who is at the other end, if it is not the process that was called.
fn stranger(stream: &UnixStream, pid: i32, facts: &Facts) -> Option<String> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the pointers are to locals that outlive the call, and the length is that of the structure.
    let outcome = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Some("somebody unknown".into());
    }
    let is_target = peer.uid == facts.uid && peer.pid == pid;
    (!is_target).then(|| format!("user {} process {}", peer.uid, peer.pid))
}

/// Why nobody came, as far as one can tell from here.
fn no_answer(pid: i32, signal: i32, patience: Duration, path: &Path) -> String {
    let (seconds, shown) = (patience.as_secs_f64(), signal_name(signal));
    let begin = format!("it did not connect within {seconds} s");
    let Ok(facts) = facts_of(pid) else { return format!("{begin}, and has ended since") };
    if matches!(facts.state, 'T' | 't') {
        return format!("{begin}: it is stopped");
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let names = threads.filter_map(|thread| fs::read(thread.path().join("comm")).ok());
    if !names.into_iter().any(|name| name == b"coro-attach\n") {
        return format!(
            "{begin}: it handles {shown}, but not for this; it has to call coro::console::install_signal_handler() first"
        );
    }
    format!("{begin}; what it has against {} stands on its standard error", path.display())
}
