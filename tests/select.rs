//! Choices: one arm alone does what it stands for, whoever else wants it; nothing is lost, nothing is left, nobody starves.

mod util;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::net::unix::UnixStream;
use coro::net::{TcpListener, TcpStream, UdpSocket};
use coro::select;
use coro::sync::{mpmc, mpsc, oneshot};
use coro::{Builder, JoinHandle};
use util::{Rng, masked, runtime, until, within};

const LIMIT: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(3600);

fn in_task(f: impl FnOnce() + Send + 'static) {
    within(LIMIT, || runtime(2).block_on(f));
}

/// In tasks, and on plain threads.
fn everywhere(f: impl Fn() + Clone + Send + 'static) {
    let again = f.clone();
    in_task(again);
    within(LIMIT, f);
}

fn parked<T>(task: &JoinHandle<T>) {
    until(LIMIT, "it waits", || coro::where_is(task.id()).is_some_and(|t| t.wait.starts_with("select ")));
}

#[test]
fn each_arm_does_what_it_says() {
    everywhere(|| {
        let (tx, rx) = mpmc::channel();
        let (stx, srx) = mpsc::sync_channel::<u32>(1);
        let nothing = mpmc::never::<()>();
        // Nothing can be done: the default, then the time.
        let none = coro::select! { recv(rx) -> m => m.unwrap(), default => 0 };
        assert_eq!(none, 0);
        let begun = Instant::now();
        coro::select! {
            recv(nothing) -> _ => unreachable!(),
            after(Duration::from_millis(3)) => {}
        }
        assert!(begun.elapsed() >= Duration::from_millis(3));
        let past = coro::select! { recv(nothing) -> _ => false, at(begun) => true };
        assert!(past);
        // A message, room for one.
        tx.send(7).unwrap();
        assert_eq!(coro::select! { recv(rx) -> m => m, recv(nothing) -> _ => unreachable!() }, Ok(7));
        coro::select! { send(stx, 1) -> r => r.unwrap(), recv(nothing) -> _ => unreachable!() }
        let full = coro::select! { send(stx, 2) -> _ => false, default => true };
        assert!(full && srx.recv() == Ok(1));
        // The other side is gone.
        drop((tx, srx));
        assert!(coro::select! { recv(rx) -> m => m.is_err(), recv(nothing) -> _ => false });
        let back = coro::select! { send(stx, 3) -> r => r, recv(nothing) -> _ => unreachable!() };
        assert_eq!(back.unwrap_err().0, 3);
        // The end of a task, which is joined by that arm alone.
        let gate = Arc::new(AtomicBool::new(false));
        let opened = gate.clone();
        let mut waits = coro::spawn(move || {
            while !opened.load(Ordering::SeqCst) {
                coro::yield_slice();
            }
            5
        });
        coro::select! { join(waits) -> _ => unreachable!(), after(Duration::from_millis(2)) => {} }
        gate.store(true, Ordering::SeqCst);
        assert_eq!(coro::select! { join(waits) -> r => r.unwrap(), recv(nothing) -> _ => unreachable!() }, 5);
        let mut panics: JoinHandle<()> = coro::spawn(|| panic!("as it should"));
        let payload = coro::select! { join(&mut panics) -> r => r.unwrap_err(), };
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"as it should"));
        // A future that goes on from choice to choice.
        let mut polls = 0;
        let mut counts = std::future::poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls < 50 { std::task::Poll::Pending } else { std::task::Poll::Ready(polls) }
        });
        assert_eq!(coro::select! { future(&mut counts) -> n => n, recv(nothing) -> _ => unreachable!() }, 50);
        assert_eq!(coro::select! { future(async { 6 }) -> n => n, recv(nothing) -> _ => unreachable!() }, 6);
    });
}

