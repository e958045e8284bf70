//! No runtime: one thread, one epoll, `recv` and `send`. What a server that waits by epoll cannot cost less than. What is no server
//! is in `bare_tasks`.
//!
//! It does what it has to and nothing besides. A client that takes no answers keeps all others waiting; there is no fairness, no
//! limit and no account of anything. `trigger=level` shows what edges save. `bare-2` is two such threads, each with a listener on the same port.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::Barrier;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Refused, bare_tasks, ready};
use crate::args::Args;
use crate::http;

/// What becomes of the bytes that came, behind those that were left over: how many of them are done with, and the answer.
type Answer = fn(&[u8], &mut Vec<u8>) -> io::Result<usize>;

pub(super) fn run(args: &Args) -> Result<(), Refused> {
    let port = args.number("port", 7000);
    let answer: Option<Answer> = match args.workload.as_str() {
        "echo-server" => None,
        "http-server" => Some(http::answer),
        _ => return bare_tasks::run(args),
    };
    let all = Arc::new(Barrier::new(args.workers + 1));
    let told = if args.text("trigger", "edge") == "level" { EventFlags::IN } else { EventFlags::IN | EventFlags::ET };
    let serve = |all: Arc<Barrier>| {
        std::thread::spawn(move || -> io::Result<()> {
            let listener = listen(port);
            all.wait();
            serve(&listener?, told, answer)
        })
    };
    let threads: Vec<_> = (0..args.workers).map(|_| serve(all.clone())).collect();
    all.wait();
    ready()?;
    for thread in threads {
        thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))?;
    }
    Ok(())
}

/// Others may listen on the same port; the kernel shares the connections out.
fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a request whose end has not come; mostly empty.
    rest: Vec<u8>,
}

struct Loop {
    epoll: OwnedFd,
    /// By descriptor.
    connections: Vec<Option<Connection>>,
    buffer: Box<[u8; 4096]>,
    answers: Vec<u8>,
}

fn serve(listener: &TcpListener, told: EventFlags, answer: Option<Answer>) -> io::Result<()> {
    let mut all = Loop {
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        connections: Vec::new(),
        buffer: Box::new([0; 4096]),
        answers: Vec::with_capacity(1024),
    };
    let listening = listener.as_raw_fd() as u64;
    epoll::add(&all.epoll, listener, EventData::new_u64(listening), EventFlags::IN)?;
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        match epoll::wait(&all.epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        for event in &events {
            let who = event.data.u64();
            if who == listening {
                all.accept(listener, told)?;
            } else if all.turn(who as usize, answer).is_err() {
                // A connection that breaks or ends is closed, which takes it out of epoll as well.
                all.connections[who as usize] = None;
            }
        }
    }
}

impl Loop {
    fn accept(&mut self, listener: &TcpListener, told: EventFlags) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let place = stream.as_raw_fd() as usize;
            // By edges: with levels, each `epoll_wait` looks once more at all that it has just told. With 100 connections no difference
            // between the two was to be seen.
            epoll::add(&self.epoll, &stream, EventData::new_u64(place as u64), told)?;
            if self.connections.len() <= place {
                self.connections.resize_with(place + 1, || None);
            }
            self.connections[place] = Some(Connection { stream, rest: Vec::new() });
        }
    }

    /// Everything that has come is answered. An error is also the end of the connection.
    fn turn(&mut self, place: usize, answer: Option<Answer>) -> io::Result<()> {
        let Some(connection) = self.connections[place].as_mut() else { return Ok(()) };
        loop {
            let n = match connection.stream.read(&mut self.buffer[..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            match answer {
                None => send(&connection.stream, &self.buffer[..n])?,
                Some(answer) => {
                    self.answers.clear();
                    if connection.rest.is_empty() {
                        let used = answer(&self.buffer[..n], &mut self.answers)?;
                        connection.rest.extend_from_slice(&self.buffer[used..n]);
                    } else {
                        connection.rest.extend_from_slice(&self.buffer[..n]);
                        let used = answer(&connection.rest, &mut self.answers)?;
                        connection.rest.drain(..used);
                    }
                    send(&connection.stream, &self.answers)?;
                }
            }
            // Less than there was room for: nothing is left, and epoll tells of what comes from now on (see epoll(7)).
            if n < self.buffer.len() {
                return Ok(());
            }
        }
    }
}

/// Waits where the client takes nothing.
fn send(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
