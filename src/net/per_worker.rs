//! Serving from every worker: [`WorkerListeners`], one acceptor on each, and [`Serving`], the handle of all that.
//!
//! Invariants: a connection's task is spawned by the acceptor that got the connection, on its own worker, so nothing of a
//! connection ever crosses workers. Each acceptor and each connection is a member of one crowd, from before its task is
//! spawned until that task has ended in whatever way.
//!
//! Must not know: how the listeners came to be.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{TcpListener, TcpStream};
use crate::observe::{Counted, WaitKind, WaitReason};
use crate::scheduler::suspend::{current_unparker, pause_io, user, wait_for};
use crate::scheduler::{self, Builder, JoinHandle};
use crate::sys;
use crate::task::Unparker;

/// So many connections are taken before their tasks get a turn.
const BURST: usize = 64;
/// After an error of `accept` that may pass (no route, no memory in the kernel).
const PAUSE: Duration = Duration::from_millis(20);

/// Listeners of one service, to be served by all workers.
///
/// Made by [`TcpListenerBuilder::bind_per_worker`](super::TcpListenerBuilder::bind_per_worker), which makes a socket for
/// each worker, by [`shared`](WorkerListeners::shared) from one that all workers share, or from any listeners, such as
/// those that a predecessor [handed over](super::handover). `docs/listening.md` says which of them is better when.
///
/// # Examples
/// ```
/// use coro::net::{TcpListenerBuilder, TcpStream};
/// use std::io::{Read, Write};
///
/// coro::run(|| {
///     let listeners = TcpListenerBuilder::new().nodelay(true).bind_per_worker("127.0.0.1:0")?;
///     let at = listeners.local_addr()?;
///     let serving = listeners.serve("upper", |mut stream, _peer| {
///         let mut text = String::new();
///         if stream.read_to_string(&mut text).is_ok() {
///             let _ = stream.write_all(text.to_uppercase().as_bytes());
///         }
///     })?;
///
///     let mut client = TcpStream::connect(at)?;
///     client.write_all(b"hello")?;
///     client.shutdown(coro::net::Shutdown::Write)?;
///     let mut answer = String::new();
///     client.read_to_string(&mut answer)?;
///     assert_eq!(answer, "HELLO");
///
///     serving.stop();
///     serving.wait()
/// })
/// # .unwrap();
/// ```
#[derive(Debug)]
pub struct WorkerListeners(Vec<TcpListener>);

impl From<Vec<TcpListener>> for WorkerListeners {
    fn from(listeners: Vec<TcpListener>) -> WorkerListeners {
        WorkerListeners(listeners)
    }
}

impl From<WorkerListeners> for Vec<TcpListener> {
    fn from(listeners: WorkerListeners) -> Vec<TcpListener> {
        listeners.0
    }
}

impl WorkerListeners {
    /// Handles of one listener, one for each worker of the caller's runtime: a connection goes to whichever worker is
    /// there first.
    ///
    /// # Errors
    /// If there are not enough descriptors left.
    pub fn shared(listener: TcpListener) -> io::Result<WorkerListeners> {
        let mut all = Vec::new();
        for _ in 1..scheduler::worker_stats().len() {
            all.push(listener.try_clone()?);
        }
        all.push(listener);
        Ok(WorkerListeners(all))
    }

    /// The listeners, for handing them over.
    pub fn listeners(&self) -> &[TcpListener] {
        &self.0
    }

