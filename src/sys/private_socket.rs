//! From a path to a listening unix socket that nobody else could have opened, replaced or connected to in between.
//!
//! Invariants:
//! - The directory is ours or root's and nobody else may write there, so between two calls only programs of this user
//!   change it; those that come through here take turns by a lock on the directory, held from the first look to `listen`.
//! - The socket has mode 0600 before it has a name (Linux) or before anyone can connect (elsewhere: `listen` is last).
//! - What stands at the path is removed only if it is a socket of ours that refuses connections.
//!
//! Must not know: what is said over the socket.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::claim::Claim;
use super::unixsock::{self, MAX_PATH};

/// How long another starter may hold the directory; it needs well under a millisecond.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Connections the kernel holds until they are accepted.
const BACKLOG: libc::c_int = 16;

/// Binds `path`, which must be absolute, and listens there, without blocking on accept.
pub(crate) fn bind(path: &Path) -> io::Result<(UnixListener, Claim)> {
    let shown = path.display();
    let length = path.as_os_str().len();
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "the path has a NUL byte; abstract names are not served"));
    }
    if length > MAX_PATH {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("{shown} has {length} bytes, a unix socket's path at most {MAX_PATH}; choose a shorter one"),
        ));
    }
    let (Some(directory), Some(_)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("{shown} names no file; add the socket's name")));
    };
    check_directory(directory)?;
    let _turn = Turn::wait(directory)?;
    remove_stale(path)?;

    let socket = with_owner_mode(Socket::new(Domain::UNIX, Type::STREAM, None)?)?;
    socket.bind(&SockAddr::unix(path)?).map_err(|error| explain(error, format!("cannot make the socket {shown}")))?;
    // From here on the file exists; dropping the claim removes it.
    let claim = Claim::of(path)?;
    // On Linux this only undoes an odd umask. Elsewhere it is what sets the mode, in time: nobody can connect yet.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from(OwnedFd::from(socket)), claim))
}

/// Sets the mode that `bind` will give the file. Changing the umask instead would change it for all threads.
fn with_owner_mode(socket: Socket) -> io::Result<Socket> {
    let file = File::from(OwnedFd::from(socket));
    let outcome = file.set_permissions(Permissions::from_mode(0o600));
    if cfg!(target_os = "linux") {
        outcome?;
    }
    Ok(Socket::from(OwnedFd::from(file)))
}

/// Refuses a directory in which someone else could put another socket under our name, or move it away as a whole.
fn check_directory(directory: &Path) -> io::Result<()> {
    let shown = directory.display();
    let found = fs::metadata(directory).map_err(|error| match error.kind() {
        ErrorKind::NotFound => io::Error::new(
            ErrorKind::NotFound,
            format!("the directory {shown} does not exist; create it: mkdir -m 700 {shown}"),
        ),
        _ => explain(error, format!("cannot look at the directory {shown}")),
    })?;
    if !found.is_dir() {
        return Err(io::Error::new(ErrorKind::NotADirectory, format!("{shown} is not a directory")));
    }
    if !ours_or_roots(&found) {
        let owner = found.uid();
        return Err(refuse(format!(
            "the directory {shown} belongs to user {owner}, who could replace the socket; choose one of your own"
        )));
    }
    // The sticky bit of /tmp does not help enough: anyone could make the path before us, under our very name.
    if found.mode() & 0o022 != 0 {
        let remedy = if found.mode() & 0o1000 == 0 { format!(", or run: chmod go-w {shown}") } else { String::new() };
        return Err(refuse(format!(
            "other users can write to the directory {shown}; choose one of your own (mkdir -m 700){remedy}"
        )));
    }
    for above in fs::canonicalize(directory)?.ancestors().skip(1) {
        let mode = fs::metadata(above)?.mode();
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            let above = above.display();
            return Err(refuse(format!(
                "other users can move things in {above}, above {shown}; choose another directory, or run: chmod o-w {above}"
            )));
        }
    }
    Ok(())
}

/// Clears the way if what stands there is a dead socket of ours; otherwise says why it stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let shown = path.display();
    // Not following links: a link stays, and so does what it points to.
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(explain(error, format!("cannot look at {shown}"))),
    };
    if !found.file_type().is_socket() {
        let kind = if found.is_symlink() { "a symbolic link" } else { "not a socket" };
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            format!("{shown} exists and is {kind}; it was left alone: remove it, or choose another path"),
        ));
    }
    if found.uid() != unixsock::effective_uid() {
        let owner = found.uid();
        return Err(refuse(format!("the socket {shown} belongs to user {owner}; choose another path")));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A live server whose backlog is full would hold up a blocking connect.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|error| explain(error, format!("cannot remove the dead socket {shown}")))
        }
        // Connected, or busy, or not to be found out: only a refusal proves that nobody is there.
        _ => Err(io::Error::new(
            ErrorKind::AddrInUse,
            format!("a live process serves {shown}; stop that server, or choose another path"),
        )),
    }
}

/// This process's turn in a directory. The lock is on the directory itself, so that no lock file is left behind.
struct Turn(File);

impl Turn {
    fn wait(directory: &Path) -> io::Result<Self> {
        let shown = directory.display();
        let file =
            File::open(directory).map_err(|error| explain(error, format!("cannot open the directory {shown}")))?;
        let patience = Instant::now() + LOCK_PATIENCE;
        // Not a blocking lock: whoever may read the directory may hold it for ever.
        while !unixsock::try_lock(&file)? {
            if Instant::now() > patience {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!(
                        "another process keeps the directory {shown} locked (flock); end it, or choose another path"
                    ),
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Self(file))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        unixsock::unlock(&self.0);
    }
}

fn ours_or_roots(found: &Metadata) -> bool {
    found.uid() == unixsock::effective_uid() || found.uid() == 0
}

fn refuse(message: String) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, message)
}

fn explain(error: io::Error, message: String) -> io::Error {
    io::Error::new(error.kind(), format!("{message}: {error}"))
}
