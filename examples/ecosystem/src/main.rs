//! Starts one of the servers of this crate, with a backdoor: `coro-ecosystem` says how.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;

use coro::net::{Serving, TcpListenerBuilder, WorkerListeners, activation};
use coro_ecosystem::{chat, https, hyper_client, hyper_server, jobs, proxy, tls};

const USAGE: &str = "\
coro-ecosystem http ADDR                     HTTP with keep-alive: /, /requests, /echo
coro-ecosystem https ADDR [CERTIFICATE KEY]  the same with TLS; without files, a certificate that proves nothing
coro-ecosystem hyper ADDR                    HTTP/1.1 and HTTP/2 by hyper: /, /slow, /task, /echo
coro-ecosystem proxy ADDR BACKEND...         a reverse proxy for HTTP
coro-ecosystem chat ADDR                     a WebSocket chat
coro-ecosystem jobs REDIS WORKERS            workers that take jobs from a redis server, until it says \"end\" to each
coro-ecosystem get http1|http2 URL           gets what is there, by hyper's clients
Servers say where they listen, and end with SIGINT or SIGTERM. A socket that systemd has opened under the server's name comes before
ADDR: systemd-socket-activate -l 8080 --fdname=http coro-ecosystem http - CORO_BACKDOOR=PATH says where it can be asked.";

type AnyError = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    coro::run(move || run(&args))
}

/// One socket for all workers: these connections stay, so whoever is free should take the next. One that systemd has opened, by the
/// name of the server, comes before the address.
fn listen(name: &str, addr: &str) -> Result<WorkerListeners, AnyError> {
    let listener = match activation::sockets()? {
        Some(mut sockets) => sockets.tcp_listener(name)?,
        None => TcpListenerBuilder::new().nodelay(true).bind(addr)?,
    };
    Ok(WorkerListeners::shared(listener)?)
}

fn run(args: &[String]) -> Result<(), AnyError> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if std::env::var_os("CORO_BACKDOOR").is_none() {
        coro::backdoor::serve_default()?;
    }
    let serving = match *words {
        ["http", addr] => https::serve(listen("http", addr)?, None)?,
        ["https", addr] => https::serve(listen("https", addr)?, Some(tls::server_config(tls::CERTIFICATE, tls::KEY)?))?,
        ["https", addr, certificate, key] => {
            let (certificate, key) = (coro::fs::read_to_string(certificate)?, coro::fs::read_to_string(key)?);
            https::serve(listen("https", addr)?, Some(tls::server_config(&certificate, &key)?))?
        }
        ["hyper", addr] => hyper_server::serve(listen("hyper", addr)?)?,
        ["get", version @ ("http1" | "http2"), url] => {
            let body = hyper_client::get(url, version == "http2")?;
            return Ok(coro::io::stdout().write_all(&body)?);
        }
        ["proxy", addr, ref backends @ ..] => {
            let backends: Result<Vec<SocketAddr>, _> = backends.iter().map(|b| b.parse()).collect();
            proxy::serve(listen("proxy", addr)?, backends?)?
        }
        ["chat", addr] => chat::serve(listen("chat", addr)?)?,
        ["jobs", server, workers] => {
            let server = server.parse()?;
            let pool = jobs::start(server, workers.parse()?)?;
            println!("working for {server}");
            println!("{} jobs done", pool.join()?);
            return Ok(());
        }
        _ => return Err(USAGE.into()),
    };
    serve(&serving)
}

fn serve(serving: &Serving) -> Result<(), AnyError> {
    let Some(first) = serving.listeners().next() else { return Err("no listener".into()) };
    println!("listening on {}", first.local_addr()?);
    Ok(serving.wait()?)
}
