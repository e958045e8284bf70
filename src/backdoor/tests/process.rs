//! What takes a process of its own: exit, fork, limits, other users, the environment.
//!
//! The test program runs itself again as the one test [`child`], told by the environment what to do.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::sys::unixsock;

pub(super) const ROLE: &str = "CORO_TEST_ROLE";
pub(super) const PATH: &str = "CORO_TEST_PATH";

/// The command that runs [`child`] in a role.
pub(super) fn child_command(role: &str, path: &Path) -> Command {
    let module = module_path!().split_once("::").expect("a module in a crate").1;
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", &format!("{module}::child"), "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(PATH, path).env_remove("CORO_BACKDOOR");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A child that has said `ready`, and waits for its standard input to end.
pub(super) struct Peer {
    pub(super) child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    pub(super) said: String,
}

impl Peer {
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = loop {
            match command.spawn() {
                // A program that was just copied: a child of another test, between its fork and its exec, still holds the
                // descriptor through which it was written.
                Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                child => break child.expect("a child"),
            }
        };
        let mut stderr = BufReader::new(child.stderr.take().expect("its standard error"));
        let mut said = String::new();
        while !said.ends_with("ready\n") {
            assert_ne!(stderr.read_line(&mut said).expect("read"), 0, "the child ended early: {said}");
        }
        Self { child, stderr, said }
    }

    /// Lets it end by itself; returns all it said.
    pub(super) fn finish(mut self) -> String {
        drop(self.child.stdin.take());
        self.stderr.read_to_string(&mut self.said).expect("read");
        let status = self.child.wait().expect("its end");
        assert!(status.success(), "{status}: {}", self.said);
        self.said
    }
}

/// No test by itself: what the other processes do.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let path = PathBuf::from(std::env::var_os(PATH).expect("a path"));
    match role.as_str() {
        // As a program would: by statements, the server dropped.
        "serve" => drop(try_serve(&path).expect("served")),
        "fork" => {
            let mut server = Some(try_serve(&path).expect("served"));
            unixsock::testing::fork_child_that_exits(|| drop(server.take()));
            unixsock::testing::fork_child_that_exits(|| server.take().map(Server::close).expect("a server"));
        }
        "public" => {
            super::super::register(Commands {
                table: FAKE.table,
                banner: FAKE.banner,
                name: FAKE.name,
                welcome: FAKE.welcome,
                evaluator: None,
            });
            let server = super::super::serve(&path).expect("served");
            assert_eq!(server.path(), path);
            super::super::serve_default().expect("served");
        }
        "no descriptors" => {
            drop(try_serve(&path).expect("served"));
            // The console thread holds its spares once it answers.
            assert_eq!(Client::connect(&path).ask("where 1\n"), format!("{BANNER}line 1\n"));
            // That session gives its descriptor back a moment after its end: take that one as well.
            let mut files = Vec::new();
            let end = Instant::now() + 2 * Limits::STANDARD.linger;
            while Instant::now() < end {
                match fs::File::open("/dev/null") {
                    Ok(file) => files.push(file),
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            std::mem::forget(files);
        }
        "serve both" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.set_nonblocking(true).expect("non-blocking");
            eprintln!("port {}", listener.local_addr().expect("an address"));
            let tcp = Some(super::super::stream::Listener::Tcp(listener));
            let (commands, limits) = (&SERVED, Limits::STANDARD);
            drop(serve_asked(Asked { path, commands, limits, ceiling: None, welcome: None, tcp }).expect("served"));
        }
        "serve, nobody reads reports" => {
            crate::report::set_report_handler(Some(std::sync::Arc::new(|_| {
                loop {
                    std::thread::park();
                }
            })));
            drop(try_serve(&path).expect("served"));
        }
        "serve owner" => {
            drop(serve_with(path, &SERVED, Limits { owner_only: true, ..Limits::STANDARD }).expect("served"));
        }
        "knock" => {
            let error = UnixStream::connect(&path).expect_err("kept out");
            eprintln!("kept out: {:?}", error.kind());
        }
        "tcp client" => {
            let address = path.to_str().expect("an address");
            let mut stream = std::net::TcpStream::connect(address).expect("connected");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let mut bytes = Vec::new();
            // It may end with a reset.
            let _ = stream.read_to_end(&mut bytes);
            eprintln!("got {} bytes", bytes.len());
        }
        "client" => {
            let text = Client::connect(&path).rest().0;
            eprintln!("got {} bytes", text.len());
        }
        other => panic!("no such role: {other}"),
    }
    // The disk behind it may be full.
    let _ = writeln!(io::stderr(), "ready");
    let _ = io::stdin().read_line(&mut String::new());
    std::process::exit(0);
}

#[test]
fn the_file_is_removed_at_exit() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let peer = Peer::start(child_command("serve", &path));
    assert_eq!(Client::connect(&path).ask("where 1\n"), format!("{BANNER}line 1\n"));
    peer.finish();
    assert!(!path.exists());
}

