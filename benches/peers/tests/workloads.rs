//! Every workload on every runtime of this program, short: it ends, its own checks hold, and it prints what the rounds read.
//!
//! Go and coro have programs of their own, which are not built here.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_peers");
const RUNTIMES: [&str; 9] =
    ["bare-1", "tokio-1", "tokio-2", "may-1", "may-2", "smol-1", "smol-2", "glommio-1", "monoio-1"];
const SERVERS: [&str; 12] = [
    "bare-1",
    "bare-2",
    "tokio-1",
    "tokio-2",
    "may-1",
    "may-2",
    "smol-1",
    "smol-2",
    "glommio-1",
    "glommio-2",
    "monoio-1",
    "monoio-2",
];
/// They have HTTP and nothing else.
const WEB_SERVERS: [&str; 2] = ["hyper-1", "minihttp-1"];
/// Without io_uring it is not there, and says so.
const MAY_BE_MISSING: &str = "glommio";

fn work(runtime: &str, words: &str) -> Output {
    Command::new(PROGRAM).args(["work", runtime]).args(words.split(' ')).output().expect("the program")
}

/// The values of a run, which has to succeed; nothing if the runtime cannot be here, or has nothing for it.
fn values(runtime: &str, words: &str) -> Option<Vec<(String, f64)>> {
    let output = work(runtime, words);
    if output.status.code() == Some(3) && (cannot_be_here(runtime, &output) || lacks(runtime, words)) {
        return None;
    }
    assert!(!lacks(runtime, words), "{runtime} {words} ran");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{runtime} {words}: {}: {said}", output.status);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let value = |line: &str| {
        let [_, name, metric, value] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not four words: {line}")
        };
        assert_eq!(name, runtime);
        (metric.to_owned(), value.parse().expect("a number"))
    };
    Some(text.lines().map(value).collect())
}

fn cannot_be_here(runtime: &str, output: &Output) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    let missing = runtime.starts_with(MAY_BE_MISSING) && said.starts_with("not here: ");
    if missing {
        eprintln!("{runtime} SKIPPED: {}", said.trim());
    }
    missing
}

/// What a runtime has nothing for.
fn lacks(runtime: &str, words: &str) -> bool {
    match runtime.split('-').next() {
        Some("may") => words.contains("chan=b") || words.contains("mode=local"),
        Some("monoio") => words.starts_with("yield") || words.starts_with("mutex"),
        _ => false,
    }
}

#[test]
fn every_workload_runs_everywhere() {
    for (words, metrics) in [
        ("yield n=2 total=1000", &["ns_per_yield"][..]),
        ("yield n=100 total=1000", &["ns_per_yield"]),
        ("spawn mode=waves total=2000", &["ns_per_task"]),
        ("spawn mode=burst total=500", &["ns_per_task"]),
        ("spawn mode=local total=2000", &["ns_per_task"]),
        ("pingpong chan=u rounds=500", &["ns_per_round_trip"]),
        ("fanin chan=u total=1600", &["ns_per_msg"]),
        ("pingpong chan=b rounds=500", &["ns_per_round_trip"]),
        ("fanin chan=b total=1600", &["ns_per_msg"]),
        ("mutex tasks=10 iters=200 every=10", &["ns_per_lock"]),
        ("timers conc=20 per=2", &["cpu_ns_per_timer", "late_p50_us", "late_p99_us", "late_max_us", "wall_s"]),
        ("mem n=50", &["bytes_per_task", "pte_bytes_per_task", "create_ns_per_task"]),
    ] {
        for runtime in RUNTIMES {
            let Some(values) = values(runtime, words) else { continue };
            let names: Vec<_> = values.into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, metrics, "{runtime} {words}");
        }
    }
}

/// A yield that comes straight back to the same task costs nothing, and is none.
#[test]
fn yields_give_the_worker_to_others() {
    for runtime in RUNTIMES {
        let Some(values) = values(runtime, "yieldcheck n=50 per=200") else { continue };
        assert!(values[0].1 > 90.0, "{runtime}: another task ran after {} % of the yields", values[0].1);
    }
}

#[test]
fn two_threads_play_ping_pong_and_rest() {
    for runtime in ["tokio-2", "smol-2", "glommio-2", "monoio-2"] {
        let Some(values) = values(runtime, "pingpong chan=b place=cross rounds=200 idle=100") else { continue };
        let names: Vec<_> = values.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ns_per_round_trip", "idle_cpu_pct"], "{runtime}");
        // Who waits by spinning uses a whole CPU.
        assert!(values[1].1 < 50.0, "{runtime} uses {} % of a CPU when nothing is to be done", values[1].1);
    }
}

