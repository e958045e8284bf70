//! A client for postgres on `postgres-protocol`, which has the messages and the passwords but no I/O: as much of one as
//! simple queries need.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorResponseBody, Message};
use postgres_protocol::message::frontend;

/// A row of an answer, as text; `None` is SQL's null.
pub type Row = Vec<Option<String>>;

/// A connection to a postgres server, over any stream.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    received: BytesMut,
    /// Whether the next thing that comes answers the next thing that is asked.
    in_step: bool,
}

impl<S: Read + Write> Client<S> {
    /// Logs in. The server may ask for a password by SCRAM, or for none.
    ///
    /// # Errors
    /// Of the stream; the server's, in its words.
    pub fn log_in(stream: S, user: &str, password: &str, database: &str) -> io::Result<Client<S>> {
        let mut client = Client { stream, received: BytesMut::new(), in_step: false };
        client.send(|out| frontend::startup_message([("user", user), ("database", database)], out))?;
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            match client.receive()? {
                Message::AuthenticationSasl(_) => {
                    let first = scram.message().to_vec();
                    client.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, &first, out))?;
                }
                Message::AuthenticationSaslContinue(body) => {
                    scram.update(body.data())?;
                    let next = scram.message().to_vec();
                    client.send(|out| frontend::sasl_response(&next, out))?;
                }
                Message::AuthenticationSaslFinal(body) => scram.finish(body.data())?,
                Message::ErrorResponse(body) => return Err(said(&body)),
                Message::ReadyForQuery(_) => {
                    client.in_step = true;
                    return Ok(client);
                }
                // It has let us in, and says what its settings are.
                Message::AuthenticationOk
                | Message::BackendKeyData(_)
                | Message::ParameterStatus(_)
                | Message::NoticeResponse(_) => {}
                _ => return Err(io::Error::other("the server wants a way to log in that this client does not know")),
            }
        }
    }

    /// Runs a query, or several with semicolons between, and returns all rows.
    ///
    /// # Errors
    /// The server's, in its words, after which the connection can be used again; of the stream, after which it cannot.
    ///
    /// # Cancellation
    /// A query that is broken off (an error, a limit, an unwinding task) leaves its answer in the connection: every
    /// later one gives `NotConnected`.
    pub fn query(&mut self, text: &str) -> io::Result<Vec<Row>> {
        if !std::mem::replace(&mut self.in_step, false) {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "a query was broken off; open another connection"));
        }
        self.send(|out| frontend::query(text, out))?;
        let (mut rows, mut failed) = (Vec::new(), None);
        loop {
            match self.receive()? {
                Message::DataRow(body) => {
                    let cell = |range: Option<std::ops::Range<usize>>| {
                        Ok(range.map(|r| String::from_utf8_lossy(&body.buffer()[r]).into_owned()))
                    };
                    rows.push(body.ranges().map(cell).collect()?);
                }
                Message::ErrorResponse(body) => failed = Some(said(&body)),
                // `COPY … FROM STDIN` waits for rows, of which there are none here.
                Message::CopyInResponse(_) => self.send(|out| frontend::copy_fail("no rows are sent here", out))?,
                Message::ReadyForQuery(_) => {
                    self.in_step = true;
                    return failed.map_or(Ok(rows), Err);
                }
                _ => {}
            }
        }
    }

    /// The stream.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    fn send(&mut self, message: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        message(&mut bytes)?;
        self.stream.write_all(&bytes)
    }

    fn receive(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = Message::parse(&mut self.received)? {
                return Ok(message);
            }
            let mut more = [0; 4096];
            let n = self.stream.read(&mut more)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.extend_from_slice(&more[..n]);
        }
    }
}

/// The message among the fields of an error.
fn said(body: &ErrorResponseBody) -> io::Error {
    let message = body.fields().find(|field| Ok(field.type_() == b'M'));
    let text = message.ok().flatten().map(|field| String::from_utf8_lossy(field.value_bytes()).into_owned());
    io::Error::other(text.unwrap_or_else(|| "an error without a message".to_owned()))
}
