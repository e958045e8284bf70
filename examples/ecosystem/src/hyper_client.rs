//! An HTTP client of hyper, for one request.

use std::error::Error;

use coro::future::{block_on, spawn_future};
use coro::hyper::{Executor, Io};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode, Uri};

/// Gets a URL of the form `http://host:port/path`, over HTTP/2 if `second`.
///
/// # Errors
/// Whatever goes wrong; an answer with another status than 200.
pub fn get(url: &str, second: bool) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().ok_or("the URL has no host")?.clone();
    let at = (authority.host(), authority.port_u16().unwrap_or(80));
    let io = Io::new(coro::net::TcpStream::connect(at)?);
    // HTTP/1 wants the path alone, and the host in a header; HTTP/2 makes of the whole URL what it needs.
    let target = if second { uri.to_string() } else { uri.path_and_query().map_or("/".into(), |p| p.to_string()) };
    let mut request = Request::get(target);
    if !second {
        request = request.header("host", authority.as_str());
    }
    let request = request.body(Empty::<Bytes>::new())?;
    block_on(async {
        // The connection is a task of its own: it goes on while nobody asks.
        let response = if second {
            let (mut sender, connection) = http2::handshake(Executor, io).await?;
            drop(spawn_future(connection));
            sender.send_request(request).await?
        } else {
            let (mut sender, connection) = http1::handshake(io).await?;
            drop(spawn_future(connection));
            sender.send_request(request).await?
        };
        if response.status() != StatusCode::OK {
            return Err(response.status().to_string().into());
        }
        Ok(response.into_body().collect().await?.to_bytes())
    })
}
