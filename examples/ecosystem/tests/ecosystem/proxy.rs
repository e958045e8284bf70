//! The reverse proxy between ureq's agents and backends, some of which are none.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use coro::net::{Shutdown, TcpListener, TcpStream};
use coro::sync::{Event, WaitGroup};
use coro_ecosystem::http::{Reader, Side};
use coro_ecosystem::ureq_client;

use crate::server::Server;
use crate::{get, on};

const CLIENTS: usize = 40;
const BUSY: usize = 5;

#[test]
fn ureq_asks_through_our_streams_and_a_proxy_spreads() {
    let backends = [(); 2].map(|()| Server::start("http", &["127.0.0.1:0"]));
    let addrs = [backends[0].addr.to_string(), backends[1].addr.to_string()];
    // Nothing listens on the last one.
    let proxy = Server::start("proxy", &["127.0.0.1:0", &addrs[0], &addrs[1], "127.0.0.1:1"]);
    // By name: looked up, on the pool.
    let url = format!("http://localhost:{}", proxy.addr.port());
    let direct = format!("http://{}/requests", addrs[0]);
    on(2, move || {
        // As many as there are agents: each has connections of its own, and they stay.
        let (done, over) = (Arc::new(WaitGroup::new()), Arc::new(Event::new()));
        let agents: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (url, over, done) = (url.clone(), over.clone(), done.enter_owned());
                coro::spawn(move || {
                    let agent = ureq_client::agent();
                    // An error of its kind drops the connection, as nobody can read the body.
                    let lost = agent.get(format!("{url}/nowhere")).call().unwrap_err();
                    assert!(matches!(lost, ureq::Error::StatusCode(404)), "{lost}");
                    for _ in 0..3 {
                        assert_eq!(agent.get(&url).call().unwrap().body_mut().read_to_string().unwrap(), "hello\n");
                    }
                    let head = agent.head(&url).call().unwrap();
                    assert_eq!(head.headers()["content-length"], "6");
                    let mut answer = agent.post(format!("{url}/echo")).send("to and fro").unwrap();
                    assert_eq!(answer.body_mut().read_to_string().unwrap(), "to and fro");
                    drop(done);
                    while n < BUSY && !over.is_set() {
                        assert_eq!(agent.get(&url).call().unwrap().body_mut().read_to_string().unwrap(), "hello\n");
                    }
                    over.wait();
                    agent
                })
            })
            .collect();
        done.wait();
        let count = || -> u64 {
            let mut answer = ureq_client::agent().get(&direct).call().unwrap();
            answer.body_mut().read_to_string().unwrap().trim().parse().unwrap()
        };
        assert!(count() > 40, "the first backend has got a part");
        let load =
            format!("{CLIENTS} clients that stay, {BUSY} of which ask without a pause, two backends and a dead one");
        proxy.look("proxy", &load, "read fd", CLIENTS - BUSY);
        over.set();
        let agents: Vec<_> = agents.into_iter().map(|a| a.join().unwrap()).collect();
        // Backends go away: what they had is lost, and said.
        drop(backends);
        let gone = agents[0].get(&url).call().unwrap_err();
        assert!(matches!(gone, ureq::Error::StatusCode(502)), "{gone}");
    });
}

#[test]
fn a_request_goes_to_a_second_backend_only_if_the_first_cannot_have_done_it() {
    on(2, || {
        let backends = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addrs = backends.each_ref().map(|b| b.local_addr().unwrap().to_string());
        let proxy = Server::start("proxy", &["127.0.0.1:0", &addrs[0], &addrs[1]]);
        let [first, second] = backends;
        // Takes a request, and breaks the connection off without an answer.
        let breaks = coro::spawn(move || {
            for _ in 0..2 {
                let (mut stream, _) = first.accept().unwrap();
                let _ = Reader::default().next(&mut stream, Side::Request, |_| Ok(()));
                stream.shutdown(Shutdown::Both).unwrap();
            }
        });
        let answers = coro::spawn(move || {
            let (mut stream, _) = second.accept().unwrap();
            let request = Reader::default().next(&mut stream, Side::Request, |_| Ok(())).unwrap().unwrap();
            // In chunks, then the connection ends.
            let answer = "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nX-Own: 1\r\nConnection: x-own, close\r\n\r\n2\r\nok\r\n0\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            request
        });
        let mut client = TcpStream::connect(proxy.addr).unwrap();
        let mut reader = Reader::default();
        client.write_all(b"GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 9.9.9.9\r\nTE: trailers\r\n\r\n").unwrap();
        let answer = reader.next(&mut client, Side::Answer, |_| Ok(())).unwrap().unwrap();
        assert_eq!((answer.status, &*answer.body, answer.header("x-own")), (200, &b"ok"[..], None));
        let seen = answers.join().unwrap();
        assert_eq!(seen.header("x-forwarded-for"), Some("9.9.9.9, 127.0.0.1"));
        assert_eq!((seen.header("host"), seen.header("te")), (Some("h"), None));

        client.write_all(b"POST /b HTTP/1.1\r\nContent-Length: 1\r\n\r\nx").unwrap();
        let answer = reader.next(&mut client, Side::Answer, |_| Ok(())).unwrap().unwrap();
        assert_eq!(answer.status, 502, "{answer:?}");
        breaks.join().unwrap();
        // Not even HTTP: the client is told.
        client.write_all(b"what?\r\n\r\n").unwrap();
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert!(rest.starts_with("HTTP/1.1 400 "), "{rest}");
    });
}

#[test]
fn a_late_answer_is_ureqs_timeout_and_the_worker_serves_others() {
    on(1, || {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", silent.local_addr().unwrap());
        let asking = coro::spawn(move || {
            let config =
                ureq::Agent::config_builder().proxy(None).timeout_recv_response(Some(Duration::from_millis(100)));
            ureq_client::agent_with(config.build()).get(&url).call().unwrap_err()
        });
        // On the only worker there is.
        let (_kept, _) = silent.accept().unwrap();
        let e = asking.join().unwrap();
        assert!(matches!(e, ureq::Error::Timeout(_)), "{e}");
        let none = ureq_client::agent().get("http://nobody.invalid/").call().unwrap_err();
        assert!(matches!(none, ureq::Error::HostNotFound | ureq::Error::Io(_)), "{none}");
        let tls = ureq_client::agent().get("https://127.0.0.1:1/").call().unwrap_err();
        assert!(matches!(tls, ureq::Error::TlsRequired), "{tls}");
    });
}

#[test]
fn a_server_in_this_process_ends_when_it_is_stopped() {
    on(1, || {
        let listeners = coro::net::WorkerListeners::shared(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let addr = listeners.local_addr().unwrap();
        let serving = coro_ecosystem::https::serve(listeners, None).unwrap();
        let mut stream = TcpStream::connect(addr).unwrap();
        assert_eq!(get(&mut stream, &mut Reader::default(), "/").status, 200);
        serving.stop();
        drop(stream);
        serving.wait().unwrap();
    });
}