/// What the code of an arm may do: everything that the code around it may.
#[test]
fn the_code_of_an_arm_belongs_to_the_code_around() {
    fn first(rx: &mpmc::Receiver<u32>) -> Result<u32, mpmc::RecvError> {
        loop {
            coro::select! {
                recv(rx) -> m => {
                    if m? > 1 {
                        return m;
                    }
                    continue;
                }
                after(LONG) => break,
            }
        }
        Ok(0)
    }
    in_task(|| {
        let (tx, mut rx) = mpmc::channel();
        (1..=3).for_each(|n| tx.send(n).unwrap());
        assert_eq!(first(&rx), Ok(2));
        // What the arm borrowed is free again; sources may be temporaries.
        coro::select! {
            recv(rx.clone()) -> m => {
                assert_eq!(m, Ok(3));
                rx = mpmc::never();
            }
        }
        assert!(coro::select! { recv(&rx) -> _ => false, default => true });
        drop(tx);
        let mut task = coro::spawn(|| 1);
        let task = coro::select! { join(task) -> r => r.map(|n| n + 1).map_err(|_| task) };
        assert_eq!(task.unwrap(), 2);
    });
}

#[test]
fn sockets_are_waited_for_beside_other_things() {
    everywhere(|| {
        let nothing = mpmc::never::<()>();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let none = coro::select! { accept(listener) -> _ => false, after(Duration::from_millis(2)) => true };
        assert!(none);
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let (mut server, peer) =
            coro::select! { accept(listener) -> c => c.unwrap(), recv(nothing) -> _ => unreachable!() };
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(coro::select! { readable(server) -> _ => false, default => true });
        assert!(coro::select! { readable(server) -> _ => false, writable(server) -> r => r.is_ok() });
        client.write_all(b"one").unwrap();
        coro::select! { readable(server) -> r => r.unwrap(), recv(nothing) -> _ => unreachable!() }
        let mut buf = [0; 8];
        assert_eq!(server.read(&mut buf).unwrap(), 3);
        // What is left over is readiness as well; so is the end.
        client.write_all(b"two").unwrap();
        coro::select! { readable(server) -> r => r.unwrap() }
        assert_eq!(server.read(&mut buf[..2]).unwrap(), 2);
        coro::select! { readable(server) -> r => r.unwrap() }
        assert_eq!(server.read(&mut buf).unwrap(), 1);
        drop(client);
        coro::select! { readable(server) -> r => r.unwrap() }
        assert_eq!(server.read(&mut buf).unwrap(), 0);
        // Room comes when somebody reads.
        let (mut a, mut b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(n) = a.write(&[0; 4096]) {
            written += n;
        }
        let full = coro::select! { writable(a) -> _ => false, after(Duration::from_millis(2)) => true };
        assert!(full);
        let reads = std::thread::spawn(move || {
            b.read_exact(&mut vec![0; written]).unwrap();
            b
        });
        coro::select! { writable(a) -> r => r.unwrap(), recv(nothing) -> _ => unreachable!() }
        drop(reads.join().unwrap());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.send_to(b"x", udp.local_addr().unwrap()).unwrap();
        coro::select! { readable(udp) -> r => r.unwrap(), recv(nothing) -> _ => unreachable!() }
    });
}

/// A task that waits for many things at once is woken by each, the socket's remembered readiness or none.
#[test]
fn whatever_comes_first_ends_the_wait() {
    in_task(|| {
        for round in 0..40 {
            let (tx, rx) = mpsc::channel::<u32>();
            let (to, from) = mpmc::sync_channel::<u32>(0);
            let (mut a, b) = UnixStream::pair().unwrap();
            let (fire, fired) = coro::sync::oneshot::channel::<u32>();
            let mut task = coro::spawn(move || fired.recv().unwrap_or(0));
            let waits = Builder::new()
                .worker(round % 2)
                .spawn(move || {
                    let r = coro::select! {
                        recv(rx) -> m => ("recv", m.unwrap()),
                        send(to, 1) -> r => ("send", r.map(|()| 1).unwrap()),
                        join(task) -> r => ("join", r.unwrap()),
                        readable(b) -> r => ("read", r.map(|()| 1).unwrap()),
                        after(LONG) => ("after", 0),
                    };
                    (r, rx, b)
                })
                .unwrap();
            parked(&waits);
            let what = match round % 4 {
                0 => {
                    tx.send(1).unwrap();
                    "recv"
                }
                1 => {
                    assert_eq!(from.recv(), Ok(1));
                    "send"
                }
                2 => {
                    fire.send(1).unwrap();
                    "join"
                }
                _ => {
                    a.write_all(&[1]).unwrap();
                    "read"
                }
            };
            let (got, rx, mut b) = waits.join().unwrap();
            assert_eq!(got, (what, 1));
            // Nobody stands in a line any more: what comes now is not swallowed.
            if what != "recv" {
                tx.send(2).unwrap();
                assert_eq!(rx.try_recv(), Ok(2));
            }
            assert!(from.try_recv().is_err(), "somebody still sends");
            if what != "read" {
                a.write_all(&[3]).unwrap();
            }
            assert_eq!(b.read(&mut [0; 4]).unwrap(), 1);
        }
    });
}

#[test]
fn of_several_that_are_ready_each_is_first_about_as_often() {
    everywhere(|| {
        const N: usize = 3000;
        let ends: Vec<_> = (0..3).map(|_| mpmc::channel::<()>()).collect();
        ends.iter().for_each(|(tx, _)| (0..N).for_each(|_| tx.send(()).unwrap()));
        let (a, b, c) = (&ends[0].1, &ends[1].1, &ends[2].1);
        let mut counts = [0; 4];
        for _ in 0..N {
            let i = coro::select! { recv(a) -> _ => 0, recv(b) -> _ => 1, recv(c) -> _ => 2, default => 3 };
            counts[i] += 1;
        }
        assert!(counts[..3].iter().all(|n| *n > N / 4) && counts[3] == 0, "{counts:?}");
    });
}

/// Every message arrives once, whatever arms it could have gone to and whoever gives up meanwhile.
#[test]
fn messages_go_to_one_arm_of_one_task() {
    const EACH: usize = if cfg!(debug_assertions) { 400 } else { 4000 };
    const SENDERS: usize = 4;
    for workers in [1, 4] {
        within(LIMIT, move || {
            runtime(workers).block_on(|| {
                let bounds = [None, Some(0), Some(1), Some(8)];
                let channels: Vec<_> = bounds
                    .map(|bound| bound.map_or_else(mpmc::channel::<usize>, mpmc::sync_channel))
                    .into_iter()
                    .collect();
                let seen: Arc<Vec<AtomicUsize>> = Arc::new((0..SENDERS * EACH).map(|_| AtomicUsize::new(0)).collect());
                let txs: Vec<_> = channels.iter().map(|c| c.0.clone()).collect();
                let rxs: Vec<_> = channels.iter().map(|c| c.1.clone()).collect();
                drop(channels);
                let senders: Vec<_> = (0..SENDERS)
                    .map(|s| {
                        let txs = txs.clone();
                        coro::spawn(move || {
                            let mut rng = Rng::new(s as u64);
                            for n in 0..EACH {
                                let mut message = s * EACH + n;
                                // Into any of two channels; now and then it takes too long and is tried again.
                                loop {
                                    let (i, j) = (rng.below(4), rng.below(4));
                                    let mut one = select::send(&txs[i], message);
                                    let mut limit = select::after(Duration::from_micros(rng.below(200) as u64));
                                    if i == j {
                                        if select::wait(&mut [&mut one, &mut limit]) == 0 {
                                            break one.take().unwrap();
                                        }
                                    } else {
                                        let mut other = select::recv(&EMPTY.1);
                                        match select::wait(&mut [&mut one, &mut limit, &mut other]) {
                                            0 => break one.take().unwrap(),
                                            1 => {}
                                            _ => unreachable!(),
                                        }
                                    }
                                    message = one.into_value().expect("it was not sent");
                                }
                            }
                        })
                    })
                    .collect();
                drop(txs);
                let receivers: Vec<_> = (0..SENDERS)
                    .map(|r| {
                        let (rxs, seen) = (rxs.clone(), seen.clone());
                        let receives = move || {
                            let mut open = vec![true; rxs.len()];
                            while open.iter().any(|o| *o) {
                                let live: Vec<usize> = (0..rxs.len()).filter(|i| open[*i]).collect();
                                let mut arms: Vec<_> = live.iter().map(|i| select::recv(&rxs[*i])).collect();
                                let mut all: Vec<&mut dyn select::Arm> = arms.iter_mut().map(|a| a as _).collect();
                                let first = select::wait(&mut all);
                                match arms[first].take() {
                                    Ok(m) => _ = seen[m].fetch_add(1, Ordering::Relaxed),
                                    Err(_) => open[live[first]] = false,
                                }
                            }
                        };
                        // Half of them on plain threads.
                        match r % 2 {
                            0 => Ok(coro::spawn(receives)),
                            _ => Err(std::thread::spawn(receives)),
                        }
                    })
                    .collect();
                // Some who begin to receive and are cancelled: what was handed to them they return, so nothing is lost.
                let gone: Vec<_> = (0..20)
                    .map(|_| {
                        let (rxs, seen) = (rxs.clone(), seen.clone());
                        let task = coro::spawn(move || {
                            loop {
                                let m = coro::select! { recv(rxs[0]) -> m => m, recv(rxs[1]) -> m => m, recv(rxs[2]) -> m => m };
                                match m {
                                    Ok(m) => _ = seen[m].fetch_add(1, Ordering::Relaxed),
                                    Err(_) => return,
                                }
                            }
                        });
                        coro::sleep(Duration::from_micros(300));
                        task.cancel();
                        task
                    })
                    .collect();
                senders.into_iter().for_each(|s| s.join().unwrap());
                drop(rxs);
                for r in receivers {
                    match r {
                        Ok(task) => task.join().unwrap(),
                        Err(thread) => thread.join().unwrap(),
                    }
                }
                gone.into_iter().for_each(|t| drop(t.join()));
                let wrong = seen.iter().filter(|n| n.load(Ordering::Relaxed) != 1).count();
                assert_eq!(wrong, 0, "messages were lost or came twice");
            });
        });
    }
}

/// A channel that is always there and never has anything.
static EMPTY: std::sync::LazyLock<(mpmc::Sender<u8>, mpmc::Receiver<u8>)> = std::sync::LazyLock::new(mpmc::channel);

/// Two choices that could serve each other do, and one that could serve itself does not.
#[test]
fn choices_meet_choices() {
    const N: usize = if cfg!(debug_assertions) { 500 } else { 5000 };
    for workers in [1, 2] {
        within(LIMIT, move || {
            runtime(workers).block_on(|| {
                let (a, b) = (mpmc::sync_channel::<usize>(0), mpmc::sync_channel::<usize>(0));
                let party = |send: mpmc::Sender<usize>, recv: mpmc::Receiver<usize>| {
                    coro::spawn(move || {
                        let (mut sent, mut got) = (0, 0);
                        while sent + got < N {
                            coro::select! {
                                send(send, sent) -> r => { r.unwrap(); sent += 1 }
                                recv(recv) -> m => { m.unwrap(); got += 1 }
                            }
                        }
                        (sent, got)
                    })
                };
                let one = party(a.0.clone(), b.1.clone());
                let two = party(b.0.clone(), a.1.clone());
                let (one, two) = (one.join().unwrap(), two.join().unwrap());
                assert_eq!((one.0, one.1), (two.1, two.0));
                assert_eq!(one.0 + one.1, N);
                // Both ends of one channel in one choice.
                let alone = coro::select! {
                    send(a.0, 1) -> _ => false,
                    recv(a.1) -> _ => false,
                    after(Duration::from_millis(5)) => true,
                };
                assert!(alone);
            });
        });
    }
}

#[test]
fn a_result_that_nobody_took_is_not_lost_in_the_next_wait() {
    everywhere(|| {
        let (tx, rx) = mpmc::channel();
        let (once_tx, mut once_rx) = oneshot::channel();
        let mut task = coro::spawn(|| 3);
        until(LIMIT, "the task's end", || task.is_finished());
        for n in 1..=5 {
            tx.send(n).unwrap();
        }
        once_tx.send("first").unwrap();
        let mut message = select::recv(&rx);
        let mut once = select::oneshot(&mut once_rx);
        let mut end = select::join(&mut task);
        for _ in 0..64 {
            select::wait(&mut [&mut message, &mut once, &mut end]);
        }
        assert_eq!((message.take(), once.take(), end.take().unwrap()), (Ok(1), Ok("first"), 3));
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [2, 3, 4, 5]);
    });
}

