//! TLS and keep-alive: rustls on both sides, then curl.

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use coro::net::TcpStream;
use coro_ecosystem::http::Reader;
use coro_ecosystem::tls;

use crate::real::{Directory, has};
use crate::server::Server;
use crate::{get, on};

/// So many of them ask without a pause while we look.
const BUSY: usize = 10;

/// So many connections at once: as many as CORO_CLIENTS says. Each is a descriptor here and one in the server, which inherits what this
/// process may have: where that cannot be raised far enough, fewer, which is said.
fn clients() -> usize {
    let wanted = std::env::var("CORO_CLIENTS").map_or(1000, |n| n.parse().expect("CORO_CLIENTS is a number"));
    // SAFETY: plain data, which the calls read and write.
    let most = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_cur.max(limit.rlim_max.min(wanted as libc::rlim_t + 100));
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) - 100
    };
    if most < wanted {
        coro::print_stderr(format!(
            "SKIPPED: {wanted} connections at once; {most} instead: raise the hard RLIMIT_NOFILE"
        ));
    }
    wanted.min(most)
}

#[test]
fn rustls_serves_a_thousand_connections_that_stay() {
    let number = clients();
    let server = Server::start("https", &["127.0.0.1:0"]);
    let addr = server.addr;
    let config = tls::client_config(tls::CERTIFICATE).unwrap();
    let begun = Instant::now();
    on(2, move || {
        let connected = Arc::new(coro::sync::WaitGroup::new());
        let again = Arc::new(coro::sync::Event::new());
        let answered = Arc::new(coro::sync::WaitGroup::new());
        let over = Arc::new(coro::sync::Event::new());
        let clients: Vec<_> = (0..number)
            .map(|n| {
                let (config, again, over) = (config.clone(), again.clone(), over.clone());
                let (first, second) = (connected.enter_owned(), answered.enter_owned());
                coro::spawn(move || {
                    let mut stream = tls::connect(&config, "localhost", TcpStream::connect(addr).unwrap()).unwrap();
                    let mut reader = Reader::default();
                    assert_eq!(get(&mut stream, &mut reader, "/").body, b"hello\n");
                    drop(first);
                    again.wait();
                    // The same connection, after all of them were there at once.
                    assert_eq!(get(&mut stream, &mut reader, "/").body, b"hello\n");
                    drop(second);
                    while n < BUSY && !over.is_set() {
                        get(&mut stream, &mut reader, "/");
                    }
                    over.wait();
                })
            })
            .collect();
        connected.wait();
        println!("{number} connections with TLS after {:.2?}", begun.elapsed());
        again.set();
        answered.wait();
        println!("each has asked twice after {:.2?}", begun.elapsed());
        let load = format!("{number} connections that stay, {BUSY} of which ask without a pause");
        server.look("https", &load, "read fd", number - BUSY);
        over.set();
        clients.into_iter().for_each(|c| c.join().unwrap());
    });
}

#[test]
fn curl_speaks_http_and_tls_with_us() {
    if !has("curl") {
        return;
    }
    let directory = Directory::new();
    let (certificate, key) = (directory.at("certificate.pem"), directory.at("key.pem"));
    std::fs::write(&certificate, tls::CERTIFICATE).unwrap();
    std::fs::write(&key, tls::KEY).unwrap();
    let server = Server::start("https", &["127.0.0.1:0", certificate.to_str().unwrap(), key.to_str().unwrap()]);
    let port = server.addr.port();
    let url = |path: &str| format!("https://localhost:{port}{path}");
    let here = format!("localhost:{port}:127.0.0.1");
    let run = |args: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail", "--max-time", "30", "--noproxy", "*", "--cacert"]).arg(&certificate);
        let output = command.args(["--resolve", &here]).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // Three requests, one connection.
    let count = ["-w", "%{num_connects}\n"];
    let three = run(&[&count[..], &[&url("/"), &url("/"), &url("/")]].concat());
    assert_eq!(three, "hello\n1\nhello\n0\nhello\n0\n");
    let body = directory.at("body");
    std::fs::write(&body, vec![b'x'; 300_000]).unwrap();
    let body = format!("@{}", body.display());
    // Waits to be told to go on; and in chunks, as a body whose length nobody knew before.
    for how in ["Expect: 100-continue", "Transfer-Encoding: chunked"] {
        assert_eq!(run(&["-H", how, "--data-binary", &body, &url("/echo")]).len(), 300_000, "{how}");
    }
    assert!(run(&["--head", &url("/")]).contains("Content-Length: 6\r\n"));
    assert!(run(&["--tls-max", "1.2", &url("/requests")]).trim().parse::<u64>().unwrap() >= 6);
    let mut stranger = Command::new("curl");
    stranger.args(["-sS", "--max-time", "30", "--noproxy", "*", "--resolve", &here, &url("/")]);
    let stranger = stranger.output().unwrap();
    // It has come as far as the certificate.
    assert_eq!(stranger.status.code(), Some(60), "nobody else trusts that certificate: {stranger:?}");
}
