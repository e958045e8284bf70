//! hyper: HTTP as most who have tokio serve it, on the current-thread runtime. It answers as the others do, but puts the date and
//! the length there itself.

use std::convert::Infallible;
use std::io;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::tokio::{runtime, serve};
use super::{BODY, Refused, only_http};
use crate::args::Args;

pub(super) fn run(args: &Args) -> Result<(), Refused> {
    only_http(args)?;
    let port = args.number("port", 7000);
    // In a spawned task, as tokio's own server.
    let served = runtime(args)?.block_on(async move { tokio::spawn(serve(port, http)).await });
    Ok(served.map_err(io::Error::other)??)
}

/// Without a timer, and so without time limits: the other servers have none either.
async fn http(stream: TcpStream) -> io::Result<()> {
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    served.await.map_err(io::Error::other)
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut answer = Response::new(Full::new(Bytes::from_static(BODY.as_bytes())));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(answer)
}
