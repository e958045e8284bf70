//! Many connections: all served, the work spread over the workers, and a worker that blocks harms only its own.
//!
//! The load comes from another process: this program again.

mod util;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use coro::net::{TcpListener, TcpStream};
use util::{Rng, again, role, runtime, until, within};

const LONG: Duration = Duration::from_secs(60);

/// As many descriptors as this process may have; returns how many.
fn raise_the_limit() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives across the calls.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
    limit.rlim_cur as usize
}

/// The load generator: this program as the test `name`, told where the server is.
fn generator(name: &str, addr: SocketAddr, settings: &[(&str, String)]) -> Child {
    let mut command = again(name, "load");
    command.env("CORO_TEST_ADDR", addr.to_string()).envs(settings.iter().map(|(k, v)| (*k, v)));
    command.stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap()
}

fn setting(name: &str) -> usize {
    std::env::var(name).unwrap().parse().unwrap()
}

fn addr_of_server() -> SocketAddr {
    std::env::var("CORO_TEST_ADDR").unwrap().parse().unwrap()
}

/// Reads the generator's lines until one holds `word`; returns what follows it.
fn hear(lines: &mut impl Iterator<Item = std::io::Result<String>>, word: &str) -> String {
    loop {
        let line = lines.next().unwrap_or_else(|| panic!("the generator ended before {word:?}")).unwrap();
        if let Some((_, rest)) = line.split_once(word) {
            return rest.trim().to_owned();
        }
    }
}

