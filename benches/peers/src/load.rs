//! Load on an echo server: one thread, 64 bytes under way on each connection, the next ones sent when these have come back.
//!
//! `port=N conns=N pid=N ms=N warm=N count=METRIC,...` prints lines `metric value`: requests per second, the quantiles of the round
//! trips, the CPU time that process `pid`, the server, took for each, how busy this process was itself, and then, in a time of
//! its own, what is to be counted (`counters`). Every answer is compared with what was sent. Must not know: which runtime serves.

use std::io::{self, Read, Write};
use std::net::TcpStream as Blocking;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::counters;
use crate::measure::{Histogram, cpu_time};

const MESSAGE: usize = 64;

/// How long system calls and instructions are counted. What is under way at the beginning and at the end is counted on one side
/// only, so it is the longer the more connections there are.
fn counted(connections: usize) -> Duration {
    Duration::from_millis(300) + connections as u32 * Duration::from_micros(200)
}

struct Connection {
    stream: TcpStream,
    sent: [u8; MESSAGE],
    came: usize,
    since: Instant,
}

impl Connection {
    /// The connection is served when this returns: one message has gone there and back.
    fn open(port: u16, number: usize) -> io::Result<Connection> {
        let mut stream = Blocking::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        // To close it resets it: thousands of ports in TIME_WAIT would be there for the next run.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        let mut sent = [b'.'; MESSAGE];
        sent[..8].copy_from_slice(&(number as u64).to_le_bytes());
        stream.write_all(&sent)?;
        let mut came = [0; MESSAGE];
        stream.read_exact(&mut came)?;
        compare(&sent, &came)?;
        stream.set_nonblocking(true)?;
        Ok(Connection { stream: TcpStream::from_std(stream), sent, came: 0, since: Instant::now() })
    }

    fn send(&mut self) -> io::Result<()> {
        // Another message each time: what came for the one before is not taken for the answer to this one.
        let turn = u64::from_le_bytes(self.sent[8..16].try_into().expect("eight bytes")).wrapping_add(1);
        self.sent[8..16].copy_from_slice(&turn.to_le_bytes());
        self.since = Instant::now();
        match self.stream.write(&self.sent)? {
            MESSAGE => Ok(()),
            n => Err(io::Error::other(format!("only {n} bytes of a message fit into an empty socket"))),
        }
    }

