//! Looking at many parked tasks while a ticker task on each worker feels whether it is disturbed.
//!
//! The answer is asked for as a person would: over the backdoor, from outside the runtime, to the last byte, by a client that reads
//! a bounded piece at a time, as `socat` and `nc` do. The first time includes opening the executable and resolving names; `again_ms` is the median of more, asked
//! for during `watched` milliseconds (10,000). `api_ms` is [`coro::where_all`] on a plain thread with all its text.
//!
//! Gaps are those between two turns of a task that sleeps a millisecond at a time, on the worker that feels most, and of each worker
//! (`.0`, `.1`) where there are several: the longest of the first ask, and 99.9 % and the longest of the later asks, of as long a quiet time
//! before, and of as long beside two threads that compute in the kernel's idle class (`busy`). Those give way to everything, so what a ticker feels of them is the machine's: a virtual machine
//! whose CPUs are busy is interrupted more often by others. `wait_..._p999_us` is how long the kernel, by its own account, let the
//! worker's thread wait for a CPU in each gap: what the threads of this machine did to it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, FileExt};
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

/// What a client has of an answer at a time.
const READ: usize = 64 * 1024;
/// Threads that compute in the idle class: as many as a dump keeps busy, the console's and who asks.
const BUSY: usize = 2;

/// How long the kernel let a thread wait for a CPU, all in all.
struct Waited(Option<File>);

impl Waited {
    /// Of the thread that calls.
    fn mine() -> Waited {
        Waited(File::open("/proc/thread-self/schedstat").ok())
    }

    fn ns(&self) -> Option<u64> {
        let mut bytes = [0; 96];
        let n = self.0.as_ref()?.read_at(&mut bytes, 0).ok()?;
        std::str::from_utf8(&bytes[..n]).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    }
}

/// Times between two turns of a task that sleeps a millisecond at a time, and how long its thread waited for a CPU in each.
#[derive(Default)]
struct Ticker {
    turns: Mutex<Vec<(u64, u64)>>,
    stop: AtomicBool,
}

impl Ticker {
    /// The task stays on one worker, so on one thread.
    fn run(&self) {
        let waited = Waited::mine();
        let (mut last, mut before) = (Instant::now(), waited.ns());
        while !self.stop.load(Ordering::Relaxed) {
            coro::sleep(Duration::from_millis(1));
            let now = Instant::now();
            let gap = (now - last).as_nanos() as u64;
            last = now;
            let wait = waited.ns();
            self.turns.lock().unwrap().push((gap, wait.zip(before).map_or(0, |(now, then)| now - then)));
            before = wait;
        }
    }
}

/// What the tickers felt in some time.
struct Felt(Vec<Vec<(u64, u64)>>);

impl Felt {
    /// Since the last call, after the turns that are under way have ended.
    fn by(tickers: &[Arc<Ticker>]) -> Felt {
        std::thread::sleep(Duration::from_millis(20));
        Felt(tickers.iter().map(|ticker| std::mem::take(&mut *ticker.turns.lock().unwrap())).collect())
    }

    /// The value that the share `q` of all stays below, on the worker where it is greatest.
    fn quantile(&self, q: f64, of: impl Fn(&(u64, u64)) -> u64) -> f64 {
        let of_one = |turns: &Vec<_>| {
            let mut values: Vec<u64> = turns.iter().map(&of).collect();
            values.sort_unstable();
            let at = ((values.len() as f64 * q).ceil() as usize).clamp(1, values.len().max(1)) - 1;
            values.get(at).copied().unwrap_or(0)
        };
        self.0.iter().map(of_one).max().unwrap_or(0) as f64
    }

    fn gap_ms(&self, q: f64) -> f64 {
        self.quantile(q, |turn| turn.0) / 1e6
    }

    fn wait_us(&self, q: f64) -> f64 {
        self.quantile(q, |turn| turn.1) / 1e3
    }
}

