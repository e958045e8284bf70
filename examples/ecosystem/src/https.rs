//! An HTTP server with TLS and keep-alive: each connection a task.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coro::net::{Serving, TcpStream, WorkerListeners};
use rustls::ServerConfig;

use crate::http::{self, Answer, Message};
use crate::tls;

/// So long a connection may wait for its next request, and one piece of an answer for the client's reading.
const IDLE: Duration = Duration::from_secs(60);

static REQUESTS: AtomicU64 = AtomicU64::new(0);

fn answer(request: &Message) -> Answer {
    let number = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    match (request.method.as_str(), request.target.as_str()) {
        ("GET" | "HEAD", "/") => Answer::text(200, "hello\n"),
        ("GET", "/requests") => Answer::text(200, format!("{number}\n")),
        ("POST" | "PUT", "/echo") => {
            let headers = vec![("Content-Type".to_owned(), "application/octet-stream".to_owned())];
            Answer { status: 200, headers, body: request.body.clone() }
        }
        _ => Answer::text(404, "there are /, /requests and /echo\n"),
    }
}

/// Serves on all listeners, with TLS or without.
///
/// # Errors
/// If an acceptor cannot be started.
pub fn serve(listeners: WorkerListeners, tls: Option<Arc<ServerConfig>>) -> io::Result<Serving> {
    listeners.serve(if tls.is_some() { "https" } else { "http" }, move |stream, _peer| {
        // What goes wrong with a client ends its connection and is nobody else's business.
        let _ = connection(stream, tls.as_ref());
    })
}

fn connection(mut stream: TcpStream, tls: Option<&Arc<ServerConfig>>) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    let Some(config) = tls else { return http::serve(&mut stream, answer).map(drop) };
    let mut stream = tls::accept(config, stream).map_err(io::Error::other)?;
    http::serve(&mut stream, answer)?;
    // Without it the client could not tell the end from one that somebody else has made.
    stream.conn.send_close_notify();
    stream.flush()
}
