//! may_minihttp: a small web server by may's author. It writes status, server, date and length itself, and accepts and answers in
//! its own tasks: TCP_NODELAY cannot be asked for.

use std::io;

use may_minihttp::{HttpServer, HttpService, Request, Response};

use super::may::{configure, join};
use super::{BODY, Refused, only_http, ready};
use crate::args::Args;

#[derive(Clone)]
struct Hello;

impl HttpService for Hello {
    fn call(&mut self, _: Request, answer: &mut Response) -> io::Result<()> {
        answer.header("Content-Type: text/plain").body(BODY);
        Ok(())
    }
}

pub(super) fn run(args: &Args) -> Result<(), Refused> {
    only_http(args)?;
    configure(args);
    let server = HttpServer(Hello).start(("127.0.0.1", args.number("port", 7000)))?;
    ready()?;
    join(server);
    Ok(())
}
