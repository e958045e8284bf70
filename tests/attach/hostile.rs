//! Sockets, directories and users that a process or a client must not be led to.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use super::*;

/// Nobody.
const OTHER: u32 = 65534;

fn is_root() -> bool {
    // SAFETY: takes no argument and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("not run: this takes root");
    }
    root
}

/// The number that these tests call with.
const NUMBER: u32 = 77;

/// Calls a fresh process that is led to what `make` makes of its directory and its socket's path; says what it has against it.
#[track_caller]
fn refusal(make: impl FnOnce(&Path, &Path)) -> String {
    let target = Target::start("idle");
    let directory = target.place.at("coro");
    fs::create_dir(&directory).expect("a directory");
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).expect("a mode");
    make(&directory, &directory.join(format!("attach-{}-{NUMBER}.sock", target.pid())));
    signal_attach::send(&by_hand(&target), libc::SIGURG, NUMBER).expect("sent");
    let said = target.says("refused");
    let line = said.lines().find_map(|l| l.strip_prefix("coro: backdoor by signal: refused ")).expect(&said);
    assert!(!said.contains(" began"), "{said}");
    let line = line.replace(&*directory.to_string_lossy(), "DIR");
    // It goes on.
    fs::remove_dir_all(&directory).or_else(|_| fs::remove_file(&directory)).expect("removed");
    assert!(target.session().ask("where_all\n").contains("0 tasks"));
    masked(&line)
}

fn listening(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("a socket");
    listener.set_nonblocking(true).expect("non-blocking");
    listener
}

