//! A pool of workers over redis: jobs come from one list, results go to another.
//!
//! A job that is taken lies in a third list until its result is there, so it is not lost with the worker that had it:
//! whoever operates the pool sees it there and puts it back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coro::JoinHandle;
use redis::{Commands, Direction, RedisResult};

use crate::redis_client::Connection;

/// The list that jobs are taken from, the oldest first.
pub const JOBS: &str = "jobs";
/// The list of jobs that a worker has.
pub const TAKEN: &str = "taken";
/// The list that results are put into.
pub const RESULTS: &str = "results";
/// A job that ends the worker which takes it.
pub const END: &str = "end";
/// Between one attempt to reach the server and the next.
const PAUSE: Duration = Duration::from_millis(250);

/// The workers.
#[derive(Debug)]
pub struct Pool {
    workers: Vec<JoinHandle<()>>,
    done: Arc<AtomicU64>,
}

/// Starts so many workers, each with a connection of its own.
///
/// # Errors
/// If the server cannot be connected to, or a worker cannot be started.
pub fn start(server: SocketAddr, workers: usize) -> io::Result<Pool> {
    let mut pool = Pool { workers: Vec::new(), done: Arc::default() };
    for n in 0..workers {
        let (first, done) = (Connection::open(server)?, pool.done.clone());
        let named = coro::Builder::new().name(format!("job worker {n}")).class("job worker");
        pool.workers.push(named.spawn(move || stay(server, first, &done))?);
    }
    Ok(pool)
}

/// Works until a job says that this is the end; with another connection whenever one is lost.
fn stay(server: SocketAddr, first: Connection, done: &AtomicU64) {
    let mut connection = first;
    while let Err(e) = work(connection, done) {
        coro::print_stderr(format!("redis at {server}: {e}"));
        connection = loop {
            if coro::is_cancelled() {
                return;
            }
            coro::sleep(PAUSE);
            if let Ok(next) = Connection::open(server) {
                break next;
            }
        };
    }
}

fn work(mut connection: Connection, done: &AtomicU64) -> RedisResult<()> {
    loop {
        // Waits in the server; here the task is parked in a read.
        let job: Option<String> = connection.blmove(JOBS, TAKEN, Direction::Right, Direction::Left, 0.0)?;
        let Some(job) = job else { continue };
        let mut finish = redis::pipe();
        finish.atomic().lrem(TAKEN, 1, &job).ignore();
        if job != END {
            finish.lpush(RESULTS, format!("{job} {}", job.chars().rev().collect::<String>())).ignore();
        }
        finish.exec(&mut connection)?;
        if job == END {
            return Ok(());
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// How many jobs are done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until each worker has taken an [`END`].
    ///
    /// # Errors
    /// If one of them panicked.
    pub fn join(self) -> io::Result<u64> {
        for worker in self.workers {
            worker.join().map_err(|_| io::Error::other("a worker panicked"))?;
        }
        Ok(self.done.load(Ordering::Relaxed))
    }
}
