//! What std's tests take from std's private test helpers and from the `rand` crate, written anew.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

/// A port of this address that nobody uses at the moment. Without a network of its own the process shares the ports
/// with its neighbours, so each starts at another place and looks whether the port is free.
fn free_port(ip: std::net::IpAddr) -> u16 {
    static NEXT: OnceLock<Mutex<u16>> = OnceLock::new();
    let start = || Mutex::new(10_000 + (std::process::id() % 200) as u16 * 100);
    let mut next = NEXT.get_or_init(start).lock().unwrap();
    loop {
        let port = *next;
        *next = if port >= 30_000 { 10_000 } else { port + 1 };
        if TcpListener::bind((ip, port)).is_ok() && UdpSocket::bind((ip, port)).is_ok() {
            return port;
        }
    }
}

pub fn has_ipv6() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok())
}

pub fn next_test_ip4() -> SocketAddr {
    let ip = Ipv4Addr::LOCALHOST.into();
    SocketAddr::new(ip, free_port(ip))
}

/// Where there is no IPv6, the tests that ask for both run over IPv4 twice.
pub fn next_test_ip6() -> SocketAddr {
    if !has_ipv6() {
        return next_test_ip4();
    }
    let ip = Ipv6Addr::LOCALHOST.into();
    SocketAddr::new(ip, free_port(ip))
}

pub fn sa4(a: Ipv4Addr, p: u16) -> SocketAddr {
    SocketAddr::new(a.into(), p)
}

pub fn sa6(a: Ipv6Addr, p: u16) -> SocketAddr {
    SocketAddr::new(a.into(), p)
}

pub fn tsa<A: crate::port::net::ToSocketAddrs>(a: A) -> Result<Vec<SocketAddr>, String> {
    a.to_socket_addrs().map(|all| all.collect()).map_err(|e| e.to_string())
}

/// Whether two addresses are the same but for the scope of an IPv6 address.
pub fn compare_ignore_zoneid(a: &SocketAddr, b: &SocketAddr) -> bool {
    let plain = |x: &SocketAddr| match *x {
        SocketAddr::V6(mut v6) => {
            v6.set_scope_id(0);
            SocketAddr::V6(v6)
        }
        v4 => v4,
    };
    plain(a) == plain(b)
}

pub struct TempDir(PathBuf);

impl TempDir {
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn tmpdir() -> TempDir {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("conformance-{}-{n}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    TempDir(dir)
}

/// The methods of `rand::Rng` that the tests call.
pub trait Rng {
    fn next(&mut self) -> u64;

    fn random_bool(&mut self, p: f64) -> bool {
        ((self.next() >> 11) as f64) < p * (1_u64 << 53) as f64
    }
}

/// xorshift64*; each generator has another seed.
pub struct TestRng(u64);

impl Rng for TestRng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

pub fn test_rng() -> TestRng {
    static SEED: AtomicU64 = AtomicU64::new(0x9e37_79b9_7f4a_7c15);
    TestRng(SEED.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed) | 1)
}

/// The id of the operating system's thread that runs the caller.
pub fn current_os_id() -> u64 {
    // SAFETY: takes nothing and cannot fail.
    (unsafe { libc::gettid() }) as u64
}

/// What `main` of an example may return.
pub trait End {
    fn well(self);
}

impl End for () {
    fn well(self) {}
}

impl<T, E: std::fmt::Debug> End for Result<T, E> {
    fn well(self) {
        self.unwrap();
    }
}

pub fn ended_well(end: impl End) {
    end.well();
}
