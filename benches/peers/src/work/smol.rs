//! smol: one [`Executor`], run by the main thread and, in `smol-2`, by a second one.
//!
//! This is what `smol::spawn` does with its global executor, less the thread that there only waits for the main task.

use std::future::{Future, pending};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::ops::DerefMut;
use std::time::Duration;

use smol::channel;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::lock::Mutex;
use smol::{Async, Executor, LocalExecutor, Task, Timer};

use super::local::futures::spawn_staying;
use super::shared::futures::{Lock, Peer, Receiver, Sender, in_task};
use super::{Refused, cross, ready};
use crate::args::Args;
use crate::http::answer;

static EXECUTOR: Executor<'static> = Executor::new();

struct Smol;

impl Peer for Smol {
    type Handle<T: Send + 'static> = Task<T>;
    type Bounded = channel::Sender<u64>;
    type BoundedReceiver = channel::Receiver<u64>;
    type Unbounded = channel::Sender<u64>;
    type UnboundedReceiver = channel::Receiver<u64>;
    type Lock = Mutex<u64>;

    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Task<T> {
        EXECUTOR.spawn(task)
    }

    fn join<T: Send + 'static>(handle: Task<T>) -> impl Future<Output = T> + Send {
        handle
    }

    fn detach(handle: Task<()>) {
        handle.detach();
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        smol::future::yield_now()
    }

    async fn sleep(time: Duration) {
        Timer::after(time).await;
    }

    fn bounded(capacity: usize) -> (Self::Bounded, Self::BoundedReceiver) {
        channel::bounded(capacity)
    }

    fn unbounded() -> (Self::Unbounded, Self::UnboundedReceiver) {
        channel::unbounded()
    }
}

impl Sender for channel::Sender<u64> {
    async fn put(&self, value: u64) {
        self.send(value).await.expect("the receiver is alive");
    }
}

impl Receiver for channel::Receiver<u64> {
    async fn next(&mut self) -> u64 {
        self.recv().await.expect("a sender is alive")
    }
}

impl Lock for Mutex<u64> {
    fn new(value: u64) -> Mutex<u64> {
        Mutex::new(value)
    }

    fn lock(&self) -> impl Future<Output = impl DerefMut<Target = u64> + Send> + Send {
        Mutex::lock(self)
    }
}

/// Tasks that stay on their thread have an executor of another kind.
fn run_staying(args: Args) {
    let executor: &LocalExecutor<'_> = Box::leak(Box::default());
    let all = async move { spawn_staying(&args, |i| executor.spawn(async move { i })).await };
    smol::block_on(executor.run(executor.spawn(all)));
}

/// Everything runs in a spawned task, as with the other runtimes.
pub(super) fn run(args: Args) -> Result<(), Refused> {
    if cross::asked_for(&args) {
        return cross::ping_pong(
            &args,
            || channel::bounded(1),
            |side| {
                let executor = LocalExecutor::new();
                smol::block_on(executor.run(executor.spawn(side)));
                Ok(())
            },
        );
    }
    if args.workload == "spawn" && args.text("mode", "burst") == "local" {
        run_staying(args);
        return Ok(());
    }
    for _ in 1..args.workers {
        std::thread::spawn(|| smol::block_on(EXECUTOR.run(pending::<()>())));
    }
    let port = args.number("port", 7000);
    let done = match args.workload.as_str() {
        "echo-server" => EXECUTOR.spawn(async move { Ok(serve(port, echo).await?) }),
        "http-server" => EXECUTOR.spawn(async move { Ok(serve(port, http).await?) }),
        _ => EXECUTOR.spawn(in_task::<Smol>(args)),
    };
    smol::block_on(EXECUTOR.run(done))
}

async fn serve<F>(port: u16, connection: fn(Async<TcpStream>) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], port))?;
    ready()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.get_ref().set_nodelay(true)?;
        // A connection that breaks ends its task and nothing else.
        EXECUTOR.spawn(connection(stream)).detach();
    }
}

async fn echo(mut stream: Async<TcpStream>) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}

async fn http(mut stream: Async<TcpStream>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    let mut answers = Vec::with_capacity(1024);
    loop {
        match stream.read(&mut buffer[filled..]).await? {
            0 => return Ok(()),
            n => filled += n,
        }
        let used = answer(&buffer[..filled], &mut answers)?;
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if !answers.is_empty() {
            stream.write_all(&answers).await?;
            answers.clear();
        }
    }
}
