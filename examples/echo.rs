//! An echo server: `cargo run --release --example echo -- --addr 127.0.0.1:9001 --backdoor /run/user/1000/echo.sock`.

use std::io::{Read, Write};

use coro::net::TcpListener;

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (mut addr, mut backdoor) = ("127.0.0.1:9001".to_owned(), None);
    while let Some(a) = args.next() {
        match a.as_str() {
            "--addr" => addr = args.next().unwrap(),
            "--backdoor" => backdoor = args.next(),
            _ => panic!("unknown"),
        }
    }
    coro::run(|| {
        let server = match backdoor {
            Some(p) => coro::backdoor::serve(p)?,
            None => coro::backdoor::serve_default()?,
        };
        println!("backdoor on {}", server.path().display());
        let listener = TcpListener::bind(addr.as_str())?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (mut conn, peer) = listener.accept()?;
            coro::spawn_named(format!("echo {peer}"), move || {
                let mut buf = [0; 4096];
                while let Ok(n) = conn.read(&mut buf) {
                    if n == 0 || conn.write_all(&buf[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    })
}
