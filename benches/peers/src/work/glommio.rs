//! glommio: an executor on one thread, io_uring below it. `glommio-2`, for servers, is two of them at one port.

use std::future::Future;
use std::io;
use std::ops::DerefMut;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::channels::local_channel::{self, LocalReceiver, LocalSender};
use glommio::net::{TcpListener, TcpStream};
use glommio::sync::RwLock;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, Task};
use smol::channel;

use super::local::futures::{Lock, Peer, Receiver, Sender, in_task};
use super::{Refused, cross, on_threads, ready};
use crate::args::Args;
use crate::http::answer;

struct Glommio;

impl Peer for Glommio {
    type Handle<T: 'static> = Task<T>;
    type Bounded = Rc<LocalSender<u64>>;
    type BoundedReceiver = LocalReceiver<u64>;
    type Unbounded = Rc<LocalSender<u64>>;
    type UnboundedReceiver = LocalReceiver<u64>;
    type Lock = RwLock<u64>;

    fn spawn<T: 'static>(task: impl Future<Output = T> + 'static) -> Task<T> {
        glommio::spawn_local(task)
    }

    fn join<T: 'static>(handle: Task<T>) -> impl Future<Output = T> {
        handle
    }

    fn detach(handle: Task<()>) {
        handle.detach();
    }

    async fn yield_now() {
        glommio::executor().yield_now().await;
    }

    async fn sleep(time: Duration) {
        glommio::timer::sleep(time).await;
    }

    fn bounded(capacity: usize) -> (Self::Bounded, Self::BoundedReceiver) {
        let (to, from) = local_channel::new_bounded(capacity);
        (Rc::new(to), from)
    }

    fn unbounded() -> (Self::Unbounded, Self::UnboundedReceiver) {
        let (to, from) = local_channel::new_unbounded();
        (Rc::new(to), from)
    }
}

impl Sender for Rc<LocalSender<u64>> {
    async fn put(&self, value: u64) {
        self.send(value).await.expect("the receiver is alive");
    }
}

impl Receiver for LocalReceiver<u64> {
    async fn next(&mut self) -> u64 {
        self.recv().await.expect("a sender is alive")
    }
}

/// It has no mutex: this is its lock for one.
impl Lock for RwLock<u64> {
    fn new(value: u64) -> RwLock<u64> {
        RwLock::new(value)
    }

    async fn lock(&self) -> impl DerefMut<Target = u64> {
        self.write().await.expect("nobody closes it")
    }
}

fn executor() -> Result<LocalExecutor, Refused> {
    // Without io_uring, or with less locked memory than its rings take.
    LocalExecutorBuilder::new(Placement::Unbound)
        .make()
        .map_err(|error| Refused::Unsupported(format!("not here: {}", error.to_string().replace('\n', " "))))
}

/// Everything runs in a spawned task, as with the other runtimes.
pub(super) fn run(args: Args) -> Result<(), Refused> {
    let port = args.number("port", 7000);
    match args.workload.as_str() {
        "pingpong" if cross::asked_for(&args) => cross::ping_pong(
            &args,
            || channel::bounded(1),
            |side| {
                executor()?.run(async { glommio::spawn_local(side).await });
                Ok(())
            },
        ),
        "echo-server" => on_threads(args.workers, move |i| Ok(executor()?.run(serve(i, port, echo))?)),
        "http-server" => on_threads(args.workers, move |i| Ok(executor()?.run(serve(i, port, http))?)),
        _ if args.workers > 1 => Err(Refused::Unsupported("one thread".to_owned())),
        _ => executor()?.run(async { glommio::spawn_local(in_task::<Glommio>(args)).await }),
    }
}

async fn serve<F>(thread: usize, port: u16, connection: fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + 'static,
{
    // Others may listen there as well: it always asks for that.
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    if thread == 0 {
        ready()?;
    }
    loop {
        let stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A connection that breaks ends its task and nothing else.
        glommio::spawn_local(connection(stream)).detach();
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