    /// The address that the first one listens on.
    ///
    /// # Errors
    /// `NotFound` if there is no listener; otherwise of the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.first().ok_or(io::ErrorKind::NotFound)?.local_addr()
    }

    /// Starts an acceptor for each listener, on the worker of its number (modulo their number), and for each connection a
    /// task on that worker which calls `handler`. Returns at once.
    ///
    /// `name` stands in every view: the acceptors are called `accept NAME 0` and so on, the tasks of connections
    /// `NAME 10.0.0.7:40112`; the class of these is `NAME`.
    ///
    /// A handler that panics ends its connection only. If the runtime has no room for another task, a line on stderr says
    /// so and the connection is closed. Errors of `accept` that may pass are tried again.
    ///
    /// # Errors
    /// If an acceptor cannot be spawned; those before it are stopped.
    #[track_caller]
    pub fn serve<F>(self, name: impl Into<String>, handler: F) -> io::Result<Serving>
    where
        F: Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
    {
        let name = name.into();
        let workers = scheduler::worker_stats().len().max(1);
        let site = Location::caller();
        let crowd = Arc::new(Crowd::new(site));
        let handler = Arc::new(handler);
        let mut serving = Serving { crowd, acceptors: Vec::new(), listeners: Vec::new() };
        for (index, listener) in self.0.into_iter().enumerate() {
            let listener = Arc::new(listener);
            let (accepted, started) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
            let builder = Builder::new().name(format!("accept {name} {index}")).worker(index % workers);
            let member = serving.crowd.enter();
            let (name, handler) = (name.clone(), handler.clone());
            let (counted, begun) = (accepted.clone(), started.clone());
            let service = Service { name, site, handler, accepted: counted, started: begun, member };
            serving.listeners.push(listener.clone());
            let task = builder.spawn(move || service.accept(&listener)).inspect_err(|_| serving.stop())?;
            serving.acceptors.push(Acceptor { task, accepted, started });
        }
        Ok(serving)
    }
}

/// What one acceptor has.
struct Service<F> {
    name: String,
    /// Where `serve` was called.
    site: &'static Location<'static>,
    handler: Arc<F>,
    accepted: Arc<AtomicU64>,
    started: Arc<AtomicBool>,
    member: Member,
}

impl<F: Fn(TcpStream, SocketAddr) + Send + Sync + 'static> Service<F> {
    fn accept(&self, listener: &TcpListener) {
        let crowd = &self.member.0;
        self.started.store(true, Ordering::SeqCst);
        // Whoever stops it now has seen that it is started, or is seen here.
        if crowd.stopping.load(Ordering::SeqCst) {
            return self.take_the_rest(listener);
        }
        loop {
            let error = match listener.accept_many_at(BURST, self.site) {
                Ok(all) => {
                    all.into_iter().for_each(|(stream, peer)| self.start(stream, peer));
                    continue;
                }
                Err(_) if crowd.stopping.load(Ordering::Acquire) => return self.take_the_rest(listener),
                Err(_) if scheduler::is_cancelled() => return,
                Err(e) => e,
            };
            // Closed by the program, or no listener at all: nothing will ever come.
            let hopeless = error.kind() == io::ErrorKind::NotConnected
                || matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK | libc::EOPNOTSUPP));
            if hopeless {
                if !crowd.stopping.load(Ordering::Acquire) {
                    crowd.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
                return;
            }
            // Interrupted there, the task will not be told again.
            if pause_io(PAUSE, listener.waits_to_accept()).is_err() {
                if crowd.stopping.load(Ordering::Acquire) {
                    self.take_the_rest(listener);
                }
                return;
            }
        }
    }

    /// What the kernel had established for this listener before it was stopped: bounded, for clients may go on connecting.
    fn take_the_rest(&self, listener: &TcpListener) {
        for _ in 0..listener.longest_backlog() {
            match listener.accept_now(self.site) {
                Ok((stream, peer)) => self.start(stream, peer),
                Err(_) => return,
            }
        }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let (handler, member) = (self.handler.clone(), self.member.0.enter());
        let builder = Builder::new().name(format!("{} {peer}", self.name)).class(self.name.as_str());
        let spawned = builder.spawn_local(move || {
            let _member = member;
            handler(stream, peer);
        });
        if let Err(e) = spawned {
            let id = scheduler::current().map_or(0, |t| t.id());
            sys::stderr::print(id, &format!("{}: no task for {peer}, whose connection is closed: {e}", self.name));
        }
    }
}

/// Acceptors and connections of one service, and who waits for their end.
struct Crowd {
    /// For the views.
    shown: Counted,
    members: AtomicUsize,
    stopping: AtomicBool,
    failed: Mutex<Option<io::Error>>,
    waiting: Mutex<Vec<(u64, Unparker)>>,
}

