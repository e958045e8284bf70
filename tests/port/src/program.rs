//! A blocking program as people write it: a store behind TCP, a pool of threads behind a channel, condition variables,
//! limits of time. It says what it saw, in an order that does not depend on who was faster.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock};
use std::thread;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(20);

/// Values by key, and whoever waits for one.
#[derive(Default)]
struct Store {
    values: Mutex<Vec<(String, String)>>,
    changed: Condvar,
}

impl Store {
    fn put(&self, key: &str, value: &str) {
        self.values.lock().unwrap().push((key.to_owned(), value.to_owned()));
        self.changed.notify_all();
    }

    fn wait(&self, key: &str, limit: Duration) -> Option<String> {
        let find = |v: &Vec<(String, String)>| v.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
        let values = self.values.lock().unwrap();
        let (values, _) = self.changed.wait_timeout_while(values, limit, |v| find(v).is_none()).unwrap();
        find(&values)
    }
}

fn serve(listener: TcpListener, store: Arc<Store>, served: Arc<AtomicUsize>) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        let (shared, served) = (store.clone(), served.clone());
        let last = thread::Builder::new()
            .name("connection".to_owned())
            .spawn(move || {
                served.fetch_add(1, Ordering::Relaxed);
                let mut out = stream.try_clone().unwrap();
                for line in BufReader::new(stream).lines() {
                    let line = line.unwrap();
                    let mut words = line.split(' ');
                    let answer = match (words.next(), words.next(), words.next()) {
                        (Some("put"), Some(key), Some(value)) => {
                            shared.put(key, value);
                            "ok".to_owned()
                        }
                        (Some("wait"), Some(key), None) => shared.wait(key, LONG).unwrap_or("nothing".to_owned()),
                        (Some("peek"), Some(key), None) => shared.wait(key, SHORT).unwrap_or("nothing".to_owned()),
                        (Some("stop"), None, None) => return true,
                        _ => "what?".to_owned(),
                    };
                    writeln!(out, "{answer}").unwrap();
                }
                false
            })
            .unwrap();
        if store.wait("stopping", Duration::ZERO).is_some() && last.join().unwrap() {
            return;
        }
    }
}

fn ask(addr: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&addr, LONG).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(format!("{line}\n").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.trim_end().to_owned()
}

fn store(out: &mut String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let (store, served) = (Arc::new(Store::default()), Arc::new(AtomicUsize::new(0)));
    let server = thread::spawn({
        let (store, served) = (store.clone(), served.clone());
        move || serve(listener, store, served)
    });
    let waiting: Vec<_> = (0..8).map(|i| thread::spawn(move || ask(addr, &format!("wait key{}", i % 4)))).collect();
    let early = ask(addr, "peek nobody");
    for i in 0..4 {
        assert_eq!(ask(addr, &format!("put key{i} value{i}")), "ok");
    }
    let found: Vec<_> = waiting.into_iter().map(|t| t.join().unwrap()).collect();
    let odd = ask(addr, "hm");
    store.put("stopping", "yes");
    let stopped = ask(addr, "stop");
    server.join().unwrap();
    let served = served.load(Ordering::Relaxed);
    out.push_str(&format!("store: {early} {} {odd} {stopped:?} served {served}\n", found.join(",")));
}

fn pool(out: &mut String) {
    let (jobs, queue) = mpsc::sync_channel::<u64>(4);
    let (results, found) = mpsc::channel();
    let queue = Arc::new(Mutex::new(queue));
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (queue, results) = (queue.clone(), results.clone());
            thread::spawn(move || {
                loop {
                    let job = queue.lock().unwrap().recv();
                    let Ok(n) = job else { return };
                    results.send((n, n * n)).unwrap();
                }
            })
        })
        .collect();
    drop(results);
    for n in 0..100 {
        jobs.send(n).unwrap();
    }
    drop(jobs);
    let mut squares: Vec<_> = found.iter().collect();
    squares.sort_unstable();
    workers.into_iter().for_each(|w| w.join().unwrap());
    let sum: u64 = squares.iter().map(|(_, s)| s).sum();
    out.push_str(&format!("pool: {} results, sum {sum}, last {:?}\n", squares.len(), squares.last()));
}

fn wait(out: &mut String) {
    let (tx, rx) = mpsc::channel::<u32>();
    let began = Instant::now();
    let nothing = rx.recv_timeout(SHORT);
    let waited = began.elapsed() >= SHORT;
    let sender = thread::spawn(move || {
        thread::sleep(SHORT);
        tx.send(7).unwrap();
    });
    let seven = rx.recv_timeout(LONG);
    sender.join().unwrap();
    let gone = rx.recv_timeout(LONG) == Err(RecvTimeoutError::Disconnected);
    let rendezvous = {
        let (tx, rx) = mpsc::sync_channel::<&str>(0);
        let giver = thread::spawn(move || (tx.send("hand to hand"), tx.send("nobody").is_err()));
        let got = rx.recv();
        drop(rx);
        (got, giver.join().unwrap())
    };
    let parked = thread::spawn(|| {
        while !PARKED.load(std::sync::atomic::Ordering::Acquire) {
            thread::park();
        }
        thread::park_timeout(SHORT);
        "unparked"
    });
    PARKED.store(true, std::sync::atomic::Ordering::Release);
    parked.thread().unpark();
    let parked = parked.join().unwrap();
    out.push_str(&format!("wait: {nothing:?} {waited} {seven:?} {gone} {rendezvous:?} {parked}\n"));
}

