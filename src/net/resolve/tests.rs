//! The lookup against std's, and with resolvers that hang.

#![forbid(unsafe_code)]

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use super::{ToSocketAddrs, look_up_with, set_resolve_timeout};
use crate::blocking;
use crate::scheduler::suspend::{here, sleep_until, timeout_scope};
use crate::scheduler::{CancelledError, Runtime, Task, is_cancel, no_switch};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use std::vec;

const LONG: Duration = Duration::from_secs(1000);

fn runtime() -> Runtime {
    Runtime::builder().workers(1).build().unwrap()
}

/// A resolver that answers when it is told to (or when its teller goes away).
fn held(release: Receiver<()>) -> impl FnOnce() -> io::Result<vec::IntoIter<SocketAddr>> + Send + 'static {
    move || {
        let _ = release.recv();
        Ok(vec![SocketAddr::from(([10, 1, 2, 3], 4))].into_iter())
    }
}

fn hanging() -> (Sender<()>, impl FnOnce() -> io::Result<vec::IntoIter<SocketAddr>> + Send + 'static) {
    let (tell, release) = mpsc::channel();
    (tell, held(release))
}

/// Waits until the resolver runs for the task.
fn until_looking_up(task: Task) {
    let end = Instant::now() + Duration::from_secs(15);
    while !blocking::blocking_stats().running.iter().any(|job| job.task == task.id()) {
        assert!(Instant::now() < end, "never in a lookup: {:?}", blocking::blocking_stats());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn same<A>(what: &str, addr: A)
where
    A: std::net::ToSocketAddrs<Iter: Iterator<Item = SocketAddr>> + ToSocketAddrs,
{
    let list = |r: io::Result<Vec<SocketAddr>>| r.map_err(|e| (e.kind(), e.to_string()));
    let theirs = list(std::net::ToSocketAddrs::to_socket_addrs(&addr).map(Iterator::collect));
    let ours = list(ToSocketAddrs::to_socket_addrs(&addr).map(Iterator::collect));
    assert_eq!(ours, theirs, "{what}");
}

fn all_like_std() {
    let texts = [
        "127.0.0.1:80",
        "[::1]:80",
        "::1:80",
        "[fe80::1%1]:80",
        "localhost:80",
        "",
        ":",
        ":80",
        "no port",
        "1.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:65536",
        "1.2.3.4:-1",
        "1.2.3.4:+1",
        "a\0b:80",
        "localhost:80:81",
        "[::1]",
        "256.1.1.1:1",
    ];
    for text in texts {
        same(text, text);
        same(text, text.to_owned());
        same(text, &text);
        same(text, (text, 80));
        same(text, (text.to_owned(), 80));
        if let Ok(address) = text.parse::<SocketAddr>() {
            same(text, address);
            same(text, (address.ip(), 1));
            same(text, &[address, address][..]);
        }
    }
    for host in ["127.0.0.1", "::1", "localhost", "fe80::1%1"] {
        same(host, (host, 7));
    }
    same("v4", std::net::SocketAddrV4::new([1, 2, 3, 4].into(), 5));
    same("v6", std::net::SocketAddrV6::new(1.into(), 5, 6, 7));
    same("v4 address", (std::net::Ipv4Addr::LOCALHOST, 5));
    same("v6 address", (std::net::Ipv6Addr::LOCALHOST, 5));
    same("none", &[][..]);
}

#[test]
fn addresses_and_errors_are_those_of_std_on_a_thread_and_in_a_task() {
    all_like_std();
    runtime().block_on(all_like_std);
}

#[test]
fn a_literal_needs_no_wait() {
    runtime().block_on(|| {
        // A wait would panic.
        no_switch(|| {
            assert_eq!("127.0.0.1:80".to_socket_addrs().unwrap().count(), 1);
            assert_eq!(("::1", 80).to_socket_addrs().unwrap().count(), 1);
            assert!("nothing".to_socket_addrs().is_err());
        });
    });
}

/// The reason for all this: the worker goes on while the resolver hangs.
#[test]
fn a_resolver_that_hangs_delays_only_who_asked() {
    let rt = runtime();
    let (tell, resolver) = hanging();
    let asking = rt.spawn(move || look_up_with("some.host", LONG, resolver).map(|a| a.collect::<Vec<_>>()));
    until_looking_up(asking.task());
    let ticks = rt.block_on(|| {
        let mut ticks = 0;
        while ticks < 50 {
            sleep_until(Instant::now() + Duration::from_micros(100));
            ticks += 1;
        }
        ticks
    });
    assert_eq!(ticks, 50);
    until_looking_up(asking.task());
    tell.send(()).unwrap();
    assert_eq!(asking.join().unwrap().unwrap(), [SocketAddr::from(([10, 1, 2, 3], 4))]);
}

#[test]
fn the_time_limit_names_the_host() {
    let rt = runtime();
    let (tell, resolver) = hanging();
    let began = Instant::now();
    let e = rt.block_on(move || look_up_with("slow.host", Duration::from_millis(30), resolver)).unwrap_err();
    assert_eq!(e.kind(), io::ErrorKind::TimedOut);
    assert!(e.to_string().contains("\"slow.host\"") && e.to_string().contains("set_resolve_timeout"), "{e}");
    assert!((Duration::from_millis(30)..Duration::from_secs(10)).contains(&began.elapsed()), "{:?}", began.elapsed());
    drop(tell);
    let old = set_resolve_timeout(Duration::from_secs(7));
    assert_eq!(old, Duration::from_secs(30));
    assert_eq!(set_resolve_timeout(old), Duration::from_secs(7));
}

/// Error first: a cancellation and a time limit around the lookup come as errors, and unwind only at the next wait.
#[test]
fn an_interrupt_is_an_error_first() {
    let rt = runtime();
    let (_tell, resolver) = hanging();
    let (_tell_too, second) = hanging();
    let seen = Arc::new(Mutex::new(None));
    let s = seen.clone();
    let task = rt.spawn(move || {
        *s.lock().unwrap() = Some(look_up_with("h", LONG, resolver).map(|_| ()));
        let _ = look_up_with("h", LONG, second);
        *s.lock().unwrap() = None;
    });
    until_looking_up(task.task());
    task.cancel();
    assert!(is_cancel(&*task.join().unwrap_err()));
    let e = seen.lock().unwrap().take().expect("the second lookup unwound").unwrap_err();
    assert!(e.get_ref().is_some_and(|e| e.is::<CancelledError>()), "{e:?}");

    let (_tell, resolver) = hanging();
    rt.block_on(move || {
        let h = here().unwrap();
        let late = timeout_scope(h, Duration::from_millis(10), || look_up_with("h", LONG, resolver).map(|_| ()));
        let e = late.unwrap_err().expect("an error, no unwinding").unwrap_err();
        assert_eq!((e.kind(), e.to_string().contains("looking up")), (io::ErrorKind::TimedOut, false), "{e}");
    });
}

/// In a destructor during an unwinding, a lookup blocks the thread for a tenth of a second at most.
#[test]
fn a_lookup_while_unwinding_is_bounded() {
    struct Asks(Arc<Mutex<Option<io::Error>>>, Option<Receiver<()>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            let answer = look_up_with("h", LONG, held(self.1.take().unwrap()));
            *self.0.lock().unwrap() = answer.err();
        }
    }
    let rt = runtime();
    let (_tell, release) = mpsc::channel();
    let seen = Arc::new(Mutex::new(None));
    let s = seen.clone();
    let began = Instant::now();
    let task = rt.spawn(move || {
        let _asks = Asks(s, Some(release));
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(task.join().is_err());
    assert_eq!(seen.lock().unwrap().as_ref().map(io::Error::kind), Some(io::ErrorKind::TimedOut));
    assert!(began.elapsed() < Duration::from_secs(10));
}