#[test]
fn an_interrupt_ends_a_choice_and_loses_nothing() {
    in_task(|| {
        for round in 0..200 {
            let (tx, rx) = mpmc::sync_channel::<u32>(0);
            let (mut a, b) = UnixStream::pair().unwrap();
            let mut child = coro::spawn(coro::park);
            let (ended, rx2) = (child.task(), rx.clone());
            let task = coro::spawn(move || {
                let r = coro::select! {
                    recv(rx2) -> m => m.unwrap(),
                    readable(b) -> _ => 0,
                    join(child) -> _ => 0,
                    after(LONG) => 0,
                };
                (r, b)
            });
            if round % 2 == 0 {
                parked(&task);
            }
            let sends = coro::spawn(move || tx.send(7).is_ok());
            task.cancel();
            // Received by the task that is being cancelled, or by the next one.
            match task.join() {
                Ok((m, mut b)) => {
                    assert_eq!(m, 7);
                    a.write_all(b"x").unwrap();
                    assert_eq!(b.read(&mut [0; 4]).unwrap(), 1);
                }
                Err(payload) => {
                    assert!(coro::is_cancel(&*payload));
                    assert_eq!(rx.recv(), Ok(7));
                }
            }
            assert!(sends.join().unwrap());
            ended.cancel();
        }
        // Also one that always has something to do.
        let task = coro::spawn(|| {
            loop {
                coro::select! { after(Duration::ZERO) => {} }
            }
        });
        coro::yield_slice();
        task.cancel();
        let ended: Result<(), _> = task.join();
        assert!(coro::is_cancel(&*ended.unwrap_err()));
        // A time limit around it.
        let never = mpmc::never::<()>();
        let limited = coro::timeout(Duration::from_millis(2), || coro::select! { recv(never) -> _ => () });
        assert!(limited.is_err());
    });
}

