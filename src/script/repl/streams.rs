//! Connections and listeners as expressions have them.
//!
//! Invariant: what has come and was not asked for yet stays for the next call; text is not cut within a character.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};

use rhai::{Blob, Dynamic, Engine, ImmutableString};

use super::{Flow, lock};
use crate::net::unix::UnixStream;
use crate::net::{TcpListener, TcpStream};
use crate::script::engine::Failure;
use crate::script::function;

/// What is read at once at most, in bytes, and the longest line.
const PIECE: usize = 64 << 10;
const LONGEST_LINE: usize = 1 << 20;

/// Either kind of stream.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => (&*s).read(bytes),
            Stream::Unix(s) => (&*s).read(bytes),
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => (&*s).write_all(bytes),
            Stream::Unix(s) => (&*s).write_all(bytes),
        }
    }

    fn shutdown(&self) {
        // It may be closed from the other side already.
        let _ = match self {
            Stream::Tcp(s) => s.shutdown(Shutdown::Both),
            Stream::Unix(s) => s.shutdown(Shutdown::Both),
        };
    }
}

/// A connection; all its clones are the same one.
#[derive(Clone)]
pub(super) struct Connection(Arc<Connected>);

struct Connected {
    /// None once it was closed here.
    stream: Mutex<Option<Arc<Stream>>>,
    local: String,
    peer: String,
    /// What has come and was not asked for yet.
    rest: Mutex<Vec<u8>>,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = if lock(&self.0.stream).is_none() { ", closed" } else { "" };
        write!(f, "connection {} → {}{closed}", self.0.local, self.0.peer)
    }
}

impl Connection {
    fn of_tcp(stream: TcpStream) -> Connection {
        let shown = |address: io::Result<std::net::SocketAddr>| address.map_or("?".to_owned(), |a| a.to_string());
        let (local, peer) = (shown(stream.local_addr()), shown(stream.peer_addr()));
        Connection::new(Stream::Tcp(stream), local, peer)
    }

    fn new(stream: Stream, local: String, peer: String) -> Connection {
        let stream = Mutex::new(Some(Arc::new(stream)));
        Connection(Arc::new(Connected { stream, local, peer, rest: Mutex::default() }))
    }

    fn connect(address: &str) -> io::Result<Connection> {
        if address.contains('/') {
            let stream = UnixStream::connect(address).map_err(|error| at(address, &error))?;
            return Ok(Connection::new(Stream::Unix(stream), "unix".into(), address.into()));
        }
        TcpStream::connect(address).map(Connection::of_tcp).map_err(|error| at(address, &error))
    }

    fn open(&self) -> io::Result<Arc<Stream>> {
        lock(&self.0.stream).clone().ok_or_else(|| io::Error::other("it was closed here"))
    }

    fn close(&self) {
        let stream = lock(&self.0.stream).take();
        if let Some(stream) = stream {
            // Whoever reads meanwhile has it, too.
            stream.shutdown();
        }
    }

    /// Waits for more; false at the end.
    fn more(&self) -> io::Result<bool> {
        let mut bytes = vec![0; PIECE];
        let length = self.open()?.read(&mut bytes)?;
        lock(&self.0.rest).extend_from_slice(&bytes[..length]);
        Ok(length > 0)
    }

    /// What there is, up to `most` bytes; none at the end.
    fn recv(&self, most: usize) -> io::Result<Option<String>> {
        while has_no_character(&lock(&self.0.rest)) {
            if !self.more()? {
                break;
            }
        }
        let mut rest = lock(&self.0.rest);
        if rest.is_empty() {
            return Ok(None);
        }
        let most = most.clamp(1, PIECE).min(rest.len());
        let end = match std::str::from_utf8(&rest[..most]) {
            Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
            _ => most,
        };
        Ok(Some(taken(&mut rest, end)))
    }