/// Computes on so many threads that everybody else goes before, for so long. Whether the system has such threads.
fn compute_idly(threads: usize, time: Duration) -> bool {
    #[cfg(target_os = "linux")]
    let is_idle = || {
        // SAFETY: all zeros is the one priority that this class has.
        let none = unsafe { std::mem::zeroed::<libc::sched_param>() };
        // SAFETY: the call reads the parameter only, and 0 is this thread.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) == 0 }
    };
    #[cfg(not(target_os = "linux"))]
    let is_idle = || false;
    let compute = || {
        let end = Instant::now() + time;
        let is_idle = is_idle();
        while is_idle && Instant::now() < end {
            (0..10_000).for_each(|n| _ = std::hint::black_box(n));
        }
        is_idle
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(compute)).collect();
        all.into_iter().all(|thread| thread.join().unwrap())
    })
}

/// Asks for every task and gives `part` the answer, a piece at a time; how long it took to the last byte.
fn ask(path: &Path, mut part: impl FnMut(&[u8])) -> io::Result<Duration> {
    let start = Instant::now();
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(b"where_all\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut bytes = vec![0; READ];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(start.elapsed()),
            n => part(&bytes[..n]),
        }
    }
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
    let tickers: Vec<Arc<Ticker>> = (0..args.workers).map(|_| Arc::default()).collect();
    let ticking: Vec<_> = tickers
        .iter()
        .enumerate()
        .map(|(worker, ticker)| {
            let ticker = ticker.clone();
            runtime.block_on(move || {
                coro::Builder::new().worker(worker).spawn(move || ticker.run()).expect("a ticker starts")
            })
        })
        .collect();
    let directory = std::env::temp_dir().join(format!("peer-coro-{}", std::process::id()));
    // The backdoor refuses a directory that others may write to.
    std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
    let path = directory.join("bd");
    let server = coro::backdoor::serve(&path)?;
    let watched = Duration::from_millis(args.number("watched", 10_000u64));
    let case = format!("dump.{n}");
    let report = |time: &str, felt: &Felt| {
        args.report(&case, &format!("ticker_gap_{time}_ms"), felt.gap_ms(1.0));
        args.report(&case, &format!("ticker_gap_{time}_p999_ms"), felt.gap_ms(0.999));
        args.report(&case, &format!("wait_{time}_p999_us"), felt.wait_us(0.999));
        for (worker, turns) in felt.0.iter().enumerate().filter(|_| felt.0.len() > 1) {
            let own = Felt(vec![turns.clone()]).gap_ms(0.999);
            args.report(&case, &format!("ticker_gap_{time}_p999_ms.{worker}"), own);
        }
    };
    // The watch of the quiet begins after the burst of starts.
    std::thread::sleep(Duration::from_millis(500));
    Felt::by(&tickers);
    std::thread::sleep(watched);
    report("quiet", &Felt::by(&tickers));
    if compute_idly(BUSY, watched) {
        report("busy", &Felt::by(&tickers));
    }

    Felt::by(&tickers);
    let before = Memory::now();
    let mut text = Vec::new();
    let first = ask(&path, |part| text.extend_from_slice(part))?;
    let disturbed = Felt::by(&tickers);
    let extra = Memory::now().resident - before.resident - text.len() as f64;
    let tasks = text.windows(8).filter(|w| w == b" parked ").count();
    assert!(tasks >= n, "only {tasks} of {n} parked tasks were listed");
    args.report(&case, "capture_ms", ms(first));
    args.report(&case, "ticker_gap_ms", disturbed.gap_ms(1.0));
    args.report(&case, "text_bytes", text.len() as f64);
    args.report(&case, "tasks_seen", tasks as f64);
    args.report(&case, "extra_rss_bytes", extra);

    let (start, mut again) = (Instant::now(), Vec::new());
    while again.len() < 5 || start.elapsed() < watched {
        again.push(ask(&path, |_| ())?);
    }
    again.sort();
    let disturbed = Felt::by(&tickers);
    args.report(&case, "asks", again.len() as f64);
    args.report(&case, "again_ms", ms(again[again.len() / 2]));
    report("again", &disturbed);

    let start = Instant::now();
    let mut listed = String::new();
    for task in coro::where_all() {
        let _ = writeln!(listed, "{task}");
    }
    args.report(&case, "api_ms", ms(start.elapsed()));

    server.close();
    std::fs::remove_dir(&directory)?;
    tickers.iter().for_each(|ticker| ticker.stop.store(true, Ordering::Relaxed));
    for ticks in ticking {
        let _ = ticks.join();
    }
    Ok(())
}
