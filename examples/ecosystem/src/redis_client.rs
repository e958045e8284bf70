//! The sync redis client over our streams.
//!
//! `redis::Connection` opens std's sockets itself and has no hook for others. But everything that the crate offers for use
//! (`Commands`, `Cmd`, `Pipeline`) works on `ConnectionLike`, and its parser reads from any `Read`: so this is a
//! connection of our own. What is left out with it is publish/subscribe, which only `redis::Connection` has.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use coro::net::{TcpStream, ToSocketAddrs};
use redis::{ConnectionLike, Parser, RedisResult, Value};

/// A connection to a redis server.
pub struct Connection {
    stream: TcpStream,
    parser: Parser,
    open: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("stream", &self.stream).field("open", &self.open).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects; parks the task until then.
    ///
    /// # Errors
    /// Of the connection.
    pub fn open(addr: impl ToSocketAddrs) -> io::Result<Connection> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, parser: Parser::new(), open: true })
    }

    /// Limits how long an answer may take; a blocking command (`BLMOVE`) needs more than its own limit.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(limit)
    }

    /// Sends commands and takes so many answers, the server's errors among them.
    ///
    /// # Cancellation
    /// Whatever ends it before the last answer (an error, a limit, an unwinding task) shuts the connection: nobody would
    /// know which answer comes next.
    fn exchange(&mut self, commands: &[u8], answers: usize) -> RedisResult<Vec<Value>> {
        if !std::mem::replace(&mut self.open, false) {
            return Err(io::Error::new(ErrorKind::NotConnected, "this connection was broken off; open another").into());
        }
        self.stream.write_all(commands)?;
        let values = (0..answers).map(|_| self.parser.parse_value(&mut self.stream)).collect::<RedisResult<_>>()?;
        self.open = true;
        Ok(values)
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.exchange(command, 1).map(|mut one| one.remove(0))
    }

    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        let mut values = self.exchange(commands, offset + count)?;
        // Of a transaction these are "OK" and "QUEUED", or why one of its commands is none.
        for value in values.drain(..offset) {
            value.extract_error()?;
        }
        Ok(values)
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        redis::cmd("PING").query::<String>(self).is_ok()
    }

    fn is_open(&self) -> bool {
        self.open
    }
}
