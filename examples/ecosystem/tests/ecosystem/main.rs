//! The crates of this package over coro's streams, against real servers and other people's clients; and its servers under
//! load, seen through their backdoors.

mod http;
mod https;
mod hyper;
mod page;
mod real;
mod server;

use std::io::{Read, Write};
use std::time::Duration;

use coro_ecosystem::http::{Message, Reader, Side};

const LONG: Duration = Duration::from_secs(60);

/// As a task of a fresh runtime.
#[track_caller]
fn on<T: Send + 'static>(workers: usize, f: impl FnOnce() -> T + Send + 'static) -> T {
    coro::Runtime::builder().workers(workers).build().unwrap().block_on(|| coro::timeout(LONG, f).expect("in time"))
}

fn get<S: Read + Write>(stream: &mut S, reader: &mut Reader, target: &str) -> Message {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    stream.flush().unwrap();
    reader.next(stream, Side::Answer, |_| Ok(())).unwrap().expect("an answer")
}
