//! What can go wrong, one situation a subcommand, to be looked at through the backdoor: `cargo run --example stuck -- spin`.
//!
//! `docs/situations.md` shows what each looks like from outside. Functions have telling names, since that is what stacks
//! show. Two workers, unless `CORO_WORKERS` says otherwise; the first task of the program lives on worker 0 and the
//! trouble on worker 1, where some tasks that did nothing wrong (`bystander`) live as well.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use coro::net::{TcpListener, TcpStream};
use coro::sync::Mutex;
use coro::sync::mpsc::{Receiver, Sender, channel_named};

mod util;

const USAGE: &str = "usage: stuck SITUATION [--backdoor PATH] [--seconds N]
  --backdoor PATH   the backdoor's socket (default in a private directory)
  --seconds N       ends by itself after N seconds (default 600)
situations:";

/// Brings a situation about and returns.
type Trouble = fn() -> io::Result<()>;

/// What it is called, what goes wrong, and what does it.
const SITUATIONS: &[(&str, &str, Trouble)] = &[
    ("spin", "a task computes and never gives way", spin),
    ("all-workers", "such a task on every worker", all_workers),
    ("std-sleep", "a task sleeps as a thread", std_sleep),
    ("blocking-read", "a task reads from a pipe with std", blocking_read),
    ("std-mutex", "a task waits while it holds a lock of std", std_mutex),
    ("deadlock", "three tasks wait for one another", deadlock),
    ("lost-sender", "the sender of a channel lies where nobody sends", lost_sender),
    ("panic-half-caught", "tasks panic; a handler in the middle hides some of it", panic_half_caught),
    ("overflow", "a recursion without end; ends the process", overflow),
    ("hot-lock", "everybody wants the same lock", hot_lock),
    ("fd-leak", "connections are served and never closed", fd_leak),
    ("task-leak", "every request leaves a task behind", task_leak),
    ("slow-downstream", "a server that others rely on takes calls and answers none", slow_downstream),
    ("panic-loop", "a supervisor starts again and again what panics each time", panic_loop),
    ("memory-growth", "a queue without a bound fills faster than it is emptied", memory_growth),
];

fn main() -> ExitCode {
    let list: Vec<String> = SITUATIONS.iter().map(|(name, what, _)| format!("  {name:<18}{what}")).collect();
    util::main("stuck", &format!("{USAGE}\n{}", list.join("\n")), options().map(Some), |options| {
        let seconds = options.seconds;
        // A thread of its own: a worker may be what is stuck.
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(seconds));
            std::process::exit(0);
        });
        let workers = std::env::var("CORO_WORKERS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
        coro::runner().workers(workers).run(|| serve(&options)).map(|()| ExitCode::SUCCESS)
    })
}

struct Options {
    situation: Trouble,
    backdoor: Option<PathBuf>,
    seconds: u64,
}

fn options() -> Result<Options, String> {
    use lexopt::prelude::{Long, Value};
    let mut parser = lexopt::Parser::from_env();
    let (mut situation, mut backdoor, mut seconds) = (None, None, 600);
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("backdoor") => backdoor = Some(util::path(&mut parser, "--backdoor")?),
            Long("seconds") => seconds = util::number(&mut parser, "--seconds", 1..=86_400)?,
            Value(name) if situation.is_none() => {
                let found = SITUATIONS.iter().find(|(known, ..)| name == *known);
                situation = Some(found.ok_or_else(|| format!("no situation is called {name:?}"))?.2);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Options { situation: situation.ok_or("which situation?")?, backdoor, seconds })
}

/// The first task.
fn serve(options: &Options) -> io::Result<()> {
    let server = match &options.backdoor {
        Some(path) => coro::backdoor::serve(path)?,
        None => coro::backdoor::serve_default()?,
    };
    for n in 1..=3 {
        on_last_worker(&format!("bystander {n}"), bystander)?;
    }
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "backdoor on {}", server.path().display()).and_then(|()| stdout.flush())?;
    drop(stdout);
    // Let the bystanders have begun before their worker is taken from them.
    coro::sleep(Duration::from_millis(50));
    (options.situation)()?;
    coro::event_loop();
    Ok(())
}

/// Does nothing wrong: wakes up ten times a second.
#[inline(never)]
fn bystander() {
    loop {
        coro::sleep(Duration::from_millis(100));
    }
}

/// Lets the bystanders run until all of them wait, so that what is seen does not hang on when they were due.
fn let_others_wait() {
    coro::sleep(Duration::from_millis(1));
    coro::yield_slice();
}

/// Those that are called the same but for a number are of one class.
fn on_worker(index: usize, name: &str, task: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let class = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' ');
    coro::Builder::new().name(name).class(class).worker(index).spawn(task).map(drop)
}

fn on_last_worker(name: &str, task: impl FnOnce() + Send + 'static) -> io::Result<()> {
    on_worker(coro::worker_stats().len() - 1, name, task)
}

// ---- a worker that is taken ----

