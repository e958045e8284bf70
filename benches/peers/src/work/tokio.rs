//! tokio: `tokio-1` is the current-thread runtime, `tokio-2` the multi-thread one with two workers. Tasks that stay on their thread
//! are those of a `LocalSet`.

use std::future::{Future, ready};
use std::io;
use std::ops::DerefMut;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::local::futures::spawn_staying;
use super::shared::futures::{Lock, Peer, Receiver, Sender, in_task};
use super::{Refused, cross, ready as server_ready};
use crate::args::Args;
use crate::http::answer;

struct Tokio;

impl Peer for Tokio {
    type Handle<T: Send + 'static> = JoinHandle<T>;
    type Bounded = mpsc::Sender<u64>;
    type BoundedReceiver = mpsc::Receiver<u64>;
    type Unbounded = mpsc::UnboundedSender<u64>;
    type UnboundedReceiver = mpsc::UnboundedReceiver<u64>;
    type Lock = Mutex<u64>;

    fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        tokio::spawn(task)
    }

    async fn join<T: Send + 'static>(handle: JoinHandle<T>) -> T {
        handle.await.expect("no task panics")
    }

    fn detach(handle: JoinHandle<()>) {
        drop(handle);
    }

    fn yield_now() -> impl Future<Output = ()> + Send {
        tokio::task::yield_now()
    }

    fn sleep(time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }

    fn bounded(capacity: usize) -> (Self::Bounded, Self::BoundedReceiver) {
        mpsc::channel(capacity)
    }

    fn unbounded() -> (Self::Unbounded, Self::UnboundedReceiver) {
        mpsc::unbounded_channel()
    }
}

impl Sender for mpsc::Sender<u64> {
    async fn put(&self, value: u64) {
        self.send(value).await.expect("the receiver is alive");
    }
}

impl Sender for mpsc::UnboundedSender<u64> {
    fn put(&self, value: u64) -> impl Future<Output = ()> + Send {
        self.send(value).expect("the receiver is alive");
        ready(())
    }
}

impl Receiver for mpsc::Receiver<u64> {
    async fn next(&mut self) -> u64 {
        self.recv().await.expect("a sender is alive")
    }
}

impl Receiver for mpsc::UnboundedReceiver<u64> {
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

pub(super) fn runtime(args: &Args) -> io::Result<Runtime> {
    let mut builder = match args.workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(args.workers).enable_all().build()
}

/// Everything runs in a spawned task: the future of `block_on` itself is not scheduled as tasks are.
pub(super) fn run(args: Args) -> Result<(), Refused> {
    if cross::asked_for(&args) {
        return cross::ping_pong(
            &args,
            || mpsc::channel(1),
            |side| {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                Ok(runtime.block_on(async { tokio::spawn(side).await }).map_err(io::Error::other)?)
            },
        );
    }
    let runtime = runtime(&args)?;
    if args.workload == "spawn" && args.text("mode", "burst") == "local" {
        let spawn = |i| {
            let task = spawn_local(async move { i });
            async { task.await.expect("no task panics") }
        };
        let all = async { spawn_local(async move { spawn_staying(&args, spawn).await }).await };
        return Ok(LocalSet::new().block_on(&runtime, all).map_err(io::Error::other)?);
    }
    let port = args.number("port", 7000);
    runtime.block_on(async move {
        let done = match args.workload.as_str() {
            "echo-server" => tokio::spawn(async move { Ok(serve(port, echo).await?) }),
            "http-server" => tokio::spawn(async move { Ok(serve(port, http).await?) }),
            _ => tokio::spawn(in_task::<Tokio>(args)),
        };
        done.await.map_err(io::Error::other)?
    })
}

pub(super) async fn serve<F>(port: u16, connection: fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    server_ready()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A connection that breaks ends its task and nothing else.
        tokio::spawn(connection(stream));
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}

async fn http(mut stream: TcpStream) -> io::Result<()> {
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
