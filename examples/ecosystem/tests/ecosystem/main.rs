//! The crates of this package over coro's streams, against real servers and other people's clients; and its servers under
//! load, seen through their backdoors.

mod chat;
mod http;
mod https;
mod hyper;
mod page;
mod postgres;
mod proxy;
mod real;
mod redis;
mod server;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use coro_ecosystem::http::{Message, Reader, Side};

const LONG: Duration = Duration::from_secs(60);

/// As a task of a fresh runtime.
#[track_caller]
fn on<T: Send + 'static>(workers: usize, f: impl FnOnce() -> T + Send + 'static) -> T {
    coro::Runtime::builder().workers(workers).build().unwrap().block_on(|| coro::timeout(LONG, f).expect("in time"))
}

/// Looks until `f` says yes; bounded, so that a wait can fail. From a task or from a plain thread.
#[track_caller]
fn until(what: &str, mut f: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !f() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        coro::sleep(Duration::from_millis(2));
    }
}

fn get<S: Read + Write>(stream: &mut S, reader: &mut Reader, target: &str) -> Message {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    stream.flush().unwrap();
    reader.next(stream, Side::Answer, |_| Ok(())).unwrap().expect("an answer")
}