#[test]
fn ten_thousand_connections_are_all_echoed() {
    const NAME: &str = "ten_thousand_connections_are_all_echoed";
    const ROUNDS: usize = 3;
    let connections = 10_000.min(raise_the_limit().saturating_sub(500));
    if role().is_some() {
        let addr = addr_of_server();
        let mut all: Vec<_> = (0..connections).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        for round in 0..ROUNDS {
            for (i, s) in all.iter_mut().enumerate() {
                s.write_all(&(i * ROUNDS + round).to_le_bytes()).unwrap();
            }
            for (i, s) in all.iter_mut().enumerate() {
                s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let mut back = [0; 8];
                s.read_exact(&mut back).expect("an echo");
                assert_eq!(usize::from_le_bytes(back), i * ROUNDS + round);
            }
        }
        println!("echoed {}", connections * ROUNDS);
        return;
    }
    within(LONG, move || {
        let rt = runtime(2);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (served, most, now) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (s, m, n) = (served.clone(), most.clone(), now.clone());
        let acceptor = rt.spawn(move || {
            loop {
                let Ok((mut conn, _)) = listener.accept() else { return };
                let (s, m, n) = (s.clone(), m.clone(), n.clone());
                coro::spawn(move || {
                    m.fetch_max(n.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    let mut buf = [0; 256];
                    while let Ok(k) = conn.read(&mut buf)
                        && k > 0
                        && conn.write_all(&buf[..k]).is_ok()
                    {
                        s.fetch_add(1, Ordering::Relaxed);
                    }
                    n.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        let start = Instant::now();
        let load = generator(NAME, addr, &[]).wait_with_output().unwrap();
        assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stdout));
        let took = start.elapsed();
        until(LONG, "every task ends", || now.load(Ordering::Relaxed) == 0);
        println!(
            "{connections} connections, {} requests in {took:?}, {:?}",
            served.load(Ordering::Relaxed),
            rt.worker_stats().iter().map(|w| (w.slices, w.busy)).collect::<Vec<_>>()
        );
        assert_eq!(most.load(Ordering::Relaxed), connections);
        assert!(served.load(Ordering::Relaxed) >= connections * ROUNDS);
        acceptor.cancel();
        let _ = acceptor.join();
    });
}

/// Work that costs the same anywhere: about 10 µs a unit without optimisation, less with it.
fn work(units: usize) {
    let mut x = 1u64;
    for _ in 0..units * if cfg!(debug_assertions) { 500 } else { 5000 } {
        x = std::hint::black_box(x.wrapping_mul(6364136223846793005).wrapping_add(1));
    }
}

const CONNECTIONS: usize = 1000;
const HEAVY: u8 = 20;

/// Paced requests on many connections: one in ten is heavy; half of all close and new ones take their place; then the
/// measured window begins.
fn paced_load() {
    let addr = addr_of_server();
    let mut rng = Rng::new(setting("CORO_SEED") as u64);
    let connect = |rng: &mut Rng| {
        let s = std::net::TcpStream::connect(addr).unwrap();
        s.set_nonblocking(true).unwrap();
        s.set_nodelay(true).unwrap();
        (s, if rng.below(10) == 0 { HEAVY } else { 1 })
    };
    let mut all: Vec<_> = (0..CONNECTIONS).map(|_| connect(&mut rng)).collect();
    // One request on each connection every 100 ms.
    let round = |all: &mut Vec<(std::net::TcpStream, u8)>, pace: Duration| {
        let start = Instant::now();
        let mut answers = 0;
        let step = pace / all.len() as u32;
        for (i, (s, weight)) in all.iter_mut().enumerate() {
            // An answer that is not there yet will be by the next round.
            let mut buf = [0; 64];
            match s.read(&mut buf) {
                Ok(n) => answers += n,
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
            s.write_all(&[*weight]).unwrap();
            let due = start + step * (i as u32 + 1);
            let ahead = due.saturating_duration_since(Instant::now());
            if ahead > Duration::from_millis(1) {
                std::thread::sleep(ahead);
            }
        }
        answers
    };
    let pace = Duration::from_millis(100);
    (0..4).for_each(|_| {
        round(&mut all, pace);
    });
    // Half of them close, whichever worker they are on, and as many new ones come, a few at a time.
    let mut leave: Vec<usize> = (0..CONNECTIONS).collect();
    for i in 0..CONNECTIONS / 2 {
        leave.swap(i, i + rng.below(CONNECTIONS - i));
    }
    for (k, i) in leave[..CONNECTIONS / 2].iter().enumerate() {
        all[*i] = connect(&mut rng);
        if k % 100 == 99 {
            round(&mut all, pace);
        }
    }
    println!("measure now");
    let answers: usize = (0..15).map(|_| round(&mut all, pace)).sum();
    println!("measured {answers}");
    // Waits for the end, so that closing falls outside the window.
    let _ = std::io::stdin().read(&mut [0]);
}

/// One run; the most that a worker's busy time was off the mean, in hundredths.
fn imbalance(name: &str, seed: u64, workers: usize) -> f64 {
    let rt = runtime(workers);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = rt.spawn(move || {
        loop {
            let Ok((mut conn, _)) = listener.accept() else { return };
            coro::spawn(move || {
                let mut buf = [0; 64];
                while let Ok(n) = conn.read(&mut buf)
                    && n > 0
                {
                    buf[..n].iter().for_each(|weight| work(usize::from(*weight)));
                    if conn.write_all(&buf[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    let mut load = generator(name, addr, &[("CORO_SEED", seed.to_string())]);
    let mut lines = BufReader::new(load.stdout.take().unwrap()).lines();
    hear(&mut lines, "measure now");
    let before = rt.worker_stats();
    let answers: usize = hear(&mut lines, "measured ").parse().unwrap();
    let after = rt.worker_stats();
    drop(load.stdin.take());
    assert!(load.wait().unwrap().success());
    acceptor.cancel();
    let _ = acceptor.join();
    assert!(answers > CONNECTIONS * 10, "only {answers} answers in the window");
    let busy: Vec<f64> = before.iter().zip(&after).map(|(b, a)| (a.busy - b.busy).as_secs_f64()).collect();
    let mean = busy.iter().sum::<f64>() / workers as f64;
    let off = busy.iter().map(|b| (b - mean).abs() / mean * 100.0).fold(0.0, f64::max);
    println!(
        "seed {seed}: busy {busy:.3?} s, live {:?}: at most {off:.1} % off the mean",
        after.iter().map(|w| w.live).collect::<Vec<_>>()
    );
    off
}

#[test]
fn busy_time_is_spread_while_connections_come_and_go() {
    const NAME: &str = "busy_time_is_spread_while_connections_come_and_go";
    raise_the_limit();
    if role().is_some() {
        return paced_load();
    }
    let runs: usize = std::env::var("CORO_BALANCE_RUNS").map_or(2, |text| text.parse().unwrap());
    within(Duration::from_secs(60 * runs as u64), move || {
        let mut rng = Rng::from_environment();
        let mut off: Vec<f64> = (0..runs).map(|_| imbalance(NAME, rng.next() >> 16, 2)).collect();
        off.sort_by(f64::total_cmp);
        println!("{runs} runs: from {:.1} % to {:.1} %, median {:.1} %", off[0], off[runs - 1], off[runs / 2]);
        // The aim is 20 %; the rest is for machines that are busy with something else as well.
        assert!(off[0] <= 35.0, "{off:?}");
    });
}

/// Blocks its worker as a call into foreign code would.
fn wedge(time: Duration) {
    std::thread::sleep(time);
}

const WEDGED: Duration = Duration::from_millis(1400);

/// Spawns many tasks on worker 0, which then blocks: how long until the last of them has started elsewhere.
fn stranded(n: usize, hogs: usize) -> Duration {
    within(LONG, move || {
        let rt = runtime(2);
        let over = Arc::new(AtomicBool::new(false));
        // The other worker may have plenty to do.
        let others: Vec<_> = (0..hogs)
            .map(|_| {
                let over = over.clone();
                let hog = move || {
                    while !over.load(Ordering::Relaxed) {
                        work(5);
                        coro::yield_slice();
                    }
                };
                rt.block_on(|| coro::Builder::new().worker(1).spawn(hog).unwrap())
            })
            .collect();
        let starts = Arc::new(Mutex::new(Vec::new()));
        let s = starts.clone();
        let (done, wedged_at) = rt.block_on(move || {
            coro::Builder::new()
                .worker(0)
                .spawn(move || {
                    let tasks: Vec<_> = (0..n)
                        .map(|_| {
                            let s = s.clone();
                            coro::spawn(move || s.lock().unwrap().push((Instant::now(), coro::current_worker())))
                        })
                        .collect();
                    let at = Instant::now();
                    wedge(WEDGED);
                    (tasks, at)
                })
                .unwrap()
                .join()
                .unwrap()
        });
        over.store(true, Ordering::Relaxed);
        rt.block_on(move || done.into_iter().for_each(|t| t.join().unwrap()));
        drop(others);
        let starts = starts.lock().unwrap();
        assert_eq!(starts.len(), n);
        let last = starts.iter().map(|(at, _)| at.saturating_duration_since(wedged_at)).max().unwrap();
        assert!(last > WEDGED || starts.iter().all(|(_, w)| *w == Some(1)), "a task ran on a worker that was blocked");
        println!("{n} unstarted tasks beside {hogs} busy ones: the last started {last:?} after the block began");
        last
    })
}

#[test]
fn a_blocked_worker_strands_no_unstarted_task() {
    // The aim is 100 ms; more only for the sake of a busy machine. Stranded tasks would take all of `WEDGED`.
    for (n, hogs) in [(1, 0), (1000, 0), (1, 3), (1000, 3)] {
        let last = stranded(n, hogs);
        assert!(last < Duration::from_millis(400), "{n} tasks, {hogs} hogs: {last:?}");
    }
}

#[test]
fn a_blocked_worker_silences_no_connection_of_another() {
    within(LONG, || {
        let rt = runtime(2);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let serve = |mut conn: TcpStream| {
            let mut b = [0];
            while conn.read_exact(&mut b).is_ok() {
                let me = coro::current_worker().unwrap() as u8;
                if conn.write_all(&[me]).is_err() {
                    break;
                }
            }
        };
        // The acceptor sits on the worker that will not block.
        let acceptor = rt.block_on(move || {
            coro::Builder::new()
                .worker(1)
                .spawn(move || {
                    loop {
                        let Ok((conn, _)) = listener.accept() else { return };
                        coro::spawn(move || serve(conn));
                    }
                })
                .unwrap()
        });
        let mut all: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(addr).unwrap()).collect();
        let ask = |s: &mut std::net::TcpStream| {
            s.set_nodelay(true).unwrap();
            s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let start = Instant::now();
            let mut who = [9];
            s.write_all(b"?").unwrap();
            s.read_exact(&mut who).unwrap();
            (who[0], start.elapsed())
        };
        let mine: Vec<u8> = all.iter_mut().map(|s| ask(s).0).collect();
        let on = |w: u8| mine.iter().filter(|m| **m == w).count();
        println!("{} connections on worker 0, {} on worker 1", on(0), on(1));
        assert!(on(0) > 20 && on(1) > 20, "the connections are not spread");
        let blocked = Arc::new(AtomicBool::new(true));
        let tells = blocked.clone();
        let wedged = rt.block_on(move || {
            coro::Builder::new()
                .worker(0)
                .spawn(move || {
                    wedge(WEDGED);
                    tells.store(false, Ordering::SeqCst);
                })
                .unwrap()
        });
        std::thread::sleep(Duration::from_millis(20));
        let mut times = Vec::new();
        let end = Instant::now() + WEDGED / 2;
        while Instant::now() < end {
            for (s, _) in all.iter_mut().zip(&mine).filter(|(_, m)| **m == 1) {
                let (who, took) = ask(s);
                assert_eq!(who, 1, "a started task changed its worker");
                times.push(took);
            }
            // New connections come through as well.
            let mut new = std::net::TcpStream::connect(addr).unwrap();
            let (who, took) = ask(&mut new);
            assert_eq!(who, 1);
            times.push(took);
        }
        assert!(blocked.load(Ordering::SeqCst), "the worker was not blocked for long enough to see anything");
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{} requests beside a blocked worker: median {median:?}, worst {worst:?}", times.len());
        assert!(worst < Duration::from_millis(500) && median < Duration::from_millis(50));
        wedged.join().unwrap();
        // Those on the blocked worker were only late.
        all.iter_mut().for_each(|s| assert!(ask(s).1 < Duration::from_secs(20)));
        acceptor.cancel();
        let _ = acceptor.join();
    });
}
