//! Looking at many parked tasks while a ticker task feels whether it is disturbed.
//!
//! The answer is asked for as a person would: over the backdoor, from outside the runtime, to the last byte. The first
//! time includes opening the executable and resolving names; `again_ms` is the median of five more. `api_ms` is
//! [`coro::where_all`] on a plain thread with all its text.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coro::Runtime;

use crate::args::Args;
use crate::measure::{Memory, StartLine};

/// A frame that the compiler cannot merge with the next.
#[inline(never)]
fn descend(levels: usize) {
    if levels == 0 {
        coro::sleep(Duration::from_secs(3600));
    } else {
        descend(std::hint::black_box(levels - 1));
    }
    std::hint::black_box(levels);
}

/// The longest time between two turns of a task that sleeps a millisecond at a time.
#[derive(Default)]
struct Ticker {
    longest_ns: AtomicU64,
    stop: AtomicBool,
}

impl Ticker {
    fn run(&self) {
        let mut last = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            coro::sleep(Duration::from_millis(1));
            let now = Instant::now();
            self.longest_ns.fetch_max((now - last).as_nanos() as u64, Ordering::Relaxed);
            last = now;
        }
    }

    /// The longest gap since the last call, in milliseconds, after the turn that is under way has ended.
    fn take(&self) -> f64 {
        std::thread::sleep(Duration::from_millis(20));
        self.longest_ns.swap(0, Ordering::Relaxed) as f64 / 1e6
    }
}

fn ask(path: &Path) -> io::Result<(Duration, Vec<u8>)> {
    let start = Instant::now();
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(b"where_all\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok((start.elapsed(), text))
}

fn ms(d: Duration) -> f64 {
    d.as_secs_f64() * 1e3
}

pub(crate) fn run(args: &Args, runtime: &Runtime) -> io::Result<()> {
    let n = args.number("n", 10_000usize);
    let line = Arc::new(StartLine::new(n));
    let spawning = line.clone();
    runtime.block_on(move || {
        for _ in 0..n {
            let line = spawning.clone();
            coro::spawn(move || {
                line.cross();
                descend(3);
            });
        }
    });
    while line.took().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ticker = Arc::new(Ticker::default());
    let ticking = ticker.clone();
    let ticks = runtime.spawn(move || ticking.run());
    let directory = std::env::temp_dir().join(format!("peer-coro-{}", std::process::id()));
    // The backdoor refuses a directory that others may write to.
    std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
    let path = directory.join("bd");
    let server = coro::backdoor::serve(&path)?;
    // The watch of the quiet begins after the burst of starts.
    std::thread::sleep(Duration::from_millis(500));
    ticker.take();
    std::thread::sleep(Duration::from_millis(200));
    let quiet = ticker.take();

    let case = format!("dump.{n}");
    let before = Memory::now();
    let (first, text) = ask(&path)?;
    let disturbed = ticker.take();
    let extra = Memory::now().resident - before.resident - text.len() as f64;
    let tasks = text.windows(8).filter(|w| w == b" parked ").count();
    assert!(tasks >= n, "only {tasks} of {n} parked tasks were listed");
    args.report(&case, "capture_ms", ms(first));
    args.report(&case, "ticker_gap_ms", disturbed);
    args.report(&case, "ticker_gap_quiet_ms", quiet);
    args.report(&case, "text_bytes", text.len() as f64);
    args.report(&case, "tasks_seen", tasks as f64);
    args.report(&case, "extra_rss_bytes", extra);

    let mut again = (0..5).map(|_| ask(&path).map(|(took, _)| took)).collect::<io::Result<Vec<_>>>()?;
    again.sort();
    args.report(&case, "again_ms", ms(again[2]));
    args.report(&case, "again_gap_ms", ticker.take());

    let start = Instant::now();
    let mut text = String::new();
    for task in coro::where_all() {
        let _ = writeln!(text, "{task}");
    }
    args.report(&case, "api_ms", ms(start.elapsed()));

    server.close();
    std::fs::remove_dir(&directory)?;
    ticker.stop.store(true, Ordering::Relaxed);
    let _ = ticks.join();
    Ok(())
}
