//! monoio: a runtime on one thread, io_uring below it where there is one, else epoll. `monoio-2`, for servers, is two of them at one
//! port. It has no channels and no locks; local-sync, by some of its authors, has.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::ops::DerefMut;
use std::time::Duration;

use local_sync::mpsc::{bounded, unbounded};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio::task::JoinHandle;
use monoio::utils::detect_uring;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use smol::channel;

use super::local::futures::{Lock, Peer, Receiver, Sender, in_task};
use super::{Refused, cross, on_threads, ready};
use crate::args::Args;
use crate::http::answer;

struct Monoio;

impl Peer for Monoio {
    type Handle<T: 'static> = JoinHandle<T>;
    type Bounded = bounded::Tx<u64>;
    type BoundedReceiver = bounded::Rx<u64>;
    type Unbounded = unbounded::Tx<u64>;
    type UnboundedReceiver = unbounded::Rx<u64>;
    type Lock = Infallible;

    fn spawn<T: 'static>(task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        monoio::spawn(task)
    }

    fn join<T: 'static>(handle: JoinHandle<T>) -> impl Future<Output = T> {
        handle
    }

    fn detach(handle: JoinHandle<()>) {
        drop(handle);
    }

    /// `run` refuses what would need it.
    async fn yield_now() {
        unreachable!("monoio has no yield")
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> {
        monoio::time::sleep(time)
    }

    fn bounded(capacity: usize) -> (Self::Bounded, Self::BoundedReceiver) {
        bounded::channel(capacity)
    }

    fn unbounded() -> (Self::Unbounded, Self::UnboundedReceiver) {
        unbounded::channel()
    }
}

impl Sender for bounded::Tx<u64> {
    async fn put(&self, value: u64) {
        self.send(value).await.expect("the receiver is alive");
    }
}

impl Sender for unbounded::Tx<u64> {
    async fn put(&self, value: u64) {
        self.send(value).expect("the receiver is alive");
    }
}

impl Receiver for bounded::Rx<u64> {
    async fn next(&mut self) -> u64 {
        self.recv().await.expect("a sender is alive")
    }
}

impl Receiver for unbounded::Rx<u64> {
    async fn next(&mut self) -> u64 {
        self.recv().await.expect("a sender is alive")
    }
}

/// Never: see `run`.
impl Lock for Infallible {
    fn new(_: u64) -> Infallible {
        unreachable!("monoio has no lock")
    }

    fn lock(&self) -> impl Future<Output = impl DerefMut<Target = u64>> {
        pending::<Box<u64>>()
    }
}

/// What it waits with here.
pub(crate) fn driver() -> &'static str {
    if detect_uring() { "io_uring" } else { "epoll" }
}

fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    if detect_uring() {
        Ok(RuntimeBuilder::<IoUringDriver>::new().enable_timer().build()?.block_on(future))
    } else {
        Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(future))
    }
}

/// Everything runs in a spawned task, as with the other runtimes.
pub(super) fn run(args: Args) -> Result<(), Refused> {
    let port = args.number("port", 7000);
    match args.workload.as_str() {
        "pingpong" if cross::asked_for(&args) => {
            cross::ping_pong(&args, || channel::bounded(1), |side| Ok(block_on(async { monoio::spawn(side).await })?))
        }
        "echo-server" => on_threads(args.workers, move |i| Ok(block_on(serve(i, port, echo))??)),
        "http-server" => on_threads(args.workers, move |i| Ok(block_on(serve(i, port, http))??)),
        _ if args.workers > 1 => Err(Refused::Unsupported("one thread".to_owned())),
        "yield" | "yieldcheck" => Err(Refused::Unsupported("no yield".to_owned())),
        "mutex" => Err(Refused::Unsupported("no yield while it is held".to_owned())),
        _ => block_on(async { monoio::spawn(in_task::<Monoio>(args)).await })?,
    }
}

async fn serve<F>(thread: usize, port: u16, connection: fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    let options = ListenerOpts::new().reuse_port(true).backlog(4096);
    let listener = TcpListener::bind_with_config(("127.0.0.1", port), &options)?;
    if thread == 0 {
        ready()?;
    }
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A connection that breaks ends its task and nothing else.
        monoio::spawn(connection(stream));
    }
}

/// The kernel holds a buffer while it reads into it or writes from it, and gives it back afterwards.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let (n, bytes) = stream.read(buffer).await;
        if n? == 0 {
            return Ok(());
        }
        let (written, bytes) = stream.write_all(bytes).await;
        written?;
        buffer = bytes;
        buffer.clear();
    }
}

async fn http(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    let mut answers = Vec::with_capacity(1024);
    // The beginning of a request whose end has not come.
    let mut rest = Vec::new();
    loop {
        let (n, bytes) = stream.read(buffer).await;
        if n? == 0 {
            return Ok(());
        }
        buffer = bytes;
        if rest.is_empty() {
            let used = answer(&buffer, &mut answers)?;
            rest.extend_from_slice(&buffer[used..]);
        } else {
            rest.extend_from_slice(&buffer);
            let used = answer(&rest, &mut answers)?;
            rest.drain(..used);
        }
        buffer.clear();
        if !answers.is_empty() {
            let (written, bytes) = stream.write_all(answers).await;
            written?;
            answers = bytes;
            answers.clear();
        }
    }
}
