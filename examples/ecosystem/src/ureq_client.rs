//! ureq over our streams, through the hooks that it has for its transport and for looking up names: [`agent`].
//!
//! Left out: `https:` (a transport around this one, with rustls, would be that), proxies, and ureq's own way to
//! cancel a request from another thread, for which coro has `timeout` and `Task::cancel`.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use coro::net::{TcpStream, ToSocketAddrs};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};
use ureq::{Agent, Error, Timeout};

use crate::sockets::is_idle;

/// What [`ResolvedSocketAddrs`] has room for.
const MOST_ADDRS: usize = 16;

/// An agent whose requests park the task instead of blocking the worker.
pub fn agent() -> Agent {
    agent_with(Agent::config_builder().proxy(None).build())
}

/// As [`agent`], with settings.
pub fn agent_with(config: Config) -> Agent {
    Agent::with_parts(config, Connect, Resolve)
}

fn limit(timeout: NextTimeout) -> Option<Duration> {
    timeout.not_zero().map(|limit| *limit)
}

/// What an expired limit of a socket gives is a timeout to ureq.
fn or_late<T>(result: io::Result<T>, reason: Timeout) -> Result<T, Error> {
    result.map_err(|e| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout(reason),
        _ => e.into(),
    })
}

/// Looks names up on the pool of blocking jobs, as all of `coro::net` does.
#[derive(Debug)]
struct Resolve;

impl Resolver for Resolve {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(Error::BadUri(uri.to_string()));
        };
        let host = DefaultResolver::host_and_port(scheme, authority).ok_or(Error::HostNotFound)?;
        let all = match limit(timeout) {
            Some(limit) => {
                coro::timeout(limit, || host.to_socket_addrs()).map_err(|_| Error::Timeout(timeout.reason))?
            }
            None => host.to_socket_addrs(),
        };
        let mut found = self.empty();
        let all: Vec<_> = or_late(all, timeout.reason)?.collect();
        for addr in config.ip_family().keep_wanted(all.into_iter()).take(MOST_ADDRS) {
            found.push(addr);
        }
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}

#[derive(Debug)]
struct Connect;

impl Connector<()> for Connect {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Connection>, Error> {
        if details.needs_tls() {
            return Err(Error::TlsRequired);
        }
        let mut last = ErrorKind::NotFound.into();
        for addr in &details.addrs {
            let attempt = match limit(details.timeout) {
                Some(limit) => TcpStream::connect_timeout(addr, limit),
                None => TcpStream::connect(*addr),
            };
            match attempt {
                Ok(stream) => {
                    stream.set_nodelay(details.config.no_delay())?;
                    let (input, output) = (details.config.input_buffer_size(), details.config.output_buffer_size());
                    return Ok(Some(Connection { stream, buffers: LazyBuffers::new(input, output) }));
                }
                Err(e) => last = e,
            }
        }
        or_late(Err(last), details.timeout.reason)
    }
}

struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(limit(timeout))?;
        or_late(self.stream.write_all(&self.buffers.output()[..amount]), timeout.reason)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(limit(timeout))?;
        let n = or_late(self.stream.read(self.buffers.input_append_buf()), timeout.reason)?;
        self.buffers.input_appended(n);
        Ok(n > 0)
    }

    fn is_open(&mut self) -> bool {
        is_idle(&self.stream)
    }
}
