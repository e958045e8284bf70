//! HTTP/1.1 with keep-alive, as much as the examples need: heads by `httparse`, bodies whole in memory.
//!
//! A message whose end could be read in two ways (two lengths, a length and chunks) is refused: a proxy and a server that
//! disagree about it let requests be smuggled past the first.

use std::io::{self, ErrorKind, Read, Write};

use httparse::Status;

/// The longest head that is read, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;
/// The longest body that is read, in bytes.
const LONGEST_BODY: usize = 1024 * 1024;
const MOST_HEADERS: usize = 64;

/// Names as they came, and values.
pub type Headers = Vec<(String, String)>;

/// One message: a request, or an answer as a client got it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Of a request: `GET`; of an answer: empty.
    pub method: String,
    /// Of a request: what is asked for.
    pub target: String,
    /// Of an answer: 200.
    pub status: u16,
    /// Names as they came, and values.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// Whether another message may follow on the connection.
    pub keep_alive: bool,
}

impl Message {
    /// The first header with that name, in whatever case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All headers with that name.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v)
    }

    /// Whether one of the words of these headers is `word`.
    pub fn has_word(&self, name: &str, word: &str) -> bool {
        self.all(name).flat_map(|v| v.split(',')).any(|w| w.trim().eq_ignore_ascii_case(word))
    }
}

/// An answer to a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// 200 and the like.
    pub status: u16,
    /// Without `Transfer-Encoding` and `Connection`, and `Content-Length` only where the body is left out: those are said
    /// with the body.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A text.
    pub fn text(status: u16, text: impl Into<String>) -> Answer {
        let headers = vec![("Content-Type".to_owned(), "text/plain; charset=utf-8".to_owned())];
        Answer { status, headers, body: text.into().into_bytes() }
    }
}

/// The words of a status; there may be none.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        502 => "Bad Gateway",
        _ => "",
    }
}

/// Which message is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Requests.
    Request,
    /// Answers.
    Answer,
    /// The answer to a request for the head only.
    Head,
}

/// How a body ends.
enum Body {
    None,
    Length(usize),
    Chunks,
    /// With the connection.
    End,
}

/// Reads messages from a stream, one after the other.
#[derive(Debug, Default)]
pub struct Reader {
    received: Vec<u8>,
}

fn bad(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text)
}

fn too_long() -> io::Error {
    bad("a body of that length is not read")
}

impl Reader {
    /// The next message; `None` at the end of the stream between two of them. `go_on` is called before the body is read
    /// if the other side waits to be told (`Expect: 100-continue`).
    ///
    /// # Errors
    /// `InvalidData` for what is no such message, or is too long; `UnexpectedEof` in the middle of one; of the stream.
    pub fn next<S: Read>(
        &mut self,
        stream: &mut S,
        side: Side,
        mut go_on: impl FnMut(&mut S) -> io::Result<()>,
    ) -> io::Result<Option<Message>> {
        let mut looked_at = 0;
        let mut message = loop {
            // A head ends with a line. Who sends it byte by byte shall not have it parsed byte by byte.
            let found = match self.received[looked_at..].contains(&b'\n') {
                true => parse(&self.received, side)?,
                false => None,
            };
            looked_at = self.received.len();
            match found {
                // "Continue" and its like come before the answer.
                Some((message, head)) if matches!(message.status, 100 | 102..200) => {
                    self.received.drain(..head);
                    looked_at = 0;
                }
                Some((message, head)) => {
                    self.received.drain(..head);
                    break message;
                }
                None if looked_at > LONGEST_HEAD => return Err(bad("the head is too long")),
                None if self.more(stream)? > 0 => {}
                None if looked_at == 0 => return Ok(None),
                None => return Err(ErrorKind::UnexpectedEof.into()),
            }
        };
        let body = end_of(&message, side)?;
        if message.has_word("expect", "100-continue") && !matches!(body, Body::None) && self.received.is_empty() {
            go_on(stream)?;
        }
        match body {
            Body::None => {}
            Body::Length(length) => message.body = self.exactly(stream, length)?,
            Body::Chunks => message.body = self.chunks(stream)?,
            Body::End => {
                message.keep_alive = false;
                while self.more(stream)? > 0 {
                    if self.received.len() > LONGEST_BODY {
                        return Err(too_long());
                    }
                }
                message.body = std::mem::take(&mut self.received);
            }
        }
        Ok(Some(message))
    }

    fn more<S: Read>(&mut self, stream: &mut S) -> io::Result<usize> {
        let mut buf = [0; 4096];
        let n = stream.read(&mut buf)?;
        self.received.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    fn some_more<S: Read>(&mut self, stream: &mut S) -> io::Result<()> {
        if self.more(stream)? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn exactly<S: Read>(&mut self, stream: &mut S, length: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < length {
            self.some_more(stream)?;
        }
        Ok(self.received.drain(..length).collect())
    }

    fn chunks<S: Read>(&mut self, stream: &mut S) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match httparse::parse_chunk_size(&self.received).map_err(|_| bad("no chunk"))? {
                Status::Complete((start, size)) => {
                    self.received.drain(..start);
                    let size = usize::try_from(size).ok().filter(|n| *n <= LONGEST_BODY - body.len());
                    let size = size.ok_or_else(too_long)?;
                    if size == 0 {
                        return self.trailers(stream).map(|()| body);
                    }
                    body.extend(self.exactly(stream, size)?);
                    if self.exactly(stream, 2)? != b"\r\n" {
                        return Err(bad("a chunk has another length than it says"));
                    }
                }
                Status::Partial if self.received.len() > LONGEST_HEAD => return Err(bad("no chunk")),
                Status::Partial => self.some_more(stream)?,
            }
        }
    }