    fn recv_exact(&self, count: usize) -> io::Result<Option<String>> {
        let count = count.min(LONGEST_LINE);
        loop {
            let length = lock(&self.0.rest).len();
            if length >= count {
                return Ok(Some(taken(&mut lock(&self.0.rest), count)));
            }
            if !self.more()? {
                let text = format!("the other end closed after {length} of {count} bytes, which recv() gives");
                return if length == 0 { Ok(None) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)) };
            }
        }
    }

    /// The next line without its end; none at the end.
    fn recv_line(&self) -> io::Result<Option<String>> {
        let mut looked = 0;
        loop {
            let length = {
                let mut rest = lock(&self.0.rest);
                looked = looked.min(rest.len());
                if let Some(end) = rest[looked..].iter().position(|byte| *byte == b'\n') {
                    let mut line = taken(&mut rest, looked + end + 1);
                    line.truncate(line.trim_end_matches(['\n', '\r']).len());
                    return Ok(Some(line));
                }
                rest.len()
            };
            if length > LONGEST_LINE {
                return Err(io::Error::other(format!("no end of a line in {length} bytes, which recv() gives")));
            }
            looked = length;
            if !self.more()? {
                let mut rest = lock(&self.0.rest);
                let length = rest.len();
                return Ok((length > 0).then(|| taken(&mut rest, length)));
            }
        }
    }
}

/// Says where, if the system did not.
fn at(address: &str, error: &io::Error) -> io::Error {
    let text = error.to_string();
    if text.contains(address) { io::Error::other(text) } else { io::Error::other(format!("{address}: {text}")) }
}

/// Whether there is nothing, or only the beginning of a character.
fn has_no_character(bytes: &[u8]) -> bool {
    bytes.len() < 4
        && std::str::from_utf8(bytes)
            .map_or_else(|error| error.valid_up_to() == 0 && error.error_len().is_none(), str::is_empty)
}

fn taken(rest: &mut Vec<u8>, end: usize) -> String {
    let bytes: Vec<u8> = rest.drain(..end).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A listener; all its clones are the same one.
#[derive(Clone)]
pub(super) struct Listener(Arc<Listening>);

struct Listening {
    /// None once it was closed.
    socket: Mutex<Option<Arc<TcpListener>>>,
    address: String,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let closed = if lock(&self.0.socket).is_none() { ", closed" } else { "" };
        write!(f, "listener {}{closed}", self.0.address)
    }
}

impl Listener {
    fn listen(address: &str) -> io::Result<Listener> {
        let socket = TcpListener::bind(address)?;
        let address = socket.local_addr()?.to_string();
        Ok(Listener(Arc::new(Listening { socket: Mutex::new(Some(Arc::new(socket))), address })))
    }

    fn accept(&self) -> io::Result<Connection> {
        let closed = || io::Error::other("the listener was closed");
        let socket = lock(&self.0.socket).clone().ok_or_else(closed)?;
        match socket.accept() {
            Ok((stream, _)) => Ok(Connection::of_tcp(stream)),
            Err(_) if lock(&self.0.socket).is_none() => Err(closed()),
            Err(error) => Err(error),
        }
    }

    fn close(&self) {
        let socket = lock(&self.0.socket).take();
        if let Some(socket) = socket {
            // Whoever waits there has it, too; elsewhere than on Linux that is no use.
            let _ = socket2::SockRef::from(&*socket).shutdown(Shutdown::Both);
        }
    }
}

pub(super) fn shown(value: &Dynamic) -> Option<String> {
    let connection = value.read_lock::<Connection>().map(|connection| connection.to_string());
    connection.or_else(|| Some(value.read_lock::<Listener>()?.to_string()))
}

fn or_nothing(text: Option<String>) -> Dynamic {
    text.map_or(Dynamic::UNIT, Dynamic::from)
}

fn size(name: &str, count: i64) -> Result<usize, Failure> {
    match usize::try_from(count) {
        Ok(count) if (1..=LONGEST_LINE).contains(&count) => Ok(count),
        _ => Err(format!("{name}: {count} bytes are not from 1 to {LONGEST_LINE}").into()),
    }
}

