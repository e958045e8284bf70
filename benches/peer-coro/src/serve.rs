//! The two servers. They run until they are killed.

use std::io::{self, Read, Write};

use coro::net::{TcpListener, TcpStream};

/// Every peer answers with these bytes; the date is frozen.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\
Date: Thu, 20 Nov 2025 20:00:00 GMT\r\n\r\nHello, World!";

fn accept_all(port: u16, serve: fn(TcpStream) -> io::Result<()>) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let mut out = io::stdout();
    writeln!(out, "READY")?;
    out.flush()?;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        // A connection that breaks ends its task and nothing else.
        coro::spawn(move || drop(serve(stream)));
    }
}

pub(crate) fn echo(port: u16) -> io::Result<()> {
    accept_all(port, |mut stream| {
        let mut buffer = [0; 1024];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(()),
                n => stream.write_all(&buffer[..n])?,
            }
        }
    })
}

pub(crate) fn http(port: u16) -> io::Result<()> {
    accept_all(port, |mut stream| {
        let mut buffer = [0; 4096];
        let mut filled = 0;
        let mut answers = Vec::with_capacity(1024);
        loop {
            match stream.read(&mut buffer[filled..])? {
                0 => return Ok(()),
                n => filled += n,
            }
            let used = answer(&buffer[..filled], &mut answers)?;
            buffer.copy_within(used..filled, 0);
            filled -= used;
            if !answers.is_empty() {
                stream.write_all(&answers)?;
                answers.clear();
            }
        }
    })
}

/// Answers every complete request in `bytes`; returns how many bytes they took.
fn answer(bytes: &[u8], answers: &mut Vec<u8>) -> io::Result<usize> {
    let mut used = 0;
    while used < bytes.len() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&bytes[used..]).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))? {
            httparse::Status::Complete(n) => {
                std::hint::black_box(&request);
                answers.extend_from_slice(ANSWER);
                used += n;
            }
            httparse::Status::Partial => break,
        }
    }
    Ok(used)
}