    /// Reads what has come; how long the whole message took, if it is complete.
    fn receive(&mut self) -> io::Result<Option<Duration>> {
        let mut bytes = [0; MESSAGE];
        while self.came < MESSAGE {
            match self.stream.read(&mut bytes[..MESSAGE - self.came]) {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(n) => {
                    compare(&self.sent[self.came..self.came + n], &bytes[..n])?;
                    self.came += n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        self.came = 0;
        Ok(Some(self.since.elapsed()))
    }
}

fn compare(sent: &[u8], came: &[u8]) -> io::Result<()> {
    if sent == came { Ok(()) } else { Err(io::Error::other("the server answered with other bytes than were sent")) }
}

/// CPU time of another process, to the nanosecond.
pub(crate) fn cpu_time_of(pid: i32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: the call writes to the clock's id only.
    let code = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time` only.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// User time of another process, in the kernel's ticks of mostly 10 ms, and as it divides them up.
fn user_time_of(pid: i32) -> io::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name is in parentheses and may contain anything; user time is the twelfth word behind it.
    let ticks = text.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(11)?.parse::<u64>().ok());
    let ticks = ticks.ok_or_else(|| io::Error::other("/proc/PID/stat was not understood"))?;
    // SAFETY: no preconditions.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1);
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// This process, and what it starts, may have so many connections and some descriptors besides.
pub(crate) fn allow_descriptors(connections: usize) -> io::Result<()> {
    let wanted = connections as u64 + 200;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to `limit` only.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur >= wanted {
        return Ok(());
    }
    let most = limit.rlim_max;
    limit = libc::rlimit { rlim_cur: wanted, rlim_max: most.max(wanted) };
    // SAFETY: the call reads `limit` only.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::other(format!(
            "{connections} connections want {wanted} descriptors, and a process may have {most} here (ulimit -Hn)"
        ))),
    }
}

struct Order {
    port: u16,
    connections: usize,
    server: i32,
    warm: Duration,
    measured: Duration,
    /// Metrics.
    counted: Vec<String>,
}

fn order(words: impl Iterator<Item = String>) -> Option<Order> {
    let mut order = Order {
        port: 0,
        connections: 1,
        server: 0,
        warm: Duration::from_millis(400),
        measured: Duration::from_secs(2),
        counted: Vec::new(),
    };
    for word in words {
        let (key, value) = word.split_once('=')?;
        match key {
            "port" => order.port = value.parse().ok()?,
            "conns" => order.connections = value.parse().ok()?,
            "pid" => order.server = value.parse().ok()?,
            "warm" => order.warm = Duration::from_millis(value.parse().ok()?),
            "ms" => order.measured = Duration::from_millis(value.parse().ok()?),
            "count" => order.counted = value.split(',').map(str::to_owned).collect(),
            _ => return None,
        }
    }
    Some(order)
}

fn load(order: &Order) -> io::Result<()> {
    allow_descriptors(order.connections)?;
    let mut poll = Poll::new()?;
    let mut connections = Vec::with_capacity(order.connections);
    for number in 0..order.connections {
        let mut connection = Connection::open(order.port, number)?;
        poll.registry().register(&mut connection.stream, Token(number), Interest::READABLE)?;
        connections.push(connection);
    }
    for connection in &mut connections {
        connection.send()?;
    }
    let mut events = Events::with_capacity(1024);
    turns(&mut poll, &mut events, &mut connections, order.warm)?;
    let (start, served, own) = (Instant::now(), cpu_time_of(order.server)?, cpu_time());
    let user = user_time_of(order.server)?;
    let (times, requests) = turns(&mut poll, &mut events, &mut connections, order.measured)?;
    let (took, served, own) = (start.elapsed(), cpu_time_of(order.server)? - served, cpu_time() - own);
    let user = user_time_of(order.server)? - user;
    let requests = requests as f64;
    println!("cpu_us_per_req {:.4}", served.as_secs_f64() * 1e6 / requests);
    println!("user_us_per_req {:.4}", user.as_secs_f64() * 1e6 / requests);
    for (name, share) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
        println!("{name} {:.3}", times.quantile(share) as f64 / 1e3);
    }
    println!("req_per_s {:.1}", requests / took.as_secs_f64());
    println!("load_busy_pct {:.1}", own.as_secs_f64() * 100.0 / took.as_secs_f64());
    if !order.counted.is_empty() {
        let run = || turns(&mut poll, &mut events, &mut connections, counted(order.connections));
        let (counts, (_, requests)) = counters::count(order.server, &order.counted, run)?;
        for (metric, count) in counts {
            println!("{metric} {:.3}", count / requests as f64);
        }
    }
    Ok(())
}

/// Messages and answers for so long: how long each took, and how many there were.
fn turns(
    poll: &mut Poll,
    events: &mut Events,
    connections: &mut [Connection],
    time: Duration,
) -> io::Result<(Histogram, u64)> {
    let (times, start) = (Histogram::new(), Instant::now());
    let mut requests = 0;
    while start.elapsed() < time {
        match poll.poll(events, Some(Duration::from_secs(5))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        }
        if events.is_empty() {
            return Err(io::Error::other("no connection was answered for five seconds"));
        }
        for event in events.iter() {
            let connection = &mut connections[event.token().0];
            if let Some(took) = connection.receive()? {
                times.add(took.as_nanos() as u64);
                requests += 1;
                connection.send()?;
            }
        }
    }
    Ok((times, requests))
}

pub(crate) fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let Some(order) = order(words) else {
        eprintln!("usage: peers load port=N conns=N pid=N [ms=N] [warm=N] [count=METRIC,...]");
        return ExitCode::from(2);
    };
    match load(&order) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn connections_that_are_not_allowed_are_told() {
        // More than the kernel gives to anybody.
        let error = super::allow_descriptors(1 << 40).unwrap_err().to_string();
        assert!(error.contains("ulimit"), "{error}");
        super::allow_descriptors(1).unwrap();
    }
}