#[test]
fn another_file_on_the_path_survives_the_exit() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let peer = Peer::start(child_command("serve", &path));
    fs::rename(&path, directory.join("moved")).expect("moved");
    fs::write(&path, "another").expect("a file");
    peer.finish();
    assert_eq!(fs::read_to_string(&path).expect("the file"), "another");
}

#[test]
fn the_exit_of_a_forked_child_removes_nothing() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let peer = Peer::start(child_command("fork", &path));
    assert_eq!(Client::connect(&path).ask("where 1\n"), format!("{BANNER}line 1\n"));
    peer.finish();
    assert!(!path.exists());
}

#[test]
fn what_a_killed_process_leaves_is_replaced() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let mut peer = Peer::start(child_command("serve", &path));
    let error = try_serve(&path).expect_err("it lives");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    peer.child.kill().expect("killed");
    peer.child.wait().expect("its end");
    assert!(path.exists());
    try_serve(&path).expect("in its place").close();
    assert!(!path.exists());
}

#[test]
fn a_process_out_of_descriptors_still_answers_one_and_refuses_the_next() {
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let inner = child_command("no descriptors", &path);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    command.env(ROLE, "no descriptors").env(PATH, &path);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let peer = Peer::start(command);
    for _ in 0..3 {
        let mut first = Client::connect(&path);
        first.expect(BANNER);
        let mut second = Client::connect(&path);
        assert!(second.rest().0.starts_with("coro: no file descriptors left"));
        first.send("where 1\n");
        first.expect("line 1\n");
        // The spare comes back when the session has ended.
        first.send("quit\n");
        first.rest();
    }
    let busy = cpu_time(peer.child.id());
    assert_eq!(Client::connect(&path).ask("where 2\n"), format!("{BANNER}line 2\n"));
    assert!(busy < 100, "{busy} ticks of processor time");
    peer.finish();
}

/// Ticks of processor time a process has used, where there is a `/proc`.
pub(super) fn cpu_time(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[test]
fn another_user_gets_not_a_byte() {
    if unixsock::effective_uid() != 0 {
        eprintln!("not run: a client of another user takes root to start");
        return;
    }
    let directory = Directory::new();
    let path = directory.join("s.sock");
    let server = Peer::start(child_command("serve", &path));
    // Open all doors, so that only the check of the peer is left.
    fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).expect("a mode set");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("a mode set");
    // A copy, for the build's directory may be closed to that user.
    let program = directory.join("client");
    fs::copy(std::env::current_exe().expect("this program"), &program).expect("a copy");
    let inner = child_command("client", &path);
    let mut command = Command::new(&program);
    command.args(inner.get_args()).env(ROLE, "client").env(PATH, &path).uid(65534).gid(65534);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let said = Peer::start(command).finish();
    assert!(said.contains("got 0 bytes"), "{said}");
    let said = server.finish();
    assert_eq!(said.matches("refused a connection of user 65534").count(), 1, "{said}");
}

#[test]
fn the_default_path_is_private_and_printed() {
    let directory = Directory::new();
    for (variable, folder) in
        [("XDG_RUNTIME_DIR", "coro".to_owned()), ("TMPDIR", format!("coro-{}", unixsock::effective_uid()))]
    {
        let mut command = child_command("public", &directory.join("s.sock"));
        command.env_remove("XDG_RUNTIME_DIR").env(variable, &directory.0);
        let peer = Peer::start(command);
        let path = directory.join(&folder).join(format!("{}.sock", peer.child.id()));
        let shown = path.display();
        assert!(
            peer.said.contains(&format!("coro: backdoor on {shown}\nsocat -t60 - UNIX-CONNECT:{shown}\n")),
            "{}",
            peer.said
        );
        assert_eq!(fs::metadata(directory.join(&folder)).expect("the folder").mode() & 0o7777, 0o700);
        assert_eq!(Client::connect(&path).ask("where 1\n"), format!("{BANNER}line 1\n"));
        peer.finish();
        assert!(!path.exists());
    }
    // Opened by somebody since: refused.
    fs::set_permissions(directory.join("coro"), fs::Permissions::from_mode(0o755)).expect("a mode set");
    let mut command = child_command("public", &directory.join("s.sock"));
    command.env("XDG_RUNTIME_DIR", &directory.0);
    let output = command.output().expect("a child");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("run: chmod 700"), "{output:?}");
}

#[test]
fn the_environment_switches_it_off() {
    let directory = Directory::new();
    let mut command = child_command("public", &directory.join("s.sock"));
    command.env("XDG_RUNTIME_DIR", &directory.0).env("CORO_BACKDOOR", "off");
    let peer = Peer::start(command);
    assert_eq!(peer.said.matches("backdoor is off").count(), 2, "{}", peer.said);
    assert_eq!(fs::read_dir(&directory.0).expect("the directory").count(), 0);
    peer.finish();
}
