//! An echo server, and a session inside the same process: `cargo run --release --example repl`.
//!
//! `server` is where it listens: `let c = connect(server)`. Ctrl-D ends both.

use std::io::{self, Read, Write};

use coro::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    coro::run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        coro::console::register_value("server", "where the echo server listens", move || address.clone());
        coro::spawn_named("server", move || serve(&listener));
        coro::console::repl()
    })
}

fn serve(listener: &TcpListener) {
    for conn in listener.incoming().flatten() {
        coro::spawn_named("echo", move || echo(conn));
    }
}

fn echo(mut conn: TcpStream) {
    let mut buf = [0; 4096];
    while let Ok(n) = conn.read(&mut buf) {
        if n == 0 || conn.write_all(&buf[..n]).is_err() {
            break;
        }
    }
}
