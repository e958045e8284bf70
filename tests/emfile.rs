//! A server without descriptors: it waits without spinning, loses no client, says so, and can still be asked.
//!
//! The server is a child process with a low limit; the clients are here.

mod util;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use util::{again, role, until, within};

const NAME: &str = "accept_without_descriptors_waits_and_serves_everybody_later";
const LIMIT: u64 = 48;
const CLIENTS: usize = 120;

#[test]
fn accept_without_descriptors_waits_and_serves_everybody_later() {
    match role().as_deref() {
        Some("server") => server(),
        Some("threads") => server_on_threads(),
        _ => {
            within(Duration::from_secs(60), || play("server"));
            within(Duration::from_secs(60), || play("threads"));
        }
    }
}

fn lower_the_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives across the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = LIMIT;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

/// Keeps every connection until its client sends a byte, which it echoes.
fn serve_one(conn: &mut (impl Read + Write)) {
    let mut b = [0];
    if conn.read_exact(&mut b).is_ok() {
        let _ = conn.write_all(&b);
    }
}

fn server() {
    lower_the_limit();
    let directory = std::env::var("CORO_TEST_DIRECTORY").unwrap();
    coro::run(|| {
        coro::backdoor::serve(format!("{directory}/backdoor")).unwrap();
        let listener = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
        println!("listening on {}", listener.local_addr().unwrap());
        // Two acceptors on one listener: neither may keep the other from its turn.
        let listener = std::sync::Arc::new(listener);
        let acceptors: Vec<_> = (0..2)
            .map(|_| {
                let listener = listener.clone();
                coro::spawn_named("acceptor", move || {
                    while let Ok((mut conn, _)) = listener.accept() {
                        coro::spawn(move || serve_one(&mut conn));
                    }
                    "an error reached the loop"
                })
            })
            .collect();
        let ended: Vec<_> = acceptors.into_iter().map(|a| a.join().unwrap()).collect();
        panic!("{ended:?}");
    });
}

/// The same without a task: `accept` on plain threads.
fn server_on_threads() {
    lower_the_limit();
    let listener = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
    println!("listening on {}", listener.local_addr().unwrap());
    loop {
        let (mut conn, _) = listener.accept().expect("no error reaches the loop");
        std::thread::spawn(move || serve_one(&mut conn));
    }
}

/// The server, ended when this goes.
struct Server {
    child: Child,
    addr: SocketAddr,
    directory: std::path::PathBuf,
    stderr: std::path::PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn start(role: &str) -> Server {
    use std::os::unix::fs::DirBuilderExt;
    let directory = std::env::temp_dir().join(format!("coro-emfile-{}-{role}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
    let stderr = directory.join("stderr");
    let mut command = again(NAME, role);
    command.env("CORO_TEST_DIRECTORY", &directory);
    command.env("CORO_WORKERS", "2").stdout(Stdio::piped()).stderr(std::fs::File::create(&stderr).unwrap());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let addr = loop {
        let line = lines.next().expect("the server says where it listens").unwrap();
        // The harness may have begun the line.
        if let Some((_, addr)) = line.split_once("listening on ") {
            break addr.parse().unwrap();
        }
    };
    Server { child, addr, directory, stderr }
}

/// CPU time of a process so far.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // SAFETY: no preconditions.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / per_second)
}

/// In that time.
fn share_of_cpu(pid: u32, time: Duration) -> f64 {
    let (start, before) = (Instant::now(), cpu_time(pid));
    std::thread::sleep(time);
    (cpu_time(pid) - before).as_secs_f64() / start.elapsed().as_secs_f64()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn play(role: &str) {
    let server = start(role);
    let pid = server.child.id();
    let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| TcpStream::connect(server.addr).unwrap()).collect();
    let complaint = || std::fs::read_to_string(&server.stderr).unwrap();
    until(Duration::from_secs(20), "a line on stderr", || complaint().contains("accept waits: "));
    assert!(complaint().contains("raise RLIMIT_NOFILE"), "{}", complaint());
    // Full, but for what the console may hold back.
    let full = descriptors(pid);
    assert!(full + 8 >= LIMIT as usize, "{full} of {LIMIT} descriptors");

    // What the beginning left to do may fall into the first window; who looks again and again takes his share of each. One tick of
    // the kernel's clock is 10 ms, a third of a hundredth here.
    let is_little = |share: &f64| *share < 0.01 + 0.0034;
    let mut shares = Vec::new();
    while shares.len() < 3 && !shares.last().is_some_and(is_little) {
        shares.push(share_of_cpu(pid, Duration::from_secs(3)));
    }
    println!("{role}: {shares:.4?} of a CPU without descriptors");
    assert!(shares.last().is_some_and(is_little), "{shares:.4?} of a CPU");
    assert_eq!(complaint().matches("accept waits: ").count(), 1, "one line in ten seconds");

    if role == "server" {
        let mut ask = UnixStream::connect(server.directory.join("backdoor")).unwrap();
        ask.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        ask.write_all(b"where_all\n").unwrap();
        ask.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        ask.read_to_string(&mut answer).expect("the backdoor answers without descriptors");
        let acceptors: Vec<&str> = answer.lines().filter(|l| l.contains("\"acceptor\" accept fd ")).collect();
        assert_eq!(acceptors.len(), 2, "{answer}");
        assert!(acceptors.iter().all(|l| l.contains("accept fd ")), "{answer}");
    }

    // Clients end one after the other and so make room: every one is served in the end.
    let served = Mutex::new(0);
    std::thread::scope(|scope| {
        for mut client in clients {
            let served = &served;
            scope.spawn(move || {
                client.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
                client.write_all(b"?").unwrap();
                let mut b = [0];
                client.read_exact(&mut b).expect("every client is served");
                assert_eq!(b, *b"?");
                *served.lock().unwrap() += 1;
            });
        }
    });
    assert_eq!(*served.lock().unwrap(), CLIENTS);
    // And the server goes on as before.
    let mut late = TcpStream::connect(server.addr).unwrap();
    late.write_all(b"!").unwrap();
    late.read_exact(&mut [0]).unwrap();
}
