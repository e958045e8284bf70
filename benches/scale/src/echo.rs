//! TCP echo over a number of connections: a server, and a load in another process, which tells what CPU time the server took.
//!
//! The load is tasks of coro as well, one for each connection: 64 bytes under way on each, the next ones sent when these have come
//! back, and each answer compared with what was sent.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coro::Runtime;
use coro::net::{TcpListener, TcpStream};

use crate::measure::Histogram;
use crate::system;

const MESSAGE: usize = 64;

/// Descriptors beside those of the connections.
const OTHERS: usize = 100;

fn serve_one(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

/// Serves until the process is killed; says on which port.
pub(crate) fn serve(runtime: &Runtime) -> io::Result<()> {
    system::raise_descriptors();
    runtime.block_on(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("port {}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept()?;
            // A connection that breaks ends its task and nothing else.
            coro::spawn(move || drop(serve_one(stream)));
        }
    })
}

#[derive(Default)]
struct Load {
    measured: AtomicBool,
    over: AtomicBool,
    requests: AtomicU64,
}

fn request(stream: &mut TcpStream, message: &mut [u8; MESSAGE]) -> io::Result<()> {
    // Another message each time: what came for the one before is not taken for the answer to this one.
    let turn = u64::from_le_bytes(message[8..16].try_into().expect("eight bytes")).wrapping_add(1);
    message[8..16].copy_from_slice(&turn.to_le_bytes());
    stream.write_all(message)?;
    let mut came = [0; MESSAGE];
    stream.read_exact(&mut came)?;
    if came == *message { Ok(()) } else { Err(io::Error::other("the server answered with other bytes than were sent")) }
}

fn connect(port: u16, number: usize) -> io::Result<(TcpStream, [u8; MESSAGE])> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut message = [b'.'; MESSAGE];
    message[..8].copy_from_slice(&(number as u64).to_le_bytes());
    // It is served when this returns.
    request(&mut stream, &mut message)?;
    Ok((stream, message))
}

/// How many connections this process may have.
pub(crate) fn most_connections() -> usize {
    system::raise_descriptors().saturating_sub(OTHERS)
}

/// So many connections to the server `pid` for so long.
pub(crate) fn load(runtime: &Runtime, port: u16, connections: usize, pid: i32, measured: Duration) -> io::Result<()> {
    system::raise_descriptors();
    runtime.block_on(|| {
        let (load, times) = (Arc::new(Load::default()), Arc::new(Histogram::new()));
        let opened = (0..connections).map(|number| connect(port, number)).collect::<io::Result<Vec<_>>>()?;
        let spawn = |(mut stream, mut message): (TcpStream, [u8; MESSAGE])| {
            let (load, times) = (load.clone(), times.clone());
            coro::spawn(move || -> io::Result<()> {
                while !load.over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    request(&mut stream, &mut message)?;
                    load.requests.fetch_add(1, Ordering::Relaxed);
                    if load.measured.load(Ordering::Relaxed) {
                        times.add(start.elapsed().as_nanos() as u64);
                    }
                }
                Ok(())
            })
        };
        let tasks: Vec<_> = opened.into_iter().map(spawn).collect();
        // Every connection has its turn a few times before anything counts.
        coro::sleep(Duration::from_millis(200) + Duration::from_micros(30 * connections as u64));
        let read =
            || Ok::<_, io::Error>((load.requests.load(Ordering::Relaxed), system::cpu_time_of(pid)?, Instant::now()));
        let before = read()?;
        load.measured.store(true, Ordering::Relaxed);
        coro::sleep(measured);
        let after = read()?;
        load.over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))?;
        }
        let requests = after.0 - before.0;
        if requests < connections as u64 {
            return Err(io::Error::other(format!("only {requests} requests on {connections} connections")));
        }
        println!("echo.cpu_ns {:.3}", (after.1 - before.1).as_nanos() as f64 / requests as f64);
        println!("echo.per_s {:.1}", requests as f64 / (after.2 - before.2).as_secs_f64());
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            println!("echo.{name}_us {:.3}", times.quantile(share) as f64 / 1e3);
        }
        Ok(())
    })
}