#[test]
fn a_wait_inside_no_switch_is_refused_and_leaves_nothing() {
    in_task(|| {
        let (tx, rx) = mpmc::sync_channel::<u32>(0);
        let waits = || coro::no_switch(|| coro::select! { recv(rx) -> m => m.unwrap() });
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(waits));
        assert!(refused.is_err());
        assert!(tx.try_send(1).is_err(), "it still stands in line");
    });
}

#[test]
fn a_oneshot_channel_is_an_arm_until_it_has_given_its_message() {
    in_task(|| {
        let (answer, mut asked) = oneshot::channel::<u32>();
        let (ticks, ticking) = mpsc::channel::<u32>();
        ticks.send(1).unwrap();
        // Another arm ends the wait: the receiver stays.
        coro::select! {
            oneshot(asked) -> early => panic!("{early:?}"),
            recv(ticking) -> tick => assert_eq!(tick, Ok(1)),
        }
        let answers = coro::spawn(move || answer.send(7).unwrap());
        coro::select! {
            oneshot(&mut asked) -> message => assert_eq!(message, Ok(7)),
            recv(ticking) -> tick => panic!("{tick:?}"),
        }
        answers.join().unwrap();
        assert!(coro::select! { oneshot(asked) -> again => again.is_err() }, "it has been given");
        let (gone, mut never) = oneshot::channel::<u32>();
        let leaves = coro::spawn(move || drop(gone));
        assert!(coro::select! { oneshot(never) -> m => m.is_err(), recv(ticking) -> _ => false });
        leaves.join().unwrap();
        let (_kept, mut empty) = oneshot::channel::<u32>();
        assert!(coro::select! { oneshot(empty) -> _ => false, default => true });
        let (answer, mut named) = oneshot::channel_named::<u32>("answer");
        let waits = coro::spawn(move || coro::select! { oneshot(named) -> m => m, after(LONG) => Ok(0) });
        parked(&waits);
        let text = masked(&coro::where_is(waits.id()).unwrap().wait);
        assert_eq!(text, "select over 2: recv oneshot \"answer\" tests/select.rs:L for at most T more");
        answer.send(3).unwrap();
        assert_eq!(waits.join().unwrap(), Ok(3));
        // After a choice in vain it is a receiver as any other.
        assert!(empty.recv_timeout(Duration::from_millis(1)).is_err());
    });
}

