//! The program that `coro demo` starts: lively, with trouble in it.
//!
//! A crate of its own, because `coro`, as the client is called, is also the runtime's name, and stacks leave out what the
//! runtime does inside. Functions have telling names, since that is what stacks show.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coro::sync::Mutex;
use coro::sync::mpsc::{Receiver, Sender, channel_named};

/// Serves the default path, prints it, and goes on until standard input ends.
///
/// # Errors
///
/// Those of starting the runtime and of serving.
pub fn serve() -> io::Result<()> {
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    coro::runner().workers(2).run(|| {
        let server = coro::backdoor::serve_default()?;
        trouble()?;
        // Until there is something to be seen.
        coro::sleep(Duration::from_millis(200));
        println!("{}", server.path().display());
        coro::event_loop();
        Ok(())
    })
}

/// Spawns everything.
fn trouble() -> io::Result<()> {
    let pool = Arc::new(Mutex::new(0_u64).named("db pool"));
    for n in 1..=20 {
        let pool = pool.clone();
        coro::Builder::new().name(format!("client {n}")).class("client").spawn(move || client(&pool))?;
    }
    let here = Arc::new(Mutex::new(100).named("account A"));
    let there = Arc::new(Mutex::new(100).named("account B"));
    for (name, from, to) in [("transfer A to B", &here, &there), ("transfer B to A", &there, &here)] {
        let (from, to) = (from.clone(), to.clone());
        coro::Builder::new().name(name).worker(0).spawn(move || transfer(&from, &to))?;
    }
    coro::Builder::new().name("front desk").worker(0).spawn(front_desk)?;
    coro::Builder::new().name("monthly report").worker(1).spawn(report)?;
    Ok(())
}

#[inline(never)]
fn client(pool: &Mutex<u64>) {
    loop {
        query(pool);
        coro::sleep(Duration::from_millis(50));
    }
}

/// Holds the lock for as long as the database takes.
#[inline(never)]
fn query(pool: &Mutex<u64>) {
    let Ok(mut queries) = pool.lock() else { return };
    coro::sleep(Duration::from_millis(25));
    *queries += 1;
}

/// Each of two takes first what the other takes second.
#[inline(never)]
fn transfer(from: &Mutex<i32>, to: &Mutex<i32>) {
    let Ok(mut from) = from.lock() else { return };
    coro::sleep(Duration::from_millis(20));
    let Ok(mut to) = to.lock() else { return };
    *from -= 1;
    *to += 1;
}

/// Every request leaves a task behind that waits for what nobody sends.
#[inline(never)]
fn front_desk() {
    let mut kept: Vec<Sender<()>> = Vec::new();
    for n in 1_u64.. {
        let (done, ended) = channel_named("end of a request");
        kept.push(done);
        let watcher = coro::Builder::new().name(format!("watcher of request {n}")).class("watcher");
        if watcher.spawn(move || watch_request(&ended)).is_err() {
            return;
        }
        // A few at once, so that there is something to be seen soon.
        coro::sleep(Duration::from_millis(if n < 40 { 1 } else { 500 }));
    }
}

#[inline(never)]
fn watch_request(ended: &Receiver<()>) {
    let _ = ended.recv();
}

/// Now and then computes for seconds without giving way.
#[inline(never)]
fn report() {
    loop {
        coro::sleep(Duration::from_secs(4));
        add_up_everything(Duration::from_secs(4));
    }
}

#[inline(never)]
fn add_up_everything(lasts: Duration) {
    let begun = Instant::now();
    let mut sum = 0_u64;
    while begun.elapsed() < lasts {
        sum = black_box(sum.wrapping_mul(31).wrapping_add(1));
    }
}
