//! Looking at many parked tasks while a ticker task feels whether it is disturbed.
//!
//! The answer is asked for as a person would: over the backdoor, from outside the runtime, to the last byte. The first
//! time includes opening the executable and resolving names; `again_ms` is the median of more, asked for during at least
//! two seconds. Gaps are those between two turns of a task that sleeps a millisecond at a time: the longest of the first
//! ask, and 99.9 % and the longest of two quiet seconds and of the later asks. `api_ms` is [`coro::where_all`] on a plain
//! thread with all its text.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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

/// How long the asks after the first go on, and how long the quiet before them is watched.
const WATCHED: Duration = Duration::from_secs(2);

/// Times between two turns of a task that sleeps a millisecond at a time.
#[derive(Default)]
struct Ticker {
    gaps_ns: Mutex<Vec<u64>>,
    stop: AtomicBool,
}

impl Ticker {
    fn run(&self) {
        let mut last = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            coro::sleep(Duration::from_millis(1));
            let now = Instant::now();
            self.gaps_ns.lock().unwrap().push((now - last).as_nanos() as u64);
            last = now;
        }
    }

    /// The gaps since the last call, after the turn that is under way has ended.
    fn take(&self) -> Gaps {
        std::thread::sleep(Duration::from_millis(20));
        let mut gaps = std::mem::take(&mut *self.gaps_ns.lock().unwrap());
        gaps.sort_unstable();
        Gaps(gaps)
    }
}

struct Gaps(Vec<u64>);

impl Gaps {
    /// The gap that the share `q` of all stays below, in milliseconds.
    fn quantile(&self, q: f64) -> f64 {
        let at = ((self.0.len() as f64 * q).ceil() as usize).clamp(1, self.0.len().max(1)) - 1;
        self.0.get(at).map_or(0.0, |ns| *ns as f64 / 1e6)
    }

    fn longest(&self) -> f64 {
        self.quantile(1.0)
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
    std::thread::sleep(WATCHED);
    let quiet = ticker.take();

    let case = format!("dump.{n}");
    let before = Memory::now();
    let (first, text) = ask(&path)?;
    let disturbed = ticker.take();
    let extra = Memory::now().resident - before.resident - text.len() as f64;
    let tasks = text.windows(8).filter(|w| w == b" parked ").count();
    assert!(tasks >= n, "only {tasks} of {n} parked tasks were listed");
    args.report(&case, "capture_ms", ms(first));
    args.report(&case, "ticker_gap_ms", disturbed.longest());
    args.report(&case, "ticker_gap_quiet_ms", quiet.longest());
    args.report(&case, "ticker_gap_quiet_p999_ms", quiet.quantile(0.999));
    args.report(&case, "text_bytes", text.len() as f64);
    args.report(&case, "tasks_seen", tasks as f64);
    args.report(&case, "extra_rss_bytes", extra);

    let (start, mut again) = (Instant::now(), Vec::new());
    while again.len() < 5 || start.elapsed() < WATCHED {
        again.push(ask(&path)?.0);
    }
    again.sort();
    let disturbed = ticker.take();
    args.report(&case, "asks", again.len() as f64);
    args.report(&case, "again_ms", ms(again[again.len() / 2]));
    args.report(&case, "again_gap_ms", disturbed.longest());
    args.report(&case, "again_gap_p999_ms", disturbed.quantile(0.999));

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
