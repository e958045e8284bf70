//! A reverse proxy: requests go to one backend after the other, and each client's connection keeps its connection to one.
//!
//! A request that may have reached a backend is not sent to another one, unless its method says that twice is as good as once.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coro::net::{Serving, TcpStream, WorkerListeners};

use crate::http::{self, Answer, Headers, Message, Reader, Side};
use crate::sockets::is_idle;

/// How long a backend may take to be connected to, and for each piece of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may wait with its next request.
const IDLE: Duration = Duration::from_secs(60);

/// Headers that are of one connection only, or said anew.
const OWN: [&str; 8] =
    ["connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/// The headers that are passed on.
fn passed(message: &Message) -> impl Iterator<Item = &(String, String)> {
    message.headers.iter().filter(|(name, _)| {
        !OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) && !message.has_word("connection", name)
    })
}

/// The connection to a backend.
struct Backend {
    stream: TcpStream,
    reader: Reader,
}

impl Backend {
    fn connect(addr: SocketAddr) -> io::Result<Backend> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Backend { stream, reader: Reader::default() })
    }

    fn ask(&mut self, request: &Message, client: SocketAddr) -> io::Result<Message> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
        // Whoever is before us is trusted as far as whoever reads it trusts us.
        let mut on_behalf_of = String::new();
        for (name, value) in passed(request) {
            if name.eq_ignore_ascii_case("x-forwarded-for") {
                on_behalf_of = format!("{on_behalf_of}{value}, ");
            } else {
                write!(bytes, "{name}: {value}\r\n")?;
            }
        }
        write!(bytes, "X-Forwarded-For: {on_behalf_of}{}\r\n", client.ip())?;
        if !request.body.is_empty() || request.header("content-length").is_some() {
            write!(bytes, "Content-Length: {}\r\n", request.body.len())?;
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&request.body);
        self.stream.write_all(&bytes)?;
        let side = if request.method == "HEAD" { Side::Head } else { Side::Answer };
        let answer = self.reader.next(&mut self.stream, side, |_| Ok(()))?;
        answer.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }
}

/// The backends, and whose turn it is.
struct Backends {
    all: Vec<SocketAddr>,
    next: AtomicUsize,
}

impl Backends {
    /// Asks the backend that the client has, else the next one that can be connected to.
    fn ask(&self, kept: &mut Option<Backend>, request: &Message, client: SocketAddr) -> io::Result<Message> {
        let twice = matches!(&*request.method, "GET" | "HEAD" | "PUT" | "DELETE" | "OPTIONS");
        let mut last: io::Error = ErrorKind::NotFound.into();
        let had = kept.take().filter(|backend| is_idle(&backend.stream));
        let others = self.all.iter().map(|_| {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            Backend::connect(self.all[next % self.all.len()])
        });
        for backend in had.map(Ok).into_iter().chain(others) {
            let asked = match backend {
                Ok(mut backend) => backend.ask(request, client).map(|answer| (backend, answer)),
                Err(e) => {
                    last = e;
                    continue;
                }
            };
            match asked {
                Ok((backend, answer)) => {
                    *kept = Some(backend).filter(|_| answer.keep_alive);
                    return Ok(answer);
                }
                Err(e) if twice && !coro::is_cancelled() => last = e,
                Err(e) => return Err(e),
            }
        }
        Err(last)
    }
}

/// What a backend has answered, for the client.
fn answer(request: &Message, answered: Message) -> Answer {
    let mut headers: Headers = passed(&answered).cloned().collect();
    if request.method == "HEAD"
        && let Some(length) = answered.header("content-length")
    {
        headers.push(("Content-Length".to_owned(), length.to_owned()));
    }
    Answer { status: answered.status, headers, body: answered.body }
}

/// Serves on all listeners for these backends.
///
/// # Errors
/// `InvalidInput` without a backend; if an acceptor cannot be started.
pub fn serve(listeners: WorkerListeners, backends: Vec<SocketAddr>) -> io::Result<Serving> {
    if backends.is_empty() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "a proxy needs a backend"));
    }
    let backends = Arc::new(Backends { all: backends, next: AtomicUsize::new(0) });
    listeners.serve("proxy", move |mut stream, client| {
        let limits = stream.set_read_timeout(Some(IDLE)).and_then(|()| stream.set_write_timeout(Some(IDLE)));
        let mut kept = None;
        // What goes wrong with a client ends its connection and is nobody else's business.
        let _ = limits.and_then(|()| {
            http::serve(&mut stream, |request| match backends.ask(&mut kept, request, client) {
                Ok(answered) => answer(request, answered),
                Err(e) => Answer::text(502, format!("no backend answers: {e}\n")),
            })
        });
    })
}
