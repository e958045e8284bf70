//! Where a socket may be, and what may be removed.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::sys::unixsock;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode set");
}

#[track_caller]
fn assert_refused(path: &Path, kind: ErrorKind, hint: &str) {
    let error = try_serve(path).expect_err("refused");
    assert!(error.kind() == kind && error.to_string().contains(hint), "{:?}: {error}", error.kind());
}

/// A socket nobody listens on any more.
fn leave_stale(path: &Path) {
    drop(UnixListener::bind(path).expect("a socket"));
}

#[test]
fn nobody_ever_sees_another_mode_than_0600() {
    let directory = Directory::new();
    let (path, done, seen) = (directory.join("s.sock"), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(found) = fs::symlink_metadata(&path) {
                    assert_eq!(found.mode() & 0o777, 0o600);
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let mut rounds = 0;
        // On a busy machine the watcher may not have run yet.
        while !watcher.is_finished() && (rounds < 200 || seen.load(Ordering::Relaxed) < 20) {
            try_serve(&path).expect("served").close();
            rounds += 1;
        }
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("the mode, always");
    });
}

#[test]
fn directories_that_others_could_change_are_refused() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        set_mode(&directory.0, mode);
        assert_refused(&path, ErrorKind::PermissionDenied, "choose one of your own");
    }
    set_mode(&directory.0, 0o755);
    try_serve(&path).expect("served").close();

    // Safe itself, but it could be moved away.
    let below = directory.join("below");
    fs::create_dir(&below).expect("a directory");
    set_mode(&below, 0o700);
    set_mode(&directory.0, 0o777);
    assert_refused(&below.join("s.sock"), ErrorKind::PermissionDenied, "other users can move things in");
    set_mode(&directory.0, 0o1777);
    try_serve(&below.join("s.sock")).expect("served").close();

    if unixsock::effective_uid() == 0 {
        chown(&below, Some(65534), None).expect("given away");
        assert_refused(&below.join("s.sock"), ErrorKind::PermissionDenied, "belongs to user 65534");
    } else {
        eprintln!("not run: a foreign directory takes root to make");
    }
}

#[test]
fn paths_that_cannot_be_are_explained() {
    let directory = Directory::new();
    assert_refused(&directory.join("missing/s.sock"), ErrorKind::NotFound, "mkdir -m 700");
    assert_refused(Path::new("/"), ErrorKind::InvalidInput, "names no file");
    assert_refused(Path::new("/tmp/\0x"), ErrorKind::InvalidInput, "NUL");
    let room = unixsock::MAX_PATH - directory.0.as_os_str().len() - 1;
    let limit = format!("at most {}", unixsock::MAX_PATH);
    assert_refused(&directory.join(&"x".repeat(room + 1)), ErrorKind::InvalidInput, &limit);
    let longest = directory.join(&"x".repeat(room));
    let server = try_serve(&longest).expect("the longest path");
    assert_eq!(Client::connect(&longest).ask("where 1\n"), format!("{BANNER}line 1\n"));
    server.close();
}

#[test]
fn what_is_no_dead_socket_survives() {
    let directory = Directory::new();
    let path = directory.join("s.sock");

    fs::write(&path, "precious").expect("a file");
    assert_refused(&path, ErrorKind::AlreadyExists, "not a socket");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "precious");
    fs::remove_file(&path).expect("removed");

    let target = directory.join("target");
    symlink(&target, &path).expect("a link");
    for _ in 0..2 {
        assert_refused(&path, ErrorKind::AlreadyExists, "symbolic link");
        assert_eq!(fs::read_link(&path).expect("the link"), target);
        // First it dangles, then it leads to a dead socket.
        assert!(!target.exists() || fs::symlink_metadata(&target).expect("the target").file_type().is_socket());
        if !target.exists() {
            leave_stale(&target);
        }
    }
    assert!(target.exists());
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    leave_stale(&path);
    let server = try_serve(&path).expect("in place of the dead one");
    assert_refused(&path, ErrorKind::AddrInUse, "a live process");
    assert_eq!(Client::connect(&path).ask("where 1\n"), format!("{BANNER}line 1\n"));
    server.close();

    // One that does not answer, its backlog full, is live too.
    let busy = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
    busy.bind(&socket2::SockAddr::unix(&path).expect("an address")).expect("bound");
    busy.listen(0).expect("listening");
    let waiting: Vec<socket2::Socket> = (0..3)
        .map(|_| {
            let client = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
            client.set_nonblocking(true).expect("non-blocking");
            let _ = client.connect(&socket2::SockAddr::unix(&path).expect("an address"));
            client
        })
        .collect();
    assert_refused(&path, ErrorKind::AddrInUse, "a live process");
    drop(waiting);
}

#[test]
fn of_several_starters_exactly_one_wins() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    for round in 0..30 {
        leave_stale(&path);
        let barrier = Barrier::new(4);
        let servers: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                try_serve(&path)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().expect("a starter")).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = servers.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "round {round}: {lost:?}");
        for error in lost.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        }
        assert_eq!(Client::connect(&path).ask("where 1\n"), format!("{BANNER}line 1\n"));
        won.into_iter().flatten().for_each(Server::close);
        assert!(!path.exists());
    }
}

#[test]
fn close_removes_its_own_file_only() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let first = try_serve(&path).expect("served");
    fs::remove_file(&path).expect("removed by somebody");
    let second = try_serve(&path).expect("served again");
    first.close();
    assert_eq!(Client::connect(&path).ask("where 1\n"), format!("{BANNER}line 1\n"));
    fs::rename(&path, directory.join("moved")).expect("moved");
    fs::write(&path, "another").expect("a file");
    second.close();
    assert_eq!(fs::read_to_string(&path).expect("the file"), "another");
}

#[test]
fn a_closed_server_ends_its_sessions_and_a_dropped_one_goes_on() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let server = try_serve(&path).expect("served");
    assert_eq!(server.path(), path);
    let mut client = Client::connect(&path);
    client.send(&format!("where {ENDLESS}\n"));
    client.expect(&format!("{BANNER}line 0\n"));
    server.close();
    client.rest();
    assert!(UnixStream::connect(&path).is_err());

    drop(try_serve(&path).expect("served"));
    for _ in 0..3 {
        assert_eq!(Client::connect(&path).ask("where 1\n"), format!("{BANNER}line 1\n"));
    }
}
