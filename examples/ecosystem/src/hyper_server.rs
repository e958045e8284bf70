//! An HTTP server of hyper: HTTP/1.1 with keep-alive, and HTTP/2 for clients that begin with it, on one port. Every connection
//! is a task, and every stream of HTTP/2 another one.

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Read};
use std::time::Duration;

use coro::future::block_on;
use coro::hyper::{Executor, Io, Timer};
use coro::net::{Serving, TcpStream, WorkerListeners};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};

/// What a client sends first that begins with HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So long a connection may wait for its next request, and the headers may take as long: to hyper that is one limit.
const HEADERS: Duration = Duration::from_secs(60);
/// The largest body that is echoed.
const LARGEST: usize = 16 << 20;

/// Serves on all listeners.
///
/// # Errors
/// If an acceptor cannot be started.
pub fn serve(listeners: WorkerListeners) -> io::Result<Serving> {
    listeners.serve("hyper", |stream, _peer| {
        // What goes wrong with a client ends its connection and is nobody else's business.
        let _ = connection(stream);
    })
}

fn connection(mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    stream.set_nodelay(true)?;
    // Straight on: hyper's own limits begin with the first request.
    let first = coro::timeout(HEADERS, || first_bytes(&mut stream)).map_err(|_| "said nothing")??;
    let second = first == PREFACE;
    let (io, service) = (Io::after(first, stream), service_fn(answer));
    let served = if second {
        block_on(http2::Builder::new(Executor).timer(Timer).serve_connection(io, service))
    } else {
        let mut server = http1::Builder::new();
        block_on(server.timer(Timer).header_read_timeout(HEADERS).serve_connection(io, service))
    };
    Ok(served?)
}

/// Reads until it is clear whether the client begins with HTTP/2.
fn first_bytes(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let mut bytes = [0; PREFACE.len()];
        let n = stream.read(&mut bytes[first.len()..])?;
        if n == 0 {
            break;
        }
        let from = first.len();
        first.extend_from_slice(&bytes[from..from + n]);
    }
    Ok(first)
}

/// The services: some are `async`, one is code that waits straight on.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let version = request.version();
    let body = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => Ok(Bytes::from(format!("hello over {version:?}\n"))),
        (&Method::POST, "/echo") => match Limited::new(request.into_body(), LARGEST).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(_) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        },
        (&Method::GET, "/slow") => {
            coro::future::sleep(Duration::from_millis(50)).await;
            Ok(Bytes::from_static(b"slow\n"))
        }
        (&Method::GET, "/task") => {
            let task = coro::spawn_named("straight on", || {
                coro::sleep(Duration::from_millis(5));
                format!("from task #{}\n", coro::current().map_or(0, |t| t.id()))
            });
            task.await.map(Bytes::from).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
        }
        _ => Err(StatusCode::NOT_FOUND),
    };
    Ok(match body {
        Ok(body) => Response::new(Full::new(body)),
        Err(status) => {
            let mut response = Response::new(Full::new(Bytes::from(format!("{status}\n"))));
            *response.status_mut() = status;
            response
        }
    })
}