#[track_caller]
fn nobody_came(listener: &UnixListener) {
    assert_eq!(listener.accept().expect_err("nobody").kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_process_connects_to_nothing_but_a_socket_in_a_directory_of_its_own() {
    let (mut aside, mut kept) = (Vec::new(), Vec::new());
    let place = Directory::new();
    let said = refusal(|_, path| {
        let real = place.at("real.sock");
        aside.push(listening(&real));
        symlink(&real, path).expect("a link");
    });
    assert_eq!(said, "a call: DIR/attach-N-N.sock is a symbolic link");
    assert_eq!(refusal(|_, path| fs::write(path, "").expect("a file")), "a call: DIR/attach-N-N.sock is not a socket");
    assert_eq!(
        refusal(|_, path| drop(listening(path))),
        "a call: nobody answers at DIR/attach-N-N.sock: Connection refused (os error N)"
    );
    let said = refusal(|_, _| {});
    assert!(said.starts_with("a call: there is no attach-N-N.sock in DIR, "), "{said}");
    let said = refusal(|directory, path| {
        aside.push(listening(path));
        fs::set_permissions(directory, Permissions::from_mode(0o755)).expect("a mode");
    });
    assert_eq!(said, "a call: DIR is open to other users; run: chmod N DIR");
    let said = refusal(|directory, path| {
        let real = Directory::new();
        fs::remove_dir(directory).expect("removed");
        symlink(&real.0, directory).expect("a link");
        aside.push(listening(path));
        kept.push(real);
    });
    assert_eq!(said, "a call: DIR is not a directory; remove it, or give serve() a path of its own");
    if is_root() {
        let said = refusal(|_, path| {
            aside.push(listening(path));
            chown(path, Some(OTHER), None).expect("given away");
        });
        assert_eq!(said, "a call: the socket DIR/attach-N-N.sock belongs to user N");
        let said = refusal(|directory, path| {
            aside.push(listening(path));
            chown(directory, Some(OTHER), None).expect("given away");
        });
        assert_eq!(said, "a call: DIR belongs to user N, not to us; give serve() a path of its own");
    }
    aside.iter().for_each(nobody_came);
}

/// Listens there as another user; the socket's file stays ours.
fn listening_as_another(path: &Path) -> UnixListener {
    // SAFETY: plain system calls on a descriptor of our own. The user is changed for a thread that ends here: this is the
    // system call, not the library's function, which would change all threads.
    unsafe {
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        let text = path.as_os_str().as_encoded_bytes();
        assert!(text.len() < address.sun_path.len());
        for (to, from) in address.sun_path.iter_mut().zip(text) {
            *to = *from as libc::c_char;
        }
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        assert_eq!(libc::bind(fd, (&raw const address).cast(), length), 0);
        let listens = move || {
            assert_eq!(libc::syscall(libc::SYS_setresuid, OTHER, OTHER, OTHER), 0);
            libc::listen(fd, 5)
        };
        assert_eq!(std::thread::spawn(listens).join().expect("the other user's thread"), 0);
        std::os::fd::FromRawFd::from_raw_fd(fd)
    }
}

#[test]
fn a_listener_of_another_user_gets_not_a_byte() {
    if !is_root() {
        return;
    }
    let mut listener = None;
    let said = refusal(|_, path| listener = Some(listening_as_another(path)));
    assert_eq!(said, "a connection of user N (unix uid N pid N by signal)");
    let (mut came, _) = listener.expect("made").accept().expect("it had to connect to see whose it is");
    came.set_nonblocking(false).expect("blocking");
    let mut bytes = Vec::new();
    came.read_to_end(&mut bytes).expect("read");
    assert_eq!(bytes, b"");
}

#[test]
fn a_client_takes_no_connection_but_that_of_the_process() {
    // One that has a handler and does not come.
    let target = Target::start("stacks only");
    let pid = target.pid();
    let client = std::thread::spawn(move || {
        let mut noted = Vec::new();
        let outcome = attach(pid, libc::SIGURG, SHORT, |note| noted.push(note.to_owned()));
        (outcome.map(|stream| stream.as_raw_fd()), noted)
    });
    let mut path = PathBuf::new();
    until(LONG, "the client's socket", || {
        let found = fs::read_dir(target.place.at("coro")).into_iter().flatten().flatten().next();
        found.is_some_and(|entry| {
            path = entry.path();
            true
        })
    });
    assert_eq!(fs::metadata(target.place.at("coro")).expect("the directory").permissions().mode() & 0o7777, 0o700);
    let mut stranger = None;
    until(LONG, "a connection", || {
        stranger = UnixStream::connect(&path).ok();
        stranger.is_some()
    });
    let mut bytes = Vec::new();
    stranger.expect("connected").read_to_end(&mut bytes).expect("read");
    assert_eq!(bytes, b"");
    let (outcome, noted) = client.join().expect("the client");
    assert!(outcome.is_err());
    // SAFETY: takes no argument and cannot fail.
    let user = unsafe { libc::geteuid() };
    assert_eq!(noted, [format!("refused a connection of user {user} process {}", std::process::id())]);
}

#[test]
fn a_place_that_another_user_has_taken_is_left_for_the_next() {
    if !is_root() {
        return;
    }
    let place = Directory::new();
    let target = Target::start_as("idle", |command| {
        command.env("TMPDIR", &place.0);
    });
    let taken = target.place.at("coro");
    fs::create_dir(&taken).expect("a directory");
    chown(&taken, Some(OTHER), None).expect("given away");
    assert!(target.session().ask("where_all\n").contains("0 tasks"));
    assert!(place.at("coro-0").is_dir());
    assert!(!target.said().contains("refused"), "{}", target.said());
}

#[test]
fn root_attaches_to_a_process_of_another_user_and_leaves_no_files_of_its_own() {
    if !is_root() {
        return;
    }
    let home = Directory::new();
    // The build's directory may be closed to that user.
    let program = home.at("program");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy");
    chown(&home.0, Some(OTHER), Some(OTHER)).expect("given away");
    let target = Target::start_as("idle", |command| {
        let mut other = Command::new(&program);
        other.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => other.env(name, value),
                None => other.env_remove(name),
            };
        }
        other.env_remove("XDG_RUNTIME_DIR").env("TMPDIR", &home.0).uid(OTHER).gid(OTHER).current_dir("/");
        other.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        *command = other;
    });
    let answer = target.session().ask("sessions\n");
    assert!(answer.contains(&format!(" read unix uid 0 pid {} by signal for ", std::process::id())), "{answer}");
    let place = fs::symlink_metadata(home.at(&format!("coro-{OTHER}"))).expect("the directory");
    use std::os::unix::fs::MetadataExt;
    assert_eq!((place.uid(), place.mode() & 0o7777), (OTHER, 0o700));
    assert_eq!(fs::read_dir(home.at(&format!("coro-{OTHER}"))).expect("the directory").count(), 0);
}