#[test]
fn what_a_runtime_lacks_is_told() {
    for (runtime, words, why) in [
        ("may-1", "pingpong chan=b", "no bounded channel"),
        ("may-2", "fanin chan=b", "no bounded channel"),
        ("may-1", "spawn mode=local", "no tasks that stay on a thread"),
        ("may-2", "pingpong place=cross", "a task that is woken goes to the worker that woke it"),
        ("tokio-1", "pingpong place=cross", "one thread"),
        ("bare-1", "pingpong place=cross", "one thread"),
        ("bare-2", "yield", "one thread"),
        ("monoio-1", "yield", "no yield"),
        ("monoio-1", "mutex", "no yield while it is held"),
        ("hyper-1", "yield", "HTTP only"),
        ("hyper-1", "echo-server", "HTTP only"),
        ("minihttp-1", "yield", "HTTP only"),
        ("minihttp-1", "echo-server", "HTTP only"),
    ] {
        let output = work(runtime, words);
        assert_eq!(output.status.code(), Some(3), "{runtime} {words}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), why);
    }
    assert_eq!(work("tokio-1", "nonsense").status.code(), Some(3));
    assert_eq!(work("bare-1", "nonsense").status.code(), Some(3));
    assert_eq!(work("nonsense-1", "yield").status.code(), Some(2));
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nothing if the runtime cannot be here.
fn serve(runtime: &str, workload: &str) -> Option<(Server, u16)> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let mut command = Command::new(PROGRAM);
    command.args(["work", runtime, workload]).arg(format!("port={port}")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Server(command.spawn().expect("the program"));
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    if line.is_empty() {
        let mut said = Vec::new();
        server.0.stderr.take().expect("a pipe").read_to_end(&mut said).expect("words");
        let status = server.0.wait().expect("an end");
        let output = Output { status, stdout: Vec::new(), stderr: said };
        assert!(cannot_be_here(runtime, &output), "{runtime} {workload} {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    assert_eq!(line.trim(), "READY", "{runtime} {workload}");
    Some((server, port))
}

#[test]
fn echo_servers_answer_the_load() {
    for runtime in SERVERS {
        let Some((server, port)) = serve(runtime, "echo-server") else { continue };
        let output = Command::new(PROGRAM)
            .args(["load", "conns=10", "ms=50", "warm=10"])
            .args([format!("port={port}"), format!("pid={}", server.0.id())])
            .output()
            .expect("the program");
        assert!(output.status.success(), "{runtime}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        for metric in ["cpu_us_per_req", "p50_us", "p99_us", "p999_us", "req_per_s"] {
            let value = text.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse::<f64>().ok());
            assert!(value.is_some_and(|v| v > 0.0), "{runtime}: {metric} is missing:\n{text}");
        }
    }
}

#[test]
fn web_servers_answer_every_request() {
    use std::io::{Read, Write};
    for runtime in SERVERS.into_iter().chain(WEB_SERVERS) {
        let Some((_server, port)) = serve(runtime, "http-server") else { continue };
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        // One, then two and a half at once, then the other half: each part after the answers to the one before.
        let (half, rest) = request.split_at(10);
        let mut text = String::new();
        for (bytes, answers) in
            [(request.to_owned(), 1), (format!("{request}{request}{half}"), 3), (rest.to_owned(), 4)]
        {
            stream.write_all(bytes.as_bytes()).expect("a request");
            let mut buffer = [0; 1024];
            while text.matches("Hello, World!").count() < answers {
                let n = stream.read(&mut buffer).expect("answers");
                assert!(n > 0, "{runtime}: closed after\n{text}");
                text.push_str(std::str::from_utf8(&buffer[..n]).expect("ASCII"));
            }
        }
        stream.shutdown(std::net::Shutdown::Write).expect("an end");
        stream.read_to_string(&mut text).expect("the end");
        // Names of fields have no case, and nobody reads the word behind the status.
        let head = text.to_ascii_lowercase();
        for line in
            ["http/1.1 200 ok\r\n", "\r\ncontent-type: text/plain\r\n", "\r\ncontent-length: 13\r\n", "\r\ndate: "]
        {
            assert_eq!(head.matches(line).count(), 4, "{runtime}: {line:?} in\n{text}");
        }
        assert_eq!(text.matches("\r\n\r\nHello, World!").count(), 4, "{runtime}:\n{text}");
    }
}