#[test]
fn a_oneshot_that_races_with_a_channel_is_lost_and_doubled_never() {
    let mut rng = Rng::from_environment();
    within(LIMIT, move || {
        runtime(3).block_on(move || {
            let end = Instant::now() + Duration::from_millis(500);
            while Instant::now() < end {
                let ((one, mut first), (two, second)) = (oneshot::channel::<u32>(), mpsc::channel::<u32>());
                let (before_one, before_two) = (rng.below(3), rng.below(3));
                let ones = coro::spawn(move || {
                    (0..before_one).for_each(|_| coro::yield_slice());
                    one.send(1).is_ok()
                });
                let twos = coro::spawn(move || {
                    (0..before_two).for_each(|_| coro::yield_slice());
                    two.send(2).is_ok()
                });
                let (mut has_one, mut has_two) = (false, false);
                while !(has_one && has_two) {
                    if has_one {
                        assert_eq!(second.recv(), Ok(2));
                        has_two = true;
                    } else if has_two {
                        assert_eq!(coro::select! { oneshot(first) -> m => m }, Ok(1));
                        has_one = true;
                    } else {
                        coro::select! {
                            oneshot(first) -> m => has_one = m == Ok(1),
                            recv(second) -> m => has_two = m == Ok(2),
                        }
                    }
                }
                assert!(ones.join().unwrap() && twos.join().unwrap());
            }
        });
    });
}

