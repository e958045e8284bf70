//! The mirrored surface: every stable item of std's `net`, `os::unix::net`, `sync`, `thread` and `time` is named here
//! with its signature once, and the list is compiled twice, with `std` and with `coro` in front.
//!
//! What is missing, or has another signature, does not compile. What std has deprecated is left out where it is a mere
//! alias.

#![allow(clippy::type_complexity, reason = "signatures are what this file is about")]

use std::io;
use std::time::Duration;

/// Names a function as what it must be.
macro_rules! is {
    ($f:expr, $t:ty) => {
        let _: $t = $f;
    };
}

type Unit = io::Result<()>;
type Size = io::Result<usize>;
type Timeout = io::Result<Option<Duration>>;

macro_rules! net {
    ($s:ident) => {
        #[allow(deprecated)]
        pub(crate) fn net() {
            use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

            use $s::net::{AddrParseError, IpAddr as Ip};
            use $s::net::{Incoming, Shutdown, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

            fn same<T>(_: Option<T>, _: Option<T>) {}
            same(None::<IpAddr>, None::<Ip>);
            same(None::<std::net::AddrParseError>, None::<AddrParseError>);
            same(None::<Ipv4Addr>, None::<$s::net::Ipv4Addr>);
            same(None::<Ipv6Addr>, None::<$s::net::Ipv6Addr>);
            same(None::<SocketAddr>, None::<$s::net::SocketAddr>);
            same(None::<SocketAddrV4>, None::<$s::net::SocketAddrV4>);
            same(None::<SocketAddrV6>, None::<$s::net::SocketAddrV6>);
            same(None::<std::net::Shutdown>, None::<Shutdown>);

            fn resolves<A: ToSocketAddrs + ?Sized>() {
                is!(A::to_socket_addrs, fn(&A) -> io::Result<A::Iter>);
                fn addresses<I: Iterator<Item = SocketAddr>>() {}
                addresses::<A::Iter>();
            }
            resolves::<SocketAddr>();
            resolves::<SocketAddrV4>();
            resolves::<SocketAddrV6>();
            resolves::<(IpAddr, u16)>();
            resolves::<(Ipv4Addr, u16)>();
            resolves::<(Ipv6Addr, u16)>();
            resolves::<(&str, u16)>();
            resolves::<(String, u16)>();
            resolves::<str>();
            resolves::<String>();
            resolves::<&[SocketAddr]>();
            resolves::<&&str>();

            is!(TcpStream::connect::<&str>, fn(&'static str) -> io::Result<TcpStream>);
            is!(TcpStream::connect_timeout, fn(&SocketAddr, Duration) -> io::Result<TcpStream>);
            is!(TcpStream::peer_addr, fn(&TcpStream) -> io::Result<SocketAddr>);
            is!(TcpStream::local_addr, fn(&TcpStream) -> io::Result<SocketAddr>);
            is!(TcpStream::shutdown, fn(&TcpStream, Shutdown) -> Unit);
            is!(TcpStream::try_clone, fn(&TcpStream) -> io::Result<TcpStream>);
            is!(TcpStream::set_read_timeout, fn(&TcpStream, Option<Duration>) -> Unit);
            is!(TcpStream::set_write_timeout, fn(&TcpStream, Option<Duration>) -> Unit);
            is!(TcpStream::read_timeout, fn(&TcpStream) -> Timeout);
            is!(TcpStream::write_timeout, fn(&TcpStream) -> Timeout);
            is!(TcpStream::peek, fn(&TcpStream, &mut [u8]) -> Size);
            is!(TcpStream::set_nodelay, fn(&TcpStream, bool) -> Unit);
            is!(TcpStream::nodelay, fn(&TcpStream) -> io::Result<bool>);
            is!(TcpStream::set_ttl, fn(&TcpStream, u32) -> Unit);
            is!(TcpStream::ttl, fn(&TcpStream) -> io::Result<u32>);
            is!(TcpStream::take_error, fn(&TcpStream) -> io::Result<Option<io::Error>>);
            is!(TcpStream::set_nonblocking, fn(&TcpStream, bool) -> Unit);
            stream::<TcpStream>();

            is!(TcpListener::bind::<&str>, fn(&'static str) -> io::Result<TcpListener>);
            is!(TcpListener::local_addr, fn(&TcpListener) -> io::Result<SocketAddr>);
            is!(TcpListener::try_clone, fn(&TcpListener) -> io::Result<TcpListener>);
            is!(TcpListener::accept, fn(&TcpListener) -> io::Result<(TcpStream, SocketAddr)>);
            is!(TcpListener::incoming, for<'a> fn(&'a TcpListener) -> Incoming<'a>);
            is!(TcpListener::set_ttl, fn(&TcpListener, u32) -> Unit);
            is!(TcpListener::ttl, fn(&TcpListener) -> io::Result<u32>);
            is!(TcpListener::take_error, fn(&TcpListener) -> io::Result<Option<io::Error>>);
            is!(TcpListener::set_nonblocking, fn(&TcpListener, bool) -> Unit);
            is!(TcpListener::only_v6, fn(&TcpListener) -> io::Result<bool>);
            is!(TcpListener::set_only_v6, fn(&TcpListener, bool) -> Unit);
            descriptor::<TcpListener>();
            iterates::<Incoming<'static>, io::Result<TcpStream>>();

            is!(UdpSocket::bind::<&str>, fn(&'static str) -> io::Result<UdpSocket>);
            is!(UdpSocket::recv_from, fn(&UdpSocket, &mut [u8]) -> io::Result<(usize, SocketAddr)>);
            is!(UdpSocket::peek_from, fn(&UdpSocket, &mut [u8]) -> io::Result<(usize, SocketAddr)>);
            is!(UdpSocket::send_to::<&str>, fn(&UdpSocket, &[u8], &'static str) -> Size);
            is!(UdpSocket::peer_addr, fn(&UdpSocket) -> io::Result<SocketAddr>);
            is!(UdpSocket::local_addr, fn(&UdpSocket) -> io::Result<SocketAddr>);
            is!(UdpSocket::try_clone, fn(&UdpSocket) -> io::Result<UdpSocket>);
            is!(UdpSocket::set_read_timeout, fn(&UdpSocket, Option<Duration>) -> Unit);
            is!(UdpSocket::set_write_timeout, fn(&UdpSocket, Option<Duration>) -> Unit);
            is!(UdpSocket::read_timeout, fn(&UdpSocket) -> Timeout);
            is!(UdpSocket::write_timeout, fn(&UdpSocket) -> Timeout);
            is!(UdpSocket::set_broadcast, fn(&UdpSocket, bool) -> Unit);
            is!(UdpSocket::broadcast, fn(&UdpSocket) -> io::Result<bool>);
            is!(UdpSocket::set_multicast_loop_v4, fn(&UdpSocket, bool) -> Unit);
            is!(UdpSocket::multicast_loop_v4, fn(&UdpSocket) -> io::Result<bool>);
            is!(UdpSocket::set_multicast_ttl_v4, fn(&UdpSocket, u32) -> Unit);
            is!(UdpSocket::multicast_ttl_v4, fn(&UdpSocket) -> io::Result<u32>);
            is!(UdpSocket::set_multicast_loop_v6, fn(&UdpSocket, bool) -> Unit);
            is!(UdpSocket::multicast_loop_v6, fn(&UdpSocket) -> io::Result<bool>);
            is!(UdpSocket::set_ttl, fn(&UdpSocket, u32) -> Unit);
            is!(UdpSocket::ttl, fn(&UdpSocket) -> io::Result<u32>);
            is!(UdpSocket::join_multicast_v4, fn(&UdpSocket, &Ipv4Addr, &Ipv4Addr) -> Unit);
            is!(UdpSocket::join_multicast_v6, fn(&UdpSocket, &Ipv6Addr, u32) -> Unit);
            is!(UdpSocket::leave_multicast_v4, fn(&UdpSocket, &Ipv4Addr, &Ipv4Addr) -> Unit);
            is!(UdpSocket::leave_multicast_v6, fn(&UdpSocket, &Ipv6Addr, u32) -> Unit);
            is!(UdpSocket::take_error, fn(&UdpSocket) -> io::Result<Option<io::Error>>);
            is!(UdpSocket::connect::<&str>, fn(&UdpSocket, &'static str) -> Unit);
            is!(UdpSocket::send, fn(&UdpSocket, &[u8]) -> Size);
            is!(UdpSocket::recv, fn(&UdpSocket, &mut [u8]) -> Size);
            is!(UdpSocket::peek, fn(&UdpSocket, &mut [u8]) -> Size);
            is!(UdpSocket::set_nonblocking, fn(&UdpSocket, bool) -> Unit);
            descriptor::<UdpSocket>();
        }
    };
}

macro_rules! unix {
    ($s:ident) => {
        pub(crate) fn unix() {
            use $s::net::Shutdown;
            use $s::os::unix::net::{Incoming, SocketAddr, UnixDatagram, UnixListener, UnixStream};

            fn same<T>(_: Option<T>, _: Option<T>) {}
            same(None::<std::os::unix::net::SocketAddr>, None::<SocketAddr>);

            is!(UnixStream::connect::<&str>, fn(&'static str) -> io::Result<UnixStream>);
            is!(UnixStream::connect_addr, fn(&SocketAddr) -> io::Result<UnixStream>);
            is!(UnixStream::pair, fn() -> io::Result<(UnixStream, UnixStream)>);
            is!(UnixStream::try_clone, fn(&UnixStream) -> io::Result<UnixStream>);
            is!(UnixStream::local_addr, fn(&UnixStream) -> io::Result<SocketAddr>);
            is!(UnixStream::peer_addr, fn(&UnixStream) -> io::Result<SocketAddr>);
            is!(UnixStream::set_read_timeout, fn(&UnixStream, Option<Duration>) -> Unit);
            is!(UnixStream::set_write_timeout, fn(&UnixStream, Option<Duration>) -> Unit);
            is!(UnixStream::read_timeout, fn(&UnixStream) -> Timeout);
            is!(UnixStream::write_timeout, fn(&UnixStream) -> Timeout);
            is!(UnixStream::set_nonblocking, fn(&UnixStream, bool) -> Unit);
            is!(UnixStream::take_error, fn(&UnixStream) -> io::Result<Option<io::Error>>);
            is!(UnixStream::shutdown, fn(&UnixStream, Shutdown) -> Unit);
            stream::<UnixStream>();

            is!(UnixListener::bind::<&str>, fn(&'static str) -> io::Result<UnixListener>);
            is!(UnixListener::bind_addr, fn(&SocketAddr) -> io::Result<UnixListener>);
            is!(UnixListener::accept, fn(&UnixListener) -> io::Result<(UnixStream, SocketAddr)>);
            is!(UnixListener::try_clone, fn(&UnixListener) -> io::Result<UnixListener>);
            is!(UnixListener::local_addr, fn(&UnixListener) -> io::Result<SocketAddr>);
            is!(UnixListener::set_nonblocking, fn(&UnixListener, bool) -> Unit);
            is!(UnixListener::take_error, fn(&UnixListener) -> io::Result<Option<io::Error>>);
            is!(UnixListener::incoming, for<'a> fn(&'a UnixListener) -> Incoming<'a>);
            descriptor::<UnixListener>();
            iterates::<Incoming<'static>, io::Result<UnixStream>>();
            iterates::<<&'static UnixListener as IntoIterator>::IntoIter, io::Result<UnixStream>>();

            type From = io::Result<(usize, SocketAddr)>;
            is!(UnixDatagram::bind::<&str>, fn(&'static str) -> io::Result<UnixDatagram>);
            is!(UnixDatagram::bind_addr, fn(&SocketAddr) -> io::Result<UnixDatagram>);
            is!(UnixDatagram::unbound, fn() -> io::Result<UnixDatagram>);
            is!(UnixDatagram::pair, fn() -> io::Result<(UnixDatagram, UnixDatagram)>);
            is!(UnixDatagram::connect::<&str>, fn(&UnixDatagram, &'static str) -> Unit);
            is!(UnixDatagram::connect_addr, fn(&UnixDatagram, &SocketAddr) -> Unit);
            is!(UnixDatagram::try_clone, fn(&UnixDatagram) -> io::Result<UnixDatagram>);
            is!(UnixDatagram::local_addr, fn(&UnixDatagram) -> io::Result<SocketAddr>);
            is!(UnixDatagram::peer_addr, fn(&UnixDatagram) -> io::Result<SocketAddr>);
            is!(UnixDatagram::recv_from, fn(&UnixDatagram, &mut [u8]) -> From);
            is!(UnixDatagram::recv, fn(&UnixDatagram, &mut [u8]) -> Size);
            is!(UnixDatagram::send_to::<&str>, fn(&UnixDatagram, &[u8], &'static str) -> Size);
            is!(UnixDatagram::send_to_addr, fn(&UnixDatagram, &[u8], &SocketAddr) -> Size);
            is!(UnixDatagram::send, fn(&UnixDatagram, &[u8]) -> Size);
            is!(UnixDatagram::set_read_timeout, fn(&UnixDatagram, Option<Duration>) -> Unit);
            is!(UnixDatagram::set_write_timeout, fn(&UnixDatagram, Option<Duration>) -> Unit);
            is!(UnixDatagram::read_timeout, fn(&UnixDatagram) -> Timeout);
            is!(UnixDatagram::write_timeout, fn(&UnixDatagram) -> Timeout);
            is!(UnixDatagram::set_nonblocking, fn(&UnixDatagram, bool) -> Unit);
            is!(UnixDatagram::take_error, fn(&UnixDatagram) -> io::Result<Option<io::Error>>);
            is!(UnixDatagram::shutdown, fn(&UnixDatagram, Shutdown) -> Unit);
            descriptor::<UnixDatagram>();
        }
    };
}

macro_rules! sync {
    ($s:ident) => {
        pub(crate) fn sync() {
            use std::fmt::Debug;
            use std::panic::{RefUnwindSafe, UnwindSafe};

            use $s::sync::atomic::AtomicU8;
            use $s::sync::mpsc::{
                self, IntoIter, Iter, Receiver, RecvError, RecvTimeoutError, SendError, Sender, SyncSender, TryIter,
                TryRecvError, TrySendError,
            };
            use $s::sync::{
                Arc, Barrier, BarrierWaitResult, Condvar, LazyLock, LockResult, Mutex, MutexGuard, Once, OnceLock,
                OnceState, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError, TryLockResult,
                WaitTimeoutResult, Weak,
            };

            fn same<T>(_: Option<T>, _: Option<T>) {}
            same(None::<std::sync::Arc<u8>>, None::<Arc<u8>>);
            same(None::<std::sync::Weak<u8>>, None::<Weak<u8>>);
            same(None::<std::sync::atomic::AtomicU8>, None::<AtomicU8>);
            same(None::<std::sync::PoisonError<u8>>, None::<PoisonError<u8>>);
            same(None::<std::sync::TryLockError<u8>>, None::<TryLockError<u8>>);
            fn safe<T: Send + Sync + UnwindSafe + RefUnwindSafe + Debug>() {}
            fn defaults<T: Default>() {}

            type M = Mutex<u8>;
            static STATIC: (M, RwLock<u8>, Condvar, Once, OnceLock<u8>, LazyLock<u8>) =
                (Mutex::new(1), RwLock::new(1), Condvar::new(), Once::new(), OnceLock::new(), LazyLock::new(|| 1));
            let _ = &STATIC;
            is!(M::lock, for<'a> fn(&'a M) -> LockResult<MutexGuard<'a, u8>>);
            is!(M::try_lock, for<'a> fn(&'a M) -> TryLockResult<MutexGuard<'a, u8>>);
            is!(M::is_poisoned, fn(&M) -> bool);
            is!(M::clear_poison, fn(&M));
            is!(M::into_inner, fn(M) -> LockResult<u8>);
            is!(M::get_mut, for<'a> fn(&'a mut M) -> LockResult<&'a mut u8>);
            is!(M::from, fn(u8) -> M);
            safe::<M>();
            defaults::<M>();

            type R = RwLock<u8>;
            is!(R::read, for<'a> fn(&'a R) -> LockResult<RwLockReadGuard<'a, u8>>);
            is!(R::try_read, for<'a> fn(&'a R) -> TryLockResult<RwLockReadGuard<'a, u8>>);
            is!(R::write, for<'a> fn(&'a R) -> LockResult<RwLockWriteGuard<'a, u8>>);
            is!(R::try_write, for<'a> fn(&'a R) -> TryLockResult<RwLockWriteGuard<'a, u8>>);
            is!(R::is_poisoned, fn(&R) -> bool);
            is!(R::clear_poison, fn(&R));
            is!(R::into_inner, fn(R) -> LockResult<u8>);
            is!(R::get_mut, for<'a> fn(&'a mut R) -> LockResult<&'a mut u8>);
            is!(R::from, fn(u8) -> R);
            safe::<R>();
            defaults::<R>();

            type G<'a> = MutexGuard<'a, u8>;
            type Timed<'a> = LockResult<(G<'a>, WaitTimeoutResult)>;
            type Cond = fn(&mut u8) -> bool;
            is!(Condvar::wait::<u8>, for<'a> fn(&Condvar, G<'a>) -> LockResult<G<'a>>);
            is!(Condvar::wait_while::<u8, Cond>, for<'a> fn(&Condvar, G<'a>, Cond) -> LockResult<G<'a>>);
            is!(Condvar::wait_timeout::<u8>, for<'a> fn(&Condvar, G<'a>, Duration) -> Timed<'a>);
            is!(Condvar::wait_timeout_while::<u8, Cond>, for<'a> fn(&Condvar, G<'a>, Duration, Cond) -> Timed<'a>);
            is!(Condvar::notify_one, fn(&Condvar));
            is!(Condvar::notify_all, fn(&Condvar));
            is!(WaitTimeoutResult::timed_out, fn(&WaitTimeoutResult) -> bool);
            safe::<Condvar>();
            defaults::<Condvar>();

            is!(Barrier::new, fn(usize) -> Barrier);
            is!(Barrier::wait, fn(&Barrier) -> BarrierWaitResult);
            is!(BarrierWaitResult::is_leader, fn(&BarrierWaitResult) -> bool);
            safe::<Barrier>();

            is!(Once::call_once::<fn()>, fn(&Once, fn()));
            is!(Once::call_once_force::<fn(&OnceState)>, fn(&Once, fn(&OnceState)));
            is!(Once::is_completed, fn(&Once) -> bool);
            is!(Once::wait, fn(&Once));
            is!(Once::wait_force, fn(&Once));
            is!(OnceState::is_poisoned, fn(&OnceState) -> bool);
            safe::<Once>();

            type O = OnceLock<u8>;
            is!(O::get, fn(&O) -> Option<&u8>);
            is!(O::get_mut, fn(&mut O) -> Option<&mut u8>);
            is!(O::set, fn(&O, u8) -> Result<(), u8>);
            is!(O::get_or_init::<fn() -> u8>, fn(&O, fn() -> u8) -> &u8);
            is!(O::into_inner, fn(O) -> Option<u8>);
            is!(O::take, fn(&mut O) -> Option<u8>);
            is!(O::wait, fn(&O) -> &u8);
            is!(O::from, fn(u8) -> O);
            safe::<O>();
            defaults::<O>();
            fn compares<T: Clone + PartialEq + Eq>() {}
            compares::<O>();

            type L = LazyLock<u8>;
            is!(L::force, fn(&L) -> &u8);
            safe::<L>();
            defaults::<L>();
            fn derefs<T: std::ops::Deref<Target = u8>>() {}
            derefs::<L>();

            is!(mpsc::channel::<u8>, fn() -> (Sender<u8>, Receiver<u8>));
            is!(mpsc::sync_channel::<u8>, fn(usize) -> (SyncSender<u8>, Receiver<u8>));
            is!(Sender::<u8>::send, fn(&Sender<u8>, u8) -> Result<(), SendError<u8>>);
            is!(SyncSender::<u8>::send, fn(&SyncSender<u8>, u8) -> Result<(), SendError<u8>>);
            is!(SyncSender::<u8>::try_send, fn(&SyncSender<u8>, u8) -> Result<(), TrySendError<u8>>);
            is!(Receiver::<u8>::recv, fn(&Receiver<u8>) -> Result<u8, RecvError>);
            is!(Receiver::<u8>::try_recv, fn(&Receiver<u8>) -> Result<u8, TryRecvError>);
            is!(Receiver::<u8>::recv_timeout, fn(&Receiver<u8>, Duration) -> Result<u8, RecvTimeoutError>);
            is!(Receiver::<u8>::iter, for<'a> fn(&'a Receiver<u8>) -> Iter<'a, u8>);
            is!(Receiver::<u8>::try_iter, for<'a> fn(&'a Receiver<u8>) -> TryIter<'a, u8>);
            iterates::<IntoIter<u8>, u8>();
            iterates::<<Receiver<u8> as IntoIterator>::IntoIter, u8>();
            iterates::<<&'static Receiver<u8> as IntoIterator>::IntoIter, u8>();
            fn shared<T: Clone + Send + Sync + UnwindSafe + RefUnwindSafe + Debug>() {}
            shared::<Sender<u8>>();
            shared::<SyncSender<u8>>();
            fn moved<T: Send + UnwindSafe + RefUnwindSafe + Debug>() {}
            moved::<Receiver<u8>>();
        }
    };
}

macro_rules! thread {
    ($s:ident) => {
        pub(crate) fn thread() {
            use std::cell::{Cell, RefCell};
            use std::fmt::Debug;
            use std::hash::Hash;
            use std::num::NonZero;

            use $s::thread::{
                self, AccessError, Builder, JoinHandle, LocalKey, Scope, ScopedJoinHandle, Thread, ThreadId,
            };

            type F = fn() -> u8;
            type H = JoinHandle<u8>;
            is!(thread::spawn::<F, u8>, fn(F) -> H);
            is!(thread::current, fn() -> Thread);
            is!(thread::yield_now, fn());
            is!(thread::panicking, fn() -> bool);
            is!(thread::sleep, fn(Duration));
            is!(thread::park, fn());
            is!(thread::park_timeout, fn(Duration));
            is!(thread::available_parallelism, fn() -> io::Result<NonZero<usize>>);
            is!(H::join, fn(H) -> thread::Result<u8>);
            is!(H::thread, fn(&H) -> &Thread);
            is!(H::is_finished, fn(&H) -> bool);
            is!(Thread::unpark, fn(&Thread));
            is!(Thread::id, fn(&Thread) -> ThreadId);
            is!(Thread::name, fn(&Thread) -> Option<&str>);
            is!(Builder::new, fn() -> Builder);
            is!(Builder::name, fn(Builder, String) -> Builder);
            is!(Builder::stack_size, fn(Builder, usize) -> Builder);
            is!(Builder::spawn::<F, u8>, fn(Builder, F) -> io::Result<H>);
            fn shared<T: Clone + Send + Sync + Debug>() {}
            shared::<Thread>();
            fn id<T: Copy + Eq + Hash + Send + Sync + Debug>() {}
            id::<ThreadId>();
            fn handle<T: Send + Sync + Debug>() {}
            handle::<H>();

            type B<'s> = ScopedJoinHandle<'s, u8>;
            fn spawns<'s, 'e>(s: &'s Scope<'s, 'e>, f: F) -> B<'s> {
                let named = Builder::new().name("child".to_owned()).spawn_scoped(s, f);
                drop(named);
                s.spawn(f)
            }
            let scoped = |s: &Scope<'_, '_>| {
                let _ = s;
            };
            thread::scope(scoped);
            let _: for<'s, 'e> fn(&'s Scope<'s, 'e>, F) -> B<'s> = spawns;
            is!(B::join, fn(B<'static>) -> thread::Result<u8>);
            is!(B::thread, for<'a> fn(&'a B<'static>) -> &'a Thread);
            is!(B::is_finished, fn(&B<'static>) -> bool);

            $s::thread_local! {
                static NUMBER: Cell<u8> = const { Cell::new(1) };
                static TEXT: RefCell<String> = RefCell::new(String::from("text"));
            }
            type K = LocalKey<Cell<u8>>;
            type KS = LocalKey<RefCell<String>>;
            type See = fn(&Cell<u8>) -> u8;
            is!(K::with::<See, u8>, fn(&'static K, See) -> u8);
            is!(K::try_with::<See, u8>, fn(&'static K, See) -> Result<u8, AccessError>);
            is!(K::set, fn(&'static K, u8));
            is!(K::get, fn(&'static K) -> u8);
            is!(K::take, fn(&'static K) -> u8);
            is!(K::replace, fn(&'static K, u8) -> u8);
            is!(KS::set, fn(&'static KS, String));
            is!(KS::take, fn(&'static KS) -> String);
            is!(KS::replace, fn(&'static KS, String) -> String);
            assert_eq!(NUMBER.replace(2), 1);
            assert_eq!(TEXT.with_borrow(|t| t.len()), 4);
            TEXT.with_borrow_mut(|t| t.push('s'));
            assert_eq!((NUMBER.get(), TEXT.take().as_str()), (2, "texts"));
        }
    };
}

macro_rules! time {
    ($s:ident) => {
        pub(crate) fn time() {
            fn same<T>(_: Option<T>, _: Option<T>) {}
            same(None::<std::time::Duration>, None::<$s::time::Duration>);
            same(None::<std::time::Instant>, None::<$s::time::Instant>);
            same(None::<std::time::SystemTime>, None::<$s::time::SystemTime>);
            same(None::<std::time::SystemTimeError>, None::<$s::time::SystemTimeError>);
            same(None::<std::time::TryFromFloatSecsError>, None::<$s::time::TryFromFloatSecsError>);
            let epoch = $s::time::UNIX_EPOCH;
            assert_eq!(std::time::UNIX_EPOCH, epoch);
            same(None::<std::io::BufReader<u8>>, None::<$s::io::BufReader<u8>>);
            same(None::<std::io::Error>, None::<$s::io::Error>);
        }

        /// These are not the same types, but have the same calls.
        pub(crate) fn writers() {
            use std::io::{Seek as _, Write as _};
            let mut lines = $s::io::LineWriter::with_capacity(16, $s::io::LineWriter::new(Vec::new()));
            lines.write_all(b"line\nrest").unwrap();
            assert_eq!(lines.get_ref().get_ref(), b"line\n");
            lines.get_mut().flush().unwrap();
            let lines: Result<_, $s::io::IntoInnerError<_>> = lines.into_inner();
            assert_eq!(lines.unwrap().into_inner().unwrap(), b"line\nrest");
            let to = std::io::Cursor::new(Vec::new());
            let mut writer = $s::io::BufWriter::with_capacity(16, $s::io::BufWriter::new(to));
            writer.write_all(b"abc").unwrap();
            assert_eq!((writer.buffer(), writer.capacity(), writer.get_ref().buffer()), (&b"abc"[..], 16, &b""[..]));
            assert_eq!(writer.get_mut().get_mut().position(), 0);
            let (writer, rest) = writer.into_parts();
            assert_eq!(rest.unwrap(), b"abc");
            let mut writer = writer;
            writer.write_all(b"d").unwrap();
            assert_eq!(writer.seek(std::io::SeekFrom::Start(0)).unwrap(), 0);
            let (to, rest): (_, Result<Vec<u8>, std::io::WriterPanicked>) = writer.into_parts();
            assert_eq!((to.into_inner(), rest.unwrap()), (b"d".to_vec(), Vec::new()));
        }
    };
}

/// What every socket is, and can be made from and into.
fn descriptor<S>()
where
    S: std::fmt::Debug + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe + 'static,
    S: std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::IntoRawFd + std::os::fd::FromRawFd,
    S: From<std::os::fd::OwnedFd> + Into<std::os::fd::OwnedFd>,
{
}

/// And every stream.
fn stream<S>()
where
    S: io::Read + io::Write,
    for<'a> &'a S: io::Read + io::Write,
    S: std::fmt::Debug + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe + 'static,
    S: std::os::fd::AsFd + std::os::fd::AsRawFd + std::os::fd::IntoRawFd + std::os::fd::FromRawFd,
    S: From<std::os::fd::OwnedFd> + Into<std::os::fd::OwnedFd>,
{
    descriptor::<S>();
}

fn iterates<I: Iterator<Item = T>, T>() {}

macro_rules! surface {
    ($module:ident, $s:ident) => {
        mod $module {
            use super::*;
            net!($s);
            unix!($s);
            sync!($s);
            thread!($s);
            time!($s);
        }
    };
}

surface!(of_std, std);
surface!(of_coro, coro);

#[test]
fn the_surface_of_std_is_there_with_its_signatures() {
    // What is checked is that all of this compiles, twice; a few of the values are looked at as well.
    of_std::net();
    of_std::unix();
    of_std::sync();
    of_std::thread();
    of_std::time();
    of_std::writers();
    of_coro::net();
    of_coro::unix();
    of_coro::sync();
    of_coro::thread();
    of_coro::time();
    of_coro::writers();
}

/// std's sockets become ours and back.
#[test]
fn sockets_convert_both_ways() {
    fn both<S: Into<C>, C: Into<S>>() {}
    both::<std::net::TcpStream, coro::net::TcpStream>();
    both::<std::net::TcpListener, coro::net::TcpListener>();
    both::<std::net::UdpSocket, coro::net::UdpSocket>();
    both::<std::os::unix::net::UnixStream, coro::os::unix::net::UnixStream>();
    both::<std::os::unix::net::UnixListener, coro::os::unix::net::UnixListener>();
    both::<std::os::unix::net::UnixDatagram, coro::os::unix::net::UnixDatagram>();
}