static PARKED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn timeouts(out: &mut String) {
    let (mut a, mut b) = UnixStream::pair().unwrap();
    a.set_read_timeout(Some(SHORT)).unwrap();
    let began = Instant::now();
    let late = a.read(&mut [0; 8]).unwrap_err().kind();
    let waited = began.elapsed() >= SHORT;
    b.write_all(b"ping").unwrap();
    let mut four = [0; 4];
    a.read_exact(&mut four).unwrap();
    drop(b);
    let end = a.read(&mut [0; 8]).unwrap();
    let closed = a.write_all(b"x").unwrap_err().kind();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let nobody = listener.accept().unwrap_err().kind();
    drop(listener);
    let refused = TcpStream::connect(addr).unwrap_err().kind();
    let zero = a.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind();
    let bad = "localhost".to_socket_addrs().map(|_| ()).unwrap_err().kind();
    let late = [late == ErrorKind::WouldBlock || late == ErrorKind::TimedOut, waited];
    let four = String::from_utf8_lossy(&four).into_owned();
    out.push_str(&format!("timeouts: {late:?} {four} {end} {closed} {nobody} {refused} {zero} {bad}\n"));
}

fn datagrams(out: &mut String) {
    let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (to_a, to_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let echo = thread::spawn(move || {
        let mut buf = [0; 64];
        for _ in 0..10 {
            let (n, from) = b.recv_from(&mut buf).unwrap();
            assert_eq!(from, to_a);
            b.send_to(&buf[..n], from).unwrap();
        }
    });
    a.connect(to_b).unwrap();
    a.set_read_timeout(Some(LONG)).unwrap();
    let mut seen = Vec::new();
    for i in 0..10_u8 {
        a.send(&vec![i; usize::from(i)]).unwrap();
        let mut buf = [0; 64];
        seen.push(a.recv(&mut buf).unwrap());
    }
    echo.join().unwrap();
    out.push_str(&format!("datagrams: {seen:?}\n"));
}

std::thread_local! {
    static SEEN: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

fn locals(out: &mut String) {
    SEEN.set(100);
    let threads: Vec<_> = (0..4)
        .map(|i| {
            thread::spawn(move || {
                for _ in 0..=i {
                    SEEN.set(SEEN.get() + 1);
                    thread::yield_now();
                }
                SEEN.get()
            })
        })
        .collect();
    let seen: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let names = thread::Builder::new().name("ada".to_owned()).spawn(|| thread::current().name().map(str::to_owned));
    let different = thread::spawn(|| thread::current().id()).join().unwrap() != thread::current().id();
    out.push_str(&format!("locals: {seen:?} {} {:?} {different}\n", SEEN.get(), names.unwrap().join().unwrap()));
}

fn scope(out: &mut String) {
    let mut parts = [1, 2, 3, 4];
    let (barrier, leaders) = (Barrier::new(4), AtomicUsize::new(0));
    let total = RwLock::new(0);
    thread::scope(|s| {
        for p in &mut parts {
            let (barrier, leaders, total) = (&barrier, &leaders, &total);
            s.spawn(move || {
                *p *= 10;
                *total.write().unwrap() += *p;
                if barrier.wait().is_leader() {
                    leaders.fetch_add(1, Ordering::Relaxed);
                }
                assert_eq!(*total.read().unwrap(), 100);
            });
        }
    });
    out.push_str(&format!("scope: {parts:?} {} leader\n", leaders.into_inner()));
}

fn once(out: &mut String) {
    static ONCE: Once = Once::new();
    static CELL: OnceLock<usize> = OnceLock::new();
    static LAZY: LazyLock<usize> = LazyLock::new(|| {
        thread::sleep(SHORT);
        COUNT.fetch_add(1, Ordering::Relaxed)
    });
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    COUNT.store(0, Ordering::Relaxed);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(|| {
                ONCE.call_once(|| thread::sleep(SHORT));
                *CELL.get_or_init(|| 5) + *LAZY
            })
        })
        .collect();
    let seen: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    out.push_str(&format!("once: {} equal {}\n", ONCE.is_completed(), seen.iter().all(|s| *s == seen[0])));
}

fn panics(out: &mut String) {
    let m = Arc::new(Mutex::new(1));
    let m2 = m.clone();
    let ended = thread::spawn(move || {
        let _held = m2.lock().unwrap();
        panic!("on purpose");
    })
    .join();
    let payload = ended.unwrap_err().downcast_ref::<&str>().map(|s| s.to_string());
    let poisoned = m.lock().is_err();
    m.clear_poison();
    out.push_str(&format!("panics: {payload:?} {poisoned} {}\n", *m.lock().unwrap()));
}

/// Everything, one after the other.
pub fn program() -> String {
    let mut out = String::new();
    store(&mut out);
    pool(&mut out);
    wait(&mut out);
    timeouts(&mut out);
    datagrams(&mut out);
    locals(&mut out);
    scope(&mut out);
    once(&mut out);
    panics(&mut out);
    out
}