#[test]
fn views_list_what_is_waited_for() {
    in_task(|| {
        let (tx, rx) = mpsc::channel_named::<u32>("jobs");
        let (full, _kept) = mpmc::sync_channel::<u32>(1);
        full.send(0).unwrap();
        let (a, _b) = UnixStream::pair().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&a);
        let child = Builder::new().name("child").spawn(coro::park).unwrap();
        let joined = child.id();
        let task = coro::spawn(move || {
            let mut child = child;
            coro::select! {
                recv(rx) -> _ => {},
                send(full, 1) -> _ => {},
                join(child) -> _ => {},
                readable(a) -> _ => {},
                future(std::future::pending::<()>()) -> _ => {},
                after(LONG) => {}
            }
        });
        parked(&task);
        let text = masked(&coro::where_is(task.id()).unwrap().wait);
        let file = "tests/select.rs:L";
        assert_eq!(
            text,
            format!(
                "select over 6: recv channel \"jobs\" {file} (1 sender; nothing sent yet) \
                 | send channel {file} (1 of 1 message; nothing received yet) | join #N \"child\" | read fd N unix → pid N \
                 | future core::future::pending::Pending<()> {file} (for T, polled 1 time; never woken) for at most T more"
            )
        );
        let snapshot = coro::inspect::Snapshot::take(&coro::inspect::Options::default());
        let row = snapshot.tasks.iter().find(|t| t.id == task.id()).unwrap();
        assert_eq!(row.wait.as_ref().map(|w| w.kind), Some("select"));
        let jobs = snapshot.objects.iter().find(|o| o.name.as_deref() == Some("jobs")).unwrap();
        assert_eq!((jobs.kind, jobs.waiters), ("channel", 1));
        let edges: Vec<_> = snapshot.edges.iter().filter(|e| e.from == task.id()).collect();
        assert!(edges.iter().any(|e| e.to == coro::inspect::Party::Task(joined)));
        assert!(edges.iter().all(|e| !e.certain));
        let event = coro::inspect::events().into_iter().find(|e| e.fd == fd).unwrap();
        assert_eq!((event.direction, event.waiting[0].task), ("read", task.id()));
        // A circle over a choice is none: something else may end it.
        assert!(coro::inspect::deadlocks().is_empty());
        drop(tx);
        let id = task.id();
        task.join().unwrap();
        // The number may be another test's by now.
        assert!(!coro::inspect::events().iter().any(|e| e.waiting.iter().any(|w| w.task == id)));
    });
}