fn spin() -> io::Result<()> {
    on_last_worker("spinner", || spin_for_ever(27))
}

/// Computes without ever giving way.
#[inline(never)]
fn spin_for_ever(mut n: u64) {
    let_others_wait();
    loop {
        n = (n << 13) ^ (n >> 7) ^ 1;
    }
}

fn all_workers() -> io::Result<()> {
    for index in 0..coro::worker_stats().len() {
        on_worker(index, &format!("spinner {index}"), || spin_for_ever(27))?;
    }
    Ok(())
}

fn std_sleep() -> io::Result<()> {
    on_last_worker("napper", nap_as_a_thread)
}

/// `coro::sleep` was meant.
#[inline(never)]
fn nap_as_a_thread() {
    let_others_wait();
    std::thread::sleep(Duration::from_secs(86_400));
}

fn blocking_read() -> io::Result<()> {
    let (reader, writer) = io::pipe()?;
    // Kept open by nobody who writes.
    std::mem::forget(writer);
    on_last_worker("pipe reader", move || read_a_pipe_with_std(reader))
}

/// `coro::io::unblock` or a socket of `coro` was meant.
#[inline(never)]
fn read_a_pipe_with_std(mut pipe: io::PipeReader) {
    let_others_wait();
    let _ = pipe.read(&mut [0; 64]);
}

fn std_mutex() -> io::Result<()> {
    let config = Arc::new(std::sync::Mutex::new(0));
    let theirs = config.clone();
    on_last_worker("writer of the config", move || wait_with_a_std_lock(&theirs))?;
    coro::sleep(Duration::from_millis(20));
    on_last_worker("reader of the config", move || want_the_std_lock(&config))
}

/// Waits as a task with a lock that its worker's other tasks can only block on.
#[inline(never)]
fn wait_with_a_std_lock(config: &std::sync::Mutex<u32>) {
    let mut held = config.lock().unwrap_or_else(PoisonError::into_inner);
    coro::sleep(Duration::from_millis(200));
    *held += 1;
}

#[inline(never)]
fn want_the_std_lock(config: &std::sync::Mutex<u32>) {
    let_others_wait();
    black_box(*config.lock().unwrap_or_else(PoisonError::into_inner));
}

// ---- tasks that wait for ever ----

fn deadlock() -> io::Result<()> {
    let account = |name| Arc::new(Mutex::new(100).named(name));
    let accounts = [account("account of ann"), account("account of bob"), account("account of cid")];
    for (n, who) in ["ann pays bob", "bob pays cid", "cid pays ann"].into_iter().enumerate() {
        let (from, to) = (accounts[n].clone(), accounts[(n + 1) % 3].clone());
        let pause = Duration::from_millis(150 * (n as u64 + 1));
        on_worker(n % coro::worker_stats().len(), who, move || transfer(&from, &to, pause))?;
    }
    Ok(())
}

/// Takes the locks in the order in which they were named, which is another one for everybody.
#[inline(never)]
fn transfer(from: &Mutex<i32>, to: &Mutex<i32>, pause: Duration) {
    let mut from = from.lock().unwrap_or_else(PoisonError::into_inner);
    coro::sleep(pause);
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    *from -= 1;
    *to += 1;
}

fn lost_sender() -> io::Result<()> {
    let (jobs, work) = channel_named("jobs");
    on_last_worker("worker of jobs", move || work_off(&work))?;
    on_last_worker("manager", move || manage(&jobs))
}

#[inline(never)]
fn work_off(jobs: &Receiver<u32>) {
    while let Ok(job) = jobs.recv() {
        black_box(job);
    }
}

/// Sends one job and keeps the sender, so that the receiver never learns that there will be no more.
#[inline(never)]
fn manage(jobs: &Sender<u32>) {
    let _ = jobs.send(1);
    loop {
        coro::sleep(Duration::from_secs(3600));
    }
}

// ---- panics ----

fn panic_half_caught() -> io::Result<()> {
    for n in 1..=3 {
        on_last_worker(&format!("request {n}"), move || handle_request(n))?;
    }
    on_last_worker("swallower", swallow)
}

/// The handler in the middle turns the panic into another one, as frameworks do.
#[inline(never)]
fn handle_request(n: u32) {
    if let Err(payload) = catch_unwind(|| parse_request(n)) {
        let text = payload.downcast_ref::<String>().cloned().unwrap_or_default();
        panic!("request failed: {text}");
    }
}

#[inline(never)]
fn parse_request(n: u32) {
    let fields = black_box([1, 2]);
    assert!(fields.len() > 2, "request {n} has {} fields", fields.len());
}

/// Catches everything and goes on: nothing is told of that panic but what the hook prints.
#[inline(never)]
fn swallow() {
    let _ = catch_unwind(|| parse_request(0));
    loop {
        coro::sleep(Duration::from_secs(3600));
    }
}

fn overflow() -> io::Result<()> {
    on_last_worker("recursion", || {
        coro::sleep(Duration::from_millis(200));
        black_box(visit(&[1; 64]));
    })
}