    /// Reads past what may follow the last chunk, up to an empty line.
    fn trailers<S: Read>(&mut self, stream: &mut S) -> io::Result<()> {
        let mut left = LONGEST_HEAD;
        loop {
            let line = self.received.windows(2).position(|two| two == b"\r\n");
            if line.unwrap_or(self.received.len()) > left {
                return Err(bad("the trailers are too long"));
            }
            match line {
                None => self.some_more(stream)?,
                Some(end) => {
                    self.received.drain(..end + 2);
                    left -= end;
                    if end == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// A whole head at the start of `bytes`, and its length.
fn parse(bytes: &[u8], side: Side) -> io::Result<Option<(Message, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut message = Message::default();
    let no_message = |e: httparse::Error| bad(&format!("no HTTP message: {e}"));
    let (parsed, version) = match side {
        Side::Request => {
            let mut request = httparse::Request::new(&mut headers);
            let parsed = request.parse(bytes).map_err(no_message)?;
            message.method = request.method.unwrap_or_default().to_owned();
            message.target = request.path.unwrap_or_default().to_owned();
            message.headers = owned(request.headers);
            (parsed, request.version)
        }
        Side::Answer | Side::Head => {
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(bytes).map_err(no_message)?;
            message.status = response.code.unwrap_or_default();
            message.headers = owned(response.headers);
            (parsed, response.version)
        }
    };
    let Status::Complete(head) = parsed else { return Ok(None) };
    message.keep_alive = match version {
        Some(1) => !message.has_word("connection", "close"),
        _ => message.has_word("connection", "keep-alive"),
    };
    Ok(Some((message, head)))
}

fn owned(headers: &[httparse::Header<'_>]) -> Headers {
    let text = |h: &httparse::Header<'_>| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned());
    headers.iter().map(text).collect()
}

fn end_of(message: &Message, side: Side) -> io::Result<Body> {
    if side == Side::Head || matches!(message.status, 101 | 204 | 304) {
        return Ok(Body::None);
    }
    let lengths: Vec<&str> = message.all("content-length").collect();
    let codings: Vec<&str> = message.all("transfer-encoding").collect();
    match (&*codings, &*lengths) {
        ([], []) if side == Side::Request => Ok(Body::None),
        ([], []) => Ok(Body::End),
        ([], [length, others @ ..]) if others.iter().all(|other| other == length) => {
            // What `parse` takes beyond digits, a sign, is no length.
            let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
            let length = if digits { length.parse().ok() } else { return Err(bad("a length that is no number")) };
            length.filter(|n| *n <= LONGEST_BODY).map(Body::Length).ok_or_else(too_long)
        }
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Body::Chunks),
        _ => Err(bad("nobody can say where that body ends")),
    }
}

/// Writes an answer in one piece; `with_body` is false for requests that want the head only.
///
/// # Errors
/// Of the stream.
pub fn write_answer(stream: &mut impl Write, answer: &Answer, keep_alive: bool, with_body: bool) -> io::Result<()> {
    let Answer { status, headers, body } = answer;
    let mut bytes = format!("HTTP/1.1 {status} {}\r\n", reason(*status)).into_bytes();
    for (name, value) in headers {
        write!(bytes, "{name}: {value}\r\n")?;
    }
    // Of a body that is not here, whoever has it knows the length.
    let said = !with_body && headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !said && !matches!(status, 204 | 304) {
        write!(bytes, "Content-Length: {}\r\n", body.len())?;
    }
    let connection = if keep_alive { "keep-alive" } else { "close" };
    write!(bytes, "Connection: {connection}\r\n\r\n")?;
    if with_body {
        bytes.extend_from_slice(body);
    }
    stream.write_all(&bytes)?;
    stream.flush()
}

/// Answers the requests of one connection until either side ends it; how many there were.
///
/// # Errors
/// Of the stream. What is no request is answered with the status 400 and ends the connection.
pub fn serve<S: Read + Write>(stream: &mut S, mut handler: impl FnMut(&Message) -> Answer) -> io::Result<usize> {
    let (mut reader, mut served) = (Reader::default(), 0);
    loop {
        let next = reader.next(stream, Side::Request, |s| {
            s.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            s.flush()
        });
        let request = match next {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(served),
            Err(e) if e.kind() == ErrorKind::InvalidData => {
                write_answer(stream, &Answer::text(400, format!("{e}\n")), false, true)?;
                return Ok(served);
            }
            Err(e) => return Err(e),
        };
        let answer = handler(&request);
        write_answer(stream, &answer, request.keep_alive, request.method != "HEAD")?;
        served += 1;
        if !request.keep_alive {
            return Ok(served);
        }
    }
}