/// What can be done with them. A function of the program keeps its name.
pub(super) fn register(engine: &mut Engine, flow: &Arc<Flow>) {
    engine.register_type_with_name::<Connection>("connection").register_type_with_name::<Listener>("listener");
    if function::named("connect").is_none() {
        let context = flow.clone();
        engine.register_fn("connect", move |address: ImmutableString| {
            context.io("connect", || Connection::connect(&address))
        });
    }
    if function::named("listen").is_none() {
        let context = flow.clone();
        engine
            .register_fn("listen", move |address: ImmutableString| context.io("listen", || Listener::listen(&address)));
    }
    let context = flow.clone();
    engine.register_fn("accept", move |listener: Listener| context.io("accept", || listener.accept()));
    let context = flow.clone();
    engine.register_fn("send", move |connection: Connection, text: ImmutableString| {
        context.io("send", || connection.open()?.send(text.as_bytes()))
    });
    let context = flow.clone();
    engine.register_fn("send", move |connection: Connection, bytes: Blob| {
        context.io("send", || connection.open()?.send(&bytes))
    });
    let context = flow.clone();
    engine.register_fn("recv", move |connection: Connection| {
        context.io("recv", || connection.recv(PIECE)).map(or_nothing)
    });
    let context = flow.clone();
    engine.register_fn("recv", move |connection: Connection, most: i64| -> Result<Dynamic, Failure> {
        let most = size("recv", most)?;
        context.io("recv", || connection.recv(most)).map(or_nothing)
    });
    let context = flow.clone();
    engine.register_fn("recv_exact", move |connection: Connection, count: i64| -> Result<Dynamic, Failure> {
        let count = size("recv_exact", count)?;
        context.io("recv_exact", || connection.recv_exact(count)).map(or_nothing)
    });
    let context = flow.clone();
    engine.register_fn("recv_line", move |connection: Connection| {
        context.io("recv_line", || connection.recv_line()).map(or_nothing)
    });
    engine.register_fn("close", |connection: Connection| connection.close());
    engine.register_fn("close", |listener: Listener| listener.close());
    engine.register_get("addr", |connection: &mut Connection| connection.0.local.clone());
    engine.register_get("peer", |connection: &mut Connection| connection.0.peer.clone());
    engine.register_get("addr", |listener: &mut Listener| listener.0.address.clone());
    for name in ["to_string", "to_debug", "print", "debug"] {
        engine.register_fn(name, |connection: &mut Connection| connection.to_string());
        engine.register_fn(name, |listener: &mut Listener| listener.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_and_lines_stay_whole_however_they_come() {
        let (connection, there) = pair();
        for piece in [&b"gr\xc3"[..], b"\xbc", b"n\r\nlast"] {
            there.send(piece).expect("sent");
        }
        drop(there);
        assert_eq!(connection.recv(3).expect("text").as_deref(), Some("gr"));
        assert_eq!(connection.recv(2).expect("text").as_deref(), Some("ü"));
        assert_eq!(connection.recv_line().expect("a line").as_deref(), Some("n"));
        assert_eq!(connection.recv_exact(2).expect("text").as_deref(), Some("la"));
        assert!(connection.recv_exact(3).expect_err("too few").to_string().contains("after 2 of 3 bytes"));
        assert_eq!(connection.recv_line().expect("a line").as_deref(), Some("st"));
        assert_eq!((connection.recv_line().expect("end"), connection.recv(9).expect("end")), (None, None));
        connection.close();
        assert!(connection.recv(9).expect_err("closed").to_string().contains("closed here"));
    }

    fn pair() -> (Connection, Stream) {
        let (here, there) = UnixStream::pair().expect("a pair");
        (Connection::new(Stream::Unix(here), "here".into(), "there".into()), Stream::Unix(there))
    }
}