impl Crowd {
    fn new(site: &'static Location<'static>) -> Crowd {
        let mut shown = Counted::new(0, 0);
        shown.object = crate::observe::Object::at(site);
        shown.object.set_name("serving");
        Crowd {
            shown,
            members: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            failed: Mutex::new(None),
            waiting: Mutex::new(Vec::new()),
        }
    }

    fn enter(self: &Arc<Crowd>) -> Member {
        let before = self.members.fetch_add(1, Ordering::Relaxed);
        self.shown.set(before + 1);
        Member(self.clone())
    }

    fn is_empty(&self) -> bool {
        self.members.load(Ordering::Acquire) == 0
    }
}

/// One member, for as long as it lives.
struct Member(Arc<Crowd>);

impl Drop for Member {
    fn drop(&mut self) {
        let left = self.0.members.fetch_sub(1, Ordering::AcqRel) - 1;
        self.0.shown.set(left);
        self.0.shown.object.used(user());
        if left == 0 {
            // Whoever is not there yet looks at the number after it has come.
            let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.iter().for_each(|(_, who)| scheduler::unpark(who));
        }
    }
}

/// Takes a waiter out when its wait ends for any reason.
struct Waits<'a>(&'a Crowd, u64);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != self.1);
    }
}

struct Acceptor {
    task: JoinHandle<()>,
    accepted: Arc<AtomicU64>,
    started: Arc<AtomicBool>,
}

/// What [`WorkerListeners::serve`] started. If it is dropped, that goes on.
#[must_use = "without it nobody can stop the acceptors or wait for them; let _serving = … keeps it"]
pub struct Serving {
    crowd: Arc<Crowd>,
    acceptors: Vec<Acceptor>,
    listeners: Vec<Arc<TcpListener>>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("acceptors", &self.acceptors.len())
            .field("members", &self.crowd.members.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl Serving {
    /// How many connections each acceptor has got so far.
    pub fn accepted(&self) -> Vec<u64> {
        self.acceptors.iter().map(|a| a.accepted.load(Ordering::Relaxed)).collect()
    }

    /// How many tasks serve a connection now. Acceptors count until they have stopped.
    pub fn members(&self) -> usize {
        self.crowd.members.load(Ordering::Relaxed)
    }

    /// The listeners, for handing them over. They stay open until this value and the acceptors are gone.
    pub fn listeners(&self) -> impl Iterator<Item = &TcpListener> {
        self.listeners.iter().map(|l| &**l)
    }

    /// Accepts no more; connections that are there are served to their end. Does not wait.
    ///
    /// What the kernel had established already is still taken, a backlog's worth from each listener. Then a client may
    /// connect until the listeners are dropped with this value, to be reset at that moment; to lose none,
    /// [hand the listeners over](super::handover) first.
    pub fn stop(&self) {
        self.crowd.stopping.store(true, Ordering::SeqCst);
        // One that has not started would never start, and never look at its queue.
        for acceptor in self.acceptors.iter().filter(|a| a.started.load(Ordering::SeqCst)) {
            let _ = acceptor.task.cancel();
        }
    }

    /// Waits until all acceptors have ended, which they do after [`stop`](Serving::stop) only, and all connections.
    /// In the views this is a wait for the wait group `serving`, with the number of those that are left.
    ///
    /// # Errors
    /// Of the first acceptor that could not go on, if there was one.
    ///
    /// # Cancellation
    /// Unwinds; the connections go on.
    pub fn wait(&self) -> io::Result<()> {
        self.wait_until(None).map(drop)
    }

    /// As [`wait`](Serving::wait), for at most `limit`; whether they have ended in time.
    ///
    /// # Errors
    /// As [`wait`](Serving::wait).
    ///
    /// # Cancellation
    /// As [`wait`](Serving::wait).
    pub fn wait_timeout(&self, limit: Duration) -> io::Result<bool> {
        self.wait_until(Instant::now().checked_add(limit))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> io::Result<bool> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let crowd = &*self.crowd;
        crowd.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((id, current_unparker()));
        let waits = Waits(crowd, id);
        let ended = wait_for(WaitReason::counted(WaitKind::WaitGroup, &crowd.shown), deadline, || crowd.is_empty());
        drop(waits);
        if !ended {
            return Ok(false);
        }
        crowd.failed.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(true), Err)
    }
}