#[inline(never)]
fn visit(node: &[u64]) -> u64 {
    let mut child: [u64; 64] = node.try_into().unwrap_or([0; 64]);
    child[0] += 1;
    // The children of no node end.
    if black_box(child[0]) == 0 { 0 } else { 1 + black_box(visit(&child)) }
}

// ---- too much of something ----

fn hot_lock() -> io::Result<()> {
    let pool = Arc::new(Mutex::new(0).named("db pool"));
    for n in 0..20 {
        let pool = pool.clone();
        on_worker(n % coro::worker_stats().len(), "query", move || query(&pool))?;
    }
    Ok(())
}

/// Holds the lock while it waits for something slow.
#[inline(never)]
fn query(pool: &Mutex<u64>) {
    loop {
        let mut connection = pool.lock().unwrap_or_else(PoisonError::into_inner);
        fetch(&mut connection);
    }
}

#[inline(never)]
fn fetch(connection: &mut u64) {
    *connection += 1;
    coro::sleep(Duration::from_secs(1));
}

fn fd_leak() -> io::Result<()> {
    let open = std::fs::read_dir("/dev/fd")?.count() as u64;
    lower_the_limit(open + 45)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    on_last_worker("acceptor", move || accept_and_forget(&listener))?;
    on_last_worker("crowd", move || connect_and_leave(addr))
}

/// Keeps what it accepts, long after the other side has gone.
#[inline(never)]
fn accept_and_forget(listener: &TcpListener) {
    let mut served = Vec::new();
    while let Ok((connection, _)) = listener.accept() {
        served.push(connection);
    }
}

#[inline(never)]
fn connect_and_leave(addr: std::net::SocketAddr) {
    for _ in 0..40 {
        drop(TcpStream::connect(addr));
    }
}

fn lower_the_limit(descriptors: u64) -> io::Result<()> {
    // SAFETY: a valid limit, which concerns only this process.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = descriptors as libc::rlim_t;
            if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0 {
                return Ok(());
            }
        }
    }
    Err(io::Error::last_os_error())
}

fn task_leak() -> io::Result<()> {
    on_last_worker("front desk", answer_requests)
}

/// Starts a watcher for each request, and forgets it.
#[inline(never)]
fn answer_requests() {
    for n in 0..500 {
        coro::spawn_named(format!("watcher of request {n}"), move || watch_request(n));
    }
    coro::event_loop();
}

/// Waits for a word that nobody will say, since whoever was to say it is itself.
#[inline(never)]
fn watch_request(n: u32) {
    let (speaker, word) = channel_named("end of a request");
    if word.recv().is_ok() {
        let _ = speaker.send(n);
    }
}

// ---- trouble from outside, and from one's own good intentions ----

fn slow_downstream() -> io::Result<()> {
    let downstream = std::net::TcpListener::bind("127.0.0.1:0")?;
    let addr = downstream.local_addr()?;
    // Another program: what it does is not ours to see.
    std::thread::spawn(move || {
        let calls: Vec<_> = downstream.incoming().collect();
        drop(calls);
    });
    for n in 0..20 {
        let request = coro::Builder::new().name(format!("request {n}")).class("request");
        drop(request.spawn(move || ask_downstream(addr))?);
    }
    Ok(())
}

/// Asks without a time limit.
#[inline(never)]
fn ask_downstream(addr: std::net::SocketAddr) -> io::Result<()> {
    let mut connection = TcpStream::connect(addr)?;
    connection.write_all(b"GET /price\n")?;
    connection.read_exact(&mut [0])
}

/// So often before the supervisor gives up.
const RESTARTS: u32 = 100;

fn panic_loop() -> io::Result<()> {
    on_last_worker("supervisor", supervise)
}

#[inline(never)]
fn supervise() {
    for _ in 0..RESTARTS {
        let _ = coro::Builder::new().name("consumer of jobs").spawn(consume_jobs).map(|task| task.join());
        coro::sleep(Duration::from_millis(5));
    }
    coro::event_loop();
}

#[inline(never)]
fn consume_jobs() {
    let job = black_box("{\"version\": 2}");
    assert!(job.contains("\"version\": 1"), "cannot read this job: {job}");
}

/// Lines that nobody writes away.
const LINES: usize = 20_000;

fn memory_growth() -> io::Result<()> {
    let (lines, written) = channel_named("log lines");
    on_last_worker("log writer", move || write_log(&written))?;
    on_last_worker("request handler", move || log_a_lot(&lines))
}

#[inline(never)]
fn log_a_lot(lines: &Sender<String>) {
    for n in 0..LINES {
        let _ = lines.send(format!("{n:01000}"));
    }
    coro::event_loop();
}

/// Takes one line, and waits for the disk for ever.
#[inline(never)]
fn write_log(lines: &Receiver<String>) {
    while let Ok(line) = lines.recv() {
        black_box(line);
        coro::sleep(Duration::from_secs(3600));
    }
}
