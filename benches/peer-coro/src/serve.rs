//! The two servers. They run until they are killed.

use std::io::{self, Read, Write};

use coro::net::{TcpListener, TcpStream};

use crate::http::answer;

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
