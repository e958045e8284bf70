//! The messages of HTTP/1 as `http.rs` reads and writes them, one byte at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use coro::net::TcpStream;
use coro::sync::{Event, WaitGroup};
use coro_ecosystem::http::{Answer, Message, Reader, Side, serve};

use crate::server::Server;
use crate::{get, on};

/// What is sent in pieces of one byte.
struct Slow<'a>(&'a [u8], Vec<u8>);

impl Read for Slow<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.len().min(1);
        buf[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

impl Write for Slow<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn talk(said: &str) -> (io::Result<usize>, String) {
    let mut stream = Slow(said.as_bytes(), Vec::new());
    let echo =
        |r: &Message| Answer::text(200, format!("{} {} {}", r.method, r.target, String::from_utf8_lossy(&r.body)));
    let served = serve(&mut stream, echo);
    (served, String::from_utf8(stream.1).unwrap())
}

fn answer(said: &str, side: Side) -> io::Result<Option<Message>> {
    Reader::default().next(&mut Slow(said.as_bytes(), Vec::new()), side, |_| Ok(()))
}

#[test]
fn requests_follow_each_other_until_one_says_close() {
    let (served, said) = talk(concat!(
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        "POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nSum: 1\r\n\r\n",
        "HEAD /d HTTP/1.0\r\n\r\n",
        "GET /never HTTP/1.1\r\n\r\n",
    ));
    assert_eq!(served.unwrap(), 4);
    let bodies =
        ["\r\n\r\nGET /a HTTP/1.1 200 OK", "\r\n\r\nPOST /b abcHTTP/1.1", "\r\n\r\nPOST /c abc0123456789HTTP/1.1"];
    assert!(bodies.iter().all(|b| said.contains(b)), "{said}");
    assert!(said.ends_with("Content-Length: 8\r\nConnection: close\r\n\r\n"), "{said}");
}

#[test]
fn what_is_no_request_is_told_and_ends_the_connection() {
    for wrong in [
        "hello\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "GET / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nwhat\r\n",
    ] {
        let (served, said) = talk(wrong);
        assert!(served.unwrap() == 0 && said.starts_with("HTTP/1.1 400 "), "{wrong:?}: {said}");
    }
    let endless = format!("GET / HTTP/1.1\r\nLong: {}", "x".repeat(20_000));
    assert!(talk(&endless).1.starts_with("HTTP/1.1 400 "));
    for half in ["GET / HTTP/1.1\r\nHo", "PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nx"] {
        assert_eq!(talk(half).0.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_body_is_waited_for_after_the_other_side_was_told_to_go_on() {
    let (served, said) = talk("PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(served.unwrap(), 1);
    assert!(said.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), "{said}");
}

#[test]
fn answers_end_in_every_way_there_is() {
    let body = |said: &str, side| answer(said, side).unwrap().map(|m| (m.status, m.body, m.keep_alive)).unwrap();
    let early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(body(early, Side::Answer), (200, b"x".to_vec(), true));
    assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nuntil the end", Side::Answer), (200, b"until the end".to_vec(), false));
    assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n", Side::Answer), (204, vec![], true));
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Side::Head), (200, vec![], true));
    assert_eq!(answer("", Side::Answer).unwrap(), None);
}

const CLIENTS: usize = 200;
const BUSY: usize = 10;

#[test]
fn many_connections_without_tls_stay_and_each_says_what_it_waits_for() {
    let server = Server::start("http", &["127.0.0.1:0"]);
    let addr = server.addr;
    on(2, move || {
        let (answered, over) = (Arc::new(WaitGroup::new()), Arc::new(Event::new()));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (done, over) = (answered.enter_owned(), over.clone());
                coro::spawn(move || {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    let mut reader = Reader::default();
                    assert_eq!(get(&mut stream, &mut reader, "/").body, b"hello\n");
                    // Every other one goes away in the middle of its next question.
                    if n >= BUSY && n % 2 == 0 {
                        stream.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
                    }
                    drop(done);
                    while n < BUSY && !over.is_set() {
                        assert_eq!(get(&mut stream, &mut reader, "/").body, b"hello\n");
                    }
                    over.wait();
                })
            })
            .collect();
        answered.wait();
        let load = format!(
            "{CLIENTS} connections that stay, {BUSY} of which ask without a pause, and half of the others in the middle of a question"
        );
        server.look("http", &load, "read fd", CLIENTS - BUSY);
        over.set();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}
